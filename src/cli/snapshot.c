/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY. The machine stands still while the vmm takes its state and exchanges
 * the top of its disk (vmm/snapshot.c); the rest is written while it runs. The
 * layers below, which nobody writes again, are linked into the snapshot
 * (layers.h).
 *
 * What is being made is a folder ".SNAP.PID": not a legal name, so that nobody
 * takes it for a snapshot, and the next one to come removes it when that
 * process is gone.
 */
#include "cli/snapshot.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "cli/image.h"
#include "cli/launch_record.h"
#include "cli/layers.h"
#include "migrate/snapshot_file.h"

#define SAVE_WAIT_MS   (30 * 60 * 1000)
#define INFO_BYTES_MAX (64 * KIB)
#define PATH_BYTES     (MACHINE_PATH_MAX + 256)

int snapshot_dir(const char *machine, const char *name, char *out,
		 struct err *err)
{
	char data[OS_PATH_MAX];
	int rc = os_data_dir(data, err);

	if (rc)
		return rc;
	if (!machine_name_is_valid(machine))
		return err_set(err, -EINVAL, "'%s' is not a machine name",
			       machine);
	if (name && !machine_name_is_valid(name))
		return err_set(err, -EINVAL,
			       "'%s' is not a snapshot name (letters, digits, "
			       "'-' and '_', at most 48)",
			       name);
	snprintf(out, MACHINE_PATH_MAX, "%s/snapshots/%s%s%s", data, machine,
		 name ? "/" : "", name ? name : "");
	return 0;
}

void snapshot_remove_stale(const char *machine)
{
	char dir[MACHINE_PATH_MAX], path[PATH_BYTES + 256];
	struct dirent *e;
	DIR *d;

	if (snapshot_dir(machine, NULL, dir, NULL))
		return;
	d = opendir(dir);
	while (d && (e = readdir(d))) {
		const char *dot = strrchr(e->d_name, '.');
		pid_t pid = dot ? (pid_t)strtol(dot + 1, NULL, 10) : 0;

		if (e->d_name[0] != '.' || pid <= 0 || kill(pid, 0) == 0 ||
		    errno != ESRCH)
			continue;
		snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
		image_remove_tree(path, NULL);
	}
	if (d)
		closedir(d);
}

/* ---- what is known of one ---- */

static u64 used_bytes(const char *dir)
{
	char disk[PATH_BYTES];

	snprintf(disk, sizeof(disk), "%s/disk", dir);
	return layers_own_bytes(dir) + layers_own_bytes(disk);
}

static int read_info(const char *dir, struct snapshot_info *out,
		     struct err *err)
{
	char path[PATH_BYTES];
	const char *note, *parent;
	struct buf text;
	json_t *obj;
	int rc;

	memset(out, 0, sizeof(*out));
	buf_init(&text);
	snprintf(path, sizeof(path), "%s/info.json", dir);
	rc = os_read_file(path, INFO_BYTES_MAX, &text, err);
	obj = rc ? NULL : json_loadb((char *)text.bytes, text.len, 0, NULL);
	buf_fini(&text);
	if (rc)
		return rc;
	if (!json_is_object(obj)) {
		json_decref(obj);
		return err_set(err, -EINVAL, "'%s' is damaged", path);
	}
	note = json_string_value(json_object_get(obj, "note"));
	snprintf(out->note, sizeof(out->note), "%s", note ? note : "");
	parent = json_string_value(json_object_get(obj, "parent"));
	snprintf(out->parent, sizeof(out->parent), "%s", parent ? parent : "");
	out->created = json_integer_value(json_object_get(obj, "created"));
	out->pause_ns =
		(u64)json_integer_value(json_object_get(obj, "pause_ns"));
	out->memory_bytes =
		(u64)json_integer_value(json_object_get(obj, "memory_bytes"));
	out->used_bytes = used_bytes(dir);
	json_decref(obj);
	return 0;
}

static int write_info(const char *dir, const struct snapshot_info *in,
		      struct err *err)
{
	char path[PATH_BYTES];
	json_t *obj =
		json_pack("{s:I, s:s, s:s, s:I, s:I}", "created",
			  (json_int_t)in->created, "note", in->note, "parent",
			  in->parent, "pause_ns", (json_int_t)in->pause_ns,
			  "memory_bytes", (json_int_t)in->memory_bytes);
	char *text = obj ? json_dumps(obj, JSON_INDENT(1)) : NULL;
	int rc;

	json_decref(obj);
	if (!text)
		return err_set(err, -EINVAL, "the note is not UTF-8");
	snprintf(path, sizeof(path), "%s/info.json", dir);
	rc = os_write_file(path, text, strlen(text), 0600, err);
	free(text);
	return rc;
}

