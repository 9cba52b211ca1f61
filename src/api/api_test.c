/* SPDX-License-Identifier: Apache-2.0 */
#include "api/agent_proto.h"
#include "api/control.h"
#include "api/machine_config.h"
#include "base/nearest.h"
#include "test/test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static void frame_is_incomplete_until_its_last_byte(void **state)
{
	struct agent_frame f;
	struct buf b;

	buf_init(&b);
	agent_frame_append(&b, AGENT_STDIN, "hello", 5);
	for (size_t n = 0; n < b.len; n++)
		assert_int_equal(agent_frame_parse(b.bytes, n, &f), 0);
	assert_int_equal(agent_frame_parse(b.bytes, b.len, &f), 10);
	assert_int_equal(f.type, AGENT_STDIN);
	assert_memory_equal(f.payload, "hello", 5);
	buf_fini(&b);
}

static void frame_over_64k_or_of_unknown_type_is_refused(void **state)
{
	u8 too_long[] = {1, 0, 1, 0, AGENT_STDIN};
	u8 unknown[] = {0, 0, 0, 0, AGENT_FRAME_TYPE_END};
	struct agent_frame f;

	assert_int_equal(agent_frame_parse(too_long, 5, &f), -EPROTO);
	assert_int_equal(agent_frame_parse(unknown, 5, &f), -EPROTO);
}

static void exec_round_trips_and_every_truncation_is_refused(void **state)
{
	struct agent_exec in = {.is_tty = true,
				.rows = 24,
				.columns = 80,
				.cwd = "/tmp",
				.argc = 2,
				.envc = 1,
				.argv = {"echo", ""},
				.env = {"TERM=vt100"}};
	struct agent_exec out;
	struct agent_frame f;
	struct buf b;
	u32 full;

	buf_init(&b);
	assert_int_equal(agent_exec_append(&b, &in), 0);
	assert_true(agent_frame_parse(b.bytes, b.len, &f) > 0);
	assert_int_equal(agent_exec_parse(&f, &out), 0);
	assert_true(out.is_tty);
	assert_int_equal(out.columns, 80);
	assert_string_equal(out.cwd, "/tmp");
	assert_string_equal(out.argv[0], "echo");
	assert_string_equal(out.argv[1], "");
	assert_null(out.argv[2]);
	assert_string_equal(out.env[0], "TERM=vt100");
	full = f.len;
	for (f.len = 0; f.len < full; f.len++)
		assert_int_equal(agent_exec_parse(&f, &out), -EPROTO);
	buf_fini(&b);
}

static void exec_that_does_not_fit_a_frame_is_e2big(void **state)
{
	char *big = malloc(AGENT_PAYLOAD_MAX + 1);
	struct agent_exec in = {.cwd = "", .argc = 1, .argv = {big}};
	struct buf b;

	memset(big, 'x', AGENT_PAYLOAD_MAX);
	big[AGENT_PAYLOAD_MAX] = 0;
	buf_init(&b);
	assert_int_equal(agent_exec_append(&b, &in), -E2BIG);
	assert_int_equal(b.len, 0);
	buf_fini(&b);
	free(big);
}

static void agent_error_text_cannot_drive_a_terminal(void **state)
{
	struct err in = {.code = -ENOENT, .text = "no \033[2J file"};
	struct err out = {0};
	struct agent_frame f;
	struct buf b;

	buf_init(&b);
	agent_error_append(&b, &in);
	assert_true(agent_frame_parse(b.bytes, b.len, &f) > 0);
	assert_int_equal(agent_error_parse(&f, &out), -ENOENT);
	assert_string_equal(out.text, "no ?[2J file");
	buf_fini(&b);
}

static int identity_parse(const struct agent_identity *id, size_t cut,
			  struct agent_identity *out)
{
	struct agent_frame f;
	struct buf b;
	int rc;

