/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY
 *
 * fork, then exec in the child. A close-on-exec pipe carries the child's errno
 * back: it closes without a byte when exec succeeds. Between fork and exec
 * only async-signal-safe calls are made, since the parent may have threads.
 *
 * The child first lifts every wanted descriptor above the range of targets, so
 * that no dup2 overwrites one that is still needed.
 */
#include "os/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <linux/close_range.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define LIFTED_FD (OS_SPAWN_FDS_MAX + 1)

/* Puts the descriptors in place; returns where the pipe is now, or -1. */
static int child_fds(const struct os_spawn *how, int report)
{
	int lifted[OS_SPAWN_FDS_MAX];
	int n = (int)how->fd_count;

	report = fcntl(report, F_DUPFD_CLOEXEC, LIFTED_FD);
	if (report < 0)
		return -1;
	for (int i = 0; i < n; i++) {
		int fd = how->fds[i];

		if (fd < 0)
			fd = open("/dev/null", O_RDWR | O_CLOEXEC);
		lifted[i] = fcntl(fd, F_DUPFD_CLOEXEC, LIFTED_FD);
		if (lifted[i] < 0)
			return -1;
	}
	for (int i = 0; i < n; i++)
		if (dup2(lifted[i], i) < 0)
			return -1;
	/* dup2 cleared close-on-exec on 0..n-1; the rest gets it. */
	if (close_range((unsigned)n, ~0u, CLOSE_RANGE_CLOEXEC) < 0)
		return -1;
	return report;
}

static void child_signals(void)
{
	sigset_t none;

	for (int sig = 1; sig < NSIG; sig++)
		(void)signal(sig, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

static void child(const struct os_spawn *how, pid_t parent,
		  int report) NORETURN;
static void child(const struct os_spawn *how, pid_t parent, int report)
{
	int error, at;

	at = child_fds(how, report);
	if (at >= 0) {
		report = at;
		if (how->new_session)
			setsid();
		if (how->die_with_parent) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			if (getppid() != parent)
				_exit(127);
		}
		child_signals();
		if (how->envp)
			execvpe(how->argv[0], how->argv, how->envp);
		else
			execvp(how->argv[0], how->argv);
	}
	error = errno;
	(void)!write(report, &error, sizeof(error));
	_exit(127);
}

int os_spawn(const struct os_spawn *how, pid_t *out_pid, int *out_pidfd,
	     struct err *err)
{
	pid_t parent = getpid(), pid;
	sigset_t all, old;
	int report[2], error = 0, pidfd = -1;
	ssize_t n;

	if (how->fd_count > OS_SPAWN_FDS_MAX || !how->argv[0])
		return err_sys(err, -EINVAL, "start a process");
	if (pipe2(report, O_CLOEXEC) < 0)
		return err_sys(err, -errno, "start '%s'", how->argv[0]);
	/* No handler of ours may run in the child. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	pid = fork();
	if (pid == 0)
		child(how, parent, report[1]);
	if (pid < 0)
		error = errno;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	close(report[1]);
	if (pid > 0) {
		do {
			n = read(report[0], &error, sizeof(error));
		} while (n < 0 && errno == EINTR);
		if (n != sizeof(error))
			error = 0;
		if (error)
			waitpid(pid, NULL, 0);
	}
	close(report[0]);
	if (error)
		return err_sys(err, -error, "start '%s'", how->argv[0]);
	if (out_pidfd) {
		pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
		if (pidfd < 0) {
			error = errno;
			kill(pid, SIGKILL);
			waitpid(pid, NULL, 0);
			return err_sys(err, -error, "watch '%s'", how->argv[0]);
		}
		*out_pidfd = pidfd;
	}
	*out_pid = pid;
	return 0;
}

int os_wait(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	if (WIFEXITED(status))
		return WEXITSTATUS(status);
	return 128 + WTERMSIG(status);
}
