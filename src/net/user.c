/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY
 *
 * libslirp wants to be asked, before each wait, which descriptors to watch,
 * and to be told, after it, what they reported. The loop's hook does that:
 * prepare asks (only when something that concerns slirp has happened since),
 * the callbacks of the descriptors collect, check tells.
 *
 *	frame from the guest, descriptor or timer  ->  is_stale  ->  prepare
 *	descriptor or timer                        ->  is_active ->  check
 *
 * A poll entry belongs to one descriptor number, in entries[fd]. slirp
 * announces each close (unregister_poll_fd); the entry goes with it, since the
 * number may be in use again at once.
 *
 * Frames for the guest go through a ring of fixed size, which drops when it is
 * full (TCP sends again), and are handed over in check, never from within a
 * call of the device.
 *
 * Not modelled: IPv6, TCP urgent data, IPv4 fragments from the guest (dropped,
 * see user_send). Source: libslirp 4.7 libslirp.h.
 */
#include <errno.h>
#include <libslirp.h>
#include <netinet/in.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"
#include "net/user_int.h"

#define RING_FRAMES 512
#define FRAME_BYTES 1600 /* slirp's MTU is 1500 */

struct frame {
	u16 len;
	u8 bytes[FRAME_BYTES];
};

struct poll_entry {
	struct loop_fd handle;
	struct user *user;
	u32 revents;
	u32 round; /* the last prepare that asked for it */
};

struct user_timer {
	struct loop_timer timer;
	struct user *user;
	SlirpTimerId id;
	void *opaque;
};

struct user {
	struct net_backend backend;
	struct loop *loop;
	struct loop_hook hook;
	struct loop_timer timeout;
	Slirp *slirp;
	bool is_stale;	/* slirp may want other descriptors */
	bool is_active; /* slirp is to be told */
	u32 round;
	struct poll_entry **entries; /* by descriptor */
	size_t entry_cap;
	struct frame *ring;
	size_t ring_head, ring_count;
};

/* Something happened outside the loop's callbacks. */
static void user_touch(struct user *u)
{
	if (u->is_stale)
		return;
	u->is_stale = true;
	loop_wake(u->loop);
}

/* ---- Descriptors ---- */

static void entry_drop(struct user *u, size_t fd)
{
	if (fd >= u->entry_cap || !u->entries[fd])
		return;
	loop_fd_del(&u->entries[fd]->handle);
	free(u->entries[fd]);
	u->entries[fd] = NULL;
}

static void entry_event(struct loop_fd *h, u32 events)
{
	struct poll_entry *e = container_of(h, struct poll_entry, handle);

	e->revents |= events;
	e->user->is_active = true;
}

static struct poll_entry *entry_get(struct user *u, int fd)
{
	if ((size_t)fd >= u->entry_cap) {
		size_t cap = MAX(2 * u->entry_cap, (size_t)fd + 16);

		u->entries = realloc(u->entries, cap * sizeof(u->entries[0]));
		ASSERT(u->entries);
		memset(u->entries + u->entry_cap, 0,
		       (cap - u->entry_cap) * sizeof(u->entries[0]));
		u->entry_cap = cap;
	}
	if (!u->entries[fd]) {
		u->entries[fd] = calloc(1, sizeof(*u->entries[fd]));
		ASSERT(u->entries[fd]);
		u->entries[fd]->user = u;
	}
	return u->entries[fd];
}

static int add_poll(int fd, int events, void *opaque)
{
	struct user *u = opaque;
	struct poll_entry *e;
	u32 want = (events & SLIRP_POLL_IN ? LOOP_READ : 0) |
		   (events & SLIRP_POLL_OUT ? LOOP_WRITE : 0);

	if (fd < 0)
		return -1;
	e = entry_get(u, fd);
	e->round = u->round;
	e->revents = 0;
	if (e->handle.loop)
		loop_fd_set(&e->handle, want);
	else if (loop_fd_add(u->loop, &e->handle, fd, want, entry_event, e))
		return -1;
	return fd;
}

static int get_revents(int index, void *opaque)
{
	struct user *u = opaque;
	u32 got;

	if (index < 0 || (size_t)index >= u->entry_cap || !u->entries[index])
		return 0;
	got = u->entries[index]->revents;
	return (got & LOOP_READ ? SLIRP_POLL_IN : 0) |
	       (got & LOOP_WRITE ? SLIRP_POLL_OUT : 0) |
	       (got & LOOP_HUP ? SLIRP_POLL_HUP | SLIRP_POLL_ERR : 0);
}

