// SPDX-License-Identifier: Apache-2.0
/* Every opcode of every map, with prefixes and operands, in all modes: the
 * guest gets a result or an exception, the host none, and both tiers agree.
 *
 * THEORY. RAM is full of INT1, so that a program ends wherever it goes. The
 * engine's handler of SIGILL is taken away: an instruction that the host
 * refuses, because it is undefined there or in ring 3 only, ends the test.
 * What each opcode must be is the matter of decode_zydis_test.c; that what the
 * decoder refuses raises #UD, and what it admits does not, is checked here.
 */
#include "test/test.h"

#include <signal.h>

#include "soft/soft_sys.h"
#include "soft/tiervm.h"

#define DATA 0x180000u
#define CODE 0x20000u

enum mode { M_REAL, M_VM86, M_16, M_32, M_COMPAT, M_64, MODES };

static const char *const mode_names[MODES] = {
	"real", "virtual-8086", "16-bit", "32-bit", "compatibility", "64-bit"};

static struct testvm *mode_new(enum mode m)
{
	struct testvm *t = tier_new();
	struct vcpu *v = t->v;

	memset(t->ram + 0x8000, 0xf1, TIER_TABLES - 0x8000);
	memset(t->ram, 0xf1, TV_GDT);
	memset(t->ram + DATA, 0, 0x1000);
	switch (m) {
	case M_REAL:
		break;
	case M_VM86:
		tier_protected(t, 0);
		soft_set_rflags(v, X86_FL_VM | 0x3002);
		break;
	case M_16:
		tier_protected(t, 3);
		tier_segs(t, TIER_CS16_3, TV_DS3);
		break;
	case M_32:
		tier_protected(t, 3);
		break;
	case M_COMPAT:
		tier_long(t, TV_CS3);
		break;
	default:
		tier_long(t, TIER_CS64_3);
	}
	if (m <= M_16) { /* code and data in 64 KiB each */
		u32 ring = m == M_REAL ? 0 : 0x60;

		for (unsigned i = 0; i < 6; i++)
			v->segs[i] = (struct soft_seg){.sel = TV_DS3,
						       .base = DATA,
						       .limit = 0xffff,
						       .attr = 0x93 | ring};
		v->segs[X86_CS] = (struct soft_seg){.sel = TIER_CS16_3,
						    .base = CODE,
						    .limit = 0xffff,
						    .attr = 0x9b | ring};
	}
	v->cr0 |= X86_CR0_NE | X86_CR0_MP;
	v->cr4 |= X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT | X86_CR4_OSXSAVE |
		  X86_CR4_FSGSBASE;
	v->xcr0 = 7;
	soft_mode_changed(v);
	soft_tlb_flush(v, false);
	return t;
}

/* All that an instruction may have changed, but for memory. */
struct kept {
	struct soft_seg segs[6], ldtr, tr;
	struct soft_table gdtr, idtr;
	u64 cr0, cr2, cr3, cr4, efer, xcr0, dr6, dr7, rflags;
	u8 xsave[1088];
};

static void keep(const struct vcpu *v, struct kept *k)
{
	memcpy(k->segs, v->segs, sizeof(k->segs));
	memcpy(k->xsave, v->xsave, sizeof(k->xsave));
	k->ldtr = v->ldtr, k->tr = v->tr;
	k->gdtr = v->gdtr, k->idtr = v->idtr;
	k->cr0 = v->cr0, k->cr2 = v->cr2, k->cr3 = v->cr3, k->cr4 = v->cr4;
	k->efer = v->efer, k->xcr0 = v->xcr0;
	k->dr6 = v->dr6, k->dr7 = v->dr7, k->rflags = soft_rflags(v);
}

static void bring_back(struct vcpu *v, const struct kept *k)
{
	bool is_flush = v->cr0 != k->cr0 || v->cr3 != k->cr3 ||
			v->cr4 != k->cr4 || v->dr7 != k->dr7;

	memcpy(v->segs, k->segs, sizeof(k->segs));
	memcpy(v->xsave, k->xsave, sizeof(k->xsave));
	v->ldtr = k->ldtr, v->tr = k->tr;
	v->gdtr = k->gdtr, v->idtr = k->idtr;
	v->cr0 = k->cr0, v->cr2 = k->cr2, v->cr3 = k->cr3, v->cr4 = k->cr4;
	v->efer = k->efer, v->xcr0 = k->xcr0;
	v->dr6 = k->dr6, v->dr7 = k->dr7;
	soft_set_rflags(v, k->rflags);
	soft_mode_changed(v);
	if (is_flush)
		soft_tlb_flush(v, false);
}

