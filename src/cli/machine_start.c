/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY: everything that can fail for the user's reasons (names, files,
 * locks) fails here, before a process exists. Descriptors are collected in
 * the order in which they are passed; an index in the config is a place in
 * that list. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <arpa/inet.h>

#include "api/machine_config.h"
#include "block/chain.h"
#include "cli/host_facts.h"
#include "cli/image.h"
#include "cli/launch_record.h"
#include "cli/layers.h"
#include "cli/machine.h"
#include "os/spawn.h"

#define CREATE_WAIT_MS 30000

struct start {
	const struct machine_options *o;
	struct machine *m;
	char new_disk[MACHINE_PATH_MAX + 32]; /* its folder; "": none */
	bool is_temporary; /* it goes away when the machine ends */
	struct api_machine_config config;
	int fds[CONTROL_FDS_MAX];
	size_t fd_count;
	int lock_fd; /* on the folder of the run: one starts it at a time */
};

static void pick_name(char *out, size_t cap)
{
	static const char *const first[] = {
		"amber", "brisk", "calm",  "dapper", "early", "fair",	"grand",
		"happy", "ivory", "jolly", "keen",   "lucid", "mellow", "noble",
		"opal",	 "plain", "quick", "rapid",  "sunny", "tidy"};
	static const char *const second[] = {
		"auk",	 "bear",   "crane", "dove",  "eider", "finch", "gull",
		"heron", "ibis",   "jay",   "kite",  "lark",  "mole",  "newt",
		"otter", "puffin", "quail", "robin", "seal",  "tern"};
	u8 r[4] = {0};

	if (getrandom(r, sizeof(r), 0) < 0)
		r[0] = getpid();
	snprintf(out, cap, "%s-%s-%02x", first[r[0] % 20], second[r[1] % 20],
		 r[2]);
}

static int pass_fd(struct start *s, int fd)
{
	if (s->fd_count == CONTROL_FDS_MAX) {
		close(fd);
		return -EMFILE;
	}
	s->fds[s->fd_count] = fd;
	return s->fd_count++;
}

static int pass_file(struct start *s, const char *path, const char *what,
		     int flags, int *out_index, struct err *err)
{
	struct stat st;
	/* Non-blocking: opening a FIFO would wait for its other end. */
	int fd = open(path, flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0600);

	if (fd < 0)
		return err_sys(err, -errno, "open %s '%s'", what, path);
	if (fstat(fd, &st) == 0 && S_ISDIR(st.st_mode)) {
		close(fd);
		return err_sys(err, -EISDIR, "open %s '%s'", what, path);
	}
	if ((flags & O_ACCMODE) == O_RDONLY && !S_ISREG(st.st_mode)) {
		close(fd);
		return err_set(err, -EINVAL, "open %s '%s': not a regular file",
			       what, path);
	}
	*out_index = pass_fd(s, fd);
	return *out_index < 0 ? err_sys(err, *out_index, "too many files") : 0;
}

struct disk_option {
	const char *path;
	bool is_qcow2;
	bool has_format;
	bool is_read_only;
	bool backing_anywhere;
};

/* The files of a chain, the top first. */
static int pass_chain(struct start *s, struct block_chain *c,
		      struct api_disk *d)
{
	int rc = 0;

	for (size_t i = 0; i < c->count && rc >= 0; i++) {
		struct api_layer *l = i ? &d->layers[i - 1] : NULL;

		rc = pass_fd(s, c->files[i].fd);
		c->files[i].fd = -1; /* pass_fd closes what it cannot take */
		if (l) {
			l->fd = rc;
			strcpy(l->format, c->files[i].format);
		} else {
			d->fd = rc;
		}
	}
	d->layer_count = (u32)c->count - 1;
	return rc < 0 ? rc : 0;
}

static int pass_qcow2(struct start *s, const struct disk_option *o,
		      struct err *err)
{
	struct api_disk *d = &s->config.disks[s->config.disk_count];
	struct block_chain c;
	int rc;

