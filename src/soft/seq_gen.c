/* SPDX-License-Identifier: Apache-2.0 */
#include "soft/seq_gen.h"

#include "soft/interp_int.h"
#include "soft/trace.h"

u64 seq_pointer(void)
{
	switch (oracle_rnd() >> 9 & 15) {
	case 0: /* what may only be read */
		return ORACLE_DATA + ORACLE_DATA_BYTES - oracle_rnd() % 80;
	case 3: /* over the end */
		return ORACLE_READ_ONLY + 4096 - oracle_rnd() % 80;
	case 1: /* in front of a page's end */
		return ORACLE_DATA + 4096 - oracle_rnd() % 40;
	case 2: /* nothing there, or somewhere in code */
		return ORACLE_DATA - oracle_rnd() % 64;
	default:
		return ORACLE_DATA + 2000 + oracle_rnd() % 4000;
	}
}

/* ---- instructions ---- */

/* Not what single cases are excused for. */
bool seq_is_row_used(const struct isa_row *row,
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
bool seq_names(const struct insn *in, unsigned reg)
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

static bool is_rip_relative(const struct insn *in)
{
	return in->base == X86_REG_RIP && in->seg != X86_FS;
}

static bool is_fit(const struct insn *in, unsigned counter)
{
	return !seq_names(in, counter) &&
	       (!in->is_mem || is_rip_relative(in) ||
		(in->base < 16 && in->index == X86_REG_NONE && in->asize >= 4 &&
		 in->seg != X86_FS && in->disp < 1000 && in->disp > -1000));
}

static bool plain_item(struct seq_item *it, const struct seq *s,
		       const struct isa_features *features)
{
	const struct isa_row *row =
		&isa_rows[(oracle_rnd() >> 9) % isa_row_count];
	struct oracle_case c = {.mode = s->mode};
	struct insn in;
	int len;

	if (!seq_is_row_used(row, features, s->mode))
		return false;
	if (row->attr & (ISA_SSE | ISA_AVX | ISA_X87 | ISA_MMX) &&
	    !oracle_one_in(6))
		return false;
	oracle_random_code(&c, row);
	len = x86_decode(&in, c.code, 15, s->mode, features);
	if (len <= 0 || in.row != row || !is_fit(&in, s->counter))
		return false;
	it->kind = SEQ_PLAIN;
	it->len = len;
	memcpy(it->bytes, c.code, len);
	it->rip_disp = 0;
	if (in.is_mem && in.base == X86_REG_RIP) {
		it->rip_disp = (u8)(len - in.imm_len - 4);
		it->rip_target = (u32)seq_pointer();
	}
	return true;
}

/* ---- control flow ---- */

static void jump_item(struct seq_item *it, unsigned i, unsigned n)
{
	static const u8 shorts[] = {0xe0, 0xe1, 0xe2, 0xe3};
	unsigned cc = oracle_rnd() >> 9 & 15;

	it->target = i + 1 + (oracle_rnd() >> 9) % (n - i);
	it->kind = SEQ_JUMP;
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

static void fixed_item(struct seq_item *it, const u8 *bytes, unsigned len)
{
	*it = (struct seq_item){.kind = SEQ_PLAIN, .len = len};
	memcpy(it->bytes, bytes, len);
}

/* dec counter; jnz back */
static void loop_items(struct seq *s)
{
	const u8 dec64[] = {0x49, 0xff, 0xc8 | (s->counter & 7)};
	static const u8 dec32[] = {0xff, 0xcb};
	unsigned at = 1 + (oracle_rnd() >> 9) % (s->n - 1);
	struct seq_item *dec = &s->items[at - 1], *jnz = &s->items[at];

	if (s->mode == X86_MODE_64)
		fixed_item(dec, dec64, sizeof(dec64));
	else
		fixed_item(dec, dec32, sizeof(dec32));
	*jnz = (struct seq_item){.kind = SEQ_JUMP, .len = 6};
	jnz->bytes[0] = 0x0f;
	jnz->bytes[1] = 0x85;
	jnz->target = (oracle_rnd() >> 9) % at;
	/* Nobody comes to the jump but over the counting. */
	for (unsigned i = 0; i < at; i++)
		if (s->items[i].kind == SEQ_JUMP && s->items[i].target == at)
			s->items[i].target = i + 1 == at ? at + 1 : at - 1;
}

static void lay_out(struct seq *s, const struct isa_features *features)
{
	unsigned off = 0;

	for (unsigned i = 0; i < s->total; i++) {
		s->items[i].off = off;
		off += s->items[i].len;
	}
	s->bytes = off;
	for (unsigned i = 0; i < s->total; i++) {
		struct seq_item *it = &s->items[i];
		struct insn in;

		if (it->kind == SEQ_JUMP) {
			int rel = s->items[it->target].off - it->off - it->len;

			if (it->len == 2)
				it->bytes[1] = (u8)rel;
			else
				st_le32(it->bytes + it->len - 4, (u32)rel);
		}
		if (it->rip_disp)
			st_le32(it->bytes + it->rip_disp,
				it->rip_target -
					(u32)(s->rip + it->off + it->len));
		if (x86_decode(&in, it->bytes, it->len, s->mode, features) <= 0)
			continue;
		xlat_insn_flags(&in, &it->reads, &it->writes);
		it->undefined = oracle_undefined_flags(in.row->op) |
				in.row->flags_undefined;
	}
}

/* Flags that may be undefined in front of each item. */
void seq_find_undefined(const struct seq *s, u16 *in)
{
	bool changed = true;

	memset(in, 0, SEQ_TOTAL_MAX * sizeof(*in));
	while (changed) {
		changed = false;
		for (unsigned i = 0; i < s->total; i++) {
			const struct seq_item *it = &s->items[i];
			u16 out = (in[i] & (u16)~it->writes) | it->undefined;
			bool is_ret = it->kind == SEQ_RET;

			for (unsigned k = 0; k < s->total; k++) {
				bool is_next =
					k == i + 1 && !is_ret && i != s->n;
				bool is_target =
					it->kind == SEQ_JUMP && it->target == k;

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

static bool any_item(struct seq_item *it, const struct seq *s,
		     const struct isa_features *features)
{
	if (s->group.is_on && !oracle_one_in(4))
		return seq_group_item(it, s, features);
	if (oracle_one_in(60)) {
		fixed_item(it, (const u8[]){0x9c}, 1); /* pushf */
		return true;
	}
	return plain_item(it, s, features);
}

void seq_generate(struct seq *s, u8 mode, const struct isa_features *features)
{
	u16 undefined[SEQ_TOTAL_MAX];
	unsigned sub = 1 + (oracle_rnd() >> 9) % SEQ_SUB_MAX;
	bool is_clean;

	memset(s, 0, sizeof(*s));
	s->mode = mode;
	s->counter =
		mode == X86_MODE_64 ? 8 + (oracle_rnd() >> 9 & 7) : X86_RBX;
	seq_group_init(s);
	s->n = 2 + (oracle_rnd() >> 9) % (SEQ_ITEMS_MAX - 1);
	s->total = s->n + 1 + sub;
	for (unsigned i = 0; i < s->total - 1; i++) {
		if (i < s->n && oracle_one_in(5))
			jump_item(&s->items[i], i, s->n);
		else
			while (!any_item(&s->items[i], s, features))
				;
	}
	fixed_item(&s->items[s->n], (const u8[]){0x0f, 0x0b}, 2);
	s->items[s->n].kind = SEQ_END;
	fixed_item(&s->items[s->total - 1], (const u8[]){0xc3}, 1);
	s->items[s->total - 1].kind = SEQ_RET;
	if (oracle_one_in(2))
		loop_items(s);
	do {
		lay_out(s, features);
		seq_find_undefined(s, undefined);
		is_clean = true;
		for (unsigned i = 0; i < s->total; i++) {
			struct seq_item *it = &s->items[i];

			if (!(it->reads & undefined[i]))
				continue;
			/* test al, 0: all flags are known behind it */
			fixed_item(it, (const u8[]){0xa8, 0}, 2);
			is_clean = false;
		}
	} while (!is_clean);
	/* The page's end is in the code, or not. */
	s->rip =
		ORACLE_CODE + (oracle_one_in(3) ? 4096 - oracle_rnd() % s->bytes
						: oracle_rnd() % 3000);
	lay_out(s, features);
}

void seq_fixed(struct seq *s, u8 mode, const u8 (*insns)[16],
	       const struct isa_features *features)
{
	struct insn in;
	int len;

	memset(s, 0, sizeof(*s));
	s->mode = mode;
	s->counter = X86_RBX;
	s->rip = ORACLE_CODE;
	s->group = (struct seq_group){.is_on = true,
				      .base = X86_RCX,
				      .base2 = X86_RDX,
				      .index = X86_REG_NONE,
				      .span = 16};
	for (; (len = x86_decode(&in, insns[s->n], X86_INSN_MAX, mode,
				 features)) > 0 &&
	       in.row->op != ISA_OP_UD2;
	     s->n++)
		fixed_item(&s->items[s->n], insns[s->n], (unsigned)len);
	fixed_item(&s->items[s->n], (const u8[]){0x0f, 0x0b}, 2);
	s->items[s->n].kind = SEQ_END;
	s->total = s->n + 2;
	fixed_item(&s->items[s->n + 1], (const u8[]){0xc3}, 1);
	s->items[s->n + 1].kind = SEQ_RET;
	lay_out(s, features);
}
