/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY: prefixes, then the opcode map, then the rows of (map, opcode) from
 * an index made at build time; the first row whose ModRM, mandatory prefix,
 * VEX, mode and feature columns fit is the instruction. Operand and address
 * sizes, displacement and immediates follow from the row.
 *
 * Bytes are read through next(), which notes when they run out: the answer is
 * then "short" whatever else was found, unless what has been read already is
 * undefined.
 *
 * Source: SDM 2 §2.1-2.3, appendix A; APM 3 §1.
 */
#include "x86/decode.h"
#include "x86/decode_int.h"

struct row_slot {
	u16 first, count;
	bool has_modrm;
};

#include "decode_tables.inc"

struct cursor {
	const u8 *bytes;
	size_t avail, pos;
	bool is_short, is_long;
	enum x86_mode mode;
	const struct isa_features *features;
	bool has_vex;
	bool has_vvvv; /* VEX.vvvv is not 1111b */
};

static u8 next(struct cursor *c)
{
	if (c->pos >= X86_INSN_MAX) {
		c->is_long = true;
		return 0;
	}
	if (c->pos >= c->avail) {
		c->is_short = true;
		return 0;
	}
	return c->bytes[c->pos++];
}

static bool is_stopped(const struct cursor *c)
{
	return c->is_short || c->is_long;
}

/* A little-endian value of n bytes. */
static u64 next_le(struct cursor *c, unsigned n)
{
	u64 v = 0;

	if (n == 4 && c->pos + 4 <= MIN(c->avail, (size_t)X86_INSN_MAX)) {
		c->pos += 4;
		return ld_le32(c->bytes + c->pos - 4);
	}
	for (unsigned i = 0; i < n; i++)
		v |= (u64)next(c) << (8 * i);
	return v;
}

static u64 sign_extend(u64 v, unsigned bytes)
{
	unsigned shift = 64 - 8 * bytes;

	return bytes >= 8 ? v : (u64)((i64)(v << shift) >> shift);
}

/* ---- prefixes ---- */

static const u8 segment_of_prefix[256] = {
	[0x26] = X86_ES + 1, [0x2e] = X86_CS + 1, [0x36] = X86_SS + 1,
	[0x3e] = X86_DS + 1, [0x64] = X86_FS + 1, [0x65] = X86_GS + 1,
};

static void note_segment(struct insn *in, enum x86_mode mode, u8 seg)
{
	/* In 64-bit mode only FS and GS count; the others are ignored and
	 * do not cancel them. */
	if (mode == X86_MODE_64 && seg != X86_FS && seg != X86_GS)
		return;
	in->prefixes |= X86_P_SEG;
	in->seg = seg;
}

/* Reads prefixes; returns the first opcode byte. */
static u8 read_prefixes(struct cursor *c, struct insn *in)
{
	for (;;) {
		u8 b = next(c);

		if (is_stopped(c))
			return 0;
		if (b == 0x66) {
			in->prefixes |= X86_P_OPSIZE;
		} else if (b == 0x67) {
			in->prefixes |= X86_P_ADSIZE;
		} else if (b == 0xf0) {
			in->prefixes |= X86_P_LOCK;
		} else if (b == 0xf2) {
			in->prefixes |= X86_P_REPNE;
			in->prefixes &= (u8)~X86_P_REP;
		} else if (b == 0xf3) {
			in->prefixes |= X86_P_REP;
			in->prefixes &= (u8)~X86_P_REPNE;
		} else if (segment_of_prefix[b]) {
			note_segment(in, c->mode, segment_of_prefix[b] - 1);
		} else if (c->mode == X86_MODE_64 && (b & 0xf0) == 0x40) {
			in->rex = b; /* counts only right before the opcode */
			continue;
		} else {
			if (in->rex)
				in->prefixes |= X86_P_REX;
			return b;
		}
		in->rex = 0;
	}
}

/* ---- opcode maps ---- */

/* C4 and C5 are VEX in 64-bit mode, and elsewhere when the next byte would be
 * a register form of LES/LDS, which does not exist. */
static bool is_vex(struct cursor *c, u8 b)
{
	if (b != 0xc4 && b != 0xc5)
		return false;
	if (c->mode == X86_MODE_64)
		return true;
	if (c->pos >= X86_INSN_MAX) {
		c->is_long = true;
		return false;
	}
	if (c->pos >= c->avail) {
		c->is_short = true;
		return false;
	}
	return (c->bytes[c->pos] & 0xc0) == 0xc0;
}

