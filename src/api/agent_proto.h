/* SPDX-License-Identifier: Apache-2.0 */
/* What the CLI and the agent in the guest say to each other, over a stream
 * (vsock). The vmm only looks at HELLO.
 *
 * FORMAT. A frame is {le32 length of payload, u8 type, payload}, payload at
 * most AGENT_PAYLOAD_MAX bytes. The agent listens on guest port
 * AGENT_PORT; one connection is one session, and its first frame is EXEC,
 * POWEROFF or PING:
 *
 *   client                    agent
 *   EXEC            ->                          starts the command
 *   STDIN, STDIN_EOF, SIGNAL, WINSIZE ->
 *                   <-  STDOUT, STDERR          (a tty has only STDOUT)
 *                   <-  EXIT                    last, then end of stream
 *                   <-  ERROR                   instead: nothing was run
 *   POWEROFF        ->
 *                   <-  OK
 *   PING            ->
 *                   <-  HELLO
 *
 * At its start, and again every second until it has been accepted once, the
 * agent connects to host port AGENT_READY_PORT (CID 2) and sends HELLO: the
 * vmm takes that as "agent-ready", answers OK and closes.
 *
 * A stream that closes early ends the session: the command gets SIGHUP.
 * Both sides are hostile to each other: the parser below bounds everything.
 */
#pragma once

#include "base/buf.h"
#include "base/err.h"
#include "base/types.h"

#define AGENT_PORT	    1024
#define AGENT_READY_PORT    1025
#define AGENT_PROTO_VERSION 1
#define AGENT_HEADER_BYTES  5
#define AGENT_PAYLOAD_MAX   (64 * 1024)
#define AGENT_ARGS_MAX	    1024
#define AGENT_ENV_MAX	    256

enum agent_frame_type {
	AGENT_HELLO = 1,
	AGENT_OK,
	AGENT_ERROR, /* le32 errno, text */
	AGENT_PING,
	AGENT_POWEROFF,
	AGENT_EXEC,
	AGENT_STDIN,
	AGENT_STDIN_EOF,
	AGENT_STDOUT,
	AGENT_STDERR,
	AGENT_SIGNAL,	    /* u8 signal number (Linux x86-64) */
	AGENT_WINSIZE,	    /* le16 rows, le16 columns */
	AGENT_EXIT,	    /* u8 status, u8 signal: one of them is 0 */
	AGENT_SET_TIME,	    /* le64 ns since 1970, UTC; OK or ERROR */
	AGENT_SET_IDENTITY, /* OK, or ERROR: what could not be done */
	AGENT_FRAME_TYPE_END,
};

struct agent_frame {
	u8 type;
	u32 len;
	const u8 *payload; /* into the parser's buffer */
};

/* Takes the frame at the start of bytes: returns the bytes it occupies, 0
 * when it is not complete yet, -EPROTO when it can never be (unknown type,
 * too long). */
int agent_frame_parse(const u8 *bytes, size_t len, struct agent_frame *out);

/* len <= AGENT_PAYLOAD_MAX. */
void agent_frame_append(struct buf *out, u8 type, const void *payload,
			size_t len);

/* payload of HELLO: le32 version, then NUL-terminated hostname, boot id. */
struct agent_hello {
	u32 version;
	char hostname[65];
	char boot_id[40];
};
int agent_hello_parse(const struct agent_frame *f, struct agent_hello *out);
void agent_hello_append(struct buf *out, const struct agent_hello *h);

/* payload of EXEC: u8 flags (1: tty), le16 rows, le16 columns, le16 argc,
 * le16 envc, then NUL-terminated strings: cwd ("" for the home folder), argv,
 * env ("NAME=value", added to the agent's). argc 0 asks for the user's login
 * shell. */
struct agent_exec {
	bool is_tty;
	u16 rows, columns;
	const char *cwd;
	u16 argc, envc;
	const char *argv[AGENT_ARGS_MAX + 1]; /* NULL-terminated */
	const char *env[AGENT_ENV_MAX + 1];
};
/* The strings point into the frame's payload. */
int agent_exec_parse(const struct agent_frame *f, struct agent_exec *out);
/* -E2BIG when it does not fit a frame. */
int agent_exec_append(struct buf *out, const struct agent_exec *e);

struct agent_exit {
	u8 status;
	u8 signal; /* 0: it exited by itself */
};
int agent_exit_parse(const struct agent_frame *f, struct agent_exit *out);
void agent_exit_append(struct buf *out, const struct agent_exit *e);

/* payload of SET_IDENTITY: 6 bytes MAC (zeroes: keep it), 32 random bytes, then
 * NUL-terminated host name and machine id (32 hexadecimal digits). */
struct agent_identity {
	u8 mac[6];
	u8 seed[32];
	char hostname[65];
	char machine_id[33];
};
/* -EPROTO also for a host name or an id that is none. */
int agent_identity_parse(const struct agent_frame *f,
			 struct agent_identity *out);
void agent_identity_append(struct buf *out, const struct agent_identity *id);

/* Fills err with what the peer said. Returns err->code, never 0. */
int agent_error_parse(const struct agent_frame *f, struct err *err);
void agent_error_append(struct buf *out, const struct err *err);
