/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY
 *
 * A count of references per cluster of the file, in blocks that a table
 * points to. A cluster is taken by setting its count in memory; the count is
 * in the file before anything there refers to the cluster (qcow2_flush.c).
 * A reference that goes away is the other way round: the count is lowered, and
 * the cluster is free for others, only when the file no longer has the
 * reference. So a crash leaves clusters that nobody refers to, never a
 * reference to a cluster that counts as free.
 *
 * A block that is missing is put into the very cluster that was looked at: it
 * counts itself. When the table itself is full, a larger one is put behind
 * all that the old one covers.
 *
 * `meta` has the clusters of tables: what a damaged image says is never a
 * reason to write data over them.
 *
 * Source: qcow2 "Host cluster management".
 */
#include <stdlib.h>

#include "base/assert.h"
#include "block/qcow2_int.h"

/* Clusters that one search looks at, before it goes behind the file's end. */
#define SEARCH_MAX (64 * MIB)

u64 qcow2_refcount_get(const u8 *block, u64 index, u32 order)
{
	switch (order) {
	case 3:
		return block[index];
	case 4:
		return ld_be16(block + 2 * index);
	case 5:
		return ld_be32(block + 4 * index);
	case 6:
		return ld_be64(block + 8 * index);
	default:
		return block[index << order >> 3] >> ((index << order) & 7) &
		       ((1u << (1u << order)) - 1);
	}
}

void qcow2_refcount_set(u8 *block, u64 index, u32 order, u64 count)
{
	u32 shift = (index << order) & 7;
	u32 mask = (1u << (1u << MIN(order, 3u))) - 1;
	u8 *at = block + (index << order >> 3);

	switch (order) {
	case 3:
		*at = (u8)count;
		break;
	case 4:
		st_be16(at, (u16)count);
		break;
	case 5:
		st_be32(at, (u32)count);
		break;
	case 6:
		st_be64(at, count);
		break;
	default:
		*at = (u8)((*at & ~(mask << shift)) | (count & mask) << shift);
	}
}

bool qcow2_is_meta(const struct qcow2 *q, u64 host, u64 len)
{
	u64 at = ALIGN_DOWN(host, q->cluster_bytes);

	if (host < q->cluster_bytes)
		return true;
	for (; at < host + len; at += q->cluster_bytes)
		if (qcow2_set_has(&q->meta, at))
			return true;
	return false;
}

/* ---- Opening ---- */

static bool add_meta(struct qcow2 *q, u64 host, u64 len)
{
	bool is_new = host >= q->cluster_bytes;

	for (u64 at = 0; is_new && at < len; at += q->cluster_bytes)
		is_new = qcow2_set_add(&q->meta, host + at);
	return is_new;
}

/* The tables that the header and the first levels name; false when two are in
 * one place. */
static bool add_all_meta(struct qcow2 *q)
{
	const struct qcow2_header *h = &q->h;
	bool ok = add_meta(q, h->refcount_table_offset,
			   (u64)h->refcount_table_clusters << q->cluster_bits);

	if (h->l1_entries)
		ok &= add_meta(q, h->l1_offset, h->l1_entries * 8ull);
	if (h->snapshot_count)
		ok &= add_meta(q, h->snapshots_offset, 1);
	if (h->bitmap_count)
		ok &= add_meta(q, h->bitmap_directory_offset,
			       h->bitmap_directory_bytes);
	for (u64 i = 0; i < q->rt_entries; i++)
		if (q->rt[i])
			ok &= add_meta(q, q->rt[i], 1);
	for (u32 i = 0; i < q->l1_entries; i++)
		if (q->l1[i] & L1_OFFSET_MASK)
			ok &= add_meta(q, q->l1[i] & L1_OFFSET_MASK, 1);
	return ok;
}

static bool is_block_place(const struct qcow2 *q, u64 host)
{
	return !host ||
	       (host >= q->cluster_bytes && !(host & (q->cluster_bytes - 1)) &&
		host < q->file->file_bytes);
}

