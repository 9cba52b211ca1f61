/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY
 *
 * Conversion between struct vcpu and struct vcpu_state. Saving copies; loading
 * checks everything first, because a state comes from a file: nothing that
 * the instruction set could not have produced gets in, and a refusal leaves
 * the vCPU's registers as they were (MSRs and the APIC are set last; a vCPU
 * whose load failed is not run).
 *
 * The TSC. Each vCPU's TSC is saved and loaded at a slightly different moment.
 * So that they stay in step, a load that comes out within a second of the
 * VM's clock base takes that base. kvmclock is a function of the base, and
 * goes on with the TSC.
 *
 * Not accepted: a half-delivered event, SMM, and more than x87, SSE and AVX
 * in XCR0. Taken events are complete between our instructions.
 */
#include "soft/apic_int.h"

#include <errno.h>

#include "x86/cpuid.h"

#define XSAVE_BV    512
#define XSAVE_YMM   576
#define XSAVE_BYTES 832
#define XCR0_X87    1u
#define XCR0_SSE    2u
#define XCR0_AVX    4u

#define CR0_KNOWN                                                              \
	(X86_CR0_PE | X86_CR0_MP | X86_CR0_EM | X86_CR0_TS | X86_CR0_ET |      \
	 X86_CR0_NE | X86_CR0_WP | X86_CR0_AM | X86_CR0_NW | X86_CR0_CD |      \
	 X86_CR0_PG)
#define CR4_KNOWN                                                              \
	(X86_CR4_VME | X86_CR4_PVI | X86_CR4_TSD | X86_CR4_DE | X86_CR4_PSE |  \
	 X86_CR4_PAE | X86_CR4_MCE | X86_CR4_PGE | X86_CR4_PCE |               \
	 X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT | X86_CR4_UMIP |                  \
	 X86_CR4_FSGSBASE | X86_CR4_PCIDE | X86_CR4_OSXSAVE | X86_CR4_SMEP |   \
	 X86_CR4_SMAP)
#define EFER_KNOWN                                                             \
	(X86_EFER_SCE | X86_EFER_LME | X86_EFER_LMA | X86_EFER_NXE |           \
	 X86_EFER_FFXSR | X86_EFER_AUTOIBRS)
#define RFLAGS_KNOWN                                                           \
	(X86_FL_ARITH | X86_FL_TF | X86_FL_IF | X86_FL_DF | X86_FL_IOPL |      \
	 X86_FL_NT | X86_FL_RF | X86_FL_VM | X86_FL_AC | X86_FL_VIF |          \
	 X86_FL_VIP | X86_FL_ID | 2)

/* ---- segments ---- */

static void get_seg(const struct soft_seg *s, struct kvm_segment *out)
{
	*out = (struct kvm_segment){
		.base = s->base,
		.limit = s->limit,
		.selector = s->sel,
		.type = SEG_TYPE(s->attr),
		.present = !!(s->attr & SEG_P),
		.dpl = SEG_DPL(s->attr),
		.db = !!(s->attr & SEG_DB),
		.s = !!(s->attr & SEG_S),
		.l = !!(s->attr & SEG_L),
		.g = !!(s->attr & SEG_G),
		.avl = !!(s->attr & SEG_AVL),
		.unusable = !!(s->attr & SEG_UNUSABLE),
	};
}

static void set_seg(struct soft_seg *s, const struct kvm_segment *in)
{
	s->base = in->base;
	s->limit = in->limit;
	s->sel = in->selector;
	s->attr = (in->type & 15u) | (in->s ? SEG_S : 0) | (in->dpl & 3u) << 5 |
		  (in->present ? SEG_P : 0) | (in->avl ? SEG_AVL : 0) |
		  (in->l ? SEG_L : 0) | (in->db ? SEG_DB : 0) |
		  (in->g ? SEG_G : 0) | (in->unusable ? SEG_UNUSABLE : 0);
}

/* ---- get ---- */

