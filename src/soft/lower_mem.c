/* SPDX-License-Identifier: Apache-2.0 */
/* Memory operands, the stack, and the ISA_MEMX rows.
 *
 * THEORY. The sequence in front of every access (engine.md 4.3):
 *
 *	lea  rax, [EA]
 *	rorx rcx, rax, 7	; page number * 32
 *	and  ecx, 4095 * 32
 *	sub  rax, tag(rcx)	; offset in the page, if it is this page
 *	cmp  rax, 4096 - size	; crossing, too
 *	ja   cold
 *	add  rax, hva_page(rcx)
 *
 * tag is tag_r for loads, tag_w for stores and read-modify-write. The cold
 * code has the entry filled and comes back behind the lea. Where code runs
 * often (slots.h) the access has a slot of its own in front of the TLB, at a
 * constant place, and rorx and and are not needed.
 */
#include "soft/lower.h"

#include "soft/access.h"

/* ---- guest registers ---- */

void lower_get(struct lower *l, unsigned host, unsigned guest)
{
	unsigned home = xlat_host_of[guest];

	if (home == H_NONE)
		e_load(&l->e, 8, host, m_gpr(guest));
	else if (home != host)
		e_mov(&l->e, 8, host, home);
}

void lower_put(struct lower *l, unsigned guest, unsigned host)
{
	unsigned home = xlat_host_of[guest];

	if (home == H_NONE)
		e_store(&l->e, 8, m_gpr(guest), host);
	else if (home != host)
		e_mov(&l->e, 8, home, host);
}

void lower_add_sp(struct lower *l, i32 n)
{
	e_lea(&l->e, lower_stack_size(l), H_R15, m_b(H_R15, n));
}

/* ---- addresses ---- */

void lower_code_address(struct lower *l, unsigned host, i64 disp)
{
	unsigned size = l->is_32 ? 4 : 8;

	e_load(&l->e, 8, host, m_env(ENV_OFF(pcbase)));
	while (disp != (i32)disp) {
		i32 part = disp < 0 ? INT32_MIN : INT32_MAX;

		e_lea(&l->e, size, host, m_b(host, part));
		disp -= part;
	}
	if (disp || l->is_32)
		e_lea(&l->e, size, host, m_b(host, (i32)disp));
}

/* base + index * scale + disp into d, in asize; no flags. `extra` is added.
 * Uses RCX only, besides d. */
static void effective_address(struct lower *l, const struct insn *in, i32 extra,
			      unsigned d)
{
	unsigned size = in->asize == 8 ? 8 : 4;
	struct emem m = {.base = H_NONE, .index = H_NONE};
	i64 disp = (i64)in->disp + extra;

	if (in->base == X86_REG_RIP) {
		disp += l->i->off + in->len;
		lower_code_address(l, d, disp);
		if (size == 4)
			e_mov(&l->e, 4, d, d);
		return;
	}
	if (disp != (i32)disp) /* a displacement at the edge, plus extra */
		l->is_refused = true;
	m.disp = (i32)disp;
	m.scale = in->scale;
	if (in->base < 16) {
		m.base = xlat_host_of[in->base];
		if (m.base == H_NONE) {
			lower_get(l, S0, in->base);
			m.base = S0;
		}
	}
	if (in->index < 16) {
		m.index = xlat_host_of[in->index];
		if (m.index == H_NONE) {
			lower_get(l, S1, in->index);
			m.index = S1;
		}
	}
	if (m.base == H_NONE && m.index == H_NONE) {
		e_mov_ri(&l->e, d, size == 8 ? (u64)(i64)m.disp : (u32)m.disp);
		return;
	}
	if (m.index == H_NONE && !m.disp)
		e_mov(&l->e, size, d, m.base);
	else
		e_lea(&l->e, size, d, m);
}

void lower_lea(struct lower *l, const struct insn *in, unsigned d)
{
	effective_address(l, in, 0, d);
}

/* In 32-bit code an operand that wraps round in its segment is for the
 * interpreter. Most are at a fixed place in a thread's storage. */
