/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY
 *
 * A BAR's address lives only in configuration space. Whenever a BAR or the
 * command register changes, pci_bars_remap() compares, for each BAR of the
 * bus, where it is mapped with where it should be. Unmapping comes first, so
 * two BARs may swap places; then everything that is wanted and not mapped is
 * tried again in slot order. mem refuses overlaps (-EEXIST): the BAR then
 * stays unmapped until something moves away. Both loops are bounded by
 * PCI_SLOTS * PCI_BARS.
 *
 * A BAR may be mapped only wholly inside a window of the bus, so no BAR can
 * cover RAM, the local APICs or a chip at a fixed address.
 */
#include "dev/pci_int.h"

#include <errno.h>

#include "base/assert.h"

#define UNMAPPED UINT64_MAX

static u32 bar_offset(int n)
{
	return PCI_BASE_ADDRESS_0 + 4 * n;
}

static u64 bar_address(const struct pci_device *pci, int n)
{
	const struct pci_bar *bar = &pci->bars[n];
	u64 v = ld_le32(pci->config + bar_offset(n));

	if (bar->is_pio)
		return v & ~3ull;
	v &= ~15ull;
	if (bar->is_64)
		v |= (u64)ld_le32(pci->config + bar_offset(n + 1)) << 32;
	return v;
}

static void bar_set_address(struct pci_device *pci, int n, u64 addr)
{
	u8 *p = pci->config + bar_offset(n);

	st_le32(p, (u32)addr | (p[0] & (pci->bars[n].is_pio ? 3 : 15)));
	if (pci->bars[n].is_64)
		st_le32(p + 4, addr >> 32);
}

static bool range_inside(u64 base, u64 size, u64 window, u64 window_size)
{
	return size <= window_size && base >= window &&
	       base - window <= window_size - size;
}

/* Where the BAR should be mapped now; UNMAPPED if nowhere. */
static u64 bar_wanted(const struct pci_device *pci, int n)
{
	const struct pci_bus_config *cfg = &pci->bus->cfg;
	const struct pci_bar *bar = &pci->bars[n];
	u16 command = ld_le16(pci->config + PCI_COMMAND);
	u64 addr = bar_address(pci, n);
	bool ok;

	if (!(command & (bar->is_pio ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY)))
		return UNMAPPED;
	if (bar->is_pio)
		ok = range_inside(addr, bar->size, cfg->pio_base,
				  cfg->pio_size);
	else
		ok = range_inside(addr, bar->size, cfg->mmio32_base,
				  cfg->mmio32_size) ||
		     range_inside(addr, bar->size, cfg->mmio64_base,
				  cfg->mmio64_size);
	return ok ? addr : UNMAPPED;
}

static void device_unmap_moved(struct mem *m, struct pci_device *pci)
{
	for (int n = 0; n < PCI_BARS; n++) {
		struct pci_bar *bar = &pci->bars[n];

		if (bar->size && bar->region.is_mapped &&
		    bar_wanted(pci, n) != bar->region.base)
			mem_io_del(m, &bar->region);
	}
}

static void device_map_wanted(struct mem *m, struct pci_device *pci)
{
	for (int n = 0; n < PCI_BARS; n++) {
		struct pci_bar *bar = &pci->bars[n];
		u64 want;

		if (!bar->size || bar->region.is_mapped)
			continue;
		want = bar_wanted(pci, n);
		if (want == UNMAPPED)
			continue;
		bar->region.base = want;
		/* Refused on overlap: the guest sees the earlier region. */
		(void)mem_io_add(m, &bar->region);
	}
}

void pci_bars_remap(struct pci_bus *bus)
{
	for (int i = 0; i < PCI_SLOTS; i++)
		if (bus->slots[i])
			device_unmap_moved(bus->cfg.mem, bus->slots[i]);
	for (int i = 0; i < PCI_SLOTS; i++)
		if (bus->slots[i])
			device_map_wanted(bus->cfg.mem, bus->slots[i]);
}

void pci_bars_unmap(struct pci_device *pci)
{
	for (int n = 0; n < PCI_BARS; n++)
		if (pci->bars[n].size && pci->bars[n].region.is_mapped)
			mem_io_del(pci->bus->cfg.mem, &pci->bars[n].region);
}

/* ---- adding ---- */

static struct pci_bar *bar_new(struct pci_device *pci, int n, u64 size,
			       const struct io_ops *ops, void *opaque)
{
	struct pci_bar *bar;

	ASSERT(n >= 0 && n < PCI_BARS && !pci->bus);
	ASSERT(size && !(size & (size - 1)));
	bar = &pci->bars[n];
	ASSERT(!bar->size);
	bar->size = size;
	bar->region.name = pci->dev.name;
	bar->region.size = size;
	bar->region.ops = ops;
	bar->region.opaque = opaque;
	return bar;
}

