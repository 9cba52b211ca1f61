/* SPDX-License-Identifier: Apache-2.0 */
/* The columns of isa.def: one row per instruction form.
 *
 * Source: SDM volume 2 (opcode maps, appendix A) and APM volume 3. Every row
 * is checked against Zydis and against the host CPU in the tests.
 */
#pragma once

#include "base/types.h"

enum isa_map {
	ISA_MAP_1B, /* one-byte opcodes */
	ISA_MAP_0F,
	ISA_MAP_0F38,
	ISA_MAP_0F3A,
	ISA_MAP_VEX_0F,
	ISA_MAP_VEX_0F38,
	ISA_MAP_VEX_0F3A,
	ISA_MAP_X87, /* D8-DF: opcode = 0xD8-0xDF, reg or whole modrm */
};

/* How an instruction is executed. */
enum isa_class {
	ISA_PASS, /* the host executes the same opcode, operands replaced */
	ISA_CTRL, /* near jmp/jcc/call/ret/loop/jrcxz */
	ISA_STR, /* string instructions, with and without rep */
	ISA_MEMX, /* special addressing: bt mem,reg; push/pop; cmpxchg8b… */
	ISA_SYS, /* a C function, in both tiers */
	ISA_INTERP, /* legacy or far control flow: a C function, T0 only */
};

enum isa_operand_kind {
	ISA_O_NONE,
	ISA_O_GPR_REG, /* G: modrm.reg */
	ISA_O_GPR_RM, /* E: modrm.rm, register or memory */
	ISA_O_GPR_RM_ONLY, /* R: modrm.rm, register only */
	ISA_O_GPR_VVVV, /* B: VEX.vvvv */
	ISA_O_GPR_OPC, /* Z: low three opcode bits */
	ISA_O_GPR_FIXED, /* implicit register, number in `reg` */
	ISA_O_MEM, /* M: modrm.rm, memory only */
	ISA_O_XMM_REG, /* V */
	ISA_O_XMM_RM, /* W: register or memory */
	ISA_O_XMM_RM_ONLY, /* U */
	ISA_O_XMM_VVVV, /* H */
	ISA_O_XMM_IS4, /* L: imm8[7:4] */
	ISA_O_XMM_FIXED, /* implicit XMM0 */
	ISA_O_MMX_REG, /* P */
	ISA_O_MMX_RM, /* Q: register or memory */
	ISA_O_MMX_RM_ONLY, /* N */
	ISA_O_ST0,
	ISA_O_STI, /* modrm.rm */
	ISA_O_SEG_REG, /* S: modrm.reg */
	ISA_O_SEG_FIXED, /* number in `reg` */
	ISA_O_CR, /* C: modrm.reg */
	ISA_O_DR, /* D: modrm.reg */
	ISA_O_IMM,
	ISA_O_IMM2,
	ISA_O_REL, /* branch displacement; insn.imm sign-extended */
	ISA_O_MOFFS, /* insn.imm is the offset */
	ISA_O_FARPTR, /* imm2:imm */
	ISA_O_STR_SRC, /* X: seg:[rSI] */
	ISA_O_STR_DST, /* Y: ES:[rDI] */
	ISA_O_VSIB, /* memory by vector index */
	ISA_O_ONE, /* the constant 1 (shift by one) */
};

