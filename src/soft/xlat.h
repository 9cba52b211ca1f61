/* SPDX-License-Identifier: Apache-2.0 */
/* The translator: its units, its code cache, and the contracts between its
 * parts.
 *
 *	run.c       from a guest RIP to generated code and back (the dispatcher)
 *	trace.c     guest bytes to a trace: which instructions, which flags live
 *	lower*.c    a trace to host code                     (lower.h, emit.h)
 *	encode.c    one ISA_PASS instruction over other registers (also stubs)
 *	thunks.c    entry, exit and the slow paths' glue, emitted at start
 *	cache.c     code memory, blocks, links between them
 *	smc.c       which pages hold code; who wrote to them
 *	*_leaf.c    C that generated code calls with the guest's SIMD registers
 *	            live: general registers only, no libc
 *
 * Block. A run of guest instructions in one guest-physical page (or one
 * instruction across two), entered at its first byte only, keyed by (GPA of
 * the first byte, mode key). Its code depends on no linear address:
 * v->pcbase holds the linear address of the page, so one block serves every
 * process and vCPU.
 *
 * Registers of generated code (regmap.h): RSP points to struct vcpu and the
 * stack of leaf calls lies below it; RAX and RCX are scratch; thirteen guest
 * GPRs live in host GPRs, three in v->gpr; XMM/YMM, MXCSR and x87 are the
 * guest's.
 *
 * Flags travel in RFLAGS along direct jumps (entry_direct) and in v->aflags
 * along indirect ones, exits and leaf calls (entry_indirect restores them).
 *
 * Locks. x->lock guards the block tables, code memory, links and page
 * descriptors; it is a leaf lock (nothing else is taken under it, no guest
 * access, no unwinding). xlat_find() and smc_page_has_code() need none.
 * Blocks are freed only by xlat_flush_all(), with all vCPUs parked.
 *
 * Invariants (engine.md 8.1), each with its test named in
 * docs/threat-model.md:
 *  I1 every host address in a TLB derives from a memory slot.
 *  I2 generated code computes no other address from guest values: offsets
 *     from RSP are constants, TLB and jump-cache indexes are masked.
 *  I3 the emitter writes inside its block's reservation only; jumps go to
 *     blocks, the block's own cold code and thunks.
 *  I4 only ISA_PASS rows are emitted as host instructions; what was encoded
 *     is decoded again and compared.
 *  I5 no host control register that C depends on is the guest's during C.
 *  I6 leaf code copies guest data, then checks it.
 */
#pragma once

#include "soft/soft_int.h"

/* ---- mode keys: what of the vCPU's mode the code depends on ---- */

#define XLAT_KEY_USER	  BIT32(0) /* CPL 3: the user space's tables */
#define XLAT_KEY_32	  BIT32(1) /* 32-bit code, flat segments, 32-bit stack */
#define XLAT_KEY_NM	  BIT32(2) /* CR0.TS or EM: all FPU rows go to T0 */
#define XLAT_KEY_NOSSE	  BIT32(3) /* CR4.OSFXSR clear: SSE rows go to T0 */
#define XLAT_KEY_NOAVX	  BIT32(4) /* OSXSAVE or XCR0: AVX rows go to T0 */
#define XLAT_KEY_FS	  BIT32(5) /* 32-bit code: FS is data without limit */
#define XLAT_KEY_LOCKSTEP BIT32(6) /* lockstep.c's: leaves at its ends */
/* Of blocks only: accesses do not share lookups (group.h). */
#define XLAT_KEY_NOGROUP BIT32(7)
#define XLAT_KEY_GS	 BIT32(8) /* 32-bit code: GS is data without limit */
#define XLAT_KEY_NONE	 0xffffu  /* no translation in this mode: T0 only */

/* The key of the vCPU's mode, for v->key. */
u32 xlat_key(const struct vcpu *v);

/* ---- blocks ---- */

#define XLAT_NO_BLOCK 0u /* index 0 is never a block */
#define XLAT_NO_GPA   (~0ull)
#define XLAT_NO_GFN   (~0u)

