/* SPDX-License-Identifier: Apache-2.0 */
#include "test/test.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "x86/cpuid.h"

static struct kvm_cpuid2 *build(const char *model, u32 vcpus)
{
	struct x86_cpuid_config cfg = {.model = model,
				       .vcpu_count = vcpus,
				       .tsc_khz = 2500000,
				       .ram_top = 1 * GIB};
	struct kvm_cpuid2 *t = NULL;
	struct err err = {0};

	assert_int_equal(x86_cpuid_build(&cfg, &t, &err), 0);
	assert_non_null(t);
	return t;
}

static void unknown_model_is_refused_and_known_ones_are_listed(void **state)
{
	struct x86_cpuid_config cfg = {.model = "v9", .vcpu_count = 1};
	struct kvm_cpuid2 *t = NULL;
	struct err err = {0};

	assert_int_equal(x86_cpuid_build(&cfg, &t, &err), -EINVAL);
	assert_non_null(strstr(err.text, "host-v3"));
	assert_null(t);
}

static void features_that_no_engine_makes_are_never_shown(void **state)
{
	struct kvm_cpuid2 *t = build(NULL, 2);
	const struct kvm_cpuid_entry2 *e = x86_cpuid_find(t, 1, 0);

	assert_int_equal(e->ecx & (BIT32(3) | BIT32(5)), 0); /* MONITOR VMX */
	assert_int_equal(e->edx & BIT32(1), 0);		     /* VME */
	e = x86_cpuid_find(t, 7, 0);
	/* SMAP, AVX512F, HLE, RTM, MPX */
	assert_int_equal(e->ebx & (BIT32(20) | BIT32(16) | BIT32(4) |
				   BIT32(11) | BIT32(14)),
			 0);
	assert_int_equal(e->ecx & (BIT32(16) | BIT32(3) | BIT32(7)), 0);
	e = x86_cpuid_find(t, 0xd, 0);
	assert_int_equal(e->eax & ~7u, 0);
	e = x86_cpuid_find(t, 0xd, 1);
	assert_int_equal(e->eax & BIT32(3), 0); /* XSAVES */
	free(t);
}

static void mitigations_are_enumerated_as_unnecessary(void **state)
{
	struct kvm_cpuid2 *t = build(NULL, 1);
	u64 caps = x86_cpuid_arch_capabilities(t);

	assert_true(x86_cpuid_find(t, 7, 0)->edx & BIT32(29));
	/* RDCL_NO IBRS_ALL SSB_NO MDS_NO */
	assert_int_equal(caps & 0x33, 0x33);
	assert_int_equal(caps & BIT64(2), 0); /* RSBA */
	free(t);
}

static void hypervisor_leaves_carry_kvms_signature(void **state)
{
	struct kvm_cpuid2 *t = build("v1", 1);
	const struct kvm_cpuid_entry2 *e = x86_cpuid_find(t, 0x40000000, 0);
	char sig[13] = {0};

	memcpy(sig, &e->ebx, 4);
	memcpy(sig + 4, &e->ecx, 4);
	memcpy(sig + 8, &e->edx, 4);
	assert_string_equal(sig, "KVMKVMKVM");
	assert_int_equal(x86_cpuid_find(t, 0x40000010, 0)->eax, 2500000);
	free(t);
}

static void topology_levels_agree_with_the_vcpu_count(void **state)
{
	struct kvm_cpuid2 *t = build(NULL, 6);
	const struct kvm_cpuid_entry2 *e = x86_cpuid_find(t, 0xb, 1);

	assert_int_equal(e->eax, 3);
	assert_int_equal(e->ebx, 6);
	assert_int_equal(x86_cpuid_find(t, 0xb, 0)->eax, 0);
	assert_int_equal(x86_cpuid_find(t, 1, 0)->ebx >> 16 & 0xff, 6);
	free(t);
}

static void v1_allows_no_instruction_of_later_levels(void **state)
{
	struct kvm_cpuid2 *t = build("v1", 1);
	u64 bits = x86_cpuid_isa(t).bits;

	assert_true(bits & BIT64(ISA_F_BASE));
	assert_int_equal(bits & (BIT64(ISA_F_SSE3) | BIT64(ISA_F_POPCNT) |
				 BIT64(ISA_F_AVX) | BIT64(ISA_F_XSAVE)),
			 0);
	free(t);
}

static void presented_instructions_exist_on_the_host(void **state)
{
	/* These are made in C, on any host. */
	const u64 made =
		BIT64(ISA_F_RDTSCP) | BIT64(ISA_F_RDPID) | BIT64(ISA_F_INVPCID);
	struct kvm_cpuid2 *t = build(NULL, 1);
	u64 bits = x86_cpuid_isa(t).bits;

	assert_int_equal(bits & ~x86_cpuid_host_isa().bits & ~made, 0);
	free(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			unknown_model_is_refused_and_known_ones_are_listed),
		cmocka_unit_test(features_that_no_engine_makes_are_never_shown),
		cmocka_unit_test(mitigations_are_enumerated_as_unnecessary),
		cmocka_unit_test(hypervisor_leaves_carry_kvms_signature),
		cmocka_unit_test(topology_levels_agree_with_the_vcpu_count),
		cmocka_unit_test(v1_allows_no_instruction_of_later_levels),
		cmocka_unit_test(presented_instructions_exist_on_the_host),
	};

	return test_run("cpuid", tests);
}
