/* SPDX-License-Identifier: Apache-2.0 */
#include "mem/mem.h"
#include "test/test.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define TOP_PAGE (UINT64_MAX - PAGE_BYTES + 1)

static u8 *pages(size_t n)
{
	u8 *p = aligned_alloc(PAGE_BYTES, n * PAGE_BYTES);

	assert_non_null(p);
	memset(p, 0, n * PAGE_BYTES);
	return p;
}

static int add(struct mem *m, u32 id, gpa_t gpa, u64 n_pages, u8 *hva,
	       u32 flags)
{
	struct mem_slot s = {id, flags, gpa, n_pages * PAGE_BYTES, hva};

	return mem_slot_add(m, &s, NULL);
}

static void slots_that_overlap_wrap_or_misalign_are_refused(void **state)
{
	struct mem *m = mem_new();
	u8 *ram = pages(4);
	struct mem_slot odd = {9, 0, 0x100000, 100, ram};
	struct err err = {0};
	size_t n;

	(void)state;
	assert_int_equal(add(m, 1, 0x2000, 2, ram, 0), 0);
	assert_int_equal(add(m, 2, 0x1000, 2, ram, 0), -EINVAL);
	assert_int_equal(add(m, 2, 0x3000, 1, ram, 0), -EINVAL);
	assert_int_equal(add(m, 2, 0x1000, 4, ram, 0), -EINVAL);
	assert_int_equal(add(m, 1, 0x8000, 1, ram, 0), -EINVAL);
	assert_int_equal(add(m, 2, 0x8001, 1, ram, 0), -EINVAL);
	assert_int_equal(add(m, 2, 0x8000, 1, ram + 1, 0), -EINVAL);
	assert_int_equal(add(m, 2, 0x8000, 0, ram, 0), -EINVAL);
	assert_int_equal(add(m, 2, TOP_PAGE, 2, ram, 0), -EINVAL);
	assert_int_equal(mem_slot_add(m, &odd, &err), -EINVAL);
	assert_non_null(strstr(err.text, "whole pages"));
	assert_int_equal(add(m, 2, TOP_PAGE, 1, ram, 0), 0);
	assert_int_equal(add(m, 3, 0, 2, ram, 0), 0);
	assert_int_equal(mem_slots(m, &n)[0].id, 3);
	assert_int_equal(n, 3);
	assert_int_equal(mem_slot_del(m, 7), -ENOENT);
	assert_int_equal(mem_slot_del(m, 1), 0);
	assert_null(mem_slot_find(m, 0x2000));
	mem_free(m);
	free(ram);
}

static void slot_find_knows_both_ends(void **state)
{
	struct mem *m = mem_new();
	u8 *ram = pages(2);

	(void)state;
	assert_int_equal(add(m, 0, 0x5000, 1, ram, 0), 0);
	assert_int_equal(add(m, 1, TOP_PAGE, 1, ram + PAGE_BYTES, 0), 0);
	assert_null(mem_slot_find(m, 0x4fff));
	assert_int_equal(mem_slot_find(m, 0x5000)->id, 0);
	assert_int_equal(mem_slot_find(m, 0x5fff)->id, 0);
	assert_null(mem_slot_find(m, 0x6000));
	assert_int_equal(mem_slot_find(m, UINT64_MAX)->id, 1);
	assert_null(mem_slot_find(m, 0));
	mem_free(m);
	free(ram);
}

static void dma_spans_adjacent_slots(void **state)
{
	struct mem *m = mem_new();
	u8 *a = pages(1), *b = pages(1);
	u8 got[8];

	(void)state;
	assert_int_equal(add(m, 1, 0x2000, 1, b, 0), 0);
	assert_int_equal(add(m, 0, 0x1000, 1, a, 0), 0);
	assert_int_equal(mem_write(m, 0x1ffc, "abcdefgh", 8), 0);
	assert_memory_equal(a + 0xffc, "abcd", 4);
	assert_memory_equal(b, "efgh", 4);
	assert_int_equal(mem_read(m, 0x1ffc, got, 8), 0);
	assert_memory_equal(got, "abcdefgh", 8);
	assert_null(mem_hva(m, 0x1ffc, 8, false));
	assert_ptr_equal(mem_hva(m, 0x1ffc, 4, true), a + 0xffc);
	mem_free(m);
	free(a);
	free(b);
}

