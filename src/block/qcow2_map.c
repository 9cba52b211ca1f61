/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY
 *
 * An image without extended L2 entries is one with a single subcluster per
 * cluster: its zero flag is that subcluster's zero bit, and a zero cluster
 * with an offset is one that is preallocated. So all code above deals with
 * struct qcow2_cluster only.
 *
 * Nothing here trusts a table: an offset must be aligned, inside the file and
 * behind the header.
 *
 * Source: qcow2 "Cluster mapping", "Extended L2 Entries".
 */
#include "block/qcow2_int.h"

#include "base/assert.h"

/* May a whole cluster (or its part that the file has) be at `host`? */
static bool is_place(const struct qcow2 *q, u64 host)
{
	return host >= q->cluster_bytes && !(host & (q->cluster_bytes - 1)) &&
	       host < q->file->file_bytes;
}

static int decode_compressed(struct qcow2 *q, struct qcow2_cluster *c)
{
	u32 x = 62 - (q->cluster_bits - 8);
	u64 host = c->entry & (BIT64(x) - 1);

	if (host < q->cluster_bytes || host >= q->file->file_bytes ||
	    (c->entry & L2_COPIED))
		return qcow2_damaged(q, "compressed cluster", c->entry);
	c->is_compressed = true;
	return 0;
}

static int decode_bits(struct qcow2 *q, const u8 *at, struct qcow2_cluster *c)
{
	if (q->sub_count > 1) {
		c->allocated = ld_be32(at + 12);
		c->zero = ld_be32(at + 8);
		if ((c->allocated & c->zero) || (c->entry & L2_ZERO) ||
		    (c->allocated && !c->host))
			return qcow2_damaged(q, "L2 entry", c->entry);
		return 0;
	}
	if (!(c->entry & L2_ZERO))
		c->allocated = c->host ? 1 : 0;
	else if (q->h.version < 3)
		return qcow2_damaged(q, "L2 entry", c->entry);
	else
		c->zero = 1;
	return 0;
}

int qcow2_cluster_decode(struct qcow2 *q, const u8 *at,
			 struct qcow2_cluster *out)
{
	memset(out, 0, sizeof(*out));
	out->entry = ld_be64(at);
	if (out->entry & L2_COMPRESSED)
		return decode_compressed(q, out);
	out->host = out->entry & L2_OFFSET_MASK;
	out->is_ours = out->entry & L2_COPIED;
	if ((out->entry & L2_RESERVED) ||
	    (out->host ? !is_place(q, out->host) : out->is_ours))
		return qcow2_damaged(q, "L2 entry", out->entry);
	return decode_bits(q, at, out);
}

int qcow2_l2_place(struct qcow2 *q, u64 offset, u64 *out_slice, u32 *out_at)
{
	u64 cluster = offset >> q->cluster_bits;
	u64 index = cluster >> q->l2_bits;
	u64 in_table = (cluster & (BIT64(q->l2_bits) - 1)) << q->entry_bits;
	u64 entry, table;

	ASSERT(index < q->l1_entries);
	entry = q->l1[index];
	table = entry & L1_OFFSET_MASK;
	*out_at = in_table & (q->l2.slice_bytes - 1);
	*out_slice = 0;
	if (!table && !(entry & ~L2_COPIED))
		return 0;
	if ((entry & L1_RESERVED) || !is_place(q, table))
		return qcow2_damaged(q, "L1 entry", entry);
	*out_slice = table + in_table - *out_at;
	return 0;
}

static enum qcow2_source source_of(const struct qcow2 *q,
				   const struct qcow2_cluster *c, u32 sub)
{
	if (c->is_compressed)
		return QCOW2_FROM_COMPRESSED;
	if (c->allocated >> sub & 1)
		return QCOW2_FROM_FILE;
	if (c->zero >> sub & 1 || !q->has_backing)
		return QCOW2_FROM_ZERO;
	return QCOW2_FROM_BACKING;
}

/* Adds the part of cluster c from offset on to out; false when it is of
 * another kind or place. */
static bool extend(const struct qcow2 *q, const struct qcow2_cluster *c,
		   u64 offset, struct qcow2_extent *out)
{
	u64 in_cluster = offset & (q->cluster_bytes - 1);
	u32 sub = (u32)(in_cluster >> q->sub_bits);
	enum qcow2_source first = source_of(q, c, sub);

	if (!out->bytes) {
		out->source = first;
		out->host = c->host + in_cluster;
		out->is_ours = c->is_ours;
		out->entry = c->entry;
	} else if (first != out->source || first == QCOW2_FROM_COMPRESSED ||
		   (first == QCOW2_FROM_FILE &&
		    (out->host + out->bytes != c->host ||
		     out->is_ours != c->is_ours))) {
		return false;
	}
	for (; sub < q->sub_count; sub++) {
		u64 end = (u64)(sub + 1) << q->sub_bits;

		if (source_of(q, c, sub) != first)
			return false;
		out->bytes += end - in_cluster;
		in_cluster = end;
	}
	return true;
}

static int map_slice(struct qcow2 *q, const struct qcow2_slice *s, u32 at,
		     u64 offset, u64 len, struct qcow2_extent *out)
{
	u32 step = 1u << q->entry_bits;
	struct qcow2_cluster c;
	int rc = 0;

	out->bytes = 0;
	for (; at < q->l2.slice_bytes && out->bytes < len; at += step) {
		rc = qcow2_cluster_decode(q, s->bytes + at, &c);
		if (rc || !extend(q, &c, offset + out->bytes, out))
			break;
	}
	if (rc && !out->bytes)
		return rc;
	out->bytes = MIN(out->bytes, len);
	return 0;
}

/* No table: what its slice would be about. */
static void map_nothing(const struct qcow2 *q, u64 offset, u64 len,
			struct qcow2_extent *out)
{
	u64 reach = q->cluster_bytes << q->l2_bits;

	out->source = q->has_backing ? QCOW2_FROM_BACKING : QCOW2_FROM_ZERO;
	out->bytes = MIN(len, reach - (offset & (reach - 1)));
}

int qcow2_co_map(struct qcow2 *q, u64 offset, u64 len, struct qcow2_extent *out)
{
	struct qcow2_slice *s;
	u64 place;
	u32 at;
	int rc = qcow2_l2_place(q, offset, &place, &at);

	if (rc)
		return rc;
	if (!place) {
		map_nothing(q, offset, len, out);
		return 0;
	}
	rc = qcow2_co_cache_get(&q->l2, place, &s);
	if (rc)
		return rc;
	rc = map_slice(q, s, at, offset, len, out);
	qcow2_cache_put(&q->l2, s);
	return rc;
}

int qcow2_map(struct qcow2 *q, u64 offset, u64 len, struct qcow2_extent *out)
{
	struct qcow2_slice *s;
	u64 place;
	u32 at;
	int rc = qcow2_l2_place(q, offset, &place, &at);

	if (rc)
		return rc;
	if (!place) {
		map_nothing(q, offset, len, out);
		return 0;
	}
	s = qcow2_cache_peek(&q->l2, place);
	return s ? map_slice(q, s, at, offset, len, out) : -EAGAIN;
}
