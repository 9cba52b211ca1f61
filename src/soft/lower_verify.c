/* SPDX-License-Identifier: Apache-2.0 */
/* The emitter's self-check: decodes what was emitted for a block and holds it
 * against what generated code may be (engine.md 8.1, I2 to I4).
 *
 * THEORY. All code and cold code is decoded from the first byte to the last;
 * the only bytes that are no instructions are the
 * guest offsets behind the jump that follows the call of a slow path. A
 * memory operand is one of
 *
 *	[rsp + constant]	a field of struct vcpu
 *	[rsp + rcx + field]	an entry of the supervisor's TLB, jump cache
 *	gs:[rcx + field]	of the user's
 *	gs:[constant]		a field of a slot
 *	[register]		what the lookup in front of it found
 */
#include "soft/lower.h"

struct verify {
	const struct lower *l;
	const u8 *rw;
	const struct xlat_block *b;
	u32 pos, end;
	bool has_lookup, is_behind_slow;
	struct insn in;
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
	if ((target >= v->b->code && target < v->b->code_end) ||
	    (target >= v->b->cold && target < v->b->cold_end))
		return NULL;
	if (target < XLAT_THUNK_BYTES && is_thunk(v, (u32)target))
		return NULL;
	return "a jump to elsewhere";
}

/* Fields of a space that are indexed by a masked RCX. */
static bool is_space_field(i64 off)
{
	i64 tlb = offsetof(struct soft_space, tlb);
	i64 jc = offsetof(struct soft_space, jc);

	return (off >= tlb && off < tlb + (i64)sizeof(struct soft_tlb_entry)) ||
	       (off >= jc && off < jc + (i64)sizeof(struct soft_jc_entry));
}

static bool is_tlb_page(const struct verify *v, i64 off)
{
	return off == (i64)(offsetof(struct soft_space, tlb) +
			    offsetof(struct soft_tlb_entry, hva_page));
}

/* A slot's field, and is it the host address? */
static bool is_slot_field(const struct insn *in, bool *out_is_page)
{
	u64 off = (u64)in->disp - offsetof(struct soft_space, slots);

	*out_is_page = off % sizeof(struct soft_slot) ==
		       offsetof(struct soft_slot, hva_page);
	return in->index == X86_REG_NONE && in->mem_size == 8 && !(off % 8) &&
	       off < sizeof(((struct soft_space *)NULL)->slots);
}

static const char *check_memory(struct verify *v)
{
	const struct insn *in = &v->in;
	i64 disp = in->disp;

	if (in->asize != 8 || in->seg == X86_FS)
		return "an address of another kind";
	if (in->seg == X86_GS && in->base == X86_REG_NONE) {
		bool is_page;

		if (!is_slot_field(in, &is_page))
			return "an operand of GS that is no slot's";
		v->has_lookup |= is_page;
		return NULL;
	}
	if (in->seg == X86_GS) {
		v->has_lookup |= is_tlb_page(v, disp);
		return in->base == X86_RCX && in->index == X86_REG_NONE &&
				       is_space_field(disp)
			       ? NULL
			       : "an operand of GS that is no table's";
	}
	if (in->base == X86_RSP && in->index == X86_REG_NONE)
		return disp >= 0 && disp + in->mem_size <=
					       (i64)sizeof(struct vcpu)
			       ? NULL
			       : "an operand outside of the vCPU";
	if (in->base == X86_RSP) {
		disp -= ENV_OFF(super);
		v->has_lookup |= is_tlb_page(v, disp);
		return in->index == X86_RCX && !in->scale &&
				       is_space_field(disp)
			       ? NULL
			       : "an indexed operand that is no table's";
	}
	/* Within the span that the group's head looked up. */
	if (in->index != X86_REG_NONE || disp < 0 ||
	    disp + in->mem_size > (i64)GROUP_SPAN || in->base >= 8 ||
	    in->base == X86_RBP)
		return "an operand at an address of the guest's";
	return v->has_lookup ? NULL : "an operand without a lookup";
}

static const char *check_ctrl(const struct verify *v)
{
	const struct insn *in = &v->in;

	switch (in->row->op) {
	case ISA_OP_JCC:
	case ISA_OP_JMP_REL:
	case ISA_OP_CALL_REL:
	case ISA_OP_JRCXZ:
		return check_target(v, v->pos + in->len + in->imm);
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

static const char *check_insn(struct verify *v)
{
	const struct insn *in = &v->in;
	const char *what = NULL;
	struct native n;

	if (in->is_mem && in->row->op != ISA_OP_LEA &&
	    in->row->op != ISA_OP_NOP)
		what = check_memory(v);
	if (what)
		return what;
	if (!is_plain(in->row))
		return check_ctrl(v);
	native_init(&n, in, X86_MODE_64);
	return n.written & 1u << X86_RSP ? "RSP is written" : NULL;
}

/* The call of a slow path is followed by a jump and the guest offset. */
static void skip_offset(struct verify *v, u32 at)
{
	const u32 *t = v->l->thunks;
	bool is_slow_call = false;

	if (v->in.row->op == ISA_OP_CALL_REL) {
		u32 to = at + v->in.len + (u32)v->in.imm;

		for (unsigned k = XT_SLOW_R_SUPER; k <= XT_SLOW_W_USER; k++)
			is_slow_call |= t[k] == to;
		is_slow_call |= to == t[XT_SLOT_R] || to == t[XT_SLOT_W];
	} else if (v->is_behind_slow) {
		v->pos += 2;
	}
	v->is_behind_slow = is_slow_call;
}

static const char *verify_range(struct verify *v, u32 begin, u32 end,
				const struct isa_features *host, u32 *out_at)
{
	v->pos = begin;
	v->end = end;
	while (v->pos < v->end) {
		u32 at = v->pos;
		const char *what;
		int n;

		*out_at = at;
		if (v->end - at >= 2 && v->rw[at] == 0x0f &&
		    v->rw[at + 1] == 0x0b) { /* ud2 */
			v->pos += 2;
			continue;
		}
		n = x86_decode(&v->in, v->rw + at, MIN(v->end - at, 15u),
			       X86_MODE_64, host);
		if (n <= 0)
			return "bytes that are no instruction";
		what = check_insn(v);
		if (what)
			return what;
		v->pos += n;
		skip_offset(v, at);
	}
	return v->pos == v->end ? NULL : "an instruction over the end";
}

const char *lower_verify(const struct lower *l, const struct xlat_block *b,
			 const struct isa_features *host, u32 *out_at)
{
	struct verify v = {.l = l, .rw = l->e.rw, .b = b};
	const char *what = verify_range(&v, b->code, b->code_end, host, out_at);

	return what ? what
		    : verify_range(&v, b->cold, b->cold_end, host, out_at);
}
