/* SPDX-License-Identifier: Apache-2.0 */
/* Which cached translations go, and which stay: CR3 loads, PCIDs, INVLPG,
 * INVPCID. A test changes a page-table entry behind the TLB's back; an access
 * then tells whether it was read again. */
#include "test/test.h"

#include <asm/kvm_para.h>

#include "soft/leafvm.h"

#define ROOT_B 0x18000u
#define PAGE   9u /* of the window; its TLB index is used by nothing else */
#define VA     (LV_DATA + PAGE * 4096u)
#define OLD    LV_PHYS
#define NEW    (LV_PHYS + 15 * 4096u)
#define RWU    7u
#define G      X86_PTE_G
#define KEEP   BIT64(63)

static struct testvm *setup(u64 cr4)
{
	struct testvm *t = lv_new();

	memcpy(t->ram + ROOT_B, t->ram + LV_PML4, 4096);
	st_le64(t->ram + OLD, OLD);
	st_le64(t->ram + NEW, NEW);
	t->v->cr4 |= X86_CR4_PGE | cr4;
	soft_tlb_flush(t->v, false);
	return t;
}

static struct testvm *setup_pcids(void)
{
	return setup(X86_CR4_PCIDE);
}

/* As lv_mode, but nothing is flushed. */
static void set_cpl(struct testvm *t, unsigned cpl)
{
	lv_seg(t, X86_CS, cpl ? LV_CS3 : LV_CS0);
	lv_seg(t, X86_SS, cpl ? LV_DS3 : LV_DS0);
	soft_mode_changed(t->v);
}

/* Where va leads for this CPL: what setup() wrote there. */
static u64 seen(struct testvm *t, gva_t va, unsigned cpl)
{
	u64 value;

	set_cpl(t, cpl);
	value = soft_read(t->v, va, 8, SOFT_R);
	set_cpl(t, 0);
	return value;
}

/* Enters a page of the window for both privileges, then maps another. */
static void enter_then_remap(struct testvm *t, u64 flags)
{
	lv_map(t, PAGE, OLD | RWU | flags);
	assert_int_equal(seen(t, VA, 0), OLD);
	assert_int_equal(seen(t, VA, 3), OLD);
	lv_map(t, PAGE, NEW | RWU | flags);
}

static void load_of_cr3_drops_what_is_not_global(void **state)
{
	struct testvm *t = setup(0);

	for (unsigned is_global = 0; is_global < 2; is_global++) {
		soft_tlb_flush(t->v, false);
		enter_then_remap(t, is_global ? G : 0);
		soft_cr3_write(t->v, LV_PML4);
		assert_int_equal(seen(t, VA, 0), is_global ? OLD : NEW);
		assert_int_equal(seen(t, VA, 3), is_global ? OLD : NEW);
	}
	tv_free(t);
}

static void load_of_cr3_drops_more_than_the_list_holds(void **state)
{
	const unsigned pages = 512; /* of the 2 MiB page at 0 */
	struct testvm *t = setup(0);

	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < pages; i++)
			soft_probe(t->v, i * 4096u, 1, SOFT_R);
		assert_true(t->v->super.local_count > SOFT_LOCAL_MAX);
		soft_cr3_write(t->v, LV_PML4);
		for (unsigned i = 0; i < SOFT_TLB_ENTRIES; i++)
			assert_int_equal(t->v->super.tlb[i].tag_r,
					 soft_tlb_empty(i));
		assert_int_equal(t->v->super.local_count, 0);
	}
	tv_free(t);
}

static void bit_63_keeps_what_user_code_had_under_that_pcid(void **state)
{
	struct testvm *t = setup_pcids();

	enter_then_remap(t, 0);
	soft_cr3_write(t->v, ROOT_B | 2 | KEEP);
	assert_int_equal(t->v->cr3, ROOT_B | 2);
	assert_int_equal(seen(t, VA, 3), NEW);
	soft_cr3_write(t->v, LV_PML4 | KEEP);
	assert_int_equal(seen(t, VA, 3), OLD);
	assert_int_equal(seen(t, VA, 0), NEW);
	soft_cr3_write(t->v, ROOT_B | 2 | KEEP);
	soft_cr3_write(t->v, LV_PML4);
	assert_int_equal(seen(t, VA, 3), NEW);
	tv_free(t);
}

