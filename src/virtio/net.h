/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-net (virtio 1.2 §5.1): one queue pair, no offloads. */
#pragma once

#include "base/err.h"
#include "net/net.h"
#include "virtio/virtio.h"

struct virtio_net_config {
	struct virtio_attach at;
	struct net_backend *backend; /* borrowed; freed after the device */
	u8 mac[6];
};

int virtio_net_new(const struct virtio_net_config *cfg,
		   struct virtio_device **out, struct err *err);
/* A driver reads it when it starts. */
void virtio_net_set_mac(struct virtio_device *d, const u8 mac[6]);
/* The cable: tells the driver when it changes. */
void virtio_net_set_link(struct virtio_device *d, bool is_up);
