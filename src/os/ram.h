/* SPDX-License-Identifier: Apache-2.0 */
/* Guest RAM: private memory of this process, so that a forked child sees it
 * as it was (migrate/memory_save.h) while the guest goes on writing. */
#pragma once

#include "base/err.h"
#include "base/types.h"

/* Maps `size` bytes (whole pages) of zeroes, in huge pages where the host
 * allows. Memory is taken when it is touched. -errno; release with
 * os_ram_free. */
int os_ram_alloc(u64 size, u8 **out_hva, struct err *err);
/* The same with the content of fd, a regular file of exactly `size` bytes,
 * read when it is touched. The file is never written, and must not become
 * shorter while it is mapped. fd may be closed. */
int os_ram_map(int fd, u64 size, u8 **out_hva, struct err *err);
void os_ram_free(u8 *hva, u64 size);
