/* SPDX-License-Identifier: Apache-2.0 */
/* The code cache: blocks, links and addresses, with code that is run. */
#include "test/test.h"

#include "soft/cachevm.h"

struct fixture {
	struct testvm *t;
	struct xlat *x;
};

static struct fixture setup(void)
{
	struct fixture f = {.t = tv_new()};

	f.x = f.t->vm->xlat;
	assert_non_null(f.x);
	xlat_flush_all(f.x);
	cv_make_dead_thunks(f.x);
	return f;
}

static void a_block_is_found_by_address_and_mode_only(void **state)
{
	struct fixture f = setup();
	struct xlat_block *b = cv_publish(f.x, 0x5010, XLAT_NO_GPA, 8, 1, 0);

	assert_ptr_equal(xlat_find(f.x, 0x5010, XLAT_NO_GPA, 1), b);
	assert_null(xlat_find(f.x, 0x5010, XLAT_NO_GPA, 0));
	assert_null(xlat_find(f.x, 0x5010, 0x6000, 1));
	assert_null(xlat_find(f.x, 0x5011, XLAT_NO_GPA, 1));
	assert_ptr_equal(xlat_block_get(f.x, xlat_block_index(f.x, b)), b);
	assert_int_equal(cv_call(f.x, xlat_entry_direct(b)), CV_LIVE);
	tv_free(f.t);
}

static void an_exit_is_linked_to_the_block_that_is_there(void **state)
{
	struct fixture f = setup();
	struct xlat_block *a, *b;

	a = cv_publish(f.x, 0x5000, XLAT_NO_GPA, 8, 0, 0x20);
	assert_int_equal(cv_call(f.x, a->code + CV_EXIT + 8), CV_UNLINKED);
	assert_int_equal(cv_link(f.x, a, 0x20), 0);
	b = cv_publish(f.x, 0x5020, XLAT_NO_GPA, 8, 0, 0);
	/* b's own exit leads to a, which exists. */
	assert_int_equal(cv_linked(f.x, b), xlat_block_index(f.x, a));
	assert_int_equal(cv_call(f.x, b->code + CV_EXIT), CV_LIVE);
	assert_int_equal(cv_link(f.x, a, 0x20), xlat_block_index(f.x, b));
	assert_int_equal(cv_link(f.x, a, 0x20), xlat_block_index(f.x, b));
	assert_int_equal(f.x->link_count, 2);
	assert_int_equal(cv_call(f.x, a->code + CV_EXIT), CV_LIVE);
	tv_free(f.t);
}

static void links_stay_in_page_and_mode(void **state)
{
	struct fixture f = setup();
	struct xlat_block *a;

	cv_publish(f.x, 0x6020, XLAT_NO_GPA, 8, 0, 0);
	cv_publish(f.x, 0x5020, XLAT_NO_GPA, 8, 1, 0);
	cv_publish(f.x, 0x5020, 0x6000, 8, 0, 0);
	a = cv_publish(f.x, 0x5000, XLAT_NO_GPA, 8, 0, 0x20);
	assert_int_equal(cv_linked(f.x, a), 0);
	assert_int_equal(cv_link(f.x, a, 0x20), 0);
	tv_free(f.t);
}

static void an_unaligned_site_stays_unlinked(void **state)
{
	struct fixture f = setup();
	u32 at = xlat_reserve(f.x, CV_CODE, 0, 0);
	struct xlat_block p = {.gpa = 0x5000,
			       .gfn2 = XLAT_NO_GFN,
			       .code = at,
			       .code_bytes = CV_CODE,
			       .bytes = 1};
	struct xlat_exit e = {.site = at + 29, .unlinked = at + 40};
	struct xlat_block *b;

	memset(xlat_code_rw(f.x) + at, 0x90, CV_CODE);
	b = xlat_publish(f.x, &p, &e, 1, NULL, 0);
	assert_int_equal(cv_linked(f.x, b), 0);
	assert_int_equal(xlat_link(f.x, b, &e), xlat_block_index(f.x, b));
	assert_int_equal(ld_le32(xlat_code_rw(f.x) + at + 29), 0x90909090);
	tv_free(f.t);
}

