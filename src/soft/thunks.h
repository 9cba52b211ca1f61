/* SPDX-License-Identifier: Apache-2.0 */
/* The thunks: hand-written pieces between C and generated code.
 *
 * "leaves" means: stores the guest's registers into struct vcpu and returns
 * from xlat_enter(). Unless said otherwise, flags are in v->aflags.
 */
#pragma once

#include "base/types.h"

enum xlat_thunk {
	XT_ENTER,     /* C: void (struct vcpu *, const void *code) */
	XT_EXIT,      /* EAX page offset, ECX exit kind: leaves */
	XT_EXIT_VA,   /* RAX linear address, ECX exit kind: leaves */
	XT_EXIT_KEEP, /* v->rip and v->exit_kind are set: leaves */
	/* Called by an exit that is not linked, flags in RFLAGS; behind the
	 * call XLAT_CHAIN_BYTES: jumps on, or leaves. */
	XT_CHAIN,
	XT_JC_MISS, /* RAX linear address: jumps on, or leaves */
	XT_FAULT,   /* v->rip is set, RAX the trap: leaves */
	/* Called by the entries of dead blocks: leaves. Flags are in RFLAGS,
	 * and in v->aflags. */
	XT_DEAD_DIRECT,
	XT_DEAD_INDIRECT,
	/* Called by COLD_LOOKUP, see there. */
	XT_SLOW_R_SUPER,
	XT_SLOW_W_SUPER,
	XT_SLOW_R_USER,
	XT_SLOW_W_USER,
	/* The same of COLD_GROUP; what fails goes on behind the jmp. */
	XT_GROUP_R_SUPER,
	XT_GROUP_W_SUPER,
	XT_GROUP_R_USER,
	XT_GROUP_W_USER,
	/* The same of accesses by a slot, ECX: its offset. */
	XT_SLOT_R,
	XT_SLOT_W,
	XT_SLOT_GROUP_R,
	XT_SLOT_GROUP_W,
	/* Leaf functions: EAX page offset | length << 16, ECX argument.
	 * See lower_leaf(). */
	XT_LEAF_STR,
	/* The same for REP MOVS and REP STOS of 1, 2, 4, 8 bytes in 64-bit
	 * code, super and user: what stays in its pages is done here. */
	XT_REP_STR,
	XT_REP_STR_LAST = XT_REP_STR + 15,
	XT_LEAF_SYSCALL,
	XT_LEAF_SYSRET,
	XT_LEAF_IRETQ,
	XT_LEAF_SWAPGS,
	XT_LEAF_PUSHF,
	XT_LEAF_POPF,
	XT_LEAF_RDTSC,
	XT_LEAF_RDPID,
	XT_LEAF_RDMSR,
	XT_LEAF_WRMSR,
	XT_LEAF_RDCR,
	XT_LEAF_CLTS,
	XT_LEAF_WRCR,
	XT_LEAF_INVLPG,
	XT_LEAF_PAUSE,
	XT_LEAF_RDBASE,
	XT_LEAF_WRBASE,
	XT_COUNT,
};

/* log2_n: of the element's bytes. */
static inline unsigned xlat_rep_thunk(bool is_stos, unsigned log2_n,
				      bool is_user)
{
	return XT_REP_STR + (is_stos ? 8u : 0u) + 2 * log2_n +
	       (is_user ? 1u : 0u);
}

struct xlat;
/* Emits them at the start of x's code memory. */
void xlat_make_thunks(struct xlat *x);