static void get_regs(const struct vcpu *v, struct kvm_regs *r)
{
	*r = (struct kvm_regs){
		.rax = v->gpr[0],
		.rcx = v->gpr[1],
		.rdx = v->gpr[2],
		.rbx = v->gpr[3],
		.rsp = v->gpr[4],
		.rbp = v->gpr[5],
		.rsi = v->gpr[6],
		.rdi = v->gpr[7],
		.r8 = v->gpr[8],
		.r9 = v->gpr[9],
		.r10 = v->gpr[10],
		.r11 = v->gpr[11],
		.r12 = v->gpr[12],
		.r13 = v->gpr[13],
		.r14 = v->gpr[14],
		.r15 = v->gpr[15],
		.rip = v->rip,
		.rflags = soft_rflags(v),
	};
}

static void get_sregs(const struct vcpu *v, struct kvm_sregs2 *s)
{
	memset(s, 0, sizeof(*s));
	get_seg(&v->segs[X86_CS], &s->cs);
	get_seg(&v->segs[X86_DS], &s->ds);
	get_seg(&v->segs[X86_ES], &s->es);
	get_seg(&v->segs[X86_FS], &s->fs);
	get_seg(&v->segs[X86_GS], &s->gs);
	get_seg(&v->segs[X86_SS], &s->ss);
	get_seg(&v->tr, &s->tr);
	get_seg(&v->ldtr, &s->ldt);
	s->gdt.base = v->gdtr.base;
	s->gdt.limit = v->gdtr.limit;
	s->idt.base = v->idtr.base;
	s->idt.limit = v->idtr.limit;
	s->cr0 = v->cr0;
	s->cr2 = v->cr2;
	s->cr3 = v->cr3;
	s->cr4 = v->cr4;
	s->cr8 = soft_apic_cr8(v);
	s->efer = v->efer;
	soft_apic_rdmsr((struct vcpu *)v, X86_MSR_APIC_BASE,
			(u64 *)&s->apic_base);
	if ((v->cr0 & X86_CR0_PG) && (v->cr4 & X86_CR4_PAE) && !v->is_long) {
		s->flags = KVM_SREGS2_FLAGS_PDPTRS_VALID;
		memcpy(s->pdptrs, v->pdpte, sizeof(v->pdpte));
	}
}

/* All components that the CPU model has, in use or not. */
static u64 xfeatures(const struct vcpu *v)
{
	const struct kvm_cpuid_entry2 *e = x86_cpuid_find(v->vm->cpuid, 0xd, 0);

	return ((e ? e->eax : 0) & XCR0_AVX) | XCR0_SSE | XCR0_X87;
}

static void get_fpu(const struct vcpu *v, struct kvm_xsave *x,
		    struct kvm_xcrs *xcrs)
{
	u8 *p = (u8 *)x->region;

	memset(x, 0, sizeof(*x));
	memcpy(p, v->xsave, XSAVE_BV);
	if (xfeatures(v) & XCR0_AVX)
		memcpy(p + XSAVE_YMM, v->xsave + XSAVE_YMM,
		       XSAVE_BYTES - XSAVE_YMM);
	st_le64(p + XSAVE_BV, xfeatures(v));
	memset(xcrs, 0, sizeof(*xcrs));
	xcrs->nr_xcrs = 1;
	xcrs->xcrs[0].value = v->xcr0;
}

