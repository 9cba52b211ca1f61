/* SPDX-License-Identifier: Apache-2.0 */
/* ELF kernels: segments at their physical addresses, the PVH note and start
 * info. Source: ELF gABI; Xen public/elfnote.h,
 * public/arch-x86/hvm/start_info.h (the "Xen x86/HVM direct boot ABI"). */
#include "boot/boot_int.h"

#include <elf.h>
#include <errno.h>

#define XEN_ELFNOTE_PHYS32_ENTRY 18
#define HVM_START_MAGIC		 0x336ec578u
#define PHDRS_MAX		 64

struct segment { /* one program header, either word size */
	u32 type;
	u64 offset, paddr, vaddr, filesz, memsz, align;
};

bool boot_is_elf(const struct boot_kernel *k)
{
	return k->size >= sizeof(Elf32_Ehdr) &&
	       memcmp(k->bytes, ELFMAG, SELFMAG) == 0 &&
	       k->bytes[EI_DATA] == ELFDATA2LSB &&
	       (k->bytes[EI_CLASS] == ELFCLASS32 ||
		(k->bytes[EI_CLASS] == ELFCLASS64 &&
		 k->size >= sizeof(Elf64_Ehdr)));
}

static bool is_64(const struct boot_kernel *k)
{
	return k->bytes[EI_CLASS] == ELFCLASS64;
}

/* Program header n; false when there is none or it lies outside the file. */
static bool segment_get(const struct boot_kernel *k, size_t n,
			struct segment *out)
{
	if (n >= PHDRS_MAX)
		return false;
	if (is_64(k)) {
		Elf64_Ehdr e;
		Elf64_Phdr p;

		memcpy(&e, k->bytes, sizeof(e));
		if (n >= e.e_phnum || e.e_phentsize < sizeof(p) ||
		    !boot_in_file(k, e.e_phoff, (n + 1) * e.e_phentsize))
			return false;
		memcpy(&p, k->bytes + e.e_phoff + n * e.e_phentsize, sizeof(p));
		*out = (struct segment){p.p_type,  p.p_offset, p.p_paddr,
					p.p_vaddr, p.p_filesz, p.p_memsz,
					p.p_align};
	} else {
		Elf32_Ehdr e;
		Elf32_Phdr p;

		memcpy(&e, k->bytes, sizeof(e));
		if (n >= e.e_phnum || e.e_phentsize < sizeof(p) ||
		    !boot_in_file(k, e.e_phoff, (n + 1) * e.e_phentsize))
			return false;
		memcpy(&p, k->bytes + e.e_phoff + n * e.e_phentsize, sizeof(p));
		*out = (struct segment){p.p_type,  p.p_offset, p.p_paddr,
					p.p_vaddr, p.p_filesz, p.p_memsz,
					p.p_align};
	}
	return true;
}

static int segment_load(const struct boot_config *cfg,
			const struct boot_kernel *k, const struct segment *s,
			gpa_t floor, struct err *err)
{
	static const u8 zeroes[PAGE_BYTES];
	int rc;

	if (!boot_in_file(k, s->offset, s->filesz) || s->filesz > s->memsz)
		return err_set(err, -ENOEXEC,
			       "truncated or damaged ELF: a segment lies "
			       "outside the file");
	rc = boot_copy(cfg, floor, s->paddr, k->bytes + s->offset, s->filesz,
		       "the kernel", err);
	for (u64 done = s->filesz; rc == 0 && done < s->memsz;) {
		u64 n = MIN(s->memsz - done, (u64)sizeof(zeroes));

		rc = boot_copy(cfg, floor, s->paddr + done, zeroes, n,
			       "the kernel", err);
		done += n;
	}
	return rc;
}

int boot_load_elf(const struct boot_config *cfg, const struct boot_kernel *k,
		  gpa_t floor, u64 *out_entry, gpa_t *out_top, struct err *err)
{
	struct segment s, other;
	gpa_t top = 0;
	size_t loaded = 0;

	for (size_t i = 0; segment_get(k, i, &s); i++) {
		u64 end;
		int rc;

		if (s.type != PT_LOAD || s.memsz == 0)
			continue;
		if (__builtin_add_overflow(s.paddr, s.memsz, &end))
			return err_set(err, -ENOEXEC,
				       "an ELF segment wraps around");
		for (size_t j = 0; j < i && segment_get(k, j, &other); j++)
			if (other.type == PT_LOAD && other.memsz &&
			    s.paddr < other.paddr + other.memsz &&
			    other.paddr < end)
				return err_set(err, -ENOEXEC,
					       "ELF segments overlap");
		rc = segment_load(cfg, k, &s, floor, err);
		if (rc < 0)
			return rc;
		top = MAX(top, end);
		loaded++;
	}
	if (loaded == 0)
		return err_set(err, -ENOEXEC, "the ELF file loads nothing");
	*out_entry = is_64(k) ? ((const Elf64_Ehdr *)k->bytes)->e_entry
			      : ((const Elf32_Ehdr *)k->bytes)->e_entry;
	*out_top = top;
	return 0;
}

