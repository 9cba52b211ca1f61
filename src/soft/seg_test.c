/* SPDX-License-Identifier: Apache-2.0 */
/* Segment loads, limits and the instructions that look at descriptors, in 32-
 * and 16-bit code. */
#include "test/test.h"

#include "soft/testvm.h"

#include "soft/soft_sys.h"

#define SEL TV_FREE

static struct testvm *setup_ring(unsigned cpl)
{
	struct testvm *t = tv_new();

	tv_protected(t, cpl);
	return t;
}

/* ---- loads ---- */

struct load_case {
	u32 attr;
	unsigned cpl, rpl;
	int vector; /* -1: loads */
};

static void run_loads(const struct load_case *c, size_t n, u8 modrm)
{
	for (size_t i = 0; i < n; i++) {
		struct testvm *t = setup_ring(c[i].cpl);
		unsigned seg = modrm >> 3 & 7;
		u16 sel = (u16)(SEL | c[i].rpl), old = t->v->segs[seg].sel;
		u8 code[] = {0x8e, modrm}; /* mov seg, ax */

		tv_gdt(t, SEL, tv_desc(0x1234, 0xfff, c[i].attr));
		tv_load(t, TV_CODE, code, sizeof(code));
		t->v->gpr[X86_RAX] = sel;
		assert_int_equal(tv_run(t, 1), c[i].vector);
		if (c[i].vector < 0) {
			assert_int_equal(t->v->segs[seg].sel, sel);
			assert_int_equal(t->v->segs[seg].base, 0x1234);
			/* The accessed bit is set in the table. */
			assert_true(t->ram[TV_GDT + SEL + 5] & 1);
		} else {
			assert_int_equal(t->v->exc.error, SEL);
			assert_int_equal(t->v->segs[seg].sel, old);
		}
		tv_free(t);
	}
}

static void data_segment_loads_check_type_privilege_and_presence(void **state)
{
	static const struct load_case cases[] = {
		{0x4092, 0, 0, -1},	    /* data */
		{0x4090, 0, 3, X86_VEC_GP}, /* RPL above DPL */
		{0x40f2, 3, 3, -1},
		{0x40b2, 3, 3, X86_VEC_GP}, /* CPL above DPL */
		{0x40b2, 0, 2, X86_VEC_GP},
		{0x40b2, 0, 1, -1},
		{0x4098, 0, 0, X86_VEC_GP}, /* execute-only */
		{0x409a, 0, 0, -1},	    /* readable code */
		{0x409a, 3, 3, X86_VEC_GP},
		{0x409e, 3, 3, -1},	    /* conforming: no DPL check */
		{0x4012, 0, 0, X86_VEC_NP}, /* not present */
		{0x0082, 0, 0, X86_VEC_GP}, /* LDT */
	};

	run_loads(cases, ARRAY_SIZE(cases), 0xd8); /* DS */
	run_loads(cases, ARRAY_SIZE(cases), 0xe8); /* GS */
}

static void stack_segment_loads_are_stricter(void **state)
{
	static const struct load_case cases[] = {
		{0x4092, 0, 0, -1},
		{0x4096, 0, 0, -1},	    /* expand-down */
		{0x4092, 0, 1, X86_VEC_GP}, /* RPL is not CPL */
		{0x40b2, 0, 0, X86_VEC_GP}, /* DPL is not CPL */
		{0x4090, 0, 0, X86_VEC_GP}, /* read-only */
		{0x409a, 0, 0, X86_VEC_GP}, /* code */
		{0x4012, 0, 0, X86_VEC_SS}, /* not present */
	};

	run_loads(cases, ARRAY_SIZE(cases), 0xd0);
}

static void null_selector_loads_but_not_into_ss(void **state)
{
	struct testvm *t = setup_ring(0);

	TV_CODE_AT(t, TV_CODE, 0x8e, 0xd8, /* mov ds, ax */
		   0xa1, 0, 0, 0, 0);	   /* mov eax, [0] */
	t->v->gpr[X86_RAX] = 3;
	assert_int_equal(tv_run(t, 1), -1);
	assert_int_equal(t->v->segs[X86_DS].sel, 3);
	assert_int_equal(tv_run(t, 1), X86_VEC_GP);
	assert_int_equal(t->v->exc.error, 0);
	t->v->rip = TV_CODE;
	TV_CODE_AT(t, TV_CODE, 0x8e, 0xd0); /* mov ss, ax */
	assert_int_equal(tv_run(t, 1), X86_VEC_GP);
	TV_CODE_AT(t, TV_CODE, 0x8e, 0xc8); /* mov cs, ax */
	assert_int_equal(tv_run(t, 1), X86_VEC_UD);
	tv_free(t);
}

