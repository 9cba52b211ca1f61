/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY
 *
 * The TSC. Each vCPU's TSC is saved and loaded at a slightly different moment.
 * So that they stay in step, a load that comes out within a second of the VM's
 * base takes that base; but the first vCPU's time never goes back. KVM has a
 * rule of this kind for writes of the MSR, without the exception, so the TSC
 * is set by its offset where KVM can (Linux 5.16).
 *
 * kvmclock. Under the soft engine it is the TSC, without TSC_ADJUST, in
 * nanoseconds; so it needs no saving of its own. KVM keeps the two apart. When
 * the base is set, the clock is set to match, so that a guest's time goes on
 * across engines.
 */
#include "kvm/kvm_int.h"

#include <sys/ioctl.h>
#include <x86intrin.h>

#include "x86/regs.h"

int kvm_clock_get(struct engine_vm *vm, u64 *out_ns, struct err *err)
{
	struct kvm_clock_data clock = {0};
	int rc = KVM_IOCTL(vm->vm_fd, KVM_GET_CLOCK, &clock, err);

	if (rc < 0)
		return rc;
	*out_ns = clock.clock;
	return 0;
}

int kvm_clock_set(struct engine_vm *vm, u64 ns, struct err *err)
{
	struct kvm_clock_data clock = {.clock = ns};

	return MIN(KVM_IOCTL(vm->vm_fd, KVM_SET_CLOCK, &clock, err), 0);
}

/* The address of the value that both directions use. */
static struct kvm_device_attr offset_attr(u64 *offset)
{
	return (struct kvm_device_attr){
		.group = KVM_VCPU_TSC_CTRL,
		.attr = KVM_VCPU_TSC_OFFSET,
		.addr = (u64)(uintptr_t)offset,
	};
}

void kvm_clock_init(struct vcpu *v)
{
	struct engine_vm *vm = v->vm;
	u64 offset = 0;
	struct kvm_device_attr attr = offset_attr(&offset);
	int khz = ioctl(v->fd, KVM_GET_TSC_KHZ, 0);

	if (v->id != 0)
		return;
	vm->tsc_khz = khz > 0 ? (u32)khz : 0;
	vm->has_tsc_base = ioctl(v->fd, KVM_GET_DEVICE_ATTR, &attr) == 0;
	vm->tsc_base = offset;
}

static u64 scale_ns(u64 tsc, u32 khz)
{
	return (u64)((unsigned __int128)tsc * 1000000 / khz);
}

int kvm_clock_set_tsc(struct vcpu *v, u64 tsc, u64 adjust, struct err *err)
{
	struct engine_vm *vm = v->vm;
	u64 base = tsc - adjust - __rdtsc(), offset;
	i64 ahead = (i64)(base - vm->tsc_base);
	i64 second = (i64)vm->tsc_khz * 1000;
	struct kvm_device_attr attr = offset_attr(&offset);
	int rc = 0;

	if (!vm->has_tsc_base)
		return kvm_set_msr(v, X86_MSR_TSC, tsc, err);
	if (ahead > second || ahead < -second || (v->id == 0 && ahead > 0))
		vm->tsc_base = base;
	offset = vm->tsc_base + adjust;
	rc = KVM_IOCTL(v->fd, KVM_SET_DEVICE_ATTR, &attr, err);
	if (rc >= 0 && v->id == 0 && vm->tsc_khz)
		rc = kvm_clock_set(
			vm, scale_ns(vm->tsc_base + __rdtsc(), vm->tsc_khz),
			err);
	return MIN(rc, 0);
}
