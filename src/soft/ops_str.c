/* SPDX-License-Identifier: Apache-2.0 */
/* String instructions, with and without REP.
 *
 * THEORY. The architectural unit is one element. A run of elements that lies
 * in one page of RAM on each side, going up, may be done at once (a chunk);
 * everything else (devices, page crossings, DF=1, segmented modes) goes
 * element by element. rCX, rSI and rDI are stored after each chunk or
 * element, so a fault or a kick in the middle leaves exactly the completed
 * iterations behind; a kick re-executes the instruction (next_rip = rip).
 * A debugger sees each iteration: with TF or a breakpoint armed every element
 * ends the instruction, and RF says that it is not at its start (SDM 3B
 * §18.3.1.1, §18.3.1.4).
 */
#include "mem/mem.h"
#include "soft/access.h"

struct str {
	struct vcpu *v;
	const struct insn *in;
	unsigned n; /* bytes of an element */
	unsigned asize;
	u64 mask; /* of the address size */
	u64 count;
	i64 step;
	bool is_rep;
	bool is_debugged; /* stop after each element */
};

static bool str_begin(struct str *s, struct vcpu *v, const struct insn *in)
{
	s->v = v;
	s->in = in;
	s->n = in->opcode & 1 ? in->osize : 1;
	if ((in->opcode & 0xfc) == 0x6c && s->n == 8)
		s->n = 4; /* ports have no 64-bit form */
	s->asize = in->asize;
	s->mask = soft_mask(in->asize);
	s->step = v->rflags_sys & X86_FL_DF ? -(i64)s->n : (i64)s->n;
	s->is_rep = in->prefixes & (X86_P_REP | X86_P_REPNE);
	s->is_debugged = v->rflags_sys & X86_FL_TF || v->dr7 & 0xff;
	s->count = s->is_rep ? v->gpr[X86_RCX] & s->mask : 1;
	return s->count != 0;
}

static u64 str_reg(const struct str *s, unsigned reg)
{
	return s->v->gpr[reg] & s->mask;
}
static void str_advance(struct str *s, unsigned reg, u64 elements)
{
	soft_gpr_write(s->v, reg, s->asize,
		       s->v->gpr[reg] + (u64)s->step * elements);
}
/* After `elements` are done: whether more are due. */
static bool str_count(struct str *s, u64 elements)
{
	if (!s->is_rep)
		return false;
	s->count -= elements;
	soft_gpr_write(s->v, X86_RCX, s->asize, s->count);
	return s->count != 0;
}
/* Whether to stop between elements for a kick or a debugger; the instruction
 * goes on when it is executed again. */
static bool str_stops(struct str *s)
{
	if (likely(!s->is_debugged && !soft_is_kicked(s->v)))
		return false;
	if (s->is_debugged)
		s->v->rflags_sys |= X86_FL_RF;
	s->v->next_rip = s->v->rip;
	return true;
}
static bool str_more(struct str *s, u64 elements)
{
	return str_count(s, elements) && !str_stops(s);
}

static gva_t str_lin(const struct str *s, unsigned seg, unsigned reg,
		     unsigned how)
{
	return soft_lin(s->v, seg, str_reg(s, reg), s->n, how);
}

/* How many elements from reg on lie in one page, 0 when chunks are no use. */
static u64 str_run(const struct str *s, gva_t va, unsigned reg)
{
	u64 bytes = PAGE_BYTES - (va & (PAGE_BYTES - 1));
	u64 to_wrap = s->mask - str_reg(s, reg); /* one less than bytes */

	if (to_wrap < bytes)
		bytes = to_wrap;
	return MIN(bytes / s->n, s->count);
}
static bool str_can_chunk(const struct str *s)
{
	return s->is_rep && s->step > 0 && s->v->is_flat && !s->is_debugged;
}

/* Forward copy in units of n: a destination just above the source repeats
 * the pattern, which memmove would not. */
static void copy_elements(u8 *d, const u8 *p, u64 elements, unsigned n)
{
	u64 bytes = elements * n;

	if ((u64)(d - p) >= bytes || d <= p) {
		memmove(d, p, bytes);
		return;
	}
	for (u64 i = 0; i < bytes; i += n)
		soft_st(d + i, n, soft_ld(p + i, n));
}

static void op_movs(struct vcpu *v, const struct insn *in)
{
	struct str s;
	u64 done;

	if (!str_begin(&s, v, in))
		return;
	do {
		gva_t src = str_lin(&s, in->seg, X86_RSI, SOFT_R);
		u8 *p = soft_tlb_r(v, src, s.n), *d;
		gva_t dst;

		done = 1;
		/* All faults of the source come before any of the other. */
		if (!p)
			soft_probe(v, src, s.n, SOFT_R);
		dst = str_lin(&s, X86_ES, X86_RDI, SOFT_W);
		d = soft_tlb_w(v, dst, s.n);
		if (p && d && str_can_chunk(&s)) {
			done = MIN(str_run(&s, src, X86_RSI),
				   str_run(&s, dst, X86_RDI));
			done = MAX(done, 1u);
			copy_elements(d, p, done, s.n);
		} else {
			u64 value = soft_lin_read(v, src, s.n);

			soft_lin_write(v, dst, s.n, value);
		}
		str_advance(&s, X86_RSI, done);
		str_advance(&s, X86_RDI, done);
	} while (str_more(&s, done));
}

