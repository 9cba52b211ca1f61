/* SPDX-License-Identifier: Apache-2.0 */
/* What every kind of node gives, private to block/. */
#pragma once

#include "block/block.h"

struct block_node_ops {
	const char *format;
	/* The range has been checked, and len is not 0 but for a flush. */
	void (*submit)(struct block_node *node, struct block_request *req);
	/* Completes req with `result` from the loop, not from here. */
	void (*complete_later)(struct block_node *node,
			       struct block_request *req, int result);
	void (*drain)(struct block_node *node);
	void (*close)(struct block_node *node);
	/* Others may read the file from now on, which is not written. */
	void (*share)(struct block_node *node);
	/* Nothing is in flight beyond the new end. 0 or -errno. */
	int (*truncate)(struct block_node *node, u64 bytes);
};

struct block_node {
	const struct block_node_ops *ops;
	u64 size_bytes;
	u64 file_bytes; /* of a file node: where the file ends */
	bool is_read_only;
};

int raw_open(struct loop *loop, int fd, const struct block_open *how,
	     struct block_node **out_node, struct err *err);
/* The file below a format: it grows, and reads as zeros behind its end. */
int raw_open_file(struct loop *loop, int fd, const struct block_open *how,
		  struct block_node **out_node, struct err *err);
