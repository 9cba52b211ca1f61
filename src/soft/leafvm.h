/* SPDX-License-Identifier: Apache-2.0 */
/* A machine in long mode for the tests of leaf operations (include test/test.h
 * first): testvm.h's, with paging. Linear addresses below 2 MiB are RAM
 * offsets, for CPL 0 and 3. At LV_DATA, and in the last page below 4 GiB, lies
 * a window of 4 KiB pages that tests map as they like. */
#pragma once

#include "soft/leaf.h"
#include "soft/testvm.h"
#include "soft/xlat.h"

#define LV_TSS	  0x3000u
#define LV_PML4	  0x10000u
#define LV_PDPT	  0x11000u
#define LV_PD0	  0x12000u
#define LV_PD1	  0x13000u
#define LV_PD3	  0x14000u
#define LV_PT1	  0x15000u
#define LV_PT3	  0x16000u
#define LV_PHYS	  0x100000u /* where the window's pages are */
#define LV_DATA	  0x40000000ull
#define LV_PAGES  16u
#define LV_BYTES  (LV_PAGES * 4096u)
#define LV_LAST	  0xfffff000ull
#define LV_CS0	  0x08
#define LV_DS0	  0x10
#define LV_CS3_32 0x1b
#define LV_DS3	  0x23
#define LV_CS3	  0x2b
#define LV_STACK  0x8000u

static inline u64 lv_random(u64 *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed * 0x2545f4914f6cdd1dull;
}

static inline void lv_map(struct testvm *t, unsigned page, u64 pte)
{
	st_le64(t->ram + LV_PT1 + page * 8, pte);
}

static inline void lv_seg(struct testvm *t, unsigned seg, u16 sel)
{
	tv_seg(t, seg, sel);
	if (t->v->segs[seg].attr & SEG_G)
		t->v->segs[seg].base = 0;
}

/* To 64-bit code, or 32-bit compatibility code, at this CPL. */
static inline void lv_mode(struct testvm *t, unsigned cpl, bool is_32)
{
	u16 ds = cpl ? LV_DS3 : LV_DS0;

	lv_seg(t, X86_CS, cpl ? (is_32 ? LV_CS3_32 : LV_CS3) : LV_CS0);
	for (unsigned i = 0; i < 6; i++)
		if (i != X86_CS)
			lv_seg(t, i, ds);
	soft_mode_changed(t->v);
	soft_tlb_flush(t->v, false);
}

static inline void lv_tables(struct testvm *t)
{
	u8 *r = t->ram;

	st_le64(r + LV_PML4, LV_PDPT | 7);
	st_le64(r + LV_PDPT, LV_PD0 | 7);
	st_le64(r + LV_PDPT + 8, LV_PD1 | 7);
	st_le64(r + LV_PDPT + 24, LV_PD3 | 7);
	st_le64(r + LV_PD0, 0x87);
	st_le64(r + LV_PD1, LV_PT1 | 7);
	st_le64(r + LV_PD3 + 511 * 8, LV_PT3 | 7);
	st_le64(r + LV_PT3 + 511 * 8, LV_PHYS | 7);
	for (unsigned i = 0; i < LV_PAGES; i++)
		lv_map(t, i, (LV_PHYS + i * 4096u) | 7);
	st_le64(r + TV_GDT + 0x08, 0x00af9b000000ffff);
	st_le64(r + TV_GDT + 0x10, 0x00cf93000000ffff);
	st_le64(r + TV_GDT + 0x18, 0x00cffb000000ffff);
	st_le64(r + TV_GDT + 0x20, 0x00cff3000000ffff);
	st_le64(r + TV_GDT + 0x28, 0x00affb000000ffff);
	st_le64(r + LV_TSS + 4, 0x7000);
	for (u64 i = 0; i < 256; i++)
		st_le64(r + TV_IDT + i * 16, 0x00008e0000080000ull | 0x6000);
}

/* At CPL 0 in 64-bit code; free with tv_free(). */
static inline struct testvm *lv_new(void)
{
	struct testvm *t = tv_new();
	struct vcpu *v = t->v;

	lv_tables(t);
	v->gdtr = (struct soft_table){.base = TV_GDT, .limit = 0x2f};
	v->idtr = (struct soft_table){.base = TV_IDT, .limit = 0xfff};
	v->tr = (struct soft_seg){
		.sel = 0x30, .base = LV_TSS, .limit = 0x67, .attr = 0x8b};
	v->cr0 |= X86_CR0_PE | X86_CR0_PG | X86_CR0_WP;
	v->cr3 = LV_PML4;
	v->cr4 |= X86_CR4_PAE;
	v->efer |= X86_EFER_LME | X86_EFER_LMA | X86_EFER_SCE;
	lv_mode(t, 0, false);
	return t;
}

/* What instructions may change, beside memory. */
struct lv_state {
	u64 gpr[16];
	u64 rip, rflags_sys;
	u32 aflags;
	u8 cpl, code_mode, shadow;
	bool nmi_blocked;
	struct soft_seg segs[6];
	u64 cr0, cr2, cr3, cr4, kernel_gs_base, tsc_aux, spec_ctrl;
	u32 go;
};

static inline void lv_save(const struct vcpu *v, struct lv_state *s)
{
	memset(s, 0, sizeof(*s));
	memcpy(s->gpr, v->gpr, sizeof(s->gpr));
	s->rip = v->rip;
	s->rflags_sys = v->rflags_sys;
	s->aflags = v->aflags;
	s->cpl = v->cpl;
	s->code_mode = v->code_mode;
	s->shadow = v->shadow;
	s->nmi_blocked = v->nmi_blocked;
	for (unsigned i = 0; i < 6; i++) { /* without the padding */
		s->segs[i].base = v->segs[i].base;
		s->segs[i].limit = v->segs[i].limit;
		s->segs[i].attr = v->segs[i].attr;
		s->segs[i].sel = v->segs[i].sel;
	}
	s->cr0 = v->cr0;
	s->cr2 = v->cr2;
	s->cr3 = v->cr3;
	s->cr4 = v->cr4;
	s->kernel_gs_base = v->kernel_gs_base;
	s->tsc_aux = v->tsc_aux;
	s->spec_ctrl = v->spec_ctrl;
	s->go = atomic_load(&v->go);
}

static inline void lv_restore(struct vcpu *v, const struct lv_state *s)
{
	memcpy(v->gpr, s->gpr, sizeof(s->gpr));
	v->rip = s->rip;
	v->rflags_sys = s->rflags_sys;
	v->aflags = s->aflags;
	v->shadow = s->shadow;
	v->nmi_blocked = s->nmi_blocked;
	memcpy(v->segs, s->segs, sizeof(s->segs));
	v->cr0 = s->cr0;
	v->cr2 = s->cr2;
	v->cr3 = s->cr3;
	v->cr4 = s->cr4;
	v->kernel_gs_base = s->kernel_gs_base;
	v->tsc_aux = s->tsc_aux;
	v->spec_ctrl = s->spec_ctrl;
	atomic_store(&v->go, s->go);
	soft_mode_changed(v);
}
