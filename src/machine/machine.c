/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/machine_int.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/log.h"
#include "dev/device.h"
#include "hw/acpi_pm.h"
#include "os/ram.h"
#include "soft/soft.h"
#include "virtio/vsock.h"
#include "x86/cpuid.h"

const char *machine_end_name(enum machine_end end)
{
	static const char *const names[] = {
		[MACHINE_END_POWEROFF] = "poweroff",
		[MACHINE_END_RESET] = "reset",
		[MACHINE_END_DEBUG_EXIT] = "debug-exit",
		[MACHINE_END_TRIPLE_FAULT] = "triple-fault",
		[MACHINE_END_ERROR] = "error",
	};

	return names[end];
}

/* ---- memory ---- */

static int ram_add(struct machine *m, u32 id, gpa_t gpa, u64 size, u64 off,
		   struct err *err)
{
	struct mem_slot slot = {
		.id = id,
		.gpa = gpa,
		.size = size,
		.hva = m->ram.hva + off,
	};

	return mem_slot_add(m->mem, &slot, err);
}

static int ram_create(struct machine *m, struct err *err)
{
	u64 size = m->cfg.memory_bytes;
	int rc;

	if (m->cfg.memory_fd >= 0)
		rc = os_ram_map(m->cfg.memory_fd, size, &m->ram.hva, err);
	else
		rc = os_ram_alloc(size, &m->ram.hva, err);
	if (rc < 0)
		return rc;
	m->ram.size = size;
	m->low_ram_top = MIN(size, MAP_LOW_RAM_MAX);
	m->high_ram_size = size - m->low_ram_top;
	rc = ram_add(m, 0, 0, m->low_ram_top, 0, err);
	if (rc == 0 && m->high_ram_size)
		rc = ram_add(m, 1, MAP_HIGH_RAM, m->high_ram_size,
			     m->low_ram_top, err);
	return rc;
}

/* ---- engine ---- */

/* Near half of the code that a boot runs, it runs no more often than that; a
 * translation costs as much as some runs in the interpreter, and memory.
 * docs/notes/translator-speed.md has the measurements. */
#define TRANSLATE_AFTER 8

static int engine_make(struct machine *m, struct err *err)
{
	struct x86_cpuid_config cpu = {
		.model = m->cpu_model,
		.vcpu_count = m->cfg.cpus,
		.tsc_khz = m->cfg.tsc_khz,
		.ram_top = MAP_MMIO64 + MAP_MMIO64_BYTES,
	};
	struct kvm_cpuid2 *cpuid;
	struct engine_vm_config cfg = {
		.mem = m->mem,
		.vcpu_count = m->cfg.cpus,
		.irqchip = &chipset_irqchip,
		.irqchip_opaque = m,
		.lockstep_every = m->cfg.lockstep_every,
		.translate_after = TRANSLATE_AFTER,
		.tsc_khz = m->cfg.tsc_khz,
	};
	int rc = engine_select(m->cfg.engine, m->cfg.kvm_refused, &m->engine,
			       m->engine_reason, err);

	if (rc < 0)
		return rc;
	rc = x86_cpuid_build(&cpu, &cpuid, err);
	if (rc < 0)
		return rc;
	cfg.cpuid = cpuid;
	rc = m->engine->vm_create(&cfg, &m->engine_vm, err);
	free(cpuid);
	if (rc < 0)
		return err_wrap(err, "start the %s engine", m->engine->name);
	return vcpus_create(m, err);
}

static int engine_create(struct machine *m, struct err *err)
{
	if (!m->cfg.tsc_khz)
		m->cfg.tsc_khz = (u32)soft_tsc_khz_measure();
	return engine_make(m, err);
}

static int engine_msi(void *opaque, u64 addr, u32 data)
{
	struct machine *m = opaque;

	return m->engine->msi(m->engine_vm, addr, data);
}

/* ---- creation ---- */

static int config_check(const struct machine_config *cfg, struct err *err)
{
	if (cfg->cpus < 1 || cfg->cpus > VCPUS_MAX)
		return err_set(err, -EINVAL, "a machine has 1 to %d CPUs",
			       VCPUS_MAX);
	if (cfg->memory_bytes < MACHINE_MEMORY_MIN ||
	    cfg->memory_bytes > MACHINE_MEMORY_MAX || cfg->memory_bytes % MIB)
		return err_set(
			err, -EINVAL,
			"memory must be whole MiB, from 16 MiB to 1 TiB");
	if (cfg->kernel_fd < 0)
		return err_set(err, -EINVAL,
			       "the machine has no kernel to boot");
	return 0;
}

