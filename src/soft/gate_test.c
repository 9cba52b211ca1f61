/* SPDX-License-Identifier: Apache-2.0 */
/* Far transfers, IRET and interrupt frames outside long mode. */
#include "test/test.h"

#include "soft/testvm.h"

#include "soft/soft_sys.h"

#define GATE   TV_FREE
#define CODE16 (TV_FREE + 8)
#define DATA16 (TV_FREE + 16)
#define CONF   (TV_FREE + 24)
#define VM_TOP 0x600u /* SP of virtual-8086 code, its SS being 0x7a0 */

static struct testvm *setup_ring(unsigned cpl)
{
	struct testvm *t = tv_new();

	tv_protected(t, cpl);
	tv_gdt(t, CODE16, tv_desc(0, 0xffff, 0x9b));
	tv_gdt(t, DATA16, tv_desc(0, 0xffff, 0x93));
	tv_gdt(t, CONF, tv_desc(0, 0xfffff, 0xc09f));
	return t;
}

static struct testvm *setup_vm86(unsigned iopl)
{
	struct testvm *t = setup_ring(0);
	struct vcpu *v = t->v;

	v->rflags_sys |= X86_FL_VM | (u64)iopl << 12;
	for (unsigned i = 0; i < 6; i++)
		soft_seg_set_vm86(&v->segs[i], (u16)(0x700 + i));
	soft_seg_set_vm86(&v->segs[X86_CS], TV_CODE >> 4);
	soft_seg_set_vm86(&v->segs[X86_SS], 0x7a0);
	v->gpr[X86_RSP] = VM_TOP;
	v->rip = 0;
	soft_mode_changed(v);
	return t;
}

static u32 word(struct testvm *t, unsigned n)
{
	return ld_le32(t->ram + t->v->gpr[X86_RSP] + n * 4);
}

/* ---- call gates ---- */

static void call_gate_switches_stacks_and_copies_parameters(void **state)
{
	struct testvm *t = setup_ring(3);
	struct vcpu *v = t->v;

	tv_gdt(t, GATE, tv_gate(TV_CS0, 0x5000, SYS_CALL32, 3) | 2ull << 32);
	st_le32(t->ram + TV_STACK, 0xaaaa0000);
	st_le32(t->ram + TV_STACK + 4, 0xbbbb0000);
	TV_CODE_AT(t, TV_CODE, 0x9a, 0, 0, 0, 0, GATE, 0);
	TV_CODE_AT(t, 0x5000, 0xca, 8, 0); /* retf 8 */
	assert_int_equal(tv_run(t, 1), -1);
	assert_int_equal(v->rip, 0x5000);
	assert_int_equal(v->cpl, 0);
	assert_int_equal(v->segs[X86_CS].sel, TV_CS0);
	assert_int_equal(v->segs[X86_SS].sel, TV_DS0);
	assert_int_equal(v->gpr[X86_RSP], 0x7000 - 24);
	assert_int_equal(word(t, 0), TV_CODE + 7);
	assert_int_equal(word(t, 1), TV_CS3);
	assert_int_equal(word(t, 2), 0xaaaa0000);
	assert_int_equal(word(t, 3), 0xbbbb0000);
	assert_int_equal(word(t, 4), TV_STACK);
	assert_int_equal(word(t, 5), TV_DS3);
	v->segs[X86_ES] = v->segs[X86_SS]; /* not for ring 3's eyes */
	assert_int_equal(tv_run(t, 1), -1);
	assert_int_equal(v->rip, TV_CODE + 7);
	assert_int_equal(v->cpl, 3);
	assert_int_equal(v->gpr[X86_RSP], TV_STACK + 8);
	assert_true(v->segs[X86_ES].attr & SEG_UNUSABLE);
	assert_int_equal(v->segs[X86_DS].sel, TV_DS3);
	tv_free(t);
}

