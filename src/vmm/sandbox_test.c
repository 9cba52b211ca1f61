// SPDX-License-Identifier: Apache-2.0
/* What is left to code that runs in the vmm's process after sandbox_install():
 * each call is made in a process of its own that has installed the filter. */
#include "test/test.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmm/sandbox.h"

#define KILLED	     (-1)
#define WORKS	     0
#define CHILD_KILLED 254
#define PAGE	     4096

static const struct sandbox_options network = {.has_network = true};
static const struct sandbox_options lonely = {.has_network = false};

static const struct sandbox_options with_kvm = {.has_kvm = true};

static int result(long rc)
{
	return rc < 0 ? errno : WORKS;
}

/* The call's errno, WORKS or KILLED (by SIGSYS). */
static int inside(int (*call)(void), const struct sandbox_options *how)
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (pid == 0) {
		struct err err = {0};

		if (sandbox_install(how, &err) < 0)
			_exit(255);
		_exit(call());
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFSIGNALED(status)) {
		assert_int_equal(WTERMSIG(status), SIGSYS);
		return KILLED;
	}
	assert_true(WIFEXITED(status));
	assert_int_not_equal(WEXITSTATUS(status), 255);
	return WEXITSTATUS(status);
}

/* ---- calls ---- */

static int do_execve(void)
{
	char *argv[] = {"true", NULL};

	return result(execve("/bin/true", argv, NULL));
}

static int do_execveat(void)
{
	return result(syscall(SYS_execveat, 0, "", NULL, NULL, AT_EMPTY_PATH));
}

static int do_open(void)
{
	return result(open("/etc/passwd", O_RDONLY));
}

static int do_old_open(void)
{
	return result(syscall(SYS_open, "/etc/passwd", O_RDONLY));
}

static int do_create(void)
{
	return result(open("/tmp/sandbox-test", O_RDWR | O_CREAT, 0600));
}

static int do_unlink(void)
{
	return result(unlink("/tmp/sandbox-test"));
}

static int do_open_tree(void)
{
	return result(syscall(SYS_open_tree, AT_FDCWD, "/", 0));
}

static int do_handle(void)
{
	return result(syscall(SYS_open_by_handle_at, AT_FDCWD, NULL, 0));
}

static int do_unix(void)
{
	return result(socket(AF_UNIX, SOCK_STREAM, 0));
}

static int do_socketpair(void)
{
	int pair[2];

	return result(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair));
}

/* Only with itself: it cannot be led to a socket in the file system. */
static int do_stream_pair(void)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX, .sun_path = "/x"};
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return errno;
	close(pair[1]);
	if (sendto(pair[0], "x", 1, MSG_NOSIGNAL, (struct sockaddr *)&to,
		   sizeof(to)) >= 0)
		return EIO;
	return WORKS;
}

static struct sockaddr_un listener; /* of the test, by an abstract name */

static int do_connect_pair(void)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return 254;
	close(pair[1]);
	return result(connect(pair[0], (struct sockaddr *)&listener,
			      sizeof(listener)));
}

static int do_vsock(void)
{
	return result(socket(AF_VSOCK, SOCK_STREAM, 0));
}

static int do_netlink(void)
{
	return result(socket(AF_NETLINK, SOCK_RAW, 0));
}

static int do_raw(void)
{
	return result(socket(AF_INET, SOCK_RAW, 1));
}

static int do_packet(void)
{
	return result(socket(AF_PACKET, SOCK_DGRAM, 0));
}

static int do_tcp(void)
{
	return result(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
}

static int do_ptrace(void)
{
	return result(syscall(SYS_ptrace, 16, getppid(), 0, 0));
}

static int do_mmap_exec(void)
{
	return result((long)mmap(NULL, PAGE, PROT_READ | PROT_EXEC,
				 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == -1
			      ? -1
			      : 0);
}

static int do_mmap(void)
{
	u8 *p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return errno;
	p[0] = 1;
	return result(mprotect(p, PAGE, PROT_READ));
}

static int do_mprotect_exec(void)
{
	u8 *p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return result(mprotect(p, PAGE, PROT_READ | PROT_EXEC));
}

static int do_pkey_mprotect_exec(void)
{
	u8 *p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return result(
		syscall(SYS_pkey_mprotect, p, PAGE, PROT_READ | PROT_EXEC, -1));
}

static int exec_fd; /* a memfd made before */

static int do_map_memfd_exec(void)
{
	return mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_SHARED, exec_fd,
		    0) == MAP_FAILED
		       ? errno
		       : WORKS;
}

static int do_shmat_exec(void)
{
	return result((long)syscall(SYS_shmat, 0, NULL, 0100000));
}

static int do_personality(void)
{
	return result(syscall(SYS_personality, 0x0400000));
}

static int do_memfd(void)
{
	return result(memfd_create("x", 0));
}

static int do_write_other(void)
{
	char byte = 0;
	struct iovec iov = {&byte, 1};

	return result(process_vm_writev(getpid(), &iov, 1, &iov, 1, 0));
}

static int do_io_uring_setup(void)
{
	u8 params[120] = {0};

	return result(syscall(SYS_io_uring_setup, 4, params));
}

static int do_userfaultfd(void)
{
	return result(syscall(SYS_userfaultfd, 0));
}

static int do_kill(void)
{
	return result(kill(1, 0));
}

static int do_tgkill_other(void)
{
	return result(syscall(SYS_tgkill, 1, 1, 0));
}

static int do_tgkill_self(void)
{
	return result(syscall(SYS_tgkill, getpid(), getpid(), 0));
}

static int do_set_owner(void)
{
	return result(fcntl(0, F_SETOWN, 1));
}

static int do_type_into_terminal(void)
{
	return result(ioctl(0, TIOCSTI, "x"));
}

static int do_fork(void)
{
	return result(syscall(SYS_fork));
}

/* May be, for the saver of snapshots: but it is in the same sandbox. */
static int do_exec_in_process(void)
{
	long pid = syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, 0);
	int status = 0;

	if (pid == 0)
		_exit(do_execve());
	if (pid < 0 || wait4((pid_t)pid, &status, 0, NULL) != pid)
		return errno;
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS ? CHILD_KILLED
								 : WORKS;
}

