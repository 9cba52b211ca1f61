/* SPDX-License-Identifier: Apache-2.0 */
/* Private to src/machine:
 *   machine.c  creation, start, end, reset
 *   vcpus.c    vCPU threads, pause and resume
 *   chipset.c  address map and devices
 *   state.c    all of it as a stream of fields
 *   identity.c  what is unique about a machine
 *   overlay.c  new layers over disks in use
 *   cpu_start.c  a boot entry as vCPU state; registers as text
 *   select.c   which engine
 */
#pragma once

#include <pthread.h>

#include "boot/boot.h"
#include "dev/pci.h"
#include "hw/hw.h"
#include "irq/irq.h"
#include "machine/machine.h"

/* Address map. Low RAM ends at or below LOW_RAM_MAX; the rest lies above
 * 4 GiB. */
#define MAP_LOW_RAM_MAX	  0xb0000000ull
#define MAP_ECAM	  0xb0000000ull
#define MAP_ECAM_BYTES	  0x00100000ull
#define MAP_MMIO32	  0xc0000000ull
#define MAP_MMIO32_BYTES  0x3e000000ull /* up to 0xfe000000 */
#define MAP_LAPIC	  0xfee00000ull
#define MAP_HIGH_RAM	  0x100000000ull
#define MAP_MMIO64	  0x18000000000ull /* above 1.5 TiB of RAM */
#define MAP_MMIO64_BYTES  0x1000000000ull
#define MAP_PCI_PIO	  0xc000
#define MAP_PCI_PIO_BYTES 0x1000

#define GSI_PIT	 0
#define GSI_UART 4
#define GSI_RTC	 8
#define GSI_SCI	 9

enum vcpus_want { VCPUS_PAUSED, VCPUS_RUNNING, VCPUS_QUIT };

struct machine_vcpu {
	struct machine *machine;
	struct vcpu *vcpu;
	pthread_t thread;
	u32 id;
	bool has_thread;
};

struct machine_vcpus {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	enum vcpus_want want;
	u32 parked; /* threads that wait in this module */
	u32 count;
	struct machine_vcpu vcpu[VCPUS_MAX];
};

#define DEBUGCON_BYTES_MAX (64 * MIB)

struct i8259;
struct ioapic;
struct uart16550;
struct acpi_pm;
struct vsock;

/* vsock passes no port back: one of these per listener. */
struct vsock_listener {
	struct machine *machine;
	u32 port;
};

struct machine {
	struct machine_config cfg;
	char *cmdline, *kernel_name, *cpu_model; /* own copies */
	struct loop *loop;
	struct machine_events events;
	struct mem *mem;
	struct irq_router *router;
	struct device_list devices;
	struct hw_clock clock;
	struct hw_env env;
	struct pci_bus *pci;
	struct i8259 *pic;
	struct ioapic *ioapic;
	struct uart16550 *uart;
	struct acpi_pm *acpi_pm;
	struct vsock *vsock;
	struct vsock_listener listeners[4];
	size_t listener_count;
	struct chardev *debugcon;
	struct net_backend *net;
	struct virtio_device *net_device; /* NULL: none */
	struct block_node *disks[MACHINE_DISKS_MAX];
	struct virtio_device *disk_devices[MACHINE_DISKS_MAX];
	struct block_node *overlays[MACHINE_DISKS_MAX]; /* not yet in use */
	struct {
		u8 *hva;
		u64 size;
	} ram;
	u8 uuid[16]; /* random, for SMBIOS */
	gpa_t low_ram_top;
	u64 high_ram_size;

	const struct engine_ops *engine;
	struct engine_vm *engine_vm;
	char engine_reason[256];
	struct machine_vcpus vcpus;

	/* Set once, by whoever ends the guest first (device lock held);
	 * handled on the loop. */
	bool is_ending, is_reset_asked, has_ended;
	enum machine_end end;
	int end_status;
	char end_detail[1024];
};

/* Ends the guest or asks for a reset: from a device (any thread, device lock
 * held). The vCPUs stop before their next instruction but one. */
void machine_end(struct machine *m, enum machine_end end, int status,
		 const char *detail);
void machine_ask_reset(struct machine *m);

/* vcpus.c */
/* All threads are there and parked when it returns. */
int vcpus_create(struct machine *m, struct err *err);
void vcpus_destroy(struct machine *m);
/* Asks all to stop, does not wait. Any thread. */
void vcpus_stop(struct machine *m);
/* Waits until all are parked. Gives up the device lock meanwhile. */
void vcpus_wait_parked(struct machine *m);
void vcpus_run(struct machine *m);

/* chipset.c */
int chipset_create(struct machine *m, struct chardev *console, struct err *err);
int chipset_add_disks(struct machine *m, struct err *err);
int chipset_add_network(struct machine *m, struct err *err);
int chipset_add_vsock(struct machine *m, struct err *err);
int chipset_write_tables(struct machine *m, gpa_t *out_rsdp, struct err *err);
/* The PICs and timer 0 as a BIOS leaves them: 18.2 interrupts a second. Gives
 * up the device lock meanwhile. */
void chipset_bios_apply(struct machine *m);
extern const struct engine_irqchip_ops chipset_irqchip;

/* identity.c */
int identity_uuid(u8 out[16], struct err *err);
/* The configuration's, or a random one. */
int identity_mac(const struct machine_config *cfg, u8 out[6], struct err *err);
/* A new generation id, in guest memory. */
int identity_generation(struct machine *m, struct err *err);
/* Of a machine that goes on from a snapshot. */
int identity_after_load(struct machine *m, struct err *err);

/* cpu_start.c */
void cpu_start_apply(const struct boot_entry *entry, struct vcpu_state *vs);
/* What firmware leaves in every CPU before it starts a kernel: the MTRRs. */
void cpu_firmware_apply(struct vcpu_state *vs);
void cpu_format_registers(const struct vcpu_state *vs, char *out, size_t n);

/* select.c */
int engine_select(enum machine_engine want, const char *kvm_refused,
		  const struct engine_ops **out, char reason[256],
		  struct err *err);
