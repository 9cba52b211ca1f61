/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY: Intel 82093AA datasheet; ICH9 §13.5 for the EOI register
 *
 * An edge pin sends one message per rising edge that finds it unmasked. A
 * level pin sends when its line is high and Remote IRR is clear, which sets
 * Remote IRR; the end of interrupt clears it and, if the line is still high,
 * the message goes out again. A write that makes a pin edge-triggered clears
 * its Remote IRR.
 */
#include "hw/ioapic.h"

#include <stdlib.h>

#define IOAPIC_BYTES   0x1000
#define IOREGSEL       0x00
#define IOWIN	       0x10
#define IOEOI	       0x40
#define IOAPICID       0x00
#define IOAPICVER      0x01
#define IOAPICARB      0x02
#define IOREDTBL       0x10
#define IOAPIC_VERSION (((IOAPIC_PINS - 1u) << 16) | 0x20)

#define REDIR_VECTOR	 0xffull
#define REDIR_LOGICAL	 BIT64(11)
#define REDIR_REMOTE_IRR BIT64(14)
#define REDIR_LEVEL	 BIT64(15)
#define REDIR_MASKED	 BIT64(16)
#define REDIR_WRITABLE	 (0x1afffull | 0xffull << 56)
#define DELIVERY_LOWEST	 1u

struct ioapic {
	struct device dev;
	struct mem *mem;
	struct irq_router *router;
	struct io_region region;
	u64 redir[IOAPIC_PINS];
	u32 lines;
	u8 id;
	u8 boot_id;
	u8 select;
};

/* The entry as a message: SDM 3A §11.11. */
static void entry_send(struct ioapic *a, int pin)
{
	u64 e = a->redir[pin];
	u32 delivery = e >> 8 & 7;
	u64 addr = 0xfee00000 | (e >> 56) << 12;
	u32 msi = (e & REDIR_VECTOR) | delivery << 8 | BIT32(14);

	if (e & REDIR_LOGICAL)
		addr |= BIT32(2);
	if (delivery == DELIVERY_LOWEST)
		addr |= BIT32(3);
	if (e & REDIR_LEVEL)
		msi |= BIT32(15);
	/* The address is in the window by construction. */
	(void)irq_msi(a->router, addr, msi);
}

static void level_service(struct ioapic *a, int pin)
{
	u64 e = a->redir[pin];

	if (!(e & REDIR_LEVEL) || (e & (REDIR_MASKED | REDIR_REMOTE_IRR)) ||
	    !(a->lines & BIT32(pin)))
		return;
	a->redir[pin] |= REDIR_REMOTE_IRR;
	entry_send(a, pin);
}

static void ioapic_set(void *opaque, int pin, bool level)
{
	struct ioapic *a = opaque;
	u32 bit = BIT32(pin);
	bool rises = level && !(a->lines & bit);

	a->lines = level ? a->lines | bit : a->lines & ~bit;
	if (a->redir[pin] & REDIR_LEVEL)
		level_service(a, pin);
	else if (rises && !(a->redir[pin] & REDIR_MASKED))
		entry_send(a, pin);
}

struct irq ioapic_input(struct ioapic *a, int pin)
{
	return (struct irq){
		.set = ioapic_set,
		.opaque = a,
		.n = pin % IOAPIC_PINS,
	};
}

void ioapic_eoi(struct ioapic *a, u8 vector)
{
	for (int pin = 0; pin < IOAPIC_PINS; pin++) {
		u64 e = a->redir[pin];

		if (!(e & REDIR_LEVEL) || !(e & REDIR_REMOTE_IRR) ||
		    (e & REDIR_VECTOR) != vector)
			continue;
		a->redir[pin] &= ~REDIR_REMOTE_IRR;
		level_service(a, pin);
	}
}