int snapshot_find(const char *machine, const char *name, char *out_dir,
		  struct snapshot_info *out_info, struct err *err)
{
	struct snapshot_info ignored;
	int rc = snapshot_dir(machine, name, out_dir, err);

	if (rc)
		return rc;
	if (access(out_dir, F_OK)) {
		err_set(err, -ENOENT, "machine '%s' has no snapshot '%s'",
			machine, name);
		err_set_id(err, "snapshot.missing");
		return -ENOENT;
	}
	return read_info(out_dir, out_info ? out_info : &ignored, err);
}

/* ---- what a machine came from ---- */

/* In its folder of the disk, which outlives it, else of the run. */
static void head_path(const struct machine *m, char *out, size_t cap)
{
	snprintf(out, cap, "%s/head",
		 access(m->data_dir, F_OK) ? m->run_dir : m->data_dir);
}

static void head_read(const struct machine *m, char *out, size_t cap)
{
	char path[PATH_BYTES];
	struct buf text;

	buf_init(&text);
	head_path(m, path, sizeof(path));
	out[0] = 0;
	if (os_read_file(path, cap - 1, &text, NULL) == 0)
		snprintf(out, cap, "%s", buf_str(&text));
	buf_fini(&text);
}

/* Only the list's tree needs it: no reason to fail. */
static void head_write(const struct machine *m, const char *head)
{
	char path[PATH_BYTES];

	head_path(m, path, sizeof(path));
	(void)os_write_file(path, head, strlen(head), 0600, NULL);
}

void snapshot_head(const char *machine, char *out, size_t cap)
{
	struct machine m;

	out[0] = 0;
	if (machine_paths(machine, &m, NULL) == 0)
		head_read(&m, out, cap);
}

/* ---- making one ---- */

struct making {
	struct machine m;
	char final[MACHINE_PATH_MAX], parent[MACHINE_PATH_MAX];
	const struct snapshot_wish *wish;
	struct snapshot_made *out;
};

/* Disks that are neither the machine's own nor read-only would go on changing
 * behind the snapshot's back. */
static int check_disks(const struct launch_record *r, struct err *err)
{
	const struct machine_options *o = &r->options;

	if (r->image && strchr("./", r->image[0]))
		return err_set(err, -ENOTSUP,
			       "disk '%s' is not the machine's own: a snapshot "
			       "would not hold it",
			       r->image);
	for (u32 i = 0; i < o->disks.count; i++)
		if (!strstr(o->disks.items[i], ",readonly"))
			return err_set(err, -ENOTSUP,
				       "disk '%s' is not the machine's own: a "
				       "snapshot would not hold it",
				       o->disks.items[i]);
	return 0;
}

static int open_new(const char *dir, const char *name, int *out,
		    struct err *err)
{
	char path[PATH_BYTES + 32];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	*out = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	return *out < 0 ? err_sys(err, -errno, "create '%s'", path) : 0;
}

static void on_event(void *opaque, json_t *event)
{
	struct making *k = opaque;
	const char *name = json_string_value(json_object_get(event, "event"));
	json_int_t done, total;

	if (!name || strcmp(name, CONTROL_EVENT_PROGRESS) != 0 ||
	    !k->wish->shows_progress)
		return;
	done = json_integer_value(json_object_get(event, "done"));
	total = json_integer_value(json_object_get(event, "total"));
	fprintf(stderr, "\rmemory: %lld of %lld MiB ",
		(long long)(done / (i64)MIB), (long long)(total / (i64)MIB));
}

static int save_memory(struct making *k, int layer_fd, struct err *err)
{
	int fds[3] = {-1, -1, layer_fd};
	int rc = open_new(k->out->dir, "state", &fds[0], err);
	json_t *result = NULL, *params = NULL;

	if (!rc)
		rc = open_new(k->out->dir, "memory", &fds[1], err);
	if (!rc)
		params = json_pack("{s:b}", "temporary", k->wish->is_hidden);
	if (!rc && layer_fd >= 0)
		json_object_set_new(params, "disks", json_pack("[i]", 0));
	if (!rc)
		rc = control_call(k->m.control_fd, CONTROL_SNAPSHOT_CREATE,
				  params, fds, layer_fd >= 0 ? 3 : 2,
				  SAVE_WAIT_MS, on_event, k, &result, err);
	if (k->wish->shows_progress)
		fprintf(stderr, "\r\033[K");
	control_close_fds(fds, 2);
	k->out->info.pause_ns =
		(u64)json_integer_value(json_object_get(result, "pause_ns"));
	k->out->info.memory_bytes = (u64)json_integer_value(
		json_object_get(result, "memory_bytes"));
	json_decref(result);
	return rc;
}

