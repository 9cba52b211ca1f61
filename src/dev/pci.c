/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY: one flat PCI Express bus, PCIe 5.0 §7.2.2 and §7.5.1
 *
 *	ECAM page (slot << 15) --+
 *	                         +--> pci_config_read/write --> remap, INTx,
 *	0xcf8 address, 0xcfc  ---+                              MSI-X, device
 *
 * Configuration space is an array of bytes and an array of writable bits of
 * the same length; a write is byte-wise, so every size at every offset is
 * sound by construction, and what it means is looked at afterwards. The
 * interrupt status bit is the level of INTx: the wire is derived from it, the
 * interrupt disable bit and MSI-X enable.
 *
 * Not modelled: functions other than 0, bridges, extended capabilities (the
 * extended space of a function reads as zero, which is an empty list), power
 * management, error reporting, AMD's extended access through 0xcf8.
 */
#include "dev/pci_int.h"

#include <errno.h>
#include <stdlib.h>

#include "base/assert.h"

#define CONFIG_ADDRESS	      0xcf8
#define CONFIG_ADDRESS_ENABLE 0x80000000u
#define CONFIG_ADDRESS_BITS   0x80fffffcu
#define ECAM_BYTES	      MIB
#define PCI_CAP_END	      256

/* ---- configuration space of one function ---- */

u32 pci_config_read(struct pci_device *pci, u32 off, unsigned size)
{
	u32 v = 0;

	if (pci->config_read && pci->config_read(pci, off, size, &v))
		return v;
	for (unsigned i = 0; i < size; i++) {
		u32 at = off + i;

		v |= (u32)(at < PCI_CONFIG_BYTES ? pci->config[at] : 0xff)
		     << 8 * i;
	}
	return v;
}

static bool config_overlaps(u32 off, unsigned size, u32 at, u32 len)
{
	return off < at + len && at < off + size;
}

void pci_config_write(struct pci_device *pci, u32 off, unsigned size, u32 value)
{
	u16 control = pci->msix.count ? pci_msix_control(pci) : 0;

	for (unsigned i = 0; i < size && off + i < PCI_CONFIG_BYTES; i++) {
		u8 w = pci->writable[off + i];
		u8 *p = &pci->config[off + i];

		*p = (*p & ~w) | ((value >> 8 * i) & w);
	}
	if (config_overlaps(off, size, PCI_COMMAND, 2)) {
		pci_bars_remap(pci->bus);
		pci_intx_update(pci);
	}
	if (config_overlaps(off, size, PCI_BASE_ADDRESS_0, 4 * PCI_BARS))
		pci_bars_remap(pci->bus);
	if (pci->msix.count)
		pci_msix_control_written(pci, control);
	if (pci->config_written)
		pci->config_written(pci, off, size);
}

bool pci_can_dma(const struct pci_device *pci)
{
	return ld_le16(pci->config + PCI_COMMAND) & PCI_COMMAND_MASTER;
}

void pci_intx_update(struct pci_device *pci)
{
	u16 command = ld_le16(pci->config + PCI_COMMAND);
	u16 status = ld_le16(pci->config + PCI_STATUS);

	irq_set(&pci->intx, (status & PCI_STATUS_INTERRUPT) &&
				    !(command & PCI_COMMAND_INTX_OFF) &&
				    !pci_msix_enabled(pci));
}

void pci_intx_set(struct pci_device *pci, bool level)
{
	u16 status = ld_le16(pci->config + PCI_STATUS);

	status &= ~PCI_STATUS_INTERRUPT;
	if (level)
		status |= PCI_STATUS_INTERRUPT;
	st_le16(pci->config + PCI_STATUS, status);
	pci_intx_update(pci);
}

/* ---- building a function ---- */

