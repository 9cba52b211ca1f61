/* SPDX-License-Identifier: Apache-2.0 */
/* The seam between the machine and the CPU. Everything above it (devices,
 * loaders, snapshots, migration) is the same under every engine.
 *
 * Threads: the machine makes one host thread per vCPU, which calls
 * vcpu_run(); vcpu_create/get/set are called while that vCPU is not running.
 * vcpu_kick(), msi(), set_extint() and inject_nmi() are callable from any
 * thread, with or without the device lock.
 *
 * The engine dispatches PIO and MMIO to struct mem itself, on the vCPU's
 * thread, and handles HLT, the local APIC and its timer inside; vcpu_run()
 * returns only for what the machine must decide.
 */
#pragma once

#include <linux/kvm.h>

#include "base/err.h"
#include "base/types.h"
#include "cpu/vcpu_state.h"
#include "mem/mem.h"

struct engine_vm; /* defined by each engine */
struct vcpu; /* likewise */

#define VCPUS_MAX 64

/* The rest of the interrupt controllers, ours under every engine. */
struct engine_irqchip_ops {
	/* INTA cycle: acknowledges and returns the PIC's vector. Called on
	 * a vCPU thread; takes the device lock itself. */
	u8 (*pic_ack)(void *opaque);
	/* EOI of a level-triggered vector reached the APIC bus. */
	void (*eoi)(void *opaque, u8 vector);
};

struct engine_vm_config {
	struct mem *mem;
	u32 vcpu_count;
	/* CPUID as the guest sees it, dynamic bits apart (x86/cpuid.h). */
	const struct kvm_cpuid2 *cpuid;
	const struct engine_irqchip_ops *irqchip;
	void *irqchip_opaque;
	bool no_translator; /* the software engine only interprets */
	/* For diagnosis: the software engine compares its tiers at every n-th
	 * entry into translated code; 0: never. One vCPU only. */
	u32 lockstep_every;
	bool no_dirty_ring; /* KVM's log as bitmaps; for tests */
	/* The software engine translates code that it has interpreted so
	 * often; at most 15. 0: at once. */
	u32 translate_after;
	u32 tsc_khz; /* of the host, when it is known; 0: measured */
};

enum vcpu_exit {
	VCPU_EXIT_KICKED, /* vcpu_kick(): look at what the machine asks */
	VCPU_EXIT_SHUTDOWN, /* triple fault; the state shows where */
	VCPU_EXIT_DEBUG, /* reserved for the debugger stub */
	VCPU_EXIT_ERROR, /* internal: *err says what; not resumable */
};

struct engine_probe {
	bool is_usable;
	u64 took_ns;
	char reason[256]; /* one line, also when usable */
};

enum engine_stat_unit {
	ENGINE_STAT_COUNT,
	ENGINE_STAT_BYTES,
	ENGINE_STAT_NS, /* of CPU time: shown as a share, too */
};

struct engine_stat {
	const char *name; /* "instructions", "tlb-misses", … */
	u64 value;
	const char *group; /* "guest", "slow paths", …: stay together */
	const char *help;  /* one line: what is counted */
	enum engine_stat_unit unit;
};

struct engine_ops {
	const char *name; /* "soft", "kvm" */

	/* A functional test, not a look at capabilities; < 300 ms. */
	void (*probe)(struct engine_probe *out);

	int (*vm_create)(const struct engine_vm_config *cfg,
			 struct engine_vm **out_vm, struct err *err);
	void (*vm_destroy)(struct engine_vm *vm);

	int (*vcpu_create)(struct engine_vm *vm, u32 id, struct vcpu **out_vcpu,
			   struct err *err);
	void (*vcpu_destroy)(struct vcpu *vcpu);
	/* Power-on state: BSP (id 0) runnable at the reset vector, the rest
	 * waiting for SIPI. Also what a machine reset does. */
	void (*vcpu_reset)(struct vcpu *vcpu);
	int (*vcpu_get)(struct vcpu *vcpu, struct vcpu_state *out,
			struct err *err);
	int (*vcpu_set)(struct vcpu *vcpu, const struct vcpu_state *in,
			struct err *err);
	/* On the thread that will call vcpu_run(), before it does so first:
	 * opens what running needs. May be NULL; vcpu_run() on a thread that
	 * has not called it does the same. */
	void (*vcpu_attach)(struct vcpu *vcpu);
	enum vcpu_exit (*vcpu_run)(struct vcpu *vcpu, struct err *err);
	/* Makes the current or the next vcpu_run() return VCPU_EXIT_KICKED
	 * soon (< 1 ms). Async-signal-safe. */
	void (*vcpu_kick)(struct vcpu *vcpu);

	int (*msi)(struct engine_vm *vm, u64 addr, u32 data);
	/* The PIC's INTR output, wired to LINT0 of the BSP. */
	void (*set_extint)(struct engine_vm *vm, bool level);
	int (*inject_nmi)(struct vcpu *vcpu);

	/* Which pages were written, for snapshots and migration; all NULL:
	 * the engine has no log. Writes of devices count. start and stop:
	 * device lock held. fetch, from any thread, ORs into bitmap (bit n:
	 * page n of the slot) what was written since the last fetch, and
	 * forgets it; of a vCPU that runs, the latest writes may come with a
	 * later one. -EINVAL: no such slot, or of another size. */
	int (*dirty_start)(struct engine_vm *vm, struct err *err);
	int (*dirty_fetch)(struct engine_vm *vm, u32 slot_id, u64 *bitmap,
			   u64 pages, struct err *err);
	void (*dirty_stop)(struct engine_vm *vm);

	/* An eventfd (borrowed) that sends an MSI when it is signalled,
	 * without this process; NULL: the engine has none. Any thread. */
	int (*irqfd_add)(struct engine_vm *vm, int event_fd, u64 addr,
			 u32 data, struct err *err);
	void (*irqfd_del)(struct engine_vm *vm, int event_fd);

	/* Fills out[0..n) with up to n counters; returns how many. */
	size_t (*stats)(struct engine_vm *vm, struct engine_stat *out,
			size_t n);
};

extern const struct engine_ops engine_soft;
extern const struct engine_ops engine_kvm; /* from stage "KVM engine" on */
