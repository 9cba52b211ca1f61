/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY. Guest linear addresses become host pointers in three steps.
 *
 *	page_get()   TLB hit, or walk() and tlb_fill(), or a #PF
 *	struct page  one resolved page: host pointer (RAM, ROM) and GPA
 *	access       split at the page boundary, all pages resolved before the
 *	             first byte moves, so that a fault leaves nothing done
 *
 * walk() collects the entries on the way and checks reserved bits level by
 * level; permissions are checked at the leaf; only an access that is going to
 * succeed sets A and D, each by a compare-exchange against the value that was
 * checked. When one loses, the walk starts again from the root.
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
 * Not modelled: protection keys, 5-level paging, PCID tags (all non-global
 * entries go at each CR3 load), PWT/PCD/PAT.
 *
 * Source: SDM 3A §4.3-4.10.
 */
#include "soft/soft_int.h"

#include "base/log.h"
#include "soft/soft_sys.h"

#define WALK_LEVELS  4
#define WALK_RETRIES 1000

struct walk_entry {
	u8 *host; /* NULL: not in RAM */
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
	u32 depth;
	struct walk_entry entries[WALK_LEVELS];
};

/* One resolved page; offset already added to host and gpa. */
struct page {
	u8 *host; /* NULL: MMIO */
	gpa_t gpa;
	bool is_rom;
};

static bool access_is_user(const struct vcpu *v, unsigned how)
{
	return v->cpl == 3 && !(how & SOFT_SUPER);
}

static bool has_nx(const struct vcpu *v)
{
	return v->efer & X86_EFER_NXE;
}

/* ---- walker ---- */

static void entry_read(struct vcpu *v, gpa_t gpa, bool is_wide,
		       struct walk_entry *out)
{
	const struct mem_slot *slot = mem_slot_find(v->vm->mem, gpa);

