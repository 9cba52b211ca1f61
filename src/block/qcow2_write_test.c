/* SPDX-License-Identifier: Apache-2.0 */
/* What is written into an image is there, for us and for qemu-img, and the
 * image stays sound. */
#include "test/test.h"

#include "block/qcow2_testlib.h"

#define DISK_BYTES (6 * MIB + 3 * 512)
#define BATCH	   12

struct model {
	u8 *bytes;
	u64 len;
	u64 seed;
	u32 max_len;
};

static u64 pick(struct model *m, u64 below)
{
	m->seed = m->seed * 6364136223846793005ull + 1442695040888963407ull;
	return (m->seed >> 33) % below;
}

/* One of the requests that are in work at the same time; they share clusters,
 * not bytes. */
struct work {
	struct block_request req;
	struct sync_result result;
	struct iovec iov;
	u8 *bytes;
};

static bool overlaps(const struct work *w, int n, u64 offset, u64 len)
{
	for (int i = 0; i < n; i++)
		if (offset < w[i].req.offset + w[i].req.len &&
		    w[i].req.offset < offset + len)
			return true;
	return false;
}

static void work_make(struct model *m, struct work *all, int n)
{
	static const enum block_op ops[] = {
		BLOCK_WRITE, BLOCK_WRITE,	 BLOCK_WRITE, BLOCK_WRITE,
		BLOCK_WRITE, BLOCK_WRITE_ZEROES, BLOCK_READ,  BLOCK_DISCARD};
	struct work *w = &all[n];
	u64 sectors = m->len / 512, at, len;
	enum block_op op = ops[pick(m, ARRAY_SIZE(ops))];

	do {
		len = 1 + pick(m, pick(m, 4) ? 16 : m->max_len / 512);
		at = pick(m, sectors);
		len = MIN(len, sectors - at);
	} while (overlaps(all, n, at * 512, len * 512));
	memset(w, 0, sizeof(*w));
	w->bytes = malloc(len * 512);
	pattern(w->bytes, len * 512, m->seed);
	w->iov = (struct iovec){w->bytes, len * 512};
	w->req = (struct block_request){.op = op,
					.offset = at * 512,
					.len = len * 512,
					.iov = &w->iov,
					.iov_count = 1,
					.may_unmap = pick(m, 2),
					.done = sync_done,
					.opaque = &w->result};
}

/* What it did, to the model. A discard leaves either; what the disk has is
 * taken over. */
static void work_end(struct model *m, struct block_node *node, struct work *w)
{
	u8 *at = m->bytes + w->req.offset;
	u64 len = w->req.len;

	assert_true(w->result.is_done);
	assert_int_equal(w->result.result, 0);
	switch (w->req.op) {
	case BLOCK_WRITE:
		memcpy(at, w->bytes, len);
		break;
	case BLOCK_READ:
		bytes_equal(w->bytes, at, len);
		break;
	case BLOCK_WRITE_ZEROES:
		memset(at, 0, len);
		break;
	default:
		assert_int_equal(
			disk_do(node, BLOCK_READ, w->req.offset, w->bytes, len),
			0);
		for (u64 i = 0; i < len; i++)
			if (w->bytes[i] && w->bytes[i] != at[i])
				fail_msg("a discard made up bytes");
		memcpy(at, w->bytes, len);
	}
	free(w->bytes);
}

static void workload(struct model *m, struct block_node *node, int batches)
{
	static struct work w[BATCH];

	for (int b = 0; b < batches; b++) {
		for (int i = 0; i < BATCH; i++)
			work_make(m, w, i);
		for (int i = 0; i < BATCH; i++)
			block_submit(node, &w[i].req);
		block_drain(node);
		for (int i = 0; i < BATCH; i++)
			work_end(m, node, &w[i]);
		if (pick(m, 4) == 0)
			assert_int_equal(disk_do(node, BLOCK_FLUSH, 0, NULL, 0),
					 0);
	}
}

static struct block_node *image_open(struct images *t, const char *name,
				     const struct block_layer *layers,
				     size_t count)
{
	struct block_open how = {
		.format = "qcow2", .layers = layers, .layer_count = count};
	struct block_node *node;
	struct err err = {0};

	if (block_open_fd(t->loop, file_open(t, name, O_RDWR), &how, &node,
			  &err))
		fail_msg("open: %s", err.text);
	return node;
}

