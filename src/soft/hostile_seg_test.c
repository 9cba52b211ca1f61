// SPDX-License-Identifier: Apache-2.0
/* No access leaves its segment: limits, expand-down, rights and the wrap of
 * linear addresses, in 16- and 32-bit code, with and without paging, and FS
 * and GS in all modes; in the interpreter and in translated code.
 *
 * THEORY. One instruction on one operand, all of whose bytes are in a window
 * of RAM that has a pattern. What must happen is computed by model(), which
 * knows segments only from SDM 3A §5.3: a fault that leaves everything as it
 * was, or the access at (base + offset) mod 2^32, and nothing else in the
 * window changed.
 */
#include "test/test.h"

#include "soft/tiervm.h"

#define WIN	  0x100000u /* the window, and where segments lie in it */
#define WIN_BYTES 0x40000u
#define OFF_MAX	  0x10000u
#define ROUNDS	  6000
#define END	  (TV_CODE + 0x20)

static u64 rnd_state;

static u32 rnd(u32 n)
{
	rnd_state = rnd_state * 6364136223846793005ull + 1442695040888963407ull;
	return (u32)(rnd_state >> 33) % n;
}

/* ---- instructions ---- */

#define F_LOAD	1u
#define F_STORE 2u
#define F_OSIZE 4u /* 0x66 in 16-bit code makes it 4 bytes */

static const struct op {
	const char *name;
	u8 bytes[4], n, modrm_reg, size, flags;
} ops[] = {
	{"mov cl, m", {0x8a}, 1, 1, 1, F_LOAD},
	{"mov ecx, m", {0x8b}, 1, 1, 4, F_LOAD | F_OSIZE},
	{"mov m, cl", {0x88}, 1, 1, 1, F_STORE},
	{"mov m, ecx", {0x89}, 1, 1, 4, F_STORE | F_OSIZE},
	{"not m", {0xf7}, 1, 2, 4, F_LOAD | F_STORE | F_OSIZE},
	{"xchg m, ecx", {0x87}, 1, 1, 4, F_LOAD | F_STORE | F_OSIZE},
	{"movzx ecx, m8", {0x0f, 0xb6}, 2, 1, 1, F_LOAD | F_OSIZE},
	{"movq mm1, m", {0x0f, 0x6f}, 2, 1, 8, F_LOAD},
	{"movq m, mm1", {0x0f, 0x7f}, 2, 1, 8, F_STORE},
	{"movups xmm1, m", {0x0f, 0x10}, 2, 1, 16, F_LOAD},
	{"movups m, xmm1", {0x0f, 0x11}, 2, 1, 16, F_STORE},
	{"vmovups ymm1, m", {0xc5, 0xfc, 0x10}, 3, 1, 32, F_LOAD},
	{"vmovups m, ymm1", {0xc5, 0xfc, 0x11}, 3, 1, 32, F_STORE},
	{"fnstenv m", {0xd9}, 1, 6, 28, F_STORE | F_OSIZE},
	{"fnsave m", {0xdd}, 1, 6, 108, F_STORE | F_OSIZE},
	{"fld tbyte m", {0xdb}, 1, 5, 10, F_LOAD},
	{"fstp tbyte m", {0xdb}, 1, 7, 10, F_STORE},
	{"cmpxchg8b m", {0x0f, 0xc7}, 2, 1, 8, F_LOAD | F_STORE},
	{"sgdt m", {0x0f, 0x01}, 2, 0, 6, F_STORE},
	{"lidt m", {0x0f, 0x01}, 2, 3, 6, F_LOAD},
	{"push m", {0xff}, 1, 6, 4, F_LOAD | F_OSIZE},
	{"call far m", {0xff}, 1, 3, 6, F_LOAD | F_OSIZE},
};

/* ---- segments ---- */

static const u8 override[6] = {0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65};

