/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "machine/machine_int.h"
#include "x86/regs.h"

/* Mask registers have the bits below the machine's 46-bit addresses. */
#define MTRR_MASK(size)	  (((BIT64(46) - 1) & ~((size)-1ull)) | BIT64(11))
#define MTRR_EIGHT(type)  ((type)*0x0101010101010101ull)
#define MTRR_UC		  0ull
#define MTRR_WP		  5ull
#define MTRR_WB		  6ull
#define MTRR_ENABLE	  BIT64(11)
#define MTRR_FIXED_ENABLE BIT64(10)

static struct kvm_segment flat_segment(u16 selector, bool is_code, bool is_long)
{
	return (struct kvm_segment){
		.base = 0,
		.limit = 0xffffffff,
		.selector = selector,
		.type = is_code ? 0xb : 0x3,
		.present = 1,
		.s = 1,
		.l = is_long,
		.db = !is_long,
		.g = 1,
	};
}

/* Virtual wire mode: the PIC's INTR and NMI through LINT0 and LINT1. MP
 * Specification 1.4 §3.6.2.2. */
static void apply_virtual_wire(struct vcpu_state *vs)
{
	u8 *regs = (u8 *)vs->lapic.regs;

	st_le32(regs + 0xf0, 0x1ff);  /* SVR: enabled */
	st_le32(regs + 0x350, 0x700); /* LVT LINT0: ExtINT */
	st_le32(regs + 0x360, 0x400); /* LVT LINT1: NMI */
}

void cpu_start_apply(const struct boot_entry *entry, struct vcpu_state *vs)
{
	bool is_long = entry->mode == BOOT_MODE_LONG;
	struct kvm_sregs2 *s = &vs->sregs;

	if (entry->wants_bios)
		apply_virtual_wire(vs);

	s->cs = flat_segment(is_long ? BOOT_GDT_CODE64 : BOOT_GDT_CODE32, true,
			     is_long);
	s->ds = flat_segment(BOOT_GDT_DATA, false, false);
	s->es = s->fs = s->gs = s->ss = s->ds;
	s->gdt.base = BOOT_GDT_GPA;
	s->gdt.limit = BOOT_GDT_LIMIT;
	s->idt.base = 0;
	s->idt.limit = 0;
	s->cr0 = X86_CR0_PE | X86_CR0_ET;
	if (is_long) {
		s->cr0 |= X86_CR0_PG | X86_CR0_NE;
		s->cr3 = entry->cr3;
		s->cr4 = X86_CR4_PAE;
		s->efer = X86_EFER_LME | X86_EFER_LMA;
	}
	vs->regs = (struct kvm_regs){
		.rip = entry->rip,
		.rax = entry->rax,
		.rbx = entry->rbx,
		.rsi = entry->rsi,
		.rsp = entry->rsp,
		.rflags = 2,
	};
}

/* Every GPA is write-back but for the VGA hole, the windows of devices and,
 * write-protected, the place of a ROM. MTRRs have no effect on this engine;
 * a kernel takes its PAT set-up and its warnings from them. SDM 3A §12.11. */
static const struct kvm_msr_entry firmware_msrs[] = {
	{.index = 0x200, .data = MAP_ECAM},
	{.index = 0x201, .data = MTRR_MASK(0x10000000)},
	{.index = 0x202, .data = MAP_MMIO32},
	{.index = 0x203, .data = MTRR_MASK(0x40000000)},
	{.index = 0x204, .data = MAP_MMIO64},
	{.index = 0x205, .data = MTRR_MASK(MAP_MMIO64_BYTES)},
	{.index = 0x250, .data = MTRR_EIGHT(MTRR_WB)},
	{.index = 0x258, .data = MTRR_EIGHT(MTRR_WB)},
	{.index = 0x259, .data = MTRR_EIGHT(MTRR_UC)},
	{.index = 0x268, .data = MTRR_EIGHT(MTRR_WP)},
	{.index = 0x269, .data = MTRR_EIGHT(MTRR_WP)},
	{.index = 0x26a, .data = MTRR_EIGHT(MTRR_WP)},
	{.index = 0x26b, .data = MTRR_EIGHT(MTRR_WP)},
	{.index = 0x26c, .data = MTRR_EIGHT(MTRR_WP)},
	{.index = 0x26d, .data = MTRR_EIGHT(MTRR_WP)},
	{.index = 0x26e, .data = MTRR_EIGHT(MTRR_WP)},
	{.index = 0x26f, .data = MTRR_EIGHT(MTRR_WP)},
	{.index = X86_MSR_MTRR_DEF_TYPE,
	 .data = MTRR_ENABLE | MTRR_FIXED_ENABLE | MTRR_WB},
};

void cpu_firmware_apply(struct vcpu_state *vs)
{
	for (u32 i = 0; i < vs->msr_count; i++)
		for (size_t j = 0; j < ARRAY_SIZE(firmware_msrs); j++)
			if (vs->msrs[i].index == firmware_msrs[j].index)
				vs->msrs[i].data = firmware_msrs[j].data;
}

void cpu_format_registers(const struct vcpu_state *vs, char *out, size_t n)
{
	const struct kvm_regs *r = &vs->regs;
	const struct kvm_sregs2 *s = &vs->sregs;

	snprintf(out, n,
		 "rip=%04x:%016llx rflags=%08llx cr0=%08llx cr2=%016llx "
		 "cr3=%016llx cr4=%08llx efer=%04llx\n"
		 "rax=%016llx rbx=%016llx rcx=%016llx rdx=%016llx\n"
		 "rsi=%016llx rdi=%016llx rbp=%016llx rsp=%04x:%016llx\n"
		 "r8 =%016llx r9 =%016llx r10=%016llx r11=%016llx\n"
		 "r12=%016llx r13=%016llx r14=%016llx r15=%016llx",
		 s->cs.selector, r->rip, r->rflags, s->cr0, s->cr2, s->cr3,
		 s->cr4, s->efer, r->rax, r->rbx, r->rcx, r->rdx, r->rsi,
		 r->rdi, r->rbp, s->ss.selector, r->rsp, r->r8, r->r9, r->r10,
		 r->r11, r->r12, r->r13, r->r14, r->r15);
}