static void call_gate_of_16_bits_pushes_words(void **state)
{
	struct testvm *t = setup_ring(3);
	struct vcpu *v = t->v;

	tv_gdt(t, GATE,
	       tv_gate(CODE16, 0xdead5000, SYS_CALL16, 3) | 1ull << 32);
	st_le16(t->ram + TV_STACK, 0xcafe);
	TV_CODE_AT(t, TV_CODE, 0x9a, 0, 0, 0, 0, GATE, 0);
	assert_int_equal(tv_run(t, 1), -1);
	assert_int_equal(v->rip, 0x5000);
	assert_int_equal(v->code_mode, X86_MODE_16);
	assert_int_equal(v->gpr[X86_RSP], 0x7000 - 10);
	assert_int_equal(word(t, 0), TV_CS3 << 16 | (TV_CODE + 7));
	assert_int_equal(word(t, 1), (u32)TV_STACK << 16 | 0xcafe);
	tv_free(t);
}

static void call_gate_to_a_conforming_segment_keeps_the_ring(void **state)
{
	struct testvm *t = setup_ring(3);

	tv_gdt(t, GATE, tv_gate(CONF, 0x5000, SYS_CALL32, 3));
	TV_CODE_AT(t, TV_CODE, 0x9a, 0, 0, 0, 0, GATE, 0);
	assert_int_equal(tv_run(t, 1), -1);
	assert_int_equal(t->v->cpl, 3);
	assert_int_equal(t->v->segs[X86_CS].sel, CONF | 3);
	assert_int_equal(t->v->gpr[X86_RSP], TV_STACK - 8);
	tv_free(t);
}

static void call_gate_faults_name_what_is_wrong(void **state)
{
	static const struct {
		u64 and, or ;
		int vector;
		u32 error;
	} cases[] = {
		{~(3ull << 45), 0, X86_VEC_GP, GATE}, /* DPL 0 */
		{~BIT64(47), 0, X86_VEC_NP, GATE},    /* not present */
		{~0xffff0000ull, 0, X86_VEC_GP, 0},   /* null code */
		{~0xffff0000ull, TV_DS0 << 16, X86_VEC_GP, TV_DS0},
		{~0xffff0000ull, 0x1f8 << 16, X86_VEC_GP, 0x1f8},
	};

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		struct testvm *t = setup_ring(3);
		u64 gate = tv_gate(TV_CS0, 0x5000, SYS_CALL32, 3);

		tv_gdt(t, GATE, (gate & cases[i].and) | cases[i].or);
		TV_CODE_AT(t, TV_CODE, 0x9a, 0, 0, 0, 0, GATE, 0);
		assert_int_equal(tv_run(t, 1), cases[i].vector);
		assert_int_equal(t->v->exc.error, cases[i].error);
		assert_int_equal(t->v->rip, TV_CODE);
		assert_int_equal(t->v->cpl, 3);
		assert_int_equal(t->v->gpr[X86_RSP], TV_STACK);
		tv_free(t);
	}
}

static void inner_stack_faults_name_the_stack_or_the_tss(void **state)
{
	static const struct {
		u32 tss_limit, esp;
		u16 ss;
		int vector;
		u32 error;
	} cases[] = {
		{8, 0x7000, TV_DS0, X86_VEC_TS, TV_TSS},
		{0x67, 0x7000, 0, X86_VEC_TS, 0},
		{0x67, 0x7000, TV_DS3, X86_VEC_TS, TV_DS3 & 0xfc},
		{0x67, 0x7000, TV_CS0, X86_VEC_TS, TV_CS0},
		{0x67, 8, DATA16, X86_VEC_SS, DATA16}, /* wraps, misaligned */
	};

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		struct testvm *t = setup_ring(3);

		tv_gdt(t, GATE, tv_gate(TV_CS0, 0x5000, SYS_CALL32, 3));
		tv_gdt(t, DATA16, tv_desc(0, 0x7fff, 0x93));
		t->v->tr.limit = cases[i].tss_limit;
		st_le32(t->ram + 0x3004, cases[i].esp);
		st_le16(t->ram + 0x3008, cases[i].ss);
		TV_CODE_AT(t, TV_CODE, 0x9a, 0, 0, 0, 0, GATE, 0);
		assert_int_equal(tv_run(t, 1), cases[i].vector);
		assert_int_equal(t->v->exc.error, cases[i].error);
		assert_int_equal(t->v->rip, TV_CODE);
		assert_int_equal(t->v->segs[X86_SS].sel, TV_DS3);
		tv_free(t);
	}
}

