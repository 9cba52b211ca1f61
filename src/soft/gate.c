/* SPDX-License-Identifier: Apache-2.0 */
/* Far jumps, calls and returns, call gates, and IRET.
 *
 * Each function reads and checks everything, writes the stack, and only then
 * changes CS, SS, rSP and the target (v->next_rip). SDM 3A §5.8, SDM 2 JMP,
 * CALL, RET, IRET. Task switches are in task.c.
 */
#include "soft/soft_int.h"

#include "soft/soft_sys.h"

static u64 trunc_to(u64 value, unsigned size)
{
	return size == 8 ? value : size == 4 ? (u32)value : (u16)value;
}

static void set_real_cs(struct vcpu *v, u16 sel, u64 off)
{
	if (off > v->segs[X86_CS].limit)
		soft_gp(v, 0);
	if (v->is_vm86)
		soft_seg_set_vm86(&v->segs[X86_CS], sel);
	else
		soft_seg_set_real(&v->segs[X86_CS], sel);
	v->next_rip = off;
	soft_mode_changed(v);
}

/* L and D both set is no code segment in long mode. */
static void check_long_code(struct vcpu *v, const struct soft_seg *cs)
{
	if (v->is_long && (cs->attr & SEG_L) && (cs->attr & SEG_DB))
		soft_gp(v, cs->sel & 0xfffcu);
}

/* A code segment for a direct far jump or call (no gate). */
static void check_direct_code(struct vcpu *v, const struct soft_seg *cs)
{
	u32 error = cs->sel & 0xfffcu;

	if (cs->attr & SEG_TYPE_CONF_ED) {
		if (SEG_DPL(cs->attr) > v->cpl)
			soft_gp(v, error);
	} else if ((cs->sel & 3u) > v->cpl || SEG_DPL(cs->attr) != v->cpl) {
		soft_gp(v, error);
	}
	check_long_code(v, cs);
	if (!(cs->attr & SEG_P))
		soft_np(v, error);
}

/* A call gate, or what else a system descriptor may be. */
struct far_gate {
	u8 type;
	u8 size; /* of what is pushed: 2, 4, 8 */
	u8 params;
	u16 sel;
	u64 off;
};

static void read_call_gate(struct vcpu *v, u16 sel, u64 raw, gva_t va,
			   struct far_gate *g)
{
	u32 error = sel & 0xfffcu;
	unsigned dpl = raw >> 45 & 3;

	g->type = raw >> 40 & 0xf;
	if (v->is_long ? g->type != SYS_CALL32
		       : g->type != SYS_CALL32 && g->type != SYS_CALL16)
		soft_gp(v, error);
	if (dpl < v->cpl || dpl < (sel & 3u))
		soft_gp(v, error);
	g->size = v->is_long ? 8 : g->type == SYS_CALL32 ? 4 : 2;
	g->params = raw >> 32 & 31;
	g->sel = (u16)(raw >> 16);
	g->off = (raw & 0xffff) | (raw >> 32 & 0xffff0000);
	if (g->size == 2)
		g->off &= 0xffff;
	if (v->is_long) {
		u64 high;

		if (!soft_desc_read_high(v, sel, va, &high) ||
		    (high >> 40 & 0x1f))
			soft_gp(v, error);
		g->off |= high << 32;
	}
	if (!(raw & BIT64(47)))
		soft_np(v, error);
}

/* The code segment that a call gate names. */
static void read_gate_code(struct vcpu *v, const struct far_gate *g,
			   bool is_call, struct soft_seg *cs, gva_t *out_va)
{
	u32 error = g->sel & 0xfffcu;
	bool is_conforming;
	u64 raw;

	if (!(g->sel & 0xfffc))
		soft_gp(v, 0);
	if (!soft_desc_read(v, g->sel, &raw, out_va))
		soft_gp(v, error);
	soft_desc_parse(raw, g->sel, cs);
	if (!(cs->attr & SEG_S) || !(cs->attr & SEG_TYPE_CODE))
		soft_gp(v, error);
	is_conforming = cs->attr & SEG_TYPE_CONF_ED;
	if (SEG_DPL(cs->attr) > v->cpl ||
	    (!is_call && !is_conforming && SEG_DPL(cs->attr) != v->cpl))
		soft_gp(v, error);
	if (v->is_long && (cs->attr & (SEG_L | SEG_DB)) != SEG_L)
		soft_gp(v, error);
	if (!(cs->attr & SEG_P))
		soft_np(v, error);
}

