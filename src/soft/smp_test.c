/* SPDX-License-Identifier: Apache-2.0 */
/* What two vCPUs see of each other: memory order, locked operations, and code
 * that one changes while the other runs it.
 *
 * The litmus programs run free: each vCPU counts rounds in ESI, writes the
 * round's number, and keeps what it read of the other's for each round. They
 * wait for each other only a little, so that a vCPU which the host does not
 * run costs one bounded spin per round. SDM 3A §8.2.3, §8.1.
 */
#include "test/test.h"

#include "soft/smpvm.h"

#define ROUNDS 150000u

/* r8, r9: own and other's round; r10: what this vCPU read, per round;
 * rdi, rbx: the two variables, the own one first; r11: the
 * longest delay before a round's accesses, so that all skews occur. */
#define LITMUS(name, body)                                                     \
	SMP_CODE(name, "xor %esi, %esi\n"                                      \
		       "1: inc %esi\n"                                         \
		       "mov %esi, (%r8)\n"                                     \
		       "mov $200, %ecx\n"                                      \
		       "2: cmp %esi, (%r9)\n"                                  \
		       "jae 3f\n"                                              \
		       "dec %ecx\n"                                            \
		       "jnz 2b\n"                                              \
		       "3: mov %esi, %ecx\n"                                   \
		       "and %r11d, %ecx\n"                                     \
		       "4: dec %ecx\n"                                         \
		       "jns 4b\n" body "\n"                                    \
		       "mov %eax, (%r10,%rsi,4)\n"                             \
		       "cmp %ebp, %esi\n"                                      \
		       "jb 1b\n" SMP_DONE)

LITMUS(sb_mfence, "mov %esi, (%rdi)\n mfence\n mov (%rbx), %eax");
LITMUS(sb_xchg, "mov %esi, %edx\n xchg %edx, (%rdi)\n mov (%rbx), %eax");
LITMUS(sb_lock, "mov %esi, (%rdi)\n lock orl $0, -8(%rsp)\n"
		"mov (%rbx), %eax");
LITMUS(lb_plain, "mov (%rbx), %eax\n mov %esi, (%rdi)");

static void litmus_run(struct smpvm *t, const u8 *code, const u8 *end)
{
	memset(t->ram + SMP_VARS, 0, 0x1000);
	memset(t->ram + SMP_ENDED, 0, 4);
	for (u32 i = 0; i < 2; i++) {
		u64 *r = t->v[i]->gpr;

		smp_load(t, SMP_CODE0 + i * 0x10000, code, end);
		t->v[i]->rip = SMP_CODE0 + i * 0x10000;
		t->v[i]->is_halted = false;
		r[8] = SMP_VARS + i * 64;
		r[9] = SMP_VARS + !i * 64;
		r[10] = i ? SMP_SEEN1 : SMP_SEEN0;
		r[X86_RDI] = SMP_VARS + 128 + i * 64;
		r[X86_RBX] = SMP_VARS + 128 + !i * 64;
		r[11] = i ? 31 : 0;
		r[X86_RBP] = ROUNDS;
	}
	smp_run(t);
}

/* Store buffering: with a fence between them, a store and a later load of
 * both vCPUs cannot both miss the other's store. */
static void litmus_store_buffering_is_forbidden_by_fences_and_locks(void **s)
{
	static const struct {
		const char *name;
		const u8 *code, *end;
	} rows[] = {
		{"mfence", sb_mfence, sb_mfence_end},
		{"xchg", sb_xchg, sb_xchg_end},
		{"lock", sb_lock, sb_lock_end},
	};
	struct smpvm *t = smp_new(2);

	(void)s;
	for (size_t k = 0; k < ARRAY_SIZE(rows); k++) {
		litmus_run(t, rows[k].code, rows[k].end);
		for (u32 i = 1; i <= ROUNDS; i++)
			if (smp_ld32(t, SMP_SEEN0 + i * 4) < i &&
			    smp_ld32(t, SMP_SEEN1 + i * 4) < i)
				fail_msg("%s: both missed it in round %u",
					 rows[k].name, i);
	}
	smp_free(t);
}

static void litmus_loads_are_not_passed_by_later_stores(void **s)
{
	struct smpvm *t = smp_new(2);

	(void)s;
	litmus_run(t, lb_plain, lb_plain_end);
	for (u32 i = 1; i <= ROUNDS; i++)
		if (smp_ld32(t, SMP_SEEN0 + i * 4) >= i &&
		    smp_ld32(t, SMP_SEEN1 + i * 4) >= i)
			fail_msg("both saw a later store in round %u", i);
	smp_free(t);
}

