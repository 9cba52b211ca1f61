/* SPDX-License-Identifier: Apache-2.0 */
/* The software engine's private header: its VM and vCPU, and the contracts
 * between its parts.
 *
 *   mmu.c    page walker, TLB fill, guest memory access     (mmu.h, tlb.h)
 *   seg.c    segment loads, far control transfer, tasks
 *   event.c  exception and interrupt delivery
 *   sysops*.c  system instructions; msr.c, cpuid leaves
 *   emit.c stub.c  native stubs for ISA_PASS rows
 *   interp.c ops_*.c  the interpreter's loop and its C handlers
 *   apic.c timer.c pvclock.c  local APIC, timers, KVM's paravirtual MSRs
 *   vm.c vcpu.c state.c  the engine interface
 *
 * Precision. A handler changes architectural state (registers, memory) only
 * after its last possible fault. An exception is raised with soft_raise*(),
 * which does not return: it unwinds with siglongjmp to v->unwind in
 * vcpu_run(), with v->rip still at the faulting instruction. Nothing on the
 * stack between may own a lock or memory.
 *
 * Flags. The six arithmetic flags live in v->aflags as `lahf; seto al` leave
 * AX: AH (bits 8-15) is SF ZF 0 AF 0 PF 1 CF, AL is OF (0 or 1). All other
 * RFLAGS bits live in v->rflags_sys. soft_rflags()/soft_set_rflags()
 * compose and split.
 *
 * Threads. Everything in struct vcpu belongs to its own thread, except what
 * is marked _Atomic.
 */
#pragma once

#include <pthread.h>
#include <setjmp.h>
#include <stdatomic.h>

#include "base/assert.h"
#include "base/types.h"
#include "cpu/engine.h"
#include "x86/decode.h"
#include "x86/regs.h"
#include "soft/soft.h"
#include "soft/tlb.h"

struct soft_apic;
struct soft_stubs;
struct soft_timers;
struct lockstep;
struct lockstep_map;
struct xlat;

/* ---- segments ---- */

/* A segment register with its hidden part. attr is the descriptor's bits
 * 40-47 and 52-55 as in VMX access rights: type 0-3, S 4, DPL 5-6, P 7,
 * AVL 12, L 13, DB 14, G 15; bit 16: unusable (null). limit is in bytes. */
struct soft_seg {
	u64 base;
	u32 limit;
	u32 attr;
	u16 sel;
};
#define SEG_TYPE(a)	 ((a)&15u)
#define SEG_S		 BIT32(4)
#define SEG_DPL(a)	 (((a) >> 5) & 3u)
#define SEG_P		 BIT32(7)
#define SEG_AVL		 BIT32(12)
#define SEG_L		 BIT32(13)
#define SEG_DB		 BIT32(14)
#define SEG_G		 BIT32(15)
#define SEG_UNUSABLE	 BIT32(16)
#define SEG_TYPE_CODE	 8u
#define SEG_TYPE_CONF_ED 4u /* code: conforming; data: expand-down */
#define SEG_TYPE_WR_RD	 2u /* code: readable; data: writable */
#define SEG_TYPE_ACC	 1u

struct soft_table { /* GDTR, IDTR */
	u64 base;
	u16 limit;
};

/* ---- events ---- */

/* An exception being raised, kept in v->exc between soft_raise and
 * soft_deliver_exception. */
struct soft_exception {
	u8 vector;
	bool has_error;
	bool is_trap;	  /* v->rip already points past the instruction */
	bool is_software; /* INT n, INT3, INTO: DPL is checked */
	bool is_external; /* interrupt or NMI: always benign */
	u8 insn_len;	  /* software: return address = rip + insn_len */
	u32 error;
	u64 cr2; /* #PF */
	u64 dr6; /* #DB: bits to set */
};

