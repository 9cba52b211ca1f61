/* SPDX-License-Identifier: Apache-2.0 */
/* System operations of generated code against the interpreter's handlers: the
 * same start, run by either, must end in the same state, and what is left to
 * the interpreter must be untouched. */
#include "test/test.h"

#include "soft/apic_int.h"
#include "soft/leafvm.h"
#include "soft/xlat_int.h"

#define FRAME (LV_DATA + 0x800)

typedef u32 (*leaf_fn)(struct vcpu *v, u32 arg);

struct op {
	const char *name;
	leaf_fn fn;
	u32 arg;
	u8 len;
	u8 code[6];
	bool is_msr; /* RCX chooses */
};

static const struct op ops[] = {
	{"syscall", soft_syscall_leaf, 0, 2, {0x0f, 0x05}},
	{"sysret", soft_sysret_leaf, 0, 3, {0x48, 0x0f, 0x07}},
	{"iretq", soft_iretq_leaf, 0, 2, {0x48, 0xcf}},
	{"swapgs", soft_swapgs_leaf, 0, 3, {0x0f, 0x01, 0xf8}},
	{"pushfq", soft_pushf_leaf, 0, 1, {0x9c}},
	{"popfq", soft_popf_leaf, 0, 1, {0x9d}},
	{"rdpid r9", soft_rdpid_leaf, 9, 5, {0xf3, 0x41, 0x0f, 0xc7, 0xf9}},
	{"rdmsr", soft_rdmsr_leaf, 0, 2, {0x0f, 0x32}, .is_msr = true},
	{"wrmsr", soft_wrmsr_leaf, 0, 2, {0x0f, 0x30}, .is_msr = true},
	{"mov rbx,cr0", soft_rdcr_leaf, 3 | 0 << 4, 3, {0x0f, 0x20, 0xc3}},
	{"mov rsi,cr2", soft_rdcr_leaf, 6 | 2 << 4, 3, {0x0f, 0x20, 0xd6}},
	{"mov rax,cr3", soft_rdcr_leaf, 0 | 3 << 4, 3, {0x0f, 0x20, 0xd8}},
	{"mov rdi,cr4", soft_rdcr_leaf, 7 | 4 << 4, 3, {0x0f, 0x20, 0xe7}},
	{"mov rdx,cr8",
	 soft_rdcr_leaf,
	 2 | 8 << 4,
	 4,
	 {0x44, 0x0f, 0x20, 0xc2}},
	{"clts", soft_clts_leaf, 0, 2, {0x0f, 0x06}},
	{"mov cr3,rbx", soft_wrcr_leaf, 3 | 3 << 4, 3, {0x0f, 0x22, 0xdb}},
	{"invlpg [rbx]", soft_invlpg_reg_leaf, 3, 3, {0x0f, 0x01, 0x3b}},
	{"rdfsbase rbx",
	 soft_rdbase_leaf,
	 3 | LEAF_BASE_64,
	 5,
	 {0xf3, 0x48, 0x0f, 0xae, 0xc3}},
	{"rdgsbase r9d",
	 soft_rdbase_leaf,
	 9 | LEAF_BASE_GS,
	 5,
	 {0xf3, 0x41, 0x0f, 0xae, 0xc9}},
	{"wrfsbase ecx", soft_wrbase_leaf, 1, 4, {0xf3, 0x0f, 0xae, 0xd1}},
	{"wrgsbase rcx",
	 soft_wrbase_leaf,
	 1 | LEAF_BASE_GS | LEAF_BASE_64,
	 5,
	 {0xf3, 0x48, 0x0f, 0xae, 0xd9}},
	{"pause", soft_pause_leaf, 0, 2, {0xf3, 0x90}},
};

static u64 random_pointer(u64 *seed)
{
	u64 r = lv_random(seed);

	switch (r & 7) {
	case 0:
		return r; /* seldom canonical */
	case 1:
		return 0xffffffff80000000ull | r >> 34;
	default:
		return r >> 20;
	}
}

