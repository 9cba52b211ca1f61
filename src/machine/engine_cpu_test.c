/* SPDX-License-Identifier: Apache-2.0 */
/* What micro-guests see of the CPU itself, under both engines alike: modes,
 * CPUID, MSRs, exceptions, halts, kicks, the end. */
#include "test/test.h"

#include <stdlib.h>
#include <time.h>

#include "machine/microvm.h"
#include "x86/regs.h"

/* Both, with the given preparation of RAM. */
static void run_long(const u8 *code, const u8 *end,
		     void (*prepare)(struct micro *m), struct micro_pair *p)
{
	struct micro *each[2];

	micro_pair_new(p, 1);
	each[0] = p->kvm;
	each[1] = p->soft;
	for (int i = 0; i < 2; i++) {
		micro_load(each[i], MICRO_LONG, code, end);
		if (prepare)
			prepare(each[i]);
		micro_run_to_stop(each[i]);
	}
	micro_compare(p);
}

/* ---- modes ---- */

MICRO_GUEST(modes, 16,
	    "lgdt ds:[4f - modes + 0x4000]\n"
	    "mov eax, cr0\n or al, 1\n mov cr0, eax\n"
	    ".byte 0xea\n .word 1f - modes + 0x4000, 8\n" /* jmp 8:1f */
	    ".code32\n 1: mov ax, 0x10\n mov ds, ax\n mov es, ax\n"
	    "mov ss, ax\n mov esp, 0x8000\n"
	    "mov dword ptr ds:[0x20000], 0x32323232\n"
	    "mov eax, cr4\n or al, 0x20\n mov cr4, eax\n"
	    "mov eax, 0x10000\n mov cr3, eax\n"
	    "mov ecx, 0xc0000080\n rdmsr\n or ah, 1\n wrmsr\n"
	    "mov eax, cr0\n or eax, 0x80000000\n mov cr0, eax\n"
	    ".byte 0xea\n .long 2f - modes + 0x4000\n .word 0x18\n"
	    ".code64\n 2: mov rax, 0x6464646464646464\n mov rbx, 0x20008\n"
	    "mov [rbx], rax\n rdmsr\n mov r15, rax\n"
	    "mov al, 1\n mov dx, 0x5f0\n out dx, al\n 3: jmp 3b\n"
	    "4: .word 0xff\n .long 0x1000\n .code16\n");

static void a_guest_goes_from_real_to_long_mode(void **state)
{
	struct micro_pair p;
	struct vcpu_state vs;

	(void)state;
	micro_run_both(&p, MICRO_REAL, modes, modes_end);
	micro_get(p.kvm, 0, &vs);
	assert_int_equal(vs.regs.r15 & 0x500, 0x500); /* LME and LMA */
	assert_int_equal(ld_le64(p.kvm->ram + 0x20008), 0x6464646464646464ull);
	micro_pair_free(&p);
}

/* ---- CPUID ---- */

MICRO_GUEST(cpuids, 64,
	    "mov esi, 0x20000\n mov edi, 0x21000\n"
	    "1: mov eax, [rsi]\n mov ecx, [rsi+4]\n cmp eax, -1\n je 2f\n"
	    "cpuid\n mov [rdi], eax\n mov [rdi+4], ebx\n mov [rdi+8], ecx\n"
	    "mov [rdi+12], edx\n add esi, 8\n add edi, 16\n jmp 1b\n"
	    "2: mov al, 1\n" MICRO_END);

static const u32 leaves[][2] = {
	{0, 0},		  {1, 0},	    {6, 0},	      {7, 0},
	{7, 1},		  {0xb, 0},	    {0xb, 1},	      {0xd, 0},
	{0xd, 1},	  {0x40000000, 0},  {0x40000001, 0},  {0x80000000u, 0},
	{0x80000001u, 0}, {0x80000002u, 0}, {0x80000003u, 0}, {0x80000004u, 0},
	{0x80000007u, 0}, {0x80000008u, 0}, {0xffffffffu, 0},
};

static void put_leaves(struct micro *m)
{
	memcpy(m->ram + MICRO_DATA, leaves, sizeof(leaves));
}

