/* SPDX-License-Identifier: Apache-2.0 */
/* Flags, modes and segments: what system instructions change once all their
 * checks are done. The interpreter's handlers and the leaf operations of
 * generated code end in the same functions, so this is leaf code (leaf.h):
 * nothing here faults or calls out. */
#include "soft/soft_sys.h"

/* ---- flags ---- */

u64 soft_rflags(const struct vcpu *v)
{
	return (v->rflags_sys & ~X86_FL_ARITH) | BIT64(1) |
	       ((v->aflags >> 8) &
		(X86_FL_SF | X86_FL_ZF | X86_FL_AF | X86_FL_PF | X86_FL_CF)) |
	       ((v->aflags & 1) ? X86_FL_OF : 0);
}

void soft_set_rflags(struct vcpu *v, u64 rflags)
{
	const u64 known = X86_FL_TF | X86_FL_IF | X86_FL_DF | X86_FL_IOPL |
			  X86_FL_NT | X86_FL_RF | X86_FL_VM | X86_FL_AC |
			  X86_FL_VIF | X86_FL_VIP | X86_FL_ID;

	v->aflags =
		(u32)((rflags & 0xd5) << 8) | 0x200 | !!(rflags & X86_FL_OF);
	v->rflags_sys = (rflags & known) | BIT64(1);
	soft_after_if_change(v);
}

u64 soft_iret_flag_mask(const struct vcpu *v, unsigned osize)
{
	u64 mask = X86_FL_ARITH | X86_FL_TF | X86_FL_DF | X86_FL_NT;
	unsigned iopl = v->rflags_sys >> 12 & 3;

	if (osize > 2)
		mask |= X86_FL_RF | X86_FL_AC | X86_FL_ID;
	if (v->cpl <= iopl || !v->is_protected)
		mask |= X86_FL_IF;
	if (v->cpl == 0) {
		mask |= X86_FL_IOPL;
		if (osize > 2 && v->is_protected)
			mask |= X86_FL_VIF | X86_FL_VIP;
	}
	return mask;
}

void soft_popf_commit(struct vcpu *v, u64 value, unsigned osize)
{
	u64 mask = X86_FL_ARITH | X86_FL_TF | X86_FL_DF | X86_FL_NT;

	if (osize > 2)
		mask |= X86_FL_AC | X86_FL_ID;
	if (v->cpl <= (v->rflags_sys >> 12 & 3))
		mask |= X86_FL_IF;
	if (v->cpl == 0)
		mask |= X86_FL_IOPL;
	soft_set_rflags(v, (soft_rflags(v) & ~(mask | X86_FL_RF)) |
				   (value & mask));
}

/* ---- segments ---- */

void soft_desc_parse(u64 raw, u16 sel, struct soft_seg *out)
{
	u32 limit = (u32)(raw & 0xffff) | ((u32)(raw >> 32) & 0xf0000);

	out->sel = sel;
	out->base = (raw >> 16 & 0xffffff) | (raw >> 32 & 0xff000000);
	out->attr = (u32)(raw >> 40) & 0xf0ff;
	out->limit = (out->attr & SEG_G) ? limit << 12 | 0xfff : limit;
}

void soft_seg_set_null(struct soft_seg *s, u16 sel)
{
	*s = (struct soft_seg){.sel = sel, .attr = SEG_UNUSABLE};
}

void soft_set_flat(struct vcpu *v, unsigned seg, u64 sel, u32 attr,
		   unsigned cpl)
{
	v->segs[seg] = (struct soft_seg){
		.sel = (u16)sel, .limit = ~0u, .attr = attr | cpl << 5};
}

void soft_drop_inner_segs(struct vcpu *v)
{
	static const u8 segs[] = {X86_ES, X86_DS, X86_FS, X86_GS};

	for (unsigned i = 0; i < ARRAY_SIZE(segs); i++) {
		struct soft_seg *s = &v->segs[segs[i]];
		bool is_conforming = (s->attr & SEG_TYPE_CODE) &&
				     (s->attr & SEG_TYPE_CONF_ED);

		/* A null one loses its RPL, which Linux's sigreturn expects. */
		if ((s->attr & SEG_UNUSABLE) ||
		    (!is_conforming && SEG_DPL(s->attr) < v->cpl)) {
			s->sel = 0;
			s->attr |= SEG_UNUSABLE;
		}
	}
}

