/* SPDX-License-Identifier: Apache-2.0 */
/* The ACPI fixed hardware: PM1a event and control, PM timer, GPE0. The
 * platform is always in ACPI mode (SCI_EN reads 1, there is no SMI_CMD). */
#pragma once

#include "hw/hw.h"

/* For the FADT and the DSDT's \_S5. */
#define ACPI_PM_BASE	       0x600
#define ACPI_PM1A_EVENT_PORT   (ACPI_PM_BASE + 0x00) /* 4 bytes */
#define ACPI_PM1A_CONTROL_PORT (ACPI_PM_BASE + 0x04) /* 2 bytes */
#define ACPI_PM_TIMER_PORT     (ACPI_PM_BASE + 0x08) /* 32 bits */
#define ACPI_GPE0_PORT	       (ACPI_PM_BASE + 0x20)
#define ACPI_GPE0_BYTES	       4 /* 2 status, 2 enable */
#define ACPI_GPE_GENERATION    5 /* boot/acpi.c: _E05 */
#define ACPI_SCI_GSI	       9
#define ACPI_S5_SLP_TYP	       5
#define ACPI_PM_TIMER_HZ       3579545u

struct acpi_pm;

/* sci: the line of ACPI_SCI_GSI, level-triggered. */
struct acpi_pm *acpi_pm_new(const struct hw_env *env, struct irq sci,
			    struct hw_request poweroff);
/* Presses the power button. */
void acpi_pm_power_button(struct acpi_pm *pm);
/* Raises general-purpose event n, 0-15. */
void acpi_pm_gpe(struct acpi_pm *pm, int n);
