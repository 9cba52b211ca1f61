/* SPDX-License-Identifier: Apache-2.0 */
/* Sequences of 2 to 30 random instructions leave what the host CPU leaves, by
 * the interpreter and by the translator.
 *
 *	test_seq [SEQUENCES [SEED]]
 *
 * THEORY. A sequence is a list of items: instructions of isa.def, jumps and
 * calls forward, and one loop whose counter register no other item names. It
 * ends at UD2; behind that lies a subroutine. The code may cross a page's
 * end, and so may the operands, or lie where nothing is mapped: natively the
 * sequence runs to its first fault, and its state there is what is compared.
 *
 * Flags. What the manuals leave undefined may differ in translated code. No
 * item reads a flag that may be undefined, by any way through the sequence;
 * behind it those are not compared, and none behind a fault in the middle,
 * where the translator may have left out what nobody would have read.
 *
 * A difference is shrunk: instructions become NOPs while it stays.
 */
#include <stdlib.h>

#include "soft/interp_int.h"
#include "soft/oracle_cases.h"
#include "soft/trace.h"
#include "test/test.h"

#define ITEMS_MAX 30
#define SUB_MAX	  3

static unsigned sequences = 20000;

enum item_kind { ITEM_PLAIN, ITEM_JUMP, ITEM_END, ITEM_RET };

struct item {
	u8 kind, len, target;
	u16 off, reads, writes, undefined;
	u8 bytes[16];
};
struct seq {
	u8 mode, counter, n; /* items before the UD2, which is items[n] */
	u8 total;	     /* and the subroutine */
	struct item items[ITEMS_MAX + SUB_MAX + 2];
};

/* ---- instructions ---- */

/* Not what single cases are excused for. */
static bool is_row_used(const struct isa_row *row,
			const struct isa_features *features, u8 mode)
{
	switch (row->op) {
	case ISA_OP_ENTER:
	case ISA_OP_MASKMOVQ:
	case ISA_OP_MASKMOVDQU:
	case ISA_OP_VMASKMOVDQU:
	case ISA_OP_LDMXCSR:
	case ISA_OP_VLDMXCSR:
	case ISA_OP_VMASKMOVPS:
	case ISA_OP_VMASKMOVPD:
	case ISA_OP_VPMASKMOVD:
	case ISA_OP_VPMASKMOVQ:
		return false;
	case ISA_OP_LAHF:
	case ISA_OP_SAHF:
	case ISA_OP_CLC:
	case ISA_OP_STC:
	case ISA_OP_CMC:
	case ISA_OP_CLD:
	case ISA_OP_STD:
		return oracle_is_tested(row, features, mode);
	default:
		return oracle_is_tested(row, features, mode) &&
		       row->class != ISA_CTRL && row->feature != ISA_F_SHA &&
		       !oracle_has_vsib(row);
	}
}

/* Does it name the counter, perhaps as a part? */
static bool names(const struct insn *in, unsigned reg)
{
	if (in->row->class == ISA_STR || in->row->class == ISA_INTERP ||
	    (in->is_mem && (in->base == reg || in->index == reg)))
		return true;
	for (unsigned i = 0; i < ISA_OPERANDS; i++) {
		const struct isa_operand *o = &in->row->operands[i];
		unsigned r = 99;

		switch (o->kind) {
		case ISA_O_GPR_REG:
			r = in->reg;
			break;
		case ISA_O_GPR_RM:
		case ISA_O_GPR_RM_ONLY:
		case ISA_O_GPR_OPC:
			r = in->is_mem ? 99 : in->rm;
			break;
		case ISA_O_GPR_VVVV:
			r = in->vvvv;
			break;
		case ISA_O_GPR_FIXED:
			r = o->reg;
			break;
		default:
			break;
		}
		if (r == reg || r == reg + 4)
			return true;
	}
	/* rBX of 32-bit code has implicit uses. */
	return reg == X86_RBX &&
	       (in->row->op == ISA_OP_CMPXCHG8B || in->row->op == ISA_OP_XLAT);
}

