// SPDX-License-Identifier: Apache-2.0
/* Opcodes, prefixes, branches and addresses that a guest has no right to,
 * run as whole programs: each takes its faults by its own IDT, whose handlers
 * count them and go on at the address in r15. */
#include "test/test.h"

#include "soft/smpvm.h"

#define UD_COUNT 0x80018
#define GP_COUNT 0x80034
#define PASSED	 0x80100

SMP_CODE(ud_handler, "incl 0x80018\n mov %r15, (%rsp)\n iretq\n");
SMP_CODE(gp_handler, "incl 0x80034\n add $8, %rsp\n mov %r15, (%rsp)\n"
		     "iretq\n");
SMP_CODE(done, SMP_DONE);

static struct smpvm *vm_new(void)
{
	struct smpvm *t = smp_new(1);

	SMP_LOAD(t, SMP_TRAP, ud_handler);
	SMP_LOAD(t, SMP_TRAP + 0x100, gp_handler);
	smp_gate(t, X86_VEC_UD, SMP_TRAP);
	smp_gate(t, X86_VEC_GP, SMP_TRAP + 0x100);
	smp_gate(t, X86_VEC_PF, SMP_TRAP + 0x100);
	t->v[0]->gpr[X86_RDI] = SMP_VARS + 0x200;
	return t;
}

static void expect_counts(struct smpvm *t, u32 ud, u32 gp, u32 passed)
{
	smp_run(t);
	assert_int_equal(smp_ld32(t, UD_COUNT), ud);
	assert_int_equal(smp_ld32(t, GP_COUNT), gp);
	assert_int_equal(smp_ld32(t, PASSED), passed);
	smp_free(t);
}

/* lea 1f(%rip), %r15; the bytes; incl PASSED; 1: */
static gpa_t put_probe(struct smpvm *t, gpa_t at, const u8 *bytes, u32 n)
{
	u8 b[64] = {0x4c, 0x8d, 0x3d};

	assert_true(n <= 32);
	st_le32(b + 3, n + 7);
	for (u32 i = 0; i < n; i++)
		b[7 + i] = bytes[i];
	b[7 + n] = 0xff;
	b[8 + n] = 0x04;
	b[9 + n] = 0x25;
	st_le32(b + 10 + n, PASSED);
	smp_load(t, at, b, b + 7 + n + 7);
	return at + 7 + n + 7;
}

static void hostile_30_each_undefined_opcode_gives_ud(void **state)
{
	static const u8 one[] = {0x06, 0x07, 0x0e, 0x16, 0x17, 0x1e, 0x1f,
				 0x27, 0x2f, 0x37, 0x3f, 0x60, 0x61, 0x82,
				 0x9a, 0xce, 0xd4, 0xd5, 0xd6, 0xea};
	static const u8 two[] = {0x04, 0x0a, 0x0b, 0x0c, 0x0e, 0x0f, 0x24, 0x25,
				 0x26, 0x27, 0x36, 0x39, 0x3b, 0x3c, 0x3d, 0x3e,
				 0x3f, 0x7a, 0x7b, 0xa6, 0xa7, 0xb9, 0xff};
	struct smpvm *t = vm_new();
	gpa_t at = SMP_CODE0;

	(void)state;
	for (size_t i = 0; i < sizeof(one); i++)
		at = put_probe(t, at, (u8[]){one[i], 0xc0, 0, 0}, 4);
	for (size_t i = 0; i < sizeof(two); i++)
		at = put_probe(t, at, (u8[]){0x0f, two[i], 0xc0, 0}, 4);
	SMP_LOAD(t, at, done);
	expect_counts(t, sizeof(one) + sizeof(two), 0, 0);
}

static void hostile_30_sixteen_bytes_give_gp_and_fifteen_run(void **state)
{
	static const u8 prefixes[] = {0x2e, 0x3e, 0x66, 0x67, 0x65};
	struct smpvm *t = vm_new();
	gpa_t at = SMP_CODE0;
	u8 b[32];

	(void)state;
	for (size_t i = 0; i < sizeof(prefixes); i++)
		for (u32 n = 13; n <= 20; n++) {
			for (u32 k = 0; k < n; k++)
				b[k] = prefixes[i];
			b[n] = 0x90;
			at = put_probe(t, at, b, n + 1);
		}
	SMP_LOAD(t, at, done);
	expect_counts(t, 0, 6 * sizeof(prefixes), 2 * sizeof(prefixes));
}

static void hostile_31_lock_where_it_may_not_be_gives_ud(void **state)
{
	static const u8 forms[][4] = {
		{0xf0, 0x39, 0x07},	  {0xf0, 0x85, 0x07},
		{0xf0, 0x8d, 0x07},	  {0xf0, 0x03, 0x07},
		{0xf0, 0x0f, 0xa3, 0x07}, {0xf0, 0x0f, 0xb1, 0xc1},
		{0xf0, 0x0f, 0xc1, 0xc1}, {0xf0, 0x87, 0xc1},
		{0xf0, 0xff, 0xc0},	  {0xf0, 0xf7, 0xd0},
		{0xf0, 0x90, 0x90},	  {0xf0, 0xd1, 0x27},
		{0xf0, 0xa4, 0x90},	  {0xf0, 0x50, 0x90},
	};
	struct smpvm *t = vm_new();
	gpa_t at = SMP_CODE0;

	(void)state;
	for (u32 op = 0; op < 8; op++) /* add .. cmp eax, ecx */
		at = put_probe(t, at, (u8[]){0xf0, (u8)(op * 8 + 1), 0xc8}, 3);
	for (size_t i = 0; i < ARRAY_SIZE(forms); i++)
		at = put_probe(t, at, forms[i], 4);
	SMP_LOAD(t, at, done);
	expect_counts(t, 8 + ARRAY_SIZE(forms), 0, 0);
}

