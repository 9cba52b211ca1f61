// SPDX-License-Identifier: Apache-2.0
/*
 * A storm of signals: an interval timer interrupts a loop whose handler
 * overwrites every general register, YMM0-15, x87 and MXCSR. After each turn
 * the loop's registers must hold what they held before.
 * usage: storm SIGNALS MICROSECONDS
 */
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

struct state {
	uint64_t
		gpr[13]; /* all but RSP, RBP and RDI, which holds our address */
	uint64_t ymm[16][4];
	uint32_t mxcsr;
	uint16_t fcw;
	double x87[4];
	uint64_t flags;
};

static volatile sig_atomic_t signals;

#define EACH_YMM(OP)                                                           \
	OP(0)                                                                  \
	OP(1) OP(2) OP(3) OP(4) OP(5) OP(6) OP(7) OP(8) OP(9) OP(10) OP(11)    \
		OP(12) OP(13) OP(14) OP(15)
#define CLOBBER(n) "vpcmpeqb %%ymm" #n ", %%ymm" #n ", %%ymm" #n "\n"
#define LOAD(n)	   "vmovdqu 104+32*" #n "(%%rdi), %%ymm" #n "\n"
#define STORE(n)   "vmovdqu %%ymm" #n ", 104+32*" #n "(%%rsi)\n"

static void on_alarm(int sig)
{
	static const uint32_t mxcsr = 0x7f80;
	static const uint16_t fcw = 0x77f;

	(void)sig;
	asm volatile(EACH_YMM(CLOBBER) "fninit; fldpi; fldpi; fldpi; fldcw %1\n"
				       "ldmxcsr %0\n"
				       "mov $-1, %%rax; mov %%rax, %%rbx\n"
				       "mov %%rax, %%rcx; mov %%rax, %%rdx\n"
				       "mov %%rax, %%r8; mov %%rax, %%r9\n"
				       "mov %%rax, %%r10; mov %%rax, %%r11\n"
				       "mov %%rax, %%r12; mov %%rax, %%r13\n"
				       "mov %%rax, %%r14; mov %%rax, %%r15\n"
				       "stc; std; cld\n"
		     :
		     : "m"(mxcsr), "m"(fcw)
		     : "rax", "rbx", "rcx", "rdx", "r8", "r9", "r10", "r11",
		       "r12", "r13", "r14", "r15", "cc", "memory");
	signals++;
}

_Static_assert(__builtin_offsetof(struct state, ymm) == 104, "");
_Static_assert(__builtin_offsetof(struct state, mxcsr) == 616, "");
_Static_assert(__builtin_offsetof(struct state, fcw) == 620, "");
_Static_assert(__builtin_offsetof(struct state, x87) == 624, "");
_Static_assert(__builtin_offsetof(struct state, flags) == 656, "");

/* Loads *in, waits for `turns` turns of a loop, stores what there is. RSI
 * counts, so it is not compared. */
static void turn(const struct state *in, struct state *out, uint64_t turns)
{
	asm volatile(
		"push %%rsi\n"
		"push %%rdx\n"
		"ldmxcsr 616(%%rdi); fninit; fldcw 620(%%rdi)\n"
		"fldl 624(%%rdi); fldl 632(%%rdi)\n"
		"fldl 640(%%rdi); fldl 648(%%rdi)\n" EACH_YMM(
			LOAD) "mov %%rdx, %%rsi\n"
			      "mov 0(%%rdi), %%rax; mov 8(%%rdi), %%rbx\n"
			      "mov 16(%%rdi), %%rcx; mov 24(%%rdi), %%rdx\n"
			      "mov 40(%%rdi), %%r8; mov 48(%%rdi), %%r9\n"
			      "mov 56(%%rdi), %%r10; mov 64(%%rdi), %%r11\n"
			      "mov 72(%%rdi), %%r12; mov 80(%%rdi), %%r13\n"
			      "mov 88(%%rdi), %%r14; mov 96(%%rdi), %%r15\n"
			      "cmp $-1, %%rax; stc\n" /* CF stays: LEA and JRCXZ
							 set no flags */
			      "1:	push %%rcx\n"
			      "	mov %%rsi, %%rcx\n"
			      "	lea -1(%%rcx), %%rcx\n"
			      "	mov %%rcx, %%rsi\n"
			      "	jrcxz 2f\n"
			      "	pop %%rcx\n"
			      "	jmp 1b\n"
			      "2:	pop %%rcx\n"
			      "	pushf\n"
			      "	mov 16(%%rsp), %%rsi\n"
			      "	mov %%rax, 0(%%rsi); mov %%rbx, 8(%%rsi)\n"
			      "	mov %%rcx, 16(%%rsi); mov %%rdx, 24(%%rsi)\n"
			      "	mov %%r8, 40(%%rsi); mov %%r9, 48(%%rsi)\n"
			      "	mov %%r10, 56(%%rsi); mov %%r11, 64(%%rsi)\n"
			      "	mov %%r12, 72(%%rsi); mov %%r13, 80(%%rsi)\n"
			      "	mov %%r14, 88(%%rsi); mov %%r15, 96(%%rsi)\n"
			      "	popq 656(%%rsi)\n" EACH_YMM(
				      STORE) "	stmxcsr 616(%%rsi); fnstcw "
					     "620(%%rsi)\n"
					     "	fstpl 648(%%rsi); fstpl "
					     "640(%%rsi)\n"
					     "	fstpl 632(%%rsi); fstpl "
					     "624(%%rsi)\n"
					     "	pop %%rdx\n"
					     "	pop %%rsi\n"
		: "+D"(in), "+S"(out), "+d"(turns)
		:
		: "rax", "rbx", "rcx", "r8", "r9", "r10", "r11", "r12", "r13",
		  "r14", "r15", "cc", "memory");
}

int main(int argc, char **argv)
{
	long want = argc > 1 ? atol(argv[1]) : 100000;
	long us = argc > 2 ? atol(argv[2]) : 50;
	struct itimerval every = {{0, us}, {0, us}}, never = {{0, 0}, {0, 0}};
	struct sigaction action = {.sa_handler = on_alarm};
	struct state in, out;
	uint64_t x = 88172645463325252ull;

	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &every, NULL);
	while (signals < want) {
		memset(&in, 0, sizeof(in));
		for (size_t i = 0; i < 616 / 8; i++) {
			x ^= x << 13;
			x ^= x >> 7;
			x ^= x << 17;
			((uint64_t *)&in)[i] = x;
		}
		in.gpr[4] = 0;
		in.mxcsr = 0x1f80 | (x & 3) << 13;
		in.fcw = (uint16_t)(0x37f | (x >> 2 & 3) << 10);
		for (int i = 0; i < 4; i++)
			in.x87[i] = (double)(x >> (i + 20)) / 3;
		memset(&out, 0, sizeof(out));
		turn(&in, &out, 2000);
		if (!(out.flags & 1) || (out.flags & 0x400)) {
			printf("flags %lx\n", out.flags);
			return 1;
		}
		out.flags = 0;
		if (memcmp(&in, &out, 624) || memcmp(in.x87, out.x87, 32)) {
			setitimer(ITIMER_REAL, &never, NULL);
			for (size_t i = 0; i < sizeof(in) / 8; i++)
				if (((uint64_t *)&in)[i] !=
				    ((uint64_t *)&out)[i])
					printf("word %zu: %016lx is %016lx\n",
					       i, ((uint64_t *)&in)[i],
					       ((uint64_t *)&out)[i]);
			return 1;
		}
	}
	printf("no state lost\n");
	return 0;
}
