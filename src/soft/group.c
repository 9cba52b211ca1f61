/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY. One pass forward keeps for each guest register a value: a version,
 * which is new whenever the register gets a value that is not known, and an
 * offset from it. ADD, SUB, INC, DEC and LEA by constants and PUSH and POP
 * change the offset; MOV copies the value. An access has the key (version of
 * base, version of index, scale); accesses of equal key join a group as long
 * as its span stays small. An instruction that may change translations or
 * registers at will (a system instruction) ends all groups.
 */
#include "soft/group.h"

#include "soft/access.h"
#include "soft/encode.h"

#define VALUE_RIP  1 /* version of the page's own address */
#define VALUE_NONE 0

struct value {
	u32 version;
	i64 off;
};

struct key {
	u32 base, index;
	u8 scale;
};

struct finder {
	struct groups *g;
	const struct xlat_trace *t;
	struct value regs[16];
	u32 next_version;
	struct key keys[GROUPS_MAX];
	bool is_open[GROUPS_MAX];
	/* Only read so far, and a branch has come: a store behind it may never
	 * happen, and its page need not be writable. */
	bool is_sealed[GROUPS_MAX];
};

static void forget(struct finder *f, u32 regs)
{
	for (regs &= 0xffff; regs; regs &= regs - 1)
		f->regs[__builtin_ctz(regs)] =
			(struct value){f->next_version++, 0};
}

/* ---- accesses ---- */

static int find_group(struct finder *f, const struct key *k, i64 off,
		      unsigned size, bool is_write)
{
	struct groups *g = f->g;

	for (unsigned i = 0; i < g->n; i++) {
		struct group *c = &g->groups[i];

		if (!f->is_open[i] || f->keys[i].base != k->base ||
		    f->keys[i].index != k->index ||
		    f->keys[i].scale != k->scale ||
		    (is_write && f->is_sealed[i]))
			continue;
		if (MAX(c->max, off + (i64)size) - MIN(c->min, off) <=
		    (i64)GROUP_SPAN)
			return (int)i;
	}
	if (g->n == GROUPS_MAX)
		return -1;
	f->keys[g->n] = *k;
	f->is_open[g->n] = true;
	f->is_sealed[g->n] = false;
	g->groups[g->n] = (struct group){.min = off, .max = off + (i64)size};
	return (int)g->n++;
}

static void add_access(struct finder *f, struct access *a, const struct key *k,
		       i64 off, unsigned size, bool is_write)
{
	int i = find_group(f, k, off, size, is_write);
	struct group *c;

	if (i < 0)
		return;
	c = &f->g->groups[i];
	c->min = MIN(c->min, off);
	c->max = MAX(c->max, off + (i64)size);
	c->is_write |= is_write;
	a->group = (u8)i;
	a->is_head = !c->count++;
	a->rel = (i32)off; /* made relative at the end */
}

static void add_operand(struct finder *f, struct access *a,
			const struct xlat_insn *x, i64 extra, unsigned size,
			bool is_write)
{
	const struct insn *in = &x->in;
	struct key k = {VALUE_NONE, VALUE_NONE, 0};
	i64 off = in->disp + extra;

	if (!in->has_modrm || in->asize != 8 || in->seg == X86_FS ||
	    in->seg == X86_GS || !size)
		return;
	if (in->base == X86_REG_RIP) {
		k.base = VALUE_RIP;
		off += x->off + in->len;
	} else if (in->base < 16) {
		k.base = f->regs[in->base].version;
		off += f->regs[in->base].off;
	}
	if (in->index < 16) {
		k.index = f->regs[in->index].version;
		k.scale = in->scale;
		off += (i64)((u64)f->regs[in->index].off << in->scale);
	}
	if (off != (i32)off)
		return;
	add_access(f, a, &k, off, size, is_write);
}

static void add_stack(struct finder *f, struct access *a, i64 disp,
		      bool is_write)
{
	struct key k = {f->regs[X86_RSP].version, VALUE_NONE, 0};
	i64 off = f->regs[X86_RSP].off + disp;

	if (off == (i32)off)
		add_access(f, a, &k, off, 8, is_write);
}

/* ---- what instructions do to registers ---- */