static void is_equal(struct block_node *node, const struct model *m)
{
	u8 *have = disk_bytes(node, 1 * MIB);

	bytes_equal(have, m->bytes, m->len);
	free(have);
}

/* Sound, without a leak, and equal to the model. */
static void qemu_agrees(struct images *t, const char *name,
			const struct model *m)
{
	file_put(t, "model", m->bytes, m->len);
	shell(t, "qemu-img check -f qcow2 %s", name);
	shell(t, "qemu-img compare -f qcow2 -F raw %s model", name);
}

static void model_begin(struct model *m, u64 seed)
{
	*m = (struct model){.bytes = calloc(1, DISK_BYTES),
			    .len = DISK_BYTES,
			    .seed = seed,
			    .max_len = 300 * KIB};
}

static void create(struct images *t, const char *name, struct qcow2_create *o)
{
	struct block_open how = {.format = "raw"};
	struct block_node *file;
	struct err err = {0};

	if (!o->size_bytes)
		o->size_bytes = DISK_BYTES;
	assert_int_equal(
		raw_open_file(t->loop,
			      file_open(t, name, O_RDWR | O_CREAT | O_TRUNC),
			      &how, &file, NULL),
		0);
	if (qcow2_create(t->loop, file, o, &err))
		fail_msg("create: %s", err.text);
	block_close(file);
}

static void images_that_we_make_pass_under_any_writes(void **state)
{
	static struct qcow2_create kinds[] = {
		{0},
		{.version = 2},
		{.cluster_bits = 9},
		{.cluster_bits = 9, .refcount_bits = 64},
		{.cluster_bits = 10, .refcount_bits = 1},
		{.cluster_bits = 12, .refcount_bits = 2},
		{.cluster_bits = 12, .refcount_bits = 4},
		{.cluster_bits = 15, .refcount_bits = 8},
		{.cluster_bits = 21, .refcount_bits = 32},
		{.is_lazy = true},
		{.is_extended = true},
		{.is_extended = true, .cluster_bits = 14},
		{.is_extended = true, .cluster_bits = 21},
		{.compression_type = 1},
	};
	struct images t;
	struct model m;

	(void)state;
	need_qemu();
	images_begin(&t);
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		struct block_node *node;

		create(&t, "a", &kinds[i]);
		model_begin(&m, i + 1);
		qemu_agrees(&t, "a", &m);
		node = image_open(&t, "a", NULL, 0);
		workload(&m, node, 40);
		is_equal(node, &m);
		block_close(node);
		qemu_agrees(&t, "a", &m);
		/* Once more, from what is in the file. */
		node = image_open(&t, "a", NULL, 0);
		is_equal(node, &m);
		workload(&m, node, 20);
		block_close(node);
		qemu_agrees(&t, "a", &m);
		free(m.bytes);
	}
	images_end(&t);
}

static void images_of_qemu_stay_sound_under_any_writes(void **state)
{
	static const char *const kinds[] = {
		"-o compat=0.10",
		"-o cluster_size=512",
		"-o cluster_size=2M",
		"-o refcount_bits=1",
		"-o refcount_bits=64,cluster_size=1k",
		"-o extended_l2=on",
		"-c",
		"-c -o compat=0.10",
		"-c -o compression_type=zstd",
		"-c -o extended_l2=on",
		"-c -o cluster_size=512",
	};
	struct images t;
	struct model m;

	(void)state;
	need_qemu();
	images_begin(&t);
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		struct block_node *node;

		model_begin(&m, i + 100);
		pattern(m.bytes, m.len, 77);
		file_put(&t, "raw", m.bytes, m.len);
		shell(&t,
		      "rm -f a && qemu-img convert -f raw -O qcow2 %s raw a",
		      kinds[i]);
		node = image_open(&t, "a", NULL, 0);
		workload(&m, node, 40);
		is_equal(node, &m);
		block_close(node);
		qemu_agrees(&t, "a", &m);
		free(m.bytes);
	}
	for (int i = 0; i < 4; i++) {
		static const char *const ahead[] = {"off", "metadata", "falloc",
						    "full"};
		struct block_node *node;

		model_begin(&m, (u64)i + 200);
		shell(&t,
		      "rm -f a && qemu-img create -f qcow2 -o "
		      "preallocation=%s%s a %llu",
		      ahead[i], i == 1 ? ",extended_l2=on" : "",
		      (unsigned long long)DISK_BYTES);
		node = image_open(&t, "a", NULL, 0);
		workload(&m, node, 40);
		block_close(node);
		qemu_agrees(&t, "a", &m);
		free(m.bytes);
	}
	images_end(&t);
}

