/* SPDX-License-Identifier: Apache-2.0 */
/* A PCI function for tests: BAR0 4 KiB MMIO, BAR1 MSI-X with 4 vectors, BAR2
 * 64-bit prefetchable 16 KiB, BAR4 32 ports. Reads of a BAR give its number
 * plus 0xa0; accesses are counted. */
#pragma once

#include <stdlib.h>

#include "base/assert.h"
#include "dev/pci.h"

struct toy {
	struct pci_device pci;
	u32 reads, writes;
};

struct toy_machine {
	struct mem *mem;
	struct irq_router *router;
	struct device_list devices;
	struct pci_bus *bus;
	bool gsi[GSI_MAX];
	u64 msi_addr;
	u32 msi_data, msis;
};

#define TOY_ECAM   0xb0000000ull
#define TOY_MMIO32 0xc0000000ull
#define TOY_MMIO64 0x800000000ull
#define TOY_PIO	   0xc000u

static inline u64 toy_bar_read(void *opaque, u64 off, unsigned size)
{
	struct toy *t = opaque;

	t->reads++;
	return 0xa0 + off;
}

static inline void toy_bar_write(void *opaque, u64 off, unsigned size,
				 u64 value)
{
	struct toy *t = opaque;

	t->writes++;
}

static inline void toy_reset(struct device *dev)
{
	pci_device_reset(container_of(dev, struct pci_device, dev));
}

static inline void toy_state(struct device *dev, struct state *s)
{
	pci_device_state(container_of(dev, struct pci_device, dev), s);
}

static inline void toy_post_load(struct device *dev)
{
	pci_device_post_load(container_of(dev, struct pci_device, dev));
}

static inline void toy_free(struct device *dev)
{
	struct toy *t = container_of(dev, struct toy, pci.dev);

	pci_unplug(&t->pci);
	free(t);
}

static inline struct toy *toy_new(const char *name)
{
	static const struct device_ops ops = {
		.type = "toy",
		.reset = toy_reset,
		.state = toy_state,
		.post_load = toy_post_load,
		.free = toy_free,
	};
	static const struct io_ops io = {
		.read = toy_bar_read,
		.write = toy_bar_write,
	};
	static const struct pci_ident ident = {
		.vendor = 0x1234,
		.device = 0x5678,
		.subsystem_vendor = 0x9abc,
		.subsystem = 0xdef0,
		.class_code = 0xff0102,
		.revision = 3,
	};
	struct toy *t = calloc(1, sizeof(*t));

	ASSERT(t);
	pci_device_init(&t->pci, &ops, name, &ident);
	pci_bar_add(&t->pci, 0, 4096, false, false, &io, t);
	pci_msix_add(&t->pci, 1, 4);
	pci_bar_add(&t->pci, 2, 16 * KIB, true, true, &io, t);
	pci_bar_add_pio(&t->pci, 4, 32, &io, t);
	return t;
}

static inline void toy_gsi_set(void *opaque, int n, bool level)
{
	struct toy_machine *tm = opaque;

	tm->gsi[n] = level;
}

static inline int toy_msi(void *opaque, u64 addr, u32 msi)
{
	struct toy_machine *tm = opaque;

	tm->msi_addr = addr;
	tm->msi_data = msi;
	tm->msis++;
	return 0;
}

static inline void toy_machine_init(struct toy_machine *tm)
{
	struct pci_bus_config cfg = {
		.ecam_base = TOY_ECAM,
		.mmio32_base = TOY_MMIO32,
		.mmio32_size = 64 * KIB,
		.mmio64_base = TOY_MMIO64,
		.mmio64_size = GIB,
		.pio_base = TOY_PIO,
		.pio_size = 0x1000,
		.intx_gsi = {16, 17, 18, 19},
	};

	memset(tm, 0, sizeof(*tm));
	tm->mem = cfg.mem = mem_new();
	tm->router = cfg.router = irq_router_new();
	for (int i = 0; i < GSI_MAX; i++)
		irq_router_connect(tm->router, i,
				   (struct irq){toy_gsi_set, tm, i});
	irq_router_set_msi(tm->router, toy_msi, tm);
	device_list_init(&tm->devices);
	tm->bus = pci_bus_new(&cfg, &tm->devices, NULL);
	ASSERT(tm->bus);
}

static inline void toy_machine_fini(struct toy_machine *tm)
{
	device_list_free(&tm->devices);
	irq_router_free(tm->router);
	mem_free(tm->mem);
}

static inline u64 toy_cfg(int slot, u32 reg)
{
	return TOY_ECAM + ((u64)slot << 15) + reg;
}
