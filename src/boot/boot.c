/* SPDX-License-Identifier: Apache-2.0 */
#include "boot/boot_int.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/assert.h"

#define KERNEL_BYTES_MAX (1ull * GIB)

static int file_size(int fd, const char *what, u64 *out, struct err *err)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return err_sys(err, -errno, "read the %s", what);
	if (!S_ISREG(st.st_mode))
		return err_set(err, -EINVAL, "the %s is not a regular file",
			       what);
	if (st.st_size == 0)
		return err_set(err, -EINVAL, "the %s is empty", what);
	*out = (u64)st.st_size;
	return 0;
}

/* Reads exactly len bytes at offset 0. */
static int read_exact(int fd, u8 *dst, u64 len, const char *what,
		      struct err *err)
{
	for (u64 done = 0; done < len;) {
		ssize_t n = pread(fd, dst + done, len - done, (off_t)done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_sys(err, -errno, "read the %s", what);
		if (n == 0)
			return err_set(err, -EIO,
				       "the %s shrank while it was read", what);
		done += (u64)n;
	}
	return 0;
}

static int kernel_read(int fd, struct boot_kernel *out, struct err *err)
{
	u64 size;
	int rc = file_size(fd, "kernel", &size, err);

	if (rc < 0)
		return rc;
	if (size > KERNEL_BYTES_MAX)
		return err_set(err, -EFBIG, "the kernel is over 1 GiB");
	out->bytes = malloc(size);
	if (!out->bytes)
		return err_set(err, -ENOMEM, "no memory to read the kernel");
	out->size = size;
	rc = read_exact(fd, out->bytes, size, "kernel", err);
	if (rc < 0)
		free(out->bytes);
	return rc;
}

int boot_copy(const struct boot_config *cfg, gpa_t floor, gpa_t gpa,
	      const void *bytes, u64 len, const char *what, struct err *err)
{
	bool is_low = gpa >= floor && gpa < BOOT_IMAGE_LOW_END &&
		      len <= BOOT_IMAGE_LOW_END - gpa;

	if (len == 0)
		return 0;
	if (gpa < BOOT_HIGH_GPA && !is_low)
		return err_set(err, -EINVAL,
			       "%s would be loaded at 0x%llx, below 1 MiB",
			       what, (unsigned long long)gpa);
	if (mem_write(cfg->mem, gpa, bytes, len) < 0)
		return err_set(err, -ENOMEM,
			       "%s does not fit into memory: 0x%llx bytes at "
			       "0x%llx; give the machine more memory",
			       what, (unsigned long long)len,
			       (unsigned long long)gpa);
	return 0;
}

int boot_load_module(const struct boot_config *cfg, size_t n, gpa_t floor,
		     gpa_t limit, gpa_t *out_gpa, u64 *out_size,
		     struct err *err)
{
	u64 size;
	gpa_t gpa;
	void *hva;
	int rc = file_size(cfg->module_fds[n], "initrd", &size, err);

