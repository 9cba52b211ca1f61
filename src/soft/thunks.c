/* SPDX-License-Identifier: Apache-2.0 */
/* The glue between C and generated code, emitted when the VM starts so that
 * it lies within reach of all generated code.
 *
 * THEORY. Generated code runs with RSP = struct vcpu. A call pushes below it,
 * onto the leaf stack; leaf functions (general registers only) keep the
 * guest's SIMD registers, and the C calling convention keeps guest registers
 * that live in RBX, RBP and R12-R15. So a slow path saves seven registers and
 * an exit saves everything.
 *
 * XMM registers and MXCSR go to the XSAVE image, where the interpreter has
 * them; x87 stays in the host's FPU in both worlds (fpu.c).
 */
#include "soft/thunks.h"

#include <stdlib.h>

#include "soft/leaf.h"
#include "soft/lower.h"

#define OFF_XMM(n)    (ENV_OFF(xsave) + 160 + 16 * (i32)(n))
#define OFF_YMM(n)    (ENV_OFF(xsave) + 576 + 16 * (i32)(n))
#define OFF_MXCSR     (ENV_OFF(xsave) + 24)
#define MXCSR_DEFAULT 0x1f80

static const u8 callee_saved[] = {H_RBX, H_RBP, H_R12, H_R13, H_R14, H_R15};

struct thunks {
	struct emit e;
	bool has_avx;
	u32 *at; /* by enum xlat_thunk */
};

static void begin(struct thunks *t, enum xlat_thunk k)
{
	e_align(&t->e, 16);
	t->at[k] = t->e.pos;
}

static void push(struct emit *e, unsigned r)
{
	if (r >= 8)
		e_b(e, 0x41);
	e_b(e, 0x50 | (r & 7));
}
static void pop(struct emit *e, unsigned r)
{
	if (r >= 8)
		e_b(e, 0x41);
	e_b(e, 0x58 | (r & 7));
}

/* `depth`: how many bytes RSP is below struct vcpu. */
static struct emem env_at(i32 off, i32 depth)
{
	return m_env(off + depth);
}

static void store_gprs(struct thunks *t, u32 which, i32 depth)
{
	for (unsigned g = 0; g < 16; g++)
		if (xlat_host_of[g] != H_NONE && which & 1u << g)
			e_store(&t->e, 8,
				env_at(ENV_OFF(gpr) + 8 * (i32)g, depth),
				xlat_host_of[g]);
}

static void load_gprs(struct thunks *t, u32 which, i32 depth)
{
	for (unsigned g = 0; g < 16; g++)
		if (xlat_host_of[g] != H_NONE && which & 1u << g)
			e_load(&t->e, 8, xlat_host_of[g],
			       env_at(ENV_OFF(gpr) + 8 * (i32)g, depth));
}

/* VEX.256.pp.map.W0 op ymm, [rsp + disp32], imm8 if imm >= 0 */
static void vex_env(struct emit *e, u8 map, u8 pp, bool is_256, u8 op,
		    unsigned reg, unsigned vvvv, i32 disp, int imm)
{
	struct emem m = m_env(disp);

	e_b(e, 0xc4);
	e_b(e, (reg < 8 ? 0x80 : 0) | 0x60 | map);
	e_b(e, (~vvvv & 15) << 3 | (is_256 ? 4 : 0) | pp);
	e_b(e, op);
	e_modrm_mem(e, reg, &m);
	if (imm >= 0)
		e_b(e, (u8)imm);
}

/* Upper halves that are all zero are not loaded: the host knows then that
 * they are, and SSE code need not merge with them. */
