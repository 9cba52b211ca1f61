/* SPDX-License-Identifier: Apache-2.0 */
/* image create, info, check, map and resize. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>

#include "cli/image_file.h"

/* clang-format off */
#define AT(m) offsetof(struct image_file_options, m)
#define FORMAT {"format", CLI_TEXT, AT(format), "raw|qcow2", \
	"the image's format (by its name: qcow2 for *.qcow2)"}
#define ANYWHERE {"any-backing", CLI_FLAG, AT(anywhere), NULL, \
	"allow backing files outside the image's folder"}
#define JSON {"json", CLI_FLAG, AT(json), NULL, "print JSON"}

const struct cli_option image_create_options[] = {
	FORMAT,
	{"backing", CLI_TEXT, AT(backing), "FILE",
	 "make an overlay of FILE (as seen from the image)"},
	{"backing-format", CLI_TEXT, AT(backing_format), "raw|qcow2",
	 "the format of that file"},
	{"cluster-size", CLI_SIZE, AT(cluster_bytes), "SIZE",
	 "512 bytes to 2M (64K)"},
	{"refcount-bits", CLI_COUNT, AT(refcount_bits), "N", "1 to 64 (16)"},
	{"compression", CLI_TEXT, AT(compression), "zlib|zstd",
	 "what clusters may be compressed with"},
	{"extended-l2", CLI_FLAG, AT(is_extended), NULL,
	 "allocate in 1/32 of a cluster"},
	{"lazy-refcounts", CLI_FLAG, AT(is_lazy), NULL,
	 "let others count lazily"},
	{0},
};
const struct cli_option image_info_options[] = {FORMAT, JSON, {0}};
const struct cli_option image_check_options[] = {
	FORMAT, JSON,
	{"repair", CLI_FLAG, AT(repair), NULL, "put counts and flags right"},
	{0},
};
const struct cli_option image_map_options[] = {FORMAT, ANYWHERE, JSON, {0}};
const struct cli_option image_resize_options[] = {
	FORMAT, ANYWHERE,
	{"shrink", CLI_FLAG, AT(shrink), NULL,
	 "allow a smaller size: what is behind it is lost"},
	{0},
};
/* clang-format on */

static int failed(const struct err *err, const char *hint)
{
	if (!strcmp(err->id, "image.backing-elsewhere"))
		hint = "--any-backing allows it";
	cli_report(err, hint);
	return CLI_FAILED;
}

int verb_image_create(void *values, struct cli_args *args)
{
	const struct image_file_options *o = values;
	struct err err = {0};
	u64 size = 0;

	if (args->count != 2)
		return cli_usage("image", "use: image create FILE SIZE");
	if (cli_parse_size(args->words[1], &size, &err) || size % 512) {
		if (!err.code)
			err_set(&err, -EINVAL,
				"a size is a multiple of 512 bytes");
		cli_report(&err, NULL);
		return CLI_USAGE;
	}
	if (image_file_create(args->words[0],
			      image_file_format(o->format, args->words[0]),
			      size, o, &err))
		return failed(&err, NULL);
	return CLI_OK;
}

/* ---- info ---- */

static int add_snapshot(void *opaque, const struct qcow2_snapshot *s)
{
	json_array_append_new(
		opaque,
		json_pack("{s:s#, s:s#, s:I, s:I, s:I}", "id", s->id,
			  (int)strnlen(s->id, sizeof(s->id)), "name", s->name,
			  (int)strnlen(s->name, sizeof(s->name)), "seconds",
			  (json_int_t)s->seconds, "disk_bytes",
			  (json_int_t)s->disk_bytes, "vm_state_bytes",
			  (json_int_t)s->vm_state_bytes));
	return 0;
}

