/* SPDX-License-Identifier: Apache-2.0 */
/* The emitter's self-check refuses what generated code may not hold. */
#include "test/test.h"

#include "soft/lower.h"
#include "soft/seq_gen.h"
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
	l.block = 1;
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

/* n bytes instead of a block; what: NULL, they pass. */
static void refused(const u8 *bytes, unsigned n, const char *what)
{
	struct xlat_block b = emit(0, false);
	const char *got;

	memset(code + b.code, 0x90, 64);
	memcpy(code + b.code, bytes, n);
	b.code_bytes = 64;
	b.cold_bytes = 0; /* which leads back to what was here */
	got = verify(&b);
	if (!got != !what || (got && strcmp(got, what)))
		fail_msg("%s, not: %s", got ? got : "passes",
			 what ? what : "passes");
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

/* ---- lookups ---- */

#define TLB_FIELD(field)                                                       \
	((u32)(ENV_OFF(super) + offsetof(struct soft_space, tlb) +             \
	       offsetof(struct soft_tlb_entry, field)))

struct lookup {
	u32 mask, tag, room, page;
	u8 ja;	/* opcode */
	u8 add; /* opcode of the ADD */
};

static const struct lookup good = {(SOFT_TLB_ENTRIES - 1) << 5,
				   TLB_FIELD(tag_r),
				   4,
				   TLB_FIELD(hva_page),
				   0x87,
				   0x03};

/* and ecx, mask; sub rax, [rsp + rcx + tag]; cmp rax, 4096 - room; ja back to
 * the start; add rax, [rsp + rcx + page]; then what is to be done with it. */
static void looked_up(const struct lookup *k, const u8 *use, unsigned n,
		      const char *what)
{
	u8 b[64] = {0x81, 0xe1};

	st_le32(b + 2, k->mask);
	memcpy(b + 6, "\x48\x2b\x84\x0c", 4);
	st_le32(b + 10, k->tag);
	memcpy(b + 14, "\x48\x81\xf8", 3);
	st_le32(b + 17, PAGE_BYTES - k->room);
	b[21] = 0x0f;
	b[22] = k->ja;
	st_le32(b + 23, (u32)-27);
	memcpy(b + 27, (const u8[]){0x48, k->add, 0x84, 0x0c}, 4);
	st_le32(b + 31, k->page);
	memcpy(b + 35, use, n);
	refused(b, 35 + n, what);
}
#define LOOKED_UP(k, what, ...)                                                \
	looked_up(k, (const u8[]){__VA_ARGS__},                                \
		  sizeof((const u8[]){__VA_ARGS__}), what)

static void accesses_stay_inside_what_was_looked_up(void **state)
{
	struct lookup k = good;

	LOOKED_UP(&good, NULL, 0x8b, 0x08); /* mov ecx, [rax] */
	LOOKED_UP(&good, NULL, 0x48, 0x89, 0xc2, 0x8b, 0x0a); /* by rdx */
	LOOKED_UP(&good, "an operand beyond what was looked up", 0x48, 0x8b,
		  0x08);
	LOOKED_UP(&good, "an operand beyond what was looked up", 0x8b, 0x48, 1);
	LOOKED_UP(&good, "a store to what was looked up for loads", 0x89, 0x08);
	/* overwritten; a leaf has been called; two ways meet */
	LOOKED_UP(&good, "an operand without a lookup", 0x48, 0x89, 0xd0, 0x8b,
		  0x08);
	LOOKED_UP(&good, "an operand without a lookup", 0xeb, 0, 0x8b, 0x08);
	k.tag = TLB_FIELD(tag_w);
	LOOKED_UP(&k, NULL, 0x89, 0x08);
	/* through a group's field, and what else was put there */
	LOOKED_UP(&k, NULL, 0x48, 0x89, 0x44, 0x24, ENV_OFF(group), 0x48, 0x8b,
		  0x54, 0x24, ENV_OFF(group), 0x89, 0x0a);
	LOOKED_UP(&k, "an operand without a lookup", 0x48, 0x89, 0x4c, 0x24,
		  ENV_OFF(group), 0x48, 0x8b, 0x54, 0x24, ENV_OFF(group), 0x89,
		  0x0a);
}

static void lookups_are_whole(void **state)
{
	const char *no_bound = "an index without a bound";
	const char *not_compared = "a page that was not compared";
	struct lookup k = good;

	k.mask = SOFT_TLB_ENTRIES << 5;
	LOOKED_UP(&k, no_bound, 0x90);
	k = good;
	k.mask = ((SOFT_TLB_ENTRIES - 1) << 5) | 1;
	LOOKED_UP(&k, no_bound, 0x90);
	k = good;
	k.tag = TLB_FIELD(meta);
	LOOKED_UP(&k, not_compared, 0x90);
	k = good;
	k.room = 0;
	LOOKED_UP(&k, not_compared, 0x90);
	k.room = GROUP_SPAN + 1;
	LOOKED_UP(&k, not_compared, 0x90);
	k = good;
	k.ja = 0x82; /* jb */
	LOOKED_UP(&k, not_compared, 0x90);
	k = good;
	k.add = 0x01; /* add [table], rax */
	LOOKED_UP(&k, "a store into a table", 0x90);
	k.add = 0x2b;
	LOOKED_UP(&k, "a page that is not added", 0x90);
	/* jmp behind the JA; jmp into the CMP */
	LOOKED_UP(&good, "a jump into a lookup", 0xeb, 27 - 37);
	LOOKED_UP(&good, "a jump into an instruction", 0xeb, 16 - 37);
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

/* ---- room ---- */

/* Whatever room there is: not a byte behind it, and false when it is short. */
static void i3_the_emitter_stays_in_its_reservation(void **state)
{
	struct xlat_block whole = emit(0, false);
	u32 need = whole.code_bytes;

	for (u32 room = 0; room < need + 32; room++) {
		struct xlat_block b = {0};
		u32 cold = XLAT_THUNK_BYTES + LOWER_CODE_MAX;

		memset(code, 0xa5, sizeof(code));
		l.e = (struct emit){.rw = code,
				    .pos = XLAT_THUNK_BYTES,
				    .end = XLAT_THUNK_BYTES + room};
		l.slots = NULL;
		assert_int_equal(lower_trace(&l, &b), room >= need);
		for (u32 i = 0; i < XLAT_THUNK_BYTES; i++)
			assert_int_equal(code[i], 0xa5);
		for (u32 i = XLAT_THUNK_BYTES + room; i < cold; i++)
			assert_int_equal(code[i], 0xa5);
		for (u32 i = MAX(xlat_cold_end(&b), cold); i < sizeof(code);
		     i++)
			assert_int_equal(code[i], 0xa5);
	}
}

/* ---- what is emitted for random sequences ---- */

#define SEQUENCES 20000

static void verify_from(const u8 *page, u16 off, u32 key, bool has_slots)
{
	struct xlat_block b = {0};
	const char *what;
	u32 at;

	xlat_trace_build(&t, page, NULL, off, key, &host);
	t.page = 0;
	l.e = (struct emit){.rw = code,
			    .pos = XLAT_THUNK_BYTES,
			    .end = XLAT_THUNK_BYTES + LOWER_CODE_MAX};
	l.t = &t;
	l.i = NULL;
	l.slots = has_slots ? &slots : NULL;
	if (!lower_trace(&l, &b))
		return;
	what = lower_verify(&l, &b, &host, &at);
	if (what)
		fail_msg("key %#x: %s at %#x: %02x %02x %02x %02x", key, what,
			 at, code[at], code[at + 1], code[at + 2],
			 code[at + 3]);
}

static void code_of_random_sequences_passes(void **state)
{
	static const u32 keys[] = {0, XLAT_KEY_USER,
				   XLAT_KEY_USER | XLAT_KEY_NOGROUP};
	static u8 page[PAGE_BYTES];
	struct seq s;

	(void)emit(0, false);
	slots.is_forced = true;
	for (unsigned i = 0; i < SEQUENCES; i++) {
		u32 mode = i % 4 ? X86_MODE_64 : X86_MODE_32;
		u32 key = mode == X86_MODE_32 ? XLAT_KEY_32 : 0;
		u16 off;

		seq_generate(&s, mode, &host);
		off = s.rip & (PAGE_BYTES - 1);
		memset(page, 0x90, sizeof(page));
		for (unsigned k = 0; k < s.total; k++)
			for (unsigned n = 0; n < s.items[k].len; n++)
				page[(off + s.items[k].off + n) % PAGE_BYTES] =
					s.items[k].bytes[n];
		for (unsigned k = 0; k < ARRAY_SIZE(keys); k++)
			verify_from(page, off, key | keys[k], i & 1);
	}
	slots.is_forced = false;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(emitted_code_passes),
		cmocka_unit_test(other_code_is_refused),
		cmocka_unit_test(accesses_stay_inside_what_was_looked_up),
		cmocka_unit_test(lookups_are_whole),
		cmocka_unit_test(i3_the_emitter_stays_in_its_reservation),
		cmocka_unit_test(code_of_random_sequences_passes),
		cmocka_unit_test(what_can_be_lowered_is_lowered),
	};

	host = x86_cpuid_host_isa();
	return test_run("lower_verify", tests);
}