/* Commits CS with this CPL. */
static void set_cs(struct vcpu *v, struct soft_seg *cs, unsigned cpl, u64 off)
{
	cs->sel = (u16)((cs->sel & 0xfffc) | cpl);
	v->segs[X86_CS] = *cs;
	v->next_rip = off;
	soft_mode_changed(v);
}

/* TSS descriptors and task gates as far targets; does not return here when
 * the descriptor is neither. */
static bool far_task(struct vcpu *v, u16 sel, u64 raw,
		     enum soft_task_reason reason)
{
	unsigned type = raw >> 40 & 0x1f, dpl = raw >> 45 & 3;
	u32 error = sel & 0xfffcu;

	if (v->is_long ||
	    (type != SYS_TASK && type != SYS_TSS16 && type != SYS_TSS32))
		return false;
	if (dpl < v->cpl || dpl < (sel & 3u))
		soft_gp(v, error);
	if (!(raw & BIT64(47)))
		soft_np(v, error);
	if (type == SYS_TASK)
		sel = (u16)(raw >> 16);
	soft_task_switch(v, sel, reason, v->next_rip, NULL);
	v->next_rip = v->rip;
	return true;
}

static void jump_gate(struct vcpu *v, u16 sel, u64 raw, gva_t va)
{
	struct far_gate g;
	struct soft_seg cs;

	if (far_task(v, sel, raw, TASK_JMP))
		return;
	read_call_gate(v, sel, raw, va, &g);
	read_gate_code(v, &g, false, &cs, &va);
	soft_check_target(v, &cs, g.off, 0);
	soft_desc_set_accessed(v, va, &cs);
	set_cs(v, &cs, v->cpl, g.off);
}

void soft_far_jump(struct vcpu *v, u16 sel, u64 off, unsigned osize)
{
	struct soft_seg cs;
	u64 raw;
	gva_t va;

	off = trunc_to(off, osize);
	if (!v->is_protected || v->is_vm86) {
		set_real_cs(v, sel, off);
		return;
	}
	if (!(sel & 0xfffc))
		soft_gp(v, 0);
	if (!soft_desc_read(v, sel, &raw, &va))
		soft_gp(v, sel & 0xfffcu);
	soft_desc_parse(raw, sel, &cs);
	if (!(cs.attr & SEG_S)) {
		jump_gate(v, sel, raw, va);
		return;
	}
	if (!(cs.attr & SEG_TYPE_CODE))
		soft_gp(v, sel & 0xfffcu);
	check_direct_code(v, &cs);
	soft_check_target(v, &cs, off, 0);
	soft_desc_set_accessed(v, va, &cs);
	set_cs(v, &cs, v->cpl, off);
}

/* Through a gate to an inner ring: the new stack from the TSS. */
static void call_inner(struct vcpu *v, const struct far_gate *g,
		       struct soft_seg *cs, gva_t cs_va)
{
	unsigned cpl = SEG_DPL(cs->attr);
	struct soft_stack old, st;
	u16 ss_sel;

