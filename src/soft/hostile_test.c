// SPDX-License-Identifier: Apache-2.0
/* What a guest cannot do to the process that runs it: no memory of the
 * process is writable and executable, host addresses are nothing to a guest,
 * and a vCPU can always be stopped. */
#include "test/test.h"

#include "soft/interp_int.h"
#include "soft/smpvm.h"
#include "soft/xlat.h"

/* ---- protection of mappings ---- */

struct mapping {
	uintptr_t start, end;
	char perms[5];
};

/* Looks each mapping of the process up; fails on one that is W and X. */
static struct mapping mapping_of(const void *p)
{
	FILE *f = fopen("/proc/self/maps", "re");
	struct mapping found = {0}, m;
	char line[4400];

	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		assert_int_equal(
			sscanf(line, "%lx-%lx %4s", &m.start, &m.end, m.perms),
			3);
		if (m.perms[1] == 'w' && m.perms[2] == 'x')
			fail_msg("writable and executable: %s", line);
		if ((uintptr_t)p >= m.start && (uintptr_t)p < m.end)
			found = m;
	}
	fclose(f);
	assert_true(found.end);
	return found;
}

/* addps and friends: run by a native stub. */
SMP_CODE(uses_stubs, "mov $1000, %ecx\n 1: paddd %xmm0, %xmm1\n"
		     "mulps %xmm1, %xmm2\n dec %ecx\n jnz 1b\n" SMP_DONE);

static void hostile_38_no_mapping_is_writable_and_executable(void **state)
{
	struct smpvm *t = smp_new(1);
	struct soft_code_region r;

	(void)state;
	SMP_LOAD(t, SMP_CODE0, uses_stubs);
	smp_run(t);
	assert_string_equal(mapping_of(xlat_code_rx(t->vm->xlat)).perms,
			    "r-xs");
	assert_string_equal(mapping_of(xlat_code_rw(t->vm->xlat)).perms,
			    "rw-s");
	r = soft_stubs_region(t->vm->stubs, 0);
	assert_string_equal(mapping_of(r.rx).perms, "r-xs");
	assert_string_equal(mapping_of(r.rw).perms, "rw-s");
	assert_string_equal(mapping_of(t->ram).perms, "rw-p");
	assert_string_equal(mapping_of(t->v[0]).perms, "rw-p");
	assert_string_equal(mapping_of(t->v[0]->icache).perms, "rw-p");
	smp_free(t);
}

/* ---- addresses that mean something to the host ---- */

#define PROBE_VA 0x40000000 /* a page of its own, PT at 0x70000 */

SMP_CODE(probe_load, "mov (%rsi), %rax\n");
SMP_CODE(probe_store, "mov %rax, (%rsi)\n");
SMP_CODE(probe_add, "add %rax, (%rsi)\n");
SMP_CODE(probe_lock, "lock xadd %rax, (%rsi)\n");
SMP_CODE(probe_sse_load, "movdqu (%rsi), %xmm0\n");
SMP_CODE(probe_sse_store, "movdqu %xmm0, (%rsi)\n");
SMP_CODE(probe_stub, "paddd (%rsi), %xmm0\n");
SMP_CODE(probe_lods, "lodsq\n");
SMP_CODE(probe_push, "pushq (%rsi)\n");
SMP_CODE(probe_fxsave, "fxsave (%rsi)\n");
SMP_CODE(probe_lgdt, "lgdt (%rsi)\n");
SMP_CODE(probe_jump, "jmp *%rsi\n");

static const struct {
	const char *name;
	const u8 *code, *end;
	bool is_aligned, is_jump;
} probes[] = {
	{"load", probe_load, probe_load_end},
	{"store", probe_store, probe_store_end},
	{"add", probe_add, probe_add_end},
	{"lock xadd", probe_lock, probe_lock_end},
	{"movdqu load", probe_sse_load, probe_sse_load_end},
	{"movdqu store", probe_sse_store, probe_sse_store_end},
	{"paddd", probe_stub, probe_stub_end, true},
	{"lods", probe_lods, probe_lods_end},
	{"push", probe_push, probe_push_end},
	{"fxsave", probe_fxsave, probe_fxsave_end, true},
	{"lgdt", probe_lgdt, probe_lgdt_end},
	{"jmp", probe_jump, probe_jump_end, false, true},
};

