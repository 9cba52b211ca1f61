/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY. The child raises a breakpoint trap. Its handler writes the case's
 * state into the signal frame, with TF set; returning from it loads all of
 * that and executes one instruction, whose single-step trap (or fault) enters
 * the handler again, which reads the frame into the case's result and loads
 * the next one. REP instructions trap after each iteration and are stepped on
 * until RIP moves. A batch ends by restoring the frame of the breakpoint.
 */
#include <asm/ldt.h>
#include <asm/prctl.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include "soft/oracle.h"

#define TF	  0x100u
#define ARITH	  0xcd5u /* arithmetic flags and DF */
#define STEPS_MAX 2000

struct oracle_shared {
	struct oracle_case cases[ORACLE_BATCH];
	unsigned count;
	bool has_ldt;
};

struct oracle {
	struct oracle_shared *shared;
	int request[2], reply[2];
	pid_t pid;
};

/* The child's state. It is a process of its own, single-threaded. */
static struct {
	struct oracle_shared *shared;
	ucontext_t saved; /* of the breakpoint */
	u8 saved_fp[832];
	unsigned current, steps, ticked;
	bool is_running;
} child;

static const int gregs[16] = {
	REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
	REG_R8,	 REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15,
};

/* The signal frame's word of selectors for this mode. */
static u64 csgsfs(u8 mode)
{
	u64 saved = (u64)child.saved.uc_mcontext.gregs[REG_CSGSFS];
	u64 cs = mode == X86_MODE_32 ? ORACLE_CS32 : ORACLE_CS16;
	u64 ss = mode == X86_MODE_32 ? ORACLE_DS32 : ORACLE_DS16;

	if (mode == X86_MODE_64)
		return saved;
	return (saved & 0x0000ffffffff0000ull) | cs | ss << 48;
}

/* 64-bit code, this one included, does not look at them. */
static void load_data_segments(u8 mode)
{
	u32 sel = mode == X86_MODE_64	? 0
		  : mode == X86_MODE_32 ? ORACLE_DS32
					: ORACLE_DS16;

	__asm__ volatile("mov %0, %%ds\n\tmov %0, %%es\n\tmov %1, %%gs"
			 :
			 : "r"(sel),
			   "r"(mode == X86_MODE_32 ? ORACLE_GS32 : 0));
	if (mode == X86_MODE_64)
		syscall(SYS_arch_prctl, ARCH_SET_GS, (u64)ORACLE_GS_BASE);
}

static void load_case(ucontext_t *uc)
{
	struct oracle_case *c = &child.shared->cases[child.current];
	greg_t *g = uc->uc_mcontext.gregs;
	u8 *fp = (u8 *)uc->uc_mcontext.fpregs;

	for (unsigned i = 0; i < 16; i++)
		g[gregs[i]] = (greg_t)c->in.gpr[i];
	g[REG_RIP] = (greg_t)c->in.rip;
	g[REG_CSGSFS] = (greg_t)csgsfs(c->mode);
	g[REG_EFL] = (greg_t)((c->in.rflags & ARITH) | 0x202 |
			      (c->is_sequence ? 0 : TF));
	/* The kernel's words in the image (464…511) stay. */
	memcpy(fp, c->in.xsave, 464);
	memcpy(fp + 576, c->in.xsave + 576, 256);
	*(u64 *)(fp + 512) |= 7;
	memcpy((void *)ORACLE_DATA, c->in.data, ORACLE_DATA_BYTES);
	if (c->is_sequence)
		memset((void *)ORACLE_CODE, 0, ORACLE_CODE_PAGES * PAGE_BYTES);
	memcpy((void *)(c->in.rip + (c->mode == X86_MODE_16 ? ORACLE_CODE : 0)),
	       c->code, c->is_sequence ? ORACLE_CODE_BYTES : 16);
	child.steps = 0;
	/* A sequence before may have loaded others. */
	if (c->is_sequence && c->mode == X86_MODE_32)
		load_data_segments(c->mode);
}