static void selector_outside_its_table_is_gp(void **state)
{
	struct testvm *t = setup_ring(0);

	TV_CODE_AT(t, TV_CODE, 0x8e, 0xd8);
	t->v->gdtr.limit = SEL + 6; /* a byte short */
	tv_gdt(t, SEL, tv_desc(0, 0xfff, 0x4092));
	t->v->gpr[X86_RAX] = SEL;
	assert_int_equal(tv_run(t, 1), X86_VEC_GP);
	assert_int_equal(t->v->exc.error, SEL);
	t->v->gpr[X86_RAX] = SEL | 4; /* no LDT */
	t->v->ldtr.attr |= SEG_UNUSABLE;
	assert_int_equal(tv_run(t, 1), X86_VEC_GP);
	assert_int_equal(t->v->exc.error, SEL | 4);
	tv_free(t);
}

static void local_table_serves_selectors_with_ti(void **state)
{
	struct testvm *t = setup_ring(0);

	tv_gdt(t, SEL, tv_desc(0x6000, 15, 0x82));
	st_le64(t->ram + 0x6008, tv_desc(0x77000, 0xfff, 0x4092));
	TV_CODE_AT(t, TV_CODE, 0x0f, 0x00, 0xd0, /* lldt ax */
		   0x8e, 0xc1);			 /* mov es, cx */
	t->v->gpr[X86_RAX] = SEL;
	t->v->gpr[X86_RCX] = 8 | 4;
	assert_int_equal(tv_run(t, 2), -1);
	assert_int_equal(t->v->segs[X86_ES].base, 0x77000);
	tv_free(t);
}

static void lss_that_faults_leaves_the_register_alone(void **state)
{
	struct testvm *t = setup_ring(0);

	TV_CODE_AT(t, TV_CODE, 0x0f, 0xb2, 0x25, 0, 0x60, 0, 0);
	st_le32(t->ram + 0x6000, 0x1111);
	st_le16(t->ram + 0x6004, TV_DS3);
	assert_int_equal(tv_run(t, 1), X86_VEC_GP);
	assert_int_equal(t->v->gpr[X86_RSP], TV_STACK);
	st_le16(t->ram + 0x6004, TV_DS0);
	assert_int_equal(tv_run(t, 1), -1);
	assert_int_equal(t->v->gpr[X86_RSP], 0x1111);
	tv_free(t);
}

/* ---- limits ---- */

/* mov eax, es:[off] with a segment of this limit; true: it faults. */
static bool read_faults(u32 limit, u32 attr, u32 off)
{
	struct testvm *t = setup_ring(0);
	u8 code[] = {0x26, 0xa1, 0, 0, 0, 0};
	int vector;

	tv_gdt(t, SEL, tv_desc(0, limit, attr));
	tv_seg(t, X86_ES, SEL);
	soft_mode_changed(t->v);
	st_le32(code + 2, off);
	tv_load(t, TV_CODE, code, sizeof(code));
	vector = tv_run(t, 1);
	assert_true(vector == -1 || vector == X86_VEC_GP);
	tv_free(t);
	return vector >= 0;
}

static void limit_counts_the_last_byte_of_an_access(void **state)
{
	assert_false(read_faults(0x1003, 0x4093, 0x1000));
	assert_true(read_faults(0x1002, 0x4093, 0x1000));
	assert_false(read_faults(1, 0xc093, 0x1ffc)); /* limit 0x1fff */
	assert_true(read_faults(1, 0xc093, 0x1ffd));
	assert_true(read_faults(0xfffff, 0x4093, 0xfffffffe));
}

static void expand_down_segment_lies_above_its_limit(void **state)
{
	assert_true(read_faults(0xfff, 0x4097, 0xfff));
	assert_false(read_faults(0xfff, 0x4097, 0x1000));
	assert_true(read_faults(0xfff, 0x4097, 0xfffffffd));
	/* D/B 0: the top is 64 KiB. */
	assert_false(read_faults(0xfff, 0x97, 0xfffc));
	assert_true(read_faults(0xfff, 0x97, 0xfffd));
	/* Nothing is inside. */
	assert_true(read_faults(0xffff, 0x97, 0x8000));
}