void pci_device_init(struct pci_device *pci, const struct device_ops *ops,
		     const char *name, const struct pci_ident *ident)
{
	u8 *c = pci->config;

	memset(pci, 0, sizeof(*pci));
	device_init(&pci->dev, ops, name);
	st_le16(c + PCI_VENDOR_ID, ident->vendor);
	st_le16(c + PCI_VENDOR_ID + 2, ident->device);
	c[PCI_REVISION_ID] = ident->revision;
	c[PCI_CLASS_PROG] = ident->class_code;
	st_le16(c + PCI_CLASS_PROG + 1, ident->class_code >> 8);
	st_le16(c + PCI_SUBSYSTEM_VENDOR_ID, ident->subsystem_vendor);
	st_le16(c + PCI_SUBSYSTEM_ID, ident->subsystem);
	c[PCI_INTERRUPT_PIN] = 1;
	st_le16(pci->writable + PCI_COMMAND,
		PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER |
			PCI_COMMAND_PARITY | PCI_COMMAND_SERR |
			PCI_COMMAND_INTX_OFF);
	pci->writable[PCI_INTERRUPT_LINE] = 0xff;
	pci->cap_end = PCI_HEADER_BYTES;
}

/* The byte that points to the capability after the last one. */
static u8 *cap_tail(struct pci_device *pci)
{
	u8 *next = &pci->config[PCI_CAPABILITY_LIST];

	while (*next)
		next = &pci->config[*next + 1];
	return next;
}

u8 pci_cap_add(struct pci_device *pci, u8 id, const void *bytes, u8 len)
{
	u8 at = ALIGN_UP(pci->cap_end, 4);

	ASSERT(len >= 2 && at >= PCI_HEADER_BYTES && at + len < PCI_CAP_END);
	*cap_tail(pci) = at;
	if (bytes)
		memcpy(pci->config + at, bytes, len);
	pci->config[at] = id;
	pci->config[at + 1] = 0;
	pci->config[PCI_STATUS] |= PCI_STATUS_CAP_LIST;
	pci->cap_end = at + len;
	return at;
}

/* ---- the generic part of reset and state ---- */

static int intx_gsi(const struct pci_bus *bus, const struct pci_device *pci)
{
	int pin = pci->config[PCI_INTERRUPT_PIN];

	return bus->cfg.intx_gsi[(pci->slot + pin - 1) & 3];
}

void pci_device_reset(struct pci_device *pci)
{
	for (u32 i = 0; i < PCI_CONFIG_BYTES; i++)
		pci->config[i] &= ~pci->writable[i];
	pci->config[PCI_STATUS] &= ~PCI_STATUS_INTERRUPT;
	pci_msix_reset(pci);
	if (!pci->bus)
		return;
	/* As firmware leaves it: addresses assigned, decoding on. */
	pci_bars_to_boot(pci);
	st_le16(pci->config + PCI_COMMAND, PCI_COMMAND_IO | PCI_COMMAND_MEMORY);
	if (pci->config[PCI_INTERRUPT_PIN])
		pci->config[PCI_INTERRUPT_LINE] = intx_gsi(pci->bus, pci);
	pci_bars_remap(pci->bus);
	pci_intx_update(pci);
}

void pci_device_state(struct pci_device *pci, struct state *s)
{
	u8 config[PCI_CONFIG_BYTES];
	bool same = true;

	memcpy(config, pci->config, sizeof(config));
	st_bytes(s, "config", config, sizeof(config));
	for (u32 i = 0; i < PCI_CONFIG_BYTES; i++) {
		u8 fixed = ~pci->writable[i];

		if (i == PCI_STATUS)
			fixed &= ~PCI_STATUS_INTERRUPT;
		if ((config[i] ^ pci->config[i]) & fixed)
			same = false;
	}
	st_require(s, same, "pci identity or capabilities differ");
	if (state_is_loading(s) && same && !state_failed(s))
		memcpy(pci->config, config, sizeof(config));
	pci_msix_state(pci, s);
}

