// SPDX-License-Identifier: Apache-2.0
/* Transfers between rings that must fail in the right place: SMAP and SMEP,
 * returns to addresses that are not canonical, shadows, single steps, stacks
 * that cannot hold a frame; in the interpreter and in translated code. SDM 3A
 * §4.6, §5.8, §6.8, §6.14, §6.15; APM 2 §8.
 *
 * RAM: the first 2 MiB are the supervisor's, the others everybody's.
 */
#include "test/test.h"

#include "soft/soft_sys.h"
#include "soft/tiervm.h"

#define RUN(t, tier, ...)                                                      \
	tier_run_bytes(t, (const u8[]){__VA_ARGS__},                           \
		       sizeof((const u8[]){__VA_ARGS__}), tier)

#define USER	 0x200000u /* everybody's page */
#define UNMAPPED 0x800000u
#define FAR_OFF	 BIT64(47) /* not canonical */
#define TSS	 0x3000u
#define HANDLER	 0xa000u /* + vector */
#define KSTACK	 0xe000u

static void set_feature(struct testvm *t, u32 leaf, unsigned bit, bool is_on)
{
	for (u32 i = 0; i < t->vm->cpuid->nent; i++) {
		struct kvm_cpuid_entry2 *e = &t->vm->cpuid->entries[i];

		if (e->function == leaf && !e->index)
			e->ebx = (e->ebx & ~BIT32(bit)) | (u32)is_on << bit;
	}
	t->v->features = x86_cpuid_isa(t->vm->cpuid);
}

static void set_gate(struct testvm *t, u8 vector, u64 off, unsigned ist)
{
	u8 *at = t->ram + TV_IDT + vector * 16;

	st_le64(at, (off & 0xffff) | TIER_CS64 << 16 | (u64)ist << 32 |
			    0x8e0000000000 | (off >> 16 & 0xffff) << 48);
	st_le64(at + 8, off >> 32);
}

static struct testvm *event_new(u16 cs)
{
	struct testvm *t = tier_new();
	struct vcpu *v = t->v;

	tier_long(t, cs);
	st_le64(t->ram + TIER_TABLES + 0x2000, cs & 3 ? 0x87 : 0x83);
	set_feature(t, 7, 20, true);
	for (unsigned i = 0; i < 32; i++)
		set_gate(t, (u8)i, HANDLER + i, 0);
	st_le64(t->ram + TSS + 4, KSTACK);
	v->gpr[X86_RBX] = USER;
	v->gpr[X86_RSP] = TV_STACK;
	soft_tlb_flush(v, false);
	return t;
}

static void event_free(struct testvm *t)
{
	set_feature(t, 7, 20, false);
	tv_free(t);
}

static void expect_pf(const struct vcpu *v, int vector, u64 rip, u64 cr2,
		      u32 error)
{
	if (vector != X86_VEC_PF || v->rip != rip || v->exc.cr2 != cr2 ||
	    v->exc.error != error)
		fail_msg("vector %d at %#llx, cr2 %#llx, error %#x", vector,
			 (unsigned long long)v->rip,
			 (unsigned long long)v->exc.cr2, v->exc.error);
}

/* ---- 41: SMAP, SMEP ---- */

static void hostile_41_smap_stops_accesses_outside_stac_and_clac(void **state)
{
	(void)state;
	for (enum tier tier = 0; tier < TIERS; tier++) {
		struct testvm *t = event_new(TIER_CS64);
		struct vcpu *v = t->v;
		int vector;

		/* Known to the TLB as everybody's before SMAP is on. */
		assert_true(tier_is_at_end(
			v, RUN(t, tier, 0x8b, 0x03, 0x89, 0x03)));
		v->gpr[X86_RAX] = v->cr4 | X86_CR4_SMAP;
		assert_true(tier_is_at_end(v, RUN(t, tier, 0x0f, 0x22, 0xe0)));
		vector = RUN(t, tier, 0x8b, 0x03);
		expect_pf(v, vector, TV_CODE, USER, 1);
		vector = RUN(t, tier, 0x89, 0x03);
		expect_pf(v, vector, TV_CODE, USER, 3);
		/* stac; mov eax, [rbx]; mov [rbx], eax; clac; the same */
		vector = RUN(t, tier, 0x0f, 0x01, 0xcb, 0x8b, 0x03, 0x89, 0x03,
			     0x0f, 0x01, 0xca, 0x8b, 0x03);
		expect_pf(v, vector, TV_CODE + 10, USER, 1);
		/* AC by POPF: push 0x40002; popfq; mov; then without */
		vector = RUN(t, tier, 0x68, 2, 0, 4, 0, 0x9d, 0x8b, 0x03, 0x6a,
			     2, 0x9d, 0x8b, 0x03);
		expect_pf(v, vector, TV_CODE + 11, USER, 1);
		/* Strings, and both ways of a copy. */
		v->gpr[X86_RSI] = USER;
		v->gpr[X86_RDI] = 0x100000;
		v->gpr[X86_RCX] = 4;
		vector = RUN(t, tier, 0xf3, 0xa4);
		expect_pf(v, vector, TV_CODE, USER, 1);
		v->gpr[X86_RSI] = 0x100000;
		v->gpr[X86_RDI] = USER;
		vector = RUN(t, tier, 0xf3, 0xa4);
		expect_pf(v, vector, TV_CODE, USER, 3);
		assert_int_equal(v->gpr[X86_RCX], 4);
		event_free(t);
	}
}

