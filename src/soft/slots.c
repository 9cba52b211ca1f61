/* SPDX-License-Identifier: Apache-2.0 */
/* Which accesses have slots: samples, promotion, demotion.
 *
 * THEORY. A poll is at the head of each loop and behind each indirect jump, so
 * a sample falls on such a block, and what else the loop executes is reached
 * over links, forward. A translation costs as much as thousands of accesses
 * save: promotions take tokens, of which so many come in a second; and a
 * block is promoted once, unless all code is dropped.
 *
 * A slot pays off while it misses less than once in some hundred times. How
 * often it hits is not counted; what misses cost altogether is. While that is
 * little, nobody cares; when SLOTS_WEIGHT_MAX comes together within one
 * period, the sites that make up half of it are demoted, for good.
 */
#include "soft/slots.h"

#include "soft/mmu_int.h"
#include "soft/xlat_int.h"

#define PERIOD_LOG2   23 /* of the host's TSC: some milliseconds */
#define TOKENS_PERIOD 4u
#define TOKENS_MAX    256u
#define HEAT_PROMOTED 2u
#define REACH_MAX     24u /* blocks promoted over links */

/* ---- sets of addresses ---- */

static u32 hash_of(gpa_t gpa)
{
	return (u32)(gpa * 0x9e3779b97f4a7c15ull >> 40) & (SLOTS_HASH - 1);
}

static bool has(const u64 *set, gpa_t gpa)
{
	u32 h = hash_of(gpa);

	return set[h / 64] >> (h % 64) & 1;
}

static void add(u64 *set, gpa_t gpa)
{
	u32 h = hash_of(gpa);

	set[h / 64] |= BIT64(h % 64);
}

bool slots_wanted(const struct slots *s, gpa_t gpa)
{
	return s->is_forced || has(s->hot, gpa);
}

u32 slots_take(struct slots *s, bool is_write, gpa_t gpa, u32 block)
{
	unsigned k = is_write ? 1 : 0;
	u32 i;

	if (has(s->bad, gpa))
		return 0;
	i = s->next[k]++ % SOFT_SLOTS;
	s->sites[k][i] = (struct slot_site){gpa, block};
	return (u32)(offsetof(struct soft_space, slots) +
		     (k * SOFT_SLOTS + i) * sizeof(struct soft_slot));
}

void slots_reset(struct slots *s)
{
	memset(s->sites, 0, sizeof(s->sites));
	memset(s->hot, 0, sizeof(s->hot));
	memset(s->bad, 0, sizeof(s->bad));
	memset(s->lengths, 0, sizeof(s->lengths));
	s->next[0] = s->next[1] = 0;
}

void slots_force(struct xlat *x)
{
	x->slots.is_forced = true;
}

unsigned slots_length(const struct slots *s, gpa_t gpa)
{
	return s->lengths[hash_of(gpa)];
}

/* The block is going to be made again. */
static void kill(struct xlat *x, struct xlat_block *b)
{
	if (!b->is_dead)
		x->slots.lengths[hash_of(b->gpa)] = b->insns;
	xlat_kill(x, b);
}

/* ---- demotion ---- */

static void demote(struct xlat *x, struct slot_site *site)
{
	struct slots *s = &x->slots;

	if (!site->block)
		return;
	add(s->bad, site->gpa);
	s->demotions++;
	kill(x, xlat_block_get(x, site->block));
	site->block = 0;
}

/* Those of at least this weight; returns their sum. */
static u32 demote_from(struct vcpu *v, u32 least)
{
	struct slots_seen *seen = &v->slots;
	struct xlat *x = v->vm->xlat;
	u32 sum = 0;

	for (unsigned i = 0; i < 2 * SOFT_SLOTS; i++) {
		u16 *w = &seen->weights[i / SOFT_SLOTS][i % SOFT_SLOTS];

		if (*w < least)
			continue;
		sum += *w;
		*w = 0;
		demote(x, &x->slots.sites[i / SOFT_SLOTS][i % SOFT_SLOTS]);
	}
	return sum;
}

static void demote_worst(struct vcpu *v)
{
	u32 total = v->slots.weight, sum = 0;

	xlat_lock(v->vm->xlat);
	for (u32 least = total / 32; least && sum < total / 2; least /= 4)
		sum += demote_from(v, least);
	xlat_unlock(v->vm->xlat);
}

static void look_at_misses(struct vcpu *v)
{
	struct slots_seen *seen = &v->slots;
	u64 now = soft_host_tsc();
	bool is_too_much = seen->weight >= SLOTS_WEIGHT_MAX;

	if (!is_too_much && now - seen->tsc < BIT64(PERIOD_LOG2))
		return;
	if (is_too_much)
		demote_worst(v);
	if (seen->weight)
		memset(seen->weights, 0, sizeof(seen->weights));
	seen->weight = 0;
	seen->tsc = now;
}

/* ---- promotion ---- */

static void refill(struct slots *s)
{
	u64 periods = (soft_host_tsc() - s->tokens_tsc) >> PERIOD_LOG2;

	if (!periods)
		return;
	s->tokens =
		(u32)MIN(s->tokens + periods * TOKENS_PERIOD, (u64)TOKENS_MAX);
	s->tokens_tsc = soft_host_tsc();
}

static void promote_one(struct xlat *x, struct xlat_block *b)
{
	struct slots *s = &x->slots;

	if (has(s->hot, b->gpa) || !s->tokens)
		return;
	s->tokens--;
	add(s->hot, b->gpa);
	s->promotions++;
	kill(x, b);
}

/* The block and those that it leads to. */
static void promote(struct xlat *x, struct xlat_block *b)
{
	struct xlat_block *reached[REACH_MAX];
	unsigned n = 0;

	reached[n++] = b;
	for (unsigned i = 0; i < n; i++) {
		const struct xlat_block *from = reached[i];

		for (u32 k = from->outgoing; k && n < REACH_MAX;) {
			const struct xlat_link *l = &x->links[k - 1];
			struct xlat_block *to = xlat_block_get(x, l->to);
			bool is_known = !l->to || to->is_dead;

			k = l->next_outgoing;

			for (unsigned j = 0; j < n && !is_known; j++)
				is_known = reached[j] == to;
			if (!is_known)
				reached[n++] = to;
		}
	}
	for (unsigned i = 0; i < n; i++)
		promote_one(x, reached[i]);
}

static void sample(struct vcpu *v)
{
	struct xlat *x = v->vm->xlat;
	const struct xlat_block *b = xlat_block_of_leaf(v, v->rip);
	struct xlat_block *own;

	if (!b)
		return;
	xlat_lock(x);
	own = xlat_block_get(x, xlat_block_index(x, b));
	if (!own->is_dead) {
		refill(&x->slots);
		if (own->heat < HEAT_PROMOTED)
			own->heat++;
		if (own->heat == HEAT_PROMOTED)
			promote(x, own);
	}
	xlat_unlock(x);
}

void slots_kicked(struct vcpu *v)
{
	if (!(v->key & XLAT_KEY_USER) || v->key & XLAT_KEY_LOCKSTEP)
		return;
	look_at_misses(v);
	if (!v->vm->xlat->slots.is_forced)
		sample(v);
}
