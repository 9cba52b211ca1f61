/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY. The machine stands still only while its devices end what is in
 * flight, their state and that of the vCPUs is taken, and the saver is forked
 * (migrate/memory_save.h). The state file is written last, when the memory
 * file is on the disk: a snapshot with a state file is a whole one. Names,
 * folders and the rename are the client's.
 *
 * Disks are not copied: each goes on in a new layer, and what is below is of
 * the same moment as the memory, and is never written again. It becomes
 * durable while the guest runs (machine/overlay.c).
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"
#include "migrate/memory_save.h"
#include "migrate/snapshot_file.h"
#include "vmm/vmm.h"

struct snapshot {
	struct vmm *vmm;
	struct client *client;
	json_int_t id;
	struct memory_save *save;
	struct buf state;
	int state_fd, memory_fd;
	bool is_temporary; /* not to be made durable */
	u32 pending;	   /* the memory, the disks */
	int rc;		   /* the first that failed */
	u64 pause_ns, progress_ns;
};

/* ---- making one ---- */

static void snapshot_free(struct snapshot *s)
{
	s->vmm->snapshot = NULL;
	memory_save_free(s->save);
	buf_fini(&s->state);
	close(s->state_fd);
	close(s->memory_fd);
	free(s);
}

static int write_all(int fd, const u8 *bytes, size_t n, bool is_temporary)
{
	while (n) {
		ssize_t done = write(fd, bytes, n);

		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return done < 0 ? -errno : -EIO;
		bytes += done;
		n -= (size_t)done;
	}
	return !is_temporary && fsync(fd) < 0 ? -errno : 0;
}

/* What a restore has to know of how this machine was made. */
static char *config_text(const struct vmm *v)
{
	json_t *obj = api_machine_config_to_json(&v->config);
	char *text;

	json_object_set_new(obj, "agent", json_boolean(v->is_agent_ready));
	json_object_set_new(obj, "hostname", json_string(v->agent_hostname));
	text = json_dumps(obj, JSON_COMPACT | JSON_SORT_KEYS);
	json_decref(obj);
	ASSERT(text);
	return text;
}

static int write_state(struct snapshot *s, size_t *out_bytes)
{
	struct snapshot_file f = {
		.state = s->state.bytes,
		.state_bytes = s->state.len,
		.written_bytes = memory_save_written(s->save),
	};
	char *config = config_text(s->vmm);
	struct buf bytes, sums;
	const u32 *sum;
	int rc;

	buf_init(&bytes);
	buf_init(&sums);
	sum = memory_save_sums(s->save, &f.sum_count);
	for (size_t i = 0; i < f.sum_count; i++)
		buf_append_le32(&sums, sum[i]);
	machine_ram(s->vmm->machine, &f.memory_bytes);
	f.sums = sums.bytes;
	f.config = config;
	f.config_bytes = strlen(config);
	snapshot_file_write(&f, &bytes);
	*out_bytes = bytes.len;
	rc = write_all(s->state_fd, bytes.bytes, bytes.len, s->is_temporary);
	buf_fini(&sums);
	buf_fini(&bytes);
	free(config);
	return rc;
}

static void snapshot_end(struct snapshot *s)
{
	struct err err = {0};
	json_t *result = NULL;
	size_t state_bytes = 0;
	int rc = s->rc;
	u64 ram;

	if (rc == -ECHILD)
		err_set(&err, rc, "write the memory: the saver was killed");
	else if (rc < 0)
		err_sys(&err, rc, "write the memory and the disks");
	if (rc == 0) {
		rc = write_state(s, &state_bytes);
		if (rc < 0)
			err_sys(&err, rc, "write the state");
	}
	machine_ram(s->vmm->machine, &ram);
	if (rc == 0)
		result = json_pack("{s:I, s:I, s:I, s:I}", "pause_ns",
				   (json_int_t)s->pause_ns, "memory_bytes",
				   (json_int_t)ram, "written_bytes",
				   (json_int_t)memory_save_written(s->save),
				   "state_bytes", (json_int_t)state_bytes);
	server_answer(s->client, s->id, rc, result, &err);
	snapshot_free(s);
}

static void part_end(struct snapshot *s, int rc)
{
	if (rc < 0 && !s->rc)
		s->rc = rc;
	if (--s->pending == 0)
		snapshot_end(s);
}

static void on_saved(void *opaque, int rc)
{
	part_end(opaque, rc);
}

/* By then the snapshot may have been given up. */
static void on_flushed(void *opaque, int rc)
{
	struct vmm *v = opaque;

	v->is_flushing = false;
	if (v->snapshot)
		part_end(v->snapshot, rc);
}

static void on_progress(void *opaque, u64 done, u64 total)
{
	struct snapshot *s = opaque;
	u64 now = clock_mono_ns();

	if (now - s->progress_ns < NS_PER_SEC / 10)
		return;
	s->progress_ns = now;
	server_event(s->client,
		     control_event_new(CONTROL_EVENT_PROGRESS,
				       json_pack("{s:I, s:I}", "done",
						 (json_int_t)done, "total",
						 (json_int_t)total)));
}

