/* SPDX-License-Identifier: Apache-2.0 */
/* What the process of a machine may ask of the kernel once the machine is
 * built: a seccomp filter for all its threads, no new privileges, no core
 * files.
 *
 * Before: every file is open, code memory is mapped, the threads that open
 * anything have done so. Afterwards threads can still be started; nothing
 * lifts the filter.
 */
#pragma once

#include "base/err.h"
#include "base/types.h"

struct sandbox_options {
	bool has_network; /* Internet sockets, for the user network */
	bool has_kvm;	  /* the ioctls of the KVM engine */
};

/* Installs the filter in all threads of the process. -ENOSYS: the kernel has
 * no seccomp filters; nothing was changed but the limit on core files. */
int sandbox_install(const struct sandbox_options *how, struct err *err);
