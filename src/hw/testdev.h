/* SPDX-License-Identifier: Apache-2.0 */
/* The devices that kvm-unit-tests drives.
 *
 * isa_testdev: 4 scratch bytes at port 0xe0; a write to 0xe4 asks for a page
 * to be dropped (a no-op here); port 0x2000+n sets GSI n; 64 KiB of scratch
 * MMIO at 0xff000000.
 * pci_testdev: 1b36:0005, BAR0 MMIO and BAR1 ports that count writes.
 */
#pragma once

#include "dev/pci.h"
#include "hw/hw.h"

void isa_testdev_new(const struct hw_env *env);
int pci_testdev_new(const struct hw_env *env, struct pci_bus *bus, int slot,
		    struct err *err);