/* What the CPU reads on its own is not excused by AC. */
static void hostile_41_smap_holds_for_descriptor_tables_with_ac(void **state)
{
	(void)state;
	for (enum tier tier = 0; tier < TIERS; tier++) {
		struct testvm *t = event_new(TIER_CS64);
		struct vcpu *v = t->v;
		int vector;

		memcpy(t->ram + USER, t->ram + TV_GDT, 256);
		v->cr4 |= X86_CR4_SMAP;
		soft_tlb_flush(v, false);
		v->gdtr.base = USER;
		v->rflags_sys |= X86_FL_AC;
		v->gpr[X86_RAX] = TV_DS0;
		vector = RUN(t, tier, 0x8e, 0xd8);
		expect_pf(v, vector, TV_CODE, USER + TV_DS0, 1);
		/* its own accesses are */
		assert_true(tier_is_at_end(v, RUN(t, tier, 0x8b, 0x03)));
		event_free(t);
	}
}

static void hostile_41_smep_stops_code_known_from_before(void **state)
{
	(void)state;
	for (enum tier tier = 0; tier < TIERS; tier++) {
		struct testvm *t = event_new(TIER_CS64);
		struct vcpu *v = t->v;
		int vector;

		/* call rbx, thrice: in all caches; there: ret */
		tier_load(t, USER, "\xc3", 1);
		assert_true(tier_is_at_end(
			v, RUN(t, tier, 0xff, 0xd3, 0xff, 0xd3, 0xff, 0xd3)));
		/* mov cr4, rax; call rbx */
		v->gpr[X86_RAX] = v->cr4 | X86_CR4_SMEP;
		vector = RUN(t, tier, 0x0f, 0x22, 0xe0, 0xff, 0xd3);
		expect_pf(v, vector, USER, USER, 0x11);
		/* and by RET, IRET, and a direct jump */
		v->gpr[X86_RSP] = TV_STACK;
		vector = RUN(t, tier, 0x53, 0xc3);
		expect_pf(v, vector, USER, USER, 0x11);
		vector = RUN(t, tier, 0xe9, 0xfb, 0xbf, 0x1f, 0x00);
		expect_pf(v, vector, USER, USER, 0x11);
		/* off again */
		v->gpr[X86_RSP] = TV_STACK;
		v->gpr[X86_RAX] = v->cr4 & ~X86_CR4_SMEP;
		assert_true(tier_is_at_end(
			v, RUN(t, tier, 0x0f, 0x22, 0xe0, 0xff, 0xd3)));
		event_free(t);
	}
}

/* ---- returns ---- */

static void put_iret(struct testvm *t, u64 sp, u64 rip, u16 cs, u64 flags,
		     u64 rsp, u16 ss)
{
	const u64 frame[5] = {rip, cs, flags, rsp, ss};

	for (unsigned i = 0; i < 5; i++)
		st_le64(t->ram + sp + 8 * i, frame[i]);
}

/* IRETQ and RETFQ of ring 3 to ring 3 read the supervisor's GDT; inwards they
 * do not go. */
