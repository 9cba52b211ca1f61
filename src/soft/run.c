/* SPDX-License-Identifier: Apache-2.0 */
/* The dispatcher: guest code through the translator where it can, through the
 * interpreter where it must.
 *
 * THEORY. One turn of the loop runs generated code until it leaves, and acts
 * on why it left (enum xlat_exit_kind). Whatever generated code does not do
 * itself - faults, devices, system instructions, stores into code - it leaves
 * to the interpreter: v->rip is at that instruction, nothing of it has
 * happened, and soft_interp_one() executes it with the complete semantics.
 *
 * Code that runs for the first few times (xlat_is_cold()) is interpreted, up to
 * its branch: most of a boot runs once or twice, and a translation costs as
 * much as some runs, and memory for good.
 *
 * Translating. The bytes are copied, the trace is formed from the copy, its
 * lines are protected (smc.c), and only then the copy is compared with memory:
 * from the comparison on, whoever writes these lines makes the block die.
 */
#include <stdlib.h>

#include "base/clock.h"
#include "soft/access.h"
#include "soft/lockstep.h"
#include "soft/lower.h"

#define TRANSLATE_TRIES 3

struct xlat_scratch {
	struct xlat_trace t;
	struct lower l;
	u8 page[PAGE_BYTES + 16]; /* and the start of the next */
};

/* Data without limit, at any base: FS or GS of a thread's storage. */
static bool has_no_limit(const struct soft_seg *s)
{
	u32 want = SEG_S | SEG_P | SEG_TYPE_WR_RD;
	u32 not = SEG_UNUSABLE | SEG_TYPE_CONF_ED | SEG_TYPE_CODE;

	return s->limit == ~0u && (s->attr & want) == want && !(s->attr & not );
}

u32 xlat_key(const struct vcpu *v)
{
	u32 key = 0;

	if (!v->is_protected || v->is_vm86 || !v->is_flat ||
	    v->code_mode == X86_MODE_16 || v->stack_size < 4 ||
	    (v->cpl != 0 && v->cpl != 3))
		return XLAT_KEY_NONE;
	if (v->code_mode == X86_MODE_32) {
		key |= XLAT_KEY_32;
		if (has_no_limit(&v->segs[X86_FS]))
			key |= XLAT_KEY_FS;
		if (has_no_limit(&v->segs[X86_GS]))
			key |= XLAT_KEY_GS;
	}
	if (v->cpl)
		key |= XLAT_KEY_USER;
	if (v->cr0 & (X86_CR0_TS | X86_CR0_EM))
		key |= XLAT_KEY_NM;
	if (!(v->cr4 & X86_CR4_OSFXSR))
		key |= XLAT_KEY_NOSSE;
	if (!(v->cr4 & X86_CR4_OSXSAVE) || (v->xcr0 & 6) != 6)
		key |= XLAT_KEY_NOAVX;
	return key;
}

/* ---- translation ---- */

static const u8 *ram_at(struct vcpu *v, gpa_t gpa)
{
	const struct mem_slot *s = mem_slot_find(v->vm->mem, gpa);

	return s ? s->hva + (gpa - s->gpa) : NULL;
}

static u32 used_bytes(const struct xlat_trace *t)
{
	if (t->n && t->page2 != XLAT_NO_GPA)
		return t->insns[0].in.len;
	return t->end - t->first;
}

/* NULL: the block has none. */
static struct slots *slots_of(struct xlat *x, const struct xlat_trace *t)
{
	return t->key & XLAT_KEY_USER ? xlat_slots_of(x, t->page + t->first)
				      : NULL;
}

/* Emits and enters the block of s->t; NULL: no room, or an instruction that is
 * not to be lowered as it stands there, s->l.i. */