static void jump_through_a_gate_may_not_change_the_ring(void **state)
{
	struct testvm *t = setup_ring(3);

	tv_gdt(t, GATE, tv_gate(TV_CS0, 0x5000, SYS_CALL32, 3));
	TV_CODE_AT(t, TV_CODE, 0xea, 0, 0, 0, 0, GATE, 0);
	assert_int_equal(tv_run(t, 1), X86_VEC_GP);
	assert_int_equal(t->v->exc.error, TV_CS0);
	tv_gdt(t, GATE, tv_gate(TV_CS3, 0x5000, SYS_CALL32, 3));
	assert_int_equal(tv_run(t, 1), -1);
	assert_int_equal(t->v->rip, 0x5000);
	assert_int_equal(t->v->gpr[X86_RSP], TV_STACK);
	tv_free(t);
}

/* ---- direct transfers ---- */

static void far_transfer_checks_type_ring_presence_and_limit(void **state)
{
	static const struct {
		u64 desc;
		u16 rpl;
		int vector;
		u32 error;
	} cases[] = {
		{0xc09b, 0, -1, 0},
		{0x4093, 0, X86_VEC_GP, CONF}, /* data */
		{0xc0fb, 0, X86_VEC_GP, CONF}, /* outer ring */
		{0xc09b, 3, X86_VEC_GP, CONF}, /* RPL above CPL */
		{0xc01b, 0, X86_VEC_NP, CONF}, /* not present */
		{0xc0ff, 0, X86_VEC_GP, CONF}, /* conforming, outer */
		{0xc09f, 3, -1, 0},	       /* RPL is not looked at */
		{0x409b, 0, X86_VEC_GP, 0},    /* limit 0x4fff */
	};

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		struct testvm *t = setup_ring(0);
		u32 attr = (u32)cases[i].desc;

		tv_gdt(t, CONF,
		       tv_desc(0, (attr & SEG_G) ? 0xfffff : 0x4fff, attr));
		TV_CODE_AT(t, TV_CODE, 0xea, 0, 0x50, 0, 0, CONF, 0);
		t->ram[TV_CODE + 5] |= cases[i].rpl;
		assert_int_equal(tv_run(t, 1), cases[i].vector);
		if (cases[i].vector < 0)
			assert_int_equal(t->v->segs[X86_CS].sel, CONF);
		else
			assert_int_equal(t->v->exc.error, cases[i].error);
		tv_free(t);
	}
}

static void far_return_may_not_go_inwards(void **state)
{
	struct testvm *t = setup_ring(3);

	st_le32(t->ram + TV_STACK, 0x5000);
	st_le32(t->ram + TV_STACK + 4, TV_CS0);
	TV_CODE_AT(t, TV_CODE, 0xcb);
	assert_int_equal(tv_run(t, 1), X86_VEC_GP);
	assert_int_equal(t->v->exc.error, TV_CS0);
	assert_int_equal(t->v->gpr[X86_RSP], TV_STACK);
	tv_free(t);
}

static void real_mode_far_call_and_return_keep_16_bits(void **state)
{
	struct testvm *t = tv_new();
	struct vcpu *v = t->v;

	v->gpr[X86_RSP] = 0xabcd8000;
	TV_CODE_AT(t, TV_CODE, 0x9a, 0x10, 0, 0, 5); /* call 0500:0010 */
	TV_CODE_AT(t, 0x5010, 0xca, 2, 0);	     /* retf 2 */
	assert_int_equal(tv_run(t, 1), -1);
	assert_int_equal(v->rip, 0x10);
	assert_int_equal(v->segs[X86_CS].base, 0x5000);
	assert_int_equal(v->gpr[X86_RSP], 0xabcd7ffc);
	assert_int_equal(ld_le32(t->ram + 0x7ffc), TV_CODE + 5);
	assert_int_equal(tv_run(t, 1), -1);
	assert_int_equal(v->rip, TV_CODE + 5);
	assert_int_equal(v->gpr[X86_RSP], 0xabcd8002);
	tv_free(t);
}

