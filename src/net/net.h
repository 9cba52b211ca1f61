/* SPDX-License-Identifier: Apache-2.0 */
/* Network backends: what a network device's frames go to.
 *
 * Frames are Ethernet without FCS. Everything is on one loop thread with the
 * device lock held. Receiving is by pull: the backend calls can_receive()
 * before receive(), and the device calls net_backend_resume() when it has
 * buffers again; a backend holds a bounded number of frames and drops beyond
 * it.
 */
#pragma once

#include "base/err.h"
#include "base/types.h"
#include "loop/loop.h"

#define NET_FRAME_MAX (64 * 1024 + 64)

struct net_client_ops { /* implemented by the device */
	bool (*can_receive)(void *opaque);
	/* One frame, gathered by the backend. */
	void (*receive)(void *opaque, const void *frame, size_t len);
};

struct net_backend;
struct net_backend_ops {
	const char *name; /* "user", "tap" */
	/* One frame from the guest; len is 14..NET_FRAME_MAX, others are
	 * dropped. The bytes are a copy: the guest cannot change them. */
	void (*send)(struct net_backend *b, const void *frame, size_t len);
	void (*resume)(struct net_backend *b);
	void (*free)(struct net_backend *b);
};
struct net_backend {
	const struct net_backend_ops *ops;
	const struct net_client_ops *client;
	void *client_opaque;
};

void net_backend_attach(struct net_backend *b, const struct net_client_ops *c,
			void *opaque);
static inline void net_backend_send(struct net_backend *b, const void *frame,
				    size_t len)
{
	b->ops->send(b, frame, len);
}
static inline void net_backend_resume(struct net_backend *b)
{
	b->ops->resume(b);
}
static inline void net_backend_free(struct net_backend *b)
{
	if (b)
		b->ops->free(b);
}

struct net_forward {
	bool is_udp;
	u32 host_addr; /* IPv4, host byte order; 0: loopback */
	u16 host_port, guest_port;
};

/* User-mode NAT (libslirp): 10.0.2.0/24, guest .15, gateway .2, DNS .3. IPv4
 * only. The guest reaches the host's own loopback services at the gateway's
 * address. A forward whose port is taken fails with -EADDRINUSE. */
int net_user_new(struct loop *loop, const struct net_forward *forwards,
		 size_t forward_count, struct net_backend **out,
		 struct err *err);
