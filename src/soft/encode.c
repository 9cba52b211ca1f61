/* SPDX-License-Identifier: Apache-2.0 */
/* An ISA_PASS instruction over other registers.
 *
 * THEORY. The host executes the guest's very operation: only the register
 * fields, the memory operand and the length of prefixes change. Whoever emits
 * (stub.c, lower.c) decides where each guest GPR lives for this instruction
 * and which host register points to the memory operand. What was encoded is
 * decoded again and compared (invariant I4).
 */
#include "soft/encode.h"

#include "soft/access.h"

/* ---- what it names ---- */

static void use_gpr(struct native *p, const struct isa_operand *d, unsigned reg)
{
	if (d->size == ISA_S_B) {
		unsigned off = soft_byte_reg(p->in, reg);

		if (off & 1)
			p->has_high_byte = true;
		reg = (off - offsetof(struct vcpu, gpr)) / 8;
	}
	p->used |= 1u << reg;
	if (d->access != ISA_A_R && d->access != ISA_A_NONE)
		p->written |= 1u << reg;
}

static void use_xmm(struct native *p, const struct isa_operand *d, unsigned reg)
{
	p->xmm_used |= 1u << reg;
	if (d->access != ISA_A_R && d->access != ISA_A_NONE)
		p->xmm_written |= 1u << reg;
}

static void plan_operand(struct native *p, const struct isa_operand *d)
{
	const struct insn *in = p->in;

	switch (d->kind) {
	case ISA_O_GPR_REG:
		use_gpr(p, d, in->reg);
		break;
	case ISA_O_GPR_RM:
	case ISA_O_GPR_RM_ONLY:
		if (!in->is_mem)
			use_gpr(p, d, in->rm);
		break;
	case ISA_O_GPR_OPC:
		use_gpr(p, d, in->rm);
		break;
	case ISA_O_GPR_VVVV:
		use_gpr(p, d, in->vvvv);
		break;
	case ISA_O_GPR_FIXED:
		p->used |= 1u << d->reg;
		p->fixed |= 1u << d->reg;
		if (d->access != ISA_A_R)
			p->written |= 1u << d->reg;
		break;
	case ISA_O_XMM_REG:
		use_xmm(p, d, in->reg);
		break;
	case ISA_O_XMM_RM:
	case ISA_O_XMM_RM_ONLY:
		if (!in->is_mem)
			use_xmm(p, d, in->rm);
		break;
	case ISA_O_XMM_VVVV:
		use_xmm(p, d, in->vvvv);
		break;
	case ISA_O_XMM_IS4:
		use_xmm(p, d,
			(in->imm >> 4) & (p->mode == X86_MODE_64 ? 15 : 7));
		break;
	case ISA_O_XMM_FIXED:
		use_xmm(p, d, d->reg);
		break;
	default:
		break;
	}
}

/* ---- encoding ---- */

static bool has_size_v(const struct isa_row *row)
{
	if (row->op == ISA_OP_BSWAP)
		return true;
	for (unsigned i = 0; i < ISA_OPERANDS; i++) {
		u8 s = row->operands[i].size;

		if (row->operands[i].kind != ISA_O_NONE &&
		    (s == ISA_S_V || s == ISA_S_Z || s == ISA_S_2V))
			return true;
	}
	return false;
}

/* The host register number that stands in an encoding field. */
static unsigned field_gpr(const struct native *p, const struct isa_operand *d,
			  unsigned reg)
{
	if (d->size == ISA_S_B && soft_byte_reg(p->in, reg) & 1)
		return reg; /* AH to BH */
	return p->host[reg];
}