static void dma_out_of_range_touches_nothing(void **state)
{
	struct mem *m = mem_new();
	u8 *ram = pages(1), *top = pages(1);
	static u8 big[2 * PAGE_BYTES];

	(void)state;
	memset(big, 0xee, sizeof(big));
	assert_int_equal(add(m, 0, 0x1000, 1, ram, 0), 0);
	assert_int_equal(add(m, 1, TOP_PAGE, 1, top, 0), 0);
	assert_int_equal(mem_write(m, 0x1ff8, big, 16), -EFAULT);
	assert_int_equal(ram[0xff8], 0);
	assert_int_equal(mem_write(m, 0xff8, big, 16), -EFAULT);
	assert_int_equal(mem_write(m, 0x1000, big, UINT64_MAX), -EFAULT);
	assert_int_equal(mem_read(m, UINT64_MAX, big, 2), -EFAULT);
	assert_int_equal(mem_read(m, UINT64_MAX, big, UINT64_MAX), -EFAULT);
	assert_int_equal(mem_read(m, UINT64_MAX, big, 1), 0);
	assert_int_equal(big[0], 0);
	assert_int_equal(mem_write(m, 0x9000, big, 0), 0);
	assert_null(mem_hva(m, 0x1000, 0, false));
	assert_null(mem_hva(m, 0x1001, UINT64_MAX, false));
	assert_null(mem_hva(m, 0x1001, PAGE_BYTES, false));
	assert_non_null(mem_hva(m, UINT64_MAX, 1, false));
	assert_null(mem_hva(m, UINT64_MAX, 2, false));
	mem_free(m);
	free(ram);
	free(top);
}

static void rom_is_read_only_for_dma(void **state)
{
	struct mem *m = mem_new();
	u8 *ram = pages(2);
	u8 got[4];

	(void)state;
	assert_int_equal(add(m, 0, 0, 1, ram, 0), 0);
	assert_int_equal(add(m, 1, 0x1000, 1, ram + PAGE_BYTES, MEM_SLOT_ROM),
			 0);
	assert_int_equal(mem_write(m, 0xffe, "abcd", 4), -EFAULT);
	assert_int_equal(ram[0xffe], 0);
	assert_int_equal(mem_read(m, 0xffe, got, 4), 0);
	assert_null(mem_hva(m, 0x1000, 1, true));
	assert_non_null(mem_hva(m, 0x1000, 1, false));
	mem_free(m);
	free(ram);
}

struct heard {
	int added, removed;
	gpa_t gpa;
	u64 len;
};
static void hear_slot(void *opaque, const struct mem_slot *slot, bool added)
{
	struct heard *h = opaque;

	h->gpa = slot->gpa;
	if (added)
		h->added++;
	else
		h->removed++;
}
static void hear_written(void *opaque, gpa_t gpa, u64 len)
{
	struct heard *h = opaque;

	h->gpa = gpa;
	h->len = len;
}

struct bells_heard {
	int added, removed;
	u64 addr;
};

static void hear_bell(void *opaque, const struct mem_doorbell *d, bool added)
{
	struct bells_heard *h = opaque;

	h->added += added;
	h->removed += !added;
	h->addr = d->addr;
}

static void listener_hears_doorbells_also_earlier_ones(void **state)
{
	struct bells_heard h = {0};
	struct mem_listener l = {.doorbell_changed = hear_bell, .opaque = &h};
	struct mem_doorbell d = {IO_MMIO, 0x1000, 2, false, 0, 0};
	struct mem_doorbell e = {IO_PIO, 0x70, 1, false, 0, 0};
	struct mem *m = mem_new();

	(void)state;
	assert_int_equal(mem_doorbell_add(m, &d), 0);
	mem_set_listener(m, &l);
	assert_int_equal(h.added, 1);
	assert_int_equal(h.addr, 0x1000);
	assert_int_equal(mem_doorbell_add(m, &e), 0);
	assert_int_equal(mem_doorbell_add(m, &e), -EEXIST);
	assert_int_equal(h.added, 2);
	assert_int_equal(h.addr, 0x70);
	mem_doorbell_del(m, &d);
	mem_doorbell_del(m, &d);
	assert_int_equal(h.removed, 1);
	mem_set_listener(m, NULL);
	mem_doorbell_del(m, &e);
	assert_int_equal(h.removed, 1);
	mem_free(m);
}

