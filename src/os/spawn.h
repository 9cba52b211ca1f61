/* SPDX-License-Identifier: Apache-2.0 */
/* Child processes that inherit the listed descriptors and nothing else, with
 * default signal handling. */
#pragma once

#include <sys/types.h>

#include "base/err.h"
#include "base/types.h"

#define OS_SPAWN_FDS_MAX 16

struct os_spawn {
	char *const *argv; /* argv[0] is searched in PATH */
	char *const *envp; /* NULL: ours */
	const int *fds;	   /* become 0, 1, 2, … in the child; -1: /dev/null */
	size_t fd_count;
	bool new_session;     /* no controlling terminal, survives a hang-up */
	bool die_with_parent; /* SIGKILL when the thread that spawned ends */
};

/* Fails when the program cannot be executed. out_pidfd may be NULL. */
int os_spawn(const struct os_spawn *how, pid_t *out_pid, int *out_pidfd,
	     struct err *err);
/* Waits; returns the exit status, 128 + the signal's number, or -errno. */
int os_wait(pid_t pid);