/* Bits of v->requests, set by any thread, followed by soft_kick(). */
#define SOFT_REQ_EXIT	BIT32(0) /* leave vcpu_run: VCPU_EXIT_KICKED */
#define SOFT_REQ_INTR	BIT32(1) /* the APIC may have an interrupt */
#define SOFT_REQ_NMI	BIT32(2)
#define SOFT_REQ_INIT	BIT32(3)
#define SOFT_REQ_SIPI	BIT32(4)  /* vector in apic */
#define SOFT_REQ_PAUSE	BIT32(5)  /* stop-the-world: park */
#define SOFT_REQ_FLUSH	BIT32(6)  /* drop the whole TLB */
#define SOFT_REQ_EXTINT BIT32(7)  /* the PIC's INTR is up (BSP) */
#define SOFT_REQ_TIMER	BIT32(8)  /* this APIC's timer expired */
#define SOFT_REQ_NMI2	BIT32(9)  /* a second NMI, behind SOFT_REQ_NMI */
#define SOFT_REQ_REVOKE BIT32(10) /* give up write tags (smc.c) */

/* Linux uses six PCIDs beside 0. */
#define SOFT_USER_SPACES 7

#define SHADOW_STI    1u
#define SHADOW_MOV_SS 2u

#define SOFT_GO (SOFT_JC_ENTRIES - 1u)

struct vcpu {
	/* ---- hot: the stubs and the translator address these ---- */
	/* First what generated code names most: what lies below 128, r10 and
	 * r11 among it, is named by a byte. */
	u64 pcbase; /* linear address of the page that generated code runs in */
	/* SOFT_GO; 0 when something in `requests` (or the single-step
	 * machinery) wants the interpreter to return to vcpu_run. Generated
	 * code masks the indexes of its jump caches with it: entry 0 is never
	 * filled, so each look into them is a poll, too. */
	_Atomic u32 go;
	u32 aflags;
	u64 group[2]; /* as group_more */
	u64 gpr[16]; /* hardware order: rax rcx rdx rbx rsp rbp rsi rdi r8… */
	u64 rip;     /* the current instruction, or the next between them */
	u64 zero;    /* always 0: stands for no base, no index, no segment */
	u64 rflags_sys; /* IF DF TF IOPL NT RF VM AC VIF VIP ID, bit 1 */
	u8 cpl;
	u8 code_mode; /* enum x86_mode of CS, kept by soft_mode_changed() */
	u8 shadow;    /* SHADOW_*: set by the instruction just executed */
	bool is_long; /* EFER.LMA */
	bool is_protected; /* CR0.PE */
	bool is_vm86;
	bool is_flat;  /* 64-bit, or all of CS DS ES SS base 0 limit 4G */
	u8 stack_size; /* 2, 4, 8: how push and pop use rSP */
	/* The TLB of *super_now or of *user, by cpl; kept by
	 * soft_mode_changed(). */
	struct soft_tlb_entry *tlb_now;
	/* ---- generated code's own (xlat.h) ---- */
	u64 spill[4]; /* scratch of one instruction */
	/* Host addresses that accesses share (group.h), behind group[]. */
	u64 group_more[14];
	u64 host_rsp; /* the C stack while generated code runs */
	u64 exit_arg; /* with what generated code left, see run.c */
	u32 key;      /* XLAT_KEY_*, kept by soft_mode_changed() */
	u32 exit_kind;
	u32 key_extra; /* of the block to go on with: XLAT_KEY_NOGROUP, or 0 */
	bool has_uppers; /* any upper half of a YMM register is not zero */
	/* The linear page that instructions were last fetched from, and where
	 * it is in host memory; SOFT_TLB_EMPTY: none. Dropped with the TLB
	 * and by soft_mode_changed(). */
	u64 fetch_page;
	const u8 *fetch_host;
	/* Where the last SOFT_STORE_ONE instruction stored; in fetch_host's
	 * page if that is not known. */
	const u8 *stored;
	struct soft_seg segs[6]; /* by enum x86_seg */

	/* Guest x87/SSE/AVX state: an XSAVE area in the standard format,
	 * FXSAVE image at 0 and the upper YMM halves at 576. Complete and
	 * current between instructions, but for x87/MMX while the
	 * interpreter runs (see fpu.c). */
	u8 xsave[1088] __attribute__((aligned(64)));

