/* SPDX-License-Identifier: Apache-2.0 */
/* Decoder and formatter on hostile bytes. Input: mode, vendor, 8 bytes of
 * feature bits, then code. Checked: the length fits, the answer does not
 * depend on bytes behind the instruction nor on how the bytes arrive, register
 * numbers are in range, and the text is terminated inside its buffer. */
#include <stdlib.h>

#include "x86/decode.h"

#define HEADER 10
#define CHECK(x)                                                               \
	do {                                                                   \
		if (!(x))                                                      \
			abort();                                               \
	} while (0)

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t len);

static void check_fields(const struct insn *in, enum x86_mode mode)
{
	unsigned regs = mode == X86_MODE_64 ? 16 : 8;

	CHECK(in->reg < regs && in->rm < regs && in->vvvv < regs);
	CHECK(in->base < regs || in->base == X86_REG_NONE ||
	      (in->base == X86_REG_RIP && mode == X86_MODE_64));
	CHECK(in->index < regs || in->index == X86_REG_NONE);
	CHECK(in->scale <= 3 && in->seg <= X86_GS);
	CHECK(in->osize == 2 || in->osize == 4 || in->osize == 8);
	CHECK(in->asize == 2 || in->asize == 4 || in->asize == 8);
	CHECK(mode == X86_MODE_64 || (in->osize < 8 && in->asize < 8));
	CHECK(in->imm_len < in->len);
	CHECK(in->row >= isa_rows && in->row < isa_rows + isa_row_count);
}

static void check_text(const struct insn *in)
{
	char text[128];

	for (size_t size = 0; size <= sizeof(text); size += 16) {
		memset(text, 1, sizeof(text));
		CHECK(x86_format(in, 0xfffffffffffffff0ull, text, size) > 0);
		CHECK(!size || memchr(text, 0, size));
		CHECK(size == sizeof(text) || text[size] == 1);
	}
}

/* Fewer bytes: "short" up to the length, unless #UD was certain earlier. */
static void check_prefixes(const u8 *code, int rc, size_t avail,
			   enum x86_mode mode, const struct isa_features *f)
{
	struct insn in;

	for (size_t n = 0; n < avail; n++) {
		int part = x86_decode(&in, code, n, mode, f);

		if (rc > 0)
			CHECK(part == ((int)n < rc ? X86_DECODE_SHORT : rc));
		else
			CHECK(part == X86_DECODE_SHORT || part == rc);
	}
}

static void check_tail(const u8 *code, int rc, enum x86_mode mode,
		       const struct isa_features *f)
{
	u8 copy[X86_INSN_MAX];
	struct insn in;

	memset(copy, 0xff, sizeof(copy));
	memcpy(copy, code, rc);
	CHECK(x86_decode(&in, copy, sizeof(copy), mode, f) == rc);
}

static int run_one(const u8 *code, size_t avail, enum x86_mode mode,
		   const struct isa_features *f)
{
	struct insn in;
	int rc = x86_decode(&in, code, avail, mode, f);

	CHECK(rc <= (int)MIN(avail, X86_INSN_MAX));
	CHECK(rc >= X86_DECODE_TOO_LONG);
	check_prefixes(code, rc, MIN(avail, X86_INSN_MAX), mode, f);
	if (rc <= 0)
		return 1;
	CHECK(in.len == rc);
	check_fields(&in, mode);
	check_text(&in);
	check_tail(code, rc, mode, f);
	return rc;
}

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t len)
{
	struct isa_features f = {0};
	enum x86_mode mode;

	if (len < HEADER)
		return 0;
	mode = bytes[0] % 3;
	f.is_amd = bytes[1] & 1;
	f.bits = ld_le64(bytes + 2) | BIT64(ISA_F_BASE);
	len = MIN(len, HEADER + 256);
	for (size_t i = HEADER; i < len;)
		i += run_one(bytes + i, len - i, mode, &f);
	return 0;
}
