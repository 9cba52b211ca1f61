/* SPDX-License-Identifier: Apache-2.0 */
/* The translator against the interpreter, block by block, while a guest runs.
 *
 * With engine_vm_config.lockstep_every = n, every n-th entry into generated
 * code is a check: the interpreter executes the block's instructions on copies
 * of the pages that it writes, then generated code executes them for good,
 * and both must leave the same. A difference is logged, and ends the vCPU's
 * run with VCPU_EXIT_ERROR. For machines with one vCPU.
 *
 * Everything here belongs to the vCPU's thread.
 */
#pragma once

#include "soft/xlat.h"

#define LOCKSTEP_PAGES 64

struct lockstep;

/* v->lockstep. NULL: out of memory. */
struct lockstep *lockstep_new(u32 every);
void lockstep_free(struct lockstep *s);

/* In place of an entry into generated code at v->rip. true: v->exit_kind says
 * why it was left. false: not this time. May raise. */
bool lockstep_run(struct vcpu *v);

/* ---- mmu.c, while v->on_copies ---- */

/* The page that stands for host page `real`: its copy, made if is_write. NULL:
 * there is no more room for copies. */
u8 *lockstep_page(struct vcpu *v, u8 *real, bool is_write);
/* The interpreter would do what cannot be done twice: it stops in front. */
void lockstep_stop(struct vcpu *v) NORETURN;

/* What mmu_leaf.c needs to know of the copies: a map of host pages. */
struct lockstep_map {
	u32 count;
	u8 *real[LOCKSTEP_PAGES];
	u8 *copy[LOCKSTEP_PAGES];
};
static inline u8 *lockstep_find(const struct lockstep_map *m, u8 *real)
{
	for (u32 i = 0; i < m->count; i++)
		if (m->real[i] == real)
			return m->copy[i];
	return NULL;
}
