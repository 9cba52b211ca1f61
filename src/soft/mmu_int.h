/* SPDX-License-Identifier: Apache-2.0 */
/* Between the two halves of the software MMU: mmu_leaf.c walks and fills and
 * never raises; mmu.c raises, reaches devices and hands out pages.
 */
#pragma once

#include "soft/soft_int.h"

#define WALK_LEVELS  4
#define WALK_RETRIES 1000 /* after WALK_AGAIN; then it is hopeless */

struct walk_entry {
	u8 *host; /* NULL: not in RAM */
	gpa_t gpa;
	u64 value;
	bool is_wide; /* 8 bytes, else 4 */
	bool is_rom;
};

struct walk {
	gpa_t gpa;  /* of the byte at va */
	u64 rights; /* X86_PTE_W, _U, _NX accumulated; W U P NX */
	bool is_large;
	bool is_global;
	bool is_dirty;
	u32 error; /* WALK_FAULT: the #PF error code */
	u32 depth;
	u32 stored; /* bit i: entries[i] was written in memory */
	struct walk_entry entries[WALK_LEVELS];
};

enum walk_status {
	WALK_OK,
	WALK_FAULT,
	WALK_AGAIN, /* an entry changed under us */
	WALK_SLOW,  /* leaf callers only: a store that needs more than this */
};

/* soft_walk's flags */
#define WALK_DEBUG BIT32(0) /* no rights, no A and D */
#define WALK_LEAF  BIT32(1) /* WALK_SLOW for a table that holds code */

/* Walks the tables (or none with CR0.PG clear) for one access. A and D are
 * set only when it succeeds. va is canonical and wrapped. */
enum walk_status soft_walk(struct vcpu *v, gva_t va, unsigned how, u32 flags,
			   struct walk *w);
/* Enters a walked page. It may refuse, or enter it without a write tag. */
void soft_tlb_enter(struct vcpu *v, gva_t va, unsigned how,
		    const struct walk *w, u8 *host_page, bool is_rom);
/* The slot of a page that is RAM or ROM; NULL: a device's (the APIC's). */
const struct mem_slot *soft_walk_slot(struct vcpu *v, const struct walk *w);

/* tlb_leaf.c; leaf-safe. */
void soft_space_empty(struct soft_space *s);
void soft_space_purge(struct soft_space *s); /* but for what is global */
void soft_space_drop_page(struct soft_space *s, gva_t va, bool only_global);
void soft_spaces_drop_page(struct vcpu *v, gva_t va);
struct soft_space *soft_space_find(struct vcpu *v, u16 pcid);
struct soft_space *soft_space_pick(struct vcpu *v, bool must);
void soft_space_switch(struct vcpu *v, struct soft_space *to, u64 cr3,
		       bool keeps);

static inline u16 soft_pcid(const struct vcpu *v)
{
	return v->cr4 & X86_CR4_PCIDE ? v->cr3 & 0xfff : 0;
}
static inline void soft_walks_drop(struct vcpu *v, bool is_cr3)
{
	struct soft_walk_cache *c = &v->walks;

	c->large_used = is_cr3 ? c->large_used & c->large_global : 0;
	if (!is_cr3)
		c->pt_used = 0;
}

static inline bool soft_access_is_user(const struct vcpu *v, unsigned how)
{
	return v->cpl == 3 && !(how & SOFT_SUPER);
}
/* Outside 64-bit code an access that runs over 4 GiB wraps. Implicit accesses
 * use 64-bit addresses wherever long mode is active. */
static inline gva_t soft_va_wrap(const struct vcpu *v, gva_t va, unsigned how)
{
	bool is_wide =
		(how & SOFT_SUPER) ? v->is_long : v->code_mode == X86_MODE_64;

	return is_wide ? va : (u32)va;
}
/* The TLB entry that admits this access to va, or NULL. */
static inline struct soft_tlb_entry *soft_tlb_hit(struct vcpu *v, gva_t va,
						  unsigned how)
{
	unsigned i = soft_tlb_index(va);
	struct soft_tlb_entry *e = soft_access_is_user(v, how)
					   ? &v->user->tlb[i]
					   : &v->super_now->tlb[i];

	if ((va & ~0xfffull) != ((how & SOFT_W) ? e->tag_w : e->tag_r))
		return NULL;
	if ((how & SOFT_X) && !(e->meta & SOFT_TLB_EXEC))
		return NULL;
	return e;
}
