/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY
 *
 * One connection. Credit runs both ways, in free-running 32-bit counts
 * (virtio 1.2 §5.10.6.3):
 *
 *	guest to host: we announce buf_alloc = VSOCK_BUF_BYTES and fwd_cnt; a
 *	    packet that does not fit into the ring breaks the rule: RST.
 *	host to guest: in flight = tx_cnt - guest_fwd_cnt; we may send
 *	    guest_buf_alloc - in flight. Announced values that make this
 *	    negative are no credit.
 *
 * The descriptor is read only when there is credit and a receive buffer, so
 * the host side feels back-pressure in its own socket buffer. It is watched
 * for reading only while a read might succeed, and not at all once it has
 * hung up, so a level-triggered loop never spins.
 *
 * End of life: the host's end of file becomes SHUTDOWN(SEND), a hang-up
 * SHUTDOWN(both). The guest's SHUTDOWN(SEND) becomes shutdown(SHUT_WR) after
 * the ring is empty. When no direction is left, RST, and the connection goes.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "virtio/vsock_int.h"

static struct list *bucket_of(struct vsock *d, u32 host_port, u32 guest_port)
{
	u32 hash = (host_port * 0x9e3779b1u) ^ (guest_port * 0x85ebca6bu);

	return &d->buckets[(hash >> 16) % VSOCK_BUCKETS];
}

struct vsock_conn *vsock_conn_find(struct vsock *d, u32 host_port,
				   u32 guest_port)
{
	list_for_each (it, bucket_of(d, host_port, guest_port)) {
		struct vsock_conn *c = list_entry(it, struct vsock_conn, link);

		if (c->host_port == host_port && c->guest_port == guest_port)
			return c;
	}
	return NULL;
}

static u32 credit(const struct vsock_conn *c)
{
	u32 in_flight = c->tx_cnt - c->guest_fwd_cnt;

	return in_flight < c->guest_buf_alloc ? c->guest_buf_alloc - in_flight
					      : 0;
}

static bool may_read(const struct vsock_conn *c)
{
	return c->is_open && c->fd >= 0 && !c->is_host_eof && credit(c) &&
	       !(c->guest_shutdown & VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE);
}

bool vsock_conn_has_output(const struct vsock_conn *c)
{
	return c->pending_op || c->wants_credit_update ||
	       (c->is_readable && may_read(c));
}

/* Has the loop look at what can make progress. */
static void conn_update(struct vsock_conn *c)
{
	u32 events = 0;

	if (may_read(c) && !c->is_readable)
		events |= LOOP_READ;
	if (c->ring_bytes && !c->is_write_dead)
		events |= LOOP_WRITE;
	if (c->watch.loop)
		loop_fd_set(&c->watch, events);
	if (vsock_conn_has_output(c) && list_is_empty(&c->ready))
		list_add_tail(&c->d->ready, &c->ready);
}

static void fd_close(struct vsock_conn *c)
{
	loop_fd_del(&c->watch);
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
}

void vsock_conn_free(struct vsock_conn *c, bool send_rst)
{
	if (send_rst)
		vsock_reset_queue(c->d, c->host_port, c->guest_port);
	fd_close(c);
	list_del(&c->ready);
	list_del(&c->link);
	c->d->conn_count--;
	free(c->ring);
	free(c);
}

static void forwarded(struct vsock_conn *c, u32 n)
{
	c->ring_head = (c->ring_head + n) % VSOCK_BUF_BYTES;
	c->ring_bytes -= n;
	c->fwd_cnt += n;
	if (c->fwd_cnt - c->fwd_sent >= VSOCK_BUF_BYTES / 4)
		c->wants_credit_update = true;
}

