// SPDX-License-Identifier: Apache-2.0
/* Invariants of the engine that no single instruction shows (xlat.h): what
 * lies in the tables that generated code trusts (I1), what C finds of the CPU
 * when it is called (I5), and that what was checked is what is used (I6); by
 * random and hostile accesses of both tiers. */
#include "test/test.h"

#include <immintrin.h>

#include "soft/smpvm.h"
#include "soft/tiervm.h"

#define VIEW   0x8000000000ull /* 512 pages, by PT2 */
#define PDPT2  (TIER_TABLES + 0x3000)
#define PD2    (TIER_TABLES + 0x4000)
#define PT2    (TIER_TABLES + 0x5000)
#define ROM    0x40000000u /* a slot of its own, 16 pages */
#define EXTRA  0x50000000u /* RAM that goes */
#define PAGES  16u
#define DEV    0x60000000u
#define ROUNDS 6000u

static u64 seed = 88172645463325252ull;

static u32 rnd(u32 n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (u32)(seed >> 20) % n;
}

/* ---- I1 ---- */

static void check_page(const struct testvm *t, u64 va, u64 hva, bool is_write,
		       u64 gpa, const char *where)
{
	size_t n;
	const struct mem_slot *s = mem_slots(t->mem, &n);
	bool is_known = false;

	for (size_t i = 0; i < n; i++) {
		u64 off = hva - (u64)(uintptr_t)s[i].hva;

		if (off >= s[i].size)
			continue;
		is_known = gpa == ~0ull || s[i].gpa + off == gpa;
		if (is_write)
			is_known &= !(s[i].flags & MEM_SLOT_ROM);
	}
	if (!is_known || hva & (PAGE_BYTES - 1) || va & (PAGE_BYTES - 1))
		fail_msg("%s: %#llx leads to %#llx, of gpa %#llx, write %d",
			 where, (unsigned long long)va, (unsigned long long)hva,
			 (unsigned long long)gpa, is_write);
}

static unsigned check_space(const struct testvm *t, const struct soft_space *s)
{
	unsigned n = 0;

	for (unsigned i = 0; i < SOFT_TLB_ENTRIES; i++) {
		const struct soft_tlb_entry *e = &s->tlb[i];
		u64 gpa = e->meta & ~0xfffull;
		bool has_w = !soft_tlb_is_empty(e->tag_w);

		if (soft_tlb_is_empty(e->tag_r)) {
			assert_false(has_w);
			continue;
		}
		n++;
		assert_int_equal(soft_tlb_index(e->tag_r), i);
		assert_true(!has_w || e->tag_w == e->tag_r);
		check_page(t, e->tag_r, e->hva_page, has_w, gpa, "TLB");
	}
	for (unsigned i = 0; i < 2 * SOFT_SLOTS; i++) {
		const struct soft_slot *e =
			&s->slots[i / SOFT_SLOTS][i % SOFT_SLOTS];

		if (e->tag == SOFT_TLB_EMPTY)
			continue;
		n++;
		check_page(t, e->tag, e->hva_page, i >= SOFT_SLOTS, ~0ull,
			   "slot");
	}
	return n;
}

static unsigned check_tables(const struct testvm *t)
{
	struct soft_space *spaces[SOFT_SPACES_MAX];
	unsigned count = soft_spaces(t->v, spaces), n = 0;

	for (unsigned i = 0; i < count; i++)
		if (spaces[i]->is_ready)
			n += check_space(t, spaces[i]);
	return n;
}

/* Anything that a guest may write there. */
static u64 random_pte(void)
{
	static const u64 places[] = {0,	  0x200000,   ROM,	EXTRA,
				     DEV, 0xfee00000, 0x3ff000, ROM + 0xf000};
	u64 pte = places[rnd(8)] + (rnd(20) << 12);

	pte |= rnd(8) ? 1 : 0;
	pte |= rnd(4) ? X86_PTE_W : 0;
	pte |= rnd(4) ? X86_PTE_U : 0;
	pte |= rnd(8) ? 0 : X86_PTE_NX;
	pte |= rnd(8) ? 0 : X86_PTE_G;
	pte |= rnd(16) ? 0 : BIT64(rnd(64));
	/* not over the tables, the code and this stack */
	if ((pte & X86_PTE_ADDR) - (TIER_TABLES - 0x1000) < 0x10000 ||
	    (pte & X86_PTE_ADDR) < 0x10000)
		pte = (pte & ~X86_PTE_ADDR) | 0x200000;
	return pte;
}

static struct mem_slot extra_slot(u32 id, gpa_t gpa, u32 flags)
{
	struct mem_slot s = {
		.id = id, .flags = flags, .gpa = gpa, .size = PAGES * 4096};

