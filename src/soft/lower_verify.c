/* SPDX-License-Identifier: Apache-2.0 */
/* The emitter's self-check: decodes what was emitted for a block and holds it
 * against what generated code may be (engine.md 8.1, I2 to I4).
 *
 * THEORY. All code and cold code is decoded from the first byte to the last;
 * the only bytes that are no instructions are the guest offsets behind the
 * jump that follows the call of a slow path, and what follows the call of an
 * unlinked exit. A memory operand is one of
 *
 *	[rsp + constant]	a field of struct vcpu
 *	[rsp + rcx + field]	an entry of the supervisor's TLB, jump cache
 *	gs:[rcx + field]	of the user's
 *	gs:[constant]		a field of a slot
 *	[register]		what a lookup has found
 *
 * RCX is an index only behind the AND that bounds it. A lookup is SUB of a tag,
 * CMP with a room, JA, and then, and only then, the host address of the same
 * entry; no jump leads into it. From there on the register that holds the sum
 * is followed, through moves and the vCPU's fields for groups, until it is
 * written: an access must lie in its room, and a store needs a tag for stores.
 * What this does not follow - ways around that meet again - is emitted forward,
 * so a register set on one of them is forgotten where they meet.
 */
#include "soft/lower.h"

#define VERIFY_BYTES LOWER_CODE_MAX

enum { MARK_START = 1, MARK_TARGET = 2 };
enum index { INDEX_NONE, INDEX_TLB, INDEX_JC_RAW, INDEX_JC };
/* What of a lookup has been: SUB, CMP, JA, and the host address that is added
 * to RAX (FOUND), or moved to RCX (MOV) to be added to there. */
enum step {
	STEP_NONE,
	STEP_SUB,
	STEP_TAG,
	STEP_CMP,
	STEP_JA,
	STEP_MOV,
	STEP_PAGE,
	STEP_FOUND,
	STEP_FOUND_RCX
};

/* A host address: room bytes may be accessed; 0: it is none. */
struct ptr {
	u16 room;
	bool is_write;
};

struct verify {
	const struct lower *l;
	const u8 *rw;
	const struct xlat_block *b;
	u32 begin, end, pos;
	bool is_behind_slow;
	struct insn in;
	enum index index; /* what RCX may be one of */
	enum step step;	  /* of a lookup */
	i64 page;	  /* where its host address is to come from */
	struct ptr found; /* what it will find */
	struct ptr regs[16], groups[GROUP_SLOTS];
	u8 marks[VERIFY_BYTES];
};

static bool is_thunk(const struct verify *v, u32 target)
{
	for (unsigned i = 0; i < XT_COUNT; i++)
		if (v->l->thunks[i] == target)
			return true;
	return false;
}

static const char *check_target(const struct verify *v, u64 target)
{
	if ((target >= v->b->code && target < xlat_code_end(v->b)) ||
	    (target >= v->b->cold && target < xlat_cold_end(v->b)))
		return NULL;
	if (target < XLAT_THUNK_BYTES && is_thunk(v, (u32)target))
		return NULL;
	return "a jump to elsewhere";
}

/* ---- what is followed ---- */

static bool is_opcode(const struct insn *in, u8 opcode, unsigned osize)
{
	return in->map == ISA_MAP_1B && in->opcode == opcode &&
	       in->osize == osize;
}

static void forget_regs(struct verify *v)
{
	memset(v->regs, 0, sizeof(v->regs));
	v->index = INDEX_NONE;
}

/* The group's field at this displacement from RSP, or NULL. */
static struct ptr *group_at(struct verify *v, i64 disp)
{
	i64 near = disp - ENV_OFF(group), more = disp - ENV_OFF(group_more);
	i64 n_near = ARRAY_SIZE(((struct vcpu *)NULL)->group);

	if (disp % 8)
		return NULL;
	if (near >= 0 && near < 8 * n_near)
		return &v->groups[near / 8];
	if (more >= 0 && more < 8 * (GROUP_SLOTS - n_near))
		return &v->groups[n_near + more / 8];
	return NULL;
}

static bool stores(const struct insn *in)
{
	if (!in->is_mem)
		return false;
	for (unsigned i = 0; i < ISA_OPERANDS; i++) {
		const struct isa_operand *d = &in->row->operands[i];

		if ((d->kind == ISA_O_GPR_RM || d->kind == ISA_O_MEM ||
		     d->kind == ISA_O_XMM_RM || d->kind == ISA_O_MMX_RM) &&
		    (d->access == ISA_A_W || d->access == ISA_A_RW ||
		     d->access == ISA_A_CW))
			return true;
	}
	return false;
}

/* ---- lookups ---- */

/* Of an entry, or a slot: where its tags and its host address lie. */
struct table {
	i64 tag_r, tag_w, page;
};

