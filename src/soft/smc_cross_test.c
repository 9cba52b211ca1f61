/* SPDX-License-Identifier: Apache-2.0 */
/* Code that one vCPU writes, maps elsewhere or unmaps while others run it.
 * SDM 3A §8.1.3, §4.10.5.
 *
 * vCPU 0 changes the function at RDI between two forms; the others call it and
 * look at what it returns. Each form has a number: V_SEQ counts up before a
 * change begins (odd) and after it has ended by the protocol (even), so who
 * reads the same even number before and after a call must have got that
 * number's form; bit 1 says which.
 */
#include "test/test.h"

#include "soft/smpvm.h"
#include "soft/xlat_int.h"

#define V_SEQ	0x80000 /* as above */
#define V_WRONG 0x80080 /* u32: wrong results, and the last one */
#define V_TRAPS 0x800c0
#define V_STOP	0x80100
#define V_ACKS	0x80140 /* IPIs that have been taken */
#define V_READY 0x801c0 /* runners that take IPIs */
#define V_FIRM	0x80180 /* results that had to be of one form */
#define V_ROUND 0x80400 /* rounds, 64 bytes each by vCPU id */

#define NEW   0x22222222u
#define OLD   0x11111111u
#define OTHER 0x33333333u /* what handlers return */

/* EBP: vCPUs besides this one; R15: the APIC's page. The APIC is switched on,
 * all others get vector 0x40, and this one waits for them. */
#define APIC_ON                                                                \
	"mov $0xfee00000, %r15d\n"                                             \
	"movl $0x1ff, 0xf0(%r15)\n"
/* Until vCPU 1 has been around thrice. */
#define REST                                                                   \
	"mov 0x80440, %eax\n add $3, %eax\n"                                   \
	"66: cmpl $0, 0x80100\n jne 99f\n"                                     \
	"pause\n mov 0x80440, %ecx\n sub %eax, %ecx\n js 66b\n"
/* Nobody gets an IPI who has not switched the APIC on. */
#define AWAIT_ALL "88: pause\n cmp %ebp, 0x801c0\n jne 88b\n"
#define SYNC                                                                   \
	"mov 0x80140, %r14d\n"                                                 \
	"add %ebp, %r14d\n"                                                    \
	"movl $0xc4040, 0x300(%r15)\n"                                         \
	"77: cmpl $0, 0x80100\n jne 99f\n"                                     \
	"pause\n cmp %r14d, 0x80140\n jne 77b\n"

/* The runners' part: r8 and r9 the numbers around a call, R13 the own round
 * counter. IF is set: IPIs come between any two instructions. */
#define RUNNER(text)                                                           \
	APIC_ON "sti\n lock incl 0x801c0\n"                                    \
		"1: cmpl $0, 0x80100\n jne 9f\n" text "mov 0x80000, %r8d\n"    \
		"call *%rdi\n"                                                 \
		"mov 0x80000, %r9d\n"                                          \
		"mov $0x11111111, %edx\n"                                      \
		"test $2, %r8b\n jz 2f\n mov $0x22222222, %edx\n"              \
		"2: cmp %r8d, %r9d\n jne 3f\n"                                 \
		"test $1, %r8b\n jnz 3f\n"                                     \
		"lock incl 0x80180\n"                                          \
		"cmp %edx, %eax\n je 5f\n"                                     \
		"4: lock incl 0x80080\n mov %eax, 0x80084\n jmp 5f\n"          \
		"3: cmp $0x11111111, %eax\n je 5f\n"                           \
		"cmp $0x22222222, %eax\n je 5f\n"                              \
		"cmp $0x33333333, %eax\n jne 4b\n"                             \
		"5: incl (%r13)\n jmp 1b\n"                                    \
		"9: cli\n" SMP_DONE

SMP_CODE(runner, RUNNER(""));
/* Vector 0x40: counts, and ends in IRET, or in CPUID before it. */
SMP_CODE(ipi_iret, "lock incl 0x80140\n movl $0, 0xb0(%r15)\n iretq\n");
SMP_CODE(ipi_cpuid, "push %rax\n push %rbx\n push %rcx\n push %rdx\n"
		    "xor %eax, %eax\n cpuid\n"
		    "pop %rdx\n pop %rcx\n pop %rbx\n pop %rax\n"
		    "lock incl 0x80140\n movl $0, 0xb0(%r15)\n iretq\n");

/* `mov eax, OLD; ret` and `mov eax, NEW; ret` by INT3 over the first byte,
 * the rest, the first byte; all synchronized. */
