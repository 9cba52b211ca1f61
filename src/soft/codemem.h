/* SPDX-License-Identifier: Apache-2.0 */
/* Executable memory: one object mapped twice, to write and to run.
 *
 * Owner-allocated, opened before the sandbox closes: nothing executable is
 * mapped later. Sparse: what is not written costs nothing. An open object is
 * known to soft_code_contains(), process-wide.
 */
#pragma once

#include "base/err.h"
#include "base/types.h"

struct soft_codemem {
	u8 *rw;
	u8 *rx;
	size_t size;
	unsigned map_index;
};

/* size: whole pages. Negative errno, with *err set. */
int soft_codemem_open(struct soft_codemem *m, size_t size, struct err *err);
/* Says whose code it is, for soft_code_owner(). */
void soft_codemem_set_owner(struct soft_codemem *m, void *owner);
void soft_codemem_close(struct soft_codemem *m);
/* Whole pages that will be written soon: one call of the host instead of a
 * fault for each. */
void soft_codemem_populate(struct soft_codemem *m, size_t off, size_t len);
/* Gives whole pages [off, off + len) back to the host; they read as zeroes. */
void soft_codemem_discard(struct soft_codemem *m, size_t off, size_t len);

/* Is pc in any open object? Async-signal-safe. */
bool soft_code_contains(const void *pc);
/* The owner of the object that holds pc, or NULL. Async-signal-safe. */
void *soft_code_owner(const void *pc);