static void hostile_41_far_returns_of_ring_3_stay_in_ring_3(void **state)
{
	(void)state;
	for (enum tier tier = 0; tier < TIERS; tier++)
		for (int is_iret = 0; is_iret < 2; is_iret++)
			for (u16 rpl = 0; rpl < 4; rpl++) {
				struct testvm *t = event_new(TIER_CS64_3);
				struct vcpu *v = t->v;
				u8 op[2] = {0x48, is_iret ? 0xcf : 0xcb};
				u16 cs = (TIER_CS64_3 & ~3) | rpl;
				int vector;

				v->cr4 |= X86_CR4_SMAP | X86_CR4_SMEP;
				/* the same memory as the supervisor's */
				st_le64(t->ram + TIER_TABLES + 0x2010, 0x83);
				v->gdtr.base = 0x400000 + TV_GDT;
				v->gpr[X86_RSP] = USER + 0x800;
				put_iret(t, USER + 0x800, TV_CODE + 8, cs, 2,
					 USER + 0x900, TV_DS3);
				vector = tier_run_bytes(t, op, 2, tier);
				if (rpl == 3) {
					assert_true(tier_is_at_end(v, vector));
					assert_int_equal(v->cpl, 3);
				} else {
					assert_int_equal(vector, X86_VEC_GP);
					assert_int_equal(v->exc.error,
							 cs & 0xfffc);
					assert_int_equal(v->rip, TV_CODE);
					assert_int_equal(v->gpr[X86_RSP],
							 USER + 0x800);
				}
				event_free(t);
			}
}

/* ---- 42 ---- */

static void hostile_42_iret_to_a_far_off_address_faults_in_ring_0(void **state)
{
	static const u64 rips[] = {FAR_OFF, ~FAR_OFF, BIT64(63),
				   FAR_OFF + 0x1000, 0x1234ull << 48};

	(void)state;
	for (enum tier tier = 0; tier < TIERS; tier++)
		for (size_t i = 0; i < 2 * ARRAY_SIZE(rips); i++) {
			struct testvm *t = event_new(TIER_CS64);
			struct vcpu *v = t->v;
			bool is_user = i & 1;

			put_iret(t, 0x7000, rips[i / 2],
				 is_user ? TIER_CS64_3 : TIER_CS64, 0x202,
				 USER + 0x800, is_user ? TV_DS3 : TV_DS0);
			v->gpr[X86_RSP] = 0x7000;
			assert_int_equal(RUN(t, tier, 0x48, 0xcf), X86_VEC_GP);
			assert_int_equal(v->exc.error, 0);
			assert_int_equal(v->cpl, 0);
			assert_int_equal(v->rip, TV_CODE);
			assert_int_equal(v->gpr[X86_RSP], 0x7000);
			assert_int_equal(v->rflags_sys & X86_FL_IF, 0);
			/* a stack there is nobody's business yet */
			put_iret(t, 0x7000, TV_CODE + 8, TIER_CS64, 2,
				 rips[i / 2], TV_DS0);
			assert_true(
				tier_is_at_end(v, RUN(t, tier, 0x48, 0xcf)));
			assert_int_equal(v->gpr[X86_RSP], rips[i / 2]);
			event_free(t);
		}
}

/* Intel refuses in ring 0, AMD faults in ring 3: on the user's stack neither
 * delivers, if the system has a stack in its TSS. */
static void hostile_42_sysret_to_a_far_off_address(void **state)
{
	(void)state;
	for (enum tier tier = 0; tier < TIERS; tier++)
		for (int is_amd = 0; is_amd < 2; is_amd++) {
			struct testvm *t = event_new(TIER_CS64);
			struct vcpu *v = t->v;
			bool was_amd = t->vm->is_amd;
			int vector;

			t->vm->is_amd = is_amd;
			v->features.is_amd = is_amd;
			v->efer |= X86_EFER_SCE;
			v->star = 0x0033000800000000; /* CS 0x43, SS 0x3b */
			v->gpr[X86_RCX] = FAR_OFF;
			v->gpr[11] = 2;
			v->gpr[X86_RSP] = USER + 0x800;
			vector = RUN(t, tier, 0x48, 0x0f, 0x07);
			assert_int_equal(vector, X86_VEC_GP);
			assert_int_equal(v->exc.error, 0);
			assert_int_equal(v->cpl, is_amd ? 3 : 0);
			assert_int_equal(v->rip, is_amd ? FAR_OFF : TV_CODE);
			assert_true(soft_deliver_exception(v));
			assert_int_equal(v->rip, HANDLER + X86_VEC_GP);
			assert_int_equal(v->gpr[X86_RSP],
					 (is_amd ? KSTACK : USER + 0x800) - 48);
			assert_int_equal(ld_le64(t->ram + v->gpr[X86_RSP] + 8),
					 is_amd ? FAR_OFF : TV_CODE);
			t->vm->is_amd = was_amd;
			event_free(t);
		}
}

