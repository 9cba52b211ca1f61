/* SPDX-License-Identifier: Apache-2.0 */
/* What KVM tells without an exit: written pages, doorbells, interrupts from
 * eventfds; and the clock. The soft engine has no dirty log yet. */
#include "test/test.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "kvm/kvm_int.h"
#include "machine/microvm.h"
#include "x86/regs.h"

#define PAGES (MICRO_RAM / PAGE_BYTES)

static void fetch(struct micro *m, u64 *bits)
{
	struct err err = {0};

	memset(bits, 0, PAGES / 8);
	if (m->ops->dirty_fetch(m->vm, 0, bits, PAGES, &err) < 0)
		fail_msg("%s", err.text);
}

static bool has_page(const u64 *bits, gpa_t gpa)
{
	u64 page = gpa / PAGE_BYTES;

	return bits[page / 64] >> (page % 64) & 1;
}

static u32 page_count(const u64 *bits)
{
	u32 n = 0;

	for (u32 i = 0; i < PAGES / 64; i++)
		n += (u32)__builtin_popcountll(bits[i]);
	return n;
}

/* eax: how many pages from 0x100000 on. */
MICRO_GUEST(writes, 32,
	    "mov ebx, 0x100000\n mov ecx, ds:[0x20000]\n"
	    "1: mov [ebx], ecx\n add ebx, 0x1000\n loop 1b\n"
	    "mov al, 1\n" MICRO_END);

static void write_pages(struct micro *m, u32 n)
{
	micro_load(m, MICRO_PROTECTED, writes, writes_end);
	st_le32(m->ram + MICRO_DATA, n);
	micro_run_to_stop(m);
}

static void log_guests_pages(bool no_ring)
{
	u64 bits[PAGES / 64];
	struct micro *m = micro_new_kvm(1, no_ring);
	struct err err = {0};

	write_pages(m, 3); /* before: not logged */
	if (m->ops->dirty_start(m->vm, &err) < 0)
		fail_msg("%s", err.text);
	assert_int_equal(m->ops->dirty_start(m->vm, &err), -EALREADY);
	fetch(m, bits);
	assert_false(has_page(bits, 0x100000));
	write_pages(m, 5);
	fetch(m, bits);
	for (u32 i = 0; i < 5; i++)
		assert_true(has_page(bits, 0x100000 + i * PAGE_BYTES));
	assert_false(has_page(bits, 0x105000));
	assert_true(page_count(bits) < 16);
	fetch(m, bits);
	assert_int_equal(page_count(bits), 0);
	write_pages(m, 2); /* watched again */
	fetch(m, bits);
	assert_true(has_page(bits, 0x100000) && has_page(bits, 0x101000));
	assert_false(has_page(bits, 0x102000));
	m->ops->dirty_stop(m->vm);
	assert_true(m->ops->dirty_fetch(m->vm, 0, bits, PAGES, &err) < 0);
	write_pages(m, 2);
	micro_free(m);
}

static void the_dirty_log_has_the_guests_pages_once(void **state)
{
	(void)state;
	log_guests_pages(true);
	log_guests_pages(false);
}

static void log_devices_pages(bool no_ring)
{
	u64 bits[PAGES / 64];
	struct micro *m = micro_new_kvm(1, no_ring);
	struct err err = {0};

	assert_int_equal(m->ops->dirty_start(m->vm, &err), 0);
	fetch(m, bits);
	assert_int_equal(mem_write(m->mem, 0x200ffe, "four", 4), 0);
	mem_written(m->mem, 0x3fffff, 1);
	fetch(m, bits);
	assert_int_equal(page_count(bits), 3);
	assert_true(has_page(bits, 0x200000) && has_page(bits, 0x201000));
	assert_true(has_page(bits, 0x3ff000));
	m->ops->dirty_stop(m->vm);
	micro_free(m);
}

static void the_dirty_log_has_the_devices_pages(void **state)
{
	(void)state;
	log_devices_pages(true);
	log_devices_pages(false);
}

static void log_added_slot(bool no_ring)
{
	_Alignas(4096) static u8 pages[2][4096];
	struct mem_slot slot = {.id = 3,
				.gpa = 0x10000000,
				.size = sizeof(pages),
				.hva = pages[0]};
	struct micro *m = micro_new_kvm(1, no_ring);
	struct err err = {0};
	u64 bits = 0;

	assert_int_equal(m->ops->dirty_start(m->vm, &err), 0);
	assert_int_equal(mem_slot_add(m->mem, &slot, &err), 0);
	assert_int_equal(mem_write(m->mem, 0x10001000, "x", 1), 0);
	assert_int_equal(m->ops->dirty_fetch(m->vm, 3, &bits, 2, &err), 0);
	assert_int_equal(bits, 2);
	assert_int_equal(m->ops->dirty_fetch(m->vm, 3, &bits, 7, &err),
			 -EINVAL);
	assert_int_equal(mem_slot_del(m->mem, 3), 0);
	assert_int_equal(m->ops->dirty_fetch(m->vm, 3, &bits, 2, &err),
			 -EINVAL);
	m->ops->dirty_stop(m->vm);
	micro_free(m);
}

