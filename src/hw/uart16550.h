/* SPDX-License-Identifier: Apache-2.0 */
/* A 16550A UART without line timing: bytes move as fast as the back end takes
 * them. A back end that is full keeps THRE low, so the guest waits and the
 * VMM does not. */
#pragma once

#include "dev/chardev.h"
#include "hw/hw.h"

struct uart16550;

/* chardev is borrowed, outlives the chip and may be NULL. */
struct uart16550 *uart16550_new(const struct hw_env *env, const char *name,
				u16 port, struct irq line,
				struct chardev *chardev);
/* Bytes that fit into the receiver now. */
size_t uart_can_receive(struct uart16550 *u);
/* Returns how many bytes were taken. */
size_t uart_receive(struct uart16550 *u, const void *bytes, size_t n);
