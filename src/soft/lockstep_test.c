/* SPDX-License-Identifier: Apache-2.0 */
/* Lockstep compares what it says, finds what is wrong, and leaves memory and
 * devices as one execution does. */
#include "test/test.h"

#include "soft/leafvm.h"
#include "soft/lockstep.h"

#define DATA (LV_DATA + 0x100)

struct fixture {
	struct testvm *t;
	struct vcpu *v;
};

static struct fixture setup(const u8 *code, size_t n)
{
	struct fixture f = {.t = lv_new()};

	f.v = f.t->v;
	assert_non_null(f.t->vm->xlat);
	xlat_flush_all(f.t->vm->xlat);
	f.v->lockstep = lockstep_new(1);
	assert_non_null(f.v->lockstep);
	smc_vcpu_started(f.v);
	tv_load(f.t, TV_CODE, code, n);
	f.v->cr4 |= X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT;
	f.v->rip = TV_CODE;
	f.v->gpr[X86_RSP] = LV_STACK;
	f.v->gpr[X86_RBX] = DATA;
	return f;
}

/* To HLT: 0, or with what it unwound. */
static int run(struct fixture *f)
{
	volatile int how;

	soft_fpu_enter(f->v);
	f->v->fpu_loaded = true;
	how = sigsetjmp(f->v->unwind, 0);
	if (!how)
		xlat_run(f->v);
	soft_fpu_leave(f->v);
	f->v->fpu_loaded = false;
	return how;
}

static void teardown(struct fixture *f)
{
	smc_vcpu_stopped(f->v);
	tv_free(f->t);
}

#define SETUP(...)                                                             \
	static const u8 code_[] = {__VA_ARGS__};                               \
	struct fixture f = setup(code_, sizeof(code_))

/* Changes the dword `from` in the generated code of the block at v->rip. */
static void spoil(struct fixture *f, u32 from, u32 to)
{
	struct xlat *x = f->t->vm->xlat;
	const struct xlat_block *b;
	bool is_new;

	/* The block's note is made with it, by the first run. */
	assert_int_equal(run(f), 0);
	f->v->is_halted = false;
	f->v->rip = TV_CODE;
	b = xlat_block_make(f->v, XLAT_KEY_LOCKSTEP, &is_new);
	assert_non_null(b);
	assert_false(is_new);
	for (u32 at = b->code; at + 4 <= xlat_code_end(b); at++) {
		if (ld_le32(xlat_code_rw(x) + at) == from) {
			st_le32(xlat_code_rw(x) + at, to);
			return;
		}
	}
	fail_msg("no %x in the code", from);
}

static void run_to_difference(struct fixture *f, const char *what)
{
	assert_int_equal(run(f), SOFT_UNWIND_ERROR);
	assert_non_null(strstr(f->v->error, what));
}

static void a_block_is_executed_once(void **state)
{
	/* mov ecx, 5; 1: inc qword [rbx]; push rcx; loop 1b; hlt */
	SETUP(0xb9, 5, 0, 0, 0, 0x48, 0xff, 0x03, 0x51, 0xe2, 0xfa, 0xf4);

	assert_int_equal(run(&f), 0);
	assert_int_equal(f.v->gpr[X86_RCX], 0);
	assert_int_equal(ld_le64(f.t->ram + LV_PHYS + 0x100), 5);
	assert_int_equal(f.v->gpr[X86_RSP], LV_STACK - 5 * 8);
	assert_int_equal(ld_le64(f.t->ram + LV_STACK - 40), 1);
	assert_in_range(f.v->stats.lockstep_checks, 5, 7);
	assert_int_equal(f.v->stats.lockstep_skips, 0);
	teardown(&f);
}

static void a_wrong_register_is_found(void **state)
{
	/* mov edx, 0x11223344; hlt */
	SETUP(0xba, 0x44, 0x33, 0x22, 0x11, 0xf4);

	spoil(&f, 0x11223344, 0x11223345);
	run_to_difference(&f, "a register");
	teardown(&f);
}

static void a_wrong_store_is_found(void **state)
{
	/* mov dword [rbx], 0x11223344; hlt */
	SETUP(0xc7, 0x03, 0x44, 0x33, 0x22, 0x11, 0xf4);

	spoil(&f, 0x11223344, 0x11223345);
	run_to_difference(&f, "memory");
	teardown(&f);
}

static void a_store_to_the_wrong_place_is_found(void **state)
{
	/* mov [rbx + 0x340], edx; hlt */
	SETUP(0x89, 0x93, 0x40, 0x03, 0x00, 0x00, 0xf4);

	spoil(&f, 0x340, 0x348);
	f.v->gpr[X86_RDX] = 7;
	run_to_difference(&f, "memory");
	teardown(&f);
}

static void a_wrong_flag_is_found(void **state)
{
	/* cmp edx, 0x11223344; jmp [rbx], to hlt */
	SETUP(0x81, 0xfa, 0x44, 0x33, 0x22, 0x11, 0xff, 0x23, 0xf4);

	st_le64(f.t->ram + LV_PHYS + 0x100, TV_CODE + 8);
	spoil(&f, 0x11223344, 0x11223345);
	f.v->gpr[X86_RDX] = 0x11223344;
	run_to_difference(&f, "flags");
	teardown(&f);
}

static void a_wrong_xmm_register_is_found(void **state)
{
	/* movss xmm3, [rbx + 0x340]; hlt */
	SETUP(0xf3, 0x0f, 0x10, 0x9b, 0x40, 0x03, 0x00, 0x00, 0xf4);

	spoil(&f, 0x340, 0x344);
	st_le32(f.t->ram + LV_PHYS + 0x444, 9);
	run_to_difference(&f, "xmm");
	teardown(&f);
}