	s.hva = aligned_alloc(PAGE_BYTES, s.size);
	assert_non_null(s.hva);
	memset(s.hva, 0xf4, s.size);
	return s;
}

static void one_access(struct testvm *t, enum tier tier)
{
	/* loads, stores, read-modify-write, vectors, strings, calls */
	static const u8 ops[][4] = {
		{0x8b, 0x03, 0x90, 0x90}, {0x89, 0x03, 0x90, 0x90},
		{0x48, 0x01, 0x03, 0x90}, {0x0f, 0x10, 0x03, 0x90},
		{0x0f, 0x11, 0x03, 0x90}, {0xf3, 0xa4, 0x90, 0x90},
		{0xf3, 0xab, 0x90, 0x90}, {0xff, 0x33, 0x90, 0x90},
		{0x8f, 0x03, 0x90, 0x90}, {0xf0, 0xff, 0x03, 0x90},
		{0x0f, 0x01, 0x3b, 0x90}, /* invlpg */
	};
	u64 va = VIEW + rnd(512) * 4096ull +
		 (rnd(3) ? rnd(4096) : 4096 - rnd(16));
	struct vcpu *v = t->v;

	if (!rnd(4))
		st_le64(t->ram + PT2 + 8 * rnd(512), random_pte());
	tier_segs(t, rnd(2) ? TIER_CS64 : TIER_CS64_3, TV_DS3);
	if (v->segs[X86_CS].sel == TIER_CS64)
		tier_segs(t, TIER_CS64, TV_DS0);
	soft_set_rflags(v, 2);
	v->gpr[X86_RBX] = va;
	v->gpr[X86_RSI] = VIEW + rnd(512) * 4096ull + rnd(4096);
	v->gpr[X86_RDI] = VIEW + rnd(512) * 4096ull + rnd(4096);
	v->gpr[X86_RCX] = rnd(64);
	v->gpr[X86_RSP] = TV_STACK;
	tier_run_bytes(t, ops[rnd(ARRAY_SIZE(ops))], 4, tier);
	if (!rnd(64))
		soft_tlb_flush(v, rnd(2));
}

static void i1_what_the_tables_hold_is_memory_of_slots(void **state)
{
	(void)state;
	for (enum tier tier = 0; tier < TIERS; tier++) {
		struct testvm *t = tier_new();
		struct mem_slot rom = extra_slot(7, ROM, MEM_SLOT_ROM);
		struct mem_slot ram = extra_slot(8, EXTRA, 0);
		struct err err = {0};
		unsigned seen = 0;

		assert_int_equal(mem_slot_add(t->mem, &rom, &err), 0);
		assert_int_equal(mem_slot_add(t->mem, &ram, &err), 0);
		tier_long(t, TIER_CS64);
		tier_simd(t->v);
		st_le64(t->ram + TIER_TABLES + 8, PDPT2 | 7);
		st_le64(t->ram + PDPT2, PD2 | 7);
		st_le64(t->ram + PD2, PT2 | 7);
		for (unsigned i = 0; i < 512; i++)
			st_le64(t->ram + PT2 + 8 * i, random_pte());
		for (unsigned i = 0; i < ROUNDS; i++) {
			one_access(t, tier);
			if (i % 100 == 99)
				seen += check_tables(t);
		}
		assert_true(seen > 1000);
		/* What has gone is nowhere: check_page() would find it. */
		assert_int_equal(mem_slot_del(t->mem, 8), 0);
		if (atomic_load(&t->v->requests) & SOFT_REQ_FLUSH)
			soft_tlb_flush(t->v, false);
		check_tables(t);
		assert_int_equal(mem_slot_del(t->mem, 7), 0);
		if (atomic_load(&t->v->requests) & SOFT_REQ_FLUSH)
			soft_tlb_flush(t->v, false);
		check_tables(t);
		free(rom.hva);
		free(ram.hva);
		tv_free(t);
	}
}

