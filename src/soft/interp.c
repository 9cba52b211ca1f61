/* SPDX-License-Identifier: Apache-2.0 */
/* The interpreter's loop.
 *
 * THEORY. For each block: find its bytes in host memory, find the block by
 * their host address, compare all bytes with the block's, and call the
 * handlers one after another. A handler that returns has completed; one that
 * raises unwinds to vcpu_run() with v->rip still at its instruction. Behind
 * one that may have stored to memory the bytes are compared again, so that a
 * store into the block itself is obeyed by the next instruction.
 *
 * The host address of the page that code runs in is kept in v->fetch_host
 * until the TLB is flushed or the privilege changes.
 *
 * One by one, each with its bytes copied first, go instructions that cross a
 * page, lie in MMIO or at the end of CS, and those in an interrupt shadow or
 * with RF, TF or breakpoints enabled.
 */
#include <emmintrin.h>

#include "soft/access.h"

static inline bool entry_matches(const struct vcpu *v,
				 const struct soft_entry *e, const u8 *p)
{
	return e->mode == v->code_mode && !memcmp(e->bytes, p, e->len);
}

static inline struct soft_entry *single_at(struct soft_icache *c, u64 va)
{
	return &c->singles[(va ^ va >> 12) & (SOFT_ICACHE_SINGLES - 1)];
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

/* One instruction, its bytes copied. */
static struct soft_entry *fetch(struct vcpu *v)
{
	struct soft_icache *c = soft_icache_get(v);
	size_t limit = limit_bytes(v);
	gva_t va = code_lin(v);
	struct soft_entry *e = single_at(c, va);
	u8 buf[16] = {0};
	size_t n = soft_fetch(v, va, buf, 1);
	int rc;

	for (;;) {
		n = MIN(n, limit);
		memset(buf + n, 0, sizeof(buf) - n);
		if (e->len <= n && entry_matches(v, e, buf))
			return e;
		v->stats.icache_misses++;
		rc = soft_entry_decode(v, e, buf, n);
		if (rc > 0) {
			memcpy(e->bytes, buf, rc);
			return e;
		}
		if (rc != X86_DECODE_SHORT)
			raise_decode(v, rc);
		if (n >= limit) /* CS limit, or 15 bytes and no end */
			soft_gp(v, 0);
		n = soft_fetch(v, va, buf, n + 1); /* grows, or raises */
	}
}

static void execute(struct vcpu *v)
{
	struct soft_entry *e = fetch(v);
	u8 shadow = v->shadow;

	v->next_rip = v->rip + e->len;
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

bool soft_needs_slow_step(const struct vcpu *v)
{
	return v->rflags_sys & (X86_FL_TF | X86_FL_RF) || v->dr7 & 0xff;
}

static bool is_string(u16 op)
{
	return op == ISA_OP_MOVS || op == ISA_OP_STOS || op == ISA_OP_LODS ||
	       op == ISA_OP_CMPS || op == ISA_OP_SCAS || op == ISA_OP_INS ||
	       op == ISA_OP_OUTS;
}

static __attribute__((noinline)) void step_slow(struct vcpu *v)
{
	bool tf = v->rflags_sys & X86_FL_TF;
	bool rf = v->rflags_sys & X86_FL_RF;
	u64 start = v->rip;
	u16 op;

	soft_check_code_breakpoints(v);
	op = fetch(v)->insn.row->op;
	execute(v);
	/* RF stays between the iterations of a string instruction. */
	if (rf && op != ISA_OP_IRET && !(v->rip == start && is_string(op)))
		v->rflags_sys &= ~X86_FL_RF;
	/* These trap by the TF that they load (sysops2.c). */
	if (op == ISA_OP_SYSCALL || op == ISA_OP_SYSRET)
		tf = false;
	if (!(v->shadow & SHADOW_MOV_SS))
		soft_check_debug_traps(v, tf);
}

static void step(struct vcpu *v)
{
	if (unlikely(soft_needs_slow_step(v)))
		step_slow(v);
	else
		execute(v);
}

void soft_interp_one(struct vcpu *v)
{
	soft_icache_get(v);
	step(v);
}

/* ---- blocks ---- */

/* A bit for each of 16 bytes, whether they are equal; a is aligned. */
static inline u64 equal_bytes(const u8 *a, const u8 *b)
{
	return (u64)_mm_movemask_epi8(_mm_cmpeq_epi8(
		_mm_loadu_si128((const __m128i *)b), *(const __m128i *)a));
}

static inline bool block_matches(const struct soft_block *b, const u8 *p)
{
	u64 equal;

	if (unlikely(((uintptr_t)p & (PAGE_BYTES - 1)) >
		     PAGE_BYTES - sizeof(b->bytes)))
		return !memcmp(b->bytes, p, b->len);
	equal = equal_bytes(b->bytes, p) |
		equal_bytes(b->bytes + 16, p + 16) << 16 |
		equal_bytes(b->bytes + 32, p + 32) << 32;
	return !(~equal << (64 - b->len));
}

/* Not inline: the loop's registers are worth more. */
static __attribute__((noinline)) bool still_matches(const struct soft_block *b,
						    const u8 *p)
{
	return block_matches(b, p);
}

/* Whether this instruction may have stored into the page that it is in. */
static inline bool may_be_hit(const struct vcpu *v, const struct soft_entry *e,
			      const u8 *p)
{
	return e->store == SOFT_STORE_ANY ||
	       ((uintptr_t)v->stored ^ (uintptr_t)p) < PAGE_BYTES;
}

static inline bool block_is_alive(const struct soft_icache *c,
				  const struct soft_block *b)
{
	/* What could not be decoded behind a block's end has been written to
	 * the ring as well. */
	return c->next - b->pos <= SOFT_ICACHE_ENTRIES - SOFT_BLOCK_INSNS;
}

/* Host address of linear va, or NULL: not in RAM. */
static __attribute__((noinline)) const u8 *code_host_slow(struct vcpu *v,
							  gva_t va)
{
	const u8 *page;

	if (v->code_mode == X86_MODE_64 && !soft_is_canonical(va))
		soft_gp(v, 0);
	page = soft_fetch_page(v, va);
	if (!page)
		return NULL;
	v->fetch_page = va & ~(PAGE_BYTES - 1);
	v->fetch_host = page;
	return page + (va & (PAGE_BYTES - 1));
}

/* The block at rip, whose bytes are at *out_host; NULL: go one by one. */
static inline struct soft_block *block_find(struct vcpu *v, const u8 **out_host)
{
	struct soft_icache *c = v->icache;
	struct soft_block *b;
	gva_t va = v->rip, off;
	const u8 *p;

	if (unlikely(v->code_mode != X86_MODE_64)) {
		const struct soft_seg *cs = &v->segs[X86_CS];

		if (va + SOFT_BLOCK_BYTES > cs->limit)
			return NULL;
		va = (u32)(cs->base + va);
	}
	off = va & (PAGE_BYTES - 1);
	if (likely(va - off == v->fetch_page))
		p = v->fetch_host + off;
	else
		p = code_host_slow(v, va);
	if (unlikely(!p))
		return NULL;
	*out_host = p;
	b = &c->blocks[((uintptr_t)p ^ (uintptr_t)p >> 13) &
		       (SOFT_ICACHE_BLOCKS - 1)];
	if (likely(b->host == p && b->mode == v->code_mode &&
		   block_is_alive(c, b) && block_matches(b, p)))
		return b;
	return soft_block_make(v, b, p, PAGE_BYTES - off) ? b : NULL;
}

static inline void run_block(struct vcpu *v)
{
	const u8 *p;
	const struct soft_block *b = block_find(v, &p);
	const struct soft_entry *e;
	u64 rip = v->rip, mask;
	unsigned left;

	if (unlikely(!b)) {
		execute(v);
		return;
	}
	mask = likely(b->mode == X86_MODE_64) ? ~0ull
	       : b->mode == X86_MODE_32	      ? 0xffffffff
					      : 0xffff;
	e = &v->icache->entries[b->pos % SOFT_ICACHE_ENTRIES];
	for (left = b->count;; e++) {
		u64 next = (rip + e->len) & mask;

		v->rip = rip;
		v->next_rip = next;
		e->fn(v, &e->insn);
		v->instructions++;
		if (!--left)
			break;
		rip = next;
		if (e->store && unlikely(may_be_hit(v, e, p)) &&
		    unlikely(!still_matches(b, p)))
			break;
	}
	v->rip = v->next_rip;
}

void soft_interp_block(struct vcpu *v)
{
	soft_icache_get(v);
	run_block(v);
}

void soft_interp(struct vcpu *v)
{
	soft_icache_get(v);
	while (!v->is_halted) {
		if (unlikely(v->shadow) || unlikely(soft_needs_slow_step(v)))
			step(v);
		else if (unlikely(soft_is_kicked(v)))
			return;
		else
			run_block(v);
	}
}
