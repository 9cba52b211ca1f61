/* SPDX-License-Identifier: Apache-2.0 */
/* The guest's physical address space: RAM slots, and PIO and MMIO regions.
 *
 * Rules
 * - Slots and regions are changed only while no vCPU runs (start-up), or
 *   under the machine's device lock with the engine told through the
 *   listener, which must not return before the old mapping is out of use.
 * - RAM is reached by guest address only through this header, and a RAM
 *   access never reaches a device: DMA aimed at MMIO fails with -EFAULT, so
 *   devices cannot re-enter each other.
 * - mem_mmio_* and mem_pio_* take the device lock (mem_io_lock) around the
 *   callback: device code is single-threaded. Callers hold no lock.
 * - An access to an unassigned address reads all ones and ignores writes.
 */
#pragma once

#include <pthread.h>

#include "base/err.h"
#include "base/types.h"

struct mem;

struct mem *mem_new(void);
void mem_free(struct mem *m);
/* The machine's device lock; recursive use is a bug. */
pthread_mutex_t *mem_io_lock(struct mem *m);

/* ---- RAM ---- */

#define MEM_SLOTS_MAX 32
#define MEM_SLOT_ROM  BIT32(0) /* guest writes are ignored */

struct mem_slot {
	u32 id;
	u32 flags;
	gpa_t gpa; /* page aligned */
	u64 size;  /* bytes, whole pages, > 0 */
	u8 *hva;   /* borrowed; page aligned */
};

/* Overlap, misalignment and wrap-around are refused: -EINVAL. */
int mem_slot_add(struct mem *m, const struct mem_slot *slot, struct err *err);
int mem_slot_del(struct mem *m, u32 id);
const struct mem_slot *mem_slots(const struct mem *m, size_t *out_n);
const struct mem_slot *mem_slot_find(const struct mem *m, gpa_t gpa);

struct mem_doorbell;

struct mem_listener {
	void (*slot_changed)(void *opaque, const struct mem_slot *slot,
			     bool added);
	/* Devices or loaders wrote RAM (the translator drops code). */
	void (*written)(void *opaque, gpa_t gpa, u64 len);
	/* An engine that rings doorbells by itself; mem rings those that it
	 * does not. Not to touch doorbells in it. */
	void (*doorbell_changed)(void *opaque, const struct mem_doorbell *d,
				 bool added);
	void *opaque;
};
/* One listener: the engine. Existing slots and doorbells are announced at once.
 */
void mem_set_listener(struct mem *m, const struct mem_listener *l);

/* DMA. All-or-nothing range checks: -EFAULT unless every byte lies in RAM
 * (writes: RAM that is not ROM). A range may span adjacent slots. */
int mem_read(struct mem *m, gpa_t gpa, void *dst, u64 len) MUST_CHECK;
int mem_write(struct mem *m, gpa_t gpa, const void *src, u64 len) MUST_CHECK;
/* A pointer to [gpa, gpa+len) if it lies in one slot (writable when `write`),
 * else NULL. After writing through it call mem_written(). len 0: NULL. */
void *mem_hva(struct mem *m, gpa_t gpa, u64 len, bool write);
void mem_written(struct mem *m, gpa_t gpa, u64 len);

/* ---- I/O ---- */

enum io_space { IO_PIO, IO_MMIO };

/* off is relative to the region; size is 1, 2, 4 or 8 and off+size lies
 * inside the region, and off is a multiple of size: wider, misaligned and
 * crossing accesses are split by mem. */
struct io_ops {
	u64 (*read)(void *opaque, u64 off, unsigned size);
	void (*write)(void *opaque, u64 off, unsigned size, u64 value);
	/* Accesses are widened/split to these bounds; 0 means 1 and 8. The
	 * region's size is a multiple of min_size. A
	 * narrower access than min reads the aligned min-size unit and
	 * extracts; a narrower write is passed as it is. No read: all ones;
	 * no write: ignored. */
	u8 min_size, max_size;
};

struct io_region {
	const char *name;
	enum io_space space;
	u64 base; /* port or GPA */
	u64 size; /* bytes */
	const struct io_ops *ops;
	void *opaque;
	bool is_mapped; /* owned by mem */
};

/* The region is borrowed until mem_io_del. Regions must not overlap one
 * another: -EEXIST (the later one is refused, the guest sees the earlier).
 * -EINVAL when it does not fit the space. Both are called with the device
 * lock held, or before any vCPU runs; a region's callback may call them. */
int mem_io_add(struct mem *m, struct io_region *r);
void mem_io_del(struct mem *m, struct io_region *r);

u32 mem_pio_read(struct mem *m, u16 port, unsigned size);
void mem_pio_write(struct mem *m, u16 port, unsigned size, u32 value);
u64 mem_mmio_read(struct mem *m, gpa_t gpa, unsigned size);
void mem_mmio_write(struct mem *m, gpa_t gpa, unsigned size, u64 value);

/* A doorbell: a write of exactly this size (and value, when match) to this
 * address signals an eventfd instead of calling a region, with no lock. */
struct mem_doorbell {
	enum io_space space;
	u64 addr;
	u8 size; /* 0: any */
	bool match;
	u64 value;
	int event_fd; /* borrowed */
};
/* -EEXIST when the same is there already. Any thread. After mem_doorbell_del
 * nobody signals event_fd any more. */
int mem_doorbell_add(struct mem *m, const struct mem_doorbell *d);
void mem_doorbell_del(struct mem *m, const struct mem_doorbell *d);
