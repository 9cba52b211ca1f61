/* SPDX-License-Identifier: Apache-2.0 */
/* Single instructions of 64-bit code, with paging: linear addresses below
 * 2 MiB are RAM offsets. Each vector's gate leads to HANDLER + vector. */
#include "test/test.h"

#include <stdlib.h>

#include "soft/soft_int.h"
#include "x86/cpuid.h"

#define RAM_BYTES (2 * MIB)
#define GDT	  0x1000
#define IDT	  0x2000
#define TSS	  0x3000
#define PML4	  0x4000
#define CODE	  0x8000
#define HANDLER	  0xa000
#define STACK	  0xf000
#define STACK0	  0xe000 /* TSS.RSP0 */

struct fixture {
	struct mem *mem;
	struct kvm_cpuid2 *cpuid;
	struct engine_vm *vm;
	struct vcpu *v;
	u8 *ram;
};

static void set_tables(struct fixture *f)
{
	struct vcpu *v = f->v;

	st_le64(f->ram + PML4, (PML4 + 0x1000) | 7);
	st_le64(f->ram + PML4 + 0x1000, (PML4 + 0x2000) | 7);
	st_le64(f->ram + PML4 + 0x2000, 0x87);
	st_le64(f->ram + GDT + 0x08, 0x00af9b000000ffff);
	st_le64(f->ram + GDT + 0x10, 0x00cf93000000ffff);
	st_le64(f->ram + GDT + 0x18, 0x00cffb000000ffff);
	st_le64(f->ram + GDT + 0x20, 0x00cff3000000ffff);
	st_le64(f->ram + GDT + 0x28, 0x00affb000000ffff);
	st_le64(f->ram + TSS + 4, STACK0);
	for (u64 i = 0; i < 256; i++)
		st_le64(f->ram + IDT + i * 16,
			0x00008e0000080000ull | (HANDLER + i));
	v->gdtr = (struct soft_table){.base = GDT, .limit = 0x2f};
	v->idtr = (struct soft_table){.base = IDT, .limit = 0xfff};
	v->tr = (struct soft_seg){.base = TSS, .limit = 0x67, .attr = 0x8b};
}

static struct fixture *machine_new(void)
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
	set_tables(f);
	v->cr0 |= X86_CR0_PE | X86_CR0_PG;
	v->cr3 = PML4;
	v->cr4 |= X86_CR4_PAE;
	v->efer |= X86_EFER_LME | X86_EFER_LMA | X86_EFER_SCE;
	v->segs[X86_CS] =
		(struct soft_seg){.sel = 8, .limit = ~0u, .attr = 0xa09b};
	for (unsigned i = 0; i < 6; i++)
		if (i != X86_CS)
			v->segs[i] = (struct soft_seg){
				.sel = 16, .limit = ~0u, .attr = 0xc093};
	v->gpr[X86_RSP] = STACK;
	v->rip = CODE;
	soft_mode_changed(v);
	soft_tlb_flush(v, false);
	return f;
}

static void machine_free(struct fixture *f)
{
	engine_soft.vcpu_destroy(f->v);
	engine_soft.vm_destroy(f->vm);
	mem_free(f->mem);
	free(f->cpuid);
	free(f->ram);
	free(f);
}

/* The guest sees this vendor. */
static void set_vendor(struct fixture *f, const char *vendor)
{
	struct kvm_cpuid2 *t = f->vm->cpuid;

	for (u32 i = 0; i < t->nent; i++)
		if (t->entries[i].function == 0) {
			memcpy(&t->entries[i].ebx, vendor, 4);
			memcpy(&t->entries[i].edx, vendor + 4, 4);
			memcpy(&t->entries[i].ecx, vendor + 8, 4);
		}
	f->vm->is_amd = vendor[0] == 'A';
}

#define CODE_AT(f, at, ...)                                                    \
	do {                                                                   \
		static const u8 bytes_[] = {__VA_ARGS__};                      \
		memcpy((f)->ram + (at), bytes_, sizeof(bytes_));               \
	} while (0)

