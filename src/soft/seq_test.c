/* SPDX-License-Identifier: Apache-2.0 */
/* Sequences of 2 to 30 random instructions leave what the host CPU leaves, by
 * the interpreter and by the translator.
 *
 *	test_seq [SEQUENCES [SEED]]
 *
 * THEORY. seq_gen.h says what a sequence is. The code may cross a page's end,
 * and so may the operands, or lie where nothing is mapped or nothing may be
 * written: natively the sequence runs to its first fault, and its state there
 * is what is compared.
 *
 * Flags that may be undefined behind the sequence are not compared, and none
 * behind a fault in the middle, where the translator may have left out what
 * nobody would have read.
 *
 * A difference is shrunk: instructions become NOPs while it stays.
 *
 * The second half of the tests does the same to guests that are disturbed: one
 * is stepped by TF, one is kicked all the time.
 */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/time.h>

#include "soft/interp_int.h"
#include "soft/seq_gen.h"
#include "test/test.h"

/* States that each sequence starts from, one after the other: the first finds
 * no translation, the others find that of those before. */
#define FIRST_FREE_VECTOR 32 /* behind the exceptions */
#define STATES		  4

static unsigned sequences = 10000;

/* ---- cases ---- */

static void fill_case(struct oracle_case *c, const struct seq *s)
{
	for (unsigned i = 0; i < s->total; i++)
		memcpy(c->code + s->items[i].off, s->items[i].bytes,
		       s->items[i].len);
	c->len = s->bytes;
}

/* What cases have as data: a part of it, a little of which is new. */
struct pool {
	bool is_filled;
	u8 bytes[8 * ORACLE_DATA_BYTES];
};

static void random_data(struct pool *p, u8 *out)
{
	size_t room = sizeof(p->bytes) - ORACLE_DATA_BYTES;
	u8 *at = p->bytes + (oracle_rnd() >> 9) % room / 8 * 8;

	if (!p->is_filled)
		oracle_random_bytes(p->bytes, sizeof(p->bytes));
	p->is_filled = true;
	oracle_random_bytes(at, 256);
	memcpy(out, p->bytes + (oracle_rnd() >> 9) % room / 8 * 8,
	       ORACLE_DATA_BYTES);
}

static void make_case(struct oracle_case *c, const struct seq *s,
		      struct pool *pool)
{
	c->mode = s->mode;
	c->is_rep = false;
	c->is_sequence = true;
	memset(c->code, 0, sizeof(c->code));
	fill_case(c, s);
	oracle_random_registers(&c->in);
	random_data(pool, c->in.data);
	for (unsigned i = 0; i < 16; i++)
		if (i == X86_RSP || !oracle_one_in(4))
			c->in.gpr[i] = seq_pointer();
	if (!oracle_one_in(8))
		c->in.gpr[X86_RSP] = ORACLE_DATA + 3000 + oracle_rnd() % 2200;
	if (oracle_one_in(2))
		c->in.gpr[X86_RCX] = oracle_rnd() % 100;
	if (s->group.is_on)
		seq_group_registers(s, c->in.gpr);
	c->in.gpr[s->counter] = 1 + oracle_rnd() % 6;
	c->in.rip = s->rip;
	for (unsigned i = 0; i < 8 && s->mode != X86_MODE_64; i++)
		c->in.gpr[i] = (u32)c->in.gpr[i];
}

struct machines {
	struct oracle *o;
	struct oracle_guest t0, t1;
	struct oracle_state got;
	const char *tier;
	bool is_stepped;
	unsigned wild, deaths;
	struct pool pool;
};

/* ---- a guest that does not end ---- */

/* The vCPUs, for the tick: the second one within the same run ends it. */
static struct {
	struct vcpu *v[2];
	volatile unsigned runs;
	unsigned seen;
	volatile bool is_stopped;
} watched;

static void on_tick(int sig)
{
	if (watched.seen == watched.runs) {
		watched.is_stopped = true;
		for (unsigned i = 0; i < 2; i++)
			soft_kick(watched.v[i]);
	}
	watched.seen = watched.runs;
}

