/* SPDX-License-Identifier: Apache-2.0 */
/* Who may write to pages that hold code: smc.c on its own, without guests. The
 * vCPUs are the test's to drive; only the last test has a second thread. */
#include "test/test.h"

#include <sched.h>

#include "soft/cachevm.h"
#include "soft/mmu_int.h"
#include "soft/smpvm.h"

#define PAGE 0x50000u

struct fixture {
	struct smpvm *t;
	struct xlat *x;
	struct vcpu *v0, *v1;
};

static struct fixture setup(void)
{
	struct fixture f = {.t = smp_new(2)};

	f.x = f.t->vm->xlat;
	assert_non_null(f.x);
	f.v0 = f.t->v[0];
	f.v1 = f.t->v[1];
	smc_vcpu_started(f.v0);
	smc_vcpu_started(f.v1);
	return f;
}

static bool is_found(struct fixture *f, gpa_t gpa)
{
	return xlat_find(f->x, gpa, XLAT_NO_GPA, 0) != NULL;
}

/* The linear addresses of these machines are RAM offsets. */
static bool take_tag(struct vcpu *v, gpa_t gpa)
{
	soft_tlb_fill_leaf(v, gpa, SOFT_W);
	return soft_tlb_hit(v, gpa, SOFT_W);
}
static bool has_tag(struct vcpu *v, gpa_t gpa)
{
	return soft_tlb_hit(v, gpa, SOFT_W);
}
static bool is_asked(struct vcpu *v)
{
	return atomic_load(&v->requests) & SOFT_REQ_REVOKE;
}
static u32 doubts(struct fixture *f)
{
	return atomic_load(&f->x->doubts);
}

/* As a store of generated code: nobody hears of it. */
static void poke(struct fixture *f, gpa_t gpa, u8 value)
{
	__atomic_store_n(f->t->ram + gpa, value, __ATOMIC_SEQ_CST);
}

/* ---- lines ---- */

static void a_store_ends_the_blocks_over_its_lines_and_no_others(void **state)
{
	struct fixture f = setup();

	cv_translate(f.v0, PAGE, 8);
	cv_translate(f.v0, PAGE + 60, 8); /* over a line's end */
	cv_translate(f.v0, PAGE + 128, 64);
	assert_int_equal(smc_page_of(f.x, PAGE)->code, 7);
	smc_written(f.t->vm, PAGE + 64, 1);
	assert_true(is_found(&f, PAGE));
	assert_false(is_found(&f, PAGE + 60));
	assert_true(is_found(&f, PAGE + 128));
	assert_int_equal(smc_page_of(f.x, PAGE)->code, 5);
	smc_written(f.t->vm, PAGE + 192, 64);
	smc_written(f.t->vm, PAGE - 1, 1);
	smc_written(f.t->vm, PAGE, 0);
	assert_true(is_found(&f, PAGE) && is_found(&f, PAGE + 128));
	smc_written(f.t->vm, PAGE - 1, 2);
	assert_false(is_found(&f, PAGE));
	smc_written(f.t->vm, PAGE + 191, 2);
	assert_false(is_found(&f, PAGE + 128));
	assert_int_equal(smc_page_of(f.x, PAGE)->code, 0);
	smp_free(f.t);
}

static void a_block_over_two_pages_ends_with_either(void **state)
{
	static const gpa_t stores[] = {PAGE + 0xffe, PAGE + 0x1001};
	struct fixture f = setup();

	for (size_t i = 0; i < ARRAY_SIZE(stores); i++) {
		struct xlat_block *b;

		xlat_lock(f.x);
		smc_protect(f.v0, PAGE + 0xffe, 2);
		smc_protect(f.v0, PAGE + 0x1000, 2);
		b = cv_publish(f.x, PAGE + 0xffe, PAGE + 0x1000, 4, 0, 0);
		xlat_unlock(f.x);
		assert_true(smc_page_of(f.x, PAGE)->code &&
			    smc_page_of(f.x, PAGE + 0x1000)->code);
		smc_written(f.t->vm, PAGE + 0x1080, 64); /* another line */
		assert_false(b->is_dead);
		smc_written(f.t->vm, stores[i], 1);
		assert_true(b->is_dead);
		assert_int_equal(smc_page_of(f.x, PAGE)->code, 0);
		assert_int_equal(smc_page_of(f.x, PAGE + 0x1000)->code, 0);
	}
	smp_free(f.t);
}

