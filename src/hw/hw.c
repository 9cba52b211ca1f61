/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY
 *
 *	machine time = CLOCK_MONOTONIC + offset		while running
 *	machine time = stopped_ns			while stopped
 *
 * Stopping keeps each timer's due time and takes it off the loop; starting
 * chooses the offset so that time goes on from where it stood.
 */
#include "hw/hw.h"

#include <stdlib.h>

#include "base/assert.h"
#include "base/clock.h"

u64 hw_now(const struct hw_clock *c)
{
	return c->is_stopped ? c->stopped_ns : clock_mono_ns() + c->offset_ns;
}

u64 hw_wall(const struct hw_clock *c)
{
	return c->is_stopped ? c->stopped_wall_ns : clock_wall_ns();
}

void hw_clock_init(struct hw_clock *c, struct loop *loop)
{
	memset(c, 0, sizeof(*c));
	c->loop = loop;
	list_init(&c->timers);
	c->is_stopped = true;
	c->stopped_ns = NS_PER_SEC;
	c->stopped_wall_ns = clock_wall_ns();
}

static void timer_to_loop(struct hw_timer *t)
{
	u64 now = hw_now(t->clock);
	u64 wait = t->due_ns > now ? t->due_ns - now : 0;

	if (t->clock->loop)
		loop_timer_arm(&t->loop_timer, clock_mono_ns() + wait + 1);
}

void hw_clock_start(struct hw_clock *c)
{
	if (!c->is_stopped)
		return;
	c->offset_ns = c->stopped_ns - clock_mono_ns();
	c->is_stopped = false;
	list_for_each (it, &c->timers)
		timer_to_loop(list_entry(it, struct hw_timer, link));
}

void hw_clock_set(struct hw_clock *c, u64 now_ns)
{
	ASSERT(c->is_stopped);
	c->stopped_ns = now_ns;
	c->stopped_wall_ns = clock_wall_ns();
}

void hw_clock_stop(struct hw_clock *c)
{
	if (c->is_stopped)
		return;
	c->stopped_ns = hw_now(c);
	c->stopped_wall_ns = clock_wall_ns();
	c->is_stopped = true;
	list_for_each (it, &c->timers)
		if (c->loop)
			loop_timer_disarm(&list_entry(it, struct hw_timer, link)
						   ->loop_timer);
}

static struct hw_timer *first_due(struct hw_clock *c)
{
	struct hw_timer *first = NULL;

	list_for_each (it, &c->timers) {
		struct hw_timer *t = list_entry(it, struct hw_timer, link);

		if (!first || t->due_ns < first->due_ns)
			first = t;
	}
	return first;
}

void hw_clock_advance(struct hw_clock *c, u64 ns)
{
	u64 end = c->stopped_ns + ns;

	ASSERT(c->is_stopped);
	for (;;) {
		struct hw_timer *t = first_due(c);
		u64 to = t && t->due_ns < end ? t->due_ns : end;

		if (to > c->stopped_ns) {
			c->stopped_wall_ns += to - c->stopped_ns;
			c->stopped_ns = to;
		}
		if (!t || t->due_ns > end)
			return;
		hw_timer_disarm(t);
		t->fn(t->opaque);
	}
}

static void loop_timer_fired(struct loop_timer *lt)
{
	struct hw_timer *t = lt->opaque;

	if (!t->due_ns || t->clock->is_stopped)
		return;
	if (hw_now(t->clock) < t->due_ns) {
		timer_to_loop(t);
		return;
	}
	hw_timer_disarm(t);
	t->fn(t->opaque);
}

void hw_timer_init(struct hw_timer *t, struct hw_clock *c,
		   void (*fn)(void *opaque), void *opaque)
{
	memset(t, 0, sizeof(*t));
	t->clock = c;
	t->fn = fn;
	t->opaque = opaque;
	list_init(&t->link);
	if (c->loop)
		loop_timer_init(c->loop, &t->loop_timer, loop_timer_fired, t);
}

void hw_timer_arm(struct hw_timer *t, u64 due_ns)
{
	list_del(&t->link);
	t->due_ns = due_ns;
	list_add_tail(&t->clock->timers, &t->link);
	if (!t->clock->is_stopped)
		timer_to_loop(t);
}

void hw_timer_disarm(struct hw_timer *t)
{
	list_del(&t->link);
	t->due_ns = 0;
	if (t->clock->loop)
		loop_timer_disarm(&t->loop_timer);
}

void hw_map(const struct hw_env *env, struct io_region *r, const char *name,
	    enum io_space space, u64 base, u64 size, const struct io_ops *ops,
	    void *opaque)
{
	int rc;

	*r = (struct io_region){
		.name = name,
		.space = space,
		.base = base,
		.size = size,
		.ops = ops,
		.opaque = opaque,
	};
	rc = mem_io_add(env->mem, r);
	ASSERT(!rc);
}

void *hw_chip_new(const struct hw_env *env, size_t size,
		  const struct device_ops *ops, const char *name)
{
	struct device *dev = calloc(1, size);

	ASSERT(dev);
	device_init(dev, ops, name);
	device_list_add(env->devices, dev);
	return dev;
}
