/* SPDX-License-Identifier: Apache-2.0 */
/* Native stubs: the host executes the guest's instruction.
 *
 * THEORY. For a row of class ISA_PASS the stub is host code that loads what
 * the instruction names from struct vcpu, executes the very same operation,
 * and stores what it wrote:
 *
 *	push callee-saved registers that will hold guest values
 *	mov r11, rdi			; struct vcpu, for the whole stub
 *	mov PTR, rsi			; the memory operand, if any
 *	movups / vinsertf128 …		; named vector registers
 *	ldmxcsr				; rows that use MXCSR
 *	mov eax, aflags; add al, 0x7f; sahf
 *	mov REG, [r11 + gpr] …		; named GPRs, written ones too: a
 *					; partial or conditional write merges
 *	OP				; re-encoded for 64-bit mode
 *	stores in the opposite order; lahf; seto al; pop; ret
 *
 * A guest register lives in the host register of the same number, so that AH
 * and friends work, but for RSP and R11, which move to a free one. PTR is a
 * register that the instruction does not name, below r8 if there may be no
 * REX. x87 and MMX registers are live in the host (fpu.c).
 *
 * The operation's faults arrive as signals (signals.c); nothing is stored
 * before it has completed. Stubs with equal code are shared through a hash;
 * when it or the region is full, all of them are dropped, which is safe since
 * only the vCPU's own thread, not in a stub now, uses them.
 */
#include "soft/access.h"
#include "soft/encode.h"

#define R11	       11
#define OFF_AFLAGS     offsetof(struct vcpu, aflags)
#define OFF_XMM(n)     (offsetof(struct vcpu, xsave) + 160 + 16 * (n))
#define OFF_YMM(n)     (offsetof(struct vcpu, xsave) + 576 + 16 * (n))
#define OFF_MXCSR      (offsetof(struct vcpu, xsave) + 24)
#define STUB_BYTES_MAX 640

struct out {
	u8 buf[STUB_BYTES_MAX];
	unsigned n;
};

static void b1(struct out *o, u8 b)
{
	ASSERT(o->n < sizeof(o->buf));
	o->buf[o->n++] = b;
}
static void b4(struct out *o, u32 value)
{
	for (unsigned i = 0; i < 4; i++)
		b1(o, value >> (8 * i));
}

/* [r11 + disp32] with REX prefix `rex` and an opcode of one or two bytes. */
static void op_state(struct out *o, u8 rex, u8 escape, u8 opcode, unsigned reg,
		     u32 disp)
{
	b1(o, 0x41 | rex | (reg >> 3) << 2);
	if (escape)
		b1(o, escape);
	b1(o, opcode);
	b1(o, 0x80 | (reg & 7) << 3 | 3);
	b4(o, disp);
}
/* VEX.pp.map.L op reg, vvvv, [r11 + disp32] */
static void vex_state(struct out *o, u8 map, u8 pp_l, u8 opcode, unsigned reg,
		      unsigned vvvv, u32 disp)
{
	b1(o, 0xc4);
	b1(o, (reg < 8 ? 0x80 : 0) | 0x40 | map);
	b1(o, (~vvvv & 15) << 3 | pp_l);
	b1(o, opcode);
	b1(o, 0x80 | (reg & 7) << 3 | 3);
	b4(o, disp);
}

/* ---- planning ---- */

static unsigned free_reg(u16 taken, unsigned limit)
{
	static const u8 order[] = {6, 7, 2, 1, 3, 5, 8, 9, 10, 12, 13, 14, 15};

	for (unsigned i = 0; i < ARRAY_SIZE(order); i++) {
		if (order[i] < limit && !(taken & 1u << order[i]))
			return order[i];
	}
	return NATIVE_NONE;
}

static bool plan_registers(struct native *p)
{
	/* RAX carries flags, RSP the stack, R11 struct vcpu. */
	u16 taken = p->used | 1u << 0 | 1u << 4 | 1u << R11;
	unsigned limit = p->has_high_byte ? 8 : 16;

	for (unsigned r = 0; r < 16; r++) {
		p->host[r] = r;
		if ((r == 4 || r == R11) && p->used & 1u << r) {
			p->host[r] = free_reg(taken, limit);
			if (p->host[r] == NATIVE_NONE)
				return false;
			taken |= 1u << p->host[r];
		}
	}
	p->ptr = NATIVE_NONE;
	if (p->in->is_mem) {
		p->ptr = free_reg(taken, limit);
		if (p->ptr == NATIVE_NONE)
			return false;
	}
	return true;
}

static bool plan_init(struct native *p, const struct soft_entry *e)
{
	native_init(p, &e->insn, e->mode);
	return plan_registers(p) && native_encode(p);
}

/* ---- emission ---- */

#define CALLEE_SAVED (1u << 3 | 1u << 5 | 15u << 12)

