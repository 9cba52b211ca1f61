/* SPDX-License-Identifier: Apache-2.0 */
/* The software MMU's tables: what both tiers look things up in.
 *
 * A space is one privilege's view of one address space: v->super for CPL < 3
 * and implicit accesses, and one for user code for each of the PCIDs used last
 * (v->users; v->user is the current one, and GS.base points to it while
 * generated code runs). v->super has the current PCID's entries only, beside
 * global ones.
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
 * also that the address is executable here; it goes when the translation of
 * its page goes, or of the next page, if it is among the last 15 bytes. A jump
 *cache belongs to one mode key, jc_key.
 *
 * Slots. Each memory access of a block that runs often has one of its own in
 * user spaces: the tag and hva_page of the page that it touched last, in front
 * of the TLB and checked like it. A slot is a copy of a TLB entry's half and
 * may outlive the entry, so whatever takes an entry or a tag away empties the
 * slots, unless slot_pages says that none holds the page. An entry that only
 * gives way to another page's does not: `gone` keeps what it said, and when the
 * page comes back and that still holds, so does what slots say. The host
 *address in an empty slot is that of a page of its own, because no pattern is
 *one that generated code cannot compute.
 *
 * Only the vCPU's own thread touches a space.
 */
#pragma once

#include "base/types.h"

#define SOFT_TLB_ENTRIES 16384
#define SOFT_TLB_CHUNK	 64 /* entries that are cleared together */
#define SOFT_TLB_CHUNKS	 (SOFT_TLB_ENTRIES / SOFT_TLB_CHUNK)
#define SOFT_TLB_EMPTY	 0x8080808080808080ull
#define SOFT_JC_ENTRIES	 32768
#define SOFT_JC_CHUNK	 (SOFT_JC_ENTRIES / 64)

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

struct soft_slot {
	u64 tag;      /* the page's linear address, or SOFT_TLB_EMPTY */
	u64 hva_page; /* never that of memory when empty */
};
#define SOFT_SLOTS	4096 /* for loads, and for stores */
#define SOFT_SLOT_CHUNK (SOFT_SLOTS / 64)
#define SOFT_SLOT_PAGES 4096 /* bits of slot_pages */
#define SOFT_GONE	256

/* What a vCPU counts of its slots' misses (slots.h). */
struct slots_seen {
	u64 tsc; /* since when */
	u32 weight;
	u16 weights[2][SOFT_SLOTS];
};

/* What a space notes to find again later; what does not fit: look at all. */
#define SOFT_LOCAL_MAX	  256
#define SOFT_JC_LOCAL_MAX 1024
#define SOFT_LARGE_MAX	  16

struct soft_space {
	struct soft_tlb_entry tlb[SOFT_TLB_ENTRIES];
	struct soft_jc_entry jc[SOFT_JC_ENTRIES];
	/* Since the last flush: the TLB's chunks and the jump cache's 64ths
	 * that hold any. */
	u64 tlb_used[SOFT_TLB_CHUNKS / 64], jc_used;
	u32 jc_key;
	bool is_ready;	 /* false (zeroed memory): the next flush clears all */
	bool has_global; /* perhaps */
	/* Indexes of all entries that are not global (jc: whose code's page is
	 * not); a count above the maximum: not noted. */
	u32 local_count, jc_local_count;
	u16 local[SOFT_LOCAL_MAX], jc_local[SOFT_JC_LOCAL_MAX];
	/* va >> 30 of all entries that are pieces of large pages; [1]: of
	 * global ones. */
	struct soft_large_list {
		u32 count;
		u64 gib[SOFT_LARGE_MAX];
	} large[2];
	/* Bit soft_w_hash() for each page with a write tag, and perhaps for
	 * pages that had one. */
	u64 w_pages[64];
	/* Bit (va >> 12) & 4095 for each page with a jump-cache entry. */
	u64 jc_pages[64];
	/* By what kind of access; [1]: stores. */
	struct soft_slot slots[2][SOFT_SLOTS];
	u64 slots_used[2]; /* 64ths that hold any */
	/* Bit (va >> 12) & 4095 for each page in a slot. */
	u64 slot_pages[SOFT_SLOT_PAGES / 64];
	/* By soft_gone_index(): entries that gave way to others, of late. */
	struct soft_gone {
		u64 tag, hva_page;
		bool had_w;
	} gone[SOFT_GONE];
	u8 nowhere[2][4096]; /* where empty slots lead; [0] stays zero */
	/* A user space: whose it is. */
	u64 stamp; /* when it was last switched to */
	u64 root;  /* address of the top page table */
	u16 pcid;
	bool is_used;
};

/* What walks found on their way, by va >> 21; mmu_leaf.c. */
#define SOFT_WALK_LARGES 64
#define SOFT_WALK_PTS	 8
struct soft_walk_cache {
	/* 2 MiB pieces of large pages; bit i: there is a large[i], and it is
	 * global. */
	u64 large_used, large_global;
	struct soft_walk_large {
		u64 tag;
		gpa_t gpa;
		u64 rights; /* and X86_PTE_D */
	} large[SOFT_WALK_LARGES];
	/* Tables of the last level, of 4-level paging. */
	u64 pt_used;
	struct soft_walk_pt {
		u64 tag, root;
		gpa_t gpa;
		u8 *host;
		u64 rights;
	} pt[SOFT_WALK_PTS];
};

