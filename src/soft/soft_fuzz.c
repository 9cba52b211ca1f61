/* SPDX-License-Identifier: Apache-2.0 */
/* Hostile guest code, page tables and descriptor tables on the interpreter.
 *
 * The input is a header (mode, registers) and the contents of the first 64 KiB
 * of guest memory, in which page tables, GDT, IDT and code overlap as the
 * input likes. Up to STEPS instructions run, with their exceptions. Whatever
 * they do, the host must not fault (RAM lies between guard pages, devices do
 * not exist), the state must save, and RIP and the mode must stay consistent.
 */
#include <setjmp.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "soft/soft_int.h"
#include "x86/cpuid.h"

#define RAM_BYTES   (2 * MIB)
#define INPUT_BYTES (64 * KIB)
#define STEPS	    2000

enum fuzz_mode { FUZZ_REAL, FUZZ_PROTECTED, FUZZ_PAE, FUZZ_LONG, FUZZ_MODES };

struct fuzz_machine {
	struct mem *mem;
	u8 *ram;
	struct engine_vm *vm;
	struct vcpu *v;
};

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t len);

/* One VM for all inputs: making one measures the host's clock. */
static struct fuzz_machine the;

/* What a vCPU owns is reached through memory that LeakSanitizer does not
 * search. */
static void machine_end(void)
{
	engine_soft.vcpu_destroy(the.v);
	engine_soft.vm_destroy(the.vm);
	mem_free(the.mem);
}

static struct fuzz_machine *machine(void)
{
	struct x86_cpuid_config cpu = {
		.vcpu_count = 1,
		.tsc_khz = 2000000,
		.ram_top = RAM_BYTES,
	};
	struct engine_vm_config cfg = {.vcpu_count = 1};
	struct mem_slot slot = {.size = RAM_BYTES};
	struct kvm_cpuid2 *cpuid;

	if (the.v)
		return &the;
	the.ram = mmap(NULL, RAM_BYTES + 2 * PAGE_BYTES, PROT_NONE,
		     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	the.ram += PAGE_BYTES;
	ASSERT(mprotect(the.ram, RAM_BYTES, PROT_READ | PROT_WRITE) == 0);
	the.mem = mem_new();
	slot.hva = the.ram;
	ASSERT(mem_slot_add(the.mem, &slot, NULL) == 0);
	ASSERT(x86_cpuid_build(&cpu, &cpuid, NULL) == 0);
	cfg.mem = the.mem;
	cfg.cpuid = cpuid;
	ASSERT(engine_soft.vm_create(&cfg, &the.vm, NULL) == 0);
	ASSERT(engine_soft.vcpu_create(the.vm, 0, &the.v, NULL) == 0);
	free(cpuid);
	atexit(machine_end);
	return &the;
}

static void set_segments(struct vcpu *v, u32 attr_code, u32 attr_data)
{
	for (int i = 0; i < 6; i++)
		v->segs[i] = (struct soft_seg){
			.limit = 0xffffffff,
			.attr = i == X86_CS ? attr_code : attr_data,
			.sel = i == X86_CS ? 8 : 16,
		};
}

static void set_mode(struct vcpu *v, enum fuzz_mode mode)
{
	const u32 flat = SEG_P | SEG_S | SEG_G | SEG_TYPE_WR_RD | SEG_TYPE_ACC;
	const u32 code = flat | SEG_TYPE_CODE;

	v->gdtr = (struct soft_table){0x4000, 0xfff};
	v->idtr = (struct soft_table){0x5000, 0xfff};
	if (mode == FUZZ_REAL) {
		v->segs[X86_CS].sel = 0;
		v->segs[X86_CS].base = 0;
		v->idtr = (struct soft_table){0, 0x3ff};
		return;
	}
	v->cr0 |= X86_CR0_PE;
	set_segments(v, code | SEG_DB, flat | SEG_DB);
	if (mode == FUZZ_PROTECTED)
		return;
	v->cr3 = 0x1000;
	v->cr4 = X86_CR4_PAE | X86_CR4_OSFXSR | X86_CR4_OSXSAVE |
		 X86_CR4_OSXMMEXCPT;
	v->xcr0 = 7;
	v->cr0 |= X86_CR0_PG;
	if (mode == FUZZ_LONG) {
		v->efer = X86_EFER_LME | X86_EFER_LMA | X86_EFER_NXE |
			  X86_EFER_SCE;
		set_segments(v, code | SEG_L, flat);
	}
}

/* A working identity map (the tables stay within the input's reach). */
static void write_tables(struct fuzz_machine *m, enum fuzz_mode mode)
{
	u8 *r = m->ram;

	if (mode == FUZZ_LONG) {
		st_le64(r + 0x1000, 0x2000 | 7);
		st_le64(r + 0x2000, 0x3000 | 7);
		st_le64(r + 0x3000, 0x0 | 0x87);
	} else if (mode == FUZZ_PAE) {
		for (int i = 0; i < 4; i++) {
			m->v->pdpte[i] = 0x3000 | 1;
			st_le64(r + 0x1000 + 8 * i, 0x3000 | 1);
		}
		st_le64(r + 0x3000, 0x0 | 0x87);
	}
}

static bool step(struct vcpu *v)
{
	if (sigsetjmp(v->unwind, 0)) {
		v->shadow = 0;
		return !v->error[0] && soft_deliver_exception(v);
	}
	/* A kick stops REP after one element or chunk. */
	soft_kick(v);
	soft_interp_one(v);
	return true;
}

static void run(struct vcpu *v)
{
	soft_fpu_enter(v);
	for (volatile int i = 0; i < STEPS; i++) {
		if (!step(v))
			break;
		v->is_halted = false;
	}
	soft_fpu_leave(v);
}

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t len)
{
	static struct vcpu_state state;
	struct fuzz_machine *m = machine();
	struct vcpu *v = m->v;
	enum fuzz_mode mode;

	if (len < 160)
		return 0;
	mode = bytes[0] % FUZZ_MODES;
	memset(m->ram, 0, INPUT_BYTES);
	memcpy(m->ram, bytes, MIN(len, (size_t)INPUT_BYTES));
	engine_soft.vcpu_reset(v);
	if (bytes[1] & 1)
		write_tables(m, mode);
	set_mode(v, mode);
	for (int i = 0; i < 16; i++)
		v->gpr[i] = ld_le64(bytes + 8 + 8 * i);
	if (bytes[1] & 2)
		v->gpr[X86_RSP] &= 0xffff8;
	if (bytes[1] & 4)
		v->segs[X86_CS].attr |= 3 << 5; /* CPL 3 */
	v->segs[X86_SS].attr |= v->segs[X86_CS].attr & (3 << 5);
	v->rip = 136 + (bytes[2] & 7);
	soft_mode_changed(v);
	soft_tlb_flush(v, false);
	run(v);
	ASSERT(v->cpl <= 3);
	ASSERT(v->is_long == !!(v->efer & X86_EFER_LMA));
	ASSERT(engine_soft.vcpu_get(v, &state, NULL) == 0);
	return 0;
}