static void check_wrap(struct lower *l, const struct insn *in)
{
	i32 last = -(i32)(in->mem_size ? in->mem_size : in->osize);
	bool is_fixed = in->has_modrm && in->base == X86_REG_NONE &&
			in->index == X86_REG_NONE;
	struct cold *c;

	if (last == -1 || (is_fixed && (u32)in->disp <= (u32)last))
		return;
	e_alu_ri(&l->e, 4, ALU_CMP, S0, last);
	c = lower_cold(l, COLD_EXIT, e_jcc(&l->e, CC_A, 0));
	c->off = l->i->off;
	c->arg = XLAT_EXIT_INTERP;
}

static void add_segment_base(struct lower *l, const struct insn *in)
{
	i32 off;

	if (in->seg != X86_FS && in->seg != X86_GS)
		return;
	if (l->is_32)
		check_wrap(l, in);
	off = ENV_OFF(segs) + (i32)sizeof(struct soft_seg) * in->seg +
	      (i32)offsetof(struct soft_seg, base);
	e_alu_rm(&l->e, l->is_32 ? 4 : 8, ALU_ADD, S0, m_env(off));
}

void lower_ea(struct lower *l, const struct insn *in, i32 extra)
{
	if (in->has_modrm)
		effective_address(l, in, extra, S0);
	else /* moffs */
		e_mov_ri(&l->e, S0, in->imm & soft_mask(in->asize));
	add_segment_base(l, in);
}

/* ---- lookup ---- */

/* A field of the TLB entry that RCX selects. */
static struct emem tlb_field(const struct lower *l, i32 field)
{
	struct emem m = m_bi(ENV, S1, 0, ENV_OFF(super.tlb) + field);

	if (l->is_user) {
		m = m_b(S1, (i32)offsetof(struct soft_space, tlb) + field);
		m.is_gs = true;
	}
	return m;
}

/* A field of the slot at this offset. */
static struct emem slot_field(u32 slot, i32 field)
{
	struct emem m = m_b(H_NONE, (i32)slot + field);

	m.is_gs = true;
	return m;
}

/* The fields of an entry, or of a slot. */
struct place {
	struct emem tag, hva;
};

/* From SUB on. `c` gets where its fields stand. */
static void emit_check(struct emit *e, struct place p, unsigned size,
		       unsigned to, struct canned *c)
{
	e_alu_rm(e, 8, ALU_SUB, S0, p.tag);
	e_alu_ri(e, 8, ALU_CMP, S0, (i32)(PAGE_BYTES - size));
	c->size = (u8)(e->pos - 4);
	c->target = (u8)e_jcc(e, CC_A, 0);
	if (to == S0) {
		e_alu_rm(e, 8, ALU_ADD, S0, p.hva);
	} else {
		e_load(e, 8, S1, p.hva);
		e_alu_rr(e, 8, ALU_ADD, S1, S0);
	}
	ASSERT(!e->is_full);
	c->n = (u8)e->pos;
}

static void make_lookup(const struct lower *l, bool is_write, unsigned to,
			struct canned *c)
{
	struct emit e = {.rw = c->bytes, .end = sizeof(c->bytes)};
	i32 tag = is_write ? offsetof(struct soft_tlb_entry, tag_w)
			   : offsetof(struct soft_tlb_entry, tag_r);
	struct place p = {
		tlb_field(l, tag),
		tlb_field(l, offsetof(struct soft_tlb_entry, hva_page)),
	};

	e_rorx(&e, S1, S0, 7, l->has_bmi2);
	e_alu_ri(&e, 4, ALU_AND, S1, (SOFT_TLB_ENTRIES - 1) << 5);
	emit_check(&e, p, 1, to, c);
}

static void make_slot_lookup(u32 slot, unsigned to, struct canned *c)
{
	struct emit e = {.rw = c->bytes, .end = sizeof(c->bytes)};
	struct place p = {
		slot_field(slot, offsetof(struct soft_slot, tag)),
		slot_field(slot, offsetof(struct soft_slot, hva_page)),
	};

	emit_check(&e, p, 1, to, c);
}

/* The offset of the slot that the access looks into; 0: into the TLB. */
static u32 slot_of(struct lower *l, bool is_write)
{
	if (!l->slots || !l->is_user)
		return 0;
	return slots_take(l->slots, is_write, l->t->page + l->i->off, l->block);
}