static unsigned reg_field(const struct native *p)
{
	const struct isa_row *row = p->in->row;

	for (unsigned i = 0; i < ISA_OPERANDS; i++) {
		const struct isa_operand *d = &row->operands[i];

		if (d->kind == ISA_O_GPR_REG)
			return field_gpr(p, d, p->in->reg);
		if (d->kind == ISA_O_XMM_REG)
			return p->in->reg;
	}
	return (p->in->modrm >> 3) & 7; /* MMX, or part of the opcode */
}
static unsigned rm_field(const struct native *p)
{
	const struct isa_row *row = p->in->row;

	for (unsigned i = 0; i < ISA_OPERANDS; i++) {
		const struct isa_operand *d = &row->operands[i];

		if (d->kind == ISA_O_GPR_RM || d->kind == ISA_O_GPR_RM_ONLY ||
		    d->kind == ISA_O_GPR_OPC)
			return field_gpr(p, d, p->in->rm);
		if (d->kind == ISA_O_XMM_RM || d->kind == ISA_O_XMM_RM_ONLY)
			return p->in->rm;
	}
	return p->in->modrm & 7;
}
static unsigned vvvv_field(const struct native *p)
{
	const struct isa_row *row = p->in->row;

	for (unsigned i = 0; i < ISA_OPERANDS; i++) {
		if (row->operands[i].kind == ISA_O_GPR_VVVV)
			return p->host[p->in->vvvv];
	}
	return p->in->vvvv;
}

static void op_b(struct native *p, u8 b)
{
	ASSERT(p->op_len < sizeof(p->op));
	p->op[p->op_len++] = b;
}

static void encode_modrm(struct native *p, unsigned reg, unsigned rm)
{
	i32 disp = p->ptr_disp;
	bool is_8 = disp >= -128 && disp <= 127;
	/* rbp and r13 need a displacement, r12 and rsp a SIB byte. */
	unsigned mod = !disp && (rm & 7) != 5 ? 0 : is_8 ? 0x40 : 0x80;

	if (!p->in->is_mem) {
		op_b(p, 0xc0 | (reg & 7) << 3 | (rm & 7));
		return;
	}
	op_b(p, mod | (reg & 7) << 3 | (rm & 7));
	if ((rm & 7) == 4)
		op_b(p, 0x24);
	if (mod == 0x40)
		op_b(p, (u8)disp);
	for (unsigned i = 0; mod == 0x80 && i < 4; i++)
		op_b(p, (u8)((u32)disp >> (8 * i)));
}

static bool has_is4(const struct isa_row *row)
{
	return row->operands[3].kind == ISA_O_XMM_IS4 ||
	       row->operands[2].kind == ISA_O_XMM_IS4;
}

static void encode_imm(struct native *p)
{
	u64 imm = p->in->imm;

	if (p->mode != X86_MODE_64 && has_is4(p->in->row))
		imm &= 0x7f;
	if (p->in->imm_len == 2 && p->in->row->operands[2].kind == ISA_O_IMM2)
		imm = (imm & 0xff) | (u64)p->in->imm2 << 8;
	else if (p->in->imm_len == 2 &&
		 p->in->row->operands[3].kind == ISA_O_IMM2)
		imm = (imm & 0xff) | (u64)p->in->imm2 << 8;
	for (unsigned i = 0; i < p->in->imm_len; i++)
		op_b(p, imm >> (8 * i));
}

static void encode_vex(struct native *p, unsigned reg, unsigned rm)
{
	const struct insn *in = p->in;
	unsigned pp = in->mandatory == 0x66   ? 1
		      : in->mandatory == 0xf3 ? 2
		      : in->mandatory == 0xf2 ? 3
					      : 0;
	unsigned map = in->map - ISA_MAP_VEX_0F + 1;

	op_b(p, 0xc4);
	op_b(p, (reg < 8 ? 0x80 : 0) | 0x40 | (rm < 8 ? 0x20 : 0) | map);
	op_b(p, (in->rex & 8 ? 0x80 : 0) | (~vvvv_field(p) & 15) << 3 |
			in->vex_l << 2 | pp);
	op_b(p, in->opcode);
	encode_modrm(p, reg, rm);
}