	/* ---- system state ---- */
	struct soft_seg ldtr, tr;
	struct soft_table gdtr, idtr;
	u64 cr0, cr2, cr3, cr4, efer, xcr0;
	u64 dr[4], dr6, dr7;
	u64 pdpte[4]; /* PAE page-directory pointers */
	u64 star, lstar, cstar, sfmask, kernel_gs_base, tsc_aux;
	u64 sysenter_cs, sysenter_esp, sysenter_eip;
	u64 pat, misc_enable, mtrr_def, spec_ctrl;
	u64 mtrr_var[16], mtrr_fix[11];
	i64 tsc_offset, tsc_adjust;
	bool nmi_blocked, nmi_pending;
	bool is_halted;
	_Atomic bool is_waiting_sipi;

	/* ---- engine ---- */
	struct engine_vm *vm;
	u32 id; /* = APIC id */
	sigjmp_buf unwind;
	struct soft_exception exc;
	/* The event being delivered when a further fault occurs (double
	 * fault rules); 0xffff: none. */
	u16 delivering;
	struct insn insn; /* the instruction being executed (handlers) */
	u64 next_rip;	  /* v->rip + insn.len, wrapped to the mode */
	_Atomic u32 requests;
	struct soft_apic *apic;
	struct soft_space *user; /* the current address space's */
	/* All that are mapped (tlb_leaf.c); *user is one of them. */
	struct soft_space *users[SOFT_USER_SPACES];
	u64 user_stamp;
	struct soft_walk_cache walks;
	struct soft_space *super_now; /* &super, but in lockstep.c */
	struct lockstep *lockstep;    /* NULL: the tiers are not compared */
	/* While the interpreter runs for a comparison: its stores go to copies
	 * of pages, and accesses to devices stop it. */
	struct lockstep_map *on_copies;
	u32 watch_hits; /* DR6 B0-3: data breakpoints of this instruction */
	struct soft_icache *icache;   /* decoded instructions (interp.c) */
	struct xlat_scratch *scratch; /* of the translator (run.c) */
	struct isa_features features; /* what the presented CPUID allows */
	u64 instructions;	      /* retired */
	struct soft_vcpu_stats {
		u64 tlb_misses, mmio, pio, exceptions, interrupts, halts,
			icache_misses, stub_misses, cr3_writes, translations,
			translate_tsc, refusals, xlat_exits[4], jc_misses,
			lockstep_checks, lockstep_skips, pauses, yields,
			slot_misses;
	} stats;

	/* KVM paravirtual MSRs (pvclock.c). */
	u64 pv_system_time, pv_wall_clock, pv_steal_time, pv_eoi,
		pv_poll_control;
	u64 steal_base_ns; /* run_delay when stealing was last reported */
	u64 steal_next_ns; /* not before: schedstat is not free to read */
	pthread_t thread;  /* that called vcpu_run last, if has_thread */
	bool has_thread;
	int schedstat_fd; /* of the thread that runs this vCPU; -1: none */
	_Atomic bool pv_kicked; /* KVM_HC_KICK_CPU: the next HLT ends at once */

	/* Halt, kick and stop-the-world (park.c). is_parked, in_run and
	 * pause_wanted under park_lock. */
	pthread_mutex_t park_lock;
	pthread_cond_t park_cond;
	bool is_parked;
	bool in_run; /* a thread is inside vcpu_run */
	bool pause_wanted;
	_Atomic u32 is_sleeping; /* in a futex wait on `kick` */
	bool fpu_loaded;	 /* between soft_fpu_enter and soft_fpu_leave */
	char error[256];	 /* for VCPU_EXIT_ERROR */

	struct slots_seen slots;
	/* In generated code's reach from RSP; the last, because large. */
	struct soft_space super;
};

