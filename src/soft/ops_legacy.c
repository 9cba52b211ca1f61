/* SPDX-License-Identifier: Apache-2.0 */
/* Instructions that 64-bit mode does not have: decimal arithmetic, PUSHA,
 * POPA, BOUND, ARPL, SALC. After SDM 2; the undefined flags are those that
 * AMD processors leave, which take them from the sum inside.
 */
#include "soft/access.h"

#define FLAG_CF	  0x100u
#define FLAG_AF	  0x1000u
#define FLAG_OF	  1u
#define FLAG_ZF	  0x4000u
#define FLAGS_SZP (0x8000u | 0x4000u | 0x400u)

static void put_al(struct vcpu *v, u8 al)
{
	soft_gpr_write(v, X86_RAX, 1, al);
}
static void put_ax(struct vcpu *v, u16 ax)
{
	soft_gpr_write(v, X86_RAX, 2, ax);
}

/* SF, ZF, PF of a byte; the others as in `keep`. */
static void set_szp(struct vcpu *v, u8 value, u32 keep)
{

	soft_compare(v, value, 0, 1);
	v->aflags =
		(v->aflags & FLAGS_SZP) | 0x200 | (keep & ~(FLAGS_SZP | 0x200));
}

/* All flags of the byte sum a + b or difference a - b. */
static u8 sum_flags(struct vcpu *v, u8 a, u8 b, bool is_add)
{
	u8 r = is_add ? a + b : a - b;
	u8 overflow = (a ^ r) & ((is_add ? b : (u8)~b) ^ r) & 0x80;
	bool carry = is_add ? r < a : a < b;

	set_szp(v, r,
		(carry ? FLAG_CF : 0) | (((a ^ b ^ r) & 0x10) ? FLAG_AF : 0) |
			(overflow ? FLAG_OF : 0));
	return r;
}

static void put_flags(struct vcpu *v, u32 mask, bool af, bool cf)
{
	v->aflags =
		(v->aflags & ~mask) | (af ? FLAG_AF : 0) | (cf ? FLAG_CF : 0);
}

/* SF, ZF, PF, OF are of the 16-bit sum before AL's upper half is cleared. */
static void op_aaa_aas(struct vcpu *v, const struct insn *in)
{
	u16 ax = v->gpr[X86_RAX], old = ax;
	bool carry = (ax & 15) > 9 || v->aflags & FLAG_AF;
	bool is_add = in->row->op == ISA_OP_AAA;
	u16 overflow;

	if (carry)
		ax = is_add ? ax + 0x106 : ax - 0x106;
	overflow = (old ^ ax) & (is_add ? ax : ~ax) & 0x8000;
	soft_compare(v, ax, 0, 2);
	v->aflags = (v->aflags & FLAGS_SZP) | 0x200 | (overflow ? FLAG_OF : 0);
	put_flags(v, FLAG_AF | FLAG_CF, carry, carry);
	put_ax(v, ax & 0xff0f);
}

static void op_daa_das(struct vcpu *v, const struct insn *in)
{
	u8 al = v->gpr[X86_RAX], adjust = 0;
	bool cf = v->aflags & FLAG_CF, out_cf = false, af = false;
	bool is_add = in->row->op == ISA_OP_DAA;

	if ((al & 15) > 9 || v->aflags & FLAG_AF) {
		out_cf = cf || (is_add ? al > 0xff - 6 : al < 6);
		adjust = 6;
		af = true;
	}
	if (al > 0x99 || cf) {
		adjust += 0x60;
		out_cf = true;
	} else if (is_add) {
		out_cf = false;
	}
	put_al(v, sum_flags(v, al, adjust, is_add));
	put_flags(v, FLAG_AF | FLAG_CF, af, out_cf);
}

static void op_aam(struct vcpu *v, const struct insn *in)
{
	u8 base = in->imm, al = v->gpr[X86_RAX];

	if (!base)
		soft_raise(v, X86_VEC_DE);
	put_ax(v, (u16)(al / base) << 8 | al % base);
	set_szp(v, al % base, 0);
}