static void get_events(const struct vcpu *v, struct vcpu_state *out)
{
	u32 reqs = atomic_load(&v->requests);

	memset(&out->events, 0, sizeof(out->events));
	if (v->shadow & SHADOW_MOV_SS)
		out->events.interrupt.shadow |= KVM_X86_SHADOW_INT_MOV_SS;
	if (v->shadow & SHADOW_STI)
		out->events.interrupt.shadow |= KVM_X86_SHADOW_INT_STI;
	out->events.nmi.pending =
		!!(reqs & SOFT_REQ_NMI) + !!(reqs & SOFT_REQ_NMI2);
	out->events.nmi.masked = v->nmi_blocked;
	out->events.sipi_vector = soft_apic_sipi_vector(v);
	out->events.flags = KVM_VCPUEVENT_VALID_NMI_PENDING |
			    KVM_VCPUEVENT_VALID_SIPI_VECTOR |
			    KVM_VCPUEVENT_VALID_SHADOW;
	memset(&out->mp_state, 0, sizeof(out->mp_state));
	if (atomic_load(&v->is_waiting_sipi))
		out->mp_state.mp_state = (reqs & SOFT_REQ_SIPI)
						 ? KVM_MP_STATE_SIPI_RECEIVED
						 : KVM_MP_STATE_INIT_RECEIVED;
	else if (v->is_halted)
		out->mp_state.mp_state = KVM_MP_STATE_HALTED;
	else
		out->mp_state.mp_state = KVM_MP_STATE_RUNNABLE;
}

static bool get_msr(struct vcpu *v, u32 index, u64 *out)
{
	switch (index) {
	case X86_MSR_APIC_BASE:
	case X86_MSR_TSC_DEADLINE:
		return soft_apic_rdmsr(v, index, out);
	case X86_MSR_TSC:
		*out = soft_tsc(v);
		return true;
	case X86_MSR_TSC_ADJUST:
		*out = (u64)v->tsc_adjust;
		return true;
	default:
		return soft_rdmsr(v, index, out);
	}
}

int soft_vcpu_get(struct vcpu *v, struct vcpu_state *out, struct err *err)
{
	(void)err;
	memset(out, 0, sizeof(*out));
	/* INIT and SIPI that have arrived are state of the vCPU. */
	if (atomic_fetch_and(&v->requests, ~SOFT_REQ_INIT) & SOFT_REQ_INIT)
		soft_vcpu_reset(v, true);
	get_regs(v, &out->regs);
	get_sregs(v, &out->sregs);
	get_fpu(v, &out->xsave, &out->xcrs);
	for (int i = 0; i < 4; i++)
		out->debugregs.db[i] = v->dr[i];
	out->debugregs.dr6 = v->dr6;
	out->debugregs.dr7 = v->dr7;
	get_events(v, out);
	soft_apic_get(v->apic, &out->lapic);
	for (size_t i = 0; i < vcpu_state_msr_count; i++) {
		struct kvm_msr_entry *e = &out->msrs[out->msr_count];
		u64 value;

		if (out->msr_count == VCPU_MSRS_MAX ||
		    !get_msr(v, vcpu_state_msrs[i], &value))
			continue;
		e->index = vcpu_state_msrs[i];
		e->data = value;
		out->msr_count++;
	}
	return 0;
}

/* ---- checks: the reason for a refusal, or NULL ---- */

static const char *check_control(const struct vcpu *v,
				 const struct kvm_sregs2 *s)
{
	bool is_long = s->efer & X86_EFER_LMA;
	bool wants_long = (s->efer & X86_EFER_LME) && (s->cr0 & X86_CR0_PG);

	if (s->cr0 & ~CR0_KNOWN)
		return "reserved bits of CR0 are set";
	if ((s->cr0 & X86_CR0_PG) && !(s->cr0 & X86_CR0_PE))
		return "paging without protected mode";
	if ((s->cr0 & X86_CR0_NW) && !(s->cr0 & X86_CR0_CD))
		return "CR0.NW without CR0.CD";
	if (s->cr4 & ~CR4_KNOWN)
		return "CR4 has bits that this machine lacks";
	if (s->efer & ~EFER_KNOWN)
		return "EFER has bits that this machine lacks";
	if (is_long != wants_long)
		return "EFER.LMA contradicts EFER.LME and CR0.PG";
	if (is_long && !(s->cr4 & X86_CR4_PAE))
		return "long mode without CR4.PAE";
	if ((s->cr4 & X86_CR4_PCIDE) && !is_long)
		return "CR4.PCIDE outside long mode";
	if (s->cr3 >> v->vm->physical_address_bits)
		return "CR3 is beyond physical memory";
	if (s->cr8 > 15)
		return "CR8 is above 15";
	return NULL;
}

