/* SPDX-License-Identifier: Apache-2.0 */
/* From guest bytes to a trace: the straight run of instructions that one block
 * will hold, and for each which arithmetic flags are live.
 *
 * A trace starts at one instruction, goes on through jcc that fall through
 * and through direct jumps forward in the page, and ends at an indirect
 * branch, a call, an instruction that the translator does not lower inline,
 * the page's end, a target that the trace already holds, or XLAT_TRACE_MAX.
 * All its bytes lie in one page, but for the lone instruction that crosses
 * into the next.
 *
 * Flags. Masks are ISA_CF … ISA_OF. What the manuals leave undefined counts
 * as overwritten: such bits may differ from what the interpreter shows.
 */
#pragma once

#include "soft/xlat.h"

#define XLAT_TRACE_MAX 64

struct xlat_insn {
	struct insn in;
	u16 off;      /* in the page; an instruction behind a followed jmp may
			 lie anywhere in the page */
	u16 reads;    /* flags that it reads, or may leave as they were */
	u16 writes;   /* flags that it surely overwrites or leaves undefined */
	u16 live_out; /* flags that someone may read behind it */
	/* A jcc, loop or jrcxz inside the trace: flags live at its target; a
	 * jmp rel at its end as well. */
	u16 live_target;
};

enum xlat_trace_end {
	XLAT_END_BRANCH, /* the last instruction branches unconditionally */
	XLAT_END_NEXT, /* go on at next_off in this page (not in the trace) */
	XLAT_END_PAGE, /* go on at the next page's first byte, or at an
			  instruction that crosses into it, or behind one:
			  next_off may be 4096 or more */
	XLAT_END_INTERP, /* the instruction at next_off is the interpreter's */
};

struct xlat_trace {
	gpa_t page;  /* GPA of the page's first byte */
	gpa_t page2; /* a page-crossing instruction's second page, or
			XLAT_NO_GPA */
	u32 key;
	u16 first; /* offset of the first instruction in the page */
	u16 end;   /* highest offset of any byte used, plus one (4096 if the
		      instruction crosses) */
	u16 low;   /* lowest offset of any byte used */
	u64 look;  /* lines of 64 bytes that were looked ahead at */
	u16 next_off;
	u16 end_live; /* flags live where the trace goes on */
	u8 end_kind;  /* enum xlat_trace_end */
	u8 n;
	struct xlat_insn insns[XLAT_TRACE_MAX];
};

/* Which instructions generated code handles itself, and so may stand in a
 * trace (lower.c has the code for exactly these); the others end it with
 * XLAT_END_INTERP. Depends on the key: FPU rows with XLAT_KEY_NM and so on. */
bool xlat_can_lower(const struct insn *in, u32 key);

/* Builds the trace at offset `off` of the page. bytes: a copy of the page's
 * 4096 bytes; bytes2: of the next linear page's first 16 bytes, or NULL when
 * it cannot be executed. features: as presented. An instruction that does not
 * decode ends the trace (XLAT_END_INTERP raises it). May have n = 0. t->page is
 * the caller's to fill in; so is t->page2 when it comes back as 0, behind an
 * instruction that crosses into the next page. */
void xlat_trace_build(struct xlat_trace *t, const u8 *bytes, const u8 *bytes2,
		      u16 off, u32 key, const struct isa_features *features);

/* Ends the trace in front of its instruction n (0 to t->n - 1); in front of
 * the first: the interpreter's. */
void xlat_trace_cut(struct xlat_trace *t, unsigned n);

/* reads and writes of one instruction, by its row and operands. */
void xlat_insn_flags(const struct insn *in, u16 *out_reads, u16 *out_writes);
