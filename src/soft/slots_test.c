/* SPDX-License-Identifier: Apache-2.0 */
/* Slots say nothing that the TLB may not say: what empties them, which code
 * gets them, and which accesses lose them. User code runs here, translated; a
 * test changes a page-table entry behind its back and sees by a load whether
 * it was read again. */
#include "test/test.h"

#include "soft/leafvm.h"
#include "soft/lower.h"
#include "soft/mmu_int.h"
#include "soft/xlat_int.h"

#define PAGE	 9u
#define VA	 (LV_DATA + PAGE * 4096u)
#define OLD	 LV_PHYS
#define NEW	 (LV_PHYS + 15 * 4096u)
#define FAR	 (VA + SOFT_TLB_ENTRIES * 4096u) /* has the same TLB entry */
#define FAR_PHYS (LV_PHYS + 14 * 4096u)
#define RWU	 7u
#define ROOT_B	 0x18000u
#define MAGIC	 SOFT_TLB_EMPTY
#define LOAD_AT	 0x4000u /* three programs */
#define STOR_AT	 0x4100u
#define WALK_AT	 0x4200u

/* mov rax, [rdi]; int3 */
static const u8 load_code[] = {0x48, 0x8b, 0x07, 0xcc};
/* mov [rdi], rax; int3 */
static const u8 store_code[] = {0x48, 0x89, 0x07, 0xcc};
/* 1: mov rax, [rdi]; add rdi, rdx; and rdi, rbx; add rdi, rsi; dec ecx;
 * jnz 1b; int3 */
static const u8 walk_code[] = {0x48, 0x8b, 0x07, 0x48, 0x01, 0xd7,
			       0x48, 0x21, 0xdf, 0x48, 0x01, 0xf7,
			       0xff, 0xc9, 0x75, 0xf0, 0xcc};

static struct testvm *setup(u64 cr4, bool is_forced)
{
	struct testvm *t = lv_new();
	struct xlat *x = t->vm->xlat;

	assert_non_null(x);
	xlat_flush_all(x);
	x->slots.is_forced = is_forced;
	x->slots.tokens_tsc = 0;
	memcpy(t->ram + ROOT_B, t->ram + LV_PML4, 4096);
	st_le64(t->ram + OLD, OLD);
	st_le64(t->ram + NEW, NEW);
	memcpy(t->ram + LOAD_AT, load_code, sizeof(load_code));
	memcpy(t->ram + STOR_AT, store_code, sizeof(store_code));
	memcpy(t->ram + WALK_AT, walk_code, sizeof(walk_code));
	lv_map(t, PAGE, OLD | RWU);
	t->v->cr4 |= X86_CR4_PGE | cr4;
	soft_tlb_flush(t->v, false);
	return t;
}

static void set_cpl(struct testvm *t, unsigned cpl)
{
	lv_seg(t, X86_CS, cpl ? LV_CS3 : LV_CS0);
	lv_seg(t, X86_SS, cpl ? LV_DS3 : LV_DS0);
	soft_mode_changed(t->v);
}

/* Runs user code to an exception; its vector. */
static unsigned run(struct testvm *t, u64 rip)
{
	struct vcpu *v = t->v;

	set_cpl(t, 3);
	v->rip = rip;
	if (sigsetjmp(v->unwind, 0)) {
		set_cpl(t, 0);
		return v->exc.vector;
	}
	for (;;) {
		atomic_store(&v->go, SOFT_GO);
		xlat_run(v); /* comes back when it is kicked */
	}
}

static u64 load(struct testvm *t, gva_t va)
{
	t->v->gpr[X86_RDI] = va;
	assert_int_equal(run(t, LOAD_AT), X86_VEC_BP);
	return t->v->gpr[X86_RAX];
}

static unsigned store(struct testvm *t, gva_t va, u64 value)
{
	t->v->gpr[X86_RDI] = va;
	t->v->gpr[X86_RAX] = value;
	return run(t, STOR_AT);
}

/* The TLB forgets the page by itself: another one took its entry. */
static void replace(struct testvm *t, gva_t va)
{
	struct soft_tlb_entry *e = &t->v->user->tlb[soft_tlb_index(va)];

	e->tag_r = e->tag_w = SOFT_TLB_EMPTY;
	e->meta = 0;
}

