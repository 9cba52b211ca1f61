/* SPDX-License-Identifier: Apache-2.0 */
#include "hw/acpi_pm.h"
#include "hw/hw_scratch.h"
#include "hw/i8254.h"
#include "hw/i8259.h"
#include "hw/ioapic.h"
#include "hw/reset_ctl.h"
#include "hw/rtc.h"
#include "hw/uart16550.h"
#include "state/state_check.h"
#include "test/test.h"

/* ---- 8259 ---- */

static void pic_program(struct scratch *x)
{
	static const u8 words[][2] = {
		{0x11, 0x11}, {0x20, 0x28}, {4, 2}, {1, 1}};

	for (int i = 0; i < 4; i++) {
		out8(x, i ? 0x21 : 0x20, words[i][0]);
		out8(x, i ? 0xa1 : 0xa0, words[i][1]);
	}
}

static void pic_acknowledges_by_priority_and_waits_for_eoi(void **state)
{
	struct scratch x;
	struct i8259 *p;
	struct irq l3, l10;

	(void)state;
	scratch_init(&x);
	p = i8259_new(&x.env, scratch_line(&x, 0));
	pic_program(&x);
	l3 = i8259_input(p, 3);
	l10 = i8259_input(p, 10);
	irq_set(&l3, true);
	irq_set(&l10, true);
	assert_true(x.line[0]);
	assert_int_equal(i8259_ack(p), 0x2a); /* the slave is input 2 */
	assert_false(x.line[0]);
	out8(&x, 0xa0, 0x20);
	assert_false(x.line[0]);
	out8(&x, 0x20, 0x20);
	assert_true(x.line[0]);
	assert_int_equal(i8259_ack(p), 0x23);
	out8(&x, 0x20, 0x0b);
	assert_int_equal(in8(&x, 0x20), 8);
	out8(&x, 0x20, 0x63);
	assert_int_equal(in8(&x, 0x20), 0);
	assert_int_equal(i8259_ack(p), 0x27); /* spurious */
	scratch_fini(&x);
}

static void pic_masked_input_waits_and_level_input_repeats(void **state)
{
	struct scratch x;
	struct i8259 *p;
	struct irq l5;

	(void)state;
	scratch_init(&x);
	p = i8259_new(&x.env, scratch_line(&x, 0));
	pic_program(&x);
	out8(&x, 0x4d0, 0xff);
	assert_int_equal(in8(&x, 0x4d0), 0xf8);
	l5 = i8259_input(p, 5);
	out8(&x, 0x21, 0x20);
	irq_set(&l5, true);
	assert_false(x.line[0]);
	out8(&x, 0x21, 0);
	assert_int_equal(i8259_ack(p), 0x25);
	out8(&x, 0x20, 0x20);
	assert_true(x.line[0]);
	irq_set(&l5, false);
	assert_false(x.line[0]);
	scratch_fini(&x);
}

/* ---- I/O APIC ---- */

static u32 ioapic_in(struct scratch *x, u8 reg)
{
	mem_mmio_write(x->env.mem, IOAPIC_BASE, 4, reg);
	return mem_mmio_read(x->env.mem, IOAPIC_BASE + 0x10, 4);
}

static void ioapic_out(struct scratch *x, u8 reg, u32 v)
{
	mem_mmio_write(x->env.mem, IOAPIC_BASE, 4, reg);
	mem_mmio_write(x->env.mem, IOAPIC_BASE + 0x10, 4, v);
}

static void ioapic_edge_sends_once_and_never_while_masked(void **state)
{
	struct scratch x;
	struct irq pin;

	(void)state;
	scratch_init(&x);
	pin = ioapic_input(ioapic_new(&x.env, 0), 14);
	irq_set(&pin, true);
	irq_set(&pin, false);
	ioapic_out(&x, 0x10 + 29, 3u << 24);
	ioapic_out(&x, 0x10 + 28, 0x976);
	assert_int_equal(x.msis, 0);
	irq_set(&pin, true);
	irq_set(&pin, true);
	assert_int_equal(x.msis, 1);
	assert_int_equal(x.msi_addr, 0xfee0300c);
	assert_int_equal(x.msi_data, 0x4176);
	scratch_fini(&x);
}

static void ioapic_level_sets_remote_irr_and_repeats_after_eoi(void **state)
{
	struct scratch x;
	struct ioapic *a;
	struct irq pin;

	(void)state;
	scratch_init(&x);
	a = ioapic_new(&x.env, 0);
	pin = ioapic_input(a, 14);
	ioapic_out(&x, 0x10 + 28, 0x8077);
	irq_set(&pin, true);
	irq_set(&pin, false);
	irq_set(&pin, true);
	assert_int_equal(x.msis, 1);
	assert_int_equal(ioapic_in(&x, 0x10 + 28), 0xc077);
	ioapic_eoi(a, 0x78);
	assert_int_equal(x.msis, 1);
	ioapic_eoi(a, 0x77);
	assert_int_equal(x.msis, 2);
	irq_set(&pin, false);
	mem_mmio_write(x.env.mem, IOAPIC_BASE + 0x40, 4, 0x77);
	assert_int_equal(x.msis, 2);
	assert_int_equal(ioapic_in(&x, 0x10 + 28), 0x8077);
	scratch_fini(&x);
}

