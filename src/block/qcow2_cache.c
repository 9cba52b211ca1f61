/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY
 *
 * Tables are cached in slices of at most 4 KiB, so that a table of 2 MiB costs
 * what is used of it. A slice that is pinned stays; a pinned one may be
 * loading, and whoever gets it then waits. Room comes from the slice that was
 * used longest ago and is clean; when all are dirty, they are written first.
 * When all are pinned there is one more: pins are bounded by the number of
 * coroutines.
 */
#include <stdlib.h>

#include "base/assert.h"
#include "block/qcow2_int.h"

void qcow2_cache_init(struct qcow2_cache *c, struct qcow2 *q, u64 max_bytes)
{
	u32 buckets = 16;

	memset(c, 0, sizeof(*c));
	c->q = q;
	c->slice_bytes = (u32)MIN(q->cluster_bytes, (u64)QCOW2_SLICE);
	c->count_max = (u32)(max_bytes / c->slice_bytes);
	while (buckets < c->count_max)
		buckets *= 2;
	c->hash = calloc(buckets, sizeof(*c->hash));
	ASSERT(c->hash);
	c->hash_mask = buckets - 1;
	list_init(&c->lru);
	co_queue_init(&c->loaded);
}

void qcow2_cache_fini(struct qcow2_cache *c)
{
	if (!c->hash)
		return;
	list_for_each_safe (it, &c->lru) {
		struct qcow2_slice *s = list_entry(it, struct qcow2_slice, lru);

		ASSERT(!s->pins);
		free(s->bytes);
		free(s);
	}
	free(c->hash);
	c->hash = NULL;
}

static struct qcow2_slice **bucket(struct qcow2_cache *c, u64 offset)
{
	u64 n = offset / c->slice_bytes;

	return &c->hash[(n ^ n >> 9) & c->hash_mask];
}

static struct qcow2_slice *find(struct qcow2_cache *c, u64 offset)
{
	struct qcow2_slice *s = *bucket(c, offset);

	while (s && s->offset != offset)
		s = s->hash_next;
	return s;
}

static void unhash(struct qcow2_cache *c, struct qcow2_slice *s)
{
	struct qcow2_slice **at;

	if (s->offset == QCOW2_NO_OFFSET)
		return;
	at = bucket(c, s->offset);
	while (*at != s)
		at = &(*at)->hash_next;
	*at = s->hash_next;
	s->offset = QCOW2_NO_OFFSET;
	if (s->is_dirty)
		c->dirty_count--;
	s->is_dirty = false;
}

static void touch(struct qcow2_cache *c, struct qcow2_slice *s)
{
	list_del(&s->lru);
	list_add_tail(&c->lru, &s->lru);
}

static struct qcow2_slice *slice_new(struct qcow2_cache *c)
{
	struct qcow2_slice *s = calloc(1, sizeof(*s));

	ASSERT(s);
	s->bytes = malloc(c->slice_bytes);
	ASSERT(s->bytes);
	s->offset = QCOW2_NO_OFFSET;
	list_add_tail(&c->lru, &s->lru);
	c->count++;
	return s;
}

/* Writes the dirty slice that was used longest ago. */
static int clean_one(struct qcow2_cache *c)
{
	struct qcow2_slice *oldest = NULL;
	int rc;

	list_for_each (it, &c->lru) {
		struct qcow2_slice *s = list_entry(it, struct qcow2_slice, lru);

		if (!s->pins && s->is_dirty) {
			oldest = s;
			break;
		}
	}
	if (!oldest)
		return 0;
	oldest->pins++;
	rc = qcow2_co_cache_write(c, oldest);
	qcow2_cache_put(c, oldest);
	return rc;
}