/* An ADD and the like of a constant to a whole register: true, and how much. */
static bool adds_constant(const struct insn *in, unsigned *reg, i64 *n)
{
	if (in->is_mem || in->osize != 8)
		return false;
	*reg = in->rm;
	switch (in->row->op) {
	case ISA_OP_ADD:
	case ISA_OP_SUB:
		if (in->map != ISA_MAP_1B ||
		    (in->opcode != 0x81 && in->opcode != 0x83))
			return false;
		*n = in->row->op == ISA_OP_ADD ? (i64)in->imm : -(i64)in->imm;
		return *n == (i32)*n;
	case ISA_OP_INC:
	case ISA_OP_DEC:
		*n = in->row->op == ISA_OP_INC ? 1 : -1;
		return in->opcode == 0xff;
	default:
		return false;
	}
}

static bool copies(const struct insn *in, unsigned *d, unsigned *s)
{
	if (in->is_mem || in->osize != 8 || in->map != ISA_MAP_1B)
		return false;
	if (in->opcode == 0x8b) {
		*d = in->reg;
		*s = in->rm;
		return true;
	}
	*d = in->rm;
	*s = in->reg;
	return in->opcode == 0x89;
}

static void pass_registers(struct finder *f, const struct insn *in)
{
	struct native n;
	unsigned d, s;
	i64 by;

	if (adds_constant(in, &d, &by)) {
		f->regs[d].off += by;
		return;
	}
	if (copies(in, &d, &s)) {
		f->regs[d] = f->regs[s];
		return;
	}
	if (in->row->op == ISA_OP_LEA && in->osize == 8 && in->asize == 8 &&
	    in->base < 16 && in->index == X86_REG_NONE) {
		f->regs[in->reg] = f->regs[in->base];
		f->regs[in->reg].off += in->disp;
		return;
	}
	native_init(&n, in, X86_MODE_64);
	forget(f, n.written);
}

static bool writes_memory(const struct isa_row *row)
{
	for (unsigned i = 0; i < ISA_OPERANDS; i++) {
		const struct isa_operand *d = &row->operands[i];

		if (d->kind == ISA_O_GPR_RM || d->kind == ISA_O_MEM ||
		    d->kind == ISA_O_XMM_RM || d->kind == ISA_O_MMX_RM)
			return d->access != ISA_A_R;
	}
	return true;
}

static void memx(struct finder *f, const struct xlat_insn *x, struct access *a)
{
	const struct insn *in = &x->in;
	struct value *sp = &f->regs[X86_RSP];
	bool is_mem = in->is_mem;

	switch (in->row->op) {
	case ISA_OP_PUSH_RM:
		if (is_mem)
			add_operand(f, &a[ACCESS_OPERAND], x, 0, 8, false);
		/* fall through */
	case ISA_OP_PUSH_REG:
	case ISA_OP_PUSH_IMM:
		add_stack(f, &a[ACCESS_STACK], -8, true);
		sp->off -= 8;
		return;
	case ISA_OP_POP_REG:
		add_stack(f, &a[ACCESS_STACK], 0, false);
		if (in->rm == X86_RSP)
			forget(f, 1u << X86_RSP);
		else
			sp->off += 8;
		if (in->rm != X86_RSP)
			forget(f, 1u << in->rm);
		return;
	case ISA_OP_LEAVE:
		f->regs[X86_RSP] = f->regs[X86_RBP];
		add_stack(f, &a[ACCESS_STACK], 0, false);
		sp->off += 8;
		forget(f, 1u << X86_RBP);
		return;
	case ISA_OP_BT:
	case ISA_OP_BTS:
	case ISA_OP_BTR:
	case ISA_OP_BTC:
		return;
	default:
		forget(f, 0xffff);
	}
}

static void seal(struct finder *f)
{
	for (unsigned i = 0; i < f->g->n; i++)
		f->is_sealed[i] = !f->g->groups[i].is_write;
}

static void ctrl(struct finder *f, const struct xlat_insn *x, struct access *a)
{
	const struct insn *in = &x->in;

	seal(f);

	switch (in->row->op) {
	case ISA_OP_CALL_RM:
	case ISA_OP_JMP_RM:
		if (in->is_mem)
			add_operand(f, &a[ACCESS_OPERAND], x, 0, 8, false);
		if (in->row->op == ISA_OP_JMP_RM)
			return;
		/* fall through */
	case ISA_OP_CALL_REL:
		add_stack(f, &a[ACCESS_STACK], -8, true);
		return;
	case ISA_OP_RET_NEAR:
		add_stack(f, &a[ACCESS_STACK], 0, false);
		return;
	case ISA_OP_LOOP:
	case ISA_OP_LOOPE:
	case ISA_OP_LOOPNE:
		forget(f, 1u << X86_RCX);
		return;
	case ISA_OP_LAHF:
		forget(f, 1u << X86_RAX);
		return;
	default:
		return;
	}
}

