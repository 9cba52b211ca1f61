/* SPDX-License-Identifier: Apache-2.0 */
/* What mmu.c, seg.c, gate.c, task.c, event.c, sysops*.c and msr.c share, and
 * nobody else needs. */
#pragma once

#include "soft/soft_int.h"

/* DR6 bits. */
#define DR6_BD	  BIT64(13)
#define DR6_BS	  BIT64(14)
#define DR6_BT	  BIT64(15)
#define DR6_FIXED 0xffff0ff0ull
#define DR7_GD	  BIT64(13)
#define DR7_FIXED BIT64(10)

/* System descriptor types. */
enum {
	SYS_TSS16 = 1,
	SYS_LDT = 2,
	SYS_TSS16_BUSY = 3,
	SYS_CALL16 = 4,
	SYS_TASK = 5,
	SYS_INT16 = 6,
	SYS_TRAP16 = 7,
	SYS_TSS32 = 9, /* and the 64-bit TSS */
	SYS_TSS32_BUSY = 11,
	SYS_CALL32 = 12, /* and the 64-bit call gate */
	SYS_INT32 = 14,
	SYS_TRAP32 = 15,
};

/* Vendor that the guest sees is AMD or Hygon. */
bool soft_is_amd(const struct vcpu *v);
/* Does the presented CPUID have this bit? reg: 0 EAX … 3 EDX. */
bool soft_cpuid_has(const struct vcpu *v, u32 leaf, u32 subleaf, unsigned reg,
		    unsigned bit);

/* EXT of the error codes of faults while this event is delivered. */
u32 soft_exc_ext(const struct soft_exception *e);
/* The RFLAGS image that is saved for this event. */
u64 soft_exc_flags(const struct vcpu *v, const struct soft_exception *e);

/* Notes which enabled data breakpoints an access touches (event.c). */
void soft_watch(struct vcpu *v, gva_t va, size_t n, bool is_write);
void soft_watch_io(struct vcpu *v, u16 port, unsigned size);
/* DR0-3 or DR7 changed: pages may be watched now, or no longer. */
void soft_debug_changed(struct vcpu *v);

/* ---- the last part of instructions, without a fault (mode_leaf.c) ---- */

#define SOFT_ATTR_CODE64 0xa09bu
#define SOFT_ATTR_CODE32 0xc09bu
#define SOFT_ATTR_DATA	 0xc093u

/* Flags that IRET may change at this privilege. */
u64 soft_iret_flag_mask(const struct vcpu *v, unsigned osize);
/* POPF with the value that was popped. */
void soft_popf_commit(struct vcpu *v, u64 value, unsigned osize);
/* A flat segment with selector and attributes for this CPL. */
void soft_set_flat(struct vcpu *v, unsigned seg, u64 sel, u32 attr,
		   unsigned cpl);
/* SYSCALL and SYSRET, once they are allowed: to v->next_rip. */
void soft_syscall_commit(struct vcpu *v);
void soft_sysret_commit(struct vcpu *v, bool to_64, bool is_amd);

/* ---- descriptors (seg.c) ---- */

/* Reads 8 bytes (sel's descriptor). false: null, or outside its table. */
bool soft_desc_read(struct vcpu *v, u16 sel, u64 *out_raw, gva_t *out_va);
/* Upper half of a 16-byte system descriptor at va, for selector sel. */
bool soft_desc_read_high(struct vcpu *v, u16 sel, gva_t va, u64 *out_high);
void soft_desc_parse(u64 raw, u16 sel, struct soft_seg *out);
/* Sets the accessed bit in memory and in *seg unless it is set. */
void soft_desc_set_accessed(struct vcpu *v, gva_t va, struct soft_seg *seg);
/* Is [off, off+n) inside the segment's limit? (Not for 64-bit mode.) */
bool soft_seg_holds(const struct soft_seg *s, u64 off, size_t n);
void soft_seg_set_null(struct soft_seg *s, u16 sel);
/* Real-mode and virtual-8086 values. */
void soft_seg_set_real(struct soft_seg *s, u16 sel);
void soft_seg_set_vm86(struct soft_seg *s, u16 sel);
/* The stack segment for a switch to `cpl`: raises #TS or #SS with `ext`.
 * Sets its accessed bit. */
void soft_load_inner_ss(struct vcpu *v, u16 sel, unsigned cpl, u32 ext,
			struct soft_seg *out);
/* Where CS:RIP goes. Raises #GP(0 | ext) when off does not fit the segment. */
void soft_check_target(struct vcpu *v, const struct soft_seg *cs, u64 off,
		       u32 ext);
/* After a return to an outer ring: a null selector where DPL < the new CPL.
 * The hidden base stays, which 64-bit code still sees in FS and GS. */
void soft_drop_inner_segs(struct vcpu *v);

/* ---- a stack that is not (yet) the current one ---- */

struct soft_stack {
	struct soft_seg ss;
	u64 sp;
	u64 mask; /* of the stack pointer: 16, 32 or 64 bits */
	bool is_64;
	unsigned how; /* SOFT_SUPER or 0 */
	u32 error;    /* of the #SS that a limit violation raises */
};
void soft_stack_init(struct vcpu *v, struct soft_stack *st);
void soft_stack_push(struct vcpu *v, struct soft_stack *st, unsigned size,
		     u64 value);
u64 soft_stack_pop(struct vcpu *v, struct soft_stack *st, unsigned size);
/* Reads at sp + off without popping. */
u64 soft_stack_peek(struct vcpu *v, const struct soft_stack *st, u64 off,
		    unsigned size);
/* Writes rSP with the stack's width. */
void soft_stack_commit_sp(struct vcpu *v, const struct soft_stack *st);

/* SS:rSP for ring `cpl` from the TSS. Long mode: *out_ss is null. */
void soft_tss_stack(struct vcpu *v, unsigned cpl, u32 ext, u16 *out_ss,
		    u64 *out_sp);

/* ---- tasks (task.c) ---- */

enum soft_task_reason { TASK_JMP, TASK_CALL, TASK_IRET, TASK_GATE };
/* To the TSS `sel`; next_rip: what the old task resumes at. e: the event that
 * a task gate handles, whose error code goes on the new stack, or NULL. */
void soft_task_switch(struct vcpu *v, u16 sel, enum soft_task_reason reason,
		      u64 next_rip, const struct soft_exception *e);

/* Writes CPUID-independent reset values of what msr.c owns. */
u64 soft_cr4_allowed(const struct vcpu *v);