static void load_simd(struct thunks *t)
{
	struct emit *e = &t->e;
	u32 clean;

	for (unsigned r = 0; r < 16; r++) {
		if (!t->has_avx)
			e_op_rm(e, 4, 0x0f10, r, m_env(OFF_XMM(r)));
		else
			vex_env(e, 1, 0, false, 0x10, r, 0, OFF_XMM(r), -1);
	}
	if (t->has_avx) {
		e_alu_mi(e, 1, ALU_CMP, m_env(ENV_OFF(has_uppers)), 0);
		clean = e_jcc(e, CC_E, 0);
		for (unsigned r = 0; r < 16; r++)
			vex_env(e, 3, 1, true, 0x18, r, r, OFF_YMM(r), 1);
		e_patch(e, clean, e->pos);
	}
	e_op_rm(e, 4, 0x0fae, 2, m_env(OFF_MXCSR)); /* ldmxcsr */
}

static void store_simd(struct thunks *t)
{
	struct emit *e = &t->e;

	for (unsigned r = 0; r < 16; r++) {
		if (!t->has_avx) {
			e_op_rm(e, 4, 0x0f11, r, m_env(OFF_XMM(r)));
			continue;
		}
		vex_env(e, 1, 0, false, 0x11, r, 0, OFF_XMM(r), -1);
		vex_env(e, 3, 1, true, 0x19, r, 0, OFF_YMM(r), 1);
	}
	e_op_rm(e, 4, 0x0fae, 3, m_env(OFF_MXCSR)); /* stmxcsr */
	e_mov_mi(e, 4, m_env(-8), MXCSR_DEFAULT);
	e_op_rm(e, 4, 0x0fae, 2, m_env(-8));
	if (t->has_avx)
		e_bytes(e, (const u8[]){0xc5, 0xf8, 0x77}, 3);
}

/* GS.base = v->user; destroys RAX. The engine requires FSGSBASE. */
static void load_gs(struct thunks *t, i32 depth)
{
	e_load(&t->e, 8, S0, env_at(ENV_OFF(user), depth));
	e_bytes(&t->e, (const u8[]){0xf3, 0x48, 0x0f, 0xae, 0xd8}, 5);
}

static void make_enter(struct thunks *t)
{
	struct emit *e = &t->e;

	begin(t, XT_ENTER);
	for (unsigned i = 0; i < ARRAY_SIZE(callee_saved); i++)
		push(e, callee_saved[i]);
	e_store(e, 8, m_b(H_RDI, ENV_OFF(host_rsp)), H_RSP);
	e_mov(e, 8, H_RSP, H_RDI);
	e_store(e, 8, m_env(ENV_OFF(exit_arg)), H_RSI);
	load_gs(t, 0);
	load_simd(t);
	load_gprs(t, 0xffff, 0);
	e_op_rm(e, 4, 0xff, 4, m_env(ENV_OFF(exit_arg)));
}

static void make_exit(struct thunks *t)
{
	struct emit *e = &t->e;

	begin(t, XT_EXIT);
	e_alu_rm(e, 8, ALU_ADD, S0, m_env(ENV_OFF(pcbase)));
	t->at[XT_EXIT_VA] = e->pos;
	e_store(e, 8, m_env(ENV_OFF(rip)), S0);
	e_store(e, 4, m_env(ENV_OFF(exit_kind)), S1);
	t->at[XT_EXIT_KEEP] = e->pos;
	store_gprs(t, 0xffff, 0);
	store_simd(t);
	e_load(e, 8, H_RSP, m_env(ENV_OFF(host_rsp)));
	for (unsigned i = ARRAY_SIZE(callee_saved); i-- > 0;)
		pop(e, callee_saved[i]);
	e_b(e, 0xc3);
}

static void make_fault(struct thunks *t)
{
	begin(t, XT_FAULT);
	e_store(&t->e, 8, m_env(ENV_OFF(exit_arg)), S0);
	e_mov_mi(&t->e, 4, m_env(ENV_OFF(exit_kind)), XLAT_EXIT_FAULT);
	e_jmp(&t->e, t->at[XT_EXIT_KEEP]);
}