static void watch(struct machines *m)
{
	struct sigaction sa = {.sa_handler = on_tick, .sa_flags = SA_RESTART};
	struct itimerval tick = {{1, 0}, {1, 0}};

	watched.v[0] = m->t0.v;
	watched.v[1] = m->t1.v;
	sigaction(SIGALRM, &sa, NULL);
	setitimer(ITIMER_REAL, &tick, NULL);
}

static void unwatch(void)
{
	struct itimerval none = {{0, 0}, {0, 0}};

	setitimer(ITIMER_REAL, &none, NULL);
}

static void run_guest(struct machines *m, struct oracle_guest *g,
		      const struct oracle_case *c, void (*run)(struct vcpu *v))
{
	watched.runs++;
	watched.is_stopped = false;
	atomic_store(&g->v->go, SOFT_GO);
	oracle_guest_run(g, c, &m->got, run);
}

/* ---- comparison ---- */

/* Which of two faults of one instruction comes first is up to the CPU: an
 * operand that is misaligned, or not mapped, and runs over 4 GiB as well; one
 * that is not mapped or not canonical, with an x87 exception pending. */
static bool is_order_unsaid(u8 native, u8 got)
{
	return (native == X86_VEC_GP &&
		(got == X86_VEC_MF || got == X86_VEC_SS)) ||
	       (native == X86_VEC_PF &&
		(got == X86_VEC_MF || got == X86_VEC_GP || got == X86_VEC_SS));
}

/* By its UD2, which a store may have changed. */
static bool is_complete(const struct seq *s, const struct oracle_case *c)
{
	return c->out.fault == X86_VEC_UD &&
	       c->out.rip == c->in.rip + s->items[s->n].off;
}

/* POPF has set TF, or AC, which the guest's CR0 does not act on. */
static bool is_not_ours(const struct oracle_case *c)
{
	return c->is_skipped || c->out.fault == ORACLE_NO_FAULT ||
	       c->out.fault == X86_VEC_AC;
}

static bool is_inside(const struct oracle_case *c, u64 rip)
{
	return rip - c->in.rip < c->len;
}

static bool is_overwritten(const struct machines *m,
			   const struct oracle_case *c)
{
	return memcmp(m->t0.ram + c->in.rip, c->code, c->len) != 0;
}

/* Both have faulted in an ENTER, which no sequence has by itself: the host's
 * has stored a part of its frame by then, and finds the faults of its reads
 * and writes in another order. */
static bool is_at_enter(const struct machines *m, const struct oracle_case *c)
{
	struct insn in;

	return c->out.rip == m->got.rip && is_inside(c, c->out.rip) &&
	       x86_decode(&in, m->t0.ram + c->out.rip, 15, c->mode,
			  &m->t0.vm->features) > 0 &&
	       in.row->op == ISA_OP_ENTER;
}

/* Where the interpreter differs with good reason: it has left the sequence and
 * runs on what it finds there, system instructions among it; or the oracle's
 * process has something where the guest has nothing. */
static bool is_wild(struct machines *m, const struct oracle_case *c)
{
	bool is_wild = !is_inside(c, c->out.rip) || !is_inside(c, m->got.rip) ||
		       (m->got.fault == X86_VEC_PF &&
			oracle_has_mapped(m->o, m->t0.v->exc.cr2));

	/* GS's base makes it canonical again: AMD's processors refuse it. */
	is_wild |= c->out.fault == X86_VEC_GP && m->got.fault == X86_VEC_PF &&
		   !soft_is_canonical(m->t0.v->exc.cr2 - ORACLE_GS_BASE);
	/* An INT, in the middle of another instruction: the host's kernel lets
	 * no user have that vector, and the guest's gate does. */
	is_wild |= c->out.fault == X86_VEC_GP &&
		   m->got.fault >= FIRST_FREE_VECTOR &&
		   m->got.fault != ORACLE_NO_FAULT;
	/* INT3 and INTO, likewise: the guest's trap is caught before its
	 * delivery, which would take the address behind. */
	is_wild |= (c->out.fault == X86_VEC_BP || c->out.fault == X86_VEC_OF) &&
		   m->got.fault == c->out.fault && m->got.rip == c->out.rip - 1;
	/* Its own stores may have made an ENTER, or it has jumped to one. */
	is_wild |= is_overwritten(m, c) || is_at_enter(m, c);
	m->wild += is_wild;
	return is_wild;
}

