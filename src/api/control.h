/* SPDX-License-Identifier: Apache-2.0 */
/* The control protocol of skerry-vmm: one JSON object per SOCK_SEQPACKET
 * message, file descriptors beside it by SCM_RIGHTS.
 *
 *   request   {"id": N, "method": "status", "params": {…}}
 *   answer    {"id": N, "result": {…}}
 *             {"id": N, "error": {"id": "vm.stopped", "message": "…"}}
 *   event     {"event": "exited", …}   to every client that has called
 *             "events.subscribe"; events have no "id" key
 *
 * The connection that sent machine.create is subscribed from then on, so that
 * a machine that ends at once is heard. It may close: the machine goes on.
 *
 * Rules: a message is at most CONTROL_MESSAGE_MAX bytes with at most
 * CONTROL_FDS_MAX descriptors; what is larger is refused, and its descriptors
 * are closed. Peers are hostile: duplicate keys, deep nesting and anything
 * but one object is -EPROTO. Descriptors belong to the sender until
 * control_send returns, and to the receiver from control_recv on; they
 * arrive close-on-exec. Any thread; no locks inside.
 */
#pragma once

#include <jansson.h>

#include "base/err.h"
#include "base/types.h"

#define CONTROL_MESSAGE_MAX (64 * 1024)
#define CONTROL_FDS_MAX	    64

enum control_method {
	CONTROL_MACHINE_CREATE,
	CONTROL_STATUS,
	CONTROL_STATISTICS,
	CONTROL_EVENTS_SUBSCRIBE,
	CONTROL_CONSOLE_ATTACH,
	CONTROL_VSOCK_CONNECT,
	CONTROL_MACHINE_STOP,
	CONTROL_MACHINE_KILL,
	CONTROL_MACHINE_RESET,
	CONTROL_MACHINE_PAUSE,
	CONTROL_MACHINE_RESUME,
	CONTROL_SNAPSHOT_CREATE,
	CONTROL_METHOD_COUNT,
};

struct control_method_row {
	const char *name;
	const char *params; /* what the params object holds */
	const char *fds;    /* what is passed beside it; "" for none */
	const char *result;
	u8 fds_min, fds_max;
};
extern const struct control_method_row control_methods[CONTROL_METHOD_COUNT];

/* Sends one message. Does not consume msg or the descriptors. 0 or -errno;
 * -EMSGSIZE when it is too large, -EPIPE when the peer is gone (no
 * SIGPIPE), -EAGAIN when the peer does not read (the call never blocks for
 * longer than a few seconds). */
int control_send(int fd, const json_t *msg, const int *fds, size_t fd_count,
		 struct err *err);

/* Receives one message: returns 1, and 0 at the end of the stream.
 * out_fds has room for CONTROL_FDS_MAX. timeout_ms: -1 waits for ever, 0
 * polls. -ETIMEDOUT, or -EPROTO for a bad message (the connection can go on:
 * the next message starts afresh). The caller owns *out_msg (json_decref)
 * and the descriptors. */
int control_recv(int fd, json_t **out_msg, int *out_fds, size_t *out_fd_count,
		 int timeout_ms, struct err *err);

/* Parses a message's bytes as control_recv does. For tests and fuzzing. */
int control_parse(const void *bytes, size_t len, json_t **out_msg,
		  struct err *err);

void control_close_fds(int *fds, size_t fd_count);

struct control_request {
	json_int_t id;
	enum control_method method;
	json_t *params; /* borrowed from the message; never NULL, an object */
};

/* Checks that msg is a request with a known method and an allowed number of
 * descriptors. On failure *out->id is the request's id when it has one, else
 * 0, so that the error can be answered. The error's id is
 * "method.unknown" or "request.invalid". */
int control_request_parse(json_t *msg, size_t fd_count,
			  struct control_request *out, struct err *err);

/* Message makers; each returns a new object. params/result/fields are stolen
 * and may be NULL for none. */
json_t *control_request_new(json_int_t id, enum control_method method,
			    json_t *params);
json_t *control_result_new(json_int_t id, json_t *result);
json_t *control_error_new(json_int_t id, const struct err *err);
json_t *control_event_new(const char *event, json_t *fields);

/* The client's side: sends a request and waits for its answer. Events that
 * arrive meanwhile go to on_event (NULL: dropped; the message is borrowed).
 * params is stolen. *out_result (NULL allowed) is the caller's. Negative
 * errno with the peer's id and message when it answered with an error;
 * -EPIPE when it went away; -ETIMEDOUT. */
int control_call(int fd, enum control_method method, json_t *params,
		 const int *fds, size_t fd_count, int timeout_ms,
		 void (*on_event)(void *opaque, json_t *event), void *opaque,
		 json_t **out_result, struct err *err);

/* Names of events, and the values of "reason" in "exited". */
#define CONTROL_EVENT_AGENT_READY "agent-ready" /* {hostname} */
/* {done, total}: bytes, of the snapshot that this client asked for. */
#define CONTROL_EVENT_PROGRESS "progress"
/* {reason, status, detail}: status is the exit status that `skerry run`
 * should give, detail is text for a person (the registers at a triple
 * fault), "" when there is nothing to say. Sent last, before the vmm ends. */
#define CONTROL_EVENT_EXITED "exited"

enum control_exit {
	CONTROL_EXIT_POWEROFF,
	CONTROL_EXIT_RESET, /* with no_reboot */
	CONTROL_EXIT_DEBUG, /* "debug-exit": status is (V << 1) | 1 */
	CONTROL_EXIT_TRIPLE_FAULT,
	CONTROL_EXIT_ERROR,
	CONTROL_EXIT_KILLED,
	CONTROL_EXIT_COUNT,
};
extern const char *const control_exit_names[CONTROL_EXIT_COUNT];

json_t *control_exited_new(enum control_exit reason, int status,
			   const char *detail);

/* The answer to "status". */
struct control_status {
	char state[16]; /* "starting", "running", "stopped" */
	bool is_agent_ready;
	char engine[16];	 /* "soft", "kvm" */
	char engine_reason[256]; /* why this engine */
	u32 cpus;
	u64 memory_bytes;
	int pid;
	u64 uptime_ns;
	u64 cpu_ns; /* host CPU time of the process */
	u64 instructions;
	/* Memory of the process, pages that it has mapped twice counted
	 * once; and the part of it that is guest RAM. */
	u64 resident_bytes;
	u64 guest_resident_bytes;
};
json_t *control_status_to_json(const struct control_status *st);
int control_status_from_json(const json_t *obj, struct control_status *out,
			     struct err *err);
