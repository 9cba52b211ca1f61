/* SPDX-License-Identifier: Apache-2.0 */
/* What the verbs that stay with a machine share: the terminal, signals, the
 * machine's events, and the session with the agent. */
#pragma once

#include <termios.h>

#include "api/control.h"
#include "api/agent_proto.h"
#include "cli/machine.h"

/* How a machine ended, from "exited" or from its silence. */
struct ending {
	bool has_ended;
	bool is_agent_ready; /* seen while subscribing */
	char reason[32];
	int status;
	char detail[4096];
};

/* Asks for events; keeps those that arrive before the answer. */
int ending_subscribe(struct machine *m, struct ending *e, struct err *err);
/* Takes one message from the control socket when there is one. */
void ending_poll(struct machine *m, struct ending *e, bool *out_agent_ready);

/* Blocks the signals that the verbs handle; returns a signalfd. */
int signals_open(void);
/* The next signal, 0 for none. */
int signals_take(int fd);

/* Raw mode, undone by terminal_restore and at exit. */
void terminal_raw(void);
void terminal_restore(void);
/* Raw mode for the console of machine NAME; then says that Ctrl-] does VERB, so
 * that a key typed on sight of the line reaches the guest. */
void terminal_console(const char *name, const char *verb);

/* Waits for agent-ready: 0, -ETIMEDOUT, -EINTR on a signal, -EPIPE when the
 * machine ended. Shows the time on a terminal. */
int wait_agent(struct machine *m, u32 timeout_s, int signal_fd,
	       struct ending *e, struct err *err);

/* Moves bytes between a stream socket (COM1) and stdin and stdout until the
 * machine ends (returns 0), the user types Ctrl-] (returns 1), or a signal asks
 * to end (returns the negative signal; SIGPIPE when nobody reads stdout). */
int console_run(struct machine *m, int serial_fd, int signal_fd,
		bool is_terminal, struct ending *e);

/* Runs a command by the agent: exit status, or -errno. argv NULL: a login
 * shell. */
int agent_run(struct machine *m, char *const *argv, bool is_tty, int signal_fd,
	      struct err *err);
/* Sets the guest's wall clock to the host's. */
int agent_set_time(struct machine *m, struct err *err);
/* Makes the guest another machine; err names what could not be done. */
int agent_set_identity(struct machine *m, const struct agent_identity *id,
		       struct err *err);
/* Asks the agent to turn the machine off. */
int agent_power_off(struct machine *m, bool is_quick, struct err *err);
