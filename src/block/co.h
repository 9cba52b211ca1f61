/* SPDX-License-Identifier: Apache-2.0 */
/* Coroutines: straight-line code that waits for disks, on one thread.
 *
 * A coroutine runs on a stack of its own until it waits; the loop goes on, and
 * whoever has what it waits for wakes it. All calls of one pool are on one
 * thread. Between two waits a coroutine is alone: what it reads and writes
 * without waiting needs no lock. A pool's coroutine may submit to a node that
 * has another pool; it never drains a node.
 */
#pragma once

#include "base/list.h"
#include "base/types.h"

#define CO_STACK_BYTES (128 * KIB)

struct co;

struct co_pool {
	struct co *current; /* NULL: the loop's stack runs */
	struct list idle;   /* stacks to use again */
	struct list ready;  /* woken from a coroutine */
	unsigned live;	    /* started and not ended */
};

void co_pool_init(struct co_pool *p);
/* Nothing is live. */
void co_pool_fini(struct co_pool *p);
/* Runs fn(opaque) up to its first wait. Not from a coroutine of this pool.
 * -ENOMEM: nothing ran. */
int co_start(struct co_pool *p, void (*fn)(void *opaque), void *opaque);
/* Gives up the thread until a co_wake of the caller. */
void co_wait(struct co_pool *p);
/* Lets a waiting coroutine go on: at once from the loop's stack, else when
 * the running one waits or ends. */
void co_wake(struct co_pool *p, struct co *co);

/* Who waits for an event, in order. */
struct co_queue {
	struct list waiters;
};
void co_queue_init(struct co_queue *q);
void co_queue_wait(struct co_pool *p, struct co_queue *q);
void co_queue_wake_all(struct co_pool *p, struct co_queue *q);

/* Held across waits; not recursive. */
struct co_mutex {
	bool is_held;
	struct co_queue queue;
};
void co_mutex_init(struct co_mutex *m);
void co_mutex_lock(struct co_pool *p, struct co_mutex *m);
void co_mutex_unlock(struct co_pool *p, struct co_mutex *m);
