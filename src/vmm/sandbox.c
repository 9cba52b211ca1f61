/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY. The second wall: who has broken the engine and runs code of their
 * own in this process still has only what a machine needs while it runs. That
 * is: the descriptors it holds, memory that is never executable, threads, time
 * and, with a user network, Internet sockets. One table holds all rules.
 *
 * What is not in the table ends the process (SIGSYS), with two exceptions,
 * which fail with an error: what honest libraries try and do without (opening
 * files: malloc looks at /proc/sys/vm, libslirp at a changed
 * /etc/resolv.conf; raw sockets), and executable mappings. The kernel logs
 * both kinds where auditing is on.
 *
 * Ways around a filter, and what closes them here:
 *   io_uring    its operations are not system calls: the rings are made
 *               before, restricted to reads, writes and syncs
 *               (block/uring_io.c); a file that is opened later is served by
 *               threads
 *   fcntl       F_SETOWN and F_SETSIG signal other processes: a list of
 *               commands
 *   ioctl       TIOCSTI types into a terminal: a list of requests
 *   clone       of a process, not a thread: it has this filter, too, and can
 *               do nothing more
 *   clone3      its flags are in memory, which a filter cannot read: it does
 *               not exist (ENOSYS), glibc then uses clone
 *   32-bit and x32 calls  another architecture's table: killed
 *
 * The KVM engine's ioctls need descriptors of VMs and vCPUs, which are made
 * before; those that make more, or that reach other memory, are not allowed:
 * KVM_CREATE_VM, KVM_CREATE_VCPU, KVM_CREATE_DEVICE. A memory slot reaches
 * only what this process has mapped.
 *
 * Not covered: newfstatat with a path tells that a file exists (libslirp asks
 * for /etc/resolv.conf's age); connections to what listens on the host's own
 * addresses, when there is a user network. PR_SET_DUMPABLE stays: without it
 * the machine's owner could not look at /proc/PID, which names who holds a
 * locked image.
 */
#include "vmm/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <sched.h>
#include <signal.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

#include "base/assert.h"

enum when { ALWAYS, NETWORK, ON_KVM };

/* One argument that must match; mask 0: any value. */
struct arg_match {
	u8 index;
	u64 mask, value;
};

struct rule {
	int nr;
	enum when when;
	struct arg_match args[2];
};

#define EXACT (~0ull)
#define ALLOW(name)                                                            \
	{                                                                      \
		SCMP_SYS(name), ALWAYS,                                        \
		{                                                              \
			{                                                      \
				0                                              \
			}                                                      \
		}                                                              \
	}
#define ALLOW_IF(name, ...)                                                    \
	{                                                                      \
		SCMP_SYS(name), ALWAYS,                                        \
		{                                                              \
			__VA_ARGS__                                            \
		}                                                              \
	}
#define NET(name)                                                              \
	{                                                                      \
		SCMP_SYS(name), NETWORK,                                       \
		{                                                              \
			{                                                      \
				0                                              \
			}                                                      \
		}                                                              \
	}
#define FCNTL(cmd) ALLOW_IF(fcntl, {1, 0xffffffff, cmd})
#define IOCTL(req) ALLOW_IF(ioctl, {1, 0xffffffff, req})
#define KVM(req)                                                               \
	{                                                                      \
		SCMP_SYS(ioctl), ON_KVM,                                       \
		{                                                              \
			{                                                      \
				1, 0xffffffff, req                             \
			}                                                      \
		}                                                              \
	}
/* Type of a socket without its flags. */
#define SOCK_TYPE_BITS (~(u64)(SOCK_CLOEXEC | SOCK_NONBLOCK))
#define SOCKET(family, type)                                                   \
	{                                                                      \
		SCMP_SYS(socket), NETWORK,                                     \
		{                                                              \
			{0, EXACT, family}, {1, SOCK_TYPE_BITS, type},         \
		}                                                              \
	}
#define THREAD_FLAGS (CLONE_VM | CLONE_THREAD | CLONE_SIGHAND)
#define NAMESPACE_FLAGS                                                        \
	(CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC |         \
	 CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET)

static const struct rule allowed[] = {
	/* The descriptors that there are. */
	ALLOW(read),
	ALLOW(readv),
	ALLOW(pread64),
	ALLOW(preadv),
	ALLOW(preadv2),
	ALLOW(write),
	ALLOW(writev),
	ALLOW(pwrite64),
	ALLOW(pwritev),
	ALLOW(pwritev2),
	ALLOW(lseek),
	ALLOW(close),
	ALLOW(dup),
	ALLOW(fstat),
	ALLOW(newfstatat), /* fstat() of glibc; see above */
	ALLOW(fsync),
	ALLOW(fdatasync),
	ALLOW(fallocate),
	ALLOW(ftruncate),
	ALLOW(io_uring_enter), /* restricted rings, made before */
	FCNTL(F_GETFL),
	FCNTL(F_SETFL),
	FCNTL(F_GETFD),
	FCNTL(F_SETFD),
	FCNTL(F_DUPFD_CLOEXEC),
	FCNTL(F_OFD_SETLK),
	FCNTL(F_OFD_GETLK),
	IOCTL(FIONREAD),
	IOCTL(FIONBIO),
	IOCTL(TCGETS),
	/* Clients of the control socket, vsock streams, consoles. */
	ALLOW(accept4),
	/* vsock's two ends. Of the kind that cannot be connected elsewhere
	 * later, unlike SOCK_DGRAM. */
	ALLOW_IF(socketpair, {0, EXACT, AF_UNIX},
		 {1, SOCK_TYPE_BITS, SOCK_STREAM}),
	ALLOW(recvmsg),
	ALLOW(recvfrom),
	ALLOW(sendmsg),
	ALLOW(sendto), /* no name: the filter cannot see; AF_UNIX sockets
			  here are connected ones */
	ALLOW(shutdown),
	ALLOW(getsockopt),
	ALLOW(getsockname),
	ALLOW(getpeername),
	/* Waiting and time. */
	ALLOW(poll),
	ALLOW(ppoll),
	ALLOW(select),
	ALLOW(pselect6),
	ALLOW(epoll_create1),
	ALLOW(epoll_ctl),
	ALLOW(epoll_wait),
	ALLOW(epoll_pwait),
	ALLOW(eventfd2),
	ALLOW(timerfd_create),
	ALLOW(timerfd_settime),
	ALLOW(timerfd_gettime),
	ALLOW(clock_gettime),
	ALLOW(clock_getres),
	ALLOW(clock_nanosleep),
	ALLOW(nanosleep),
	ALLOW(gettimeofday),
	ALLOW(time),
	ALLOW(futex),
	ALLOW(restart_syscall),
	/* Memory, never executable. */
	ALLOW_IF(mmap, {2, PROT_EXEC, 0}),
	ALLOW_IF(mprotect, {2, PROT_EXEC, 0}),
	ALLOW(munmap),
	ALLOW(mremap),
	ALLOW(madvise),
	ALLOW(brk),
	ALLOW(membarrier),
	/* Threads. */
	ALLOW_IF(clone, {0, THREAD_FLAGS | NAMESPACE_FLAGS, THREAD_FLAGS}),
	/* The child that saves memory: under this filter, too. */
	ALLOW_IF(clone, {0, EXACT, SIGCHLD}),
	ALLOW(close_range),
	ALLOW(wait4),
	ALLOW(pipe2),
	ALLOW(set_robust_list),
	ALLOW(rseq),
	ALLOW(gettid),
	ALLOW(getpid),
	ALLOW(sched_yield),
	ALLOW(sched_getaffinity),
	ALLOW_IF(prctl, {0, EXACT, PR_SET_NAME}),
	ALLOW(exit),
	ALLOW(exit_group),
	/* Signals of its own. tgkill is added with the pid. */
	ALLOW(rt_sigaction),
	ALLOW(rt_sigprocmask),
	ALLOW(rt_sigreturn),
	ALLOW(sigaltstack),
	/* Asked by libraries; they change nothing. */
	ALLOW(getrandom),
	ALLOW(getrusage),
	ALLOW(sysinfo),
	ALLOW(uname),
	ALLOW(getuid),
	ALLOW(geteuid),
	ALLOW_IF(prlimit64, {0, EXACT, 0}, {2, EXACT, 0}),
	/* libslirp. */
	SOCKET(AF_INET, SOCK_STREAM),
	SOCKET(AF_INET, SOCK_DGRAM),
	SOCKET(AF_INET6, SOCK_STREAM),
	SOCKET(AF_INET6, SOCK_DGRAM),
	NET(connect),
	NET(bind),
	NET(listen),
	NET(accept),
	NET(setsockopt),
	/* The KVM engine (src/kvm): running, ... */
	KVM(KVM_RUN),
	KVM(KVM_SIGNAL_MSI),
	KVM(KVM_SET_GSI_ROUTING),
	KVM(KVM_INTERRUPT),
	KVM(KVM_NMI),
	KVM(KVM_SET_USER_MEMORY_REGION),
	KVM(KVM_IOEVENTFD),
	KVM(KVM_IRQFD),
	KVM(KVM_GET_DIRTY_LOG),
	KVM(KVM_RESET_DIRTY_RINGS),
	KVM(KVM_GET_CLOCK),
	KVM(KVM_SET_CLOCK),
	KVM(KVM_SET_DEVICE_ATTR), /* a vCPU's TSC offset */
	/* ... and a vCPU's state: reset, registers in a report, snapshots. */
	KVM(KVM_GET_REGS),
	KVM(KVM_SET_REGS),
	KVM(KVM_GET_SREGS),
	KVM(KVM_GET_SREGS2),
	KVM(KVM_SET_SREGS2),
	KVM(KVM_GET_XSAVE),
	KVM(KVM_SET_XSAVE),
	KVM(KVM_GET_XCRS),
	KVM(KVM_SET_XCRS),
	KVM(KVM_GET_DEBUGREGS),
	KVM(KVM_SET_DEBUGREGS),
	KVM(KVM_GET_LAPIC),
	KVM(KVM_SET_LAPIC),
	KVM(KVM_GET_MSRS),
	KVM(KVM_SET_MSRS),
	KVM(KVM_GET_VCPU_EVENTS),
	KVM(KVM_SET_VCPU_EVENTS),
	KVM(KVM_GET_MP_STATE),
	KVM(KVM_SET_MP_STATE),
};

/* Fails with an error in place of ending the process. */
static const struct refusal {
	int nr;
	int error;
	bool is_exec_only; /* with PROT_EXEC in argument 2 */
} refused[] = {
	{SCMP_SYS(mmap), EPERM, true},	  {SCMP_SYS(mprotect), EPERM, true},
	{SCMP_SYS(pkey_mprotect), EPERM}, {SCMP_SYS(clone3), ENOSYS},
	{SCMP_SYS(open), EACCES},	  {SCMP_SYS(openat), EACCES},
	{SCMP_SYS(openat2), EACCES},	  {SCMP_SYS(access), EACCES},
	{SCMP_SYS(faccessat), EACCES},	  {SCMP_SYS(faccessat2), EACCES},
	{SCMP_SYS(readlink), EACCES},	  {SCMP_SYS(readlinkat), EACCES},
	{SCMP_SYS(statx), ENOSYS},	  {SCMP_SYS(io_uring_setup), EPERM},
};

static struct scmp_arg_cmp compare(const struct arg_match *m)
{
	return SCMP_CMP64(m->index, SCMP_CMP_MASKED_EQ, m->mask, m->value);
}

static int add_allowed(scmp_filter_ctx ctx, const struct rule *r)
{
	struct scmp_arg_cmp args[ARRAY_SIZE(r->args)];
	unsigned n = 0;

	while (n < ARRAY_SIZE(r->args) && r->args[n].mask) {
		args[n] = compare(&r->args[n]);
		n++;
	}
	return seccomp_rule_add_array(ctx, SCMP_ACT_ALLOW, r->nr, n, args);
}

static int add_refused(scmp_filter_ctx ctx, const struct refusal *r)
{
	struct scmp_arg_cmp exec =
		SCMP_CMP64(2, SCMP_CMP_MASKED_EQ, PROT_EXEC, PROT_EXEC);

	return seccomp_rule_add_array(ctx, SCMP_ACT_ERRNO(r->error), r->nr,
				      r->is_exec_only, &exec);
}

/* Sockets of other kinds fail; which is everything without a network. */
static int add_sockets_refused(scmp_filter_ctx ctx, bool has_network)
{
	struct scmp_arg_cmp raw =
		SCMP_CMP64(1, SCMP_CMP_MASKED_EQ, SOCK_TYPE_BITS, SOCK_RAW);

	return has_network ? seccomp_rule_add_array(ctx, SCMP_ACT_ERRNO(EPERM),
						    SCMP_SYS(socket), 1, &raw)
			   : 0;
}

static bool is_wanted(enum when when, const struct sandbox_options *how)
{
	return when == ALWAYS || (when == NETWORK && how->has_network) ||
	       (when == ON_KVM && how->has_kvm);
}

static int fill(scmp_filter_ctx ctx, const struct sandbox_options *how)
{
	struct scmp_arg_cmp self = SCMP_CMP64(0, SCMP_CMP_EQ, (u64)getpid());
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < ARRAY_SIZE(allowed); i++)
		if (is_wanted(allowed[i].when, how))
			rc = add_allowed(ctx, &allowed[i]);
	for (size_t i = 0; rc == 0 && i < ARRAY_SIZE(refused); i++)
		rc = add_refused(ctx, &refused[i]);
	if (rc == 0)
		rc = add_sockets_refused(ctx, how->has_network);
	if (rc == 0)
		rc = seccomp_rule_add_array(ctx, SCMP_ACT_ALLOW,
					    SCMP_SYS(tgkill), 1, &self);
	return rc;
}

