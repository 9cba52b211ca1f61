/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY
 *
 * Messages between APICs, and from devices (MSI, I/O APIC), are routed by
 * walking the vCPU table: at most VCPUS_MAX entries, no caches to keep true.
 * A fixed interrupt is one atomic OR into the target's IRR, then a request;
 * TMR is written before IRR so that the acknowledging thread sees it.
 *
 * A destination of all ones in the sender's width is a broadcast (0xff from
 * xAPIC, MSI and I/O APIC, 0xffffffff from x2APIC).
 *
 * Not modelled: SMI and remote read (dropped), bus arbitration, delivery
 * status (a message arrives at once), interrupt remapping.
 * Source: SDM 3A §11.6, §11.11, §11.12.9-10.
 */
#include "soft/apic_int.h"

#include <errno.h>

/* A fixed interrupt arrives. Any thread. */
void apic_accept(struct soft_apic *a, u8 vector, bool is_level)
{
	u32 bit = BIT32(vector & 31);
	unsigned w = vector >> 5;

	if (!apic_is_enabled(a))
		return;
	if (vector < 16) {
		apic_error(a, APIC_ESR_RECEIVE_ILLEGAL);
		return;
	}
	if (is_level)
		atomic_fetch_or_explicit(&a->tmr[w], bit, memory_order_relaxed);
	else if (apic_ld(&a->tmr[w]) & bit)
		atomic_fetch_and_explicit(&a->tmr[w], ~bit,
					  memory_order_relaxed);
	/* Pairs with the acquire in soft_apic_ack. */
	atomic_fetch_or_explicit(&a->irr[w], bit, memory_order_release);
	soft_request(a->v, SOFT_REQ_INTR);
}

/* Any thread. An illegal vector in LVT error itself raises nothing more. */
void apic_error(struct soft_apic *a, u32 esr_bit)
{
	u32 lvt = apic_ld(&a->lvt[LVT_ERROR]);

	atomic_fetch_or_explicit(&a->esr_new, esr_bit, memory_order_relaxed);
	if (!(lvt & APIC_LVT_MASKED) && (lvt & 0xff) >= 16)
		apic_accept(a, lvt & 0xff, false);
}

/* A local source (timer, LINT pin, …) fires through its LVT entry. */
void apic_local_deliver(struct soft_apic *a, unsigned lvt)
{
	u32 r = apic_ld(&a->lvt[lvt]);
	bool is_typed = lvt != LVT_TIMER && lvt != LVT_ERROR;

	if (!apic_is_on(a) || (r & APIC_LVT_MASKED))
		return;
	switch (is_typed ? APIC_LVT_MODE(r) : APIC_DM_FIXED) {
	case APIC_DM_FIXED:
		apic_accept(a, r & 0xff, false);
		break;
	case APIC_DM_NMI:
		soft_request_nmi(a->v);
		break;
	case APIC_DM_INIT:
		soft_request(a->v, SOFT_REQ_INIT);
		break;
	default:
		break;
	}
}

static bool match_logical(const struct soft_apic *a, u32 dest)
{
	u32 ldr;

	if (apic_is_x2(a)) {
		u32 id = a->v->id;

		return (dest >> 16) == (id >> 4) &&
		       (dest & 0xffff & BIT32(id & 15));
	}
	ldr = apic_ld(&a->ldr) >> 24;
	if (dest > 0xff)
		return false;
	switch (apic_ld(&a->dfr) >> 28) {
	case 0xf: /* flat */
		return ldr & dest;
	case 0x0: /* cluster */
		return (ldr >> 4) == (dest >> 4) && (ldr & dest & 0xf);
	default:
		return false;
	}
}

static bool match(const struct soft_apic *a, const struct apic_message *m)
{
	if (m->dest == (m->is_wide ? 0xffffffffu : 0xffu))
		return true;
	if (m->is_logical)
		return match_logical(a, m->dest);
	return m->dest == apic_id(a);
}

static void send_sipi(struct soft_apic *a, u8 vector)
{
	if (!atomic_load(&a->v->is_waiting_sipi) &&
	    !(atomic_load(&a->v->requests) & SOFT_REQ_INIT))
		return; /* running: ignored */
	apic_st(&a->sipi_vector, vector);
	soft_request(a->v, SOFT_REQ_SIPI);
}

static void deliver(struct soft_apic *a, const struct apic_message *m)
{
	switch (m->mode) {
	case APIC_DM_FIXED:
	case APIC_DM_LOWEST:
		apic_accept(a, m->vector, m->is_level);
		break;
	case APIC_DM_NMI:
		soft_request_nmi(a->v);
		break;
	case APIC_DM_INIT:
		/* A SIPI from before the INIT is void. */
		atomic_fetch_and(&a->v->requests, ~SOFT_REQ_SIPI);
		soft_request(a->v, SOFT_REQ_INIT);
		break;
	case APIC_DM_SIPI:
		send_sipi(a, m->vector);
		break;
	default: /* SMI, remote read, ExtINT: no such source here */
		break;
	}
}

