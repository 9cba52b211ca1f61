/* SPDX-License-Identifier: Apache-2.0 */
/* One ISA_PASS instruction as host code over chosen registers. */
#pragma once

#include "soft/soft_int.h"

#define NATIVE_NONE 0xff

struct native {
	const struct insn *in;
	enum x86_mode mode; /* of the guest's code */
	/* What it names: guest GPRs by bit; byte registers count whole. */
	u16 used, written;
	u16 fixed; /* of these, implicit ones: the host register is the same */
	u16 xmm_used, xmm_written;
	bool has_high_byte; /* AH, CH, DH, BH: no REX is allowed, so all host
			       registers in fields are below 8 */
	bool is_vex;
	/* Set by the caller before native_encode(). host: for each used guest
	 * GPR; a register accessed as a high byte keeps numbers 0-3. ptr: host
	 * register with the address of the memory operand. */
	u8 host[16];
	u8 ptr;
	i32 ptr_disp; /* added to ptr by the encoding */
	/* Result. */
	u8 op[28];
	u8 op_len;
};

/* Fills what it names; host[] is the identity. */
void native_init(struct native *n, const struct insn *in, enum x86_mode mode);
/* false: cannot be encoded so; nothing may be emitted. */
bool native_encode(struct native *n);