static bool is_fit(const struct insn *in, unsigned counter)
{
	return !names(in, counter) &&
	       (!in->is_mem ||
		(in->base < 16 && in->index == X86_REG_NONE && in->asize >= 4 &&
		 in->seg != X86_FS && in->seg != X86_GS && in->disp < 1000 &&
		 in->disp > -1000));
}

static bool plain_item(struct item *it, const struct seq *s,
		       const struct isa_features *features)
{
	const struct isa_row *row =
		&isa_rows[(oracle_rnd() >> 9) % isa_row_count];
	struct oracle_case c = {.mode = s->mode};
	struct insn in;
	int len;

	if (!is_row_used(row, features, s->mode))
		return false;
	if (row->attr & (ISA_SSE | ISA_AVX | ISA_X87 | ISA_MMX) &&
	    !oracle_one_in(6))
		return false;
	oracle_random_code(&c, row);
	len = x86_decode(&in, c.code, 15, s->mode, features);
	if (len <= 0 || in.row != row || !is_fit(&in, s->counter))
		return false;
	it->kind = ITEM_PLAIN;
	it->len = len;
	memcpy(it->bytes, c.code, len);
	xlat_insn_flags(&in, &it->reads, &it->writes);
	it->undefined = oracle_undefined_flags(row->op) | row->flags_undefined;
	return true;
}

/* ---- control flow ---- */

static void jump_item(struct item *it, unsigned i, unsigned n)
{
	static const u8 shorts[] = {0xe0, 0xe1, 0xe2, 0xe3};
	unsigned cc = oracle_rnd() >> 9 & 15;

	it->target = i + 1 + (oracle_rnd() >> 9) % (n - i);
	it->kind = ITEM_JUMP;
	it->len = 0;
	if (it->target - i <= 5 && oracle_one_in(2)) {
		it->bytes[0] = oracle_one_in(5) ? shorts[oracle_rnd() >> 9 & 3]
			       : oracle_one_in(8) ? 0xeb
						  : 0x70 | cc;
		it->len = 2;
	} else if (oracle_one_in(6)) {
		it->bytes[0] = oracle_one_in(2) ? 0xe9 : 0xe8;
		if (it->bytes[0] == 0xe8)
			it->target = n + 1;
		it->len = 5;
	} else {
		it->bytes[0] = 0x0f;
		it->bytes[1] = 0x80 | cc;
		it->len = 6;
	}
}

static void fixed_item(struct item *it, const u8 *bytes, unsigned len)
{
	*it = (struct item){.kind = ITEM_PLAIN, .len = len};
	memcpy(it->bytes, bytes, len);
}

/* dec counter; jnz back */
static void loop_items(struct seq *s)
{
	static const u8 dec64[] = {0x49, 0xff, 0xcd}, dec32[] = {0xff, 0xcb};
	unsigned at = 1 + (oracle_rnd() >> 9) % (s->n - 1);
	struct item *dec = &s->items[at - 1], *jnz = &s->items[at];

	if (s->mode == X86_MODE_64)
		fixed_item(dec, dec64, sizeof(dec64));
	else
		fixed_item(dec, dec32, sizeof(dec32));
	*jnz = (struct item){.kind = ITEM_JUMP, .len = 6};
	jnz->bytes[0] = 0x0f;
	jnz->bytes[1] = 0x85;
	jnz->target = (oracle_rnd() >> 9) % at;
	/* Nobody comes to the jump but over the counting. */
	for (unsigned i = 0; i < at; i++)
		if (s->items[i].kind == ITEM_JUMP && s->items[i].target == at)
			s->items[i].target = i + 1 == at ? at + 1 : at - 1;
}