static void make_dead(struct thunks *t)
{
	struct emit *e = &t->e;

	begin(t, XT_DEAD_DIRECT);
	e_b(e, 0x9f); /* lahf */
	e_op_rr(e, 1, 0x0f90 | CC_O, 0, S0);
	e_store(e, 2, env_at(ENV_OFF(aflags), 8), S0);
	t->at[XT_DEAD_INDIRECT] = e->pos;
	pop(e, S0); /* behind the entry */
	e_store(e, 8, m_env(ENV_OFF(exit_arg)), S0);
	e_mov_mi(e, 4, m_env(ENV_OFF(exit_kind)), XLAT_EXIT_DEAD);
	e_jmp(e, t->at[XT_EXIT_KEEP]);
}

static void call_c(struct thunks *t, const void *fn)
{
	e_mov_ri(&t->e, S0, (u64)(uintptr_t)fn);
	e_op_rr(&t->e, 4, 0xff, 2, S0);
}

/* How a COLD_LOOKUP calls: RAX = va - tag, RCX = byte offset of the entry, or
 * of the slot in the space; behind the call a jmp rel32 back, then the guest
 * offset. Comes back with RAX = va; RAX += tag has been done here. */
static void make_fill(struct thunks *t, const void *fn, bool is_write,
		      bool is_group)
{
	struct emit *e = &t->e;
	u32 fail;

	store_gprs(t, XLAT_CALLER_SAVED, 8);
	push(e, S0); /* keeps va, and aligns */
	e_lea(e, 8, H_RDI, m_b(ENV, 16));
	e_mov(e, 8, H_RSI, S0);
	e_mov_ri(e, H_RDX, is_write ? SOFT_W : SOFT_R);
	call_c(t, fn); /* RCX is an argument, too */
	load_gprs(t, XLAT_CALLER_SAVED, 16);
	e_op_rr(e, 1, 0x84, S0, S0);
	pop(e, S0);
	fail = e_jcc(e, CC_E, 0);
	e_b(e, 0xc3);
	e_patch(e, fail, e->pos);
	if (is_group) {
		e_alu_mi(e, 8, ALU_ADD, m_env(0), 5); /* the jmp back */
		e_b(e, 0xc3);
		return;
	}
	pop(e, S1);
	e_op_rm(e, 4, 0x0fb7, S0, m_b(S1, 5));
	e_mov_ri(e, S1, XLAT_EXIT_INTERP);
	e_jmp(e, t->at[XT_EXIT]);
}

static void make_slow(struct thunks *t, enum xlat_thunk k, bool is_write,
		      bool is_user, bool is_group)
{
	i32 tag = is_write ? offsetof(struct soft_tlb_entry, tag_w)
			   : offsetof(struct soft_tlb_entry, tag_r);
	struct emem m = m_bi(ENV, S1, 0, ENV_OFF(super.tlb) + tag + 8);

	if (is_user) {
		m = m_b(S1, (i32)offsetof(struct soft_space, tlb) + tag);
		m.is_gs = true;
	}
	begin(t, k);
	e_alu_rm(&t->e, 8, ALU_ADD, S0, m);
	make_fill(t, (const void *)soft_tlb_fill_leaf, is_write, is_group);
}

static struct emem m_gs(unsigned base, size_t offset)
{
	struct emem m = m_b(base, (i32)offset);

	m.is_gs = true;
	return m;
}

#define SLOT_TAG(r) m_gs(r, offsetof(struct soft_slot, tag))
#define SLOT_HVA(r) m_gs(r, offsetof(struct soft_slot, hva_page))

/* RDI = old tag - new one: counts a miss of slot RCX, of kind k. Destroys RDX
 * and RDI. `depth`: as in env_at(). */
