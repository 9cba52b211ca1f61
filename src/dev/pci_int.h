/* SPDX-License-Identifier: Apache-2.0 */
/* Private to dev/pci*.c: the bus, configuration offsets, and the calls
 * between configuration space, BAR mapping and MSI-X. */
#pragma once

#include "dev/pci.h"

/* PCIe 5.0 §7.5.1 */
#define PCI_VENDOR_ID		0x00
#define PCI_COMMAND		0x04
#define PCI_COMMAND_IO		0x0001
#define PCI_COMMAND_MEMORY	0x0002
#define PCI_COMMAND_MASTER	0x0004
#define PCI_COMMAND_PARITY	0x0040
#define PCI_COMMAND_SERR	0x0100
#define PCI_COMMAND_INTX_OFF	0x0400
#define PCI_STATUS		0x06
#define PCI_STATUS_INTERRUPT	0x0008
#define PCI_STATUS_CAP_LIST	0x0010
#define PCI_REVISION_ID		0x08
#define PCI_CLASS_PROG		0x09
#define PCI_BASE_ADDRESS_0	0x10
#define PCI_SUBSYSTEM_VENDOR_ID 0x2c
#define PCI_SUBSYSTEM_ID	0x2e
#define PCI_CAPABILITY_LIST	0x34
#define PCI_INTERRUPT_LINE	0x3c
#define PCI_INTERRUPT_PIN	0x3d
#define PCI_HEADER_BYTES	0x40

#define PCI_BAR_IO	 0x1u
#define PCI_BAR_64	 0x4u
#define PCI_BAR_PREFETCH 0x8u

struct pci_bus {
	struct pci_device bridge; /* slot 0, the device "pci0" */
	struct pci_bus_config cfg;
	struct device_list *devices;
	struct pci_device *slots[PCI_SLOTS];
	struct irq lines[PCI_SLOTS]; /* each slot's own INTx source */
	struct io_region ecam;
	struct io_region ports; /* 0xcf8-0xcff */
	u32 address;		/* the type-1 address register */
	const struct io_ops *cf9_ops;
	void *cf9_opaque;
};

/* pci_bar.c */
/* Maps what decoding and addresses now ask for, on the whole bus: a BAR that
 * moves away may uncover another. */
void pci_bars_remap(struct pci_bus *bus);
void pci_bars_unmap(struct pci_device *pci);
int pci_bars_assign(struct pci_bus *bus, struct pci_device *pci,
		    struct err *err);
/* Writes the addresses of plug time into configuration space. */
void pci_bars_to_boot(struct pci_device *pci);

/* pci_msix.c */
void pci_msix_reset(struct pci_device *pci);
void pci_msix_state(struct pci_device *pci, struct state *s);
/* Message Control was written; was = its value before. */
void pci_msix_control_written(struct pci_device *pci, u16 was);
u16 pci_msix_control(const struct pci_device *pci);

/* pci.c: drives the wire from status, command and MSI-X enable. */
void pci_intx_update(struct pci_device *pci);
