/* SPDX-License-Identifier: Apache-2.0 */
/* Which memory accesses look into a slot of their own (tlb.h) in front of the
 * TLB: those of user code that runs often, but for accesses whose page changes
 * all the time.
 *
 * Where code runs often is seen by samples: the block at which generated code
 * was when it was kicked, mostly by the guest's timer. A block that was seen
 * twice and those that it is linked to are promoted: killed, so that they are
 * translated again, with slots. Misses are counted by slot; when they take too
 * much time, the worst sites are demoted: they look into the TLB again, by a
 * further translation.
 *
 * A site is an instruction. Slots are numbered round and round as code is
 * made, so the sites of a block lie together, and of old code some may share.
 */
#pragma once

#include "soft/soft_int.h"

#define SLOTS_HASH BIT32(16)

struct xlat;
struct xlat_block;

struct slot_site {
	gpa_t gpa; /* of the instruction */
	u32 block; /* index; 0: nobody's */
};

/* Of a VM; under the translator's lock. */
struct slots {
	bool is_forced; /* all user code is promoted: for tests */
	u32 next[2];
	u32 tokens; /* blocks that may be promoted now */
	u64 tokens_tsc;
	struct slot_site sites[2][SOFT_SLOTS];
	/* By hash of GPA: blocks promoted, instructions demoted. */
	u64 hot[SLOTS_HASH / 64], bad[SLOTS_HASH / 64];
	u8 lengths[SLOTS_HASH]; /* by GPA: of blocks killed, in instructions */
	u64 promotions, demotions;
};

/* Misses' weight at which the worst sites are demoted, and generated code is
 * left for that: about 1000 misses to random pages. */
#define SLOTS_WEIGHT_MAX 16000u
/* Weights. An access that walks through pages one by one uses each for long,
 * mostly; one that finds its slot empty is not to blame. */
#define SLOTS_WEIGHT_EMPTY  2u
#define SLOTS_WEIGHT_NEXT   2u
#define SLOTS_WEIGHT_RANDOM 16u

/* Under the lock: is the user block at gpa to have slots? */
bool slots_wanted(const struct slots *s, gpa_t gpa);
/* Under the lock: a slot for the instruction at gpa in the block that will
 * have this index: its offset in struct soft_space, or 0: the TLB. */
u32 slots_take(struct slots *s, bool is_write, gpa_t gpa, u32 block);
/* Under the lock: how many instructions the block at gpa had when it was killed
 * to be made again; 0: it was not. */
unsigned slots_length(const struct slots *s, gpa_t gpa);
/* Under the lock: no code is left. */
void slots_reset(struct slots *s);
/* All user code that is translated from now on has slots. */
void slots_force(struct xlat *x);

/* v was kicked out of generated code: a sample, and a look at the misses. */
void slots_kicked(struct vcpu *v);

/* Leaf. The slot at byte `off` of v's user space now admits this access to the
 * page of va; false: it did before, so the access crosses the page's end, or
 * the TLB cannot be filled: see soft_tlb_fill_leaf(). */
bool slots_fill_leaf(struct vcpu *v, gva_t va, unsigned how, u32 off);
