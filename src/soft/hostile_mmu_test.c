// SPDX-License-Identifier: Apache-2.0
/* Page tables that change under the accesses, entries with reserved bits,
 * pages of all sizes over the same memory, and accesses over two pages of
 * which one goes; in the interpreter and in translated code. SDM 3A §4. */
#include "test/test.h"

#include "soft/smpvm.h"
#include "soft/tiervm.h"

#define RUN(t, tier, ...)                                                      \
	tier_run_bytes(t, (const u8[]){__VA_ARGS__},                           \
		       sizeof((const u8[]){__VA_ARGS__}), tier)

/* A second 512 GiB of linear addresses whose tables a test makes. */
#define VIEW  0x8000000000ull
#define PDPT2 (TIER_TABLES + 0x3000)
#define PD2   (TIER_TABLES + 0x4000)
#define PT2   (TIER_TABLES + 0x5000)
#define PAGE  0x200000u

static struct testvm *view_new(void)
{
	struct testvm *t = tier_new();

	tier_long(t, TIER_CS64);
	st_le64(t->ram + TIER_TABLES + 8, PDPT2 | 7);
	st_le64(t->ram + PDPT2, PD2 | 7);
	st_le64(t->ram + PD2, PT2 | 7);
	st_le64(t->ram + PT2, PAGE | 7);
	t->v->gpr[X86_RBX] = VIEW;
	return t;
}

/* mov eax, [rbx]; the vector, or -1. */
static int load(struct testvm *t, enum tier tier, u64 va)
{
	int vector;

	t->v->gpr[X86_RBX] = va;
	vector = RUN(t, tier, 0x8b, 0x03);
	return tier_is_at_end(t->v, vector) ? -1 : vector;
}

static int store(struct testvm *t, enum tier tier, u64 va, u32 value)
{
	int vector;

	t->v->gpr[X86_RBX] = va;
	t->v->gpr[X86_RAX] = value;
	vector = RUN(t, tier, 0x89, 0x03);
	return tier_is_at_end(t->v, vector) ? -1 : vector;
}

static void invlpg(struct testvm *t, enum tier tier, u64 va)
{
	t->v->gpr[X86_RBX] = va;
	assert_true(tier_is_at_end(t->v, RUN(t, tier, 0x0f, 0x01, 0x3b)));
}

/* ---- reserved bits ---- */

static bool is_reserved(const struct vcpu *v, unsigned level, unsigned bit,
			bool is_large)
{
	if (bit >= v->vm->physical_address_bits && bit < 52)
		return true;
	if (level == 4 && (bit == 7 || (bit == 8 && v->vm->is_amd)))
		return true;
	if (is_large && bit >= 13)
		return bit < (level == 3 ? 30 : 21);
	return false;
}

static void reserved_at(enum tier tier, unsigned level, bool is_large)
{
	static const u32 tables[] = {0, PT2, PD2, PDPT2, TIER_TABLES + 8};
	struct testvm *t = view_new();
	u8 *entry = t->ram + tables[level];
	u64 good = is_large ? 0x87 : ld_le64(entry);

	for (unsigned bit = 7; bit < 64; bit++) {
		u64 value = good | BIT64(bit);
		int want;

		if (bit == 7 && level < 4 && level > 1)
			continue; /* is a large page then */
		if (bit >= 12 && bit < t->vm->physical_address_bits &&
		    !is_reserved(t->v, level, bit, is_large))
			continue; /* another address */
		st_le64(entry, value);
		soft_tlb_flush(t->v, false);
		want = is_reserved(t->v, level, bit, is_large) ? X86_VEC_PF
							       : -1;
		if (load(t, tier, VIEW) != want ||
		    (want >= 0 &&
		     (t->v->exc.error != 9 || t->v->exc.cr2 != VIEW)))
			fail_msg("%s: level %u, bit %u%s: error %#x",
				 tier_names[tier], level, bit,
				 is_large ? ", large" : "", t->v->exc.error);
		/* Neither A nor D of what is refused. */
		if (want >= 0)
			assert_int_equal(ld_le64(entry), value);
	}
	tv_free(t);
}

