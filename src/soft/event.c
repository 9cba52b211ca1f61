/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY. Raising: soft_raise*() stores the exception in v->exc and jumps to
 * v->unwind. Delivering: soft_deliver_exception() sets a jump buffer of its
 * own and runs deliver(), which may raise again; merge() then decides by the
 * classes of the two events (SDM 3A table 6-5): serially, #DF, or shutdown.
 *
 * deliver() commits registers only after the whole frame is on the stack, so
 * a nested fault sees the state of the interrupted instruction. CR2, DR6 and
 * DR7.GD change before.
 *
 * Source: SDM 3A §6.11-6.15, §17.2-17.3, 3B §20.3; APM 2 §8.
 */
#include "soft/soft_int.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/log.h"
#include "soft/soft_sys.h"
#include "x86/cpuid.h"

#define DELIVERING_NONE 0xffffu
#define DELIVERING_EXT	0x100u /* interrupt: benign whatever the number */

/* ---- raising ---- */

void soft_raise_exc(struct vcpu *v, const struct soft_exception *e)
{
	v->exc = *e;
	if (!e->is_software)
		v->watch_hits = 0;
	siglongjmp(v->unwind, SOFT_UNWIND_EXCEPTION);
}

void soft_raise(struct vcpu *v, u8 vector)
{
	soft_raise_exc(v, &(struct soft_exception){.vector = vector});
}

void soft_raise_error(struct vcpu *v, u8 vector, u32 error)
{
	soft_raise_exc(v, &(struct soft_exception){.vector = vector,
						   .has_error = true,
						   .error = error});
}

void soft_raise_pf(struct vcpu *v, gva_t cr2, u32 error)
{
	soft_raise_exc(v, &(struct soft_exception){.vector = X86_VEC_PF,
						   .has_error = true,
						   .error = error,
						   .cr2 = cr2});
}

void soft_internal_error(struct vcpu *v, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(v->error, sizeof(v->error), fmt, ap);
	va_end(ap);
	log_error("vcpu %u at rip 0x%llx: %s", v->id,
		  (unsigned long long)v->rip, v->error);
	siglongjmp(v->unwind, SOFT_UNWIND_ERROR);
}

/* ---- debug registers ---- */

static const u8 watch_len[4] = {1, 2, 8, 4};

static void watch_match(struct vcpu *v, u64 at, size_t n, unsigned kinds)
{
	for (unsigned i = 0; i < 4; i++) {
		unsigned rw = v->dr7 >> (16 + i * 4) & 3;
		u64 len = watch_len[v->dr7 >> (18 + i * 4) & 3];
		u64 start = v->dr[i] & ~(len - 1);

		if ((v->dr7 >> (i * 2) & 3) && (kinds & BIT32(rw)) &&
		    at < start + len && start < at + n)
			v->watch_hits |= BIT32(i);
	}
}

void soft_watch(struct vcpu *v, gva_t va, size_t n, bool is_write)
{
	watch_match(v, va, n, BIT32(3) | (is_write ? BIT32(1) : 0));
}

void soft_watch_io(struct vcpu *v, u16 port, unsigned size)
{
	if ((v->dr7 & 0xff) && (v->cr4 & X86_CR4_DE))
		watch_match(v, port, size, BIT32(2));
}

void soft_debug_changed(struct vcpu *v)
{
	soft_tlb_flush(v, false);
}

void soft_check_debug_traps(struct vcpu *v, bool tf_before)
{
	struct soft_exception e = {.vector = X86_VEC_DB, .is_trap = true};

	/* MOV SS holds both until the next instruction is done. */
	if (v->shadow & SHADOW_MOV_SS)
		return;
	e.dr6 = v->watch_hits;
	if (tf_before)
		e.dr6 |= DR6_BS;
	if (e.dr6)
		soft_raise_exc(v, &e);
}

