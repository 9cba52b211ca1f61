/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY: Intel 8259A datasheet
 *
 * Priorities rotate: `lowest` is the input of lowest priority, so rank(n) =
 * (n - lowest - 1) & 7. An input is pending when it is in IRR, not in IMR, and
 * outranks every interrupt in service. The slave's INT is the master's input
 * 2. `lines` are the levels of the input pins, from which edges are found.
 *
 * Not modelled: 8080 mode, buffered mode.
 */
#include "hw/i8259.h"

#include <stdlib.h>

#define CASCADE 2

enum init_step { INIT_DONE, INIT_ICW2, INIT_ICW3, INIT_ICW4 };

struct pic {
	u8 irr, imr, isr, lines, elcr;
	u8 lowest; /* input of lowest priority */
	u8 base;   /* ICW2 */
	u8 step;   /* enum init_step */
	bool wants_icw4, is_single;
	bool reads_isr, polls, special_mask;
	bool auto_eoi, rotates_on_aeoi, is_sfnm;
};

struct i8259 {
	struct device dev;
	struct mem *mem;
	struct pic pic[2]; /* master, slave */
	struct irq intr;
	struct io_region ports[2], elcr;
};

static int rank_of(const struct pic *p, int n)
{
	return (n - p->lowest - 1) & 7;
}

/* The best rank among bits; 8 if there are none. */
static int best_rank(const struct pic *p, u8 bits)
{
	int best = 8;

	for (int n = 0; n < 8; n++)
		if ((bits & BIT32(n)) && rank_of(p, n) < best)
			best = rank_of(p, n);
	return best;
}

static int input_of_rank(const struct pic *p, int rank)
{
	return (rank + p->lowest + 1) & 7;
}

/* The input that requests service now, or -1. */
static int pic_pending(const struct i8259 *pair, const struct pic *p)
{
	u8 in_service = p->isr;
	int want = best_rank(p, p->irr & ~p->imr);

	if (p->special_mask)
		in_service &= ~p->imr;
	if (p->is_sfnm && p == &pair->pic[0])
		in_service &= ~BIT32(CASCADE);
	return want < best_rank(p, in_service) ? input_of_rank(p, want) : -1;
}

static void pic_line(struct pic *p, int n, bool level)
{
	u8 bit = BIT32(n);

	if (p->elcr & bit)
		p->irr = level ? p->irr | bit : p->irr & ~bit;
	else if (level && !(p->lines & bit))
		p->irr |= bit;
	p->lines = level ? p->lines | bit : p->lines & ~bit;
}

static void pair_update(struct i8259 *pair)
{
	pic_line(&pair->pic[0], CASCADE, pic_pending(pair, &pair->pic[1]) >= 0);
	irq_set(&pair->intr, pic_pending(pair, &pair->pic[0]) >= 0);
}

static void pair_set(void *opaque, int n, bool level)
{
	struct i8259 *pair = opaque;

	pic_line(&pair->pic[n >> 3], n & 7, level);
	pair_update(pair);
}

struct irq i8259_input(struct i8259 *pair, int n)
{
	return (struct irq){.set = pair_set, .opaque = pair, .n = n & 15};
}

/* Moves input n from requested to in service. */
static void pic_accept(struct i8259 *pair, struct pic *p, int n)
{
	u8 bit = BIT32(n);

	if (!(p->elcr & bit))
		p->irr &= ~bit;
	if (!p->auto_eoi)
		p->isr |= bit;
	else if (p->rotates_on_aeoi)
		p->lowest = n;
	if (p == &pair->pic[1])
		pic_line(&pair->pic[0], CASCADE, false);
}

u8 i8259_ack(struct i8259 *pair)
{
	struct pic *master = &pair->pic[0], *slave = &pair->pic[1];
	int n = pic_pending(pair, master);
	u8 vector = master->base + 7;

	if (n >= 0) {
		vector = master->base + n;
		pic_accept(pair, master, n);
	}
	if (n == CASCADE) {
		n = pic_pending(pair, slave);
		vector = slave->base + (n < 0 ? 7 : n);
		if (n >= 0)
			pic_accept(pair, slave, n);
	}
	pair_update(pair);
	return vector;
}

