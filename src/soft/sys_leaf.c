/* SPDX-License-Identifier: Apache-2.0 */
/* Frequent system instructions of 64-bit code, for generated code.
 *
 * THEORY. Each function has the cases in which nothing can go wrong, checks
 * exactly that they hold, and ends in the function of mode_leaf.c that the
 * interpreter's handler ends in. Anything else is LEAF_T0 with nothing
 * changed.
 *
 * Who changes the privilege also changes v->key by hand: from 64-bit code to
 * 64-bit code only XLAT_KEY_USER can differ.
 *
 * PAUSE is there for machines with more vCPUs than the host has processors to
 * give: the vCPU that another spins for may wait for the spinning one's, which
 * the host takes away at the end of a time slice only.
 *
 * Not here: TSC_DEADLINE and the APIC's timer (the host's timer, under a
 * lock), writes to other CRs than CR3, CPUID.
 */
#include "soft/leaf_int.h"

#include <sys/syscall.h>

#include "soft/apic_int.h"
#include "soft/soft_sys.h"
#include "soft/xlat_int.h"

static bool is_code64(const struct vcpu *v)
{
	return v->code_mode == X86_MODE_64 &&
	       !(v->rflags_sys & (X86_FL_TF | X86_FL_RF));
}
static bool is_system64(const struct vcpu *v)
{
	return is_code64(v) && !v->cpl;
}

/* The instruction ended with v->rip set and v->cpl possibly changed. */
static u32 arrive(struct vcpu *v)
{
	const struct soft_space *s = v->cpl ? v->user : &v->super;

	if (unlikely(v->key == XLAT_KEY_NONE))
		return LEAF_LEAVE;
	v->key = v->cpl ? v->key | XLAT_KEY_USER : v->key & ~XLAT_KEY_USER;
	if (unlikely(s->jc_key != v->key || !soft_is_canonical(v->rip) ||
		     soft_is_kicked(v)))
		return LEAF_LEAVE;
	return LEAF_JUMP;
}

u32 soft_syscall_leaf(struct vcpu *v, u32 arg)
{
	if (!is_code64(v) || !(v->efer & X86_EFER_SCE))
		return LEAF_T0;
	soft_syscall_commit(v);
	v->rip = v->next_rip;
	return arrive(v);
}

u32 soft_sysret_leaf(struct vcpu *v, u32 arg)
{
	if (!is_system64(v) || !(v->efer & X86_EFER_SCE) ||
	    !soft_is_canonical(v->gpr[X86_RCX]) || (v->gpr[11] & X86_FL_TF))
		return LEAF_T0;
	soft_sysret_commit(v, true, v->vm->is_amd);
	v->rip = v->next_rip;
	return arrive(v);
}

/* A serializing instruction compares the code that other vCPUs may still have
 * been writing to when it was read (smc.c): not here. */
static bool has_doubts(const struct vcpu *v)
{
	struct xlat *x = v->vm->xlat;

	return x && atomic_load(&x->doubts);
}

/* ---- IRET ---- */

/* A descriptor of the GDT that is present and accessed, and of privilege
 * rpl; false: for the interpreter. */
static bool read_desc(struct vcpu *v, u16 sel, u32 want, u32 mask,
		      struct soft_seg *out)
{
	const u8 *p;

	if ((sel & 4) || !(sel & 0xfff8) || (sel | 7u) > v->gdtr.limit)
		return false;
	p = leaf_page(v, v->gdtr.base + (sel & ~7u), 8, SOFT_R);
	if (!p)
		return false;
	soft_desc_parse(__atomic_load_n((const u64 *)p, __ATOMIC_RELAXED), sel,
			out);
	want |= SEG_P | SEG_S | SEG_TYPE_ACC;
	mask |= SEG_P | SEG_S | SEG_TYPE_ACC;
	return (out->attr & mask) == want && SEG_DPL(out->attr) == (sel & 3u);
}

static bool read_iret_ss(struct vcpu *v, u16 sel, unsigned cpl,
			 struct soft_seg *out)
{
	if (sel & 0xfffc)
		return read_desc(v, sel, SEG_TYPE_WR_RD,
				 SEG_TYPE_WR_RD | SEG_TYPE_CODE, out);
	if (cpl)
		return false;
	soft_seg_set_null(out, sel);
	return true;
}

