/* SPDX-License-Identifier: Apache-2.0 */
/* The decoded-instruction cache's memory, and how a decoded instruction is
 * bound to what executes it.
 *
 * THEORY. A block holds the bytes that it was decoded from, and they are
 * compared each time it is entered: whoever changes code, by whatever alias,
 * DMA included, needs to tell nobody. Blocks are found through a direct-mapped
 * table by the host address of their first byte; their entries lie in a ring,
 * in the order of their making, so the oldest make room. Instructions that
 * cross a page, and all when they are stepped one by one, have an entry of
 * their own in `singles`. Binding order: a form with a fast C
 * handler (ops_fast.c), a C function by mnemonic (soft_ops_*[]), a native
 * stub. Conditions that depend on state (CPL, mode, CR0, CR4) and not on the
 * bytes are tested at run time by a wrapper around the handler.
 */
#include <stdlib.h>
#include <sys/mman.h>

#include "soft/access.h"

/* ---- the table by mnemonic ---- */

static soft_op_fn find_in(const struct soft_op_entry *t, u16 op)
{
	for (; t->op; t++) {
		if (t->op == op)
			return t->fn;
	}
	return NULL;
}

soft_op_fn soft_op_find(u16 op)
{
	static const struct soft_op_entry *const tables[] = {
		soft_ops_ctrl, soft_ops_mem, soft_ops_str,
		soft_ops_fpu,  soft_ops_sys, soft_ops_legacy,
	};

	for (size_t i = 0; i < ARRAY_SIZE(tables); i++) {
		soft_op_fn fn = find_in(tables[i], op);

		if (fn)
			return fn;
	}
	return NULL;
}

/* ---- wrappers ---- */

static void check_vex(struct vcpu *v)
{
	if (!v->is_protected || v->is_vm86)
		soft_ud(v);
}

void soft_fpu_check(struct vcpu *v, const struct isa_row *row)
{
	u32 a = row->attr;

	if (a & ISA_AVX) {
		check_vex(v);
		if (!(v->cr4 & X86_CR4_OSXSAVE) || (v->xcr0 & 6) != 6)
			soft_ud(v);
	}
	if (a & ISA_SSE && !(v->cr4 & X86_CR4_OSFXSR))
		soft_ud(v);
	if (a & (ISA_SSE | ISA_MMX) && v->cr0 & X86_CR0_EM)
		soft_ud(v);
	if (a & (ISA_AVX | ISA_SSE | ISA_MMX) && v->cr0 & X86_CR0_TS)
		soft_nm(v);
	if (a & ISA_X87) {
		if (row->op == ISA_OP_FWAIT) {
			if ((v->cr0 & (X86_CR0_MP | X86_CR0_TS)) ==
			    (X86_CR0_MP | X86_CR0_TS))
				soft_nm(v);
		} else if (v->cr0 & (X86_CR0_EM | X86_CR0_TS)) {
			soft_nm(v);
		}
	}
}

static void op_fpu(struct vcpu *v, const struct insn *in)
{
	soft_fpu_check(v, in->row);
	soft_entry_of(in)->inner(v, in);
}

static void op_vex_gpr(struct vcpu *v, const struct insn *in)
{
	check_vex(v);
	soft_entry_of(in)->inner(v, in);
}

/* Checks that depend on the mode. */
static void op_mode(struct vcpu *v, const struct insn *in)
{
	u32 a = in->row->attr;

	if (a & ISA_NOREAL && (!v->is_protected || v->is_vm86))
		soft_ud(v);
	if (a & ISA_CPL0 && v->cpl)
		soft_gp(v, 0);
	soft_entry_of(in)->inner(v, in);
}

static void op_undefined(struct vcpu *v, const struct insn *in)
{
	soft_ud(v);
}

static void op_nothing(struct vcpu *v, const struct insn *in)
{
}

