/* SPDX-License-Identifier: Apache-2.0 */
#include "x86/isa.h"

#define OPERAND(x)                                                             \
	{                                                                      \
		(x)&0xff, ((x) >> 8) & 0xff, ((x) >> 16) & 0xff,               \
			((x) >> 24) & 0xff                                     \
	}

#define ISA_FULL(MAP, OPC, PFX, REG, RM, MOD, W, L, NAME, CLASS, FEAT, ATTR,   \
		 TST, CHG, UND, A, B, C, D)                                    \
	{                                                                      \
		.name = #NAME, .op = ISA_OP_##NAME, .class = ISA_##CLASS,      \
		.feature = ISA_F_##FEAT, .attr = (ATTR),                       \
		.flags_tested = (TST), .flags_changed = (CHG),                 \
		.flags_undefined = (UND),                                      \
		.operands = {OPERAND(A), OPERAND(B), OPERAND(C), OPERAND(D)},  \
		.map = ISA_MAP_##MAP, .opcode = (OPC), .modrm_reg = (REG),     \
		.modrm_rm = (RM), .modrm_mod = (MOD), .prefix = (PFX),         \
		.vex_w = (W), .vex_l = (L),                                    \
	},

const struct isa_row isa_rows[] = {
#include "x86/isa.def"
};

const size_t isa_row_count = ARRAY_SIZE(isa_rows);

const char *const isa_op_names[ISA_OP_COUNT] = {
#define X(name) [ISA_OP_##name] = #name,
#include "x86/isa_ops.def"
#undef X
};
