/* SPDX-License-Identifier: Apache-2.0 */
/* Leaf operations: C functions that generated code calls while the guest's
 * SIMD and x87 registers are in the host's.
 *
 *	u32 NAME(struct vcpu *v, u32 arg)
 *
 * On entry all guest GPRs are in v->gpr, the arithmetic flags in v->aflags,
 * v->rip is the instruction's address and v->next_rip that behind it. The
 * thunk loads all GPRs and the flags again afterwards. Returns LEAF_*.
 *
 * Rules of a leaf: compiled for general registers only, no libc, nothing
 * raises, no lock that is held for longer than a few instructions, no call
 * into a device. What cannot be done here - a fault, a device, a page that
 * holds code, a rare mode - is LEAF_T0, and the interpreter, which has the
 * complete semantics, executes the instruction.
 */
#pragma once

#include "soft/soft_int.h"

/* Executed completely. */
#define LEAF_DONE 0u
/* Not done, or not all of it: the interpreter executes the instruction from
 * v->rip with the state as it is. What a repeated string instruction did so
 * far is in rCX, rSI and rDI. */
#define LEAF_T0 1u
/* Done; it goes on at v->rip, in generated code of the mode v->key. */
#define LEAF_JUMP 2u
/* Done, v->rip is set; what comes next is for the dispatcher to say: an event
 * may wait, or the mode has no generated code. */
#define LEAF_LEAVE 3u

/* ---- strings (str_leaf.c) ---- */

enum leaf_str_op { LEAF_MOVS, LEAF_STOS, LEAF_LODS, LEAF_SCAS, LEAF_CMPS };
enum leaf_str_rep { LEAF_NOREP, LEAF_REPE /* and REP */, LEAF_REPNE };

/* The argument of soft_str_leaf(). bytes: of an element, 1, 2, 4 or 8.
 * asize: of addresses and of the count, 4 or 8 bytes. The source is in DS:
 * an override to FS or GS, or 16-bit addresses, are for the interpreter. */
#define LEAF_STR_ARG(op, bytes, rep, asize)                                    \
	((u32)(op) | (u32)__builtin_ctz(bytes) << 3 | (u32)(rep) << 5 |        \
	 ((asize) == 4 ? BIT32(7) : 0))
#define LEAF_STR_OP(arg)    ((arg)&7u)
#define LEAF_STR_BYTES(arg) (1u << ((arg) >> 3 & 3u))
#define LEAF_STR_REP(arg)   ((arg) >> 5 & 3u)
#define LEAF_STR_IS_32(arg) (((arg)&BIT32(7)) != 0)

/* For flat modes (v->is_flat). LEAF_DONE or LEAF_T0. */
u32 soft_str_leaf(struct vcpu *v, u32 arg);

/* ---- system instructions (sys_leaf.c), of 64-bit code only ---- */

/* Fast cases; LEAF_T0 stands for all others and for every fault. arg is 0
 * where nothing is said. After LEAF_JUMP the jump cache of the space of the
 * (new) v->cpl has the key v->key. */
u32 soft_syscall_leaf(struct vcpu *v, u32 arg);
u32 soft_sysret_leaf(struct vcpu *v, u32 arg); /* REX.W */
u32 soft_iretq_leaf(struct vcpu *v, u32 arg);
u32 soft_swapgs_leaf(struct vcpu *v, u32 arg);
/* 64-bit operands. POPF leaves when an event may be taken now. */
u32 soft_pushf_leaf(struct vcpu *v, u32 arg);
u32 soft_popf_leaf(struct vcpu *v, u32 arg);
/* arg 1: RDTSCP. */
u32 soft_rdtsc_leaf(struct vcpu *v, u32 arg);
/* arg: the register that is written. */
u32 soft_rdpid_leaf(struct vcpu *v, u32 arg);
u32 soft_rdmsr_leaf(struct vcpu *v, u32 arg);
u32 soft_wrmsr_leaf(struct vcpu *v, u32 arg);
/* arg: register written | control register << 4. */
u32 soft_rdcr_leaf(struct vcpu *v, u32 arg);
u32 soft_clts_leaf(struct vcpu *v, u32 arg);
/* arg: register read | control register << 4. CR3 only. */
u32 soft_wrcr_leaf(struct vcpu *v, u32 arg);
/* arg: the register with the linear address, or LEAF_NO_REG: another form. */
#define LEAF_NO_REG 16u
u32 soft_invlpg_reg_leaf(struct vcpu *v, u32 arg);
/* RDFSBASE, RDGSBASE, WRFSBASE, WRGSBASE. arg: the register, and: */
#define LEAF_BASE_GS BIT32(4)
#define LEAF_BASE_64 BIT32(5) /* a 64-bit operand */
u32 soft_rdbase_leaf(struct vcpu *v, u32 arg);
u32 soft_wrbase_leaf(struct vcpu *v, u32 arg);

/* In any mode. Now and then the thread's processor goes to another thread:
 * what the guest waits for may be a vCPU that has none. */
#define SOFT_PAUSES_PER_YIELD 128
void soft_pause(struct vcpu *v);
u32 soft_pause_leaf(struct vcpu *v, u32 arg);