static void another_root_under_the_same_pcid_has_its_own_pages(void **state)
{
	struct testvm *t = setup_pcids();

	enter_then_remap(t, 0);
	soft_cr3_write(t->v, ROOT_B | KEEP);
	assert_int_equal(seen(t, VA, 3), NEW);
	tv_free(t);
}

static void least_recently_used_pcid_gives_its_space_away(void **state)
{
	struct testvm *t = setup_pcids();

	soft_cr3_write(t->v, LV_PML4 | 1);
	enter_then_remap(t, 0);
	for (unsigned i = 2; i <= SOFT_USER_SPACES; i++)
		soft_cr3_write(t->v, ROOT_B | i);
	soft_cr3_write(t->v, LV_PML4 | 1 | KEEP); /* 0 is the oldest now */
	assert_int_equal(seen(t, VA, 3), OLD);
	soft_cr3_write(t->v, ROOT_B | 100);
	soft_cr3_write(t->v, LV_PML4 | 1 | KEEP);
	assert_int_equal(seen(t, VA, 3), OLD);
	for (unsigned i = 2; i <= SOFT_USER_SPACES + 1; i++)
		soft_cr3_write(t->v, ROOT_B | i | KEEP);
	soft_cr3_write(t->v, LV_PML4 | 1 | KEEP);
	assert_int_equal(seen(t, VA, 3), NEW);
	tv_free(t);
}

static void invlpg_is_for_the_current_pcid_and_global_pages(void **state)
{
	struct testvm *t = setup_pcids();

	for (unsigned is_global = 0; is_global < 2; is_global++) {
		soft_cr3_write(t->v, LV_PML4);
		enter_then_remap(t, is_global ? G : 0);
		soft_cr3_write(t->v, ROOT_B | 2 | KEEP);
		soft_tlb_flush_page(t->v, VA + 5);
		assert_int_equal(seen(t, VA, 3), NEW);
		soft_cr3_write(t->v, LV_PML4 | KEEP);
		assert_int_equal(seen(t, VA, 3), is_global ? NEW : OLD);
		soft_tlb_flush_page(t->v, VA);
		assert_int_equal(seen(t, VA, 3), NEW);
		assert_int_equal(seen(t, VA, 0), NEW);
	}
	tv_free(t);
}

/* INVPCID [LV_STACK], rax */
static void invpcid(struct testvm *t, u64 type, u64 pcid, u64 va)
{
	static const u8 code[] = {0x66, 0x0f, 0x38, 0x82, 0x04, 0x24};
	struct vcpu *v = t->v;

	memcpy(t->ram + TV_CODE, code, sizeof(code));
	st_le64(t->ram + LV_STACK, pcid);
	st_le64(t->ram + LV_STACK + 8, va);
	v->rip = TV_CODE;
	v->gpr[X86_RSP] = LV_STACK;
	v->gpr[X86_RAX] = type;
	soft_interp_one(v);
	assert_int_equal(v->rip, TV_CODE + sizeof(code));
}

struct invpcid_case {
	u64 type, pcid, va;
	u64 flags;	 /* of the page, entered under PCID 1 */
	bool in_1, in_2; /* forgotten when executed under that PCID */
};

static const struct invpcid_case invpcid_cases[] = {
	{0, 1, VA, 0, true, true},   {0, 1, VA + 4096, 0, false, false},
	{0, 2, VA, 0, false, false}, {1, 1, 0, 0, true, true},
	{1, 2, 0, 0, false, false},  {1, 1, 0, G, false, false},
	{2, 0, 0, 0, true, true},    {2, 0, 0, G, true, true},
	{3, 0, 0, 0, true, true},    {3, 0, 0, G, false, false},
};

