/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY
 *
 * All references in the file are counted into an array, and the array is
 * compared with the counts in the file. A count that is too high is a leak,
 * one that is too low a corruption, as is an entry that leads nowhere or a
 * COPIED flag that is not (count == 1).
 *
 * Repair puts counts and flags right. Entries that lead nowhere stay: what
 * the guest's data was is not ours to guess.
 *
 * A table that is named twice in one tree is walked once: the time is bounded
 * by the size of the file for each tree.
 */
#include <stdarg.h>
#include <stdlib.h>

#include "base/assert.h"
#include "block/qcow2_int.h"

#define CLUSTERS_MAX (64 * MIB) /* two bytes each */

struct check {
	struct qcow2 *q;
	struct qcow2_check *out;
	bool is_repair;
	u64 clusters; /* of the file */
	u16 *counts;
	u8 *table; /* room for one cluster */
	u64 walked, to_walk;
};

PRINTF_LIKE(2, 3)
static void corrupt(struct check *c, const char *fmt, ...)
{
	va_list ap;

	if (!c->out->corruptions++) {
		va_start(ap, fmt);
		vsnprintf(c->out->first, sizeof(c->out->first), fmt, ap);
		va_end(ap);
	}
}

/* Counts a reference to each cluster of [host, host + len). */
static void refer(struct check *c, u64 host, u64 len, const char *what)
{
	u64 first = host >> c->q->cluster_bits, last;

	if (!len)
		return;
	last = (host + len - 1) >> c->q->cluster_bits;
	if (host + len < host || last >= c->clusters) {
		corrupt(c, "%s at %#llx is behind the end of the file", what,
			(unsigned long long)host);
		return;
	}
	for (u64 i = first; i <= last; i++)
		if (c->counts[i] < UINT16_MAX)
			c->counts[i]++;
}

static bool is_aligned(struct check *c, u64 host, const char *what)
{
	if (!(host & (c->q->cluster_bytes - 1)))
		return true;
	corrupt(c, "%s at %#llx is not aligned", what,
		(unsigned long long)host);
	return false;
}

/* The COPIED flag of an entry of the active tree, against the count in the
 * file, which a repair has put right before. 1: it was changed. */
static int check_copied(struct check *c, u8 *at, u64 host, const char *what)
{
	u64 entry = ld_be64(at), cluster = host >> c->q->cluster_bits, count;
	bool want;

	if (cluster >= c->clusters || qcow2_co_refcount(c->q, cluster, &count))
		return 0;
	want = count == 1;
	if (!!(entry & L2_COPIED) == want)
		return 0;
	if (c->is_repair) {
		c->out->corruptions_fixed++;
		st_be64(at, entry ^ L2_COPIED);
		return 1;
	}
	corrupt(c, "%s %#llx: wrong COPIED flag", what,
		(unsigned long long)entry);
	return 0;
}

static void count_entry(struct check *c, u64 entry, bool is_active)
{
	struct qcow2 *q = c->q;
	u32 x = 62 - (q->cluster_bits - 8);
	u64 host = entry & L2_OFFSET_MASK;

	if (entry & L2_COMPRESSED) {
		u64 sectors = ((entry & (L2_COMPRESSED - 1)) >> x) + 1;

		host = entry & (BIT64(x) - 1);
		c->out->compressed += is_active;
		c->out->allocated += is_active;
		if (entry & L2_COPIED)
			corrupt(c, "compressed cluster %#llx: COPIED flag",
				(unsigned long long)entry);
		/* The last sector may be behind the end. */
		refer(c, host & ~511ull,
		      MIN(sectors * 512,
			  (c->clusters << q->cluster_bits) -
				  MIN(host & ~511ull,
				      c->clusters << q->cluster_bits)),
		      "compressed cluster");
		return;
	}
	if (entry & L2_RESERVED)
		corrupt(c, "L2 entry %#llx has reserved bits",
			(unsigned long long)entry);
	if (!host)
		return;
	c->out->allocated += is_active;
	if (is_aligned(c, host, "cluster"))
		refer(c, host, q->cluster_bytes, "cluster");
}

