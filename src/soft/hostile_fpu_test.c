// SPDX-License-Identifier: Apache-2.0
/* x87, SSE and AVX where the guest's system does not allow them, images that
 * are corrupt, and exceptions that must arrive at the right instruction; in
 * the interpreter and in translated code. SDM 1 §8, §10, §11.5, §13; SDM 3A
 * §2.5, §2.6. */
#include "test/test.h"

#include "soft/soft_sys.h"
#include "soft/tiervm.h"

#define AREA	  0x100000u
#define PAGE_END  0x400000u /* of RAM, and of what is mapped */
#define OFF_MXCSR 24u
#define OFF_XMM	  160u
#define HEADER	  512u
#define AVX	  576u
#define COMPACT	  BIT64(63)

#define RUN(t, tier, ...)                                                      \
	tier_run_bytes(t, (const u8[]){__VA_ARGS__},                           \
		       sizeof((const u8[]){__VA_ARGS__}), tier)

static struct testvm *fpu_new(bool is_64)
{
	struct testvm *t = tier_new();

	tier_long(t, is_64 ? TIER_CS64 : TV_CS0);
	tier_simd(t->v);
	t->v->gpr[X86_RBX] = AREA;
	return t;
}

/* ---- 46: who may use what ---- */

enum kind { K_X87, K_MMX, K_SSE, K_AVX, K_BMI };

static const struct {
	const char *name;
	enum kind kind;
	u8 bytes[8], n;
} users[] = {
	{"fld1", K_X87, {0xd9, 0xe8}, 2},
	{"fninit", K_X87, {0xdb, 0xe3}, 2},
	{"fnsave", K_X87, {0xdd, 0x33}, 2},
	{"paddd mm", K_MMX, {0x0f, 0xfe, 0xc1}, 3},
	{"movq mm, m", K_MMX, {0x0f, 0x6f, 0x03}, 3},
	{"emms", K_MMX, {0x0f, 0x77}, 2},
	{"addps", K_SSE, {0x0f, 0x58, 0xc1}, 3},
	{"movups m, xmm", K_SSE, {0x0f, 0x11, 0x03}, 3},
	{"paddd xmm", K_SSE, {0x66, 0x0f, 0xfe, 0xc1}, 4},
	{"ldmxcsr", K_SSE, {0x0f, 0xae, 0x13}, 3},
	{"cvttss2si", K_SSE, {0xf3, 0x0f, 0x2c, 0xc0}, 4},
	{"pshufb", K_SSE, {0x66, 0x0f, 0x38, 0x00, 0xc1}, 5},
	{"vaddps ymm", K_AVX, {0xc5, 0xf4, 0x58, 0xc2}, 4},
	{"vpaddd xmm", K_AVX, {0xc5, 0xf1, 0xfe, 0xc2}, 4},
	{"vmovups ymm, m", K_AVX, {0xc5, 0xfc, 0x10, 0x03}, 4},
	{"vmovups m, ymm", K_AVX, {0xc5, 0xfc, 0x11, 0x03}, 4},
	{"vzeroupper", K_AVX, {0xc5, 0xf8, 0x77}, 3},
	{"vzeroall", K_AVX, {0xc5, 0xfc, 0x77}, 3},
	{"vldmxcsr", K_AVX, {0xc5, 0xf8, 0xae, 0x13}, 4},
	{"vmaskmovps", K_AVX, {0xc4, 0xe2, 0x75, 0x2c, 0x03}, 5},
	{"vpaddd ymm", K_AVX, {0xc5, 0xf5, 0xfe, 0xc2}, 4},
	{"vpgatherdd", K_AVX, {0xc4, 0xe2, 0x75, 0x90, 0x04, 0x13}, 6},
	{"andn", K_BMI, {0xc4, 0xe2, 0x70, 0xf2, 0xc2}, 5},
};

struct rule_case {
	bool em, ts, osfxsr, osxsave, has_avx;
	u8 xcr0;
};

