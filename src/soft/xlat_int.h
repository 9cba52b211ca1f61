/* SPDX-License-Identifier: Apache-2.0 */
/* What cache.c and smc.c share: the translator's state of one VM. */
#pragma once

#include "soft/codemem.h"
#include "soft/slots.h"
#include "soft/xlat.h"

#define XLAT_BLOCKS_MAX (256u * 1024)
#define XLAT_LINKS_MAX	(512u * 1024)
_Static_assert(XLAT_BLOCKS_MAX == 1u << (30 - XLAT_CHAIN_BLOCK), "info");
#define XLAT_FAULTS_MAX (256u * 1024)
#define XLAT_HASH_HEADS BIT32(17)
#define XLAT_THUNKS_MAX 96
#define XLAT_CODE_ALIGN 16u

/* Page descriptors come in chunks of one GiB of guest memory, made when a slot
 * is announced and never moved. Code above the last one is interpreted. */
#define SMC_CHUNKS	BIT32(10)
#define SMC_CHUNK_SHIFT 30
#define SMC_CHUNK_PAGES BIT32(SMC_CHUNK_SHIFT - PAGE_SHIFT)

#define SMC_QUEUE_MAX	   32
#define SMC_UNVERIFIED_MAX 4096

/* A vCPU as the revoke protocol sees it; see smc.c. */
struct smc_vcpu {
	_Atomic bool is_running;
	/* Pages whose write tags it must drop; count is changed under the
	 * lock and looked at without. SMC_QUEUE_MAX + 1: drop all. */
	_Atomic u32 count;
	gpa_t queue[SMC_QUEUE_MAX];
};

struct smc_unverified {
	u32 block;
	struct xlat_source source;
	u64 pending; /* vCPUs (bit id) that may still write */
};

/* What leads from a guest address to code in one cache line: a cache of what
 * the hash chains say of live blocks in one page. Changed under the lock, read
 * without. */
#define XLAT_WAYS 4
#define XLAT_SETS BIT32(15)
struct xlat_set {
	_Alignas(64) struct xlat_way {
		_Atomic u64 tag;   /* xlat_way_tag(); 0: free */
		_Atomic u32 entry; /* entry_indirect */
		u32 block;
	} ways[XLAT_WAYS];
};

/* How often cold code has run, by hash of address and key: counts of four
 * bits. Addresses that share a count become warm sooner. */
#define XLAT_WARMTHS BIT32(21)

/* See xlat_is_idle(): with less code than that nothing is gained; the guest is
 * idle when it takes less than a SHARE of the time. What is forgotten too
 * early costs a tenth of a second once. */
#define XLAT_IDLE_BYTES (8 * MIB)
#define XLAT_IDLE_NS	10000000000ull
#define XLAT_IDLE_SHARE 20u

struct xlat {
	struct engine_vm *vm;
	u64 idle_ns, idle_cpu_ns; /* at the last look */
	u32 warm; /* code is translated when it has run so often; at most 15 */
	_Atomic u8 *warmths;
	_Atomic u32 lock; /* 0 free, 1 taken, 2 taken and waited for */
	struct soft_codemem code;
	u32 code_next, cold_next;   /* offsets of the first free bytes */
	u32 code_ready, cold_ready; /* up to there memory is populated */
	u32 reserved_end, reserved_cold_end; /* of the reservations there */
	_Atomic u32 *heads;		     /* hash: block indexes */
	struct xlat_set *sets;
	struct xlat_block *blocks;
	_Atomic u32 block_count; /* the used ones, and 0; read by signals */
	struct xlat_link *links;
	u32 link_count;
	struct xlat_fault *faults; /* in the order of their code */
	_Atomic u32 fault_count;   /* read by signals */
	u32 thunks[XLAT_THUNKS_MAX];
	struct slots slots;
	struct xlat_stats stats; /* blocks … links: of the present contents */

	/* ---- smc.c ---- */
	struct smc_page *_Atomic chunks[SMC_CHUNKS];
	struct smc_vcpu vcpus[VCPUS_MAX];
	/* Whom smc_protect() found writing since the last publication. */
	u64 protect_pending;
	/* unverified_count, and one more while protect_pending is set:
	 * whether smc_serialize() has to look. */
	_Atomic u32 doubts;
	u32 unverified_count;
	struct smc_unverified unverified[SMC_UNVERIFIED_MAX];
};

static inline u32 xlat_hash_slot(gpa_t gpa, u32 gfn2, u32 key)
{
	u64 h = gpa ^ (u64)key << 48 ^ (gfn2 != XLAT_NO_GFN ? BIT64(63) : 0);

	h *= 0x9e3779b97f4a7c15ull;
	return (u32)(h >> 32) & (XLAT_HASH_HEADS - 1);
}

/* Never 0. Addresses have at most 52 bits, keys 9. */
static inline u64 xlat_way_tag(gpa_t gpa, u32 key)
{
	return gpa << 12 | key << 1 | 1;
}

static inline struct xlat_set *xlat_set_of(const struct xlat *x, gpa_t gpa,
					   u32 key)
{
	return &x->sets[xlat_hash_slot(gpa, XLAT_NO_GFN, key) % XLAT_SETS];
}

static inline bool xlat_block_is_dead(const struct xlat_block *b)
{
	return __atomic_load_n(&b->is_dead, __ATOMIC_ACQUIRE);
}

/* cache_leaf.c, under the lock. */
void xlat_way_add(struct xlat *x, const struct xlat_block *b);
void xlat_way_del(struct xlat *x, const struct xlat_block *b);

/* cache.c, under the lock: as xlat_kill(), but the code bits of the block's
 * pages stay as they are. */
void xlat_kill_block(struct xlat *x, struct xlat_block *b);

/* cache.c: what comes in the block's place is cold again. */
void xlat_cool(struct xlat *x, const struct xlat_block *b);

/* smc.c, under the lock. */
void smc_link_block(struct xlat *x, struct xlat_block *b);
void smc_unlink_block(struct xlat *x, struct xlat_block *b);
/* Computes the page's code bits from its blocks. */
void smc_recompute(struct xlat *x, gpa_t gpa);
/* Forgets the blocks [1, count) and what is unverified. */
void smc_reset(struct xlat *x, u32 count);
void smc_free(struct xlat *x);
/* RAM has come or gone. Any thread. */
void smc_slot_changed(struct xlat *x, const struct mem_slot *slot, bool added);
