// SPDX-License-Identifier: Apache-2.0
/*
 * A debugger's view of a loop: the parent single-steps its child from one
 * label to another, then sets a breakpoint by writing int3, then one in a
 * debug register, then a watchpoint. What it prints (counts, and a hash of the
 * registers after each step) depends on the CPU alone: link without PIE.
 * usage: step [loop]   (loop: only the loop, for another debugger)
 */
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#define ROUNDS 50
#define FLAGS  0xcd5 /* CF PF AF ZF SF DF OF */

extern const char loop_start[], loop_head[], loop_mid[], loop_end[];
long watched;
char bytes[64];

static void child_loop(void)
{
	/* Each kind of instruction that ends or splits a translated block. */
	asm volatile("loop_start:\n"
		     "	mov %0, %%r12\n"
		     "	xor %%eax, %%eax\n"
		     "	xor %%ecx, %%ecx\n"
		     "	xor %%edi, %%edi\n"
		     "	xor %%r8d, %%r8d\n"
		     "	mov $1, %%ebx\n"
		     "loop_head:\n"
		     "	lea (%%rbx,%%rbx,4), %%rbx\n"
		     "	add $0x7f4a7c15, %%rbx\n"
		     "	adc $3, %%rax\n"
		     "loop_mid:\n"
		     "	imul %%rbx, %%rax\n"
		     "	push %%rax\n"
		     "	call 2f\n"
		     "	pop %%rax\n"
		     "	mov $bytes, %%edi\n"
		     "	mov $7, %%ecx\n"
		     "	rep stosb\n"
		     "	mov $bytes, %%esi\n"
		     "	mov $5, %%ecx\n"
		     "	repe scasb\n"
		     "	mov %%rax, watched(%%rip)\n"
		     "	pushf\n"
		     "	pop %%r8\n"
		     "	and $0xcd5, %%r8\n"
		     "	push %%rax\n"
		     "	mov $-1, %%eax\n"
		     "	syscall\n"
		     "	xor %%r11d, %%r11d\n"
		     "	pop %%rax\n"
		     "	bt $3, %%rax\n"
		     "	jc 3f\n"
		     "	ror $5, %%rbx\n"
		     "3:	dec %%r12\n"
		     "	jnz loop_head\n"
		     "	jmp loop_end\n"
		     "2:	btc $7, %%rbx\n"
		     "	ret\n"
		     "loop_end:\n"
		     "	nop\n"
		     :
		     : "i"(ROUNDS)
		     : "rax", "rbx", "rcx", "rdi", "rsi", "r8", "r11", "r12",
		       "cc", "memory");
}

static void stop(const char *what)
{
	perror(what);
	exit(1);
}

static int wait_signal(pid_t pid)
{
	int status;

	if (waitpid(pid, &status, 0) != pid)
		stop("waitpid");
	if (WIFEXITED(status))
		return -1 - WEXITSTATUS(status);
	return WSTOPSIG(status);
}

static pid_t start_child(void)
{
	pid_t pid = fork();

	if (pid == 0) {
		if (ptrace(PTRACE_TRACEME, 0, 0, 0))
			_exit(1);
		raise(SIGSTOP);
		child_loop();
		_exit(0);
	}
	if (wait_signal(pid) != SIGSTOP)
		stop("child");
	return pid;
}

static struct user_regs_struct regs_of(pid_t pid)
{
	struct user_regs_struct r;

	if (ptrace(PTRACE_GETREGS, pid, 0, &r))
		stop("getregs");
	return r;
}

static uint64_t mix(uint64_t h, uint64_t x)
{
	return (h ^ x) * 0x100000001b3ull;
}

static uint64_t hash_regs(uint64_t h, const struct user_regs_struct *r)
{
	h = mix(h, r->rip);
	h = mix(h, r->rax);
	h = mix(h, r->rbx);
	h = mix(h, r->rcx);
	h = mix(h, r->rdi);
	h = mix(h, r->r8);
	return mix(h, r->eflags & FLAGS);
}

