/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptors, segment loads and checks, and pushes and pops.
 *
 * THEORY. A segment register keeps its hidden part as loaded; real mode
 * changes base and selector only, so that limits set in protected mode stay
 * ("big real mode"). CPL is SS's DPL field (event.c), therefore a null SS in
 * 64-bit mode keeps that field.
 *
 * Source: SDM 3A §3.4-3.5, §5; SDM 2 MOV, LDS, POP.
 */
#include "soft/soft_int.h"

#include "soft/soft_sys.h"
#include "x86/cpuid.h"

#define ATTR_REAL_DATA 0x93u
#define ATTR_VM86      0xf3u

bool soft_is_amd(const struct vcpu *v)
{
	return v->vm->is_amd;
}

/* ---- descriptors ---- */

bool soft_desc_read(struct vcpu *v, u16 sel, u64 *out_raw, gva_t *out_va)
{
	u64 base = v->gdtr.base, limit = v->gdtr.limit;

	if (!(sel & 0xfffc))
		return false;
	if (sel & 4) {
		if (v->ldtr.attr & SEG_UNUSABLE)
			return false;
		base = v->ldtr.base;
		limit = v->ldtr.limit;
	}
	if ((sel | 7u) > limit)
		return false;
	*out_va = base + (sel & ~7u);
	*out_raw = soft_read(v, *out_va, 8, SOFT_SUPER);
	return true;
}

bool soft_desc_read_high(struct vcpu *v, u16 sel, gva_t va, u64 *out_high)
{
	u64 limit = (sel & 4) ? v->ldtr.limit : v->gdtr.limit;

	if ((sel | 7u) + 8 > limit)
		return false;
	*out_high = soft_read(v, va + 8, 8, SOFT_SUPER);
	return true;
}

void soft_desc_set_accessed(struct vcpu *v, gva_t va, struct soft_seg *seg)
{
	if (seg->attr & SEG_TYPE_ACC)
		return;
	seg->attr |= SEG_TYPE_ACC;
	soft_write(v, va + 5, 1, seg->attr & 0xff, SOFT_SUPER);
}

void soft_seg_set_real(struct soft_seg *s, u16 sel)
{
	s->sel = sel;
	s->base = (u32)sel << 4;
	if (s->attr & SEG_UNUSABLE) {
		s->attr = ATTR_REAL_DATA;
		s->limit = 0xffff;
	}
}

void soft_seg_set_vm86(struct soft_seg *s, u16 sel)
{
	*s = (struct soft_seg){.sel = sel,
			       .base = (u32)sel << 4,
			       .limit = 0xffff,
			       .attr = ATTR_VM86};
}

/* ---- limits ---- */

static bool is_expand_down(const struct soft_seg *s)
{
	return (s->attr & (SEG_TYPE_CODE | SEG_TYPE_CONF_ED | SEG_S)) ==
	       (SEG_TYPE_CONF_ED | SEG_S);
}

bool soft_seg_holds(const struct soft_seg *s, u64 off, size_t n)
{
	u64 last = off + n - 1;

	if (is_expand_down(s)) {
		u64 top = (s->attr & SEG_DB) ? 0xffffffffu : 0xffff;

		return off > s->limit && last <= top;
	}
	return last <= s->limit;
}

static bool type_allows(const struct vcpu *v, const struct soft_seg *s,
			unsigned how)
{
	if (!v->is_protected || v->is_vm86 || (how & SOFT_X))
		return true;
	if (how & SOFT_W)
		return !(s->attr & SEG_TYPE_CODE) && (s->attr & SEG_TYPE_WR_RD);
	return !(s->attr & SEG_TYPE_CODE) || (s->attr & SEG_TYPE_WR_RD);
}

gva_t soft_lin_slow(struct vcpu *v, unsigned seg, u64 off, size_t n,
		    unsigned how)
{
	const struct soft_seg *s;
	u8 vector = seg == X86_SS ? X86_VEC_SS : X86_VEC_GP;

	if (!n)
		n = 1;
	if (v->code_mode == X86_MODE_64) {
		gva_t va = off;

		if (seg == X86_FS || seg == X86_GS)
			va += v->segs[seg].base;
		if (!soft_is_canonical(va) || !soft_is_canonical(va + n - 1))
			soft_raise_error(v, vector, 0);
		return va;
	}
	s = &v->segs[seg < 6 ? seg : X86_DS];
	if ((s->attr & SEG_UNUSABLE) || !type_allows(v, s, how) ||
	    !soft_seg_holds(s, off, n))
		soft_raise_error(v, vector, 0);
	return (u32)(s->base + off);
}

