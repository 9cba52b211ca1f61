/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY
 *
 * KVM's paravirtual MSRs and hypercalls, as Linux uses them.
 *
 * kvmclock: system time is a linear function of the TSC, fixed when the VM is
 * made (clock_base_tsc is its zero), so every vCPU publishes the same line
 * and a page is written once, at the MSR write. A page says TSC_STABLE while
 * no vCPU has moved its TSC away from vCPU 0's.
 *
 * Steal time: the scheduler's run_delay of the vCPU's thread. The `preempted`
 * byte is set while the vCPU sleeps; a guest that wants its TLB flushed in
 * that time sets a flag there, which is taken before it runs again.
 *
 * PV EOI: the MSR is kept, but the guest's word is never set: an EOI costs
 * this engine a C call, so there is nothing to save. The interface allows it.
 *
 * Addresses in these MSRs are the guest's and hostile: writes go through
 * mem_write(), and a page that is not RAM is silently not written.
 * Source: Linux Documentation/virt/kvm/x86/{msr,hypercalls}.rst.
 */
#include "soft/soft_int.h"

#include <asm/kvm_para.h>
#include <errno.h>
#include <linux/kvm_para.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"

#define PV_ENABLED    BIT64(0)
#define STEAL_STEP_NS 1000000ull

static u32 pv_features(const struct vcpu *v)
{
	const struct kvm_cpuid2 *table = v->vm->cpuid;

	if (!table)
		return 0;
	for (u32 i = 0; i < table->nent; i++)
		if (table->entries[i].function == KVM_CPUID_FEATURES)
			return table->entries[i].eax;
	return 0;
}

static bool has_feature(const struct vcpu *v, unsigned bit)
{
	return pv_features(v) & BIT32(bit);
}

/* A write to a page that is not RAM has no effect. */
static void put(struct vcpu *v, gpa_t gpa, const void *src, size_t n)
{
	int rc = mem_write(v->vm->mem, gpa, src, n);

	(void)rc;
}

/* ---- kvmclock ---- */

/* ns = (tsc << shift) * mul >> 32, with mul as large as fits. */
static void clock_scale(u64 tsc_khz, u32 *out_mul, i8 *out_shift)
{
	u64 hz = tsc_khz * 1000;
	i8 shift = 0;

	while (hz > 2 * NS_PER_SEC) {
		hz >>= 1;
		shift--;
	}
	while (hz <= NS_PER_SEC) {
		hz <<= 1;
		shift++;
	}
	*out_mul = (u32)((NS_PER_SEC << 32) / hz);
	*out_shift = shift;
}

static u64 clock_now_ns(const struct vcpu *v)
{
	u64 delta = soft_host_tsc() - v->vm->clock_base_tsc;
	u32 mul;
	i8 shift;

	clock_scale(v->vm->tsc_khz, &mul, &shift);
	delta = shift < 0 ? delta >> -shift : delta << shift;
	return soft_muldiv(delta, mul, 1ull << 32);
}

static bool is_tsc_common(const struct vcpu *v)
{
	for (u32 i = 0; i < VCPUS_MAX; i++) {
		const struct vcpu *o = v->vm->vcpus[i];

		if (o && o->tsc_offset != v->tsc_offset)
			return false;
	}
	return true;
}

/* Readers retry while the version is odd or changed. The fences keep the
 * compiler from merging the stores; x86 keeps their order. */
static void put_versioned(struct vcpu *v, gpa_t gpa, gpa_t version_gpa,
			  u32 version, const void *body, size_t n)
{
	put(v, version_gpa, &version, sizeof(version));
	atomic_thread_fence(memory_order_seq_cst);
	put(v, gpa, body, n);
	atomic_thread_fence(memory_order_seq_cst);
	version++;
	put(v, version_gpa, &version, sizeof(version));
}

static u32 next_odd(struct vcpu *v, gpa_t version_gpa)
{
	u32 version = 0;

	if (mem_read(v->vm->mem, version_gpa, &version, sizeof(version)) < 0)
		version = 0;
	return (version | 1) + ((version & 1) ? 2 : 0);
}

static void write_system_time(struct vcpu *v)
{
	struct pvclock_vcpu_time_info {
		u32 version, pad0;
		u64 tsc_timestamp, system_time;
		u32 mul;
		i8 shift;
		u8 flags, pad[2];
	} t = {0};
	gpa_t gpa = v->pv_system_time & ~PV_ENABLED;

	_Static_assert(sizeof(t) == 32, "pvclock ABI");
	t.version = next_odd(v, gpa);
	t.tsc_timestamp = v->vm->clock_base_tsc + (u64)v->tsc_offset;
	clock_scale(v->vm->tsc_khz, &t.mul, &t.shift);
	t.flags = is_tsc_common(v) ? 1 : 0; /* PVCLOCK_TSC_STABLE_BIT */
	put_versioned(v, gpa, gpa, t.version, &t, sizeof(t));
}