/* false: #UD. */
static bool read_vex(struct cursor *c, struct insn *in, u8 b)
{
	static const u8 mandatory[] = {0, 0x66, 0xf3, 0xf2};
	u8 p, map = 1;

	if (in->prefixes &
	    (X86_P_OPSIZE | X86_P_REP | X86_P_REPNE | X86_P_LOCK | X86_P_REX))
		return false;
	c->has_vex = true;
	p = next(c);
	in->rex = 0x40 | (u8)((p & 0x80) ? 0 : 4);
	if (b == 0xc4) {
		map = p & 0x1f;
		in->rex |= (u8)(((p & 0x40) ? 0 : 2) | ((p & 0x20) ? 0 : 1));
		p = next(c);
		in->rex |= (p & 0x80) ? 8 : 0;
	}
	if (is_stopped(c))
		return true;
	in->vvvv = (u8)(~p >> 3) & 15;
	c->has_vvvv = in->vvvv != 0;
	in->vex_l = (p >> 2) & 1;
	in->mandatory = mandatory[p & 3];
	in->prefixes |= X86_P_VEX;
	if (c->mode != X86_MODE_64) {
		in->rex &= 0x48;
		in->vvvv &= 7;
	}
	if (map < 1 || map > 3)
		return false;
	in->map = (u8)(ISA_MAP_VEX_0F + map - 1);
	in->opcode = next(c);
	return true;
}

static bool read_opcode(struct cursor *c, struct insn *in)
{
	u8 b = read_prefixes(c, in);

	if (is_stopped(c))
		return true;
	if (is_vex(c, b))
		return read_vex(c, in, b);
	if (in->prefixes & X86_P_REP)
		in->mandatory = 0xf3;
	else if (in->prefixes & X86_P_REPNE)
		in->mandatory = 0xf2;
	else if (in->prefixes & X86_P_OPSIZE)
		in->mandatory = 0x66;
	in->map = ISA_MAP_1B;
	if ((b & 0xf8) == 0xd8)
		in->map = ISA_MAP_X87;
	if (b == 0x0f) {
		in->map = ISA_MAP_0F;
		b = next(c);
		if (b == 0x38 || b == 0x3a) {
			in->map = b == 0x38 ? ISA_MAP_0F38 : ISA_MAP_0F3A;
			b = next(c);
		}
	}
	in->opcode = b;
	return true;
}

/* ---- rows ---- */

static bool prefix_fits(const struct isa_row *r, const struct insn *in)
{
	if (r->prefix == 0)
		return true;
	return in->mandatory == (r->prefix == 1 ? 0 : r->prefix);
}

static bool modrm_fits(const struct isa_row *r, const struct insn *in)
{
	bool is_register = in->modrm >= 0xc0;

	if (r->modrm_reg >= 0 && ((in->modrm >> 3) & 7) != r->modrm_reg)
		return false;
	if (r->modrm_mod == 1 && is_register)
		return false;
	if (r->modrm_mod == 2 && !is_register)
		return false;
	return r->modrm_rm < 0 || (in->modrm & 7) == r->modrm_rm;
}

static bool row_fits(const struct isa_row *r, const struct insn *in,
		     const struct cursor *c)
{
	if (!prefix_fits(r, in) || !modrm_fits(r, in))
		return false;
	if (c->has_vex && ((r->vex_l >= 0 && r->vex_l != in->vex_l) ||
			   (r->vex_w >= 0 && r->vex_w != ((in->rex >> 3) & 1))))
		return false;
	if ((r->attr & ISA_NO64) && c->mode == X86_MODE_64)
		return false;
	if ((r->attr & ISA_ONLY64) && c->mode != X86_MODE_64)
		return false;
	if ((r->attr & ISA_REXB) && !(in->rex & 1))
		return false;
	return c->features->bits & BIT64(r->feature);
}

static const struct isa_row *find_row(struct cursor *c, struct insn *in,
				      const struct row_slot *slot)
{
	for (unsigned i = 0; i < slot->count; i++) {
		const struct isa_row *r = &isa_rows[row_list[slot->first + i]];

		if (row_fits(r, in, c))
			return r;
	}
	return NULL;
}