/* ---- modes ---- */

static bool seg_is_flat(const struct soft_seg *s, bool is_code)
{
	u32 want = SEG_S | SEG_P | SEG_TYPE_WR_RD;
	u32 not = SEG_UNUSABLE | SEG_TYPE_CONF_ED | SEG_TYPE_CODE;

	if (is_code) {
		want |= SEG_TYPE_CODE;
		not &= ~(SEG_TYPE_CODE | SEG_TYPE_CONF_ED);
	}
	return !s->base && s->limit == ~0u && (s->attr & want) == want &&
	       !(s->attr & not );
}

void soft_mode_changed(struct vcpu *v)
{
	const struct soft_seg *cs = &v->segs[X86_CS], *ss = &v->segs[X86_SS];

	v->fetch_page = SOFT_TLB_EMPTY;
	v->is_protected = v->cr0 & X86_CR0_PE;
	v->is_long = v->efer & X86_EFER_LMA;
	v->is_vm86 = v->is_protected && (v->rflags_sys & X86_FL_VM);
	v->cpl = !v->is_protected ? 0 : v->is_vm86 ? 3 : SEG_DPL(ss->attr);
	v->tlb_now = v->cpl == 3 ? v->user->tlb : v->super_now->tlb;
	if (v->is_long && (cs->attr & SEG_L))
		v->code_mode = X86_MODE_64;
	else
		v->code_mode = (cs->attr & SEG_DB) ? X86_MODE_32 : X86_MODE_16;
	if (v->code_mode == X86_MODE_64)
		v->stack_size = 8;
	else
		v->stack_size = (ss->attr & SEG_DB) ? 4 : 2;
	v->is_flat = v->code_mode == X86_MODE_64 ||
		     (seg_is_flat(cs, true) &&
		      seg_is_flat(&v->segs[X86_DS], false) &&
		      seg_is_flat(&v->segs[X86_ES], false) &&
		      seg_is_flat(ss, false));
}

/* ---- system calls ---- */

void soft_syscall_commit(struct vcpu *v)
{
	bool is_64 = v->code_mode == X86_MODE_64;
	u64 sel = v->star >> 32 & 0xfffc;

	v->gpr[X86_RCX] = v->next_rip;
	if (v->is_long) {
		u64 flags = soft_rflags(v) & ~X86_FL_RF;

		v->gpr[11] = flags;
		soft_set_rflags(v, flags & ~v->sfmask);
		v->next_rip = is_64 ? v->lstar : v->cstar;
	} else {
		v->rflags_sys &= ~(X86_FL_IF | X86_FL_RF | X86_FL_VM);
		v->next_rip = (u32)v->star;
	}
	soft_set_flat(v, X86_CS, sel,
		      v->is_long ? SOFT_ATTR_CODE64 : SOFT_ATTR_CODE32, 0);
	soft_set_flat(v, X86_SS, sel + 8, SOFT_ATTR_DATA, 0);
	soft_mode_changed(v);
}

void soft_sysret_commit(struct vcpu *v, bool to_64, bool is_amd)
{
	u64 sel = v->star >> 48;
	u64 rip = v->gpr[X86_RCX];

	if (v->is_long)
		soft_set_rflags(v, (v->gpr[11] & ~(X86_FL_RF | X86_FL_VM)));
	else
		v->rflags_sys |= X86_FL_IF;
	soft_set_flat(v, X86_CS, (to_64 ? sel + 16 : sel) | 3,
		      to_64 ? SOFT_ATTR_CODE64 : SOFT_ATTR_CODE32, 3);
	if (is_amd) { /* AMD loads the selector only */
		v->segs[X86_SS].sel = (u16)(sel + 8) | 3;
		v->segs[X86_SS].attr |= 3u << 5;
	} else {
		soft_set_flat(v, X86_SS, (sel + 8) | 3, SOFT_ATTR_DATA, 3);
	}
	v->next_rip = to_64 ? rip : (u32)rip;
	soft_mode_changed(v);
}