static struct cold *emit_lookup(struct lower *l, bool is_write, unsigned size,
				unsigned to, unsigned kind)
{
	struct canned *c = &l->lookups[l->is_user][is_write][to == S1];
	u32 back = l->e.pos, slot = slot_of(l, is_write);
	struct canned by_slot;
	struct cold *cold;

	if (!size || size > GROUP_SPAN)
		l->is_refused = true;
	if (slot) {
		c = &by_slot;
		memset(c, 0, sizeof(*c));
		make_slot_lookup(slot, to, c);
	} else if (!c->n) {
		make_lookup(l, is_write, to, c);
	}
	e_canned(&l->e, c);
	if (!l->e.is_full)
		st_le32(l->e.rw + back + c->size, PAGE_BYTES - size);
	cold = lower_cold(l, kind, back + c->target);
	cold->arg = is_write;
	cold->back = back;
	cold->slot = slot;
	l->flags_in_regs = false;
	l->s0_group = GROUP_NONE;
	return cold;
}

void lower_lookup(struct lower *l, bool is_write, unsigned size, unsigned to)
{
	emit_lookup(l, is_write, size, to, COLD_LOOKUP);
}

/* ---- accesses that share a lookup ---- */

static const struct access *access_of(const struct lower *l, unsigned kind)
{
	const struct access *a = &l->g.at[l->i - l->t->insns][kind];

	return a->group == GROUP_NONE ? NULL : a;
}

bool lower_is_member(const struct lower *l, unsigned kind)
{
	const struct access *a = access_of(l, kind);

	return a && !a->is_head;
}

void lower_flags_for_access(struct lower *l, unsigned kind)
{
	if (!lower_is_member(l, kind))
		lower_flags_spill(l, lower_live_in(l));
}

static struct emem group_slot(const struct group *g)
{
	i32 near = ARRAY_SIZE(((struct vcpu *)NULL)->group);

	return m_env(g->slot < near
			     ? ENV_OFF(group) + 8 * (i32)g->slot
			     : ENV_OFF(group_more) + 8 * ((i32)g->slot - near));
}

/* RAX = address of the span's first byte. */
static void emit_head(struct lower *l, const struct access *a, unsigned to)
{
	const struct group *g = &l->g.groups[a->group];
	struct cold *c = emit_lookup(
		l, g->is_write, (unsigned)(g->max - g->min), to, COLD_GROUP);

	c->restores = lower_live_in(l) != 0;
	e_store(&l->e, 8, group_slot(g), to);
	if (to == S0)
		l->s0_group = a->group;
}

void lower_early(struct lower *l, unsigned k)
{
	const struct access *a = &l->g.at[k][ACCESS_OPERAND];
	const struct xlat_insn *here = l->i;

	if (a->group == GROUP_NONE) /* no slot was left */
		return;
	l->i = &l->t->insns[k];
	lower_ea(l, &l->i->in, -a->rel);
	l->i = here;
	emit_head(l, a, S0);
}

static struct emem emit_member(struct lower *l, const struct access *a,
			       unsigned to)
{
	if (to != S0 || l->s0_group != a->group)
		e_load(&l->e, 8, to, group_slot(&l->g.groups[a->group]));
	if (to == S0)
		l->s0_group = a->group;
	return m_b(to, a->rel);
}

struct emem lower_operand(struct lower *l, i32 extra, bool is_write,
			  unsigned size, unsigned to)
{
	const struct access *a = access_of(l, ACCESS_OPERAND);

	if (!a) {
		lower_ea(l, &l->i->in, extra);
		lower_lookup(l, is_write, size, to);
		return m_b(to, 0);
	}
	if (!a->is_head)
		return emit_member(l, a, to);
	lower_ea(l, &l->i->in, extra - a->rel);
	emit_head(l, a, to);
	return m_b(to, a->rel);
}

struct emem lower_stack(struct lower *l, bool is_write, i32 disp, unsigned to)
{
	const struct access *a = access_of(l, ACCESS_STACK);
	unsigned size = lower_stack_size(l);

	if (a && !a->is_head)
		return emit_member(l, a, to);
	if (a)
		disp -= a->rel;
	if (disp)
		e_lea(&l->e, size, S0, m_b(H_R15, disp));
	else
		e_mov(&l->e, size, S0, H_R15);
	if (!a) {
		lower_lookup(l, is_write, size, to);
		return m_b(to, 0);
	}
	emit_head(l, a, to);
	return m_b(to, a->rel);
}

/* ---- push and pop ---- */