static void lay_out(struct seq *s, const struct isa_features *features)
{
	unsigned off = 0;

	for (unsigned i = 0; i < s->total; i++) {
		s->items[i].off = off;
		off += s->items[i].len;
	}
	for (unsigned i = 0; i < s->total; i++) {
		struct item *it = &s->items[i];
		struct insn in;

		if (it->kind == ITEM_JUMP) {
			int rel = s->items[it->target].off - it->off - it->len;

			if (it->len == 2)
				it->bytes[1] = (u8)rel;
			else
				st_le32(it->bytes + it->len - 4, (u32)rel);
		}
		if (x86_decode(&in, it->bytes, it->len, s->mode, features) <= 0)
			continue;
		xlat_insn_flags(&in, &it->reads, &it->writes);
		it->undefined = oracle_undefined_flags(in.row->op) |
				in.row->flags_undefined;
	}
}

/* Flags that may be undefined in front of each item. */
static void find_undefined(const struct seq *s, u16 *in)
{
	bool changed = true;

	memset(in, 0, (ITEMS_MAX + SUB_MAX + 2) * sizeof(*in));
	while (changed) {
		changed = false;
		for (unsigned i = 0; i < s->total; i++) {
			const struct item *it = &s->items[i];
			u16 out = (in[i] & (u16)~it->writes) | it->undefined;
			bool is_ret = it->kind == ITEM_RET;

			for (unsigned k = 0; k < s->total; k++) {
				bool is_next =
					k == i + 1 && !is_ret && i != s->n;
				bool is_target = it->kind == ITEM_JUMP &&
						 it->target == k;

				/* Returns come behind any call. */
				if (!is_next && !is_target &&
				    !(is_ret && k <= s->n))
					continue;
				changed |= (out & ~in[k]) != 0;
				in[k] |= out;
			}
		}
	}
}

static void generate(struct seq *s, u8 mode,
		     const struct isa_features *features)
{
	u16 undefined[ITEMS_MAX + SUB_MAX + 2];
	unsigned sub = 1 + (oracle_rnd() >> 9) % SUB_MAX;
	bool is_clean;

	memset(s, 0, sizeof(*s));
	s->mode = mode;
	s->counter = mode == X86_MODE_64 ? 13 : X86_RBX;
	s->n = 2 + (oracle_rnd() >> 9) % (ITEMS_MAX - 1);
	s->total = s->n + 1 + sub;
	for (unsigned i = 0; i < s->total - 1; i++) {
		if (i < s->n && oracle_one_in(5))
			jump_item(&s->items[i], i, s->n);
		else
			while (!plain_item(&s->items[i], s, features))
				;
	}
	fixed_item(&s->items[s->n], (const u8[]){0x0f, 0x0b}, 2);
	s->items[s->n].kind = ITEM_END;
	fixed_item(&s->items[s->total - 1], (const u8[]){0xc3}, 1);
	s->items[s->total - 1].kind = ITEM_RET;
	if (oracle_one_in(2))
		loop_items(s);
	do {
		lay_out(s, features);
		find_undefined(s, undefined);
		is_clean = true;
		for (unsigned i = 0; i < s->total; i++) {
			struct item *it = &s->items[i];

			if (!(it->reads & undefined[i]))
				continue;
			/* test al, 0: all flags are known behind it */
			fixed_item(it, (const u8[]){0xa8, 0}, 2);
			is_clean = false;
		}
	} while (!is_clean);
}

/* ---- cases ---- */

static u64 pointer(void)
{
	switch (oracle_rnd() >> 9 & 15) {
	case 0: /* over the end */
		return ORACLE_DATA + ORACLE_DATA_BYTES - oracle_rnd() % 80;
	case 1: /* in front of a page's end */
		return ORACLE_DATA + 4096 - oracle_rnd() % 40;
	case 2: /* nothing there, or somewhere in code */
		return ORACLE_DATA - oracle_rnd() % 64;
	default:
		return ORACLE_DATA + 2000 + oracle_rnd() % 4000;
	}
}