static int progress(struct check *c)
{
	c->walked++;
	if (!c->out->progress || c->walked % 64)
		return 0;
	return c->out->progress(c->out->opaque, c->walked, c->to_walk);
}

/* Pass 1 counts, pass 2 looks at flags. */
static int walk_table(struct check *c, u64 host, bool is_active, bool flags)
{
	struct qcow2 *q = c->q;
	bool changed = false;
	int rc = progress(c);

	if (!rc)
		rc = qcow2_co_pread(q, host, c->table, q->cluster_bytes);
	if (rc)
		return rc;
	for (u64 at = 0; at < q->cluster_bytes; at += 1u << q->entry_bits) {
		u64 entry = ld_be64(c->table + at);
		u64 to = entry & L2_OFFSET_MASK;

		if (!flags)
			count_entry(c, entry, is_active);
		else if (!(entry & L2_COMPRESSED) && to)
			changed |=
				check_copied(c, c->table + at, to, "L2 entry");
	}
	if (!changed)
		return 0;
	qcow2_cache_forget(&q->l2, host, q->cluster_bytes);
	return qcow2_co_pwrite(q, host, c->table, q->cluster_bytes);
}

static int walk_l1_entry(struct check *c, struct qcow2_set *seen, u8 *at,
			 bool is_active, bool flags, bool *changed)
{
	struct qcow2 *q = c->q;
	u64 host = ld_be64(at) & L1_OFFSET_MASK;

	if (!flags && (ld_be64(at) & L1_RESERVED))
		corrupt(c, "L1 entry %#llx has reserved bits",
			(unsigned long long)ld_be64(at));
	if (!host)
		return 0;
	if (flags)
		*changed |= check_copied(c, at, host, "L1 entry");
	else if (is_aligned(c, host, "L2 table"))
		refer(c, host, q->cluster_bytes, "L2 table");
	if ((host & (q->cluster_bytes - 1)) ||
	    host >> q->cluster_bits >= c->clusters ||
	    !qcow2_set_add(seen, host))
		return 0;
	return walk_table(c, host, is_active, flags);
}

/* An L1 table and all below it. */
static int walk_tree(struct check *c, u64 offset, u32 entries, bool is_active,
		     bool flags)
{
	struct qcow2_set seen = {0};
	struct qcow2 *q = c->q;
	bool changed = false;
	u8 *l1;
	int rc;

	if (!entries || !is_aligned(c, offset, "L1 table"))
		return 0;
	if (entries > QCOW2_L1_BYTES / 8 ||
	    offset >> q->cluster_bits >= c->clusters) {
		corrupt(c, "an L1 table is too large or nowhere");
		return 0;
	}
	l1 = malloc(entries * 8ull);
	rc = l1 ? qcow2_co_pread(q, offset, l1, entries * 8ull) : -ENOMEM;
	if (!rc && !flags)
		refer(c, offset, entries * 8ull, "L1 table");
	for (u32 i = 0; !rc && i < entries; i++)
		rc = walk_l1_entry(c, &seen, l1 + 8ull * i, is_active, flags,
				   &changed);
	if (!rc && changed)
		rc = qcow2_co_pwrite(q, offset, l1, entries * 8ull);
	for (u32 i = 0; changed && is_active && i < q->l1_entries; i++)
		q->l1[i] = ld_be64(l1 + 8ull * i);
	qcow2_set_fini(&seen);
	free(l1);
	return rc;
}

static int walk_snapshot(void *opaque, const struct qcow2_snapshot *s)
{
	return walk_tree(opaque, s->l1_offset, s->l1_entries, false, false);
}

/* ---- Bitmaps: counted, not looked into ---- */

