/* SPDX-License-Identifier: Apache-2.0 */
/* The code cache: code memory, blocks, and the links between them.
 *
 * THEORY. Everything grows by bumping an index and shrinks only when all is
 * forgotten (xlat_flush_all): code memory, blocks, links, faults. Blocks
 * therefore lie in the order of their code, and a host address leads to its
 * block by binary search, also in a signal handler: block_count is stored
 * after the block is complete.
 *
 *	heads[hash] -> block -> next_hash -> …		lookup, without lock
 *	sets[hash].ways[i]				the same, mostly
 *	smc_page.first_block -> next_page -> …		by guest page
 *	block.incoming -> link -> next_incoming -> …	who jumps to it
 *	block.outgoing -> link -> next_outgoing -> …	its exits that have been
 *							linked
 *
 * A reader may stand on a block that is taken out of its hash chain; the
 * block keeps its next_hash, so the reader comes to the end all the same.
 *
 * Death. xlat_kill() marks the block, takes it out of hash and page lists,
 * points every jump that leads to it back to its own cold code, and overwrites
 * both entries with a call of a thunk, which knows by the return address whose
 * entry it was: that is for jump caches, which belong to other threads. Such an
 * entry is 8-byte aligned and begins with one instruction of at least five
 * bytes, so that nobody is ever between the bytes that change, and one 8-byte
 * store changes them.
 */
#include "soft/thunks.h"
#include "soft/xlat_int.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

/* ---- made and freed ---- */

/* is_hot: looked into at random while the guest runs. */
static void *reserve_array(size_t bytes, bool is_hot)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	/* Huge pages spare the host's TLB; what is used of the last one counts
	 * as memory, too. */
	(void)madvise(p, bytes, is_hot ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	return p;
}

static void free_array(void *p, size_t bytes)
{
	if (p)
		munmap(p, bytes);
}

#define WARMTHS_BYTES (XLAT_WARMTHS / 2)
#define HEADS_BYTES   (XLAT_HASH_HEADS * sizeof(u32))
#define SETS_BYTES    (XLAT_SETS * sizeof(struct xlat_set))
#define BLOCKS_BYTES  (XLAT_BLOCKS_MAX * sizeof(struct xlat_block))
#define LINKS_BYTES   (XLAT_LINKS_MAX * sizeof(struct xlat_link))
#define FAULTS_BYTES  (XLAT_FAULTS_MAX * sizeof(struct xlat_fault))

static void reset_counts(struct xlat *x)
{
	x->code_next = XLAT_THUNK_BYTES;
	x->cold_next = (u32)XLAT_COLD_START(x->code.size);
	x->code_ready = x->code_next;
	x->cold_ready = x->cold_next;
	x->reserved_end = x->reserved_cold_end = 0;
	x->link_count = 0;
	x->fault_count = 0;
	/* Pairs with the acquire in xlat_block_at. */
	atomic_store_explicit(&x->block_count, 1, memory_order_release);
}

struct xlat *xlat_new(struct engine_vm *vm, size_t code_bytes, struct err *err)
{
	struct xlat *x;

	if (!code_bytes || code_bytes % (2 * MIB) || code_bytes > GIB) {
		err_set(err, -EINVAL, "%zu bytes of code memory", code_bytes);
		return NULL;
	}
	x = calloc(1, sizeof(*x));
	if (!x) {
		err_set(err, -ENOMEM, "out of memory");
		return NULL;
	}
	x->vm = vm;
	x->warm = MIN(vm->cfg.translate_after, 15u);
	x->warmths = reserve_array(WARMTHS_BYTES, false);
	x->heads = reserve_array(HEADS_BYTES, true);
	x->sets = reserve_array(SETS_BYTES, true);
	x->blocks = reserve_array(BLOCKS_BYTES, true);
	x->links = reserve_array(LINKS_BYTES, false);
	x->faults = reserve_array(FAULTS_BYTES, false);
	if (!x->warmths || !x->heads || !x->sets || !x->blocks || !x->links ||
	    !x->faults) {
		err_sys(err, -errno, "allocate the code cache");
		xlat_free(x);
		return NULL;
	}
	if (soft_codemem_open(&x->code, code_bytes, err) < 0) {
		xlat_free(x);
		return NULL;
	}
	soft_codemem_set_owner(&x->code, x);
	reset_counts(x);
	xlat_make_thunks(x);
	return x;
}

