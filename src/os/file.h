/* SPDX-License-Identifier: Apache-2.0 */
/* Files and where ours are kept. */
#pragma once

#include <sys/types.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/types.h"

#define OS_PATH_MAX 4096

/* Images and machines: $SKERRY_DATA_DIR when set; /var/lib/skerry for root,
 * else $XDG_DATA_HOME/skerry or ~/.local/share/skerry. Writes the path to
 * out[OS_PATH_MAX] and creates the directory. */
int os_data_dir(char *out, struct err *err);
/* Sockets and logs of running machines: $SKERRY_RUN_DIR when set; /run/skerry
 * for root, else $XDG_RUNTIME_DIR/skerry or /tmp/skerry-UID. Created with mode
 * 0700; refused when it is not a directory of ours alone. */
int os_run_dir(char *out, struct err *err);

/* Creates the directory and its parents; existing ones are kept. */
int os_mkdir_p(const char *path, mode_t mode, struct err *err);

/* Replaces the file as a whole: after a crash the old or the new content is
 * there, and it is on disk when the call returns. */
int os_write_file(const char *path, const void *bytes, size_t len, mode_t mode,
		  struct err *err);
/* Appends the file's content to out. -EFBIG when it is larger than max. */
int os_read_file(const char *path, size_t max, struct buf *out,
		 struct err *err);

/* The whole of n bytes, past EINTR and short transfers: 0 or -errno; a read
 * that meets the end of the file is -EIO. */
int os_read_full(int fd, void *bytes, size_t n);
int os_write_full(int fd, const void *bytes, size_t n);
