/* SPDX-License-Identifier: Apache-2.0 */
/* Guest memory and register access of the interpreter's handlers, inline.
 *
 * The TLB's hit path is here; every miss, page crossing and device goes to
 * mmu.c, and may raise. A pointer from soft_fast_*() is good until the
 * instruction ends.
 */
#pragma once

#include "soft/interp_int.h"

static inline struct soft_tlb_entry *soft_tlb_at(struct vcpu *v, gva_t va)
{
	return &v->tlb_now[soft_tlb_index(va)];
}
/* NULL: take the slow path. */
static inline u8 *soft_tlb_r(struct vcpu *v, gva_t va, size_t n)
{
	struct soft_tlb_entry *e = soft_tlb_at(v, va);
	u64 off = va - e->tag_r;

	return likely(off <= PAGE_BYTES - n) ? (u8 *)e->hva_page + off : NULL;
}
static inline u8 *soft_tlb_w(struct vcpu *v, gva_t va, size_t n)
{
	struct soft_tlb_entry *e = soft_tlb_at(v, va);
	u64 off = va - e->tag_w;
	u8 *p;

	if (unlikely(off > PAGE_BYTES - n)) {
		v->stored = v->fetch_host;
		return NULL;
	}
	p = (u8 *)e->hva_page + off;
	v->stored = p;
	return p;
}

static inline u64 soft_at(const struct vcpu *v, unsigned offset)
{
	return *(const u64 *)((const u8 *)v + offset);
}

/* Effective address of the memory operand, without the segment's base. */
static inline u64 soft_entry_ea(const struct vcpu *v,
				const struct soft_entry *e)
{
	return (soft_at(v, e->base) + (soft_at(v, e->index) << e->scale) +
		(i64)e->disp) &
	       (~0ull >> e->amask_shift);
}
/* Linear address, valid only when v->is_flat; not checked for canonical
 * form, which no TLB tag lacks. */
static inline gva_t soft_flat_lin(const struct vcpu *v,
				  const struct soft_entry *e)
{
	return soft_entry_ea(v, e) + soft_at(v, e->seg_base);
}
static inline gva_t soft_entry_lin(struct vcpu *v, const struct soft_entry *e,
				   size_t n, unsigned how)
{
	return soft_lin(v, e->insn.seg, soft_entry_ea(v, e), n, how);
}
static inline u8 *soft_fast_r(struct vcpu *v, const struct soft_entry *e,
			      size_t n)
{
	return likely(v->is_flat && e->seg_base)
		       ? soft_tlb_r(v, soft_flat_lin(v, e), n)
		       : NULL;
}
static inline u8 *soft_fast_w(struct vcpu *v, const struct soft_entry *e,
			      size_t n)
{
	if (likely(v->is_flat && e->seg_base))
		return soft_tlb_w(v, soft_flat_lin(v, e), n);
	v->stored = v->fetch_host;
	return NULL;
}

/* A condition code of Jcc, SETcc, CMOVcc. */
static inline bool soft_condition(const struct vcpu *v, unsigned cc)
{
	u32 f = v->aflags;
	bool is_less = ((f >> 15) ^ f) & 1; /* SF != OF */
	bool r;

	switch (cc >> 1) {
	case 0:
		r = f & 1;
		break;
	case 1:
		r = f & 0x100;
		break;
	case 2:
		r = f & 0x4000;
		break;
	case 3:
		r = f & 0x4100;
		break;
	case 4:
		r = f & 0x8000;
		break;
	case 5:
		r = f & 0x400;
		break;
	case 6:
		r = is_less;
		break;
	default:
		r = is_less || f & 0x4000;
		break;
	}
	return r ^ (cc & 1);
}

static inline u64 soft_ld(const void *p, unsigned n)
{
	switch (n) {
	case 1:
		return *(const u8 *)p;
	case 2:
		return ld_le16(p);
	case 4:
		return ld_le32(p);
	default:
		return ld_le64(p);
	}
}
static inline void soft_st(void *p, unsigned n, u64 value)
{
	switch (n) {
	case 1:
		*(u8 *)p = value;
		break;
	case 2:
		st_le16(p, value);
		break;
	case 4:
		st_le32(p, value);
		break;
	default:
		st_le64(p, value);
	}
}

/* The memory operand as a value of n = 1, 2, 4, 8 bytes. */
static inline u64 soft_mem_read(struct vcpu *v, const struct soft_entry *e,
				unsigned n)
{
	u8 *p = soft_fast_r(v, e, n);

	if (likely(p != NULL))
		return soft_ld(p, n);
	return soft_read(v, soft_entry_lin(v, e, n, SOFT_R), n, SOFT_R);
}
static inline void soft_mem_write(struct vcpu *v, const struct soft_entry *e,
				  unsigned n, u64 value)
{
	u8 *p = soft_fast_w(v, e, n);

	if (likely(p != NULL))
		soft_st(p, n, value);
	else
		soft_write(v, soft_entry_lin(v, e, n, SOFT_W), n, value,
			   SOFT_W);
}
/* Any linear address. */
static inline u64 soft_lin_read(struct vcpu *v, gva_t va, unsigned n)
{
	u8 *p = soft_tlb_r(v, va, n);

	return likely(p != NULL) ? soft_ld(p, n) : soft_read(v, va, n, SOFT_R);
}
static inline void soft_lin_write(struct vcpu *v, gva_t va, unsigned n,
				  u64 value)
{
	u8 *p = soft_tlb_w(v, va, n);

	if (likely(p != NULL))
		soft_st(p, n, value);
	else
		soft_write(v, va, n, value, SOFT_W);
}

/* A register as an operand of n bytes: 4 zero-extends, 1 and 2 merge. */
static inline void soft_gpr_write(struct vcpu *v, unsigned reg, unsigned n,
				  u64 value)
{
	if (n == 4)
		v->gpr[reg] = (u32)value;
	else
		soft_st(&v->gpr[reg], n, value);
}
static inline u64 soft_gpr_read(const struct vcpu *v, unsigned reg, unsigned n)
{
	return soft_ld(&v->gpr[reg], n);
}
/* Address-size arithmetic on rCX, rSI, rDI. */
static inline u64 soft_mask(unsigned bytes)
{
	return bytes == 8 ? ~0ull : (1ull << (bytes * 8)) - 1;
}
/* Byte offset of a byte register in struct vcpu: AH to BH without REX. */
static inline unsigned soft_byte_reg(const struct insn *in, unsigned reg)
{
	bool has_rex = in->rex & 0x40 || in->prefixes & X86_P_REX;

	if (reg >= 4 && reg < 8 && !has_rex)
		return offsetof(struct vcpu, gpr) + (reg - 4) * 8 + 1;
	return offsetof(struct vcpu, gpr) + reg * 8;
}
static inline unsigned soft_reg_offset(const struct insn *in, unsigned reg,
				       unsigned n)
{
	return n == 1 ? soft_byte_reg(in, reg)
		      : offsetof(struct vcpu, gpr) + reg * 8;
}
