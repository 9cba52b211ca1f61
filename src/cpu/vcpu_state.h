/* SPDX-License-Identifier: Apache-2.0 */
/* The whole architectural state of one vCPU, in the structs of the KVM API,
 * so that a state saved under one engine loads under the other.
 *
 * Taken only between instructions, with no half-delivered event. Translation
 * caches and everything else that can be derived is not in it. */
#pragma once

#include <linux/kvm.h>

#include "base/types.h"
#include "state/state.h"

#define VCPU_MSRS_MAX 128

struct vcpu_state {
	struct kvm_regs regs;
	struct kvm_sregs2 sregs;
	struct kvm_xsave xsave; /* standard format */
	struct kvm_xcrs xcrs;
	struct kvm_debugregs debugregs;
	struct kvm_vcpu_events events;
	struct kvm_mp_state mp_state;
	struct kvm_lapic_state lapic;
	u32 msr_count;
	struct kvm_msr_entry msrs[VCPU_MSRS_MAX]; /* ascending index */
};

/* The MSRs that a saved vCPU carries (engine.md appendix C, column S). */
extern const u32 vcpu_state_msrs[];
extern const size_t vcpu_state_msr_count;

/* The visitor: save, load (checked for ranges) and dump. */
void vcpu_state_visit(struct vcpu_state *vs, struct state *s);
