/* SPDX-License-Identifier: Apache-2.0 */
/* image commit and rebase.
 *
 * Both copy first and change what refers to what last, so that an overlay
 * reads the same at each moment: one that was cut off is done again.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/image_file.h"
#include "os/file.h"

#define PIECE (2 * MIB) /* whole clusters of any size */

/* clang-format off */
#define AT(m) offsetof(struct image_file_options, m)
#define ANYWHERE {"any-backing", CLI_FLAG, AT(anywhere), NULL, \
	"allow backing files outside the image's folder"}

const struct cli_option image_commit_options[] = {ANYWHERE, {0}};
const struct cli_option image_rebase_options[] = {
	{"backing", CLI_TEXT, AT(backing), "FILE",
	 "the new file below (as seen from the image)"},
	{"backing-format", CLI_TEXT, AT(backing_format), "raw|qcow2",
	 "the format of that file"},
	{"none", CLI_FLAG, AT(is_alone), NULL, "be no overlay any more"},
	ANYWHERE,
	{0},
};
/* clang-format on */

static int report(int rc, const struct err *err)
{
	if (!rc)
		return CLI_OK;
	cli_report(err, strcmp(err->id, "image.backing-elsewhere")
				? NULL
				: "--any-backing allows it");
	return CLI_FAILED;
}

static int wrap(int rc, struct err *err, const char *what)
{
	if (rc == -ECANCELED)
		return err_set(err, rc, "cancelled");
	return rc ? err_sys(err, rc, "%s", what) : 0;
}

/* The path and the format of what is below an overlay. */
static int find_below(const char *path, const struct image_file_options *o,
		      char *out_path, char *out_format, struct err *err)
{
	struct block_chain c;
	int rc = block_chain_open(path, "qcow2", true, o->anywhere, &c, err);

	if (rc)
		return rc;
	if (c.count < 2)
		rc = err_set(err, -EINVAL, "image '%s' is no overlay", path);
	else
		snprintf(out_path, BLOCK_CHAIN_PATH, "%s", c.files[1].path);
	if (c.count >= 2)
		snprintf(out_format, 16, "%s", c.files[1].format);
	block_chain_close(&c);
	return rc;
}

static int open_alone(const char *path, bool is_read_only,
		      struct image_file *out, struct err *err)
{
	struct image_file_options o = {.format = "qcow2"};
	struct block_open how = {.is_read_only = is_read_only,
				 .is_alone = true};

	return image_file_open(path, &o, &how, out, err);
}

/* Reads; zeros behind the end, and from no file at all. */
static int read_padded(struct block_node *node, u64 at, u8 *bytes, u64 len)
{
	u64 size = node ? block_size_bytes(node) : 0;
	u64 have = at < size ? MIN(size - at, len) : 0;

	memset(bytes + have, 0, len - have);
	return have ? block_do(node, BLOCK_READ, at, bytes, have) : 0;
}

static bool is_zero(const u8 *bytes, u64 len)
{
	return !bytes[0] && !memcmp(bytes, bytes + 1, len - 1);
}

/* ---- commit ---- */

static int commit_piece(struct block_node *over, struct block_node *below,
			u64 at, u8 *bytes, struct qcow2_place *p)
{
	u64 size = block_size_bytes(over);
	int rc = qcow2_map_at(over, at, size - at, p);

	if (rc == -ENOMEDIUM)
		return 0; /* it is below already */
	if (rc)
		return rc;
	if (p->kind >= QCOW2_EXTENT_ZERO)
		return block_do(below, BLOCK_WRITE_ZEROES, at, NULL, p->bytes);
	p->bytes = MIN(p->bytes, PIECE);
	rc = block_do(over, BLOCK_READ, at, bytes, p->bytes);
	return rc ? rc : block_do(below, BLOCK_WRITE, at, bytes, p->bytes);
}

static int commit(struct image_file *over, struct image_file *below,
		  struct err *err)
{
	u64 size = block_size_bytes(over->node), at = 0;
	struct image_progress progress;
	u8 *bytes = malloc(PIECE);
	int rc = bytes ? 0 : -ENOMEM;

