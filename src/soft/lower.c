/* SPDX-License-Identifier: Apache-2.0 */
/* The translator's lowering: one block, and the ISA_PASS rows.
 *
 * THEORY. An ISA_PASS instruction stays the host's own instruction. Guest
 * registers with a host register of their own are named in place; for the
 * rest RAX, RCX and, rarely, a pinned register that is put away in v->spill
 * stand in:
 *
 *	lookup -> host address	(memory operand; destroys RFLAGS)
 *	flags back into RFLAGS	(if the instruction reads or keeps some)
 *	load the stand-ins	(mov: flags stay)
 *	OP
 *	store the stand-ins that OP wrote
 *
 * Instructions that may fault on the host never need a spilled register, so
 * that the guest's registers can be read from the signal's context.
 */
#include "soft/lower.h"

#include "soft/access.h"

/* ---- flags ---- */

void lower_flags_to_env(struct lower *l)
{
	if (l->flags_in_env || !l->flags_in_regs)
		return;
	l->s0_group = GROUP_NONE;
	e_b(&l->e, 0x9f);			 /* lahf */
	e_op_rr(&l->e, 1, 0x0f90 | CC_O, 0, S0); /* seto al */
	e_store(&l->e, 2, m_env(ENV_OFF(aflags)), S0);
	l->flags_in_env = true;
}

void lower_flags_to_regs(struct lower *l)
{
	if (l->flags_in_regs || !l->flags_in_env)
		return;
	l->s0_group = GROUP_NONE;
	/* As wide as the store: a narrower store does not forward. */
	e_op_rm(&l->e, 4, 0x0fb7, S0, m_env(ENV_OFF(aflags)));
	e_alu_ri(&l->e, 1, ALU_ADD, S0, 0x7f); /* OF */
	e_b(&l->e, 0x9e);		       /* sahf */
	l->flags_in_regs = true;
}

void lower_flags_spill(struct lower *l, u16 live)
{
	if (live)
		lower_flags_to_env(l);
	l->flags_in_regs = false;
}

/* ---- stand-ins ---- */

static const u8 spillable[] = {H_RSI, H_RDI, H_RBX, H_RDX};

struct standins {
	struct native n;
	u16 in_temp; /* guest registers that have a stand-in */
	u16 busy;    /* host registers taken */
	u8 spilled[3];
	u8 spill_count;
	bool writes_flags, restores;
};

static unsigned take_spilled(struct lower *l, struct standins *s)
{
	for (unsigned i = 0; i < ARRAY_SIZE(spillable); i++) {
		unsigned r = spillable[i];

		if (s->busy & 1u << r || s->n.used & 1u << r ||
		    s->spill_count == ARRAY_SIZE(s->spilled))
			continue;
		s->busy |= 1u << r;
		s->spilled[s->spill_count++] = r;
		return r;
	}
	l->is_refused = true;
	return S0;
}

static unsigned take_temp(struct lower *l, struct standins *s)
{
	static const u8 order[] = {S0, S1};

	for (unsigned i = 0; i < ARRAY_SIZE(order); i++) {
		if (!(s->busy & 1u << order[i])) {
			s->busy |= 1u << order[i];
			return order[i];
		}
	}
	return take_spilled(l, s);
}

/* Must guest register r be in the host register of the same number? */
static bool is_forced(const struct native *n, unsigned r)
{
	return n->fixed & 1u << r || (n->has_high_byte && r < 4);
}

static void choose_host_registers(struct lower *l, struct standins *s)
{
	struct native *n = &s->n;
	u16 homeless = 0;

	for (u32 left = n->used; left; left &= left - 1) {
		unsigned r = (unsigned)__builtin_ctz(left);
		unsigned home = xlat_host_of[r];

		if (is_forced(n, r)) {
			n->host[r] = r;
			if (home != r)
				s->in_temp |= 1u << r;
		} else if (home == H_NONE || (n->has_high_byte && home >= 8)) {
			homeless |= 1u << r;
			continue;
		} else {
			n->host[r] = home;
		}
		s->busy |= 1u << n->host[r];
	}
	if (n->in->is_mem) {
		/* Flags come back through RAX. */
		if (s->restores && !(s->busy & 1u << S1))
			n->ptr = S1, s->busy |= 1u << S1;
		else if (s->restores)
			n->ptr = take_spilled(l, s);
		else
			n->ptr = take_temp(l, s);
	}
	s->in_temp |= homeless;
	for (u32 left = homeless; left; left &= left - 1)
		n->host[__builtin_ctz(left)] = (u8)take_temp(l, s);
}

