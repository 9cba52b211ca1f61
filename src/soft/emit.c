/* SPDX-License-Identifier: Apache-2.0 */
/* The assembler's encodings. Source: SDM 2, chapter 2. */
#include "soft/emit.h"

#define REX   0x40u
#define REX_W 0x48u
#define REX_R 0x44u
#define REX_X 0x42u
#define REX_B 0x41u

/* An instruction on its way, of at most PIECES_MAX bytes: written in place
 * where there is room for the longest. */
#define PIECES_MAX 16
struct pieces {
	u8 *b;
	unsigned n;
	u8 apart[PIECES_MAX];
};

static inline void p_begin(struct pieces *p, struct emit *e)
{
	p->b = likely(e->end - e->pos >= PIECES_MAX) ? e->rw + e->pos
						     : p->apart;
	p->n = 0;
}

static inline void p_end(struct pieces *p, struct emit *e)
{
	if (likely(p->b != p->apart))
		e->pos += p->n;
	else
		e_bytes(e, p->b, p->n);
}

static inline void p_b(struct pieces *p, unsigned b)
{
	p->b[p->n++] = (u8)b;
}

static inline void p_d(struct pieces *p, u32 v)
{
	st_le32(p->b + p->n, v);
	p->n += 4;
}

static void modrm_mem(struct pieces *p, unsigned reg, const struct emem *m)
{
	unsigned r = (reg & 7) << 3;
	bool has_sib = m->index != H_NONE || (m->base & 7) == H_RSP;
	unsigned mod;

	if (m->base == H_NONE) { /* [index * scale + disp32], or [disp32] */
		p_b(p, r | 4);
		p_b(p, m->scale << 6 |
			       (m->index == H_NONE ? 4 : m->index & 7) << 3 |
			       5);
		p_d(p, (u32)m->disp);
		return;
	}
	mod = !m->disp && (m->base & 7) != H_RBP  ? 0x00
	      : m->disp >= -128 && m->disp <= 127 ? 0x40
						  : 0x80;
	if (has_sib) {
		p_b(p, mod | r | 4);
		p_b(p, m->scale << 6 |
			       (m->index == H_NONE ? 4 : m->index & 7) << 3 |
			       (m->base & 7));
	} else {
		p_b(p, mod | r | (m->base & 7));
	}
	if (mod == 0x40)
		p_b(p, (u8)m->disp);
	else if (mod == 0x80)
		p_d(p, (u32)m->disp);
}

void e_modrm_mem(struct emit *e, unsigned reg, const struct emem *m)
{
	struct pieces p;

	p_begin(&p, e);
	modrm_mem(&p, reg, m);
	p_end(&p, e);
}

static void opcode(struct pieces *p, u32 op)
{
	if (op > 0xffff)
		p_b(p, op >> 16);
	if (op > 0xff)
		p_b(p, op >> 8);
	p_b(p, op);
}

void e_op_rm(struct emit *e, unsigned size, u32 op, unsigned reg, struct emem m)
{
	struct pieces p;
	u8 rex = 0;

	p_begin(&p, e);
	if (m.is_gs)
		p_b(&p, 0x65);
	if (size == 2)
		p_b(&p, 0x66);
	if (size == 8)
		rex |= REX_W;
	if (reg >= 8)
		rex |= REX_R;
	if (m.index != H_NONE && m.index >= 8)
		rex |= REX_X;
	if (m.base != H_NONE && m.base >= 8)
		rex |= REX_B;
	if (size == 1 && reg >= 4)
		rex |= REX;
	if (rex)
		p_b(&p, rex);
	opcode(&p, op);
	modrm_mem(&p, reg, &m);
	p_end(&p, e);
}

void e_op_rr(struct emit *e, unsigned size, u32 op, unsigned reg, unsigned rm)
{
	struct pieces p;
	u8 rex = 0;

	p_begin(&p, e);
	if (size == 2)
		p_b(&p, 0x66);
	if (size == 8)
		rex |= REX_W;
	if (reg >= 8)
		rex |= REX_R;
	if (rm >= 8)
		rex |= REX_B;
	if (size == 1 && (reg >= 4 || rm >= 4))
		rex |= REX;
	if (rex)
		p_b(&p, rex);
	opcode(&p, op);
	p_b(&p, 0xc0 | (reg & 7) << 3 | (rm & 7));
	p_end(&p, e);
}

static bool is_i8(i32 imm)
{
	return imm >= -128 && imm <= 127;
}

static void immediate(struct emit *e, unsigned size, i32 imm)
{
	if (size == 1)
		e_b(e, (u8)imm);
	else if (size == 2)
		e_w(e, (u16)imm);
	else
		e_d(e, (u32)imm);
}

