/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY
 *
 * RAM slots stand in an array sorted by guest address. They change only while
 * nobody looks (mem.h, Rules), so look-ups take no lock.
 *
 * I/O regions stand in one sorted array for each space. Look-ups and changes
 * both happen under the device lock, so a region's callback may move regions,
 * itself included: after every callback the address is looked up afresh, and
 * no pointer into the array is kept across one.
 *
 * Doorbells are read with no lock. The readers see an immutable sorted table
 * through an atomic pointer; a writer builds a new table, publishes it, and
 * waits until every reader that may hold the old one has left. Readers count
 * themselves in readers[phase & 1]; the writer flips the phase twice, so new
 * readers go to the other counter and cannot starve it, and a reader that read
 * the phase just before a flip is caught by the second one. Therefore, when
 * mem_doorbell_del() returns, its event_fd may be closed.
 */
#include "mem/mem.h"

#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/assert.h"

struct region_table {
	struct io_region **regions; /* sorted by base, disjoint */
	size_t count;
	size_t cap;
};

struct doorbell_table {
	size_t count;
	struct mem_doorbell bells[]; /* sorted by space, then addr */
};

struct mem {
	pthread_mutex_t io_lock;
	struct mem_slot slots[MEM_SLOTS_MAX]; /* sorted by gpa, disjoint */
	size_t slot_count;
	struct mem_listener listener;
	struct region_table io[2]; /* by enum io_space */

	pthread_mutex_t doorbell_lock;		    /* serialises the writers */
	_Atomic(struct doorbell_table *) doorbells; /* NULL: none */
	atomic_uint phase;
	atomic_uint readers[2];
};

static void *alloc_or_abort(void *old, size_t n)
{
	void *p = realloc(old, n);

	ASSERT(p);
	return p;
}

struct mem *mem_new(void)
{
	struct mem *m = calloc(1, sizeof(*m));

	ASSERT(m);
	pthread_mutex_init(&m->io_lock, NULL);
	pthread_mutex_init(&m->doorbell_lock, NULL);
	return m;
}

void mem_free(struct mem *m)
{
	if (!m)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(m->io); i++) {
		for (size_t j = 0; j < m->io[i].count; j++)
			m->io[i].regions[j]->is_mapped = false;
		free(m->io[i].regions);
	}
	free(atomic_load_explicit(&m->doorbells, memory_order_relaxed));
	pthread_mutex_destroy(&m->doorbell_lock);
	pthread_mutex_destroy(&m->io_lock);
	free(m);
}

pthread_mutex_t *mem_io_lock(struct mem *m)
{
	return &m->io_lock;
}

/* ---- RAM ---- */

