/* SPDX-License-Identifier: Apache-2.0 */
#include "os/fdpass.h"
#include "os/file.h"
#include "os/ram.h"
#include "os/spawn.h"
#include "os/thread.h"
#include "test/test.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void ram_is_zero_and_stays_with_a_child_as_it_was(void **state)
{
	struct err err = {0};
	int go[2], status;
	pid_t child;
	u8 *hva;

	(void)state;
	assert_int_equal(os_ram_alloc(4 * MIB, &hva, NULL), 0);
	assert_int_equal(hva[0] | hva[4 * MIB - 1], 0);
	hva[4097] = 42;
	assert_int_equal(pipe(go), 0);
	child = fork();
	if (child == 0) {
		u8 c;

		_exit(read(go[0], &c, 1) == 1 ? hva[4097] : 1);
	}
	hva[4097] = 43;
	assert_int_equal(write(go[1], "x", 1), 1);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(WEXITSTATUS(status), 42);
	close(go[0]);
	close(go[1]);
	os_ram_free(hva, 4 * MIB);
	assert_int_equal(os_ram_alloc(100, &hva, &err), -EINVAL);
	assert_int_equal(os_ram_alloc(0, &hva, &err), -EINVAL);
}

static void ram_of_a_file_is_private_and_of_its_size(void **state)
{
	char path[] = "/tmp/skerry-ram-XXXXXX";
	int fd = mkstemp(path), null = open("/dev/null", O_RDWR);
	struct err err = {0};
	u8 *hva, byte;

	(void)state;
	assert_true(fd >= 0 && null >= 0);
	unlink(path);
	assert_int_equal(ftruncate(fd, MIB), 0);
	assert_int_equal(pwrite(fd, "a", 1, 5000), 1);
	assert_int_equal(os_ram_map(fd, 2 * MIB, &hva, &err), -EINVAL);
	assert_non_null(strstr(err.text, "1048576 bytes, not 2097152"));
	assert_int_equal(os_ram_map(null, MIB, &hva, &err), -EINVAL);
	assert_int_equal(os_ram_map(fd, MIB, &hva, &err), 0);
	assert_int_equal(hva[5000], 'a');
	hva[5000] = 'b';
	assert_int_equal(pread(fd, &byte, 1, 5000), 1);
	assert_int_equal(byte, 'a');
	os_ram_free(hva, MIB);
	close(fd);
	close(null);
}

static void messages_carry_descriptors(void **state)
{
	char bytes[16];
	int sv[2], fds[2], p[2];
	size_t n;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sv), 0);
	assert_int_equal(pipe(p), 0);
	assert_int_equal(os_send_fds(sv[0], "hello", 5, p, 2), 0);
	assert_int_equal(os_recv_fds(sv[1], bytes, 16, fds, 2, &n), 5);
	assert_memory_equal(bytes, "hello", 5);
	assert_int_equal(n, 2);
	assert_true(fcntl(fds[0], F_GETFD) & FD_CLOEXEC);
	assert_int_equal(write(fds[1], "x", 1), 1);
	assert_int_equal(read(p[0], bytes, 1), 1);
	close(fds[0]);
	close(fds[1]);
	assert_int_equal(os_send_fds(sv[0], "bare", 4, NULL, 0), 0);
	assert_int_equal(os_recv_fds(sv[1], bytes, 16, fds, 2, &n), 4);
	assert_int_equal(n, 0);
	close(sv[0]);
	assert_int_equal(os_recv_fds(sv[1], bytes, 16, fds, 2, &n), 0);
	close(sv[1]);
	close(p[0]);
	close(p[1]);
}

static void surplus_descriptors_and_long_messages_are_refused(void **state)
{
	char bytes[4];
	int sv[2], fds[1], p[2], lowest;
	size_t n;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sv), 0);
	assert_int_equal(pipe(p), 0);
	lowest = dup(0);
	close(lowest);
	assert_int_equal(os_send_fds(sv[0], "abc", 3, p, 2), 0);
	assert_int_equal(os_recv_fds(sv[1], bytes, 4, fds, 1, &n), -EMSGSIZE);
	assert_int_equal(os_send_fds(sv[0], "abcde", 5, p, 1), 0);
	assert_int_equal(os_recv_fds(sv[1], bytes, 4, fds, 1, &n), -EMSGSIZE);
	/* None of them stayed open. */
	assert_int_equal(dup(0), lowest);
	close(lowest);
	close(sv[0]);
	close(sv[1]);
	close(p[0]);
	close(p[1]);
}

static void *thread_main(void *opaque)
{
	sigset_t set;

	pthread_sigmask(SIG_SETMASK, NULL, &set);
	*(bool *)opaque = sigismember(&set, SIGTERM) == 1;
	return NULL;
}

static void threads_start_with_signals_blocked(void **state)
{
	bool blocked = false;
	sigset_t set;
	pthread_t t;

	(void)state;
	assert_int_equal(os_thread_start(&t, "a-name-that-is-too-long",
					 thread_main, &blocked, NULL),
			 0);
	pthread_join(t, NULL);
	assert_true(blocked);
	pthread_sigmask(SIG_SETMASK, NULL, &set);
	assert_int_equal(sigismember(&set, SIGTERM), 0);
}

static void make_temp(char *dir)
{
	strcpy(dir, "/tmp/skerry-os-test-XXXXXX");
	assert_non_null(mkdtemp(dir));
}

static void remove_tree(const char *dir)
{
	char *argv[] = {"rm", "-rf", (char *)dir, NULL};
	struct os_spawn how = {.argv = argv};
	pid_t pid;

	assert_int_equal(os_spawn(&how, &pid, NULL, NULL), 0);
	assert_int_equal(os_wait(pid), 0);
}