/* base, limit and rights that may be anything. */
static struct soft_seg random_seg(void)
{
	static const u32 types[] = {0x93, 0x93, 0x97, 0x97, 0x91,
				    0x95, 0x9b, 0x99, 0x9f};
	static const u32 bases[] = {WIN + 0x8000, WIN + 0xfff1, WIN + 0x10001,
				    WIN + 0x18000};
	struct soft_seg s = {.sel = TV_DS0, .base = bases[rnd(4)]};

	s.attr = types[rnd(ARRAY_SIZE(types))] | (rnd(2) ? SEG_DB : 0);
	switch (rnd(4)) {
	case 0:
		s.limit = rnd(64);
		break;
	case 1:
		s.limit = 0xfff + (rnd(8) << 12);
		break;
	case 2:
		s.limit = rnd(OFF_MAX);
		break;
	default:
		s.limit = rnd(2) ? 0xffff : ~0u;
	}
	if (!rnd(16))
		s.attr |= SEG_UNUSABLE;
	return s;
}

/* An offset where something may end; below OFF_MAX. */
static u32 random_off(const struct soft_seg *s, bool is_wide)
{
	u32 off = rnd(3)   ? s->limit + 8 - rnd(48)
		  : rnd(2) ? rnd(16)
			   : 0u - rnd(32);

	if (!rnd(4))
		off = rnd(OFF_MAX);
	return is_wide ? off : (u16)off;
}

enum fate { FATE_FAULT, FATE_ACCESS, FATE_EITHER };

static enum fate model(const struct soft_seg *s, u64 off, u32 size, u32 flags,
		       u32 *out_lin)
{
	bool is_code = s->attr & 8, has_4 = s->attr & 4, has_2 = s->attr & 2;
	u64 last = off + size - 1;

	*out_lin = (u32)(s->base + off);
	if (s->attr & SEG_UNUSABLE)
		return FATE_FAULT;
	if (flags & F_STORE && (is_code || !has_2))
		return FATE_FAULT;
	if (is_code && !has_2)
		return FATE_FAULT;
	if (!is_code && has_4) {
		u64 top = s->attr & SEG_DB ? 0xffffffffu : 0xffffu;

		return off <= s->limit || last > top ? FATE_FAULT : FATE_ACCESS;
	}
	return last > s->limit ? FATE_FAULT : FATE_ACCESS;
}

/* ---- the machine ---- */

struct mode {
	const char *name;
	bool is_long, is_wide;
	u16 cs;
};

static const struct mode modes[] = {
	{"32-bit", false, true, TV_CS0},
	{"16-bit", false, false, TIER_CS16},
	{"32-bit, ring 3", false, true, TV_CS3},
	{"compatibility", true, true, TV_CS0},
	{"16-bit compatibility", true, false, TIER_CS16},
	{"compatibility, ring 3", true, true, TV_CS3},
};

static u8 *shadow_new(struct testvm *t)
{
	u8 *shadow = malloc(TV_RAM);

	assert_non_null(shadow);
	for (u32 i = 0; i < WIN_BYTES; i++)
		t->ram[WIN + i] = (u8)(i * 7 + (i >> 8));
	return shadow;
}

static struct testvm *mode_new(const struct mode *m)
{
	struct testvm *t = tier_new();

	if (m->is_long) {
		tier_long(t, m->cs);
	} else {
		tier_protected(t, m->cs & 3);
		tier_segs(t, m->cs, m->cs & 3 ? TV_DS3 : TV_DS0);
	}
	tier_simd(t->v);
	return t;
}

/* prefixes, opcode, [ebx] or [bx]; UD2 at the end. */
static void put_op(struct testvm *t, const struct op *op, unsigned seg,
		   const struct mode *m, bool is_asize32)
{
	u8 b[0x22];
	u32 n = 0;

	memset(b, 0x90, sizeof(b));
	b[n++] = override[seg];
	if (!m->is_wide && op->flags & F_OSIZE)
		b[n++] = 0x66;
	if (is_asize32 != m->is_wide)
		b[n++] = 0x67;
	memcpy(b + n, op->bytes, op->n);
	n += op->n;
	b[n++] = (u8)(op->modrm_reg << 3 | (is_asize32 ? 3 : 7));
	b[0x20] = 0x0f;
	b[0x21] = 0x0b;
	tier_load(t, TV_CODE, b, sizeof(b));
}

