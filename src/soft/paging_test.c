/* SPDX-License-Identifier: Apache-2.0 */
/* The 2-level and the PAE walk, in 32-bit protected mode. */
#include "test/test.h"

#include "soft/testvm.h"

#define PD    0x20000u /* 2-level: page directory; PAE: PDPTEs */
#define PT    0x21000u /* 2-level: table of va 0; PAE: directory of va 0 */
#define PT_36 0x22000u /* PAE: table of va 0 */
#define VA    0x150000u
#define FRAME 0x200000u

#define P  1u
#define W  2u
#define U  4u
#define A  0x20u
#define D  0x40u
#define PS 0x80u
#define G  0x100u

/* The low 1 MiB maps to itself, VA to FRAME by `pte`. */
static struct testvm *setup_narrow(unsigned cpl, u32 pte)
{
	struct testvm *t = tv_new();

	tv_protected(t, cpl);
	st_le32(t->ram + PD, PT | P | W | U);
	for (u32 i = 0; i < 256; i++)
		st_le32(t->ram + PT + i * 4, i << 12 | P | W | U);
	st_le32(t->ram + PT + (VA >> 12) * 4, FRAME | pte);
	st_le32(t->ram + FRAME, 0x600dda7a);
	t->v->cr3 = PD;
	t->v->cr0 |= X86_CR0_PG | X86_CR0_WP;
	soft_mode_changed(t->v);
	soft_tlb_flush(t->v, false);
	return t;
}

static struct testvm *setup_pae(unsigned cpl, u64 pte)
{
	struct testvm *t = tv_new();

	tv_protected(t, cpl);
	st_le64(t->ram + PD, PT | P);
	st_le64(t->ram + PT, PT_36 | P | W | U);
	for (u32 i = 0; i < 256; i++)
		st_le64(t->ram + PT_36 + i * 8, i << 12 | P | W | U);
	st_le64(t->ram + PT_36 + (VA >> 12) * 8, FRAME | pte);
	st_le32(t->ram + FRAME, 0x600dda7a);
	t->v->cr4 |= X86_CR4_PAE;
	t->v->efer |= X86_EFER_NXE;
	t->v->cr3 = PD;
	t->v->pdpte[0] = PT | P;
	t->v->cr0 |= X86_CR0_PG | X86_CR0_WP;
	soft_mode_changed(t->v);
	soft_tlb_flush(t->v, false);
	return t;
}

/* The error code of the #PF that an access at VA raises, or -1. */
static int fault_at(struct testvm *t, u32 va, unsigned how)
{
	struct vcpu *v = t->v;

	if (sigsetjmp(v->unwind, 0)) {
		assert_int_equal(v->exc.vector, X86_VEC_PF);
		assert_int_equal(v->exc.cr2, va);
		return (int)v->exc.error;
	}
	soft_probe(v, va, 4, how);
	return -1;
}

static int fault_of(struct testvm *t, unsigned how)
{
	return fault_at(t, VA, how);
}

struct rights_case {
	unsigned cpl;
	u32 pte;
	unsigned how;
	int error;
};

static const struct rights_case rights[] = {
	{0, P, SOFT_R, -1},
	{0, P, SOFT_W, X86_PF_P | X86_PF_W},
	{0, P | W, SOFT_W, -1},
	{0, P | U, SOFT_W, X86_PF_P | X86_PF_W},
	{0, 0, SOFT_R, 0},
	{0, W, SOFT_W, X86_PF_W},
	{3, P | W, SOFT_R, X86_PF_P | X86_PF_U},
	{3, P | U, SOFT_R, -1},
	{3, P | U, SOFT_X, -1},
	{3, P | U, SOFT_W, X86_PF_P | X86_PF_W | X86_PF_U},
	{3, P | U | W, SOFT_W, -1},
	{3, 0, SOFT_W, X86_PF_W | X86_PF_U},
	{3, P | W, SOFT_W | SOFT_SUPER, -1}, /* the CPU's own access */
	{3, P, SOFT_W | SOFT_SUPER, X86_PF_P | X86_PF_W},
};

