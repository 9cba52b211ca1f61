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
	expect_end(t, XLAT_END_PAGE, 1, 4094);
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

/* ---- liveness ---- */

static void flags_die_where_they_are_overwritten(void **state)
{
	struct fixture *f = setup();
	/* add eax, ecx; mov edx, eax; sub eax, ecx; adc eax, 0; ret */
	struct xlat_trace *t = BUILD(f, 0, 0, 0x01, 0xc8, 0x89, 0xc2, 0x29,
				     0xc8, 0x83, 0xd0, 0x00, 0xc3);

	assert_int_equal(t->insns[0].live_out, 0);
	assert_int_equal(t->insns[1].live_out, 0);
	assert_int_equal(t->insns[2].live_out, ISA_CF);
	assert_int_equal(t->insns[3].live_out, ISA_ALLF);
	assert_int_equal(t->insns[4].live_out, ISA_ALLF);
	free(f);
}

static void partial_writers_let_the_rest_through(void **state)
{
	struct fixture *f = setup();
	/* cmp eax, ecx; inc ebx; xor eax, eax; ret */
	struct xlat_trace *t =
		BUILD(f, 0, 0, 0x39, 0xc8, 0xff, 0xc3, 0x31, 0xc0, 0xc3);

	assert_int_equal(t->insns[0].live_out, 0);
	/* cmp eax, ecx; inc ebx; setb al; test eax, eax; ret */
	t = BUILD(f, 0, 0, 0x39, 0xc8, 0xff, 0xc3, 0x0f, 0x92, 0xc0, 0x85, 0xc0,
		  0xc3);
	assert_int_equal(t->insns[0].live_out, ISA_CF);
	assert_int_equal(t->insns[1].live_out, ISA_CF);
	assert_int_equal(t->insns[2].live_out, 0);
	/* cmp eax, ecx; bt eax, 3; sete al; test eax, eax; ret */
	t = BUILD(f, 0, 0, 0x39, 0xc8, 0x0f, 0xba, 0xe0, 0x03, 0x0f, 0x94, 0xc0,
		  0x85, 0xc0, 0xc3);
	assert_int_equal(t->insns[0].live_out, ISA_ZF);
	/* cmp eax, ecx; rol ebx, 3; ret */
	t = BUILD(f, 0, 0, 0x39, 0xc8, 0xc1, 0xc3, 0x03, 0xc3);
	assert_int_equal(t->insns[0].live_out, ISA_ALLF & ~(ISA_CF | ISA_OF));
	/* cmp eax, ecx; rcl ebx, 3; ret */
	t = BUILD(f, 0, 0, 0x39, 0xc8, 0xc1, 0xd3, 0x03, 0xc3);
	assert_int_equal(t->insns[0].live_out, ISA_ALLF & ~ISA_OF);
	free(f);
}

static void shift_that_may_be_by_zero_keeps_flags_that_are_live(void **state)
{
	struct fixture *f = setup();
	/* cmp eax, ecx; shl ebx, cl; ret */
	struct xlat_trace *t = BUILD(f, 0, 0, 0x39, 0xc8, 0xd3, 0xe3, 0xc3);

	assert_int_equal(t->insns[0].live_out, ISA_ALLF);
	assert_int_equal(t->insns[1].reads, ISA_ALLF);
	/* Masked to zero. */
	t = BUILD(f, 0, 0, 0x39, 0xc8, 0xc1, 0xe3, 0x20, 0xc3);
	assert_int_equal(t->insns[0].live_out, ISA_ALLF);
	t = BUILD(f, 0, 0, 0x39, 0xc8, 0xc1, 0xe3, 0x21, 0xc3);
	assert_int_equal(t->insns[0].live_out, 0);
	/* 64 bits: six bits of the count. */
	t = BUILD(f, 0, 0, 0x39, 0xc8, 0x48, 0xc1, 0xe3, 0x20, 0xc3);
	assert_int_equal(t->insns[0].live_out, 0);
	/* cmp; shl ebx, cl; test eax, eax: nobody reads what it keeps. */
	t = BUILD(f, 0, 0, 0x39, 0xc8, 0xd3, 0xe3, 0x85, 0xc0, 0xc3);
	assert_int_equal(t->insns[0].live_out, 0);
	assert_int_equal(t->insns[1].reads, 0);
	/* cmp; repe cmpsb; ret, and without rep */
	t = BUILD(f, 0, 0, 0x39, 0xc8, 0xf3, 0xa6, 0xc3);
	assert_int_equal(t->insns[0].live_out, ISA_ALLF);
	t = BUILD(f, 0, 0, 0x39, 0xc8, 0xa6, 0xc3);
	assert_int_equal(t->insns[0].live_out, 0);
	free(f);
}

