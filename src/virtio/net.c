/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY
 *
 * Queue 0 receives, queue 1 transmits. Each frame has a 12-byte header, all
 * zeros but for num_buffers on receive, since no offload is offered; a
 * driver's transmit header is read over and ignored.
 *
 * Receiving: the backend asks can_receive() first: true when the queue has a
 * buffer and no frame waits. A frame needs one buffer, or as many as it takes
 * with MRG_RXBUF, published together. When they do not suffice (yet), the one
 * frame waits here, and the next kick of the receive queue delivers it; so a
 * driver that gives buffers back one by one costs one frame of memory. A frame
 * that can never fit (a buffer without MRG_RXBUF that is too small, or the
 * whole ring) is dropped.
 *
 * Transmitting: a frame of less than 14 or more than NET_FRAME_MAX bytes is
 * dropped.
 *
 * Not modelled: offloads, control queue, multiple queue pairs.
 * Source: virtio 1.2 §5.1.6.
 */
#include <errno.h>
#include <stdlib.h>

#include "virtio/net.h"
#include "virtio/virtio_pci.h"

#define VIRTIO_NET_F_MAC       5
#define VIRTIO_NET_F_MRG_RXBUF 15
#define VIRTIO_NET_F_STATUS    16

#define VIRTIO_NET_S_LINK_UP 1

#define NET_RX		 0
#define NET_TX		 1
#define NET_QUEUE_SIZE	 256
#define NET_HEADER_BYTES 12
#define NET_NUM_BUFFERS	 10 /* offset in the header */
#define NET_FRAME_MIN	 14
#define NET_CONFIG_BYTES 8
#define NET_CLASS	 0x020000
/* Buffers that one frame may take: bounds the work for a driver that posts
 * buffers of a few bytes. */
#define NET_BUFFERS_MAX 64

struct net {
	struct virtio_device v;
	struct net_backend *backend;
	size_t waiting_bytes; /* of the frame that waits; 0: none */
	u8 waiting[NET_HEADER_BYTES + NET_FRAME_MAX]; /* header and frame */
	u8 tx[NET_FRAME_MAX];
	struct virtq_chain chains[NET_BUFFERS_MAX];
};

static struct net *net_of(struct virtio_device *v)
{
	return container_of(v, struct net, v);
}

enum rx_result { RX_DELIVERED, RX_WAIT, RX_DROPPED };

/* Pops chains for `need` bytes. Returns their number; 0 with none kept. */
static u16 rx_gather(struct net *n, struct virtqueue *q, u64 need,
		     enum rx_result *out_why)
{
	bool is_mrg = virtio_has(&n->v, VIRTIO_NET_F_MRG_RXBUF);
	u64 room = 0;
	u16 count = 0;

	while (room < need) {
		if (count == (is_mrg ? NET_BUFFERS_MAX : 1) ||
		    (count && count == q->size)) {
			/* Never fits: the frame goes, the buffers stay. */
			*out_why = RX_DROPPED;
			break;
		}
		if (!virtio_pop(&n->v, q, &n->chains[count])) {
			*out_why = RX_WAIT;
			break;
		}
		room += n->chains[count].writable_bytes;
		count++;
	}
	if (room >= need)
		return count;
	if (virtio_is_live(&n->v))
		virtqueue_unpop(q, count);
	return 0;
}

static void rx_publish(struct net *n, struct virtqueue *q, u16 count, u64 total)
{
	u64 done = 0;

	st_le16(n->waiting + NET_NUM_BUFFERS, count);
	for (u16 i = 0; i < count; i++) {
		struct virtq_chain *c = &n->chains[i];
		size_t part = MIN(total - done, c->writable_bytes);

		buf_to_iov(virtq_chain_writable(c), c->writable_count, 0,
			   n->waiting + done, part);
		if (virtqueue_fill(q, c, part, i))
			break;
		done += part;
	}
	if (virtqueue_publish(q, count))
		virtio_fail(&n->v, "receive ring is gone");
}

/* Delivers the waiting frame if it can. */
static enum rx_result rx_deliver(struct net *n)
{
	struct virtqueue *q = &n->v.queues[NET_RX];
	u64 need = n->waiting_bytes;
	enum rx_result why = RX_WAIT;
	u16 count;

	memset(n->waiting, 0, NET_HEADER_BYTES);
	count = rx_gather(n, q, need, &why);
	if (!count)
		return why;
	rx_publish(n, q, count, need);
	return RX_DELIVERED;
}

static void rx_run(struct net *n)
{
	struct virtqueue *q = &n->v.queues[NET_RX];

	if (n->waiting_bytes && rx_deliver(n) != RX_WAIT)
		n->waiting_bytes = 0;
	if (n->waiting_bytes)
		virtqueue_kick_enable(q);
	virtio_call(&n->v, q);
}