static u16 saved_regs(const struct native *p)
{
	u16 regs = 0;

	for (unsigned r = 0; r < 16; r++) {
		if (p->used & 1u << r)
			regs |= 1u << p->host[r];
	}
	if (p->ptr != NATIVE_NONE)
		regs |= 1u << p->ptr;
	return regs & CALLEE_SAVED;
}

static void emit_load_xmm(struct out *o, const struct native *p)
{
	for (unsigned r = 0; r < 16; r++) {
		if (!(p->xmm_used & 1u << r))
			continue;
		if (!p->is_vex) {
			op_state(o, 0, 0x0f, 0x10, r, OFF_XMM(r));
			continue;
		}
		vex_state(o, 1, 2, 0x6f, r, 0, OFF_XMM(r)); /* vmovdqu */
		vex_state(o, 3, 5, 0x18, r, r, OFF_YMM(r)); /* vinsertf128 */
		b1(o, 1);
	}
}

static void emit_store_xmm(struct out *o, const struct native *p)
{
	for (unsigned r = 0; r < 16; r++) {
		if (!(p->xmm_written & 1u << r))
			continue;
		if (!p->is_vex) {
			op_state(o, 0, 0x0f, 0x11, r, OFF_XMM(r));
			continue;
		}
		vex_state(o, 1, 2, 0x7f, r, 0, OFF_XMM(r));
		vex_state(o, 3, 5, 0x19, r, 0, OFF_YMM(r)); /* vextractf128 */
		b1(o, 1);
	}
}

static void emit_push_pop(struct out *o, unsigned reg, u8 opcode)
{
	if (reg >= 8)
		b1(o, 0x41);
	b1(o, opcode | (reg & 7));
}

static void emit_entry(struct out *o, const struct native *p, u16 saved)
{
	for (unsigned r = 0; r < 16; r++) {
		if (saved & 1u << r)
			emit_push_pop(o, r, 0x50);
	}
	b1(o, 0x49); /* mov r11, rdi */
	b1(o, 0x89);
	b1(o, 0xfb);
	if (p->ptr != NATIVE_NONE && p->ptr != 6) { /* mov PTR, rsi */
		b1(o, 0x48 | p->ptr >> 3);
		b1(o, 0x89);
		b1(o, 0xf0 | (p->ptr & 7));
	}
}

static void emit_loads(struct out *o, const struct native *p)
{
	const struct isa_row *row = p->in->row;

	emit_load_xmm(o, p);
	if (row->attr & ISA_FP)
		op_state(o, 0, 0x0f, 0xae, 2, OFF_MXCSR); /* ldmxcsr */
	if (row->flags_tested | row->flags_changed | row->flags_undefined) {
		op_state(o, 0, 0, 0x8b, 0, OFF_AFLAGS); /* mov eax */
		b1(o, 0x04);				/* add al, 0x7f: OF */
		b1(o, 0x7f);
		b1(o, 0x9e); /* sahf */
	}
	for (unsigned r = 0; r < 16; r++) {
		if (p->used & 1u << r)
			op_state(o, 8, 0, 0x8b, p->host[r],
				 offsetof(struct vcpu, gpr) + 8 * r);
	}
}

static void emit_stores(struct out *o, const struct native *p, u16 saved)
{
	const struct isa_row *row = p->in->row;

	for (unsigned r = 0; r < 16; r++) {
		if (p->written & 1u << r)
			op_state(o, 8, 0, 0x89, p->host[r],
				 offsetof(struct vcpu, gpr) + 8 * r);
	}
	if (row->flags_changed | row->flags_undefined) {
		b1(o, 0x9f); /* lahf */
		b1(o, 0x0f); /* seto al */
		b1(o, 0x90);
		b1(o, 0xc0);
		b1(o, 0x66); /* mov [aflags], ax */
		op_state(o, 0, 0, 0x89, 0, OFF_AFLAGS);
	}
	emit_store_xmm(o, p);
	if (row->attr & ISA_FP) {
		static const u8 restore[] = {
			0x68, 0x80, 0x1f, 0,	0, /* push 0x1f80 */
			0x0f, 0xae, 0x14, 0x24,	   /* ldmxcsr [rsp] */
			0x58,			   /* pop rax */
		};

		op_state(o, 0, 0x0f, 0xae, 3, OFF_MXCSR); /* stmxcsr */
		for (unsigned i = 0; i < sizeof(restore); i++)
			b1(o, restore[i]);
	}
	for (unsigned r = 16; r-- > 0;) {
		if (saved & 1u << r)
			emit_push_pop(o, r, 0x58);
	}
	if (p->is_vex && p->xmm_used) { /* vzeroupper */
		b1(o, 0xc5);
		b1(o, 0xf8);
		b1(o, 0x77);
	}
	b1(o, 0xc3);
}

static void emit_stub(struct out *o, const struct native *p)
{
	u16 saved = saved_regs(p);

	o->n = 0;
	emit_entry(o, p, saved);
	emit_loads(o, p);
	for (unsigned i = 0; i < p->op_len; i++)
		b1(o, p->op[i]);
	emit_stores(o, p, saved);
}