SMP_CODE(poker, APIC_ON AWAIT_ALL
	 "mov $0x22222222, %ebx\n mov $0x11111111, %r12d\n"
	 "1: incl 0x80000\n"
	 "movb $0xcc, (%rdi)\n" SYNC "mov %ebx, 1(%rdi)\n" SYNC
	 "movb $0xb8, (%rdi)\n" SYNC "incl 0x80000\n"
	 "xchg %ebx, %r12d\n incl 0x80400\n" REST "cmpl $0, 0x80100\n je 1b\n"
	 "99: " SMP_DONE);
SMP_CODE(int3_handler, "lock incl 0x800c0\n addq $4, (%rsp)\n"
		       "mov $0x33333333, %eax\n iretq\n");

static void program(struct smpvm *t, const u8 *first, const u8 *first_end,
		    const u8 *others, const u8 *others_end, u64 func)
{
	smp_load(t, SMP_CODE0, first, first_end);
	smp_load(t, SMP_CODE0 + 0x10000, others, others_end);
	for (u32 i = 0; i < t->n; i++) {
		t->v[i]->rip = SMP_CODE0 + (i ? 0x10000 : 0);
		t->v[i]->gpr[X86_RDI] = func;
		t->v[i]->gpr[13] = V_ROUND + 64 * i;
		t->v[i]->gpr[X86_RBP] = t->n - 1;
	}
}

/* Runs until each vCPU has had `rounds`; then they end. */
static void run_rounds(struct smpvm *t, u32 rounds)
{
	u32 slow = ~0u;

	st_le32(t->ram + V_READY, 0);
	smp_start(t);
	for (u32 i = 0; i < t->n && slow == ~0u; i++)
		if (!smp_wait(t, V_ROUND + 64 * i, rounds, 20000))
			slow = i;
	__atomic_store_n((u32 *)(t->ram + V_STOP), 1, __ATOMIC_RELEASE);
	if (!smp_wait(t, SMP_ENDED, t->n, 20000))
		slow = 99;
	smp_stop(t);
	if (slow != ~0u)
		fail_msg("vCPU %u has not got on: rounds %u %u, traps %u", slow,
			 smp_ld32(t, V_ROUND), smp_ld32(t, V_ROUND + 64),
			 smp_ld32(t, V_TRAPS));
	if (smp_ld32(t, V_WRONG))
		fail_msg("%u wrong results of %u, one is %#x",
			 smp_ld32(t, V_WRONG), smp_ld32(t, V_FIRM),
			 smp_ld32(t, V_WRONG + 4));
}

static void poke_by_ipi(u32 n, u64 off, bool has_cpuid)
{
	static const u8 form[6] = {0xb8, 0x11, 0x11, 0x11, 0x11, 0xc3};
	struct smpvm *t = smp_new(n);

	smp_load(t, SMP_PATCH + off, form, form + sizeof(form));
	program(t, poker, poker_end, runner, runner_end, SMP_PATCH + off);
	SMP_LOAD(t, SMP_TRAP, int3_handler);
	if (has_cpuid)
		SMP_LOAD(t, SMP_TRAP + 0x100, ipi_cpuid);
	else
		SMP_LOAD(t, SMP_TRAP + 0x100, ipi_iret);
	smp_gate(t, X86_VEC_BP, SMP_TRAP);
	smp_gate(t, 0x40, SMP_TRAP + 0x100);
	run_rounds(t, 40);
	assert_true(smp_ld32(t, V_FIRM) > 40);
	assert_true(smp_ld32(t, V_TRAPS) > 0);
	smp_free(t);
}

static void hostile_32_poked_code_is_new_after_the_ipi_on_2_vcpus(void **state)
{
	poke_by_ipi(2, 0, false);
	poke_by_ipi(2, 61, true);
	poke_by_ipi(2, 0xffd, false);
}

static void hostile_32_poked_code_is_new_after_the_ipi_on_4_vcpus(void **state)
{
	poke_by_ipi(4, 0, true);
	poke_by_ipi(4, 0xffe, false);
}

/* ---- flag and serializing instruction ---- */

/* One store, the flag; the runners see the flag, serialize by the function
 * at R12, call. The writer waits for all of them. */
