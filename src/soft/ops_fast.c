/* SPDX-License-Identifier: Apache-2.0 */
/* C handlers for the forms that make up most of what runs.
 *
 * THEORY. Arithmetic is the host's own instruction in inline assembly,
 * followed by `lahf; seto al`, so flags are exact by construction. Handlers
 * are made by macros for each operation, size and place of the operands:
 *
 *	RR  register a := a op register b
 *	RI  register a := a op immediate
 *	RM  register a := a op memory
 *	MR  memory := memory op register b
 *	MI  memory := memory op immediate
 *
 * soft_fast_pick() chooses by opcode and sets e->a and e->b, which are byte
 * offsets of the registers, AH included. What it does not know (LOCK, a
 * read-modify-write whose page is not writable straight away) goes to the
 * native stub.
 */
#include "soft/access.h"

#define REG(off, type) (*(type *)((u8 *)v + (off)))

/* Register write with the extension rule of its size. */
#define PUT_1(off, value) (REG(off, u8) = (value))
#define PUT_2(off, value) (REG(off, u16) = (value))
#define PUT_4(off, value) (REG(off, u64) = (u32)(value))
#define PUT_8(off, value) (REG(off, u64) = (value))

#define T_1 u8
#define T_2 u16
#define T_4 u32
#define T_8 u64

/* Two-operand arithmetic; in_cf puts the guest's CF into the host's. */
/* in_cf is "" or CF_IN. */
#define ALU_ASM(name, sfx, type, insn, in_cf)                                  \
	static inline type alu_##name##_##sfx(struct vcpu *v, type d, type s)  \
	{                                                                      \
		u32 f = sizeof(in_cf) > 1 ? v->aflags : 0;                     \
                                                                               \
		__asm__(in_cf insn " %2, %1\n\tlahf\n\tseto %%al"              \
			: "+&a"(f), "+q"(d)                                    \
			: "q"(s)                                               \
			: "cc");                                               \
		v->aflags = (u16)f;                                            \
		return d;                                                      \
	}
#define CF_IN "bt $8, %%eax\n\t"
#define ALU_SIZES(name, insn, in_cf)                                           \
	ALU_ASM(name, 1, u8, insn "b", in_cf)                                  \
	ALU_ASM(name, 2, u16, insn "w", in_cf)                                 \
	ALU_ASM(name, 4, u32, insn "l", in_cf)                                 \
	ALU_ASM(name, 8, u64, insn "q", in_cf)

ALU_SIZES(add, "add", "")
ALU_SIZES(or, "or", "")
ALU_SIZES(adc, "adc", CF_IN)
ALU_SIZES(sbb, "sbb", CF_IN)
ALU_SIZES(and, "and", "")
ALU_SIZES(sub, "sub", "")
ALU_SIZES(xor, "xor", "")
ALU_SIZES(cmp, "cmp", "")
ALU_SIZES(test, "test", "")