static void ioapic_id_has_four_writable_bits(void **state)
{
	struct scratch x;

	(void)state;
	scratch_init(&x);
	ioapic_new(&x.env, 0);
	ioapic_out(&x, 0, 0xffffffff);
	assert_int_equal(ioapic_in(&x, 0), 0x0f000000);
	assert_int_equal(ioapic_in(&x, 2), 0x0f000000);
	ioapic_out(&x, 1, 0);
	assert_int_equal(ioapic_in(&x, 1), 0x170020);
	scratch_fini(&x);
}

/* ---- 8254 ---- */

static void pit_channel_0_ticks_periodically(void **state)
{
	struct scratch x;

	(void)state;
	scratch_init(&x);
	i8254_new(&x.env, scratch_line(&x, 0));
	out8(&x, 0x43, 0x34);
	out8(&x, 0x40, 0xa9); /* 1193 ticks: 1 ms */
	out8(&x, 0x40, 0x04);
	hw_clock_advance(&x.clock, 100500000);
	assert_int_equal(x.rises[0], 100);
	scratch_fini(&x);
}

static void pit_interrupt_rate_is_bounded(void **state)
{
	struct scratch x;

	(void)state;
	scratch_init(&x);
	i8254_new(&x.env, scratch_line(&x, 0));
	out8(&x, 0x43, 0x14);
	out8(&x, 0x40, 1);
	hw_clock_advance(&x.clock, 10000000);
	assert_in_range(x.rises[0], 50, 100);
	scratch_fini(&x);
}

static void pit_channel_2_is_seen_at_port_61(void **state)
{
	struct scratch x;

	(void)state;
	scratch_init(&x);
	i8254_new(&x.env, scratch_line(&x, 0));
	out8(&x, 0x61, 1);
	out8(&x, 0x43, 0xb0);
	out8(&x, 0x42, 0xa9);
	out8(&x, 0x42, 0x04);
	assert_int_equal(in8(&x, 0x61) & 0x20, 0);
	hw_clock_advance(&x.clock, 500000);
	out8(&x, 0x43, 0x80);
	assert_in_range(in8(&x, 0x42) | in8(&x, 0x42) << 8, 590, 600);
	hw_clock_advance(&x.clock, 510000);
	assert_int_equal(in8(&x, 0x61) & 0x20, 0x20);
	scratch_fini(&x);
}

/* ---- clock ---- */

static u8 rtc_in(struct scratch *x, u8 reg)
{
	out8(x, 0x70, reg);
	return in8(x, 0x71);
}

static void rtc_out(struct scratch *x, u8 reg, u8 v)
{
	out8(x, 0x70, reg);
	out8(x, 0x71, v);
}

static void rtc_gives_utc_in_bcd_and_takes_a_new_time(void **state)
{
	struct scratch x;

	(void)state;
	scratch_init(&x);
	rtc_new(&x.env, scratch_line(&x, 8));
	assert_int_equal(rtc_in(&x, 0), 0x56);
	assert_int_equal(rtc_in(&x, 4), 0x12);
	assert_int_equal(rtc_in(&x, 7), 0x29);
	assert_int_equal(rtc_in(&x, 8), 0x02);
	assert_int_equal(rtc_in(&x, 9), 0x24);
	assert_int_equal(rtc_in(&x, 0x32), 0x20);
	rtc_out(&x, 11, 0x82);
	rtc_out(&x, 4, 0x23);
	rtc_out(&x, 2, 0x59);
	rtc_out(&x, 0, 0x59);
	rtc_out(&x, 11, 0x02);
	hw_clock_advance(&x.clock, NS_PER_SEC);
	assert_int_equal(rtc_in(&x, 4), 0);
	assert_int_equal(rtc_in(&x, 7), 0x01);
	assert_int_equal(rtc_in(&x, 8), 0x03);
	scratch_fini(&x);
}

static void rtc_register_d_is_read_only(void **state)
{
	struct scratch x;

	(void)state;
	scratch_init(&x);
	rtc_new(&x.env, scratch_line(&x, 8));
	rtc_out(&x, 13, 0);
	assert_int_equal(rtc_in(&x, 13), 0x80);
	scratch_fini(&x);
}

