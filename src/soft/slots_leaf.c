/* SPDX-License-Identifier: Apache-2.0 */
/* Slots: filled, and emptied. Leaf code: no libc. */
#include "soft/mmu_int.h"
#include "soft/slots.h"
#include "soft/xlat.h"

void soft_slots_clear(struct soft_space *s)
{
	for (unsigned k = 0; k < 2; k++) {
		u64 nowhere = (u64)(uintptr_t)s->nowhere[k];

		for (u64 used = s->slots_used[k]; used; used &= used - 1) {
			unsigned chunk = (unsigned)__builtin_ctzll(used);
			struct soft_slot *e =
				&s->slots[k][chunk * SOFT_SLOT_CHUNK];

			for (unsigned i = 0; i < SOFT_SLOT_CHUNK; i++, e++) {
				e->tag = SOFT_TLB_EMPTY;
				e->hva_page = nowhere;
			}
		}
		s->slots_used[k] = 0;
	}
	for (unsigned i = 0; i < 64; i++)
		s->slot_pages[i] = 0;
}

static u32 weight_of(const struct soft_slot *e, u64 page)
{
	if (e->tag == SOFT_TLB_EMPTY)
		return SLOTS_WEIGHT_EMPTY;
	return page - e->tag + PAGE_BYTES <= 2 * PAGE_BYTES
		       ? SLOTS_WEIGHT_NEXT
		       : SLOTS_WEIGHT_RANDOM;
}

static void count_miss(struct vcpu *v, unsigned k, unsigned i, u32 weight)
{
	struct slots_seen *seen = &v->slots;
	u32 old = seen->weight, one = seen->weights[k][i] + weight;

	v->stats.slot_misses++;
	seen->weight = old + weight;
	seen->weights[k][i] = (u16)MIN(one, 0xffffu);
	if (old < SLOTS_WEIGHT_MAX && seen->weight >= SLOTS_WEIGHT_MAX)
		soft_kick(v);
}

bool slots_fill_leaf(struct vcpu *v, gva_t va, unsigned how, u32 off)
{
	struct soft_space *s = v->user;
	unsigned k = how & SOFT_W ? 1 : 0;
	unsigned i = (unsigned)((off - offsetof(struct soft_space, slots[k])) /
				sizeof(struct soft_slot)) %
		     SOFT_SLOTS;
	struct soft_slot *e = &s->slots[k][i];
	u64 page = va & ~(PAGE_BYTES - 1);
	const struct soft_tlb_entry *t;

	if (e->tag == page)
		return false;
	t = soft_tlb_hit(v, va, how);
	if (!t && !soft_tlb_fill_leaf(v, va, how))
		return false;
	if (!t)
		t = &s->tlb[soft_tlb_index(va)];
	count_miss(v, k, i, weight_of(e, page));
	s->slots_used[k] |= BIT64(i / SOFT_SLOT_CHUNK);
	s->slot_pages[(va >> 18) & 63] |= BIT64((va >> 12) & 63);
	e->tag = page;
	e->hva_page = t->hva_page;
	return true;
}