/* -1: it runs. */
static int rule(enum kind k, const struct rule_case *c)
{
	switch (k) {
	case K_X87:
		return c->em || c->ts ? X86_VEC_NM : -1;
	case K_MMX:
		return c->em ? X86_VEC_UD : c->ts ? X86_VEC_NM : -1;
	case K_SSE:
		return c->em || !c->osfxsr ? X86_VEC_UD
		       : c->ts		   ? X86_VEC_NM
					   : -1;
	case K_AVX:
		if (!c->has_avx || !c->osxsave || (c->xcr0 & 6) != 6)
			return X86_VEC_UD;
		return c->ts ? X86_VEC_NM : -1;
	default:
		return -1;
	}
}

static void set_rule(struct vcpu *v, const struct rule_case *c,
		     const struct isa_features *all,
		     const struct isa_features *none)
{
	v->cr0 &= ~(X86_CR0_EM | X86_CR0_TS);
	v->cr0 |= (c->em ? X86_CR0_EM : 0) | (c->ts ? X86_CR0_TS : 0);
	v->cr4 &= ~(X86_CR4_OSFXSR | X86_CR4_OSXSAVE);
	v->cr4 |= (c->osfxsr ? X86_CR4_OSFXSR : 0) |
		  (c->osxsave ? X86_CR4_OSXSAVE : 0);
	v->xcr0 = c->xcr0;
	v->features = c->has_avx ? *all : *none;
	soft_mode_changed(v);
}

static void check_rule(struct testvm *t, size_t i, const struct rule_case *c,
		       enum tier tier)
{
	struct vcpu *v = t->v;
	int want = rule(users[i].kind, c), vector;

	soft_fpu_reset(v);
	memset(t->ram + AREA, 0, 256);
	v->gpr[X86_RDX] = 0;
	vector = tier_run_bytes(t, users[i].bytes, users[i].n, tier);
	if (want < 0 ? !tier_is_at_end(v, vector)
		     : vector != want || v->rip != TV_CODE)
		fail_msg("%s, %s: em %d ts %d osfxsr %d osxsave %d xcr0 %d "
			 "avx %d: vector %d at %#llx, not %d",
			 tier_names[tier], users[i].name, c->em, c->ts,
			 c->osfxsr, c->osxsave, c->xcr0, c->has_avx, vector,
			 (unsigned long long)v->rip, want);
}

static void hostile_46_fpu_needs_what_cr0_cr4_xcr0_and_cpuid_say(void **state)
{
	static const u8 xcr0s[] = {1, 3, 7, 5};

	(void)state;
	for (int is_64 = 0; is_64 < 2; is_64++)
		for (enum tier tier = 0; tier < TIERS; tier++) {
			struct testvm *t = fpu_new(is_64);
			struct isa_features all = t->v->features, none = all;

			none.bits &= ~(BIT64(ISA_F_AVX) | BIT64(ISA_F_AVX2) |
				       BIT64(ISA_F_FMA) | BIT64(ISA_F_F16C));
			for (unsigned m = 0; m < 128; m++) {
				struct rule_case c = {m & 1,  m & 2,
						      m & 4,  m & 8,
						      m & 16, xcr0s[m >> 5]};

				set_rule(t->v, &c, &all, &none);
				for (size_t i = 0; i < ARRAY_SIZE(users); i++)
					check_rule(t, i, &c, tier);
			}
			tv_free(t);
		}
}

/* XSETBV in ring 0 and MOV to CR4: what does not exist is #GP, and leaves the
 * register alone. */
