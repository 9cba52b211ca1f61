/* SPDX-License-Identifier: Apache-2.0 */
/* Build-time program: prints the decoder's index of isa_rows.
 *
 * For each map and opcode: where its candidate rows start in a list of row
 * numbers, how many there are, and whether the opcode has a ModRM byte; and
 * each row's traits (decode_int.h). */
#include <stdio.h>

#include "x86/decode_int.h"

#define MAPS 8

static bool operand_needs_modrm(const struct isa_operand *o)
{
	switch (o->kind) {
	case ISA_O_NONE:
	case ISA_O_GPR_VVVV:
	case ISA_O_GPR_OPC:
	case ISA_O_GPR_FIXED:
	case ISA_O_XMM_VVVV:
	case ISA_O_XMM_IS4:
	case ISA_O_XMM_FIXED:
	case ISA_O_ST0:
	case ISA_O_SEG_FIXED:
	case ISA_O_IMM:
	case ISA_O_IMM2:
	case ISA_O_REL:
	case ISA_O_MOFFS:
	case ISA_O_FARPTR:
	case ISA_O_STR_SRC:
	case ISA_O_STR_DST:
	case ISA_O_ONE:
		return false;
	}
	return true;
}

static bool row_needs_modrm(const struct isa_row *r)
{
	if (r->map == ISA_MAP_X87 || r->modrm_reg >= 0 || r->modrm_mod != 0)
		return true;
	for (int i = 0; i < ISA_OPERANDS; i++)
		if (operand_needs_modrm(&r->operands[i]))
			return true;
	return false;
}

/* What the decoder has to look at once a row is found; in a byte a row. */
static unsigned row_traits(const struct isa_row *r)
{
	unsigned t = 0;

	for (int i = 0; i < ISA_OPERANDS; i++) {
		switch (r->operands[i].kind) {
		case ISA_O_XMM_VVVV:
		case ISA_O_GPR_VVVV:
			t |= DECODE_VVVV;
			break;
		case ISA_O_SEG_REG:
		case ISA_O_CR:
		case ISA_O_DR:
		case ISA_O_VSIB:
			t |= DECODE_RULES;
			break;
		}
	}
	if (r->op == ISA_OP_CMPXCHG8B || r->op == ISA_OP_LAHF ||
	    r->op == ISA_OP_SAHF || r->op == ISA_OP_VPINSRD ||
	    r->op == ISA_OP_VPEXTRD ||
	    (r->map == ISA_MAP_0F && r->opcode == 0x0d))
		t |= DECODE_RULES;
	return t;
}

int main(void)
{
	unsigned start = 0;

	printf("static const u8 row_traits[] = {\n");
	for (size_t i = 0; i < isa_row_count; i++)
		printf("%u,", row_traits(&isa_rows[i]));
	printf("};\n");
	printf("static const u16 row_list[] = {\n");
	for (int map = 0; map < MAPS; map++)
		for (int op = 0; op < 256; op++)
			for (size_t i = 0; i < isa_row_count; i++)
				if (isa_rows[i].map == map &&
				    isa_rows[i].opcode == op)
					printf("%zu,", i);
	printf("};\nstatic const struct row_slot row_slots[%d][256] = {\n",
	       MAPS);
	for (int map = 0; map < MAPS; map++) {
		printf("{");
		for (int op = 0; op < 256; op++) {
			unsigned n = 0;
			bool modrm = false;

			for (size_t i = 0; i < isa_row_count; i++) {
				if (isa_rows[i].map != map ||
				    isa_rows[i].opcode != op)
					continue;
				n++;
				modrm |= row_needs_modrm(&isa_rows[i]);
			}
			printf("{%u,%u,%d},", start, n, modrm);
			start += n;
		}
		printf("},\n");
	}
	printf("};\n");
	return 0;
}
