/* SPDX-License-Identifier: Apache-2.0 */
/* Disks: one asynchronous interface over a graph of nodes (raw files, qcow2
 * images and what they are overlays of; crypt and throttle later).
 *
 * All calls and completions are on the thread of the loop that the node was
 * opened with. A request's buffers stay valid until its completion, which is
 * never called from inside the submitting call. Offsets and lengths are
 * bytes, any alignment; the node checks ranges: a request beyond the end
 * completes with -EINVAL and touches nothing. A completed flush is durable.
 */
#pragma once

#include <sys/uio.h>

#include "base/err.h"
#include "base/types.h"
#include "loop/loop.h"

enum block_op {
	BLOCK_READ,
	BLOCK_WRITE,
	BLOCK_FLUSH,
	BLOCK_DISCARD,
	BLOCK_WRITE_ZEROES,
};

struct block_request {
	enum block_op op;
	u64 offset;
	u64 len; /* for READ and WRITE: the sum of the iovec */
	const struct iovec *iov;
	int iov_count;
	bool may_unmap; /* WRITE_ZEROES */
	/* 0 or -errno; partial transfers are retried inside the node. */
	void (*done)(struct block_request *req, int result);
	void *opaque;
	/* private to the node */
	struct list link;
	u64 progress;
	void *node_private;
};

struct block_node;

enum block_cache { BLOCK_WRITEBACK, BLOCK_NONE, BLOCK_UNSAFE };

/* How files are read and written: io_uring, or threads where the host has
 * none (AUTO finds out). */
enum block_io { BLOCK_IO_AUTO, BLOCK_IO_URING, BLOCK_IO_THREADS };

/* A file below an overlay, opened for reading and locked by the caller. */
struct block_layer {
	int fd;
	const char *format;
};

#define BLOCK_LAYERS_MAX 32 /* of one disk, its top included */

struct block_open {
	const char *format; /* "raw" or "qcow2"; never probed */
	bool is_read_only;
	enum block_cache cache; /* BLOCK_NONE: -ENOTSUP so far */
	enum block_io io;
	/* The files below the top one, nearest first: as many as the images
	 * say that there are. Taken over as the top's descriptor is. */
	const struct block_layer *layers;
	size_t layer_count;
	/* Opens an overlay without the files below it: what they would give
	 * is an error (-ENOMEDIUM). To look at the image itself. */
	bool is_alone;
	/* Opens a qcow2 image for writing although it is marked as damaged:
	 * for qcow2_check(). */
	bool is_repair;
};

/* Takes ownership of fd (already opened and locked by the caller), also when
 * it fails. Writes that hit RLIMIT_FSIZE raise SIGXFSZ: ignore it in main. */
int block_open_fd(struct loop *loop, int fd, const struct block_open *how,
		  struct block_node **out_node, struct err *err);
/* The file that a new image is made in: may be empty, grows. Takes fd over. */
int block_open_file(struct loop *loop, int fd, struct block_node **out_node,
		    struct err *err);
/* Is `top` an overlay that can lie over `below`: a qcow2 image with a backing
 * file, as large, opened with is_alone, and not used yet? 0 or -EINVAL. */
int block_can_lay_over(const struct block_node *top,
		       const struct block_node *below, struct err *err);
/* Puts it over a node in use, and takes that over: it is closed with it. The
 * node below has nothing in flight and gets no more writes; what it has in
 * memory becomes durable with the first flush of `top`, which then turns its
 * write lock into a read lock. */
void block_lay_over(struct block_node *top, struct block_node *below);
/* Waits for requests in flight, flushes when writable, closes. */
void block_close(struct block_node *node);
void block_submit(struct block_node *node, struct block_request *req);
/* Completes every request in flight before it returns (reset, snapshot). */
void block_drain(struct block_node *node);
/* For tools: one request, waited for by draining the node. `bytes` is read or
 * written by READ and WRITE. 0 or -errno. */
int block_do(struct block_node *node, enum block_op op, u64 offset, void *bytes,
	     u64 len);
/* Gives a raw image on a regular file another size. Nothing is in flight. */
int block_resize_raw(struct block_node *node, u64 size_bytes, struct err *err);
u64 block_size_bytes(const struct block_node *node);
bool block_is_read_only(const struct block_node *node);

/* For the opener (CLI): opens path with an OFD lock (write lock when
 * writable, else read lock) and refuses what is not a regular file or block
 * device. -EAGAIN with id "image.locked" when another process holds it, the
 * holder's pid in the text. */
int block_open_path(const char *path, bool is_read_only, int *out_fd,
		    struct err *err);
