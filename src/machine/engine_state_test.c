/* SPDX-License-Identifier: Apache-2.0 */
/* The state of a vCPU under both engines: alike at power-on, whole through get
 * and set, and carried from one engine to the other. */
#include "test/test.h"

#include <stdlib.h>

#include "base/buf.h"
#include "machine/microvm.h"
#include "x86/regs.h"

#define APIC_VERSION 0x30

static struct vcpu_state *state_new(void)
{
	struct vcpu_state *vs = calloc(1, sizeof(*vs));

	assert_non_null(vs);
	return vs;
}

static u64 *msr(struct vcpu_state *vs, u32 index)
{
	for (u32 i = 0; i < vs->msr_count; i++)
		if (vs->msrs[i].index == index)
			return (u64 *)&vs->msrs[i].data;
	return NULL;
}

/* What differs by design: KVM's APIC has another version; time goes on. */
static void forget_differences(struct vcpu_state *vs)
{
	static const u32 moving[] = {X86_MSR_TSC, 0x4b564d00, 0x4b564d01};

	st_le32(vs->lapic.regs + APIC_VERSION, 0);
	for (size_t i = 0; i < ARRAY_SIZE(moving); i++)
		if (msr(vs, moving[i]))
			*msr(vs, moving[i]) = 0;
	/* MXCSR_MASK is the CPU's, not the guest's. */
	vs->xsave.region[7] = 0;
	/* A component in its initial state may be absent. */
	vs->xsave.region[128] |= 3;
}

static void compare_bytes(const char *what, const void *a, const void *b,
			  size_t n)
{
	const u8 *x = a, *y = b;

	for (size_t i = 0; i < n; i++)
		if (x[i] != y[i])
			fail_msg("%s: byte 0x%zx is 0x%x and 0x%x", what, i,
				 x[i], y[i]);
}

#define COMPARE(part) compare_bytes(#part, &a->part, &b->part, sizeof(a->part))

static void compare_msrs(struct vcpu_state *a, struct vcpu_state *b)
{
	for (u32 i = 0; i < a->msr_count; i++) {
		u32 index = a->msrs[i].index;
		const u64 *y = msr(b, index);

		if (y && *y != a->msrs[i].data)
			fail_msg("MSR 0x%x: 0x%llx and 0x%llx", index,
				 a->msrs[i].data, (unsigned long long)*y);
		if (!y)
			assert_int_equal(a->msrs[i].data, 0);
	}
}

static void compare_states(struct vcpu_state *a, struct vcpu_state *b)
{
	forget_differences(a);
	forget_differences(b);
	COMPARE(regs);
	COMPARE(sregs.cs);
	COMPARE(sregs.ds);
	COMPARE(sregs.es);
	COMPARE(sregs.fs);
	COMPARE(sregs.gs);
	COMPARE(sregs.ss);
	COMPARE(sregs.tr);
	COMPARE(sregs.ldt);
	COMPARE(sregs);
	COMPARE(xcrs);
	COMPARE(xsave);
	COMPARE(debugregs);
	COMPARE(events);
	COMPARE(mp_state);
	COMPARE(lapic);
	compare_msrs(a, b);
}

static void power_on_is_the_same_under_both_engines(void **state)
{
	struct vcpu_state *a = state_new(), *b = state_new();
	struct micro_pair p;

	(void)state;
	micro_pair_new(&p, 2);
	for (u32 i = 0; i < 2; i++) {
		micro_get(p.soft, i, a);
		micro_get(p.kvm, i, b);
		compare_states(a, b);
	}
	micro_pair_free(&p);
	free(a);
	free(b);
}

MICRO_GUEST(dirties, 32,
	    "mov eax, 1\n mov ebx, 2\n mov ecx, 0xc0000082\n wrmsr\n"
	    "mov ecx, 0x277\n rdmsr\n mov al, 0\n wrmsr\n"
	    "mov eax, 0x1000\n mov cr3, eax\n mov al, 1\n" MICRO_END);

