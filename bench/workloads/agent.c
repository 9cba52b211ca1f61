/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY: the end of the wire at which workloads are started: natively and in
 * every guest the same file. A line in, a line (and what the command wrote)
 * out:
 *
 *   run LIMIT_S COMMAND	-> end STATUS USER_US SYS_US WALL_NS BYTES,
 * bytes clock			-> clock REALTIME_NS MONOTONIC_NS quit
 *
 * STATUS is an exit status, 128 + a signal, or 999 when the limit ended it.
 * The command runs under bash in /tmp, in a process group of its own; its times
 * are those of its whole process tree. The channel is stdin and stdout, or a
 * character device (a virtio-serial port).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

enum { OUTPUT_MAX = 60000, LINE_MAX_BYTES = 4096, STATUS_LIMIT = 999 };

struct channel {
	int in, out;
	char line[LINE_MAX_BYTES];
	size_t have; /* bytes in line, its end among them or not */
};

static long long now_ns(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return t.tv_sec * 1000000000ll + t.tv_nsec;
}

static void send_bytes(struct channel *c, const char *p, size_t n)
{
	while (n) {
		ssize_t done = write(c->out, p, n);

		if (done < 0 && errno != EINTR && errno != EAGAIN)
			exit(1);
		if (done > 0) {
			p += done;
			n -= done;
		}
	}
}

static void reply(struct channel *c, const char *format, ...)
{
	char line[200];
	va_list ap;
	int n;

	va_start(ap, format);
	n = vsnprintf(line, sizeof(line), format, ap);
	va_end(ap);
	send_bytes(c, line, n);
}

/* The next line without its end; 0 when the other side is gone. A line that
 * is too long ends us: nothing sane sends one. */
static int read_line(struct channel *c, char *out)
{
	for (;;) {
		char *end = memchr(c->line, '\n', c->have);
		ssize_t n;

		if (end) {
			size_t length = end - c->line;

			memcpy(out, c->line, length);
			out[length] = 0;
			c->have -= length + 1;
			memmove(c->line, end + 1, c->have);
			return 1;
		}
		if (c->have == sizeof(c->line))
			return 0;
		n = read(c->in, c->line + c->have, sizeof(c->line) - c->have);
		if (n == 0 || (n < 0 && errno != EINTR))
			return 0;
		if (n > 0)
			c->have += n;
	}
}

static void child(const char *command, int output)
{
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	setpgid(0, 0);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	dup2(open("/dev/null", O_RDONLY | O_CLOEXEC), 0);
	dup2(output, 1);
	dup2(output, 2);
	if (chdir("/tmp") == 0)
		execl("/bin/bash", "bash", "-o", "pipefail", "-c", command,
		      (char *)NULL);
	_exit(127);
}

static void run(struct channel *c, long limit_s, const char *command)
{
	static char output[OUTPUT_MAX];
	int fd = memfd_create("output", MFD_CLOEXEC), status, is_late = 0;
	struct timespec left = {.tv_sec = limit_s};
	long long start = now_ns(CLOCK_MONOTONIC), wall;
	struct rusage use;
	sigset_t set;
	ssize_t n;
	pid_t pid;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	pid = fork();
	if (pid == 0)
		child(command, fd);
	while (pid > 0 && wait4(pid, &status, WNOHANG, &use) != pid) {
		long long spent = now_ns(CLOCK_MONOTONIC) - start;

		left.tv_sec = limit_s - spent / 1000000000ll;
		if (left.tv_sec <= 0) {
			is_late = 1;
			kill(-pid, SIGKILL);
			left.tv_sec = 1;
		}
		sigtimedwait(&set, NULL, &left);
	}
	wall = now_ns(CLOCK_MONOTONIC) - start;
	if (pid < 0 || fd < 0) {
		reply(c, "end 126 0 0 0 0\n");
		return;
	}
	kill(-pid, SIGKILL); /* what it left behind */
	n = pread(fd, output, sizeof(output), 0);
	close(fd);
	status = is_late	     ? STATUS_LIMIT
		 : WIFEXITED(status) ? WEXITSTATUS(status)
				     : 128 + WTERMSIG(status);
	reply(c, "end %d %lld %lld %lld %zd\n", status,
	      use.ru_utime.tv_sec * 1000000ll + use.ru_utime.tv_usec,
	      use.ru_stime.tv_sec * 1000000ll + use.ru_stime.tv_usec, wall,
	      n < 0 ? 0 : n);
	send_bytes(c, output, n < 0 ? 0 : n);
}

int main(int argc, char **argv)
{
	struct channel c = {.in = 0, .out = 1};
	char line[LINE_MAX_BYTES];
	int fd;

	if (argc > 1) {
		fd = open(argv[1], O_RDWR | O_NOCTTY | O_CLOEXEC);
		if (fd < 0) {
			perror(argv[1]);
			return 1;
		}
		c.in = c.out = fd;
	}
	setenv("PATH", "/bench/bin:/usr/bin:/bin:/usr/sbin:/sbin", 1);
	setenv("LC_ALL", "C", 1);
	setenv("HOME", "/tmp", 1);
	reply(&c, "ready\n");
	while (read_line(&c, line)) {
		char *end;

		if (strncmp(line, "run ", 4) == 0) {
			long limit_s = strtol(line + 4, &end, 10);

			run(&c, limit_s, end + (*end == ' '));
		} else if (strcmp(line, "clock") == 0) {
			reply(&c, "clock %lld %lld\n", now_ns(CLOCK_REALTIME),
			      now_ns(CLOCK_MONOTONIC));
		} else if (strcmp(line, "quit") == 0) {
			break;
		} else {
			reply(&c, "unknown\n");
		}
	}
	return 0;
}
