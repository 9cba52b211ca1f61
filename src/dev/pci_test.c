/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "dev/pci_toy.h"
#include "state/state_check.h"
#include "test/test.h"

static struct toy_machine *machine_with(struct toy **out)
{
	struct toy_machine *tm = malloc(sizeof(*tm));

	ASSERT(tm);
	toy_machine_init(tm);
	*out = toy_new("toy0");
	assert_int_equal(pci_plug(tm->bus, &(*out)->pci, 2, NULL), 0);
	return tm;
}

static void machine_free(struct toy_machine *tm)
{
	toy_machine_fini(tm);
	free(tm);
}

static u32 cfg_read(struct toy_machine *tm, u32 reg, unsigned size)
{
	return mem_mmio_read(tm->mem, toy_cfg(2, reg), size);
}

static void cfg_write(struct toy_machine *tm, u32 reg, unsigned size, u32 v)
{
	mem_mmio_write(tm->mem, toy_cfg(2, reg), size, v);
}

static void identity_is_seen_through_ecam_and_type1(void **state)
{
	struct toy *t;
	struct toy_machine *tm = machine_with(&t);

	(void)state;
	assert_int_equal(cfg_read(tm, 0, 4), 0x56781234);
	assert_int_equal(cfg_read(tm, 8, 4), 0xff010203);
	assert_int_equal(cfg_read(tm, 0x2c, 4), 0xdef09abc);
	mem_pio_write(tm->mem, 0xcf8, 4, 0x80001000);
	assert_int_equal(mem_pio_read(tm->mem, 0xcfc, 4), 0x56781234);
	assert_int_equal(mem_pio_read(tm->mem, 0xcfe, 2), 0x5678);
	mem_pio_write(tm->mem, 0xcf8, 4, 0x00001000);
	assert_int_equal(mem_pio_read(tm->mem, 0xcfc, 4), 0xffffffff);
	machine_free(tm);
}

static void absent_functions_read_all_ones(void **state)
{
	struct toy *t;
	struct toy_machine *tm = machine_with(&t);

	(void)state;
	assert_int_equal(mem_mmio_read(tm->mem, toy_cfg(3, 0), 4), 0xffffffff);
	assert_int_equal(cfg_read(tm, 0x1000, 4), 0xffffffff);
	mem_pio_write(tm->mem, 0xcf8, 4, 0x80011000);
	assert_int_equal(mem_pio_read(tm->mem, 0xcfc, 4), 0xffffffff);
	machine_free(tm);
}

static void identity_is_read_only(void **state)
{
	struct toy *t;
	struct toy_machine *tm = machine_with(&t);

	(void)state;
	cfg_write(tm, 0, 4, 0);
	cfg_write(tm, 8, 4, 0);
	cfg_write(tm, 0x34, 4, 0);
	assert_int_equal(cfg_read(tm, 0, 4), 0x56781234);
	assert_int_equal(cfg_read(tm, 8, 4), 0xff010203);
	assert_int_equal(cfg_read(tm, 0x34, 1), 0x40);
	machine_free(tm);
}

static void bars_size_as_the_specification_says(void **state)
{
	static const struct {
		u32 reg, mask;
	} rows[] = {{0x10, 0xfffff000}, {0x14, 0xfffff000}, {0x18, 0xffffc00c},
		    {0x1c, 0xffffffff}, {0x20, 0xffffffe1}, {0x24, 0}};
	struct toy *t;
	struct toy_machine *tm = machine_with(&t);

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		u32 was = cfg_read(tm, rows[i].reg, 4);

		cfg_write(tm, rows[i].reg, 4, 0xffffffff);
		assert_int_equal(cfg_read(tm, rows[i].reg, 4), rows[i].mask);
		cfg_write(tm, rows[i].reg, 4, was);
		assert_int_equal(cfg_read(tm, rows[i].reg, 4), was);
	}
	machine_free(tm);
}