static void invpcid_drops_what_its_type_says(void **state)
{
	for (unsigned i = 0; i < ARRAY_SIZE(invpcid_cases); i++) {
		const struct invpcid_case *c = &invpcid_cases[i];

		for (unsigned in = 1; in <= 2; in++) {
			struct testvm *t = setup_pcids();
			bool gone = in == 1 ? c->in_1 : c->in_2;

			soft_cr3_write(t->v, ROOT_B | 2);
			soft_cr3_write(t->v, LV_PML4 | 1);
			enter_then_remap(t, c->flags);
			if (in == 2)
				soft_cr3_write(t->v, ROOT_B | 2 | KEEP);
			invpcid(t, c->type, c->pcid, c->va);
			if (in == 2)
				soft_cr3_write(t->v, LV_PML4 | 1 | KEEP);
			else
				assert_int_equal(seen(t, VA, 0),
						 gone ? NEW : OLD);
			assert_int_equal(seen(t, VA, 3), gone ? NEW : OLD);
			tv_free(t);
		}
	}
}

static void end_of_pcids_drops_everything(void **state)
{
	struct testvm *t = setup_pcids();

	soft_cr3_write(t->v, LV_PML4 | 1);
	enter_then_remap(t, G);
	soft_cr3_write(t->v, LV_PML4 | KEEP);
	soft_cr4_write(t->v, t->v->cr4 & ~X86_CR4_PCIDE);
	assert_int_equal(seen(t, VA, 3), NEW);
	soft_cr4_write(t->v, t->v->cr4 | X86_CR4_PCIDE);
	soft_cr3_write(t->v, LV_PML4 | 1 | KEEP);
	assert_int_equal(seen(t, VA, 3), NEW);
	tv_free(t);
}

static void flush_asked_for_in_the_steal_time_page_spares_global(void **state)
{
	const gpa_t steal = 0x9000;
	u8 *preempted;

	for (unsigned is_global = 0; is_global < 2; is_global++) {
		struct testvm *t = setup_pcids();

		preempted = t->ram + steal +
			    offsetof(struct kvm_steal_time, preempted);
		t->v->pv_steal_time = steal | KVM_MSR_ENABLED;
		soft_cr3_write(t->v, LV_PML4 | 1);
		enter_then_remap(t, is_global ? G : 0);
		soft_cr3_write(t->v, ROOT_B | 2 | KEEP);
		*preempted = KVM_VCPU_PREEMPTED | KVM_VCPU_FLUSH_TLB;
		soft_pv_enter(t->v);
		assert_int_equal(*preempted, 0);
		soft_cr3_write(t->v, LV_PML4 | 1 | KEEP);
		assert_int_equal(seen(t, VA, 3), is_global ? OLD : NEW);
		t->v->pv_steal_time = 0;
		tv_free(t);
	}
}

/* ---- jump caches ---- */

static void enter_code(struct soft_space *s, gva_t va, bool is_local)
{
	soft_jc_insert(s, va, s, is_local);
}

static bool has_code(const struct soft_space *s, gva_t va)
{
	return s->jc[soft_jc_index(va)].va == va;
}