static void a_killed_block_is_reached_by_nobody(void **state)
{
	struct fixture f = setup();
	struct xlat_block *a, *b, *c;

	a = cv_publish(f.x, 0x5000, XLAT_NO_GPA, 8, 0, 0);
	b = cv_publish(f.x, 0x5020, XLAT_NO_GPA, 8, 0, 0);
	c = cv_publish(f.x, 0x5040, XLAT_NO_GPA, 8, 0, 0x20);
	assert_int_equal(f.x->stats.links, 3); /* a to itself, b, c */
	xlat_kill(f.x, a);
	assert_null(xlat_find(f.x, 0x5000, XLAT_NO_GPA, 0));
	assert_int_equal(cv_call(f.x, xlat_entry_direct(a)), CV_DEAD);
	assert_int_equal(cv_call(f.x, xlat_entry_indirect(a)), CV_DEAD);
	assert_int_equal(cv_call(f.x, a->code + CV_EXIT), CV_UNLINKED);
	assert_int_equal(cv_call(f.x, b->code + CV_EXIT), CV_UNLINKED);
	assert_int_equal(cv_call(f.x, c->code + CV_EXIT), CV_LIVE);
	assert_int_equal(f.x->stats.links, 1);
	xlat_kill(f.x, a); /* twice is once */
	assert_int_equal(f.x->stats.dead_blocks, 1);
	/* What comes in its place is found and linked. */
	a = cv_publish(f.x, 0x5000, XLAT_NO_GPA, 8, 0, 0);
	assert_ptr_equal(xlat_find(f.x, 0x5000, XLAT_NO_GPA, 0), a);
	assert_int_equal(cv_link(f.x, b, 0), xlat_block_index(f.x, a));
	/* The exit's link is used again. */
	assert_int_equal(f.x->link_count, 4);
	tv_free(f.t);
}

static void without_room_for_links_exits_stay_unlinked(void **state)
{
	struct fixture f = setup();
	struct xlat_block *b;

	f.x->link_count = XLAT_LINKS_MAX;
	b = cv_publish(f.x, 0x5000, XLAT_NO_GPA, 8, 0, 0);
	assert_int_equal(cv_link(f.x, b, 0), xlat_block_index(f.x, b));
	assert_int_equal(cv_call(f.x, b->code + CV_EXIT), CV_UNLINKED);
	assert_int_equal(f.x->stats.links, 0);
	tv_free(f.t);
}

static void host_addresses_lead_to_blocks_and_faults(void **state)
{
	struct fixture f = setup();
	const u8 *rx = xlat_code_rx(f.x);
	struct xlat_block *b[5];

	assert_null(xlat_block_at(f.x, rx + XLAT_THUNK_BYTES));
	for (u32 i = 0; i < 5; i++)
		b[i] = cv_publish(f.x, 0x5000 + i * 16, XLAT_NO_GPA, 8, 0, 0);
	xlat_kill(f.x, b[2]); /* who is inside may still fault */
	for (u32 i = 0; i < 5; i++) {
		const u8 *pc = rx + b[i]->code + 40;

		assert_ptr_equal(xlat_block_at(f.x, rx + b[i]->code), b[i]);
		assert_ptr_equal(xlat_block_at(f.x, pc), b[i]);
		assert_int_equal(xlat_fault_at(f.x, pc), i * 16);
		assert_int_equal(xlat_fault_at(f.x, pc + 1), -1);
		assert_true(soft_code_contains(pc));
	}
	assert_null(xlat_block_at(f.x, rx));
	assert_null(xlat_block_at(f.x, rx - 1));
	assert_null(xlat_block_at(f.x, rx + xlat_code_end(b[4])));
	assert_null(xlat_block_at(f.x, rx + xlat_code_size(f.x)));
	tv_free(f.t);
}

