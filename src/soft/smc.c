/* SPDX-License-Identifier: Apache-2.0 */
/* Self- and cross-modifying code: who may write to pages that hold blocks.
 *
 * THEORY. Each page of RAM has a descriptor: a bit for each 64-byte line that
 * a block covers, and the vCPUs that may hold a write tag for the page. While
 * a line bit is set, no new write tag is given out: stores take the slow path
 * and tell smc_written() afterwards. All accesses named here are sequentially
 * consistent; each pair is of Dekker's kind: of two threads that both store
 * and then look at the other's variable, one at least sees the other's store.
 *
 *	TLB fill (own thread)		translation (under the lock)
 *	  writers |= own bit		  code |= lines
 *	  code == 0? tag_w		  read writers, ask them
 *					  read the bytes, publish
 *
 *	slow store, device		translation
 *	  store the bytes		  code |= lines
 *	  read code; lock, kill		  read the bytes
 *
 * The fill's tag is given, or the translation sees the writer. The slow store
 * sees the lines and kills the block (waiting for the lock until it is
 * published), or the translation reads the new bytes.
 *
 * A writer found by a translation still has its tag, and nobody waits for it:
 * the page is put on the writer's queue, SOFT_REQ_REVOKE is set, and the block
 * runs meanwhile, "unverified". The writer takes its tags back at its next
 * look at requests, which acknowledges. With the last acknowledgement the
 * block's bytes are compared with its hash for good. Until then, whoever
 * executes a serializing instruction or takes an event compares all of them,
 * because that is where the architecture requires earlier stores of others to
 * be seen (SDM 3A §8.1.3):
 *
 *	translation			writer		serializing vCPU
 *	  doubts++			  store		  see the flag
 *	  read the bytes, publish	  flag		  doubts? lock, compare
 *
 * If the bytes that were read are old, doubts was raised before the store, so
 * the third thread sees it, waits for the lock and finds the difference.
 *
 * A vCPU that does not run guest code (it sleeps, is parked, has left
 * vcpu_run) has no store under way and counts as having acknowledged; it drops
 * what is in its queue before it runs again:
 *
 *	vCPU starts			translation
 *	  is_running = true		  queue the page, count
 *	  count? drop tags		  is_running? wait for it
 *
 * and symmetrically when it stops, so that a request that was made while it
 * ran is acknowledged then. A vCPU's bit in `writers` is changed by its own
 * thread only.
 *
 * What a block depends on beside its own bytes - those that were looked ahead
 * at to find dead flags - is kept in lines (`look`): a store there ends the
 * block as well.
 *
 * Data beside code. Stores that miss all lines are counted; after 32 without
 * a new translation in the page its blocks are dropped and the page is
 * writable again. The limit doubles with each such turn: a page that keeps
 * turning is cheaper with slow stores.
 */
#include "soft/xlat_int.h"

#include <sys/mman.h>

#include "base/log.h"

#define STORES_LIMIT	 32u
#define FLIPS_LIMIT_LOG2 6u

/* ---- page descriptors ---- */

#define CHUNK_BYTES (SMC_CHUNK_PAGES * sizeof(struct smc_page))

static void chunk_make(struct xlat *x, u64 i)
{
	struct smc_page *p, *none = NULL;

	if (atomic_load(&x->chunks[i]))
		return;
	p = mmap(NULL, CHUNK_BYTES, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED) {
		log_warn("no memory for page descriptors: code at 0x%llx is "
			 "interpreted",
			 (unsigned long long)i << SMC_CHUNK_SHIFT);
		return;
	}
	/* Pairs with the acquire in smc_page_of. */
	if (!atomic_compare_exchange_strong(&x->chunks[i], &none, p))
		munmap(p, CHUNK_BYTES);
}

void smc_free(struct xlat *x)
{
	for (u64 i = 0; i < SMC_CHUNKS; i++)
		if (x->chunks[i])
			munmap(x->chunks[i], CHUNK_BYTES);
}

void smc_slot_changed(struct xlat *x, const struct mem_slot *slot, bool added)
{
	u64 last = (slot->gpa + slot->size - 1) >> SMC_CHUNK_SHIFT;

	if (added)
		for (u64 i = slot->gpa >> SMC_CHUNK_SHIFT;
		     i <= last && i < SMC_CHUNKS; i++)
			chunk_make(x, i);
	smc_written(x->vm, slot->gpa, slot->size);
}

/* The lines of bytes [first, first + n) of a page; n > 0. */
static u64 lines(u32 first, u32 n)
{
	u32 low = first / 64, high = (first + n - 1) / 64;

	return ~0ull >> (63 - (high - low)) << low;
}

static gpa_t page_of(gpa_t gpa)
{
	return gpa & ~0xfffull;
}

