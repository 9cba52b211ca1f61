/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY: ACPI 6.5 §4.8
 *
 * SCI is the OR of (status & enable) over PM1a and GPE0. The timer's carry
 * (TMR_STS) is worked out when PM1 status is looked at; its interrupt is not
 * modelled, nor are the sleep button, the RTC wake and sleep states but S5.
 */
#include "hw/acpi_pm.h"

#include <stdlib.h>

#include "base/clock.h"

#define PM1_TMR_STS    0x0001
#define PM1_PWRBTN_STS 0x0100
#define PM1_STS_BITS   0x0521
#define PM1_EN_BITS    0x0521
#define PM1_SCI_EN     0x0001
#define PM1_SLP_EN     0x2000
#define PM1_CNT_BITS   0x1c03 /* SLP_TYP, BM_RLD, SCI_EN */
#define REGISTERS      (ACPI_GPE0_PORT + ACPI_GPE0_BYTES - ACPI_PM_BASE)

struct acpi_pm {
	struct device dev;
	struct mem *mem;
	struct hw_clock *clock;
	struct irq sci;
	struct hw_request poweroff;
	struct io_region region;
	u16 pm1_sts, pm1_en, pm1_cnt, gpe_sts, gpe_en;
	u64 timer_start_ns;
	u64 carries; /* half periods of the timer already reported */
};

static u64 timer_ticks(const struct acpi_pm *pm)
{
	u64 ns = hw_now(pm->clock) - pm->timer_start_ns;

	return (unsigned __int128)ns * ACPI_PM_TIMER_HZ / NS_PER_SEC;
}

static void carry_update(struct acpi_pm *pm)
{
	u64 carries = timer_ticks(pm) >> 31;

	if (carries != pm->carries)
		pm->pm1_sts |= PM1_TMR_STS;
	pm->carries = carries;
}

static void sci_update(struct acpi_pm *pm)
{
	u16 pm1 = pm->pm1_sts & pm->pm1_en;

	irq_set(&pm->sci, pm1 || (pm->gpe_sts & pm->gpe_en));
}

void acpi_pm_power_button(struct acpi_pm *pm)
{
	pm->pm1_sts |= PM1_PWRBTN_STS;
	sci_update(pm);
}

void acpi_pm_gpe(struct acpi_pm *pm, int n)
{
	pm->gpe_sts |= BIT32(n & 15);
	sci_update(pm);
}

static u16 word_read(struct acpi_pm *pm, u32 off)
{
	switch (off) {
	case 0x00:
		carry_update(pm);
		return pm->pm1_sts;
	case 0x02:
		return pm->pm1_en;
	case 0x04:
		return pm->pm1_cnt | PM1_SCI_EN;
	case 0x08:
		return timer_ticks(pm);
	case 0x0a:
		return timer_ticks(pm) >> 16;
	case 0x20:
		return pm->gpe_sts;
	case 0x22:
		return pm->gpe_en;
	}
	return 0;
}

static u64 pm_read(void *opaque, u64 off, unsigned size)
{
	struct acpi_pm *pm = opaque;

	/* The timer is read at once: two halves could disagree. */
	if (off == 8 && size == 4)
		return (u32)timer_ticks(pm);
	if (size == 1)
		return word_read(pm, off & ~1ull) >> 8 * (off & 1) & 0xff;
	if (off & 1)
		return 0;
	if (size == 2)
		return word_read(pm, off);
	return word_read(pm, off) | (u32)word_read(pm, off + 2) << 16;
}

static void control_write(struct acpi_pm *pm, u16 v)
{
	pm->pm1_cnt = v & PM1_CNT_BITS;
	if ((v & PM1_SLP_EN) && (v >> 10 & 7) == ACPI_S5_SLP_TYP)
		hw_request(&pm->poweroff);
}