static void hostile_46_xcr0_and_cr4_take_no_undefined_bits(void **state)
{
	struct testvm *t = fpu_new(true);
	struct vcpu *v = t->v;

	(void)state;
	for (enum tier tier = 0; tier < TIERS; tier++) {
		for (unsigned i = 0; i < 64 + 16; i++) {
			u64 value = i < 64 ? BIT64(i) | 1 : i - 64;
			bool ok = value == 1 || value == 3 || value == 7;
			int vector;

			v->xcr0 = 7;
			v->gpr[X86_RAX] = (u32)value;
			v->gpr[X86_RDX] = value >> 32;
			v->gpr[X86_RCX] = 0;
			vector = RUN(t, tier, 0x0f, 0x01, 0xd1);
			assert_int_equal(v->xcr0, ok ? value : 7);
			assert_int_equal(vector, ok ? X86_VEC_UD : X86_VEC_GP);
		}
		v->xcr0 = 7;
		v->gpr[X86_RCX] = 1; /* no such register */
		v->gpr[X86_RAX] = 7;
		v->gpr[X86_RDX] = 0;
		assert_int_equal(RUN(t, tier, 0x0f, 0x01, 0xd1), X86_VEC_GP);
		for (unsigned i = 0; i < 64; i++) {
			u64 old = v->cr4;
			int vector;

			if (BIT64(i) & soft_cr4_allowed(v))
				continue;
			v->gpr[X86_RAX] = old | BIT64(i);
			vector = RUN(t, tier, 0x0f, 0x22, 0xe0);
			assert_int_equal(vector, X86_VEC_GP);
			assert_int_equal(v->cr4, old);
		}
	}
	tv_free(t);
}

/* ---- 45: images ---- */

/* What an instruction that faults must leave: the whole state. */
static void mark_state(struct vcpu *v)
{
	soft_fpu_reset(v);
	for (unsigned i = 0; i < 256; i++) {
		v->xsave[OFF_XMM + i] = (u8)(i * 3 + 1);
		v->xsave[AVX + i] = (u8)(i * 5 + 2);
	}
	for (unsigned i = 0; i < 8; i++) { /* 1.0 in each register */
		st_le64(v->xsave + 32 + 16 * i, BIT64(63));
		st_le16(v->xsave + 40 + 16 * i, 0x3fff);
	}
	v->xsave[4] = 0xff;
}

static void fill_image(struct testvm *t, gpa_t at, u64 bv, u64 comp)
{
	u8 *p = t->ram + at;

	memset(p, 0, at + AVX + 256 <= TV_RAM ? AVX + 256 : TV_RAM - at);
	st_le16(p, 0x37f);
	if (at + OFF_MXCSR + 4 <= TV_RAM)
		st_le32(p + OFF_MXCSR, 0x1f80);
	for (unsigned i = 0; i < 256 && at + OFF_XMM + i < TV_RAM; i++)
		p[OFF_XMM + i] = 0x77;
	if (at + HEADER + 16 <= TV_RAM) {
		st_le64(p + HEADER, bv);
		st_le64(p + HEADER + 8, comp);
	}
}

struct image_case {
	const char *name;
	u8 bytes[4], n;
	u64 bv, comp;
	u16 poke; /* offset of a byte that becomes 0xff; 0: none */
	u8 rfbm, skew;
	bool is_gp;
};

#define FXRSTOR	 {0x0f, 0xae, 0x0b}, 3
#define FXSAVE	 {0x0f, 0xae, 0x03}, 3
#define LDMXCSR	 {0x0f, 0xae, 0x53, OFF_MXCSR}, 4
#define VLDMXCSR {0xc5, 0xf8, 0xae, 0x13}, 4
#define XSAVE	 {0x0f, 0xae, 0x23}, 3
#define XRSTOR	 {0x0f, 0xae, 0x2b}, 3
#define XSAVEC	 {0x0f, 0xc7, 0x23}, 3
#define XSAVEOPT {0x0f, 0xae, 0x33}, 3

