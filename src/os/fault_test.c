// SPDX-License-Identifier: Apache-2.0
/* os/file.c when the n-th system call fails, for every n. The linker sends
 * the calls here (--wrap). */
#include "test/test.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "os/file.h"

static int countdown; /* the call that reaches 0 fails; < 0: none */
static int failure;

static bool fails(void)
{
	if (countdown < 0 || countdown-- > 0)
		return false;
	errno = failure;
	return true;
}

#define WRAP(type, name, params, args)                                         \
	type __real_##name params;                                             \
	type __wrap_##name params;                                             \
	type __wrap_##name params                                              \
	{                                                                      \
		return fails() ? -1 : __real_##name args;                      \
	}
WRAP(int, fsync, (int fd), (fd))
WRAP(int, fchmod, (int fd, mode_t mode), (fd, mode))
WRAP(int, rename, (const char *from, const char *to), (from, to))

/* Transfers are short as well: seven bytes each. */
WRAP(ssize_t, read, (int fd, void *p, size_t n), (fd, p, MIN(n, 7u)))
WRAP(ssize_t, write, (int fd, const void *p, size_t n), (fd, p, MIN(n, 7u)))

static int entries(const char *path)
{
	DIR *d = opendir(path);
	int n = 0;

	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

/* A fault is reported or overcome; the file is the old or the new whole; no
 * descriptor and no temporary file is left. */
static void with_fault(const char *dir, int error)
{
	static const char *const texts[] = {"the old content, in full",
					    "the new content, in full!"};
	char path[64];
	int fds = entries("/proc/self/fd"), rc;
	bool is_over = false;

	snprintf(path, sizeof(path), "%s/file", dir);
	for (int n = 0; !is_over; n++) {
		struct buf got = {0};
		struct err err = {0};

		assert_true(n < 50);
		countdown = -1;
		assert_int_equal(os_write_file(path, texts[0], strlen(texts[0]),
					       0600, &err),
				 0);
		countdown = n;
		failure = error;
		rc = os_write_file(path, texts[1], strlen(texts[1]), 0600,
				   &err);
		if (rc)
			assert_true(rc == -error && err.text[0]);
		is_over = countdown >= 0; /* no call was left to fail */
		countdown = -1;
		assert_int_equal(os_read_file(path, 100, &got, &err), 0);
		assert_int_equal(got.len, strlen(texts[!rc]));
		assert_memory_equal(got.bytes, texts[!rc], got.len);
		buf_fini(&got);
		assert_int_equal(entries(dir), 3);
		assert_int_equal(entries("/proc/self/fd"), fds);
	}
}

static void hostile_55_56_a_write_that_fails_leaves_the_old_file(void **state)
{
	static const int errors[] = {ENOSPC, EIO, EDQUOT};
	char dir[] = "/tmp/skerry-fault-XXXXXX", path[64];

	(void)state;
	assert_non_null(mkdtemp(dir));
	for (size_t i = 0; i < ARRAY_SIZE(errors); i++)
		with_fault(dir, errors[i]);
	snprintf(path, sizeof(path), "%s/file", dir);
	unlink(path);
	assert_int_equal(rmdir(dir), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			hostile_55_56_a_write_that_fails_leaves_the_old_file),
	};

	return test_run("os_fault", tests);
}
