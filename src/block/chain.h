/* SPDX-License-Identifier: Apache-2.0 */
/* For the opener: a disk image and all the files below it, found by the names
 * that the images give, opened and locked.
 *
 * Those names come from a file that someone else may have made. So a format
 * is never guessed, only files and block devices are opened, a file that is
 * there twice ends it, and unless `anywhere` is set a name must lead to a file
 * in the folder of the image that names it, or below.
 */
#pragma once

#include "block/block.h"

#define BLOCK_CHAIN_PATH 4096

struct block_chain {
	size_t count; /* the top first */
	struct block_chain_file {
		int fd;
		char format[16];
		char *path;
	} files[BLOCK_LAYERS_MAX];
};

/* The top is opened with a write lock unless is_read_only, all others with
 * read locks. -EAGAIN and id "image.locked" as from block_open_path(); -ELOOP:
 * an image is below itself, or there are more than BLOCK_LAYERS_MAX; -EACCES:
 * a name that leads elsewhere. Nothing is open when it fails. */
int block_chain_open(const char *path, const char *format, bool is_read_only,
		     bool anywhere, struct block_chain *out, struct err *err);
/* The size of the disk in an image, in bytes, from its first cluster; no lock
 * is needed. */
int block_image_size(int fd, const char *format, u64 *out_bytes,
		     struct err *err);
/* Descriptors that were handed on are set to -1 by who did. */
void block_chain_close(struct block_chain *c);
/* Opens the node of a chain; the descriptors are the node's then. */
int block_chain_node(struct loop *loop, struct block_chain *c,
		     const struct block_open *how, struct block_node **out_node,
		     struct err *err);