#define SPILL(n) m_env(ENV_OFF(spill) + 8 * (n))

static void lower_push_reg(struct lower *l, unsigned guest)
{
	unsigned size = lower_stack_size(l);
	unsigned host = xlat_host_of[guest];
	struct emem m = lower_stack(l, true, -(i32)size, S0);

	if (host == H_NONE) {
		lower_get(l, S1, guest);
		host = S1;
	}
	e_store(&l->e, size, m, host);
	lower_add_sp(l, -(i32)size);
}

static void lower_push_imm(struct lower *l, i32 imm)
{
	unsigned size = lower_stack_size(l);

	e_mov_mi(&l->e, size, lower_stack(l, true, -(i32)size, S0), imm);
	lower_add_sp(l, -(i32)size);
}

static void lower_push_mem(struct lower *l)
{
	unsigned size = lower_stack_size(l);
	struct emem m = lower_operand(l, 0, false, size, S0);

	e_load(&l->e, size, S0, m);
	l->s0_group = GROUP_NONE;
	e_store(&l->e, 8, SPILL(0), S0);
	m = lower_stack(l, true, -(i32)size, S0);
	e_load(&l->e, size, S1, SPILL(0));
	e_store(&l->e, size, m, S1);
	lower_add_sp(l, -(i32)size);
}

static void lower_pop_reg(struct lower *l, unsigned guest)
{
	unsigned size = lower_stack_size(l);
	unsigned host = xlat_host_of[guest];
	struct emem m = lower_stack(l, false, 0, S0);

	if (guest == X86_RSP) {
		e_load(&l->e, size, H_R15, m);
		return;
	}
	if (host == H_NONE) {
		e_load(&l->e, size, S1, m);
		lower_put(l, guest, S1);
	} else {
		e_load(&l->e, size, host, m);
	}
	lower_add_sp(l, (i32)size);
}

static void lower_pop_mem(struct lower *l, const struct insn *in)
{
	unsigned size = lower_stack_size(l);
	struct emem m = lower_stack(l, false, 0, S0);

	e_load(&l->e, size, S0, m);
	l->s0_group = GROUP_NONE;
	e_store(&l->e, 8, SPILL(0), S0);
	/* An address based on rSP uses the value behind the pop. */
	m = lower_operand(l, in->base == X86_RSP ? (i32)size : 0, true, size,
			  S0);
	e_load(&l->e, size, S1, SPILL(0));
	e_store(&l->e, size, m, S1);
	lower_add_sp(l, (i32)size);
}

static void lower_leave_insn(struct lower *l)
{
	const struct access *a = access_of(l, ACCESS_STACK);
	unsigned size = lower_stack_size(l);
	struct emem m = m_b(S0, 0);

	if (a && !a->is_head) {
		m = emit_member(l, a, S0);
	} else {
		e_lea(&l->e, size, S0, m_b(H_RBP, a ? -a->rel : 0));
		if (a) {
			emit_head(l, a, S0);
			m.disp = a->rel;
		} else {
			lower_lookup(l, false, size, S0);
		}
	}
	e_lea(&l->e, size, H_R15, m_b(H_RBP, (i32)size));
	e_load(&l->e, size, H_RBP, m);
}

/* ---- bit strings ---- */

static unsigned log2_of(unsigned size)
{
	return size == 8 ? 3 : size == 4 ? 2 : 1;
}

/* The operand may lie anywhere: its address moves by the bit offset's whole
 * operands, and the host gets what is left of the offset. */
