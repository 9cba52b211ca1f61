/* SPDX-License-Identifier: Apache-2.0 */
/* run: a machine that lives as long as this process. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "cli/verbs.h"
#include "cli/wait.h"

#define OFF_WAIT_S 300

/* clang-format off */
#define AT(m) offsetof(struct machine_options, m)
const struct cli_option run_options[] = {
	{"name", CLI_TEXT, AT(name), "NAME", "the machine's name; keeps its disk"},
	{"cpus", CLI_COUNT, AT(cpus), "N", "virtual CPUs (1)"},
	{"memory", CLI_SIZE, AT(memory_bytes), "SIZE", "guest memory (1G)"},
	{"disk", CLI_LIST, AT(disks), "FILE[,format=raw|qcow2][,readonly][,backing=any]",
	 "add a disk"},
	{"network", CLI_TEXT, AT(network), "user|none", "network (user)"},
	{"forward", CLI_LIST, AT(forwards), "[udp:]HOST:GUEST",
	 "lead a host port to the guest"},
	{"engine", CLI_TEXT, AT(engine), "auto|soft|kvm", "CPU engine (auto)"},
	{"rm", CLI_FLAG, AT(rm), NULL, "remove the machine when it ends"},
	{"verbose", CLI_FLAG, AT(verbose), NULL, "show the console and more"},
	{"timeout", CLI_COUNT, AT(timeout_s), "SECONDS",
	 "wait for the guest to be ready (900)"},
	{"no-wait", CLI_FLAG, AT(no_wait), NULL,
	 "launch: do not wait for the guest"},
	{"kernel", CLI_TEXT, AT(kernel), "FILE", "boot this kernel"},
	{"initrd", CLI_TEXT, AT(initrd), "FILE", "its initramfs or module"},
	{"append", CLI_TEXT, AT(append), "STRING", "kernel command line"},
	{"debug-exit", CLI_FLAG, AT(debug_exit), NULL,
	 "a write to port 0xf4 ends the run"},
	{"test-devices", CLI_FLAG, AT(test_devices), NULL,
	 "add fw_cfg and the test devices"},
	{"debugcon", CLI_TEXT, AT(debugcon), "FILE",
	 "keep what is written to port 0xe9"},
	{"console", CLI_TEXT, AT(console), "serial|virtio",
	 "what the console is in the guest: ttyS0 or hvc0 (serial)"},
	{"cpu-model", CLI_TEXT, AT(cpu_model), "NAME", "CPU model"},
	{"no-reboot", CLI_FLAG, AT(no_reboot), NULL, "a reset ends the run"},
	{"no-sandbox", CLI_FLAG, AT(no_sandbox), NULL,
	 "for diagnosis: do not confine the machine's process"},
	{"lockstep", CLI_COUNT, AT(lockstep), "N",
	 "for diagnosis: check the translator at every N-th block"},
	{0},
};
/* clang-format on */

void machine_options_init(void *values)
{
	struct machine_options *o = values;

	o->cpus = 1;
	o->memory_bytes = GIB;
	o->network = "user";
	o->console = "serial";
	o->engine = getenv("SKERRY_ENGINE");
	if (!o->engine || !o->engine[0])
		o->engine = "auto";
	o->timeout_s = 900;
}

static const char *hint_for(const struct err *err)
{
	if (strcmp(err->id, "image.missing") == 0)
		return "'skerry image list' shows what there is, 'skerry "
		       "image build debian/12' makes one";
	if (strcmp(err->id, "image.locked") == 0)
		return "stop that machine, or add ',readonly' to --disk";
	if (strcmp(err->id, "image.backing-elsewhere") == 0)
		return "add ',backing=any' to --disk if you trust the image";
	if (strcmp(err->id, "machine.exists") == 0)
		return "choose another --name, or 'skerry stop' it first";
	if (err->code == -ENOSPC)
		return "free some space, or name a folder that has more with "
		       "SKERRY_DATA_DIR";
	if (err->code == -ETIMEDOUT)
		return "give it longer with --timeout, or look with --verbose";
	return NULL;
}

static int status_of(const struct ending *e)
{
	if (strcmp(e->reason, "poweroff") != 0 &&
	    strcmp(e->reason, "reset") != 0 &&
	    strcmp(e->reason, "debug-exit") != 0)
		fprintf(stderr, "skerry: machine ended: %s%s%s\n", e->reason,
			strcmp(e->reason, "triple-fault") == 0 ? "\n" : ": ",
			e->detail);
	return e->status & 0xff;
}