static const char *check_field(struct verify *v, const struct table *t)
{
	const struct insn *in = &v->in;
	i64 disp = in->disp;

	if (stores(in))
		return "a store into a table";
	if (disp == t->tag_r || disp == t->tag_w) {
		if (!is_opcode(in, 0x2b, 8) || in->reg != X86_RAX)
			return "a tag that is not subtracted";
		v->step = STEP_SUB;
		v->page = t->page;
		v->found.is_write = disp == t->tag_w;
		return NULL;
	}
	if (disp != t->page)
		return NULL;
	if (v->step != STEP_JA || v->page != disp)
		return "a page that was not compared";
	if (is_opcode(in, 0x03, 8) && in->reg == X86_RAX)
		v->step = STEP_FOUND;
	else if (is_opcode(in, 0x8b, 8) && in->reg == X86_RCX)
		v->step = STEP_MOV;
	else
		return "a page that is not added";
	return NULL;
}

/* An operand indexed by RCX; base: of the space. */
static const char *check_indexed(struct verify *v, i64 base)
{
	i64 tlb = base + (i64)offsetof(struct soft_space, tlb);
	i64 jc = base + (i64)offsetof(struct soft_space, jc);
	const struct table t = {
		.tag_r = tlb + (i64)offsetof(struct soft_tlb_entry, tag_r),
		.tag_w = tlb + (i64)offsetof(struct soft_tlb_entry, tag_w),
		.page = tlb + (i64)offsetof(struct soft_tlb_entry, hva_page),
	};
	i64 disp = v->in.disp;

	if (disp >= tlb && disp < tlb + (i64)sizeof(struct soft_tlb_entry))
		return v->index == INDEX_TLB ? check_field(v, &t)
					     : "an index without a bound";
	if (disp >= jc && disp < jc + (i64)sizeof(struct soft_jc_entry))
		return v->index != INDEX_JC ? "an index without a bound"
		       : stores(&v->in)	    ? "a store into a table"
					    : NULL;
	return "an indexed operand that is no table's";
}

static const char *check_slot(struct verify *v)
{
	const struct insn *in = &v->in;
	i64 slots = offsetof(struct soft_space, slots);
	u64 off = (u64)((i64)in->disp - slots);
	u64 start = off - off % sizeof(struct soft_slot);
	bool is_write = off >= SOFT_SLOTS * sizeof(struct soft_slot);
	i64 tag = slots + (i64)start + (i64)offsetof(struct soft_slot, tag);
	const struct table t = {
		.tag_r = is_write ? -1 : tag,
		.tag_w = is_write ? tag : -1,
		.page = slots + (i64)start +
			(i64)offsetof(struct soft_slot, hva_page),
	};

	if (in->index != X86_REG_NONE || in->mem_size != 8 || off % 8 ||
	    off >= sizeof(((struct soft_space *)NULL)->slots))
		return "an operand of GS that is no slot's";
	return check_field(v, &t);
}

static const char *check_found(const struct verify *v)
{
	const struct insn *in = &v->in;
	const struct ptr *p = &v->regs[in->base & 15];

	/* Within the span that the group's head looked up. */
	if (in->index != X86_REG_NONE || in->disp < 0 ||
	    (i64)in->disp + in->mem_size > (i64)GROUP_SPAN || in->base >= 8 ||
	    in->base == X86_RBP)
		return "an operand at an address of the guest's";
	if (!p->room)
		return "an operand without a lookup";
	if ((i64)in->disp + in->mem_size > p->room)
		return "an operand beyond what was looked up";
	return stores(in) && !p->is_write
		       ? "a store to what was looked up for loads"
		       : NULL;
}

static const char *check_memory(struct verify *v)
{
	const struct insn *in = &v->in;
	i64 disp = in->disp;

	if (in->asize != 8 || in->seg == X86_FS)
		return "an address of another kind";
	if (in->seg == X86_GS && in->base == X86_REG_NONE)
		return check_slot(v);
	if (in->seg == X86_GS)
		return in->base == X86_RCX && in->index == X86_REG_NONE
			       ? check_indexed(v, 0)
			       : "an operand of GS that is no table's";
	if (in->base != X86_RSP)
		return check_found(v);
	if (in->index == X86_RCX && !in->scale)
		return check_indexed(v, ENV_OFF(super));
	if (in->index != X86_REG_NONE)
		return "an indexed operand that is no table's";
	return disp >= 0 && disp + in->mem_size <= (i64)sizeof(struct vcpu)
		       ? NULL
		       : "an operand outside of the vCPU";
}

/* How far the lookup is behind this instruction. */
static enum step next_step(struct verify *v)
{
	const struct insn *in = &v->in;
	i64 room = (i64)PAGE_BYTES - (i64)in->imm;