static inline unsigned soft_gone_index(u64 va)
{
	return (va >> 12 ^ va >> 26 ^ va >> 34) & (SOFT_GONE - 1);
}
static inline unsigned soft_tlb_index(u64 va)
{
	return (va >> 12) & (SOFT_TLB_ENTRIES - 1);
}
/* What the tags of a free entry i hold: no address that selects the entry
 * matches it, not even one that is not canonical. */
static inline u64 soft_tlb_empty(unsigned i)
{
	/* EMPTY's range begins in one page and ends in the next. */
	if (i - soft_tlb_index(SOFT_TLB_EMPTY) < 2)
		return SOFT_TLB_EMPTY | 0x0101010101010101ull;
	return SOFT_TLB_EMPTY;
}
static inline bool soft_tlb_is_empty(u64 tag)
{
	return tag & 4095;
}

/* The first chunk from `chunk` on that holds any; SOFT_TLB_CHUNKS: none. */
static inline unsigned soft_tlb_chunk(const struct soft_space *s,
				      unsigned chunk)
{
	while (chunk < SOFT_TLB_CHUNKS) {
		u64 used = s->tlb_used[chunk / 64] >> (chunk % 64);

		if (used)
			return chunk + (unsigned)__builtin_ctzll(used);
		chunk = (chunk | 63) + 1;
	}
	return chunk;
}
static inline void soft_tlb_set_used(struct soft_space *s, u64 chunks)
{
	for (unsigned i = 0; i < SOFT_TLB_CHUNKS / 64; i++)
		s->tlb_used[i] = chunks;
}
/* Each used chunk's first entry in turn. */
#define SOFT_TLB_FOR_CHUNKS(s, c)                                              \
	for (unsigned c = soft_tlb_chunk(s, 0); c < SOFT_TLB_CHUNKS;           \
	     c = soft_tlb_chunk(s, c + 1))
static inline unsigned soft_w_hash(u64 gpa)
{
	return (gpa >> 12 ^ gpa >> 24) & 4095;
}
/* As the code that lower_ctrl.c emits does it. A page's entries lie in one
 * aligned group of 4096. */
static inline unsigned soft_jc_index(u64 va)
{
	return (va ^ va >> 12) & (SOFT_JC_ENTRIES - 1);
}

static inline bool soft_slots_have_page(const struct soft_space *s, u64 va)
{
	return s->slot_pages[(va >> 18) & 63] >> ((va >> 12) & 63) & 1;
}
/* Empties all slots. Leaf-safe. */
void soft_slots_clear(struct soft_space *s);

/* What a free entry i holds: no address that selects it. Who is kicked looks
 * into entry 0 with any address: its code is the thunk for what is missing. */
static inline u64 soft_jc_empty(unsigned i)
{
	return i == soft_jc_index(SOFT_TLB_EMPTY) ? SOFT_TLB_EMPTY ^ 1
						  : SOFT_TLB_EMPTY;
}

/* Empties the jump cache. Leaf-safe, as soft_jc_insert is. */
static inline void soft_jc_flush(struct soft_space *s)
{
	u64 used = s->jc_used;

	s->jc_local_count = 0;
	if (!used)
		return;
	for (; used; used &= used - 1) {
		unsigned chunk = (unsigned)__builtin_ctzll(used);
		struct soft_jc_entry *e = &s->jc[chunk * SOFT_JC_CHUNK];

		for (unsigned i = 0; i < SOFT_JC_CHUNK; i++, e++)
			e->va = soft_jc_empty((unsigned)(e - s->jc));
	}
	s->jc_used = 0;
	for (unsigned i = 0; i < 64; i++)
		s->jc_pages[i] = 0;
}

static inline bool soft_jc_has_page(const struct soft_space *s, u64 va)
{
	return s->jc_pages[(va >> 18) & 63] >> ((va >> 12) & 63) & 1;
}

/* is_local: the translation of the code's pages is not global. */
static inline void soft_jc_insert(struct soft_space *s, u64 va,
				  const void *host, bool is_local)
{
	unsigned i = soft_jc_index(va);

	if (!i) /* for who is kicked, see v->go */
		return;
	s->jc_used |= 1ull << (i / SOFT_JC_CHUNK);
	s->jc_pages[(va >> 18) & 63] |= 1ull << ((va >> 12) & 63);
	if (is_local) {
		if (s->jc_local_count < SOFT_JC_LOCAL_MAX)
			s->jc_local[s->jc_local_count++] = (u16)i;
		else
			s->jc_local_count = SOFT_JC_LOCAL_MAX + 1;
	}
	s->jc[i].host = host;
	s->jc[i].va = va;
}
