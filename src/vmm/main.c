/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/vmm.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "api/agent_proto.h"
#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"
#include "vmm/sandbox.h"

#define CREATE_TIMEOUT_MS 30000
#define DRAIN_TIMEOUT_MS  2000
#define CONSOLE_LOG_BYTES (8 * MIB)

void vmm_exit(struct vmm *v, enum control_exit reason, int status,
	      const char *detail)
{
	if (v->has_exited)
		return;
	v->has_exited = true;
	v->exit_reason = reason;
	v->exit_status = status;
	snprintf(v->exit_detail, sizeof(v->exit_detail), "%s", detail);
	loop_stop(v->loop);
}

/* ---- what the machine says ---- */

static void machine_ended(void *opaque, enum machine_end end, int status,
			  const char *detail)
{
	static const enum control_exit reasons[] = {
		[MACHINE_END_POWEROFF] = CONTROL_EXIT_POWEROFF,
		[MACHINE_END_RESET] = CONTROL_EXIT_RESET,
		[MACHINE_END_DEBUG_EXIT] = CONTROL_EXIT_DEBUG,
		[MACHINE_END_TRIPLE_FAULT] = CONTROL_EXIT_TRIPLE_FAULT,
		[MACHINE_END_ERROR] = CONTROL_EXIT_ERROR,
	};

	vmm_exit(opaque, reasons[end], status, detail);
}

static void vsock_accepted(void *opaque, u32 port, int fd)
{
	if (port == AGENT_READY_PORT)
		ready_accept(opaque, fd);
	else
		close(fd);
}

/* ---- start ---- */

static void signal_event(struct loop_fd *h, u32 events)
{
	struct vmm *v = h->opaque;
	struct signalfd_siginfo si;

	if (read(v->signal_fd, &si, sizeof(si)) == sizeof(si))
		vmm_exit(v, CONTROL_EXIT_KILLED, 128 + (int)si.ssi_signo,
			 "stopped by a signal");
}

static int signals_init(struct vmm *v)
{
	sigset_t set;

	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN); /* a write beyond RLIMIT_FSIZE: EFBIG */
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	v->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (v->signal_fd < 0)
		return -errno;
	return loop_fd_add(v->loop, &v->signals, v->signal_fd, LOOP_READ,
			   signal_event, v);
}

/* Moves descriptor `index` of the message into a console port. */
static int console_add(struct vmm *v, int *fds, int index, bool has_input,
		       u64 cap_bytes)
{
	struct chardev_port port = {
		.in_fd = -1,
		.owns_fds = true,
		.cap_bytes = cap_bytes,
	};
	int rc;

	if (index < 0)
		return 0;
	port.out_fd = fds[index];
	if (has_input)
		port.in_fd = fds[index];
	rc = chardev_add_port(v->console, &port);
	if (rc >= 0)
		fds[index] = -1;
	return MIN(rc, 0);
}

/* Builds the machine from a machine.create request. */
static int vmm_create(struct vmm *v, json_t *params, int *fds, size_t fd_count,
		      struct err *err)
{
	static const struct machine_events template = {
		.ended = machine_ended,
		.vsock_accepted = vsock_accepted,
	};
	struct machine_events events = template;
	struct machine_config cfg;
	int rc =
		api_machine_config_from_json(params, fd_count, &v->config, err);

	if (rc < 0)
		return rc;
	log_set_level((enum log_level)v->config.log_level);
	events.opaque = v;
	rc = config_from_api(&v->config, fds, &cfg, err);
	if (rc < 0)
		return rc;
	rc = machine_new(&cfg, v->loop, v->console, &events, &v->machine, err);
	if (rc < 0)
		return rc;
	if (v->config.restore_state_fd >= 0)
		rc = snapshot_restore(v, fds[v->config.restore_state_fd], err);
	if (rc < 0)
		return rc;
	if (v->config.vsock_cid)
		machine_vsock_listen(v->machine, AGENT_READY_PORT);
	rc = console_add(v, fds, v->config.console_log_fd, false,
			 CONSOLE_LOG_BYTES);
	if (rc == 0)
		rc = console_add(v, fds, v->config.serial_fd,
				 v->config.serial_input, 0);
	if (rc < 0)
		return err_sys(err, rc, "open the console");
	if (v->config.listen_fd >= 0) {
		rc = server_listen(v, fds[v->config.listen_fd]);
		fds[v->config.listen_fd] = -1;
		if (rc < 0)
			return err_sys(err, rc, "listen for clients");
	}
	return 0;
}