static struct xlat_block *emit_block(struct vcpu *v, struct xlat_scratch *s,
				     bool *out_is_full)
{
	struct xlat *x = v->vm->xlat;
	struct xlat_trace *t = &s->t;
	struct xlat_block b = {
		.gpa = t->page + t->first,
		.gfn2 = xlat_gfn2(t->page2),
		.key = (u16)t->key,
		.insns = t->n,
		.bytes = (u16)used_bytes(t),
	};
	u32 pos = xlat_reserve(x, LOWER_CODE_MAX, LOWER_CODE_MAX, LOWER_FAULTS);

	*out_is_full = !pos;
	if (!pos)
		return NULL;
	s->l.e = (struct emit){
		.rw = xlat_code_rw(x), .pos = pos, .end = pos + LOWER_CODE_MAX};
	s->l.cold = xlat_next_cold(x);
	s->l.t = t;
	s->l.i = NULL;
	s->l.thunks = xlat_thunk_table(x);
	s->l.has_bmi2 = __builtin_cpu_supports("bmi2");
	s->l.slots = slots_of(x, t);
	s->l.block = xlat_next_block(x);
	if (!lower_trace(&s->l, &b))
		return NULL;
	b.look = t->look;
	/* The exits of a block for lockstep.c lead nowhere else. */
	return xlat_publish(x, &b, s->l.exits,
			    t->key & XLAT_KEY_LOCKSTEP ? 0 : s->l.exit_count,
			    s->l.faults, s->l.fault_count);
}

static bool lines_equal(const u8 *a, const u8 *b, u64 lines)
{
	for (; lines; lines &= lines - 1) {
		unsigned i = (unsigned)__builtin_ctzll(lines);

		if (memcmp(a + 64 * i, b + 64 * i, 64))
			return false;
	}
	return true;
}

/* Ends the trace where a block begins: the same code twice costs the host's
 * caches more than a jump does. A block that is made anew for its slots stays
 * as long as it was. */
static void cut_at_block(struct xlat *x, struct xlat_trace *t)
{
	const struct slots *s = slots_of(x, t);
	unsigned keep = s ? slots_length(s, t->page + t->first) : 0;
	u64 lines = atomic_load_explicit(&smc_page_of(x, t->page)->code,
					 memory_order_relaxed);

	if (t->page2 != XLAT_NO_GPA || t->key & XLAT_KEY_LOCKSTEP)
		return;
	for (unsigned i = MAX(keep, 1u); i < t->n; i++) {
		unsigned off = t->insns[i].off;

		/* Most lines have no code yet: no look into a cold hash. */
		if (lines & BIT64(off / 64) &&
		    xlat_find(x, t->page + off, XLAT_NO_GPA, t->key)) {
			xlat_trace_cut(t, i);
			return;
		}
	}
}

/* Under the lock. Forms the trace from a copy that was in memory after its
 * lines were protected. */
static bool form_trace(struct vcpu *v, struct xlat_scratch *s, gpa_t gpa,
		       const u8 *host2, gpa_t gpa2, bool *out_is_stable)
{
	gpa_t page = gpa & ~(PAGE_BYTES - 1);
	const u8 *host = ram_at(v, page);
	struct xlat_trace *t = &s->t;
	u8 *bytes2 = s->page + PAGE_BYTES;

	if (!host || !smc_page_of(v->vm->xlat, page))
		return false;
	for (int i = 0; i < TRANSLATE_TRIES; i++) {
		memcpy(s->page, host, PAGE_BYTES);
		if (host2)
			memcpy(bytes2, host2, 16);
		xlat_trace_build(t, s->page, host2 ? bytes2 : NULL,
				 gpa & (PAGE_BYTES - 1), v->key, &v->features);
		t->page = page;
		cut_at_block(v->vm->xlat, t);
		if (!t->n && t->end_kind != XLAT_END_INTERP)
			return false;
		if (!t->n) { /* a block that only leaves */
			t->low = t->first;
			t->end = t->first + 1;
		}
		*out_is_stable =
			smc_protect(v, page + t->low,
				    MIN((u32)t->end, (u32)PAGE_BYTES) - t->low);
		*out_is_stable &= smc_protect_lines(v, page, t->look);
		if (t->page2 != XLAT_NO_GPA) {
			t->page2 = gpa2;
			*out_is_stable &= smc_protect(v, gpa2, 16);
			if (memcmp(bytes2, host2, 16))
				continue;
		}
		if (!memcmp(s->page + t->low, host + t->low,
			    MIN((u32)t->end, (u32)PAGE_BYTES) - t->low) &&
		    lines_equal(s->page, host, t->look))
			return true;
	}
	return false;
}

