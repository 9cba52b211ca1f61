/* SPDX-License-Identifier: Apache-2.0 */
/* The snapshots of a machine: folders DATA/snapshots/NAME/SNAP with
 *
 *	state, memory	docs/formats/snapshot.md
 *	disk/		the machine's own disk, if it has one: layers.h
 *	launch.json	launch_record.h
 *	info.json	{created, note, pause_ns, memory_bytes, written_bytes}
 *
 * A folder gets its name when everything in it is on the disk.
 */
#pragma once

#include "cli/machine.h"

struct snapshot_info {
	i64 created; /* seconds, UTC */
	char note[512];
	u64 pause_ns, memory_bytes;
	u64 used_bytes; /* that its files take, and no one else's */
};

/* The folder of a machine's snapshots, or of one. -EINVAL: not a name. */
int snapshot_dir(const char *machine, const char *name, char *out,
		 struct err *err);
/* -ENOENT with the id "snapshot.missing". */
int snapshot_find(const char *machine, const char *name, char *out_dir,
		  struct snapshot_info *out_info, struct err *err);
#define SNAPSHOT_SUSPENDED "suspended" /* what suspend makes */

/* Of a running machine. name "": by the time. out_name has room for 64.
 * ends_machine: it does not go on, and its process ends when the snapshot is
 * there. */
int snapshot_create(const char *machine, const char *name, const char *note,
		    bool ends_machine, bool shows_progress, char *out_name,
		    struct snapshot_info *out_info, struct err *err);
/* Starts the machine, which does not run, from it. */
int snapshot_restore(const char *machine, const char *name, struct machine *out,
		     struct err *err);
int snapshot_delete(const char *machine, const char *name, struct err *err);
/* Compares the checksums: of the state, and of the memory, which means to read
 * all of it. */
int snapshot_check_state(const char *machine, const char *name,
			 struct err *err);
int snapshot_check(const char *machine, const char *name, struct err *err);
/* All of a machine that is no more. */
int snapshot_delete_all(const char *machine, struct err *err);
/* Removes what was not finished, by processes that are gone. */
void snapshot_remove_stale(const char *machine);
