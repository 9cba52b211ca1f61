/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "irq/irq.h"
#include "test/test.h"

struct sink {
	int edges;
	bool level;
};

static void sink_set(void *opaque, int n, bool level)
{
	struct sink *s = (struct sink *)opaque + n;

	s->edges += s->level != level;
	s->level = level;
}

static void shared_line_is_the_or_of_its_sources(void **state)
{
	struct irq_router *r = irq_router_new();
	struct sink s[2] = {0};
	struct irq a = irq_router_line(r, 5), b = irq_router_line(r, 5);

	(void)state;
	irq_router_connect(r, 5, (struct irq){sink_set, s, 0});
	irq_router_connect(r, 5, (struct irq){sink_set, s, 1});
	irq_set(&a, true);
	irq_set(&b, true);
	irq_set(&a, false);
	assert_true(s[0].level && s[1].level);
	assert_int_equal(s[0].edges, 1);
	irq_set(&b, false);
	irq_set(&b, false);
	assert_false(s[0].level || s[1].level);
	assert_int_equal(s[1].edges, 2);
	irq_router_free(r);
}

static void lines_of_other_gsis_do_not_interfere(void **state)
{
	struct irq_router *r = irq_router_new();
	struct sink s[2] = {0};
	struct irq a = irq_router_line(r, 0), b = irq_router_line(r, 23);

	(void)state;
	irq_router_connect(r, 0, (struct irq){sink_set, s, 0});
	irq_router_connect(r, 23, (struct irq){sink_set, s, 1});
	irq_set(&b, true);
	assert_false(s[0].level);
	assert_true(s[1].level);
	irq_set(&a, true);
	irq_set(&b, false);
	assert_true(s[0].level);
	assert_false(s[1].level);
	irq_router_free(r);
}

static void late_sink_sees_the_present_level(void **state)
{
	struct irq_router *r = irq_router_new();
	struct sink s = {0};
	struct irq a = irq_router_line(r, 3);

	(void)state;
	irq_set(&a, true);
	irq_router_connect(r, 3, (struct irq){sink_set, &s, 0});
	assert_true(s.level);
	irq_router_free(r);
}

static int count_msi(void *opaque, u64 addr, u32 data)
{
	*(u64 *)opaque += data;
	return addr == 0xfee01000 ? 0 : -EIO;
}

static void msi_outside_the_fee_window_is_refused(void **state)
{
	struct irq_router *r = irq_router_new();
	u64 sum = 0;

	(void)state;
	irq_router_set_msi(r, count_msi, &sum);
	assert_int_equal(irq_msi(r, 0xfee01000, 7), 0);
	assert_int_equal(irq_msi(r, 0xfedffffc, 1), -EINVAL);
	assert_int_equal(irq_msi(r, 0xfef00000, 1), -EINVAL);
	assert_int_equal(irq_msi(r, 0x1fee01000, 1), -EINVAL);
	assert_int_equal(sum, 7);
	irq_router_free(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(shared_line_is_the_or_of_its_sources),
		cmocka_unit_test(lines_of_other_gsis_do_not_interfere),
		cmocka_unit_test(late_sink_sees_the_present_level),
		cmocka_unit_test(msi_outside_the_fee_window_is_refused),
	};

	return test_run("irq", tests);
}
