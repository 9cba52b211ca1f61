/* SPDX-License-Identifier: Apache-2.0 */
/* A machine for chip tests: memory, lines that are recorded, a clock moved by
 * hand. */
#pragma once

#include "base/assert.h"
#include "base/clock.h"
#include "hw/hw.h"

struct scratch {
	struct hw_env env;
	struct device_list devices;
	struct hw_clock clock;
	bool line[32];
	u32 rises[32];
	u64 msi_addr;
	u32 msi_data, msis;
	u32 requests;
};

static inline void scratch_set(void *opaque, int n, bool level)
{
	struct scratch *x = opaque;

	x->rises[n] += level && !x->line[n];
	x->line[n] = level;
}

static inline struct irq scratch_line(struct scratch *x, int n)
{
	return (struct irq){.set = scratch_set, .opaque = x, .n = n};
}

static inline int scratch_msi(void *opaque, u64 addr, u32 msi)
{
	struct scratch *x = opaque;

	x->msi_addr = addr;
	x->msi_data = msi;
	x->msis++;
	return 0;
}

static inline void scratch_request(void *opaque)
{
	((struct scratch *)opaque)->requests++;
}

static inline void scratch_init(struct scratch *x)
{
	memset(x, 0, sizeof(*x));
	device_list_init(&x->devices);
	hw_clock_init(&x->clock, NULL);
	/* 2024-02-29 12:34:56 UTC */
	x->clock.stopped_wall_ns = 1709210096ull * NS_PER_SEC;
	x->env = (struct hw_env){
		.devices = &x->devices,
		.mem = mem_new(),
		.router = irq_router_new(),
		.clock = &x->clock,
	};
	irq_router_set_msi(x->env.router, scratch_msi, x);
}

static inline void scratch_fini(struct scratch *x)
{
	device_list_free(&x->devices);
	irq_router_free(x->env.router);
	mem_free(x->env.mem);
}

static inline u32 in8(struct scratch *x, u16 port)
{
	return mem_pio_read(x->env.mem, port, 1);
}

static inline void out8(struct scratch *x, u16 port, u8 v)
{
	mem_pio_write(x->env.mem, port, 1, v);
}
