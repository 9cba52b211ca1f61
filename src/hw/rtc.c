/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY: Motorola MC146818A datasheet
 *
 * The time registers are worked out when read: host UTC + guest_offset. A
 * write sets the offset so that the clock reads as written. While register
 * B's SET bit is on, the registers are plain memory and are taken over when
 * it goes off.
 *
 * One timer, armed only while an interrupt is enabled, stands at the next
 * second or the next periodic tick. With interrupts off, UF and PF are worked
 * out when register C is read; AF then stays clear (nobody polls it).
 *
 * Not modelled: daylight saving, square wave, divider chain reset.
 */
#include "hw/rtc.h"

#include <stdlib.h>
#include <time.h>

#include "base/clock.h"

#define RTC_SECONDS	  0
#define RTC_SECONDS_ALARM 1
#define RTC_MINUTES	  2
#define RTC_MINUTES_ALARM 3
#define RTC_HOURS	  4
#define RTC_HOURS_ALARM	  5
#define RTC_WEEKDAY	  6
#define RTC_DAY		  7
#define RTC_MONTH	  8
#define RTC_YEAR	  9
#define RTC_A		  10
#define RTC_A_UIP	  0x80
#define RTC_B		  11
#define RTC_B_SET	  0x80
#define RTC_B_PIE	  0x40
#define RTC_B_AIE	  0x20
#define RTC_B_UIE	  0x10
#define RTC_B_BINARY	  0x04
#define RTC_B_24H	  0x02
#define RTC_C		  12
#define RTC_C_IRQF	  0x80
#define RTC_C_PF	  0x40
#define RTC_C_AF	  0x20
#define RTC_C_UF	  0x10
#define RTC_D		  13
#define RTC_D_VRT	  0x80
#define RTC_CENTURY	  0x32
#define CMOS_BYTES	  128
#define UPDATE_NS	  2228000 /* UIP leads and covers the update */

struct rtc {
	struct device dev;
	struct mem *mem;
	struct hw_clock *clock;
	struct hw_timer timer;
	struct irq irq8;
	struct io_region ports;
	u8 cmos[CMOS_BYTES];
	u8 index; /* bit 7: NMI masked */
	i64 guest_offset_ns;
	u64 seen_ns; /* guest time up to which flags are worked out */
};

static u64 guest_ns(const struct rtc *r)
{
	return hw_wall(r->clock) + r->guest_offset_ns;
}

/* ---- registers to time and back ---- */

static u8 encode(const struct rtc *r, int v)
{
	return r->cmos[RTC_B] & RTC_B_BINARY ? v : v / 10 << 4 | v % 10;
}

static int decode(const struct rtc *r, u8 v)
{
	return r->cmos[RTC_B] & RTC_B_BINARY ? v : (v >> 4) * 10 + (v & 15);
}

static u8 encode_hour(const struct rtc *r, int hour)
{
	int h;

	if (r->cmos[RTC_B] & RTC_B_24H)
		return encode(r, hour);
	h = hour % 12;
	return encode(r, h ? h : 12) | (hour >= 12 ? 0x80 : 0);
}

static int decode_hour(const struct rtc *r, u8 v)
{
	if (r->cmos[RTC_B] & RTC_B_24H)
		return decode(r, v);
	return decode(r, v & 0x7f) % 12 + (v & 0x80 ? 12 : 0);
}

static void registers_from_time(struct rtc *r)
{
	time_t sec = guest_ns(r) / NS_PER_SEC;
	struct tm tm;

	if (!gmtime_r(&sec, &tm))
		return;
	r->cmos[RTC_SECONDS] = encode(r, tm.tm_sec % 60);
	r->cmos[RTC_MINUTES] = encode(r, tm.tm_min);
	r->cmos[RTC_HOURS] = encode_hour(r, tm.tm_hour);
	r->cmos[RTC_WEEKDAY] = encode(r, tm.tm_wday + 1);
	r->cmos[RTC_DAY] = encode(r, tm.tm_mday);
	r->cmos[RTC_MONTH] = encode(r, tm.tm_mon + 1);
	r->cmos[RTC_YEAR] = encode(r, tm.tm_year % 100);
	r->cmos[RTC_CENTURY] = encode(r, (tm.tm_year / 100 + 19) % 100);
}

