/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY: SEQPACKET keeps message borders, so there is no framing here: one
 * recvmsg is one message. A message that does not fit is reported by
 * MSG_TRUNC (bytes) or MSG_CTRUNC (descriptors) and refused as a whole; the
 * descriptors that did arrive are closed. */
#include "api/control.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/clock.h"

#define SEND_WAIT_MS 5000
#define DEPTH_MAX    16

/* clang-format off */
const struct control_method_row control_methods[CONTROL_METHOD_COUNT] = {
	[CONTROL_MACHINE_CREATE] = {
		"machine.create", "the machine config (machine_config.h)",
		"the files that the config's *_fd keys count", "{engine, engine_reason, tsc_khz}",
		0, CONTROL_FDS_MAX},
	[CONTROL_STATUS] = {
		"status", "{}", "", "struct control_status", 0, 0},
	[CONTROL_STATISTICS] = {
		"statistics", "{}", "",
		"{cpu_ns, counters: [{group, name, value, unit, help}]}; unit "
		"is count, bytes or ns", 0, 0},
	[CONTROL_EVENTS_SUBSCRIBE] = {
		"events.subscribe", "{}", "",
		"{}; agent-ready is sent at once when it was already", 0, 0},
	[CONTROL_CONSOLE_ATTACH] = {
		"console.attach", "{}",
		"a stream socket: becomes a client of COM1", "{}", 1, 1},
	[CONTROL_VSOCK_CONNECT] = {
		"vsock.connect", "{port}",
		"a stream socket: bridged to the guest's port",
		"{} once the guest accepted", 1, 1},
	[CONTROL_MACHINE_STOP] = {
		"machine.stop", "{}", "",
		"{}; the ACPI power button was pressed", 0, 0},
	[CONTROL_MACHINE_KILL] = {
		"machine.kill", "{}", "", "{}; the vmm ends at once", 0, 0},
	[CONTROL_MACHINE_RESET] = {
		"machine.reset", "{}", "", "{}", 0, 0},
	[CONTROL_MACHINE_PAUSE] = {
		"machine.pause", "{}", "", "{}; vCPUs and clock stand, until "
		"machine.resume or until this client goes away", 0, 0},
	[CONTROL_MACHINE_RESUME] = {
		"machine.resume", "{}", "", "{}", 0, 0},
	[CONTROL_SNAPSHOT_CREATE] = {
		"snapshot.create",
		"{disks: [N, …]: the disks that get a new layer, temporary: "
		"nothing need be durable}",
		"the state file and the memory file: regular, empty, writable; "
		"for each of the disks an empty overlay of it",
		"{pause_ns, memory_bytes, written_bytes, state_bytes} when "
		"both, and what the disks held, are on the disk; 'progress' "
		"events before",
		2, CONTROL_FDS_MAX},
};

const char *const control_exit_names[CONTROL_EXIT_COUNT] = {
	[CONTROL_EXIT_POWEROFF] = "poweroff",
	[CONTROL_EXIT_RESET] = "reset",
	[CONTROL_EXIT_DEBUG] = "debug-exit",
	[CONTROL_EXIT_TRIPLE_FAULT] = "triple-fault",
	[CONTROL_EXIT_ERROR] = "error",
	[CONTROL_EXIT_KILLED] = "killed",
};
/* clang-format on */

union control_space {
	struct cmsghdr align;
	char bytes[CMSG_SPACE(sizeof(int) * CONTROL_FDS_MAX)];
};

void control_close_fds(int *fds, size_t fd_count)
{
	for (size_t i = 0; i < fd_count; i++) {
		if (fds[i] >= 0)
			close(fds[i]);
		fds[i] = -1;
	}
}

static int wait_for(int fd, short events, int timeout_ms)
{
	struct pollfd p = {.fd = fd, .events = events};
	u64 end = clock_mono_ns() + (u64)MAX(timeout_ms, 0) * 1000000;

	for (;;) {
		u64 now = clock_mono_ns();
		int left = timeout_ms < 0 ? -1
			   : now >= end	  ? 0
					: (int)((end - now + 999999) / 1000000);
		int rc = poll(&p, 1, left);

		if (rc > 0)
			return 0;
		if (rc == 0)
			return -ETIMEDOUT;
		if (errno != EINTR)
			return -errno;
	}
}