/* Loads from, or stores to, each address of the table at SMP_SEEN0. */
#define SWEEP(access)                                                          \
	"mov $0x200000, %ebx\n 1: mov (%rbx), %rsi\n test %rsi, %rsi\n"        \
	"jz 3f\n lea 2f(%rip), %r15\n" access "\n incl 0x80100\n"              \
	"2: add $8, %rbx\n jmp 1b\n 3:" SMP_DONE
SMP_CODE(sweep_load, SWEEP("mov (%rsi), %rax"));
SMP_CODE(sweep_store, SWEEP("mov %rax, (%rsi)"));

/* First and last word of each mapping, and both ends of the gap behind it. */
static u32 put_host_addresses(struct smpvm *t)
{
	FILE *f = fopen("/proc/self/maps", "re");
	char line[4400];
	u64 start, end;
	u32 n = 0;

	assert_non_null(f);
	while (n < 8000 && fgets(line, sizeof(line), f)) {
		assert_int_equal(sscanf(line, "%lx-%lx", &start, &end), 2);
		const u64 at[] = {start, end - 8, end, start - 8};

		for (size_t i = 0; i < ARRAY_SIZE(at); i++)
			if (at[i] >= BIT64(32))
				st_le64(t->ram + SMP_SEEN0 + 8 * n++, at[i]);
	}
	fclose(f);
	st_le64(t->ram + SMP_SEEN0 + 8 * n, 0);
	return n;
}

static void hostile_35_36_each_mapping_of_the_host_faults(void **state)
{
	(void)state;
	for (int k = 0; k < 2; k++) {
		struct smpvm *t = vm_new();
		u32 n = put_host_addresses(t);

		assert_true(n > 40);
		if (k)
			SMP_LOAD(t, SMP_CODE0, sweep_store);
		else
			SMP_LOAD(t, SMP_CODE0, sweep_load);
		expect_counts(t, 0, n, 0);
	}
}

SMP_CODE(ret_abuse,
	 "mov $1000, %ecx\n xor %edx, %edx\n"
	 "1: lea 2f(%rip), %rax\n push %rax\n ret\n incl 0x80100\n"
	 "2: call 3f\n incl 0x80100\n"
	 "3: add $8, %rsp\n lea 4f+1(%rip), %rax\n jmp *%rax\n"
	 "4: .byte 0xb8, 0xff, 0xc2, 0xeb, 0x00\n" /* inc edx in a mov */
	 "dec %ecx\n jnz 1b\n mov %edx, 0x80200\n" SMP_DONE);

static void hostile_49_mismatched_ret_and_jumps_into_code(void **state)
{
	struct smpvm *t = vm_new();

	(void)state;
	SMP_LOAD(t, SMP_CODE0, ret_abuse);
	smp_run(t);
	assert_int_equal(smp_ld32(t, 0x80200), 1000);
	assert_int_equal(smp_ld32(t, PASSED), 0);
	assert_int_equal(t->v[0]->gpr[X86_RSP], SMP_STACK);
	smp_free(t);
}

SMP_CODE(deep_calls, "mov $0x1f0000, %esp\n mov $50000, %ecx\n"
		     "xor %edx, %edx\n xor %ebx, %ebx\n call 1f\n jmp 3f\n"
		     "1: inc %edx\n dec %ecx\n jz 2f\n call 1b\n"
		     "2: inc %ebx\n ret\n 3:" SMP_DONE);

static void hostile_49_calls_return_from_any_depth(void **state)
{
	struct smpvm *t = vm_new();

	(void)state;
	SMP_LOAD(t, SMP_CODE0, deep_calls);
	smp_run(t);
	assert_int_equal(t->v[0]->gpr[X86_RDX], 50000);
	assert_int_equal(t->v[0]->gpr[X86_RBX], 50000);
	assert_int_equal(t->v[0]->gpr[X86_RSP], 0x1f0000);
	smp_free(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hostile_30_each_undefined_opcode_gives_ud),
		cmocka_unit_test(
			hostile_30_sixteen_bytes_give_gp_and_fifteen_run),
		cmocka_unit_test(hostile_31_lock_where_it_may_not_be_gives_ud),
		cmocka_unit_test(hostile_35_36_each_mapping_of_the_host_faults),
		cmocka_unit_test(hostile_49_mismatched_ret_and_jumps_into_code),
		cmocka_unit_test(hostile_49_calls_return_from_any_depth),
	};

	return test_run("hostile_op", tests);
}
