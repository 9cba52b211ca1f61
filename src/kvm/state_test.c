/* SPDX-License-Identifier: Apache-2.0 */
/* What KVM was about to deliver is taken back. Needs no /dev/kvm. */
#include "test/test.h"

#include <stdlib.h>

#include "kvm/kvm_int.h"

static struct vcpu_state *state_new(void)
{
	struct vcpu_state *vs = calloc(1, sizeof(*vs));

	assert_non_null(vs);
	return vs;
}

static void an_interrupt_in_delivery_is_pending_again(void **state)
{
	struct vcpu_state *vs = state_new();
	char *a = vs->lapic.regs;

	(void)state;
	st_le32(a + 0x80, 0x10);  /* TPR */
	st_le32(a + 0xa0, 0x60);  /* PPR */
	st_le32(a + 0x110, 8);	  /* ISR: 0x23 */
	st_le32(a + 0x130, 0x10); /* ISR: 0x64 */
	vs->events.interrupt.injected = 1;
	vs->events.interrupt.nr = 0x64;
	kvm_state_settle(vs);
	assert_int_equal(vs->events.interrupt.injected, 0);
	assert_int_equal(vs->events.interrupt.nr, 0);
	assert_int_equal(ld_le32(a + 0x130), 0);
	assert_int_equal(ld_le32(a + 0x110), 8);
	assert_int_equal(ld_le32(a + 0x230), 0x10); /* IRR */
	assert_int_equal(ld_le32(a + 0xa0), 0x20);
	free(vs);
}

/* It is nowhere else: forgetting it would lose it. */
static void an_interrupt_of_the_pic_in_delivery_stays(void **state)
{
	struct vcpu_state *vs = state_new();

	(void)state;
	vs->events.interrupt.injected = 1;
	vs->events.interrupt.nr = 0x20;
	kvm_state_settle(vs);
	assert_int_equal(vs->events.interrupt.injected, 1);
	assert_int_equal(vs->events.interrupt.nr, 0x20);
	free(vs);
}

static void an_nmi_in_delivery_is_pending_again(void **state)
{
	struct vcpu_state *vs = state_new();

	(void)state;
	vs->events.nmi.injected = 1;
	vs->events.nmi.masked = 1;
	kvm_state_settle(vs);
	assert_int_equal(vs->events.nmi.injected, 0);
	assert_int_equal(vs->events.nmi.masked, 0);
	assert_int_equal(vs->events.nmi.pending, 1);
	free(vs);
}

static void a_fault_in_delivery_happens_again(void **state)
{
	struct vcpu_state *vs = state_new();

	(void)state;
	vs->events.exception.injected = 1;
	vs->events.exception.nr = 14;
	vs->events.exception.has_error_code = 1;
	vs->events.exception.error_code = 2;
	kvm_state_settle(vs);
	assert_int_equal(vs->events.exception.injected, 0);
	assert_int_equal(vs->events.exception.nr, 0);
	assert_int_equal(vs->events.exception.error_code, 0);
	free(vs);
}

/* The instruction has gone by. */
static void a_trap_in_delivery_stays(void **state)
{
	struct vcpu_state *vs = state_new();

	(void)state;
	vs->events.exception.injected = 1;
	vs->events.exception.nr = 3;
	kvm_state_settle(vs);
	assert_int_equal(vs->events.exception.injected, 1);
	assert_int_equal(vs->events.exception.nr, 3);
	free(vs);
}

static void the_second_vcpu_waits_for_sipi(void **state)
{
	struct vcpu_state *vs = state_new();

	(void)state;
	vs->mp_state.mp_state = KVM_MP_STATE_UNINITIALIZED;
	kvm_state_settle(vs);
	assert_int_equal(vs->mp_state.mp_state, KVM_MP_STATE_INIT_RECEIVED);
	assert_int_equal(vs->xcrs.nr_xcrs, 1);
	assert_int_equal(vs->xcrs.xcrs[0].value, 1);
	free(vs);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_interrupt_in_delivery_is_pending_again),
		cmocka_unit_test(an_interrupt_of_the_pic_in_delivery_stays),
		cmocka_unit_test(an_nmi_in_delivery_is_pending_again),
		cmocka_unit_test(a_fault_in_delivery_happens_again),
		cmocka_unit_test(a_trap_in_delivery_stays),
		cmocka_unit_test(the_second_vcpu_waits_for_sipi),
	};

	return test_run("kvm_state", tests);
}
