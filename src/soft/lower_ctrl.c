/* SPDX-License-Identifier: Apache-2.0 */
/* Branches, the ways out of a block, leaf calls, and flag instructions.
 *
 * THEORY. A jump inside the guest page is a direct jump that the code cache
 * links, because no change of mapping can come between: whatever changes the
 * mapping of the page that runs leaves generated code. A jump to another page,
 * or to an address from a register, looks into the jump cache. Every loop
 * passes a poll of v->go: jumps backwards have one, and each look into the
 * jump cache does.
 */
#include "soft/leaf.h"
#include "soft/lower.h"

#include "soft/access.h"

static struct emem jc_field(const struct lower *l, i32 field)
{
	struct emem m = m_bi(ENV, S1, 0, ENV_OFF(super.jc) + field);

	if (l->is_user) {
		m = m_b(S1, (i32)offsetof(struct soft_space, jc) + field);
		m.is_gs = true;
	}
	return m;
}

static void make_probe(const struct lower *l, struct canned *c)
{
	struct emit canned = {.rw = c->bytes, .end = sizeof(c->bytes)};
	struct emit *e = &canned;

	e_mov(e, 8, S1, S0);
	e_alu_ri(e, 8, ALU_AND, S1, -(i32)PAGE_BYTES);
	e_store(e, 8, m_env(ENV_OFF(pcbase)), S1);
	e_rorx(e, S1, S0, 12, l->has_bmi2); /* soft_jc_index() */
	e_alu_rr(e, 4, ALU_XOR, S1, S0);
	e_alu_rm(e, 4, ALU_AND, S1, m_env(ENV_OFF(go)));
	e_shift_ri(e, 4, 4, S1, 4);
	e_alu_rm(e, 8, ALU_CMP, S0,
		 jc_field(l, offsetof(struct soft_jc_entry, va)));
	c->target = (u8)e_jcc(e, CC_NE, 0);
	e_op_rm(e, 4, 0xff, 4,
		jc_field(l, offsetof(struct soft_jc_entry, host)));
	ASSERT(!e->is_full);
	c->n = (u8)e->pos;
}

void lower_probe(struct lower *l)
{
	struct canned *c = &l->probes[l->is_user];
	struct emit *e = &l->e;
	u32 start = e->pos;

	if (l->t->key & XLAT_KEY_LOCKSTEP) {
		e_mov_ri(e, S1, XLAT_EXIT_LOOKUP);
		e_jmp(e, l->thunks[XT_EXIT_VA]);
		return;
	}
	if (!c->n)
		make_probe(l, c);
	e_canned(e, c);
	e_patch(e, start + c->target, l->thunks[XT_JC_MISS]);
	l->flags_in_regs = false;
}

/* ---- cold code ---- */

struct cold *lower_cold(struct lower *l, unsigned kind, u32 site)
{
	struct cold *c = &l->colds[l->cold_count];

	if (l->cold_count == LOWER_COLDS - 1)
		l->is_refused = true;
	else
		l->cold_count++;
	*c = (struct cold){.kind = kind, .site = site};
	c->off = l->i ? l->i->off : l->t->first;
	return c;
}

/* The next rel32, behind `opcode_bytes`, must not straddle 8 bytes: it is
 * patched by one store while others may run it. */
static void align_site(struct lower *l, unsigned opcode_bytes)
{
	while (((l->e.pos + opcode_bytes) & 7) > 4)
		e_b(&l->e, 0x90);
}

static void add_exit(struct lower *l, u32 site, u16 target, bool is_twin)
{
	struct xlat_exit *x = &l->exits[l->exit_count];

	if (l->exit_count == LOWER_EXITS - 1)
		l->is_refused = true;
	*x = (struct xlat_exit){
		.site = site, .target = target, .is_twin = is_twin};
	lower_cold(l, COLD_CHAIN, site)->back = l->exit_count;
	if (!l->is_refused)
		l->exit_count++;
}

/* Calls the thunk that fills the access's slot, or its TLB entry; of each of
 * them the first is given. */
static void call_fill(struct lower *l, const struct cold *c, unsigned slot,
		      unsigned tlb)
{
	unsigned thunk = tlb + (l->is_user ? 2 : 0);

	if (c->slot) {
		e_mov_ri(&l->e, S1, c->slot);
		thunk = slot;
	}
	e_call(&l->e, l->thunks[thunk + (c->arg ? 1 : 0)]);
}