SMP_CODE(flagger, "xor %esi, %esi\n"
		  "1: inc %esi\n mov %esi, 1(%rdi)\n mov %esi, 0x80000\n"
		  "mov %ebp, %ecx\n"
		  "2: mov %ecx, %eax\n shl $6, %eax\n"
		  "3: cmpl $0, 0x80100\n jne 9f\n"
		  "pause\n cmp %esi, 0x80400(%rax)\n jne 3b\n"
		  "dec %ecx\n jnz 2b\n"
		  "mov %esi, 0x80400\n jmp 1b\n"
		  "9: " SMP_DONE);
SMP_CODE(flag_runner, "xor %esi, %esi\n"
		      "1: cmpl $0, 0x80100\n jne 9f\n"
		      "pause\n cmp %esi, 0x80000\n je 1b\n"
		      "mov 0x80000, %esi\n"
		      "call *%r12\n"
		      "call *%rdi\n"
		      "cmp %esi, %eax\n je 2f\n"
		      "lock incl 0x80080\n mov %eax, 0x80084\n"
		      "2: mov %esi, (%r13)\n jmp 1b\n"
		      "9: " SMP_DONE);
SMP_CODE(ser_cpuid, "xor %eax, %eax\n cpuid\n ret\n");
SMP_CODE(ser_cr3, "mov %cr3, %rax\n mov %rax, %cr3\n ret\n");
SMP_CODE(ser_cr0, "mov %cr0, %rax\n mov %rax, %cr0\n ret\n");
SMP_CODE(ser_dr, "xor %eax, %eax\n mov %rax, %dr0\n ret\n");
SMP_CODE(ser_invlpg, "invlpg 0x90000\n ret\n");
SMP_CODE(ser_lgdt, "sub $16, %rsp\n sgdt (%rsp)\n lgdt (%rsp)\n"
		   "add $16, %rsp\n ret\n");
SMP_CODE(ser_lidt, "sub $16, %rsp\n sidt (%rsp)\n lidt (%rsp)\n"
		   "add $16, %rsp\n ret\n");
SMP_CODE(ser_lldt, "xor %eax, %eax\n lldt %ax\n ret\n");
/* KERNEL_GS_BASE */
SMP_CODE(ser_wrmsr, "mov $0xc0000102, %ecx\n xor %eax, %eax\n"
		    "xor %edx, %edx\n wrmsr\n ret\n");
SMP_CODE(ser_iret, "mov %rsp, %rax\n push $16\n push %rax\n pushfq\n push $8\n"
		   "lea 1f(%rip), %rax\n push %rax\n iretq\n 1: ret\n");

static void patch_by_flag(u32 n, u64 off, const u8 *ser, const u8 *ser_end)
{
	static const u8 form[6] = {0xb8, 0, 0, 0, 0, 0xc3};
	struct smpvm *t = smp_new(n);

	smp_load(t, SMP_PATCH + off, form, form + sizeof(form));
	smp_load(t, SMP_TRAP, ser, ser_end);
	program(t, flagger, flagger_end, flag_runner, flag_runner_end,
		SMP_PATCH + off);
	for (u32 i = 0; i < n; i++)
		t->v[i]->gpr[12] = SMP_TRAP;
	run_rounds(t, 40);
	smp_free(t);
}

static void
hostile_32_each_serializing_instruction_brings_new_code(void **state)
{
	static const struct {
		const u8 *code, *end;
	} rows[] = {
#define ROW(x) {ser_##x, ser_##x##_end}
		ROW(cpuid), ROW(cr3),  ROW(cr0),  ROW(dr),    ROW(invlpg),
		ROW(lgdt),  ROW(lidt), ROW(lldt), ROW(wrmsr), ROW(iret),
#undef ROW
	};

	for (size_t k = 0; k < ARRAY_SIZE(rows); k++)
		patch_by_flag(2, k & 1 ? 61 : 0, rows[k].code, rows[k].end);
}

static void hostile_32_code_patched_by_flag_is_new_on_4_vcpus(void **state)
{
	patch_by_flag(4, 0, ser_cpuid, ser_cpuid_end);
	patch_by_flag(4, 0xffd, ser_iret, ser_iret_end);
}

/* ---- code whose page goes ---- */

/* Linear 16 MiB: one page, by the PTE at PT; the two pages behind it. */
#define VIEW   0x1000000u
#define PT     0xb000u
#define PAGE_A 0x700000u
#define PAGE_B 0x701000u

/* The page goes, everybody hears of it, the other one comes: shootdown. RSI
 * and RDX: the two PTEs. */