static void reset_leaves_nothing_of_the_guest(void **state)
{
	struct vcpu_state *a = state_new(), *b = state_new();
	struct micro_pair p;

	(void)state;
	micro_pair_new(&p, 1);
	micro_get(p.kvm, 0, a);
	micro_load(p.kvm, MICRO_PROTECTED, dirties, dirties_end);
	micro_run_to_stop(p.kvm);
	p.kvm->ops->vcpu_reset(p.kvm->v[0]);
	micro_get(p.kvm, 0, b);
	assert_true(*msr(b, X86_MSR_TSC) > *msr(a, X86_MSR_TSC));
	compare_states(a, b);
	micro_pair_free(&p);
	free(a);
	free(b);
}

/* ---- a state with something in every struct ---- */

static void fill_fpu(struct vcpu_state *vs)
{
	u8 *x = (u8 *)vs->xsave.region;

	memset(x, 0, sizeof(vs->xsave.region));
	st_le16(x, 0x027f);	/* FCW */
	st_le16(x + 2, 0x3800); /* FSW: TOP 7 */
	x[4] = 0x80;		/* FTW: one register in use */
	st_le32(x + 24, 0x1fa0);
	st_le64(x + 32, 0xc000000000000000ull);
	st_le16(x + 40, 0x4000);
	for (u32 i = 0; i < 256; i++)
		x[160 + i] = (u8)(i * 7 + 1);
	st_le64(x + 512, 3);
}

static void fill_lapic(struct vcpu_state *vs)
{
	char *a = vs->lapic.regs;

	st_le32(a + 0x80, 0x20);	/* TPR */
	st_le32(a + 0xd0, 0x02000000);	/* LDR */
	st_le32(a + 0xf0, 0x1ff);	/* SVR: on */
	st_le32(a + 0x110, 0x00000008); /* ISR: vector 0x23 */
	st_le32(a + 0x190, 0x00000008); /* TMR: the same */
	st_le32(a + 0x220, 0x00000100); /* IRR: vector 0x48 */
	st_le32(a + 0xa0, 0x20);	/* PPR */
	st_le32(a + 0x300, 0x000840fd); /* ICR */
	st_le32(a + 0x310, 0x01000000);
	st_le32(a + 0x320, 0x00010031); /* LVTs */
	st_le32(a + 0x350, 0x00010700);
	st_le32(a + 0x360, 0x00000400);
	st_le32(a + 0x370, 0x000000fe);
	st_le32(a + 0x3e0, 0xb);
}

static void fill_msrs(struct vcpu_state *vs)
{
	static const struct {
		u32 index;
		u64 value;
	} values[] = {
		{0x174, 0x10},
		{0x175, 0xffff800000001000ull},
		{0x176, 0xffff800000002000ull},
		{0x200, 0x00000000c0000000ull},
		{0x201, 0x00000000c0000800ull},
		{0x250, 0x0606060606060606ull},
		{0x277, 0x0001040600070406ull},
		{0x2ff, 0xc06},
		{0xc0000081, 0x0023001000000000ull},
		{0xc0000082, 0xffffffff81000000ull},
		{0xc0000083, 0xffffffff81000100ull},
		{0xc0000084, 0x47700},
		{0xc0000102, 0xffff888000001000ull},
	};

	for (size_t i = 0; i < ARRAY_SIZE(values); i++)
		if (msr(vs, values[i].index))
			*msr(vs, values[i].index) = values[i].value;
}

