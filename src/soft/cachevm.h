/* SPDX-License-Identifier: Apache-2.0 */
/* Blocks with code that a test can call, for the tests of the code cache
 * (include test/test.h first). Layout of a block's 64 bytes:
 *
 *	 0 indirect entry  mov eax, CV_LIVE; ret
 *	 8 direct entry    mov eax, CV_LIVE; ret
 *	24 exit            nop3; jmp rel32 (its rel32 at 28)
 *	32 not linked      mov eax, CV_UNLINKED; ret
 *	40 a fault's address
 */
#pragma once

#include "soft/testvm.h"
#include "soft/thunks.h"
#include "soft/xlat_int.h"

#define CV_CODE	    64u
#define CV_LIVE	    1u
#define CV_DEAD	    2u
#define CV_UNLINKED 3u
#define CV_EXIT	    24u

static inline void cv_mov_ret(u8 *p, u32 value)
{
	p[0] = 0xb8;
	st_le32(p + 1, value);
	p[5] = 0xc3;
}

/* What the host finds when it jumps to this code offset. */
static inline u32 cv_call(struct xlat *x, u32 off)
{
	const u8 *p = xlat_code_rx(x) + off;
	u32 (*fn)(void);

	memcpy(&fn, &p, sizeof(fn));
	return fn();
}

/* In place of the dead blocks' thunks: pop rax; mov eax, CV_DEAD; ret */
static inline void cv_make_dead_thunks(struct xlat *x)
{
	u32 at = XLAT_THUNK_BYTES - 16;

	xlat_code_rw(x)[at] = 0x58;
	cv_mov_ret(xlat_code_rw(x) + at + 1, CV_DEAD);
	x->thunks[XT_DEAD_DIRECT] = x->thunks[XT_DEAD_INDIRECT] = at;
}

static inline struct xlat_exit cv_exit(const struct xlat_block *b, u16 target)
{
	return (struct xlat_exit){.site = b->code + CV_EXIT + 4,
				  .unlinked = b->code + CV_EXIT + 8,
				  .target = target};
}

static inline u32 cv_link(struct xlat *x, struct xlat_block *b, u16 target)
{
	struct xlat_exit e = cv_exit(b, target);

	return xlat_link(x, b, &e);
}

/* The block that b's exit is linked to; 0: none. */
static inline u32 cv_linked(const struct xlat *x, const struct xlat_block *b)
{
	return b->outgoing ? x->links[b->outgoing - 1].to : 0;
}

/* Under the lock. NULL: the cache is full. gpa2 XLAT_NO_GPA: one page. */
static inline struct xlat_block *cv_publish(struct xlat *x, gpa_t gpa,
					    gpa_t gpa2, u16 bytes, u32 key,
					    u16 target)
{
	u32 at = xlat_reserve(x, CV_CODE, 0, 1);
	struct xlat_block b = {.gpa = gpa,
			       .gfn2 = xlat_gfn2(gpa2),
			       .code = at,
			       .code_bytes = CV_CODE,
			       .direct = 8,
			       .key = (u16)key,
			       .bytes = bytes,
			       .insns = 2};
	struct xlat_exit e = cv_exit(&b, target);
	struct xlat_fault f = {.host = at + 40, .guest = gpa & 0xfff};
	u8 *p = xlat_code_rw(x) + at;

	if (!at)
		return NULL;
	if (smc_page_of(x, gpa))
		atomic_fetch_or(&smc_page_of(x, gpa)->code,
				BIT64((gpa & 0xfff) / 64));
	cv_mov_ret(p, CV_LIVE);
	cv_mov_ret(p + 8, CV_LIVE);
	memcpy(p + 24, "\x0f\x1f\x00\xe9", 4);
	st_le32(p + 28, 0);
	cv_mov_ret(p + 32, CV_UNLINKED);
	return xlat_publish(x, &b, &e, 1, &f, 1);
}

/* As it is in memory now. */
static inline void cv_unverified(struct xlat *x, struct xlat_block *b)
{
	const struct mem_slot *s = mem_slot_find(x->vm->mem, b->gpa);
	struct xlat_source source = {
		.hash = xlat_hash(s->hva + (b->gpa - s->gpa), b->bytes),
	};

	smc_unverified(x, b, &source);
}

/* With protection, as the translator does it. */
static inline struct xlat_block *cv_translate(struct vcpu *v, gpa_t gpa,
					      u16 bytes)
{
	struct xlat *x = v->vm->xlat;
	struct xlat_block *b;
	bool is_sure;

	xlat_lock(x);
	is_sure = smc_protect(v, gpa, bytes);
	b = cv_publish(x, gpa, XLAT_NO_GPA, bytes, 0, 0);
	if (b && !is_sure)
		cv_unverified(x, b);
	xlat_unlock(x);
	return b;
}
