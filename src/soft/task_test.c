/* SPDX-License-Identifier: Apache-2.0 */
/* Task switches: 32-bit protected mode, the current TSS at 0x3000. */
#include "test/test.h"

#include "soft/testvm.h"

#include "soft/soft_sys.h"

#define NEW_SEL TV_FREE
#define NEW_TSS 0x6000u
#define GATE	(TV_FREE + 8)
#define CODE16	(TV_FREE + 16)
#define PT	0x20000u /* page directory, then one table: identity map */

/* A 32-bit TSS in the GDT that resumes at 0x5000 with ESP 0x7800. */
static struct testvm *setup_tasks(void)
{
	struct testvm *t = tv_new();
	u8 *tss = t->ram + NEW_TSS;

	tv_protected(t, 0);
	tv_gdt(t, NEW_SEL, tv_desc(NEW_TSS, 0x67, 0x89));
	tv_gdt(t, GATE, tv_gate(NEW_SEL, 0, SYS_TASK, 0));
	st_le32(tss + 0x1c, PT);
	st_le32(tss + 0x20, 0x5000);
	st_le32(tss + 0x24, 2 | X86_FL_CF);
	for (unsigned i = 0; i < 8; i++)
		st_le32(tss + 0x28 + i * 4, 0x11111111 * i);
	st_le32(tss + 0x38, 0x7800);
	for (unsigned i = 0; i < 6; i++)
		st_le32(tss + 0x48 + i * 4, i == 1 ? TV_CS0 : TV_DS0);
	t->v->gpr[X86_RAX] = 0xa0a0a0a0;
	return t;
}

/* Paging on, 4 MiB mapped one to one with 4 KiB pages. */
static void paging_on(struct testvm *t)
{
	st_le32(t->ram + PT, (PT + 0x1000) | 7);
	for (u32 i = 0; i < 1024; i++)
		st_le32(t->ram + PT + 0x1000 + i * 4, i << 12 | 7);
	t->v->cr3 = PT;
	t->v->cr0 |= X86_CR0_PG | X86_CR0_WP;
	soft_mode_changed(t->v);
	soft_tlb_flush(t->v, false);
}

static void protect(struct testvm *t, u32 page, u32 flags)
{
	st_le32(t->ram + PT + 0x1000 + (page >> 12) * 4, page | flags);
	soft_tlb_flush(t->v, false);
}

static bool is_busy(struct testvm *t, u16 sel)
{
	return t->ram[TV_GDT + sel + 5] & 2;
}

static void call_of_a_tss_nests_and_iret_returns(void **state)
{
	struct testvm *t = setup_tasks();
	struct vcpu *v = t->v;

	TV_CODE_AT(t, TV_CODE, 0x9a, 0, 0, 0, 0, NEW_SEL, 0);
	TV_CODE_AT(t, 0x5000, 0xcf); /* iret */
	assert_int_equal(tv_run(t, 1), -1);
	assert_int_equal(v->rip, 0x5000);
	assert_int_equal(v->gpr[X86_RSP], 0x7800);
	assert_int_equal(v->gpr[X86_RBX], 0x33333333);
	assert_int_equal(v->tr.sel, NEW_SEL);
	assert_true(soft_rflags(v) & X86_FL_NT);
	assert_true(soft_rflags(v) & X86_FL_CF);
	assert_true(v->cr0 & X86_CR0_TS);
	assert_int_equal(ld_le16(t->ram + NEW_TSS), TV_TSS);
	assert_true(is_busy(t, NEW_SEL) && is_busy(t, TV_TSS));
	assert_int_equal(ld_le32(t->ram + 0x3020), TV_CODE + 7);
	assert_int_equal(ld_le32(t->ram + 0x3028), 0xa0a0a0a0);
	assert_int_equal(tv_run(t, 1), -1);
	assert_int_equal(v->rip, TV_CODE + 7);
	assert_int_equal(v->gpr[X86_RAX], 0xa0a0a0a0);
	assert_false(soft_rflags(v) & X86_FL_NT);
	assert_false(ld_le32(t->ram + NEW_TSS + 0x24) & X86_FL_NT);
	assert_false(is_busy(t, NEW_SEL));
	assert_true(is_busy(t, TV_TSS));
	tv_free(t);
}

