/* SPDX-License-Identifier: Apache-2.0 */
/* Private to src/kvm:
 *   vm.c     the VM: capabilities, memory slots, listener
 *   cpuid.c  the CPU model, masked to what KVM offers
 *   vcpu.c   vCPUs: life, run loop, kicks
 *   exits.c  what ends KVM_RUN: port I/O, MMIO, MSRs, errors
 *   state.c  struct vcpu_state from and to KVM
 *   dirty.c  which pages were written
 *   eventfd.c  doorbells and irqfds
 *   clock.c  kvmclock
 *   irq.c    MSIs, the PIC's line, NMI, the end of level interrupts
 *   probe.c  whether KVM is any good here
 *
 * Every ioctl goes through KVM_IOCTL, which names it in the error.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "cpu/engine.h"
#include "kvm/kvm.h"

/* Exit reasons that are counted: KVM_EXIT_* below this. */
#define KVM_EXITS_MAX 48

/* What others ask of a vCPU's thread. */
#define KVM_REQ_KICK   BIT32(0) /* vcpu_run() returns */
#define KVM_REQ_NMI    BIT32(1)
#define KVM_REQ_EXTINT BIT32(2) /* look at the PIC's line */

#define KVM_IRQFDS_MAX 64u
#define KVM_IRQFD_GSI  256u /* the first one's; below: level vectors */

struct kvm_irqfd_route {
	int event_fd;
	u32 gsi; /* 0: free */
	u64 addr;
	u32 data;
};

struct kvm_dirty_slot {
	u32 id;
	gpa_t gpa;
	u64 pages;
	u64 *bits;
};

struct engine_vm {
	struct engine_vm_config cfg;
	struct mem *mem;
	int kvm_fd, vm_fd;
	struct kvm_cpuid2 *cpuid; /* as offered, masked */
	u64 tsc_base;		  /* guest's TSC less TSC_ADJUST and host's */
	bool has_tsc_base;	  /* KVM takes offsets */
	u32 tsc_khz;		  /* of the host's counter, by KVM */
	size_t run_bytes;
	struct vcpu *vcpus[VCPUS_MAX];
	u32 slots_max;
	u64 quirks; /* that can be disabled */
	/* The MSRs of vcpu_state_msrs that this KVM has. */
	u32 msrs[VCPU_MSRS_MAX];
	u32 msr_count;
	bool has_msrs;

	atomic_bool extint; /* level of the PIC's output */
	/* A listener cannot fail: the first failure ends the next run. */
	atomic_bool is_broken;
	pthread_mutex_t lock; /* of all below */
	struct err broken;
	u64 level_vectors[4]; /* vectors sent level-triggered so far */
	u64 level_open[4];    /* of these, sent and not ended yet */
	struct kvm_irqfd_route irqfds[KVM_IRQFDS_MAX];

	u32 ring_entries; /* of each vCPU's dirty ring; 0: bitmaps */
	atomic_bool is_dirty_on;
	pthread_mutex_t dirty_lock; /* of the rings and all below */
	bool is_ring_overrun;
	u32 ring_taken; /* entries collected, not reset yet */
	struct kvm_dirty_slot dirty[MEM_SLOTS_MAX];
	size_t dirty_count;
};

struct vcpu {
	struct engine_vm *vm;
	u32 id;
	int fd;
	struct kvm_run *run;  /* shared with the kernel: checked on use */
	atomic_uint requests; /* KVM_REQ_* */
	atomic_int tid;	      /* while in vcpu_run(), else 0 */
	atomic_ullong exits[KVM_EXITS_MAX];
	/* The PIC's vector that KVM was handed and may still hold; -1: none.
	 * The vCPU's thread, or who takes the state while it stands. */
	int extint_vector;
	struct kvm_dirty_gfn *ring; /* NULL: none */
	u32 ring_next;
};

/* ---- ioctls: 0 or more, or -errno with the ioctl's name in err. EINTR and
 * EAGAIN are tried again, a few times. ---- */

int kvm_ioctl(int fd, unsigned long request, void *arg, const char *name,
	      struct err *err);