static void time_from_registers(struct rtc *r)
{
	struct tm tm = {
		.tm_sec = decode(r, r->cmos[RTC_SECONDS]),
		.tm_min = decode(r, r->cmos[RTC_MINUTES]),
		.tm_hour = decode_hour(r, r->cmos[RTC_HOURS]),
		.tm_mday = decode(r, r->cmos[RTC_DAY]),
		.tm_mon = decode(r, r->cmos[RTC_MONTH]) - 1,
		.tm_year = decode(r, r->cmos[RTC_YEAR]) +
			   decode(r, r->cmos[RTC_CENTURY]) * 100 - 1900,
	};
	time_t sec = timegm(&tm);

	/* Nonsense values still give some time; before 1970 is not kept. */
	if (sec < 0)
		return;
	r->guest_offset_ns = (u64)sec * NS_PER_SEC - hw_wall(r->clock);
	r->seen_ns = guest_ns(r);
}

static bool is_time_register(u8 n)
{
	return n == RTC_CENTURY ||
	       (n <= RTC_YEAR && n != RTC_SECONDS_ALARM &&
		n != RTC_MINUTES_ALARM && n != RTC_HOURS_ALARM);
}

/* ---- interrupts ---- */

/* 0: no periodic interrupt. */
static u64 period_ns(const struct rtc *r)
{
	int rate = r->cmos[RTC_A] & 15;

	if (!rate)
		return 0;
	if (rate < 3)
		rate += 7;
	return (NS_PER_SEC << (rate - 1)) / 32768;
}

static bool alarm_field(const struct rtc *r, u8 alarm, u8 now)
{
	return alarm >= 0xc0 || alarm == now;
}

static bool alarm_matches(struct rtc *r)
{
	registers_from_time(r);
	return alarm_field(r, r->cmos[RTC_SECONDS_ALARM],
			   r->cmos[RTC_SECONDS]) &&
	       alarm_field(r, r->cmos[RTC_MINUTES_ALARM],
			   r->cmos[RTC_MINUTES]) &&
	       alarm_field(r, r->cmos[RTC_HOURS_ALARM], r->cmos[RTC_HOURS]);
}

/* Sets the flags of what has happened since the last call. */
static void flags_update(struct rtc *r)
{
	u64 now = guest_ns(r), period = period_ns(r), was = r->seen_ns;

	r->seen_ns = now;
	if (now <= was)
		return;
	if (period && now / period != was / period)
		r->cmos[RTC_C] |= RTC_C_PF;
	if ((r->cmos[RTC_B] & RTC_B_SET) ||
	    now / NS_PER_SEC == was / NS_PER_SEC)
		return;
	r->cmos[RTC_C] |= RTC_C_UF;
	if ((r->cmos[RTC_B] & RTC_B_AIE) && alarm_matches(r))
		r->cmos[RTC_C] |= RTC_C_AF;
}

static void irq_update(struct rtc *r)
{
	u8 on = r->cmos[RTC_B] & r->cmos[RTC_C] &
		(RTC_C_PF | RTC_C_AF | RTC_C_UF);

	r->cmos[RTC_C] &= ~RTC_C_IRQF;
	if (on)
		r->cmos[RTC_C] |= RTC_C_IRQF;
	irq_set(&r->irq8, on != 0);
}

static void timer_update(struct rtc *r)
{
	u64 now = guest_ns(r), wait = UINT64_MAX, period = period_ns(r);

	hw_timer_disarm(&r->timer);
	if ((r->cmos[RTC_B] & RTC_B_PIE) && period)
		wait = period - now % period;
	if ((r->cmos[RTC_B] & (RTC_B_AIE | RTC_B_UIE)) &&
	    !(r->cmos[RTC_B] & RTC_B_SET))
		wait = MIN(wait, NS_PER_SEC - now % NS_PER_SEC);
	if (wait != UINT64_MAX)
		hw_timer_arm(&r->timer, hw_now(r->clock) + wait);
}

static void timer_fired(void *opaque)
{
	struct rtc *r = opaque;

	flags_update(r);
	irq_update(r);
	timer_update(r);
}

/* ---- ports ---- */

static u8 register_read(struct rtc *r, u8 n)
{
	bool is_set = r->cmos[RTC_B] & RTC_B_SET;
	u8 v;

	if (is_time_register(n) && !is_set)
		registers_from_time(r);
	switch (n) {
	case RTC_A:
		v = r->cmos[RTC_A];
		if (!is_set &&
		    guest_ns(r) % NS_PER_SEC >= NS_PER_SEC - UPDATE_NS)
			v |= RTC_A_UIP;
		return v;
	case RTC_C:
		flags_update(r);
		irq_update(r);
		v = r->cmos[RTC_C];
		r->cmos[RTC_C] = 0;
		irq_update(r);
		return v;
	case RTC_D:
		return RTC_D_VRT;
	}
	return r->cmos[n];
}