/* ---- sizes ---- */

static bool row_has(const struct isa_row *r, u8 kind)
{
	for (int i = 0; i < ISA_OPERANDS; i++)
		if (r->operands[i].kind == kind)
			return true;
	return false;
}

static u8 operand_size(const struct insn *in, const struct cursor *c)
{
	u32 attr = in->row->attr;
	/* 66 as part of the opcode does not change the size. */
	bool is_66 = (in->prefixes & X86_P_OPSIZE) &&
		     (in->row->prefix != 0x66 || (attr & ISA_OPSIZE));

	if (c->mode != X86_MODE_64) {
		if (attr & ISA_MODREG)
			return 4;
		return (c->mode == X86_MODE_32) == is_66 ? 2 : 4;
	}
	if (in->rex & 8)
		return 8;
	if (attr & ISA_F64) {
		/* Near branches: AMD honours 66, Intel does not. */
		bool is_branch = in->row->class == ISA_CTRL;

		return is_66 && is_branch && c->features->is_amd ? 2 : 8;
	}
	if (is_66)
		return 2;
	return attr & ISA_D64 ? 8 : 4;
}

static u8 address_size(const struct insn *in, const struct cursor *c)
{
	bool is_67 = in->prefixes & X86_P_ADSIZE;

	if (c->mode == X86_MODE_64)
		return is_67 ? 4 : 8;
	return (c->mode == X86_MODE_32) == is_67 ? 2 : 4;
}

static u16 size_bytes(const struct insn *in, u8 size, bool is_mode_64)
{
	u8 w = in->osize == 8 ? 8 : 4;
	u16 xy = in->vex_l ? 32 : 16;

	switch (size) {
	case ISA_S_B:
		return 1;
	case ISA_S_W:
		return 2;
	case ISA_S_D:
		return 4;
	case ISA_S_Q:
		return 8;
	case ISA_S_V:
		return in->osize;
	case ISA_S_Z:
		return MIN(in->osize, 4);
	case ISA_S_Y:
		return w;
	case ISA_S_X:
		return 16;
	case ISA_S_YMM:
		return 32;
	case ISA_S_XY:
		return xy;
	case ISA_S_XYH:
		return xy / 2;
	case ISA_S_XYQ:
		return xy / 4;
	case ISA_S_XYE:
		return xy / 8;
	case ISA_S_T:
		return 10;
	case ISA_S_P:
		return (u16)(2 + in->osize);
	case ISA_S_S:
		return is_mode_64 ? 10 : 6;
	case ISA_S_2V:
		return (u16)(2 * in->osize);
	case ISA_S_2Y:
		return (u16)(2 * w);
	case ISA_S_ENV:
		return in->osize == 2 ? 14 : 28;
	case ISA_S_STATE:
		return in->osize == 2 ? 94 : 108;
	case ISA_S_FX:
		return 512;
	}
	return 0;
}

/* ---- ModRM ---- */

static void set_default_segment(struct insn *in)
{
	if (in->prefixes & X86_P_SEG)
		return;
	in->seg = in->base == X86_RSP || in->base == X86_RBP ? X86_SS : X86_DS;
}

static void read_sib(struct cursor *c, struct insn *in, u8 mod)
{
	u8 sib = next(c);
	u8 index = (u8)(((sib >> 3) & 7) | (in->rex & 2 ? 8 : 0));
	u8 base = (u8)((sib & 7) | (in->rex & 1 ? 8 : 0));

	in->scale = sib >> 6;
	in->index = index == 4 && !row_has(in->row, ISA_O_VSIB) ? X86_REG_NONE
								: index;
	in->base = base;
	if ((sib & 7) == 5 && mod == 0) {
		in->base = X86_REG_NONE;
		in->disp = (i32)next_le(c, 4);
	}
}