/* ---- interrupt frames ---- */

static void real_mode_interrupt_pushes_three_words(void **state)
{
	struct testvm *t = tv_new();
	struct vcpu *v = t->v;

	st_le32(t->ram + 0x21 * 4, 0x05000010);
	TV_CODE_AT(t, 0x5010, 0xcf);
	v->segs[X86_CS] = (struct soft_seg){
		.sel = 0x100, .base = 0x1000, .limit = 0xffff, .attr = 0x9b};
	v->rip = TV_CODE - 0x1000;
	v->rflags_sys |= X86_FL_IF | X86_FL_TF | X86_FL_AC;
	assert_true(soft_deliver_interrupt(v, 0x21, false));
	assert_int_equal(v->rip, 0x10);
	assert_int_equal(v->gpr[X86_RSP], TV_STACK - 6);
	assert_int_equal(ld_le16(t->ram + TV_STACK - 6), TV_CODE - 0x1000);
	assert_int_equal(ld_le16(t->ram + TV_STACK - 4), 0x100);
	assert_int_equal(ld_le16(t->ram + TV_STACK - 2) &
				 (X86_FL_IF | X86_FL_TF),
			 X86_FL_IF | X86_FL_TF);
	assert_false(v->rflags_sys & (X86_FL_IF | X86_FL_TF | X86_FL_AC));
	assert_int_equal(tv_run(t, 1), -1);
	assert_int_equal(v->rip, TV_CODE - 0x1000);
	assert_int_equal(v->segs[X86_CS].sel, 0x100);
	assert_true(v->rflags_sys & X86_FL_IF);
	tv_free(t);
}

static void real_mode_fault_pushes_no_error_code(void **state)
{
	struct testvm *t = tv_new();
	struct vcpu *v = t->v;

	st_le32(t->ram + X86_VEC_GP * 4, 0x05000010);
	v->exc = (struct soft_exception){.vector = X86_VEC_GP,
					 .has_error = true};
	assert_true(soft_deliver_exception(v));
	assert_int_equal(v->gpr[X86_RSP], TV_STACK - 6);
	tv_free(t);
}

static void real_mode_vector_past_the_limit_is_gp_then_shutdown(void **state)
{
	struct testvm *t = tv_new();
	struct vcpu *v = t->v;

	st_le32(t->ram + X86_VEC_GP * 4, 0x05000010);
	v->idtr.limit = X86_VEC_GP * 4 + 3;
	assert_true(soft_deliver_interrupt(v, 0x21, false));
	assert_int_equal(v->rip, 0x10);
	v->idtr.limit = 3;
	v->rip = TV_CODE;
	assert_false(soft_deliver_interrupt(v, 0x21, false));
	tv_free(t);
}

static void gate_of_16_bits_pushes_words_and_truncates_the_target(void **state)
{
	struct testvm *t = setup_ring(0);
	struct vcpu *v = t->v;

	tv_idt(t, 0x21, tv_gate(CODE16, 0xdead5000, SYS_INT16, 0));
	v->rflags_sys |= X86_FL_IF;
	assert_true(soft_deliver_interrupt(v, 0x21, false));
	assert_int_equal(v->rip, 0x5000);
	assert_int_equal(v->gpr[X86_RSP], TV_STACK - 6);
	assert_int_equal(ld_le16(t->ram + TV_STACK - 6), TV_CODE);
	assert_int_equal(ld_le16(t->ram + TV_STACK - 4), TV_CS0);
	assert_false(v->rflags_sys & X86_FL_IF);
	tv_free(t);
}

