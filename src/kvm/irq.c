/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY
 *
 * MSIs, and the messages of our I/O APIC, go to KVM's local APICs with
 * KVM_SIGNAL_MSI.
 *
 * The end of a level-triggered interrupt comes back as KVM_EXIT_IOAPIC_EOI,
 * but only for vectors that KVM finds in the first routes of the routing
 * table. The table follows what is sent: a vector's first level-triggered
 * message adds a route for it, to every APIC, before the message goes out. A
 * vector that is edge-triggered later costs an exit that the I/O APIC ignores.
 * So there are at most 240 such routes; route n stands for vector 16 + n. (The
 * kernel keeps their number in a byte: 256 would be none.)
 *
 * The PIC's interrupt goes to the first vCPU, as QEMU does it: when KVM says
 * that one can be taken now, the PIC is asked for the vector and KVM_INTERRUPT
 * hands it over; else request_interrupt_window makes KVM_RUN return as soon as
 * one can. The line's state is looked at before each KVM_RUN; what KVM said
 * last about readiness is of its last return, after which the guest has not
 * run. A vector that KVM holds when a kick comes in between is in no state that
 * KVM gives: we add it, as an interrupt in delivery.
 *
 * An end of interrupt may be waiting in KVM, too, to be reported at the next
 * KVM_RUN, when a kick ends this one: before vcpu_run() returns, a vector that
 * was sent and that this APIC neither holds nor serves any more is taken for
 * ended. KVM's report then comes a second time, which at worst brings a level
 * interrupt once too often.
 */
#include "kvm/kvm_int.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#include "base/log.h"

#define VECTORS	    256u
#define VECTOR_MIN  16u /* the first that an APIC takes */
#define ROUTES_MAX  (VECTORS + KVM_IRQFDS_MAX)
#define MSI_LEVEL   BIT32(15)
#define MSI_ASSERT  BIT32(14)
#define MSI_TO_ALL  0xfeeff000u /* physical, destination 0xff */
#define APIC_ISR    0x100
#define APIC_TMR    0x180
#define APIC_IRR    0x200
#define APIC_LVT1   0x360
#define LVT_MASKED  BIT32(16)
#define LVT_MODE    0x700u
#define LVT_MODE_NM 0x400u
#define APIC_ON	    BIT64(11)

/* ---- routes ---- */

static bool is_level_vector(const struct engine_vm *vm, u32 vector)
{
	return vm->level_vectors[vector / 64] >> (vector % 64) & 1;
}

int kvm_set_routes_locked(struct engine_vm *vm, struct err *err)
{
	struct kvm_irq_routing *table = calloc(
		1, sizeof(*table) + ROUTES_MAX * sizeof(table->entries[0]));
	int rc;

	if (!table)
		return err_set(err, -ENOMEM, "out of memory");
	for (u32 i = VECTOR_MIN; i < VECTORS; i++) {
		if (!is_level_vector(vm, i))
			continue;
		table->entries[table->nr++] = (struct kvm_irq_routing_entry){
			.gsi = i - VECTOR_MIN,
			.type = KVM_IRQ_ROUTING_MSI,
			.u.msi = {.address_lo = MSI_TO_ALL,
				  .data = i | MSI_LEVEL | MSI_ASSERT},
		};
	}
	for (u32 i = 0; i < KVM_IRQFDS_MAX; i++) {
		const struct kvm_irqfd_route *r = &vm->irqfds[i];

		if (!r->gsi)
			continue;
		table->entries[table->nr++] = (struct kvm_irq_routing_entry){
			.gsi = r->gsi,
			.type = KVM_IRQ_ROUTING_MSI,
			.u.msi = {.address_lo = (u32)r->addr,
				  .address_hi = (u32)(r->addr >> 32),
				  .data = r->data},
		};
	}
	rc = KVM_IOCTL(vm->vm_fd, KVM_SET_GSI_ROUTING, table, err);
	free(table);
	return MIN(rc, 0);
}

static int open_level_vector(struct engine_vm *vm, u32 vector)
{
	struct err err = {0};
	int rc = 0;

	pthread_mutex_lock(&vm->lock);
	if (!is_level_vector(vm, vector)) {
		vm->level_vectors[vector / 64] |= BIT64(vector % 64);
		rc = kvm_set_routes_locked(vm, &err);
		if (rc < 0)
			vm->level_vectors[vector / 64] &= ~BIT64(vector % 64);
	}
	vm->level_open[vector / 64] |= BIT64(vector % 64);
	pthread_mutex_unlock(&vm->lock);
	if (rc < 0)
		kvm_vm_break(vm, &err);
	return rc;
}

int kvm_irq_init(struct engine_vm *vm, struct err *err)
{
	return kvm_enable(vm, KVM_CAP_SPLIT_IRQCHIP, VECTORS - VECTOR_MIN,
			  "KVM_CAP_SPLIT_IRQCHIP", err);
}

