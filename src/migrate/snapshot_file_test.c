/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "migrate/memory_save.h"
#include "migrate/snapshot_file.h"
#include "test/test.h"

#define MEMORY_BYTES (3 * MIB)

static const u8 sums[8] = {1, 2, 3, 4, 5, 6, 7, 8};

static struct buf make(void)
{
	struct snapshot_file f = {
		.config = "{\"cpus\": 1}",
		.config_bytes = 11,
		.state = (const u8 *)"state",
		.state_bytes = 5,
		.memory_bytes = MEMORY_BYTES,
		.written_bytes = 4096,
		.sums = sums,
		.sum_count = 2,
	};
	struct buf b;

	buf_init(&b);
	snapshot_file_write(&f, &b);
	return b;
}

static void what_is_written_is_read(void **state)
{
	struct buf b = make();
	struct snapshot_file f;
	struct err err = {0};

	(void)state;
	assert_int_equal(snapshot_file_read(b.bytes, b.len, &f, &err), 0);
	assert_int_equal(f.config_bytes, 11);
	assert_memory_equal(f.config, "{\"cpus\": 1}", 11);
	assert_int_equal(f.state_bytes, 5);
	assert_memory_equal(f.state, "state", 5);
	assert_int_equal(f.memory_bytes, MEMORY_BYTES);
	assert_int_equal(f.written_bytes, 4096);
	assert_int_equal(f.sum_count, 2);
	assert_memory_equal(f.sums, sums, sizeof(sums));
	buf_fini(&b);
}

static void every_shorter_file_is_refused(void **state)
{
	struct buf b = make();
	struct snapshot_file f;

	(void)state;
	for (size_t n = 0; n < b.len; n++) {
		struct err err = {0};
		u8 *copy = malloc(n + 1); /* its own, for ASan */

		memcpy(copy, b.bytes, n);
		assert_int_equal(snapshot_file_read(copy, n, &f, &err),
				 -EINVAL);
		assert_string_equal(err.id, "snapshot.damaged");
		free(copy);
	}
	buf_append_u8(&b, 0);
	assert_int_equal(snapshot_file_read(b.bytes, b.len, &f, NULL), -EINVAL);
	buf_fini(&b);
}

/* But for padding, which means nothing. */
static void every_changed_bit_is_found(void **state)
{
	struct buf b = make();
	struct snapshot_file f;
	unsigned padding = 0;

	(void)state;
	for (size_t i = 0; i < b.len * 8; i++) {
		int rc;

		b.bytes[i / 8] ^= (u8)(1 << i % 8);
		rc = snapshot_file_read(b.bytes, b.len, &f, NULL);
		if (rc == 0)
			padding++;
		else
			assert_true(rc == -EINVAL || rc == -ENOTSUP);
		b.bytes[i / 8] ^= (u8)(1 << i % 8);
	}
	assert_int_equal(padding, (5 + 3) * 8);
	buf_fini(&b);
}

static void a_later_format_is_named(void **state)
{
	struct buf b = make();
	struct snapshot_file f;
	struct err err = {0};

	(void)state;
	st_le32(b.bytes + 8, 7);
	assert_int_equal(snapshot_file_read(b.bytes, b.len, &f, &err),
			 -ENOTSUP);
	assert_string_equal(err.id, "snapshot.newer");
	assert_non_null(strstr(err.text, "format 7; this release knows 1"));
	buf_fini(&b);
}

static void a_file_that_is_none_is_refused(void **state)
{
	char path[] = "/tmp/skerry-snap-XXXXXX";
	int fd = mkstemp(path), fds[2];
	struct snapshot_file f;
	struct err err = {0};
	u8 *bytes;

	(void)state;
	assert_true(fd >= 0);
	unlink(path);
	assert_int_equal(snapshot_file_load(fd, &bytes, &f, &err), -EINVAL);
	assert_int_equal(ftruncate(fd, 1ll << 40), 0);
	assert_int_equal(snapshot_file_load(fd, &bytes, &f, &err), -EINVAL);
	close(fd);
	assert_int_equal(pipe(fds), 0);
	assert_int_equal(snapshot_file_load(fds[0], &bytes, &f, &err), -EINVAL);
	close(fds[0]);
	close(fds[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_written_is_read),
		cmocka_unit_test(every_shorter_file_is_refused),
		cmocka_unit_test(every_changed_bit_is_found),
		cmocka_unit_test(a_later_format_is_named),
		cmocka_unit_test(a_file_that_is_none_is_refused),
	};

	return test_run("snapshot_file", tests);
}
