/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "machine/machine_int.h"
#include "x86/regs.h"

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

void cpu_start_apply(const struct boot_entry *entry, struct vcpu_state *vs)
{
	bool is_long = entry->mode == BOOT_MODE_LONG;
	struct kvm_sregs2 *s = &vs->sregs;

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