static void a_slot_added_while_logging_is_logged(void **state)
{
	(void)state;
	log_added_slot(true);
	log_added_slot(false);
}

/* More pages than a ring has places: none is lost. */
static void log_many_pages(bool no_ring)
{
	enum { COUNT = 9000 };
	struct mem_slot slot = {
		.id = 4, .gpa = 0x20000000, .size = COUNT * PAGE_BYTES};
	static _Alignas(4096) u8 ram[COUNT * PAGE_BYTES];
	static u64 bits[(COUNT + 63) / 64];
	struct micro *m = micro_new_kvm(1, no_ring);
	struct err err = {0};
	struct vcpu_state vs;

	slot.hva = ram;
	assert_int_equal(mem_slot_add(m->mem, &slot, &err), 0);
	assert_int_equal(m->ops->dirty_start(m->vm, &err), 0);
	micro_load(m, MICRO_PROTECTED, writes, writes_end);
	st_le32(m->ram + MICRO_DATA, COUNT);
	micro_get(m, 0, &vs);
	vs.regs.rip = MICRO_CODE + 5; /* past the mov ebx */
	vs.regs.rbx = slot.gpa;
	micro_set(m, 0, &vs);
	micro_run_to_stop(m);
	memset(bits, 0, sizeof(bits));
	if (m->ops->dirty_fetch(m->vm, 4, bits, COUNT, &err) < 0) {
		/* It says so, rather than lose one. */
		assert_false(micro_is_real_kvm());
		micro_skip("this host's KVM: %s", err.text);
	}
	for (u32 i = 0; i < COUNT; i++)
		if (!(bits[i / 64] >> (i % 64) & 1))
			fail_msg("page %u is missing", i);
	m->ops->dirty_stop(m->vm);
	assert_int_equal(mem_slot_del(m->mem, 4), 0);
	micro_free(m);
}

static void a_full_ring_loses_no_page(void **state)
{
	(void)state;
	log_many_pages(true);
	log_many_pages(false);
}

/* ---- doorbells ---- */

MICRO_GUEST(rings, 32,
	    "mov word ptr ds:[0xd0000100], 7\n" /* the bell's value */
	    "mov word ptr ds:[0xd0000100], 8\n" /* another: the device */
	    "mov byte ptr ds:[0xd0000100], 7\n" /* another size: too */
	    "mov dx, 0x500\n mov ax, 5\n out dx, ax\n"
	    "mov al, 1\n" MICRO_END);

static u64 rung(int fd)
{
	u64 n = 0;

	return read(fd, &n, sizeof(n)) == sizeof(n) ? n : 0;
}

static void a_doorbell_rings_and_only_itself(void **state)
{
	struct micro_pair p;
	struct micro *each[2];

	(void)state;
	micro_pair_new(&p, 1);
	each[0] = p.kvm;
	each[1] = p.soft;
	for (int i = 0; i < 2; i++) {
		int fd = eventfd(0, EFD_NONBLOCK),
		    port = eventfd(0, EFD_NONBLOCK);
		struct mem_doorbell mmio = {
			IO_MMIO, MICRO_MMIO + 0x100, 2, true, 7, fd};
		struct mem_doorbell pio = {IO_PIO, MICRO_PORT, 2,
					   false,  0,	       port};

		assert_int_equal(mem_doorbell_add(each[i]->mem, &mmio), 0);
		assert_int_equal(mem_doorbell_add(each[i]->mem, &pio), 0);
		micro_load(each[i], MICRO_PROTECTED, rings, rings_end);
		micro_run_to_stop(each[i]);
		assert_int_equal(rung(fd), 1);
		assert_int_equal(rung(port), 1);
		assert_int_equal(each[i]->log_count, 2);
		mem_doorbell_del(each[i]->mem, &mmio);
		mem_doorbell_del(each[i]->mem, &pio);
		micro_load(each[i], MICRO_PROTECTED, rings, rings_end);
		micro_run_to_stop(each[i]);
		assert_int_equal(rung(fd), 0);
		assert_int_equal(each[i]->log_count, 2 + 4);
		close(fd);
		close(port);
	}
	micro_compare(&p);
	micro_pair_free(&p);
}

/* ---- irqfds ---- */