static void bars_are_assigned_and_decoded_at_plug(void **state)
{
	struct toy *t;
	struct toy_machine *tm = machine_with(&t);
	u64 b0 = cfg_read(tm, 0x10, 4), b4 = cfg_read(tm, 0x20, 4) & ~3;
	u64 b2 = cfg_read(tm, 0x18, 4) & ~15;

	(void)state;
	b2 |= (u64)cfg_read(tm, 0x1c, 4) << 32;
	assert_in_range(b0, TOY_MMIO32, TOY_MMIO32 + 0xf000);
	assert_true(b2 >= TOY_MMIO64);
	assert_int_equal(mem_mmio_read(tm->mem, b0 + 4, 4), 0xa4);
	assert_int_equal(mem_mmio_read(tm->mem, b2 + 8, 4), 0xa8);
	assert_int_equal(mem_pio_read(tm->mem, b4 + 1, 1), 0xa1);
	cfg_write(tm, 4, 2, 1);
	assert_int_equal(mem_mmio_read(tm->mem, b0, 4), 0xffffffff);
	assert_int_equal(mem_pio_read(tm->mem, b4, 1), 0xa0);
	cfg_write(tm, 4, 2, 2);
	assert_int_equal(mem_mmio_read(tm->mem, b0, 4), 0xa0);
	assert_int_equal(mem_pio_read(tm->mem, b4, 1), 0xff);
	machine_free(tm);
}

static void bar_outside_the_windows_is_not_mapped(void **state)
{
	static const u32 bad[] = {0,
				  0x1000,
				  0xfee00000,
				  0xfffff000,
				  TOY_MMIO32 - 0x1000,
				  TOY_MMIO32 + 0x10000,
				  TOY_ECAM};
	struct toy *t;
	struct toy_machine *tm = machine_with(&t);

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		cfg_write(tm, 0x10, 4, bad[i]);
		assert_false(t->pci.bars[0].region.is_mapped);
	}
	cfg_write(tm, 0x10, 4, TOY_MMIO32 + 0xf000);
	assert_int_equal(mem_mmio_read(tm->mem, TOY_MMIO32 + 0xf000, 4), 0xa0);
	cfg_write(tm, 0x1c, 4, 0xffffffff);
	cfg_write(tm, 0x18, 4, 0xffffffff);
	assert_false(t->pci.bars[2].region.is_mapped);
	machine_free(tm);
}

static void overlapping_bar_appears_when_the_other_moves_away(void **state)
{
	struct toy *t, *u = toy_new("toy1");
	struct toy_machine *tm = machine_with(&t);
	u32 at = cfg_read(tm, 0x10, 4);

	(void)state;
	assert_int_equal(pci_plug(tm->bus, &u->pci, -1, NULL), 0);
	assert_int_equal(u->pci.slot, 1);
	mem_mmio_write(tm->mem, toy_cfg(1, 0x10), 4, at);
	assert_false(u->pci.bars[0].region.is_mapped);
	mem_mmio_read(tm->mem, at, 4);
	assert_int_equal(t->reads, 1);
	cfg_write(tm, 0x10, 4, TOY_MMIO32 + 0xf000);
	mem_mmio_read(tm->mem, at, 4);
	assert_int_equal(u->reads, 1);
	assert_int_equal(t->reads, 1);
	machine_free(tm);
}

static void assigned_bars_never_overlap(void **state)
{
	struct toy *t;
	struct toy_machine *tm = machine_with(&t);
	int plugged = 0;

	(void)state;
	for (int i = 0; i < 12; i++) {
		char name[16];
		struct toy *u;

		snprintf(name, sizeof(name), "more%d", i);
		u = toy_new(name);
		if (pci_plug(tm->bus, &u->pci, -1, NULL)) {
			free(u);
			break;
		}
		plugged++;
		for (int n = 0; n < PCI_BARS; n++)
			assert_int_equal(u->pci.bars[n].region.is_mapped,
					 u->pci.bars[n].size != 0);
	}
	/* The 64 KiB window holds 16 pages: two a toy, one toy was there. */
	assert_int_equal(plugged, 7);
	machine_free(tm);
}