struct engine_vm {
	struct engine_vm_config cfg;
	struct mem *mem;
	struct kvm_cpuid2 *cpuid; /* own copy */
	struct isa_features features;
	struct soft_stubs *stubs; /* native code, shared by the vCPUs */
	struct xlat *xlat; /* the translator; NULL: interpret everything */
	struct soft_timers *timers;
	struct vcpu *vcpus[VCPUS_MAX];
	u32 vcpu_count;
	u64 tsc_khz;
	u64 clock_base_tsc;	    /* host TSC at which kvmclock is 0 */
	u32 apic_bus_khz;	    /* input clock of the APIC timers */
	_Atomic u32 lowest_next;    /* rotor of lowest-priority delivery */
	pthread_mutex_t pause_lock; /* one stop-the-world at a time */
	u8 physical_address_bits;   /* MAXPHYADDR presented */
	bool is_amd;		    /* the vendor presented: AMD or Hygon */
	_Atomic bool extint;
	_Atomic u64 device_writes; /* to RAM, that devices have told of */
};

/* All spaces of the vCPU; own thread, or it is parked. */
#define SOFT_SPACES_MAX (SOFT_USER_SPACES + 1)
static inline unsigned soft_spaces(struct vcpu *v,
				   struct soft_space *out[SOFT_SPACES_MAX])
{
	unsigned n = 0;

	out[n++] = &v->super;
	for (unsigned i = 0; i < SOFT_USER_SPACES; i++)
		if (v->users[i])
			out[n++] = v->users[i];
	return n;
}

/* ---- flags ---- */

u64 soft_rflags(const struct vcpu *v);
/* Writes all of RFLAGS; the caller has applied privilege rules. */
void soft_set_rflags(struct vcpu *v, u64 rflags);

static inline bool soft_cf(const struct vcpu *v)
{
	return v->aflags & 0x100;
}
static inline bool soft_zf(const struct vcpu *v)
{
	return v->aflags & 0x4000;
}

/* ---- raising (event.c) ---- */

/* What siglongjmp hands to v->unwind: an exception is in v->exc, or an
 * internal error in v->error. */
#define SOFT_UNWIND_EXCEPTION 1
#define SOFT_UNWIND_ERROR     2
#define SOFT_UNWIND_LOCKSTEP  3 /* lockstep_stop() */

void soft_raise(struct vcpu *v, u8 vector) NORETURN; /* no error code */
void soft_raise_error(struct vcpu *v, u8 vector, u32 error) NORETURN;
void soft_raise_pf(struct vcpu *v, gva_t cr2, u32 error) NORETURN;
void soft_raise_exc(struct vcpu *v, const struct soft_exception *e) NORETURN;
#define soft_ud(v)    soft_raise((v), X86_VEC_UD)
#define soft_nm(v)    soft_raise((v), X86_VEC_NM)
#define soft_gp(v, e) soft_raise_error((v), X86_VEC_GP, (e))
#define soft_ss(v, e) soft_raise_error((v), X86_VEC_SS, (e))
#define soft_np(v, e) soft_raise_error((v), X86_VEC_NP, (e))
#define soft_ts(v, e) soft_raise_error((v), X86_VEC_TS, (e))
/* An engine limit or bug: logs, ends vcpu_run with VCPU_EXIT_ERROR. */
void soft_internal_error(struct vcpu *v, const char *fmt, ...)
	PRINTF_LIKE(2, 3) NORETURN;

/* Delivers v->exc through the IVT or IDT, with double-fault rules; false on a
 * triple fault. Called by vcpu_run after the unwind; itself guards against
 * nested faults with a jump buffer of its own. */
bool soft_deliver_exception(struct vcpu *v);
/* Delivers an external interrupt or NMI; false on a triple fault. */
bool soft_deliver_interrupt(struct vcpu *v, u8 vector, bool is_nmi);
/* After each instruction with TF or data breakpoints: raises #DB traps. */
void soft_check_debug_traps(struct vcpu *v, bool tf_before);
/* Instruction breakpoints at v->rip: raises #DB unless RF. */
void soft_check_code_breakpoints(struct vcpu *v);
/* Recomputes code_mode, cpl, is_*, stack_size after CS, SS, CR0, EFER or
 * RFLAGS.VM changed. */
