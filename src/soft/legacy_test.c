/* SPDX-License-Identifier: Apache-2.0 */
/* 16- and 32-bit code through the interpreter. */
#include "test/test.h"

#include "soft/testvm.h"

static void operand_size_prefix_makes_real_mode_operations_32_bit(void **state)
{
	struct testvm *t = tv_new();

	TV_CODE_AT(t, TV_CODE, 0x66, 0xb8, 0xd2, 0x02, 0x96, 0x49, /* mov */
		   0x66, 0x83, 0xe8, 0x0a,			   /* sub */
		   0x66, 0x87, 0x06, 0x00, 0x50); /* xchg [0x5000], eax */
	assert_int_equal(tv_run(t, 3), -1);
	assert_int_equal(ld_le32(t->ram + 0x5000), 1234567880);
	tv_free(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			operand_size_prefix_makes_real_mode_operations_32_bit),
	};

	return test_run("legacy", tests);
}
