/* SPDX-License-Identifier: Apache-2.0 */
/* Clients of the control socket and the methods. A client that sends what
 * cannot be parsed gets an error and stays; one that does not read its
 * answers is dropped. */
#include "vmm/vmm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"

#define CLIENTS_MAX 64

struct client {
	struct list link;
	struct vmm *vmm;
	struct loop_fd handle;
	int fd;
	bool is_subscribed, is_owner;
	bool holds_pause;      /* the machine goes on when it leaves */
	json_int_t request_id; /* of the request that is being handled */
	size_t request_fds;
};

/* A method: fills *out_result (may stay NULL) or err, or answers later. Takes
 * the descriptors that it sets to -1 in fds. */
typedef int (*method_fn)(struct vmm *v, struct client *c, json_t *params,
			 int *fds, json_t **out_result, struct err *err);

static int method_create(struct vmm *v, struct client *c, json_t *params,
			 int *fds, json_t **out_result, struct err *err)
{
	err_set(err, -EEXIST, "this process has its machine already");
	err_set_id(err, "machine.exists");
	return -EEXIST;
}

static u64 stat_value(const struct machine_info *info, const char *name)
{
	for (size_t i = 0; i < info->stat_count; i++)
		if (strcmp(info->stats[i].name, name) == 0)
			return info->stats[i].value;
	return 0;
}

static int method_status(struct vmm *v, struct client *c, json_t *params,
			 int *fds, json_t **out_result, struct err *err)
{
	struct machine_info info;
	struct vmm_memory memory;
	struct control_status st = {
		.is_agent_ready = v->is_agent_ready,
		.cpus = v->config.cpus,
		.memory_bytes = v->config.memory_bytes,
		.pid = getpid(),
		.uptime_ns = clock_mono_ns() - v->started_ns,
	};

	machine_info(v->machine, &info);
	vmm_memory(v, &info, &memory);
	st.cpu_ns = info.cpu_ns;
	st.guest_resident_bytes = memory.guest_kib * KIB;
	st.resident_bytes = (memory.guest_kib + memory.anon_kib +
			     memory.file_kib + memory.code_kib) *
			    KIB;
	st.instructions = stat_value(&info, "instructions");
	snprintf(st.state, sizeof(st.state), "%s",
		 machine_is_running(v->machine) ? "running" : "paused");
	snprintf(st.engine, sizeof(st.engine), "%s", info.engine);
	snprintf(st.engine_reason, sizeof(st.engine_reason), "%s",
		 info.engine_reason);
	*out_result = control_status_to_json(&st);
	return 0;
}

static int method_statistics(struct vmm *v, struct client *c, json_t *params,
			     int *fds, json_t **out_result, struct err *err)
{
	*out_result = vmm_statistics(v);
	return 0;
}

void server_event(struct client *c, json_t *event)
{
	if (control_send(c->fd, event, NULL, 0, NULL) < 0)
		log_debug("a client does not take events");
	json_decref(event);
}

static int method_subscribe(struct vmm *v, struct client *c, json_t *params,
			    int *fds, json_t **out_result, struct err *err)
{
	c->is_subscribed = true;
	/* What the client would otherwise have missed. */
	if (v->is_agent_ready)
		server_event(c, ready_event(v));
	return 0;
}

static int method_console(struct vmm *v, struct client *c, json_t *params,
			  int *fds, json_t **out_result, struct err *err)
{
	struct chardev_port port = {
		.in_fd = fds[0],
		.out_fd = fds[0],
		.owns_fds = true,
		.is_lossy = true,
	};
	int rc = chardev_add_port(v->console, &port);

	if (rc < 0)
		return err_sys(err, rc, "attach to the console");
	fds[0] = -1;
	return 0;
}

static int method_vsock(struct vmm *v, struct client *c, json_t *params,
			int *fds, json_t **out_result, struct err *err)
{
	json_int_t port = json_integer_value(json_object_get(params, "port"));
	int rc;

	if (port < 1 || port > 0xfffffffell)
		return err_set(err, -EINVAL,
			       "'port' must be a vsock port number");
	rc = machine_vsock_connect(v->machine, (u32)port, fds[0]);
	if (rc < 0)
		return err_sys(err, rc, "connect to vsock port %lld",
			       (long long)port);
	fds[0] = -1;
	return 0;
}

static int method_stop(struct vmm *v, struct client *c, json_t *params,
		       int *fds, json_t **out_result, struct err *err)
{
	machine_power_button(v->machine);
	return 0;
}

static int method_kill(struct vmm *v, struct client *c, json_t *params,
		       int *fds, json_t **out_result, struct err *err)
{
	vmm_exit(v, CONTROL_EXIT_KILLED, 1, "");
	return 0;
}

static int method_reset(struct vmm *v, struct client *c, json_t *params,
			int *fds, json_t **out_result, struct err *err)
{
	machine_reset(v->machine);
	return 0;
}

static int method_pause(struct vmm *v, struct client *c, json_t *params,
			int *fds, json_t **out_result, struct err *err)
{
	c->holds_pause = true;
	machine_pause(v->machine);
	return 0;
}

static int method_resume(struct vmm *v, struct client *c, json_t *params,
			 int *fds, json_t **out_result, struct err *err)
{
	list_for_each (it, &v->clients)
		list_entry(it, struct client, link)->holds_pause = false;
	if (v->is_held)
		vmm_let_go(v);
	else
		machine_resume(v->machine);
	return 0;
}