static void cpuid_is_the_same_under_both_engines(void **state)
{
	struct micro_pair p;

	(void)state;
	micro_pair_new(&p, 1);
	micro_load(p.kvm, MICRO_LONG, cpuids, cpuids_end);
	put_leaves(p.kvm);
	micro_run_to_stop(p.kvm);
	if (!micro_is_real_kvm() && ld_le32(p.kvm->ram + 0x21018) & 1) {
		micro_skip("this host's KVM lets CPUID show the host's "
			   "features (SSE3), whatever table it is given");
	}
	micro_pair_free(&p);
	run_long(cpuids, cpuids_end, put_leaves, &p);
	assert_true(ld_le32(p.kvm->ram + 0x21000) != 0);
	micro_pair_free(&p);
}

/* ---- MSRs ---- */

/* Handler of #GP at +0x10: skips two bytes (WRMSR, RDMSR), counts. */
#define GP_GUEST(name, body)                                                   \
	MICRO_GUEST(name, 64,                                                  \
		    "jmp 5f\n .org " #name " + 0x10\n"                         \
		    "inc dword ptr [0x20000]\n add rsp, 8\n"                   \
		    "add qword ptr [rsp], 2\n iretq\n 5:\n" body MICRO_END)

GP_GUEST(msrs, "mov ecx, 0xc0000082\n mov eax, 0x12345678\n"
	       "mov edx, 0xffffffff\n wrmsr\n rdmsr\n mov r8d, eax\n"
	       "mov r9d, edx\n mov ecx, 0x277\n rdmsr\n mov r10d, eax\n"
	       "mov ecx, 0x176\n mov eax, 0x1000\n xor edx, edx\n wrmsr\n"
	       "rdmsr\n mov r11d, eax\n"
	       "mov ecx, 0xc0000080\n rdmsr\n mov r12d, eax\n"
	       "mov ecx, 0x1b\n rdmsr\n mov r13d, eax\n"
	       "mov ecx, 0xfe\n rdmsr\n mov r14d, eax\n"
	       "xor eax, eax\n xor edx, edx\n"
	       "mov ecx, 0xc0000102\n mov eax, 0x5000\n wrmsr\n swapgs\n"
	       "mov ecx, 0xc0000101\n rdmsr\n mov r15d, eax\n mov al, 1\n");

static void gp_gate(struct micro *m)
{
	micro_gate64(m, X86_VEC_GP, MICRO_CODE + 0x10);
}

static void msrs_keep_their_values(void **state)
{
	struct micro_pair p;

	(void)state;
	run_long(msrs, msrs_end, gp_gate, &p);
	assert_int_equal(ld_le32(p.kvm->ram + MICRO_DATA), 0);
	micro_pair_free(&p);
}

/* No flag changes: one that is dead afterwards may be anything on the stack
 * under the translator. */
GP_GUEST(bad_msrs, "mov ecx, 0x4242\n mov eax, 0\n mov edx, 0\n rdmsr\n wrmsr\n"
		   "mov ecx, 0xc0000080\n mov eax, 0xffffffff\n wrmsr\n"
		   "mov ecx, 0x17\n rdmsr\n mov r8d, eax\n"
		   "mov ecx, 0xc0010058\n rdmsr\n mov r9d, eax\n mov eax, 0\n"
		   "mov al, 1\n");

static void unknown_msrs_are_gp_and_known_quiet_ones_zero(void **state)
{
	struct micro_pair p;

	(void)state;
	run_long(bad_msrs, bad_msrs_end, gp_gate, &p);
	assert_int_equal(ld_le32(p.kvm->ram + MICRO_DATA), 3);
	micro_pair_free(&p);
}

/* ---- exceptions ---- */

/* Each handler writes its number, error code and CR2 to where rdi points. */
MICRO_GUEST(faults, 64,
	    "jmp 5f\n .org faults + 0x10\n"
	    /* #UD, no error code */
	    "mov dword ptr [rdi], 6\n add rdi, 32\n"
	    "add qword ptr [rsp], 2\n iretq\n"
	    ".org faults + 0x40\n" /* #GP */
	    "mov dword ptr [rdi], 13\n pop [rdi+8]\n add rdi, 32\n"
	    "add qword ptr [rsp], 2\n iretq\n"
	    ".org faults + 0x80\n" /* #PF: the fault is a 3-byte mov */
	    "mov dword ptr [rdi], 14\n pop [rdi+8]\n"
	    "mov rax, cr2\n mov [rdi+16], rax\n add rdi, 32\n"
	    "add qword ptr [rsp], 3\n iretq\n"
	    ".org faults + 0x100\n 5: mov edi, 0x20000\n"
	    "ud2\n"
	    "mov ebx, 0x40000000\n mov rax, [rbx]\n mov [rbx], rax\n"
	    "mov ax, 0x2000\n mov ds, eax\n"
	    "mov eax, 1\n" MICRO_END);