/* One cache line: there are a hundred thousand of them. */
struct xlat_block {
	_Alignas(64) gpa_t gpa; /* of the first byte */
	/* Lines of the first page from which it was seen which flags are dead
	 * behind the block. */
	u64 look;
	_Atomic u32 next_hash; /* block indexes; 0 ends */
	u32 gfn2;	       /* of the second page, or XLAT_NO_GFN */
	u32 code; /* code offset of what runs when all goes well; its first
		     byte is the entry for indirect jumps */
	u32 cold; /* the rest: slow paths, unlinked exits */
	u16 code_bytes, cold_bytes;
	u32 outgoing;	  /* link index + 1 of the first linked exit; 0: none */
	u32 next_page[2]; /* list of the first and of the second page */
	u32 incoming;	  /* the same of the first that leads to it */
	u16 key;
	u16 bytes; /* of guest code */
	u8 direct; /* where in the code the entry for direct jumps is */
	u8 insns;
	u8 heat;      /* samples that fell on it (slots.h); under the lock */
	bool is_dead; /* written under the lock, read without */
};
_Static_assert(sizeof(struct xlat_block) == 64, "one cache line");

/* gpa2: XLAT_NO_GPA, or below SMC_CHUNKS GiB. */
static inline u32 xlat_gfn2(gpa_t gpa2)
{
	return (u32)(gpa2 >> PAGE_SHIFT);
}
/* Code offsets. */
static inline u32 xlat_entry_direct(const struct xlat_block *b)
{
	return b->code + b->direct;
}
static inline u32 xlat_entry_indirect(const struct xlat_block *b)
{
	return b->code;
}
static inline u32 xlat_code_end(const struct xlat_block *b)
{
	return b->code + b->code_bytes;
}
static inline u32 xlat_cold_end(const struct xlat_block *b)
{
	return b->cold + b->cold_bytes;
}

/* A direct jump out of a block, to an address in the same guest page. */
struct xlat_exit {
	u32 site;     /* code offset of the rel32 of a jmp or jcc */
	u32 unlinked; /* code offset that the rel32 leads to when not linked */
	u16 target;   /* offset in the page */
	bool is_twin; /* to the block without groups (XLAT_KEY_NOGROUP) */
};

/* Nobody keeps exits: most are never taken. What an unlinked one leads to is a
 * call of XT_CHAIN, and behind it stands which exit it is: four bytes as here,
 * and two with the site's distance from the start of the block's code. */
#define XLAT_CHAIN_BYTES  6u
#define XLAT_CHAIN_TARGET 0xfffu
#define XLAT_CHAIN_BLOCK  12 /* the index's first bit */
#define XLAT_CHAIN_TWIN	  BIT32(30)
#define XLAT_CHAIN_COLD	  BIT32(31) /* from the start of its cold code */

/* An exit that is linked, or has been. */
struct xlat_link {
	u32 site, unlinked;
	u32 to;				  /* block index; 0: not linked */
	u32 next_incoming, next_outgoing; /* link index + 1 */
};

/* Where a host fault in generated code happened in the guest. */
struct xlat_fault {
	u32 host;  /* code offset of the faulting instruction */
	u16 guest; /* offset in the page, and: */
};
#define XLAT_FAULT_RFLAGS 0x8000u /* the guest's flags are in RFLAGS */

/* A page of guest memory. */
struct smc_page {
	/* A bit for each 64 bytes: covered by a block. Set under the lock,
	 * read without. No vCPU may hold a write tag for a page with bits. */
	_Atomic u64 code;
	/* vCPUs (bit id) that may hold a write tag; sticky until revoked. */
	_Atomic u64 writers;
	u32 first_block;
	_Atomic u16 stores; /* slow ones since a block was last made */
	u16 flips;	    /* how often stores have emptied it */
};

struct xlat; /* one for each VM: vm->xlat */

/* ---- cache.c ---- */

/* code_bytes: of code memory, a multiple of 2 MiB. NULL: *err says why. */
struct xlat *xlat_new(struct engine_vm *vm, size_t code_bytes, struct err *err);
void xlat_free(struct xlat *x);
void xlat_lock(struct xlat *x);
void xlat_unlock(struct xlat *x);
bool xlat_trylock(struct xlat *x); /* all three are leaf-safe */