static bool needs_ring_0(const struct op *op)
{
	return !strcmp(op->name, "lidt m");
}

struct seen {
	unsigned faults, accesses;
};

/* Everything outside [lin, lin + n) of the window is as in the shadow. */
static bool window_is_whole(const struct testvm *t, const u8 *shadow, u32 lin,
			    u32 n)
{
	for (u32 i = 0; i < WIN_BYTES; i++)
		if (t->ram[WIN + i] != shadow[i] && WIN + i - lin >= n)
			return false;
	return true;
}

static void check_fault(struct testvm *t, int vector, unsigned seg, u64 ebx,
			const char *what)
{
	int want = seg == X86_SS ? X86_VEC_SS : X86_VEC_GP;
	const struct vcpu *v = t->v;

	if (vector != want || v->exc.error || v->rip != TV_CODE ||
	    v->gpr[X86_RBX] != ebx || v->gpr[X86_RSP] != TV_STACK ||
	    v->gpr[X86_RCX] != 0x5a5a5a5a)
		fail_msg("%s: vector %d at %#llx", what, vector,
			 (unsigned long long)v->rip);
}

static void one_case(struct testvm *t, const struct mode *m, enum tier tier,
		     u8 *shadow, struct seen *seen)
{
	static const u8 used[] = {X86_ES, X86_SS, X86_DS, X86_FS, X86_GS};
	const struct op *op = &ops[rnd(ARRAY_SIZE(ops))];
	unsigned seg = used[rnd(5)];
	bool is_asize32 = rnd(4) ? m->is_wide : !m->is_wide;
	struct vcpu *v = t->v;
	struct soft_seg old = v->segs[seg], s = random_seg();
	u32 lin, off = random_off(&s, is_asize32);
	u32 size = op->flags & F_OSIZE && op->size == 4 ? 4 : op->size;
	bool is_push = op->modrm_reg >= 3 && op->bytes[0] == 0xff;
	enum fate fate = model(&s, off, size, op->flags, &lin);
	char what[128];
	int vector;

	if (fate == FATE_ACCESS && lin - WIN >= WIN_BYTES - 128)
		return; /* it may, but not where we look */
	if (needs_ring_0(op) && v->cpl)
		return;
	if (is_push && (seg == X86_SS || fate == FATE_ACCESS))
		return; /* it uses the stack, or goes elsewhere */
	put_op(t, op, seg, m, is_asize32);
	snprintf(what, sizeof(what),
		 "%s, %s: %s at %#x, segment %u %#x %#x %#x", m->name,
		 tier_names[tier], op->name, off, seg, (u32)s.base, s.limit,
		 s.attr);
	s.attr |= v->cpl << 5;
	v->segs[seg] = s;
	soft_mode_changed(v);
	soft_fpu_reset(v);
	v->gpr[X86_RBX] = off | (is_asize32 ? 0 : 0x30000);
	v->gpr[X86_RCX] = 0x5a5a5a5a;
	v->gpr[X86_RSP] = TV_STACK;
	v->rip = TV_CODE;
	memcpy(shadow, t->ram + WIN, WIN_BYTES);
	vector = tier_run(v, tier);
	if (fate == FATE_FAULT) {
		check_fault(t, vector, seg, v->gpr[X86_RBX], what);
		if (memcmp(shadow, t->ram + WIN, WIN_BYTES))
			fail_msg("%s: faults, and has written", what);
		seen->faults++;
	} else {
		if (vector != X86_VEC_UD || v->rip != END)
			fail_msg("%s: vector %d error %#x at %#llx", what,
				 vector, v->exc.error,
				 (unsigned long long)v->rip);
		if (!window_is_whole(t, shadow, lin,
				     op->flags & F_STORE ? size : 0))
			fail_msg("%s: has written elsewhere", what);
		seen->accesses++;
	}
	v->segs[seg] = old;
	v->idtr = (struct soft_table){.base = TV_IDT, .limit = 511};
	soft_mode_changed(v);
}

