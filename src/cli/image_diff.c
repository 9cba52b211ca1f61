/* SPDX-License-Identifier: Apache-2.0 */
/* image diff: where what a guest sees of two disks differs, in pieces of
 * 4 KiB. What is zeros in both is not read. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

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

struct diff {
	struct block_node *a, *b;
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
	else
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

/* How many bytes from `at` on are zeros without being read. */
static int zeros_at(struct block_node *node, u64 at, u64 *out)
{
	struct qcow2_place p;
	int rc;

	*out = UINT64_MAX;
	if (at >= block_size_bytes(node))
		return 0;
	rc = qcow2_map_at(node, at, block_size_bytes(node) - at, &p);
	*out = p.kind >= QCOW2_EXTENT_ZERO ? p.bytes : 0;
	return rc;
}

static int compare_piece(struct diff *d, u64 at, u64 len)
{
	int rc = read_padded(d->a, at, d->in_a, len);

	if (!rc)
		rc = read_padded(d->b, at, d->in_b, len);
	for (u64 i = 0; !rc && i < len; i += GRAIN) {
		u64 n = MIN(GRAIN, len - i);

		if (memcmp(d->in_a + i, d->in_b + i, n))
			differs(d, at + i, n);
	}
	return rc;
}

static int compare(struct diff *d, struct image_progress *p)
{
	u64 size = MAX(block_size_bytes(d->a), block_size_bytes(d->b)), at = 0;
	int rc = 0;

	while (!rc && at < size) {
		u64 za = 0, zb = 0, len = MIN(PIECE, size - at);

		rc = image_progress(p, at, size);
		if (!rc)
			rc = zeros_at(d->a, at, &za);
		if (!rc)
			rc = zeros_at(d->b, at, &zb);
		if (!rc && MIN(za, zb))
			len = MIN(MIN(za, zb), size - at);
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

/* 0 the same; 1 failed; 3 they differ. */
int verb_image_diff(void *values, struct cli_args *args)
{
	const struct image_file_options *o = values;
	struct block_open how = {.is_read_only = true};
	struct diff d = {0};
	struct image_file a, b;
	struct err err = {0};
	int rc;

	if (args->count != 2)
		return cli_usage("image", "use: image diff FILE FILE");
	rc = image_file_open(args->words[0], o, &how, &a, &err);
	if (!rc) {
		rc = image_file_open(args->words[1], o, &how, &b, &err);
		if (!rc) {
			d.a = a.node;
			d.b = b.node;
			rc = diff(&d, o->json, &err);
			image_file_close(&b);
		}
		image_file_close(&a);
	}
	if (!rc)
		return d.bytes ? 3 : CLI_OK;
	cli_report(&err, strcmp(err.id, "image.backing-elsewhere")
				 ? NULL
				 : "--any-backing allows it");
	return CLI_FAILED;
}