static void set_registers(struct vcpu *v, enum mode m)
{
	u32 base = m <= M_16 ? 0x400 : DATA + 0x400;

	for (unsigned i = 0; i < 16; i++)
		v->gpr[i] = base;
	v->gpr[X86_RCX] = 1;
	v->gpr[X86_RAX] = 3;
	v->gpr[X86_RSP] = base + 0x400;
	v->rip = m <= M_16 ? 0x10 : CODE + 0x10;
}

/* Some of what it may do: where it went, and why it ended. */
struct result {
	int vector;
	u64 rip;
	u32 error;
};

static struct result run_code(struct testvm *t, enum mode m, enum tier tier,
			      const struct kept *k, const u8 *code, unsigned n)
{
	struct vcpu *v = t->v;
	struct result r;
	u8 page[0x1000];

	/* What a program may have written on its way. */
	memset(page, 0xf1, sizeof(page));
	tier_load(t, 0, page, sizeof(page));
	memcpy(page + 0x10, code, n);
	tier_load(t, CODE, page, sizeof(page));
	memset(t->ram + DATA, 0, 0x1000);
	bring_back(v, k);
	set_registers(v, m);
	v->exc.error = 0;
	r.vector = tier_run(v, tier);
	r.rip = v->rip;
	r.error = v->exc.error;
	return r;
}

static enum x86_mode decode_mode(enum mode m)
{
	return m == M_64 ? X86_MODE_64 : m < M_32 ? X86_MODE_16 : X86_MODE_32;
}

struct counts {
	unsigned undefined, defined;
};

/* #UD without reason: rows that only raise it, and those that want a register
 * or a mode that is not there. */
static bool may_be_ud(const struct insn *in, enum mode m)
{
	return in->row->class == ISA_SYS || m <= M_VM86 ||
	       in->map >= ISA_MAP_VEX_0F;
}

static void one(struct testvm *t, enum mode m, const struct kept *k,
		const u8 *bytes, unsigned n, struct counts *c)
{
	struct vcpu *v = t->v;
	u8 code[16];
	struct result r[TIERS];
	u64 start = m <= M_16 ? 0x10 : CODE + 0x10;
	struct insn in;
	int rc;

	memset(code, 0xf1, sizeof(code));
	memcpy(code, bytes, n);
	rc = x86_decode(&in, code, 15, decode_mode(m), &v->features);
	for (enum tier tier = 0; tier < (m >= M_32 ? TIERS : 1); tier++)
		r[tier] = run_code(t, m, tier, k, code, sizeof(code));
	if (rc == X86_DECODE_UD) {
		c->undefined++;
		if (r[0].vector != X86_VEC_UD || r[0].rip != start)
			fail_msg("%s: %02x %02x %02x %02x %02x: not #UD but %d",
				 mode_names[m], code[0], code[1], code[2],
				 code[3], code[4], r[0].vector);
	} else if (r[0].vector == X86_VEC_UD && r[0].rip == start &&
		   !may_be_ud(&in, m)) {
		fail_msg("%s: %02x %02x %02x %02x %02x: #UD", mode_names[m],
			 code[0], code[1], code[2], code[3], code[4]);
	} else {
		c->defined++;
	}
	/* Generated code takes a near branch to an address that is not
	 * canonical, and faults behind it. */
	if (m == M_64 && r[0].vector == X86_VEC_GP &&
	    r[1].vector == X86_VEC_GP && !soft_is_canonical(r[1].rip))
		return;
	if (m >= M_32 && (r[0].vector != r[1].vector || r[0].rip != r[1].rip ||
			  r[0].error != r[1].error))
		fail_msg(
			"%s: %02x %02x %02x %02x %02x: %d at %#llx, translated "
			"%d at %#llx",
			mode_names[m], code[0], code[1], code[2], code[3],
			code[4], r[0].vector, (unsigned long long)r[0].rip,
			r[1].vector, (unsigned long long)r[1].rip);
}

