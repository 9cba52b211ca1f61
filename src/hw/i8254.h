/* SPDX-License-Identifier: Apache-2.0 */
/* The 8254 interval timer at 0x40 and the system control port 0x61. */
#pragma once

#include "hw/hw.h"

#define I8254_HZ 1193182u
/* Channel 0 interrupts no more often than this (a guest may program less). */
#define I8254_MIN_INTERVAL_NS 100000u

struct i8254;

/* out0: the output of channel 0, ISA interrupt 0. */
struct i8254 *i8254_new(const struct hw_env *env, struct irq out0);
