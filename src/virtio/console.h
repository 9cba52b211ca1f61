/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-console (virtio 1.2 §5.3): one port, no multiport. The host side is
 * three callbacks; nothing is buffered here, so a slow host slows the guest
 * and a slow guest slows the host. */
#pragma once

#include "base/err.h"
#include "dev/chardev.h"
#include "virtio/virtio.h"

struct virtio_console_config {
	struct virtio_attach at;
	u16 columns, rows;
	/* The host side; NULL: the callbacks below. Borrowed. */
	struct chardev *chardev;
	/* Bytes from the guest: returns how many were taken. After less than
	 * n, virtio_console_resume() asks for the rest to be offered again. */
	size_t (*write)(void *opaque, const void *bytes, size_t n);
	/* The guest can take input again; may be NULL. */
	void (*input_ready)(void *opaque);
	void *opaque;
};

struct virtio_console;

int virtio_console_new(const struct virtio_console_config *cfg,
		       struct virtio_console **out, struct err *err);
/* Input for the guest: returns how many bytes it took, 0 when it has no
 * buffers now. Home loop. */
size_t virtio_console_receive(struct virtio_console *c, const void *bytes,
			      size_t n);
void virtio_console_resume(struct virtio_console *c);
void virtio_console_resize(struct virtio_console *c, u16 columns, u16 rows);