	if (rc < 0)
		return rc;
	limit = MIN(limit, cfg->low_ram_top);
	if (size > limit || ALIGN_DOWN(limit - size, PAGE_BYTES) < floor)
		return err_set(
			err, -ENOMEM,
			"an initrd of %llu MiB does not fit into memory; "
			"give the machine more memory",
			(unsigned long long)(size / MIB));
	gpa = ALIGN_DOWN(limit - size, PAGE_BYTES);
	hva = mem_hva(cfg->mem, gpa, size, true);
	if (!hva)
		return err_set(err, -ENOMEM, "no memory for the initrd");
	rc = read_exact(cfg->module_fds[n], hva, size, "initrd", err);
	if (rc < 0)
		return rc;
	mem_written(cfg->mem, gpa, size);
	*out_gpa = gpa;
	*out_size = size;
	return 0;
}

int boot_write_cmdline(const struct boot_config *cfg, const char *prefix,
		       size_t max, struct err *err)
{
	char text[BOOT_CMDLINE_MAX];
	int n = snprintf(text, sizeof(text), "%s%s%s", prefix,
			 *prefix && cfg->cmdline ? " " : "",
			 cfg->cmdline ? cfg->cmdline : "");

	max = MIN(max, sizeof(text) - 1);
	if (n < 0 || (size_t)n > max)
		return err_set(err, -E2BIG,
			       "the kernel command line is over %zu bytes",
			       max);
	if (mem_write(cfg->mem, BOOT_CMDLINE_GPA, text, (u64)n + 1) < 0)
		return err_set(err, -ENOMEM, "no memory for the command line");
	return 0;
}

/* Low memory below 1 MiB is RAM in every machine: the machine checks that. */
static void low_write(const struct boot_config *cfg, gpa_t gpa, const void *p,
		      u64 len)
{
	ASSERT(mem_write(cfg->mem, gpa, p, len) == 0);
}

void boot_write_gdt(const struct boot_config *cfg)
{
	static const u64 gdt[] = {
		0, 0x00cf9b000000ffffull, /* 32-bit code, flat */
		0x00af9b000000ffffull,	  /* 64-bit code */
		0x00cf93000000ffffull,	  /* data, flat */
	};

	low_write(cfg, BOOT_GDT_GPA, gdt, sizeof(gdt));
}

u64 boot_write_pagetables(const struct boot_config *cfg)
{
	u64 page[512];
	const u64 flags = 3; /* present, writable */
	gpa_t pdpt = BOOT_PAGETABLE_GPA + PAGE_BYTES;
	gpa_t pd = pdpt + PAGE_BYTES;

	memset(page, 0, sizeof(page));
	page[0] = pdpt | flags;
	low_write(cfg, BOOT_PAGETABLE_GPA, page, sizeof(page));
	memset(page, 0, sizeof(page));
	for (u64 i = 0; i < 4; i++)
		page[i] = (pd + i * PAGE_BYTES) | flags;
	low_write(cfg, pdpt, page, sizeof(page));
	for (u64 i = 0; i < 4; i++) {
		for (u64 j = 0; j < 512; j++)
			page[j] = (i << 30) | (j << 21) | 0x80 | flags;
		low_write(cfg, pd + i * PAGE_BYTES, page, sizeof(page));
	}
	return BOOT_PAGETABLE_GPA;
}

size_t boot_e820_build(const struct boot_config *cfg,
		       struct boot_e820 out[BOOT_E820_MAX])
{
	size_t n = 0;

	out[n++] = (struct boot_e820){0, BOOT_EBDA_GPA, BOOT_E820_RAM};
	out[n++] = (struct boot_e820){BOOT_EBDA_GPA, 0xa0000 - BOOT_EBDA_GPA,
				      BOOT_E820_RESERVED};
	out[n++] = (struct boot_e820){BOOT_TABLES_GPA, BOOT_TABLES_BYTES,
				      BOOT_E820_RESERVED};
	out[n++] = (struct boot_e820){
		BOOT_HIGH_GPA, cfg->low_ram_top - BOOT_HIGH_GPA, BOOT_E820_RAM};
	for (size_t i = 0; i < cfg->reserved_count; i++)
		out[n++] = cfg->reserved[i];
	if (cfg->high_ram_size)
		out[n++] = (struct boot_e820){
			cfg->high_ram_base, cfg->high_ram_size, BOOT_E820_RAM};
	return n;
}

static int kernel_load(const struct boot_config *cfg,
		       const struct boot_kernel *k, struct boot_entry *out,
		       struct err *err)
{
	u64 entry;
	size_t off;

	if (boot_is_bzimage(k))
		return boot_load_bzimage(cfg, k, out, err);
	if (boot_is_multiboot(k, &off))
		return boot_load_multiboot(cfg, k, out, err);
	if (boot_is_elf(k)) {
		if (boot_elf_pvh_entry(k, &entry) == 0)
			return boot_load_pvh(cfg, k, out, err);
		return err_set(err, -ENOEXEC,
			       "the ELF file has neither a PVH note nor a "
			       "multiboot header");
	}
	return err_set(err, -ENOEXEC,
		       "not a kernel that can be booted: neither a bzImage, "
		       "nor a PVH or multiboot image");
}

int boot_load(const struct boot_config *cfg, struct boot_entry *out,
	      struct err *err)
{
	struct boot_kernel k;
	struct boot_entry entry = {0};
	int rc;

	if (cfg->low_ram_top < 2 * MIB)
		return err_set(err, -EINVAL, "direct boot needs 2 MiB of RAM");
	rc = kernel_read(cfg->kernel_fd, &k, err);
	if (rc == 0) {
		boot_write_gdt(cfg);
		rc = kernel_load(cfg, &k, &entry, err);
		free(k.bytes);
	}
	if (rc < 0)
		err_wrap(err, "boot the kernel");
	else
		*out = entry;
	return rc;
}