static u64 random_flags(u64 *seed)
{
	u64 r = lv_random(seed);
	u64 flags = r & 0x2cd7; /* arithmetic, IF, DF, IOPL's upper bit */

	switch (r >> 40 & 31) {
	case 0:
		return flags | X86_FL_TF;
	case 1:
		return flags | X86_FL_NT;
	case 2:
		return flags | X86_FL_RF;
	case 3:
		return flags | X86_FL_VM;
	case 4:
		return flags | X86_FL_VIF | X86_FL_VIP;
	}
	return flags | (r >> 20 & (X86_FL_AC | X86_FL_ID));
}

/* What IRET and POPF find, at v->gpr[X86_RSP]. */
static void random_frame(struct testvm *t, const struct op *op, u64 *seed)
{
	static const u16 code[] = {LV_CS0, LV_CS3, LV_CS3, LV_CS0, LV_CS3_32,
				   LV_DS3, 0,	   0x30,   0x4b};
	static const u16 data[] = {LV_DS0, LV_DS3, 0, 3, LV_CS0, 0x30};
	u64 r = lv_random(seed);
	u8 *p = t->ram + LV_PHYS + 0x800;
	u16 cs = code[r % ARRAY_SIZE(code)], ss = data[(r >> 8) % 6];

	if (r >> 16 & 3)
		ss = (cs & 3) ? LV_DS3 : (r >> 20 & 1) ? LV_DS0 : 0;
	memset(t->ram + LV_PHYS, (int)r, 4096);
	if (op->fn == soft_popf_leaf) {
		st_le64(p, random_flags(seed));
		return;
	}
	st_le64(p, random_pointer(seed));
	st_le64(p + 8, cs);
	st_le64(p + 16, random_flags(seed));
	st_le64(p + 24, random_pointer(seed));
	st_le64(p + 32, ss);
}

static void random_descriptors(struct testvm *t, u64 *seed)
{
	u64 r = lv_random(seed);
	u64 bit = BIT64(40 + (r >> 8) % 16);
	u8 *d = t->ram + TV_GDT + 8 + (r >> 16) % 5 * 8;

	if (!(r & 7)) /* one of type, S, DPL, P, AVL, L, D, G is another */
		st_le64(d, ld_le64(d) ^ bit);
}

/* A value for CR3, often a good one, and CR4.PCIDE. */
static void random_cr3(struct vcpu *v, u64 r)
{
	v->cr4 &= ~X86_CR4_PCIDE;
	if (r & 1)
		v->cr4 |= X86_CR4_PCIDE;
	v->gpr[X86_RBX] = LV_PML4 | (r >> 8 & 0xf);
	if (r & 2)
		v->gpr[X86_RBX] |= BIT64(63);
	if (!(r & 0x70))
		v->gpr[X86_RBX] |= BIT64(40 + (r >> 16) % 24);
}