/* The ROM is what it was: no write went by a tag. */
static void i1_no_store_reaches_a_rom(void **state)
{
	static const u8 ops[][4] = {
		{0x89, 0x03, 0x90, 0x90}, {0xf0, 0x01, 0x03, 0x90},
		{0x0f, 0x11, 0x03, 0x90}, {0xf3, 0xaa, 0x90, 0x90},
		{0x8f, 0x03, 0x90, 0x90}, {0x8b, 0x03, 0x90, 0x90}};

	(void)state;
	for (enum tier tier = 0; tier < TIERS; tier++) {
		struct testvm *t = tier_new();
		struct mem_slot rom = extra_slot(7, ROM, MEM_SLOT_ROM);
		struct err err = {0};

		assert_int_equal(mem_slot_add(t->mem, &rom, &err), 0);
		tier_long(t, TIER_CS64);
		tier_simd(t->v);
		st_le64(t->ram + TIER_TABLES + 0x2010, ROM | 0x87);
		for (unsigned i = 0; i < 10 * ARRAY_SIZE(ops); i++) {
			struct vcpu *v = t->v;

			v->gpr[X86_RBX] = v->gpr[X86_RDI] =
				0x400000 + rnd(PAGES * 4096 - 64);
			v->gpr[X86_RCX] = 50;
			v->gpr[X86_RSP] = TV_STACK;
			assert_true(tier_is_at_end(
				v, tier_run_bytes(t, ops[i % ARRAY_SIZE(ops)],
						  4, tier)));
		}
		for (u32 i = 0; i < rom.size; i++)
			assert_int_equal(rom.hva[i], 0xf4);
		assert_int_equal(mem_slot_del(t->mem, 7), 0);
		free(rom.hva);
		tv_free(t);
	}
}

/* ---- I5 ---- */

/* What a device of the engine's, which is C, finds. */
static struct host_seen {
	unsigned calls;
	u64 flags;
	u32 mxcsr;
	u64 fs;
} host_seen;

static u64 look(void *opaque, u64 off, unsigned size)
{
	struct host_seen *h = opaque;

	(void)off;
	(void)size;
	__asm__ volatile("pushfq; popq %0" : "=r"(h->flags));
	h->mxcsr = _mm_getcsr();
	__asm__ volatile("mov %%fs:0, %0" : "=r"(h->fs));
	h->calls++;
	return 0;
}

static const struct io_ops look_ops = {
	.read = look, .min_size = 1, .max_size = 8};

/* The guest's DF, AC, MXCSR, FS and GS, in a block that calls C. */
static void i5_c_finds_the_host_s_registers_not_the_guest_s(void **state)
{
	static struct io_region region = {.name = "look",
					  .space = IO_MMIO,
					  .base = DEV,
					  .size = 0x1000,
					  .ops = &look_ops,
					  .opaque = &host_seen};
	static const u8 code[] = {
		0x0f, 0xae, 0x13,	      /* ldmxcsr [rbx] */
		0xf3, 0x48, 0x0f, 0xae, 0xd2, /* wrfsbase rdx */
		0xf3, 0x48, 0x0f, 0xae, 0xda, /* wrgsbase rdx */
		0x68, 0xd7, 0x0c, 0x04, 0x00, /* push: AC OF DF, all others */
		0x9d,			      /* popfq */
		0xd9, 0x2e,		      /* fldcw [rsi] */
		0x8b, 0x07,		      /* mov eax, [rdi]: the device */
		0x0f, 0xae, 0x5b, 0x08,	      /* stmxcsr [rbx + 8] */
		0x9c, 0x59,		      /* pushfq; pop rcx */
	};
	u64 fs;

	(void)state;
	__asm__ volatile("mov %%fs:0, %0" : "=r"(fs));
	for (enum tier tier = 0; tier < TIERS; tier++) {
		struct testvm *t = tier_new();
		struct vcpu *v = t->v;
		int vector;

		if (!region.is_mapped)
			assert_int_equal(mem_io_add(t->mem, &region), 0);
		tier_long(t, TIER_CS64);
		tier_simd(v);
		v->cr4 |= X86_CR4_FSGSBASE;
		st_le64(t->ram + TIER_TABLES + 0x2010, DEV | 0x87);
		st_le32(t->ram + 0x100000, 0xffc0); /* FTZ RC DAZ, all masked */
		st_le16(t->ram + 0x100100, 0x07f);  /* 24 bits */
		v->gpr[X86_RBX] = 0x100000;
		v->gpr[X86_RSI] = 0x100100;
		v->gpr[X86_RDI] = 0x400000;
		v->gpr[X86_RDX] = 0x123456789000;
		host_seen.calls = 0;
		vector = tier_run_bytes(t, code, sizeof(code), tier);
		assert_true(tier_is_at_end(v, vector));
		assert_int_equal(host_seen.calls, 1);
		assert_int_equal(host_seen.flags & (X86_FL_DF | X86_FL_AC |
						    X86_FL_TF | X86_FL_NT),
				 0);
		assert_int_equal(host_seen.mxcsr & 0xffc0, 0x1f80);
		assert_int_equal(host_seen.fs, fs);
		/* and the guest has its own behind that */
		assert_int_equal(ld_le32(t->ram + 0x100008), 0xffc0);
		assert_int_equal(v->gpr[X86_RCX] & 0x40cd5, 0x40cd5);
		assert_int_equal(v->segs[X86_FS].base, 0x123456789000);
		assert_int_equal(ld_le16(v->xsave), 0x07f);
		assert_true(tier_host_is_own());
		tv_free(t);
	}
}

