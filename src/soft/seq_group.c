/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY. An access of a group is any instruction with a memory operand whose
 * ModRM, SIB and displacement are written anew: the base is the group's, the
 * displacement lies in its span. Between accesses the base moves by constants,
 * is copied, or loses its value. The registers are set so that the span lies
 * within a page, over the end of one, or partly where writing or reading
 * faults.
 */
#include "soft/encode.h"
#include "soft/seq_gen.h"

static unsigned below(unsigned n)
{
	return (unsigned)(oracle_rnd() >> 9) % n;
}

/* ---- an instruction with another memory operand ---- */

struct place {
	u8 base, index, scale; /* base may be X86_REG_RIP */
	i32 disp;
	bool is_long; /* four bytes of displacement at least */
};

struct layout {
	unsigned prefixes; /* bytes before REX, VEX or opcode */
	unsigned modrm;	   /* where it is */
	unsigned rest;	   /* where the immediate begins */
};

static bool is_prefix(u8 byte)
{
	return byte == 0x65 || byte == 0x66 || byte == 0x67 || byte == 0xf0 ||
	       byte == 0xf2 || byte == 0xf3;
}

static void find_layout(struct layout *l, const u8 *bytes,
			const struct insn *in)
{
	unsigned mod = in->modrm >> 6, rm = in->modrm & 7, disp, sib = rm == 4;

	disp = mod == 1 ? 1 : mod == 2 ? 4 : 0;
	l->rest = in->len - in->imm_len;
	if (mod == 0 && rm == 5)
		disp = 4;
	if (mod == 0 && sib && in->base == X86_REG_NONE)
		disp = 4;
	l->modrm = l->rest - disp - sib - 1;
	for (l->prefixes = 0; is_prefix(bytes[l->prefixes]); l->prefixes++)
		;
}

/* ModRM, SIB and displacement; how many bytes. */
static unsigned put_place(u8 *p, unsigned reg, const struct place *at)
{
	bool has_sib = at->index != X86_REG_NONE || (at->base & 7) == 4;
	unsigned mod = 0, n = 1;

	if (at->base == X86_REG_RIP) {
		p[0] = (u8)(reg << 3 | 5);
		st_le32(p + 1, 0);
		return 5;
	}
	if (at->is_long || at->disp != (i8)at->disp)
		mod = 2;
	else if (at->disp || (at->base & 7) == 5)
		mod = 1;
	p[0] = (u8)(mod << 6 | reg << 3 | (has_sib ? 4 : at->base & 7));
	if (has_sib)
		p[n++] = (u8)(at->scale << 6 |
			      (at->index == X86_REG_NONE ? 4 : at->index & 7)
				      << 3 |
			      (at->base & 7));
	if (mod == 1)
		p[n++] = (u8)at->disp;
	if (mod == 2) {
		st_le32(p + n, (u32)at->disp);
		n += 4;
	}
	return n;
}

/* REX, or VEX up to its second byte, for base and index; how many bytes were
 * there before. */
static unsigned put_extension(u8 *out, unsigned *out_n, const u8 *in,
			      const struct place *at, bool is_vex)
{
	bool b = at->base < 16 && at->base & 8;
	bool x = at->index < 16 && at->index & 8;
	bool has_rex = !is_vex && (in[0] & 0xf0) == 0x40;

	if (is_vex) {
		out[0] = in[0];
		out[1] = (u8)((in[1] & 0x9f) | (x ? 0 : 0x40) | (b ? 0 : 0x20));
		*out_n = 2;
		return 2;
	}
	out[0] = (u8)((has_rex ? in[0] & 0xfc : 0x40) | x << 1 | b);
	*out_n = has_rex || b || x;
	return has_rex;
}

/* The instruction with its operand at `at`; false: too long, or no more the
 * same. */
