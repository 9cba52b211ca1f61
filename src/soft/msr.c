/* SPDX-License-Identifier: Apache-2.0 */
/* Control registers, MSRs and CPUID.
 *
 * An MSR that is not listed is #GP(0) and a debug line, never a silent zero.
 * Source: SDM 3A §2.5, SDM 4; APM 2 §3.2, appendix A. */
#include "soft/soft_int.h"

#include "base/log.h"
#include "soft/soft_sys.h"
#include "x86/cpuid.h"

bool soft_cpuid_has(const struct vcpu *v, u32 leaf, u32 subleaf, unsigned reg,
		    unsigned bit)
{
	const struct kvm_cpuid_entry2 *e =
		x86_cpuid_find(v->vm->cpuid, leaf, subleaf);

	return e && ((&e->eax)[reg] & BIT32(bit));
}

/* ---- control registers ---- */

/* The PAE page-directory pointers; #GP(0) on reserved bits. */
static void load_pdptes(struct vcpu *v, u64 cr3)
{
	u64 rsvd = ~0ull << v->vm->physical_address_bits | 0x1e6;
	u64 p[4];

	for (unsigned i = 0; i < 4; i++) {
		if (mem_read(v->vm->mem, (cr3 & 0xffffffe0u) + i * 8, &p[i], 8))
			soft_gp(v, 0);
		if ((p[i] & X86_PTE_P) && (p[i] & rsvd))
			soft_gp(v, 0);
	}
	memcpy(v->pdpte, p, sizeof(p));
}

static bool is_pae_paging(u64 cr0, u64 cr4, u64 efer)
{
	return (cr0 & X86_CR0_PG) && (cr4 & X86_CR4_PAE) &&
	       !(efer & X86_EFER_LMA);
}

void soft_cr0_write(struct vcpu *v, u64 value)
{
	const u64 known = X86_CR0_PE | X86_CR0_MP | X86_CR0_EM | X86_CR0_TS |
			  X86_CR0_ET | X86_CR0_NE | X86_CR0_WP | X86_CR0_AM |
			  X86_CR0_NW | X86_CR0_CD | X86_CR0_PG;
	u64 old = v->cr0, changed, efer = v->efer;

	if (value >> 32)
		soft_gp(v, 0);
	value = (value & known) | X86_CR0_ET;
	changed = old ^ value;
	if ((value & X86_CR0_PG) && !(value & X86_CR0_PE))
		soft_gp(v, 0);
	if ((value & X86_CR0_NW) && !(value & X86_CR0_CD))
		soft_gp(v, 0);
	if ((changed & X86_CR0_PG) && (value & X86_CR0_PG) &&
	    (efer & X86_EFER_LME)) {
		if (!(v->cr4 & X86_CR4_PAE) || (v->segs[X86_CS].attr & SEG_L))
			soft_gp(v, 0);
		efer |= X86_EFER_LMA;
	}
	if ((changed & X86_CR0_PG) && !(value & X86_CR0_PG)) {
		if ((v->cr4 & X86_CR4_PCIDE) || v->code_mode == X86_MODE_64)
			soft_gp(v, 0);
		efer &= ~X86_EFER_LMA;
	}
	if ((changed & (X86_CR0_PG | X86_CR0_CD | X86_CR0_NW)) &&
	    is_pae_paging(value, v->cr4, efer))
		load_pdptes(v, v->cr3);
	v->cr0 = value;
	v->efer = efer;
	if (changed & (X86_CR0_PG | X86_CR0_WP | X86_CR0_PE))
		soft_tlb_flush(v, false);
	soft_mode_changed(v);
}

void soft_cr3_write(struct vcpu *v, u64 value)
{
	bool keeps = false;

	v->stats.cr3_writes++;
	if (v->is_long) {
		if (v->cr4 & X86_CR4_PCIDE) {
			keeps = value >> 63;
			value &= ~BIT64(63);
		}
		if (value >> v->vm->physical_address_bits)
			soft_gp(v, 0);
	} else {
		value = (u32)value;
		if (is_pae_paging(v->cr0, v->cr4, v->efer))
			load_pdptes(v, value);
	}
	soft_cr3_switch(v, value, keeps);
}