static void files_are_replaced_as_a_whole(void **state)
{
	char dir[64], path[128];
	struct err err = {0};
	struct stat st;
	struct buf b;

	(void)state;
	make_temp(dir);
	snprintf(path, sizeof(path), "%s/a/b/c", dir);
	assert_int_equal(os_mkdir_p(path, 0755, NULL), 0);
	assert_int_equal(os_mkdir_p(path, 0755, NULL), 0);
	snprintf(path, sizeof(path), "%s/a/file", dir);
	assert_int_equal(os_write_file(path, "first", 5, 0600, NULL), 0);
	assert_int_equal(os_write_file(path, "second", 6, 0640, NULL), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0640);
	buf_init(&b);
	assert_int_equal(os_read_file(path, 6, &b, NULL), 0);
	assert_string_equal(buf_str(&b), "second");
	buf_reset(&b);
	assert_int_equal(os_read_file(path, 5, &b, &err), -EFBIG);
	assert_int_equal(os_read_file("/nowhere", 5, &b, &err), -ENOENT);
	assert_int_equal(os_write_file("/nowhere/x", "", 0, 0600, &err),
			 -ENOENT);
	/* A target that cannot be replaced leaves no temporary file. */
	snprintf(path, sizeof(path), "%s/a/b", dir);
	assert_int_not_equal(os_write_file(path, "x", 1, 0600, &err), 0);
	snprintf(path, sizeof(path), "%s/a/file", dir);
	assert_int_equal(unlink(path), 0);
	snprintf(path, sizeof(path), "%s/a/b/c", dir);
	assert_int_equal(rmdir(path), 0);
	snprintf(path, sizeof(path), "%s/a/b", dir);
	assert_int_equal(rmdir(path), 0);
	snprintf(path, sizeof(path), "%s/a", dir);
	assert_int_equal(rmdir(path), 0);
	buf_fini(&b);
	remove_tree(dir);
}

static void run_dir_of_others_is_refused(void **state)
{
	char dir[64], path[OS_PATH_MAX], loose[128];
	struct err err = {0};

	(void)state;
	make_temp(dir);
	snprintf(loose, sizeof(loose), "%s/skerry", dir);
	setenv("XDG_RUNTIME_DIR", dir, 1);
	setenv("XDG_DATA_HOME", dir, 1);
	if (geteuid() == 0) { /* root's own are fixed */
		setenv("SKERRY_RUN_DIR", loose, 1);
		setenv("SKERRY_DATA_DIR", loose, 1);
	}
	assert_int_equal(os_run_dir(path, NULL), 0);
	assert_int_equal(chmod(path, 0755), 0);
	assert_int_equal(os_run_dir(path, &err), -EPERM);
	assert_int_equal(os_data_dir(path, NULL), 0);
	assert_string_equal(path, loose);
	unsetenv("SKERRY_RUN_DIR");
	unsetenv("SKERRY_DATA_DIR");
	remove_tree(dir);
}

static void child_inherits_only_the_listed_descriptors(void **state)
{
	char *argv[] = {"sh", "-c",
			"read x <&0; echo $x; ls /proc/self/fd; exit 7", NULL};
	int in[2], out[2], fds[3], pidfd, stray = dup(0);
	struct os_spawn how = {.argv = argv, .fds = fds, .fd_count = 3};
	struct pollfd p;
	char text[128] = "";
	size_t len = 0;
	pid_t pid;
	ssize_t n;

	(void)state;
	assert_int_equal(pipe(in), 0);
	assert_int_equal(pipe(out), 0);
	/* Crossed on purpose: targets are also sources. */
	fds[0] = in[0];
	fds[1] = out[1];
	fds[2] = -1;
	assert_int_equal(os_spawn(&how, &pid, &pidfd, NULL), 0);
	close(out[1]);
	assert_int_equal(write(in[1], "word\n", 5), 5);
	while ((n = read(out[0], text + len, sizeof(text) - 1 - len)) > 0)
		len += (size_t)n;
	/* 3 is ls's own directory. */
	assert_string_equal(text, "word\n0\n1\n2\n3\n");
	p = (struct pollfd){.fd = pidfd, .events = POLLIN};
	assert_int_equal(poll(&p, 1, 10000), 1);
	assert_int_equal(os_wait(pid), 7);
	close(pidfd);
	close(in[0]);
	close(in[1]);
	close(out[0]);
	close(stray);
}

static void a_program_that_is_missing_is_an_error(void **state)
{
	char *argv[] = {"/nowhere/program", NULL};
	struct os_spawn how = {.argv = argv};
	struct err err = {0};
	pid_t pid;

	(void)state;
	assert_int_equal(os_spawn(&how, &pid, NULL, &err), -ENOENT);
	assert_non_null(strstr(err.text, "start '/nowhere/program'"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ram_is_zero_and_stays_with_a_child_as_it_was),
		cmocka_unit_test(ram_of_a_file_is_private_and_of_its_size),
		cmocka_unit_test(messages_carry_descriptors),
		cmocka_unit_test(
			surplus_descriptors_and_long_messages_are_refused),
		cmocka_unit_test(threads_start_with_signals_blocked),
		cmocka_unit_test(files_are_replaced_as_a_whole),
		cmocka_unit_test(run_dir_of_others_is_refused),
		cmocka_unit_test(child_inherits_only_the_listed_descriptors),
		cmocka_unit_test(a_program_that_is_missing_is_an_error),
	};

	return test_run("os", tests);
}
