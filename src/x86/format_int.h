/* SPDX-License-Identifier: Apache-2.0 */
/* The formatter's register names, shared with the decoder's tests. */
#pragma once

#include "x86/decode.h"

/* The name of a register operand of `in`: "r8d", "ah", "ymm3". Must not be
 * called for a memory operand. Returns the length as snprintf does. */
int x86_format_reg(const struct insn *in, const struct isa_operand *d,
		   char *out, size_t size);

/* The mnemonic as an assembler spells it: "jne", "cdqe", "movsq". */
int x86_format_mnemonic(const struct insn *in, char *out, size_t size);