/* Operand sizes. The decoder resolves the memory operand's into mem_size. */
enum isa_operand_size {
	ISA_S_NONE, /* no size, or as the handler says (LEA, INVLPG, NOP) */
	ISA_S_B, /* 1 byte */
	ISA_S_W, /* 2 */
	ISA_S_D, /* 4 */
	ISA_S_Q, /* 8 */
	ISA_S_V, /* 2/4/8 by operand size */
	ISA_S_Z, /* 2/4 by operand size (4 when 8) */
	ISA_S_Y, /* 4/8 by operand size (W bit) */
	ISA_S_X, /* 16 */
	ISA_S_YMM, /* 32 */
	ISA_S_XY, /* 16 or 32 by VEX.L */
	ISA_S_XYH, /* half of XY: 8 or 16 */
	ISA_S_XYQ, /* quarter of XY: 4 or 8 */
	ISA_S_XYE, /* eighth of XY: 2 or 4 */
	ISA_S_T, /* 10: x87 extended, packed BCD */
	ISA_S_P, /* far pointer in memory: 2 + operand size */
	ISA_S_S, /* pseudo-descriptor: 6, or 10 in 64-bit mode */
	ISA_S_2V, /* two operands of V: BOUND */
	ISA_S_2Y, /* 8 or 16: CMPXCHG8B/16B */
	ISA_S_ENV, /* 14/28: FLDENV, FNSTENV */
	ISA_S_STATE, /* 94/108: FRSTOR, FNSAVE */
	ISA_S_FX, /* 512: FXSAVE */
	ISA_S_XSAVE, /* variable: XSAVE family */
};

enum isa_access { ISA_A_NONE, ISA_A_R, ISA_A_W, ISA_A_RW, ISA_A_CW };
/* CW: conditional write (cmov's register, cmpxchg's destination). */

/* The immediate bytes of a form, derived by gen_tables from its operands. */
enum isa_imm {
	ISA_I_NONE,
	ISA_I_B, /* 1 byte */
	ISA_I_BS, /* 1 byte, sign-extended */
	ISA_I_W,
	ISA_I_Z, /* 2 or 4 bytes, sign-extended from 4 */
	ISA_I_V, /* 2, 4 or 8 bytes: MOV reg, imm */
	ISA_I_D,
	ISA_I_WB, /* ENTER */
	ISA_I_BB, /* EXTRQ, INSERTQ */
	ISA_I_MOFFS, /* by address size */
	ISA_I_FAR, /* 2 or 4 bytes, then the selector */
};

struct isa_operand {
	u8 kind; /* enum isa_operand_kind */
	u8 size; /* enum isa_operand_size */
	u8 access; /* enum isa_access */
	u8 reg; /* FIXED kinds */
};

/* isa_row.attr */
#define ISA_LOCK     BIT32(0) /* LOCK allowed with a memory destination */
#define ISA_NO64     BIT32(1) /* #UD in 64-bit mode */
#define ISA_ONLY64   BIT32(2) /* #UD outside 64-bit mode */
#define ISA_CPL0     BIT32(3) /* #GP(0) unless CPL 0 */
#define ISA_D64      BIT32(4) /* operand size defaults to 64 in 64-bit mode */
#define ISA_F64      BIT32(5) /* operand size forced to 64 in 64-bit mode */
#define ISA_NOREAL   BIT32(6) /* #UD in real and virtual-8086 mode */
#define ISA_X87	     BIT32(7) /* #NM by CR0.EM or TS; may raise #MF */
#define ISA_MMX	     BIT32(8) /* #UD by EM, #NM by TS, pending #MF */
#define ISA_SSE	     BIT32(9) /* #UD by EM or !OSFXSR, #NM by TS */
#define ISA_AVX	     BIT32(10) /* #UD by !OSXSAVE or XCR0, #NM by TS */
#define ISA_FP	     BIT32(11) /* uses or changes MXCSR: may raise #XM */
#define ISA_ALIGN    BIT32(12) /* #GP(0) when memory is not 16-aligned */
#define ISA_IMM_SX   BIT32(13) /* immediate is sign-extended to osize */
#define ISA_BYTEREGS BIT32(14) /* 8-bit register operands: AH rules */
#define ISA_WIG	     BIT32(15)
#define ISA_REP	     BIT32(16) /* F3 and F2 repeat it */
#define ISA_X87_NOWAIT BIT32(17) /* does not check pending exceptions */
#define ISA_IMPLICIT BIT32(18) /* uses GPRs that no operand names */
#define ISA_REXB     BIT32(19) /* only with REX.B: XCHG r8, rAX */
#define ISA_OPSIZE   BIT32(20) /* prefix 66 is also the operand size */
#define ISA_MODREG   BIT32(21) /* modrm.mod is ignored: always a register */

