/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY
 *
 * A larger disk may need a larger L1 table: it is made elsewhere, is durable,
 * and then the header names it together with the size, in one sector. What the
 * backing file has behind the old end must not come up: it is zeroed before.
 * A smaller disk gives up what it loses, then the header has its size; the L1
 * table stays as it is.
 */
#include <stdlib.h>

#include "base/assert.h"
#include "block/qcow2_int.h"

static int table_put(struct qcow2 *q, u64 host, const u64 *l1, u64 entries)
{
	u64 bytes = ALIGN_UP(entries * 8, q->cluster_bytes);
	u8 *be = calloc(1, bytes);
	int rc;

	if (!be)
		return -ENOMEM;
	for (u64 i = 0; i < entries; i++)
		st_be64(be + 8 * i, l1[i]);
	rc = qcow2_co_pwrite(q, host, be, bytes);
	free(be);
	return rc ? rc : qcow2_co_sync(q);
}

/* The new table is in the file, if not yet the image's. */
static int table_grow(struct qcow2 *q, u64 entries, u64 *out_host)
{
	u64 clusters = (entries * 8 + q->cluster_bytes - 1) >> q->cluster_bits;
	u64 host, got, *l1;
	int rc;

	l1 = realloc(q->l1, entries * 8);
	if (!l1)
		return -ENOMEM;
	memset(l1 + q->l1_entries, 0, (entries - q->l1_entries) * 8);
	q->l1 = l1;
	rc = qcow2_co_alloc(q, clusters, clusters, true, &host, &got);
	if (!rc)
		rc = qcow2_co_flush(q); /* the counts, and the old table */
	if (!rc)
		rc = table_put(q, host, l1, entries);
	if (!rc)
		*out_host = host;
	return rc;
}

/* The table has room: a disk that was larger. What it says there must be
 * nothing. */
static int table_more(struct qcow2 *q, u64 entries)
{
	u64 more = entries - q->l1_entries, *l1;
	int rc;

	l1 = realloc(q->l1, entries * 8);
	if (!l1)
		return -ENOMEM;
	q->l1 = l1;
	rc = qcow2_co_pread(q, q->h.l1_offset + q->l1_entries * 8ull,
			    l1 + q->l1_entries, more * 8);
	for (u64 i = q->l1_entries; !rc && i < entries; i++)
		if (l1[i])
			rc = -ENOTSUP;
	return rc;
}

static int header_switch(struct qcow2 *q, const struct qcow2_header *h)
{
	struct qcow2_header old = q->h;
	int rc;

	q->h = *h;
	rc = qcow2_co_header_write(q);
	if (!rc)
		rc = qcow2_co_sync(q);
	if (rc)
		q->h = old;
	return rc;
}

static int grow(struct qcow2 *q, u64 size)
{
	u64 entries = qcow2_l1_entries(&q->h, size), old_size = q->h.size_bytes;
	struct qcow2_header h = q->h, old = q->h;
	u64 below = q->backing ? block_size_bytes(q->backing) : 0;
	int rc = 0;

	if (entries > QCOW2_L1_BYTES / 8)
		return -EFBIG;
	h.size_bytes = size;
	if (entries > h.l1_entries) {
		rc = table_grow(q, entries, &h.l1_offset);
		h.l1_entries = (u32)entries;
	} else if (entries > q->l1_entries) {
		rc = table_more(q, entries);
	}
	if (!rc)
		rc = header_switch(q, &h);
	if (rc)
		return rc;
	q->l1_entries = (u32)MAX(entries, q->l1_entries);
	q->node.size_bytes = size;
	if (h.l1_offset != old.l1_offset && old.l1_entries)
		qcow2_free_later(q, old.l1_offset, old.l1_entries * 8ull);
	if (below > old_size)
		rc = qcow2_co_write_zeroes(q, old_size,
					   MIN(below, size) - old_size, true);
	return rc ? rc : qcow2_co_flush(q);
}

