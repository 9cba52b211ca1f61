/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/wait.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/clock.h"

/* The one thing that must be undone whatever happens: see terminal_raw. */
static struct termios saved_terminal;
static bool is_raw;

void terminal_restore(void)
{
	if (is_raw)
		tcsetattr(0, TCSAFLUSH, &saved_terminal);
	is_raw = false;
}

void terminal_raw(void)
{
	struct termios raw;

	if (is_raw || tcgetattr(0, &saved_terminal))
		return;
	raw = saved_terminal;
	cfmakeraw(&raw);
	/* What was typed before belongs to the guest: it is not flushed. */
	is_raw = tcsetattr(0, TCSADRAIN, &raw) == 0;
	atexit(terminal_restore);
}

void terminal_console(const char *name, const char *verb)
{
	terminal_raw();
	fprintf(stderr, "skerry: console of '%s'; Ctrl-] %s\r\n", name, verb);
}

int signals_open(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGQUIT);
	sigaddset(&set, SIGWINCH);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

int signals_take(int fd)
{
	struct signalfd_siginfo info;

	return read(fd, &info, sizeof(info)) == sizeof(info)
		       ? (int)info.ssi_signo
		       : 0;
}

static void take_event(struct ending *e, json_t *msg, bool *out_ready)
{
	const char *name = json_string_value(json_object_get(msg, "event"));
	const char *text;

	if (name && strcmp(name, CONTROL_EVENT_AGENT_READY) == 0)
		*out_ready = true;
	if (!name || strcmp(name, CONTROL_EVENT_EXITED) != 0)
		return;
	e->has_ended = true;
	text = json_string_value(json_object_get(msg, "reason"));
	snprintf(e->reason, sizeof(e->reason), "%s", text ? text : "error");
	text = json_string_value(json_object_get(msg, "detail"));
	snprintf(e->detail, sizeof(e->detail), "%s", text ? text : "");
	e->status = json_integer_value(json_object_get(msg, "status"));
}

static void subscribe_event(void *opaque, json_t *event)
{
	bool ready = false;
	struct ending *e = opaque;

	take_event(e, event, &ready);
	e->is_agent_ready |= ready;
}

int ending_subscribe(struct machine *m, struct ending *e, struct err *err)
{
	int rc = control_call(m->control_fd, CONTROL_EVENTS_SUBSCRIBE, NULL,
			      NULL, 0, 10000, subscribe_event, e, NULL, err);

	/* A machine that ends at once may be gone before it can answer. */
	return rc == -EPIPE ? 0 : rc;
}

void ending_poll(struct machine *m, struct ending *e, bool *out_agent_ready)
{
	int fds[CONTROL_FDS_MAX], rc;
	size_t n = 0;
	json_t *msg;

	if (e->has_ended)
		return;
	rc = control_recv(m->control_fd, &msg, fds, &n, 0, NULL);
	if (rc > 0) {
		take_event(e, msg, out_agent_ready);
		control_close_fds(fds, n);
		json_decref(msg);
	} else if (rc != -ETIMEDOUT && rc != -EPROTO) {
		e->has_ended = true;
		e->status = 1;
		strcpy(e->reason, "killed");
		strcpy(e->detail, "the machine's process (skerry-vmm) ended "
				  "without a word: it was killed");
	}
}

int wait_agent(struct machine *m, u32 timeout_s, int signal_fd,
	       struct ending *e, struct err *err)
{
	u64 start = clock_mono_ns(), limit = timeout_s * NS_PER_SEC;
	bool is_ready = e->is_agent_ready, shows = isatty(2);
	int rc = 0;

	while (!is_ready && !rc) {
		struct pollfd p[2] = {{m->control_fd, POLLIN, 0},
				      {signal_fd, POLLIN, 0}};
		u64 now = clock_mono_ns() - start;
		int sig;

		if (shows)
			fprintf(stderr, "\rbooting %s (%llu s) ", m->name,
				(unsigned long long)(now / NS_PER_SEC));
		if (now > limit)
			rc = err_set(err, -ETIMEDOUT,
				     "machine '%s' was not ready after %u s",
				     m->name, timeout_s);
		poll(p, 2, rc ? 0 : 1000);
		if (p[0].revents)
			ending_poll(m, e, &is_ready);
		sig = p[1].revents ? signals_take(signal_fd) : 0;
		if (sig && sig != SIGWINCH)
			rc = err_set(err, -EINTR, "interrupted");
		if (e->has_ended)
			rc = err_set(err, -EPIPE,
				     "machine '%s' ended before it was ready: "
				     "%s %.300s",
				     m->name, e->reason, e->detail);
	}
	if (shows)
		fprintf(stderr, "\r\033[K");
	return rc;
}
