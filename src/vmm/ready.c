/* SPDX-License-Identifier: Apache-2.0 */
/* The agent's ready notice: a stream from the guest to AGENT_READY_PORT that
 * starts with HELLO. Guests are hostile: few at once, few bytes each. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "api/agent_proto.h"
#include "base/assert.h"
#include "base/log.h"
#include "vmm/vmm.h"

#define HELLOS_MAX	4
#define HELLO_BYTES_MAX 1024

struct hello {
	struct list link;
	struct vmm *vmm;
	struct loop_fd handle;
	int fd;
	u8 bytes[HELLO_BYTES_MAX];
	size_t len;
};

static void hello_free(struct hello *h)
{
	loop_fd_del(&h->handle);
	list_del(&h->link);
	close(h->fd);
	free(h);
}

static void answer_ok(int fd)
{
	struct buf out;

	buf_init(&out);
	agent_frame_append(&out, AGENT_OK, NULL, 0);
	/* A few bytes into an empty socket; the agent retries if not. */
	if (write(fd, out.bytes, out.len) < 0)
		log_debug("the agent's hello could not be answered");
	buf_fini(&out);
}

json_t *ready_event(const struct vmm *v)
{
	return control_event_new(
		CONTROL_EVENT_AGENT_READY,
		json_pack("{s:s}", "hostname", v->agent_hostname));
}

static void agent_is_ready(struct vmm *v, const struct agent_hello *hello)
{
	snprintf(v->agent_hostname, sizeof(v->agent_hostname), "%s",
		 hello->hostname);
	if (v->is_agent_ready)
		return;
	v->is_agent_ready = true;
	server_broadcast(v, ready_event(v));
}

static void hello_event(struct loop_fd *handle, u32 events)
{
	struct hello *h = handle->opaque;
	struct agent_frame frame;
	struct agent_hello hello;
	ssize_t n = read(h->fd, h->bytes + h->len, HELLO_BYTES_MAX - h->len);
	int rc;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		hello_free(h);
		return;
	}
	h->len += (size_t)n;
	rc = agent_frame_parse(h->bytes, h->len, &frame);
	if (rc == 0 && h->len < HELLO_BYTES_MAX)
		return;
	if (rc > 0 && frame.type == AGENT_HELLO &&
	    agent_hello_parse(&frame, &hello) == 0) {
		answer_ok(h->fd);
		agent_is_ready(h->vmm, &hello);
	} else {
		log_guest("the guest sent no valid hello");
	}
	hello_free(h);
}

void ready_accept(struct vmm *v, int fd)
{
	struct hello *h;
	size_t n = 0;

	list_for_each (it, &v->hellos)
		n++;
	if (n >= HELLOS_MAX) {
		close(fd);
		return;
	}
	h = calloc(1, sizeof(*h));
	ASSERT(h);
	h->vmm = v;
	h->fd = fd;
	list_add_tail(&v->hellos, &h->link);
	if (loop_fd_add(v->loop, &h->handle, fd, LOOP_READ, hello_event, h) < 0)
		hello_free(h);
}

void ready_fini(struct vmm *v)
{
	list_for_each_safe (it, &v->hellos)
		hello_free(list_entry(it, struct hello, link));
}
