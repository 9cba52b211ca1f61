/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY. The order matters. The clock comes first: timers are armed against
 * it. vCPUs come last, when they are saved because devices end what is in
 * flight and interrupt, and when they are loaded because devices drive their
 * lines again, which must not add to what the local APICs had.
 *
 * Of the configuration only what the guest could see is in the stream, to be
 * compared; the rest (files, forwards, limits) is the loader's own.
 */
#include "machine/machine_int.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/assert.h"
#include "dev/device.h"

#define CLOCK_NS_MAX (1ull << 62)

static void visit_config(struct machine *m, struct state *s)
{
	u32 cpus = m->cfg.cpus;
	u64 memory = m->cfg.memory_bytes;

	st_begin(s, "config");
	st_u32(s, "cpus", &cpus);
	st_require(s, cpus == m->cfg.cpus, "the number of CPUs differs");
	st_u64(s, "memory", &memory);
	st_require(s, memory == m->cfg.memory_bytes,
		   "the size of the memory differs");
	st_bytes(s, "uuid", m->uuid, sizeof(m->uuid));
	st_end(s);
}

static void visit_clock(struct machine *m, struct state *s)
{
	u64 now = hw_now(&m->clock);

	st_u64(s, "clock", &now);
	st_require(s, now < CLOCK_NS_MAX, "the clock is out of range");
	if (state_is_loading(s) && !state_failed(s))
		hw_clock_set(&m->clock, now);
}

static int visit_vcpu(struct machine *m, u32 id, struct state *s,
		      struct err *err)
{
	struct vcpu *v = m->vcpus.vcpu[id].vcpu;
	struct vcpu_state *vs = calloc(1, sizeof(*vs));
	char name[16];
	int rc;

	ASSERT(vs);
	snprintf(name, sizeof(name), "vcpu%u", id);
	rc = m->engine->vcpu_get(v, vs, err);
	if (rc == 0) {
		st_begin(s, name);
		vcpu_state_visit(vs, s);
		st_end(s);
		if (state_is_loading(s) && !state_failed(s))
			rc = m->engine->vcpu_set(v, vs, err);
	}
	free(vs);
	return rc;
}

static int visit(struct machine *m, struct state *s, struct err *err)
{
	int rc = 0;

	st_begin(s, "machine");
	visit_config(m, s);
	visit_clock(m, s);
	st_begin(s, "devices");
	device_list_state(&m->devices, s);
	st_end(s);
	for (u32 i = 0; rc == 0 && i < m->vcpus.count; i++)
		rc = visit_vcpu(m, i, s, err);
	st_end(s);
	return rc;
}

int machine_save(struct machine *m, struct buf *out, struct err *err)
{
	struct state *s;
	int rc, finished;

	ASSERT(!machine_is_running(m));
	device_list_drain(&m->devices);
	s = state_save_new(out);
	rc = visit(m, s, err);
	finished = state_finish(s, rc ? NULL : err);
	return rc ? rc : finished;
}

int machine_load(struct machine *m, const void *bytes, size_t len,
		 struct err *err)
{
	struct state *s;
	int rc, finished;

	ASSERT(!machine_is_running(m));
	pthread_mutex_lock(mem_io_lock(m->mem));
	device_list_reset(&m->devices);
	for (u32 i = 0; i < m->vcpus.count; i++)
		m->engine->vcpu_reset(m->vcpus.vcpu[i].vcpu);
	s = state_load_new(bytes, len);
	rc = visit(m, s, err);
	finished = state_finish(s, rc ? NULL : err);
	rc = rc ? rc : finished;
	if (rc == 0)
		rc = identity_after_load(m, err);
	pthread_mutex_unlock(mem_io_lock(m->mem));
	return rc < 0 ? err_wrap(err, "load the machine's state") : 0;
}

const u8 *machine_ram(const struct machine *m, u64 *out_bytes)
{
	*out_bytes = m->ram.size;
	return m->ram.hva;
}
