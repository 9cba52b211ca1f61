/* SPDX-License-Identifier: Apache-2.0 */
/* The device side of a split virtqueue (virtio 1.2 §2.7).
 *
 * Rules
 * - The rings and all that they point at are hostile and change under our
 *   feet: every descriptor is copied once, checked, and only the copy is used.
 * - A chain handed out is two lists of host segments (readable, writable)
 *   that lie wholly in guest RAM. A broken ring (loop, index out of range,
 *   address outside RAM, …) makes the queue broken until it is reset: every
 *   later call returns -EIO; the device goes to NEEDS_RESET.
 * - At most `size` chains are in flight, so a guest cannot make a device hold
 *   more than that.
 * - Device lock held. The guest runs on concurrently.
 */
#pragma once

#include <sys/uio.h>

#include "base/types.h"
#include "mem/mem.h"
#include "state/state.h"

#define VIRTQ_SIZE_MAX	   1024
#define VIRTQ_SEGMENTS_MAX 256

#define VIRTQ_DESC_F_NEXT	   1
#define VIRTQ_DESC_F_WRITE	   2
#define VIRTQ_DESC_F_INDIRECT	   4
#define VIRTQ_AVAIL_F_NO_INTERRUPT 1
#define VIRTQ_USED_F_NO_NOTIFY	   1

/* One chain, copied out of the guest's rings. Readable segments come first in
 * iov, writable ones follow. About 6 KiB: keep it in pools, not on stacks of
 * unknown depth. */
struct virtq_chain {
	u16 head;
	u16 readable_count; /* segments iov[0 .. readable_count) */
	u16 writable_count; /* segments that follow */
	u64 readable_bytes;
	u64 writable_bytes;
	struct iovec iov[VIRTQ_SEGMENTS_MAX];
	gpa_t gpa[VIRTQ_SEGMENTS_MAX]; /* of each segment */
};

static inline const struct iovec *
virtq_chain_readable(const struct virtq_chain *c)
{
	return c->iov;
}
static inline const struct iovec *
virtq_chain_writable(const struct virtq_chain *c)
{
	return c->iov + c->readable_count;
}

struct virtqueue {
	struct mem *mem;
	u16 index;    /* of this queue in its device */
	u16 size_max; /* power of two, 1..VIRTQ_SIZE_MAX */
	/* Set by the driver before virtqueue_enable. */
	u16 size;
	gpa_t desc, avail, used;
	bool has_indirect, has_event_idx; /* negotiated */
	/* Running state. */
	bool is_ready, is_broken;
	u16 avail_idx;	   /* the next entry of the available ring to take */
	u16 used_idx;	   /* the next entry of the used ring to fill */
	u16 in_flight;	   /* chains popped and not yet pushed */
	u16 notified_used; /* used_idx at the last call decision */
	bool is_notified_valid;
	const char *why_broken;
};

void virtqueue_init(struct virtqueue *q, struct mem *mem, u16 index,
		    u16 size_max);
/* Back to the state after init; chains in flight are forgotten. */
void virtqueue_reset(struct virtqueue *q);
/* Checks size and addresses and makes the queue ready; -EINVAL (and broken)
 * when the driver's values cannot work. */
int virtqueue_enable(struct virtqueue *q) MUST_CHECK;

/* 1: *out is filled; 0: nothing is available (or the queue is not ready);
 * -EIO: the queue is broken. *out is undefined unless 1 is returned. */
int virtqueue_pop(struct virtqueue *q, struct virtq_chain *out) MUST_CHECK;
/* Gives back the n chains popped last, unread, as if they had not been
 * popped. */
void virtqueue_unpop(struct virtqueue *q, u16 n);
/* True when a pop would find something. */
bool virtqueue_has_work(struct virtqueue *q);
/* Chains that the driver has made available and we have not popped. */
u16 virtqueue_available(struct virtqueue *q);

/* Returns a chain to the driver; `written` bytes of its writable part are
 * valid (clamped to that part). Reports those writes to mem. -EIO when the
 * used ring cannot be written (queue broken). */
int virtqueue_push(struct virtqueue *q, const struct virtq_chain *c,
		   u64 written);
/* The same for several chains that must appear at once: fill entry n = 0, 1,
 * …, then publish all of them. */
int virtqueue_fill(struct virtqueue *q, const struct virtq_chain *c,
		   u64 written, u16 n);
int virtqueue_publish(struct virtqueue *q, u16 n);
/* Whether the driver wants a call for what was pushed since the last time
 * this was asked. */
bool virtqueue_should_notify(struct virtqueue *q);

/* Kick suppression. Enabling returns true when work arrived meanwhile, which
 * the caller must then handle itself. */
void virtqueue_kick_disable(struct virtqueue *q);
bool virtqueue_kick_enable(struct virtqueue *q);

/* Guest-visible state; nothing may be in flight. */
void virtqueue_state(struct virtqueue *q, struct state *s);

/* Copies up to len bytes starting `skip` bytes into the segments; returns the
 * number copied (less only when the segments end). */
size_t iov_to_buf(const struct iovec *iov, size_t n, u64 skip, void *dst,
		  size_t len);
size_t buf_to_iov(const struct iovec *iov, size_t n, u64 skip, const void *src,
		  size_t len);
/* Describes [skip, skip+len) of the segments in dst (room for n entries);
 * returns the entries used, or -1 when the segments are shorter. */
int iov_slice(const struct iovec *iov, size_t n, u64 skip, u64 len,
	      struct iovec *dst);