static void jump_through_a_task_gate_frees_the_old_tss(void **state)
{
	struct testvm *t = setup_tasks();

	TV_CODE_AT(t, TV_CODE, 0xea, 0, 0, 0, 0, GATE, 0);
	assert_int_equal(tv_run(t, 1), -1);
	assert_int_equal(t->v->rip, 0x5000);
	assert_false(is_busy(t, TV_TSS));
	assert_true(is_busy(t, NEW_SEL));
	assert_false(soft_rflags(t->v) & X86_FL_NT);
	assert_int_equal(ld_le16(t->ram + NEW_TSS), 0);
	tv_free(t);
}

static void busy_or_short_tss_is_refused(void **state)
{
	struct testvm *t = setup_tasks();

	TV_CODE_AT(t, TV_CODE, 0xea, 0, 0, 0, 0, NEW_SEL, 0);
	tv_gdt(t, NEW_SEL, tv_desc(NEW_TSS, 0x67, 0x8b));
	assert_int_equal(tv_run(t, 1), X86_VEC_GP);
	assert_int_equal(t->v->exc.error, NEW_SEL);
	tv_gdt(t, NEW_SEL, tv_desc(NEW_TSS, 0x66, 0x89));
	assert_int_equal(tv_run(t, 1), X86_VEC_TS);
	assert_int_equal(t->v->exc.error, NEW_SEL);
	tv_gdt(t, NEW_SEL, tv_desc(NEW_TSS, 0x67, 0x09));
	assert_int_equal(tv_run(t, 1), X86_VEC_NP);
	assert_int_equal(t->v->rip, TV_CODE);
	assert_int_equal(t->v->tr.sel, TV_TSS);
	tv_free(t);
}

/* The page of each thing that a switch stores to, write-protected in turn. */
static void fault_before_the_switch_leaves_everything_as_it_was(void **state)
{
	static const struct {
		u32 old_tss, new_tss, gdt, protect;
	} cases[] = {
		/* The old TSS's registers begin in one page, end in the next */
		{0x30fd0, NEW_TSS, TV_GDT, 0x31000},
		{0x3000, NEW_TSS, TV_GDT, NEW_TSS}, /* the link */
		{0x3000, NEW_TSS, TV_GDT, TV_GDT},  /* the busy bit */
	};

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		struct testvm *t = setup_tasks();
		struct vcpu *v = t->v;
		static u8 before[TV_RAM];

		TV_CODE_AT(t, TV_CODE, 0x9a, 0, 0, 0, 0, NEW_SEL, 0);
		paging_on(t);
		v->tr.base = cases[i].old_tss;
		protect(t, cases[i].protect, 5);
		memcpy(before, t->ram, TV_RAM);
		assert_int_equal(tv_run(t, 1), X86_VEC_PF);
		assert_int_equal(v->exc.error, X86_PF_P | X86_PF_W);
		assert_int_equal(v->exc.cr2 & ~0xfffull, cases[i].protect);
		/* A and D bits may be set. */
		memcpy(t->ram + PT, before + PT, 0x2000);
		assert_memory_equal(before, t->ram, TV_RAM);
		assert_int_equal(v->rip, TV_CODE);
		assert_int_equal(v->tr.sel, TV_TSS);
		assert_int_equal(v->gpr[X86_RAX], 0xa0a0a0a0);
		assert_false(v->cr0 & X86_CR0_TS);
		tv_free(t);
	}
}

static void fault_in_the_new_segments_belongs_to_the_new_task(void **state)
{
	struct testvm *t = setup_tasks();
	struct vcpu *v = t->v;

	TV_CODE_AT(t, TV_CODE, 0x9a, 0, 0, 0, 0, NEW_SEL, 0);
	st_le16(t->ram + NEW_TSS + 0x54, 0x1f0); /* DS outside the GDT */
	assert_int_equal(tv_run(t, 1), X86_VEC_TS);
	assert_int_equal(v->exc.error, 0x1f0);
	assert_int_equal(v->rip, 0x5000);
	assert_int_equal(v->tr.sel, NEW_SEL);
	assert_int_equal(v->segs[X86_SS].sel, TV_DS0);
	tv_free(t);
}

