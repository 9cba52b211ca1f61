/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY. A check takes one block:
 *
 *	save registers
 *	interpret the block's instructions	-> registers, copies of pages
 *	restore registers
 *	run generated code, for good		-> registers, pages
 *	compare
 *
 * The interpreter's half has page tables of its own in front of memory (a
 * struct soft_space for each privilege, empty at first), whose write tags lead
 * to copies. So nothing of it is to be undone, devices may go on writing to
 * memory, and no page is seen through an older translation. What cannot be
 * done twice (device memory, and the instructions that xlat_can_lower()
 * refuses with XLAT_KEY_LOCKSTEP) ends the block or the interpreter's half.
 *
 * The generated code is a block of the key with XLAT_KEY_LOCKSTEP: all as
 * ever, but what leads out of it leads to the dispatcher. It may leave earlier
 * than the interpreter did, in front of an instruction that is the
 * interpreter's after all (a page that holds code, a fault). Then the copies
 * are taken back, and the interpreter runs again up to there.
 *
 * Flags. Compared are those that are live where the block was left, but for
 * what the manuals leave undefined. The dead ones differ, and each side goes
 * on with its own: were one of them read after all, by what follows, the
 * results would differ.
 *
 * A difference that a device's store to memory at this moment may have made
 * does not count.
 *
 * Not compared: FOP, FIP, FDP; A and D bits in page tables that the block
 * both wrote to and used.
 */
#include "soft/lockstep.h"

#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "soft/lower.h"
#include "soft/mmu_int.h"
#include "soft/trace_rows.h"
#include "soft/xlat_int.h"

/* Consecutive blocks of one check. */
#define LOCKSTEP_BURST 8
#define XSAVE_USED     832u

/* What an instruction may change, beside memory. */
struct regs {
	u64 gpr[16];
	u64 rip, rflags_sys, instructions;
	u32 aflags;
	u8 xsave[XSAVE_USED] __attribute__((aligned(64)));
};

/* What is to be known of a block when it has been left. */
struct note_insn {
	u16 off, live_in, live_target;
	u16 undefined; /* flags, behind it */
	bool is_branch, is_string;
};
struct note {
	u8 n, end_kind;
	bool has_x87;
	u16 next_off, end_live;
	struct note_insn insns[];
};

struct lockstep {
	u32 every, count, burst;
	u64 flushes;	     /* of the code cache, when notes were last valid */
	struct note **notes; /* by block index */
	struct lockstep_map map;
	struct soft_space *super, *user;
	u8 (*copies)[PAGE_BYTES], (*originals)[PAGE_BYTES];
	struct regs start, t0, t1;
	/* The interpreter's flags behind the last check, where the dead ones
	 * are not v's. */
	bool has_flags;
	u32 flags_v, flags_t0;
	u64 flags_rip, flags_instructions;
};

/* ---- made and freed ---- */

struct lockstep *lockstep_new(u32 every)
{
	struct lockstep *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->every = every;
	s->notes = calloc(XLAT_BLOCKS_MAX, sizeof(*s->notes));
	s->super = calloc(2, sizeof(*s->super));
	s->copies = aligned_alloc(PAGE_BYTES, 2 * LOCKSTEP_PAGES * PAGE_BYTES);
	if (!s->notes || !s->super || !s->copies) {
		lockstep_free(s);
		return NULL;
	}
	s->user = s->super + 1;
	s->originals = s->copies + LOCKSTEP_PAGES;
	return s;
}

static void forget_notes(struct lockstep *s)
{
	for (u32 i = 0; i < XLAT_BLOCKS_MAX; i++) {
		free(s->notes[i]);
		s->notes[i] = NULL;
	}
}

void lockstep_free(struct lockstep *s)
{
	if (!s)
		return;
	if (s->notes)
		forget_notes(s);
	free(s->notes);
	free(s->super);
	free(s->copies);
	free(s);
}

/* ---- copies ---- */

static void spaces_empty(struct lockstep *s, struct vcpu *v)
{
	soft_space_empty(s->super);
	soft_space_empty(s->user);
	v->fetch_page = SOFT_TLB_EMPTY;
}