static const char *check_segments(const struct kvm_sregs2 *s, u64 rflags)
{
	bool is_long = s->efer & X86_EFER_LMA;
	const u64 bases[] = {s->fs.base,  s->gs.base,  s->tr.base,
			     s->ldt.base, s->gdt.base, s->idt.base};

	for (size_t i = 0; i < ARRAY_SIZE(bases); i++)
		if (!soft_is_canonical(bases[i]))
			return "a segment base is not canonical";
	/* Outside 64-bit mode these are linear addresses of 32 bits. */
	if ((s->cs.base | s->ss.base | s->ds.base | s->es.base) >> 32)
		return "a segment base is above 4 GiB";
	if (s->cs.l && s->cs.db && is_long)
		return "a code segment is both 64-bit and 32-bit";
	if (s->cs.unusable || !s->cs.present || !s->cs.s)
		return "CS is not usable";
	if ((s->cr0 & X86_CR0_PE) && !(rflags & X86_FL_VM) &&
	    !(s->cs.type & SEG_TYPE_CODE))
		/* Real mode just left: a data segment, still executing. */
		if (s->cs.selector & 3)
			return "CS is not a code segment";
	if (is_long && (rflags & X86_FL_VM))
		return "virtual-8086 mode in long mode";
	if ((rflags & X86_FL_VM) && !(s->cr0 & X86_CR0_PE))
		return "virtual-8086 mode outside protected mode";
	return NULL;
}

static const char *check_fpu(const struct vcpu *v, const struct vcpu_state *in)
{
	const u8 *p = (const u8 *)in->xsave.region;
	u64 bv = ld_le64(p + XSAVE_BV);
	u64 xcr0 = in->xcrs.xcrs[0].value;

	if (in->xcrs.nr_xcrs != 1 || in->xcrs.xcrs[0].xcr != 0)
		return "XCR0 is missing";
	if (!(xcr0 & XCR0_X87) || (xcr0 & ~xfeatures(v)) ||
	    ((xcr0 & XCR0_AVX) && !(xcr0 & XCR0_SSE)))
		return "XCR0 has components that this machine lacks";
	if (bv & ~xfeatures(v))
		return "the XSAVE header has components that this machine "
		       "lacks";
	for (int i = XSAVE_BV + 8; i < XSAVE_YMM; i++)
		if (p[i])
			return "reserved bytes of the XSAVE header are set";
	if ((bv & (XCR0_SSE | XCR0_AVX)) && ld_le32(p + 24) >> 16)
		return "reserved bits of MXCSR are set";
	return NULL;
}

static const char *check_events(const struct vcpu_state *in)
{
	const struct kvm_vcpu_events *e = &in->events;

	if (e->exception.injected || e->exception.pending ||
	    e->interrupt.injected || e->nmi.injected)
		return "an event is half delivered";
	if (e->smi.smm || e->smi.pending || e->triple_fault.pending)
		return "system-management mode or a triple fault is pending";
	if (e->interrupt.shadow & ~3u)
		return "the interrupt shadow is not one";
	if (in->mp_state.mp_state > KVM_MP_STATE_SIPI_RECEIVED)
		return "the run state is unknown";
	return NULL;
}

static const char *check(const struct vcpu *v, const struct vcpu_state *in)
{
	const char *why = check_control(v, &in->sregs);

	if (!why)
		why = check_segments(&in->sregs, in->regs.rflags);
	if (!why)
		why = check_fpu(v, in);
	if (!why)
		why = check_events(in);
	if (!why && (in->regs.rflags & ~RFLAGS_KNOWN))
		why = "reserved bits of RFLAGS are set";
	if (!why && ((in->debugregs.dr6 | in->debugregs.dr7) >> 32 ||
		     in->debugregs.flags))
		why = "reserved bits of DR6 or DR7 are set";
	if (!why && in->msr_count > VCPU_MSRS_MAX)
		why = "too many MSRs";
	return why;
}

