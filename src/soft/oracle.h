/* SPDX-License-Identifier: Apache-2.0 */
/* The native oracle of the interpreter's tests: one instruction, executed by
 * the host CPU under single-step in a child process.
 *
 * The child maps the code and data pages at the addresses the guest has them
 * at, so memory operands mean the same. It is reached through a shared
 * mapping, one batch of cases at a time, all of one mode.
 *
 * 32- and 16-bit code runs on descriptors of the child's LDT: flat, or
 * 16-bit segments with code at offset 0 and data at ORACLE_DATA16.
 */
#pragma once

#include "base/types.h"
#include "x86/decode.h"

#define ORACLE_CODE	  0x1000000ull
#define ORACLE_CODE_PAGES 2u
#define ORACLE_DATA	  0x1002000ull /* two pages */
#define ORACLE_DATA_BYTES 8192u
#define ORACLE_READ_ONLY  0x1004000ull /* one page of zeros, where asked for */
#define ORACLE_BATCH	  64
#define ORACLE_CODE_BYTES 640 /* of a sequence; 16 of an instruction */

#define ORACLE_DATA16	    0x6000u /* offset of ORACLE_DATA in DS, ES, SS */
#define ORACLE_DATA16_LIMIT (ORACLE_DATA16 + ORACLE_DATA_BYTES - 1)
/* Selectors of the LDT. */
#define ORACLE_CS32 0x07
#define ORACLE_DS32 0x0f
#define ORACLE_CS16 0x17
#define ORACLE_DS16 0x1f
/* GS of 64- and 32-bit code: flat but for its base. FS is the C library's. */
#define ORACLE_GS32    0x27
#define ORACLE_GS_BASE 0x123u

#define ORACLE_NO_FAULT 0xff

struct oracle_state {
	u64 gpr[16]; /* hardware order */
	u64 rip, rflags;
	u8 xsave[832] __attribute__((aligned(64)));
	u8 data[ORACLE_DATA_BYTES];
	u8 fault; /* vector, or ORACLE_NO_FAULT */
};

struct oracle_case {
	u8 code[ORACLE_CODE_BYTES];
	u16 len;
	u8 mode;	  /* enum x86_mode */
	bool is_rep;	  /* traps after each iteration */
	bool is_sequence; /* runs to a fault, which UD2 makes at last */
	bool is_skipped;  /* the child could not run it, or not to an end */
	struct oracle_state in, out;
};

struct oracle;

struct oracle *oracle_new(bool has_read_only);
void oracle_free(struct oracle *o);
struct oracle_case *oracle_cases(struct oracle *o);
/* Does the kernel let the child have an LDT? */
bool oracle_has_ldt(const struct oracle *o);
/* Runs cases [0, n); false when the child died. */
bool oracle_run(struct oracle *o, unsigned n);
/* Has the child memory of its own at this address? Then a wild access of the
 * case met that. */
bool oracle_has_mapped(const struct oracle *o, u64 address);
