/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY
 *
 * Three areas in guest RAM: the descriptor table, the available ring (driver
 * writes, device reads) and the used ring (the other way round).
 *
 *	avail:	flags idx ring[size] used_event
 *	used:	flags idx {id len}[size] avail_event
 *
 * All indices are free-running 16-bit counters. The invariant on our side is
 * used_idx + in_flight == avail_idx, 0 <= in_flight <= size.
 *
 * Ordering. The acquire load of avail.idx pairs with the driver's write
 * barrier before it stores avail.idx: entries and descriptors below idx are
 * visible after it. The release store of used.idx pairs with the driver's
 * read barrier after it loads used.idx. Two decisions are Dekker-like and
 * need a full fence between our store and our load, as they have one in the
 * driver: (store avail_event / used.flags, load avail.idx) when kicks are
 * enabled, and (store used.idx, load used_event / avail.flags) when a call is
 * decided.
 *
 * Host pointers of the rings are looked up for each operation and not cached:
 * a memslot that goes away takes its ring with it, safely.
 *
 * A ring area must lie in one memslot; a buffer may span adjacent ones.
 * Empty descriptors are accepted and make no segment.
 *
 * Not modelled: the packed ring, VIRTIO_F_IN_ORDER, NOTIFY_ON_EMPTY.
 * Source: virtio 1.2 §2.7.
 */
#include <errno.h>
#include <stdatomic.h>

#include "base/assert.h"
#include "virtio/virtqueue.h"

#define DESC_BYTES 16

struct desc {
	u64 addr;
	u32 len;
	u16 flags;
	u16 next;
};

static u64 avail_bytes(const struct virtqueue *q)
{
	return 6 + 2ull * q->size;
}

static u64 used_bytes(const struct virtqueue *q)
{
	return 6 + 8ull * q->size;
}

static int queue_break(struct virtqueue *q, const char *why)
{
	if (!q->is_broken)
		q->why_broken = why;
	q->is_broken = true;
	return -EIO;
}

/* The areas; NULL (and a broken queue) when one is not RAM any more. */
static u8 *desc_area(struct virtqueue *q)
{
	u8 *p = mem_hva(q->mem, q->desc, (u64)q->size * DESC_BYTES, false);

	if (!p)
		queue_break(q, "descriptor table outside RAM");
	return p;
}

static u8 *avail_area(struct virtqueue *q)
{
	u8 *p = mem_hva(q->mem, q->avail, avail_bytes(q), false);

	if (!p)
		queue_break(q, "available ring outside RAM");
	return p;
}

static u8 *used_area(struct virtqueue *q)
{
	u8 *p = mem_hva(q->mem, q->used, used_bytes(q), true);

	if (!p)
		queue_break(q, "used ring outside RAM");
	return p;
}

static u16 ring_load(const u8 *p, memory_order order)
{
	return atomic_load_explicit((const _Atomic u16 *)(const void *)p,
				    order);
}

static void ring_store(u8 *p, u16 v, memory_order order)
{
	atomic_store_explicit((_Atomic u16 *)(void *)p, v, order);
}

void virtqueue_init(struct virtqueue *q, struct mem *mem, u16 index,
		    u16 size_max)
{
	ASSERT(size_max && size_max <= VIRTQ_SIZE_MAX &&
	       !(size_max & (size_max - 1)));
	memset(q, 0, sizeof(*q));
	q->mem = mem;
	q->index = index;
	q->size_max = size_max;
	q->size = size_max;
}

void virtqueue_reset(struct virtqueue *q)
{
	virtqueue_init(q, q->mem, q->index, q->size_max);
}

static bool size_is_valid(const struct virtqueue *q)
{
	return q->size && q->size <= q->size_max && !(q->size & (q->size - 1));
}

int virtqueue_enable(struct virtqueue *q)
{
	if (!size_is_valid(q)) {
		queue_break(q, "bad queue size");
		return -EINVAL;
	}
	if (!q->desc || !q->avail || !q->used || q->desc & 15 || q->avail & 1 ||
	    q->used & 3) {
		queue_break(q, "bad ring address");
		return -EINVAL;
	}
	if (!desc_area(q) || !avail_area(q) || !used_area(q))
		return -EINVAL;
	q->is_ready = true;
	return 0;
}

/* Copies one descriptor; the barrier keeps the compiler from reading the
 * guest's copy a second time. */