static void hostile_37_accesses_stay_inside_their_segment(void **state)
{
	(void)state;
	for (size_t m = 0; m < ARRAY_SIZE(modes); m++)
		for (enum tier tier = 0; tier < TIERS; tier++) {
			struct testvm *t = mode_new(&modes[m]);
			u8 *shadow = shadow_new(t);
			struct seen seen = {0};

			rnd_state = m * 2 + tier + 1;
			for (int i = 0; i < ROUNDS; i++)
				one_case(t, &modes[m], tier, shadow, &seen);
			assert_true(seen.faults > ROUNDS / 10);
			assert_true(seen.accesses > ROUNDS / 10);
			free(shadow);
			tv_free(t);
		}
}

/* ---- the stack ---- */

static const struct stack_op {
	const char *name;
	u8 bytes[4], n;
	u8 size, count; /* slots of so many bytes */
	bool is_push;
} stack_ops[] = {
	{"push ecx", {0x51}, 1, 4, 1, true},
	{"push cx", {0x66, 0x51}, 2, 2, 1, true},
	{"push imm8", {0x6a, 0x7f}, 2, 4, 1, true},
	{"pushf", {0x9c}, 1, 4, 1, true},
	{"push ds", {0x1e}, 1, 4, 1, true},
	{"call", {0xff, 0xd2}, 2, 4, 1, true}, /* edx: the end */
	{"pusha", {0x60}, 1, 4, 8, true},
	{"enter 0, 0", {0xc8, 0, 0, 0}, 4, 4, 1, true},
	{"pop ecx", {0x59}, 1, 4, 1, false},
	{"pop cx", {0x66, 0x59}, 2, 2, 1, false},
	{"popa", {0x61}, 1, 4, 8, false},
	{"ret", {0xc3}, 1, 4, 1, false},
	{"popf", {0x9d}, 1, 4, 1, false},
};

static bool stack_holds(const struct soft_seg *s, const struct stack_op *op,
			u32 sp, bool *out_is_lower)
{
	u32 mask = s->attr & SEG_DB ? ~0u : 0xffff, lin;

	*out_is_lower = false;
	for (u32 i = 0; i < op->count; i++) {
		u32 at = op->is_push ? sp - op->size * (i + 1)
				     : sp + op->size * i;

		if (model(s, at & mask, op->size, F_LOAD | F_STORE, &lin) ==
		    FATE_FAULT)
			return false;
		*out_is_lower |= lin - WIN >= WIN_BYTES - 128;
	}
	return true;
}

static void put_stack_op(struct testvm *t, const struct stack_op *op,
			 const struct mode *m)
{
	u8 b[0x22];

	memset(b, 0x90, sizeof(b));
	memcpy(b, op->bytes, op->n);
	if (!m->is_wide && op->bytes[0] != 0x66) {
		b[0] = 0x66;
		memcpy(b + 1, op->bytes, op->n);
	} else if (!m->is_wide) {
		memcpy(b, op->bytes + 1, op->n - 1u);
		b[op->n - 1] = 0x90;
	}
	b[0x20] = 0x0f;
	b[0x21] = 0x0b;
	tier_load(t, TV_CODE, b, sizeof(b));
}