static void hostile_43_reserved_bits_fault_at_each_level(void **state)
{
	(void)state;
	for (enum tier tier = 0; tier < TIERS; tier++) {
		for (unsigned level = 1; level <= 4; level++)
			reserved_at(tier, level, false);
		reserved_at(tier, 2, true);
		reserved_at(tier, 3, true);
	}
}

/* ---- sizes ---- */

#define AT_4K (VIEW + 0)
#define AT_2M (VIEW + 0x200000)
#define AT_1G (VIEW + 0x40000000ull)

/* PAGE in all sizes. */
static struct testvm *sizes_new(void)
{
	struct testvm *t = view_new();

	st_le64(t->ram + PD2 + 8, PAGE | 0x87);
	st_le64(t->ram + PDPT2 + 8, 0x87);
	return t;
}

static void hostile_43_pages_of_all_sizes_are_the_same_memory(void **state)
{
	static const u64 at[] = {AT_4K, AT_2M, AT_1G + PAGE, PAGE};

	(void)state;
	for (enum tier tier = 0; tier < TIERS; tier++) {
		struct testvm *t = sizes_new();

		for (u32 i = 0; i < 16; i++) {
			assert_int_equal(store(t, tier, at[i / 4], i + 1), -1);
			assert_int_equal(load(t, tier, at[i % 4]), -1);
			assert_int_equal(t->v->gpr[X86_RAX], i + 1);
		}
		/* Each has its own D, of the page only. */
		assert_int_equal(ld_le64(t->ram + PT2), PAGE | 0x67);
		assert_int_equal(ld_le64(t->ram + PD2 + 8), PAGE | 0xe7);
		assert_int_equal(ld_le64(t->ram + PDPT2 + 8), 0xe7);
		assert_int_equal(ld_le64(t->ram + PD2), PT2 | 0x27);
		tv_free(t);
	}
}

/* Code that is called at one size and written at the others. */
static void hostile_43_code_written_at_another_size_is_new(void **state)
{
	static const u64 at[] = {AT_4K, AT_2M, AT_1G + PAGE, PAGE};

	(void)state;
	for (enum tier tier = 0; tier < TIERS; tier++) {
		struct testvm *t = sizes_new();

		/* mov eax, imm32; ret */
		tier_load(t, PAGE, "\xb8\0\0\0\0\xc3", 6);
		for (u32 i = 0; i < 16; i++) {
			int vector;

			assert_int_equal(store(t, tier, at[i / 4] + 1, i + 77),
					 -1);
			t->v->gpr[X86_RBX] = at[i % 4];
			t->v->gpr[X86_RSP] = TV_STACK;
			vector = RUN(t, tier, 0xff, 0xd3); /* call rbx */
			assert_true(tier_is_at_end(t->v, vector));
			assert_int_equal(t->v->gpr[X86_RAX], i + 77);
		}
		tv_free(t);
	}
}