void xlat_free(struct xlat *x)
{
	if (!x)
		return;
	soft_codemem_close(&x->code);
	smc_free(x);
	free_array((void *)x->warmths, WARMTHS_BYTES);
	free_array(x->heads, HEADS_BYTES);
	free_array(x->sets, SETS_BYTES);
	free_array(x->blocks, BLOCKS_BYTES);
	free_array(x->links, LINKS_BYTES);
	free_array(x->faults, FAULTS_BYTES);
	free(x);
}

u8 *xlat_code_rw(struct xlat *x)
{
	return x->code.rw;
}

size_t xlat_code_size(const struct xlat *x)
{
	return x->code.size;
}

/* ---- what runs for the first time ---- */

/* The byte, and in *out_shift where in it. */
static _Atomic u8 *warmth_of(struct xlat *x, gpa_t gpa, u32 key,
			     unsigned *out_shift)
{
	u64 h = (gpa ^ (u64)key << 48) * 0x9e3779b97f4a7c15ull >> 32;

	*out_shift = h & 1 ? 4 : 0;
	return &x->warmths[h % XLAT_WARMTHS / 2];
}

/* Counts of other vCPUs that get lost meanwhile do not matter. */
bool xlat_is_cold(struct xlat *x, gpa_t gpa, u32 key)
{
	unsigned shift;
	_Atomic u8 *w = warmth_of(x, gpa, key, &shift);
	u32 old = atomic_load_explicit(w, memory_order_relaxed);

	if ((old >> shift & 15) >= x->warm)
		return false;
	atomic_store_explicit(w, (u8)(old + (1u << shift)),
			      memory_order_relaxed);
	return true;
}

void xlat_cool(struct xlat *x, const struct xlat_block *b)
{
	unsigned shift;
	_Atomic u8 *w = warmth_of(x, b->gpa, b->key, &shift);
	u32 old = atomic_load_explicit(w, memory_order_relaxed);

	atomic_store_explicit(w, (u8)(old & ~(15u << shift)),
			      memory_order_relaxed);
}

/* ---- a new block ---- */

u32 xlat_next_cold(const struct xlat *x)
{
	return x->cold_next;
}

u32 xlat_next_block(const struct xlat *x)
{
	return atomic_load(&x->block_count);
}

struct slots *xlat_slots_of(struct xlat *x, gpa_t gpa)
{
	return slots_wanted(&x->slots, gpa) ? &x->slots : NULL;
}

#define POPULATE_BYTES (64 * KIB) /* a power of two */

/* Has memory for a block or so behind `next`, of that up to `end`. */
static void populate(struct xlat *x, u32 *ready, u32 next, u32 end)
{
	u32 to;

	if (likely(next + KIB <= *ready))
		return;
	to = MIN(ALIGN_UP(next + KIB, POPULATE_BYTES), end);
	if (to > *ready)
		soft_codemem_populate(&x->code, *ready & ~(u32)(PAGE_BYTES - 1),
				      to - (*ready & ~(u32)(PAGE_BYTES - 1)));
	*ready = MAX(to, *ready);
}

u32 xlat_reserve(struct xlat *x, u32 max_code, u32 max_cold, u32 max_faults)
{
	if (max_code > XLAT_COLD_START(x->code.size) - x->code_next ||
	    max_cold > x->code.size - x->cold_next ||
	    max_faults > XLAT_FAULTS_MAX - x->fault_count ||
	    atomic_load(&x->block_count) == XLAT_BLOCKS_MAX)
		return 0;
	populate(x, &x->code_ready, x->code_next,
		 (u32)XLAT_COLD_START(x->code.size));
	populate(x, &x->cold_ready, x->cold_next, (u32)x->code.size);
	x->reserved_end = x->code_next + max_code;
	x->reserved_cold_end = x->cold_next + max_cold;
	return x->code_next;
}