u8 *lockstep_page(struct vcpu *v, u8 *real, bool is_write)
{
	struct lockstep *s = v->lockstep;
	struct lockstep_map *m = &s->map;
	u8 *copy = lockstep_find(m, real);

	if (copy || !is_write)
		return copy ? copy : real;
	if (m->count == LOCKSTEP_PAGES)
		return NULL;
	copy = s->copies[m->count];
	memcpy(s->originals[m->count], real, PAGE_BYTES);
	memcpy(copy, s->originals[m->count], PAGE_BYTES);
	m->real[m->count] = real;
	m->copy[m->count++] = copy;
	/* Other entries lead to the page itself. */
	spaces_empty(s, v);
	return copy;
}

void lockstep_stop(struct vcpu *v)
{
	siglongjmp(v->unwind, SOFT_UNWIND_LOCKSTEP);
}

/* ---- registers ---- */

static void regs_get(struct regs *r, const struct vcpu *v)
{
	memcpy(r->gpr, v->gpr, sizeof(r->gpr));
	r->rip = v->rip;
	r->rflags_sys = v->rflags_sys;
	r->instructions = v->instructions;
	r->aflags = v->aflags;
	memcpy(r->xsave, v->xsave, XSAVE_USED);
}

static void regs_set(struct vcpu *v, const struct regs *r)
{
	memcpy(v->gpr, r->gpr, sizeof(r->gpr));
	v->rip = r->rip;
	v->rflags_sys = r->rflags_sys;
	v->instructions = r->instructions;
	v->aflags = r->aflags;
	memcpy(v->xsave, r->xsave, XSAVE_USED);
}

/* v's registers, with those in the host's FPU if they matter. */
static void regs_take(struct regs *r, struct vcpu *v, bool has_x87)
{
	if (has_x87)
		soft_fpu_leave(v);
	regs_get(r, v);
	if (has_x87)
		soft_fpu_enter(v);
}

static void regs_put(struct vcpu *v, const struct regs *r, bool has_x87)
{
	regs_set(v, r);
	if (has_x87)
		soft_fpu_enter(v);
}

/* ---- the block ---- */

static struct note *note_make(const struct xlat_trace *t)
{
	struct note *n = calloc(1, sizeof(*n) + t->n * sizeof(n->insns[0]));
	u16 undefined = 0;

	if (!n)
		return NULL;
	n->n = t->n;
	n->end_kind = t->end_kind;
	n->next_off = t->next_off;
	n->end_live = t->end_live;
	for (unsigned i = 0; i < t->n; i++) {
		const struct xlat_insn *x = &t->insns[i];
		const struct isa_row *row = x->in.row;

		undefined &= ~x->writes;
		undefined |= row->flags_undefined;
		n->has_x87 |= (row->attr & (ISA_X87 | ISA_MMX)) != 0;
		n->insns[i] = (struct note_insn){
			.off = x->off,
			.live_in = (x->live_out & ~x->writes) | x->reads,
			.live_target = trace_insn_flow(&x->in) == TRACE_LEAVE
					       ? x->live_out
					       : x->live_target,
			.undefined = undefined,
			.is_branch = row->class == ISA_CTRL,
			.is_string = row->class == ISA_STR,
		};
	}
	return n;
}

/* The block at v->rip and its note, or NULL. */
static const struct xlat_block *block_of(struct vcpu *v, struct note **out)
{
	struct lockstep *s = v->lockstep;
	struct xlat *x = v->vm->xlat;
	const struct xlat_block *b;
	bool is_new;
	u32 i;

	b = xlat_block_make(v, XLAT_KEY_LOCKSTEP, &is_new);
	if (s->flushes != x->stats.flushes)
		forget_notes(s);
	s->flushes = x->stats.flushes;
	if (!b)
		return NULL;
	i = xlat_block_index(x, b);
	if (is_new) {
		free(s->notes[i]);
		s->notes[i] = note_make(xlat_last_trace(v));
	}
	*out = s->notes[i];
	return *out ? b : NULL;
}

/* ---- the interpreter's half ---- */

enum t0_end {
	T0_DONE,
	T0_RAISED,
	T0_STOPPED, /* in front of what it does not do twice */
	T0_ERROR,
};
struct t0_result {
	enum t0_end end;
	u32 done; /* instructions completed */
};

static gva_t code_page(const struct vcpu *v)
{
	gva_t va = v->code_mode == X86_MODE_64 ? v->rip : (u32)v->rip;

	return va & ~(gva_t)(PAGE_BYTES - 1);
}

static void one(struct vcpu *v, const struct note_insn *in)
{
	u64 rip = v->rip;

	do { /* a kick stops a repeated string instruction between elements */
		soft_interp_one(v);
	} while (in->is_string && v->rip == rip);
}