bool ioapic_wants_eoi(const struct ioapic *a, u8 vector)
{
	for (int pin = 0; pin < IOAPIC_PINS; pin++)
		if ((a->redir[pin] & REDIR_LEVEL) &&
		    (a->redir[pin] & REDIR_VECTOR) == vector)
			return true;
	return false;
}

static u32 window_read(const struct ioapic *a)
{
	u32 n = a->select - IOREDTBL;

	switch (a->select) {
	case IOAPICID:
	case IOAPICARB:
		return (u32)a->id << 24;
	case IOAPICVER:
		return IOAPIC_VERSION;
	}
	if (n >= 2 * IOAPIC_PINS)
		return 0;
	return a->redir[n / 2] >> (n & 1 ? 32 : 0);
}

static void window_write(struct ioapic *a, u32 v)
{
	u32 n = a->select - IOREDTBL;
	int shift = n & 1 ? 32 : 0;
	u64 mask = REDIR_WRITABLE & (0xffffffffull << shift);
	u64 *e;

	if (a->select == IOAPICID)
		a->id = v >> 24 & 0xf;
	if (n >= 2 * IOAPIC_PINS)
		return;
	e = &a->redir[n / 2];
	*e = (*e & ~mask) | ((u64)v << shift & mask);
	if (!(*e & REDIR_LEVEL))
		*e &= ~REDIR_REMOTE_IRR;
	level_service(a, n / 2);
}

static u64 ioapic_read(void *opaque, u64 off, unsigned size)
{
	struct ioapic *a = opaque;

	if (off == IOREGSEL)
		return a->select;
	return off == IOWIN ? window_read(a) : 0;
}

static void ioapic_write(void *opaque, u64 off, unsigned size, u64 v)
{
	struct ioapic *a = opaque;

	if (off == IOREGSEL)
		a->select = v;
	else if (off == IOWIN)
		window_write(a, v);
	else if (off == IOEOI)
		ioapic_eoi(a, v);
}

static const struct io_ops ioapic_io = {
	.read = ioapic_read,
	.write = ioapic_write,
	.min_size = 4,
	.max_size = 4,
};

static void ioapic_reset(struct device *dev)
{
	struct ioapic *a = container_of(dev, struct ioapic, dev);

	for (int pin = 0; pin < IOAPIC_PINS; pin++)
		a->redir[pin] = REDIR_MASKED;
	a->select = 0;
	a->id = a->boot_id;
}

static void ioapic_state(struct device *dev, struct state *s)
{
	struct ioapic *a = container_of(dev, struct ioapic, dev);

	st_u64_array(s, "redir", a->redir, IOAPIC_PINS);
	st_u32(s, "lines", &a->lines);
	st_u8(s, "id", &a->id);
	st_u8(s, "select", &a->select);
	for (int pin = 0; pin < IOAPIC_PINS; pin++)
		st_require(
			s,
			!(a->redir[pin] & ~(REDIR_WRITABLE | REDIR_REMOTE_IRR)),
			"reserved bits in a redirection entry");
	st_require(s, !(a->lines >> IOAPIC_PINS) && a->id < 16,
		   "ioapic register out of range");
}

static void ioapic_free(struct device *dev)
{
	struct ioapic *a = container_of(dev, struct ioapic, dev);

	mem_io_del(a->mem, &a->region);
	free(a);
}

struct ioapic *ioapic_new(const struct hw_env *env, u8 id)
{
	static const struct device_ops ops = {
		.type = "ioapic",
		.reset = ioapic_reset,
		.state = ioapic_state,
		.free = ioapic_free,
	};
	struct ioapic *a = hw_chip_new(env, sizeof(*a), &ops, "ioapic0");

	a->mem = env->mem;
	a->router = env->router;
	a->boot_id = id & 0xf;
	hw_map(env, &a->region, "ioapic", IO_MMIO, IOAPIC_BASE, IOAPIC_BYTES,
	       &ioapic_io, a);
	ioapic_reset(&a->dev);
	return a;
}
