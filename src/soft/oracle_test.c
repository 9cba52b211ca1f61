/* SPDX-License-Identifier: Apache-2.0 */
/* Every instruction that the engine executes itself leaves what the host CPU
 * leaves: registers, all arithmetic flags (by the interpreter: undefined ones
 * included), vector and x87 state, MXCSR, memory, and the kind of fault.
 *
 *	test_oracle [CASES_PER_ROW [SEED [MNEMONIC]]]
 *
 * Not compared, and why: FOP, FIP, FDP (they read as zero, see fpu.c).
 * SHA with a misaligned operand: #GP as SDM 2 says; AMD has no such check.
 * MXCSR.MM: AMD's, and not offered.
 * Memory after a fault of ENTER: the host has pushed already, below rSP.
 */
#include <stdlib.h>

#include "soft/interp_int.h"
#include "soft/lower.h"
#include "soft/oracle_cases.h"
#include "test/test.h"
#include "x86/cpuid.h"

static unsigned cases_per_row = 40;
static const char *only;
static unsigned translated;

/* As lockstep.c has it: the block of one instruction, with #UD behind. */
static void translate_one(struct vcpu *v)
{
	const struct xlat_block *b;
	u64 rip = v->rip;
	bool is_new;

	b = xlat_block_make(v, XLAT_KEY_LOCKSTEP, &is_new);
	v->exit_kind = XLAT_EXIT_INTERP;
	if (!b) {
		soft_interp_one(v);
		return;
	}
	v->pcbase = rip & ~(PAGE_BYTES - 1);
	xlat_enter(v, xlat_code_rx(v->vm->xlat) + xlat_entry_indirect(b));
	if (v->exit_kind == XLAT_EXIT_FAULT)
		soft_raise_host_trap(v, (unsigned)v->exit_arg);
	if (v->exit_kind == XLAT_EXIT_INTERP && v->rip == rip)
		soft_interp_one(v);
	else
		translated++;
}

/* A branch may leave with flags that nobody behind it reads. */
static u64 translated_flags(const struct vcpu *v, const struct isa_row *row)
{
	return v->exit_kind == XLAT_EXIT_LOOKUP
		       ? ~(u64)ISA_ALLF
		       : ~(u64)oracle_undefined_flags(row->op);
}

/* The fault of an indirect branch to a non-canonical address comes behind it
 * in generated code. */
static bool is_beyond_canonical(const struct vcpu *v,
				const struct oracle_case *c)
{
	return c->mode == X86_MODE_64 && c->out.fault == X86_VEC_GP &&
	       v->exit_kind == XLAT_EXIT_LOOKUP && !soft_is_canonical(v->rip);
}

static unsigned compare_batch(struct oracle_guest *g, struct oracle_case *cases,
			      unsigned n, const struct isa_row *row,
			      unsigned *shown)
{
	static struct oracle_state got;
	unsigned bad = 0;

	for (unsigned i = 0; i < n; i++) {
		const char *what;

		assert_false(cases[i].is_skipped);
		if (oracle_one_in(4))
			soft_tlb_flush(g->v, false);
		oracle_guest_run(g, &cases[i], &got,
				 g->vm->xlat ? translate_one : soft_interp_one);
		if (g->vm->xlat) {
			u64 mask = translated_flags(g->v, row);

			if (is_beyond_canonical(g->v, &cases[i]))
				continue;
			got.rflags &= mask;
			cases[i].out.rflags &= mask;
		}
		what = oracle_difference(&got, &cases[i].out, row->op,
					 cases[i].mode);
		if (!what)
			continue;
		bad++;
		if ((*shown)++ < 2)
			oracle_report(row->name, &cases[i], &got, what);
	}
	return bad;
}