static void count_slot_miss(struct thunks *t, unsigned k, i32 depth)
{
	struct emit *e = &t->e;
	i32 slots = (i32)offsetof(struct soft_space, slots[k]);
	u32 near, few;

	_Static_assert(sizeof(struct soft_slot) == 16, "by shifts");
	e_lea(e, 4, H_RDX, m_b(S1, -slots));
	e_shift_ri(e, 4, 5, H_RDX, 3); /* of u16 */
	e_alu_ri(e, 8, ALU_ADD, H_RDI, PAGE_BYTES);
	e_alu_ri(e, 8, ALU_CMP, H_RDI, 2 * PAGE_BYTES);
	e_mov_ri(e, H_RDI, SLOTS_WEIGHT_NEXT);
	near = e_jcc8(e, CC_BE);
	e_mov_ri(e, H_RDI, SLOTS_WEIGHT_RANDOM);
	e_patch8(e, near);
	e_op_rm(e, 2, 0x01, H_RDI,
		m_bi(ENV, H_RDX, 0, ENV_OFF(slots.weights[k]) + depth));
	e_alu_mi(e, 8, ALU_ADD, env_at(ENV_OFF(stats.slot_misses), depth), 1);
	e_op_rm(e, 4, 0x01, H_RDI, env_at(ENV_OFF(slots.weight), depth));
	e_alu_mi(e, 4, ALU_CMP, env_at(ENV_OFF(slots.weight), depth),
		 SLOTS_WEIGHT_MAX);
	few = e_jcc8(e, CC_B);
	e_mov_mi(e, 4, env_at(ENV_OFF(go), depth), 0); /* soft_kick() */
	e_patch8(e, few);
}

/* What slots_fill_leaf() does when the slot is not empty and the TLB has the
 * page: returns then. Otherwise nothing has happened but RAX += tag. */
static void make_slot_hit(struct thunks *t, unsigned k)
{
	static const u8 saved[] = {H_RDX, H_RSI, H_RDI};
	const i32 depth = 8 * (1 + ARRAY_SIZE(saved));
	struct emit *e = &t->e;
	size_t tlb = offsetof(struct soft_space, tlb);
	u32 miss[3];

	e_alu_rm(e, 8, ALU_ADD, S0, SLOT_TAG(S1));
	for (unsigned i = 0; i < ARRAY_SIZE(saved); i++)
		push(e, saved[i]);
	e_rorx(e, H_RDX, S0, 7, __builtin_cpu_supports("bmi2"));
	e_alu_ri(e, 4, ALU_AND, H_RDX, (SOFT_TLB_ENTRIES - 1) << 5);
	e_load(e, 8, H_RSI,
	       m_gs(H_RDX, tlb + (k ? offsetof(struct soft_tlb_entry, tag_w)
				    : offsetof(struct soft_tlb_entry, tag_r))));
	e_mov(e, 8, H_RDI, S0);
	e_alu_rr(e, 8, ALU_SUB, H_RDI, H_RSI);
	e_alu_ri(e, 8, ALU_CMP, H_RDI, PAGE_BYTES - 1);
	miss[0] = e_jcc(e, CC_A, 0);
	/* A page's address ends in zeroes. */
	e_alu_mi(e, 1, ALU_CMP, SLOT_TAG(S1), (i8)SOFT_TLB_EMPTY);
	miss[1] = e_jcc(e, CC_E, 0);
	e_load(e, 8, H_RDI, SLOT_TAG(S1));
	e_alu_rr(e, 8, ALU_SUB, H_RDI, H_RSI);
	miss[2] = e_jcc(e, CC_E, 0);
	e_store(e, 8, SLOT_TAG(S1), H_RSI);
	e_load(e, 8, H_RSI,
	       m_gs(H_RDX, tlb + offsetof(struct soft_tlb_entry, hva_page)));
	e_store(e, 8, SLOT_HVA(S1), H_RSI);
	e_shift_ri(e, 4, 5, H_RDX, 5);
	e_alu_ri(e, 4, ALU_AND, H_RDX, SOFT_SLOT_PAGES - 1);
	e_op_rm(e, 8, 0x0fab, H_RDX, /* bts */
		m_gs(H_NONE, offsetof(struct soft_space, slot_pages)));
	count_slot_miss(t, k, depth);
	for (unsigned i = ARRAY_SIZE(saved); i-- > 0;)
		pop(e, saved[i]);
	e_b(e, 0xc3);
	for (unsigned i = 0; i < ARRAY_SIZE(miss); i++)
		e_patch(e, miss[i], e->pos);
	for (unsigned i = ARRAY_SIZE(saved); i-- > 0;)
		pop(e, saved[i]);
}

