/* SPDX-License-Identifier: Apache-2.0 */
#include "os/fdpass.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

union control {
	char bytes[CMSG_SPACE(sizeof(int) * OS_FDS_MAX)];
	struct cmsghdr align;
};

int os_send_fds(int sock, const void *bytes, size_t len, const int *fds,
		size_t fd_count)
{
	union control control = {0};
	struct iovec iov = {(void *)bytes, len};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	struct cmsghdr *c;
	ssize_t n;

	if (fd_count > OS_FDS_MAX || !len)
		return -EINVAL;
	if (fd_count) {
		msg.msg_control = control.bytes;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * fd_count);
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * fd_count);
		memcpy(CMSG_DATA(c), fds, sizeof(int) * fd_count);
	}
	do {
		n = sendmsg(sock, &msg, MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	return (size_t)n == len ? 0 : -EMSGSIZE;
}

/* Keeps up to fd_cap of the message's descriptors; returns how many came. */
static size_t take_fds(struct msghdr *msg, int *fds, size_t fd_cap)
{
	size_t count = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c;
	     c = CMSG_NXTHDR(msg, c)) {
		size_t n;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < n; i++, count++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			if (count < fd_cap)
				fds[count] = fd;
			else
				close(fd);
		}
	}
	return count;
}

ssize_t os_recv_fds(int sock, void *bytes, size_t cap, int *fds, size_t fd_cap,
		    size_t *out_fd_count)
{
	union control control;
	struct iovec iov = {bytes, cap};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control.bytes,
			     .msg_controllen = sizeof(control)};
	size_t count;
	ssize_t n;

	do {
		n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	count = take_fds(&msg, fds, fd_cap);
	if (count > fd_cap || (msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC))) {
		for (size_t i = 0; i < MIN(count, fd_cap); i++)
			close(fds[i]);
		return -EMSGSIZE;
	}
	*out_fd_count = count;
	return n;
}