u64 soft_ea(const struct vcpu *v, const struct insn *in)
{
	u64 ea = (u64)(i64)in->disp;

	if (in->has_modrm) {
		if (in->base == X86_REG_RIP)
			ea += v->next_rip;
		else if (in->base < 16)
			ea += v->gpr[in->base];
		if (in->index < 16)
			ea += v->gpr[in->index] << in->scale;
	} else {
		ea = in->imm; /* moffs */
	}
	return in->asize == 8 ? ea : in->asize == 4 ? (u32)ea : (u16)ea;
}

/* ---- loads ---- */

static void load_null(struct vcpu *v, unsigned seg, u16 sel)
{
	struct soft_seg *s = &v->segs[seg];

	if (seg == X86_SS) {
		if (v->code_mode != X86_MODE_64 || v->cpl == 3 ||
		    (sel & 3) != v->cpl)
			soft_gp(v, 0);
		soft_seg_set_null(s, sel);
		s->attr |= (u32)v->cpl << 5;
		return;
	}
	soft_seg_set_null(s, sel);
}

static void check_ss(struct vcpu *v, const struct soft_seg *s)
{
	u32 error = s->sel & 0xfffcu;

	if ((s->sel & 3) != v->cpl || !(s->attr & SEG_S) ||
	    (s->attr & SEG_TYPE_CODE) || !(s->attr & SEG_TYPE_WR_RD) ||
	    SEG_DPL(s->attr) != v->cpl)
		soft_gp(v, error);
	if (!(s->attr & SEG_P))
		soft_ss(v, error);
}

static void check_data(struct vcpu *v, const struct soft_seg *s)
{
	u32 error = s->sel & 0xfffcu;
	bool is_code = s->attr & SEG_TYPE_CODE;

	if (!(s->attr & SEG_S) || (is_code && !(s->attr & SEG_TYPE_WR_RD)))
		soft_gp(v, error);
	if (!(is_code && (s->attr & SEG_TYPE_CONF_ED)) &&
	    (SEG_DPL(s->attr) < (s->sel & 3u) || SEG_DPL(s->attr) < v->cpl))
		soft_gp(v, error);
	if (!(s->attr & SEG_P))
		soft_np(v, error);
}

void soft_load_seg(struct vcpu *v, unsigned seg, u16 sel)
{
	struct soft_seg s;
	u64 raw;
	gva_t va;

	if (!v->is_protected) {
		soft_seg_set_real(&v->segs[seg], sel);
	} else if (v->is_vm86) {
		soft_seg_set_vm86(&v->segs[seg], sel);
	} else if (!(sel & 0xfffc)) {
		load_null(v, seg, sel);
	} else {
		if (!soft_desc_read(v, sel, &raw, &va))
			soft_gp(v, sel & 0xfffcu);
		soft_desc_parse(raw, sel, &s);
		if (seg == X86_SS)
			check_ss(v, &s);
		else
			check_data(v, &s);
		soft_desc_set_accessed(v, va, &s);
		v->segs[seg] = s;
	}
	soft_mode_changed(v);
}

void soft_load_inner_ss(struct vcpu *v, u16 sel, unsigned cpl, u32 ext,
			struct soft_seg *out)
{
	u32 error = (sel & 0xfffcu) | ext;
	u64 raw;
	gva_t va;

	if (!(sel & 0xfffc))
		soft_ts(v, ext);
	if (!soft_desc_read(v, sel, &raw, &va))
		soft_ts(v, error);
	soft_desc_parse(raw, sel, out);
	if ((sel & 3u) != cpl || SEG_DPL(out->attr) != cpl ||
	    !(out->attr & SEG_S) || (out->attr & SEG_TYPE_CODE) ||
	    !(out->attr & SEG_TYPE_WR_RD))
		soft_ts(v, error);
	if (!(out->attr & SEG_P))
		soft_ss(v, error);
	soft_desc_set_accessed(v, va, out);
}