static void rtc_interrupts_until_register_c_is_read(void **state)
{
	struct scratch x;

	(void)state;
	scratch_init(&x);
	rtc_new(&x.env, scratch_line(&x, 8));
	rtc_out(&x, 11, 0x12);
	hw_clock_advance(&x.clock, NS_PER_SEC + 1);
	assert_true(x.line[8]);
	assert_int_equal(rtc_in(&x, 12) & 0x90, 0x90);
	assert_false(x.line[8]);
	assert_int_equal(rtc_in(&x, 12), 0);
	rtc_out(&x, 11, 0x42);
	hw_clock_advance(&x.clock, 1000000);
	assert_true(x.line[8]);
	assert_int_equal(rtc_in(&x, 12) & 0x40, 0x40);
	scratch_fini(&x);
}

/* ---- UART ---- */

static void uart_receives_what_fits_and_interrupts(void **state)
{
	struct scratch x;
	struct uart16550 *u;

	(void)state;
	scratch_init(&x);
	u = uart16550_new(&x.env, "uart0", 0x3f8, scratch_line(&x, 4), NULL);
	out8(&x, 0x3fa, 0x01);
	out8(&x, 0x3f9, 0x01);
	assert_int_equal(uart_receive(u, "0123456789abcdefgh", 18), 16);
	assert_true(x.line[4]);
	assert_int_equal(in8(&x, 0x3fa), 0xc4);
	for (int i = 0; i < 16; i++)
		assert_int_equal(in8(&x, 0x3f8), "0123456789abcdef"[i]);
	assert_false(x.line[4]);
	assert_int_equal(in8(&x, 0x3fd), 0x60);
	scratch_fini(&x);
}

static void uart_thre_interrupt_is_cleared_by_iir(void **state)
{
	struct scratch x;

	(void)state;
	scratch_init(&x);
	uart16550_new(&x.env, "uart0", 0x3f8, scratch_line(&x, 4), NULL);
	out8(&x, 0x3f9, 0x02);
	assert_true(x.line[4]);
	assert_int_equal(in8(&x, 0x3fa), 0x02);
	assert_false(x.line[4]);
	assert_int_equal(in8(&x, 0x3fa), 0x01);
	out8(&x, 0x3f8, 'x');
	assert_true(x.line[4]);
	scratch_fini(&x);
}

static void uart_loopback_returns_bytes_and_modem_lines(void **state)
{
	struct scratch x;

	(void)state;
	scratch_init(&x);
	uart16550_new(&x.env, "uart0", 0x3f8, scratch_line(&x, 4), NULL);
	out8(&x, 0x3fc, 0x1a);
	assert_int_equal(in8(&x, 0x3fe) & 0xf0, 0x90);
	out8(&x, 0x3f8, 0x5a);
	assert_int_equal(in8(&x, 0x3fd) & 1, 1);
	assert_int_equal(in8(&x, 0x3f8), 0x5a);
	scratch_fini(&x);
}

/* ---- power and reset ---- */

static void acpi_s5_powers_off_and_the_button_raises_sci(void **state)
{
	struct scratch x;
	struct acpi_pm *pm;

	(void)state;
	scratch_init(&x);
	pm = acpi_pm_new(&x.env, scratch_line(&x, 9),
			 (struct hw_request){scratch_request, &x});
	acpi_pm_power_button(pm);
	assert_false(x.line[9]);
	mem_pio_write(x.env.mem, 0x602, 2, 0x100);
	assert_true(x.line[9]);
	mem_pio_write(x.env.mem, 0x600, 2, 0x100);
	assert_false(x.line[9]);
	mem_pio_write(x.env.mem, 0x604, 2, 5 << 10);
	mem_pio_write(x.env.mem, 0x604, 2, 1 << 13 | 1 << 10);
	assert_int_equal(x.requests, 0);
	mem_pio_write(x.env.mem, 0x604, 2, 1 << 13 | 5 << 10);
	assert_int_equal(x.requests, 1);
	assert_int_equal(mem_pio_read(x.env.mem, 0x604, 2) & 1, 1);
	scratch_fini(&x);
}

static void acpi_timer_runs_at_its_rate(void **state)
{
	struct scratch x;

	(void)state;
	scratch_init(&x);
	acpi_pm_new(&x.env, scratch_line(&x, 9), (struct hw_request){0});
	hw_clock_advance(&x.clock, 2 * NS_PER_SEC);
	assert_int_equal(mem_pio_read(x.env.mem, 0x608, 4), 2 * 3579545);
	scratch_fini(&x);
}

static void reset_is_requested_once_until_it_happens(void **state)
{
	struct scratch x;

	(void)state;
	scratch_init(&x);
	i8042_new(&x.env, scratch_line(&x, 1),
		  (struct hw_request){scratch_request, &x});
	for (int i = 0; i < 100; i++)
		out8(&x, 0x64, 0xfe);
	assert_int_equal(x.requests, 1);
	device_list_reset(&x.devices);
	out8(&x, 0x64, 0xfe);
	assert_int_equal(x.requests, 2);
	scratch_fini(&x);
}

