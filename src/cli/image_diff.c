/* SPDX-License-Identifier: Apache-2.0 */
/* image diff: where what a guest sees of two disks differs, in pieces of
 * 4 KiB. What is zeros in both is not read. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "cli/image_file.h"

#define PIECE (1 * MIB)
#define GRAIN 4096

/* clang-format off */
#define AT(m) offsetof(struct image_file_options, m)
const struct cli_option image_diff_options[] = {
	{"any-backing", CLI_FLAG, AT(anywhere), NULL,
	 "allow backing files outside the images' folders"},
	{"json", CLI_FLAG, AT(json), NULL, "print JSON"},
	{0},
};
/* clang-format on */

/* A disk, and the file of each of its layers, so that what both disks have
 * from one place of one file is not read. */
struct side {
	struct block_node *node;
	struct layer {
		dev_t dev;
		ino_t ino;
	} layers[BLOCK_LAYERS_MAX];
};

struct diff {
	struct side a, b;
	bool is_quiet;
	json_t *list; /* NULL: print */
	u64 from, to; /* the run that is not shown yet */
	u64 bytes;    /* that differ */
	u8 *in_a, *in_b;
};

static void show(struct diff *d)
{
	if (d->from == d->to)
		return;
	if (d->list)
		json_array_append_new(d->list,
				      json_pack("{s:I, s:I}", "offset",
						(json_int_t)d->from, "bytes",
						(json_int_t)(d->to - d->from)));
	else if (!d->is_quiet)
		printf("%#-16llx %#llx\n", (unsigned long long)d->from,
		       (unsigned long long)(d->to - d->from));
	d->bytes += d->to - d->from;
	d->from = d->to;
}

static void differs(struct diff *d, u64 at, u64 len)
{
	if (at != d->to) {
		show(d);
		d->from = at;
	}
	d->to = at + len;
}

static int read_padded(struct block_node *node, u64 at, u8 *bytes, u64 len)
{
	u64 size = block_size_bytes(node);
	u64 have = at < size ? MIN(size - at, len) : 0;

	memset(bytes + have, 0, len - have);
	return have ? block_do(node, BLOCK_READ, at, bytes, have) : 0;
}

static int place_at(const struct side *s, u64 at, struct qcow2_place *out)
{
	u64 size = block_size_bytes(s->node);

	*out = (struct qcow2_place){UINT64_MAX, QCOW2_EXTENT_NOWHERE};
	return at < size ? qcow2_map_at(s->node, at, size - at, out) : 0;
}

/* How many bytes from `at` on are the same without being read: zeros in both,
 * or one place of one file. */
static int same_at(const struct diff *d, u64 at, u64 *out)
{
	struct qcow2_place a, b;
	const struct layer *x, *y;
	int rc = place_at(&d->a, at, &a);

	*out = 0;
	if (!rc)
		rc = place_at(&d->b, at, &b);
	if (rc)
		return rc;
	x = &d->a.layers[a.depth];
	y = &d->b.layers[b.depth];
	if ((a.kind >= QCOW2_EXTENT_ZERO && b.kind >= QCOW2_EXTENT_ZERO) ||
	    (a.kind == QCOW2_EXTENT_DATA && b.kind == QCOW2_EXTENT_DATA &&
	     a.file_byte == b.file_byte && x->ino == y->ino &&
	     x->dev == y->dev && x->ino))
		*out = MIN(a.bytes, b.bytes);
	return 0;
}

static int compare_piece(struct diff *d, u64 at, u64 len)
{
	int rc = read_padded(d->a.node, at, d->in_a, len);

	if (!rc)
		rc = read_padded(d->b.node, at, d->in_b, len);
	for (u64 i = 0; !rc && i < len; i += GRAIN) {
		u64 n = MIN(GRAIN, len - i);

		if (memcmp(d->in_a + i, d->in_b + i, n))
			differs(d, at + i, n);
	}
	return rc;
}

static int compare(struct diff *d, struct image_progress *p)
{
	u64 size =
		MAX(block_size_bytes(d->a.node), block_size_bytes(d->b.node));
	u64 at = 0;
	int rc = 0;

	while (!rc && at < size) {
		u64 same = 0, len = MIN(PIECE, size - at);

		rc = image_progress(p, at, size);
		if (!rc)
			rc = same_at(d, at, &same);
		if (!rc && same)
			len = MIN(same, size - at);
		else if (!rc)
			rc = compare_piece(d, at, len);
		at += len;
	}
	if (!rc)
		show(d);
	return rc;
}

static int diff(struct diff *d, bool json, struct err *err)
{
	struct image_progress p;
	int rc;

	d->in_a = malloc(PIECE);
	d->in_b = malloc(PIECE);
	d->list = json ? json_array() : NULL;
	image_progress_begin(&p);
	rc = d->in_a && d->in_b ? compare(d, &p) : -ENOMEM;
	image_progress_end(&p);
	if (!rc && json) {
		json_dumpf(d->list, stdout, JSON_INDENT(2));
		printf("\n");
	}
	json_decref(d->list);
	free(d->in_a);
	free(d->in_b);
	if (rc == -ECANCELED)
		return err_set(err, rc, "cancelled");
	return rc ? err_sys(err, rc, "compare the images") : 0;
}

static void side_of(const struct image_file *f, struct side *out)
{
	out->node = f->node;
	for (size_t i = 0; i < f->chain.count; i++) {
		const char *path = f->chain.files[i].path;
		struct stat st;

		if (path && stat(path, &st) == 0)
			out->layers[i] = (struct layer){st.st_dev, st.st_ino};
	}
}

static int diff_files(struct image_file *a, struct image_file *b, bool is_quiet,
		      bool json, u64 *out_bytes, struct err *err)
{
	struct diff d = {.is_quiet = is_quiet};
	int rc;

	side_of(a, &d.a);
	side_of(b, &d.b);
	rc = diff(&d, json, err);
	*out_bytes = d.bytes;
	return rc;
}

int image_diff_bytes(const char *a_path, const char *b_path, const char *format,
		     u64 *out_bytes, struct err *err)
{
	struct image_file_options o = {.format = format};
	struct block_open how = {.is_read_only = true};
	struct image_file a, b;
	int rc = image_file_open(a_path, &o, &how, &a, err);

	if (rc)
		return rc;
	rc = image_file_open(b_path, &o, &how, &b, err);
	if (!rc) {
		rc = diff_files(&a, &b, true, false, out_bytes, err);
		image_file_close(&b);
	}
	image_file_close(&a);
	return rc;
}

/* 0 the same; 1 failed; 3 they differ. */
int verb_image_diff(void *values, struct cli_args *args)
{
	const struct image_file_options *o = values;
	struct block_open how = {.is_read_only = true};
	struct image_file a, b;
	struct err err = {0};
	u64 bytes = 0;
	int rc;

	if (args->count != 2)
		return cli_usage("image", "use: image diff FILE FILE");
	rc = image_file_open(args->words[0], o, &how, &a, &err);
	if (!rc) {
		rc = image_file_open(args->words[1], o, &how, &b, &err);
		if (!rc) {
			rc = diff_files(&a, &b, false, o->json, &bytes, &err);
			image_file_close(&b);
		}
		image_file_close(&a);
	}
	if (!rc)
		return bytes ? 3 : CLI_OK;
	cli_report(&err, strcmp(err.id, "image.backing-elsewhere")
				 ? NULL
				 : "--any-backing allows it");
	return CLI_FAILED;
}
