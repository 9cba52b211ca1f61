/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY. Doorbells of struct mem become ioeventfds: a guest's kick signals
 * its eventfd without leaving the kernel. One that KVM refuses still works:
 * the write comes out as an exit, and mem rings the bell. irqfds are the
 * opposite: an eventfd that sends an MSI. */
#include "kvm/kvm_int.h"

#include <errno.h>

#include "base/log.h"

static int bell_set(struct engine_vm *vm, const struct mem_doorbell *d,
		    u32 flags, struct err *err)
{
	struct kvm_ioeventfd bell = {
		.datamatch = d->match ? d->value : 0,
		.addr = d->addr,
		.len = d->size,
		.fd = d->event_fd,
		.flags = flags |
			 (d->space == IO_PIO ? KVM_IOEVENTFD_FLAG_PIO : 0) |
			 (d->match ? KVM_IOEVENTFD_FLAG_DATAMATCH : 0),
	};

	return KVM_IOCTL(vm->vm_fd, KVM_IOEVENTFD, &bell, err);
}

void kvm_doorbell_changed(void *opaque, const struct mem_doorbell *d,
			  bool added)
{
	struct engine_vm *vm = opaque;
	struct err err = {0};

	if (added) {
		if (bell_set(vm, d, 0, &err) < 0)
			log_debug("doorbell at 0x%llx by exits: %s",
				  (unsigned long long)d->addr, err.text);
		return;
	}
	/* -ENOENT: it was one of those that KVM refused. */
	if (bell_set(vm, d, KVM_IOEVENTFD_FLAG_DEASSIGN, &err) < 0 &&
	    err.code != -ENOENT)
		log_debug("doorbell at 0x%llx: %s", (unsigned long long)d->addr,
			  err.text);
}

static int irqfd_set(struct engine_vm *vm, const struct kvm_irqfd_route *r,
		     u32 flags, struct err *err)
{
	struct kvm_irqfd irqfd = {
		.fd = (u32)r->event_fd,
		.gsi = r->gsi,
		.flags = flags,
	};

	return KVM_IOCTL(vm->vm_fd, KVM_IRQFD, &irqfd, err);
}

int kvm_irqfd_add(struct engine_vm *vm, int event_fd, u64 addr, u32 data,
		  struct err *err)
{
	struct kvm_irqfd_route *r = NULL;
	int rc;

	pthread_mutex_lock(&vm->lock);
	for (u32 i = 0; i < KVM_IRQFDS_MAX; i++) {
		if (vm->irqfds[i].gsi && vm->irqfds[i].event_fd == event_fd) {
			pthread_mutex_unlock(&vm->lock);
			return err_set(err, -EEXIST,
				       "the eventfd sends an MSI already");
		}
		if (!r && !vm->irqfds[i].gsi)
			r = &vm->irqfds[i];
	}
	if (!r) {
		pthread_mutex_unlock(&vm->lock);
		return err_set(err, -ENOSPC, "more than %u irqfds",
			       KVM_IRQFDS_MAX);
	}
	*r = (struct kvm_irqfd_route){
		.event_fd = event_fd,
		.gsi = KVM_IRQFD_GSI + (u32)(r - vm->irqfds),
		.addr = addr,
		.data = data,
	};
	rc = kvm_set_routes_locked(vm, err);
	if (rc == 0)
		rc = irqfd_set(vm, r, 0, err);
	if (rc < 0)
		r->gsi = 0;
	pthread_mutex_unlock(&vm->lock);
	return MIN(rc, 0);
}

void kvm_irqfd_del(struct engine_vm *vm, int event_fd)
{
	struct err err = {0};

	pthread_mutex_lock(&vm->lock);
	for (u32 i = 0; i < KVM_IRQFDS_MAX; i++) {
		struct kvm_irqfd_route *r = &vm->irqfds[i];

		if (!r->gsi || r->event_fd != event_fd)
			continue;
		if (irqfd_set(vm, r, KVM_IRQFD_FLAG_DEASSIGN, &err) < 0)
			log_debug("irqfd: %s", err.text);
		r->gsi = 0;
	}
	pthread_mutex_unlock(&vm->lock);
}