	buf_init(&b);
	agent_identity_append(&b, id);
	assert_int_equal(agent_frame_parse(b.bytes, b.len, &f), (int)b.len);
	f.len -= (u32)cut;
	rc = agent_identity_parse(&f, out);
	buf_fini(&b);
	return rc;
}

static void an_identity_has_a_host_name_and_an_id_or_is_refused(void **state)
{
	static const char *const bad_names[] = {"",    "-a",   ".a",	  "a/b",
						"a b", "a\nb", "\xc3\xa4"};
	struct agent_identity good = {.mac = {2, 3, 4, 5, 6, 7},
				      .seed = {9, 8},
				      .hostname = "a-fork.1"},
			      id, out;

	(void)state;
	memset(good.machine_id, 'a', 32);
	assert_int_equal(identity_parse(&good, 0, &out), 0);
	assert_memory_equal(&out, &good, sizeof(out));
	for (size_t cut = 1; cut < 80; cut++)
		assert_int_equal(identity_parse(&good, cut, &out), -EPROTO);
	for (size_t i = 0; i < ARRAY_SIZE(bad_names); i++) {
		id = good;
		strcpy(id.hostname, bad_names[i]);
		assert_int_equal(identity_parse(&id, 0, &out), -EPROTO);
	}
	id = good;
	id.machine_id[31] = 'A';
	assert_int_equal(identity_parse(&id, 0, &out), -EPROTO);
}

static void message_carries_files_in_order(void **state)
{
	int pair[2], pipefd[2], fds[CONTROL_FDS_MAX];
	size_t n = 0;
	json_t *msg = NULL;
	char c;

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
	assert_int_equal(pipe(pipefd), 0);
	msg = control_request_new(7, CONTROL_STATUS, NULL);
	assert_int_equal(control_send(pair[0], msg, pipefd, 2, NULL), 0);
	json_decref(msg);
	assert_int_equal(control_recv(pair[1], &msg, fds, &n, 0, NULL), 1);
	assert_int_equal(n, 2);
	assert_int_equal(write(fds[1], "x", 1), 1);
	assert_int_equal(read(pipefd[0], &c, 1), 1);
	assert_true(fcntl(fds[0], F_GETFD) & FD_CLOEXEC);
	assert_int_equal(json_integer_value(json_object_get(msg, "id")), 7);
	json_decref(msg);
	control_close_fds(fds, n);
	close(pair[0]);
	assert_int_equal(control_recv(pair[1], &msg, fds, &n, 0, NULL), 0);
	close(pair[1]);
	close(pipefd[0]);
	close(pipefd[1]);
}

static void hostile_messages_are_refused_and_the_next_one_is_read(void **state)
{
	static const char *const texts[] = {
		"", /* replaced below: a message over the limit */
		"[]",
		"{",
		"{\"a\":1,\"a\":2}",
		"{} {}",
		"nonsense",
		"\xff",
		"{\"a\":[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]}",
	};
	char *big = calloc(1, CONTROL_MESSAGE_MAX + 1);
	int pair[2], fds[CONTROL_FDS_MAX], size = 1 << 20;
	size_t n;

	memset(big, ' ', CONTROL_MESSAGE_MAX + 1);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
	setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		json_t *msg = NULL;
		const char *text = i ? texts[i] : big;
		size_t len = i ? strlen(text) : CONTROL_MESSAGE_MAX + 1;

		assert_int_equal(send(pair[0], text, len, 0), len);
		assert_int_equal(control_recv(pair[1], &msg, fds, &n, 0, NULL),
				 -EPROTO);
		assert_null(msg);
		assert_int_equal(send(pair[0], "{}", 2, 0), 2);
		assert_int_equal(control_recv(pair[1], &msg, fds, &n, 0, NULL),
				 1);
		json_decref(msg);
	}
	close(pair[0]);
	close(pair[1]);
	free(big);
}