/* Along the block, at most `limit` instructions. v->unwind is the caller's to
 * put back. */
static void t0_run(struct vcpu *v, const struct note *n, u32 limit,
		   struct t0_result *out)
{
	gva_t page = code_page(v);
	volatile u32 done = 0;
	int how = sigsetjmp(v->unwind, 0);

	while (!how && done < limit) {
		one(v, &n->insns[done]);
		done = done + 1;
		if (done < n->n && v->rip != page + n->insns[done].off)
			break;
	}
	out->done = done;
	out->end = how == 0			  ? T0_DONE
		   : how == SOFT_UNWIND_EXCEPTION ? T0_RAISED
		   : how == SOFT_UNWIND_LOCKSTEP  ? T0_STOPPED
						  : T0_ERROR;
}

/* From s->start to s->t0 on copies; v is left as it ended. */
static void t0_half(struct vcpu *v, const struct note *n, u32 limit,
		    struct t0_result *out)
{
	struct lockstep *s = v->lockstep;
	struct soft_space *user = v->user;
	struct soft_tlb_entry *tlb_now = v->tlb_now;
	u32 go = atomic_exchange(&v->go, SOFT_GO);
	sigjmp_buf unwind;

	memcpy(&unwind, &v->unwind, sizeof(unwind));
	spaces_empty(s, v);
	v->on_copies = &s->map;
	v->super_now = s->super;
	v->user = s->user;
	v->tlb_now = v->cpl == 3 ? s->user->tlb : s->super->tlb;
	t0_run(v, n, limit, out);
	v->on_copies = NULL;
	v->super_now = &v->super;
	v->user = user;
	v->tlb_now = tlb_now;
	v->fetch_page = SOFT_TLB_EMPTY;
	memcpy(&v->unwind, &unwind, sizeof(unwind));
	if (!go)
		soft_kick(v);
	if (out->end == T0_ERROR)
		siglongjmp(v->unwind, SOFT_UNWIND_ERROR);
	regs_take(&s->t0, v, n->has_x87);
}

/* ---- comparison ---- */

/* v->aflags as the RFLAGS bits. */
static u16 arithmetic(u32 aflags)
{
	return ((aflags >> 8) & 0xd5) | (aflags & 1 ? ISA_OF : 0);
}

static bool pages_differ(const struct lockstep_map *m, u32 *out_page)
{
	for (u32 i = 0; i < m->count; i++) {
		if (!memcmp(m->real[i], m->copy[i], PAGE_BYTES))
			continue;
		for (u32 at = 0; at < PAGE_BYTES; at += 8) {
			u64 a = ld_le64(m->real[i] + at);
			u64 b = ld_le64(m->copy[i] + at);

			if (a == b || ((a & 1) && !((a ^ b) & ~0x60ull)))
				continue;
			*out_page = i;
			return true;
		}
	}
	return false;
}

/* What differs, or NULL; of the flags those in `flags`. */
static const char *difference(const struct lockstep *s, bool has_x87, u16 flags)
{
	const struct regs *a = &s->t0, *b = &s->t1;
	u32 page;

	if (a->rip != b->rip)
		return "rip";
	if (memcmp(a->gpr, b->gpr, sizeof(a->gpr)))
		return "a register";
	if ((arithmetic(a->aflags) ^ arithmetic(b->aflags)) & flags)
		return "flags";
	if (a->rflags_sys != b->rflags_sys)
		return "system flags";
	if (memcmp(a->xsave + 24, b->xsave + 24, 4))
		return "mxcsr";
	if (memcmp(a->xsave + 160, b->xsave + 160, 256))
		return "an xmm register";
	if (memcmp(a->xsave + 576, b->xsave + 576, 256))
		return "a ymm register";
	if (has_x87 && memcmp(a->xsave, b->xsave, 5))
		return "x87 control, status or tags";
	for (unsigned i = 0; has_x87 && i < 8; i++)
		if (memcmp(a->xsave + 32 + 16 * i, b->xsave + 32 + 16 * i, 10))
			return "an x87 register";
	return pages_differ(&s->map, &page) ? "memory" : NULL;
}

/* ---- a report ---- */