// clang-format off
static const struct image_case images[] = {
	{"fxrstor", FXRSTOR, 0, 0, 0, 7, 0, false},
	{"fxrstor, mxcsr bit 16", FXRSTOR, 0, 0, OFF_MXCSR + 2, 7, 0, true},
	{"fxrstor, mxcsr bit 31", FXRSTOR, 0, 0, OFF_MXCSR + 3, 7, 0, true},
	{"fxrstor, misaligned", FXRSTOR, 0, 0, 0, 7, 8, true},
	{"fxsave, misaligned", FXSAVE, 0, 0, 0, 7, 1, true},
	{"ldmxcsr", LDMXCSR, 0, 0, 0, 7, 0, false},
	{"ldmxcsr, bit 16", LDMXCSR, 0, 0, OFF_MXCSR + 2, 7, 0, true},
	{"ldmxcsr, bit 31", LDMXCSR, 0, 0, OFF_MXCSR + 3, 7, 0, true},
	{"vldmxcsr, of 0x37f", VLDMXCSR, 0, 0, 0, 7, 0, false},
	{"vldmxcsr, bit 31", VLDMXCSR, 0, 0, 3, 7, 0, true},
	{"xsave, misaligned", XSAVE, 0, 0, 0, 7, 16, true},
	{"xsaveopt, misaligned", XSAVEOPT, 0, 0, 0, 7, 32, true},
	{"xrstor, misaligned", XRSTOR, 7, 0, 0, 7, 32, true},
	{"xrstor", XRSTOR, 7, 0, 0, 7, 0, false},
	{"xrstor, nothing", XRSTOR, 7, 0, 0, 0, 0, false},
	{"xrstor, bv bit 3", XRSTOR, 15, 0, 0, 7, 0, true},
	{"xrstor, bv bit 9", XRSTOR, 0x207, 0, 0, 7, 0, true},
	{"xrstor, bv bit 63", XRSTOR, COMPACT | 7, 0, 0, 7, 0, true},
	{"xrstor, bv bit 63 and nothing", XRSTOR, COMPACT, 0, 0, 0, 0, true},
	{"xrstor, byte 8", XRSTOR, 7, 1, 0, 7, 0, true},
	{"xrstor, byte 15 without bit 63", XRSTOR, 7, BIT64(62), 0, 7, 0, true},
	{"xrstor, byte 16", XRSTOR, 7, 0, HEADER + 16, 7, 0, true},
	{"xrstor, byte 23", XRSTOR, 7, 0, HEADER + 23, 7, 0, true},
	{"xrstor, byte 24", XRSTOR, 7, 0, HEADER + 24, 7, 0, false},
	{"xrstor, byte 63", XRSTOR, 7, 0, HEADER + 63, 7, 0, false},
	{"xrstor, mxcsr", XRSTOR, 7, 0, OFF_MXCSR + 2, 7, 0, true},
	{"xrstor, mxcsr for avx", XRSTOR, 7, 0, OFF_MXCSR + 2, 4, 0, true},
	{"xrstor, mxcsr, bv 0", XRSTOR, 0, 0, OFF_MXCSR + 2, 2, 0, true},
	{"xrstor, mxcsr for x87", XRSTOR, 7, 0, OFF_MXCSR + 2, 1, 0, false},
	{"xrstor compact", XRSTOR, 7, COMPACT | 7, 0, 7, 0, false},
	{"xrstor compact, bv beyond", XRSTOR, 7, COMPACT | 3, 0, 7, 0, true},
	{"xrstor compact, bit 3", XRSTOR, 7, COMPACT | 15, 0, 7, 0, true},
	{"xrstor compact, bit 62", XRSTOR, 7, 3 * BIT64(62) | 7, 0, 7, 0, true},
	{"xrstor compact, byte 16", XRSTOR, 7, COMPACT | 7, HEADER + 16, 7, 0,
		true},
	{"xrstor compact, byte 24", XRSTOR, 7, COMPACT | 7, HEADER + 24, 7, 0,
		true},
	{"xrstor compact, byte 63", XRSTOR, 7, COMPACT | 7, HEADER + 63, 7, 0,
		true},
	{"xrstor compact, mxcsr", XRSTOR, 7, COMPACT | 7, OFF_MXCSR + 2, 7, 0,
		true},
	{"xrstor compact, mxcsr, bv 0", XRSTOR, 0, COMPACT | 7, OFF_MXCSR + 2,
		7, 0, false},
};
// clang-format on

