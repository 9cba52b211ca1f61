/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "hw/debug_ports.h"
#include "hw/fwcfg.h"
#include "hw/hw_scratch.h"
#include "hw/testdev.h"
#include "state/state_check.h"
#include "test/test.h"

#define RAM_BYTES 0x10000u

static u8 *add_ram(struct scratch *x)
{
	u8 *ram = aligned_alloc(4096, RAM_BYTES);
	struct mem_slot slot = {.size = RAM_BYTES, .hva = ram};

	ASSERT(ram);
	memset(ram, 0x77, RAM_BYTES);
	assert_int_equal(mem_slot_add(x->env.mem, &slot, NULL), 0);
	return ram;
}

/* Runs one DMA descriptor at 0x100; returns its control word afterwards. */
static u32 dma(struct scratch *x, u8 *ram, u32 control, u32 len, u64 addr)
{
	st_le32(ram + 0x100, __builtin_bswap32(control));
	st_le32(ram + 0x104, __builtin_bswap32(len));
	st_le64(ram + 0x108, __builtin_bswap64(addr));
	mem_pio_write(x->env.mem, 0x514, 4, 0);
	mem_pio_write(x->env.mem, 0x518, 4, __builtin_bswap32(0x100));
	return __builtin_bswap32(ld_le32(ram + 0x100));
}

static void fwcfg_signature_and_files_are_read_by_port(void **state)
{
	struct scratch x;
	struct fwcfg *f;
	u8 entry[68];

	(void)state;
	scratch_init(&x);
	f = fwcfg_new(&x.env);
	assert_int_equal(fwcfg_add_file(f, "etc/a", "hello", 5, NULL), 0);
	assert_int_equal(fwcfg_add_file(f, "etc/a", "x", 1, NULL), -EEXIST);
	mem_pio_write(x.env.mem, 0x510, 2, 0);
	for (int i = 0; i < 4; i++)
		assert_int_equal(in8(&x, 0x511), "QEMU"[i]);
	assert_int_equal(in8(&x, 0x511), 0);
	mem_pio_write(x.env.mem, 0x510, 2, 0x19);
	for (int i = 0; i < 68; i++)
		entry[i] = in8(&x, 0x511);
	assert_int_equal(entry[3], 1);
	assert_int_equal(entry[7], 5);
	assert_string_equal((char *)entry + 12, "etc/a");
	mem_pio_write(x.env.mem, 0x510, 2, entry[8] << 8 | entry[9]);
	assert_int_equal(in8(&x, 0x511), 'h');
	mem_pio_write(x.env.mem, 0x510, 2, 0xffff);
	assert_int_equal(in8(&x, 0x511), 0);
	scratch_fini(&x);
}

static void fwcfg_dma_reads_and_refuses_what_is_not_ram(void **state)
{
	struct scratch x;
	u8 *ram;

	(void)state;
	scratch_init(&x);
	ram = add_ram(&x);
	assert_int_equal(
		fwcfg_add_file(fwcfg_new(&x.env), "f", "hello", 5, NULL), 0);
	assert_int_equal(mem_pio_read(x.env.mem, 0x514, 4), 0x554d4551);
	assert_int_equal(dma(&x, ram, 0x20 << 16 | 0xa, 8, 0x2000), 0);
	assert_memory_equal(ram + 0x2000, "hello\0\0\0\x77", 9);
	assert_int_equal(dma(&x, ram, 0x20 << 16 | 0xa, 8, RAM_BYTES - 4), 1);
	assert_int_equal(dma(&x, ram, 0x20 << 16 | 0xa, 0xffffffff, 0), 1);
	assert_int_equal(dma(&x, ram, 0x20 << 16 | 0xa, 8, ~3ull), 1);
	assert_int_equal(dma(&x, ram, 0x20 << 16 | 0x18, 5, 0x2000), 1);
	assert_int_equal(dma(&x, ram, 0x20 << 16 | 0xc, 2, 0), 0);
	assert_int_equal(in8(&x, 0x511), 'l');
	scratch_fini(&x);
	free(ram);
}

static void exit_value(void *opaque, u32 value)
{
	*(u32 *)opaque = value;
}

static void debug_exit_reports_the_value(void **state)
{
	struct scratch x;
	u32 value = 0;

	(void)state;
	scratch_init(&x);
	debug_exit_new(&x.env, 0xf4, exit_value, &value);
	mem_pio_write(x.env.mem, 0xf4, 4, 0x12345678);
	assert_int_equal(value, 0x12345678);
	scratch_fini(&x);
}

