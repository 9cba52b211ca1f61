/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY
 *
 * The header's cluster is written anew: the fixed part, the extensions but for
 * the backing format, that one, the end, the name. All of it is written at
 * once; it is shorter than what a disk writes whole, but where extensions of
 * others are long.
 */
#include <stdlib.h>

#include "block/qcow2_int.h"

struct backing {
	const char *name, *format;
};

static size_t put(u8 *b, u32 type, const void *bytes, size_t len)
{
	st_be32(b, type);
	st_be32(b + 4, (u32)len);
	memcpy(b + 8, bytes, len);
	return 8 + ALIGN_UP(len, (size_t)8);
}

/* Copies the extensions that stay; `old` has passed the parser. */
static size_t copy_extensions(const struct qcow2 *q, const u8 *old, u8 *new)
{
	size_t from = q->h.header_bytes, to = from;

	while (from + 8 <= q->h.extensions_end) {
		u32 type = ld_be32(old + from), len = ld_be32(old + from + 4);
		size_t all = 8 + ALIGN_UP((size_t)len, (size_t)8);

		if (!type)
			break;
		all = MIN(all, q->h.extensions_end - from);
		if (type != QCOW2_EXT_BACKING_FORMAT) {
			memcpy(new + to, old + from, all);
			to += all;
		}
		from += all;
	}
	return to;
}

static int header_make(struct qcow2 *q, const struct backing *b, const u8 *old,
		       u8 *new)
{
	size_t name = b->name ? strlen(b->name) : 0;
	size_t format = b->name ? strlen(b->format) : 0;
	size_t at;

	memcpy(new, old, q->h.header_bytes);
	at = copy_extensions(q, old, new);
	if (at + 8 + ALIGN_UP(format, (size_t)8) + 8 + name > q->cluster_bytes)
		return -ENAMETOOLONG;
	st_be64(new + 8, 0);
	st_be32(new + 16, 0);
	if (b->name)
		at += put(new + at, QCOW2_EXT_BACKING_FORMAT, b->format,
			  format);
	at += put(new + at, 0, "", 0);
	if (!b->name)
		return 0;
	st_be64(new + 8, at);
	st_be32(new + 16, (u32)name);
	memcpy(new + at, b->name, name);
	return 0;
}

static int set_main(struct qcow2 *q, void *opaque)
{
	const struct backing *b = opaque;
	u8 *old = calloc(1, q->cluster_bytes), *new = NULL;
	int rc = old ? qcow2_co_flush(q) : -ENOMEM;

	if (!rc)
		rc = qcow2_co_pread(q, 0, old, q->cluster_bytes);
	/* The room for padding that a damaged last extension lacks. */
	new = rc ? NULL : calloc(1, q->cluster_bytes + 256);
	if (!rc)
		rc = new ? header_make(q, b, old, new) : -ENOMEM;
	if (!rc)
		rc = qcow2_co_pwrite(q, 0, new, q->cluster_bytes);
	if (!rc)
		rc = qcow2_co_sync(q);
	if (!rc)
		memcpy(q->header, new, sizeof(q->header));
	free(old);
	free(new);
	return rc;
}

int qcow2_set_backing(struct block_node *node, const char *name,
		      const char *format, struct err *err)
{
	struct backing b = {name, format};
	int rc;

	if (!qcow2_is_node(node) || node->is_read_only)
		return err_set(err, -EINVAL, "this image cannot be changed");
	if (name && (!*name || strlen(name) > QCOW2_NAME_MAX || !format ||
		     !*format || strlen(format) > QCOW2_FORMAT_MAX))
		return err_set(err, -EINVAL,
			       "a backing file needs a name and a format");
	rc = qcow2_run(qcow2_of(node), set_main, &b);
	return rc ? err_sys(err, rc, "change the image's header") : 0;
}
