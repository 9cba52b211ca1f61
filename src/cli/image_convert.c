/* SPDX-License-Identifier: Apache-2.0 */
/* image convert: what the guest would see of an image, in a new one.
 *
 * The new file has a temporary name until it is complete and durable, so that
 * a copy that was cut off or cancelled leaves nothing of that name.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli/image_file.h"
#include "os/file.h"

#define PIECE (2 * MIB) /* whole clusters of any size */

/* clang-format off */
#define AT(m) offsetof(struct image_file_options, m)
const struct cli_option image_convert_options[] = {
	{"format", CLI_TEXT, AT(format), "raw|qcow2",
	 "the source's format (by its name: qcow2 for *.qcow2)"},
	{"to", CLI_TEXT, AT(to), "raw|qcow2", "the new image's format"},
	{"any-backing", CLI_FLAG, AT(anywhere), NULL,
	 "allow backing files outside the source's folder"},
	{"cluster-size", CLI_SIZE, AT(cluster_bytes), "SIZE",
	 "512 bytes to 2M (64K)"},
	{"refcount-bits", CLI_COUNT, AT(refcount_bits), "N", "1 to 64 (16)"},
	{"compress", CLI_FLAG, AT(packs), NULL, "compress each cluster"},
	{"compression", CLI_TEXT, AT(compression), "zlib|zstd",
	 "with what (zlib)"},
	{"extended-l2", CLI_FLAG, AT(is_extended), NULL,
	 "allocate in 1/32 of a cluster"},
	{0},
};
/* clang-format on */

static bool is_zero(const u8 *bytes, u64 len)
{
	return !bytes[0] && !memcmp(bytes, bytes + 1, len - 1);
}

/* Writes what is not zeros, in pieces of 4 KiB. */
static int write_data(struct block_node *to, u64 at, u8 *bytes, u64 len)
{
	int rc = 0;

	for (u64 from = 0; !rc && from < len;) {
		u64 end = from;

		while (end < len && !is_zero(bytes + end, MIN(4096, len - end)))
			end += MIN(4096, len - end);
		if (end > from)
			rc = block_do(to, BLOCK_WRITE, at + from, bytes + from,
				      end - from);
		from = end + MIN(4096, len - end);
	}
	return rc;
}

/* Each cluster of the piece that is not all zeros; what does not become
 * smaller is written as it is. */
static int write_packed(struct block_node *to, u64 at, u8 *bytes, u64 len)
{
	u64 cluster = BIT64(qcow2_header_of(to)->cluster_bits);
	int rc = 0;

	memset(bytes + len, 0, PIECE - len);
	for (u64 i = 0; rc >= 0 && i < len; i += cluster) {
		if (is_zero(bytes + i, cluster))
			continue;
		rc = qcow2_write_packed(to, at + i, bytes + i);
		if (rc > 0)
			rc = block_do(to, BLOCK_WRITE, at + i, bytes + i,
				      MIN(cluster, len - i));
	}
	return MIN(rc, 0);
}

static int copy(struct block_node *from, struct block_node *to, bool packs,
		struct image_progress *p, struct err *err)
{
	u64 size = block_size_bytes(from), at = 0;
	u8 *bytes = malloc(PIECE);
	int rc = bytes ? 0 : -ENOMEM;

	while (!rc && at < size) {
		struct qcow2_place place;
		u64 len;

		rc = image_progress(p, at, size);
		if (!rc)
			rc = qcow2_map_at(from, at, size - at, &place);
		if (rc)
			break;
		if (place.kind >= QCOW2_EXTENT_ZERO &&
		    (!packs || place.bytes >= PIECE)) {
			at += packs ? ALIGN_DOWN(place.bytes, PIECE)
				    : place.bytes;
			continue;
		}
		/* Whole pieces when they are packed: whole clusters. */
		len = packs ? MIN(PIECE, size - at) : MIN(place.bytes, PIECE);
		rc = block_do(from, BLOCK_READ, at, bytes, len);
		if (!rc)
			rc = packs ? write_packed(to, at, bytes, len)
				   : write_data(to, at, bytes, len);
		at += len;
	}
	free(bytes);
	if (!rc)
		rc = block_do(to, BLOCK_FLUSH, 0, NULL, 0);
	if (rc == -ECANCELED)
		return err_set(err, rc, "cancelled");
	return rc ? err_sys(err, rc, "copy the image at %llu",
			    (unsigned long long)at)
		  : 0;
}

static int fill(const struct image_file *from, const char *part,
		const char *format, bool packs, struct err *err)
{
	struct image_file_options o = {.format = format};
	struct block_open how = {0};
	struct image_progress p;
	struct image_file to;
	int rc = image_file_open(part, &o, &how, &to, err);

	if (rc)
		return rc;
	image_progress_begin(&p);
	rc = copy(from->node, to.node, packs, &p, err);
	image_progress_end(&p);
	image_file_close(&to);
	return rc;
}

static int convert(const struct image_file *from, const char *dest,
		   const struct image_file_options *o, struct err *err)
{
	const char *format = image_file_format(o->to, dest);
	char part[OS_PATH_MAX + 32];
	int rc;

	if (o->packs && strcmp(format, "qcow2"))
		return err_set(err, -EINVAL, "a raw image is not compressed");
	if (access(dest, F_OK) == 0)
		return err_sys(err, -EEXIST, "make image '%s'", dest);
	snprintf(part, sizeof(part), "%.4000s.part-%d", dest, getpid());
	rc = image_file_create(part, format, block_size_bytes(from->node), o,
			       err);
	if (rc)
		return rc;
	rc = fill(from, part, format, o->packs, err);
	if (!rc && link(part, dest))
		rc = err_sys(err, -errno, "make image '%s'", dest);
	unlink(part);
	return rc;
}

int verb_image_convert(void *values, struct cli_args *args)
{
	const struct image_file_options *o = values;
	struct block_open how = {.is_read_only = true};
	struct image_file from;
	struct err err = {0};
	int rc;

	if (args->count != 2)
		return cli_usage("image", "use: image convert FILE NEWFILE");
	rc = image_file_open(args->words[0], o, &how, &from, &err);
	if (!rc) {
		rc = convert(&from, args->words[1], o, &err);
		image_file_close(&from);
	}
	if (!rc)
		return CLI_OK;
	cli_report(&err, strcmp(err.id, "image.backing-elsewhere")
				 ? NULL
				 : "--any-backing allows it");
	return CLI_FAILED;
}
