/* SPDX-License-Identifier: Apache-2.0 */
/* FORMAT
 *
 *	0 magic  4 version  8 backing name (offset, length)  20 cluster bits
 *	24 size  32 crypt method  36 L1 (entries, offset)
 *	48 refcount table (offset, clusters)  60 snapshots (count, offset)
 *	72 incompatible  80 compatible  88 autoclear features
 *	96 refcount order  100 header length  104 compression type
 *
 * big-endian; version 2 ends at 72. Extensions follow: type, length, bytes,
 * padded to 8; the backing name lies behind them in the first cluster.
 *
 * Source: qcow2 "Header", "Header extensions".
 */
#include <errno.h>

#include "block/qcow2_int.h"

#define MAGIC	       0x514649fbu
#define V2_BYTES       72
#define V3_BYTES       104
#define COMPRESSION_AT 104

#define EXT_END		   0u
#define EXT_BACKING_FORMAT 0xe2792acau
#define EXT_FEATURE_NAMES  0x6803f857u
#define EXT_BITMAPS	   0x23852875u
#define FEATURE_ENTRY	   48

#define KNOWN_INCOMPAT                                                         \
	(QCOW2_INCOMPAT_DIRTY | QCOW2_INCOMPAT_CORRUPT |                       \
	 QCOW2_INCOMPAT_COMPRESSION | QCOW2_INCOMPAT_EXTL2)

struct parse {
	const u8 *bytes;
	size_t len;
	u64 file_bytes;
	struct qcow2_header *h;
	struct err *err;
	/* the feature name table, NULL: none */
	const u8 *names;
	size_t name_count;
};

static int bad(struct parse *p, const char *what)
{
	return err_set(p->err, -EINVAL, "damaged qcow2 header: %s", what);
}

/* Is [offset, offset + len) aligned to clusters and inside the file's
 * clusters, behind the header's? */
static bool is_table(const struct parse *p, u64 offset, u64 len)
{
	u64 cluster = BIT64(p->h->cluster_bits);
	u64 end = ALIGN_UP(MIN(p->file_bytes, INT64_MAX), cluster);

	return offset >= cluster && !(offset & (cluster - 1)) &&
	       offset <= end && len <= end - offset;
}

static int parse_fixed(struct parse *p)
{
	const u8 *b = p->bytes;
	struct qcow2_header *h = p->h;
	u32 crypt;

	if (p->len < V2_BYTES)
		return bad(p, "the file is too short");
	if (ld_be32(b) != MAGIC)
		return err_set(p->err, -EINVAL, "not a qcow2 image");
	h->version = ld_be32(b + 4);
	if (h->version != 2 && h->version != 3)
		return err_set(p->err, -ENOTSUP,
			       "qcow2 version %u is not supported", h->version);
	h->cluster_bits = ld_be32(b + 20);
	if (h->cluster_bits < 9 || h->cluster_bits > 21)
		return bad(p, "cluster size");
	h->size_bytes = ld_be64(b + 24);
	if (h->size_bytes > INT64_MAX)
		return bad(p, "disk size");
	crypt = ld_be32(b + 32);
	if (crypt == 1 || crypt == 2)
		return err_set(p->err, -ENOTSUP,
			       "encrypted qcow2 images are not supported");
	if (crypt)
		return bad(p, "encryption method");
	h->l1_entries = ld_be32(b + 36);
	h->l1_offset = ld_be64(b + 40);
	h->refcount_table_offset = ld_be64(b + 48);
	h->refcount_table_clusters = ld_be32(b + 56);
	h->snapshot_count = ld_be32(b + 60);
	h->snapshots_offset = ld_be64(b + 64);
	h->refcount_order = 4;
	h->header_bytes = V2_BYTES;
	return 0;
}

