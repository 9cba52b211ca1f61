/* SPDX-License-Identifier: Apache-2.0 */
/* Guests that modify their own code: the next instruction and all after it
 * are the new ones, whatever kind of store wrote them and wherever it points.
 * SDM 3A §8.1.3, §11.6. */
#include "test/test.h"

#include "soft/smpvm.h"
#include "soft/xlat_int.h"

#define ROUNDS	3000u
#define V_WRONG 0x80080 /* u32: wrong results, and the last one */

/* ---- inside one block ---- */

/* RSI counts; the immediate that it is compared with is written just before
 * it is executed. RBP: rounds. */
#define SELF_LOOP(text)                                                        \
	"xor %esi, %esi\n"                                                     \
	"1: inc %esi\n" text "cmp %esi, %eax\n"                                \
	"je 8f\n"                                                              \
	"incl 0x80080\n mov %eax, 0x80084\n"                                   \
	"8: cmp %ebp, %esi\n"                                                  \
	"jb 1b\n" SMP_DONE

SMP_CODE(self_next, SELF_LOOP("mov %esi, 3f+1(%rip)\n"
			      "3: mov $0, %eax\n"));
SMP_CODE(self_later, SELF_LOOP("mov %esi, 3f+1(%rip)\n"
			       "nop\n lea 1(%rax), %rax\n xor %edx, %edx\n"
			       "3: mov $0, %eax\n"));
/* The new bytes come with a jump backwards, after they have been passed. */
SMP_CODE(self_before, "xor %esi, %esi\n jmp 1f\n"
		      "3: mov $0, %eax\n"
		      "cmp %esi, %eax\n je 8f\n"
		      "incl 0x80080\n mov %eax, 0x80084\n"
		      "8: cmp %ebp, %esi\n jae 9f\n"
		      "1: inc %esi\n mov %esi, 3b+1(%rip)\n jmp 3b\n"
		      "9: " SMP_DONE);
/* The length and the kind of the next instruction change. */
SMP_CODE(self_opcode, "xor %esi, %esi\n"
		      "1: inc %esi\n xor %eax, %eax\n"
		      "mov $0x90, %cl\n test $1, %sil\n jz 2f\n"
		      "mov $0x58, %cl\n" /* pop rax instead of nop */
		      "2: push %rsi\n mov %cl, 3f(%rip)\n"
		      "3: nop\n"
		      "test $1, %sil\n jnz 4f\n pop %rax\n"
		      "4: cmp %rsi, %rax\n je 8f\n"
		      "incl 0x80080\n mov %eax, 0x80084\n"
		      "8: cmp %ebp, %esi\n jb 1b\n" SMP_DONE);
/* REP MOVSB copies one of two templates over what follows it. */
SMP_CODE(self_movs, SELF_LOOP("mov %rsi, %r8\n"
			      "lea 5f(%rip), %rsi\n"
			      "mov %r8d, 1(%rsi)\n"
			      "lea 3f(%rip), %rdi\n mov $10, %ecx\n"
			      "rep movsb\n"
			      "3: .fill 10, 1, 0xcc\n"
			      "mov %r8, %rsi\n jmp 4f\n"
			      "5: mov $0, %eax\n .fill 5, 1, 0x90\n"
			      "4: "));
/* REP STOSB lays NOPs over INT3s that follow it at once. */
SMP_CODE(self_stos, SELF_LOOP("movabs $0xcccccccccccccccc, %rax\n"
			      "mov %rax, 3f(%rip)\n"
			      "lea 3f(%rip), %rdi\n mov $8, %ecx\n"
			      "mov $0x90, %al\n"
			      "rep stosb\n"
			      "3: .fill 8, 1, 0xcc\n"
			      "mov %esi, %eax\n"));

/* CF is dead behind the jump back, for as long as XOR stands there; then it is
 * SETC. `far` lines lie between: the block of the ADD does not contain it. */
#define SELF_FLAGS(far)                                                        \
	"xor %esi, %esi\n jmp 1f\n"                                            \
	"2: xor %eax, %eax\n nop\n"                                            \
	"jmp 4f\n .fill " #far ", 1, 0x90\n"                                   \
	"4: cmp $900, %esi\n jb 8f\n"                                          \
	"cmp $1, %al\n je 8f\n"                                                \
	"incl 0x80080\n mov %eax, 0x80084\n"                                   \
	"8: inc %esi\n cmp %ebp, %esi\n jae 9f\n"                              \
	"1: cmp $900, %esi\n jne 3f\n"                                         \
	"movw $0x920f, 2b(%rip)\n movb $0xc0, 2b+2(%rip)\n"                    \
	"3: mov $-1, %ecx\n jmp 5f\n"                                          \
	"5: xor %edx, %edx\n add $2, %ecx\n jmp 2b\n"                          \
	"9: " SMP_DONE
