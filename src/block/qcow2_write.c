/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY
 *
 * A write goes in pieces, each of one kind: over what is the image's own and
 * allocated; into unallocated subclusters of a cluster that is its own; or
 * into new clusters, as many in a row as there are. What shares a subcluster
 * with the new bytes, or the whole cluster when it was compressed or shared
 * with a snapshot, is read first and written along (head and tail).
 *
 * The order is data, then the L2 entry in memory; what was there before is
 * given up only then. A piece that fails leaves the old state.
 */
#include <stdlib.h>

#include "base/assert.h"
#include "block/qcow2_int.h"

/* ---- L2 tables of our own ---- */

/* A copy of a table that a snapshot has too, or an empty one. */
static int table_fill(struct qcow2 *q, u64 old, u64 host)
{
	u8 *bytes = calloc(1, q->cluster_bytes);
	int rc = 0;

	if (!bytes)
		return -ENOMEM;
	if (old)
		rc = qcow2_co_pread(q, old, bytes, q->cluster_bytes);
	if (!rc)
		rc = qcow2_co_pwrite(q, host, bytes, q->cluster_bytes);
	free(bytes);
	return rc;
}

static int table_own(struct qcow2 *q, u64 index)
{
	u64 old = q->l1[index] & L1_OFFSET_MASK, host, count;
	int rc;

	if (old && (q->l1[index] & L2_COPIED))
		return 0; /* someone was faster */
	rc = qcow2_co_alloc(q, 1, 1, true, &host, &count);
	if (rc)
		return rc;
	rc = table_fill(q, old, host);
	if (rc) {
		qcow2_set_del(&q->meta, host);
		qcow2_co_unalloc(q, host, 1);
		return rc;
	}
	q->l1[index] = host | L2_COPIED;
	qcow2_dirty_add(&q->l1_dirty, index);
	if (old)
		qcow2_free_later(q, old, q->cluster_bytes);
	return 0;
}

int qcow2_co_l2_get(struct qcow2 *q, u64 offset, struct qcow2_slice **out,
		    u32 *out_at)
{
	u64 index = offset >> (q->cluster_bits + q->l2_bits);
	u64 place;
	int rc = qcow2_l2_place(q, offset, &place, out_at);

	if (!rc && (!place || !(q->l1[index] & L2_COPIED))) {
		co_mutex_lock(&q->pool, &q->l1_lock);
		rc = table_own(q, index);
		co_mutex_unlock(&q->pool, &q->l1_lock);
		if (!rc)
			rc = qcow2_l2_place(q, offset, &place, out_at);
	}
	return rc ? rc : qcow2_co_cache_get(&q->l2, place, out);
}

void qcow2_l2_set(struct qcow2 *q, struct qcow2_slice *s, u32 at,
		  const struct qcow2_cluster *c)
{
	u64 entry = c->host | (c->host && c->is_ours ? L2_COPIED : 0);

	ASSERT(!c->is_compressed && !(c->allocated & c->zero));
	if (q->sub_count > 1) {
		st_be32(s->bytes + at + 8, c->zero);
		st_be32(s->bytes + at + 12, c->allocated);
	} else if (c->zero) {
		entry |= L2_ZERO;
	}
	st_be64(s->bytes + at, entry);
	qcow2_cache_dirty(&q->l2, s);
}

void qcow2_free_cluster(struct qcow2 *q, const struct qcow2_cluster *c)
{
	u32 x = 62 - (q->cluster_bits - 8);
	u64 host = c->entry & (BIT64(x) - 1);
	u64 sectors = ((c->entry & (L2_COMPRESSED - 1)) >> x) + 1;

	if (c->is_compressed) {
		q->unpacked_entry = 0;
		qcow2_free_later(q, host, sectors * 512 - (host & 511));
	} else if (c->host) {
		qcow2_free_later(q, c->host, q->cluster_bytes);
	}
}

/* ---- Pieces ---- */

/* The subclusters that [from, to) of a cluster touches, as bits. */
static u32 sub_mask(const struct qcow2 *q, u64 from, u64 to)
{
	u32 first = (u32)(from >> q->sub_bits);
	u32 last = (u32)((to - 1) >> q->sub_bits);

	return (u32)((BIT64(last + 1) - 1) & ~(BIT64(first) - 1));
}

