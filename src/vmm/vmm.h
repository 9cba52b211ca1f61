/* SPDX-License-Identifier: Apache-2.0 */
/* skerry-vmm: one process, one machine.
 *
 * It is started with a connected SOCK_SEQPACKET socket as descriptor 3 (its
 * owner), takes the machine's configuration and every file it needs from the
 * first message there, and opens nothing afterwards. Later clients come
 * through the listening socket that the configuration carries.
 *
 *   main.c    start-up, signals, end
 *   server.c  clients and the method table
 *   config.c  the API's configuration to the machine's
 *   sandbox.c what the process may ask of the kernel afterwards
 *   ready.c   the agent's ready notice
 *   statistics.c  what the machine has cost
 */
#pragma once

#include <jansson.h>

#include "api/control.h"
#include "api/machine_config.h"
#include "base/list.h"
#include "loop/loop.h"
#include "machine/machine.h"

struct vmm {
	struct loop *loop;
	struct machine *machine;
	struct api_machine_config config;
	struct chardev *console;
	struct list clients;
	struct loop_fd listener; /* fd -1: none */
	int listen_fd;
	struct loop_fd signals;
	int signal_fd;
	int status_fd;	    /* /proc/self/status */
	struct list hellos; /* agents that are saying hello */
	u64 started_ns;
	bool is_agent_ready;
	char agent_hostname[65];
	bool has_exited;
	enum control_exit exit_reason;
	int exit_status;
	char exit_detail[1024];
};

/* server.c */
int server_add_client(struct vmm *v, int fd, bool is_subscribed);
int server_listen(struct vmm *v, int fd);
void server_broadcast(struct vmm *v, json_t *event); /* steals */
void server_fini(struct vmm *v);

/* config.c: api's config and the received descriptors (taken; what is used is
 * set to -1 in fds) to the machine's. */
int config_from_api(const struct api_machine_config *api, int *fds,
		    struct machine_config *out, struct err *err);

/* ready.c */
void ready_accept(struct vmm *v, int fd);
void ready_fini(struct vmm *v);
json_t *ready_event(const struct vmm *v); /* "agent-ready" */

/* statistics.c */
u64 vmm_status_kib(const struct vmm *v, const char *field);
struct machine_info;
u64 vmm_code_kib(const struct machine_info *info); /* generated code */
/* What the process holds beside guest RAM. */
u64 vmm_own_kib(const struct vmm *v, const struct machine_info *info);
void vmm_log_statistics(struct vmm *v);
json_t *vmm_statistics(struct vmm *v); /* the answer to "statistics" */

/* main.c: ends the process; the first reason counts. */
void vmm_exit(struct vmm *v, enum control_exit reason, int status,
	      const char *detail);
