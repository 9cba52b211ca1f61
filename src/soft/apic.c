/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY
 *
 * One register file, two doors: the xAPIC page (soft_apic_mmio_*) and the
 * x2APIC MSRs. Both reach reg_read() and reg_write() by xAPIC offset; what
 * differs - which registers exist, reserved bits, #GP or the ESR - stands in
 * the doors. The APIC id is not writable.
 *
 * A pending interrupt is taken by soft_apic_ack(): highest IRR above PPR
 * moves to ISR. Whatever may let a pending interrupt through (EOI, a lower
 * TPR, software enable) makes a SOFT_REQ_INTR to its own vCPU.
 *
 * Not modelled: APR, RRR, CMCI, suppressed EOI broadcast, focus checking.
 * Source: SDM 3A §11.4-§11.12.
 */
#include "soft/apic_int.h"

#include <stdlib.h>

/* xAPIC version 14h, six LVT entries, no EOI-broadcast suppression. */
#define VERSION (0x14u | (LVT_COUNT - 1u) << 16)

static const u32 lvt_writable[LVT_COUNT] = {
	[LVT_TIMER] = 0x700ff, [LVT_THERMAL] = 0x107ff, [LVT_PERF] = 0x107ff,
	[LVT_LINT0] = 0x1a7ff, [LVT_LINT1] = 0x1a7ff,	[LVT_ERROR] = 0x100ff,
};

/* ---- priorities ---- */
static void eoi(struct soft_apic *a);

/* KVM's paravirtual EOI: while nothing else is pending, the guest may end an
 * edge interrupt by clearing a bit in its memory. Before the ISR is looked at
 * again that is settled: the bit is gone, then the interrupt has ended; or it
 * is taken back, and the guest will write EOI. */
static void pv_eoi_offer(struct soft_apic *a, int vec, bool is_nested)
{
	if (is_nested || apic_highest_irr(a) >= 0 ||
	    (apic_ld(&a->tmr[vec >> 5]) & BIT32(vec & 31)))
		return;
	a->is_pv_eoi = soft_pv_eoi_set(a->v);
}

void soft_apic_pv_eoi_settle(struct soft_apic *a)
{
	if (!a->is_pv_eoi)
		return;
	a->is_pv_eoi = false;
	if (!soft_pv_eoi_clear(a->v))
		eoi(a);
}

bool soft_apic_has_interrupt(const struct vcpu *v)
{
	soft_apic_pv_eoi_settle(v->apic);
	return apic_deliverable(v->apic) >= 0;
}

int soft_apic_ack(struct vcpu *v)
{
	struct soft_apic *a = v->apic;
	bool is_nested;
	int vec;

	soft_apic_pv_eoi_settle(a);
	vec = apic_deliverable(a);
	if (vec < 0)
		return APIC_NO_VECTOR;
	is_nested = apic_highest(a->isr) >= 0;
	/* Pairs with the release in apic_accept. */
	atomic_fetch_and_explicit(&a->irr[vec >> 5], ~BIT32(vec & 31),
				  memory_order_acquire);
	a->isr[vec >> 5] |= BIT32(vec & 31);
	pv_eoi_offer(a, vec, is_nested);
	return vec;
}

static void recheck(struct soft_apic *a)
{
	if (apic_deliverable(a) >= 0)
		soft_request(a->v, SOFT_REQ_INTR);
}

static void eoi(struct soft_apic *a)
{
	const struct engine_vm_config *cfg = &a->v->vm->cfg;
	int vec = apic_highest(a->isr);

	if (vec < 0)
		return;
	a->isr[vec >> 5] &= ~BIT32(vec & 31);
	if ((apic_ld(&a->tmr[vec >> 5]) & BIT32(vec & 31)) && cfg->irqchip &&
	    cfg->irqchip->eoi)
		cfg->irqchip->eoi(cfg->irqchip_opaque, (u8)vec);
	recheck(a);
}

static void write_tpr(struct soft_apic *a, u32 value)
{
	bool is_lower = value < apic_ld(&a->tpr);

	apic_st(&a->tpr, value & 0xff);
	if (is_lower)
		recheck(a);
}

u64 soft_apic_cr8(const struct vcpu *v)
{
	return apic_ld(&v->apic->tpr) >> 4;
}

void soft_apic_set_cr8(struct vcpu *v, u64 value)
{
	write_tpr(v->apic, (u32)(value & 0xf) << 4);
}

/* ---- registers ---- */