static int set_attributes(scmp_filter_ctx ctx)
{
	int rc = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_TSYNC, 1);

	if (rc == 0)
		rc = seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH,
				      SCMP_ACT_KILL_PROCESS);
	/* Wishes: an old kernel or library may lack them. */
	(void)seccomp_attr_set(ctx, SCMP_FLTATR_CTL_LOG, 1);
	(void)seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	return rc;
}

int sandbox_install(const struct sandbox_options *how, struct err *err)
{
	scmp_filter_ctx ctx;
	int rc;

	(void)setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
	if (prctl(PR_GET_SECCOMP, 0, 0, 0, 0) < 0 && errno == EINVAL)
		return err_set(err, -ENOSYS, "this kernel has no seccomp");
	ctx = seccomp_init(SCMP_ACT_KILL_PROCESS);
	if (!ctx)
		return err_set(err, -ENOMEM, "out of memory");
	rc = set_attributes(ctx);
	if (rc == 0)
		rc = fill(ctx, how);
	if (rc == 0)
		rc = seccomp_load(ctx);
	seccomp_release(ctx);
	if (rc == -EINVAL || rc == -EOPNOTSUPP || rc == -ENOSYS)
		return err_set(err, -ENOSYS,
			       "this kernel has no seccomp filters for whole "
			       "processes");
	return rc < 0 ? err_sys(err, rc, "install the sandbox") : 0;
}