/* The slot has the page, the TLB does not, and another page is mapped. */
static void fill_then_remap(struct testvm *t, u64 flags)
{
	lv_map(t, PAGE, OLD | RWU | flags);
	soft_tlb_flush(t->v, false);
	assert_int_equal(load(t, VA), OLD);
	replace(t, VA);
	lv_map(t, PAGE, NEW | RWU | flags);
	assert_int_equal(load(t, VA), OLD);
}

static void slot_answers_in_front_of_the_tlb(void **state)
{
	struct testvm *t = setup(0, true);
	u64 misses;

	fill_then_remap(t, 0);
	misses = t->v->stats.slot_misses;
	assert_true(misses > 0);
	assert_int_equal(load(t, VA), OLD);
	assert_int_equal(t->v->stats.slot_misses, misses);
	tv_free(t);
}

static void invlpg_empties_slots(void **state)
{
	struct testvm *t = setup(0, true);

	fill_then_remap(t, 0);
	soft_tlb_flush_page(t->v, VA);
	assert_int_equal(load(t, VA), NEW);
	fill_then_remap(t, X86_PTE_G);
	soft_tlb_flush_page(t->v, VA);
	assert_int_equal(load(t, VA), NEW);
	tv_free(t);
}

static void invlpg_of_another_page_does_not(void **state)
{
	struct testvm *t = setup(0, true);

	fill_then_remap(t, 0);
	soft_tlb_flush_page(t->v, VA + 4096);
	assert_int_equal(load(t, VA), OLD);
	tv_free(t);
}

static void invlpg_anywhere_in_a_large_page_empties_slots(void **state)
{
	struct testvm *t = setup(0, true);
	const gva_t va = 0x9000;

	st_le64(t->ram + va, 1);
	memcpy(t->ram + 2 * MIB, t->ram, 2 * MIB);
	st_le64(t->ram + 2 * MIB + va, 2);
	st_le64(t->ram + LV_PD0, 0x87);
	soft_tlb_flush(t->v, false);
	assert_int_equal(load(t, va), 1);
	replace(t, va);
	st_le64(t->ram + LV_PD0, 0x200087);
	soft_tlb_flush_page(t->v, va + 0x100000);
	assert_int_equal(load(t, va), 2);
	tv_free(t);
}

static void load_of_cr3_empties_slots(void **state)
{
	struct testvm *t = setup(0, true);

	fill_then_remap(t, 0);
	soft_cr3_write(t->v, LV_PML4);
	assert_int_equal(load(t, VA), NEW);
	fill_then_remap(t, 0);
	soft_tlb_flush(t->v, true);
	assert_int_equal(load(t, VA), NEW);
	fill_then_remap(t, 0);
	soft_tlb_flush(t->v, false);
	assert_int_equal(load(t, VA), NEW);
	tv_free(t);
}

static void each_pcid_has_slots_of_its_own(void **state)
{
	struct testvm *t = setup(X86_CR4_PCIDE, true);

	fill_then_remap(t, 0);
	soft_cr3_write(t->v, ROOT_B | 2 | BIT64(63));
	assert_int_equal(load(t, VA), NEW);
	soft_cr3_write(t->v, LV_PML4 | BIT64(63));
	assert_int_equal(load(t, VA), OLD);
	soft_tlb_flush_pcid(t->v, 2);
	assert_int_equal(load(t, VA), OLD);
	soft_tlb_flush_pcid(t->v, 0);
	assert_int_equal(load(t, VA), NEW);
	tv_free(t);
}

static void space_that_is_given_away_takes_no_slots_along(void **state)
{
	struct testvm *t = setup(X86_CR4_PCIDE, true);

	fill_then_remap(t, 0);
	for (unsigned i = 1; i <= SOFT_USER_SPACES; i++) {
		soft_cr3_write(t->v, LV_PML4 | i | BIT64(63));
		assert_int_equal(load(t, VA), NEW);
	}
	tv_free(t);
}

