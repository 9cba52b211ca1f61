/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY: Intel 8254 datasheet
 *
 * Nothing counts: a channel keeps the time when its count was loaded, and the
 * present count and output are worked out from the ticks since then. Only
 * channel 0 needs a timer, for the rising edges of its output. When the host
 * is late, missed periods of channel 0 are dropped, and the next edge is never
 * nearer than I8254_MIN_INTERVAL_NS.
 *
 * Not modelled: a low gate pausing modes 0 and 4; a new count in modes 2 and
 * 3 waiting for the end of the period.
 */
#include "hw/i8254.h"

#include <stdlib.h>

#include "base/clock.h"

#define CHANNELS	  3
#define PORT61_REFRESH_NS 15085
#define PORT61_GATE2	  0x01
#define PORT61_WRITABLE	  0x0f

enum access { ACCESS_LATCH, ACCESS_LOW, ACCESS_HIGH, ACCESS_BOTH };

struct channel {
	u32 count; /* 1-65536 */
	u64 start_ns;
	u8 mode, access; /* enum access, never ACCESS_LATCH */
	bool is_bcd, gate, is_loaded;
	u8 write_low; /* first byte of a two-byte count */
	bool writes_high, reads_high;
	u8 latched; /* bytes of the latched count left to read */
	u16 latch;
	bool status_latched;
	u8 status;
};

struct i8254 {
	struct device dev;
	struct mem *mem;
	struct hw_clock *clock;
	struct hw_timer timer;
	struct channel ch[CHANNELS];
	struct irq out0;
	struct io_region ports, port61;
	bool out0_level;
	u8 control61;
};

static u64 ticks_of_ns(u64 ns)
{
	return (unsigned __int128)ns * I8254_HZ / NS_PER_SEC;
}

/* Rounded up: at that time the tick has happened. */
static u64 ns_of_ticks(u64 ticks)
{
	return ((unsigned __int128)ticks * NS_PER_SEC + I8254_HZ - 1) /
	       I8254_HZ;
}

static u64 elapsed_ticks(const struct i8254 *t, const struct channel *c)
{
	u64 now = hw_now(t->clock);

	return now > c->start_ns ? ticks_of_ns(now - c->start_ns) : 0;
}

static u16 to_bcd(u32 v)
{
	return v % 10 | v / 10 % 10 << 4 | v / 100 % 10 << 8 |
	       v / 1000 % 10 << 12;
}

static u32 from_bcd(u16 v)
{
	return (v & 15) + (v >> 4 & 15) * 10 + (v >> 8 & 15) * 100 +
	       (v >> 12 & 15) * 1000;
}

static u16 channel_count(const struct i8254 *t, const struct channel *c)
{
	u64 d = elapsed_ticks(t, c);
	u32 span = c->is_bcd ? 10000 : 65536;
	u32 v;

	if (!c->is_loaded)
		return 0;
	switch (c->mode) {
	case 2:
		v = c->count - d % c->count;
		break;
	case 3:
		v = c->count - 2 * d % c->count;
		break;
	default: /* goes on below zero */
		v = (c->count + span - d % span) % span;
		break;
	}
	return c->is_bcd ? to_bcd(v % span) : (u16)v;
}

static bool channel_out(const struct i8254 *t, const struct channel *c)
{
	u64 d = elapsed_ticks(t, c);

	if (!c->is_loaded)
		return c->mode != 0;
	switch (c->mode) {
	case 0:
	case 1:
		return d >= c->count;
	case 2:
		return !c->gate || d % c->count != c->count - 1;
	case 3:
		return !c->gate || d % c->count < (c->count + 1) / 2;
	default:
		return d != c->count;
	}
}

/* ---- channel 0's interrupt ---- */

static void out0_set(struct i8254 *t, bool level)
{
	t->out0_level = level;
	irq_set(&t->out0, level);
}

/* Arms the timer for the next rising edge after `after`. */
static void timer_update(struct i8254 *t, u64 after)
{
	const struct channel *c = &t->ch[0];
	u64 due, periods;

	hw_timer_disarm(&t->timer);
	if (!c->is_loaded || c->mode == 1 || c->mode == 5)
		return;
	due = c->start_ns + ns_of_ticks(c->count);
	if (due <= after) {
		if (c->mode != 2 && c->mode != 3)
			return;
		periods = ticks_of_ns(after - c->start_ns) / c->count;
		/* Rounding may put that edge at `after` itself. */
		do {
			periods++;
			due = c->start_ns + ns_of_ticks(periods * c->count);
		} while (due <= after);
	}
	hw_timer_arm(&t->timer, MAX(due, after + I8254_MIN_INTERVAL_NS));
}

