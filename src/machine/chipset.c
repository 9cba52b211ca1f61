/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY: the wiring of a PC. Each ISA interrupt goes to the PIC pair and to
 * the I/O APIC; the PIT's to I/O APIC pin 2 as on every PC (the MADT says
 * so). The PIC's output reaches LINT0 of the first vCPU through the engine.
 * PCI interrupts use GSIs 16-19.
 */
#include "machine/machine_int.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "base/assert.h"
#include "boot/acpi.h"
#include "boot/smbios.h"
#include "hw/acpi_pm.h"
#include "hw/debug_ports.h"
#include "hw/fwcfg.h"
#include "hw/i8254.h"
#include "hw/i8259.h"
#include "hw/ioapic.h"
#include "hw/reset_ctl.h"
#include "hw/rtc.h"
#include "hw/testdev.h"
#include "hw/uart16550.h"
#include "virtio/blk.h"
#include "virtio/console.h"
#include "virtio/net.h"
#include "virtio/rng.h"
#include "virtio/vsock.h"

#define UART_PORT	0x3f8
#define DEBUG_EXIT_PORT 0xf4
#define DEBUGCON_PORT	0xe9
#define IOAPIC_PIN_PIT	2

static const int intx_gsi[4] = {16, 17, 18, 19};

/* ---- interrupts ---- */

static void pic_output(void *opaque, int n, bool level)
{
	struct machine *m = opaque;

	m->engine->set_extint(m->engine_vm, level);
}

static u8 chipset_pic_ack(void *opaque)
{
	struct machine *m = opaque;
	u8 vector;

	pthread_mutex_lock(mem_io_lock(m->mem));
	vector = i8259_ack(m->pic);
	pthread_mutex_unlock(mem_io_lock(m->mem));
	return vector;
}

static void chipset_eoi(void *opaque, u8 vector)
{
	struct machine *m = opaque;

	pthread_mutex_lock(mem_io_lock(m->mem));
	ioapic_eoi(m->ioapic, vector);
	pthread_mutex_unlock(mem_io_lock(m->mem));
}

const struct engine_irqchip_ops chipset_irqchip = {
	.pic_ack = chipset_pic_ack,
	.eoi = chipset_eoi,
};

static void interrupts_create(struct machine *m)
{
	m->pic = i8259_new(&m->env, (struct irq){pic_output, m, 0});
	m->ioapic = ioapic_new(&m->env, 0);
	for (int gsi = 0; gsi < GSI_MAX; gsi++) {
		int pin = gsi == GSI_PIT ? IOAPIC_PIN_PIT : gsi;

		/* Input 2 is the PIC's cascade. */
		if (gsi == IOAPIC_PIN_PIT)
			continue;
		if (gsi < 16)
			irq_router_connect(m->router, gsi,
					   i8259_input(m->pic, gsi));
		irq_router_connect(m->router, gsi,
				   ioapic_input(m->ioapic, pin));
	}
}

static struct irq line(struct machine *m, int gsi)
{
	return irq_router_line(m->router, gsi);
}

/* ---- what the guest asks for ---- */

static void guest_poweroff(void *opaque)
{
	machine_end(opaque, MACHINE_END_POWEROFF, 0, "");
}

static void guest_reset(void *opaque)
{
	machine_ask_reset(opaque);
}

static void guest_debug_exit(void *opaque, u32 value)
{
	machine_end(opaque, MACHINE_END_DEBUG_EXIT,
		    (int)((value << 1 | 1) & 0xff), "");
}

/* ---- the fixed devices ---- */

static int pci_create(struct machine *m, struct err *err)
{
	struct pci_bus_config cfg = {
		.mem = m->mem,
		.router = m->router,
		.ecam_base = MAP_ECAM,
		.mmio32_base = MAP_MMIO32,
		.mmio32_size = MAP_MMIO32_BYTES,
		.mmio64_base = MAP_MMIO64,
		.mmio64_size = MAP_MMIO64_BYTES,
		.pio_base = MAP_PCI_PIO,
		.pio_size = MAP_PCI_PIO_BYTES,
	};

	memcpy(cfg.intx_gsi, intx_gsi, sizeof(intx_gsi));
	m->pci = pci_bus_new(&cfg, &m->devices, err);
	return m->pci ? 0 : -EINVAL;
}