static int walk_bitmap_table(struct check *c, u64 offset, u32 entries)
{
	u64 bytes = entries * 8ull;
	u8 *table;
	int rc;

	if (bytes > 64 * MIB || !is_aligned(c, offset, "bitmap table")) {
		corrupt(c, "a bitmap table is too large or misplaced");
		return 0;
	}
	refer(c, offset, bytes, "bitmap table");
	table = malloc(bytes + 1);
	rc = table ? qcow2_co_pread(c->q, offset, table, bytes) : -ENOMEM;
	for (u32 i = 0; !rc && i < entries; i++) {
		u64 host = ld_be64(table + 8ull * i) & L2_OFFSET_MASK;

		if (host && is_aligned(c, host, "bitmap"))
			refer(c, host, c->q->cluster_bytes, "bitmap");
	}
	free(table);
	return rc;
}

static int walk_bitmaps(struct check *c)
{
	const struct qcow2_header *h = &c->q->h;
	u64 left = h->bitmap_directory_bytes, at = 0;
	u8 *dir = h->bitmap_count ? malloc(left + 1) : NULL;
	int rc;

	if (!h->bitmap_count)
		return 0;
	refer(c, h->bitmap_directory_offset, left, "bitmap directory");
	rc = dir ? qcow2_co_pread(c->q, h->bitmap_directory_offset, dir, left)
		 : -ENOMEM;
	for (u32 i = 0; !rc && i < h->bitmap_count; i++) {
		u64 bytes;

		if (left - at < 24) {
			corrupt(c, "the bitmap directory is cut off");
			break;
		}
		bytes = 24ull + ld_be32(dir + at + 20) + ld_be16(dir + at + 18);
		bytes = ALIGN_UP(bytes, 8);
		rc = walk_bitmap_table(c, ld_be64(dir + at),
				       ld_be32(dir + at + 8));
		at += MIN(bytes, left - at);
	}
	free(dir);
	return rc;
}

/* ---- Counts ---- */

static void refer_blocks(struct check *c)
{
	struct qcow2 *q = c->q;

	for (u64 i = 0; i < q->rt_entries; i++)
		if (q->rt[i] && is_aligned(c, q->rt[i], "refcount block"))
			refer(c, q->rt[i], q->cluster_bytes, "refcount block");
}

static int count_all(struct check *c)
{
	struct qcow2 *q = c->q;
	const struct qcow2_header *h = &q->h;
	u64 snapshot_bytes = 0;
	int rc;

	refer(c, 0, 1, "header");
	refer(c, h->refcount_table_offset,
	      (u64)h->refcount_table_clusters << q->cluster_bits,
	      "refcount table");
	refer_blocks(c);
	rc = walk_tree(c, h->l1_offset, h->l1_entries, true, false);
	if (!rc && h->snapshot_count)
		rc = qcow2_co_snapshots(q, walk_snapshot, c, &snapshot_bytes);
	if (!rc && snapshot_bytes)
		refer(c, h->snapshots_offset, snapshot_bytes, "snapshot table");
	return rc ? rc : walk_bitmaps(c);
}

/* A block for the count of `cluster`, in its own reach. */
static int block_for(struct check *c, u64 cluster)
{
	struct qcow2 *q = c->q;
	u64 first = ALIGN_DOWN(cluster, BIT64(q->rb_bits));

	if (cluster >> q->rb_bits >= q->rt_entries)
		return -ENOSPC;
	for (u64 i = first; i < first + BIT64(q->rb_bits); i++) {
		if (!i || (i < c->clusters && c->counts[i]))
			continue;
		if (i < c->clusters)
			c->counts[i] = 1;
		return qcow2_co_block_create(q, i);
	}
	return -ENOSPC;
}

static int fix_count(struct check *c, u64 cluster, u64 want, u64 have)
{
	u64 max = UINT64_MAX >> (64 - (1u << c->q->h.refcount_order));
	int rc = 0;

	if (want > max)
		return -ERANGE;
	if (!c->q->rt[cluster >> c->q->rb_bits])
		rc = block_for(c, cluster);
	if (!rc)
		rc = qcow2_co_count_set(c->q, cluster, want);
	if (rc)
		return rc;
	if (want < have)
		c->out->leaks_fixed++;
	else
		c->out->corruptions_fixed++;
	return 0;
}