/* Writes the ring to the descriptor as far as it takes it. */
static void conn_flush(struct vsock_conn *c)
{
	while (c->ring_bytes) {
		u32 part = MIN(c->ring_bytes, VSOCK_BUF_BYTES - c->ring_head);
		ssize_t n = part;

		if (!c->is_write_dead && c->fd >= 0)
			n = send(c->fd, c->ring + c->ring_head, part,
				 MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return;
		if (n < 0) {
			c->is_write_dead = true;
			c->is_readable = true; /* see the end of file */
			n = part;
		}
		forwarded(c, (u32)n);
	}
	if (c->guest_shutdown & VIRTIO_VSOCK_SHUTDOWN_F_SEND && c->fd >= 0)
		shutdown(c->fd, SHUT_WR);
}

/* Frees the connection when no direction is left; true then. */
static bool conn_end_if_done(struct vsock_conn *c)
{
	bool no_in = c->guest_shutdown & VIRTIO_VSOCK_SHUTDOWN_F_SEND &&
		     !c->ring_bytes;
	bool no_out = c->guest_shutdown & VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE ||
		      c->is_host_eof;

	if (!no_in || !no_out)
		return false;
	vsock_conn_free(c, true);
	return true;
}

static void on_fd(struct loop_fd *h, u32 events)
{
	struct vsock_conn *c = h->opaque;
	struct vsock *d = c->d;

	if (events & LOOP_HUP) {
		loop_fd_del(&c->watch);
		c->is_write_dead = true;
	}
	if (events & (LOOP_READ | LOOP_HUP))
		c->is_readable = true;
	conn_flush(c);
	if (!conn_end_if_done(c))
		conn_update(c);
	vsock_pump(d);
}

struct vsock_conn *vsock_conn_new(struct vsock *d, u32 host_port,
				  u32 guest_port, int fd)
{
	struct vsock_conn *c;

	if (d->conn_count >= VSOCK_CONNS_MAX)
		return NULL;
	c = calloc(1, sizeof(*c));
	if (!c)
		return NULL;
	c->ring = malloc(VSOCK_BUF_BYTES);
	if (!c->ring || loop_fd_add(d->v.loop, &c->watch, fd, 0, on_fd, c)) {
		free(c->ring);
		free(c);
		return NULL;
	}
	c->d = d;
	c->host_port = host_port;
	c->guest_port = guest_port;
	c->fd = fd;
	list_init(&c->ready);
	list_add_tail(bucket_of(d, host_port, guest_port), &c->link);
	d->conn_count++;
	return c;
}

static bool ring_put(struct vsock_conn *c, const u8 *bytes, u32 len)
{
	u32 at = (c->ring_head + c->ring_bytes) % VSOCK_BUF_BYTES;
	u32 first = MIN(len, VSOCK_BUF_BYTES - at);

	if (len > VSOCK_BUF_BYTES - c->ring_bytes)
		return false;
	memcpy(c->ring + at, bytes, first);
	memcpy(c->ring, bytes + first, len - first);
	c->ring_bytes += len;
	return true;
}

void vsock_conn_receive(struct vsock_conn *c, const struct vsock_header *h,
			const u8 *payload)
{
	bool is_valid = c->is_open;

	c->guest_buf_alloc = h->buf_alloc;
	c->guest_fwd_cnt = h->fwd_cnt;
	switch (h->op) {
	case VIRTIO_VSOCK_OP_RESPONSE:
		is_valid = !c->is_open && !c->pending_op;
		c->is_open = true;
		break;
	case VIRTIO_VSOCK_OP_RW:
		is_valid = is_valid && ring_put(c, payload, h->len) &&
			   !(c->guest_shutdown & VIRTIO_VSOCK_SHUTDOWN_F_SEND);
		break;
	case VIRTIO_VSOCK_OP_SHUTDOWN:
		c->guest_shutdown |= h->flags & 3;
		break;
	case VIRTIO_VSOCK_OP_CREDIT_REQUEST:
		c->wants_credit_update = true;
		break;
	case VIRTIO_VSOCK_OP_CREDIT_UPDATE:
		break;
	case VIRTIO_VSOCK_OP_RST:
		conn_flush(c);
		vsock_conn_free(c, false);
		return;
	default: /* REQUEST for a connection that exists, unknown */
		is_valid = false;
		break;
	}
	if (!is_valid) {
		vsock_conn_free(c, true);
		return;
	}
	conn_flush(c);
	if (!conn_end_if_done(c))
		conn_update(c);
}

static void header_credit(struct vsock_conn *c, struct vsock_header *h)
{
	h->src_port = c->host_port;
	h->dst_port = c->guest_port;
	h->buf_alloc = VSOCK_BUF_BYTES;
	h->fwd_cnt = c->fwd_cnt;
	c->fwd_sent = c->fwd_cnt;
	c->wants_credit_update = false;
}

/* Reads into the chain behind the header; 0 at the end, or -EAGAIN. */
static ssize_t fd_read(struct vsock_conn *c, const struct virtq_chain *chain)
{
	struct iovec iov[VIRTQ_SEGMENTS_MAX];
	u64 room = chain->writable_bytes - VSOCK_HEADER_BYTES;
	u64 len = MIN(MIN(room, VSOCK_PACKET_MAX), credit(c));
	int count =
		iov_slice(virtq_chain_writable(chain), chain->writable_count,
			  VSOCK_HEADER_BYTES, len, iov);
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = (size_t)count};
	ssize_t n;

	if (count <= 0)
		return -EAGAIN;
	do
		n = recvmsg(c->fd, &msg, MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EAGAIN ? -EAGAIN : 0;
	return n;
}

int vsock_conn_emit(struct vsock_conn *c, struct vsock_header *h,
		    const struct virtq_chain *chain)
{
	ssize_t n;

	h->op = VIRTIO_VSOCK_OP_CREDIT_UPDATE;
	if (c->pending_op) {
		h->op = c->pending_op;
		if (c->pending_op == VIRTIO_VSOCK_OP_RESPONSE)
			c->is_open = true;
		c->pending_op = 0;
		header_credit(c, h);
		conn_update(c);
		return 0;
	}
	if (!c->is_readable || !may_read(c)) {
		if (!c->wants_credit_update)
			return -EAGAIN;
		header_credit(c, h);
		return 0;
	}
	n = fd_read(c, chain);
	if (n < 0) {
		c->is_readable = false;
		conn_update(c);
		return -EAGAIN;
	}
	header_credit(c, h);
	if (n > 0) {
		h->op = VIRTIO_VSOCK_OP_RW;
		h->len = (u32)n;
		c->tx_cnt += (u32)n;
		conn_update(c);
		return (int)n;
	}
	h->op = VIRTIO_VSOCK_OP_SHUTDOWN;
	h->flags = VIRTIO_VSOCK_SHUTDOWN_F_SEND;
	if (c->is_write_dead) {
		h->flags |= VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE;
		fd_close(c);
	}
	c->is_host_eof = true;
	if (!conn_end_if_done(c))
		conn_update(c);
	return 0;
}