/* Misses of slots kick, see slots.h. */
static void run_translated(struct vcpu *v)
{
	xlat_run(v);
	while (soft_is_kicked(v) && !watched.is_stopped) {
		atomic_store(&v->go, SOFT_GO);
		xlat_run(v);
	}
}

static void run_interpreted(struct vcpu *v)
{
	soft_interp(v);
	while (soft_is_kicked(v) && !watched.is_stopped) {
		atomic_store(&v->go, SOFT_GO);
		soft_interp(v);
	}
}

static unsigned steps;

/* With TF, whose traps find nobody but this. */
static void run_stepped(struct vcpu *v)
{
	sigjmp_buf outer;

	memcpy(&outer, &v->unwind, sizeof(outer));
	v->rflags_sys |= X86_FL_TF;
	if (sigsetjmp(v->unwind, 0)) {
		v->shadow = 0;
		if (v->exc.vector != X86_VEC_DB || !v->exc.is_trap) {
			memcpy(&v->unwind, &outer, sizeof(outer));
			siglongjmp(v->unwind, SOFT_UNWIND_EXCEPTION);
		}
		steps++;
	}
	run_translated(v);
}

/* Would TF show? */
static bool reads_tf(const struct seq *s, const struct isa_features *features)
{
	for (unsigned i = 0; i < s->total; i++) {
		const struct seq_item *it = &s->items[i];
		struct insn in;

		if (x86_decode(&in, it->bytes, it->len, s->mode, features) >
			    0 &&
		    (in.row->op == ISA_OP_PUSHF || in.row->op == ISA_OP_POPF))
			return true;
	}
	return false;
}

/* What differs, or NULL. */
static const char *compare(struct machines *m, const struct seq *s,
			   struct oracle_case *c)
{
	u16 undefined[SEQ_TOTAL_MAX];
	const char *what;
	u64 mask = 0, native = c->out.rflags;
	bool is_flushed = oracle_one_in(4); /* not by what time decides */

	if (is_not_ours(c) ||
	    (m->is_stepped && reads_tf(s, &m->t0.vm->features)))
		return NULL;
	m->tier = "interpreted";
	run_guest(m, &m->t0, c, run_interpreted);
	if (is_order_unsaid(c->out.fault, m->got.fault))
		return NULL;
	what = oracle_difference(&m->got, &c->out, 0, c->mode);
	if (what)
		return is_wild(m, c) ? NULL : what;
	if (is_flushed)
		soft_tlb_flush(m->t1.v, false);
	m->tier = m->is_stepped ? "stepped" : "translated";
	run_guest(m, &m->t1, c, m->is_stepped ? run_stepped : run_translated);
	if (c->out.fault == X86_VEC_GP && !soft_is_canonical(m->got.rip))
		return NULL; /* generated code faults behind the branch */
	if (is_complete(s, c)) {
		seq_find_undefined(s, undefined);
		mask = ISA_ALLF & ~undefined[s->n];
	}
	m->got.rflags = (m->got.rflags & (mask | X86_FL_DF)) |
			(native & ~(mask | X86_FL_DF));
	what = oracle_difference(&m->got, &c->out, 0, c->mode);
	/* Code that it has overwritten may read flags that were dead. */
	return what && is_overwritten(m, c) ? NULL : what;
}

/* ---- a difference ---- */

