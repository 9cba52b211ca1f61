/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY
 *
 * A new image is one run of clusters: header, refcount table, refcount blocks,
 * L1 table. Blocks count all of them, themselves too, so their number is
 * found by trying. The header is written last: what is cut off before is no
 * image.
 */
#include <stdlib.h>

#include "base/assert.h"
#include "block/qcow2_int.h"

struct layout {
	const struct qcow2_create *o;
	struct qcow2_header h;
	u32 order;
	u64 l1_clusters, table_clusters, blocks, used;
	u8 *bytes; /* used clusters but the header's and the L1's */
};

static u64 clusters_of(const struct layout *l, u64 bytes)
{
	return (bytes + BIT64(l->h.cluster_bits) - 1) >> l->h.cluster_bits;
}

static int check_options(struct layout *l, struct err *err)
{
	const struct qcow2_create *o = l->o;
	struct qcow2_header *h = &l->h;
	u32 refcount_bits = o->refcount_bits ? o->refcount_bits : 16;

	h->version = o->version ? o->version : 3;
	h->cluster_bits = o->cluster_bits ? o->cluster_bits : 16;
	h->size_bytes = o->size_bytes;
	if (h->version != 2 && h->version != 3)
		return err_set(err, -EINVAL, "qcow2 versions are 2 and 3");
	if (h->cluster_bits < 9 || h->cluster_bits > 21)
		return err_set(err, -EINVAL,
			       "clusters are of 512 bytes to 2 MiB");
	if (refcount_bits > 64 || __builtin_popcount(refcount_bits) != 1)
		return err_set(err, -EINVAL,
			       "reference counts have 1, 2, 4, 8, 16, 32 or 64 "
			       "bits");
	l->order = (u32)__builtin_ctz(refcount_bits);
	if (h->version == 2 && (l->order != 4 || o->is_extended || o->is_lazy ||
				o->compression_type))
		return err_set(err, -EINVAL,
			       "version 2 has none of these options");
	if (o->is_extended && h->cluster_bits < 14)
		return err_set(err, -EINVAL,
			       "extended L2 entries need clusters of 16 KiB or "
			       "more");
	if (o->compression_type > 1)
		return err_set(err, -EINVAL, "unknown compression");
	return 0;
}

static int check_backing(const struct layout *l, struct err *err)
{
	const struct qcow2_create *o = l->o;
	size_t room = BIT64(l->h.cluster_bits) - 104 - 8 - 64 - 16;

	if (!o->backing_name)
		return 0;
	if (!*o->backing_name ||
	    strlen(o->backing_name) > MIN(room, (size_t)QCOW2_NAME_MAX))
		return err_set(err, -ENAMETOOLONG,
			       "the name of the backing file is too long");
	if (!o->backing_format || !*o->backing_format ||
	    strlen(o->backing_format) > QCOW2_FORMAT_MAX)
		return err_set(err, -EINVAL,
			       "the format of the backing file is not given");
	return 0;
}

static int plan(struct layout *l, struct err *err)
{
	struct qcow2_header *h = &l->h;
	u64 per_block = BIT64(h->cluster_bits + 3 - l->order);
	u64 need;

	if (l->o->is_extended)
		h->incompatible |= QCOW2_INCOMPAT_EXTL2;
	if (l->o->compression_type)
		h->incompatible |= QCOW2_INCOMPAT_COMPRESSION;
	if (l->o->is_lazy)
		h->compatible |= QCOW2_COMPAT_LAZY;
	need = qcow2_l1_entries(h, h->size_bytes);
	if (h->size_bytes > INT64_MAX || need > QCOW2_L1_BYTES / 8)
		return err_set(err, -EFBIG,
			       "the disk is too large for clusters of %llu "
			       "bytes",
			       (unsigned long long)BIT64(h->cluster_bits));
	h->l1_entries = (u32)MAX(need, 1u);
	l->l1_clusters = clusters_of(l, h->l1_entries * 8ull);
	l->blocks = l->table_clusters = 1;
	for (;;) {
		l->used = 1 + l->table_clusters + l->blocks + l->l1_clusters;
		if (l->blocks * per_block >= l->used &&
		    l->table_clusters >= clusters_of(l, l->blocks * 8))
			break;
		if (l->blocks * per_block < l->used)
			l->blocks++;
		l->table_clusters = clusters_of(l, l->blocks * 8);
	}
	h->refcount_table_clusters = (u32)l->table_clusters;
	h->refcount_table_offset = BIT64(h->cluster_bits);
	h->l1_offset = (1 + l->table_clusters + l->blocks) << h->cluster_bits;
	return 0;
}

