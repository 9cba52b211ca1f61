/* SPDX-License-Identifier: Apache-2.0 */
/* Random bytes as a page of guest code: the trace, its translation, and the
 * check of every byte that was emitted. Nothing is executed.
 *
 * The input is the mode key (bit 7: with slots), where to begin, and the page's
 * first bytes.
 */
#include <stdio.h>
#include <stdlib.h>

#include "soft/lower.h"
#include "x86/cpuid.h"

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t len);

static void fail(const struct lower *l, u32 at, const char *what)
{
	fprintf(stderr, "%s:", what);
	for (u32 i = at; i < at + 15; i++)
		fprintf(stderr, " %02x", l->e.rw[i]);
	fprintf(stderr, "\n");
	abort();
}

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t len)
{
	static u8 code[XLAT_THUNK_BYTES + 2 * LOWER_CODE_MAX];
	static u8 page[PAGE_BYTES + 16];
	static u32 thunks[XT_COUNT];
	static struct xlat_trace t;
	static struct lower l;
	static struct slots slots = {.is_forced = true};
	struct isa_features host = x86_cpuid_host_isa();
	struct xlat_block b = {0};
	const char *what;
	u32 key, at;
	u16 off;

	if (len < 4)
		return 0;
	key = bytes[0] & 0x7f;
	off = ld_le16(bytes + 1) & (PAGE_BYTES - 1);
	memset(page, 0x90, sizeof(page));
	for (size_t i = 3; i < len && i < 3 + PAGE_BYTES; i++)
		page[(off + i - 3) % sizeof(page)] = bytes[i];
	for (unsigned i = 0; i < XT_COUNT; i++)
		thunks[i] = 64 * (i + 1);
	xlat_trace_build(&t, page, page + PAGE_BYTES, off, key, &host);
	if (t.n && t.page2 == 0)
		t.page2 = PAGE_BYTES;
	l.e = (struct emit){.rw = code,
			    .pos = XLAT_THUNK_BYTES,
			    .end = XLAT_THUNK_BYTES + LOWER_CODE_MAX};
	l.t = &t;
	l.i = NULL;
	l.thunks = thunks;
	l.cold = XLAT_THUNK_BYTES + LOWER_CODE_MAX;
	l.has_bmi2 = __builtin_cpu_supports("bmi2");
	l.block = 1;
	l.slots = bytes[0] & 0x80 ? &slots : NULL;
	if (!lower_trace(&l, &b))
		return 0;
	what = lower_verify(&l, &b, &host, &at);
	if (what)
		fail(&l, at, what);
	return 0;
}