static void invlpg_drops_code_that_may_lie_in_the_page(void **state)
{
	static const struct {
		gva_t va;
		bool stays;
	} code[] = {
		{LV_DATA - 0xf00, true},  {LV_DATA - 16, true},
		{LV_DATA - 15, false},	  {LV_DATA - 2, false},
		{LV_DATA + 0x123, false}, {LV_DATA + 0xfff, false},
		{LV_DATA + 0x1000, true}, {0xffffffff81000400, true},
	};
	struct testvm *t = lv_new();
	struct soft_space *spaces[] = {&t->v->super, t->v->user};

	for (unsigned s = 0; s < 2; s++)
		for (unsigned i = 0; i < ARRAY_SIZE(code); i++)
			enter_code(spaces[s], code[i].va, false);
	soft_tlb_flush_page(t->v, LV_DATA + 0x8000);
	for (unsigned i = 0; i < ARRAY_SIZE(code); i++)
		assert_true(has_code(&t->v->super, code[i].va));
	soft_tlb_flush_page(t->v, LV_DATA + 0x80);
	for (unsigned s = 0; s < 2; s++)
		for (unsigned i = 0; i < ARRAY_SIZE(code); i++)
			assert_int_equal(has_code(spaces[s], code[i].va),
					 code[i].stays);
	tv_free(t);
}

/* Who is kicked looks there, and must not find anything. */
static void entry_0_of_a_jump_cache_stays_empty(void **state)
{
	struct testvm *t = lv_new();
	gva_t va = LV_DATA - 1;

	assert_int_equal(soft_jc_index(va), 0);
	enter_code(t->v->user, va, true);
	assert_false(has_code(t->v->user, va));
	tv_free(t);
}

static void invlpg_of_page_0_drops_code_that_wraps_into_it(void **state)
{
	struct testvm *t = lv_new();

	enter_code(&t->v->super, 0xfffffffffffffff8, false);
	enter_code(&t->v->super, 0xfffffff9, false);
	enter_code(&t->v->super, 0xffffffe0, false);
	soft_tlb_flush_page(t->v, 0x10);
	assert_false(has_code(&t->v->super, 0xfffffffffffffff8));
	assert_false(has_code(&t->v->super, 0xfffffff9));
	assert_true(has_code(&t->v->super, 0xffffffe0));
	tv_free(t);
}

static void invlpg_in_a_large_page_drops_all_of_its_code(void **state)
{
	struct testvm *t = lv_new();

	seen(t, 0x5000, 0); /* of the 2 MiB page at 0 */
	enter_code(&t->v->super, 0x9000, false);
	soft_tlb_flush_page(t->v, 0x1ff000);
	assert_false(has_code(&t->v->super, 0x9000));
	assert_int_equal(t->v->super.tlb[5].tag_r, SOFT_TLB_EMPTY);
	tv_free(t);
}

static void load_of_cr3_keeps_code_in_global_pages(void **state)
{
	struct testvm *t = lv_new();

	enter_code(&t->v->super, LV_DATA, true);
	enter_code(&t->v->super, 0xffffffff81000400, false);
	enter_code(t->v->user, LV_DATA, true);
	soft_cr3_write(t->v, LV_PML4);
	assert_false(has_code(&t->v->super, LV_DATA));
	assert_false(has_code(t->v->user, LV_DATA));
	assert_true(has_code(&t->v->super, 0xffffffff81000400));
	for (unsigned i = 0; i <= SOFT_JC_LOCAL_MAX; i++)
		enter_code(&t->v->super, LV_DATA + i * 64, true);
	soft_cr3_write(t->v, LV_PML4);
	for (unsigned i = 0; i <= SOFT_JC_LOCAL_MAX; i++)
		assert_false(has_code(&t->v->super, LV_DATA + i * 64));
	tv_free(t);
}

/* ---- walks ---- */

/* The #PF's error code, or -1. */
static int fault_of(struct testvm *t, gva_t va, unsigned how)
{
	if (sigsetjmp(t->v->unwind, 0)) {
		assert_int_equal(t->v->exc.vector, X86_VEC_PF);
		return (int)t->v->exc.error;
	}
	soft_probe(t->v, va, 1, how);
	return -1;
}

