/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cli/wait.h"

#define QUIT_KEY 0x1d /* Ctrl-] */

/* 0; -EPIPE: the machine closed COM1; -ESHUTDOWN: nobody reads our stdout. */
static int copy_out(int serial_fd)
{
	char bytes[16384];
	ssize_t n = recv(serial_fd, bytes, sizeof(bytes), MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n <= 0)
		return -EPIPE;
	return os_write_full(1, bytes, n) ? -ESHUTDOWN : 0;
}

/* 1: the quit key; 0; -1: end of input. */
static int copy_in(int serial_fd, bool is_terminal)
{
	char bytes[1024];
	ssize_t n = read(0, bytes, sizeof(bytes));
	char *quit;

	if (n <= 0)
		return n < 0 && errno == EINTR ? 0 : -1;
	quit = is_terminal ? memchr(bytes, QUIT_KEY, n) : NULL;
	if (quit)
		n = quit - bytes;
	if (n)
		send(serial_fd, bytes, n, MSG_NOSIGNAL);
	return quit != NULL;
}

int console_run(struct machine *m, int serial_fd, int signal_fd,
		bool is_terminal, struct ending *e)
{
	bool has_input = true, ready;

	for (;;) {
		struct pollfd p[4] = {{m->control_fd, POLLIN, 0},
				      {serial_fd, POLLIN, 0},
				      {signal_fd, POLLIN, 0},
				      {has_input ? 0 : -1, POLLIN, 0}};
		int sig, rc;

		poll(p, 4, -1);
		rc = p[1].revents ? copy_out(serial_fd) : 0;
		if (rc == -ESHUTDOWN)
			return -SIGPIPE;
		if (rc)
			serial_fd = -1;
		if (p[3].revents && serial_fd >= 0) {
			rc = copy_in(serial_fd, is_terminal);
			if (rc > 0)
				return 1;
			has_input = rc == 0;
		}
		sig = p[2].revents ? signals_take(signal_fd) : 0;
		if (sig && sig != SIGWINCH)
			return -sig;
		if (p[0].revents)
			ending_poll(m, e, &ready);
		if (e->has_ended) {
			/* What is on its way must still be shown. */
			while (serial_fd >= 0 &&
			       poll(&(struct pollfd){serial_fd, POLLIN, 0}, 1,
				    2000) > 0) {
				if (copy_out(serial_fd))
					break;
			}
			return 0;
		}
	}
}