static void fill_case(struct oracle_case *c, const struct seq *s)
{
	unsigned len = s->items[s->total - 1].off + 1;

	for (unsigned i = 0; i < s->total; i++)
		memcpy(c->code + s->items[i].off, s->items[i].bytes,
		       s->items[i].len);
	c->len = len;
}

static void make_case(struct oracle_case *c, const struct seq *s)
{
	unsigned len;

	c->mode = s->mode;
	c->is_rep = false;
	c->is_sequence = true;
	memset(c->code, 0, sizeof(c->code));
	fill_case(c, s);
	len = c->len;
	oracle_random_state(&c->in);
	for (unsigned i = 0; i < 16; i++)
		if (i == X86_RSP || !oracle_one_in(4))
			c->in.gpr[i] = pointer();
	if (!oracle_one_in(8))
		c->in.gpr[X86_RSP] = ORACLE_DATA + 3000 + oracle_rnd() % 2200;
	if (oracle_one_in(2))
		c->in.gpr[X86_RCX] = oracle_rnd() % 100;
	c->in.gpr[s->counter] = 1 + oracle_rnd() % 6;
	/* The page's end is in the code, or not. */
	c->in.rip = ORACLE_CODE + (oracle_one_in(3) ? 4096 - oracle_rnd() % len
						    : oracle_rnd() % 3000);
	for (unsigned i = 0; i < 8 && s->mode != X86_MODE_64; i++)
		c->in.gpr[i] = (u32)c->in.gpr[i];
}

struct machines {
	struct oracle *o;
	struct oracle_guest t0, t1;
	struct oracle_state got;
	const char *tier;
};

/* Which of two faults of one instruction comes first is up to the CPU: an
 * operand that is misaligned, or not mapped, and runs over 4 GiB as well; one
 * that is not mapped, with an x87 exception pending. */
static bool is_order_unsaid(u8 native, u8 got)
{
	return (native == X86_VEC_GP && got == X86_VEC_SS) ||
	       (native == X86_VEC_PF &&
		(got == X86_VEC_MF || got == X86_VEC_GP || got == X86_VEC_SS));
}

/* What differs, or NULL. */
static const char *compare(struct machines *m, const struct seq *s,
			   struct oracle_case *c)
{
	u16 undefined[ITEMS_MAX + SUB_MAX + 2];
	const char *what;
	u64 mask = 0, native = c->out.rflags;

	if (c->is_skipped)
		return NULL;
	m->tier = "interpreted";
	oracle_guest_run(&m->t0, c, &m->got, soft_interp);
	if (is_order_unsaid(c->out.fault, m->got.fault))
		return NULL;
	what = oracle_difference(&m->got, &c->out, 0, c->mode);
	if (what)
		return what;
	if (oracle_one_in(4))
		soft_tlb_flush(m->t1.v, false);
	m->tier = "translated";
	oracle_guest_run(&m->t1, c, &m->got, xlat_run);
	if (c->out.fault == X86_VEC_GP && !soft_is_canonical(m->got.rip))
		return NULL; /* generated code faults behind the branch */
	if (c->out.rip == c->in.rip + s->items[s->n].off) {
		find_undefined(s, undefined);
		mask = ISA_ALLF & ~undefined[s->n];
	}
	m->got.rflags = (m->got.rflags & (mask | X86_FL_DF)) |
			(native & ~(mask | X86_FL_DF));
	return oracle_difference(&m->got, &c->out, 0, c->mode);
}

/* ---- a difference ---- */

static void shrink(struct machines *m, struct seq *s, struct oracle_case *c)
{
	struct oracle_case *one = oracle_cases(m->o);

	*one = *c;
	for (unsigned i = 0; i < s->total; i++) {
		struct item *it = &s->items[i], keep = *it;

		if (it->kind != ITEM_PLAIN && it->kind != ITEM_JUMP)
			continue;
		*it = (struct item){
			.kind = ITEM_PLAIN, .len = keep.len, .off = keep.off};
		memset(it->bytes, 0x90, it->len);
		fill_case(one, s);
		if (oracle_run(m->o, 1) && compare(m, s, one))
			continue;
		*it = keep;
		fill_case(one, s);
	}
	assert_true(oracle_run(m->o, 1));
}