	switch (v->step) {
	case STEP_SUB:
		if (in->is_mem) /* the SUB itself */
			return STEP_TAG;
		break;
	case STEP_TAG:
		if (!is_opcode(in, 0x81, 8) || in->is_mem || in->reg != 7 ||
		    in->rm != X86_RAX || room < 1 || room > (i64)GROUP_SPAN)
			break;
		v->found.room = (u16)room;
		return STEP_CMP;
	case STEP_CMP:
		if (in->map == ISA_MAP_0F && in->opcode == 0x87)
			return STEP_JA;
		break;
	case STEP_MOV:
		if (in->is_mem)
			return STEP_PAGE;
		break;
	case STEP_PAGE: /* add rcx, rax */
		if (is_opcode(in, 0x01, 8) && !in->is_mem &&
		    in->reg == X86_RAX && in->rm == X86_RCX)
			return STEP_FOUND_RCX;
		break;
	case STEP_FOUND:
		return STEP_FOUND;
	default:
		break;
	}
	return STEP_NONE;
}

/* ---- registers ---- */

/* RCX behind this instruction, which writes it. */
static enum index next_index(const struct verify *v)
{
	const struct insn *in = &v->in;

	if (is_opcode(in, 0x81, 4) && !in->is_mem && in->reg == 4 &&
	    in->imm == (SOFT_TLB_ENTRIES - 1) << 5)
		return INDEX_TLB;
	if (is_opcode(in, 0x23, 4) && in->is_mem && in->base == X86_RSP &&
	    in->index == X86_REG_NONE && in->disp == ENV_OFF(go))
		return INDEX_JC_RAW;
	if (is_opcode(in, 0xc1, 4) && in->reg == 4 && in->imm == 4 &&
	    v->index == INDEX_JC_RAW)
		return INDEX_JC;
	return INDEX_NONE;
}

static void follow_moves(struct verify *v, u16 written)
{
	const struct insn *in = &v->in;
	bool is_env = in->is_mem && in->base == X86_RSP &&
		      in->index == X86_REG_NONE && in->seg != X86_GS;
	struct ptr *g = is_env ? group_at(v, in->disp) : NULL;
	struct ptr from = {0};
	unsigned to = 16;

	if (is_opcode(in, 0x89, 8) && !in->is_mem)
		from = v->regs[in->reg], to = in->rm;
	else if (is_opcode(in, 0x8b, 8) && g)
		from = *g, to = in->reg;
	else if (g && stores(in))
		*g = is_opcode(in, 0x89, 8) ? v->regs[in->reg] : from;
	for (unsigned i = 0; i < 16; i++)
		if (written & 1u << i)
			v->regs[i] = i == to ? from : (struct ptr){0};
	if (v->step == STEP_FOUND)
		v->regs[X86_RAX] = v->found;
	else if (v->step == STEP_FOUND_RCX)
		v->regs[X86_RCX] = v->found;
	if (v->step >= STEP_FOUND)
		v->step = STEP_NONE;
}

static const char *check_ctrl(const struct verify *v)
{
	const struct insn *in = &v->in;

	switch (in->row->op) {
	case ISA_OP_JCC:
	case ISA_OP_JMP_REL:
	case ISA_OP_CALL_REL:
	case ISA_OP_JRCXZ:
		return check_target(v, v->pos + in->imm);
	case ISA_OP_JMP_RM:
		return in->is_mem ? NULL : "a jump to a register";
	default:
		return "an instruction that is not the host's to execute";
	}
}

/* Rows of other classes that mean on the host what they mean in the guest. */
static bool is_plain(const struct isa_row *row)
{
	switch (row->op) {
	case ISA_OP_NOP:
	case ISA_OP_LFENCE:
	case ISA_OP_MFENCE:
	case ISA_OP_SFENCE:
	case ISA_OP_VZEROUPPER:
	case ISA_OP_VZEROALL:
	case ISA_OP_LAHF:
	case ISA_OP_SAHF:
	case ISA_OP_CLC:
	case ISA_OP_STC:
	case ISA_OP_CMC:
	case ISA_OP_CMPXCHG8B:
	case ISA_OP_BT:
	case ISA_OP_BTS:
	case ISA_OP_BTR:
	case ISA_OP_BTC:
		return true;
	default:
		return row->class == ISA_PASS;
	}
}

/* The general registers that it writes. */
static u16 written_by(const struct insn *in)
{
	struct native n;

	if (in->row->op == ISA_OP_SAHF)
		return 0;
	if (in->row->op == ISA_OP_LAHF)
		return 1u << X86_RAX;
	native_init(&n, in, X86_MODE_64);
	return n.written;
}