/* The second page, if the instruction at va could reach into it. */
static const u8 *next_page(struct vcpu *v, gva_t va, gpa_t *out_gpa)
{
	gva_t next = (va | (PAGE_BYTES - 1)) + 1;

	*out_gpa = XLAT_NO_GPA;
	if (next - va >= X86_INSN_MAX)
		return NULL;
	if (v->code_mode != X86_MODE_64)
		next = (u32)next;
	if (!soft_exec_gpa_leaf(v, next, out_gpa) ||
	    !smc_page_of(v->vm->xlat, *out_gpa)) {
		*out_gpa = XLAT_NO_GPA;
		return NULL;
	}
	return ram_at(v, *out_gpa);
}

static void note_unverified(struct xlat *x, const struct xlat_scratch *s,
			    struct xlat_block *b)
{
	struct xlat_source source = {
		.hash = xlat_hash(s->page + s->t.first, b->bytes),
		.look_hash = xlat_hash_lines(s->page, b->look),
	};

	smc_unverified(x, b, &source);
}

static bool translate_locked(struct vcpu *v, struct xlat_scratch *s, gva_t va,
			     gpa_t gpa, bool *out_is_full)
{
	struct xlat *x = v->vm->xlat;
	struct xlat_block *b;
	gpa_t gpa2;
	const u8 *host2 = next_page(v, va, &gpa2);
	bool is_stable = true;

	*out_is_full = false;
	if (!form_trace(v, s, gpa, host2, gpa2, &is_stable))
		return false;
	/* What cannot be lowered after all gets a block that only leaves:
	 * without one, each entry would translate anew. */
	while (!(b = emit_block(v, s, out_is_full)) && !*out_is_full &&
	       s->t.n) {
		xlat_trace_cut(&s->t, (unsigned)(s->l.i - s->t.insns));
		v->stats.refusals++;
	}
	if (b && !is_stable)
		note_unverified(x, s, b);
	return b != NULL;
}

static void flush_all(struct vcpu *v)
{
	soft_pause_others(v);
	xlat_flush_all(v->vm->xlat);
	soft_resume_all(v->vm, v);
}

/* Makes the block at va; false: nothing can be translated there. Raises the
 * fetch's page fault. */
static bool translate(struct vcpu *v, gva_t va)
{
	struct xlat *x = v->vm->xlat;
	bool is_full, ok;
	gpa_t gpa;

	if (!soft_fetch_page(v, va) || !soft_exec_gpa_leaf(v, va, &gpa))
		return false;
	if (!v->scratch)
		v->scratch = calloc(1, sizeof(*v->scratch));
	if (!v->scratch)
		return false;
	for (int i = 0; i < 2; i++) {
		u64 start = soft_host_tsc();

		xlat_lock(x);
		ok = translate_locked(v, v->scratch, va, gpa, &is_full);
		xlat_unlock(x);
		v->stats.translations++;
		v->stats.translate_tsc += soft_host_tsc() - start;
		if (!is_full)
			return ok;
		flush_all(v);
	}
	return false;
}

/* ---- running ---- */

/* Counts what is about to run at va: is it to be interpreted still? */
static bool is_cold(struct vcpu *v, gva_t va)
{
	gpa_t gpa;

	return soft_exec_gpa_leaf(v, va, &gpa) &&
	       xlat_is_cold(v->vm->xlat, gpa, v->key);
}

static gva_t code_lin(const struct vcpu *v)
{
	return v->code_mode == X86_MODE_64 ? v->rip : (u32)v->rip;
}

const struct xlat_block *xlat_block_make(struct vcpu *v, u32 more_key,
					 bool *out_is_new)
{
	gva_t va = code_lin(v);
	const struct xlat_block *b;
	u32 key = xlat_key(v);

	*out_is_new = false;
	if (key == XLAT_KEY_NONE ||
	    (v->code_mode == X86_MODE_64 && !soft_is_canonical(va)))
		return NULL;
	v->key = key | more_key;
	b = xlat_block_of_leaf(v, va);
	if (!b && translate(v, va)) {
		*out_is_new = true;
		b = xlat_block_of_leaf(v, va);
	}
	v->key = key;
	return b;
}

const struct xlat_trace *xlat_last_trace(const struct vcpu *v)
{
	return &v->scratch->t;
}