static void a_snapshot_in_the_image_is_not_touched(void **state)
{
	static const char *const kinds[] = {"cluster_size=64k",
					    "cluster_size=1k", "extended_l2=on",
					    "compat=0.10,cluster_size=4k"};
	struct images t;
	struct model m, old;

	(void)state;
	need_qemu();
	images_begin(&t);
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		struct block_node *node;

		model_begin(&m, i + 300);
		pattern(m.bytes, m.len, 78);
		model_begin(&old, 0);
		memcpy(old.bytes, m.bytes, m.len);
		file_put(&t, "raw", m.bytes, m.len);
		shell(&t,
		      "rm -f a && qemu-img convert -f raw -O qcow2 -o %s raw a "
		      "&& qemu-img snapshot -c before a",
		      kinds[i]);
		node = image_open(&t, "a", NULL, 0);
		workload(&m, node, 40);
		is_equal(node, &m);
		block_close(node);
		qemu_agrees(&t, "a", &m);
		shell(&t, "qemu-img snapshot -a before a");
		qemu_agrees(&t, "a", &old);
		shell(&t, "qemu-img snapshot -d before a");
		node = image_open(&t, "a", NULL, 0);
		workload(&old, node, 20);
		block_close(node);
		qemu_agrees(&t, "a", &old);
		free(m.bytes);
		free(old.bytes);
	}
	images_end(&t);
}

static void overlays_take_writes_and_leave_what_is_below(void **state)
{
	static struct qcow2_create kinds[] = {
		{0},
		{.cluster_bits = 12},
		{.cluster_bits = 21},
		{.is_extended = true},
		{.version = 2},
	};
	struct images t;
	struct model m;
	u64 len;

	(void)state;
	need_qemu();
	images_begin(&t);
	pattern_file(&t, "below", 4 * MIB + 512, 5);
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		struct block_layer layer = {file_open(&t, "below", O_RDONLY),
					    "raw"};
		struct block_node *node;
		u8 *below = file_bytes(&t, "below", &len), *after;

		kinds[i].backing_name = "below";
		kinds[i].backing_format = "raw";
		create(&t, "a", &kinds[i]);
		model_begin(&m, i + 400);
		memcpy(m.bytes, below, len);
		qemu_agrees(&t, "a", &m);
		node = image_open(&t, "a", &layer, 1);
		workload(&m, node, 40);
		is_equal(node, &m);
		block_close(node);
		qemu_agrees(&t, "a", &m);
		after = file_bytes(&t, "below", &len);
		bytes_equal(after, below, len);
		free(after);
		free(below);
		free(m.bytes);
	}
	images_end(&t);
}

static bool can_lock(struct images *t, const char *name, short type)
{
	struct flock lock = {.l_type = type};
	int fd = file_open(t, name, O_RDWR), rc;

	rc = fcntl(fd, F_OFD_SETLK, &lock);
	close(fd);
	return rc == 0;
}

/* An empty overlay of the layer before, opened as a running machine gets it. */
static struct block_node *layer_new(struct images *t, const char *below,
				    const char *name)
{
	struct qcow2_create o = {.backing_name = below,
				 .backing_format =
					 strcmp(below, "l0") ? "qcow2" : "raw"};
	struct block_open how = {.format = "qcow2", .is_alone = true};
	struct flock lock = {.l_type = F_WRLCK};
	struct block_node *node;
	int fd;

	create(t, name, &o);
	fd = file_open(t, name, O_RDWR);
	assert_int_equal(fcntl(fd, F_OFD_SETLK, &lock), 0);
	assert_int_equal(block_open_fd(t->loop, fd, &how, &node, NULL), 0);
	return node;
}

