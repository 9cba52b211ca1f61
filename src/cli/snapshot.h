/* SPDX-License-Identifier: Apache-2.0 */
/* The snapshots of a machine: folders DATA/snapshots/NAME/SNAP with
 *
 *	state, memory	docs/formats/snapshot.md
 *	disk/		the machine's own disk, if it has one: layers.h
 *	launch.json	launch_record.h
 *	info.json	{created, note, parent, pause_ns, memory_bytes}
 *
 * A folder gets its name when everything in it is on the disk.
 */
#pragma once

#include "api/agent_proto.h"
#include "cli/machine.h"

struct snapshot_info {
	i64 created; /* seconds, UTC */
	char note[512];
	char parent[112]; /* "MACHINE/SNAP": what it came from; "": nothing */
	u64 pause_ns, memory_bytes;
	u64 used_bytes; /* that its files take, and no one else's */
};

/* The folder of a machine's snapshots, or of one. -EINVAL: not a name. */
int snapshot_dir(const char *machine, const char *name, char *out,
		 struct err *err);
/* -ENOENT with the id "snapshot.missing". */
int snapshot_find(const char *machine, const char *name, char *out_dir,
		  struct snapshot_info *out_info, struct err *err);
/* "MACHINE/SNAP" that a machine came from last; "" for none. */
void snapshot_head(const char *machine, char *out, size_t cap);
#define SNAPSHOT_SUSPENDED "suspended" /* what suspend makes */

/* Of a running machine. */
struct snapshot_wish {
	const char *machine;
	const char *name, *note; /* name "": by the time */
	bool ends_machine; /* it does not go on, and its process ends when the
			    * snapshot is there */
	bool shows_progress;
	bool is_hidden; /* it gets no name; its folder is the caller's to
			 * remove */
};
struct snapshot_made {
	char name[64];
	char dir[MACHINE_PATH_MAX + 128];
	struct snapshot_info info;
};
int snapshot_create(const struct snapshot_wish *w, struct snapshot_made *out,
		    struct err *err);

/* Starts a machine, which does not run, from a snapshot's folder. */
struct snapshot_start {
	const char *dir, *name;
	const char *head; /* "MACHINE/SNAP", for the next one's parent; "" */
	bool is_fork; /* without the host ports, which are the other's */
	/* Then it is another machine than the one that was saved, which its
	 * agent has to be told, too. NULL: it has the same identity. */
	const struct agent_identity *identity;
};
int snapshot_start(const struct snapshot_start *how, struct machine *out,
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
