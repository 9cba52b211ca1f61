/* SPDX-License-Identifier: Apache-2.0 */
/* The flags that xlat_insn_flags() claims are those of the host CPU.
 *
 * THEORY. Register forms of every row that generated code may hold run twice
 * natively, with flags that differ where the instruction is said not to read
 * them. Then everything it leaves must be the same: registers, the flags that
 * it overwrites and the manuals define. Flags that it does not touch come out
 * as they went in.
 */
#include "soft/oracle.h"
#include "soft/trace_rows.h"
#include "test/test.h"
#include "x86/cpuid.h"

#define CASES 24

static u64 rng_state = 0x9e3779b97f4a7c15ull;

static u64 rnd(void)
{
	rng_state ^= rng_state << 13;
	rng_state ^= rng_state >> 7;
	rng_state ^= rng_state << 17;
	return (rng_state * 0x2545f4914f6cdd1dull) >> 9;
}

static void put_vex(u8 *p, const struct isa_row *row)
{
	unsigned pp = row->prefix == 0x66   ? 1
		      : row->prefix == 0xf3 ? 2
		      : row->prefix == 0xf2 ? 3
					    : 0;
	unsigned l = row->vex_l > 0, w = row->vex_w > 0;
	unsigned vvvv = rnd() & 15;

	p[0] = 0xc4;
	p[1] = (rnd() & 0xe0) | (row->map - ISA_MAP_VEX_0F + 1);
	/* One in four without a register there, since most have none. */
	p[2] = w << 7 | (rnd() & 1 ? 15 : vvvv) << 3 | l << 2 | pp;
	p[3] = row->opcode;
}

/* A register form in random registers, and random bytes behind it. */
static void put_code(u8 *p, const struct isa_row *row)
{
	unsigned reg = row->modrm_reg >= 0 ? row->modrm_reg : rnd() & 7;
	unsigned rm = row->modrm_rm >= 0 ? row->modrm_rm : rnd() & 7;

	for (unsigned i = 0; i < 16; i++)
		p[i] = rnd();
	if (row->map >= ISA_MAP_VEX_0F && row->map <= ISA_MAP_VEX_0F3A) {
		put_vex(p, row);
		p += 4;
	} else {
		if (row->prefix > 1)
			*p++ = row->prefix;
		else if (row->prefix == 0 && (rnd() & 7) == 0)
			*p++ = 0x66;
		if (rnd() & 1)
			*p++ = 0x40 | (rnd() & 15);
		if (row->map == ISA_MAP_0F || row->map == ISA_MAP_0F38 ||
		    row->map == ISA_MAP_0F3A)
			*p++ = 0x0f;
		if (row->map == ISA_MAP_0F38)
			*p++ = 0x38;
		if (row->map == ISA_MAP_0F3A)
			*p++ = 0x3a;
		*p++ = row->opcode;
	}
	*p = 0xc0 | reg << 3 | rm;
}

static bool is_tested(const struct insn *in)
{
	if (in->is_mem || !xlat_can_lower(in, 0) ||
	    trace_insn_flow(in) != TRACE_NEXT)
		return false;
	switch (in->row->op) {
	case ISA_OP_RDRAND: /* not twice the same */
	case ISA_OP_RDSEED:
		return false;
	default:
		return in->row->class == ISA_PASS ||
		       in->row->op == ISA_OP_LAHF || in->row->op == ISA_OP_SAHF;
	}
}

static void random_state(struct oracle_state *s)
{
	memset(s->xsave, 0, sizeof(s->xsave));
	for (unsigned i = 0; i < 16; i++)
		s->gpr[i] = rnd() & 1 ? rnd() * 0x10001 : rnd() & 0x3f;
	st_le16(s->xsave, 0x37f);
	s->xsave[4] = 0xff;
	for (unsigned i = 0; i < 8; i++) {
		st_le64(s->xsave + 32 + 16 * i, rnd() | 1ull << 63);
		st_le16(s->xsave + 40 + 16 * i, 0x3ffe + (rnd() & 3));
	}
	st_le32(s->xsave + 24, 0x1f80);
	st_le32(s->xsave + 28, 0xffff);
	for (unsigned i = 160; i < 416; i += 8)
		st_le64(s->xsave + i, rnd() & 1 ? rnd() : 0);
	st_le64(s->xsave + 512, 7);
	s->rip = ORACLE_CODE;
}

/* Two cases of one instruction; false: not this row, or not testable. */
static bool generate(struct oracle_case *c, const struct isa_row *row,
		     struct insn *in, const struct isa_features *features)
{
	struct trace_flags f;