static void check_image(struct testvm *t, const struct image_case *c,
			enum tier tier)
{
	u8 before[sizeof(t->v->xsave)];
	struct vcpu *v = t->v;
	int vector;

	mark_state(v);
	fill_image(t, AREA + c->skew, c->bv, c->comp);
	if (c->poke)
		t->ram[AREA + c->poke] = 0xff;
	memcpy(before, v->xsave, sizeof(before));
	v->gpr[X86_RBX] = AREA + c->skew;
	v->gpr[X86_RAX] = c->rfbm;
	v->gpr[X86_RDX] = 0;
	vector = tier_run_bytes(t, c->bytes, c->n, tier);
	if (!tier_host_is_own())
		fail_msg("%s: the host's state", c->name);
	if (!c->is_gp) {
		if (!tier_is_at_end(v, vector))
			fail_msg("%s, %s: vector %d", tier_names[tier], c->name,
				 vector);
		return;
	}
	if (vector != X86_VEC_GP || v->exc.error || v->rip != TV_CODE)
		fail_msg("%s, %s: vector %d at %#llx", tier_names[tier],
			 c->name, vector, (unsigned long long)v->rip);
	if (memcmp(before, v->xsave, sizeof(before)))
		fail_msg("%s, %s: #GP, and has changed the state",
			 tier_names[tier], c->name);
}

static void hostile_45_corrupt_images_give_gp_and_change_nothing(void **state)
{
	(void)state;
	for (int is_64 = 0; is_64 < 2; is_64++)
		for (enum tier tier = 0; tier < TIERS; tier++) {
			struct testvm *t = fpu_new(is_64);

			for (size_t i = 0; i < ARRAY_SIZE(images); i++)
				check_image(t, &images[i], tier);
			tv_free(t);
		}
}

/* An image that ends where nothing is mapped: all of it or nothing. */
static void hostile_45_images_over_the_end_of_memory_fault_whole(void **state)
{
	static const struct {
		u8 bytes[4], n;
		u32 before, used; /* bytes on the last page, of how many */
		bool is_store;
	} c[] = {
		{FXSAVE, 256, 416, true},
		{FXRSTOR, 256, 512, false},
		{XSAVE, 512, 832, true},
		{XSAVE, 576, 832, true},
		{XRSTOR, 512, 832, false},
		{XRSTOR, 576, 832, false},
		{XSAVEC, 576, 832, true},
		{{0xdd, 0x33}, 2, 100, 108, true}, /* fnsave */
		{{0xdd, 0x23}, 2, 100, 108, false},
		{{0xd9, 0x33}, 2, 20, 28, true}, /* fnstenv */
		{{0xd9, 0x23}, 2, 20, 28, false},
		{{0xdb, 0x3b}, 2, 8, 10, true}, /* fstp m80 */
		{{0xdb, 0x2b}, 2, 8, 10, false},
	};

	(void)state;
	for (enum tier tier = 0; tier < TIERS; tier++)
		for (size_t i = 0; i < ARRAY_SIZE(c); i++) {
			struct testvm *t = fpu_new(true);
			struct vcpu *v = t->v;
			u8 before[sizeof(v->xsave)], page[1024];
			u32 at = PAGE_END - c[i].before;

			mark_state(v);
			fill_image(t, at, 7, 0);
			if (c[i].before > HEADER)
				st_le64(t->ram + at + HEADER, 7);
			memcpy(before, v->xsave, sizeof(before));
			memcpy(page, t->ram + PAGE_END - 1024, 1024);
			v->gpr[X86_RBX] = at;
			v->gpr[X86_RAX] = 7;
			assert_int_equal(
				tier_run_bytes(t, c[i].bytes, c[i].n, tier),
				X86_VEC_PF);
			assert_int_equal(v->exc.cr2, PAGE_END);
			assert_int_equal(v->exc.error, c[i].is_store ? 2 : 0);
			assert_int_equal(v->rip, TV_CODE);
			if (memcmp(before, v->xsave, sizeof(before)) ||
			    memcmp(page, t->ram + PAGE_END - 1024, 1024))
				fail_msg("%s: case %zu has done a part",
					 tier_names[tier], i);
			tv_free(t);
		}
}

