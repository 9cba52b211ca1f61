/* SPDX-License-Identifier: Apache-2.0 */
/* The software engine's side of cpu/engine.h: VMs, vCPUs, and the probe. */
#include "soft/soft_int.h"

#include <cpuid.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "soft/lockstep.h"
#include "soft/xlat_int.h"
#include "x86/cpuid.h"

/* ---- probe ---- */

/* Native code written through one mapping must run through another. */
static const char *probe_exec(void)
{
	/* mov eax, 0x51ce; ret */
	static const u8 code[] = {0xb8, 0xce, 0x51, 0x00, 0x00, 0xc3};
	struct soft_codemem m;
	const char *why;
	int (*fn)(void);

	if (soft_codemem_open(&m, PAGE_BYTES, NULL) < 0)
		return "executable memory is not allowed here";
	memcpy(m.rw, code, sizeof(code));
	memcpy(&fn, &m.rx, sizeof(fn));
	why = fn() == 0x51ce ? NULL : "native code went wrong";
	soft_codemem_close(&m);
	return why;
}

static bool tsc_advances(void)
{
	u64 a = soft_host_tsc(), b = soft_host_tsc();

	for (int i = 0; i < 1000 && a == b; i++)
		b = soft_host_tsc();
	return b > a;
}

static void probe(struct engine_probe *out)
{
	u64 start = clock_mono_ns();
	const char *why = probe_exec();

	memset(out, 0, sizeof(*out));
	if (!why && !tsc_advances())
		why = "the host's time-stamp counter does not advance";
	if (!why && !__builtin_cpu_supports("sse2"))
		why = "the host has no SSE2";
	out->is_usable = !why;
	snprintf(out->reason, sizeof(out->reason), "%s",
		 why ? why
		 : __builtin_cpu_supports("avx2")
			 ? "native stubs run, with AVX2"
			 : "native stubs run, without AVX2");
	out->took_ns = clock_mono_ns() - start;
}

/* ---- memory listener ---- */

/* A change while vCPUs run: each drops its TLB before its next instruction
 * that looks at requests. Removing a slot under running vCPUs is the caller's
 * matter (mem.h): it stops them first. */
static void slot_changed(void *opaque, const struct mem_slot *slot, bool added)
{
	struct engine_vm *vm = opaque;

	if (vm->xlat)
		smc_slot_changed(vm->xlat, slot, added);
	for (u32 i = 0; i < VCPUS_MAX; i++)
		if (vm->vcpus[i])
			soft_request(vm->vcpus[i], SOFT_REQ_FLUSH);
}

static void ram_written(void *opaque, gpa_t gpa, u64 len)
{
	struct engine_vm *vm = opaque;

	atomic_fetch_add_explicit(&vm->device_writes, 1, memory_order_release);
	smc_written(vm, gpa, len);
}

/* ---- VM ---- */

static int copy_cpuid(struct engine_vm *vm, const struct kvm_cpuid2 *in,
		      struct err *err)
{
	size_t n;

	if (!in || in->nent > 1024)
		return err_set(err, -EINVAL, "no CPUID table");
	n = sizeof(*in) + in->nent * sizeof(in->entries[0]);
	vm->cpuid = malloc(n);
	if (!vm->cpuid)
		return err_set(err, -ENOMEM, "out of memory");
	memcpy(vm->cpuid, in, n);
	return 0;
}

static void read_cpuid(struct engine_vm *vm, u32 tsc_khz)
{
	const struct kvm_cpuid_entry2 *e;

	vm->features = x86_cpuid_isa(vm->cpuid);
	e = x86_cpuid_find(vm->cpuid, 0, 0);
	vm->is_amd = e && (e->ecx == 0x444d4163u /* AuthenticAMD */ ||
			   e->ecx == 0x656e6975u /* HygonGenuine */);
	e = x86_cpuid_find(vm->cpuid, 0x80000008, 0);
	vm->physical_address_bits = e ? e->eax & 0xff : 36;
	if (vm->physical_address_bits < 32 || vm->physical_address_bits > 52)
		vm->physical_address_bits = 36;
	e = x86_cpuid_find(vm->cpuid, 0x40000010, 0);
	vm->apic_bus_khz = e ? e->ebx : 0;
	if (vm->apic_bus_khz < 1000 || vm->apic_bus_khz > 4000000)
		vm->apic_bus_khz = 1000000;
	vm->tsc_khz = tsc_khz ? tsc_khz : soft_tsc_khz_measure();
	if (e && e->eax &&
	    (e->eax > vm->tsc_khz + vm->tsc_khz / 100 ||
	     e->eax < vm->tsc_khz - vm->tsc_khz / 100))
		log_warn("presented TSC is %u kHz, the host's is %llu kHz",
			 e->eax, (unsigned long long)vm->tsc_khz);
}

