/* SPDX-License-Identifier: Apache-2.0 */
/* What a machine is made of. Strings and arrays are borrowed for the length
 * of machine_new(); file descriptors in it become the machine's. */
#pragma once

#include "base/types.h"
#include "block/block.h"
#include "boot/boot.h"
#include "net/net.h"

#define MACHINE_DISKS_MAX    16
#define MACHINE_FORWARDS_MAX 64
#define MACHINE_NAME_MAX     64
#define MACHINE_MEMORY_MIN   (16 * MIB)
#define MACHINE_MEMORY_MAX   (1024 * GIB)

enum machine_engine {
	MACHINE_ENGINE_AUTO,
	MACHINE_ENGINE_SOFT,
	MACHINE_ENGINE_KVM
};

struct machine_disk {
	int fd;
	struct block_open how;
	struct block_layer layers[BLOCK_LAYERS_MAX]; /* how.layers */
	char serial[21];			     /* "" for none */
};

struct machine_config {
	char name[MACHINE_NAME_MAX];
	u32 cpus;	  /* 1-VCPUS_MAX */
	u64 memory_bytes; /* whole MiB */
	enum machine_engine engine;
	u32 tsc_khz; /* the host's, when it is known; 0: measured */
	/* Why KVM cannot be used, when it is known: it is not tried again
	 * for MACHINE_ENGINE_AUTO. NULL or "": it is tried. */
	const char *kvm_refused;
	const char *cpu_model; /* NULL: default */
	int memory_fd;	       /* RAM as a snapshot left it; -1: zeroes */
	int kernel_fd;
	int module_fds[BOOT_MODULES_MAX];
	size_t module_count;
	const char *cmdline;	 /* may be NULL */
	const char *kernel_name; /* may be NULL */
	struct machine_disk disks[MACHINE_DISKS_MAX];
	size_t disk_count;
	bool has_network;
	struct net_forward forwards[MACHINE_FORWARDS_MAX];
	size_t forward_count;
	u8 mac[6];		 /* zeroes: a random one */
	bool has_new_identity;	 /* identity.c: after machine_load() */
	u64 vsock_cid;		 /* 3 and up; 0: no vsock device */
	bool has_virtio_console; /* the console is hvc0, not ttyS0 */
	bool has_debug_exit;
	bool has_test_devices;
	int debugcon_fd;    /* -1: none */
	u32 lockstep_every; /* engine_vm_config */
	bool no_reboot;	    /* a reset ends the machine */
};
