/* SPDX-License-Identifier: Apache-2.0 */
/* A machine's own disk, and what it boots: a folder with
 *
 *	0.raw			what the image gave
 *	1.qcow2, 2.qcow2, …	each an overlay of the one before
 *	vmlinuz, initrd.img	the image's, where it has them
 *
 * Only the last layer is ever written, by the machine whose folder it is. All
 * other files are hard links: to the image's, to those of snapshots, clones and
 * forks. Who removes a folder gives back what no other folder names; nobody
 * counts, so nothing can be counted wrong. A last layer that nobody uses and
 * that is empty is what someone left who was killed: it does no harm.
 */
#pragma once

#include "block/chain.h"
#include "cli/image.h"

#define LAYERS_PATH_MAX (OS_PATH_MAX + 256)

/* The path of the last layer and its format. -ENOENT: there is none. */
int layers_top(const char *dir, char *out_path, const char **out_format,
	       struct err *err);
/* The new folder `dir` with an image's files. Copies where the file system has
 * no hard links. */
int layers_from_image(const struct image *im, const char *dir, struct err *err);
/* The new folder `to` with all that `from` has, but not the last layer when
 * `without_top`. `from` is of no running machine, or its last layer is left
 * out. */
int layers_link(const char *from, bool without_top, const char *to,
		struct err *err);
/* Only what it boots. */
int layers_link_boot(const char *from, const char *to, struct err *err);
/* A new empty layer on top, durable. out_fd: its descriptor, locked for
 * writing. -ELOOP: there are too many. */
int layers_add(const char *dir, int *out_fd, struct err *err);
/* Makes one of many: a copy of what all but the first have, in the place of the
 * last. What they were stays in other folders. Of no running machine; nothing
 * is done when there are few. */
int layers_merge(const char *dir, struct err *err);
/* Removes last layers that nobody uses: of a machine that runs. */
void layers_trim(const char *dir);
/* Exchanges the folders, or renames when `dir` is not there. */
int layers_replace(const char *dir, const char *by, struct err *err);
/* Bytes on the disk of files that no other folder names. */
u64 layers_own_bytes(const char *dir);