static json_t *describe(const struct image_file *f, const char *path)
{
	const struct qcow2_header *h = qcow2_header_of(f->node);
	json_t *obj = json_object(), *list;
	struct stat st = {0};

	(void)stat(path, &st);
	json_object_set_new(obj, "file", json_string(path));
	json_object_set_new(obj, "format",
			    json_string(f->chain.files[0].format));
	json_object_set_new(
		obj, "size_bytes",
		json_integer((json_int_t)block_size_bytes(f->node)));
	json_object_set_new(obj, "used_bytes",
			    json_integer(st.st_blocks * 512ll));
	if (!h)
		return obj;
	json_object_set_new(obj, "version", json_integer(h->version));
	json_object_set_new(obj, "cluster_bytes",
			    json_integer(1ll << h->cluster_bits));
	json_object_set_new(obj, "refcount_bits",
			    json_integer(1 << h->refcount_order));
	json_object_set_new(obj, "compression",
			    json_string(h->compression_type ? "zstd" : "zlib"));
	json_object_set_new(
		obj, "extended_l2",
		json_boolean(h->incompatible & QCOW2_INCOMPAT_EXTL2));
	json_object_set_new(obj, "lazy_refcounts",
			    json_boolean(h->compatible & QCOW2_COMPAT_LAZY));
	json_object_set_new(
		obj, "dirty",
		json_boolean(h->incompatible & QCOW2_INCOMPAT_DIRTY));
	json_object_set_new(
		obj, "corrupt",
		json_boolean(h->incompatible & QCOW2_INCOMPAT_CORRUPT));
	json_object_set_new(obj, "bitmaps", json_integer(h->bitmap_count));
	if (h->has_backing) {
		json_object_set_new(obj, "backing",
				    json_string(h->backing_name));
		json_object_set_new(obj, "backing_format",
				    json_string(h->backing_format));
	}
	list = json_array();
	(void)qcow2_snapshots(f->node, add_snapshot, list);
	json_object_set_new(obj, "snapshots", list);
	return obj;
}

static void print_value(const char *key, const json_t *v)
{
	if (json_is_string(v))
		printf("%-16s %s\n", key, json_string_value(v));
	else if (json_is_integer(v))
		printf("%-16s %lld\n", key, (long long)json_integer_value(v));
	else if (json_is_boolean(v))
		printf("%-16s %s\n", key, json_is_true(v) ? "yes" : "no");
}

static void print_info(json_t *obj)
{
	const char *key;
	size_t i;
	json_t *v, *s;

	json_object_foreach(obj, key, v)
	{
		print_value(key, v);
	}
	json_array_foreach(json_object_get(obj, "snapshots"), i, s)
	{
		printf("snapshot         %s %s\n",
		       json_string_value(json_object_get(s, "id")),
		       json_string_value(json_object_get(s, "name")));
	}
}

int verb_image_info(void *values, struct cli_args *args)
{
	const struct image_file_options *o = values;
	struct block_open how = {.is_read_only = true, .is_alone = true};
	struct image_file f;
	struct err err = {0};
	json_t *obj;

	if (args->count != 1)
		return cli_usage("image", "use: image info FILE");
	if (image_file_open(args->words[0], o, &how, &f, &err))
		return failed(&err, NULL);
	obj = describe(&f, args->words[0]);
	if (o->json) {
		json_dumpf(obj, stdout, JSON_INDENT(2));
		printf("\n");
	} else {
		print_info(obj);
	}
	json_decref(obj);
	image_file_close(&f);
	return CLI_OK;
}

/* ---- check ---- */

static void print_check(const struct qcow2_check *c, bool json)
{
	if (json) {
		json_t *obj = json_pack(
			"{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:s}",
			"corruptions", (json_int_t)c->corruptions, "leaks",
			(json_int_t)c->leaks, "corruptions_fixed",
			(json_int_t)c->corruptions_fixed, "leaks_fixed",
			(json_int_t)c->leaks_fixed, "clusters",
			(json_int_t)c->clusters, "allocated",
			(json_int_t)c->allocated, "compressed",
			(json_int_t)c->compressed, "first", c->first);

		json_dumpf(obj, stdout, JSON_INDENT(2));
		printf("\n");
		json_decref(obj);
		return;
	}
	if (c->corruptions_fixed || c->leaks_fixed)
		printf("repaired: %llu corruptions, %llu leaks\n",
		       (unsigned long long)c->corruptions_fixed,
		       (unsigned long long)c->leaks_fixed);
	if (c->corruptions)
		printf("%llu corruptions, the first: %s\n",
		       (unsigned long long)c->corruptions, c->first);
	if (c->leaks)
		printf("%llu clusters are lost (a waste, no harm)\n",
		       (unsigned long long)c->leaks);
	if (!c->corruptions && !c->leaks)
		printf("sound: %llu of %llu clusters allocated\n",
		       (unsigned long long)c->allocated,
		       (unsigned long long)c->clusters);
}