/* The machine is built: nothing is opened from here on. */
static int vmm_enter_sandbox(struct vmm *v, struct err *err)
{
	const struct sandbox_options how = {
		.has_network = v->config.network == API_NETWORK_USER,
		.has_kvm = machine_is_on_kvm(v->machine),
	};
	struct err why = {0};
	int rc;

	if (v->config.no_sandbox) {
		log_warn("machine '%s' runs without a sandbox", v->config.name);
		return 0;
	}
	rc = sandbox_install(&how, &why);
	if (rc == -ENOSYS) {
		log_info("no sandbox: %s", why.text);
		return 0;
	}
	return rc < 0 ? err_set(err, rc, "%s", why.text) : 0;
}

static void start_machine(void *opaque)
{
	struct vmm *v = opaque;
	struct err err = {0};

	v->is_held = false;
	if (v->config.restore_state_fd >= 0)
		machine_resume(v->machine);
	else if (machine_start(v->machine, &err) < 0)
		vmm_exit(v, CONTROL_EXIT_ERROR, 1, err.text);
}

void vmm_let_go(struct vmm *v)
{
	loop_post(v->loop, start_machine, v);
}

/* What the sender may tell the next vmm on this host. */
static json_t *created(const struct vmm *v)
{
	struct machine_info info;

	machine_info(v->machine, &info);
	return json_pack("{s:s, s:s, s:I}", "engine", info.engine,
			 "engine_reason", info.engine_reason, "tsc_khz",
			 (json_int_t)info.tsc_khz);
}

/* Takes the first message and answers it. */
static int vmm_setup(struct vmm *v)
{
	struct control_request req = {0};
	struct err err = {0};
	json_t *msg = NULL, *answer;
	int fds[CONTROL_FDS_MAX];
	size_t fd_count = 0;
	int rc = control_recv(OWNER_FD, &msg, fds, &fd_count, CREATE_TIMEOUT_MS,
			      &err);

	if (rc == 0)
		return -EPIPE;
	if (rc > 0)
		rc = control_request_parse(msg, fd_count, &req, &err);
	if (rc == 0 && req.method != CONTROL_MACHINE_CREATE)
		rc = err_set(&err, -EPROTO, "the first request must be '%s'",
			     control_methods[CONTROL_MACHINE_CREATE].name);
	if (rc == 0)
		rc = vmm_create(v, req.params, fds, fd_count, &err);
	if (rc == 0)
		rc = vmm_enter_sandbox(v, &err);
	control_close_fds(fds, fd_count);
	answer = rc < 0 ? control_error_new(req.id, &err)
			: control_result_new(req.id, created(v));
	json_decref(msg);
	if (control_send(OWNER_FD, answer, NULL, 0, NULL) < 0 && rc == 0)
		rc = -EPIPE;
	json_decref(answer);
	return rc;
}

static void vmm_fini(struct vmm *v)
{
	if (v->has_exited)
		log_info("machine '%s' ended: %s", v->config.name,
			 control_exit_names[v->exit_reason]);
	snapshot_fini(v);
	ready_fini(v);
	if (v->machine && v->has_exited)
		vmm_log_statistics(v);
	if (v->machine)
		machine_free(v->machine);
	v->machine = NULL;
	chardev_drain(v->console, DRAIN_TIMEOUT_MS);
	chardev_free(v->console);
	/* Last: who hears it may rely on disks and ports being free. */
	if (v->has_exited)
		server_broadcast(v, control_exited_new(v->exit_reason,
						       v->exit_status,
						       v->exit_detail));
	server_fini(v);
	loop_fd_del(&v->signals);
	loop_free(v->loop);
}

int main(int argc, char **argv)
{
	struct vmm *v;
	struct err err = {0};

	if (argc > 1 && strcmp(argv[1], "--version") == 0) {
		printf("skerry-vmm %s\n", SKERRY_VERSION);
		return 0;
	}
	if (argc > 1 || fcntl(OWNER_FD, F_GETFD) < 0) {
		fprintf(stderr, "skerry-vmm is started by skerry\n");
		return 2;
	}
	log_set_prefix("skerry-vmm");
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	v = calloc(1, sizeof(*v));
	ASSERT(v);
	v->listen_fd = -1;
	v->status_fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
	v->smaps_fd = open("/proc/self/smaps", O_RDONLY | O_CLOEXEC);
	v->started_ns = clock_mono_ns();
	list_init(&v->clients);
	list_init(&v->hellos);
	v->loop = loop_new(&err);
	if (!v->loop || signals_init(v) < 0) {
		log_error("cannot start: %s", err.text);
		return 1;
	}
	v->console = chardev_new(v->loop);
	if (vmm_setup(v) < 0) {
		vmm_fini(v);
		return 1;
	}
	server_add_client(v, OWNER_FD, true);
	v->is_held = true;
	if (!v->config.is_held)
		vmm_let_go(v);
	loop_run(v->loop);
	vmm_fini(v);
	free(v);
	return 0;
}