static void another_page_entered_in_the_tlb_empties_slots(void **state)
{
	struct testvm *t = setup(0, true);

	fill_then_remap(t, 0);
	/* The walk for a store finds the new page. */
	assert_int_equal(store(t, VA + 8, 5), X86_VEC_BP);
	assert_int_equal(load(t, VA), NEW);
	assert_int_equal(ld_le64(t->ram + NEW + 8), 5);
	tv_free(t);
}

/* FAR's page has the TLB entry that VA's had, both not for the first time. */
static void let_far_take_the_entry(struct testvm *t)
{
	st_le64(t->ram + LV_PD1 + 32 * 8, LV_PT3 | RWU);
	st_le64(t->ram + LV_PT3 + PAGE * 8, FAR_PHYS | RWU);
	assert_int_equal(store(t, FAR, 3), X86_VEC_BP);
	assert_int_equal(load(t, VA), OLD);
	assert_int_equal(store(t, FAR, 3), X86_VEC_BP);
	assert_int_equal(t->v->user->tlb[soft_tlb_index(VA)].tag_r, FAR);
}

static void page_that_comes_back_finds_its_slots(void **state)
{
	struct testvm *t = setup(0, true);
	u64 misses;

	let_far_take_the_entry(t);
	assert_int_equal(store(t, VA + 8, 5), X86_VEC_BP);
	misses = t->v->stats.slot_misses;
	assert_int_equal(load(t, VA), OLD);
	assert_int_equal(t->v->stats.slot_misses, misses);
	tv_free(t);
}

static void page_that_comes_back_as_another_empties_slots(void **state)
{
	struct testvm *t = setup(0, true);

	let_far_take_the_entry(t);
	lv_map(t, PAGE, NEW | RWU);
	assert_int_equal(load(t, VA), OLD);
	assert_int_equal(store(t, VA + 8, 5), X86_VEC_BP);
	assert_int_equal(load(t, VA), NEW);
	tv_free(t);
}

static void slot_of_a_load_admits_no_store(void **state)
{
	struct testvm *t = setup(0, true);

	lv_map(t, PAGE, OLD | 5);
	assert_int_equal(load(t, VA), OLD);
	assert_int_equal(store(t, VA, 1), X86_VEC_PF);
	assert_int_equal(t->v->exc.error, X86_PF_P | X86_PF_W | X86_PF_U);
	assert_int_equal(ld_le64(t->ram + OLD), OLD);
	tv_free(t);
}

static void right_to_write_goes_with_invlpg(void **state)
{
	struct testvm *t = setup(0, true);

	assert_int_equal(store(t, VA, 1), X86_VEC_BP);
	replace(t, VA);
	lv_map(t, PAGE, OLD | 5);
	soft_tlb_flush_page(t->v, VA);
	assert_int_equal(store(t, VA, 2), X86_VEC_PF);
	assert_int_equal(ld_le64(t->ram + OLD), 1);
	tv_free(t);
}

static void watched_page_has_no_slot(void **state)
{
	struct testvm *t = setup(0, true);

	assert_int_equal(store(t, VA, 1), X86_VEC_BP);
	t->v->dr[0] = VA;
	t->v->dr7 = 1 | 1 << 16 | 3 << 18;
	soft_tlb_flush(t->v, false);
	assert_int_equal(store(t, VA, 2), X86_VEC_DB);
	tv_free(t);
}

/* mov eax, imm32; int3 */
static u64 constant(struct testvm *t, gva_t va)
{
	assert_int_equal(run(t, va), X86_VEC_BP);
	return t->v->gpr[X86_RAX];
}

static void code_in_the_page_takes_the_store_slots(void **state)
{
	for (unsigned is_replaced = 0; is_replaced < 2; is_replaced++) {
		struct testvm *t = setup(0, true);
		const u64 one = 0xcc00000001b8, two = 0xcc00000002b8;

		assert_int_equal(store(t, VA, one), X86_VEC_BP);
		if (is_replaced)
			replace(t, VA);
		assert_int_equal(constant(t, VA), 1); /* translates it */
		assert_int_equal(store(t, VA, two), X86_VEC_BP);
		assert_int_equal(constant(t, VA), 2);
		tv_free(t);
	}
}

