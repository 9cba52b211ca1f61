/* SPDX-License-Identifier: Apache-2.0 */
/* A character device's back end: bytes out to descriptors, bytes in from them.
 *
 * One front end (a UART, a debug console) and up to CHARDEV_PORTS descriptor
 * ports; output goes to each, input comes from any. Nothing blocks: each port
 * buffers at most CHARDEV_BUFFER bytes. A port that keeps everything (stdio)
 * pushes back when it is full; a lossy one (a console client) loses what does
 * not fit; a capped one (a log file) drops all beyond its cap. A port whose
 * peer hangs up is removed. Device lock held, as for all devices.
 */
#pragma once

#include "loop/loop.h"

#define CHARDEV_PORTS  8
#define CHARDEV_BUFFER 65536u

struct chardev;

/* How the back end talks to the front end; each may be NULL. */
struct chardev_front {
	size_t (*can_receive)(void *opaque); /* bytes that fit now */
	void (*receive)(void *opaque, const void *bytes, size_t n);
	void (*writable)(void *opaque); /* after a short write: try again */
	void *opaque;
};

struct chardev_port {
	int in_fd, out_fd; /* owned when owns_fds; -1: none; may be equal */
	bool owns_fds;
	bool is_lossy;
	u64 cap_bytes; /* 0: no cap */
};

/* loop NULL: no ports can be added; output is discarded. */
struct chardev *chardev_new(struct loop *loop);
void chardev_free(struct chardev *c);
void chardev_set_front(struct chardev *c, const struct chardev_front *front);
/* Makes the descriptors non-blocking. Returns the port's number, or -errno:
 * -ENOSPC when there are CHARDEV_PORTS. */
int chardev_add_port(struct chardev *c, const struct chardev_port *port);
void chardev_del_port(struct chardev *c, int n);

/* Returns how many bytes were taken; a short count means wait for
 * writable(). With no port everything is taken. A NULL c takes all. */
size_t chardev_write(struct chardev *c, const void *bytes, size_t n);
/* Waits, for at most timeout_ms, until the ports have taken what is buffered:
 * before the end, so that a reader gets the last words. */
void chardev_drain(struct chardev *c, int timeout_ms);
/* The front end has room again. */
void chardev_can_receive_more(struct chardev *c);