static void desc_load(struct desc *d, const u8 *table, u16 i)
{
	memcpy(d, table + (size_t)i * DESC_BYTES, DESC_BYTES);
	__asm__ volatile("" : "+m"(*d));
}

/* Adds [gpa, gpa+len) as one segment for each memslot that it touches. */
static int chain_add(struct virtqueue *q, struct virtq_chain *c, gpa_t gpa,
		     u64 len, bool is_write)
{
	while (len) {
		const struct mem_slot *slot = mem_slot_find(q->mem, gpa);
		int i = c->readable_count + c->writable_count;
		u64 n;
		void *hva;

		if (!slot)
			return queue_break(q, "buffer outside RAM");
		if (i == VIRTQ_SEGMENTS_MAX)
			return queue_break(q, "too many segments");
		n = MIN(len, slot->size - (gpa - slot->gpa));
		hva = mem_hva(q->mem, gpa, n, is_write);
		if (!hva)
			return queue_break(q, "buffer not accessible");
		c->iov[i].iov_base = hva;
		c->iov[i].iov_len = n;
		c->gpa[i] = gpa;
		if (is_write) {
			c->writable_count++;
			c->writable_bytes += n;
		} else {
			c->readable_count++;
			c->readable_bytes += n;
		}
		gpa += n;
		len -= n;
	}
	return 0;
}

static int chain_add_desc(struct virtqueue *q, struct virtq_chain *c,
			  const struct desc *d, bool *has_writable)
{
	bool is_write = d->flags & VIRTQ_DESC_F_WRITE;
	u64 end;

	if (__builtin_add_overflow(d->addr, d->len, &end))
		return queue_break(q, "buffer wraps the address space");
	if (is_write)
		*has_writable = true;
	else if (*has_writable)
		return queue_break(q, "readable buffer after a writable one");
	return chain_add(q, c, d->addr, d->len, is_write);
}

/* Walks a table of `count` descriptors from entry i. On the direct table an
 * INDIRECT descriptor ends the walk and is left in *out_indirect. */
static int chain_walk(struct virtqueue *q, struct virtq_chain *c,
		      const u8 *table, u32 count, u16 i, bool *has_writable,
		      struct desc *out_indirect)
{
	struct desc d;
	int rc;

	for (u32 seen = 0; seen < count; seen++) {
		if (i >= count)
			return queue_break(q, "descriptor index out of range");
		desc_load(&d, table, i);
		if (d.flags & VIRTQ_DESC_F_INDIRECT) {
			if (!out_indirect)
				return queue_break(q, "nested indirect table");
			if (!q->has_indirect || d.flags & VIRTQ_DESC_F_NEXT)
				return queue_break(q, "bad indirect flag");
			*out_indirect = d;
			return 0;
		}
		rc = chain_add_desc(q, c, &d, has_writable);
		if (rc)
			return rc;
		if (!(d.flags & VIRTQ_DESC_F_NEXT))
			return 0;
		i = d.next;
	}
	return queue_break(q, "descriptor chain is a loop or too long");
}

static int chain_load(struct virtqueue *q, struct virtq_chain *c)
{
	/* An indirect table is copied whole, so that it may have any
	 * alignment and lie in any number of memslots. */
	u8 copy[VIRTQ_SEGMENTS_MAX * DESC_BYTES];
	struct desc indirect = {.len = 0, .flags = 0};
	bool has_writable = false;
	const u8 *table = desc_area(q);
	int rc;

	if (!table)
		return -EIO;
	rc = chain_walk(q, c, table, q->size, c->head, &has_writable,
			&indirect);
	if (rc || !(indirect.flags & VIRTQ_DESC_F_INDIRECT))
		return rc;
	if (!indirect.len || indirect.len % DESC_BYTES ||
	    indirect.len > sizeof(copy))
		return queue_break(q, "bad length of an indirect table");
	if (mem_read(q->mem, indirect.addr, copy, indirect.len))
		return queue_break(q, "indirect table outside RAM");
	return chain_walk(q, c, copy, indirect.len / DESC_BYTES, 0,
			  &has_writable, NULL);
}

/* The number of entries that the driver made available and we did not take;
 * negative when the queue is or becomes broken. */
