/* SPDX-License-Identifier: Apache-2.0 */
/* The code cache's part that generated code reaches: lock, lookup, links.
 *
 * THEORY. The lock is a futex with raw system calls, so that leaf code may
 * take it: no libc, no errno, no vector register. States: 0 free, 1 taken,
 * 2 taken and somebody may sleep.
 *
 * A link is one aligned store of a rel32 through the writable mapping. A host
 * that fetches the jump at that moment takes the old way (out of the block,
 * which is always right) or the new one.
 */
#include "soft/xlat_int.h"

#include <linux/futex.h>
#include <sys/syscall.h>

static void futex(_Atomic u32 *word, int op, u32 value)
{
	register long r10 __asm__("r10") = 0;
	long rc = SYS_futex;

	__asm__ volatile("syscall"
			 : "+a"(rc)
			 : "D"(word), "S"(op), "d"(value), "r"(r10)
			 : "rcx", "r11", "memory");
}

bool xlat_trylock(struct xlat *x)
{
	u32 old = 0;

	return atomic_compare_exchange_strong(&x->lock, &old, 1);
}

void xlat_lock(struct xlat *x)
{
	if (likely(xlat_trylock(x)))
		return;
	for (unsigned i = 0; i < 100; i++) {
		__builtin_ia32_pause();
		if (xlat_trylock(x))
			return;
	}
	while (atomic_exchange(&x->lock, 2))
		futex(&x->lock, FUTEX_WAIT_PRIVATE, 2);
}

void xlat_unlock(struct xlat *x)
{
	if (atomic_exchange(&x->lock, 0) == 2)
		futex(&x->lock, FUTEX_WAKE_PRIVATE, 1);
}

struct xlat_block *xlat_find(struct xlat *x, gpa_t gpa, gpa_t gpa2, u32 key)
{
	u32 gfn2 = xlat_gfn2(gpa2);
	/* Pairs with the release in xlat_publish. */
	u32 i = atomic_load_explicit(&x->heads[xlat_hash_slot(gpa, gfn2, key)],
				     memory_order_acquire);

	while (i) {
		struct xlat_block *b = &x->blocks[i];

		if (b->gpa == gpa && b->gfn2 == gfn2 && b->key == key &&
		    !xlat_block_is_dead(b))
			return b;
		i = atomic_load_explicit(&b->next_hash, memory_order_acquire);
	}
	return NULL;
}

/* ---- ways ---- */

static bool has_way(const struct xlat_block *b)
{
	return b->gfn2 == XLAT_NO_GFN && !(b->key & XLAT_KEY_NOGROUP);
}

void xlat_way_add(struct xlat *x, const struct xlat_block *b)
{
	u64 tag = xlat_way_tag(b->gpa, b->key);
	u32 index = xlat_block_index(x, b);
	struct xlat_set *s = xlat_set_of(x, b->gpa, b->key);
	struct xlat_way *w = &s->ways[index % XLAT_WAYS];

	if (!has_way(b))
		return;
	for (unsigned i = 0; i < XLAT_WAYS; i++) {
		u64 t = atomic_load_explicit(&s->ways[i].tag,
					     memory_order_relaxed);

		if (!t || t == tag)
			w = &s->ways[i];
		if (t == tag)
			break;
	}
	/* A reader looks at the tag again behind the entry. */
	atomic_store(&w->tag, 0);
	atomic_store(&w->entry, xlat_entry_indirect(b));
	w->block = index;
	atomic_store(&w->tag, tag);
}

void xlat_way_del(struct xlat *x, const struct xlat_block *b)
{
	struct xlat_set *s = xlat_set_of(x, b->gpa, b->key);
	u32 index = xlat_block_index(x, b);

	if (!has_way(b))
		return;
	for (unsigned i = 0; i < XLAT_WAYS; i++)
		if (s->ways[i].block == index)
			atomic_store(&s->ways[i].tag, 0);
}

u32 xlat_find_entry(struct xlat *x, gpa_t gpa, u32 key)
{
	struct xlat_set *s = xlat_set_of(x, gpa, key);
	u64 tag = xlat_way_tag(gpa, key);
	const struct xlat_block *b;

	for (unsigned i = 0; i < XLAT_WAYS; i++) {
		struct xlat_way *w = &s->ways[i];
		u32 entry;

		if (atomic_load(&w->tag) != tag)
			continue;
		entry = atomic_load(&w->entry);
		if (atomic_load(&w->tag) == tag)
			return entry;
	}
	b = xlat_find(x, gpa, XLAT_NO_GPA, key);
	if (b && xlat_trylock(x)) {
		if (!xlat_block_is_dead(b))
			xlat_way_add(x, b);
		xlat_unlock(x);
	}
	return b ? xlat_entry_indirect(b) : 0;
}

u32 *xlat_thunk_table(struct xlat *x)
{
	return x->thunks;
}

u32 xlat_block_index(const struct xlat *x, const struct xlat_block *b)
{
	return (u32)(b - x->blocks);
}

struct xlat_block *xlat_block_get(struct xlat *x, u32 index)
{
	return &x->blocks[index];
}

const u8 *xlat_code_rx(const struct xlat *x)
{
	return x->code.rx;
}

/* The exit's link, made if there is none: its index + 1; 0: all are used. */
static u32 link_of(struct xlat *x, struct xlat_block *from,
		   const struct xlat_exit *e)
{
	struct xlat_link *l;
	u32 i;

	for (i = from->outgoing; i; i = l->next_outgoing) {
		l = &x->links[i - 1];
		if (l->site == e->site)
			return i;
	}
	if (x->link_count == XLAT_LINKS_MAX)
		return 0;
	l = &x->links[x->link_count++];
	l->site = e->site;
	l->unlinked = e->unlinked;
	l->to = 0;
	l->next_outgoing = from->outgoing;
	from->outgoing = x->link_count;
	return x->link_count;
}

u32 xlat_link(struct xlat *x, struct xlat_block *from,
	      const struct xlat_exit *e)
{
	u32 key = (from->key & ~XLAT_KEY_NOGROUP) |
		  (e->is_twin ? XLAT_KEY_NOGROUP : 0);
	struct xlat_block *to;
	struct xlat_link *l;
	u32 index, rel, i;

	to = xlat_find(x, (from->gpa & ~0xfffull) | e->target, XLAT_NO_GPA,
		       key);
	if (!to)
		return 0;
	index = xlat_block_index(x, to);
	/* A dead block's time is over at its next exit: no link. A site that
	 * straddles eight bytes cannot be patched by one store. */
	if ((e->site & 7) > 4 || xlat_block_is_dead(from))
		return index;
	i = link_of(x, from, e);
	l = &x->links[i - 1];
	if (!i || l->to)
		return index;
	l->to = index;
	l->next_incoming = to->incoming;
	to->incoming = i;
	x->stats.links++;
	rel = xlat_entry_direct(to) - (l->site + 4);
	__atomic_store_n((u32 *)(x->code.rw + l->site), rel, __ATOMIC_RELEASE);
	return index;
}
