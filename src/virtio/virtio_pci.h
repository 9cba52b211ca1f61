/* SPDX-License-Identifier: Apache-2.0 */
/* The modern virtio PCI transport (virtio 1.2 §4.1): vendor 1af4, device
 * 0x1040 + id, one function per device.
 *
 * virtio_pci_plug() wraps an initialised virtio device in a PCI function and
 * registers that; from then on the device list owns both: freeing the PCI
 * device calls the virtio device's free.
 *
 * Kicks reach the home loop through one eventfd per queue, by a doorbell where
 * the BAR is mapped, else from the BAR's write callback. Resets and saves of
 * the machine run on the home loop's thread.
 */
#pragma once

#include "dev/pci.h"
#include "virtio/virtio.h"

/* BAR 0 */
#define VIRTIO_PCI_COMMON_OFF	 0x0000
#define VIRTIO_PCI_ISR_OFF	 0x1000
#define VIRTIO_PCI_DEVICE_OFF	 0x2000
#define VIRTIO_PCI_NOTIFY_OFF	 0x3000
#define VIRTIO_PCI_AREA_BYTES	 0x1000
#define VIRTIO_PCI_BAR_BYTES	 0x4000
#define VIRTIO_PCI_NOTIFY_STRIDE 4
#define VIRTIO_PCI_MSIX_BAR	 1

#define VIRTIO_MSI_NO_VECTOR 0xffff

#define VIRTIO_PCI_CAP_COMMON_CFG 1
#define VIRTIO_PCI_CAP_NOTIFY_CFG 2
#define VIRTIO_PCI_CAP_ISR_CFG	  3
#define VIRTIO_PCI_CAP_DEVICE_CFG 4
#define VIRTIO_PCI_CAP_PCI_CFG	  5

/* On failure the device is freed. */
int virtio_pci_plug(struct virtio_device *d, const struct virtio_attach *at,
		    u32 class_code, struct err *err);
/* The PCI function behind a plugged device. */
struct pci_device *virtio_pci_function(struct virtio_device *d);
