/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY
 *
 * Requests. A sender ORs bits into v->requests, clears v->go, and wakes the
 * vCPU if it sleeps. The vCPU sets go before it reads requests, so a bit set
 * later clears it again. A sleeping vCPU waits on the futex `go` while it is
 * SOFT_GO:
 *
 *	vCPU:	is_sleeping = 1; futex_wait(&kick, 0); is_sleeping = 0
 *	sender:	kick = 1; if (is_sleeping) futex_wake(&kick)
 *
 * All four accesses are sequentially consistent: a sender that reads
 * is_sleeping == 0 stored kick before the vCPU stored is_sleeping, so the
 * kernel's comparison sees kick == 1 and the wait returns at once. No lock,
 * no signal; futex_wake is async-signal-safe.
 *
 * Stop-the-world. pause_wanted and in_run of each vCPU are changed under its
 * park_lock, so a vCPU is either outside vcpu_run (and waits there), parked,
 * or on its way to the park point. Two vCPUs that both want to stop the world
 * would wait for each other: the one without pause_lock parks until it gets
 * it.
 */
#include "soft/soft_int.h"

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

static void futex_wake_kick(struct vcpu *v)
{
	syscall(SYS_futex, (u32 *)&v->go, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static void kick(struct vcpu *v)
{
	soft_kick(v);
	if (atomic_load(&v->is_sleeping))
		futex_wake_kick(v);
}

void soft_request(struct vcpu *v, u32 bits)
{
	atomic_fetch_or(&v->requests, bits);
	kick(v);
}

void soft_request_nmi(struct vcpu *v)
{
	u32 old = atomic_load(&v->requests), bit;

	do {
		bit = old & SOFT_REQ_NMI ? SOFT_REQ_NMI2 : SOFT_REQ_NMI;
	} while (!atomic_compare_exchange_weak(&v->requests, &old, old | bit));
	kick(v);
}

void soft_sleep(struct vcpu *v, u64 deadline_ns)
{
	struct timespec ts = {
		.tv_sec = (time_t)(deadline_ns / NS_PER_SEC),
		.tv_nsec = (long)(deadline_ns % NS_PER_SEC),
	};

	atomic_store(&v->is_sleeping, 1);
	/* FUTEX_WAIT_BITSET takes an absolute CLOCK_MONOTONIC time. */
	if (atomic_load(&v->go))
		syscall(SYS_futex, (u32 *)&v->go, FUTEX_WAIT_BITSET_PRIVATE,
			SOFT_GO, deadline_ns == SOFT_NEVER ? NULL : &ts, NULL,
			FUTEX_BITSET_MATCH_ANY);
	atomic_store(&v->is_sleeping, 0);
}

void soft_run_begin(struct vcpu *v)
{
	pthread_mutex_lock(&v->park_lock);
	while (v->pause_wanted)
		pthread_cond_wait(&v->park_cond, &v->park_lock);
	v->in_run = true;
	pthread_mutex_unlock(&v->park_lock);
}

void soft_run_end(struct vcpu *v)
{
	pthread_mutex_lock(&v->park_lock);
	v->in_run = false;
	pthread_cond_broadcast(&v->park_cond);
	pthread_mutex_unlock(&v->park_lock);
}

void soft_park(struct vcpu *v)
{
	pthread_mutex_lock(&v->park_lock);
	while (v->pause_wanted) {
		v->is_parked = true;
		pthread_cond_broadcast(&v->park_cond);
		pthread_cond_wait(&v->park_cond, &v->park_lock);
	}
	v->is_parked = false;
	pthread_mutex_unlock(&v->park_lock);
}

static void lock_pause(struct engine_vm *vm, struct vcpu *self)
{
	if (!self) {
		pthread_mutex_lock(&vm->pause_lock);
		return;
	}
	while (pthread_mutex_trylock(&vm->pause_lock)) {
		soft_park(self);
		sched_yield();
	}
}

void soft_pause_all(struct engine_vm *vm, struct vcpu *self)
{
	lock_pause(vm, self);
	for (u32 i = 0; i < VCPUS_MAX; i++) {
		struct vcpu *v = vm->vcpus[i];

		if (!v || v == self)
			continue;
		pthread_mutex_lock(&v->park_lock);
		v->pause_wanted = true;
		pthread_mutex_unlock(&v->park_lock);
		soft_request(v, SOFT_REQ_PAUSE);
	}
	for (u32 i = 0; i < VCPUS_MAX; i++) {
		struct vcpu *v = vm->vcpus[i];

		if (!v || v == self)
			continue;
		pthread_mutex_lock(&v->park_lock);
		while (v->in_run && !v->is_parked)
			pthread_cond_wait(&v->park_cond, &v->park_lock);
		pthread_mutex_unlock(&v->park_lock);
	}
}

void soft_pause_others(struct vcpu *v)
{
	bool was_loaded = v->fpu_loaded;

	if (was_loaded)
		soft_fpu_leave(v);
	v->fpu_loaded = false;
	soft_pause_all(v->vm, v);
	if (was_loaded)
		soft_fpu_enter(v);
	v->fpu_loaded = was_loaded;
}

void soft_resume_all(struct engine_vm *vm, struct vcpu *self)
{
	for (u32 i = 0; i < VCPUS_MAX; i++) {
		struct vcpu *v = vm->vcpus[i];

		if (!v || v == self)
			continue;
		pthread_mutex_lock(&v->park_lock);
		v->pause_wanted = false;
		pthread_cond_broadcast(&v->park_cond);
		pthread_mutex_unlock(&v->park_lock);
	}
	pthread_mutex_unlock(&vm->pause_lock);
}
