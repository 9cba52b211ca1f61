// SPDX-License-Identifier: Apache-2.0
/* Time that a guest sees: the time-stamp counter does not go back, whichever
 * vCPU reads it, over a pause and over a saved state; in the interpreter and
 * in translated code. */
#include "test/test.h"

#include "soft/smpvm.h"
#include "soft/xlat.h"

#define V_LAST	0x80000 /* u64: the latest that anybody has read */
#define V_WRONG 0x80040
#define V_ROUND 0x80080 /* u32 each, 64 bytes apart */
#define V_STOP	0x80200

/* Reads what others have published, then the counter, which must not be
 * less; publishes it. R13: the own round counter. */
#define WATCH_TSC(read)                                                        \
	"1: mov 0x80000, %r8\n lfence\n" read "\n shl $32, %rdx\n"             \
	"or %rdx, %rax\n cmp %r8, %rax\n jae 2f\n"                             \
	"lock incl 0x80040\n mov %r8, 0x80048\n mov %rax, 0x80050\n"           \
	"2: mov %rax, %r9\n mov %r8, %rax\n lock cmpxchg %r9, 0x80000\n"       \
	"incl (%r13)\n cmpl $0, 0x80200\n je 1b\n" SMP_DONE
SMP_CODE(watch_rdtsc, WATCH_TSC("rdtsc"));
SMP_CODE(watch_rdtscp, WATCH_TSC("rdtscp"));
/* IA32_TIME_STAMP_COUNTER */
SMP_CODE(watch_rdmsr, WATCH_TSC("mov $0x10, %ecx\n rdmsr"));

static void watch_start(struct smpvm *t)
{
	for (u32 i = 0; i < t->n; i++) {
		gpa_t at = SMP_CODE0 + 0x1000 * i;

		if (i % 3 == 0)
			SMP_LOAD(t, at, watch_rdtsc);
		else if (i % 3 == 1)
			SMP_LOAD(t, at, watch_rdtscp);
		else
			SMP_LOAD(t, at, watch_rdmsr);
		t->v[i]->rip = at;
		t->v[i]->gpr[13] = V_ROUND + 64 * i;
	}
}

/* Some more rounds of each, then out of the loop by kicks. */
static void watch_rounds(struct smpvm *t, u32 rounds)
{
	bool is_done = true;

	memset(t->ram + V_ROUND, 0, 64 * SMP_VCPUS);
	smp_start(t);
	for (u32 i = 0; i < t->n; i++)
		is_done &= smp_wait(t, V_ROUND + 64 * i, rounds, 20000);
	smp_stop(t);
	assert_true(is_done);
	if (smp_ld32(t, V_WRONG))
		fail_msg("%u times back; once from %llu to %llu",
			 smp_ld32(t, V_WRONG),
			 (unsigned long long)ld_le64(t->ram + 0x80048),
			 (unsigned long long)ld_le64(t->ram + 0x80050));
}

static struct smpvm *time_new(u32 n, bool is_translated)
{
	struct smpvm *t = smp_new(n);

	if (!is_translated) {
		xlat_free(t->vm->xlat);
		t->vm->xlat = NULL;
	}
	return t;
}

static void hostile_47_tsc_does_not_go_back_between_vcpus(void **state)
{
	(void)state;
	for (int i = 0; i < 2; i++) {
		struct smpvm *t = time_new(4, i);

		watch_start(t);
		watch_rounds(t, 20000);
		smp_sleep_ms(30); /* paused */
		watch_rounds(t, 5000);
		smp_free(t);
	}
}

/* The state of a machine goes to one that is younger, and to one older. */
static void hostile_47_tsc_does_not_go_back_over_a_saved_state(void **state)
{
	struct vcpu_state *saved = calloc(SMP_VCPUS, sizeof(*saved));
	struct err err = {0};

	(void)state;
	assert_non_null(saved);
	for (u32 n = 1; n <= 4; n += 3)
		for (int is_older = 0; is_older < 2; is_older++) {
			struct smpvm *to = is_older ? smp_new(n) : NULL;
			struct smpvm *from = time_new(n, true);

			watch_start(from);
			watch_rounds(from, 1000);
			smp_sleep_ms(200);
			watch_rounds(from, 1000);
			for (u32 i = 0; i < n; i++)
				assert_int_equal(
					engine_soft.vcpu_get(from->v[i],
							     &saved[i], &err),
					0);
			if (!to)
				to = smp_new(n);
			memcpy(to->ram, from->ram, SMP_RAM);
			for (u32 i = 0; i < n; i++)
				if (engine_soft.vcpu_set(to->v[i], &saved[i],
							 &err))
					fail_msg("%s", err.text);
			smp_free(from);
			watch_rounds(to, 1000);
			smp_free(to);
		}
	free(saved);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hostile_47_tsc_does_not_go_back_between_vcpus),
		cmocka_unit_test(
			hostile_47_tsc_does_not_go_back_over_a_saved_state),
	};

	return test_run("hostile_time", tests);
}
