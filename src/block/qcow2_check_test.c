/* SPDX-License-Identifier: Apache-2.0 */
/* check finds what qemu-img finds, and repairs counts and flags. */
#include "test/test.h"

#include "block/qcow2_testlib.h"

#define DISK_BYTES (3 * MIB)

static struct block_node *image_open(struct images *t, const char *name,
				     bool is_repair, struct err *err)
{
	struct block_open how = {.format = "qcow2",
				 .is_read_only = !is_repair,
				 .is_repair = is_repair,
				 .is_alone = true};
	struct block_node *node;
	int fd = file_open(t, name, is_repair ? O_RDWR : O_RDONLY);

	return block_open_fd(t->loop, fd, &how, &node, err) ? NULL : node;
}

static struct qcow2_check check(struct images *t, const char *name,
				bool is_repair)
{
	struct qcow2_check c = {0};
	struct err err = {0};
	struct block_node *node = image_open(t, name, is_repair, &err);

	if (!node || qcow2_check(node, is_repair, &c, &err))
		fail_msg("check: %s", err.text);
	block_close(node);
	return c;
}

static const char *const kinds[] = {
	"-o cluster_size=64k",
	"-o cluster_size=512",
	"-o compat=0.10,cluster_size=4k",
	"-o refcount_bits=1",
	"-o refcount_bits=64,cluster_size=1k",
	"-o extended_l2=on",
	"-c",
	"-c -o cluster_size=4k,compression_type=zstd",
};

static void sound_images_are_found_sound(void **state)
{
	struct images t;

	(void)state;
	need_qemu();
	images_begin(&t);
	pattern_file(&t, "raw", DISK_BYTES, 5);
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		struct qcow2_check c;
		bool snapshots = !strstr(kinds[i], "bits=1");

		shell(&t,
		      "rm -f a && qemu-img convert -f raw -O qcow2 %s raw a",
		      kinds[i]);
		if (snapshots)
			shell(&t, "qemu-img snapshot -c one a && qemu-io -f "
				  "qcow2 -c 'write 10k 300k' a && qemu-img "
				  "snapshot -c two a");
		if (!strstr(kinds[i], "0.10"))
			shell(&t, "qemu-img bitmap --add a b0 && qemu-img "
				  "bitmap --add -g 4096 a b1 && qemu-io -f "
				  "qcow2 -c 'write 1M 30k' a");
		c = check(&t, "a", false);
		if (c.corruptions || c.leaks)
			fail_msg("%s: %llu, %llu: %s", kinds[i],
				 (unsigned long long)c.corruptions,
				 (unsigned long long)c.leaks, c.first);
	}
	images_end(&t);
}

/* Counts and flags, at random. */
static void damage(u8 *b, u64 seed)
{
	u64 rt, block, l1, l2;

#define BE64(at)                                                               \
	({                                                                     \
		u64 v_ = 0;                                                    \
		for (int i_ = 0; i_ < 8; i_++)                                 \
			v_ = v_ << 8 | (at)[i_];                               \
		v_;                                                            \
	})
	rt = BE64(b + 48);
	l1 = BE64(b + 40);
	for (int i = 0; i < 6; i++) {
		seed = seed * 6364136223846793005ull + 1442695040888963407ull;
		block = BE64(b + rt);
		if (seed >> 63) {
			b[block + (seed >> 33) % 60] ^= (u8)(seed >> 20) & 3;
			continue;
		}
		l2 = BE64(b + l1) & 0x00fffffffffffe00ull;
		if (l2 && !(b[l2 + (seed >> 33) % 8 * 16] & 0x40))
			b[l2 + (seed >> 33) % 8 * 16] ^= 0x80;
	}
}