/* One instruction; the vector of the exception it ended with, or -1. */
static int step(struct fixture *f)
{
	struct vcpu *v = f->v;

	if (sigsetjmp(v->unwind, 0)) {
		assert_true(soft_deliver_exception(v));
		return (int)(v->rip - HANDLER);
	}
	soft_interp_one(v);
	return -1;
}

/* ---- tests ---- */

static void iret_to_user_keeps_the_base_of_a_nulled_gs(void **state)
{
	struct fixture *f = machine_new();
	struct vcpu *v = f->v;
	u64 sp = STACK - 40;

	(void)state;
	CODE_AT(f, CODE, 0x48, 0xcf); /* iretq */
	st_le64(f->ram + sp, 0x9000);
	st_le64(f->ram + sp + 8, 0x2b);
	st_le64(f->ram + sp + 16, 2);
	st_le64(f->ram + sp + 24, 0xd000);
	st_le64(f->ram + sp + 32, 0x23);
	/* mov rax, gs:[0x10] */
	CODE_AT(f, 0x9000, 0x65, 0x48, 0x8b, 0x04, 0x25, 0x10, 0, 0, 0);
	st_le64(f->ram + 0x6010, 0x1122334455667788);
	v->gpr[X86_RSP] = sp;
	v->segs[X86_GS].base = 0x6000;
	assert_int_equal(step(f), -1);
	assert_int_equal(v->cpl, 3);
	assert_int_equal(v->segs[X86_GS].sel, 0);
	assert_true(v->segs[X86_GS].attr & SEG_UNUSABLE);
	assert_int_equal(step(f), -1);
	assert_int_equal(v->gpr[X86_RAX], 0x1122334455667788);
	machine_free(f);
}

static void code_breakpoint_behind_mov_ss_waits_on_intel_only(void **state)
{
	static const char *const vendors[] = {"AuthenticAMD", "GenuineIntel"};

	(void)state;
	for (int i = 0; i < 2; i++) {
		struct fixture *f = machine_new();
		struct vcpu *v = f->v;

		set_vendor(f, vendors[i]);
		CODE_AT(f, CODE, 0x8e, 0xd0, 0x31, 0xdb); /* mov ss,eax; xor */
		v->gpr[X86_RAX] = 0x10;
		v->gpr[X86_RBX] = 1;
		v->dr[0] = CODE + 2;
		v->dr7 = 0x402;
		assert_int_equal(step(f), -1);
		assert_int_equal(step(f), i == 0 ? X86_VEC_DB : -1);
		assert_int_equal(v->gpr[X86_RBX], i == 0);
		assert_int_equal(v->dr6 & 1, i == 0);
		machine_free(f);
	}
}

static void watchpoint_hit_by_mov_ss_traps_behind_the_int(void **state)
{
	struct fixture *f = machine_new();
	struct vcpu *v = f->v;
	u64 sp;

	(void)state;
	CODE_AT(f, CODE, 0x8e, 0x13, 0xcc); /* mov ss,[rbx]; int3 */
	v->gpr[X86_RBX] = 0x7000;
	st_le16(f->ram + 0x7000, 0x10);
	v->dr[1] = 0x7000;
	v->dr7 = 0x00f00408; /* 4 bytes, read or write */
	soft_tlb_flush(v, false);
	assert_int_equal(step(f), -1);
	assert_int_equal(step(f), X86_VEC_DB);
	assert_int_equal(v->dr6 & 15, 2);
	sp = v->gpr[X86_RSP];
	assert_int_equal(ld_le64(f->ram + sp), HANDLER + X86_VEC_BP);
	/* 40 bytes of frame, 8 of alignment */
	assert_int_equal(ld_le64(f->ram + sp + 48), CODE + 3);
	machine_free(f);
}

static void syscall_and_sysret_single_step_by_the_flags_they_load(void **state)
{
	struct fixture *f = machine_new();
	struct vcpu *v = f->v;

	(void)state;
	CODE_AT(f, CODE, 0x0f, 0x05);	      /* syscall */
	CODE_AT(f, 0x9000, 0x48, 0x0f, 0x07); /* sysretq */
	v->star = 0x0018000800000000;
	v->lstar = 0x9000;
	v->sfmask = X86_FL_TF;
	v->rflags_sys |= X86_FL_TF;
	assert_int_equal(step(f), -1); /* TF is masked: no trap */
	assert_int_equal(v->rip, 0x9000);
	assert_int_equal(v->rflags_sys & X86_FL_TF, 0);
	assert_true(v->gpr[11] & X86_FL_TF);
	assert_int_equal(step(f), X86_VEC_DB); /* TF is loaded: trap */
	assert_int_equal(ld_le64(f->ram + STACK0 - 40), CODE + 2);
	assert_int_equal(ld_le64(f->ram + STACK0 - 32), 0x2b);
	assert_true(v->dr6 & BIT64(14));
	machine_free(f);
}