/* How many of the block's bytes lie in its first page. */
static u32 first_part(const struct xlat_block *b)
{
	return MIN((u32)b->bytes, (u32)(PAGE_BYTES - (b->gpa & 0xfff)));
}

static u64 block_lines(const struct xlat_block *b, gpa_t page)
{
	u32 first = first_part(b);
	u64 bits = 0;

	if (page_of(b->gpa) == page && first)
		bits = lines(b->gpa & 0xfff, first) | b->look;
	if (b->gfn2 == page >> PAGE_SHIFT && b->bytes > first)
		bits |= lines(0, b->bytes - first);
	return bits;
}

static unsigned list_of(const struct xlat_block *b, gpa_t page)
{
	return page_of(b->gpa) == page ? 0 : 1;
}

static void list_add(struct xlat *x, struct xlat_block *b, gpa_t page)
{
	struct smc_page *p = smc_page_of(x, page);

	if (!p)
		return;
	b->next_page[list_of(b, page)] = p->first_block;
	p->first_block = xlat_block_index(x, b);
	atomic_store_explicit(&p->stores, 0, memory_order_relaxed);
}

static void list_del(struct xlat *x, struct xlat_block *b, gpa_t page)
{
	struct smc_page *p = smc_page_of(x, page);
	u32 own = xlat_block_index(x, b), *at;

	if (!p)
		return;
	at = &p->first_block;
	while (*at != own) {
		struct xlat_block *other = &x->blocks[*at];

		ASSERT(*at);
		at = &other->next_page[list_of(other, page)];
	}
	*at = b->next_page[list_of(b, page)];
}

static gpa_t second_page(const struct xlat_block *b)
{
	return (gpa_t)b->gfn2 << PAGE_SHIFT;
}

static bool has_second_page(const struct xlat_block *b)
{
	return b->gfn2 != XLAT_NO_GFN && second_page(b) != page_of(b->gpa);
}

void smc_link_block(struct xlat *x, struct xlat_block *b)
{
	list_add(x, b, page_of(b->gpa));
	if (has_second_page(b))
		list_add(x, b, second_page(b));
}

void smc_unlink_block(struct xlat *x, struct xlat_block *b)
{
	list_del(x, b, page_of(b->gpa));
	if (has_second_page(b))
		list_del(x, b, second_page(b));
}

void smc_recompute(struct xlat *x, gpa_t gpa)
{
	struct smc_page *p = smc_page_of(x, gpa);
	gpa_t page = page_of(gpa);
	u64 bits = 0;

	if (!p)
		return;
	for (u32 i = p->first_block; i;) {
		const struct xlat_block *b = &x->blocks[i];

		bits |= block_lines(b, page);
		i = b->next_page[list_of(b, page)];
	}
	atomic_store(&p->code, bits);
}

/* ---- write tags of the own vCPU ---- */

static void drop_in(struct soft_space *s, gpa_t page, bool is_all)
{
	unsigned h = soft_w_hash(page);

	if (!s->is_ready || (!is_all && !(s->w_pages[h / 64] >> (h % 64) & 1)))
		return;
	/* Slots may hold pages whose entries others have taken. */
	soft_slots_clear(s);
	memset(s->w_pages, 0, sizeof(s->w_pages));
	SOFT_TLB_FOR_CHUNKS (s, chunk) {
		struct soft_tlb_entry *e = &s->tlb[SOFT_TLB_CHUNK * chunk];

		for (unsigned i = 0; i < SOFT_TLB_CHUNK; i++, e++) {
			gpa_t at = e->meta & X86_PTE_ADDR;

			if (is_all || at == page)
				e->tag_w =
					soft_tlb_empty((unsigned)(e - s->tlb));
			if (soft_tlb_is_empty(e->tag_w))
				continue;
			h = soft_w_hash(at);
			s->w_pages[h / 64] |= BIT64(h % 64);
		}
	}
}

static void drop_tags(struct vcpu *v, gpa_t page, bool is_all)
{
	struct soft_space *spaces[SOFT_SPACES_MAX];
	unsigned n = soft_spaces(v, spaces);

	for (unsigned i = 0; i < n; i++)
		drop_in(spaces[i], page, is_all);
}

/* ---- unverified blocks; under the lock ---- */

static const u8 *ram_at(struct xlat *x, gpa_t gpa)
{
	const struct mem_slot *s = mem_slot_find(x->vm->mem, gpa);

	return s ? s->hva + (gpa - s->gpa) : NULL;
}

