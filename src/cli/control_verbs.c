/* SPDX-License-Identifier: Apache-2.0 */
/* The verbs that talk to a machine that runs: list, exec, shell, console,
 * stop, delete. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "cli/exec_options.h"
#include "cli/image.h"
#include "cli/snapshot.h"
#include "cli/stop_options.h"
#include "cli/verbs.h"
#include "cli/wait.h"

/* clang-format off */
const struct cli_option exec_options[] = {
	{"tty", CLI_FLAG, offsetof(struct exec_options, tty), NULL,
	 "give the command a terminal"},
	{0},
};
const struct cli_option stop_options[] = {
	{"force", CLI_FLAG, offsetof(struct stop_options, force), NULL,
	 "end it at once, as if the power failed"},
	{"timeout", CLI_COUNT, offsetof(struct stop_options, timeout_s),
	 "SECONDS", "how long it may take (300)"},
	{0},
};
const struct cli_option delete_options[] = {
	{"force", CLI_FLAG, offsetof(struct stop_options, force), NULL,
	 "also when it runs"},
	{0},
};
/* clang-format on */

void stop_options_init(void *values)
{
	((struct stop_options *)values)->timeout_s = 300;
}

static const char *hint_for(const struct err *err)
{
	if (strcmp(err->id, "machine.missing") == 0)
		return "'skerry list' shows the machines";
	if (strcmp(err->id, "machine.stopped") == 0)
		return "'skerry delete' removes what is left of it";
	return NULL;
}

static void list_one(void *opaque, const char *name)
{
	struct control_status st = {0};
	char dir[MACHINE_PATH_MAX];
	json_t *result = NULL;
	struct machine m;

	strcpy(st.state,
	       snapshot_find(name, SNAPSHOT_SUSPENDED, dir, NULL, NULL) == 0
		       ? "suspended"
		       : "stopped");
	if (machine_connect(name, &m, NULL) == 0) {
		strcpy(st.state, "unknown");
		if (control_call(m.control_fd, CONTROL_STATUS, NULL, NULL, 0,
				 2000, NULL, NULL, &result, NULL) == 0)
			control_status_from_json(result, &st, NULL);
		json_decref(result);
		close(m.control_fd);
	}
	printf("%-24s %-9s %-6s %4u %6lluM %6d %s\n", name, st.state,
	       st.engine[0] ? st.engine : "-", st.cpus,
	       (unsigned long long)(st.memory_bytes / MIB), st.pid,
	       st.is_agent_ready ? "ready" : "-");
}

int verb_list(void *values, struct cli_args *args)
{
	struct err err = {0};

	machine_remove_stale();
	printf("%-24s %-9s %-6s %4s %7s %6s %s\n", "NAME", "STATE", "ENGINE",
	       "CPUS", "MEMORY", "PID", "AGENT");
	if (machine_each(list_one, NULL, &err)) {
		cli_report(&err, NULL);
		return CLI_FAILED;
	}
	return CLI_OK;
}

static int run_in(const char *name, char **argv, bool is_tty)
{
	struct err err = {0};
	struct machine m;
	int signal_fd, rc = machine_connect(name, &m, &err);

	if (!rc) {
		signal_fd = signals_open();
		rc = agent_run(&m, argv, is_tty, signal_fd, &err);
		close(m.control_fd);
	}
	if (rc < 0)
		cli_report(&err, rc == -ENOTCONN || rc == -EPIPE
					 ? "'skerry console' reaches a guest "
					   "without the agent"
					 : hint_for(&err));
	return rc < 0 ? CLI_NO_COMMAND : rc;
}

int verb_exec(void *values, struct cli_args *args)
{
	struct exec_options *o = values;

	if (args->count != 1 || !args->has_command || !args->command[0])
		return cli_usage("exec", "use: exec NAME -- CMD…");
	return run_in(args->words[0], args->command,
		      o->tty || (isatty(0) && isatty(1)));
}

int verb_shell(void *values, struct cli_args *args)
{
	if (args->count != 1)
		return cli_usage("shell", "one NAME is needed");
	return run_in(args->words[0], NULL, isatty(0));
}

