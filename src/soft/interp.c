// SPDX-License-Identifier: Apache-2.0
/* The interpreter's loop.
 *
 * THEORY. For each instruction: find its bytes in host memory through the
 * TLB, find the cache entry by their host address, compare all bytes with the
 * entry's, call the handler, advance RIP. A handler that returns has
 * completed; one that raises unwinds to vcpu_run() with v->rip unchanged.
 *
 * The fast fetch needs 16 readable bytes in the page; within 16 bytes of its
 * end, near the limit of CS and in MMIO the bytes are copied first. RF, TF and
 * enabled breakpoints take the slow step.
 */
#include "soft/access.h"

#define MASK_LO(n) ((n) >= 8 ? ~0ull : (1ull << ((n)*8)) - 1)
#define MASK_HI(n) ((n) <= 8 ? 0 : (1ull << (((n)-8) * 8)) - 1)
#define MASK(n)                                                                \
	{                                                                      \
		MASK_LO(n), MASK_HI(n)                                         \
	}
static const u64 length_mask[16][2] = {
	{0, 0},	  MASK(1),  MASK(2),  MASK(3),	MASK(4),  MASK(5),
	MASK(6),  MASK(7),  MASK(8),  MASK(9),	MASK(10), MASK(11),
	MASK(12), MASK(13), MASK(14), MASK(15),
};

static inline bool entry_matches(const struct vcpu *v,
				 const struct soft_entry *e, const u8 *p)
{
	const u64 *m = length_mask[e->insn.len & 15];

	return e->mode == v->code_mode &&
	       !(((ld_le64(p) & m[0]) ^ e->bytes[0]) |
		 ((ld_le64(p + 8) & m[1]) ^ e->bytes[1]));
}

static inline struct soft_entry *entry_at(struct soft_icache *c, u64 key)
{
	return &c->entries[(key ^ key >> 14) & (SOFT_ICACHE_ENTRIES - 1)];
}

static void raise_decode(struct vcpu *v, int rc)
{
	if (rc == X86_DECODE_UD)
		soft_ud(v);
	soft_gp(v, 0); /* over 15 bytes */
}

/* Bytes of [rip …] that CS allows, at most 15; #GP(0) if none. */
static size_t limit_bytes(struct vcpu *v)
{
	const struct soft_seg *cs = &v->segs[X86_CS];

	if (v->code_mode == X86_MODE_64) {
		if (!soft_is_canonical(v->rip))
			soft_gp(v, 0);
		return X86_INSN_MAX;
	}
	if (v->rip > cs->limit)
		soft_gp(v, 0);
	return MIN((u64)X86_INSN_MAX, cs->limit - v->rip + 1);
}

static gva_t code_lin(const struct vcpu *v)
{
	if (v->code_mode == X86_MODE_64)
		return v->rip;
	return (u32)(v->segs[X86_CS].base + v->rip);
}

/* The bytes are copied: page ends, MMIO, segmented code. */
static struct soft_entry *fetch_copied(struct vcpu *v)
{
	struct soft_icache *c = soft_icache_get(v);
	size_t limit = limit_bytes(v);
	gva_t va = code_lin(v);
	struct soft_entry *e = entry_at(c, va);
	u8 buf[16] = {0};
	size_t n = soft_fetch(v, va, buf, 1);
	int rc;

	for (;;) {
		n = MIN(n, limit);
		memset(buf + n, 0, sizeof(buf) - n);
		if (e->insn.len <= n && entry_matches(v, e, buf))
			return e;
		v->stats.icache_misses++;
		rc = soft_entry_decode(v, e, buf, n);
		if (rc > 0)
			return e;
		if (rc != X86_DECODE_SHORT)
			raise_decode(v, rc);
		if (n >= limit) /* CS limit, or 15 bytes and no end */
			soft_gp(v, 0);
		n = soft_fetch(v, va, buf, n + 1); /* grows, or raises */
	}
}

static __attribute__((noinline)) struct soft_entry *
fetch_missed(struct vcpu *v, struct soft_entry *e, const u8 *p)
{
	int rc;

	v->stats.icache_misses++;
	rc = soft_entry_decode(v, e, p, X86_INSN_MAX);
	if (rc <= 0)
		raise_decode(v, rc);
	return e;
}

static inline struct soft_entry *fetch(struct vcpu *v)
{
	gva_t va = v->rip;
	struct soft_tlb_entry *t;
	struct soft_entry *e;
	const u8 *p;
	u64 off;

	if (unlikely(v->code_mode != X86_MODE_64)) {
		const struct soft_seg *cs = &v->segs[X86_CS];

		if (va + X86_INSN_MAX > cs->limit)
			return fetch_copied(v);
		va = (u32)(cs->base + va);
	}
	off = va & (PAGE_BYTES - 1);
	if (unlikely(off > PAGE_BYTES - 16))
		return fetch_copied(v);
	t = soft_tlb_at(v, va);
	if (likely(t->tag_r == va - off && t->meta & SOFT_TLB_EXEC)) {
		p = (const u8 *)t->hva_page + off;
	} else {
		if (v->code_mode == X86_MODE_64 && !soft_is_canonical(va))
			soft_gp(v, 0);
		p = soft_fetch_page(v, va);
		if (!p)
			return fetch_copied(v);
		p += off;
	}
	e = entry_at(v->icache, (u64)p);
	if (likely(entry_matches(v, e, p)))
		return e;
	return fetch_missed(v, e, p);
}

static inline void execute(struct vcpu *v)
{
	struct soft_entry *e = fetch(v);
	u8 shadow = v->shadow;

	v->next_rip = v->rip + e->insn.len;
	if (unlikely(v->code_mode != X86_MODE_64))
		v->next_rip &=
			v->code_mode == X86_MODE_16 ? 0xffff : 0xffffffff;
	v->shadow = 0;
	e->fn(v, &e->insn);
	/* An instruction in a shadow does not cast one of the same kind: a
	 * run of MOV SS cannot hold off a kick for ever. */
	if (unlikely(shadow))
		v->shadow &= ~shadow;
	v->rip = v->next_rip;
	v->instructions++;
}

static bool needs_slow_step(const struct vcpu *v)
{
	return v->rflags_sys & (X86_FL_TF | X86_FL_RF) || v->dr7 & 0xff;
}

static __attribute__((noinline)) void step_slow(struct vcpu *v)
{
	bool tf = v->rflags_sys & X86_FL_TF;
	bool rf = v->rflags_sys & X86_FL_RF;
	u16 op;

	soft_check_code_breakpoints(v);
	op = fetch(v)->insn.row->op;
	execute(v);
	if (rf && op != ISA_OP_IRET)
		v->rflags_sys &= ~X86_FL_RF;
	/* These trap by the TF that they load (sysops2.c). */
	if (op == ISA_OP_SYSCALL || op == ISA_OP_SYSRET)
		tf = false;
	if (!(v->shadow & SHADOW_MOV_SS))
		soft_check_debug_traps(v, tf);
}

void soft_interp_one(struct vcpu *v)
{
	soft_icache_get(v);
	if (unlikely(needs_slow_step(v)))
		step_slow(v);
	else
		execute(v);
}

void soft_interp(struct vcpu *v)
{
	soft_icache_get(v);
	while (!v->is_halted) {
		if (unlikely(atomic_load_explicit(&v->kick,
						  memory_order_relaxed)) &&
		    !v->shadow)
			return;
		if (unlikely(needs_slow_step(v)))
			step_slow(v);
		else
			execute(v);
	}
}
