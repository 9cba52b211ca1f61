/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-blk (virtio 1.2 §5.2): a block node as a disk. */
#pragma once

#include "base/err.h"
#include "block/block.h"
#include "virtio/virtio.h"

struct virtio_blk_config {
	struct virtio_attach at;
	struct block_node *node; /* borrowed: closed after the device's end */
	const char *serial;	 /* up to 20 bytes; may be NULL */
	u16 queues;		 /* 0: one */
};

/* Plugs the disk into the bus, which owns it. */
int virtio_blk_new(const struct virtio_blk_config *cfg,
		   struct virtio_device **out, struct err *err);
/* Goes on with another node of the same bytes; nothing is in flight. */
void virtio_blk_set_node(struct virtio_device *d, struct block_node *node);
/* The node was resized: tells the driver. */
void virtio_blk_resized(struct virtio_device *d);
