// SPDX-License-Identifier: Apache-2.0
/* Memory order and atomicity with four vCPUs, interpreted and translated.
 *
 *	test_litmus	SKERRY_LITMUS_SECONDS in the environment: how long in
 *			all (default 16)
 *
 * THEORY. Variables only grow, each has one writer, and all run free. What one
 * reader saw is checked against what another saw behind the run (IRIW), or
 * by the reader itself (CoRR, WRC, torn values). Each test runs again and
 * again until its time is over. SDM 3A §8.1.1, §8.2.3.
 *
 * IRIW. Reader A looks at x, then at y, and saw (a, b): x was a before y was
 * more than b. Reader B looks at y, then at x, and saw (c, d): y was c before
 * x was more than d. With c > b and a > d the two orders are a cycle.
 */
#include "test/test.h"

#include "soft/smpvm.h"
#include "soft/xlat.h"

#define V_X	0x80000
#define V_Y	0x80040
#define V_WRONG 0x80080
#define V_STOP	0x800c0
#define V_PAIR	0x80100 /* 16 bytes, and places in this line */
#define PAIRS	100000u /* of a reader, u64 each; SMP_SEEN0, SMP_SEEN1 */
#define TESTS	6
#define TIERS	2

static unsigned budget_ms(void)
{
	const char *s = getenv("SKERRY_LITMUS_SECONDS");
	unsigned all = s ? (unsigned)atoi(s) : 16;

	return all * 1000 / (TESTS * TIERS);
}

static struct smpvm *litmus_new(bool is_translated)
{
	struct smpvm *t = smp_new(4);

	if (!is_translated) {
		xlat_free(t->vm->xlat);
		t->vm->xlat = NULL;
	}
	return t;
}

static void place(struct smpvm *t, u32 id, const u8 *code, const u8 *end)
{
	gpa_t at = SMP_CODE0 + id * 0x8000;

	smp_load(t, at, code, end);
	t->v[id]->rip = at;
	t->v[id]->is_halted = false;
	memset(t->v[id]->gpr, 0, sizeof(t->v[id]->gpr));
	t->v[id]->gpr[X86_RSP] = SMP_STACK + id * 0x1000;
}
#define PLACE(t, id, name) place(t, id, name, name##_end)

static void forget(struct smpvm *t)
{
	memset(t->ram + V_X, 0, 0x1000);
	memset(t->ram + SMP_ENDED, 0, 4);
}

/* ---- IRIW ---- */

/* Until both readers have ended. RDI: the variable. */
SMP_CODE(iriw_write, "1: incl (%rdi)\n cmpl $2, 0x9000\n jb 1b\n" SMP_DONE);
/* The same by XCHG, which is a write of its own there. */
SMP_CODE(iriw_xchg, "1: inc %eax\n mov %eax, %ecx\n xchg %ecx, (%rdi)\n"
		    "cmpl $2, 0x9000\n jb 1b\n" SMP_DONE);
/* RDI, RBX: first and second variable; R10: where pairs go; EBP: how many. */
SMP_CODE(iriw_read, "1: mov (%rdi), %eax\n mov (%rbx), %edx\n"
		    "mov %eax, (%r10)\n mov %edx, 4(%r10)\n add $8, %r10\n"
		    "dec %ebp\n jnz 1b\n" SMP_DONE);

static void iriw_run(struct smpvm *t, const u8 *writer, const u8 *writer_end)
{
	forget(t);
	for (u32 i = 0; i < 2; i++) {
		u64 *r;

		place(t, i, writer, writer_end);
		t->v[i]->gpr[X86_RDI] = i ? V_Y : V_X;
		PLACE(t, 2 + i, iriw_read);
		r = t->v[2 + i]->gpr;
		r[X86_RDI] = i ? V_Y : V_X;
		r[X86_RBX] = i ? V_X : V_Y;
		r[10] = i ? SMP_SEEN1 : SMP_SEEN0;
		r[X86_RBP] = PAIRS;
	}
	smp_run(t);
}

static int by_first_down(const void *a, const void *b)
{
	u32 x = ld_le32(a), y = ld_le32(b);

	return x < y ? 1 : x > y ? -1 : 0;
}
static int by_second_down(const void *a, const void *b)
{
	return by_first_down((const u8 *)a + 4, (const u8 *)b + 4);
}

