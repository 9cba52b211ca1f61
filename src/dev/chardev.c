/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY
 *
 * Output is first written straight to a descriptor whose buffer is empty; the
 * rest is buffered and LOOP_WRITE is asked for. chardev_write() takes no more
 * than the fullest keeping port can hold, so all ports see the same stream.
 * Input is read only while the front end has room (LOOP_READ is off
 * otherwise), so the peer feels the guest's pace. A regular file cannot be
 * polled: it is always ready.
 */
#include "dev/chardev.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/clock.h"

#define READ_CHUNK 256

struct port {
	struct chardev *chardev;
	struct chardev_port cfg;
	bool in_use;
	bool is_pollable;
	struct loop_fd in, out; /* one handle when the two are one */
	struct buf pending;
	u64 written;
};

struct chardev {
	struct loop *loop;
	struct chardev_front front;
	struct port ports[CHARDEV_PORTS];
	bool is_short; /* the front end waits for writable() */
};

struct chardev *chardev_new(struct loop *loop)
{
	struct chardev *c = calloc(1, sizeof(*c));

	ASSERT(c);
	c->loop = loop;
	return c;
}

void chardev_free(struct chardev *c)
{
	if (!c)
		return;
	memset(&c->front, 0, sizeof(c->front));
	for (int i = 0; i < CHARDEV_PORTS; i++)
		chardev_del_port(c, i);
	free(c);
}

void chardev_set_front(struct chardev *c, const struct chardev_front *front)
{
	if (!c)
		return;
	c->front = *front;
	chardev_can_receive_more(c);
}

static size_t front_room(const struct chardev *c)
{
	if (!c->front.can_receive || !c->front.receive)
		return 0;
	return c->front.can_receive(c->front.opaque);
}

/* Asks the loop for what the port can use now. */
static void port_poll(struct port *p)
{
	u32 in = front_room(p->chardev) ? LOOP_READ : 0;
	u32 out = p->pending.len ? LOOP_WRITE : 0;

	if (!p->is_pollable)
		return;
	if (p->cfg.in_fd == p->cfg.out_fd) {
		loop_fd_set(&p->in, in | out);
		return;
	}
	if (p->cfg.in_fd >= 0)
		loop_fd_set(&p->in, in);
	if (p->cfg.out_fd >= 0)
		loop_fd_set(&p->out, out);
}