int verb_console(void *values, struct cli_args *args)
{
	bool is_terminal = isatty(0) && isatty(1);
	struct ending e = {0};
	struct err err = {0};
	struct machine m;
	int pair[2] = {-1, -1}, rc;

	if (args->count != 1)
		return cli_usage("console", "one NAME is needed");
	rc = machine_connect(args->words[0], &m, &err);
	if (!rc && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		rc = err_sys(&err, -errno, "open console socket");
	if (!rc)
		rc = control_call(m.control_fd, CONTROL_CONSOLE_ATTACH, NULL,
				  &pair[1], 1, 10000, NULL, NULL, NULL, &err);
	if (rc) {
		cli_report(&err, hint_for(&err));
		return CLI_FAILED;
	}
	close(pair[1]);
	if (is_terminal)
		terminal_console(m.name, "leaves it");
	rc = console_run(&m, pair[0], signals_open(), is_terminal, &e);
	terminal_restore();
	fprintf(stderr, "\n");
	return rc < 0 ? 128 - rc : CLI_OK;
}

/* Waits until the vmm closes its control socket. */
static int wait_gone(struct machine *m, u32 timeout_s, struct err *err)
{
	u64 end = clock_mono_ns() + timeout_s * NS_PER_SEC;
	struct ending e = {0};
	bool ready;

	while (!e.has_ended && clock_mono_ns() < end) {
		poll(&(struct pollfd){m->control_fd, POLLIN, 0}, 1, 1000);
		ending_poll(m, &e, &ready);
	}
	return e.has_ended ? 0
			   : err_set(err, -ETIMEDOUT,
				     "machine '%s' still runs after %u s",
				     m->name, timeout_s);
}

static int stop_one(const char *name, bool is_forced, u32 timeout_s)
{
	struct err err = {0};
	struct machine m;
	int rc = machine_connect(name, &m, &err);

	if (!rc && is_forced)
		machine_kill(&m);
	else if (!rc && agent_power_off(&m, false, NULL))
		rc = control_call(m.control_fd, CONTROL_MACHINE_STOP, NULL,
				  NULL, 0, 10000, NULL, NULL, NULL, &err);
	if (!rc)
		rc = wait_gone(&m, is_forced ? 10 : timeout_s, &err);
	if (m.control_fd >= 0)
		close(m.control_fd);
	if (rc)
		cli_report(&err, rc == -ETIMEDOUT
					 ? "'skerry stop --force' ends it"
					 : hint_for(&err));
	return rc ? CLI_FAILED : CLI_OK;
}

int verb_stop(void *values, struct cli_args *args)
{
	struct stop_options *o = values;
	int status = CLI_OK;

	if (args->count == 0)
		return cli_usage("stop", "no NAME given");
	for (int i = 0; i < args->count; i++)
		status |= stop_one(args->words[i], o->force, o->timeout_s);
	return status;
}

static int delete_one(const char *name, bool is_forced)
{
	struct err err = {0};
	struct machine m;
	int rc = machine_connect(name, &m, &err);

	if (rc == 0 && !is_forced) {
		close(m.control_fd);
		fprintf(stderr,
			"skerry: machine '%s' runs\n  'skerry stop %s' first, "
			"or delete --force\n",
			name, name);
		return CLI_FAILED;
	}
	if (rc == 0) {
		machine_kill(&m);
		rc = wait_gone(&m, 10, &err);
		close(m.control_fd);
	} else if (rc == -ESRCH) {
		rc = 0;
	}
	if (!rc)
		rc = image_remove_tree(m.run_dir, &err);
	if (!rc)
		rc = image_remove_tree(m.data_dir, &err);
	if (!rc)
		rc = snapshot_delete_all(name, &err);
	if (rc)
		cli_report(&err, hint_for(&err));
	return rc ? CLI_FAILED : CLI_OK;
}

int verb_delete(void *values, struct cli_args *args)
{
	struct stop_options *o = values;
	int status = CLI_OK;

	if (args->count == 0)
		return cli_usage("delete", "no NAME given");
	for (int i = 0; i < args->count; i++)
		status |= delete_one(args->words[i], o->force);
	return status;
}
