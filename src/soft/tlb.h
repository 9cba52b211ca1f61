/* SPDX-License-Identifier: Apache-2.0 */
/* The software MMU's tables: what both tiers look things up in.
 *
 * A space is one privilege's view of one address space: v->super for CPL < 3
 * and implicit accesses, one for each PCID slot for user code (v->user is the
 * current one, and GS.base points to it while generated code runs).
 *
 * TLB. Direct mapped. A tag is the page's linear address when that kind of
 * access may go straight to hva_page + offset; the check
 *
 *	va - tag <= 4096 - size	(unsigned)
 *
 * also catches a page crossing. An entry is empty when its tag is a pattern
 * that no canonical address can match. tag_w is set only when the PTE is
 * writable and dirty, and the page may be written without anybody being told
 * (no code in it, dirty log already set, not ROM).
 *
 * Jump cache. Direct mapped, from a linear address to the generated code of
 * the block that starts there (its entry for indirect jumps). An entry says
 * also that the address is executable here; it goes when the page's
 * translation goes. A jump cache belongs to one mode key, jc_key.
 *
 * Only the vCPU's own thread touches a space.
 */
#pragma once

#include "base/types.h"

#define SOFT_TLB_ENTRIES 4096
#define SOFT_TLB_EMPTY	 0x8080808080808080ull
#define SOFT_JC_ENTRIES	 4096

struct soft_tlb_entry {
	u64 tag_r, tag_w;
	u64 hva_page; /* host address of the page's first byte */
	u64 meta;     /* GPA page | SOFT_TLB_* */
};
_Static_assert(sizeof(struct soft_tlb_entry) == 32, "the emitter shifts");
#define SOFT_TLB_GLOBAL BIT64(0)
#define SOFT_TLB_LARGE	BIT64(1)
#define SOFT_TLB_USER	BIT64(2)
#define SOFT_TLB_EXEC	BIT64(3) /* may be fetched from */

struct soft_jc_entry {
	u64 va;		  /* SOFT_TLB_EMPTY: free */
	const void *host; /* in the code cache */
};
_Static_assert(sizeof(struct soft_jc_entry) == 16, "the emitter shifts");

struct soft_space {
	struct soft_tlb_entry tlb[SOFT_TLB_ENTRIES];
	struct soft_jc_entry jc[SOFT_JC_ENTRIES];
	/* Since the last flush: chunks of 64 entries that hold any. */
	u64 tlb_used, jc_used;
	/* Bit (va >> 12) & 63 for each page with a jump-cache entry. */
	u64 jc_pages;
	u32 jc_key;
	bool has_large; /* since the last flush: INVLPG must look further */
	bool is_ready;	/* false (zeroed memory): the next flush clears all */
	/* Bit (va >> 30) & 63 for each large page that was entered. */
	u64 large_gib;
};

static inline unsigned soft_tlb_index(u64 va)
{
	return (va >> 12) & (SOFT_TLB_ENTRIES - 1);
}
/* As the code that lower_ctrl.c emits does it. */
static inline unsigned soft_jc_index(u64 va)
{
	return (va ^ va >> 12) & (SOFT_JC_ENTRIES - 1);
}

/* Empties the jump cache. Leaf-safe, as soft_jc_insert is. */
static inline void soft_jc_flush(struct soft_space *s)
{
	u64 used = s->jc_used;

	for (; used; used &= used - 1) {
		unsigned chunk = (unsigned)__builtin_ctzll(used);
		struct soft_jc_entry *e = &s->jc[chunk * 64];

		for (unsigned i = 0; i < 64; i++, e++)
			e->va = SOFT_TLB_EMPTY;
	}
	s->jc_used = s->jc_pages = 0;
}

static inline void soft_jc_insert(struct soft_space *s, u64 va,
				  const void *host)
{
	unsigned i = soft_jc_index(va);

	s->jc_used |= 1ull << (i / 64);
	s->jc_pages |= 1ull << ((va >> 12) & 63);
	s->jc[i].host = host;
	s->jc[i].va = va;
}
