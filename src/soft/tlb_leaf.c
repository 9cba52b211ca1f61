/* SPDX-License-Identifier: Apache-2.0 */
/* What makes translations go, and which space is the current one.
 *
 * THEORY. A space (tlb.h) notes the indexes of its entries that are not
 * global, so that a CR3 load costs as much as was entered since the last one;
 * when the list is full, all used chunks are looked at. Global entries go by
 * INVLPG and by what empties everything.
 *
 * PCIDs. The supervisor's space is purged at each CR3 load. User spaces stay:
 * there is one for each of the PCIDs used last, the least recently used one is
 * given away. A space whose PCID is loaded again with another root is purged,
 * which no guest can tell from a TLB that has forgotten. With CR4.PCIDE clear
 * there is PCID 0 only, and each load purges its space.
 *
 * The walk cache (v->walks) belongs to the current PCID, but for its tables:
 * those are tagged with the root, and go with whatever invalidates anything.
 *
 * This is leaf code: held to a list by scripts/check-leaf.
 *
 * Source: SDM 3A §4.10.
 */
#include "soft/mmu_int.h"
#include "soft/xlat_int.h"

static void entry_clear(const struct soft_space *s, struct soft_tlb_entry *e)
{
	e->tag_r = e->tag_w = soft_tlb_empty((unsigned)(e - s->tlb));
	e->meta = 0;
}

/* Clears the entries whose meta has, under the mask, this value. */
static void clear_where(struct soft_space *s, u64 mask, u64 value)
{
	SOFT_TLB_FOR_CHUNKS (s, chunk) {
		struct soft_tlb_entry *e = &s->tlb[SOFT_TLB_CHUNK * chunk];

		for (unsigned i = 0; i < SOFT_TLB_CHUNK; i++, e++)
			if ((e->meta & mask) == value)
				entry_clear(s, e);
	}
}

/* ---- whole spaces ---- */

static void forget_write_tags(struct soft_space *s)
{
	for (unsigned i = 0; i < 64; i++)
		s->w_pages[i] = 0;
}

void soft_space_empty(struct soft_space *s)
{
	if (!s->is_ready) {
		soft_tlb_set_used(s, ~0ull);
		s->jc_used = ~0ull;
		s->slots_used[0] = s->slots_used[1] = ~0ull;
	}
	s->is_ready = true;
	clear_where(s, 0, 0);
	soft_slots_clear(s);
	soft_tlb_set_used(s, 0);
	forget_write_tags(s);
	soft_jc_flush(s);
	s->has_global = false;
	s->local_count = 0;
	s->large[0].count = s->large[1].count = 0;
}

static void purge_tlb(struct soft_space *s)
{
	soft_slots_clear(s);
	if (s->local_count > SOFT_LOCAL_MAX) {
		clear_where(s, SOFT_TLB_GLOBAL, 0);
	} else {
		for (u32 i = 0; i < s->local_count; i++) {
			struct soft_tlb_entry *e = &s->tlb[s->local[i]];

			if (!(e->meta & SOFT_TLB_GLOBAL))
				entry_clear(s, e);
		}
	}
	s->local_count = 0;
	s->large[0].count = 0;
	if (!s->has_global) {
		soft_tlb_set_used(s, 0);
		forget_write_tags(s);
	}
}

static void purge_jc(struct soft_space *s)
{
	if (s->jc_local_count > SOFT_JC_LOCAL_MAX) {
		soft_jc_flush(s);
		return;
	}
	for (u32 i = 0; i < s->jc_local_count; i++)
		s->jc[s->jc_local[i]].va = soft_jc_empty(s->jc_local[i]);
	s->jc_local_count = 0;
}

void soft_space_purge(struct soft_space *s)
{
	if (!s->is_ready) {
		soft_space_empty(s);
		return;
	}
	purge_tlb(s);
	purge_jc(s);
}

/* ---- one page ---- */

static bool may_have_large(const struct soft_space *s, gva_t va)
{
	for (unsigned k = 0; k < 2; k++) {
		const struct soft_large_list *l = &s->large[k];

		if (l->count > SOFT_LARGE_MAX)
			return true;
		for (u32 i = 0; i < l->count; i++)
			if (l->gib[i] == va >> 30)
				return true;
	}
	return false;
}

/* Drops the pieces of large pages in va's GiB. */
static void drop_large(struct soft_space *s, gva_t va, u64 mask)
{
	SOFT_TLB_FOR_CHUNKS (s, chunk) {
		struct soft_tlb_entry *e = &s->tlb[SOFT_TLB_CHUNK * chunk];

		for (unsigned i = 0; i < SOFT_TLB_CHUNK; i++, e++)
			if ((e->meta & mask) == mask &&
			    e->tag_r >> 30 == va >> 30)
				entry_clear(s, e);
	}
}

static void drop_jc_at(struct soft_space *s, gva_t va)
{
	struct soft_jc_entry *e = &s->jc[soft_jc_index(va)];

	if (e->va == va)
		e->va = soft_jc_empty((unsigned)(e - s->jc));
}