static void rights_give_the_fault_code_in_both_formats(void **state)
{
	for (unsigned i = 0; i < ARRAY_SIZE(rights); i++) {
		const struct rights_case *c = &rights[i];
		struct testvm *t = setup_narrow(c->cpl, c->pte);

		assert_int_equal(fault_of(t, c->how), c->error);
		tv_free(t);
		t = setup_pae(c->cpl, c->pte);
		assert_int_equal(fault_of(t, c->how), c->error);
		tv_free(t);
	}
}

static void write_protection_of_ring_0_is_cr0_wp(void **state)
{
	struct testvm *t = setup_narrow(0, P | U);

	assert_true(fault_of(t, SOFT_W) >= 0);
	t->v->cr0 &= ~X86_CR0_WP;
	soft_tlb_flush(t->v, false);
	assert_int_equal(fault_of(t, SOFT_W), -1);
	tv_free(t);
}

static void directory_rights_limit_those_of_the_table(void **state)
{
	struct testvm *t = setup_narrow(3, P | W | U);

	st_le32(t->ram + PD, PT | P | U);
	assert_int_equal(fault_of(t, SOFT_W), X86_PF_P | X86_PF_W | X86_PF_U);
	st_le32(t->ram + PD, PT | P | W);
	assert_int_equal(fault_of(t, SOFT_R), X86_PF_P | X86_PF_U);
	tv_free(t);
}

static void accessed_and_dirty_are_set_where_they_belong(void **state)
{
	struct testvm *t = setup_narrow(0, P | W);
	u8 *pte = t->ram + PT + (VA >> 12) * 4;

	assert_int_equal(fault_of(t, SOFT_R), -1);
	assert_int_equal(ld_le32(pte), FRAME | P | W | A);
	assert_int_equal(ld_le32(t->ram + PD), PT | P | W | U | A);
	assert_int_equal(fault_of(t, SOFT_W), -1);
	assert_int_equal(ld_le32(pte), FRAME | P | W | A | D);
	assert_int_equal(ld_le32(t->ram + PD), PT | P | W | U | A);
	tv_free(t);
}

static void large_page_needs_cr4_pse(void **state)
{
	struct testvm *t = setup_narrow(0, P | W);
	u8 *pde = t->ram + PD + 4;
	u32 va = 0x400000 + VA;

	/* Without PSE the same entry names a page table. */
	st_le32(pde, PT | P | W | PS);
	assert_int_equal(soft_read(t->v, va, 4, SOFT_R), 0x600dda7a);
	t->v->cr4 |= X86_CR4_PSE;
	soft_tlb_flush(t->v, false);
	st_le32(pde, 0 | P | W | PS);
	st_le32(t->ram + VA, 0x1a46e);
	assert_int_equal(soft_read(t->v, va, 4, SOFT_R), 0x1a46e);
	assert_int_equal(ld_le32(pde), P | W | PS | A);
	soft_write(t->v, va, 4, 1, SOFT_W);
	assert_int_equal(ld_le32(pde), P | W | PS | A | D);
	tv_free(t);
}

static void reserved_bit_21_of_a_4_mib_page_faults(void **state)
{
	struct testvm *t = setup_narrow(0, P | W);

	t->v->cr4 |= X86_CR4_PSE;
	st_le32(t->ram + PD + 4, P | W | PS | BIT32(21));
	assert_int_equal(fault_at(t, 0x400000, SOFT_W),
			 X86_PF_P | X86_PF_W | X86_PF_RSVD);
	tv_free(t);
}

/* PSE-36: bits 13-20 are address bits 32-39. */
static void upper_address_bits_of_a_4_mib_page_are_used(void **state)
{
	struct testvm *t = setup_narrow(0, P | W);

	t->v->cr4 |= X86_CR4_PSE;
	st_le32(t->ram + PD + 4, P | W | PS | BIT32(13));
	/* 4 GiB: no RAM there, which reads as ones. */
	assert_int_equal(soft_read(t->v, 0x400000 + VA, 4, SOFT_R), ~0u);
	tv_free(t);
}