static void write_lvt(struct soft_apic *a, unsigned n, u32 value)
{
	u32 mask = lvt_writable[n];

	if (n == LVT_TIMER && !apic_has_deadline(a))
		mask &= ~BIT32(18);
	value &= mask;
	if (!(apic_ld(&a->svr) & APIC_SVR_ENABLED))
		value |= APIC_LVT_MASKED;
	if (n == LVT_TIMER) {
		apic_timer_write_lvt(a, value);
		return;
	}
	apic_st(&a->lvt[n], value);
	if (n == LVT_LINT0 && soft_apic_accepts_extint(a->v) &&
	    atomic_load(&a->v->vm->extint))
		soft_request(a->v, SOFT_REQ_EXTINT);
}

static void write_svr(struct soft_apic *a, u32 value)
{
	apic_st(&a->svr, value & 0x3ff);
	if (!(value & APIC_SVR_ENABLED))
		for (unsigned i = 0; i < LVT_COUNT; i++)
			write_lvt(a, i, apic_ld(&a->lvt[i]));
	else
		recheck(a);
}

static u32 ldr(const struct soft_apic *a)
{
	u32 id = a->v->id;

	if (apic_is_x2(a))
		return (id >> 4) << 16 | BIT32(id & 15);
	return apic_ld(&a->ldr);
}

/* The registers that both doors have. false: no such register to read. */
static bool reg_read(struct soft_apic *a, u32 off, u32 *out)
{
	bool is_x2 = apic_is_x2(a);

	switch (off) {
	case APIC_ID:
		*out = is_x2 ? a->v->id : apic_ld(&a->xapic_id);
		return true;
	case APIC_VERSION:
		*out = VERSION;
		return true;
	case APIC_TPR:
		*out = apic_ld(&a->tpr);
		return true;
	case APIC_PPR:
		*out = apic_ppr(a);
		return true;
	case APIC_LDR:
		*out = ldr(a);
		return true;
	case APIC_SVR:
		*out = apic_ld(&a->svr);
		return true;
	case APIC_ISR ... APIC_ISR + 0x70:
		*out = a->isr[(off - APIC_ISR) >> 4];
		return true;
	case APIC_TMR ... APIC_TMR + 0x70:
		*out = apic_ld(&a->tmr[(off - APIC_TMR) >> 4]);
		return true;
	case APIC_IRR ... APIC_IRR + 0x70:
		*out = apic_ld(&a->irr[(off - APIC_IRR) >> 4]);
		return true;
	case APIC_ESR:
		*out = a->esr;
		return true;
	case APIC_ICR:
		*out = (u32)a->icr;
		return true;
	case APIC_LVTT ... APIC_LVTERR:
		*out = apic_ld(&a->lvt[(off - APIC_LVTT) >> 4]);
		return true;
	case APIC_TMICT:
		*out = a->tmict;
		return true;
	case APIC_TMCCT:
		*out = apic_timer_current(a);
		return true;
	case APIC_TDCR:
		*out = a->tdcr;
		return true;
	default:
		return false;
	}
}

/* false: no such register to write. */
static bool reg_write(struct soft_apic *a, u32 off, u32 value)
{
	switch (off) {
	case APIC_TPR:
		write_tpr(a, value);
		return true;
	case APIC_EOI:
		eoi(a);
		return true;
	case APIC_SVR:
		write_svr(a, value);
		return true;
	case APIC_ESR: /* any write latches */
		a->esr = atomic_exchange(&a->esr_new, 0);
		return true;
	case APIC_LVTT ... APIC_LVTERR:
		write_lvt(a, (off - APIC_LVTT) >> 4, value);
		return true;
	case APIC_TMICT:
		apic_timer_write_initial(a, value);
		return true;
	case APIC_TDCR:
		apic_timer_write_divide(a, value);
		return true;
	default:
		return false;
	}
}

/* ---- the xAPIC door ---- */

u32 soft_apic_mmio_read(struct vcpu *v, u32 off)
{
	struct soft_apic *a = v->apic;
	u32 value = 0;

	soft_apic_pv_eoi_settle(a);
	off &= 0xff0;
	if (off == APIC_DFR)
		return apic_ld(&a->dfr);
	if (off == APIC_ICR2)
		return (u32)(a->icr >> 32);
	if (!reg_read(a, off, &value) && off != APIC_EOI)
		apic_error(a, APIC_ESR_REGISTER);
	return value;
}