static void large_page_is_walked_once(void **state)
{
	struct testvm *t = setup(0);

	st_le64(t->ram + LV_PD0, 0x87);
	assert_int_equal(fault_of(t, 0x5000, SOFT_R), -1);
	st_le64(t->ram + LV_PD0, 0);
	assert_int_equal(fault_of(t, 0x1ff000, SOFT_R), -1);
	assert_int_equal(t->v->super.tlb[0x1ff].meta & ~0xfffull, 0x1ff000);
	assert_int_equal(fault_of(t, 0x200000, SOFT_R), 0);
	soft_cr3_write(t->v, LV_PML4);
	assert_int_equal(fault_of(t, 0x1fe000, SOFT_R), 0);
	tv_free(t);
}

static void store_to_a_large_page_that_was_read_sets_dirty(void **state)
{
	struct testvm *t = setup(0);

	st_le64(t->ram + LV_PD0, 0x87);
	soft_tlb_flush(t->v, false);
	assert_int_equal(fault_of(t, 0x5000, SOFT_R), -1);
	assert_int_equal(ld_le64(t->ram + LV_PD0), 0xa7);
	assert_int_equal(fault_of(t, 0x6000, SOFT_W), -1);
	assert_int_equal(ld_le64(t->ram + LV_PD0), 0xe7);
	tv_free(t);
}

static void rights_of_a_large_page_hold_for_each_refill(void **state)
{
	struct testvm *t = setup(0);

	st_le64(t->ram + LV_PD0, 0x81); /* not for users, not to be written */
	soft_tlb_flush(t->v, false);
	assert_int_equal(fault_of(t, 0x5000, SOFT_R), -1);
	assert_int_equal(fault_of(t, 0x6000, SOFT_W), X86_PF_P | X86_PF_W);
	set_cpl(t, 3);
	assert_int_equal(fault_of(t, 0x7000, SOFT_R | SOFT_SUPER), -1);
	assert_int_equal(fault_of(t, 0x6000, SOFT_R), X86_PF_P | X86_PF_U);
	st_le64(t->ram + LV_PD0, 0x87); /* more rights need no INVLPG */
	assert_int_equal(fault_of(t, 0x6000, SOFT_W), -1);
	tv_free(t);
}

/* Reads through the window's table, then takes the way to it away. */
static struct testvm *setup_cut_off(void)
{
	struct testvm *t = setup_pcids();

	assert_int_equal(fault_of(t, VA, SOFT_R), -1);
	st_le64(t->ram + LV_PDPT + 8, 0);
	return t;
}

static void known_table_makes_a_walk_short(void **state)
{
	struct testvm *t = setup_cut_off();

	assert_int_equal(fault_of(t, VA + 4096, SOFT_W), -1);
	assert_int_equal(ld_le64(t->ram + LV_PT1 + (PAGE + 1) * 8) & 0x60,
			 X86_PTE_A | X86_PTE_D);
	lv_map(t, PAGE + 2, 0);
	assert_int_equal(fault_of(t, VA + 0x2000, SOFT_R), 0);
	assert_int_equal(fault_of(t, LV_DATA + 0x200000, SOFT_R), 0);
	tv_free(t);
}

static void what_drops_translations_drops_known_tables(void **state)
{
	struct testvm *t = setup_cut_off();

	soft_tlb_flush_page(t->v, 0x5000);
	assert_int_equal(fault_of(t, VA + 4096, SOFT_R), 0);
	tv_free(t);
	t = setup_cut_off();
	soft_cr3_write(t->v, LV_PML4);
	assert_int_equal(fault_of(t, VA + 4096, SOFT_R), 0);
	tv_free(t);
	t = setup_cut_off();
	invpcid(t, 1, 2, 0);
	assert_int_equal(fault_of(t, VA + 4096, SOFT_R), 0);
	tv_free(t);
	t = setup_cut_off();
	soft_tlb_flush(t->v, true);
	assert_int_equal(fault_of(t, VA + 4096, SOFT_R), 0);
	tv_free(t);
}