/* The matching APIC with the lowest task priority, in turn among equals. */
static struct soft_apic *find_lowest(struct engine_vm *vm,
				     const struct apic_message *m,
				     const struct soft_apic *exclude)
{
	u32 start = atomic_fetch_add_explicit(&vm->lowest_next, 1,
					      memory_order_relaxed);
	struct soft_apic *best = NULL;

	for (u32 i = 0; i < VCPUS_MAX; i++) {
		struct vcpu *v = vm->vcpus[(start + i) % VCPUS_MAX];
		struct soft_apic *a = v ? v->apic : NULL;

		if (!a || a == exclude || !apic_is_enabled(a) || !match(a, m))
			continue;
		if (!best ||
		    (apic_ld(&a->tpr) >> 4) < (apic_ld(&best->tpr) >> 4))
			best = a;
	}
	return best;
}

unsigned apic_route(struct engine_vm *vm, const struct apic_message *m,
		    const struct soft_apic *exclude)
{
	unsigned n = 0;

	if (m->mode == APIC_DM_LOWEST) {
		struct soft_apic *a = find_lowest(vm, m, exclude);

		if (a)
			deliver(a, m);
		return a != NULL;
	}
	for (u32 i = 0; i < VCPUS_MAX; i++) {
		struct vcpu *v = vm->vcpus[i];
		struct soft_apic *a = v ? v->apic : NULL;

		if (!a || a == exclude || !apic_is_on(a) || !match(a, m))
			continue;
		deliver(a, m);
		n++;
	}
	return n;
}

void apic_self_ipi(struct soft_apic *a, u8 vector)
{
	if (vector < 16)
		apic_error(a, APIC_ESR_SEND_ILLEGAL);
	apic_accept(a, vector, false);
}

/* Carries out a->icr. */
void apic_send_icr(struct soft_apic *a)
{
	u32 low = (u32)a->icr;
	struct apic_message m = {
		.dest = apic_is_x2(a) ? a->icr >> 32 : a->icr >> 56,
		.is_logical = low & APIC_ICR_LOGICAL,
		.is_wide = apic_is_x2(a),
		.mode = APIC_LVT_MODE(low),
		.vector = low & 0xff,
	};
	const struct soft_apic *exclude = NULL;

	if (m.mode == APIC_DM_INIT && (low & APIC_ICR_LEVEL) &&
	    !(low & APIC_ICR_ASSERT))
		return; /* INIT level de-assert: nothing since the Pentium 4 */
	if (m.mode <= APIC_DM_LOWEST && m.vector < 16)
		apic_error(a, APIC_ESR_SEND_ILLEGAL);
	switch ((low >> 18) & 3) {
	case 0:
		break;
	case 1: /* self */
		deliver(a, &m);
		return;
	case 3: /* all but self */
		exclude = a;
		/* fall through */
	case 2:
		m.dest = m.is_wide ? 0xffffffffu : 0xffu;
		m.is_logical = false;
		break;
	}
	apic_route(a->v->vm, &m, exclude);
}

bool soft_apic_pv_ipi(struct engine_vm *vm, u32 apic_id, u32 icr_low)
{
	struct apic_message m = {
		.dest = apic_id,
		.is_wide = true,
		.mode = APIC_LVT_MODE(icr_low),
		.vector = icr_low & 0xff,
	};

	return apic_id < VCPUS_MAX && apic_route(vm, &m, NULL) != 0;
}

/* Any thread. */
int soft_apic_msi(struct engine_vm *vm, u64 addr, u32 data)
{
	struct apic_message m = {
		.dest = (addr >> 12) & 0xff,
		.is_logical = addr & BIT64(2),
		.mode = APIC_LVT_MODE(data),
		.vector = data & 0xff,
		.is_level = data & BIT32(15),
	};

	if (addr >> 20 != 0xfee)
		return -EINVAL;
	if (m.mode == APIC_DM_SIPI)
		return 0; /* not an MSI delivery mode */
	/* Level de-assert messages do not exist for our I/O APIC. */
	if (m.is_level && !(data & BIT32(14)) && m.mode == APIC_DM_INIT)
		return 0;
	/* The redirection hint asks for one processor of the set. */
	if ((addr & BIT64(3)) && m.mode == APIC_DM_FIXED)
		m.mode = APIC_DM_LOWEST;
	if (m.mode == APIC_DM_EXTINT) {
		/* The I/O APIC's virtual wire: the vector is the PIC's. */
		if (vm->vcpus[0])
			soft_request(vm->vcpus[0], SOFT_REQ_EXTINT);
		return 0;
	}
	apic_route(vm, &m, NULL);
	return 0;
}