SMP_CODE(self_flags, SELF_FLAGS(0));
SMP_CODE(self_flags_far, SELF_FLAGS(1000));

static u64 run_self(const u8 *code, const u8 *end, u32 at)
{
	struct smpvm *t = smp_new(1);
	u64 invalidated;

	smp_load(t, SMP_CODE0 + at, code, end);
	t->v[0]->rip += at;
	t->v[0]->gpr[X86_RBP] = ROUNDS;
	smp_run(t);
	if (smp_ld32(t, V_WRONG))
		fail_msg("%u wrong results, one is %#x", smp_ld32(t, V_WRONG),
			 smp_ld32(t, V_WRONG + 4));
	invalidated = t->vm->xlat->stats.invalidated;
	smp_free(t);
	return invalidated;
}

static void hostile_32_instructions_written_just_before_are_new(void **state)
{
	static const struct {
		const u8 *code, *end;
	} rows[] = {
		{self_next, self_next_end},	{self_later, self_later_end},
		{self_before, self_before_end}, {self_opcode, self_opcode_end},
		{self_movs, self_movs_end},	{self_stos, self_stos_end},
	};
	/* Also with lines and pages ending inside. */
	static const u32 offs[] = {0, 46, 0x1000 - 24};

	for (size_t k = 0; k < ARRAY_SIZE(rows); k++)
		for (size_t i = 0; i < ARRAY_SIZE(offs); i++)
			run_self(rows[k].code, rows[k].end, offs[i]);
}

/* What decided which flags are dead is no part of the block, and yet. */
static void hostile_32_flags_are_there_for_code_that_is_new(void **state)
{
	run_self(self_flags, self_flags_end, 0);
	run_self(self_flags_far, self_flags_far_end, 0);
}

/* It was the translator that was asked: blocks died. */
static void hostile_32_blocks_die_when_they_are_written(void **state)
{
	assert_true(run_self(self_before, self_before_end, 0) > 10);
}

/* ---- any kind of store, anywhere ---- */

/* rdi: where to write `mov eax, esi; ret`, rbx: where it runs. */
#define STORE_LOOP(text)                                                       \
	"xor %esi, %esi\n"                                                     \
	"1: inc %esi\n" text "call *%rbx\n"                                    \
	"cmp %esi, %eax\n"                                                     \
	"je 8f\n"                                                              \
	"incl 0x80080\n mov %eax, 0x80084\n"                                   \
	"8: cmp %ebp, %esi\n"                                                  \
	"jb 1b\n" SMP_DONE
/* Another linear address: the processor need not compare it before it
 * serializes. */
#define SERIALIZE "xor %eax, %eax\n mov %rbx, %r8\n cpuid\n mov %r8, %rbx\n"

SMP_CODE(by_mov, STORE_LOOP("mov %esi, 1(%rdi)\n" SERIALIZE));
SMP_CODE(by_bytes, STORE_LOOP("mov %sil, 1(%rdi)\n mov %esi, %edx\n"
			      "mov %dh, 2(%rdi)\n shr $16, %edx\n"
			      "mov %dx, 3(%rdi)\n" SERIALIZE));
SMP_CODE(by_xchg,
	 STORE_LOOP("mov %esi, %eax\n xchg %eax, 1(%rdi)\n" SERIALIZE));
SMP_CODE(by_lock, STORE_LOOP("lock incl 1(%rdi)\n" SERIALIZE));
SMP_CODE(by_cmpxchg, STORE_LOOP("lea -1(%rsi), %eax\n"
				"lock cmpxchg %esi, 1(%rdi)\n" SERIALIZE));
SMP_CODE(by_cmpxchg8b,
	 STORE_LOOP("mov 1(%rdi), %eax\n mov 5(%rdi), %edx\n mov %edx, %ecx\n"
		    "mov %rbx, %r9\n mov %esi, %ebx\n cmpxchg8b 1(%rdi)\n"
		    "mov %r9, %rbx\n" SERIALIZE));
SMP_CODE(by_sse,
	 STORE_LOOP("movd %esi, %xmm0\n movd %xmm0, 1(%rdi)\n" SERIALIZE));
SMP_CODE(by_movups, STORE_LOOP("movups (%rdi), %xmm0\n movups %xmm0, 0x80200\n"
			       "mov %esi, 0x80201\n movups 0x80200, %xmm0\n"
			       "movups %xmm0, (%rdi)\n" SERIALIZE));
SMP_CODE(by_x87, STORE_LOOP("mov %esi, 0x80200\n fildl 0x80200\n"
			    "fistpl 1(%rdi)\n" SERIALIZE));
SMP_CODE(by_push, STORE_LOOP("mov $0xc3, %eax\n shl $32, %rax\n"
			     "or %rsi, %rax\n mov %rsp, %r8\n"
			     "lea 9(%rdi), %rsp\n push %rax\n"
			     "mov %r8, %rsp\n" SERIALIZE));
