/* SPDX-License-Identifier: Apache-2.0 */
/* The ACPI tables: RSDP, XSDT, FADT, FACS, MADT, MCFG, SPCR and a DSDT with
 * the PCI root, the serial port, the RTC and S5. Source: ACPI 6.5 §5.2, PCI
 * Firmware Specification 3.3 §4.1.2 (MCFG), Microsoft SPCR revision 2. */
#pragma once

#include "base/err.h"
#include "base/types.h"
#include "mem/mem.h"

struct acpi_config {
	struct mem *mem;
	u32 vcpu_count;
	gpa_t lapic_gpa, ioapic_gpa;
	gpa_t ecam_gpa; /* bus 0 only */
	gpa_t mmio32_base;
	u64 mmio32_size;
	gpa_t mmio64_base;
	u64 mmio64_size;
	u16 pio_base, pio_size; /* the bridge's I/O window */
	u16 pm1a_event_port, pm1a_control_port, pm_timer_port, gpe0_port;
	u8 gpe0_bytes;
	u16 reset_port;
	u8 reset_value;
	u8 sci_gsi;
	u8 s5_slp_typ;
	u16 uart_port;
	u8 uart_irq;
	int intx_gsi[4]; /* INTA-INTD of the bus, before the swizzle */
};

/* Writes everything into BOOT_TABLES_GPA…; *out_rsdp_gpa lies in the range
 * that legacy kernels scan (0xe0000-0xfffff). */
int acpi_build(const struct acpi_config *cfg, gpa_t *out_rsdp_gpa,
	       struct err *err);
