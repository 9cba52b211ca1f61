// SPDX-License-Identifier: Apache-2.0
/* What a guest's ring 3 may not do is not done to the host either: each
 * instruction has the result that the architecture gives it, in the
 * interpreter and in translated code, and none of them is a system call.
 *
 * THEORY. The table runs in a child process whose seccomp filter kills it at
 * any call that the C library does not need for memory. RAX is getpid's
 * number in both of the host's tables: a SYSCALL, SYSENTER or INT 0x80 that
 * ran on the host would end the child. That the filter does so is tested, too.
 */
#include "test/test.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "soft/soft_sys.h"
#include "soft/tiervm.h"

/* getpid is 39; 0x27 is mkdir in the 32-bit table: killed by its table. */
#define BAIT 39

/* ---- the filter ---- */

static const int allowed[] = {
	SYS_write,
	SYS_exit_group,
	SYS_futex,
	SYS_rt_sigreturn,
	SYS_rt_sigprocmask,
	SYS_mmap,
	SYS_munmap,
	SYS_mprotect,
	SYS_mremap,
	SYS_madvise,
	SYS_brk,
	SYS_sigaltstack, /* ASan asks for it */
};
#define ALLOWED ARRAY_SIZE(allowed)

static void install_filter(void)
{
	struct sock_filter f[ALLOWED + 5] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
			 offsetof(struct seccomp_data, arch)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 0,
			 ALLOWED + 1),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
			 offsetof(struct seccomp_data, nr)),
	};
	struct sock_fprog prog = {.len = ARRAY_SIZE(f), .filter = f};

	for (size_t i = 0; i < ALLOWED; i++)
		f[3 + i] = (struct sock_filter)BPF_JUMP(
			BPF_JMP | BPF_JEQ | BPF_K, (u32)allowed[i],
			(u8)(ALLOWED - i), 0);
	f[3 + ALLOWED] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K,
						      SECCOMP_RET_KILL_PROCESS);
	f[4 + ALLOWED] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K,
						      SECCOMP_RET_ALLOW);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog))
		_exit(99);
}

/* ---- the table ---- */

#define IN_64	 1u
#define IN_32	 2u /* compatibility mode */
#define BOTH	 3u
#define ENABLE	 4u  /* SCE, OSXSAVE, FSGSBASE are on */
#define NEVER	 8u  /* and they are off */
#define NEEDS	 16u /* #UD without the feature `cpuid` */
#define IS_AMD	 32u
#define IS_INTEL 64u
#define UMIP	 128u

enum { END_OK = -1, LSTAR_OK = -2 };

struct user_row {
	const char *name;
	u8 bytes[8], n;
	u32 flags;
	int want; /* vector, END_OK, LSTAR_OK */
	struct {
		u32 leaf;
		u8 sub, reg, bit;
	} cpuid;
};

#define B1(a)		  {a}, 1
#define B2(a, b)	  {a, b}, 2
#define B3(a, b, c)	  {a, b, c}, 3
#define B4(a, b, c, d)	  {a, b, c, d}, 4
#define B5(a, b, c, d, e) {a, b, c, d, e}, 5
#define UD		  X86_VEC_UD
#define GP		  X86_VEC_GP