	if (block_size_bytes(below->node) < size)
		rc = qcow2_header_of(below->node)
			     ? qcow2_resize(below->node, size, err)
			     : block_resize_raw(below->node, size, err);
	if (rc) {
		free(bytes);
		return rc;
	}
	image_progress_begin(&progress);
	while (!rc && at < size) {
		struct qcow2_place p;

		rc = image_progress(&progress, at, size);
		if (!rc)
			rc = commit_piece(over->node, below->node, at, bytes,
					  &p);
		if (!rc)
			at += p.bytes;
	}
	image_progress_end(&progress);
	free(bytes);
	if (!rc)
		rc = block_do(below->node, BLOCK_FLUSH, 0, NULL, 0);
	return wrap(rc, err, "write into the file below");
}

int verb_image_commit(void *values, struct cli_args *args)
{
	const struct image_file_options *o = values;
	struct image_file_options below_o = {.anywhere = o->anywhere};
	struct block_open how = {0};
	char path[BLOCK_CHAIN_PATH], format[16];
	struct image_file over, below;
	struct err err = {0};
	int rc;

	if (args->count != 1)
		return cli_usage("image", "use: image commit FILE");
	rc = find_below(args->words[0], o, path, format, &err);
	if (!rc)
		rc = open_alone(args->words[0], true, &over, &err);
	if (rc)
		return report(rc, &err);
	below_o.format = format;
	rc = image_file_open(path, &below_o, &how, &below, &err);
	if (!rc) {
		rc = commit(&over, &below, &err);
		image_file_close(&below);
	}
	image_file_close(&over);
	return report(rc, &err);
}

/* ---- merge ---- */

static int merge_piece(struct block_node *from, u32 last, struct block_node *to,
		       u64 at, u8 *bytes, u64 *out_bytes)
{
	u64 size = block_size_bytes(from);
	struct qcow2_place p;
	int rc = qcow2_map_at(from, at, size - at, &p);

	*out_bytes = p.bytes;
	if (rc || p.depth >= last || p.kind == QCOW2_EXTENT_NOWHERE)
		return rc;
	if (p.kind == QCOW2_EXTENT_ZERO)
		return block_do(to, BLOCK_WRITE_ZEROES, at, NULL, p.bytes);
	*out_bytes = p.bytes = MIN(p.bytes, PIECE);
	rc = block_do(from, BLOCK_READ, at, bytes, p.bytes);
	return rc ? rc : block_do(to, BLOCK_WRITE, at, bytes, p.bytes);
}

static int merge(struct image_file *from, u32 last, struct image_file *to,
		 struct err *err)
{
	u64 size = block_size_bytes(from->node), at = 0, done;
	struct image_progress progress;
	u8 *bytes = malloc(PIECE);
	int rc = bytes ? 0 : -ENOMEM;

	image_progress_begin(&progress);
	while (!rc && at < size) {
		rc = image_progress(&progress, at, size);
		if (!rc)
			rc = merge_piece(from->node, last, to->node, at, bytes,
					 &done);
		at += done;
	}
	image_progress_end(&progress);
	free(bytes);
	if (!rc)
		rc = block_do(to->node, BLOCK_FLUSH, 0, NULL, 0);
	return wrap(rc, err, "merge the disk's layers");
}

int image_merge(const char *top, const char *dest, const char *dest_format,
		struct err *err)
{
	struct image_file_options o = {.format = "qcow2"};
	struct block_open how = {.is_read_only = true};
	struct image_file from, to;
	int rc = image_file_open(top, &o, &how, &from, err);

	if (rc)
		return rc;
	how = (struct block_open){0};
	o.format = dest_format;
	rc = image_file_open(dest, &o, &how, &to, err);
	if (!rc) {
		rc = merge(&from, (u32)from.chain.count - 1, &to, err);
		image_file_close(&to);
	}
	image_file_close(&from);
	return rc;
}

