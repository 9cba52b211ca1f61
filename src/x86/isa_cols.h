/* SPDX-License-Identifier: Apache-2.0 */
/* The columns of isa_*.def. Only gen_tables.c includes this file; it prints
 * the rows, sorted by map and opcode, as isa_rows[].
 *
 *	R(map, opcode, prefix, mod, reg, rm, w, l, NAME, (operands), CLASS,
 *	  FEATURE, attr, tested, changed, undefined)
 *
 * map, CLASS, FEATURE, NAME: the enumerator without its prefix.
 * prefix: __ any; NP none of 66, F2, F3; N66 neither F2 nor F3; 0x66, 0xf2,
 *	0xf3. In VEX maps it is the pp field, NP for pp = 0.
 * mod: __ any, MODM memory only, MODR register only.
 * reg, rm (with mod = 3), w, l: a number, or __ for any.
 * operands: access(operand), at most four, in Intel's order: r, w, rw, cw,
 *	n (no access: LEA, NOP); () when there are none.
 * tested, changed, undefined: arithmetic flags; undefined ones are in
 *	changed too. Shifts test all that they change: a zero count keeps them.
 *
 * For one opcode the first row whose columns and feature fit wins, so the
 * specific rows stand before the general ones. Short forms: RI (integer: any
 * prefix, mod, rm, W), RV (VEX: pp, W, L).
 */
#pragma once

#include "x86/isa.h"

#define __   (-1)
#define NP   1
#define N66  2
#define MODM 1
#define MODR 2

#define ISA_UNPAREN(...) __VA_ARGS__
#define ISA_ACC_(a, k, s, n)                                                   \
	{                                                                      \
		ISA_O_##k, ISA_S_##s, a, n                                     \
	}
#define ISA_ACC(a, ...) ISA_ACC_(a, __VA_ARGS__)
#define n(...)		ISA_ACC(ISA_A_NONE, __VA_ARGS__)
#define r(...)		ISA_ACC(ISA_A_R, __VA_ARGS__)
#define w(...)		ISA_ACC(ISA_A_W, __VA_ARGS__)
#define rw(...)		ISA_ACC(ISA_A_RW, __VA_ARGS__)
#define cw(...)		ISA_ACC(ISA_A_CW, __VA_ARGS__)

#define R(map_, opcode_, prefix_, mod_, reg_, rm_, w_, l_, NAME, ops, CLASS,   \
	  FEATURE, attr_, tested, changed, undefined)                          \
	{                                                                      \
		.name = #NAME, .op = ISA_OP_##NAME, .class = ISA_##CLASS,      \
		.feature = ISA_F_##FEATURE, .attr = (attr_),                   \
		.flags_tested = (tested), .flags_changed = (changed),          \
		.flags_undefined = (undefined),                                \
		.operands = {ISA_UNPAREN ops}, .map = ISA_MAP_##map_,          \
		.opcode = (opcode_), .modrm_reg = (reg_), .modrm_rm = (rm_),   \
		.modrm_mod = (mod_) < 0 ? 0 : (mod_),                          \
		.prefix = (prefix_) < 0 ? 0 : (prefix_), .vex_w = (w_),        \
		.vex_l = (l_),                                                 \
	},
#define RI(map, opcode, reg, NAME, ops, CLASS, attr, tested, changed,          \
	   undefined)                                                          \
	R(map, opcode, __, __, reg, __, __, __, NAME, ops, CLASS, BASE, attr,  \
	  tested, changed, undefined)
#define RV(map, opcode, pp, w, l, NAME, ops, CLASS, FEATURE, attr)             \
	R(map, opcode, pp, __, __, __, w, l, NAME, ops, CLASS, FEATURE,        \
	  (attr) | ISA_AVX | ISA_NOREAL, 0, 0, 0)