static void silence_is_a_timeout(void **state)
{
	int pair[2], fds[CONTROL_FDS_MAX];
	json_t *msg;
	size_t n;

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
	assert_int_equal(control_recv(pair[1], &msg, fds, &n, 0, NULL),
			 -ETIMEDOUT);
	assert_int_equal(control_call(pair[0], CONTROL_STATUS, NULL, NULL, 0, 0,
				      NULL, NULL, NULL, NULL),
			 -ETIMEDOUT);
	close(pair[0]);
	close(pair[1]);
}

static void request_needs_id_known_method_and_its_files(void **state)
{
	struct control_request req;
	struct err err = {0};
	json_t *msg = json_pack("{s:s}", "method", "status");

	assert_int_equal(control_request_parse(msg, 0, &req, &err), -EINVAL);
	json_object_set_new(msg, "id", json_integer(3));
	assert_int_equal(control_request_parse(msg, 0, &req, &err), 0);
	assert_int_equal(req.method, CONTROL_STATUS);
	assert_true(json_is_object(req.params));
	assert_int_equal(control_request_parse(msg, 1, &req, &err), -EINVAL);
	assert_string_equal(err.id, "request.invalid");
	json_object_set_new(msg, "method", json_string("stats"));
	assert_int_equal(control_request_parse(msg, 0, &req, &err), -EINVAL);
	assert_int_equal(req.id, 3);
	assert_string_equal(err.id, "method.unknown");
	json_decref(msg);
}

static void error_answers_keep_id_and_text(void **state)
{
	struct err in = {.code = -EBUSY, .id = "image.locked", .text = "busy"};
	json_t *msg = control_error_new(1, &in);
	json_t *e = json_object_get(msg, "error");

	assert_string_equal(json_string_value(json_object_get(e, "id")),
			    "image.locked");
	assert_string_equal(json_string_value(json_object_get(e, "message")),
			    "busy");
	json_decref(msg);
}

static void status_round_trips(void **state)
{
	struct control_status in = {.state = "running",
				    .is_agent_ready = true,
				    .engine = "soft",
				    .engine_reason = "asked",
				    .cpus = 2,
				    .memory_bytes = GIB,
				    .pid = 42,
				    .instructions = 1ull << 40};
	struct control_status out;
	json_t *obj = control_status_to_json(&in);

	assert_non_null(obj);
	assert_int_equal(control_status_from_json(obj, &out, NULL), 0);
	assert_memory_equal(&in, &out, sizeof(in));
	json_decref(obj);
}

static void config_fill(struct api_machine_config *c)
{
	api_machine_config_init(c);
	strcpy(c->name, "web");
	c->cpus = 4;
	c->memory_bytes = 3 * GIB;
	c->engine = API_ENGINE_SOFT;
	c->kernel_fd = 0;
	c->initrd_fd = 1;
	strcpy(c->append, "console=ttyS0 root=/dev/vda \"quoted\"");
	c->disk_count = 2;
	c->disks[0] = (struct api_disk){2, "raw", false, "root"};
	c->disks[1] = (struct api_disk){3, "raw", true, ""};
	c->forward_count = 1;
	c->forwards[0] = (struct api_forward){true, 0x0a000001, 8080, 80};
	c->debug_exit = c->test_devices = c->no_reboot = true;
	c->no_sandbox = true;
	c->serial_fd = 4;
	c->serial_input = true;
	c->listen_fd = 5;
	c->log_level = 3;
}

static void config_round_trips_through_json(void **state)
{
	struct api_machine_config in, out;
	json_t *obj;

	config_fill(&in);
	obj = api_machine_config_to_json(&in);
	assert_non_null(obj);
	memset(&out, 0, sizeof(out));
	assert_int_equal(api_machine_config_from_json(obj, 6, &out, NULL), 0);
	assert_memory_equal(&in, &out, sizeof(in));
	json_decref(obj);
}

static int config_from_text(const char *text, struct err *err)
{
	static struct api_machine_config c;
	json_t *obj = json_loads(text, 0, NULL);
	int rc;

	assert_non_null(obj);
	rc = api_machine_config_from_json(obj, 4, &c, err);
	json_decref(obj);
	return rc;
}

