/* SPDX-License-Identifier: Apache-2.0 */
/* The ways in which software resets a PC: the reset control register 0xcf9,
 * port 0x92, and the keyboard controller (0x60, 0x64), which is here for its
 * reset and A20 lines and answers like one with an idle keyboard. A request
 * is made once until the machine is reset, however often the guest asks. */
#pragma once

#include "dev/pci.h"
#include "hw/hw.h"

#define RESET_CTL_PORT	0xcf9 /* for the FADT's RESET_REG */
#define RESET_CTL_VALUE 0x06

struct reset_ctl;
struct i8042;

/* bus may be NULL: then there is no 0xcf9. */
struct reset_ctl *reset_ctl_new(const struct hw_env *env, struct pci_bus *bus,
				struct hw_request reset);
struct i8042 *i8042_new(const struct hw_env *env, struct irq irq1,
			struct hw_request reset);