/* ---- the cache ---- */

static void drop_all(struct soft_icache *c)
{
	memset(c->stubs, 0, sizeof(c->stubs));
	for (unsigned i = 0; i < SOFT_ICACHE_ENTRIES; i++)
		c->entries[i].stub = NULL;
	for (unsigned i = 0; i < SOFT_ICACHE_SINGLES; i++)
		c->singles[i].stub = NULL;
	c->stub_count = 0;
	c->code_used = 0;
}

static u32 key_hash(const struct soft_stub_key *k)
{
	const u8 *p = (const u8 *)k;
	u64 h = 0xcbf29ce484222325ull;

	for (size_t i = 0; i < sizeof(*k); i++)
		h = (h ^ p[i]) * 0x100000001b3ull;
	return (u32)(h ^ h >> 32);
}

static struct soft_stub_slot *slot_find(struct soft_icache *c,
					const struct soft_stub_key *k)
{
	u32 i = key_hash(k);

	/* Bounded: drop_all keeps the table at most half full. */
	for (;; i++) {
		struct soft_stub_slot *s = &c->stubs[i & (SOFT_STUB_HASH - 1)];

		if (!s->fn || !memcmp(&s->key, k, sizeof(*k)))
			return s;
	}
}

soft_stub_fn soft_stub_make(struct vcpu *v, const struct soft_entry *e)
{
	struct soft_icache *c = soft_icache_get(v);
	struct soft_stub_slot *s;
	struct soft_stub_key key;
	struct native p;
	struct out o;

	if (!plan_init(&p, e))
		soft_internal_error(v, "no host code for '%s'",
				    e->insn.row->name);
	memset(&key, 0, sizeof(key));
	key.row = e->insn.row;
	ASSERT(p.op_len <= sizeof(key.op));
	memcpy(key.op, p.op, p.op_len);
	key.used = p.used;
	key.is_mem = p.in->is_mem;
	v->stats.stub_misses++;
	if (c->stub_count >= SOFT_STUB_HASH / 2 ||
	    c->code_used + STUB_BYTES_MAX > c->code_size)
		drop_all(c);
	s = slot_find(c, &key);
	if (s->fn)
		return s->fn;
	emit_stub(&o, &p);
	memcpy(c->code_rw + c->code_used, o.buf, o.n);
	s->key = key;
	s->fn = (soft_stub_fn)(uintptr_t)(c->code_rx + c->code_used);
	c->code_used = ALIGN_UP(c->code_used + o.n, 16);
	c->stub_count++;
	return s->fn;
}

/* ---- running ---- */

void soft_op_pass_reg(struct vcpu *v, const struct insn *in)
{
	soft_stub(v, in)(v, NULL);
}

static void pass_slow(struct vcpu *v, const struct insn *in, gva_t va)
{
	struct soft_entry *e = soft_entry_of(in);
	soft_stub_fn stub = soft_stub(v, in);
	struct soft_operand o;

	v->stored = v->fetch_host; /* it may be anywhere */
	if (e->needs_alignment && va & (in->mem_size - 1u))
		soft_gp(v, 0);
	soft_operand_get(v, &o, va, in->mem_size, e->is_read, e->is_write,
			 e->is_locked);
	stub(v, o.host);
	soft_operand_commit(v, &o, e->is_write);
}

void soft_op_pass_at(struct vcpu *v, const struct insn *in, gva_t va)
{
	pass_slow(v, in, va);
}

/* Those that take an MMX register, but integers from memory, do not look at the
 * x87's (seen on AMD; of CVTPI2PD, SDM 2 says so, too). */
static bool waits_for_x87(const struct isa_row *row)
{
	return row->attr & (ISA_X87 | ISA_MMX) &&
	       !(row->attr & ISA_X87_NOWAIT) && row->op != ISA_OP_CVTPI2PS &&
	       row->op != ISA_OP_CVTPI2PD;
}

void soft_op_pass_mem(struct vcpu *v, const struct insn *in)
{
	struct soft_entry *e = soft_entry_of(in);
	soft_stub_fn stub = soft_stub(v, in);
	u8 *p = NULL;

	if (likely(!e->needs_alignment))
		p = e->is_write ? soft_fast_w(v, e, e->mem_size)
				: soft_fast_r(v, e, e->mem_size);
	if (likely(p != NULL)) {
		stub(v, p);
		return;
	}
	/* A pending x87 exception comes before any fault of the operand. */
	if (waits_for_x87(in->row))
		soft_x87_check_pending(v);
	/* Misaligned comes before not canonical (seen on AMD). */
	if (e->needs_alignment && v->code_mode == X86_MODE_64 &&
	    soft_flat_lin(v, e) & (e->mem_size - 1u))
		soft_gp(v, 0);
	pass_slow(v, in,
		  soft_entry_lin(v, e, in->mem_size,
				 (e->is_read ? SOFT_R : 0) |
					 (e->is_write ? SOFT_W : 0)));
}
