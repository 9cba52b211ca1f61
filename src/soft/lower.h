/* SPDX-License-Identifier: Apache-2.0 */
/* From a trace to host code: what the lower*.c files share.
 *
 * Precision. At every point where generated code may leave for the current
 * instruction (a lookup that fails, a host fault), all earlier instructions
 * have committed to pinned registers, struct vcpu and memory, and the current
 * one to none: lookups come first, register writes last.
 *
 * Flags. flags_in_regs and flags_in_env say where the live arithmetic flags
 * are at this point of the code: in RFLAGS, in v->aflags, or both. Neither:
 * none is live. A lookup destroys RFLAGS.
 */
#pragma once

#include "soft/encode.h"
#include "soft/group.h"
#include "soft/regmap.h"
#include "soft/slots.h"
#include "soft/trace.h"

/* With what generated code returns to xlat_run: v->exit_kind. v->rip is the
 * instruction to go on with. */
enum xlat_exit_kind {
	XLAT_EXIT_INTERP, /* one instruction by the interpreter */
	XLAT_EXIT_LOOKUP, /* find or make the block at v->rip */
	XLAT_EXIT_KICK,	  /* somebody wants something: v->go */
	XLAT_EXIT_FAULT,  /* host trap v->exit_arg at v->rip */
	XLAT_EXIT_KINDS,
	/* As LOOKUP, v->rip being that of the block whose code v->exit_arg lies
	 * in; xlat_enter() does not return it. */
	XLAT_EXIT_DEAD = XLAT_EXIT_KINDS,
};

/* Code offsets of the thunks: indexes of xlat_thunk_table(). */
#include "soft/thunks.h"

#define LOWER_EXITS  (2 * XLAT_TRACE_MAX + 4)
#define LOWER_FAULTS XLAT_TRACE_MAX
#define LOWER_COLDS  (4 * XLAT_TRACE_MAX)
/* Upper bound of one block's code, and of its cold code: 64 instructions of at
 * most two lookups. */
#define LOWER_CODE_MAX (24 * KIB)

/* Code out of the way: the host's caches hold what runs. */
enum cold_kind {
	COLD_LOOKUP, /* the TLB misses: fill, then back to `back` */
	COLD_GROUP,  /* the same for a group's span; else to the twin */
	COLD_CHAIN,  /* an exit that is not linked */
	COLD_EXIT,   /* leave at page offset `off` with exit kind `arg` */
	COLD_PROBE,  /* jump to pcbase + disp through the jump cache */
};
struct cold {
	u8 kind;
	u8 arg;	       /* LOOKUP: is_write; EXIT: enum xlat_exit_kind */
	bool saves;    /* flags are in RFLAGS and live: save them first */
	bool restores; /* GROUP: flags are in env and live */
	u16 off;       /* guest offset in the page */
	u32 site;      /* rel32 of the jump that leads here */
	u32 back;
	u32 slot; /* LOOKUP, GROUP: offset in the space; 0: none */
	i64 disp;
};

struct lower {
	struct emit e;
	const struct xlat_trace *t;
	const struct xlat_insn *i; /* being lowered */
	const u32 *thunks;
	bool is_32, is_user, has_bmi2;
	bool flags_in_regs, flags_in_env;
	/* The group whose host address is still in S0; GROUP_NONE: none. */
	u8 s0_group;
	bool keeps_s0;	     /* the current instruction leaves it there */
	u8 poll_behind;	     /* instructions until a poll is due; 0: none */
	u32 code;	     /* where the block starts */
	u32 cold;	     /* where cold code goes: LOWER_CODE_MAX bytes */
	struct slots *slots; /* NULL: accesses look into the TLB at once */
	u32 block;	     /* index that the block will have */
	u32 exit_count, fault_count, cold_count;
	bool is_refused; /* something that cannot be lowered: give up */
	struct xlat_exit exits[LOWER_EXITS];
	struct xlat_fault faults[LOWER_FAULTS];
	struct cold colds[LOWER_COLDS];
	struct groups g; /* of t */
	/* By is_user; by is_user, is_write, and whether to S1. Zeroed at first,
	 * then kept from block to block. */
	struct canned probes[2], lookups[2][2][2];
};

/* ---- lower.c ---- */

