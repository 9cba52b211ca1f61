/* SPDX-License-Identifier: Apache-2.0 */
/* A machine with one vCPU and 4 MiB of RAM for the unit tests of the system
 * half (include test/test.h first). It starts in real mode, or in protected
 * mode without paging: linear addresses are then RAM offsets. The layout:
 *
 *	0x0	real-mode vectors	0x4000	code
 *	0x1000	GDT, 32 descriptors	0x8000	top of the stack
 *	0x2000	IDT, 64 gates
 */
#pragma once

#include <stdlib.h>

#include "soft/slotsvm.h"
#include "soft/soft_int.h"
#include "x86/cpuid.h"

#define TV_RAM	 (4 * MIB)
#define TV_GDT	 0x1000u
#define TV_IDT	 0x2000u
#define TV_CODE	 0x4000u
#define TV_STACK 0x8000u

/* Selectors of the first descriptors: flat, and 32-bit where it matters. */
#define TV_CS0	0x08
#define TV_DS0	0x10
#define TV_CS3	0x1b
#define TV_DS3	0x23
#define TV_TSS	0x28
#define TV_FREE 0x30 /* the first that a test fills itself */

struct testvm {
	struct mem *mem;
	struct kvm_cpuid2 *cpuid;
	struct engine_vm *vm;
	struct vcpu *v;
	u8 *ram;
};

/* A descriptor; attr as in struct soft_seg, limit in the unit of G. */
static inline u64 tv_desc(u32 base, u32 limit, u32 attr)
{
	return (limit & 0xffff) | (u64)(base & 0xffffff) << 16 |
	       (u64)(attr & 0xff) << 40 | (u64)(limit >> 16 & 15) << 48 |
	       (u64)(attr >> 12 & 15) << 52 | (u64)(base >> 24) << 56;
}

static inline void tv_gdt(struct testvm *t, u16 sel, u64 desc)
{
	st_le64(t->ram + TV_GDT + (sel & ~7u), desc);
}

/* A gate of the given type and DPL to sel:off. */
static inline u64 tv_gate(u16 sel, u32 off, unsigned type, unsigned dpl)
{
	return (off & 0xffff) | (u64)sel << 16 | (u64)type << 40 |
	       (u64)dpl << 45 | BIT64(47) | (u64)(off >> 16) << 48;
}

static inline void tv_idt(struct testvm *t, u8 vector, u64 gate)
{
	st_le64(t->ram + TV_IDT + vector * 8, gate);
}

/* Everything but the vCPU is made once: a VM takes 50 ms to find the TSC's
 * frequency. */
static inline struct testvm *tv_machine(void)
{
	static struct testvm t;
	struct x86_cpuid_config cc = {.vcpu_count = 1, .tsc_khz = 1000000};
	struct mem_slot slot = {.size = TV_RAM};
	struct engine_vm_config cfg = {.vcpu_count = 1};
	struct err err = {0};

	if (t.vm)
		return &t;
	t.mem = mem_new();
	t.ram = aligned_alloc(PAGE_BYTES, TV_RAM);
	assert_non_null(t.ram);
	slot.hva = t.ram;
	assert_int_equal(mem_slot_add(t.mem, &slot, &err), 0);
	assert_int_equal(x86_cpuid_build(&cc, &t.cpuid, &err), 0);
	cfg.mem = t.mem;
	cfg.cpuid = t.cpuid;
	assert_int_equal(engine_soft.vm_create(&cfg, &t.vm, &err), 0);
	slots_force_by_env(t.vm);
	return &t;
}