static void write_wall_clock(struct vcpu *v)
{
	u64 boot = clock_wall_ns() - clock_now_ns(v);
	gpa_t gpa = v->pv_wall_clock;
	struct {
		u32 version, sec, nsec;
	} w = {
		.version = next_odd(v, gpa),
		.sec = (u32)(boot / NS_PER_SEC),
		.nsec = (u32)(boot % NS_PER_SEC),
	};

	put_versioned(v, gpa, gpa, w.version, &w, sizeof(w));
}

void soft_tsc_changed(struct vcpu *v)
{
	soft_apic_tsc_changed(v);
	if (v->pv_system_time & PV_ENABLED)
		write_system_time(v);
}

/* ---- steal time ---- */

static u64 run_delay_ns(struct vcpu *v)
{
	char text[96];
	unsigned long long run, delay;
	ssize_t n;

	if (v->schedstat_fd < 0)
		return 0;
	n = pread(v->schedstat_fd, text, sizeof(text) - 1, 0);
	if (n <= 0)
		return 0;
	text[n] = '\0';
	return sscanf(text, "%llu %llu", &run, &delay) == 2 ? delay : 0;
}

#define STEAL_VERSION	offsetof(struct kvm_steal_time, version)
#define STEAL_PREEMPTED offsetof(struct kvm_steal_time, preempted)

static gpa_t steal_gpa(const struct vcpu *v)
{
	return v->pv_steal_time & ~0x3full;
}

static void write_steal(struct vcpu *v)
{
	u64 now = clock_mono_ns(), delay, steal = 0;
	gpa_t gpa = steal_gpa(v);

	if (now < v->steal_next_ns)
		return;
	v->steal_next_ns = now + STEAL_STEP_NS;
	delay = run_delay_ns(v);
	if (v->steal_base_ns == UINT64_MAX)
		v->steal_base_ns = delay; /* a new thread counts from here */
	if (delay <= v->steal_base_ns)
		return;
	if (mem_read(v->vm->mem, gpa, &steal, sizeof(steal)) < 0)
		return;
	steal += delay - v->steal_base_ns;
	v->steal_base_ns = delay;
	put_versioned(v, gpa, gpa + STEAL_VERSION,
		      next_odd(v, gpa + STEAL_VERSION), &steal, sizeof(steal));
}

/* ---- end of interrupt ---- */

static _Atomic u8 *eoi_byte(struct vcpu *v)
{
	if (!(v->pv_eoi & PV_ENABLED))
		return NULL;
	return mem_hva(v->vm->mem, v->pv_eoi & ~3ull, 1, true);
}

bool soft_pv_eoi_set(struct vcpu *v)
{
	_Atomic u8 *p = eoi_byte(v);

	if (!p)
		return false;
	atomic_fetch_or(p, 1);
	mem_written(v->vm->mem, v->pv_eoi & ~3ull, 1);
	return true;
}

bool soft_pv_eoi_clear(struct vcpu *v)
{
	_Atomic u8 *p = eoi_byte(v);

	if (!p || !(atomic_fetch_and(p, 0xfe) & 1))
		return false;
	mem_written(v->vm->mem, v->pv_eoi & ~3ull, 1);
	return true;
}

/* ---- steal time, continued: the guest sees when a vCPU does not run ---- */

static _Atomic u8 *preempted_byte(struct vcpu *v)
{
	if (!(v->pv_steal_time & PV_ENABLED))
		return NULL;
	return mem_hva(v->vm->mem, steal_gpa(v) + STEAL_PREEMPTED, 1, true);
}

void soft_pv_leave(struct vcpu *v)
{
	_Atomic u8 *p = preempted_byte(v);
	u8 running = 0;

	if (!p)
		return;
	atomic_compare_exchange_strong(p, &running, KVM_VCPU_PREEMPTED);
	mem_written(v->vm->mem, steal_gpa(v) + STEAL_PREEMPTED, 1);
}

void soft_pv_enter(struct vcpu *v)
{
	_Atomic u8 *p = preempted_byte(v);

	if (!p)
		return;
	/* In place of an IPI to a sleeping vCPU: what changed is a process's
	 * address space, and nothing of that is global. */
	if (atomic_load(p) && (atomic_exchange(p, 0) & KVM_VCPU_FLUSH_TLB))
		soft_tlb_flush(v, true);
	mem_written(v->vm->mem, steal_gpa(v) + STEAL_PREEMPTED, 1);
	write_steal(v);
}

void soft_pv_reset(struct vcpu *v)
{
	v->pv_system_time = 0;
	v->pv_wall_clock = 0;
	v->pv_steal_time = 0;
	v->pv_eoi = 0;
	v->pv_poll_control = 1;
	v->steal_next_ns = 0;
	atomic_store(&v->pv_kicked, false);
}

/* ---- MSRs ---- */