static void fill_state(struct vcpu_state *vs)
{
	__u64 *r = &vs->regs.rax;

	for (u32 i = 0; i < 16; i++)
		r[i] = 0x1111111111111111ull * i + 0x80;
	vs->regs.rip = MICRO_CODE;
	vs->regs.rflags = 0x246 | X86_FL_DF;
	vs->sregs.fs.base = 0x00007f0012345000ull;
	vs->sregs.gs.base = 0xffff888012345000ull;
	vs->sregs.cr2 = 0xdeadb000;
	vs->sregs.cr4 |= X86_CR4_PGE;
	vs->sregs.cr0 |= X86_CR0_TS;
	vs->sregs.cr8 = 2;
	vs->sregs.efer |= X86_EFER_SCE | X86_EFER_NXE;
	vs->debugregs.db[0] = 0x4100;
	vs->debugregs.db[3] = 0x4200;
	vs->debugregs.dr7 = 0x400 | 2;
	vs->debugregs.dr6 = 0xffff0ff1;
	vs->events.nmi.masked = 1;
	vs->events.nmi.pending = 1;
	vs->events.interrupt.shadow = KVM_X86_SHADOW_INT_STI;
	vs->mp_state.mp_state = KVM_MP_STATE_HALTED;
	fill_fpu(vs);
	fill_lapic(vs);
	fill_msrs(vs);
	*msr(vs, X86_MSR_EFER) = vs->sregs.efer;
}

/* A state of long mode with all of that. */
static struct vcpu_state *full_state(struct micro *m)
{
	static const u8 code[] = {0xf4};
	struct vcpu_state *vs = state_new();

	micro_load(m, MICRO_LONG, code, code + 1);
	micro_get(m, 0, vs);
	fill_state(vs);
	return vs;
}

static void kvm_gives_back_what_it_was_given(void **state)
{
	struct vcpu_state *want, *got = state_new();
	struct micro_pair p;

	(void)state;
	micro_pair_new(&p, 1);
	want = full_state(p.kvm);
	micro_set(p.kvm, 0, want);
	micro_get(p.kvm, 0, got);
	compare_states(want, got);
	micro_pair_free(&p);
	free(want);
	free(got);
}

static void save(struct vcpu_state *vs, struct buf *out)
{
	struct state *s;

	buf_init(out);
	s = state_save_new(out);
	vcpu_state_visit(vs, s);
	assert_int_equal(state_finish(s, NULL), 0);
}

static void load(struct vcpu_state *vs, const struct buf *in)
{
	struct state *s = state_load_new(in->bytes, in->len);

	vcpu_state_visit(vs, s);
	assert_int_equal(state_finish(s, NULL), 0);
}

/* Through the saved form, and on to the other engine. */
static void carry(struct micro *from, struct micro *to)
{
	struct vcpu_state *want = full_state(from), *vs = state_new();
	struct buf b;

	micro_set(from, 0, want);
	micro_get(from, 0, vs);
	save(vs, &b);
	memset(vs, 0, sizeof(*vs));
	load(vs, &b);
	micro_set(to, 0, vs);
	micro_get(to, 0, vs);
	compare_states(want, vs);
	buf_fini(&b);
	free(want);
	free(vs);
}

static void a_state_of_kvm_loads_into_the_soft_engine(void **state)
{
	struct micro_pair p;

	(void)state;
	micro_pair_new(&p, 1);
	carry(p.kvm, p.soft);
	micro_pair_free(&p);
}

static void a_state_of_the_soft_engine_loads_into_kvm(void **state)
{
	struct micro_pair p;

	(void)state;
	micro_pair_new(&p, 1);
	carry(p.soft, p.kvm);
	micro_pair_free(&p);
}

/* The id is 32 bits wide there, and ICR one register. */
static void x2apic_mode_is_carried_both_ways(void **state)
{
	struct vcpu_state *vs = state_new(), *got = state_new();
	struct micro_pair p;
	struct micro *each[2];

	(void)state;
	micro_pair_new(&p, 2);
	each[0] = p.kvm;
	each[1] = p.soft;
	for (int i = 0; i < 2; i++) {
		micro_get(each[i], 1, vs);
		vs->sregs.apic_base |= 0x400;
		*msr(vs, X86_MSR_APIC_BASE) = vs->sregs.apic_base;
		st_le32(vs->lapic.regs + 0x20, 1);
		st_le32(vs->lapic.regs + 0xd0, 2); /* LDR: follows the id */
		st_le32(vs->lapic.regs + 0xf0, 0x1ff);
		st_le32(vs->lapic.regs + 0x300, 0xfd);
		st_le32(vs->lapic.regs + 0x310, 7);
		st_le32(vs->lapic.regs + 0xe0, 0); /* no DFR */
		micro_set(each[i], 1, vs);
		micro_get(each[i], 1, got);
		micro_set(each[!i], 1, got);
		micro_get(each[!i], 1, got);
		st_le32(got->lapic.regs + 0xe0, 0);
		compare_states(vs, got);
	}
	micro_pair_free(&p);
	free(vs);
	free(got);
}