// clang-format off
static const struct user_row rows[] = {
	{"syscall", B2(0x0f, 0x05), BOTH | NEVER, UD, {0}},
	{"syscall, SCE", B2(0x0f, 0x05), IN_64 | ENABLE, LSTAR_OK, {0}},
	{"sysret", B2(0x0f, 0x07), BOTH | NEVER, UD, {0}},
	{"sysret, SCE", B2(0x0f, 0x07), IN_64 | ENABLE, GP, {0}},
	{"sysenter", B2(0x0f, 0x34), BOTH | IS_AMD, UD, {0}},
	{"sysenter", B2(0x0f, 0x34), BOTH | IS_INTEL, GP, {0}},
	{"sysexit", B2(0x0f, 0x35), BOTH | IS_AMD, UD, {0}},
	{"sysexit", B2(0x0f, 0x35), BOTH | IS_INTEL, GP, {0}},
	{"int 0x80", B2(0xcd, 0x80), BOTH, 0x80, {0}},
	{"int 3", B2(0xcd, 0x03), BOTH, 3, {0}},
	{"int3", B1(0xcc), BOTH, X86_VEC_BP, {0}},
	{"int1", B1(0xf1), BOTH, X86_VEC_DB, {0}},
	{"vmcall", B3(0x0f, 0x01, 0xc1), BOTH, END_OK, {0}},
	{"vmmcall", B3(0x0f, 0x01, 0xd9), BOTH, END_OK, {0}},
	{"rdtsc", B2(0x0f, 0x31), BOTH, END_OK, {0}},
	{"rdtscp", B3(0x0f, 0x01, 0xf9), BOTH | NEEDS, END_OK,
		{0x80000001, 0, 3, 27}},
	{"rdpid", B4(0xf3, 0x0f, 0xc7, 0xf8), BOTH | NEEDS, END_OK,
		{7, 0, 2, 22}},
	{"rdpmc", B2(0x0f, 0x33), BOTH, GP, {0}},
	{"cpuid", B2(0x0f, 0xa2), BOTH, END_OK, {0}},
	{"xgetbv", B3(0x0f, 0x01, 0xd0), BOTH | NEVER, UD, {0}},
	{"xgetbv, OSXSAVE", B3(0x0f, 0x01, 0xd0), BOTH | ENABLE, END_OK, {0}},
	{"xsetbv", B3(0x0f, 0x01, 0xd1), BOTH | NEVER, UD, {0}},
	{"xsetbv, OSXSAVE", B3(0x0f, 0x01, 0xd1), BOTH | ENABLE, GP, {0}},
	{"rdfsbase", B5(0xf3, 0x48, 0x0f, 0xae, 0xc0), IN_64 | NEVER, UD, {0}},
	{"wrfsbase", B5(0xf3, 0x48, 0x0f, 0xae, 0xd3), IN_64 | NEVER, UD, {0}},
	{"wrgsbase", B5(0xf3, 0x48, 0x0f, 0xae, 0xdb), IN_64 | NEVER, UD, {0}},
	{"rdfsbase, on", B5(0xf3, 0x48, 0x0f, 0xae, 0xc0), IN_64 | ENABLE,
		END_OK, {0}},
	{"wrfsbase, on", B5(0xf3, 0x48, 0x0f, 0xae, 0xd3), IN_64 | ENABLE,
		END_OK, {0}},
	{"rdgsbase, on", B5(0xf3, 0x48, 0x0f, 0xae, 0xc8), IN_64 | ENABLE,
		END_OK, {0}},
	{"wrgsbase, on", B5(0xf3, 0x48, 0x0f, 0xae, 0xdb), IN_64 | ENABLE,
		END_OK, {0}},
	{"rdfsbase, 32 bits", B4(0xf3, 0x0f, 0xae, 0xc0), IN_32 | ENABLE, UD,
		{0}},
	{"sgdt", B3(0x0f, 0x01, 0x03), BOTH, END_OK, {0}},
	{"sidt", B3(0x0f, 0x01, 0x0b), BOTH, END_OK, {0}},
	{"sldt", B3(0x0f, 0x00, 0xc0), BOTH, END_OK, {0}},
	{"str", B3(0x0f, 0x00, 0xc8), BOTH, END_OK, {0}},
	{"smsw", B3(0x0f, 0x01, 0xe0), BOTH, END_OK, {0}},
	{"sgdt, UMIP", B3(0x0f, 0x01, 0x03), BOTH | UMIP, GP, {0}},
	{"sidt, UMIP", B3(0x0f, 0x01, 0x0b), BOTH | UMIP, GP, {0}},
	{"sldt, UMIP", B3(0x0f, 0x00, 0xc0), BOTH | UMIP, GP, {0}},
	{"str, UMIP", B3(0x0f, 0x00, 0xc8), BOTH | UMIP, GP, {0}},
	{"smsw, UMIP", B3(0x0f, 0x01, 0xe0), BOTH | UMIP, GP, {0}},
	{"lgdt", B3(0x0f, 0x01, 0x13), BOTH, GP, {0}},
	{"lidt", B3(0x0f, 0x01, 0x1b), BOTH, GP, {0}},
	{"lldt", B3(0x0f, 0x00, 0xd0), BOTH, GP, {0}},
	{"ltr", B3(0x0f, 0x00, 0xd8), BOTH, GP, {0}},
	{"lmsw", B3(0x0f, 0x01, 0xf0), BOTH, GP, {0}},
	{"clts", B2(0x0f, 0x06), BOTH, GP, {0}},
	{"mov eax, cr0", B3(0x0f, 0x20, 0xc0), BOTH, GP, {0}},
	{"mov cr3, eax", B3(0x0f, 0x22, 0xd8), BOTH, GP, {0}},
	{"mov cr4, eax", B3(0x0f, 0x22, 0xe0), BOTH, GP, {0}},
	{"mov eax, dr7", B3(0x0f, 0x21, 0xf8), BOTH, GP, {0}},
	{"mov dr7, eax", B3(0x0f, 0x23, 0xf8), BOTH, GP, {0}},
	{"invlpg", B3(0x0f, 0x01, 0x3b), BOTH, GP, {0}},
	{"invpcid", B5(0x66, 0x0f, 0x38, 0x82, 0x03), BOTH | NEEDS, GP,
		{7, 0, 1, 10}},
	{"wbinvd", B2(0x0f, 0x09), BOTH, GP, {0}},
	{"wbnoinvd", B3(0xf3, 0x0f, 0x09), BOTH, GP, {0}},
	{"invd", B2(0x0f, 0x08), BOTH, GP, {0}},
	{"hlt", B1(0xf4), BOTH, GP, {0}},
	{"cli", B1(0xfa), BOTH, GP, {0}},
	{"sti", B1(0xfb), BOTH, GP, {0}},
	{"in al, 0x60", B2(0xe4, 0x60), BOTH, GP, {0}},
	{"in eax, dx", B1(0xed), BOTH, GP, {0}},
	{"out 0x60, al", B2(0xe6, 0x60), BOTH, GP, {0}},
	{"out dx, eax", B1(0xef), BOTH, GP, {0}},
	{"insb", B1(0x6c), BOTH, GP, {0}},
	{"outsd", B1(0x6f), BOTH, GP, {0}},
	{"rdmsr", B2(0x0f, 0x32), BOTH, GP, {0}},
	{"wrmsr", B2(0x0f, 0x30), BOTH, GP, {0}},
	{"swapgs", B3(0x0f, 0x01, 0xf8), IN_64, GP, {0}},
	{"swapgs, 32 bits", B3(0x0f, 0x01, 0xf8), IN_32, UD, {0}},
	{"rsm", B2(0x0f, 0xaa), BOTH, UD, {0}},
	{"ud0", B3(0x0f, 0xff, 0xc0), BOTH, UD, {0}},
	{"ud1", B3(0x0f, 0xb9, 0xc0), BOTH, UD, {0}},
	{"ud2", B2(0x0f, 0x0b), BOTH, UD, {0}},
	{"monitor", B3(0x0f, 0x01, 0xc8), BOTH, UD, {0}},
	{"mwait", B3(0x0f, 0x01, 0xc9), BOTH, UD, {0}},
	{"monitorx", B3(0x0f, 0x01, 0xfa), BOTH, UD, {0}},
	{"mwaitx", B3(0x0f, 0x01, 0xfb), BOTH, UD, {0}},
	{"umonitor", B4(0xf3, 0x0f, 0xae, 0xf0), BOTH, UD, {0}},
	{"umwait", B4(0xf2, 0x0f, 0xae, 0xf0), BOTH, UD, {0}},
	{"clac", B3(0x0f, 0x01, 0xca), BOTH, UD, {0}},
	{"stac", B3(0x0f, 0x01, 0xcb), BOTH, UD, {0}},
	{"encls", B3(0x0f, 0x01, 0xcf), BOTH, UD, {0}},
	{"enclu", B3(0x0f, 0x01, 0xd7), BOTH, UD, {0}},
	{"enclv", B3(0x0f, 0x01, 0xc0), BOTH, UD, {0}},
	{"pconfig", B3(0x0f, 0x01, 0xc5), BOTH, UD, {0}},
	{"vmfunc", B3(0x0f, 0x01, 0xd4), BOTH, UD, {0}},
	{"vmlaunch", B3(0x0f, 0x01, 0xc2), BOTH, UD, {0}},
	{"vmresume", B3(0x0f, 0x01, 0xc3), BOTH, UD, {0}},
	{"vmxoff", B3(0x0f, 0x01, 0xc4), BOTH, UD, {0}},
	{"vmxon", B4(0xf3, 0x0f, 0xc7, 0x33), BOTH, UD, {0}},
	{"vmread", B3(0x0f, 0x78, 0xc0), BOTH, UD, {0}},
	{"vmwrite", B3(0x0f, 0x79, 0xc0), BOTH, UD, {0}},
	{"vmrun", B3(0x0f, 0x01, 0xd8), BOTH, UD, {0}},
	{"vmload", B3(0x0f, 0x01, 0xda), BOTH, UD, {0}},
	{"vmsave", B3(0x0f, 0x01, 0xdb), BOTH, UD, {0}},
	{"stgi", B3(0x0f, 0x01, 0xdc), BOTH, UD, {0}},
	{"clgi", B3(0x0f, 0x01, 0xdd), BOTH, UD, {0}},
	{"skinit", B3(0x0f, 0x01, 0xde), BOTH, UD, {0}},
	{"invlpga", B3(0x0f, 0x01, 0xdf), BOTH, UD, {0}},
	{"invlpgb", B3(0x0f, 0x01, 0xfe), BOTH, UD, {0}},
	{"tlbsync", B3(0x0f, 0x01, 0xff), BOTH, UD, {0}},
	{"rdpru", B3(0x0f, 0x01, 0xfd), BOTH, UD, {0}},
	{"getsec", B2(0x0f, 0x37), BOTH, UD, {0}},
	{"xtest", B3(0x0f, 0x01, 0xd6), BOTH, UD, {0}},
	{"xend", B3(0x0f, 0x01, 0xd5), BOTH, UD, {0}},
	{"rdpkru", B3(0x0f, 0x01, 0xee), BOTH, UD, {0}},
	{"wrpkru", B3(0x0f, 0x01, 0xef), BOTH, UD, {0}},
	{"cldemote", B3(0x0f, 0x1c, 0x03), BOTH, END_OK, {0}},
	{"endbr64", B4(0xf3, 0x0f, 0x1e, 0xfa), BOTH, END_OK, {0}},
	{"rdsspq", B5(0xf3, 0x48, 0x0f, 0x1e, 0xc8), IN_64, END_OK, {0}},
	{"incssp", B4(0xf3, 0x0f, 0xae, 0xe8), BOTH, UD, {0}},
	{"setssbsy", B4(0xf3, 0x0f, 0x01, 0xe8), BOTH, UD, {0}},
	{"saveprevssp", B4(0xf3, 0x0f, 0x01, 0xea), BOTH, UD, {0}},
	{"uiret", B4(0xf3, 0x0f, 0x01, 0xec), BOTH, UD, {0}},
	{"stui", B4(0xf3, 0x0f, 0x01, 0xef), BOTH, UD, {0}},
	{"senduipi", B4(0xf3, 0x0f, 0xc7, 0xf0), BOTH, UD, {0}},
	{"serialize", B3(0x0f, 0x01, 0xe8), BOTH | NEEDS, END_OK,
		{7, 0, 3, 14}},
	{"xsusldtrk", B4(0xf2, 0x0f, 0x01, 0xe8), BOTH, UD, {0}},
	{"enqcmd", B5(0xf2, 0x0f, 0x38, 0xf8, 0x03), BOTH, UD, {0}},
	{"enqcmds", B5(0xf3, 0x0f, 0x38, 0xf8, 0x03), BOTH, UD, {0}},
	{"movdir64b", B5(0x66, 0x0f, 0x38, 0xf8, 0x03), BOTH, UD, {0}},
	{"movdiri", B4(0x0f, 0x38, 0xf9, 0x03), BOTH, UD, {0}},
	{"loadiwkey", B5(0xf3, 0x0f, 0x38, 0xdc, 0xc0), BOTH, UD, {0}},
	{"ptwrite", B4(0xf3, 0x0f, 0xae, 0xe0), BOTH, UD, {0}},
	{"tpause", B4(0x66, 0x0f, 0xae, 0xf0), BOTH, UD, {0}},
	{"clzero", B3(0x0f, 0x01, 0xfc), BOTH | NEEDS, END_OK,
		{0x80000008, 0, 1, 0}},
	{"rdrand eax", B3(0x0f, 0xc7, 0xf0), BOTH | NEEDS, END_OK,
		{1, 0, 2, 30}},
	{"rdseed eax", B3(0x0f, 0xc7, 0xf8), BOTH | NEEDS, END_OK,
		{7, 0, 1, 18}},
	{"mov ss, 0x27", B2(0x8e, 0xd0), BOTH, GP, {0}},
	{"pause", B2(0xf3, 0x90), BOTH, END_OK, {0}},
	{"clflush", B3(0x0f, 0xae, 0x3b), BOTH, END_OK, {0}},
};
// clang-format on

