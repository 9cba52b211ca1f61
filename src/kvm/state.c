/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY
 *
 * struct vcpu_state is made of KVM's own structs, so most of this is one ioctl
 * for each. The rest makes one form of what KVM and the soft engine write
 * differently:
 *
 *   run state   KVM's power-on state of the second vCPU and up waits for
 *               INIT; we let it wait for SIPI, as a CPU does.
 *   events      What KVM was about to deliver when it returned is taken back:
 *               an interrupt of the local APIC is pending again, not in
 *               service; an NMI is pending again; a fault is left to happen
 *               once more. What cannot be taken back stays as it is, and the
 *               soft engine refuses it.
 *   APIC        Without what stands between the registers.
 *   XSAVE       Without the kernel's own marks in the software's bytes.
 *   XCR0        1 where the guest has no XSAVE.
 *   MSRs        Those of vcpu_state_msrs that this KVM has. One that it lacks
 *               can be restored as zero, which is what its absence means.
 *
 * The order of a load matters: CR0, EFER and IA32_APIC_BASE first; TSC_ADJUST
 * before the TSC; the local APIC before TSC_DEADLINE, which it otherwise
 * ignores; events before the run state.
 *
 * Power-on is a load, too: of the state below. The TSC goes on.
 */
#include "kvm/kvm_int.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#include "x86/cpuid.h"
#include "x86/regs.h"

#define APIC_ID	      0x20
#define APIC_PPR      0xa0
#define APIC_TPR      0x80
#define APIC_LDR      0xd0
#define APIC_DFR      0xe0
#define APIC_SVR      0xf0
#define APIC_ISR      0x100
#define APIC_IRR      0x200
#define APIC_LVTT     0x320
#define APIC_LVTTHMR  0x330
#define APIC_LVTPC    0x340
#define APIC_LVT0     0x350
#define APIC_LVT1     0x360
#define APIC_LVTERR   0x370
#define LVT_MASKED    BIT32(16)
#define LVT_EXTINT    0x700u
#define XSAVE_FREE    464 /* bytes for software; then the header */
#define XSAVE_BV      512
#define APIC_BASE_BSP BIT64(8)
#define APIC_BASE_EN  BIT64(11)
#define EXC_FAULTS                                                             \
	(BIT32(X86_VEC_DE) | BIT32(X86_VEC_BR) | BIT32(X86_VEC_UD) |           \
	 BIT32(X86_VEC_NM) | BIT32(X86_VEC_TS) | BIT32(X86_VEC_NP) |           \
	 BIT32(X86_VEC_SS) | BIT32(X86_VEC_GP) | BIT32(X86_VEC_PF) |           \
	 BIT32(X86_VEC_MF) | BIT32(X86_VEC_AC) | BIT32(X86_VEC_XM))

/* ---- MSRs ---- */

struct msr_list {
	struct kvm_msrs head;
	struct kvm_msr_entry entries[VCPU_MSRS_MAX];
};

static int get_one_msr(struct vcpu *v, u32 index, u64 *out)
{
	struct msr_list list = {.head.nmsrs = 1, .entries[0].index = index};
	int rc = ioctl(v->fd, KVM_GET_MSRS, &list);

	if (rc == 1)
		*out = list.entries[0].data;
	return rc == 1 ? 0 : -ENOENT;
}

int kvm_set_msr(struct vcpu *v, u32 index, u64 value, struct err *err)
{
	struct msr_list list = {
		.head.nmsrs = 1,
		.entries[0] = {.index = index, .data = value},
	};
	int rc = KVM_IOCTL(v->fd, KVM_SET_MSRS, &list, err);

	if (rc < 0)
		return rc;
	return rc == 1 ? 0
		       : err_set(err, -EINVAL,
				 "vCPU %u: KVM_SET_MSRS: MSR 0x%x refuses "
				 "0x%llx",
				 v->id, index, (unsigned long long)value);
}

/* Asked once for the VM: the vCPUs are all alike. */
static void find_msrs(struct vcpu *v)
{
	struct engine_vm *vm = v->vm;
	u64 ignored;

	if (vm->has_msrs)
		return;
	for (size_t i = 0; i < vcpu_state_msr_count; i++)
		if (get_one_msr(v, vcpu_state_msrs[i], &ignored) == 0)
			vm->msrs[vm->msr_count++] = vcpu_state_msrs[i];
	vm->has_msrs = true;
}