static void debug_devices_create(struct machine *m)
{
	u16 cpus = (u16)m->cfg.cpus;
	u64 ram = m->cfg.memory_bytes;

	if (m->cfg.has_debug_exit)
		debug_exit_new(&m->env, DEBUG_EXIT_PORT, guest_debug_exit, m);
	if (m->cfg.debugcon_fd >= 0) {
		struct chardev_port port = {
			.in_fd = -1,
			.out_fd = m->cfg.debugcon_fd,
			.owns_fds = true,
			.cap_bytes = DEBUGCON_BYTES_MAX,
		};

		m->debugcon = chardev_new(m->loop);
		m->cfg.debugcon_fd = -1;
		if (chardev_add_port(m->debugcon, &port) < 0)
			close(port.out_fd);
		debugcon_new(&m->env, DEBUGCON_PORT, m->debugcon);
	}
	if (m->cfg.has_test_devices) {
		struct fwcfg *fw = fwcfg_new(&m->env);

		fwcfg_set(fw, FWCFG_CPUS, &cpus, sizeof(cpus));
		fwcfg_set(fw, FWCFG_MAX_CPUS, &cpus, sizeof(cpus));
		fwcfg_set(fw, FWCFG_RAM_SIZE, &ram, sizeof(ram));
	}
}

static int test_devices_create(struct machine *m, struct err *err)
{
	if (!m->cfg.has_test_devices)
		return 0;
	isa_testdev_new(&m->env);
	return pci_testdev_new(&m->env, m->pci, -1, err);
}

static struct virtio_attach attach(struct machine *m, const char *name)
{
	return (struct virtio_attach){
		.loop = m->loop,
		.mem = m->mem,
		.bus = m->pci,
		.name = name,
		.slot = -1,
	};
}

static int virtio_console_create(struct machine *m, struct chardev *console,
				 struct err *err)
{
	struct virtio_console_config cfg = {
		.at = attach(m, "console0"),
		.chardev = console,
	};
	struct virtio_console *ignored;

	return virtio_console_new(&cfg, &ignored, err);
}

int chipset_create(struct machine *m, struct chardev *console, struct err *err)
{
	struct hw_request reset = {guest_reset, m};
	struct virtio_rng_config rng = {0};
	struct virtio_device *ignored;
	int rc;

	m->env = (struct hw_env){&m->devices, m->mem, m->router, &m->clock};
	rc = identity_uuid(m->uuid, err); /* the same over every reset */
	if (rc < 0)
		return rc;
	hw_clock_init(&m->clock, m->loop);
	interrupts_create(m);
	i8254_new(&m->env, line(m, GSI_PIT));
	rtc_new(&m->env, line(m, GSI_RTC));
	m->uart = uart16550_new(&m->env, "uart0", UART_PORT, line(m, GSI_UART),
				m->cfg.has_virtio_console ? NULL : console);
	m->acpi_pm = acpi_pm_new(&m->env, line(m, GSI_SCI),
				 (struct hw_request){guest_poweroff, m});
	rc = pci_create(m, err);
	if (rc < 0)
		return rc;
	reset_ctl_new(&m->env, m->pci, reset);
	i8042_new(&m->env, line(m, 1), reset);
	debug_devices_create(m);
	rc = test_devices_create(m, err);
	if (rc < 0)
		return rc;
	rng.at = attach(m, "rng0");
	rc = virtio_rng_new(&rng, &ignored, err);
	if (rc == 0 && m->cfg.has_virtio_console)
		rc = virtio_console_create(m, console, err);
	return rc;
}

/* ---- configured devices ---- */

int chipset_add_disks(struct machine *m, struct err *err)
{
	for (size_t i = 0; i < m->cfg.disk_count; i++) {
		struct machine_disk *d = &m->cfg.disks[i];
		struct virtio_blk_config blk = {0};
		char name[20];
		int fd = d->fd;
		int rc;

		d->fd = -1; /* the node's from here, also on failure */
		d->how.layers = d->layers;
		rc = block_open_fd(m->loop, fd, &d->how, &m->disks[i], err);
		d->how.layer_count = 0;
		snprintf(name, sizeof(name), "disk%u", (unsigned)i);
		if (rc == 0) {
			blk.at = attach(m, name);
			blk.node = m->disks[i];
			blk.serial = d->serial[0] ? d->serial : NULL;
			blk.queues = (u16)MIN(m->cfg.cpus, 4);
			rc = virtio_blk_new(&blk, &m->disk_devices[i], err);
		}
		if (rc < 0)
			return err_wrap(err, "add disk %zu", i);
	}
	return 0;
}

