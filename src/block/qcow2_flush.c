/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY
 *
 * What changes in tables stays in memory until a flush, or until the cache of
 * L2 tables is half dirty. Then, in this order:
 *
 *	1. copies are made of the L2 slices and L1 entries that are dirty; the
 *	   data that they refer to has been written already
 *	2. counts are written;              sync
 *	   new blocks' places are written;  sync (only when there are some)
 *	3. the copies are written;          sync
 *	4. what was given up before step 1 is free
 *
 * so that the file never has a reference to a cluster that counts as free, or
 * whose data is not there. Requests go on meanwhile: what they change is dirty
 * again, and not in the copies. A new L2 table is zeros in the file before
 * step 1, so L1 and L2 entries may become durable in any order.
 */
#include <stdlib.h>

#include "base/assert.h"
#include "block/qcow2_int.h"

void qcow2_dirty_none(struct qcow2_dirty *d)
{
	d->first = UINT64_MAX;
	d->last = 0;
}

void qcow2_dirty_add(struct qcow2_dirty *d, u64 index)
{
	d->first = MIN(d->first, index);
	d->last = MAX(d->last, index);
}

/* Entries of a first-level table, copied as they go into the file. */
struct entries {
	u64 *be;
	struct qcow2_dirty range;
};

struct copies {
	struct entries l1, rt;
	struct qcow2_slice **slices;
	u32 slice_count;
	u8 *bytes;
	struct qcow2_freed *freed;
	size_t freed_count;
};

static int entries_copy(struct entries *e, const u64 *table,
			struct qcow2_dirty *dirty)
{
	u64 n;

	e->range = *dirty;
	if (dirty->first > dirty->last)
		return 0;
	n = dirty->last - dirty->first + 1;
	e->be = malloc(n * 8);
	if (!e->be)
		return -ENOMEM;
	for (u64 i = 0; i < n; i++)
		e->be[i] = __builtin_bswap64(table[dirty->first + i]);
	qcow2_dirty_none(dirty);
	return 0;
}

/* Writes them; when that fails they are dirty again. */
static int entries_write(struct qcow2 *q, struct entries *e, u64 table,
			 struct qcow2_dirty *dirty, int rc)
{
	if (!e->be)
		return rc;
	if (!rc)
		rc = qcow2_co_pwrite(q, table + e->range.first * 8, e->be,
				     (e->range.last - e->range.first + 1) * 8);
	if (rc) {
		qcow2_dirty_add(dirty, e->range.first);
		qcow2_dirty_add(dirty, e->range.last);
	}
	return rc;
}

static int copies_make(struct qcow2 *q, struct copies *c)
{
	u32 bytes = q->l2.slice_bytes;
	int rc = qcow2_cache_take_dirty(&q->l2, &c->slices, &c->slice_count);

	if (rc)
		return rc;
	c->bytes = malloc((size_t)c->slice_count * bytes + 1);
	rc = c->bytes ? entries_copy(&c->l1, q->l1, &q->l1_dirty) : -ENOMEM;
	if (!rc)
		rc = entries_copy(&c->rt, q->rt, &q->rt_dirty);
	if (rc)
		return rc;
	for (u32 i = 0; i < c->slice_count; i++) {
		memcpy(c->bytes + (size_t)i * bytes, c->slices[i]->bytes,
		       bytes);
		if (c->slices[i]->is_dirty)
			q->l2.dirty_count--;
		c->slices[i]->is_dirty = false;
	}
	c->freed = q->freed;
	c->freed_count = q->freed_count;
	q->freed = NULL;
	q->freed_count = q->freed_room = 0;
	return 0;
}

static int counts_write(struct qcow2 *q, struct copies *c)
{
	struct qcow2_slice **all;
	u32 n;
	int rc = qcow2_cache_take_dirty(&q->rb, &all, &n);

	if (rc)
		return rc;
	for (u32 i = 0; i < n; i++) {
		if (!rc)
			rc = qcow2_co_cache_write(&q->rb, all[i]);
		qcow2_cache_put(&q->rb, all[i]);
	}
	free(all);
	if (!rc && c->rt.be)
		rc = qcow2_co_sync(q);
	return entries_write(q, &c->rt, q->h.refcount_table_offset,
			     &q->rt_dirty, rc);
}

static int slices_write(struct qcow2 *q, struct copies *c)
{
	u32 bytes = q->l2.slice_bytes;
	int rc = 0;

	for (u32 i = 0; !rc && i < c->slice_count; i++)
		if (c->slices[i]->offset != QCOW2_NO_OFFSET)
			rc = qcow2_co_pwrite(q, c->slices[i]->offset,
					     c->bytes + (size_t)i * bytes,
					     bytes);
	return rc;
}

static void copies_drop(struct qcow2 *q, struct copies *c, int rc)
{
	for (u32 i = 0; i < c->slice_count; i++) {
		if (rc)
			qcow2_cache_dirty(&q->l2, c->slices[i]);
		qcow2_cache_put(&q->l2, c->slices[i]);
	}
	for (size_t i = 0; rc && i < c->freed_count; i++)
		qcow2_free_later(q, c->freed[i].first << q->cluster_bits,
				 c->freed[i].count << q->cluster_bits);
	free(c->slices);
	free(c->bytes);
	free(c->l1.be);
	free(c->rt.be);
	free(c->freed);
}

int qcow2_co_sync(struct qcow2 *q)
{
	return qcow2_co_io(q, q->file, BLOCK_FLUSH, 0, 0, NULL, 0);
}

static int write_back(struct qcow2 *q)
{
	struct copies c = {0};
	bool refers;
	int rc = copies_make(q, &c);

	refers = c.slice_count || c.l1.be;
	if (!rc)
		rc = counts_write(q, &c);
	if (!rc)
		rc = qcow2_co_sync(q);
	if (!rc && refers)
		rc = slices_write(q, &c);
	rc = entries_write(q, &c.l1, q->h.l1_offset, &q->l1_dirty, rc);
	if (!rc && refers)
		rc = qcow2_co_sync(q);
	if (!rc)
		qcow2_co_free(q, c.freed, c.freed_count);
	copies_drop(q, &c, rc);
	return rc;
}

/* One flush at a time; who waited while another one ran from its beginning
 * needs none of its own. */
int qcow2_co_flush(struct qcow2 *q)
{
	u64 ticket = q->flush_started, id;
	int rc = 0;

	if (q->node.is_read_only)
		return 0;
	co_mutex_lock(&q->pool, &q->flush_lock);
	if (q->flush_ok <= ticket) {
		id = ++q->flush_started;
		rc = write_back(q);
		if (!rc)
			q->flush_ok = id;
	}
	co_mutex_unlock(&q->pool, &q->flush_lock);
	return rc;
}

/* One sector at most: it is written whole or not at all. */
int qcow2_co_header_write(struct qcow2 *q)
{
	u8 *b = q->header;
	const struct qcow2_header *h = &q->h;

	st_be64(b + 24, h->size_bytes);
	st_be32(b + 36, h->l1_entries);
	st_be64(b + 40, h->l1_offset);
	st_be64(b + 48, h->refcount_table_offset);
	st_be32(b + 56, h->refcount_table_clusters);
	if (h->version < 3)
		return qcow2_co_pwrite(q, 0, b, 72);
	st_be64(b + 72, h->incompatible);
	st_be64(b + 80, h->compatible);
	st_be64(b + 88, h->autoclear);
	return qcow2_co_pwrite(q, 0, b, QCOW2_HEADER_BYTES);
}