/* ---- 45: exceptions ---- */

#define FSW(v) ld_le16((v)->xsave + 2)

/* Unmasked, an x87 exception waits for the next instruction that waits. */
static void hostile_45_mf_comes_at_the_next_waiting_instruction(void **state)
{
	static const struct {
		const char *name;
		u8 bytes[12], n;
		u8 at; /* where #MF comes; 0: it does not */
	} c[] = {
		/* fstp st0 of an empty stack, then: */
		{"fld1", {0xdd, 0xd8, 0x90, 0xd9, 0xe8}, 5, 3},
		{"fwait", {0xdd, 0xd8, 0x9b}, 3, 2},
		{"fst m", {0xdd, 0xd8, 0xd9, 0x13}, 4, 2},
		{"fldenv", {0xdd, 0xd8, 0xd9, 0x23}, 4, 2},
		{"paddd mm", {0xdd, 0xd8, 0x0f, 0xfe, 0xc1}, 5, 2},
		{"movq mm", {0xdd, 0xd8, 0x0f, 0x6f, 0x03}, 5, 2},
		{"emms", {0xdd, 0xd8, 0x0f, 0x77}, 4, 2},
		{"cvtpi2ps", {0xdd, 0xd8, 0x0f, 0x2a, 0xc0}, 5, 2},
		{"fnstsw ax", {0xdd, 0xd8, 0xdf, 0xe0}, 4, 0},
		{"fnclex", {0xdd, 0xd8, 0xdb, 0xe2, 0xd9, 0xe8}, 6, 0},
		{"fninit", {0xdd, 0xd8, 0xdb, 0xe3, 0xd9, 0xe8}, 6, 0},
		{"fnsave", {0xdd, 0xd8, 0xdd, 0x33, 0xd9, 0xe8}, 6, 0},
		{"fxsave", {0xdd, 0xd8, 0x0f, 0xae, 0x03}, 5, 0},
		{"addps", {0xdd, 0xd8, 0x0f, 0x58, 0xc1}, 5, 0},
		{"add", {0xdd, 0xd8, 0x01, 0xc0}, 4, 0},
	};

	(void)state;
	for (enum tier tier = 0; tier < TIERS; tier++)
		for (size_t i = 0; i < ARRAY_SIZE(c); i++) {
			struct testvm *t = fpu_new(true);
			struct vcpu *v = t->v;
			int vector;

			st_le16(v->xsave, 0x340); /* all unmasked */
			vector = tier_run_bytes(t, c[i].bytes, c[i].n, tier);
			if (c[i].at ? vector != X86_VEC_MF ||
					      v->rip != TV_CODE + c[i].at ||
					      !(FSW(v) & 0x80)
				    : !tier_is_at_end(v, vector))
				fail_msg("%s, %s: vector %d at %#llx, FSW %#x",
					 tier_names[tier], c[i].name, vector,
					 (unsigned long long)v->rip, FSW(v));
			assert_true(tier_host_is_own());
			tv_free(t);
		}
}