static void shrink(struct machines *m, struct seq *s, struct oracle_case *c)
{
	struct oracle_case *one = oracle_cases(m->o);

	*one = *c;
	for (unsigned i = 0; i < s->total; i++) {
		struct seq_item *it = &s->items[i], keep = *it;

		if (it->kind != SEQ_PLAIN && it->kind != SEQ_JUMP)
			continue;
		*it = (struct seq_item){
			.kind = SEQ_PLAIN, .len = keep.len, .off = keep.off};
		memset(it->bytes, 0x90, it->len);
		fill_case(one, s);
		if (oracle_run(m->o, 1) && compare(m, s, one))
			continue;
		*it = keep;
		fill_case(one, s);
	}
	assert_true(oracle_run(m->o, 1));
}

static void show(const struct seq *s, const struct oracle_case *c,
		 const struct isa_features *features)
{
	for (unsigned i = 0; i < s->total; i++) {
		const struct seq_item *it = &s->items[i];
		u64 rip = c->in.rip + it->off;
		char text[96];
		struct insn in;

		if (it->bytes[0] == 0x90 ||
		    x86_decode(&in, it->bytes, it->len, s->mode, features) <= 0)
			continue;
		x86_format(&in, rip, text, sizeof(text));
		print_message("  %llx: %s\n", (unsigned long long)rip, text);
	}
}

static void explain(struct machines *m, struct seq *s, struct oracle_case *c)
{
	struct oracle_case *one = oracle_cases(m->o);
	const char *what = compare(m, s, c);

	print_message("%s: %s, before shrinking\n", m->tier,
		      what ? what : "nothing (the second time)");
	shrink(m, s, c);
	what = compare(m, s, one);
	show(s, one, &m->t0.vm->features);
	oracle_report(m->tier, one, &m->got,
		      what ? what : "nothing (the second time)");
}

/* ---- the test ---- */

/* ---- the runs ---- */

struct counts {
	unsigned bad, complete, skipped;
};

static void run_case(struct machines *m, struct seq *s, struct oracle_case *c,
		     struct counts *n)
{
	const char *what = compare(m, s, c);

	n->complete += is_complete(s, c);
	n->skipped += is_not_ours(c);
	if (!what)
		return;
	n->bad++;
	print_message("%s, in the run of all:\n", m->tier);
	show(s, c, &m->t0.vm->features);
	oracle_report("sequence", c, &m->got, what);
	explain(m, s, c);
}

/* n sequences, random ones or this one. */
static void run_batch(struct machines *m, u8 mode, const u8 (*fixed)[16],
		      unsigned n, struct counts *counts)
{
	struct oracle_case *batch = oracle_cases(m->o);
	struct seq seqs[ORACLE_BATCH / STATES];

	for (unsigned i = 0; i < n; i++) {
		if (fixed)
			seq_fixed(&seqs[i], mode, fixed, &m->t0.vm->features);
		else
			seq_generate(&seqs[i], mode, &m->t0.vm->features);
		for (unsigned k = 0; k < STATES; k++)
			make_case(&batch[i * STATES + k], &seqs[i], &m->pool);
	}
	if (!oracle_run(m->o, n * STATES)) { /* a wild store hit it */
		oracle_free(m->o);
		m->o = oracle_new(true);
		assert_non_null(m->o);
		m->deaths++;
		return;
	}
	for (unsigned i = 0; i < n * STATES && !counts->bad; i++)
		run_case(m, &seqs[i / STATES], &batch[i], counts);
}

static void machines_init(struct machines *m)
{
	memset(m, 0, sizeof(*m));
	oracle_guest_init(&m->t0, false);
	oracle_guest_init(&m->t1, true);
	oracle_guest_map_read_only(&m->t0);
	oracle_guest_map_read_only(&m->t1);
	m->o = oracle_new(true);
	assert_non_null(m->o);
	watch(m);
}

/* ---- guests that are disturbed ---- */

enum disturbance { QUIET, STEPPED, KICKED };

static _Atomic bool storm_ends;

static void *storm(void *arg)
{
	struct machines *m = arg;

	while (!storm_ends) {
		soft_kick(m->t0.v);
		soft_kick(m->t1.v);
		sched_yield();
	}
	return NULL;
}