int kvm_msi(struct engine_vm *vm, u64 addr, u32 data)
{
	struct kvm_msi msi = {
		.address_lo = (u32)addr,
		.address_hi = (u32)(addr >> 32),
		.data = data,
	};
	int rc = 0;

	if ((data & MSI_LEVEL) && (data & 0xff) >= VECTOR_MIN)
		rc = open_level_vector(vm, data & 0xff);
	if (rc == 0)
		rc = KVM_IOCTL(vm->vm_fd, KVM_SIGNAL_MSI, &msi, NULL);
	/* More than 0: delivered; 0: no APIC took it. */
	return MIN(rc, 0);
}

/* ---- ends of interrupts ---- */

void kvm_irq_eoi(struct vcpu *v, u32 vector)
{
	const struct engine_vm_config *cfg = &v->vm->cfg;

	pthread_mutex_lock(&v->vm->lock);
	v->vm->level_open[vector / 64] &= ~BIT64(vector % 64);
	pthread_mutex_unlock(&v->vm->lock);
	if (cfg->irqchip && cfg->irqchip->eoi)
		cfg->irqchip->eoi(cfg->irqchip_opaque, (u8)vector);
}

static bool apic_bit(const struct kvm_lapic_state *a, u32 bank, u32 vector)
{
	return ld_le32(a->regs + bank + vector / 32 * 16) >> (vector % 32) & 1;
}

void kvm_irq_settle_eois(struct vcpu *v)
{
	struct engine_vm *vm = v->vm;
	struct kvm_lapic_state a;
	u64 open[4], any;

	pthread_mutex_lock(&vm->lock);
	memcpy(open, vm->level_open, sizeof(open));
	pthread_mutex_unlock(&vm->lock);
	any = open[0] | open[1] | open[2] | open[3];
	if (!any || KVM_IOCTL(v->fd, KVM_GET_LAPIC, &a, NULL) < 0)
		return;
	for (u32 i = VECTOR_MIN; i < VECTORS; i++)
		if ((open[i / 64] >> (i % 64) & 1) &&
		    apic_bit(&a, APIC_TMR, i) && !apic_bit(&a, APIC_ISR, i) &&
		    !apic_bit(&a, APIC_IRR, i))
			kvm_irq_eoi(v, i);
}

/* ---- the PIC ---- */

void kvm_set_extint(struct engine_vm *vm, bool level)
{
	atomic_store(&vm->extint, level);
	if (level && vm->vcpus[0])
		kvm_vcpu_request(vm->vcpus[0], KVM_REQ_EXTINT);
}

static int before_run_extint(struct vcpu *v, struct err *err)
{
	const struct engine_vm_config *cfg = &v->vm->cfg;
	struct kvm_interrupt irq = {0};
	int rc;

	v->run->request_interrupt_window = 0;
	if (v->id != 0 || !atomic_load(&v->vm->extint) || !cfg->irqchip ||
	    !cfg->irqchip->pic_ack)
		return 0;
	/* With a kick there will be no next time to see it delivered. */
	if (!v->run->ready_for_interrupt_injection || v->run->immediate_exit) {
		v->run->request_interrupt_window = 1;
		return 0;
	}
	irq.irq = cfg->irqchip->pic_ack(cfg->irqchip_opaque);
	v->run->ready_for_interrupt_injection = 0;
	v->extint_vector = (int)irq.irq;
	rc = KVM_IOCTL(v->fd, KVM_INTERRUPT, &irq, err);
	/* Another one waits behind it. */
	v->run->request_interrupt_window = atomic_load(&v->vm->extint);
	return MIN(rc, 0);
}

/* It was handed over when the guest could take it. If it still can not take
 * another, and has IF set, it has not run since. */
void kvm_irq_get(const struct vcpu *v, struct kvm_vcpu_events *e)
{
	if (v->extint_vector < 0 || e->interrupt.injected || !v->run->if_flag ||
	    v->run->ready_for_interrupt_injection)
		return;
	e->interrupt.injected = 1;
	e->interrupt.nr = (u8)v->extint_vector;
	e->interrupt.soft = 0;
}

/* ---- NMI ---- */

int kvm_inject_nmi(struct vcpu *v)
{
	kvm_vcpu_request(v, KVM_REQ_NMI);
	return 0;
}

/* NMI is wired to LINT1; with the APIC off LINT1 is the CPU's NMI pin. */
static int before_run_nmi(struct vcpu *v, struct err *err)
{
	struct kvm_lapic_state apic;
	struct kvm_sregs sregs;
	u32 lvt;
	int rc = KVM_IOCTL(v->fd, KVM_GET_SREGS, &sregs, err);

	if (rc >= 0 && (sregs.apic_base & APIC_ON)) {
		rc = KVM_IOCTL(v->fd, KVM_GET_LAPIC, &apic, err);
		if (rc < 0)
			return rc;
		lvt = ld_le32(apic.regs + APIC_LVT1);
		if ((lvt & LVT_MASKED) || (lvt & LVT_MODE) != LVT_MODE_NM)
			return 0;
	}
	if (rc >= 0)
		rc = KVM_IOCTL(v->fd, KVM_NMI, NULL, err);
	return MIN(rc, 0);
}

int kvm_irq_before_run(struct vcpu *v, u32 requests, struct err *err)
{
	int rc = 0;

	if (unlikely(requests & KVM_REQ_NMI))
		rc = before_run_nmi(v, err);
	return rc < 0 ? rc : before_run_extint(v, err);
}
