/* SPDX-License-Identifier: Apache-2.0 */
/* Images that qemu-img makes read right, and what is no image is refused. */
#include "test/test.h"

#include "block/qcow2_testlib.h"

#define DISK_BYTES (5 * MIB + 7 * 512)

static struct block_node *image_open(struct images *t, const char *name,
				     const struct block_layer *layers,
				     size_t count)
{
	struct block_open how = {.format = "qcow2",
				 .is_read_only = true,
				 .layers = layers,
				 .layer_count = count};
	struct block_node *node;
	struct err err = {0};

	if (block_open_fd(t->loop, file_open(t, name, O_RDONLY), &how, &node,
			  &err))
		fail_msg("open: %s", err.text);
	return node;
}

/* What qemu-img says is in the image is what we read. */
static void reads_as_qemu_says(struct images *t, struct block_node *node,
			       const char *name)
{
	u64 len;
	u8 *want, *have;

	shell(t, "qemu-img convert -f qcow2 -O raw %s want", name);
	want = file_bytes(t, "want", &len);
	assert_int_equal(len, block_size_bytes(node));
	have = disk_bytes(node, 1 * MIB);
	bytes_equal(have, want, len);
	free(have);
	have = disk_bytes(node, 3333);
	bytes_equal(have, want, len);
	free(have);
	free(want);
	block_close(node);
}

/* Options of qemu-img create, for each of which an image is filled. */
static const char *const options[] = {
	"compat=0.10",
	"compat=0.10,cluster_size=512",
	"compat=1.1",
	"cluster_size=512",
	"cluster_size=1k",
	"cluster_size=4k",
	"cluster_size=32k",
	"cluster_size=256k",
	"cluster_size=2M",
	"refcount_bits=1",
	"refcount_bits=2",
	"refcount_bits=4",
	"refcount_bits=8",
	"refcount_bits=32",
	"refcount_bits=64",
	"lazy_refcounts=on",
	"preallocation=metadata",
	"preallocation=falloc",
	"preallocation=full",
	"compression_type=zstd",
	"extended_l2=on",
	"extended_l2=on,cluster_size=16k",
	"extended_l2=on,cluster_size=2M",
	"extended_l2=on,preallocation=metadata",
};

/* Writes of every kind, at places of every alignment. */
static const char *const changes =
	"-c 'write -P 0x11 1000 3000' -c 'write -P 0x22 131072 65536' "
	"-c 'write -z 262144 65536' -c 'write -z -u 330000 5000' "
	"-c 'discard 400k 200k' -c 'write -P 0x33 2097000 400000' "
	"-c 'discard 4M 512k' -c 'write -P 0x44 4400k 1k' "
	"-c 'write -z 4500k 100k' -c 'write -P 0x55 4510k 3k' "
	"-c 'write -P 0x66 5242880 3584'";

static void every_option_of_qemu_img_reads_right(void **state)
{
	struct images t;

	(void)state;
	need_qemu();
	images_begin(&t);
	pattern_file(&t, "raw", DISK_BYTES, 1);
	for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
		const char *o = options[i];

		shell(&t,
		      "rm -f a && qemu-img convert -f raw -O qcow2 -o %s "
		      "raw a",
		      o);
		reads_as_qemu_says(&t, image_open(&t, "a", NULL, 0), "a");
		shell(&t, "qemu-io -f qcow2 %s a", changes);
		reads_as_qemu_says(&t, image_open(&t, "a", NULL, 0), "a");
		shell(&t, "rm -f a && qemu-img create -f qcow2 -o %s a %llu", o,
		      (unsigned long long)DISK_BYTES);
		reads_as_qemu_says(&t, image_open(&t, "a", NULL, 0), "a");
		shell(&t, "qemu-io -f qcow2 %s a", changes);
		reads_as_qemu_says(&t, image_open(&t, "a", NULL, 0), "a");
	}
	images_end(&t);
}

static void compressed_clusters_read_right(void **state)
{
	static const char *const kinds[] = {
		"compression_type=zlib",
		"compression_type=zlib,compat=0.10",
		"compression_type=zlib,cluster_size=512",
		"compression_type=zlib,cluster_size=2M",
		"compression_type=zlib,extended_l2=on",
		"compression_type=zstd",
		"compression_type=zstd,cluster_size=4k",
		"compression_type=zstd,cluster_size=2M",
		"compression_type=zstd,extended_l2=on",
	};
	struct images t;

	(void)state;
	need_qemu();
	images_begin(&t);
	pattern_file(&t, "raw", DISK_BYTES, 2);
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		shell(&t,
		      "rm -f a && qemu-img convert -c -f raw -O qcow2 -o %s "
		      "raw a",
		      strstr(kinds[i], "0.10") ? "compat=0.10" : kinds[i]);
		reads_as_qemu_says(&t, image_open(&t, "a", NULL, 0), "a");
		shell(&t, "qemu-io -f qcow2 %s a", changes);
		reads_as_qemu_says(&t, image_open(&t, "a", NULL, 0), "a");
	}
	images_end(&t);
}