u32 soft_iretq_leaf(struct vcpu *v, u32 arg)
{
	const u64 not_here = X86_FL_TF | X86_FL_NT | X86_FL_RF | X86_FL_VM;
	u64 rip, flags, rsp, mask;
	struct soft_seg cs, ss;
	u16 cs_sel, ss_sel;
	const u8 *p;

	if (!is_system64(v) || (v->rflags_sys & X86_FL_NT) || has_doubts(v))
		return LEAF_T0;
	p = leaf_page(v, v->gpr[X86_RSP], 40, SOFT_R);
	if (!p)
		return LEAF_T0;
	rip = ld_le64(p);
	cs_sel = ld_le16(p + 8);
	flags = ld_le64(p + 16);
	rsp = ld_le64(p + 24);
	ss_sel = ld_le16(p + 32);
	if (!soft_is_canonical(rip) || (flags & not_here) ||
	    ((cs_sel & 3) && (cs_sel & 3) != 3) ||
	    (ss_sel & 3) != (cs_sel & 3) ||
	    !read_desc(v, cs_sel, SEG_TYPE_CODE | SEG_L,
		       SEG_TYPE_CODE | SEG_TYPE_CONF_ED | SEG_L | SEG_DB,
		       &cs) ||
	    !read_iret_ss(v, ss_sel, cs_sel & 3u, &ss))
		return LEAF_T0;
	mask = soft_iret_flag_mask(v, 8);
	v->segs[X86_SS] = ss;
	v->segs[X86_CS] = cs;
	soft_set_rflags(v, (soft_rflags(v) & ~mask) | (flags & mask));
	soft_mode_changed(v);
	v->gpr[X86_RSP] = rsp;
	if (v->cpl)
		soft_drop_inner_segs(v);
	v->nmi_blocked = false;
	v->rip = rip;
	return arrive(v);
}

/* ---- flags ---- */

u32 soft_pushf_leaf(struct vcpu *v, u32 arg)
{
	u64 at = v->gpr[X86_RSP] - 8;
	u8 *p = is_code64(v) ? leaf_page(v, at, 8, SOFT_W) : NULL;

	if (!p)
		return LEAF_T0;
	st_le64(p, soft_rflags(v) & ~(X86_FL_VM | X86_FL_RF));
	v->gpr[X86_RSP] = at;
	return LEAF_DONE;
}

u32 soft_popf_leaf(struct vcpu *v, u32 arg)
{
	const u8 *p =
		is_code64(v) ? leaf_page(v, v->gpr[X86_RSP], 8, SOFT_R) : NULL;
	u64 value;

	if (!p)
		return LEAF_T0;
	value = ld_le64(p);
	if (value & X86_FL_TF)
		return LEAF_T0;
	v->gpr[X86_RSP] += 8;
	soft_popf_commit(v, value, 8);
	if (likely(!soft_is_kicked(v)))
		return LEAF_DONE;
	v->rip = v->next_rip;
	return LEAF_LEAVE;
}

/* ---- bases, MSRs, time ---- */

u32 soft_swapgs_leaf(struct vcpu *v, u32 arg)
{
	u64 base = v->segs[X86_GS].base;

	if (!is_system64(v))
		return LEAF_T0;
	v->segs[X86_GS].base = v->kernel_gs_base;
	v->kernel_gs_base = base;
	return LEAF_DONE;
}

/* As soft_tsc(). */
static u64 guest_tsc(const struct vcpu *v)
{
	u32 lo, hi;

	__asm__ volatile("lfence\n\trdtsc" : "=a"(lo), "=d"(hi) : : "memory");
	return ((u64)hi << 32 | lo) + (u64)v->tsc_offset;
}

static void set_edx_eax(struct vcpu *v, u64 value)
{
	v->gpr[X86_RAX] = (u32)value;
	v->gpr[X86_RDX] = value >> 32;
}

u32 soft_rdtsc_leaf(struct vcpu *v, u32 arg)
{
	if (!is_code64(v) || ((v->cr4 & X86_CR4_TSD) && v->cpl))
		return LEAF_T0;
	set_edx_eax(v, guest_tsc(v));
	if (arg)
		v->gpr[X86_RCX] = (u32)v->tsc_aux;
	return LEAF_DONE;
}

u32 soft_rdpid_leaf(struct vcpu *v, u32 arg)
{
	if (!is_code64(v))
		return LEAF_T0;
	v->gpr[arg & 15] = (u32)v->tsc_aux;
	return LEAF_DONE;
}

static u64 *base_of(struct vcpu *v, u32 arg)
{
	return &v->segs[arg & LEAF_BASE_GS ? X86_GS : X86_FS].base;
}

u32 soft_rdbase_leaf(struct vcpu *v, u32 arg)
{
	u64 base = *base_of(v, arg);

	if (!is_code64(v) || !(v->cr4 & X86_CR4_FSGSBASE))
		return LEAF_T0;
	v->gpr[arg & 15] = arg & LEAF_BASE_64 ? base : (u32)base;
	return LEAF_DONE;
}

u32 soft_wrbase_leaf(struct vcpu *v, u32 arg)
{
	u64 base = v->gpr[arg & 15];

	if (!(arg & LEAF_BASE_64))
		base = (u32)base;
	if (!is_code64(v) || !(v->cr4 & X86_CR4_FSGSBASE) ||
	    !soft_is_canonical(base))
		return LEAF_T0;
	*base_of(v, arg) = base;
	return LEAF_DONE;
}

