/* SPDX-License-Identifier: Apache-2.0 */
/* What a chip is built from, and the machine's clock.
 *
 * Device time is the machine's, not the host's: it stands still while the
 * machine is paused or being saved, and tests move it by hand. Chips read it
 * with hw_now() and wait on it with a struct hw_timer; both under the device
 * lock. hw_wall() is host UTC, stopped together with the clock.
 */
#pragma once

#include "base/list.h"
#include "dev/device.h"
#include "irq/irq.h"
#include "loop/loop.h"
#include "mem/mem.h"

struct hw_clock {
	struct loop *loop;  /* NULL: a clock that is only moved by hand */
	struct list timers; /* armed hw_timers */
	i64 offset_ns;	    /* machine time - CLOCK_MONOTONIC, while running */
	bool is_stopped;
	u64 stopped_ns, stopped_wall_ns;
};

struct hw_timer {
	struct hw_clock *clock;
	struct loop_timer loop_timer;
	struct list link;
	u64 due_ns; /* machine time; 0: off */
	void (*fn)(void *opaque);
	void *opaque;
};

/* Starts stopped, at 1 s; all armed timers wait for hw_clock_start(). */
void hw_clock_init(struct hw_clock *c, struct loop *loop);
void hw_clock_start(struct hw_clock *c);
void hw_clock_stop(struct hw_clock *c);
/* Moves a stopped clock and runs the timers that come due, in order. */
void hw_clock_advance(struct hw_clock *c, u64 ns);
/* Sets a stopped clock, before timers are armed: for a load. */
void hw_clock_set(struct hw_clock *c, u64 now_ns);
u64 hw_now(const struct hw_clock *c);
u64 hw_wall(const struct hw_clock *c);

void hw_timer_init(struct hw_timer *t, struct hw_clock *c,
		   void (*fn)(void *opaque), void *opaque);
void hw_timer_arm(struct hw_timer *t, u64 due_ns);
void hw_timer_disarm(struct hw_timer *t);

/* Everything is borrowed and outlives the chips. */
struct hw_env {
	struct device_list *devices;
	struct mem *mem;
	struct irq_router *router;
	struct hw_clock *clock;
};

/* What the guest asks of the machine; called with the device lock held, so it
 * only notes or posts the wish. */
struct hw_request {
	void (*fn)(void *opaque);
	void *opaque;
};

static inline void hw_request(const struct hw_request *r)
{
	if (r->fn)
		r->fn(r->opaque);
}

/* Maps a chip's fixed range; a clash is a mistake in the machine's layout and
 * aborts. */
void hw_map(const struct hw_env *env, struct io_region *r, const char *name,
	    enum io_space space, u64 base, u64 size, const struct io_ops *ops,
	    void *opaque);
/* calloc that cannot fail, device_init and device_list_add in one; `size` is
 * the chip's, whose first member is its struct device. */
void *hw_chip_new(const struct hw_env *env, size_t size,
		  const struct device_ops *ops, const char *name);
