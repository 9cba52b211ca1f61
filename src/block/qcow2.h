/* SPDX-License-Identifier: Apache-2.0 */
/* qcow2 images, versions 2 and 3: a node over the node of a file.
 *
 * An image is hostile: whatever it says ends in the right bytes or an error,
 * in bounded memory, and nothing is written but to the image's own file.
 * Refused with -ENOTSUP: encryption, external data files, unknown
 * incompatible features.
 */
#pragma once

#include "block/block.h"

#define QCOW2_NAME_MAX	     1023 /* of a backing file, bytes */
#define QCOW2_FORMAT_MAX     63
#define QCOW2_L1_BYTES	     (32 * MIB) /* the most that an image may have */
#define QCOW2_REFTABLE_BYTES (8 * MIB)
#define QCOW2_SNAPSHOTS_MAX  65536

#define QCOW2_INCOMPAT_DIRTY	   BIT64(0)
#define QCOW2_INCOMPAT_CORRUPT	   BIT64(1)
#define QCOW2_INCOMPAT_DATA_FILE   BIT64(2)
#define QCOW2_INCOMPAT_COMPRESSION BIT64(3)
#define QCOW2_INCOMPAT_EXTL2	   BIT64(4)
#define QCOW2_COMPAT_LAZY	   BIT64(0)
#define QCOW2_AUTOCLEAR_BITMAPS	   BIT64(0)
#define QCOW2_AUTOCLEAR_DATA_RAW   BIT64(1)

/* The header and its extensions, checked as far as they can be alone. */
struct qcow2_header {
	u32 version;
	u32 cluster_bits;
	u64 size_bytes;
	u32 l1_entries;
	u64 l1_offset;
	u64 refcount_table_offset;
	u32 refcount_table_clusters;
	u32 refcount_order;
	u32 snapshot_count;
	u64 snapshots_offset;
	u64 incompatible, compatible, autoclear;
	u32 header_bytes;
	u8 compression_type; /* 0 deflate, 1 zstd */
	bool has_backing;
	u64 backing_offset;
	char backing_name[QCOW2_NAME_MAX + 1];
	char backing_format[QCOW2_FORMAT_MAX + 1]; /* "": not said */
	u32 bitmap_count;			   /* 0: no extension */
	u64 bitmap_directory_offset, bitmap_directory_bytes;
	u64 extensions_end; /* offset behind the last extension */
};

#define QCOW2_HEADER_MAX (2 * MIB) /* what parse wants to see at most */

/* `bytes` are the first `len` of a file of file_bytes: its first cluster, or
 * all of a shorter file. -EINVAL: no qcow2 image or a damaged one; -ENOTSUP:
 * one with features that we do not have. */
int qcow2_header_parse(const u8 *bytes, size_t len, u64 file_bytes,
		       struct qcow2_header *out, struct err *err);

/* Takes over both nodes, also when it fails. backing is NULL when the image
 * has no backing file, or with how->is_alone. */
int qcow2_open(struct loop *loop, struct block_node *file,
	       struct block_node *backing, const struct block_open *how,
	       struct block_node **out_node, struct err *err);
/* For block_lay_over(). */
bool qcow2_can_lay_over(const struct block_node *node);
void qcow2_lay_over(struct block_node *node, struct block_node *below);
/* The header of an open image: borrowed, valid until it is closed. */
const struct qcow2_header *qcow2_header_of(const struct block_node *node);

/* What an image is made with. Zero means the default where there is one. */
struct qcow2_create {
	u64 size_bytes;
	u32 version;	     /* 2, or 3 */
	u32 cluster_bits;    /* 9 to 21; 16 */
	u32 refcount_bits;   /* 1 to 64; 16 */
	bool is_extended;    /* L2 entries; clusters of 16 KiB and up */
	bool is_lazy;	     /* refcounts: allowed, not used by us */
	u8 compression_type; /* 0 deflate, 1 zstd */
	const char *backing_name, *backing_format; /* NULL: none */
};

/* Writes an empty image into an empty file, which stays the caller's, and
 * makes it durable. -EINVAL: options that do not go together; -EFBIG: more
 * bytes than the clusters can address. */
int qcow2_create(struct loop *loop, struct block_node *file,
		 const struct qcow2_create *o, struct err *err);

/* ---- Tools. On an open node with nothing in flight; they block. ---- */

struct qcow2_check {
	u64 corruptions, leaks; /* found, and not repaired */
	u64 corruptions_fixed, leaks_fixed;
	u64 clusters, allocated, compressed; /* of the disk */
	char first[160]; /* the first corruption, for a person */
	/* Called now and then, may be NULL: 0, or -ECANCELED to stop. */
	int (*progress)(void *opaque, u64 done, u64 total);
	void *opaque;
};

/* Compares the counts of references with the references. With is_repair the
 * node is open for writing: counts and flags are put right and the marks are
 * taken away, when nothing else is wrong. -EFBIG: more clusters than there is
 * memory for. Not 0 only when the check itself could not be made. */
int qcow2_check(struct block_node *node, bool is_repair,
		struct qcow2_check *out, struct err *err);

struct qcow2_snapshot {
	u64 l1_offset;
	u32 l1_entries;
	u64 vm_state_bytes, disk_bytes;
	u64 seconds;		/* since 1970 */
	char id[64], name[256]; /* cut when longer */
};

/* Calls fn for each internal snapshot until it returns other than 0. */
int qcow2_snapshots(struct block_node *node,
		    int (*fn)(void *opaque, const struct qcow2_snapshot *s),
		    void *opaque);

enum qcow2_extent_kind {
	QCOW2_EXTENT_DATA,
	QCOW2_EXTENT_COMPRESSED,
	QCOW2_EXTENT_ZERO,
	QCOW2_EXTENT_NOWHERE, /* in none of the chain's images: zeros */
};

struct qcow2_place {
	u64 bytes;
	enum qcow2_extent_kind kind;
	u32 depth;     /* 0: the image itself */
	u64 file_byte; /* of DATA: where in that image's file */
};

/* What lies at offset, and for how many bytes, at most len. Raw nodes are
 * data all over. -EINVAL: behind the end. */
int qcow2_map_at(struct block_node *node, u64 offset, u64 len,
		 struct qcow2_place *out);

/* Makes the disk larger or smaller; what is added reads as zeros, what is cut
 * off is gone. Durable when it returns. -EFBIG: more than an L1 table of
 * QCOW2_L1_BYTES reaches. */
int qcow2_resize(struct block_node *node, u64 size_bytes, struct err *err);

/* Names another backing file, or none (NULL), in the header; the disk's bytes
 * are the caller's matter. The node itself goes on as it was opened. Durable
 * when it returns. */
int qcow2_set_backing(struct block_node *node, const char *name,
		      const char *format, struct err *err);

/* Writes the whole cluster at offset compressed; bytes behind the disk's end
 * are zeros. 1: it does not become smaller, or has a place already: nothing was
 * done. */
int qcow2_write_packed(struct block_node *node, u64 offset, const u8 *bytes);