static int avail_count(struct virtqueue *q, u8 **out_avail)
{
	u8 *avail;
	u16 n;

	if (q->is_broken)
		return -EIO;
	if (!q->is_ready)
		return 0;
	avail = avail_area(q);
	if (!avail)
		return -EIO;
	/* Pairs with the driver's barrier before it stores avail.idx. */
	n = (u16)(ring_load(avail + 2, memory_order_acquire) - q->avail_idx);
	if (n > q->size)
		return queue_break(q, "available index jumped");
	*out_avail = avail;
	return n;
}

bool virtqueue_has_work(struct virtqueue *q)
{
	u8 *avail;

	return avail_count(q, &avail) > 0;
}

u16 virtqueue_available(struct virtqueue *q)
{
	u8 *avail;
	int n = avail_count(q, &avail);

	return (u16)MAX(n, 0);
}

int virtqueue_pop(struct virtqueue *q, struct virtq_chain *out)
{
	u8 *avail;
	int n = avail_count(q, &avail);
	int rc;

	if (n <= 0)
		return n;
	if (q->in_flight == q->size)
		return queue_break(q, "more chains in flight than entries");
	out->head = ring_load(avail + 4 + 2 * (q->avail_idx & (q->size - 1)),
			      memory_order_relaxed);
	out->readable_count = 0;
	out->writable_count = 0;
	out->readable_bytes = 0;
	out->writable_bytes = 0;
	if (out->head >= q->size)
		return queue_break(q, "head out of range");
	rc = chain_load(q, out);
	if (rc)
		return rc;
	q->avail_idx++;
	q->in_flight++;
	return 1;
}

void virtqueue_unpop(struct virtqueue *q, u16 n)
{
	ASSERT(n <= q->in_flight);
	q->avail_idx -= n;
	q->in_flight -= n;
}

/* Tells mem which bytes of the writable part the device has written. */
static void chain_written(struct virtqueue *q, const struct virtq_chain *c,
			  u64 written)
{
	for (int i = 0; i < c->writable_count && written; i++) {
		int k = c->readable_count + i;
		u64 n = MIN(written, c->iov[k].iov_len);

		mem_written(q->mem, c->gpa[k], n);
		written -= n;
	}
}

int virtqueue_fill(struct virtqueue *q, const struct virtq_chain *c,
		   u64 written, u16 n)
{
	u16 slot;
	u8 *used;
	u32 len;

	if (!q->is_ready || q->is_broken)
		return -EIO;
	ASSERT(n < q->in_flight);
	written = MIN(written, c->writable_bytes);
	chain_written(q, c, written);
	used = used_area(q);
	if (!used)
		return -EIO;
	slot = (u16)(q->used_idx + n) & (q->size - 1);
	len = (u32)MIN(written, UINT32_MAX);
	st_le32(used + 4 + 8 * slot, c->head);
	st_le32(used + 4 + 8 * slot + 4, len);
	mem_written(q->mem, q->used + 4 + 8 * slot, 8);
	return 0;
}

int virtqueue_publish(struct virtqueue *q, u16 n)
{
	u8 *used;

	if (!q->is_ready || q->is_broken)
		return -EIO;
	ASSERT(n <= q->in_flight);
	used = used_area(q);
	if (!used)
		return -EIO;
	q->used_idx += n;
	q->in_flight -= n;
	/* Pairs with the driver's barrier after it loads used.idx. */
	ring_store(used + 2, q->used_idx, memory_order_release);
	mem_written(q->mem, q->used + 2, 2);
	return 0;
}

int virtqueue_push(struct virtqueue *q, const struct virtq_chain *c,
		   u64 written)
{
	int rc = virtqueue_fill(q, c, written, 0);

	return rc ? rc : virtqueue_publish(q, 1);
}

bool virtqueue_should_notify(struct virtqueue *q)
{
	u16 old = q->notified_used;
	bool was_valid = q->is_notified_valid;
	u8 *avail;
	u16 event;

	if (!q->is_ready || q->is_broken || q->used_idx == old)
		return false; /* nothing was pushed */
	avail = avail_area(q);
	if (!avail)
		return false;
	q->notified_used = q->used_idx;
	q->is_notified_valid = true;
	/* used.idx is stored before the driver's wish is loaded; pairs with
	 * the driver's fence between storing its wish and loading used.idx. */
	atomic_thread_fence(memory_order_seq_cst);
	if (!q->has_event_idx)
		return !(ring_load(avail, memory_order_relaxed) &
			 VIRTQ_AVAIL_F_NO_INTERRUPT);
	if (!was_valid)
		return true;
	event = ring_load(avail + 4 + 2 * q->size, memory_order_relaxed);
	return (u16)(q->used_idx - event - 1) < (u16)(q->used_idx - old);
}

