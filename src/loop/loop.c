/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY
 *
 * One epoll set. Besides the callers' descriptors it holds an eventfd, which
 * posts and loop_wake() signal, and a timerfd, which stands at or before the
 * earliest deadline.
 *
 * epoll gives back a slot number and a generation, not a pointer: an event
 * that was fetched before its handle was removed (by an earlier callback, or by
 * another thread under the lock) finds a newer generation and is dropped.
 *
 * Timers are a binary heap. Arming a timer earlier than the timerfd's setting
 * sets the timerfd, which also wakes a loop that sleeps in another thread.
 * Disarming leaves it: the loop then wakes once for nothing, and sets it to
 * what is now the earliest.
 *
 * Everything but the posts is guarded by the caller's lock (loop_set_lock), or
 * belongs to the loop's thread when there is none. Posts have their own mutex.
 */
#include "loop/loop.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/clock.h"

#define EVENTS_PER_ROUND 64
#define SLOT_WAKE	 UINT64_MAX
#define SLOT_TIMER	 (UINT64_MAX - 1)
#define HEAP_NONE	 SIZE_MAX

struct fd_slot {
	struct loop_fd *h; /* NULL: free */
	u32 generation;
	u32 next_free;
};

struct post {
	void (*fn)(void *opaque);
	void *opaque;
};

struct post_queue {
	struct post *posts;
	size_t count;
	size_t cap;
};

struct loop {
	int epoll_fd, wake_fd, timer_fd;
	pthread_mutex_t *lock; /* NULL: none */
	atomic_bool stop;

	struct fd_slot *slots;
	u32 slot_count;
	u32 free_slot; /* slot_count: none */

	struct loop_timer **heap;
	size_t heap_count;
	size_t heap_cap;
	u64 timer_fd_ns; /* what the timerfd is set to; 0: nothing */

	struct list hooks;

	pthread_mutex_t post_lock;
	struct post_queue posts;   /* under post_lock */
	struct post_queue running; /* the loop's thread */
};

static void lock(struct loop *loop)
{
	if (loop->lock)
		pthread_mutex_lock(loop->lock);
}

static void unlock(struct loop *loop)
{
	if (loop->lock)
		pthread_mutex_unlock(loop->lock);
}

static int epoll_change(struct loop *loop, int op, int fd, u32 events, u64 key)
{
	struct epoll_event ev = {.events = events, .data.u64 = key};

	return epoll_ctl(loop->epoll_fd, op, fd, &ev) < 0 ? -errno : 0;
}

struct loop *loop_new(struct err *err)
{
	struct loop *loop = calloc(1, sizeof(*loop));
	int rc = 0;

	ASSERT(loop);
	list_init(&loop->hooks);
	pthread_mutex_init(&loop->post_lock, NULL);
	loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	loop->timer_fd =
		timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (loop->epoll_fd < 0 || loop->wake_fd < 0 || loop->timer_fd < 0)
		rc = -errno;
	if (!rc)
		rc = epoll_change(loop, EPOLL_CTL_ADD, loop->wake_fd, EPOLLIN,
				  SLOT_WAKE);
	if (!rc)
		rc = epoll_change(loop, EPOLL_CTL_ADD, loop->timer_fd, EPOLLIN,
				  SLOT_TIMER);
	if (rc) {
		err_sys(err, rc, "create an event loop");
		loop_free(loop);
		return NULL;
	}
	return loop;
}

static void close_if_open(int fd)
{
	if (fd >= 0)
		close(fd);
}

void loop_free(struct loop *loop)
{
	if (!loop)
		return;
	for (u32 i = 0; i < loop->slot_count; i++)
		if (loop->slots[i].h)
			loop->slots[i].h->loop = NULL;
	for (size_t i = 0; i < loop->heap_count; i++) {
		loop->heap[i]->deadline_ns = 0;
		loop->heap[i]->heap_index = HEAP_NONE;
	}
	close_if_open(loop->epoll_fd);
	close_if_open(loop->wake_fd);
	close_if_open(loop->timer_fd);
	free(loop->slots);
	free(loop->heap);
	free(loop->posts.posts);
	free(loop->running.posts);
	pthread_mutex_destroy(&loop->post_lock);
	free(loop);
}

void loop_set_lock(struct loop *loop, pthread_mutex_t *mutex)
{
	loop->lock = mutex;
}