// clang-format off
/* General registers and memory. */
#define Eb      GPR_RM, B, 0
#define Ew      GPR_RM, W, 0
#define Ed      GPR_RM, D, 0
#define Eq      GPR_RM, Q, 0
#define Ev      GPR_RM, V, 0
#define Ez      GPR_RM, Z, 0
#define Ey      GPR_RM, Y, 0
#define Gb      GPR_REG, B, 0
#define Gw      GPR_REG, W, 0
#define Gd      GPR_REG, D, 0
#define Gq      GPR_REG, Q, 0
#define Gv      GPR_REG, V, 0
#define Gz      GPR_REG, Z, 0
#define Gy      GPR_REG, Y, 0
#define Rb      GPR_RM_ONLY, B, 0
#define Rw      GPR_RM_ONLY, W, 0
#define Rd      GPR_RM_ONLY, D, 0
#define Rq      GPR_RM_ONLY, Q, 0
#define Rv      GPR_RM_ONLY, V, 0
#define Rz      GPR_RM_ONLY, Z, 0
#define Ry      GPR_RM_ONLY, Y, 0
#define Bb      GPR_VVVV, B, 0
#define Bw      GPR_VVVV, W, 0
#define Bd      GPR_VVVV, D, 0
#define Bq      GPR_VVVV, Q, 0
#define Bv      GPR_VVVV, V, 0
#define Bz      GPR_VVVV, Z, 0
#define By      GPR_VVVV, Y, 0
#define Zb      GPR_OPC, B, 0
#define Zw      GPR_OPC, W, 0
#define Zd      GPR_OPC, D, 0
#define Zq      GPR_OPC, Q, 0
#define Zv      GPR_OPC, V, 0
#define Zz      GPR_OPC, Z, 0
#define Zy      GPR_OPC, Y, 0
#define Mb      MEM, B, 0
#define Mw      MEM, W, 0
#define Md      MEM, D, 0
#define Mq      MEM, Q, 0
#define Mv      MEM, V, 0
#define Mz      MEM, Z, 0
#define My      MEM, Y, 0
/* Memory of other sizes; M_ has none. */
#define M_      MEM, NONE, 0
#define Mx      MEM, X, 0
#define Mxy     MEM, XY, 0
#define Mxyh    MEM, XYH, 0
#define Mxyq    MEM, XYQ, 0
#define Mxye    MEM, XYE, 0
#define MY      MEM, YMM, 0
#define Mt      MEM, T, 0
#define Mp      MEM, P, 0
#define Ms      MEM, S, 0
#define M2v     MEM, 2V, 0
#define M2y     MEM, 2Y, 0
#define Menv    MEM, ENV, 0
#define Mstate  MEM, STATE, 0
#define Mfx     MEM, FX, 0
#define Mxsave  MEM, XSAVE, 0
/* Vector registers; W is register or memory. x: 16 bytes, xy: by VEX.L,
 * h, q, e after xy: a half, a quarter, an eighth of that. */