static void hostile_42_far_transfers_and_gates_check_their_target(void **state)
{
	(void)state;
	for (enum tier tier = 0; tier < TIERS; tier++) {
		struct testvm *t = event_new(TIER_CS64);
		struct vcpu *v = t->v;

		/* retfq; jmp far [rbx]; call far [rbx] with REX.W */
		v->gpr[X86_RSP] = 0x7000;
		put_iret(t, 0x7000, FAR_OFF, TIER_CS64, 0, 0, 0);
		assert_int_equal(RUN(t, tier, 0x48, 0xcb), X86_VEC_GP);
		assert_int_equal(v->gpr[X86_RSP], 0x7000);
		st_le64(t->ram + USER, FAR_OFF);
		st_le16(t->ram + USER + 8, TIER_CS64);
		if (!t->vm->is_amd) { /* AMD has no 64-bit far pointers */
			assert_int_equal(RUN(t, tier, 0x48, 0xff, 0x2b),
					 X86_VEC_GP);
			assert_int_equal(RUN(t, tier, 0x48, 0xff, 0x1b),
					 X86_VEC_GP);
			assert_int_equal(v->gpr[X86_RSP], 0x7000);
		}
		/* A gate that leads there: #GP(0), not the handler. */
		set_gate(t, X86_VEC_UD, FAR_OFF, 0);
		assert_int_equal(RUN(t, tier, 0x0f, 0x0b), X86_VEC_UD);
		assert_true(soft_deliver_exception(v));
		assert_int_equal(v->rip, HANDLER + X86_VEC_GP);
		assert_int_equal(ld_le64(t->ram + v->gpr[X86_RSP]) & ~1ull, 0);
		event_free(t);
	}
}

/* ---- 41: stacks that cannot hold a frame ---- */

/* The vector that raises it, and what the frame's stack is. */
static const struct {
	const char *name;
	u8 first;
	u64 ist;
	int last;    /* the handler that runs; -1: shutdown */
	bool df_too; /* the double fault's stack is as bad */
} stacks[] = {
	{"#UD, far off", X86_VEC_UD, FAR_OFF + 0x1000, X86_VEC_SS, false},
	{"#GP, far off", X86_VEC_GP, FAR_OFF + 0x1000, X86_VEC_DF, false},
	{"#GP, unmapped", X86_VEC_GP, UNMAPPED, X86_VEC_PF, false},
	{"#PF, unmapped", X86_VEC_PF, UNMAPPED, X86_VEC_DF, false},
	{"#PF, far off", X86_VEC_PF, FAR_OFF + 0x1000, X86_VEC_DF, false},
	{"#GP, far off, #DF too", X86_VEC_GP, FAR_OFF + 0x1000, -1, true},
	{"#PF, unmapped, #DF too", X86_VEC_PF, UNMAPPED, -1, true},
	{"#DE, far off", X86_VEC_DE, FAR_OFF + 0x1000, X86_VEC_DF, false},
	{"#PF, the edge of what is mapped", X86_VEC_PF, 0x400000 + 16,
	 X86_VEC_DF, false},
	{"#UD, misaligned", X86_VEC_UD, KSTACK + 15, X86_VEC_UD, false},
};

static int raise_first(struct testvm *t, u8 vector, enum tier tier)
{
	switch (vector) {
	case X86_VEC_UD:
		return RUN(t, tier, 0x90, 0x0f, 0x0b);
	case X86_VEC_GP: /* mov ds, bx */
		t->v->gpr[X86_RBX] = 0x1230;
		return RUN(t, tier, 0x90, 0x8e, 0xdb);
	case X86_VEC_PF:
		t->v->gpr[X86_RBX] = UNMAPPED + 0x5000;
		return RUN(t, tier, 0x90, 0x8b, 0x03);
	default: /* div ecx */
		t->v->gpr[X86_RCX] = 0;
		return RUN(t, tier, 0x90, 0xf7, 0xf1);
	}
}