/* ---- I6 ---- */

/* Ring 3 returns to itself by a frame at 0x80400, of which ring 0 of another
 * vCPU keeps changing one word: to a selector of ring 0 and back. R13: rounds;
 * RBP: the stack; R14: where #GP goes on. */
SMP_CODE(race_iret, "1: lea 3f(%rip), %r14\n lea 2f(%rip), %rax\n"
		    "mov %rax, 0x80400\n movq $2, 0x80410\n"
		    "mov %rbp, 0x80418\n"
		    "mov $0x80400, %esp\n iretq\n"
		    "2: mov %cs, %eax\n mov %ss, %edx\n and %edx, %eax\n"
		    "and $3, %eax\n cmp $3, %eax\n je 3f\n"
		    "lock incl 0x80080\n"
		    "3: incl (%r13)\n cmpl $0, 0x80100\n je 1b\n"
		    "lock incl 0x9000\n 99: jmp 99b\n");
SMP_CODE(race_flip, "1: mov %rax, (%rdi)\n xchg %rax, %rdx\n"
		    "mov $37, %ecx\n 2: dec %ecx\n jnz 2b\n"
		    "cmpl $0, 0x80100\n je 1b\n" SMP_DONE);
SMP_CODE(race_gp, "lock incl 0x800c0\n add $8, %rsp\n mov %r14, (%rsp)\n"
		  "mov %rbp, 24(%rsp)\n iretq\n");

static void race(bool is_ss, enum tier tier)
{
	struct smpvm *t = smp_new(2);
	struct vcpu *v = t->v[0];

	if (tier == TIER_INTERP) {
		xlat_free(t->vm->xlat);
		t->vm->xlat = NULL;
	}
	st_le64(t->ram + SMP_GDT + 0x18, 0x00affb000000ffff);
	st_le64(t->ram + SMP_GDT + 0x20, 0x00cff3000000ffff);
	st_le64(t->ram + 0x3000 + 4, 0x18000); /* TSS.RSP0 */
	SMP_LOAD(t, SMP_CODE0, race_iret);
	SMP_LOAD(t, SMP_CODE0 + 0x10000, race_flip);
	SMP_LOAD(t, SMP_TRAP, race_gp);
	smp_gate(t, X86_VEC_GP, SMP_TRAP);
	v->gdtr.limit = 0x27;
	v->tr = (struct soft_seg){.base = 0x3000, .limit = 0x67, .attr = 0x8b};
	for (unsigned i = 0; i < 6; i++)
		v->segs[i] = (struct soft_seg){
			.sel = 0x23, .limit = ~0u, .attr = 0xc0f3};
	v->segs[X86_CS] =
		(struct soft_seg){.sel = 0x1b, .limit = ~0u, .attr = 0xa0fb};
	soft_mode_changed(v);
	v->gpr[13] = 0x80200;
	v->gpr[X86_RBP] = SMP_STACK;
	st_le64(t->ram + 0x80408, 0x1b);
	st_le64(t->ram + 0x80420, 0x23);
	t->v[1]->gpr[X86_RDI] = is_ss ? 0x80420 : 0x80408;
	t->v[1]->gpr[X86_RAX] = is_ss ? 0x10 : 0x08;
	t->v[1]->gpr[X86_RDX] = is_ss ? 0x23 : 0x1b;
	smp_start(t);
	assert_true(smp_wait(t, 0x80200, 20000, 20000));
	assert_true(smp_wait(t, 0x800c0, 100, 20000));
	__atomic_store_n((u32 *)(t->ram + 0x80100), 1, __ATOMIC_RELEASE);
	assert_true(smp_wait(t, SMP_ENDED, 2, 20000));
	smp_stop(t);
	assert_int_equal(smp_ld32(t, 0x80080), 0);
	assert_int_equal(v->cpl, 3);
	smp_free(t);
}

static void i6_frames_that_change_meanwhile_give_no_ring_0(void **state)
{
	(void)state;
	for (enum tier tier = 0; tier < TIERS; tier++) {
		race(false, tier);
		race(true, tier);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(i1_what_the_tables_hold_is_memory_of_slots),
		cmocka_unit_test(i1_no_store_reaches_a_rom),
		cmocka_unit_test(
			i5_c_finds_the_host_s_registers_not_the_guest_s),
		cmocka_unit_test(
			i6_frames_that_change_meanwhile_give_no_ring_0),
	};

	return test_run("invariant", tests);
}
