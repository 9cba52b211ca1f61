/* SPDX-License-Identifier: Apache-2.0 */
/* String operations of generated code against the interpreter's handlers: the
 * same start, run by either, must end in the same state. */
#include "test/test.h"

#include "soft/leafvm.h"

struct form {
	unsigned op, bytes, rep, asize;
	u8 code[8];
	unsigned len;
	bool is_32; /* compatibility mode */
};

static void form_encode(struct form *f)
{
	static const u8 opcodes[] = {0xa4, 0xaa, 0xac, 0xae, 0xa6};
	u8 *p = f->code;

	if (f->asize == 4 && !f->is_32)
		*p++ = 0x67;
	if (f->bytes == 2)
		*p++ = 0x66;
	if (f->rep)
		*p++ = f->rep == LEAF_REPE ? 0xf3 : 0xf2;
	if (f->bytes == 8)
		*p++ = 0x48;
	*p++ = opcodes[f->op] | (f->bytes > 1);
	f->len = (unsigned)(p - f->code);
}

/* Mostly a few bytes around a page's end, or anywhere in the window. */
static u64 random_address(u64 *seed, bool is_32)
{
	u64 r = lv_random(seed), va;

	va = LV_DATA + (r >> 8) % (LV_BYTES - 64);
	switch (r & 7) {
	case 0:
	case 1:
	case 2:
		va = (va | 0xfff) - (r >> 40 & 31);
		break;
	case 3:
		va = (va | 0xfff) + 1 - (r >> 40 & 3) * 8;
		break;
	case 4:
		if (r & 0x800)
			va = LV_LAST + 0xfe0 + (r >> 40 & 31);
		break;
	}
	return va;
}

static void random_registers(struct testvm *t, const struct form *f, u64 *seed)
{
	struct vcpu *v = t->v;
	u64 r = lv_random(seed);

	for (unsigned i = 0; i < 16; i++)
		v->gpr[i] = lv_random(seed);
	v->gpr[X86_RSI] = random_address(seed, f->is_32);
	v->gpr[X86_RDI] = random_address(seed, f->is_32);
	if (!(r & 3)) /* overlapping, element by element or nearly */
		v->gpr[X86_RDI] = v->gpr[X86_RSI] + (r >> 8 & 31) - 12;
	v->gpr[X86_RCX] = (r & 0x70) ? (r >> 16) % 40 : (r >> 16) % 9000;
	/* Behind the last page lies page 0, and the tables behind that. */
	if (v->gpr[X86_RSI] >= LV_LAST || v->gpr[X86_RDI] >= LV_LAST)
		v->gpr[X86_RCX] %= 64;
	if (f->asize == 4 && !f->is_32) {
		v->gpr[X86_RSI] |= (r >> 32 & 1) << 40;
		v->gpr[X86_RCX] |= (r >> 33 & 1) << 50;
	}
	if (!(r & 0x300)) /* SCAS: the likely value */
		v->gpr[X86_RAX] = 0;
	v->aflags = (u32)(r >> 40 & 0xd501) | 0x200;
	v->rflags_sys = 2;
	if (!(r >> 48 & 15))
		v->rflags_sys |= X86_FL_DF;
}

static void random_memory(struct testvm *t, u64 *seed)
{
	u64 r = lv_random(seed);

	/* Long equal runs, so that comparisons go on. */
	memset(t->ram + LV_PHYS, (int)(r & 1 ? 0 : r >> 8), LV_BYTES);
	for (unsigned i = 0; i < 24; i++) {
		u64 at = lv_random(seed);

		t->ram[LV_PHYS + at % LV_BYTES] = (u8)(at >> 40);
	}
	if (r & 2)
		for (unsigned i = 0; i < LV_BYTES; i += 8)
			st_le64(t->ram + LV_PHYS + i, lv_random(seed));
	for (unsigned i = 0; i < LV_PAGES; i++) {
		u64 bits = lv_random(seed), pte;

		pte = LV_PHYS + (bits & 0xf0 ? i : bits >> 8 & 15) * 4096u;
		if (bits & 0xf0000)
			pte |= 7;
		else if (bits & 0x100000)
			pte |= 5; /* read-only */
		lv_map(t, i, pte);
	}
	soft_tlb_flush(t->v, false);
}

static u64 arg_of(const struct form *f)
{
	return LEAF_STR_ARG(f->op, f->bytes, f->rep, f->asize);
}

/* By the leaf, and what it leaves undone by the interpreter. */
static int run_leaf(struct testvm *t, const struct form *f, unsigned *done)
{
	struct vcpu *v = t->v;
	u32 rc;

	v->next_rip = v->rip + f->len;
	rc = soft_str_leaf(v, (u32)arg_of(f));
	if (rc == LEAF_DONE) {
		v->rip = v->next_rip;
		++*done;
		return -1;
	}
	assert_int_equal(rc, LEAF_T0);
	return tv_run(t, 1);
}

