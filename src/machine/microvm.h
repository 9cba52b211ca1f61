/* SPDX-License-Identifier: Apache-2.0 */
/* Micro-guests for tests (include test/test.h first): a few instructions of
 * ours on a machine with 4 MiB of RAM, a port and a device that write down
 * each access, and nothing else unless asked for. The same guest is run under
 * each engine, and what it leaves is compared.
 *
 * A guest is written in assembler, in Intel's syntax, for the address
 * MICRO_CODE, and ends itself by a write to port MICRO_STOP and a jump to
 * itself:
 *
 *	MICRO_GUEST(adds, 16, "mov ax, 1; add ax, 2" MICRO_END);
 *
 * RAM:	0 real-mode vectors	0x1000 GDT	0x2000 IDT
 *	0x4000 code		0x8000 stack's top
 *	0x10000 page tables	0x20000 results, free
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "cpu/engine.h"

#define MICRO_RAM    (4 * MIB)
#define MICRO_GDT    0x1000u
#define MICRO_IDT    0x2000u
#define MICRO_CODE   0x4000u
#define MICRO_STACK  0x8000u
#define MICRO_TABLES 0x10000u
#define MICRO_DATA   0x20000u
#define MICRO_PORT   0x500u /* 32 ports that write down */
#define MICRO_STOP   0x5f0u
#define MICRO_MMIO   0xd0000000ull /* one page that writes down */
#define MICRO_VCPUS  2

/* Selectors. */
#define MICRO_CS32 0x08
#define MICRO_DS   0x10
#define MICRO_CS64 0x18

#define MICRO_GUEST(name, bits, code)                                          \
	extern const u8 name[], name##_end[];                                  \
	__asm__(".pushsection .rodata\n"                                       \
		".intel_syntax noprefix\n"                                     \
		".code" #bits "\n" #name ":\n" code "\n" #name "_end:\n"       \
		".code64\n.att_syntax prefix\n.popsection\n")
#define MICRO_END "\n mov dx, 0x5f0\n out dx, al\n 99: jmp 99b\n"
/* The guest's own address of a label in it. */
#define MICRO_AT(name, label) "(" #label " - " #name " + 0x4000)"

enum micro_mode { MICRO_REAL, MICRO_PROTECTED, MICRO_LONG };

struct micro_access {
	u8 space; /* enum io_space */
	u8 size;
	bool is_write;
	u64 off;
	u64 value;
};

struct micro {
	const struct engine_ops *ops;
	struct mem *mem;
	u8 *ram;
	struct kvm_cpuid2 *cpuid;
	struct engine_vm *vm;
	struct vcpu *v[MICRO_VCPUS];
	u32 vcpu_count;
	struct io_region port, mmio, stop;
	struct micro_access log[512];
	size_t log_count;
	atomic_bool is_done;
	u8 stop_value;
	bool has_timing; /* what was on the stack is of the moment */
	struct err err;	 /* of the last run */
	u8 eois[64];	 /* vectors */
	atomic_uint eoi_count;
	u8 pic_vector; /* what the PIC answers to INTA */
	atomic_uint acks;
	/* Called on each logged access, on the vCPU's thread. */
	void (*on_access)(struct micro *m, const struct micro_access *a);
	/* In place of pic_vector and eois; may be NULL. */
	u8 (*on_ack)(struct micro *m);
	void (*on_eoi)(struct micro *m, u8 vector);
	void *opaque;
};

/* NULL: KVM runs here at all; else why it does not. */
const char *micro_no_kvm(void);
/* Ends the test as skipped, for the reason given; as failed where
 * SKERRY_NEEDS_KVM is set (make test-kvm). */
void micro_skip(const char *fmt, ...) PRINTF_LIKE(1, 2) NORETURN;
/* True when the probe calls this KVM good: then nothing may be missing. */
bool micro_is_real_kvm(void);

struct micro *micro_new(const struct engine_ops *ops, u32 vcpus);
/* KVM only, or the test is skipped; the dirty log with rings or bitmaps. */
struct micro *micro_new_kvm(u32 vcpus, bool no_dirty_ring);
void micro_free(struct micro *m);
/* Code at MICRO_CODE and the vCPUs' state to start it in `mode`. */
void micro_load(struct micro *m, enum micro_mode mode, const u8 *code,
		const u8 *end);
void micro_start_state(struct micro *m, u32 vcpu, enum micro_mode mode,
		       u32 rip);
/* An interrupt gate of long mode. */
void micro_gate64(struct micro *m, u8 vector, u32 to);
/* Runs vCPU 0 on this thread until the guest stops itself; 20 s at most. */
enum vcpu_exit micro_run(struct micro *m);
/* micro_run() until stop, or the test fails; under a KVM that is not a real
 * one, the test is skipped when KVM says that it cannot go on. */
void micro_run_to_stop(struct micro *m);
void micro_get(struct micro *m, u32 vcpu, struct vcpu_state *out);
void micro_set(struct micro *m, u32 vcpu, const struct vcpu_state *in);

/* Runs the guest under both engines and compares registers, RAM and accesses.
 * Skips the test where KVM does not run. The pair is the caller's to free. */
struct micro_pair {
	struct micro *soft, *kvm;
};
void micro_run_both(struct micro_pair *p, enum micro_mode mode, const u8 *code,
		    const u8 *end);
void micro_compare(struct micro_pair *p);
void micro_pair_new(struct micro_pair *p, u32 vcpus);
void micro_pair_free(struct micro_pair *p);
