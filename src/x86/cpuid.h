/* SPDX-License-Identifier: Apache-2.0 */
/* Named CPU models: the CPUID leaves that a guest sees.
 *
 * Models: "host-v3" (default: the host's identity, features = host and the
 * allow-list), "v2", "v3" (fixed x86-64-v2/v3, synthetic identity), "v1".
 * The table has the format of KVM_SET_CPUID2. Bits that depend on the vCPU
 * or on its state (APIC id, OSXSAVE, leaf D.0 EBX) hold vCPU 0's power-on
 * values; the engine fills them in.
 */
#pragma once

#include <linux/kvm.h>

#include "base/err.h"
#include "base/types.h"
#include "x86/isa.h"

struct x86_cpuid_config {
	const char *model; /* NULL: "host-v3" */
	u32 vcpu_count;
	u32 tsc_khz;
	u64 ram_top; /* highest GPA + 1, for MAXPHYADDR */
	bool is_honest; /* mitigations=honest: host's enumeration */
};

/* *out_table is malloc'ed. -EINVAL for an unknown model (the error lists the
 * known ones), -ENOTSUP when the host lacks a feature of a fixed model. */
int x86_cpuid_build(const struct x86_cpuid_config *cfg,
		    struct kvm_cpuid2 **out_table, struct err *err);
const struct kvm_cpuid_entry2 *x86_cpuid_find(const struct kvm_cpuid2 *table,
					      u32 leaf, u32 subleaf);
/* Which rows of isa.def the table allows. */
struct isa_features x86_cpuid_isa(const struct kvm_cpuid2 *table);
/* IA32_ARCH_CAPABILITIES to go with the table. */
u64 x86_cpuid_arch_capabilities(const struct kvm_cpuid2 *table);
/* Host execution of CPUID (slow under virtualization: cached by callers). */
void x86_cpuid_host(u32 leaf, u32 subleaf, u32 out[4]);
/* The features that this host can execute natively. */
struct isa_features x86_cpuid_host_isa(void);
