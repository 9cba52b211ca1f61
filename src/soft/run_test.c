/* SPDX-License-Identifier: Apache-2.0 */
/* The dispatcher: what is interpreted first, and when it is translated. */
#include "test/test.h"

#include "soft/interp_int.h"
#include "soft/tiervm.h"
#include "soft/xlat_int.h"

#define WARM 3u

/* add rax, 1; jmp to the end */
static const u8 add_one[] = {0x48, 0x83, 0xc0, 0x01, 0xeb, 0x3a};

static struct testvm *setup(void)
{
	struct testvm *t = tier_new();

	t->vm->xlat->warm = WARM;
	tier_long(t, TIER_CS64);
	return t;
}

static void done(struct testvm *t)
{
	t->vm->xlat->warm = 0;
	tv_free(t);
}

static void run_once(struct testvm *t, const u8 *code, size_t n)
{
	int vector = tier_run_bytes(t, code, n, TIER_XLAT);

	assert_true(tier_is_at_end(t->v, vector));
}

/* Runs what stands at TV_CODE once more. */
static void run_again(struct testvm *t)
{
	t->v->rip = TV_CODE;
	assert_true(tier_is_at_end(t->v, tier_run(t->v, TIER_XLAT)));
}

static void code_is_interpreted_before_it_is_translated(void **state)
{
	struct testvm *t = setup();
	struct xlat *x = t->vm->xlat;

	run_once(t, add_one, sizeof(add_one));
	for (u32 i = 1; i < WARM; i++) {
		assert_null(xlat_find(x, TV_CODE, XLAT_NO_GPA, t->v->key));
		run_again(t);
	}
	assert_int_equal(x->stats.blocks, 0);
	run_again(t);
	assert_non_null(xlat_find(x, TV_CODE, XLAT_NO_GPA, t->v->key));
	run_again(t);
	assert_int_equal(t->v->gpr[X86_RAX], WARM + 2);
	done(t);
}

static void a_loop_becomes_warm_while_it_runs(void **state)
{
	/* mov ecx, 1000; add rax, 1; dec ecx; jnz; jmp to the end */
	static const u8 loop[] = {0xb9, 0xe8, 0x03, 0x00, 0x00,
				  0x48, 0x83, 0xc0, 0x01, 0xff,
				  0xc9, 0x75, 0xf8, 0xeb, 0x31};
	struct testvm *t = setup();
	u64 before = t->v->instructions;

	run_once(t, loop, sizeof(loop));
	assert_int_equal(t->v->gpr[X86_RAX], 1000);
	assert_non_null(
		xlat_find(t->vm->xlat, TV_CODE + 5, XLAT_NO_GPA, t->v->key));
	assert_in_range(t->v->instructions - before, 3 * WARM, 6 * WARM);
	done(t);
}

static void code_that_was_written_is_cold_again(void **state)
{
	struct testvm *t = setup();
	struct xlat *x = t->vm->xlat;
	u8 other[sizeof(add_one)];

	run_once(t, add_one, sizeof(add_one));
	for (u32 i = 0; i < WARM; i++)
		run_again(t);
	assert_non_null(xlat_find(x, TV_CODE, XLAT_NO_GPA, t->v->key));
	memcpy(other, add_one, sizeof(other));
	other[3] = 2;
	t->v->gpr[X86_RAX] = 0;
	run_once(t, other, sizeof(other));
	assert_int_equal(t->v->gpr[X86_RAX], 2);
	assert_null(xlat_find(x, TV_CODE, XLAT_NO_GPA, t->v->key));
	done(t);
}

static void code_that_was_warm_stays_so_when_all_is_flushed(void **state)
{
	struct testvm *t = setup();
	struct xlat *x = t->vm->xlat;

	run_once(t, add_one, sizeof(add_one));
	for (u32 i = 0; i < WARM; i++)
		run_again(t);
	xlat_flush_all(x);
	run_again(t);
	assert_non_null(xlat_find(x, TV_CODE, XLAT_NO_GPA, t->v->key));
	done(t);
}

/* More code than the interpreter keeps, over and over. */
static void cold_code_may_be_more_than_the_interpreter_keeps(void **state)
{
	enum { PAGES = 32 };
	struct testvm *t = setup();
	const u8 last[] = {0xe9, 0, 0, 0, 0, 0x0f, 0x0b};
	u64 count = 0;

	for (u32 i = 0; i < PAGES; i++)
		for (u32 k = 0; k < PAGE_BYTES; k += 4) {
			static const u8 inc[] = {0x48, 0xff, 0xc0, 0x90};

			memcpy(t->ram + 0x100000 + i * PAGE_BYTES + k, inc, 4);
		}
	memcpy(t->ram + 0x100000 + PAGES * PAGE_BYTES, last, sizeof(last));
	assert_true(PAGES * PAGE_BYTES / 4 > SOFT_ICACHE_COLD);
	for (u32 i = 0; i < WARM + 2; i++) {
		t->v->rip = 0x100000;
		assert_int_equal(tier_run(t->v, TIER_XLAT), X86_VEC_UD);
		count += PAGES * PAGE_BYTES / 4;
		assert_int_equal(t->v->gpr[X86_RAX], count);
	}
	done(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(code_is_interpreted_before_it_is_translated),
		cmocka_unit_test(a_loop_becomes_warm_while_it_runs),
		cmocka_unit_test(code_that_was_written_is_cold_again),
		cmocka_unit_test(
			code_that_was_warm_stays_so_when_all_is_flushed),
		cmocka_unit_test(
			cold_code_may_be_more_than_the_interpreter_keeps),
	};

	return test_run("run", tests);
}
