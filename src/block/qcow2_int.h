/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of a qcow2 node, private to block/qcow2_*.c.
 *
 * Functions named qcow2_co_* run on a coroutine of the node's pool and may
 * wait; the others do not wait. They return 0 or -errno.
 */
#pragma once

#include <errno.h>
#include <stdio.h>

#include "block/block_int.h"
#include "block/co.h"
#include "block/qcow2.h"

#define QCOW2_OPS	128	  /* requests in work; the rest waits */
#define QCOW2_SLICE	4096u	  /* cached piece of a table, at most */
#define QCOW2_L2_CACHE	(4 * MIB) /* of L2 tables, per image */
#define QCOW2_RB_CACHE	(1 * MIB) /* of refcount blocks, per image */
#define QCOW2_IOV_MAX	1024
#define QCOW2_NO_OFFSET UINT64_MAX

#define L1_OFFSET_MASK 0x00fffffffffffe00ull
#define L2_OFFSET_MASK 0x00fffffffffffe00ull
#define L2_COPIED      BIT64(63)
#define L2_COMPRESSED  BIT64(62)
#define L2_ZERO	       BIT64(0)
#define L1_RESERVED    0x7f000000000001ffull
#define L2_RESERVED    0x3f000000000001feull /* and L2_ZERO, see there */
#define RT_OFFSET_MASK 0xfffffffffffffe00ull

static inline u16 ld_be16(const void *p)
{
	return __builtin_bswap16(ld_le16(p));
}
static inline u32 ld_be32(const void *p)
{
	return __builtin_bswap32(ld_le32(p));
}
static inline u64 ld_be64(const void *p)
{
	return __builtin_bswap64(ld_le64(p));
}
static inline void st_be16(void *p, u16 v)
{
	st_le16(p, __builtin_bswap16(v));
}
static inline void st_be32(void *p, u32 v)
{
	st_le32(p, __builtin_bswap32(v));
}
static inline void st_be64(void *p, u64 v)
{
	st_le64(p, __builtin_bswap64(v));
}

struct qcow2;

/* ---- qcow2_cache.c: pieces of tables in memory ---- */

struct qcow2_slice {
	struct list lru;
	struct qcow2_slice *hash_next;
	u64 offset; /* in the file; QCOW2_NO_OFFSET: holds nothing */
	u32 pins;
	int error;
	bool is_loading, is_dirty, is_writing;
	u8 *bytes; /* as they are in the file */
};

struct qcow2_cache {
	struct qcow2 *q;
	u32 slice_bytes;
	u32 count, count_max, dirty_count;
	struct list lru; /* least recently used first */
	struct qcow2_slice **hash;
	u32 hash_mask;
	/* Makes room when much is dirty: for L2 tables all is written in
	 * order. NULL: a dirty slice may be written at any time. */
	int (*co_clean)(struct qcow2 *q);
	struct co_queue loaded; /* someone waits for a load or a write */
};

void qcow2_cache_init(struct qcow2_cache *c, struct qcow2 *q, u64 max_bytes);
void qcow2_cache_fini(struct qcow2_cache *c);
/* The slice at offset (aligned to slices), pinned. */
int qcow2_co_cache_get(struct qcow2_cache *c, u64 offset,
		       struct qcow2_slice **out);
void qcow2_cache_put(struct qcow2_cache *c, struct qcow2_slice *s);
/* The slice when it is there, not pinned: valid until the next wait. */
struct qcow2_slice *qcow2_cache_peek(struct qcow2_cache *c, u64 offset);
void qcow2_cache_dirty(struct qcow2_cache *c, struct qcow2_slice *s);
/* Forgets the slices of a table that is no more. None is pinned. */
void qcow2_cache_forget(struct qcow2_cache *c, u64 offset, u64 len);
/* The slices that are dirty or being written, pinned, in an array of the
 * caller's to free. -ENOMEM. */
int qcow2_cache_take_dirty(struct qcow2_cache *c, struct qcow2_slice ***out,
			   u32 *out_count);
/* Writes a pinned slice when it is dirty; it is in the file (if not yet
 * durable) when this returns. */
int qcow2_co_cache_write(struct qcow2_cache *c, struct qcow2_slice *s);

/* ---- qcow2_set.c: clusters that hold metadata ---- */

struct qcow2_set {
	u64 *keys; /* 0: free */
	u64 count, mask;
};
/* False: it is in there already. Keys are multiples of 512, not 0. */
bool qcow2_set_add(struct qcow2_set *s, u64 key);
void qcow2_set_del(struct qcow2_set *s, u64 key);
bool qcow2_set_has(const struct qcow2_set *s, u64 key);
void qcow2_set_fini(struct qcow2_set *s);

/* ---- The node ---- */

/* Guest clusters that a request works on. Shared: the mapping stays.
 * Exclusive: the mapping changes. Granted in order of arrival. */
struct qcow2_range {
	struct list link;
	u64 first, last; /* cluster numbers */
	bool is_exclusive;
};

struct qcow2_op {
	struct list link;
	struct qcow2 *q;
	struct block_request *req;
	struct block_request child; /* of the fast path */
	struct qcow2_range range;
};