/* Walks the notes of one PT_NOTE segment. */
static bool note_find(const struct boot_kernel *k, const struct segment *s,
		      u64 *out_entry)
{
	u64 align = s->align == 8 ? 8 : 4;
	u64 off = s->offset, end = s->offset + s->filesz;

	while (off + 12 <= end) {
		u64 namesz = ld_le32(k->bytes + off);
		u64 descsz = ld_le32(k->bytes + off + 4);
		u32 type = ld_le32(k->bytes + off + 8);
		u64 name = off + 12;
		u64 desc = name + ALIGN_UP(namesz, align);

		if (desc > end || descsz > end - desc)
			return false;
		if (type == XEN_ELFNOTE_PHYS32_ENTRY && namesz == 4 &&
		    memcmp(k->bytes + name, "Xen", 4) == 0 && descsz >= 4) {
			*out_entry = ld_le32(k->bytes + desc);
			return true;
		}
		off = desc + ALIGN_UP(descsz, align);
	}
	return false;
}

int boot_elf_pvh_entry(const struct boot_kernel *k, u64 *out_entry)
{
	struct segment s;

	for (size_t i = 0; segment_get(k, i, &s); i++)
		if (s.type == PT_NOTE && boot_in_file(k, s.offset, s.filesz) &&
		    note_find(k, &s, out_entry))
			return 0;
	return -ENOENT;
}

/* struct hvm_start_info, version 1: header 56 bytes, then one module entry of
 * 32 bytes, then the memory map with 24 bytes an entry. */
static int start_info_write(const struct boot_config *cfg, gpa_t initrd,
			    u64 initrd_size)
{
	struct boot_e820 map[BOOT_E820_MAX];
	size_t n = boot_e820_build(cfg, map);
	u8 page[PAGE_BYTES] = {0};
	const u64 module_off = 64, map_off = 128;

	st_le32(page, HVM_START_MAGIC);
	st_le32(page + 4, 1);
	st_le32(page + 12, initrd_size != 0);
	if (initrd_size) {
		st_le64(page + 16, BOOT_PARAMS_GPA + module_off);
		st_le64(page + module_off, initrd);
		st_le64(page + module_off + 8, initrd_size);
	}
	st_le64(page + 24, BOOT_CMDLINE_GPA);
	st_le64(page + 32, cfg->rsdp_gpa);
	st_le64(page + 40, BOOT_PARAMS_GPA + map_off);
	st_le32(page + 48, (u32)n);
	for (size_t i = 0; i < n; i++) {
		u8 *e = page + map_off + i * 24;

		st_le64(e, map[i].base);
		st_le64(e + 8, map[i].size);
		st_le32(e + 16, map[i].type);
	}
	return mem_write(cfg->mem, BOOT_PARAMS_GPA, page, sizeof(page));
}

int boot_load_pvh(const struct boot_config *cfg, const struct boot_kernel *k,
		  struct boot_entry *out, struct err *err)
{
	u64 ignored, entry, size = 0;
	gpa_t top, initrd = 0;
	u8 byte;
	int rc = boot_load_elf(cfg, k, BOOT_HIGH_GPA, &ignored, &top, err);

	if (rc < 0)
		return rc;
	if (boot_elf_pvh_entry(k, &entry) < 0 || entry < BOOT_HIGH_GPA ||
	    mem_read(cfg->mem, entry, &byte, 1) < 0)
		return err_set(err, -ENOEXEC,
			       "the PVH entry point lies outside memory");
	if (cfg->module_count > 1)
		return err_set(err, -EINVAL,
			       "a Linux kernel takes one initrd, not %zu",
			       cfg->module_count);
	if (cfg->module_count) {
		rc = boot_load_module(cfg, 0, top, cfg->low_ram_top, &initrd,
				      &size, err);
		if (rc < 0)
			return rc;
	}
	rc = boot_write_cmdline(cfg, "", BOOT_CMDLINE_MAX - 1, err);
	if (rc < 0)
		return rc;
	if (start_info_write(cfg, initrd, size) < 0)
		return err_set(err, -ENOMEM, "no memory for the start info");
	out->mode = BOOT_MODE_PROTECTED;
	out->rip = entry;
	out->rbx = BOOT_PARAMS_GPA;
	return 0;
}
