/* SPDX-License-Identifier: Apache-2.0 */
/* snapshot create, list, restore, delete, check. */
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "cli/snapshot.h"
#include "cli/snapshot_options.h"
#include "cli/verbs.h"
#include "cli/wait.h"

/* clang-format off */
const struct cli_option snapshot_create_options[] = {
	{"note", CLI_TEXT, offsetof(struct snapshot_options, note), "TEXT",
	 "a line about it, for the list"},
	{0},
};
const struct cli_option snapshot_restore_options[] = {
	{"force", CLI_FLAG, offsetof(struct snapshot_options, force), NULL,
	 "also when the machine runs: what it is now is lost"},
	{0},
};
/* clang-format on */

int snapshot_fail(const struct err *err)
{
	const char *hint = NULL;

	if (strcmp(err->id, "snapshot.missing") == 0)
		hint = "'skerry snapshot list' shows what there is";
	else if (strcmp(err->id, "machine.stopped") == 0)
		hint = "a snapshot is made of a machine that runs";
	else if (strcmp(err->id, "disk.layers") == 0)
		hint = "stop the machine and start it again: that merges them";
	else if (strcmp(err->id, "snapshot.damaged") == 0)
		hint = "'skerry snapshot delete' removes it";
	cli_report(err, hint);
	return CLI_FAILED;
}

int verb_snapshot_create(void *values, struct cli_args *args)
{
	struct snapshot_options *o = values;
	struct snapshot_wish w = {
		.machine = args->words[0],
		.name = args->count == 2 ? args->words[1] : "",
		.note = o->note ? o->note : "",
		.shows_progress = isatty(2),
	};
	struct snapshot_made made;
	struct err err = {0};

	if (args->count < 1 || args->count > 2)
		return cli_usage("snapshot create", "use: NAME [SNAP]");
	if (snapshot_create(&w, &made, &err))
		return snapshot_fail(&err);
	printf("%s\n", made.name);
	fprintf(stderr, "%llu MiB; the machine stood still for %.1f ms\n",
		(unsigned long long)(made.info.used_bytes / MIB),
		(double)made.info.pause_ns / 1e6);
	return CLI_OK;
}

static void print_age(i64 created, char *out, size_t cap)
{
	long long s = (long long)time(NULL) - created;

	if (s < 120)
		snprintf(out, cap, "%lld s", MAX(s, 0));
	else if (s < 2 * 3600)
		snprintf(out, cap, "%lld min", s / 60);
	else if (s < 2 * 86400)
		snprintf(out, cap, "%lld h", s / 3600);
	else
		snprintf(out, cap, "%lld d", s / 86400);
}

static int by_age(const void *a, const void *b)
{
	const struct snapshot_row *x = a, *y = b;

	return (x->info.created > y->info.created) -
	       (x->info.created < y->info.created);
}

static void print_row(const char *machine, const struct snapshot_row *r,
		      int depth, const char *head, bool *is_first)
{
	char age[32], self[112], name[128];

	if (*is_first)
		printf("%-20s %-24s %8s %8s %9s  %s\n", "MACHINE", "SNAPSHOT",
		       "AGE", "MEMORY", "USED", "NOTE");
	*is_first = false;
	snprintf(self, sizeof(self), "%.48s/%.48s", machine, r->name);
	snprintf(name, sizeof(name), "%*s%s%s", MIN(depth, 20), "", r->name,
		 strcmp(self, head) ? "" : " *");
	print_age(r->info.created, age, sizeof(age));
	printf("%-20s %-24s %8s %7lluM %8lluM  %s\n", machine, name, age,
	       (unsigned long long)(r->info.memory_bytes / MIB),
	       (unsigned long long)(r->info.used_bytes / MIB), r->info.note);
}

/* The rows whose parent is `parent`, each with what came from it below.
 * "": those whose parent is none of the machine's. Damaged files may say
 * anything: each row is printed once. */