static void known_tables_are_of_one_root(void **state)
{
	struct testvm *t = setup_cut_off();

	soft_cr3_write(t->v, ROOT_B | 2); /* the PCID is known from now on */
	st_le64(t->ram + LV_PDPT + 8, LV_PD1 | 7);
	soft_cr3_write(t->v, LV_PML4);
	assert_int_equal(fault_of(t, VA + 4096, SOFT_R), -1);
	st_le64(t->ram + LV_PDPT + 8, 0);
	soft_cr3_write(t->v, ROOT_B | 2 | KEEP);
	assert_int_equal(fault_of(t, VA + 0x2000, SOFT_R), 0);
	soft_cr3_write(t->v, LV_PML4 | KEEP);
	assert_int_equal(fault_of(t, VA + 0x3000, SOFT_R), -1);
	tv_free(t);
}

static void refusal_of_a_known_table_is_looked_at_from_the_root(void **state)
{
	struct testvm *t = setup(0);

	st_le64(t->ram + LV_PD1, LV_PT1 | 5);
	soft_tlb_flush(t->v, false);
	assert_int_equal(fault_of(t, VA, SOFT_R), -1);
	assert_int_equal(fault_of(t, VA, SOFT_W), X86_PF_P | X86_PF_W);
	st_le64(t->ram + LV_PD1, LV_PT1 | 7);
	assert_int_equal(fault_of(t, VA + 4096, SOFT_W), -1);
	tv_free(t);
}

static void walk_that_marks_a_table_with_code_ends_that_code(void **state)
{
	struct testvm *t = setup(0);
	struct smc_page *p;

	if (!t->v->vm->xlat) {
		tv_free(t);
		skip();
	}
	p = smc_page_of(t->v->vm->xlat, LV_PT1);
	lv_map(t, PAGE, OLD | RWU);
	atomic_store(&p->code, ~0ull);
	assert_false(soft_tlb_fill_leaf(t->v, VA, SOFT_W));
	assert_int_equal(ld_le64(t->ram + LV_PT1 + PAGE * 8), OLD | RWU);
	assert_true(atomic_load(&p->code) == ~0ull);
	assert_int_equal(fault_of(t, VA, SOFT_W), -1);
	assert_int_equal(ld_le64(t->ram + LV_PT1 + PAGE * 8), OLD | RWU | 0x60);
	assert_true(atomic_load(&p->code) == 0);
	/* What has all its marks may be walked by anybody. */
	atomic_store(&p->code, ~0ull);
	soft_tlb_flush(t->v, false);
	assert_true(soft_tlb_fill_leaf(t->v, VA, SOFT_W));
	atomic_store(&p->code, 0);
	tv_free(t);
}

#define T(f) cmocka_unit_test(f)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(load_of_cr3_drops_what_is_not_global),
		T(load_of_cr3_drops_more_than_the_list_holds),
		T(bit_63_keeps_what_user_code_had_under_that_pcid),
		T(another_root_under_the_same_pcid_has_its_own_pages),
		T(least_recently_used_pcid_gives_its_space_away),
		T(invlpg_is_for_the_current_pcid_and_global_pages),
		T(invpcid_drops_what_its_type_says),
		T(end_of_pcids_drops_everything),
		T(flush_asked_for_in_the_steal_time_page_spares_global),
		T(invlpg_drops_code_that_may_lie_in_the_page),
		T(entry_0_of_a_jump_cache_stays_empty),
		T(invlpg_of_page_0_drops_code_that_wraps_into_it),
		T(invlpg_in_a_large_page_drops_all_of_its_code),
		T(load_of_cr3_keeps_code_in_global_pages),
		T(large_page_is_walked_once),
		T(store_to_a_large_page_that_was_read_sets_dirty),
		T(rights_of_a_large_page_hold_for_each_refill),
		T(known_table_makes_a_walk_short),
		T(what_drops_translations_drops_known_tables),
		T(known_tables_are_of_one_root),
		T(refusal_of_a_known_table_is_looked_at_from_the_root),
		T(walk_that_marks_a_table_with_code_ends_that_code),
	};

	return test_run("tlb", tests);
}