static unsigned test_row(struct oracle_guest *g, struct oracle *o,
			 const struct isa_row *row, u8 mode,
			 unsigned *out_cases)
{
	struct oracle_case *cases = oracle_cases(o);
	unsigned bad = 0, shown = 0;
	unsigned left =
		mode == X86_MODE_64 ? cases_per_row : (cases_per_row + 1) / 2;

	while (left) {
		unsigned n = 0;

		for (unsigned tries = 0;
		     n < MIN(left, ORACLE_BATCH) && tries < 20000; tries++)
			n += oracle_generate(&cases[n], row, &g->vm->features,
					     mode);
		if (!n) {
			print_message("%s: no encoding found\n", row->name);
			return 1;
		}
		assert_true(oracle_run(o, n));
		bad += compare_batch(g, cases, n, row, &shown);
		*out_cases += n;
		left -= n;
	}
	return bad;
}

static void leave_what_the_host_leaves(u8 mode, bool is_translated)
{
	struct oracle_guest g;
	struct oracle *o;
	unsigned bad = 0, cases = 0;

	oracle_guest_init(&g, is_translated);
	translated = 0;
	o = oracle_new(false);
	assert_non_null(o);
	if (mode != X86_MODE_64 && !oracle_has_ldt(o)) {
		oracle_free(o);
		oracle_guest_fini(&g);
		skip();
	}
	for (size_t i = 0; i < isa_row_count; i++) {
		const struct isa_row *row = &isa_rows[i];

		if (!oracle_is_tested(row, &g.vm->features, mode))
			continue;
		if (only && strcmp(only, row->name))
			continue;
		/* Forward, the block goes on at its target. */
		if (is_translated && row->op == ISA_OP_JMP_REL)
			continue;
		bad += test_row(&g, o, row, mode, &cases);
	}
	print_message("%u cases, %u of them translated, %u differences\n",
		      cases, translated, bad);
	if (is_translated && !only)
		assert_true(translated > cases / 2);
	oracle_free(o);
	oracle_guest_fini(&g);
	assert_int_equal(bad, 0);
}

static void instructions_leave_what_the_host_leaves(void **state)
{
	leave_what_the_host_leaves(X86_MODE_64, false);
}

static void instructions_of_32_bit_code_leave_the_same(void **state)
{
	leave_what_the_host_leaves(X86_MODE_32, false);
}

static void instructions_of_16_bit_code_leave_the_same(void **state)
{
	leave_what_the_host_leaves(X86_MODE_16, false);
}

static void translated_instructions_leave_the_same(void **state)
{
	leave_what_the_host_leaves(X86_MODE_64, true);
}

static void translated_32_bit_instructions_leave_the_same(void **state)
{
	leave_what_the_host_leaves(X86_MODE_32, true);
}

/* ---- rules that one native instruction cannot show ---- */

static void every_instruction_has_what_executes_it(void **state)
{
	unsigned missing = 0;

	(void)state;
	for (size_t i = 0; i < isa_row_count; i++) {
		const struct isa_row *row = &isa_rows[i];

		if (row->class == ISA_PASS || soft_op_find(row->op))
			continue;
		switch (row->op) {
		case ISA_OP_UD0: /* what #UD is for */
		case ISA_OP_UD1:
		case ISA_OP_UD2:
		case ISA_OP_NOP: /* hints are bound to nothing */
		case ISA_OP_PAUSE:
		case ISA_OP_PREFETCH:
		case ISA_OP_PREFETCHW:
		case ISA_OP_PREFETCHNTA:
		case ISA_OP_PREFETCHT0:
		case ISA_OP_PREFETCHT1:
		case ISA_OP_PREFETCHT2:
			continue;
		default:
			print_message("%s: nothing executes it\n", row->name);
			missing++;
		}
	}
	assert_int_equal(missing, 0);
}

static void put_code(struct oracle_guest *g, const u8 *code, size_t n)
{
	memcpy(g->ram + ORACLE_CODE, code, n);
	g->v->rip = ORACLE_CODE;
	soft_set_rflags(g->v, 2);
}

