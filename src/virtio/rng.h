/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-rng (virtio 1.2 §5.4): the host's random bytes, at most
 * VIRTIO_RNG_BYTES_PER_PERIOD each VIRTIO_RNG_PERIOD_NS. */
#pragma once

#include "base/err.h"
#include "virtio/virtio.h"

#define VIRTIO_RNG_BYTES_PER_PERIOD (64 * KIB)
#define VIRTIO_RNG_PERIOD_NS	    100000000ull

struct virtio_rng_config {
	struct virtio_attach at;
};

int virtio_rng_new(const struct virtio_rng_config *cfg,
		   struct virtio_device **out, struct err *err);
