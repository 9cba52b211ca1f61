/* SPDX-License-Identifier: Apache-2.0 */
#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/err.h"
#include "boot/acpi.h"
#include "boot/boot.h"
#include "boot/smbios.h"
#include "test/test.h"

#define RAM_BYTES (64 * MIB)

struct fixture {
	struct mem *mem;
	u8 *ram;
	u8 file[64 * 1024];
	size_t len;
	struct boot_config cfg;
	struct boot_entry entry;
	struct err err;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct mem_slot slot = {.size = RAM_BYTES};

	f->ram = mmap(NULL, RAM_BYTES, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	slot.hva = f->ram;
	f->mem = mem_new();
	assert_int_equal(mem_slot_add(f->mem, &slot, NULL), 0);
	f->cfg = (struct boot_config){
		.mem = f->mem,
		.kernel_fd = -1,
		.cmdline = "console=ttyS0",
		.low_ram_top = RAM_BYTES,
		.rsdp_gpa = BOOT_TABLES_GPA,
	};
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	mem_free(f->mem);
	munmap(f->ram, RAM_BYTES);
	free(f);
	return 0;
}

static int fd_of(const void *bytes, size_t len)
{
	int fd = memfd_create("kernel", 0);

	assert_int_equal(write(fd, bytes, len), (ssize_t)len);
	return fd;
}

static int load(struct fixture *f)
{
	int rc;

	f->cfg.kernel_fd = fd_of(f->file, f->len);
	memset(&f->err, 0, sizeof(f->err));
	rc = boot_load(&f->cfg, &f->entry, &f->err);
	close(f->cfg.kernel_fd);
	return rc;
}

/* A bzImage with four setup sectors and 8 KiB of code. */
static void make_bzimage(struct fixture *f)
{
	u8 *h = f->file;

	memset(f->file, 0, sizeof(f->file));
	f->len = 5 * 512 + 8192;
	h[0x1f1] = 4;
	st_le32(h + 0x1f4, 8192 / 16);
	st_le16(h + 0x1fe, 0xaa55);
	h[0x200] = 0xeb;
	h[0x201] = 0x66;
	memcpy(h + 0x202, "HdrS", 4);
	st_le16(h + 0x206, 0x20f);
	h[0x211] = 1;
	st_le32(h + 0x22c, 0x7fffffff);
	st_le32(h + 0x230, 0x200000);
	h[0x234] = 1;
	st_le16(h + 0x236, 1);
	st_le32(h + 0x238, 2047);
	st_le64(h + 0x258, 0x1000000);
	st_le32(h + 0x260, 0x100000);
	memset(h + 5 * 512, 0x90, 8192);
}

static void
bzimage_starts_in_long_mode_behind_its_preferred_address(void **state)
{
	struct fixture *f = *state;

	make_bzimage(f);
	assert_int_equal(load(f), 0);
	assert_int_equal(f->entry.mode, BOOT_MODE_LONG);
	assert_int_equal(f->entry.rip, 0x1000200);
	assert_int_equal(f->entry.rsi, BOOT_PARAMS_GPA);
	assert_int_equal(f->ram[0x1000000], 0x90);
	assert_string_equal((char *)f->ram + BOOT_CMDLINE_GPA, "console=ttyS0");
	assert_int_equal(ld_le64(f->ram + BOOT_PARAMS_GPA + 0x70),
			 BOOT_TABLES_GPA);
	/* PML4 -> PDPT -> PD maps 2 MiB pages one to one. */
	assert_int_equal(ld_le64(f->ram + f->entry.cr3 + 0x2000 + 8 * 5),
			 (5ull << 21) | 0x83);
}

static void every_truncation_of_a_bzimage_is_refused(void **state)
{
	struct fixture *f = *state;
	size_t whole;

	make_bzimage(f);
	whole = f->len;
	for (size_t len = 1; len < whole; len += len < 1024 ? 7 : 100) {
		f->len = len;
		assert_true(load(f) < 0);
		assert_true(f->err.text[0]);
	}
}

static void a_bzimage_that_does_not_fit_is_refused_with_the_size(void **state)
{
	struct fixture *f = *state;

	make_bzimage(f);
	st_le32(f->file + 0x260, 0x40000000);
	assert_int_equal(load(f), -ENOMEM);
	assert_non_null(strstr(f->err.text, "more memory"));
}

static void initrd_lies_page_aligned_at_the_top_of_ram(void **state)
{
	struct fixture *f = *state;
	u8 bytes[5000];
	int fd;
	u32 at;

	memset(bytes, 0x5a, sizeof(bytes));
	make_bzimage(f);
	fd = fd_of(bytes, sizeof(bytes));
	f->cfg.module_fds = &fd;
	f->cfg.module_count = 1;
	assert_int_equal(load(f), 0);
	at = ld_le32(f->ram + BOOT_PARAMS_GPA + 0x218);
	assert_int_equal(at, RAM_BYTES - 8192);
	assert_int_equal(ld_le32(f->ram + BOOT_PARAMS_GPA + 0x21c), 5000);
	assert_int_equal(f->ram[at + 4999], 0x5a);
	close(fd);
}

static void an_initrd_larger_than_ram_is_refused(void **state)
{
	struct fixture *f = *state;
	int fd = memfd_create("initrd", 0);

	assert_int_equal(ftruncate(fd, RAM_BYTES), 0);
	make_bzimage(f);
	f->cfg.module_fds = &fd;
	f->cfg.module_count = 1;
	assert_int_equal(load(f), -ENOMEM);
	close(fd);
}

static void an_overlong_command_line_is_refused(void **state)
{
	struct fixture *f = *state;
	char text[4000];

	memset(text, 'a', sizeof(text));
	text[sizeof(text) - 1] = '\0';
	make_bzimage(f);
	f->cfg.cmdline = text;
	assert_int_equal(load(f), -E2BIG);
}

/* A 32-bit ELF with one segment of 4 KiB at paddr. */
static void make_elf(struct fixture *f, u32 paddr, u32 memsz)
{
	Elf32_Ehdr e = {
		.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS32, ELFDATA2LSB, 1},
		.e_entry = paddr + 16,
		.e_phoff = sizeof(e),
		.e_phentsize = sizeof(Elf32_Phdr),
		.e_phnum = 2,
	};
	Elf32_Phdr p[2] = {
		{.p_type = PT_LOAD,
		 .p_offset = 4096,
		 .p_paddr = paddr,
		 .p_filesz = 4096,
		 .p_memsz = memsz},
		{.p_type = PT_NULL},
	};

