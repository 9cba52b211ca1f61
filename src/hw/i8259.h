/* SPDX-License-Identifier: Apache-2.0 */
/* The pair of 8259A interrupt controllers of a PC, with edge/level control
 * registers at 0x4d0. Inputs 0-7 and 8-15; input 2 is the cascade. */
#pragma once

#include "hw/hw.h"

struct i8259;

/* intr is the INTR wire to the processor (or to LINT0). */
struct i8259 *i8259_new(const struct hw_env *env, struct irq intr);
/* n: 0-15 but 2. */
struct irq i8259_input(struct i8259 *pair, int n);
/* The processor's interrupt acknowledge: the vector, with the effects of the
 * cycle. A spurious cycle gives IRQ 7's. Device lock held. */
u8 i8259_ack(struct i8259 *pair);
