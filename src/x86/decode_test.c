/* SPDX-License-Identifier: Apache-2.0 */
#include "test/test.h"
#include "x86/decode.h"

static const struct isa_features all = {.bits = ~0ull, .is_amd = true};

struct expect {
	const char *what;
	enum x86_mode mode;
	u8 bytes[16];
	int len; /* or X86_DECODE_* */
	u16 op;
	u8 osize;
	u16 mem_size;
};

#define M16 X86_MODE_16
#define M32 X86_MODE_32
#define M64 X86_MODE_64

// clang-format off
static const struct expect table[] = {
	{"nop", M64, {0x90}, 1, ISA_OP_NOP, 4, 0},
	{"xchg r8d,eax", M64, {0x41, 0x90}, 2, ISA_OP_XCHG, 4, 0},
	{"pause", M64, {0xf3, 0x90}, 2, ISA_OP_PAUSE, 4, 0},
	{"mov rax,[rip+x]", M64, {0x48, 0x8b, 5, 1, 2, 3, 4}, 7, ISA_OP_MOV, 8, 8},
	{"rex before 66 is ignored", M64, {0x48, 0x66, 0x89, 0xc0}, 4, ISA_OP_MOV, 2, 0},
	{"movabs", M64, {0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8}, 10, ISA_OP_MOV, 8, 0},
	{"moffs with 67", M64, {0x67, 0xa1, 1, 2, 3, 4}, 6, ISA_OP_MOV, 4, 4},
	{"bsf without BMI's prefix", M64, {0x0f, 0xbc, 0xc0}, 3, ISA_OP_BSF, 4, 0},
	{"tzcnt", M64, {0xf3, 0x0f, 0xbc, 0xc0}, 4, ISA_OP_TZCNT, 4, 0},
	{"push defaults to 64", M64, {0x50}, 1, ISA_OP_PUSH_REG, 8, 0},
	{"push with 66", M64, {0x66, 0x50}, 2, ISA_OP_PUSH_REG, 2, 0},
	{"lock add", M64, {0xf0, 1, 0}, 3, ISA_OP_ADD, 4, 4},
	{"lock on a register", M64, {0xf0, 1, 0xc0}, X86_DECODE_UD},
	{"lock mov", M64, {0xf0, 0x89, 0}, X86_DECODE_UD},
	{"les outside 64-bit", M32, {0xc4, 0}, 2, ISA_OP_LOAD_FAR_PTR, 4, 6},
	{"vex outside 64-bit", M32, {0xc5, 0xf8, 0x77}, 3, ISA_OP_VZEROUPPER, 4, 0},
	{"vex after 66", M64, {0x66, 0xc5, 0xf8, 0x77}, X86_DECODE_UD},
	{"vex with unused vvvv set", M64, {0xc5, 0xb0, 0x28, 0xc0}, X86_DECODE_UD},
	{"16-bit addressing", M16, {0x8b, 0x46, 5}, 3, ISA_OP_MOV, 2, 2},
	{"16-bit disp16", M16, {0x8b, 0x06, 5, 6}, 4, ISA_OP_MOV, 2, 2},
	{"32-bit operand in 16-bit code", M16, {0x66, 0xb8, 1, 2, 3, 4}, 6, ISA_OP_MOV, 4, 0},
	{"far jump", M16, {0xea, 1, 2, 3, 4}, 5, ISA_OP_JMP_FAR_PTR, 2, 0},
	{"far jump in 64-bit", M64, {0xea, 1, 2, 3, 4}, X86_DECODE_UD},
	{"short", M64, {0x48}, X86_DECODE_SHORT},
	{"fifteen prefixes", M64,
	 {0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66,
	  0x66, 0x66, 0x66, 0x66},
	 X86_DECODE_TOO_LONG},
	{"cmpxchg16b", M64, {0x48, 0x0f, 0xc7, 0x08}, 4, ISA_OP_CMPXCHG8B, 8, 16},
	{"fild qword", M64, {0xdf, 0x28}, 2, ISA_OP_FILD, 4, 8},
	{"movdqa", M64, {0x66, 0x0f, 0x6f, 0}, 4, ISA_OP_MOVDQA, 4, 16},
	{"movbe 16", M64, {0x66, 0x0f, 0x38, 0xf0, 0}, 5, ISA_OP_MOVBE, 2, 2},
	{"movbe 32 in 16-bit code", M16, {0x66, 0x0f, 0x38, 0xf0, 4}, 5, ISA_OP_MOVBE, 4, 4},
	{"vpinsrq in 32-bit code", M32, {0xc4, 0xe3, 0xf9, 0x22, 0xc3, 1}, X86_DECODE_UD},
	{"crc32 16", M64, {0x66, 0xf2, 0x0f, 0x38, 0xf1, 0xc0}, 6, ISA_OP_CRC32, 2, 0},
	{"mov cr ignores mod", M64, {0x0f, 0x20, 0x18}, 3, ISA_OP_MOV_FROM_CR, 8, 0},
	{"swapgs", M64, {0x0f, 0x01, 0xf8}, 3, ISA_OP_SWAPGS, 4, 0},
	{"swapgs in 32-bit", M32, {0x0f, 0x01, 0xf8}, X86_DECODE_UD},
	{"endbr64", M64, {0xf3, 0x0f, 0x1e, 0xfa}, 4, ISA_OP_NOP, 4, 0},
	{"inc eax", M32, {0x40}, 1, ISA_OP_INC, 4, 0},
	{"vpgatherdd needs different registers", M64,
	 {0xc4, 0xe2, 0x71, 0x90, 0x04, 0x00}, X86_DECODE_UD},
	{"cr5 does not exist", M32, {0x0f, 0x20, 0xe8}, X86_DECODE_UD},
	{"cr8", M64, {0x44, 0x0f, 0x20, 0xc0}, 4, ISA_OP_MOV_FROM_CR, 8, 0},
	{"cr10 does not exist", M64, {0x44, 0x0f, 0x20, 0xd0}, X86_DECODE_UD},
	{"dr8 does not exist", M64, {0x44, 0x0f, 0x21, 0xc0}, X86_DECODE_UD},
	{"unused vvvv has four bits in 32-bit code", M32,
	 {0xc4, 0xe1, 0x38, 0x2e, 0xf1}, X86_DECODE_UD},
	{"used vvvv has three bits in 32-bit code", M32,
	 {0xc4, 0xe1, 0x38, 0x58, 0xc1}, 5, ISA_OP_VADDPS, 4, 0},
	{"sib without base ignores REX.B", M64,
	 {0x41, 0x8b, 0x04, 0x25, 1, 2, 3, 4}, 8, ISA_OP_MOV, 4, 4},
	{"0f 0d with a register is undefined on AMD", M64, {0x0f, 0x0d, 0xc0},
	 X86_DECODE_UD},
	{"f3 41 90 is an exchange", M64, {0xf3, 0x41, 0x90}, 3, ISA_OP_XCHG, 4,
	 0},
	{"invpcid takes a 32-bit register in 16-bit code", M16,
	 {0x66, 0x0f, 0x38, 0x82, 0x07}, 5, ISA_OP_INVPCID, 2, 16},
};