static bool may_fault(const struct insn *in)
{
	return in->row->op == ISA_OP_DIV || in->row->op == ISA_OP_IDIV ||
	       in->row->attr & (ISA_FP | ISA_ALIGN | ISA_X87 | ISA_MMX);
}

static void note_fault(struct lower *l)
{
	struct xlat_fault *f;

	if (l->fault_count == LOWER_FAULTS) {
		l->is_refused = true;
		return;
	}
	f = &l->faults[l->fault_count++];
	f->host = l->e.pos;
	f->guest = l->i->off | (l->flags_in_regs ? XLAT_FAULT_RFLAGS : 0);
}

static void emit_native(struct lower *l, struct standins *s)
{
	struct native *n = &s->n;

	for (unsigned i = 0; i < s->spill_count; i++)
		if (s->spilled[i] != n->ptr)
			e_store(&l->e, 8, m_env(ENV_OFF(spill) + 8 * (i32)i),
				s->spilled[i]);
	for (u32 left = s->in_temp; left; left &= left - 1) {
		unsigned r = (unsigned)__builtin_ctz(left);

		lower_get(l, n->host[r], r);
	}
	if (!native_encode(n)) {
		l->is_refused = true;
		return;
	}
	if (may_fault(n->in)) {
		if (s->spill_count)
			l->is_refused = true;
		note_fault(l);
	}
	e_bytes(&l->e, n->op, n->op_len);
	for (u32 left = s->in_temp & n->written; left; left &= left - 1) {
		unsigned r = (unsigned)__builtin_ctz(left);

		lower_put(l, r, n->host[r]);
	}
	for (unsigned i = 0; i < s->spill_count; i++)
		e_load(&l->e, 8, s->spilled[i],
		       m_env(ENV_OFF(spill) + 8 * (i32)i));
}

static bool accesses(const struct isa_row *row, bool is_write)
{
	for (unsigned i = 0; i < ISA_OPERANDS; i++) {
		const struct isa_operand *d = &row->operands[i];

		if (d->kind != ISA_O_GPR_RM && d->kind != ISA_O_MEM &&
		    d->kind != ISA_O_XMM_RM && d->kind != ISA_O_MMX_RM)
			continue;
		if (!is_write)
			return d->access != ISA_A_W;
		return d->access == ISA_A_W || d->access == ISA_A_RW ||
		       d->access == ISA_A_CW;
	}
	return false;
}

/* The host address of the memory operand in n->ptr. */
static void lookup_operand(struct lower *l, struct standins *s)
{
	struct native *n = &s->n;
	const struct insn *in = n->in;
	unsigned to = n->ptr == S1 ? S1 : S0;
	struct emem m =
		lower_operand(l, 0, accesses(in->row, true), in->mem_size, to);

	n->ptr_disp = m.disp;
	if (n->ptr == to)
		return;
	for (unsigned i = 0; i < s->spill_count; i++)
		if (s->spilled[i] == n->ptr)
			e_store(&l->e, 8, m_env(ENV_OFF(spill) + 8 * (i32)i),
				n->ptr);
	e_mov(&l->e, 8, n->ptr, to);
}

/* Is RAX as it was? */
static bool keeps_s0(const struct standins *s)
{
	return !(s->busy & 1u << S0) || (s->n.in->is_mem && s->n.ptr == S0);
}

static void lower_pass(struct lower *l, const struct insn *in)
{
	const struct isa_row *row = in->row;
	u16 passing = l->i->live_out & (u16)~l->i->writes;
	struct standins s = {0};

	native_init(&s.n, in, l->is_32 ? X86_MODE_32 : X86_MODE_64);
	s.writes_flags = row->flags_changed | row->flags_undefined;
	s.restores = l->i->reads || (s.writes_flags && passing);
	choose_host_registers(l, &s);
	if (in->is_mem) {
		if (!in->mem_size) {
			l->is_refused = true;
			return;
		}
		lower_flags_for_access(l, ACCESS_OPERAND);
		lookup_operand(l, &s);
	}
	if (s.restores)
		lower_flags_to_regs(l);
	if (!keeps_s0(&s))
		l->s0_group = GROUP_NONE;
	l->keeps_s0 = true;
	emit_native(l, &s);
	if (s.writes_flags) {
		l->flags_in_regs = true;
		l->flags_in_env = false;
	}
}

/* ---- the frequent moves, in fewer instructions ---- */

static bool is_plain_gpr(const struct lower *l, unsigned guest, unsigned size)
{
	return xlat_host_of[guest] != H_NONE && size >= 4;
}

