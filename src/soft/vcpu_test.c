/* SPDX-License-Identifier: Apache-2.0 */
/* The run loop over a scripted CPU: this file stands in for the interpreter,
 * event delivery and the MMU, so that what is tested is vcpu.c and park.c. */
#include "soft/apic_int.h"
#include "soft/xlat_int.h"
#include "test/test.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "x86/cpuid.h"

struct script {
	struct vcpu vcpu; /* first: the fakes find the script by it */
	void (*insn)(struct script *s); /* "executes" one instruction */
	int steps, ones, taken, nmis, exceptions, flushes;
	u8 last_vector;
	bool is_triple;
	pthread_t thread;
	enum vcpu_exit rc;
	struct err err;
};

static struct script *of(struct vcpu *v)
{
	return container_of(v, struct script, vcpu);
}

/* ---- the fakes ---- */

void soft_interp_one(struct vcpu *v)
{
	v->shadow = 0;
	of(v)->ones++;
	of(v)->steps++;
	of(v)->insn(of(v));
}

void soft_interp(struct vcpu *v)
{
	while (!v->is_halted && !soft_is_kicked(v)) {
		v->shadow = 0;
		of(v)->steps++;
		of(v)->insn(of(v));
	}
}

bool soft_deliver_exception(struct vcpu *v)
{
	of(v)->exceptions++;
	of(v)->last_vector = v->exc.vector;
	return !of(v)->is_triple;
}

bool soft_deliver_interrupt(struct vcpu *v, u8 vector, bool is_nmi)
{
	of(v)->taken++;
	of(v)->nmis += is_nmi;
	of(v)->last_vector = vector;
	v->rflags_sys &= ~X86_FL_IF;
	return !of(v)->is_triple;
}

void soft_set_rflags(struct vcpu *v, u64 rflags)
{
	v->rflags_sys = rflags;
	soft_after_if_change(v);
}

u64 soft_rflags(const struct vcpu *v)
{
	return v->rflags_sys;
}

bool soft_rdmsr(struct vcpu *v, u32 index, u64 *out)
{
	if (index != X86_MSR_LSTAR)
		return false;
	*out = v->lstar;
	return true;
}

bool soft_wrmsr(struct vcpu *v, u32 index, u64 value)
{
	if (index != X86_MSR_LSTAR || !soft_is_canonical(value))
		return false;
	v->lstar = value;
	return true;
}

void soft_tlb_flush(struct vcpu *v, bool keep_global)
{
	(void)keep_global;
	of(v)->flushes++;
}

void soft_mode_changed(struct vcpu *v)
{
	(void)v;
}

void soft_fpu_reset(struct vcpu *v)
{
	(void)v;
}

void soft_fpu_enter(struct vcpu *v)
{
	assert_false(v->fpu_loaded);
}

void soft_fpu_leave(struct vcpu *v)
{
	assert_true(v->fpu_loaded);
}

const struct kvm_cpuid_entry2 *x86_cpuid_find(const struct kvm_cpuid2 *table,
					      u32 leaf, u32 subleaf)
{
	(void)table;
	(void)leaf;
	(void)subleaf;
	return NULL;
}

/* No translator. */
struct xlat *xlat_new(struct engine_vm *vm, size_t code_bytes, struct err *err)
{
	fail();
	return NULL;
}

void xlat_free(struct xlat *x)
{
	assert_null(x);
}

void xlat_run(struct vcpu *v)
{
	fail();
}

void xlat_run_free(struct vcpu *v)
{
}

void xlat_idle(struct vcpu *v)
{
	fail();
}

void xlat_get_stats(struct xlat *x, struct xlat_stats *out)
{
	fail();
}

void smc_serialize(struct vcpu *v)
{
}

void smc_revoke(struct vcpu *v)
{
}

void smc_vcpu_stopped(struct vcpu *v)
{
}

void smc_vcpu_started(struct vcpu *v)
{
}

