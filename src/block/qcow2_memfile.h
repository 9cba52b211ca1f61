/* SPDX-License-Identifier: Apache-2.0 */
/* For tests: a file in memory that keeps a log of what is done to it. Requests
 * complete in a drain, in an order that a seed gives. */
#pragma once

#include <errno.h>
#include <stdlib.h>

#include "base/assert.h"
#include "block/block_int.h"

struct memfile_event {
	enum block_op op; /* WRITE, DISCARD, FLUSH */
	u64 offset, len;
	u8 *bytes; /* WRITE */
};

struct memfile {
	struct block_node node;
	u8 *bytes;
	u64 room;
	struct list pending, later;
	u64 seed;
	struct memfile_event *log;
	size_t events, events_room;
	bool keeps_log;
	u64 fail_from, fail_to; /* numbers of the changes that fail */
	u64 changes;
	int failure;
};

static inline void memfile_log(struct memfile *m, enum block_op op, u64 offset,
			       u64 len)
{
	struct memfile_event *e;

	if (!m->keeps_log)
		return;
	if (m->events == m->events_room) {
		m->events_room = m->events_room * 2 + 64;
		m->log = realloc(m->log, m->events_room * sizeof(*m->log));
		ASSERT(m->log);
	}
	e = &m->log[m->events++];
	*e = (struct memfile_event){op, offset, len, NULL};
	if (op == BLOCK_WRITE) {
		e->bytes = malloc(len + 1);
		memcpy(e->bytes, m->bytes + offset, len);
	}
}

static inline int memfile_transfer(struct memfile *m, struct block_request *r)
{
	u64 at = r->offset;

	if (r->op == BLOCK_WRITE && r->offset + r->len > m->room)
		return -EFBIG;
	for (int i = 0; i < r->iov_count; i++) {
		u64 n = r->iov[i].iov_len;
		u64 have = at < m->room ? MIN(n, m->room - at) : 0;

		if (r->op == BLOCK_WRITE) {
			memcpy(m->bytes + at, r->iov[i].iov_base, n);
		} else {
			memcpy(r->iov[i].iov_base, m->bytes + (have ? at : 0),
			       have);
			memset((u8 *)r->iov[i].iov_base + have, 0, n - have);
		}
		at += n;
	}
	ASSERT(at == r->offset + r->len);
	if (r->op != BLOCK_WRITE)
		return 0;
	m->node.file_bytes = MAX(m->node.file_bytes, at);
	memfile_log(m, BLOCK_WRITE, r->offset, r->len);
	return 0;
}

static inline int memfile_apply(struct memfile *m, struct block_request *r)
{
	if (r->op != BLOCK_READ && m->changes++ >= m->fail_from &&
	    m->changes <= m->fail_to)
		return m->failure;
	switch (r->op) {
	case BLOCK_FLUSH:
		memfile_log(m, BLOCK_FLUSH, 0, 0);
		return 0;
	case BLOCK_DISCARD:
	case BLOCK_WRITE_ZEROES:
		if (r->offset < m->room)
			memset(m->bytes + r->offset, 0,
			       MIN(r->len, m->room - r->offset));
		memfile_log(m, BLOCK_DISCARD, r->offset, r->len);
		return 0;
	default:
		return memfile_transfer(m, r);
	}
}

static inline struct memfile *memfile_of(struct block_node *node)
{
	return container_of(node, struct memfile, node);
}

static inline void memfile_submit(struct block_node *node,
				  struct block_request *r)
{
	list_add_tail(&memfile_of(node)->pending, &r->link);
}

static inline void memfile_later(struct block_node *node,
				 struct block_request *r, int result)
{
	r->progress = (u64)(i64)result;
	list_add_tail(&memfile_of(node)->later, &r->link);
}

static inline void memfile_drain(struct block_node *node)
{
	struct memfile *m = memfile_of(node);

	for (;;) {
		struct list *at = m->pending.next;
		struct block_request *r;

		if (!list_is_empty(&m->later)) {
			r = list_entry(m->later.next, struct block_request,
				       link);
			list_del(&r->link);
			r->done(r, (int)(i64)r->progress);
			continue;
		}
		if (list_is_empty(&m->pending))
			return;
		m->seed = m->seed * 6364136223846793005ull + 1;
		for (u64 skip = m->seed >> 61; skip && at->next != &m->pending;
		     skip--)
			at = at->next;
		r = list_entry(at, struct block_request, link);
		list_del(&r->link);
		r->done(r, memfile_apply(m, r));
	}
}

static inline int memfile_truncate(struct block_node *node, u64 bytes)
{
	struct memfile *m = memfile_of(node);

	if (bytes > m->room)
		return -EFBIG;
	if (bytes < node->file_bytes)
		memset(m->bytes + bytes, 0, node->file_bytes - bytes);
	node->file_bytes = bytes;
	return 0;
}

/* The test frees it. */
static inline void memfile_close(struct block_node *node)
{
}

static inline void memfile_init(struct memfile *m, u64 room)
{
	static const struct block_node_ops ops = {
		.format = "file",
		.submit = memfile_submit,
		.complete_later = memfile_later,
		.drain = memfile_drain,
		.close = memfile_close,
		.truncate = memfile_truncate,
	};

	memset(m, 0, sizeof(*m));
	m->node.ops = &ops;
	m->node.size_bytes = INT64_MAX;
	m->bytes = calloc(1, room);
	ASSERT(m->bytes);
	m->room = room;
	m->fail_from = UINT64_MAX;
	list_init(&m->pending);
	list_init(&m->later);
}

static inline void memfile_fini(struct memfile *m)
{
	for (size_t i = 0; i < m->events; i++)
		free(m->log[i].bytes);
	free(m->log);
	free(m->bytes);
}