static void side_exit_keeps_what_its_target_reads(void **state)
{
	struct fixture *f = setup();
	struct xlat_trace *t;

	/* The target: nothing known (hlt). */
	t = BUILD(f, 0, 0, 0x39, 0xc8, 0x74, 0x7c, 0x31, 0xc0, 0xc3);
	assert_int_equal(t->insns[1].live_target, ISA_ALLF);
	assert_int_equal(t->insns[0].live_out, ISA_ALLF);
	/* The target: mov ecx, eax; xor eax, eax. */
	BUILD(f, 0x80, 0, 0x89, 0xc1, 0x31, 0xc0);
	t = BUILD(f, 0, 0, 0x39, 0xc8, 0x74, 0x7c, 0x31, 0xc0, 0xc3);
	assert_int_equal(t->insns[1].live_target, 0);
	assert_int_equal(t->insns[0].live_out, ISA_ZF);
	/* The target: jmp +1; hlt; setb al; xor eax, eax. */
	BUILD(f, 0x80, 0, 0xeb, 1, 0xf4, 0x0f, 0x92, 0xc0, 0x31, 0xc0);
	t = BUILD(f, 0, 0, 0x39, 0xc8, 0x74, 0x7c, 0x31, 0xc0, 0xc3);
	assert_int_equal(t->insns[1].live_target, ISA_CF);
	assert_int_equal(t->insns[0].live_out, ISA_CF | ISA_ZF);
	/* The target: js to a setp, and test eax, eax behind. */
	BUILD(f, 0x80, 0, 0x78, 0x0e, 0x85, 0xc0);
	BUILD(f, 0x90, 0, 0x0f, 0x9a, 0xc0, 0x85, 0xc0);
	t = BUILD(f, 0, 0, 0x39, 0xc8, 0x74, 0x7c, 0x31, 0xc0, 0xc3);
	assert_int_equal(t->insns[1].live_target, ISA_SF | ISA_PF);
	/* A target outside the page. */
	t = BUILD(f, 0, 0, 0x39, 0xc8, 0x74, 0x80, 0x31, 0xc0, 0xc3);
	assert_int_equal(t->insns[1].live_target, ISA_ALLF);
	free(f);
}

static void target_in_the_trace_is_known_from_the_trace(void **state)
{
	struct fixture *f = setup();
	/* cmp eax, ecx; je L; inc eax; L: setb al; ret */
	struct xlat_trace *t = BUILD(f, 0, 0, 0x39, 0xc8, 0x74, 0x02, 0xff,
				     0xc0, 0x0f, 0x92, 0xc0, 0x85, 0xc0, 0xc3);

	assert_int_equal(t->insns[1].live_target, ISA_CF);
	assert_int_equal(t->insns[0].live_out, ISA_CF | ISA_ZF);
	/* L: dec ecx; jne L; xor eax, eax; ret: CF is never read. */
	t = BUILD(f, 0, 0, 0xff, 0xc9, 0x75, 0xfc, 0x31, 0xc0, 0xc3);
	assert_int_equal(t->insns[1].live_target, 0);
	assert_int_equal(t->insns[0].live_out, ISA_ZF);
	/* L: adc eax, edx; dec ecx; jne L; xor eax, eax; ret: it is. */
	t = BUILD(f, 0, 0, 0x11, 0xd0, 0xff, 0xc9, 0x75, 0xfa, 0x31, 0xc0,
		  0xc3);
	assert_int_equal(t->insns[2].live_target, ISA_CF);
	assert_int_equal(t->insns[0].live_out, ISA_CF);
	/* L: test eax, eax; jmp L */
	t = BUILD(f, 0, 0, 0x85, 0xc0, 0xeb, 0xfc);
	assert_int_equal(t->insns[1].live_target, 0);
	assert_int_equal(t->insns[1].live_out, 0);
	free(f);
}

static void look_ahead_is_bounded(void **state)
{
	struct fixture *f = setup();
	struct xlat_trace *t;

	/* Behind the bound a test; two jcc that lead to one another. */
	memset(f->page + 0x80, 0x90, 64);
	f->page[0xc0] = 0x85;
	f->page[0xc1] = 0xc0;
	t = BUILD(f, 0, 0, 0x39, 0xc8, 0x74, 0x7c, 0x31, 0xc0, 0xc3);
	assert_int_equal(t->insns[1].live_target, ISA_ALLF);
	memset(f->page + 0x80, 0x70, 64); /* jo +0x70, and so on */
	t = BUILD(f, 0, 0, 0x39, 0xc8, 0x74, 0x7c, 0x31, 0xc0, 0xc3);
	assert_int_equal(t->insns[1].live_target, ISA_ALLF);
	/* jmp to itself */
	BUILD(f, 0x80, 0, 0xeb, 0xfe);
	t = BUILD(f, 0, 0, 0x39, 0xc8, 0x74, 0x7c, 0x31, 0xc0, 0xc3);
	assert_int_equal(t->insns[1].live_target, ISA_ALLF);
	free(f);
}

/* ---- what generated code handles ---- */

static bool can_lower(u32 key, const u8 *code, size_t n)
{
	struct insn in;
	u8 bytes[15] = {0};

	memcpy(bytes, code, n);
	assert_int_equal(
		x86_decode(&in, bytes, sizeof(bytes),
			   key & XLAT_KEY_32 ? X86_MODE_32 : X86_MODE_64, &all),
		n);
	return xlat_can_lower(&in, key);
}
#define CAN(key, ...)                                                          \
	can_lower((key), (const u8[]){__VA_ARGS__},                            \
		  sizeof((const u8[]){__VA_ARGS__}))