SMP_CODE(remapper, APIC_ON AWAIT_ALL
	 "mov $0x701007, %ebx\n mov $0x700007, %r12d\n"
	 "1: incl 0x80000\n"
	 "movq $0, 0xb000\n" SYNC "mov %rbx, 0xb000\n incl 0x80000\n"
	 "xchg %rbx, %r12\n incl 0x80400\n" REST "cmpl $0, 0x80100\n je 1b\n"
	 "99: " SMP_DONE);
/* Without the gap: the PTE changes at once; old or new until the IPI. */
SMP_CODE(swapper, APIC_ON AWAIT_ALL
	 "mov $0x701007, %ebx\n mov $0x700007, %r12d\n"
	 "1: incl 0x80000\n"
	 "mov %rbx, 0xb000\n" SYNC "incl 0x80000\n"
	 "xchg %rbx, %r12\n incl 0x80400\n" REST "cmpl $0, 0x80100\n je 1b\n"
	 "99: " SMP_DONE);
/* Jumps inside the page, then what it is. */
SMP_CODE(view_a, "mov $40, %ecx\n 1: dec %ecx\n jz 2f\n jmp 1b\n"
		 "2: mov $0x11111111, %eax\n ret\n");
SMP_CODE(view_b, "mov $40, %ecx\n 1: dec %ecx\n jz 2f\n jmp 1b\n"
		 "2: mov $0x22222222, %eax\n ret\n");
/* A page fault in the view returns from it. */
SMP_CODE(pf_handler, "lock incl 0x800c0\n add $8, %rsp\n"
		     "mov 24(%rsp), %rcx\n mov (%rcx), %rdx\n"
		     "mov %rdx, (%rsp)\n addq $8, 24(%rsp)\n"
		     "mov $0x33333333, %eax\n iretq\n");
#define SHOOTDOWN(text)                                                        \
	"push %rax\n" text "pop %rax\n"                                        \
	"lock incl 0x80140\n movl $0, 0xb0(%r15)\n iretq\n"
SMP_CODE(down_invlpg, SHOOTDOWN("invlpg 0x1000000\n"));
SMP_CODE(down_cr3, SHOOTDOWN("mov %cr3, %rax\n mov %rax, %cr3\n"));
/* Every global page, too. */
SMP_CODE(down_cr4, SHOOTDOWN("mov %cr4, %rax\n xor $0x80, %rax\n"
			     "mov %rax, %cr4\n xor $0x80, %rax\n"
			     "mov %rax, %cr4\n"));
/* This PCID's entries: individual address, and all of it. */
SMP_CODE(down_invpcid0, SHOOTDOWN("push $0x1000000\n push $1\n xor %eax, %eax\n"
				  "invpcid (%rsp), %rax\n add $16, %rsp\n"));
SMP_CODE(down_invpcid1, SHOOTDOWN("push $0\n push $1\n mov $1, %eax\n"
				  "invpcid (%rsp), %rax\n add $16, %rsp\n"));
SMP_CODE(down_pcid_cr3, SHOOTDOWN("mov %cr3, %rax\n mov %rax, %cr3\n"));

struct shootdown {
	const u8 *code, *end;
	bool has_pcid;
};

static void remap(u32 n, const u8 *first, const u8 *first_end,
		  const struct shootdown *how)
{
	struct smpvm *t = smp_new(n);

	st_le64(t->ram + SMP_PML4 + 0x2000 + 8 * 8, PT | 7);
	st_le64(t->ram + PT, PAGE_A | 7);
	for (u32 i = 0; how->has_pcid && i < n; i++) {
		t->v[i]->cr4 |= X86_CR4_PCIDE;
		t->v[i]->cr3 |= 1;
		soft_mode_changed(t->v[i]);
		soft_tlb_flush(t->v[i], false);
	}
	SMP_LOAD(t, PAGE_A, view_a);
	SMP_LOAD(t, PAGE_B, view_b);
	program(t, first, first_end, runner, runner_end, VIEW);
	SMP_LOAD(t, SMP_TRAP, pf_handler);
	smp_load(t, SMP_TRAP + 0x100, how->code, how->end);
	smp_gate(t, X86_VEC_PF, SMP_TRAP);
	smp_gate(t, 0x40, SMP_TRAP + 0x100);
	run_rounds(t, 40);
	assert_true(smp_ld32(t, V_FIRM) > 40);
	smp_free(t);
}

static const struct shootdown shootdowns[] = {
#define ROW(x, pcid)                                                           \
	{                                                                      \
		down_##x, down_##x##_end, pcid                                 \
	}
	ROW(invlpg, false),  ROW(cr3, false),	  ROW(cr4, false),
	ROW(invpcid0, true), ROW(invpcid1, true), ROW(pcid_cr3, true),
#undef ROW
};

