/* SPDX-License-Identifier: Apache-2.0 */
/* What every device model is: a name, a reset, a state, an end.
 *
 * A device embeds struct device and is registered with the machine's device
 * list, which resets, saves and frees in order. All callbacks run with the
 * device lock held (mem_io_lock); a device never takes it itself, never sees
 * an engine, and reaches the guest only through mem and irq.
 */
#pragma once

#include "base/list.h"
#include "base/types.h"
#include "state/state.h"

struct device;

struct device_ops {
	const char *type; /* "i8259", "virtio-blk", …: stable, it is saved */
	void (*reset)(struct device *dev); /* power-on values */
	/* One visitor for save, load and dump; range checks with st_require.
	 * NULL: the device has no guest-visible state. */
	void (*state)(struct device *dev, struct state *s);
	/* Ends what is in flight, before the first device is saved: it may
	 * interrupt. Optional, as all below. */
	void (*drain)(struct device *dev);
	/* After a successful load: re-arm timers, re-drive lines, remap. */
	void (*post_load)(struct device *dev);
	void (*free)(struct device *dev);
};

struct device {
	const struct device_ops *ops;
	char name[32];	  /* unique in its machine: "uart0", "disk0" */
	struct list link; /* in device_list */
};

struct device_list {
	struct list devices; /* in the order of creation */
};

void device_list_init(struct device_list *l);
void device_init(struct device *dev, const struct device_ops *ops,
		 const char *name);
void device_list_add(struct device_list *l, struct device *dev);
struct device *device_list_find(struct device_list *l, const char *name);
void device_list_reset(struct device_list *l);
/* Before a save, so that no interrupt comes behind its controller's. */
void device_list_drain(struct device_list *l);
/* Each device in a group of its name, headed by its type. A load checks that
 * the same devices exist, then calls post_load on each. */
void device_list_state(struct device_list *l, struct state *s);
void device_list_free(struct device_list *l); /* frees in reverse order */
