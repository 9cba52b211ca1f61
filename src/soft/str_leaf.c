/* SPDX-License-Identifier: Apache-2.0 */
/* String instructions for generated code.
 *
 * THEORY. A chunk is a run of elements that lies in one page on each side.
 * Its bytes are addressed where they are in host memory, and the host's own
 * `rep movs` or `rep stos` with the guest's element size does it. That is
 * exact for any overlap: the guest's bytes are the host's bytes, so loading
 * and storing the same elements in the same order through host addresses has
 * the same effect as through guest addresses, also when the guest maps one
 * page at two addresses, and however the two host addresses lie. (memmove
 * would not do: a destination just above the source repeats a pattern. Nor
 * would larger elements: a distance smaller than an element would show.)
 *
 * An element that crosses a page goes alone, both pages resolved before its
 * first byte is stored. rCX, rSI and rDI are current after each chunk, so the
 * operation may be left between any two chunks.
 *
 * Only an access that the TLB admits is done here, and a page that holds code
 * or is watched has no write tag, so LEAF_T0 is the answer to everything
 * else. Guest memory is read once: the values that a comparison stops at are
 * those that its flags are computed from.
 */
#include "soft/leaf_int.h"

/* So many bytes may be done before v->go is looked at. */
#define KICK_BYTES (64 * KIB)

struct str {
	struct vcpu *v;
	unsigned n; /* bytes of an element */
	unsigned asize;
	u64 mask;
	u64 count;   /* elements due */
	u64 to_kick; /* bytes until v->go is looked at */
	bool is_rep;
};

/* Bytes of the page from va on. */
static u64 page_left(gva_t va)
{
	return PAGE_BYTES - (va & (PAGE_BYTES - 1));
}

/* One element anywhere; its two pages when it crosses. */
struct element {
	u8 *part[2];
	unsigned first; /* bytes in part[0] */
};

static bool element_at(const struct str *s, gva_t va, unsigned how,
		       struct element *out)
{
	u64 left = page_left(va);

	out->first = left < s->n ? (unsigned)left : s->n;
	out->part[0] = leaf_page(s->v, va, out->first, how);
	if (!out->part[0])
		return false;
	if (out->first == s->n)
		return true;
	/* 64-bit code does not wrap at 4 GiB within an operand, whatever the
	 * address size; 32-bit code faults there. */
	if (unlikely(va + left == 4 * GIB && s->v->code_mode != X86_MODE_64))
		return false;
	out->part[1] = leaf_page(s->v, va + left, s->n - out->first, how);
	return out->part[1] != NULL;
}

static u64 element_load(const struct str *s, const struct element *e)
{
	u64 value = 0;

	if (likely(e->first == s->n))
		return soft_ld(e->part[0], s->n);
	for (unsigned i = 0; i < s->n; i++) {
		const u8 *p = i < e->first ? e->part[0] + i
					   : e->part[1] + (i - e->first);

		value |= (u64)*p << (i * 8);
	}
	return value;
}

static void element_store(const struct str *s, const struct element *e,
			  u64 value)
{
	if (likely(e->first == s->n)) {
		soft_st(e->part[0], s->n, value);
		return;
	}
	for (unsigned i = 0; i < s->n; i++) {
		u8 *p = i < e->first ? e->part[0] + i
				     : e->part[1] + (i - e->first);

		*p = (u8)(value >> (i * 8));
	}
}

static gva_t str_reg(const struct str *s, unsigned reg)
{
	return s->v->gpr[reg] & s->mask;
}

static void str_advance(const struct str *s, unsigned reg, u64 elements)
{
	soft_gpr_write(s->v, reg, s->asize, s->v->gpr[reg] + elements * s->n);
}

/* How many whole elements from va on lie in its page, at most those due. */
static u64 str_run(const struct str *s, gva_t va)
{
	u64 run = page_left(va) >> __builtin_ctz(s->n);

	return MIN(run, s->count);
}

/* After `elements`: true when another chunk is due and may be done now.
 * Otherwise s->count says whether the instruction is complete. */
static bool str_more(struct str *s, u64 elements)
{
	u64 bytes = elements * s->n;

	s->count -= elements;
	if (!s->is_rep)
		return false;
	soft_gpr_write(s->v, X86_RCX, s->asize, s->count);
	if (bytes < s->to_kick) {
		s->to_kick -= bytes;
		return s->count != 0;
	}
	s->to_kick = KICK_BYTES;
	return s->count != 0 && !soft_is_kicked(s->v);
}

static u32 str_end(const struct str *s)
{
	return s->count ? LEAF_T0 : LEAF_DONE;
}