static void hash_add(struct xlat *x, struct xlat_block *b)
{
	_Atomic u32 *head = &x->heads[xlat_hash_slot(b->gpa, b->gfn2, b->key)];

	atomic_store_explicit(&b->next_hash,
			      atomic_load_explicit(head, memory_order_relaxed),
			      memory_order_relaxed);
	/* Pairs with the acquire in xlat_find. */
	atomic_store_explicit(head, xlat_block_index(x, b),
			      memory_order_release);
}

static void hash_del(struct xlat *x, struct xlat_block *b)
{
	_Atomic u32 *at = &x->heads[xlat_hash_slot(b->gpa, b->gfn2, b->key)];
	u32 own = xlat_block_index(x, b), i;

	while ((i = atomic_load_explicit(at, memory_order_relaxed)) != own) {
		ASSERT(i);
		at = &x->blocks[i].next_hash;
	}
	atomic_store_explicit(
		at, atomic_load_explicit(&b->next_hash, memory_order_relaxed),
		memory_order_release);
}

static void check_proto(const struct xlat *x, const struct xlat_block *p,
			u32 fault_count)
{
	ASSERT(p->code == x->code_next && p->code_bytes &&
	       xlat_code_end(p) <= x->reserved_end);
	ASSERT(!p->cold_bytes || (p->cold == x->cold_next &&
				  xlat_cold_end(p) <= x->reserved_cold_end));
	ASSERT(!((p->code | p->direct) & 7) && p->direct + 8 <= p->code_bytes);
	ASSERT(fault_count <= XLAT_FAULTS_MAX - x->fault_count);
}

/* Four bytes at `at`. */
static bool is_within(u32 at, u32 begin, u32 end)
{
	return at >= begin && at < end && end - at >= 4;
}

static void add_faults(struct xlat *x, const struct xlat_block *b,
		       const struct xlat_fault *faults, u32 n)
{
	u32 last = b->code;

	for (u32 i = 0; i < n; i++) {
		ASSERT(faults[i].host >= last &&
		       faults[i].host < xlat_code_end(b));
		last = faults[i].host;
		x->faults[x->fault_count + i] = faults[i];
	}
	/* Pairs with the acquire in xlat_fault_at. */
	atomic_store_explicit(&x->fault_count, x->fault_count + n,
			      memory_order_release);
}

/* Is there code where the exit leads? A look at the page's descriptor, which
 * is at hand, spares one into a cold hash: mostly there is none yet. */
static bool may_link(struct xlat *x, const struct xlat_block *b,
		     const struct xlat_exit *e)
{
	const struct smc_page *p = smc_page_of(x, b->gpa);

	return !e->is_twin &&
	       (!p || atomic_load_explicit(&p->code, memory_order_relaxed) &
			      BIT64(e->target / 64u));
}

static void link_exits(struct xlat *x, struct xlat_block *b,
		       const struct xlat_exit *exits, u32 n)
{
	for (u32 i = 0; i < n; i++) {
		const struct xlat_exit *e = &exits[i];

		ASSERT(is_within(e->site, b->code, xlat_code_end(b)) ||
		       is_within(e->site, b->cold, xlat_cold_end(b)));
		if (may_link(x, b, e))
			xlat_link(x, b, e);
	}
}

struct xlat_block *xlat_publish(struct xlat *x, const struct xlat_block *proto,
				const struct xlat_exit *exits, u32 exit_count,
				const struct xlat_fault *faults,
				u32 fault_count)
{
	u32 index = atomic_load(&x->block_count);
	struct xlat_block *b = &x->blocks[index];

	check_proto(x, proto, fault_count);
	*b = *proto;
	b->is_dead = false;
	b->incoming = b->outgoing = 0;
	add_faults(x, b, faults, fault_count);
	x->code_next = MIN(ALIGN_UP(xlat_code_end(b), XLAT_CODE_ALIGN),
			   (u32)XLAT_COLD_START(x->code.size));
	if (b->cold_bytes)
		x->cold_next = xlat_cold_end(b);
	x->reserved_end = x->reserved_cold_end = 0;
	x->stats.blocks++;
	x->stats.guest_bytes += b->bytes;
	x->stats.guest_insns += b->insns;
	/* Pairs with the acquire in xlat_block_at. */
	atomic_store_explicit(&x->block_count, index + 1, memory_order_release);
	smc_link_block(x, b);
	hash_add(x, b);
	xlat_way_add(x, b);
	link_exits(x, b, exits, exit_count);
	return b;
}

