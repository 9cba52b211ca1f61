/* SPDX-License-Identifier: Apache-2.0 */
/* What a vmm has found out about this host, so that the next one need not: the
 * TSC's frequency (50 ms to measure) and that KVM cannot be used (up to 200 ms
 * to find out where it hangs). RUN/.host.json, of this boot of the host; the
 * second also of this /dev/kvm, and for an hour. Losing it costs time only.
 */
#pragma once

#include "base/types.h"

struct host_facts {
	u32 tsc_khz;	       /* 0: not known */
	char kvm_refused[256]; /* why; "": not known */
};

void host_facts_read(struct host_facts *out);
void host_facts_write(const struct host_facts *f);