/* ---- registers ---- */

static void write_icw1(struct pic *p, u8 v)
{
	/* Level inputs that are still high go on requesting. */
	p->irr &= p->elcr & p->lines;
	p->imr = 0;
	p->isr = 0;
	p->lowest = 7;
	p->reads_isr = p->polls = p->special_mask = false;
	p->auto_eoi = p->rotates_on_aeoi = p->is_sfnm = false;
	p->wants_icw4 = v & 1;
	p->is_single = v & 2;
	p->step = INIT_ICW2;
}

static void write_ocw2(struct pic *p, u8 v)
{
	bool rotate = v & 0x80, specific = v & 0x40, eoi = v & 0x20;
	int n = v & 7;

	if (!eoi) {
		if (!specific)
			p->rotates_on_aeoi = rotate;
		else if (rotate)
			p->lowest = n;
		return;
	}
	if (!specific) {
		u8 in_service = p->isr;
		int rank;

		if (p->special_mask)
			in_service &= ~p->imr;
		rank = best_rank(p, in_service);
		if (rank == 8)
			return;
		n = input_of_rank(p, rank);
	}
	p->isr &= ~BIT32(n);
	if (rotate)
		p->lowest = n;
}

static void write_command(struct pic *p, u8 v)
{
	if (v & 0x10) {
		write_icw1(p, v);
	} else if (v & 0x08) {
		p->polls = v & 4;
		if (v & 2)
			p->reads_isr = v & 1;
		if (v & 0x40)
			p->special_mask = v & 0x20;
	} else {
		write_ocw2(p, v);
	}
}

static void write_odd(struct pic *p, u8 v)
{
	switch (p->step) {
	case INIT_DONE:
		p->imr = v;
		break;
	case INIT_ICW2:
		p->base = v & 0xf8;
		if (!p->is_single)
			p->step = INIT_ICW3;
		else
			p->step = p->wants_icw4 ? INIT_ICW4 : INIT_DONE;
		break;
	case INIT_ICW3:
		p->step = p->wants_icw4 ? INIT_ICW4 : INIT_DONE;
		break;
	case INIT_ICW4:
		p->is_sfnm = v & 0x10;
		p->auto_eoi = v & 2;
		p->step = INIT_DONE;
		break;
	}
}

static struct pic *pic_of(struct i8259 *pair, const struct io_region *r)
{
	return &pair->pic[r - pair->ports];
}

static u8 pic_poll(struct i8259 *pair, struct pic *p)
{
	int n = pic_pending(pair, p);

	p->polls = false;
	if (n < 0)
		return 0;
	pic_accept(pair, p, n);
	pair_update(pair);
	return 0x80 | n;
}

static u64 pic_read(struct i8259 *pair, struct pic *p, u64 off)
{
	if (p->polls)
		return pic_poll(pair, p);
	if (off)
		return p->imr;
	return p->reads_isr ? p->isr : p->irr;
}

static void pic_write(struct i8259 *pair, struct pic *p, u64 off, u8 v)
{
	if (off)
		write_odd(p, v);
	else
		write_command(p, v);
	pair_update(pair);
}

static u64 master_read(void *opaque, u64 off, unsigned size)
{
	struct i8259 *pair = opaque;

	return pic_read(pair, pic_of(pair, &pair->ports[0]), off);
}

static void master_write(void *opaque, u64 off, unsigned size, u64 v)
{
	struct i8259 *pair = opaque;

	pic_write(pair, pic_of(pair, &pair->ports[0]), off, v);
}

static u64 slave_read(void *opaque, u64 off, unsigned size)
{
	struct i8259 *pair = opaque;

	return pic_read(pair, pic_of(pair, &pair->ports[1]), off);
}

static void slave_write(void *opaque, u64 off, unsigned size, u64 v)
{
	struct i8259 *pair = opaque;

	pic_write(pair, pic_of(pair, &pair->ports[1]), off, v);
}