static void random_state(struct testvm *t, const struct op *op, u64 *seed)
{
	static const u32 msrs[] = {X86_MSR_FS_BASE,
				   X86_MSR_GS_BASE,
				   X86_MSR_KERNEL_GS_BASE,
				   X86_MSR_SPEC_CTRL,
				   X86_MSR_PRED_CMD,
				   X86_MSR_LSTAR,
				   0x12345};
	struct vcpu *v = t->v;
	u64 r = lv_random(seed);

	for (unsigned i = 0; i < 16; i++)
		v->gpr[i] = lv_random(seed);
	v->gpr[X86_RSP] = FRAME;
	if (!(r & 0xf0))
		v->gpr[X86_RSP] = LV_DATA + 0xff0; /* crosses the page */
	if (op->is_msr) {
		v->gpr[X86_RCX] = msrs[r % 7] | (r >> 60) << 32;
		v->gpr[X86_RDX] = r >> 8 & 1 ? 0 : random_pointer(seed) >> 32;
		v->gpr[X86_RAX] = r >> 9 & 1 ? r >> 40 & 15 : v->gpr[X86_RAX];
	} else {
		v->gpr[X86_RCX] = random_pointer(seed);
	}
	v->gpr[11] = random_flags(seed);
	v->aflags = (u32)(r >> 40 & 0xd501) | 0x200;
	v->rflags_sys = 2 | (r >> 12 & (X86_FL_IF | X86_FL_DF | X86_FL_IOPL));
	if (!(r >> 32 & 15))
		v->rflags_sys |= X86_FL_NT;
	v->star = (u64)0x001b0008 << 32;
	v->lstar = random_pointer(seed);
	v->sfmask = r >> 20 & 0x47700;
	v->kernel_gs_base = r >> 3 & 0xffffffff;
	v->tsc_aux = r >> 33;
	v->segs[X86_GS].base = r >> 17;
	v->cr2 = r;
	v->cr0 = (v->cr0 & ~X86_CR0_TS) | (r >> 50 & X86_CR0_TS);
	v->segs[X86_FS].base = r >> 16;
	v->cr4 |= X86_CR4_FSGSBASE;
	if (!(r >> 36 & 7))
		v->cr4 &= ~X86_CR4_FSGSBASE;
	v->efer |= X86_EFER_SCE;
	if (!(r >> 55 & 15))
		v->efer &= ~X86_EFER_SCE;
	v->nmi_blocked = r >> 59 & 1;
	atomic_store(&v->requests, r >> 60 & 1 && op->fn != soft_wrmsr_leaf
					   ? SOFT_REQ_INTR
					   : 0);
	atomic_store(&v->go, SOFT_GO);
	v->shadow = 0;
	if (op->fn == soft_wrcr_leaf)
		random_cr3(v, lv_random(seed));
	v->rip = TV_CODE;
	v->key = v->cpl ? XLAT_KEY_USER : 0;
	v->super.jc_key = 0;
	v->user->jc_key = XLAT_KEY_USER;
}

static void check_key(const struct vcpu *v, const struct op *op, u32 rc)
{
	const struct soft_space *s = v->cpl ? v->user : &v->super;

	if (rc != LEAF_JUMP && rc != LEAF_DONE)
		return;
	assert_int_equal(v->key, v->cpl ? XLAT_KEY_USER : 0);
	assert_int_equal(s->jc_key, v->key);
	assert_ptr_equal(v->tlb_now, s->tlb);
	if (rc == LEAF_JUMP)
		assert_false(soft_is_kicked(v));
}

/* Returns whether the leaf did it. */
static bool compare_one(struct testvm *t, const struct op *op, u64 *seed)
{
	struct lv_state start, want, got;
	struct vcpu *v = t->v;
	static u8 before[4096], after[4096];
	int vector;
	u32 rc;

	lv_tables(t);
	lv_mode(t, lv_random(seed) & 3 ? 0 : 3, false);
	random_descriptors(t, seed);
	random_state(t, op, seed);
	random_frame(t, op, seed);
	lv_save(v, &start);
	memcpy(before, t->ram + LV_PHYS, sizeof(before));
	vector = tv_run(t, 1);
	lv_save(v, &want);
	memcpy(after, t->ram + LV_PHYS, sizeof(after));

	lv_restore(v, &start);
	memcpy(t->ram + LV_PHYS, before, sizeof(before));
	v->next_rip = v->rip + op->len;
	rc = op->fn(v, op->arg);
	if (rc == LEAF_T0) {
		lv_save(v, &got);
		assert_memory_equal(&got, &start, sizeof(got));
		assert_memory_equal(t->ram + LV_PHYS, before, sizeof(before));
		return false;
	}
	check_key(v, op, rc);
	if (rc == LEAF_DONE)
		v->rip = v->next_rip;
	lv_save(v, &got);
	if (vector != -1 || memcmp(&got, &want, sizeof(got)))
		print_message("%s\n", op->name);
	assert_int_equal(vector, -1);
	assert_memory_equal(got.gpr, want.gpr, sizeof(got.gpr));
	assert_int_equal(got.rip, want.rip);
	assert_int_equal(got.aflags, want.aflags);
	assert_int_equal(got.rflags_sys, want.rflags_sys);
	assert_memory_equal(&got, &want, sizeof(got));
	assert_memory_equal(t->ram + LV_PHYS, after, sizeof(after));
	return true;
}