/* Descending in what both know of y: A's b, B's c. least: the least d of all
 * of B's pairs with c > b. */
static unsigned iriw_check(struct smpvm *t)
{
	u8 *a = t->ram + SMP_SEEN0, *b = t->ram + SMP_SEEN1;
	u32 least = ~0u, k = 0, moved = 0;

	for (u32 i = 1; i < PAIRS; i++)
		moved += ld_le32(a + 8 * i) != ld_le32(a + 8 * i - 8) &&
			 ld_le32(a + 8 * i) != ld_le32(a);
	qsort(a, PAIRS, 8, by_second_down);
	qsort(b, PAIRS, 8, by_first_down);
	for (u32 i = 0; i < PAIRS; i++) {
		u32 x = ld_le32(a + 8 * i), y = ld_le32(a + 8 * i + 4);

		for (; k < PAIRS && ld_le32(b + 8 * k) > y; k++)
			least = MIN(least, ld_le32(b + 8 * k + 4));
		if (x > least)
			fail_msg("x %u came before y > %u, which came before x "
				 "> %u",
				 x, y, least);
	}
	return moved;
}

static void iriw(const u8 *writer, const u8 *end)
{
	for (int tier = 0; tier < TIERS; tier++) {
		struct smpvm *t = litmus_new(tier);
		u64 stop = clock_mono_ns() + budget_ms() * 1000000ull;
		unsigned moved = 0;

		do {
			iriw_run(t, writer, end);
			moved += iriw_check(t);
		} while (clock_mono_ns() < stop);
		assert_true(moved > 0);
		smp_free(t);
	}
}

static void litmus_readers_agree_on_the_order_of_writes(void **state)
{
	(void)state;
	iriw(iriw_write, iriw_write_end);
}

static void litmus_readers_agree_on_the_order_of_exchanges(void **state)
{
	(void)state;
	iriw(iriw_xchg, iriw_xchg_end);
}

/* ---- what a program finds out by itself ---- */

#define UNTIL_STOP(text) "1: " text "cmpl $0, 0x800c0\n je 1b\n" SMP_DONE
#define WRONG_IF(cc)	 cc " 2f\n lock incl 0x80080\n 2: "

/* CoRR: two loads of one variable, of which one goes by another linear
 * address: the second is not older. */
SMP_CODE(corr_write, UNTIL_STOP("incl 0x80000\n"));
SMP_CODE(corr_read, UNTIL_STOP("mov (%rdi), %eax\n mov (%rbx), %edx\n"
			       "inc %r12\n sub %eax, %edx\n" WRONG_IF("jns")));

/* WRC: who has seen a message passes it on; who hears of it that way sees
 * the message itself. */
SMP_CODE(wrc_pass, UNTIL_STOP("mov 0x80000, %eax\n mov %eax, 0x80040\n"));
SMP_CODE(wrc_read, UNTIL_STOP("mov 0x80040, %eax\n mov 0x80000, %edx\n"
			      "inc %r12\n sub %eax, %edx\n" WRONG_IF("jns")));

/* One store of eight bytes whose halves are complements. RDI: where. */
SMP_CODE(torn_write, UNTIL_STOP("inc %ecx\n mov %ecx, %edx\n not %edx\n"
				"mov %rdx, %rax\n shl $32, %rax\n"
				"or %rcx, %rax\n mov %rax, (%rdi)\n"));
SMP_CODE(torn_write_sse, UNTIL_STOP("inc %ecx\n mov %ecx, %edx\n not %edx\n"
				    "mov %rdx, %rax\n shl $32, %rax\n"
				    "or %rcx, %rax\n movq %rax, %xmm0\n"
				    "movq %xmm0, (%rdi)\n"));
SMP_CODE(torn_read, UNTIL_STOP("mov (%rdi), %rax\n mov %rax, %rdx\n"
			       "shr $32, %rdx\n not %edx\n inc %r12\n"
			       "cmp %eax, %edx\n" WRONG_IF("je")));

/* Both halves of a CMPXCHG16B are counted together; the reader's compares with
 * what cannot be there. */
SMP_CODE(pair_write, "mov (%rdi), %rax\n mov 8(%rdi), %rdx\n" UNTIL_STOP(
			     "lea 1(%rax), %rbx\n lea -1(%rdx), %rcx\n"
			     "lock cmpxchg16b (%rdi)\n"));