static u64 elcr_read(void *opaque, u64 off, unsigned size)
{
	struct i8259 *pair = opaque;

	return pair->pic[off].elcr;
}

/* The timer, keyboard, cascade, clock and FPU inputs are always edge. */
static const u8 elcr_writable[2] = {0xf8, 0xde};

static void elcr_write(void *opaque, u64 off, unsigned size, u64 v)
{
	struct i8259 *pair = opaque;

	pair->pic[off].elcr = v & elcr_writable[off];
	pair_update(pair);
}

static const struct io_ops ports_ops[2] = {
	{.read = master_read, .write = master_write, .max_size = 1},
	{.read = slave_read, .write = slave_write, .max_size = 1},
};
static const struct io_ops elcr_ops = {
	.read = elcr_read,
	.write = elcr_write,
	.max_size = 1,
};

/* ---- device ---- */

static void i8259_reset(struct device *dev)
{
	struct i8259 *pair = container_of(dev, struct i8259, dev);

	for (int i = 0; i < 2; i++) {
		u8 lines = pair->pic[i].lines;

		pair->pic[i] = (struct pic){.lowest = 7, .lines = lines};
	}
	pair_update(pair);
}

static void pic_state(struct pic *p, struct state *s, const char *name)
{
	st_begin(s, name);
	st_u8(s, "irr", &p->irr);
	st_u8(s, "imr", &p->imr);
	st_u8(s, "isr", &p->isr);
	st_u8(s, "lines", &p->lines);
	st_u8(s, "elcr", &p->elcr);
	st_u8(s, "lowest", &p->lowest);
	st_u8(s, "base", &p->base);
	st_u8(s, "step", &p->step);
	st_bool(s, "wants_icw4", &p->wants_icw4);
	st_bool(s, "is_single", &p->is_single);
	st_bool(s, "reads_isr", &p->reads_isr);
	st_bool(s, "polls", &p->polls);
	st_bool(s, "special_mask", &p->special_mask);
	st_bool(s, "auto_eoi", &p->auto_eoi);
	st_bool(s, "rotates_on_aeoi", &p->rotates_on_aeoi);
	st_bool(s, "is_sfnm", &p->is_sfnm);
	st_require(s, p->lowest < 8 && p->step <= INIT_ICW4 && !(p->base & 7),
		   "pic register out of range");
	st_end(s);
}

static void i8259_state(struct device *dev, struct state *s)
{
	struct i8259 *pair = container_of(dev, struct i8259, dev);

	pic_state(&pair->pic[0], s, "master");
	pic_state(&pair->pic[1], s, "slave");
}

static void i8259_post_load(struct device *dev)
{
	struct i8259 *pair = container_of(dev, struct i8259, dev);

	irq_set(&pair->intr, pic_pending(pair, &pair->pic[0]) >= 0);
}

static void i8259_free(struct device *dev)
{
	struct i8259 *pair = container_of(dev, struct i8259, dev);

	for (int i = 0; i < 2; i++)
		mem_io_del(pair->mem, &pair->ports[i]);
	mem_io_del(pair->mem, &pair->elcr);
	free(pair);
}

struct i8259 *i8259_new(const struct hw_env *env, struct irq intr)
{
	static const struct device_ops ops = {
		.type = "i8259",
		.reset = i8259_reset,
		.state = i8259_state,
		.post_load = i8259_post_load,
		.free = i8259_free,
	};
	struct i8259 *pair = hw_chip_new(env, sizeof(*pair), &ops, "pic0");

	pair->mem = env->mem;
	pair->intr = intr;
	hw_map(env, &pair->ports[0], "pic-master", IO_PIO, 0x20, 2,
	       &ports_ops[0], pair);
	hw_map(env, &pair->ports[1], "pic-slave", IO_PIO, 0xa0, 2,
	       &ports_ops[1], pair);
	hw_map(env, &pair->elcr, "pic-elcr", IO_PIO, 0x4d0, 2, &elcr_ops, pair);
	i8259_reset(&pair->dev);
	return pair;
}
