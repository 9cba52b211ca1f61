/* SPDX-License-Identifier: Apache-2.0 */
/* The emitter's self-check refuses what generated code may not hold. */
#include "test/test.h"

#include "soft/lower.h"
#include "x86/cpuid.h"

static u8 code[XLAT_THUNK_BYTES + 2 * LOWER_CODE_MAX];
static u32 thunks[XT_COUNT];
static struct xlat_trace t;
static struct lower l;
static struct isa_features host;
static struct slots slots;

/* push rdx; mov eax, [rbx + 8]; add [rsi], rax; jmp [rdi] */
static const u8 guest[] = {0x52, 0x8b, 0x43, 8, 0x48, 0x01, 0x06, 0xff, 0x27};

static const char *verify(struct xlat_block *b)
{
	u32 at;

	return lower_verify(&l, b, &host, &at);
}

static struct xlat_block emit(u32 key, bool has_slots)
{
	static u8 page[PAGE_BYTES];
	struct xlat_block b = {0};

	host = x86_cpuid_host_isa();
	memcpy(page, guest, sizeof(guest));
	for (unsigned i = 0; i < XT_COUNT; i++)
		thunks[i] = 64 * (i + 1);
	xlat_trace_build(&t, page, NULL, 0, key, &host);
	memset(&l, 0, sizeof(l));
	l.e = (struct emit){.rw = code,
			    .pos = XLAT_THUNK_BYTES,
			    .end = XLAT_THUNK_BYTES + LOWER_CODE_MAX};
	l.t = &t;
	l.slots = has_slots ? &slots : NULL;
	l.thunks = thunks;
	l.cold = XLAT_THUNK_BYTES + LOWER_CODE_MAX;
	l.has_bmi2 = __builtin_cpu_supports("bmi2");
	assert_true(lower_trace(&l, &b));
	return b;
}

static void emitted_code_passes(void **state)
{
	for (u32 key = 0; key < 2; key++) {
		struct xlat_block b = emit(key, false);

		assert_null(verify(&b));
		b = emit(key, true);
		assert_null(verify(&b));
	}
	assert_true(slots.next[0] && slots.next[1]);
}

/* Puts n bytes in front of all, with room for them. */
static void refused(const u8 *bytes, unsigned n, const char *what)
{
	struct xlat_block b = emit(0, false);
	const char *got;

	memset(code + b.code, 0x90, 16);
	memcpy(code + b.code, bytes, n);
	b.code_end = b.code + 16;
	got = verify(&b);
	assert_non_null(got);
	assert_string_equal(got, what);
}
#define REFUSED(what, ...)                                                     \
	refused((const u8[]){__VA_ARGS__}, sizeof((const u8[]){__VA_ARGS__}),  \
		what)

static void other_code_is_refused(void **state)
{
	const char *not_host =
		"an instruction that is not the host's to execute";

	REFUSED(not_host, 0xcd, 0x80); /* int 0x80 */
	REFUSED(not_host, 0x0f, 0x05); /* syscall */
	REFUSED(not_host, 0xc3);       /* ret */
	REFUSED(not_host, 0x54);       /* push rsp */
	REFUSED("a jump to a register", 0xff, 0xe0);
	REFUSED("a jump to elsewhere", 0xe9, 0, 0, 0x10, 0);
	REFUSED("a jump to elsewhere", 0x75, 0x70);
	REFUSED("RSP is written", 0x48, 0x89, 0xc4);
	REFUSED("an operand at an address of the guest's", 0x48, 0x8b, 0x47,
		0xf8);
	REFUSED("an operand at an address of the guest's", 0x48, 0x8b, 0x87, 0,
		2, 0, 0); /* beyond the span of a group */
	REFUSED("an operand without a lookup", 0x48, 0x8b, 0x47, 8);
	REFUSED("an operand at an address of the guest's", 0x48, 0x8b, 0x05, 0,
		0, 0, 0);
	REFUSED("an operand without a lookup", 0x48, 0x8b, 0x07);
	REFUSED("an operand outside of the vCPU", 0x48, 0x8b, 0x44, 0x24, 0xf8);
	REFUSED("an operand outside of the vCPU", 0x48, 0x8b, 0x84, 0x24, 0, 0,
		0, 0x10);
	REFUSED("an indexed operand that is no table's", 0x48, 0x8b, 0x04,
		0x0c);
	REFUSED("an operand of GS that is no table's", 0x65, 0x48, 0x8b, 0x00);
	REFUSED("an operand of GS that is no slot's", 0x65, 0x48, 0x8b, 0x04,
		0x25, 0, 0, 0, 0);
	REFUSED("an operand of GS that is no slot's", 0x65, 0x48, 0x8b, 0x04,
		0x25, 0, 0, 0, 0x10);
	REFUSED("an address of another kind", 0x64, 0x48, 0x8b, 0x01);
	REFUSED("bytes that are no instruction", 0x06);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(emitted_code_passes),
		cmocka_unit_test(other_code_is_refused),
	};

	return test_run("lower_verify", tests);
}
