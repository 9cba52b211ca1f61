/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY. Under the soft engine kvmclock is the first vCPU's TSC, without
 * TSC_ADJUST, in nanoseconds; so it needs no saving of its own. KVM keeps the
 * two apart. When the first vCPU's TSC is set, its clock is set to match, so
 * that a guest's time goes on across engines. */
#include "kvm/kvm_int.h"

#include <sys/ioctl.h>

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

int kvm_clock_follow_tsc(struct vcpu *v, u64 tsc, struct err *err)
{
	struct engine_vm *vm = v->vm;

	if (!vm->tsc_khz) {
		int khz = ioctl(v->fd, KVM_GET_TSC_KHZ, 0);

		if (khz <= 0)
			return 0; /* KVM's TSC has no fixed rate here */
		vm->tsc_khz = (u32)khz;
	}
	return kvm_clock_set(
		vm, (u64)((unsigned __int128)tsc * 1000000 / vm->tsc_khz), err);
}
