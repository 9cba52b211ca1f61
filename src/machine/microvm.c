/* SPDX-License-Identifier: Apache-2.0 */
#include "machine/microvm.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h> /* linked into test programs only */

#include "kvm/kvm.h"
#include "x86/cpuid.h"
#include "x86/regs.h"

#define TIMEOUT_S 20

/* ---- what there is ---- */

const char *micro_no_kvm(void)
{
	static char why[128];
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	if (fd < 0) {
		snprintf(why, sizeof(why), "/dev/kvm: %s", strerror(errno));
		return why;
	}
	close(fd);
	return NULL;
}

/* So that a test that is skipped in the middle leaves nothing behind. */
static struct micro *alive[4];

static void remember(struct micro *m, struct micro *instead_of)
{
	for (size_t i = 0; i < ARRAY_SIZE(alive); i++) {
		if (alive[i] == instead_of) {
			alive[i] = m;
			return;
		}
	}
}

void micro_skip(const char *fmt, ...)
{
	char why[600];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, sizeof(why), fmt, ap);
	va_end(ap);
	if (getenv("SKERRY_NEEDS_KVM")) /* make test-kvm */
		fail_msg("%s", why);
	/* tests/run shows these lines. */
	print_message("SKIP: %s\n", why);
	for (size_t i = 0; i < ARRAY_SIZE(alive); i++)
		micro_free(alive[i]);
	skip();
	abort(); /* not reached: skip() does not return */
}

bool micro_is_real_kvm(void)
{
	static int known = -1;
	struct engine_probe probe;

	if (known < 0) {
		kvm_probe(&probe);
		known = probe.is_usable;
	}
	return known;
}

/* ---- devices ---- */

/* Reads give what is easy to tell apart: the offset in each byte, and 0xa0. */
static u64 read_value(u64 off)
{
	return (0xa0 + (off & 15)) * 0x0101010101010101ull;
}

static u64 note(struct micro *m, u8 space, bool is_write, u64 off,
		unsigned size, u64 value)
{
	struct micro_access *a;

	if (m->log_count == ARRAY_SIZE(m->log))
		return 0;
	a = &m->log[m->log_count++];
	*a = (struct micro_access){
		.space = space,
		.size = (u8)size,
		.is_write = is_write,
		.off = off,
		.value = size < 8 ? value & (BIT64(size * 8) - 1) : value,
	};
	if (m->on_access)
		m->on_access(m, a);
	return a->value;
}

static u64 port_read(void *opaque, u64 off, unsigned size)
{
	return note(opaque, IO_PIO, false, off, size, read_value(off));
}

static void port_write(void *opaque, u64 off, unsigned size, u64 value)
{
	note(opaque, IO_PIO, true, off, size, value);
}

static u64 mmio_read(void *opaque, u64 off, unsigned size)
{
	return note(opaque, IO_MMIO, false, off, size, read_value(off));
}

static void mmio_write(void *opaque, u64 off, unsigned size, u64 value)
{
	note(opaque, IO_MMIO, true, off, size, value);
}

static void stop_write(void *opaque, u64 off, unsigned size, u64 value)
{
	struct micro *m = opaque;

	(void)off;
	(void)size;
	m->stop_value = (u8)value;
	atomic_store(&m->is_done, true);
	for (u32 i = 0; i < m->vcpu_count; i++)
		m->ops->vcpu_kick(m->v[i]);
}

static void devices_new(struct micro *m)
{
	static const struct io_ops port_ops = {port_read, port_write, 0, 4};
	static const struct io_ops mmio_ops = {mmio_read, mmio_write, 0, 8};
	static const struct io_ops stop_ops = {NULL, stop_write, 0, 0};

	m->port = (struct io_region){"port", IO_PIO,	MICRO_PORT,
				     32,     &port_ops, m};
	m->mmio = (struct io_region){"mmio",	 IO_MMIO,   MICRO_MMIO,
				     PAGE_BYTES, &mmio_ops, m};
	m->stop =
		(struct io_region){"stop", IO_PIO, MICRO_STOP, 4, &stop_ops, m};
	assert_int_equal(mem_io_add(m->mem, &m->port), 0);
	assert_int_equal(mem_io_add(m->mem, &m->mmio), 0);
	assert_int_equal(mem_io_add(m->mem, &m->stop), 0);
}

