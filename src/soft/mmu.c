/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY. Guest linear addresses become host pointers in three steps.
 *
 *	page_get()   TLB hit, or soft_walk() and soft_tlb_enter(), or a #PF
 *	struct page  one resolved page: host pointer (RAM, ROM) and GPA
 *	access       split at the page boundary, all pages resolved before the
 *	             first byte moves, so that a fault leaves nothing done
 *
 * The walker and the filling of the TLB are in mmu_leaf.c, what empties it in
 * tlb_leaf.c.
 */
#include "soft/lockstep.h"
#include "soft/mmu_int.h"

#include "base/log.h"
#include "soft/soft_sys.h"
#include "soft/xlat.h"

/* One resolved page; offset already added to host and gpa. */
struct page {
	u8 *host; /* NULL: MMIO */
	gpa_t gpa;
	bool is_rom;
};

/* ---- TLB ---- */

void soft_tlb_flush(struct vcpu *v, bool keep_global)
{
	struct soft_space *spaces[SOFT_SPACES_MAX];
	unsigned n = soft_spaces(v, spaces);

	v->fetch_page = SOFT_TLB_EMPTY;
	v->walks.large_used &= keep_global ? v->walks.large_global : 0;
	v->walks.pt_used = 0;
	for (unsigned i = 0; i < n; i++) {
		if (keep_global) {
			soft_space_purge(spaces[i]);
		} else {
			soft_space_empty(spaces[i]);
			spaces[i]->is_used = false;
		}
	}
	v->user->is_used = true;
	v->user->pcid = soft_pcid(v);
	v->user->root = v->cr3 & X86_PTE_ADDR;
}

void soft_tlb_flush_page(struct vcpu *v, gva_t va)
{
	soft_spaces_drop_page(v, va);
}

void soft_tlb_flush_pcid(struct vcpu *v, u16 pcid)
{
	struct soft_space *s = soft_space_find(v, pcid);

	v->fetch_page = SOFT_TLB_EMPTY;
	soft_walks_drop(v, false);
	if (s)
		soft_space_purge(s);
	if (pcid == soft_pcid(v))
		soft_space_purge(&v->super);
}

void soft_tlb_flush_pcid_page(struct vcpu *v, u16 pcid, gva_t va)
{
	struct soft_space *s = soft_space_find(v, pcid);

	if (pcid == soft_pcid(v)) {
		soft_spaces_drop_page(v, va);
		return;
	}
	soft_walks_drop(v, false);
	if (s)
		soft_space_drop_page(s, va, false);
}

/* One that was never used; NULL: there is none. */
static struct soft_space *space_begin(struct vcpu *v)
{
	for (unsigned i = 0; i < SOFT_USER_SPACES; i++)
		if (!v->users[i])
			return v->users[i] = soft_vcpu_space(v, i);
	return NULL;
}

void soft_cr3_switch(struct vcpu *v, u64 value, bool keeps)
{
	u16 pcid = v->cr4 & X86_CR4_PCIDE ? value & 0xfff : 0;
	struct soft_space *to = soft_space_find(v, pcid);

	if (!to)
		to = soft_space_pick(v, false);
	if (!to)
		to = space_begin(v);
	if (!to)
		to = soft_space_pick(v, true);
	soft_space_switch(v, to, value, keeps);
}

/* ---- one page ---- */

/* Says in the log what a walk met that no sane guest does. */
static void walk_log(const struct walk *w)
{
	for (u32 i = 0; i < w->depth; i++)
		if (!w->entries[i].host)
			log_guest("page-table entry outside RAM: gpa 0x%llx",
				  (unsigned long long)w->entries[i].gpa);
}

/* A and D were set: tables may hold code, too. */
static void walk_stored(struct vcpu *v, const struct walk *w)
{
	for (u32 i = 0; i < w->depth; i++)
		if (w->stored & BIT32(i))
			smc_written(v->vm, w->entries[i].gpa,
				    w->entries[i].is_wide ? 8 : 4);
}

/* Walks for one access, or raises. */
static void walk_or_raise(struct vcpu *v, gva_t va, unsigned how,
			  struct walk *w)
{
	enum walk_status status = WALK_AGAIN;

	if (v->is_long && !soft_is_canonical(va))
		soft_gp(v, 0);
	for (int i = 0; i < WALK_RETRIES; i++) {
		status = soft_walk(v, va, how, 0, w);
		walk_stored(v, w);
		if (status != WALK_AGAIN)
			break;
	}
	if (status == WALK_AGAIN)
		soft_internal_error(v, "page-table entry of 0x%llx never stays",
				    (unsigned long long)va);
	if (status == WALK_FAULT) {
		walk_log(w);
		soft_raise_pf(v, va, w->error);
	}
}

/* The interpreter runs to be compared: what it writes is a copy. */
static void page_copy(struct vcpu *v, unsigned how, struct page *p)
{
	uintptr_t off = (uintptr_t)p->host & (PAGE_BYTES - 1);
	bool is_write = how & SOFT_W;
	u8 *host = lockstep_page(v, p->host - off, is_write);

	if (!host || (is_write && p->is_rom))
		lockstep_stop(v);
	p->host = host + off;
}