static void listener_hears_slots_and_writes(void **state)
{
	struct heard h = {0};
	struct mem_listener l = {.slot_changed = hear_slot,
				 .written = hear_written,
				 .opaque = &h};
	struct mem *m = mem_new();
	u8 *ram = pages(2);

	(void)state;
	assert_int_equal(add(m, 0, 0, 1, ram, 0), 0);
	mem_set_listener(m, &l);
	assert_int_equal(h.added, 1);
	assert_int_equal(add(m, 1, 0x1000, 1, ram + PAGE_BYTES, 0), 0);
	assert_int_equal(h.added, 2);
	assert_int_equal(mem_write(m, 0x234, "ab", 2), 0);
	assert_int_equal(h.gpa, 0x234);
	assert_int_equal(h.len, 2);
	assert_int_equal(mem_slot_del(m, 1), 0);
	assert_int_equal(h.removed, 1);
	assert_int_equal(h.gpa, 0x1000);
	mem_free(m);
	free(ram);
}

/* A device of 16 bytes that logs how it was called. */
struct chip {
	struct mem *m;
	u8 bytes[16];
	char log[256];
	struct io_region *unmap_on_write;
};
static u64 chip_read(void *opaque, u64 off, unsigned size)
{
	struct chip *c = opaque;
	u64 v = 0;

	assert_true(off + size <= sizeof(c->bytes));
	snprintf(c->log + strlen(c->log), sizeof(c->log) - strlen(c->log),
		 "r%d.%u ", (int)off, size);
	memcpy(&v, c->bytes + off, size);
	return v;
}
static void chip_write(void *opaque, u64 off, unsigned size, u64 value)
{
	struct chip *c = opaque;

	assert_true(off + size <= sizeof(c->bytes));
	snprintf(c->log + strlen(c->log), sizeof(c->log) - strlen(c->log),
		 "w%d.%u=%llx ", (int)off, size, (unsigned long long)value);
	memcpy(c->bytes + off, &value, size);
	if (c->unmap_on_write)
		mem_io_del(c->m, c->unmap_on_write);
}
static const struct io_ops chip_ops = {chip_read, chip_write, 0, 0};
static const struct io_ops chip_ops_4 = {chip_read, chip_write, 4, 4};
static const struct io_ops chip_ops_1 = {chip_read, chip_write, 1, 1};

static void chip_expect(struct chip *c, const char *log)
{
	assert_string_equal(c->log, log);
	c->log[0] = 0;
}

static struct io_region mmio(u64 base, u64 size, const struct io_ops *ops,
			     void *opaque)
{
	return (struct io_region){.name = "chip",
				  .space = IO_MMIO,
				  .base = base,
				  .size = size,
				  .ops = ops,
				  .opaque = opaque};
}

static void io_regions_do_not_overlap_or_wrap(void **state)
{
	struct mem *m = mem_new();
	struct chip c = {.m = m};
	struct io_region a = mmio(0x1000, 16, &chip_ops, &c);
	struct io_region b = mmio(0x100f, 1, &chip_ops, &c);
	struct io_region wrap = mmio(UINT64_MAX - 3, 5, &chip_ops, &c);
	struct io_region port = a;

	(void)state;
	assert_int_equal(mem_io_add(m, &a), 0);
	assert_int_equal(mem_io_add(m, &b), -EEXIST);
	assert_false(b.is_mapped);
	b.base = 0xff8;
	b.size = 9;
	assert_int_equal(mem_io_add(m, &b), -EEXIST);
	b.size = 8;
	assert_int_equal(mem_io_add(m, &b), 0);
	assert_int_equal(mem_io_add(m, &wrap), -EINVAL);
	wrap.size = 4;
	assert_int_equal(mem_io_add(m, &wrap), 0);
	port.space = IO_PIO;
	port.is_mapped = false;
	assert_int_equal(mem_io_add(m, &port), 0);
	mem_io_del(m, &port);
	port.base = 0xfff1;
	assert_int_equal(mem_io_add(m, &port), -EINVAL);
	mem_io_del(m, &a);
	mem_io_del(m, &a);
	assert_int_equal(mem_mmio_read(m, 0x1000, 4), 0xffffffff);
	mem_free(m);
	assert_false(b.is_mapped);
}