static void access_rights_hold_for_each_use(void **state)
{
	static const struct {
		u32 attr;
		u8 code[7];
		int vector;
	} cases[] = {
		/* mov es:[0x6000], eax and mov eax, es:[0x6000] */
		{0xc091, {0x26, 0xa3, 0, 0x60}, X86_VEC_GP}, /* read-only */
		{0xc091, {0x26, 0xa1, 0, 0x60}, -1},
		{0xc09b, {0x26, 0xa3, 0, 0x60}, X86_VEC_GP}, /* code */
		{0xc09b, {0x26, 0xa1, 0, 0x60}, -1},
		{0xc093, {0x26, 0xa3, 0, 0x60}, -1},
	};

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		struct testvm *t = setup_ring(0);

		tv_gdt(t, SEL, tv_desc(0, 0xfffff, cases[i].attr));
		tv_seg(t, X86_ES, SEL);
		soft_mode_changed(t->v);
		tv_load(t, TV_CODE, cases[i].code, 7);
		assert_int_equal(tv_run(t, 1), cases[i].vector);
		tv_free(t);
	}
}

static void store_through_cs_is_gp_even_when_all_is_flat(void **state)
{
	static const u8 codes[][7] = {
		{0x2e, 0xa3, 0, 0x60},		   /* mov cs:[m], eax */
		{0x2e, 0x01, 0x05, 0, 0x60},	   /* add cs:[m], eax */
		{0x2e, 0x89, 0x05, 0, 0x60},	   /* mov cs:[m], eax */
		{0x2e, 0xff, 0x05, 0, 0x60},	   /* inc cs:[m] */
		{0x2e, 0x0f, 0xc1, 0x05, 0, 0x60}, /* xadd cs:[m], eax */
		{0x2e, 0x0f, 0x94, 0x05, 0, 0x60}, /* sete cs:[m] */
		{0x2e, 0xd1, 0x25, 0, 0x60},	   /* shl cs:[m], 1 */
	};

	for (unsigned i = 0; i < ARRAY_SIZE(codes); i++) {
		struct testvm *t = setup_ring(0);

		tv_load(t, TV_CODE, codes[i], 7);
		/* A load first, so that the page is in the TLB. */
		TV_CODE_AT(t, 0x5000, 0xff, 0x05, 0, 0x60, 0, 0);
		t->v->rip = 0x5000;
		assert_int_equal(tv_run(t, 1), -1);
		t->v->rip = TV_CODE;
		assert_int_equal(tv_run(t, 1), X86_VEC_GP);
		assert_int_equal(ld_le32(t->ram + 0x6000), 1);
		tv_free(t);
	}
}

static void stack_limit_violation_is_ss(void **state)
{
	static const struct {
		u32 limit, attr, esp;
		int vector;
	} cases[] = {
		{0xfff, 0x4093, 0x1000, -1},
		{0xfff, 0x4093, 0x1001, X86_VEC_SS},
		{0xfff, 0x4097, 0x1004, -1}, /* expand-down */
		{0xfff, 0x4097, 0x1003, X86_VEC_SS},
		{0xffff, 0x0093, 0x50000, -1}, /* 16-bit: SP 0 wraps */
		{0xfff, 0x0093, 0x50000, X86_VEC_SS},
	};

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		struct testvm *t = setup_ring(0);

		tv_gdt(t, SEL, tv_desc(0, cases[i].limit, cases[i].attr));
		tv_seg(t, X86_SS, SEL);
		soft_mode_changed(t->v);
		t->v->gpr[X86_RSP] = cases[i].esp;
		TV_CODE_AT(t, TV_CODE, 0x50); /* push eax */
		assert_int_equal(tv_run(t, 1), cases[i].vector);
		if (cases[i].vector < 0 && !(cases[i].attr & SEG_DB))
			assert_int_equal(t->v->gpr[X86_RSP], 0x5fffc);
		if (cases[i].vector >= 0) {
			assert_int_equal(t->v->exc.error, 0);
			assert_int_equal(t->v->gpr[X86_RSP], cases[i].esp);
		}
		tv_free(t);
	}
}