static void used_flags_set(struct virtqueue *q, u16 flags)
{
	u8 *used = used_area(q);

	if (!used)
		return;
	ring_store(used, flags, memory_order_relaxed);
	mem_written(q->mem, q->used, 2);
}

void virtqueue_kick_disable(struct virtqueue *q)
{
	/* With EVENT_IDX a stale avail_event suppresses on its own. */
	if (q->is_ready && !q->is_broken && !q->has_event_idx)
		used_flags_set(q, VIRTQ_USED_F_NO_NOTIFY);
}

bool virtqueue_kick_enable(struct virtqueue *q)
{
	u64 event_off = 4 + 8ull * q->size;
	u8 *used;

	if (!q->is_ready || q->is_broken)
		return false;
	if (!q->has_event_idx) {
		used_flags_set(q, 0);
	} else {
		used = used_area(q);
		if (!used)
			return false;
		ring_store(used + event_off, q->avail_idx,
			   memory_order_relaxed);
		mem_written(q->mem, q->used + event_off, 2);
	}
	/* Pairs with the driver's fence between storing avail.idx and loading
	 * our wish. */
	atomic_thread_fence(memory_order_seq_cst);
	return virtqueue_has_work(q);
}

void virtqueue_state(struct virtqueue *q, struct state *s)
{
	bool is_loading = state_is_loading(s);

	if (!is_loading)
		ASSERT(q->in_flight == 0 || q->is_broken);
	st_u16(s, "size", &q->size);
	st_u64(s, "desc", &q->desc);
	st_u64(s, "avail", &q->avail);
	st_u64(s, "used", &q->used);
	st_bool(s, "is_ready", &q->is_ready);
	st_bool(s, "is_broken", &q->is_broken);
	st_u16(s, "avail_idx", &q->avail_idx);
	st_u16(s, "used_idx", &q->used_idx);
	st_u16(s, "notified_used", &q->notified_used);
	st_bool(s, "is_notified_valid", &q->is_notified_valid);
	if (!q->is_ready)
		return;
	st_require(s, size_is_valid(q), "virtqueue size");
	st_require(s, !(q->desc & 15) && !(q->avail & 1) && !(q->used & 3),
		   "virtqueue alignment");
	st_require(s, q->is_broken || q->avail_idx == q->used_idx,
		   "virtqueue indices");
}

size_t iov_to_buf(const struct iovec *iov, size_t n, u64 skip, void *dst,
		  size_t len)
{
	size_t done = 0;

	for (size_t i = 0; i < n && done < len; i++) {
		size_t part;

		if (skip >= iov[i].iov_len) {
			skip -= iov[i].iov_len;
			continue;
		}
		part = MIN(len - done, iov[i].iov_len - skip);
		memcpy((u8 *)dst + done, (u8 *)iov[i].iov_base + skip, part);
		done += part;
		skip = 0;
	}
	return done;
}

size_t buf_to_iov(const struct iovec *iov, size_t n, u64 skip, const void *src,
		  size_t len)
{
	size_t done = 0;

	for (size_t i = 0; i < n && done < len; i++) {
		size_t part;

		if (skip >= iov[i].iov_len) {
			skip -= iov[i].iov_len;
			continue;
		}
		part = MIN(len - done, iov[i].iov_len - skip);
		memcpy((u8 *)iov[i].iov_base + skip, (const u8 *)src + done,
		       part);
		done += part;
		skip = 0;
	}
	return done;
}

int iov_slice(const struct iovec *iov, size_t n, u64 skip, u64 len,
	      struct iovec *dst)
{
	int used = 0;

	for (size_t i = 0; i < n && len; i++) {
		u64 part;

		if (skip >= iov[i].iov_len) {
			skip -= iov[i].iov_len;
			continue;
		}
		part = MIN(len, iov[i].iov_len - skip);
		dst[used].iov_base = (u8 *)iov[i].iov_base + skip;
		dst[used].iov_len = part;
		used++;
		len -= part;
		skip = 0;
	}
	return len ? -1 : used;
}