	if (s->config.disk_count == API_DISKS_MAX)
		return err_set(err, -E2BIG, "more than %d disks",
			       API_DISKS_MAX);
	rc = block_chain_open(o->path, "qcow2", o->is_read_only,
			      o->backing_anywhere, &c, err);
	if (rc)
		return rc;
	memset(d, 0, sizeof(*d));
	strcpy(d->format, "qcow2");
	d->is_read_only = o->is_read_only;
	rc = pass_chain(s, &c, d);
	block_chain_close(&c);
	if (rc)
		return err_sys(err, rc, "add disk '%s'", o->path);
	s->config.disk_count++;
	return 0;
}

static int pass_disk(struct start *s, const char *path, bool is_read_only,
		     struct err *err)
{
	struct api_disk *d = &s->config.disks[s->config.disk_count];
	int fd, rc;

	if (s->config.disk_count == API_DISKS_MAX)
		return err_set(err, -E2BIG, "more than %d disks",
			       API_DISKS_MAX);
	rc = image_open_disk(path, is_read_only, &fd, err);
	if (rc)
		return rc;
	memset(d, 0, sizeof(*d));
	strcpy(d->format, "raw");
	d->is_read_only = is_read_only;
	d->fd = pass_fd(s, fd);
	if (d->fd < 0)
		return err_sys(err, d->fd, "add disk '%s'", path);
	s->config.disk_count++;
	return 0;
}

static bool ends_in_qcow2(const char *path)
{
	size_t len = strlen(path);

	return len >= 6 && strcmp(path + len - 6, ".qcow2") == 0;
}

/* FILE[,format=raw|qcow2][,readonly][,backing=any] */
static int add_disk_option(struct start *s, const char *text, struct err *err)
{
	char copy[OS_PATH_MAX], *save = NULL, *word;
	struct disk_option o = {0};

	snprintf(copy, sizeof(copy), "%s", text);
	o.path = strtok_r(copy, ",", &save);
	while ((word = strtok_r(NULL, ",", &save))) {
		if (strcmp(word, "readonly") == 0)
			o.is_read_only = true;
		else if (strcmp(word, "format=qcow2") == 0)
			o.is_qcow2 = o.has_format = true;
		else if (strcmp(word, "backing=any") == 0)
			o.backing_anywhere = true;
		else if (strcmp(word, "format=raw") == 0)
			o.has_format = true;
		else
			return err_set(err, -EINVAL,
				       "disk '%s': '%s' is not known (format="
				       "raw, format=qcow2, readonly, "
				       "backing=any)",
				       text, word);
	}
	if (!o.path)
		return err_set(err, -EINVAL, "disk '%s': no file named", text);
	if (!o.has_format && ends_in_qcow2(o.path))
		return err_set(err, -EINVAL,
			       "disk '%s': by its name it is no raw image: say "
			       "format=qcow2 or format=raw",
			       text);
	if (o.is_qcow2)
		return pass_qcow2(s, &o, err);
	return pass_disk(s, o.path, o.is_read_only, err);
}

/* [udp:][ADDR:]HOST:GUEST */
static int add_forward(struct start *s, const char *text, struct err *err)
{
	struct api_forward *f = &s->config.forwards[s->config.forward_count];
	char addr[64] = "127.0.0.1", rest = 0;
	unsigned host, guest;
	struct in_addr a;
	const char *t = text;

	memset(f, 0, sizeof(*f));
	if (strncmp(t, "udp:", 4) == 0) {
		f->is_udp = true;
		t += 4;
	} else if (strncmp(t, "tcp:", 4) == 0) {
		t += 4;
	}
	if (sscanf(t, "%63[0-9.]:%u:%u%c", addr, &host, &guest, &rest) != 3) {
		strcpy(addr, "127.0.0.1");
		rest = 0;
		if (sscanf(t, "%u:%u%c", &host, &guest, &rest) != 2)
			host = 0;
	}
	if (host < 1 || host > 65535 || guest < 1 || guest > 65535 ||
	    inet_pton(AF_INET, addr, &a) != 1)
		return err_set(err, -EINVAL,
			       "forward '%s' is not [udp:][ADDR:]HOST:GUEST",
			       text);
	if (s->config.forward_count == API_FORWARDS_MAX - 1)
		return err_set(err, -E2BIG, "too many forwards");
	f->host_addr = ntohl(a.s_addr);
	f->host_port = host;
	f->guest_port = guest;
	s->config.forward_count++;
	return 0;
}

