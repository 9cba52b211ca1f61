/* SPDX-License-Identifier: Apache-2.0 */
/* The SMBIOS tables: a 64-bit entry point and the records for firmware,
 * system, chassis and end. They name the machine to the guest (dmidecode,
 * systemd-detect-virt). Source: SMBIOS 3.6 §5.2.2, §6.1, §7.1-7.4, §7.46. */
#pragma once

#include "base/err.h"
#include "base/types.h"
#include "mem/mem.h"

struct smbios_config {
	struct mem *mem;
	const char *name; /* the machine's, as its serial number; "" allowed */
	u8 uuid[16];	  /* RFC 4122 byte order; zeros: not present */
};

/* Writes into BOOT_SMBIOS_GPA…, where kernels scan for the anchor. */
int smbios_build(const struct smbios_config *cfg, struct err *err);