/* Message passing. rdi: what is sent, rbx: that it is sent; the reader counts
 * in r12 how often it saw news, in r13 how often without what was sent. */
SMP_CODE(mp_send, "1: inc %esi\n mov %esi, (%rdi)\n mov %esi, (%rbx)\n"
		  "cmp %ebp, %esi\n jb 1b\n" SMP_DONE);
SMP_CODE(mp_send_sse, "1: inc %esi\n movd %esi, %xmm0\n movd %xmm0, (%rdi)\n"
		      "movd %xmm0, (%rbx)\n cmp %ebp, %esi\n jb 1b\n" SMP_DONE);
SMP_CODE(mp_send_string,
	 "mov %rdi, %r8\n 1: inc %esi\n mov %esi, %eax\n mov %r8, %rdi\n"
	 "stosl\n mov %esi, (%rbx)\n cmp %ebp, %esi\n jb 1b\n" SMP_DONE);
SMP_CODE(mp_receive, "xor %esi, %esi\n"
		     "1: mov (%rbx), %eax\n mov (%rdi), %edx\n"
		     "cmp %eax, %edx\n jae 2f\n inc %r13\n"
		     "2: cmp %esi, %eax\n je 3f\n inc %r12\n mov %eax, %esi\n"
		     "3: cmp %ebp, %eax\n jb 1b\n" SMP_DONE);

static void litmus_messages_arrive_behind_what_they_announce(void **s)
{
	static const struct {
		const u8 *code, *end;
	} rows[] = {
		{mp_send, mp_send_end},
		{mp_send_sse, mp_send_sse_end},
		{mp_send_string, mp_send_string_end},
	};
	struct smpvm *t = smp_new(2);

	(void)s;
	SMP_LOAD(t, SMP_CODE0 + 0x10000, mp_receive);
	for (size_t k = 0; k < ARRAY_SIZE(rows); k++) {
		memset(t->ram + SMP_VARS, 0, 0x1000);
		memset(t->ram + SMP_ENDED, 0, 4);
		smp_load(t, SMP_CODE0, rows[k].code, rows[k].end);
		for (u32 i = 0; i < 2; i++) {
			u64 *r = t->v[i]->gpr;

			t->v[i]->rip = SMP_CODE0 + i * 0x10000;
			t->v[i]->is_halted = false;
			r[X86_RSI] = r[12] = r[13] = 0;
			r[X86_RDI] = SMP_VARS;
			r[X86_RBX] = SMP_VARS + 64;
			r[X86_RBP] = 2000000;
		}
		smp_run(t);
		assert_int_equal(t->v[1]->gpr[13], 0);
		assert_true(t->v[1]->gpr[12] > 0);
	}
	smp_free(t);
}

/* ---- locked operations ---- */

/* Each adds 1 to the counter at (rdi), ebp times. */
SMP_CODE(add_inc, "1: lock incl (%rdi)\n dec %ebp\n jnz 1b\n" SMP_DONE);
SMP_CODE(add_xadd, "1: mov $1, %eax\n lock xadd %eax, (%rdi)\n dec %ebp\n"
		   "jnz 1b\n" SMP_DONE);
SMP_CODE(add_cmpxchg, "1: mov (%rdi), %eax\n 2: lea 1(%rax), %ecx\n"
		      "lock cmpxchg %ecx, (%rdi)\n jnz 2b\n dec %ebp\n"
		      "jnz 1b\n" SMP_DONE);
/* The high half goes down as the low half goes up. */
SMP_CODE(add_cmpxchg16b, "1: mov (%rdi), %rax\n mov 8(%rdi), %rdx\n"
			 "2: lea 1(%rax), %rbx\n lea -1(%rdx), %rcx\n"
			 "lock cmpxchg16b (%rdi)\n jnz 2b\n dec %ebp\n"
			 "jnz 1b\n" SMP_DONE);

