/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY: MSI-X, PCIe 5.0 §7.7.2
 *
 * The table and the PBA share a page-sized BAR: table at 0, PBA at 0x800. A
 * vector fires when MSI-X is enabled and neither the function nor the vector
 * is masked; while masked it leaves only its pending bit, so a storm costs
 * one bit. Pending vectors go out when a mask is lifted. Writes of 4 and 8
 * bytes, aligned, are defined; others are ignored, reads of any size work.
 */
#include "dev/pci_int.h"

#include "base/assert.h"
#include "base/log.h"

#define MSIX_CAP_ID	   0x11
#define MSIX_CAP_BYTES	   12
#define MSIX_CONTROL	   2
#define MSIX_ENABLE	   0x8000
#define MSIX_FUNCTION_MASK 0x4000
#define MSIX_ENTRY_BYTES   16
#define MSIX_ENTRY_CONTROL 12
#define MSIX_ENTRY_MASKED  1u
#define MSIX_BAR_BYTES	   4096
#define MSIX_PBA	   0x800

u16 pci_msix_control(const struct pci_device *pci)
{
	return ld_le16(pci->config + pci->msix.cap + MSIX_CONTROL);
}

bool pci_msix_enabled(const struct pci_device *pci)
{
	return pci->msix.count && (pci_msix_control(pci) & MSIX_ENABLE);
}

static bool vector_is_masked(const struct pci_device *pci, u16 n)
{
	const u8 *e = pci->msix.table + n * MSIX_ENTRY_BYTES;

	return (pci_msix_control(pci) & MSIX_FUNCTION_MASK) ||
	       (ld_le32(e + MSIX_ENTRY_CONTROL) & MSIX_ENTRY_MASKED);
}

void pci_msix_send(struct pci_device *pci, u16 n)
{
	const u8 *e;

	if (!pci->bus || n >= pci->msix.count || !pci_msix_enabled(pci))
		return;
	if (vector_is_masked(pci, n)) {
		pci->msix.pending |= BIT64(n);
		return;
	}
	pci->msix.pending &= ~BIT64(n);
	e = pci->msix.table + n * MSIX_ENTRY_BYTES;
	/* A message is a memory write of the function: §7.5.1.1.3. */
	if (!pci_can_dma(pci))
		return;
	if (irq_msi(pci->bus->cfg.router, ld_le64(e), ld_le32(e + 8)))
		log_guest("'%s': message vector %u is not an interrupt address",
			  pci->dev.name, n);
}

static void send_pending(struct pci_device *pci)
{
	if (!pci_msix_enabled(pci))
		return;
	for (u16 n = 0; n < pci->msix.count; n++)
		if ((pci->msix.pending & BIT64(n)) && !vector_is_masked(pci, n))
			pci_msix_send(pci, n);
}

void pci_msix_control_written(struct pci_device *pci, u16 was)
{
	if (pci_msix_control(pci) == was)
		return;
	pci_intx_update(pci);
	if (pci->msix_changed)
		pci->msix_changed(pci);
	send_pending(pci);
}

static u64 msix_read(void *opaque, u64 off, unsigned size)
{
	struct pci_device *pci = opaque;
	struct pci_msix *x = &pci->msix;
	u8 window[MSIX_PBA + sizeof(x->pending)] = {0};
	u64 v = 0;

	if (off > sizeof(window) || sizeof(window) - off < size)
		return 0;
	memcpy(window, x->table, x->count * MSIX_ENTRY_BYTES);
	st_le64(window + MSIX_PBA, x->pending);
	memcpy(&v, window + off, size);
	return v;
}

static void table_write_dword(struct pci_device *pci, u64 off, u32 value)
{
	struct pci_msix *x = &pci->msix;
	bool was;

	if (off >= x->count * MSIX_ENTRY_BYTES)
		return;
	if (off % MSIX_ENTRY_BYTES != MSIX_ENTRY_CONTROL) {
		if (off % MSIX_ENTRY_BYTES == 0)
			value &= ~3u;
		st_le32(x->table + off, value);
		return;
	}
	was = ld_le32(x->table + off) & MSIX_ENTRY_MASKED;
	st_le32(x->table + off, value & MSIX_ENTRY_MASKED);
	if (was != (value & MSIX_ENTRY_MASKED)) {
		if (pci->msix_changed)
			pci->msix_changed(pci);
		send_pending(pci);
	}
}

static void msix_write(void *opaque, u64 off, unsigned size, u64 value)
{
	if (size < 4 || off % size)
		return;
	table_write_dword(opaque, off, (u32)value);
	if (size == 8)
		table_write_dword(opaque, off + 4, value >> 32);
}

static const struct io_ops msix_ops = {
	.read = msix_read,
	.write = msix_write,
};

void pci_msix_reset(struct pci_device *pci)
{
	struct pci_msix *x = &pci->msix;

	memset(x->table, 0, sizeof(x->table));
	for (u16 n = 0; n < x->count; n++)
		x->table[n * MSIX_ENTRY_BYTES + MSIX_ENTRY_CONTROL] =
			MSIX_ENTRY_MASKED;
	x->pending = 0;
}

void pci_msix_add(struct pci_device *pci, int bar, u16 count)
{
	u8 cap[MSIX_CAP_BYTES] = {0};

	ASSERT(count > 0 && count <= PCI_MSIX_MAX && !pci->msix.count);
	pci_bar_add(pci, bar, MSIX_BAR_BYTES, false, false, &msix_ops, pci);
	st_le16(cap + MSIX_CONTROL, count - 1);
	st_le32(cap + 4, bar);
	st_le32(cap + 8, MSIX_PBA | bar);
	pci->msix.count = count;
	pci->msix.bar = bar;
	pci->msix.cap = pci_cap_add(pci, MSIX_CAP_ID, cap, sizeof(cap));
	st_le16(pci->writable + pci->msix.cap + MSIX_CONTROL,
		MSIX_ENABLE | MSIX_FUNCTION_MASK);
	pci_msix_reset(pci);
}

void pci_msix_state(struct pci_device *pci, struct state *s)
{
	struct pci_msix *x = &pci->msix;

	if (!x->count)
		return;
	st_bytes(s, "msix_table", x->table, x->count * MSIX_ENTRY_BYTES);
	st_u64(s, "msix_pending", &x->pending);
	for (u16 n = 0; n < x->count; n++) {
		const u8 *e = x->table + n * MSIX_ENTRY_BYTES;

		st_require(s,
			   !(ld_le32(e + MSIX_ENTRY_CONTROL) &
			     ~MSIX_ENTRY_MASKED) &&
				   !(e[0] & 3),
			   "msix table has reserved bits set");
	}
	st_require(s, x->count == 64 || !(x->pending >> x->count),
		   "msix pending bit beyond the table");
}
