/* SPDX-License-Identifier: Apache-2.0 */
/* What a machine is made of, as the CLI (later the daemon) tells skerry-vmm:
 * the params of machine.create.
 *
 * One table gives the parser, the writer and the documentation
 * (api_machine_config_doc). Unknown keys are refused with the nearest known
 * one named; a missing key has the default that api_machine_config_init
 * sets. Files are descriptors: each *_fd is an index into the descriptors
 * that came with the message, -1 for none.
 */
#pragma once

#include <jansson.h>

#include "base/err.h"
#include "base/types.h"

#define API_DISKS_MAX	 32
#define API_FORWARDS_MAX 64
#define API_NAME_MAX	 64
#define API_APPEND_MAX	 4096

enum api_engine { API_ENGINE_AUTO, API_ENGINE_SOFT, API_ENGINE_KVM };
enum api_console { API_CONSOLE_SERIAL, API_CONSOLE_VIRTIO };
enum api_network { API_NETWORK_USER, API_NETWORK_NONE };

#define API_LAYERS_MAX 31

/* A file below an overlay. */
struct api_layer {
	int fd; /* opened for reading and locked by the sender */
	char format[16];
};

struct api_disk {
	int fd;		 /* opened and locked by the sender */
	char format[16]; /* "raw", "qcow2" */
	bool is_read_only;
	char serial[21]; /* virtio-blk serial; "" for none */
	u32 layer_count; /* nearest first */
	struct api_layer layers[API_LAYERS_MAX];
};

struct api_forward {
	bool is_udp;
	u32 host_addr; /* IPv4, host byte order; default 127.0.0.1 */
	u16 host_port, guest_port;
};

struct api_machine_config {
	char name[API_NAME_MAX];
	u32 cpus;	  /* 1..64 */
	u64 memory_bytes; /* a multiple of 1 MiB */
	enum api_engine engine;
	char cpu_model[32]; /* "" for the default */
	/* What an earlier machine.create answered on this host. */
	u32 tsc_khz;	       /* 0: to be measured */
	char kvm_refused[256]; /* engine auto does not try KVM; "": it does */

	/* A snapshot's two files: the machine goes on from there. */
	int restore_state_fd, restore_memory_fd;

	int kernel_fd; /* -1: no direct boot */
	int initrd_fd;
	char append[API_APPEND_MAX]; /* kernel command line */

	u32 disk_count;
	struct api_disk disks[API_DISKS_MAX];

	enum api_network network;
	u32 forward_count;
	struct api_forward forwards[API_FORWARDS_MAX];

	bool debug_exit;    /* port 0xf4 ends the machine */
	bool test_devices;  /* fw_cfg and the test devices */
	u32 lockstep_every; /* compare the engine's tiers; 0: no */
	bool no_reboot;	    /* a reset ends the machine */
	char mac[18];	  /* "52:54:00:…"; "": a random one */
	bool new_identity; /* restored as another machine: with mac, vsock_cid,
			    * and another SMBIOS UUID */
	bool is_held; /* built, it waits for machine.resume, and ends when its
		       * owner goes without that */
	bool no_sandbox;    /* for diagnosis: no system call filter */
	int debugcon_fd;    /* gets the bytes written to port 0xe9 */

	/* Which device the console is: the first serial port (ttyS0) or
	 * virtio-console (hvc0). */
	enum api_console console;
	/* serial_fd is the first console client: what the guest sends
	 * is written there (a pipe, file, terminal or stream socket; never
	 * lost while the reader is slow), and with serial_input what can be
	 * read from it goes to the guest. console_log_fd gets a copy of the
	 * output, bounded by the vmm. */
	int serial_fd;
	bool serial_input;
	int console_log_fd;

	int listen_fd; /* SOCK_SEQPACKET listener: control.sock; -1: none */
	u32 vsock_cid; /* 3..0xfffffffe; 0: no vsock device */
	u32 log_level; /* enum log_level */
};

void api_machine_config_init(struct api_machine_config *c);

/* fd_count: the number of descriptors that came with the message; an index
 * beyond it is refused, and so is one that is used twice. The error names
 * the key by its path ("disks[1].format") and has the id "config.invalid".
 */
int api_machine_config_from_json(const json_t *obj, size_t fd_count,
				 struct api_machine_config *out,
				 struct err *err);
json_t *api_machine_config_to_json(const struct api_machine_config *c);

/* The rules that hold between keys and for ranges; from_json calls it. */
int api_machine_config_check(const struct api_machine_config *c,
			     struct err *err);

struct buf;
/* One line per key: path, type, default, meaning. */
void api_machine_config_doc(struct buf *out);