#define FORMS_W(name, n)                                                       \
	static void name##_rr_##n(struct vcpu *v, const struct insn *in)       \
	{                                                                      \
		struct soft_entry *e = soft_entry_of(in);                      \
		PUT_##n(e->a, alu_##name##_##n(v, REG(e->a, T_##n),            \
					       REG(e->b, T_##n)));             \
	}                                                                      \
	static void name##_ri_##n(struct vcpu *v, const struct insn *in)       \
	{                                                                      \
		struct soft_entry *e = soft_entry_of(in);                      \
		PUT_##n(e->a,                                                  \
			alu_##name##_##n(v, REG(e->a, T_##n), (T_##n)e->imm)); \
	}                                                                      \
	static void name##_rm_##n(struct vcpu *v, const struct insn *in)       \
	{                                                                      \
		struct soft_entry *e = soft_entry_of(in);                      \
		T_##n s = soft_mem_read(v, e, n);                              \
		PUT_##n(e->a, alu_##name##_##n(v, REG(e->a, T_##n), s));       \
	}                                                                      \
	static void name##_mr_##n(struct vcpu *v, const struct insn *in)       \
	{                                                                      \
		struct soft_entry *e = soft_entry_of(in);                      \
		u8 *p = soft_fast_w(v, e, n);                                  \
		if (unlikely(!p)) {                                            \
			soft_op_pass_mem(v, in);                               \
			return;                                                \
		}                                                              \
		soft_st(p, n,                                                  \
			alu_##name##_##n(v, soft_ld(p, n), REG(e->b, T_##n))); \
	}                                                                      \
	static void name##_mi_##n(struct vcpu *v, const struct insn *in)       \
	{                                                                      \
		struct soft_entry *e = soft_entry_of(in);                      \
		u8 *p = soft_fast_w(v, e, n);                                  \
		if (unlikely(!p)) {                                            \
			soft_op_pass_mem(v, in);                               \
			return;                                                \
		}                                                              \
		soft_st(p, n,                                                  \
			alu_##name##_##n(v, soft_ld(p, n), (T_##n)e->imm));    \
	}
/* CMP and TEST write flags only. */
#define FORMS_F(name, n)                                                       \
	static void name##_rr_##n(struct vcpu *v, const struct insn *in)       \
	{                                                                      \
		struct soft_entry *e = soft_entry_of(in);                      \
		alu_##name##_##n(v, REG(e->a, T_##n), REG(e->b, T_##n));       \
	}                                                                      \
	static void name##_ri_##n(struct vcpu *v, const struct insn *in)       \
	{                                                                      \
		struct soft_entry *e = soft_entry_of(in);                      \
		alu_##name##_##n(v, REG(e->a, T_##n), (T_##n)e->imm);          \
	}                                                                      \
	static void name##_rm_##n(struct vcpu *v, const struct insn *in)       \
	{                                                                      \
		struct soft_entry *e = soft_entry_of(in);                      \
		T_##n s = soft_mem_read(v, e, n);                              \
		alu_##name##_##n(v, REG(e->a, T_##n), s);                      \
	}                                                                      \
	static void name##_mr_##n(struct vcpu *v, const struct insn *in)       \
	{                                                                      \
		struct soft_entry *e = soft_entry_of(in);                      \
		alu_##name##_##n(v, soft_mem_read(v, e, n), REG(e->b, T_##n)); \
	}                                                                      \
	static void name##_mi_##n(struct vcpu *v, const struct insn *in)       \
	{                                                                      \
		struct soft_entry *e = soft_entry_of(in);                      \
		alu_##name##_##n(v, soft_mem_read(v, e, n), (T_##n)e->imm);    \
	}
#define ALL_SIZES(forms, name)                                                 \
	forms(name, 1) forms(name, 2) forms(name, 4) forms(name, 8)

ALL_SIZES(FORMS_W, add)
ALL_SIZES(FORMS_W, or)
ALL_SIZES(FORMS_W, adc)
ALL_SIZES(FORMS_W, sbb)
ALL_SIZES(FORMS_W, and)
ALL_SIZES(FORMS_W, sub)
ALL_SIZES(FORMS_W, xor)
ALL_SIZES(FORMS_F, cmp)
ALL_SIZES(FORMS_F, test)

void soft_compare(struct vcpu *v, u64 a, u64 b, unsigned n)
{
	switch (n) {
	case 1:
		alu_cmp_1(v, a, b);
		break;
	case 2:
		alu_cmp_2(v, a, b);
		break;
	case 4:
		alu_cmp_4(v, a, b);
		break;
	default:
		alu_cmp_8(v, a, b);
	}
}

/* INC, DEC, NEG of registers. */
#define UNARY(name, n, sfx)                                                    \
	static void name##_r_##n(struct vcpu *v, const struct insn *in)        \
	{                                                                      \
		struct soft_entry *e = soft_entry_of(in);                      \
		T_##n d = REG(e->a, T_##n);                                    \
		u32 f = v->aflags;                                             \
                                                                               \
		__asm__(CF_IN #name sfx " %1\n\tlahf\n\tseto %%al"             \
			: "+&a"(f), "+q"(d)                                    \
			:                                                      \
			: "cc");                                               \
		v->aflags = (u16)f;                                            \
		PUT_##n(e->a, d);                                              \
	}
#define UNARY_SIZES(name)                                                      \
	UNARY(name, 1, "b")                                                    \
	UNARY(name, 2, "w")                                                    \
	UNARY(name, 4, "l")                                                    \
	UNARY(name, 8, "q")
UNARY_SIZES(inc)
UNARY_SIZES(dec)
UNARY_SIZES(neg)

/* Shifts by a non-zero immediate of a 32- or 64-bit register. The count is
 * in CL for the host; with the count not zero all flags are written, but for
 * AF and sometimes OF, which stay as the host has them. */
#define SHIFT(name, n, sfx)                                                    \
	static void name##_i_##n(struct vcpu *v, const struct insn *in)        \
	{                                                                      \
		struct soft_entry *e = soft_entry_of(in);                      \
		T_##n d = REG(e->a, T_##n);                                    \
		u32 f = v->aflags;                                             \
                                                                               \
		__asm__("add $0x7f, %%al\n\tsahf\n\t" #name sfx                \
			" %%cl, %1\n\tlahf\n\tseto %%al"                       \
			: "+&a"(f), "+r"(d)                                    \
			: "c"((u8)e->imm)                                      \
			: "cc");                                               \
		v->aflags = (u16)f;                                            \
		PUT_##n(e->a, d);                                              \
	}
SHIFT(shl, 4, "l")
SHIFT(shl, 8, "q")
SHIFT(shr, 4, "l")
SHIFT(shr, 8, "q")
SHIFT(sar, 4, "l")
SHIFT(sar, 8, "q")

/* ---- moves ---- */

#define MOVES(n)                                                               \
	static void mov_rr_##n(struct vcpu *v, const struct insn *in)          \
	{                                                                      \
		struct soft_entry *e = soft_entry_of(in);                      \
		PUT_##n(e->a, REG(e->b, T_##n));                               \
	}                                                                      \
	static void mov_ri_##n(struct vcpu *v, const struct insn *in)          \
	{                                                                      \
		struct soft_entry *e = soft_entry_of(in);                      \
		PUT_##n(e->a, e->imm);                                         \
	}                                                                      \
	static void mov_rm_##n(struct vcpu *v, const struct insn *in)          \
	{                                                                      \
		struct soft_entry *e = soft_entry_of(in);                      \
		PUT_##n(e->a, soft_mem_read(v, e, n));                         \
	}                                                                      \
	static void mov_mr_##n(struct vcpu *v, const struct insn *in)          \
	{                                                                      \
		struct soft_entry *e = soft_entry_of(in);                      \
		soft_mem_write(v, e, n, REG(e->b, T_##n));                     \
	}                                                                      \
	static void mov_mi_##n(struct vcpu *v, const struct insn *in)          \
	{                                                                      \
		struct soft_entry *e = soft_entry_of(in);                      \
		soft_mem_write(v, e, n, (T_##n)e->imm);                        \
	}                                                                      \
	static void mov_ao_##n(struct vcpu *v, const struct insn *in)          \
	{                                                                      \
		gva_t va =                                                     \
			soft_lin(v, in->seg, in->imm & soft_mask(in->asize),   \
				 n, SOFT_R);                                   \
		PUT_##n(offsetof(struct vcpu, gpr), soft_lin_read(v, va, n));  \
	}                                                                      \
	static void mov_oa_##n(struct vcpu *v, const struct insn *in)          \
	{                                                                      \
		gva_t va =                                                     \
			soft_lin(v, in->seg, in->imm & soft_mask(in->asize),   \
				 n, SOFT_W);                                   \
		soft_lin_write(v, va, n,                                       \
			       REG(offsetof(struct vcpu, gpr), T_##n));        \
	}                                                                      \
	static void lea_##n(struct vcpu *v, const struct insn *in)             \
	{                                                                      \
		struct soft_entry *e = soft_entry_of(in);                      \
		PUT_##n(e->a, soft_entry_ea(v, e));                            \
	}
MOVES(1)
MOVES(2)
MOVES(4)
MOVES(8)

/* MOVZX, MOVSX, MOVSXD: s is the source's type and size. */
#define EXTEND(name, n, stype, sn)                                             \
	static void name##sn##_r_##n(struct vcpu *v, const struct insn *in)    \
	{                                                                      \
		struct soft_entry *e = soft_entry_of(in);                      \
		PUT_##n(e->a, REG(e->b, stype));                               \
	}                                                                      \
	static void name##sn##_m_##n(struct vcpu *v, const struct insn *in)    \
	{                                                                      \
		struct soft_entry *e = soft_entry_of(in);                      \
		PUT_##n(e->a, (stype)soft_mem_read(v, e, sn));                 \
	}
EXTEND(movzx, 2, u8, 1)
EXTEND(movzx, 4, u8, 1)
EXTEND(movzx, 8, u8, 1)
EXTEND(movzx, 2, u16, 2)
EXTEND(movzx, 4, u16, 2)
EXTEND(movzx, 8, u16, 2)
EXTEND(movsx, 2, i8, 1)
EXTEND(movsx, 4, i8, 1)
EXTEND(movsx, 8, i8, 1)
EXTEND(movsx, 2, i16, 2)
EXTEND(movsx, 4, i16, 2)
EXTEND(movsx, 8, i16, 2)
EXTEND(movsx, 2, i32, 4)
EXTEND(movsx, 4, i32, 4)
EXTEND(movsx, 8, i32, 4)

/* ---- stack, 64-bit ---- */

static void push_r8(struct vcpu *v, const struct insn *in)
{
	u64 sp = v->gpr[X86_RSP] - 8;
	u8 *p = soft_tlb_w(v, sp, 8);
	u64 value = REG(soft_entry_of(in)->a, u64);

	if (unlikely(!p)) {
		soft_push(v, value, 8);
		return;
	}
	st_le64(p, value);
	v->gpr[X86_RSP] = sp;
}

static void pop_r8(struct vcpu *v, const struct insn *in)
{
	u64 sp = v->gpr[X86_RSP];
	u8 *p = soft_tlb_r(v, sp, 8);
	u64 value;

	if (unlikely(!p)) {
		value = soft_pop(v, 8);
	} else {
		value = ld_le64(p);
		v->gpr[X86_RSP] = sp + 8;
	}
	REG(soft_entry_of(in)->a, u64) =
		value; /* POP RSP: the popped value stays */
}

/* ---- branches, 64-bit ---- */

static inline u64 rel_target(struct vcpu *v, const struct soft_entry *e)
{
	u64 target = v->next_rip + e->imm;

	if (unlikely(!soft_is_canonical(target)))
		soft_gp(v, 0);
	return target;
}

static void jmp_rel_8(struct vcpu *v, const struct insn *in)
{
	v->next_rip = rel_target(v, soft_entry_of(in));
}

static void call_rel_8(struct vcpu *v, const struct insn *in)
{
	u64 target = rel_target(v, soft_entry_of(in));
	u64 sp = v->gpr[X86_RSP] - 8;
	u8 *p = soft_tlb_w(v, sp, 8);

	if (likely(p != NULL)) {
		st_le64(p, v->next_rip);
		v->gpr[X86_RSP] = sp;
	} else {
		soft_push(v, v->next_rip, 8);
	}
	v->next_rip = target;
}

static void ret_8(struct vcpu *v, const struct insn *in)
{
	u64 sp = v->gpr[X86_RSP], target;
	u8 *p = soft_tlb_r(v, sp, 8);

	target = likely(p != NULL)
			 ? ld_le64(p)
			 : soft_lin_read(v, soft_lin(v, X86_SS, sp, 8, SOFT_R),
					 8);
	if (unlikely(!soft_is_canonical(target)))
		soft_gp(v, 0);
	v->gpr[X86_RSP] = sp + 8;
	v->next_rip = target;
}

/* ---- conditions ---- */

#define CMOV(cc)                                                               \
	static void cmov_r_##cc(struct vcpu *v, const struct insn *in)         \
	{                                                                      \
		struct soft_entry *e = soft_entry_of(in);                      \
		u64 s = REG(e->b, u64), d = REG(e->a, u64);                    \
                                                                               \
		REG(e->a, u64) = (soft_condition(v, cc) ? s : d) &             \
				 (~0ull >> e->amask_shift);                    \
	}
CMOV(0)
CMOV(1)
CMOV(2)
CMOV(3) CMOV(4) CMOV(5) CMOV(6) CMOV(7) CMOV(8) CMOV(9) CMOV(10) CMOV(11)
	CMOV(12) CMOV(13) CMOV(14) CMOV(15)

		static void op_setcc_reg(struct vcpu *v, const struct insn *in)
{
	struct soft_entry *e = soft_entry_of(in);

	REG(e->a, u8) = soft_condition(v, in->opcode & 15);
}

#define JCC(cc)                                                                \
	static void jcc_##cc(struct vcpu *v, const struct insn *in)            \
	{                                                                      \
		u64 target = v->next_rip + soft_entry_of(in)->imm;             \
                                                                               \
		if (!soft_condition(v, cc))                                    \
			return;                                                \
		if (unlikely(!soft_is_canonical(target)))                      \
			soft_gp(v, 0);                                         \
		v->next_rip = target;                                          \
	}
JCC(0)
JCC(1)
JCC(2)
JCC(3)
JCC(4) JCC(5) JCC(6) JCC(7) JCC(8) JCC(9) JCC(10) JCC(11) JCC(12) JCC(13)
	JCC(14) JCC(15)

	/* ---- choosing ---- */

	enum form {
		RR,
		RI,
		RM,
		MR,
		MI
	};
// clang-format off
#define SIZES(name, form) \
	{ name##_##form##_1, name##_##form##_2, name##_##form##_4, \
	  name##_##form##_8 }
#define ROW(name) \
	{ SIZES(name, rr), SIZES(name, ri), SIZES(name, rm), \
	  SIZES(name, mr), SIZES(name, mi) }
static const soft_op_fn alu_table[8][5][4] = {
	ROW(add), ROW(or), ROW(adc), ROW(sbb),
	ROW(and), ROW(sub), ROW(xor), ROW(cmp),
};
static const soft_op_fn test_table[5][4] = ROW(test);
static const soft_op_fn mov_table[5][4] = ROW(mov);
static const soft_op_fn inc_table[4] = SIZES(inc, r);
static const soft_op_fn dec_table[4] = SIZES(dec, r);
static const soft_op_fn neg_table[4] = SIZES(neg, r);
static const soft_op_fn mov_ao_table[4] =
	{ mov_ao_1, mov_ao_2, mov_ao_4, mov_ao_8 };
static const soft_op_fn mov_oa_table[4] =
	{ mov_oa_1, mov_oa_2, mov_oa_4, mov_oa_8 };
static const soft_op_fn lea_table[4] = { lea_1, lea_2, lea_4, lea_8 };
/* [source is memory][destination 2, 4, 8] */
static const soft_op_fn movzx1_table[2][3] = {
	{ movzx1_r_2, movzx1_r_4, movzx1_r_8 },
	{ movzx1_m_2, movzx1_m_4, movzx1_m_8 } };
static const soft_op_fn movzx2_table[2][3] = {
	{ movzx2_r_2, movzx2_r_4, movzx2_r_8 },
	{ movzx2_m_2, movzx2_m_4, movzx2_m_8 } };
static const soft_op_fn movsx1_table[2][3] = {
	{ movsx1_r_2, movsx1_r_4, movsx1_r_8 },
	{ movsx1_m_2, movsx1_m_4, movsx1_m_8 } };
static const soft_op_fn movsx2_table[2][3] = {
	{ movsx2_r_2, movsx2_r_4, movsx2_r_8 },
	{ movsx2_m_2, movsx2_m_4, movsx2_m_8 } };
static const soft_op_fn movsx4_table[2][3] = {
	{ movsx4_r_2, movsx4_r_4, movsx4_r_8 },
	{ movsx4_m_2, movsx4_m_4, movsx4_m_8 } };
static const soft_op_fn cmov_table[16] = {
	cmov_r_0, cmov_r_1, cmov_r_2, cmov_r_3, cmov_r_4, cmov_r_5, cmov_r_6,
	cmov_r_7, cmov_r_8, cmov_r_9, cmov_r_10, cmov_r_11, cmov_r_12,
	cmov_r_13, cmov_r_14, cmov_r_15 };
static const soft_op_fn jcc_table[16] = {
	jcc_0, jcc_1, jcc_2, jcc_3, jcc_4, jcc_5, jcc_6, jcc_7,
	jcc_8, jcc_9, jcc_10, jcc_11, jcc_12, jcc_13, jcc_14, jcc_15 };
// clang-format on

static unsigned size_index(unsigned n)
{
	return n == 1 ? 0 : n == 2 ? 1 : n == 4 ? 2 : 3;
}

/* Sets e->a and e->b for a form with ModRM; `is_load`: register := r/m. */
static enum form modrm_form(struct soft_entry *e, unsigned n, bool is_load)
{
	const struct insn *in = &e->insn;
	unsigned reg = soft_reg_offset(in, in->reg, n);

	if (in->is_mem) {
		e->a = e->b = reg;
		return is_load ? RM : MR;
	}
	e->a = is_load ? reg : soft_reg_offset(in, in->rm, n);
	e->b = is_load ? soft_reg_offset(in, in->rm, n) : reg;
	return RR;
}
static enum form imm_form(struct soft_entry *e, unsigned n)
{
	const struct insn *in = &e->insn;

	if (in->is_mem)
		return MI;
	e->a = soft_reg_offset(in, in->rm, n);
	return RI;
}

static soft_op_fn pick_alu(struct soft_entry *e, u8 op, unsigned n)
{
	const soft_op_fn(*t)[4] = alu_table[op >> 3 & 7];
	unsigned s = size_index(n);

	if ((op & 7) >= 4) { /* AL/eAX, imm */
		e->a = offsetof(struct vcpu, gpr);
		return t[RI][s];
	}
	return t[modrm_form(e, n, op & 2)][s];
}

static soft_op_fn pick_group3(struct soft_entry *e, unsigned n)
{
	const struct insn *in = &e->insn;

	switch (in->modrm >> 3 & 7) {
	case 0:
	case 1:
		return test_table[imm_form(e, n)][size_index(n)];
	case 3:
		if (in->is_mem)
			return NULL;
		e->a = soft_reg_offset(in, in->rm, n);
		return neg_table[size_index(n)];
	default:
		return NULL;
	}
}

static soft_op_fn pick_group45(struct soft_entry *e, unsigned n)
{
	const struct insn *in = &e->insn;
	unsigned op = in->modrm >> 3 & 7;

	if (in->is_mem || op > 1)
		return NULL;
	e->a = soft_reg_offset(in, in->rm, n);
	return op ? dec_table[size_index(n)] : inc_table[size_index(n)];
}

static soft_op_fn pick_shift(struct soft_entry *e, u64 count)
{
	const struct insn *in = &e->insn;
	bool is_8 = in->osize == 8;

	if (in->is_mem || in->osize < 4 || !(count & (is_8 ? 63 : 31)))
		return NULL;
	e->imm = count;
	e->a = soft_reg_offset(in, in->rm, in->osize);
	switch (in->modrm >> 3 & 7) {
	case 4:
		return is_8 ? shl_i_8 : shl_i_4;
	case 5:
		return is_8 ? shr_i_8 : shr_i_4;
	case 7:
		return is_8 ? sar_i_8 : sar_i_4;
	default:
		return NULL;
	}
}

/* Destination ModRM.reg of osize, source r/m of n bytes. */
static soft_op_fn pick_extend(struct soft_entry *e,
			      const soft_op_fn table[2][3], unsigned n)
{
	const struct insn *in = &e->insn;

	e->a = soft_reg_offset(in, in->reg, in->osize);
	if (!in->is_mem)
		e->b = soft_reg_offset(in, in->rm, n);
	return table[in->is_mem][size_index(in->osize) - 1];
}

static soft_op_fn pick_1b(struct soft_entry *e)
{
	const struct insn *in = &e->insn;
	u8 op = in->opcode;
	unsigned n = op & 1 ? in->osize : 1;
	unsigned s = size_index(n);
	bool is_64 = e->mode == X86_MODE_64;
	bool is_near64 = is_64 && in->osize == 8; /* branches */

	if (op < 0x40 && (op & 7) < 6)
		return pick_alu(e, op, n);
	switch (op) {
	case 0x50 ... 0x57:
		e->a = soft_reg_offset(in, in->rm, 8);
		return is_64 && in->osize == 8 ? push_r8 : NULL;
	case 0x58 ... 0x5f:
		e->a = soft_reg_offset(in, in->rm, 8);
		return is_64 && in->osize == 8 ? pop_r8 : NULL;
	case 0x63:
		if (!is_64)
			return NULL;
		return pick_extend(e, movsx4_table, 4);
	case 0x70 ... 0x7f:
		return is_near64 ? jcc_table[op & 15] : NULL;
	case 0x80:
	case 0x81:
	case 0x82:
	case 0x83:
		return alu_table[in->modrm >> 3 & 7][imm_form(e, n)][s];
	case 0x84:
	case 0x85:
		return test_table[modrm_form(e, n, false)][s];
	case 0x88 ... 0x8b:
		return mov_table[modrm_form(e, n, op & 2)][s];
	case 0x8d:
		e->a = soft_reg_offset(in, in->reg, in->osize);
		return lea_table[size_index(in->osize)];
	case 0xa0:
	case 0xa1:
		return mov_ao_table[s];
	case 0xa2:
	case 0xa3:
		return mov_oa_table[s];
	case 0xa8:
	case 0xa9:
		e->a = offsetof(struct vcpu, gpr);
		return test_table[RI][s];
	case 0xb0 ... 0xb7:
		e->a = soft_reg_offset(in, in->rm, 1);
		return mov_ri_1;
	case 0xb8 ... 0xbf:
		e->a = soft_reg_offset(in, in->rm, in->osize);
		return mov_table[RI][size_index(in->osize)];
	case 0xc1:
		return pick_shift(e, (u8)in->imm);
	case 0xd1:
		return pick_shift(e, 1);
	case 0xc3:
		return is_near64 ? ret_8 : NULL;
	case 0xe8:
		return is_near64 ? call_rel_8 : NULL;
	case 0xe9:
	case 0xeb:
		return is_near64 ? jmp_rel_8 : NULL;
	case 0xc6:
	case 0xc7:
		if (in->row->op != ISA_OP_MOV)
			return NULL;
		return mov_table[imm_form(e, n)][s];
	case 0xf6:
	case 0xf7:
		return pick_group3(e, n);
	case 0xfe:
	case 0xff:
		return pick_group45(e, n);
	default:
		return NULL;
	}
}

static soft_op_fn pick_0f(struct soft_entry *e)
{
	const struct insn *in = &e->insn;

	switch (in->opcode) {
	case 0x40 ... 0x4f:
		if (in->is_mem || in->osize == 2)
			return NULL;
		modrm_form(e, in->osize, true);
		e->amask_shift = 64 - 8 * in->osize; /* of the register */
		return cmov_table[in->opcode & 15];
	case 0x80 ... 0x8f:
		return e->mode == X86_MODE_64 && in->osize == 8
			       ? jcc_table[in->opcode & 15]
			       : NULL;
	case 0x90 ... 0x9f:
		if (in->is_mem)
			return NULL;
		e->a = soft_reg_offset(in, in->rm, 1);
		return op_setcc_reg;
	case 0xb6:
		return pick_extend(e, movzx1_table, 1);
	case 0xb7:
		return pick_extend(e, movzx2_table, 2);
	case 0xbe:
		return pick_extend(e, movsx1_table, 1);
	case 0xbf:
		return pick_extend(e, movsx2_table, 2);
	default:
		return NULL;
	}
}

soft_op_fn soft_fast_pick(struct soft_entry *e)
{
	if (e->insn.prefixes & X86_P_LOCK)
		return NULL;
	if (e->insn.map == ISA_MAP_1B)
		return pick_1b(e);
	if (e->insn.map == ISA_MAP_0F)
		return pick_0f(e);
	return NULL;
}
