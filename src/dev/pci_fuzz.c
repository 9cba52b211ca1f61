/* SPDX-License-Identifier: Apache-2.0 */
/* A guest that writes anything anywhere in configuration space, type-1 ports
 * and BARs. Each step is 8 bytes: what, size, offset (2), value (4). */
#include "dev/pci_toy.h"

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t len);

#define STEPS_MAX 512

static void step(struct toy_machine *tm, struct toy *t, const u8 *p)
{
	unsigned size = 1u << (p[1] & 3);
	u32 off = ld_le16(p + 2), value = ld_le32(p + 4);
	u64 gpa;

	switch (p[0] & 7) {
	case 0:
		mem_mmio_write(tm->mem, toy_cfg(1, off & 0xfff), size, value);
		break;
	case 1:
		mem_mmio_read(tm->mem, toy_cfg(1, off & 0xfff), size);
		break;
	case 2:
		mem_mmio_write(tm->mem, TOY_ECAM + (off << 4) - 8, size, value);
		break;
	case 3:
		mem_pio_write(tm->mem, 0xcf0 + (off & 31), MIN(size, 4u),
			      value);
		break;
	case 4:
		mem_pio_read(tm->mem, 0xcf0 + (off & 31), MIN(size, 4u));
		break;
	case 5:
		gpa = t->pci.bars[1].region.base + (off & 0x1fff) - 8;
		mem_mmio_write(tm->mem, gpa, size, value);
		mem_mmio_read(tm->mem, gpa, size);
		break;
	case 6:
		pci_msix_send(&t->pci, off);
		break;
	case 7:
		pci_intx_set(&t->pci, off & 1);
		break;
	}
}

/* A mapped BAR lies in its window and where configuration space says. */
static void check(const struct toy *t)
{
	for (int n = 0; n < PCI_BARS; n++) {
		const struct io_region *r = &t->pci.bars[n].region;

		if (!t->pci.bars[n].size || !r->is_mapped)
			continue;
		if (r->space == IO_PIO)
			ASSERT(r->base >= TOY_PIO &&
			       r->base + r->size <= TOY_PIO + 0x1000);
		else
			ASSERT((r->base >= TOY_MMIO32 &&
				r->base + r->size <= TOY_MMIO32 + 64 * KIB) ||
			       (r->base >= TOY_MMIO64 &&
				r->base + r->size <= TOY_MMIO64 + GIB));
	}
	ASSERT(ld_le32(t->pci.config) == 0x56781234);
	ASSERT(t->pci.msix.pending < 16);
}

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t len)
{
	struct toy_machine tm;
	struct toy *t = toy_new("toy0"), *u = toy_new("toy1");
	int rc;

	toy_machine_init(&tm);
	rc = pci_plug(tm.bus, &t->pci, 1, NULL);
	ASSERT(!rc);
	rc = pci_plug(tm.bus, &u->pci, 2, NULL);
	ASSERT(!rc);
	for (size_t i = 0; i + 8 <= len && i < 8 * STEPS_MAX; i += 8)
		step(&tm, t, bytes + i);
	check(t);
	check(u);
	toy_machine_fini(&tm);
	return 0;
}