static void bad_stack(size_t i, enum tier tier, u16 cs)
{
	struct testvm *t = event_new(cs);
	struct vcpu *v = t->v;
	u64 ist_top = stacks[i].ist & ~15ull, top = KSTACK;
	bool ok, has_error;

	set_gate(t, stacks[i].first, HANDLER + stacks[i].first, 1);
	st_le64(t->ram + TSS + 36, stacks[i].ist);
	if (stacks[i].df_too)
		set_gate(t, X86_VEC_DF, HANDLER + X86_VEC_DF, 1);
	assert_int_equal(raise_first(t, stacks[i].first, tier),
			 stacks[i].first);
	ok = soft_deliver_exception(v);
	if (ok != (stacks[i].last >= 0) ||
	    (ok && v->rip != HANDLER + (unsigned)stacks[i].last))
		fail_msg("%s, ring %u, %s: %s at %#llx", tier_names[tier],
			 cs & 3, stacks[i].name, ok ? "runs" : "is down",
			 (unsigned long long)v->rip);
	if (ok) {
		if (!(cs & 3))
			top = TV_STACK;
		if (stacks[i].last == stacks[i].first)
			top = ist_top;
		has_error = stacks[i].last != X86_VEC_UD;
		assert_int_equal(v->gpr[X86_RSP], top - (has_error ? 48 : 40));
		assert_int_equal(v->cpl, 0);
		/* The frame is of who was interrupted. */
		assert_int_equal(
			ld_le64(t->ram + v->gpr[X86_RSP] + (has_error ? 8 : 0)),
			TV_CODE + 1);
	}
	event_free(t);
}

static void hostile_41_bad_ist_stacks_end_in_double_or_triple_faults(void **s)
{
	(void)s;
	for (enum tier tier = 0; tier < TIERS; tier++)
		for (size_t i = 0; i < ARRAY_SIZE(stacks); i++) {
			bad_stack(i, tier, TIER_CS64);
			bad_stack(i, tier, TIER_CS64_3);
		}
}

/* IST entries behind the TSS's limit: #TS. */
static void hostile_41_short_tss_is_an_invalid_tss(void **state)
{
	(void)state;
	for (u32 limit = 0; limit < 0x68; limit++) {
		struct testvm *t = event_new(TIER_CS64_3);
		struct vcpu *v = t->v;
		bool has_rsp0 = limit >= 11, has_ist = limit >= 43;

		v->tr.limit = limit;
		set_gate(t, X86_VEC_UD, HANDLER + X86_VEC_UD, 1);
		st_le64(t->ram + TSS + 36, KSTACK);
		assert_int_equal(RUN(t, TIER_XLAT, 0x0f, 0x0b), X86_VEC_UD);
		if (!soft_deliver_exception(v))
			assert_false(has_rsp0 || has_ist);
		else
			assert_int_equal(
				v->rip,
				HANDLER + (has_ist ? X86_VEC_UD : X86_VEC_TS));
		event_free(t);
	}
}

/* ---- 41: shadows and single steps ---- */

/* POPF that sets TF traps behind the instruction after it; a block that goes
 * on would run past. */
static void hostile_41_popf_that_sets_tf_traps_one_instruction_later(void **s)
{
	(void)s;
	for (enum tier tier = 0; tier < TIERS; tier++) {
		struct testvm *t = event_new(TIER_CS64);
		struct vcpu *v = t->v;

		/* push 0x102; popfq; inc ecx; inc ecx */
		v->gpr[X86_RCX] = 0;
		assert_int_equal(RUN(t, tier, 0x68, 2, 1, 0, 0, 0x9d, 0xff,
				     0xc1, 0xff, 0xc1),
				 X86_VEC_DB);
		assert_int_equal(v->rip, TV_CODE + 8);
		assert_int_equal(v->gpr[X86_RCX], 1);
		assert_true(v->exc.is_trap);
		assert_int_equal(v->exc.dr6 & BIT64(14), BIT64(14));
		/* the same by IRET */
		soft_set_rflags(v, 2);
		v->gpr[X86_RSP] = 0x7000;
		put_iret(t, 0x7000, TV_CODE + 2, TIER_CS64, 0x102, 0x7100,
			 TV_DS0);
		assert_int_equal(
			RUN(t, tier, 0x48, 0xcf, 0xff, 0xc1, 0xff, 0xc1),
			X86_VEC_DB);
		assert_int_equal(v->rip, TV_CODE + 4);
		/* MOV SS holds the trap back by one more. */
		soft_set_rflags(v, 0x102);
		v->gpr[X86_RAX] = TV_DS0;
		assert_int_equal(
			RUN(t, tier, 0x8e, 0xd0, 0xff, 0xc1, 0xff, 0xc1),
			X86_VEC_DB);
		assert_int_equal(v->rip, TV_CODE + 4);
		/* A run of them holds it back once only: on AMD and Intel a
		 * guest gets no further than one instruction. */
		soft_set_rflags(v, 0x102);
		assert_int_equal(RUN(t, tier, 0x8e, 0xd0, 0x8e, 0xd0, 0x8e,
				     0xd0, 0x8e, 0xd0),
				 X86_VEC_DB);
		assert_in_range(v->rip, TV_CODE + 4, TV_CODE + 8);
		/* STI does not hold back a trap. */
		soft_set_rflags(v, 0x102);
		assert_int_equal(RUN(t, tier, 0xfb, 0xff, 0xc1), X86_VEC_DB);
		assert_int_equal(v->rip, TV_CODE + 1);
		event_free(t);
	}
}