static void read_mem_16(struct cursor *c, struct insn *in, u8 mod)
{
	static const u8 bases[8] = {X86_RBX, X86_RBX, X86_RBP, X86_RBP,
				    X86_RSI, X86_RDI, X86_RBP, X86_RBX};
	static const u8 indexes[8] = {X86_RSI,	    X86_RDI,	  X86_RSI,
				      X86_RDI,	    X86_REG_NONE, X86_REG_NONE,
				      X86_REG_NONE, X86_REG_NONE};
	u8 rm = in->modrm & 7;

	in->base = bases[rm];
	in->index = indexes[rm];
	if (mod == 0 && rm == 6) {
		in->base = X86_REG_NONE;
		in->disp = (i16)next_le(c, 2);
	} else if (mod == 1) {
		in->disp = (i8)next(c);
	} else if (mod == 2) {
		in->disp = (i16)next_le(c, 2);
	}
	set_default_segment(in);
}

static void read_mem(struct cursor *c, struct insn *in, u8 mod)
{
	u8 rm = in->modrm & 7;

	in->is_mem = true;
	if (in->asize == 2) {
		read_mem_16(c, in, mod);
		return;
	}
	if (rm == 4) {
		read_sib(c, in, mod);
	} else if (rm == 5 && mod == 0) {
		in->base = c->mode == X86_MODE_64 ? X86_REG_RIP : X86_REG_NONE;
		in->disp = (i32)next_le(c, 4);
	} else {
		in->base = (u8)(rm | (in->rex & 1 ? 8 : 0));
	}
	if (mod == 1)
		in->disp = (i8)next(c);
	else if (mod == 2)
		in->disp = (i32)next_le(c, 4);
	set_default_segment(in);
}

static void read_modrm_operands(struct cursor *c, struct insn *in)
{
	u8 mod = in->modrm >> 6;

	in->reg = (u8)(((in->modrm >> 3) & 7) | (in->rex & 4 ? 8 : 0));
	if (mod == 3 || (in->row->attr & ISA_MODREG))
		in->rm = (u8)((in->modrm & 7) | (in->rex & 1 ? 8 : 0));
	else
		read_mem(c, in, mod);
}

/* ---- immediates ---- */

static void read_immediate(struct cursor *c, struct insn *in,
			   const struct isa_operand *o)
{
	unsigned n = size_bytes(in, o->size, false);
	u64 v = next_le(c, n);

	if (o->size == ISA_S_Z || (in->row->attr & ISA_IMM_SX) ||
	    o->kind == ISA_O_REL)
		v = sign_extend(v, n);
	in->imm = v;
	in->imm_len += (u8)n;
}

static void read_operand(struct cursor *c, struct insn *in,
			 const struct isa_operand *o)
{
	unsigned n;

	switch (o->kind) {
	case ISA_O_IMM:
	case ISA_O_REL:
		read_immediate(c, in, o);
		break;
	case ISA_O_IMM2:
		in->imm2 = next(c);
		in->imm_len++;
		break;
	case ISA_O_XMM_IS4:
		in->imm = next(c);
		if (c->mode != X86_MODE_64)
			in->imm &= 0x7f; /* the register has three bits */
		in->imm_len++;
		break;
	case ISA_O_MOFFS:
		in->imm = next_le(c, in->asize);
		in->imm_len = in->asize;
		in->is_mem = true;
		in->mem_size = size_bytes(in, o->size, false);
		set_default_segment(in);
		break;
	case ISA_O_FARPTR:
		n = size_bytes(in, o->size, false);
		in->imm = next_le(c, n);
		in->imm2 = (u16)next_le(c, 2);
		in->imm_len = (u8)(n + 2);
		break;
	case ISA_O_GPR_RM:
	case ISA_O_MEM:
	case ISA_O_XMM_RM:
	case ISA_O_MMX_RM:
	case ISA_O_VSIB:
		if (in->is_mem)
			in->mem_size =
				size_bytes(in, o->size, c->mode == X86_MODE_64);
		break;
	case ISA_O_GPR_OPC:
		in->rm = (u8)((in->opcode & 7) | (in->rex & 1 ? 8 : 0));
		break;
	case ISA_O_STR_SRC:
		set_default_segment(in);
		break;
	}
}

static bool has_feature(const struct cursor *c, enum isa_feature f)
{
	return c->features->bits & BIT64(f);
}

/* What no single column says. */
/* #UD with W outside 64-bit mode, where W does not make them VPINSRQ and
 * VPEXTRQ (SDM 2 "PINSRB/PINSRD/PINSRQ"). */
static bool needs_w0(const struct isa_row *r)
{
	return r->op == ISA_OP_VPINSRD || r->op == ISA_OP_VPEXTRD;
}