SMP_CODE(pair_read, UNTIL_STOP("mov $5, %eax\n mov $5, %edx\n"
			       "lock cmpxchg16b (%rdi)\n inc %r12\n"
			       "add %rax, %rdx\n" WRONG_IF("jz")));

/* Runs what is placed for the time of one test; R12 counts reads. */
static void run_and_stop(struct smpvm *t, unsigned ms, const char *what)
{
	u64 reads = 0;

	smp_start(t);
	smp_sleep_ms(ms);
	__atomic_store_n((u32 *)(t->ram + V_STOP), 1, __ATOMIC_RELEASE);
	assert_true(smp_wait(t, SMP_ENDED, 4, 30000));
	smp_stop(t);
	for (u32 i = 0; i < 4; i++)
		reads += t->v[i]->gpr[12];
	assert_true(reads > 1000);
	if (smp_ld32(t, V_WRONG))
		fail_msg("%s: %u of %llu", what, smp_ld32(t, V_WRONG),
			 (unsigned long long)reads);
}

static void litmus_reads_of_one_place_do_not_go_back(void **state)
{
	(void)state;
	for (int tier = 0; tier < TIERS; tier++) {
		struct smpvm *t = litmus_new(tier);

		forget(t);
		PLACE(t, 0, corr_write);
		for (u32 i = 1; i < 4; i++) {
			PLACE(t, i, corr_read);
			t->v[i]->gpr[X86_RDI] = V_X + (i & 1) * SMP_ALIAS;
			t->v[i]->gpr[X86_RBX] = V_X + (i & 2) / 2 * SMP_ALIAS;
		}
		run_and_stop(t, budget_ms(), "an older value came second");
		smp_free(t);
	}
}

static void litmus_what_was_passed_on_is_seen(void **state)
{
	(void)state;
	for (int tier = 0; tier < TIERS; tier++) {
		struct smpvm *t = litmus_new(tier);

		forget(t);
		PLACE(t, 0, corr_write);
		PLACE(t, 1, wrc_pass);
		PLACE(t, 2, wrc_read);
		PLACE(t, 3, wrc_read);
		run_and_stop(t, budget_ms(), "passed on, and not there");
		smp_free(t);
	}
}

static void litmus_eight_bytes_in_a_line_are_one_access(void **state)
{
	static const u64 at[] = {0, 1, 31, 56};

	(void)state;
	for (int tier = 0; tier < TIERS; tier++)
		for (size_t k = 0; k < ARRAY_SIZE(at); k++) {
			struct smpvm *t = litmus_new(tier);

			forget(t);
			st_le64(t->ram + V_PAIR + at[k], 0xffffffff00000000);
			if (k & 1)
				PLACE(t, 0, torn_write_sse);
			else
				PLACE(t, 0, torn_write);
			for (u32 i = 1; i < 4; i++)
				PLACE(t, i, torn_read);
			for (u32 i = 0; i < 4; i++)
				t->v[i]->gpr[X86_RDI] = V_PAIR + at[k];
			run_and_stop(t, budget_ms() / ARRAY_SIZE(at), "torn");
			smp_free(t);
		}
}

static void litmus_cmpxchg16b_is_one_access(void **state)
{
	(void)state;
	for (int tier = 0; tier < TIERS; tier++) {
		struct smpvm *t = litmus_new(tier);

		forget(t);
		for (u32 i = 0; i < 4; i++) {
			if (i < 2)
				PLACE(t, i, pair_write);
			else
				PLACE(t, i, pair_read);
			t->v[i]->gpr[X86_RDI] = V_PAIR;
		}
		run_and_stop(t, budget_ms(), "halves of two values");
		assert_true(ld_le64(t->ram + V_PAIR) > 100);
		assert_int_equal(ld_le64(t->ram + V_PAIR + 8),
				 -ld_le64(t->ram + V_PAIR));
		smp_free(t);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(litmus_readers_agree_on_the_order_of_writes),
		cmocka_unit_test(
			litmus_readers_agree_on_the_order_of_exchanges),
		cmocka_unit_test(litmus_reads_of_one_place_do_not_go_back),
		cmocka_unit_test(litmus_what_was_passed_on_is_seen),
		cmocka_unit_test(litmus_eight_bytes_in_a_line_are_one_access),
		cmocka_unit_test(litmus_cmpxchg16b_is_one_access),
	};

	return test_run("litmus", tests);
}
