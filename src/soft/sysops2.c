/* SPDX-License-Identifier: Apache-2.0 */
/* Fast system calls, MSRs, CPUID, time, ports, XCR0 and cache control.
 * SDM 2; APM 3 for what AMD does differently in SYSCALL and SYSENTER. */
#include "soft/leaf.h"
#include "soft/sysops.h"
#include "soft/xlat.h"

#include "soft/soft_sys.h"

/* SYSCALL and SYSRET single-step by the flags they leave, not by those they
 * find: a trap in between would be at CPL 0 on the user's stack. */
static void trap_after_load(struct vcpu *v)
{
	if (!(v->rflags_sys & X86_FL_TF))
		return;
	v->rip = v->next_rip;
	v->instructions++;
	soft_raise_exc(v, &(struct soft_exception){.vector = X86_VEC_DB,
						   .is_trap = true,
						   .dr6 = DR6_BS});
}

void sys_syscall(struct vcpu *v, const struct insn *in)
{
	bool is_64 = v->code_mode == X86_MODE_64;

	if (!(v->efer & X86_EFER_SCE) || !v->is_protected || v->is_vm86 ||
	    (!is_64 && !soft_is_amd(v)))
		soft_ud(v);
	soft_syscall_commit(v);
	trap_after_load(v);
}

void sys_sysret(struct vcpu *v, const struct insn *in)
{
	bool is_amd = soft_is_amd(v), to_64 = in->osize == 8;

	if (!(v->efer & X86_EFER_SCE) ||
	    (v->code_mode != X86_MODE_64 && !is_amd))
		soft_ud(v);
	if (v->cpl)
		soft_gp(v, 0);
	if (to_64 && !is_amd && !soft_is_canonical(v->gpr[X86_RCX]))
		soft_gp(v, 0);
	soft_sysret_commit(v, to_64, is_amd);
	sys_unmask(v);
	trap_after_load(v);
}

void sys_sysenter(struct vcpu *v, const struct insn *in)
{
	u64 sel = v->sysenter_cs & 0xfffc;

	if (v->is_long && soft_is_amd(v))
		soft_ud(v);
	if (!v->is_protected || !sel)
		soft_gp(v, 0);
	v->rflags_sys &= ~(X86_FL_VM | X86_FL_IF | X86_FL_RF);
	soft_set_flat(v, X86_CS, sel,
		      v->is_long ? SOFT_ATTR_CODE64 : SOFT_ATTR_CODE32, 0);
	soft_set_flat(v, X86_SS, sel + 8, SOFT_ATTR_DATA, 0);
	v->gpr[X86_RSP] = v->is_long ? v->sysenter_esp : (u32)v->sysenter_esp;
	v->next_rip = v->is_long ? v->sysenter_eip : (u32)v->sysenter_eip;
	soft_mode_changed(v);
}

void sys_sysexit(struct vcpu *v, const struct insn *in)
{
	bool to_64 = in->osize == 8;
	u64 sel = v->sysenter_cs & 0xfffc;
	u64 rip = v->gpr[X86_RDX], rsp = v->gpr[X86_RCX];

	if (v->is_long && soft_is_amd(v))
		soft_ud(v);
	if (!v->is_protected || v->cpl || !sel)
		soft_gp(v, 0);
	if (to_64 && (!soft_is_canonical(rip) || !soft_is_canonical(rsp)))
		soft_gp(v, 0);
	soft_set_flat(v, X86_CS, (sel + (to_64 ? 32 : 16)) | 3,
		      to_64 ? SOFT_ATTR_CODE64 : SOFT_ATTR_CODE32, 3);
	soft_set_flat(v, X86_SS, (sel + (to_64 ? 40 : 24)) | 3, SOFT_ATTR_DATA,
		      3);
	v->gpr[X86_RSP] = to_64 ? rsp : (u32)rsp;
	v->next_rip = to_64 ? rip : (u32)rip;
	soft_mode_changed(v);
}