/* [offset, offset + len) of the disk goes to `host` of the file, with what
 * lies around it between host_from and host_to. */
struct piece {
	u64 offset, len;
	u64 host; /* of `offset` */
	u64 head, tail;
	u8 *around; /* head, then tail */
};

static int around_read(struct qcow2 *q, struct piece *p)
{
	int rc;

	if (!p->head && !p->tail)
		return 0;
	p->around = malloc(p->head + p->tail);
	if (!p->around)
		return -ENOMEM;
	rc = qcow2_co_read_bytes(q, p->offset - p->head, p->around, p->head);
	if (!rc)
		rc = qcow2_co_read_bytes(q, p->offset + p->len,
					 p->around + p->head, p->tail);
	return rc;
}

static int piece_write(struct qcow2 *q, struct piece *p, struct qcow2_iov *v)
{
	struct iovec *all = malloc(sizeof(*all) * (QCOW2_IOV_MAX + 2));
	u64 done = 0;
	int rc = all ? 0 : -ENOMEM;

	while (!rc && done < p->len) {
		u64 at = p->host + done, extra = 0, bytes;
		int n = 0, count;

		bytes = qcow2_iov_next(v, p->len - done, &count);
		if (!done && p->head) {
			all[n++] = (struct iovec){p->around, p->head};
			extra += p->head;
			at -= p->head;
		}
		memcpy(all + n, v->part, sizeof(*all) * (size_t)count);
		n += count;
		done += bytes;
		if (done == p->len && p->tail) {
			all[n++] = (struct iovec){p->around + p->head, p->tail};
			extra += p->tail;
		}
		rc = qcow2_co_io(q, q->file, BLOCK_WRITE, at, bytes + extra,
				 all, n);
	}
	free(all);
	return rc;
}

/* Over what is there, as far as it is in one place. */
static int write_over(struct qcow2 *q, u64 offset, u64 len, struct qcow2_iov *v,
		      u64 *out_done)
{
	struct qcow2_extent e;
	struct piece p = {.offset = offset};
	int rc = qcow2_co_map(q, offset, len, &e);

	if (rc)
		return rc;
	ASSERT(e.source == QCOW2_FROM_FILE && e.is_ours);
	if (qcow2_is_meta(q, e.host, e.bytes))
		return qcow2_damaged(q, "data in the place of a table", e.host);
	p.len = *out_done = e.bytes;
	p.host = e.host;
	return piece_write(q, &p, v);
}

/* Into a cluster that is ours, some of whose subclusters are not allocated. */
static int write_into(struct qcow2 *q, struct qcow2_slice *s, u32 at,
		      struct qcow2_cluster *c, u64 offset, u64 len,
		      struct qcow2_iov *v, u64 *out_done)
{
	u64 in = offset & (q->cluster_bytes - 1);
	u64 to = MIN(in + len, q->cluster_bytes);
	u64 sub = BIT64(q->sub_bits);
	u32 mask = sub_mask(q, in, to);
	struct piece p = {.offset = offset,
			  .len = to - in,
			  .host = c->host + in,
			  .head = in & (sub - 1),
			  .tail = ALIGN_UP(to, sub) - to};
	int rc;

	if (qcow2_is_meta(q, c->host, q->cluster_bytes))
		return qcow2_damaged(q, "data in the place of a table",
				     c->host);
	rc = around_read(q, &p);
	if (!rc)
		rc = piece_write(q, &p, v);
	free(p.around);
	if (rc)
		return rc;
	c->allocated |= mask;
	c->zero &= ~mask;
	qcow2_l2_set(q, s, at, c);
	*out_done = p.len;
	return 0;
}

static bool is_new(const struct qcow2_cluster *c)
{
	return c->is_compressed || !c->host || !c->is_ours;
}

/* Must all of it move to the new cluster? */
static bool moves(const struct qcow2_cluster *c)
{
	return c->is_compressed || c->host;
}

/* How many clusters from `at` on, up to the piece's end, need a new place. */
static int count_new(struct qcow2 *q, const struct qcow2_slice *s, u32 at,
		     u64 clusters, u64 *out)
{
	u32 step = 1u << q->entry_bits;
	struct qcow2_cluster c;
	u64 n = 0;

	for (; n < clusters && at < q->l2.slice_bytes; n++, at += step) {
		int rc = qcow2_cluster_decode(q, s->bytes + at, &c);

		if (rc)
			return rc;
		if (!is_new(&c))
			break;
	}
	*out = n;
	return 0;
}