static void plug_refuses_a_taken_slot(void **state)
{
	struct toy *t, *u = toy_new("toy1");
	struct toy_machine *tm = machine_with(&t);
	struct err err = {0};

	(void)state;
	assert_int_equal(pci_plug(tm->bus, &u->pci, 2, &err), -EBUSY);
	assert_int_equal(pci_plug(tm->bus, &u->pci, 32, &err), -EINVAL);
	free(u);
	machine_free(tm);
}

static void unplug_leaves_no_trace_and_the_slot_is_reusable(void **state)
{
	struct toy *t;
	struct toy_machine *tm = machine_with(&t);
	u32 at = cfg_read(tm, 0x10, 4);

	(void)state;
	for (int i = 0; i < 100; i++) {
		pci_intx_set(&t->pci, true);
		pci_unplug(&t->pci);
		assert_false(tm->gsi[18]);
		assert_int_equal(cfg_read(tm, 0, 4), 0xffffffff);
		assert_int_equal(mem_mmio_read(tm->mem, at, 4), 0xffffffff);
		assert_null(device_list_find(&tm->devices, "toy0"));
		assert_int_equal(pci_plug(tm->bus, &t->pci, 2, NULL), 0);
		assert_int_equal(cfg_read(tm, 0x10, 4), at);
	}
	machine_free(tm);
}

static void intx_follows_status_disable_bit_and_swizzle(void **state)
{
	struct toy *t;
	struct toy_machine *tm = machine_with(&t);

	(void)state;
	pci_intx_set(&t->pci, true);
	assert_true(tm->gsi[18]);
	assert_true(cfg_read(tm, 6, 2) & 8);
	cfg_write(tm, 4, 2, 0x403);
	assert_false(tm->gsi[18]);
	assert_true(cfg_read(tm, 6, 2) & 8);
	cfg_write(tm, 4, 2, 3);
	assert_true(tm->gsi[18]);
	pci_intx_set(&t->pci, false);
	assert_false(tm->gsi[18]);
	machine_free(tm);
}

static u32 find_cap(struct toy_machine *tm, u8 id)
{
	u32 at = cfg_read(tm, 0x34, 1);

	assert_true(cfg_read(tm, 6, 2) & 0x10);
	while (at && cfg_read(tm, at, 1) != id)
		at = cfg_read(tm, at + 1, 1);
	return at;
}

static void capabilities_are_chained(void **state)
{
	struct toy_machine *tm = malloc(sizeof(*tm));
	struct toy *t = toy_new("toy0");
	u8 cap[16] = {[4] = 0x55};

	(void)state;
	pci_cap_add(&t->pci, 0x09, cap, 13);
	pci_cap_add(&t->pci, 0x0a, NULL, 16);
	toy_machine_init(tm);
	assert_int_equal(pci_plug(tm->bus, &t->pci, 2, NULL), 0);
	assert_int_equal(find_cap(tm, 0x11), 0x40);
	assert_int_equal(cfg_read(tm, find_cap(tm, 0x09) + 4, 1), 0x55);
	assert_int_equal(find_cap(tm, 0x0a) & 3, 0);
	assert_int_equal(find_cap(tm, 0x77), 0);
	machine_free(tm);
}

static u64 msix_setup(struct toy_machine *tm)
{
	u64 bar = cfg_read(tm, 0x14, 4);
	u32 cap = find_cap(tm, 0x11);

	assert_int_equal(cfg_read(tm, cap + 2, 2), 3);
	cfg_write(tm, 4, 2, 6);
	cfg_write(tm, cap + 2, 2, 0x8000);
	for (int n = 0; n < 4; n++) {
		mem_mmio_write(tm->mem, bar + 16 * n, 8, 0xfee00000 + 4096 * n);
		mem_mmio_write(tm->mem, bar + 16 * n + 8, 4, 0x40 + n);
	}
	return bar;
}

