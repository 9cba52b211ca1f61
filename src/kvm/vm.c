/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY
 *
 * One VM with a split irqchip: the local APICs are KVM's, the I/O APIC, the
 * PICs and the PIT ours. RAM slots of struct mem become memory slots of the
 * same number. Everything that opens a descriptor happens in vm_create() and
 * vcpu_create(), before the process enters its sandbox.
 *
 * Two places in the guest's address space belong to KVM, on CPUs that need
 * them for real mode: a page table and a task-state segment, below the last
 * 16 MiB, where neither RAM nor a device is.
 */
#include "kvm/vcpu.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/log.h"

#define IDENTITY_MAP_GPA 0xfeffc000ull
#define TSS_GPA		 0xfeffd000ull
#define IOCTL_TRIES	 32

/* ---- ioctls ---- */

int kvm_ioctl(int fd, unsigned long request, void *arg, const char *name,
	      struct err *err)
{
	int rc = -1;

	for (int i = 0; i < IOCTL_TRIES; i++) {
		rc = ioctl(fd, request, arg);
		if (rc >= 0 || (errno != EINTR && errno != EAGAIN))
			break;
	}
	return rc < 0 ? err_sys(err, -errno, "%s", name) : rc;
}

int kvm_check(const struct engine_vm *vm, int capability)
{
	int rc = ioctl(vm->vm_fd, KVM_CHECK_EXTENSION, capability);

	return MAX(rc, 0);
}

int kvm_enable(struct engine_vm *vm, int capability, u64 arg, const char *name,
	       struct err *err)
{
	struct kvm_enable_cap cap = {.cap = (u32)capability, .args = {arg}};
	int rc = KVM_IOCTL(vm->vm_fd, KVM_ENABLE_CAP, &cap, err);

	return rc < 0 ? err_wrap(err, "enable %s", name) : 0;
}

/* ---- memory ---- */

void kvm_vm_break(struct engine_vm *vm, const struct err *err)
{
	pthread_mutex_lock(&vm->lock);
	if (!atomic_load(&vm->is_broken))
		vm->broken = *err;
	atomic_store(&vm->is_broken, true);
	pthread_mutex_unlock(&vm->lock);
	log_error("KVM: %s", err->text);
}

int kvm_slot_set(struct engine_vm *vm, const struct mem_slot *slot,
		 bool is_there, struct err *err)
{
	struct kvm_userspace_memory_region region = {
		.slot = slot->id,
		.flags = (slot->flags & MEM_SLOT_ROM) ? KVM_MEM_READONLY : 0,
		.guest_phys_addr = slot->gpa,
		.memory_size = is_there ? slot->size : 0,
		.userspace_addr = (u64)(uintptr_t)slot->hva,
	};
	int rc;

	if (atomic_load(&vm->is_dirty_on) && is_there)
		region.flags |= KVM_MEM_LOG_DIRTY_PAGES;
	if (slot->id >= vm->slots_max)
		return err_set(err, -ENOSPC, "memory slot %u: KVM has %u here",
			       slot->id, vm->slots_max);
	rc = KVM_IOCTL(vm->vm_fd, KVM_SET_USER_MEMORY_REGION, &region, err);
	return rc < 0 ? err_wrap(err, "memory slot %u at 0x%llx", slot->id,
				 (unsigned long long)slot->gpa)
		      : 0;
}

static void slot_changed(void *opaque, const struct mem_slot *slot, bool added)
{
	struct engine_vm *vm = opaque;
	struct err err = {0};

	if (atomic_load(&vm->is_dirty_on)) {
		if (!added)
			kvm_dirty_slot_del(vm, slot->id);
		else if (kvm_dirty_slot_add(vm, slot, &err) < 0)
			kvm_vm_break(vm, &err);
	}
	if (kvm_slot_set(vm, slot, added, &err) < 0)
		kvm_vm_break(vm, &err);
}

static void ram_written(void *opaque, gpa_t gpa, u64 len)
{
	kvm_dirty_written(opaque, gpa, len);
}

/* ---- creation ---- */

static int open_kvm(struct engine_vm *vm, struct err *err)
{
	int version, n;

	vm->kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (vm->kvm_fd < 0)
		return err_sys(err, -errno, "open /dev/kvm");
	version = KVM_IOCTL(vm->kvm_fd, KVM_GET_API_VERSION, NULL, err);
	if (version < 0)
		return version;
	if (version != KVM_API_VERSION)
		return err_set(err, -ENOTSUP, "KVM API version %d, not %d",
			       version, KVM_API_VERSION);
	n = KVM_IOCTL(vm->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, NULL, err);
	if (n < 0)
		return n;
	if (n < (int)sizeof(struct kvm_run))
		return err_set(err, -ENOTSUP, "KVM's run area is too small");
	vm->run_bytes = (size_t)n;
	vm->vm_fd = KVM_IOCTL(vm->kvm_fd, KVM_CREATE_VM, NULL, err);
	return MIN(vm->vm_fd, 0);
}