void pci_bar_add(struct pci_device *pci, int n, u64 size, bool is_64,
		 bool is_prefetchable, const struct io_ops *ops, void *opaque)
{
	struct pci_bar *bar = bar_new(pci, n, size, ops, opaque);
	u64 mask = ~(size - 1);

	ASSERT(size >= 16);
	ASSERT(is_64 ? n + 1 < PCI_BARS : size <= 2 * GIB);
	bar->is_64 = is_64;
	bar->is_prefetchable = is_prefetchable;
	bar->region.space = IO_MMIO;
	pci->config[bar_offset(n)] = (is_64 ? PCI_BAR_64 : 0) |
				     (is_prefetchable ? PCI_BAR_PREFETCH : 0);
	st_le32(pci->writable + bar_offset(n), (u32)mask);
	if (is_64)
		st_le32(pci->writable + bar_offset(n + 1), mask >> 32);
}

void pci_bar_add_pio(struct pci_device *pci, int n, u16 size,
		     const struct io_ops *ops, void *opaque)
{
	struct pci_bar *bar = bar_new(pci, n, size, ops, opaque);

	ASSERT(size >= 4 && size <= 256);
	bar->is_pio = true;
	bar->region.space = IO_PIO;
	pci->config[bar_offset(n)] = PCI_BAR_IO;
	st_le32(pci->writable + bar_offset(n), ~(u32)(size - 1));
}

/* ---- boot-time addresses ---- */

/* The end of a BAR of the same space that overlaps [base, base+size), as it
 * was assigned or as the guest has moved it; 0 if there is none. */
static u64 conflict_end(const struct pci_bus *bus,
			const struct pci_device *self, bool is_pio, u64 base,
			u64 size)
{
	for (int i = 0; i < PCI_SLOTS + 1; i++) {
		const struct pci_device *pci =
			i == PCI_SLOTS ? self : bus->slots[i];

		for (int n = 0; pci && n < PCI_BARS; n++) {
			const struct pci_bar *bar = &pci->bars[n];
			u64 at[2] = {bar->boot_base, bar->region.is_mapped
							     ? bar->region.base
							     : 0};

			if (!bar->size || bar->is_pio != is_pio)
				continue;
			for (int k = 0; k < 2; k++)
				if (at[k] && base < at[k] + bar->size &&
				    at[k] < base + size)
					return at[k] + bar->size;
		}
	}
	return 0;
}

/* First fit; 0 when the window is full. */
static u64 window_alloc(const struct pci_bus *bus,
			const struct pci_device *self,
			const struct pci_bar *bar, u64 window, u64 window_size)
{
	u64 base = window ? window : bar->size;

	for (;;) {
		u64 end;

		base = ALIGN_UP(base, bar->size);
		if (!range_inside(base, bar->size, window, window_size))
			return 0;
		end = conflict_end(bus, self, bar->is_pio, base, bar->size);
		if (!end)
			return base;
		base = end;
	}
}

static u64 bar_alloc(const struct pci_bus *bus, const struct pci_device *self,
		     const struct pci_bar *bar)
{
	const struct pci_bus_config *cfg = &bus->cfg;
	u64 base = 0;

	if (bar->is_pio)
		return window_alloc(bus, self, bar, cfg->pio_base,
				    cfg->pio_size);
	if (bar->is_64 && bar->is_prefetchable)
		base = window_alloc(bus, self, bar, cfg->mmio64_base,
				    cfg->mmio64_size);
	if (!base)
		base = window_alloc(bus, self, bar, cfg->mmio32_base,
				    cfg->mmio32_size);
	if (!base && bar->is_64)
		base = window_alloc(bus, self, bar, cfg->mmio64_base,
				    cfg->mmio64_size);
	return base;
}

int pci_bars_assign(struct pci_bus *bus, struct pci_device *pci,
		    struct err *err)
{
	for (int n = 0; n < PCI_BARS; n++)
		pci->bars[n].boot_base = 0;
	for (int n = 0; n < PCI_BARS; n++) {
		struct pci_bar *bar = &pci->bars[n];

		if (!bar->size)
			continue;
		bar->boot_base = bar_alloc(bus, pci, bar);
		if (!bar->boot_base)
			return err_set(err, -ENOSPC,
				       "no address space left for bar %d of "
				       "'%s'",
				       n, pci->dev.name);
	}
	return 0;
}

void pci_bars_to_boot(struct pci_device *pci)
{
	for (int n = 0; n < PCI_BARS; n++)
		if (pci->bars[n].size)
			bar_set_address(pci, n, pci->bars[n].boot_base);
}