u64 soft_cr4_allowed(const struct vcpu *v)
{
	u64 ok = X86_CR4_TSD | X86_CR4_DE | X86_CR4_PSE | X86_CR4_PAE |
		 X86_CR4_MCE | X86_CR4_PGE | X86_CR4_PCE | X86_CR4_OSFXSR |
		 X86_CR4_OSXMMEXCPT;

	if (soft_cpuid_has(v, 1, 0, 2, 17))
		ok |= X86_CR4_PCIDE;
	if (soft_cpuid_has(v, 1, 0, 2, 26))
		ok |= X86_CR4_OSXSAVE;
	if (soft_cpuid_has(v, 7, 0, 1, 0))
		ok |= X86_CR4_FSGSBASE;
	if (soft_cpuid_has(v, 7, 0, 1, 7))
		ok |= X86_CR4_SMEP;
	if (soft_cpuid_has(v, 7, 0, 1, 20))
		ok |= X86_CR4_SMAP;
	if (soft_cpuid_has(v, 7, 0, 2, 2))
		ok |= X86_CR4_UMIP;
	return ok;
}

void soft_cr4_write(struct vcpu *v, u64 value)
{
	const u64 paging = X86_CR4_PSE | X86_CR4_PAE | X86_CR4_PGE |
			   X86_CR4_PCIDE | X86_CR4_SMEP | X86_CR4_SMAP;
	u64 changed = v->cr4 ^ value;

	if (value & ~soft_cr4_allowed(v))
		soft_gp(v, 0);
	if (v->is_long && !(value & X86_CR4_PAE))
		soft_gp(v, 0);
	if ((changed & value & X86_CR4_PCIDE) &&
	    (!v->is_long || (v->cr3 & 0xfff)))
		soft_gp(v, 0);
	if ((changed &
	     (X86_CR4_PAE | X86_CR4_PGE | X86_CR4_PSE | X86_CR4_SMEP)) &&
	    is_pae_paging(v->cr0, value, v->efer))
		load_pdptes(v, v->cr3);
	v->cr4 = value;
	if (changed & paging)
		soft_tlb_flush(v, false);
}

/* ---- MSRs ---- */

static bool is_memory_type(u64 t)
{
	return t == 0 || t == 1 || t == 4 || t == 5 || t == 6;
}

static bool each_byte(u64 value, bool is_pat)
{
	for (unsigned i = 0; i < 8; i++) {
		u64 t = value >> (i * 8) & 0xff;

		if (!is_memory_type(t) && !(is_pat && t == 7))
			return false;
	}
	return true;
}

static int mtrr_fixed_index(u32 index)
{
	if (index == 0x250)
		return 0;
	if (index == 0x258 || index == 0x259)
		return (int)(index - 0x257);
	if (index >= 0x268 && index <= 0x26f)
		return (int)(index - 0x265);
	return -1;
}

static bool efer_write(struct vcpu *v, u64 value)
{
	u64 ok = X86_EFER_SCE | X86_EFER_LME | X86_EFER_LMA | X86_EFER_NXE;

	if (soft_cpuid_has(v, 0x80000021u, 0, 0, 8))
		ok |= X86_EFER_AUTOIBRS;
	if (value & ~ok)
		return false;
	if ((v->cr0 & X86_CR0_PG) && ((value ^ v->efer) & X86_EFER_LME))
		return false;
	value = (value & ~X86_EFER_LMA) | (v->efer & X86_EFER_LMA);
	if ((value ^ v->efer) & X86_EFER_NXE)
		soft_tlb_flush(v, false);
	v->efer = value;
	return true;
}

/* AMD's set-up registers: readable, writes without effect. */
static bool amd_read(u32 index, u64 *out)
{
	switch (index) {
	case 0xc0010015u: /* HWCR: TscFreqSel */
		*out = BIT64(24);
		return true;
	case 0xc0011029u: /* DE_CFG: LFENCE serializes */
		*out = BIT64(1);
		return true;
	case 0xc0010000u ... 0xc0010007u:
	case 0xc0010010u:
	case 0xc001001au:
	case 0xc001001du:
	case 0xc001001fu:
	case 0xc0010020u:
	case 0xc0010055u:
	case 0xc0010058u:
	case 0xc0010061u ... 0xc001006bu:
	case 0xc0010140u:
	case 0xc0010141u:
	case 0xc0011020u ... 0xc0011023u:
	case 0xc001102au:
		*out = 0;
		return true;
	default:
		return false;
	}
}

