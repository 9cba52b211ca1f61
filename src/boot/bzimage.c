/* SPDX-License-Identifier: Apache-2.0 */
/* FORMAT: Linux/x86 boot protocol, Documentation/arch/x86/boot.rst, §"The
 * Real-Mode Kernel Header", §"64-bit Boot Protocol". The file is a boot sector
 * and setup code (setup_sects sectors, never run here) followed by the
 * protected-mode kernel. The setup header at 0x1f1 is copied into the zero
 * page; the 64-bit entry point is 0x200 behind the load address.
 */
#include "boot/boot_int.h"

#include <errno.h>

#define HDR_SETUP_SECTS	     0x1f1
#define HDR_BOOT_FLAG	     0x1fe
#define HDR_JUMP	     0x200
#define HDR_MAGIC	     0x202
#define HDR_VERSION	     0x206
#define HDR_TYPE_OF_LOADER   0x210
#define HDR_LOADFLAGS	     0x211
#define HDR_CODE32_START     0x214
#define HDR_RAMDISK_IMAGE    0x218
#define HDR_RAMDISK_SIZE     0x21c
#define HDR_HEAP_END_PTR     0x224
#define HDR_CMD_LINE_PTR     0x228
#define HDR_INITRD_ADDR_MAX  0x22c
#define HDR_KERNEL_ALIGNMENT 0x230
#define HDR_RELOCATABLE	     0x234
#define HDR_XLOADFLAGS	     0x236
#define HDR_CMDLINE_SIZE     0x238
#define HDR_PREF_ADDRESS     0x258
#define HDR_INIT_SIZE	     0x260
#define HDR_END_MAX	     0x290

#define ZP_ACPI_RSDP_ADDR 0x070
#define ZP_E820_ENTRIES	  0x1e8
#define ZP_E820_TABLE	  0x2d0

#define LOADFLAGS_LOADED_HIGH  0x01
#define LOADFLAGS_CAN_USE_HEAP 0x80
#define XLF_KERNEL_64	       0x01
#define LOADER_UNDEFINED       0xff
#define ENTRY_64_OFFSET	       0x200
#define VERSION_MIN	       0x020c

bool boot_is_bzimage(const struct boot_kernel *k)
{
	return k->size >= HDR_MAGIC + 4 &&
	       ld_le16(k->bytes + HDR_BOOT_FLAG) == 0xaa55 &&
	       memcmp(k->bytes + HDR_MAGIC, "HdrS", 4) == 0;
}

static int header_check(const struct boot_kernel *k, u64 *out_setup_bytes,
			struct err *err)
{
	const u8 *h = k->bytes;
	u64 sects;

	if (k->size < HDR_END_MAX)
		return err_set(err, -ENOEXEC, "truncated bzImage");
	if (ld_le16(h + HDR_VERSION) < VERSION_MIN)
		return err_set(err, -ENOEXEC,
			       "bzImage of boot protocol %u.%02u; 2.12 or "
			       "later is needed",
			       h[HDR_VERSION + 1], h[HDR_VERSION]);
	if (!(ld_le16(h + HDR_XLOADFLAGS) & XLF_KERNEL_64))
		return err_set(err, -ENOEXEC,
			       "the bzImage has no 64-bit entry point (a "
			       "32-bit kernel?)");
	if (!(h[HDR_LOADFLAGS] & LOADFLAGS_LOADED_HIGH))
		return err_set(err, -ENOEXEC, "zImage kernels cannot boot");
	sects = h[HDR_SETUP_SECTS] ? h[HDR_SETUP_SECTS] : 4;
	*out_setup_bytes = (sects + 1) * 512;
	if (k->size <= *out_setup_bytes + ENTRY_64_OFFSET)
		return err_set(err, -ENOEXEC, "truncated bzImage");
	/* syssize, in paragraphs, tells what the file should hold. */
	if ((u64)ld_le32(h + 0x1f4) * 16 > k->size - *out_setup_bytes + 15)
		return err_set(
			err, -ENOEXEC, "truncated bzImage: %llu bytes of %llu",
			(unsigned long long)k->size,
			(unsigned long long)(*out_setup_bytes +
					     (u64)ld_le32(h + 0x1f4) * 16));
	return 0;
}