static void encode_prefixes(struct native *p, unsigned reg, unsigned rm)
{
	const struct insn *in = p->in;
	const struct isa_row *row = in->row;
	u8 rex = 0;

	if (in->prefixes & X86_P_LOCK)
		op_b(p, 0xf0);
	if (in->mandatory == 0x66 || (in->osize == 2 && has_size_v(row)))
		op_b(p, 0x66);
	if (in->mandatory == 0xf2 || in->mandatory == 0xf3)
		op_b(p, in->mandatory);
	if (in->rex & 8 || (row->attr & (ISA_D64 | ISA_F64) && in->osize == 8))
		rex |= 0x48;
	if (reg >= 8)
		rex |= 0x44;
	if (rm >= 8)
		rex |= 0x41;
	/* SPL to DIL need a REX where AH to BH must have none. */
	if (in->prefixes & X86_P_REX && !p->has_high_byte)
		rex |= 0x40;
	if (rex)
		op_b(p, rex);
}

static void encode_legacy(struct native *p, unsigned reg, unsigned rm)
{
	const struct insn *in = p->in;
	bool is_opc = false;

	for (unsigned i = 0; i < ISA_OPERANDS; i++)
		is_opc |= in->row->operands[i].kind == ISA_O_GPR_OPC;
	encode_prefixes(p, in->has_modrm ? reg : 0,
			in->has_modrm || is_opc ? rm : 0);
	if (in->map == ISA_MAP_1B && (in->opcode & 0xf0) == 0x40) {
		/* INC and DEC of 16- and 32-bit code. */
		op_b(p, 0xff);
		op_b(p, 0xc0 | (in->opcode & 8) | (rm & 7));
		return;
	}
	if (in->map != ISA_MAP_1B && in->map != ISA_MAP_X87)
		op_b(p, 0x0f);
	if (in->map == ISA_MAP_0F38)
		op_b(p, 0x38);
	if (in->map == ISA_MAP_0F3A)
		op_b(p, 0x3a);
	if (in->map == ISA_MAP_1B && in->opcode == 0x82) {
		op_b(p, 0x80); /* its alias outside 64-bit mode */
		encode_modrm(p, reg, rm);
		return;
	}
	op_b(p, is_opc ? (in->opcode & 0xf8) | (rm & 7) : in->opcode);
	if (in->has_modrm)
		encode_modrm(p, reg, rm);
}

static void encode_op(struct native *p)
{
	unsigned reg = reg_field(p);
	unsigned rm = p->in->is_mem ? p->ptr : rm_field(p);

	if (p->is_vex)
		encode_vex(p, reg, rm);
	else
		encode_legacy(p, reg, rm);
	encode_imm(p);
}

/* Of the string comparisons those that leave a mask, in XMM0. */
static bool writes_xmm0(u16 op)
{
	return op == ISA_OP_PCMPESTRM || op == ISA_OP_PCMPISTRM ||
	       op == ISA_OP_VPCMPESTRM || op == ISA_OP_VPCMPISTRM;
}

/* What was encoded is decoded again: the host must see this instruction, over
 * an operand of this size, and nothing behind it. A difference is a bug of the
 * encoder, which must not become host code. */
static bool op_is_sound(const struct native *p)
{
	const struct isa_features all = {.bits = ~0ull, .is_amd = true};
	struct insn back;

	return x86_decode(&back, p->op, p->op_len, X86_MODE_64, &all) ==
		       p->op_len &&
	       back.row->op == p->in->row->op &&
	       back.row->class == p->in->row->class &&
	       back.is_mem == p->in->is_mem && back.mem_size == p->in->mem_size;
}

void native_init(struct native *p, const struct insn *in, enum x86_mode mode)
{
	static const struct native fresh = {
		.host = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
		.ptr = NATIVE_NONE,
	};
	const struct isa_row *row = in->row;

	*p = fresh;
	p->in = in;
	p->mode = mode;
	p->is_vex = in->map >= ISA_MAP_VEX_0F && in->map <= ISA_MAP_VEX_0F3A;
	for (unsigned i = 0; i < ISA_OPERANDS; i++)
		plan_operand(p, &row->operands[i]);
	if (row->attr & ISA_IMPLICIT) {
		p->used |= 0xf; /* rax rcx rdx rbx */
		p->written |= 0xf;
		p->fixed |= 0xf;
	}
	if (writes_xmm0(row->op)) {
		p->xmm_used |= 1;
		p->xmm_written |= 1;
	}
}

bool native_encode(struct native *p)
{
	p->op_len = 0;
	encode_op(p);
	return op_is_sound(p);
}