static void global_page_survives_a_load_of_cr3(void **state)
{
	for (int is_global = 0; is_global < 2; is_global++) {
		struct testvm *t = setup_narrow(0, P | W | (is_global ? G : 0));

		t->v->cr4 |= X86_CR4_PGE;
		assert_int_equal(fault_of(t, SOFT_R), -1);
		st_le32(t->ram + PT + (VA >> 12) * 4, 0);
		soft_cr3_write(t->v, PD);
		assert_int_equal(fault_of(t, SOFT_R), is_global ? -1 : 0);
		soft_cr4_write(t->v, t->v->cr4 & ~X86_CR4_PGE);
		assert_int_equal(fault_of(t, SOFT_R), 0);
		tv_free(t);
	}
}

static void invlpg_drops_one_page_even_if_global(void **state)
{
	struct testvm *t = setup_narrow(0, P | W | G);

	t->v->cr4 |= X86_CR4_PGE;
	assert_int_equal(fault_of(t, SOFT_R), -1);
	st_le32(t->ram + PT + (VA >> 12) * 4, 0);
	TV_CODE_AT(t, TV_CODE, 0x0f, 0x01, 0x38); /* invlpg [eax] */
	t->v->gpr[X86_RAX] = VA + 0x123;
	assert_int_equal(tv_run(t, 1), -1);
	assert_int_equal(fault_of(t, SOFT_R), 0);
	tv_free(t);
}

/* ---- PAE ---- */

static void pae_no_execute_needs_nxe(void **state)
{
	struct testvm *t = setup_pae(0, P | W | X86_PTE_NX);

	assert_int_equal(fault_of(t, SOFT_R), -1);
	assert_int_equal(fault_of(t, SOFT_X), X86_PF_P | X86_PF_I);
	t->v->efer &= ~X86_EFER_NXE;
	soft_tlb_flush(t->v, false);
	assert_int_equal(fault_of(t, SOFT_R), X86_PF_P | X86_PF_RSVD);
	tv_free(t);
}

static void pae_reserved_bits_fault_at_each_level(void **state)
{
	struct testvm *t = setup_pae(0, P | W | BIT64(62));
	u8 *pte = t->ram + PT_36 + (VA >> 12) * 8;

	assert_int_equal(fault_of(t, SOFT_R), X86_PF_P | X86_PF_RSVD);
	st_le64(pte, FRAME | P | W);
	st_le64(t->ram + PT, PT_36 | P | W | U | BIT64(55));
	assert_int_equal(fault_of(t, SOFT_R), X86_PF_P | X86_PF_RSVD);
	/* A 2 MiB page that is not aligned. */
	st_le64(t->ram + PT, 0x2000 | P | W | PS);
	assert_int_equal(fault_of(t, SOFT_R), X86_PF_P | X86_PF_RSVD);
	tv_free(t);
}

static void pae_2_mib_page_maps_without_cr4_pse(void **state)
{
	struct testvm *t = setup_pae(0, P | W);

	st_le64(t->ram + PT + 8, FRAME | P | W | PS);
	assert_int_equal(soft_read(t->v, 0x200000, 4, SOFT_R), 0x600dda7a);
	assert_int_equal(ld_le64(t->ram + PT + 8), FRAME | P | W | PS | A);
	tv_free(t);
}

static void pae_absent_pointer_is_a_plain_not_present(void **state)
{
	struct testvm *t = setup_pae(3, P | W);

	assert_int_equal(fault_at(t, 0x40000000, SOFT_W), X86_PF_W | X86_PF_U);
	tv_free(t);
}

/* mov cr3, eax */
static int load_cr3(struct testvm *t)
{
	TV_CODE_AT(t, TV_CODE, 0x0f, 0x22, 0xd8);
	t->v->rip = TV_CODE;
	t->v->gpr[X86_RAX] = PD;
	return tv_run(t, 1);
}