static void debug_console_writes_to_its_port(void **state)
{
	struct scratch x;
	struct loop *loop = loop_new(NULL);
	struct chardev *c = chardev_new(loop);
	char text[8] = {0};
	int fds[2];

	(void)state;
	scratch_init(&x);
	assert_int_equal(pipe(fds), 0);
	assert_int_equal(
		chardev_add_port(c, &(struct chardev_port){.in_fd = -1,
							   .out_fd = fds[1],
							   .owns_fds = true}),
		0);
	debugcon_new(&x.env, 0xe9, c);
	assert_int_equal(in8(&x, 0xe9), 0xe9);
	out8(&x, 0xe9, 'o');
	out8(&x, 0xe9, 'k');
	assert_int_equal(read(fds[0], text, sizeof(text)), 2);
	assert_string_equal(text, "ok");
	scratch_fini(&x);
	chardev_free(c);
	close(fds[0]);
	loop_free(loop);
}

static void isa_testdev_drives_lines_and_keeps_scratch(void **state)
{
	struct scratch x;

	(void)state;
	scratch_init(&x);
	irq_router_connect(x.env.router, 14, scratch_line(&x, 14));
	isa_testdev_new(&x.env);
	out8(&x, 0x200e, 1);
	assert_true(x.line[14]);
	out8(&x, 0x200e, 0);
	assert_false(x.line[14]);
	mem_pio_write(x.env.mem, 0xe0, 4, 0xdeadbeef);
	assert_int_equal(mem_pio_read(x.env.mem, 0xe0, 4), 0xdeadbeef);
	mem_mmio_write(x.env.mem, 0xff00fff8, 8, 0x1122334455667788);
	assert_int_equal(mem_mmio_read(x.env.mem, 0xff00fffc, 2), 0x3344);
	scratch_fini(&x);
}

static void pci_testdev_setup(struct scratch *x)
{
	struct pci_bus_config cfg = {
		.mem = x->env.mem,
		.router = x->env.router,
		.ecam_base = 0xb0000000,
		.mmio32_base = 0xc0000000,
		.mmio32_size = 0x10000,
		.pio_base = 0xc000,
		.pio_size = 0x1000,
	};
	struct pci_bus *bus = pci_bus_new(&cfg, &x->devices, NULL);

	assert_non_null(bus);
	assert_int_equal(pci_testdev_new(&x->env, bus, 1, NULL), 0);
}

static void pci_testdev_counts_writes(void **state)
{
	struct scratch x;
	struct mem *m;
	u64 bar;

	(void)state;
	scratch_init(&x);
	m = x.env.mem;
	pci_testdev_setup(&x);
	bar = mem_mmio_read(m, 0xb0008010, 4);
	for (int n = 0; n < 2; n++) {
		u32 at;

		mem_mmio_write(m, bar, 1, n);
		assert_int_equal(mem_mmio_read(m, bar + 12, 4), 0);
		assert_int_equal(mem_mmio_read(m, bar + 1, 1), 1);
		at = mem_mmio_read(m, bar + 4, 4);
		for (int i = 0; i < 16; i++)
			mem_mmio_write(m, bar + at, 1,
				       mem_mmio_read(m, bar + 8, 4));
		assert_int_equal(mem_mmio_read(m, bar + 12, 4), 16);
		mem_mmio_write(m, bar + at, 1, 0);
		assert_int_equal(mem_mmio_read(m, bar + 12, 4), 16 + !n);
	}
	mem_mmio_write(m, bar, 1, 2);
	assert_int_equal(mem_mmio_read(m, bar + 1, 1), 0);
	scratch_fini(&x);
}

static void all_test_devices(struct scratch *x)
{
	scratch_init(x);
	fwcfg_set(fwcfg_new(&x->env), FWCFG_CPUS, "\1\0", 2);
	isa_testdev_new(&x->env);
	debugcon_new(&x->env, 0xe9, NULL);
	pci_testdev_setup(x);
}

static void list_state(void *opaque, struct state *s)
{
	device_list_state(&((struct scratch *)opaque)->devices, s);
}

static void test_device_states_round_trip(void **state)
{
	struct scratch a, b;
	struct err err = {0};

	(void)state;
	all_test_devices(&a);
	all_test_devices(&b);
	mem_pio_write(a.env.mem, 0x510, 2, FWCFG_CPUS);
	in8(&a, 0x511);
	out8(&a, 0x2007, 1);
	mem_pio_write(a.env.mem, 0xe0, 4, 0xdeadbeef);
	mem_mmio_write(a.env.mem, 0xff000123, 4, 0xdeadbeef);
	mem_pio_write(a.env.mem, 0xc000, 1, 1);
	if (state_check_round_trip(list_state, &a, &b, &err))
		fail_msg("%s", err.text);
	scratch_fini(&a);
	scratch_fini(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fwcfg_signature_and_files_are_read_by_port),
		cmocka_unit_test(fwcfg_dma_reads_and_refuses_what_is_not_ram),
		cmocka_unit_test(debug_exit_reports_the_value),
		cmocka_unit_test(debug_console_writes_to_its_port),
		cmocka_unit_test(isa_testdev_drives_lines_and_keeps_scratch),
		cmocka_unit_test(pci_testdev_counts_writes),
		cmocka_unit_test(test_device_states_round_trip),
	};

	return test_run("hw-extra", tests);
}
