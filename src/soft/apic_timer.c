/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY
 *
 * The APIC timer is kept as the moment when the count reaches zero. Nothing
 * ticks: the current count is computed from the clock when it is read, and
 * expiry is noticed by soft_apic_timer_poll(), which the vCPU's thread calls
 * when the timer thread made a request or its own sleep ended.
 *
 * Periodic ticks that were missed (the host stalled) become one. The period
 * is at least 200 us: a guest cannot turn the host into a timer-wheel.
 *
 * Deadline mode counts in guest TSC and sleeps in CLOCK_MONOTONIC; at expiry
 * the TSC decides, and a wait that ended early is armed again.
 * Source: SDM 3A §11.5.4.
 */
#include "soft/apic_int.h"

#include "base/clock.h"
#include "x86/cpuid.h"

#define PERIOD_MIN_NS 200000ull

u64 apic_now_ns(void)
{
	return clock_mono_ns();
}

bool apic_has_deadline(const struct soft_apic *a)
{
	const struct kvm_cpuid2 *table = a->v->vm->cpuid;

	if (!table)
		return true;
	for (u32 i = 0; i < table->nent; i++)
		if (table->entries[i].function == 1)
			return table->entries[i].ecx & BIT32(24);
	return false;
}

static unsigned timer_mode(const struct soft_apic *a)
{
	return APIC_TIMER_MODE(apic_ld(&a->lvt[LVT_TIMER]));
}

/* Divide configuration: bits 0, 1 and 3; 111b is 1, else 2 << value. */
static u32 divisor(const struct soft_apic *a)
{
	u32 d = (a->tdcr & 3) | ((a->tdcr & 8) >> 1);

	return d == 7 ? 1 : 2u << d;
}

static u64 count_to_ns(const struct soft_apic *a, u32 count)
{
	return soft_muldiv((u64)count * divisor(a), 1000000,
			   a->v->vm->apic_bus_khz);
}

static u64 tsc_delta_to_ns(const struct soft_apic *a, u64 delta)
{
	/* Rounded up, so that the wait rarely ends early. */
	return soft_muldiv(delta, 1000000, a->v->vm->tsc_khz) + 1;
}

/* When to look again, in CLOCK_MONOTONIC. */
static u64 next_deadline(const struct soft_apic *a)
{
	u64 now, tsc, end;

	if (apic_ld(&a->lvt[LVT_TIMER]) & APIC_LVT_MASKED)
		return SOFT_NEVER;
	if (timer_mode(a) != APIC_TIMER_DEADLINE)
		return a->is_counting ? a->target_ns : SOFT_NEVER;
	if (!a->tsc_deadline)
		return SOFT_NEVER;
	now = apic_now_ns();
	tsc = soft_tsc(a->v);
	if (a->tsc_deadline <= tsc)
		return now;
	if (__builtin_add_overflow(
		    now, tsc_delta_to_ns(a, a->tsc_deadline - tsc), &end))
		return SOFT_NEVER;
	return end;
}

/* Advances past expiries; true when at least one happened. */
static bool settle(struct soft_apic *a)
{
	u64 now;

	if (timer_mode(a) == APIC_TIMER_DEADLINE) {
		if (!a->tsc_deadline || soft_tsc(a->v) < a->tsc_deadline)
			return false;
		a->tsc_deadline = 0;
		return true;
	}
	now = apic_now_ns();
	if (!a->is_counting || now < a->target_ns)
		return false;
	if (timer_mode(a) == APIC_TIMER_PERIODIC)
		a->target_ns += ((now - a->target_ns) / a->period_ns + 1) *
				a->period_ns;
	else
		a->is_counting = false;
	return true;
}

static void arm(struct soft_apic *a)
{
	soft_timer_arm(a->v->vm->timers, a->v->id, next_deadline(a));
}

/* Delivers what is due, arms what is next. */
static void poll(struct soft_apic *a)
{
	if (settle(a))
		apic_local_deliver(a, LVT_TIMER);
	arm(a);
}

void soft_apic_timer_poll(struct vcpu *v)
{
	poll(v->apic);
}

u64 soft_apic_deadline_ns(struct vcpu *v)
{
	return next_deadline(v->apic);
}

void soft_apic_tsc_changed(struct vcpu *v)
{
	if (v->apic && v->apic->tsc_deadline)
		poll(v->apic);
}

void apic_timer_reset(struct soft_apic *a)
{
	a->tmict = 0;
	a->tdcr = 0;
	a->is_counting = false;
	a->target_ns = 0;
	a->period_ns = 0;
	a->tsc_deadline = 0;
	arm(a);
}

static void start(struct soft_apic *a, u32 from)
{
	u64 period = count_to_ns(a, a->tmict);

	if (timer_mode(a) == APIC_TIMER_PERIODIC)
		period = MAX(period, PERIOD_MIN_NS);
	a->period_ns = MAX(period, 1);
	a->is_counting = from != 0;
	a->target_ns = apic_now_ns() + MIN(count_to_ns(a, from), a->period_ns);
	if (from == a->tmict)
		a->target_ns = apic_now_ns() + a->period_ns;
}

void apic_timer_write_lvt(struct soft_apic *a, u32 value)
{
	bool was_deadline = timer_mode(a) == APIC_TIMER_DEADLINE;
	bool is_deadline = APIC_TIMER_MODE(value) == APIC_TIMER_DEADLINE;

	/* What expired under the old setting expired under it. */
	if (settle(a))
		apic_local_deliver(a, LVT_TIMER);
	apic_st(&a->lvt[LVT_TIMER], value);
	if (was_deadline != is_deadline) {
		a->tmict = 0;
		a->is_counting = false;
		a->tsc_deadline = 0;
	} else if (APIC_TIMER_MODE(value) == APIC_TIMER_PERIODIC) {
		a->period_ns = MAX(a->period_ns, PERIOD_MIN_NS);
	}
	arm(a);
}

void apic_timer_write_initial(struct soft_apic *a, u32 count)
{
	if (timer_mode(a) == APIC_TIMER_DEADLINE)
		return;
	a->tmict = count;
	start(a, count);
	poll(a);
}

void apic_timer_write_divide(struct soft_apic *a, u32 value)
{
	u32 current = apic_timer_current(a);

	a->tdcr = value & 0xb;
	if (timer_mode(a) != APIC_TIMER_DEADLINE && a->is_counting) {
		start(a, MAX(current, 1));
		arm(a);
	}
}

u32 apic_timer_current(struct soft_apic *a)
{
	u64 left;

	if (timer_mode(a) == APIC_TIMER_DEADLINE)
		return 0;
	if (settle(a)) {
		apic_local_deliver(a, LVT_TIMER);
		arm(a);
	}
	if (!a->is_counting)
		return 0;
	left = a->target_ns - MIN(apic_now_ns(), a->target_ns);
	left = soft_muldiv(left, a->v->vm->apic_bus_khz,
			   1000000ull * divisor(a));
	return (u32)MIN(left, a->tmict);
}

void apic_timer_restore(struct soft_apic *a, u32 initial, u32 current)
{
	a->tmict = initial;
	a->is_counting = false;
	if (timer_mode(a) != APIC_TIMER_DEADLINE && initial && current)
		start(a, MIN(initial, current));
	arm(a);
}

void apic_timer_write_deadline(struct soft_apic *a, u64 tsc)
{
	if (timer_mode(a) != APIC_TIMER_DEADLINE)
		return;
	a->tsc_deadline = tsc;
	poll(a);
}
