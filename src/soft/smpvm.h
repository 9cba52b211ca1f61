/* SPDX-License-Identifier: Apache-2.0 */
/* A machine with one to four vCPUs in 64-bit mode that run on threads of their
 * own, for tests of what a guest sees and what the host keeps (include
 * test/test.h first). Guest programs are assembled into the test with
 * SMP_CODE and copied into RAM; they must not depend on where they are.
 *
 * Linear addresses below 8 MiB are RAM offsets; those from 8 to 16 MiB are the
 * same RAM again; the APIC's page is mapped. IF is clear at the start. A
 * program that has ended says so with SMP_DONE.
 */
#pragma once

#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "soft/slotsvm.h"
#include "soft/apic_int.h"
#include "soft/soft_int.h"
#include "x86/cpuid.h"

#define SMP_VCPUS 4
#define SMP_RAM	  (8 * MIB)
#define SMP_ALIAS (8 * MIB)
#define SMP_GDT	  0x1000
#define SMP_IDT	  0x2000
#define SMP_PML4  0x4000  /* and PDPT, PD, PD of the fourth GiB */
#define SMP_ENDED 0x9000  /* u32: programs that have ended */
#define SMP_STACK 0x10000 /* top of vCPU 0's; 4 KiB each */
#define SMP_CODE0 0x20000 /* vCPU 0's program; 64 KiB each, for three */
#define SMP_PATCH 0x50000 /* for tests that modify code */
#define SMP_TRAP  0x60000 /* handlers of a test */
#define SMP_VARS  0x80000
#define SMP_SEEN0 0x200000 /* u32 per round, by vCPU 0 */
#define SMP_SEEN1 0x400000

/* A guest program as host data: name .. name_end. */
#define SMP_CODE(name, text)                                                   \
	extern const u8 name[], name##_end[];                                  \
	__asm__(".pushsection .rodata\n"                                       \
		".globl " #name "\n" #name ":\n" text "\n"                     \
		".globl " #name "_end\n" #name "_end:\n"                       \
		".popsection\n")
#define SMP_DONE "lock incl 0x9000\n 99: hlt\n jmp 99b\n"

struct smp_thread {
	struct smpvm *t;
	u32 id;
};

struct smpvm {
	struct mem *mem;
	struct kvm_cpuid2 *cpuid;
	struct engine_vm *vm;
	struct vcpu *v[SMP_VCPUS];
	u32 n;
	u8 *ram;
	pthread_t threads[SMP_VCPUS];
	struct smp_thread args[SMP_VCPUS];
	enum vcpu_exit exits[SMP_VCPUS];
	struct err errs[SMP_VCPUS];
};

/* As a device writes: what was translated from there is forgotten. */
static inline void smp_load(struct smpvm *t, gpa_t at, const u8 *code,
			    const u8 *end)
{
	assert_int_equal(mem_write(t->mem, at, code, (size_t)(end - code)), 0);
}
#define SMP_LOAD(t, at, name) smp_load(t, at, name, name##_end)

static inline u32 smp_ld32(struct smpvm *t, gpa_t at)
{
	return __atomic_load_n((u32 *)(t->ram + at), __ATOMIC_ACQUIRE);
}

static inline void smp_gate(struct smpvm *t, u8 vector, u64 handler)
{
	st_le64(t->ram + SMP_IDT + vector * 16,
		(handler & 0xffff) | 0x8e0000080000ull |
			(handler & 0xffff0000) << 32);
}

static inline void smp_tables(struct smpvm *t)
{
	st_le64(t->ram + SMP_PML4, (SMP_PML4 + 0x1000) | 7);
	st_le64(t->ram + SMP_PML4 + 0x1000, (SMP_PML4 + 0x2000) | 7);
	st_le64(t->ram + SMP_PML4 + 0x1018, (SMP_PML4 + 0x3000) | 7);
	for (u64 i = 0; i < 8; i++)
		st_le64(t->ram + SMP_PML4 + 0x2000 + i * 8,
			(i & 3) * 2 * MIB | 0x87);
	st_le64(t->ram + SMP_PML4 + 0x3000 + 0x1f7 * 8, 0xfee00000 | 0x97);
	st_le64(t->ram + SMP_GDT + 0x08, 0x00af9b000000ffff);
	st_le64(t->ram + SMP_GDT + 0x10, 0x00cf93000000ffff);
}

