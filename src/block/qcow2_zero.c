/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY
 *
 * Whole subclusters become zeros in the L2 entry; what is left at both ends,
 * or all of it where the format has no such flag (version 2 over a backing
 * file), is written as zeros. A discard gives up whole clusters only; they
 * read as zeros afterwards, not as what is below.
 */
#include <stdlib.h>

#include "block/qcow2_int.h"

static int write_plain(struct qcow2 *q, u64 offset, u64 len)
{
	static const u8 zeroes[64 * KIB];
	struct iovec iov[16], part[16];
	int rc = 0;

	for (int i = 0; i < 16; i++)
		iov[i] = (struct iovec){(void *)zeroes, sizeof(zeroes)};
	while (!rc && len) {
		u64 n = MIN(len, 16 * sizeof(zeroes));
		struct qcow2_iov v = {iov, 16, 0, part};

		rc = qcow2_co_write(q, offset, n, &v);
		offset += n;
		len -= n;
	}
	return rc;
}

/* Writes zeros unless the bytes are zeros anyway. */
static int write_rest(struct qcow2 *q, u64 offset, u64 len)
{
	while (len) {
		struct qcow2_extent e;
		int rc = qcow2_co_map(q, offset, len, &e);

		if (!rc && e.source != QCOW2_FROM_ZERO)
			rc = write_plain(q, offset, e.bytes);
		if (rc)
			return rc;
		offset += e.bytes;
		len -= e.bytes;
	}
	return 0;
}

static bool has_zero_flag(const struct qcow2 *q)
{
	return q->h.version >= 3;
}

/* How the cluster looks when the subclusters in mask are zeros. */
static void make_zero(struct qcow2 *q, struct qcow2_cluster *c, u32 mask,
		      bool may_unmap)
{
	u32 all = q->sub_count == 1 ? 1 : UINT32_MAX;

	if (mask == all && (may_unmap || c->is_compressed || !c->is_ours)) {
		c->host = 0;
		c->is_ours = c->is_compressed = false;
	}
	c->allocated &= ~mask;
	c->zero |= mask;
	if (!q->has_backing && !c->host && !c->allocated &&
	    (c->zero == all || !has_zero_flag(q)))
		c->zero = 0; /* nothing at all reads as zeros, too */
}

/* Zeros in the subclusters of `mask`; 1: not in that way. */
static int zero_entry(struct qcow2 *q, u64 offset, u32 mask, bool may_unmap)
{
	u32 all = q->sub_count == 1 ? 1 : UINT32_MAX;
	struct qcow2_cluster c, old;
	struct qcow2_slice *s;
	u32 at;
	int rc = qcow2_co_l2_get(q, offset, &s, &at);

	if (rc)
		return rc;
	rc = qcow2_cluster_decode(q, s->bytes + at, &c);
	old = c;
	if (!rc &&
	    ((mask != all && (c.is_compressed || (c.host && !c.is_ours))) ||
	     (!has_zero_flag(q) && (q->has_backing || !may_unmap))))
		rc = 1;
	if (!rc) {
		make_zero(q, &c, mask, may_unmap);
		qcow2_l2_set(q, s, at, &c);
		if (c.host != old.host || old.is_compressed)
			qcow2_free_cluster(q, &old);
	}
	qcow2_cache_put(&q->l2, s);
	return rc;
}

/* One cluster, or a part of it. */
static int zero_cluster(struct qcow2 *q, u64 offset, u64 len, bool may_unmap)
{
	u64 base = ALIGN_DOWN(offset, q->cluster_bytes);
	u64 sub = BIT64(q->sub_bits), size = q->node.size_bytes;
	u64 from = ALIGN_UP(offset, sub), end = offset + len;
	/* Nothing is behind the end of the disk. */
	u64 to = end == size ? base + q->cluster_bytes : ALIGN_DOWN(end, sub);
	u32 first, last;
	int rc;

	if (from >= to)
		return write_rest(q, offset, len);
	first = (u32)((from - base) >> q->sub_bits);
	last = (u32)((to - 1 - base) >> q->sub_bits);
	rc = zero_entry(q, base,
			(u32)((BIT64(last + 1) - 1) & ~(BIT64(first) - 1)),
			may_unmap);
	if (rc > 0)
		return write_rest(q, offset, len);
	if (!rc && offset < from)
		rc = write_rest(q, offset, from - offset);
	if (!rc && to < end)
		rc = write_rest(q, to, end - to);
	return rc;
}

int qcow2_co_write_zeroes(struct qcow2 *q, u64 offset, u64 len, bool may_unmap)
{
	while (len) {
		struct qcow2_extent e;
		u64 n;
		int rc = qcow2_co_map(q, offset, len, &e);

		if (rc)
			return rc;
		n = e.bytes;
		if (e.source != QCOW2_FROM_ZERO) {
			n = q->cluster_bytes -
			    (offset & (q->cluster_bytes - 1));
			n = MIN(n, len);
			rc = zero_cluster(q, offset, n, may_unmap);
		}
		if (rc)
			return rc;
		offset += n;
		len -= n;
	}
	return 0;
}

int qcow2_co_discard(struct qcow2 *q, u64 offset, u64 len)
{
	u64 mask = q->cluster_bytes - 1, size = q->node.size_bytes;
	u64 end = offset + len;
	u32 all = q->sub_count == 1 ? 1 : UINT32_MAX;

	if (end < size)
		end &= ~mask;
	for (offset = (offset + mask) & ~mask; offset < end;) {
		struct qcow2_extent e = {0};
		int rc = qcow2_co_map(q, offset, end - offset, &e);
		u64 whole = e.bytes & ~mask;
		bool is_data = e.source == QCOW2_FROM_FILE ||
			       e.source == QCOW2_FROM_COMPRESSED;

		if (!rc && !is_data && (whole || offset + e.bytes == size)) {
			offset += MAX(whole, q->cluster_bytes);
			continue;
		}
		if (!rc)
			rc = zero_entry(q, offset, all, true);
		if (rc < 0)
			return rc;
		offset += q->cluster_bytes;
	}
	return 0;
}
