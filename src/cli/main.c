/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>

#include "base/log.h"
#include "cli/cli.h"

int main(int argc, char **argv)
{
	log_set_prefix("skerry");
	signal(SIGXFSZ, SIG_IGN); /* a write beyond RLIMIT_FSIZE: EFBIG */
	return cli_dispatch(cli_verbs, "skerry", argc - 1, argv + 1);
}