	soft_stack_init(v, &old);
	soft_stack_init(v, &st);
	soft_tss_stack(v, cpl, 0, &ss_sel, &st.sp);
	st.how = SOFT_SUPER;
	if (v->is_long) {
		soft_seg_set_null(&st.ss, (u16)cpl);
		st.ss.attr |= cpl << 5;
		st.is_64 = true;
		st.mask = ~0ull;
	} else {
		soft_load_inner_ss(v, ss_sel, cpl, 0, &st.ss);
		st.mask = (st.ss.attr & SEG_DB) ? 0xffffffffu : 0xffff;
		st.error = ss_sel & 0xfffcu;
	}
	soft_stack_push(v, &st, g->size, v->segs[X86_SS].sel);
	soft_stack_push(v, &st, g->size, v->gpr[X86_RSP]);
	for (unsigned i = v->is_long ? 0 : g->params; i-- > 0;)
		soft_stack_push(
			v, &st, g->size,
			soft_stack_peek(v, &old, (u64)i * g->size, g->size));
	soft_stack_push(v, &st, g->size, v->segs[X86_CS].sel);
	soft_stack_push(v, &st, g->size, v->next_rip);
	soft_check_target(v, cs, g->off, 0);
	soft_desc_set_accessed(v, cs_va, cs);
	v->segs[X86_SS] = st.ss;
	set_cs(v, cs, cpl, g->off);
	soft_stack_commit_sp(v, &st);
}

static void call_gate(struct vcpu *v, u16 sel, u64 raw, gva_t va)
{
	struct far_gate g;
	struct soft_stack st;
	struct soft_seg cs;

	if (far_task(v, sel, raw, TASK_CALL))
		return;
	read_call_gate(v, sel, raw, va, &g);
	read_gate_code(v, &g, true, &cs, &va);
	if (!(cs.attr & SEG_TYPE_CONF_ED) && SEG_DPL(cs.attr) < v->cpl) {
		call_inner(v, &g, &cs, va);
		return;
	}
	soft_stack_init(v, &st);
	if (v->is_long) {
		st.is_64 = true;
		st.mask = ~0ull;
	}
	soft_stack_push(v, &st, g.size, v->segs[X86_CS].sel);
	soft_stack_push(v, &st, g.size, v->next_rip);
	soft_check_target(v, &cs, g.off, 0);
	soft_desc_set_accessed(v, va, &cs);
	set_cs(v, &cs, v->cpl, g.off);
	soft_stack_commit_sp(v, &st);
}

void soft_far_call(struct vcpu *v, u16 sel, u64 off, unsigned osize)
{
	struct soft_stack st;
	struct soft_seg cs = {0};
	u64 raw;
	gva_t va = 0;

	off = trunc_to(off, osize);
	soft_stack_init(v, &st);
	if (v->is_protected && !v->is_vm86) {
		if (!(sel & 0xfffc))
			soft_gp(v, 0);
		if (!soft_desc_read(v, sel, &raw, &va))
			soft_gp(v, sel & 0xfffcu);
		soft_desc_parse(raw, sel, &cs);
		if (!(cs.attr & SEG_S)) {
			call_gate(v, sel, raw, va);
			return;
		}
		if (!(cs.attr & SEG_TYPE_CODE))
			soft_gp(v, sel & 0xfffcu);
		check_direct_code(v, &cs);
	} else if (off > v->segs[X86_CS].limit) {
		soft_gp(v, 0);
	}
	soft_stack_push(v, &st, osize, v->segs[X86_CS].sel);
	soft_stack_push(v, &st, osize, v->next_rip);
	if (!v->is_protected || v->is_vm86) {
		set_real_cs(v, sel, off);
	} else {
		soft_check_target(v, &cs, off, 0);
		soft_desc_set_accessed(v, va, &cs);
		set_cs(v, &cs, v->cpl, off);
	}
	soft_stack_commit_sp(v, &st);
}

/* ---- returns ---- */