/* ---- death ---- */

static void unlink_incoming(struct xlat *x, struct xlat_block *b)
{
	u32 next;

	for (u32 i = b->incoming; i; i = next) {
		struct xlat_link *l = &x->links[i - 1];
		u32 rel = l->unlinked - (l->site + 4);

		next = l->next_incoming;
		__atomic_store_n((u32 *)(x->code.rw + l->site), rel,
				 __ATOMIC_RELEASE);
		l->to = 0;
		l->next_incoming = 0;
		x->stats.links--;
	}
	b->incoming = 0;
}

/* The first five of the entry's eight bytes become `call thunk`. */
static void divert_entry(struct xlat *x, u32 entry, enum xlat_thunk thunk)
{
	u64 *at = (u64 *)(x->code.rw + entry);
	u64 keep = __atomic_load_n(at, __ATOMIC_RELAXED) & ~0xffffffffffull;
	u32 rel = x->thunks[thunk] - (entry + 5);

	__atomic_store_n(at, keep | (u64)rel << 8 | 0xe8, __ATOMIC_RELEASE);
}

void xlat_kill_block(struct xlat *x, struct xlat_block *b)
{
	if (b->is_dead)
		return;
	/* Pairs with the acquire in xlat_block_is_dead. */
	__atomic_store_n(&b->is_dead, true, __ATOMIC_RELEASE);
	unlink_incoming(x, b);
	divert_entry(x, xlat_entry_direct(b), XT_DEAD_DIRECT);
	if (b->direct)
		divert_entry(x, xlat_entry_indirect(b), XT_DEAD_INDIRECT);
	hash_del(x, b);
	xlat_way_del(x, b);
	smc_unlink_block(x, b);
	x->stats.dead_blocks++;
	x->stats.invalidated++;
}

void xlat_kill(struct xlat *x, struct xlat_block *b)
{
	if (b->is_dead)
		return;
	xlat_kill_block(x, b);
	smc_recompute(x, b->gpa);
	if (b->gfn2 != XLAT_NO_GFN)
		smc_recompute(x, (gpa_t)b->gfn2 << PAGE_SHIFT);
}

/* Zero pages again; what was there goes back to the host. */
static void clear_array(void *p, size_t bytes)
{
	if (madvise(p, bytes, MADV_DONTNEED) < 0)
		memset(p, 0, bytes);
}

static void flush_jump_caches(struct vcpu *v)
{
	struct soft_space *spaces[SOFT_SPACES_MAX];
	unsigned n = soft_spaces(v, spaces);

	for (unsigned i = 0; i < n; i++) {
		spaces[i]->jc_used = ~0ull;
		soft_jc_flush(spaces[i]);
	}
}

/* Gives the pages of code from `begin`, a page's first byte, back. */
static void discard(struct xlat *x, u32 begin, u32 end)
{
	if (end > begin)
		soft_codemem_discard(&x->code, begin,
				     ALIGN_UP(end, PAGE_BYTES) - begin);
}

