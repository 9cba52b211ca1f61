/* SPDX-License-Identifier: Apache-2.0 */
/* The client's side of api/agent_proto.h: one poll loop between the terminal
 * and the agent, each direction with a bounded buffer. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "api/agent_proto.h"
#include "base/clock.h"
#include "cli/wait.h"

#define CONNECT_WAIT_MS 60000
#define QUEUE_MAX	(128 * 1024)

struct client {
	int fd;
	struct buf in, out;
	bool has_stdin, is_tty;
	bool has_heard; /* the agent has said something */
	int unanswered; /* signals before that */
	struct err *err;
};

static int agent_connect(struct machine *m, int *out_fd, struct err *err)
{
	int pair[2], rc;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		return err_sys(err, -errno, "open agent socket");
	rc = control_call(m->control_fd, CONTROL_VSOCK_CONNECT,
			  json_pack("{s:i}", "port", AGENT_PORT), &pair[1], 1,
			  CONNECT_WAIT_MS, NULL, NULL, NULL, err);
	close(pair[1]);
	if (rc) {
		close(pair[0]);
		return err_wrap(err, "reach the agent of '%s'", m->name);
	}
	*out_fd = pair[0];
	return 0;
}

static void send_window(struct client *c)
{
	struct winsize w = {0};
	u8 size[4];

	if (!c->is_tty || ioctl(0, TIOCGWINSZ, &w))
		return;
	st_le16(size, w.ws_row);
	st_le16(size + 2, w.ws_col);
	agent_frame_append(&c->out, AGENT_WINSIZE, size, 4);
}

static void read_stdin(struct client *c)
{
	u8 bytes[16384];
	ssize_t n = read(0, bytes, sizeof(bytes));

	if (n > 0) {
		agent_frame_append(&c->out, AGENT_STDIN, bytes, n);
	} else if (n == 0 || errno != EINTR) {
		agent_frame_append(&c->out, AGENT_STDIN_EOF, NULL, 0);
		c->has_stdin = false;
	}
}

/* Exit status when the session is over, -EAGAIN while it goes on. */
static int take_frame(struct client *c, const struct agent_frame *f)
{
	struct agent_exit how;
	int rc = 0;

	switch (f->type) {
	case AGENT_STDOUT:
		rc = os_write_full(1, f->payload, f->len);
		break;
	case AGENT_STDERR:
		rc = os_write_full(2, f->payload, f->len);
		break;
	case AGENT_EXIT:
		if (agent_exit_parse(f, &how))
			return err_set(c->err, -EPROTO,
				       "bad answer from the agent");
		return how.signal ? 128 + how.signal : how.status;
	case AGENT_ERROR:
		return agent_error_parse(f, c->err);
	}
	return rc ? err_sys(c->err, rc, "write output") : -EAGAIN;
}

static int read_agent(struct client *c)
{
	ssize_t n =
		recv(c->fd, buf_reserve(&c->in, 65536), 65536, MSG_DONTWAIT);
	struct agent_frame f;
	int rc = -EAGAIN, used;

	if (n > 0) {
		c->has_heard = true;
		c->unanswered = 0;
	}
	if (n > 0)
		c->in.len += n;
	else if (n == 0 && !c->has_heard)
		return err_set(c->err, -EPIPE, "the agent does not answer");
	else if (n == 0 || (errno != EAGAIN && errno != EINTR))
		return err_set(c->err, -EPIPE,
			       "the agent went away before the command ended");
	while (rc == -EAGAIN &&
	       (used = agent_frame_parse(c->in.bytes, c->in.len, &f)) != 0) {
		if (used < 0)
			return err_set(c->err, used,
				       "bad answer from the agent");
		rc = take_frame(c, &f);
		buf_consume(&c->in, used);
	}
	return rc;
}

/* Passes it on, or ends us: when the terminal goes away (the command gets
 * SIGHUP as the stream closes), and at the second Ctrl-C while the guest has
 * not said a word: it may hang. */
static int take_signal(struct client *c, int sig)
{
	u8 number = sig;

	if (sig && sig != SIGWINCH && !c->has_heard)
		c->unanswered++;
	if (sig == SIGHUP || c->unanswered > 1)
		return err_set(c->err, -EINTR, "interrupted");
	if (sig == SIGWINCH)
		send_window(c);
	else if (sig)
		agent_frame_append(&c->out, AGENT_SIGNAL, &number, 1);
	return -EAGAIN;
}