static void call_chain(struct lower *l, const struct xlat_exit *x)
{
	u32 info = x->target | l->block << XLAT_CHAIN_BLOCK;
	u32 start = l->code;

	if (x->is_twin)
		info |= XLAT_CHAIN_TWIN;
	if (x->site >= l->cold) {
		info |= XLAT_CHAIN_COLD;
		start = l->cold;
	}
	e_call(&l->e, l->thunks[XT_CHAIN]);
	e_d(&l->e, info);
	e_w(&l->e, (u16)(x->site - start));
}

static void emit_cold(struct lower *l, const struct cold *c)
{
	struct emit *e = &l->e;

	e_patch(e, c->site, e->pos);
	l->flags_in_regs = c->saves;
	l->flags_in_env = false;
	if (c->saves)
		lower_flags_to_env(l);
	switch (c->kind) {
	case COLD_LOOKUP:
		/* The thunk reads the offset behind the jump. */
		call_fill(l, c, XT_SLOT_R, XT_SLOW_R_SUPER);
		e_jmp(e, c->back);
		e_w(e, c->off);
		break;
	case COLD_GROUP:
		call_fill(l, c, XT_SLOT_GROUP_R, XT_GROUP_R_SUPER);
		e_jmp(e, c->back);
		if (l->t->key & XLAT_KEY_LOCKSTEP) {
			e_mov_ri(e, S0, c->off);
			e_mov_ri(e, S1, XLAT_EXIT_INTERP);
			e_jmp(e, l->thunks[XT_EXIT]);
			break;
		}
		l->flags_in_env = c->restores;
		lower_flags_to_regs(l);
		align_site(l, 1);
		add_exit(l, e_jmp(e, 0), c->off, true);
		break;
	case COLD_CHAIN:
		l->exits[c->back].unlinked = e->pos;
		if (l->t->key & XLAT_KEY_LOCKSTEP) {
			l->flags_in_regs = true;
			lower_leave(l, l->exits[c->back].target,
				    XLAT_EXIT_LOOKUP, ISA_ALLF);
			break;
		}
		call_chain(l, &l->exits[c->back]);
		break;
	case COLD_EXIT:
		e_mov_ri(e, S0, c->off);
		e_mov_ri(e, S1, c->arg);
		e_jmp(e, l->thunks[XT_EXIT]);
		break;
	default:
		lower_code_address(l, S0, c->disp);
		lower_probe(l);
	}
}

void lower_emit_colds(struct lower *l)
{
	for (u32 k = 0; k < l->cold_count; k++)
		emit_cold(l, &l->colds[k]);
}

/* ---- ways out ---- */

void lower_leave(struct lower *l, u16 off, enum xlat_exit_kind kind, u16 live)
{
	if (live)
		lower_flags_to_env(l);
	e_mov_ri(&l->e, S0, off);
	e_mov_ri(&l->e, S1, kind);
	e_jmp(&l->e, l->thunks[XT_EXIT]);
}

void lower_poll(struct lower *l, u16 off, u16 live)
{
	struct emit *e = &l->e;
	struct cold *c;

	if (live && l->flags_in_regs) {
		u32 over;

		e_load(e, 4, S1, m_env(ENV_OFF(go)));
		e_lea(e, 4, S1, m_b(S1, -(i32)SOFT_GO));
		over = e_jrcxz8(e);
		c = lower_cold(l, COLD_EXIT, e_jmp(e, 0));
		e_patch8(e, over);
	} else {
		e_alu_mi(e, 4, ALU_CMP, m_env(ENV_OFF(go)), 0);
		c = lower_cold(l, COLD_EXIT, e_jcc(e, CC_E, 0));
		l->flags_in_regs = false;
	}
	c->off = off;
	c->arg = XLAT_EXIT_KICK;
	c->saves = live && l->flags_in_regs && !l->flags_in_env;
}

void lower_exit_to(struct lower *l, u16 off, u16 live)
{
	if (live)
		lower_flags_to_regs(l);
	if (!l->i || off <= l->i->off)
		lower_poll(l, off, live);
	align_site(l, 1);
	add_exit(l, e_jmp(&l->e, 0), off, false);
}

static i64 branch_target(const struct lower *l)
{
	return l->i->off + l->i->in.len + (i64)l->i->in.imm;
}

static bool is_in_page(i64 target)
{
	return target >= 0 && target < (i64)PAGE_BYTES;
}

/* Unconditionally to pcbase + target. */
static void jump_to(struct lower *l, i64 target, u16 live)
{
	if (is_in_page(target) && l->t->page2 == XLAT_NO_GPA) {
		lower_exit_to(l, (u16)target, live);
		return;
	}
	if (live)
		lower_flags_to_env(l);
	lower_code_address(l, S0, target);
	lower_probe(l);
}

/* The code between has been entered by a taken branch: behind it flags are
 * where they were in front. */