/* Where an MSR that is only stored lives; NULL: none. */
static u64 *plain_msr(struct vcpu *v, u32 index)
{
	int fixed = mtrr_fixed_index(index);

	if (fixed >= 0)
		return &v->mtrr_fix[fixed];
	if (index >= 0x200 && index <= 0x20f)
		return &v->mtrr_var[index - 0x200];
	switch (index) {
	case X86_MSR_SYSENTER_CS:
		return &v->sysenter_cs;
	case X86_MSR_SYSENTER_ESP:
		return &v->sysenter_esp;
	case X86_MSR_SYSENTER_EIP:
		return &v->sysenter_eip;
	case X86_MSR_MISC_ENABLE:
		return &v->misc_enable;
	case X86_MSR_PAT:
		return &v->pat;
	case X86_MSR_MTRR_DEF_TYPE:
		return &v->mtrr_def;
	case X86_MSR_SPEC_CTRL:
		return &v->spec_ctrl;
	case X86_MSR_EFER:
		return &v->efer;
	case X86_MSR_STAR:
		return &v->star;
	case X86_MSR_LSTAR:
		return &v->lstar;
	case X86_MSR_CSTAR:
		return &v->cstar;
	case X86_MSR_SFMASK:
		return &v->sfmask;
	case X86_MSR_FS_BASE:
		return &v->segs[X86_FS].base;
	case X86_MSR_GS_BASE:
		return &v->segs[X86_GS].base;
	case X86_MSR_KERNEL_GS_BASE:
		return &v->kernel_gs_base;
	case X86_MSR_TSC_AUX:
		return &v->tsc_aux;
	default:
		return NULL;
	}
}

static bool is_apic_msr(u32 index)
{
	return index == X86_MSR_APIC_BASE || index == X86_MSR_TSC_DEADLINE ||
	       (index >= X86_MSR_X2APIC_FIRST && index <= X86_MSR_X2APIC_LAST);
}

static bool is_pv_msr(u32 index)
{
	return index == 0x11 || index == 0x12 ||
	       (index >= 0x4b564d00u && index <= 0x4b564d07u);
}

/* Kernels compare it with the first revision that has a fix. Ours has all:
 * AMD's numbers are family - 0xf, model, stepping and a count, and the count
 * is the highest. Intel's stands in the upper half. */
static u64 microcode_revision(const struct vcpu *v)
{
	const struct kvm_cpuid_entry2 *e = x86_cpuid_find(v->vm->cpuid, 1, 0);
	u32 sig = e ? e->eax : 0;

	if (!soft_is_amd(v))
		return 0xffull << 32;
	return (sig >> 20 & 0xff) << 24 | (sig >> 16 & 0xf) << 20 |
	       (sig >> 4 & 0xf) << 12 | (sig & 0xf) << 8 | 0xff;
}

bool soft_rdmsr(struct vcpu *v, u32 index, u64 *out)
{
	const u64 *plain = plain_msr(v, index);

	if (plain) {
		*out = *plain;
		return true;
	}
	if (is_apic_msr(index))
		return soft_apic_rdmsr(v, index, out);
	if (is_pv_msr(index))
		return soft_pv_rdmsr(v, index, out);
	switch (index) {
	case X86_MSR_TSC:
		*out = soft_tsc(v);
		return true;
	case X86_MSR_TSC_ADJUST:
		*out = (u64)v->tsc_adjust;
		return true;
	case X86_MSR_MTRRCAP: /* 8 variable, fixed, write-combining */
		*out = 0x508;
		return true;
	case X86_MSR_ARCH_CAPABILITIES:
		*out = x86_cpuid_arch_capabilities(v->vm->cpuid);
		return true;
	case 0x3a: /* FEATURE_CONTROL: locked, VMX off */
		*out = 1;
		return true;
	case 0x8b: /* microcode revision */
		*out = microcode_revision(v);
		return true;
	case 0x17:
	case 0xce:
	case 0x179:
	case 0x17a:
	case 0x1d9:
	case 0xda0:
		*out = 0;
		return true;
	}
	if (soft_is_amd(v) && amd_read(index, out))
		return true;
	log_debug("vcpu %u: rdmsr 0x%x: no such MSR", v->id, index);
	return false;
}

static bool plain_is_valid(const struct vcpu *v, u32 index, u64 value)
{
	u64 above = ~0ull << v->vm->physical_address_bits;

	if (mtrr_fixed_index(index) >= 0)
		return each_byte(value, false);
	if (index >= 0x200 && index <= 0x20f)
		return (index & 1) ? !(value & (above | 0x7ff))
				   : !(value & (above | 0xf00)) &&
					     is_memory_type(value & 0xff);
	switch (index) {
	case X86_MSR_PAT:
		return each_byte(value, true);
	case X86_MSR_MTRR_DEF_TYPE:
		return !(value & ~0xcffull) && is_memory_type(value & 0xff);
	case X86_MSR_SPEC_CTRL:
		return !(value & ~7ull);
	case X86_MSR_SYSENTER_ESP:
	case X86_MSR_SYSENTER_EIP:
	case X86_MSR_LSTAR:
	case X86_MSR_CSTAR:
	case X86_MSR_FS_BASE:
	case X86_MSR_GS_BASE:
	case X86_MSR_KERNEL_GS_BASE:
		return soft_is_canonical(value);
	case X86_MSR_TSC_AUX:
		return !(value >> 32);
	default:
		return true;
	}
}