static int send_bytes(int fd, const char *text, size_t len, const int *fds,
		      size_t fd_count, struct err *err)
{
	union control_space space;
	struct iovec iov = {.iov_base = (void *)text, .iov_len = len};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n;
	int rc;

	memset(&space, 0, sizeof(space));
	if (fd_count) {
		struct cmsghdr *c = &space.align;

		c->cmsg_len = CMSG_LEN(sizeof(int) * fd_count);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		memcpy(CMSG_DATA(c), fds, sizeof(int) * fd_count);
		m.msg_control = &space;
		m.msg_controllen = CMSG_SPACE(sizeof(int) * fd_count);
	}
	for (;;) {
		n = sendmsg(fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n >= 0)
			return 0;
		if (errno == EINTR)
			continue;
		if (errno != EAGAIN)
			return err_sys(err, -errno, "send control message");
		rc = wait_for(fd, POLLOUT, SEND_WAIT_MS);
		if (rc)
			return err_set(err, -EAGAIN,
				       "send control message: the peer does "
				       "not read");
	}
}

int control_send(int fd, const json_t *msg, const int *fds, size_t fd_count,
		 struct err *err)
{
	char *text;
	size_t len;
	int rc;

	if (fd_count > CONTROL_FDS_MAX)
		return err_set(err, -EMSGSIZE,
			       "send control message: %zu files, at most %d",
			       fd_count, CONTROL_FDS_MAX);
	text = json_dumps(msg, JSON_COMPACT);
	if (!text)
		return err_set(err, -EINVAL, "send control message: not JSON");
	len = strlen(text);
	if (len > CONTROL_MESSAGE_MAX)
		rc = err_set(err, -EMSGSIZE,
			     "send control message: %zu bytes, at most %d", len,
			     CONTROL_MESSAGE_MAX);
	else
		rc = send_bytes(fd, text, len, fds, fd_count, err);
	free(text);
	return rc;
}

/* jansson recurses per level: refuse nesting before it parses. Brackets in
 * strings count too, which no message of ours comes near to. */
static bool is_too_deep(const char *bytes, size_t len)
{
	int depth = 0;

	for (size_t i = 0; i < len; i++) {
		if (bytes[i] == '{' || bytes[i] == '[')
			depth++;
		else if ((bytes[i] == '}' || bytes[i] == ']') && depth > 0)
			depth--;
		if (depth > 1024)
			return true;
	}
	return false;
}

static bool is_nested_within(const json_t *v, int levels)
{
	const char *key;
	json_t *child;
	size_t i;

	if (!json_is_object(v) && !json_is_array(v))
		return true;
	if (levels == 0)
		return false;
	if (json_is_array(v)) {
		json_array_foreach(v, i, child)
		{
			if (!is_nested_within(child, levels - 1))
				return false;
		}
		return true;
	}
	json_object_foreach((json_t *)v, key, child)
	{
		if (!is_nested_within(child, levels - 1))
			return false;
	}
	return true;
}

int control_parse(const void *bytes, size_t len, json_t **out_msg,
		  struct err *err)
{
	json_error_t where;
	json_t *msg;

	if (len > CONTROL_MESSAGE_MAX || is_too_deep(bytes, len))
		return err_set(err, -EPROTO, "control message: too large");
	msg = json_loadb(bytes, len, JSON_REJECT_DUPLICATES, &where);
	if (!msg)
		return err_set(err, -EPROTO, "control message: %s", where.text);
	if (!json_is_object(msg) || !is_nested_within(msg, DEPTH_MAX)) {
		json_decref(msg);
		return err_set(err, -EPROTO,
			       "control message: not a plain object");
	}
	*out_msg = msg;
	return 0;
}

/* The descriptors of every SCM_RIGHTS record; closes what does not fit. */
static size_t take_fds(struct msghdr *m, int *out_fds)
{
	size_t count = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
		size_t n;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			if (count < CONTROL_FDS_MAX)
				out_fds[count++] = fd;
			else
				close(fd);
		}
	}
	return count;
}

