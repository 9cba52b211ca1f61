/* SPDX-License-Identifier: Apache-2.0 */
/* FORMAT
 *
 *	0 L1 offset  8 L1 entries  12 id length  14 name length  16 seconds
 *	20 nanoseconds  24 guest clock  32 VM state  36 extra length
 *	40 extra: VM state (64 bits), disk size, …; then id, name, to 8 bytes
 *
 * The entries follow each other. They are read one by one, so that lengths
 * that lie cost no memory. We make none and change none.
 *
 * Source: qcow2 "Snapshots".
 */
#include "block/qcow2_int.h"

#define FIXED	  40
#define EXTRA_MAX 1024
#define TABLE_MAX (64 * MIB)

static int read_text(struct qcow2 *q, u64 at, u32 len, char *out, size_t room)
{
	size_t n = MIN((size_t)len, room - 1);

	out[n] = 0;
	return n ? qcow2_co_pread(q, at, out, n) : 0;
}

static int read_entry(struct qcow2 *q, u64 at, struct qcow2_snapshot *s,
		      u64 *out_bytes)
{
	u8 b[FIXED + 16] = {0};
	u32 id, name, extra;
	int rc = qcow2_co_pread(q, at, b, FIXED);

	if (rc)
		return rc;
	id = ld_be16(b + 12);
	name = ld_be16(b + 14);
	extra = ld_be32(b + 36);
	if (extra > EXTRA_MAX)
		return qcow2_damaged(q, "snapshot table", at);
	if (extra >= 16)
		rc = qcow2_co_pread(q, at + FIXED, b + FIXED, 16);
	if (rc)
		return rc;
	*s = (struct qcow2_snapshot){
		.l1_offset = ld_be64(b),
		.l1_entries = ld_be32(b + 8),
		.seconds = ld_be32(b + 16),
		.vm_state_bytes =
			extra >= 8 ? ld_be64(b + FIXED) : ld_be32(b + 32),
		.disk_bytes =
			extra >= 16 ? ld_be64(b + FIXED + 8) : q->h.size_bytes,
	};
	at += FIXED + extra;
	*out_bytes = ALIGN_UP((u64)FIXED + extra + id + name, 8);
	rc = read_text(q, at, id, s->id, sizeof(s->id));
	return rc ? rc : read_text(q, at + id, name, s->name, sizeof(s->name));
}

int qcow2_co_snapshots(struct qcow2 *q,
		       int (*fn)(void *opaque, const struct qcow2_snapshot *s),
		       void *opaque, u64 *out_bytes)
{
	u64 done = 0;

	for (u32 i = 0; i < q->h.snapshot_count; i++) {
		struct qcow2_snapshot s;
		u64 bytes = 0;
		int rc;

		if (done > TABLE_MAX ||
		    q->h.snapshots_offset + done >= q->file->file_bytes)
			return qcow2_damaged(q, "snapshot table", done);
		rc = read_entry(q, q->h.snapshots_offset + done, &s, &bytes);
		if (!rc)
			rc = fn(opaque, &s);
		if (rc)
			return rc;
		done += bytes;
	}
	*out_bytes = done;
	return 0;
}

struct each {
	int (*fn)(void *opaque, const struct qcow2_snapshot *s);
	void *opaque;
};

static int each_main(struct qcow2 *q, void *opaque)
{
	struct each *e = opaque;
	u64 bytes;

	return qcow2_co_snapshots(q, e->fn, e->opaque, &bytes);
}

int qcow2_snapshots(struct block_node *node,
		    int (*fn)(void *opaque, const struct qcow2_snapshot *s),
		    void *opaque)
{
	struct each e = {fn, opaque};

	if (!qcow2_is_node(node))
		return 0;
	return qcow2_run(qcow2_of(node), each_main, &e);
}