static void trap_gate_keeps_if_and_interrupt_gate_clears_it(void **state)
{
	for (unsigned type = SYS_INT32; type <= SYS_TRAP32; type++) {
		struct testvm *t = setup_ring(0);

		tv_idt(t, 0x21, tv_gate(TV_CS0, 0x5000, type, 0));
		t->v->rflags_sys |= X86_FL_IF | X86_FL_NT | X86_FL_TF;
		assert_true(soft_deliver_interrupt(t->v, 0x21, false));
		assert_int_equal(!!(t->v->rflags_sys & X86_FL_IF),
				 type == SYS_TRAP32);
		assert_false(t->v->rflags_sys & (X86_FL_NT | X86_FL_TF));
		tv_free(t);
	}
}

static void software_interrupt_needs_the_gates_privilege(void **state)
{
	struct testvm *t = setup_ring(3);
	struct vcpu *v = t->v;

	tv_idt(t, 0x21, tv_gate(TV_CS0, 0x5000, SYS_INT32, 0));
	tv_idt(t, X86_VEC_GP, tv_gate(TV_CS0, 0x5100, SYS_INT32, 0));
	TV_CODE_AT(t, TV_CODE, 0xcd, 0x21);
	assert_int_equal(tv_run(t, 1), 0x21);
	assert_true(soft_deliver_exception(v));
	assert_int_equal(v->rip, 0x5100);
	assert_int_equal(word(t, 0), 0x21 * 8 + 2); /* IDT, not external */
	assert_int_equal(word(t, 1), TV_CODE);
	tv_free(t);

	t = setup_ring(3);
	tv_idt(t, 0x21, tv_gate(TV_CS0, 0x5000, SYS_INT32, 3));
	TV_CODE_AT(t, TV_CODE, 0xcd, 0x21);
	assert_int_equal(tv_run(t, 1), 0x21);
	assert_true(soft_deliver_exception(t->v));
	assert_int_equal(t->v->rip, 0x5000);
	assert_int_equal(word(t, 0), TV_CODE + 2);
	assert_int_equal(word(t, 3), TV_STACK);
	assert_int_equal(word(t, 4), TV_DS3);
	tv_free(t);
}

static void fault_in_the_delivery_of_an_interrupt_is_external(void **state)
{
	struct testvm *t = setup_ring(0);

	tv_idt(t, 0x21, tv_gate(0x1f8, 0x5000, SYS_INT32, 0));
	tv_idt(t, X86_VEC_GP, tv_gate(TV_CS0, 0x5100, SYS_INT32, 0));
	assert_true(soft_deliver_interrupt(t->v, 0x21, false));
	assert_int_equal(t->v->rip, 0x5100);
	assert_int_equal(word(t, 0), 0x1f8 | 1);
	tv_free(t);
}

/* ---- virtual-8086 mode ---- */

static void interrupt_out_of_vm86_saves_segments_and_iret_restores(void **state)
{
	struct testvm *t = setup_vm86(0);
	struct vcpu *v = t->v;

	tv_idt(t, 0x21, tv_gate(TV_CS0, 0x5000, SYS_INT32, 0));
	TV_CODE_AT(t, 0x5000, 0xcf);
	assert_true(soft_deliver_interrupt(v, 0x21, false));
	assert_false(v->is_vm86);
	assert_int_equal(v->cpl, 0);
	assert_int_equal(v->gpr[X86_RSP], 0x7000 - 36);
	assert_int_equal(word(t, 0), 0);
	assert_int_equal(word(t, 1), TV_CODE >> 4);
	assert_true(word(t, 2) & X86_FL_VM);
	assert_int_equal(word(t, 3), VM_TOP);
	assert_int_equal(word(t, 4), 0x7a0);
	assert_int_equal(word(t, 5), 0x700 + X86_ES);
	assert_int_equal(word(t, 6), 0x700 + X86_DS);
	assert_int_equal(word(t, 7), 0x700 + X86_FS);
	assert_int_equal(word(t, 8), 0x700 + X86_GS);
	assert_true(v->segs[X86_DS].attr & SEG_UNUSABLE);
	assert_int_equal(v->segs[X86_GS].sel, 0);
	assert_int_equal(tv_run(t, 1), -1);
	assert_true(v->is_vm86);
	assert_int_equal(v->rip, 0);
	assert_int_equal(v->gpr[X86_RSP], VM_TOP);
	assert_int_equal(v->segs[X86_GS].base, (0x700 + X86_GS) << 4);
	assert_int_equal(v->cpl, 3);
	tv_free(t);
}