static void encodings_decode_as_the_manuals_say(void **state)
{
	struct insn in;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		const struct expect *e = &table[i];
		size_t avail = e->len > 0 ? (size_t)e->len : 15;
		int n;

		if (e->len == X86_DECODE_SHORT)
			avail = 1;
		n = x86_decode(&in, e->bytes, avail, e->mode, &all);
		if (n != e->len)
			print_error("%s: %d, not %d\n", e->what, n, e->len);
		assert_int_equal(n, e->len);
		if (n <= 0)
			continue;
		if (in.row->op != e->op || in.osize != e->osize ||
		    in.mem_size != e->mem_size)
			print_error("%s: %s %u %u\n", e->what, in.row->name,
				    in.osize, in.mem_size);
		assert_int_equal(in.row->op, e->op);
		assert_int_equal(in.osize, e->osize);
		assert_int_equal(in.mem_size, e->mem_size);
	}
}

static void every_shorter_prefix_of_an_instruction_is_short(void **state)
{
	struct insn in;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		for (int n = 1; n < table[i].len; n++)
			assert_int_equal(x86_decode(&in, table[i].bytes,
						    (size_t)n, table[i].mode,
						    &all),
					 X86_DECODE_SHORT);
}

static void an_absent_feature_gives_the_older_instruction_or_ud(void **state)
{
	struct isa_features old = {.bits = BIT64(ISA_F_BASE)};
	struct insn in;

	(void)state;
	assert_int_equal(x86_decode(&in, (u8[]){0xf3, 0x0f, 0xbc, 0xc0}, 4,
				    M64, &old),
			 4);
	assert_int_equal(in.row->op, ISA_OP_BSF);
	assert_int_equal(x86_decode(&in, (u8[]){0xf3, 0x0f, 0xb8, 0xc0}, 4,
				    M64, &old),
			 X86_DECODE_UD);
	assert_int_equal(x86_decode(&in, (u8[]){0xc5, 0xf8, 0x77}, 3, M64,
				    &old),
			 X86_DECODE_UD);
}

static void prefix_that_selects_no_row_is_not_mandatory(void **state)
{
	static const struct {
		u8 bytes[8];
		u8 mandatory;
	} t[] = {
		{{0x66, 0x87, 0x06, 0, 0}, 0},	   /* xchg, 32 bits */
		{{0x66, 0x0f, 0x38, 0xf0, 4}, 0}, /* movbe */
		{{0xf3, 0x01, 0xc0}, 0},	   /* add, F3 ignored */
		{{0x66, 0x0f, 0x6f, 0xc1}, 0x66},  /* movdqa */
		{{0xf3, 0x0f, 0x10, 0xc1}, 0xf3}, /* movss */
	};
	struct insn in;

	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		assert_true(x86_decode(&in, t[i].bytes, 8, M16, &all) > 0);
		assert_int_equal(in.mandatory, t[i].mandatory);
	}
}