static int get_msrs(struct vcpu *v, struct vcpu_state *out, struct err *err)
{
	struct msr_list list = {.head.nmsrs = v->vm->msr_count};
	int rc;

	for (u32 i = 0; i < v->vm->msr_count; i++)
		list.entries[i].index = v->vm->msrs[i];
	rc = KVM_IOCTL(v->fd, KVM_GET_MSRS, &list, err);
	if (rc < 0)
		return rc;
	if ((u32)rc != v->vm->msr_count)
		return err_set(err, -EIO, "vCPU %u: KVM_GET_MSRS stops at 0x%x",
			       v->id, v->vm->msrs[rc]);
	out->msr_count = v->vm->msr_count;
	memcpy(out->msrs, list.entries,
	       out->msr_count * sizeof(list.entries[0]));
	return 0;
}

static bool has_msr(const struct engine_vm *vm, u32 index)
{
	for (u32 i = 0; i < vm->msr_count; i++)
		if (vm->msrs[i] == index)
			return true;
	return false;
}

static u64 *find_msr(struct vcpu_state *vs, u32 index)
{
	for (u32 i = 0; i < vs->msr_count; i++)
		if (vs->msrs[i].index == index)
			return (u64 *)&vs->msrs[i].data;
	return NULL;
}

static int set_msrs(struct vcpu *v, const struct vcpu_state *in,
		    struct err *err)
{
	for (u32 i = 0; i < in->msr_count; i++) {
		u32 index = in->msrs[i].index;
		u64 value = in->msrs[i].data;
		int rc = 0;

		switch (index) {
		/* In the other structs, or set apart. */
		case X86_MSR_EFER:
		case X86_MSR_APIC_BASE:
		case X86_MSR_TSC:
		case X86_MSR_TSC_DEADLINE:
			continue;
		}
		if (has_msr(v->vm, index))
			rc = kvm_set_msr(v, index, value, err);
		else if (value)
			rc = err_set(err, -ENOTSUP,
				     "vCPU %u: MSR 0x%x is 0x%llx, and this "
				     "host's KVM lacks it",
				     v->id, index, (unsigned long long)value);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int set_late_msr(struct vcpu *v, const struct vcpu_state *in, u32 index,
			struct err *err)
{
	for (u32 i = 0; i < in->msr_count; i++)
		if (in->msrs[i].index == index && has_msr(v->vm, index))
			return kvm_set_msr(v, index, in->msrs[i].data, err);
	return 0;
}

/* ---- one form ---- */

static u32 vector_bit(const struct kvm_lapic_state *a, u32 bank, u32 vector)
{
	return ld_le32(a->regs + bank + vector / 32 * 16) >> (vector % 32) & 1;
}

static void vector_set(struct kvm_lapic_state *a, u32 bank, u32 vector,
		       bool value)
{
	char *p = a->regs + bank + vector / 32 * 16;
	u32 bit = BIT32(vector % 32), old = ld_le32(p);

	st_le32(p, value ? old | bit : old & ~bit);
}

static void set_ppr(struct kvm_lapic_state *a)
{
	u32 tpr = ld_le32(a->regs + APIC_TPR) & 0xff, top = 0;

	for (u32 i = 0; i < 256; i++)
		if (vector_bit(a, APIC_ISR, i))
			top = i;
	st_le32(a->regs + APIC_PPR,
		(tpr & 0xf0) >= (top & 0xf0) ? tpr : top & 0xf0);
}

void kvm_state_settle(struct vcpu_state *vs)
{
	struct kvm_vcpu_events *e = &vs->events;

	if ((e->exception.injected || e->exception.pending) &&
	    e->exception.nr < 32 && (EXC_FAULTS >> e->exception.nr & 1))
		memset(&e->exception, 0, sizeof(e->exception));
	if (e->interrupt.injected && !e->interrupt.soft &&
	    vector_bit(&vs->lapic, APIC_ISR, e->interrupt.nr)) {
		vector_set(&vs->lapic, APIC_ISR, e->interrupt.nr, false);
		vector_set(&vs->lapic, APIC_IRR, e->interrupt.nr, true);
		set_ppr(&vs->lapic);
		e->interrupt.injected = 0;
		e->interrupt.nr = 0;
	}
	if (e->nmi.injected) {
		e->nmi.injected = 0;
		e->nmi.masked = 0;
		e->nmi.pending++;
	}
	if (!e->exception.injected && !e->exception.pending)
		memset(&e->exception, 0, sizeof(e->exception));
	if (!e->interrupt.injected)
		e->interrupt.nr = e->interrupt.soft = 0;
	e->exception_has_payload = 0;
	e->exception_payload = 0;
	e->flags = KVM_VCPUEVENT_VALID_NMI_PENDING |
		   KVM_VCPUEVENT_VALID_SIPI_VECTOR | KVM_VCPUEVENT_VALID_SHADOW;
	if (e->smi.smm || e->smi.pending)
		e->flags |= KVM_VCPUEVENT_VALID_SMM;
	memset(e->reserved, 0, sizeof(e->reserved));
	/* Registers are 32 bits, 16 bytes apart; x2APIC's ICR is in its two
	 * halves, and once more in between. */
	for (u32 i = 0; i < sizeof(vs->lapic.regs); i += 16)
		memset(vs->lapic.regs + i + 4, 0, 12);
	/* The kernel's marks in bytes that are no state. */
	memset((u8 *)vs->xsave.region + XSAVE_FREE, 0, XSAVE_BV - XSAVE_FREE);
	if (vs->mp_state.mp_state == KVM_MP_STATE_UNINITIALIZED)
		vs->mp_state.mp_state = KVM_MP_STATE_INIT_RECEIVED;
	if (vs->xcrs.nr_xcrs == 0) {
		vs->xcrs.nr_xcrs = 1;
		vs->xcrs.xcrs[0].xcr = 0;
		vs->xcrs.xcrs[0].value = 1;
	}
}

/* ---- get ---- */

int kvm_vcpu_get(struct vcpu *v, struct vcpu_state *out, struct err *err)
{
	const struct {
		unsigned long request;
		const char *name;
		void *to;
	} parts[] = {
		/* INIT and SIPI that have arrived become state here: first. */
		{KVM_GET_MP_STATE, "KVM_GET_MP_STATE", &out->mp_state},
		{KVM_GET_REGS, "KVM_GET_REGS", &out->regs},
		{KVM_GET_SREGS2, "KVM_GET_SREGS2", &out->sregs},
		{KVM_GET_XSAVE, "KVM_GET_XSAVE", &out->xsave},
		{KVM_GET_XCRS, "KVM_GET_XCRS", &out->xcrs},
		{KVM_GET_DEBUGREGS, "KVM_GET_DEBUGREGS", &out->debugregs},
		{KVM_GET_LAPIC, "KVM_GET_LAPIC", &out->lapic},
		{KVM_GET_VCPU_EVENTS, "KVM_GET_VCPU_EVENTS", &out->events},
	};
	int rc = 0;

	memset(out, 0, sizeof(*out));
	for (size_t i = 0; rc >= 0 && i < ARRAY_SIZE(parts); i++)
		rc = kvm_ioctl(v->fd, parts[i].request, parts[i].to,
			       parts[i].name, err);
	if (rc >= 0)
		rc = get_msrs(v, out, err);
	if (rc < 0)
		return err_wrap(err, "take the state of vCPU %u", v->id);
	kvm_irq_get(v, &out->events);
	kvm_state_settle(out);
	return 0;
}

/* ---- set ---- */

static const char *check(const struct vcpu_state *in)
{
	if (in->msr_count > VCPU_MSRS_MAX)
		return "too many MSRs";
	if (in->xcrs.nr_xcrs != 1 || in->xcrs.xcrs[0].xcr != 0)
		return "XCR0 is missing";
	if (in->mp_state.mp_state > KVM_MP_STATE_SIPI_RECEIVED)
		return "the run state is unknown";
	if (in->events.smi.smm || in->events.smi.pending ||
	    in->events.triple_fault.pending)
		return "system-management mode or a triple fault is pending";
	return NULL;
}

static int set_xcrs(struct vcpu *v, const struct vcpu_state *in,
		    struct err *err)
{
	struct kvm_xcrs now = {0};
	int rc = KVM_IOCTL(v->fd, KVM_GET_XCRS, &now, err);

	if (rc < 0)
		return rc;
	if (now.nr_xcrs == 0 && in->xcrs.xcrs[0].value == 1)
		return 0; /* no XSAVE, none needed */
	return KVM_IOCTL(v->fd, KVM_SET_XCRS, &in->xcrs, err);
}

static int set_tsc(struct vcpu *v, const struct vcpu_state *in, struct err *err)
{
	u64 tsc = 0, adjust = 0;
	bool has_tsc = false;

	for (u32 i = 0; i < in->msr_count; i++) {
		if (in->msrs[i].index == X86_MSR_TSC) {
			tsc = in->msrs[i].data;
			has_tsc = true;
		} else if (in->msrs[i].index == X86_MSR_TSC_ADJUST) {
			adjust = in->msrs[i].data;
		}
	}
	return has_tsc ? kvm_clock_set_tsc(v, tsc, adjust, err) : 0;
}

/* From and to KVM_MP_STATE_HALTED only between instructions: vcpu_run() is
 * not running. */
static int set_all(struct vcpu *v, const struct vcpu_state *in, struct err *err)
{
	struct kvm_vcpu_events events = in->events;
	int rc = KVM_IOCTL(v->fd, KVM_SET_SREGS2, &in->sregs, err);

	events.flags &= KVM_VCPUEVENT_VALID_NMI_PENDING |
			KVM_VCPUEVENT_VALID_SIPI_VECTOR |
			KVM_VCPUEVENT_VALID_SHADOW;
	if (rc >= 0)
		rc = KVM_IOCTL(v->fd, KVM_SET_REGS, &in->regs, err);
	if (rc >= 0)
		rc = set_xcrs(v, in, err);
	if (rc >= 0)
		rc = KVM_IOCTL(v->fd, KVM_SET_XSAVE, &in->xsave, err);
	if (rc >= 0)
		rc = KVM_IOCTL(v->fd, KVM_SET_DEBUGREGS, &in->debugregs, err);
	if (rc >= 0)
		rc = set_msrs(v, in, err);
	if (rc >= 0)
		rc = set_tsc(v, in, err);
	if (rc >= 0)
		rc = KVM_IOCTL(v->fd, KVM_SET_LAPIC, &in->lapic, err);
	if (rc >= 0)
		rc = set_late_msr(v, in, X86_MSR_TSC_DEADLINE, err);
	if (rc >= 0)
		rc = KVM_IOCTL(v->fd, KVM_SET_VCPU_EVENTS, &events, err);
	if (rc >= 0)
		rc = KVM_IOCTL(v->fd, KVM_SET_MP_STATE, &in->mp_state, err);
	return MIN(rc, 0);
}

int kvm_vcpu_set(struct vcpu *v, const struct vcpu_state *in, struct err *err)
{
	const char *why = check(in);
	int rc;

	if (why)
		return err_set(err, -EINVAL, "vCPU %u: %s", v->id, why);
	v->extint_vector = -1;
	rc = set_all(v, in, err);
	if (rc < 0)
		return err_wrap(err, "set the state of vCPU %u", v->id);
	return 0;
}

/* ---- power-on ---- */

static struct kvm_segment reset_segment(u8 type, bool s)
{
	return (struct kvm_segment){
		.limit = 0xffff,
		.type = type,
		.present = 1,
		.s = s,
	};
}

/* SDM 3A table 9-1. */
static void power_on_sregs(const struct vcpu *v, struct kvm_sregs2 *s)
{
	memset(s, 0, sizeof(*s));
	s->ds = reset_segment(3, true);
	s->es = s->fs = s->gs = s->ss = s->ds;
	s->cs = reset_segment(0xb, true);
	s->cs.selector = 0xf000;
	s->cs.base = 0xffff0000;
	s->ldt = reset_segment(2, false);
	s->tr = reset_segment(0xb, false);
	s->gdt.limit = s->idt.limit = 0xffff;
	s->cr0 = X86_CR0_CD | X86_CR0_NW | X86_CR0_ET;
	if (!v->vm->quirks)
		s->cr0 = X86_CR0_ET;
	s->apic_base =
		0xfee00000ull | APIC_BASE_EN | (v->id == 0 ? APIC_BASE_BSP : 0);
}

/* The version register is KVM's own. */
static void power_on_lapic(const struct vcpu *v, struct kvm_lapic_state *a)
{
	static const u16 lvts[] = {APIC_LVTT, APIC_LVTTHMR, APIC_LVTPC,
				   APIC_LVT0, APIC_LVT1,    APIC_LVTERR};

	memset(a, 0, sizeof(*a));
	st_le32(a->regs + APIC_ID, v->id << 24);
	st_le32(a->regs + APIC_DFR, 0xffffffff);
	st_le32(a->regs + APIC_SVR, 0xff);
	for (size_t i = 0; i < ARRAY_SIZE(lvts); i++)
		st_le32(a->regs + lvts[i], LVT_MASKED);
	/* As firmware sets virtual wire mode on hardware. */
	if (v->id == 0)
		st_le32(a->regs + APIC_LVT0, LVT_EXTINT);
}

static void power_on_msrs(struct vcpu_state *vs, u64 tsc, u64 adjust)
{
	for (u32 i = 0; i < vs->msr_count; i++) {
		struct kvm_msr_entry *e = &vs->msrs[i];

		switch (e->index) {
		case X86_MSR_TSC: /* goes on, without what the guest added */
			e->data = tsc - adjust;
			break;
		case X86_MSR_MISC_ENABLE:
			/* Fast strings; no branch trace store, no precise
			 * events. */
			e->data = BIT64(0) | BIT64(11) | BIT64(12);
			break;
		case X86_MSR_PAT:
			e->data = 0x0007040600070406ull;
			break;
		default:
			if (e->index < 0x4b564d05 || e->index > 0x4b564d05)
				e->data = 0;
			else
				e->data = 1; /* poll control: on */
		}
	}
}

int kvm_vcpu_power_on(struct vcpu *v, struct err *err)
{
	const struct kvm_cpuid_entry2 *one = x86_cpuid_find(v->vm->cpuid, 1, 0);
	struct vcpu_state *vs = calloc(1, sizeof(*vs));
	u64 *tsc, *adjust;
	int rc;

	if (!vs)
		return err_set(err, -ENOMEM, "out of memory");
	find_msrs(v);
	if (!v->vm->vcpus[v->id])
		kvm_clock_init(v);
	rc = get_msrs(v, vs, err);
	tsc = find_msr(vs, X86_MSR_TSC);
	adjust = find_msr(vs, X86_MSR_TSC_ADJUST);
	if (rc == 0) {
		power_on_sregs(v, &vs->sregs);
		power_on_lapic(v, &vs->lapic);
		power_on_msrs(vs, tsc ? *tsc : 0, adjust ? *adjust : 0);
		vs->regs.rip = 0xfff0;
		vs->regs.rflags = 2;
		vs->regs.rdx = one ? one->eax : 0;
		vs->xsave.region[0] = 0x037f | 0; /* FCW */
		vs->xsave.region[6] = 0x1f80;	  /* MXCSR */
		vs->xsave.region[128] = 3;	  /* x87 and SSE */
		vs->xcrs.nr_xcrs = 1;
		vs->xcrs.xcrs[0].value = 1;
		vs->debugregs.dr6 = 0xffff0ff0;
		vs->debugregs.dr7 = 0x400;
		vs->events.flags = KVM_VCPUEVENT_VALID_NMI_PENDING |
				   KVM_VCPUEVENT_VALID_SIPI_VECTOR |
				   KVM_VCPUEVENT_VALID_SHADOW;
		vs->mp_state.mp_state = v->id == 0 ? KVM_MP_STATE_RUNNABLE
						   : KVM_MP_STATE_INIT_RECEIVED;
		rc = kvm_vcpu_set(v, vs, err);
	}
	free(vs);
	return rc;
}