void smc_written(struct engine_vm *vm, gpa_t gpa, u64 len)
{
}

void smc_slot_changed(struct xlat *x, const struct mem_slot *slot, bool added)
{
}

/* ---- rig ---- */

static void vm_init(struct engine_vm *vm)
{
	struct err err;

	memset(vm, 0, sizeof(*vm));
	vm->mem = mem_new();
	vm->tsc_khz = soft_tsc_khz_measure();
	vm->apic_bus_khz = 1000000;
	vm->physical_address_bits = 40;
	pthread_mutex_init(&vm->pause_lock, NULL);
	vm->timers = soft_timers_new(vm, &err);
	assert_non_null(vm->timers);
}

static struct script *script_new(struct engine_vm *vm, u32 id,
				 void (*insn)(struct script *))
{
	struct script *s = aligned_alloc(64, ALIGN_UP(sizeof(*s), 64));

	assert_non_null(s);
	memset(s, 0, sizeof(*s));
	s->insn = insn;
	s->vcpu.vm = vm;
	s->vcpu.id = id;
	s->vcpu.schedstat_fd = -1;
	pthread_mutex_init(&s->vcpu.park_lock, NULL);
	pthread_cond_init(&s->vcpu.park_cond, NULL);
	assert_non_null(soft_apic_new(&s->vcpu));
	soft_vcpu_reset(&s->vcpu, false);
	soft_apic_mmio_write(&s->vcpu, APIC_SVR, 0x1ff);
	vm->vcpus[id] = &s->vcpu;
	return s;
}

static void vm_fini(struct engine_vm *vm)
{
	soft_timers_free(vm->timers);
	for (u32 i = 0; i < VCPUS_MAX; i++) {
		if (!vm->vcpus[i])
			continue;
		soft_apic_free(vm->vcpus[i]->apic);
		if (vm->vcpus[i]->schedstat_fd >= 0)
			close(vm->vcpus[i]->schedstat_fd);
		free(of(vm->vcpus[i]));
	}
	mem_free(vm->mem);
}

static void *run_thread(void *arg)
{
	struct script *s = arg;

	s->rc = soft_vcpu_run(&s->vcpu, &s->err);
	return NULL;
}

static void start(struct script *s)
{
	assert_int_equal(pthread_create(&s->thread, NULL, run_thread, s), 0);
}

static enum vcpu_exit join(struct script *s)
{
	assert_int_equal(pthread_join(s->thread, NULL), 0);
	return s->rc;
}

static void stop(struct script *s)
{
	soft_request(&s->vcpu, SOFT_REQ_EXIT);
}

static void nap_ms(long ms)
{
	struct timespec ts = {.tv_nsec = ms * 1000000};

	nanosleep(&ts, NULL);
}

/* ---- instructions ---- */

static void insn_jmp_self(struct script *s)
{
	(void)s;
}

static void insn_hlt(struct script *s)
{
	s->vcpu.is_halted = true;
}

/* Instruction 100 is STI; 200 ends the run. */
static void insn_sti_later(struct script *s)
{
	if (s->steps == 100) {
		s->vcpu.shadow = SHADOW_STI;
		soft_set_rflags(&s->vcpu, s->vcpu.rflags_sys | X86_FL_IF);
	}
	if (s->steps >= 200)
		stop(s);
}

static void insn_stop(struct script *s)
{
	stop(s);
}

static void insn_raise(struct script *s)
{
	if (s->exceptions == 3) {
		stop(s);
		return;
	}
	s->vcpu.exc.vector = X86_VEC_UD;
	siglongjmp(s->vcpu.unwind, 1);
}

static void insn_bug(struct script *s)
{
	snprintf(s->vcpu.error, sizeof(s->vcpu.error), "no such row");
	siglongjmp(s->vcpu.unwind, 2);
}

/* ---- tests ---- */

