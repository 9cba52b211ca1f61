/* SPDX-License-Identifier: Apache-2.0 */
/* Ports for test guests: 0xf4 ends the run with a value, 0xe9 is a console.
 * Neither has state. */
#pragma once

#include "dev/chardev.h"
#include "hw/hw.h"

/* fn gets the value as written (1, 2 or 4 bytes); device lock held. */
void debug_exit_new(const struct hw_env *env, u16 port,
		    void (*fn)(void *opaque, u32 value), void *opaque);
/* chardev is borrowed; what it does not take at once is lost. */
void debugcon_new(const struct hw_env *env, u16 port, struct chardev *chardev);
