/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the loaders only. */
#pragma once

#include "boot/boot.h"

struct boot_kernel {
	u8 *bytes; /* the whole file, read once */
	size_t size;
};

/* A range [off, off + len) that lies inside the file. */
static inline bool boot_in_file(const struct boot_kernel *k, u64 off, u64 len)
{
	return off <= k->size && len <= k->size - off;
}

bool boot_is_bzimage(const struct boot_kernel *k);
int boot_load_bzimage(const struct boot_config *cfg,
		      const struct boot_kernel *k, struct boot_entry *out,
		      struct err *err);

bool boot_is_elf(const struct boot_kernel *k);
/* Loads PT_LOAD segments at their physical addresses; floor as in boot_copy().
 * out_entry: e_entry; out_top: end of the highest segment. Either word size. */
int boot_load_elf(const struct boot_config *cfg, const struct boot_kernel *k,
		  gpa_t floor, u64 *out_entry, gpa_t *out_top, struct err *err);
/* PVH: -ENOENT without a note. */
int boot_elf_pvh_entry(const struct boot_kernel *k, u64 *out_entry);
int boot_load_pvh(const struct boot_config *cfg, const struct boot_kernel *k,
		  struct boot_entry *out, struct err *err);

bool boot_is_multiboot(const struct boot_kernel *k, size_t *out_off);
int boot_load_multiboot(const struct boot_config *cfg,
			const struct boot_kernel *k, struct boot_entry *out,
			struct err *err);

/* Copies into RAM at or above 1 MiB, or, if floor is lower, into [floor,
 * BOOT_IMAGE_LOW_END); the error names `what`. */
int boot_copy(const struct boot_config *cfg, gpa_t floor, gpa_t gpa,
	      const void *bytes, u64 len, const char *what, struct err *err);
/* Reads module n as high as possible below `limit`, page aligned, but not
 * below `floor`. */
int boot_load_module(const struct boot_config *cfg, size_t n, gpa_t floor,
		     gpa_t limit, gpa_t *out_gpa, u64 *out_size,
		     struct err *err);
int boot_write_cmdline(const struct boot_config *cfg, const char *prefix,
		       size_t max, struct err *err);
void boot_write_gdt(const struct boot_config *cfg);
/* Identity map of the first 4 GiB; returns CR3. */
u64 boot_write_pagetables(const struct boot_config *cfg);
