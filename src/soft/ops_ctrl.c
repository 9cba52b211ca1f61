/* SPDX-License-Identifier: Apache-2.0 */
/* Near control flow, and the flag instructions that need no host.
 *
 * A branch checks its target before anything is changed: 64-bit targets are
 * canonical, others within CS's limit, else #GP(0) at the branch itself
 * (SDM 2 "JMP", "CALL", "RET"). In 64-bit mode the operand size of near
 * branches is 64 bits, but 16 bits on AMD with 66; the decoder's osize says so.
 */
#include "soft/access.h"

static u64 checked_target(struct vcpu *v, u64 target, unsigned osize)
{
	target &= soft_mask(osize);
	if (v->code_mode == X86_MODE_64) {
		if (!soft_is_canonical(target))
			soft_gp(v, 0);
	} else if (target > v->segs[X86_CS].limit) {
		soft_gp(v, 0);
	}
	return target;
}

void soft_branch(struct vcpu *v, u64 target, unsigned osize)
{
	v->next_rip = checked_target(v, target, osize);
}

static void op_jcc(struct vcpu *v, const struct insn *in)
{
	if (soft_condition(v, in->opcode & 15))
		soft_branch(v, v->next_rip + in->imm, in->osize);
}

static void op_jmp_rel(struct vcpu *v, const struct insn *in)
{
	soft_branch(v, v->next_rip + in->imm, in->osize);
}

static u64 rm_target(struct vcpu *v, const struct insn *in, unsigned n)
{
	return in->is_mem ? soft_mem_read(v, soft_entry_of(in), n)
			  : soft_gpr_read(v, in->rm, n);
}

static void op_jmp_rm(struct vcpu *v, const struct insn *in)
{
	unsigned n = in->osize;

	soft_branch(v, rm_target(v, in, n), n);
}

static void call_to(struct vcpu *v, u64 target, unsigned n)
{
	target = checked_target(v, target, n);
	if (likely(n == 8)) {
		u64 sp = v->gpr[X86_RSP] - 8;
		u8 *p = soft_tlb_w(v, sp, 8);

		if (likely(p != NULL)) {
			st_le64(p, v->next_rip);
			v->gpr[X86_RSP] = sp;
			v->next_rip = target;
			return;
		}
	}
	soft_push(v, v->next_rip, n);
	v->next_rip = target;
}

static void op_call_rel(struct vcpu *v, const struct insn *in)
{
	call_to(v, v->next_rip + in->imm, in->osize);
}

static void op_call_rm(struct vcpu *v, const struct insn *in)
{
	unsigned n = in->osize;

	call_to(v, rm_target(v, in, n), n);
}

static void op_ret_near(struct vcpu *v, const struct insn *in)
{
	unsigned n = in->osize;
	u64 sp = v->gpr[X86_RSP];
	u64 target;

	target =
		n == 8 ? soft_lin_read(v, soft_lin(v, X86_SS, sp, 8, SOFT_R), 8)
		       : soft_pop(v, n);
	if (likely(n == 8)) {
		soft_branch(v, target, 8);
		v->gpr[X86_RSP] = sp + 8 + (in->imm_len ? (u16)in->imm : 0);
		return;
	}
	/* soft_pop has moved rSP already: undo it should the target fault. */
	if ((target & soft_mask(n)) > v->segs[X86_CS].limit)
		v->gpr[X86_RSP] = sp;
	soft_branch(v, target, n);
	if (in->imm_len) {
		u64 m = soft_mask(v->stack_size);
		u64 now = v->gpr[X86_RSP];

		soft_gpr_write(v, X86_RSP, v->stack_size,
			       (now + (u16)in->imm) & m);
	}
}

static void op_loop(struct vcpu *v, const struct insn *in)
{
	u64 count = (soft_gpr_read(v, X86_RCX, in->asize) - 1) &
		    soft_mask(in->asize);
	bool taken = count != 0;

	if (in->row->op == ISA_OP_LOOPE)
		taken &= soft_zf(v);
	else if (in->row->op == ISA_OP_LOOPNE)
		taken &= !soft_zf(v);
	if (taken)
		soft_branch(v, v->next_rip + in->imm, in->osize);
	soft_gpr_write(v, X86_RCX, in->asize, count);
}

static void op_jrcxz(struct vcpu *v, const struct insn *in)
{
	if (!soft_gpr_read(v, X86_RCX, in->asize))
		soft_branch(v, v->next_rip + in->imm, in->osize);
}

/* ---- flags ---- */

static void op_clc(struct vcpu *v, const struct insn *in)
{
	v->aflags &= ~0x100u;
}
static void op_stc(struct vcpu *v, const struct insn *in)
{
	v->aflags |= 0x100;
}
static void op_cmc(struct vcpu *v, const struct insn *in)
{
	v->aflags ^= 0x100;
}
static void op_cld(struct vcpu *v, const struct insn *in)
{
	v->rflags_sys &= ~X86_FL_DF;
}
static void op_std(struct vcpu *v, const struct insn *in)
{
	v->rflags_sys |= X86_FL_DF;
}
static void op_lahf(struct vcpu *v, const struct insn *in)
{
	soft_st((u8 *)&v->gpr[X86_RAX] + 1, 1, (v->aflags >> 8 & 0xd5) | 2);
}
static void op_sahf(struct vcpu *v, const struct insn *in)
{
	u32 ah = v->gpr[X86_RAX] >> 8 & 0xd5;

	/* Bit 1 is always set, as LAHF leaves it. */
	v->aflags = (v->aflags & 1) | (ah | 2) << 8;
}

const struct soft_op_entry soft_ops_ctrl[] = {
	{ISA_OP_JCC, op_jcc},	      {ISA_OP_JMP_REL, op_jmp_rel},
	{ISA_OP_JMP_RM, op_jmp_rm},   {ISA_OP_CALL_REL, op_call_rel},
	{ISA_OP_CALL_RM, op_call_rm}, {ISA_OP_RET_NEAR, op_ret_near},
	{ISA_OP_LOOP, op_loop},	      {ISA_OP_LOOPE, op_loop},
	{ISA_OP_LOOPNE, op_loop},     {ISA_OP_JRCXZ, op_jrcxz},
	{ISA_OP_CLC, op_clc},	      {ISA_OP_STC, op_stc},
	{ISA_OP_CMC, op_cmc},	      {ISA_OP_CLD, op_cld},
	{ISA_OP_STD, op_std},	      {ISA_OP_LAHF, op_lahf},
	{ISA_OP_SAHF, op_sahf},	      {0, NULL},
};