static void io_unassigned_reads_all_ones(void **state)
{
	struct mem *m = mem_new();

	(void)state;
	assert_int_equal(mem_pio_read(m, 0x80, 1), 0xff);
	assert_int_equal(mem_pio_read(m, 0xffff, 4), 0xffffffff);
	assert_true(mem_mmio_read(m, UINT64_MAX, 8) == UINT64_MAX);
	assert_int_equal(mem_mmio_read(m, 0, 2), 0xffff);
	mem_pio_write(m, 0xffff, 4, 1);
	mem_mmio_write(m, UINT64_MAX, 8, 1);
	mem_free(m);
}

static void io_accesses_are_split_at_edges_and_bounds(void **state)
{
	struct mem *m = mem_new();
	struct chip a = {.m = m}, b = {.m = m};
	struct io_region ra = mmio(0x1000, 16, &chip_ops, &a);
	struct io_region rb = mmio(0x1010, 16, &chip_ops_1, &b);

	(void)state;
	assert_int_equal(mem_io_add(m, &rb), 0);
	assert_int_equal(mem_io_add(m, &ra), 0);
	mem_mmio_write(m, 0x1008, 8, 0x1122334455667788);
	chip_expect(&a, "w8.8=1122334455667788 ");
	mem_mmio_write(m, 0x100e, 4, 0xaabbccdd);
	chip_expect(&a, "w14.2=ccdd ");
	chip_expect(&b, "w0.1=bb w1.1=aa ");
	assert_int_equal(mem_mmio_read(m, 0x100e, 4), 0xaabbccdd);
	chip_expect(&a, "r14.2 ");
	chip_expect(&b, "r0.1 r1.1 ");
	/* Half inside: the rest is unassigned. */
	assert_int_equal(mem_mmio_read(m, 0xffe, 4), 0x0000ffff);
	chip_expect(&a, "r0.2 ");
	/* Misaligned pieces are made aligned. */
	mem_mmio_write(m, 0x1001, 4, 0x04030201);
	chip_expect(&a, "w1.1=1 w2.2=302 w4.1=4 ");
	mem_free(m);
}

static void io_narrow_reads_are_widened_to_the_minimum(void **state)
{
	struct mem *m = mem_new();
	struct chip c = {.m = m};
	struct io_region r = mmio(0x1000, 16, &chip_ops_4, &c);

	(void)state;
	for (u8 i = 0; i < 16; i++)
		c.bytes[i] = i;
	assert_int_equal(mem_io_add(m, &r), 0);
	assert_int_equal(mem_mmio_read(m, 0x1006, 1), 6);
	chip_expect(&c, "r4.4 ");
	assert_int_equal(mem_mmio_read(m, 0x1007, 2), 0x0807);
	chip_expect(&c, "r4.4 r8.4 ");
	assert_true(mem_mmio_read(m, 0x1008, 8) == 0x0f0e0d0c0b0a0908);
	chip_expect(&c, "r8.4 r12.4 ");
	mem_mmio_write(m, 0x1002, 1, 0x55);
	chip_expect(&c, "w2.1=55 ");
	mem_free(m);
}

static void io_region_may_unmap_itself_in_its_callback(void **state)
{
	struct mem *m = mem_new();
	struct chip c = {.m = m};
	struct io_region r = mmio(0x1000, 16, &chip_ops_1, &c);

	(void)state;
	c.unmap_on_write = &r;
	assert_int_equal(mem_io_add(m, &r), 0);
	mem_mmio_write(m, 0x1000, 4, 0x01020304);
	chip_expect(&c, "w0.1=4 ");
	mem_free(m);
}

static u64 event_take(int fd)
{
	u64 v = 0;

	if (read(fd, &v, sizeof(v)) < 0)
		assert_int_equal(errno, EAGAIN);
	return v;
}