/* ---- the machine ---- */

#define DATA	0x100000u
#define LSTAR	0x6000u
#define END	(TV_CODE + 16)
#define FS_BASE 0x12345000ull

static void set_registers(struct vcpu *v, bool is_64)
{
	memset(v->gpr, 0, sizeof(v->gpr));
	v->gpr[X86_RAX] = BAIT;
	v->gpr[X86_RBX] = DATA;
	v->gpr[X86_RDX] = 0x60;
	v->gpr[X86_RSI] = v->gpr[X86_RDI] = DATA + 0x100;
	v->gpr[X86_RSP] = TV_STACK;
	v->rip = TV_CODE;
	v->segs[X86_FS].base = v->segs[X86_GS].base = is_64 ? FS_BASE : 0;
}

/* Ring 3, IOPL 0, no bitmap of ports. flags of the row. */
static void set_mode(struct testvm *t, bool is_64, u32 flags)
{
	struct vcpu *v = t->v;

	tier_long(t, is_64 ? TIER_CS64_3 : TV_CS3);
	v->cr4 &= ~(X86_CR4_OSXSAVE | X86_CR4_FSGSBASE | X86_CR4_UMIP);
	v->efer &= ~X86_EFER_SCE;
	v->xcr0 = 7;
	v->cr4 |= X86_CR4_OSFXSR;
	if (flags & ENABLE) {
		v->cr4 |= X86_CR4_OSXSAVE | X86_CR4_FSGSBASE;
		v->efer |= X86_EFER_SCE;
	}
	if (flags & UMIP)
		v->cr4 |= X86_CR4_UMIP;
	st_le16(t->ram + v->tr.base + 0x66, 0xffff); /* no bitmap */
	v->star = 0x0018000800000000;
	v->lstar = LSTAR;
	v->tsc_aux = 0x1234;
	v->sysenter_cs = 0;
	soft_set_rflags(v, 2);
	set_registers(v, is_64);
	soft_mode_changed(v);
}