static void user_prepare(struct loop_hook *h)
{
	struct user *u = container_of(h, struct user, hook);
	u32 timeout_ms = UINT32_MAX;

	if (!u->is_stale)
		return;
	u->is_stale = false;
	u->round++;
	slirp_pollfds_fill(u->slirp, &timeout_ms, add_poll, u);
	for (size_t fd = 0; fd < u->entry_cap; fd++)
		if (u->entries[fd] && u->entries[fd]->round != u->round)
			entry_drop(u, fd);
	if (timeout_ms == UINT32_MAX)
		loop_timer_disarm(&u->timeout);
	else
		loop_timer_arm(&u->timeout,
			       clock_mono_ns() + timeout_ms * 1000000ull);
}

static void user_timeout(struct loop_timer *t)
{
	struct user *u = t->opaque;

	u->is_active = true;
}

/* ---- Frames ---- */

/* Hands over what the guest takes. */
static void ring_deliver(struct user *u)
{
	struct net_backend *b = &u->backend;

	while (u->ring_count && b->client &&
	       b->client->can_receive(b->client_opaque)) {
		struct frame *f = &u->ring[u->ring_head];

		/* The frame is out of the ring before the device runs, and its
		 * place is not filled again before we return. */
		u->ring_head = (u->ring_head + 1) % RING_FRAMES;
		u->ring_count--;
		b->client->receive(b->client_opaque, f->bytes, f->len);
	}
}

static ssize_t slirp_send_packet(const void *bytes, size_t len, void *opaque)
{
	struct user *u = opaque;
	struct frame *f;

	/* One place stays free for the frame that is being received. */
	if (len > FRAME_BYTES || u->ring_count == RING_FRAMES - 1)
		return (ssize_t)len; /* dropped */
	f = &u->ring[(u->ring_head + u->ring_count) % RING_FRAMES];
	memcpy(f->bytes, bytes, len);
	f->len = (u16)len;
	u->ring_count++;
	return (ssize_t)len;
}

static void user_check(struct loop_hook *h)
{
	struct user *u = container_of(h, struct user, hook);

	if (u->is_active) {
		u->is_active = false;
		slirp_pollfds_poll(u->slirp, 0, get_revents, u);
		/* prepare runs before the next wait: no wake-up needed. */
		u->is_stale = true;
	}
	ring_deliver(u);
}

/* A piece of an IPv4 datagram: more-fragments set, or an offset (RFC 791
 * §3.1). */
static bool is_fragment(const u8 *frame, size_t len)
{
	return len >= 22 && frame[12] == 0x08 && frame[13] == 0x00 &&
	       ((frame[20] & 0x3f) || frame[21]);
}

static void user_send(struct net_backend *b, const void *frame, size_t len)
{
	struct user *u = container_of(b, struct user, backend);

	/* libslirp 4.7.0 writes through a wild pointer when it puts hostile
	 * fragments together (net_fuzz found it): it never sees any. */
	if (len < 14 || len > NET_FRAME_MAX || is_fragment(frame, len))
		return;
	slirp_input(u->slirp, frame, (int)len);
	user_touch(u);
}

static void user_resume(struct net_backend *b)
{
	struct user *u = container_of(b, struct user, backend);

	if (u->ring_count)
		loop_wake(u->loop);
}

/* ---- What slirp asks of us ---- */

static void slirp_guest_error(const char *msg, void *opaque)
{
	log_guest("network: %s", msg);
}

static int64_t slirp_clock(void *opaque)
{
	return (int64_t)clock_mono_ns();
}

static void user_timer_run(struct loop_timer *t)
{
	struct user_timer *ut = container_of(t, struct user_timer, timer);

	slirp_handle_timer(ut->user->slirp, ut->id, ut->opaque);
	ut->user->is_stale = true;
}

static void *slirp_timer_new(SlirpTimerId id, void *cb_opaque, void *opaque)
{
	struct user_timer *ut = calloc(1, sizeof(*ut));

	ASSERT(ut);
	ut->user = opaque;
	ut->id = id;
	ut->opaque = cb_opaque;
	loop_timer_init(ut->user->loop, &ut->timer, user_timer_run, ut);
	return ut;
}

