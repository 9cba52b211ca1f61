/* SPDX-License-Identifier: Apache-2.0 */
/* A small assembler for the host: 64-bit x86, the forms that the translator
 * needs. Writes through the code memory's writable mapping.
 *
 * An emitter never writes beyond `end`: it drops what does not fit and sets
 * `is_full`; the caller then throws the block away.
 */
#pragma once

#include "base/assert.h"
#include "base/types.h"

/* Host registers, hardware numbers. */
enum {
	H_RAX,
	H_RCX,
	H_RDX,
	H_RBX,
	H_RSP,
	H_RBP,
	H_RSI,
	H_RDI,
	H_R8,
	H_R9,
	H_R10,
	H_R11,
	H_R12,
	H_R13,
	H_R14,
	H_R15,
	H_NONE = 0xff,
};

/* Condition codes. */
enum {
	CC_O,
	CC_NO,
	CC_B,
	CC_AE,
	CC_E,
	CC_NE,
	CC_BE,
	CC_A,
	CC_S,
	CC_NS,
	CC_P,
	CC_NP,
	CC_L,
	CC_GE,
	CC_LE,
	CC_G,
};

struct emit {
	u8 *rw;	 /* start of the code memory, writable mapping */
	u32 pos; /* code offset of the next byte */
	u32 end; /* code offset behind the reservation */
	bool is_full;
};

static inline void e_b(struct emit *e, u8 b)
{
	if (unlikely(e->pos >= e->end)) {
		e->is_full = true;
		return;
	}
	e->rw[e->pos++] = b;
}
static inline void e_w(struct emit *e, u16 v)
{
	e_b(e, (u8)v);
	e_b(e, (u8)(v >> 8));
}
static inline void e_d(struct emit *e, u32 v)
{
	if (unlikely(e->end - e->pos < 4)) {
		e->pos = e->end;
		e->is_full = true;
		return;
	}
	st_le32(e->rw + e->pos, v);
	e->pos += 4;
}
static inline void e_q(struct emit *e, u64 v)
{
	e_d(e, (u32)v);
	e_d(e, (u32)(v >> 32));
}
static inline void e_bytes(struct emit *e, const u8 *p, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		e_b(e, p[i]);
}

/* Code that is the same each time, but for a field or two. */
struct canned {
	u8 bytes[64];
	u8 n;		 /* 0: not made yet */
	u8 size, target; /* where a size and a rel32 stand */
};
static inline void e_canned(struct emit *e, const struct canned *c)
{
	if (unlikely(e->end - e->pos < sizeof(c->bytes))) {
		e_bytes(e, c->bytes, c->n);
		return;
	}
	memcpy(e->rw + e->pos, c->bytes, sizeof(c->bytes));
	e->pos += c->n;
}

/* A memory operand [base + index * 2^scale + disp], optionally of GS. */
struct emem {
	u8 base, index; /* H_NONE: none; index is never RSP */
	u8 scale;
	bool is_gs;
	i32 disp;
};
static inline struct emem m_b(u8 base, i32 disp)
{
	return (struct emem){.base = base, .index = H_NONE, .disp = disp};
}
static inline struct emem m_bi(u8 base, u8 index, u8 scale, i32 disp)
{
	return (struct emem){base, index, scale, false, disp};
}

/* The modrm byte and what follows it, for field reg and memory m. */
void e_modrm_mem(struct emit *e, unsigned reg, const struct emem *m);
/* [66] [GS] REX op modrm: size 1, 2, 4, 8; op may be 0x0fXX or 0x0f38XX.
 * Register fields of size 1 get the REX that SPL to DIL need. */
void e_op_rm(struct emit *e, unsigned size, u32 op, unsigned reg,
	     struct emem m);
void e_op_rr(struct emit *e, unsigned size, u32 op, unsigned reg, unsigned rm);

static inline void e_load(struct emit *e, unsigned size, unsigned reg,
			  struct emem m)
{
	e_op_rm(e, size, size == 1 ? 0x8a : 0x8b, reg, m);
}
static inline void e_store(struct emit *e, unsigned size, struct emem m,
			   unsigned reg)
{
	e_op_rm(e, size, size == 1 ? 0x88 : 0x89, reg, m);
}
static inline void e_mov(struct emit *e, unsigned size, unsigned d, unsigned s)
{
	e_op_rr(e, size, 0x89, s, d);
}
static inline void e_lea(struct emit *e, unsigned size, unsigned reg,
			 struct emem m)
{
	e_op_rm(e, size, 0x8d, reg, m);
}
/* op: 0 add 1 or 2 adc 3 sbb 4 and 5 sub 6 xor 7 cmp */
enum { ALU_ADD, ALU_OR, ALU_ADC, ALU_SBB, ALU_AND, ALU_SUB, ALU_XOR, ALU_CMP };
void e_alu_ri(struct emit *e, unsigned size, unsigned op, unsigned reg,
	      i32 imm);
void e_alu_mi(struct emit *e, unsigned size, unsigned op, struct emem m,
	      i32 imm);
static inline void e_alu_rr(struct emit *e, unsigned size, unsigned op,
			    unsigned d, unsigned s)
{
	e_op_rr(e, size, op * 8 + 1, s, d);
}
static inline void e_alu_rm(struct emit *e, unsigned size, unsigned op,
			    unsigned d, struct emem m)
{
	e_op_rm(e, size, op * 8 + 3, d, m);
}
void e_mov_ri(struct emit *e, unsigned reg, u64 imm); /* shortest; no flags */
void e_mov_mi(struct emit *e, unsigned size, struct emem m, i32 imm);
/* rorx d, s, n (64 bits); without BMI2: mov and ror, which changes flags. */
void e_rorx(struct emit *e, unsigned d, unsigned s, unsigned n, bool has_bmi2);
void e_shift_ri(struct emit *e, unsigned size, unsigned op, unsigned reg,
		unsigned n); /* op: 4 shl 5 shr 7 sar */

/* Jumps with rel32. The returned code offset is where the rel32 stands. */
u32 e_jmp(struct emit *e, u32 target);
u32 e_jcc(struct emit *e, unsigned cc, u32 target);
u32 e_call(struct emit *e, u32 target);
/* Makes the rel32 at `site` lead to `target`. */
void e_patch(struct emit *e, u32 site, u32 target);
/* Jumps with rel8, forward, patched by e_patch8. */
u32 e_jcc8(struct emit *e, unsigned cc);
u32 e_jmp8(struct emit *e);
u32 e_jrcxz8(struct emit *e);
void e_patch8(struct emit *e, u32 site);
void e_align(struct emit *e, unsigned n); /* with multi-byte NOPs */