/* ---- NMI in a shadow: a device whose read asks for one ---- */

#define DEV 0x30000000u

static u64 nmi_read(void *opaque, u64 off, unsigned size)
{
	struct vcpu **v = opaque;

	(void)off;
	(void)size;
	soft_request_nmi(*v);
	return TV_DS0;
}

static const struct io_ops nmi_ops = {
	.read = nmi_read, .min_size = 1, .max_size = 8};

static void hostile_41_nmi_waits_for_the_shadow_of_mov_ss(void **state)
{
	static struct vcpu *who;
	static struct io_region region = {.name = "nmi",
					  .space = IO_MMIO,
					  .base = DEV,
					  .size = 0x1000,
					  .ops = &nmi_ops,
					  .opaque = &who};
	/* mov ss/ds, [rbx]; inc ecx; inc ecx; jmp $ */
	static const u8 codes[2][8] = {
		{0x8e, 0x13, 0xff, 0xc1, 0xff, 0xc1, 0xeb, 0xfe},
		{0x8e, 0x1b, 0xff, 0xc1, 0xff, 0xc1, 0xeb, 0xfe}};
	struct err err = {0};

	(void)state;
	for (int i = 0; i < 4; i++) {
		struct testvm *t = event_new(TIER_CS64);
		struct xlat *x = t->vm->xlat;
		struct vcpu *v = t->v;

		who = v;
		if (!region.is_mapped)
			assert_int_equal(mem_io_add(t->mem, &region), 0);
		st_le64(t->ram + TIER_TABLES + 0x2010, DEV | 0x83);
		v->gpr[X86_RBX] = 0x400000;
		v->gpr[X86_RCX] = 0;
		tier_load(t, TV_CODE, codes[i / 2], 8);
		/* The NMI's handler has no IDT: it keeps RIP, and is down. */
		tier_load(t, HANDLER + X86_VEC_NMI,
			  "\x8f\x04\x25\x00\x70\x00\x00" /* pop [0x7000] */
			  "\x68\x00\x00\x00\x00\x6a\x00" /* push 0; push 0 */
			  "\x0f\x01\x1c\x24\x0f\x0b",	 /* lidt [rsp]; ud2 */
			  20);
		v->rip = TV_CODE;
		if (i & 1)
			t->vm->xlat = NULL;
		assert_int_equal(engine_soft.vcpu_run(v, &err),
				 VCPU_EXIT_SHUTDOWN);
		t->vm->xlat = x;
		assert_int_equal(ld_le64(t->ram + 0x7000),
				 TV_CODE + (i / 2 ? 2 : 4));
		assert_true(v->nmi_blocked);
		event_free(t);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			hostile_41_smap_stops_accesses_outside_stac_and_clac),
		cmocka_unit_test(
			hostile_41_smap_holds_for_descriptor_tables_with_ac),
		cmocka_unit_test(hostile_41_smep_stops_code_known_from_before),
		cmocka_unit_test(
			hostile_41_far_returns_of_ring_3_stay_in_ring_3),
		cmocka_unit_test(
			hostile_42_iret_to_a_far_off_address_faults_in_ring_0),
		cmocka_unit_test(hostile_42_sysret_to_a_far_off_address),
		cmocka_unit_test(
			hostile_42_far_transfers_and_gates_check_their_target),
		cmocka_unit_test(
			hostile_41_bad_ist_stacks_end_in_double_or_triple_faults),
		cmocka_unit_test(hostile_41_short_tss_is_an_invalid_tss),
		cmocka_unit_test(
			hostile_41_popf_that_sets_tf_traps_one_instruction_later),
		cmocka_unit_test(hostile_41_nmi_waits_for_the_shadow_of_mov_ss),
	};

	return test_run("hostile_event", tests);
}
