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
static const u8 typical[] = {0x52, 0x8b, 0x43, 8, 0x48, 0x01, 0x06, 0xff, 0x27};

static const char *verify(struct xlat_block *b)
{
	u32 at;

	return lower_verify(&l, b, &host, &at);
}

/* false: the emitter refuses. */
static bool emit_bytes(struct xlat_block *b, const u8 *guest, size_t n, u32 key,
		       bool has_slots)
{
	static u8 page[PAGE_BYTES];

	memcpy(page, guest, n);
	for (unsigned i = 0; i < XT_COUNT; i++)
		thunks[i] = 64 * (i + 1);
	xlat_trace_build(&t, page, NULL, 0, key, &host);
	l.e = (struct emit){.rw = code,
			    .pos = XLAT_THUNK_BYTES,
			    .end = XLAT_THUNK_BYTES + LOWER_CODE_MAX};
	l.t = &t;
	l.slots = has_slots ? &slots : NULL;
	l.thunks = thunks;
	l.cold = XLAT_THUNK_BYTES + LOWER_CODE_MAX;
	l.has_bmi2 = __builtin_cpu_supports("bmi2");
	return lower_trace(&l, b);
}

static struct xlat_block emit(u32 key, bool has_slots)
{
	struct xlat_block b = {0};

	assert_true(emit_bytes(&b, typical, sizeof(typical), key, has_slots));
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

/* One instruction at a time, so that nothing else can be the reason. */
static void is_lowered(const u8 *bytes, u32 key, unsigned *count)
{
	unsigned mode = key & XLAT_KEY_32 ? X86_MODE_32 : X86_MODE_64;
	struct xlat_block b = {0};
	struct insn in;
	u8 alone[X86_INSN_MAX + 2] = {0};
	int n = x86_decode(&in, bytes, X86_INSN_MAX, mode, &host);

	if (n <= 0 || !xlat_can_lower(&in, key))
		return;
	memcpy(alone, bytes, (size_t)n);
	memcpy(alone + n, (const u8[]){0x0f, 0x0b}, 2); /* ud2 */
	if (!emit_bytes(&b, alone, (size_t)n + 2, key, false))
		fail_msg("%s, opcode %02x modrm %02x, key %x: refused",
			 isa_op_names[in.row->op], in.opcode, in.modrm, key);
	(*count)++;
}

static void what_can_be_lowered_is_lowered(void **state)
{
	static const u8 prefixes[][3] = {{0},	       {0x66}, {0xf2},
					 {0xf3},       {0x48}, {0x66, 0x48},
					 {0xf3, 0x48}, {0xf0}};
	static const u8 modrms[] = {0x00, 0x4c, 0x95, 0xc8,
				    0xd1, 0xda, 0xe3, 0xfc};
	static const u32 keys[] = {0, XLAT_KEY_USER, XLAT_KEY_32,
				   XLAT_KEY_32 | XLAT_KEY_USER};
	unsigned count = 0;

	for (unsigned i = 0; i < 3 * 256 * ARRAY_SIZE(modrms); i++) {
		unsigned map = i / (256 * ARRAY_SIZE(modrms));

		for (unsigned p = 0; p < ARRAY_SIZE(prefixes); p++) {
			u8 bytes[2 * X86_INSN_MAX] = {0};
			size_t n = strlen((const char *)prefixes[p]);

			memcpy(bytes, prefixes[p], n);
			if (map)
				bytes[n++] = 0x0f;
			if (map == 2)
				bytes[n++] = 0x38;
			bytes[n++] = (u8)(i / ARRAY_SIZE(modrms));
			bytes[n] = modrms[i % ARRAY_SIZE(modrms)];
			bytes[n + 1] = 0x24; /* a SIB, or a displacement */
			for (unsigned k = 0; k < ARRAY_SIZE(keys); k++)
				is_lowered(bytes, keys[k], &count);
		}
	}
	assert_true(count > 10000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(emitted_code_passes),
		cmocka_unit_test(other_code_is_refused),
		cmocka_unit_test(what_can_be_lowered_is_lowered),
	};

	host = x86_cpuid_host_isa();
	return test_run("lower_verify", tests);
}