	memset(f->file, 0, sizeof(f->file));
	memcpy(f->file, &e, sizeof(e));
	memcpy(f->file + sizeof(e), p, sizeof(p));
	memset(f->file + 4096, 0xcc, 4096);
	f->len = 8192;
}

static void make_multiboot(struct fixture *f, u32 paddr, u32 memsz)
{
	make_elf(f, paddr, memsz);
	st_le32(f->file + 4096, 0x1badb002);
	st_le32(f->file + 4100, 3);
	st_le32(f->file + 4104, -(0x1badb002u + 3));
}

static void multiboot_kernel_gets_its_information(void **state)
{
	struct fixture *f = *state;
	const u8 *mbi;

	make_multiboot(f, 0x100000, 8192);
	f->cfg.kernel_name = "test.flat";
	memset(f->ram + 0x101000, 0xff, 4096);
	assert_int_equal(load(f), 0);
	assert_int_equal(f->entry.mode, BOOT_MODE_PROTECTED);
	assert_int_equal(f->entry.rax, 0x2badb002);
	assert_int_equal(f->entry.rip, 0x100010);
	mbi = f->ram + f->entry.rbx;
	assert_string_equal((char *)f->ram + ld_le32(mbi + 16),
			    "test.flat console=ttyS0");
	assert_int_equal(ld_le32(mbi + 8), (RAM_BYTES - MIB) / KIB);
	assert_int_equal(f->ram[0x101000], 0); /* bss is cleared */
}

