/* SPDX-License-Identifier: Apache-2.0 */
/* An event loop: file descriptors, timers and posted calls, on one thread.
 *
 * Two nouns: a *handle* (struct loop_fd, struct loop_timer) that the caller
 * embeds and that must stay in place while it is active, and a *post*, a call
 * queued from any thread. Only loop_post, loop_wake and loop_stop may be called
 * from other threads; with loop_set_lock() so may the calls on fds and timers,
 * by who holds that lock. Callbacks run without re-entrancy. With
 * loop_set_lock() the loop holds that mutex around every callback: the
 * machine's device lock. A handle may be removed from its own callback.
 */
#pragma once

#include <pthread.h>

#include "base/err.h"
#include "base/list.h"
#include "base/types.h"

struct loop;

struct loop *loop_new(struct err *err);
void loop_free(struct loop *loop);
/* Runs callbacks until loop_stop. */
void loop_run(struct loop *loop);
/* One round: waits at most timeout_ms (-1: no limit), returns the number of
 * callbacks run. */
int loop_run_once(struct loop *loop, int timeout_ms);
void loop_stop(struct loop *loop);
/* Makes the loop go through one more round. Any thread. */
void loop_wake(struct loop *loop);
void loop_set_lock(struct loop *loop, pthread_mutex_t *lock);

#define LOOP_READ  1u
#define LOOP_WRITE 2u
#define LOOP_HUP   4u /* reported, never asked for: error or hang-up */

struct loop_fd {
	struct loop *loop; /* NULL while inactive */
	int fd;		   /* borrowed */
	u32 events;
	u32 slot; /* private to the loop */
	void (*fn)(struct loop_fd *h, u32 events);
	void *opaque;
};

/* events may be 0: only LOOP_HUP is then reported. 0 or -errno. */
int loop_fd_add(struct loop *loop, struct loop_fd *h, int fd, u32 events,
		void (*fn)(struct loop_fd *h, u32 events), void *opaque);
void loop_fd_set(struct loop_fd *h, u32 events);
void loop_fd_del(struct loop_fd *h); /* harmless when inactive */

struct loop_timer {
	struct loop *loop;
	u64 deadline_ns; /* CLOCK_MONOTONIC; 0 while unarmed */
	size_t heap_index;
	void (*fn)(struct loop_timer *t);
	void *opaque;
};

void loop_timer_init(struct loop *loop, struct loop_timer *t,
		     void (*fn)(struct loop_timer *t), void *opaque);
/* One-shot; re-arming moves it. From another thread use loop_post, except
 * where loop_set_lock is in use and the caller holds that lock: then arming
 * is allowed from any thread and wakes the loop when needed. */
void loop_timer_arm(struct loop_timer *t, u64 deadline_ns);
void loop_timer_disarm(struct loop_timer *t);

/* Queues fn(opaque) on the loop's thread. Any thread. Order is kept. */
void loop_post(struct loop *loop, void (*fn)(void *opaque), void *opaque);

/* A hook brackets each wait: for event sources of libraries that list their
 * descriptors anew each time. prepare runs before the wait and may change fds
 * and timers; check runs after the fds and timers of the round. Either may be
 * NULL. A hook may not be removed from another hook's callback. */
struct loop_hook {
	struct list link;
	void (*prepare)(struct loop_hook *h);
	void (*check)(struct loop_hook *h);
};
void loop_hook_add(struct loop *loop, struct loop_hook *h);
void loop_hook_del(struct loop_hook *h);