static void one_stack(struct testvm *t, const struct mode *m, enum tier tier,
		      u8 *shadow, struct seen *seen)
{
	const struct stack_op *op = &stack_ops[rnd(ARRAY_SIZE(stack_ops))];
	struct vcpu *v = t->v;
	struct soft_seg old = v->segs[X86_SS], s = random_seg();
	u32 sp = random_off(&s, s.attr & SEG_DB);
	bool is_elsewhere, ok;
	char what[128];
	int vector;

	s.attr = (s.attr & ~(8u | SEG_UNUSABLE)) | 2 | v->cpl << 5;
	ok = stack_holds(&s, op, sp, &is_elsewhere);
	if (is_elsewhere ||
	    (op->bytes[0] == 0x61 && !ok && (sp & 3 || s.limit)))
		return; /* the slot of eSP is not read */
	put_stack_op(t, op, m);
	snprintf(what, sizeof(what), "%s, %s: %s at %#x, ss %#x %#x %#x",
		 m->name, tier_names[tier], op->name, sp, (u32)s.base, s.limit,
		 s.attr);
	v->segs[X86_SS] = s;
	soft_mode_changed(v);
	v->gpr[X86_RSP] = sp;
	v->gpr[X86_RDX] = END;
	v->gpr[X86_RBP] = 0x77777777;
	v->gpr[X86_RAX] = 0x11111111;
	v->rip = TV_CODE;
	if (ok && !op->is_push) /* RET goes there; no TF for POPF */
		st_le32(t->ram + (u32)(s.base + sp), END);
	memcpy(shadow, t->ram + WIN, WIN_BYTES);
	vector = tier_run(v, tier);
	if (!ok) {
		if (vector != X86_VEC_SS || v->exc.error || v->rip != TV_CODE ||
		    v->gpr[X86_RSP] != sp || v->gpr[X86_RBP] != 0x77777777 ||
		    memcmp(shadow, t->ram + WIN, WIN_BYTES))
			fail_msg("%s: vector %d, rip %#llx rsp %#llx", what,
				 vector, (unsigned long long)v->rip,
				 (unsigned long long)v->gpr[X86_RSP]);
		seen->faults++;
	} else {
		u32 n = op->is_push ? (u32)op->size * op->count : 0;
		u32 mask = s.attr & SEG_DB ? ~0u : 0xffff;

		if (vector == X86_VEC_SS)
			fail_msg("%s: #SS", what);
		if (((sp - n) & mask) <= (sp & mask) &&
		    !window_is_whole(t, shadow, (u32)s.base + ((sp - n) & mask),
				     n))
			fail_msg("%s: has written elsewhere", what);
		seen->accesses++;
	}
	v->segs[X86_SS] = old;
	soft_set_rflags(v, 2);
	for (unsigned i = 0; i < 8; i++)
		v->gpr[i] = 0;
	soft_mode_changed(v);
}

static void hostile_37_stacks_stay_inside_their_segment(void **state)
{
	(void)state;
	for (size_t m = 0; m < ARRAY_SIZE(modes); m++)
		for (enum tier tier = 0; tier < TIERS; tier++) {
			struct testvm *t = mode_new(&modes[m]);
			u8 *shadow = shadow_new(t);
			struct seen seen = {0};

			rnd_state = m * 2 + tier + 100;
			for (int i = 0; i < ROUNDS / 2; i++)
				one_stack(t, &modes[m], tier, shadow, &seen);
			assert_true(seen.faults > ROUNDS / 20);
			assert_true(seen.accesses > ROUNDS / 20);
			free(shadow);
			tv_free(t);
		}
}

/* ---- strings ---- */

/* rep stos/movs of `size`, through ES (and DS): how many go, by the model. */
static u32 string_goes(const struct soft_seg *es, const struct soft_seg *ds,
		       u32 di, u32 si, u32 mask, u32 count, u32 size, i32 step)
{
	u32 lin;

	for (u32 i = 0; i < count; i++) {
		if (ds &&
		    model(ds, si & mask, size, F_LOAD, &lin) == FATE_FAULT)
			return i;
		if (model(es, di & mask, size, F_STORE, &lin) == FATE_FAULT)
			return i;
		di += (u32)step;
		si += (u32)step;
	}
	return count;
}

