/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY
 *
 * A /dev/kvm that opens is not yet a KVM that boots a kernel: nested and
 * emulated ones may lack long mode, lose exceptions, or run a thousand times
 * too slowly. So the probe runs a guest: 64-bit, paged, with a loop over
 * memory, CPUID, an MSR, a #PF through an IDT, MMIO and port I/O, and checks
 * every result and the time.
 *
 * The guest's memory (64 KiB at 0):
 *
 *	1000 PML4   2000 PDPT   3000 PD: one 2 MiB page, identity
 *	4000 IDT    5000 GDT    6000 code   7000 #PF handler   8000 results
 *	9000 PD for the MMIO page at c0000000   f000 stack top
 *
 * A guest that does not come back is ended by a timer that signals this
 * thread; the handler does nothing, and KVM_RUN returns -EINTR. The timer
 * repeats, so a signal just before KVM_RUN does not lose the watchdog. The
 * signal's disposition is restored.
 */
#include "kvm/kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "x86/regs.h"

#define GUEST_BYTES 0x10000u
#define LIMIT_NS    200000000ull
#define LOOPS	    1000000u
#define MMIO_GPA    0xc0000000ull
#define PORT	    0x510
#define SUM	    0x8000
#define SEEN_PF	    0x8010 /* how many #PF */
#define SEEN_CR2    0x8018
#define SEEN_MSR    0x8020
#define SEEN_CPUID  0x8028
#define SEEN_MMIO   0x8030

struct probe {
	struct engine_probe *out;
	int kvm_fd, vm_fd, vcpu_fd;
	u8 *mem;
	struct kvm_run *run;
	size_t run_bytes;
	u64 start_ns;
	bool saw_mmio_write, saw_mmio_read;
	bool is_signal_set, has_timer;
	timer_t timer;
	struct sigaction old_action;
};

static bool PRINTF_LIKE(2, 3) fail(struct probe *p, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(p->out->reason, sizeof(p->out->reason), fmt, ap);
	va_end(ap);
	return false;
}

static bool is_late(const struct probe *p)
{
	return clock_mono_ns() - p->start_ns >= LIMIT_NS;
}

/* ---- watchdog ---- */

static void on_alarm(int sig)
{
	(void)sig; /* only to interrupt KVM_RUN */
}

static bool watchdog_start(struct probe *p)
{
	struct sigaction sa = {.sa_handler = on_alarm};
	struct sigevent ev = {.sigev_notify = SIGEV_THREAD_ID,
			      .sigev_signo = SIGRTMAX - 1};
	struct itimerspec its = {.it_value.tv_nsec = (long)LIMIT_NS,
				 .it_interval.tv_nsec = 5000000};

	ev._sigev_un._tid = (pid_t)syscall(SYS_gettid);
	sigaction(SIGRTMAX - 1, &sa, &p->old_action);
	p->is_signal_set = true;
	if (timer_create(CLOCK_MONOTONIC, &ev, &p->timer) < 0)
		return fail(p, "no watchdog timer: %s", strerror(errno));
	p->has_timer = true;
	timer_settime(p->timer, 0, &its, NULL);
	return true;
}

static void watchdog_stop(struct probe *p)
{
	if (p->has_timer)
		timer_delete(p->timer);
	if (p->is_signal_set)
		sigaction(SIGRTMAX - 1, &p->old_action, NULL);
}

/* ---- the guest ---- */