static const struct {
	const char *name;
	const u8 *code, *end;
	u64 at;
	u32 times;
} counters[] = {
	{"inc", add_inc, add_inc_end, SMP_VARS, 100000},
	{"inc over a line", add_inc, add_inc_end, SMP_VARS + 62, 30000},
	{"inc over a page", add_inc, add_inc_end, SMP_VARS + 4094, 30000},
	{"xadd", add_xadd, add_xadd_end, SMP_VARS, 100000},
	{"xadd over a line", add_xadd, add_xadd_end, SMP_VARS + 61, 30000},
	{"xadd over a page", add_xadd, add_xadd_end, SMP_VARS + 4093, 30000},
	{"cmpxchg", add_cmpxchg, add_cmpxchg_end, SMP_VARS, 100000},
	{"cmpxchg over a line", add_cmpxchg, add_cmpxchg_end, SMP_VARS + 63,
	 30000},
	{"cmpxchg over a page", add_cmpxchg, add_cmpxchg_end, SMP_VARS + 4095,
	 30000},
	{"cmpxchg16b", add_cmpxchg16b, add_cmpxchg16b_end, SMP_VARS, 100000},
};

static void hostile_31_locked_operations_lose_no_count(void **s)
{
	struct smpvm *t = smp_new(2);

	(void)s;
	for (size_t k = 0; k < ARRAY_SIZE(counters); k++) {
		memset(t->ram + SMP_VARS, 0, 0x2000);
		memset(t->ram + SMP_ENDED, 0, 4);
		for (u32 i = 0; i < 2; i++) {
			smp_load(t, SMP_CODE0 + i * 0x10000, counters[k].code,
				 counters[k].end);
			t->v[i]->rip = SMP_CODE0 + i * 0x10000;
			t->v[i]->is_halted = false;
			t->v[i]->gpr[X86_RDI] = counters[k].at;
			t->v[i]->gpr[X86_RBP] = counters[k].times;
		}
		smp_run(t);
		if (ld_le32(t->ram + counters[k].at) != 2 * counters[k].times)
			fail_msg("%s: %u of %u", counters[k].name,
				 ld_le32(t->ram + counters[k].at),
				 2 * counters[k].times);
		if (counters[k].code == add_cmpxchg16b)
			assert_int_equal(ld_le64(t->ram + SMP_VARS + 8),
					 -(u64)2 * counters[k].times);
	}
	smp_free(t);
}

/* Linear 16 MiB: two pages that are no neighbours in memory. */
#define SPLIT_VIEW 0x1000000u
#define SPLIT_PT   0xb000u

SMP_CODE(add_word, "1: lock incw (%rdi)\n dec %ebp\n jnz 1b\n" SMP_DONE);

/* One vCPU counts over both pages, the other, or an XADD, in the first. */
static void hostile_31_lock_over_scattered_pages_excludes_all_others(void **s)
{
	const u32 times = 15000;

	(void)s;
	for (u32 n = 2; n <= 4; n += 2) {
		struct smpvm *t = smp_new(n);

		st_le64(t->ram + SMP_PML4 + 0x2000 + 8 * 8, SPLIT_PT | 7);
		st_le64(t->ram + SPLIT_PT, 0x700000 | 7);
		st_le64(t->ram + SPLIT_PT + 8, 0x600000 | 7);
		for (u32 i = 0; i < n; i++) {
			gpa_t at = SMP_CODE0 + 0x8000 * i;

			if (i & 1)
				SMP_LOAD(t, at, add_word);
			else
				SMP_LOAD(t, at, add_inc);
			t->v[i]->rip = at;
			t->v[i]->gpr[X86_RDI] =
				i & 1 ? 0x700ffe : SPLIT_VIEW + 0xffe;
			t->v[i]->gpr[X86_RBP] = times;
		}
		smp_run(t);
		assert_int_equal(ld_le16(t->ram + 0x700ffe), n * times);
		assert_int_equal(ld_le16(t->ram + 0x600000), 0);
		smp_free(t);
	}
}

/* ---- code changed by another vCPU and by DMA ---- */

/* SMP_VARS: +0 the value that the patched code must give, +64 the rounds of
 * the one that runs it, +128 wrong results, +192 traps, +256 stop. */
#define V_WANT	0x80000
#define V_ROUND 0x80040
#define V_WRONG 0x80080
#define V_TRAPS 0x800c0
#define V_STOP	0x80100

/* mov eax, imm32; ret, at SMP_PATCH, by flag and serialization. */
SMP_CODE(flag_patcher, "1: inc %esi\n"
		       "mov %esi, 1(%rdi)\n" /* the code */
		       "mov %esi, 0x80000\n" /* the flag */
		       "2: cmpl $0, 0x80100\n jne 3f\n"
		       "cmp %esi, 0x80040\n jne 2b\n jmp 1b\n"
		       "3: " SMP_DONE);