/* The live block, or NULL. No lock. Leaf-safe. */
struct xlat_block *xlat_find(struct xlat *x, gpa_t gpa, gpa_t gpa2, u32 key);
/* Where to enter the live block in one page, for an indirect jump: a code
 * offset, or 0. No XLAT_KEY_NOGROUP. Leaf-safe. */
u32 xlat_find_entry(struct xlat *x, gpa_t gpa, u32 key);
/* Code is interpreted until it has run a few times at this address: counts,
 * and says whether it is to be now. Any thread. */
bool xlat_is_cold(struct xlat *x, gpa_t gpa, u32 key);
u32 xlat_block_index(const struct xlat *x, const struct xlat_block *b);
struct xlat_block *xlat_block_get(struct xlat *x, u32 index);

/* The code memory's two mappings; the first XLAT_THUNK_BYTES are thunks.c's. */
#define XLAT_THUNK_BYTES (64 * KIB)
u8 *xlat_code_rw(struct xlat *x);
const u8 *xlat_code_rx(const struct xlat *x);
size_t xlat_code_size(const struct xlat *x);

/* Code memory: thunks, then the blocks' code, then their cold code, each in
 * the order of the blocks. */
#define XLAT_COLD_START(size) ((size) / 4 * 3)

/* Under the lock. Room for at most so many bytes of code and of cold code, and
 * faults: the code offset where to emit; 0 when something is full
 * (xlat_flush_all). Cold code goes to xlat_next_cold(). */
u32 xlat_reserve(struct xlat *x, u32 max_code, u32 max_cold, u32 max_faults);
u32 xlat_next_cold(const struct xlat *x);
u32 xlat_next_block(const struct xlat *x); /* its index */
/* Under the lock: NULL if the user block at gpa is to have no slots. */
struct slots;
struct slots *xlat_slots_of(struct xlat *x, gpa_t gpa);

/* Under the lock: enters a block whose code has been written at
 * xlat_reserve()'s offset. `proto` gives all but indexes; faults, in the order
 * of their code, are copied. Links the exits to what is there.
 * smc_protect() has been called for its pages. */
struct xlat_block *xlat_publish(struct xlat *x, const struct xlat_block *proto,
				const struct xlat_exit *exits, u32 exit_count,
				const struct xlat_fault *faults,
				u32 fault_count);

/* Under the lock. The block that the exit of `from` leads to is linked if it
 * exists: its index, or 0. */
u32 xlat_link(struct xlat *x, struct xlat_block *from,
	      const struct xlat_exit *e);

/* Under the lock: no new entry leads into the block; who is inside it stays
 * until its next exit. Its entries call thunks that leave for an
 * XLAT_EXIT_LOOKUP. */
void xlat_kill(struct xlat *x, struct xlat_block *b);

/* All vCPUs parked: forgets every block; the code memory is empty again. The
 * jump caches of all vCPUs are emptied. */
void xlat_flush_all(struct xlat *x);

/* Any thread that may be asked often. Is there much code, and has the process
 * used little CPU time from the last look to now, some seconds later? */
bool xlat_is_idle(struct xlat *x, u64 now_ns, u64 (*cpu_ns)(void));

/* The live or dead block whose code (not cold) contains the host address. No
 * lock, async-signal-safe. NULL: a thunk, or no generated code at all. */
const struct xlat_block *xlat_block_at(const struct xlat *x, const void *pc);
/* The guest page offset of a host fault at pc, or -1. Async-signal-safe. */
int xlat_fault_at(const struct xlat *x, const void *pc);

/* What a block was made from: xlat_hash() of its bytes, xlat_hash_lines() of
 * the lines that were looked ahead at. */
struct xlat_source {
	u64 hash, look_hash;
};
u64 xlat_hash(const u8 *bytes, size_t n);
/* Of the page's lines of 64 bytes whose bits are set. */
u64 xlat_hash_lines(const u8 *page, u64 lines);

/* thunks.c puts the code offsets of its thunks here. */
u32 *xlat_thunk_table(struct xlat *x);