void soft_apic_mmio_write(struct vcpu *v, u32 off, u32 value)
{
	struct soft_apic *a = v->apic;
	u32 ignored;

	if (off & 0xf)
		return; /* only aligned accesses are defined */
	soft_apic_pv_eoi_settle(a);
	off &= 0xff0;
	switch (off) {
	case APIC_ID:
		apic_st(&a->xapic_id, value & 0xff000000u);
		return;
	case APIC_LDR:
		apic_st(&a->ldr, value & 0xff000000u);
		return;
	case APIC_DFR:
		apic_st(&a->dfr, value | 0x0fffffffu);
		return;
	case APIC_ICR:
		a->icr = (a->icr & ~0xffffffffull) |
			 (value & 0x000cefffu & ~APIC_ICR_BUSY);
		apic_send_icr(a);
		return;
	case APIC_ICR2:
		a->icr = (u32)a->icr | (u64)(value & 0xff000000u) << 32;
		return;
	default:
		/* A read-only register ignores the write. */
		if (!reg_write(a, off, value) && !reg_read(a, off, &ignored))
			apic_error(a, APIC_ESR_REGISTER);
	}
}

gpa_t soft_apic_base(const struct vcpu *v)
{
	u64 b = apic_base_msr(v->apic);

	if ((b & (APIC_BASE_EN | APIC_BASE_EXTD)) != APIC_BASE_EN)
		return ~0ull;
	return b & APIC_BASE_ADDR;
}

/* ---- the x2APIC door ---- */

/* Bits that may be set in a write; 0: not writable. */
static u64 x2_writable(const struct soft_apic *a, u32 off)
{
	switch (off) {
	case APIC_TPR:
	case APIC_SELF_IPI:
		return 0xff;
	case APIC_SVR:
		return 0x3ff;
	case APIC_TDCR:
		return 0xb;
	case APIC_TMICT:
		return 0xffffffff;
	case APIC_LVTT ... APIC_LVTERR:
		/* The status bits 12 and 14 are read-only, not reserved. */
		return lvt_writable[(off - APIC_LVTT) >> 4] | 0x5000;
	case APIC_ICR:
		return ~(0xfff32000ull);
	default:
		return 0;
	}
}

static bool x2_write(struct soft_apic *a, u32 off, u64 value)
{
	u64 writable = x2_writable(a, off);

	if (off == APIC_EOI || off == APIC_ESR)
		return value == 0 && reg_write(a, off, 0);
	if (!writable || (value & ~writable))
		return false;
	if (off == APIC_LVTT && (value & BIT32(18)) && !apic_has_deadline(a))
		return false;
	if (off == APIC_SELF_IPI) {
		apic_self_ipi(a, (u8)value);
		return true;
	}
	if (off == APIC_ICR) {
		a->icr = value & ~(u64)APIC_ICR_BUSY;
		apic_send_icr(a);
		return true;
	}
	return reg_write(a, off, (u32)value);
}

static bool x2_read(struct soft_apic *a, u32 off, u64 *out)
{
	u32 value;

	if (off == APIC_ICR) {
		*out = a->icr;
		return true;
	}
	if (!reg_read(a, off, &value))
		return false;
	*out = value;
	return true;
}

/* ---- IA32_APIC_BASE ---- */

static bool has_x2apic(const struct soft_apic *a)
{
	const struct kvm_cpuid2 *table = a->v->vm->cpuid;

	if (!table)
		return true;
	for (u32 i = 0; i < table->nent; i++)
		if (table->entries[i].function == 1)
			return table->entries[i].ecx & BIT32(21);
	return false;
}

static bool base_is_legal(const struct soft_apic *a, u64 value)
{
	unsigned bits = a->v->vm->physical_address_bits;
	u64 address = APIC_BASE_ADDR;

	if (bits >= 36 && bits < 52)
		address &= BIT64(bits) - 1;
	if (value & ~(address | APIC_BASE_BSP | APIC_BASE_EN | APIC_BASE_EXTD))
		return false;
	if (!(value & APIC_BASE_EXTD))
		return true;
	return (value & APIC_BASE_EN) && has_x2apic(a);
}

static void base_set(struct soft_apic *a, u64 value)
{
	atomic_store_explicit(&a->base, value, memory_order_relaxed);
	/* The page may have moved over or off RAM that the TLB knows. */
	soft_request(a->v, SOFT_REQ_FLUSH | SOFT_REQ_INTR | SOFT_REQ_EXTINT);
}