#define CANARY 0x5ec2e7da7a5ec2e7ull

/* One instruction on linear address va: the vector it raises, or -1. */
static int probe_at(struct smpvm *t, size_t k, u64 va)
{
	struct vcpu *v = t->v[0];
	volatile int vector = -1;

	smp_load(t, SMP_CODE0, probes[k].code, probes[k].end);
	v->rip = SMP_CODE0;
	v->gpr[X86_RSI] = va;
	v->gpr[X86_RAX] = 1;
	v->gpr[X86_RSP] = SMP_STACK;
	soft_fpu_enter(v);
	v->fpu_loaded = true;
	if (!sigsetjmp(v->unwind, 0)) {
		soft_interp_one(v);
		if (probes[k].is_jump) /* the fetch faults */
			soft_interp_one(v);
	} else {
		vector = v->exc.vector;
	}
	soft_fpu_leave(v);
	v->fpu_loaded = false;
	return vector;
}

static void expect_fault(struct smpvm *t, u64 va, const u64 *canary)
{
	for (size_t k = 0; k < ARRAY_SIZE(probes); k++) {
		int vector;

		if (probes[k].is_aligned)
			va &= ~15ull;
		vector = probe_at(t, k, va);
		if (vector != X86_VEC_PF && vector != X86_VEC_GP)
			fail_msg("%s at %#llx: %d", probes[k].name,
				 (unsigned long long)va, vector);
		assert_int_equal(t->v[0]->gpr[X86_RAX], 1);
		for (int i = 0; i < 512; i++)
			assert_true(canary[i] == CANARY);
	}
}

static u64 *canary_new(void)
{
	u64 *p = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_true(p != MAP_FAILED);
	for (int i = 0; i < 512; i++)
		p[i] = CANARY;
	return p;
}

static void hostile_35_36_host_addresses_fault_in_the_guest(void **state)
{
	struct smpvm *t = smp_new(1);
	struct soft_code_region r = soft_stubs_region(t->vm->stubs, 0);
	u64 *canary = canary_new(), ram = (uintptr_t)t->ram;
	const u64 bases[] = {
		(uintptr_t)canary,
		(uintptr_t)t->v[0],
		(uintptr_t)t->v[0]->icache,
		(uintptr_t)t->vm,
		(uintptr_t)r.rx,
		(uintptr_t)r.rw,
		(uintptr_t)&t,
		(uintptr_t)probes,
		ram,
		ram + SMP_RAM,
		ram + BIT64(31),
		ram - BIT64(31),
		(uintptr_t)canary - ram,
		16 * MIB, /* behind what is mapped */
		BIT64(31),
		BIT64(32),
		BIT64(47) - PAGE_BYTES,
		BIT64(47),
		-BIT64(47) - PAGE_BYTES,
		-BIT64(47),
		-(u64)PAGE_BYTES,
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bases); i++) {
		if (bases[i] < 16 * MIB) /* RAM of the guest */
			continue;
		expect_fault(t, bases[i], canary);
		expect_fault(t, bases[i] + 16, canary);
		expect_fault(t, bases[i] + PAGE_BYTES - 32, canary);
	}
	munmap(canary, PAGE_BYTES);
	smp_free(t);
}