void sys_swapgs(struct vcpu *v, const struct insn *in)
{
	u64 base = v->segs[X86_GS].base;

	if (v->code_mode != X86_MODE_64)
		soft_ud(v);
	if (v->cpl)
		soft_gp(v, 0);
	v->segs[X86_GS].base = v->kernel_gs_base;
	v->kernel_gs_base = base;
}

void sys_hlt(struct vcpu *v, const struct insn *in)
{
	v->is_halted = true;
	sys_unmask(v);
}

void sys_rdmsr(struct vcpu *v, const struct insn *in)
{
	u64 value;

	if (!soft_rdmsr(v, (u32)v->gpr[X86_RCX], &value))
		soft_gp(v, 0);
	v->gpr[X86_RAX] = (u32)value;
	v->gpr[X86_RDX] = value >> 32;
}

void sys_wrmsr(struct vcpu *v, const struct insn *in)
{
	u64 value = (u32)v->gpr[X86_RAX] | v->gpr[X86_RDX] << 32;

	smc_serialize(v);
	if (!soft_wrmsr(v, (u32)v->gpr[X86_RCX], value))
		soft_gp(v, 0);
	sys_unmask(v);
}

void sys_cpuid(struct vcpu *v, const struct insn *in)
{
	u32 r[4];

	smc_serialize(v);
	soft_cpuid(v, (u32)v->gpr[X86_RAX], (u32)v->gpr[X86_RCX], r);
	v->gpr[X86_RAX] = r[0];
	v->gpr[X86_RBX] = r[1];
	v->gpr[X86_RCX] = r[2];
	v->gpr[X86_RDX] = r[3];
}

void sys_rdtsc(struct vcpu *v, const struct insn *in)
{
	u64 tsc;

	if ((v->cr4 & X86_CR4_TSD) && v->cpl)
		soft_gp(v, 0);
	tsc = soft_tsc(v);
	v->gpr[X86_RAX] = (u32)tsc;
	v->gpr[X86_RDX] = tsc >> 32;
	if (in->row->op == ISA_OP_RDTSCP)
		v->gpr[X86_RCX] = (u32)v->tsc_aux;
}

void sys_rdpid(struct vcpu *v, const struct insn *in)
{
	v->gpr[in->rm] = (u32)v->tsc_aux;
}

void sys_rdpmc(struct vcpu *v, const struct insn *in)
{
	soft_gp(v, 0); /* no counters */
}

/* ---- ports ---- */

void soft_io_check(struct vcpu *v, u16 port, unsigned size)
{
	if (v->is_protected &&
	    (v->is_vm86 || v->cpl > (v->rflags_sys >> 12 & 3))) {
		u64 map, bits;

		if (!(SEG_TYPE(v->tr.attr) & 8) || v->tr.limit < 0x67)
			soft_gp(v, 0);
		map = soft_read(v, v->tr.base + 0x66, 2, SOFT_SUPER) + port / 8;
		if (map + 1 > v->tr.limit)
			soft_gp(v, 0);
		bits = soft_read(v, v->tr.base + map, 2, SOFT_SUPER);
		if (bits >> (port & 7) & (BIT32(size) - 1))
			soft_gp(v, 0);
	}
	soft_watch_io(v, port, size);
}

static unsigned port_size(const struct insn *in)
{
	return !(in->opcode & 1) ? 1 : in->osize == 2 ? 2 : 4;
}

static u16 port_number(const struct vcpu *v, const struct insn *in)
{
	return (in->opcode & 8) ? (u16)v->gpr[X86_RDX] : (u8)in->imm;
}

void sys_in(struct vcpu *v, const struct insn *in)
{
	unsigned size = port_size(in);
	u16 port = port_number(v, in);
	u64 *rax = &v->gpr[X86_RAX];
	u32 value;

	soft_io_check(v, port, size);
	v->stats.pio++;
	value = mem_pio_read(v->vm->mem, port, size);
	if (size == 1)
		*rax = (*rax & ~0xffull) | (u8)value;
	else
		sys_set_gpr(v, X86_RAX, size, value);
}