SMP_CODE(flag_runner, "xor %esi, %esi\n"
		      "1: cmpl $0, 0x80100\n jne 3f\n"
		      "cmp %esi, 0x80000\n je 1b\n"
		      "mov 0x80000, %esi\n"
		      "xor %eax, %eax\n cpuid\n"
		      "call *%rdi\n"
		      "cmp %esi, %eax\n je 2f\n incl 0x80080\n"
		      "2: mov %esi, 0x80040\n jmp 1b\n"
		      "3: " SMP_DONE);

/* Runs for `ms`, and on until the counter at `at` is at least `value`. */
static void run_for_ms(struct smpvm *t, unsigned ms, gpa_t at, u32 value)
{
	bool is_reached;

	smp_start(t);
	smp_sleep_ms(ms);
	is_reached = smp_wait(t, at, value, 20000);
	__atomic_store_n((u32 *)(t->ram + V_STOP), 1, __ATOMIC_RELEASE);
	assert_true(smp_wait(t, SMP_ENDED, 2, 20000));
	smp_stop(t);
	assert_true(is_reached);
}

static void patch_by_flag(u64 through, u64 off)
{
	struct smpvm *t = smp_new(2);

	memcpy(t->ram + SMP_PATCH + off, "\xb8\0\0\0\0\xc3", 6);
	SMP_LOAD(t, SMP_CODE0, flag_patcher);
	SMP_LOAD(t, SMP_CODE0 + 0x10000, flag_runner);
	t->v[0]->gpr[X86_RDI] = through + SMP_PATCH + off;
	t->v[1]->gpr[X86_RDI] = SMP_PATCH + off;
	run_for_ms(t, 300, V_ROUND, 50);
	assert_int_equal(smp_ld32(t, V_WRONG), 0);
	smp_free(t);
}

static void hostile_32_code_patched_by_flag_and_serialize_is_new(void **s)
{
	(void)s;
	patch_by_flag(0, 0);
	patch_by_flag(0, 61);	     /* over a line */
	patch_by_flag(0, 4093);	     /* over a page */
	patch_by_flag(SMP_ALIAS, 0); /* by another linear address */
	patch_by_flag(SMP_ALIAS, 4094);
}

/* Alternates between `mov eax, 0x11111111` and `sub eax, 0x22222222`: int3
 * over the first byte, the tail, the first byte; between them it waits until
 * the other vCPU, which serializes in each round, has passed twice. */
#define PASS(n)                                                                \
	"mov 0x80040, %eax\n add $2, %eax\n" #n                                \
	": cmpl $0, 0x80100\n jne 9f\n"                                        \
	"mov 0x80040, %ecx\n sub %eax, %ecx\n js " #n "b\n"
// clang-format off
SMP_CODE(int3_patcher,
	 "1:\n"
	 "movb $0xcc, (%rdi)\n" PASS(2)
	 "movl $0x22222222, 1(%rdi)\n" PASS(3)
	 "movb $0x2d, (%rdi)\n" PASS(4)
	 "movb $0xcc, (%rdi)\n" PASS(5)
	 "movl $0x11111111, 1(%rdi)\n" PASS(6)
	 "movb $0xb8, (%rdi)\n" PASS(7)
	 "incl 0x80000\n jmp 1b\n"
	 "9: " SMP_DONE);
// clang-format on
SMP_CODE(int3_runner, "1: cmpl $0, 0x80100\n jne 9f\n"
		      "xor %eax, %eax\n cpuid\n xor %eax, %eax\n"
		      "call *%rdi\n"
		      "cmp $0x11111111, %eax\n je 2f\n"
		      "cmp $0xddddddde, %eax\n je 2f\n"
		      "cmp $0x33333333, %eax\n je 2f\n"
		      "incl 0x80080\n mov %eax, 0x80084\n"
		      "2: incl 0x80040\n jmp 1b\n"
		      "9: " SMP_DONE);
/* #BP: goes on behind the five bytes. */
SMP_CODE(int3_handler, "incl 0x800c0\n addq $4, (%rsp)\n"
		       "mov $0x33333333, %eax\n iretq\n");

