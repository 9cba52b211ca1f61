/* SPDX-License-Identifier: Apache-2.0 */
/* The image store: DATA/images/NAME/{disk.raw, vmlinuz, initrd.img,
 * image.json}; NAME has one slash ("debian/12") or none. */
#pragma once

#include "base/err.h"
#include "base/types.h"
#include "os/file.h"

struct image {
	char dir[OS_PATH_MAX];
	char disk[OS_PATH_MAX + 16];
	char kernel[OS_PATH_MAX + 16]; /* "" for none */
	char initrd[OS_PATH_MAX + 16];
};

/* DATA/images, created. */
int image_root(char *out, struct err *err);
bool image_name_is_valid(const char *name);
/* -ENOENT with the id "image.missing" when there is none of that name. */
int image_find(const char *name, struct image *out, struct err *err);

/* Opens a disk file and takes an OFD lock: a write lock when writable, else a
 * read lock. -EAGAIN with the id "image.locked" when it is in use. */
int image_open_disk(const char *path, bool is_read_only, int *out_fd,
		    struct err *err);
/* Copies src to dst (which must not exist): by reflink, else only what is
 * not a hole. Nothing is left when it fails. */
int image_copy(const char *src, const char *dst, struct err *err);
/* The same of a file that a machine has locked and does not change now. */
int image_copy_in_use(const char *src, const char *dst, struct err *err);
/* Removes a folder and what is in it. */
int image_remove_tree(const char *path, struct err *err);
