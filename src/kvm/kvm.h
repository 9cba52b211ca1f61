/* SPDX-License-Identifier: Apache-2.0 */
/* The KVM engine (engine_kvm, cpu/engine.h) and whether it is any good here. */
#pragma once

#include "cpu/engine.h"

/* Whether /dev/kvm runs a real 64-bit guest, right and fast enough. Takes at
 * most about 250 ms. out->reason is one line in any case. */
void kvm_probe(struct engine_probe *out);

/* The table that a guest of engine_kvm sees when `want` is asked for: without
 * the features that this host's KVM lacks. free() it. */
int kvm_cpuid_offer(const struct kvm_cpuid2 *want, struct kvm_cpuid2 **out,
		    struct err *err);