static int copy_strings(struct machine *m)
{
	const struct machine_config *cfg = &m->cfg;

	m->cmdline = strdup(cfg->cmdline ? cfg->cmdline : "");
	m->kernel_name = strdup(cfg->kernel_name ? cfg->kernel_name : "kernel");
	m->cpu_model = cfg->cpu_model ? strdup(cfg->cpu_model) : NULL;
	if (!m->cmdline || !m->kernel_name || (cfg->cpu_model && !m->cpu_model))
		return -ENOMEM;
	m->cfg.cmdline = m->cmdline;
	m->cfg.kernel_name = m->kernel_name;
	m->cfg.cpu_model = m->cpu_model;
	return 0;
}

static int machine_build(struct machine *m, struct chardev *console,
			 struct err *err)
{
	int rc = config_check(&m->cfg, err);

	if (rc == 0)
		rc = ram_create(m, err);
	if (rc == 0)
		rc = engine_create(m, err);
	if (rc < 0)
		return rc;
	irq_router_set_msi(m->router, engine_msi, m);
	rc = chipset_create(m, console, err);
	if (rc == 0)
		rc = chipset_add_disks(m, err);
	if (rc == 0)
		rc = chipset_add_network(m, err);
	if (rc == 0)
		rc = chipset_add_vsock(m, err);
	return rc;
}

int machine_new(const struct machine_config *cfg, struct loop *loop,
		struct chardev *console, const struct machine_events *events,
		struct machine **out, struct err *err)
{
	struct machine *m = calloc(1, sizeof(*m));
	int rc;

	ASSERT(m);
	m->cfg = *cfg;
	m->loop = loop;
	m->events = *events;
	m->mem = mem_new();
	m->router = irq_router_new();
	ASSERT(m->mem && m->router && copy_strings(m) == 0);
	device_list_init(&m->devices);
	loop_set_lock(loop, mem_io_lock(m->mem));
	pthread_mutex_lock(mem_io_lock(m->mem));
	rc = machine_build(m, console, err);
	pthread_mutex_unlock(mem_io_lock(m->mem));
	if (rc < 0)
		machine_free(m);
	else
		*out = m;
	return rc;
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void close_disk(struct machine_disk *d)
{
	close_fd(&d->fd);
	for (size_t i = 0; i < d->how.layer_count; i++)
		close_fd(&d->layers[i].fd);
}

static void disks_close(struct machine *m)
{
	machine_overlay_cancel(m);
	for (size_t i = 0; i < m->cfg.disk_count; i++) {
		if (m->disks[i])
			block_close(m->disks[i]);
		else
			close_disk(&m->cfg.disks[i]);
	}
}

void machine_free(struct machine *m)
{
	pthread_mutex_lock(mem_io_lock(m->mem));
	vcpus_destroy(m);
	device_list_free(&m->devices);
	chardev_free(m->debugcon);
	net_backend_free(m->net);
	disks_close(m);
	if (m->engine_vm)
		m->engine->vm_destroy(m->engine_vm);
	loop_set_lock(m->loop, NULL);
	pthread_mutex_unlock(mem_io_lock(m->mem));
	irq_router_free(m->router);
	mem_free(m->mem);
	if (m->ram.hva)
		os_ram_free(m->ram.hva, m->ram.size);
	close_fd(&m->cfg.kernel_fd);
	close_fd(&m->cfg.memory_fd);
	for (size_t i = 0; i < m->cfg.module_count; i++)
		close_fd(&m->cfg.module_fds[i]);
	close_fd(&m->cfg.debugcon_fd);
	free(m->cmdline);
	free(m->kernel_name);
	free(m->cpu_model);
	free(m);
}

/* ---- power ---- */

static int boot_kernel(struct machine *m, struct boot_entry *out,
		       struct err *err)
{
	struct boot_config boot = {
		.mem = m->mem,
		.kernel_fd = m->cfg.kernel_fd,
		.module_fds = m->cfg.module_fds,
		.module_count = m->cfg.module_count,
		.cmdline = m->cfg.cmdline,
		.kernel_name = m->cfg.kernel_name,
		.low_ram_top = m->low_ram_top,
		.high_ram_base = MAP_HIGH_RAM,
		.high_ram_size = m->high_ram_size,
		.reserved = {{MAP_ECAM, MAP_ECAM_BYTES, BOOT_E820_RESERVED}},
		.reserved_count = 1,
	};
	int rc = chipset_write_tables(m, &boot.rsdp_gpa, err);