static bool row_rules_hold(const struct cursor *c, const struct insn *in)
{
	const struct isa_row *r = in->row;

	if (needs_w0(r) && c->mode != X86_MODE_64 && (in->rex & 8))
		return false;
	if (r->op == ISA_OP_MOV_TO_SEG && (in->reg & 7) == X86_CS)
		return false;
	if (row_has(r, ISA_O_SEG_REG) && (in->reg & 7) > X86_GS)
		return false;
	if (row_has(r, ISA_O_CR) && in->reg != 0 && in->reg != 8 &&
	    (in->reg < 2 || in->reg > 4))
		return false;
	if (row_has(r, ISA_O_DR) && in->reg > 7)
		return false;
	if (r->op == ISA_OP_CMPXCHG8B && in->osize == 8 &&
	    !has_feature(c, ISA_F_CX16))
		return false;
	if ((r->op == ISA_OP_SAHF || r->op == ISA_OP_LAHF) &&
	    c->mode == X86_MODE_64 && !has_feature(c, ISA_F_LAHF64))
		return false;
	/* Register forms of 0F 0D: NOP on Intel, undefined on AMD. */
	if (c->features->is_amd && in->map == ISA_MAP_0F &&
	    in->opcode == 0x0d && !in->is_mem)
		return false;
	if (row_has(r, ISA_O_VSIB)) {
		/* The three registers must differ; a SIB byte is needed. */
		if ((in->modrm & 7) != 4 || in->asize == 2)
			return false;
		if (in->reg == in->vvvv || in->reg == in->index ||
		    in->vvvv == in->index)
			return false;
	}
	return true;
}

static bool is_valid(const struct cursor *c, const struct insn *in)
{
	const struct isa_row *r = in->row;
	u8 traits = row_traits[r - isa_rows];

	/* AMD: LOCK MOV CR0 is MOV CR8; not offered here. */
	if ((in->prefixes & X86_P_LOCK) &&
	    (!(r->attr & ISA_LOCK) || !in->is_mem))
		return false;
	if (c->has_vvvv && !(traits & DECODE_VVVV))
		return false;
	return !(traits & DECODE_RULES) || row_rules_hold(c, in);
}

/* Of the prefixes only what the row means by them stays. */
static void settle_prefixes(const struct cursor *c, struct insn *in)
{
	const struct isa_row *r = in->row;

	if (!c->has_vex && (!r->prefix || (r->attr & ISA_OPSIZE)))
		in->mandatory = 0; /* a size or string prefix, or ignored */
	/* W as an operand size means nothing outside 64-bit mode. */
	if (c->has_vex && c->mode != X86_MODE_64 && r->vex_w < 0 &&
	    !needs_w0(r))
		in->rex &= ~8;
}

static bool decode_row(struct cursor *c, struct insn *in)
{
	const struct row_slot *slot = &row_slots[in->map][in->opcode];

	if (slot->count == 0)
		return false;
	if (slot->has_modrm) {
		in->modrm = next(c);
		in->has_modrm = true;
		if (is_stopped(c))
			return true;
	}
	in->row = find_row(c, in, slot);
	if (!in->row)
		return false;
	settle_prefixes(c, in);
	in->osize = operand_size(in, c);
	in->asize = address_size(in, c);
	if (in->has_modrm)
		read_modrm_operands(c, in);
	for (int i = 0; i < ISA_OPERANDS; i++)
		read_operand(c, in, &in->row->operands[i]);
	return is_valid(c, in);
}

int x86_decode(struct insn *out, const u8 *bytes, size_t avail,
	       enum x86_mode mode, const struct isa_features *features)
{
	struct cursor c = {
		.bytes = bytes,
		.avail = avail,
		.mode = mode,
		.features = features,
	};
	bool ok;

	*out = (struct insn){
		.seg = X86_DS,
		.base = X86_REG_NONE,
		.index = X86_REG_NONE,
	};
	ok = read_opcode(&c, out);
	if (ok && !is_stopped(&c))
		ok = decode_row(&c, out);
	if (!ok)
		return X86_DECODE_UD;
	if (c.is_long)
		return X86_DECODE_TOO_LONG;
	if (c.is_short)
		return X86_DECODE_SHORT;
	out->len = (u8)c.pos;
	return (int)c.pos;
}
