/* SPDX-License-Identifier: Apache-2.0 */
/* Instructions whose memory operand is not the plain ModRM one: the stack,
 * bit strings, XLAT, CMPXCHG8B/16B, masked moves and gathers.
 *
 * Two-access instructions check the second access before the first one is
 * made visible; rSP changes last.
 */
#include "soft/access.h"

#define XMM_AT(v, n) ((v)->xsave + 160 + 16 * (n))
#define YMM_AT(v, n) ((v)->xsave + 576 + 16 * (n))

/* ---- stack ---- */

/* The linear address of SS:[sp + delta], wrapped to the stack's size. */
static gva_t stack_lin(struct vcpu *v, u64 sp, i64 delta, size_t n,
		       unsigned how)
{
	return soft_lin(v, X86_SS, (sp + delta) & soft_mask(v->stack_size), n,
			how);
}
static void stack_add(struct vcpu *v, i64 delta)
{
	soft_gpr_write(v, X86_RSP, v->stack_size, v->gpr[X86_RSP] + delta);
}
static u64 stack_peek(struct vcpu *v, unsigned n)
{
	return soft_lin_read(v, stack_lin(v, v->gpr[X86_RSP], 0, n, SOFT_R), n);
}

static void op_push_rm(struct vcpu *v, const struct insn *in)
{
	u64 value = in->is_mem ? soft_mem_read(v, soft_entry_of(in), in->osize)
			       : soft_gpr_read(v, in->rm, in->osize);

	soft_push(v, value, in->osize);
}
static void op_push_reg(struct vcpu *v, const struct insn *in)
{
	soft_push(v, soft_gpr_read(v, in->rm, in->osize), in->osize);
}
static void op_push_imm(struct vcpu *v, const struct insn *in)
{
	soft_push(v, in->imm & soft_mask(in->osize), in->osize);
}

static void op_pop_rm(struct vcpu *v, const struct insn *in)
{
	u64 value = stack_peek(v, in->osize);
	u64 old = v->gpr[X86_RSP];

	if (!in->is_mem) {
		stack_add(v, in->osize);
		soft_gpr_write(v, in->rm, in->osize, value);
		return;
	}
	/* The address is computed with rSP already moved (SDM 2 "POP"). */
	stack_add(v, in->osize);
	u64 moved = v->gpr[X86_RSP];
	u64 ea = soft_entry_ea(v, soft_entry_of(in));

	v->gpr[X86_RSP] = old;
	soft_lin_write(v, soft_lin(v, in->seg, ea, in->osize, SOFT_W),
		       in->osize, value);
	v->gpr[X86_RSP] = moved;
}
static void op_pop_reg(struct vcpu *v, const struct insn *in)
{
	u64 value = stack_peek(v, in->osize);

	stack_add(v, in->osize);
	soft_gpr_write(v, in->rm, in->osize, value);
}

static unsigned fixed_seg(const struct insn *in)
{
	for (unsigned i = 0; i < ISA_OPERANDS; i++) {
		if (in->row->operands[i].kind == ISA_O_SEG_FIXED)
			return in->row->operands[i].reg;
	}
	return X86_DS;
}
static void op_push_seg(struct vcpu *v, const struct insn *in)
{
	soft_push(v, v->segs[fixed_seg(in)].sel, in->osize);
}
static void op_pop_seg(struct vcpu *v, const struct insn *in)
{
	unsigned seg = fixed_seg(in);
	u16 sel = stack_peek(v, in->osize);
	u64 sp = v->gpr[X86_RSP] + in->osize;
	unsigned size = v->stack_size;

	soft_load_seg(v, seg, sel);
	soft_gpr_write(v, X86_RSP, size, sp);
	if (seg == X86_SS)
		v->shadow = SHADOW_MOV_SS;
}

static void op_enter(struct vcpu *v, const struct insn *in)
{
	unsigned n = in->osize, level = in->imm2 & 31;
	unsigned pushes = level ? level + 1 : 1;
	u64 sp = v->gpr[X86_RSP], bp = v->gpr[X86_RBP];
	u64 frame = (sp - n) & soft_mask(v->stack_size), value;
	u64 last = sp - pushes * n - (u16)in->imm;

	soft_probe(v, stack_lin(v, last, 0, n, SOFT_W), n, SOFT_W);
	/* Pass 0 finds the faults; pass 1 copies one by one, since the old
	 * frame pointers may lie where the new ones go. */
	for (int pass = 0; pass < 2; pass++) {
		for (unsigned i = 0; i < pushes; i++) {
			gva_t to = stack_lin(v, sp, -(i64)((i + 1) * n), n,
					     SOFT_W);

			value = i == 0 ? bp : frame;
			if (i > 0 && i < level)
				value = soft_lin_read(v,
						      stack_lin(v, bp,
								-(i64)(i * n),
								n, SOFT_R),
						      n);
			if (pass)
				soft_lin_write(v, to, n, value);
			else
				soft_probe(v, to, n, SOFT_W);
		}
	}
	soft_gpr_write(v, X86_RBP, MIN(n, v->stack_size), frame);
	soft_gpr_write(v, X86_RSP, v->stack_size, last);
}

