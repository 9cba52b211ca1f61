/* SPDX-License-Identifier: Apache-2.0 */
#include "block/qcow2_int.h"

static void step(struct qcow2_iov *v, u64 len)
{
	v->skip += len;
	while (v->count && v->skip >= v->iov->iov_len) {
		v->skip -= v->iov->iov_len;
		v->iov++;
		v->count--;
	}
}

u64 qcow2_iov_next(struct qcow2_iov *v, u64 len, int *out_count)
{
	u64 done = 0;
	int n = 0;

	while (done < len && n < QCOW2_IOV_MAX && v->count) {
		u64 bytes = MIN(v->iov->iov_len - v->skip, len - done);

		if (bytes)
			v->part[n++] = (struct iovec){
				(u8 *)v->iov->iov_base + v->skip, bytes};
		done += bytes;
		step(v, bytes);
	}
	*out_count = n;
	return done;
}

static void zero(const struct iovec *part, int count)
{
	for (int i = 0; i < count; i++)
		memset(part[i].iov_base, 0, part[i].iov_len);
}

static void copy(const struct iovec *part, int count, const u8 *from)
{
	for (int i = 0; i < count; i++) {
		memcpy(part[i].iov_base, from, part[i].iov_len);
		from += part[i].iov_len;
	}
}

/* The backing file may end before the disk does: zeros follow. */
static int read_backing(struct qcow2 *q, u64 offset, u64 len,
			struct iovec *part, int count)
{
	u64 have, left;
	int n = 0;

	if (!q->backing)
		return -ENOMEDIUM;
	have = block_size_bytes(q->backing);
	have = offset < have ? MIN(have - offset, len) : 0;
	left = have;
	for (; n < count && left >= part[n].iov_len; n++)
		left -= part[n].iov_len;
	if (have == len)
		return qcow2_co_io(q, q->backing, BLOCK_READ, offset, len, part,
				   count);
	zero(part + n, count - n);
	if (left) {
		part[n].iov_len = left;
		n++;
	}
	return have ? qcow2_co_io(q, q->backing, BLOCK_READ, offset, have, part,
				  n)
		    : 0;
}

static int read_unpacked(struct qcow2 *q, const struct qcow2_extent *e,
			 u64 offset, const struct iovec *part, int count)
{
	const u8 *bytes;
	int rc = qcow2_co_unpack(q, e->entry, &bytes);

	if (!rc)
		copy(part, count, bytes + (offset & (q->cluster_bytes - 1)));
	return rc;
}

static int read_extent(struct qcow2 *q, const struct qcow2_extent *e,
		       u64 offset, u64 len, struct iovec *part, int count)
{
	switch (e->source) {
	case QCOW2_FROM_FILE:
		return qcow2_co_io(q, q->file, BLOCK_READ, e->host, len, part,
				   count);
	case QCOW2_FROM_BACKING:
		return read_backing(q, offset, len, part, count);
	case QCOW2_FROM_COMPRESSED:
		return read_unpacked(q, e, offset, part, count);
	case QCOW2_FROM_ZERO:
		zero(part, count);
		return 0;
	}
	return -EIO;
}

int qcow2_co_read(struct qcow2 *q, u64 offset, u64 len, struct qcow2_iov *v)
{
	while (len) {
		struct qcow2_extent e = {0};
		u64 bytes;
		int count, rc = qcow2_co_map(q, offset, len, &e);

		if (rc)
			return rc;
		bytes = qcow2_iov_next(v, e.bytes, &count);
		rc = read_extent(q, &e, offset, bytes, v->part, count);
		if (rc)
			return rc;
		offset += bytes;
		len -= bytes;
	}
	return 0;
}

int qcow2_co_read_bytes(struct qcow2 *q, u64 offset, void *bytes, u64 len)
{
	u64 size = q->node.size_bytes;
	u64 have = offset < size ? MIN(size - offset, len) : 0;
	struct iovec iov = {bytes, have}, part[1];
	struct qcow2_iov v = {&iov, 1, 0, part};

	memset((u8 *)bytes + have, 0, len - have);
	return qcow2_co_read(q, offset, have, &v);
}