static int run_bytes(struct testvm *t, const u8 *bytes, u32 n, enum tier tier)
{
	u8 b[18];

	memset(b, 0x90, sizeof(b));
	memcpy(b, bytes, n);
	b[16] = 0x0f;
	b[17] = 0x0b;
	tier_load(t, TV_CODE, b, sizeof(b));
	return tier_run(t->v, tier);
}

static unsigned complaints;

static void complain(const char *name, bool is_64, enum tier tier, int vector,
		     const struct vcpu *v)
{
	fprintf(stderr, "%s, %s, %s: vector %d error %#x at %#llx\n", name,
		is_64 ? "64-bit" : "compatibility", tier_names[tier], vector,
		v->exc.error, (unsigned long long)v->rip);
	complaints++;
}

static bool is_wanted(const struct testvm *t, const struct user_row *r,
		      bool is_64)
{
	bool is_amd = t->vm->is_amd;

	return r->flags & (is_64 ? IN_64 : IN_32) &&
	       !(r->flags & IS_AMD && !is_amd) &&
	       !(r->flags & IS_INTEL && is_amd);
}

static void check_row(struct testvm *t, const struct user_row *r, bool is_64,
		      enum tier tier)
{
	struct vcpu *v = t->v;
	int want = r->want, vector;
	bool ok;

