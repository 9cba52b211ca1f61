/* SPDX-License-Identifier: Apache-2.0 */
/* fork and clone.
 *
 * A fork goes on from where another machine is, or was at a snapshot: its
 * memory is that snapshot's, mapped privately, its disk a layer over the same
 * files. A clone has the disk only.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/clock.h"
#include "cli/image_file.h"
#include "cli/layers.h"
#include "cli/snapshot_options.h"
#include "cli/verbs.h"
#include "cli/wait.h"

#define FORKS_MAX 1000

/* clang-format off */
#define AT(m) offsetof(struct fork_options, m)
const struct cli_option fork_options[] = {
	{"n", CLI_COUNT, AT(count), "N", "how many (1)"},
	{"name", CLI_TEXT, AT(name), "NEW",
	 "what they are called: NEW, or NEW-1, NEW-2, … (NAME-1, …)"},
	{"keep-identity", CLI_FLAG, AT(keep_identity), NULL,
	 "keep host name, machine id, MAC address and random numbers"},
	{0},
};
const struct cli_option clone_options[] = {
	{"full", CLI_FLAG, AT(full), NULL,
	 "copy the disk, so that it shares nothing with NAME's"},
	{0},
};
/* clang-format on */

void fork_options_init(void *values)
{
	((struct fork_options *)values)->count = 1;
}

/* ---- fork ---- */

struct origin {
	char machine[64];
	char dir[MACHINE_PATH_MAX + 128]; /* of a snapshot */
	char head[112];
	bool is_hidden; /* made for this, and removed afterwards */
};

/* NAME@SNAP, or NAME as it is now. */
static int find_origin(const char *text, struct origin *out, struct err *err)
{
	const char *at = strchr(text, '@');
	struct snapshot_wish w = {
		.machine = out->machine,
		.name = "fork",
		.note = "",
		.is_hidden = true,
	};
	struct snapshot_made made;
	int rc;

	memset(out, 0, sizeof(*out));
	snprintf(out->machine, sizeof(out->machine), "%.*s",
		 at ? (int)MIN(at - text, 60) : 60, text);
	if (at) {
		snprintf(out->head, sizeof(out->head), "%.48s/%.48s",
			 out->machine, at + 1);
		rc = snapshot_check_state(out->machine, at + 1, err);
		return rc ? rc
			  : snapshot_find(out->machine, at + 1, out->dir, NULL,
					  err);
	}
	rc = snapshot_create(&w, &made, err);
	if (!rc) {
		snprintf(out->dir, sizeof(out->dir), "%s", made.dir);
		snprintf(out->head, sizeof(out->head), "%s", made.info.parent);
		out->is_hidden = true;
	}
	return rc;
}

static bool is_taken(const char *name)
{
	struct machine m;

	return machine_paths(name, &m, NULL) == 0 &&
	       (access(m.run_dir, F_OK) == 0 || access(m.data_dir, F_OK) == 0);
}

/* The next name that no machine has. */
static int next_name(const struct origin *from, const struct fork_options *o,
		     u32 *number, char *out, size_t cap, struct err *err)
{
	if (o->name && o->count == 1) {
		snprintf(out, cap, "%.60s", o->name);
		if (!is_taken(out))
			return 0;
		err_set(err, -EEXIST, "machine '%s' is there already", out);
		err_set_id(err, "machine.exists");
		return -EEXIST;
	}
	do {
		snprintf(out, cap, "%.60s-%u",
			 o->name ? o->name : from->machine, ++*number);
	} while (is_taken(out) && *number < 1000000);
	return 0;
}

static int make_identity(const char *name, struct agent_identity *out,
			 struct err *err)
{
	u8 id[16];

	memset(out, 0, sizeof(*out));
	if (getrandom(out->seed, sizeof(out->seed), 0) != sizeof(out->seed) ||
	    getrandom(out->mac, 6, 0) != 6 || getrandom(id, 16, 0) != 16)
		return err_set(err, -EIO, "no randomness for an identity");
	out->mac[0] = 0x52; /* locally administered */
	out->mac[1] = 0x54;
	out->mac[2] = 0x00;
	id[6] = (id[6] & 0x0f) | 0x40; /* machine-id(5): as a UUID */
	id[8] = (id[8] & 0x3f) | 0x80;
	for (int i = 0; i < 16; i++)
		snprintf(out->machine_id + 2 * i, 3, "%02x", id[i]);
	snprintf(out->hostname, sizeof(out->hostname), "%.64s", name);
	for (char *p = out->hostname; *p; p++)
		if (*p == '_')
			*p = '-';
	return 0;
}

/* Random numbers first: until then it has those of the other. */
static void tell_agent(struct machine *m, const struct agent_identity *id)
{
	struct ending e = {0};
	struct err err = {0};

	if (ending_subscribe(m, &e, NULL) || !e.is_agent_ready) {
		fprintf(stderr,
			"skerry: no agent in '%s': it keeps its host name and "
			"machine id\n",
			m->name);
		return;
	}
	if (id && agent_set_identity(m, id, &err))
		fprintf(stderr, "skerry: '%s': %s\n", m->name, err.text);
	err = (struct err){0};
	if (agent_set_time(m, &err))
		fprintf(stderr, "skerry: '%s': %s\n", m->name, err.text);
}

