/* SPDX-License-Identifier: Apache-2.0 */
/* One connection to the agent: its first frame says what is wanted. Runs in a
 * process of its own and returns when the session is over. */
#pragma once

/* Serves the stream socket fd and closes it. Returns the exit status that
 * the process should end with. */
int session_serve(int fd);

/* Answers whatever comes first with an error (a negative errno and what could
 * not be done), and closes fd. Does not wait for the peer. */
void session_refuse(int fd, int code, const char *text);
