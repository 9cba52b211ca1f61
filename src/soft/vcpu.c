/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY
 *
 * vcpu_run: a loop around the interpreter.
 *
 *	clear kick -> serve v->requests in priority order -> run, or sleep
 *
 * A raised exception unwinds to the one sigsetjmp here, is delivered, and the
 * loop goes on. An event that may not be taken now (IF or NMI blocking) stays
 * in v->requests with kick clear; soft_after_if_change() sets kick when the
 * block goes. Behind STI and MOV SS one instruction is stepped first.
 *
 * HLT sets is_halted with RIP behind it. Requests are looked at again before
 * the sleep, and the sleep itself does not start while kick is set, so
 * `sti; hlt` cannot lose an interrupt. While it sleeps, a vCPU waits for its
 * own timer with a timeout; the timer thread is not involved.
 *
 * Order: exit, pause, TLB flush, INIT, SIPI, timer, NMI, interrupts.
 * SDM 3A §6.9.
 */
#include "soft/xlat.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "soft/xlat.h"
#include "x86/cpuid.h"

/* ---- reset ---- */

static const struct soft_seg reset_data = {
	.limit = 0xffff,
	.attr = SEG_P | SEG_S | SEG_TYPE_WR_RD | SEG_TYPE_ACC,
};

static void reset_segments(struct vcpu *v)
{
	for (int i = 0; i < 6; i++)
		v->segs[i] = reset_data;
	v->segs[X86_CS].sel = 0xf000;
	v->segs[X86_CS].base = 0xffff0000;
	v->segs[X86_CS].attr |= SEG_TYPE_CODE;
	v->ldtr = (struct soft_seg){.limit = 0xffff, .attr = SEG_P | 2};
	v->tr = (struct soft_seg){.limit = 0xffff, .attr = SEG_P | 11};
	v->gdtr = (struct soft_table){.limit = 0xffff};
	v->idtr = v->gdtr;
}

static u32 cpu_signature(const struct vcpu *v)
{
	const struct kvm_cpuid_entry2 *e =
		v->vm->cpuid ? x86_cpuid_find(v->vm->cpuid, 1, 0) : NULL;

	return e ? e->eax : 0;
}

/* What RESET changes and INIT does not: SDM 3A table 9-1. */
static void reset_power_on(struct vcpu *v)
{
	soft_fpu_reset(v);
	v->cr0 = X86_CR0_CD | X86_CR0_NW;
	v->xcr0 = 1;
	v->star = v->lstar = v->cstar = v->sfmask = 0;
	v->kernel_gs_base = v->tsc_aux = 0;
	v->sysenter_cs = v->sysenter_esp = v->sysenter_eip = 0;
	v->pat = 0x0007040600070406ull;
	/* Fast strings; no branch trace store, no precise events. */
	v->misc_enable = BIT64(0) | BIT64(11) | BIT64(12);
	v->mtrr_def = 0;
	memset(v->mtrr_var, 0, sizeof(v->mtrr_var));
	memset(v->mtrr_fix, 0, sizeof(v->mtrr_fix));
	v->spec_ctrl = 0;
	v->tsc_adjust = 0;
	v->tsc_offset = -(i64)v->vm->clock_base_tsc;
	soft_pv_reset(v);
}

void soft_vcpu_reset(struct vcpu *v, bool is_init)
{
	if (!is_init)
		reset_power_on(v);
	memset(v->gpr, 0, sizeof(v->gpr));
	v->gpr[2] = cpu_signature(v);
	v->rip = 0xfff0;
	reset_segments(v);
	v->cr0 = (v->cr0 & (X86_CR0_CD | X86_CR0_NW)) | X86_CR0_ET;
	v->cr2 = v->cr3 = v->cr4 = v->efer = 0;
	memset(v->pdpte, 0, sizeof(v->pdpte));
	memset(v->dr, 0, sizeof(v->dr));
	v->dr6 = 0xffff0ff0;
	v->dr7 = 0x400;
	v->shadow = 0;
	v->nmi_blocked = false;
	v->is_halted = false;
	v->delivering = 0xffff;
	v->error[0] = '\0';
	/* Exit and pause are the machine's, not the guest's. */
	atomic_fetch_and(&v->requests, SOFT_REQ_EXIT | SOFT_REQ_PAUSE |
					       (is_init ? SOFT_REQ_SIPI : 0));
	soft_apic_reset(v->apic, is_init);
	atomic_store(&v->is_waiting_sipi, v->id != 0);
	soft_set_rflags(v, 2);
	soft_mode_changed(v);
	soft_tlb_flush(v, false);
}