static bool move_operand(struct seq_item *it, struct insn *in, u8 mode,
			 const struct isa_features *features,
			 const struct place *at)
{
	const struct isa_row *row = in->row;
	bool is_vex = (in->prefixes & X86_P_VEX) != 0;
	u8 out[40], *p = it->bytes;
	struct layout l;
	unsigned n = 0, from;
	struct insn now;

	find_layout(&l, p, in);
	memcpy(out, p, n = l.prefixes);
	from = n;
	if (mode == X86_MODE_64) {
		unsigned put;

		from += put_extension(out + n, &put, p + n, at, is_vex);
		n += put;
	}
	memcpy(out + n, p + from, l.modrm - from);
	n += l.modrm - from;
	n += put_place(out + n, p[l.modrm] >> 3 & 7, at);
	it->rip_disp = at->base == X86_REG_RIP ? (u8)(n - 4) : 0;
	memcpy(out + n, p + l.rest, in->imm_len);
	n += in->imm_len;
	if (n > X86_INSN_MAX)
		return false;
	memcpy(it->bytes, out, n);
	it->len = (u8)n;
	if (x86_decode(&now, it->bytes, n, mode, features) != (int)n ||
	    now.row != row || now.base != at->base)
		return false;
	*in = now;
	return true;
}

/* ---- accesses ---- */

/* What programs do most. */
static const struct common {
	u8 prefix, map, opcode;
	i8 digit;
	u8 imm; /* bytes; 4: as the operand size has it */
} commons[] = {
	{0, 0, 0x8b, -1, 0},	   {0, 0, 0x89, -1, 0},
	{0, 0, 0x8b, -1, 0},	   {0, 0, 0x89, -1, 0},
	{0, 0, 0x8a, -1, 0},	   {0, 0, 0x88, -1, 0},
	{0, 0, 0x03, -1, 0},	   {0, 0, 0x01, -1, 0},
	{0, 0, 0x3b, -1, 0},	   {0, 0, 0x39, -1, 0},
	{0, 0, 0x13, -1, 0},	   {0, 0, 0x83, 7, 1},
	{0, 0, 0x83, 0, 1},	   {0, 0, 0xc6, 0, 1},
	{0, 0, 0xc7, 0, 4},	   {0, 0, 0x80, 7, 1},
	{0, 0, 0xf6, 0, 1},	   {0, 0, 0x85, -1, 0},
	{0, 0, 0xff, 6, 0},	   {0, 0, 0x8f, 0, 0},
	{0, 0, 0xff, 0, 0},	   {0, 0, 0x63, -1, 0},
	{0, 0x0f, 0xb6, -1, 0},	   {0, 0x0f, 0xb7, -1, 0},
	{0, 0x0f, 0xbe, -1, 0},	   {0, 0x0f, 0x44, -1, 0},
	{0, 0x0f, 0x94, 0, 0},	   {0, 0x0f, 0x10, -1, 0},
	{0, 0x0f, 0x11, -1, 0},	   {0, 0x0f, 0x28, -1, 0},
	{0, 0x0f, 0x29, -1, 0},	   {0xf3, 0x0f, 0x6f, -1, 0},
	{0xf3, 0x0f, 0x7f, -1, 0}, {0x66, 0x0f, 0xd6, -1, 0},
	{0xf2, 0x0f, 0x10, -1, 0}, {0x66, 0x0f, 0xef, -1, 0},
	{0, 0, 0x8d, -1, 0},	   {0, 0, 0x87, -1, 0},
};

static void common_code(u8 *p, u8 mode)
{
	const struct common *c = &commons[below(ARRAY_SIZE(commons))];
	unsigned reg = c->digit < 0 ? below(8) : (unsigned)c->digit;

	if (!c->prefix && oracle_one_in(12))
		*p++ = 0x66;
	if (c->prefix)
		*p++ = c->prefix;
	if (mode == X86_MODE_64 && !oracle_one_in(4))
		*p++ = (u8)(0x40 | (oracle_one_in(3) ? 0 : 8) |
			    (oracle_one_in(2) && c->digit < 0 ? 4 : 0));
	if (c->map)
		*p++ = c->map;
	*p++ = c->opcode;
	*p++ = (u8)(reg << 3 | 1); /* [rcx] */
	st_le32(p, (u32)oracle_rnd());
}

