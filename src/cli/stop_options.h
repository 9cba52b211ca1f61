/* SPDX-License-Identifier: Apache-2.0 */
/* The options of stop and delete. */
#pragma once

#include "cli/cli.h"

struct stop_options {
	bool force;
	u32 timeout_s;
};

void stop_options_init(void *values);