static void fault_gates(struct micro *m)
{
	micro_gate64(m, X86_VEC_UD, MICRO_CODE + 0x10);
	micro_gate64(m, X86_VEC_GP, MICRO_CODE + 0x40);
	micro_gate64(m, X86_VEC_PF, MICRO_CODE + 0x80);
}

static void exceptions_arrive_with_code_and_address(void **state)
{
	static const u32 order[] = {6, 14, 14, 13};
	struct micro_pair p;

	(void)state;
	run_long(faults, faults_end, fault_gates, &p);
	for (u32 i = 0; i < 4; i++)
		assert_int_equal(ld_le32(p.kvm->ram + MICRO_DATA + i * 32),
				 order[i]);
	assert_int_equal(ld_le64(p.kvm->ram + MICRO_DATA + 32 + 16),
			 0x40000000);
	micro_pair_free(&p);
}

MICRO_GUEST(breaks, 64,
	    "jmp 5f\n .org breaks + 0x10\n"
	    "mov rax, [rsp]\n mov [0x20000], rax\n iretq\n"
	    ".org breaks + 0x40\n 5: int3\n mov al, 1\n" MICRO_END);

static void break_gate(struct micro *m)
{
	micro_gate64(m, X86_VEC_BP, MICRO_CODE + 0x10);
}

static void int3_is_a_trap(void **state)
{
	struct micro_pair p;

	(void)state;
	run_long(breaks, breaks_end, break_gate, &p);
	assert_int_equal(ld_le64(p.kvm->ram + MICRO_DATA), MICRO_CODE + 0x41);
	micro_pair_free(&p);
}

/* ---- the end ---- */

MICRO_GUEST(triple, 32,
	    "lidt ds:[1f - triple + 0x4000]\n ud2\n"
	    "1: .word 0\n .long 0\n");

static void a_triple_fault_is_a_shutdown(void **state)
{
	struct micro_pair p;

	(void)state;
	micro_pair_new(&p, 1);
	micro_load(p.kvm, MICRO_PROTECTED, triple, triple_end);
	micro_load(p.soft, MICRO_PROTECTED, triple, triple_end);
	assert_int_equal(micro_run(p.kvm), VCPU_EXIT_SHUTDOWN);
	assert_int_equal(micro_run(p.soft), VCPU_EXIT_SHUTDOWN);
	micro_pair_free(&p);
}

/* ---- kicks ---- */

static void *kick_later(void *opaque)
{
	struct micro *m = opaque;
	struct timespec ts = {.tv_nsec = 20000000};

	nanosleep(&ts, NULL);
	atomic_store(&m->is_done, true);
	m->ops->vcpu_kick(m->v[0]);
	return NULL;
}

static void kick_from_a_thread(struct micro *m)
{
	struct vcpu_state vs;
	struct err err = {0};
	pthread_t t;

	assert_int_equal(pthread_create(&t, NULL, kick_later, m), 0);
	assert_int_equal(m->ops->vcpu_run(m->v[0], &err), VCPU_EXIT_KICKED);
	pthread_join(t, NULL);
	assert_true(atomic_load(&m->is_done));
	micro_get(m, 0, &vs); /* a state can be taken */
}

MICRO_GUEST(spins, 32, "1: jmp 1b\n");
MICRO_GUEST(halts, 32, "sti\n 1: hlt\n jmp 1b\n");

static void a_kick_ends_a_loop_and_a_halt(void **state)
{
	struct vcpu_state vs;
	struct micro_pair p;

	(void)state;
	micro_pair_new(&p, 1);
	micro_load(p.kvm, MICRO_PROTECTED, spins, spins_end);
	kick_from_a_thread(p.kvm);
	micro_load(p.kvm, MICRO_PROTECTED, halts, halts_end);
	kick_from_a_thread(p.kvm);
	micro_get(p.kvm, 0, &vs);
	assert_int_equal(vs.mp_state.mp_state, KVM_MP_STATE_HALTED);
	micro_pair_free(&p);
}