static int shrink(struct qcow2 *q, u64 size)
{
	struct qcow2_header h = q->h;
	int rc;

	/* The rest of the last cluster is zeros when the disk grows again. */
	rc = qcow2_co_write_zeroes(q, size, q->h.size_bytes - size, true);
	for (u64 i = qcow2_l1_entries(&h, size); !rc && i < q->l1_entries;
	     i++) {
		if (!(q->l1[i] & L1_OFFSET_MASK))
			continue;
		qcow2_free_later(q, q->l1[i] & L1_OFFSET_MASK,
				 q->cluster_bytes);
		q->l1[i] = 0;
		qcow2_dirty_add(&q->l1_dirty, i);
	}
	if (!rc)
		rc = qcow2_co_flush(q);
	h.size_bytes = size;
	if (!rc)
		rc = header_switch(q, &h);
	if (!rc)
		q->node.size_bytes = size;
	return rc;
}

static int resize_main(struct qcow2 *q, void *opaque)
{
	u64 size = *(u64 *)opaque;
	u64 autoclear = q->h.autoclear;

	q->h.autoclear = 0; /* bitmaps have the old size */
	if (autoclear && qcow2_co_header_write(q))
		return -EIO;
	if (size > q->h.size_bytes)
		return grow(q, size);
	return size < q->h.size_bytes ? shrink(q, size) : 0;
}

int qcow2_resize(struct block_node *node, u64 size_bytes, struct err *err)
{
	int rc;

	if (!qcow2_is_node(node) || node->is_read_only)
		return err_set(err, -EINVAL, "this image cannot be resized");
	if (!size_bytes || size_bytes > INT64_MAX || size_bytes % 512)
		return err_set(err, -EINVAL,
			       "a disk's size is a multiple of 512 bytes");
	rc = qcow2_run(qcow2_of(node), resize_main, &size_bytes);
	if (rc == -EFBIG)
		return err_set(err, rc,
			       "the disk is too large for its clusters");
	return rc ? err_sys(err, rc, "resize the disk") : 0;
}

/* ---- Where things are ---- */

struct map {
	u64 offset, len;
	struct qcow2_extent extent;
};

static int map_main(struct qcow2 *q, void *opaque)
{
	struct map *m = opaque;

	return qcow2_co_map(q, m->offset, m->len, &m->extent);
}

/* What the backing file has there, or that it has nothing. */
static int map_below(struct qcow2 *q, u64 offset, u64 len,
		     struct qcow2_place *out)
{
	u64 size = q->backing ? block_size_bytes(q->backing) : 0;
	int rc;

	if (offset >= size) {
		*out = (struct qcow2_place){len, QCOW2_EXTENT_NOWHERE};
		return q->backing ? 0 : -ENOMEDIUM;
	}
	rc = qcow2_map_at(q->backing, offset, MIN(len, size - offset), out);
	out->depth++;
	return rc;
}

int qcow2_map_at(struct block_node *node, u64 offset, u64 len,
		 struct qcow2_place *out)
{
	struct map m = {.offset = offset};
	u64 size = block_size_bytes(node);
	int rc;

	if (offset >= size)
		return -EINVAL;
	m.len = len = MIN(len, size - offset);
	*out = (struct qcow2_place){len, QCOW2_EXTENT_DATA, 0, offset};
	if (!qcow2_is_node(node))
		return 0;
	rc = qcow2_run(qcow2_of(node), map_main, &m);
	out->bytes = m.extent.bytes;
	out->file_byte = m.extent.host;
	switch (m.extent.source) {
	case QCOW2_FROM_FILE:
		break;
	case QCOW2_FROM_COMPRESSED:
		out->kind = QCOW2_EXTENT_COMPRESSED;
		break;
	case QCOW2_FROM_ZERO:
		out->kind = qcow2_of(node)->has_backing || m.extent.entry
				    ? QCOW2_EXTENT_ZERO
				    : QCOW2_EXTENT_NOWHERE;
		break;
	case QCOW2_FROM_BACKING:
		if (!rc)
			rc = map_below(qcow2_of(node), offset, m.extent.bytes,
				       out);
	}
	return rc;
}