static inline void smp_vcpu_init(struct smpvm *t, u32 id)
{
	struct err err = {0};
	struct vcpu *v;

	assert_int_equal(engine_soft.vcpu_create(t->vm, id, &t->v[id], &err),
			 0);
	v = t->v[id];
	atomic_store(&v->is_waiting_sipi, false);
	v->gdtr = (struct soft_table){.base = SMP_GDT, .limit = 0x17};
	v->idtr = (struct soft_table){.base = SMP_IDT, .limit = 0xfff};
	v->cr0 |= X86_CR0_PE | X86_CR0_PG;
	v->cr3 = SMP_PML4;
	v->cr4 |= X86_CR4_PAE | X86_CR4_OSFXSR;
	v->efer |= X86_EFER_LME | X86_EFER_LMA;
	for (unsigned i = 0; i < 6; i++)
		v->segs[i] = (struct soft_seg){
			.sel = 16, .limit = ~0u, .attr = 0xc093};
	v->segs[X86_CS] =
		(struct soft_seg){.sel = 8, .limit = ~0u, .attr = 0xa09b};
	v->gpr[X86_RSP] = SMP_STACK + id * 0x1000;
	v->rip = SMP_CODE0 + id * 0x10000;
	soft_mode_changed(v);
	soft_tlb_flush(v, false);
}

static inline struct smpvm *smp_new(u32 n)
{
	struct x86_cpuid_config cc = {.vcpu_count = n, .tsc_khz = 1000000};
	struct smpvm *t = calloc(1, sizeof(*t));
	struct mem_slot slot = {.size = SMP_RAM};
	struct engine_vm_config cfg = {.vcpu_count = n};
	struct err err = {0};

	assert_non_null(t);
	t->n = n;
	t->mem = mem_new();
	t->ram = mmap(NULL, SMP_RAM, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_true(t->ram != MAP_FAILED);
	slot.hva = t->ram;
	assert_int_equal(mem_slot_add(t->mem, &slot, &err), 0);
	assert_int_equal(x86_cpuid_build(&cc, &t->cpuid, &err), 0);
	cfg.mem = t->mem;
	cfg.cpuid = t->cpuid;
	assert_int_equal(engine_soft.vm_create(&cfg, &t->vm, &err), 0);
	slots_force_by_env(t->vm);
	smp_tables(t);
	for (u32 i = 0; i < n; i++)
		smp_vcpu_init(t, i);
	return t;
}

static inline void smp_free(struct smpvm *t)
{
	for (u32 i = 0; i < t->n; i++)
		engine_soft.vcpu_destroy(t->v[i]);
	engine_soft.vm_destroy(t->vm);
	mem_free(t->mem);
	free(t->cpuid);
	munmap(t->ram, SMP_RAM);
	free(t);
}

static inline void *smp_thread_main(void *arg)
{
	struct smp_thread *th = arg;
	struct smpvm *t = th->t;

	t->exits[th->id] = engine_soft.vcpu_run(t->v[th->id], &t->errs[th->id]);
	return NULL;
}

static inline void smp_start(struct smpvm *t)
{
	for (u32 i = 0; i < t->n; i++) {
		t->args[i] = (struct smp_thread){t, i};
		assert_int_equal(pthread_create(&t->threads[i], NULL,
						smp_thread_main, &t->args[i]),
				 0);
	}
}

static inline void smp_sleep_ms(unsigned ms)
{
	struct timespec ts = {ms / 1000, ms % 1000 * 1000000l};

	nanosleep(&ts, NULL);
}

/* Kicks every vCPU; each must return KICKED (a triple fault is SHUTDOWN). A
 * vCPU that cannot be kicked hangs here: the harness ends the test. */
static inline void smp_stop(struct smpvm *t)
{
	for (u32 i = 0; i < t->n; i++)
		engine_soft.vcpu_kick(t->v[i]);
	for (u32 i = 0; i < t->n; i++)
		pthread_join(t->threads[i], NULL);
	for (u32 i = 0; i < t->n; i++)
		if (t->exits[i] != VCPU_EXIT_KICKED)
			fail_msg("vcpu %u: exit %d at %#llx: %s", i,
				 t->exits[i], (unsigned long long)t->v[i]->rip,
				 t->errs[i].text);
}

/* Waits until the u32 at `at` is at least `value`; false after timeout_ms. */
static inline bool smp_wait(struct smpvm *t, gpa_t at, u32 value,
			    unsigned timeout_ms)
{
	u64 end = clock_mono_ns() + timeout_ms * 1000000ull;

	while (smp_ld32(t, at) < value) {
		if (clock_mono_ns() > end)
			return false;
		smp_sleep_ms(1);
	}
	return true;
}

/* Runs the programs to their ends. */
static inline void smp_run(struct smpvm *t)
{
	bool is_done;

	smp_start(t);
	is_done = smp_wait(t, SMP_ENDED, t->n, 60000);
	smp_stop(t);
	assert_true(is_done);
}