void pci_device_post_load(struct pci_device *pci)
{
	if (!pci->bus)
		return;
	pci_bars_remap(pci->bus);
	pci_intx_update(pci);
}

/* ---- the bus ---- */

/* Slot and function of an ECAM offset or of the address register; NULL: no
 * such function. */
static struct pci_device *bus_function(struct pci_bus *bus, u32 devfn)
{
	return devfn & 7 ? NULL : bus->slots[devfn >> 3 & 31];
}

static u64 ecam_read(void *opaque, u64 off, unsigned size)
{
	struct pci_device *pci = bus_function(opaque, off >> 12 & 0xff);

	return pci ? pci_config_read(pci, off & 0xfff, size) : ~0ull;
}

static void ecam_write(void *opaque, u64 off, unsigned size, u64 value)
{
	struct pci_device *pci = bus_function(opaque, off >> 12 & 0xff);

	if (pci)
		pci_config_write(pci, off & 0xfff, size, value);
}

static const struct io_ops ecam_ops = {
	.read = ecam_read,
	.write = ecam_write,
	.max_size = 4,
};

/* The function and register that 0xcfc+off means; NULL: none. */
static struct pci_device *type1_target(struct pci_bus *bus, u64 off, u32 *reg)
{
	u32 a = bus->address;

	if (!(a & CONFIG_ADDRESS_ENABLE) || (a >> 16 & 0xff) != 0)
		return NULL;
	*reg = (a & 0xfc) + off;
	return bus_function(bus, a >> 8 & 0xff);
}

static u64 ports_read(void *opaque, u64 off, unsigned size)
{
	struct pci_bus *bus = opaque;
	struct pci_device *pci;
	u32 reg;

	if (off == 1 && size == 1 && bus->cf9_ops)
		return bus->cf9_ops->read(bus->cf9_opaque, 0, 1);
	if (off < 4)
		return off + size <= 4 ? bus->address >> 8 * off : ~0ull;
	pci = type1_target(bus, off - 4, &reg);
	return pci ? pci_config_read(pci, reg, size) : ~0ull;
}

static void ports_write(void *opaque, u64 off, unsigned size, u64 value)
{
	struct pci_bus *bus = opaque;
	struct pci_device *pci;
	u32 reg;

	if (off == 1 && size == 1 && bus->cf9_ops) {
		bus->cf9_ops->write(bus->cf9_opaque, 0, 1, value);
	} else if (off < 4) {
		if (off == 0 && size == 4)
			bus->address = value & CONFIG_ADDRESS_BITS;
	} else {
		pci = type1_target(bus, off - 4, &reg);
		if (pci)
			pci_config_write(pci, reg, size, value);
	}
}

static const struct io_ops ports_ops = {
	.read = ports_read,
	.write = ports_write,
	.max_size = 4,
};

static struct pci_bus *bus_of(struct device *dev)
{
	return container_of(dev, struct pci_bus, bridge.dev);
}

static void bus_reset(struct device *dev)
{
	struct pci_bus *bus = bus_of(dev);

	bus->address = 0;
	pci_device_reset(&bus->bridge);
}

static void bus_state(struct device *dev, struct state *s)
{
	struct pci_bus *bus = bus_of(dev);

	pci_device_state(&bus->bridge, s);
	st_u32(s, "address", &bus->address);
	st_require(s, !(bus->address & ~CONFIG_ADDRESS_BITS),
		   "reserved bits in the configuration address");
}

static void bus_post_load(struct device *dev)
{
	pci_device_post_load(&bus_of(dev)->bridge);
}

static void bus_free(struct device *dev)
{
	struct pci_bus *bus = bus_of(dev);

	pci_unplug(&bus->bridge);
	if (bus->ports.is_mapped)
		mem_io_del(bus->cfg.mem, &bus->ports);
	if (bus->ecam.is_mapped)
		mem_io_del(bus->cfg.mem, &bus->ecam);
	free(bus);
}