static int do_clone_namespace(void)
{
	return result(syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, NULL, NULL,
			      NULL, 0));
}

static int do_clone3(void)
{
	return result(syscall(SYS_clone3, NULL, 0));
}

static int do_unshare(void)
{
	return result(unshare(CLONE_NEWUSER));
}

static int do_prctl(void)
{
	return result(prctl(PR_SET_DUMPABLE, 1));
}

static int do_bpf(void)
{
	return result(syscall(SYS_bpf, 0, NULL, 0));
}

static int do_x32(void)
{
	return result(syscall(0x40000000 | SYS_getpid));
}

static int do_int80(void)
{
	long rc = 20; /* getpid of 32-bit programs */

	__asm__ volatile("int $0x80"
			 : "+a"(rc)::"memory", "r8", "r9", "r10", "r11");
	return rc < 0 ? (int)-rc : WORKS;
}

static void *thread_main(void *opaque)
{
	*(int *)opaque = result(socket(AF_UNIX, SOCK_STREAM, 0));
	return NULL;
}

static void *thread_quiet(void *opaque)
{
	*(int *)opaque = 7;
	return NULL;
}

static int do_thread(void)
{
	pthread_t t;
	int seen = 0, rc = pthread_create(&t, NULL, thread_quiet, &seen);

	if (rc == 0)
		pthread_join(t, NULL);
	return rc ? rc : seen == 7 ? WORKS : EIO;
}

static int do_thread_unix(void)
{
	pthread_t t;
	int seen = 0, rc = pthread_create(&t, NULL, thread_main, &seen);

	if (rc == 0)
		pthread_join(t, NULL);
	return rc ? rc : seen;
}

static const struct {
	const char *name;
	int (*call)(void);
	int want;
} rows[] = {
	{"execve", do_execve, KILLED},
	{"execveat", do_execveat, KILLED},
	{"open", do_open, EACCES},
	{"open, the old call", do_old_open, EACCES},
	{"open to create", do_create, EACCES},
	{"unlink", do_unlink, KILLED},
	{"open_tree", do_open_tree, KILLED},
	{"open_by_handle_at", do_handle, KILLED},
	{"AF_UNIX socket", do_unix, KILLED},
	{"AF_UNIX socket by a thread", do_thread_unix, KILLED},
	{"socketpair of datagrams", do_socketpair, KILLED},
	{"AF_VSOCK socket", do_vsock, KILLED},
	{"AF_PACKET socket", do_packet, KILLED},
	{"ptrace", do_ptrace, KILLED},
	{"mmap with PROT_EXEC", do_mmap_exec, EPERM},
	{"mmap of a memfd with PROT_EXEC", do_map_memfd_exec, EPERM},
	{"mprotect with PROT_EXEC", do_mprotect_exec, EPERM},
	{"pkey_mprotect", do_pkey_mprotect_exec, EPERM},
	{"shmat with SHM_EXEC", do_shmat_exec, KILLED},
	{"personality READ_IMPLIES_EXEC", do_personality, KILLED},
	{"memfd_create", do_memfd, KILLED},
	{"process_vm_writev", do_write_other, KILLED},
	{"io_uring_setup", do_io_uring_setup, EPERM},
	{"userfaultfd", do_userfaultfd, KILLED},
	{"kill", do_kill, KILLED},
	{"tgkill of another", do_tgkill_other, KILLED},
	{"F_SETOWN", do_set_owner, KILLED},
	{"TIOCSTI", do_type_into_terminal, KILLED},
	{"fork", do_fork, KILLED},
	{"execve in another process", do_exec_in_process, CHILD_KILLED},
	{"clone of a namespace", do_clone_namespace, KILLED},
	{"clone3", do_clone3, ENOSYS},
	{"unshare", do_unshare, KILLED},
	{"PR_SET_DUMPABLE", do_prctl, KILLED},
	{"bpf", do_bpf, KILLED},
	{"x32 call", do_x32, KILLED},
	{"int 0x80", do_int80, KILLED},
	{"socketpair of streams", do_stream_pair, WORKS},
	{"mmap without PROT_EXEC", do_mmap, WORKS},
	{"a new thread", do_thread, WORKS},
	{"tgkill of itself", do_tgkill_self, WORKS},
};

