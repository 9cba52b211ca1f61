/* SPDX-License-Identifier: Apache-2.0 */
/* For tests: guest RAM of a few slots and the driver's side of a split
 * virtqueue in it. Only *_test.c and *_fuzz.c files include this. */
#pragma once

#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/assert.h"
#include "mem/mem.h"
#include "virtio/virtqueue.h"

/* Two adjacent RAM slots with distinct host memory, then a ROM. */
#define TESTRAM_BYTES	  (2 * MIB)
#define TESTRAM_BORDER	  (1 * MIB)
#define TESTRAM_ROM	  (4 * MIB)
#define TESTRAM_ROM_BYTES (64 * KIB)

struct testram {
	struct mem *mem;
	u8 *host[3];
	u64 size[3];
};

static inline void testram_init(struct testram *t)
{
	static const struct {
		gpa_t gpa;
		u64 size;
		u32 flags;
	} slots[3] = {
		{0, TESTRAM_BORDER, 0},
		{TESTRAM_BORDER, TESTRAM_BYTES - TESTRAM_BORDER, 0},
		{TESTRAM_ROM, TESTRAM_ROM_BYTES, MEM_SLOT_ROM},
	};

	t->mem = mem_new();
	for (u32 i = 0; i < 3; i++) {
		struct mem_slot slot = {
			.id = i,
			.flags = slots[i].flags,
			.gpa = slots[i].gpa,
			.size = slots[i].size,
		};
		int rc;

		/* Untouched pages cost nothing; a guard page follows. */
		t->host[i] = mmap(NULL, slots[i].size + PAGE_BYTES, PROT_NONE,
				  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		ASSERT(t->host[i] != MAP_FAILED);
		rc = mprotect(t->host[i], slots[i].size,
			      PROT_READ | PROT_WRITE);
		ASSERT(rc == 0);
		t->size[i] = slots[i].size;
		slot.hva = t->host[i];
		rc = mem_slot_add(t->mem, &slot, NULL);
		ASSERT(rc == 0);
	}
}

static inline void testram_fini(struct testram *t)
{
	mem_free(t->mem);
	for (int i = 0; i < 3; i++)
		munmap(t->host[i], t->size[i] + PAGE_BYTES);
}

static inline u8 *testram_at(struct testram *t, gpa_t gpa)
{
	ASSERT(gpa < TESTRAM_BYTES);
	return gpa < TESTRAM_BORDER ? t->host[0] + gpa
				    : t->host[1] + (gpa - TESTRAM_BORDER);
}

struct testring {
	struct testram *ram;
	u16 size;
	gpa_t desc, avail, used;
	u16 avail_idx; /* the driver's next */
	u16 used_seen;
};

/* Lays a ring of `size` out at base (page aligned; 40 KiB are enough). */
static inline void testring_init(struct testring *r, struct testram *ram,
				 gpa_t base, u16 size)
{
	r->ram = ram;
	r->size = size;
	r->desc = base;
	r->avail = base + 16ull * size;
	r->used = ALIGN_UP(r->avail + 6 + 2ull * size, 4ull);
	r->avail_idx = 0;
	r->used_seen = 0;
	memset(testram_at(ram, base), 0, r->used + 6 + 8ull * size - base);
}

static inline void testring_desc(struct testring *r, u16 i, u64 addr, u32 len,
				 u16 flags, u16 next)
{
	u8 *d = testram_at(r->ram, r->desc) + 16ull * i;

	st_le64(d, addr);
	st_le32(d + 8, len);
	st_le16(d + 12, flags);
	st_le16(d + 14, next);
}

static inline void testring_set_avail_idx(struct testring *r, u16 idx)
{
	u8 *p = testram_at(r->ram, r->avail) + 2;

	r->avail_idx = idx;
	atomic_store_explicit((_Atomic u16 *)(void *)p, idx,
			      memory_order_release);
}

/* Makes the chain at head available. */
static inline void testring_add(struct testring *r, u16 head)
{
	u8 *avail = testram_at(r->ram, r->avail);

	st_le16(avail + 4 + 2 * (r->avail_idx % r->size), head);
	testring_set_avail_idx(r, r->avail_idx + 1);
}

static inline void testring_set_flags(struct testring *r, u16 flags)
{
	st_le16(testram_at(r->ram, r->avail), flags);
}

static inline void testring_set_used_event(struct testring *r, u16 idx)
{
	st_le16(testram_at(r->ram, r->avail) + 4 + 2ull * r->size, idx);
}

static inline u16 testring_used_flags(struct testring *r)
{
	return ld_le16(testram_at(r->ram, r->used));
}

static inline u16 testring_used_idx(struct testring *r)
{
	u8 *p = testram_at(r->ram, r->used) + 2;

	return atomic_load_explicit((_Atomic u16 *)(void *)p,
				    memory_order_acquire);
}

static inline u16 testring_avail_event(struct testring *r)
{
	return ld_le16(testram_at(r->ram, r->used) + 4 + 8ull * r->size);
}

/* Takes the next used entry; false when there is none. */
static inline bool testring_reap(struct testring *r, u32 *out_id, u32 *out_len)
{
	u8 *used = testram_at(r->ram, r->used);
	u8 *e = used + 4 + 8ull * (r->used_seen % r->size);

	if (testring_used_idx(r) == r->used_seen)
		return false;
	r->used_seen++;
	*out_id = ld_le32(e);
	*out_len = ld_le32(e + 4);
	return true;
}

/* A virtqueue over the ring, enabled. */
static inline void testring_queue(struct testring *r, struct virtqueue *q)
{
	int rc;

	virtqueue_init(q, r->ram->mem, 0, VIRTQ_SIZE_MAX);
	q->size = r->size;
	q->desc = r->desc;
	q->avail = r->avail;
	q->used = r->used;
	rc = virtqueue_enable(q);
	ASSERT(rc == 0);
}
