/* SPDX-License-Identifier: Apache-2.0 */
/* Interrupt wiring: lines, the GSI router and message-signalled interrupts.
 *
 * A device holds a struct irq by value and calls irq_set(); it never knows
 * what is behind it. The router fans each GSI out to the PIC pair (0-15) and
 * the I/O APIC (0-23), and hands MSIs to the engine. Device lock held, except
 * irq_msi(), which any thread may call.
 */
#pragma once

#include "base/types.h"

struct irq {
	void (*set)(void *opaque, int n, bool level);
	void *opaque;
	int n;
};

static inline void irq_set(const struct irq *line, bool level)
{
	if (line->set)
		line->set(line->opaque, line->n, level);
}

#define GSI_MAX 24

struct irq_router;

struct irq_router *irq_router_new(void);
void irq_router_free(struct irq_router *r);
/* Where a GSI goes: up to two sinks (PIC input, I/O APIC pin). */
void irq_router_connect(struct irq_router *r, int gsi, struct irq sink);
/* The line that a device raises. Level-triggered lines may be shared: the
 * router ORs the sources, so each device takes its own line. */
struct irq irq_router_line(struct irq_router *r, int gsi);

/* addr and data as in the MSI capability: SDM 3A §11.11, PCIe 5.0 §7.7.1. */
typedef int (*irq_msi_fn)(void *opaque, u64 addr, u32 data);
void irq_router_set_msi(struct irq_router *r, irq_msi_fn fn, void *opaque);
/* 0; -EINVAL when addr is not in the FEEx_xxxx window. */
int irq_msi(struct irq_router *r, u64 addr, u32 data);