static void a_store_into_the_next_instruction_is_obeyed(void **state)
{
	/* mov byte [rip], 0xf8; stc, which becomes clc */
	static const u8 code[] = {0xc6, 0x05, 0, 0, 0, 0, 0xf8, 0xf9};
	struct oracle_guest g;

	(void)state;
	oracle_guest_init(&g, false);
	put_code(&g, code, sizeof(code));
	assert_int_equal(sigsetjmp(g.v->unwind, 0), 0);
	g.v->rip += 7;
	soft_interp_one(g.v);
	assert_true(soft_cf(g.v)); /* stc is in the cache now */
	g.v->rip = ORACLE_CODE;
	soft_interp_one(g.v);
	soft_interp_one(g.v);
	assert_false(soft_cf(g.v));
	assert_int_equal(g.v->rip, ORACLE_CODE + 8);
	oracle_guest_fini(&g);
}

static void a_kick_stops_rep_between_elements(void **state)
{
	static const u8 code[] = {0xf3, 0xaa}; /* rep stosb */
	struct oracle_guest g;
	u64 done;

	(void)state;
	oracle_guest_init(&g, false);
	put_code(&g, code, sizeof(code));
	assert_int_equal(sigsetjmp(g.v->unwind, 0), 0);
	g.v->gpr[X86_RDI] = ORACLE_DATA;
	g.v->gpr[X86_RCX] = 8000;
	g.v->gpr[X86_RAX] = 0x5a;
	soft_kick(g.v);
	for (unsigned i = 0; i < 3 && g.v->rip == ORACLE_CODE; i++) {
		soft_interp_one(g.v);
		done = 8000 - g.v->gpr[X86_RCX];
		assert_true(done > 0);
		assert_int_equal(g.v->gpr[X86_RDI], ORACLE_DATA + done);
		assert_int_equal(g.ram[ORACLE_DATA + done - 1], 0x5a);
		assert_int_equal(g.ram[ORACLE_DATA + done], 0);
		if (i == 0)
			assert_true(done < 8000);
		atomic_store(&g.v->go, SOFT_GO);
	}
	assert_int_equal(g.v->rip, ORACLE_CODE + 2);
	assert_int_equal(g.v->gpr[X86_RCX], 0);
	oracle_guest_fini(&g);
}

static void a_fault_in_rep_leaves_the_completed_elements(void **state)
{
	static const u8 code[] = {0xf3, 0x48, 0xa5}; /* rep movsq */
	struct oracle_guest g;

	(void)state;
	oracle_guest_init(&g, false);
	put_code(&g, code, sizeof(code));
	g.v->gpr[X86_RSI] = ORACLE_DATA;
	g.v->gpr[X86_RDI] = ORACLE_DATA + ORACLE_DATA_BYTES - 20;
	g.v->gpr[X86_RCX] = 5;
	if (!sigsetjmp(g.v->unwind, 0)) {
		soft_interp_one(g.v);
		fail();
	}
	assert_int_equal(g.v->exc.vector, X86_VEC_PF);
	assert_int_equal(g.v->exc.cr2, ORACLE_DATA + ORACLE_DATA_BYTES);
	assert_int_equal(g.v->gpr[X86_RCX], 3);
	assert_int_equal(g.v->gpr[X86_RSI], ORACLE_DATA + 16);
	assert_int_equal(g.v->rip, ORACLE_CODE);
	oracle_guest_fini(&g);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_instruction_has_what_executes_it),
		cmocka_unit_test(a_store_into_the_next_instruction_is_obeyed),
		cmocka_unit_test(a_kick_stops_rep_between_elements),
		cmocka_unit_test(a_fault_in_rep_leaves_the_completed_elements),
		cmocka_unit_test(instructions_leave_what_the_host_leaves),
		cmocka_unit_test(instructions_of_32_bit_code_leave_the_same),
		cmocka_unit_test(instructions_of_16_bit_code_leave_the_same),
		cmocka_unit_test(translated_instructions_leave_the_same),
		cmocka_unit_test(translated_32_bit_instructions_leave_the_same),
	};

	if (argc > 1)
		cases_per_row = atoi(argv[1]);
	if (argc > 2)
		oracle_rng +=
			strtoull(argv[2], NULL, 0) * 0xd1342543de82ef95ull;
	only = argc > 3 ? argv[3] : NULL;
	return test_run("oracle", tests);
}
