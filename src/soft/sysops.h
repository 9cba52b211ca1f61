/* SPDX-License-Identifier: Apache-2.0 */
/* Between sysops.c (which has the table) and sysops2.c. */
#pragma once

#include "soft/soft_int.h"

void sys_set_gpr(struct vcpu *v, unsigned reg, unsigned size, u64 value);
gva_t sys_lin(struct vcpu *v, const struct insn *in, size_t n, unsigned how);
u64 sys_read_rm(struct vcpu *v, const struct insn *in, unsigned size);
/* IF, TPR or NMI blocking changed: look at pending events. */
void sys_unmask(struct vcpu *v);

void sys_syscall(struct vcpu *v, const struct insn *in);
void sys_sysret(struct vcpu *v, const struct insn *in);
void sys_sysenter(struct vcpu *v, const struct insn *in);
void sys_sysexit(struct vcpu *v, const struct insn *in);
void sys_swapgs(struct vcpu *v, const struct insn *in);
void sys_hlt(struct vcpu *v, const struct insn *in);
void sys_rdmsr(struct vcpu *v, const struct insn *in);
void sys_wrmsr(struct vcpu *v, const struct insn *in);
void sys_cpuid(struct vcpu *v, const struct insn *in);
void sys_rdtsc(struct vcpu *v, const struct insn *in);
void sys_rdpid(struct vcpu *v, const struct insn *in);
void sys_rdpmc(struct vcpu *v, const struct insn *in);
void sys_in(struct vcpu *v, const struct insn *in);
void sys_out(struct vcpu *v, const struct insn *in);
void sys_xgetbv(struct vcpu *v, const struct insn *in);
void sys_xsetbv(struct vcpu *v, const struct insn *in);
void sys_rdbase(struct vcpu *v, const struct insn *in);
void sys_wrbase(struct vcpu *v, const struct insn *in);
void sys_nop(struct vcpu *v, const struct insn *in);
void sys_pause(struct vcpu *v, const struct insn *in);
void sys_serialize(struct vcpu *v, const struct insn *in);
void sys_clflush(struct vcpu *v, const struct insn *in);
void sys_clzero(struct vcpu *v, const struct insn *in);
void sys_clac(struct vcpu *v, const struct insn *in);
void sys_vmcall(struct vcpu *v, const struct insn *in);
void sys_ud(struct vcpu *v, const struct insn *in);