static int choose_word(const char *what, const char *text,
		       const char *const *words, int *out, struct err *err)
{
	for (int i = 0; words[i]; i++) {
		if (strcmp(words[i], text) == 0) {
			*out = i;
			return 0;
		}
	}
	return err_set(err, -EINVAL, "%s '%s' is not known", what, text);
}

static int fill_plain(struct start *s, struct err *err)
{
	static const char *const engines[] = {"auto", "soft", "kvm", NULL};
	static const char *const networks[] = {"user", "none", NULL};
	static const char *const consoles[] = {"serial", "virtio", NULL};
	const struct machine_options *o = s->o;
	struct api_machine_config *c = &s->config;
	int word, rc;

	c->cpus = o->cpus;
	c->memory_bytes = o->memory_bytes;
	c->debug_exit = o->debug_exit;
	c->test_devices = o->test_devices;
	c->no_reboot = o->no_reboot;
	c->lockstep_every = o->lockstep;
	c->no_sandbox = o->no_sandbox;
	c->log_level = o->verbose ? 2 : 1;
	if (o->cpus < 1 || o->cpus > 64)
		return err_set(err, -EINVAL, "%u CPUs: 1 to 64 are possible",
			       o->cpus);
	if (o->memory_bytes % MIB || o->memory_bytes < MIB)
		return err_set(err, -EINVAL, "memory must be a multiple of 1M");
	rc = choose_word("engine", o->engine, engines, &word, err);
	if (rc)
		return rc;
	c->engine = word;
	rc = choose_word("network", o->network, networks, &word, err);
	if (rc)
		return rc;
	c->network = word;
	rc = choose_word("console", o->console, consoles, &word, err);
	if (rc < 0)
		return rc;
	c->console = word;
	snprintf(c->cpu_model, sizeof(c->cpu_model), "%s",
		 o->cpu_model ? o->cpu_model : "");
	for (u32 i = 0; !rc && i < o->forwards.count; i++)
		rc = add_forward(s, o->forwards.items[i], err);
	return rc;
}

/* The folder of the machine's own disk, new: from a snapshot or an image, with
 * a layer on top to write to. It takes the place of the old one when the
 * machine is there. */
static int make_disk(struct start *s, const char *image, struct err *err)
{
	char from[MACHINE_PATH_MAX + 16];
	struct image im;
	int fd, rc = 0;

	if (!s->o->restore)
		rc = image_find(image, &im, err);
	if (!rc && !s->o->restore && s->o->memory_bytes < 128 * MIB)
		rc = err_set(err, -EINVAL,
			     "image '%s' needs at least 128M of memory", image);
	if (!rc)
		rc = os_mkdir_p(s->m->data_dir, 0700, err);
	if (rc)
		return rc;
	s->m->has_data = true;
	if (s->is_temporary && s->m->data_mark_fd < 0)
		rc = machine_mark(s->m->data_dir, &s->m->data_mark_fd, err);
	snprintf(s->new_disk, sizeof(s->new_disk), "%s/disk.new",
		 s->m->data_dir);
	if (!rc)
		rc = image_remove_tree(s->new_disk, err); /* of one killed */
	snprintf(from, sizeof(from), "%s/disk",
		 s->o->restore ? s->o->restore : "");
	if (!rc)
		rc = s->o->restore ? layers_link(from, false, s->new_disk, err)
				   : layers_from_image(&im, s->new_disk, err);
	if (!rc)
		rc = layers_merge(s->new_disk, err);
	if (!rc)
		rc = layers_add(s->new_disk, &fd, err);
	if (!rc)
		close(fd);
	return rc;
}

static int pass_if_there(struct start *s, const char *dir, const char *name,
			 int *out_index, struct err *err)
{
	char path[LAYERS_PATH_MAX];

	snprintf(path, sizeof(path), "%.4200s/%s", dir, name);
	return access(path, F_OK)
		       ? 0
		       : pass_file(s, path, name, O_RDONLY, out_index, err);
}

