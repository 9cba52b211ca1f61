/* SPDX-License-Identifier: Apache-2.0 */
/* Traces: where they end, and which flags are live in them. */
#include "test/test.h"

#include <stdlib.h>

#include "soft/trace.h"

static const struct isa_features all = {.bits = ~0ull};

struct fixture {
	u8 page[4096];
	u8 next[16];
	struct xlat_trace t;
};

static struct fixture *setup(void)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	memset(f->page, 0xf4, sizeof(f->page)); /* hlt: the interpreter's */
	memset(f->next, 0xf4, sizeof(f->next));
	return f;
}

/* The trace at `off`, where the bytes are put first. */
#define BUILD(f, off, key, ...)                                                \
	build((f), (off), (key), (const u8[]){__VA_ARGS__},                    \
	      sizeof((const u8[]){__VA_ARGS__}))
static struct xlat_trace *build(struct fixture *f, unsigned off, u32 key,
				const u8 *code, size_t n)
{
	size_t here = MIN(n, 4096 - off);

	memcpy(f->page + off, code, here);
	memcpy(f->next, code + here, n - here);
	xlat_trace_build(&f->t, f->page, f->next, (u16)off, key, &all);
	return &f->t;
}

static void expect_end(const struct xlat_trace *t, unsigned kind, unsigned n,
		       unsigned next_off)
{
	assert_int_equal(t->end_kind, kind);
	assert_int_equal(t->n, n);
	assert_int_equal(t->next_off, next_off);
}

/* ---- shapes ---- */

static void interpreters_instruction_ends_the_trace_before_it(void **state)
{
	struct fixture *f = setup();
	struct xlat_trace *t;

	/* mov eax, ecx; nop; hlt */
	t = BUILD(f, 0x100, 0, 0x89, 0xc8, 0x90, 0xf4);
	expect_end(t, XLAT_END_INTERP, 2, 0x103);
	assert_int_equal(t->first, 0x100);
	assert_int_equal(t->low, 0x100);
	assert_int_equal(t->end, 0x103);
	assert_int_equal(t->insns[1].off, 0x102);
	assert_int_equal(t->end_live, ISA_ALLF);
	assert_true(t->page2 == XLAT_NO_GPA);
	t = BUILD(f, 0x100, 0, 0xf4);
	expect_end(t, XLAT_END_INTERP, 0, 0x100);
	/* ud2; an undefined opcode; more than 15 bytes */
	t = BUILD(f, 0x100, 0, 0x90, 0x0f, 0x0b);
	expect_end(t, XLAT_END_INTERP, 1, 0x101);
	t = BUILD(f, 0x100, 0, 0x90, 0x06);
	expect_end(t, XLAT_END_INTERP, 1, 0x101);
	t = BUILD(f, 0x100, 0, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66,
		  0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x90);
	expect_end(t, XLAT_END_INTERP, 0, 0x100);
	free(f);
}

static void branch_that_leaves_ends_the_trace_behind_it(void **state)
{
	static const struct {
		u8 n, code[7];
	} c[] = {
		{1, {0xc3}},			  /* ret */
		{3, {0xc2, 8, 0}},		  /* ret 8 */
		{5, {0xe8, 0, 0, 0, 0}},	  /* call */
		{2, {0xff, 0xd0}},		  /* call rax */
		{2, {0xff, 0xe1}},		  /* jmp rcx */
		{6, {0xff, 0x25, 0, 0, 0, 0}},	  /* jmp [rip] */
		{2, {0xeb, 0xfe}},		  /* jmp back */
		{5, {0xe9, 0, 0x10, 0, 0}},	  /* jmp out of the page */
		{5, {0xe9, 0, 0xf0, 0xff, 0xff}}, /* backward out of it */
	};

	for (size_t i = 0; i < ARRAY_SIZE(c); i++) {
		struct fixture *f = setup();

		f->page[0] = 0x90;
		build(f, 1, 0, c[i].code, c[i].n);
		xlat_trace_build(&f->t, f->page, NULL, 0, 0, &all);
		expect_end(&f->t, XLAT_END_BRANCH, 2, 1u + c[i].n);
		assert_int_equal(f->t.insns[1].live_out, ISA_ALLF);
		free(f);
	}
}

