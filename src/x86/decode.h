/* SPDX-License-Identifier: Apache-2.0 */
/* Instruction decoder: bytes to struct insn, in 16-, 32- and 64-bit code.
 *
 * One table (isa.def) describes every instruction form; the decoder, the
 * interpreter, the translator and the tests all read it. The decoder is pure:
 * no allocation, no state, any thread. Bytes are hostile.
 */
#pragma once

#include "base/types.h"
#include "x86/isa.h"

enum x86_mode { X86_MODE_16, X86_MODE_32, X86_MODE_64 };

enum x86_seg {
	X86_ES,
	X86_CS,
	X86_SS,
	X86_DS,
	X86_FS,
	X86_GS,
	X86_SEG_NONE = 7,
};

enum {
	X86_RAX, X86_RCX, X86_RDX, X86_RBX, X86_RSP, X86_RBP, X86_RSI, X86_RDI,
	X86_REG_NONE = 16, /* no base / no index */
	X86_REG_RIP = 17, /* base: RIP-relative */
};

/* insn.prefixes */
#define X86_P_OPSIZE BIT32(0) /* 66 */
#define X86_P_ADSIZE BIT32(1) /* 67 */
#define X86_P_LOCK   BIT32(2)
#define X86_P_REP    BIT32(3) /* F3 (the last of F2/F3 wins) */
#define X86_P_REPNE  BIT32(4) /* F2 */
#define X86_P_SEG    BIT32(5) /* an explicit, effective segment override */
#define X86_P_REX    BIT32(6) /* an effective REX prefix */
#define X86_P_VEX    BIT32(7)

#define X86_INSN_MAX 15

struct insn {
	const struct isa_row *row;
	u64 imm; /* sign-extended to 64 bits where the row says so; moffs
		    and far-pointer offset also stand here */
	i32 disp; /* sign-extended displacement */
	u16 imm2; /* ENTER's level, far-pointer selector, EXTRQ's 2nd */
	u16 mem_size; /* bytes of the memory operand; 0: none or special */
	u8 len; /* whole instruction, 1-15 */
	u8 map; /* enum isa_map */
	u8 opcode;
	u8 modrm; /* valid when has_modrm */
	u8 prefixes;
	u8 rex; /* 0 or 0x40-0x4f; for VEX the equivalent bits W R X B */
	u8 vvvv; /* VEX: register number 0-15 (already inverted) */
	u8 vex_l; /* 0: 128, 1: 256 */
	u8 osize; /* effective operand size: 2, 4, 8 bytes */
	u8 asize; /* effective address size: 2, 4, 8 bytes */
	u8 seg; /* effective segment of the memory operand */
	u8 reg; /* modrm.reg with REX.R */
	u8 rm; /* modrm.rm with REX.B when mod = 3; else unused;
		  opcode-embedded register with REX.B */
	u8 base; /* X86_RAX…15, X86_REG_NONE, X86_REG_RIP */
	u8 index; /* 0-15 or X86_REG_NONE */
	u8 scale; /* log2: 0-3 */
	u8 imm_len; /* bytes of immediate in the encoding (all of it) */
	bool has_modrm;
	bool is_mem; /* modrm with mod != 3, or moffs */
	u8 mandatory; /* 0, 0x66, 0xf2, 0xf3: prefix consumed as opcode part */
};

enum {
	X86_DECODE_UD = 0, /* undefined: #UD */
	X86_DECODE_SHORT = -1, /* needs more bytes than `avail` */
	X86_DECODE_TOO_LONG = -2, /* over 15 bytes: #GP(0) */
};

/* Decodes the instruction at bytes[0..avail) (avail 1-15; more is ignored).
 * `features`: which ISA features exist (isa.h); a form whose feature is
 * absent is decoded as hardware without the feature does (F3 0F BC without
 * BMI1 is BSF), or #UD. Returns the length (> 0) or one of the above. #UD is
 * reported after reading only what identifies it. */
int x86_decode(struct insn *out, const u8 *bytes, size_t avail,
	       enum x86_mode mode, const struct isa_features *features);

/* "add [rbx+rcx*4+0x10], eax": for logs and tests, not for parsing. Returns
 * the length as snprintf does. */
int x86_format(const struct insn *in, u64 rip, char *out, size_t size);