static void control_b_write(struct rtc *r, u8 v)
{
	u8 was = r->cmos[RTC_B];

	flags_update(r);
	if (!(was & RTC_B_SET) && (v & RTC_B_SET))
		registers_from_time(r);
	if (v & RTC_B_SET)
		v &= ~RTC_B_UIE;
	r->cmos[RTC_B] = v;
	if ((was & RTC_B_SET) && !(v & RTC_B_SET))
		time_from_registers(r);
	irq_update(r);
	timer_update(r);
}

static void register_write(struct rtc *r, u8 n, u8 v)
{
	switch (n) {
	case RTC_A:
		flags_update(r);
		r->cmos[RTC_A] = v & ~RTC_A_UIP;
		timer_update(r);
		return;
	case RTC_B:
		control_b_write(r, v);
		return;
	case RTC_C:
	case RTC_D:
		return;
	}
	if (!is_time_register(n)) {
		r->cmos[n] = v;
		return;
	}
	if (r->cmos[RTC_B] & RTC_B_SET) {
		r->cmos[n] = v;
		return;
	}
	registers_from_time(r);
	r->cmos[n] = v;
	time_from_registers(r);
	timer_update(r);
}

static u64 rtc_read(void *opaque, u64 off, unsigned size)
{
	struct rtc *r = opaque;

	/* The index register is write-only. */
	return off ? register_read(r, r->index & 0x7f) : 0xff;
}

static void rtc_write(void *opaque, u64 off, unsigned size, u64 v)
{
	struct rtc *r = opaque;

	if (off)
		register_write(r, r->index & 0x7f, v);
	else
		r->index = v;
}

static const struct io_ops rtc_io = {
	.read = rtc_read,
	.write = rtc_write,
	.max_size = 1,
};

void rtc_set_cmos(struct rtc *r, u8 index, u8 value)
{
	if (index > RTC_D && index < CMOS_BYTES)
		r->cmos[index] = value;
}

/* ---- device ---- */

static void rtc_reset(struct device *dev)
{
	struct rtc *r = container_of(dev, struct rtc, dev);

	/* The battery keeps time and memory: only enables and flags go. */
	r->cmos[RTC_A] = 0x26;
	r->cmos[RTC_B] = RTC_B_24H;
	r->cmos[RTC_C] = 0;
	r->cmos[RTC_D] = RTC_D_VRT;
	r->index = 0;
	r->seen_ns = guest_ns(r);
	irq_update(r);
	timer_update(r);
}

static void rtc_state(struct device *dev, struct state *s)
{
	struct rtc *r = container_of(dev, struct rtc, dev);

	if (!state_is_loading(s)) {
		flags_update(r);
		irq_update(r);
		if (!(r->cmos[RTC_B] & RTC_B_SET))
			registers_from_time(r);
	}
	st_bytes(s, "cmos", r->cmos, sizeof(r->cmos));
	st_u8(s, "index", &r->index);
	st_i64(s, "guest_offset_ns", &r->guest_offset_ns);
	st_require(s, !(r->cmos[RTC_A] & RTC_A_UIP), "rtc update bit is set");
}

static void rtc_post_load(struct device *dev)
{
	struct rtc *r = container_of(dev, struct rtc, dev);

	r->seen_ns = guest_ns(r);
	irq_update(r);
	timer_update(r);
}

static void rtc_free(struct device *dev)
{
	struct rtc *r = container_of(dev, struct rtc, dev);

	hw_timer_disarm(&r->timer);
	mem_io_del(r->mem, &r->ports);
	free(r);
}

struct rtc *rtc_new(const struct hw_env *env, struct irq irq8)
{
	static const struct device_ops ops = {
		.type = "mc146818",
		.reset = rtc_reset,
		.state = rtc_state,
		.post_load = rtc_post_load,
		.free = rtc_free,
	};
	struct rtc *r = hw_chip_new(env, sizeof(*r), &ops, "rtc0");

	r->mem = env->mem;
	r->clock = env->clock;
	r->irq8 = irq8;
	hw_timer_init(&r->timer, env->clock, timer_fired, r);
	hw_map(env, &r->ports, "rtc", IO_PIO, 0x70, 2, &rtc_io, r);
	rtc_reset(&r->dev);
	return r;
}