static void vm86_code_needs_iopl_3_for_what_touches_if(void **state)
{
	static const u8 sensitive[][2] = {
		{0xfa}, {0xfb}, {0x9c}, {0x9d}, {0xcd, 0x21}, {0xcf},
	};

	for (unsigned i = 0; i < ARRAY_SIZE(sensitive); i++) {
		struct testvm *t = setup_vm86(2);

		tv_load(t, TV_CODE, sensitive[i], 2);
		assert_int_equal(tv_run(t, 1), X86_VEC_GP);
		assert_int_equal(t->v->exc.error, 0);
		tv_free(t);
		t = setup_vm86(3);
		tv_load(t, TV_CODE, sensitive[i], 2);
		assert_int_equal(tv_run(t, 1),
				 sensitive[i][0] == 0xcd ? 0x21 : -1);
		tv_free(t);
	}
}

static void int3_in_vm86_ignores_iopl(void **state)
{
	struct testvm *t = setup_vm86(0);

	TV_CODE_AT(t, TV_CODE, 0xcc);
	assert_int_equal(tv_run(t, 1), X86_VEC_BP);
	tv_free(t);
}

static void vm86_interrupt_needs_a_ring_0_handler(void **state)
{
	struct testvm *t = setup_vm86(0);

	tv_idt(t, 0x21, tv_gate(CONF, 0x5000, SYS_INT32, 0));
	tv_idt(t, X86_VEC_GP, tv_gate(TV_CS0, 0x5100, SYS_INT32, 0));
	assert_true(soft_deliver_interrupt(t->v, 0x21, false));
	assert_int_equal(t->v->rip, 0x5100);
	assert_int_equal(word(t, 0), CONF | 1);
	tv_free(t);
}

static void vm86_iret_keeps_vm_and_iopl(void **state)
{
	struct testvm *t = setup_vm86(3);
	struct vcpu *v = t->v;
	u8 *stack = t->ram + 0x7a00 + VM_TOP;

	TV_CODE_AT(t, TV_CODE, 0xcf);
	st_le16(stack, 0x20);
	st_le16(stack + 2, TV_CODE >> 4);
	st_le16(stack + 4, X86_FL_IF | X86_FL_CF);
	assert_int_equal(tv_run(t, 1), -1);
	assert_int_equal(v->rip, 0x20);
	assert_int_equal(v->gpr[X86_RSP], VM_TOP + 6);
	assert_int_equal(soft_rflags(v),
			 2 | X86_FL_VM | X86_FL_IOPL | X86_FL_IF | X86_FL_CF);
	tv_free(t);
}

static void vm86_code_has_no_protected_mode_instructions(void **state)
{
	static const u8 codes[][3] = {
		{0x0f, 0x00, 0xc8}, /* str ax */
		{0x0f, 0x00, 0xd8}, /* ltr ax */
		{0x0f, 0x02, 0xc0}, /* lar ax, ax */
		{0x0f, 0x03, 0xc0}, /* lsl ax, ax */
		{0x0f, 0x00, 0xe0}, /* verr ax */
		{0x63, 0xc0},	    /* arpl ax, ax */
	};

	for (unsigned i = 0; i < ARRAY_SIZE(codes); i++) {
		struct testvm *t = setup_vm86(3);

		tv_load(t, TV_CODE, codes[i], 3);
		assert_int_equal(tv_run(t, 1), X86_VEC_UD);
		tv_free(t);
	}
}