static void one(struct finder *f, unsigned i)
{
	const struct xlat_insn *x = &f->t->insns[i];
	const struct insn *in = &x->in;
	struct access *a = f->g->at[i];

	switch (in->row->class) {
	case ISA_PASS:
		if (in->is_mem && in->row->op != ISA_OP_LEA)
			add_operand(f, &a[ACCESS_OPERAND], x, 0, in->mem_size,
				    writes_memory(in->row));
		pass_registers(f, in);
		return;
	case ISA_MEMX:
		memx(f, x, a);
		return;
	case ISA_CTRL:
		ctrl(f, x, a);
		return;
	default:
		forget(f, 0xffff);
		for (unsigned k = 0; k < f->g->n; k++)
			f->is_open[k] = false;
	}
}

/* ---- heads where flags are live ---- */

static u16 live_in(const struct xlat_insn *x)
{
	return (x->live_out & ~x->writes) | x->reads;
}

/* May the lookup of an access whose address is made of `regs` move in front of
 * x? */
static bool may_pass(const struct xlat_insn *x, u32 regs)
{
	struct native n;

	if (x->in.row->class != ISA_PASS)
		return false;
	native_init(&n, &x->in, X86_MODE_64);
	return !(n.written & regs);
}

/* In front of which instruction the operand of instruction k is to be looked
 * up; k: where it stands. */
static unsigned early_place(const struct groups *g, const struct xlat_trace *t,
			    unsigned k)
{
	const struct insn *in = &t->insns[k].in;
	u32 regs = 0;

	if (in->row->class != ISA_PASS || !live_in(&t->insns[k]))
		return k;
	if (in->base < 16)
		regs |= 1u << in->base;
	if (in->index < 16)
		regs |= 1u << in->index;
	for (unsigned i = k; i-- > 0 && k - i <= GROUP_HOIST;) {
		if (!may_pass(&t->insns[i], regs))
			break;
		if (!live_in(&t->insns[i]))
			return g->early[i] ? k : i;
	}
	return k;
}

static void hoist(struct groups *g, const struct xlat_trace *t)
{
	for (unsigned k = 1; k < t->n; k++) {
		struct access *a = &g->at[k][ACCESS_OPERAND];
		unsigned i;

		if (a->group == GROUP_NONE || !a->is_head)
			continue;
		i = early_place(g, t, k);
		if (i == k)
			continue;
		g->early[i] = (u8)(k + 1);
		g->groups[a->group].count++; /* the lookup and the access */
		a->is_head = false;
	}
}

/* The shared ones get a slot; the others are accesses like any. */
static void finish(struct groups *g, unsigned n)
{
	unsigned slots = 0;

	for (unsigned i = 0; i < g->n; i++)
		g->groups[i].slot =
			g->groups[i].count > 1 && slots < GROUP_SLOTS
				? (u8)slots++
				: GROUP_NONE;
	for (unsigned i = 0; i < n; i++) {
		for (unsigned k = 0; k < ACCESS_KINDS; k++) {
			struct access *a = &g->at[i][k];

			if (a->group == GROUP_NONE)
				continue;
			if (g->groups[a->group].slot == GROUP_NONE)
				a->group = GROUP_NONE;
			else
				a->rel -= (i32)g->groups[a->group].min;
		}
	}
}

void groups_find(struct groups *g, const struct xlat_trace *t)
{
	struct finder f;

	/* keys and what goes with them are set when a group is made. */
	f.g = g;
	f.t = t;
	f.next_version = 2;
	g->n = 0;
	memset(g->early, 0, sizeof(g->early));
	for (unsigned i = 0; i < t->n; i++)
		for (unsigned k = 0; k < ACCESS_KINDS; k++)
			g->at[i][k].group = GROUP_NONE;
	if (t->key & (XLAT_KEY_32 | XLAT_KEY_NOGROUP) ||
	    t->page2 != XLAT_NO_GPA)
		return;
	forget(&f, 0xffff);
	for (unsigned i = 0; i < t->n; i++)
		one(&f, i);
	hoist(g, t);
	finish(g, t->n);
}
