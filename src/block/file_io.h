/* SPDX-License-Identifier: Apache-2.0 */
/* One system call on a file, done asynchronously: by io_uring or by threads.
 * Private to block/. The eventfd is signalled when there is something to
 * reap. Submit and reap are called from the loop's thread only. */
#pragma once

#include <sys/uio.h>

#include "block/block.h"

#define FILE_IO_VECS  64
#define FILE_IO_DEPTH 64 /* steps in flight */

enum file_io_kind { FILE_READ, FILE_WRITE, FILE_SYNC, FILE_ALLOCATE };

struct file_io_step {
	enum file_io_kind kind;
	u64 offset;
	u64 len;			 /* ALLOCATE */
	int mode;			 /* ALLOCATE: FALLOC_FL_* */
	struct iovec vecs[FILE_IO_VECS]; /* READ, WRITE */
	int vec_count;
	int result;	  /* bytes, 0 or -errno */
	struct list link; /* the engine's, then the reaper's */
};

struct file_io;
struct file_io_ops {
	void (*submit)(struct file_io *io, struct file_io_step *step);
	/* Appends finished steps to `out`; waits for one when `wait`. */
	void (*reap)(struct file_io *io, bool wait, struct list *out);
	void (*free)(struct file_io *io); /* nothing is in flight */
};
struct file_io {
	const struct file_io_ops *ops;
};

int uring_io_new(int fd, int event_fd, struct file_io **out, struct err *err);
int thread_io_new(int fd, int event_fd, struct file_io **out, struct err *err);