static void overlays_read_what_is_below(void **state)
{
	static const char *const kinds[] = {
		"cluster_size=4k", "cluster_size=64k",
		"extended_l2=on,cluster_size=64k", "cluster_size=2M"};
	struct images t;

	(void)state;
	need_qemu();
	images_begin(&t);
	pattern_file(&t, "raw", 3 * MIB + 512, 3);
	shell(&t, "qemu-img convert -O qcow2 -f raw raw mid0");
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		struct block_layer layers[2];

		/* Larger than its raw backing file, then smaller than its
		 * qcow2 one, then three in a chain. */
		shell(&t,
		      "rm -f a && qemu-img create -f qcow2 -o %s -b raw -F raw "
		      "a 6M && qemu-io -f qcow2 %s a",
		      kinds[i], changes);
		layers[0] = (struct block_layer){file_open(&t, "raw", O_RDONLY),
						 "raw"};
		reads_as_qemu_says(&t, image_open(&t, "a", layers, 1), "a");
		shell(&t,
		      "rm -f a && qemu-img create -f qcow2 -o %s -b mid0 "
		      "-F qcow2 a 2500k && qemu-io -f qcow2 -c 'write -P 7 "
		      "1000k 3k' a",
		      kinds[i]);
		layers[0] = (struct block_layer){
			file_open(&t, "mid0", O_RDONLY), "qcow2"};
		reads_as_qemu_says(&t, image_open(&t, "a", layers, 1), "a");
		shell(&t,
		      "rm -f a b && qemu-img create -f qcow2 -b mid0 -F qcow2 "
		      "b 4M && qemu-io -f qcow2 -c 'write -P 9 1M 70k' b && "
		      "qemu-img create -f qcow2 -o %s -b b -F qcow2 a 6M && "
		      "qemu-io -f qcow2 %s a",
		      kinds[i], changes);
		layers[0] = (struct block_layer){file_open(&t, "b", O_RDONLY),
						 "qcow2"};
		layers[1] = (struct block_layer){
			file_open(&t, "mid0", O_RDONLY), "qcow2"};
		reads_as_qemu_says(&t, image_open(&t, "a", layers, 2), "a");
	}
	images_end(&t);
}

static void many_requests_at_once_all_read_right(void **state)
{
	enum { COUNT = 1000, BYTES = 5000 };
	struct block_request *req = calloc(COUNT, sizeof(*req));
	struct sync_result *r = calloc(COUNT, sizeof(*r));
	struct iovec *iov = calloc(COUNT, sizeof(*iov));
	struct block_node *node;
	struct images t;
	u64 len;
	u8 *raw;

	(void)state;
	need_qemu();
	images_begin(&t);
	pattern_file(&t, "raw", DISK_BYTES, 4);
	shell(&t, "qemu-img convert -c -f raw -O qcow2 raw a && "
		  "qemu-io -f qcow2 -c 'write -P 1 1M 1M' a && "
		  "qemu-img convert -O raw a want");
	raw = file_bytes(&t, "want", &len);
	node = image_open(&t, "a", NULL, 0);
	for (int i = 0; i < COUNT; i++) {
		iov[i] = (struct iovec){malloc(BYTES), BYTES};
		req[i] = (struct block_request){.op = BLOCK_READ,
						.offset = (u64)i * 7919 * 613 %
							  (DISK_BYTES - BYTES),
						.len = BYTES,
						.iov = &iov[i],
						.iov_count = 1,
						.done = sync_done,
						.opaque = &r[i]};
		block_submit(node, &req[i]);
	}
	while (!r[COUNT - 1].is_done)
		loop_run_once(t.loop, 1000);
	block_drain(node);
	for (int i = 0; i < COUNT; i++) {
		assert_int_equal(r[i].result, 0);
		bytes_equal(iov[i].iov_base, raw + req[i].offset, BYTES);
		free(iov[i].iov_base);
	}
	block_close(node);
	free(raw);
	free(req);
	free(r);
	free(iov);
	images_end(&t);
}