static void run_is_stopped_in_an_endless_loop_with_if_clear(void **state)
{
	struct engine_vm vm;
	struct script *s;

	(void)state;
	vm_init(&vm);
	s = script_new(&vm, 0, insn_jmp_self);
	start(s);
	nap_ms(2);
	stop(s);
	assert_int_equal(join(s), VCPU_EXIT_KICKED);
	assert_true(s->steps > 0);
	/* A kick before the run is not lost. */
	stop(s);
	assert_int_equal(soft_vcpu_run(&s->vcpu, NULL), VCPU_EXIT_KICKED);
	vm_fini(&vm);
}

static void run_is_stopped_in_a_halt_with_if_clear(void **state)
{
	struct engine_vm vm;
	struct script *s;

	(void)state;
	vm_init(&vm);
	s = script_new(&vm, 0, insn_hlt);
	start(s);
	nap_ms(2);
	soft_apic_msi(&vm, 0xfee00000, 0x41); /* cannot wake it: IF = 0 */
	nap_ms(2);
	stop(s);
	assert_int_equal(join(s), VCPU_EXIT_KICKED);
	assert_true(s->vcpu.is_halted);
	assert_int_equal(s->steps, 1);
	assert_int_equal(s->taken, 0);
	vm_fini(&vm);
}

static void run_holds_an_interrupt_until_sti_and_its_shadow(void **state)
{
	struct engine_vm vm;
	struct script *s;

	(void)state;
	vm_init(&vm);
	s = script_new(&vm, 0, insn_sti_later);
	soft_apic_msi(&vm, 0xfee00000, 0x41);
	assert_int_equal(soft_vcpu_run(&s->vcpu, NULL), VCPU_EXIT_KICKED);
	/* One instruction was stepped behind STI, and no kick was spun on. */
	assert_int_equal(s->ones, 1);
	assert_int_equal(s->taken, 1);
	assert_int_equal(s->last_vector, 0x41);
	vm_fini(&vm);
}

static void run_wakes_a_halt_for_the_timer_and_for_messages(void **state)
{
	struct engine_vm vm;
	struct script *s;

	(void)state;
	vm_init(&vm);
	s = script_new(&vm, 0, insn_stop);
	s->vcpu.is_halted = true;
	s->vcpu.rflags_sys |= X86_FL_IF;
	soft_apic_mmio_write(&s->vcpu, APIC_LVTT, 0x40050);
	soft_apic_wrmsr(&s->vcpu, X86_MSR_TSC_DEADLINE,
			soft_tsc(&s->vcpu) + vm.tsc_khz * 3);
	assert_int_equal(soft_vcpu_run(&s->vcpu, NULL), VCPU_EXIT_KICKED);
	assert_int_equal(s->taken, 1);
	assert_int_equal(s->last_vector, 0x50);

	soft_apic_mmio_write(&s->vcpu, APIC_EOI, 0);
	s->vcpu.is_halted = true;
	s->vcpu.rflags_sys |= X86_FL_IF;
	start(s);
	nap_ms(2);
	soft_apic_msi(&vm, 0xfee00000, 0x61);
	assert_int_equal(join(s), VCPU_EXIT_KICKED);
	assert_int_equal(s->last_vector, 0x61);
	vm_fini(&vm);
}

static void run_takes_an_nmi_with_if_clear_but_not_when_blocked(void **state)
{
	struct engine_vm vm;
	struct script *s;

	(void)state;
	vm_init(&vm);
	s = script_new(&vm, 0, insn_stop);
	s->vcpu.is_halted = true;
	soft_request(&s->vcpu, SOFT_REQ_NMI);
	assert_int_equal(soft_vcpu_run(&s->vcpu, NULL), VCPU_EXIT_KICKED);
	assert_int_equal(s->nmis, 1);
	assert_true(s->vcpu.nmi_blocked);
	soft_request(&s->vcpu, SOFT_REQ_NMI);
	assert_int_equal(soft_vcpu_run(&s->vcpu, NULL), VCPU_EXIT_KICKED);
	assert_int_equal(s->nmis, 1);
	s->vcpu.nmi_blocked = false; /* IRET */
	soft_after_if_change(&s->vcpu);
	assert_int_equal(soft_vcpu_run(&s->vcpu, NULL), VCPU_EXIT_KICKED);
	assert_int_equal(s->nmis, 2);
	vm_fini(&vm);
}