static void one_string(struct testvm *t, const struct mode *m, enum tier tier,
		       struct seen *seen)
{
	static const u8 opcodes[] = {0xaa, 0xab, 0xa4, 0xa5};
	u8 opcode = opcodes[rnd(4)], b[0x22], n = 0;
	u32 size = opcode & 1 ? 4 : 1, count = 1 + rnd(40);
	u32 mask = m->is_wide ? ~0u : 0xffff;
	bool is_movs = opcode < 0xa8, is_down = rnd(2);
	struct vcpu *v = t->v;
	struct soft_seg es = random_seg(), ds = random_seg();
	u32 di = random_off(&es, m->is_wide), si = random_off(&ds, m->is_wide);
	i32 step = is_down ? -(i32)size : (i32)size;
	struct soft_seg flat = v->segs[X86_ES];
	u32 goes = string_goes(&es, is_movs ? &ds : NULL, di, si, mask, count,
			       size, step);
	int vector;

	memset(b, 0x90, sizeof(b));
	b[n++] = 0xf3;
	if (!m->is_wide && size == 4)
		b[n++] = 0x66;
	b[n++] = opcode;
	b[0x20] = 0x0f;
	b[0x21] = 0x0b;
	tier_load(t, TV_CODE, b, sizeof(b));
	es.attr |= v->cpl << 5;
	ds.attr |= v->cpl << 5;
	v->segs[X86_ES] = es;
	v->segs[X86_DS] = ds;
	soft_mode_changed(v);
	soft_set_rflags(v, is_down ? 0x402 : 2);
	v->gpr[X86_RDI] = di;
	v->gpr[X86_RSI] = si;
	v->gpr[X86_RCX] = count;
	v->rip = TV_CODE;
	vector = tier_run(v, tier);
	if (vector != (goes < count ? X86_VEC_GP : X86_VEC_UD) ||
	    v->rip != (goes < count ? TV_CODE : END) ||
	    v->gpr[X86_RCX] != count - goes ||
	    ((v->gpr[X86_RDI] ^ (di + goes * (u32)step)) & mask) ||
	    (is_movs && ((v->gpr[X86_RSI] ^ (si + goes * (u32)step)) & mask)))
		fail_msg("%s, %s: rep %#x of %u: vector %d rcx %#llx rdi "
			 "%#llx, not %u of them; es %#x %#x at %#x, ds %#x %#x "
			 "at %#x",
			 m->name, tier_names[tier], opcode, count, vector,
			 (unsigned long long)v->gpr[X86_RCX],
			 (unsigned long long)v->gpr[X86_RDI], goes, es.limit,
			 es.attr, di, ds.limit, ds.attr, si);
	if (goes < count)
		seen->faults++;
	else
		seen->accesses++;
	v->segs[X86_ES] = v->segs[X86_DS] = flat;
	soft_mode_changed(v);
	memset(t->ram + WIN, 0x33, 16);
}

static void hostile_37_strings_stop_where_their_segment_ends(void **state)
{
	(void)state;
	for (size_t m = 0; m < ARRAY_SIZE(modes); m++)
		for (enum tier tier = 0; tier < TIERS; tier++) {
			struct testvm *t = mode_new(&modes[m]);
			struct seen seen = {0};

			/* Wide segments reach over all that is mapped. */
			rnd_state = m * 2 + tier + 200;
			for (int i = 0; i < ROUNDS / 4; i++)
				one_string(t, &modes[m], tier, &seen);
			assert_true(seen.faults > ROUNDS / 40);
			assert_true(seen.accesses > ROUNDS / 80);
			tv_free(t);
		}
}

/* ---- FS and GS over flat segments: what generated code does itself ---- */

static void put_fs_op(struct testvm *t, const struct op *op, unsigned seg)
{
	static const struct mode wide = {.is_wide = true};

	put_op(t, op, seg, &wide, true);
}