static void make_slot(struct thunks *t, enum xlat_thunk k, bool is_write,
		      bool is_group)
{
	begin(t, k);
	make_slot_hit(t, is_write);
	make_fill(t, (const void *)slots_fill_leaf, is_write, is_group);
}

/* Calls a leaf that returns where to jump, or NULL with v->rip set. The
 * second argument is in `arg`. */
static void jump_by_leaf(struct thunks *t, const void *fn, unsigned arg)
{
	struct emit *e = &t->e;
	u32 fail;

	store_gprs(t, XLAT_CALLER_SAVED, 0);
	e_mov(e, 8, H_RSI, arg);
	e_mov(e, 8, H_RDI, ENV);
	call_c(t, fn); /* RSP is aligned here */
	load_gprs(t, XLAT_CALLER_SAVED, 0);
	e_op_rr(e, 8, 0x85, S0, S0);
	fail = e_jcc(e, CC_E, 0);
	e_op_rr(e, 4, 0xff, 4, S0);
	e_patch(e, fail, e->pos);
	e_mov_mi(e, 4, m_env(ENV_OFF(exit_kind)), XLAT_EXIT_LOOKUP);
	e_jmp(e, t->at[XT_EXIT_KEEP]);
}

static void make_jumps(struct thunks *t)
{
	struct emit *e = &t->e;

	begin(t, XT_JC_MISS);
	jump_by_leaf(t, (const void *)xlat_jc_miss_leaf, S0);
	begin(t, XT_CHAIN);
	e_b(e, 0x9f); /* lahf */
	e_op_rr(e, 1, 0x0f90 | CC_O, 0, S0);
	e_store(e, 2, env_at(ENV_OFF(aflags), 8), S0);
	pop(e, S1);
	jump_by_leaf(t, (const void *)xlat_exit_leaf, S1);
}

/* A leaf operation, see lower_leaf() and leaf.h. */
static void make_leaf(struct thunks *t, enum xlat_thunk k, const void *fn)
{
	struct emit *e = &t->e;
	u32 not_done, not_jump, leave;

	begin(t, k);
	store_gprs(t, 0xffff, 8);
	e_op_rr(e, 4, 0x0fb7, H_RDX, S0); /* movzx edx, ax */
	e_shift_ri(e, 4, 5, S0, 16);
	e_alu_rm(e, 8, ALU_ADD, H_RDX, env_at(ENV_OFF(pcbase), 8));
	e_store(e, 8, env_at(ENV_OFF(rip), 8), H_RDX);
	e_alu_rr(e, 8, ALU_ADD, H_RDX, S0);
	e_store(e, 8, env_at(ENV_OFF(next_rip), 8), H_RDX);
	e_lea(e, 8, H_RDI, m_b(ENV, 8));
	e_mov(e, 4, H_RSI, S1);
	push(e, S0); /* aligns */
	call_c(t, fn);
	pop(e, S1);
	load_gprs(t, 0xffff, 8);
	e_op_rr(e, 4, 0x85, S0, S0);
	not_done = e_jcc(e, CC_NE, 0);
	e_b(e, 0xc3);

	e_patch(e, not_done, e->pos);
	pop(e, S1); /* nobody returns */
	e_alu_ri(e, 4, ALU_CMP, S0, LEAF_JUMP);
	not_jump = e_jcc(e, CC_NE, 0);
	load_gs(t, 0);
	e_load(e, 8, S0, m_env(ENV_OFF(rip)));
	e_jmp(e, t->at[XT_JC_MISS]);

	e_patch(e, not_jump, e->pos);
	e_alu_ri(e, 4, ALU_CMP, S0, LEAF_T0);
	e_mov_mi(e, 4, m_env(ENV_OFF(exit_kind)), XLAT_EXIT_LOOKUP);
	leave = e_jcc(e, CC_NE, t->at[XT_EXIT_KEEP]);
	e_mov_mi(e, 4, m_env(ENV_OFF(exit_kind)), XLAT_EXIT_INTERP);
	e_jmp(e, t->at[XT_EXIT_KEEP]);
	(void)leave;
}

