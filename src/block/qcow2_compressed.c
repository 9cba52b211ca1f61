/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY
 *
 * A compressed cluster is a deflate stream or a zstd frame that gives exactly
 * one cluster; it begins at any byte of the file and its length is known in
 * sectors only. Never more than a cluster of output is made, whatever the
 * input says, and no more memory is used than a window of 4 MiB.
 *
 * Source: qcow2 "Cluster mapping"; RFC 1951; RFC 8878.
 */
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>

#include "base/assert.h"
#include "block/qcow2_int.h"

#define ZSTD_WINDOW_LOG 22

static int unpack_deflate(const u8 *in, size_t in_bytes, u8 *out,
			  size_t out_bytes)
{
	z_stream z = {.next_in = (u8 *)in,
		      .avail_in = (uInt)in_bytes,
		      .next_out = out,
		      .avail_out = (uInt)out_bytes};
	int rc;

	if (inflateInit2(&z, -15) != Z_OK)
		return -ENOMEM;
	rc = inflate(&z, Z_FINISH);
	inflateEnd(&z);
	return (rc == Z_STREAM_END || rc == Z_BUF_ERROR || rc == Z_OK) &&
			       !z.avail_out
		       ? 0
		       : -EIO;
}

static int unpack_zstd(const u8 *in, size_t in_bytes, u8 *out, size_t out_bytes)
{
	ZSTD_DCtx *d = ZSTD_createDCtx();
	ZSTD_inBuffer i = {in, in_bytes, 0};
	ZSTD_outBuffer o = {out, out_bytes, 0};
	int rc = 0;

	if (!d)
		return -ENOMEM;
	(void)ZSTD_DCtx_setParameter(d, ZSTD_d_windowLogMax, ZSTD_WINDOW_LOG);
	while (!rc && o.pos < o.size) {
		size_t in_before = i.pos, out_before = o.pos;
		size_t n = ZSTD_decompressStream(d, &o, &i);

		if (ZSTD_isError(n) ||
		    (i.pos == in_before && o.pos == out_before))
			rc = -EIO;
	}
	ZSTD_freeDCtx(d);
	return rc;
}

int qcow2_co_unpack(struct qcow2 *q, u64 entry, const u8 **out)
{
	u32 x = 62 - (q->cluster_bits - 8);
	u64 host = entry & (BIT64(x) - 1);
	u64 sectors = (entry & (L2_COMPRESSED - 1)) >> x;
	size_t in_bytes = (size_t)((sectors + 1) * 512 - (host & 511));
	u8 *in, *bytes;
	int rc;

	if (q->unpacked_entry == entry) {
		*out = q->unpacked;
		return 0;
	}
	in = malloc(in_bytes);
	bytes = malloc(q->cluster_bytes);
	rc = in && bytes ? qcow2_co_pread(q, host, in, in_bytes) : -ENOMEM;
	if (!rc && q->h.compression_type)
		rc = unpack_zstd(in, in_bytes, bytes, q->cluster_bytes);
	else if (!rc)
		rc = unpack_deflate(in, in_bytes, bytes, q->cluster_bytes);
	free(in);
	if (rc) {
		free(bytes);
		return rc == -EIO
			       ? qcow2_damaged(q, "compressed cluster", entry)
			       : rc;
	}
	free(q->unpacked);
	q->unpacked = bytes;
	q->unpacked_entry = entry;
	*out = bytes;
	return 0;
}
