/* SPDX-License-Identifier: Apache-2.0 */
/* Machines as the CLI sees them: a folder RUN/NAME with control.sock and
 * console.log while it runs, a folder DATA/machines/NAME with its disk when
 * it is kept, and a skerry-vmm that is reached by the socket. */
#pragma once

#include <sys/types.h>

#include "api/control.h"
#include "cli/machine_options.h"
#include "os/file.h"

#define MACHINE_PATH_MAX (OS_PATH_MAX + 128)

struct machine {
	char name[64];
	char run_dir[MACHINE_PATH_MAX];
	char data_dir[MACHINE_PATH_MAX]; /* with the private disk */
	bool has_data;			 /* data_dir is ours to remove */
	bool is_kept;			 /* it stays when the machine ends */
	int run_mark_fd, data_mark_fd;	 /* locks, see machine_mark; or -1 */
	int control_fd;			 /* to the vmm */
	pid_t pid;
};

/* How COM1 is used while it starts. */
enum machine_serial { MACHINE_SERIAL_NONE, MACHINE_SERIAL_SOCKET };

bool machine_name_is_valid(const char *name);
int machine_paths(const char *name, struct machine *out, struct err *err);

/* Makes the folders, opens and locks the files, starts skerry-vmm and has it
 * create the machine. image NULL: direct boot. With MACHINE_SERIAL_SOCKET
 * *out_serial is the other end of COM1. is_child: the vmm dies with this
 * process. On failure nothing is left behind. */
int machine_start(const struct machine_options *o, const char *image,
		  bool is_child, enum machine_serial serial,
		  struct machine *out, int *out_serial, struct err *err);
/* Waits for the process (a child), removes what is not kept. */
void machine_finish(struct machine *m);
/* Ends it at once. */
void machine_kill(struct machine *m);

/* Connects to a running machine: -ENOENT "machine.missing" when there is no
 * such machine, -ESRCH "machine.stopped" when it does not run. */
int machine_connect(const char *name, struct machine *out, struct err *err);
/* Marks dir as one that goes away with this process: a file in it that we
 * hold locked until *out_fd is closed. */
int machine_mark(const char *dir, int *out_fd, struct err *err);
/* Removes the marked folders of machines that do not run and whose process is
 * gone: it was killed. */
void machine_remove_stale(void);
/* Calls fn for the name of each machine, running or kept. */
int machine_each(void (*fn)(void *opaque, const char *name), void *opaque,
		 struct err *err);
