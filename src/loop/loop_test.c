/* SPDX-License-Identifier: Apache-2.0 */
#include "loop/loop.h"
#include "base/clock.h"
#include "test/test.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

static struct loop *new_loop(void)
{
	struct loop *l = loop_new(NULL);

	assert_non_null(l);
	return l;
}

static void note_events(struct loop_fd *h, u32 events)
{
	*(u32 *)h->opaque = events;
}

static void fd_reports_what_was_asked_for(void **state)
{
	struct loop *l = new_loop();
	struct loop_fd h;
	u32 got = 0;
	char c;
	int sv[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
	assert_int_equal(
		loop_fd_add(l, &h, sv[0], LOOP_READ, note_events, &got), 0);
	assert_int_equal(loop_run_once(l, 0), 0);
	assert_int_equal(write(sv[1], "x", 1), 1);
	assert_int_equal(loop_run_once(l, 1000), 1);
	assert_int_equal(got, LOOP_READ);
	loop_fd_set(&h, LOOP_READ | LOOP_WRITE);
	assert_int_equal(loop_run_once(l, 1000), 1);
	assert_int_equal(got, LOOP_READ | LOOP_WRITE);
	loop_fd_set(&h, 0);
	assert_int_equal(loop_run_once(l, 0), 0);
	assert_int_equal(read(sv[0], &c, 1), 1);
	close(sv[1]);
	assert_int_equal(loop_run_once(l, 1000), 1);
	assert_int_equal(got, LOOP_HUP);
	loop_fd_del(&h);
	loop_fd_del(&h);
	assert_int_equal(loop_run_once(l, 0), 0);
	close(sv[0]);
	loop_free(l);
}

static void fd_that_cannot_be_polled_is_refused(void **state)
{
	struct loop *l = new_loop();
	struct loop_fd h = {0};

	(void)state;
	assert_int_equal(loop_fd_add(l, &h, -1, LOOP_READ, note_events, NULL),
			 -EBADF);
	assert_null(h.loop);
	loop_free(l);
}

struct pair {
	struct loop_fd h[2];
	int calls;
};
static void remove_both(struct loop_fd *h, u32 events)
{
	struct pair *p = h->opaque;

	p->calls++;
	loop_fd_del(&p->h[0]);
	loop_fd_del(&p->h[1]);
}

static void handle_removed_by_an_earlier_callback_is_not_called(void **state)
{
	struct loop *l = new_loop();
	struct pair p = {.calls = 0};
	int fd[2][2];

	(void)state;
	for (int i = 0; i < 2; i++) {
		assert_int_equal(pipe(fd[i]), 0);
		assert_int_equal(write(fd[i][1], "x", 1), 1);
		assert_int_equal(loop_fd_add(l, &p.h[i], fd[i][0], LOOP_READ,
					     remove_both, &p),
				 0);
	}
	assert_int_equal(loop_run_once(l, 1000), 1);
	assert_int_equal(p.calls, 1);
	for (int i = 0; i < 2; i++) {
		close(fd[i][0]);
		close(fd[i][1]);
	}
	loop_free(l);
}

static void many_fds_are_all_served(void **state)
{
	struct loop *l = new_loop();
	struct loop_fd h[100];
	u32 got[100] = {0};
	int fd[2], n = 0;

	(void)state;
	assert_int_equal(pipe(fd), 0);
	assert_int_equal(write(fd[1], "x", 1), 1);
	for (int i = 0; i < 100; i++)
		assert_int_equal(loop_fd_add(l, &h[i], dup(fd[0]), LOOP_READ,
					     note_events, &got[i]),
				 0);
	for (int i = 0; i < 4; i++)
		n += loop_run_once(l, 0);
	assert_true(n >= 200);
	for (int i = 0; i < 100; i++) {
		assert_int_equal(got[i], LOOP_READ);
		loop_fd_del(&h[i]);
		close(h[i].fd);
	}
	close(fd[0]);
	close(fd[1]);
	loop_free(l);
}

struct order {
	int seen[64];
	int n;
	struct loop_timer t[64];
};
static void note_timer(struct loop_timer *t)
{
	struct order *o = t->opaque;

	assert_int_equal(t->deadline_ns, 0);
	o->seen[o->n++] = (int)(t - o->t);
}

static void timers_run_in_order_of_deadline(void **state)
{
	struct loop *l = new_loop();
	struct order o = {.n = 0};

	(void)state;
	for (int i = 0; i < 64; i++) {
		loop_timer_init(l, &o.t[i], note_timer, &o);
		loop_timer_arm(&o.t[i], 1000 + (u64)(i * 37 % 64));
	}
	for (int i = 0; i < 64; i += 2)
		loop_timer_disarm(&o.t[i]);
	loop_timer_arm(&o.t[0], 5000);
	loop_timer_arm(&o.t[1], 0); /* at once, not never */
	assert_int_equal(loop_run_once(l, 1000), 33);
	assert_int_equal(o.seen[0], 1);
	assert_int_equal(o.seen[32], 0);
	for (int i = 2; i < 32; i++)
		assert_true(o.seen[i - 1] * 37 % 64 < o.seen[i] * 37 % 64);
	assert_int_equal(loop_run_once(l, 0), 0);
	loop_free(l);
}

static void timer_never_runs_early_and_moves_when_rearmed(void **state)
{
	struct loop *l = new_loop();
	struct order o = {.n = 0};
	u64 start = clock_mono_ns();
	u64 when = start + 3000000;

	(void)state;
	loop_timer_init(l, &o.t[0], note_timer, &o);
	loop_timer_init(l, &o.t[1], note_timer, &o);
	loop_timer_arm(&o.t[0], start + 1000000);
	loop_timer_arm(&o.t[0], when);
	loop_timer_arm(&o.t[1], UINT64_MAX);
	while (!o.n)
		loop_run_once(l, 1000);
	assert_true(clock_mono_ns() >= when);
	assert_int_equal(o.seen[0], 0);
	loop_timer_disarm(&o.t[1]);
	loop_timer_disarm(&o.t[1]);
	loop_free(l);
}

static void rearm_now(struct loop_timer *t)
{
	loop_timer_arm(t, 1);
}

static void timer_rearmed_in_the_past_does_not_hold_the_round(void **state)
{
	struct loop *l = new_loop();
	struct loop_timer t;

	(void)state;
	loop_timer_init(l, &t, rearm_now, NULL);
	loop_timer_arm(&t, 1);
	assert_int_equal(loop_run_once(l, 1000), 1);
	assert_int_equal(loop_run_once(l, 1000), 1);
	loop_timer_disarm(&t);
	loop_free(l);
}

struct poster {
	struct loop *l;
	int next;
	bool in_order;
};
static struct poster poster;
static void expect_next(void *opaque)
{
	if ((int)(intptr_t)opaque != poster.next++)
		poster.in_order = false;
	if (poster.next == 1000)
		loop_stop(poster.l);
}
static void *post_thousand(void *opaque)
{
	for (intptr_t i = 0; i < 1000; i++)
		loop_post(opaque, expect_next, (void *)i);
	return NULL;
}

static void posts_from_another_thread_keep_their_order(void **state)
{
	pthread_t t;

	(void)state;
	poster = (struct poster){new_loop(), 0, true};
	assert_int_equal(pthread_create(&t, NULL, post_thousand, poster.l), 0);
	loop_run(poster.l);
	pthread_join(t, NULL);
	assert_int_equal(poster.next, 1000);
	assert_true(poster.in_order);
	loop_free(poster.l);
}

static void stop_before_run_is_kept(void **state)
{
	struct loop *l = new_loop();

	(void)state;
	loop_stop(l);
	loop_run(l);
	loop_free(l);
}

struct armer {
	struct loop *l;
	pthread_mutex_t lock;
	struct loop_timer t;
};
static void stop_loop(struct loop_timer *t)
{
	struct armer *a = t->opaque;

	/* The loop holds the lock around the callback. */
	assert_int_equal(pthread_mutex_trylock(&a->lock), EBUSY);
	loop_stop(a->l);
}
static void *arm_under_lock(void *opaque)
{
	struct armer *a = opaque;

	pthread_mutex_lock(&a->lock);
	loop_timer_arm(&a->t, clock_mono_ns() + 1000000);
	pthread_mutex_unlock(&a->lock);
	return NULL;
}

static void timer_armed_under_the_lock_wakes_a_sleeping_loop(void **state)
{
	struct armer a = {new_loop(), PTHREAD_MUTEX_INITIALIZER};
	struct loop_timer far;
	pthread_t t;

	(void)state;
	loop_set_lock(a.l, &a.lock);
	loop_timer_init(a.l, &a.t, stop_loop, &a);
	loop_timer_init(a.l, &far, stop_loop, &a);
	loop_timer_arm(&far, clock_mono_ns() + 100 * NS_PER_SEC);
	assert_int_equal(pthread_create(&t, NULL, arm_under_lock, &a), 0);
	loop_run(a.l);
	pthread_join(t, NULL);
	assert_int_not_equal(far.deadline_ns, 0);
	loop_free(a.l);
	assert_int_equal(far.deadline_ns, 0);
}

struct bracket {
	struct loop_hook hook;
	int prepared, checked;
};
static void hook_prepare(struct loop_hook *h)
{
	container_of(h, struct bracket, hook)->prepared++;
}
static void hook_check(struct loop_hook *h)
{
	struct bracket *b = container_of(h, struct bracket, hook);

	b->checked++;
	assert_int_equal(b->prepared, b->checked);
}

static void hooks_bracket_each_wait(void **state)
{
	struct loop *l = new_loop();
	struct bracket b = {
		.hook = {.prepare = hook_prepare, .check = hook_check}};

	(void)state;
	loop_hook_add(l, &b.hook);
	loop_run_once(l, 0);
	loop_wake(l);
	loop_run_once(l, -1);
	assert_int_equal(b.checked, 2);
	loop_hook_del(&b.hook);
	loop_run_once(l, 0);
	assert_int_equal(b.prepared, 2);
	loop_free(l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fd_reports_what_was_asked_for),
		cmocka_unit_test(fd_that_cannot_be_polled_is_refused),
		cmocka_unit_test(
			handle_removed_by_an_earlier_callback_is_not_called),
		cmocka_unit_test(many_fds_are_all_served),
		cmocka_unit_test(timers_run_in_order_of_deadline),
		cmocka_unit_test(timer_never_runs_early_and_moves_when_rearmed),
		cmocka_unit_test(
			timer_rearmed_in_the_past_does_not_hold_the_round),
		cmocka_unit_test(posts_from_another_thread_keep_their_order),
		cmocka_unit_test(stop_before_run_is_kept),
		cmocka_unit_test(
			timer_armed_under_the_lock_wakes_a_sleeping_loop),
		cmocka_unit_test(hooks_bracket_each_wait),
	};

	return test_run("loop", tests);
}