	put_code(c->code, row);
	if (x86_decode(in, c->code, 15, X86_MODE_64, features) <= 0 ||
	    in->row != row || !is_tested(in))
		return false;
	f = trace_insn_flags(in);
	c->len = in->len;
	c->mode = X86_MODE_64;
	c->is_rep = c->is_sequence = false;
	random_state(&c->in);
	c->in.rflags = rnd() & ISA_ALLF;
	c[1] = c[0];
	c[1].in.rflags ^= ISA_ALLF & ~f.reads;
	return true;
}

/* AF is undefined behind logic and shifts, OF behind most shifts. */
static u16 undefined_flags(const struct insn *in)
{
	switch (in->row->op) {
	case ISA_OP_SHL:
	case ISA_OP_SHR:
	case ISA_OP_SAR:
		return ISA_AF | ISA_OF | ISA_CF;
	case ISA_OP_ROL:
	case ISA_OP_ROR:
	case ISA_OP_RCL:
	case ISA_OP_RCR:
		return ISA_OF;
	case ISA_OP_SHLD:
	case ISA_OP_SHRD:
		return in->osize == 2 ? ISA_ALLF : ISA_AF | ISA_OF;
	case ISA_OP_BT:
	case ISA_OP_BTS:
	case ISA_OP_BTR:
	case ISA_OP_BTC:
	case ISA_OP_BSF:
	case ISA_OP_BSR:
		return ISA_ALLF &
		       ~(in->row->op == ISA_OP_BSF || in->row->op == ISA_OP_BSR
				 ? ISA_ZF
				 : ISA_CF);
	case ISA_OP_TZCNT:
	case ISA_OP_LZCNT:
		return ISA_ALLF & ~(ISA_CF | ISA_ZF);
	case ISA_OP_BLSI:
	case ISA_OP_BLSR:
	case ISA_OP_BLSMSK:
	case ISA_OP_BZHI:
	case ISA_OP_ANDN:
		return ISA_AF | ISA_PF;
	case ISA_OP_BEXTR:
		return ISA_AF | ISA_PF | ISA_SF;
	case ISA_OP_MUL:
	case ISA_OP_IMUL:
		return ISA_ALLF & ~(ISA_CF | ISA_OF);
	case ISA_OP_DIV:
	case ISA_OP_IDIV:
		return ISA_ALLF;
	case ISA_OP_FCOMI: /* what is not claimed */
	case ISA_OP_FCOMIP:
	case ISA_OP_FUCOMI:
	case ISA_OP_FUCOMIP:
		return ISA_OF | ISA_SF | ISA_AF;
	default:
		return in->row->flags_undefined;
	}
}

static const char *difference(const struct oracle_case *c,
			      const struct insn *in)
{
	const struct oracle_state *a = &c[0].out, *b = &c[1].out;
	struct trace_flags f = trace_insn_flags(in);
	u16 kept = ISA_ALLF & ~(f.writes | f.keeps | undefined_flags(in));
	u16 defined = f.writes & ~undefined_flags(in);

	if (a->fault != b->fault)
		return "fault";
	if (a->fault != ORACLE_NO_FAULT)
		return NULL;
	if (memcmp(a->gpr, b->gpr, sizeof(a->gpr)) != 0)
		return "registers depend on flags that are not read";
	if (memcmp(a->xsave + 24, b->xsave + 24, 416 - 24) != 0)
		return "vector or x87 registers depend on flags";
	if ((a->rflags ^ b->rflags) & defined)
		return "a written flag depends on the old flags";
	if ((a->rflags ^ c[0].in.rflags) & kept ||
	    (b->rflags ^ c[1].in.rflags) & kept)
		return "a flag that is not written changes";
	return NULL;
}

static void flags_are_read_and_written_as_the_host_does(void **state)
{
	const struct isa_features features = x86_cpuid_host_isa();
	struct oracle *o = oracle_new(false);
	struct oracle_case *c = oracle_cases(o);
	unsigned rows = 0, bad = 0;

	assert_non_null(o);
	for (size_t i = 0; i < isa_row_count; i++) {
		struct insn in[CASES];
		unsigned n = 0;

		for (unsigned k = 0; k < 8 * CASES && n < CASES; k++)
			n += generate(&c[2 * n], &isa_rows[i], &in[n],
				      &features);
		rows += n != 0;
		assert_true(oracle_run(o, 2 * n));
		for (unsigned k = 0; k < n; k++) {
			const char *why =
				c[2 * k].is_skipped
					? NULL
					: difference(&c[2 * k], &in[k]);

			if (why && bad++ < 20)
				print_message("%s (opcode %02x): %s\n",
					      isa_rows[i].name,
					      isa_rows[i].opcode, why);
		}
	}
	oracle_free(o);
	print_message("%u rows, %u differences\n", rows, bad);
	assert_int_equal(bad, 0);
	assert_true(rows > 200);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(flags_are_read_and_written_as_the_host_does),
	};

	return test_run("trace_host", tests);
}