/* Emits the block of l->t, whose e, t, cold, thunks, has_bmi2 and block
 * are set. Fills code, cold code and entries of *b. false: no room, or
 * an instruction that is not lowered after all. */
bool lower_trace(struct lower *l, struct xlat_block *b);

/* ---- lower_verify.c: tests and fuzzing ---- */

/* Decodes what lower_trace() has emitted: NULL, or what generated code may not
 * hold, at code offset *out_at. host: the features that the host has. */
const char *lower_verify(const struct lower *l, const struct xlat_block *b,
			 const struct isa_features *host, u32 *out_at);

/* ---- flags ---- */

void lower_flags_to_env(struct lower *l);
/* Uses RAX. */
void lower_flags_to_regs(struct lower *l);
/* Before an instruction sequence that destroys RFLAGS: saves them if `live`
 * flags will be needed again. */
void lower_flags_spill(struct lower *l, u16 live);
/* The flags that are live in front of the current instruction. */
static inline u16 lower_live_in(const struct lower *l)
{
	return (l->i->live_out & ~l->i->writes) | l->i->reads;
}

/* ---- lower_mem.c ---- */

/* RAX = guest register; `size` 4 zero-extends. Any host register. */
void lower_get(struct lower *l, unsigned host, unsigned guest);
void lower_put(struct lower *l, unsigned guest, unsigned host);
/* RAX = linear address of the memory operand + extra. Destroys RFLAGS and RCX.
 */
void lower_ea(struct lower *l, const struct insn *in, i32 extra);
/* LEA: into host register d, no flags changed, no segment base. */
void lower_lea(struct lower *l, const struct insn *in, unsigned d);
/* RAX holds a linear address; leaves the host address in RAX or RCX (`to`).
 * Destroys RFLAGS and the other one. Leaves for the interpreter when the
 * access is not plain. */
void lower_lookup(struct lower *l, bool is_write, unsigned size, unsigned to);
/* Looks up in front of the current instruction for operand k of the trace,
 * see group.h. */
void lower_early(struct lower *l, unsigned k);
/* Does the current instruction's access go by an address that its group's head
 * found? Then it changes no flags. */
bool lower_is_member(const struct lower *l, unsigned kind);
/* Spills flags that are live in front of the instruction, if its access is
 * going to look up. */
void lower_flags_for_access(struct lower *l, unsigned kind);
/* The host memory operand of an access of the current instruction, based on
 * `to` (RAX or RCX). The operand, its address moved by `extra`; */
struct emem lower_operand(struct lower *l, i32 extra, bool is_write,
			  unsigned size, unsigned to);
/* … and [rSP + disp], one stack slot. */
struct emem lower_stack(struct lower *l, bool is_write, i32 disp, unsigned to);
static inline unsigned lower_stack_size(const struct lower *l)
{
	return l->is_32 ? 4 : 8;
}
/* rSP += n, flags kept. */
void lower_add_sp(struct lower *l, i32 n);
/* The ISA_MEMX rows. false: not one of them. */
bool lower_memx(struct lower *l);

/* ---- lower_ctrl.c ---- */

bool lower_ctrl(struct lower *l);
/* Leaves the block for page offset `off` (< 4096), linked when it can be. */
void lower_exit_to(struct lower *l, u16 off, u16 live);
/* RAX holds the linear address to go to; flags are in env if live. */
void lower_probe(struct lower *l);
/* RAX = pcbase + disp; flags kept. */
void lower_code_address(struct lower *l, unsigned host, i64 disp);
void lower_leave(struct lower *l, u16 off, enum xlat_exit_kind kind, u16 live);
/* Calls the leaf function behind thunk `thunk` with `arg`. Flags that are live
 * in front are in env then, and behind it. */
void lower_leaf(struct lower *l, unsigned thunk, u32 arg);
bool lower_str(struct lower *l);
/* Leaves for page offset `off` when v is kicked; flags in RFLAGS survive if
 * `live`. */
void lower_poll(struct lower *l, u16 off, u16 live);

/* ---- lower_sys.c ---- */

bool lower_sys(struct lower *l);

/* A cold path; returns it to be filled. Jump to it: e_jcc(…, 0) into site. */
struct cold *lower_cold(struct lower *l, unsigned kind, u32 site);
void lower_emit_colds(struct lower *l);