/* Points the entries of a piece at its new clusters. */
static void link_new(struct qcow2 *q, struct qcow2_slice *s, u32 at,
		     const struct piece *p, u64 host, u64 clusters)
{
	u64 from = p->offset & (q->cluster_bytes - 1);
	u64 to = from + p->len;

	for (u64 i = 0; i < clusters; i++, at += 1u << q->entry_bits) {
		u64 base = i << q->cluster_bits;
		u64 a = MAX(from, base) - base;
		u64 b = MIN(to - base, q->cluster_bytes);
		struct qcow2_cluster old, c = {.is_ours = true};

		/* It was looked at when the piece was made. */
		if (qcow2_cluster_decode(q, s->bytes + at, &old))
			return;
		c.host = host + base;
		c.allocated = moves(&old) ? sub_mask(q, 0, q->cluster_bytes)
					  : sub_mask(q, a, b);
		c.zero = old.zero & ~c.allocated;
		qcow2_l2_set(q, s, at, &c);
		qcow2_free_cluster(q, &old);
	}
}

/* What of the first and the last cluster comes along. */
static int piece_plan(struct qcow2 *q, const struct qcow2_slice *s, u32 at,
		      u64 clusters, struct piece *p)
{
	u32 last_at = at + ((u32)(clusters - 1) << q->entry_bits);
	u64 sub = BIT64(q->sub_bits);
	u64 in = p->offset & (q->cluster_bytes - 1);
	u64 end = p->offset + p->len;
	struct qcow2_cluster first, last;
	int rc = qcow2_cluster_decode(q, s->bytes + at, &first);

	if (!rc)
		rc = qcow2_cluster_decode(q, s->bytes + last_at, &last);
	if (rc)
		return rc;
	p->head = moves(&first) ? in : in & (sub - 1);
	p->tail = ALIGN_UP(end, moves(&last) ? q->cluster_bytes : sub) - end;
	return around_read(q, p);
}

static int write_new(struct qcow2 *q, struct qcow2_slice *s, u32 at, u64 offset,
		     u64 len, struct qcow2_iov *v, u64 *out_done)
{
	u64 in = offset & (q->cluster_bytes - 1);
	u64 want = (in + len + q->cluster_bytes - 1) >> q->cluster_bits;
	u64 host, clusters;
	struct piece p = {.offset = offset};
	int rc = count_new(q, s, at, want, &clusters);

	if (!rc)
		rc = qcow2_co_alloc(q, 1, clusters, false, &host, &clusters);
	if (rc)
		return rc;
	p.len = MIN(len, (clusters << q->cluster_bits) - in);
	p.host = host + in;
	rc = piece_plan(q, s, at, clusters, &p);
	if (!rc)
		rc = piece_write(q, &p, v);
	free(p.around);
	if (rc) {
		qcow2_co_unalloc(q, host, clusters);
		return rc;
	}
	link_new(q, s, at, &p, host, clusters);
	*out_done = p.len;
	return 0;
}

static int write_some(struct qcow2 *q, u64 offset, u64 len, struct qcow2_iov *v,
		      u64 *out_done)
{
	u64 in = offset & (q->cluster_bytes - 1);
	u32 mask = sub_mask(q, in, MIN(in + len, q->cluster_bytes));
	struct qcow2_cluster c;
	struct qcow2_slice *s;
	u32 at;
	int rc = qcow2_co_l2_get(q, offset, &s, &at);

	if (rc)
		return rc;
	rc = qcow2_cluster_decode(q, s->bytes + at, &c);
	if (rc)
		;
	else if (is_new(&c))
		rc = write_new(q, s, at, offset, len, v, out_done);
	else if ((c.allocated & mask) == mask)
		rc = write_over(q, offset, len, v, out_done);
	else
		rc = write_into(q, s, at, &c, offset, len, v, out_done);
	qcow2_cache_put(&q->l2, s);
	return rc;
}

int qcow2_co_write(struct qcow2 *q, u64 offset, u64 len, struct qcow2_iov *v)
{
	while (len) {
		u64 done;
		int rc = write_some(q, offset, len, v, &done);

		if (rc)
			return rc;
		offset += done;
		len -= done;
	}
	return 0;
}
