/* SPDX-License-Identifier: Apache-2.0 */
/* The local APIC's struct, shared by apic.c (registers), apic_icr.c (message
 * routing) and apic_timer.c. SDM 3A §11.
 *
 * Threads: fields belong to the vCPU's thread, except the _Atomic ones, which
 * senders read (destination match, enabled, LVT) or set (IRR, TMR, ESR). */
#pragma once

#include "soft/soft_int.h"

/* Register offsets in the xAPIC page; x2APIC MSR = 0x800 + offset / 16. */
#define APIC_ID	      0x020u
#define APIC_VERSION  0x030u
#define APIC_TPR      0x080u
#define APIC_PPR      0x0a0u
#define APIC_EOI      0x0b0u
#define APIC_LDR      0x0d0u
#define APIC_DFR      0x0e0u
#define APIC_SVR      0x0f0u
#define APIC_ISR      0x100u
#define APIC_TMR      0x180u
#define APIC_IRR      0x200u
#define APIC_ESR      0x280u
#define APIC_ICR      0x300u
#define APIC_ICR2     0x310u
#define APIC_LVTT     0x320u
#define APIC_LVTTHMR  0x330u
#define APIC_LVTPC    0x340u
#define APIC_LVT0     0x350u
#define APIC_LVT1     0x360u
#define APIC_LVTERR   0x370u
#define APIC_TMICT    0x380u
#define APIC_TMCCT    0x390u
#define APIC_TDCR     0x3e0u
#define APIC_SELF_IPI 0x3f0u

#define APIC_BASE_BSP	 BIT64(8)
#define APIC_BASE_EXTD	 BIT64(10)
#define APIC_BASE_EN	 BIT64(11)
#define APIC_BASE_ADDR	 0x000ffffffffff000ull
#define APIC_SVR_ENABLED BIT32(8)

#define APIC_LVT_MASKED	   BIT32(16)
#define APIC_LVT_MODE(r)   (((r) >> 8) & 7u)
#define APIC_TIMER_MODE(r) (((r) >> 17) & 3u)
enum { APIC_TIMER_ONESHOT, APIC_TIMER_PERIODIC, APIC_TIMER_DEADLINE };

/* Delivery modes: ICR, LVT and MSI data bits 8-10. */
enum {
	APIC_DM_FIXED,
	APIC_DM_LOWEST,
	APIC_DM_SMI,
	APIC_DM_REMOTE_READ,
	APIC_DM_NMI,
	APIC_DM_INIT,
	APIC_DM_SIPI,
	APIC_DM_EXTINT,
};

#define APIC_ICR_LOGICAL BIT32(11)
#define APIC_ICR_BUSY	 BIT32(12)
#define APIC_ICR_ASSERT	 BIT32(14)
#define APIC_ICR_LEVEL	 BIT32(15)

#define APIC_ESR_SEND_ILLEGAL	 BIT32(5)
#define APIC_ESR_RECEIVE_ILLEGAL BIT32(6)
#define APIC_ESR_REGISTER	 BIT32(7)

enum {
	LVT_TIMER,
	LVT_THERMAL,
	LVT_PERF,
	LVT_LINT0,
	LVT_LINT1,
	LVT_ERROR,
	LVT_COUNT
};

struct soft_apic {
	struct vcpu *v;
	_Atomic u64 base; /* IA32_APIC_BASE */
	_Atomic u32 irr[8], tmr[8];
	u32 isr[8];
	_Atomic u32 tpr, ldr, dfr, svr;
	_Atomic u32 xapic_id; /* bits 24-31; x2APIC mode has the vCPU's id */
	_Atomic u32 lvt[LVT_COUNT];
	u32 esr;	     /* as software reads it */
	_Atomic u32 esr_new; /* errors since the last write to ESR */
	u64 icr;	     /* bits 32-63: ICR2, or the x2APIC destination */
	_Atomic u32 sipi_vector;

	u32 tmict, tdcr;
	bool is_counting; /* one-shot not yet expired, or periodic */
	u64 target_ns;	  /* when the count reaches 0 */
	u64 period_ns;
	u64 tsc_deadline; /* 0: disarmed */
	bool is_pv_eoi;	  /* the guest may end the interrupt in its memory */
};