static int load_rt(struct qcow2 *q, struct err *err)
{
	u64 bytes = (u64)q->h.refcount_table_clusters << q->cluster_bits;
	int rc;

	q->rt_entries = bytes / 8;
	q->rt = malloc(bytes);
	rc = q->rt ? qcow2_co_pread(q, q->h.refcount_table_offset, q->rt, bytes)
		   : -ENOMEM;
	if (rc)
		return err_sys(err, rc, "read the image's refcount table");
	for (u64 i = 0; i < q->rt_entries; i++) {
		q->rt[i] = __builtin_bswap64(q->rt[i]);
		if (!is_block_place(q, q->rt[i]))
			return err_set(err, -EINVAL,
				       "the image's refcount table is damaged");
	}
	return 0;
}

int qcow2_refcount_open(struct qcow2 *q, struct err *err)
{
	int rc;

	q->rb_bits = q->cluster_bits + 3 - q->h.refcount_order;
	qcow2_cache_init(&q->rb, q, QCOW2_RB_CACHE);
	rc = load_rt(q, err);
	if (!rc && !add_all_meta(q))
		rc = err_set(err, -EINVAL,
			     "the image is damaged: tables overlap");
	return rc;
}

void qcow2_refcount_fini(struct qcow2 *q)
{
	qcow2_cache_fini(&q->rb);
	qcow2_set_fini(&q->meta);
	free(q->rt);
	free(q->freed);
}

/* ---- Counts ---- */

/* The slice with a cluster's count, pinned, and the count's index in it. NULL
 * with 0: there is no block, the count is 0. */
static int block_get(struct qcow2 *q, u64 cluster, struct qcow2_slice **out,
		     u64 *out_index)
{
	u64 block = cluster >> q->rb_bits;
	u32 slice_bits =
		(u32)__builtin_ctz(q->rb.slice_bytes) + 3 - q->h.refcount_order;
	u64 in_block = cluster & (BIT64(q->rb_bits) - 1);

	*out = NULL;
	if (block >= q->rt_entries || !q->rt[block])
		return 0;
	*out_index = in_block & (BIT64(slice_bits) - 1);
	return qcow2_co_cache_get(&q->rb,
				  q->rt[block] + (in_block >> slice_bits) *
							 q->rb.slice_bytes,
				  out);
}

int qcow2_co_refcount(struct qcow2 *q, u64 cluster, u64 *out)
{
	struct qcow2_slice *s;
	u64 index;
	int rc = block_get(q, cluster, &s, &index);

	*out = 0;
	if (rc || !s)
		return rc;
	*out = qcow2_refcount_get(s->bytes, index, q->h.refcount_order);
	qcow2_cache_put(&q->rb, s);
	return 0;
}

/* The block is there. */
static int count_set(struct qcow2 *q, u64 cluster, u64 count)
{
	struct qcow2_slice *s;
	u64 index;
	int rc = block_get(q, cluster, &s, &index);

	if (rc)
		return rc;
	if (!s)
		return qcow2_damaged(q, "no refcount for cluster", cluster);
	qcow2_refcount_set(s->bytes, index, q->h.refcount_order, count);
	qcow2_cache_dirty(&q->rb, s);
	qcow2_cache_put(&q->rb, s);
	return 0;
}

static int write_zeroes(struct qcow2 *q, u64 host, u64 len)
{
	static const u8 zeroes[64 * KIB];
	int rc = 0;

	for (u64 at = 0; !rc && at < len; at += sizeof(zeroes))
		rc = qcow2_co_pwrite(q, host + at, zeroes,
				     MIN(sizeof(zeroes), len - at));
	return rc;
}

/* Makes `cluster`, which has no block, the block of its own count. */
static int block_create(struct qcow2 *q, u64 cluster)
{
	u64 block = cluster >> q->rb_bits;
	u64 host = cluster << q->cluster_bits;
	int rc;

	qcow2_cache_forget(&q->rb, host, q->cluster_bytes);
	rc = write_zeroes(q, host, q->cluster_bytes);
	if (rc)
		return rc;
	if (!qcow2_set_add(&q->meta, host))
		return qcow2_damaged(q, "refcount of table", host);
	q->rt[block] = host;
	qcow2_dirty_add(&q->rt_dirty, block);
	return count_set(q, cluster, 1);
}

/* ---- Taking clusters ---- */

static int table_grow(struct qcow2 *q);

/* Goes over the clusters from *c on that are taken and counted in one slice;
 * *c is one of them. */