/* ---- Headers ---- */

static void put16(u8 *at, u32 v)
{
	at[0] = (u8)(v >> 8);
	at[1] = (u8)v;
}
static void put32(u8 *at, u32 v)
{
	put16(at, v >> 16);
	put16(at + 2, v);
}
static void put64(u8 *at, u64 v)
{
	put32(at, (u32)(v >> 32));
	put32(at + 4, (u32)v);
}

#define HEADER_FILE (4 * 65536)

/* A version 3 image of 1 GiB: header, refcount table, block, L1. */
static void header_make(u8 *b)
{
	memset(b, 0, HEADER_FILE);
	memcpy(b, "QFI\xfb", 4);
	put32(b + 4, 3);
	put32(b + 20, 16);
	put64(b + 24, 1 * GIB);
	put32(b + 36, 2);
	put64(b + 40, 3 * 65536);
	put64(b + 48, 1 * 65536);
	put32(b + 56, 1);
	put32(b + 96, 4);
	put32(b + 100, 104);
}

static int parse(const u8 *b, u64 len)
{
	struct qcow2_header h;
	u8 *exact = malloc(len + 1); /* ASan sees what is read beyond */
	int rc;

	memcpy(exact, b, len);
	rc = qcow2_header_parse(exact, len, len, &h, NULL);
	free(exact);
	return rc;
}

static void a_wrong_header_field_is_refused(void **state)
{
	static const struct {
		u32 at, bytes;
		u64 value;
	} wrong[] = {
		{0, 4, 0x514649fa},
		{4, 4, 1},
		{4, 4, 4},
		{4, 4, 0xffffffff},
		{20, 4, 0},
		{20, 4, 8},
		{20, 4, 22},
		{20, 4, 63},
		{20, 4, 0xffffffff},
		{24, 8, BIT64(63)},
		{24, 8, UINT64_MAX},
		{24, 8, BIT64(62)},
		{32, 4, 1},
		{32, 4, 2},
		{32, 4, 3},
		{36, 4, 0},
		{36, 4, 1},
		{36, 4, 0x80000000},
		{36, 4, 0xffffffff},
		{40, 8, 0},
		{40, 8, 3 * 65536 + 512},
		{40, 8, 4 * 65536},
		{40, 8, ~65535ull},
		{40, 8, BIT64(63)},
		{48, 8, 0},
		{48, 8, 65536 + 8},
		{48, 8, 4 * 65536},
		{48, 8, ~65535ull},
		{56, 4, 0},
		{56, 4, 4},
		{56, 4, 0xffffffff},
		{60, 4, 1},
		{60, 4, 0xffffffff},
		{72, 8, BIT64(2)},
		{72, 8, BIT64(3)},
		{72, 8, BIT64(5)},
		{72, 8, BIT64(63)},
		{88, 8, BIT64(0)},
		{96, 4, 7},
		{96, 4, 0xffffffff},
		{100, 4, 0},
		{100, 4, 103},
		{100, 4, 108},
		{100, 4, 65544},
		{100, 4, 0xffffffff},
	};
	static u8 b[HEADER_FILE];

	(void)state;
	header_make(b);
	assert_int_equal(parse(b, sizeof(b)), 0);
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		header_make(b);
		if (wrong[i].bytes == 4)
			put32(b + wrong[i].at, (u32)wrong[i].value);
		else
			put64(b + wrong[i].at, wrong[i].value);
		if (parse(b, sizeof(b)) >= 0)
			fail_msg("field %u: %#llx", wrong[i].at,
				 (unsigned long long)wrong[i].value);
	}
	header_make(b); /* extended L2 with clusters of 8 KiB */
	put32(b + 20, 13);
	put64(b + 24, 1 * MIB);
	assert_int_equal(parse(b, sizeof(b)), 0);
	put64(b + 72, BIT64(4));
	assert_int_equal(parse(b, sizeof(b)), -EINVAL);
}