static void masked_vector_pends_and_is_sent_on_unmask(void **state)
{
	struct toy *t;
	struct toy_machine *tm = machine_with(&t);
	u64 bar = msix_setup(tm);

	(void)state;
	for (int i = 0; i < 1000; i++)
		pci_msix_send(&t->pci, 2);
	assert_int_equal(tm->msis, 0);
	assert_int_equal(mem_mmio_read(tm->mem, bar + 0x800, 8), 4);
	assert_int_equal(mem_mmio_read(tm->mem, bar + 0x800, 4), 4);
	mem_mmio_write(tm->mem, bar + 2 * 16 + 12, 4, 0xfffffffe);
	assert_int_equal(tm->msis, 1);
	assert_int_equal(tm->msi_addr, 0xfee02000);
	assert_int_equal(tm->msi_data, 0x42);
	assert_int_equal(mem_mmio_read(tm->mem, bar + 0x800, 8), 0);
	assert_int_equal(mem_mmio_read(tm->mem, bar + 2 * 16 + 12, 4), 0);
	pci_msix_send(&t->pci, 2);
	assert_int_equal(tm->msis, 2);
	machine_free(tm);
}

static void function_mask_holds_back_every_vector(void **state)
{
	struct toy *t;
	struct toy_machine *tm = machine_with(&t);
	u64 bar = msix_setup(tm);
	u32 cap = find_cap(tm, 0x11);

	(void)state;
	for (int n = 0; n < 4; n++)
		mem_mmio_write(tm->mem, bar + 16 * n + 12, 4, n == 3);
	cfg_write(tm, cap + 2, 2, 0xc000);
	for (int n = 0; n < 4; n++)
		pci_msix_send(&t->pci, n);
	assert_int_equal(tm->msis, 0);
	cfg_write(tm, cap + 3, 1, 0x80);
	assert_int_equal(tm->msis, 3);
	assert_int_equal(mem_mmio_read(tm->mem, bar + 0x800, 8), 8);
	machine_free(tm);
}

static void msix_drops_what_cannot_be_sent(void **state)
{
	struct toy *t;
	struct toy_machine *tm = machine_with(&t);
	u64 bar;

	(void)state;
	pci_msix_send(&t->pci, 0);
	bar = msix_setup(tm);
	mem_mmio_write(tm->mem, bar + 12, 4, 0);
	pci_msix_send(&t->pci, 4);
	pci_msix_send(&t->pci, 0xffff);
	mem_mmio_write(tm->mem, bar, 8, 0x100000);
	pci_msix_send(&t->pci, 0);
	mem_mmio_write(tm->mem, bar, 8, 0xfee00000);
	cfg_write(tm, 4, 2, 2);
	pci_msix_send(&t->pci, 0);
	assert_int_equal(tm->msis, 0);
	assert_int_equal(t->pci.msix.pending, 0);
	machine_free(tm);
}

static void pba_and_the_rest_of_the_msix_bar_are_read_only(void **state)
{
	struct toy *t;
	struct toy_machine *tm = machine_with(&t);
	u64 bar = msix_setup(tm);

	(void)state;
	for (u64 off = 64; off < 4096; off += 8) {
		mem_mmio_write(tm->mem, bar + off, 8, ~0ull);
		assert_int_equal(mem_mmio_read(tm->mem, bar + off, 8), 0);
	}
	mem_mmio_write(tm->mem, bar + 1, 4, 0);
	mem_mmio_write(tm->mem, bar, 2, 0);
	assert_int_equal(mem_mmio_read(tm->mem, bar, 8), 0xfee00000);
	machine_free(tm);
}

static void reset_returns_to_the_boot_configuration(void **state)
{
	struct toy *t;
	struct toy_machine *tm = machine_with(&t);
	u32 at = cfg_read(tm, 0x10, 4), command = cfg_read(tm, 4, 2);

	(void)state;
	msix_setup(tm);
	pci_intx_set(&t->pci, true);
	cfg_write(tm, 0x10, 4, 0);
	cfg_write(tm, 4, 2, 0x407);
	device_list_reset(&tm->devices);
	assert_int_equal(cfg_read(tm, 0x10, 4), at);
	assert_int_equal(cfg_read(tm, 4, 2), command);
	assert_false(pci_msix_enabled(&t->pci));
	assert_false(tm->gsi[18]);
	assert_int_equal(mem_mmio_read(tm->mem, at, 4), 0xa0);
	machine_free(tm);
}