// clang-format off
static const u8 guest_code[] = {
	0xb9, 0x40, 0x42, 0x0f, 0x00,		/* mov ecx, 1000000 */
	0x48, 0x01, 0x0c, 0x25, 0x00, 0x80, 0x00, 0x00,
						/* add [0x8000], rcx */
	0xff, 0xc9,				/* dec ecx */
	0x75, 0xf4,				/* jnz to the add */
	0x31, 0xc0, 0x0f, 0xa2,			/* xor eax, eax; cpuid */
	0x89, 0x1c, 0x25, 0x28, 0x80, 0x00, 0x00, /* mov [0x8028], ebx */
	0xb9, 0x82, 0x00, 0x00, 0xc0,		/* mov ecx, LSTAR */
	0xb8, 0x78, 0x56, 0x34, 0x12,		/* mov eax, 0x12345678 */
	0x31, 0xd2, 0x0f, 0x30,			/* xor edx, edx; wrmsr */
	0x31, 0xc0, 0x0f, 0x32,			/* xor eax, eax; rdmsr */
	0x89, 0x04, 0x25, 0x20, 0x80, 0x00, 0x00, /* mov [0x8020], eax */
	0xbb, 0x00, 0x00, 0x00, 0x40,		/* mov ebx, 0x40000000 */
	0x48, 0x8b, 0x03,			/* mov rax, [rbx]: #PF */
	0xbb, 0x00, 0x00, 0x00, 0xc0,		/* mov ebx, 0xc0000000 */
	0xc7, 0x03, 0xef, 0xbe, 0xad, 0xde,	/* mov dword [rbx], … */
	0x8b, 0x43, 0x04,			/* mov eax, [rbx+4] */
	0x89, 0x04, 0x25, 0x30, 0x80, 0x00, 0x00, /* mov [0x8030], eax */
	0x66, 0xba, 0x10, 0x05,			/* mov dx, 0x510 */
	0xb0, 0x5a, 0xee,			/* mov al, 0x5a; out dx, al */
	0xf4,					/* hlt */
};
static const u8 guest_pf_handler[] = {
	0x50,					/* push rax */
	0x0f, 0x20, 0xd0,			/* mov rax, cr2 */
	0x48, 0x89, 0x04, 0x25, 0x18, 0x80, 0x00, 0x00,
						/* mov [0x8018], rax */
	0xff, 0x04, 0x25, 0x10, 0x80, 0x00, 0x00, /* inc dword [0x8010] */
	0x58,					/* pop rax */
	0x48, 0x83, 0xc4, 0x08,			/* add rsp, 8: error code */
	0x48, 0x83, 0x04, 0x24, 0x03,		/* add qword [rsp], 3 */
	0x48, 0xcf,				/* iretq */
};
// clang-format on

static void guest_build(u8 *m)
{
	u8 *gate = m + 0x4000 + X86_VEC_PF * 16;

	st_le64(m + 0x1000, 0x2000 | 3);
	st_le64(m + 0x2000, 0x3000 | 3);
	st_le64(m + 0x2000 + 3 * 8, 0x9000 | 3);
	st_le64(m + 0x3000, 0x83);
	st_le64(m + 0x9000, MMIO_GPA | 0x83);
	st_le64(m + 0x5008, 0x00209b0000000000ull); /* 64-bit code */
	st_le64(m + 0x5010, 0x0000930000000000ull); /* data */
	st_le16(gate, 0x7000);
	st_le16(gate + 2, 8);
	st_le16(gate + 4, 0x8e00);
	memcpy(m + 0x6000, guest_code, sizeof(guest_code));
	memcpy(m + 0x7000, guest_pf_handler, sizeof(guest_pf_handler));
}

/* ---- set-up ---- */

static const struct {
	int cap;
	const char *name;
} caps[] = {
	{KVM_CAP_USER_MEMORY, "user memory"},
	{KVM_CAP_SPLIT_IRQCHIP, "a split irqchip"},
	{KVM_CAP_EXT_CPUID, "CPUID tables"},
	{KVM_CAP_XSAVE, "XSAVE state"},
	{KVM_CAP_XCRS, "XCR0"},
	{KVM_CAP_VCPU_EVENTS, "vCPU events"},
	{KVM_CAP_DEBUGREGS, "debug registers"},
	{KVM_CAP_SREGS2, "KVM_GET_SREGS2"},
	{KVM_CAP_SIGNAL_MSI, "MSI injection"},
	{KVM_CAP_IMMEDIATE_EXIT, "immediate exit"},
};

static bool open_kvm(struct probe *p)
{
	int version;

	p->kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (p->kvm_fd < 0)
		return fail(p, "/dev/kvm: %s", strerror(errno));
	version = ioctl(p->kvm_fd, KVM_GET_API_VERSION, 0);
	if (version != KVM_API_VERSION)
		return fail(p, "KVM API version %d, not %d", version,
			    KVM_API_VERSION);
	for (size_t i = 0; i < ARRAY_SIZE(caps); i++)
		if (ioctl(p->kvm_fd, KVM_CHECK_EXTENSION, caps[i].cap) <= 0)
			return fail(p, "KVM lacks %s", caps[i].name);
	return true;
}