static void a_flush_forgets_everything_but_the_thunks(void **state)
{
	struct fixture f = setup();
	struct vcpu *v = f.t->v;
	u8 *thunk = xlat_code_rw(f.x) + 100;
	struct xlat_block *b = cv_translate(v, 0x5000, 8);
	u32 code = b->code;

	*thunk = 0x5a;
	soft_tlb_flush(v, false);
	v->super.jc[7].va = 0x5000;
	v->user->jc[9].va = 0x5000;
	xlat_flush_all(f.x);
	assert_null(xlat_find(f.x, 0x5000, XLAT_NO_GPA, 0));
	assert_null(xlat_block_at(f.x, xlat_code_rx(f.x) + code));
	assert_int_equal(smc_page_of(f.x, 0x5000)->code, 0);
	assert_int_equal(v->super.jc[7].va, SOFT_TLB_EMPTY);
	assert_int_equal(v->user->jc[9].va, SOFT_TLB_EMPTY);
	assert_int_equal(*thunk, 0x5a);
	assert_int_equal(ld_le64(xlat_code_rx(f.x) + code), 0);
	assert_int_equal(cv_translate(v, 0x5000, 8)->code, code);
	tv_free(f.t);
}

static void a_full_cache_says_so_and_works_again_when_flushed(void **state)
{
	struct fixture f = setup();
	struct xlat *x = xlat_new(f.t->vm, 2 * MIB, NULL);
	u32 n = 0, i;

	assert_non_null(x);
	while (cv_publish(x, 0x5000 + n % 64, XLAT_NO_GPA, 8, n / 64, 0))
		n++;
	assert_int_equal(n, (XLAT_COLD_START(2 * MIB) - XLAT_THUNK_BYTES) /
				    CV_CODE);
	assert_int_equal(xlat_reserve(x, CV_CODE, 0, 1), 0);
	for (i = 0; i < n; i++)
		assert_non_null(
			xlat_find(x, 0x5000 + i % 64, XLAT_NO_GPA, i / 64));
	xlat_flush_all(x);
	assert_int_equal(xlat_reserve(x, CV_CODE, 0, XLAT_FAULTS_MAX + 1), 0);
	assert_int_equal(xlat_reserve(x, 3 * MIB, 0, 1), 0);
	assert_int_equal(xlat_reserve(x, CV_CODE, 3 * MIB, 1), 0);
	assert_non_null(cv_publish(x, 0x5000, XLAT_NO_GPA, 8, 0, 0));
	xlat_free(x);
	tv_free(f.t);
}

static u64 cpu_used_ns;

static u64 cpu_used(void)
{
	return cpu_used_ns;
}

static void code_of_an_idle_machine_is_not_worth_its_memory(void **state)
{
	struct fixture f = setup();
	u32 code = f.x->code_next;
	u64 now = 1000 * XLAT_IDLE_NS;

	/* Little code. */
	for (u32 i = 0; i < 3; i++)
		assert_false(xlat_is_idle(f.x, now += XLAT_IDLE_NS, cpu_used));
	f.x->code_next += XLAT_IDLE_BYTES;
	assert_false(xlat_is_idle(f.x, now, cpu_used)); /* the first look */
	/* Busy, then not for long enough, then idle. */
	cpu_used_ns += XLAT_IDLE_NS / XLAT_IDLE_SHARE;
	assert_false(xlat_is_idle(f.x, now += XLAT_IDLE_NS, cpu_used));
	assert_false(xlat_is_idle(f.x, now += XLAT_IDLE_NS - 1, cpu_used));
	assert_true(xlat_is_idle(f.x, now += 1, cpu_used));
	assert_false(xlat_is_idle(f.x, now, cpu_used));
	f.x->code_next = code;
	f.x->idle_ns = 0;
	tv_free(f.t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_block_is_found_by_address_and_mode_only),
		cmocka_unit_test(an_exit_is_linked_to_the_block_that_is_there),
		cmocka_unit_test(links_stay_in_page_and_mode),
		cmocka_unit_test(an_unaligned_site_stays_unlinked),
		cmocka_unit_test(a_killed_block_is_reached_by_nobody),
		cmocka_unit_test(without_room_for_links_exits_stay_unlinked),
		cmocka_unit_test(host_addresses_lead_to_blocks_and_faults),
		cmocka_unit_test(
			code_of_an_idle_machine_is_not_worth_its_memory),
		cmocka_unit_test(a_flush_forgets_everything_but_the_thunks),
		cmocka_unit_test(
			a_full_cache_says_so_and_works_again_when_flushed),
	};

	return test_run("cache", tests);
}
