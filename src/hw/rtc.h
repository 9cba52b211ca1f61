/* SPDX-License-Identifier: Apache-2.0 */
/* The MC146818 clock with 128 bytes of CMOS at 0x70. Runs on host UTC plus
 * whatever the guest has set it off by. */
#pragma once

#include "hw/hw.h"

struct rtc;

/* irq8: ISA interrupt 8. */
struct rtc *rtc_new(const struct hw_env *env, struct irq irq8);
/* For firmware: a CMOS byte at 0x0e-0x7f. */
void rtc_set_cmos(struct rtc *r, u8 index, u8 value);
