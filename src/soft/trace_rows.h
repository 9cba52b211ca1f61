/* SPDX-License-Identifier: Apache-2.0 */
/* Between trace.c and trace_rows.c: what a row is to a trace. */
#pragma once

#include "soft/trace.h"

/* reads: flags whose value it uses. writes: as xlat_insn_flags(). keeps: flags
 * that it either overwrites or leaves alone, which only the run decides
 * (shifts by CL, repeated compares). */
struct trace_flags {
	u16 reads, writes, keeps;
};
struct trace_flags trace_insn_flags(const struct insn *in);

/* Where control goes behind an instruction that xlat_can_lower() admits. */
enum trace_flow {
	TRACE_NEXT,  /* to the next one */
	TRACE_COND,  /* there or to the target: jcc, loop, jrcxz */
	TRACE_JUMP,  /* to the target */
	TRACE_LEAVE, /* somewhere: call, ret, jmp r/m */
};
enum trace_flow trace_insn_flow(const struct insn *in);