void soft_mode_changed(struct vcpu *v);

/* ---- memory (mmu.c): linear addresses, privilege of v->cpl ---- */

#define SOFT_R	   0u
#define SOFT_W	   1u
#define SOFT_X	   2u
#define SOFT_SUPER 4u /* implicit supervisor access (tables, TSS) */

/* 1, 2, 4 or 8 bytes. Faults raise. Page crossing, MMIO handled. */
u64 soft_read(struct vcpu *v, gva_t va, unsigned size, unsigned how);
void soft_write(struct vcpu *v, gva_t va, unsigned size, u64 value,
		unsigned how);
/* Any length up to 4096; a write checks every page before the first byte. */
void soft_read_bytes(struct vcpu *v, gva_t va, void *dst, size_t n,
		     unsigned how);
void soft_write_bytes(struct vcpu *v, gva_t va, const void *src, size_t n,
		      unsigned how);
/* Raises the fault that an access would, or returns. */
void soft_probe(struct vcpu *v, gva_t va, size_t n, unsigned how);
/* An operand for a native stub: host memory that stands for guest memory. */
struct soft_operand {
	u8 *host; /* RAM, or `bounce` */
	gva_t va;
	u16 size;
	bool is_bounced;
	bool is_locked; /* all other vCPUs are paused */
	u16 first;	/* bytes on the first page; a bounce's destinations: */
	u8 *part_host[2]; /* NULL: part_gpa through mem_mmio_write */
	gpa_t part_gpa[2];
	u8 bounce[64] __attribute__((aligned(64)));
};
/* how: SOFT_R, SOFT_W, or both for read-modify-write. is_lock: a LOCKed
 * access; across pages no other vCPU runs until the commit. After the stub ran,
 * soft_operand_commit() writes a bounce back and ends code that was there. */
void soft_operand_get(struct vcpu *v, struct soft_operand *o, gva_t va,
		      size_t n, bool is_read, bool is_write, bool is_lock);
void soft_operand_commit(struct vcpu *v, struct soft_operand *o, bool is_write);

/* Instruction bytes at linear va: up to 15 into dst without faulting beyond
 * the first page unless `need` asks for more. Returns how many are there.
 * Raises #PF (fetch) when fewer than `need` can be had. */
size_t soft_fetch(struct vcpu *v, gva_t va, u8 *dst, size_t need);
/* Host address of the code page that holds va (for the fast path), or NULL
 * for MMIO. Faults raise. */
const u8 *soft_fetch_page(struct vcpu *v, gva_t va);

/* Of all PCIDs. */
void soft_tlb_flush(struct vcpu *v, bool keep_global);
/* INVLPG: of the current PCID, and global ones. */
void soft_tlb_flush_page(struct vcpu *v, gva_t va);
/* INVPCID: of this PCID, but for global ones. */
void soft_tlb_flush_pcid(struct vcpu *v, u16 pcid);
void soft_tlb_flush_pcid_page(struct vcpu *v, u16 pcid, gva_t va);
/* v->cr3 becomes value, a valid one without bit 63; PDPTEs are loaded.
 * keeps: what is cached of its PCID stays. */
void soft_cr3_switch(struct vcpu *v, u64 value, bool keeps);
/* Leaf: MOV to CR3, and INVLPG of linear va, of 64-bit code; false: nothing is
 * done, the interpreter's business. The caller looks up anew where it is. */
bool soft_cr3_switch_leaf(struct vcpu *v, u64 value);
bool soft_invlpg_leaf(struct vcpu *v, gva_t va);
/* For debuggers and logs: no fault, no A/D update. */
bool soft_translate_debug(struct vcpu *v, gva_t va, gpa_t *out_gpa);

/* ---- segments (seg.c) ---- */

/* Segment-relative to linear: limit, type and canonical checks; raises #GP(0)
 * or #SS(0). The fast path is inline in soft_lin(). */
