/* SPDX-License-Identifier: Apache-2.0 */
/* Port and memory accesses of micro-guests, under both engines alike. */
#include "test/test.h"

#include "machine/microvm.h"

static void run(enum micro_mode mode, const u8 *code, const u8 *end,
		size_t accesses)
{
	struct micro_pair p;

	micro_run_both(&p, mode, code, end);
	assert_int_equal(p.soft->log_count, accesses);
	micro_pair_free(&p);
}

MICRO_GUEST(pio16, 16,
	    "mov dx, 0x500\n mov al, 0x5a\n out dx, al\n"
	    "mov dx, 0x502\n mov ax, 0x1234\n out dx, ax\n"
	    "mov dx, 0x504\n mov eax, 0x89abcdef\n out dx, eax\n"
	    "mov dx, 0x507\n in al, dx\n mov bl, al\n"
	    "mov dx, 0x508\n in ax, dx\n mov cx, ax\n"
	    "mov dx, 0x50c\n in eax, dx\n mov esi, eax\n"
	    "mov al, 7\n" MICRO_END);

static void real_mode_reaches_ports_of_each_size(void **state)
{
	(void)state;
	run(MICRO_REAL, pio16, pio16_end, 6);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(real_mode_reaches_ports_of_each_size),
	};

	return test_run("engine_io", tests);
}