/* Any row, without its odd forms; false: try again. */
static bool random_access(struct seq_item *it, struct insn *in, u8 mode,
			  const struct isa_features *features)
{
	struct oracle_case c = {.mode = mode};
	const struct isa_row *row = NULL;

	if (oracle_one_in(2)) {
		common_code(c.code, mode);
	} else {
		row = &isa_rows[below(isa_row_count)];
		if (!seq_is_row_used(row, features, mode))
			return false;
		if (row->attr & (ISA_SSE | ISA_AVX | ISA_X87 | ISA_MMX) &&
		    !oracle_one_in(3))
			return false;
		oracle_random_code(&c, row);
	}
	if (oracle_one_in(10)) {
		memmove(c.code + 1, c.code, X86_INSN_MAX);
		c.code[0] = 0x65; /* GS */
	}
	if (x86_decode(in, c.code, X86_INSN_MAX, mode, features) <= 0 ||
	    (row && in->row != row) || !in->is_mem || !in->has_modrm ||
	    in->asize < 4 || in->seg == X86_FS ||
	    !seq_is_row_used(in->row, features, mode))
		return false;
	memcpy(it->bytes, c.code, in->len);
	return true;
}

static u16 written(const struct insn *in, u8 mode)
{
	struct native n;

	if (in->row->class != ISA_PASS)
		return 0;
	native_init(&n, in, mode);
	return n.written;
}

static bool access_item(struct seq_item *it, const struct seq *s,
			const struct isa_features *features)
{
	const struct seq_group *g = &s->group;
	u32 at = below(g->span) & (oracle_one_in(4) ? ~0u : ~7u);
	struct place place = {
		.base = oracle_one_in(5) ? g->base2 : g->base,
		.index = g->index,
		.scale = g->scale,
		.disp = g->first + (i32)at,
		.is_long = oracle_one_in(8),
	};
	u32 bases = 1u << g->base | 1u << g->base2;
	struct insn in;

	if (!random_access(it, &in, s->mode, features))
		return false;
	if (s->mode == X86_MODE_64 && oracle_one_in(8)) {
		place.base = X86_REG_RIP;
		place.index = X86_REG_NONE;
		it->rip_target = g->rip_first + at;
	}
	if (!move_operand(it, &in, s->mode, features, &place) ||
	    seq_names(&in, s->counter))
		return false;
	return !(written(&in, s->mode) & bases) || oracle_one_in(10);
}

/* ---- the base changes ---- */

/* An opcode with registers in ModRM, of full size. */
static unsigned op_rr(u8 *p, u8 mode, u8 opcode, unsigned reg, unsigned rm)
{
	unsigned n = 0;

	if (mode == X86_MODE_64)
		p[n++] = (u8)((oracle_one_in(12) ? 0x40 : 0x48) |
			      (reg & 8) >> 1 | rm >> 3);
	p[n++] = opcode;
	p[n++] = (u8)(0xc0 | (reg & 7) << 3 | (rm & 7));
	return n;
}

static unsigned lea(u8 *p, u8 mode, unsigned reg, unsigned base, i8 disp)
{
	unsigned n = op_rr(p, mode, 0x8d, reg, base);

	p[n - 1] ^= 0x80; /* mod 1 */
	if ((base & 7) == 4)
		p[n++] = 0x24;
	p[n++] = (u8)disp;
	return n;
}

static unsigned push_pop(u8 *p, u8 mode, u8 opcode, unsigned reg)
{
	unsigned n = 0;

	if (mode == X86_MODE_64 && reg & 8)
		p[n++] = 0x41;
	p[n++] = opcode | (reg & 7);
	return n;
}

static bool change_item(struct seq_item *it, const struct seq *s)
{
	unsigned a = s->group.base, b = s->group.base2, n;
	i8 by = (i8)(below(40) - 20);
	u8 *p = it->bytes;

	if (oracle_one_in(2))
		by &= ~7;
	switch (below(12)) {
	case 0:
	case 1: /* add, sub */
		n = op_rr(p, s->mode, 0x83, oracle_one_in(2) ? 0 : 5, a);
		p[n++] = (u8)by;
		break;
	case 2:
		n = op_rr(p, s->mode, 0x81, oracle_one_in(2) ? 0 : 5, a);
		st_le32(p + n, (u32)(i32)by * (oracle_one_in(4) ? 64 : 1));
		n += 4;
		break;
	case 3: /* inc, dec */
		n = op_rr(p, s->mode, 0xff, below(2), a);
		break;
	case 4:
		n = lea(p, s->mode, a, a, by);
		break;
	case 5:
		n = lea(p, s->mode, b, a, by);
		break;
	case 6:
		n = op_rr(p, s->mode, 0x89, a, b);
		break;
	case 7:
		n = op_rr(p, s->mode, 0x8b, a, b);
		break;
	case 8: /* xchg */
		n = op_rr(p, s->mode, 0x87, a, b);
		break;
	case 9:
		n = push_pop(p, s->mode, 0x50, oracle_one_in(2) ? a : b);
		break;
	case 10:
		n = push_pop(p, s->mode, 0x58, b);
		break;
	default:
		if (a != X86_RBP && b != X86_RBP)
			return false;
		p[0] = 0xc9; /* leave */
		n = 1;
	}
	it->len = (u8)n;
	return true;
}

