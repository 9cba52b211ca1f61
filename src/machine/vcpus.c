/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY: one thread per vCPU, which alternates between the engine and
 * "parked", waiting for vcpus.want to become RUNNING. Stopping is two steps:
 * vcpus_stop() sets want and kicks, which anybody may do from anywhere, and
 * vcpus_wait_parked() waits, which only the loop's thread does. A vCPU may be
 * waiting for the device lock inside a device access, so the waiter gives
 * that lock up. */
#include "machine/machine_int.h"

#include <signal.h>
#include <stdio.h>

#include "base/assert.h"

/* Parks while want is PAUSED; false when the thread shall end. */
static bool vcpu_wait_turn(struct machine_vcpus *vs)
{
	bool go;

	pthread_mutex_lock(&vs->lock);
	vs->parked++;
	pthread_cond_broadcast(&vs->cond);
	while (vs->want == VCPUS_PAUSED)
		pthread_cond_wait(&vs->cond, &vs->lock);
	go = vs->want == VCPUS_RUNNING;
	if (go)
		vs->parked--;
	pthread_mutex_unlock(&vs->lock);
	return go;
}

static void report_triple_fault(struct machine_vcpu *mv)
{
	struct machine *m = mv->machine;
	struct vcpu_state vs;
	char detail[900] = "";

	if (m->engine->vcpu_get(mv->vcpu, &vs, NULL) == 0)
		cpu_format_registers(&vs, detail, sizeof(detail));
	pthread_mutex_lock(mem_io_lock(m->mem));
	machine_end(m, MACHINE_END_TRIPLE_FAULT, 1, detail);
	pthread_mutex_unlock(mem_io_lock(m->mem));
}

static void report_error(struct machine *m, const struct err *err)
{
	pthread_mutex_lock(mem_io_lock(m->mem));
	machine_end(m, MACHINE_END_ERROR, 1, err->text);
	pthread_mutex_unlock(mem_io_lock(m->mem));
}

static void *vcpu_thread(void *opaque)
{
	struct machine_vcpu *mv = opaque;
	struct machine *m = mv->machine;

	if (m->engine->vcpu_attach)
		m->engine->vcpu_attach(mv->vcpu);
	while (vcpu_wait_turn(&m->vcpus)) {
		struct err err = {0};

		switch (m->engine->vcpu_run(mv->vcpu, &err)) {
		case VCPU_EXIT_KICKED:
		case VCPU_EXIT_DEBUG:
			break;
		case VCPU_EXIT_SHUTDOWN:
			report_triple_fault(mv);
			break;
		case VCPU_EXIT_ERROR:
			report_error(m, &err);
			break;
		}
	}
	return NULL;
}

static int vcpu_start_thread(struct machine_vcpu *mv, struct err *err)
{
	sigset_t all, old;
	char name[16];
	int rc;

	/* Signals for the process are the loop thread's. Synchronous ones
	 * stay open: the engine handles its own faults. */
	sigfillset(&all);
	sigdelset(&all, SIGSEGV);
	sigdelset(&all, SIGBUS);
	sigdelset(&all, SIGFPE);
	sigdelset(&all, SIGILL);
	sigdelset(&all, SIGTRAP);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	rc = pthread_create(&mv->thread, NULL, vcpu_thread, mv);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (rc != 0)
		return err_sys(err, -rc, "start the thread of vCPU %u", mv->id);
	mv->has_thread = true;
	snprintf(name, sizeof(name), "vcpu%u", mv->id);
	pthread_setname_np(mv->thread, name);
	return 0;
}

static void wait_all_parked(struct machine_vcpus *vs)
{
	pthread_mutex_lock(&vs->lock);
	while (vs->parked < vs->count)
		pthread_cond_wait(&vs->cond, &vs->lock);
	pthread_mutex_unlock(&vs->lock);
}

int vcpus_create(struct machine *m, struct err *err)
{
	struct machine_vcpus *vs = &m->vcpus;

	pthread_mutex_init(&vs->lock, NULL);
	pthread_cond_init(&vs->cond, NULL);
	vs->want = VCPUS_PAUSED;
	for (u32 i = 0; i < m->cfg.cpus; i++) {
		struct machine_vcpu *mv = &vs->vcpu[i];
		int rc;

		mv->machine = m;
		mv->id = i;
		rc = m->engine->vcpu_create(m->engine_vm, i, &mv->vcpu, err);
		if (rc < 0)
			return err_wrap(err, "create vCPU %u", i);
		vs->count++;
	}
	for (u32 i = 0; i < vs->count; i++) {
		int rc = vcpu_start_thread(&vs->vcpu[i], err);

		if (rc < 0)
			return rc;
	}
	wait_all_parked(vs);
	return 0;
}

static void vcpus_set_want(struct machine *m, enum vcpus_want want)
{
	struct machine_vcpus *vs = &m->vcpus;

	pthread_mutex_lock(&vs->lock);
	if (vs->want != VCPUS_QUIT)
		vs->want = want;
	pthread_cond_broadcast(&vs->cond);
	pthread_mutex_unlock(&vs->lock);
	if (want == VCPUS_RUNNING)
		return;
	for (u32 i = 0; i < vs->count; i++)
		m->engine->vcpu_kick(vs->vcpu[i].vcpu);
}

void vcpus_stop(struct machine *m)
{
	vcpus_set_want(m, VCPUS_PAUSED);
}

void vcpus_run(struct machine *m)
{
	vcpus_set_want(m, VCPUS_RUNNING);
}

void vcpus_wait_parked(struct machine *m)
{
	struct machine_vcpus *vs = &m->vcpus;

	pthread_mutex_unlock(mem_io_lock(m->mem));
	ASSERT(vs->want != VCPUS_RUNNING);
	wait_all_parked(vs);
	pthread_mutex_lock(mem_io_lock(m->mem));
}

void vcpus_destroy(struct machine *m)
{
	struct machine_vcpus *vs = &m->vcpus;

	if (!m->engine_vm)
		return;
	vcpus_set_want(m, VCPUS_QUIT);
	pthread_mutex_unlock(mem_io_lock(m->mem));
	for (u32 i = 0; i < vs->count; i++)
		if (vs->vcpu[i].has_thread)
			pthread_join(vs->vcpu[i].thread, NULL);
	pthread_mutex_lock(mem_io_lock(m->mem));
	for (u32 i = 0; i < vs->count; i++)
		m->engine->vcpu_destroy(vs->vcpu[i].vcpu);
	vs->count = 0;
}
