/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "cli/cli.h"

struct exec_options {
	bool tty;
};
