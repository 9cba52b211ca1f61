/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY
 *
 * A dirty bitmap that is enabled says which parts of the disk changed. Whoever
 * uses it may copy too much, never too little. So before the first change we
 * make every enabled bitmap say "all": each entry of its table becomes 1, which
 * needs no cluster. It stays valid; bitmaps that are not enabled stay as they
 * are. When a bitmap cannot be read, the autoclear bit goes, and with it all
 * of them are known to be out of date.
 *
 * Source: qcow2 "Bitmaps".
 */
#include <stdlib.h>

#include "block/qcow2_int.h"

#define ENTRY_BYTES 24
#define IN_USE	    1u
#define AUTO	    2u
#define ALL_ONES    1u
#define TABLE_MAX   (16 * MIB)

static bool is_place(const struct qcow2 *q, u64 host, u64 len)
{
	u64 end = ALIGN_UP(q->file->file_bytes, q->cluster_bytes);

	return !(host & (q->cluster_bytes - 1)) && host <= end &&
	       len <= end - host && !qcow2_is_meta(q, host, len);
}

/* The clusters are given up with the next flush, which makes the table
 * durable before. */
static int table_set(struct qcow2 *q, u64 host, u8 *table, u32 entries)
{
	int rc;

	for (u32 i = 0; i < entries; i++) {
		u64 bits = ld_be64(table + 8ull * i) & L2_OFFSET_MASK;

		if (bits && !is_place(q, bits, q->cluster_bytes))
			return -EINVAL;
	}
	for (u32 i = 0; i < entries; i++) {
		u64 bits = ld_be64(table + 8ull * i) & L2_OFFSET_MASK;

		if (bits)
			qcow2_free_later(q, bits, q->cluster_bytes);
		st_be64(table + 8ull * i, ALL_ONES);
	}
	rc = qcow2_co_pwrite(q, host, table, entries * 8ull);
	return rc;
}

static int bitmap_set(struct qcow2 *q, const u8 *entry)
{
	u64 host = ld_be64(entry);
	u32 entries = ld_be32(entry + 8), flags = ld_be32(entry + 12);
	u64 bytes = entries * 8ull;
	u8 *table;
	int rc;

	if ((flags & IN_USE) || !(flags & AUTO) || !entries)
		return 0;
	if (entry[16] != 1 || bytes > TABLE_MAX || !is_place(q, host, bytes))
		return -EINVAL;
	table = malloc(bytes);
	rc = table ? qcow2_co_pread(q, host, table, bytes) : -ENOMEM;
	if (!rc)
		rc = table_set(q, host, table, entries);
	free(table);
	return rc;
}

int qcow2_co_bitmaps_set(struct qcow2 *q)
{
	u64 left = q->h.bitmap_directory_bytes, at = 0;
	u8 *dir;
	int rc;

	if (!q->h.bitmap_count || left > TABLE_MAX)
		return -EINVAL;
	dir = malloc(left + 1);
	rc = dir ? qcow2_co_pread(q, q->h.bitmap_directory_offset, dir, left)
		 : -ENOMEM;
	for (u32 i = 0; !rc && i < q->h.bitmap_count; i++) {
		u64 bytes;

		if (left - at < ENTRY_BYTES) {
			rc = -EINVAL;
			break;
		}
		bytes = (u64)ENTRY_BYTES + ld_be32(dir + at + 20) +
			ld_be16(dir + at + 18);
		rc = bitmap_set(q, dir + at);
		at += MIN(ALIGN_UP(bytes, 8), left - at);
	}
	free(dir);
	return rc;
}