/* 1, 0 at the end of the stream, or -errno. */
static int recv_bytes(int fd, char *bytes, size_t *out_len, int *out_fds,
		      size_t *out_fd_count, int timeout_ms, struct err *err)
{
	union control_space space;
	struct iovec iov = {.iov_base = bytes, .iov_len = CONTROL_MESSAGE_MAX};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n;

	for (;;) {
		int rc = wait_for(fd, POLLIN, timeout_ms);

		if (rc == -ETIMEDOUT)
			return err_set(err, rc, "no answer in time");
		if (rc)
			return err_sys(err, rc, "wait for control message");
		m.msg_control = &space;
		m.msg_controllen = sizeof(space);
		n = recvmsg(fd, &m, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
		if (n >= 0)
			break;
		if (errno == ECONNRESET)
			return 0;
		if (errno != EINTR && errno != EAGAIN)
			return err_sys(err, -errno, "receive control message");
	}
	*out_fd_count = take_fds(&m, out_fds);
	if (m.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) {
		control_close_fds(out_fds, *out_fd_count);
		return err_set(err, -EPROTO, "control message: too large");
	}
	*out_len = n;
	if (n == 0)
		control_close_fds(out_fds, *out_fd_count);
	return n > 0;
}

int control_recv(int fd, json_t **out_msg, int *out_fds, size_t *out_fd_count,
		 int timeout_ms, struct err *err)
{
	char *bytes = malloc(CONTROL_MESSAGE_MAX);
	size_t len = 0, count = 0;
	int fds[CONTROL_FDS_MAX];
	int rc;

	if (!bytes)
		return err_sys(err, -ENOMEM, "receive control message");
	rc = recv_bytes(fd, bytes, &len, fds, &count, timeout_ms, err);
	if (rc > 0) {
		int parsed = control_parse(bytes, len, out_msg, err);

		if (parsed) {
			control_close_fds(fds, count);
			rc = parsed;
		} else {
			memcpy(out_fds, fds, count * sizeof(int));
			*out_fd_count = count;
		}
	}
	free(bytes);
	return rc;
}

static int bad_request(struct err *err, const char *id, const char *text,
		       const char *name)
{
	err_set(err, -EINVAL, text, name);
	err_set_id(err, id);
	return -EINVAL;
}

int control_request_parse(json_t *msg, size_t fd_count,
			  struct control_request *out, struct err *err)
{
	json_t *id = json_object_get(msg, "id");
	const char *name = json_string_value(json_object_get(msg, "method"));
	json_t *params = json_object_get(msg, "params");
	size_t m;

	memset(out, 0, sizeof(*out));
	if (!json_is_integer(id))
		return bad_request(err, "request.invalid", "request without %s",
				   "'id'");
	out->id = json_integer_value(id);
	if (!name)
		return bad_request(err, "request.invalid", "request without %s",
				   "'method'");
	if (!params) {
		params = json_object();
		json_object_set_new(msg, "params", params);
	}
	if (!json_is_object(params))
		return bad_request(err, "request.invalid",
				   "%s is not an object", "'params'");
	out->params = params;
	for (m = 0; m < CONTROL_METHOD_COUNT; m++) {
		if (strcmp(control_methods[m].name, name) == 0)
			break;
	}
	if (m == CONTROL_METHOD_COUNT)
		return bad_request(err, "method.unknown",
				   "unknown method '%.64s'", name);
	out->method = m;
	if (fd_count < control_methods[m].fds_min ||
	    fd_count > control_methods[m].fds_max)
		return bad_request(err, "request.invalid",
				   "method '%s': wrong number of files", name);
	return 0;
}

json_t *control_request_new(json_int_t id, enum control_method method,
			    json_t *params)
{
	return json_pack("{s:I, s:s, s:o}", "id", id, "method",
			 control_methods[method].name, "params",
			 params ? params : json_object());
}

json_t *control_result_new(json_int_t id, json_t *result)
{
	return json_pack("{s:I, s:o}", "id", id, "result",
			 result ? result : json_object());
}

/* Text from a guest or a file name may not be UTF-8, which JSON must be. */
static json_t *string_lossy(const char *text)
{
	json_t *s = json_string(text);
	char *copy;

	if (s)
		return s;
	copy = strdup(text);
	if (!copy)
		return json_string("");
	for (char *p = copy; *p; p++) {
		if ((u8)*p >= 0x80)
			*p = '?';
	}
	s = json_string(copy);
	free(copy);
	return s;
}

json_t *control_error_new(json_int_t id, const struct err *err)
{
	return json_pack("{s:I, s:{s:s, s:i, s:o}}", "id", id, "error", "id",
			 err->id, "code", -err->code, "message",
			 string_lossy(err->text));
}

json_t *control_event_new(const char *event, json_t *fields)
{
	json_t *msg = json_object();

	json_object_set_new(msg, "event", json_string(event));
	if (fields) {
		json_object_update(msg, fields);
		json_decref(fields);
	}
	return msg;
}

json_t *control_exited_new(enum control_exit reason, int status,
			   const char *detail)
{
	ASSERT(reason < CONTROL_EXIT_COUNT);
	return control_event_new(CONTROL_EVENT_EXITED,
				 json_pack("{s:s, s:i, s:o}", "reason",
					   control_exit_names[reason], "status",
					   status, "detail",
					   string_lossy(detail ? detail : "")));
}

static int answer_to_err(const json_t *error, struct err *err)
{
	const char *id = json_string_value(json_object_get(error, "id"));
	const char *text = json_string_value(json_object_get(error, "message"));
	json_int_t code = json_integer_value(json_object_get(error, "code"));

	if (code <= 0 || code > 4095)
		code = EIO;
	err_set(err, -(int)code, "%s", text ? text : "error without a message");
	if (id)
		err_set_id(err, id);
	return -(int)code;
}

/* Reads up to the answer to request id. */
static int await_answer(int fd, json_int_t id, u64 deadline_ns,
			void (*on_event)(void *, json_t *), void *opaque,
			json_t **out_result, struct err *err)
{
	for (;;) {
		int fds[CONTROL_FDS_MAX];
		size_t fd_count = 0;
		json_t *msg = NULL, *error, *result;
		u64 now = clock_mono_ns();
		int left = !deadline_ns ? -1
			   : now >= deadline_ns
				   ? 0
				   : (int)((deadline_ns - now) / 1000000);
		int rc = control_recv(fd, &msg, fds, &fd_count, left, err);

		if (rc == 0)
			return err_set(err, -EPIPE,
				       "the machine's process went away");
		if (rc < 0)
			return rc;
		control_close_fds(fds, fd_count);
		if (json_object_get(msg, "event")) {
			if (on_event)
				on_event(opaque, msg);
			json_decref(msg);
			continue;
		}
		if (json_integer_value(json_object_get(msg, "id")) != id) {
			json_decref(msg);
			continue;
		}
		error = json_object_get(msg, "error");
		result = json_object_get(msg, "result");
		rc = 0;
		if (error)
			rc = answer_to_err(error, err);
		else if (out_result)
			*out_result =
				result ? json_incref(result) : json_object();
		json_decref(msg);
		return rc;
	}
}

int control_call(int fd, enum control_method method, json_t *params,
		 const int *fds, size_t fd_count, int timeout_ms,
		 void (*on_event)(void *opaque, json_t *event), void *opaque,
		 json_t **out_result, struct err *err)
{
	/* One call at a time per connection, but an earlier one may have
	 * timed out: its late answer must not be taken for ours. */
	json_int_t id = (json_int_t)(clock_mono_ns() >> 1);
	json_t *msg = control_request_new(id, method, params);
	u64 deadline = 0;
	int rc = control_send(fd, msg, fds, fd_count, err);

	json_decref(msg);
	if (rc)
		return rc;
	if (timeout_ms >= 0)
		deadline = clock_mono_ns() + (u64)timeout_ms * 1000000 + 1;
	return await_answer(fd, id, deadline, on_event, opaque, out_result,
			    err);
}

json_t *control_status_to_json(const struct control_status *st)
{
	return json_pack(
		"{s:s, s:b, s:s, s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}",
		"state", st->state, "agent", (int)st->is_agent_ready, "engine",
		st->engine, "engine_reason", string_lossy(st->engine_reason),
		"cpus", (json_int_t)st->cpus, "memory_bytes",
		(json_int_t)st->memory_bytes, "pid", (json_int_t)st->pid,
		"uptime_ns", (json_int_t)st->uptime_ns, "cpu_ns",
		(json_int_t)st->cpu_ns, "instructions",
		(json_int_t)st->instructions, "resident_bytes",
		(json_int_t)st->resident_bytes, "guest_resident_bytes",
		(json_int_t)st->guest_resident_bytes);
}

static void copy_str(const json_t *obj, const char *key, char *out, size_t cap)
{
	const char *s = json_string_value(json_object_get(obj, key));

	snprintf(out, cap, "%s", s ? s : "");
}

static u64 get_u64(const json_t *obj, const char *key)
{
	json_int_t v = json_integer_value(json_object_get(obj, key));

	return v < 0 ? 0 : (u64)v;
}

int control_status_from_json(const json_t *obj, struct control_status *out,
			     struct err *err)
{
	if (!json_is_string(json_object_get(obj, "state")))
		return err_set(err, -EPROTO, "status without 'state'");
	memset(out, 0, sizeof(*out));
	copy_str(obj, "state", out->state, sizeof(out->state));
	copy_str(obj, "engine", out->engine, sizeof(out->engine));
	copy_str(obj, "engine_reason", out->engine_reason,
		 sizeof(out->engine_reason));
	out->is_agent_ready = json_is_true(json_object_get(obj, "agent"));
	out->cpus = get_u64(obj, "cpus");
	out->memory_bytes = get_u64(obj, "memory_bytes");
	out->pid = get_u64(obj, "pid");
	out->uptime_ns = get_u64(obj, "uptime_ns");
	out->cpu_ns = get_u64(obj, "cpu_ns");
	out->instructions = get_u64(obj, "instructions");
	out->resident_bytes = get_u64(obj, "resident_bytes");
	out->guest_resident_bytes = get_u64(obj, "guest_resident_bytes");
	return 0;
}