/* ---- MOVS, STOS, LODS ---- */

static void copy_elements(u8 *d, const u8 *p, u64 elements, unsigned n)
{
	switch (n) {
	case 1:
		__asm__ volatile("rep movsb"
				 : "+D"(d), "+S"(p), "+c"(elements)
				 :
				 : "memory");
		break;
	case 2:
		__asm__ volatile("rep movsw"
				 : "+D"(d), "+S"(p), "+c"(elements)
				 :
				 : "memory");
		break;
	case 4:
		__asm__ volatile("rep movsl"
				 : "+D"(d), "+S"(p), "+c"(elements)
				 :
				 : "memory");
		break;
	default:
		__asm__ volatile("rep movsq"
				 : "+D"(d), "+S"(p), "+c"(elements)
				 :
				 : "memory");
	}
}

static void fill_elements(u8 *d, u64 value, u64 elements, unsigned n)
{
	switch (n) {
	case 1:
		__asm__ volatile("rep stosb"
				 : "+D"(d), "+c"(elements)
				 : "a"(value)
				 : "memory");
		break;
	case 2:
		__asm__ volatile("rep stosw"
				 : "+D"(d), "+c"(elements)
				 : "a"(value)
				 : "memory");
		break;
	case 4:
		__asm__ volatile("rep stosl"
				 : "+D"(d), "+c"(elements)
				 : "a"(value)
				 : "memory");
		break;
	default:
		__asm__ volatile("rep stosq"
				 : "+D"(d), "+c"(elements)
				 : "a"(value)
				 : "memory");
	}
}

/* One MOVS element that crosses a page on either side. */
static bool move_crossing(const struct str *s, gva_t src, gva_t dst)
{
	struct element from, to;

	if (!element_at(s, src, SOFT_R, &from) ||
	    !element_at(s, dst, SOFT_W, &to))
		return false;
	element_store(s, &to, element_load(s, &from));
	return true;
}

static u32 do_movs(struct str *s)
{
	u64 done;

	do {
		gva_t src = str_reg(s, X86_RSI), dst = str_reg(s, X86_RDI);
		u64 run = str_run(s, dst);

		done = str_run(s, src);
		done = MIN(done, run);
		if (likely(done)) {
			const u8 *p = leaf_page(s->v, src, s->n, SOFT_R);
			u8 *d = p ? leaf_page(s->v, dst, s->n, SOFT_W) : NULL;

			if (!d)
				return LEAF_T0;
			copy_elements(d, p, done, s->n);
		} else {
			done = 1;
			if (!move_crossing(s, src, dst))
				return LEAF_T0;
		}
		str_advance(s, X86_RSI, done);
		str_advance(s, X86_RDI, done);
	} while (str_more(s, done));
	return str_end(s);
}

static u32 do_stos(struct str *s)
{
	u64 done;

	do {
		gva_t dst = str_reg(s, X86_RDI);

		done = str_run(s, dst);
		if (likely(done)) {
			u8 *d = leaf_page(s->v, dst, s->n, SOFT_W);

			if (!d)
				return LEAF_T0;
			fill_elements(d, s->v->gpr[X86_RAX], done, s->n);
		} else {
			struct element to;

			done = 1;
			if (!element_at(s, dst, SOFT_W, &to))
				return LEAF_T0;
			element_store(s, &to, s->v->gpr[X86_RAX]);
		}
		str_advance(s, X86_RDI, done);
	} while (str_more(s, done));
	return str_end(s);
}

static u32 do_lods(struct str *s)
{
	do {
		struct element from;

		if (!element_at(s, str_reg(s, X86_RSI), SOFT_R, &from))
			return LEAF_T0;
		soft_gpr_write(s->v, X86_RAX, s->n, element_load(s, &from));
		str_advance(s, X86_RSI, 1);
	} while (str_more(s, 1));
	return str_end(s);
}

/* ---- CMPS, SCAS ---- */

/* v->aflags of CMP a, b. */
static u32 compare(u64 a, u64 b, unsigned n)
{
	u64 f;

	switch (n) {
	case 1:
		__asm__("cmpb %b2, %b1\n\tlahf\n\tseto %%al"
			: "=&a"(f)
			: "q"(a), "q"(b)
			: "cc");
		break;
	case 2:
		__asm__("cmpw %w2, %w1\n\tlahf\n\tseto %%al"
			: "=&a"(f)
			: "r"(a), "r"(b)
			: "cc");
		break;
	case 4:
		__asm__("cmpl %k2, %k1\n\tlahf\n\tseto %%al"
			: "=&a"(f)
			: "r"(a), "r"(b)
			: "cc");
		break;
	default:
		__asm__("cmpq %2, %1\n\tlahf\n\tseto %%al"
			: "=&a"(f)
			: "r"(a), "r"(b)
			: "cc");
	}
	return (u16)f;
}