static void print_tree(const char *machine, struct snapshot_row *rows, size_t n,
		       const char *parent, int depth, const char *head,
		       bool *is_first)
{
	for (size_t i = 0; i < n; i++) {
		bool is_child;

		if (rows[i].is_printed)
			continue;
		is_child = parent[0] ? strcmp(rows[i].info.parent, parent) == 0
				     : !rows[i].has_parent;
		if (!is_child)
			continue;
		rows[i].is_printed = true;
		print_row(machine, &rows[i], depth, head, is_first);
		print_tree(machine, rows, n, rows[i].self, depth + 1, head,
			   is_first);
	}
}

static size_t read_rows(const char *machine, struct snapshot_row *rows)
{
	char dir[MACHINE_PATH_MAX];
	struct dirent *e;
	size_t n = 0;
	DIR *d;

	if (snapshot_dir(machine, NULL, dir, NULL))
		return 0;
	d = opendir(dir);
	while (d && n < SNAPSHOT_ROWS_MAX && (e = readdir(d))) {
		struct snapshot_row *r = &rows[n];

		if (!machine_name_is_valid(e->d_name))
			continue;
		memset(r, 0, sizeof(*r));
		snprintf(r->name, sizeof(r->name), "%.48s", e->d_name);
		snprintf(r->self, sizeof(r->self), "%.48s/%.48s", machine,
			 r->name);
		if (snapshot_find(machine, r->name, dir, &r->info, NULL))
			snprintf(r->info.note, sizeof(r->info.note),
				 "(damaged)");
		n++;
	}
	if (d)
		closedir(d);
	return n;
}

static void list_machine(const char *machine, bool *is_first)
{
	static struct snapshot_row rows[SNAPSHOT_ROWS_MAX];
	size_t n = read_rows(machine, rows);
	char head[112];

	qsort(rows, n, sizeof(rows[0]), by_age);
	for (size_t i = 0; i < n; i++)
		for (size_t j = 0; j < n; j++)
			if (i != j &&
			    strcmp(rows[i].info.parent, rows[j].self) == 0)
				rows[i].has_parent = true;
	snapshot_head(machine, head, sizeof(head));
	print_tree(machine, rows, n, "", 0, head, is_first);
	for (size_t i = 0; i < n; i++) /* parents in a circle: damaged */
		if (!rows[i].is_printed)
			print_row(machine, &rows[i], 0, head, is_first);
}

int verb_snapshot_list(void *values, struct cli_args *args)
{
	char data[OS_PATH_MAX], dir[OS_PATH_MAX + 16];
	bool is_first = true;
	struct err err = {0};
	struct dirent *e;
	DIR *d;

	for (int i = 0; i < args->count; i++) {
		if (!machine_name_is_valid(args->words[i])) {
			err_set(&err, -EINVAL, "'%s' is not a machine name",
				args->words[i]);
			return snapshot_fail(&err);
		}
		list_machine(args->words[i], &is_first);
	}
	if (args->count)
		return CLI_OK;
	if (os_data_dir(data, &err))
		return snapshot_fail(&err);
	snprintf(dir, sizeof(dir), "%s/snapshots", data);
	d = opendir(dir);
	while (d && (e = readdir(d)))
		if (machine_name_is_valid(e->d_name))
			list_machine(e->d_name, &is_first);
	if (d)
		closedir(d);
	return CLI_OK;
}

/* The machine makes room for what it was. */
static int end_machine(const char *name, bool is_forced, struct err *err)
{
	struct ending e = {0};
	struct machine m;
	bool ready;
	int rc = machine_connect(name, &m, NULL);

	if (rc)
		return 0;
	if (!is_forced) {
		close(m.control_fd);
		err_set(err, -EBUSY,
			"machine '%s' runs: with --force what it is now is "
			"lost",
			name);
		return -EBUSY;
	}
	machine_kill(&m);
	for (int i = 0; i < 20 && !e.has_ended; i++) {
		poll(&(struct pollfd){m.control_fd, POLLIN, 0}, 1, 500);
		ending_poll(&m, &e, &ready);
	}
	close(m.control_fd);
	return e.has_ended ? 0
			   : err_set(err, -ETIMEDOUT,
				     "machine '%s' does not end", name);
}

