/* SPDX-License-Identifier: Apache-2.0 */
/* The state file of a snapshot: docs/formats/snapshot.md. It lies beside the
 * memory file, which is RAM as it is.
 */
#pragma once

#include "base/buf.h"
#include "base/err.h"
#include "base/types.h"

#define SNAPSHOT_VERSION   1u
#define SNAPSHOT_BYTES_MAX (64 * MIB)

enum snapshot_section {
	SNAPSHOT_CONFIG = 1, /* JSON: what made the machine */
	SNAPSHOT_STATE = 2,  /* machine_save() */
	SNAPSHOT_SUMS = 3,   /* u32 little-endian: CRC-32 of each chunk */
};

/* What a file holds. Borrowed pointers: into the caller's memory when written,
 * into `bytes` when read. */
struct snapshot_file {
	const char *config;
	size_t config_bytes;
	const u8 *state;
	size_t state_bytes;
	u64 memory_bytes;  /* of RAM, and of the memory file */
	u64 written_bytes; /* of it, what is not in holes */
	const u8 *sums;	   /* not aligned: ld_le32 */
	size_t sum_count;
};

void snapshot_file_write(const struct snapshot_file *f, struct buf *out);
/* Hostile bytes. -EINVAL with the id "snapshot.damaged", or -ENOTSUP with
 * "snapshot.newer", and why. */
int snapshot_file_read(const u8 *bytes, size_t len, struct snapshot_file *out,
		       struct err *err);
/* The same of a file; *out_bytes is the caller's to free. */
int snapshot_file_load(int fd, u8 **out_bytes, struct snapshot_file *out,
		       struct err *err);
/* Reads the whole memory file and compares it with the sums. */
int snapshot_memory_check(const struct snapshot_file *f, int memory_fd,
			  struct err *err);
