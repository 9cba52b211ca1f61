/* SPDX-License-Identifier: Apache-2.0 */
/* Random instruction sequences for the tests against the host CPU.
 *
 * A sequence is a list of items: instructions of isa.def, jumps and calls
 * forward, and one loop whose counter register no other item names. It ends at
 * UD2; behind that lies a subroutine. Half of the sequences are about groups
 * (group.h): most of their accesses lie at constant distances from one base
 * register, or from the code.
 *
 * Everything depends on oracle_rng alone.
 */
#pragma once

#include "soft/oracle_cases.h"

#define SEQ_ITEMS_MAX 30
#define SEQ_SUB_MAX   3
#define SEQ_TOTAL_MAX (SEQ_ITEMS_MAX + SEQ_SUB_MAX + 2)

enum seq_item_kind { SEQ_PLAIN, SEQ_JUMP, SEQ_END, SEQ_RET };

struct seq_item {
	u8 kind, len, target;
	u8 rip_disp; /* where the displacement of [rip + …] is, or 0 */
	u16 off, reads, writes, undefined;
	u32 rip_target;
	u8 bytes[16];
};

/* What the accesses of a group have in common. */
struct seq_group {
	bool is_on;
	u8 base, base2; /* base2 is base plus a constant, or not */
	u8 index, scale;
	i32 first; /* displacement of the span's first byte */
	u32 span;
	u32 rip_first; /* the same of those relative to RIP: an address */
};

struct seq {
	u8 mode, counter, n; /* items before the UD2, which is items[n] */
	u8 total;	     /* and the subroutine */
	u16 bytes;
	u64 rip;
	struct seq_group group;
	struct seq_item items[SEQ_TOTAL_MAX];
};

/* Flags. What the manuals leave undefined may differ in translated code. No
 * item reads a flag that may be undefined, by any way through the sequence. */
void seq_generate(struct seq *s, u8 mode, const struct isa_features *features);
/* Of these instructions, whose accesses go over the ends of pages by rCX. */
void seq_fixed(struct seq *s, u8 mode, const u8 (*insns)[16],
	       const struct isa_features *features);
/* Flags that may be undefined in front of each item: in[SEQ_TOTAL_MAX]. */
void seq_find_undefined(const struct seq *s, u16 *in);
/* Where accesses may go to: pages' ends, nothing, or the middle. */
u64 seq_pointer(void);

/* ---- seq_group.c ---- */

void seq_group_init(struct seq *s);
/* An item of a sequence about groups; false: try again. */
bool seq_group_item(struct seq_item *it, const struct seq *s,
		    const struct isa_features *features);
/* The registers that the group's addresses are made of. */
void seq_group_registers(const struct seq *s, u64 *gpr);
/* Rows that sequences have in them. */
bool seq_is_row_used(const struct isa_row *row,
		     const struct isa_features *features, u8 mode);
/* Does the instruction name the register, perhaps as a part? */
bool seq_names(const struct insn *in, unsigned reg);