static int call(struct making *k, enum control_method method, struct err *err)
{
	return control_call(k->m.control_fd, method, NULL, NULL, 0, 30000, NULL,
			    NULL, NULL, err);
}

/* Memory, state and, when it has one, the disk: the machine goes on in a new
 * layer, and those below are the snapshot's, too. */
static int save_all(struct making *k, struct err *err)
{
	char from[PATH_BYTES], to[PATH_BYTES + 16];
	bool has_disk;
	int fd = -1, rc = 0;

	snprintf(from, sizeof(from), "%s/disk", k->m.data_dir);
	snprintf(to, sizeof(to), "%s/disk", k->out->dir);
	has_disk = access(from, F_OK) == 0;
	if (has_disk) {
		layers_trim(from);
		rc = layers_add(from, &fd, err);
	}
	if (!rc && k->wish->ends_machine)
		rc = call(k, CONTROL_MACHINE_PAUSE, err);
	if (!rc)
		rc = save_memory(k, fd, err);
	if (fd >= 0)
		close(fd);
	if (rc && has_disk)
		layers_trim(from);
	if (!rc && has_disk)
		rc = layers_link(from, true, to, err);
	if (rc && k->wish->ends_machine)
		call(k, CONTROL_MACHINE_RESUME, NULL);
	return rc;
}

static int sync_dir(const char *path, struct err *err)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = 0;

	if (fd < 0 || fsync(fd) < 0)
		rc = err_sys(err, -errno, "make '%s' durable", path);
	if (fd >= 0)
		close(fd);
	return rc;
}

/* The folder gets its name. */
static int publish(struct making *k, struct err *err)
{
	int rc = sync_dir(k->out->dir, err);

	if (!rc && rename(k->out->dir, k->final))
		rc = errno == ENOTEMPTY || errno == EEXIST
			     ? err_set(err, -EEXIST,
				       "machine '%s' has a snapshot '%s' "
				       "already",
				       k->m.name, k->out->name)
			     : err_sys(err, -errno, "rename '%s'", k->out->dir);
	if (!rc)
		rc = sync_dir(k->parent, err);
	if (!rc) {
		char head[112];

		snprintf(head, sizeof(head), "%.48s/%.48s", k->m.name,
			 k->out->name);
		head_write(&k->m, head);
	}
	return rc;
}

static int make(struct making *k, struct err *err)
{
	struct launch_record record;
	int rc = launch_record_read(k->m.run_dir, &record, err);

	if (rc)
		return err_wrap(err, "find out how machine '%s' was started",
				k->m.name);
	rc = check_disks(&record, err);
	if (!rc)
		rc = os_mkdir_p(k->out->dir, 0700, err);
	if (!rc)
		rc = save_all(k, err);
	if (!rc && !record.options.name)
		record.options.name = k->m.name;
	if (!rc && chdir(record.cwd) == 0)
		rc = launch_record_write(k->out->dir, record.image,
					 &record.options, err);
	if (!rc)
		rc = write_info(k->out->dir, &k->out->info, err);
	if (!rc && !k->wish->is_hidden)
		rc = publish(k, err);
	if (rc)
		image_remove_tree(k->out->dir, NULL);
	launch_record_free(&record);
	return rc;
}

static int find_place(struct making *k, struct err *err)
{
	const struct snapshot_wish *w = k->wish;
	int rc = snapshot_dir(w->machine, NULL, k->parent, err);

	if (!rc)
		rc = snapshot_dir(w->machine, k->out->name, k->final, err);
	if (!rc)
		rc = machine_connect(w->machine, &k->m, err);
	if (!rc && access(k->final, F_OK) == 0)
		rc = err_set(err, -EEXIST,
			     "machine '%s' has a snapshot '%s' already",
			     w->machine, k->out->name);
	snprintf(k->out->dir, sizeof(k->out->dir), "%s/.%.48s.%d", k->parent,
		 k->out->name, getpid());
	return rc;
}

int snapshot_create(const struct snapshot_wish *w, struct snapshot_made *out,
		    struct err *err)
{
	struct making *k = calloc(1, sizeof(*k));
	time_t now = time(NULL);
	struct tm tm;
	int rc;