static void wrong_extensions_and_names_are_refused(void **state)
{
	static u8 b[HEADER_FILE];

	(void)state;
	header_make(b);
	put32(b + 104, 0x12345678); /* unknown: skipped */
	put32(b + 108, 5);
	put32(b + 120, 0xe2792aca);
	put32(b + 124, 3);
	memcpy(b + 128, "raw", 3);
	assert_int_equal(parse(b, sizeof(b)), 0);
	put32(b + 108, 0xffffffff);
	assert_int_equal(parse(b, sizeof(b)), -EINVAL);
	put32(b + 108, 65536 - 112 + 1);
	assert_int_equal(parse(b, sizeof(b)), -EINVAL);
	put32(b + 108, 5);
	put32(b + 124, 64); /* a format of 64 letters, then with a NUL */
	memset(b + 128, 'x', 64);
	assert_int_equal(parse(b, sizeof(b)), -EINVAL);
	put32(b + 124, 4);
	b[129] = 0;
	assert_int_equal(parse(b, sizeof(b)), -EINVAL);

	header_make(b);
	put64(b + 8, 512);
	memcpy(b + 512, "base", 4);
	put32(b + 16, 4);
	assert_int_equal(parse(b, sizeof(b)), 0);
	put32(b + 16, 5); /* a NUL in the name */
	assert_int_equal(parse(b, sizeof(b)), -EINVAL);
	put32(b + 16, 1024);
	assert_int_equal(parse(b, sizeof(b)), -EINVAL);
	put32(b + 16, 0xffffffff);
	assert_int_equal(parse(b, sizeof(b)), -EINVAL);
	put32(b + 16, 4);
	put64(b + 8, 65533); /* behind the first cluster */
	memset(b + 65533, 'x', 4);
	assert_int_equal(parse(b, sizeof(b)), -EINVAL);
	put64(b + 8, 8);
	assert_int_equal(parse(b, sizeof(b)), -EINVAL);
	put64(b + 8, UINT64_MAX);
	assert_int_equal(parse(b, sizeof(b)), -EINVAL);
}

static void a_truncated_header_is_refused(void **state)
{
	static const u64 lengths[] = {0,     3,	    4,	       71,
				      72,    103,   104,       511,
				      65535, 65536, 2 * 65536, 3 * 65536};
	static u8 b[HEADER_FILE];

	(void)state;
	header_make(b);
	for (size_t i = 0; i < ARRAY_SIZE(lengths); i++)
		assert_int_equal(parse(b, lengths[i]), -EINVAL);
}

static void an_unknown_feature_is_named(void **state)
{
	static u8 b[HEADER_FILE];
	struct qcow2_header h;
	struct err err = {0};

	(void)state;
	header_make(b);
	put64(b + 72, BIT64(7));
	put32(b + 104, 0x6803f857);
	put32(b + 108, 48);
	b[112] = 0;
	b[113] = 7;
	memcpy(b + 114, "time travel", 11);
	assert_int_equal(qcow2_header_parse(b, 65536, sizeof(b), &h, &err),
			 -ENOTSUP);
	assert_non_null(strstr(err.text, "'time travel'"));
	b[114] = '\n';
	assert_int_equal(qcow2_header_parse(b, 65536, sizeof(b), &h, &err),
			 -ENOTSUP);
	assert_non_null(strstr(err.text, "bit 7"));
}

/* ---- Tables ---- */

/* Opens bytes as an image; reads it all at once: the result. */
static int read_hostile(const u8 *b, u64 len)
{
	struct block_open how = {.format = "qcow2", .is_read_only = true};
	struct block_node *node;
	struct images t;
	u8 bytes[4096];
	int rc;

	images_begin(&t);
	file_put(&t, "a", b, len);
	rc = block_open_fd(t.loop, file_open(&t, "a", O_RDONLY), &how, &node,
			   NULL);
	if (!rc) {
		rc = disk_do(node, BLOCK_READ, 4096, bytes, sizeof(bytes));
		block_close(node);
	}
	images_end(&t);
	return rc;
}

static void a_damaged_table_is_an_error(void **state)
{
	enum {
		L1 = 3 * 65536,
		L2 = 4 * 65536,
		DATA = 5 * 65536,
		END = 6 * 65536
	};
	static const u64 l1[] = {L2 + 512,  END,	   1ull << 55,
				 512,	    L2 | BIT64(3), L2 | BIT64(60),
				 BIT64(56), 65536 - 512};
	static const u64 l2[] = {DATA + 512,
				 END,
				 1ull << 55,
				 DATA | BIT64(4),
				 DATA | BIT64(57),
				 BIT64(63),
				 BIT64(62),
				 BIT64(62) | BIT64(63) | DATA,
				 BIT64(62) | END,
				 BIT64(62) | DATA, /* no deflate stream */
				 BIT64(62) | 0x3fffffffffffff00};
	static u8 b[END];

	(void)state;
	header_make(b);
	memset(b + DATA, 0xff, 65536);
	put64(b + L1, L2);
	put64(b + L2, DATA);
	assert_int_equal(read_hostile(b, sizeof(b)), 0);
	for (size_t i = 0; i < ARRAY_SIZE(l1); i++) {
		put64(b + L1, l1[i]);
		if (read_hostile(b, sizeof(b)) != -EIO)
			fail_msg("L1 entry %#llx", (unsigned long long)l1[i]);
	}
	put64(b + L1, L2);
	for (size_t i = 0; i < ARRAY_SIZE(l2); i++) {
		put64(b + L2, l2[i]);
		if (read_hostile(b, sizeof(b)) != -EIO)
			fail_msg("L2 entry %#llx", (unsigned long long)l2[i]);
	}
	/* Tables may point at each other: the bytes are what they are. */
	put64(b + L2, L2);
	assert_int_equal(read_hostile(b, sizeof(b)), 0);
	put64(b + L1, L1);
	assert_true(read_hostile(b, sizeof(b)) <= 0);
}