static void code_past_the_limit_is_gp(void **state)
{
	struct testvm *t = setup_ring(0);

	TV_CODE_AT(t, TV_CODE, 0x90, 0xb8, 1, 0, 0, 0);
	tv_gdt(t, SEL, tv_desc(0, TV_CODE + 4, 0x409b));
	tv_seg(t, X86_CS, SEL);
	soft_mode_changed(t->v);
	assert_int_equal(tv_run(t, 1), -1);
	assert_int_equal(tv_run(t, 1), X86_VEC_GP); /* a byte is missing */
	assert_int_equal(t->v->rip, TV_CODE + 1);
	tv_free(t);
}

static void real_mode_keeps_limits_of_protected_mode(void **state)
{
	struct testvm *t = tv_new();
	struct vcpu *v = t->v;

	/* mov eax, [0x123456] with a 32-bit address */
	TV_CODE_AT(t, TV_CODE, 0x67, 0x66, 0xa1, 0x56, 0x34, 0x12, 0);
	st_le32(t->ram + 0x123456, 0xfeedf00d);
	assert_int_equal(tv_run(t, 1), X86_VEC_GP);
	v->segs[X86_DS].limit = ~0u; /* "unreal" */
	assert_int_equal(tv_run(t, 1), -1);
	assert_int_equal(v->gpr[X86_RAX], 0xfeedf00d);
	soft_load_seg(v, X86_DS, 0x10);
	assert_int_equal(v->segs[X86_DS].limit, ~0u);
	assert_int_equal(v->segs[X86_DS].base, 0x100);
	tv_free(t);
}

static void real_mode_word_at_the_end_of_a_segment_is_gp(void **state)
{
	struct testvm *t = tv_new();

	TV_CODE_AT(t, TV_CODE, 0xa1, 0xff, 0xff); /* mov ax, [0xffff] */
	assert_int_equal(tv_run(t, 1), X86_VEC_GP);
	TV_CODE_AT(t, TV_CODE, 0x36, 0xa1, 0xff, 0xff); /* ss: */
	assert_int_equal(tv_run(t, 1), X86_VEC_SS);
	tv_free(t);
}

/* ---- the instructions that inspect ---- */

static void lar_lsl_verr_verw_tell_by_zf(void **state)
{
	static const struct {
		u32 attr;
		unsigned cpl;
		bool lar, lsl, verr, verw;
	} cases[] = {
		{0xc093, 0, 1, 1, 1, 1}, {0xc091, 0, 1, 1, 1, 0},
		{0xc09b, 0, 1, 1, 1, 0}, {0xc099, 0, 1, 1, 0, 0},
		{0xc093, 3, 0, 0, 0, 0}, {0xc09f, 3, 1, 1, 1, 0},
		{0x0089, 0, 1, 1, 0, 0}, /* TSS */
		{0x008c, 0, 1, 0, 0, 0}, /* call gate */
		{0x008e, 0, 0, 0, 0, 0}, /* interrupt gate */
		{0x0085, 0, 1, 0, 0, 0}, /* task gate */
	};
	static const u8 codes[4][3] = {
		{0x0f, 0x02, 0xc8}, /* lar ecx, eax */
		{0x0f, 0x03, 0xc8}, /* lsl ecx, eax */
		{0x0f, 0x00, 0xe0}, /* verr ax */
		{0x0f, 0x00, 0xe8}, /* verw ax */
	};

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++)
		for (unsigned j = 0; j < 4; j++) {
			bool want = j == 0   ? cases[i].lar
				    : j == 1 ? cases[i].lsl
				    : j == 2 ? cases[i].verr
					     : cases[i].verw;
			struct testvm *t = setup_ring(cases[i].cpl);

			tv_gdt(t, SEL, tv_desc(0, 0x123, cases[i].attr));
			tv_load(t, TV_CODE, codes[j], 3);
			t->v->gpr[X86_RAX] = SEL | cases[i].cpl;
			t->v->gpr[X86_RCX] = 0x55;
			assert_int_equal(tv_run(t, 1), -1);
			assert_int_equal(!!(soft_rflags(t->v) & X86_FL_ZF),
					 want);
			if (j < 2 && !want)
				assert_int_equal(t->v->gpr[X86_RCX], 0x55);
			if (j == 0 && want)
				assert_int_equal(t->v->gpr[X86_RCX] & 0xf0ff00,
						 cases[i].attr << 8 & 0xf0ff00);
			if (j == 1 && want)
				assert_int_equal(t->v->gpr[X86_RCX],
						 cases[i].attr & SEG_G
							 ? 0x123fff
							 : 0x123);
			tv_free(t);
		}
}