static void list_state(void *opaque, struct state *s)
{
	struct toy_machine *tm = opaque;

	device_list_state(&tm->devices, s);
}

static void state_round_trips(void **state)
{
	struct toy *t, *u;
	struct toy_machine *a = machine_with(&t), *b = machine_with(&u);
	struct err err = {0};

	(void)state;
	msix_setup(a);
	pci_msix_send(&t->pci, 1);
	cfg_write(a, 0x10, 4, TOY_MMIO32 + 0xf000);
	mem_pio_write(a->mem, 0xcf8, 4, 0x80001000);
	if (state_check_round_trip(list_state, a, b, &err))
		fail_msg("%s", err.text);
	machine_free(a);
	machine_free(b);
}

static void load_maps_bars_and_drives_lines(void **state)
{
	struct toy *t, *u;
	struct toy_machine *a = machine_with(&t), *b = machine_with(&u);
	struct state *s;
	struct buf out;

	(void)state;
	cfg_write(a, 0x10, 4, TOY_MMIO32 + 0xf000);
	pci_intx_set(&t->pci, true);
	buf_init(&out);
	s = state_save_new(&out);
	list_state(a, s);
	assert_int_equal(state_finish(s, NULL), 0);
	s = state_load_new(out.bytes, out.len);
	list_state(b, s);
	assert_int_equal(state_finish(s, NULL), 0);
	assert_true(b->gsi[18]);
	assert_int_equal(mem_mmio_read(b->mem, TOY_MMIO32 + 0xf000, 4), 0xa0);
	buf_fini(&out);
	machine_free(a);
	machine_free(b);
}

static void load_refuses_another_device(void **state)
{
	struct toy *t, *u;
	struct toy_machine *a = machine_with(&t), *b = machine_with(&u);
	struct state *s;
	struct buf out;

	(void)state;
	u->pci.config[2]++;
	buf_init(&out);
	s = state_save_new(&out);
	list_state(a, s);
	assert_int_equal(state_finish(s, NULL), 0);
	s = state_load_new(out.bytes, out.len);
	list_state(b, s);
	assert_int_equal(state_finish(s, NULL), -EINVAL);
	s = state_load_new(out.bytes, out.len);
	pci_unplug(&u->pci);
	list_state(b, s);
	assert_int_equal(state_finish(s, NULL), -EINVAL);
	free(u);
	buf_fini(&out);
	machine_free(a);
	machine_free(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(identity_is_seen_through_ecam_and_type1),
		cmocka_unit_test(absent_functions_read_all_ones),
		cmocka_unit_test(identity_is_read_only),
		cmocka_unit_test(bars_size_as_the_specification_says),
		cmocka_unit_test(bars_are_assigned_and_decoded_at_plug),
		cmocka_unit_test(bar_outside_the_windows_is_not_mapped),
		cmocka_unit_test(
			overlapping_bar_appears_when_the_other_moves_away),
		cmocka_unit_test(assigned_bars_never_overlap),
		cmocka_unit_test(plug_refuses_a_taken_slot),
		cmocka_unit_test(
			unplug_leaves_no_trace_and_the_slot_is_reusable),
		cmocka_unit_test(intx_follows_status_disable_bit_and_swizzle),
		cmocka_unit_test(capabilities_are_chained),
		cmocka_unit_test(masked_vector_pends_and_is_sent_on_unmask),
		cmocka_unit_test(function_mask_holds_back_every_vector),
		cmocka_unit_test(msix_drops_what_cannot_be_sent),
		cmocka_unit_test(
			pba_and_the_rest_of_the_msix_bar_are_read_only),
		cmocka_unit_test(reset_returns_to_the_boot_configuration),
		cmocka_unit_test(state_round_trips),
		cmocka_unit_test(load_maps_bars_and_drives_lines),
		cmocka_unit_test(load_refuses_another_device),
	};

	return test_run("pci", tests);
}