/* A slice to load into; NULL: there may be one now, look again. */
static int take(struct qcow2_cache *c, struct qcow2_slice **out)
{
	*out = NULL;
	if (c->co_clean && c->dirty_count > c->count_max / 2)
		return c->co_clean(c->q);
	if (!c->co_clean && c->dirty_count == c->count_max)
		return clean_one(c);
	if (c->count < c->count_max) {
		*out = slice_new(c);
		return 0;
	}
	list_for_each (it, &c->lru) {
		struct qcow2_slice *s = list_entry(it, struct qcow2_slice, lru);

		if (!s->pins && !s->is_dirty) {
			unhash(c, s);
			*out = s;
			return 0;
		}
	}
	*out = slice_new(c);
	return 0;
}

static int load(struct qcow2_cache *c, struct qcow2_slice *s, u64 offset)
{
	struct qcow2_slice **at = bucket(c, offset);

	s->offset = offset;
	s->hash_next = *at;
	*at = s;
	s->pins++;
	s->is_loading = true;
	s->error = qcow2_co_pread(c->q, offset, s->bytes, c->slice_bytes);
	s->is_loading = false;
	if (s->error)
		unhash(c, s);
	co_queue_wake_all(&c->q->pool, &c->loaded);
	return s->error;
}

int qcow2_co_cache_get(struct qcow2_cache *c, u64 offset,
		       struct qcow2_slice **out)
{
	struct qcow2_slice *s;
	int rc = 0;

	while (!(s = find(c, offset))) {
		rc = take(c, &s);
		if (rc)
			return rc;
		if (!s)
			continue;
		rc = load(c, s, offset);
		goto loaded;
	}
	s->pins++;
	while (s->is_loading)
		co_queue_wait(&c->q->pool, &c->loaded);
	rc = s->error;
loaded:
	if (rc) {
		qcow2_cache_put(c, s);
		return rc;
	}
	touch(c, s);
	*out = s;
	return 0;
}

void qcow2_cache_put(struct qcow2_cache *c, struct qcow2_slice *s)
{
	ASSERT(s->pins);
	s->pins--;
}

struct qcow2_slice *qcow2_cache_peek(struct qcow2_cache *c, u64 offset)
{
	struct qcow2_slice *s = find(c, offset);

	if (!s || s->is_loading)
		return NULL;
	touch(c, s);
	return s;
}

void qcow2_cache_dirty(struct qcow2_cache *c, struct qcow2_slice *s)
{
	ASSERT(s->pins);
	if (s->offset == QCOW2_NO_OFFSET)
		return;
	if (!s->is_dirty)
		c->dirty_count++;
	s->is_dirty = true;
}

void qcow2_cache_forget(struct qcow2_cache *c, u64 offset, u64 len)
{
	for (u64 at = offset; at < offset + len; at += c->slice_bytes) {
		struct qcow2_slice *s = find(c, at);

		if (s)
			unhash(c, s);
	}
}

int qcow2_cache_take_dirty(struct qcow2_cache *c, struct qcow2_slice ***out,
			   u32 *out_count)
{
	struct qcow2_slice **all = malloc(sizeof(*all) * (c->count + 1));
	u32 n = 0;

	if (!all)
		return -ENOMEM;
	list_for_each (it, &c->lru) {
		struct qcow2_slice *s = list_entry(it, struct qcow2_slice, lru);

		if (!s->is_dirty && !s->is_writing)
			continue;
		s->pins++;
		all[n++] = s;
	}
	*out = all;
	*out_count = n;
	return 0;
}

int qcow2_co_cache_write(struct qcow2_cache *c, struct qcow2_slice *s)
{
	int rc;

	while (s->is_writing)
		co_queue_wait(&c->q->pool, &c->loaded);
	if (!s->is_dirty)
		return 0;
	s->is_dirty = false;
	c->dirty_count--;
	s->is_writing = true;
	rc = qcow2_co_pwrite(c->q, s->offset, s->bytes, c->slice_bytes);
	s->is_writing = false;
	if (rc)
		qcow2_cache_dirty(c, s);
	co_queue_wake_all(&c->q->pool, &c->loaded);
	return rc;
}