/* Resolves the page of va for one access. */
static void page_get(struct vcpu *v, gva_t va, unsigned how, struct page *out)
{
	const struct soft_tlb_entry *e;
	const struct mem_slot *slot;
	struct walk w;

	va = soft_va_wrap(v, va, how);
	out->is_rom = false; /* tag_w is empty for ROM */
	e = soft_tlb_hit(v, va, how);
	if (likely(e != NULL)) {
		out->host = (u8 *)(uintptr_t)e->hva_page + (va & 0xfff);
		out->gpa = (e->meta & ~0xfffull) | (va & 0xfff);
		return;
	}
	v->stats.tlb_misses++;
	if (!v->super.is_ready || !v->user->is_ready)
		soft_tlb_flush(v, false);
	walk_or_raise(v, va, how, &w);
	out->gpa = w.gpa;
	out->host = NULL;
	slot = soft_walk_slot(v, &w);
	if (!slot && v->on_copies)
		lockstep_stop(v);
	if (!slot)
		return;
	out->host = slot->hva + (w.gpa - slot->gpa);
	out->is_rom = slot->flags & MEM_SLOT_ROM;
	if (unlikely(v->on_copies))
		page_copy(v, how, out);
	soft_tlb_enter(v, va, how, &w, out->host - (va & 0xfff), out->is_rom);
}

/* n bytes of RAM have been stored: code there dies. Not before the store:
 * another vCPU could translate the old bytes in between. */
static void stored(struct vcpu *v, gpa_t gpa, size_t n)
{
	if (v->vm->xlat && likely(!v->on_copies))
		smc_written(v->vm, gpa, n);
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
		stored(v, gpa, n);
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
	watch(v, soft_va_wrap(v, va, how), n, how);
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
	if (likely(s.first == size && s.pages[0].host && !s.pages[0].is_rom)) {
		store_host(s.pages[0].host, size, value);
		stored(v, s.pages[0].gpa, size);
	} else {
		span_write(v, &s, &value, size);
	}
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

/* ---- locked accesses over two pages ---- */

/* What the pages are now; false: not memory that may be accessed so. */
static bool span_again(struct vcpu *v, gva_t va, size_t n, unsigned how,
		       struct span *s)
{
	if (atomic_load(&v->requests) & SOFT_REQ_FLUSH)
		soft_tlb_flush(v, false);
	for (int i = 0; i < 2; i++) {
		gva_t at = soft_va_wrap(v, i ? va + s->first : va, how);
		const struct mem_slot *slot;
		struct walk w;

		if (soft_walk(v, at, how, 0, &w) != WALK_OK)
			return false;
		walk_stored(v, &w);
		slot = soft_walk_slot(v, &w);
		if (!slot)
			return false;
		s->pages[i] =
			(struct page){.host = slot->hva + (w.gpa - slot->gpa),
				      .gpa = w.gpa,
				      .is_rom = slot->flags & MEM_SLOT_ROM};
	}
	return true;
}

static bool is_scattered_ram(const struct span *s, size_t n)
{
	const struct page *p = s->pages;

	return s->first < n && p[0].host && p[1].host && !p[0].is_rom &&
	       !p[1].is_rom && p[1].host != p[0].host + s->first;
}

#define SPLIT_TRIES 8

/* The host CPU cannot lock two pages that are no neighbours in its memory: no
 * other vCPU runs until the commit. v may be parked on the way there, so the
 * pages are looked up anew. Who keeps changing them has no atomicity. */
static bool exclude_others(struct vcpu *v, gva_t va, size_t n, unsigned how,
			   struct span *s)
{
	for (int i = 0; i < SPLIT_TRIES; i++) {
		if (!is_scattered_ram(s, n) || v->on_copies)
			return false;
		soft_pause_others(v);
		if (span_again(v, va, n, how, s))
			return true;
		soft_resume_all(v->vm, v);
		span_get(v, va, n, how, s); /* or raises */
	}
	return false;
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
	span_get(v, va, n, how, &s);
	o->is_locked = is_lock && exclude_others(v, va, n, how, &s);
	if (is_write && is_read)
		watch(v, soft_va_wrap(v, va, how), n, SOFT_R);
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
	o->is_bounced = true;
	o->host = o->bounce;
	if (is_read)
		span_read(v, &s, o->bounce, n);
}

static void bounce_commit(struct vcpu *v, const struct soft_operand *o)
{
	struct span s = {.first = o->first};

	for (int i = 0; i < 2; i++) {
		s.pages[i].host = o->part_host[i];
		s.pages[i].gpa = o->part_gpa[i];
	}
	span_write(v, &s, o->bounce, o->size);
}

void soft_operand_commit(struct vcpu *v, struct soft_operand *o, bool is_write)
{
	if (is_write && o->is_bounced) {
		bounce_commit(v, o);
	} else if (is_write) {
		stored(v, o->part_gpa[0], o->first);
		if (o->first < o->size)
			stored(v, o->part_gpa[1], o->size - o->first);
	}
	if (o->is_locked)
		soft_resume_all(v->vm, v);
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

	if (!v->is_long)
		va = (u32)va;
	if (!soft_is_canonical(va) ||
	    soft_walk(v, va, 0, WALK_DEBUG, &w) != WALK_OK)
		return false;
	*out_gpa = w.gpa;
	return true;
}