void soft_check_code_breakpoints(struct vcpu *v)
{
	struct soft_exception e = {.vector = X86_VEC_DB};
	u64 va = v->rip;

	/* MOV SS holds it back on Intel only (SDM 3A §6.8.3). */
	if ((v->shadow & SHADOW_MOV_SS) && !soft_is_amd(v))
		return;
	if (v->code_mode != X86_MODE_64)
		va = (u32)(va + v->segs[X86_CS].base);
	if (!(v->rflags_sys & X86_FL_RF))
		for (unsigned i = 0; i < 4; i++)
			if ((v->dr7 >> (i * 2) & 3) &&
			    !(v->dr7 >> (16 + i * 4) & 3) && v->dr[i] == va)
				e.dr6 |= BIT64(i);
	v->rflags_sys &= ~X86_FL_RF;
	if (e.dr6)
		soft_raise_exc(v, &e);
}

/* ---- delivery ---- */

u32 soft_exc_ext(const struct soft_exception *e)
{
	return e->is_software ? 0 : 1;
}

static u64 exc_return_rip(const struct vcpu *v, const struct soft_exception *e)
{
	u64 rip = v->rip + (e->is_software ? e->insn_len : 0);

	return v->code_mode == X86_MODE_64 ? rip : (u32)rip;
}

/* The RFLAGS image that is pushed: faults set RF, traps do not
 * (SDM 3B §17.3.1.1). */
u64 soft_exc_flags(const struct vcpu *v, const struct soft_exception *e)
{
	u64 flags = soft_rflags(v);
	bool is_fault = !e->is_trap && !e->is_software && !e->is_external &&
			e->vector != X86_VEC_DB && e->vector != X86_VEC_DF &&
			e->vector != X86_VEC_MC;

	return is_fault ? flags | X86_FL_RF : flags;
}

static void deliver_real(struct vcpu *v, const struct soft_exception *e)
{
	struct soft_seg cs = v->segs[X86_CS];
	struct soft_stack st;
	u32 gate;

	if (e->vector * 4u + 3 > v->idtr.limit)
		soft_gp(v, e->vector * 8u + 2);
	gate = (u32)soft_read(v, v->idtr.base + e->vector * 4u, 4, SOFT_SUPER);
	soft_stack_init(v, &st);
	soft_stack_push(v, &st, 2, soft_rflags(v));
	soft_stack_push(v, &st, 2, cs.sel);
	soft_stack_push(v, &st, 2, exc_return_rip(v, e));
	soft_seg_set_real(&cs, (u16)(gate >> 16));
	if ((gate & 0xffff) > cs.limit)
		soft_gp(v, 0);
	soft_stack_commit_sp(v, &st);
	v->segs[X86_CS] = cs;
	v->rip = gate & 0xffff;
	v->rflags_sys &= ~(X86_FL_IF | X86_FL_TF | X86_FL_AC | X86_FL_RF);
	soft_mode_changed(v);
}

struct gate {
	u16 sel;
	u8 type;
	u8 ist;
	u64 off;
};

static void gate_read(struct vcpu *v, const struct soft_exception *e,
		      struct gate *g)
{
	unsigned size = v->is_long ? 16 : 8;
	u32 error = e->vector * 8u + 2 + soft_exc_ext(e);
	gva_t va = v->idtr.base + e->vector * size;
	u64 lo;

	if (e->vector * size + size - 1 > v->idtr.limit)
		soft_gp(v, error);
	lo = soft_read(v, va, 8, SOFT_SUPER);
	g->type = lo >> 40 & 0x1f;
	g->sel = (u16)(lo >> 16);
	g->ist = v->is_long ? lo >> 32 & 7 : 0;
	g->off = (lo & 0xffff) | (lo >> 32 & 0xffff0000);
	if (v->is_long)
		g->off |= soft_read(v, va + 8, 4, SOFT_SUPER) << 32;
	if (g->type != SYS_INT32 && g->type != SYS_TRAP32 &&
	    (v->is_long || (g->type != SYS_INT16 && g->type != SYS_TRAP16 &&
			    g->type != SYS_TASK)))
		soft_gp(v, error);
	if (e->is_software && (lo >> 45 & 3) < v->cpl)
		soft_gp(v, error);
	if (!(lo & BIT64(47)))
		soft_np(v, error);
	if (g->type == SYS_INT16 || g->type == SYS_TRAP16)
		g->off &= 0xffff;
}

/* The gate's code segment with all its checks; returns the new CPL. */
static unsigned gate_code(struct vcpu *v, const struct gate *g, u32 ext,
			  struct soft_seg *cs, gva_t *out_va)
{
	u32 error = (g->sel & 0xfffcu) | ext;
	unsigned cpl = v->cpl;
	u64 raw;

