/* SPDX-License-Identifier: Apache-2.0 */
/* The I/O APIC: 24 pins, each with a redirection entry that turns its line
 * into a message. Version 0x20: with an EOI register. */
#pragma once

#include "hw/hw.h"

#define IOAPIC_BASE 0xfec00000ull
#define IOAPIC_PINS 24

struct ioapic;

struct ioapic *ioapic_new(const struct hw_env *env, u8 id);
struct irq ioapic_input(struct ioapic *a, int pin);
/* A local APIC ended a level-triggered interrupt of this vector. Device lock
 * held. */
void ioapic_eoi(struct ioapic *a, u8 vector);
/* True if some level-triggered entry uses the vector: a local APIC need not
 * report the end of others. */
bool ioapic_wants_eoi(const struct ioapic *a, u8 vector);