static void start_at_sipi(struct vcpu *v)
{
	u8 vector = soft_apic_sipi_vector(v);

	v->segs[X86_CS].sel = (u16)(vector << 8);
	v->segs[X86_CS].base = (u64)vector << 12;
	v->rip = 0;
	atomic_store(&v->is_waiting_sipi, false);
	soft_mode_changed(v);
}

/* ---- requests ---- */

enum next { NEXT_RUN, NEXT_STEP, NEXT_EXIT, NEXT_SHUTDOWN };

static bool take(struct vcpu *v, u32 bit)
{
	return atomic_fetch_and(&v->requests, ~bit) & bit;
}

static void fpu_in(struct vcpu *v)
{
	if (!v->fpu_loaded)
		soft_fpu_enter(v);
	v->fpu_loaded = true;
}

static void fpu_out(struct vcpu *v)
{
	if (v->fpu_loaded)
		soft_fpu_leave(v);
	v->fpu_loaded = false;
}

static bool has_extint(struct vcpu *v)
{
	return atomic_load(&v->vm->extint) && soft_apic_accepts_extint(v);
}

static enum next deliver(struct vcpu *v, u8 vector, bool is_nmi)
{
	v->is_halted = false;
	smc_serialize(v);
	return soft_deliver_interrupt(v, vector, is_nmi) ? NEXT_RUN
							 : NEXT_SHUTDOWN;
}

static enum next inject_interrupt(struct vcpu *v)
{
	const struct engine_vm_config *cfg = &v->vm->cfg;
	const u32 bits = SOFT_REQ_INTR | SOFT_REQ_EXTINT;
	bool is_ext;
	int vector;

	/* Cleared before the look, so that a later arrival sets it again. */
	atomic_fetch_and(&v->requests, ~bits);
	is_ext = has_extint(v) && cfg->irqchip && cfg->irqchip->pic_ack;
	if (!is_ext && !soft_apic_has_interrupt(v))
		return NEXT_RUN;
	/* Kept until taken: there may be a second one behind it. */
	atomic_fetch_or(&v->requests, bits);
	if (!(v->rflags_sys & X86_FL_IF))
		return NEXT_RUN;
	if (v->shadow)
		return NEXT_STEP;
	vector = is_ext ? cfg->irqchip->pic_ack(cfg->irqchip_opaque)
			: soft_apic_ack(v);
	return vector < 0 ? NEXT_RUN : deliver(v, (u8)vector, false);
}

/* One of the NMIs that wait becomes the one being handled, behind which only
 * one more is kept. */
static void take_nmi(struct vcpu *v)
{
	u32 old = atomic_load(&v->requests), bit;

	v->nmi_blocked = true;
	do { /* in one step: NMI2 is never set without NMI */
		bit = old & SOFT_REQ_NMI2 ? SOFT_REQ_NMI2 : SOFT_REQ_NMI;
	} while (!atomic_compare_exchange_weak(&v->requests, &old, old & ~bit));
}

static enum next inject(struct vcpu *v)
{
	u32 reqs = atomic_load(&v->requests);
	enum next n;

	if (v->nmi_blocked)
		take(v, SOFT_REQ_NMI2);
	if ((reqs & SOFT_REQ_NMI) && !v->nmi_blocked) {
		if (v->shadow)
			return NEXT_STEP;
		take_nmi(v);
		n = deliver(v, X86_VEC_NMI, true);
		if (n != NEXT_RUN)
			return n;
	}
	if (reqs & (SOFT_REQ_INTR | SOFT_REQ_EXTINT))
		return inject_interrupt(v);
	return NEXT_RUN;
}