static void slirp_timer_free(void *timer, void *opaque)
{
	struct user_timer *ut = timer;

	if (!ut)
		return;
	loop_timer_disarm(&ut->timer);
	free(ut);
}

static void slirp_timer_mod(void *timer, int64_t expire_ms, void *opaque)
{
	struct user_timer *ut = timer;

	loop_timer_arm(&ut->timer,
		       expire_ms > 0 ? (u64)expire_ms * 1000000 : 1);
}

static void slirp_register_fd(int fd, void *opaque)
{
}

static void slirp_unregister_fd(int fd, void *opaque)
{
	if (fd >= 0)
		entry_drop(opaque, (size_t)fd);
}

static void slirp_notify(void *opaque)
{
	user_touch(opaque);
}

static const SlirpCb callbacks = {
	.send_packet = slirp_send_packet,
	.guest_error = slirp_guest_error,
	.clock_get_ns = slirp_clock,
	.timer_free = slirp_timer_free,
	.timer_mod = slirp_timer_mod,
	.register_poll_fd = slirp_register_fd,
	.unregister_poll_fd = slirp_unregister_fd,
	.notify = slirp_notify,
	.timer_new_opaque = slirp_timer_new,
};

/* ---- Open and close ---- */

static void user_free(struct net_backend *b)
{
	struct user *u = container_of(b, struct user, backend);

	loop_hook_del(&u->hook);
	loop_timer_disarm(&u->timeout);
	for (size_t fd = 0; fd < u->entry_cap; fd++)
		entry_drop(u, fd);
	if (u->slirp)
		slirp_cleanup(u->slirp);
	free(u->entries);
	free(u->ring);
	free(u);
}

static const struct net_backend_ops user_ops = {"user", user_send, user_resume,
						user_free};

static struct in_addr ipv4(u32 addr)
{
	return (struct in_addr){.s_addr = htonl(addr)};
}

static int forward_add(struct user *u, const struct net_forward *f,
		       struct err *err)
{
	u32 addr = f->host_addr ? f->host_addr : INADDR_LOOPBACK;
	int rc;

	if (!f->host_port || !f->guest_port)
		return err_set(err, -EINVAL, "port 0 cannot be forwarded");
	errno = 0;
	if (!slirp_add_hostfwd(u->slirp, f->is_udp, ipv4(addr), f->host_port,
			       ipv4(0x0a00020f), f->guest_port))
		return 0;
	rc = errno ? -errno : -EADDRINUSE;
	if (rc == -EADDRINUSE)
		err_set(err, rc, "port %u is in use", f->host_port);
	else
		err_sys(err, rc, "forward port %u", f->host_port);
	err_set_id(err, "network.forward");
	return rc;
}

int user_open(struct loop *loop, const struct user_options *how,
	      struct net_backend **out, struct err *err)
{
	SlirpConfig cfg = {
		.version = 4,
		.restricted = how->is_restricted,
		.in_enabled = true,
		.vnetwork = ipv4(0x0a000200),
		.vnetmask = ipv4(0xffffff00),
		.vhost = ipv4(0x0a000202),
		.vnameserver = ipv4(0x0a000203),
		.vdhcp_start = ipv4(0x0a00020f),
	};
	struct user *u = calloc(1, sizeof(*u));
	int rc;

	ASSERT(u);
	u->backend.ops = &user_ops;
	u->loop = loop;
	u->is_stale = true;
	u->ring = calloc(RING_FRAMES, sizeof(u->ring[0]));
	ASSERT(u->ring);
	u->hook.prepare = user_prepare;
	u->hook.check = user_check;
	loop_hook_add(loop, &u->hook);
	loop_timer_init(loop, &u->timeout, user_timeout, u);
	u->slirp = slirp_new(&cfg, &callbacks, u);
	if (!u->slirp) {
		user_free(&u->backend);
		return err_set(err, -EINVAL, "start user-mode networking");
	}
	for (size_t i = 0; i < how->forward_count; i++) {
		rc = forward_add(u, &how->forwards[i], err);
		if (rc) {
			user_free(&u->backend);
			return rc;
		}
	}
	*out = &u->backend;
	return 0;
}

int net_user_new(struct loop *loop, const struct net_forward *forwards,
		 size_t forward_count, struct net_backend **out,
		 struct err *err)
{
	struct user_options how = {.forwards = forwards,
				   .forward_count = forward_count};

	return user_open(loop, &how, out, err);
}
