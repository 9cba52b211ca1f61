/* SPDX-License-Identifier: Apache-2.0 */
/* FORMAT: each packet is a 44-byte header (struct vsock_header) and `len`
 * bytes; queue 0 carries packets to the guest, 1 from it, 2 events.
 *
 * THEORY
 *
 * Connections with something to send are on the ready list; vsock_pump() gives
 * each one receive buffer in turn. Resets for packets that belong to no
 * connection wait in a ring of their own; when it is nearly full the transmit
 * queue stands still until the guest provides receive buffers, so a flood of
 * bad packets costs nothing.
 *
 * After a load the guest is told that all its connections are gone. Linux then
 * closes what it has at the time when it deals with the event, on another
 * thread than it receives on: a connection that we make before would be closed
 * without a word. So nothing is sent until the event's buffer has come back,
 * which is the driver's last step, or for a second at most.
 *
 * Not modelled: SOCK_SEQPACKET, datagrams.
 * Source: virtio 1.2 §5.10.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/clock.h"
#include "virtio/virtio_pci.h"
#include "virtio/vsock_int.h"

#define VSOCK_RX	     0
#define VSOCK_TX	     1
#define VSOCK_EVENT	     2
#define VSOCK_QUEUE_SIZE     128
#define VSOCK_PUMP_MAX	     256
#define VSOCK_SETTLE_NS	     NS_PER_SEC
#define VSOCK_SETTLE_STEP_NS (NS_PER_SEC / 1000)
#define VSOCK_PORT_FIRST     0x40000000u
#define VSOCK_CLASS	     0x078000

#define VIRTIO_VSOCK_EVENT_TRANSPORT_RESET 0

_Static_assert(sizeof(struct vsock_header) == VSOCK_HEADER_BYTES, "header");

static struct vsock *vsock_of(struct virtio_device *v)
{
	return container_of(v, struct vsock, v);
}

static u32 resets_waiting(const struct vsock *d)
{
	return d->reset_tail - d->reset_head;
}

void vsock_reset_queue(struct vsock *d, u32 host_port, u32 guest_port)
{
	u32 i = d->reset_tail % VSOCK_RESETS;

	if (resets_waiting(d) == VSOCK_RESETS)
		return;
	d->resets[i].host_port = host_port;
	d->resets[i].guest_port = guest_port;
	d->reset_tail++;
}

/* ---- to the guest ---- */

static void packet_push(struct vsock *d, struct vsock_header *h)
{
	struct virtqueue *q = &d->v.queues[VSOCK_RX];

	buf_to_iov(virtq_chain_writable(&d->rx), d->rx.writable_count, 0, h,
		   sizeof(*h));
	virtio_push(&d->v, q, &d->rx, VSOCK_HEADER_BYTES + (u64)h->len);
}

/* Sends one packet of whoever is first; false when nobody has any. d->rx
 * holds a chain, which is used up only when true is returned. */
static bool pump_one(struct vsock *d)
{
	struct vsock_header h = {
		.src_cid = VSOCK_CID_HOST,
		.dst_cid = d->guest_cid,
		.type = VIRTIO_VSOCK_TYPE_STREAM,
	};
	struct vsock_conn *c;

	if (resets_waiting(d)) {
		u32 i = d->reset_head++ % VSOCK_RESETS;

		h.op = VIRTIO_VSOCK_OP_RST;
		h.src_port = d->resets[i].host_port;
		h.dst_port = d->resets[i].guest_port;
		packet_push(d, &h);
		return true;
	}
	while (!list_is_empty(&d->ready)) {
		c = list_entry(d->ready.next, struct vsock_conn, ready);
		list_del(&c->ready);
		if (vsock_conn_emit(c, &h, &d->rx) >= 0) {
			/* c may be gone; if not, it is ready again */
			packet_push(d, &h);
			return true;
		}
	}
	return false;
}

void vsock_pump(struct vsock *d)
{
	struct virtqueue *q = &d->v.queues[VSOCK_RX];
	int budget = VSOCK_PUMP_MAX;

	if (d->is_settling)
		return;
	while (resets_waiting(d) || !list_is_empty(&d->ready)) {
		if (!budget--) {
			d->v.transport->kick_self(&d->v, VSOCK_RX);
			break;
		}
		if (!virtio_pop(&d->v, q, &d->rx)) {
			if (virtio_is_live(&d->v) && virtqueue_kick_enable(q))
				continue;
			break;
		}
		if (d->rx.writable_bytes <= VSOCK_HEADER_BYTES) {
			virtio_fail(&d->v, "receive buffer without room");
			break;
		}
		if (!pump_one(d)) {
			virtqueue_unpop(q, 1);
			break;
		}
	}
	virtio_call(&d->v, q);
	if (d->is_tx_blocked && resets_waiting(d) < VSOCK_RESETS_HIGH) {
		d->is_tx_blocked = false;
		d->v.transport->kick_self(&d->v, VSOCK_TX);
	}
}