static int method_snapshot(struct vmm *v, struct client *c, json_t *params,
			   int *fds, json_t **out_result, struct err *err)
{
	return snapshot_create(v, c, c->request_id, params, fds, c->request_fds,
			       err);
}

static const method_fn methods[CONTROL_METHOD_COUNT] = {
	[CONTROL_MACHINE_CREATE] = method_create,
	[CONTROL_STATUS] = method_status,
	[CONTROL_STATISTICS] = method_statistics,
	[CONTROL_EVENTS_SUBSCRIBE] = method_subscribe,
	[CONTROL_CONSOLE_ATTACH] = method_console,
	[CONTROL_VSOCK_CONNECT] = method_vsock,
	[CONTROL_MACHINE_STOP] = method_stop,
	[CONTROL_MACHINE_KILL] = method_kill,
	[CONTROL_MACHINE_RESET] = method_reset,
	[CONTROL_MACHINE_PAUSE] = method_pause,
	[CONTROL_MACHINE_RESUME] = method_resume,
	[CONTROL_SNAPSHOT_CREATE] = method_snapshot,
};

static void client_free(struct client *c)
{
	struct vmm *v = c->vmm;

	snapshot_client_gone(v, c);
	if (v->is_held && c->is_owner)
		vmm_exit(v, CONTROL_EXIT_KILLED, 1, "its owner went away");
	else if (c->holds_pause && v->machine && !v->is_held)
		machine_resume(v->machine);
	loop_fd_del(&c->handle);
	list_del(&c->link);
	close(c->fd);
	free(c);
}

static bool answer(struct client *c, json_int_t id, int rc, json_t *result,
		   const struct err *err)
{
	json_t *msg = rc < 0 ? control_error_new(id, err)
			     : control_result_new(id, result);
	bool ok = control_send(c->fd, msg, NULL, 0, NULL) == 0;

	if (rc < 0)
		json_decref(result);
	json_decref(msg);
	return ok;
}

void server_answer(struct client *c, json_int_t id, int rc, json_t *result,
		   const struct err *err)
{
	if (!answer(c, id, rc, result, err))
		log_debug("a client does not take its answer");
}

/* Answers one request; false when the client does not take the answer. */
static bool client_request(struct client *c, json_t *msg, int *fds,
			   size_t fd_count)
{
	struct control_request req;
	struct err err = {0};
	json_t *result = NULL;
	int rc = control_request_parse(msg, fd_count, &req, &err);

	c->request_id = req.id;
	c->request_fds = fd_count;
	if (rc == 0)
		rc = methods[req.method](c->vmm, c, req.params, fds, &result,
					 &err);
	return rc == METHOD_LATER || answer(c, req.id, rc, result, &err);
}

static void client_event(struct loop_fd *h, u32 events)
{
	struct client *c = h->opaque;
	json_t *msg = NULL;
	int fds[CONTROL_FDS_MAX];
	size_t fd_count = 0;
	struct err err = {0};
	int rc = control_recv(c->fd, &msg, fds, &fd_count, 0, &err);
	bool keep;

	if (rc == -ETIMEDOUT)
		return;
	if (rc == -EPROTO) {
		json_t *answer = control_error_new(0, &err);

		keep = control_send(c->fd, answer, NULL, 0, NULL) == 0;
		json_decref(answer);
	} else {
		keep = rc > 0 && client_request(c, msg, fds, fd_count);
		control_close_fds(fds, fd_count);
		json_decref(msg);
	}
	if (!keep)
		client_free(c);
}

int server_add_client(struct vmm *v, int fd, bool is_subscribed)
{
	struct client *c;
	size_t n = 0;
	int rc;

	list_for_each (it, &v->clients)
		n++;
	if (n >= CLIENTS_MAX) {
		close(fd);
		return -EMFILE;
	}
	c = calloc(1, sizeof(*c));
	ASSERT(c);
	c->vmm = v;
	c->fd = fd;
	c->is_subscribed = is_subscribed;
	c->is_owner = fd == OWNER_FD;
	list_add_tail(&v->clients, &c->link);
	rc = loop_fd_add(v->loop, &c->handle, fd, LOOP_READ, client_event, c);
	if (rc < 0)
		client_free(c);
	return rc;
}

static void listener_event(struct loop_fd *h, u32 events)
{
	struct vmm *v = h->opaque;
	int fd = accept4(v->listen_fd, NULL, NULL, SOCK_CLOEXEC);

	if (fd >= 0)
		server_add_client(v, fd, false);
}

int server_listen(struct vmm *v, int fd)
{
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	v->listen_fd = fd;
	return loop_fd_add(v->loop, &v->listener, fd, LOOP_READ, listener_event,
			   v);
}

void server_broadcast(struct vmm *v, json_t *event)
{
	list_for_each_safe (it, &v->clients) {
		struct client *c = list_entry(it, struct client, link);

		if (c->is_subscribed)
			server_event(c, json_incref(event));
	}
	json_decref(event);
}

void server_fini(struct vmm *v)
{
	loop_fd_del(&v->listener);
	if (v->listen_fd >= 0)
		close(v->listen_fd);
	list_for_each_safe (it, &v->clients)
		client_free(list_entry(it, struct client, link));
}
