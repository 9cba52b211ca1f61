/* SPDX-License-Identifier: Apache-2.0 */
/* Names in images lead to images, or nowhere. */
#include "test/test.h"

#include "block/chain.h"
#include "block/qcow2_testlib.h"

static void image(struct images *t, const char *name, const char *backing,
		  const char *format)
{
	struct qcow2_create o = {.size_bytes = 1 * MIB,
				 .backing_name = backing,
				 .backing_format = format};
	struct block_open how = {.format = "raw"};
	struct block_node *file;
	char path[200];

	snprintf(path, sizeof(path), "%s/%s", t->dir, name);
	unlink(path);
	assert_int_equal(raw_open_file(t->loop,
				       file_open(t, name, O_RDWR | O_CREAT),
				       &how, &file, NULL),
			 0);
	assert_int_equal(qcow2_create(t->loop, file, &o, NULL), 0);
	block_close(file);
}

static int try(struct images *t, const char *name, bool anywhere,
	       struct err *err)
{
	struct block_chain c;
	char path[200];
	int rc;

	snprintf(path, sizeof(path), "%s/%s", t->dir, name);
	memset(err, 0, sizeof(*err));
	rc = block_chain_open(path, "qcow2", false, anywhere, &c, err);
	if (!rc) {
		rc = (int)c.count;
		block_chain_close(&c);
	}
	return rc;
}

static void a_chain_is_opened_to_its_end(void **state)
{
	struct block_open how = {0};
	struct block_chain c;
	struct block_node *node;
	struct images t;
	char path[200];
	u8 bytes[512], want[512];

	(void)state;
	images_begin(&t);
	shell(&t, "mkdir sub");
	pattern_file(&t, "sub/base", 1 * MIB, 2);
	pattern(want, 512, 2);
	image(&t, "sub/mid", "base", "raw");
	image(&t, "top", "./sub/mid", "qcow2");
	snprintf(path, sizeof(path), "%s/top", t.dir);
	assert_int_equal(
		block_chain_open(path, "qcow2", false, false, &c, NULL), 0);
	assert_int_equal(c.count, 3);
	assert_int_equal(block_chain_node(t.loop, &c, &how, &node, NULL), 0);
	assert_int_equal(disk_do(node, BLOCK_READ, 0, bytes, 512), 0);
	assert_memory_equal(bytes, want, 512);
	block_close(node);
	block_chain_close(&c);
	images_end(&t);
}

static void cycles_and_depth_are_refused(void **state)
{
	struct images t;
	struct err err;
	char name[20], below[20];

	(void)state;
	images_begin(&t);
	image(&t, "self", "self", "qcow2");
	assert_int_equal(try(&t, "self", false, &err), -ELOOP);
	image(&t, "a", "b", "qcow2");
	image(&t, "b", "a", "qcow2");
	assert_int_equal(try(&t, "a", false, &err), -ELOOP);
	shell(&t, "ln -s link link2; ln link3 x 2>/dev/null; ln -s self link; "
		  "true");
	image(&t, "c", "link2", "qcow2");
	assert_int_equal(try(&t, "c", false, &err), -ELOOP);
	for (int i = 0; i < 1000; i++) {
		snprintf(name, sizeof(name), "n%d", i);
		snprintf(below, sizeof(below), "n%d", i + 1);
		image(&t, name, below, "qcow2");
		if (i > 40)
			break; /* further ones are never looked at */
	}
	assert_int_equal(try(&t, "n0", false, &err), -ELOOP);
	assert_non_null(strstr(err.text, "32"));
	images_end(&t);
}

static void what_is_no_image_below_is_refused(void **state)
{
	static const struct {
		const char *name, *format;
		int rc;
	} wrong[] = {
		{"fifo", "raw", -EINVAL},
		{"/dev/zero", "raw", -EINVAL},
		{"/proc/self/mem", "raw", -EINVAL},
		{".", "raw", -EISDIR},
		{"missing", "raw", -ENOENT},
		{"json:{\"driver\":\"raw\"}", "raw", -EINVAL},
		{"nbd://host/x", "raw", -EINVAL},
		{"nbd:unix:/x", "raw", -EINVAL},
		{"file:base", "raw", -EINVAL},
		{"base", "vmdk", -EINVAL},
		{"base", "qcow2", -EINVAL}, /* it is none */
	};
	struct images t;
	struct err err;

	(void)state;
	images_begin(&t);
	shell(&t, "mkfifo fifo");
	pattern_file(&t, "base", 1 * MIB, 2);
	image(&t, "a", "base", "raw");
	assert_int_equal(try(&t, "a", false, &err), 2);
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		image(&t, "a", wrong[i].name, wrong[i].format);
		if (try(&t, "a", true, &err) != wrong[i].rc)
			fail_msg("'%s': %s", wrong[i].name, err.text);
	}
	images_end(&t);
}

static void files_elsewhere_must_be_asked_for(void **state)
{
	struct images t;
	struct err err;

	(void)state;
	images_begin(&t);
	shell(&t, "mkdir sub; ln -s /etc/passwd sub/link");
	pattern_file(&t, "base", 1 * MIB, 2);
	image(&t, "sub/a", "/etc/passwd", "raw");
	assert_int_equal(try(&t, "sub/a", false, &err), -EACCES);
	assert_string_equal(err.id, "image.backing-elsewhere");
	image(&t, "sub/a", "link", "raw");
	assert_int_equal(try(&t, "sub/a", false, &err), -EACCES);
	image(&t, "sub/a", "../base", "raw");
	assert_int_equal(try(&t, "sub/a", false, &err), -EACCES);
	assert_int_equal(try(&t, "sub/a", true, &err), 2);
	images_end(&t);
}

static void a_writer_keeps_others_out_and_readers_share(void **state)
{
	struct images t;
	struct block_chain c;
	struct err err;
	char path[200];

	(void)state;
	images_begin(&t);
	pattern_file(&t, "base", 1 * MIB, 2);
	image(&t, "a", "base", "raw");
	image(&t, "b", "base", "raw");
	snprintf(path, sizeof(path), "%s/a", t.dir);
	assert_int_equal(
		block_chain_open(path, "qcow2", false, false, &c, NULL), 0);
	assert_int_equal(try(&t, "a", false, &err), -EAGAIN);
	assert_string_equal(err.id, "image.locked");
	assert_int_equal(try(&t, "b", false, &err), 2);
	block_chain_close(&c);
	snprintf(path, sizeof(path), "%s/base", t.dir);
	assert_int_equal(block_chain_open(path, "raw", false, false, &c, NULL),
			 0);
	assert_int_equal(try(&t, "b", false, &err), -EAGAIN);
	block_chain_close(&c);
	images_end(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_chain_is_opened_to_its_end),
		cmocka_unit_test(cycles_and_depth_are_refused),
		cmocka_unit_test(what_is_no_image_below_is_refused),
		cmocka_unit_test(files_elsewhere_must_be_asked_for),
		cmocka_unit_test(a_writer_keeps_others_out_and_readers_share),
	};

	return test_run("chain", tests);
}
