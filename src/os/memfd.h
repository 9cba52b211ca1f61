/* SPDX-License-Identifier: Apache-2.0 */
/* Anonymous memory with a descriptor, for guest RAM: another process can map
 * it (vhost-user, migration), and it is counted as the VMM's own. */
#pragma once

#include "base/err.h"
#include "base/types.h"

/* Maps `size` bytes (whole pages) of zeroes, shared, huge pages where the
 * host allows. Memory is taken when it is touched. The descriptor is sealed
 * against resizing. -errno; release with os_ram_free. */
int os_ram_alloc(u64 size, const char *name, u8 **out_hva, int *out_fd,
		 struct err *err);
void os_ram_free(u8 *hva, u64 size, int fd);