/* ---- flags pass by ---- */

static bool flags_item(struct seq_item *it, const struct seq *s)
{
	static const u8 opcodes[] = {0x9f, 0x9e, 0x9c, 0xf5, 0xf9, 0xf8};

	it->bytes[0] = opcodes[below(ARRAY_SIZE(opcodes))];
	it->len = 1;
	if (it->bytes[0] != 0x9c || !oracle_one_in(2))
		return true;
	/* What was pushed, if the stack was left alone. */
	for (unsigned i = 1; i <= 4 && it - i >= s->items; i++)
		if (it[-(int)i].len == 1 && it[-(int)i].bytes[0] == 0x9c)
			it->bytes[0] = 0x9d;
	return true;
}

/* ---- the group ---- */

void seq_group_init(struct seq *s)
{
	static const u32 spans[] = {16, 64, 200, 504, 528, 640};
	static const u8 often[] = {X86_RSP, X86_RAX, X86_RCX, X86_RBP, 10,
				   11,	    12,	     13,      15};
	struct seq_group *g = &s->group;
	unsigned regs = s->mode == X86_MODE_64 ? 16 : 8;

	g->is_on = oracle_one_in(2);
	do {
		g->base = (u8)(oracle_one_in(2) ? below(regs)
						: often[below(sizeof(often))]);
	} while (g->base >= regs || g->base == s->counter);
	do {
		g->base2 = (u8)below(regs);
	} while (g->base2 == g->base || g->base2 == s->counter ||
		 g->base2 == X86_RSP);
	g->index = X86_REG_NONE;
	if (oracle_one_in(5)) {
		g->index = (u8)below(regs);
		if (g->index == X86_RSP || g->index == s->counter ||
		    g->index == g->base || g->index == g->base2)
			g->index = X86_REG_NONE;
	}
	g->scale = (u8)below(4);
	g->span = spans[below(ARRAY_SIZE(spans))];
	g->first = (i32)below(400) - 200;
	if (!oracle_one_in(4))
		g->first &= ~7;
	g->rip_first = (u32)seq_pointer();
}

bool seq_group_item(struct seq_item *it, const struct seq *s,
		    const struct isa_features *features)
{
	*it = (struct seq_item){.kind = SEQ_PLAIN};
	switch (below(10)) {
	case 0:
	case 1:
		return change_item(it, s);
	case 2:
		return flags_item(it, s);
	default:
		while (!access_item(it, s, features))
			;
		return true;
	}
}

void seq_group_registers(const struct seq *s, u64 *gpr)
{
	const struct seq_group *g = &s->group;
	u64 at = ORACLE_DATA + 600 + below(2800);

	switch (below(8)) {
	case 0:
	case 1: /* over a page's end, of which the last leads nowhere */
	case 2:
		at = ORACLE_DATA + 4096 * (1 + below(3)) - below(g->span + 16);
		break;
	case 3:
		at = ORACLE_DATA - below(64);
		break;
	case 4:
		at += 4096;
		break;
	default:
		break;
	}
	if (!oracle_one_in(4))
		at &= ~15ull;
	if (g->index != X86_REG_NONE)
		gpr[g->index] = below(64);
	gpr[g->base] = at - (u64)(i64)g->first;
	if (g->index != X86_REG_NONE)
		gpr[g->base] -= gpr[g->index] << g->scale;
	if (oracle_one_in(2))
		gpr[g->base2] = gpr[g->base] + below(40);
}
