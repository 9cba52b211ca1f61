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

#define NO_REG	       0xff
#define R11	       11
#define OFF_AFLAGS     offsetof(struct vcpu, aflags)
#define OFF_XMM(n)     (offsetof(struct vcpu, xsave) + 160 + 16 * (n))
#define OFF_YMM(n)     (offsetof(struct vcpu, xsave) + 576 + 16 * (n))
#define OFF_MXCSR      (offsetof(struct vcpu, xsave) + 24)
#define STUB_BYTES_MAX 640

struct plan {
	const struct soft_entry *e;
	const struct insn *in;
	u16 used, written; /* guest GPRs */
	u16 xmm_used, xmm_written;
	u8 host[16];	    /* guest GPR to host GPR */
	u8 ptr;		    /* host register of the memory operand */
	bool has_high_byte; /* AH, CH, DH, BH: no REX allowed */
	bool is_vex;
	u8 op[24];
	u8 op_len;
};

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

static void use_gpr(struct plan *p, const struct isa_operand *d, unsigned reg)
{
	if (d->size == ISA_S_B) {
		unsigned off = soft_byte_reg(p->in, reg);

		if (off & 1)
			p->has_high_byte = true;
		reg = (off - offsetof(struct vcpu, gpr)) / 8;
	}
	p->used |= 1u << reg;
	if (d->access != ISA_A_R && d->access != ISA_A_NONE)
		p->written |= 1u << reg;
}

static void use_xmm(struct plan *p, const struct isa_operand *d, unsigned reg)
{
	p->xmm_used |= 1u << reg;
	if (d->access != ISA_A_R && d->access != ISA_A_NONE)
		p->xmm_written |= 1u << reg;
}

static void plan_operand(struct plan *p, const struct isa_operand *d)
{
	const struct insn *in = p->in;

	switch (d->kind) {
	case ISA_O_GPR_REG:
		use_gpr(p, d, in->reg);
		break;
	case ISA_O_GPR_RM:
	case ISA_O_GPR_RM_ONLY:
		if (!in->is_mem)
			use_gpr(p, d, in->rm);
		break;
	case ISA_O_GPR_OPC:
		use_gpr(p, d, in->rm);
		break;
	case ISA_O_GPR_VVVV:
		use_gpr(p, d, in->vvvv);
		break;
	case ISA_O_GPR_FIXED:
		p->used |= 1u << d->reg;
		if (d->access != ISA_A_R)
			p->written |= 1u << d->reg;
		break;
	case ISA_O_XMM_REG:
		use_xmm(p, d, in->reg);
		break;
	case ISA_O_XMM_RM:
	case ISA_O_XMM_RM_ONLY:
		if (!in->is_mem)
			use_xmm(p, d, in->rm);
		break;
	case ISA_O_XMM_VVVV:
		use_xmm(p, d, in->vvvv);
		break;
	case ISA_O_XMM_IS4:
		use_xmm(p, d,
			(in->imm >> 4) & (p->e->mode == X86_MODE_64 ? 15 : 7));
		break;
	case ISA_O_XMM_FIXED:
		use_xmm(p, d, d->reg);
		break;
	default:
		break;
	}
}

static unsigned free_reg(u16 taken, unsigned limit)
{
	static const u8 order[] = {6, 7, 2, 1, 3, 5, 8, 9, 10, 12, 13, 14, 15};

	for (unsigned i = 0; i < ARRAY_SIZE(order); i++) {
		if (order[i] < limit && !(taken & 1u << order[i]))
			return order[i];
	}
	return NO_REG;
}

static bool plan_registers(struct plan *p)
{
	/* RAX carries flags, RSP the stack, R11 struct vcpu. */
	u16 taken = p->used | 1u << 0 | 1u << 4 | 1u << R11;
	unsigned limit = p->has_high_byte ? 8 : 16;

	for (unsigned r = 0; r < 16; r++) {
		p->host[r] = r;
		if ((r == 4 || r == R11) && p->used & 1u << r) {
			p->host[r] = free_reg(taken, limit);
			if (p->host[r] == NO_REG)
				return false;
			taken |= 1u << p->host[r];
		}
	}
	p->ptr = NO_REG;
	if (p->in->is_mem) {
		p->ptr = free_reg(taken, limit);
		if (p->ptr == NO_REG)
			return false;
	}
	return true;
}

/* ---- the operation, re-encoded ---- */

static bool has_size_v(const struct isa_row *row)
{
	if (row->op == ISA_OP_BSWAP)
		return true;
	for (unsigned i = 0; i < ISA_OPERANDS; i++) {
		u8 s = row->operands[i].size;

		if (row->operands[i].kind != ISA_O_NONE &&
		    (s == ISA_S_V || s == ISA_S_Z || s == ISA_S_2V))
			return true;
	}
	return false;
}

/* The host register number that stands in an encoding field. */
static unsigned field_gpr(const struct plan *p, const struct isa_operand *d,
			  unsigned reg)
{
	if (d->size == ISA_S_B && soft_byte_reg(p->in, reg) & 1)
		return reg; /* AH to BH */
	return p->host[reg];
}