static void timer_fired(void *opaque)
{
	struct i8254 *t = opaque;

	out0_set(t, false);
	out0_set(t, true);
	timer_update(t, hw_now(t->clock));
}

/* ---- ports 0x40-0x43 ---- */

static void channel_load(struct i8254 *t, int n, u16 v)
{
	struct channel *c = &t->ch[n];
	u32 count = c->is_bcd ? from_bcd(v) : v;

	c->count = count ? count : c->is_bcd ? 10000 : 65536;
	/* A square wave or rate of one tick does not exist. */
	if ((c->mode == 2 || c->mode == 3) && c->count == 1)
		c->count = 2;
	c->start_ns = hw_now(t->clock);
	c->is_loaded = true;
	if (n == 0) {
		if (c->mode == 0)
			out0_set(t, false);
		timer_update(t, c->start_ns);
	}
}

static void counter_write(struct i8254 *t, int n, u8 v)
{
	struct channel *c = &t->ch[n];

	switch (c->access) {
	case ACCESS_LOW:
		channel_load(t, n, v);
		break;
	case ACCESS_HIGH:
		channel_load(t, n, v << 8);
		break;
	default:
		if (c->writes_high)
			channel_load(t, n, v << 8 | c->write_low);
		else
			c->write_low = v;
		c->writes_high = !c->writes_high;
		break;
	}
}

static void count_latch(struct i8254 *t, struct channel *c)
{
	if (c->latched)
		return;
	c->latch = channel_count(t, c);
	c->latched = c->access == ACCESS_BOTH ? 2 : 1;
}

static void status_latch(struct i8254 *t, struct channel *c)
{
	if (c->status_latched)
		return;
	c->status = channel_out(t, c) << 7 | !c->is_loaded << 6 |
		    c->access << 4 | c->mode << 1 | c->is_bcd;
	c->status_latched = true;
}

static void control_write(struct i8254 *t, u8 v)
{
	int n = v >> 6;
	struct channel *c;

	if (n == 3) { /* read-back */
		for (int i = 0; i < CHANNELS; i++) {
			if (!(v & 2 << i))
				continue;
			if (!(v & 0x20))
				count_latch(t, &t->ch[i]);
			if (!(v & 0x10))
				status_latch(t, &t->ch[i]);
		}
		return;
	}
	c = &t->ch[n];
	if ((v >> 4 & 3) == ACCESS_LATCH) {
		count_latch(t, c);
		return;
	}
	c->access = v >> 4 & 3;
	c->mode = v >> 1 & 7;
	if (c->mode > 5)
		c->mode -= 4;
	c->is_bcd = v & 1;
	c->writes_high = c->reads_high = c->status_latched = false;
	c->latched = 0;
	c->is_loaded = false;
	if (n == 0) {
		hw_timer_disarm(&t->timer);
		out0_set(t, false);
	}
}

static u8 counter_read(struct i8254 *t, struct channel *c)
{
	u16 v;

	if (c->status_latched) {
		c->status_latched = false;
		return c->status;
	}
	if (c->latched) {
		v = c->latch;
		if (c->access == ACCESS_HIGH || c->latched == 1)
			v = c->access == ACCESS_LOW ? v : v >> 8;
		c->latched--;
		return v;
	}
	v = channel_count(t, c);
	if (c->access == ACCESS_BOTH) {
		c->reads_high = !c->reads_high;
		return c->reads_high ? v : v >> 8;
	}
	return c->access == ACCESS_HIGH ? v >> 8 : v;
}

static u64 ports_read(void *opaque, u64 off, unsigned size)
{
	struct i8254 *t = opaque;

	return off < CHANNELS ? counter_read(t, &t->ch[off]) : 0;
}

static void ports_write(void *opaque, u64 off, unsigned size, u64 v)
{
	if (off < CHANNELS)
		counter_write(opaque, off, v);
	else
		control_write(opaque, v);
}

static const struct io_ops ports_ops = {
	.read = ports_read,
	.write = ports_write,
	.max_size = 1,
};

/* ---- port 0x61 ---- */