struct xlat_stats {
	u64 blocks, dead_blocks, code_bytes, guest_bytes, guest_insns, links,
		flushes, invalidated, revokes, verify_failures, promotions,
		demotions;
};
void xlat_get_stats(struct xlat *x, struct xlat_stats *out);

/* ---- smc.c ---- */

/* The page's descriptor; NULL: not RAM. */
struct smc_page *smc_page_of(struct xlat *x, gpa_t gpa);

/* TLB fill on v's own thread: v wants a write tag for the page. Notes v as a
 * writer, then looks: false: the page holds code, no tag. Leaf-safe. */
bool smc_may_tag_w(struct vcpu *v, gpa_t gpa);

/* Before the bytes [gpa, gpa+n) of one page are read to be translated, under
 * the lock, on v's thread: sets the code bits, takes v's own write tags and
 * asks the others' back. Returns false when others may still write: the
 * block must then be put on the unverified list with smc_unverified(). */
bool smc_protect(struct vcpu *v, gpa_t gpa, u32 n);
/* The same for lines of a page. */
bool smc_protect_lines(struct vcpu *v, gpa_t page, u64 lines);
void smc_unverified(struct xlat *x, struct xlat_block *b,
		    const struct xlat_source *source);

/* [gpa, gpa+len) has been or is about to be written, by a vCPU's slow path, a
 * device or a loader: kills the blocks over those lines. Any thread; takes
 * the lock only if the pages hold code. */
void smc_written(struct engine_vm *vm, gpa_t gpa, u64 len);

/* v's thread: gives up write tags that others asked for (SOFT_REQ_REVOKE). */
void smc_revoke(struct vcpu *v);
/* v executes a serializing instruction or takes an interrupt: what is
 * unverified is compared with memory now. Cheap when there is nothing. */
void smc_serialize(struct vcpu *v);
/* v stops or starts running guest code (sleep, park, leaving vcpu_run): a
 * stopped vCPU counts as having given up its tags, and does so when it
 * starts. */
void smc_vcpu_stopped(struct vcpu *v);
void smc_vcpu_started(struct vcpu *v);

/* ---- run.c ---- */

/* Runs guest code from v->rip, translated where possible, until a kick, HLT
 * or a request: in place of soft_interp(). */
void xlat_run(struct vcpu *v);
void xlat_run_free(struct vcpu *v);
/* v is about to sleep. When the machine has done next to nothing for a while,
 * its code is forgotten: that of a boot seldom runs again. */
void xlat_idle(struct vcpu *v);
/* Leaf. The host address for an indirect jump to linear va, entered in the
 * jump cache; NULL: leave generated code. */
const void *xlat_jc_miss_leaf(struct vcpu *v, u64 va);
/* Leaf. The block at linear va for v->key, or NULL. */
const struct xlat_block *xlat_block_of_leaf(struct vcpu *v, gva_t va);
/* The block at v->rip, for the key of v's mode and these bits, translated if
 * there is none. May raise. NULL: not to be translated. */
const struct xlat_block *xlat_block_make(struct vcpu *v, u32 more_key,
					 bool *out_is_new);
struct xlat_trace;
/* What the last translation was made from. */
const struct xlat_trace *xlat_last_trace(const struct vcpu *v);
/* Runs generated code until it leaves: v->exit_kind. */
void xlat_enter(struct vcpu *v, const void *code);
/* Leaf. Host address for the direct exit whose call of XT_CHAIN ended at
 * `behind`; it is linked on the way. */
const void *xlat_exit_leaf(struct vcpu *v, const u8 *behind);

/* ---- mmu_leaf.c: nothing raises here ---- */

/* v's TLB entry for the page of va, in the space of v->cpl, now admits this
 * kind of access (SOFT_R, SOFT_W), and did not before; false: it did, so the
 * access crosses the page's end; a fault, a device, a page with code (write), a
 * watched page …: the interpreter executes the instruction. */
bool soft_tlb_fill_leaf(struct vcpu *v, gva_t va, unsigned how);
/* GPA of code at va in the space of v->cpl; false: as above, or not RAM. */
bool soft_exec_gpa_leaf(struct vcpu *v, gva_t va, gpa_t *out);