/* ---- IRET in protected mode ---- */

static void push_frame(struct testvm *t, u32 eip, u32 cs, u32 flags)
{
	u8 *at = t->ram + t->v->gpr[X86_RSP];

	st_le32(at, eip);
	st_le32(at + 4, cs);
	st_le32(at + 8, flags);
}

static void iret_in_ring_3_changes_neither_iopl_nor_if(void **state)
{
	struct testvm *t = setup_ring(3);

	TV_CODE_AT(t, TV_CODE, 0xcf);
	push_frame(t, 0x5000, TV_CS3,
		   X86_FL_IF | X86_FL_IOPL | X86_FL_CF | X86_FL_VM);
	assert_int_equal(tv_run(t, 1), -1);
	assert_int_equal(soft_rflags(t->v), 2 | X86_FL_CF);
	assert_int_equal(t->v->gpr[X86_RSP], TV_STACK + 12);
	tv_free(t);
}

static void iret_to_ring_3_loads_the_stack_and_hides_segments(void **state)
{
	struct testvm *t = setup_ring(0);
	struct vcpu *v = t->v;

	TV_CODE_AT(t, TV_CODE, 0xcf);
	push_frame(t, 0x5000, TV_CS3, X86_FL_IF | X86_FL_IOPL);
	st_le32(t->ram + TV_STACK + 12, 0x9000);
	st_le32(t->ram + TV_STACK + 16, TV_DS3);
	tv_seg(t, X86_FS, TV_DS3);
	assert_int_equal(tv_run(t, 1), -1);
	assert_int_equal(v->cpl, 3);
	assert_int_equal(v->gpr[X86_RSP], 0x9000);
	assert_int_equal(v->segs[X86_SS].sel, TV_DS3);
	assert_true(v->segs[X86_DS].attr & SEG_UNUSABLE);
	assert_int_equal(v->segs[X86_FS].sel, TV_DS3);
	assert_true(soft_rflags(v) & X86_FL_IF);
	tv_free(t);
}

static void iret_to_ring_3_clears_the_rpl_of_null_selectors(void **state)
{
	static const u8 segs[] = {X86_ES, X86_DS, X86_FS, X86_GS};
	struct testvm *t = setup_ring(0);
	struct vcpu *v = t->v;

	TV_CODE_AT(t, TV_CODE, 0xcf);
	push_frame(t, 0x5000, TV_CS3, X86_FL_IF | X86_FL_IOPL);
	st_le32(t->ram + TV_STACK + 12, 0x9000);
	st_le32(t->ram + TV_STACK + 16, TV_DS3);
	for (unsigned i = 0; i < ARRAY_SIZE(segs); i++) {
		soft_seg_set_null(&v->segs[segs[i]], 3);
		v->segs[segs[i]].base = 0x1000 * i;
	}
	assert_int_equal(tv_run(t, 1), -1);
	assert_int_equal(v->cpl, 3);
	for (unsigned i = 0; i < ARRAY_SIZE(segs); i++) {
		assert_int_equal(v->segs[segs[i]].sel, 0);
		assert_int_equal(v->segs[segs[i]].base, 0x1000 * i);
	}
	tv_free(t);
}

static void iret_checks_the_outer_stack_before_it_changes_anything(void **state)
{
	static const struct {
		u16 ss;
		int vector;
		u32 error;
	} cases[] = {
		{0, X86_VEC_GP, 0},
		{TV_DS0, X86_VEC_GP, TV_DS0},
		{TV_CS3, X86_VEC_GP, TV_CS3 & 0xfc},
		{TV_DS3, X86_VEC_SS, TV_DS3 & 0xfc}, /* made absent */
	};

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		struct testvm *t = setup_ring(0);

		TV_CODE_AT(t, TV_CODE, 0xcf);
		tv_gdt(t, TV_DS3, tv_desc(0, 0xfffff, 0xc073));
		push_frame(t, 0x5000, TV_CS3, X86_FL_CF);
		st_le32(t->ram + TV_STACK + 16, cases[i].ss);
		assert_int_equal(tv_run(t, 1), cases[i].vector);
		assert_int_equal(t->v->exc.error, cases[i].error);
		assert_int_equal(t->v->cpl, 0);
		assert_int_equal(t->v->gpr[X86_RSP], TV_STACK);
		assert_false(soft_rflags(t->v) & X86_FL_CF);
		tv_free(t);
	}
}

