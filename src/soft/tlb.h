/* SPDX-License-Identifier: Apache-2.0 */
/* The softmmu TLB: the layout that both tiers use.
 *
 * Direct mapped, 4096 entries, one table for supervisor accesses (CPL < 3 and
 * implicit ones) and one for user. A tag is the page's linear address when
 * that kind of access may go straight to hva_page + offset; the check
 *
 *	va - tag <= 4096 - size	(unsigned)
 *
 * also catches a page crossing. An entry is empty when its tag is a pattern
 * that no canonical address can match. tag_w is set only when the PTE is
 * writable and dirty, and the page may be written without anybody being told
 * (no code in it, dirty log already set, not ROM).
 */
#pragma once

#include "base/types.h"

#define SOFT_TLB_ENTRIES 4096
#define SOFT_TLB_EMPTY	 0x8080808080808080ull

struct soft_tlb_entry {
	u64 tag_r, tag_w;
	u64 hva_page; /* host address of the page's first byte */
	u64 meta; /* GPA page | SOFT_TLB_* */
};
#define SOFT_TLB_GLOBAL BIT64(0)
#define SOFT_TLB_LARGE	BIT64(1)
#define SOFT_TLB_USER	BIT64(2)
#define SOFT_TLB_EXEC	BIT64(3) /* may be fetched from */

struct soft_tlb {
	struct soft_tlb_entry super[SOFT_TLB_ENTRIES];
	struct soft_tlb_entry user[SOFT_TLB_ENTRIES];
	bool has_large; /* since the last flush: INVLPG must look further */
	bool is_ready; /* false (zeroed memory): the next flush clears all */
	/* Since the last flush: chunks of 64 entries that hold any, so that a
	 * flush touches only those. */
	u64 used_super, used_user;
	/* Bit (va >> 30) & 63 for each large page that was entered. */
	u64 large_gib;
};

static inline unsigned soft_tlb_index(u64 va)
{
	return (va >> 12) & (SOFT_TLB_ENTRIES - 1);
}
