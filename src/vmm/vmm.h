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
 *   snapshot.c  snapshots: making them, going on from them
 *   statistics.c  what the machine has cost
 */
#pragma once

#include <jansson.h>

#include "api/control.h"
#include "api/machine_config.h"
#include "base/list.h"
#include "loop/loop.h"
#include "machine/machine.h"

#define OWNER_FD 3

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
	int smaps_fd;	    /* /proc/self/smaps */
	struct snapshot *snapshot; /* the one being made, or NULL */
	bool is_flushing;	   /* disks, for a snapshot */
	struct list hellos; /* agents that are saying hello */
	u64 started_ns;
	bool is_held; /* has never run: config.is_held */
	bool is_agent_ready;
	char agent_hostname[65];
	bool has_exited;
	enum control_exit exit_reason;
	int exit_status;
	char exit_detail[1024];
};

/* server.c */
struct client;
/* What a method returns that answers later, by server_answer(). */
#define METHOD_LATER 1
/* rc 0: result (stolen, NULL: {}), else err. */
void server_answer(struct client *c, json_int_t id, int rc, json_t *result,
		   const struct err *err);
void server_event(struct client *c, json_t *event); /* steals */
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

/* snapshot.c */
/* The method. What it takes of fds is set to -1. */
int snapshot_create(struct vmm *v, struct client *c, json_int_t id,
		    json_t *params, int *fds, size_t fd_count, struct err *err);
/* Nobody waits any more: the work is given up. */
void snapshot_client_gone(struct vmm *v, const struct client *c);
void snapshot_fini(struct vmm *v);
/* The machine, just built, goes on from the state in fd. */
int snapshot_restore(struct vmm *v, int fd, struct err *err);

/* statistics.c */
struct vmm_memory {
	u64 anon_kib, file_kib; /* resident, without guest RAM */
	u64 code_kib;		/* generated */
	u64 guest_kib;
};
void vmm_memory(const struct vmm *v, const struct machine_info *info,
		struct vmm_memory *out);
void vmm_log_statistics(struct vmm *v);
json_t *vmm_statistics(struct vmm *v); /* the answer to "statistics" */

/* main.c */
/* The machine is built: it starts, or goes on from its snapshot. Later, from
 * the loop. */
void vmm_let_go(struct vmm *v);
/* Ends the process; the first reason counts. */
void vmm_exit(struct vmm *v, enum control_exit reason, int status,
	      const char *detail);