/* Entries of a table that are not in the file yet; first > last: none. */
struct qcow2_dirty {
	u64 first, last;
};

/* Clusters that nothing will refer to once the tables are durable. */
struct qcow2_freed {
	u64 first, count; /* cluster numbers */
};

#define QCOW2_HEADER_BYTES 104
#define QCOW2_FREED_MAX	   4096 /* runs that wait, before a flush */

struct qcow2 {
	struct block_node node;
	struct loop *loop;
	struct block_node *file, *backing;
	struct qcow2_header h;
	bool has_backing; /* also when is_alone, without the node */
	bool is_corrupt;  /* found while in use: no more writes */

	u32 cluster_bits;
	u64 cluster_bytes;
	u32 l2_bits;	/* entries of an L2 table */
	u32 entry_bits; /* 3, or 4: bytes of an L2 entry */
	u32 sub_bits;	/* of a subcluster's size */
	u32 sub_count;	/* of a cluster: 32, or 1 */

	u64 *l1; /* as in the file, in the host's byte order */
	u32 l1_entries;
	struct qcow2_dirty l1_dirty;
	struct co_mutex l1_lock;
	struct qcow2_cache l2;

	/* of a writable image */
	u8 header[QCOW2_HEADER_BYTES]; /* its first bytes, as in the file */
	u32 rb_bits;		       /* entries of a refcount block */
	u64 *rt;
	u64 rt_entries;
	struct qcow2_dirty rt_dirty;
	struct qcow2_cache rb;
	struct co_mutex alloc_lock;
	u64 next_free; /* no cluster below it is known to be free */
	struct qcow2_set meta;
	struct qcow2_freed *freed;
	size_t freed_count, freed_room;
	struct co_mutex flush_lock;
	u64 flush_started, flush_ok;
	bool is_marked;	 /* as corrupt, in the file */
	bool is_changed; /* since it was opened: first_change() ran */

	struct co_pool pool;
	struct list ranges; /* granted and waiting */
	struct co_queue range_queue;
	struct list idle_ops;
	struct list waiting;  /* requests without an op */
	struct list finished; /* requests; result in progress */
	u32 in_flight, live, co_max;
	int event_fd;
	struct loop_fd event;
	struct qcow2_op ops[QCOW2_OPS];

	/* the cluster that was decompressed last */
	u8 *unpacked;
	u64 unpacked_entry; /* 0: none */
	u64 pack_at;	    /* where the next compressed one may go; 0: none */
};

static inline struct qcow2 *qcow2_of(const struct block_node *node)
{
	return container_of((struct block_node *)node, struct qcow2, node);
}

/* ---- qcow2_header.c ---- */

/* L1 entries that a disk of size_bytes needs. */
u64 qcow2_l1_entries(const struct qcow2_header *h, u64 size_bytes);

/* ---- qcow2.c ---- */

/* One request to a node below, waited for. */
int qcow2_co_io(struct qcow2 *q, struct block_node *node, enum block_op op,
		u64 offset, u64 len, const struct iovec *iov, int iov_count);
int qcow2_co_pread(struct qcow2 *q, u64 offset, void *bytes, u64 len);
int qcow2_co_pwrite(struct qcow2 *q, u64 offset, const void *bytes, u64 len);
/* Runs fn on a coroutine to its end: for open, close and tools. Not while a
 * coroutine runs. */
int qcow2_run(struct qcow2 *q, int (*fn)(struct qcow2 *q, void *opaque),
	      void *opaque);
/* Notes that the image is damaged; returns -EIO. */
int qcow2_damaged(struct qcow2 *q, const char *what, u64 where);

void qcow2_co_range_lock(struct qcow2 *q, struct qcow2_range *r, u64 offset,
			 u64 len, bool is_exclusive);
void qcow2_range_unlock(struct qcow2 *q, struct qcow2_range *r);

/* ---- qcow2_map.c: what is where ---- */

/* One guest cluster. */
struct qcow2_cluster {
	u64 entry;	     /* the L2 entry's first word */
	u64 host;	     /* 0: none; not of a compressed one */
	u32 allocated, zero; /* a bit per subcluster; never both */
	bool is_compressed;
	bool is_ours; /* refcount is one: may be written in place */
};

enum qcow2_source {
	QCOW2_FROM_FILE,
	QCOW2_FROM_ZERO,
	QCOW2_FROM_BACKING,
	QCOW2_FROM_COMPRESSED
};

struct qcow2_extent {
	enum qcow2_source source;
	bool is_ours; /* FROM_FILE: may be written in place */
	u64 bytes;
	u64 host;  /* FROM_FILE */
	u64 entry; /* FROM_COMPRESSED: one cluster's, or a part of it */
};

/* Decodes the L2 entry at `at`; -EIO when it is damaged. */
int qcow2_cluster_decode(struct qcow2 *q, const u8 *at,
			 struct qcow2_cluster *out);
/* The L2 slice of a guest offset: where it is (0: no table), and the entry's
 * place in it. */
