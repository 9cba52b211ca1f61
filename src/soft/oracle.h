/* SPDX-License-Identifier: Apache-2.0 */
/* The native oracle of the interpreter's tests: one instruction, executed by
 * the host CPU under single-step in a child process.
 *
 * The child maps the code and data pages at the addresses the guest has them
 * at, so memory operands mean the same. It is reached through a shared
 * mapping, one batch of cases at a time.
 */
#pragma once

#include "base/types.h"

#define ORACLE_CODE  0x1000000ull /* one page */
#define ORACLE_DATA  0x1002000ull /* two pages */
#define ORACLE_DATA_BYTES 8192u
#define ORACLE_BATCH 64

#define ORACLE_NO_FAULT 0xff

struct oracle_state {
	u64 gpr[16]; /* hardware order */
	u64 rip, rflags;
	u8 xsave[832] __attribute__((aligned(64)));
	u8 data[ORACLE_DATA_BYTES];
	u8 fault; /* vector, or ORACLE_NO_FAULT */
};

struct oracle_case {
	u8 code[16];
	u8 len;
	bool is_rep; /* traps after each iteration */
	bool is_skipped; /* the child could not run it */
	struct oracle_state in, out;
};

struct oracle;

struct oracle *oracle_new(void);
void oracle_free(struct oracle *o);
struct oracle_case *oracle_cases(struct oracle *o);
/* Runs cases [0, n); false when the child died. */
bool oracle_run(struct oracle *o, unsigned n);
