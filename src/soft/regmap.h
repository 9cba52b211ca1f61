/* SPDX-License-Identifier: Apache-2.0 */
/* Which host register holds which guest register in generated code.
 *
 * RAX and RCX are scratch: the shortest encodings for the lookup in front of
 * every memory access, what lahf and jrcxz need, and the implicit operands of
 * the instructions that have some. Guest registers that live in callee-saved
 * host registers need no spilling around leaf calls. R10, R11 and R15, which
 * code names least, live in memory (engine.md A.1).
 */
#pragma once

#include "soft/emit.h"
#include "soft/soft_int.h"

#define S0  H_RAX /* scratch; lookups leave the host address here */
#define S1  H_RCX
#define ENV H_RSP /* struct vcpu, and the top of the leaf stack */

static const u8 xlat_host_of[16] = {
	[X86_RAX] = H_R10, [X86_RCX] = H_R11, [X86_RDX] = H_RDX,
	[X86_RBX] = H_RBX, [X86_RSP] = H_R15, [X86_RBP] = H_RBP,
	[X86_RSI] = H_RSI, [X86_RDI] = H_RDI, [8] = H_R8,
	[9] = H_R9,	   [10] = H_NONE,     [11] = H_NONE,
	[12] = H_R12,	   [13] = H_R13,      [14] = H_R14,
	[15] = H_NONE,
};

/* In host registers that a C function may change. */
#define XLAT_CALLER_SAVED                                                      \
	(1u << X86_RAX | 1u << X86_RCX | 1u << X86_RDX | 1u << X86_RSI |       \
	 1u << X86_RDI | 1u << 8 | 1u << 9)

#define ENV_OFF(field) ((i32)offsetof(struct vcpu, field))
static inline struct emem m_env(i32 offset)
{
	return m_b(ENV, offset);
}
static inline struct emem m_gpr(unsigned guest)
{
	return m_b(ENV, ENV_OFF(gpr) + 8 * (i32)guest);
}