/* Legal transitions: SDM 3A §11.12.5, figure 11-27. */
static bool base_write(struct soft_apic *a, u64 value)
{
	const u64 mode = APIC_BASE_EN | APIC_BASE_EXTD;
	u64 old = apic_base_msr(a);

	if (!base_is_legal(a, value))
		return false;
	if ((old & mode) == mode && (value & mode) == APIC_BASE_EN)
		return false; /* x2APIC to xAPIC: only through disabled */
	if (!(old & mode) && (value & mode) == mode)
		return false; /* disabled to x2APIC: only through xAPIC */
	if (value == old)
		return true;
	if ((old & APIC_BASE_EN) && !(value & APIC_BASE_EN))
		soft_apic_reset(a, true);
	if ((old ^ value) & mode) {
		a->icr = 0;
		apic_st(&a->ldr, 0);
		apic_st(&a->xapic_id, a->v->id << 24);
	}
	base_set(a, value);
	return true;
}

bool soft_apic_restore_base(struct vcpu *v, u64 value)
{
	if (!base_is_legal(v->apic, value))
		return false;
	base_set(v->apic, value);
	return true;
}

bool soft_apic_rdmsr(struct vcpu *v, u32 index, u64 *out)
{
	struct soft_apic *a = v->apic;

	soft_apic_pv_eoi_settle(a);
	if (index == X86_MSR_APIC_BASE) {
		*out = apic_base_msr(a);
		return true;
	}
	if (index == X86_MSR_TSC_DEADLINE) {
		*out = a->tsc_deadline;
		return apic_has_deadline(a);
	}
	if (index < X86_MSR_X2APIC_FIRST || index > X86_MSR_X2APIC_LAST)
		return false;
	return apic_is_x2(a) &&
	       x2_read(a, (index - X86_MSR_X2APIC_FIRST) << 4, out);
}

bool soft_apic_wrmsr(struct vcpu *v, u32 index, u64 value)
{
	struct soft_apic *a = v->apic;

	soft_apic_pv_eoi_settle(a);
	if (index == X86_MSR_APIC_BASE)
		return base_write(a, value);
	if (index == X86_MSR_TSC_DEADLINE) {
		if (!apic_has_deadline(a))
			return false;
		apic_timer_write_deadline(a, value);
		return true;
	}
	if (index < X86_MSR_X2APIC_FIRST || index > X86_MSR_X2APIC_LAST)
		return false;
	return apic_is_x2(a) &&
	       x2_write(a, (index - X86_MSR_X2APIC_FIRST) << 4, value);
}

/* ---- pins ---- */

bool soft_apic_accepts_extint(const struct vcpu *v)
{
	const struct soft_apic *a = v->apic;
	u32 r = apic_ld(&a->lvt[LVT_LINT0]);

	if (v->id != 0)
		return false; /* the PIC is wired to the BSP alone */
	if (!apic_is_on(a))
		return true;
	return !(r & APIC_LVT_MASKED) && APIC_LVT_MODE(r) == APIC_DM_EXTINT;
}

void soft_apic_lint1_nmi(struct vcpu *v)
{
	if (!apic_is_on(v->apic))
		soft_request_nmi(v); /* the pin is NMI itself */
	else
		apic_local_deliver(v->apic, LVT_LINT1);
}

u8 soft_apic_sipi_vector(const struct vcpu *v)
{
	return (u8)apic_ld(&v->apic->sipi_vector);
}

/* ---- life ---- */

struct soft_apic *soft_apic_new(struct vcpu *v)
{
	struct soft_apic *a = calloc(1, sizeof(*a));

	if (!a)
		return NULL;
	a->v = v;
	v->apic = a;
	soft_apic_reset(a, false);
	return a;
}

void soft_apic_free(struct soft_apic *a)
{
	free(a);
}

/* INIT keeps IA32_APIC_BASE and the id. LINT0 of the BSP
 * comes up as ExtINT, as firmware sets virtual wire mode on hardware. */
void soft_apic_reset(struct soft_apic *a, bool is_init)
{
	if (!is_init) {
		atomic_store(&a->base,
			     0xfee00000ull | APIC_BASE_EN |
				     (a->v->id == 0 ? APIC_BASE_BSP : 0));
		apic_st(&a->xapic_id, a->v->id << 24);
	}
	apic_st(&a->svr, 0xff);
	apic_st(&a->tpr, 0);
	apic_st(&a->ldr, 0);
	apic_st(&a->dfr, 0xffffffffu);
	for (unsigned i = 0; i < LVT_COUNT; i++)
		apic_st(&a->lvt[i], APIC_LVT_MASKED);
	if (a->v->id == 0)
		apic_st(&a->lvt[LVT_LINT0], APIC_DM_EXTINT << 8);
	for (int i = 0; i < 8; i++) {
		a->isr[i] = 0;
		apic_st(&a->irr[i], 0);
		apic_st(&a->tmr[i], 0);
	}
	a->esr = 0;
	apic_st(&a->esr_new, 0);
	a->icr = 0;
	a->is_pv_eoi = false;
	apic_timer_reset(a);
}