	return rc < 0 ? rc : boot_load(&boot, out, err);
}

static int vcpu_power_on(struct machine *m, u32 id,
			 const struct boot_entry *entry, struct err *err)
{
	struct vcpu *v = m->vcpus.vcpu[id].vcpu;
	struct vcpu_state *vs = calloc(1, sizeof(*vs));
	int rc;

	ASSERT(vs);
	rc = m->engine->vcpu_get(v, vs, err);
	if (rc == 0) {
		cpu_firmware_apply(vs);
		if (id == 0)
			cpu_start_apply(entry, vs);
		rc = m->engine->vcpu_set(v, vs, err);
	}
	free(vs);
	return rc;
}

/* Power-on: devices and vCPUs reset, kernel loaded, the first vCPU at it. */
static int machine_power_on(struct machine *m, struct err *err)
{
	struct boot_entry entry;
	int rc;

	device_list_reset(&m->devices);
	for (u32 i = 0; i < m->vcpus.count; i++)
		m->engine->vcpu_reset(m->vcpus.vcpu[i].vcpu);
	rc = boot_kernel(m, &entry, err);
	for (u32 i = 0; rc == 0 && i < m->vcpus.count; i++)
		rc = vcpu_power_on(m, i, &entry, err);
	if (rc == 0 && entry.wants_bios)
		chipset_bios_apply(m);
	return rc;
}

int machine_start(struct machine *m, struct err *err)
{
	int rc = machine_power_on(m, err);

	if (rc < 0)
		return rc;
	hw_clock_start(&m->clock);
	vcpus_run(m);
	return 0;
}

void machine_pause(struct machine *m)
{
	vcpus_stop(m);
	vcpus_wait_parked(m);
	hw_clock_stop(&m->clock);
}

void machine_resume(struct machine *m)
{
	if (m->is_ending)
		return;
	hw_clock_start(&m->clock);
	vcpus_run(m);
}

bool machine_is_running(const struct machine *m)
{
	return m->vcpus.want == VCPUS_RUNNING;
}

bool machine_is_on_kvm(const struct machine *m)
{
	return m->engine == &engine_kvm;
}

static void announce_end(struct machine *m)
{
	if (m->has_ended)
		return;
	m->has_ended = true;
	m->events.ended(m->events.opaque, m->end, m->end_status, m->end_detail);
}

/* On the loop, after the guest asked for an end or a reset. */
static void power_change(void *opaque)
{
	struct machine *m = opaque;
	struct err err = {0};

	machine_pause(m);
	if (!m->is_ending && m->is_reset_asked) {
		m->is_reset_asked = false;
		if (machine_start(m, &err) < 0)
			machine_end(m, MACHINE_END_ERROR, 1, err.text);
	}
	if (m->is_ending)
		announce_end(m);
}

void machine_end(struct machine *m, enum machine_end end, int status,
		 const char *detail)
{
	if (m->is_ending)
		return;
	m->is_ending = true;
	m->end = end;
	m->end_status = status;
	snprintf(m->end_detail, sizeof(m->end_detail), "%s", detail);
	vcpus_stop(m);
	loop_post(m->loop, power_change, m);
}

void machine_ask_reset(struct machine *m)
{
	if (m->cfg.no_reboot) {
		machine_end(m, MACHINE_END_RESET, 0, "");
		return;
	}
	if (m->is_ending || m->is_reset_asked)
		return;
	m->is_reset_asked = true;
	vcpus_stop(m);
	loop_post(m->loop, power_change, m);
}

void machine_reset(struct machine *m)
{
	machine_ask_reset(m);
}

void machine_power_button(struct machine *m)
{
	acpi_pm_power_button(m->acpi_pm);
}

/* ---- ways in ---- */

int machine_vsock_connect(struct machine *m, u32 port, int fd)
{
	if (!m->vsock)
		return -ENODEV;
	return vsock_connect(m->vsock, port, fd);
}

static void vsock_accepted(void *opaque, int fd)
{
	struct vsock_listener *l = opaque;

	l->machine->events.vsock_accepted(l->machine->events.opaque, l->port,
					  fd);
}

int machine_vsock_listen(struct machine *m, u32 port)
{
	struct vsock_listener *l;

	if (!m->vsock)
		return -ENODEV;
	if (m->listener_count == ARRAY_SIZE(m->listeners))
		return -ENOSPC;
	l = &m->listeners[m->listener_count++];
	*l = (struct vsock_listener){m, port};
	return vsock_listen(m->vsock, port, vsock_accepted, l);
}

void machine_info(struct machine *m, struct machine_info *out)
{
	memset(out, 0, sizeof(*out));
	out->engine = m->engine->name;
	out->tsc_khz = m->cfg.tsc_khz;
	snprintf(out->engine_reason, sizeof(out->engine_reason), "%s",
		 m->engine_reason);
	out->cpu_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
	if (m->engine->stats)
		out->stat_count = m->engine->stats(m->engine_vm, out->stats,
						   ARRAY_SIZE(out->stats));
}