static void hostile_34_code_is_gone_after_the_shootdown(void **state)
{
	for (size_t k = 0; k < ARRAY_SIZE(shootdowns); k++)
		remap(2, remapper, remapper_end, &shootdowns[k]);
	remap(4, remapper, remapper_end, &shootdowns[0]);
}

static void hostile_34_code_is_the_new_page_s_after_the_shootdown(void **state)
{
	for (size_t k = 0; k < ARRAY_SIZE(shootdowns); k++)
		remap(2, swapper, swapper_end, &shootdowns[k]);
	remap(4, swapper, swapper_end, &shootdowns[1]);
}

/* ---- churn ---- */

/* Writes and calls one function after the other from RDI on, 4096 of them,
 * R11 bytes apart, again and again; R13 counts rounds. */
SMP_CODE(churner, "xor %esi, %esi\n mov $0xc3, %r9d\n shl $32, %r9\n"
		  "1: cmpl $0, 0x80100\n jne 9f\n"
		  "mov %rdi, %rbx\n mov $4096, %r12d\n"
		  "2: inc %esi\n movb $0xb8, (%rbx)\n"
		  "mov %r9, %rax\n or %rsi, %rax\n mov %rax, 1(%rbx)\n"
		  "call *%rbx\n cmp %esi, %eax\n je 3f\n"
		  "lock incl 0x80080\n mov %eax, 0x80084\n"
		  "3: add %r11, %rbx\n dec %r12d\n jnz 2b\n"
		  "incl (%r13)\n jmp 1b\n"
		  "9: " SMP_DONE);

static u64 resident_bytes(void)
{
	FILE *f = fopen("/proc/self/statm", "re");
	unsigned long size, resident;

	assert_non_null(f);
	assert_int_equal(fscanf(f, "%lu %lu", &size, &resident), 2);
	fclose(f);
	return (u64)resident * PAGE_BYTES;
}

/* A cache that is soon full. */
static void small_cache(struct smpvm *t)
{
	const struct mem_slot *slot = mem_slot_find(t->mem, 0);
	struct err err = {0};

	xlat_free(t->vm->xlat);
	t->vm->xlat = xlat_new(t->vm, 2 * MIB, &err);
	assert_non_null(t->vm->xlat);
	smc_slot_changed(t->vm->xlat, slot, true);
}

static void churn(u32 n, u64 apart, u64 step)
{
	struct smpvm *t = smp_new(n);
	struct xlat_stats st;
	u64 before, after;

	small_cache(t);
	program(t, churner, churner_end, churner, churner_end, 0);
	for (u32 i = 0; i < n; i++) {
		t->v[i]->gpr[X86_RDI] = SMP_SEEN0 + i * apart;
		t->v[i]->gpr[11] = step;
	}
	memset(t->ram + SMP_SEEN0, 0x90, SMP_RAM - SMP_SEEN0);
	before = resident_bytes();
	run_rounds(t, 10);
	after = resident_bytes();
	xlat_get_stats(t->vm->xlat, &st);
	assert_true(st.flushes >= 3);
	assert_true(st.code_bytes <= 2 * MIB);
	if (after > before + 32 * MIB)
		fail_msg("%llu bytes more",
			 (unsigned long long)(after - before));
	smp_free(t);
}

static void
hostile_33_code_made_without_end_flushes_and_stays_small(void **state)
{
	churn(1, 0, 64);
	churn(2, MIB, 64);
	churn(4, MIB, 64);
}

/* Each kills and makes blocks in the other's lines. */
static void hostile_33_churn_in_shared_lines_ends_nothing_else(void **state)
{
	churn(2, 32, 64);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			hostile_32_poked_code_is_new_after_the_ipi_on_2_vcpus),
		cmocka_unit_test(
			hostile_32_poked_code_is_new_after_the_ipi_on_4_vcpus),
		cmocka_unit_test(
			hostile_32_each_serializing_instruction_brings_new_code),
		cmocka_unit_test(
			hostile_32_code_patched_by_flag_is_new_on_4_vcpus),
		cmocka_unit_test(hostile_34_code_is_gone_after_the_shootdown),
		cmocka_unit_test(
			hostile_34_code_is_the_new_page_s_after_the_shootdown),
		cmocka_unit_test(
			hostile_33_code_made_without_end_flushes_and_stays_small),
		cmocka_unit_test(
			hostile_33_churn_in_shared_lines_ends_nothing_else),
	};

	return test_run("smc_cross", tests);
}