static void save_load_save_is_byte_identical_under_kvm(void **state)
{
	struct vcpu_state *vs;
	struct micro_pair p;
	struct buf a, b;

	(void)state;
	micro_pair_new(&p, 1);
	vs = full_state(p.kvm);
	micro_set(p.kvm, 0, vs);
	micro_get(p.kvm, 0, vs);
	*msr(vs, X86_MSR_TSC) = 0;
	save(vs, &a);
	load(vs, &a);
	micro_set(p.kvm, 0, vs);
	micro_get(p.kvm, 0, vs);
	*msr(vs, X86_MSR_TSC) = 0;
	save(vs, &b);
	assert_int_equal(a.len, b.len);
	assert_memory_equal(a.bytes, b.bytes, a.len);
	buf_fini(&a);
	buf_fini(&b);
	micro_pair_free(&p);
	free(vs);
}

/* ---- refusals ---- */

static void expect_refusal(struct micro *m, const struct vcpu_state *vs,
			   const char *word)
{
	struct err err = {0};

	if (m->ops->vcpu_set(m->v[0], vs, &err) >= 0)
		fail_msg("taken, but for '%s'", word);
	if (!strstr(err.text, word))
		fail_msg("no '%s' in: %s", word, err.text);
}

static void kvm_refuses_illegal_states_with_the_reason(void **state)
{
	struct vcpu_state *good, *vs = state_new();
	struct micro_pair p;

	(void)state;
	micro_pair_new(&p, 1);
	good = full_state(p.kvm);
	*vs = *good;
	vs->sregs.cr0 &= ~X86_CR0_PE;
	expect_refusal(p.kvm, vs, "KVM_SET_SREGS2");
	*vs = *good;
	vs->xcrs.nr_xcrs = 0;
	expect_refusal(p.kvm, vs, "XCR0");
	*vs = *good;
	vs->xsave.region[129] = BIT32(31); /* XSTATE_BV: bit 63 */
	expect_refusal(p.kvm, vs, "KVM_SET_XSAVE");
	*vs = *good;
	vs->mp_state.mp_state = 77;
	expect_refusal(p.kvm, vs, "run state");
	*vs = *good;
	*msr(vs, X86_MSR_LSTAR) = 0x1234000000000000ull; /* not canonical */
	expect_refusal(p.kvm, vs, "MSR 0xc0000082");
	*vs = *good;
	vs->msr_count = VCPU_MSRS_MAX + 1;
	expect_refusal(p.kvm, vs, "too many MSRs");
	*vs = *good;
	vs->msrs[vs->msr_count++] =
		(struct kvm_msr_entry){.index = 0xc0ffffff, .data = 5};
	expect_refusal(p.kvm, vs, "0xc0ffffff");
	vs->msrs[vs->msr_count - 1].data = 0;
	micro_set(p.kvm, 0, vs);
	micro_pair_free(&p);
	free(good);
	free(vs);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(power_on_is_the_same_under_both_engines),
		cmocka_unit_test(reset_leaves_nothing_of_the_guest),
		cmocka_unit_test(kvm_gives_back_what_it_was_given),
		cmocka_unit_test(a_state_of_kvm_loads_into_the_soft_engine),
		cmocka_unit_test(a_state_of_the_soft_engine_loads_into_kvm),
		cmocka_unit_test(x2apic_mode_is_carried_both_ways),
		cmocka_unit_test(save_load_save_is_byte_identical_under_kvm),
		cmocka_unit_test(kvm_refuses_illegal_states_with_the_reason),
	};

	return test_run("engine_state", tests);
}