/* 0, or -errno when the port is broken. */
static int port_flush(struct port *p)
{
	while (p->pending.len) {
		ssize_t n =
			write(p->cfg.out_fd, p->pending.bytes, p->pending.len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? 0 : -errno;
		buf_consume(&p->pending, n);
	}
	return 0;
}

static int port_index(const struct port *p)
{
	return p - p->chardev->ports;
}

static void tell_writable(struct chardev *c)
{
	if (!c->is_short)
		return;
	c->is_short = false;
	if (c->front.writable)
		c->front.writable(c->front.opaque);
}

static int port_read(struct port *p)
{
	size_t room = front_room(p->chardev);
	u8 bytes[READ_CHUNK];
	ssize_t n;

	if (!room)
		return 0;
	n = read(p->cfg.in_fd, bytes, MIN(room, sizeof(bytes)));
	if (n > 0)
		p->chardev->front.receive(p->chardev->front.opaque, bytes, n);
	else if (n == 0)
		return -EPIPE;
	else if (errno != EAGAIN && errno != EINTR)
		return -errno;
	return 0;
}

/* The end of input only ends the port when output goes the same way. */
static void port_input_ended(struct port *p)
{
	if (p->cfg.in_fd == p->cfg.out_fd || p->cfg.out_fd < 0) {
		chardev_del_port(p->chardev, port_index(p));
		return;
	}
	loop_fd_del(&p->in);
	if (p->cfg.owns_fds)
		close(p->cfg.in_fd);
	p->cfg.in_fd = -1;
}

static void port_ready(struct loop_fd *h, u32 events)
{
	struct port *p = h->opaque;
	struct chardev *c = p->chardev;
	bool is_input = h == &p->in;
	int rc = 0;

	if (is_input && (events & LOOP_READ)) {
		rc = port_read(p);
		if (!rc)
			events &= ~LOOP_HUP; /* read on to the end */
	}
	if (p->in_use && (events & LOOP_WRITE)) {
		if (port_flush(p)) {
			chardev_del_port(c, port_index(p));
			return;
		}
		tell_writable(c);
	}
	if (!p->in_use)
		return;
	if (rc || (events & LOOP_HUP)) {
		if (is_input)
			port_input_ended(p);
		else
			chardev_del_port(c, port_index(p));
	}
	if (p->in_use)
		port_poll(p);
}

static int set_nonblock(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return -errno;
	return 0;
}

static int port_attach(struct port *p, struct loop_fd *h, int fd)
{
	int rc = set_nonblock(fd);

	if (!rc)
		rc = loop_fd_add(p->chardev->loop, h, fd, 0, port_ready, p);
	if (rc == -EPERM) { /* a regular file: always ready */
		p->is_pollable = false;
		rc = 0;
	}
	return rc;
}

int chardev_add_port(struct chardev *c, const struct chardev_port *cfg)
{
	struct port *p = NULL;
	int rc = 0;

	if (!c->loop)
		return -EINVAL;
	for (int i = 0; i < CHARDEV_PORTS && !p; i++)
		if (!c->ports[i].in_use)
			p = &c->ports[i];
	if (!p)
		return -ENOSPC;
	memset(p, 0, sizeof(*p));
	p->chardev = c;
	p->cfg = *cfg;
	p->is_pollable = true;
	if (cfg->in_fd >= 0)
		rc = port_attach(p, &p->in, cfg->in_fd);
	if (!rc && cfg->out_fd >= 0 && cfg->out_fd != cfg->in_fd)
		rc = port_attach(p, &p->out, cfg->out_fd);
	if (rc) {
		loop_fd_del(&p->in);
		loop_fd_del(&p->out);
		return rc;
	}
	buf_init(&p->pending);
	p->in_use = true;
	port_poll(p);
	return port_index(p);
}

void chardev_del_port(struct chardev *c, int n)
{
	struct port *p = &c->ports[n];

	if (!p->in_use)
		return;
	loop_fd_del(&p->in);
	loop_fd_del(&p->out);
	if (p->cfg.owns_fds && p->cfg.in_fd >= 0)
		close(p->cfg.in_fd);
	if (p->cfg.owns_fds && p->cfg.out_fd >= 0 &&
	    p->cfg.out_fd != p->cfg.in_fd)
		close(p->cfg.out_fd);
	buf_fini(&p->pending);
	p->in_use = false;
	tell_writable(c);
}

static void port_write(struct port *p, const void *bytes, size_t n)
{
	size_t room = CHARDEV_BUFFER - p->pending.len;

	if (p->cfg.cap_bytes)
		n = MIN(n, p->cfg.cap_bytes - p->written);
	n = MIN(n, room);
	p->written += n;
	buf_append(&p->pending, bytes, n);
	if (port_flush(p)) {
		chardev_del_port(p->chardev, port_index(p));
		return;
	}
	port_poll(p);
}

static bool port_keeps(const struct port *p)
{
	return p->in_use && p->cfg.out_fd >= 0 && !p->cfg.is_lossy &&
	       !p->cfg.cap_bytes;
}

size_t chardev_write(struct chardev *c, const void *bytes, size_t n)
{
	size_t take = n;

	if (!c)
		return n;
	for (int i = 0; i < CHARDEV_PORTS; i++)
		if (port_keeps(&c->ports[i]))
			take = MIN(take,
				   CHARDEV_BUFFER - c->ports[i].pending.len);
	c->is_short = take < n;
	for (int i = 0; take && i < CHARDEV_PORTS; i++)
		if (c->ports[i].in_use && c->ports[i].cfg.out_fd >= 0)
			port_write(&c->ports[i], bytes, take);
	return take;
}

void chardev_can_receive_more(struct chardev *c)
{
	if (!c)
		return;
	for (int i = 0; i < CHARDEV_PORTS; i++)
		if (c->ports[i].in_use)
			port_poll(&c->ports[i]);
}

void chardev_drain(struct chardev *c, int timeout_ms)
{
	u64 deadline_ns = clock_mono_ns() + (u64)timeout_ms * 1000000;

	for (int i = 0; i < CHARDEV_PORTS; i++) {
		struct port *p = &c->ports[i];
		struct pollfd pfd = {.fd = p->cfg.out_fd, .events = POLLOUT};

		while (p->in_use && port_flush(p) == 0 && p->pending.len) {
			u64 now_ns = clock_mono_ns();

			if (now_ns >= deadline_ns)
				return;
			poll(&pfd, 1,
			     (int)((deadline_ns - now_ns) / 1000000) + 1);
		}
	}
}
