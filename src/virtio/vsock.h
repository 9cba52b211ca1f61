/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-vsock (virtio 1.2 §5.10): stream sockets between the guest and host
 * file descriptors.
 *
 * Each connection bridges one non-blocking host stream descriptor, on the
 * home loop, to one guest socket. Memory is bounded: VSOCK_CONNS_MAX
 * connections of VSOCK_BUF_BYTES each. A reset of the device closes all of
 * them; they are not part of a saved state, and a restored guest is told so
 * by a transport reset event.
 */
#pragma once

#include "base/err.h"
#include "virtio/virtio.h"

#define VSOCK_CID_HOST	  2
#define VSOCK_CONNS_MAX	  1024
#define VSOCK_BUF_BYTES	  (256u * 1024)
#define VSOCK_LISTENS_MAX 16

struct vsock;

struct virtio_vsock_config {
	struct virtio_attach at;
	u32 guest_cid; /* 3 .. 0xfffffffe */
};

int virtio_vsock_new(const struct virtio_vsock_config *cfg, struct vsock **out,
		     struct err *err);

/* Connects a guest port to fd, a connected stream socket (one end of a
 * socketpair, say). On success fd is the device's: it is closed when the
 * guest refuses or the connection ends. -ENOTCONN: the guest's driver is not
 * up; -ENOBUFS: too many connections. Device lock held. */
int vsock_connect(struct vsock *d, u32 guest_port, int fd);

/* The guest may connect to host_port: on_accept is given one end of a new
 * socketpair, which it owns. -EADDRINUSE, -ENOSPC. */
int vsock_listen(struct vsock *d, u32 host_port,
		 void (*on_accept)(void *opaque, int fd), void *opaque);
