/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY
 *
 * One thread per VM sleeps in read() on a timerfd that is set to the earliest
 * deadline. Arming and disarming is a timerfd_settime() by the vCPU's thread,
 * which wakes nobody; the thread runs only when a deadline passes, makes a
 * request on that vCPU and sleeps again. There is at most one deadline per
 * vCPU, 64 in all, so the earliest is found by a scan.
 *
 * The thread decides nothing: the vCPU's own thread looks at its APIC timer
 * (soft_apic_timer_poll) when it sees SOFT_REQ_TIMER, and a late or spurious
 * request is harmless.
 */
#include "soft/soft_int.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/clock.h"

struct soft_timers {
	struct engine_vm *vm;
	int fd;
	pthread_t thread;
	pthread_mutex_t lock; /* what follows */
	bool is_stopping;
	u64 armed_ns; /* what the timerfd is set to */
	u64 deadline_ns[VCPUS_MAX];
};

static void set_fd(struct soft_timers *t)
{
	struct itimerspec its = {0};
	u64 first = SOFT_NEVER;

	for (u32 i = 0; i < VCPUS_MAX; i++)
		first = MIN(first, t->deadline_ns[i]);
	if (t->is_stopping)
		first = 1;
	if (first == t->armed_ns)
		return;
	t->armed_ns = first;
	if (first != SOFT_NEVER) {
		first = MAX(first, 1); /* 0 would disarm */
		its.it_value.tv_sec = (time_t)(first / NS_PER_SEC);
		its.it_value.tv_nsec = (long)(first % NS_PER_SEC);
	}
	ASSERT(timerfd_settime(t->fd, TFD_TIMER_ABSTIME, &its, NULL) == 0);
}

static void expire(struct soft_timers *t)
{
	u64 now = clock_mono_ns();

	for (u32 i = 0; i < VCPUS_MAX; i++) {
		if (t->deadline_ns[i] > now)
			continue;
		t->deadline_ns[i] = SOFT_NEVER;
		if (t->vm->vcpus[i])
			soft_request(t->vm->vcpus[i], SOFT_REQ_TIMER);
	}
	t->armed_ns = SOFT_NEVER;
	set_fd(t);
}

static void *timer_main(void *arg)
{
	struct soft_timers *t = arg;
	bool is_stopping = false;
	u64 count;

	while (!is_stopping) {
		if (read(t->fd, &count, sizeof(count)) < 0 && errno != EINTR)
			break;
		pthread_mutex_lock(&t->lock);
		is_stopping = t->is_stopping;
		if (!is_stopping)
			expire(t);
		pthread_mutex_unlock(&t->lock);
	}
	return NULL;
}

struct soft_timers *soft_timers_new(struct engine_vm *vm, struct err *err)
{
	struct soft_timers *t = calloc(1, sizeof(*t));
	int rc;

	if (!t) {
		err_set(err, -ENOMEM, "out of memory");
		return NULL;
	}
	t->vm = vm;
	t->armed_ns = SOFT_NEVER;
	for (u32 i = 0; i < VCPUS_MAX; i++)
		t->deadline_ns[i] = SOFT_NEVER;
	pthread_mutex_init(&t->lock, NULL);
	t->fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	if (t->fd < 0) {
		err_sys(err, -errno, "create timer");
		free(t);
		return NULL;
	}
	rc = pthread_create(&t->thread, NULL, timer_main, t);
	if (rc) {
		err_sys(err, -rc, "start timer thread");
		close(t->fd);
		free(t);
		return NULL;
	}
	return t;
}

void soft_timers_free(struct soft_timers *t)
{
	if (!t)
		return;
	pthread_mutex_lock(&t->lock);
	t->is_stopping = true;
	set_fd(t);
	pthread_mutex_unlock(&t->lock);
	pthread_join(t->thread, NULL);
	close(t->fd);
	pthread_mutex_destroy(&t->lock);
	free(t);
}

void soft_timer_arm(struct soft_timers *t, u32 id, u64 deadline_ns)
{
	if (!t)
		return;
	pthread_mutex_lock(&t->lock);
	if (t->deadline_ns[id] != deadline_ns) {
		t->deadline_ns[id] = deadline_ns;
		set_fd(t);
	}
	pthread_mutex_unlock(&t->lock);
}
