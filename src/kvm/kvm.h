/* SPDX-License-Identifier: Apache-2.0 */
/* The KVM engine: so far its functional probe. */
#pragma once

#include "cpu/engine.h"

/* Whether /dev/kvm runs a real 64-bit guest, right and fast enough. Takes at
 * most about 250 ms. out->reason is one line in any case. */
void kvm_probe(struct engine_probe *out);