/* mask: the bits that the access covers. */
static void word_write(struct acpi_pm *pm, u32 off, u16 v, u16 mask)
{
	switch (off) {
	case 0x00: /* write one to clear */
		carry_update(pm);
		pm->pm1_sts &= ~(v & mask);
		break;
	case 0x02:
		pm->pm1_en = ((pm->pm1_en & ~mask) | (v & mask)) & PM1_EN_BITS;
		break;
	case 0x04:
		control_write(pm, (pm->pm1_cnt & ~mask) | (v & mask));
		break;
	case 0x20:
		pm->gpe_sts &= ~(v & mask);
		break;
	case 0x22:
		pm->gpe_en = (pm->gpe_en & ~mask) | (v & mask);
		break;
	}
}

static void pm_write(void *opaque, u64 off, unsigned size, u64 v)
{
	struct acpi_pm *pm = opaque;

	if (size == 1) {
		int shift = 8 * (off & 1);

		word_write(pm, off & ~1ull, v << shift, 0xff << shift);
	} else if (!(off & 1)) {
		word_write(pm, off, v, 0xffff);
		if (size == 4)
			word_write(pm, off + 2, v >> 16, 0xffff);
	}
	sci_update(pm);
}

static const struct io_ops pm_io = {
	.read = pm_read,
	.write = pm_write,
	.max_size = 4,
};

static void pm_reset(struct device *dev)
{
	struct acpi_pm *pm = container_of(dev, struct acpi_pm, dev);

	pm->pm1_sts = pm->pm1_en = pm->pm1_cnt = 0;
	pm->gpe_sts = pm->gpe_en = 0;
	pm->timer_start_ns = hw_now(pm->clock);
	pm->carries = 0;
	sci_update(pm);
}

static void pm_state(struct device *dev, struct state *s)
{
	struct acpi_pm *pm = container_of(dev, struct acpi_pm, dev);
	u64 now = hw_now(pm->clock), timer_ns = now - pm->timer_start_ns;

	if (!state_is_loading(s))
		carry_update(pm);
	st_u16(s, "pm1_sts", &pm->pm1_sts);
	st_u16(s, "pm1_en", &pm->pm1_en);
	st_u16(s, "pm1_cnt", &pm->pm1_cnt);
	st_u16(s, "gpe_sts", &pm->gpe_sts);
	st_u16(s, "gpe_en", &pm->gpe_en);
	st_u64(s, "timer_ns", &timer_ns);
	st_require(s,
		   !(pm->pm1_sts & ~PM1_STS_BITS) &&
			   !(pm->pm1_en & ~PM1_EN_BITS) &&
			   !(pm->pm1_cnt & ~PM1_CNT_BITS),
		   "acpi register out of range");
	if (state_is_loading(s)) {
		pm->timer_start_ns = now - timer_ns;
		pm->carries = timer_ticks(pm) >> 31;
	}
}

static void pm_post_load(struct device *dev)
{
	sci_update(container_of(dev, struct acpi_pm, dev));
}

static void pm_free(struct device *dev)
{
	struct acpi_pm *pm = container_of(dev, struct acpi_pm, dev);

	mem_io_del(pm->mem, &pm->region);
	free(pm);
}

struct acpi_pm *acpi_pm_new(const struct hw_env *env, struct irq sci,
			    struct hw_request poweroff)
{
	static const struct device_ops ops = {
		.type = "acpi-pm",
		.reset = pm_reset,
		.state = pm_state,
		.post_load = pm_post_load,
		.free = pm_free,
	};
	struct acpi_pm *pm = hw_chip_new(env, sizeof(*pm), &ops, "acpi0");

	pm->mem = env->mem;
	pm->clock = env->clock;
	pm->sci = sci;
	pm->poweroff = poweroff;
	hw_map(env, &pm->region, "acpi-pm", IO_PIO, ACPI_PM_BASE, REGISTERS,
	       &pm_io, pm);
	pm_reset(&pm->dev);
	return pm;
}