int qcow2_l2_place(struct qcow2 *q, u64 offset, u64 *out_slice, u32 *out_at);
/* The first extent of [offset, offset + len), which is not empty. */
int qcow2_co_map(struct qcow2 *q, u64 offset, u64 len,
		 struct qcow2_extent *out);
/* The same from what is in memory; -EAGAIN when that does not tell. */
int qcow2_map(struct qcow2 *q, u64 offset, u64 len, struct qcow2_extent *out);

/* ---- qcow2_read.c ---- */

/* A moving view of a vector. */
struct qcow2_iov {
	const struct iovec *iov;
	int count;
	u64 skip;
	struct iovec *part; /* room for QCOW2_IOV_MAX, or the vector's */
};
/* The next len bytes (or fewer, when they are in too many pieces) as part;
 * returns the bytes, and sets the number of pieces. */
u64 qcow2_iov_next(struct qcow2_iov *v, u64 len, int *out_count);
int qcow2_co_read(struct qcow2 *q, u64 offset, u64 len, struct qcow2_iov *v);
/* The same into one piece. Behind the end of the disk: zeros. */
int qcow2_co_read_bytes(struct qcow2 *q, u64 offset, void *bytes, u64 len);

/* ---- qcow2_compressed.c ---- */

/* The cluster of a compressed entry: valid until the next wait. */
int qcow2_co_unpack(struct qcow2 *q, u64 entry, const u8 **out);

/* ---- qcow2_refcount.c ---- */

int qcow2_refcount_open(struct qcow2 *q, struct err *err); /* co */
void qcow2_refcount_fini(struct qcow2 *q);
u64 qcow2_refcount_get(const u8 *block, u64 index, u32 order);
void qcow2_refcount_set(u8 *block, u64 index, u32 order, u64 count);
int qcow2_co_refcount(struct qcow2 *q, u64 cluster, u64 *out);
/* min to max clusters in a row, with a refcount of one: for data, or for
 * tables when is_meta. -ENOSPC, -EIO. */
int qcow2_co_alloc(struct qcow2 *q, u64 min, u64 max, bool is_meta,
		   u64 *out_host, u64 *out_count);
/* Takes back what was allocated and never referred to. */
void qcow2_co_unalloc(struct qcow2 *q, u64 host, u64 clusters);
/* [host, host + len) has one reference less, as soon as the tables are
 * durable without it. */
void qcow2_free_later(struct qcow2 *q, u64 host, u64 len);
/* Applies such a list. */
void qcow2_co_free(struct qcow2 *q, const struct qcow2_freed *freed,
		   size_t count);
/* Does [host, host + len) touch tables or the header? */
bool qcow2_is_meta(const struct qcow2 *q, u64 host, u64 len);

/* ---- qcow2_flush.c ---- */

void qcow2_dirty_none(struct qcow2_dirty *d);
void qcow2_dirty_add(struct qcow2_dirty *d, u64 index);
/* Everything that completed before the call is durable. */
int qcow2_co_flush(struct qcow2 *q);
int qcow2_co_sync(struct qcow2 *q);
/* Writes the header's fields from q->h. */
int qcow2_co_header_write(struct qcow2 *q);

/* ---- qcow2_write.c, qcow2_zero.c ---- */

/* The L2 entry of a guest offset, to be changed: its slice pinned, its table
 * the image's own. */
int qcow2_co_l2_get(struct qcow2 *q, u64 offset, struct qcow2_slice **out,
		    u32 *out_at);
void qcow2_l2_set(struct qcow2 *q, struct qcow2_slice *s, u32 at,
		  const struct qcow2_cluster *c);
/* Frees what an entry refers to. */
void qcow2_free_cluster(struct qcow2 *q, const struct qcow2_cluster *c);
/* The caller holds the range exclusively. */
int qcow2_co_write(struct qcow2 *q, u64 offset, u64 len, struct qcow2_iov *v);
int qcow2_co_write_zeroes(struct qcow2 *q, u64 offset, u64 len, bool may_unmap);
int qcow2_co_discard(struct qcow2 *q, u64 offset, u64 len);

/* ---- qcow2_bitmap.c ---- */

/* Makes all enabled dirty bitmaps say that everything changed. Another error
 * than one of the file's: they cannot be kept. */
int qcow2_co_bitmaps_set(struct qcow2 *q);

/* Of a header extension: the backing file's format. */
#define QCOW2_EXT_BACKING_FORMAT 0xe2792acau

/* ---- qcow2_snapshot.c, qcow2_check.c ---- */

/* Also gives the length of the table in bytes. */
int qcow2_co_snapshots(struct qcow2 *q,
		       int (*fn)(void *opaque, const struct qcow2_snapshot *s),
		       void *opaque, u64 *out_bytes);
int qcow2_co_check(struct qcow2 *q, bool is_repair, struct qcow2_check *out);
/* The caller is alone, as a repair is. */
int qcow2_co_count_set(struct qcow2 *q, u64 cluster, u64 count);
int qcow2_co_block_create(struct qcow2 *q, u64 cluster);
bool qcow2_is_node(const struct block_node *node);