static int client_run(struct client *c, int signal_fd)
{
	int rc = -EAGAIN;

	while (rc == -EAGAIN) {
		bool room = c->out.len < QUEUE_MAX;
		struct pollfd p[3] = {
			{c->fd, POLLIN | (c->out.len ? POLLOUT : 0), 0},
			{signal_fd, POLLIN, 0},
			{c->has_stdin && room ? 0 : -1, POLLIN, 0}};
		ssize_t n;

		poll(p, 3, -1);
		if (p[1].revents)
			rc = take_signal(c, signals_take(signal_fd));
		if (p[2].revents)
			read_stdin(c);
		if (p[0].revents & POLLOUT) {
			n = send(c->fd, c->out.bytes, c->out.len,
				 MSG_DONTWAIT | MSG_NOSIGNAL);
			if (n > 0)
				buf_consume(&c->out, n);
		}
		if (rc == -EAGAIN &&
		    p[0].revents & (POLLIN | POLLHUP | POLLERR))
			rc = read_agent(c);
	}
	return rc;
}

int agent_run(struct machine *m, char *const *argv, bool is_tty, int signal_fd,
	      struct err *err)
{
	struct client c = {.has_stdin = true, .is_tty = is_tty, .err = err};
	struct agent_exec *e = calloc(1, sizeof(*e));
	char term[128];
	struct winsize w = {.ws_row = 24, .ws_col = 80};
	int rc;

	if (!e)
		return err_sys(err, -ENOMEM, "run command");
	e->cwd = "";
	e->is_tty = is_tty;
	while (argv && argv[e->argc] && e->argc < AGENT_ARGS_MAX) {
		e->argv[e->argc] = argv[e->argc];
		e->argc++;
	}
	snprintf(term, sizeof(term), "TERM=%s",
		 getenv("TERM") ? getenv("TERM") : "dumb");
	e->env[e->envc++] = term;
	if (is_tty)
		ioctl(0, TIOCGWINSZ, &w);
	e->rows = w.ws_row;
	e->columns = w.ws_col;
	rc = agent_exec_append(&c.out, e);
	if (rc)
		err_sys(err, rc, "the command is too long");
	else
		rc = agent_connect(m, &c.fd, err);
	if (!rc) {
		if (is_tty)
			terminal_raw();
		rc = client_run(&c, signal_fd);
		terminal_restore();
		close(c.fd);
	}
	buf_fini(&c.in);
	buf_fini(&c.out);
	free(e);
	return rc;
}

/* One frame, answered by OK or ERROR. Takes b. */
static int ask(struct machine *m, struct buf *b, const char *what,
	       struct err *err)
{
	u8 answer[1024] = {0};
	struct agent_frame f;
	int fd, rc = agent_connect(m, &fd, err);
	ssize_t n = -1;

	if (rc) {
		buf_fini(b);
		return rc;
	}
	if (send(fd, b->bytes, b->len, MSG_NOSIGNAL) == (ssize_t)b->len &&
	    poll(&(struct pollfd){fd, POLLIN, 0}, 1, CONNECT_WAIT_MS) == 1)
		n = recv(fd, answer, sizeof(answer), 0);
	if (n <= 0 || agent_frame_parse(answer, (size_t)n, &f) <= 0)
		rc = err_set(err, -EIO, "the agent did not %s", what);
	else if (f.type == AGENT_ERROR)
		rc = agent_error_parse(&f, err);
	else if (f.type != AGENT_OK)
		rc = err_set(err, -EIO, "the agent did not %s", what);
	buf_fini(b);
	close(fd);
	return rc;
}

int agent_set_time(struct machine *m, struct err *err)
{
	struct buf b = {0};
	u8 now[8];

	st_le64(now, clock_wall_ns());
	agent_frame_append(&b, AGENT_SET_TIME, now, sizeof(now));
	return ask(m, &b, "set the clock", err);
}

int agent_set_identity(struct machine *m, const struct agent_identity *id,
		       struct err *err)
{
	struct buf b = {0};

	agent_identity_append(&b, id);
	return ask(m, &b, "take its new identity", err);
}

int agent_power_off(struct machine *m, bool is_quick, struct err *err)
{
	struct buf b = {0};
	u8 how = is_quick, answer[16];
	int fd, rc = agent_connect(m, &fd, err);

	if (rc)
		return rc;
	agent_frame_append(&b, AGENT_POWEROFF, &how, 1);
	if (send(fd, b.bytes, b.len, MSG_NOSIGNAL) != (ssize_t)b.len ||
	    (poll(&(struct pollfd){fd, POLLIN, 0}, 1, CONNECT_WAIT_MS) == 1 &&
	     recv(fd, answer, sizeof(answer), 0) <= 0))
		rc = err_set(err, -EIO, "the agent did not answer");
	buf_fini(&b);
	close(fd);
	return rc;
}