static void each_iteration_of_a_string_instruction_is_a_step(void **state)
{
	struct fixture *f = machine_new();
	struct vcpu *v = f->v;
	u64 flags; /* in the frame of #DB, RIP below it */

	(void)state;
	CODE_AT(f, CODE, 0xf3, 0xaa);		      /* rep stosb */
	CODE_AT(f, HANDLER + X86_VEC_DB, 0x48, 0xcf); /* iretq */
	v->gpr[X86_RDI] = 0x30000;
	v->gpr[X86_RCX] = 3;
	v->rflags_sys |= X86_FL_TF;
	/* A breakpoint there is met once: RF stays to the end. */
	v->dr[0] = CODE;
	v->dr7 = 0x402;
	assert_int_equal(step(f), X86_VEC_DB);
	assert_int_equal(v->gpr[X86_RCX], 3);
	flags = v->gpr[X86_RSP] + 16;
	st_le64(f->ram + flags, ld_le64(f->ram + flags) | X86_FL_RF);
	for (unsigned left = 3; left-- > 0;) {
		assert_int_equal(step(f), -1);
		v->dr6 = 0;
		assert_int_equal(step(f), X86_VEC_DB);
		assert_int_equal(v->dr6 & 0x400f, BIT64(14));
		assert_int_equal(v->gpr[X86_RCX], left);
		assert_int_equal(v->gpr[X86_RDI], 0x30003 - left);
		assert_int_equal(ld_le64(f->ram + flags - 16),
				 left ? CODE : CODE + 2);
		assert_int_equal(!!(ld_le64(f->ram + flags) & X86_FL_RF),
				 left != 0);
	}
	machine_free(f);
}

static void cpuid_hides_a_disabled_apic(void **state)
{
	struct fixture *f = machine_new();
	struct vcpu *v = f->v;
	u32 r[4];
	u64 base;

	(void)state;
	soft_cpuid(v, 1, 0, r);
	assert_true(r[3] & BIT32(9));
	assert_true(soft_rdmsr(v, X86_MSR_APIC_BASE, &base));
	assert_true(soft_wrmsr(v, X86_MSR_APIC_BASE, base & ~BIT64(11)));
	soft_cpuid(v, 1, 0, r);
	assert_false(r[3] & BIT32(9));
	soft_cpuid(v, 0x80000001u, 0, r);
	assert_false(r[3] & BIT32(9));
	machine_free(f);
}

static void flush_command_exists_as_cpuid_says(void **state)
{
	struct fixture *f = machine_new();
	struct kvm_cpuid2 *t = f->vm->cpuid;

	(void)state;
	assert_false(soft_wrmsr(f->v, 0x10b, 1));
	for (u32 i = 0; i < t->nent; i++)
		if (t->entries[i].function == 7 && !t->entries[i].index)
			t->entries[i].edx |= BIT32(28);
	assert_true(soft_wrmsr(f->v, 0x10b, 1));
	assert_false(soft_wrmsr(f->v, 0x10b, 2));
	machine_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(iret_to_user_keeps_the_base_of_a_nulled_gs),
		cmocka_unit_test(
			code_breakpoint_behind_mov_ss_waits_on_intel_only),
		cmocka_unit_test(watchpoint_hit_by_mov_ss_traps_behind_the_int),
		cmocka_unit_test(
			syscall_and_sysret_single_step_by_the_flags_they_load),
		cmocka_unit_test(
			each_iteration_of_a_string_instruction_is_a_step),
		cmocka_unit_test(cpuid_hides_a_disabled_apic),
		cmocka_unit_test(flush_command_exists_as_cpuid_says),
	};

	return test_run("longmode", tests);
}