/* The code segment that a RET or IRET pops. */
static void read_return_code(struct vcpu *v, u16 sel, struct soft_seg *cs,
			     gva_t *out_va)
{
	u32 error = sel & 0xfffcu;
	unsigned rpl = sel & 3;
	u64 raw;

	if (!(sel & 0xfffc))
		soft_gp(v, 0);
	if (!soft_desc_read(v, sel, &raw, out_va))
		soft_gp(v, error);
	soft_desc_parse(raw, sel, cs);
	if (!(cs->attr & SEG_S) || !(cs->attr & SEG_TYPE_CODE) || rpl < v->cpl)
		soft_gp(v, error);
	if (cs->attr & SEG_TYPE_CONF_ED ? SEG_DPL(cs->attr) > rpl
					: SEG_DPL(cs->attr) != rpl)
		soft_gp(v, error);
	check_long_code(v, cs);
	if (!(cs->attr & SEG_P))
		soft_np(v, error);
}

/* SS that a return pops; cpl: the CPL after it. */
static void read_return_ss(struct vcpu *v, u16 sel, unsigned cpl, bool is_to_64,
			   struct soft_seg *ss)
{
	u32 error = sel & 0xfffcu;
	u64 raw;
	gva_t va;

	if (!(sel & 0xfffc)) {
		if (!is_to_64 || cpl == 3 || (sel & 3u) != cpl)
			soft_gp(v, 0);
		soft_seg_set_null(ss, sel);
		ss->attr |= cpl << 5;
		return;
	}
	if (!soft_desc_read(v, sel, &raw, &va))
		soft_gp(v, error);
	soft_desc_parse(raw, sel, ss);
	if ((sel & 3u) != cpl || SEG_DPL(ss->attr) != cpl ||
	    !(ss->attr & SEG_S) || (ss->attr & SEG_TYPE_CODE) ||
	    !(ss->attr & SEG_TYPE_WR_RD))
		soft_gp(v, error);
	if (!(ss->attr & SEG_P))
		soft_ss(v, error);
	soft_desc_set_accessed(v, va, ss);
}

/* rSP after SS was loaded: its width is the new stack's, and 64-bit code
 * that returns to a 16-bit stack keeps the upper bits (espfix). */
static void set_return_sp(struct vcpu *v, u64 sp)
{
	u64 *rsp = &v->gpr[X86_RSP];

	if (v->stack_size == 8)
		*rsp = sp;
	else if (v->stack_size == 4)
		*rsp = (u32)sp;
	else
		*rsp = (*rsp & ~0xffffull) | (sp & 0xffff);
}

void soft_far_ret(struct vcpu *v, unsigned osize, u16 pop_bytes)
{
	struct soft_stack st;
	struct soft_seg cs, ss;
	gva_t va;
	u64 off;
	u16 sel;

	soft_stack_init(v, &st);
	off = soft_stack_pop(v, &st, osize);
	sel = (u16)soft_stack_pop(v, &st, osize);
	if (!v->is_protected || v->is_vm86) {
		set_real_cs(v, sel, off);
		st.sp += pop_bytes;
		soft_stack_commit_sp(v, &st);
		return;
	}
	read_return_code(v, sel, &cs, &va);
	st.sp += pop_bytes;
	if ((sel & 3) == v->cpl) {
		soft_check_target(v, &cs, off, 0);
		soft_desc_set_accessed(v, va, &cs);
		set_cs(v, &cs, v->cpl, off);
		soft_stack_commit_sp(v, &st);
	} else {
		u64 sp = soft_stack_pop(v, &st, osize);
		u16 ss_sel = (u16)soft_stack_pop(v, &st, osize);

		read_return_ss(v, ss_sel, sel & 3,
			       v->is_long && (cs.attr & SEG_L), &ss);
		soft_check_target(v, &cs, off, 0);
		soft_desc_set_accessed(v, va, &cs);
		v->segs[X86_SS] = ss;
		set_cs(v, &cs, sel & 3, off);
		set_return_sp(v, sp + pop_bytes);
		soft_drop_inner_segs(v);
	}
}

/* ---- IRET ---- */

static void iret_flags(struct vcpu *v, u64 flags, u64 mask)
{
	soft_set_rflags(v, (soft_rflags(v) & ~mask) | (flags & mask));
}