struct flag_place {
	bool in_regs, in_env;
};
static struct flag_place place_get(const struct lower *l)
{
	return (struct flag_place){l->flags_in_regs, l->flags_in_env};
}
static void place_set(struct lower *l, struct flag_place p)
{
	l->flags_in_regs = p.in_regs;
	l->flags_in_env = p.in_env;
}

static void lower_jcc(struct lower *l)
{
	unsigned cc = l->i->in.opcode & 15;
	i64 target = branch_target(l);
	u16 live = l->i->live_target;

	lower_flags_to_regs(l);
	if (!is_in_page(target) || l->t->page2 != XLAT_NO_GPA) {
		struct cold *c = lower_cold(l, COLD_PROBE, e_jcc(&l->e, cc, 0));

		c->disp = target;
		c->saves = live && !l->flags_in_env;
	} else if (target <= l->i->off) {
		struct flag_place p = place_get(l);
		u32 over = e_jcc8(&l->e, cc ^ 1);

		lower_exit_to(l, (u16)target, live);
		e_patch8(&l->e, over);
		place_set(l, p);
	} else {
		align_site(l, 2);
		add_exit(l, e_jcc(&l->e, cc, 0), (u16)target, false);
	}
}

/* LOOP, LOOPE, LOOPNE, JRCXZ: flags stay. */
static void lower_loop(struct lower *l)
{
	const struct insn *in = &l->i->in;
	unsigned size = in->asize == 8 ? 8 : 4;
	bool is_jrcxz = in->row->op == ISA_OP_JRCXZ;
	struct flag_place p;
	u32 over = 0, go = 0, skip = 0;

	if (l->i->reads | l->i->live_target | l->i->live_out)
		lower_flags_to_regs(l);
	p = place_get(l);
	if (!is_jrcxz)
		e_lea(&l->e, size, H_R11, m_b(H_R11, -1));
	e_mov(&l->e, size, S1, H_R11);
	if (is_jrcxz) {
		go = e_jrcxz8(&l->e);
		over = e_jmp8(&l->e);
		e_patch8(&l->e, go);
	} else {
		over = e_jrcxz8(&l->e);
		if (in->row->op != ISA_OP_LOOP)
			skip = e_jcc8(&l->e, in->row->op == ISA_OP_LOOPE
						     ? CC_NE
						     : CC_E);
	}
	jump_to(l, branch_target(l), l->i->live_target);
	e_patch8(&l->e, over);
	if (skip)
		e_patch8(&l->e, skip);
	place_set(l, p);
}

/* ---- calls, returns, indirect jumps ---- */

/* The return address goes on the stack; RSP stays. */
static void push_return(struct lower *l)
{
	unsigned size = lower_stack_size(l);
	struct emem m = lower_stack(l, true, -(i32)size, S0);

	lower_code_address(l, S1, l->i->off + l->i->in.len);
	e_store(&l->e, size, m, S1);
}

/* Flags go to env, where calls and jumps through the jump cache want them. */
static void flags_leave(struct lower *l)
{
	if (lower_live_in(l))
		lower_flags_to_env(l);
	l->s0_group = GROUP_NONE; /* seto */
}

static void lower_call_rel(struct lower *l)
{
	flags_leave(l);
	push_return(l);
	lower_add_sp(l, -(i32)lower_stack_size(l));
	jump_to(l, branch_target(l), l->i->live_out);
}

/* RAX = the branch's target from memory. */
static void load_target(struct lower *l)
{
	unsigned size = lower_stack_size(l);

	e_load(&l->e, size, S0, lower_operand(l, 0, false, size, S0));
	l->s0_group = GROUP_NONE;
}

static void lower_call_rm(struct lower *l, const struct insn *in)
{
	struct emem spill = m_env(ENV_OFF(spill));

	flags_leave(l);
	if (in->is_mem) {
		load_target(l);
		e_store(&l->e, 8, spill, S0);
	}
	push_return(l);
	if (in->is_mem)
		e_load(&l->e, 8, S0, spill);
	else
		lower_get(l, S0, in->rm);
	lower_add_sp(l, -(i32)lower_stack_size(l));
	lower_probe(l);
}

static void lower_jmp_rm(struct lower *l, const struct insn *in)
{
	flags_leave(l);
	if (in->is_mem)
		load_target(l);
	else
		lower_get(l, S0, in->rm);
	lower_probe(l);
}

static void lower_ret(struct lower *l, const struct insn *in)
{
	unsigned size = lower_stack_size(l);

	flags_leave(l);
	e_load(&l->e, size, S0, lower_stack(l, false, 0, S0));
	lower_add_sp(l, (i32)size + (in->imm_len ? (u16)in->imm : 0));
	lower_probe(l);
}

