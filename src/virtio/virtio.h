/* SPDX-License-Identifier: Apache-2.0 */
/* What all virtio devices share, whatever carries them: feature negotiation,
 * the status state machine, queues, configuration space, reset.
 *
 * Rules
 * - A device embeds struct virtio_device, fills its config bytes, and is
 *   handed to a transport (virtio/virtio_pci.h), which then owns it.
 * - handle_queue and completions run on the home loop, register accesses on a
 *   vCPU thread; the device lock is held in all of them.
 * - A device that keeps chains beyond handle_queue (asynchronous I/O) brackets
 *   each with virtio_async_begin/_end. A driver's reset then takes effect when
 *   the last one has ended: until then the status register does not read 0,
 *   and nothing is written to the guest after it does (virtio 1.2 §2.1.2,
 *   §3.1).
 * - What a driver does wrong ends in virtio_fail(): DEVICE_NEEDS_RESET.
 */
#pragma once

#include "base/types.h"
#include "loop/loop.h"
#include "mem/mem.h"
#include "state/state.h"
#include "virtio/virtqueue.h"

#define VIRTIO_QUEUES_MAX	16
#define VIRTIO_CONFIG_BYTES_MAX 256

#define VIRTIO_CONFIG_S_ACKNOWLEDGE 1
#define VIRTIO_CONFIG_S_DRIVER	    2
#define VIRTIO_CONFIG_S_DRIVER_OK   4
#define VIRTIO_CONFIG_S_FEATURES_OK 8
#define VIRTIO_CONFIG_S_NEEDS_RESET 0x40
#define VIRTIO_CONFIG_S_FAILED	    0x80

#define VIRTIO_F_INDIRECT_DESC 28
#define VIRTIO_F_EVENT_IDX     29
#define VIRTIO_F_VERSION_1     32

/* virtio 1.2 §5 */
#define VIRTIO_ID_NET	  1
#define VIRTIO_ID_BLOCK	  2
#define VIRTIO_ID_CONSOLE 3
#define VIRTIO_ID_RNG	  4
#define VIRTIO_ID_VSOCK	  19

struct virtio_device;

struct virtio_ops {
	const char *type; /* "virtio-blk": stable, it is saved */
	/* The driver kicked the queue; it is ready and the device is live. */
	void (*handle_queue)(struct virtio_device *d, struct virtqueue *q);
	/* Back to power-on; nothing is in flight. */
	void (*reset)(struct virtio_device *d);
	/* Optional, all below. The driver wrote [off, off+size) of config,
	 * which lies inside; size is 1, 2 or 4. */
	void (*config_write)(struct virtio_device *d, u32 off, unsigned size,
			     u32 value);
	/* DRIVER_OK was set (or restored). */
	void (*driver_ok)(struct virtio_device *d);
	/* Ends everything in flight before it returns, on the home loop; also
	 * called before a save: no chain may be out afterwards. */
	void (*drain)(struct virtio_device *d);
	void (*state)(struct virtio_device *d, struct state *s);
	void (*post_load)(struct virtio_device *d);
	void (*free)(struct virtio_device *d);
};

struct virtio_transport_ops {
	void (*call_queue)(struct virtio_device *d, u16 queue);
	void (*call_config)(struct virtio_device *d);
	/* Have the loop handle the queue again soon. */
	void (*kick_self)(struct virtio_device *d, u16 queue);
	bool (*can_dma)(struct virtio_device *d);
	void (*reset_done)(struct virtio_device *d);
};

struct virtio_device {
	const struct virtio_ops *ops;
	const struct virtio_transport_ops *transport;
	void *transport_opaque;
	struct loop *loop; /* borrowed */
	struct mem *mem;   /* borrowed */
	char name[32];
	u16 id;		     /* VIRTIO_ID_* */
	u64 offered;	     /* feature bits */
	u64 driver_features; /* as written by the driver */
	u64 features;	     /* negotiated; valid from FEATURES_OK on */
	u8 status;
	u8 generation;
	bool is_resetting;
	u32 async_count;
	u16 queue_count;
	struct virtqueue queues[VIRTIO_QUEUES_MAX];
	u8 config[VIRTIO_CONFIG_BYTES_MAX];
	u16 config_bytes;
};

/* ---- for devices ---- */

/* What every constructor needs. */
struct pci_bus;
struct virtio_attach {
	struct loop *loop;
	struct mem *mem;
	struct pci_bus *bus;
	const char *name; /* unique in the machine */
	int slot;	  /* -1: the first free one */
};

/* VERSION_1, INDIRECT_DESC and EVENT_IDX are added to `features`. */
void virtio_device_init(struct virtio_device *d, const struct virtio_ops *ops,
			const struct virtio_attach *at, u16 id, u64 features);
void virtio_queue_add(struct virtio_device *d, u16 size_max);
static inline bool virtio_has(const struct virtio_device *d, unsigned feature)
{
	return d->features & BIT64(feature);
}
/* May the device use its queues now? */
bool virtio_is_live(const struct virtio_device *d);
/* As the virtqueue calls; a broken queue fails the device. Pop returns 1 or
 * 0. Push does nothing on a device that is not live. */
int virtio_pop(struct virtio_device *d, struct virtqueue *q,
	       struct virtq_chain *out) MUST_CHECK;
void virtio_push(struct virtio_device *d, struct virtqueue *q,
		 const struct virtq_chain *c, u64 written);
/* Interrupts the driver unless it asked for silence. */
void virtio_call(struct virtio_device *d, struct virtqueue *q);
/* The device's config bytes have changed. */
void virtio_config_changed(struct virtio_device *d);
void virtio_fail(struct virtio_device *d, const char *why);
void virtio_async_begin(struct virtio_device *d);
void virtio_async_end(struct virtio_device *d);

/* Runs step() until the queue is empty or blocked, with kicks suppressed,
 * then calls the driver. A driver that adds work for ever costs one bounded
 * round at a time. */
enum virtio_step {
	VIRTIO_STEP_DONE, /* took one chain: go on */
	VIRTIO_STEP_EMPTY,
	VIRTIO_STEP_BLOCKED, /* the device runs the queue again itself */
};
void virtio_queue_run(struct virtio_device *d, struct virtqueue *q,
		      enum virtio_step (*step)(struct virtio_device *d,
					       struct virtqueue *q));
/* virtio_queue_run's entry for a device that can go on: from the home loop. */
void virtio_queue_resume(struct virtio_device *d, u16 queue);

/* ---- for transports ---- */

void virtio_kick(struct virtio_device *d, u16 queue); /* on the home loop */
void virtio_kick_all(struct virtio_device *d); /* any thread, by kick_self */
u32 virtio_features_read(const struct virtio_device *d, u32 select);
u32 virtio_driver_features_read(const struct virtio_device *d, u32 select);
void virtio_driver_features_write(struct virtio_device *d, u32 select, u32 v);
void virtio_status_write(struct virtio_device *d, u8 value);
void virtio_queue_enable(struct virtio_device *d, u16 queue);
/* Bytes outside read 0; sizes 1, 2, 4. */
u32 virtio_config_read(const struct virtio_device *d, u64 off, unsigned size);
void virtio_config_write(struct virtio_device *d, u64 off, unsigned size,
			 u32 v);
/* Power-on reset: ends what is in flight first. On the home loop. */
void virtio_reset_now(struct virtio_device *d);
/* Ends what is in flight. On the home loop. */
void virtio_drain(struct virtio_device *d);
/* The machine drains its devices before it saves the first one, so that no
 * interrupt is lost. */
void virtio_state(struct virtio_device *d, struct state *s);
void virtio_post_load(struct virtio_device *d);
