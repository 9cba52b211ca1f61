/* SPDX-License-Identifier: Apache-2.0 */
/* The options of run and launch. */
#pragma once

#include "cli/cli.h"

struct machine_options {
	const char *name, *network, *engine, *console, *cpu_model;
	const char *kernel, *initrd, *append, *debugcon;
	u32 cpus, timeout_s, lockstep;
	u64 memory_bytes;
	struct cli_list disks, forwards;
	const char *restore; /* the folder of a snapshot; NULL: power on */
	const u8 *new_mac;   /* it is restored as another machine; or NULL */
	bool rm, verbose, no_wait, debug_exit, test_devices, no_reboot,
		no_sandbox;
};

void machine_options_init(void *values);