static bool is_followed(const struct lower *l)
{
	return l->t->end_kind != XLAT_END_BRANCH ||
	       l->i != &l->t->insns[l->t->n - 1];
}

/* ---- flags as data ---- */

static void lower_cf(struct lower *l, u8 opcode)
{
	lower_flags_to_regs(l);
	e_b(&l->e, opcode);
	l->flags_in_regs = true;
	l->flags_in_env = false;
}

static void lower_lahf(struct lower *l)
{
	lower_flags_to_env(l);
	l->flags_in_regs = false;
	e_op_rm(&l->e, 4, 0x0fb6, S0, m_env(ENV_OFF(aflags) + 1));
	e_alu_ri(&l->e, 4, ALU_AND, S0, 0xd5);
	e_alu_ri(&l->e, 4, ALU_OR, S0, 2);
	e_mov(&l->e, 8, S1, H_R10);
	e_bytes(&l->e, (const u8[]){0x88, 0xc5}, 2); /* mov ch, al */
	e_mov(&l->e, 8, H_R10, S1);
}

static void lower_sahf(struct lower *l)
{
	lower_flags_to_regs(l); /* OF stays */
	e_mov(&l->e, 8, S0, H_R10);
	e_b(&l->e, 0x9e);
	l->flags_in_regs = true;
	l->flags_in_env = false;
}

bool lower_ctrl(struct lower *l)
{
	const struct insn *in = &l->i->in;

	switch (in->row->op) {
	case ISA_OP_JCC:
		lower_jcc(l);
		return true;
	case ISA_OP_JMP_REL:
		if (!is_followed(l))
			jump_to(l, branch_target(l), l->i->live_target);
		return true;
	case ISA_OP_CALL_REL:
		lower_call_rel(l);
		return true;
	case ISA_OP_CALL_RM:
		lower_call_rm(l, in);
		return true;
	case ISA_OP_JMP_RM:
		lower_jmp_rm(l, in);
		return true;
	case ISA_OP_RET_NEAR:
		lower_ret(l, in);
		return true;
	case ISA_OP_LOOP:
	case ISA_OP_LOOPE:
	case ISA_OP_LOOPNE:
	case ISA_OP_JRCXZ:
		lower_loop(l);
		return true;
	case ISA_OP_CLC:
	case ISA_OP_STC:
	case ISA_OP_CMC:
		lower_cf(l, in->opcode);
		return true;
	case ISA_OP_LAHF:
		lower_lahf(l);
		return true;
	case ISA_OP_SAHF:
		lower_sahf(l);
		return true;
	default:
		return false;
	}
}

/* ---- leaf calls ---- */

void lower_leaf(struct lower *l, unsigned thunk, u32 arg)
{
	if (lower_live_in(l))
		lower_flags_to_env(l);
	e_mov_ri(&l->e, S0, l->i->off | (u32)l->i->in.len << 16);
	e_mov_ri(&l->e, S1, arg);
	e_call(&l->e, l->thunks[thunk]);
	l->flags_in_regs = false;
	l->flags_in_env = l->i->live_out != 0;
}

/* MOVS, STOS, LODS, SCAS, CMPS, repeated or not. */
bool lower_str(struct lower *l)
{
	const struct insn *in = &l->i->in;
	unsigned op, size, rep = LEAF_NOREP, thunk = XT_LEAF_STR;

	switch (in->row->op) {
	case ISA_OP_MOVS:
		op = LEAF_MOVS;
		break;
	case ISA_OP_STOS:
		op = LEAF_STOS;
		break;
	case ISA_OP_LODS:
		op = LEAF_LODS;
		break;
	case ISA_OP_SCAS:
		op = LEAF_SCAS;
		break;
	case ISA_OP_CMPS:
		op = LEAF_CMPS;
		break;
	default:
		return false;
	}
	if (in->prefixes & X86_P_REP)
		rep = LEAF_REPE;
	else if (in->prefixes & X86_P_REPNE)
		rep = LEAF_REPNE;
	size = in->opcode & 1 ? in->osize : 1;
	if ((op == LEAF_MOVS || op == LEAF_STOS) && rep != LEAF_NOREP &&
	    !l->is_32 && in->asize == 8 && in->seg != X86_FS &&
	    in->seg != X86_GS)
		thunk = xlat_rep_thunk(op == LEAF_STOS,
				       (unsigned)__builtin_ctz(size),
				       l->is_user);
	lower_leaf(l, thunk,
		   LEAF_STR_ARG(op, size, rep, in->asize == 8 ? 8 : 4));
	return true;
}