static const struct {
	int cap;
	const char *name;
} needed[] = {
	{KVM_CAP_USER_MEMORY, "user memory"},
	{KVM_CAP_SPLIT_IRQCHIP, "a split irqchip"},
	{KVM_CAP_EXT_CPUID, "CPUID tables"},
	{KVM_CAP_XSAVE, "XSAVE state"},
	{KVM_CAP_XCRS, "XCR0"},
	{KVM_CAP_VCPU_EVENTS, "vCPU events"},
	{KVM_CAP_DEBUGREGS, "debug registers"},
	{KVM_CAP_SREGS2, "KVM_GET_SREGS2"},
	{KVM_CAP_MP_STATE, "run states"},
	{KVM_CAP_SIGNAL_MSI, "MSI injection"},
	{KVM_CAP_IMMEDIATE_EXIT, "immediate exit"},
	{KVM_CAP_READONLY_MEM, "read-only memory"},
};

static int check_capabilities(struct engine_vm *vm, struct err *err)
{
	for (size_t i = 0; i < ARRAY_SIZE(needed); i++)
		if (!kvm_check(vm, needed[i].cap))
			return err_set(err, -ENOTSUP, "KVM lacks %s",
				       needed[i].name);
	vm->slots_max = (u32)kvm_check(vm, KVM_CAP_NR_MEMSLOTS);
	if ((int)vm->cfg.vcpu_count > kvm_check(vm, KVM_CAP_MAX_VCPUS))
		return err_set(err, -ENOTSUP, "KVM runs up to %d vCPUs here",
			       kvm_check(vm, KVM_CAP_MAX_VCPUS));
	return 0;
}

/* Wishes: what is not there is done without. */
static int enable_wishes(struct engine_vm *vm, struct err *err)
{
	int rc = 0;

	/* Power-on has CR0.CD and CR0.NW set, as the manual says. */
	vm->quirks = (u64)kvm_check(vm, KVM_CAP_DISABLE_QUIRKS2) &
		     KVM_X86_QUIRK_CD_NW_CLEARED;
	if (vm->quirks)
		rc = kvm_enable(vm, KVM_CAP_DISABLE_QUIRKS2, vm->quirks,
				"KVM_CAP_DISABLE_QUIRKS2", err);
	/* x2APIC ids are saved as they are. */
	if (rc == 0 && kvm_check(vm, KVM_CAP_X2APIC_API))
		rc = kvm_enable(vm, KVM_CAP_X2APIC_API,
				KVM_X2APIC_API_USE_32BIT_IDS,
				"KVM_CAP_X2APIC_API", err);
	if (rc == 0 && kvm_check(vm, KVM_CAP_X86_USER_SPACE_MSR))
		rc = kvm_enable(vm, KVM_CAP_X86_USER_SPACE_MSR,
				KVM_MSR_EXIT_REASON_UNKNOWN,
				"KVM_CAP_X86_USER_SPACE_MSR", err);
	return rc;
}

static int set_places(struct engine_vm *vm, struct err *err)
{
	u64 identity = IDENTITY_MAP_GPA;
	int rc = 0;

	if (kvm_check(vm, KVM_CAP_SET_IDENTITY_MAP_ADDR))
		rc = KVM_IOCTL(vm->vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity,
			       err);
	if (rc >= 0 && kvm_check(vm, KVM_CAP_SET_TSS_ADDR))
		rc = KVM_IOCTL(vm->vm_fd, KVM_SET_TSS_ADDR, TSS_GPA, err);
	return MIN(rc, 0);
}

static void vm_destroy(struct engine_vm *vm)
{
	if (!vm)
		return;
	for (u32 i = 0; i < VCPUS_MAX; i++)
		ASSERT(!vm->vcpus[i]);
	if (vm->mem)
		mem_set_listener(vm->mem, NULL);
	if (vm->vm_fd >= 0)
		close(vm->vm_fd);
	if (vm->kvm_fd >= 0)
		close(vm->kvm_fd);
	free(vm->cpuid);
	for (size_t i = 0; i < vm->dirty_count; i++)
		free(vm->dirty[i].bits);
	pthread_mutex_destroy(&vm->dirty_lock);
	pthread_mutex_destroy(&vm->lock);
	free(vm);
}