/* A fresh vCPU and empty RAM; one at a time. */
static inline struct testvm *tv_new(void)
{
	struct testvm *t = tv_machine();
	struct err err = {0};
	struct vcpu *v;

	if (t->v) /* the last test failed before tv_free() */
		engine_soft.vcpu_destroy(t->v);
	t->v = NULL;
	memset(t->ram, 0, TV_RAM);
	assert_int_equal(engine_soft.vcpu_create(t->vm, 0, &t->v, &err), 0);
	v = t->v;
	v->segs[X86_CS] = (struct soft_seg){.limit = 0xffff, .attr = 0x9b};
	v->gdtr = (struct soft_table){.base = TV_GDT, .limit = 255};
	v->idtr = (struct soft_table){.limit = 0x3ff};
	v->gpr[X86_RSP] = TV_STACK;
	v->rip = TV_CODE;
	soft_mode_changed(v);
	return t;
}

static inline void tv_free(struct testvm *t)
{
	engine_soft.vcpu_destroy(t->v);
	t->v = NULL;
}

/* Loads a segment register and its hidden part from the GDT. */
static inline void tv_seg(struct testvm *t, unsigned seg, u16 sel)
{
	u64 d = ld_le64(t->ram + TV_GDT + (sel & ~7u));
	struct soft_seg *s = &t->v->segs[seg];

	s->sel = sel;
	s->base = (u32)((d >> 16 & 0xffffff) | (d >> 56) << 24);
	s->attr = (d >> 40 & 0xff) | (d >> 52 & 15) << 12;
	s->limit = (u32)((d & 0xffff) | (d >> 48 & 15) << 16);
	if (s->attr & SEG_G)
		s->limit = s->limit << 12 | 0xfff;
}

/* To 32-bit protected mode at the given CPL, with a 32-bit TSS at 0x3000
 * whose ring-0 stack is TV_DS0:0x7000. */
static inline void tv_protected(struct testvm *t, unsigned cpl)
{
	struct vcpu *v = t->v;

	tv_gdt(t, TV_CS0, tv_desc(0, 0xfffff, 0xc09b));
	tv_gdt(t, TV_DS0, tv_desc(0, 0xfffff, 0xc093));
	tv_gdt(t, TV_CS3, tv_desc(0, 0xfffff, 0xc0fb));
	tv_gdt(t, TV_DS3, tv_desc(0, 0xfffff, 0xc0f3));
	tv_gdt(t, TV_TSS, tv_desc(0x3000, 0x67, 0x8b));
	st_le32(t->ram + 0x3004, 0x7000);
	st_le16(t->ram + 0x3008, TV_DS0);
	v->cr0 |= X86_CR0_PE;
	v->idtr = (struct soft_table){.base = TV_IDT, .limit = 511};
	v->tr = (struct soft_seg){
		.sel = TV_TSS, .base = 0x3000, .limit = 0x67, .attr = 0x8b};
	tv_seg(t, X86_CS, cpl ? TV_CS3 : TV_CS0);
	for (unsigned i = 0; i < 6; i++)
		if (i != X86_CS)
			tv_seg(t, i, cpl ? TV_DS3 : TV_DS0);
	soft_mode_changed(v);
	soft_tlb_flush(v, false);
}

static inline void tv_load(struct testvm *t, gpa_t at, const void *code,
			   size_t n)
{
	memcpy(t->ram + at, code, n);
}

/* Runs n instructions. Returns -1, or the vector of the exception that one
 * raised (v->exc has the rest; it is not delivered). */
static inline int tv_run(struct testvm *t, unsigned n)
{
	struct vcpu *v = t->v;
	volatile int vector = -1;

	soft_fpu_enter(v);
	v->fpu_loaded = true;
	if (!sigsetjmp(v->unwind, 0)) {
		for (unsigned i = 0; i < n; i++)
			soft_interp_one(v);
	} else {
		vector = v->exc.vector;
	}
	soft_fpu_leave(v);
	v->fpu_loaded = false;
	return vector;
}

#define TV_CODE_AT(t, at, ...)                                                 \
	do {                                                                   \
		static const u8 bytes_[] = {__VA_ARGS__};                      \
		tv_load(t, at, bytes_, sizeof(bytes_));                        \
	} while (0)