void loop_wake(struct loop *loop)
{
	u64 one = 1;

	/* EAGAIN: the counter is full, so the loop wakes anyway. */
	while (write(loop->wake_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

void loop_stop(struct loop *loop)
{
	atomic_store(&loop->stop, true);
	loop_wake(loop);
}

static void drain_counter(int fd)
{
	u64 count;

	/* Non-blocking; nothing there is fine. */
	while (read(fd, &count, sizeof(count)) < 0 && errno == EINTR)
		;
}

/* ---- Descriptors ---- */

static u32 to_epoll(u32 events)
{
	return (events & LOOP_READ ? EPOLLIN : 0) |
	       (events & LOOP_WRITE ? EPOLLOUT : 0);
}

static u32 from_epoll(u32 events)
{
	return (events & EPOLLIN ? LOOP_READ : 0) |
	       (events & EPOLLOUT ? LOOP_WRITE : 0) |
	       (events & (EPOLLHUP | EPOLLERR) ? LOOP_HUP : 0);
}

static u64 slot_key(const struct loop *loop, u32 slot)
{
	return ((u64)loop->slots[slot].generation << 32) | slot;
}

static void slots_grow(struct loop *loop)
{
	u32 n = loop->slot_count ? 2 * loop->slot_count : 16;
	struct fd_slot *slots = realloc(loop->slots, n * sizeof(slots[0]));

	ASSERT(slots);
	for (u32 i = loop->slot_count; i < n; i++)
		slots[i] = (struct fd_slot){.next_free = i + 1};
	/* The list was empty: its end mark is the first new slot. */
	loop->slots = slots;
	loop->slot_count = n;
}

int loop_fd_add(struct loop *loop, struct loop_fd *h, int fd, u32 events,
		void (*fn)(struct loop_fd *h, u32 events), void *opaque)
{
	u32 slot;
	int rc;

	if (loop->free_slot == loop->slot_count)
		slots_grow(loop);
	slot = loop->free_slot;
	rc = epoll_change(loop, EPOLL_CTL_ADD, fd, to_epoll(events),
			  slot_key(loop, slot));
	if (rc)
		return rc;
	loop->free_slot = loop->slots[slot].next_free;
	loop->slots[slot].h = h;
	*h = (struct loop_fd){.loop = loop,
			      .fd = fd,
			      .events = events,
			      .slot = slot,
			      .fn = fn,
			      .opaque = opaque};
	return 0;
}

void loop_fd_set(struct loop_fd *h, u32 events)
{
	ASSERT(h->loop);
	if (h->events == events)
		return;
	h->events = events;
	/* Fails only when the owner closed the fd first: no events then. */
	(void)epoll_change(h->loop, EPOLL_CTL_MOD, h->fd, to_epoll(events),
			   slot_key(h->loop, h->slot));
}

void loop_fd_del(struct loop_fd *h)
{
	struct loop *loop = h->loop;
	struct fd_slot *s;

	if (!loop)
		return;
	s = &loop->slots[h->slot];
	ASSERT(s->h == h);
	(void)epoll_change(loop, EPOLL_CTL_DEL, h->fd, 0, 0);
	s->h = NULL;
	s->generation++;
	s->next_free = loop->free_slot;
	loop->free_slot = h->slot;
	h->loop = NULL;
}

static int run_fd(struct loop *loop, const struct epoll_event *ev)
{
	u32 slot = (u32)ev->data.u64;
	struct loop_fd *h;
	u32 events;
	int n = 0;

	lock(loop);
	h = slot < loop->slot_count && slot_key(loop, slot) == ev->data.u64
		    ? loop->slots[slot].h
		    : NULL;
	if (h) {
		events = from_epoll(ev->events) & (h->events | LOOP_HUP);
		if (events) {
			h->fn(h, events);
			n = 1;
		}
	}
	unlock(loop);
	return n;
}

/* ---- Timers ---- */

static void heap_put(struct loop *loop, size_t i, struct loop_timer *t)
{
	loop->heap[i] = t;
	t->heap_index = i;
}

/* Moves heap[i] to its place. */
static void heap_fix(struct loop *loop, size_t i)
{
	struct loop_timer *t = loop->heap[i];

	while (i > 0 && loop->heap[(i - 1) / 2]->deadline_ns > t->deadline_ns) {
		heap_put(loop, i, loop->heap[(i - 1) / 2]);
		i = (i - 1) / 2;
	}
	for (;;) {
		size_t child = 2 * i + 1;

		if (child >= loop->heap_count)
			break;
		if (child + 1 < loop->heap_count &&
		    loop->heap[child + 1]->deadline_ns <
			    loop->heap[child]->deadline_ns)
			child++;
		if (loop->heap[child]->deadline_ns >= t->deadline_ns)
			break;
		heap_put(loop, i, loop->heap[child]);
		i = child;
	}
	heap_put(loop, i, t);
}

static void heap_remove(struct loop *loop, struct loop_timer *t)
{
	size_t i = t->heap_index;
	struct loop_timer *last = loop->heap[--loop->heap_count];

	t->heap_index = HEAP_NONE;
	t->deadline_ns = 0;
	if (last == t)
		return;
	heap_put(loop, i, last);
	heap_fix(loop, i);
}

static void timer_fd_set(struct loop *loop, u64 deadline_ns)
{
	struct itimerspec its = {0};

	its.it_value.tv_sec = (time_t)(deadline_ns / NS_PER_SEC);
	its.it_value.tv_nsec = (long)(deadline_ns % NS_PER_SEC);
	/* Fails only on a malformed time, which this is not. */
	ASSERT(!timerfd_settime(loop->timer_fd, TFD_TIMER_ABSTIME, &its, NULL));
	loop->timer_fd_ns = deadline_ns;
}

void loop_timer_init(struct loop *loop, struct loop_timer *t,
		     void (*fn)(struct loop_timer *t), void *opaque)
{
	*t = (struct loop_timer){.loop = loop,
				 .heap_index = HEAP_NONE,
				 .fn = fn,
				 .opaque = opaque};
}

void loop_timer_arm(struct loop_timer *t, u64 deadline_ns)
{
	struct loop *loop = t->loop;

	/* 0 means unarmed, here and for the timerfd; INT64_MAX ns is in 292
	 * years, and more does not fit its seconds on every host. */
	deadline_ns = MAX(MIN(deadline_ns, (u64)INT64_MAX), 1);
	if (t->heap_index == HEAP_NONE) {
		if (loop->heap_count == loop->heap_cap) {
			loop->heap_cap =
				loop->heap_cap ? 2 * loop->heap_cap : 16;
			loop->heap =
				realloc(loop->heap,
					loop->heap_cap * sizeof(*loop->heap));
			ASSERT(loop->heap);
		}
		heap_put(loop, loop->heap_count++, t);
	}
	t->deadline_ns = deadline_ns;
	heap_fix(loop, t->heap_index);
	if (!loop->timer_fd_ns || deadline_ns < loop->timer_fd_ns)
		timer_fd_set(loop, deadline_ns);
}

void loop_timer_disarm(struct loop_timer *t)
{
	if (t->loop && t->heap_index != HEAP_NONE)
		heap_remove(t->loop, t);
}

static int run_timers(struct loop *loop)
{
	u64 now = clock_mono_ns();
	size_t most;
	int n = 0;

	lock(loop);
	/* A timer that re-arms itself in the past must not hold the round. */
	most = loop->heap_count;
	while (n < most && loop->heap_count &&
	       loop->heap[0]->deadline_ns <= now) {
		struct loop_timer *t = loop->heap[0];

		heap_remove(loop, t);
		t->fn(t);
		n++;
		unlock(loop); /* others get a turn */
		lock(loop);
	}
	/* The timerfd fired or stands too early: set it to what is next. */
	if (loop->timer_fd_ns &&
	    (!loop->heap_count || loop->timer_fd_ns <= now))
		timer_fd_set(loop,
			     loop->heap_count ? loop->heap[0]->deadline_ns : 0);
	unlock(loop);
	return n;
}

/* ---- Posts ---- */

void loop_post(struct loop *loop, void (*fn)(void *opaque), void *opaque)
{
	struct post_queue *q = &loop->posts;
	bool was_empty;

	pthread_mutex_lock(&loop->post_lock);
	was_empty = !q->count;
	if (q->count == q->cap) {
		q->cap = q->cap ? 2 * q->cap : 32;
		q->posts = realloc(q->posts, q->cap * sizeof(q->posts[0]));
		ASSERT(q->posts);
	}
	q->posts[q->count++] = (struct post){fn, opaque};
	pthread_mutex_unlock(&loop->post_lock);
	if (was_empty)
		loop_wake(loop);
}

static int run_posts(struct loop *loop)
{
	struct post_queue q;

	pthread_mutex_lock(&loop->post_lock);
	q = loop->posts;
	loop->posts = loop->running;
	loop->posts.count = 0;
	loop->running = q;
	pthread_mutex_unlock(&loop->post_lock);
	for (size_t i = 0; i < q.count; i++) {
		lock(loop);
		q.posts[i].fn(q.posts[i].opaque);
		unlock(loop);
	}
	return (int)q.count;
}

/* ---- Rounds ---- */

void loop_hook_add(struct loop *loop, struct loop_hook *h)
{
	list_add_tail(&loop->hooks, &h->link);
}

void loop_hook_del(struct loop_hook *h)
{
	list_del(&h->link);
}

static void run_hooks(struct loop *loop, bool is_prepare)
{
	lock(loop);
	list_for_each_safe (it, &loop->hooks) {
		struct loop_hook *h = list_entry(it, struct loop_hook, link);
		void (*fn)(struct loop_hook * h) =
			is_prepare ? h->prepare : h->check;

		if (fn)
			fn(h);
	}
	unlock(loop);
}

int loop_run_once(struct loop *loop, int timeout_ms)
{
	struct epoll_event events[EVENTS_PER_ROUND];
	int count, n = 0;

	run_hooks(loop, true);
	count = epoll_wait(loop->epoll_fd, events, EVENTS_PER_ROUND,
			   timeout_ms);
	for (int i = 0; i < count; i++) {
		if (events[i].data.u64 == SLOT_WAKE)
			drain_counter(loop->wake_fd);
		else if (events[i].data.u64 == SLOT_TIMER)
			drain_counter(loop->timer_fd);
		else
			n += run_fd(loop, &events[i]);
	}
	n += run_timers(loop);
	n += run_posts(loop);
	run_hooks(loop, false);
	return n;
}

void loop_run(struct loop *loop)
{
	while (!atomic_exchange(&loop->stop, false))
		loop_run_once(loop, -1);
}
