/* SPDX-License-Identifier: Apache-2.0 */
#include "test/test.h"

#include <stdlib.h>

#include "soft/soft_int.h"
#include "x86/cpuid.h"

#define RAM_BYTES (4 * MIB)

struct fixture {
	struct mem *mem;
	struct kvm_cpuid2 *cpuid;
	struct engine_vm *vm;
	struct vcpu *v;
	u8 *ram;
};

/* Long mode, CPL 0; va 0x400000 maps to gpa 0x10000 by tables at 0x1000. */
static struct fixture *setup_machine(void)
{
	struct x86_cpuid_config cc = {.vcpu_count = 1, .tsc_khz = 1000000};
	struct fixture *f = calloc(1, sizeof(*f));
	struct mem_slot slot = {.size = RAM_BYTES};
	struct engine_vm_config cfg = {.vcpu_count = 1};
	struct err err = {0};
	struct vcpu *v;

	f->mem = mem_new();
	f->ram = aligned_alloc(PAGE_BYTES, RAM_BYTES);
	memset(f->ram, 0, RAM_BYTES);
	slot.hva = f->ram;
	assert_int_equal(mem_slot_add(f->mem, &slot, &err), 0);
	assert_int_equal(x86_cpuid_build(&cc, &f->cpuid, &err), 0);
	cfg.mem = f->mem;
	cfg.cpuid = f->cpuid;
	assert_int_equal(engine_soft.vm_create(&cfg, &f->vm, &err), 0);
	assert_int_equal(engine_soft.vcpu_create(f->vm, 0, &f->v, &err), 0);
	st_le64(f->ram + 0x1000, 0x2007);
	st_le64(f->ram + 0x2000, 0x3007);
	st_le64(f->ram + 0x3000 + 2 * 8, 0x4007);
	st_le64(f->ram + 0x4000, 0x10003);
	v = f->v;
	v->cr0 |= X86_CR0_PE | X86_CR0_PG | X86_CR0_WP;
	v->cr4 |= X86_CR4_PAE;
	v->cr3 = 0x1000;
	v->efer = X86_EFER_LME | X86_EFER_LMA | X86_EFER_NXE;
	v->segs[X86_CS].attr = 0xa09b;
	v->segs[X86_SS].attr = 0xc093;
	soft_mode_changed(v);
	soft_tlb_flush(v, false);
	return f;
}

static void teardown_machine(struct fixture *f)
{
	engine_soft.vcpu_destroy(f->v);
	engine_soft.vm_destroy(f->vm);
	mem_free(f->mem);
	free(f->cpuid);
	free(f->ram);
	free(f);
}

/* The error code of the #PF that an access raises, or -1. */
static int fault_of(struct vcpu *v, gva_t va, unsigned how)
{
	if (sigsetjmp(v->unwind, 0)) {
		assert_int_equal(v->exc.vector, X86_VEC_PF);
		return (int)v->exc.error;
	}
	soft_probe(v, va, 1, how);
	return -1;
}

static void store_sets_dirty_and_load_only_accessed(void **state)
{
	struct fixture *f = setup_machine();

	assert_int_equal(fault_of(f->v, 0x400000, SOFT_R), -1);
	assert_int_equal(ld_le64(f->ram + 0x4000), 0x10023);
	assert_int_equal(fault_of(f->v, 0x400000, SOFT_W), -1);
	assert_int_equal(ld_le64(f->ram + 0x4000), 0x10063);
	teardown_machine(f);
}

static void reserved_bit_is_reported_with_p_and_rsvd(void **state)
{
	struct fixture *f = setup_machine();

	st_le64(f->ram + 0x4000, 0x10003 | BIT64(51));
	assert_int_equal(fault_of(f->v, 0x400000, SOFT_R),
			 X86_PF_P | X86_PF_RSVD);
	teardown_machine(f);
}

static void no_execute_page_faults_on_fetch_only(void **state)
{
	struct fixture *f = setup_machine();

	st_le64(f->ram + 0x4000, 0x10003 | X86_PTE_NX);
	assert_int_equal(fault_of(f->v, 0x400000, SOFT_R), -1);
	assert_int_equal(fault_of(f->v, 0x400000, SOFT_X), X86_PF_P | X86_PF_I);
	teardown_machine(f);
}

static void user_may_not_touch_a_supervisor_page(void **state)
{
	struct fixture *f = setup_machine();

	f->v->segs[X86_SS].attr |= 3 << 5;
	soft_mode_changed(f->v);
	assert_int_equal(fault_of(f->v, 0x400000, SOFT_W),
			 X86_PF_P | X86_PF_W | X86_PF_U);
	assert_int_equal(ld_le64(f->ram + 0x4000), 0x10003);
	teardown_machine(f);
}

static void store_over_two_pages_writes_nothing_when_the_second_faults(void **s)
{
	struct fixture *f = setup_machine();
	struct vcpu *v = f->v;

	if (!sigsetjmp(v->unwind, 0)) {
		soft_write(v, 0x400ffc, 8, ~0ull, SOFT_W);
		fail();
	}
	assert_int_equal(v->exc.cr2, 0x401000);
	assert_int_equal(ld_le32(f->ram + 0x10ffc), 0);
	teardown_machine(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(store_sets_dirty_and_load_only_accessed),
		cmocka_unit_test(reserved_bit_is_reported_with_p_and_rsvd),
		cmocka_unit_test(no_execute_page_faults_on_fetch_only),
		cmocka_unit_test(user_may_not_touch_a_supervisor_page),
		cmocka_unit_test(
			store_over_two_pages_writes_nothing_when_the_second_faults),
	};

	return test_run("mmu", tests);
}