/* A base and an offset whose sum is a place in the window, by 32 bits. */
static void fs_case_32(struct testvm *t, const struct mode *m, enum tier tier,
		       u8 *shadow, struct seen *seen)
{
	const struct op *op = &ops[rnd(12)];
	unsigned seg = X86_FS + rnd(2);
	struct vcpu *v = t->v;
	struct soft_seg s = {.sel = TV_DS0, .limit = ~0u};
	u32 lin, at = WIN + 0x1000 + rnd(0x2000);
	enum fate fate;
	int vector;

	s.base = rnd(2) ? rnd(~0u) : 0u - rnd(0x2000);
	s.attr = 0xc093 | v->cpl << 5;
	if (!rnd(4))
		s.limit = (u32)(at - s.base + rnd(32));
	fate = model(&s, (u32)(at - s.base), op->size, op->flags, &lin);
	put_fs_op(t, op, seg);
	v->segs[seg] = s;
	soft_mode_changed(v);
	v->gpr[X86_RBX] = (u32)(at - s.base);
	v->gpr[X86_RCX] = 0x5a5a5a5a;
	v->gpr[X86_RSP] = TV_STACK;
	v->rip = TV_CODE;
	memcpy(shadow, t->ram + WIN, WIN_BYTES);
	vector = tier_run(v, tier);
	if (fate == FATE_FAULT) {
		check_fault(t, vector, seg, v->gpr[X86_RBX], op->name);
		assert_memory_equal(shadow, t->ram + WIN, WIN_BYTES);
		seen->faults++;
		return;
	}
	if (vector != X86_VEC_UD || v->rip != END ||
	    !window_is_whole(t, shadow, at, op->flags & F_STORE ? op->size : 0))
		fail_msg("%s, %s: %s at base %#x: vector %d", m->name,
			 tier_names[tier], op->name, (u32)s.base, vector);
	if (op->flags == (F_LOAD | F_OSIZE) && op->size == 4)
		assert_int_equal(v->gpr[X86_RCX], ld_le32(t->ram + at));
	seen->accesses++;
}

static void hostile_37_fs_and_gs_wrap_at_32_bits_of_code_without(void **state)
{
	(void)state;
	for (size_t m = 0; m < ARRAY_SIZE(modes); m++)
		for (enum tier tier = 0; tier < TIERS; tier++) {
			struct testvm *t;
			struct seen seen = {0};
			u8 *shadow;

			if (!modes[m].is_wide)
				continue;
			t = mode_new(&modes[m]);
			shadow = shadow_new(t);
			rnd_state = m * 2 + tier + 300;
			for (int i = 0; i < ROUNDS / 2; i++)
				fs_case_32(t, &modes[m], tier, shadow, &seen);
			assert_true(seen.faults > ROUNDS / 40);
			assert_true(seen.accesses > ROUNDS / 40);
			if (tier == TIER_XLAT)
				assert_true(t->v->stats.translations > 100);
			free(shadow);
			tv_free(t);
		}
}

/* ---- 64-bit code ---- */

#define CANON BIT64(47)

static bool is_canonical(u64 va)
{
	return va < CANON || va >= -CANON;
}

/* Base register by ModRM; RSP needs a SIB. */
static void put_64(struct testvm *t, const struct op *op, int seg, unsigned reg)
{
	u8 b[0x22];
	u32 n = 0;

	memset(b, 0x90, sizeof(b));
	if (seg >= 0)
		b[n++] = override[seg];
	memcpy(b + n, op->bytes, op->n);
	n += op->n;
	b[n++] = (u8)(op->modrm_reg << 3 | reg | 0x40);
	if (reg == X86_RSP)
		b[n++] = 0x24;
	b[n++] = 0;
	b[0x20] = 0x0f;
	b[0x21] = 0x0b;
	tier_load(t, TV_CODE, b, sizeof(b));
}

