/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>

#include "machine/machine_int.h"

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

/* auto: KVM where its probe passes, else the soft engine. */
int engine_select(enum machine_engine want, const struct engine_ops **out,
		  char reason[256], struct err *err)
{
	struct engine_probe probe;
	char why[256];

	if (want == MACHINE_ENGINE_SOFT)
		return use_soft(out, "asked for", reason, err);
	engine_kvm.probe(&probe);
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