/* Where the kernel goes, with init_size bytes of room behind it. */
static int place_kernel(const struct boot_config *cfg,
			const struct boot_kernel *k, u64 code_bytes,
			gpa_t *out_gpa, gpa_t *out_end, struct err *err)
{
	const u8 *h = k->bytes;
	gpa_t gpa = ld_le64(h + HDR_PREF_ADDRESS);
	u64 need = MAX((u64)ld_le32(h + HDR_INIT_SIZE), code_bytes);
	u64 align = ld_le32(h + HDR_KERNEL_ALIGNMENT);
	gpa_t end;

	if (align == 0 || (align & (align - 1)) || align > GIB)
		return err_set(err, -ENOEXEC,
			       "the bzImage asks for a bad alignment");
	if (gpa < BOOT_HIGH_GPA || __builtin_add_overflow(gpa, need, &end) ||
	    end > cfg->low_ram_top) {
		gpa = ALIGN_UP((u64)BOOT_HIGH_GPA, align);
		end = gpa + need;
		if (!h[HDR_RELOCATABLE] || end > cfg->low_ram_top)
			return err_set(err, -ENOMEM,
				       "the kernel needs %llu MiB of memory; "
				       "give the machine more memory",
				       (unsigned long long)(end / MIB + 1));
	}
	*out_gpa = gpa;
	*out_end = end;
	return 0;
}

static void zero_page_e820(const struct boot_config *cfg, u8 *zp)
{
	struct boot_e820 map[BOOT_E820_MAX];
	size_t n = boot_e820_build(cfg, map);

	zp[ZP_E820_ENTRIES] = (u8)n;
	for (size_t i = 0; i < n; i++) {
		u8 *e = zp + ZP_E820_TABLE + i * 20;

		st_le64(e, map[i].base);
		st_le64(e + 8, map[i].size);
		st_le32(e + 16, map[i].type);
	}
}

static void zero_page_header(const struct boot_kernel *k, u8 *zp)
{
	/* The header ends where the jump at 0x200 goes. */
	u64 end = HDR_MAGIC + (u64)k->bytes[HDR_JUMP + 1];

	end = MIN(MAX(end, (u64)HDR_INIT_SIZE + 4), (u64)HDR_END_MAX);
	memcpy(zp + HDR_SETUP_SECTS, k->bytes + HDR_SETUP_SECTS,
	       end - HDR_SETUP_SECTS);
	zp[HDR_TYPE_OF_LOADER] = LOADER_UNDEFINED;
	zp[HDR_LOADFLAGS] |= LOADFLAGS_CAN_USE_HEAP;
	st_le16(zp + HDR_HEAP_END_PTR, 0xfe00);
	st_le32(zp + HDR_CMD_LINE_PTR, (u32)BOOT_CMDLINE_GPA);
}

static int load_initrd(const struct boot_config *cfg,
		       const struct boot_kernel *k, gpa_t kernel_end, u8 *zp,
		       struct err *err)
{
	gpa_t gpa;
	u64 size;
	u64 limit = (u64)ld_le32(k->bytes + HDR_INITRD_ADDR_MAX) + 1;
	int rc;

	if (cfg->module_count == 0)
		return 0;
	if (cfg->module_count > 1)
		return err_set(err, -EINVAL,
			       "a Linux kernel takes one initrd, not %zu",
			       cfg->module_count);
	rc = boot_load_module(cfg, 0, kernel_end, limit, &gpa, &size, err);
	if (rc < 0)
		return rc;
	st_le32(zp + HDR_RAMDISK_IMAGE, (u32)gpa);
	st_le32(zp + HDR_RAMDISK_SIZE, (u32)size);
	return 0;
}

int boot_load_bzimage(const struct boot_config *cfg,
		      const struct boot_kernel *k, struct boot_entry *out,
		      struct err *err)
{
	u8 zp[PAGE_BYTES] = {0};
	u64 setup_bytes, code_bytes;
	gpa_t gpa, end;
	u32 cmdline_max;
	int rc = header_check(k, &setup_bytes, err);

	if (rc < 0)
		return rc;
	code_bytes = k->size - setup_bytes;
	rc = place_kernel(cfg, k, code_bytes, &gpa, &end, err);
	if (rc < 0)
		return rc;
	rc = boot_copy(cfg, BOOT_HIGH_GPA, gpa, k->bytes + setup_bytes,
		       code_bytes, "the kernel", err);
	if (rc < 0)
		return rc;
	cmdline_max = ld_le32(k->bytes + HDR_CMDLINE_SIZE);
	rc = boot_write_cmdline(cfg, "", cmdline_max ? cmdline_max : 255, err);
	if (rc < 0)
		return rc;
	zero_page_header(k, zp);
	st_le32(zp + HDR_CODE32_START, (u32)gpa);
	st_le64(zp + ZP_ACPI_RSDP_ADDR, cfg->rsdp_gpa);
	zero_page_e820(cfg, zp);
	rc = load_initrd(cfg, k, end, zp, err);
	if (rc < 0)
		return rc;
	if (mem_write(cfg->mem, BOOT_PARAMS_GPA, zp, sizeof(zp)) < 0)
		return err_set(err, -ENOMEM, "no memory for boot_params");
	out->mode = BOOT_MODE_LONG;
	out->rip = gpa + ENTRY_64_OFFSET;
	out->rsi = BOOT_PARAMS_GPA;
	out->cr3 = boot_write_pagetables(cfg);
	return 0;
}