/* ---- set ---- */

static void set_regs(struct vcpu *v, const struct kvm_regs *r)
{
	const u64 gpr[16] = {r->rax, r->rcx, r->rdx, r->rbx, r->rsp, r->rbp,
			     r->rsi, r->rdi, r->r8,  r->r9,  r->r10, r->r11,
			     r->r12, r->r13, r->r14, r->r15};

	memcpy(v->gpr, gpr, sizeof(gpr));
	v->rip = r->rip;
	soft_set_rflags(v, (r->rflags & RFLAGS_KNOWN) | 2);
}

static void set_sregs(struct vcpu *v, const struct kvm_sregs2 *s)
{
	set_seg(&v->segs[X86_CS], &s->cs);
	set_seg(&v->segs[X86_DS], &s->ds);
	set_seg(&v->segs[X86_ES], &s->es);
	set_seg(&v->segs[X86_FS], &s->fs);
	set_seg(&v->segs[X86_GS], &s->gs);
	set_seg(&v->segs[X86_SS], &s->ss);
	set_seg(&v->tr, &s->tr);
	set_seg(&v->ldtr, &s->ldt);
	v->gdtr = (struct soft_table){s->gdt.base, s->gdt.limit};
	v->idtr = (struct soft_table){s->idt.base, s->idt.limit};
	v->cr0 = s->cr0 | X86_CR0_ET;
	v->cr2 = s->cr2;
	v->cr3 = s->cr3;
	v->cr4 = s->cr4;
	v->efer = s->efer;
	memset(v->pdpte, 0, sizeof(v->pdpte));
	if (s->flags & KVM_SREGS2_FLAGS_PDPTRS_VALID)
		memcpy(v->pdpte, s->pdptrs, sizeof(v->pdpte));
}

/* A component that is absent from XSTATE_BV is in its initial state. */
static void set_fpu(struct vcpu *v, const struct vcpu_state *in)
{
	const u8 *p = (const u8 *)in->xsave.region;
	u64 bv = ld_le64(p + XSAVE_BV);

	soft_fpu_reset(v);
	if (bv & XCR0_X87) {
		memcpy(v->xsave, p, 24);
		memcpy(v->xsave + 32, p + 32, 128);
	}
	if (bv & (XCR0_SSE | XCR0_AVX))
		memcpy(v->xsave + 24, p + 24, 4); /* MXCSR */
	if (bv & XCR0_SSE)
		memcpy(v->xsave + 160, p + 160, 256);
	if (bv & XCR0_AVX)
		memcpy(v->xsave + XSAVE_YMM, p + XSAVE_YMM,
		       XSAVE_BYTES - XSAVE_YMM);
	v->xcr0 = in->xcrs.xcrs[0].value;
}

static void set_events(struct vcpu *v, const struct vcpu_state *in)
{
	u32 mp = in->mp_state.mp_state;

	v->shadow = 0;
	if (in->events.interrupt.shadow & KVM_X86_SHADOW_INT_MOV_SS)
		v->shadow |= SHADOW_MOV_SS;
	if (in->events.interrupt.shadow & KVM_X86_SHADOW_INT_STI)
		v->shadow |= SHADOW_STI;
	v->nmi_blocked = in->events.nmi.masked;
	v->delivering = 0xffff;
	v->error[0] = '\0';
	v->is_halted = mp == KVM_MP_STATE_HALTED;
	atomic_store(&v->is_waiting_sipi,
		     mp == KVM_MP_STATE_UNINITIALIZED ||
			     mp == KVM_MP_STATE_INIT_RECEIVED ||
			     mp == KVM_MP_STATE_SIPI_RECEIVED);
	atomic_fetch_and(&v->requests, SOFT_REQ_EXIT | SOFT_REQ_PAUSE);
	for (u32 i = 0; i < in->events.nmi.pending; i++)
		soft_request_nmi(v);
	apic_st(&v->apic->sipi_vector, in->events.sipi_vector & 0xff);
	if (mp == KVM_MP_STATE_SIPI_RECEIVED)
		soft_request(v, SOFT_REQ_SIPI);
}