static void stores_of_any_extent_are_bounded(void **state)
{
	static const struct {
		u64 gpa, len;
	} rows[] = {
		{0, SMP_RAM},
		{0, ~0ull},
		{PAGE, ~0ull},
		{0, BIT64(52)},
	};
	struct fixture f = setup();

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		cv_translate(f.v0, PAGE, 8);
		cv_translate(f.v0, SMP_RAM - 64, 8);
		smc_written(f.t->vm, rows[i].gpa, rows[i].len);
		assert_false(is_found(&f, PAGE));
		assert_false(is_found(&f, SMP_RAM - 64));
	}
	smc_written(f.t->vm, ~0ull, 1);
	smc_written(f.t->vm, ~0ull, ~0ull);
	smc_written(f.t->vm, BIT64(52), BIT64(40));
	smp_free(f.t);
}

/* ---- write tags ---- */

static void a_page_with_code_gives_no_write_tag(void **state)
{
	struct fixture f = setup();

	cv_translate(f.v0, PAGE, 8);
	assert_false(take_tag(f.v0, PAGE + 0x800));
	assert_false(take_tag(f.v1, PAGE + 0x800));
	/* A refusal is no reason to wait for that vCPU. */
	assert_int_equal(smc_page_of(f.x, PAGE)->writers, 0);
	assert_true(take_tag(f.v1, PAGE + 0x1000));
	smc_written(f.t->vm, PAGE, 1);
	assert_true(take_tag(f.v0, PAGE + 0x800));
	smp_free(f.t);
}

static void a_translation_takes_the_own_tags_through_every_alias(void **state)
{
	struct fixture f = setup();

	assert_true(take_tag(f.v0, PAGE));
	assert_true(take_tag(f.v0, SMP_ALIAS + PAGE));
	assert_true(take_tag(f.v0, PAGE + 0x1000));
	cv_translate(f.v0, PAGE, 8);
	assert_false(has_tag(f.v0, PAGE));
	assert_false(has_tag(f.v0, SMP_ALIAS + PAGE));
	assert_true(has_tag(f.v0, PAGE + 0x1000));
	assert_int_equal(doubts(&f), 0);
	smp_free(f.t);
}

/* How many stores beside its code a page stands. */
static unsigned stores_until_dropped(struct fixture *f)
{
	unsigned n = 0;

	cv_translate(f->v0, PAGE, 8);
	while (is_found(f, PAGE)) {
		smc_written(f->t->vm, PAGE + 0x800, 8);
		assert_true(++n < 100000);
	}
	assert_int_equal(smc_page_of(f->x, PAGE)->code, 0);
	assert_true(take_tag(f->v0, PAGE + 0x800));
	return n;
}

static void
data_beside_code_wins_after_a_while_and_later_each_time(void **state)
{
	struct fixture f = setup();
	unsigned first = stores_until_dropped(&f), n = first, before;

	assert_true(first >= 16 && first <= 64);
	for (int i = 0; i < 10; i++) {
		before = n;
		n = stores_until_dropped(&f);
		assert_true(n >= before && n <= 2 * before);
	}
	/* Later, but not without end. */
	assert_true(n > 16 * first && n <= 128 * first);
	smp_free(f.t);
}

/* ---- other vCPUs' tags ---- */