static void a_layer_over_a_disk_in_use_keeps_what_it_had(void **state)
{
	static const char *const names[] = {"l0", "l1", "l2", "l3", "l4"};
	struct block_open how = {.format = "raw"};
	struct flock lock = {.l_type = F_WRLCK};
	struct model m, kept[ARRAY_SIZE(names)];
	struct block_node *node, *top;
	struct images t;
	int fd;

	(void)state;
	need_qemu();
	images_begin(&t);
	pattern_file(&t, "l0", DISK_BYTES, 7);
	model_begin(&m, 900);
	free(m.bytes);
	m.bytes = file_bytes(&t, "l0", &m.len);
	fd = file_open(&t, "l0", O_RDWR);
	assert_int_equal(fcntl(fd, F_OFD_SETLK, &lock), 0);
	assert_int_equal(block_open_fd(t.loop, fd, &how, &node, NULL), 0);
	for (size_t i = 1; i < ARRAY_SIZE(names); i++) {
		workload(&m, node, 12);
		top = layer_new(&t, names[i - 1], names[i]);
		kept[i - 1] = m;
		kept[i - 1].bytes = malloc(m.len);
		memcpy(kept[i - 1].bytes, m.bytes, m.len);
		assert_int_equal(block_can_lay_over(top, node, NULL), 0);
		block_lay_over(top, node);
		node = top;
		is_equal(node, &m);
		/* Until a flush it may not be read; and one reaches down to
		 * all. */
		assert_false(can_lock(&t, names[i - 1], F_RDLCK));
		if (i == 2)
			continue;
		assert_int_equal(disk_do(node, BLOCK_FLUSH, 0, NULL, 0), 0);
		assert_true(can_lock(&t, names[i - 1], F_RDLCK));
		assert_true(can_lock(&t, names[0], F_RDLCK));
		assert_false(can_lock(&t, names[i - 1], F_WRLCK));
		assert_false(can_lock(&t, names[i], F_RDLCK));
	}
	workload(&m, node, 20);
	block_close(node);
	qemu_agrees(&t, "l4", &m);
	for (size_t i = 1; i + 1 < ARRAY_SIZE(names); i++)
		qemu_agrees(&t, names[i], &kept[i]);
	for (size_t i = 0; i + 1 < ARRAY_SIZE(names); i++)
		free(kept[i].bytes);
	free(m.bytes);
	images_end(&t);
}

static void what_is_no_overlay_of_a_disk_is_not_laid_over_it(void **state)
{
	struct qcow2_create plain = {0}, small = {.size_bytes = 1 * MIB,
						  .backing_name = "a",
						  .backing_format = "qcow2"};
	struct block_open how = {.format = "qcow2", .is_alone = true};
	struct block_node *node, *top;
	struct images t;

	(void)state;
	images_begin(&t);
	create(&t, "a", &plain);
	create(&t, "plain", &plain);
	create(&t, "small", &small);
	node = image_open(&t, "a", NULL, 0);
	top = image_open(&t, "plain", NULL, 0);
	assert_int_equal(block_can_lay_over(top, node, NULL), -EINVAL);
	block_close(top);
	assert_int_equal(block_open_fd(t.loop, file_open(&t, "small", O_RDWR),
				       &how, &top, NULL),
			 0);
	assert_int_equal(block_can_lay_over(top, node, NULL), -EINVAL);
	block_close(top);
	block_close(node);
	images_end(&t);
}

static void space_that_was_discarded_is_used_again(void **state)
{
	struct qcow2_create o = {0};
	struct block_node *node;
	struct images t;
	struct stat st;
	u8 *bytes = malloc(DISK_BYTES);
	int fd;

	(void)state;
	images_begin(&t);
	create(&t, "a", &o);
	node = image_open(&t, "a", NULL, 0);
	pattern(bytes, DISK_BYTES, 2);
	for (int i = 0; i < 10; i++) {
		assert_int_equal(
			disk_do(node, BLOCK_WRITE, 0, bytes, DISK_BYTES), 0);
		assert_int_equal(
			disk_do(node, BLOCK_DISCARD, 0, NULL, DISK_BYTES), 0);
		assert_int_equal(disk_do(node, BLOCK_FLUSH, 0, NULL, 0), 0);
	}
	fd = file_open(&t, "a", O_RDONLY);
	assert_int_equal(fstat(fd, &st), 0);
	assert_true((u64)st.st_size < DISK_BYTES + 10 * 65536);
	assert_true((u64)st.st_blocks * 512 < 10 * 65536);
	close(fd);
	block_close(node);
	free(bytes);
	images_end(&t);
}

