/* SPDX-License-Identifier: Apache-2.0 */
/* Memory accesses of a trace that can share one TLB lookup.
 *
 * Accesses whose addresses differ by constants that are known when the block
 * is made (the same base and index registers with the same values, changed by
 * constants only) form a group if they lie close together. The first one, the
 * head, looks up the whole span; the others use the host address that it
 * found. A span that crosses a page, or that the head may not access as all
 * members need it, leaves for a twin of the block without groups.
 *
 * A lookup destroys the flags. A head that stands where flags are live, as
 * between CMP and its jump, looks up earlier: in front of an instruction where
 * none is live, if its registers are the same there.
 */
#pragma once

#include "soft/trace.h"

#define GROUPS_MAX  40
#define GROUP_SLOTS 16	 /* in v->group */
#define GROUP_SPAN  512u /* bytes */
#define GROUP_NONE  0xff
#define GROUP_HOIST 6 /* over at most so many instructions */

/* Which of an instruction's accesses. */
enum { ACCESS_OPERAND, ACCESS_STACK, ACCESS_KINDS };

struct access {
	u8 group; /* or GROUP_NONE */
	bool is_head;
	i32 rel; /* of the access to the group's first byte */
};

struct group {
	i64 min, max; /* relative to the key's registers; max: behind the end */
	bool is_write;
	u8 count;
	u8 slot;
};

struct groups {
	struct group groups[GROUPS_MAX];
	unsigned n;
	struct access at[XLAT_TRACE_MAX][ACCESS_KINDS];
	/* Which instruction's head looks up in front of this one: its index +
	 * 1, or 0. That access is a member then. */
	u8 early[XLAT_TRACE_MAX];
};

/* 64-bit code only; for other traces there are none. */
void groups_find(struct groups *g, const struct xlat_trace *t);