static void iret_real(struct vcpu *v, unsigned osize)
{
	struct soft_stack st;
	u64 off, flags, mask;
	u16 sel;

	if (v->is_vm86 && (v->rflags_sys >> 12 & 3) < 3)
		soft_gp(v, 0);
	soft_stack_init(v, &st);
	off = soft_stack_pop(v, &st, osize);
	sel = (u16)soft_stack_pop(v, &st, osize);
	flags = soft_stack_pop(v, &st, osize);
	mask = soft_iret_flag_mask(v, osize);
	set_real_cs(v, sel, off);
	soft_stack_commit_sp(v, &st);
	iret_flags(v, flags, mask);
	v->nmi_blocked = false;
	soft_mode_changed(v);
}

/* Ring 0 returns to virtual-8086 mode: nine words were pushed. */
static void iret_to_vm86(struct vcpu *v, struct soft_stack *st, u64 off,
			 u16 sel, u64 flags)
{
	static const u8 order[] = {X86_ES, X86_DS, X86_FS, X86_GS};
	u64 sp = soft_stack_pop(v, st, 4);
	u16 ss = (u16)soft_stack_pop(v, st, 4);
	u16 sels[4];

	for (unsigned i = 0; i < 4; i++)
		sels[i] = (u16)soft_stack_pop(v, st, 4);
	if (off > 0xffff)
		soft_gp(v, 0);
	soft_set_rflags(v, flags);
	for (unsigned i = 0; i < 4; i++)
		soft_seg_set_vm86(&v->segs[order[i]], sels[i]);
	soft_seg_set_vm86(&v->segs[X86_SS], ss);
	soft_seg_set_vm86(&v->segs[X86_CS], sel);
	v->gpr[X86_RSP] = (u32)sp;
	v->next_rip = off;
	v->nmi_blocked = false;
	soft_mode_changed(v);
}

static void iret_task(struct vcpu *v)
{
	u16 link;

	if (v->is_long)
		soft_gp(v, 0);
	link = (u16)soft_read(v, v->tr.base, 2, SOFT_SUPER);
	v->nmi_blocked = false;
	soft_task_switch(v, link, TASK_IRET, v->next_rip, NULL);
	v->next_rip = v->rip;
}

void soft_iret(struct vcpu *v, unsigned osize)
{
	struct soft_stack st;
	struct soft_seg cs, ss;
	bool has_outer;
	u64 off, flags, mask, sp = 0;
	gva_t va;
	u16 sel;

	if (!v->is_protected || v->is_vm86) {
		iret_real(v, osize);
		return;
	}
	if (v->rflags_sys & X86_FL_NT) {
		iret_task(v);
		return;
	}
	soft_stack_init(v, &st);
	off = soft_stack_pop(v, &st, osize);
	sel = (u16)soft_stack_pop(v, &st, osize);
	flags = soft_stack_pop(v, &st, osize);
	if ((flags & X86_FL_VM) && !v->is_long && v->cpl == 0 && osize == 4) {
		iret_to_vm86(v, &st, off, sel, flags);
		return;
	}
	read_return_code(v, sel, &cs, &va);
	has_outer = (sel & 3) != v->cpl || v->code_mode == X86_MODE_64;
	mask = soft_iret_flag_mask(v, osize);
	if (has_outer) {
		u16 ss_sel;

		sp = soft_stack_pop(v, &st, osize);
		ss_sel = (u16)soft_stack_pop(v, &st, osize);
		read_return_ss(v, ss_sel, sel & 3,
			       v->is_long && (cs.attr & SEG_L), &ss);
	}
	soft_check_target(v, &cs, off, 0);
	soft_desc_set_accessed(v, va, &cs);
	if (has_outer)
		v->segs[X86_SS] = ss;
	else
		soft_stack_commit_sp(v, &st);
	iret_flags(v, flags, mask);
	set_cs(v, &cs, sel & 3, off);
	if (has_outer) {
		set_return_sp(v, sp);
		soft_drop_inner_segs(v);
	}
	v->nmi_blocked = false;
}