static void config_names_the_nearest_key(void **state)
{
	struct err err = {0};

	assert_int_equal(config_from_text("{\"memory_byte\": 1}", &err),
			 -EINVAL);
	assert_string_equal(err.id, "config.invalid");
	assert_non_null(strstr(err.text, "did you mean 'memory_bytes'"));
	assert_int_equal(
		config_from_text("{\"disks\":[{\"fd\":0,\"formt\":\"raw\"}]}",
				 &err),
		-EINVAL);
	assert_non_null(strstr(err.text, "'disks[0].formt'"));
}

static void config_refuses_bad_values(void **state)
{
	static const char *const texts[] = {
		"[]",
		"{\"cpus\": 0}",
		"{\"cpus\": 65}",
		"{\"cpus\": \"1\"}",
		"{\"cpus\": 4294967297}",
		"{\"memory_bytes\": -1048576}",
		"{\"memory_bytes\": 1048577}",
		"{\"engine\": \"fast\"}",
		"{\"kernel_fd\": 4}",
		"{\"kernel_fd\": -1}",
		"{\"kernel_fd\": 0, \"initrd_fd\": 0}",
		"{\"initrd_fd\": 0}",
		"{\"debug_exit\": 1}",
		"{\"disks\": {}}",
		"{\"disks\": [{}]}",
		"{\"disks\": [{\"fd\": 0, \"format\": \"vhd\"}]}",
		"{\"forwards\": [{\"host_port\": 1}]}",
		"{\"forwards\": [{\"host_port\": 65536, \"guest_port\": 1}]}",
		"{\"forwards\": [{\"host_addr\": \"localhost\"}]}",
		"{\"vsock_cid\": 2}",
	};

	assert_int_equal(config_from_text("{}", NULL), 0);
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		struct err err = {0};

		if (config_from_text(texts[i], &err) != -EINVAL)
			fail_msg("accepted: %s", texts[i]);
		assert_string_equal(err.id, "config.invalid");
	}
}

static const char *word_at(const void *words, size_t i)
{
	return ((const char *const *)words)[i];
}

static void nearest_finds_typos_and_not_strangers(void **state)
{
	static const char *const words[] = {"run", "launch", "delete", "list",
					    NULL};

	assert_string_equal(nearest_word("lanuch", word_at, words), "launch");
	assert_string_equal(nearest_word("detele", word_at, words), "delete");
	assert_string_equal(nearest_word("lst", word_at, words), "list");
	assert_null(nearest_word("frobnicate", word_at, words));
	assert_null(nearest_word("x", word_at, words));
	assert_int_equal(nearest_distance("ab", "ba"), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(frame_is_incomplete_until_its_last_byte),
		cmocka_unit_test(frame_over_64k_or_of_unknown_type_is_refused),
		cmocka_unit_test(
			exec_round_trips_and_every_truncation_is_refused),
		cmocka_unit_test(exec_that_does_not_fit_a_frame_is_e2big),
		cmocka_unit_test(agent_error_text_cannot_drive_a_terminal),
		cmocka_unit_test(
			an_identity_has_a_host_name_and_an_id_or_is_refused),
		cmocka_unit_test(message_carries_files_in_order),
		cmocka_unit_test(
			hostile_messages_are_refused_and_the_next_one_is_read),
		cmocka_unit_test(silence_is_a_timeout),
		cmocka_unit_test(request_needs_id_known_method_and_its_files),
		cmocka_unit_test(error_answers_keep_id_and_text),
		cmocka_unit_test(status_round_trips),
		cmocka_unit_test(config_round_trips_through_json),
		cmocka_unit_test(config_names_the_nearest_key),
		cmocka_unit_test(config_refuses_bad_values),
		cmocka_unit_test(nearest_finds_typos_and_not_strangers),
	};

	return test_run("api", tests);
}