static void wait_for_end(struct machine *m, int signal_fd, struct ending *e)
{
	u64 end = clock_mono_ns() + OFF_WAIT_S * NS_PER_SEC;
	bool ready;

	while (!e->has_ended && clock_mono_ns() < end) {
		struct pollfd p[2] = {{m->control_fd, POLLIN, 0},
				      {signal_fd, POLLIN, 0}};
		int sig;

		poll(p, 2, 1000);
		ending_poll(m, e, &ready);
		sig = p[1].revents ? signals_take(signal_fd) : 0;
		if (sig && sig != SIGWINCH)
			break;
	}
	if (!e->has_ended)
		machine_kill(m);
}

/* The agent's stream has broken: because the machine ended? */
static void look_for_end(struct machine *m, struct ending *e, struct err *err)
{
	bool ready;

	poll(&(struct pollfd){m->control_fd, POLLIN, 0}, 1, 1000);
	ending_poll(m, e, &ready);
	if (e->has_ended)
		err_set(err, -EPIPE,
			"machine '%s' ended before the command did: %s %.300s",
			m->name, e->reason, e->detail);
}

static int run_command(struct machine *m, const struct machine_options *o,
		       struct cli_args *args, int signal_fd)
{
	struct ending e = {0};
	struct err err = {0};
	int rc = ending_subscribe(m, &e, &err);

	if (!rc)
		rc = wait_agent(m, o->timeout_s, signal_fd, &e, &err);
	if (!rc)
		rc = agent_run(m, args->command, isatty(0) && isatty(1),
			       signal_fd, &err);
	if (rc == -EPIPE && !e.has_ended)
		look_for_end(m, &e, &err);
	if (rc < 0)
		cli_report(&err, hint_for(&err));
	if (e.has_ended || rc == -EINTR || rc == -ETIMEDOUT ||
	    agent_power_off(m, true, NULL))
		machine_kill(m);
	else
		wait_for_end(m, signal_fd, &e);
	return rc < 0 ? CLI_NO_COMMAND : rc;
}

static int run_console(struct machine *m, int serial_fd, int signal_fd)
{
	bool is_terminal = isatty(0) && isatty(1);
	struct ending e = {0};
	struct err err = {0};
	int rc = ending_subscribe(m, &e, &err);

	if (rc) {
		cli_report(&err, NULL);
		machine_kill(m);
		return CLI_FAILED;
	}
	if (is_terminal)
		terminal_console(m->name, "ends the machine");
	rc = console_run(m, serial_fd, signal_fd, is_terminal, &e);
	terminal_restore();
	if (rc == 0)
		return status_of(&e);
	fprintf(stderr, "\nskerry: machine '%s' was stopped\n", m->name);
	machine_kill(m);
	return rc < 0 ? 128 - rc : CLI_OK;
}

int verb_run(void *values, struct cli_args *args)
{
	struct machine_options *o = values;
	bool wants_command = args->has_command && args->command[0];
	struct machine m;
	struct err err = {0};
	int serial_fd = -1, signal_fd, status;

	if (args->count > 1)
		return cli_usage("run", "more than one IMAGE (a command for "
					"the guest comes after '--')");
	if (args->count == 0 && !o->kernel)
		return cli_usage("run", "no IMAGE and no --kernel");
	signal_fd = signals_open();
	if (machine_start(o, args->count ? args->words[0] : NULL, true,
			  wants_command ? MACHINE_SERIAL_NONE
					: MACHINE_SERIAL_SOCKET,
			  &m, &serial_fd, &err)) {
		cli_report(&err, hint_for(&err));
		return wants_command ? CLI_NO_COMMAND : CLI_FAILED;
	}
	status = wants_command ? run_command(&m, o, args, signal_fd)
			       : run_console(&m, serial_fd, signal_fd);
	machine_finish(&m);
	return status;
}

int verb_launch(void *values, struct cli_args *args)
{
	struct machine_options *o = values;
	struct ending e = {0};
	struct machine m;
	struct err err = {0};
	int signal_fd, rc;

	if (args->count > 1 || (args->count == 0 && !o->kernel))
		return cli_usage("launch", "one IMAGE is needed");
	signal_fd = signals_open();
	rc = machine_start(o, args->count ? args->words[0] : NULL, false,
			   MACHINE_SERIAL_NONE, &m, NULL, &err);
	if (!rc && !o->no_wait) {
		rc = ending_subscribe(&m, &e, &err);
		if (!rc)
			rc = wait_agent(&m, o->timeout_s, signal_fd, &e, &err);
		if (rc && rc != -ETIMEDOUT) {
			machine_kill(&m);
			machine_finish(&m);
		}
	}
	if (rc) {
		cli_report(&err, rc == -ETIMEDOUT
					 ? "it still runs: 'skerry console' "
					   "shows it, 'skerry delete --force' "
					   "removes it"
					 : hint_for(&err));
		return CLI_FAILED;
	}
	printf("%s\n", m.name);
	return CLI_OK;
}
