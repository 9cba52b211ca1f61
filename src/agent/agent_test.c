/* SPDX-License-Identifier: Apache-2.0 */
/* Sessions over a socket pair: the agent's process, without a guest. */
#include "agent/session.h"
#include "api/agent_proto.h"
#include "test/test.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

struct peer {
	int fd;
	pid_t pid;
	struct buf in, out, err; /* raw stream; STDOUT's bytes; STDERR's */
	struct agent_exit how;
	int code; /* of ERROR */
	struct err why;
};

static void peer_open(struct peer *p)
{
	int pair[2];

	memset(p, 0, sizeof(*p));
	assert_int_equal(
		socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	p->pid = fork();
	if (p->pid == 0) {
		close(pair[0]);
		_exit(session_serve(pair[1]));
	}
	close(pair[1]);
	p->fd = pair[0];
}

static void peer_close(struct peer *p)
{
	int status;

	close(p->fd);
	waitpid(p->pid, &status, 0);
	buf_fini(&p->in);
	buf_fini(&p->out);
	buf_fini(&p->err);
}

static void peer_send(struct peer *p, u8 type, const void *bytes, size_t len)
{
	struct buf b = {0};

	agent_frame_append(&b, type, bytes, len);
	assert_int_equal(send(p->fd, b.bytes, b.len, MSG_NOSIGNAL), b.len);
	buf_fini(&b);
}

static void peer_exec(struct peer *p, const char *script, bool is_tty)
{
	struct agent_exec e = {.is_tty = is_tty,
			       .rows = 33,
			       .columns = 101,
			       .cwd = "/",
			       .argc = 3,
			       .argv = {"sh", "-c", script},
			       .envc = 1,
			       .env = {"MARK=here"}};
	struct buf b = {0};

	assert_int_equal(agent_exec_append(&b, &e), 0);
	assert_int_equal(send(p->fd, b.bytes, b.len, MSG_NOSIGNAL), b.len);
	buf_fini(&b);
}

/* Reads until EXIT or ERROR; returns the type, 0 at the end of the stream,
 * or when stop_at has been seen on stdout. */
static int peer_run(struct peer *p, const char *stop_at)
{
	for (;;) {
		struct agent_frame f;
		int n = agent_frame_parse(p->in.bytes, p->in.len, &f);
		int type = f.type;

		assert_true(n >= 0);
		if (n == 0) {
			ssize_t got = recv(p->fd, buf_reserve(&p->in, 65536),
					   65536, 0);

			if (got <= 0)
				return 0;
			p->in.len += got;
			continue;
		}
		if (type == AGENT_STDOUT)
			buf_append(&p->out, f.payload, f.len);
		if (type == AGENT_STDERR)
			buf_append(&p->err, f.payload, f.len);
		if (type == AGENT_EXIT)
			assert_int_equal(agent_exit_parse(&f, &p->how), 0);
		if (type == AGENT_ERROR)
			p->code = agent_error_parse(&f, &p->why);
		buf_consume(&p->in, n);
		if (type == AGENT_EXIT || type == AGENT_ERROR)
			return type;
		if (stop_at && strstr(buf_str(&p->out), stop_at))
			return 0;
	}
}

static void exec_gives_output_errors_and_status(void **state)
{
	struct peer p;

	peer_open(&p);
	peer_exec(&p, "echo $MARK; pwd; echo bad >&2; exit 7", false);
	assert_int_equal(peer_run(&p, NULL), AGENT_EXIT);
	assert_string_equal(buf_str(&p.out), "here\n/\n");
	assert_string_equal(buf_str(&p.err), "bad\n");
	assert_int_equal(p.how.status, 7);
	peer_close(&p);
}

static void
input_that_comes_with_exec_in_one_piece_is_not_forgotten(void **state)
{
	struct agent_exec e = {.rows = 1,
			       .columns = 1,
			       .cwd = "/",
			       .argc = 1,
			       .argv = {"cat"}};
	struct buf b = {0};
	struct peer p;

	assert_int_equal(agent_exec_append(&b, &e), 0);
	agent_frame_append(&b, AGENT_STDIN, "hi", 2);
	agent_frame_append(&b, AGENT_STDIN_EOF, NULL, 0);
	peer_open(&p);
	assert_int_equal(send(p.fd, b.bytes, b.len, MSG_NOSIGNAL), b.len);
	buf_fini(&b);
	assert_int_equal(peer_run(&p, NULL), AGENT_EXIT);
	assert_string_equal(buf_str(&p.out), "hi");
	peer_close(&p);
}

static void exec_passes_stdin_through_to_its_end(void **state)
{
	enum { BYTES = 300000 };
	char *bytes = calloc(1, BYTES);
	struct peer p;

	for (int i = 0; i < BYTES; i++)
		bytes[i] = i * 7;
	peer_open(&p);
	peer_exec(&p, "cat", false);
	/* cat echoes while we send: both directions are busy at once. */
	if (fork() == 0) {
		for (int i = 0; i < BYTES; i += 30000)
			peer_send(&p, AGENT_STDIN, bytes + i, 30000);
		peer_send(&p, AGENT_STDIN_EOF, NULL, 0);
		_exit(0);
	}
	assert_int_equal(peer_run(&p, NULL), AGENT_EXIT);
	assert_int_equal(p.how.status, 0);
	assert_int_equal(p.out.len, BYTES);
	assert_memory_equal(p.out.bytes, bytes, BYTES);
	wait(NULL);
	peer_close(&p);
	free(bytes);
}

static void a_session_that_cannot_start_says_why(void **state)
{
	struct peer p = {0};
	int pair[2];

	assert_int_equal(
		socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	p.fd = pair[0];
	peer_exec(&p, "true", false);
	session_refuse(pair[1], -EAGAIN, "start a process");
	assert_int_equal(peer_run(&p, NULL), AGENT_ERROR);
	assert_int_equal(p.code, -EAGAIN);
	assert_non_null(strstr(p.why.text, "start a process"));
	assert_int_equal(peer_run(&p, NULL), 0);
	close(p.fd);
	buf_fini(&p.in);
}

static void exec_reports_a_missing_command_as_127(void **state)
{
	struct agent_exec e = {.cwd = "", .argc = 1, .argv = {"no-such-cmd"}};
	struct buf b = {0};
	struct peer p;

	peer_open(&p);
	assert_int_equal(agent_exec_append(&b, &e), 0);
	assert_int_equal(send(p.fd, b.bytes, b.len, 0), b.len);
	assert_int_equal(peer_run(&p, NULL), AGENT_EXIT);
	assert_int_equal(p.how.status, 127);
	assert_non_null(strstr(buf_str(&p.err), "no-such-cmd"));
	buf_fini(&b);
	peer_close(&p);
}

static void exec_reports_an_unexecutable_command_as_126(void **state)
{
	struct agent_exec e = {.cwd = "", .argc = 1, .argv = {"/etc/passwd"}};
	struct buf b = {0};
	struct peer p;

	peer_open(&p);
	assert_int_equal(agent_exec_append(&b, &e), 0);
	assert_int_equal(send(p.fd, b.bytes, b.len, 0), b.len);
	assert_int_equal(peer_run(&p, NULL), AGENT_EXIT);
	assert_int_equal(p.how.status, 126);
	buf_fini(&b);
	peer_close(&p);
}

static void signal_reaches_the_command_and_is_reported(void **state)
{
	u8 sig = SIGINT;
	struct peer p;

	peer_open(&p);
	peer_exec(&p, "echo up; exec sleep 100", false);
	peer_run(&p, "up\n");
	peer_send(&p, AGENT_SIGNAL, &sig, 1);
	assert_int_equal(peer_run(&p, NULL), AGENT_EXIT);
	assert_int_equal(p.how.signal, SIGINT);
	peer_close(&p);
}

static void terminal_has_its_size_and_a_changed_one(void **state)
{
	u8 size[4] = {10, 0, 20, 0};
	struct peer p;

	peer_open(&p);
	peer_exec(&p, "stty size; read x; stty size; tty", true);
	peer_run(&p, "33 101");
	peer_send(&p, AGENT_WINSIZE, size, 4);
	peer_send(&p, AGENT_STDIN, "\n", 1);
	assert_int_equal(peer_run(&p, NULL), AGENT_EXIT);
	assert_non_null(strstr(buf_str(&p.out), "10 20"));
	assert_non_null(strstr(buf_str(&p.out), "/dev/pts/"));
	peer_close(&p);
}

static void command_is_hung_up_when_the_peer_leaves(void **state)
{
	int pipefd[2];
	char script[128], c;
	struct peer p;

	assert_int_equal(pipe(pipefd), 0);
	peer_open(&p);
	snprintf(script, sizeof(script), "echo up; sleep 100; echo no");
	peer_exec(&p, script, false);
	peer_run(&p, "up\n");
	peer_close(&p); /* waits for the session: it must end */
	close(pipefd[1]);
	assert_int_equal(read(pipefd[0], &c, 1), 0);
	close(pipefd[0]);
}

static void ping_is_answered_with_hello(void **state)
{
	struct agent_hello hello;
	struct agent_frame f;
	struct peer p;
	u8 bytes[512];
	ssize_t n;

	peer_open(&p);
	peer_send(&p, AGENT_PING, NULL, 0);
	n = recv(p.fd, bytes, sizeof(bytes), 0);
	assert_true(agent_frame_parse(bytes, n, &f) == n);
	assert_int_equal(agent_hello_parse(&f, &hello), 0);
	assert_int_equal(hello.version, AGENT_PROTO_VERSION);
	peer_close(&p);
}

static void a_wrong_first_frame_is_refused(void **state)
{
	struct peer p;

	peer_open(&p);
	peer_send(&p, AGENT_EXEC, "x", 1);
	assert_int_equal(peer_run(&p, NULL), AGENT_ERROR);
	peer_close(&p);
}

static void a_time_of_the_wrong_length_is_refused(void **state)
{
	struct peer p;

	peer_open(&p);
	peer_send(&p, AGENT_SET_TIME, "1234567", 7);
	assert_int_equal(peer_run(&p, NULL), AGENT_ERROR);
	peer_close(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_time_of_the_wrong_length_is_refused),
		cmocka_unit_test(exec_gives_output_errors_and_status),
		cmocka_unit_test(
			input_that_comes_with_exec_in_one_piece_is_not_forgotten),
		cmocka_unit_test(exec_passes_stdin_through_to_its_end),
		cmocka_unit_test(a_session_that_cannot_start_says_why),
		cmocka_unit_test(exec_reports_a_missing_command_as_127),
		cmocka_unit_test(exec_reports_an_unexecutable_command_as_126),
		cmocka_unit_test(signal_reaches_the_command_and_is_reported),
		cmocka_unit_test(terminal_has_its_size_and_a_changed_one),
		cmocka_unit_test(command_is_hung_up_when_the_peer_leaves),
		cmocka_unit_test(ping_is_answered_with_hello),
		cmocka_unit_test(a_wrong_first_frame_is_refused),
	};

	return test_run("agent", tests);
}
