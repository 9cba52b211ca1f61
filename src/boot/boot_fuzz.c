/* SPDX-License-Identifier: Apache-2.0 */
/* Any file as a kernel: an error, or an entry point inside RAM, and nothing
 * written outside it (the RAM ends at a guard page). The first byte chooses a
 * valid start, so that the fuzzer need not find the magic numbers. */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/assert.h"
#include "boot/boot.h"

#define RAM_BYTES (4 * MIB)

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t len);

static void add_magic(u8 kind, u8 *file, size_t len)
{
	if (kind == 1 && len > 0x290) {
		st_le16(file + 0x1fe, 0xaa55);
		memcpy(file + 0x202, "HdrS", 4);
		st_le16(file + 0x206, 0x20f);
	} else if (kind == 2 && len > 64) {
		memcpy(file,
		       "\x7f"
		       "ELF\x01\x01",
		       6);
	} else if (kind == 3 && len > 64) {
		st_le32(file, 0x1badb002);
		st_le32(file + 8, -(0x1badb002u + ld_le32(file + 4)));
	}
}

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t len)
{
	u8 *ram = mmap(NULL, RAM_BYTES + PAGE_BYTES, PROT_NONE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct mem_slot slot = {.size = RAM_BYTES, .hva = ram};
	struct boot_config cfg = {.cmdline = "x", .low_ram_top = RAM_BYTES};
	struct boot_entry entry;
	u8 *file = malloc(len + 1);
	u8 byte;

	ASSERT(mprotect(ram, RAM_BYTES, PROT_READ | PROT_WRITE) == 0);
	memcpy(file, bytes, len);
	if (len)
		add_magic(bytes[len - 1] & 3, file, len);
	cfg.mem = mem_new();
	ASSERT(mem_slot_add(cfg.mem, &slot, NULL) == 0);
	cfg.kernel_fd = memfd_create("kernel", 0);
	ASSERT(write(cfg.kernel_fd, file, len) == (ssize_t)len);
	if (boot_load(&cfg, &entry, NULL) == 0)
		ASSERT(mem_read(cfg.mem, entry.rip, &byte, 1) == 0);
	close(cfg.kernel_fd);
	mem_free(cfg.mem);
	munmap(ram, RAM_BYTES + PAGE_BYTES);
	free(file);
	return 0;
}