gva_t soft_lin_slow(struct vcpu *v, unsigned seg, u64 off, size_t n,
		    unsigned how);
static inline bool soft_is_canonical(u64 va)
{
	return (u64)((i64)(va << 16) >> 16) == va;
}
static inline gva_t soft_lin(struct vcpu *v, unsigned seg, u64 off, size_t n,
			     unsigned how)
{
	if (likely(v->code_mode == X86_MODE_64)) {
		gva_t va = off;

		if (seg == X86_FS || seg == X86_GS)
			va += v->segs[seg].base;
		if (likely(soft_is_canonical(va) &&
			   soft_is_canonical(va + n - 1)))
			return va;
	}
	return soft_lin_slow(v, seg, off, n, how);
}
/* Effective address of the current instruction's memory operand, truncated to
 * the address size, without segment base. */
u64 soft_ea(const struct vcpu *v, const struct insn *in);

void soft_load_seg(struct vcpu *v, unsigned seg, u16 sel); /* MOV, POP, Lxx */
void soft_far_jump(struct vcpu *v, u16 sel, u64 off, unsigned osize);
void soft_far_call(struct vcpu *v, u16 sel, u64 off, unsigned osize);
void soft_far_ret(struct vcpu *v, unsigned osize, u16 pop_bytes);
void soft_iret(struct vcpu *v, unsigned osize);

/* Stack with the current stack size. */
void soft_push(struct vcpu *v, u64 value, unsigned size);
u64 soft_pop(struct vcpu *v, unsigned size);

/* ---- instructions ---- */

/* A C handler. v->rip is at the instruction, v->next_rip behind it; the loop
 * sets rip = next_rip after the handler, so a branch writes next_rip. */
typedef void (*soft_op_fn)(struct vcpu *v, const struct insn *in);
/* By enum isa_op; NULL for ISA_PASS rows. Filled from per-file tables:
 *   struct soft_op_entry { u16 op; soft_op_fn fn; };
 * soft_ops_sys[] (sysops.c, seg.c, …) and those of ops_*.c (interp_int.h). */
struct soft_op_entry {
	u16 op;
	soft_op_fn fn;
};
extern const struct soft_op_entry soft_ops_sys[]; /* ends with op 0 */

/* Makes v return from generated code and the interpreter. Any thread. */
static inline void soft_kick(struct vcpu *v)
{
	atomic_store(&v->go, 0);
}
static inline bool soft_is_kicked(const struct vcpu *v)
{
	return !atomic_load_explicit(&v->go, memory_order_relaxed);
}

/* Runs instructions until v is kicked or HLT; returns between
 * instructions. Raises through v->unwind. */
void soft_interp(struct vcpu *v);
/* Port access: IOPL and the TSS bitmap; raises #GP(0) when forbidden. */
void soft_io_check(struct vcpu *v, u16 port, unsigned size);
/* TF, RF or breakpoints: instructions are to be stepped one by one. */
bool soft_needs_slow_step(const struct vcpu *v);
/* Raises what the host's trap on a guest instruction means to the guest. */
void soft_raise_host_trap(struct vcpu *v, unsigned trapno) NORETURN;
/* Exactly one instruction. */
void soft_interp_one(struct vcpu *v);
/* Up to a branch, as soft_interp() does: no shadow, no slow step. */
void soft_interp_block(struct vcpu *v);
/* Frees v->icache, which the interpreter makes when it first runs. */
void soft_icache_free(struct vcpu *v);

/* Native stubs: one per VM, made before the first vCPU. */
struct soft_stubs *soft_stubs_new(struct err *err);
void soft_stubs_free(struct soft_stubs *s);
/* Signal handlers for faults in stubs; process-wide, idempotent. */
int soft_stubs_install_signals(struct err *err);

/* ---- x87/SSE state (fpu.c) ---- */

void soft_fpu_reset(struct vcpu *v);
/* The x87/MMX registers live in the host FPU while the vCPU runs: load and
 * store around vcpu_run's time in the interpreter. */
void soft_fpu_enter(struct vcpu *v);
void soft_fpu_leave(struct vcpu *v);

