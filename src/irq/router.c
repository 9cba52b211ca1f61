/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY
 *
 * A GSI is a wired OR. Every source of a GSI owns one bit of `levels`; the
 * sinks hear of the line only when the OR changes, so a sink sees clean edges
 * whatever the sources do. A line given out by irq_router_line() encodes its
 * GSI and its bit in struct irq's n.
 */
#include "irq/irq.h"

#include <errno.h>
#include <stdlib.h>

#include "base/assert.h"

#define GSI_SINKS	2
#define GSI_SOURCES	64
#define MSI_WINDOW_BASE 0xfee00000ull
#define MSI_WINDOW_SIZE 0x100000ull

struct gsi {
	u64 levels; /* one bit a source */
	u8 sources;
	u8 sinks;
	struct irq sink[GSI_SINKS];
};

struct irq_router {
	struct gsi gsi[GSI_MAX];
	irq_msi_fn msi;
	void *msi_opaque;
};

struct irq_router *irq_router_new(void)
{
	struct irq_router *r = calloc(1, sizeof(*r));

	ASSERT(r);
	return r;
}

void irq_router_free(struct irq_router *r)
{
	free(r);
}

void irq_router_connect(struct irq_router *r, int gsi, struct irq sink)
{
	struct gsi *g;

	ASSERT(gsi >= 0 && gsi < GSI_MAX);
	g = &r->gsi[gsi];
	ASSERT(g->sinks < GSI_SINKS);
	g->sink[g->sinks++] = sink;
	irq_set(&sink, g->levels != 0);
}

static void router_set(void *opaque, int n, bool level)
{
	struct irq_router *r = opaque;
	struct gsi *g = &r->gsi[n & 0xff];
	u64 bit = BIT64(n >> 8);
	bool was = g->levels != 0;

	if (level)
		g->levels |= bit;
	else
		g->levels &= ~bit;
	if (was == (g->levels != 0))
		return;
	for (int i = 0; i < g->sinks; i++)
		irq_set(&g->sink[i], !was);
}

struct irq irq_router_line(struct irq_router *r, int gsi)
{
	struct gsi *g;

	ASSERT(gsi >= 0 && gsi < GSI_MAX);
	g = &r->gsi[gsi];
	ASSERT(g->sources < GSI_SOURCES);
	return (struct irq){
		.set = router_set,
		.opaque = r,
		.n = gsi | g->sources++ << 8,
	};
}

void irq_router_set_msi(struct irq_router *r, irq_msi_fn fn, void *opaque)
{
	r->msi = fn;
	r->msi_opaque = opaque;
}

int irq_msi(struct irq_router *r, u64 addr, u32 data)
{
	if (addr < MSI_WINDOW_BASE || addr >= MSI_WINDOW_BASE + MSI_WINDOW_SIZE)
		return -EINVAL;
	return r->msi ? r->msi(r->msi_opaque, addr, data) : 0;
}
