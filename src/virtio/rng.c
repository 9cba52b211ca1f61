/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY: each buffer is filled with as many bytes as the allowance of the
 * running period has left; when it is used up, the queue waits for the timer.
 * A short answer is allowed (virtio 1.2 §5.4.6.1). */
#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

#include "base/clock.h"
#include "virtio/rng.h"
#include "virtio/virtio_pci.h"

#define RNG_QUEUE_SIZE 64
#define RNG_CLASS      0x00ff00

struct rng {
	struct virtio_device v;
	u64 allowance; /* bytes left in this period */
	struct loop_timer refill;
	struct virtq_chain chain;
};

static struct rng *rng_of(struct virtio_device *v)
{
	return container_of(v, struct rng, v);
}

static u64 chain_fill(struct rng *g, const struct virtq_chain *c)
{
	u64 want = MIN(c->writable_bytes, g->allowance);
	u64 done = 0;
	u8 bytes[256];

	while (done < want) {
		size_t n = MIN(want - done, sizeof(bytes));

		if (getrandom(bytes, n, 0) != (ssize_t)n)
			break; /* up to 256 bytes: never, once seeded */
		buf_to_iov(virtq_chain_writable(c), c->writable_count, done,
			   bytes, n);
		done += n;
	}
	return done;
}

static enum virtio_step rng_step(struct virtio_device *v, struct virtqueue *q)
{
	struct rng *g = rng_of(v);
	u64 n;

	if (!g->allowance)
		return VIRTIO_STEP_BLOCKED;
	if (!virtio_pop(v, q, &g->chain))
		return VIRTIO_STEP_EMPTY;
	n = chain_fill(g, &g->chain);
	if (!g->refill.deadline_ns)
		loop_timer_arm(&g->refill,
			       clock_mono_ns() + VIRTIO_RNG_PERIOD_NS);
	g->allowance -= n;
	virtio_push(v, q, &g->chain, n);
	return VIRTIO_STEP_DONE;
}

static void rng_handle_queue(struct virtio_device *v, struct virtqueue *q)
{
	virtio_queue_run(v, q, rng_step);
}

static void on_refill(struct loop_timer *t)
{
	struct rng *g = t->opaque;

	g->allowance = VIRTIO_RNG_BYTES_PER_PERIOD;
	virtio_queue_resume(&g->v, 0);
}

static void rng_reset(struct virtio_device *v)
{
	(void)v; /* the allowance is the host's, and outlives a reset */
}

static void rng_free(struct virtio_device *v)
{
	loop_timer_disarm(&rng_of(v)->refill);
	free(rng_of(v));
}

static const struct virtio_ops rng_ops = {
	.type = "virtio-rng",
	.handle_queue = rng_handle_queue,
	.reset = rng_reset,
	.free = rng_free,
};

int virtio_rng_new(const struct virtio_rng_config *cfg,
		   struct virtio_device **out, struct err *err)
{
	struct rng *g = calloc(1, sizeof(*g));
	int rc;

	if (!g)
		return err_sys(err, -ENOMEM, "add device '%s'", cfg->at.name);
	virtio_device_init(&g->v, &rng_ops, &cfg->at, VIRTIO_ID_RNG, 0);
	virtio_queue_add(&g->v, RNG_QUEUE_SIZE);
	g->allowance = VIRTIO_RNG_BYTES_PER_PERIOD;
	loop_timer_init(cfg->at.loop, &g->refill, on_refill, g);
	rc = virtio_pci_plug(&g->v, &cfg->at, RNG_CLASS, err);
	if (!rc)
		*out = &g->v;
	return rc;
}