	out->is_wide = is_wide;
	out->is_rom = slot && (slot->flags & MEM_SLOT_ROM);
	out->host = slot ? slot->hva + (gpa - slot->gpa) : NULL;
	if (!slot) {
		log_guest("page-table entry outside RAM: gpa 0x%llx",
			  (unsigned long long)gpa);
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
		if (soft_is_amd(v))
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

	if (access_is_user(v, how)) {
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
		    (v->cpl == 3 || !(v->rflags_sys & X86_FL_AC)))
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
	if (access_is_user(v, how))
		code |= X86_PF_U;
	if ((how & SOFT_X) &&
	    ((v->cr4 & X86_CR4_SMEP) || ((v->cr4 & X86_CR4_PAE) && has_nx(v))))
		code |= X86_PF_I;
	return code;
}

static bool set_accessed_dirty(struct walk *w, unsigned how)
{
	for (u32 i = 0; i < w->depth; i++) {
		u64 bits = X86_PTE_A;

		if (i == w->depth - 1 && (how & SOFT_W))
			bits |= X86_PTE_D;
		if (!entry_set(&w->entries[i], bits))
			return false;
	}
	return true;
}

/* Walks with paging on. false: *out_error is the #PF error code. */
static bool walk(struct vcpu *v, gva_t va, unsigned how, bool is_debug,
		 struct walk *w, u32 *out_error)
{
	for (int i = 0; i < WALK_RETRIES; i++) {
		u32 rc;

		*w = (struct walk){.rights = X86_PTE_W | X86_PTE_U};
		rc = (v->cr4 & X86_CR4_PAE) ? walk_wide(v, va, w)
					    : walk_narrow(v, va, w);
		if (rc) {
			*out_error = fault_code(v, how) | (rc == ~0u ? 0 : rc);
			return false;
		}
		if (is_debug)
			return true;
		if (!rights_allow(v, w, how)) {
			*out_error = fault_code(v, how) | X86_PF_P;
			return false;
		}
		if (set_accessed_dirty(w, how)) {
			u64 leaf = w->entries[w->depth - 1].value;

			w->is_dirty = leaf & X86_PTE_D;
			w->is_global =
				(leaf & X86_PTE_G) && (v->cr4 & X86_CR4_PGE);
			return true;
		}
	}
	soft_internal_error(v, "page-table entry of 0x%llx never stays",
			    (unsigned long long)va);
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

static void tlb_fill(struct vcpu *v, gva_t va, unsigned how,
		     const struct walk *w, u8 *host_page, bool is_rom)
{
	bool is_user = access_is_user(v, how);
	struct soft_space *t = is_user ? v->user : &v->super;
	unsigned i = soft_tlb_index(va);
	struct soft_tlb_entry *e = &t->tlb[i];
	unsigned base = is_user ? 0 : SOFT_SUPER;
	gva_t page = va & ~0xfffull;

	if (page_is_watched(v, va))
		return;
	if (!is_user && (w->rights & X86_PTE_U) && (v->cr4 & X86_CR4_SMAP))
		return;
	t->tlb_used |= BIT64(i / 64);
	e->hva_page = (u64)(uintptr_t)host_page;
	e->meta = w->gpa & ~0xfffull;
	if (w->is_global)
		e->meta |= SOFT_TLB_GLOBAL;
	if (w->is_large) {
		e->meta |= SOFT_TLB_LARGE;
		t->has_large = true;
		t->large_gib |= BIT64((va >> 30) & 63);
	}
	if (w->rights & X86_PTE_U)
		e->meta |= SOFT_TLB_USER;
	if (rights_allow(v, w, base | SOFT_X))
		e->meta |= SOFT_TLB_EXEC;
	e->tag_r = page;
	e->tag_w = SOFT_TLB_EMPTY;
	if (w->is_dirty && !is_rom && rights_allow(v, w, base | SOFT_W))
		e->tag_w = page;
}

static void entry_clear(struct soft_tlb_entry *e)
{
	e->tag_r = SOFT_TLB_EMPTY;
	e->tag_w = SOFT_TLB_EMPTY;
	e->meta = 0;
}

static u64 flush_table(struct soft_tlb_entry *table, u64 used, bool keep_global)
{
	u64 left = 0;

	for (; used; used &= used - 1) {
		unsigned chunk = (unsigned)__builtin_ctzll(used);
		struct soft_tlb_entry *e = &table[chunk * 64];

		for (unsigned i = 0; i < 64; i++, e++) {
			if (keep_global && (e->meta & SOFT_TLB_GLOBAL))
				left |= BIT64(chunk);
			else
				entry_clear(e);
		}
	}
	return left;
}

static void flush_space(struct soft_space *s, bool keep_global)
{
	if (!s->is_ready) {
		s->tlb_used = ~0ull;
		s->is_ready = true;
		keep_global = false;
	}
	s->tlb_used = flush_table(s->tlb, s->tlb_used, keep_global);
	if (!keep_global) {
		s->has_large = false;
		s->large_gib = 0;
	}
}

void soft_tlb_flush(struct vcpu *v, bool keep_global)
{
	v->fetch_page = SOFT_TLB_EMPTY;
	flush_space(&v->super, keep_global);
	flush_space(v->user, keep_global);
}

/* Drops the pieces of large pages in va's GiB. */
static void flush_large(struct soft_tlb_entry *table, u64 used, gva_t va)
{
	for (; used; used &= used - 1) {
		struct soft_tlb_entry *e =
			&table[(unsigned)__builtin_ctzll(used) * 64];

		for (unsigned i = 0; i < 64; i++, e++)
			if ((e->meta & SOFT_TLB_LARGE) &&
			    e->tag_r >> 30 == va >> 30)
				entry_clear(e);
	}
}

static void flush_page(struct soft_space *s, gva_t va)
{
	if (!s->is_ready)
		flush_space(s, false);
	entry_clear(&s->tlb[soft_tlb_index(va)]);
	if (s->large_gib & BIT64((va >> 30) & 63))
		flush_large(s->tlb, s->tlb_used, va);
}

void soft_tlb_flush_page(struct vcpu *v, gva_t va)
{
	v->fetch_page = SOFT_TLB_EMPTY;
	flush_page(&v->super, va);
	flush_page(v->user, va);
}

/* ---- one page ---- */

static bool tlb_lookup(struct vcpu *v, gva_t va, unsigned how, struct page *out)
{
	unsigned i = soft_tlb_index(va);
	struct soft_tlb_entry *e =
		access_is_user(v, how) ? &v->user->tlb[i] : &v->super.tlb[i];
	u64 tag = (how & SOFT_W) ? e->tag_w : e->tag_r;

	if ((va & ~0xfffull) != tag)
		return false;
	if ((how & SOFT_X) && !(e->meta & SOFT_TLB_EXEC))
		return false;
	out->host = (u8 *)(uintptr_t)e->hva_page + (va & 0xfff);
	out->gpa = (e->meta & ~0xfffull) | (va & 0xfff);
	out->is_rom = false; /* tag_w is empty for ROM */
	return true;
}

/* Outside 64-bit code an access that runs over 4 GiB wraps. Implicit accesses
 * use 64-bit addresses wherever long mode is active. */
static gva_t va_wrap(const struct vcpu *v, gva_t va, unsigned how)
{
	bool is_wide =
		(how & SOFT_SUPER) ? v->is_long : v->code_mode == X86_MODE_64;

	return is_wide ? va : (u32)va;
}

/* Resolves the page of va for one access. */
static void page_get(struct vcpu *v, gva_t va, unsigned how, struct page *out)
{
	const struct mem_slot *slot;
	struct walk w;
	u32 error;

	va = va_wrap(v, va, how);
	if (likely(tlb_lookup(v, va, how, out)))
		return;
	v->stats.tlb_misses++;
	if (!v->super.is_ready || !v->user->is_ready)
		soft_tlb_flush(v, false);
	if (v->is_long && !soft_is_canonical(va))
		soft_gp(v, 0);
	if (!(v->cr0 & X86_CR0_PG)) {
		w = (struct walk){.rights = X86_PTE_W | X86_PTE_U,
				  .is_dirty = true,
				  .gpa = va};
	} else if (!walk(v, va, how, false, &w, &error)) {
		soft_raise_pf(v, va, error);
	}
	out->gpa = w.gpa;
	out->host = NULL;
	out->is_rom = false;
	if ((w.gpa & ~0xfffull) == soft_apic_base(v))
		return;
	slot = mem_slot_find(v->vm->mem, w.gpa);
	if (!slot)
		return;
	out->host = slot->hva + (w.gpa - slot->gpa);
	out->is_rom = slot->flags & MEM_SLOT_ROM;
	tlb_fill(v, va, how, &w, out->host - (va & 0xfff), out->is_rom);
}

/* ---- MMIO ---- */

static u64 apic_read(struct vcpu *v, unsigned off, unsigned size)
{
	u64 value = soft_apic_mmio_read(v, off & ~3u);

	if (size == 8)
		value |= (u64)soft_apic_mmio_read(v, (off & ~3u) + 4) << 32;
	return value >> ((off & 3) * 8);
}

static u64 mmio_read(struct vcpu *v, gpa_t gpa, unsigned size)
{
	v->stats.mmio++;
	if ((gpa & ~0xfffull) == soft_apic_base(v)) {
		if ((gpa & 0xfff) + size > 0x1000)
			return ~0ull;
		return apic_read(v, gpa & 0xfff, size);
	}
	return mem_mmio_read(v->vm->mem, gpa, size);
}

static void mmio_write(struct vcpu *v, gpa_t gpa, unsigned size, u64 value)
{
	v->stats.mmio++;
	if ((gpa & ~0xfffull) == soft_apic_base(v)) {
		/* Only aligned 32-bit registers exist (SDM 3A §10.4.1). */
		if (size >= 4 && !(gpa & 15))
			soft_apic_mmio_write(v, gpa & 0xfff, (u32)value);
		return;
	}
	mem_mmio_write(v->vm->mem, gpa, size, value);
}

/* Largest power of two that fits n and keeps the address aligned, 1-8. */
static unsigned mmio_piece(gpa_t gpa, size_t n)
{
	unsigned size = 8;

	while (size > n || (size > 1 && size != n && (gpa & (size - 1))))
		size /= 2;
	return size;
}

static void page_read(struct vcpu *v, const struct page *p, void *dst, size_t n)
{
	gpa_t gpa = p->gpa;
	u8 *d = dst;

	if (likely(p->host)) {
		memcpy(dst, p->host, n);
		return;
	}
	while (n) {
		unsigned size = mmio_piece(gpa, n);
		u64 value = mmio_read(v, gpa, size);

		memcpy(d, &value, size);
		d += size;
		gpa += size;
		n -= size;
	}
}

static void page_write(struct vcpu *v, const struct page *p, const void *src,
		       size_t n)
{
	gpa_t gpa = p->gpa;
	const u8 *s = src;

	if (likely(p->host && !p->is_rom)) {
		memcpy(p->host, src, n);
		return;
	}
	while (n) {
		unsigned size = mmio_piece(gpa, n);
		u64 value = 0;

		memcpy(&value, s, size);
		mmio_write(v, gpa, size, value);
		s += size;
		gpa += size;
		n -= size;
	}
}

/* ---- data breakpoints ---- */

/* Notes the enabled data breakpoints that [va, va+n) touches. */
static void watch(struct vcpu *v, gva_t va, size_t n, unsigned how)
{
	if (likely(!(v->dr7 & 0xff)) || (how & (SOFT_SUPER | SOFT_X)))
		return;
	soft_watch(v, va, n, how & SOFT_W);
}

/* ---- accesses ---- */

struct span {
	struct page pages[2];
	size_t first; /* bytes on the first page */
};

/* Resolves both pages before anything moves. n <= 4096. */
static void span_get(struct vcpu *v, gva_t va, size_t n, unsigned how,
		     struct span *s)
{
	s->first = MIN(n, PAGE_BYTES - (va & 0xfff));
	page_get(v, va, how, &s->pages[0]);
	if (s->first < n)
		page_get(v, va + s->first, how, &s->pages[1]);
	watch(v, va_wrap(v, va, how), n, how);
}

static void span_read(struct vcpu *v, const struct span *s, void *dst, size_t n)
{
	page_read(v, &s->pages[0], dst, s->first);
	if (s->first < n)
		page_read(v, &s->pages[1], (u8 *)dst + s->first, n - s->first);
}

static void span_write(struct vcpu *v, const struct span *s, const void *src,
		       size_t n)
{
	page_write(v, &s->pages[0], src, s->first);
	if (s->first < n)
		page_write(v, &s->pages[1], (const u8 *)src + s->first,
			   n - s->first);
}

/* A constant-size copy, so that an aligned access is one host access. */
static u64 load_host(const u8 *p, unsigned size)
{
	switch (size) {
	case 1:
		return *p;
	case 2:
		return ld_le16(p);
	case 4:
		return ld_le32(p);
	default:
		return ld_le64(p);
	}
}

static void store_host(u8 *p, unsigned size, u64 value)
{
	switch (size) {
	case 1:
		*p = (u8)value;
		break;
	case 2:
		st_le16(p, (u16)value);
		break;
	case 4:
		st_le32(p, (u32)value);
		break;
	default:
		st_le64(p, value);
		break;
	}
}

u64 soft_read(struct vcpu *v, gva_t va, unsigned size, unsigned how)
{
	struct span s;
	u64 value = 0;

	span_get(v, va, size, how, &s);
	if (likely(s.first == size && s.pages[0].host))
		return load_host(s.pages[0].host, size);
	span_read(v, &s, &value, size);
	return value;
}

void soft_write(struct vcpu *v, gva_t va, unsigned size, u64 value,
		unsigned how)
{
	struct span s;

	span_get(v, va, size, how | SOFT_W, &s);
	if (likely(s.first == size && s.pages[0].host && !s.pages[0].is_rom))
		store_host(s.pages[0].host, size, value);
	else
		span_write(v, &s, &value, size);
}

void soft_read_bytes(struct vcpu *v, gva_t va, void *dst, size_t n,
		     unsigned how)
{
	struct span s;

	ASSERT(n <= PAGE_BYTES);
	if (!n)
		return;
	span_get(v, va, n, how, &s);
	span_read(v, &s, dst, n);
}

void soft_write_bytes(struct vcpu *v, gva_t va, const void *src, size_t n,
		      unsigned how)
{
	struct span s;

	ASSERT(n <= PAGE_BYTES);
	if (!n)
		return;
	span_get(v, va, n, how | SOFT_W, &s);
	span_write(v, &s, src, n);
}

void soft_probe(struct vcpu *v, gva_t va, size_t n, unsigned how)
{
	struct page p;

	if (!n)
		return;
	page_get(v, va, how, &p);
	for (gva_t at = (va | 0xfff) + 1; at - va < n; at += PAGE_BYTES)
		page_get(v, at, how, &p);
}

u8 *soft_hva(struct vcpu *v, gva_t va, size_t n, unsigned how)
{
	struct page p;

	if ((va & 0xfff) + n > PAGE_BYTES)
		return NULL;
	page_get(v, va, how, &p);
	if (!p.host || ((how & SOFT_W) && p.is_rom))
		return NULL;
	watch(v, va_wrap(v, va, how), n, how);
	return p.host;
}

/* ---- stub operands ---- */

void soft_operand_get(struct vcpu *v, struct soft_operand *o, gva_t va,
		      size_t n, bool is_read, bool is_write, bool is_lock)
{
	unsigned how = is_write ? SOFT_W : SOFT_R;
	struct span s;

	ASSERT(n <= sizeof(o->bounce));
	o->va = va;
	o->size = (u16)n;
	o->is_bounced = false;
	o->is_locked = false;
	span_get(v, va, n, how, &s);
	if (is_write && is_read)
		watch(v, va_wrap(v, va, how), n, SOFT_R);
	for (int i = 0; i < 2; i++) {
		bool is_used = !i || s.first < n;

		o->part_host[i] =
			is_used && !s.pages[i].is_rom ? s.pages[i].host : NULL;
		o->part_gpa[i] = is_used ? s.pages[i].gpa : 0;
	}
	o->first = (u16)s.first;
	/* One page, or two that are neighbours in host memory too: the host
	 * CPU does it, with its own atomicity. */
	if (s.pages[0].host && !(is_write && s.pages[0].is_rom) &&
	    (s.first == n || (s.pages[1].host == s.pages[0].host + s.first &&
			      !(is_write && s.pages[1].is_rom)))) {
		o->host = s.pages[0].host;
		return;
	}
	if (is_lock && s.first < n) {
		pthread_mutex_lock(&v->vm->split_lock);
		o->is_locked = true;
	}
	o->is_bounced = true;
	o->host = o->bounce;
	if (is_read)
		span_read(v, &s, o->bounce, n);
}

void soft_operand_commit(struct vcpu *v, struct soft_operand *o, bool is_write)
{
	if (!o->is_bounced)
		return;
	if (is_write) {
		struct span s = {.first = o->first};

		for (int i = 0; i < 2; i++) {
			s.pages[i].host = o->part_host[i];
			s.pages[i].gpa = o->part_gpa[i];
		}
		span_write(v, &s, o->bounce, o->size);
	}
	if (o->is_locked)
		pthread_mutex_unlock(&v->vm->split_lock);
	o->is_locked = false;
}

/* ---- instruction fetch ---- */

size_t soft_fetch(struct vcpu *v, gva_t va, u8 *dst, size_t need)
{
	size_t first = MIN((size_t)X86_INSN_MAX, PAGE_BYTES - (va & 0xfff));
	struct page p;

	page_get(v, va, SOFT_X, &p);
	page_read(v, &p, dst, first);
	if (first >= need)
		return first;
	page_get(v, va + first, SOFT_X, &p);
	page_read(v, &p, dst + first, X86_INSN_MAX - first);
	return X86_INSN_MAX;
}

const u8 *soft_fetch_page(struct vcpu *v, gva_t va)
{
	struct page p;

	page_get(v, va, SOFT_X, &p);
	return p.host ? p.host - (va & 0xfff) : NULL;
}

bool soft_translate_debug(struct vcpu *v, gva_t va, gpa_t *out_gpa)
{
	struct walk w;
	u32 error;

	if (!v->is_long)
		va = (u32)va;
	if (!(v->cr0 & X86_CR0_PG)) {
		*out_gpa = va;
		return true;
	}
	if (!soft_is_canonical(va) || !walk(v, va, 0, true, &w, &error))
		return false;
	*out_gpa = w.gpa;
	return true;
}