static void insn_iret(struct script *s)
{
	s->vcpu.nmi_blocked = false; /* IRET */
	soft_after_if_change(&s->vcpu);
	if (s->steps >= 10)
		stop(s);
}

static void run_keeps_two_nmis_and_one_behind_a_handler(void **state)
{
	struct engine_vm vm;
	struct script *s;

	(void)state;
	vm_init(&vm);
	s = script_new(&vm, 0, insn_iret);
	for (int i = 0; i < 3; i++)
		soft_request_nmi(&s->vcpu);
	assert_int_equal(soft_vcpu_run(&s->vcpu, NULL), VCPU_EXIT_KICKED);
	assert_int_equal(s->nmis, 2);
	s->steps = 0;
	s->vcpu.nmi_blocked = true;
	for (int i = 0; i < 3; i++)
		soft_request_nmi(&s->vcpu);
	assert_int_equal(soft_vcpu_run(&s->vcpu, NULL), VCPU_EXIT_KICKED);
	assert_int_equal(s->nmis, 3);
	vm_fini(&vm);
}

static void run_delivers_exceptions_and_goes_on(void **state)
{
	struct engine_vm vm;
	struct script *s;

	(void)state;
	vm_init(&vm);
	s = script_new(&vm, 0, insn_raise);
	assert_int_equal(soft_vcpu_run(&s->vcpu, NULL), VCPU_EXIT_KICKED);
	assert_int_equal(s->exceptions, 3);
	s->exceptions = 0;
	s->is_triple = true;
	assert_int_equal(soft_vcpu_run(&s->vcpu, NULL), VCPU_EXIT_SHUTDOWN);
	vm_fini(&vm);
}

static void run_reports_an_internal_error(void **state)
{
	struct engine_vm vm;
	struct script *s;
	struct err err = {0};

	(void)state;
	vm_init(&vm);
	s = script_new(&vm, 0, insn_bug);
	assert_int_equal(soft_vcpu_run(&s->vcpu, &err), VCPU_EXIT_ERROR);
	assert_string_equal(err.text, "vcpu 0: no such row");
	vm_fini(&vm);
}

static void run_starts_an_ap_only_by_sipi(void **state)
{
	struct engine_vm vm;
	struct script *bsp, *ap;

	(void)state;
	vm_init(&vm);
	bsp = script_new(&vm, 0, insn_stop);
	ap = script_new(&vm, 1, insn_stop);
	start(ap);
	nap_ms(2);
	assert_int_equal(ap->steps, 0);
	soft_apic_mmio_write(&bsp->vcpu, APIC_ICR2, 1 << 24);
	soft_apic_mmio_write(&bsp->vcpu, APIC_ICR, 0xc500);
	soft_apic_mmio_write(&bsp->vcpu, APIC_ICR, 0x0699);
	assert_int_equal(join(ap), VCPU_EXIT_KICKED);
	assert_int_equal(ap->vcpu.segs[X86_CS].sel, 0x9900);
	assert_int_equal(ap->vcpu.segs[X86_CS].base, 0x99000);
	assert_int_equal(ap->vcpu.rip, 0);
	assert_false(atomic_load(&ap->vcpu.is_waiting_sipi));
	vm_fini(&vm);
}

