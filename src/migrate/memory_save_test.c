/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "migrate/memory_save.h"
#include "migrate/snapshot_file.h"
#include "os/ram.h"
#include "test/test.h"

#define BYTES (64 * MIB + 12 * KIB)

struct fixture {
	struct loop *loop;
	u8 *ram;
	int fd;
	u64 progress;
	bool is_done;
	int rc;
};

static int open_file(void)
{
	char path[] = "/tmp/skerry-mem-XXXXXX";
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	unlink(path);
	return fd;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	f->loop = loop_new(NULL);
	assert_non_null(f->loop);
	assert_int_equal(os_ram_alloc(BYTES, &f->ram, NULL), 0);
	f->fd = open_file();
	for (u64 i = 0; i < 64; i++)
		memset(f->ram + i * MIB + 3 * i * PAGE_BYTES, (int)i,
		       PAGE_BYTES);
	f->ram[BYTES - 1] = 1;
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	os_ram_free(f->ram, BYTES);
	loop_free(f->loop);
	close(f->fd);
	free(f);
	return 0;
}

static void on_progress(void *opaque, u64 done, u64 total)
{
	struct fixture *f = opaque;

	assert_true(done >= f->progress && done <= total);
	f->progress = done;
}

static void on_done(void *opaque, int rc)
{
	struct fixture *f = opaque;

	assert_false(f->is_done);
	f->is_done = true;
	f->rc = rc;
}

static struct memory_save *start(struct fixture *f)
{
	struct memory_save_config cfg = {
		.loop = f->loop,
		.ram = f->ram,
		.bytes = BYTES,
		.fd = f->fd,
		.progress = on_progress,
		.done = on_done,
		.opaque = f,
	};
	struct memory_save *s;

	assert_int_equal(memory_save_start(&cfg, &s, NULL), 0);
	return s;
}

static void wait_done(struct fixture *f)
{
	u64 end = clock_mono_ns() + 30 * NS_PER_SEC;

	while (!f->is_done && clock_mono_ns() < end)
		loop_run_once(f->loop, 1000);
	assert_true(f->is_done);
}

static void the_file_has_ram_as_it_was(void **state)
{
	struct fixture *f = *state;
	u8 *before = malloc(BYTES), *back;
	struct snapshot_file file = {.memory_bytes = BYTES};
	struct memory_save *s;
	struct stat st;

	memcpy(before, f->ram, BYTES);
	s = start(f);
	memset(f->ram, 0xee, BYTES); /* the guest goes on */
	wait_done(f);
	assert_int_equal(f->rc, 0);
	assert_int_equal(f->progress, BYTES);
	assert_int_equal(os_ram_map(f->fd, BYTES, &back, NULL), 0);
	assert_memory_equal(back, before, BYTES);
	os_ram_free(back, BYTES);
	/* 63 pages with something in them, and the last one */
	assert_int_equal(memory_save_written(s), 64 * PAGE_BYTES);
	assert_int_equal(fstat(f->fd, &st), 0);
	assert_true(st.st_blocks * 512 < 2 * (i64)MIB);
	file.sums = (const u8 *)memory_save_sums(s, &file.sum_count);
	assert_int_equal(snapshot_memory_check(&file, f->fd, NULL), 0);
	assert_int_equal(pwrite(f->fd, "x", 1, 40 * MIB + 7), 1);
	assert_int_equal(snapshot_memory_check(&file, f->fd, NULL), -EINVAL);
	memory_save_free(s);
	free(before);
}

static void a_full_disk_is_reported(void **state)
{
	struct fixture *f = *state;
	struct memory_save *s;

	close(f->fd);
	f->fd = open("/dev/full", O_WRONLY);
	assert_true(f->fd >= 0);
	s = start(f);
	wait_done(f);
	assert_true(f->rc < 0);
	memory_save_free(s);
}

static void one_that_is_given_up_ends(void **state)
{
	struct fixture *f = *state;
	u64 before = clock_mono_ns();

	memory_save_free(start(f));
	assert_true(clock_mono_ns() - before < 20 * NS_PER_SEC);
	loop_run_once(f->loop, 0);
	assert_false(f->is_done);
}

static void it_keeps_no_descriptor_of_ours(void **state)
{
	struct fixture *f = *state;
	struct memory_save *s;
	int fds[2];
	char c;

	/* The end of the stream comes although the child lives on. */
	assert_int_equal(pipe(fds), 0);
	s = start(f);
	close(fds[1]);
	assert_int_equal(read(fds[0], &c, 1), 0);
	close(fds[0]);
	wait_done(f);
	assert_int_equal(f->rc, 0);
	memory_save_free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(the_file_has_ram_as_it_was,
						setup, teardown),
		cmocka_unit_test_setup_teardown(a_full_disk_is_reported, setup,
						teardown),
		cmocka_unit_test_setup_teardown(one_that_is_given_up_ends,
						setup, teardown),
		cmocka_unit_test_setup_teardown(it_keeps_no_descriptor_of_ours,
						setup, teardown),
	};

	return test_run("memory_save", tests);
}