static void a_block_of_a_page_that_another_writes_is_checked_later(void **state)
{
	struct fixture f = setup();

	assert_true(take_tag(f.v1, PAGE + 0x800));
	cv_translate(f.v0, PAGE, 8);
	assert_true(is_asked(f.v1));
	assert_int_equal(doubts(&f), 1);
	assert_true(has_tag(f.v1, PAGE + 0x800)); /* nobody waited */
	smc_serialize(f.v0);
	assert_true(is_found(&f, PAGE)); /* nothing has changed */
	assert_int_equal(doubts(&f), 1); /* but still can */
	smc_revoke(f.v1);
	assert_false(has_tag(f.v1, PAGE + 0x800));
	assert_int_equal(doubts(&f), 0);
	assert_true(is_found(&f, PAGE));
	assert_int_equal(f.x->stats.verify_failures, 0);
	smp_free(f.t);
}

static void who_serializes_sees_the_stores_of_one_not_yet_revoked(void **state)
{
	struct fixture f = setup();

	assert_true(take_tag(f.v1, PAGE));
	cv_translate(f.v0, PAGE, 8);
	poke(&f, PAGE + 3, 0x55);
	assert_true(is_found(&f, PAGE));
	smc_serialize(f.v0);
	assert_false(is_found(&f, PAGE));
	assert_int_equal(f.x->stats.verify_failures, 1);
	assert_int_equal(doubts(&f), 0);
	/* Its successor has the new bytes and the same writer. */
	cv_translate(f.v0, PAGE, 8);
	assert_int_equal(doubts(&f), 1);
	smc_serialize(f.v0);
	assert_true(is_found(&f, PAGE));
	smc_revoke(f.v1);
	assert_true(is_found(&f, PAGE));
	assert_int_equal(doubts(&f), 0);
	smp_free(f.t);
}

static void the_last_acknowledgement_compares_for_good(void **state)
{
	struct fixture f = setup();

	assert_true(take_tag(f.v1, PAGE));
	cv_translate(f.v0, PAGE, 8);
	cv_translate(f.v0, PAGE + 64, 8);
	poke(&f, PAGE + 3, 0x55);
	smc_revoke(f.v1);
	assert_false(is_found(&f, PAGE));
	assert_true(is_found(&f, PAGE + 64));
	assert_int_equal(doubts(&f), 0);
	smp_free(f.t);
}

static void a_vcpu_that_does_not_run_is_not_waited_for(void **state)
{
	struct fixture f = setup();

	assert_true(take_tag(f.v1, PAGE));
	smc_vcpu_stopped(f.v1);
	atomic_store(&f.v1->requests, 0);
	cv_translate(f.v0, PAGE, 8);
	assert_false(is_asked(f.v1));
	assert_int_equal(doubts(&f), 0);
	smc_vcpu_started(f.v1); /* before it can store anything */
	assert_false(has_tag(f.v1, PAGE));
	/* One that stops while it is asked has answered. */
	assert_true(take_tag(f.v1, PAGE + 0x1000));
	cv_translate(f.v0, PAGE + 0x1000, 8);
	assert_int_equal(doubts(&f), 1);
	smc_vcpu_stopped(f.v1);
	assert_int_equal(doubts(&f), 0);
	assert_true(is_found(&f, PAGE + 0x1000));
	smp_free(f.t);
}

static void more_requests_than_the_queue_holds_take_all_tags(void **state)
{
	struct fixture f = setup();
	u32 n = SMC_QUEUE_MAX + 8;

	for (u32 i = 0; i < n; i++)
		assert_true(take_tag(f.v1, PAGE + i * PAGE_BYTES));
	assert_true(take_tag(f.v1, SMP_SEEN1));
	for (u32 i = 0; i < n; i++)
		cv_translate(f.v0, PAGE + i * PAGE_BYTES, 8);
	assert_int_equal(doubts(&f), n);
	smc_revoke(f.v1);
	for (u32 i = 0; i < n; i++) {
		assert_false(has_tag(f.v1, PAGE + i * PAGE_BYTES));
		assert_true(is_found(&f, PAGE + i * PAGE_BYTES));
		/* And once more, whatever `writers` says by now. */
		assert_false(take_tag(f.v1, PAGE + i * PAGE_BYTES));
	}
	assert_false(has_tag(f.v1, SMP_SEEN1));
	assert_int_equal(doubts(&f), 0);
	smp_free(f.t);
}

