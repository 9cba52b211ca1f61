/* SPDX-License-Identifier: Apache-2.0 */
/* A machine: configuration to devices, address map, wiring, vCPU threads,
 * reset and end.
 *
 * One thread, the caller's, runs the loop and every device; one more per vCPU
 * runs the guest. All functions here are called on the loop's thread, with
 * the device lock held (which loop_set_lock arranges for callbacks).
 */
#pragma once

#include "base/buf.h"
#include "base/err.h"
#include "cpu/engine.h"
#include "dev/chardev.h"
#include "loop/loop.h"
#include "machine/config.h"

struct machine;

enum machine_end {
	MACHINE_END_POWEROFF,	  /* S5 */
	MACHINE_END_RESET,	  /* with no_reboot */
	MACHINE_END_DEBUG_EXIT,	  /* status: (V << 1) | 1 */
	MACHINE_END_TRIPLE_FAULT, /* detail: the registers */
	MACHINE_END_ERROR,	  /* detail: what the engine says */
};
const char *machine_end_name(enum machine_end end); /* "poweroff", … */

struct machine_events {
	/* The guest has ended; vCPUs are stopped. Called once, from a loop
	 * callback. The machine still exists. */
	void (*ended)(void *opaque, enum machine_end end, int status,
		      const char *detail);
	/* A host stream that a guest program opened to this vsock port. */
	void (*vsock_accepted)(void *opaque, u32 port, int fd);
	void *opaque;
};

/* Builds everything; nothing runs yet. `console` (borrowed) is the back end of
 * the first serial port or of virtio-console. The loop gets the device lock
 * (loop_set_lock). On failure the config's descriptors are closed too. */
int machine_new(const struct machine_config *cfg, struct loop *loop,
		struct chardev *console, const struct machine_events *events,
		struct machine **out, struct err *err);
/* Stops the vCPUs, ends every thread, drains and closes the disks. The loop
 * must not be running: called without the device lock. */
void machine_free(struct machine *m);

/* Loads the kernel and starts the vCPUs. */
int machine_start(struct machine *m, struct err *err);
void machine_pause(struct machine *m); /* returns when all are parked */
void machine_resume(struct machine *m);
/* The paused machine as bytes: configuration it depends on, clock, devices,
 * vCPUs; RAM apart. What is in flight ends first. */
int machine_save(struct machine *m, struct buf *out, struct err *err);
/* New layers for the disks, so that what they hold now stays as it is: each is
 * prepared (fd, an empty overlay of the disk with a write lock, is taken over),
 * and after machine_save() all are put in place while the machine is paused.
 * -EINVAL: no such disk, no overlay of it; -EEXIST: it has one prepared. */
int machine_overlay_prepare(struct machine *m, size_t disk, int fd,
			    struct err *err);
void machine_overlay_commit(struct machine *m);
void machine_overlay_cancel(struct machine *m);
/* done() is called, from the loop, when all that the disks hold is durable: 0,
 * or the first -errno. The layers below are free to be read then. */
void machine_flush_disks(struct machine *m, void (*done)(void *opaque, int rc),
			 void *opaque);
/* In place of machine_start(), into a machine of the same configuration that
 * has never run, with its RAM in config.memory_fd; machine_resume() then runs
 * it. The bytes are hostile: -EINVAL and why; the machine is of no use
 * then. Called without the device lock, before the loop runs. */
int machine_load(struct machine *m, const void *bytes, size_t len,
		 struct err *err);
/* All of RAM, as the guest has it. Stable only while paused. */
const u8 *machine_ram(const struct machine *m, u64 *out_bytes);
bool machine_is_running(const struct machine *m);
bool machine_is_on_kvm(const struct machine *m); /* known once it is built */
void machine_power_button(struct machine *m);
/* Asks for a reset as the guest would; done later, from the loop. */
void machine_reset(struct machine *m);

/* Connects fd to a guest port; taken on success. -ENODEV without a vsock
 * device. */
int machine_vsock_connect(struct machine *m, u32 port, int fd);
int machine_vsock_listen(struct machine *m, u32 port);

struct machine_info {
	const char *engine;	 /* "soft" */
	char engine_reason[256]; /* why it was chosen */
	u32 tsc_khz;		 /* the host's */
	u64 cpu_ns;		 /* of the whole process */
	struct engine_stat stats[128];
	size_t stat_count;
};
void machine_info(struct machine *m, struct machine_info *out);