static inline u32 apic_ld(const _Atomic u32 *r)
{
	return atomic_load_explicit(r, memory_order_relaxed);
}
static inline void apic_st(_Atomic u32 *r, u32 value)
{
	atomic_store_explicit(r, value, memory_order_relaxed);
}
static inline u64 apic_base_msr(const struct soft_apic *a)
{
	return atomic_load_explicit(&a->base, memory_order_relaxed);
}
static inline bool apic_is_on(const struct soft_apic *a)
{
	return apic_base_msr(a) & APIC_BASE_EN;
}
static inline bool apic_is_x2(const struct soft_apic *a)
{
	const u64 both = APIC_BASE_EN | APIC_BASE_EXTD;

	return (apic_base_msr(a) & both) == both;
}
/* By which physical destinations find it. */
static inline u32 apic_id(const struct soft_apic *a)
{
	return apic_is_x2(a) ? a->v->id : apic_ld(&a->xapic_id) >> 24;
}
/* Accepts fixed interrupts. */
static inline bool apic_is_enabled(const struct soft_apic *a)
{
	return apic_is_on(a) && (apic_ld(&a->svr) & APIC_SVR_ENABLED);
}

/* ---- priorities, on the vCPU's thread ---- */

#define APIC_NO_VECTOR (-1)

static inline int apic_highest(const u32 *words)
{
	for (int w = 7; w >= 0; w--)
		if (words[w])
			return w * 32 + 31 - __builtin_clz(words[w]);
	return APIC_NO_VECTOR;
}

static inline int apic_highest_irr(const struct soft_apic *a)
{
	for (int w = 7; w >= 0; w--) {
		u32 r = atomic_load_explicit(&a->irr[w], memory_order_acquire);

		if (r)
			return w * 32 + 31 - __builtin_clz(r);
	}
	return APIC_NO_VECTOR;
}

static inline u32 apic_ppr(const struct soft_apic *a)
{
	u32 tpr = apic_ld(&a->tpr);
	int isr = apic_highest(a->isr);
	u32 isrv = isr < 0 ? 0 : (u32)isr;

	return (tpr & 0xf0) >= (isrv & 0xf0) ? tpr : isrv & 0xf0;
}

static inline int apic_deliverable(const struct soft_apic *a)
{
	int irr;

	if (!apic_is_enabled(a))
		return APIC_NO_VECTOR;
	irr = apic_highest_irr(a);
	return irr >= 0 && ((u32)irr & 0xf0) > (apic_ppr(a) & 0xf0)
		       ? irr
		       : APIC_NO_VECTOR;
}

/* A message on the APIC bus. */
struct apic_message {
	u32 dest;
	bool is_logical;
	bool is_wide; /* 32-bit destination: sent in x2APIC mode */
	u8 mode;      /* APIC_DM_* */
	u8 vector;
	bool is_level;
};

/* apic_icr.c */
void apic_accept(struct soft_apic *a, u8 vector, bool is_level);
void apic_error(struct soft_apic *a, u32 esr_bit);
void apic_local_deliver(struct soft_apic *a, unsigned lvt);
void apic_send_icr(struct soft_apic *a);
void apic_self_ipi(struct soft_apic *a, u8 vector);
/* How many vCPUs took it. */
unsigned apic_route(struct engine_vm *vm, const struct apic_message *m,
		    const struct soft_apic *exclude);

/* apic_timer.c */
u64 apic_now_ns(void);
void apic_timer_reset(struct soft_apic *a);
void apic_timer_write_lvt(struct soft_apic *a, u32 value);
void apic_timer_write_initial(struct soft_apic *a, u32 count);
void apic_timer_write_divide(struct soft_apic *a, u32 value);
u32 apic_timer_current(struct soft_apic *a);
void apic_timer_restore(struct soft_apic *a, u32 initial, u32 current);
void apic_timer_write_deadline(struct soft_apic *a, u64 tsc);
/* CPUID.1:ECX.TSC-Deadline is presented. */
bool apic_has_deadline(const struct soft_apic *a);