static void layers_must_be_as_the_image_says(void **state)
{
	struct block_layer layer = {.format = "raw"};
	struct block_open how = {.format = "qcow2", .is_read_only = true};
	struct block_node *node;
	struct err err = {0};
	struct images t;
	u8 b[HEADER_FILE];

	(void)state;
	images_begin(&t);
	header_make(b);
	file_put(&t, "alone", b, sizeof(b));
	put64(b + 8, 512);
	put32(b + 16, 4);
	memcpy(b + 512, "base", 4);
	file_put(&t, "over", b, sizeof(b));
	assert_int_equal(block_open_fd(t.loop, file_open(&t, "over", O_RDONLY),
				       &how, &node, &err),
			 -EINVAL);
	assert_non_null(strstr(err.text, "'base'"));
	how.is_alone = true;
	assert_int_equal(block_open_fd(t.loop, file_open(&t, "over", O_RDONLY),
				       &how, &node, NULL),
			 0);
	assert_int_equal(disk_do(node, BLOCK_READ, 0, b, 512), -ENOMEDIUM);
	block_close(node);
	how.is_alone = false;
	how.layers = &layer;
	how.layer_count = 1;
	layer.fd = file_open(&t, "alone", O_RDONLY);
	assert_int_equal(block_open_fd(t.loop, file_open(&t, "alone", O_RDONLY),
				       &how, &node, NULL),
			 -EINVAL);
	layer.fd = file_open(&t, "alone", O_RDONLY);
	how.format = "raw";
	assert_int_equal(block_open_fd(t.loop, file_open(&t, "alone", O_RDONLY),
				       &how, &node, NULL),
			 -EINVAL);
	images_end(&t);
}

static void a_file_that_shrinks_while_open_is_an_error(void **state)
{
	enum {
		L1 = 3 * 65536,
		L2 = 4 * 65536,
		DATA = 5 * 65536,
		END = 6 * 65536
	};
	struct block_open how = {.format = "qcow2", .is_read_only = true};
	struct block_node *node;
	struct images t;
	static u8 b[END];
	u8 bytes[4096];
	int fd;

	(void)state;
	images_begin(&t);
	header_make(b);
	put64(b + L1, L2);
	put64(b + L2, DATA);
	file_put(&t, "a", b, sizeof(b));
	fd = file_open(&t, "a", O_RDWR);
	assert_int_equal(block_open_fd(t.loop, file_open(&t, "a", O_RDONLY),
				       &how, &node, NULL),
			 0);
	assert_int_equal(disk_do(node, BLOCK_READ, 0, bytes, 4096), 0);
	assert_int_equal(ftruncate(fd, DATA), 0);
	assert_int_equal(disk_do(node, BLOCK_READ, 0, bytes, 4096), -EIO);
	close(fd);
	block_close(node);
	images_end(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_option_of_qemu_img_reads_right),
		cmocka_unit_test(compressed_clusters_read_right),
		cmocka_unit_test(overlays_read_what_is_below),
		cmocka_unit_test(many_requests_at_once_all_read_right),
		cmocka_unit_test(a_wrong_header_field_is_refused),
		cmocka_unit_test(wrong_extensions_and_names_are_refused),
		cmocka_unit_test(a_truncated_header_is_refused),
		cmocka_unit_test(an_unknown_feature_is_named),
		cmocka_unit_test(a_damaged_table_is_an_error),
		cmocka_unit_test(a_file_that_shrinks_while_open_is_an_error),
		cmocka_unit_test(layers_must_be_as_the_image_says),
	};

	return test_run("qcow2", tests);
}