static int parse_v3(struct parse *p)
{
	const u8 *b = p->bytes;
	struct qcow2_header *h = p->h;

	if (h->version == 2)
		return 0;
	if (p->len < V3_BYTES)
		return bad(p, "the file is too short");
	h->incompatible = ld_be64(b + 72);
	h->compatible = ld_be64(b + 80);
	h->autoclear = ld_be64(b + 88);
	h->refcount_order = ld_be32(b + 96);
	h->header_bytes = ld_be32(b + 100);
	if (h->header_bytes < V3_BYTES || h->header_bytes % 8 ||
	    h->header_bytes > BIT64(h->cluster_bits) ||
	    h->header_bytes > p->len)
		return bad(p, "header length");
	if (h->refcount_order > 6)
		return bad(p, "width of reference counts");
	if (h->header_bytes > COMPRESSION_AT)
		h->compression_type = b[COMPRESSION_AT];
	return 0;
}

static int parse_text(struct parse *p, const u8 *from, size_t len, char *out,
		      size_t max, const char *what)
{
	if (len > max || memchr(from, 0, len))
		return bad(p, what);
	memcpy(out, from, len);
	out[len] = 0;
	return 0;
}

static int parse_bitmaps(struct parse *p, const u8 *b, size_t len)
{
	struct qcow2_header *h = p->h;

	if (len != 24)
		return bad(p, "bitmaps extension");
	h->bitmap_count = ld_be32(b);
	h->bitmap_directory_bytes = ld_be64(b + 8);
	h->bitmap_directory_offset = ld_be64(b + 16);
	if (!h->bitmap_count || h->bitmap_count > 65535 ||
	    h->bitmap_directory_bytes > 64 * MIB ||
	    !is_table(p, h->bitmap_directory_offset, h->bitmap_directory_bytes))
		return bad(p, "bitmaps extension");
	return 0;
}

static int parse_extension(struct parse *p, u32 type, const u8 *b, size_t len)
{
	struct qcow2_header *h = p->h;

	switch (type) {
	case EXT_BACKING_FORMAT:
		return parse_text(p, b, len, h->backing_format,
				  QCOW2_FORMAT_MAX, "backing format");
	case EXT_FEATURE_NAMES:
		p->names = b;
		p->name_count = len / FEATURE_ENTRY;
		return 0;
	case EXT_BITMAPS:
		return parse_bitmaps(p, b, len);
	}
	return 0;
}

static int parse_extensions(struct parse *p)
{
	struct qcow2_header *h = p->h;
	size_t end = p->len, at = h->header_bytes;

	if (h->has_backing)
		end = MIN(end, h->backing_offset);
	while (at + 8 <= end) {
		u32 type = ld_be32(p->bytes + at);
		u32 len = ld_be32(p->bytes + at + 4);
		int rc;

		at += 8;
		if (type == EXT_END)
			break;
		if (len > end - at)
			return bad(p, "header extension");
		rc = parse_extension(p, type, p->bytes + at, len);
		if (rc)
			return rc;
		at += MIN(ALIGN_UP((size_t)len, 8), end - at);
	}
	h->extensions_end = at;
	return 0;
}

static int parse_backing(struct parse *p)
{
	struct qcow2_header *h = p->h;
	u64 offset = ld_be64(p->bytes + 8);
	u32 len = ld_be32(p->bytes + 16);

	if (!offset)
		return 0;
	if (!len || len > QCOW2_NAME_MAX || offset < h->header_bytes ||
	    offset > p->len || len > p->len - offset ||
	    offset + len > BIT64(h->cluster_bits))
		return bad(p, "name of the backing file");
	h->has_backing = true;
	h->backing_offset = offset;
	return parse_text(p, p->bytes + offset, len, h->backing_name,
			  QCOW2_NAME_MAX, "name of the backing file");
}

