/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY
 *
 * Compressed clusters are put one behind the other, at any byte, into clusters
 * of the file; each counts as one reference to the cluster that it lies in. One
 * that does not fit into what is left of the cluster begins a new one. With
 * counts of one bit each has a cluster of its own.
 *
 * The order is that of other writes: count, bytes, entry; qcow2_flush.c does
 * the rest. For new images only: what is allocated already is left to the
 * ordinary write.
 */
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>

#include "base/assert.h"
#include "block/qcow2_int.h"

/* Others inflate with a window of 4 KiB. */
#define DEFLATE_WINDOW (-12)

/* Bytes, or 0: not smaller than a cluster. */
static size_t pack_deflate(const u8 *in, size_t in_bytes, u8 *out,
			   size_t out_bytes)
{
	z_stream z = {.next_in = (u8 *)in,
		      .avail_in = (uInt)in_bytes,
		      .next_out = out,
		      .avail_out = (uInt)out_bytes};
	size_t n = 0;

	if (deflateInit2(&z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, DEFLATE_WINDOW,
			 9, Z_DEFAULT_STRATEGY) != Z_OK)
		return 0;
	if (deflate(&z, Z_FINISH) == Z_STREAM_END)
		n = out_bytes - z.avail_out;
	deflateEnd(&z);
	return n;
}

static size_t pack(const struct qcow2 *q, const u8 *in, u8 *out, size_t room)
{
	size_t n;

	if (!q->h.compression_type)
		return pack_deflate(in, q->cluster_bytes, out, room);
	n = ZSTD_compress(out, room, in, q->cluster_bytes, ZSTD_CLEVEL_DEFAULT);
	return ZSTD_isError(n) ? 0 : n;
}

/* A place for n bytes with a reference counted for it. */
static int place_take(struct qcow2 *q, u64 n, u64 *out_host)
{
	u64 left = q->cluster_bytes - (q->pack_at & (q->cluster_bytes - 1));
	u64 host, count, max;
	int rc;

	max = UINT64_MAX >> (64 - (1u << q->h.refcount_order));
	if (q->pack_at && left != q->cluster_bytes && n <= left) {
		u64 cluster = q->pack_at >> q->cluster_bits;

		co_mutex_lock(&q->pool, &q->alloc_lock);
		rc = qcow2_co_refcount(q, cluster, &count);
		if (!rc && count && count < max)
			rc = qcow2_co_count_set(q, cluster, count + 1);
		else if (!rc)
			rc = 1;
		co_mutex_unlock(&q->pool, &q->alloc_lock);
		if (rc < 0)
			return rc;
		if (!rc) {
			*out_host = q->pack_at;
			q->pack_at += n;
			return 0;
		}
	}
	rc = qcow2_co_alloc(q, 1, 1, false, &host, &count);
	if (rc)
		return rc;
	*out_host = host;
	q->pack_at = host + n;
	return 0;
}

static int link_packed(struct qcow2 *q, struct qcow2_slice *s, u32 at, u64 host,
		       u64 n)
{
	u32 x = 62 - (q->cluster_bits - 8);
	u64 sectors = ((host + n - 1) >> 9) - (host >> 9);

	if (host >> MIN(x, 56u))
		return -EFBIG;
	st_be64(s->bytes + at, L2_COMPRESSED | sectors << x | host);
	if (q->sub_count > 1)
		st_be64(s->bytes + at + 8, 0);
	qcow2_cache_dirty(&q->l2, s);
	return 0;
}

struct packed {
	u64 offset;
	const u8 *in;
	u8 *out;
	size_t bytes;
};

static int write_packed(struct qcow2 *q, const struct packed *p,
			struct qcow2_slice *s, u32 at)
{
	struct qcow2_cluster c;
	u64 host;
	int rc = qcow2_cluster_decode(q, s->bytes + at, &c);

	if (!rc && (c.host || c.is_compressed))
		return 1;
	if (!rc)
		rc = place_take(q, p->bytes, &host);
	if (rc)
		return rc;
	rc = qcow2_co_pwrite(q, host, p->out, p->bytes);
	/* A failure leaves the reference: a leak. */
	return rc ? rc : link_packed(q, s, at, host, p->bytes);
}

static int pack_main(struct qcow2 *q, void *opaque)
{
	struct packed *p = opaque;
	struct qcow2_slice *s;
	u32 at;
	int rc;

	p->bytes = pack(q, p->in, p->out, q->cluster_bytes - 1);
	if (!p->bytes)
		return 1;
	rc = qcow2_co_l2_get(q, p->offset, &s, &at);
	if (rc)
		return rc;
	rc = write_packed(q, p, s, at);
	qcow2_cache_put(&q->l2, s);
	return rc;
}

int qcow2_write_packed(struct block_node *node, u64 offset, const u8 *bytes)
{
	struct qcow2 *q = qcow2_of(node);
	struct packed p = {.offset = offset, .in = bytes};
	int rc;

	ASSERT(qcow2_is_node(node) && !node->is_read_only);
	if (offset & (q->cluster_bytes - 1) || offset >= node->size_bytes)
		return -EINVAL;
	p.out = malloc(q->cluster_bytes);
	rc = p.out ? qcow2_run(q, pack_main, &p) : -ENOMEM;
	free(p.out);
	return rc;
}