int chipset_add_network(struct machine *m, struct err *err)
{
	struct virtio_net_config net = {0};
	int rc;

	if (!m->cfg.has_network)
		return 0;
	rc = net_user_new(m->loop, m->cfg.forwards, m->cfg.forward_count,
			  &m->net, err);
	if (rc < 0)
		return err_wrap(err, "start the network");
	rc = identity_mac(&m->cfg, net.mac, err);
	if (rc < 0)
		return rc;
	net.at = attach(m, "net0");
	net.backend = m->net;
	return virtio_net_new(&net, &m->net_device, err);
}

int chipset_add_vsock(struct machine *m, struct err *err)
{
	struct virtio_vsock_config cfg = {
		.at = attach(m, "vsock0"),
		.guest_cid = (u32)m->cfg.vsock_cid,
	};

	if (!m->cfg.vsock_cid)
		return 0;
	return virtio_vsock_new(&cfg, &m->vsock, err);
}

int chipset_write_tables(struct machine *m, gpa_t *out_rsdp, struct err *err)
{
	struct acpi_config acpi = {
		.mem = m->mem,
		.vcpu_count = m->cfg.cpus,
		.lapic_gpa = MAP_LAPIC,
		.ioapic_gpa = IOAPIC_BASE,
		.ecam_gpa = MAP_ECAM,
		.mmio32_base = MAP_MMIO32,
		.mmio32_size = MAP_MMIO32_BYTES,
		.mmio64_base = MAP_MMIO64,
		.mmio64_size = MAP_MMIO64_BYTES,
		.pio_base = MAP_PCI_PIO,
		.pio_size = MAP_PCI_PIO_BYTES,
		.pm1a_event_port = ACPI_PM1A_EVENT_PORT,
		.pm1a_control_port = ACPI_PM1A_CONTROL_PORT,
		.pm_timer_port = ACPI_PM_TIMER_PORT,
		.gpe0_port = ACPI_GPE0_PORT,
		.gpe0_bytes = ACPI_GPE0_BYTES,
		.reset_port = RESET_CTL_PORT,
		.reset_value = RESET_CTL_VALUE,
		.sci_gsi = ACPI_SCI_GSI,
		.s5_slp_typ = ACPI_S5_SLP_TYP,
		.uart_port = UART_PORT,
		.uart_irq = GSI_UART,
	};

	struct smbios_config smbios = {.mem = m->mem, .name = m->cfg.name};
	int rc;

	memcpy(smbios.uuid, m->uuid, sizeof(smbios.uuid));
	memcpy(acpi.intx_gsi, intx_gsi, sizeof(intx_gsi));
	rc = acpi_build(&acpi, out_rsdp, err);
	if (rc == 0)
		rc = identity_generation(m, err);
	return rc < 0 ? rc : smbios_build(&smbios, err);
}

void chipset_bios_apply(struct machine *m)
{
	static const struct {
		u8 port, value;
	} writes[] = {
		/* clang-format off */
		{0x20, 0x11}, {0x21, BOOT_PIC_BASE_0}, {0x21, 4}, {0x21, 1},
		{0xa0, 0x11}, {0xa1, BOOT_PIC_BASE_1}, {0xa1, 2}, {0xa1, 1},
		{0x21, 0xf8}, {0xa1, 0xff}, /* timer and keyboard only */
		{0x43, 0x34}, {0x40, 0}, {0x40, 0}, /* mode 2, 65536 ticks */
		/* clang-format on */
	};

	/* No vCPU runs yet: nobody gets in between. */
	pthread_mutex_unlock(mem_io_lock(m->mem));
	for (size_t i = 0; i < ARRAY_SIZE(writes); i++)
		mem_pio_write(m->mem, writes[i].port, 1, writes[i].value);
	pthread_mutex_lock(mem_io_lock(m->mem));
}