static bool is_current(struct xlat *x, const struct xlat_block *b,
		       const struct xlat_source *source)
{
	const u8 *p = ram_at(x, b->gpa), *p2;
	u32 first = first_part(b);
	u8 both[X86_INSN_MAX + 1];

	if (!p ||
	    xlat_hash_lines(p - (b->gpa & 0xfff), b->look) != source->look_hash)
		return false;
	if (b->gfn2 == XLAT_NO_GFN)
		return xlat_hash(p, first) == source->hash;
	p2 = ram_at(x, second_page(b));
	if (!p2 || b->bytes > sizeof(both))
		return false;
	memcpy(both, p, first);
	memcpy(both + first, p2, b->bytes - first);
	return xlat_hash(both, b->bytes) == source->hash;
}

static void forget(struct xlat *x, u32 i)
{
	x->unverified[i] = x->unverified[--x->unverified_count];
	atomic_fetch_sub(&x->doubts, 1);
}

/* true: the block is dead, by this or before. */
static bool kill_if_stale(struct xlat *x, u32 i)
{
	struct xlat_block *b = &x->blocks[x->unverified[i].block];

	if (b->is_dead)
		return true;
	if (is_current(x, b, &x->unverified[i].source))
		return false;
	x->stats.verify_failures++;
	xlat_kill(x, b);
	return true;
}

/* vCPU `id` holds no tag any more that it has been asked for. */
static void acknowledge(struct xlat *x, u32 id)
{
	u64 bit = BIT64(id);

	if (x->protect_pending & bit) {
		x->protect_pending &= ~bit;
		if (!x->protect_pending)
			atomic_fetch_sub(&x->doubts, 1);
	}
	for (u32 i = x->unverified_count; i--;) {
		struct smc_unverified *u = &x->unverified[i];

		u->pending &= ~bit;
		if (u->pending)
			continue;
		kill_if_stale(x, i);
		forget(x, i);
	}
}

void smc_unverified(struct xlat *x, struct xlat_block *b,
		    const struct xlat_source *source)
{
	u64 pending = x->protect_pending;

	if (!pending)
		return;
	x->protect_pending = 0;
	if (x->unverified_count == SMC_UNVERIFIED_MAX) {
		xlat_kill(x, b);
		atomic_fetch_sub(&x->doubts, 1);
		return;
	}
	/* The doubt that smc_protect() raised is now this entry's. */
	x->unverified[x->unverified_count++] = (struct smc_unverified){
		xlat_block_index(x, b), *source, pending};
}

void smc_serialize(struct vcpu *v)
{
	struct xlat *x = v->vm->xlat;

	if (likely(!x || !atomic_load(&x->doubts)))
		return;
	xlat_lock(x);
	for (u32 i = x->unverified_count; i--;)
		if (kill_if_stale(x, i))
			forget(x, i);
	xlat_unlock(x);
}

/* ---- asking for tags, and giving them up ---- */

/* Queues the page for vCPU `id`; true: it runs, so wait for it. */
static bool ask(struct xlat *x, u32 id, gpa_t page)
{
	struct smc_vcpu *s = &x->vcpus[id];
	u32 n = atomic_load(&s->count);
	bool is_there = n > SMC_QUEUE_MAX;

	for (u32 i = 0; i < n && !is_there; i++)
		is_there = s->queue[i] == page;
	if (!is_there) {
		if (n < SMC_QUEUE_MAX)
			s->queue[n] = page;
		atomic_store(&s->count, n + 1);
	}
	if (!atomic_load(&s->is_running) || !x->vm->vcpus[id])
		return false;
	soft_request(x->vm->vcpus[id], SOFT_REQ_REVOKE);
	return true;
}

bool smc_protect(struct vcpu *v, gpa_t gpa, u32 n)
{
	return smc_protect_lines(v, page_of(gpa),
				 n ? lines(gpa & 0xfff, n) : 0);
}

bool smc_protect_lines(struct vcpu *v, gpa_t page, u64 bits)
{
	struct xlat *x = v->vm->xlat;
	struct smc_page *p = smc_page_of(x, page);
	u64 own = BIT64(v->id), writers, pending = 0;

	if (!p || !bits)
		return true;
	/* For lines that are there already the others have been asked. */
	if (bits & ~atomic_load(&p->code))
		atomic_fetch_or(&p->code, bits);
	writers = atomic_load(&p->writers);
	if (writers & own) {
		drop_tags(v, page, false);
		atomic_fetch_and(&p->writers, ~own);
	}
	for (writers &= ~own; writers; writers &= writers - 1) {
		u32 id = (u32)__builtin_ctzll(writers);

		if (ask(x, id, page))
			pending |= BIT64(id);
	}
	if (!pending)
		return true;
	/* A full barrier: before the caller reads the bytes. */
	if (!x->protect_pending)
		atomic_fetch_add(&x->doubts, 1);
	x->protect_pending |= pending;
	return false;
}