/* An MSR that holds a linear address and nothing else; NULL: another. */
static u64 *base_msr(struct vcpu *v, u32 index)
{
	switch (index) {
	case X86_MSR_FS_BASE:
		return &v->segs[X86_FS].base;
	case X86_MSR_GS_BASE:
		return &v->segs[X86_GS].base;
	case X86_MSR_KERNEL_GS_BASE:
		return &v->kernel_gs_base;
	default:
		return NULL;
	}
}

u32 soft_rdmsr_leaf(struct vcpu *v, u32 arg)
{
	u32 index = (u32)v->gpr[X86_RCX];
	const u64 *base = base_msr(v, index);

	if (!is_system64(v))
		return LEAF_T0;
	if (base)
		set_edx_eax(v, *base);
	else if (index == X86_MSR_SPEC_CTRL)
		set_edx_eax(v, v->spec_ctrl);
	else if (index == X86_MSR_TSC)
		set_edx_eax(v, guest_tsc(v));
	else
		return LEAF_T0;
	return LEAF_DONE;
}

/* The end of an edge interrupt in x2APIC mode: no device hears of it. */
static bool x2apic_eoi(struct vcpu *v, u64 value)
{
	struct soft_apic *a = v->apic;
	int vec;

	if (value || !apic_is_x2(a) || a->is_pv_eoi)
		return false;
	vec = apic_highest(a->isr);
	if (vec >= 0) {
		if (apic_ld(&a->tmr[vec >> 5]) & BIT32(vec & 31))
			return false;
		a->isr[vec >> 5] &= ~BIT32(vec & 31);
		/* This vCPU runs, so nobody has to be woken. */
		if (apic_deliverable(a) >= 0)
			atomic_fetch_or(&v->requests, SOFT_REQ_INTR);
	}
	soft_after_if_change(v);
	return true;
}

u32 soft_wrmsr_leaf(struct vcpu *v, u32 arg)
{
	u64 value = (u32)v->gpr[X86_RAX] | v->gpr[X86_RDX] << 32;
	u32 index = (u32)v->gpr[X86_RCX];
	u64 *base = base_msr(v, index);

	if (!is_system64(v) || has_doubts(v))
		return LEAF_T0;
	if (base && soft_is_canonical(value))
		*base = value;
	else if (index == X86_MSR_SPEC_CTRL && value <= 7)
		v->spec_ctrl = value;
	else if (index == X86_MSR_X2APIC_FIRST + (APIC_EOI >> 4))
		return x2apic_eoi(v, value) ? LEAF_DONE : LEAF_T0;
	else if (index != X86_MSR_PRED_CMD || value > 1)
		return LEAF_T0;
	return LEAF_DONE;
}

/* ---- control registers ---- */

u32 soft_rdcr_leaf(struct vcpu *v, u32 arg)
{
	u64 value;

	if (!is_system64(v))
		return LEAF_T0;
	switch (arg >> 4) {
	case 0:
		value = v->cr0;
		break;
	case 2:
		value = v->cr2;
		break;
	case 3:
		value = v->cr3;
		break;
	case 4:
		value = v->cr4;
		break;
	case 8:
		value = apic_ld(&v->apic->tpr) >> 4;
		break;
	default:
		return LEAF_T0;
	}
	v->gpr[arg & 15] = value;
	return LEAF_DONE;
}

u32 soft_clts_leaf(struct vcpu *v, u32 arg)
{
	if (!is_system64(v))
		return LEAF_T0;
	if (!(v->cr0 & X86_CR0_TS))
		return LEAF_DONE;
	v->cr0 &= ~X86_CR0_TS; /* another mode key */
	v->rip = v->next_rip;
	return LEAF_LEAVE;
}

/* What is known of the code that runs may have changed: it is looked up. */
static u32 translations_changed(struct vcpu *v)
{
	v->rip = v->next_rip;
	return arrive(v);
}

u32 soft_wrcr_leaf(struct vcpu *v, u32 arg)
{
	if (arg >> 4 != 3 || !is_system64(v) || has_doubts(v) ||
	    !soft_cr3_switch_leaf(v, v->gpr[arg & 15]))
		return LEAF_T0;
	return translations_changed(v);
}

u32 soft_invlpg_reg_leaf(struct vcpu *v, u32 arg)
{
	if (arg > 15 || !is_system64(v) || has_doubts(v) ||
	    !soft_invlpg_leaf(v, v->gpr[arg]))
		return LEAF_T0;
	return translations_changed(v);
}

/* ---- waiting ---- */

static void yield(void)
{
	long rc;

	__asm__ volatile("syscall"
			 : "=a"(rc)
			 : "a"(SYS_sched_yield)
			 : "rcx", "r11", "memory");
}

void soft_pause(struct vcpu *v)
{
	__builtin_ia32_pause();
	if (++v->stats.pauses % SOFT_PAUSES_PER_YIELD || v->vm->vcpu_count < 2)
		return;
	v->stats.yields++;
	yield();
}

u32 soft_pause_leaf(struct vcpu *v, u32 arg)
{
	soft_pause(v);
	return LEAF_DONE;
}