static enum next serve(struct vcpu *v)
{
	if (take(v, SOFT_REQ_EXIT))
		return NEXT_EXIT;
	if (take(v, SOFT_REQ_PAUSE)) {
		fpu_out(v);
		smc_vcpu_stopped(v);
		soft_park(v);
		smc_vcpu_started(v);
	}
	if (take(v, SOFT_REQ_REVOKE))
		smc_revoke(v);
	if (take(v, SOFT_REQ_FLUSH))
		soft_tlb_flush(v, false);
	if (take(v, SOFT_REQ_INIT))
		soft_vcpu_reset(v, true);
	if (take(v, SOFT_REQ_SIPI) && atomic_load(&v->is_waiting_sipi))
		start_at_sipi(v);
	if (atomic_load(&v->is_waiting_sipi))
		return NEXT_RUN;
	if (take(v, SOFT_REQ_TIMER))
		soft_apic_timer_poll(v);
	return inject(v);
}

static void wait_for_event(struct vcpu *v)
{
	bool is_parked = atomic_load(&v->is_waiting_sipi);
	u64 deadline = is_parked ? SOFT_NEVER : soft_apic_deadline_ns(v);

	v->stats.halts++;
	if (v->vm->xlat)
		xlat_idle(v);
	fpu_out(v);
	soft_pv_leave(v);
	soft_timer_arm(v->vm->timers, v->id, SOFT_NEVER);
	smc_vcpu_stopped(v);
	soft_sleep(v, deadline);
	smc_vcpu_started(v);
	soft_pv_enter(v);
	if (!is_parked)
		soft_apic_timer_poll(v);
}

/* ---- the loop ---- */

static bool is_idle(struct vcpu *v)
{
	if (atomic_load(&v->is_waiting_sipi))
		return true;
	if (v->is_halted && atomic_exchange(&v->pv_kicked, false))
		v->is_halted = false;
	return v->is_halted;
}

static enum vcpu_exit run_loop(struct vcpu *v)
{
	for (;;) {
		enum next n = NEXT_RUN;

		/* Pairs with soft_request: bits first, go second. */
		atomic_exchange(&v->go, SOFT_GO);
		if (atomic_load(&v->requests))
			n = serve(v);
		if (n == NEXT_EXIT)
			return VCPU_EXIT_KICKED;
		if (n == NEXT_SHUTDOWN)
			return VCPU_EXIT_SHUTDOWN;
		if (is_idle(v)) {
			wait_for_event(v);
			continue;
		}
		fpu_in(v);
		if (n == NEXT_STEP)
			soft_interp_one(v);
		else if (v->vm->xlat)
			xlat_run(v);
		else
			soft_interp(v);
	}
}

static enum vcpu_exit run_guarded(struct vcpu *v)
{
	if (sigsetjmp(v->unwind, 0)) {
		v->shadow = 0;
		if (v->error[0])
			return VCPU_EXIT_ERROR;
		smc_serialize(v);
		if (!soft_deliver_exception(v))
			return VCPU_EXIT_SHUTDOWN;
	}
	return run_loop(v);
}

static void open_schedstat(struct vcpu *v)
{
	char path[64];

	if (v->schedstat_fd >= 0)
		close(v->schedstat_fd);
	snprintf(path, sizeof(path), "/proc/self/task/%ld/schedstat",
		 syscall(SYS_gettid));
	v->schedstat_fd = open(path, O_RDONLY | O_CLOEXEC);
	v->steal_base_ns = UINT64_MAX; /* of another thread: start over */
}

void soft_vcpu_attach(struct vcpu *v)
{
	if (v->has_thread && pthread_equal(v->thread, pthread_self()))
		return;
	v->thread = pthread_self();
	v->has_thread = true;
	open_schedstat(v);
}

enum vcpu_exit soft_vcpu_run(struct vcpu *v, struct err *err)
{
	enum vcpu_exit rc;

	soft_vcpu_attach(v);
	soft_run_begin(v);
	smc_vcpu_started(v);
	soft_pv_enter(v);
	soft_apic_timer_poll(v);
	rc = run_guarded(v);
	fpu_out(v);
	soft_pv_leave(v);
	soft_timer_arm(v->vm->timers, v->id, SOFT_NEVER);
	smc_vcpu_stopped(v);
	soft_run_end(v);
	if (rc == VCPU_EXIT_ERROR)
		err_set(err, -EIO, "vcpu %u: %s", v->id, v->error);
	return rc;
}