static void system_operations_are_as_the_interpreter_does_them(void **state)
{
	struct testvm *t = lv_new();
	u64 seed = 0xabcdef123;

	for (unsigned i = 0; i < ARRAY_SIZE(ops); i++) {
		unsigned done = 0;

		tv_load(t, TV_CODE, ops[i].code, ops[i].len);
		for (unsigned j = 0; j < 1500; j++)
			done += compare_one(t, &ops[i], &seed);
		if (done < 100)
			print_message("%s: %u\n", ops[i].name, done);
		assert_true(done >= 100);
	}
	tv_free(t);
}

static void a_jump_cache_of_another_mode_is_left_to_the_dispatcher(void **state)
{
	struct testvm *t = lv_new();
	struct vcpu *v = t->v;

	lv_mode(t, 3, false);
	v->star = (u64)0x001b0008 << 32;
	v->lstar = 0xffffffff81000000ull;
	v->key = XLAT_KEY_USER;
	v->super.jc_key = XLAT_KEY_NM;
	v->rip = TV_CODE;
	v->next_rip = TV_CODE + 2;
	assert_int_equal(soft_syscall_leaf(v, 0), LEAF_LEAVE);
	assert_int_equal(v->rip, v->lstar);
	assert_int_equal(v->cpl, 0);
	tv_free(t);
}

static void a_spinning_vcpu_yields_where_there_are_others(void **state)
{
	struct testvm *t = lv_new();
	struct vcpu *v = t->v;
	u32 count = v->vm->vcpu_count;

	for (unsigned i = 0; i < 4 * SOFT_PAUSES_PER_YIELD; i++) {
		v->vm->vcpu_count = i < 2 * SOFT_PAUSES_PER_YIELD ? 1 : 3;
		assert_int_equal(soft_pause_leaf(v, 0), LEAF_DONE);
	}
	assert_int_equal(v->stats.pauses, 4 * SOFT_PAUSES_PER_YIELD);
	assert_int_equal(v->stats.yields, 2);
	v->vm->vcpu_count = count;
	tv_free(t);
}

static bool serializes(const struct op *op)
{
	return op->fn == soft_iretq_leaf || op->fn == soft_wrmsr_leaf ||
	       op->fn == soft_wrcr_leaf || op->fn == soft_invlpg_reg_leaf;
}

static void doubts_send_serializing_operations_to_the_interpreter(void **state)
{
	struct testvm *t = lv_new();
	struct vcpu *v = t->v;
	u64 seed = 1;

	atomic_store(&v->vm->xlat->doubts, 1);
	for (unsigned i = 0; i < ARRAY_SIZE(ops); i++) {
		for (unsigned k = 0; serializes(&ops[i]) && k < 100; k++) {
			random_state(t, &ops[i], &seed);
			random_frame(t, &ops[i], &seed);
			v->next_rip = v->rip + ops[i].len;
			assert_int_equal(ops[i].fn(v, ops[i].arg), LEAF_T0);
		}
	}
	atomic_store(&v->vm->xlat->doubts, 0);
	tv_free(t);
}