#define Vb      XMM_REG, B, 0
#define Vw      XMM_REG, W, 0
#define Vd      XMM_REG, D, 0
#define Vq      XMM_REG, Q, 0
#define Vx      XMM_REG, X, 0
#define Vxy     XMM_REG, XY, 0
#define Vxyh    XMM_REG, XYH, 0
#define Vxyq    XMM_REG, XYQ, 0
#define Vxye    XMM_REG, XYE, 0
#define VY      XMM_REG, YMM, 0
#define Wb      XMM_RM, B, 0
#define Ww      XMM_RM, W, 0
#define Wd      XMM_RM, D, 0
#define Wq      XMM_RM, Q, 0
#define Wx      XMM_RM, X, 0
#define Wxy     XMM_RM, XY, 0
#define Wxyh    XMM_RM, XYH, 0
#define Wxyq    XMM_RM, XYQ, 0
#define Wxye    XMM_RM, XYE, 0
#define WY      XMM_RM, YMM, 0
#define Ub      XMM_RM_ONLY, B, 0
#define Uw      XMM_RM_ONLY, W, 0
#define Ud      XMM_RM_ONLY, D, 0
#define Uq      XMM_RM_ONLY, Q, 0
#define Ux      XMM_RM_ONLY, X, 0
#define Uxy     XMM_RM_ONLY, XY, 0
#define Uxyh    XMM_RM_ONLY, XYH, 0
#define Uxyq    XMM_RM_ONLY, XYQ, 0
#define Uxye    XMM_RM_ONLY, XYE, 0
#define UY      XMM_RM_ONLY, YMM, 0
#define Hb      XMM_VVVV, B, 0
#define Hw      XMM_VVVV, W, 0
#define Hd      XMM_VVVV, D, 0
#define Hq      XMM_VVVV, Q, 0
#define Hx      XMM_VVVV, X, 0
#define Hxy     XMM_VVVV, XY, 0
#define Hxyh    XMM_VVVV, XYH, 0
#define Hxyq    XMM_VVVV, XYQ, 0
#define Hxye    XMM_VVVV, XYE, 0
#define HY      XMM_VVVV, YMM, 0
#define Lb      XMM_IS4, B, 0
#define Lw      XMM_IS4, W, 0
#define Ld      XMM_IS4, D, 0
#define Lq      XMM_IS4, Q, 0
#define Lx      XMM_IS4, X, 0
#define Lxy     XMM_IS4, XY, 0
#define Lxyh    XMM_IS4, XYH, 0
#define Lxyq    XMM_IS4, XYQ, 0
#define Lxye    XMM_IS4, XYE, 0
#define LY      XMM_IS4, YMM, 0
#define XMM0_x  XMM_FIXED, X, 0
/* MMX. */
#define Pd      MMX_REG, D, 0
#define Pq      MMX_REG, Q, 0
#define Qd      MMX_RM, D, 0
#define Qq      MMX_RM, Q, 0
#define Nd      MMX_RM_ONLY, D, 0
#define Nq      MMX_RM_ONLY, Q, 0
/* Gathers: the size is the element's. */
#define VMd     VSIB, D, 0
#define VMq     VSIB, Q, 0
/* x87. */
#define ST0     ST0, T, 0
#define STi     STI, T, 0
/* Segment, control and debug registers. */
#define Sw      SEG_REG, W, 0
#define Cy      CR, Y, 0
#define Dy      DR, Y, 0
#define ES_w    SEG_FIXED, W, 0
#define CS_w    SEG_FIXED, W, 1
#define SS_w    SEG_FIXED, W, 2
#define DS_w    SEG_FIXED, W, 3
#define FS_w    SEG_FIXED, W, 4
#define GS_w    SEG_FIXED, W, 5
/* Immediates, branch targets, implicit addresses. */
#define Ib      IMM, B, 0
#define Iw      IMM, W, 0
#define Id      IMM, D, 0
#define Iz      IMM, Z, 0
#define Iv      IMM, V, 0
#define I2b     IMM2, B, 0
#define I2w     IMM2, W, 0
#define Jb      REL, B, 0
#define Jz      REL, Z, 0
#define Ob      MOFFS, B, 0
#define Ov      MOFFS, V, 0
#define Ap      FARPTR, P, 0
#define Xb      STR_SRC, B, 0
#define Xv      STR_SRC, V, 0
#define Xz      STR_SRC, Z, 0
#define Yb      STR_DST, B, 0
#define Yv      STR_DST, V, 0
#define Yz      STR_DST, Z, 0
#define ONE     ONE, B, 0
/* Fixed registers. */
#define AL_b    GPR_FIXED, B, 0
#define CL_b    GPR_FIXED, B, 1
#define AH_b    GPR_FIXED, B, 4
#define AX_w    GPR_FIXED, W, 0
#define DX_w    GPR_FIXED, W, 2
#define EAX_d   GPR_FIXED, D, 0
#define ECX_d   GPR_FIXED, D, 1
#define EDX_d   GPR_FIXED, D, 2
#define EBX_d   GPR_FIXED, D, 3
#define rAX_v   GPR_FIXED, V, 0
#define rDX_v   GPR_FIXED, V, 2
#define rBP_v   GPR_FIXED, V, 5
#define rAX_z   GPR_FIXED, Z, 0
#define rAX_y   GPR_FIXED, Y, 0
#define rDX_y   GPR_FIXED, Y, 2
// clang-format on
