/* SPDX-License-Identifier: Apache-2.0 */
/* System instructions of kernels' fast paths: a few inline, the others by leaf
 * functions.
 *
 * THEORY. STI casts a shadow over one instruction. An event that has been
 * waiting for IF is noticed by clearing v->go at the STI; the poll that looks
 * at it stands behind the next instruction, so the shadow holds and no pair
 * of STI and CLI with an instruction between goes without a look.
 */
#include "soft/leaf.h"
#include "soft/lower.h"

#include "soft/access.h"

static void lower_cli(struct lower *l)
{
	lower_flags_spill(l, lower_live_in(l));
	e_alu_mi(&l->e, 4, ALU_AND, m_env(ENV_OFF(rflags_sys)),
		 ~(i32)X86_FL_IF);
}

static void lower_sti(struct lower *l)
{
	u32 over;

	lower_flags_spill(l, lower_live_in(l));
	e_alu_mi(&l->e, 4, ALU_OR, m_env(ENV_OFF(rflags_sys)), X86_FL_IF);
	e_alu_mi(&l->e, 4, ALU_CMP, m_env(ENV_OFF(requests)), 0);
	over = e_jcc8(&l->e, CC_E);
	e_mov_mi(&l->e, 4, m_env(ENV_OFF(go)), 0);
	e_patch8(&l->e, over);
	l->poll_behind = 2;
}

static void lower_cld(struct lower *l)
{
	lower_flags_spill(l, lower_live_in(l));
	e_alu_mi(&l->e, 4, ALU_AND, m_env(ENV_OFF(rflags_sys)),
		 ~(i32)X86_FL_DF);
}

static void lower_std(struct lower *l)
{
	lower_flags_spill(l, lower_live_in(l));
	e_alu_mi(&l->e, 4, ALU_OR, m_env(ENV_OFF(rflags_sys)), X86_FL_DF);
}

static void lower_mov_from_seg(struct lower *l, const struct insn *in)
{
	i32 off = ENV_OFF(segs) + (i32)sizeof(struct soft_seg) * (in->reg & 7) +
		  (i32)offsetof(struct soft_seg, sel);

	e_op_rm(&l->e, 4, 0x0fb7, S0, m_env(off));
	lower_put(l, in->rm, S0);
}

static const struct {
	u16 op;
	u8 thunk;
} leaf_of[] = {
	{ISA_OP_SYSCALL, XT_LEAF_SYSCALL}, {ISA_OP_SYSRET, XT_LEAF_SYSRET},
	{ISA_OP_IRET, XT_LEAF_IRETQ},	   {ISA_OP_SWAPGS, XT_LEAF_SWAPGS},
	{ISA_OP_PUSHF, XT_LEAF_PUSHF},	   {ISA_OP_POPF, XT_LEAF_POPF},
	{ISA_OP_RDTSC, XT_LEAF_RDTSC},	   {ISA_OP_RDTSCP, XT_LEAF_RDTSC},
	{ISA_OP_RDPID, XT_LEAF_RDPID},	   {ISA_OP_RDMSR, XT_LEAF_RDMSR},
	{ISA_OP_WRMSR, XT_LEAF_WRMSR},	   {ISA_OP_MOV_FROM_CR, XT_LEAF_RDCR},
	{ISA_OP_CLTS, XT_LEAF_CLTS},	   {ISA_OP_MOV_TO_CR, XT_LEAF_WRCR},
	{ISA_OP_INVLPG, XT_LEAF_INVLPG},   {ISA_OP_RDFSBASE, XT_LEAF_RDBASE},
	{ISA_OP_RDGSBASE, XT_LEAF_RDBASE}, {ISA_OP_WRFSBASE, XT_LEAF_WRBASE},
	{ISA_OP_WRGSBASE, XT_LEAF_WRBASE},
};

static u32 leaf_argument(const struct insn *in)
{
	switch (in->row->op) {
	case ISA_OP_RDTSCP:
		return 1;
	case ISA_OP_RDPID:
		return in->rm;
	case ISA_OP_RDFSBASE:
	case ISA_OP_WRFSBASE:
		return in->rm | (in->osize == 8 ? LEAF_BASE_64 : 0);
	case ISA_OP_RDGSBASE:
	case ISA_OP_WRGSBASE:
		return in->rm | LEAF_BASE_GS |
		       (in->osize == 8 ? LEAF_BASE_64 : 0);
	case ISA_OP_INVLPG: /* the plain form */
		return in->index == X86_REG_NONE && in->base < 16 &&
				       !in->disp && in->seg < X86_FS &&
				       in->asize == 8
			       ? in->base
			       : LEAF_NO_REG;
	case ISA_OP_MOV_FROM_CR:
	case ISA_OP_MOV_TO_CR:
		return in->rm | (u32)in->reg << 4;
	default:
		return 0;
	}
}

bool lower_sys(struct lower *l)
{
	const struct insn *in = &l->i->in;

	switch (in->row->op) {
	case ISA_OP_CLI:
		lower_cli(l);
		return true;
	case ISA_OP_STI:
		lower_sti(l);
		return true;
	case ISA_OP_CLD:
		lower_cld(l);
		return true;
	case ISA_OP_STD:
		lower_std(l);
		return true;
	case ISA_OP_MOV_FROM_SEG:
		lower_mov_from_seg(l, in);
		return true;
	default:
		break;
	}
	for (unsigned i = 0; i < ARRAY_SIZE(leaf_of); i++) {
		if (leaf_of[i].op == in->row->op) {
			lower_leaf(l, leaf_of[i].thunk, leaf_argument(in));
			/* Those that jump never come back here. */
			if (l->t->end_kind == XLAT_END_BRANCH &&
			    l->i == &l->t->insns[l->t->n - 1])
				e_bytes(&l->e, (const u8[]){0x0f, 0x0b}, 2);
			return true;
		}
	}
	return false;
}