/* A named image: the machine has a disk of its own over it. */
static int add_named_image(struct start *s, const char *name, struct err *err)
{
	char disk[MACHINE_PATH_MAX + 32], top[LAYERS_PATH_MAX];
	struct disk_option o = {.path = top};
	const char *format;
	int rc = 0;

	snprintf(disk, sizeof(disk), "%s/disk", s->m->data_dir);
	if (s->o->restore || access(disk, F_OK)) {
		rc = make_disk(s, name, err);
		snprintf(disk, sizeof(disk), "%s", s->new_disk);
	} else {
		rc = layers_merge(disk, err);
	}
	if (!rc)
		rc = layers_top(disk, top, &format, err);
	if (!rc)
		rc = pass_qcow2(s, &o, err);
	if (rc || s->o->kernel)
		return rc;
	rc = pass_if_there(s, disk, "vmlinuz", &s->config.kernel_fd, err);
	if (!rc)
		rc = pass_if_there(s, disk, "initrd.img", &s->config.initrd_fd,
				   err);
	snprintf(s->config.append, sizeof(s->config.append),
		 "console=ttyS0 root=/dev/vda rw%s%s", s->o->append ? " " : "",
		 s->o->append ? s->o->append : "");
	return rc;
}

static int add_snapshot(struct start *s, struct err *err)
{
	char path[MACHINE_PATH_MAX + 16];
	int rc;

	snprintf(path, sizeof(path), "%s/state", s->o->restore);
	rc = pass_file(s, path, "the snapshot's state", O_RDONLY,
		       &s->config.restore_state_fd, err);
	snprintf(path, sizeof(path), "%s/memory", s->o->restore);
	return rc ? rc
		  : pass_file(s, path, "the snapshot's memory", O_RDONLY,
			      &s->config.restore_memory_fd, err);
}

static int add_files(struct start *s, const char *image, struct err *err)
{
	const struct machine_options *o = s->o;
	char log[MACHINE_PATH_MAX + 16];
	int rc = 0;

	if (image && (strchr("./", image[0]) || access(image, F_OK) == 0))
		rc = pass_disk(s, image, false, err);
	else if (image)
		rc = add_named_image(s, image, err);
	if (!rc && o->kernel)
		rc = pass_file(s, o->kernel, "kernel", O_RDONLY,
			       &s->config.kernel_fd, err);
	if (!rc && o->initrd)
		rc = pass_file(s, o->initrd, "initrd", O_RDONLY,
			       &s->config.initrd_fd, err);
	if (o->kernel && o->append) {
		if (strlen(o->append) >= API_APPEND_MAX)
			return err_set(err, -E2BIG, "--append is too long");
		strcpy(s->config.append, o->append);
	}
	for (u32 i = 0; !rc && i < o->disks.count; i++)
		rc = add_disk_option(s, o->disks.items[i], err);
	if (!rc && o->restore)
		rc = add_snapshot(s, err);
	if (!rc && o->debugcon)
		rc = pass_file(s, o->debugcon, "debug console",
			       O_WRONLY | O_CREAT | O_TRUNC,
			       &s->config.debugcon_fd, err);
	snprintf(log, sizeof(log), "%s/console.log", s->m->run_dir);
	if (!rc)
		rc = pass_file(s, log, "console log",
			       O_WRONLY | O_CREAT | O_TRUNC,
			       &s->config.console_log_fd, err);
	if (!rc && s->config.kernel_fd < 0)
		return err_set(err, -EINVAL,
			       "no kernel: a disk image by itself cannot be "
			       "booted yet; give --kernel");
	return rc;
}

static int add_listener(struct start *s, struct err *err)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return err_sys(err, -errno, "open control socket");
	if (strlen(s->m->run_dir) > 90) {
		close(fd);
		return err_set(err, -ENAMETOOLONG,
			       "socket path '%s' is too long", s->m->run_dir);
	}
	snprintf(a.sun_path, sizeof(a.sun_path), "%.90s/control.sock",
		 s->m->run_dir);
	unlink(a.sun_path);
	if (bind(fd, (struct sockaddr *)&a, sizeof(a)) || listen(fd, 16)) {
		int rc = err_sys(err, -errno, "bind '%s'", a.sun_path);

		close(fd);
		return rc;
	}
	s->config.listen_fd = pass_fd(s, fd);
	return s->config.listen_fd < 0 ? -EMFILE : 0;
}