/* The machine is paused. */
static int take(struct snapshot *s, struct err *err)
{
	struct memory_save_config cfg = {
		.loop = s->vmm->loop,
		.fd = s->memory_fd,
		.is_temporary = s->is_temporary,
		.progress = on_progress,
		.done = on_saved,
		.opaque = s,
	};
	int rc = machine_save(s->vmm->machine, &s->state, err);

	if (rc < 0)
		return rc;
	machine_overlay_commit(s->vmm->machine);
	cfg.ram = machine_ram(s->vmm->machine, &cfg.bytes);
	return memory_save_start(&cfg, &s->save, err);
}

static int refuse(struct err *err, int code, const char *id, const char *text)
{
	err_set(err, code, "%s", text);
	err_set_id(err, id);
	return code;
}

/* The disks of the request, each with its descriptor behind the first two. */
static int prepare_layers(struct vmm *v, json_t *params, int *fds,
			  size_t fd_count, struct err *err)
{
	json_t *disks = json_object_get(params, "disks"), *disk;
	size_t i;
	int rc = 0;

	if (json_array_size(disks) + 2 != fd_count)
		return refuse(err, -EINVAL, "request.invalid",
			      "as many descriptors as disks are needed");
	json_array_foreach(disks, i, disk)
	{
		json_int_t n =
			json_is_integer(disk) ? json_integer_value(disk) : -1;

		if (rc == 0)
			rc = machine_overlay_prepare(v->machine, (size_t)n,
						     fds[i + 2], err);
		else
			break;
		fds[i + 2] = -1;
	}
	if (rc < 0)
		machine_overlay_cancel(v->machine);
	return rc;
}

static struct snapshot *snapshot_new(struct vmm *v, struct client *c, int *fds)
{
	struct snapshot *s = calloc(1, sizeof(*s));

	ASSERT(s);
	s->vmm = v;
	s->client = c;
	s->state_fd = fds[0];
	s->memory_fd = fds[1];
	fds[0] = fds[1] = -1;
	buf_init(&s->state);
	v->snapshot = s;
	return s;
}

int snapshot_create(struct vmm *v, struct client *c, json_int_t id,
		    json_t *params, int *fds, size_t fd_count, struct err *err)
{
	bool was_running = machine_is_running(v->machine);
	struct snapshot *s;
	u64 before;
	int rc;

	if (v->snapshot || v->is_flushing)
		return refuse(err, -EBUSY, "snapshot.busy",
			      "another snapshot of this machine is being made");
	rc = prepare_layers(v, params, fds, fd_count, err);
	if (rc < 0)
		return rc;
	s = snapshot_new(v, c, fds);
	s->id = id;
	s->is_temporary = json_is_true(json_object_get(params, "temporary"));
	before = clock_mono_ns();
	if (was_running)
		machine_pause(v->machine);
	rc = take(s, err);
	if (was_running)
		machine_resume(v->machine);
	s->pause_ns = clock_mono_ns() - before;
	if (rc < 0) {
		machine_overlay_cancel(v->machine);
		snapshot_free(s);
		return rc;
	}
	s->pending = 2;
	v->is_flushing = true;
	machine_flush_disks(v->machine, on_flushed, v);
	log_info("the machine stood for %llu us",
		 (unsigned long long)(s->pause_ns / 1000));
	return METHOD_LATER;
}

void snapshot_client_gone(struct vmm *v, const struct client *c)
{
	if (v->snapshot && v->snapshot->client == c)
		snapshot_free(v->snapshot);
}

void snapshot_fini(struct vmm *v)
{
	if (v->snapshot)
		snapshot_free(v->snapshot);
}

/* ---- going on from one ---- */

/* The agent listens already; it says hello only when it starts. */
static void take_agent(struct vmm *v, const struct snapshot_file *f)
{
	json_t *obj = json_loadb(f->config, f->config_bytes, 0, NULL);
	const char *name = json_string_value(json_object_get(obj, "hostname"));

	v->is_agent_ready = json_is_true(json_object_get(obj, "agent"));
	snprintf(v->agent_hostname, sizeof(v->agent_hostname), "%s",
		 name ? name : "");
	json_decref(obj);
}

int snapshot_restore(struct vmm *v, int fd, struct err *err)
{
	struct snapshot_file f;
	u8 *bytes;
	int rc;

	if (v->config.restore_memory_fd < 0)
		return err_set(err, -EINVAL,
			       "a state file without its memory file");
	rc = snapshot_file_load(fd, &bytes, &f, err);
	if (rc < 0)
		return rc;
	rc = machine_load(v->machine, f.state, f.state_bytes, err);
	if (rc == 0)
		take_agent(v, &f);
	free(bytes);
	return rc;
}