/* The filter of write tags forgets pages that only slots have still. */
static void slots_go_whenever_write_tags_are_counted_anew(void **state)
{
	struct testvm *t = setup(0, true);
	const u64 one = 0xcc00000001b8, two = 0xcc00000002b8;
	const gva_t other = VA + 4096;

	assert_int_equal(store(t, VA, one), X86_VEC_BP);
	replace(t, VA);
	/* Another page loses its tag: the filter is made anew. */
	set_cpl(t, 3);
	assert_int_equal(sigsetjmp(t->v->unwind, 0), 0);
	soft_write(t->v, other, 8, one, SOFT_W);
	set_cpl(t, 0);
	assert_int_equal(constant(t, other), 1);
	assert_int_equal(constant(t, VA), 1);
	assert_int_equal(store(t, VA, two), X86_VEC_BP);
	assert_int_equal(constant(t, VA), 2);
	tv_free(t);
}

static void access_over_the_end_of_a_slots_page(void **state)
{
	struct testvm *t = setup(0, true);

	st_le64(t->ram + OLD + 4092, 0x11111111);
	st_le32(t->ram + LV_PHYS + (PAGE + 1) * 4096u, 0x22222222);
	assert_int_equal(load(t, VA), OLD);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(load(t, VA + 4092), 0x2222222211111111);
	tv_free(t);
}

/* An empty slot's tag is an address, too, if not a canonical one. */
static void address_like_an_empty_tag_leads_nowhere(void **state)
{
	struct testvm *t = setup(0, true);

	st_le64(t->ram, 0x1234);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(load(t, VA), OLD);
		soft_tlb_flush(t->v, false);
		t->v->gpr[X86_RDI] = MAGIC;
		t->v->gpr[X86_RAX] = 0;
		(void)run(t, LOAD_AT);
		assert_int_equal(t->v->gpr[X86_RAX], 0);
		assert_int_equal(store(t, VA, OLD), X86_VEC_BP);
		soft_tlb_flush(t->v, false);
		(void)store(t, MAGIC, 77);
		assert_int_equal(ld_le64(t->ram + OLD), OLD);
	}
	tv_free(t);
}

static void nor_does_it_match_an_empty_entry_of_the_tlb(void **state)
{
	struct testvm *t = setup(0, false);
	const gva_t index_of_magic = 0x808000, next = 0x809000;

	/* Read-only pages, which have no tag for stores. */
	st_le64(t->ram + LV_PD0 + 4 * 8, 0x85);
	st_le64(t->ram + 0x8080, 0x1234);
	for (unsigned i = 0; i < 2; i++) {
		t->v->gpr[X86_RDI] = MAGIC + i * 0xf80;
		assert_int_equal(run(t, LOAD_AT), X86_VEC_GP);
		assert_int_equal(load(t, index_of_magic + 0x80), 0x1234);
		assert_int_equal(load(t, next), 0);
		assert_int_equal(store(t, MAGIC + i * 0xf80, 77), X86_VEC_GP);
		assert_int_equal(ld_le64(t->ram + 0x8000), 0);
		soft_tlb_flush(t->v, false);
	}
	tv_free(t);
}

static void nor_an_empty_entry_of_the_jump_cache(void **state)
{
	static const u8 code[] = {0xff, 0xe0}; /* jmp rax */
	struct testvm *t = setup(0, false);
	const struct xlat_block *b;
	bool is_new;

	memcpy(t->ram + 0x4300, code, sizeof(code));
	t->v->gpr[X86_RAX] = MAGIC;
	assert_int_equal(run(t, 0x4300), X86_VEC_GP);
	/* Who is kicked looks into the first entry. */
	set_cpl(t, 3);
	t->v->rip = 0x4300;
	b = xlat_block_make(t->v, 0, &is_new);
	assert_non_null(b);
	t->v->pcbase = 0x4000;
	soft_kick(t->v);
	xlat_enter(t->v, xlat_code_rx(t->vm->xlat) + xlat_entry_indirect(b));
	assert_int_equal(t->v->rip, MAGIC);
	assert_int_equal(t->v->exit_kind, XLAT_EXIT_LOOKUP);
	set_cpl(t, 0);
	tv_free(t);
}

