/* SPDX-License-Identifier: Apache-2.0 */
/* For tests: the block interface over memory, with requests held until
 * testblock_complete() or a drain. Takes the place of the block library in
 * the binary that includes it. */
#pragma once

#include <errno.h>
#include <stdlib.h>

#include "base/assert.h"
#include "block/block.h"

struct block_node {
	u8 *bytes;
	u64 size;
	bool is_read_only;
	struct list pending;
	int submitted;
	int flushes;
};

static inline void testblock_init(struct block_node *n, u64 size)
{
	memset(n, 0, sizeof(*n));
	n->bytes = calloc(1, size);
	n->size = size;
	list_init(&n->pending);
}

static inline int testblock_apply(struct block_node *n, struct block_request *r)
{
	u64 at = r->offset, total = 0;

	if (r->op == BLOCK_FLUSH) {
		n->flushes++;
		return 0;
	}
	ASSERT(r->len && r->offset <= n->size && r->len <= n->size - r->offset);
	if (r->op == BLOCK_DISCARD || r->op == BLOCK_WRITE_ZEROES) {
		ASSERT(!n->is_read_only);
		memset(n->bytes + r->offset, 0, r->len);
		return 0;
	}
	for (int i = 0; i < r->iov_count; i++) {
		total += r->iov[i].iov_len;
		ASSERT(total <= r->len);
		if (r->op == BLOCK_READ) {
			memcpy(r->iov[i].iov_base, n->bytes + at,
			       r->iov[i].iov_len);
		} else {
			ASSERT(!n->is_read_only);
			memcpy(n->bytes + at, r->iov[i].iov_base,
			       r->iov[i].iov_len);
		}
		at += r->iov[i].iov_len;
	}
	ASSERT(total == r->len);
	return 0;
}

void block_submit(struct block_node *n, struct block_request *r)
{
	n->submitted++;
	list_add_tail(&n->pending, &r->link);
}

/* Completes the oldest request; false when there is none. */
static inline bool testblock_complete(struct block_node *n)
{
	struct block_request *r;

	if (list_is_empty(&n->pending))
		return false;
	r = list_entry(n->pending.next, struct block_request, link);
	list_del(&r->link);
	r->done(r, testblock_apply(n, r));
	return true;
}

void block_drain(struct block_node *n)
{
	while (testblock_complete(n))
		;
}

u64 block_size_bytes(const struct block_node *n)
{
	return n->size;
}

bool block_is_read_only(const struct block_node *n)
{
	return n->is_read_only;
}