static void segments_outside_ram_or_below_1_mib_are_refused(void **state)
{
	static const u32 bad[][2] = {
		{0x1000, 4096},	   {0xfffff000, 4096},	{0xfffff000, 8192},
		{0x100000, 100},   {0x3fff000, 0x2000}, {0x100000, 0xfffffff0},
		{0x7000, 4096},	   /* the mbi */
		{0x1f000, 0x2000}, /* the command line */
		{0x9f000, 4096},   {0xff000, 0x2000},
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		make_multiboot(f, bad[i][0], bad[i][1]);
		assert_true(load(f) < 0);
	}
}

static void multiboot_kernel_finds_vectors_that_end_interrupts(void **state)
{
	struct fixture *f = *state;
	const u8 *h;

	make_multiboot(f, 0x100000, 8192);
	assert_int_equal(load(f), 0);
	assert_true(f->entry.wants_bios);
	h = f->ram + 0xf0000 + ld_le16(f->ram + 8 * 4);
	assert_int_equal(ld_le16(f->ram + 8 * 4 + 2), 0xf000);
	assert_memory_equal(h, "\x50\xb0\x20\xe6\x20\x58\xcf", 7);
	h = f->ram + 0xf0000 + ld_le16(f->ram + 0x77 * 4);
	assert_memory_equal(h, "\x50\xb0\x20\xe6\xa0\xe6\x20\x58\xcf", 9);
	h = f->ram + 0xf0000 + ld_le16(f->ram + 0x21 * 4);
	assert_int_equal(*h, 0xcf);
}

static void multiboot_kernel_may_lie_between_mbi_and_command_line(void **state)
{
	struct fixture *f = *state;

	make_multiboot(f, 0x8000, 0x18000);
	assert_int_equal(load(f), 0);
	assert_int_equal(f->entry.rip, 0x8010);
	assert_int_equal(f->entry.rbx, BOOT_PARAMS_GPA);
	assert_memory_equal(f->ram + 0x8000, f->file + 4096, 4096);
	make_elf(f, 0x8000, 0x1000); /* no multiboot: page tables are there */
	assert_true(load(f) < 0);
}

static void overlapping_segments_are_refused(void **state)
{
	struct fixture *f = *state;
	Elf32_Phdr *p = (void *)(f->file + sizeof(Elf32_Ehdr));

	make_multiboot(f, 0x100000, 8192);
	p[1] = p[0];
	p[1].p_paddr += 4096;
	assert_int_equal(load(f), -ENOEXEC);
	assert_non_null(strstr(f->err.text, "overlap"));
}

static void elf_without_note_or_header_is_refused(void **state)
{
	struct fixture *f = *state;

	make_elf(f, 0x100000, 4096);
	assert_int_equal(load(f), -ENOEXEC);
}

static void pvh_note_gives_the_entry_point(void **state)
{
	struct fixture *f = *state;
	Elf32_Phdr *p = (void *)(f->file + sizeof(Elf32_Ehdr));
	const u8 *info;

	make_elf(f, 0x200000, 4096);
	p[1] = (Elf32_Phdr){.p_type = PT_NOTE,
			    .p_offset = 2048,
			    .p_filesz = 20,
			    .p_align = 4};
	st_le32(f->file + 2048, 4);
	st_le32(f->file + 2052, 4);
	st_le32(f->file + 2056, 18);
	memcpy(f->file + 2060, "Xen", 4);
	st_le32(f->file + 2064, 0x200040);
	assert_int_equal(load(f), 0);
	assert_int_equal(f->entry.rip, 0x200040);
	info = f->ram + f->entry.rbx;
	assert_int_equal(ld_le32(info), 0x336ec578);
	assert_int_equal(ld_le64(info + 32), BOOT_TABLES_GPA);
}

static void things_that_are_no_kernels_are_refused(void **state)
{
	struct fixture *f = *state;
	int fds[2];

	memset(f->file, 'x', 4096);
	f->len = 4096;
	assert_int_equal(load(f), -ENOEXEC);
	assert_int_equal(pipe(fds), 0);
	f->cfg.kernel_fd = fds[0];
	assert_int_equal(boot_load(&f->cfg, &f->entry, &f->err), -EINVAL);
	close(fds[0]);
	close(fds[1]);
}