static void damage_is_found_as_qemu_finds_it_and_repaired(void **state)
{
	struct images t;
	int repaired = 0;

	(void)state;
	need_qemu();
	images_begin(&t);
	pattern_file(&t, "raw", DISK_BYTES, 6);
	for (u64 n = 0; n < 40; n++) {
		const char *kind = kinds[n % ARRAY_SIZE(kinds)];
		struct qcow2_check c;
		int qemu;
		u64 len;
		u8 *b;

		shell(&t,
		      "rm -f a && qemu-img convert -f raw -O qcow2 %s raw a",
		      kind);
		b = file_bytes(&t, "a", &len);
		damage(b, n);
		file_put(&t, "a", b, len);
		free(b);
		qemu = WEXITSTATUS(
			shell_status(&t, "qemu-img check -f qcow2 a"));
		c = check(&t, "a", false);
		assert_true(qemu == 0 || qemu == 2 || qemu == 3);
		if ((qemu == 2) != (c.corruptions > 0) ||
		    (qemu == 0) != (!c.corruptions && !c.leaks))
			fail_msg("%s %d: qemu %d, we %llu %llu %s", kind,
				 (int)n, qemu,
				 (unsigned long long)c.corruptions,
				 (unsigned long long)c.leaks, c.first);
		c = check(&t, "a", true);
		if (c.corruptions || c.leaks)
			fail_msg("%s %d: left: %s", kind, (int)n, c.first);
		repaired += c.corruptions_fixed || c.leaks_fixed;
		shell(&t, "qemu-img check -f qcow2 a");
		shell(&t, "qemu-img compare -f qcow2 -F raw a raw");
	}
	assert_true(repaired > 20);
	images_end(&t);
}

static void an_image_that_was_not_closed_is_repaired_when_opened(void **state)
{
	struct block_open how = {.format = "qcow2"};
	struct block_node *node;
	struct qcow2_check c;
	struct images t;

	(void)state;
	need_qemu();
	images_begin(&t);
	shell(&t, "qemu-img create -f qcow2 -o lazy_refcounts=on a 3M");
	shell_status(&t, "qemu-io -f qcow2 -c 'write -P 3 0 1M' -c flush "
			 "-c 'write -P 4 2M 100k' -c flush -c 'sigraise 9' a");
	c = check(&t, "a", false);
	assert_true(c.corruptions > 0);
	assert_int_equal(block_open_fd(t.loop, file_open(&t, "a", O_RDWR), &how,
				       &node, NULL),
			 0);
	assert_int_equal(qcow2_header_of(node)->incompatible, 0);
	block_close(node);
	shell(&t, "qemu-img check -f qcow2 a && qemu-io -f qcow2 -c 'read -P 3 "
		  "0 1M' -c 'read -P 4 2M 100k' a | tee o && ! grep failed o");
	images_end(&t);
}

static void entries_that_lead_nowhere_are_not_repaired(void **state)
{
	struct qcow2_check c;
	struct err err = {0};
	struct block_node *node;
	struct images t;
	u64 len, l1, l2;
	u8 *b;

	(void)state;
	need_qemu();
	images_begin(&t);
	pattern_file(&t, "raw", DISK_BYTES, 6);
	shell(&t, "qemu-img convert -f raw -O qcow2 raw a");
	b = file_bytes(&t, "a", &len);
	l1 = BE64(b + 40);
	l2 = BE64(b + l1) & 0x00fffffffffffe00ull;
	b[l2 + 8 * 20 + 2] = 1; /* cluster 20 is far behind the end */
	b[79] |= 2;		/* marked as corrupt */
	file_put(&t, "a", b, len);
	free(b);
	node = image_open(&t, "a", false, &err); /* it can be read */
	assert_non_null(node);
	block_close(node);
	c = check(&t, "a", true);
	assert_true(c.corruptions > 0);
	node = image_open(&t, "a", true, &err);
	assert_true(qcow2_header_of(node)->incompatible &
		    QCOW2_INCOMPAT_CORRUPT);
	block_close(node);
	images_end(&t);
}

static int note_snapshot(void *opaque, const struct qcow2_snapshot *s)
{
	char *text = opaque;

	strcat(text, s->id);
	strcat(text, ":");
	strcat(text, s->name);
	strcat(text, " ");
	return 0;
}

static void snapshots_are_listed(void **state)
{
	struct block_node *node;
	struct images t;
	char text[200] = "";
	struct err err = {0};

	(void)state;
	need_qemu();
	images_begin(&t);
	shell(&t,
	      "qemu-img create -f qcow2 a 1M && qemu-img snapshot -c 'first "
	      "one' a && qemu-img snapshot -c two a");
	node = image_open(&t, "a", false, &err);
	assert_int_equal(qcow2_snapshots(node, note_snapshot, text), 0);
	assert_string_equal(text, "1:first one 2:two ");
	block_close(node);
	images_end(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sound_images_are_found_sound),
		cmocka_unit_test(damage_is_found_as_qemu_finds_it_and_repaired),
		cmocka_unit_test(
			an_image_that_was_not_closed_is_repaired_when_opened),
		cmocka_unit_test(entries_that_lead_nowhere_are_not_repaired),
		cmocka_unit_test(snapshots_are_listed),
	};

	return test_run("qcow2-check", tests);
}