static void op_leave(struct vcpu *v, const struct insn *in)
{
	u64 sp = v->gpr[X86_RBP] & soft_mask(v->stack_size);
	u64 value = soft_lin_read(v, stack_lin(v, sp, 0, in->osize, SOFT_R),
				  in->osize);

	soft_gpr_write(v, X86_RSP, v->stack_size, sp + in->osize);
	soft_gpr_write(v, X86_RBP, in->osize, value);
}

/* ---- bit strings ---- */

static u64 bit_apply(u8 *p, unsigned n, u64 bit, u16 op, bool is_locked)
{
	u64 old;

#define BIT_CASE(type)                                                         \
	{                                                                      \
		type *q = (type *)p;                                           \
		type b = (type)1 << bit;                                       \
                                                                               \
		if (op == ISA_OP_BT)                                           \
			old = __atomic_load_n(q, __ATOMIC_RELAXED);            \
		else if (is_locked)                                            \
			old = op == ISA_OP_BTS                                 \
				      ? __atomic_fetch_or(q, b,                \
							  __ATOMIC_SEQ_CST)    \
			      : op == ISA_OP_BTR                               \
				      ? __atomic_fetch_and(q, (type)~b,        \
							   __ATOMIC_SEQ_CST)   \
				      : __atomic_fetch_xor(q, b,               \
							   __ATOMIC_SEQ_CST);  \
		else {                                                         \
			old = soft_ld(p, n);                                   \
			soft_st(p, n,                                          \
				op == ISA_OP_BTS   ? old | b                   \
				: op == ISA_OP_BTR ? old & (type)~b            \
						   : old ^ b);                 \
		}                                                              \
		return old >> bit & 1;                                         \
	}
	if (n == 2)
		BIT_CASE(u16)
	if (n == 4)
		BIT_CASE(u32)
	BIT_CASE(u64)
}

static void op_bt(struct vcpu *v, const struct insn *in)
{
	struct soft_entry *e = soft_entry_of(in);
	unsigned n = in->osize, bits = n * 8;
	bool is_write = in->row->op != ISA_OP_BT;
	bool is_locked = in->prefixes & X86_P_LOCK;
	struct soft_operand o;
	u64 ea, bit, cf;
	gva_t va;
	u8 *p;

	if (!in->is_mem) {
		soft_op_pass_reg(v, in);
		return;
	}
	ea = soft_entry_ea(v, e);
	if (in->imm_len) {
		bit = in->imm & (bits - 1);
	} else {
		i64 off = n == 2   ? (i16)v->gpr[in->reg]
			  : n == 4 ? (i32)v->gpr[in->reg]
				   : (i64)v->gpr[in->reg];

		bit = off & (bits - 1);
		ea = (ea + (u64)((off - (i64)bit) / 8)) &
		     (~0ull >> e->amask_shift);
	}
	va = soft_lin(v, in->seg, ea, n, is_write ? SOFT_R | SOFT_W : SOFT_R);
	p = is_write ? soft_tlb_w(v, va, n) : soft_tlb_r(v, va, n);
	if (likely(p != NULL)) {
		cf = bit_apply(p, n, bit, in->row->op, is_locked);
	} else {
		soft_operand_get(v, &o, va, n, true, is_write, is_locked);
		cf = bit_apply(o.host, n, bit, in->row->op, is_locked);
		soft_operand_commit(v, &o, is_write);
	}
	v->aflags = (v->aflags & ~0x100u) | (u32)cf << 8;
}

/* ---- XLAT, CMPXCHG8B/16B ---- */

static void op_xlat(struct vcpu *v, const struct insn *in)
{
	u64 ea = (v->gpr[X86_RBX] + (u8)v->gpr[X86_RAX]) & soft_mask(in->asize);
	gva_t va = soft_lin(v, in->seg, ea, 1, SOFT_R);

	soft_gpr_write(v, X86_RAX, 1, soft_lin_read(v, va, 1));
}

static bool host_cmpxchg16b(u8 *p, u64 *a, u64 *d, u64 b, u64 c)
{
	bool zf;

	__asm__ volatile("lock cmpxchg16b %1"
			 : "=@ccz"(zf), "+m"(*(u8(*)[16])p), "+a"(*a), "+d"(*d)
			 : "b"(b), "c"(c)
			 : "memory");
	return zf;
}