static void hostile_45_x87_stack_overflow_and_underflow_show(void **state)
{
	static const u8 nine[] = {0xd9, 0xe8, 0xd9, 0xe8, 0xd9, 0xe8,
				  0xd9, 0xe8, 0xd9, 0xe8, 0xd9, 0xe8,
				  0xd9, 0xe8, 0xd9, 0xe8, 0xd9, 0xe8};

	(void)state;
	for (enum tier tier = 0; tier < TIERS; tier++) {
		struct testvm *t = fpu_new(true);
		struct vcpu *v = t->v;

		/* masked: IE, SF, C1 for overflow; the indefinite */
		assert_true(tier_is_at_end(
			v, tier_run_bytes(t, nine, sizeof(nine), tier)));
		assert_int_equal(FSW(v) & 0x241, 0x241);
		assert_int_equal(ld_le64(v->xsave + 32), 0xc000000000000000);
		assert_int_equal(ld_le16(v->xsave + 40), 0xffff);
		/* unmasked: the ninth is not done, the next one faults */
		soft_fpu_reset(v);
		st_le16(v->xsave, 0x37e);
		assert_true(tier_is_at_end(
			v, tier_run_bytes(t, nine, sizeof(nine), tier)));
		assert_int_equal(FSW(v) & 0xc1, 0xc1);
		assert_int_equal(RUN(t, tier, 0x90, 0xd9, 0xe8), X86_VEC_MF);
		assert_int_equal(v->rip, TV_CODE + 1);
		/* underflow: IE, SF, not C1 */
		soft_fpu_reset(v);
		RUN(t, tier, 0xd8, 0xc1); /* fadd st0, st1 */
		assert_int_equal(FSW(v) & 0x241, 0x41);
		tv_free(t);
	}
}

/* An SSE exception comes at its instruction, whose result is not written, with
 * those before it done; #UD without OSXMMEXCPT. */
static void hostile_45_xm_comes_at_its_instruction(void **state)
{
	static const struct {
		const char *name;
		u8 bytes[8], n;
		u32 flags; /* in MXCSR */
	} c[] = {
		{"divps", {0x0f, 0x5e, 0xc8}, 3, 4},
		{"sqrtsd", {0xf2, 0x0f, 0x51, 0xca}, 4, 1},
		{"mulss", {0xf3, 0x0f, 0x59, 0xcb}, 4, 8},
		{"cvtps2dq", {0x66, 0x0f, 0x5b, 0xcb}, 4, 1},
		{"vdivps ymm", {0xc5, 0xf4, 0x5e, 0xc8}, 4, 4},
		{"divps, m", {0x0f, 0x5e, 0x0b}, 3, 4},
		{"vaddsd", {0xc5, 0xf3, 0x58, 0xcc}, 4, 2},
	};

	(void)state;
	for (enum tier tier = 0; tier < TIERS; tier++)
		for (size_t i = 0; i < 2 * ARRAY_SIZE(c); i++) {
			struct testvm *t = fpu_new(true);
			struct vcpu *v = t->v;
			bool has_xm = i % 2;
			u8 b[12] = {0xff, 0xc1}, xmm1[16]; /* inc ecx */
			int vector;

			memcpy(b + 2, c[i / 2].bytes, c[i / 2].n);
			if (!has_xm)
				v->cr4 &= ~X86_CR4_OSXMMEXCPT;
			st_le32(v->xsave + OFF_MXCSR, 0);
			/* xmm0 0; xmm1 2.0f; xmm2 -1.0; xmm3 max; xmm4 tiny */
			for (int k = 0; k < 4; k++) {
				st_le32(v->xsave + OFF_XMM + 16 + 4 * k,
					0x7f000000);
				st_le32(v->xsave + OFF_XMM + 48 + 4 * k,
					0x7f7fffff);
			}
			st_le64(v->xsave + OFF_XMM + 32, 0xbff0000000000000);
			st_le64(v->xsave + OFF_XMM + 64, 1);
			memcpy(xmm1, v->xsave + OFF_XMM + 16, 16);
			v->gpr[X86_RCX] = 5;
			vector = tier_run_bytes(t, b, c[i / 2].n + 2u, tier);
			if (vector != (has_xm ? X86_VEC_XM : X86_VEC_UD) ||
			    v->rip != TV_CODE + 2 || v->gpr[X86_RCX] != 6 ||
			    memcmp(xmm1, v->xsave + OFF_XMM + 16, 16) ||
			    !(ld_le32(v->xsave + OFF_MXCSR) & c[i / 2].flags))
				fail_msg("%s, %s: vector %d at %#llx, mxcsr "
					 "%#x",
					 tier_names[tier], c[i / 2].name,
					 vector, (unsigned long long)v->rip,
					 ld_le32(v->xsave + OFF_MXCSR));
			assert_true(tier_host_is_own());
			tv_free(t);
		}
}

