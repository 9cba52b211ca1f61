/* SPDX-License-Identifier: Apache-2.0 */
/* Writes guest RAM to a file while the guest goes on.
 *
 * memory_save_start() forks: the child has all memory as it was at that
 * moment, because RAM is private memory (os/ram.h), and writes it page for
 * page at its own offset; pages of zeroes become holes. The guest only waits
 * for the fork, and pays for the pages that it changes meanwhile.
 *
 * The loop's thread; the machine is paused around memory_save_start().
 */
#pragma once

#include "base/err.h"
#include "base/types.h"
#include "loop/loop.h"

/* RAM is checked in pieces of this size; the last may be shorter. */
#define MEMORY_CHUNK_BYTES (2 * MIB)

struct memory_save;

struct memory_save_config {
	struct loop *loop;
	const u8 *ram;
	u64 bytes; /* whole pages, > 0 */
	int fd;	   /* borrowed; an empty regular file, open for writing */
	bool is_temporary; /* the file need not outlive a crash of the host */
	/* From the loop. done and total in bytes of RAM. May be NULL. */
	void (*progress)(void *opaque, u64 done, u64 total);
	/* From the loop, once, and never after memory_save_free. rc: 0, or
	 * -errno of what failed: -ECHILD when the child was killed. */
	void (*done)(void *opaque, int rc);
	void *opaque;
};

int memory_save_start(const struct memory_save_config *cfg,
		      struct memory_save **out, struct err *err);
/* Valid from done() with rc 0 on: CRC-32 of each chunk, and the bytes that are
 * not in holes. */
const u32 *memory_save_sums(const struct memory_save *s, size_t *out_count);
u64 memory_save_written(const struct memory_save *s);
/* Ends the child if it still writes. */
void memory_save_free(struct memory_save *s);

static inline size_t memory_chunk_count(u64 bytes)
{
	return (size_t)((bytes + MEMORY_CHUNK_BYTES - 1) / MEMORY_CHUNK_BYTES);
}