static void show(const struct seq *s, const struct oracle_case *c,
		 const struct isa_features *features)
{
	for (unsigned i = 0; i < s->total; i++) {
		const struct item *it = &s->items[i];
		u64 rip = c->in.rip + it->off;
		char text[96];
		struct insn in;

		if (it->bytes[0] == 0x90 ||
		    x86_decode(&in, it->bytes, it->len, s->mode, features) <= 0)
			continue;
		x86_format(&in, rip, text, sizeof(text));
		print_message("  %llx: %s\n", (unsigned long long)rip, text);
	}
}

static void explain(struct machines *m, struct seq *s, struct oracle_case *c)
{
	struct oracle_case *one = oracle_cases(m->o);
	const char *what = compare(m, s, c);

	print_message("%s: %s, before shrinking\n", m->tier,
		      what ? what : "nothing (the second time)");
	shrink(m, s, c);
	what = compare(m, s, one);
	show(s, one, &m->t0.vm->features);
	oracle_report(m->tier, one, &m->got,
		      what ? what : "nothing (the second time)");
}

/* ---- the test ---- */

static void run(u8 mode, unsigned count)
{
	static struct seq seqs[ORACLE_BATCH];
	static struct machines m;
	unsigned bad = 0, complete = 0, skipped = 0;
	const char *what;

#ifdef __SANITIZE_ADDRESS__
	/* ASan's shadow is mapped, so a wild address of the native run reads
	 * something where the guest has nothing. */
	print_message("SKIP: ASan maps memory where the guest has none\n");
	skip();
#endif
	oracle_guest_init(&m.t0, false);
	oracle_guest_init(&m.t1, true);
	m.o = oracle_new();
	assert_non_null(m.o);
	if (mode != X86_MODE_64 && !oracle_has_ldt(m.o))
		count = 0;
	for (unsigned left = count; left && !bad;) {
		struct oracle_case *batch = oracle_cases(m.o);
		unsigned n = MIN(left, ORACLE_BATCH);

		for (unsigned i = 0; i < n; i++) {
			generate(&seqs[i], mode, &m.t0.vm->features);
			make_case(&batch[i], &seqs[i]);
		}
		assert_true(oracle_run(m.o, n));
		for (unsigned i = 0; i < n && !bad; i++) {
			complete +=
				batch[i].out.rip ==
				batch[i].in.rip + seqs[i].items[seqs[i].n].off;
			skipped += batch[i].is_skipped;
			what = compare(&m, &seqs[i], &batch[i]);
			if (!what)
				continue;
			bad++;
			print_message("%s, in the run of all:\n", m.tier);
			show(&seqs[i], &batch[i], &m.t0.vm->features);
			oracle_report("sequence", &batch[i], &m.got, what);
			explain(&m, &seqs[i], &batch[i]);
		}
		left -= n;
	}
	print_message("%u sequences, %u of them to the end, %u without end, "
		      "%u differences\n",
		      count, complete, skipped, bad);
	oracle_free(m.o);
	oracle_guest_fini(&m.t0);
	oracle_guest_fini(&m.t1);
	assert_int_equal(bad, 0);
	assert_true(complete >= count / 10);
}

static void sequences_leave_what_the_host_leaves(void **state)
{
	run(X86_MODE_64, sequences);
}

static void sequences_of_32_bit_code_leave_the_same(void **state)
{
	run(X86_MODE_32, sequences / 2);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sequences_leave_what_the_host_leaves),
		cmocka_unit_test(sequences_of_32_bit_code_leave_the_same),
	};

	if (argc > 1)
		sequences = (unsigned)strtoul(argv[1], NULL, 0);
	if (argc > 2)
		oracle_rng +=
			strtoull(argv[2], NULL, 0) * 0xd1342543de82ef95ull;
	return test_run("seq", tests);
}