/* A hint with a memory operand that is not accessed. */
static bool is_hint(u16 op)
{
	switch (op) {
	case ISA_OP_NOP:
	case ISA_OP_PAUSE:
	case ISA_OP_PREFETCH:
	case ISA_OP_PREFETCHW:
	case ISA_OP_PREFETCHNTA:
	case ISA_OP_PREFETCHT0:
	case ISA_OP_PREFETCHT1:
	case ISA_OP_PREFETCHT2:
		return true;
	default:
		return false;
	}
}

/* ---- binding ---- */

static u16 gpr_offset(unsigned reg)
{
	return offsetof(struct vcpu, gpr) + 8 * reg;
}

static void bind_address(struct soft_entry *e)
{
	const struct insn *in = &e->insn;
	u16 zero = offsetof(struct vcpu, zero);

	e->base = in->base < 16		    ? gpr_offset(in->base)
		  : in->base == X86_REG_RIP ? offsetof(struct vcpu, next_rip)
					    : zero;
	e->index = in->index < 16 ? gpr_offset(in->index) : zero;
	e->amask_shift = 64 - 8 * in->asize;
	e->disp = in->disp;
	e->scale = in->scale;
	e->mem_size = in->mem_size;
	e->seg_base = zero;
	if (in->seg == X86_CS && e->mode != X86_MODE_64)
		e->seg_base = 0; /* no store goes through CS: not flat */
	if (in->seg == X86_FS || in->seg == X86_GS)
		e->seg_base =
			e->mode == X86_MODE_64
				? offsetof(struct vcpu, segs) +
					  in->seg * sizeof(struct soft_seg) +
					  offsetof(struct soft_seg, base)
				: 0;
}

static void bind_access(struct soft_entry *e)
{
	const struct isa_row *row = e->insn.row;

	e->is_read = e->is_write = false;
	for (unsigned i = 0; i < ISA_OPERANDS; i++) {
		const struct isa_operand *d = &row->operands[i];

		switch (d->kind) {
		case ISA_O_GPR_RM:
		case ISA_O_MEM:
		case ISA_O_XMM_RM:
		case ISA_O_MMX_RM:
		case ISA_O_MOFFS:
			e->is_read |= d->access == ISA_A_R ||
				      d->access == ISA_A_RW ||
				      d->access == ISA_A_CW;
			e->is_write |= d->access == ISA_A_W ||
				       d->access == ISA_A_RW ||
				       d->access == ISA_A_CW;
			break;
		default:
			break;
		}
	}
	e->is_locked = e->insn.prefixes & X86_P_LOCK || row->op == ISA_OP_XCHG;
	/* SHA's operands are the host's to judge: AMD's CPUs (seen on Zen 5)
	 * take them anywhere, SDM 2 has #GP. */
	e->needs_alignment = row->attr & ISA_ALIGN && row->feature != ISA_F_SHA;
}

static u8 store_kind(const struct soft_entry *e, bool is_fast)
{
	const struct insn *in = &e->insn;

	if (in->row->class != ISA_PASS && !is_fast)
		return SOFT_STORE_ANY;
	if (in->is_mem ? e->is_write : in->row->class == ISA_MEMX)
		return SOFT_STORE_ONE;
	return SOFT_STORE_NEVER;
}

static soft_op_fn pick(struct soft_entry *e)
{
	const struct insn *in = &e->insn;
	soft_op_fn fn = is_hint(in->row->op) ? op_nothing : soft_fast_pick(e);

	e->store = store_kind(e, fn != NULL);
	if (fn)
		return fn;
	fn = soft_op_find(in->row->op);
	if (fn)
		return fn;
	if (in->row->class != ISA_PASS)
		return op_undefined;
	return in->is_mem ? soft_op_pass_mem : soft_op_pass_reg;
}