bool soft_wrmsr(struct vcpu *v, u32 index, u64 value)
{
	u64 *plain = plain_msr(v, index), unused;

	if (index == X86_MSR_EFER)
		return efer_write(v, value);
	if (plain) {
		if (!plain_is_valid(v, index, value))
			return false;
		*plain = index == X86_MSR_SFMASK ? (u32)value : value;
		return true;
	}
	if (is_apic_msr(index)) {
		if (index == X86_MSR_APIC_BASE)
			soft_tlb_flush(v, false);
		return soft_apic_wrmsr(v, index, value);
	}
	if (is_pv_msr(index))
		return soft_pv_wrmsr(v, index, value);
	switch (index) {
	case X86_MSR_TSC: {
		i64 delta = (i64)(value - soft_tsc(v));

		v->tsc_offset += delta;
		v->tsc_adjust += delta;
		return true;
	}
	case X86_MSR_TSC_ADJUST:
		v->tsc_offset += (i64)value - v->tsc_adjust;
		v->tsc_adjust = (i64)value;
		return true;
	case X86_MSR_PRED_CMD: /* IBPB: nothing is predicted here */
		return !(value & ~1ull);
	case 0x10b: /* FLUSH_CMD */
		return soft_cpuid_has(v, 7, 0, 3, 28) && !(value & ~1ull);
	case 0x8b:
	case 0x79:
	case 0x17a:
	case 0x1d9:
		return true;
	case 0xda0:
		return !value;
	}
	if (soft_is_amd(v) && amd_read(index, &unused))
		return true;
	log_debug("vcpu %u: wrmsr 0x%x: no such MSR", v->id, index);
	return false;
}

/* ---- CPUID ---- */

static bool apic_is_enabled(struct vcpu *v)
{
	u64 base;

	return soft_apic_rdmsr(v, X86_MSR_APIC_BASE, &base) &&
	       (base & BIT64(11));
}

static void cpuid_dynamic(struct vcpu *v, u32 leaf, u32 subleaf, u32 out[4])
{
	switch (leaf) {
	case 1:
		out[1] = (out[1] & 0xffffff) | v->id << 24;
		if (v->cr4 & X86_CR4_OSXSAVE)
			out[2] |= BIT32(27);
		else
			out[2] &= ~BIT32(27);
		if (!apic_is_enabled(v))
			out[3] &= ~BIT32(9);
		break;
	case 0xb:
	case 0x1f:
		out[2] = (out[2] & ~0xffu) | (subleaf & 0xff);
		out[3] = v->id;
		break;
	case 0xd:
		if (subleaf < 2 && out[1])
			out[1] = (v->xcr0 & 4) ? 832 : 576;
		break;
	case 0x80000001u:
		/* Intel shows SYSCALL in 64-bit mode only. */
		if (!soft_is_amd(v) && v->code_mode != X86_MODE_64)
			out[3] &= ~BIT32(11);
		if (!apic_is_enabled(v))
			out[3] &= ~BIT32(9);
		break;
	case 0x8000001eu:
		out[0] = v->id;
		out[1] = v->id & 0xff;
		break;
	}
}

void soft_cpuid(struct vcpu *v, u32 leaf, u32 subleaf, u32 out[4])
{
	const struct kvm_cpuid2 *t = v->vm->cpuid;
	const struct kvm_cpuid_entry2 *e = x86_cpuid_find(t, leaf, subleaf);
	const struct kvm_cpuid_entry2 *max =
		x86_cpuid_find(t, leaf & 0xc0000000u, 0);

	memset(out, 0, 4 * sizeof(out[0]));
	/* Intel: past the maximum, the highest basic leaf answers. */
	if (!e && !soft_is_amd(v) && (!max || leaf > max->eax)) {
		const struct kvm_cpuid_entry2 *basic = x86_cpuid_find(t, 0, 0);

		if (basic)
			e = x86_cpuid_find(t, leaf = basic->eax, subleaf);
	}
	if (e)
		memcpy(out, &e->eax, 4 * sizeof(out[0]));
	cpuid_dynamic(v, leaf, subleaf, out);
}