/* A guest may map any physical address; what is not RAM reads as ones. */
static void hostile_35_36_physical_addresses_reach_ram_only(void **state)
{
	struct smpvm *t = smp_new(1);
	struct vcpu *v = t->v[0];
	u64 *canary = canary_new(), ram = (uintptr_t)t->ram;
	u64 top = BIT64(t->vm->physical_address_bits);
	const u64 gpas[] = {
		SMP_RAM,       (uintptr_t)canary - ram,
		ram - SMP_RAM, (uintptr_t)v - ram,
		BIT64(31),     (uintptr_t)canary,
		BIT64(32),     top - PAGE_BYTES,
	};

	(void)state;
	st_le64(t->ram + SMP_PML4 + 0x1008, 0x71000 | 7);
	st_le64(t->ram + 0x71000, 0x70000 | 7);
	for (size_t i = 0; i < ARRAY_SIZE(gpas); i++) {
		u64 gpa = gpas[i] & (top - PAGE_BYTES);

		if (gpa < SMP_RAM || gpa >> 21 == 0xfee00000u >> 21)
			continue;
		st_le64(t->ram + 0x70000, gpa | 7);
		soft_tlb_flush(v, false);
		for (size_t k = 0; k < 4; k++) {
			assert_int_equal(probe_at(t, k, PROBE_VA + 8), -1);
			if (k == 0)
				assert_int_equal(v->gpr[X86_RAX], ~0ull);
			for (int j = 0; j < 512; j++)
				assert_true(canary[j] == CANARY);
		}
	}
	munmap(canary, PAGE_BYTES);
	smp_free(t);
}

/* ---- a vCPU that does not want to stop ---- */

SMP_CODE(spin, "incl 0x9000\n 1: jmp 1b\n");
SMP_CODE(halt, "incl 0x9000\n 1: hlt\n jmp 1b\n");
SMP_CODE(string, "incl 0x9000\n 1: mov $0x200000, %edi\n mov $-1, %rcx\n"
		 "xor %eax, %eax\n mov $0x200000, %ecx\n rep stosb\n jmp 1b\n");
SMP_CODE(storm, "incl 0x9000\n sti\n 1: incl 0x80000\n jmp 1b\n");
SMP_CODE(storm_handler, "incl 0x80040\n mov $0xfee000b0, %eax\n"
			"movl $0, (%rax)\n iretq\n");

/* < 1 ms is promised; this much allows for a busy host. */
#define STOP_NS 500000000ull

static void expect_stop(struct smpvm *t)
{
	u64 start;

	smp_start(t);
	assert_true(smp_wait(t, SMP_ENDED, 1, 20000));
	smp_sleep_ms(50);
	start = clock_mono_ns();
	smp_stop(t);
	assert_true(clock_mono_ns() - start < STOP_NS);
}

static void hostile_48_endless_guests_are_stopped(void **state)
{
	static const struct {
		const u8 *code, *end;
	} rows[] = {{spin, spin_end}, {halt, halt_end}, {string, string_end}};

	(void)state;
	for (size_t k = 0; k < ARRAY_SIZE(rows); k++) {
		struct smpvm *t = smp_new(1);

		smp_load(t, SMP_CODE0, rows[k].code, rows[k].end);
		expect_stop(t);
		smp_free(t);
	}
}

static void hostile_47_timer_storm_leaves_guest_and_host_going(void **state)
{
	struct smpvm *t = smp_new(1);
	struct vcpu *v = t->v[0];

	(void)state;
	SMP_LOAD(t, SMP_CODE0, storm);
	SMP_LOAD(t, SMP_TRAP, storm_handler);
	smp_gate(t, 0x40, SMP_TRAP);
	soft_apic_mmio_write(v, APIC_SVR, 0x1ff);
	soft_apic_mmio_write(v, APIC_LVTT, BIT32(17) | 0x40);
	soft_apic_mmio_write(v, APIC_TDCR, 0xb); /* divide by 1 */
	soft_apic_mmio_write(v, APIC_TMICT, 1);
	expect_stop(t);
	assert_true(smp_ld32(t, 0x80000) > 1);
	assert_true(smp_ld32(t, 0x80040) > 1);
	smp_free(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			hostile_38_no_mapping_is_writable_and_executable),
		cmocka_unit_test(
			hostile_35_36_host_addresses_fault_in_the_guest),
		cmocka_unit_test(
			hostile_35_36_physical_addresses_reach_ram_only),
		cmocka_unit_test(hostile_48_endless_guests_are_stopped),
		cmocka_unit_test(
			hostile_47_timer_storm_leaves_guest_and_host_going),
	};

	return test_run("hostile", tests);
}