static void iret_of_16_bits_keeps_the_upper_flags(void **state)
{
	struct testvm *t = setup_ring(0);

	TV_CODE_AT(t, TV_CODE, 0x66, 0xcf);
	t->v->rflags_sys |= X86_FL_AC | X86_FL_ID;
	st_le16(t->ram + TV_STACK, 0x5000);
	st_le16(t->ram + TV_STACK + 2, TV_CS0);
	st_le16(t->ram + TV_STACK + 4, X86_FL_ZF);
	assert_int_equal(tv_run(t, 1), -1);
	assert_int_equal(t->v->rip, 0x5000);
	assert_int_equal(soft_rflags(t->v),
			 2 | X86_FL_ZF | X86_FL_AC | X86_FL_ID);
	assert_int_equal(t->v->gpr[X86_RSP], TV_STACK + 6);
	tv_free(t);
}

static void real_mode_iretd_leaves_vif_vip_and_vm(void **state)
{
	struct testvm *t = tv_new();

	TV_CODE_AT(t, TV_CODE, 0x66, 0xcf);
	push_frame(t, 0x5000, 0,
		   X86_FL_VM | X86_FL_VIF | X86_FL_VIP | X86_FL_AC | X86_FL_ID |
			   X86_FL_IOPL | X86_FL_NT);
	assert_int_equal(tv_run(t, 1), -1);
	assert_int_equal(soft_rflags(t->v),
			 2 | X86_FL_AC | X86_FL_ID | X86_FL_IOPL | X86_FL_NT);
	tv_free(t);
}

int main(void)
{
#define T(f) cmocka_unit_test(f)
	const struct CMUnitTest tests[] = {
		T(call_gate_switches_stacks_and_copies_parameters),
		T(call_gate_of_16_bits_pushes_words),
		T(call_gate_to_a_conforming_segment_keeps_the_ring),
		T(call_gate_faults_name_what_is_wrong),
		T(inner_stack_faults_name_the_stack_or_the_tss),
		T(jump_through_a_gate_may_not_change_the_ring),
		T(far_transfer_checks_type_ring_presence_and_limit),
		T(far_return_may_not_go_inwards),
		T(real_mode_far_call_and_return_keep_16_bits),
		T(real_mode_interrupt_pushes_three_words),
		T(real_mode_fault_pushes_no_error_code),
		T(real_mode_vector_past_the_limit_is_gp_then_shutdown),
		T(gate_of_16_bits_pushes_words_and_truncates_the_target),
		T(trap_gate_keeps_if_and_interrupt_gate_clears_it),
		T(software_interrupt_needs_the_gates_privilege),
		T(fault_in_the_delivery_of_an_interrupt_is_external),
		T(interrupt_out_of_vm86_saves_segments_and_iret_restores),
		T(vm86_code_needs_iopl_3_for_what_touches_if),
		T(int3_in_vm86_ignores_iopl),
		T(vm86_interrupt_needs_a_ring_0_handler),
		T(vm86_iret_keeps_vm_and_iopl),
		T(vm86_code_has_no_protected_mode_instructions),
		T(iret_in_ring_3_changes_neither_iopl_nor_if),
		T(iret_to_ring_3_loads_the_stack_and_hides_segments),
		T(iret_to_ring_3_clears_the_rpl_of_null_selectors),
		T(iret_checks_the_outer_stack_before_it_changes_anything),
		T(iret_of_16_bits_keeps_the_upper_flags),
		T(real_mode_iretd_leaves_vif_vip_and_vm),
	};

	return test_run("gate", tests);
}