/* Host register = guest register; `size` 4 zero-extends. */
static void move_gpr(struct lower *l, unsigned size, unsigned host,
		     unsigned guest)
{
	if (xlat_host_of[guest] == H_NONE)
		e_load(&l->e, size, host, m_gpr(guest));
	else if (size == 4 || xlat_host_of[guest] != host)
		e_mov(&l->e, size, host, xlat_host_of[guest]);
}

/* MOV between memory and a pinned register; false: use lower_pass. */
static bool lower_mov(struct lower *l, const struct insn *in)
{
	bool is_load = in->opcode == 0x8b;
	if (in->map != ISA_MAP_1B || (in->opcode != 0x8b && in->opcode != 0x89))
		return false;
	if (!in->is_mem) {
		unsigned d = is_load ? in->reg : in->rm;
		unsigned s = is_load ? in->rm : in->reg;

		if (in->osize < 4)
			return false;
		if (xlat_host_of[d] != H_NONE) {
			l->keeps_s0 = true;
			move_gpr(l, in->osize, xlat_host_of[d], s);
			return true;
		}
		if (in->osize == 8 && xlat_host_of[s] != H_NONE) {
			l->keeps_s0 = true;
			lower_put(l, d, xlat_host_of[s]);
			return true;
		}
		return false;
	}
	if (!is_load || !is_plain_gpr(l, in->reg, in->osize))
		return false;
	lower_flags_for_access(l, ACCESS_OPERAND);
	e_load(&l->e, in->osize, xlat_host_of[in->reg],
	       lower_operand(l, 0, false, in->osize, S0));
	l->keeps_s0 = true;
	return true;
}

static bool lower_lea_insn(struct lower *l, const struct insn *in)
{
	unsigned d = xlat_host_of[in->reg];

	if (in->row->op != ISA_OP_LEA)
		return false;
	if (d != H_NONE && in->osize == 8) {
		lower_lea(l, in, d);
		return true;
	}
	lower_lea(l, in, S0);
	if (in->osize == 2) {
		lower_get(l, S1, in->reg);
		e_mov(&l->e, 2, S1, S0);
		lower_put(l, in->reg, S1);
		return true;
	}
	if (in->osize == 4)
		e_mov(&l->e, 4, S0, S0);
	lower_put(l, in->reg, S0);
	return true;
}

/* MOV between rAX and an absolute address. */
static bool lower_moffs(struct lower *l, const struct insn *in)
{
	unsigned size = in->opcode & 1 ? in->osize : 1;
	bool is_write = in->opcode & 2;

	if (in->map != ISA_MAP_1B || (in->opcode & 0xfc) != 0xa0)
		return false;
	lower_flags_spill(l, lower_live_in(l));
	lower_ea(l, in, 0);
	lower_lookup(l, is_write, size, S0);
	if (is_write)
		e_store(&l->e, size, m_b(S0, 0), H_R10);
	else
		e_load(&l->e, size, H_R10, m_b(S0, 0));
	return true;
}

static bool is_dropped(u16 op)
{
	switch (op) {
	case ISA_OP_NOP:
	case ISA_OP_PREFETCH:
	case ISA_OP_PREFETCHW:
	case ISA_OP_PREFETCHNTA:
	case ISA_OP_PREFETCHT0:
	case ISA_OP_PREFETCHT1:
	case ISA_OP_PREFETCHT2:
		return true;
	default:
		return false;
	}
}

/* Fences that mean the same on the host, and PAUSE. */
static bool lower_fixed(struct lower *l, const struct insn *in)
{
	switch (in->row->op) {
	case ISA_OP_PAUSE:
		lower_leaf(l, XT_LEAF_PAUSE, 0);
		return true;
	case ISA_OP_LFENCE:
		e_bytes(&l->e, (const u8[]){0x0f, 0xae, 0xe8}, 3);
		return true;
	case ISA_OP_MFENCE:
		e_bytes(&l->e, (const u8[]){0x0f, 0xae, 0xf0}, 3);
		return true;
	case ISA_OP_SFENCE:
		e_bytes(&l->e, (const u8[]){0x0f, 0xae, 0xf8}, 3);
		return true;
	case ISA_OP_VZEROUPPER:
		e_bytes(&l->e, (const u8[]){0xc5, 0xf8, 0x77}, 3);
		return true;
	case ISA_OP_VZEROALL:
		e_bytes(&l->e, (const u8[]){0xc5, 0xfc, 0x77}, 3);
		return true;
	default:
		return false;
	}
}