static void fpu_rows_depend_on_the_key(void **state)
{
	static const u8 rows[4][5] = {
		{0xd9, 0xe8},		  /* fld1 */
		{0x0f, 0x6f, 0xc1},	  /* movq mm0, mm1 */
		{0x0f, 0x58, 0xc1},	  /* addps xmm0, xmm1 */
		{0xc5, 0xf0, 0x58, 0xc1}, /* vaddps xmm0, xmm1, xmm1 */
	};
	static const u8 len[4] = {2, 3, 3, 4};

	for (unsigned i = 0; i < 4; i++) {
		assert_true(can_lower(0, rows[i], len[i]));
		assert_false(can_lower(XLAT_KEY_NM, rows[i], len[i]));
		assert_int_equal(can_lower(XLAT_KEY_NOSSE, rows[i], len[i]),
				 i != 2);
		assert_int_equal(can_lower(XLAT_KEY_NOAVX, rows[i], len[i]),
				 i != 3);
	}
	assert_true(CAN(XLAT_KEY_NOSSE, 0x9b));
	assert_false(CAN(XLAT_KEY_NM, 0x9b)); /* fwait */
	/* VEX without vector registers: andn */
	assert_true(CAN(XLAT_KEY_NM | XLAT_KEY_NOAVX, 0xc4, 0xe2, 0x70, 0xf2,
			0xc1));
	assert_true(CAN(XLAT_KEY_NM | XLAT_KEY_NOSSE, 0x0f, 0xae, 0xf0));
}

static void odd_operand_and_address_sizes_are_the_interpreters(void **state)
{
	assert_true(CAN(0, 0x50));	  /* push rax */
	assert_false(CAN(0, 0x66, 0x50)); /* push ax */
	assert_true(CAN(0, 0xc9));
	assert_false(CAN(0, 0x66, 0xc9));    /* leave */
	assert_false(CAN(0, 0xc8, 0, 0, 0)); /* enter */
	assert_true(CAN(0, 0xa4));
	assert_true(CAN(0, 0xf3, 0x48, 0xa5));
	assert_false(CAN(0, 0x67, 0xa4));
	assert_false(CAN(0, 0x64, 0xa4)); /* movs with fs */
	assert_false(CAN(0, 0x6c));	  /* ins */
	assert_true(CAN(0, 0x67, 0x8b, 0x00));
	assert_true(CAN(0, 0x65, 0x8b, 0x00));
	assert_true(CAN(XLAT_KEY_32, 0x50));
	assert_false(CAN(XLAT_KEY_32, 0x66, 0x50));
	assert_true(CAN(XLAT_KEY_32, 0x8b, 0x00));
	assert_false(CAN(XLAT_KEY_32, 0x67, 0x8b, 0x00)); /* [bx+si] */
	/* mov eax, gs:[eax]; mov eax, fs:[eax] */
	assert_false(CAN(XLAT_KEY_32 | XLAT_KEY_FS, 0x65, 0x8b, 0x00));
	assert_true(CAN(XLAT_KEY_32 | XLAT_KEY_GS, 0x65, 0x8b, 0x00));
	assert_false(CAN(XLAT_KEY_32 | XLAT_KEY_GS, 0x64, 0x8b, 0x00));
	assert_true(CAN(XLAT_KEY_32 | XLAT_KEY_FS, 0x64, 0x8b, 0x00));
	assert_false(CAN(XLAT_KEY_32, 0x2e, 0x89, 0x00)); /* cs: is #GP */
	/* cs nop [eax]: what fills gaps */
	assert_true(CAN(XLAT_KEY_32, 0x2e, 0x0f, 0x1f, 0x00));
}

static void code_is_decoded_in_the_mode_of_the_key(void **state)
{
	struct fixture *f = setup();
	/* 32-bit: inc eax; dec ecx; push eax; ret. 64-bit: rex push; ret */
	struct xlat_trace *t = BUILD(f, 0, XLAT_KEY_32, 0x40, 0x49, 0x50, 0xc3);

	expect_end(t, XLAT_END_BRANCH, 4, 4);
	assert_int_equal(t->insns[0].in.row->op, ISA_OP_INC);
	assert_int_equal(t->insns[0].live_out, ISA_CF);
	t = BUILD(f, 0, 0, 0x40, 0x49, 0x50, 0xc3);
	expect_end(t, XLAT_END_BRANCH, 2, 4);
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
		T(flags_die_where_they_are_overwritten),
		T(partial_writers_let_the_rest_through),
		T(shift_that_may_be_by_zero_keeps_flags_that_are_live),
		T(side_exit_keeps_what_its_target_reads),
		T(target_in_the_trace_is_known_from_the_trace),
		T(look_ahead_is_bounded),
		T(fpu_rows_depend_on_the_key),
		T(odd_operand_and_address_sizes_are_the_interpreters),
		T(code_is_decoded_in_the_mode_of_the_key),
	};

	return test_run("trace", tests);
}