/* ---- REP MOVS and REP STOS inside of pages ---- */

struct rep {
	bool is_stos, is_user;
	unsigned log2_n;
	u32 fail[8];
	unsigned fails;
};

static void rep_fails(struct thunks *t, struct rep *r, unsigned cc)
{
	r->fail[r->fails++] = e_jcc(&t->e, cc, 0);
}

/* Guest register reg, in its own host register, becomes the host address, if
 * all elements lie in that page. Destroys RAX and RCX. */
static void rep_lookup(struct thunks *t, struct rep *r, unsigned reg, i32 tag)
{
	struct emit *e = &t->e;
	i32 hva = offsetof(struct soft_tlb_entry, hva_page);
	struct emem m = m_bi(ENV, S1, 0, ENV_OFF(super.tlb) + 8);

	if (r->is_user) {
		m = m_b(S1, (i32)offsetof(struct soft_space, tlb));
		m.is_gs = true;
	}
	e_mov(e, 8, S0, reg);
	e_mov(e, 8, S1, reg);
	e_shift_ri(e, 8, 5, S1, 7);
	e_alu_ri(e, 4, ALU_AND, S1, (SOFT_TLB_ENTRIES - 1) << 5);
	m.disp += tag;
	e_alu_rm(e, 8, ALU_SUB, S0, m);
	m.disp += hva - tag;
	e_load(e, 8, reg, m);
	e_alu_ri(e, 8, ALU_CMP, S0, PAGE_BYTES - 1);
	rep_fails(t, r, CC_A);
	e_lea(e, 8, S1, m_bi(S0, H_R11, (u8)r->log2_n, 0));
	e_alu_ri(e, 8, ALU_CMP, S1, PAGE_BYTES);
	rep_fails(t, r, CC_A);
	e_alu_rr(e, 8, ALU_ADD, reg, S0);
}

static void rep_execute(struct thunks *t, const struct rep *r)
{
	struct emit *e = &t->e;

	e_mov(e, 8, S1, H_R11);
	if (r->is_stos)
		e_mov(e, 8, S0, H_R10);
	if (r->log2_n == 1)
		e_b(e, 0x66);
	e_b(e, 0xf3);
	if (r->log2_n == 3)
		e_b(e, 0x48);
	e_b(e, (r->is_stos ? 0xaa : 0xa4) | (r->log2_n ? 1 : 0));
}

/* The guest's register behind it: n elements further. */
static void rep_advance(struct thunks *t, const struct rep *r, unsigned reg,
			i32 spill)
{
	e_load(&t->e, 8, reg, env_at(spill, 8));
	e_lea(&t->e, 8, reg, m_bi(reg, H_R11, (u8)r->log2_n, 0));
}