static u64 random_va(void)
{
	static const u64 edges[] = {0,	       CANON,	       -CANON,
				    BIT64(63), 0x100000000ull, WIN + 0x1000};

	return edges[rnd(6)] + rnd(64) - 40;
}

static void case_64(struct testvm *t, enum tier tier, u8 *shadow,
		    struct seen *seen)
{
	static const int segs[] = {-1, X86_DS, X86_SS, X86_FS, X86_GS};
	static const u8 regs[] = {X86_RBX, X86_RBP, X86_RSP};
	const struct op *op = &ops[rnd(12)];
	int seg = segs[rnd(5)], want = X86_VEC_GP, vector;
	unsigned reg = regs[rnd(3)];
	struct vcpu *v = t->v;
	bool has_base = seg >= X86_FS, is_ok;
	u64 va = rnd(3) ? random_va() : WIN + 0x1000 + rnd(0x1000), base = 0;

	if (has_base) {
		do {
			base = rnd(2) ? random_va() : (u64)rnd(~0u) << 15;
		} while (!is_canonical(base));
		v->segs[seg].base = base;
	} else if (reg != X86_RBX) { /* DS and SS overrides mean nothing */
		want = X86_VEC_SS;
	}
	put_64(t, op, seg, reg);
	v->gpr[X86_RSP] = TV_STACK;
	v->gpr[X86_RCX] = 0x5a5a5a5a;
	v->gpr[reg] = va - base;
	v->rip = TV_CODE;
	memcpy(shadow, t->ram + WIN, WIN_BYTES);
	vector = tier_run(v, tier);
	is_ok = is_canonical(va) && is_canonical(va + op->size - 1);
	if (!is_ok) {
		if (vector != want || v->exc.error || v->rip != TV_CODE)
			fail_msg("%s: %s at %#llx + %#llx by %d, %d: vector %d",
				 tier_names[tier], op->name,
				 (unsigned long long)base,
				 (unsigned long long)(va - base), seg, reg,
				 vector);
		seen->faults++;
	} else if (va - WIN < WIN_BYTES - 128) {
		if (vector != X86_VEC_UD || v->rip != END)
			fail_msg("%s: %s at %#llx: vector %d", tier_names[tier],
				 op->name, (unsigned long long)va, vector);
		seen->accesses++;
	} else if (vector != X86_VEC_UD && vector != X86_VEC_PF) {
		fail_msg("%s: %s at %#llx: vector %d", tier_names[tier],
			 op->name, (unsigned long long)va, vector);
	}
	if (!window_is_whole(t, shadow, (u32)va,
			     is_ok && op->flags & F_STORE && va < BIT64(32)
				     ? op->size
				     : 0))
		fail_msg("%s: has written elsewhere", op->name);
}

static void hostile_37_bases_of_64_bit_code_reach_canonical_places(void **state)
{
	(void)state;
	for (enum tier tier = 0; tier < TIERS; tier++) {
		struct testvm *t = tier_new();
		struct seen seen = {0};
		u8 *shadow;

		tier_long(t, TIER_CS64);
		tier_simd(t->v);
		shadow = shadow_new(t);
		rnd_state = tier + 400;
		for (int i = 0; i < ROUNDS; i++)
			case_64(t, tier, shadow, &seen);
		assert_true(seen.faults > ROUNDS / 10);
		assert_true(seen.accesses > ROUNDS / 10);
		free(shadow);
		tv_free(t);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hostile_37_accesses_stay_inside_their_segment),
		cmocka_unit_test(hostile_37_stacks_stay_inside_their_segment),
		cmocka_unit_test(
			hostile_37_strings_stop_where_their_segment_ends),
		cmocka_unit_test(
			hostile_37_fs_and_gs_wrap_at_32_bits_of_code_without),
		cmocka_unit_test(
			hostile_37_bases_of_64_bit_code_reach_canonical_places),
	};

	return test_run("hostile_seg", tests);
}