static void i8042_answers_self_test(void **state)
{
	struct scratch x;

	(void)state;
	scratch_init(&x);
	i8042_new(&x.env, scratch_line(&x, 1), (struct hw_request){0});
	assert_int_equal(in8(&x, 0x64) & 1, 0);
	out8(&x, 0x64, 0xaa);
	assert_int_equal(in8(&x, 0x64) & 1, 1);
	assert_int_equal(in8(&x, 0x60), 0x55);
	for (int i = 0; i < 100; i++)
		out8(&x, 0x60, 0xff);
	for (int i = 0; i < 8; i++)
		in8(&x, 0x60);
	assert_int_equal(in8(&x, 0x64) & 1, 0);
	scratch_fini(&x);
}

/* ---- every chip ---- */

static void all_chips(struct scratch *x)
{
	struct hw_request none = {0};

	scratch_init(x);
	i8259_new(&x->env, scratch_line(x, 0));
	ioapic_new(&x->env, 0);
	i8254_new(&x->env, scratch_line(x, 1));
	rtc_new(&x->env, scratch_line(x, 8));
	uart16550_new(&x->env, "uart0", 0x3f8, scratch_line(x, 4), NULL);
	acpi_pm_new(&x->env, scratch_line(x, 9), none);
	reset_ctl_new(&x->env, NULL, none);
	i8042_new(&x->env, scratch_line(x, 12), none);
}

static void list_state(void *opaque, struct state *s)
{
	device_list_state(&((struct scratch *)opaque)->devices, s);
}

static void scribble(struct scratch *x, u32 seed)
{
	static const u16 ports[] = {0x20,  0x40,  0x60,	 0x70,	0x90, 0xa0,
				    0x3f8, 0x4d0, 0x600, 0x608, 0x620};
	u32 r = seed * 2654435761u + 12345;

	for (int i = 0; i < 2000; i++) {
		u16 port;

		r = r * 1664525 + 1013904223;
		port = ports[(r >> 8) % ARRAY_SIZE(ports)] + (r >> 16 & 7);
		if (r >> 31)
			mem_pio_write(x->env.mem, port, 1 << (r >> 24 & 1),
				      r >> 5);
		else
			mem_pio_read(x->env.mem, port, 1);
		if (r >> 29 == 2)
			ioapic_out(x, r >> 9, r * 7);
		if (r >> 28 == 3)
			hw_clock_advance(&x->clock, r >> 10);
	}
}

static void every_chip_state_round_trips_after_random_writes(void **state)
{
	(void)state;
	for (u32 seed = 0; seed < 8; seed++) {
		struct scratch a, b;
		struct err err = {0};

		all_chips(&a);
		all_chips(&b);
		scribble(&a, seed);
		b.clock.stopped_ns = a.clock.stopped_ns;
		b.clock.stopped_wall_ns = a.clock.stopped_wall_ns;
		if (state_check_round_trip(list_state, &a, &b, &err))
			fail_msg("seed %u: %s", seed, err.text);
		scratch_fini(&a);
		scratch_fini(&b);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			pic_acknowledges_by_priority_and_waits_for_eoi),
		cmocka_unit_test(
			pic_masked_input_waits_and_level_input_repeats),
		cmocka_unit_test(ioapic_edge_sends_once_and_never_while_masked),
		cmocka_unit_test(
			ioapic_level_sets_remote_irr_and_repeats_after_eoi),
		cmocka_unit_test(ioapic_id_has_four_writable_bits),
		cmocka_unit_test(pit_channel_0_ticks_periodically),
		cmocka_unit_test(pit_interrupt_rate_is_bounded),
		cmocka_unit_test(pit_channel_2_is_seen_at_port_61),
		cmocka_unit_test(rtc_gives_utc_in_bcd_and_takes_a_new_time),
		cmocka_unit_test(rtc_register_d_is_read_only),
		cmocka_unit_test(rtc_interrupts_until_register_c_is_read),
		cmocka_unit_test(uart_receives_what_fits_and_interrupts),
		cmocka_unit_test(uart_thre_interrupt_is_cleared_by_iir),
		cmocka_unit_test(uart_loopback_returns_bytes_and_modem_lines),
		cmocka_unit_test(acpi_s5_powers_off_and_the_button_raises_sci),
		cmocka_unit_test(acpi_timer_runs_at_its_rate),
		cmocka_unit_test(reset_is_requested_once_until_it_happens),
		cmocka_unit_test(i8042_answers_self_test),
		cmocka_unit_test(
			every_chip_state_round_trips_after_random_writes),
	};

	return test_run("hw", tests);
}