static void compare_one(struct testvm *t, const struct form *f, u64 *seed,
			unsigned *done)
{
	static u8 before[LV_BYTES], after[LV_BYTES], low[4096];
	struct vcpu *v = t->v;
	struct lv_state start, want, got;
	int vector;

	random_registers(t, f, seed);
	v->rip = TV_CODE;
	lv_save(v, &start);
	memcpy(before, t->ram + LV_PHYS, LV_BYTES);
	memcpy(low, t->ram, sizeof(low));
	vector = tv_run(t, 1);
	lv_save(v, &want);
	memcpy(after, t->ram + LV_PHYS, LV_BYTES);

	lv_restore(v, &start);
	memcpy(t->ram + LV_PHYS, before, LV_BYTES);
	memcpy(t->ram, low, sizeof(low));
	if (lv_random(seed) & 1)
		soft_tlb_flush(v, false);
	assert_int_equal(run_leaf(t, f, done), vector);
	lv_save(v, &got);
	assert_memory_equal(got.gpr, want.gpr, sizeof(got.gpr));
	assert_int_equal(got.aflags, want.aflags);
	assert_memory_equal(&got, &want, sizeof(got));
	assert_memory_equal(t->ram + LV_PHYS, after, LV_BYTES);
}

static void compare_forms(bool is_32, unsigned rounds)
{
	struct testvm *t = lv_new();
	u64 seed = 0x1234567 + is_32;
	unsigned done = 0, all = 0;

	lv_mode(t, is_32 ? 3 : 0, is_32);
	for (unsigned i = 0; i < rounds * 5 * 4 * 3; i++) {
		struct form f = {.op = i % 5,
				 .bytes = 1u << (i / 5 % 4),
				 .rep = i / 20 % 3,
				 .is_32 = is_32};

		if (is_32 && f.bytes == 8)
			continue;
		f.asize = is_32 || !(lv_random(&seed) & 3) ? 4 : 8;
		form_encode(&f);
		tv_load(t, TV_CODE, f.code, f.len);
		random_memory(t, &seed);
		for (unsigned j = 0; j < 3; j++, all++)
			compare_one(t, &f, &seed, &done);
	}
	/* Else nothing was compared. */
	assert_true(done > all / 3);
	tv_free(t);
}

static void
strings_of_64_bit_code_are_as_the_interpreter_does_them(void **state)
{
	compare_forms(false, 60);
}

static void
strings_of_32_bit_code_are_as_the_interpreter_does_them(void **state)
{
	compare_forms(true, 60);
}

static void set_up(struct testvm *t, unsigned rep, u64 count, u64 from, u64 to)
{
	t->v->gpr[X86_RCX] = count;
	t->v->gpr[X86_RSI] = from;
	t->v->gpr[X86_RDI] = to;
	t->v->aflags = 0x200;
	t->v->rip = TV_CODE;
	t->v->next_rip = TV_CODE + 2 + rep;
}

static void rep_stops_for_a_kick_with_its_progress_kept(void **state)
{
	struct testvm *t = lv_new();
	struct vcpu *v = t->v;
	u64 done;

	set_up(t, LEAF_REPE, 1 * MIB, 0, 2 * MIB - 1 * MIB);
	soft_kick(v);
	assert_int_equal(
		soft_str_leaf(v, LEAF_STR_ARG(LEAF_STOS, 1, LEAF_REPE, 8)),
		LEAF_T0);
	done = v->gpr[X86_RDI] - 1 * MIB;
	assert_true(done >= 4096 && done <= 128 * KIB);
	assert_int_equal(v->gpr[X86_RCX], 1 * MIB - done);
	atomic_store(&v->go, SOFT_GO);
	assert_int_equal(
		soft_str_leaf(v, LEAF_STR_ARG(LEAF_STOS, 1, LEAF_REPE, 8)),
		LEAF_DONE);
	assert_int_equal(v->gpr[X86_RDI], 2 * MIB);
	tv_free(t);
}

static void backward_and_segmented_strings_are_left_untouched(void **state)
{
	struct testvm *t = lv_new();
	struct vcpu *v = t->v;
	u32 arg = LEAF_STR_ARG(LEAF_MOVS, 1, LEAF_REPE, 8);

	set_up(t, LEAF_REPE, 16, LV_DATA, LV_DATA + 64);
	v->rflags_sys |= X86_FL_DF;
	assert_int_equal(soft_str_leaf(v, arg), LEAF_T0);
	assert_int_equal(v->gpr[X86_RCX], 16);
	v->rflags_sys &= ~X86_FL_DF;
	assert_int_equal(soft_str_leaf(v, arg), LEAF_DONE);
	lv_mode(t, 3, true);
	v->segs[X86_ES].base = 16;
	soft_mode_changed(v);
	set_up(t, LEAF_REPE, 16, LV_DATA, LV_DATA + 64);
	assert_int_equal(
		soft_str_leaf(v, LEAF_STR_ARG(LEAF_MOVS, 1, LEAF_REPE, 4)),
		LEAF_T0);
	assert_int_equal(v->gpr[X86_RCX], 16);
	tv_free(t);
}

static void non_canonical_addresses_are_for_the_interpreter(void **state)
{
	struct testvm *t = lv_new();

	set_up(t, LEAF_REPE, 16, 0x8080808080808080ull, LV_DATA);
	assert_int_equal(
		soft_str_leaf(t->v, LEAF_STR_ARG(LEAF_MOVS, 8, LEAF_REPE, 8)),
		LEAF_T0);
	assert_int_equal(t->v->gpr[X86_RCX], 16);
	tv_free(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			strings_of_64_bit_code_are_as_the_interpreter_does_them),
		cmocka_unit_test(
			strings_of_32_bit_code_are_as_the_interpreter_does_them),
		cmocka_unit_test(rep_stops_for_a_kick_with_its_progress_kept),
		cmocka_unit_test(
			backward_and_segmented_strings_are_left_untouched),
		cmocka_unit_test(
			non_canonical_addresses_are_for_the_interpreter),
	};

	return test_run("str_leaf", tests);
}
