/* SPDX-License-Identifier: Apache-2.0 */
/* The options of image build. */
#pragma once

#include "cli/cli.h"

struct image_build_options {
	const char *suite;
	u64 size_bytes;
	struct cli_list packages;
	bool verbose;
};

void image_build_options_init(void *values);
