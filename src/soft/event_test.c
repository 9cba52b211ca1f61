/* SPDX-License-Identifier: Apache-2.0 */
/* Paging is off, so that linear addresses are RAM offsets. */
#include "test/test.h"

#include <stdlib.h>

#include "soft/soft_int.h"
#include "x86/cpuid.h"

#define RAM_BYTES (1 * MIB)
#define IDT	  0x2000
#define GDT	  0x1000

struct fixture {
	struct mem *mem;
	struct kvm_cpuid2 *cpuid;
	struct engine_vm *vm;
	struct vcpu *v;
	u8 *ram;
};

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
	v = f->v;
	v->cr0 |= X86_CR0_PE;
	st_le64(f->ram + GDT + 8, 0x00cf9b000000ffff);
	st_le64(f->ram + GDT + 16, 0x00cf93000000ffff);
	v->gdtr = (struct soft_table){.base = GDT, .limit = 23};
	v->idtr = (struct soft_table){.base = IDT, .limit = 0xff};
	v->segs[X86_CS] =
		(struct soft_seg){.sel = 8, .limit = ~0u, .attr = 0xc09b};
	v->segs[X86_SS] =
		(struct soft_seg){.sel = 16, .limit = ~0u, .attr = 0xc093};
	v->gpr[X86_RSP] = 0x8000;
	v->rip = 0x4000;
	soft_mode_changed(v);
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

/* A 32-bit interrupt gate to 8:off. */
static void set_gate(struct fixture *f, u8 vector, u32 off)
{
	st_le64(f->ram + IDT + vector * 8, 0x00008e0000080000ull | off);
}

static void fault_frame_has_error_code_and_resume_flag(void **state)
{
	struct fixture *f = setup_machine();
	struct vcpu *v = f->v;

	set_gate(f, X86_VEC_GP, 0x5000);
	v->rflags_sys |= X86_FL_IF | X86_FL_TF;
	v->exc = (struct soft_exception){
		.vector = X86_VEC_GP, .has_error = true, .error = 0x18};
	assert_true(soft_deliver_exception(v));
	assert_int_equal(v->rip, 0x5000);
	assert_int_equal(v->gpr[X86_RSP], 0x7ff0);
	assert_int_equal(ld_le32(f->ram + 0x7ff0), 0x18);
	assert_int_equal(ld_le32(f->ram + 0x7ff4), 0x4000);
	assert_int_equal(ld_le32(f->ram + 0x7ff8), 8);
	assert_true(ld_le32(f->ram + 0x7ffc) & X86_FL_RF);
	assert_int_equal(v->rflags_sys & (X86_FL_IF | X86_FL_TF), 0);
	teardown_machine(f);
}

static void contributory_faults_in_a_row_make_a_double_fault(void **state)
{
	struct fixture *f = setup_machine();
	struct vcpu *v = f->v;

	set_gate(f, X86_VEC_DF, 0x6000); /* #GP's gate is not there */
	v->exc = (struct soft_exception){.vector = X86_VEC_GP,
					 .has_error = true};
	assert_true(soft_deliver_exception(v));
	assert_int_equal(v->rip, 0x6000);
	assert_int_equal(ld_le32(f->ram + v->gpr[X86_RSP]), 0);
	assert_int_equal(ld_le32(f->ram + v->gpr[X86_RSP] + 4), 0x4000);
	teardown_machine(f);
}

static void fault_in_double_fault_delivery_shuts_down(void **state)
{
	struct fixture *f = setup_machine();

	f->v->exc = (struct soft_exception){.vector = X86_VEC_GP,
					    .has_error = true};
	assert_false(soft_deliver_exception(f->v));
	assert_int_equal(f->v->rip, 0x4000);
	teardown_machine(f);
}

static void iret_undoes_an_interrupt(void **state)
{
	struct fixture *f = setup_machine();
	struct vcpu *v = f->v;
	u64 flags;

	set_gate(f, 0x10, 0x5000);
	v->rflags_sys |= X86_FL_IF;
	flags = soft_rflags(v);
	assert_true(soft_deliver_interrupt(v, 0x10, false));
	assert_int_equal(v->rip, 0x5000);
	if (sigsetjmp(v->unwind, 0))
		fail();
	soft_iret(v, 4);
	assert_int_equal(v->next_rip, 0x4000);
	assert_int_equal(v->gpr[X86_RSP], 0x8000);
	assert_int_equal(soft_rflags(v), flags);
	teardown_machine(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fault_frame_has_error_code_and_resume_flag),
		cmocka_unit_test(
			contributory_faults_in_a_row_make_a_double_fault),
		cmocka_unit_test(fault_in_double_fault_delivery_shuts_down),
		cmocka_unit_test(iret_undoes_an_interrupt),
	};

	return test_run("event", tests);
}
