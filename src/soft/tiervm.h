/* SPDX-License-Identifier: Apache-2.0 */
/* The machine of testvm.h, run by one tier or the other: what a guest must not
 * be let through is tested in the interpreter and in translated code with the
 * same table (include test/test.h first).
 *
 * A program runs until it raises an exception, which is not delivered: v->exc
 * and the registers are then as the handler would find them. A program that
 * has come to its end raises #UD by UD2 there.
 */
#pragma once

#include <xmmintrin.h>

#include "soft/testvm.h"
#include "soft/xlat.h"

enum tier { TIER_INTERP, TIER_XLAT, TIERS };

static const char *const tier_names[TIERS] = {"interpreted", "translated"};

#define TIER_TABLES 0x3f0000u /* PML4, PDPT, PD, and tests' own behind */
#define TIER_CS64   0x38
#define TIER_CS64_3 0x43
#define TIER_CS16   0x48 /* D clear */
#define TIER_CS16_3 0x53
#define TIER_FREE   0x58
#define TIER_ROUNDS 1000 /* kicks that a program may get */

/* Code, as a device writes it: what was translated from there is forgotten. */
static inline void tier_load(struct testvm *t, gpa_t at, const void *code,
			     size_t n)
{
	assert_int_equal(mem_write(t->mem, at, code, n), 0);
}

/* A fresh vCPU, empty RAM, nothing translated. */
static inline struct testvm *tier_new(void)
{
	struct testvm *t = tv_new();

	assert_non_null(t->vm->xlat);
	/* cmocka has its own around each test. */
	assert_int_equal(soft_stubs_install_signals(NULL), 0);
	xlat_flush_all(t->vm->xlat);
	return t;
}

static inline void tier_segs(struct testvm *t, u16 cs, u16 ds)
{
	for (unsigned i = 0; i < 6; i++)
		tv_seg(t, i, i == X86_CS ? cs : ds);
	t->v->segs[X86_CS].attr |= SEG_TYPE_ACC;
	soft_mode_changed(t->v);
}

/* Protected mode as tv_protected() has it, and descriptors of 16-bit code. */
static inline void tier_protected(struct testvm *t, unsigned cpl)
{
	tv_protected(t, cpl);
	tv_gdt(t, TIER_CS64, tv_desc(0, 0xfffff, 0xa09b));
	tv_gdt(t, TIER_CS64_3, tv_desc(0, 0xfffff, 0xa0fb));
	tv_gdt(t, TIER_CS16, tv_desc(0, 0xfffff, 0x809b));
	tv_gdt(t, TIER_CS16_3, tv_desc(0, 0xfffff, 0x80fb));
}

/* Long mode, RAM at its own linear addresses, for all: 2 MiB pages. cs is
 * 64-bit code or, for compatibility mode, any other. */
static inline void tier_long(struct testvm *t, u16 cs)
{
	struct vcpu *v = t->v;
	u8 *tables = t->ram + TIER_TABLES;

	tier_protected(t, cs & 3);
	st_le64(tables, (TIER_TABLES + 0x1000) | 7);
	st_le64(tables + 0x1000, (TIER_TABLES + 0x2000) | 7);
	st_le64(tables + 0x2000, 0x87);
	st_le64(tables + 0x2008, 0x200087);
	v->cr3 = TIER_TABLES;
	v->cr4 |= X86_CR4_PAE;
	v->cr0 |= X86_CR0_PG | X86_CR0_WP;
	v->efer |= X86_EFER_LME | X86_EFER_LMA | X86_EFER_NXE;
	tier_segs(t, cs, cs & 3 ? TV_DS3 : TV_DS0);
	soft_tlb_flush(v, false);
}

/* SSE and AVX, as an operating system has them. */
static inline void tier_simd(struct vcpu *v)
{
	v->cr0 |= X86_CR0_NE | X86_CR0_MP;
	v->cr4 |= X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT | X86_CR4_OSXSAVE;
	v->xcr0 = 7;
	soft_mode_changed(v);
}

/* What C needs of the CPU is the host's again (I5). */
static inline bool tier_host_is_own(void)
{
	u16 cw;
	u64 flags;

	__asm__ volatile("fnstcw %0" : "=m"(cw));
	__asm__ volatile("pushfq; popq %0" : "=r"(flags));
	return _mm_getcsr() >> 7 == 0x3f && cw == 0x37f &&
	       !(flags & (X86_FL_DF | X86_FL_AC | X86_FL_TF | X86_FL_NT));
}

/* Returns the vector of the exception that ended the program; -1: HLT. */
static inline int tier_run(struct vcpu *v, enum tier tier)
{
	volatile int vector = -1, rounds = 0;

	v->is_halted = false;
	soft_fpu_enter(v);
	v->fpu_loaded = true;
	smc_vcpu_started(v);
	if (!sigsetjmp(v->unwind, 0)) {
		do {
			atomic_store(&v->go, SOFT_GO);
			if (tier == TIER_XLAT)
				xlat_run(v);
			else
				soft_interp(v);
		} while (!v->is_halted && rounds++ < TIER_ROUNDS);
		assert_true(v->is_halted);
	} else {
		assert_string_equal(v->error, "");
		vector = v->exc.vector;
	}
	smc_vcpu_stopped(v);
	soft_fpu_leave(v);
	v->fpu_loaded = false;
	v->shadow = 0;
	return vector;
}

/* Raises #UD behind the bytes, which must be fewer than TIER_END. */
#define TIER_END 0x40u
static inline int tier_run_bytes(struct testvm *t, const void *bytes, size_t n,
				 enum tier tier)
{
	u8 b[TIER_END + 2];

	assert_true(n <= TIER_END);
	memset(b, 0x90, sizeof(b));
	memcpy(b, bytes, n);
	b[TIER_END] = 0x0f;
	b[TIER_END + 1] = 0x0b;
	tier_load(t, TV_CODE, b, sizeof(b));
	t->v->rip = TV_CODE;
	return tier_run(t->v, tier);
}

/* Ended as it should, behind its last instruction? */
static inline bool tier_is_at_end(const struct vcpu *v, int vector)
{
	return vector == X86_VEC_UD && v->rip == TV_CODE + TIER_END;
}