/* ---- which code has slots ---- */

/* Walks `count` times by `step` through the window. */
static void walk(struct testvm *t, u32 count, u64 step)
{
	struct vcpu *v = t->v;

	v->gpr[X86_RDI] = v->gpr[X86_RSI] = LV_DATA;
	v->gpr[X86_RDX] = step;
	v->gpr[X86_RBX] = LV_BYTES - 8;
	v->gpr[X86_RCX] = count;
	assert_int_equal(run(t, WALK_AT), X86_VEC_BP);
}

/* n samples fall on the loop, which then runs. */
static void sample(struct testvm *t, unsigned n)
{
	struct vcpu *v = t->v;

	for (unsigned i = 0; i < n; i++) {
		set_cpl(t, 3);
		v->rip = WALK_AT;
		v->key = xlat_key(v);
		slots_kicked(v);
		set_cpl(t, 0);
		walk(t, 100, 8);
	}
}

static void code_that_is_sampled_twice_is_made_again(void **state)
{
	struct testvm *t = setup(0, false);
	u64 before = t->vm->xlat->slots.promotions;

	walk(t, 100, 8);
	sample(t, 1);
	assert_int_equal(t->vm->xlat->slots.promotions, before);
	assert_int_equal(t->v->stats.slot_misses, 0);
	sample(t, 1);
	assert_int_equal(t->vm->xlat->slots.promotions, before + 1);
	assert_true(t->v->stats.slot_misses > 0);
	sample(t, 5);
	assert_int_equal(t->vm->xlat->slots.promotions, before + 1);
	tv_free(t);
}

static void access_that_misses_all_the_time_loses_its_slot(void **state)
{
	struct testvm *t = setup(0, true);
	u64 before = t->vm->xlat->slots.demotions, misses;

	for (unsigned i = 0; i < LV_PAGES; i++)
		lv_map(t, i, (LV_PHYS + i * 4096u) | RWU);
	walk(t, 100000, 3 * 4096 + 8);
	assert_int_equal(t->vm->xlat->slots.demotions, before + 1);
	misses = t->v->stats.slot_misses;
	assert_true(misses < 4 * SLOTS_WEIGHT_MAX / SLOTS_WEIGHT_RANDOM);
	walk(t, 100000, 3 * 4096 + 8);
	assert_int_equal(t->v->stats.slot_misses, misses);
	tv_free(t);
}

static void access_that_stays_keeps_its_slot(void **state)
{
	struct testvm *t = setup(0, true);
	u64 before = t->vm->xlat->slots.demotions;

	walk(t, 1000000, 8);
	assert_int_equal(t->vm->xlat->slots.demotions, before);
	assert_true(t->v->stats.slot_misses <= 1000000 / 512 + 1);
	tv_free(t);
}

int main(void)
{
#define T(name) cmocka_unit_test(name)
	const struct CMUnitTest tests[] = {
		T(slot_answers_in_front_of_the_tlb),
		T(invlpg_empties_slots),
		T(invlpg_of_another_page_does_not),
		T(invlpg_anywhere_in_a_large_page_empties_slots),
		T(load_of_cr3_empties_slots),
		T(each_pcid_has_slots_of_its_own),
		T(space_that_is_given_away_takes_no_slots_along),
		T(another_page_entered_in_the_tlb_empties_slots),
		T(page_that_comes_back_finds_its_slots),
		T(page_that_comes_back_as_another_empties_slots),
		T(slot_of_a_load_admits_no_store),
		T(right_to_write_goes_with_invlpg),
		T(watched_page_has_no_slot),
		T(code_in_the_page_takes_the_store_slots),
		T(slots_go_whenever_write_tags_are_counted_anew),
		T(access_over_the_end_of_a_slots_page),
		T(address_like_an_empty_tag_leads_nowhere),
		T(nor_does_it_match_an_empty_entry_of_the_tlb),
		T(nor_an_empty_entry_of_the_jump_cache),
		T(code_that_is_sampled_twice_is_made_again),
		T(access_that_misses_all_the_time_loses_its_slot),
		T(access_that_stays_keeps_its_slot),
	};

	return test_run("slots", tests);
}
