/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "cli/snapshot.h"

#define SNAPSHOT_ROWS_MAX 512

struct snapshot_options {
	const char *note;
	bool force;
};

struct fork_options {
	u32 count;
	const char *name;
	bool keep_identity, full;
};

void fork_options_init(void *values);
/* Says what is wrong; CLI_FAILED. */
int snapshot_fail(const struct err *err);
/* Of a machine that goes on: its agent sets it. */
void snapshot_set_clock(struct machine *m);

struct snapshot_row {
	char name[64], self[112]; /* "MACHINE/SNAP" */
	struct snapshot_info info;
	bool has_parent, is_printed;
};
