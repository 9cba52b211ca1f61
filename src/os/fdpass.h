/* SPDX-License-Identifier: Apache-2.0 */
/* Messages with descriptors over a connected AF_UNIX SOCK_SEQPACKET socket
 * (or stream, when both ends keep to one message at a time). The peer is
 * hostile: surplus descriptors are closed, cut messages are refused. */
#pragma once

#include <sys/types.h>

#include "base/types.h"

#define OS_FDS_MAX 8

/* 0 or -errno. The descriptors stay the caller's. len > 0. */
int os_send_fds(int sock, const void *bytes, size_t len, const int *fds,
		size_t fd_count);
/* Returns the length, 0 at the end of the stream, or -errno: -EMSGSIZE when
 * the message is longer than `cap` or carries more than `fd_cap` descriptors
 * (nothing is then kept). The descriptors are close-on-exec and the caller's.
 */
ssize_t os_recv_fds(int sock, void *bytes, size_t cap, int *fds, size_t fd_cap,
		    size_t *out_fd_count);