/* ---- MSRs, CPUID (msr.c) ---- */

/* false: #GP(0). */
bool soft_rdmsr(struct vcpu *v, u32 index, u64 *out);
bool soft_wrmsr(struct vcpu *v, u32 index, u64 value);
void soft_cpuid(struct vcpu *v, u32 leaf, u32 subleaf, u32 out[4]);
void soft_cr0_write(struct vcpu *v, u64 value); /* raise #GP when illegal */
void soft_cr3_write(struct vcpu *v, u64 value);
void soft_cr4_write(struct vcpu *v, u64 value);

/* ---- APIC, time (apic.c, timer.c, pvclock.c) ---- */

u64 soft_tsc(const struct vcpu *v); /* the guest's TSC now */
struct soft_apic *soft_apic_new(struct vcpu *v);
void soft_apic_free(struct soft_apic *a);
void soft_apic_reset(struct soft_apic *a, bool is_init);
/* The xAPIC page at IA32_APIC_BASE. mmu.c sends accesses here before mem. */
u32 soft_apic_mmio_read(struct vcpu *v, u32 off);
void soft_apic_mmio_write(struct vcpu *v, u32 off, u32 value);
gpa_t soft_apic_base(const struct vcpu *v); /* page address; ~0: disabled or
					       x2APIC */
bool soft_apic_rdmsr(struct vcpu *v, u32 index, u64 *out); /* 1B,6E0,800-83F */
bool soft_apic_wrmsr(struct vcpu *v, u32 index, u64 value);
u64 soft_apic_cr8(const struct vcpu *v);
void soft_apic_set_cr8(struct vcpu *v, u64 value);
/* The vector to deliver now, or -1; acknowledges it (IRR to ISR). */
int soft_apic_ack(struct vcpu *v);
bool soft_apic_has_interrupt(const struct vcpu *v);
int soft_apic_msi(struct engine_vm *vm, u64 addr, u32 data);
void soft_apic_get(const struct soft_apic *a, struct kvm_lapic_state *out);
void soft_apic_set(struct soft_apic *a, const struct kvm_lapic_state *in);

bool soft_pv_rdmsr(struct vcpu *v, u32 index, u64 *out);
bool soft_pv_wrmsr(struct vcpu *v, u32 index, u64 value);
/* Bit 0 of the guest's PV EOI word. set: false when there is none. clear:
 * whether it was still set. */
bool soft_pv_eoi_set(struct vcpu *v);
bool soft_pv_eoi_clear(struct vcpu *v);
/* Ends the interrupt that the guest ended in its memory, or takes the offer
 * back: before anything that looks at the APIC (apic.c). */
void soft_apic_pv_eoi_settle(struct soft_apic *a);
/* VMCALL/VMMCALL with RAX etc. in the registers. */
void soft_pv_hypercall(struct vcpu *v);
/* Called on entry to vcpu_run and after a halt: steal time. */
void soft_pv_enter(struct vcpu *v);

/* The vCPU thread's view of its own timer. Deadlines are CLOCK_MONOTONIC. */
#define SOFT_NEVER UINT64_MAX
u64 soft_apic_deadline_ns(struct vcpu *v); /* SOFT_NEVER: none armed */
/* Fires what is due and arms the next; with SOFT_REQ_TIMER and after sleep. */
void soft_apic_timer_poll(struct vcpu *v);
/* v->tsc_offset changed (WRMSR TSC, TSC_ADJUST): the deadline lies at another
 * moment now, and the kvmclock page is written anew. */
void soft_tsc_changed(struct vcpu *v);
void soft_apic_tsc_changed(struct vcpu *v); /* its half of that */
/* The PIC's INTR reaches this vCPU's LINT0. */
bool soft_apic_accepts_extint(const struct vcpu *v);
void soft_apic_lint1_nmi(struct vcpu *v);
u8 soft_apic_sipi_vector(const struct vcpu *v);
/* IA32_APIC_BASE as a saved state has it: any legal mode at once. */
bool soft_apic_restore_base(struct vcpu *v, u64 value);
/* One physical-mode IPI by APIC id: KVM_HC_SEND_IPI. false: no such vCPU. */
bool soft_apic_pv_ipi(struct engine_vm *vm, u32 apic_id, u32 icr_low);