static void vex_w_is_no_size_outside_64_bit_mode(void **state)
{
	static const u8 andn[] = {0xc4, 0xe2, 0xc8, 0xf2, 0xc6};
	struct insn in;

	assert_true(x86_decode(&in, andn, 5, M32, &all) > 0);
	assert_false(in.rex & 8);
	assert_true(x86_decode(&in, andn, 5, M64, &all) > 0);
	assert_true(in.rex & 8);
}

static void near_branches_with_66_follow_the_vendor(void **state)
{
	static const u8 call[] = {0x66, 0xe8, 1, 2, 3, 4};
	struct isa_features intel = {.bits = ~0ull};
	struct insn in;

	(void)state;
	assert_int_equal(x86_decode(&in, call, 6, M64, &all), 4);
	assert_int_equal(x86_decode(&in, call, 6, M64, &intel), 6);
}

static void movsxd_of_16_bits_reads_four_bytes(void **state)
{
	struct insn in;

	(void)state;
	assert_int_equal(
		x86_decode(&in, (u8[]){0x66, 0x63, 0x01}, 3, M64, &all), 3);
	assert_int_equal(in.osize, 2);
	assert_int_equal(in.mem_size, 4);
}

static void a_feature_can_take_one_operand_size_away(void **state)
{
	struct isa_features old = {.bits = BIT64(ISA_F_BASE)};
	struct insn in;

	(void)state;
	assert_int_equal(x86_decode(&in, (u8[]){0x48, 0x0f, 0xc7, 0x08}, 4,
				    M64, &old),
			 X86_DECODE_UD);
	assert_int_equal(
		x86_decode(&in, (u8[]){0x0f, 0xc7, 0x08}, 3, M64, &old), 3);
	assert_int_equal(x86_decode(&in, (u8[]){0x9f}, 1, M64, &old),
			 X86_DECODE_UD);
	assert_int_equal(x86_decode(&in, (u8[]){0x9f}, 1, M32, &old), 1);
}

static const struct {
	enum x86_mode mode;
	u8 bytes[16];
	const char *text;
} texts[] = {
	{M64, {0x01, 0x44, 0x8b, 0x10}, "add [rbx+rcx*4+0x10], eax"},
	{M64, {0x48, 0x8b, 0x05, 0xf0, 0xff, 0xff, 0xff},
	 "mov rax, [rip:0xff7]"},
	{M64, {0x75, 0xfe}, "jne 0x1000"},
	{M64, {0xf3, 0x48, 0xa5}, "rep movsq"},
	{M64, {0xf2, 0xae}, "repne scasb"},
	{M64, {0xf0, 0xff, 0x07}, "lock inc dword [rdi]"},
	{M64, {0x40, 0x88, 0xe0}, "mov al, spl"},
	{M64, {0x88, 0xe0}, "mov al, ah"},
	{M64, {0x48, 0x98}, "cdqe"},
	{M64, {0x66, 0x83, 0xc0, 0xff}, "add ax, 0xffff"},
	{M64, {0x64, 0x8b, 0x04, 0x25, 0, 0, 0, 0}, "mov eax, fs:[0x0]"},
	{M64, {0xc5, 0xed, 0xfe, 0xcb}, "vpaddd ymm1, ymm2, ymm3"},
	{M64, {0xf7, 0x20}, "mul dword [rax]"},
	{M16, {0xc4, 0x46, 0xfe}, "les ax, dword [bp-0x2]"},
	{M16, {0xea, 0, 0, 0, 0xf0}, "jmp 0xf000:0x0"},
};

static void instructions_are_written_as_assemblers_take_them(void **state)
{
	struct insn in;
	char text[64];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		assert_true(x86_decode(&in, texts[i].bytes, 15, texts[i].mode,
				       &all) > 0);
		x86_format(&in, 0x1000, text, sizeof(text));
		assert_string_equal(text, texts[i].text);
	}
	assert_int_equal(x86_format(&in, 0, NULL, 0), strlen(text));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(encodings_decode_as_the_manuals_say),
		cmocka_unit_test(every_shorter_prefix_of_an_instruction_is_short),
		cmocka_unit_test(
			an_absent_feature_gives_the_older_instruction_or_ud),
		cmocka_unit_test(prefix_that_selects_no_row_is_not_mandatory),
		cmocka_unit_test(vex_w_is_no_size_outside_64_bit_mode),
		cmocka_unit_test(near_branches_with_66_follow_the_vendor),
		cmocka_unit_test(movsxd_of_16_bits_reads_four_bytes),
		cmocka_unit_test(a_feature_can_take_one_operand_size_away),
		cmocka_unit_test(
			instructions_are_written_as_assemblers_take_them),
	};

	return test_run("decode", tests);
}