static void acpi_tables_have_right_checksums_and_lengths(void **state)
{
	struct fixture *f = *state;
	struct acpi_config cfg = {
		.mem = f->mem,
		.vcpu_count = 4,
		.lapic_gpa = 0xfee00000,
		.ioapic_gpa = 0xfec00000,
		.ecam_gpa = 0xb0000000,
		.mmio32_base = 0xc0000000,
		.mmio32_size = 0x3e000000,
		.mmio64_base = 0x4000000000,
		.mmio64_size = 0x1000000000,
		.pio_base = 0xc000,
		.pio_size = 0x1000,
		.pm1a_event_port = 0x600,
		.sci_gsi = 9,
		.uart_port = 0x3f8,
		.uart_irq = 4,
	};
	gpa_t rsdp, xsdt;
	u32 n;

	assert_int_equal(acpi_build(&cfg, &rsdp, NULL), 0);
	assert_memory_equal(f->ram + rsdp, "RSD PTR ", 8);
	xsdt = ld_le64(f->ram + rsdp + 24);
	n = (ld_le32(f->ram + xsdt + 4) - 36) / 8;
	assert_int_equal(n, 4);
	for (u32 i = 0; i < n; i++) {
		gpa_t t = ld_le64(f->ram + xsdt + 36 + 8 * i);
		u32 len = ld_le32(f->ram + t + 4);
		u8 sum = 0;

		for (u32 j = 0; j < len; j++)
			sum += f->ram[t + j];
		assert_int_equal(sum, 0);
		if (memcmp(f->ram + t, "FACP", 4) == 0)
			assert_int_equal(len, 276);
	}
}

/* Walks the records by their lengths and strings, as a guest does. */
static void smbios_records_chain_to_the_end(void **state)
{
	struct fixture *f = *state;
	struct smbios_config cfg = {.mem = f->mem, .name = "m1"};
	u8 types[8], sum = 0, *e = f->ram + BOOT_SMBIOS_GPA, *p, *end;
	size_t n = 0;

	memcpy(cfg.uuid, "0123456789abcdef", 16);
	assert_int_equal(smbios_build(&cfg, NULL), 0);
	assert_memory_equal(e, "_SM3_", 5);
	for (u32 i = 0; i < e[6]; i++)
		sum += e[i];
	assert_int_equal(sum, 0);
	p = f->ram + ld_le64(e + 16);
	end = p + ld_le32(e + 12);
	while (p < end && n < ARRAY_SIZE(types)) {
		types[n++] = p[0];
		if (p[0] == 1) {
			assert_memory_equal(p + 8, "32107654", 4);
			assert_memory_equal(p + 16, "89abcdef", 8);
		}
		for (p += p[1]; p[0] || p[1]; p++)
			assert_true(p < end);
		p += 2;
	}
	assert_ptr_equal(p, end);
	assert_int_equal(n, 4);
	assert_memory_equal(types, "\0\1\3\177", 4);
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(bzimage_starts_in_long_mode_behind_its_preferred_address),
		T(every_truncation_of_a_bzimage_is_refused),
		T(a_bzimage_that_does_not_fit_is_refused_with_the_size),
		T(initrd_lies_page_aligned_at_the_top_of_ram),
		T(an_initrd_larger_than_ram_is_refused),
		T(an_overlong_command_line_is_refused),
		T(multiboot_kernel_gets_its_information),
		T(multiboot_kernel_finds_vectors_that_end_interrupts),
		T(multiboot_kernel_may_lie_between_mbi_and_command_line),
		T(segments_outside_ram_or_below_1_mib_are_refused),
		T(overlapping_segments_are_refused),
		T(elf_without_note_or_header_is_refused),
		T(pvh_note_gives_the_entry_point),
		T(things_that_are_no_kernels_are_refused),
		T(acpi_tables_have_right_checksums_and_lengths),
		T(smbios_records_chain_to_the_end),
	};

	return test_run("boot", tests);
}