static void expect(const char *name, int got, int want)
{
	if (got != want)
		fail_msg("%s: %d (%s), wanted %d", name, got,
			 got == KILLED ? "killed" : strerror(got), want);
}

static void hostile_51_the_sandbox_leaves_no_way_out(void **state)
{
	(void)state;
	exec_fd = memfd_create("code", 0);
	assert_true(exec_fd >= 0);
	assert_int_equal(ftruncate(exec_fd, PAGE), 0);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		expect(rows[i].name, inside(rows[i].call, &network),
		       rows[i].want);
		expect(rows[i].name, inside(rows[i].call, &lonely),
		       rows[i].want);
	}
	close(exec_fd);
}

static void internet_sockets_are_for_machines_with_a_network(void **state)
{
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	(void)state;
	listener.sun_family = AF_UNIX;
	snprintf(listener.sun_path + 1, sizeof(listener.sun_path) - 1,
		 "skerry-sandbox-%d", getpid());
	assert_int_equal(
		bind(fd, (struct sockaddr *)&listener, sizeof(listener)), 0);
	assert_int_equal(listen(fd, 1), 0);
	expect("TCP", inside(do_tcp, &network), WORKS);
	expect("raw", inside(do_raw, &network), EPERM);
	expect("netlink", inside(do_netlink, &network), EPERM);
	expect("AF_UNIX", inside(do_connect_pair, &network), EISCONN);
	expect("TCP", inside(do_tcp, &lonely), KILLED);
	expect("raw", inside(do_raw, &lonely), KILLED);
	close(fd);
}

/* ---- KVM's ioctls, on a descriptor that is none of KVM's ---- */

static unsigned long kvm_request;

static int do_kvm_ioctl(void)
{
	return result(ioctl(exec_fd, kvm_request, NULL));
}

static void kvm_ioctls_are_for_machines_on_kvm(void **state)
{
	static const struct {
		const char *name;
		unsigned long request;
		int want;
	} calls[] = {
		{"KVM_RUN", KVM_RUN, ENOTTY},
		{"KVM_SET_REGS", KVM_SET_REGS, ENOTTY},
		{"KVM_SIGNAL_MSI", KVM_SIGNAL_MSI, ENOTTY},
		{"KVM_CREATE_VM", KVM_CREATE_VM, KILLED},
		{"KVM_CREATE_VCPU", KVM_CREATE_VCPU, KILLED},
		{"KVM_CREATE_DEVICE", KVM_CREATE_DEVICE, KILLED},
		{"KVM_SET_CPUID2", KVM_SET_CPUID2, KILLED},
		{"KVM_ENABLE_CAP", KVM_ENABLE_CAP, KILLED},
	};

	(void)state;
	exec_fd = memfd_create("no KVM", 0);
	assert_true(exec_fd >= 0);
	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
		kvm_request = calls[i].request;
		expect(calls[i].name, inside(do_kvm_ioctl, &with_kvm),
		       calls[i].want);
		expect(calls[i].name, inside(do_kvm_ioctl, &lonely), KILLED);
		expect(calls[i].name, inside(do_kvm_ioctl, &network), KILLED);
	}
	close(exec_fd);
}

/* ---- threads that were there before ---- */

static int ready[2];

static void *older_thread(void *opaque)
{
	char byte;

	(void)opaque;
	if (read(ready[0], &byte, 1) == 1)
		(void)execl("/bin/true", "true", NULL);
	_exit(9);
}

static void the_filter_holds_for_threads_started_before(void **state)
{
	int status;
	pid_t pid;

	(void)state;
	assert_int_equal(pipe(ready), 0);
	pid = fork();
	if (pid == 0) {
		pthread_t t;

		if (pthread_create(&t, NULL, older_thread, NULL) != 0 ||
		    sandbox_install(&lonely, NULL) < 0 ||
		    write(ready[1], "x", 1) != 1)
			_exit(8);
		pthread_join(t, NULL);
		_exit(7);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS);
	assert_false(WCOREDUMP(status));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hostile_51_the_sandbox_leaves_no_way_out),
		cmocka_unit_test(
			internet_sockets_are_for_machines_with_a_network),
		cmocka_unit_test(kvm_ioctls_are_for_machines_on_kvm),
		cmocka_unit_test(the_filter_holds_for_threads_started_before),
	};

	return test_run("sandbox", tests);
}
