/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY. The half of the software MMU that generated code may call with the
 * guest's SIMD registers live: general registers only, no libc, no raising.
 *
 * soft_walk() collects the entries on the way and checks reserved bits level
 * by level; permissions are checked at the leaf; only an access that is going
 * to succeed sets A and D, each by a compare-exchange against the value that
 * was checked. When one loses, the walk is done again.
 *
 * Two caches (v->walks) make it short: 2 MiB pieces of large pages with all
 * that was found about them, and the tables of the last level. An entry is
 * made by a walk that has set A; what a cache does not allow is looked at from
 * the root before it is a fault, so that nobody loops on what is stale.
 *
 * The TLB holds RAM and ROM pages only, and no page with an enabled data
 * breakpoint: accesses to those take the slow path, which notes the hit in
 * v->watch_hits. Not-present entries are never cached. A user page is not
 * entered in the supervisor table while SMAP is on, because EFLAGS.AC is no
 * part of the key.
 *
 * A page-table entry outside RAM reads as all ones, which is a reserved-bit
 * fault.
 *
 * What this file may call is held to a list by scripts/check-leaf.
 *
 * Not modelled: protection keys, 5-level paging, PWT/PCD/PAT.
 *
 * Source: SDM 3A §4.3-4.10.
 */
#include "soft/apic_int.h"
#include "soft/lockstep.h"
#include "soft/mmu_int.h"
#include "soft/xlat.h"

static bool has_nx(const struct vcpu *v)
{
	return v->efer & X86_EFER_NXE;
}

/* ---- walker ---- */

static u8 *copy_of(const struct vcpu *v, u8 *host)
{
	uintptr_t off = (uintptr_t)host & (PAGE_BYTES - 1);
	u8 *copy = lockstep_find(v->on_copies, host - off);

	return copy ? copy + off : host;
}

static void entry_read(struct vcpu *v, gpa_t gpa, bool is_wide,
		       struct walk_entry *out)
{
	const struct mem_slot *slot = mem_slot_find(v->vm->mem, gpa);

	out->gpa = gpa;
	out->is_wide = is_wide;
	out->is_rom = slot && (slot->flags & MEM_SLOT_ROM);
	out->host = slot ? slot->hva + (gpa - slot->gpa) : NULL;
	if (unlikely(v->on_copies) && slot)
		out->host = copy_of(v, out->host);
	if (!slot) {
		out->value = is_wide ? ~0ull : ~0u;
	} else if (is_wide) {
		out->value =
			__atomic_load_n((u64 *)out->host, __ATOMIC_ACQUIRE);
	} else {
		out->value =
			__atomic_load_n((u32 *)out->host, __ATOMIC_ACQUIRE);
	}
}

