/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"
#include "cli/cli.h"

int main(int argc, char **argv)
{
	log_set_prefix("skerry");
	return cli_dispatch(cli_verbs, "skerry", argc - 1, argv + 1);
}