static void pae_pointers_are_read_when_cr3_is_loaded(void **state)
{
	struct testvm *t = setup_pae(0, P | W);

	/* The change shows only after the load. */
	st_le64(t->ram + PD + 8, PT | P);
	assert_int_equal(fault_at(t, 0x40000000 + VA, SOFT_R), 0);
	assert_int_equal(load_cr3(t), -1);
	assert_int_equal(fault_at(t, 0x40000000 + VA, SOFT_R), -1);
	/* A reserved bit in one that is present is #GP(0). */
	st_le64(t->ram + PD + 16, PT | P | W);
	assert_int_equal(load_cr3(t), X86_VEC_GP);
	assert_int_equal(t->v->exc.error, 0);
	st_le64(t->ram + PD + 16, PT | W);
	assert_int_equal(load_cr3(t), -1);
	tv_free(t);
}

static void turning_on_paging_checks_the_pae_pointers(void **state)
{
	struct testvm *t = setup_pae(0, P | W);

	t->v->cr0 &= ~X86_CR0_PG;
	soft_mode_changed(t->v);
	soft_tlb_flush(t->v, false);
	st_le64(t->ram + PD + 24, PT | P | BIT64(63));
	TV_CODE_AT(t, TV_CODE, 0x0f, 0x22, 0xc0); /* mov cr0, eax */
	t->v->gpr[X86_RAX] = t->v->cr0 | X86_CR0_PG;
	assert_int_equal(tv_run(t, 1), X86_VEC_GP);
	assert_false(t->v->cr0 & X86_CR0_PG);
	tv_free(t);
}

/* ---- accesses that cross ---- */

static void write_across_pages_is_all_or_nothing(void **state)
{
	struct testvm *t = setup_narrow(3, P | W | U);
	u32 va = VA + 0xffe;

	/* mov [mem], eax; the next page is read-only. */
	st_le32(t->ram + PT + (VA >> 12) * 4 + 4, (FRAME + 0x1000) | P | U);
	TV_CODE_AT(t, TV_CODE, 0xa3, 0xfe, 0x0f, 0x15, 0x00);
	t->v->gpr[X86_RAX] = 0xffffffff;
	assert_int_equal(tv_run(t, 1), X86_VEC_PF);
	assert_int_equal(t->v->exc.cr2, va + 2);
	assert_int_equal(t->v->exc.error, X86_PF_P | X86_PF_W | X86_PF_U);
	assert_int_equal(ld_le32(t->ram + FRAME + 0xffc), 0);
	tv_free(t);
}

static void instruction_across_pages_faults_at_the_second(void **state)
{
	struct testvm *t = setup_narrow(3, P | W | U);

	t->ram[FRAME + 0xffe] = 0xb8; /* mov eax, imm32 */
	t->v->rip = VA + 0xffe;
	assert_int_equal(tv_run(t, 1), X86_VEC_PF);
	assert_int_equal(t->v->exc.cr2, VA + 0x1000);
	assert_int_equal(t->v->exc.error, X86_PF_U);
	assert_int_equal(t->v->rip, VA + 0xffe);
	tv_free(t);
}

int main(void)
{
#define T(f) cmocka_unit_test(f)
	const struct CMUnitTest tests[] = {
		T(rights_give_the_fault_code_in_both_formats),
		T(write_protection_of_ring_0_is_cr0_wp),
		T(directory_rights_limit_those_of_the_table),
		T(accessed_and_dirty_are_set_where_they_belong),
		T(large_page_needs_cr4_pse),
		T(reserved_bit_21_of_a_4_mib_page_faults),
		T(upper_address_bits_of_a_4_mib_page_are_used),
		T(global_page_survives_a_load_of_cr3),
		T(invlpg_drops_one_page_even_if_global),
		T(pae_no_execute_needs_nxe),
		T(pae_reserved_bits_fault_at_each_level),
		T(pae_2_mib_page_maps_without_cr4_pse),
		T(pae_absent_pointer_is_a_plain_not_present),
		T(pae_pointers_are_read_when_cr3_is_loaded),
		T(turning_on_paging_checks_the_pae_pointers),
		T(write_across_pages_is_all_or_nothing),
		T(instruction_across_pages_faults_at_the_second),
	};

	return test_run("paging", tests);
}