static void an_x87_register_is_compared(void **state)
{
	/* fldpi; fld dword [rbx + 0x340]; hlt */
	SETUP(0xd9, 0xeb, 0xd9, 0x83, 0x40, 0x03, 0x00, 0x00, 0xf4);

	spoil(&f, 0x340, 0x344);
	st_le32(f.t->ram + LV_PHYS + 0x444, 0x3f800000);
	run_to_difference(&f, "x87");
	teardown(&f);
}

static void a_fault_comes_once_with_what_was_before_it(void **state)
{
	/* inc qword [rbx]; mov edx, 3; mov [rbx + 0x10000], edx: not mapped */
	SETUP(0x48, 0xff, 0x03, 0xba, 3, 0, 0, 0, 0x89, 0x93, 0, 0, 1, 0, 0xf4);

	assert_int_equal(run(&f), SOFT_UNWIND_EXCEPTION);
	assert_int_equal(f.v->exc.vector, X86_VEC_PF);
	assert_int_equal(f.v->exc.cr2, DATA + 0x10000);
	assert_int_equal(f.v->rip, TV_CODE + 8);
	assert_int_equal(f.v->gpr[X86_RDX], 3);
	assert_int_equal(ld_le64(f.t->ram + LV_PHYS + 0x100), 1);
	assert_int_equal(f.v->stats.lockstep_checks, 1);
	assert_int_equal(f.v->stats.lockstep_skips, 0);
	teardown(&f);
}

static void a_device_is_accessed_once(void **state)
{
	/* inc qword [rbx]; mov eax, [rbx + 0x1000]; inc qword [rbx]; hlt */
	SETUP(0x48, 0xff, 0x03, 0x8b, 0x83, 0, 0x10, 0, 0, 0x48, 0xff, 0x03,
	      0xf4);

	lv_map(f.t, 1, 0xd0000000u | 7);
	assert_int_equal(run(&f), 0);
	assert_int_equal(f.v->stats.mmio, 1);
	assert_int_equal(ld_le64(f.t->ram + LV_PHYS + 0x100), 2);
	teardown(&f);
}

static void a_store_through_another_address_of_a_page_is_seen(void **state)
{
	/* mov edx, [rbx + 0x1000]; inc dword [rbx]; add edx, [rbx + 0x1000];
	 * hlt: both are the same page */
	SETUP(0x8b, 0x93, 0, 0x10, 0, 0, 0xff, 0x03, 0x03, 0x93, 0, 0x10, 0, 0,
	      0xf4);

	lv_map(f.t, 1, LV_PHYS | 7);
	assert_int_equal(run(&f), 0);
	assert_int_equal(f.v->gpr[X86_RDX], 1);
	assert_int_equal(f.v->stats.lockstep_skips, 0);
	teardown(&f);
}

static void loopne_reads_the_flag_that_a_lookup_put_away(void **state)
{
	/* xor eax, eax; push rdx; loopne 1f; xor eax, eax; hlt; 1: xor edx,
	 * edx; hlt */
	SETUP(0x31, 0xc0, 0x52, 0xe0, 3, 0x31, 0xc0, 0xf4, 0x31, 0xd2, 0xf4);

	f.v->gpr[X86_RCX] = 5;
	f.v->gpr[X86_RDX] = 7;
	assert_int_equal(run(&f), 0);
	assert_int_equal(f.v->rip, TV_CODE + 8);
	assert_int_equal(f.v->gpr[X86_RDX], 7);
	teardown(&f);
}

static void flags_survive_the_way_through_a_dead_block(void **state)
{
	/* 0: cmp edx, 1; jmp [rbx]; at 0x20: xor eax, eax; hlt */
	SETUP(0x83, 0xfa, 1, 0xff, 0x23);
	static const u8 first[] = {0x31, 0xc0, 0xf4};
	static const u8 second[] = {0x0f, 0x92, 0xc0, 0xf4}; /* setb al */

	lockstep_free(f.v->lockstep);
	f.v->lockstep = NULL;
	st_le64(f.t->ram + LV_PHYS + 0x100, TV_CODE + 0x20);
	for (unsigned i = 0; i < 3; i++) {
		const u8 *code = i < 2 ? first : second;

		memcpy(f.t->ram + TV_CODE + 0x20, code, i < 2 ? 3 : 4);
		smc_written(f.t->vm, TV_CODE + 0x20, 4);
		/* The jump cache has the first one by the second turn. */
		for (unsigned k = 0; k < (i < 2 ? 2u : 1u); k++) {
			f.v->rip = TV_CODE;
			f.v->is_halted = false;
			f.v->gpr[X86_RDX] = 0;
			assert_int_equal(run(&f), 0);
		}
	}
	assert_int_equal(f.v->gpr[X86_RAX] & 0xff, 1);
	teardown(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_block_is_executed_once),
		cmocka_unit_test(a_wrong_register_is_found),
		cmocka_unit_test(a_wrong_store_is_found),
		cmocka_unit_test(a_store_to_the_wrong_place_is_found),
		cmocka_unit_test(a_wrong_flag_is_found),
		cmocka_unit_test(a_wrong_xmm_register_is_found),
		cmocka_unit_test(an_x87_register_is_compared),
		cmocka_unit_test(a_fault_comes_once_with_what_was_before_it),
		cmocka_unit_test(a_device_is_accessed_once),
		cmocka_unit_test(
			a_store_through_another_address_of_a_page_is_seen),
		cmocka_unit_test(loopne_reads_the_flag_that_a_lookup_put_away),
		cmocka_unit_test(flags_survive_the_way_through_a_dead_block),
	};

	return test_run("lockstep", tests);
}
