/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY: queue 0 carries input, 1 output. An output chain that the host takes
 * only in part goes back to the ring, unread, with the number of bytes taken
 * remembered; it comes again on resume. So no chain is ever out, and the state
 * is one number.
 *
 * Not modelled: multiport, emergency write.
 * Source: virtio 1.2 §5.3.
 */
#include <errno.h>
#include <stdlib.h>

#include "virtio/console.h"
#include "virtio/virtio_pci.h"

#define VIRTIO_CONSOLE_F_SIZE 0

#define CONSOLE_RX	     0
#define CONSOLE_TX	     1
#define CONSOLE_QUEUE_SIZE   64
#define CONSOLE_CONFIG_BYTES 12
#define CONSOLE_CLASS	     0x078000

struct virtio_console {
	struct virtio_device v;
	size_t (*write)(void *opaque, const void *bytes, size_t n);
	void (*input_ready)(void *opaque);
	void *opaque;
	struct chardev *chardev;
	u64 tx_taken; /* bytes of the first output chain already written */
	struct virtq_chain chain;
};

static struct virtio_console *console_of(struct virtio_device *v)
{
	return container_of(v, struct virtio_console, v);
}

/* Offers the rest of the chain; true when all of it was taken. */
static bool chain_write(struct virtio_console *c)
{
	const struct virtq_chain *chain = &c->chain;

	while (c->tx_taken < chain->readable_bytes) {
		u8 part[1024];
		size_t n = iov_to_buf(virtq_chain_readable(chain),
				      chain->readable_count, c->tx_taken, part,
				      sizeof(part));
		size_t taken = c->chardev ? chardev_write(c->chardev, part, n)
					  : c->write(c->opaque, part, n);

		c->tx_taken += MIN(taken, n);
		if (taken < n)
			return false;
	}
	return true;
}

static enum virtio_step tx_step(struct virtio_device *v, struct virtqueue *q)
{
	struct virtio_console *c = console_of(v);

	if (!virtio_pop(v, q, &c->chain))
		return VIRTIO_STEP_EMPTY;
	if (!chain_write(c)) {
		virtqueue_unpop(q, 1);
		return VIRTIO_STEP_BLOCKED;
	}
	c->tx_taken = 0;
	virtio_push(v, q, &c->chain, 0);
	return VIRTIO_STEP_DONE;
}

static void console_handle_queue(struct virtio_device *v, struct virtqueue *q)
{
	struct virtio_console *c = console_of(v);

	if (q->index == CONSOLE_TX)
		virtio_queue_run(v, q, tx_step);
	else if (c->chardev)
		chardev_can_receive_more(c->chardev);
	else if (c->input_ready)
		c->input_ready(c->opaque);
}

void virtio_console_resume(struct virtio_console *c)
{
	virtio_queue_resume(&c->v, CONSOLE_TX);
}

size_t virtio_console_receive(struct virtio_console *c, const void *bytes,
			      size_t n)
{
	struct virtqueue *q = &c->v.queues[CONSOLE_RX];
	const u8 *p = bytes;
	size_t done = 0;

	while (done < n) {
		size_t part;

		if (!virtio_pop(&c->v, q, &c->chain)) {
			if (virtio_is_live(&c->v) && virtqueue_kick_enable(q))
				continue;
			break;
		}
		part = buf_to_iov(virtq_chain_writable(&c->chain),
				  c->chain.writable_count, 0, p + done,
				  n - done);
		virtio_push(&c->v, q, &c->chain, part);
		done += part;
		if (!part) { /* a buffer without room takes none, for ever */
			virtio_fail(&c->v, "input buffer without room");
			break;
		}
	}
	virtio_call(&c->v, q);
	return done;
}

void virtio_console_resize(struct virtio_console *c, u16 columns, u16 rows)
{
	st_le16(c->v.config, columns);
	st_le16(c->v.config + 2, rows);
	virtio_config_changed(&c->v);
}

/* ---- the front end of a chardev ---- */

/* The room in the next buffer; the rest is offered again after it. */
static size_t front_can_receive(void *opaque)
{
	struct virtio_console *c = opaque;
	struct virtqueue *q = &c->v.queues[CONSOLE_RX];

	if (!virtio_pop(&c->v, q, &c->chain)) {
		if (virtio_is_live(&c->v))
			(void)virtqueue_kick_enable(q);
		return 0;
	}
	virtqueue_unpop(q, 1);
	if (!c->chain.writable_bytes)
		virtio_fail(&c->v, "input buffer without room");
	return c->chain.writable_bytes;
}

static void front_receive(void *opaque, const void *bytes, size_t n)
{
	virtio_console_receive(opaque, bytes, n);
}

static void front_writable(void *opaque)
{
	virtio_console_resume(opaque);
}

static void console_reset(struct virtio_device *v)
{
	console_of(v)->tx_taken = 0;
}

static void console_state(struct virtio_device *v, struct state *s)
{
	st_u64(s, "tx_taken", &console_of(v)->tx_taken);
	st_bytes(s, "size", v->config, 4);
}

static void console_free(struct virtio_device *v)
{
	struct chardev_front none = {0};

	if (console_of(v)->chardev)
		chardev_set_front(console_of(v)->chardev, &none);
	free(console_of(v));
}

static const struct virtio_ops console_ops = {
	.type = "virtio-console",
	.handle_queue = console_handle_queue,
	.reset = console_reset,
	.state = console_state,
	.free = console_free,
};

int virtio_console_new(const struct virtio_console_config *cfg,
		       struct virtio_console **out, struct err *err)
{
	struct virtio_console *c = calloc(1, sizeof(*c));
	int rc;

	if (!c)
		return err_sys(err, -ENOMEM, "add device '%s'", cfg->at.name);
	virtio_device_init(&c->v, &console_ops, &cfg->at, VIRTIO_ID_CONSOLE,
			   BIT64(VIRTIO_CONSOLE_F_SIZE));
	virtio_queue_add(&c->v, CONSOLE_QUEUE_SIZE);
	virtio_queue_add(&c->v, CONSOLE_QUEUE_SIZE);
	c->write = cfg->write;
	c->input_ready = cfg->input_ready;
	c->opaque = cfg->opaque;
	c->chardev = cfg->chardev;
	st_le16(c->v.config, cfg->columns);
	st_le16(c->v.config + 2, cfg->rows);
	st_le32(c->v.config + 4, 1); /* max_nr_ports */
	c->v.config_bytes = CONSOLE_CONFIG_BYTES;
	if (c->chardev) {
		struct chardev_front front = {
			.can_receive = front_can_receive,
			.receive = front_receive,
			.writable = front_writable,
			.opaque = c,
		};
		chardev_set_front(c->chardev, &front);
	}
	rc = virtio_pci_plug(&c->v, &cfg->at, CONSOLE_CLASS, err);
	if (!rc)
		*out = c;
	return rc;
}