static void rdtsc_counts_on_and_obeys_tsd(void **state)
{
	struct testvm *t = lv_new();
	struct vcpu *v = t->v;
	u64 before = soft_tsc(v), tsc;

	v->tsc_aux = 7;
	assert_int_equal(soft_rdtsc_leaf(v, 1), LEAF_DONE);
	tsc = v->gpr[X86_RAX] | v->gpr[X86_RDX] << 32;
	assert_true(tsc >= before && tsc <= soft_tsc(v));
	assert_int_equal(v->gpr[X86_RCX], 7);
	lv_mode(t, 3, false);
	assert_int_equal(soft_rdtsc_leaf(v, 0), LEAF_DONE);
	v->cr4 |= X86_CR4_TSD;
	assert_int_equal(soft_rdtsc_leaf(v, 0), LEAF_T0);
	tv_free(t);
}

/* Puts vectors in service and pending; returns WRMSR's outcome. */
static u32 eoi(struct testvm *t, bool is_leaf, u8 in_service, u8 pending,
	       bool is_level)
{
	struct soft_apic *a = t->v->apic;
	struct vcpu *v = t->v;

	memset(a->isr, 0, sizeof(a->isr));
	for (unsigned i = 0; i < 8; i++) {
		apic_st(&a->irr[i], 0);
		apic_st(&a->tmr[i], 0);
	}
	a->isr[1] = BIT32(1);
	a->isr[in_service >> 5] |= BIT32(in_service & 31);
	apic_st(&a->irr[pending >> 5], BIT32(pending & 31));
	if (is_level)
		apic_st(&a->tmr[in_service >> 5], BIT32(in_service & 31));
	atomic_store(&v->requests, 0);
	atomic_store(&v->go, SOFT_GO);
	v->gpr[X86_RCX] = 0x80b;
	v->gpr[X86_RAX] = v->gpr[X86_RDX] = 0;
	v->rip = TV_CODE;
	v->next_rip = TV_CODE + 2;
	if (is_leaf)
		return soft_wrmsr_leaf(v, 0);
	assert_int_equal(tv_run(t, 1), -1);
	return LEAF_DONE;
}

static void eoi_of_an_edge_interrupt_lets_the_next_in(void **state)
{
	struct testvm *t = lv_new();
	struct vcpu *v = t->v;
	struct soft_apic *a = v->apic;

	TV_CODE_AT(t, TV_CODE, 0x0f, 0x30);
	assert_int_equal(eoi(t, true, 0x61, 0x45, false), LEAF_T0);
	assert_true(a->isr[3] == BIT32(1)); /* not in x2APIC mode */
	atomic_store(&a->base, a->base | APIC_BASE_EN | APIC_BASE_EXTD);
	apic_st(&a->svr, 0x1ff);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(eoi(t, i, 0x61, 0x45, false), LEAF_DONE);
		assert_true(!a->isr[3] && a->isr[1] == BIT32(1));
		assert_int_equal(atomic_load(&v->requests), SOFT_REQ_INTR);
		assert_true(soft_is_kicked(v));
		assert_int_equal(eoi(t, i, 0x61, 0x22, false), LEAF_DONE);
		assert_int_equal(atomic_load(&v->requests), 0);
		assert_false(soft_is_kicked(v));
	}
	/* A level interrupt's device hears of it. */
	assert_int_equal(eoi(t, true, 0x61, 0x45, true), LEAF_T0);
	assert_true(a->isr[3] == BIT32(1));
	tv_free(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			system_operations_are_as_the_interpreter_does_them),
		cmocka_unit_test(
			a_jump_cache_of_another_mode_is_left_to_the_dispatcher),
		cmocka_unit_test(eoi_of_an_edge_interrupt_lets_the_next_in),
		cmocka_unit_test(
			doubts_send_serializing_operations_to_the_interpreter),
		cmocka_unit_test(a_spinning_vcpu_yields_where_there_are_others),
		cmocka_unit_test(rdtsc_counts_on_and_obeys_tsd),
	};

	return test_run("sys_leaf", tests);
}