/* Blocks may reach into va's page from the last bytes of the one before. */
static void drop_jc_page(struct soft_space *s, gva_t va)
{
	u64 page = va & ~(PAGE_BYTES - 1);
	/* Where all of a page's entries are, see soft_jc_index(). */
	struct soft_jc_entry *e =
		&s->jc[soft_jc_index(page) & ~(unsigned)(PAGE_BYTES - 1)];

	if (soft_jc_has_page(s, page))
		for (unsigned i = 0; i < PAGE_BYTES; i++, e++)
			if (e->va - page < PAGE_BYTES)
				e->va = soft_jc_empty((unsigned)(e - s->jc));
	for (u64 at = page - X86_INSN_MAX; at != page; at++) {
		drop_jc_at(s, at);
		if (!page) /* of 32-bit code */
			drop_jc_at(s, (u32)at);
	}
}

void soft_space_drop_page(struct soft_space *s, gva_t va, bool only_global)
{
	u64 want = only_global ? SOFT_TLB_GLOBAL : 0;
	struct soft_tlb_entry *e = &s->tlb[soft_tlb_index(va)];

	if (only_global && !s->has_global)
		return;
	if (!s->is_ready) {
		soft_space_empty(s);
		return;
	}
	if (e->tag_r >> 12 == va >> 12 && (e->meta & want) == want)
		entry_clear(s, e);
	if (soft_slots_have_page(s, va))
		soft_slots_clear(s);
	if (unlikely(may_have_large(s, va))) {
		drop_large(s, va, SOFT_TLB_LARGE | want);
		soft_slots_clear(s);
		soft_jc_flush(s);
	} else {
		drop_jc_page(s, va);
	}
}

void soft_spaces_drop_page(struct vcpu *v, gva_t va)
{
	v->fetch_page = SOFT_TLB_EMPTY;
	soft_walks_drop(v, false);
	soft_space_drop_page(&v->super, va, false);
	for (unsigned i = 0; i < SOFT_USER_SPACES; i++)
		if (v->users[i])
			soft_space_drop_page(v->users[i], va,
					     v->users[i] != v->user);
}

/* ---- PCIDs ---- */

struct soft_space *soft_space_find(struct vcpu *v, u16 pcid)
{
	for (unsigned i = 0; i < SOFT_USER_SPACES; i++)
		if (v->users[i] && v->users[i]->is_used &&
		    v->users[i]->pcid == pcid)
			return v->users[i];
	return NULL;
}

/* One that is free; else, if all are mapped or there is no choice, the least
 * recently used one. */
struct soft_space *soft_space_pick(struct vcpu *v, bool must)
{
	struct soft_space *oldest = NULL;

	for (unsigned i = 0; i < SOFT_USER_SPACES; i++) {
		struct soft_space *s = v->users[i];

		if (!s && !must)
			return NULL;
		if (s && !s->is_used)
			return s;
		if (s && (!oldest || s->stamp < oldest->stamp))
			oldest = s;
	}
	return oldest;
}

void soft_space_switch(struct vcpu *v, struct soft_space *to, u64 cr3,
		       bool keeps)
{
	u64 root = cr3 & X86_PTE_ADDR;

	v->cr3 = cr3;
	keeps &= to->is_used && to->pcid == soft_pcid(v) && to->root == root;
	v->fetch_page = SOFT_TLB_EMPTY;
	soft_walks_drop(v, true);
	if (!keeps)
		v->walks.pt_used = 0;
	soft_space_purge(&v->super);
	if (!keeps)
		soft_space_purge(to);
	to->is_used = true;
	to->pcid = soft_pcid(v);
	to->root = root;
	to->stamp = ++v->user_stamp;
	v->user = to;
	v->tlb_now = v->cpl == 3 ? to->tlb : v->super.tlb;
}

/* ---- for generated code ---- */

/* Serializing instructions look at what others may still write to (smc.c). */
static bool must_verify(const struct vcpu *v)
{
	return v->vm->xlat && atomic_load(&v->vm->xlat->doubts);
}

bool soft_cr3_switch_leaf(struct vcpu *v, u64 value)
{
	bool has_pcids = v->cr4 & X86_CR4_PCIDE;
	bool keeps = has_pcids && value >> 63;
	u64 cr3 = has_pcids ? value & ~BIT64(63) : value;
	struct soft_space *to;

	if (v->code_mode != X86_MODE_64 || v->cpl || must_verify(v) ||
	    cr3 >> v->vm->physical_address_bits)
		return false;
	to = soft_space_find(v, has_pcids ? cr3 & 0xfff : 0);
	if (!to)
		to = soft_space_pick(v, false);
	if (!to)
		return false;
	v->stats.cr3_writes++;
	soft_space_switch(v, to, cr3, keeps);
	return true;
}

bool soft_invlpg_leaf(struct vcpu *v, gva_t va)
{
	if (v->code_mode != X86_MODE_64 || v->cpl || must_verify(v))
		return false;
	soft_spaces_drop_page(v, va);
	return true;
}