static void trace_goes_on_through_jcc_and_jumps_forward(void **state)
{
	struct fixture *f = setup();
	struct xlat_trace *t;

	BUILD(f, 0x40, 0, 0x31, 0xc9, 0xf4); /* xor ecx, ecx; hlt */
	/* jne +0x10; loop +2; jmp 0x40 */
	t = BUILD(f, 0x10, 0, 0x75, 0x10, 0xe2, 2, 0xeb, 0x2a);
	expect_end(t, XLAT_END_INTERP, 4, 0x42);
	assert_int_equal(t->insns[3].off, 0x40);
	assert_int_equal(t->end, 0x42);
	assert_int_equal(t->low, 0x10);
	free(f);
}

static void trace_holds_no_more_than_its_maximum(void **state)
{
	struct fixture *f = setup();

	memset(f->page, 0x90, sizeof(f->page));
	xlat_trace_build(&f->t, f->page, NULL, 5, 0, &all);
	expect_end(&f->t, XLAT_END_NEXT, XLAT_TRACE_MAX, 5 + XLAT_TRACE_MAX);
	/* What comes next starts with a flag writer. */
	f->page[5 + XLAT_TRACE_MAX] = 0x31;
	f->page[6 + XLAT_TRACE_MAX] = 0xc0;
	xlat_trace_build(&f->t, f->page, NULL, 5, 0, &all);
	expect_end(&f->t, XLAT_END_NEXT, XLAT_TRACE_MAX, 5 + XLAT_TRACE_MAX);
	assert_int_equal(f->t.end_live, 0);
	free(f);
}

static void page_end_ends_the_trace(void **state)
{
	struct fixture *f = setup();
	struct xlat_trace *t = BUILD(f, 4094, 0, 0x90, 0x90);

	expect_end(t, XLAT_END_PAGE, 2, 4096);
	assert_int_equal(t->end, 4096);
	assert_int_equal(t->end_live, ISA_ALLF);
	assert_true(t->page2 == XLAT_NO_GPA);
	/* A jcc as the last bytes. */
	t = BUILD(f, 4094, 0, 0x74, 0x00);
	expect_end(t, XLAT_END_PAGE, 1, 4096);
	assert_int_equal(t->insns[0].live_target, ISA_ALLF);
	free(f);
}

static void instruction_across_the_page_end_stands_alone(void **state)
{
	struct fixture *f = setup();
	struct xlat_trace *t;

	/* nop; mov eax, 1 */
	t = BUILD(f, 4093, 0, 0x90, 0xb8, 1, 0, 0, 0);
	expect_end(t, XLAT_END_NEXT, 1, 4094);
	assert_int_equal(t->end_live, ISA_ALLF);
	assert_true(t->page2 == XLAT_NO_GPA);
	xlat_trace_build(t, f->page, f->next, 4094, 0, &all);
	expect_end(t, XLAT_END_PAGE, 1, 4096 + 3);
	assert_int_equal(t->insns[0].in.imm, 1);
	assert_int_equal(t->page2, 0);
	assert_int_equal(t->end, 4096);
	/* The next page cannot be executed. */
	xlat_trace_build(t, f->page, NULL, 4094, 0, &all);
	expect_end(t, XLAT_END_INTERP, 0, 4094);
	/* jmp forward; call */
	t = BUILD(f, 4095, 0, 0xeb, 0x10);
	expect_end(t, XLAT_END_BRANCH, 1, 4097);
	t = BUILD(f, 4093, 0, 0xe8, 0, 0, 0, 0);
	expect_end(t, XLAT_END_BRANCH, 1, 4098);
	/* One that the interpreter executes: hlt behind a prefix. */
	t = BUILD(f, 4095, 0, 0x66, 0xf4);
	expect_end(t, XLAT_END_INTERP, 0, 4095);
	free(f);
}

int main(void)
{
#define T(f) cmocka_unit_test(f)
	const struct CMUnitTest tests[] = {
		T(interpreters_instruction_ends_the_trace_before_it),
		T(branch_that_leaves_ends_the_trace_behind_it),
		T(trace_goes_on_through_jcc_and_jumps_forward),
		T(trace_holds_no_more_than_its_maximum),
		T(page_end_ends_the_trace),
		T(instruction_across_the_page_end_stands_alone),
	};

	return test_run("trace", tests);
}