/* 0 sound; 1 corrupt or not checked; 3 leaks only. */
int verb_image_check(void *values, struct cli_args *args)
{
	const struct image_file_options *o = values;
	struct block_open how = {.is_read_only = !o->repair,
				 .is_repair = o->repair,
				 .is_alone = true};
	struct image_progress p;
	struct qcow2_check c = {.progress = image_progress, .opaque = &p};
	struct image_file f;
	struct err err = {0};
	int rc;

	if (args->count != 1)
		return cli_usage("image", "use: image check FILE");
	if (image_file_open(args->words[0], o, &how, &f, &err))
		return failed(&err, NULL);
	if (!qcow2_header_of(f.node)) {
		image_file_close(&f);
		return cli_usage("image", "check: a raw image has nothing to "
					  "check (--format qcow2?)");
	}
	image_progress_begin(&p);
	rc = qcow2_check(f.node, o->repair, &c, &err);
	image_progress_end(&p);
	image_file_close(&f);
	if (rc)
		return failed(&err, NULL);
	print_check(&c, o->json);
	return c.corruptions ? CLI_FAILED : c.leaks ? 3 : CLI_OK;
}

/* ---- map ---- */

static void print_place(u64 offset, const struct qcow2_place *p)
{
	static const char *const kinds[] = {"data", "compressed", "zero", "-"};
	char at[32] = "";

	if (p->kind == QCOW2_EXTENT_DATA)
		snprintf(at, sizeof(at), "%#llx",
			 (unsigned long long)p->file_byte);
	printf("%#-16llx %#-12llx %-10s %5u %s\n", (unsigned long long)offset,
	       (unsigned long long)p->bytes, kinds[p->kind], p->depth, at);
}

static bool joins(const struct qcow2_place *a, const struct qcow2_place *b)
{
	return a->kind == b->kind && a->depth == b->depth &&
	       (a->kind != QCOW2_EXTENT_DATA ||
		a->file_byte + a->bytes == b->file_byte);
}

static int map_all(struct block_node *node, bool json, json_t *list)
{
	struct qcow2_place run = {0}, p;
	u64 size = block_size_bytes(node), at = 0;
	int rc = 0;

	while (!rc && at < size) {
		rc = qcow2_map_at(node, at, size - at, &p);
		if (rc)
			break;
		if (run.bytes && !joins(&run, &p)) {
			if (!json)
				print_place(at - run.bytes, &run);
			run.bytes = 0;
		}
		if (json)
			json_array_append_new(
				list,
				json_pack("{s:I, s:I, s:i, s:i}", "offset",
					  (json_int_t)at, "bytes",
					  (json_int_t)p.bytes, "kind",
					  (int)p.kind, "depth", (int)p.depth));
		at += p.bytes;
		p.bytes += run.bytes;
		if (run.bytes)
			p.file_byte = run.file_byte;
		run = p;
	}
	if (!rc && run.bytes && !json)
		print_place(at - run.bytes, &run);
	return rc;
}

int verb_image_map(void *values, struct cli_args *args)
{
	const struct image_file_options *o = values;
	struct block_open how = {.is_read_only = true};
	struct image_file f;
	struct err err = {0};
	json_t *list;
	int rc;

	if (args->count != 1)
		return cli_usage("image", "use: image map FILE");
	if (image_file_open(args->words[0], o, &how, &f, &err))
		return failed(&err, NULL);
	list = json_array();
	if (!o->json)
		printf("%-16s %-12s %-10s %5s %s\n", "OFFSET", "BYTES", "KIND",
		       "DEPTH", "PLACE");
	rc = map_all(f.node, o->json, list);
	if (o->json) {
		json_dumpf(list, stdout, JSON_INDENT(2));
		printf("\n");
	}
	json_decref(list);
	image_file_close(&f);
	if (rc) {
		err_sys(&err, rc, "read image '%s'", args->words[0]);
		return failed(&err, NULL);
	}
	return CLI_OK;
}

/* ---- resize ---- */

static int resize(struct image_file *f, const char *path, u64 size,
		  const struct image_file_options *o, struct err *err)
{
	u64 old = block_size_bytes(f->node);

	if (size < old && !o->shrink)
		return err_set(err, -EINVAL,
			       "image '%s' has %llu bytes: --shrink cuts it",
			       path, (unsigned long long)old);
	if (qcow2_header_of(f->node))
		return qcow2_resize(f->node, size, err);
	return block_resize_raw(f->node, size, err);
}

int verb_image_resize(void *values, struct cli_args *args)
{
	const struct image_file_options *o = values;
	struct block_open how = {0};
	struct image_file f;
	struct err err = {0};
	u64 size;
	int rc;

	if (args->count != 2)
		return cli_usage("image", "use: image resize FILE SIZE");
	if (cli_parse_size(args->words[1], &size, &err)) {
		cli_report(&err, NULL);
		return CLI_USAGE;
	}
	if (image_file_open(args->words[0], o, &how, &f, &err))
		return failed(&err, NULL);
	rc = resize(&f, args->words[0], size, o, &err);
	image_file_close(&f);
	return rc ? failed(&err, NULL) : CLI_OK;
}
