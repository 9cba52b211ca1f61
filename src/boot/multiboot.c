/* SPDX-License-Identifier: Apache-2.0 */
/* Source: Multiboot Specification version 0.6.96 §3.1 (header), §3.2 (machine
 * state), §3.3 (information). Video modes are not offered; a kernel that
 * requires one is refused.
 *
 * "Other machine state should be left […] as initialized by the BIOS" (§3.2):
 * real mode's vectors lead to handlers that end the interrupt, and the caller
 * is asked for the rest (wants_bios). BIOS services are not modelled. */
#include "boot/boot_int.h"

#include <errno.h>

#define MB_SEARCH	8192
#define MB_HEADER_MAGIC 0x1badb002u
#define MB_LOADER_MAGIC 0x2badb002u
#define MB_NEED_VIDEO	BIT32(2)
#define MB_AOUT_KLUDGE	BIT32(16)
#define MB_KNOWN_FLAGS	(BIT32(0) | BIT32(1))

#define MBI_MEMORY  BIT32(0)
#define MBI_CMDLINE BIT32(2)
#define MBI_MODS    BIT32(3)
#define MBI_MMAP    BIT32(6)
#define MBI_LOADER  BIT32(9)

/* The information page: mbi at 0, then modules, names and the map. */
#define MBI_MODS_OFF   128
#define MBI_LOADER_OFF 384
#define MBI_NAME_OFF   400
#define MBI_MMAP_OFF   512

bool boot_is_multiboot(const struct boot_kernel *k, size_t *out_off)
{
	for (size_t off = 0; off + 12 <= MIN(k->size, (size_t)MB_SEARCH);
	     off += 4) {
		u32 magic = ld_le32(k->bytes + off);
		u32 flags = ld_le32(k->bytes + off + 4);
		u32 sum = ld_le32(k->bytes + off + 8);

		if (magic == MB_HEADER_MAGIC && magic + flags + sum == 0) {
			*out_off = off;
			return true;
		}
	}
	return false;
}

/* The address fields ("a.out kludge"): a flat image. */
static int load_flat(const struct boot_config *cfg, const struct boot_kernel *k,
		     size_t off, u64 *out_entry, gpa_t *out_top,
		     struct err *err)
{
	u64 header, load, load_end, bss_end, file_off, len;

	if (!boot_in_file(k, off, 32))
		return err_set(err, -ENOEXEC, "truncated multiboot header");
	header = ld_le32(k->bytes + off + 12);
	load = ld_le32(k->bytes + off + 16);
	load_end = ld_le32(k->bytes + off + 20);
	bss_end = ld_le32(k->bytes + off + 24);
	if (load > header || header - load > off)
		return err_set(err, -ENOEXEC,
			       "the multiboot header's addresses are wrong");
	file_off = off - (header - load);
	if (load_end == 0)
		load_end = load + (k->size - file_off);
	if (load_end < load || !boot_in_file(k, file_off, load_end - load))
		return err_set(err, -ENOEXEC, "truncated multiboot image");
	len = load_end - load;
	*out_top = MAX(load_end, bss_end);
	*out_entry = ld_le32(k->bytes + off + 28);
	if (*out_top > cfg->low_ram_top)
		return err_set(err, -ENOMEM,
			       "the kernel does not fit into memory");
	return boot_copy(cfg, BOOT_IMAGE_LOW_GPA, load, k->bytes + file_off,
			 len, "the kernel", err);
}

static int load_modules(const struct boot_config *cfg, gpa_t top, u8 *page,
			struct err *err)
{
	gpa_t limit = cfg->low_ram_top;

	if (cfg->module_count > BOOT_MODULES_MAX)
		return err_set(err, -E2BIG, "at most %d modules",
			       BOOT_MODULES_MAX);
	for (size_t i = 0; i < cfg->module_count; i++) {
		u8 *m = page + MBI_MODS_OFF + i * 16;
		gpa_t gpa;
		u64 size;
		int rc = boot_load_module(cfg, i, top, limit, &gpa, &size, err);

		if (rc < 0)
			return rc;
		st_le32(m, (u32)gpa);
		st_le32(m + 4, (u32)(gpa + size));
		st_le32(m + 8, (u32)(BOOT_PARAMS_GPA + MBI_NAME_OFF));
		limit = gpa;
	}
	return 0;
}