void sys_out(struct vcpu *v, const struct insn *in)
{
	unsigned size = port_size(in);
	u16 port = port_number(v, in);
	u32 value = (u32)v->gpr[X86_RAX];

	soft_io_check(v, port, size);
	v->stats.pio++;
	if (size < 4)
		value &= BIT32(size * 8) - 1;
	mem_pio_write(v->vm->mem, port, size, value);
}

/* ---- XCR0, bases, caches, the rest ---- */

void sys_xgetbv(struct vcpu *v, const struct insn *in)
{
	u32 index = (u32)v->gpr[X86_RCX];

	if (!(v->cr4 & X86_CR4_OSXSAVE))
		soft_ud(v);
	if (index > 1 || (index && !soft_cpuid_has(v, 0xd, 1, 0, 2)))
		soft_gp(v, 0);
	/* Index 1: XINUSE is not tracked, everything enabled is in use. */
	v->gpr[X86_RAX] = (u32)v->xcr0;
	v->gpr[X86_RDX] = 0;
}

void sys_xsetbv(struct vcpu *v, const struct insn *in)
{
	u64 value = (u32)v->gpr[X86_RAX] | v->gpr[X86_RDX] << 32;
	u64 known = soft_cpuid_has(v, 1, 0, 2, 28) ? 7 : 3;

	if (!(v->cr4 & X86_CR4_OSXSAVE))
		soft_ud(v);
	if (v->cpl || (u32)v->gpr[X86_RCX] || !(value & 1) ||
	    (value & ~known) || ((value & 4) && !(value & 2)))
		soft_gp(v, 0);
	v->xcr0 = value;
}

static unsigned base_seg(const struct insn *in)
{
	return (in->row->op == ISA_OP_RDFSBASE ||
		in->row->op == ISA_OP_WRFSBASE)
		       ? X86_FS
		       : X86_GS;
}

void sys_rdbase(struct vcpu *v, const struct insn *in)
{
	if (!(v->cr4 & X86_CR4_FSGSBASE))
		soft_ud(v);
	sys_set_gpr(v, in->rm, in->osize == 8 ? 8 : 4,
		    v->segs[base_seg(in)].base);
}

void sys_wrbase(struct vcpu *v, const struct insn *in)
{
	u64 value = v->gpr[in->rm];

	if (!(v->cr4 & X86_CR4_FSGSBASE))
		soft_ud(v);
	if (in->osize != 8)
		value = (u32)value;
	if (!soft_is_canonical(value))
		soft_gp(v, 0);
	v->segs[base_seg(in)].base = value;
}

void sys_nop(struct vcpu *v, const struct insn *in)
{
}

void sys_pause(struct vcpu *v, const struct insn *in)
{
	soft_pause(v);
}

void sys_serialize(struct vcpu *v, const struct insn *in)
{
	smc_serialize(v);
}

void sys_clflush(struct vcpu *v, const struct insn *in)
{
	soft_probe(v, sys_lin(v, in, 1, SOFT_R), 1, SOFT_R);
}

void sys_clzero(struct vcpu *v, const struct insn *in)
{
	static const u8 zeros[64];
	u64 off = v->gpr[X86_RAX] & ~63ull;

	off = in->asize == 8 ? off : in->asize == 4 ? (u32)off : (u16)off;
	soft_write_bytes(
		v, soft_lin(v, in->seg < 6 ? in->seg : X86_DS, off, 64, SOFT_W),
		zeros, 64, SOFT_W);
}

void sys_clac(struct vcpu *v, const struct insn *in)
{
	if (v->cpl || !soft_cpuid_has(v, 7, 0, 1, 20))
		soft_ud(v);
	if (in->row->op == ISA_OP_STAC)
		v->rflags_sys |= X86_FL_AC;
	else
		v->rflags_sys &= ~X86_FL_AC;
}

void sys_vmcall(struct vcpu *v, const struct insn *in)
{
	soft_pv_hypercall(v);
}

void sys_ud(struct vcpu *v, const struct insn *in)
{
	soft_ud(v);
}