static void read_fp(u8 *out, const u8 *fp)
{
	u64 present = *(const u64 *)(fp + 512);

	memcpy(out, fp, 464);
	if (present & 4)
		memcpy(out + 576, fp + 576, 256);
	else
		memset(out + 576, 0, 256);
	if (!(present & 2))
		memset(out + 160, 0, 256);
	if (!(present & 1)) {
		memset(out, 0, 24);
		memset(out + 32, 0, 128);
		st_le16(out, 0x37f);
	}
}

static void store_case(const ucontext_t *uc, u8 fault)
{
	struct oracle_case *c = &child.shared->cases[child.current];
	const greg_t *g = uc->uc_mcontext.gregs;

	for (unsigned i = 0; i < 16; i++)
		c->out.gpr[i] = (u64)g[gregs[i]];
	c->out.rip = (u64)g[REG_RIP];
	c->out.rflags = (u64)g[REG_EFL] & ARITH;
	read_fp(c->out.xsave, (const u8 *)uc->uc_mcontext.fpregs);
	memcpy(c->out.data, (void *)ORACLE_DATA, ORACLE_DATA_BYTES);
	c->out.fault = fault;
	c->is_skipped = false;
}

static void next_case(ucontext_t *uc)
{
	u8 *fp = (u8 *)uc->uc_mcontext.fpregs;

	if (child.current < child.shared->count) {
		load_case(uc);
		return;
	}
	child.is_running = false;
	memcpy(uc->uc_mcontext.gregs, child.saved.uc_mcontext.gregs,
	       sizeof(uc->uc_mcontext.gregs));
	memcpy(fp, child.saved_fp, 464);
	memcpy(fp + 576, child.saved_fp + 576, 256);
}

/* What POPF may have set would act on us (AC) or stay for the next case (NT,
 * ID): sigreturn sets neither. */
static void reset_flags(void)
{
	__asm__ volatile("lea -128(%%rsp), %%rsp\n\tpushq $0x202\n\tpopfq\n\t"
			 "lea 128(%%rsp), %%rsp"
			 :
			 :
			 : "memory", "cc");
}

static void on_trap(int sig, siginfo_t *si, void *ucontext)
{
	ucontext_t *uc = ucontext;
	u64 trapno = (u64)uc->uc_mcontext.gregs[REG_TRAPNO];
	const struct oracle_case *c;

	reset_flags();
	if (!child.is_running) {
		if (sig == SIGALRM)
			return;
		if (sig != SIGTRAP)
			_exit(2);
		child.saved = *uc;
		memcpy(child.saved_fp, uc->uc_mcontext.fpregs, 832);
		child.is_running = true;
		next_case(uc);
		return;
	}
	c = &child.shared->cases[child.current];
	if (c->is_rep && sig == SIGTRAP && trapno == 1 &&
	    (u64)uc->uc_mcontext.gregs[REG_RIP] == c->in.rip &&
	    child.steps++ < STEPS_MAX)
		return;	      /* an iteration of a REP */
	if (sig == SIGALRM) { /* wandered into a loop: the second time */
		if (child.ticked != child.current + 1) {
			child.ticked = child.current + 1;
			return;
		}
		trapno = ORACLE_NO_FAULT;
	}
	store_case(uc, sig == SIGTRAP && trapno == 1 ? ORACLE_NO_FAULT
						     : (u8)trapno);
	child.shared->cases[child.current].is_skipped = sig == SIGALRM;
	child.current++;
	next_case(uc);
}

static bool set_ldt(unsigned selector, u32 base, u32 limit, bool is_code)
{
	bool is_flat = limit == ~0u;
	struct user_desc d = {
		.entry_number = selector >> 3,
		.base_addr = base,
		.limit = is_flat ? 0xfffff : limit,
		.seg_32bit = is_flat,
		.limit_in_pages = is_flat,
		.contents = is_code ? 2 : 0,
		.useable = 1,
	};

	return !syscall(SYS_modify_ldt, 0x11, &d, sizeof(d));
}

static bool set_ldts(void)
{
	return set_ldt(ORACLE_CS32, 0, ~0u, true) &&
	       set_ldt(ORACLE_DS32, 0, ~0u, false) &&
	       set_ldt(ORACLE_CS16, ORACLE_CODE, 0xffff, true) &&
	       set_ldt(ORACLE_DS16, ORACLE_DATA - ORACLE_DATA16,
		       ORACLE_DATA16_LIMIT, false) &&
	       set_ldt(ORACLE_GS32, ORACLE_GS_BASE, ~0u, false);
}