static void hostile_45_ftz_and_daz_are_the_guest_s(void **state)
{
	static const struct {
		u32 mxcsr, want, flags;
	} c[] = {
		{0x1f80, 0x00400000, 0x02}, /* exact: DE */
		{0x1fc0, 0x00000000, 0x00}, /* DAZ: 0 */
		{0x9f80, 0x00000000, 0x32}, /* FTZ: DE UE PE */
		{0x9fc0, 0x00000000, 0x00},
	};

	(void)state;
	for (enum tier tier = 0; tier < TIERS; tier++)
		for (size_t i = 0; i < ARRAY_SIZE(c); i++) {
			struct testvm *t = fpu_new(true);
			struct vcpu *v = t->v;

			st_le32(v->xsave + OFF_MXCSR, c[i].mxcsr);
			/* xmm1 = a denormal, xmm0 = 1.0: mulss */
			st_le32(v->xsave + OFF_XMM + 16, 0x00400000);
			st_le32(v->xsave + OFF_XMM, 0x3f800000);
			assert_true(tier_is_at_end(
				v, RUN(t, tier, 0xf3, 0x0f, 0x59, 0xc8)));
			assert_int_equal(ld_le32(v->xsave + OFF_XMM + 16),
					 c[i].want);
			assert_int_equal(ld_le32(v->xsave + OFF_MXCSR) & 0x3f,
					 c[i].flags);
			assert_true(tier_host_is_own());
			tv_free(t);
		}
}

/* DIV in the middle of a block, and its flags and registers before it. */
static void hostile_45_de_comes_at_its_instruction(void **state)
{
	(void)state;
	for (enum tier tier = 0; tier < TIERS; tier++) {
		struct testvm *t = fpu_new(true);
		struct vcpu *v = t->v;

		v->gpr[X86_RAX] = 7;
		v->gpr[X86_RDX] = 9;
		v->gpr[X86_RCX] = 0;
		/* inc eax; div ecx */
		assert_int_equal(RUN(t, tier, 0xff, 0xc0, 0xf7, 0xf1),
				 X86_VEC_DE);
		assert_int_equal(v->rip, TV_CODE + 2);
		assert_int_equal(v->gpr[X86_RAX], 8);
		assert_int_equal(v->gpr[X86_RDX], 9);
		/* idiv of the most negative by -1 */
		v->gpr[X86_RAX] = BIT64(63);
		v->gpr[X86_RDX] = ~0ull;
		v->gpr[X86_RCX] = ~0ull;
		assert_int_equal(RUN(t, tier, 0x90, 0x48, 0xf7, 0xf9),
				 X86_VEC_DE);
		assert_int_equal(v->rip, TV_CODE + 1);
		assert_int_equal(v->gpr[X86_RAX], BIT64(63));
		tv_free(t);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			hostile_46_fpu_needs_what_cr0_cr4_xcr0_and_cpuid_say),
		cmocka_unit_test(
			hostile_46_xcr0_and_cr4_take_no_undefined_bits),
		cmocka_unit_test(
			hostile_45_corrupt_images_give_gp_and_change_nothing),
		cmocka_unit_test(
			hostile_45_images_over_the_end_of_memory_fault_whole),
		cmocka_unit_test(
			hostile_45_mf_comes_at_the_next_waiting_instruction),
		cmocka_unit_test(
			hostile_45_x87_stack_overflow_and_underflow_show),
		cmocka_unit_test(hostile_45_xm_comes_at_its_instruction),
		cmocka_unit_test(hostile_45_ftz_and_daz_are_the_guest_s),
		cmocka_unit_test(hostile_45_de_comes_at_its_instruction),
	};

	return test_run("hostile_fpu", tests);
}
