/* SPDX-License-Identifier: Apache-2.0 */
/* How a machine was started: what was typed, so that a snapshot of it can be
 * started the same way. Kept as launch.json in its folder:
 * {"cwd": …, "image": …, "options": ["--cpus", "2", …]}. */
#pragma once

#include "cli/machine.h"

#define LAUNCH_RECORD "launch.json"

int launch_record_write(const char *dir, const char *image,
			const struct machine_options *o, struct err *err);

struct launch_record {
	json_t *json;		 /* the strings' owner */
	const char *cwd, *image; /* image: NULL for none */
	struct machine_options options;
};

int launch_record_read(const char *dir, struct launch_record *out,
		       struct err *err);
void launch_record_free(struct launch_record *r);