/* INVLPG of any address in a large page forgets all of it. */
static void hostile_43_invlpg_forgets_the_whole_large_page(void **state)
{
	static const struct {
		u32 entry;
		u64 va, value, other;
	} c[] = {
		{PD2 + 8, AT_2M, 0x87, PAGE | 0x87},
		{PDPT2 + 8, AT_1G, 0x87, PD2 | 7}, /* becomes a table */
		{PD2 + 8, AT_2M, PAGE | 0x87, PT2 | 7},
	};

	(void)state;
	for (enum tier tier = 0; tier < TIERS; tier++)
		for (size_t i = 0; i < ARRAY_SIZE(c); i++) {
			struct testvm *t = sizes_new();

			for (u32 k = 0; k < 8; k++)
				st_le64(t->ram + PT2 + 8 * k,
					(PAGE + 0x8000 + 0x1000 * k) | 7);
			st_le64(t->ram + c[i].entry, c[i].value);
			for (u32 k = 0; k < 8; k++)
				store(t, tier, c[i].va + 0x1000 * k + 0x800, k);
			st_le64(t->ram + c[i].entry, c[i].other);
			invlpg(t, tier, c[i].va + 0x3000);
			for (u32 k = 0; k < 8; k++) {
				u64 va = c[i].va + 0x1000 * k + 0x800;
				gpa_t gpa;

				assert_true(
					soft_translate_debug(t->v, va, &gpa));
				st_le32(t->ram + gpa, 0x5000 + k);
				assert_int_equal(load(t, tier, va), -1);
				if (t->v->gpr[X86_RAX] != 0x5000 + k)
					fail_msg("%s: case %zu, page %u is the "
						 "old one",
						 tier_names[tier], i, k);
			}
			tv_free(t);
		}
}

/* ---- PAE ---- */

#define PAE_ROOT  TIER_TABLES
#define PAE_PD(i) (TIER_TABLES + 0x1000u * (1 + (i)))

static struct testvm *pae_new(void)
{
	struct testvm *t = tier_new();
	struct vcpu *v = t->v;

	tier_protected(t, 0);
	for (u32 i = 0; i < 4; i++) {
		st_le64(t->ram + PAE_ROOT + 8 * i, PAE_PD(i) | 1);
		st_le64(t->ram + PAE_PD(i), 0x87);
		st_le64(t->ram + PAE_PD(i) + 8, 0x200087);
		st_le64(t->ram + PAE_PD(i) + 16, (u64)(i & 1) << 21 | 0x87);
	}
	v->cr4 |= X86_CR4_PAE;
	v->gpr[X86_RAX] = PAE_ROOT;
	assert_true(tier_is_at_end(v, RUN(t, TIER_INTERP, 0x0f, 0x22, 0xd8)));
	v->gpr[X86_RAX] = v->cr0 | X86_CR0_PG;
	assert_true(tier_is_at_end(v, RUN(t, TIER_INTERP, 0x0f, 0x22, 0xc0)));
	return t;
}

static void hostile_43_pae_pointers_are_those_of_the_last_load(void **state)
{
	(void)state;
	for (enum tier tier = 0; tier < TIERS; tier++) {
		struct testvm *t = pae_new();
		struct vcpu *v = t->v;
		u64 va = 0x40400000; /* pointer 1 */

		st_le32(t->ram + 0x100, 0xaaaa);
		st_le32(t->ram + PAGE + 0x100, 0xbbbb);
		assert_int_equal(load(t, tier, va + 0x100), -1);
		assert_int_equal(v->gpr[X86_RAX], 0xbbbb);
		/* Changed in memory only, even behind INVLPG. */
		st_le64(t->ram + PAE_ROOT + 8, PAE_PD(0) | 1);
		invlpg(t, tier, va + 0x100);
		assert_int_equal(load(t, tier, va + 0x100), -1);
		assert_int_equal(v->gpr[X86_RAX], 0xbbbb);
		/* mov cr3, eax */
		v->gpr[X86_RAX] = PAE_ROOT;
		assert_true(tier_is_at_end(v, RUN(t, tier, 0x0f, 0x22, 0xd8)));
		assert_int_equal(load(t, tier, va + 0x100), -1);
		assert_int_equal(v->gpr[X86_RAX], 0xaaaa);
		/* Bad pointers: #GP, all stays. */
		for (unsigned bit = 1; bit < 64; bit++) {
			bool is_bad = bit < 3 || (bit > 4 && bit < 9) ||
				      bit >= v->vm->physical_address_bits;

			if (!is_bad)
				continue;
			st_le64(t->ram + PAE_ROOT + 24,
				PAE_PD(3) | 1 | BIT64(bit));
			v->gpr[X86_RAX] = PAE_ROOT;
			if (RUN(t, tier, 0x0f, 0x22, 0xd8) != X86_VEC_GP)
				fail_msg("bit %u", bit);
			assert_int_equal(v->rip, TV_CODE);
			assert_int_equal(load(t, tier, va + 0x100), -1);
		}
		tv_free(t);
	}
}