static void run(u8 mode, const u8 (*fixed)[16], unsigned count,
		enum disturbance how)
{
	static struct machines m;
	struct counts c = {0};
	pthread_t kicker;

#ifdef __SANITIZE_ADDRESS__
	/* ASan's shadow is mapped, so a wild address of the native run reads
	 * something where the guest has nothing. */
	print_message("SKIP: ASan maps memory where the guest has none\n");
	skip();
#endif
	machines_init(&m);
	m.is_stepped = how == STEPPED;
	steps = 0;
	storm_ends = false;
	if (how == KICKED)
		assert_int_equal(pthread_create(&kicker, NULL, storm, &m), 0);
	if (mode != X86_MODE_64 && !oracle_has_ldt(m.o))
		count = 0;
	for (unsigned left = count; left && !c.bad;) {
		unsigned n = MIN(left, ORACLE_BATCH / STATES);

		run_batch(&m, mode, fixed, n, &c);
		left -= n;
	}
	print_message("%u sequences, %u of %u runs to the end, %u skipped, "
		      "%u wild, %u deaths, %u differences\n",
		      count, c.complete, count * STATES, c.skipped, m.wild,
		      m.deaths, c.bad);
	unwatch();
	storm_ends = true;
	if (how == KICKED)
		pthread_join(kicker, NULL);
	assert_true(how != STEPPED || steps >= count);
	oracle_free(m.o);
	oracle_guest_fini(&m.t0);
	oracle_guest_fini(&m.t1);
	assert_int_equal(c.bad, 0);
	assert_true(m.deaths <= count / 50000);
	assert_true(m.wild <= count / 100 + 10);
	assert_true(c.complete >= count / 10);
}

static void sequences_leave_what_the_host_leaves(void **state)
{
	run(X86_MODE_64, NULL, sequences, QUIET);
}

static void sequences_of_32_bit_code_leave_the_same(void **state)
{
	run(X86_MODE_32, NULL, sequences / 2, QUIET);
}

static void sequences_that_once_differed_do_not(void **state)
{
	static const struct {
		u8 mode, insns[3][16]; /* and UD2 */
	} once[] = {
		/* movsxd di, [rcx] reads four bytes */
		{X86_MODE_64, {{0x66, 0x63, 0x39}, {0x0f, 0x0b}}},
		/* arpl [ecx], bp where nothing may be written */
		{X86_MODE_32, {{0x63, 0x29}, {0x0f, 0x0b}}},
		/* fsubp st0, st0; cvtpi2ps xmm0, [rcx] over a page's end */
		{X86_MODE_64, {{0xde, 0xe8}, {0x0f, 0x2a, 0x01}, {0x0f, 0x0b}}},
	};

	for (unsigned i = 0; i < ARRAY_SIZE(once); i++)
		run(once[i].mode, once[i].insns, 600, QUIET);
}

static void hostile_40_sequences_that_are_stepped_leave_the_same(void **state)
{
	run(X86_MODE_64, NULL, sequences / 4, STEPPED);
	run(X86_MODE_32, NULL, sequences / 8, STEPPED);
}

static void hostile_40_sequences_under_a_storm_of_kicks_leave_the_same(void **s)
{
	run(X86_MODE_64, NULL, sequences / 4, KICKED);
	run(X86_MODE_32, NULL, sequences / 8, KICKED);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sequences_that_once_differed_do_not),
		cmocka_unit_test(sequences_leave_what_the_host_leaves),
		cmocka_unit_test(sequences_of_32_bit_code_leave_the_same),
		cmocka_unit_test(
			hostile_40_sequences_that_are_stepped_leave_the_same),
		cmocka_unit_test(
			hostile_40_sequences_under_a_storm_of_kicks_leave_the_same),
	};

	if (argc > 1)
		sequences = (unsigned)strtoul(argv[1], NULL, 0);
	if (argc > 2)
		oracle_rng +=
			strtoull(argv[2], NULL, 0) * 0xd1342543de82ef95ull;
	return test_run("seq", tests);
}