static u8 pic_ack(void *opaque)
{
	struct micro *m = opaque;

	atomic_fetch_add(&m->acks, 1);
	if (m->on_ack)
		return m->on_ack(m);
	m->ops->set_extint(m->vm, false);
	return m->pic_vector;
}

static void eoi(void *opaque, u8 vector)
{
	struct micro *m = opaque;
	u32 i = atomic_load(&m->eoi_count);

	if (m->on_eoi) {
		m->on_eoi(m, vector);
		return;
	}
	if (i < ARRAY_SIZE(m->eois))
		m->eois[i] = vector;
	atomic_store(&m->eoi_count, i + 1);
}

/* ---- life ---- */

/* The same for both engines: what both can do. */
static struct kvm_cpuid2 *cpuid_of_both(u32 vcpus)
{
	struct x86_cpuid_config cc = {
		.model = "v1", .vcpu_count = vcpus, .tsc_khz = 1000000};
	struct kvm_cpuid2 *want, *out;
	struct err err = {0};

	assert_int_equal(x86_cpuid_build(&cc, &want, &err), 0);
	if (micro_no_kvm())
		return want;
	if (kvm_cpuid_offer(want, &out, &err) < 0)
		fail_msg("%s", err.text);
	free(want);
	return out;
}

static struct micro *new_with(const struct engine_ops *ops, u32 vcpus,
			      bool no_dirty_ring)
{
	static const struct engine_irqchip_ops irqchip = {pic_ack, eoi};
	struct mem_slot slot = {.size = MICRO_RAM};
	struct engine_vm_config cfg = {.vcpu_count = vcpus,
				       .irqchip = &irqchip,
				       .no_dirty_ring = no_dirty_ring};
	struct micro *m = calloc(1, sizeof(*m));
	struct err err = {0};

	assert_non_null(m);
	m->ops = ops;
	m->mem = mem_new();
	m->ram = aligned_alloc(PAGE_BYTES, MICRO_RAM);
	assert_non_null(m->ram);
	memset(m->ram, 0, MICRO_RAM);
	slot.hva = m->ram;
	assert_int_equal(mem_slot_add(m->mem, &slot, &err), 0);
	devices_new(m);
	m->cpuid = cpuid_of_both(vcpus);
	cfg.mem = m->mem;
	cfg.cpuid = m->cpuid;
	cfg.irqchip_opaque = m;
	if (ops->vm_create(&cfg, &m->vm, &err) < 0)
		fail_msg("%s: %s", ops->name, err.text);
	m->vcpu_count = vcpus;
	remember(m, NULL);
	for (u32 i = 0; i < vcpus; i++)
		if (ops->vcpu_create(m->vm, i, &m->v[i], &err) < 0)
			fail_msg("%s: %s", ops->name, err.text);
	return m;
}

struct micro *micro_new(const struct engine_ops *ops, u32 vcpus)
{
	return new_with(ops, vcpus, false);
}

struct micro *micro_new_kvm(u32 vcpus, bool no_dirty_ring)
{
	const char *why = micro_no_kvm();

	if (why)
		micro_skip("%s", why);
	return new_with(&engine_kvm, vcpus, no_dirty_ring);
}

void micro_free(struct micro *m)
{
	if (!m)
		return;
	remember(NULL, m);
	for (u32 i = 0; i < m->vcpu_count; i++)
		m->ops->vcpu_destroy(m->v[i]);
	m->ops->vm_destroy(m->vm);
	mem_io_del(m->mem, &m->port);
	mem_io_del(m->mem, &m->mmio);
	mem_io_del(m->mem, &m->stop);
	mem_free(m->mem);
	free(m->ram);
	free(m->cpuid);
	free(m);
}

/* ---- state ---- */

void micro_get(struct micro *m, u32 vcpu, struct vcpu_state *out)
{
	struct err err = {0};

	if (m->ops->vcpu_get(m->v[vcpu], out, &err) < 0)
		fail_msg("%s: %s", m->ops->name, err.text);
}

void micro_set(struct micro *m, u32 vcpu, const struct vcpu_state *in)
{
	struct err err = {0};

	if (m->ops->vcpu_set(m->v[vcpu], in, &err) < 0)
		fail_msg("%s: %s", m->ops->name, err.text);
}

static struct kvm_segment segment(u16 selector, u8 type, bool is_long, bool big)
{
	return (struct kvm_segment){
		.limit = big ? 0xffffffff : 0xffff,
		.selector = selector,
		.type = type,
		.present = 1,
		.s = 1,
		.l = is_long,
		.db = big && !is_long,
		.g = big,
	};
}