static bool net_can_receive(void *opaque)
{
	struct net *n = opaque;
	struct virtqueue *q = &n->v.queues[NET_RX];

	if (!virtio_is_live(&n->v) || n->waiting_bytes ||
	    !n->v.transport->can_dma(&n->v))
		return false;
	/* Ask for a kick when there is nothing, then look once more. */
	return virtqueue_has_work(q) || virtqueue_kick_enable(q);
}

static void net_receive(void *opaque, const void *frame, size_t len)
{
	struct net *n = opaque;

	if (!virtio_is_live(&n->v) || n->waiting_bytes || !len ||
	    len > NET_FRAME_MAX)
		return;
	memcpy(n->waiting + NET_HEADER_BYTES, frame, len);
	n->waiting_bytes = NET_HEADER_BYTES + len;
	rx_run(n);
}

static const struct net_client_ops net_client = {
	.can_receive = net_can_receive,
	.receive = net_receive,
};

static enum virtio_step tx_step(struct virtio_device *v, struct virtqueue *q)
{
	struct net *n = net_of(v);
	struct virtq_chain *c = &n->chains[0];
	u64 len;

	if (!virtio_pop(v, q, c))
		return VIRTIO_STEP_EMPTY;
	if (c->readable_bytes >= NET_HEADER_BYTES + NET_FRAME_MIN &&
	    c->readable_bytes <= NET_HEADER_BYTES + NET_FRAME_MAX) {
		len = c->readable_bytes - NET_HEADER_BYTES;
		iov_to_buf(virtq_chain_readable(c), c->readable_count,
			   NET_HEADER_BYTES, n->tx, len);
		virtio_push(v, q, c, 0);
		if (v->config[6] & VIRTIO_NET_S_LINK_UP)
			net_backend_send(n->backend, n->tx, len);
	} else {
		virtio_push(v, q, c, 0);
	}
	return VIRTIO_STEP_DONE;
}

static void net_handle_queue(struct virtio_device *v, struct virtqueue *q)
{
	struct net *n = net_of(v);

	if (q->index == NET_TX) {
		virtio_queue_run(v, q, tx_step);
		return;
	}
	rx_run(n);
	if (!n->waiting_bytes)
		net_backend_resume(n->backend);
}

static void net_reset(struct virtio_device *v)
{
	net_of(v)->waiting_bytes = 0;
}

void virtio_net_set_link(struct virtio_device *v, bool is_up)
{
	st_le16(v->config + 6, is_up ? VIRTIO_NET_S_LINK_UP : 0);
	virtio_config_changed(v);
}

void virtio_net_set_mac(struct virtio_device *v, const u8 mac[6])
{
	memcpy(v->config, mac, 6);
}

static void net_state(struct virtio_device *v, struct state *s)
{
	struct net *n = net_of(v);

	/* The waiting frame stays behind: networks lose frames. */
	st_u8(s, "link", &v->config[6]);
	st_bytes(s, "mac", v->config, 6);
	if (state_is_loading(s))
		n->waiting_bytes = 0;
}

static void net_free(struct virtio_device *v)
{
	net_backend_attach(net_of(v)->backend, NULL, NULL);
	free(net_of(v));
}

static const struct virtio_ops net_ops = {
	.type = "virtio-net",
	.handle_queue = net_handle_queue,
	.reset = net_reset,
	.state = net_state,
	.free = net_free,
};

int virtio_net_new(const struct virtio_net_config *cfg,
		   struct virtio_device **out, struct err *err)
{
	struct net *n = calloc(1, sizeof(*n));
	int rc;

	if (!n)
		return err_sys(err, -ENOMEM, "add device '%s'", cfg->at.name);
	virtio_device_init(&n->v, &net_ops, &cfg->at, VIRTIO_ID_NET,
			   BIT64(VIRTIO_NET_F_MAC) |
				   BIT64(VIRTIO_NET_F_MRG_RXBUF) |
				   BIT64(VIRTIO_NET_F_STATUS));
	virtio_queue_add(&n->v, NET_QUEUE_SIZE);
	virtio_queue_add(&n->v, NET_QUEUE_SIZE);
	memcpy(n->v.config, cfg->mac, 6);
	st_le16(n->v.config + 6, VIRTIO_NET_S_LINK_UP);
	n->v.config_bytes = NET_CONFIG_BYTES;
	n->backend = cfg->backend;
	net_backend_attach(n->backend, &net_client, n);
	rc = virtio_pci_plug(&n->v, &cfg->at, NET_CLASS, err);
	if (!rc)
		*out = &n->v;
	return rc;
}
