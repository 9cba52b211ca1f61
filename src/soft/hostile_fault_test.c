// SPDX-License-Identifier: Apache-2.0
/* What a guest must not be let through, through whichever tier runs it: each
 * program takes faults by its own IDT, whose handlers count them and go on at
 * the address in r15. */
#include "test/test.h"

#include "soft/smpvm.h"

#define UD_COUNT 0x80018
#define GP_COUNT 0x80034
#define PASSED	 0x80100

SMP_CODE(ud_handler, "incl 0x80018\n mov %r15, (%rsp)\n iretq\n");
SMP_CODE(gp_handler, "incl 0x80034\n add $8, %rsp\n mov %r15, (%rsp)\n"
		     "iretq\n");

/* One instruction that must fault; PASSED counts those that did not. */
#define FAULTS(text) "lea 1f(%rip), %r15\n" text "\n incl 0x80100\n 1:\n"
#define WRMSR_FAR(index)                                                       \
	"mov $" #index                                                         \
	", %ecx\n mov $0x8000, %edx\n xor %eax, %eax\n" FAULTS("wrmsr")

// clang-format off
SMP_CODE(uses_avx,
	 FAULTS("vaddps %ymm0, %ymm1, %ymm2")
	 FAULTS("vpaddd %xmm0, %xmm1, %xmm2")
	 FAULTS("vzeroupper")
	 FAULTS("xgetbv")
	 SMP_DONE);
SMP_CODE(undefined,
	 FAULTS("ud2")
	 FAULTS(".byte 0x06")		  /* push es */
	 FAULTS(".byte 0x62, 0xf1, 0x7c, 0x48, 0x58, 0xc0") /* AVX-512 */
	 FAULTS(".byte 0xd5, 0x0a")	  /* aad */
	 FAULTS(".byte 0x0f, 0xff, 0xc0") /* ud0 */
	 FAULTS(".byte 0x0f, 0xb9, 0xc0") /* ud1 */
	 FAULTS(".byte 0xf0, 0x89, 0xc0") /* lock mov eax, eax */
	 FAULTS(".byte 0xf0, 0x8b, 0x07") /* lock mov eax, [rdi] */
	 SMP_DONE);
SMP_CODE(far_msrs,
	 WRMSR_FAR(0xc0000082)		/* LSTAR */
	 WRMSR_FAR(0xc0000083)		/* CSTAR */
	 WRMSR_FAR(0xc0000100)		/* FS base */
	 WRMSR_FAR(0xc0000101)		/* GS base */
	 WRMSR_FAR(0xc0000102)		/* kernel GS base */
	 WRMSR_FAR(0x175)		/* SYSENTER_ESP */
	 WRMSR_FAR(0x176)		/* SYSENTER_EIP */
	 SMP_DONE);
// clang-format on

static void expect_faults(const u8 *code, const u8 *end, u32 ud, u32 gp)
{
	struct smpvm *t = smp_new(1);

	SMP_LOAD(t, SMP_TRAP, ud_handler);
	SMP_LOAD(t, SMP_TRAP + 0x100, gp_handler);
	smp_gate(t, X86_VEC_UD, SMP_TRAP);
	smp_gate(t, X86_VEC_GP, SMP_TRAP + 0x100);
	smp_load(t, SMP_CODE0, code, end);
	t->v[0]->gpr[X86_RDI] = SMP_VARS + 0x200;
	smp_run(t);
	assert_int_equal(smp_ld32(t, PASSED), 0);
	assert_int_equal(smp_ld32(t, UD_COUNT), ud);
	assert_int_equal(smp_ld32(t, GP_COUNT), gp);
	assert_int_equal(t->v[0]->lstar, 0);
	assert_int_equal(t->v[0]->kernel_gs_base, 0);
	smp_free(t);
}

static void hostile_46_avx_without_osxsave_is_undefined(void **state)
{
	(void)state;
	expect_faults(uses_avx, uses_avx_end, 4, 0);
}

static void hostile_30_undefined_opcodes_give_ud(void **state)
{
	(void)state;
	expect_faults(undefined, undefined_end, 8, 0);
}

static void hostile_42_addresses_that_are_not_canonical_give_gp(void **state)
{
	(void)state;
	expect_faults(far_msrs, far_msrs_end, 0, 7);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hostile_30_undefined_opcodes_give_ud),
		cmocka_unit_test(
			hostile_42_addresses_that_are_not_canonical_give_gp),
		cmocka_unit_test(hostile_46_avx_without_osxsave_is_undefined),
	};

	return test_run("hostile_fault", tests);
}