static void vm_destroy(struct engine_vm *vm)
{
	if (!vm)
		return;
	/* First: the timer thread looks at the vCPUs. */
	soft_timers_free(vm->timers);
	for (u32 i = 0; i < VCPUS_MAX; i++)
		ASSERT(!vm->vcpus[i]);
	if (vm->stubs)
		soft_stubs_free(vm->stubs);
	if (vm->mem)
		mem_set_listener(vm->mem, NULL);
	xlat_free(vm->xlat);
	free(vm->cpuid);
	pthread_mutex_destroy(&vm->pause_lock);
	free(vm);
}

#define CODE_BYTES (64 * MIB)

static int vm_create(const struct engine_vm_config *cfg,
		     struct engine_vm **out_vm, struct err *err)
{
	struct engine_vm *vm;
	int rc;

	if (cfg->vcpu_count < 1 || cfg->vcpu_count > VCPUS_MAX)
		return err_set(err, -EINVAL, "%u vCPUs: 1 to %u are possible",
			       cfg->vcpu_count, VCPUS_MAX);
	if (cfg->lockstep_every && cfg->vcpu_count > 1)
		return err_set(err, -EINVAL, "lockstep is for one vCPU");
	vm = calloc(1, sizeof(*vm));
	if (!vm)
		return err_set(err, -ENOMEM, "out of memory");
	vm->cfg = *cfg;
	vm->vcpu_count = cfg->vcpu_count;
	pthread_mutex_init(&vm->pause_lock, NULL);
	rc = copy_cpuid(vm, cfg->cpuid, err);
	if (rc < 0)
		goto fail;
	read_cpuid(vm, cfg->tsc_khz);
	vm->clock_base_tsc = soft_host_tsc();
	rc = soft_stubs_install_signals(err);
	if (rc < 0)
		goto fail;
	rc = -ENOMEM;
	vm->stubs = soft_stubs_new(err);
	if (!vm->stubs)
		goto fail;
	if (!cfg->no_translator) {
		vm->xlat = xlat_new(vm, CODE_BYTES, err);
		if (!vm->xlat)
			goto fail;
	}
	vm->timers = soft_timers_new(vm, err);
	if (!vm->timers)
		goto fail;
	vm->mem = cfg->mem;
	mem_set_listener(vm->mem,
			 &(struct mem_listener){.slot_changed = slot_changed,
						.written = ram_written,
						.opaque = vm});
	*out_vm = vm;
	return 0;
fail:
	vm_destroy(vm);
	return rc;
}

/* ---- vCPU ---- */

/* [guard page][stack of leaf calls][struct vcpu][user spaces][guard page]
 *
 * From struct vcpu on in huge pages: generated code looks into these tables at
 * each memory access, and the host's own TLB is small. */
#define STACK_BYTES  (256 * KIB)
#define HEAD_BYTES   (PAGE_BYTES + STACK_BYTES)
#define SPACES_START ALIGN_UP(sizeof(struct vcpu), 64)
#define TABLE_BYTES                                                            \
	ALIGN_UP(SPACES_START + SOFT_USER_SPACES * sizeof(struct soft_space),  \
		 PAGE_BYTES)
#define VCPU_SPAN  (HEAD_BYTES + TABLE_BYTES + PAGE_BYTES)
#define HUGE_BYTES (2 * MIB)

void soft_vcpu_release(struct vcpu *v)
{
	munmap((u8 *)v - HEAD_BYTES, VCPU_SPAN);
}

struct soft_space *soft_vcpu_space(struct vcpu *v, unsigned i)
{
	u8 *at = (u8 *)v + SPACES_START;

	return (struct soft_space *)at + i;
}