/* The block without groups, which no jump cache knows. */
static const void *code_of_twin(struct vcpu *v, gva_t va, u32 extra)
{
	bool is_new;
	const struct xlat_block *b = xlat_block_make(v, extra, &is_new);

	v->pcbase = va & ~(PAGE_BYTES - 1);
	return b ? xlat_code_rx(v->vm->xlat) + xlat_entry_indirect(b) : NULL;
}

/* Where to enter generated code for v->rip, or NULL: interpret. */
static const void *code_for(struct vcpu *v)
{
	gva_t va = code_lin(v);
	u32 extra = v->key_extra;
	const void *code;

	v->key = xlat_key(v);
	v->key_extra = 0;
	if (v->key == XLAT_KEY_NONE)
		return NULL;
	if (extra)
		return code_of_twin(v, va, extra);
	code = xlat_jc_miss_leaf(v, va);
	if (code)
		return code;
	if (v->code_mode == X86_MODE_64 && !soft_is_canonical(va))
		return NULL;
	if (is_cold(v, va))
		return NULL;
	return translate(v, va) ? xlat_jc_miss_leaf(v, va) : NULL;
}

#define XSAVE_UPPERS	  576
#define XSAVE_UPPER_BYTES 256

static bool has_uppers(const struct vcpu *v)
{
	const u8 *p = v->xsave + XSAVE_UPPERS;
	u64 any = 0;

	for (unsigned i = 0; i < XSAVE_UPPER_BYTES; i += 8)
		any |= ld_le64(p + i);
	return any;
}

/* Generated code came to the entry of a dead block. */
static void leave_dead(struct vcpu *v)
{
	const void *behind = (const void *)(uintptr_t)v->exit_arg;
	const struct xlat_block *b = xlat_block_at(v->vm->xlat, behind);

	ASSERT(b);
	v->rip = v->pcbase + (b->gpa & (PAGE_BYTES - 1));
	v->exit_kind = XLAT_EXIT_LOOKUP;
}

void xlat_enter(struct vcpu *v, const void *code)
{
	struct xlat *x = v->vm->xlat;
	void (*fn)(struct vcpu *, const void *);
	const void *thunk = xlat_code_rx(x) + xlat_thunk_table(x)[XT_ENTER];

	memcpy(&fn, &thunk, sizeof(fn));
	v->has_uppers = has_uppers(v);
	fn(v, code);
	if (v->exit_kind == XLAT_EXIT_DEAD)
		leave_dead(v);
	if (v->key & XLAT_KEY_32)
		v->rip = (u32)v->rip;
}

static void run_translated(struct vcpu *v)
{
	if (likely(!v->lockstep) || !lockstep_run(v)) {
		const void *code = code_for(v);

		if (!code) {
			soft_interp_block(v);
			return;
		}
		xlat_enter(v, code);
	}
	if (v->exit_kind == XLAT_EXIT_LOOKUP && soft_is_kicked(v))
		v->exit_kind = XLAT_EXIT_KICK; /* that is why */
	v->stats.xlat_exits[v->exit_kind]++;
	switch (v->exit_kind) {
	case XLAT_EXIT_INTERP:
		soft_interp_one(v);
		break;
	case XLAT_EXIT_KICK:
		slots_kicked(v);
		break;
	case XLAT_EXIT_FAULT:
		soft_raise_host_trap(v, (unsigned)v->exit_arg);
	default:
		break;
	}
}

void xlat_run(struct vcpu *v)
{
	while (!v->is_halted) {
		if (unlikely(v->shadow) || unlikely(soft_needs_slow_step(v)))
			soft_interp_one(v);
		else if (unlikely(soft_is_kicked(v)))
			return;
		else
			run_translated(v);
	}
}

static u64 process_cpu_ns(void)
{
	return clock_ns(CLOCK_PROCESS_CPUTIME_ID);
}

void xlat_idle(struct vcpu *v)
{
	if (!v->lockstep &&
	    xlat_is_idle(v->vm->xlat, clock_mono_ns(), process_cpu_ns))
		flush_all(v);
}

void xlat_run_free(struct vcpu *v)
{
	free(v->scratch);
	v->scratch = NULL;
}
