/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY
 *
 * A switch pushes the registers that a call preserves, stores the stack
 * pointer and takes the other one: it looks to both sides like a call that
 * returns. A new stack is laid out as if it had been switched away from at
 * co_first(). Stacks end in an inaccessible page and are kept for the next
 * coroutine; a pool has as many as were ever live at once.
 *
 * The stack that a coroutine goes back to is the one it was entered from,
 * which may be a coroutine's of another pool.
 */
#include "block/co.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/assert.h"

#if defined(__SANITIZE_ADDRESS__)
#define CO_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define CO_ASAN 1
#endif
#endif
#ifdef CO_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

struct co {
	struct list link; /* idle, ready or a queue */
	struct co_pool *pool;
	void *sp;	 /* of the coroutine while it waits */
	void *caller_sp; /* of who entered it while it runs */
	u8 *stack;	 /* the lowest byte: the guard page */
	void (*fn)(void *opaque);
	void *opaque;
	bool has_ended;
	bool is_ready;
	/* AddressSanitizer's view of the two stacks. */
	void *fake, *caller_fake;
	const void *caller_bottom;
	size_t caller_bytes;
};

void co_switch_stacks(void **out_sp, void *sp);
__asm__(".pushsection .text\n"
	".type co_switch_stacks, @function\n"
	"co_switch_stacks:\n"
	"	push %rbp\n"
	"	push %rbx\n"
	"	push %r12\n"
	"	push %r13\n"
	"	push %r14\n"
	"	push %r15\n"
	"	mov %rsp, (%rdi)\n"
	"	mov %rsi, %rsp\n"
	"	pop %r15\n"
	"	pop %r14\n"
	"	pop %r13\n"
	"	pop %r12\n"
	"	pop %rbx\n"
	"	pop %rbp\n"
	"	ret\n"
	".size co_switch_stacks, . - co_switch_stacks\n"
	/* The first switch returns here with the coroutine in r12. */
	".type co_first, @function\n"
	"co_first:\n"
	"	xor %ebp, %ebp\n"
	"	mov %r12, %rdi\n"
	"	call co_main\n"
	"	ud2\n"
	".size co_first, . - co_first\n"
	".popsection\n");
void co_first(void);
void co_main(struct co *co);

static void leave(struct co *co)
{
#ifdef CO_ASAN
	__sanitizer_start_switch_fiber(co->has_ended ? NULL : &co->fake,
				       co->caller_bottom, co->caller_bytes);
#endif
	co_switch_stacks(&co->sp, co->caller_sp);
#ifdef CO_ASAN
	__sanitizer_finish_switch_fiber(co->fake, &co->caller_bottom,
					&co->caller_bytes);
#endif
}

void co_main(struct co *co)
{
#ifdef CO_ASAN
	__sanitizer_finish_switch_fiber(NULL, &co->caller_bottom,
					&co->caller_bytes);
#endif
	co->fn(co->opaque);
	co->has_ended = true;
	leave(co);
}

static void enter(struct co *co)
{
	struct co_pool *p = co->pool;

	p->current = co;
#ifdef CO_ASAN
	__sanitizer_start_switch_fiber(&co->caller_fake, co->stack + PAGE_BYTES,
				       CO_STACK_BYTES);
#endif
	co_switch_stacks(&co->caller_sp, co->sp);
#ifdef CO_ASAN
	__sanitizer_finish_switch_fiber(co->caller_fake, NULL, NULL);
#endif
	p->current = NULL;
	if (co->has_ended) {
		p->live--;
		list_add_tail(&p->idle, &co->link);
	}
}

static void enter_all(struct co_pool *p, struct co *co)
{
	enter(co);
	while (!list_is_empty(&p->ready)) {
		co = list_entry(p->ready.next, struct co, link);
		list_del(&co->link);
		co->is_ready = false;
		enter(co);
	}
}