/* Names come from the image: printable ones are quoted. */
static void feature_name(const struct parse *p, int bit, char *out, size_t max)
{
	snprintf(out, max, "bit %d", bit);
	for (size_t i = 0; i < p->name_count; i++) {
		const u8 *e = p->names + i * FEATURE_ENTRY;
		size_t n = strnlen((const char *)e + 2, FEATURE_ENTRY - 2);
		bool printable = n > 0;

		if (e[0] != 0 || e[1] != bit)
			continue;
		for (size_t j = 0; j < n; j++)
			printable &= e[2 + j] >= ' ' && e[2 + j] < 127;
		if (printable)
			snprintf(out, max, "'%.*s'", (int)n, e + 2);
	}
}

static int check_features(struct parse *p)
{
	struct qcow2_header *h = p->h;
	u64 unknown = h->incompatible & ~KNOWN_INCOMPAT;
	char name[64];

	if (h->incompatible & QCOW2_INCOMPAT_DATA_FILE)
		return err_set(p->err, -ENOTSUP,
			       "qcow2 images with an external data file are "
			       "not supported");
	if (unknown) {
		feature_name(p, __builtin_ctzll(unknown), name, sizeof(name));
		return err_set(p->err, -ENOTSUP,
			       "the image needs the qcow2 feature %s, which is "
			       "not supported",
			       name);
	}
	if (!!(h->incompatible & QCOW2_INCOMPAT_COMPRESSION) !=
		    !!h->compression_type ||
	    h->compression_type > 1)
		return bad(p, "compression type");
	if ((h->incompatible & QCOW2_INCOMPAT_EXTL2) && h->cluster_bits < 14)
		return bad(p, "clusters too small for extended L2 entries");
	if ((h->autoclear & QCOW2_AUTOCLEAR_BITMAPS) && !h->bitmap_count)
		return bad(p, "bitmaps are said to be there, and are not");
	return 0;
}

static int check_tables(struct parse *p)
{
	struct qcow2_header *h = p->h;
	u64 need = qcow2_l1_entries(h, h->size_bytes);
	u64 table = (u64)h->refcount_table_clusters << h->cluster_bits;

	if (need > QCOW2_L1_BYTES / 8 || h->l1_entries > QCOW2_L1_BYTES / 8)
		return bad(p, "the L1 table is too large");
	if (h->l1_entries < need)
		return bad(p, "the L1 table is too small for the disk");
	if (h->l1_entries && !is_table(p, h->l1_offset, h->l1_entries * 8ull))
		return bad(p, "place of the L1 table");
	if (!table || table > QCOW2_REFTABLE_BYTES ||
	    !is_table(p, h->refcount_table_offset, table))
		return bad(p, "refcount table");
	if (h->snapshot_count > QCOW2_SNAPSHOTS_MAX)
		return bad(p, "number of snapshots");
	if (h->snapshot_count &&
	    !is_table(p, h->snapshots_offset, 40ull * h->snapshot_count))
		return bad(p, "place of the snapshot table");
	return 0;
}

u64 qcow2_l1_entries(const struct qcow2_header *h, u64 size_bytes)
{
	u32 entry_bits = h->incompatible & QCOW2_INCOMPAT_EXTL2 ? 4 : 3;
	u32 bits =
		2 * h->cluster_bits - entry_bits; /* of an L2 table's reach */

	return (size_bytes >> bits) + !!(size_bytes & (BIT64(bits) - 1));
}

int qcow2_header_parse(const u8 *bytes, size_t len, u64 file_bytes,
		       struct qcow2_header *out, struct err *err)
{
	struct parse p = {bytes, len, file_bytes, out, err};
	int rc;

	memset(out, 0, sizeof(*out));
	rc = parse_fixed(&p);
	if (rc)
		return rc;
	p.len = MIN(p.len, BIT64(out->cluster_bits));
	rc = parse_v3(&p);
	if (!rc)
		rc = parse_backing(&p);
	if (!rc)
		rc = parse_extensions(&p);
	if (!rc)
		rc = check_features(&p);
	if (!rc)
		rc = check_tables(&p);
	return rc;
}