/* ---- two pages ---- */

#define SECOND (VIEW + 0x1000)
#define FAR    0x300000u   /* what the second page may be */
#define NO_RAM 0x10000000u /* no memory, no device: ones */

static const struct second {
	const char *name;
	u64 pte;
	int load, store, fetch; /* error code, or -1 */
} seconds[] = {
	{"memory", FAR | 7, -1, -1, -1},
	{"absent", 0, 4, 6, 0x14},
	{"read-only", FAR | 5, -1, 7, -1},
	{"supervisor", FAR | 3, 5, 7, 0x15},
	{"no-execute", BIT64(63) | FAR | 7, -1, -1, 0x15},
	{"reserved", BIT64(51) | FAR | 7, 0xd, 0xf, 0x1d},
	{"no memory", NO_RAM | 7, -1, -1, -1},
};

static struct testvm *second_new(const struct second *s)
{
	struct testvm *t = view_new();

	tier_segs(t, TIER_CS64_3, TV_DS3);
	tier_simd(t->v);
	st_le64(t->ram + PT2 + 8, s->pte);
	memset(t->ram + PAGE, 0x11, 0x1000);
	memset(t->ram + FAR, 0x22, 0x1000);
	return t;
}

static const struct over {
	const char *name;
	u8 bytes[8], n, size;
	bool is_store;
} overs[] = {
	{"mov eax, m", {0x8b, 0x03}, 2, 4, false},
	{"mov m, rax", {0x48, 0x89, 0x03}, 3, 8, true},
	{"add m, ax", {0x66, 0x01, 0x03}, 3, 2, true},
	{"lock xadd m, eax", {0xf0, 0x0f, 0xc1, 0x03}, 4, 4, true},
	{"xchg m, rax", {0x48, 0x87, 0x03}, 3, 8, true},
	{"bts m, 1", {0x0f, 0xba, 0x2b, 0x01}, 4, 4, true},
	{"cmpxchg8b m", {0x0f, 0xc7, 0x0b}, 3, 8, true},
	{"movups xmm0, m", {0x0f, 0x10, 0x03}, 3, 16, false},
	{"movups m, xmm0", {0x0f, 0x11, 0x03}, 3, 16, true},
	{"vmovups ymm0, m", {0xc5, 0xfc, 0x10, 0x03}, 4, 32, false},
	{"vmovups m, ymm0", {0xc5, 0xfc, 0x11, 0x03}, 4, 32, true},
	{"fstp tbyte m", {0xdb, 0x3b}, 2, 10, true},
	{"fnstenv m", {0xd9, 0x33}, 2, 28, true},
	{"push m", {0xff, 0x33}, 2, 8, false},
	{"pop m", {0x8f, 0x03}, 2, 8, true},
	{"movnti m, eax", {0x0f, 0xc3, 0x03}, 3, 4, true},
	{"paddd xmm0, m", {0xc5, 0xf9, 0xfe, 0x03}, 4, 16, false},
	{"movbe eax, m", {0x0f, 0x38, 0xf0, 0x03}, 4, 4, false},
};

static void access_over(const struct second *s, const struct over *o,
			enum tier tier, unsigned first)
{
	struct testvm *t = second_new(s);
	struct vcpu *v = t->v;
	int want = o->is_store ? s->store : s->load, vector;
	u8 before[32];
	bool is_rmw;