/* ---- from the guest ---- */

static void request_accept(struct vsock *d, const struct vsock_header *h)
{
	struct vsock_listen *l = NULL;
	struct vsock_conn *c;
	int fds[2];

	for (size_t i = 0; i < d->listen_count; i++)
		if (d->listens[i].port == h->dst_port)
			l = &d->listens[i];
	if (!l || d->conn_count >= VSOCK_CONNS_MAX ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0,
		       fds)) {
		vsock_reset_queue(d, h->dst_port, h->src_port);
		return;
	}
	c = vsock_conn_new(d, h->dst_port, h->src_port, fds[0]);
	if (!c) {
		close(fds[0]);
		close(fds[1]);
		vsock_reset_queue(d, h->dst_port, h->src_port);
		return;
	}
	c->guest_buf_alloc = h->buf_alloc;
	c->guest_fwd_cnt = h->fwd_cnt;
	c->pending_op = VIRTIO_VSOCK_OP_RESPONSE;
	list_add_tail(&d->ready, &c->ready);
	l->on_accept(l->opaque, fds[1]);
}

static void packet_receive(struct vsock *d, const struct vsock_header *h)
{
	struct vsock_conn *c;

	if (h->src_cid != d->guest_cid)
		return; /* not the guest's to say */
	if (h->dst_cid != VSOCK_CID_HOST ||
	    h->type != VIRTIO_VSOCK_TYPE_STREAM) {
		if (h->op != VIRTIO_VSOCK_OP_RST)
			vsock_reset_queue(d, h->dst_port, h->src_port);
		return;
	}
	c = vsock_conn_find(d, h->dst_port, h->src_port);
	if (c)
		vsock_conn_receive(c, h, d->packet);
	else if (h->op == VIRTIO_VSOCK_OP_REQUEST)
		request_accept(d, h);
	else if (h->op != VIRTIO_VSOCK_OP_RST)
		vsock_reset_queue(d, h->dst_port, h->src_port);
}

static enum virtio_step tx_step(struct virtio_device *v, struct virtqueue *q)
{
	struct vsock *d = vsock_of(v);
	struct vsock_header h;
	const struct iovec *iov;
	bool is_sound;

	if (resets_waiting(d) >= VSOCK_RESETS_HIGH) {
		d->is_tx_blocked = true;
		return VIRTIO_STEP_BLOCKED;
	}
	if (!virtio_pop(v, q, &d->tx))
		return VIRTIO_STEP_EMPTY;
	iov = virtq_chain_readable(&d->tx);
	is_sound = iov_to_buf(iov, d->tx.readable_count, 0, &h, sizeof(h)) ==
			   sizeof(h) &&
		   h.len <= sizeof(d->packet) &&
		   h.len <= d->tx.readable_bytes - sizeof(h);
	if (is_sound)
		iov_to_buf(iov, d->tx.readable_count, sizeof(h), d->packet,
			   h.len);
	virtio_push(v, q, &d->tx, 0);
	if (is_sound)
		packet_receive(d, &h);
	return VIRTIO_STEP_DONE;
}

static void event_send(struct vsock *d, struct virtqueue *q)
{
	u8 event[4] = {VIRTIO_VSOCK_EVENT_TRANSPORT_RESET};
	size_t n;

	if (!d->is_event_pending || !virtio_pop(&d->v, q, &d->tx))
		return;
	n = buf_to_iov(virtq_chain_writable(&d->tx), d->tx.writable_count, 0,
		       event, sizeof(event));
	d->events_left = virtqueue_available(q);
	virtio_push(&d->v, q, &d->tx, n);
	d->is_event_pending = false;
	virtio_call(&d->v, q);
}

static void settle_begin(struct vsock *d)
{
	d->is_event_pending = d->is_settling = true;
	d->settle_end_ns = clock_mono_ns() + VSOCK_SETTLE_NS;
	loop_timer_arm(&d->settle, clock_mono_ns() + VSOCK_SETTLE_STEP_NS);
}

static void settle_end(struct vsock *d)
{
	d->is_event_pending = d->is_settling = false;
	loop_timer_disarm(&d->settle);
}