static void report_code(struct vcpu *v, const struct xlat_block *b,
			const struct note *n)
{
	const struct mem_slot *slot = mem_slot_find(v->vm->mem, b->gpa);
	gva_t page = v->lockstep->start.rip & ~(gva_t)(PAGE_BYTES - 1);
	u8 bytes[X86_INSN_MAX];
	struct insn in;
	char text[128];

	for (unsigned i = 0; slot && i < n->n; i++) {
		gpa_t gpa = (b->gpa & ~0xfffull) + n->insns[i].off;
		size_t left = slot->size - (gpa - slot->gpa);
		size_t avail = MIN(left, sizeof(bytes));

		memcpy(bytes, slot->hva + (gpa - slot->gpa), avail);
		if (x86_decode(&in, bytes, avail, v->code_mode, &v->features) <=
		    0)
			return;
		x86_format(&in, page + n->insns[i].off, text, sizeof(text));
		log_error("  %llx: %s",
			  (unsigned long long)(page + n->insns[i].off), text);
	}
}

static void report_qword(const char *name, unsigned i, u64 start, u64 t0,
			 u64 t1)
{
	if (t0 != t1)
		log_error("  %s%u: was %llx, interpreted %llx, translated %llx",
			  name, i, (unsigned long long)start,
			  (unsigned long long)t0, (unsigned long long)t1);
}

static void report_page(const struct lockstep *s, u32 page)
{
	const struct lockstep_map *m = &s->map;
	unsigned shown = 0;

	for (u32 at = 0; at < PAGE_BYTES && shown < 8; at += 8) {
		u64 t1 = ld_le64(m->real[page] + at);
		u64 t0 = ld_le64(m->copy[page] + at);

		report_qword("page offset ", at,
			     ld_le64(s->originals[page] + at), t0, t1);
		shown += t0 != t1;
	}
}

static void report(struct vcpu *v, const struct xlat_block *b,
		   const struct note *n, const char *what)
{
	const struct lockstep *s = v->lockstep;
	u32 page;

	log_error("lockstep: %s differs behind the block at %llx (gpa %llx, "
		  "key %x), exit %u",
		  what, (unsigned long long)s->start.rip,
		  (unsigned long long)b->gpa, b->key, v->exit_kind);
	report_code(v, b, n);
	for (unsigned i = 0; i < 16; i++)
		report_qword("r", i, s->start.gpr[i], s->t0.gpr[i],
			     s->t1.gpr[i]);
	report_qword("rip", 0, s->start.rip, s->t0.rip, s->t1.rip);
	report_qword("flags", 0, arithmetic(s->start.aflags),
		     arithmetic(s->t0.aflags), arithmetic(s->t1.aflags));
	report_qword("system flags", 0, s->start.rflags_sys, s->t0.rflags_sys,
		     s->t1.rflags_sys);
	for (unsigned i = 0; i < XSAVE_USED; i += 8)
		report_qword("xsave+", i, ld_le64(s->start.xsave + i),
			     ld_le64(s->t0.xsave + i),
			     ld_le64(s->t1.xsave + i));
	if (pages_differ(&s->map, &page))
		report_page(s, page);
}

/* ---- a check ---- */

/* Which instruction generated code left in front of; n->n: behind the last.
 * ~0u: of none. */
static u32 exit_index(const struct vcpu *v, const struct note *n)
{
	u64 off = v->rip - v->pcbase;

	for (u32 i = 0; i < n->n; i++)
		if (off == n->insns[i].off)
			return i;
	return n->end_kind == XLAT_END_INTERP && off == n->next_off ? n->n
								    : ~0u;
}

/* The flags to compare when the block was left behind `done` instructions, in
 * front of another one or by a branch. */
static u16 exit_flags(const struct note *n, u32 done, u64 off, bool is_inside)
{
	const struct note_insn *last = done ? &n->insns[done - 1] : NULL;
	u16 live = n->end_live;

	if (is_inside && done < n->n)
		live = n->insns[done].live_in;
	else if (last && last->is_branch &&
		 (done < n->n || n->end_kind == XLAT_END_BRANCH ||
		  off != n->next_off))
		live = last->live_target;
	return last ? live & (u16)~last->undefined : live;
}

struct check {
	const struct note *n;
	struct t0_result t0;
	u16 flags; /* to compare */
	bool is_skipped;
};