void e_alu_ri(struct emit *e, unsigned size, unsigned op, unsigned reg, i32 imm)
{
	if (size == 1 || is_i8(imm)) {
		e_op_rr(e, size, size == 1 ? 0x80 : 0x83, op, reg);
		e_b(e, (u8)imm);
		return;
	}
	e_op_rr(e, size, 0x81, op, reg);
	immediate(e, size, imm);
}

void e_alu_mi(struct emit *e, unsigned size, unsigned op, struct emem m,
	      i32 imm)
{
	if (size == 1 || is_i8(imm)) {
		e_op_rm(e, size, size == 1 ? 0x80 : 0x83, op, m);
		e_b(e, (u8)imm);
		return;
	}
	e_op_rm(e, size, 0x81, op, m);
	immediate(e, size, imm);
}

void e_mov_ri(struct emit *e, unsigned reg, u64 imm)
{
	if (imm == (u32)imm) {
		if (reg >= 8)
			e_b(e, REX_B);
		e_b(e, 0xb8 | (reg & 7));
		e_d(e, (u32)imm);
	} else if ((u64)(i64)(i32)imm == imm) {
		e_op_rr(e, 8, 0xc7, 0, reg);
		e_d(e, (u32)imm);
	} else {
		e_b(e, reg >= 8 ? REX_W | 1 : REX_W);
		e_b(e, 0xb8 | (reg & 7));
		e_q(e, imm);
	}
}

void e_mov_mi(struct emit *e, unsigned size, struct emem m, i32 imm)
{
	e_op_rm(e, size, size == 1 ? 0xc6 : 0xc7, 0, m);
	immediate(e, size, imm);
}

void e_rorx(struct emit *e, unsigned d, unsigned s, unsigned n, bool has_bmi2)
{
	struct pieces p;

	if (!has_bmi2) {
		if (d != s)
			e_mov(e, 8, d, s);
		e_op_rr(e, 8, 0xc1, 1, d);
		e_b(e, n);
		return;
	}
	/* VEX.LZ.F2.0F3A.W1 F0 /r ib */
	p_begin(&p, e);
	p_d(&p,
	    0xf0fb00c4 | ((d < 8 ? 0x80u : 0u) | 0x40u | (s < 8 ? 0x20u : 0u) |
			  3u) << 8);
	p_b(&p, 0xc0 | (d & 7) << 3 | (s & 7));
	p_b(&p, n);
	p_end(&p, e);
}

void e_shift_ri(struct emit *e, unsigned size, unsigned op, unsigned reg,
		unsigned n)
{
	e_op_rr(e, size, 0xc1, op, reg);
	e_b(e, n);
}

/* ---- jumps ---- */

static u32 rel32(struct emit *e, u32 target)
{
	u32 site = e->pos;

	e_d(e, target - (site + 4));
	return site;
}

u32 e_jmp(struct emit *e, u32 target)
{
	e_b(e, 0xe9);
	return rel32(e, target);
}

u32 e_jcc(struct emit *e, unsigned cc, u32 target)
{
	e_b(e, 0x0f);
	e_b(e, 0x80 | cc);
	return rel32(e, target);
}

u32 e_call(struct emit *e, u32 target)
{
	e_b(e, 0xe8);
	return rel32(e, target);
}

void e_patch(struct emit *e, u32 site, u32 target)
{
	if (!e->is_full)
		st_le32(e->rw + site, target - (site + 4));
}

u32 e_jcc8(struct emit *e, unsigned cc)
{
	e_b(e, 0x70 | cc);
	e_b(e, 0);
	return e->pos - 1;
}

u32 e_jmp8(struct emit *e)
{
	e_b(e, 0xeb);
	e_b(e, 0);
	return e->pos - 1;
}

u32 e_jrcxz8(struct emit *e)
{
	e_b(e, 0xe3);
	e_b(e, 0);
	return e->pos - 1;
}

void e_patch8(struct emit *e, u32 site)
{
	u32 distance = e->pos - (site + 1);

	if (e->is_full)
		return;
	ASSERT(distance <= 127);
	e->rw[site] = (u8)distance;
}

void e_align(struct emit *e, unsigned n)
{
	static const u8 nops[8][8] = {
		{0x90},
		{0x66, 0x90},
		{0x0f, 0x1f, 0x00},
		{0x0f, 0x1f, 0x40, 0x00},
		{0x0f, 0x1f, 0x44, 0x00, 0x00},
		{0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00},
		{0x0f, 0x1f, 0x80, 0x00, 0x00, 0x00, 0x00},
		{0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00},
	};
	unsigned left = (n - e->pos % n) % n;

	while (left) {
		unsigned k = left > 8 ? 8 : left;

		e_bytes(e, nops[k - 1], k);
		left -= k;
	}
}
