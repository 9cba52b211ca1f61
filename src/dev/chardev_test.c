/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "dev/chardev.h"
#include "test/test.h"

static void count_call(void *opaque)
{
	++*(int *)opaque;
}

static void full_port_pushes_back_and_calls_when_writable(void **state)
{
	struct loop *loop = loop_new(NULL);
	struct chardev *c = chardev_new(loop);
	static u8 bytes[8192], drain[65536];
	size_t taken = 0, got = 0, n;
	int fds[2], calls = 0;
	ssize_t rc;

	(void)state;
	assert_int_equal(pipe(fds), 0);
	chardev_set_front(c, &(struct chardev_front){.writable = count_call,
						     .opaque = &calls});
	assert_true(chardev_add_port(
			    c, &(struct chardev_port){.in_fd = -1,
						      .out_fd = fds[1],
						      .owns_fds = true}) >= 0);
	do {
		n = chardev_write(c, bytes, sizeof(bytes));
		taken += n;
		assert_true(taken < 4u << 20);
	} while (n == sizeof(bytes));
	assert_int_equal(chardev_write(c, bytes, 1), 0);
	assert_int_equal(calls, 0);
	while (got < taken) {
		rc = read(fds[0], drain, sizeof(drain));
		assert_true(rc > 0);
		got += rc;
		loop_run_once(loop, 0);
	}
	assert_int_equal(calls, 1);
	chardev_free(c);
	close(fds[0]);
	loop_free(loop);
}

static void lossy_port_never_holds_back_the_front(void **state)
{
	struct loop *loop = loop_new(NULL);
	struct chardev *c = chardev_new(loop);
	static u8 bytes[8192];
	int fds[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	assert_true(chardev_add_port(
			    c, &(struct chardev_port){.in_fd = fds[1],
						      .out_fd = fds[1],
						      .owns_fds = true,
						      .is_lossy = true}) >= 0);
	for (int i = 0; i < 500; i++)
		assert_int_equal(chardev_write(c, bytes, sizeof(bytes)),
				 sizeof(bytes));
	chardev_free(c);
	close(fds[0]);
	loop_free(loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(full_port_pushes_back_and_calls_when_writable),
		cmocka_unit_test(lossy_port_never_holds_back_the_front),
	};

	return test_run("chardev", tests);
}