static unsigned reg_field(const struct plan *p)
{
	const struct isa_row *row = p->in->row;

	for (unsigned i = 0; i < ISA_OPERANDS; i++) {
		const struct isa_operand *d = &row->operands[i];

		if (d->kind == ISA_O_GPR_REG)
			return field_gpr(p, d, p->in->reg);
		if (d->kind == ISA_O_XMM_REG)
			return p->in->reg;
	}
	return (p->in->modrm >> 3) & 7; /* MMX, or part of the opcode */
}
static unsigned rm_field(const struct plan *p)
{
	const struct isa_row *row = p->in->row;

	for (unsigned i = 0; i < ISA_OPERANDS; i++) {
		const struct isa_operand *d = &row->operands[i];

		if (d->kind == ISA_O_GPR_RM || d->kind == ISA_O_GPR_RM_ONLY ||
		    d->kind == ISA_O_GPR_OPC)
			return field_gpr(p, d, p->in->rm);
		if (d->kind == ISA_O_XMM_RM || d->kind == ISA_O_XMM_RM_ONLY)
			return p->in->rm;
	}
	return p->in->modrm & 7;
}
static unsigned vvvv_field(const struct plan *p)
{
	const struct isa_row *row = p->in->row;

	for (unsigned i = 0; i < ISA_OPERANDS; i++) {
		if (row->operands[i].kind == ISA_O_GPR_VVVV)
			return p->host[p->in->vvvv];
	}
	return p->in->vvvv;
}

static void op_b(struct plan *p, u8 b)
{
	ASSERT(p->op_len < sizeof(p->op));
	p->op[p->op_len++] = b;
}

static void encode_modrm(struct plan *p, unsigned reg, unsigned rm)
{
	if (!p->in->is_mem) {
		op_b(p, 0xc0 | (reg & 7) << 3 | (rm & 7));
	} else if ((rm & 7) == 5) { /* rbp, r13 need a displacement */
		op_b(p, 0x40 | (reg & 7) << 3 | 5);
		op_b(p, 0);
	} else if ((rm & 7) == 4) { /* r12 needs a SIB byte */
		op_b(p, (reg & 7) << 3 | 4);
		op_b(p, 0x24);
	} else {
		op_b(p, (reg & 7) << 3 | (rm & 7));
	}
}

static bool has_is4(const struct isa_row *row)
{
	return row->operands[3].kind == ISA_O_XMM_IS4 ||
	       row->operands[2].kind == ISA_O_XMM_IS4;
}

static void encode_imm(struct plan *p)
{
	u64 imm = p->in->imm;

	if (p->e->mode != X86_MODE_64 && has_is4(p->in->row))
		imm &= 0x7f;
	if (p->in->imm_len == 2 && p->in->row->operands[2].kind == ISA_O_IMM2)
		imm = (imm & 0xff) | (u64)p->in->imm2 << 8;
	else if (p->in->imm_len == 2 &&
		 p->in->row->operands[3].kind == ISA_O_IMM2)
		imm = (imm & 0xff) | (u64)p->in->imm2 << 8;
	for (unsigned i = 0; i < p->in->imm_len; i++)
		op_b(p, imm >> (8 * i));
}

static void encode_vex(struct plan *p, unsigned reg, unsigned rm)
{
	const struct insn *in = p->in;
	unsigned pp = in->mandatory == 0x66   ? 1
		      : in->mandatory == 0xf3 ? 2
		      : in->mandatory == 0xf2 ? 3
					      : 0;
	unsigned map = in->map - ISA_MAP_VEX_0F + 1;

	op_b(p, 0xc4);
	op_b(p, (reg < 8 ? 0x80 : 0) | 0x40 | (rm < 8 ? 0x20 : 0) | map);
	op_b(p, (in->rex & 8 ? 0x80 : 0) | (~vvvv_field(p) & 15) << 3 |
			in->vex_l << 2 | pp);
	op_b(p, in->opcode);
	encode_modrm(p, reg, rm);
}

static void encode_prefixes(struct plan *p, unsigned reg, unsigned rm)
{
	const struct insn *in = p->in;
	const struct isa_row *row = in->row;
	u8 rex = 0;

	if (in->prefixes & X86_P_LOCK)
		op_b(p, 0xf0);
	if (in->mandatory == 0x66 || (in->osize == 2 && has_size_v(row)))
		op_b(p, 0x66);
	if (in->mandatory == 0xf2 || in->mandatory == 0xf3)
		op_b(p, in->mandatory);
	if (in->rex & 8 || (row->attr & (ISA_D64 | ISA_F64) && in->osize == 8))
		rex |= 0x48;
	if (reg >= 8)
		rex |= 0x44;
	if (rm >= 8)
		rex |= 0x41;
	/* SPL to DIL need a REX where AH to BH must have none. */
	if (in->prefixes & X86_P_REX && !p->has_high_byte)
		rex |= 0x40;
	if (rex)
		op_b(p, rex);
}

