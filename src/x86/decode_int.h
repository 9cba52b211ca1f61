/* SPDX-License-Identifier: Apache-2.0 */
/* What gen_tables tells the decoder about each row beside its columns. */
#pragma once

#include "x86/isa.h"

enum {
	DECODE_VVVV = 1,  /* has a VEX.vvvv operand */
	DECODE_RULES = 2, /* row_rules_hold() has a rule for it */
};
