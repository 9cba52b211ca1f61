/* SPDX-License-Identifier: Apache-2.0 */
/* An image file that a verb has open, and how it says how far it is. */
#pragma once

#include <signal.h>

#include "block/chain.h"
#include "block/qcow2.h"
#include "cli/image_file_options.h"

struct image_file {
	struct loop *loop;
	struct block_chain
		chain; /* paths and formats; the node has the files */
	struct block_node *node;
};

/* The format that was given, else qcow2 for names that end so, else raw: what
 * the file says is not looked at. */
const char *image_file_format(const char *format, const char *path);
/* Opens path and, unless how->is_alone, what is below it. */
int image_file_open(const char *path, const struct image_file_options *o,
		    const struct block_open *how, struct image_file *out,
		    struct err *err);
void image_file_close(struct image_file *f);
/* Makes a new empty image; path must not be there. */
int image_file_create(const char *path, const char *format, u64 size_bytes,
		      const struct image_file_options *o, struct err *err);

/* Writes what the overlays of a chain have over its last file into another
 * image of the disk, which has what that file has. Shows how far it is; can be
 * cancelled. Durable when it returns. */
int image_merge(const char *top, const char *dest, const char *dest_format,
		struct err *err);

/* How many bytes of two disks of one format differ, in units of 4 KiB. */
int image_diff_bytes(const char *a, const char *b, const char *format,
		     u64 *out_bytes, struct err *err);

/* Between begin and end, SIGINT and SIGTERM make image_progress return
 * -ECANCELED instead of ending the process. */
struct image_progress {
	sigset_t old;
	int percent; /* shown last */
	bool is_shown;
};
void image_progress_begin(struct image_progress *p);
int image_progress(void *opaque, u64 done, u64 total);
void image_progress_end(struct image_progress *p);