	if (!(g->sel & 0xfffc))
		soft_gp(v, ext);
	if (!soft_desc_read(v, g->sel, &raw, out_va))
		soft_gp(v, error);
	soft_desc_parse(raw, g->sel, cs);
	if (!(cs->attr & SEG_S) || !(cs->attr & SEG_TYPE_CODE) ||
	    SEG_DPL(cs->attr) > cpl)
		soft_gp(v, error);
	if (v->is_long && (cs->attr & (SEG_L | SEG_DB)) != SEG_L)
		soft_gp(v, error);
	if (!(cs->attr & SEG_P))
		soft_np(v, error);
	if (!(cs->attr & SEG_TYPE_CONF_ED))
		cpl = SEG_DPL(cs->attr);
	if (v->is_vm86 && cpl != 0)
		soft_gp(v, error);
	cs->sel = (g->sel & 0xfffc) | (u16)cpl;
	return cpl;
}

/* The stack that the handler runs on. */
static void gate_stack(struct vcpu *v, const struct gate *g, unsigned cpl,
		       u32 ext, struct soft_stack *st)
{
	soft_stack_init(v, st);
	st->error = ext;
	if (v->is_long) {
		st->is_64 = true;
		st->mask = ~0ull;
		if (g->ist) {
			gva_t at = v->tr.base + 36 + (g->ist - 1) * 8u;

			if (36 + g->ist * 8u - 1 > v->tr.limit)
				soft_ts(v, (v->tr.sel & 0xfffcu) | ext);
			st->sp = soft_read(v, at, 8, SOFT_SUPER);
		} else if (cpl < v->cpl) {
			u16 unused;

			soft_tss_stack(v, cpl, ext, &unused, &st->sp);
		}
		st->sp &= ~15ull;
		if (cpl < v->cpl) {
			soft_seg_set_null(&st->ss, (u16)cpl);
			st->ss.attr |= cpl << 5;
		}
	} else if (cpl < v->cpl) {
		u16 sel;

		soft_tss_stack(v, cpl, ext, &sel, &st->sp);
		soft_load_inner_ss(v, sel, cpl, ext, &st->ss);
		st->mask = (st->ss.attr & SEG_DB) ? 0xffffffffu : 0xffff;
		st->error = (sel & 0xfffcu) | ext;
	}
	if (cpl != 3)
		st->how = SOFT_SUPER;
}

static void push_frame(struct vcpu *v, const struct soft_exception *e,
		       unsigned size, bool has_outer, struct soft_stack *st)
{
	static const u8 vm86_segs[] = {X86_GS, X86_FS, X86_DS, X86_ES};
	const struct soft_seg *s = v->segs;

	if (v->is_vm86)
		for (unsigned i = 0; i < ARRAY_SIZE(vm86_segs); i++)
			soft_stack_push(v, st, size, s[vm86_segs[i]].sel);
	if (has_outer) {
		soft_stack_push(v, st, size, s[X86_SS].sel);
		soft_stack_push(v, st, size, v->gpr[X86_RSP]);
	}
	soft_stack_push(v, st, size, soft_exc_flags(v, e));
	soft_stack_push(v, st, size, s[X86_CS].sel);
	soft_stack_push(v, st, size, exc_return_rip(v, e));
	if (e->has_error)
		soft_stack_push(v, st, size, e->error);
}

static void deliver_protected(struct vcpu *v, const struct soft_exception *e)
{
	u32 ext = soft_exc_ext(e);
	struct soft_stack st;
	struct soft_seg cs;
	bool has_outer;
	unsigned cpl;
	struct gate g;
	gva_t cs_va;

	gate_read(v, e, &g);
	if (g.type == SYS_TASK) {
		soft_task_switch(v, g.sel, TASK_GATE, exc_return_rip(v, e), e);
		return;
	}
	cpl = gate_code(v, &g, ext, &cs, &cs_va);
	has_outer = v->is_long || cpl < v->cpl;
	gate_stack(v, &g, cpl, ext, &st);
	push_frame(v, e, v->is_long ? 8 : (g.type & 8) ? 4 : 2, has_outer, &st);
	soft_check_target(v, &cs, g.off, ext);
	soft_desc_set_accessed(v, cs_va, &cs);

	if (v->is_vm86)
		for (unsigned i = 0; i < 6; i++)
			if (i != X86_CS && i != X86_SS)
				soft_seg_set_null(&v->segs[i], 0);
	v->segs[X86_SS] = st.ss;
	v->segs[X86_CS] = cs;
	v->rip = g.off;
	v->rflags_sys &= ~(X86_FL_TF | X86_FL_NT | X86_FL_RF | X86_FL_VM);
	if (!(g.type & 1))
		v->rflags_sys &= ~X86_FL_IF;
	soft_mode_changed(v);
	soft_stack_commit_sp(v, &st);
}