static void make_rep(struct thunks *t, struct rep r)
{
	struct emit *e = &t->e;
	i32 spill = ENV_OFF(spill);
	u32 is_back, is_long;

	begin(t, xlat_rep_thunk(r.is_stos, r.log2_n, r.is_user));
	e_alu_ri(e, 8, ALU_CMP, H_R11, PAGE_BYTES >> r.log2_n);
	is_long = e_jcc(e, CC_A, 0);
	e_op_rm(e, 4, 0xf7, 0, env_at(ENV_OFF(rflags_sys), 8)); /* test */
	e_d(e, X86_FL_DF);
	is_back = e_jcc(e, CC_NE, 0);
	e_store(e, 8, env_at(spill, 8), H_RSI);
	e_store(e, 8, env_at(spill + 8, 8), H_RDI);
	e_store(e, 8, env_at(spill + 16, 8), S0);
	e_store(e, 8, env_at(spill + 24, 8), S1);
	if (!r.is_stos)
		rep_lookup(t, &r, H_RSI,
			   offsetof(struct soft_tlb_entry, tag_r));
	rep_lookup(t, &r, H_RDI, offsetof(struct soft_tlb_entry, tag_w));
	rep_execute(t, &r);
	if (!r.is_stos)
		rep_advance(t, &r, H_RSI, spill);
	rep_advance(t, &r, H_RDI, spill + 8);
	e_mov_ri(e, H_R11, 0);
	e_b(e, 0xc3);

	for (unsigned i = 0; i < r.fails; i++)
		e_patch(e, r.fail[i], e->pos);
	e_load(e, 8, H_RSI, env_at(spill, 8));
	e_load(e, 8, H_RDI, env_at(spill + 8, 8));
	e_load(e, 8, S0, env_at(spill + 16, 8));
	e_load(e, 8, S1, env_at(spill + 24, 8));
	e_patch(e, is_long, e->pos);
	e_patch(e, is_back, e->pos);
	e_jmp(e, t->at[XT_LEAF_STR]);
}

static const struct {
	enum xlat_thunk at;
	u32 (*fn)(struct vcpu *v, u32 arg);
} leaves[] = {
	{XT_LEAF_STR, soft_str_leaf},
	{XT_LEAF_SYSCALL, soft_syscall_leaf},
	{XT_LEAF_SYSRET, soft_sysret_leaf},
	{XT_LEAF_IRETQ, soft_iretq_leaf},
	{XT_LEAF_SWAPGS, soft_swapgs_leaf},
	{XT_LEAF_PUSHF, soft_pushf_leaf},
	{XT_LEAF_POPF, soft_popf_leaf},
	{XT_LEAF_RDTSC, soft_rdtsc_leaf},
	{XT_LEAF_RDPID, soft_rdpid_leaf},
	{XT_LEAF_RDMSR, soft_rdmsr_leaf},
	{XT_LEAF_WRMSR, soft_wrmsr_leaf},
	{XT_LEAF_RDCR, soft_rdcr_leaf},
	{XT_LEAF_CLTS, soft_clts_leaf},
	{XT_LEAF_WRCR, soft_wrcr_leaf},
	{XT_LEAF_INVLPG, soft_invlpg_reg_leaf},
	{XT_LEAF_PAUSE, soft_pause_leaf},
	{XT_LEAF_RDBASE, soft_rdbase_leaf},
	{XT_LEAF_WRBASE, soft_wrbase_leaf},
};

void xlat_make_thunks(struct xlat *x)
{
	struct thunks t = {
		.e = {.rw = xlat_code_rw(x), .end = XLAT_THUNK_BYTES},
		.has_avx = __builtin_cpu_supports("avx"),
		.at = xlat_thunk_table(x),
	};

	make_enter(&t);
	make_exit(&t);
	make_fault(&t);
	make_dead(&t);
	for (unsigned i = 0; i < 4; i++) {
		make_slow(&t, XT_SLOW_R_SUPER + i, i & 1, i & 2, false);
		make_slow(&t, XT_GROUP_R_SUPER + i, i & 1, i & 2, true);
	}
	for (unsigned i = 0; i < 2; i++) {
		make_slot(&t, XT_SLOT_R + i, i, false);
		make_slot(&t, XT_SLOT_GROUP_R + i, i, true);
	}
	make_jumps(&t);
	for (unsigned i = 0; i < ARRAY_SIZE(leaves); i++)
		make_leaf(&t, leaves[i].at, (const void *)leaves[i].fn);
	for (unsigned i = 0; i < 16; i++)
		make_rep(&t, (struct rep){.is_stos = i & 8,
					  .log2_n = i >> 1 & 3,
					  .is_user = i & 1});
	ASSERT(!t.e.is_full);
}