/* Generated code has left in front of an instruction of the block. */
static const char *left_inside(struct vcpu *v, struct check *c)
{
	struct lockstep *s = v->lockstep;
	const struct note *n = c->n;
	u32 at = exit_index(v, n);
	u32 kind = v->exit_kind;

	if (at == ~0u)
		return "the place of the exit";
	if (c->t0.done < at) {
		c->is_skipped = c->t0.end == T0_STOPPED;
		return "the instruction that faults";
	}
	/* A part of a repeated instruction may have been done. */
	c->is_skipped = at < n->n && n->insns[at].is_string;
	if (kind == XLAT_EXIT_FAULT &&
	    (c->t0.done > at || c->t0.end != T0_RAISED))
		return "a fault";
	c->flags = exit_flags(n, at, 0, true);
	if (c->t0.done > at) {
		for (u32 i = 0; i < s->map.count; i++)
			memcpy(s->map.copy[i], s->originals[i], PAGE_BYTES);
		regs_put(v, &s->start, n->has_x87);
		v->aflags = s->has_flags ? s->flags_t0 : s->start.aflags;
		t0_half(v, n, at, &c->t0);
		if (c->t0.done != at)
			return "the second run of the interpreter";
		regs_put(v, &s->t1, n->has_x87);
		v->exit_kind = kind;
	}
	return difference(s, n->has_x87, c->flags);
}

static const char *left_behind(struct vcpu *v, struct check *c)
{
	struct lockstep *s = v->lockstep;

	if (c->t0.end == T0_RAISED)
		return "a fault";
	c->is_skipped = c->t0.end == T0_STOPPED;
	c->flags = exit_flags(c->n, c->t0.done, s->t0.rip - v->pcbase, false);
	return difference(s, c->n->has_x87, c->flags);
}

/* The flags that nobody may look at any more stay each side's own. */
static void keep_flags(struct vcpu *v, const struct check *c)
{
	struct lockstep *s = v->lockstep;
	u16 undefined = c->t0.done ? c->n->insns[c->t0.done - 1].undefined : 0;

	s->has_flags = !c->is_skipped && !undefined &&
		       v->exit_kind == XLAT_EXIT_LOOKUP;
	s->flags_v = v->aflags;
	s->flags_t0 = s->t0.aflags;
	s->flags_rip = v->rip;
	s->flags_instructions = v->instructions;
}

/* Devices write to memory whenever they like; they tell of it afterwards. */
static bool is_devices_doing(struct vcpu *v, u64 writes)
{
	for (unsigned i = 0; i < 50; i++) {
		if (atomic_load(&v->vm->device_writes) != writes)
			return true;
		usleep(1000);
	}
	return false;
}

static void check(struct vcpu *v, const struct xlat_block *b,
		  const struct note *n)
{
	u64 writes = atomic_load(&v->vm->device_writes);
	struct lockstep *s = v->lockstep;
	struct check c = {.n = n};
	const char *what;

	s->has_flags = s->has_flags && s->flags_rip == v->rip &&
		       s->flags_v == v->aflags &&
		       s->flags_instructions == v->instructions;
	s->map.count = 0;
	regs_take(&s->start, v, n->has_x87);
	if (s->has_flags)
		v->aflags = s->flags_t0;
	t0_half(v, n, n->n, &c.t0);
	regs_put(v, &s->start, n->has_x87);
	v->pcbase = code_page(v);
	xlat_enter(v, xlat_code_rx(v->vm->xlat) + xlat_entry_indirect(b));
	regs_take(&s->t1, v, n->has_x87);
	if (v->exit_kind == XLAT_EXIT_INTERP || v->exit_kind == XLAT_EXIT_FAULT)
		what = left_inside(v, &c);
	else
		what = left_behind(v, &c);
	v->stats.lockstep_checks++;
	if (what && (c.is_skipped || is_devices_doing(v, writes))) {
		v->stats.lockstep_skips++;
		c.is_skipped = true;
		what = NULL;
	}
	if (what) {
		report(v, b, n, what);
		soft_internal_error(v, "lockstep: %s differs", what);
	}
	keep_flags(v, &c);
}

bool lockstep_run(struct vcpu *v)
{
	struct lockstep *s = v->lockstep;
	const struct xlat_block *b;
	struct note *n;

	if (!s->burst && ++s->count % s->every) {
		s->has_flags = false;
		return false;
	}
	if (!s->burst)
		s->burst = s->every > 1 ? LOCKSTEP_BURST : 1;
	s->burst--;
	b = block_of(v, &n);
	if (!b)
		return false;
	if (n->n == 0) {
		v->exit_kind = XLAT_EXIT_INTERP;
		return true;
	}
	check(v, b, n);
	return true;
}