static int skip_taken(struct qcow2 *q, u64 *c)
{
	u32 order = q->h.refcount_order;
	u64 entries = (u64)q->rb.slice_bytes * 8 >> order, index;
	struct qcow2_slice *s;
	int rc = block_get(q, *c, &s, &index);

	if (rc || !s)
		return rc;
	while (index + 1 < entries &&
	       qcow2_refcount_get(s->bytes, index + 1, order)) {
		index++;
		(*c)++;
	}
	qcow2_cache_put(&q->rb, s);
	return 0;
}

/* Looks for min to max clusters in a row that are free, from `first` on;
 * makes the blocks for their counts. */
static int search(struct qcow2 *q, u64 first, u64 min, u64 max, u64 *out_first,
		  u64 *out_count)
{
	u64 end = (q->file->file_bytes >> q->cluster_bits) + 1;
	u64 run = 0, looked = 0, count, at;
	u64 c = MAX(first, 1u);

	for (; run < max; c++) {
		int rc;

		if (++looked > SEARCH_MAX && c < end) {
			if (run >= min)
				break;
			run = 0;
			c = end;
			looked = 0;
		} else if (looked > SEARCH_MAX) {
			return -ENOSPC;
		}
		if (c >> (56 - q->cluster_bits))
			return -EFBIG;
		if (c >> q->rb_bits >= q->rt_entries) {
			rc = table_grow(q);
			if (rc)
				return rc;
		}
		if (!q->rt[c >> q->rb_bits]) {
			if (run >= min)
				break;
			run = 0;
			if (qcow2_set_has(&q->meta, c << q->cluster_bits))
				continue;
			rc = block_create(q, c);
			if (rc)
				return rc;
			continue;
		}
		rc = qcow2_co_refcount(q, c, &count);
		if (rc)
			return rc;
		if (!count) {
			run++;
			continue;
		}
		if (run >= min)
			break;
		run = 0;
		at = c;
		rc = skip_taken(q, &c);
		if (rc)
			return rc;
		looked += c - at;
	}
	*out_first = c - run;
	*out_count = run;
	return 0;
}

static int alloc_locked(struct qcow2 *q, u64 from, u64 min, u64 max,
			bool is_meta, u64 *out_host, u64 *out_count)
{
	u64 first, count, host;
	int rc = search(q, from, min, max, &first, &count);

	if (rc)
		return rc;
	host = first << q->cluster_bits;
	if (qcow2_is_meta(q, host, count << q->cluster_bits))
		return qcow2_damaged(q, "a table counts as free", host);
	for (u64 i = 0; !rc && i < count; i++)
		rc = count_set(q, first + i, 1);
	if (rc)
		return rc;
	if (is_meta)
		add_meta(q, host, count << q->cluster_bits);
	qcow2_cache_forget(&q->l2, host, count << q->cluster_bits);
	qcow2_cache_forget(&q->rb, host, count << q->cluster_bits);
	*out_host = host;
	*out_count = count;
	return 0;
}

int qcow2_co_alloc(struct qcow2 *q, u64 min, u64 max, bool is_meta,
		   u64 *out_host, u64 *out_count)
{
	int rc;

	co_mutex_lock(&q->pool, &q->alloc_lock);
	rc = alloc_locked(q, q->next_free, min, max, is_meta, out_host,
			  out_count);
	if (!rc && min == 1)
		q->next_free = (*out_host >> q->cluster_bits) + *out_count;
	co_mutex_unlock(&q->pool, &q->alloc_lock);
	return rc;
}

static int table_write(struct qcow2 *q, u64 host)
{
	u64 *be = malloc(q->rt_entries * 8);
	int rc;

	if (!be)
		return -ENOMEM;
	for (u64 i = 0; i < q->rt_entries; i++)
		be[i] = __builtin_bswap64(q->rt[i]);
	rc = qcow2_co_pwrite(q, host, be, q->rt_entries * 8);
	free(be);
	return rc;
}

static int blocks_write(struct qcow2 *q)
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
	return rc;
}

/* Everything that the new table says is in the file before the header names
 * it. */
static int table_switch(struct qcow2 *q, u64 host, u64 clusters)
{
	u64 old = q->h.refcount_table_offset;
	u32 old_clusters = q->h.refcount_table_clusters;
	int rc = blocks_write(q);

	if (!rc)
		rc = table_write(q, host);
	if (!rc)
		rc = qcow2_co_sync(q);
	if (rc)
		return rc;
	q->h.refcount_table_offset = host;
	q->h.refcount_table_clusters = (u32)clusters;
	rc = qcow2_co_header_write(q);
	if (!rc)
		rc = qcow2_co_sync(q);
	if (rc) {
		q->h.refcount_table_offset = old;
		q->h.refcount_table_clusters = old_clusters;
		return rc;
	}
	qcow2_free_later(q, old, (u64)old_clusters << q->cluster_bits);
	return 0;
}

