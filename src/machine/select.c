/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>

#include "kvm/kvm.h"
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

/* KVM is probed but not driven yet: the reason says so when it would do. */
int engine_select(enum machine_engine want, const struct engine_ops **out,
		  char reason[256], struct err *err)
{
	struct engine_probe probe;
	char why[256];

	if (want == MACHINE_ENGINE_SOFT)
		return use_soft(out, "asked for", reason, err);
	kvm_probe(&probe);
	if (want == MACHINE_ENGINE_KVM) {
		if (!probe.is_usable)
			return err_set(err, -ENOTSUP,
				       "KVM cannot be used here: %s; try "
				       "--engine soft",
				       probe.reason);
		return err_set(err, -ENOTSUP,
			       "this release has no KVM engine yet; use "
			       "--engine soft");
	}
	snprintf(why, sizeof(why), "KVM %s: %.200s",
		 probe.is_usable ? "works but this release cannot drive it"
				 : "cannot be used",
		 probe.reason);
	return use_soft(out, why, reason, err);
}