static void bitmaps_stay_valid(void **state)
{
	static u8 bytes[8192];
	struct block_node *node;
	struct images t;
	struct model m;

	(void)state;
	need_qemu();
	images_begin(&t);
	model_begin(&m, 9);
	shell(&t,
	      "qemu-img create -f qcow2 a %llu && qemu-img bitmap --add a "
	      "on && qemu-img bitmap --add -g 512 a fine && qemu-img bitmap "
	      "--add --disable a off && qemu-io -f qcow2 -c 'write 1M 1M' "
	      "-c 'write -z 1M 1M' a",
	      (unsigned long long)DISK_BYTES);
	node = image_open(&t, "a", NULL, 0);
	workload(&m, node, 10);
	assert_int_equal(disk_do(node, BLOCK_WRITE, 0, bytes, sizeof(bytes)),
			 0);
	memset(m.bytes, 0, sizeof(bytes));
	assert_int_equal(qcow2_header_of(node)->autoclear,
			 QCOW2_AUTOCLEAR_BITMAPS);
	block_close(node);
	qemu_agrees(&t, "a", &m);
	/* qemu takes them as they are: none is in use, two are enabled. */
	shell(&t,
	      "qemu-img info --output=json a >info && ! grep -q in-use info "
	      "&& test $(grep -c '\"auto\"' info) = 2 && qemu-img bitmap "
	      "--merge on a off && qemu-img bitmap --merge fine a off");
	qemu_agrees(&t, "a", &m);
	free(m.bytes);
	images_end(&t);
}

static void options_that_do_not_go_together_are_refused(void **state)
{
	static const struct qcow2_create wrong[] = {
		{.version = 4},
		{.cluster_bits = 8},
		{.cluster_bits = 22},
		{.refcount_bits = 3},
		{.refcount_bits = 128},
		{.version = 2, .refcount_bits = 8},
		{.version = 2, .is_lazy = true},
		{.version = 2, .compression_type = 1},
		{.version = 2, .is_extended = true},
		{.is_extended = true, .cluster_bits = 13},
		{.compression_type = 2},
		{.cluster_bits = 9, .size_bytes = 1024 * GIB},
		{.size_bytes = UINT64_MAX},
		{.backing_name = "x"},
		{.backing_name = "", .backing_format = "raw"},
	};
	struct block_open how = {.format = "raw"};
	struct block_node *file;
	struct images t;

	(void)state;
	images_begin(&t);
	assert_int_equal(raw_open_file(t.loop,
				       file_open(&t, "a", O_RDWR | O_CREAT),
				       &how, &file, NULL),
			 0);
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
		if (qcow2_create(t.loop, file, &wrong[i], NULL) >= 0)
			fail_msg("set %zu was taken", i);
	assert_int_equal(file->file_bytes, 0);
	block_close(file);
	images_end(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(images_that_we_make_pass_under_any_writes),
		cmocka_unit_test(images_of_qemu_stay_sound_under_any_writes),
		cmocka_unit_test(a_snapshot_in_the_image_is_not_touched),
		cmocka_unit_test(overlays_take_writes_and_leave_what_is_below),
		cmocka_unit_test(a_layer_over_a_disk_in_use_keeps_what_it_had),
		cmocka_unit_test(
			what_is_no_overlay_of_a_disk_is_not_laid_over_it),
		cmocka_unit_test(space_that_was_discarded_is_used_again),
		cmocka_unit_test(bitmaps_stay_valid),
		cmocka_unit_test(options_that_do_not_go_together_are_refused),
	};

	return test_run("qcow2-write", tests);
}