static void pause_parks_running_and_halted_vcpus(void **state)
{
	struct engine_vm vm;
	struct script *a, *b;

	(void)state;
	vm_init(&vm);
	a = script_new(&vm, 0, insn_jmp_self);
	b = script_new(&vm, 1, insn_jmp_self); /* waits for SIPI */
	start(a);
	start(b);
	nap_ms(1);
	for (int i = 0; i < 50; i++) {
		int steps;

		soft_pause_all(&vm, NULL);
		steps = a->steps;
		if (i == 0)
			nap_ms(2);
		assert_int_equal(a->steps, steps);
		soft_resume_all(&vm, NULL);
	}
	stop(a);
	stop(b);
	assert_int_equal(join(a), VCPU_EXIT_KICKED);
	assert_int_equal(join(b), VCPU_EXIT_KICKED);
	vm_fini(&vm);
}

static void state_round_trips(void **state)
{
	struct vcpu_state *a = calloc(2, sizeof(*a));
	struct engine_vm vm;
	struct script *s;
	u64 tsc;

	(void)state;
	assert_non_null(a);
	vm_init(&vm);
	s = script_new(&vm, 0, insn_stop);
	st_le32(s->vcpu.xsave + 24, 0x1f80);
	s->vcpu.gpr[7] = 0x1234;
	s->vcpu.lstar = 0xffffffff81000000ull;
	s->vcpu.is_halted = true;
	s->vcpu.nmi_blocked = true;
	soft_request(&s->vcpu, SOFT_REQ_NMI);
	soft_apic_msi(&vm, 0xfee00000, 0x41);
	assert_int_equal(soft_vcpu_get(&s->vcpu, &a[0], NULL), 0);
	assert_int_equal(a[0].regs.rdi, 0x1234);
	assert_int_equal(a[0].sregs.cs.base, 0xffff0000);
	assert_int_equal(a[0].mp_state.mp_state, KVM_MP_STATE_HALTED);
	soft_vcpu_reset(&s->vcpu, false);
	assert_int_equal(soft_vcpu_set(&s->vcpu, &a[0], NULL), 0);
	assert_int_equal(soft_vcpu_get(&s->vcpu, &a[1], NULL), 0);
	assert_int_equal(a[0].msrs[0].index, X86_MSR_TSC);
	tsc = a[1].msrs[0].data - a[0].msrs[0].data;
	assert_true(tsc < vm.tsc_khz * 1000); /* it went on */
	a[1].msrs[0].data = a[0].msrs[0].data;
	assert_memory_equal(&a[0], &a[1], sizeof(a[0]));
	assert_true(soft_apic_has_interrupt(&s->vcpu));
	vm_fini(&vm);
	free(a);
}

static void state_keeps_a_sipi_that_has_arrived(void **state)
{
	struct vcpu_state *a = calloc(1, sizeof(*a));
	struct engine_vm vm;
	struct script *bsp, *ap;

	(void)state;
	assert_non_null(a);
	vm_init(&vm);
	bsp = script_new(&vm, 0, insn_stop);
	ap = script_new(&vm, 1, insn_stop);
	st_le32(ap->vcpu.xsave + 24, 0x1f80);
	soft_apic_mmio_write(&bsp->vcpu, APIC_ICR2, 1 << 24);
	soft_apic_mmio_write(&bsp->vcpu, APIC_ICR, 0x0688);
	assert_int_equal(soft_vcpu_get(&ap->vcpu, a, NULL), 0);
	soft_vcpu_reset(&ap->vcpu, false);
	assert_int_equal(soft_vcpu_set(&ap->vcpu, a, NULL), 0);
	assert_int_equal(soft_vcpu_run(&ap->vcpu, NULL), VCPU_EXIT_KICKED);
	assert_int_equal(ap->vcpu.segs[X86_CS].sel, 0x8800);
	vm_fini(&vm);
	free(a);
}

/* Each row breaks one rule of an otherwise good state. */
#define BREAK(field, v)                                                        \
	{                                                                      \
		offsetof(struct vcpu_state, field),                            \
			sizeof(((struct vcpu_state *)0)->field), v             \
	}