static void arpl_raises_rpl(void **state)
{
	struct testvm *t = setup_ring(3);

	TV_CODE_AT(t, TV_CODE, 0x63, 0xc8, 0x63, 0xc8); /* arpl ax, cx */
	t->v->gpr[X86_RAX] = 0x20;
	t->v->gpr[X86_RCX] = 3;
	assert_int_equal(tv_run(t, 1), -1);
	assert_int_equal(t->v->gpr[X86_RAX], 0x23);
	assert_true(soft_rflags(t->v) & X86_FL_ZF);
	assert_int_equal(tv_run(t, 1), -1);
	assert_false(soft_rflags(t->v) & X86_FL_ZF);
	tv_free(t);
}

static void lgdt_of_16_bits_loads_24_bits_of_base(void **state)
{
	struct testvm *t = tv_new();

	TV_CODE_AT(t, TV_CODE, 0x0f, 0x01, 0x16, 0, 0x60, /* lgdt */
		   0x66, 0x0f, 0x01, 0x16, 0, 0x60);	  /* o32 lgdt */
	st_le16(t->ram + 0x6000, 0x1234);
	st_le32(t->ram + 0x6002, 0xabcdef01);
	assert_int_equal(tv_run(t, 1), -1);
	assert_int_equal(t->v->gdtr.limit, 0x1234);
	assert_int_equal(t->v->gdtr.base, 0xcdef01);
	assert_int_equal(tv_run(t, 1), -1);
	assert_int_equal(t->v->gdtr.base, 0xabcdef01);
	tv_free(t);
}

static void ltr_marks_the_descriptor_busy(void **state)
{
	struct testvm *t = setup_ring(0);

	TV_CODE_AT(t, TV_CODE, 0x0f, 0x00, 0xd8, 0x0f, 0x00, 0xd8);
	tv_gdt(t, SEL, tv_desc(0x6000, 0x67, 0x89));
	t->v->gpr[X86_RAX] = SEL;
	assert_int_equal(tv_run(t, 1), -1);
	assert_int_equal(t->ram[TV_GDT + SEL + 5], 0x8b);
	assert_int_equal(t->v->tr.base, 0x6000);
	assert_int_equal(tv_run(t, 1), X86_VEC_GP); /* busy now */
	assert_int_equal(t->v->exc.error, SEL);
	tv_free(t);
}

static void lmsw_sets_pe_and_never_clears_it(void **state)
{
	struct testvm *t = tv_new();

	TV_CODE_AT(t, TV_CODE, 0x0f, 0x01, 0xf0, 0x0f, 0x01, 0xf1);
	t->v->gpr[X86_RAX] = 1;
	assert_int_equal(tv_run(t, 1), -1);
	assert_true(t->v->is_protected);
	assert_int_equal(tv_run(t, 1), -1); /* lmsw cx, 0 */
	assert_true(t->v->is_protected);
	tv_free(t);
}

int main(void)
{
#define T(f) cmocka_unit_test(f)
	const struct CMUnitTest tests[] = {
		T(data_segment_loads_check_type_privilege_and_presence),
		T(stack_segment_loads_are_stricter),
		T(null_selector_loads_but_not_into_ss),
		T(selector_outside_its_table_is_gp),
		T(local_table_serves_selectors_with_ti),
		T(lss_that_faults_leaves_the_register_alone),
		T(limit_counts_the_last_byte_of_an_access),
		T(expand_down_segment_lies_above_its_limit),
		T(access_rights_hold_for_each_use),
		T(store_through_cs_is_gp_even_when_all_is_flat),
		T(stack_limit_violation_is_ss),
		T(code_past_the_limit_is_gp),
		T(real_mode_keeps_limits_of_protected_mode),
		T(real_mode_word_at_the_end_of_a_segment_is_gp),
		T(lar_lsl_verr_verw_tell_by_zf),
		T(arpl_raises_rpl),
		T(lgdt_of_16_bits_loads_24_bits_of_base),
		T(ltr_marks_the_descriptor_busy),
		T(lmsw_sets_pe_and_never_clears_it),
	};

	return test_run("seg", tests);
}