/* Identity: the first GiB and the last of 4, by pages of 2 MiB. */
static void build_tables(struct micro *m)
{
	u8 *t = m->ram + MICRO_TABLES;

	st_le64(t, (MICRO_TABLES + 0x1000) | 3);
	for (u64 i = 0; i < 4; i += 3) {
		u64 at = MICRO_TABLES + 0x2000 + (i ? 0x1000 : 0);

		st_le64(t + 0x1000 + i * 8, at | 3);
		for (u64 j = 0; j < 512; j++)
			st_le64(m->ram + at + j * 8,
				(i * GIB + j * 2 * MIB) | 0x83);
	}
	st_le64(m->ram + MICRO_GDT + MICRO_CS32, 0x00cf9b000000ffffull);
	st_le64(m->ram + MICRO_GDT + MICRO_DS, 0x00cf93000000ffffull);
	st_le64(m->ram + MICRO_GDT + MICRO_CS64, 0x00af9b000000ffffull);
}

void micro_start_state(struct micro *m, u32 vcpu, enum micro_mode mode, u32 rip)
{
	struct vcpu_state *vs = malloc(sizeof(*vs));
	struct kvm_sregs2 *s;
	bool is_real = mode == MICRO_REAL, is_long = mode == MICRO_LONG;

	assert_non_null(vs);
	micro_get(m, vcpu, vs);
	s = &vs->sregs;
	s->cs = segment(is_real	  ? 0
			: is_long ? MICRO_CS64
				  : MICRO_CS32,
			0xb, is_long, !is_real);
	s->ds = segment(is_real ? 0 : MICRO_DS, 3, false, !is_real);
	s->es = s->fs = s->gs = s->ss = s->ds;
	s->gdt = (struct kvm_dtable){.base = MICRO_GDT, .limit = 0xff};
	s->idt = (struct kvm_dtable){.base = is_real ? 0 : MICRO_IDT,
				     .limit = is_real ? 0x3ff : 0xfff};
	s->cr0 = X86_CR0_ET | (is_real ? 0 : X86_CR0_PE | X86_CR0_NE);
	if (is_long) {
		s->cr0 |= X86_CR0_PG | X86_CR0_MP | X86_CR0_WP;
		s->cr3 = MICRO_TABLES;
		s->cr4 = X86_CR4_PAE | X86_CR4_OSFXSR;
		s->efer = X86_EFER_LME | X86_EFER_LMA;
	}
	memset(&vs->regs, 0, sizeof(vs->regs));
	vs->regs.rip = rip;
	vs->regs.rsp = MICRO_STACK;
	vs->regs.rflags = 2;
	vs->mp_state.mp_state = KVM_MP_STATE_RUNNABLE;
	micro_set(m, vcpu, vs);
	free(vs);
}

void micro_load(struct micro *m, enum micro_mode mode, const u8 *code,
		const u8 *end)
{
	assert_true(end > code && end - code <= 0x3000);
	memcpy(m->ram + MICRO_CODE, code, (size_t)(end - code));
	build_tables(m);
	micro_start_state(m, 0, mode, MICRO_CODE);
}

void micro_gate64(struct micro *m, u8 vector, u32 to)
{
	u8 *g = m->ram + MICRO_IDT + vector * 16;

	st_le64(g, (to & 0xffff) | (u64)MICRO_CS64 << 16 | 0x8e0000000000ull |
			   (u64)(to >> 16) << 48);
	st_le64(g + 8, 0);
}

/* ---- running ---- */

struct watchdog {
	struct micro *m;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool is_over, has_bitten;
};

static void *watch(void *opaque)
{
	struct watchdog *w = opaque;
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += TIMEOUT_S;
	pthread_mutex_lock(&w->lock);
	while (!w->is_over &&
	       pthread_cond_timedwait(&w->cond, &w->lock, &until) != ETIMEDOUT)
		;
	if (!w->is_over) {
		w->has_bitten = true;
		w->m->ops->vcpu_kick(w->m->v[0]);
	}
	pthread_mutex_unlock(&w->lock);
	return NULL;
}

enum vcpu_exit micro_run(struct micro *m)
{
	struct watchdog w = {.m = m,
			     .lock = PTHREAD_MUTEX_INITIALIZER,
			     .cond = PTHREAD_COND_INITIALIZER};
	enum vcpu_exit why;
	pthread_t t;