	v->gpr[X86_RBX] = SECOND - first;
	v->gpr[X86_RAX] = 0x7777777777777777;
	memcpy(before, t->ram + PAGE + 0x1000 - 32, 32);
	vector = tier_run_bytes(t, o->bytes, o->n, tier);
	is_rmw = o->is_store && memcmp(before, t->ram + PAGE + 0x1000 - 32, 32);
	if (want < 0 ? !tier_is_at_end(v, vector)
		     : vector != X86_VEC_PF || v->exc.cr2 != SECOND ||
			       v->exc.error != (u32)want || is_rmw ||
			       v->rip != TV_CODE ||
			       v->gpr[X86_RAX] != 0x7777777777777777 ||
			       v->gpr[X86_RSP] != TV_STACK)
		fail_msg("%s: %s over a page into %s, %u before: vector %d "
			 "error %#x cr2 %#llx",
			 tier_names[tier], o->name, s->name, first, vector,
			 v->exc.error, (unsigned long long)v->exc.cr2);
	tv_free(t);
}

static void hostile_29_accesses_over_two_pages_are_whole_or_fault(void **state)
{
	(void)state;
	for (enum tier tier = 0; tier < TIERS; tier++)
		for (size_t i = 0; i < ARRAY_SIZE(seconds); i++)
			for (size_t k = 0; k < ARRAY_SIZE(overs); k++) {
				access_over(&seconds[i], &overs[k], tier, 1);
				access_over(&seconds[i], &overs[k], tier,
					    overs[k].size - 1u);
			}
}

/* Halves that come from memory and from where there is none. */
static void hostile_29_half_of_an_access_outside_memory_is_ones(void **state)
{
	const struct second *s = &seconds[ARRAY_SIZE(seconds) - 1];

	(void)state;
	for (enum tier tier = 0; tier < TIERS; tier++) {
		struct testvm *t = second_new(s);

		assert_int_equal(load(t, tier, SECOND - 2), -1);
		assert_int_equal(t->v->gpr[X86_RAX], 0xffff1111);
		assert_int_equal(store(t, tier, SECOND - 1, 0x55667788), -1);
		assert_int_equal(t->ram[PAGE + 0xfff], 0x88);
		assert_int_equal(t->ram[FAR], 0x22);
		tv_free(t);
	}
}

/* mov eax, imm32 and UD2, of which `first` bytes lie on the first page. */
static void put_over(struct testvm *t, gpa_t second, unsigned first, u32 imm)
{
	u8 b[7] = {0xb8, 0, 0, 0, 0, 0x0f, 0x0b};

	st_le32(b + 1, imm);
	tier_load(t, PAGE + 0x1000 - first, b, first);
	if (second)
		tier_load(t, second, b + first, sizeof(b) - first);
}

static int run_over(struct testvm *t, enum tier tier, unsigned first)
{
	t->v->rip = SECOND - first;
	t->v->gpr[X86_RAX] = 0;
	return tier_run(t->v, tier);
}

static void hostile_29_instructions_over_two_pages_fault_at_the_second(void **s)
{
	(void)s;
	for (enum tier tier = 0; tier < TIERS; tier++)
		for (size_t i = 0; i < ARRAY_SIZE(seconds); i++)
			for (unsigned first = 1; first < 5; first++) {
				const struct second *x = &seconds[i];
				struct testvm *t = second_new(x);
				struct vcpu *v = t->v;
				u32 imm = x->pte == (NO_RAM | 7)
						  ? ~0u << 8 * (first - 1)
						  : 0x12345678;
				int vector;

				put_over(t, FAR, first, imm);
				vector = run_over(t, tier, first);
				if (x->fetch < 0
					    ? v->gpr[X86_RAX] != imm
					    : vector != X86_VEC_PF ||
						      v->exc.cr2 != SECOND ||
						      v->exc.error !=
							      (u32)x->fetch ||
						      v->rip != SECOND - first)
					fail_msg("%s: %s, %u before: vector %d "
						 "error %#x eax %#llx",
						 tier_names[tier], x->name,
						 first, vector, v->exc.error,
						 (unsigned long long)
							 v->gpr[X86_RAX]);
				tv_free(t);
			}
}