/* Without the agent it shows the time of the snapshot, which NTP may right. */
void snapshot_set_clock(struct machine *m)
{
	struct ending e = {0};
	struct err err = {0};

	if (ending_subscribe(m, &e, NULL) || !e.is_agent_ready)
		return;
	if (agent_set_time(m, &err))
		fprintf(stderr, "skerry: the guest's clock is late: %s\n",
			err.text);
}

static int restore(const char *machine, const char *name, struct machine *out,
		   struct err *err)
{
	char dir[MACHINE_PATH_MAX], head[112];
	struct snapshot_start how = {.dir = dir, .name = machine, .head = head};
	int rc = snapshot_find(machine, name, dir, NULL, err);

	snprintf(head, sizeof(head), "%.48s/%.48s", machine, name);
	return rc ? rc : snapshot_start(&how, out, err);
}

int verb_snapshot_restore(void *values, struct cli_args *args)
{
	struct snapshot_options *o = values;
	u64 start = clock_mono_ns();
	struct err err = {0};
	struct machine m;
	int rc;

	if (args->count != 2)
		return cli_usage("snapshot restore", "use: NAME SNAP");
	rc = snapshot_check_state(args->words[0], args->words[1], &err);
	if (!rc)
		rc = end_machine(args->words[0], o->force, &err);
	if (!rc)
		rc = restore(args->words[0], args->words[1], &m, &err);
	if (rc)
		return snapshot_fail(&err);
	fprintf(stderr, "%s runs after %.1f ms\n", m.name,
		(double)(clock_mono_ns() - start) / 1e6);
	snapshot_set_clock(&m);
	printf("%s\n", m.name);
	return CLI_OK;
}

static int suspend_one(const char *machine, struct err *err)
{
	struct snapshot_wish w = {
		.machine = machine,
		.name = SNAPSHOT_SUSPENDED,
		.note = "",
		.ends_machine = true,
		.shows_progress = isatty(2),
	};
	struct snapshot_made made;
	int rc = snapshot_create(&w, &made, err);

	return rc ? rc : end_machine(machine, true, err);
}

int verb_suspend(void *values, struct cli_args *args)
{
	int status = CLI_OK;

	if (args->count == 0)
		return cli_usage("suspend", "no NAME given");
	for (int i = 0; i < args->count; i++) {
		struct err err = {0};

		if (suspend_one(args->words[i], &err))
			status = snapshot_fail(&err);
	}
	return status;
}

/* The snapshot goes when the machine is there. */
static int resume_one(const char *machine, struct err *err)
{
	struct machine m;
	int rc = snapshot_check_state(machine, SNAPSHOT_SUSPENDED, err);

	if (rc == -ENOENT)
		return err_set(err, rc, "machine '%s' is not suspended",
			       machine);
	if (!rc)
		rc = restore(machine, SNAPSHOT_SUSPENDED, &m, err);
	if (rc)
		return rc;
	snapshot_set_clock(&m);
	return snapshot_delete(machine, SNAPSHOT_SUSPENDED, err);
}

int verb_resume(void *values, struct cli_args *args)
{
	int status = CLI_OK;

	if (args->count == 0)
		return cli_usage("resume", "no NAME given");
	for (int i = 0; i < args->count; i++) {
		struct err err = {0};

		if (resume_one(args->words[i], &err))
			status = snapshot_fail(&err);
	}
	return status;
}

static int for_each(struct cli_args *args, const char *verb,
		    int (*fn)(const char *machine, const char *name,
			      struct err *err))
{
	int status = CLI_OK;

	if (args->count < 2)
		return cli_usage(verb, "use: NAME SNAP…");
	for (int i = 1; i < args->count; i++) {
		struct err err = {0};

		if (fn(args->words[0], args->words[i], &err))
			status = snapshot_fail(&err);
	}
	return status;
}

int verb_snapshot_delete(void *values, struct cli_args *args)
{
	return for_each(args, "snapshot delete", snapshot_delete);
}

int verb_snapshot_check(void *values, struct cli_args *args)
{
	return for_each(args, "snapshot check", snapshot_check);
}
