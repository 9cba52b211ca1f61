/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY: one poll loop moves bytes between four places, each through a
 * bounded buffer, and never blocks on one of them:
 *
 *   socket --from_peer--> frames --to_child--> child's stdin
 *   child's stdout, stderr --frames--> to_peer --> socket
 *
 * A side is read only while the buffer behind it has room, so a slow reader
 * slows the writer and nothing grows. When the child has ended, what its
 * pipes still hold is sent, then EXIT. Output that a background process
 * writes later is not waited for.
 */
#include "agent/session.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "agent/child.h"
#include "agent/hello.h"
#include "agent/identity.h"
#include "agent/power.h"
#include "base/clock.h"

#define CHUNK	  16384
#define QUEUE_MAX (128 * 1024)
#define INPUT_MAX (AGENT_PAYLOAD_MAX + AGENT_HEADER_BYTES)

struct session {
	int fd;
	int sigchld_fd;
	struct buf from_peer, to_peer, to_child;
	bool is_stdin_closing;
	bool is_peer_gone;
	bool has_ended; /* the child */
	int wait_status;
	struct child child;
};

static int flush_blocking(struct session *s)
{
	while (s->to_peer.len) {
		ssize_t n = send(s->fd, s->to_peer.bytes, s->to_peer.len,
				 MSG_NOSIGNAL);

		if (n > 0)
			buf_consume(&s->to_peer, n);
		else if (errno == EAGAIN)
			poll(&(struct pollfd){s->fd, POLLOUT, 0}, 1, -1);
		else if (errno != EINTR)
			return -errno;
	}
	return 0;
}

static void refuse(struct session *s, int code, const char *text)
{
	struct err err = {0};

	err_sys(&err, code, "%s", text);
	agent_error_append(&s->to_peer, &err);
	flush_blocking(s);
}