/* ---- rebase ---- */

struct rebase {
	struct image_file over, old, new;
	u8 *a, *b; /* a piece of each */
};

/* Where the overlay has nothing and the files below differ, it gets what the
 * old one has. */
static int rebase_piece(struct rebase *r, u64 at, struct qcow2_place *p)
{
	struct block_node *over = r->over.node;
	u64 size = block_size_bytes(over);
	int rc = qcow2_map_at(over, at, size - at, p);

	if (rc != -ENOMEDIUM)
		return rc;
	p->bytes = MIN(p->bytes, PIECE - (at & (PIECE - 1)));
	rc = read_padded(r->old.node, at, r->a, p->bytes);
	if (!rc)
		rc = read_padded(r->new.node, at, r->b, p->bytes);
	if (rc || !memcmp(r->a, r->b, p->bytes))
		return rc;
	if (is_zero(r->a, p->bytes))
		return block_do(over, BLOCK_WRITE_ZEROES, at, NULL, p->bytes);
	return block_do(over, BLOCK_WRITE, at, r->a, p->bytes);
}

static int rebase_all(struct rebase *r)
{
	u64 size = block_size_bytes(r->over.node), at = 0;
	struct image_progress progress;
	int rc = 0;

	image_progress_begin(&progress);
	while (!rc && at < size) {
		struct qcow2_place p;

		rc = image_progress(&progress, at, size);
		if (!rc)
			rc = rebase_piece(r, at, &p);
		if (!rc)
			at += p.bytes;
	}
	image_progress_end(&progress);
	return rc ? rc : block_do(r->over.node, BLOCK_FLUSH, 0, NULL, 0);
}

/* The new file below, found as the image's reader will find it. */
static int open_new(struct rebase *r, const char *path,
		    const struct image_file_options *o, struct err *err)
{
	struct image_file_options n = {.format = o->backing_format,
				       .anywhere = o->anywhere};
	struct block_open how = {.is_read_only = true};
	const char *slash = strrchr(path, '/');
	char full[BLOCK_CHAIN_PATH];
	int dir = slash && o->backing[0] != '/' ? (int)(slash - path) + 1 : 0;

	snprintf(full, sizeof(full), "%.*s%s", dir, path, o->backing);
	return image_file_open(full, &n, &how, &r->new, err);
}

static int rebase(struct rebase *r, const char *path,
		  const struct image_file_options *o, struct err *err)
{
	struct image_file_options old_o = {.anywhere = o->anywhere};
	struct block_open how = {.is_read_only = true};
	char below[BLOCK_CHAIN_PATH], format[16];
	int rc = find_below(path, o, below, format, err);

	old_o.format = format;
	if (!rc)
		rc = image_file_open(below, &old_o, &how, &r->old, err);
	if (!rc && o->backing)
		rc = open_new(r, path, o, err);
	if (!rc)
		rc = open_alone(path, false, &r->over, err);
	if (rc)
		return rc;
	r->a = malloc(PIECE);
	r->b = malloc(PIECE);
	rc = wrap(r->a && r->b ? rebase_all(r) : -ENOMEM, err,
		  "copy from the old file below");
	return rc ? rc
		  : qcow2_set_backing(r->over.node, o->backing,
				      o->backing_format, err);
}

int verb_image_rebase(void *values, struct cli_args *args)
{
	const struct image_file_options *o = values;
	struct rebase r = {0};
	struct err err = {0};
	int rc;

	if (args->count != 1 || !o->backing != o->is_alone ||
	    !o->backing != !o->backing_format)
		return cli_usage("image", "use: image rebase --backing FILE "
					  "--backing-format F FILE, or "
					  "--none");
	rc = rebase(&r, args->words[0], o, &err);
	if (r.over.loop)
		image_file_close(&r.over);
	if (r.new.loop)
		image_file_close(&r.new);
	if (r.old.loop)
		image_file_close(&r.old);
	free(r.a);
	free(r.b);
	return report(rc, &err);
}
