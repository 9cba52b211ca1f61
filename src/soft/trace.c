/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY. Forming decodes forward from the first instruction. Only jumps
 * forward are followed, so that offsets grow along the trace: the target of a
 * jump forward cannot be in it already, and a target is found by bisection.
 *
 * Liveness runs backward over the trace:
 *
 *	live_out = live at the next instruction, or end_live behind the last
 *		 | live at the target, of a conditional branch
 *	live_in	 = (live_out - writes) | reads
 *
 * What is live at an offset outside the trace, or before the instruction just
 * looked at (a loop), is found by looking ahead from there: forward over at
 * most LOOK_INSNS instructions for flags that are read before they are
 * overwritten. Where that cannot tell (another page, an indirect jump, the
 * interpreter's instruction, the bound) the flag counts as live. A branch is
 * followed both ways. A jump back to an offset whose exploration is under way
 * adds nothing: what can be read from there is found by that exploration. The
 * lines looked at are noted: the block depends on them.
 */
#include "soft/trace_rows.h"

#define LOOK_INSNS 12
#define LOOK_DEPTH 4

struct former {
	struct xlat_trace *t;
	const u8 *bytes;
	const struct isa_features *features;
	enum x86_mode mode;
	u32 key;
	/* Liveness is known for instructions from this index on. */
	unsigned known;
	/* keeps of each instruction, see trace_rows.h */
	u16 keeps[XLAT_TRACE_MAX];
};

/* ---- forming ---- */

static int decode_at(const struct former *f, struct insn *in, unsigned off)
{
	size_t avail = MIN(PAGE_BYTES - off, X86_INSN_MAX);

	return x86_decode(in, f->bytes + off, avail, f->mode, f->features);
}

/* Where the branch leads, relative to the page; may be outside it. */
static i64 target_of(const struct insn *in, unsigned off)
{
	return (i64)off + in->len + (i64)in->imm;
}
static bool is_in_page(i64 target)
{
	return target >= 0 && target < PAGE_BYTES;
}

static void add_insn(struct former *f, const struct insn *in, unsigned off)
{
	struct xlat_trace *t = f->t;
	struct xlat_insn *x = &t->insns[t->n];
	struct trace_flags flags = trace_insn_flags(in);

	if (in != &x->in)
		x->in = *in;
	x->off = off;
	x->reads = flags.reads;
	x->writes = flags.writes;
	x->live_target = 0;
	f->keeps[t->n] = flags.keeps;
	t->n++;
	t->end = MIN(off + in->len, PAGE_BYTES);
}

static void end_at(struct xlat_trace *t, enum xlat_trace_end kind, unsigned off)
{
	t->end_kind = kind;
	t->next_off = off;
}

/* Goes on behind `in`: the next offset, or -1 when the trace has ended. */
static int follow(struct xlat_trace *t, const struct insn *in, unsigned off)
{
	unsigned next = off + in->len;
	i64 target;

	switch (trace_insn_flow(in)) {
	case TRACE_LEAVE:
		end_at(t, XLAT_END_BRANCH, next);
		return -1;
	case TRACE_JUMP:
		target = target_of(in, off);
		if (target < next || !is_in_page(target) ||
		    t->n == XLAT_TRACE_MAX) {
			end_at(t, XLAT_END_BRANCH, next);
			return -1;
		}
		return (int)target;
	default:
		return (int)next;
	}
}

/* The first instruction, which begins at `off` and runs into the next page. */
static void form_crossing(struct former *f, const u8 *bytes2, unsigned off)
{
	struct xlat_trace *t = f->t;
	unsigned rest = PAGE_BYTES - off;
	u8 buf[X86_INSN_MAX];
	struct insn in;

	end_at(t, XLAT_END_INTERP, off);
	if (!bytes2)
		return;
	memcpy(buf, f->bytes + off, rest);
	memcpy(buf + rest, bytes2, sizeof(buf) - rest);
	if (x86_decode(&in, buf, sizeof(buf), f->mode, f->features) <= 0 ||
	    !xlat_can_lower(&in, f->key))
		return;
	add_insn(f, &in, off);
	t->page2 = 0;
	end_at(t, XLAT_END_PAGE, off + in.len);
	if (trace_insn_flow(&in) == TRACE_LEAVE ||
	    trace_insn_flow(&in) == TRACE_JUMP)
		t->end_kind = XLAT_END_BRANCH;
}

static void form(struct former *f, const u8 *bytes2, unsigned off)
{
	struct xlat_trace *t = f->t;

	for (;;) {
		struct insn *in;
		int rc;

		if (off >= PAGE_BYTES) {
			end_at(t, XLAT_END_PAGE, off);
			return;
		}
		if (t->n == XLAT_TRACE_MAX) {
			end_at(t, XLAT_END_NEXT, off);
			return;
		}
		in = &t->insns[t->n].in;
		rc = decode_at(f, in, off);
		if (rc == X86_DECODE_SHORT) {
			if (t->n == 0)
				form_crossing(f, bytes2, off);
			else /* its block depends on two pages: no link */
				end_at(t, XLAT_END_PAGE, off);
			return;
		}
		if (rc <= 0 || !xlat_can_lower(in, f->key)) {
			end_at(t, XLAT_END_INTERP, off);
			return;
		}
		add_insn(f, in, off);
		rc = follow(t, in, off);
		if (rc < 0)
			return;
		off = (unsigned)rc;
	}
}

/* ---- liveness ---- */

/* The index of the trace's instruction at off, or -1. */
static int index_of(const struct xlat_trace *t, unsigned off)
{
	unsigned lo = 0, hi = t->n;

	while (lo < hi) {
		unsigned mid = (lo + hi) / 2;

		if (t->insns[mid].off < off)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < t->n && t->insns[lo].off == off ? (int)lo : -1;
}

static u16 live_in(const struct xlat_insn *x)
{
	return (x->live_out & ~x->writes) | x->reads;
}

struct look {
	struct former *f;
	unsigned budget;
	/* Offsets being explored, and for which flags. */
	unsigned depth;
	struct {
		u16 off, want;
	} path[LOOK_DEPTH];
};

/* One step of looking ahead. */
struct look_step {
	enum trace_flow flow;
	u16 reads, writes;
	i64 target;
	unsigned next;
};

/* false: nothing is known of what stands at off. */
static bool look_step(struct look *l, struct look_step *s, unsigned off,
		      int index)
{
	const struct xlat_trace *t = l->f->t;
	const struct insn *in;
	struct insn decoded;

	if (index >= 0) {
		in = &t->insns[index].in;
		s->reads = t->insns[index].reads;
		s->writes = t->insns[index].writes;
	} else {
		struct trace_flags flags;

		if (decode_at(l->f, &decoded, off) <= 0 ||
		    !xlat_can_lower(&decoded, l->f->key))
			return false;
		in = &decoded;
		l->f->t->look |=
			BIT64(off / 64) | BIT64((off + in->len - 1u) / 64);
		flags = trace_insn_flags(in);
		s->reads = flags.reads;
		s->writes = flags.writes;
	}
	s->flow = trace_insn_flow(in);
	s->next = off + in->len;
	if (s->flow == TRACE_COND || s->flow == TRACE_JUMP)
		s->target = target_of(in, off);
	return true;
}

static u16 look_target(struct look *l, i64 target, u16 want);

/* Which of the flags in `want` may be read at off and behind. */
static u16 look_ahead(struct look *l, unsigned off, u16 want)
{
	u16 live = 0;

	while (want) {
		struct look_step s;
		int index;

		if (off >= PAGE_BYTES || l->budget == 0)
			return live | want;
		l->budget--;
		index = index_of(l->f->t, off);
		if (index >= 0 && (unsigned)index >= l->f->known)
			return live | (want & live_in(&l->f->t->insns[index]));
		if (!look_step(l, &s, off, index))
			return live | want;
		live |= want & s.reads;
		want &= ~(s.reads | s.writes);
		off = s.next;
		switch (s.flow) {
		case TRACE_NEXT:
			break;
		case TRACE_COND:
			live |= look_target(l, s.target, want);
			want &= ~live;
			break;
		case TRACE_JUMP:
			if (!is_in_page(s.target))
				return live | want;
			off = (unsigned)s.target;
			break;
		case TRACE_LEAVE:
			return live | want;
		}
	}
	return live;
}

static u16 look_target(struct look *l, i64 target, u16 want)
{
	u16 live;

	if (!want)
		return 0;
	if (!is_in_page(target))
		return want;
	for (unsigned i = 0; i < l->depth; i++) {
		if (l->path[i].off == target && !(want & ~l->path[i].want))
			return 0;
	}
	if (l->depth == LOOK_DEPTH)
		return want;
	l->path[l->depth].off = (u16)target;
	l->path[l->depth].want = want;
	l->depth++;
	live = look_ahead(l, (unsigned)target, want);
	l->depth--;
	return live;
}

static u16 live_at(struct former *f, i64 target)
{
	struct look l = {.f = f, .budget = LOOK_INSNS};

	return look_target(&l, target, ISA_ALLF);
}

/* Flags live behind instruction i; `next` are live where the trace goes on. */
static u16 live_behind(struct former *f, unsigned i, u16 next)
{
	struct xlat_insn *x = &f->t->insns[i];

	switch (trace_insn_flow(&x->in)) {
	case TRACE_COND:
		x->live_target = live_at(f, target_of(&x->in, x->off));
		return next | x->live_target;
	case TRACE_JUMP:
		if (i + 1 == f->t->n && f->t->end_kind == XLAT_END_BRANCH)
			next = live_at(f, target_of(&x->in, x->off));
		x->live_target = next;
		return next;
	case TRACE_LEAVE:
		return ISA_ALLF;
	default:
		return next;
	}
}

static void find_liveness(struct former *f)
{
	struct xlat_trace *t = f->t;
	u16 live;

	f->known = t->n;
	t->end_live = ISA_ALLF;
	if (t->end_kind == XLAT_END_NEXT)
		t->end_live = live_at(f, t->next_off);
	live = t->end_live;
	for (unsigned i = t->n; i-- > 0;) {
		struct xlat_insn *x = &t->insns[i];

		x->live_out = live_behind(f, i, live);
		/* What it may leave alone matters only to those behind it. */
		x->reads |= f->keeps[i] & x->live_out;
		live = live_in(x);
		f->known = i;
	}
}

void xlat_trace_build(struct xlat_trace *t, const u8 *bytes, const u8 *bytes2,
		      u16 off, u32 key, const struct isa_features *features)
{
	struct former f = {
		.t = t,
		.bytes = bytes,
		.features = features,
		.mode = key & XLAT_KEY_32 ? X86_MODE_32 : X86_MODE_64,
		.key = key,
	};

	ASSERT(off < PAGE_BYTES);
	t->page2 = XLAT_NO_GPA;
	t->key = key;
	t->first = t->low = t->end = off;
	t->n = 0;
	t->look = 0;
	form(&f, bytes2, off);
	find_liveness(&f);
}

void xlat_trace_cut(struct xlat_trace *t, unsigned n)
{
	struct xlat_insn *next = &t->insns[n];

	ASSERT(n < t->n);
	if (!n) {
		end_at(t, XLAT_END_INTERP, next->off);
		t->page2 = XLAT_NO_GPA;
		t->n = 0;
		t->low = next->off;
		t->end = next->off + 1;
		return;
	}
	end_at(t, XLAT_END_NEXT, next->off);
	t->end_live = live_in(next);
	/* That liveness was found by reading what is cut off. */
	for (unsigned i = n; i < t->n; i++) {
		unsigned off = t->insns[i].off;

		t->look |= BIT64(off / 64) |
			   BIT64((off + t->insns[i].in.len - 1u) / 64);
	}
	t->n = (u8)n;
	t->end = MIN(next[-1].off + next[-1].in.len, PAGE_BYTES);
}