static int fill_refcounts(struct layout *l)
{
	u32 bits = l->h.cluster_bits;
	u8 *table, *blocks;

	l->bytes = calloc(l->table_clusters + l->blocks, BIT64(bits));
	if (!l->bytes)
		return -ENOMEM;
	table = l->bytes;
	blocks = table + (l->table_clusters << bits);
	for (u64 i = 0; i < l->blocks; i++)
		st_be64(table + 8 * i, (1 + l->table_clusters + i) << bits);
	for (u64 i = 0; i < l->used; i++) {
		u64 per = bits + 3 - l->order;

		qcow2_refcount_set(blocks + ((i >> per) << bits),
				   i & (BIT64(per) - 1), l->order, 1);
	}
	return 0;
}

static size_t put_extension(u8 *b, u32 type, const void *bytes, size_t len)
{
	st_be32(b, type);
	st_be32(b + 4, (u32)len);
	memcpy(b + 8, bytes, len);
	return 8 + ALIGN_UP(len, (size_t)8);
}

/* The first cluster; room for it is zeroed. */
static void fill_header(const struct layout *l, u8 *b)
{
	const struct qcow2_create *o = l->o;
	const struct qcow2_header *h = &l->h;
	size_t at = h->version == 2 ? 72 : 112;

	memcpy(b, "QFI\xfb", 4);
	st_be32(b + 4, h->version);
	st_be32(b + 20, h->cluster_bits);
	st_be64(b + 24, h->size_bytes);
	st_be32(b + 36, h->l1_entries);
	st_be64(b + 40, h->l1_offset);
	st_be64(b + 48, h->refcount_table_offset);
	st_be32(b + 56, h->refcount_table_clusters);
	if (h->version > 2) {
		st_be64(b + 72, h->incompatible);
		st_be64(b + 80, h->compatible);
		st_be32(b + 96, l->order);
		st_be32(b + 100, (u32)at);
		b[104] = o->compression_type;
	}
	if (!o->backing_name)
		return;
	at += put_extension(b + at, 0xe2792aca, o->backing_format,
			    strlen(o->backing_format));
	at += put_extension(b + at, 0, "", 0);
	st_be64(b + 8, at);
	st_be32(b + 16, (u32)strlen(o->backing_name));
	memcpy(b + at, o->backing_name, strlen(o->backing_name));
}

static int write_all(struct layout *l, struct block_node *file)
{
	u64 cluster = BIT64(l->h.cluster_bits);
	u64 l1_bytes = l->l1_clusters * cluster;
	u8 *zeroes = calloc(1, MAX(cluster, 1 * MIB));
	int rc = zeroes ? block_do(file, BLOCK_WRITE, cluster, l->bytes,
				   (l->table_clusters + l->blocks) * cluster)
			: -ENOMEM;

	for (u64 at = 0; !rc && at < l1_bytes; at += 1 * MIB)
		rc = block_do(file, BLOCK_WRITE, l->h.l1_offset + at, zeroes,
			      MIN(l1_bytes - at, 1 * MIB));
	if (!rc)
		rc = block_do(file, BLOCK_FLUSH, 0, NULL, 0);
	if (!rc) {
		fill_header(l, zeroes);
		rc = block_do(file, BLOCK_WRITE, 0, zeroes, cluster);
	}
	if (!rc)
		rc = block_do(file, BLOCK_FLUSH, 0, NULL, 0);
	free(zeroes);
	return rc;
}

int qcow2_create(struct loop *loop, struct block_node *file,
		 const struct qcow2_create *o, struct err *err)
{
	struct layout l = {.o = o};
	int rc = check_options(&l, err);

	if (!rc)
		rc = check_backing(&l, err);
	if (!rc)
		rc = plan(&l, err);
	if (rc)
		return rc;
	rc = fill_refcounts(&l);
	if (!rc)
		rc = write_all(&l, file);
	free(l.bytes);
	return rc ? err_sys(err, rc, "write the new image") : 0;
}