static bool make_vm(struct probe *p)
{
	struct kvm_userspace_memory_region slot = {
		.memory_size = GUEST_BYTES,
	};

	p->vm_fd = ioctl(p->kvm_fd, KVM_CREATE_VM, 0);
	if (p->vm_fd < 0)
		return fail(p, "KVM_CREATE_VM: %s", strerror(errno));
	p->mem = mmap(NULL, GUEST_BYTES, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p->mem == MAP_FAILED) {
		p->mem = NULL;
		return fail(p, "no memory for the probe's guest");
	}
	guest_build(p->mem);
	slot.userspace_addr = (u64)(uintptr_t)p->mem;
	/* Intel before unrestricted guests needs a place for a TSS. */
	ioctl(p->vm_fd, KVM_SET_TSS_ADDR, 0xfffbd000ul);
	if (ioctl(p->vm_fd, KVM_SET_USER_MEMORY_REGION, &slot) < 0)
		return fail(p, "KVM memory slot: %s", strerror(errno));
	return true;
}

static bool make_vcpu(struct probe *p)
{
	int n;

	p->vcpu_fd = ioctl(p->vm_fd, KVM_CREATE_VCPU, 0);
	if (p->vcpu_fd < 0)
		return fail(p, "KVM_CREATE_VCPU: %s", strerror(errno));
	n = ioctl(p->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (n < (int)sizeof(*p->run))
		return fail(p, "KVM's run area is too small");
	p->run_bytes = (size_t)n;
	p->run = mmap(NULL, p->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
		      p->vcpu_fd, 0);
	if (p->run == MAP_FAILED) {
		p->run = NULL;
		return fail(p, "KVM run area: %s", strerror(errno));
	}
	return true;
}

static bool set_cpuid(struct probe *p)
{
	union {
		struct kvm_cpuid2 head;
		u8 bytes[sizeof(struct kvm_cpuid2) +
			 256 * sizeof(struct kvm_cpuid_entry2)];
	} table;

	memset(&table, 0, sizeof(table));
	table.head.nent = 256;
	if (ioctl(p->kvm_fd, KVM_GET_SUPPORTED_CPUID, &table) < 0)
		return fail(p, "KVM CPUID table: %s", strerror(errno));
	if (ioctl(p->vcpu_fd, KVM_SET_CPUID2, &table) < 0)
		return fail(p, "KVM refuses its own CPUID table: %s",
			    strerror(errno));
	return true;
}

static bool set_registers(struct probe *p)
{
	const struct kvm_segment code = {
		.selector = 8,
		.type = 11,
		.present = 1,
		.s = 1,
		.l = 1,
		.g = 1,
		.limit = 0xffffffff,
	};
	const struct kvm_segment seg = {
		.selector = 16,
		.type = 3,
		.present = 1,
		.s = 1,
		.db = 1,
		.g = 1,
		.limit = 0xffffffff,
	};
	struct kvm_regs regs = {.rip = 0x6000, .rsp = 0xf000, .rflags = 2};
	struct kvm_sregs s;

	if (ioctl(p->vcpu_fd, KVM_GET_SREGS, &s) < 0)
		return fail(p, "KVM_GET_SREGS: %s", strerror(errno));
	s.cs = code;
	s.ds = s.es = s.ss = s.fs = s.gs = seg;
	s.gdt = (struct kvm_dtable){.base = 0x5000, .limit = 23};
	s.idt = (struct kvm_dtable){.base = 0x4000, .limit = 0xfff};
	s.cr0 = X86_CR0_PE | X86_CR0_PG | X86_CR0_ET | X86_CR0_NE | X86_CR0_WP |
		X86_CR0_MP;
	s.cr3 = 0x1000;
	s.cr4 = X86_CR4_PAE;
	s.efer = X86_EFER_LME | X86_EFER_LMA;
	if (ioctl(p->vcpu_fd, KVM_SET_SREGS, &s) < 0)
		return fail(p, "KVM refuses long mode: %s", strerror(errno));
	if (ioctl(p->vcpu_fd, KVM_SET_REGS, &regs) < 0)
		return fail(p, "KVM_SET_REGS: %s", strerror(errno));
	return true;
}

/* ---- running ---- */

static bool serve_mmio(struct probe *p)
{
	struct kvm_run *r = p->run;

	if (r->mmio.is_write && r->mmio.phys_addr == MMIO_GPA &&
	    r->mmio.len == 4 && ld_le32(r->mmio.data) == 0xdeadbeef) {
		p->saw_mmio_write = true;
		return true;
	}
	if (!r->mmio.is_write && r->mmio.phys_addr == MMIO_GPA + 4 &&
	    r->mmio.len == 4) {
		st_le32(r->mmio.data, 0xcafe0042);
		p->saw_mmio_read = true;
		return true;
	}
	return fail(p, "KVM reports a wrong MMIO access");
}

static bool is_the_end(const struct probe *p)
{
	const struct kvm_run *r = p->run;
	u64 at = r->io.data_offset;

	return r->io.direction == KVM_EXIT_IO_OUT && r->io.port == PORT &&
	       r->io.size == 1 && r->io.count == 1 && at < p->run_bytes &&
	       ((const u8 *)r)[at] == 0x5a;
}

static bool run_guest(struct probe *p)
{
	/* The guest makes three exits; more are a KVM that goes in circles. */
	for (int i = 0; i < 64 && !is_late(p); i++) {
		if (ioctl(p->vcpu_fd, KVM_RUN, 0) < 0) {
			if (errno == EINTR || errno == EAGAIN)
				continue;
			return fail(p, "KVM_RUN: %s", strerror(errno));
		}
		switch (p->run->exit_reason) {
		case KVM_EXIT_MMIO:
			if (!serve_mmio(p))
				return false;
			break;
		case KVM_EXIT_IO:
			return is_the_end(p) ||
			       fail(p, "KVM reports a wrong port access");
		case KVM_EXIT_INTERNAL_ERROR:
			return fail(p, "KVM cannot run its guest (suberror %u)",
				    p->run->internal.suberror);
		case KVM_EXIT_INTR:
			break;
		default:
			return fail(p, "KVM's guest ends with exit reason %u",
				    p->run->exit_reason);
		}
	}
	return fail(p,
		    "KVM is too slow: a million loop iterations take more "
		    "than %u ms",
		    (u32)(LIMIT_NS / 1000000));
}

static bool check_results(struct probe *p)
{
	const u8 *m = p->mem;

	if (ld_le64(m + SUM) != (u64)LOOPS * (LOOPS + 1) / 2)
		return fail(p, "KVM's guest computes a wrong sum");
	if (ld_le32(m + SEEN_CPUID) == 0)
		return fail(p, "CPUID gives nothing in KVM's guest");
	if (ld_le32(m + SEEN_MSR) != 0x12345678)
		return fail(p, "an MSR does not keep its value under KVM");
	if (ld_le32(m + SEEN_PF) != 1 || ld_le64(m + SEEN_CR2) != 0x40000000)
		return fail(p, "a page fault goes wrong under KVM");
	if (!p->saw_mmio_write || !p->saw_mmio_read ||
	    ld_le32(m + SEEN_MMIO) != 0xcafe0042)
		return fail(p, "MMIO goes wrong under KVM");
	if (is_late(p))
		return fail(p,
			    "KVM is too slow: the test guest takes more "
			    "than %u ms",
			    (u32)(LIMIT_NS / 1000000));
	return true;
}

static void cleanup(struct probe *p)
{
	if (p->run)
		munmap(p->run, p->run_bytes);
	if (p->vcpu_fd >= 0)
		close(p->vcpu_fd);
	if (p->vm_fd >= 0)
		close(p->vm_fd);
	if (p->kvm_fd >= 0)
		close(p->kvm_fd);
	if (p->mem)
		munmap(p->mem, GUEST_BYTES);
}

void kvm_probe(struct engine_probe *out)
{
	struct probe p = {
		.out = out,
		.kvm_fd = -1,
		.vm_fd = -1,
		.vcpu_fd = -1,
		.start_ns = clock_mono_ns(),
	};

	memset(out, 0, sizeof(*out));
	out->is_usable = open_kvm(&p) && watchdog_start(&p) && make_vm(&p) &&
			 make_vcpu(&p) && set_cpuid(&p) && set_registers(&p) &&
			 run_guest(&p) && check_results(&p);
	watchdog_stop(&p);
	cleanup(&p);
	out->took_ns = clock_mono_ns() - p.start_ns;
	if (out->is_usable)
		snprintf(out->reason, sizeof(out->reason),
			 "a test guest ran in %llu us",
			 (unsigned long long)out->took_ns / 1000);
}