/* ---- saved state ---- */

static void put(struct kvm_lapic_state *s, u32 off, u32 value)
{
	st_le32(s->regs + off, value);
}

static u32 get(const struct kvm_lapic_state *s, u32 off)
{
	return ld_le32(s->regs + off);
}

void soft_apic_get(const struct soft_apic *a, struct kvm_lapic_state *out)
{
	static const u16 plain[] = {
		APIC_ID,      APIC_VERSION, APIC_TPR,  APIC_PPR,
		APIC_LDR,     APIC_SVR,	    APIC_ESR,  APIC_LVTT,
		APIC_LVTTHMR, APIC_LVTPC,   APIC_LVT0, APIC_LVT1,
		APIC_LVTERR,  APIC_TMICT,   APIC_TDCR, APIC_TMCCT,
	};
	/* Reading the count settles the timer: not a visible change. */
	struct soft_apic *w = (struct soft_apic *)a;
	u32 value = 0;

	soft_apic_pv_eoi_settle(w);
	memset(out, 0, sizeof(*out));
	for (size_t i = 0; i < ARRAY_SIZE(plain); i++)
		if (reg_read(w, plain[i], &value))
			put(out, plain[i], value);
	for (u32 i = 0; i < 0x80; i += 0x10) {
		put(out, APIC_ISR + i, a->isr[i >> 4]);
		put(out, APIC_TMR + i, apic_ld(&a->tmr[i >> 4]));
		put(out, APIC_IRR + i, apic_ld(&a->irr[i >> 4]));
	}
	put(out, APIC_DFR, apic_ld(&a->dfr));
	put(out, APIC_ICR, (u32)a->icr);
	put(out, APIC_ICR2, (u32)(a->icr >> 32));
}

static void set_vectors(struct soft_apic *a, const struct kvm_lapic_state *in)
{
	for (u32 i = 0; i < 8; i++) {
		/* Vectors 0-15 cannot be pending or in service. */
		u32 legal = i ? ~0u : ~0xffffu;

		a->isr[i] = get(in, APIC_ISR + i * 16) & legal;
		apic_st(&a->tmr[i], get(in, APIC_TMR + i * 16) & legal);
		apic_st(&a->irr[i], get(in, APIC_IRR + i * 16) & legal);
	}
}

/* Any bytes leave a legal APIC: reserved bits are dropped, and the
 * version and the x2APIC id are this APIC's own. IA32_APIC_BASE must be set
 * before. */
void soft_apic_set(struct soft_apic *a, const struct kvm_lapic_state *in)
{
	if (!apic_is_x2(a))
		apic_st(&a->xapic_id, get(in, APIC_ID) & 0xff000000u);
	apic_st(&a->svr, get(in, APIC_SVR) & 0x3ff);
	apic_st(&a->tpr, get(in, APIC_TPR) & 0xff);
	apic_st(&a->ldr, get(in, APIC_LDR) & 0xff000000u);
	apic_st(&a->dfr, get(in, APIC_DFR) | 0x0fffffffu);
	a->esr = get(in, APIC_ESR) & 0xff;
	apic_st(&a->esr_new, 0);
	a->icr = get(in, APIC_ICR) & 0xcefffu;
	if (apic_is_x2(a))
		a->icr |= (u64)get(in, APIC_ICR2) << 32;
	else
		a->icr |= (u64)(get(in, APIC_ICR2) & 0xff000000u) << 32;
	set_vectors(a, in);
	a->is_counting = false;
	a->tsc_deadline = 0;
	a->tdcr = get(in, APIC_TDCR) & 0xb;
	for (unsigned i = 0; i < LVT_COUNT; i++) {
		u32 r = get(in, APIC_LVTT + i * 16) & lvt_writable[i];

		if (i == LVT_TIMER && !apic_has_deadline(a))
			r &= ~BIT32(18);
		apic_st(&a->lvt[i], r);
	}
	apic_timer_restore(a, get(in, APIC_TMICT), get(in, APIC_TMCCT));
	soft_request(a->v, SOFT_REQ_INTR | SOFT_REQ_EXTINT);
}