static const struct {
	size_t offset, size;
	u64 value;
} breaks[] = {
	BREAK(regs.rflags, 0x8000),   /* reserved */
	BREAK(sregs.cr0, 0x80000000), /* PG without PE */
	BREAK(sregs.cr0, BIT64(40)),
	BREAK(sregs.cr4, X86_CR4_LA57),
	BREAK(sregs.cr4, X86_CR4_PCIDE), /* outside long mode */
	BREAK(sregs.cr3, BIT64(41)),
	BREAK(sregs.cr8, 16),
	BREAK(sregs.efer, X86_EFER_LMA),
	BREAK(sregs.efer, X86_EFER_SVME),
	BREAK(sregs.fs.base, BIT64(50)), /* not canonical */
	BREAK(sregs.gdt.base, BIT64(63)),
	BREAK(sregs.cs.base, BIT64(32)),
	BREAK(sregs.cs.unusable, 1),
	BREAK(sregs.apic_base, 0xfee00501),
	BREAK(xcrs.nr_xcrs, 0),
	BREAK(xcrs.xcrs[0].value, 2), /* no x87 */
	BREAK(xcrs.xcrs[0].value, BIT64(9) | 1),
	BREAK(xsave.region[128], BIT32(9)), /* XSTATE_BV */
	BREAK(xsave.region[130], 1),	    /* XCOMP_BV */
	BREAK(xsave.region[6], BIT32(16)),  /* MXCSR */
	BREAK(debugregs.dr7, BIT64(32)),
	BREAK(events.exception.injected, 1),
	BREAK(events.interrupt.injected, 1),
	BREAK(events.smi.smm, 1),
	BREAK(mp_state.mp_state, 99),
	BREAK(msr_count, VCPU_MSRS_MAX + 1),
	BREAK(msrs[0].index, 0xdead),
};

static void state_that_breaks_a_rule_is_refused_with_a_reason(void **state)
{
	struct vcpu_state *good = calloc(2, sizeof(*good)), *bad = good + 1;
	struct engine_vm vm;
	struct script *s;

	(void)state;
	assert_non_null(good);
	vm_init(&vm);
	s = script_new(&vm, 0, insn_stop);
	st_le32(s->vcpu.xsave + 24, 0x1f80);
	assert_int_equal(soft_vcpu_get(&s->vcpu, good, NULL), 0);
	assert_int_equal(soft_vcpu_set(&s->vcpu, good, NULL), 0);
	for (size_t i = 0; i < ARRAY_SIZE(breaks); i++) {
		struct err err = {0};

		*bad = *good;
		memcpy((u8 *)bad + breaks[i].offset, &breaks[i].value,
		       breaks[i].size);
		if (soft_vcpu_set(&s->vcpu, bad, &err) != -EINVAL)
			fail_msg("row %zu was accepted", i);
		assert_true(err.text[0]);
	}
	vm_fini(&vm);
	free(good);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			run_is_stopped_in_an_endless_loop_with_if_clear),
		cmocka_unit_test(run_is_stopped_in_a_halt_with_if_clear),
		cmocka_unit_test(
			run_holds_an_interrupt_until_sti_and_its_shadow),
		cmocka_unit_test(
			run_wakes_a_halt_for_the_timer_and_for_messages),
		cmocka_unit_test(
			run_takes_an_nmi_with_if_clear_but_not_when_blocked),
		cmocka_unit_test(run_keeps_two_nmis_and_one_behind_a_handler),
		cmocka_unit_test(run_delivers_exceptions_and_goes_on),
		cmocka_unit_test(run_reports_an_internal_error),
		cmocka_unit_test(run_starts_an_ap_only_by_sipi),
		cmocka_unit_test(pause_parks_running_and_halted_vcpus),
		cmocka_unit_test(state_round_trips),
		cmocka_unit_test(state_keeps_a_sipi_that_has_arrived),
		cmocka_unit_test(
			state_that_breaks_a_rule_is_refused_with_a_reason),
	};

	return test_run("vcpu", tests);
}
