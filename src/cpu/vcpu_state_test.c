/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/vcpu_state.h"
#include "test/test.h"

#include <stdlib.h>

static struct vcpu_state *sample(void)
{
	struct vcpu_state *vs = calloc(1, sizeof(*vs));

	assert_non_null(vs);
	vs->regs.rip = 0xfff0;
	vs->regs.rflags = 2;
	vs->sregs.cs.type = 11;
	vs->sregs.cs.base = 0xffff0000;
	vs->xsave.region[6] = 0x1f80;
	vs->xcrs.nr_xcrs = 1;
	vs->xcrs.xcrs[0].value = 7;
	vs->lapic.regs[0xf0] = 0x7f;
	vs->msr_count = 2;
	vs->msrs[0].index = 0x10;
	vs->msrs[1].index = 0x277;
	vs->msrs[1].data = 0x0007040600070406ull;
	return vs;
}

static int save(struct vcpu_state *vs, struct buf *out)
{
	struct state *s;

	buf_init(out);
	s = state_save_new(out);
	vcpu_state_visit(vs, s);
	return state_finish(s, NULL);
}

static int load(struct vcpu_state *vs, const struct buf *in, size_t len)
{
	struct state *s = state_load_new(in->bytes, len);

	vcpu_state_visit(vs, s);
	return state_finish(s, NULL);
}

static void vcpu_state_round_trips(void **state)
{
	struct vcpu_state *a = sample(), *b = calloc(1, sizeof(*b));
	struct buf buf;

	(void)state;
	assert_non_null(b);
	assert_int_equal(save(a, &buf), 0);
	assert_int_equal(load(b, &buf, buf.len), 0);
	assert_memory_equal(a, b, sizeof(*a));
	buf_fini(&buf);
	free(a);
	free(b);
}

static void vcpu_state_refuses_truncation(void **state)
{
	struct vcpu_state *a = sample();
	struct buf buf;

	(void)state;
	assert_int_equal(save(a, &buf), 0);
	for (size_t n = 0; n < buf.len; n += 7) {
		struct vcpu_state *b = calloc(1, sizeof(*b));

		assert_non_null(b);
		assert_true(load(b, &buf, n) < 0);
		free(b);
	}
	buf_fini(&buf);
	free(a);
}

static void vcpu_state_survives_flipped_bytes(void **state)
{
	struct vcpu_state *a = sample();
	struct buf buf;

	(void)state;
	assert_int_equal(save(a, &buf), 0);
	for (size_t n = 0; n < buf.len; n += 3) {
		struct vcpu_state *b = calloc(1, sizeof(*b));

		assert_non_null(b);
		buf.bytes[n] ^= 0xff;
		if (load(b, &buf, buf.len) == 0) {
			assert_true(b->msr_count <= VCPU_MSRS_MAX);
			assert_true(b->xcrs.nr_xcrs <= KVM_MAX_XCRS);
		}
		buf.bytes[n] ^= 0xff;
		free(b);
	}
	buf_fini(&buf);
	free(a);
}

static void vcpu_state_msrs_ascend(void **state)
{
	(void)state;
	assert_true(vcpu_state_msr_count <= VCPU_MSRS_MAX);
	for (size_t i = 1; i < vcpu_state_msr_count; i++)
		assert_true(vcpu_state_msrs[i - 1] < vcpu_state_msrs[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(vcpu_state_round_trips),
		cmocka_unit_test(vcpu_state_refuses_truncation),
		cmocka_unit_test(vcpu_state_survives_flipped_bytes),
		cmocka_unit_test(vcpu_state_msrs_ascend),
	};

	return test_run("vcpu_state", tests);
}