static void close_child_end(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* One frame of a running session. */
static void handle_frame(struct session *s, const struct agent_frame *f)
{
	static const u8 eot = 4;

	switch (f->type) {
	case AGENT_STDIN:
		if (s->child.in >= 0 && !s->is_stdin_closing && f->len)
			buf_append(&s->to_child, f->payload, f->len);
		break;
	case AGENT_STDIN_EOF:
		if (s->child.err < 0) /* a terminal ends its input by ^D */
			buf_append(&s->to_child, &eot, 1);
		else
			s->is_stdin_closing = true;
		break;
	case AGENT_SIGNAL:
		if (f->len == 1 && f->payload[0] > 0 && f->payload[0] < NSIG &&
		    !s->has_ended)
			kill(-s->child.pid, f->payload[0]);
		break;
	case AGENT_WINSIZE:
		if (f->len == 4 && s->child.err < 0)
			child_set_window(&s->child, ld_le16(f->payload),
					 ld_le16(f->payload + 2));
		break;
	default: /* nothing else has a meaning here */
		s->is_peer_gone = true;
	}
}

/* Frames are taken only while their bytes have room to go to. */
static void handle_input(struct session *s)
{
	struct agent_frame f;
	int n = 0;

	while (s->to_child.len < QUEUE_MAX &&
	       (n = agent_frame_parse(s->from_peer.bytes, s->from_peer.len,
				      &f)) > 0) {
		handle_frame(s, &f);
		buf_consume(&s->from_peer, n);
	}
	if (n < 0)
		s->is_peer_gone = true;
}

static void read_peer(struct session *s)
{
	ssize_t n = recv(s->fd, buf_reserve(&s->from_peer, CHUNK), CHUNK,
			 MSG_DONTWAIT);

	if (n > 0)
		s->from_peer.len += n;
	else if (n == 0 || (errno != EAGAIN && errno != EINTR))
		s->is_peer_gone = true;
}

static void write_peer(struct session *s)
{
	ssize_t n = send(s->fd, s->to_peer.bytes, s->to_peer.len,
			 MSG_DONTWAIT | MSG_NOSIGNAL);

	if (n > 0)
		buf_consume(&s->to_peer, n);
	else if (errno != EAGAIN && errno != EINTR)
		s->is_peer_gone = true;
}

static void write_child(struct session *s)
{
	ssize_t n = 0;

	if (s->to_child.len)
		n = write(s->child.in, s->to_child.bytes, s->to_child.len);
	if (n > 0)
		buf_consume(&s->to_child, n);
	else if (n < 0 && errno != EAGAIN && errno != EINTR) {
		buf_reset(&s->to_child); /* it closed its stdin */
		close_child_end(&s->child.in);
	}
	if (s->is_stdin_closing && !s->to_child.len)
		close_child_end(&s->child.in);
}

/* Returns true when something was read. */
static bool read_child(struct session *s, int *fd, u8 type)
{
	u8 chunk[CHUNK];
	ssize_t n;

	if (*fd < 0)
		return false;
	n = read(*fd, chunk, sizeof(chunk));
	if (n > 0) {
		agent_frame_append(&s->to_peer, type, chunk, n);
		return true;
	}
	/* EIO: nobody has the terminal open any more. */
	if (n == 0 || (errno != EAGAIN && errno != EINTR))
		close_child_end(fd);
	return false;
}

static void reap(struct session *s)
{
	struct signalfd_siginfo info;

	while (read(s->sigchld_fd, &info, sizeof(info)) > 0)
		;
	if (waitpid(s->child.pid, &s->wait_status, WNOHANG) == s->child.pid)
		s->has_ended = true;
}

static void poll_round(struct session *s)
{
	struct pollfd p[5] = {
		{.fd = s->fd}, {.fd = s->sigchld_fd, .events = POLLIN},
		{.fd = -1},    {.fd = -1},
		{.fd = -1},
	};

	if (s->from_peer.len < INPUT_MAX)
		p[0].events |= POLLIN;
	if (s->to_peer.len)
		p[0].events |= POLLOUT;
	if (s->child.in >= 0 && (s->to_child.len || s->is_stdin_closing)) {
		p[2].fd = s->child.in;
		p[2].events = POLLOUT;
	}
	if (s->to_peer.len < QUEUE_MAX) {
		p[3] = (struct pollfd){s->child.out, POLLIN, 0};
		p[4] = (struct pollfd){s->child.err, POLLIN, 0};
	}
	if (poll(p, 5, -1) < 0)
		return;
	if (p[0].revents & POLLIN || p[0].revents & (POLLHUP | POLLERR))
		read_peer(s);
	if (p[0].revents & POLLOUT)
		write_peer(s);
	if (p[2].revents)
		write_child(s);
	handle_input(s);
	if (p[3].revents)
		read_child(s, &s->child.out, AGENT_STDOUT);
	if (p[4].revents)
		read_child(s, &s->child.err, AGENT_STDERR);
	if (p[1].revents)
		reap(s);
}

static void finish(struct session *s)
{
	struct agent_exit how = {0};

	/* Bounded: a background process could write for ever. */
	for (int i = 0; i < 64; i++) {
		bool more = read_child(s, &s->child.out, AGENT_STDOUT);

		more |= read_child(s, &s->child.err, AGENT_STDERR);
		if (!more)
			break;
	}
	if (WIFSIGNALED(s->wait_status))
		how.signal = WTERMSIG(s->wait_status);
	else
		how.status = WEXITSTATUS(s->wait_status);
	agent_exit_append(&s->to_peer, &how);
	flush_blocking(s);
}

static int serve_exec(struct session *s, const struct agent_exec *what)
{
	sigset_t set;
	int rc;

	signal(SIGPIPE, SIG_IGN);
	signal(SIGCHLD, SIG_DFL);
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	s->sigchld_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	rc = s->sigchld_fd < 0 ? -errno : child_start(&s->child, what);
	if (rc) {
		refuse(s, rc, "start command");
		return 1;
	}
	handle_input(s); /* what came in one piece with EXEC */
	while (!s->has_ended && !s->is_peer_gone)
		poll_round(s);
	if (s->has_ended) {
		finish(s);
		return 0;
	}
	kill(-s->child.pid, SIGHUP);
	kill(-s->child.pid, SIGCONT);
	return 1;
}

static int serve_power_off(struct session *s, const struct agent_frame *f)
{
	bool is_quick = f->len == 1 && f->payload[0] == 1;

	agent_frame_append(&s->to_peer, AGENT_OK, NULL, 0);
	flush_blocking(s);
	shutdown(s->fd, SHUT_WR);
	power_off(is_quick);
	return 1;
}

static int serve_set_time(struct session *s, const struct agent_frame *f)
{
	struct timespec t;
	u64 ns;

	if (f->len != 8) {
		refuse(s, -EPROTO, "read the time");
		return 1;
	}
	ns = ld_le64(f->payload);
	t.tv_sec = (time_t)(ns / NS_PER_SEC);
	t.tv_nsec = (long)(ns % NS_PER_SEC);
	if (clock_settime(CLOCK_REALTIME, &t) < 0) {
		refuse(s, -errno, "set the clock");
		return 1;
	}
	agent_frame_append(&s->to_peer, AGENT_OK, NULL, 0);
	return flush_blocking(s) ? 1 : 0;
}

/* The host hears the new name, too. */
static int serve_set_identity(struct session *s, const struct agent_frame *f)
{
	struct agent_identity id;
	struct err err = {0};

	if (agent_identity_parse(f, &id)) {
		refuse(s, -EPROTO, "read the identity");
		return 1;
	}
	if (identity_set(&id, &err))
		agent_error_append(&s->to_peer, &err);
	else
		agent_frame_append(&s->to_peer, AGENT_OK, NULL, 0);
	(void)hello_send_once();
	return flush_blocking(s) ? 1 : 0;
}

static int serve_first(struct session *s, const struct agent_frame *f, int n)
{
	struct agent_exec *what = malloc(sizeof(*what));
	struct agent_hello hello;
	int rc = 1;

	if (!what)
		return 1;
	switch (f->type) {
	case AGENT_PING:
		hello_fill(&hello);
		agent_hello_append(&s->to_peer, &hello);
		rc = flush_blocking(s) ? 1 : 0;
		break;
	case AGENT_POWEROFF:
		rc = serve_power_off(s, f);
		break;
	case AGENT_SET_TIME:
		rc = serve_set_time(s, f);
		break;
	case AGENT_SET_IDENTITY:
		rc = serve_set_identity(s, f);
		break;
	case AGENT_EXEC:
		if (agent_exec_parse(f, what)) {
			refuse(s, -EPROTO, "read command");
			break;
		}
		/* what points into the frame: take it out of the stream, but
		 * keep its bytes. */
		{
			struct buf rest = s->from_peer;

			buf_init(&s->from_peer);
			buf_append(&s->from_peer, rest.bytes + n, rest.len - n);
			rc = serve_exec(s, what);
			buf_fini(&rest);
		}
		break;
	default:
		refuse(s, -EPROTO, "unexpected frame");
	}
	free(what);
	return rc;
}

int session_serve(int fd)
{
	struct session s = {.fd = fd,
			    .sigchld_fd = -1,
			    .child = {.in = -1, .out = -1, .err = -1}};
	struct agent_frame f;
	int n, rc = 1;

	buf_init(&s.from_peer);
	buf_init(&s.to_peer);
	buf_init(&s.to_child);
	while ((n = agent_frame_parse(s.from_peer.bytes, s.from_peer.len,
				      &f)) == 0 &&
	       !s.is_peer_gone) {
		poll(&(struct pollfd){fd, POLLIN, 0}, 1, -1);
		read_peer(&s);
	}
	if (n > 0)
		rc = serve_first(&s, &f, n);
	close_child_end(&s.child.in);
	close_child_end(&s.child.out);
	close_child_end(&s.child.err);
	close_child_end(&s.sigchld_fd);
	buf_fini(&s.from_peer);
	buf_fini(&s.to_peer);
	buf_fini(&s.to_child);
	close(fd);
	return rc;
}

void session_refuse(int fd, int code, const char *text)
{
	struct session s = {.fd = fd};

	buf_init(&s.to_peer);
	refuse(&s, code, text);
	buf_fini(&s.to_peer);
	shutdown(fd, SHUT_WR);
	close(fd);
}