/* The index of the first slot that ends beyond gpa. */
static size_t slot_index(const struct mem *m, gpa_t gpa)
{
	size_t lo = 0, hi = m->slot_count;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;
		const struct mem_slot *s = &m->slots[mid];

		/* The last byte: gpa + size may be 2^64. */
		if (s->gpa + (s->size - 1) < gpa)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static int slot_check(const struct mem *m, const struct mem_slot *slot,
		      struct err *err)
{
	u64 mask = PAGE_BYTES - 1;

	if (!slot->size || (slot->gpa & mask) || (slot->size & mask) ||
	    ((uintptr_t)slot->hva & mask) || !slot->hva)
		return err_set(err, -EINVAL,
			       "memory slot %u is not made of whole pages",
			       slot->id);
	if (slot->gpa + (slot->size - 1) < slot->gpa)
		return err_set(err, -EINVAL,
			       "memory slot %u wraps around the address space",
			       slot->id);
	if (m->slot_count == MEM_SLOTS_MAX)
		return err_set(err, -ENOSPC, "more than %d memory slots",
			       MEM_SLOTS_MAX);
	for (size_t i = 0; i < m->slot_count; i++) {
		const struct mem_slot *s = &m->slots[i];

		if (s->id == slot->id)
			return err_set(err, -EINVAL,
				       "memory slot %u exists already", s->id);
		if (slot->gpa <= s->gpa + (s->size - 1) &&
		    s->gpa <= slot->gpa + (slot->size - 1))
			return err_set(err, -EINVAL,
				       "memory slot %u overlaps slot %u",
				       slot->id, s->id);
	}
	return 0;
}

int mem_slot_add(struct mem *m, const struct mem_slot *slot, struct err *err)
{
	size_t at;
	int rc = slot_check(m, slot, err);

	if (rc)
		return rc;
	at = slot_index(m, slot->gpa);
	memmove(&m->slots[at + 1], &m->slots[at],
		(m->slot_count - at) * sizeof(m->slots[0]));
	m->slots[at] = *slot;
	m->slot_count++;
	if (m->listener.slot_changed)
		m->listener.slot_changed(m->listener.opaque, &m->slots[at],
					 true);
	return 0;
}

int mem_slot_del(struct mem *m, u32 id)
{
	for (size_t i = 0; i < m->slot_count; i++) {
		struct mem_slot gone = m->slots[i];

		if (gone.id != id)
			continue;
		/* First out of the table, then out of the engine: a look-up in
		 * between must not bring it back. */
		m->slot_count--;
		memmove(&m->slots[i], &m->slots[i + 1],
			(m->slot_count - i) * sizeof(m->slots[0]));
		if (m->listener.slot_changed)
			m->listener.slot_changed(m->listener.opaque, &gone,
						 false);
		return 0;
	}
	return -ENOENT;
}

const struct mem_slot *mem_slots(const struct mem *m, size_t *out_n)
{
	*out_n = m->slot_count;
	return m->slots;
}

const struct mem_slot *mem_slot_find(const struct mem *m, gpa_t gpa)
{
	size_t i = slot_index(m, gpa);

	if (i == m->slot_count || gpa < m->slots[i].gpa)
		return NULL;
	return &m->slots[i];
}

static void doorbell_changed(struct mem *m, const struct mem_doorbell *d,
			     bool added)
{
	if (m->listener.doorbell_changed)
		m->listener.doorbell_changed(m->listener.opaque, d, added);
}

void mem_set_listener(struct mem *m, const struct mem_listener *l)
{
	const struct doorbell_table *t;

	m->listener = l ? *l : (struct mem_listener){0};
	pthread_mutex_lock(&m->doorbell_lock);
	t = atomic_load_explicit(&m->doorbells, memory_order_relaxed);
	for (size_t i = 0; t && i < t->count; i++)
		doorbell_changed(m, &t->bells[i], true);
	pthread_mutex_unlock(&m->doorbell_lock);
	if (!m->listener.slot_changed)
		return;
	for (size_t i = 0; i < m->slot_count; i++)
		m->listener.slot_changed(m->listener.opaque, &m->slots[i],
					 true);
}

/* True when each byte of [gpa, gpa+len) is RAM (writable when `write`). */
static bool is_ram_range(const struct mem *m, gpa_t gpa, u64 len, bool write)
{
	if (len && gpa + (len - 1) < gpa)
		return false;
	for (size_t i = slot_index(m, gpa); len; i++) {
		const struct mem_slot *s;
		u64 n;

		if (i == m->slot_count)
			return false;
		s = &m->slots[i];
		if (gpa < s->gpa || (write && (s->flags & MEM_SLOT_ROM)))
			return false;
		n = MIN(len, s->size - (gpa - s->gpa));
		gpa += n;
		len -= n;
	}
	return true;
}

/* Copies between buf and a range that is_ram_range() has accepted. */
static void copy_ram(struct mem *m, gpa_t gpa, u8 *dst, const u8 *src, u64 len)
{
	for (size_t i = slot_index(m, gpa); len; i++) {
		const struct mem_slot *s = &m->slots[i];
		u8 *hva = s->hva + (gpa - s->gpa);
		u64 n = MIN(len, s->size - (gpa - s->gpa));

		if (dst) {
			memcpy(dst, hva, n);
			dst += n;
		} else {
			memcpy(hva, src, n);
			src += n;
		}
		gpa += n;
		len -= n;
	}
}

int mem_read(struct mem *m, gpa_t gpa, void *dst, u64 len)
{
	if (!is_ram_range(m, gpa, len, false))
		return -EFAULT;
	copy_ram(m, gpa, dst, NULL, len);
	return 0;
}

int mem_write(struct mem *m, gpa_t gpa, const void *src, u64 len)
{
	if (!is_ram_range(m, gpa, len, true))
		return -EFAULT;
	copy_ram(m, gpa, NULL, src, len);
	mem_written(m, gpa, len);
	return 0;
}

void *mem_hva(struct mem *m, gpa_t gpa, u64 len, bool write)
{
	const struct mem_slot *s = mem_slot_find(m, gpa);

	if (!s || !len || len > s->size - (gpa - s->gpa) ||
	    (write && (s->flags & MEM_SLOT_ROM)))
		return NULL;
	return s->hva + (gpa - s->gpa);
}

void mem_written(struct mem *m, gpa_t gpa, u64 len)
{
	if (len && m->listener.written)
		m->listener.written(m->listener.opaque, gpa, len);
}

/* ---- I/O ---- */

/* The index of the first region that ends beyond addr. */
static size_t region_index(const struct region_table *t, u64 addr)
{
	size_t lo = 0, hi = t->count;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;
		const struct io_region *r = t->regions[mid];

		if (r->base + (r->size - 1) < addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static const struct io_region *region_find(const struct region_table *t,
					   u64 addr)
{
	size_t i = region_index(t, addr);

	if (i == t->count || addr < t->regions[i]->base)
		return NULL;
	return t->regions[i];
}

int mem_io_add(struct mem *m, struct io_region *r)
{
	struct region_table *t = &m->io[r->space];
	u64 limit = r->space == IO_PIO ? 0xffff : UINT64_MAX;
	size_t at;

	ASSERT(!r->is_mapped);
	/* Guests place BARs: any base must be survived. */
	if (!r->size || r->base > limit || r->size - 1 > limit - r->base)
		return -EINVAL;
	ASSERT(!r->ops->min_size || r->size % r->ops->min_size == 0);
	at = region_index(t, r->base);
	if (at < t->count && t->regions[at]->base <= r->base + (r->size - 1))
		return -EEXIST;
	if (t->count == t->cap) {
		t->cap = t->cap ? 2 * t->cap : 32;
		t->regions = alloc_or_abort(t->regions,
					    t->cap * sizeof(t->regions[0]));
	}
	memmove(&t->regions[at + 1], &t->regions[at],
		(t->count - at) * sizeof(t->regions[0]));
	t->regions[at] = r;
	t->count++;
	r->is_mapped = true;
	return 0;
}

void mem_io_del(struct mem *m, struct io_region *r)
{
	struct region_table *t = &m->io[r->space];

	if (!r->is_mapped)
		return;
	r->is_mapped = false;
	for (size_t i = 0; i < t->count; i++) {
		if (t->regions[i] != r)
			continue;
		t->count--;
		memmove(&t->regions[i], &t->regions[i + 1],
			(t->count - i) * sizeof(t->regions[0]));
		return;
	}
	ASSERT(!"a mapped region is in the table");
}

static u64 size_mask(unsigned size)
{
	return size >= 8 ? UINT64_MAX : BIT64(8 * size) - 1;
}

/* The largest naturally aligned piece at off, of at most `left` bytes, that
 * the region takes in one call. */
static unsigned piece_size(const struct io_region *r, u64 off, unsigned left)
{
	unsigned max = r->ops->max_size ? r->ops->max_size : 8;
	unsigned n = 8;

	while (n > max || n > left || (off & (n - 1)) || n > r->size - off)
		n /= 2;
	return n;
}

/* Reads at most `left` bytes at addr; returns how many. */
static unsigned read_piece(struct mem *m, enum io_space space, u64 addr,
			   unsigned left, u64 *out)
{
	const struct io_region *r = region_find(&m->io[space], addr);
	unsigned n, min;
	u64 off, unit;

	if (!r || !r->ops->read) {
		*out = 0xff;
		return 1;
	}
	off = addr - r->base;
	n = piece_size(r, off, left);
	min = r->ops->min_size;
	if (n >= min) {
		*out = r->ops->read(r->opaque, off, n) & size_mask(n);
		return n;
	}
	unit = ALIGN_DOWN(off, (u64)min);
	n = MIN(left, (unsigned)(unit + min - off));
	*out = (r->ops->read(r->opaque, unit, min) >> (8 * (off - unit))) &
	       size_mask(n);
	return n;
}

static u64 io_read(struct mem *m, enum io_space space, u64 addr, unsigned size)
{
	u64 limit = space == IO_PIO ? 0xffff : UINT64_MAX;
	u64 value = 0;
	unsigned done = 0;

	ASSERT(size >= 1 && size <= 8);
	pthread_mutex_lock(&m->io_lock);
	while (done < size) {
		u64 piece = 0xff;
		unsigned n = 1;

		/* Beyond the last address there is nothing. */
		if (done <= limit - addr)
			n = read_piece(m, space, addr + done, size - done,
				       &piece);
		value |= piece << (8 * done);
		done += n;
	}
	pthread_mutex_unlock(&m->io_lock);
	return value;
}

static unsigned write_piece(struct mem *m, enum io_space space, u64 addr,
			    unsigned left, u64 value)
{
	const struct io_region *r = region_find(&m->io[space], addr);
	unsigned n;
	u64 off;

	if (!r || !r->ops->write)
		return 1;
	off = addr - r->base;
	n = piece_size(r, off, left);
	r->ops->write(r->opaque, off, n, value & size_mask(n));
	return n;
}

static void io_write(struct mem *m, enum io_space space, u64 addr,
		     unsigned size, u64 value)
{
	u64 limit = space == IO_PIO ? 0xffff : UINT64_MAX;
	unsigned done = 0;

	pthread_mutex_lock(&m->io_lock);
	while (done < size && done <= limit - addr)
		done += write_piece(m, space, addr + done, size - done,
				    value >> (8 * done));
	pthread_mutex_unlock(&m->io_lock);
}

/* ---- Doorbells ---- */

static int bell_order(const struct mem_doorbell *d, enum io_space space,
		      u64 addr)
{
	if (d->space != space)
		return d->space < space ? -1 : 1;
	if (d->addr != addr)
		return d->addr < addr ? -1 : 1;
	return 0;
}

/* The index of the first doorbell at or beyond (space, addr). */
static size_t bell_index(const struct doorbell_table *t, enum io_space space,
			 u64 addr)
{
	size_t lo = 0, hi = t->count;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (bell_order(&t->bells[mid], space, addr) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static bool table_ring(const struct doorbell_table *t, enum io_space space,
		       u64 addr, unsigned size, u64 value)
{
	u64 one = 1;

	for (size_t i = bell_index(t, space, addr); i < t->count; i++) {
		const struct mem_doorbell *d = &t->bells[i];

		if (bell_order(d, space, addr))
			break;
		if ((d->size && d->size != size) ||
		    (d->match && (d->value & size_mask(size)) != value))
			continue;
		/* EAGAIN: the counter is full, so the event is pending. */
		if (write(d->event_fd, &one, sizeof(one)) < 0)
			ASSERT(errno == EAGAIN || errno == EINTR);
		return true;
	}
	return false;
}

static bool doorbell_ring(struct mem *m, enum io_space space, u64 addr,
			  unsigned size, u64 value)
{
	const struct doorbell_table *t;
	unsigned phase;
	bool rang = false;

	if (!atomic_load_explicit(&m->doorbells, memory_order_relaxed))
		return false;
	phase = atomic_load(&m->phase) & 1;
	/* seq_cst: counted before the table is read (doorbells_publish). */
	atomic_fetch_add(&m->readers[phase], 1);
	t = atomic_load(&m->doorbells);
	if (t)
		rang = table_ring(t, space, addr, size,
				  value & size_mask(size));
	/* Pairs with the acquire in doorbells_publish. */
	atomic_fetch_sub_explicit(&m->readers[phase], 1, memory_order_release);
	return rang;
}

/* Swaps in `t` and frees the old table once nobody can be reading it. */
static void doorbells_publish(struct mem *m, struct doorbell_table *t)
{
	struct doorbell_table *old = atomic_exchange(&m->doorbells, t);

	for (int i = 0; old && i < 2; i++) {
		unsigned phase = atomic_fetch_add(&m->phase, 1) & 1;

		/* Pairs with the release in doorbell_ring. */
		while (atomic_load(&m->readers[phase]))
			sched_yield();
	}
	free(old);
}

static struct doorbell_table *doorbells_current(struct mem *m)
{
	return atomic_load_explicit(&m->doorbells, memory_order_relaxed);
}

static struct doorbell_table *table_new(size_t count)
{
	struct doorbell_table *t;

	t = alloc_or_abort(NULL, sizeof(*t) + count * sizeof(t->bells[0]));
	t->count = count;
	return t;
}

static bool is_same_bell(const struct mem_doorbell *a,
			 const struct mem_doorbell *b)
{
	return !bell_order(a, b->space, b->addr) && a->size == b->size &&
	       a->match == b->match && (!a->match || a->value == b->value);
}

int mem_doorbell_add(struct mem *m, const struct mem_doorbell *d)
{
	struct doorbell_table *old, *t;
	size_t count, at;
	int rc = 0;

	if (d->size > 8 || (d->size & (d->size - 1)) || d->event_fd < 0)
		return -EINVAL;
	pthread_mutex_lock(&m->doorbell_lock);
	old = doorbells_current(m);
	count = old ? old->count : 0;
	for (size_t i = 0; i < count; i++)
		if (is_same_bell(&old->bells[i], d))
			rc = -EEXIST;
	if (!rc) {
		t = table_new(count + 1);
		at = old ? bell_index(old, d->space, d->addr) : 0;
		for (size_t i = 0; i < count; i++)
			t->bells[i + (i >= at)] = old->bells[i];
		t->bells[at] = *d;
		doorbells_publish(m, t);
		doorbell_changed(m, d, true);
	}
	pthread_mutex_unlock(&m->doorbell_lock);
	return rc;
}

void mem_doorbell_del(struct mem *m, const struct mem_doorbell *d)
{
	struct doorbell_table *old, *t = NULL;
	size_t count, at = 0;

	pthread_mutex_lock(&m->doorbell_lock);
	old = doorbells_current(m);
	count = old ? old->count : 0;
	while (at < count && !is_same_bell(&old->bells[at], d))
		at++;
	if (at < count) {
		if (count > 1) {
			t = table_new(count - 1);
			for (size_t i = 0; i + 1 < count; i++)
				t->bells[i] = old->bells[i + (i >= at)];
		}
		doorbell_changed(m, d, false);
		doorbells_publish(m, t);
	}
	pthread_mutex_unlock(&m->doorbell_lock);
}

/* ---- Access ---- */

u32 mem_pio_read(struct mem *m, u16 port, unsigned size)
{
	return (u32)io_read(m, IO_PIO, port, size);
}

u64 mem_mmio_read(struct mem *m, gpa_t gpa, unsigned size)
{
	return io_read(m, IO_MMIO, gpa, size);
}

void mem_pio_write(struct mem *m, u16 port, unsigned size, u32 value)
{
	ASSERT(size >= 1 && size <= 4);
	if (!doorbell_ring(m, IO_PIO, port, size, value))
		io_write(m, IO_PIO, port, size, value);
}

void mem_mmio_write(struct mem *m, gpa_t gpa, unsigned size, u64 value)
{
	ASSERT(size >= 1 && size <= 8);
	if (!doorbell_ring(m, IO_MMIO, gpa, size, value))
		io_write(m, IO_MMIO, gpa, size, value);
}