/* Arithmetic flags, as in RFLAGS. */
#define ISA_CF 0x001
#define ISA_PF 0x004
#define ISA_AF 0x010
#define ISA_ZF 0x040
#define ISA_SF 0x080
#define ISA_OF 0x800
#define ISA_ALLF (ISA_CF | ISA_PF | ISA_AF | ISA_ZF | ISA_SF | ISA_OF)

/* Features that a row may need; ISA_F_BASE is x86-64-v1. */
enum isa_feature {
	ISA_F_BASE,
	ISA_F_SSE3, ISA_F_SSSE3, ISA_F_SSE41, ISA_F_SSE42, ISA_F_SSE4A,
	ISA_F_PCLMUL, ISA_F_AES, ISA_F_FMA, ISA_F_F16C, ISA_F_AVX, ISA_F_AVX2,
	ISA_F_VAES, ISA_F_VPCLMUL, ISA_F_GFNI, ISA_F_SHA,
	ISA_F_BMI1, ISA_F_BMI2, ISA_F_ADX, ISA_F_MOVBE, ISA_F_POPCNT,
	ISA_F_LZCNT, ISA_F_LAHF64, ISA_F_CX16, ISA_F_RDRAND, ISA_F_RDSEED,
	ISA_F_PREFETCHW, ISA_F_CLFLUSHOPT, ISA_F_CLWB,
	ISA_F_XSAVE, ISA_F_XSAVEOPT, ISA_F_XSAVEC, ISA_F_FSGSBASE,
	ISA_F_CLZERO, ISA_F_WBNOINVD, ISA_F_RDTSCP, ISA_F_RDPID,
	ISA_F_INVPCID, ISA_F_SMAP, ISA_F_PKU, ISA_F_MONITOR, ISA_F_VMX,
	ISA_F_SVM, ISA_F_3DNOWPREFETCH, ISA_F_RDPRU, ISA_F_SERIALIZE,
	ISA_F_COUNT
};

struct isa_features {
	u64 bits; /* BIT64(enum isa_feature); ISA_F_BASE is always set */
	bool is_amd; /* near branches honour 66 in 64-bit mode */
};

#define ISA_OPERANDS 4

struct isa_row {
	const char *name; /* mnemonic, lower case */
	u16 op; /* enum isa_op: ISA_OP_ADD, …; one per mnemonic */
	u8 class; /* enum isa_class */
	u8 feature;
	u32 attr;
	u16 flags_tested, flags_changed, flags_undefined;
	struct isa_operand operands[ISA_OPERANDS];
	/* How the row is found (the decoder's own columns). */
	u8 map, opcode;
	i8 modrm_reg; /* 0-7, or -1 for any */
	i8 modrm_rm; /* 0-7 with mod = 3, or -1 for any */
	u8 modrm_mod; /* 0 any, 1 memory only, 2 register only */
	u8 prefix; /* 0 any/none, 0x66, 0xf2, 0xf3; 1: none of them;
		      2: neither f2 nor f3 */
	i8 vex_w, vex_l; /* 0, 1, or -1 for any */
	u8 imm; /* enum isa_imm, from the operands */
};

/* enum isa_op is generated from isa_ops.def, one X(NAME) a line:
 * ISA_OP_ADD … The list is its own file so that tables can be indexed by it. */
enum isa_op {
	ISA_OP_INVALID,
#define X(name) ISA_OP_##name,
#include "x86/isa_ops.def"
#undef X
	ISA_OP_COUNT
};

extern const struct isa_row isa_rows[];
extern const size_t isa_row_count;
extern const char *const isa_op_names[ISA_OP_COUNT];
