/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>

#include "machine/machine_int.h"
#include "x86/cpuid.h"

static int use_soft(const struct engine_ops **out, const char *why,
		    char reason[256], struct err *err)
{
	struct engine_probe probe;

	engine_soft.probe(&probe);
	if (!probe.is_usable)
		return err_set(err, -ENOTSUP, "the soft engine cannot run: %s",
			       probe.reason);
	snprintf(reason, 256, "%s", why);
	*out = &engine_soft;
	return 0;
}

/* Under KVM guests use the host CPU's page walks, which refuse addresses wider
 * than its own: the 64-bit window of devices must fit. */
static void check_width(struct engine_probe *probe)
{
	const u64 top = MAP_MMIO64 + MAP_MMIO64_BYTES - 1;
	u32 r[4], bits;

	x86_cpuid_host(0x80000008u, 0, r);
	bits = r[0] & 0xff;
	if (!probe->is_usable || bits >= 64 || !(top >> bits))
		return;
	probe->is_usable = false;
	snprintf(probe->reason, sizeof(probe->reason),
		 "the host's CPU has physical addresses of %u bits, and a "
		 "machine's devices lie above",
		 bits);
}

/* auto: KVM where its probe passes, else the soft engine. */
int engine_select(enum machine_engine want, const char *kvm_refused,
		  const struct engine_ops **out, char reason[256],
		  struct err *err)
{
	struct engine_probe probe;
	char why[256];

	if (want == MACHINE_ENGINE_SOFT)
		return use_soft(out, "asked for", reason, err);
	if (want == MACHINE_ENGINE_AUTO && kvm_refused && kvm_refused[0])
		return use_soft(out, kvm_refused, reason, err);
	engine_kvm.probe(&probe);
	check_width(&probe);
	if (want == MACHINE_ENGINE_KVM && !probe.is_usable)
		return err_set(err, -ENOTSUP,
			       "KVM cannot be used here: %s; try "
			       "--engine soft",
			       probe.reason);
	if (probe.is_usable) {
		snprintf(reason, 256, "KVM works: %.200s", probe.reason);
		*out = &engine_kvm;
		return 0;
	}
	snprintf(why, sizeof(why), "KVM cannot be used: %.200s", probe.reason);
	return use_soft(out, why, reason, err);
}
