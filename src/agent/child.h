/* SPDX-License-Identifier: Apache-2.0 */
/* The command of a session: started with pipes or on a terminal, as leader of
 * a session and process group of its own. */
#pragma once

#include <sys/types.h>

#include "api/agent_proto.h"

struct child {
	pid_t pid;
	int in, out, err; /* our ends; a terminal: in is a dup of out, err -1 */
};

/* 0 or -errno. A command that cannot be executed is a child that says so on
 * its stderr and exits with 127 (not found) or 126. */
int child_start(struct child *c, const struct agent_exec *what);
void child_set_window(const struct child *c, u16 rows, u16 columns);