/* Prefix, map, opcode, ModRM, and bytes for displacements and immediates. */
static void sweep(struct testvm *t, enum mode m, struct counts *c)
{
	static const u8 heads[][4] = {
		{0},
		{1, 0x66},
		{1, 0xf2},
		{1, 0xf3},
		{1, 0xf0},
		{1, 0x48},
		{1, 0x0f},
		{2, 0x66, 0x0f},
		{2, 0xf2, 0x0f},
		{2, 0xf3, 0x0f},
		{2, 0xf0, 0x0f},
		{2, 0x48, 0x0f},
		{2, 0x0f, 0x38},
		{3, 0x66, 0x0f, 0x38},
		{3, 0xf2, 0x0f, 0x38},
		{3, 0xf3, 0x0f, 0x38},
		{2, 0x0f, 0x3a},
		{3, 0x66, 0x0f, 0x3a},
		{3, 0xf2, 0x0f, 0x3a},
		{2, 0xc5, 0xf8},
		{2, 0xc5, 0xf9},
		{2, 0xc5, 0xfa},
		{2, 0xc5, 0xfb},
		{2, 0xc5, 0xfd},
		{3, 0xc4, 0xe2, 0x79},
		{3, 0xc4, 0xe2, 0x7d},
		{3, 0xc4, 0xe2, 0xf9},
		{3, 0xc4, 0xe2, 0xf2},
		{3, 0xc4, 0xe3, 0x79},
		{3, 0xc4, 0xe3, 0x7d},
		{3, 0xc4, 0xe3, 0xfb},
		{3, 0x62, 0xf1, 0x7c},
		{3, 0x8f, 0xe8, 0x78},
	};
	static const u8 modrms[] = {0x03, 0x4b, 0x10, 0x38,
				    0xc1, 0xd9, 0xea, 0xf3};
	struct kept k;

	keep(t->v, &k);
	for (size_t h = 0; h < ARRAY_SIZE(heads); h++)
		for (unsigned i = 0; i < 256 * ARRAY_SIZE(modrms); i++) {
			unsigned n = heads[h][0];
			u8 b[8] = {heads[h][1], heads[h][2], heads[h][3]};

			b[n] = (u8)(i / ARRAY_SIZE(modrms));
			b[n + 1] = modrms[i % ARRAY_SIZE(modrms)];
			b[n + 2] = 0x10;
			one(t, m, &k, b, n + 5, c);
		}
}

static void hostile_30_no_opcode_in_any_mode_harms_the_host(void **state)
{
	(void)state;
	for (enum mode m = 0; m < MODES; m++) {
		struct testvm *t = mode_new(m);
		struct counts c = {0};

		signal(SIGILL, SIG_DFL);
		sweep(t, m, &c);
		assert_true(c.undefined > 10000);
		assert_true(c.defined > 10000);
		tv_free(t);
	}
}

/* Fifteen bytes are an instruction, sixteen #GP, in each mode. */
static void hostile_30_fifteen_bytes_are_the_limit_in_each_mode(void **state)
{
	static const u8 prefixes[] = {0x2e, 0x36, 0x3e, 0x26,
				      0x64, 0x65, 0x66, 0x67};

	(void)state;
	for (enum mode m = 0; m < MODES; m++) {
		struct testvm *t = mode_new(m);
		struct kept k;

		keep(t->v, &k);
		for (size_t p = 0; p < ARRAY_SIZE(prefixes); p++)
			for (unsigned n = 12; n < 20; n++) {
				u8 code[32];
				struct result r;

				memset(code, 0xf1, sizeof(code));
				memset(code, prefixes[p], n);
				code[n] = 0x90;
				r = run_code(t, m, TIER_XLAT, &k, code,
					     sizeof(code));
				if (r.vector !=
				    (n < 15 ? X86_VEC_DB : X86_VEC_GP))
					fail_msg("%s: %u times %#x: %d",
						 mode_names[m], n, prefixes[p],
						 r.vector);
			}
		tv_free(t);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			hostile_30_no_opcode_in_any_mode_harms_the_host),
		cmocka_unit_test(
			hostile_30_fifteen_bytes_are_the_limit_in_each_mode),
	};

	return test_run("hostile_opcode", tests);
}