static void lower_class(struct lower *l)
{
	const struct insn *in = &l->i->in;

	if (is_dropped(in->row->op) || lower_fixed(l, in))
		return;
	switch (in->row->class) {
	case ISA_PASS:
		if (!lower_lea_insn(l, in) && !lower_moffs(l, in) &&
		    !lower_mov(l, in))
			lower_pass(l, in);
		return;
	case ISA_CTRL:
		if (!lower_ctrl(l))
			l->is_refused = true;
		return;
	case ISA_MEMX:
		if (!lower_memx(l))
			l->is_refused = true;
		return;
	case ISA_STR:
		if (!lower_str(l))
			l->is_refused = true;
		return;
	case ISA_SYS:
	case ISA_INTERP:
		if (!lower_sys(l) && !lower_ctrl(l))
			l->is_refused = true;
		return;
	default:
		l->is_refused = true;
	}
}

static void lower_insn(struct lower *l)
{
	u16 op = l->i->in.row->op;

	l->keeps_s0 = op == ISA_OP_PUSH_REG || op == ISA_OP_POP_REG ||
		      op == ISA_OP_PUSH_IMM || is_dropped(op);
	lower_class(l);
	if (!l->keeps_s0)
		l->s0_group = GROUP_NONE;
}

/* ---- the block ---- */

static void emit_entries(struct lower *l, struct xlat_block *b, u16 live)
{
	e_align(&l->e, 8);
	b->code = l->code = l->e.pos;
	l->flags_in_env = live != 0;
	l->flags_in_regs = false;
	/* Two entries also when no flag is live: once the block is dead, who
	 * comes indirectly has its flags in v->aflags still. */
	if (live)
		lower_flags_to_regs(l);
	else /* a nop as long as the alignment */
		e_bytes(&l->e,
			(const u8[]){0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00,
				     0x00},
			8);
	e_align(&l->e, 8);
	b->direct = (u8)(l->e.pos - b->code);
	/* One instruction of five bytes, which nobody can stand in the middle
	 * of when xlat_kill() overwrites it. (The other entry has a load.) */
	e_bytes(&l->e, (const u8[]){0x0f, 0x1f, 0x44, 0x00, 0x00}, 5);
	/* Who comes directly brings them in RFLAGS only. */
	l->flags_in_env = false;
	l->flags_in_regs = live != 0;
}

static void emit_end(struct lower *l)
{
	const struct xlat_trace *t = l->t;

	switch (t->end_kind) {
	case XLAT_END_NEXT:
		lower_exit_to(l, t->next_off, t->end_live);
		break;
	case XLAT_END_PAGE:
		if (t->end_live)
			lower_flags_to_env(l);
		lower_code_address(l, S0, t->next_off);
		lower_probe(l);
		break;
	case XLAT_END_INTERP:
		lower_leave(l, t->next_off, XLAT_EXIT_INTERP, t->end_live);
		break;
	default:
		break;
	}
}

static void emit_cold(struct lower *l, struct xlat_block *b)
{
	struct emit *e = &l->e;

	if (e->is_full)
		return;
	e->pos = b->cold = l->cold;
	e->end = l->cold + LOWER_CODE_MAX;
	lower_emit_colds(l);
	b->cold_bytes = (u16)(e->pos - b->cold);
}

static u16 entry_live(const struct xlat_trace *t)
{
	if (!t->n)
		return t->end_live;
	return (t->insns[0].live_out & ~t->insns[0].writes) | t->insns[0].reads;
}

bool lower_trace(struct lower *l, struct xlat_block *b)
{
	const struct xlat_trace *t = l->t;

	groups_find(&l->g, t);
	l->is_32 = t->key & XLAT_KEY_32;
	l->is_user = t->key & XLAT_KEY_USER;
	l->exit_count = l->fault_count = l->cold_count = 0;
	l->is_refused = false;
	l->poll_behind = 0;
	l->s0_group = GROUP_NONE;
	emit_entries(l, b, entry_live(t));
	for (unsigned k = 0; k < t->n && !l->is_refused; k++) {
		l->i = &t->insns[k];
		if (l->g.early[k])
			lower_early(l, l->g.early[k] - 1u);
		lower_insn(l);
		if (l->poll_behind && !--l->poll_behind && k + 1 < t->n)
			lower_poll(l, t->insns[k + 1].off, l->i->live_out);
	}
	emit_end(l);
	e_align(&l->e, 8);
	b->code_bytes = (u16)(l->e.pos - b->code);
	emit_cold(l, b);
	return !l->is_refused && !l->e.is_full;
}