/* VCPU_SPAN bytes, HEAD_BYTES of them in front of a huge page's start. */
static u8 *map_vcpu(void)
{
	size_t size = VCPU_SPAN + HUGE_BYTES, before;
	u8 *p = mmap(NULL, size, PROT_NONE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	before = -((uintptr_t)p + HEAD_BYTES) & (HUGE_BYTES - 1);
	if (before)
		munmap(p, before);
	munmap(p + before + VCPU_SPAN, size - before - VCPU_SPAN);
	return p + before;
}

struct vcpu *soft_vcpu_alloc(void)
{
	u8 *p = map_vcpu();
	struct vcpu *v = (struct vcpu *)(p + HEAD_BYTES);

	if (!p)
		return NULL;
	if (mprotect(p + PAGE_BYTES, STACK_BYTES + TABLE_BYTES,
		     PROT_READ | PROT_WRITE) < 0) {
		munmap(p, VCPU_SPAN);
		return NULL;
	}
	(void)madvise(v, TABLE_BYTES, MADV_HUGEPAGE);
	v->users[0] = v->user = soft_vcpu_space(v, 0);
	v->super_now = &v->super;
	atomic_store(&v->go, SOFT_GO);
	return v;
}

static int vcpu_create(struct engine_vm *vm, u32 id, struct vcpu **out_vcpu,
		       struct err *err)
{
	struct vcpu *v;

	if (id >= vm->vcpu_count || vm->vcpus[id])
		return err_set(err, -EINVAL, "vCPU id %u is not free", id);
	v = soft_vcpu_alloc();
	if (!v)
		return err_sys(err, -errno, "allocate vCPU %u", id);
	v->id = id;
	v->vm = vm;
	v->features = vm->features;
	v->schedstat_fd = -1;
	pthread_mutex_init(&v->park_lock, NULL);
	pthread_cond_init(&v->park_cond, NULL);
	if (!soft_apic_new(v)) {
		soft_vcpu_release(v);
		return err_set(err, -ENOMEM, "out of memory");
	}
	if (vm->cfg.lockstep_every && vm->xlat) {
		v->lockstep = lockstep_new(vm->cfg.lockstep_every);
		if (!v->lockstep) {
			soft_apic_free(v->apic);
			soft_vcpu_release(v);
			return err_set(err, -ENOMEM, "out of memory");
		}
	}
	soft_vcpu_reset(v, false);
	vm->vcpus[id] = v;
	*out_vcpu = v;
	return 0;
}

static void vcpu_destroy(struct vcpu *v)
{
	if (!v)
		return;
	soft_timer_arm(v->vm->timers, v->id, SOFT_NEVER);
	v->vm->vcpus[v->id] = NULL;
	soft_icache_free(v);
	xlat_run_free(v);
	lockstep_free(v->lockstep);
	soft_apic_free(v->apic);
	if (v->schedstat_fd >= 0)
		close(v->schedstat_fd);
	pthread_cond_destroy(&v->park_cond);
	pthread_mutex_destroy(&v->park_lock);
	soft_vcpu_release(v);
}

static void vcpu_reset(struct vcpu *v)
{
	soft_vcpu_reset(v, false);
}

static void vcpu_kick(struct vcpu *v)
{
	soft_request(v, SOFT_REQ_EXIT);
}

static void set_extint(struct engine_vm *vm, bool level)
{
	atomic_store(&vm->extint, level);
	if (level && vm->vcpus[0])
		soft_request(vm->vcpus[0], SOFT_REQ_EXTINT);
}

static int inject_nmi(struct vcpu *v)
{
	soft_apic_lint1_nmi(v);
	return 0;
}

const struct engine_ops engine_soft = {
	.name = "soft",
	.probe = probe,
	.vm_create = vm_create,
	.vm_destroy = vm_destroy,
	.vcpu_create = vcpu_create,
	.vcpu_destroy = vcpu_destroy,
	.vcpu_reset = vcpu_reset,
	.vcpu_get = soft_vcpu_get,
	.vcpu_set = soft_vcpu_set,
	.vcpu_attach = soft_vcpu_attach,
	.vcpu_run = soft_vcpu_run,
	.vcpu_kick = vcpu_kick,
	.msi = soft_apic_msi,
	.set_extint = set_extint,
	.inject_nmi = inject_nmi,
	.stats = soft_stats,
};