static void more_doubts_than_the_list_holds_end_blocks(void **state)
{
	struct fixture f = setup();
	u32 dead = 0;

	assert_true(take_tag(f.v1, SMP_SEEN1));
	for (u32 i = 0; i < SMC_UNVERIFIED_MAX + 10; i++)
		dead += cv_translate(f.v0, SMP_SEEN1 + i % 4096, 1)->is_dead;
	assert_int_equal(dead, 10);
	assert_int_equal(doubts(&f), SMC_UNVERIFIED_MAX);
	smc_revoke(f.v1);
	assert_int_equal(doubts(&f), 0);
	assert_int_equal(f.x->unverified_count, 0);
	smp_free(f.t);
}

static void a_flush_forgets_code_and_doubts(void **state)
{
	struct fixture f = setup();

	assert_true(take_tag(f.v1, PAGE));
	cv_translate(f.v0, PAGE, 8);
	xlat_flush_all(f.x);
	assert_int_equal(doubts(&f), 0);
	assert_int_equal(smc_page_of(f.x, PAGE)->code, 0);
	assert_false(is_found(&f, PAGE));
	smc_revoke(f.v1);
	assert_false(has_tag(f.v1, PAGE));
	assert_true(take_tag(f.v1, PAGE));
	cv_translate(f.v0, PAGE, 8);
	assert_int_equal(doubts(&f), 1);
	smp_free(f.t);
}

static void code_in_a_slot_that_goes_is_gone(void **state)
{
	struct fixture f = setup();

	cv_translate(f.v0, PAGE, 8);
	assert_int_equal(mem_slot_del(f.t->mem, 0), 0);
	assert_false(is_found(&f, PAGE));
	smp_free(f.t);
}

static void what_the_engine_itself_writes_ends_code(void **state)
{
	struct fixture f = setup();

	f.v0->pv_eoi = PAGE | 1;
	cv_translate(f.v0, PAGE, 8);
	assert_true(soft_pv_eoi_set(f.v0));
	assert_false(is_found(&f, PAGE));
	cv_translate(f.v0, PAGE, 8);
	assert_true(soft_pv_eoi_clear(f.v0));
	assert_false(is_found(&f, PAGE));
	/* The steal time area's `preempted`. */
	f.v0->pv_steal_time = PAGE | 1;
	cv_translate(f.v0, PAGE, 64);
	soft_pv_leave(f.v0);
	assert_false(is_found(&f, PAGE));
	cv_translate(f.v0, PAGE, 64);
	soft_pv_enter(f.v0);
	assert_false(is_found(&f, PAGE));
	smp_free(f.t);
}

/* ---- two threads ---- */

#define RACE_NS 700000000ull

/* vCPU 1 counts in memory, through its write tag where it has one, and says
 * what it has stored; as code that patches code does. */
struct race {
	struct fixture f;
	_Atomic u32 flag;   /* the last value stored */
	_Atomic u32 passed; /* the last one that vCPU 0 has checked */
	_Atomic bool is_over;
	u32 through_tag;
};

static void *race_writer(void *arg)
{
	struct race *r = arg;
	struct vcpu *v = r->f.v1;
	u32 *word = (u32 *)(r->f.t->ram + PAGE);

	for (u32 i = 1; !r->is_over; i++) {
		if (i % 64 == 0) { /* sleeps */
			smc_vcpu_stopped(v);
			smc_vcpu_started(v);
		}
		if (atomic_exchange(&v->requests, 0) & SOFT_REQ_REVOKE)
			smc_revoke(v);
		if (take_tag(v, PAGE)) {
			__atomic_store_n(word, i, __ATOMIC_RELEASE);
			r->through_tag++;
		} else {
			__atomic_store_n(word, i, __ATOMIC_RELEASE);
			smc_written(r->f.t->vm, PAGE, 4);
		}
		atomic_store_explicit(&r->flag, i, memory_order_release);
		/* Sometimes in step, sometimes ahead. */
		while (i % 4 == 0 && r->passed + 2 < i && !r->is_over)
			sched_yield();
	}
	return NULL;
}