static void op_aad(struct vcpu *v, const struct insn *in)
{
	u16 ax = v->gpr[X86_RAX];

	put_ax(v, sum_flags(v, (u8)ax, (ax >> 8) * (u8)in->imm, true));
}

static void op_salc(struct vcpu *v, const struct insn *in)
{
	put_al(v, soft_cf(v) ? 0xff : 0);
}

static void op_pusha(struct vcpu *v, const struct insn *in)
{
	unsigned n = in->osize;
	u64 m = soft_mask(v->stack_size), sp = v->gpr[X86_RSP];

	for (int pass = 0; pass < 2; pass++) {
		for (unsigned i = 0; i < 8; i++) {
			gva_t va = soft_lin(v, X86_SS, (sp - (i + 1) * n) & m,
					    n, SOFT_W);

			if (pass)
				soft_lin_write(v, va, n, v->gpr[i]);
			else
				soft_probe(v, va, n, SOFT_W);
		}
	}
	soft_gpr_write(v, X86_RSP, v->stack_size, sp - 8 * n);
}

static void op_popa(struct vcpu *v, const struct insn *in)
{
	unsigned n = in->osize;
	u64 m = soft_mask(v->stack_size), sp = v->gpr[X86_RSP], value[8];

	for (unsigned i = 0; i < 8; i++)
		value[7 - i] = soft_lin_read(
			v, soft_lin(v, X86_SS, (sp + i * n) & m, n, SOFT_R), n);
	for (unsigned i = 0; i < 8; i++) {
		if (i != X86_RSP)
			soft_gpr_write(v, i, n, value[i]);
	}
	soft_gpr_write(v, X86_RSP, v->stack_size, sp + 8 * n);
}

static void op_bound(struct vcpu *v, const struct insn *in)
{
	unsigned n = in->osize;
	u64 ea = soft_entry_ea(v, soft_entry_of(in));
	gva_t va = soft_lin(v, in->seg, ea, 2 * n, SOFT_R);
	i64 low, high, index;

	low = (i64)soft_lin_read(v, va, n);
	high = (i64)soft_lin_read(v, va + n, n);
	index = (i64)soft_gpr_read(v, in->reg, n);
	if (n == 2) {
		low = (i16)low;
		high = (i16)high;
		index = (i16)index;
	} else {
		low = (i32)low;
		high = (i32)high;
		index = (i32)index;
	}
	if (index < low || index > high)
		soft_raise(v, X86_VEC_BR);
}

static void op_arpl(struct vcpu *v, const struct insn *in)
{
	struct soft_entry *e = soft_entry_of(in);
	u16 dst = in->is_mem ? soft_mem_read(v, e, 2) : v->gpr[in->rm];
	u16 src = v->gpr[in->reg];
	bool adjusts = (dst & 3) < (src & 3);

	if (adjusts)
		dst = (dst & ~3) | (src & 3);
	/* Memory that need not change may be read-only. */
	if (adjusts && in->is_mem)
		soft_mem_write(v, e, 2, dst);
	else if (adjusts)
		soft_gpr_write(v, in->rm, 2, dst);
	v->aflags = (v->aflags & ~FLAG_ZF) | (adjusts ? FLAG_ZF : 0);
}

const struct soft_op_entry soft_ops_legacy[] = {
	{ISA_OP_AAA, op_aaa_aas}, {ISA_OP_AAS, op_aaa_aas},
	{ISA_OP_DAA, op_daa_das}, {ISA_OP_DAS, op_daa_das},
	{ISA_OP_AAM, op_aam},	  {ISA_OP_AAD, op_aad},
	{ISA_OP_SALC, op_salc},	  {ISA_OP_PUSHA, op_pusha},
	{ISA_OP_POPA, op_popa},	  {ISA_OP_BOUND, op_bound},
	{ISA_OP_ARPL, op_arpl},	  {0, NULL},
};
