/* SPDX-License-Identifier: Apache-2.0 */
/* PCI functions on one bus behind an ECAM host bridge (PCIe 5.0 §7.2.2).
 *
 * A device embeds struct pci_device, fills its identity, adds BARs and
 * capabilities, and is plugged into a slot of bus 0. Configuration space,
 * BAR sizing and moves, the command register, MSI-X table and PBA are handled
 * here. A BAR is mapped only while memory decoding is on, it lies wholly
 * inside the bus's MMIO windows, and overlaps nothing else; otherwise the
 * guest sees unassigned space there.
 */
#pragma once

#include "base/err.h"
#include "dev/device.h"
#include "irq/irq.h"
#include "mem/mem.h"

#define PCI_CONFIG_BYTES 4096
#define PCI_BARS	 6
#define PCI_SLOTS	 32
#define PCI_MSIX_MAX	 64

struct pci_bus;
struct pci_device;

struct pci_ident {
	u16 vendor, device, subsystem_vendor, subsystem;
	u32 class_code; /* 24 bits: class, subclass, interface */
	u8 revision;
};

struct pci_bar {
	struct io_region region;
	u64 size;      /* power of two; 0: absent */
	u64 boot_base; /* assigned at plug; a reset returns to it; 0: none */
	bool is_64;
	bool is_pio;
	bool is_prefetchable;
};

struct pci_msix {
	u16 count; /* vectors; 0: no MSI-X */
	u8 bar;
	u8 cap; /* offset of the capability */
	u8 table[PCI_MSIX_MAX * 16];
	u64 pending;
};

struct pci_device {
	struct device dev;
	struct pci_bus *bus; /* NULL until plugged */
	u8 slot;	     /* device number, 0-31; function 0 */
	u8 config[PCI_CONFIG_BYTES];
	u8 writable[PCI_CONFIG_BYTES]; /* mask of guest-writable bits */
	u8 cap_end;		       /* next free byte for a capability */
	struct pci_bar bars[PCI_BARS];
	struct pci_msix msix;
	struct irq intx;
	/* Called after a guest write to config space, may be NULL. */
	void (*config_written)(struct pci_device *pci, u32 off, unsigned size);
	/* Overrides a config read, may be NULL (virtio's cfg window). */
	bool (*config_read)(struct pci_device *pci, u32 off, unsigned size,
			    u32 *value);
	/* MSI-X vector masked or unmasked, may be NULL. */
	void (*msix_changed)(struct pci_device *pci);
};

struct pci_bus_config {
	struct mem *mem;
	struct irq_router *router;
	gpa_t ecam_base;		/* 1 MiB for bus 0 is decoded */
	gpa_t mmio32_base, mmio32_size; /* 32-bit window */
	gpa_t mmio64_base, mmio64_size; /* 64-bit window */
	u16 pio_base, pio_size;
	int intx_gsi[4]; /* INTA-INTD after the usual swizzle */
};

/* The host bridge is slot 0. Also decodes 0xcf8/0xcfc. Registers itself as
 * device "pci0". */
struct pci_bus *pci_bus_new(const struct pci_bus_config *cfg,
			    struct device_list *devices, struct err *err);

void pci_device_init(struct pci_device *pci, const struct device_ops *ops,
		     const char *name, const struct pci_ident *ident);
/* n: 0-5 (a 64-bit BAR takes n and n+1). ops/opaque serve accesses. */
void pci_bar_add(struct pci_device *pci, int n, u64 size, bool is_64,
		 bool is_prefetchable, const struct io_ops *ops, void *opaque);
void pci_bar_add_pio(struct pci_device *pci, int n, u16 size,
		     const struct io_ops *ops, void *opaque);
/* Appends a capability of len bytes (header included; the two header bytes of
 * `bytes` are ignored, NULL is all zeros); returns its offset. Guest-writable
 * bits go into pci->writable afterwards. */
u8 pci_cap_add(struct pci_device *pci, u8 id, const void *bytes, u8 len);
/* MSI-X with its table and PBA in a BAR of its own. */
void pci_msix_add(struct pci_device *pci, int bar, u16 count);
/* Plugs into the slot (-1: first free), assigns BAR addresses and turns
 * decoding on (firmware-less boot needs both), registers the device. Fails
 * with -EBUSY (slot taken) or -ENOSPC (no slot or no window space left). */
int pci_plug(struct pci_bus *bus, struct pci_device *pci, int slot,
	     struct err *err);
/* Unmaps, leaves the bus and the device list; harmless when not plugged. A
 * device's own free function calls it first. */
void pci_unplug(struct pci_device *pci);

/* Port 0xcf9 lies between the two type-1 registers, so the bus decodes it for
 * its owner, the reset control register. Byte accesses only. */
void pci_bus_set_cf9(struct pci_bus *bus, const struct io_ops *ops,
		     void *opaque);

/* Configuration accesses as the guest makes them, function 0 of this device;
 * size 1, 2 or 4, any offset: beyond the end is all ones. */
u32 pci_config_read(struct pci_device *pci, u32 off, unsigned size);
void pci_config_write(struct pci_device *pci, u32 off, unsigned size,
		      u32 value);

/* Sends vector n, or sets its pending bit while masked. A vector beyond the
 * table, or one sent while MSI-X is off, is dropped. */
void pci_msix_send(struct pci_device *pci, u16 n);
bool pci_msix_enabled(const struct pci_device *pci);
void pci_intx_set(struct pci_device *pci, bool level);
/* True while bus mastering is on: devices must not DMA without it. */
bool pci_can_dma(const struct pci_device *pci);

/* The generic part of a PCI device's reset and state: a device's own reset
 * and state functions call these first. */
void pci_device_reset(struct pci_device *pci);
void pci_device_state(struct pci_device *pci, struct state *s);
void pci_device_post_load(struct pci_device *pci);