static int compare_counts(struct check *c)
{
	struct qcow2 *q = c->q;

	for (u64 i = 0; i < c->clusters; i++) {
		u64 want = c->counts[i], have;
		int rc = 0;

		if (!want && (i >> q->rb_bits >= q->rt_entries ||
			      !q->rt[i >> q->rb_bits])) {
			i |= BIT64(q->rb_bits) - 1;
			continue;
		}
		rc = qcow2_co_refcount(q, i, &have);
		if (rc)
			return rc;
		if (have == want)
			continue;
		if (c->is_repair && !fix_count(c, i, want, have))
			continue;
		if (have > want)
			c->out->leaks++;
		else
			corrupt(c,
				"cluster at %#llx: %llu references, counted "
				"as %llu",
				(unsigned long long)i << q->cluster_bits,
				(unsigned long long)want,
				(unsigned long long)have);
	}
	return 0;
}

static int unmark(struct qcow2 *q)
{
	u64 marks = QCOW2_INCOMPAT_DIRTY | QCOW2_INCOMPAT_CORRUPT;
	int rc = qcow2_co_flush(q);

	q->is_corrupt = q->is_marked = false;
	if (rc || !(q->h.incompatible & marks))
		return rc;
	q->h.incompatible &= ~marks;
	rc = qcow2_co_header_write(q);
	return rc ? rc : qcow2_co_sync(q);
}

static int check_all(struct check *c)
{
	int rc = count_all(c);

	if (!rc)
		rc = compare_counts(c);
	if (!rc)
		rc = walk_tree(c, c->q->h.l1_offset, c->q->h.l1_entries, true,
			       true);
	if (!rc && c->is_repair && !c->out->corruptions)
		rc = unmark(c->q);
	return rc;
}

int qcow2_co_check(struct qcow2 *q, bool is_repair, struct qcow2_check *out)
{
	struct check c = {.q = q, .out = out, .is_repair = is_repair};
	struct err err;
	int rc = 0;

	if (q->node.is_read_only && !q->rt)
		rc = qcow2_refcount_open(q, &err);
	else if (!q->node.is_read_only)
		rc = qcow2_co_flush(q);
	if (rc && q->node.is_read_only && rc == -EINVAL) {
		corrupt(&c, "%s", err.text);
		return 0;
	}
	c.clusters =
		(q->file->file_bytes + q->cluster_bytes - 1) >> q->cluster_bits;
	if (!rc && c.clusters > CLUSTERS_MAX)
		rc = -EFBIG;
	if (rc)
		return rc;
	out->clusters =
		(q->node.size_bytes + q->cluster_bytes - 1) >> q->cluster_bits;
	for (u32 i = 0; i < q->l1_entries; i++)
		c.to_walk += 2 * !!(q->l1[i] & L1_OFFSET_MASK);
	c.counts = calloc(c.clusters + 1, sizeof(u16));
	c.table = malloc(q->cluster_bytes);
	rc = c.counts && c.table ? check_all(&c) : -ENOMEM;
	free(c.counts);
	free(c.table);
	return rc;
}

struct check_run {
	bool is_repair;
	struct qcow2_check *out;
};

static int check_main(struct qcow2 *q, void *opaque)
{
	struct check_run *r = opaque;

	return qcow2_co_check(q, r->is_repair, r->out);
}

int qcow2_check(struct block_node *node, bool is_repair,
		struct qcow2_check *out, struct err *err)
{
	struct check_run r = {is_repair, out};
	int rc;

	ASSERT(qcow2_is_node(node) && !(is_repair && node->is_read_only));
	rc = qcow2_run(qcow2_of(node), check_main, &r);
	return rc ? err_sys(err, rc, "check the image") : 0;
}