SMP_CODE(by_stos, STORE_LOOP("mov %rdi, %r8\n inc %rdi\n mov %esi, %eax\n"
			     "stosl\n mov %r8, %rdi\n" SERIALIZE));
SMP_CODE(by_bts, STORE_LOOP("movl $0, 1(%rdi)\n mov %esi, %edx\n"
			    "2: bsf %edx, %ecx\n jz 3f\n"
			    "lea 8(%rcx), %eax\n bts %eax, (%rdi)\n"
			    "btr %ecx, %edx\n jmp 2b\n3: " SERIALIZE));
SMP_CODE(by_rmw, STORE_LOOP("mov %esi, %eax\n sub 1(%rdi), %eax\n"
			    "add %eax, 1(%rdi)\n" SERIALIZE));

static const struct {
	const char *name;
	const u8 *code, *end;
} stores[] = {
#define ROW(x)                                                                 \
	{                                                                      \
#x, by_##x, by_##x##_end                                       \
	}
	ROW(mov), ROW(bytes), ROW(xchg),   ROW(lock), ROW(cmpxchg),
	ROW(sse), ROW(x87),   ROW(movups), ROW(push), ROW(cmpxchg8b),
	ROW(bts), ROW(stos),  ROW(rmw),
#undef ROW
};

static void run_store(struct smpvm *t, size_t k, u64 alias, u64 off)
{
	static const u8 mov_ret[6] = {0xb8, 0, 0, 0, 0, 0xc3};
	struct vcpu *v = t->v[0];

	memset(t->ram + SMP_ENDED, 0, 4);
	smp_load(t, SMP_PATCH + off, mov_ret, mov_ret + sizeof(mov_ret));
	smp_load(t, SMP_CODE0, stores[k].code, stores[k].end);
	v->rip = SMP_CODE0;
	v->is_halted = false;
	v->gpr[X86_RDI] = alias + SMP_PATCH + off;
	v->gpr[X86_RBX] = SMP_PATCH + off;
	v->gpr[X86_RBP] = 400;
	smp_run(t);
	if (smp_ld32(t, V_WRONG))
		fail_msg("%s to offset %#llx: %u wrong results, one is %#x",
			 stores[k].name, (unsigned long long)off,
			 smp_ld32(t, V_WRONG), smp_ld32(t, V_WRONG + 4));
}

static void run_stores(u64 alias, u64 off)
{
	struct smpvm *t = smp_new(1);

	for (size_t k = 0; k < ARRAY_SIZE(stores); k++)
		run_store(t, k, alias, off);
	smp_free(t);
}

static void hostile_32_code_is_new_after_every_kind_of_store(void **state)
{
	run_stores(0, 0);
}

static void hostile_32_code_written_through_an_alias_is_new(void **state)
{
	run_stores(SMP_ALIAS, 0);
}

static void hostile_32_code_written_over_lines_and_pages_is_new(void **state)
{
	run_stores(0, 62);
	run_stores(SMP_ALIAS, 0xffd);
	run_stores(0, 0xfff);
}

/* ---- data beside code ---- */

/* The counters lie in the line of the loop that counts, and in its page. */
SMP_CODE(counts_beside, "1: incl 5f(%rip)\n"
			"lock incl 6f(%rip)\n"
			"dec %ebp\n jnz 1b\n jmp 7f\n"
			"5: .long 0\n"
			".fill 512, 1, 0x90\n"
			"6: .long 0\n"
			"7: mov 5b(%rip), %eax\n mov %eax, 0x80000\n"
			"mov 6b(%rip), %eax\n mov %eax, 0x80004\n" SMP_DONE);

static void data_beside_code_keeps_every_store(void **state)
{
	struct smpvm *t = smp_new(1);

	SMP_LOAD(t, SMP_CODE0, counts_beside);
	t->v[0]->gpr[X86_RBP] = 20000;
	smp_run(t);
	assert_int_equal(smp_ld32(t, 0x80000), 20000);
	assert_int_equal(smp_ld32(t, 0x80004), 20000);
	smp_free(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			hostile_32_instructions_written_just_before_are_new),
		cmocka_unit_test(
			hostile_32_flags_are_there_for_code_that_is_new),
		cmocka_unit_test(hostile_32_blocks_die_when_they_are_written),
		cmocka_unit_test(
			hostile_32_code_is_new_after_every_kind_of_store),
		cmocka_unit_test(
			hostile_32_code_written_through_an_alias_is_new),
		cmocka_unit_test(
			hostile_32_code_written_over_lines_and_pages_is_new),
		cmocka_unit_test(data_beside_code_keeps_every_store),
	};

	return test_run("smc_self", tests);
}