static void encode_legacy(struct plan *p, unsigned reg, unsigned rm)
{
	const struct insn *in = p->in;
	bool is_opc = false;

	for (unsigned i = 0; i < ISA_OPERANDS; i++)
		is_opc |= in->row->operands[i].kind == ISA_O_GPR_OPC;
	encode_prefixes(p, in->has_modrm ? reg : 0,
			in->has_modrm || is_opc ? rm : 0);
	if (in->map == ISA_MAP_1B && (in->opcode & 0xf0) == 0x40) {
		/* INC and DEC of 16- and 32-bit code. */
		op_b(p, 0xff);
		op_b(p, 0xc0 | (in->opcode & 8) | (rm & 7));
		return;
	}
	if (in->map != ISA_MAP_1B && in->map != ISA_MAP_X87)
		op_b(p, 0x0f);
	if (in->map == ISA_MAP_0F38)
		op_b(p, 0x38);
	if (in->map == ISA_MAP_0F3A)
		op_b(p, 0x3a);
	if (in->map == ISA_MAP_1B && in->opcode == 0x82) {
		op_b(p, 0x80); /* its alias outside 64-bit mode */
		encode_modrm(p, reg, rm);
		return;
	}
	op_b(p, is_opc ? (in->opcode & 0xf8) | (rm & 7) : in->opcode);
	if (in->has_modrm)
		encode_modrm(p, reg, rm);
}

static void encode_op(struct plan *p)
{
	unsigned reg = reg_field(p);
	unsigned rm = p->in->is_mem ? p->ptr : rm_field(p);

	if (p->is_vex)
		encode_vex(p, reg, rm);
	else
		encode_legacy(p, reg, rm);
	encode_imm(p);
}

/* Of the string comparisons those that leave a mask, in XMM0. */
static bool writes_xmm0(u16 op)
{
	return op == ISA_OP_PCMPESTRM || op == ISA_OP_PCMPISTRM ||
	       op == ISA_OP_VPCMPESTRM || op == ISA_OP_VPCMPISTRM;
}

/* What was encoded is decoded again: the host must see this instruction, over
 * an operand of this size, and nothing behind it. A difference is a bug of the
 * encoder, which must not become host code. */
static bool op_is_sound(const struct plan *p)
{
	const struct isa_features all = {.bits = ~0ull, .is_amd = true};
	struct insn back;

	return x86_decode(&back, p->op, p->op_len, X86_MODE_64, &all) ==
		       p->op_len &&
	       back.row->op == p->in->row->op &&
	       back.row->class == p->in->row->class &&
	       back.is_mem == p->in->is_mem && back.mem_size == p->in->mem_size;
}

static bool plan_init(struct plan *p, const struct soft_entry *e)
{
	const struct isa_row *row = e->insn.row;

	memset(p, 0, sizeof(*p));
	p->e = e;
	p->in = &e->insn;
	p->is_vex =
		p->in->map >= ISA_MAP_VEX_0F && p->in->map <= ISA_MAP_VEX_0F3A;
	for (unsigned i = 0; i < ISA_OPERANDS; i++)
		plan_operand(p, &row->operands[i]);
	if (row->attr & ISA_IMPLICIT) {
		p->used |= 0xf; /* rax rcx rdx rbx */
		p->written |= 0xf;
	}
	if (writes_xmm0(row->op)) {
		p->xmm_used |= 1;
		p->xmm_written |= 1;
	}
	if (!plan_registers(p))
		return false;
	encode_op(p);
	return op_is_sound(p);
}

/* ---- emission ---- */

#define CALLEE_SAVED (1u << 3 | 1u << 5 | 15u << 12)

static u16 saved_regs(const struct plan *p)
{
	u16 regs = 0;

	for (unsigned r = 0; r < 16; r++) {
		if (p->used & 1u << r)
			regs |= 1u << p->host[r];
	}
	if (p->ptr != NO_REG)
		regs |= 1u << p->ptr;
	return regs & CALLEE_SAVED;
}

static void emit_load_xmm(struct out *o, const struct plan *p)
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

static void emit_store_xmm(struct out *o, const struct plan *p)
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

static void emit_entry(struct out *o, const struct plan *p, u16 saved)
{
	for (unsigned r = 0; r < 16; r++) {
		if (saved & 1u << r)
			emit_push_pop(o, r, 0x50);
	}
	b1(o, 0x49); /* mov r11, rdi */
	b1(o, 0x89);
	b1(o, 0xfb);
	if (p->ptr != NO_REG && p->ptr != 6) { /* mov PTR, rsi */
		b1(o, 0x48 | p->ptr >> 3);
		b1(o, 0x89);
		b1(o, 0xf0 | (p->ptr & 7));
	}
}

static void emit_loads(struct out *o, const struct plan *p)
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

static void emit_stores(struct out *o, const struct plan *p, u16 saved)
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

static void emit_stub(struct out *o, const struct plan *p)
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
	struct plan p;
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
	if (in->row->attr & ISA_ALIGN && va & (in->mem_size - 1u))
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
	if (in->row->attr & (ISA_X87 | ISA_MMX) &&
	    !(in->row->attr & ISA_X87_NOWAIT))
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