static void lower_bit_string(struct lower *l, const struct insn *in)
{
	unsigned lg = log2_of(in->osize), asize = in->asize == 8 ? 8 : 4;
	bool is_write = in->row->op != ISA_OP_BT;
	u16 passing = l->i->live_out & (u16)~l->i->writes;
	struct native n;

	/* RAX: the address without the offset's part. */
	effective_address(l, in, 0, S0);
	lower_get(l, S1, in->reg);
	if (in->osize == 4)
		e_op_rr(&l->e, 8, 0x63, S1, S1); /* movsxd */
	else if (in->osize == 2)
		e_op_rr(&l->e, 8, 0x0fbf, S1, S1); /* movsx */
	e_shift_ri(&l->e, 8, 7, S1, 3 + lg);
	e_lea(&l->e, asize, S0, m_bi(S0, S1, lg, 0));
	add_segment_base(l, in);
	lower_lookup(l, is_write, in->osize, S0);
	e_store(&l->e, 8, SPILL(0), H_RSI);
	native_init(&n, in, l->is_32 ? X86_MODE_32 : X86_MODE_64);
	lower_get(l, S1, in->reg);
	e_alu_ri(&l->e, 4, ALU_AND, S1, (i32)(8 * in->osize - 1));
	e_mov(&l->e, 8, H_RSI, S0);
	if (passing)
		lower_flags_to_regs(l);
	n.host[in->reg] = S1;
	n.ptr = H_RSI;
	if (!native_encode(&n)) {
		l->is_refused = true;
		return;
	}
	e_bytes(&l->e, n.op, n.op_len);
	e_load(&l->e, 8, H_RSI, SPILL(0));
	l->flags_in_regs = true;
	l->flags_in_env = false;
}

/* ---- CMPXCHG8B, CMPXCHG16B ---- */

static void lower_cmpxchg8b(struct lower *l, const struct insn *in)
{
	u16 passing = l->i->live_out & (u16)~l->i->writes;
	bool is_16 = in->mem_size == 16;

	lower_ea(l, in, 0);
	if (is_16) {				/* #GP when misaligned */
		e_op_rr(&l->e, 1, 0xf6, 0, S0); /* test al, 15 */
		e_b(&l->e, 15);
		struct cold *c =
			lower_cold(l, COLD_EXIT, e_jcc(&l->e, CC_NE, 0));
		c->off = l->i->off;
		c->arg = XLAT_EXIT_INTERP;
	}
	lower_lookup(l, true, in->mem_size, S0);
	e_store(&l->e, 8, SPILL(0), H_RSI);
	e_mov(&l->e, 8, H_RSI, S0);
	if (passing)
		lower_flags_to_regs(l);
	lower_get(l, S0, X86_RAX);
	lower_get(l, S1, X86_RCX);
	if (in->prefixes & X86_P_LOCK)
		e_b(&l->e, 0xf0);
	e_op_rm(&l->e, is_16 ? 8 : 4, 0x0fc7, 1, m_b(H_RSI, 0));
	lower_put(l, X86_RAX, S0);
	e_load(&l->e, 8, H_RSI, SPILL(0));
	l->flags_in_regs = true;
	l->flags_in_env = false;
}

/* ---- XLAT ---- */

static void lower_xlat(struct lower *l, const struct insn *in)
{
	unsigned size = in->asize == 8 ? 8 : 4;

	e_op_rr(&l->e, 4, 0x0fb6, S0, H_R10); /* movzx eax, r10b */
	e_lea(&l->e, size, S0, m_bi(H_RBX, S0, 0, 0));
	add_segment_base(l, in);
	lower_lookup(l, false, 1, S0);
	e_load(&l->e, 1, H_R10, m_b(S0, 0));
}

bool lower_memx(struct lower *l)
{
	const struct insn *in = &l->i->in;

	if (in->is_mem || !lower_is_member(l, ACCESS_STACK))
		lower_flags_spill(l, lower_live_in(l));
	switch (in->row->op) {
	case ISA_OP_PUSH_REG:
		lower_push_reg(l, in->rm);
		return true;
	case ISA_OP_PUSH_IMM:
		lower_push_imm(l, (i32)in->imm);
		return true;
	case ISA_OP_PUSH_RM:
		if (in->is_mem)
			lower_push_mem(l);
		else
			lower_push_reg(l, in->rm);
		return true;
	case ISA_OP_POP_REG:
		lower_pop_reg(l, in->rm);
		return true;
	case ISA_OP_POP_RM:
		if (in->is_mem)
			lower_pop_mem(l, in);
		else
			lower_pop_reg(l, in->rm);
		return true;
	case ISA_OP_LEAVE:
		lower_leave_insn(l);
		return true;
	case ISA_OP_BT:
	case ISA_OP_BTS:
	case ISA_OP_BTR:
	case ISA_OP_BTC:
		lower_bit_string(l, in);
		return true;
	case ISA_OP_CMPXCHG8B:
		lower_cmpxchg8b(l, in);
		return true;
	case ISA_OP_XLAT:
		lower_xlat(l, in);
		return true;
	default:
		return false;
	}
}