void soft_check_target(struct vcpu *v, const struct soft_seg *cs, u64 off,
		       u32 ext)
{
	if (v->is_long && (cs->attr & SEG_L)) {
		if (!soft_is_canonical(off))
			soft_gp(v, ext);
	} else if (off > cs->limit) {
		soft_gp(v, ext);
	}
}

/* ---- stacks ---- */

void soft_stack_init(struct vcpu *v, struct soft_stack *st)
{
	st->ss = v->segs[X86_SS];
	st->is_64 = v->stack_size == 8;
	st->mask = st->is_64		? ~0ull
		   : v->stack_size == 4 ? 0xffffffffu
					: 0xffff;
	st->sp = v->gpr[X86_RSP];
	st->how = 0;
	st->error = 0;
}

static gva_t stack_lin(struct vcpu *v, const struct soft_stack *st, u64 off,
		       unsigned size)
{
	if (st->is_64) {
		if (!soft_is_canonical(off) ||
		    !soft_is_canonical(off + size - 1))
			soft_ss(v, st->error);
		return off;
	}
	if ((st->ss.attr & SEG_UNUSABLE) || !soft_seg_holds(&st->ss, off, size))
		soft_ss(v, st->error);
	return (u32)(st->ss.base + off);
}

void soft_stack_push(struct vcpu *v, struct soft_stack *st, unsigned size,
		     u64 value)
{
	u64 off = (st->sp - size) & st->mask;

	soft_write(v, stack_lin(v, st, off, size), size, value, st->how);
	st->sp = (st->sp & ~st->mask) | off;
}

u64 soft_stack_peek(struct vcpu *v, const struct soft_stack *st, u64 off,
		    unsigned size)
{
	u64 at = (st->sp + off) & st->mask;

	return soft_read(v, stack_lin(v, st, at, size), size, st->how);
}

u64 soft_stack_pop(struct vcpu *v, struct soft_stack *st, unsigned size)
{
	u64 value = soft_stack_peek(v, st, 0, size);

	st->sp = (st->sp & ~st->mask) | ((st->sp + size) & st->mask);
	return value;
}

void soft_stack_commit_sp(struct vcpu *v, const struct soft_stack *st)
{
	u64 *rsp = &v->gpr[X86_RSP];

	*rsp = st->mask == 0xffff ? (*rsp & ~0xffffull) | (st->sp & 0xffff)
				  : st->sp & st->mask;
}

void soft_push(struct vcpu *v, u64 value, unsigned size)
{
	struct soft_stack st;

	soft_stack_init(v, &st);
	soft_stack_push(v, &st, size, value);
	soft_stack_commit_sp(v, &st);
}

u64 soft_pop(struct vcpu *v, unsigned size)
{
	struct soft_stack st;
	u64 value;

	soft_stack_init(v, &st);
	value = soft_stack_pop(v, &st, size);
	soft_stack_commit_sp(v, &st);
	return value;
}

void soft_tss_stack(struct vcpu *v, unsigned cpl, u32 ext, u16 *out_ss,
		    u64 *out_sp)
{
	u32 error = (v->tr.sel & 0xfffcu) | ext;
	gva_t base = v->tr.base;

	if (v->is_long) {
		if (4 + cpl * 8 + 7 > v->tr.limit)
			soft_ts(v, error);
		*out_sp = soft_read(v, base + 4 + cpl * 8, 8, SOFT_SUPER);
		*out_ss = (u16)cpl;
	} else if (SEG_TYPE(v->tr.attr) & 8) {
		if (4 + cpl * 8 + 5 > v->tr.limit)
			soft_ts(v, error);
		*out_sp = soft_read(v, base + 4 + cpl * 8, 4, SOFT_SUPER);
		*out_ss = (u16)soft_read(v, base + 8 + cpl * 8, 2, SOFT_SUPER);
	} else {
		if (2 + cpl * 4 + 3 > v->tr.limit)
			soft_ts(v, error);
		*out_sp = soft_read(v, base + 2 + cpl * 4, 2, SOFT_SUPER);
		*out_ss = (u16)soft_read(v, base + 4 + cpl * 4, 2, SOFT_SUPER);
	}
}