/* Only mmap, which a sandbox that allows malloc allows. */
static u8 *stack_new(void)
{
	u8 *all = mmap(NULL, PAGE_BYTES + CO_STACK_BYTES, PROT_NONE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (all == MAP_FAILED)
		return NULL;
	if (mmap(all + PAGE_BYTES, CO_STACK_BYTES, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
		 0) == MAP_FAILED) {
		munmap(all, PAGE_BYTES + CO_STACK_BYTES);
		return NULL;
	}
	return all;
}

static struct co *co_get(struct co_pool *p)
{
	struct co *co;

	if (!list_is_empty(&p->idle)) {
		co = list_entry(p->idle.next, struct co, link);
		list_del(&co->link);
		return co;
	}
	co = calloc(1, sizeof(*co));
	if (!co)
		return NULL;
	co->pool = p;
	list_init(&co->link);
	co->stack = stack_new();
	if (!co->stack) {
		free(co);
		return NULL;
	}
	return co;
}

/* Lays out what co_switch_stacks pops. At co_first the stack is aligned to 16
 * bytes, as before any call. */
static void stack_prepare(struct co *co)
{
	void **sp = (void **)(co->stack + PAGE_BYTES + CO_STACK_BYTES);

#ifdef CO_ASAN
	/* The last coroutine's frames never returned. */
	__asan_unpoison_memory_region(co->stack + PAGE_BYTES, CO_STACK_BYTES);
#endif
	*--sp = NULL;
	*--sp = NULL;
	*--sp = (void *)co_first;
	*--sp = NULL; /* rbp */
	*--sp = NULL; /* rbx */
	*--sp = co;   /* r12 */
	*--sp = NULL;
	*--sp = NULL;
	*--sp = NULL;
	co->sp = sp;
}

int co_start(struct co_pool *p, void (*fn)(void *opaque), void *opaque)
{
	struct co *co;

	ASSERT(!p->current);
	co = co_get(p);
	if (!co)
		return -ENOMEM;
	co->fn = fn;
	co->opaque = opaque;
	co->has_ended = false;
	stack_prepare(co);
	p->live++;
	enter_all(p, co);
	return 0;
}

void co_wait(struct co_pool *p)
{
	ASSERT(p->current);
	leave(p->current);
}

void co_wake(struct co_pool *p, struct co *co)
{
	if (!p->current) {
		enter_all(p, co);
		return;
	}
	ASSERT(!co->is_ready && co != p->current);
	co->is_ready = true;
	list_add_tail(&p->ready, &co->link);
}

void co_pool_init(struct co_pool *p)
{
	memset(p, 0, sizeof(*p));
	list_init(&p->idle);
	list_init(&p->ready);
}

void co_pool_fini(struct co_pool *p)
{
	ASSERT(!p->live);
	list_for_each_safe (it, &p->idle) {
		struct co *co = list_entry(it, struct co, link);

		munmap(co->stack, PAGE_BYTES + CO_STACK_BYTES);
		free(co);
	}
	list_init(&p->idle);
}

void co_queue_init(struct co_queue *q)
{
	list_init(&q->waiters);
}

void co_queue_wait(struct co_pool *p, struct co_queue *q)
{
	list_add_tail(&q->waiters, &p->current->link);
	co_wait(p);
}

/* Who waits again while we wake is not woken twice. From the loop's stack the
 * queue itself may be gone when the last one was woken: it is not touched
 * after that. */
void co_queue_wake_all(struct co_pool *p, struct co_queue *q)
{
	struct list woken = LIST_INIT(woken);

	list_for_each_safe (it, &q->waiters) {
		list_del(it);
		list_add_tail(&woken, it);
	}
	while (!list_is_empty(&woken)) {
		struct co *co = list_entry(woken.next, struct co, link);

		list_del(&co->link);
		co_wake(p, co);
	}
}

void co_mutex_init(struct co_mutex *m)
{
	m->is_held = false;
	co_queue_init(&m->queue);
}

void co_mutex_lock(struct co_pool *p, struct co_mutex *m)
{
	while (m->is_held)
		co_queue_wait(p, &m->queue);
	m->is_held = true;
}

void co_mutex_unlock(struct co_pool *p, struct co_mutex *m)
{
	struct co *co;

	ASSERT(m->is_held);
	m->is_held = false;
	if (list_is_empty(&m->queue.waiters))
		return;
	co = list_entry(m->queue.waiters.next, struct co, link);
	list_del(&co->link);
	co_wake(p, co);
}