/* A table half as large again, behind all that the old one covers. */
static int table_grow(struct qcow2 *q)
{
	u64 old = q->rt_entries, host, got;
	u64 clusters = q->h.refcount_table_clusters * 3ull / 2 + 1;
	u64 entries = clusters << (q->cluster_bits - 3);
	u64 *rt;
	int rc;

	if (entries * 8 > QCOW2_REFTABLE_BYTES)
		return -EFBIG;
	rt = realloc(q->rt, entries * 8);
	if (!rt)
		return -ENOMEM;
	memset(rt + old, 0, (entries - old) * 8);
	q->rt = rt;
	q->rt_entries = entries;
	rc = alloc_locked(q, old << q->rb_bits, clusters, clusters, true, &host,
			  &got);
	if (!rc)
		rc = table_switch(q, host, clusters);
	if (rc) {
		q->rt_entries = old;
		q->rt_dirty.last = MIN(q->rt_dirty.last, old - 1);
	}
	return rc;
}

void qcow2_co_unalloc(struct qcow2 *q, u64 host, u64 clusters)
{
	u64 first = host >> q->cluster_bits;

	co_mutex_lock(&q->pool, &q->alloc_lock);
	for (u64 i = 0; i < clusters; i++)
		(void)count_set(q, first + i, 0); /* else it is lost: a leak */
	q->next_free = MIN(q->next_free, first);
	co_mutex_unlock(&q->pool, &q->alloc_lock);
}

int qcow2_co_count_set(struct qcow2 *q, u64 cluster, u64 count)
{
	return count_set(q, cluster, count);
}

int qcow2_co_block_create(struct qcow2 *q, u64 cluster)
{
	return block_create(q, cluster);
}

/* ---- Giving clusters back ---- */

void qcow2_free_later(struct qcow2 *q, u64 host, u64 len)
{
	u64 first = host >> q->cluster_bits;
	u64 count = ((host + len - 1) >> q->cluster_bits) - first + 1;
	struct qcow2_freed *last;

	if (q->freed_count) {
		last = &q->freed[q->freed_count - 1];
		if (last->first + last->count == first) {
			last->count += count;
			return;
		}
	}
	if (q->freed_count == q->freed_room) {
		q->freed_room = q->freed_room * 2 + 64;
		q->freed = realloc(q->freed, q->freed_room * sizeof(*q->freed));
		ASSERT(q->freed);
	}
	q->freed[q->freed_count++] = (struct qcow2_freed){first, count};
}

/* Gives the bytes of free clusters back to the file system, before anyone can
 * take them. */
static void punch(struct qcow2 *q, u64 first, u64 count)
{
	if (count)
		(void)qcow2_co_io(q, q->file, BLOCK_DISCARD,
				  first << q->cluster_bits,
				  count << q->cluster_bits, NULL, 0);
}

static void free_run(struct qcow2 *q, u64 first, u64 count)
{
	u64 n, run = 0, c;

	for (c = first; c <= first + count; c++) {
		if (c < first + count && !qcow2_co_refcount(q, c, &n) &&
		    n == 1) {
			run++;
			continue;
		}
		punch(q, c - run, run);
		for (u64 i = c - run; i < c; i++) {
			qcow2_set_del(&q->meta, i << q->cluster_bits);
			(void)count_set(q, i, 0);
		}
		if (run)
			q->next_free = MIN(q->next_free, c - run);
		run = 0;
		if (c < first + count && n > 1)
			(void)count_set(q, c, n - 1);
		else if (c < first + count)
			qcow2_damaged(q, "count of a cluster in use", c);
	}
}

void qcow2_co_free(struct qcow2 *q, const struct qcow2_freed *freed,
		   size_t count)
{
	co_mutex_lock(&q->pool, &q->alloc_lock);
	for (size_t i = 0; i < count; i++)
		free_run(q, freed[i].first, freed[i].count);
	co_mutex_unlock(&q->pool, &q->alloc_lock);
}