/* The second page becomes another one, and goes, behind INVLPG or CR3. */
static void hostile_29_the_second_page_of_an_instruction_changes(void **state)
{
	(void)state;
	for (enum tier tier = 0; tier < TIERS; tier++)
		for (unsigned first = 1; first < 5; first++) {
			struct testvm *t = second_new(&seconds[0]);
			struct vcpu *v = t->v;

			put_over(t, FAR, first, 0x01020304);
			put_over(t, FAR + 0x1000, first, 0x01020304);
			for (u32 i = 0; i < 8; i++) {
				u32 want = 0x01020304;
				unsigned at = 4 - first; /* of imm, there */
				u64 pte = FAR + 0x1000 * (i & 1);

				t->ram[pte + at] = (u8)(0x40 + i);
				smc_written(t->vm, pte + at, 1);
				want = (want & 0xffffff) | (0x40 + i) << 24;
				st_le64(t->ram + PT2 + 8, pte | 7);
				if (i & 2)
					soft_tlb_flush(v, false);
				else
					soft_tlb_flush_page(v, SECOND);
				assert_int_equal(run_over(t, tier, first),
						 X86_VEC_UD);
				assert_int_equal(v->gpr[X86_RAX], want);
			}
			st_le64(t->ram + PT2 + 8, 0);
			soft_tlb_flush_page(v, SECOND);
			assert_int_equal(run_over(t, tier, first), X86_VEC_PF);
			assert_int_equal(v->exc.cr2, SECOND);
			assert_int_equal(v->rip, SECOND - first);
			tv_free(t);
		}
}

/* ---- entries that others edit ---- */

#define S_VIEW 0x1000000u /* linear; its PTE: */
#define S_PT   0xb000u
#define S_PAGE 0x700000u

/* vCPU 0 maps the page without A and D, takes the entry away by XCHG, tells
 * all others to forget it, and looks: the entry must stay empty (who sets A
 * or D does it by comparing), it must have been the one that was put there,
 * and if the page has changed, A and D must have been set. R15: the APIC;
 * EBP: the others; R13: rounds; R12: what the page held. */
SMP_CODE(editor,
	 "mov $0xfee00000, %r15d\n movl $0x1ff, 0xf0(%r15)\n"
	 "88: pause\n cmp %ebp, 0x801c0\n jne 88b\n"
	 "1: movq $0x700007, 0xb000\n"
	 "mov %r13d, %ecx\n shl $6, %ecx\n and $0x3fff, %ecx\n 2: dec %ecx\n "
	 "jns 2b\n"
	 "lock orq $0x200, 0xb000\n" /* a bit of the system's own */
	 "mov %r13d, %ecx\n shl $5, %ecx\n and $0xfff, %ecx\n 3: dec %ecx\n "
	 "jns 3b\n"
	 "xor %eax, %eax\n xchg %rax, 0xb000\n"
	 "mov 0x80140, %r14d\n add %ebp, %r14d\n"
	 "movl $0xc4040, 0x300(%r15)\n"
	 "77: cmpl $0, 0x80100\n jne 9f\n"
	 "pause\n cmp %r14d, 0x80140\n jne 77b\n"
	 "cmpq $0, 0xb000\n je 4f\n incl 0x80080\n"
	 "4: mov %rax, %rcx\n and $~0x60, %rcx\n cmp $0x700207, %rcx\n je 5f\n"
	 "incl 0x80084\n"
	 "5: mov 0x700040, %edx\n add 0x700080, %edx\n add 0x7000c0, %edx\n"
	 "cmp %edx, %r12d\n je 7f\n incl %r11d\n" /* it has changed */
	 "mov %edx, %r12d\n and $0x60, %eax\n cmp $0x60, %eax\n je 7f\n"
	 "incl 0x80088\n"
	 "7: inc %r13d\n mov %r13d, 0x80200\n mov %r11d, 0x80240\n jmp 1b\n"
	 "9:" SMP_DONE);