void xlat_flush_all(struct xlat *x)
{
	u32 count;

	xlat_lock(x);
	count = atomic_load(&x->block_count);
	smc_reset(x, count);
	slots_reset(&x->slots);
	clear_array(x->heads, HEADS_BYTES);
	clear_array(x->sets, SETS_BYTES);
	clear_array(x->blocks, BLOCKS_BYTES);
	clear_array(x->links, LINKS_BYTES);
	clear_array(x->faults, FAULTS_BYTES);
	discard(x, XLAT_THUNK_BYTES, x->code_next);
	discard(x, (u32)XLAT_COLD_START(x->code.size), x->cold_next);
	reset_counts(x);
	x->stats.blocks = x->stats.dead_blocks = x->stats.links = 0;
	x->stats.guest_bytes = x->stats.guest_insns = 0;
	x->stats.flushes++;
	for (u32 i = 0; i < VCPUS_MAX; i++)
		if (x->vm->vcpus[i])
			flush_jump_caches(x->vm->vcpus[i]);
	xlat_unlock(x);
}

static u32 code_bytes(const struct xlat *x)
{
	return x->code_next - XLAT_THUNK_BYTES + x->cold_next -
	       (u32)XLAT_COLD_START(x->code.size);
}

bool xlat_is_idle(struct xlat *x, u64 now_ns, u64 (*cpu_ns)(void))
{
	bool is_idle = false;
	u64 cpu, took;

	if (!xlat_trylock(x))
		return false;
	took = now_ns - x->idle_ns;
	if (took >= XLAT_IDLE_NS && code_bytes(x) >= XLAT_IDLE_BYTES) {
		cpu = cpu_ns();
		is_idle = x->idle_ns &&
			  cpu - x->idle_cpu_ns < took / XLAT_IDLE_SHARE;
		x->idle_ns = now_ns;
		x->idle_cpu_ns = cpu;
	}
	xlat_unlock(x);
	return is_idle;
}

/* ---- from host addresses ---- */

const struct xlat_block *xlat_block_at(const struct xlat *x, const void *pc)
{
	/* Pairs with the release in xlat_publish. */
	u32 high = atomic_load_explicit(&x->block_count, memory_order_acquire);
	uintptr_t off = (uintptr_t)pc - (uintptr_t)x->code.rx;
	u32 low = 1;

	if (off >= x->code.size)
		return NULL;
	/* The last block that starts at or before off. */
	while (low < high) {
		u32 mid = low + (high - low) / 2;

		if (x->blocks[mid].code <= off)
			low = mid + 1;
		else
			high = mid;
	}
	if (low == 1 || off >= xlat_code_end(&x->blocks[low - 1]))
		return NULL;
	return &x->blocks[low - 1];
}

int xlat_fault_at(const struct xlat *x, const void *pc)
{
	uintptr_t off = (uintptr_t)pc - (uintptr_t)x->code.rx;
	/* Pairs with the release in add_faults. */
	u32 n = atomic_load_explicit(&x->fault_count, memory_order_acquire);
	u32 low = 0, high = n;

	while (low < high) {
		u32 mid = low + (high - low) / 2;

		if (x->faults[mid].host < off)
			low = mid + 1;
		else
			high = mid;
	}
	return low < n && x->faults[low].host == off ? x->faults[low].guest
						     : -1;
}

/* Tells bytes from changed ones; no defence against a guest that fools itself.
 */
u64 xlat_hash(const u8 *bytes, size_t n)
{
	u64 h = 0xcbf29ce484222325ull ^ n;

	for (; n >= 8; n -= 8, bytes += 8)
		h = ((h ^ ld_le64(bytes)) * 0x9e3779b97f4a7c15ull) ^ h >> 31;
	for (; n; n--, bytes++)
		h = (h ^ *bytes) * 0x100000001b3ull;
	return h ^ h >> 32;
}

u64 xlat_hash_lines(const u8 *page, u64 lines)
{
	u64 h = 0;

	for (; lines; lines &= lines - 1) {
		unsigned i = (unsigned)__builtin_ctzll(lines);

		h = (h << 7 | h >> 57) ^ xlat_hash(page + 64 * i, 64);
	}
	return h;
}

void xlat_get_stats(struct xlat *x, struct xlat_stats *out)
{
	xlat_lock(x);
	*out = x->stats;
	out->promotions = x->slots.promotions;
	out->demotions = x->slots.demotions;
	out->code_bytes = code_bytes(x);
	xlat_unlock(x);
}
