/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY
 *
 * The driver walks the status register up: ACKNOWLEDGE, DRIVER, FEATURES_OK,
 * DRIVER_OK. Bits can only be added; FEATURES_OK sticks only when the
 * driver's features are a subset of the offered ones and include VERSION_1;
 * DRIVER_OK sticks only after FEATURES_OK. Writing 0 resets.
 *
 *	          write 0, nothing in flight
 *	live ----------------------------------> reset
 *	  \  write 0, n in flight                  ^
 *	   `-----> resetting ---- the n-th ends ---'
 *
 * While resetting, all writes are ignored, the status reads as before, and
 * completions neither touch the used ring nor call.
 *
 * Source: virtio 1.2 §2.1, §2.2, §2.5, §3.1.
 */
#include <errno.h>
#include <stdio.h>

#include "base/assert.h"
#include "base/log.h"
#include "virtio/virtio.h"

#define STATUS_DRIVER_BITS                                                     \
	(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER |                \
	 VIRTIO_CONFIG_S_FAILED)

void virtio_device_init(struct virtio_device *d, const struct virtio_ops *ops,
			const struct virtio_attach *at, u16 id, u64 features)
{
	memset(d, 0, sizeof(*d));
	d->ops = ops;
	d->loop = at->loop;
	d->mem = at->mem;
	d->id = id;
	snprintf(d->name, sizeof(d->name), "%s", at->name);
	d->offered = features | BIT64(VIRTIO_F_VERSION_1) |
		     BIT64(VIRTIO_F_INDIRECT_DESC) | BIT64(VIRTIO_F_EVENT_IDX);
}

void virtio_queue_add(struct virtio_device *d, u16 size_max)
{
	u16 n = d->queue_count;

	ASSERT(n < VIRTIO_QUEUES_MAX);
	virtqueue_init(&d->queues[n], d->mem, n, size_max);
	d->queue_count++;
}

bool virtio_is_live(const struct virtio_device *d)
{
	return d->status & VIRTIO_CONFIG_S_DRIVER_OK &&
	       !(d->status & VIRTIO_CONFIG_S_NEEDS_RESET) && !d->is_resetting;
}

static bool can_use_queue(struct virtio_device *d, const struct virtqueue *q)
{
	return virtio_is_live(d) && q->is_ready && !q->is_broken &&
	       d->transport->can_dma(d);
}

void virtio_fail(struct virtio_device *d, const char *why)
{
	if (d->status & VIRTIO_CONFIG_S_NEEDS_RESET)
		return;
	log_guest("%s: needs reset: %s", d->name, why);
	d->status |= VIRTIO_CONFIG_S_NEEDS_RESET;
	if (d->status & VIRTIO_CONFIG_S_DRIVER_OK)
		virtio_config_changed(d);
}

static void check_broken(struct virtio_device *d, const struct virtqueue *q)
{
	if (q->is_broken)
		virtio_fail(d, q->why_broken ? q->why_broken : "broken queue");
}

int virtio_pop(struct virtio_device *d, struct virtqueue *q,
	       struct virtq_chain *out)
{
	int rc;

	if (!can_use_queue(d, q))
		return 0;
	rc = virtqueue_pop(q, out);
	check_broken(d, q);
	return rc > 0;
}

void virtio_push(struct virtio_device *d, struct virtqueue *q,
		 const struct virtq_chain *c, u64 written)
{
	if (!virtio_is_live(d))
		return;
	(void)virtqueue_push(q, c, written);
	check_broken(d, q);
}

void virtio_call(struct virtio_device *d, struct virtqueue *q)
{
	if (virtio_is_live(d) && virtqueue_should_notify(q))
		d->transport->call_queue(d, q->index);
	check_broken(d, q);
}

void virtio_config_changed(struct virtio_device *d)
{
	d->generation++;
	if (d->status & VIRTIO_CONFIG_S_DRIVER_OK && !d->is_resetting)
		d->transport->call_config(d);
}

void virtio_async_begin(struct virtio_device *d)
{
	d->async_count++;
}

static void reset_finish(struct virtio_device *d)
{
	ASSERT(d->async_count == 0);
	d->ops->reset(d);
	for (u16 i = 0; i < d->queue_count; i++)
		virtqueue_reset(&d->queues[i]);
	d->is_resetting = false;
	d->status = 0;
	d->features = 0;
	d->driver_features = 0;
	if (d->transport)
		d->transport->reset_done(d);
}

void virtio_async_end(struct virtio_device *d)
{
	ASSERT(d->async_count > 0);
	if (--d->async_count == 0 && d->is_resetting)
		reset_finish(d);
}

void virtio_reset_now(struct virtio_device *d)
{
	if (d->async_count) {
		d->is_resetting = true; /* completions stay silent */
		d->ops->drain(d);
		ASSERT(!d->is_resetting);
		return;
	}
	reset_finish(d);
}

void virtio_queue_run(struct virtio_device *d, struct virtqueue *q,
		      enum virtio_step (*step)(struct virtio_device *d,
					       struct virtqueue *q))
{
	u32 budget = 2u * q->size;
	enum virtio_step r;

	do {
		virtqueue_kick_disable(q);
		do
			r = step(d, q);
		while (r == VIRTIO_STEP_DONE && --budget);
		if (!virtio_is_live(d) || r == VIRTIO_STEP_BLOCKED)
			break;
		if (!budget) {
			virtqueue_kick_enable(q);
			d->transport->kick_self(d, q->index);
			break;
		}
	} while (virtqueue_kick_enable(q));
	virtio_call(d, q);
}

void virtio_queue_resume(struct virtio_device *d, u16 queue)
{
	virtio_kick(d, queue);
}

void virtio_kick(struct virtio_device *d, u16 queue)
{
	struct virtqueue *q;

	if (queue >= d->queue_count)
		return;
	q = &d->queues[queue];
	if (can_use_queue(d, q))
		d->ops->handle_queue(d, q);
}

void virtio_kick_all(struct virtio_device *d)
{
	if (!virtio_is_live(d))
		return;
	for (u16 i = 0; i < d->queue_count; i++)
		if (d->queues[i].is_ready)
			d->transport->kick_self(d, i);
}

u32 virtio_features_read(const struct virtio_device *d, u32 select)
{
	return select < 2 ? (u32)(d->offered >> (32 * select)) : 0;
}

u32 virtio_driver_features_read(const struct virtio_device *d, u32 select)
{
	return select < 2 ? (u32)(d->driver_features >> (32 * select)) : 0;
}

void virtio_driver_features_write(struct virtio_device *d, u32 select, u32 v)
{
	u64 mask;

	if (d->is_resetting || select > 1 ||
	    d->status & VIRTIO_CONFIG_S_FEATURES_OK)
		return;
	mask = (u64)UINT32_MAX << (32 * select);
	d->driver_features =
		(d->driver_features & ~mask) | ((u64)v << (32 * select));
}

static void features_apply(struct virtio_device *d)
{
	d->features = d->driver_features;
	for (u16 i = 0; i < d->queue_count; i++) {
		d->queues[i].has_indirect =
			virtio_has(d, VIRTIO_F_INDIRECT_DESC);
		d->queues[i].has_event_idx = virtio_has(d, VIRTIO_F_EVENT_IDX);
	}
}

static bool features_are_valid(const struct virtio_device *d)
{
	return !(d->driver_features & ~d->offered) &&
	       d->driver_features & BIT64(VIRTIO_F_VERSION_1);
}

void virtio_status_write(struct virtio_device *d, u8 value)
{
	u8 fresh = value & ~d->status;

	if (d->is_resetting)
		return;
	if (!value) {
		if (d->async_count)
			d->is_resetting = true;
		else
			reset_finish(d);
		return;
	}
	d->status |= fresh & STATUS_DRIVER_BITS;
	if (fresh & VIRTIO_CONFIG_S_FEATURES_OK && features_are_valid(d)) {
		features_apply(d);
		d->status |= VIRTIO_CONFIG_S_FEATURES_OK;
	}
	if (fresh & VIRTIO_CONFIG_S_DRIVER_OK &&
	    d->status & VIRTIO_CONFIG_S_FEATURES_OK) {
		d->status |= VIRTIO_CONFIG_S_DRIVER_OK;
		if (d->ops->driver_ok)
			d->ops->driver_ok(d);
		virtio_kick_all(d);
	}
}

void virtio_queue_enable(struct virtio_device *d, u16 queue)
{
	struct virtqueue *q = &d->queues[queue];

	if (d->is_resetting || q->is_ready || q->is_broken ||
	    !(d->status & VIRTIO_CONFIG_S_FEATURES_OK))
		return;
	if (virtqueue_enable(q))
		check_broken(d, q);
}

u32 virtio_config_read(const struct virtio_device *d, u64 off, unsigned size)
{
	u32 v = 0;

	for (unsigned i = 0; i < size && i < 4; i++)
		if (off + i < d->config_bytes)
			v |= (u32)d->config[off + i] << (8 * i);
	return v;
}

void virtio_config_write(struct virtio_device *d, u64 off, unsigned size, u32 v)
{
	if (d->is_resetting || !d->ops->config_write ||
	    off >= d->config_bytes || size > d->config_bytes - off)
		return;
	d->ops->config_write(d, (u32)off, size, v);
}

void virtio_drain(struct virtio_device *d)
{
	if (d->ops->drain)
		d->ops->drain(d);
	ASSERT(d->async_count == 0);
}

void virtio_state(struct virtio_device *d, struct state *s)
{
	char name[16];

	if (!state_is_loading(s))
		virtio_drain(d);
	/* A failed device keeps what it had popped: only a reset helps. */
	for (u16 i = 0; i < d->queue_count; i++)
		if (d->status & VIRTIO_CONFIG_S_NEEDS_RESET)
			d->queues[i].is_broken = true;
	st_begin(s, "virtio");
	st_u64(s, "driver_features", &d->driver_features);
	st_u8(s, "status", &d->status);
	st_u8(s, "generation", &d->generation);
	if (d->status & VIRTIO_CONFIG_S_FEATURES_OK)
		st_require(s, features_are_valid(d), "virtio features");
	else
		st_require(s, !(d->status & VIRTIO_CONFIG_S_DRIVER_OK),
			   "virtio status");
	if (state_is_loading(s) && !state_failed(s) &&
	    d->status & VIRTIO_CONFIG_S_FEATURES_OK)
		features_apply(d);
	for (u16 i = 0; i < d->queue_count; i++) {
		snprintf(name, sizeof(name), "queue%u", i);
		st_begin(s, name);
		virtqueue_state(&d->queues[i], s);
		st_end(s);
	}
	if (d->ops->state)
		d->ops->state(d, s);
	st_end(s);
}

void virtio_post_load(struct virtio_device *d)
{
	if (d->ops->post_load)
		d->ops->post_load(d);
	if (d->status & VIRTIO_CONFIG_S_DRIVER_OK && d->ops->driver_ok)
		d->ops->driver_ok(d);
	virtio_kick_all(d);
}