static int fork_one(const struct origin *from, const char *name,
		    bool keeps_identity, u64 start_ns, struct err *err)
{
	struct agent_identity id;
	struct snapshot_start how = {
		.dir = from->dir,
		.name = name,
		.head = from->head,
		.is_fork = true,
		.identity = keeps_identity ? NULL : &id,
	};
	struct machine m;
	int rc = make_identity(name, &id, err);

	if (!rc)
		rc = snapshot_start(&how, &m, err);
	if (rc)
		return rc;
	fprintf(stderr, "%s runs after %.1f ms\n", m.name,
		(double)(clock_mono_ns() - start_ns) / 1e6);
	tell_agent(&m, how.identity);
	printf("%s\n", m.name);
	fflush(stdout);
	close(m.control_fd);
	return 0;
}

int verb_fork(void *values, struct cli_args *args)
{
	struct fork_options *o = values;
	u64 start = clock_mono_ns();
	struct origin from;
	struct err err = {0};
	u32 number = 0;
	char name[80];
	int rc;

	if (args->count != 1)
		return cli_usage("fork", "use: NAME or NAME@SNAP");
	if (o->count < 1 || o->count > FORKS_MAX)
		return cli_usage("fork", "-n is 1 to 1000");
	if (o->name && !machine_name_is_valid(o->name))
		return cli_usage("fork", "--name is no machine name");
	rc = find_origin(args->words[0], &from, &err);
	for (u32 i = 0; !rc && i < o->count; i++) {
		rc = next_name(&from, o, &number, name, sizeof(name), &err);
		if (!rc)
			rc = fork_one(&from, name, o->keep_identity, start,
				      &err);
		start = clock_mono_ns();
	}
	if (from.is_hidden)
		image_remove_tree(from.dir, NULL);
	return rc ? snapshot_fail(&err) : CLI_OK;
}

/* ---- clone ---- */

/* All layers as one, and a layer to write to. */
static int flatten(const char *from, const char *to, struct err *err)
{
	char top[LAYERS_PATH_MAX], base[LAYERS_PATH_MAX], raw[LAYERS_PATH_MAX];
	const char *format;
	int fd, rc = layers_top(from, top, &format, err);

	snprintf(base, sizeof(base), "%.4200s/0.raw", from);
	snprintf(raw, sizeof(raw), "%.4200s/0.raw", to);
	if (!rc)
		rc = layers_link_boot(from, to, err);
	if (!rc)
		rc = image_copy_in_use(base, raw, err);
	if (!rc && strcmp(format, "raw"))
		rc = image_merge(top, raw, "raw", err);
	if (!rc)
		rc = layers_add(to, &fd, err);
	if (!rc)
		close(fd);
	return rc;
}

/* The folder of a disk that nobody writes while we look: of a running machine,
 * what it was a moment ago. */
static int still_disk(const char *machine, struct origin *out, char *disk,
		      struct err *err)
{
	struct machine m;
	int rc = machine_connect(machine, &m, err);

	if (rc == 0) {
		close(m.control_fd);
		rc = find_origin(machine, out, err);
		snprintf(disk, LAYERS_PATH_MAX, "%.4200s/disk", out->dir);
		return rc;
	}
	if (rc != -ESRCH)
		return rc;
	snprintf(disk, LAYERS_PATH_MAX, "%.4200s/disk", m.data_dir);
	*err = (struct err){0};
	return 0;
}

/* A stopped machine goes on in a new layer, too: what was its last one is the
 * clone's as well from now on. */
static int share_disk(const char *disk, bool is_stopped, const char *to,
		      struct err *err)
{
	int fd = -1, rc = 0;

	if (is_stopped) {
		rc = layers_add(disk, &fd, err);
		if (rc)
			return rc;
		close(fd);
	}
	rc = layers_link(disk, is_stopped, to, err);
	if (!rc)
		rc = layers_add(to, &fd, err);
	if (!rc)
		close(fd);
	return rc;
}

static int clone_disk(const char *machine, const char *name, bool is_full,
		      struct err *err)
{
	char disk[LAYERS_PATH_MAX], new[LAYERS_PATH_MAX];
	struct origin from = {0};
	struct machine m;
	int rc = machine_paths(name, &m, err);

	if (!rc && is_taken(name)) {
		err_set(err, -EEXIST, "machine '%s' is there already", name);
		err_set_id(err, "machine.exists");
		return -EEXIST;
	}
	if (!rc)
		rc = still_disk(machine, &from, disk, err);
	if (!rc && access(disk, F_OK))
		rc = err_set(err, -ENOENT,
			     "machine '%s' has no disk of its own", machine);
	snprintf(new, sizeof(new), "%.4200s/disk.new", m.data_dir);
	if (!rc)
		rc = os_mkdir_p(new, 0700, err);
	if (!rc && is_full)
		rc = flatten(disk, new, err);
	else if (!rc)
		rc = share_disk(disk, !from.is_hidden, new, err);
	snprintf(disk, sizeof(disk), "%.4200s/disk", m.data_dir);
	if (!rc)
		rc = layers_replace(disk, new, err);
	if (rc && m.data_dir[0])
		image_remove_tree(m.data_dir, NULL);
	if (from.is_hidden)
		image_remove_tree(from.dir, NULL);
	return rc;
}

int verb_clone(void *values, struct cli_args *args)
{
	struct fork_options *o = values;
	struct err err = {0};

	if (args->count != 2)
		return cli_usage("clone", "use: NAME NEW");
	if (clone_disk(args->words[0], args->words[1], o->full, &err))
		return snapshot_fail(&err);
	printf("%s\n", args->words[1]);
	return CLI_OK;
}