static void bind(struct soft_entry *e)
{
	const struct insn *in = &e->insn;
	u32 a = in->row->attr;
	bool is_vex = in->map >= ISA_MAP_VEX_0F && in->map <= ISA_MAP_VEX_0F3A;

	bind_address(e);
	bind_access(e);
	e->stub = NULL;
	e->imm = in->imm;
	e->len = in->len;
	e->fn = e->inner = pick(e);
	if (a & (ISA_X87 | ISA_MMX | ISA_SSE | ISA_AVX))
		e->fn = op_fpu;
	else if (is_vex)
		e->fn = op_vex_gpr;
	else if (a & (ISA_NOREAL | ISA_CPL0))
		e->fn = op_mode;
}

int soft_entry_decode(struct vcpu *v, struct soft_entry *e, const u8 *buf,
		      size_t avail)
{
	int rc;

	e->mode = SOFT_ENTRY_EMPTY;
	rc = x86_decode(&e->insn, buf, avail, v->code_mode, &v->features);
	if (rc <= 0)
		return rc;
	e->mode = v->code_mode;
	bind(e);
	return rc;
}

/* ---- blocks ---- */

/* Nothing of the block may follow: it may branch, leave RIP where it is, cast
 * an interrupt shadow, or change what an instruction means. */
static bool ends_block(const struct soft_entry *e)
{
	const struct isa_row *row = e->insn.row;

	if (row->class == ISA_MEMX)
		return row->op == ISA_OP_POP_SEG;
	return row->class != ISA_PASS;
}

/* Room for n entries in a row. */
static u32 ring_take(struct soft_icache *c, u32 n)
{
	u32 at = c->next % SOFT_ICACHE_ENTRIES;

	if (c->ring - at < n)
		c->next += SOFT_ICACHE_ENTRIES - at;
	if (c->next > UINT32_MAX - 2 * SOFT_ICACHE_ENTRIES) {
		memset(c->blocks, 0, sizeof(c->blocks));
		c->next = SOFT_ICACHE_ENTRIES;
	}
	return c->next;
}

bool soft_block_make(struct vcpu *v, struct soft_block *b, const u8 *p,
		     size_t avail)
{
	struct soft_icache *c = v->icache;
	struct soft_entry *e;

	avail = MIN(avail, (size_t)SOFT_BLOCK_BYTES);
	b->host = NULL;
	b->pos = ring_take(c, SOFT_BLOCK_INSNS);
	b->count = b->len = 0;
	b->mode = v->code_mode;
	e = &c->entries[b->pos % SOFT_ICACHE_ENTRIES];
	memset(b->bytes, 0, sizeof(b->bytes));
	memcpy(b->bytes, p, avail);
	do {
		int rc = soft_entry_decode(v, e, b->bytes + b->len,
					   avail - b->len);

		if (rc <= 0)
			break;
		v->stats.icache_misses++;
		b->len += rc;
		b->count++;
	} while (!ends_block(e++) && b->count < SOFT_BLOCK_INSNS &&
		 b->len < avail);
	if (!b->count)
		return false;
	c->next += b->count;
	b->host = p;
	return true;
}

/* ---- memory ---- */

struct soft_icache *soft_icache_get(struct vcpu *v)
{
	struct soft_icache *c = v->icache;
	struct soft_code_region r;

	if (likely(c != NULL))
		return c;
	c = mmap(NULL, sizeof(*c), PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (c == MAP_FAILED)
		soft_internal_error(v, "no memory for the decode cache");
	for (unsigned i = 0; i < SOFT_ICACHE_SINGLES; i++)
		c->singles[i].mode = SOFT_ENTRY_EMPTY;
	c->next = SOFT_ICACHE_ENTRIES;
	c->ring = v->vm->xlat ? SOFT_ICACHE_COLD : SOFT_ICACHE_ENTRIES;
	r = soft_stubs_region(v->vm->stubs, v->id);
	c->code_rw = r.rw;
	c->code_rx = r.rx;
	c->code_size = r.size;
	v->icache = c;
	return c;
}

void soft_icache_free(struct vcpu *v)
{
	if (v->icache)
		munmap(v->icache, sizeof(*v->icache));
	v->icache = NULL;
}