/* Notes by the block's index which value of the word it was made from. */
static void race_translate(struct race *r, u32 *made_from)
{
	struct xlat *x = r->f.x;
	struct xlat_block *b;
	bool is_sure;
	u32 word;

	xlat_lock(x);
	is_sure = smc_protect(r->f.v0, PAGE, 4);
	word = __atomic_load_n((u32 *)(r->f.t->ram + PAGE), __ATOMIC_ACQUIRE);
	b = cv_publish(x, PAGE, XLAT_NO_GPA, 4, 0, 0);
	assert_non_null(b);
	made_from[xlat_block_index(x, b)] = word;
	if (!is_sure)
		smc_unverified(x, b,
			       &(struct xlat_source){
				       .hash = xlat_hash((u8 *)&word, 4)});
	xlat_unlock(x);
}

static void who_serializes_after_the_flag_finds_no_older_code(void **state)
{
	struct race r = {.f = setup()};
	u32 *made_from = calloc(XLAT_BLOCKS_MAX, sizeof(u32));
	u32 rounds = 0, blocks = 0, stale_by = 0;
	u64 end = clock_mono_ns() + RACE_NS;
	pthread_t thread;

	assert_non_null(made_from);
	assert_int_equal(pthread_create(&thread, NULL, race_writer, &r), 0);
	while (blocks < XLAT_BLOCKS_MAX - 10 && clock_mono_ns() < end) {
		u32 flag = atomic_load_explicit(&r.flag, memory_order_acquire);
		const struct xlat_block *b;

		smc_serialize(r.f.v0);
		b = xlat_find(r.f.x, PAGE, XLAT_NO_GPA, 0);
		if (b) {
			u32 word = made_from[xlat_block_index(r.f.x, b)];

			if (word < flag) {
				stale_by = flag - word;
				break;
			}
		} else {
			race_translate(&r, made_from);
			blocks++;
		}
		r.passed = flag;
		rounds++;
	}
	r.is_over = true;
	pthread_join(thread, NULL);
	if (stale_by)
		fail_msg("round %u: code older by %u", rounds, stale_by);
	smc_revoke(r.f.v1);
	assert_int_equal(doubts(&r.f), 0);
	print_message(
		"%u stores, %u through the tag; %u rounds, %llu found stale\n",
		r.flag, r.through_tag, rounds,
		(unsigned long long)r.f.x->stats.verify_failures);
	assert_true(r.flag > 100 && rounds > 100 && r.through_tag > 10);
	free(made_from);
	smp_free(r.f.t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			a_store_ends_the_blocks_over_its_lines_and_no_others),
		cmocka_unit_test(a_block_over_two_pages_ends_with_either),
		cmocka_unit_test(stores_of_any_extent_are_bounded),
		cmocka_unit_test(a_page_with_code_gives_no_write_tag),
		cmocka_unit_test(
			a_translation_takes_the_own_tags_through_every_alias),
		cmocka_unit_test(
			data_beside_code_wins_after_a_while_and_later_each_time),
		cmocka_unit_test(
			a_block_of_a_page_that_another_writes_is_checked_later),
		cmocka_unit_test(
			who_serializes_sees_the_stores_of_one_not_yet_revoked),
		cmocka_unit_test(the_last_acknowledgement_compares_for_good),
		cmocka_unit_test(a_vcpu_that_does_not_run_is_not_waited_for),
		cmocka_unit_test(
			more_requests_than_the_queue_holds_take_all_tags),
		cmocka_unit_test(more_doubts_than_the_list_holds_end_blocks),
		cmocka_unit_test(a_flush_forgets_code_and_doubts),
		cmocka_unit_test(code_in_a_slot_that_goes_is_gone),
		cmocka_unit_test(what_the_engine_itself_writes_ends_code),
		cmocka_unit_test(
			who_serializes_after_the_flag_finds_no_older_code),
	};

	return test_run("smc", tests);
}