static void fill_elements(u8 *d, u64 elements, unsigned n, u64 value)
{
	if (n == 1) {
		memset(d, (int)(u8)value, elements);
		return;
	}
	for (u64 i = 0; i < elements; i++)
		soft_st(d + i * n, n, value);
}

static void op_stos(struct vcpu *v, const struct insn *in)
{
	struct str s;
	u64 done;

	if (!str_begin(&s, v, in))
		return;
	do {
		gva_t dst = str_lin(&s, X86_ES, X86_RDI, SOFT_W);
		u8 *d = soft_tlb_w(v, dst, s.n);

		done = 1;
		if (d && str_can_chunk(&s)) {
			done = MAX(str_run(&s, dst, X86_RDI), 1u);
			fill_elements(d, done, s.n, v->gpr[X86_RAX]);
		} else {
			soft_lin_write(v, dst, s.n, v->gpr[X86_RAX]);
		}
		str_advance(&s, X86_RDI, done);
	} while (str_more(&s, done));
}

static void op_lods(struct vcpu *v, const struct insn *in)
{
	struct str s;

	if (!str_begin(&s, v, in))
		return;
	do {
		gva_t src = str_lin(&s, in->seg, X86_RSI, SOFT_R);

		soft_gpr_write(v, X86_RAX, s.n, soft_lin_read(v, src, s.n));
		str_advance(&s, X86_RSI, 1);
	} while (str_more(&s, 1));
}

/* Whether a REPE/REPNE comparison ends here. */
static bool str_found(const struct str *s)
{
	return soft_zf(s->v) == !!(s->in->prefixes & X86_P_REPNE);
}

static void op_cmps(struct vcpu *v, const struct insn *in)
{
	struct str s;

	if (!str_begin(&s, v, in))
		return;
	for (;;) {
		gva_t src = str_lin(&s, in->seg, X86_RSI, SOFT_R);
		u64 a = soft_lin_read(v, src, s.n);
		gva_t dst = str_lin(&s, X86_ES, X86_RDI, SOFT_R);

		soft_compare(v, a, soft_lin_read(v, dst, s.n), s.n);
		str_advance(&s, X86_RSI, 1);
		str_advance(&s, X86_RDI, 1);
		if (!str_count(&s, 1) || str_found(&s) || str_stops(&s))
			return;
	}
}

static void op_scas(struct vcpu *v, const struct insn *in)
{
	struct str s;

	if (!str_begin(&s, v, in))
		return;
	for (;;) {
		gva_t dst = str_lin(&s, X86_ES, X86_RDI, SOFT_R);

		soft_compare(v, v->gpr[X86_RAX], soft_lin_read(v, dst, s.n),
			     s.n);
		str_advance(&s, X86_RDI, 1);
		if (!str_count(&s, 1) || str_found(&s) || str_stops(&s))
			return;
	}
}

static void op_ins(struct vcpu *v, const struct insn *in)
{
	struct str s;
	u16 port = v->gpr[X86_RDX];

	if (!str_begin(&s, v, in))
		return;
	soft_io_check(v, port, s.n);
	do {
		gva_t dst = str_lin(&s, X86_ES, X86_RDI, SOFT_W);
		u32 value;

		/* The port is read once only if the store cannot fault. */
		soft_probe(v, dst, s.n, SOFT_W);
		v->stats.pio++;
		value = mem_pio_read(v->vm->mem, port, s.n);
		soft_lin_write(v, dst, s.n, value);
		str_advance(&s, X86_RDI, 1);
	} while (str_more(&s, 1));
}

static void op_outs(struct vcpu *v, const struct insn *in)
{
	struct str s;
	u16 port = v->gpr[X86_RDX];

	if (!str_begin(&s, v, in))
		return;
	soft_io_check(v, port, s.n);
	do {
		gva_t src = str_lin(&s, in->seg, X86_RSI, SOFT_R);
		u32 value = soft_lin_read(v, src, s.n);

		v->stats.pio++;
		mem_pio_write(v->vm->mem, port, s.n, value);
		str_advance(&s, X86_RSI, 1);
	} while (str_more(&s, 1));
}

const struct soft_op_entry soft_ops_str[] = {
	{ISA_OP_MOVS, op_movs}, {ISA_OP_STOS, op_stos},
	{ISA_OP_LODS, op_lods}, {ISA_OP_CMPS, op_cmps},
	{ISA_OP_SCAS, op_scas}, {ISA_OP_INS, op_ins},
	{ISA_OP_OUTS, op_outs}, {0, NULL},
};
