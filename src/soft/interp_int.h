/* SPDX-License-Identifier: Apache-2.0 */
/* Private to the interpreter: the decoded-instruction cache's entry, the
 * native-stub cache, and the pieces that ops_*.c share.
 *
 * Threads: an icache and its stubs belong to one vCPU's thread. Entries are
 * good until the next instruction is fetched; a handler may keep its `in`
 * for as long as it runs.
 */
#pragma once

#include "soft/soft_int.h"

typedef void (*soft_stub_fn)(struct vcpu *v, void *host_mem);

/* A decoded instruction. a, b, base, index and seg_base are byte offsets into
 * struct vcpu, so that an effective address is a sum without branches. */
struct soft_entry {
	u64 bytes[2]; /* the instruction, zero behind its end */
	soft_op_fn fn;
	soft_stub_fn stub; /* NULL: not made yet */
	struct insn insn;
	u64 amask; /* by address size */
	u16 a, b;  /* fast handlers: destination and source register */
	u16 base, index, seg_base;
	u8 mode; /* enum x86_mode, or SOFT_ENTRY_EMPTY */
	bool is_read, is_write, is_locked; /* the memory operand */
	soft_op_fn inner;		   /* behind a check */
} __attribute__((aligned(64)));
#define SOFT_ENTRY_EMPTY 0xff

#define SOFT_ICACHE_ENTRIES 16384u
#define SOFT_STUB_HASH	    8192u

struct soft_stub_key {
	const struct isa_row *row;
	u8 op[16]; /* the re-encoded instruction */
	u16 used;  /* guest GPRs in it */
	u8 mode;   /* only where it changes the stub */
	u8 is_mem;
};
struct soft_stub_slot {
	struct soft_stub_key key;
	soft_stub_fn fn; /* NULL: free */
};

struct soft_icache {
	struct soft_entry entries[SOFT_ICACHE_ENTRIES];
	struct soft_stub_slot stubs[SOFT_STUB_HASH];
	u32 stub_count;
	u8 *code_rw;	   /* where stubs are written … */
	const u8 *code_rx; /* … and where they run */
	size_t code_used, code_size;
};

static inline struct soft_entry *soft_entry_of(const struct insn *in)
{
	return container_of(in, struct soft_entry, insn);
}

/* icache.c */
struct soft_icache *soft_icache_get(struct vcpu *v);
/* The C function of a mnemonic, or NULL. */
soft_op_fn soft_op_find(u16 op);
/* Decodes buf[0..avail) into e; returns x86_decode's code. */
int soft_entry_decode(struct vcpu *v, struct soft_entry *e, const u8 *buf,
		      size_t avail);

/* codemem.c: executable memory, one region for each vCPU id. */
struct soft_code_region {
	u8 *rw;
	const u8 *rx;
	size_t size;
};
struct soft_code_region soft_stubs_region(struct soft_stubs *s, u32 vcpu_id);
/* Async-signal-safe. */
bool soft_code_contains(const void *pc);

/* stub.c */
soft_stub_fn soft_stub_make(struct vcpu *v, const struct soft_entry *e);
static inline soft_stub_fn soft_stub(struct vcpu *v, const struct insn *in)
{
	struct soft_entry *e = soft_entry_of(in);

	if (unlikely(!e->stub))
		e->stub = soft_stub_make(v, e);
	return e->stub;
}
/* Runs the instruction by its stub, registers only or with memory. */
void soft_op_pass_reg(struct vcpu *v, const struct insn *in);
void soft_op_pass_mem(struct vcpu *v, const struct insn *in);
/* As soft_op_pass_mem with a given operand address. */
void soft_op_pass_at(struct vcpu *v, const struct insn *in, gva_t va);
/* #UD, #NM by CR0, CR4, XCR0 for the row's attributes. */
void soft_fpu_check(struct vcpu *v, const struct isa_row *row);

/* ops_fast.c: a C handler for a frequent form, or NULL. Sets e->a, e->b. */
soft_op_fn soft_fast_pick(struct soft_entry *e);
/* The flags of CMP a, b in n = 1, 2, 4, 8 bytes. */
void soft_compare(struct vcpu *v, u64 a, u64 b, unsigned n);
/* ops_ctrl.c */
bool soft_condition(const struct vcpu *v, unsigned cc);
/* A near branch: masks by operand size, checks, sets next_rip. */
void soft_branch(struct vcpu *v, u64 target, unsigned osize);

/* Per-file tables, ending with op 0; icache.c walks them. */
extern const struct soft_op_entry soft_ops_ctrl[];
extern const struct soft_op_entry soft_ops_mem[];
extern const struct soft_op_entry soft_ops_str[];
extern const struct soft_op_entry soft_ops_legacy[];
extern const struct soft_op_entry soft_ops_fpu[];