static const struct device_ops bus_ops = {
	.type = "pci-host",
	.reset = bus_reset,
	.state = bus_state,
	.post_load = bus_post_load,
	.free = bus_free,
};

static int bus_map(struct pci_bus *bus, struct err *err)
{
	int rc;

	bus->ecam = (struct io_region){
		.name = "pci-ecam",
		.space = IO_MMIO,
		.base = bus->cfg.ecam_base,
		.size = ECAM_BYTES,
		.ops = &ecam_ops,
		.opaque = bus,
	};
	bus->ports = (struct io_region){
		.name = "pci-type1",
		.space = IO_PIO,
		.base = CONFIG_ADDRESS,
		.size = 8,
		.ops = &ports_ops,
		.opaque = bus,
	};
	rc = mem_io_add(bus->cfg.mem, &bus->ecam);
	if (!rc)
		rc = mem_io_add(bus->cfg.mem, &bus->ports);
	if (rc)
		return err_sys(err, rc, "map the pci host bridge");
	return 0;
}

struct pci_bus *pci_bus_new(const struct pci_bus_config *cfg,
			    struct device_list *devices, struct err *err)
{
	static const struct pci_ident ident = {
		.vendor = 0x1b36,
		.device = 0x0008,
		.class_code = 0x060000,
	};
	struct pci_bus *bus = calloc(1, sizeof(*bus));
	int rc;

	ASSERT(bus);
	bus->cfg = *cfg;
	bus->devices = devices;
	pci_device_init(&bus->bridge, &bus_ops, "pci0", &ident);
	bus->bridge.config[PCI_INTERRUPT_PIN] = 0;
	rc = bus_map(bus, err);
	if (!rc)
		rc = pci_plug(bus, &bus->bridge, 0, err);
	if (rc) {
		bus_free(&bus->bridge.dev);
		return NULL;
	}
	return bus;
}

void pci_bus_set_cf9(struct pci_bus *bus, const struct io_ops *ops,
		     void *opaque)
{
	bus->cf9_ops = ops;
	bus->cf9_opaque = opaque;
}

/* ---- plugging ---- */

static int bus_find_slot(const struct pci_bus *bus, int slot, struct err *err)
{
	if (slot >= PCI_SLOTS)
		return err_set(err, -EINVAL, "pci slot %d does not exist",
			       slot);
	if (slot >= 0)
		return bus->slots[slot] ? err_set(err, -EBUSY,
						  "pci slot %d is taken", slot)
					: slot;
	for (slot = 0; slot < PCI_SLOTS; slot++)
		if (!bus->slots[slot])
			return slot;
	return err_set(err, -ENOSPC, "no free pci slot");
}

int pci_plug(struct pci_bus *bus, struct pci_device *pci, int slot,
	     struct err *err)
{
	int rc;

	slot = bus_find_slot(bus, slot, err);
	if (slot < 0)
		return slot;
	rc = pci_bars_assign(bus, pci, err);
	if (rc)
		return rc;
	pci->slot = slot;
	pci->bus = bus;
	bus->slots[slot] = pci;
	if (pci->config[PCI_INTERRUPT_PIN]) {
		/* The line outlives the device: it belongs to the slot. */
		if (!bus->lines[slot].set)
			bus->lines[slot] = irq_router_line(bus->cfg.router,
							   intx_gsi(bus, pci));
		pci->intx = bus->lines[slot];
	}
	device_list_add(bus->devices, &pci->dev);
	pci_device_reset(pci);
	return 0;
}

void pci_unplug(struct pci_device *pci)
{
	if (!pci->bus)
		return;
	irq_set(&pci->intx, false);
	pci->intx = (struct irq){0};
	pci_bars_unmap(pci);
	list_del(&pci->dev.link);
	pci->bus->slots[pci->slot] = NULL;
	pci_bars_remap(pci->bus);
	pci->bus = NULL;
}