#define KVM_IOCTL(fd, request, arg, err)                                       \
	kvm_ioctl((fd), (request), (void *)(arg), #request, (err))
/* The extension's value; 0 when it is not there. */
int kvm_check(const struct engine_vm *vm, int capability);
int kvm_enable(struct engine_vm *vm, int capability, u64 arg, const char *name,
	       struct err *err);

/* vm.c */
/* Notes a failure of something that cannot say so; the first one counts. */
void kvm_vm_break(struct engine_vm *vm, const struct err *err);
int kvm_slot_set(struct engine_vm *vm, const struct mem_slot *slot,
		 bool is_there, struct err *err);

/* cpuid.c */
/* A copy of `want` without what KVM does not offer. free() it. */
int kvm_cpuid_mask(int kvm_fd, const struct kvm_cpuid2 *want,
		   struct kvm_cpuid2 **out, struct err *err);
int kvm_vcpu_set_cpuid(struct vcpu *v, struct err *err);

/* vcpu.c */
void kvm_vcpu_request(struct vcpu *v, u32 bits);

/* exits.c */
enum kvm_next { KVM_NEXT_RUN, KVM_NEXT_SHUTDOWN, KVM_NEXT_ERROR };
/* What the exit in v->run asks for. */
enum kvm_next kvm_exit_serve(struct vcpu *v, struct err *err);
int kvm_report_error(struct vcpu *v, int code, struct err *err, const char *fmt,
		     ...) PRINTF_LIKE(4, 5);

/* state.c */
int kvm_vcpu_get(struct vcpu *v, struct vcpu_state *out, struct err *err);
int kvm_vcpu_set(struct vcpu *v, const struct vcpu_state *in, struct err *err);
int kvm_set_msr(struct vcpu *v, u32 index, u64 value, struct err *err);
int kvm_vcpu_power_on(struct vcpu *v, struct err *err);
/* Takes back what KVM was about to deliver, so that the state is one between
 * instructions. Pure. */
void kvm_state_settle(struct vcpu_state *vs);

/* irq.c */
int kvm_irq_init(struct engine_vm *vm, struct err *err);
int kvm_msi(struct engine_vm *vm, u64 addr, u32 data);
void kvm_set_extint(struct engine_vm *vm, bool level);
int kvm_inject_nmi(struct vcpu *v);
/* A level-triggered interrupt has ended. */
void kvm_irq_eoi(struct vcpu *v, u32 vector);
/* After the last KVM_RUN of a vcpu_run(), on the vCPU's thread: reports the
 * ends that KVM was about to report. */
void kvm_irq_settle_eois(struct vcpu *v);
/* Adds the PIC's interrupt that KVM holds to the state. */
void kvm_irq_get(const struct vcpu *v, struct kvm_vcpu_events *e);
/* Before KVM_RUN, on the vCPU's thread: NMI and the PIC's interrupt. */
int kvm_irq_before_run(struct vcpu *v, u32 requests, struct err *err);
int kvm_set_routes_locked(struct engine_vm *vm, struct err *err);

/* dirty.c */
int kvm_dirty_init(struct engine_vm *vm, struct err *err);
int kvm_dirty_vcpu_init(struct vcpu *v, struct err *err);
void kvm_dirty_vcpu_fini(struct vcpu *v);
int kvm_dirty_ring_full(struct vcpu *v, struct err *err);
void kvm_dirty_written(struct engine_vm *vm, gpa_t gpa, u64 len);
int kvm_dirty_slot_add(struct engine_vm *vm, const struct mem_slot *slot,
		       struct err *err);
void kvm_dirty_slot_del(struct engine_vm *vm, u32 id);
int kvm_dirty_start(struct engine_vm *vm, struct err *err);
int kvm_dirty_fetch(struct engine_vm *vm, u32 slot_id, u64 *bitmap, u64 pages,
		    struct err *err);
void kvm_dirty_stop(struct engine_vm *vm);

/* eventfd.c */
void kvm_doorbell_changed(void *opaque, const struct mem_doorbell *d,
			  bool added);
int kvm_irqfd_add(struct engine_vm *vm, int event_fd, u64 addr, u32 data,
		  struct err *err);
void kvm_irqfd_del(struct engine_vm *vm, int event_fd);

/* clock.c */
int kvm_clock_get(struct engine_vm *vm, u64 *out_ns, struct err *err);
int kvm_clock_set(struct engine_vm *vm, u64 ns, struct err *err);
/* With the first vCPU made: the TSC's rate and base. */
void kvm_clock_init(struct vcpu *v);
/* The TSC is now `tsc`, of which `adjust` is TSC_ADJUST; and kvmclock. */
int kvm_clock_set_tsc(struct vcpu *v, u64 tsc, u64 adjust, struct err *err);
