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

/* A decoded instruction. The first 64 bytes are all that the frequent handlers
 * touch. a, b, base, index and seg_base are byte offsets into struct vcpu, so
 * that an effective address is a sum without branches. */
struct soft_entry {
	soft_op_fn fn;
	u64 imm;	   /* copy of insn.imm */
	soft_stub_fn stub; /* NULL: not made yet */
	i32 disp;	   /* copy of insn.disp */
	u16 a, b;	   /* fast handlers: destination and source register */
	u16 base, index, seg_base;
	u16 mem_size;
	u8 scale;
	u8 len;
	u8 amask_shift; /* the address mask is ~0 >> this */
	u8 mode;	/* enum x86_mode, or SOFT_ENTRY_EMPTY */
	bool is_read, is_write, is_locked; /* the memory operand */
	u8 store;			   /* SOFT_STORE_* */
	bool needs_alignment;
	u8 bytes[15]; /* the instruction; single entries only */

	struct insn insn;
	soft_op_fn inner; /* behind a check */
} __attribute__((aligned(64)));
_Static_assert(offsetof(struct soft_entry, insn) == 64, "one cache line");
_Static_assert(sizeof(struct soft_entry) == 128, "two cache lines");
#define SOFT_ENTRY_EMPTY 0xff
/* How an instruction may store to memory. */
#define SOFT_STORE_NEVER 0
#define SOFT_STORE_ONE	 1 /* once, to where v->stored says */
#define SOFT_STORE_ANY	 2

/* Instructions that follow one another in one page and in one run of entries;
 * only the last one may branch, or change more than registers, flags and
 * memory. */
#define SOFT_BLOCK_BYTES 46
#define SOFT_BLOCK_INSNS 16
struct soft_block {
	const u8 *host; /* where the bytes were; a hint, since they are compared
			 */
	u32 pos;	/* of the first entry, see soft_icache.next */
	u8 count;
	u8 len;	 /* bytes */
	u8 mode; /* enum x86_mode */
	u8 pad;
	u8 bytes[48]; /* at a multiple of 16 */
} __attribute__((aligned(64)));
_Static_assert(sizeof(struct soft_block) == 64, "one cache line");

#define SOFT_ICACHE_ENTRIES 32768u /* powers of two */
/* Beside the translator, which leaves it what runs a few times: a ring that
 * stays in the host's cache. */
#define SOFT_ICACHE_COLD    4096u
#define SOFT_ICACHE_BLOCKS  8192u
#define SOFT_ICACHE_SINGLES 256u
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
	/* A ring. Positions count up for ever; entries that are about the
	 * ring's size behind `next` have been overwritten. */
	struct soft_entry entries[SOFT_ICACHE_ENTRIES];
	struct soft_entry singles[SOFT_ICACHE_SINGLES];
	struct soft_block blocks[SOFT_ICACHE_BLOCKS];
	struct soft_stub_slot stubs[SOFT_STUB_HASH];
	u32 next;
	u32 ring; /* so many of the entries are used */
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
/* Makes b the block of what p[0..avail) holds; false: its first instruction
 * cannot be decoded from that. */
bool soft_block_make(struct vcpu *v, struct soft_block *b, const u8 *p,
		     size_t avail);

/* codemem.c: executable memory, one region for each vCPU id. */
struct soft_code_region {
	u8 *rw;
	const u8 *rx;
	size_t size;
};
struct soft_code_region soft_stubs_region(struct soft_stubs *s, u32 vcpu_id);

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
/* Waiting x87 and MMX instructions: a pending unmasked exception is #MF. */
void soft_x87_check_pending(struct vcpu *v);
/* #UD, #NM by CR0, CR4, XCR0 for the row's attributes. */
void soft_fpu_check(struct vcpu *v, const struct isa_row *row);

/* ops_fast.c: a C handler for a frequent form, or NULL. Sets e->a, e->b. */
soft_op_fn soft_fast_pick(struct soft_entry *e);
/* The flags of CMP a, b in n = 1, 2, 4, 8 bytes. */
void soft_compare(struct vcpu *v, u64 a, u64 b, unsigned n);
/* ops_ctrl.c */
/* A near branch: masks by operand size, checks, sets next_rip. */
void soft_branch(struct vcpu *v, u64 target, unsigned osize);

/* Per-file tables, ending with op 0; icache.c walks them. */
extern const struct soft_op_entry soft_ops_ctrl[];
extern const struct soft_op_entry soft_ops_mem[];
extern const struct soft_op_entry soft_ops_str[];
extern const struct soft_op_entry soft_ops_legacy[];
extern const struct soft_op_entry soft_ops_fpu[];