/* Two sequences of elements; a constant when step_a is 0. Compares until two
 * are equal (as is_until says) or not, at most `count`. Returns how many were
 * looked at, the last of them in *a and *b. */
struct run {
	const u8 *a; /* NULL: value is compared with each */
	const u8 *b;
	u64 value;
};

static inline u64 scan(const struct run *r, u64 count, unsigned n,
		       bool is_until_equal, u64 *a, u64 *b)
{
	u64 i = 0;

	do {
		*a = r->a ? soft_ld(r->a + i * n, n) : r->value;
		*b = soft_ld(r->b + i * n, n);
		i++;
	} while (i < count && (*a == *b) != is_until_equal);
	return i;
}

static u64 scan_by(const struct run *r, u64 count, unsigned n,
		   bool is_until_equal, u64 *a, u64 *b)
{
	switch (n) {
	case 1:
		return scan(r, count, 1, is_until_equal, a, b);
	case 2:
		return scan(r, count, 2, is_until_equal, a, b);
	case 4:
		return scan(r, count, 4, is_until_equal, a, b);
	default:
		return scan(r, count, 8, is_until_equal, a, b);
	}
}

/* The next elements at dst (and src, for CMPS); 0: not here. */
static u64 compare_chunk(const struct str *s, gva_t src, gva_t dst,
			 bool has_src, bool is_until_equal, u64 *a, u64 *b)
{
	struct run r = {.value = *a};
	u64 n = str_run(s, dst);

	if (has_src) {
		u64 other = str_run(s, src);

		n = MIN(n, other);
	}
	if (likely(n)) {
		if (has_src) {
			r.a = leaf_page(s->v, src, s->n, SOFT_R);
			if (!r.a)
				return 0;
		}
		r.b = leaf_page(s->v, dst, s->n, SOFT_R);
		return r.b ? scan_by(&r, n, s->n, is_until_equal, a, b) : 0;
	} else {
		struct element e;

		if (has_src) {
			if (!element_at(s, src, SOFT_R, &e))
				return 0;
			*a = element_load(s, &e);
		}
		if (!element_at(s, dst, SOFT_R, &e))
			return 0;
		*b = element_load(s, &e);
		return 1;
	}
}

static u32 do_compare(struct str *s, bool has_src, bool is_until_equal)
{
	u64 a = s->v->gpr[X86_RAX] & soft_mask(s->n), b = 0, done;
	bool is_more;

	do {
		done = compare_chunk(s, str_reg(s, X86_RSI),
				     str_reg(s, X86_RDI), has_src,
				     is_until_equal, &a, &b);
		if (!done)
			return LEAF_T0;
		s->v->aflags = compare(a, b, s->n);
		if (has_src)
			str_advance(s, X86_RSI, done);
		str_advance(s, X86_RDI, done);
		is_more = str_more(s, done);
		if ((a == b) == is_until_equal)
			return LEAF_DONE;
	} while (is_more);
	return str_end(s);
}

u32 soft_str_leaf(struct vcpu *v, u32 arg)
{
	bool is_32 = LEAF_STR_IS_32(arg);
	struct str s = {
		.v = v,
		.n = LEAF_STR_BYTES(arg),
		.asize = is_32 ? 4 : 8,
		.mask = is_32 ? 0xffffffffu : ~0ull,
		.count = 1,
		.to_kick = KICK_BYTES,
		.is_rep = LEAF_STR_REP(arg) != LEAF_NOREP,
	};

	if (unlikely(v->rflags_sys & X86_FL_DF || !v->is_flat))
		return LEAF_T0;
	if (s.is_rep)
		s.count = v->gpr[X86_RCX] & s.mask;
	if (!s.count)
		return LEAF_DONE;
	switch (LEAF_STR_OP(arg)) {
	case LEAF_MOVS:
		return do_movs(&s);
	case LEAF_STOS:
		return do_stos(&s);
	case LEAF_LODS:
		return do_lods(&s);
	case LEAF_SCAS:
		return do_compare(&s, false, LEAF_STR_REP(arg) == LEAF_REPNE);
	case LEAF_CMPS:
		return do_compare(&s, true, LEAF_STR_REP(arg) == LEAF_REPNE);
	default:
		return LEAF_T0;
	}
}