static void fault_through_a_task_gate_saves_rf_and_pushes_its_code(void **state)
{
	struct testvm *t = setup_tasks();
	struct vcpu *v = t->v;

	tv_idt(t, X86_VEC_GP, tv_gate(NEW_SEL, 0, SYS_TASK, 0));
	v->exc = (struct soft_exception){
		.vector = X86_VEC_GP, .has_error = true, .error = 0x18};
	assert_true(soft_deliver_exception(v));
	assert_int_equal(v->rip, 0x5000);
	assert_int_equal(v->gpr[X86_RSP], 0x77fc);
	assert_int_equal(ld_le32(t->ram + 0x77fc), 0x18);
	assert_int_equal(ld_le32(t->ram + 0x3020), TV_CODE);
	assert_true(ld_le32(t->ram + 0x3024) & X86_FL_RF);
	assert_false(soft_rflags(v) & X86_FL_RF);
	tv_free(t);
}

static void trap_bit_of_the_new_tss_raises_db_after_the_switch(void **state)
{
	struct testvm *t = setup_tasks();

	TV_CODE_AT(t, TV_CODE, 0xea, 0, 0, 0, 0, NEW_SEL, 0);
	t->ram[NEW_TSS + 0x64] = 1;
	assert_int_equal(tv_run(t, 1), X86_VEC_DB);
	assert_int_equal(t->v->exc.dr6, DR6_BT);
	assert_int_equal(t->v->rip, 0x5000);
	assert_int_equal(t->v->segs[X86_DS].sel, TV_DS0);
	tv_free(t);
}

static void tss_of_16_bits_leaves_upper_halves_and_nulls_fs_gs(void **state)
{
	struct testvm *t = setup_tasks();
	struct vcpu *v = t->v;
	u8 *tss = t->ram + NEW_TSS;

	memset(tss, 0, 0x68);
	tv_gdt(t, NEW_SEL, tv_desc(NEW_TSS, 0x2b, 0x81));
	tv_gdt(t, CODE16, tv_desc(0, 0xffff, 0x9b));
	st_le16(tss + 0x0e, 0x5000);
	st_le16(tss + 0x12, 0x1234); /* AX */
	st_le16(tss + 0x1a, 0x7800); /* SP */
	st_le16(tss + 0x22, TV_DS0);
	st_le16(tss + 0x24, CODE16);
	st_le16(tss + 0x26, TV_DS0);
	st_le16(tss + 0x28, TV_DS0);
	TV_CODE_AT(t, TV_CODE, 0xea, 0, 0, 0, 0, NEW_SEL, 0);
	assert_int_equal(tv_run(t, 1), -1);
	assert_int_equal(v->rip, 0x5000);
	assert_int_equal(v->code_mode, X86_MODE_16);
	assert_int_equal(v->gpr[X86_RAX] & 0xffff, 0x1234);
	assert_int_equal(v->segs[X86_FS].sel, 0);
	assert_true(v->segs[X86_GS].attr & SEG_UNUSABLE);
	assert_int_equal(v->segs[X86_DS].sel, TV_DS0);
	tv_free(t);
}

static void switch_to_a_vm86_task_loads_real_segments(void **state)
{
	struct testvm *t = setup_tasks();
	struct vcpu *v = t->v;
	u8 *tss = t->ram + NEW_TSS;

	st_le32(tss + 0x24, X86_FL_VM | 2);
	for (unsigned i = 0; i < 6; i++)
		st_le32(tss + 0x48 + i * 4, 0x100 + i);
	st_le32(tss + 0x20, 0x10);
	TV_CODE_AT(t, TV_CODE, 0xea, 0, 0, 0, 0, NEW_SEL, 0);
	assert_int_equal(tv_run(t, 1), -1);
	assert_true(v->is_vm86);
	assert_int_equal(v->cpl, 3);
	assert_int_equal(v->segs[X86_CS].base, 0x1010);
	assert_int_equal(v->segs[X86_GS].base, 0x1050);
	assert_int_equal(v->code_mode, X86_MODE_16);
	tv_free(t);
}

int main(void)
{
#define T(f) cmocka_unit_test(f)
	const struct CMUnitTest tests[] = {
		T(call_of_a_tss_nests_and_iret_returns),
		T(jump_through_a_task_gate_frees_the_old_tss),
		T(busy_or_short_tss_is_refused),
		T(fault_before_the_switch_leaves_everything_as_it_was),
		T(fault_in_the_new_segments_belongs_to_the_new_task),
		T(fault_through_a_task_gate_saves_rf_and_pushes_its_code),
		T(trap_bit_of_the_new_tss_raises_db_after_the_switch),
		T(tss_of_16_bits_leaves_upper_halves_and_nulls_fs_gs),
		T(switch_to_a_vm86_task_loads_real_segments),
	};

	return test_run("task", tests);
}