static const char *check_insn(struct verify *v)
{
	const struct insn *in = &v->in;
	const char *what = NULL;
	u16 written;

	if (in->is_mem && in->row->op != ISA_OP_LEA &&
	    in->row->op != ISA_OP_NOP)
		what = check_memory(v);
	if (what)
		return what;
	v->step = next_step(v);
	if (!is_plain(in->row)) {
		if (in->row->op == ISA_OP_CALL_REL)
			forget_regs(v);
		return check_ctrl(v);
	}
	written = written_by(in);
	if (written & 1u << X86_RCX)
		v->index = next_index(v);
	follow_moves(v, written);
	return written & 1u << X86_RSP ? "RSP is written" : NULL;
}

/* The call of a slow path is followed by a jump and the guest offset, that of
 * XT_CHAIN by what says which exit it is. */
static void skip_offset(struct verify *v, u32 at)
{
	const u32 *t = v->l->thunks;
	bool is_slow_call = false;

	if (v->in.row->op == ISA_OP_CALL_REL) {
		u32 to = at + v->in.len + (u32)v->in.imm;

		for (unsigned k = XT_SLOW_R_SUPER; k <= XT_SLOW_W_USER; k++)
			is_slow_call |= t[k] == to;
		is_slow_call |= to == t[XT_SLOT_R] || to == t[XT_SLOT_W];
		if (to == t[XT_CHAIN])
			v->pos += XLAT_CHAIN_BYTES;
	} else if (v->is_behind_slow) {
		v->pos += 2;
	}
	v->is_behind_slow = is_slow_call;
}

/* Decodes what is at v->pos, and goes behind it. *out_is_insn: not UD2. */
static const char *next_insn(struct verify *v, const struct isa_features *host,
			     bool *out_is_insn)
{
	u32 at = v->pos;
	int n;

	*out_is_insn =
		v->end - at < 2 || v->rw[at] != 0x0f || v->rw[at + 1] != 0x0b;
	if (!*out_is_insn) {
		v->pos += 2;
		return NULL;
	}
	n = x86_decode(&v->in, v->rw + at, MIN(v->end - at, 15u), X86_MODE_64,
		       host);
	if (n <= 0)
		return "bytes that are no instruction";
	v->pos += (u32)n;
	return NULL;
}

static bool is_in_range(const struct verify *v, u64 pos)
{
	return pos >= v->begin && pos < v->end;
}

/* Where instructions start, and which of them are jumped to from here. */
static const char *mark_range(struct verify *v, u32 begin, u32 end,
			      const struct isa_features *host, u32 *out_at)
{
	const char *what;
	bool is_insn;

	memset(v->marks, 0, sizeof(v->marks));
	v->is_behind_slow = false;
	v->begin = v->pos = begin;
	v->end = end;
	while (v->pos < v->end) {
		u64 target;

		*out_at = v->pos;
		v->marks[v->pos - begin] |= MARK_START;
		what = next_insn(v, host, &is_insn);
		if (what)
			return what;
		if (!is_insn)
			continue;
		target = v->pos + v->in.imm;
		if ((v->in.row->op == ISA_OP_JCC ||
		     v->in.row->op == ISA_OP_JMP_REL ||
		     v->in.row->op == ISA_OP_JRCXZ) &&
		    is_in_range(v, target))
			v->marks[target - begin] |= MARK_TARGET;
		skip_offset(v, *out_at);
	}
	return v->pos == v->end ? NULL : "an instruction over the end";
}

/* Ways meet here. */
static const char *check_meeting(struct verify *v)
{
	if (!(v->marks[v->pos - v->begin] & MARK_TARGET))
		return NULL;
	forget_regs(v);
	return v->step != STEP_NONE ? "a jump into a lookup" : NULL;
}

static const char *verify_range(struct verify *v, u32 begin, u32 end,
				const struct isa_features *host, u32 *out_at)
{
	const char *what = mark_range(v, begin, end, host, out_at);
	bool is_insn;

	for (u32 i = 0; !what && i < end - begin; i++)
		if (v->marks[i] == MARK_TARGET)
			what = "a jump into an instruction";
	v->is_behind_slow = false;
	v->step = STEP_NONE;
	forget_regs(v);
	memset(v->groups, 0, sizeof(v->groups));
	for (v->pos = begin; !what && v->pos < end;) {
		*out_at = v->pos;
		what = check_meeting(v);
		if (!what)
			what = next_insn(v, host, &is_insn);
		if (!what && is_insn)
			what = check_insn(v);
		if (!what && is_insn)
			skip_offset(v, *out_at);
	}
	return what;
}

const char *lower_verify(const struct lower *l, const struct xlat_block *b,
			 const struct isa_features *host, u32 *out_at)
{
	struct verify v = {.l = l, .rw = l->e.rw, .b = b};
	const char *what =
		verify_range(&v, b->code, xlat_code_end(b), host, out_at);

	return what ? what
		    : verify_range(&v, b->cold, xlat_cold_end(b), host, out_at);
}
