/* SPDX-License-Identifier: Apache-2.0 */
#include "base/clock.h"
#include "kvm/kvm.h"
#include "test/test.h"

#include <unistd.h>

/* Nested or emulated hosts may run it badly or not at all: the answer must
 * come in time whatever it is. */
static void kvm_probe_answers_within_300_ms(void **state)
{
	struct engine_probe p;
	u64 start = clock_mono_ns();

	(void)state;
	kvm_probe(&p);
	print_message("usable %d, %llu us: %s\n", p.is_usable,
		      (unsigned long long)p.took_ns / 1000, p.reason);
	assert_true(clock_mono_ns() - start < 300 * 1000 * 1000ull);
	assert_true(p.took_ns > 0);
}

static void kvm_probe_gives_one_line_of_reason(void **state)
{
	struct engine_probe p;

	(void)state;
	kvm_probe(&p);
	assert_true(p.reason[0]);
	assert_null(strchr(p.reason, '\n'));
}

static void kvm_probe_leaves_no_descriptor_behind(void **state)
{
	struct engine_probe p;
	int before, after;

	(void)state;
	before = dup(0);
	close(before);
	kvm_probe(&p);
	after = dup(0);
	close(after);
	assert_int_equal(before, after);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(kvm_probe_answers_within_300_ms),
		cmocka_unit_test(kvm_probe_gives_one_line_of_reason),
		cmocka_unit_test(kvm_probe_leaves_no_descriptor_behind),
	};

	return test_run("kvm_probe", tests);
}