static void a_kick_before_the_run_ends_it_at_once(void **state)
{
	struct vcpu_state vs;
	struct err err = {0};
	struct micro_pair p;

	(void)state;
	micro_pair_new(&p, 1);
	micro_load(p.kvm, MICRO_PROTECTED, spins, spins_end);
	p.kvm->ops->vcpu_kick(p.kvm->v[0]);
	p.kvm->ops->vcpu_kick(p.kvm->v[0]);
	assert_int_equal(p.kvm->ops->vcpu_run(p.kvm->v[0], &err),
			 VCPU_EXIT_KICKED);
	micro_get(p.kvm, 0, &vs);
	assert_int_equal(vs.regs.rip, MICRO_CODE);
	kick_from_a_thread(p.kvm); /* the two were one */
	micro_pair_free(&p);
}

/* The stop is inside of an access: that one is complete. */
MICRO_GUEST(reads, 32, "mov dx, 0x5f0\n in eax, dx\n 1: jmp 1b\n");

static void a_kick_completes_the_access_under_way(void **state)
{
	struct vcpu_state vs;
	struct err err = {0};
	struct micro_pair p;

	(void)state;
	micro_pair_new(&p, 1);
	micro_load(p.kvm, MICRO_PROTECTED, reads, reads_end);
	p.kvm->ops->vcpu_kick(p.kvm->v[0]);
	assert_int_equal(p.kvm->ops->vcpu_run(p.kvm->v[0], &err),
			 VCPU_EXIT_KICKED);
	kick_from_a_thread(p.kvm);
	micro_get(p.kvm, 0, &vs);
	assert_int_equal(vs.regs.rax, 0xffffffff);
	assert_true(vs.regs.rip > MICRO_CODE);
	micro_pair_free(&p);
}

/* ---- errors ---- */

MICRO_GUEST(sse, 64,
	    "mov eax, 0x20000\n movaps xmm0, [rax]\n"
	    "movaps [rax+16], xmm0\n mov al, 1\n" MICRO_END);

/* A KVM that cannot do it says what and where. */
static void sse_in_ring_0_works_or_is_a_readable_error(void **state)
{
	struct micro_pair p;
	enum vcpu_exit why;

	(void)state;
	micro_pair_new(&p, 1);
	micro_load(p.kvm, MICRO_LONG, sse, sse_end);
	st_le64(p.kvm->ram + MICRO_DATA, 0x1122334455667788ull);
	why = micro_run(p.kvm);
	if (why == VCPU_EXIT_ERROR) {
		assert_false(micro_is_real_kvm());
		assert_non_null(strstr(p.kvm->err.text, "KVM cannot go on"));
		assert_non_null(strstr(p.kvm->err.text, "rip=0018:"));
		micro_skip("this host's KVM cannot do SSE in ring 0");
	}
	assert_int_equal(why, VCPU_EXIT_KICKED);
	assert_int_equal(ld_le64(p.kvm->ram + MICRO_DATA + 16),
			 0x1122334455667788ull);
	micro_pair_free(&p);
}

static void lockstep_and_bad_counts_are_refused(void **state)
{
	struct engine_vm_config cfg = {.vcpu_count = 0};
	struct engine_vm *vm = NULL;
	struct err err = {0};

	(void)state;
	assert_true(engine_kvm.vm_create(&cfg, &vm, &err) < 0);
	cfg.vcpu_count = 1;
	cfg.lockstep_every = 5;
	assert_true(engine_kvm.vm_create(&cfg, &vm, &err) < 0);
	assert_non_null(strstr(err.text, "lockstep"));
	assert_null(vm);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_guest_goes_from_real_to_long_mode),
		cmocka_unit_test(cpuid_is_the_same_under_both_engines),
		cmocka_unit_test(msrs_keep_their_values),
		cmocka_unit_test(unknown_msrs_are_gp_and_known_quiet_ones_zero),
		cmocka_unit_test(exceptions_arrive_with_code_and_address),
		cmocka_unit_test(int3_is_a_trap),
		cmocka_unit_test(a_triple_fault_is_a_shutdown),
		cmocka_unit_test(a_kick_ends_a_loop_and_a_halt),
		cmocka_unit_test(a_kick_before_the_run_ends_it_at_once),
		cmocka_unit_test(a_kick_completes_the_access_under_way),
		cmocka_unit_test(sse_in_ring_0_works_or_is_a_readable_error),
		cmocka_unit_test(lockstep_and_bad_counts_are_refused),
	};

	return test_run("engine_cpu", tests);
}