static bool map_at(u64 address, size_t bytes, int protection)
{
	return mmap((void *)address, bytes, protection,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1,
		    0) != MAP_FAILED;
}

/* The tick may interrupt it. */
static bool wait_request(struct oracle *o, char *byte)
{
	ssize_t n;

	do {
		n = read(o->request[0], byte, 1);
	} while (n < 0 && errno == EINTR);
	return n == 1;
}

static void NORETURN child_main(struct oracle *o, bool has_read_only)
{
	static const int signals[] = {SIGTRAP, SIGSEGV, SIGFPE,
				      SIGILL,  SIGBUS,	SIGALRM};
	struct sigaction sa = {.sa_sigaction = on_trap,
			       .sa_flags =
				       SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
	struct itimerval tick = {{0, 100000}, {0, 100000}};
	stack_t ss = {.ss_size = 64 * KIB};
	char byte = 0;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	ss.ss_sp = mmap(NULL, ss.ss_size, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	sigaltstack(&ss, NULL);
	for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
		sigaction(signals[i], &sa, NULL);
	child.shared = o->shared;
	setitimer(ITIMER_REAL, &tick, NULL);
	if (!map_at(ORACLE_CODE, ORACLE_CODE_PAGES * PAGE_BYTES,
		    PROT_READ | PROT_WRITE | PROT_EXEC) ||
	    !map_at(ORACLE_DATA, ORACLE_DATA_BYTES, PROT_READ | PROT_WRITE) ||
	    (has_read_only && !map_at(ORACLE_READ_ONLY, PAGE_BYTES, PROT_READ)))
		_exit(3);
	o->shared->has_ldt = set_ldts();
	if (write(o->reply[1], &byte, 1) != 1)
		_exit(4);
	while (wait_request(o, &byte)) {
		child.current = child.ticked = 0;
		load_data_segments(o->shared->cases[0].mode);
		__asm__ volatile("vzeroall\n\tint3" ::: "memory");
		if (write(o->reply[1], &byte, 1) != 1)
			_exit(4);
	}
	_exit(0);
}

struct oracle *oracle_new(bool has_read_only)
{
	struct oracle *o = calloc(1, sizeof(*o));
	char byte;

	if (!o)
		return NULL;
	o->shared = mmap(NULL, sizeof(*o->shared), PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (o->shared == MAP_FAILED || pipe(o->request) || pipe(o->reply))
		return NULL;
	o->pid = fork();
	if (o->pid == 0) {
		close(o->request[1]);
		close(o->reply[0]);
		child_main(o, has_read_only);
	}
	close(o->request[0]);
	close(o->reply[1]);
	/* The child is set up. */
	return o->pid < 0 || read(o->reply[0], &byte, 1) != 1 ? NULL : o;
}

void oracle_free(struct oracle *o)
{
	close(o->request[1]);
	close(o->reply[0]);
	waitpid(o->pid, NULL, 0);
	munmap(o->shared, sizeof(*o->shared));
	free(o);
}

struct oracle_case *oracle_cases(struct oracle *o)
{
	return o->shared->cases;
}

bool oracle_has_ldt(const struct oracle *o)
{
	return o->shared->has_ldt;
}

bool oracle_run(struct oracle *o, unsigned n)
{
	char byte = 0;

	o->shared->count = n;
	for (unsigned i = 0; i < n; i++)
		o->shared->cases[i].is_skipped = true;
	return write(o->request[1], &byte, 1) == 1 &&
	       read(o->reply[0], &byte, 1) == 1;
}

bool oracle_has_mapped(const struct oracle *o, u64 address)
{
	u8 byte;
	struct iovec here = {&byte, 1}, there = {(void *)address, 1};

	return address - ORACLE_CODE >=
		       ORACLE_READ_ONLY + PAGE_BYTES - ORACLE_CODE &&
	       process_vm_readv(o->pid, &here, 1, &there, 1, 0) == 1;
}