/* The others write to the page. R13: the own word; R14: where to go on. */
SMP_CODE(toucher, "mov $0xfee00000, %r15d\n movl $0x1ff, 0xf0(%r15)\n"
		  "lea 2f(%rip), %r14\n sti\n lock incl 0x801c0\n"
		  "1: incl (%r13)\n"
		  "2: cmpl $0, 0x80100\n je 1b\n cli\n" SMP_DONE);
SMP_CODE(touch_pf, "lock incl 0x800c0\n add $8, %rsp\n mov %r14, (%rsp)\n"
		   "iretq\n");
SMP_CODE(touch_ipi, "invlpg 0x1000000\n lock incl 0x80140\n"
		    "movl $0, 0xb0(%r15)\n iretq\n");

static void hostile_43_accessed_and_dirty_are_set_by_comparing(void **state)
{
	(void)state;
	for (u32 n = 2; n <= 4; n += 2) {
		struct smpvm *t = smp_new(n);
		bool is_busy;

		st_le64(t->ram + SMP_PML4 + 0x2000 + 8 * 8, S_PT | 7);
		SMP_LOAD(t, SMP_CODE0, editor);
		SMP_LOAD(t, SMP_CODE0 + 0x10000, toucher);
		SMP_LOAD(t, SMP_TRAP, touch_pf);
		SMP_LOAD(t, SMP_TRAP + 0x100, touch_ipi);
		smp_gate(t, X86_VEC_PF, SMP_TRAP);
		smp_gate(t, 0x40, SMP_TRAP + 0x100);
		t->v[0]->gpr[X86_RBP] = n - 1;
		for (u32 i = 1; i < n; i++) {
			t->v[i]->rip = SMP_CODE0 + 0x10000;
			t->v[i]->gpr[13] = S_VIEW + 64 * i;
		}
		smp_start(t);
		is_busy = smp_wait(t, 0x80200, 300 / n, 20000) &&
			  smp_wait(t, 0x80240, 20, 20000);
		__atomic_store_n((u32 *)(t->ram + 0x80100), 1,
				 __ATOMIC_RELEASE);
		assert_true(smp_wait(t, SMP_ENDED, n, 20000));
		smp_stop(t);
		assert_int_equal(smp_ld32(t, 0x80080), 0); /* came back */
		assert_int_equal(smp_ld32(t, 0x80084), 0); /* another one */
		assert_int_equal(smp_ld32(t, 0x80088), 0); /* D was lost */
		if (!is_busy)
			fail_msg("%u changes in %u rounds",
				 smp_ld32(t, 0x80240), smp_ld32(t, 0x80200));
		smp_free(t);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hostile_43_reserved_bits_fault_at_each_level),
		cmocka_unit_test(
			hostile_43_pages_of_all_sizes_are_the_same_memory),
		cmocka_unit_test(
			hostile_43_code_written_at_another_size_is_new),
		cmocka_unit_test(
			hostile_43_invlpg_forgets_the_whole_large_page),
		cmocka_unit_test(
			hostile_43_pae_pointers_are_those_of_the_last_load),
		cmocka_unit_test(
			hostile_29_accesses_over_two_pages_are_whole_or_fault),
		cmocka_unit_test(
			hostile_29_half_of_an_access_outside_memory_is_ones),
		cmocka_unit_test(
			hostile_29_instructions_over_two_pages_fault_at_the_second),
		cmocka_unit_test(
			hostile_29_the_second_page_of_an_instruction_changes),
		cmocka_unit_test(
			hostile_43_accessed_and_dirty_are_set_by_comparing),
	};

	return test_run("hostile_mmu", tests);
}