MICRO_GUEST(
	awaits, 64,
	"jmp 5f\n .org awaits + 0x10\n inc dword ptr [0x20000]\n"
	"mov dword ptr [rbp+0xb0], 0\n iretq\n"
	".org awaits + 0x40\n 5: mov ebp, 0xfee00000\n"
	"mov dword ptr [rbp+0xf0], 0x1ff\n sti\n"
	"mov dx, 0x500\n out dx, al\n"
	"7: cmp dword ptr [0x20000], 0\n je 7b\n cli\n mov al, 1\n" MICRO_END);

static void signal_eventfd(struct micro *m, const struct micro_access *a)
{
	u64 one = 1;

	(void)a;
	assert_int_equal(write(*(int *)m->opaque, &one, sizeof(one)), 8);
}

static void an_eventfd_sends_an_msi(void **state)
{
	int fd = eventfd(0, EFD_NONBLOCK);
	struct micro_pair p;
	struct err err = {0};

	(void)state;
	micro_pair_new(&p, 1);
	if (p.kvm->ops->irqfd_add(p.kvm->vm, fd, 0xfee00000, 0x47, &err) < 0)
		fail_msg("%s", err.text);
	assert_int_equal(
		p.kvm->ops->irqfd_add(p.kvm->vm, fd, 0xfee00000, 0x48, &err),
		-EEXIST);
	p.kvm->opaque = &fd;
	p.kvm->on_access = signal_eventfd;
	micro_load(p.kvm, MICRO_LONG, awaits, awaits_end);
	micro_gate64(p.kvm, 0x47, MICRO_CODE + 0x10);
	micro_run_to_stop(p.kvm);
	assert_int_equal(ld_le32(p.kvm->ram + MICRO_DATA), 1);
	p.kvm->ops->irqfd_del(p.kvm->vm, fd);
	assert_int_equal(
		p.kvm->ops->irqfd_add(p.kvm->vm, fd, 0xfee00000, 0x48, &err),
		0);
	p.kvm->ops->irqfd_del(p.kvm->vm, fd);
	close(fd);
	micro_pair_free(&p);
}

static void irqfds_are_bounded(void **state)
{
	int fds[KVM_IRQFDS_MAX + 1];
	struct micro_pair p;
	struct err err = {0};

	(void)state;
	micro_pair_new(&p, 1);
	for (u32 i = 0; i <= KVM_IRQFDS_MAX; i++) {
		int rc;

		fds[i] = eventfd(0, EFD_NONBLOCK);
		rc = p.kvm->ops->irqfd_add(p.kvm->vm, fds[i], 0xfee00000, 0x50,
					   &err);
		assert_int_equal(rc, i < KVM_IRQFDS_MAX ? 0 : -ENOSPC);
	}
	for (u32 i = 0; i <= KVM_IRQFDS_MAX; i++) {
		p.kvm->ops->irqfd_del(p.kvm->vm, fds[i]);
		close(fds[i]);
	}
	micro_pair_free(&p);
}

/* ---- the clock ---- */

static void kvmclock_goes_on_from_the_restored_tsc(void **state)
{
	const u64 hour_ns = 3600 * 1000000000ull;
	struct vcpu_state vs;
	struct micro_pair p;
	struct err err = {0};
	u64 ns = 0;

	(void)state;
	micro_pair_new(&p, 1);
	micro_get(p.kvm, 0, &vs);
	if (!p.kvm->vm->tsc_khz) {
		micro_skip("this host's KVM does not tell the TSC's rate");
	}
	for (u32 i = 0; i < vs.msr_count; i++)
		if (vs.msrs[i].index == X86_MSR_TSC)
			vs.msrs[i].data =
				hour_ns / 1000000 * p.kvm->vm->tsc_khz;
	micro_set(p.kvm, 0, &vs);
	assert_int_equal(kvm_clock_get(p.kvm->vm, &ns, &err), 0);
	if (ns < hour_ns - 1000000 || ns > hour_ns + 5000000000ull)
		fail_msg("kvmclock is at %llu ns", (unsigned long long)ns);
	micro_pair_free(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_dirty_log_has_the_guests_pages_once),
		cmocka_unit_test(the_dirty_log_has_the_devices_pages),
		cmocka_unit_test(a_slot_added_while_logging_is_logged),
		cmocka_unit_test(a_full_ring_loses_no_page),
		cmocka_unit_test(a_doorbell_rings_and_only_itself),
		cmocka_unit_test(an_eventfd_sends_an_msi),
		cmocka_unit_test(irqfds_are_bounded),
		cmocka_unit_test(kvmclock_goes_on_from_the_restored_tsc),
	};

	return test_run("engine_dirty", tests);
}
