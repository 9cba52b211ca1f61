/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/child.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

/* The login shell in root's line of /etc/passwd. Not getpwuid: a static
 * program has no name service. */
static const char *login_shell(char *line, size_t cap)
{
	FILE *f = fopen("/etc/passwd", "re");
	const char *shell = NULL;

	while (f && !shell && fgets(line, cap, f)) {
		char *colon = strrchr(line, ':');

		if (strncmp(line, "root:", 5) != 0 || !colon)
			continue;
		colon[1 + strcspn(colon + 1, "\n")] = 0;
		if (access(colon + 1, X_OK) == 0)
			shell = colon + 1;
	}
	if (f)
		fclose(f);
	return shell ? shell : "/bin/sh";
}

static void set_environment(const struct agent_exec *what, const char *shell)
{
	clearenv();
	setenv("PATH",
	       "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
	       1);
	setenv("HOME", access("/root", X_OK) == 0 ? "/root" : "/", 1);
	setenv("USER", "root", 1);
	setenv("LOGNAME", "root", 1);
	setenv("SHELL", shell, 1);
	setenv("LANG", "C.UTF-8", 1);
	for (unsigned i = 0; i < what->envc; i++)
		putenv((char *)what->env[i]);
}

static NORETURN void fail(const char *what, int code)
{
	dprintf(2, "skerry-agent: cannot run '%s': %s\n", what, strerror(code));
	_exit(code == ENOENT || code == ENOTDIR ? 127 : 126);
}

static NORETURN void child_main(const struct agent_exec *what, int in, int out,
				int err)
{
	char line[512], name[512];
	const char *shell = login_shell(line, sizeof(line));
	sigset_t none;

	setsid();
	if (what->is_tty)
		ioctl(out, TIOCSCTTY, 0);
	dup2(in, 0);
	dup2(out, 1);
	dup2(err, 2);
	close_range(3, ~0u, 0);
	for (int s = 1; s < NSIG; s++)
		signal(s, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	umask(022);
	set_environment(what, shell);
	if (*what->cwd && chdir(what->cwd))
		fail(what->cwd, errno);
	if (!*what->cwd && chdir(getenv("HOME")) && chdir("/"))
		fail("/", errno);
	if (what->argc) {
		execvp(what->argv[0], (char *const *)what->argv);
		fail(what->argv[0], errno);
	}
	snprintf(name, sizeof(name), "-%s",
		 strrchr(shell, '/') ? strrchr(shell, '/') + 1 : shell);
	execl(shell, name, (char *)NULL);
	fail(shell, errno);
}

static int open_terminal(int *out_master, int *out_slave)
{
	int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC), slave, zero;

	if (master < 0)
		return -errno;
	zero = 0;
	ioctl(master, TIOCSPTLCK, &zero);
	slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (slave < 0) {
		int rc = -errno;

		close(master);
		return rc;
	}
	*out_master = master;
	*out_slave = slave;
	return 0;
}

void child_set_window(const struct child *c, u16 rows, u16 columns)
{
	struct winsize w = {.ws_row = rows, .ws_col = columns};

	ioctl(c->out, TIOCSWINSZ, &w);
}

static int start_on_terminal(struct child *c, const struct agent_exec *what)
{
	int master, slave;
	int rc = open_terminal(&master, &slave);

	if (rc)
		return rc;
	*c = (struct child){.in = dup(master), .out = master, .err = -1};
	fcntl(c->in, F_SETFD, FD_CLOEXEC);
	child_set_window(c, what->rows, what->columns);
	c->pid = fork();
	if (c->pid == 0)
		child_main(what, slave, slave, slave);
	rc = c->pid < 0 ? -errno : 0;
	close(slave);
	return rc;
}

static int start_on_pipes(struct child *c, const struct agent_exec *what)
{
	int p[3][2], rc;

	for (int i = 0; i < 3; i++) {
		if (pipe2(p[i], O_CLOEXEC)) {
			rc = -errno;
			while (i-- > 0) {
				close(p[i][0]);
				close(p[i][1]);
			}
			return rc;
		}
	}
	*c = (struct child){.in = p[0][1], .out = p[1][0], .err = p[2][0]};
	c->pid = fork();
	if (c->pid == 0)
		child_main(what, p[0][0], p[1][1], p[2][1]);
	rc = c->pid < 0 ? -errno : 0;
	close(p[0][0]);
	close(p[1][1]);
	close(p[2][1]);
	return rc;
}

int child_start(struct child *c, const struct agent_exec *what)
{
	int rc = what->is_tty ? start_on_terminal(c, what)
			      : start_on_pipes(c, what);

	if (rc)
		return rc;
	fcntl(c->in, F_SETFL, O_NONBLOCK);
	fcntl(c->out, F_SETFL, O_NONBLOCK);
	if (c->err >= 0)
		fcntl(c->err, F_SETFL, O_NONBLOCK);
	return 0;
}