static u64 find_msr(const struct vcpu_state *in, u32 index)
{
	for (u32 i = 0; i < in->msr_count; i++)
		if (in->msrs[i].index == index)
			return in->msrs[i].data;
	return 0;
}

/* Counters that are less than a second apart are taken for one that all vCPUs
 * share, read one after the other. The first vCPU's may be the VM's own, too:
 * that one may go on from where it is, but never back. */
static void set_tsc(struct vcpu *v, const struct vcpu_state *in)
{
	u64 adjust = find_msr(in, X86_MSR_TSC_ADJUST);
	u64 base = soft_host_tsc() + adjust - find_msr(in, X86_MSR_TSC);
	i64 back = (i64)(base - v->vm->clock_base_tsc);
	i64 second = (i64)v->vm->tsc_khz * 1000;

	if (back > second || back < -second || (v->id == 0 && back < 0))
		v->vm->clock_base_tsc = base;
	v->tsc_adjust = (i64)adjust;
	v->tsc_offset = (i64)(adjust - v->vm->clock_base_tsc);
}

static int set_msrs(struct vcpu *v, const struct vcpu_state *in,
		    struct err *err)
{
	for (u32 i = 0; i < in->msr_count; i++) {
		const struct kvm_msr_entry *e = &in->msrs[i];

		switch (e->index) {
		/* These are in the other structs, or are set apart. */
		case X86_MSR_EFER:
		case X86_MSR_FS_BASE:
		case X86_MSR_GS_BASE:
		case X86_MSR_APIC_BASE:
		case X86_MSR_TSC:
		case X86_MSR_TSC_ADJUST:
		case X86_MSR_TSC_DEADLINE:
		case X86_MSR_X2APIC_FIRST ... X86_MSR_X2APIC_LAST:
			continue;
		default:
			if (!soft_wrmsr(v, e->index, e->data))
				return err_set(
					err, -EINVAL, "MSR 0x%x refuses 0x%llx",
					e->index, (unsigned long long)e->data);
		}
	}
	return 0;
}

static bool has_msr(const struct vcpu_state *in, u32 index)
{
	for (u32 i = 0; i < in->msr_count; i++)
		if (in->msrs[i].index == index)
			return true;
	return false;
}

int soft_vcpu_set(struct vcpu *v, const struct vcpu_state *in, struct err *err)
{
	const char *why = check(v, in);
	int rc;

	if (why)
		return err_set(err, -EINVAL, "vCPU %u: %s", v->id, why);
	if (!soft_apic_restore_base(v, in->sregs.apic_base))
		return err_set(err, -EINVAL,
			       "vCPU %u: IA32_APIC_BASE is not legal", v->id);
	set_regs(v, &in->regs);
	set_sregs(v, &in->sregs);
	set_fpu(v, in);
	for (int i = 0; i < 4; i++)
		v->dr[i] = in->debugregs.db[i];
	v->dr6 = (in->debugregs.dr6 & 0xe00f) | 0xffff0ff0;
	v->dr7 = (in->debugregs.dr7 & 0xffff2bff) | 0x400;
	set_events(v, in);
	soft_mode_changed(v);
	soft_tlb_flush(v, false);
	if (has_msr(in, X86_MSR_TSC))
		set_tsc(v, in);
	rc = set_msrs(v, in, err);
	if (rc < 0)
		return rc;
	soft_apic_set(v->apic, &in->lapic); /* CR8 is its TPR */
	if (has_msr(in, X86_MSR_TSC_DEADLINE))
		soft_apic_wrmsr(v, X86_MSR_TSC_DEADLINE,
				find_msr(in, X86_MSR_TSC_DEADLINE));
	return 0;
}