static void doorbell_needs_size_and_value_to_match(void **state)
{
	struct mem *m = mem_new();
	struct chip c = {.m = m};
	struct io_region r = mmio(0x1000, 16, &chip_ops, &c);
	int fd = eventfd(0, EFD_NONBLOCK), fd2 = eventfd(0, EFD_NONBLOCK);
	struct mem_doorbell d = {IO_MMIO, 0x1004, 2, true, 7, fd};
	struct mem_doorbell any = {IO_MMIO, 0x1000, 0, false, 0, fd2};
	struct mem_doorbell bad = {IO_MMIO, 0x1000, 3, false, 0, fd2};

	(void)state;
	assert_int_equal(mem_io_add(m, &r), 0);
	assert_int_equal(mem_doorbell_add(m, &d), 0);
	assert_int_equal(mem_doorbell_add(m, &d), -EEXIST);
	assert_int_equal(mem_doorbell_add(m, &any), 0);
	assert_int_equal(mem_doorbell_add(m, &bad), -EINVAL);
	mem_mmio_write(m, 0x1004, 2, 7);
	mem_mmio_write(m, 0x1004, 2, 0x10007);
	assert_int_equal(event_take(fd), 2);
	chip_expect(&c, "");
	mem_mmio_write(m, 0x1004, 2, 8);
	mem_mmio_write(m, 0x1004, 4, 7);
	assert_int_equal(event_take(fd), 0);
	chip_expect(&c, "w4.2=8 w4.4=7 ");
	mem_mmio_write(m, 0x1000, 4, 99);
	mem_mmio_write(m, 0x1000, 1, 98);
	assert_int_equal(event_take(fd2), 2);
	/* Reads and the other space go elsewhere. */
	mem_pio_write(m, 0x1000, 1, 1);
	assert_int_equal(event_take(fd2), 0);
	mem_doorbell_del(m, &d);
	mem_mmio_write(m, 0x1004, 2, 7);
	assert_int_equal(event_take(fd), 0);
	mem_doorbell_del(m, &any);
	mem_doorbell_del(m, &any);
	mem_free(m);
	close(fd);
	close(fd2);
}

struct ringer {
	struct mem *m;
	atomic_bool stop;
	u64 rung;
};
static void *ringer_main(void *opaque)
{
	struct ringer *r = opaque;

	while (!atomic_load(&r->stop)) {
		mem_mmio_write(r->m, 0x2000, 4, 1);
		assert_int_equal(mem_mmio_read(r->m, 0x3000, 1) & 0xfe, 0xfe);
		r->rung++;
	}
	return NULL;
}
static u64 fe_read(void *opaque, u64 off, unsigned size)
{
	return 0xfe;
}

static void doorbells_and_regions_change_while_vcpus_use_them(void **state)
{
	static const struct io_ops ops = {fe_read, NULL, 1, 1};
	struct mem *m = mem_new();
	struct io_region region = mmio(0x3000, 1, &ops, NULL);
	struct ringer r[2] = {{.m = m}, {.m = m}};
	pthread_t t[2];

	(void)state;
	for (int i = 0; i < 2; i++)
		assert_int_equal(
			pthread_create(&t[i], NULL, ringer_main, &r[i]), 0);
	for (int i = 0; i < 500; i++) {
		int fd = eventfd(0, EFD_NONBLOCK);
		struct mem_doorbell d = {IO_MMIO, 0x2000, 4, false, 0, fd};

		assert_int_equal(mem_doorbell_add(m, &d), 0);
		pthread_mutex_lock(mem_io_lock(m));
		assert_int_equal(mem_io_add(m, &region), 0);
		pthread_mutex_unlock(mem_io_lock(m));
		mem_mmio_write(m, 0x2000, 4, 1);
		pthread_mutex_lock(mem_io_lock(m));
		mem_io_del(m, &region);
		pthread_mutex_unlock(mem_io_lock(m));
		mem_doorbell_del(m, &d);
		assert_true(event_take(fd) >= 1);
		/* A late ring would hit a closed descriptor and abort. */
		close(fd);
	}
	for (int i = 0; i < 2; i++) {
		atomic_store(&r[i].stop, true);
		pthread_join(t[i], NULL);
	}
	mem_free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			slots_that_overlap_wrap_or_misalign_are_refused),
		cmocka_unit_test(slot_find_knows_both_ends),
		cmocka_unit_test(dma_spans_adjacent_slots),
		cmocka_unit_test(dma_out_of_range_touches_nothing),
		cmocka_unit_test(rom_is_read_only_for_dma),
		cmocka_unit_test(listener_hears_slots_and_writes),
		cmocka_unit_test(listener_hears_doorbells_also_earlier_ones),
		cmocka_unit_test(io_regions_do_not_overlap_or_wrap),
		cmocka_unit_test(io_unassigned_reads_all_ones),
		cmocka_unit_test(io_accesses_are_split_at_edges_and_bounds),
		cmocka_unit_test(io_narrow_reads_are_widened_to_the_minimum),
		cmocka_unit_test(io_region_may_unmap_itself_in_its_callback),
		cmocka_unit_test(doorbell_needs_size_and_value_to_match),
		cmocka_unit_test(
			doorbells_and_regions_change_while_vcpus_use_them),
	};

	return test_run("mem", tests);
}
