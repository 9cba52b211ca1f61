/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "cli/snapshot.h"

#define SNAPSHOT_ROWS_MAX 512

struct snapshot_options {
	const char *note;
	bool force;
};

struct snapshot_row {
	char name[64];
	struct snapshot_info info;
};