	if (r->flags & NEEDS && !soft_cpuid_has(v, r->cpuid.leaf, r->cpuid.sub,
						r->cpuid.reg, r->cpuid.bit))
		want = UD;
	set_mode(t, is_64, r->flags);
	vector = run_bytes(t, r->bytes, r->n, tier);
	if (want == END_OK)
		ok = vector == UD && v->rip == END && v->cpl == 3;
	else if (want == LSTAR_OK)
		ok = vector == UD && v->rip == LSTAR && v->cpl == 0 &&
		     v->gpr[X86_RCX] == TV_CODE + 2;
	else
		ok = vector == want && v->cpl == 3 && !v->exc.is_external &&
		     v->rip == TV_CODE + (vector == X86_VEC_DB ? r->n : 0u);
	if (want == GP && strncmp(r->name, "mov ss", 6))
		ok &= v->exc.error == 0;
	if (!ok)
		complain(r->name, is_64, tier, vector, v);
	if (!tier_host_is_own())
		complain("host state", is_64, tier, vector, v);
}

static void check_table(struct testvm *t)
{
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		for (int is_64 = 0; is_64 < 2; is_64++)
			for (enum tier tier = 0; tier < TIERS; tier++)
				if (is_wanted(t, &rows[i], is_64))
					check_row(t, &rows[i], is_64, tier);
}