static bool cmpxchg_pair(struct vcpu *v, u8 *p, unsigned n)
{
	u64 a = v->gpr[X86_RAX], d = v->gpr[X86_RDX];
	u64 b = v->gpr[X86_RBX], c = v->gpr[X86_RCX];
	bool zf;

	if (n == 16) {
		zf = host_cmpxchg16b(p, &a, &d, b, c);
	} else {
		u64 expected = (u32)a | d << 32;

		zf = __atomic_compare_exchange_n(
			(u64 *)p, &expected, (u32)b | c << 32, false,
			__ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
		a = (u32)expected;
		d = expected >> 32;
	}
	if (!zf) {
		v->gpr[X86_RAX] = a;
		v->gpr[X86_RDX] = d;
	}
	return zf;
}

static void op_cmpxchg8b(struct vcpu *v, const struct insn *in)
{
	struct soft_entry *e = soft_entry_of(in);
	unsigned n = in->osize == 8 ? 16 : 8;
	struct soft_operand o;
	gva_t va;
	bool zf;
	u8 *p;

	/* Misaligned comes before not canonical (seen on AMD). */
	if (n == 16 && soft_flat_lin(v, e) & 15)
		soft_gp(v, 0);
	va = soft_entry_lin(v, e, n, SOFT_R | SOFT_W);
	p = soft_tlb_w(v, va, n);
	if (likely(p != NULL)) {
		zf = cmpxchg_pair(v, p, n);
	} else {
		/* LOCK or not, the exchange below is atomic. */
		soft_operand_get(v, &o, va, n, true, true, true);
		zf = cmpxchg_pair(v, o.host, n);
		soft_operand_commit(v, &o, true);
	}
	v->aflags = (v->aflags & ~0x4000u) | (zf ? 0x4000 : 0);
}

/* ---- masked stores and loads ---- */

/* Writes the bytes of src whose mask byte has its top bit set. */
static void masked_store(struct vcpu *v, const struct insn *in, const u8 *src,
			 const u8 *mask, unsigned n)
{
	u64 di = v->gpr[X86_RDI];

	for (int pass = 0; pass < 2; pass++) {
		for (unsigned i = 0; i < n; i++) {
			gva_t va;

			if (!(mask[i] & 0x80))
				continue;
			va = soft_lin(v, in->seg,
				      (di + i) & soft_mask(in->asize), 1,
				      SOFT_W);
			if (pass)
				soft_lin_write(v, va, 1, src[i]);
			else
				soft_probe(v, va, 1, SOFT_W);
		}
	}
}

static void op_maskmovdqu(struct vcpu *v, const struct insn *in)
{
	masked_store(v, in, XMM_AT(v, in->reg), XMM_AT(v, in->rm), 16);
}

static void op_maskmovq(struct vcpu *v, const struct insn *in)
{
	u8 image[512] __attribute__((aligned(16)));

	u32 unused;

	/* MMX registers are live in the host; reading one sets TOP to 0. */
	__asm__ volatile("movd %%mm0, %1\n\tfxsave64 %0"
			 : "=m"(image), "=r"(unused)
			 :
			 : "memory");
	masked_store(v, in, image + 32 + 16 * (in->modrm >> 3 & 7),
		     image + 32 + 16 * (in->modrm & 7), 8);
}

static void xmm_write(struct vcpu *v, unsigned reg, const u8 value[32])
{
	memcpy(XMM_AT(v, reg), value, 16);
	memcpy(YMM_AT(v, reg), value + 16, 16);
}
static void xmm_read(struct vcpu *v, unsigned reg, u8 value[32])
{
	memcpy(value, XMM_AT(v, reg), 16);
	memcpy(value + 16, YMM_AT(v, reg), 16);
}

/* VMASKMOVPS/PD, VPMASKMOVD/Q: lanes whose mask's sign bit is set. */
static void op_vmaskmov(struct vcpu *v, const struct insn *in)
{
	bool is_pd = in->row->op == ISA_OP_VMASKMOVPD ||
		     in->row->op == ISA_OP_VPMASKMOVQ;
	bool is_store =
		in->opcode == 0x2e || in->opcode == 0x2f || in->opcode == 0x8e;
	unsigned n = is_pd ? 8 : 4, total = in->vex_l ? 32 : 16;
	u64 ea = soft_entry_ea(v, soft_entry_of(in));
	u8 mask[32], value[32] = {0};

	xmm_read(v, in->vvvv, mask);
	if (is_store)
		xmm_read(v, in->reg, value);
	for (int pass = is_store ? 0 : 1; pass < 2; pass++) {
		for (unsigned i = 0; i < total; i += n) {
			gva_t va;

			if (!(mask[i + n - 1] & 0x80))
				continue;
			va = soft_lin(v, in->seg,
				      (ea + i) & soft_mask(in->asize), n,
				      is_store ? SOFT_W : SOFT_R);
			if (!is_store)
				soft_st(value + i, n, soft_lin_read(v, va, n));
			else if (pass)
				soft_lin_write(v, va, n, soft_ld(value + i, n));
			else
				soft_probe(v, va, n, SOFT_W);
		}
	}
	if (!is_store)
		xmm_write(v, in->reg, value);
}

/* ---- gathers (SDM 2 "VPGATHERDD") ---- */

static void op_gather(struct vcpu *v, const struct insn *in)
{
	unsigned index_bytes = in->opcode & 1 ? 8 : 4;
	unsigned n = in->rex & 8 ? 8 : 4;
	unsigned total = in->vex_l ? 32 : 16;
	unsigned count = total / MAX(n, index_bytes);
	u64 m = soft_mask(in->asize);
	u8 dst[32], mask[32], index[32];
	u64 base = in->base < 16 ? v->gpr[in->base] : 0;

	if (in->reg == in->index || in->reg == in->vvvv ||
	    in->index == in->vvvv)
		soft_ud(v);
	xmm_read(v, in->reg, dst);
	xmm_read(v, in->vvvv, mask);
	xmm_read(v, in->index & 15, index);
	/* The sign bit selects the whole lane, which a fault must show. */
	for (unsigned i = 0; i < count; i++)
		memset(mask + i * n, mask[i * n + n - 1] & 0x80 ? 0xff : 0, n);
	for (unsigned i = 0; i < count; i++) {
		i64 x = index_bytes == 8 ? (i64)ld_le64(index + i * 8)
					 : (i32)ld_le32(index + i * 4);
		gva_t va;

		if (!mask[i * n])
			continue;
		va = soft_lin(v, in->seg,
			      (base + ((u64)x << in->scale) + (i64)in->disp) &
				      m,
			      n, SOFT_R);
		soft_st(dst + i * n, n, soft_lin_read(v, va, n));
		memset(mask + i * n, 0, n);
		/* Completed elements stay so if a later one faults. */
		xmm_write(v, in->reg, dst);
		xmm_write(v, in->vvvv, mask);
	}
	memset(dst + count * n, 0, 32 - count * n);
	memset(mask, 0, sizeof(mask));
	xmm_write(v, in->reg, dst);
	xmm_write(v, in->vvvv, mask);
}

static void op_vzeroupper(struct vcpu *v, const struct insn *in)
{
	unsigned n = v->code_mode == X86_MODE_64 ? 16 : 8;

	memset(YMM_AT(v, 0), 0, 16 * n);
}
static void op_vzeroall(struct vcpu *v, const struct insn *in)
{
	unsigned n = v->code_mode == X86_MODE_64 ? 16 : 8;

	memset(YMM_AT(v, 0), 0, 16 * n);
	memset(XMM_AT(v, 0), 0, 16 * n);
}

const struct soft_op_entry soft_ops_mem[] = {
	{ISA_OP_PUSH_RM, op_push_rm},
	{ISA_OP_PUSH_REG, op_push_reg},
	{ISA_OP_PUSH_IMM, op_push_imm},
	{ISA_OP_PUSH_SEG, op_push_seg},
	{ISA_OP_POP_RM, op_pop_rm},
	{ISA_OP_POP_REG, op_pop_reg},
	{ISA_OP_POP_SEG, op_pop_seg},
	{ISA_OP_ENTER, op_enter},
	{ISA_OP_LEAVE, op_leave},
	{ISA_OP_BT, op_bt},
	{ISA_OP_BTS, op_bt},
	{ISA_OP_BTR, op_bt},
	{ISA_OP_BTC, op_bt},
	{ISA_OP_XLAT, op_xlat},
	{ISA_OP_CMPXCHG8B, op_cmpxchg8b},
	{ISA_OP_MASKMOVQ, op_maskmovq},
	{ISA_OP_MASKMOVDQU, op_maskmovdqu},
	{ISA_OP_VMASKMOVDQU, op_maskmovdqu},
	{ISA_OP_VMASKMOVPS, op_vmaskmov},
	{ISA_OP_VMASKMOVPD, op_vmaskmov},
	{ISA_OP_VPMASKMOVD, op_vmaskmov},
	{ISA_OP_VPMASKMOVQ, op_vmaskmov},
	{ISA_OP_VPGATHERDD, op_gather},
	{ISA_OP_VPGATHERDQ, op_gather},
	{ISA_OP_VPGATHERQD, op_gather},
	{ISA_OP_VPGATHERQQ, op_gather},
	{ISA_OP_VGATHERDPS, op_gather},
	{ISA_OP_VGATHERDPD, op_gather},
	{ISA_OP_VGATHERQPS, op_gather},
	{ISA_OP_VGATHERQPD, op_gather},
	{ISA_OP_VZEROUPPER, op_vzeroupper},
	{ISA_OP_VZEROALL, op_vzeroall},
	{0, NULL},
};