static void info_fill(const struct boot_config *cfg, u8 *page)
{
	struct boot_e820 map[BOOT_E820_MAX];
	size_t n = boot_e820_build(cfg, map);

	st_le32(page,
		MBI_MEMORY | MBI_CMDLINE | MBI_MODS | MBI_MMAP | MBI_LOADER);
	st_le32(page + 4, (u32)(BOOT_EBDA_GPA / KIB));
	st_le32(page + 8, (u32)((cfg->low_ram_top - MIB) / KIB));
	st_le32(page + 16, (u32)BOOT_CMDLINE_GPA);
	st_le32(page + 20, (u32)cfg->module_count);
	st_le32(page + 24, (u32)(BOOT_PARAMS_GPA + MBI_MODS_OFF));
	st_le32(page + 44, (u32)(n * 24));
	st_le32(page + 48, (u32)(BOOT_PARAMS_GPA + MBI_MMAP_OFF));
	st_le32(page + 64, (u32)(BOOT_PARAMS_GPA + MBI_LOADER_OFF));
	memcpy(page + MBI_LOADER_OFF, "skerry", 7);
	memcpy(page + MBI_NAME_OFF, "module", 7);
	for (size_t i = 0; i < n; i++) {
		u8 *e = page + MBI_MMAP_OFF + i * 24;

		st_le32(e, 20);
		st_le64(e + 4, map[i].base);
		st_le64(e + 12, map[i].size);
		st_le32(e + 20, map[i].type);
	}
}

/* Handlers in segment 0xf000: IRET alone, and with an end of interrupt to the
 * first PIC or to both. */
static const u8 handlers[] = {
	0xcf,					  /* 0: iret */
	0x50, 0xb0, 0x20, 0xe6, 0x20, 0x58, 0xcf, /* 1: push ax … */
	0x50, 0xb0, 0x20, 0xe6, 0xa0, 0xe6, 0x20, 0x58, 0xcf, /* 8 */
};

static int write_vectors(const struct boot_config *cfg)
{
	u8 ivt[256 * 4];

	for (unsigned i = 0; i < 256; i++) {
		unsigned off = BOOT_HANDLERS_GPA & 0xffff;

		if (i - BOOT_PIC_BASE_0 < 8)
			off += 1;
		else if (i - BOOT_PIC_BASE_1 < 8)
			off += 8;
		st_le32(ivt + i * 4, 0xf0000000u | off);
	}
	if (mem_write(cfg->mem, 0, ivt, sizeof(ivt)) < 0)
		return -ENOMEM;
	return mem_write(cfg->mem, BOOT_HANDLERS_GPA, handlers,
			 sizeof(handlers));
}

int boot_load_multiboot(const struct boot_config *cfg,
			const struct boot_kernel *k, struct boot_entry *out,
			struct err *err)
{
	u8 page[PAGE_BYTES] = {0};
	u64 entry;
	gpa_t top;
	size_t off = 0;
	u32 flags;
	u8 byte;
	int rc;

	if (!boot_is_multiboot(k, &off))
		return err_set(err, -ENOEXEC, "no multiboot header");
	flags = ld_le32(k->bytes + off + 4);
	if (flags & 0xffff & ~MB_KNOWN_FLAGS)
		return err_set(err, -ENOTSUP,
			       "the multiboot kernel requires %s",
			       flags & MB_NEED_VIDEO ? "a video mode"
						     : "unknown features");
	if (flags & MB_AOUT_KLUDGE)
		rc = load_flat(cfg, k, off, &entry, &top, err);
	else if (boot_is_elf(k))
		rc = boot_load_elf(cfg, k, BOOT_IMAGE_LOW_GPA, &entry, &top,
				   err);
	else
		rc = err_set(err, -ENOEXEC,
			     "the multiboot image is not an ELF file");
	if (rc < 0)
		return rc;
	top = MAX(top, BOOT_HIGH_GPA); /* modules go above 1 MiB */
	if (entry < BOOT_IMAGE_LOW_GPA ||
	    mem_read(cfg->mem, entry, &byte, 1) < 0)
		return err_set(err, -ENOEXEC,
			       "the entry point lies outside memory");
	rc = boot_write_cmdline(cfg, cfg->kernel_name ? cfg->kernel_name : "",
				BOOT_CMDLINE_MAX - 1, err);
	if (rc == 0)
		rc = load_modules(cfg, ALIGN_UP(top, PAGE_BYTES), page, err);
	if (rc < 0)
		return rc;
	info_fill(cfg, page);
	if (mem_write(cfg->mem, BOOT_PARAMS_GPA, page, sizeof(page)) < 0)
		return err_set(err, -ENOMEM, "no memory for the boot info");
	if (write_vectors(cfg) < 0)
		return err_set(err, -ENOMEM, "no memory for the vectors");
	out->mode = BOOT_MODE_PROTECTED;
	out->wants_bios = true;
	out->rip = entry;
	out->rax = MB_LOADER_MAGIC;
	out->rbx = BOOT_PARAMS_GPA;
	return 0;
}