	if (!k)
		return err_sys(err, -ENOMEM, "make a snapshot");
	memset(out, 0, sizeof(*out));
	out->info.created = now;
	snprintf(out->info.note, sizeof(out->info.note), "%s", w->note);
	snprintf(out->name, sizeof(out->name), "%s", w->name);
	if (!w->name[0])
		strftime(out->name, sizeof(out->name), "%Y%m%d-%H%M%S",
			 gmtime_r(&now, &tm));
	k->wish = w;
	k->out = out;
	k->m.control_fd = -1;
	rc = find_place(k, err);
	if (!rc) {
		head_read(&k->m, out->info.parent, sizeof(out->info.parent));
		snapshot_remove_stale(w->machine);
		rc = make(k, err);
	}
	if (!rc && !w->is_hidden) {
		snprintf(out->dir, sizeof(out->dir), "%s", k->final);
		out->info.used_bytes = used_bytes(k->final);
	}
	if (!rc && w->ends_machine)
		machine_kill(&k->m);
	if (k->m.control_fd >= 0)
		close(k->m.control_fd);
	free(k);
	return rc;
}

/* ---- going back, deleting, checking ---- */

int snapshot_start(const struct snapshot_start *how, struct machine *out,
		   struct err *err)
{
	struct launch_record r;
	int rc = launch_record_read(how->dir, &r, err);

	if (rc)
		return rc;
	if (chdir(r.cwd))
		rc = err_sys(err, -errno, "go to the folder '%s'", r.cwd);
	r.options.name = how->name;
	r.options.restore = how->dir;
	if (how->identity)
		r.options.new_mac = how->identity->mac;
	if (how->is_fork) {
		r.options.forwards.count = 0;
		r.options.debugcon = NULL;
	}
	if (!rc)
		rc = machine_start(&r.options, r.image, false,
				   MACHINE_SERIAL_NONE, out, NULL, err);
	if (!rc)
		head_write(out, how->head);
	launch_record_free(&r);
	return rc;
}

int snapshot_delete(const char *machine, const char *name, struct err *err)
{
	char dir[MACHINE_PATH_MAX], parent[MACHINE_PATH_MAX];
	char gone[PATH_BYTES];
	int rc = snapshot_find(machine, name, dir, NULL, NULL);

	/* A damaged one goes, too. */
	if (rc == -ENOENT && access(dir, F_OK))
		return snapshot_find(machine, name, dir, NULL, err);
	rc = snapshot_dir(machine, name, dir, err);
	if (!rc)
		rc = snapshot_dir(machine, NULL, parent, err);
	if (rc)
		return rc;
	/* At once for everybody else, and for the next one if we die. */
	snprintf(gone, sizeof(gone), "%s/.%s.%d", parent, name, getpid());
	if (rename(dir, gone))
		return err_sys(err, -errno, "remove '%s'", dir);
	rc = image_remove_tree(gone, err);
	rmdir(parent); /* if that was the last */
	return rc;
}

static int open_part(const char *dir, const char *name, int *out,
		     struct err *err)
{
	char path[PATH_BYTES];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	*out = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	return *out < 0 ? err_sys(err, -errno, "open '%s'", path) : 0;
}

static int memory_size_check(const struct snapshot_file *f, int fd,
			     struct err *err)
{
	struct stat st;

	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) &&
	    (u64)st.st_size == f->memory_bytes)
		return 0;
	err_set(err, -EINVAL,
		"the snapshot is damaged: the memory file has not the size "
		"that it had");
	err_set_id(err, "snapshot.damaged");
	return -EINVAL;
}

static int check(const char *machine, const char *name, bool reads_memory,
		 struct err *err)
{
	int state_fd = -1, memory_fd = -1;
	char dir[MACHINE_PATH_MAX];
	struct snapshot_file f;
	struct launch_record r;
	u8 *bytes = NULL;
	int rc = snapshot_find(machine, name, dir, NULL, err);

	if (!rc)
		rc = launch_record_read(dir, &r, err);
	if (rc)
		return rc;
	launch_record_free(&r);
	rc = open_part(dir, "state", &state_fd, err);
	if (!rc)
		rc = open_part(dir, "memory", &memory_fd, err);
	if (!rc)
		rc = snapshot_file_load(state_fd, &bytes, &f, err);
	if (!rc)
		rc = memory_size_check(&f, memory_fd, err);
	if (!rc && reads_memory)
		rc = snapshot_memory_check(&f, memory_fd, err);
	free(bytes);
	if (state_fd >= 0)
		close(state_fd);
	if (memory_fd >= 0)
		close(memory_fd);
	return rc;
}

int snapshot_check_state(const char *machine, const char *name, struct err *err)
{
	return check(machine, name, false, err);
}

int snapshot_check(const char *machine, const char *name, struct err *err)
{
	return check(machine, name, true, err);
}

int snapshot_delete_all(const char *machine, struct err *err)
{
	char dir[MACHINE_PATH_MAX];
	int rc = snapshot_dir(machine, NULL, dir, err);

	return rc ? rc : image_remove_tree(dir, err);
}
