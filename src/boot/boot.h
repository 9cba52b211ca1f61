/* SPDX-License-Identifier: Apache-2.0 */
/* Direct boot: puts a kernel, its initrd, its command line and the firmware
 * tables into guest RAM and says in which state the first vCPU starts.
 *
 * Kernel kinds, told by their contents: Linux bzImage (64-bit boot protocol,
 * version 2.12 on), ELF with a PVH note (Xen PHYS32_ENTRY), and ELF or flat
 * images with a multiboot 1 header (32-bit entry, modules). The files are
 * hostile: every offset, size and address is checked, and nothing is written
 * outside RAM.
 *
 * Low memory is used as follows. Below 1 MiB, a kernel may itself occupy only
 * what BOOT_IMAGE_LOW says, and only a multiboot one: it needs no page tables.
 */
#pragma once

#include "base/err.h"
#include "base/types.h"
#include "mem/mem.h"

#define BOOT_GDT_GPA	   0x500ull
#define BOOT_PARAMS_GPA	   0x7000ull /* zero page, start_info, mbi */
#define BOOT_PARAMS_BYTES  0x2000ull
#define BOOT_PAGETABLE_GPA 0x9000ull /* PML4, PDPT, 4 PDs: 24 KiB */
#define BOOT_IMAGE_LOW_GPA 0x8000ull /* multiboot: above the mbi page … */
#define BOOT_IMAGE_LOW_END BOOT_CMDLINE_GPA /* … to here */
#define BOOT_CMDLINE_GPA   0x20000ull
#define BOOT_CMDLINE_MAX   4096u /* bytes with the NUL */
#define BOOT_EBDA_GPA	   0x9fc00ull
#define BOOT_TABLES_GPA	   0xe0000ull /* ACPI … */
#define BOOT_ACPI_BYTES	   0x10000ull
/* In it, behind the tables: 16 bytes, see acpi.c. */
#define BOOT_GENERATION_GPA (BOOT_TABLES_GPA + BOOT_ACPI_BYTES - 0x1000)
#define BOOT_SMBIOS_GPA	    0xf0000ull /* … and SMBIOS */
#define BOOT_SMBIOS_BYTES   0x1000ull
#define BOOT_TABLES_BYTES   0x20000ull
#define BOOT_HANDLERS_GPA   0xfff00ull /* multiboot: for real mode's vectors */
#define BOOT_HIGH_GPA	    0x100000ull

enum boot_e820_type { BOOT_E820_RAM = 1, BOOT_E820_RESERVED = 2 };

struct boot_e820 {
	gpa_t base;
	u64 size;
	u32 type;
};

#define BOOT_E820_MAX	 16
#define BOOT_MODULES_MAX 8

struct boot_config {
	struct mem *mem;
	int kernel_fd;
	const int *module_fds; /* [0] is the initrd for Linux */
	size_t module_count;
	const char *cmdline;		    /* may be NULL */
	const char *kernel_name;	    /* argv[0] of multiboot kernels */
	gpa_t low_ram_top;		    /* RAM is [0, low_ram_top) … */
	gpa_t high_ram_base, high_ram_size; /* … and this; size may be 0 */
	gpa_t rsdp_gpa;			    /* 0: none */
	struct boot_e820 reserved[4];	    /* further reserved ranges */
	size_t reserved_count;
};

enum boot_mode { BOOT_MODE_LONG, BOOT_MODE_PROTECTED };

/* The first vCPU's state at entry: flat segments from the GDT at
 * BOOT_GDT_GPA, interrupts off; in long mode identity paging below 4 GiB. */
struct boot_entry {
	enum boot_mode mode;
	u64 rip, rax, rbx, rsi, rsp;
	u64 cr3; /* long mode */
	/* The kernel expects interrupt controllers and timer 0 as a BIOS
	 * leaves them; BOOT_PIC_BASE are the vectors. */
	bool wants_bios;
};

/* First vectors of the two PICs, as a BIOS has them. */
#define BOOT_PIC_BASE_0 0x08
#define BOOT_PIC_BASE_1 0x70

#define BOOT_GDT_CODE32 0x08
#define BOOT_GDT_CODE64 0x10 /* Linux's __BOOT_CS */
#define BOOT_GDT_DATA	0x18 /* and __BOOT_DS */
#define BOOT_GDT_LIMIT	0x1f

int boot_load(const struct boot_config *cfg, struct boot_entry *out,
	      struct err *err);
/* The memory map that the guest is told; returns the number of entries. */
size_t boot_e820_build(const struct boot_config *cfg,
		       struct boot_e820 out[BOOT_E820_MAX]);