static int set_memory(struct engine_vm *vm, struct err *err)
{
	static const struct mem_listener listener = {
		.slot_changed = slot_changed,
		.written = ram_written,
		.doorbell_changed = kvm_doorbell_changed,
	};
	struct mem_listener l = listener;

	l.opaque = vm;
	vm->mem = vm->cfg.mem;
	mem_set_listener(vm->mem, &l);
	if (!atomic_load(&vm->is_broken))
		return 0;
	return err_set(err, vm->broken.code, "%s", vm->broken.text);
}

static int vm_create(const struct engine_vm_config *cfg,
		     struct engine_vm **out_vm, struct err *err)
{
	struct engine_vm *vm;
	int rc;

	if (cfg->vcpu_count < 1 || cfg->vcpu_count > VCPUS_MAX)
		return err_set(err, -EINVAL, "%u vCPUs: 1 to %u are possible",
			       cfg->vcpu_count, VCPUS_MAX);
	if (cfg->lockstep_every)
		return err_set(err, -EINVAL, "lockstep is for the soft engine");
	vm = calloc(1, sizeof(*vm));
	if (!vm)
		return err_set(err, -ENOMEM, "out of memory");
	vm->cfg = *cfg;
	vm->kvm_fd = vm->vm_fd = -1;
	pthread_mutex_init(&vm->lock, NULL);
	pthread_mutex_init(&vm->dirty_lock, NULL);
	rc = kvm_kick_init(err);
	if (rc == 0)
		rc = open_kvm(vm, err);
	if (rc == 0)
		rc = check_capabilities(vm, err);
	if (rc == 0)
		rc = kvm_cpuid_mask(vm->kvm_fd, cfg->cpuid, &vm->cpuid, err);
	if (rc == 0)
		rc = enable_wishes(vm, err);
	if (rc == 0)
		rc = set_places(vm, err);
	if (rc == 0)
		rc = kvm_irq_init(vm, err);
	if (rc == 0)
		rc = kvm_dirty_init(vm, err);
	if (rc == 0)
		rc = set_memory(vm, err);
	if (rc < 0)
		vm_destroy(vm);
	else
		*out_vm = vm;
	return rc;
}

/* ---- counters ---- */

static const struct {
	u32 reason;
	const char *name, *help;
} counted[] = {
	{KVM_EXIT_IO, "exits-pio", "accesses to ports"},
	{KVM_EXIT_MMIO, "exits-mmio", "accesses to device memory"},
	{KVM_EXIT_IRQ_WINDOW_OPEN, "exits-irq-window",
	 "the guest became ready for the PIC's interrupt"},
	{KVM_EXIT_IOAPIC_EOI, "exits-eoi", "ends of level interrupts"},
	{KVM_EXIT_X86_RDMSR, "exits-rdmsr", "reads of MSRs that KVM lacks"},
	{KVM_EXIT_X86_WRMSR, "exits-wrmsr", "writes of MSRs that KVM lacks"},
	{KVM_EXIT_DIRTY_RING_FULL, "exits-dirty-ring",
	 "a vCPU's dirty ring was full"},
	{KVM_EXIT_INTR, "exits-signal", "kicks"},
};

static size_t stats(struct engine_vm *vm, struct engine_stat *out, size_t n)
{
	size_t count = MIN(n, ARRAY_SIZE(counted));

	for (size_t i = 0; i < count; i++) {
		u64 sum = 0;

		for (u32 j = 0; j < VCPUS_MAX; j++)
			if (vm->vcpus[j])
				sum += atomic_load(
					&vm->vcpus[j]
						 ->exits[counted[i].reason]);
		out[i] = (struct engine_stat){
			.name = counted[i].name,
			.value = sum,
			.group = "exits",
			.help = counted[i].help,
			.unit = ENGINE_STAT_COUNT,
		};
	}
	return count;
}

const struct engine_ops engine_kvm = {
	.name = "kvm",
	.probe = kvm_probe,
	.vm_create = vm_create,
	.vm_destroy = vm_destroy,
	.vcpu_create = kvm_vcpu_create,
	.vcpu_destroy = kvm_vcpu_destroy,
	.vcpu_reset = kvm_vcpu_reset,
	.vcpu_get = kvm_vcpu_get,
	.vcpu_set = kvm_vcpu_set,
	.vcpu_attach = kvm_vcpu_attach,
	.vcpu_run = kvm_vcpu_run,
	.vcpu_kick = kvm_vcpu_kick,
	.msi = kvm_msi,
	.set_extint = kvm_set_extint,
	.inject_nmi = kvm_inject_nmi,
	.dirty_start = kvm_dirty_start,
	.dirty_fetch = kvm_dirty_fetch,
	.dirty_stop = kvm_dirty_stop,
	.irqfd_add = kvm_irqfd_add,
	.irqfd_del = kvm_irqfd_del,
	.stats = stats,
};
