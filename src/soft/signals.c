/* SPDX-License-Identifier: Apache-2.0 */
/* Host faults in native stubs become guest exceptions.
 *
 * THEORY. A stub keeps struct vcpu in R11 for its whole length and calls
 * nothing. When the guest's instruction faults on the host (divide error,
 * SIMD exception, x87 error, misalignment), the kernel delivers a signal with
 * the trap number. The handler, on the thread's alternate stack because RSP
 * is the host's own but the stack may be deep, changes the interrupted
 * context to call soft_stub_fault(v, trapno) and returns: sigreturn restores
 * the x87 state, which the kernel had reset for the handler, and
 * soft_stub_fault raises the exception by unwinding. The faulting instruction
 * has changed no register of the guest, since stubs store after it.
 *
 * A fault elsewhere is a bug: the default action is restored and the
 * instruction runs into it again.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "base/err.h"
#include "soft/codemem.h"
#include "soft/interp_int.h"
#include "soft/thunks.h"
#include "soft/xlat.h"

#define SOFT_XSAVE_MXCSR 24

void NORETURN soft_raise_host_trap(struct vcpu *v, unsigned trapno)
{
	switch (trapno) {
	case X86_VEC_DE:
	case X86_VEC_MF:
	case X86_VEC_UD:
		soft_raise(v, trapno);
	case X86_VEC_XM:
		soft_raise(v, v->cr4 & X86_CR4_OSXMMEXCPT ? X86_VEC_XM
							  : X86_VEC_UD);
	case X86_VEC_GP:
		soft_gp(v, 0);
	default:
		soft_internal_error(v, "host trap %u for rip 0x%llx", trapno,
				    (unsigned long long)v->rip);
	}
}

static void NORETURN soft_stub_fault(struct vcpu *v, unsigned trapno)
{
	u32 mxcsr = 0x1f80;

	__asm__ volatile("ldmxcsr %0" : : "m"(mxcsr));
	soft_raise_host_trap(v, trapno);
}

/* A fault in generated code: the thunk leaves as at any exit, with the
 * guest's registers, which this context still has. false: not of a guest
 * instruction. */
static bool leave_generated_code(struct xlat *x, greg_t *g)
{
	struct vcpu *v = (struct vcpu *)g[REG_RSP];
	const void *pc = (const void *)g[REG_RIP];
	int guest = xlat_fault_at(x, pc);

	if (guest < 0)
		return false;
	v->rip = v->pcbase + ((u32)guest & ~XLAT_FAULT_RFLAGS);
	if ((u32)guest & XLAT_FAULT_RFLAGS)
		v->aflags = (u32)((g[REG_EFL] & 0xd5) | 2) << 8 |
			    (g[REG_EFL] & X86_FL_OF ? 1 : 0);
	g[REG_RAX] = g[REG_TRAPNO];
	g[REG_RIP] = (greg_t)(xlat_code_rx(x) + xlat_thunk_table(x)[XT_FAULT]);
	return true;
}

static void on_fault(int sig, siginfo_t *si, void *ucontext)
{
	ucontext_t *uc = ucontext;
	greg_t *g = uc->uc_mcontext.gregs;
	struct xlat *x;
	struct vcpu *v;
	u64 sp;

	if (!soft_code_contains((const void *)g[REG_RIP])) {
		signal(sig, SIG_DFL);
		return;
	}
	x = soft_code_owner((const void *)g[REG_RIP]);
	if (x) {
		if (!leave_generated_code(x, g))
			signal(sig, SIG_DFL);
		return;
	}
	v = (struct vcpu *)g[REG_R11];
	if (g[REG_TRAPNO] == X86_VEC_XM) {
		/* The sticky flags of the exception are the guest's. */
		u32 mxcsr = uc->uc_mcontext.fpregs->mxcsr;

		memcpy(v->xsave + SOFT_XSAVE_MXCSR, &mxcsr, 4);
	}
	sp = ((u64)g[REG_RSP] - 256) & ~15ull;
	g[REG_RSP] = (greg_t)(sp - 8); /* as after a call */
	g[REG_RDI] = (greg_t)v;
	g[REG_RSI] = g[REG_TRAPNO];
	g[REG_RIP] = (greg_t)soft_stub_fault;
	g[REG_EFL] &= ~(greg_t)(X86_FL_DF | X86_FL_TF | X86_FL_AC);
}

int soft_stubs_install_signals(struct err *err)
{
	static const int signals[] = {SIGFPE, SIGSEGV, SIGBUS, SIGILL};
	struct sigaction sa = {.sa_sigaction = on_fault,
			       .sa_flags =
				       SA_SIGINFO | SA_ONSTACK | SA_NODEFER};

	sigemptyset(&sa.sa_mask);
	for (size_t i = 0; i < ARRAY_SIZE(signals); i++) {
		if (sigaction(signals[i], &sa, NULL) < 0)
			return err_sys(err, -errno,
				       "install the handler of signal %d",
				       signals[i]);
	}
	return 0;
}