/* ---- the child ---- */

static int run_confined(void (*fn)(struct testvm *t), struct testvm *t)
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (!pid) {
		install_filter();
		fn(t);
		_exit(complaints ? 1 : 0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static struct testvm *user_new(void)
{
	struct testvm *t = tier_new();

	tier_load(t, LSTAR, "\x0f\x0b", 2);
	return t;
}

static void call_natively(struct testvm *t)
{
	(void)t;
	__asm__ volatile("syscall" ::"a"(BAIT) : "rcx", "r11", "memory");
}

static void call_natively_by_int(struct testvm *t)
{
	(void)t;
	__asm__ volatile("int $0x80" ::"a"(BAIT) : "memory");
}

static void hostile_39_the_filter_sees_a_call_of_the_guest_s(void **state)
{
	int status = run_confined(call_natively, NULL);

	(void)state;
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGSYS);
	status = run_confined(call_natively_by_int, NULL);
	assert_true(WIFSIGNALED(status)); /* SIGSEGV without 32-bit calls */
}

static void expect_clean(int status)
{
	if (WIFSIGNALED(status))
		fail_msg("the child died of signal %d", WTERMSIG(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void hostile_39_user_code_gets_what_the_architecture_says(void **state)
{
	struct testvm *t = user_new();

	(void)state;
	expect_clean(run_confined(check_table, t));
	tv_free(t);
}

/* ---- values ---- */

#define REG(r) offsetof(struct vcpu, gpr[r])

/* What one instruction leaves: in a register, or in memory at DATA. */
struct value_row {
	const char *name;
	u8 bytes[8], n;
	size_t reg; /* in struct vcpu; 0: memory */
	u64 mask, want;
};

static void check_value(struct testvm *t, const struct value_row *r,
			enum tier tier)
{
	struct vcpu *v = t->v;
	u64 got;
	int vector;

	set_mode(t, true, ENABLE);
	v->ldtr.sel = 0x50;
	vector = run_bytes(t, r->bytes, r->n, tier);
	got = r->reg ? ld_le64((u8 *)v + r->reg) : ld_le64(t->ram + DATA);
	if (vector != UD || v->rip != END || (got & r->mask) != r->want) {
		fprintf(stderr, "%#llx, not %#llx: ", (unsigned long long)got,
			(unsigned long long)r->want);
		complain(r->name, true, tier, vector, v);
	}
}

#define ALL (~0ull)

static void check_values(struct testvm *t)
{
	const struct value_row values[] = {
		{"vmcall", B3(0x0f, 0x01, 0xc1), REG(X86_RAX), ALL, ALL},
		{"vmmcall", B3(0x0f, 0x01, 0xd9), REG(X86_RAX), ALL, ALL},
		{"sgdt", B3(0x0f, 0x01, 0x03), 0, ALL, TV_GDT << 16 | 255},
		{"sidt", B3(0x0f, 0x01, 0x0b), 0, ALL, TV_IDT << 16 | 511},
		{"sldt", B3(0x0f, 0x00, 0xc0), REG(X86_RAX), 0xffff, 0x50},
		{"str", B3(0x0f, 0x00, 0xc8), REG(X86_RAX), 0xffff, TV_TSS},
		{"smsw", B4(0x48, 0x0f, 0x01, 0xe0), REG(X86_RAX), ALL,
		 t->v->cr0},
		{"xgetbv", B3(0x0f, 0x01, 0xd0), REG(X86_RAX), ALL, 7},
		{"rdtscp", B3(0x0f, 0x01, 0xf9), REG(X86_RCX), ALL, 0x1234},
		{"rdfsbase", B5(0xf3, 0x48, 0x0f, 0xae, 0xc0), REG(X86_RAX),
		 ALL, FS_BASE},
		{"rdgsbase", B5(0xf3, 0x48, 0x0f, 0xae, 0xc8), REG(X86_RAX),
		 ALL, FS_BASE},
		{"wrfsbase", B5(0xf3, 0x48, 0x0f, 0xae, 0xd3),
		 offsetof(struct vcpu, segs[X86_FS].base), ALL, DATA},
		{"wrgsbase", B5(0xf3, 0x48, 0x0f, 0xae, 0xdb),
		 offsetof(struct vcpu, segs[X86_GS].base), ALL, DATA},
	};

	for (size_t i = 0; i < ARRAY_SIZE(values); i++)
		for (enum tier tier = 0; tier < TIERS; tier++)
			check_value(t, &values[i], tier);
}

static void check_leaves(struct testvm *t)
{
	static const u32 leaves[] = {0,		 1,	     7,
				     0xd,	 0x40000000, 0x40000001,
				     0x80000000, 0x80000001, 0x12345678};
	struct vcpu *v = t->v;

	for (size_t i = 0; i < ARRAY_SIZE(leaves); i++)
		for (enum tier tier = 0; tier < TIERS; tier++) {
			u32 want[4];
			int vector;

			set_mode(t, true, ENABLE);
			soft_cpuid(v, leaves[i], 0, want);
			v->gpr[X86_RAX] = leaves[i];
			vector =
				run_bytes(t, (const u8[]){0x0f, 0xa2}, 2, tier);
			if (v->gpr[X86_RAX] != want[0] ||
			    v->gpr[X86_RBX] != want[1] ||
			    v->gpr[X86_RCX] != want[2] ||
			    v->gpr[X86_RDX] != want[3])
				complain("cpuid", true, tier, vector, v);
		}
}

static void check_all_values(struct testvm *t)
{
	set_mode(t, true, ENABLE);
	check_values(t);
	check_leaves(t);
}

static void hostile_39_values_are_the_guest_s_own(void **state)
{
	struct testvm *t = user_new();

	(void)state;
	expect_clean(run_confined(check_all_values, t));
	tv_free(t);
}

/* ---- time-stamp counter and its switch ---- */

static void check_tsd(struct testvm *t)
{
	for (enum tier tier = 0; tier < TIERS; tier++) {
		u64 first, then;
		int vector;

		set_mode(t, true, ENABLE);
		run_bytes(t, (const u8[]){0x0f, 0x31}, 2, tier);
		first = t->v->gpr[X86_RAX] | t->v->gpr[X86_RDX] << 32;
		then = soft_tsc(t->v);
		if (first > then || then - first > 1ull << 40)
			complain("rdtsc", true, tier, 0, t->v);
		set_mode(t, true, ENABLE);
		t->v->cr4 |= X86_CR4_TSD;
		vector = run_bytes(t, (const u8[]){0x0f, 0x31}, 2, tier);
		if (vector != GP)
			complain("rdtsc, TSD", true, tier, vector, t->v);
		t->v->cr4 &= ~X86_CR4_TSD;
	}
}

static void hostile_39_rdtsc_is_the_guest_s_and_obeys_tsd(void **state)
{
	struct testvm *t = user_new();

	(void)state;
	expect_clean(run_confined(check_tsd, t));
	tv_free(t);
}

/* ---- SMAP's instructions, where they are ---- */

static void check_smap(struct testvm *t)
{
	static const u8 bytes[][3] = {{0x0f, 0x01, 0xca}, {0x0f, 0x01, 0xcb}};

	for (unsigned i = 0; i < 4; i++) {
		int vector;

		set_mode(t, true, 0);
		vector = run_bytes(t, bytes[i / 2], 3, i % 2);
		if (vector != UD || t->v->rip != TV_CODE)
			complain("clac, stac", true, i % 2, vector, t->v);
		tier_long(t, TIER_CS64);
		set_registers(t->v, true);
		vector = run_bytes(t, bytes[i / 2], 3, i % 2);
		if (vector != UD || t->v->rip != END)
			complain("ring 0", true, i % 2, vector, t->v);
	}
}

static void hostile_39_clac_and_stac_are_undefined_in_ring_3(void **state)
{
	struct testvm *t = user_new();
	struct kvm_cpuid_entry2 *e = NULL;

	(void)state;
	for (u32 i = 0; i < t->vm->cpuid->nent; i++)
		if (t->vm->cpuid->entries[i].function == 7 &&
		    !t->vm->cpuid->entries[i].index)
			e = &t->vm->cpuid->entries[i];
	assert_non_null(e);
	e->ebx |= BIT32(20);
	t->v->features = x86_cpuid_isa(t->vm->cpuid);
	expect_clean(run_confined(check_smap, t));
	e->ebx &= ~BIT32(20);
	tv_free(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			hostile_39_the_filter_sees_a_call_of_the_guest_s),
		cmocka_unit_test(
			hostile_39_user_code_gets_what_the_architecture_says),
		cmocka_unit_test(hostile_39_values_are_the_guest_s_own),
		cmocka_unit_test(
			hostile_39_clac_and_stac_are_undefined_in_ring_3),
		cmocka_unit_test(hostile_39_rdtsc_is_the_guest_s_and_obeys_tsd),
	};

	return test_run("hostile_user", tests);
}