/* Under the lock, on v's thread. */
static void drain(struct xlat *x, struct vcpu *v)
{
	struct smc_vcpu *s = &x->vcpus[v->id];
	u32 n = atomic_load(&s->count);

	if (!n)
		return;
	if (n > SMC_QUEUE_MAX)
		drop_tags(v, 0, true);
	for (u32 i = 0; i < MIN(n, (u32)SMC_QUEUE_MAX); i++) {
		struct smc_page *p = smc_page_of(x, s->queue[i]);

		if (n <= SMC_QUEUE_MAX)
			drop_tags(v, s->queue[i], false);
		atomic_fetch_and(&p->writers, ~BIT64(v->id));
	}
	atomic_store(&s->count, 0);
	x->stats.revokes++;
	acknowledge(x, v->id);
}

void smc_revoke(struct vcpu *v)
{
	struct xlat *x = v->vm->xlat;

	if (likely(!x || !atomic_load(&x->vcpus[v->id].count)))
		return;
	xlat_lock(x);
	drain(x, v);
	xlat_unlock(x);
}

void smc_vcpu_stopped(struct vcpu *v)
{
	struct xlat *x = v->vm->xlat;

	if (!x)
		return;
	atomic_store(&x->vcpus[v->id].is_running, false);
	smc_revoke(v);
}

void smc_vcpu_started(struct vcpu *v)
{
	struct xlat *x = v->vm->xlat;

	if (!x)
		return;
	atomic_store(&x->vcpus[v->id].is_running, true);
	smc_revoke(v);
}

/* ---- stores ---- */

/* Kills the page's blocks over the lines; under the lock. */
static void kill_lines(struct xlat *x, gpa_t page, struct smc_page *p, u64 bits)
{
	u32 next;

	for (u32 i = p->first_block; i; i = next) {
		struct xlat_block *b = &x->blocks[i];

		next = b->next_page[list_of(b, page)];
		if (!(block_lines(b, page) & bits))
			continue;
		xlat_kill_block(x, b);
		xlat_cool(x, b); /* what takes its place may be other code */
		if (has_second_page(b))
			smc_recompute(x, list_of(b, page) ? b->gpa
							  : second_page(b));
	}
	smc_recompute(x, page);
}

static void page_written(struct xlat *x, gpa_t page, u64 bits)
{
	struct smc_page *p = smc_page_of(x, page);
	u32 stores, limit;
	u64 code;

	code = p ? atomic_load(&p->code) : 0;
	if (likely(!code))
		return;
	limit = STORES_LIMIT << MIN(p->flips, FLIPS_LIMIT_LOG2);
	stores = atomic_fetch_add_explicit(&p->stores, 1, memory_order_relaxed);
	if (!(code & bits) && stores < limit)
		return;
	xlat_lock(x);
	if (stores >= limit) {
		bits = ~0ull;
		if (p->flips < FLIPS_LIMIT_LOG2)
			p->flips++;
		atomic_store_explicit(&p->stores, 0, memory_order_relaxed);
	}
	kill_lines(x, page, p, bits);
	xlat_unlock(x);
}

void smc_written(struct engine_vm *vm, gpa_t gpa, u64 len)
{
	struct xlat *x = vm->xlat;
	gpa_t last, page;

	if (!x || !len)
		return;
	if (__builtin_add_overflow(gpa, len - 1, &last))
		last = ~0ull;
	last = MIN(last, ((u64)SMC_CHUNKS << SMC_CHUNK_SHIFT) - 1);
	/* The bytes before the look at the code bits: see above. */
	atomic_thread_fence(memory_order_seq_cst);
	for (page = page_of(gpa); page <= last; page += PAGE_BYTES) {
		u32 first = page < gpa ? gpa & 0xfff : 0;
		u32 end = page_of(last) == page ? (last & 0xfff) + 1
						: (u32)PAGE_BYTES;

		if (!smc_page_of(x, page))
			page |= BIT64(SMC_CHUNK_SHIFT) - PAGE_BYTES;
		else
			page_written(x, page, lines(first, end - first));
	}
}

/* ---- all of it ---- */

static void page_reset(struct xlat *x, gpa_t gpa)
{
	struct smc_page *p = smc_page_of(x, gpa);

	if (!p)
		return;
	p->first_block = 0;
	atomic_store_explicit(&p->stores, 0, memory_order_relaxed);
	atomic_store(&p->code, 0);
}

void smc_reset(struct xlat *x, u32 count)
{
	for (u32 i = 1; i < count; i++) {
		page_reset(x, x->blocks[i].gpa);
		if (x->blocks[i].gfn2 != XLAT_NO_GFN)
			page_reset(x, second_page(&x->blocks[i]));
	}
	x->unverified_count = 0;
	x->protect_pending = 0;
	atomic_store(&x->doubts, 0);
}