static void deliver(struct vcpu *v)
{
	struct soft_exception e = v->exc;

	v->delivering = e.vector |
			(e.is_external || e.is_software ? DELIVERING_EXT : 0);
	if (e.vector == X86_VEC_PF && !e.is_software && !e.is_external)
		v->cr2 = e.cr2;
	if (e.vector == X86_VEC_DB && !e.is_software && !e.is_external) {
		v->dr6 = (v->dr6 & ~0xfull) | DR6_FIXED | e.dr6;
		v->dr7 &= ~DR7_GD;
	}
	if (!v->is_protected)
		deliver_real(v, &e);
	else
		deliver_protected(v, &e);
	v->shadow = 0;
	v->is_halted = false;
	v->delivering = DELIVERING_NONE;
}

/* ---- nested faults ---- */

enum event_class { EVENT_BENIGN, EVENT_CONTRIBUTORY, EVENT_PAGE_FAULT };

static enum event_class event_class(unsigned vector)
{
	switch (vector) {
	case X86_VEC_DE:
	case X86_VEC_TS:
	case X86_VEC_NP:
	case X86_VEC_SS:
	case X86_VEC_GP:
		return EVENT_CONTRIBUTORY;
	case X86_VEC_PF:
		return EVENT_PAGE_FAULT;
	default:
		return EVENT_BENIGN;
	}
}

/* Combines v->exc with the event that was being delivered. false: triple
 * fault. */
static bool merge(struct vcpu *v)
{
	enum event_class first = event_class(v->delivering);
	enum event_class second = event_class(v->exc.vector);

	if (v->delivering == X86_VEC_DF)
		return false;
	if ((first == EVENT_CONTRIBUTORY && second == EVENT_CONTRIBUTORY) ||
	    (first == EVENT_PAGE_FAULT && second != EVENT_BENIGN))
		v->exc = (struct soft_exception){.vector = X86_VEC_DF,
						 .has_error = true};
	return true;
}

/* Data breakpoints that MOV SS held back come after an INT n, INT3 or INTO
 * has been delivered, at the first instruction of its handler. */
static void deliver_held_traps(struct vcpu *v)
{
	if (!v->exc.is_software || !v->watch_hits)
		return;
	v->exc = (struct soft_exception){
		.vector = X86_VEC_DB, .is_trap = true, .dr6 = v->watch_hits};
	v->watch_hits = 0;
	deliver(v);
}

bool soft_deliver_exception(struct vcpu *v)
{
	sigjmp_buf outer;
	int rc;

	v->stats.exceptions += !v->exc.is_external;
	v->delivering = DELIVERING_NONE;
	memcpy(&outer, &v->unwind, sizeof(outer));
	rc = sigsetjmp(v->unwind, 0);
	if (rc == SOFT_UNWIND_ERROR) {
		memcpy(&v->unwind, &outer, sizeof(outer));
		siglongjmp(v->unwind, SOFT_UNWIND_ERROR);
	}
	if (!rc || merge(v)) {
		deliver(v);
		deliver_held_traps(v);
	}
	memcpy(&v->unwind, &outer, sizeof(outer));
	return v->delivering == DELIVERING_NONE;
}

bool soft_deliver_interrupt(struct vcpu *v, u8 vector, bool is_nmi)
{
	v->stats.interrupts++;
	if (is_nmi)
		v->nmi_blocked = true;
	v->exc = (struct soft_exception){.vector = vector, .is_external = true};
	return soft_deliver_exception(v);
}