bool soft_pv_rdmsr(struct vcpu *v, u32 index, u64 *out)
{
	u64 value;
	unsigned feature;

	switch (index) {
	case MSR_KVM_WALL_CLOCK:
		value = v->pv_wall_clock;
		feature = KVM_FEATURE_CLOCKSOURCE;
		break;
	case MSR_KVM_WALL_CLOCK_NEW:
		value = v->pv_wall_clock;
		feature = KVM_FEATURE_CLOCKSOURCE2;
		break;
	case MSR_KVM_SYSTEM_TIME:
		value = v->pv_system_time;
		feature = KVM_FEATURE_CLOCKSOURCE;
		break;
	case MSR_KVM_SYSTEM_TIME_NEW:
		value = v->pv_system_time;
		feature = KVM_FEATURE_CLOCKSOURCE2;
		break;
	case MSR_KVM_STEAL_TIME:
		value = v->pv_steal_time;
		feature = KVM_FEATURE_STEAL_TIME;
		break;
	case MSR_KVM_PV_EOI_EN:
		value = v->pv_eoi;
		feature = KVM_FEATURE_PV_EOI;
		break;
	case MSR_KVM_POLL_CONTROL:
		value = v->pv_poll_control;
		feature = KVM_FEATURE_POLL_CONTROL;
		break;
	default:
		return false;
	}
	if (!has_feature(v, feature))
		return false;
	*out = value;
	return true;
}

static bool write_steal_msr(struct vcpu *v, u64 value)
{
	if (value & 0x3e)
		return false;
	v->pv_steal_time = value;
	if (value & PV_ENABLED) {
		v->steal_base_ns = run_delay_ns(v);
		v->steal_next_ns = 0;
	}
	return true;
}

static bool write_clock_msr(struct vcpu *v, u64 value)
{
	v->pv_system_time = value;
	if (value & PV_ENABLED)
		write_system_time(v);
	return true;
}

bool soft_pv_wrmsr(struct vcpu *v, u32 index, u64 value)
{
	u64 old;

	if (!soft_pv_rdmsr(v, index, &old))
		return false;
	switch (index) {
	case MSR_KVM_WALL_CLOCK:
	case MSR_KVM_WALL_CLOCK_NEW:
		v->pv_wall_clock = value;
		if (value)
			write_wall_clock(v);
		return true;
	case MSR_KVM_SYSTEM_TIME:
	case MSR_KVM_SYSTEM_TIME_NEW:
		return write_clock_msr(v, value);
	case MSR_KVM_STEAL_TIME:
		return write_steal_msr(v, value);
	case MSR_KVM_PV_EOI_EN:
		if (value & 2)
			return false;
		soft_apic_pv_eoi_settle(v->apic);
		v->pv_eoi = value;
		return true;
	case MSR_KVM_POLL_CONTROL:
		if (value & ~1ull)
			return false;
		v->pv_poll_control = value;
		return true;
	default:
		return false;
	}
}

/* ---- hypercalls ---- */

static i64 kick_cpu(struct vcpu *v, u64 apic_id)
{
	struct vcpu *o = apic_id < VCPUS_MAX ? v->vm->vcpus[apic_id] : NULL;

	if (o) {
		atomic_store(&o->pv_kicked, true);
		soft_request(o, SOFT_REQ_INTR);
	}
	return 0;
}

static i64 send_ipi(struct vcpu *v, const u64 a[4], bool is_64)
{
	u32 word_bits = is_64 ? 64 : 32;
	u64 words[2] = {a[0], a[1]};
	u32 icr = (u32)a[3];
	i64 sent = 0;

	/* Only what Linux sends: fixed or NMI, no shorthand. */
	if (((icr >> 8) & 7) != 0 && ((icr >> 8) & 7) != 4)
		return -KVM_EINVAL;
	if (a[2] >= VCPUS_MAX)
		return 0;
	for (u32 w = 0; w < 2; w++)
		for (u32 b = 0; b < word_bits; b++)
			if ((words[w] >> b & 1) &&
			    soft_apic_pv_ipi(
				    v->vm, (u32)a[2] + w * word_bits + b, icr))
				sent++;
	return sent;
}

static i64 hypercall(struct vcpu *v, u64 nr, const u64 a[4], bool is_64)
{
	if (v->cpl != 0)
		return -KVM_EPERM;
	switch (nr) {
	case KVM_HC_VAPIC_POLL_IRQ:
		return 0;
	case KVM_HC_KICK_CPU:
		if (!has_feature(v, KVM_FEATURE_PV_UNHALT))
			return -KVM_ENOSYS;
		return kick_cpu(v, a[1]);
	case KVM_HC_SEND_IPI:
		if (!has_feature(v, KVM_FEATURE_PV_SEND_IPI))
			return -KVM_ENOSYS;
		return send_ipi(v, a, is_64);
	case KVM_HC_SCHED_YIELD:
		if (!has_feature(v, KVM_FEATURE_PV_SCHED_YIELD))
			return -KVM_ENOSYS;
		sched_yield();
		return 0;
	default: /* KVM_HC_CLOCK_PAIRING among them */
		return -KVM_ENOSYS;
	}
}

void soft_pv_hypercall(struct vcpu *v)
{
	bool is_64 = v->code_mode == X86_MODE_64;
	u64 mask = is_64 ? ~0ull : 0xffffffffull;
	/* RBX RCX RDX RSI */
	u64 a[4] = {v->gpr[3] & mask, v->gpr[1] & mask, v->gpr[2] & mask,
		    v->gpr[6] & mask};

	v->gpr[0] = (u64)hypercall(v, v->gpr[0] & mask, a, is_64) & mask;
}