static u64 port61_read(void *opaque, u64 off, unsigned size)
{
	struct i8254 *t = opaque;

	return t->control61 | (hw_now(t->clock) / PORT61_REFRESH_NS & 1) << 4 |
	       channel_out(t, &t->ch[2]) << 5;
}

static void port61_write(void *opaque, u64 off, unsigned size, u64 v)
{
	struct i8254 *t = opaque;
	struct channel *c = &t->ch[2];
	bool gate = v & PORT61_GATE2;

	/* A rising gate starts modes 1, 2, 3 and 5 anew. */
	if (gate && !c->gate && c->mode != 0 && c->mode != 4)
		c->start_ns = hw_now(t->clock);
	c->gate = gate;
	t->control61 = v & PORT61_WRITABLE;
}

static const struct io_ops port61_ops = {
	.read = port61_read,
	.write = port61_write,
	.max_size = 1,
};

/* ---- device ---- */

static void i8254_reset(struct device *dev)
{
	struct i8254 *t = container_of(dev, struct i8254, dev);

	hw_timer_disarm(&t->timer);
	for (int i = 0; i < CHANNELS; i++)
		t->ch[i] = (struct channel){
			.count = 65536,
			.mode = 3,
			.access = ACCESS_BOTH,
			.gate = i != 2,
		};
	t->control61 = 0;
	out0_set(t, false);
}

static void channel_state(struct i8254 *t, struct channel *c, struct state *s,
			  const char *name)
{
	u64 now = hw_now(t->clock), elapsed = now - c->start_ns;

	st_begin(s, name);
	st_u32(s, "count", &c->count);
	st_u64(s, "elapsed_ns", &elapsed);
	st_u8(s, "mode", &c->mode);
	st_u8(s, "access", &c->access);
	st_bool(s, "is_bcd", &c->is_bcd);
	st_bool(s, "gate", &c->gate);
	st_bool(s, "is_loaded", &c->is_loaded);
	st_u8(s, "write_low", &c->write_low);
	st_bool(s, "writes_high", &c->writes_high);
	st_bool(s, "reads_high", &c->reads_high);
	st_u8(s, "latched", &c->latched);
	st_u16(s, "latch", &c->latch);
	st_bool(s, "status_latched", &c->status_latched);
	st_u8(s, "status", &c->status);
	st_require(s,
		   c->count >= 1 && c->count <= 65536 && c->mode <= 5 &&
			   c->access >= ACCESS_LOW &&
			   c->access <= ACCESS_BOTH && c->latched <= 2,
		   "timer channel out of range");
	st_end(s);
	if (state_is_loading(s))
		c->start_ns = now - elapsed;
}

static void i8254_state(struct device *dev, struct state *s)
{
	static const char *const names[] = {"ch0", "ch1", "ch2"};
	struct i8254 *t = container_of(dev, struct i8254, dev);

	for (int i = 0; i < CHANNELS; i++)
		channel_state(t, &t->ch[i], s, names[i]);
	st_bool(s, "out0_level", &t->out0_level);
	st_u8(s, "control61", &t->control61);
	st_require(s, !(t->control61 & ~PORT61_WRITABLE),
		   "port 0x61 out of range");
}

static void i8254_post_load(struct device *dev)
{
	struct i8254 *t = container_of(dev, struct i8254, dev);

	irq_set(&t->out0, t->out0_level);
	timer_update(t, hw_now(t->clock));
}

static void i8254_free(struct device *dev)
{
	struct i8254 *t = container_of(dev, struct i8254, dev);

	hw_timer_disarm(&t->timer);
	mem_io_del(t->mem, &t->ports);
	mem_io_del(t->mem, &t->port61);
	free(t);
}

struct i8254 *i8254_new(const struct hw_env *env, struct irq out0)
{
	static const struct device_ops ops = {
		.type = "i8254",
		.reset = i8254_reset,
		.state = i8254_state,
		.post_load = i8254_post_load,
		.free = i8254_free,
	};
	struct i8254 *t = hw_chip_new(env, sizeof(*t), &ops, "pit0");

	t->mem = env->mem;
	t->clock = env->clock;
	t->out0 = out0;
	hw_timer_init(&t->timer, env->clock, timer_fired, t);
	hw_map(env, &t->ports, "pit", IO_PIO, 0x40, 4, &ports_ops, t);
	hw_map(env, &t->port61, "port61", IO_PIO, 0x61, 1, &port61_ops, t);
	i8254_reset(&t->dev);
	return t;
}