/* Looks now and then: the driver need not kick for the buffer. */
static void on_settle(struct loop_timer *t)
{
	struct vsock *d = t->opaque;
	struct virtqueue *q = &d->v.queues[VSOCK_EVENT];

	event_send(d, q);
	if (clock_mono_ns() < d->settle_end_ns &&
	    (d->is_event_pending || virtqueue_available(q) <= d->events_left)) {
		loop_timer_arm(t, clock_mono_ns() + VSOCK_SETTLE_STEP_NS);
		return;
	}
	d->is_settling = false;
	vsock_pump(d);
}

static void vsock_handle_queue(struct virtio_device *v, struct virtqueue *q)
{
	struct vsock *d = vsock_of(v);

	if (q->index == VSOCK_TX)
		virtio_queue_run(v, q, tx_step);
	if (q->index == VSOCK_EVENT)
		event_send(d, q);
	else
		vsock_pump(d);
}

/* ---- the host's side ---- */

static u32 port_choose(struct vsock *d, u32 guest_port)
{
	do { /* ends: there are more ports than connections */
		d->next_port++;
		if (d->next_port < VSOCK_PORT_FIRST || d->next_port == ~0u)
			d->next_port = VSOCK_PORT_FIRST;
	} while (vsock_conn_find(d, d->next_port, guest_port));
	return d->next_port;
}

int vsock_connect(struct vsock *d, u32 guest_port, int fd)
{
	struct vsock_conn *c;

	if (!virtio_is_live(&d->v))
		return -ENOTCONN;
	c = vsock_conn_new(d, port_choose(d, guest_port), guest_port, fd);
	if (!c)
		return -ENOBUFS;
	c->pending_op = VIRTIO_VSOCK_OP_REQUEST;
	list_add_tail(&d->ready, &c->ready);
	d->v.transport->kick_self(&d->v, VSOCK_RX);
	return 0;
}

int vsock_listen(struct vsock *d, u32 host_port,
		 void (*on_accept)(void *opaque, int fd), void *opaque)
{
	for (size_t i = 0; i < d->listen_count; i++)
		if (d->listens[i].port == host_port)
			return -EADDRINUSE;
	if (d->listen_count == VSOCK_LISTENS_MAX)
		return -ENOSPC;
	d->listens[d->listen_count++] = (struct vsock_listen){
		.port = host_port,
		.on_accept = on_accept,
		.opaque = opaque,
	};
	return 0;
}

static void conns_close(struct vsock *d)
{
	for (int i = 0; i < VSOCK_BUCKETS; i++) {
		list_for_each_safe (it, &d->buckets[i]) {
			vsock_conn_free(list_entry(it, struct vsock_conn, link),
					false);
		}
	}
	ASSERT(d->conn_count == 0);
}

static void vsock_reset(struct virtio_device *v)
{
	struct vsock *d = vsock_of(v);

	conns_close(d);
	d->reset_head = d->reset_tail = 0;
	d->is_tx_blocked = false;
	settle_end(d);
}

/* Connections and the event itself are not saved: every load makes the event
 * pending. */
static void vsock_post_load(struct virtio_device *v)
{
	if (v->status & VIRTIO_CONFIG_S_DRIVER_OK)
		settle_begin(vsock_of(v));
}

static void vsock_free(struct virtio_device *v)
{
	conns_close(vsock_of(v));
	loop_timer_disarm(&vsock_of(v)->settle);
	free(vsock_of(v));
}

static const struct virtio_ops vsock_ops = {
	.type = "virtio-vsock",
	.handle_queue = vsock_handle_queue,
	.reset = vsock_reset,
	.post_load = vsock_post_load,
	.free = vsock_free,
};

int virtio_vsock_new(const struct virtio_vsock_config *cfg, struct vsock **out,
		     struct err *err)
{
	struct vsock *d;
	int rc;

	if (cfg->guest_cid <= VSOCK_CID_HOST || cfg->guest_cid == ~0u)
		return err_set(err, -EINVAL, "add device '%s': bad guest cid",
			       cfg->at.name);
	d = calloc(1, sizeof(*d));
	if (!d)
		return err_sys(err, -ENOMEM, "add device '%s'", cfg->at.name);
	virtio_device_init(&d->v, &vsock_ops, &cfg->at, VIRTIO_ID_VSOCK, 0);
	loop_timer_init(cfg->at.loop, &d->settle, on_settle, d);
	for (int i = 0; i < 3; i++)
		virtio_queue_add(&d->v, VSOCK_QUEUE_SIZE);
	for (int i = 0; i < VSOCK_BUCKETS; i++)
		list_init(&d->buckets[i]);
	list_init(&d->ready);
	d->guest_cid = cfg->guest_cid;
	st_le64(d->v.config, cfg->guest_cid);
	d->v.config_bytes = 8;
	rc = virtio_pci_plug(&d->v, &cfg->at, VSOCK_CLASS, err);
	if (!rc)
		*out = d;
	return rc;
}