static void hostile_32_code_patched_by_int3_first_is_old_new_or_trap(void **s)
{
	static const u64 offs[] = {0, 62, 4093};

	(void)s;
	for (size_t k = 0; k < ARRAY_SIZE(offs); k++) {
		struct smpvm *t = smp_new(2);

		memcpy(t->ram + SMP_PATCH + offs[k], "\xb8\x11\x11\x11\x11\xc3",
		       6);
		SMP_LOAD(t, SMP_CODE0, int3_patcher);
		SMP_LOAD(t, SMP_CODE0 + 0x10000, int3_runner);
		SMP_LOAD(t, SMP_TRAP, int3_handler);
		smp_gate(t, X86_VEC_BP, SMP_TRAP);
		for (int i = 0; i < 2; i++)
			t->v[i]->gpr[X86_RDI] = SMP_PATCH + offs[k];
		run_for_ms(t, 300, V_WANT, 10);
		assert_true(smp_ld32(t, V_TRAPS) > 0);
		if (smp_ld32(t, V_WRONG))
			fail_msg("offset %llu: %u torn results, one is %#x",
				 (unsigned long long)offs[k],
				 smp_ld32(t, V_WRONG),
				 smp_ld32(t, V_WRONG + 4));
		smp_free(t);
	}
}

/* One aligned store of eight bytes and no protocol. */
SMP_CODE(whole_patcher, "movabs $0xc3909022222222b8, %rax\n"
			"movabs $0xc3909011111111b8, %rdx\n"
			"1: mov %rax, (%rdi)\n xchg %rax, %rdx\n incl 0x80000\n"
			"cmpl $0, 0x80100\n je 1b\n" SMP_DONE);
SMP_CODE(whole_runner, "1: call *%rdi\n"
		       "cmp $0x11111111, %eax\n je 2f\n"
		       "cmp $0x22222222, %eax\n je 2f\n"
		       "incl 0x80080\n mov %eax, 0x80084\n"
		       "2: incl 0x80040\n cmpl $0, 0x80100\n je 1b\n" SMP_DONE);

static void hostile_32_code_replaced_by_one_store_is_old_or_new(void **s)
{
	struct smpvm *t = smp_new(2);

	(void)s;
	st_le64(t->ram + SMP_PATCH, 0xc3909011111111b8);
	SMP_LOAD(t, SMP_CODE0, whole_patcher);
	SMP_LOAD(t, SMP_CODE0 + 0x10000, whole_runner);
	for (int i = 0; i < 2; i++)
		t->v[i]->gpr[X86_RDI] = SMP_PATCH;
	run_for_ms(t, 500, V_ROUND, 50);
	assert_true(smp_ld32(t, V_WANT) > 10);
	if (smp_ld32(t, V_WRONG))
		fail_msg("%u torn results, one is %#x", smp_ld32(t, V_WRONG),
			 smp_ld32(t, V_WRONG + 4));
	smp_free(t);
}

/* Runs the code at (rdi) for ever; keeps what it gives. */
SMP_CODE(dma_runner, "1: call *%rdi\n mov %eax, 0x80000\n jmp 1b\n");

static void hostile_32_code_written_by_dma_is_seen(void **s)
{
	struct smpvm *t = smp_new(1);

	(void)s;
	memcpy(t->ram + SMP_PATCH, "\xb8\0\0\0\0\xc3", 6);
	SMP_LOAD(t, SMP_CODE0, dma_runner);
	t->v[0]->gpr[X86_RDI] = SMP_PATCH;
	smp_start(t);
	for (u32 i = 1; i <= 200; i++) {
		u8 bytes[4];

		st_le32(bytes, i);
		assert_int_equal(
			mem_write(t->mem, SMP_PATCH + 1, bytes, sizeof(bytes)),
			0);
		if (!smp_wait(t, V_WANT, i, 10000))
			fail_msg("write %u is not seen", i);
	}
	smp_stop(t);
	assert_int_equal(ld_le32(t->ram + V_WANT), 200);
	smp_free(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			litmus_store_buffering_is_forbidden_by_fences_and_locks),
		cmocka_unit_test(litmus_loads_are_not_passed_by_later_stores),
		cmocka_unit_test(
			litmus_messages_arrive_behind_what_they_announce),
		cmocka_unit_test(hostile_31_locked_operations_lose_no_count),
		cmocka_unit_test(
			hostile_31_lock_over_scattered_pages_excludes_all_others),
		cmocka_unit_test(
			hostile_32_code_patched_by_flag_and_serialize_is_new),
		cmocka_unit_test(
			hostile_32_code_patched_by_int3_first_is_old_new_or_trap),
		cmocka_unit_test(
			hostile_32_code_replaced_by_one_store_is_old_or_new),
		cmocka_unit_test(hostile_32_code_written_by_dma_is_seen),
	};

	return test_run("smp", tests);
}