u64 soft_host_tsc(void);

/* a * b / c without overflow of the product; saturates. c != 0. */
static inline u64 soft_muldiv(u64 a, u64 b, u64 c)
{
	unsigned __int128 q = (unsigned __int128)a * b / c;

	return q > UINT64_MAX ? UINT64_MAX : (u64)q;
}

/* One thread per VM: at deadline_ns it makes SOFT_REQ_TIMER on vCPU id. */
struct soft_timers *soft_timers_new(struct engine_vm *vm, struct err *err);
void soft_timers_free(struct soft_timers *t);
/* SOFT_NEVER disarms. NULL: no timer thread (unit tests). */
void soft_timer_arm(struct soft_timers *t, u32 id, u64 deadline_ns);

/* Before a sleep: the `preempted` byte. */
void soft_pv_leave(struct vcpu *v);
/* A fresh or reset vCPU: forgets the PV pages. */
void soft_pv_reset(struct vcpu *v);

/* Whoever lets events in that were held back - sets RFLAGS.IF (POPF, IRET,
 * SYSRET, STI, …) or unblocks NMI - calls this afterwards. An event that
 * cannot be taken yet stays in v->requests with v not kicked, so that CLI
 * regions run at full speed; this makes the interpreter look again. */
static inline void soft_after_if_change(struct vcpu *v)
{
	if (unlikely(atomic_load_explicit(&v->requests, memory_order_relaxed)))
		atomic_store_explicit(&v->go, 0, memory_order_relaxed);
}

/* Wakes a halted vCPU and makes a running one look at its requests. Any
 * thread, async-signal-safe apart from the wake. */
void soft_request(struct vcpu *v, u32 bits);
/* An NMI. Two are kept: one to be taken now, one behind it; more are lost. */
void soft_request_nmi(struct vcpu *v);
/* Parks every other vCPU between instructions; nests not. Called on a vCPU
 * thread (v != NULL: the caller's own) or on another (NULL). */
void soft_pause_all(struct engine_vm *vm, struct vcpu *self);
void soft_resume_all(struct engine_vm *vm, struct vcpu *self);
/* soft_pause_all() in the middle of an instruction of v's: should v be parked
 * on the way, its x87 registers are where they are looked for. */
void soft_pause_others(struct vcpu *v);
/* park.c, for vcpu_run: entry and exit, and the park point. */
void soft_run_begin(struct vcpu *v);
void soft_run_end(struct vcpu *v);
void soft_park(struct vcpu *v);
/* Sleeps until v is kicked or deadline_ns (SOFT_NEVER: no limit). */
void soft_sleep(struct vcpu *v, u64 deadline_ns);

/* ---- engine (vm.c, vcpu.c, state.c) ---- */

/* Zeroed memory of a vCPU, below it the stack of generated code's leaf calls,
 * behind it the user spaces, of which one is in use. NULL: errno. */
struct vcpu *soft_vcpu_alloc(void);
void soft_vcpu_release(struct vcpu *v);
/* Where user space i < SOFT_USER_SPACES lies; zeroed before its first use. */
struct soft_space *soft_vcpu_space(struct vcpu *v, unsigned i);
/* Power-on (is_init false) or INIT state, the APIC included. */
void soft_vcpu_reset(struct vcpu *v, bool is_init);
int soft_vcpu_get(struct vcpu *v, struct vcpu_state *out, struct err *err);
int soft_vcpu_set(struct vcpu *v, const struct vcpu_state *in, struct err *err);
/* stats.c */
size_t soft_stats(struct engine_vm *vm, struct engine_stat *out, size_t n);
void soft_vcpu_attach(struct vcpu *v);
enum vcpu_exit soft_vcpu_run(struct vcpu *v, struct err *err);