	memset(&m->err, 0, sizeof(m->err));
	atomic_store(&m->is_done, false);
	assert_int_equal(pthread_create(&t, NULL, watch, &w), 0);
	do {
		why = m->ops->vcpu_run(m->v[0], &m->err);
	} while (why == VCPU_EXIT_KICKED && !atomic_load(&m->is_done) &&
		 !w.has_bitten);
	pthread_mutex_lock(&w.lock);
	w.is_over = true;
	pthread_cond_signal(&w.cond);
	pthread_mutex_unlock(&w.lock);
	pthread_join(t, NULL);
	if (w.has_bitten)
		err_set(&m->err, -ETIMEDOUT, "the guest does not stop");
	return why;
}

void micro_run_to_stop(struct micro *m)
{
	enum vcpu_exit why = micro_run(m);

	if (why == VCPU_EXIT_ERROR && m->ops != &engine_soft &&
	    !micro_is_real_kvm())
		micro_skip("this host's KVM: %s", m->err.text);
	if (why != VCPU_EXIT_KICKED || !atomic_load(&m->is_done))
		fail_msg("%s: exit %d: %s", m->ops->name, why, m->err.text);
}

/* ---- both ---- */

void micro_pair_new(struct micro_pair *p, u32 vcpus)
{
	const char *why = micro_no_kvm();

	memset(p, 0, sizeof(*p));
	if (why)
		micro_skip("%s", why);
	p->soft = micro_new(&engine_soft, vcpus);
	p->kvm = micro_new(&engine_kvm, vcpus);
}

void micro_pair_free(struct micro_pair *p)
{
	micro_free(p->soft);
	micro_free(p->kvm);
}

static void compare_regs(const struct vcpu_state *a, const struct vcpu_state *b)
{
	static const char *const names[] = {
		"rax", "rbx", "rcx", "rdx", "rsi", "rdi",
		"rsp", "rbp", "r8",  "r9",  "r10", "r11",
		"r12", "r13", "r14", "r15", "rip", "rflags",
	};
	const __u64 *x = &a->regs.rax, *y = &b->regs.rax;

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (x[i] != y[i])
			fail_msg("%s: soft 0x%llx, KVM 0x%llx", names[i], x[i],
				 y[i]);
}

static void compare_logs(const struct micro *a, const struct micro *b)
{
	for (size_t i = 0; i < MIN(a->log_count, b->log_count); i++) {
		const struct micro_access *x = &a->log[i], *y = &b->log[i];

		if (x->space != y->space || x->size != y->size ||
		    x->is_write != y->is_write || x->off != y->off ||
		    x->value != y->value)
			fail_msg("access %zu: soft %d %d at 0x%" PRIx64
				 " size %d 0x%" PRIx64 ", KVM %d %d at "
				 "0x%" PRIx64 " size %d 0x%" PRIx64,
				 i, x->space, x->is_write, x->off, x->size,
				 x->value, y->space, y->is_write, y->off,
				 y->size, y->value);
	}
	assert_int_equal(a->log_count, b->log_count);
}

void micro_compare(struct micro_pair *p)
{
	struct vcpu_state *a = malloc(sizeof(*a)), *b = malloc(sizeof(*b));

	assert_true(a && b);
	micro_get(p->soft, 0, a);
	micro_get(p->kvm, 0, b);
	compare_regs(a, b);
	compare_logs(p->soft, p->kvm);
	for (size_t i = 0; i < MICRO_RAM; i++)
		if (p->soft->ram[i] != p->kvm->ram[i] &&
		    !(p->kvm->has_timing && i / 0x1000 == 7))
			fail_msg("RAM at 0x%zx: soft 0x%x, KVM 0x%x", i,
				 p->soft->ram[i], p->kvm->ram[i]);
	assert_int_equal(p->soft->stop_value, p->kvm->stop_value);
	free(a);
	free(b);
}

void micro_run_both(struct micro_pair *p, enum micro_mode mode, const u8 *code,
		    const u8 *end)
{
	micro_pair_new(p, 1);
	micro_load(p->soft, mode, code, end);
	micro_load(p->kvm, mode, code, end);
	micro_run_to_stop(p->kvm);
	micro_run_to_stop(p->soft);
	micro_compare(p);
}