/* false: the entry changed since it was read. */
static bool entry_set(struct walk_entry *e, u64 bits)
{
	u64 old = e->value;
	u32 old32 = (u32)old;

	if ((old & bits) == bits || e->is_rom)
		return true;
	e->value |= bits;
	if (e->is_wide)
		return __atomic_compare_exchange_n(
			(u64 *)e->host, &old, old | bits, false,
			__ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
	return __atomic_compare_exchange_n((u32 *)e->host, &old32,
					   old32 | (u32)bits, false,
					   __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}

static u64 bits_range(unsigned hi, unsigned lo)
{
	return hi < lo ? 0 : (~0ull >> (63 - hi)) & (~0ull << lo);
}

/* Reserved bits of a present 8-byte entry. level: 1 PTE, 2 PDE, 3 PDPTE,
 * 4 PML4E. */
static u64 reserved_bits(const struct vcpu *v, unsigned level, u64 entry)
{
	unsigned max = v->vm->physical_address_bits;
	u64 r = bits_range(v->is_long ? 51 : 62, max);

	if (!has_nx(v))
		r |= X86_PTE_NX;
	if (level == 4) {
		r |= X86_PTE_PS;
		if (v->vm->is_amd)
			r |= X86_PTE_G;
	}
	if (entry & X86_PTE_PS) {
		if (level == 3)
			r |= bits_range(29, 13);
		else if (level == 2)
			r |= bits_range(20, 13);
	}
	return r;
}

/* 4-level and PAE. Returns 0, X86_PF_P | X86_PF_RSVD, or ~0u: not present. */
static u32 walk_wide(struct vcpu *v, gva_t va, struct walk *w)
{
	unsigned level = v->is_long ? 4 : 2;
	u64 table = v->cr3 & X86_PTE_ADDR;

	if (!v->is_long) {
		u64 pdpte = v->pdpte[(va >> 30) & 3];

		if (!(pdpte & X86_PTE_P))
			return ~0u;
		table = pdpte & X86_PTE_ADDR;
	}
	for (;; level--) {
		unsigned shift = 12 + 9 * (level - 1);
		struct walk_entry *e = &w->entries[w->depth++];

		entry_read(v, table + ((va >> shift) & 511) * 8, true, e);
		if (!(e->value & X86_PTE_P))
			return ~0u;
		if (!e->host || (e->value & reserved_bits(v, level, e->value)))
			return X86_PF_P | X86_PF_RSVD;
		w->rights &= e->value | X86_PTE_NX;
		w->rights |= e->value & X86_PTE_NX;
		table = e->value & X86_PTE_ADDR;
		if (level == 1 || (level < 4 && (e->value & X86_PTE_PS))) {
			u64 mask = BIT64(shift) - 1;

			w->gpa = (table & ~mask) | (va & mask);
			w->is_large = level > 1;
			return 0;
		}
	}
}

/* 2-level, with 4 MiB pages and PSE-36. */
static u32 walk_narrow(struct vcpu *v, gva_t va, struct walk *w)
{
	struct walk_entry *e = &w->entries[w->depth++];
	unsigned max = v->vm->physical_address_bits;
	u64 pde;

	entry_read(v, (v->cr3 & 0xfffff000u) + ((va >> 22) & 1023) * 4, false,
		   e);
	pde = e->value;
	if (!(pde & X86_PTE_P))
		return ~0u;
	if (!e->host)
		return X86_PF_P | X86_PF_RSVD;
	w->rights &= pde;
	if ((pde & X86_PTE_PS) && (v->cr4 & X86_CR4_PSE)) {
		u64 rsvd = BIT64(21);

		if (max < 40)
			rsvd |= bits_range(20, 13 + (max - 32));
		if (pde & rsvd)
			return X86_PF_P | X86_PF_RSVD;
		w->gpa = (pde & 0xffc00000u) | ((pde >> 13 & 0xff) << 32) |
			 (va & 0x3fffff);
		w->is_large = true;
		return 0;
	}
	e = &w->entries[w->depth++];
	entry_read(v, (pde & 0xfffff000u) + ((va >> 12) & 1023) * 4, false, e);
	if (!(e->value & X86_PTE_P))
		return ~0u;
	if (!e->host)
		return X86_PF_P | X86_PF_RSVD;
	w->rights &= e->value;
	w->gpa = (e->value & 0xfffff000u) | (va & 0xfff);
	return 0;
}

/* May this kind of access use a page with these rights? */
static bool rights_allow(const struct vcpu *v, const struct walk *w,
			 unsigned how)
{
	bool is_user_page = w->rights & X86_PTE_U;

	if (soft_access_is_user(v, how)) {
		if (!is_user_page)
			return false;
		if ((how & SOFT_W) && !(w->rights & X86_PTE_W))
			return false;
	} else {
		if ((how & SOFT_W) && !(w->rights & X86_PTE_W) &&
		    (v->cr0 & X86_CR0_WP))
			return false;
		if (is_user_page && (how & SOFT_X) && (v->cr4 & X86_CR4_SMEP))
			return false;
		if (is_user_page && !(how & SOFT_X) &&
		    (v->cr4 & X86_CR4_SMAP) &&
		    (how & SOFT_SUPER || !(v->rflags_sys & X86_FL_AC)))
			return false;
	}
	return !((how & SOFT_X) && (w->rights & X86_PTE_NX));
}

/* The access part of a page fault's error code. */
static u32 fault_code(const struct vcpu *v, unsigned how)
{
	u32 code = 0;

	if (how & SOFT_W)
		code |= X86_PF_W;
	if (soft_access_is_user(v, how))
		code |= X86_PF_U;
	if ((how & SOFT_X) &&
	    ((v->cr4 & X86_CR4_SMEP) || ((v->cr4 & X86_CR4_PAE) && has_nx(v))))
		code |= X86_PF_I;
	return code;
}

static bool needs_bits(const struct walk_entry *e, u64 bits)
{
	return (e->value & bits) != bits && !e->is_rom;
}

/* What an access sets in entries[i]. */
static u64 wanted_bits(const struct walk *w, u32 i, unsigned how)
{
	return i == w->depth - 1 && (how & SOFT_W) ? X86_PTE_A | X86_PTE_D
						   : X86_PTE_A;
}

static bool set_accessed_dirty(struct walk *w, unsigned how)
{
	for (u32 i = 0; i < w->depth; i++) {
		struct walk_entry *e = &w->entries[i];
		u64 bits = wanted_bits(w, i, how), old = e->value;

		if (!entry_set(e, bits))
			return false;
		if (e->value != old)
			w->stored |= BIT32(i);
	}
	return true;
}

/* What will be stored into lies in a page with code. */
static bool stores_into_code(struct vcpu *v, const struct walk *w, unsigned how)
{
	for (u32 i = 0; i < w->depth; i++) {
		const struct walk_entry *e = &w->entries[i];
		const struct smc_page *p = smc_page_of(v->vm->xlat, e->gpa);

		if (needs_bits(e, wanted_bits(w, i, how)) && p &&
		    atomic_load(&p->code))
			return true;
	}
	return false;
}

/* Nobody hears of the stores of generated code, so tables that hold code are
 * not its business. With other vCPUs the lock keeps translations away from
 * between the look and the store. */
static enum walk_status set_bits_leaf(struct vcpu *v, struct walk *w,
				      unsigned how)
{
	struct xlat *x = v->vm->xlat;
	enum walk_status status = WALK_SLOW;
	bool is_locked = x && v->vm->vcpu_count > 1, is_needed = false;

	for (u32 i = 0; i < w->depth; i++)
		is_needed |= needs_bits(&w->entries[i], wanted_bits(w, i, how));
	if (!is_needed)
		return WALK_OK;
	if (is_locked && !xlat_trylock(x))
		return WALK_SLOW;
	if (!x || !stores_into_code(v, w, how))
		status = set_accessed_dirty(w, how) ? WALK_OK : WALK_AGAIN;
	if (is_locked)
		xlat_unlock(x);
	return status;
}

/* ---- what walks have found before ---- */

#define LARGE_BITS 21

/* The large page of va admits this access. */
static bool find_large(const struct vcpu *v, gva_t va, unsigned how,
		       struct walk *w)
{
	unsigned i = (va >> LARGE_BITS) % SOFT_WALK_LARGES;
	const struct soft_walk_large *l = &v->walks.large[i];

	if (!(v->walks.large_used >> i & 1) || l->tag != va >> LARGE_BITS)
		return false;
	w->rights = l->rights & ~X86_PTE_D;
	w->is_dirty = l->rights & X86_PTE_D;
	w->is_global = v->walks.large_global >> i & 1;
	w->is_large = true;
	w->gpa = l->gpa | (va & (BIT64(LARGE_BITS) - 1));
	return rights_allow(v, w, how) && (w->is_dirty || !(how & SOFT_W));
}

static void note_large_walk(struct vcpu *v, gva_t va, const struct walk *w)
{
	unsigned i = (va >> LARGE_BITS) % SOFT_WALK_LARGES;

	v->walks.large[i] = (struct soft_walk_large){
		.tag = va >> LARGE_BITS,
		.gpa = w->gpa & ~(BIT64(LARGE_BITS) - 1),
		.rights = w->rights | (w->is_dirty ? X86_PTE_D : 0)};
	v->walks.large_used |= BIT64(i);
	v->walks.large_global &= ~BIT64(i);
	if (w->is_global)
		v->walks.large_global |= BIT64(i);
}

/* Goes on from the last level's table. */
static bool walk_from_table(struct vcpu *v, gva_t va, unsigned how,
			    struct walk *w)
{
	unsigned i = (va >> LARGE_BITS) % SOFT_WALK_PTS;
	const struct soft_walk_pt *t = &v->walks.pt[i];
	struct walk_entry *e = &w->entries[0];
	u64 off = (va >> 12 & 511) * 8;

	if (!v->is_long || !(v->walks.pt_used >> i & 1) ||
	    t->tag != va >> LARGE_BITS || t->root != (v->cr3 & X86_PTE_ADDR))
		return false;
	*e = (struct walk_entry){
		.host = t->host + off, .gpa = t->gpa + off, .is_wide = true};
	e->value = __atomic_load_n((u64 *)e->host, __ATOMIC_ACQUIRE);
	if (!(e->value & X86_PTE_P) ||
	    (e->value & reserved_bits(v, 1, e->value)))
		return false;
	w->depth = 1;
	w->rights =
		(t->rights & (e->value | X86_PTE_NX)) | (e->value & X86_PTE_NX);
	w->gpa = (e->value & X86_PTE_ADDR) | (va & 0xfff);
	return rights_allow(v, w, how);
}

static void note_table(struct vcpu *v, gva_t va, const struct walk *w)
{
	unsigned i = (va >> LARGE_BITS) % SOFT_WALK_PTS;
	const struct walk_entry *e = &w->entries[WALK_LEVELS - 1];
	u64 rights = X86_PTE_W | X86_PTE_U, off = (va >> 12 & 511) * 8;

	if (!v->is_long || w->depth != WALK_LEVELS || e->is_rom)
		return;
	for (u32 k = 0; k < WALK_LEVELS - 1; k++) {
		u64 value = w->entries[k].value;

		rights &= value | X86_PTE_NX;
		rights |= value & X86_PTE_NX;
	}
	v->walks.pt[i] = (struct soft_walk_pt){.tag = va >> LARGE_BITS,
					       .root = v->cr3 & X86_PTE_ADDR,
					       .gpa = e->gpa - off,
					       .host = e->host - off,
					       .rights = rights};
	v->walks.pt_used |= BIT64(i);
}

/* ---- one walk ---- */

static void walk_start(struct walk *w)
{
	w->gpa = 0;
	w->rights = X86_PTE_W | X86_PTE_U;
	w->is_large = w->is_global = w->is_dirty = false;
	w->error = w->depth = w->stored = 0;
}

/* The access will succeed: A and D. */
static enum walk_status walk_end(struct vcpu *v, unsigned how, u32 flags,
				 struct walk *w)
{
	enum walk_status status;
	u64 leaf;

	if (flags & WALK_LEAF)
		status = set_bits_leaf(v, w, how);
	else
		status = set_accessed_dirty(w, how) ? WALK_OK : WALK_AGAIN;
	leaf = w->entries[w->depth - 1].value;
	w->is_dirty = leaf & X86_PTE_D;
	w->is_global = (leaf & X86_PTE_G) && (v->cr4 & X86_CR4_PGE);
	return status;
}

/* A fault is a fault only if a walk from the root says so. */
static enum walk_status walk_from_root(struct vcpu *v, gva_t va, unsigned how,
				       u32 flags, struct walk *w)
{
	enum walk_status status;
	u32 rc = (v->cr4 & X86_CR4_PAE) ? walk_wide(v, va, w)
					: walk_narrow(v, va, w);

	if (rc) {
		w->error = fault_code(v, how) | (rc == ~0u ? 0 : rc);
		return WALK_FAULT;
	}
	if (flags & WALK_DEBUG)
		return WALK_OK;
	if (!rights_allow(v, w, how)) {
		w->error = fault_code(v, how) | X86_PF_P;
		return WALK_FAULT;
	}
	status = walk_end(v, how, flags, w);
	if (status != WALK_OK || v->on_copies)
		return status;
	if (w->is_large)
		note_large_walk(v, va, w);
	else
		note_table(v, va, w);
	return WALK_OK;
}

enum walk_status soft_walk(struct vcpu *v, gva_t va, unsigned how, u32 flags,
			   struct walk *w)
{
	walk_start(w);
	if (!(v->cr0 & X86_CR0_PG)) {
		w->is_dirty = true;
		w->gpa = va;
		return WALK_OK;
	}
	/* The walks that a translator's block is compared with start over. */
	if (!(flags & WALK_DEBUG) && likely(!v->on_copies)) {
		if (find_large(v, va, how, w))
			return WALK_OK;
		walk_start(w);
		if (walk_from_table(v, va, how, w))
			return walk_end(v, how, flags, w);
		walk_start(w);
	}
	return walk_from_root(v, va, how, flags, w);
}

const struct mem_slot *soft_walk_slot(struct vcpu *v, const struct walk *w)
{
	u64 base = apic_base_msr(v->apic);

	if ((base & (APIC_BASE_EN | APIC_BASE_EXTD)) == APIC_BASE_EN &&
	    (w->gpa & ~0xfffull) == (base & APIC_BASE_ADDR))
		return NULL;
	return mem_slot_find(v->vm->mem, w->gpa);
}

/* ---- TLB ---- */

static bool page_is_watched(const struct vcpu *v, gva_t va)
{
	if (likely(!(v->dr7 & 0xff)))
		return false;
	for (unsigned i = 0; i < 4; i++)
		if ((v->dr7 >> (i * 2) & 3) && (v->dr7 >> (16 + i * 4) & 1) &&
		    v->dr[i] >> 12 == va >> 12)
			return true;
	return false;
}

/* All entries that are not global are on the list, unless it is too long. */
static void note_local(struct soft_space *s, unsigned i)
{
	const struct soft_tlb_entry *e = &s->tlb[i];

	if (!soft_tlb_is_empty(e->tag_r) && !(e->meta & SOFT_TLB_GLOBAL))
		return;
	if (s->local_count < SOFT_LOCAL_MAX)
		s->local[s->local_count++] = (u16)i;
	else
		s->local_count = SOFT_LOCAL_MAX + 1;
}

static void note_large(struct soft_large_list *l, gva_t va)
{
	if (l->count > SOFT_LARGE_MAX)
		return;
	for (u32 i = 0; i < l->count; i++)
		if (l->gib[i] == va >> 30)
			return;
	if (l->count < SOFT_LARGE_MAX)
		l->gib[l->count] = va >> 30;
	l->count++;
}

static void note_write_tag(struct soft_space *s, struct soft_tlb_entry *e,
			   gva_t page)
{
	unsigned h = soft_w_hash(e->meta & X86_PTE_ADDR);

	s->w_pages[h / 64] |= BIT64(h % 64);
	e->tag_w = page;
}

/* What the space has last said of a page: in its entry, or in one that gave
 * way. */
static struct soft_gone last_said(const struct soft_space *s, gva_t page)
{
	const struct soft_tlb_entry *e = &s->tlb[soft_tlb_index(page)];
	const struct soft_gone *g = &s->gone[soft_gone_index(page)];

	if (e->tag_r == page)
		return (struct soft_gone){page, e->hva_page, e->tag_w == page};
	return g->tag == page ? *g : (struct soft_gone){SOFT_TLB_EMPTY};
}

/* The entry is going to be another page's. Slots may have its page, or will: it
 * and the other one have the same bit in slot_pages. */
static void note_gone(struct soft_space *s, const struct soft_tlb_entry *e)
{
	if (!soft_tlb_is_empty(e->tag_r))
		s->gone[soft_gone_index(e->tag_r)] = (struct soft_gone){
			e->tag_r, e->hva_page, e->tag_w == e->tag_r};
}

void soft_tlb_enter(struct vcpu *v, gva_t va, unsigned how,
		    const struct walk *w, u8 *host_page, bool is_rom)
{
	bool is_user = soft_access_is_user(v, how);
	struct soft_space *t = is_user ? v->user : v->super_now;
	unsigned i = soft_tlb_index(va);
	struct soft_tlb_entry *e = &t->tlb[i];
	unsigned base = is_user ? 0 : SOFT_SUPER;
	gva_t page = va & ~0xfffull;
	struct soft_gone was = last_said(t, page);

	if (page_is_watched(v, va))
		return;
	if (!is_user && (w->rights & X86_PTE_U) && (v->cr4 & X86_CR4_SMAP))
		return;
	if (is_user && e->tag_r != page)
		note_gone(t, e);
	t->tlb_used[i / SOFT_TLB_CHUNK / 64] |= BIT64(i / SOFT_TLB_CHUNK % 64);
	if (!w->is_global)
		note_local(t, i);
	e->hva_page = (u64)(uintptr_t)host_page;
	e->meta = w->gpa & ~0xfffull;
	if (w->is_global) {
		e->meta |= SOFT_TLB_GLOBAL;
		t->has_global = true;
	}
	if (w->is_large) {
		e->meta |= SOFT_TLB_LARGE;
		note_large(&t->large[w->is_global], va);
	}
	if (w->rights & X86_PTE_U)
		e->meta |= SOFT_TLB_USER;
	if (rights_allow(v, w, base | SOFT_X))
		e->meta |= SOFT_TLB_EXEC;
	e->tag_r = page;
	e->tag_w = soft_tlb_empty(i);
	if (w->is_dirty && !is_rom && rights_allow(v, w, base | SOFT_W) &&
	    (!v->vm->xlat || v->on_copies || smc_may_tag_w(v, w->gpa)))
		note_write_tag(t, e, page);
	/* A page gets its copy when it is first written. */
	if (v->on_copies && !(how & SOFT_W))
		e->tag_w = soft_tlb_empty(i);
	/* What was there is no longer so; nor may slots say it. */
	if (is_user && soft_slots_have_page(t, va) &&
	    (was.tag != page || was.hva_page != e->hva_page ||
	     (was.had_w && e->tag_w != page)))
		soft_slots_clear(t);
}

/* Walks for generated code; false: the interpreter's business. */
static bool leaf_walk(struct vcpu *v, gva_t va, unsigned how, struct walk *w,
		      const struct mem_slot **out_slot)
{
	enum walk_status status = WALK_AGAIN;

	if (!v->super.is_ready || !v->user->is_ready ||
	    soft_va_wrap(v, va, how) != va ||
	    (v->is_long && !soft_is_canonical(va)))
		return false;
	for (int i = 0; i < WALK_RETRIES; i++) {
		status = soft_walk(v, va, how, WALK_LEAF, w);
		if (status != WALK_AGAIN)
			break;
	}
	if (status != WALK_OK)
		return false;
	*out_slot = soft_walk_slot(v, w);
	return *out_slot != NULL;
}

bool soft_tlb_fill_leaf(struct vcpu *v, gva_t va, unsigned how)
{
	const struct mem_slot *slot;
	struct walk w;
	bool is_rom;

	if (soft_tlb_hit(v, va, how))
		return false; /* the caller missed it: the access crosses */
	v->stats.tlb_misses++;
	if (!leaf_walk(v, va, how, &w, &slot))
		return false;
	is_rom = slot->flags & MEM_SLOT_ROM;
	soft_tlb_enter(v, va, how, &w,
		       slot->hva + ((w.gpa & ~0xfffull) - slot->gpa), is_rom);
	return soft_tlb_hit(v, va, how) != NULL;
}

bool soft_exec_gpa_leaf(struct vcpu *v, gva_t va, gpa_t *out)
{
	const struct soft_tlb_entry *e = soft_tlb_hit(v, va, SOFT_X);
	const struct mem_slot *slot;
	struct walk w;

	if (e) {
		*out = (e->meta & ~0xfffull) | (va & 0xfff);
		return true;
	}
	v->stats.tlb_misses++;
	if (!leaf_walk(v, va, SOFT_X, &w, &slot))
		return false;
	soft_tlb_enter(v, va, SOFT_X, &w,
		       slot->hva + ((w.gpa & ~0xfffull) - slot->gpa),
		       slot->flags & MEM_SLOT_ROM);
	*out = w.gpa;
	return true;
}