/* Replaces one byte of the child's code; returns the old one. */
static long poke(pid_t pid, uintptr_t at, long byte)
{
	long word = ptrace(PTRACE_PEEKTEXT, pid, at, 0);

	if (ptrace(PTRACE_POKETEXT, pid, at, (word & ~0xffl) | byte))
		stop("poke");
	return word & 0xff;
}

static void single_steps(void)
{
	pid_t pid = start_child();
	long old = poke(pid, (uintptr_t)loop_start, 0xcc);
	struct user_regs_struct r;
	uint64_t h = 0, steps = 0;

	ptrace(PTRACE_CONT, pid, 0, 0);
	if (wait_signal(pid) != SIGTRAP)
		stop("start");
	poke(pid, (uintptr_t)loop_start, old);
	r = regs_of(pid);
	r.rip = (uintptr_t)loop_start;
	ptrace(PTRACE_SETREGS, pid, 0, &r);
	while (r.rip != (uintptr_t)loop_end) {
		if (ptrace(PTRACE_SINGLESTEP, pid, 0, 0))
			stop("step");
		if (wait_signal(pid) != SIGTRAP)
			stop("step's signal");
		r = regs_of(pid);
		if (r.rip < (uintptr_t)loop_start ||
		    r.rip > (uintptr_t)loop_end)
			stop("step's place");
		if (steps > 6) /* all registers are loaded */
			h = hash_regs(h, &r);
		if (++steps > 100000)
			stop("no end");
	}
	printf("steps %lu hash %016lx\n", steps, h);
	ptrace(PTRACE_CONT, pid, 0, 0);
	printf("end %d\n", wait_signal(pid));
}

static void breakpoints(void)
{
	pid_t pid = start_child();
	uintptr_t at = (uintptr_t)loop_mid;
	uint64_t h = 0, hits = 0;
	long old = poke(pid, at, 0xcc);
	int sig;

	for (;;) {
		ptrace(PTRACE_CONT, pid, 0, 0);
		sig = wait_signal(pid);
		if (sig != SIGTRAP)
			break;
		struct user_regs_struct r = regs_of(pid);

		h = hash_regs(h, &r);
		hits++;
		poke(pid, at, old);
		r.rip = at;
		ptrace(PTRACE_SETREGS, pid, 0, &r);
		ptrace(PTRACE_SINGLESTEP, pid, 0, 0);
		if (wait_signal(pid) != SIGTRAP)
			stop("step over");
		poke(pid, at, 0xcc);
	}
	printf("int3 %lu hash %016lx end %d\n", hits, h, sig);
}

static void debug_register(const char *name, uintptr_t at, unsigned long dr7)
{
	pid_t pid = start_child();
	uint64_t h = 0, hits = 0;
	int sig;

	if (ptrace(PTRACE_POKEUSER, pid, offsetof(struct user, u_debugreg[0]),
		   at) ||
	    ptrace(PTRACE_POKEUSER, pid, offsetof(struct user, u_debugreg[7]),
		   dr7))
		stop("debug register");
	for (;;) {
		ptrace(PTRACE_CONT, pid, 0, 0);
		sig = wait_signal(pid);
		if (sig != SIGTRAP)
			break;
		struct user_regs_struct r = regs_of(pid);

		h = hash_regs(h, &r);
		hits++;
	}
	printf("%s %lu hash %016lx end %d\n", name, hits, h, sig);
}

int main(int argc, char **argv)
{
	(void)argv;
	if (argc > 1) { /* for a debugger */
		child_loop();
		return 0;
	}
	single_steps();
	breakpoints();
	debug_register("dr-execute", (uintptr_t)loop_mid, 1);
	debug_register("dr-write", (uintptr_t)&watched, 1 | 1 << 16 | 2 << 18);
	return 0;
}