/* Beside this program, in ../libexec, or in PATH. */
static void find_vmm(char *out, size_t cap)
{
	char self[OS_PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	char *slash;

	self[n > 0 ? n : 0] = 0;
	slash = strrchr(self, '/');
	if (slash) {
		*slash = 0;
		snprintf(out, cap, "%s/skerry-vmm", self);
		if (access(out, X_OK) == 0)
			return;
	}
	snprintf(out, cap, "skerry-vmm");
}

static int spawn_vmm(struct start *s, bool is_child, struct err *err)
{
	char path[OS_PATH_MAX + 16];
	char *argv[] = {path, NULL};
	int pair[2], fds[4], rc;
	struct os_spawn how = {.argv = argv,
			       .fds = fds,
			       .fd_count = 4,
			       .new_session = !is_child,
			       .die_with_parent = is_child};

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return err_sys(err, -errno, "open control socket");
	find_vmm(path, sizeof(path));
	fds[0] = fds[1] = -1;
	fds[2] = is_child ? 2 : s->fds[s->config.console_log_fd];
	fds[3] = pair[1];
	rc = os_spawn(&how, &s->m->pid, NULL, err);
	close(pair[1]);
	if (rc) {
		close(pair[0]);
		return err_wrap(err, "start skerry-vmm");
	}
	s->m->control_fd = pair[0];
	return 0;
}

static int reserve_name(struct start *s, struct err *err)
{
	struct machine other;
	char name[64];
	int rc;

	if (s->o->name)
		snprintf(name, sizeof(name), "%s", s->o->name);
	else
		pick_name(name, sizeof(name));
	rc = machine_paths(name, s->m, err);
	if (rc)
		return rc;
	s->m->is_kept = s->o->name && !s->o->rm;
	s->m->has_data = access(s->m->data_dir, F_OK) == 0;
	if (mkdir(s->m->run_dir, 0700) && errno != EEXIST) {
		rc = err_sys(err, -errno, "create '%s'", s->m->run_dir);
		s->m->run_dir[0] = 0;
		return rc;
	}
	s->lock_fd = open(s->m->run_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s->lock_fd < 0) {
		rc = err_sys(err, -errno, "lock '%s'", s->m->run_dir);
		rmdir(s->m->run_dir);
		s->m->run_dir[0] = 0;
		return rc;
	}
	if (flock(s->lock_fd, LOCK_EX | LOCK_NB)) {
		err_set(err, -EEXIST, "machine '%s' is being started", name);
		err_set_id(err, "machine.exists");
		s->m->run_dir[0] = 0;
		return -EEXIST;
	}
	/* A folder that was there may be that of a machine that ended. */
	rc = machine_connect(name, &other, NULL);
	if (rc == 0) {
		close(other.control_fd);
		err_set(err, -EEXIST, "machine '%s' runs already", name);
		err_set_id(err, "machine.exists");
		s->m->run_dir[0] = 0;
		return -EEXIST;
	}
	rc = 0;
	if (s->is_temporary)
		rc = machine_mark(s->m->run_dir, &s->m->run_mark_fd, err);
	if (rc) /* without descriptors, remove_folders() cannot do it */
		rmdir(s->m->run_dir);
	return rc;
}

static void remove_folders(struct machine *m)
{
	if (m->run_dir[0])
		image_remove_tree(m->run_dir, NULL);
	if (m->has_data && !m->is_kept)
		image_remove_tree(m->data_dir, NULL);
}

/* What was not known of the host before is kept for the next machine. */
static void learn(const struct start *s, const json_t *result)
{
	const char *engine =
		json_string_value(json_object_get(result, "engine"));
	const char *why =
		json_string_value(json_object_get(result, "engine_reason"));
	struct host_facts f = {0};

	if (s->config.tsc_khz &&
	    (s->config.kvm_refused[0] || s->config.engine != API_ENGINE_AUTO))
		return;
	host_facts_read(&f);
	f.tsc_khz = (u32)json_integer_value(json_object_get(result, "tsc_khz"));
	if (s->config.engine == API_ENGINE_AUTO && engine && why &&
	    strcmp(engine, "soft") == 0)
		snprintf(f.kvm_refused, sizeof(f.kvm_refused), "%s", why);
	host_facts_write(&f);
}

static int create(struct start *s, struct err *err)
{
	struct host_facts f;
	json_t *result = NULL;
	int rc;

	host_facts_read(&f);
	s->config.tsc_khz = f.tsc_khz;
	strcpy(s->config.kvm_refused, f.kvm_refused);
	rc = control_call(s->m->control_fd, CONTROL_MACHINE_CREATE,
			  api_machine_config_to_json(&s->config), s->fds,
			  s->fd_count, CREATE_WAIT_MS, NULL, NULL, &result,
			  err);
	if (rc == 0)
		learn(s, result);
	json_decref(result);
	return rc;
}

/* The machine is there and waits: its disk gets its name, then it runs. If we
 * are killed before, it ends, and the old disk is still there. */
static int let_go(struct start *s, struct err *err)
{
	char disk[MACHINE_PATH_MAX + 16];
	int rc = 0;

	snprintf(disk, sizeof(disk), "%s/disk", s->m->data_dir);
	if (s->new_disk[0]) {
		rc = layers_replace(disk, s->new_disk, err);
		image_remove_tree(s->new_disk, NULL);
	}
	return rc ? rc
		  : control_call(s->m->control_fd, CONTROL_MACHINE_RESUME, NULL,
				 NULL, 0, CREATE_WAIT_MS, NULL, NULL, NULL,
				 err);
}

/* The same for the same name, so that it is what a restored guest knows.
 * FNV-1a. Nothing breaks when two are equal: each vmm has its own vsock. */
static u32 vsock_cid(const char *name)
{
	u32 h = 2166136261u;

	for (; *name; name++)
		h = (h ^ (u8)*name) * 16777619u;
	return 3 + h % 0x7ffffff0u;
}

int machine_start(const struct machine_options *o, const char *image,
		  bool is_child, enum machine_serial serial,
		  struct machine *out, int *out_serial, struct err *err)
{
	struct start *s = calloc(1, sizeof(*s));
	int pair[2] = {-1, -1}, rc;
	bool had_data;

	if (!s)
		return err_sys(err, -ENOMEM, "start machine");
	s->o = o;
	s->m = out;
	s->lock_fd = -1;
	api_machine_config_init(&s->config);
	rc = fill_plain(s, err);
	if (rc) {
		free(s);
		return rc;
	}
	s->config.is_held = true;
	if (o->new_mac) {
		const u8 *a = o->new_mac;

		s->config.new_identity = true;
		snprintf(s->config.mac, sizeof(s->config.mac),
			 "%02x:%02x:%02x:%02x:%02x:%02x", a[0], a[1], a[2],
			 a[3], a[4], a[5]);
	}
	s->is_temporary = o->rm || (is_child && !o->name);
	machine_remove_stale();
	rc = reserve_name(s, err);
	had_data = out->has_data;
	if (!rc) {
		snprintf(s->config.name, sizeof(s->config.name), "%s",
			 out->name);
		s->config.vsock_cid = vsock_cid(out->name);
		rc = add_files(s, image, err);
	}
	if (!rc)
		rc = launch_record_write(out->run_dir, image, o, err);
	if (!rc)
		rc = add_listener(s, err);
	if (!rc && serial == MACHINE_SERIAL_SOCKET) {
		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
			rc = err_sys(err, -errno, "open serial socket");
		else
			s->config.serial_fd = pass_fd(s, pair[1]);
		s->config.serial_input = true;
	}
	if (!rc)
		rc = spawn_vmm(s, is_child, err);
	if (!rc)
		rc = create(s, err);
	if (!rc)
		rc = let_go(s, err);
	control_close_fds(s->fds, s->fd_count);
	if (rc) {
		if (s->new_disk[0])
			image_remove_tree(s->new_disk, NULL);
		if (pair[0] >= 0)
			close(pair[0]);
		if (out->pid > 0) {
			kill(out->pid, SIGKILL);
			os_wait(out->pid);
		}
		if (out->control_fd >= 0)
			close(out->control_fd);
		if (rc != -EEXIST || out->run_dir[0]) {
			out->is_kept = had_data;
			remove_folders(out);
		}
	} else if (out_serial) {
		*out_serial = pair[0];
	}
	if (s->lock_fd >= 0)
		close(s->lock_fd);
	free(s);
	return rc;
}

void machine_finish(struct machine *m)
{
	if (m->pid > 0)
		os_wait(m->pid);
	if (m->control_fd >= 0)
		close(m->control_fd);
	m->control_fd = -1;
	remove_folders(m);
}
