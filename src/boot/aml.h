/* SPDX-License-Identifier: Apache-2.0 */
/* A small AML writer: terms are appended to a buffer, packages are opened and
 * closed. Source: ACPI 6.5 §20.2 (AML grammar), §6.4 (resource descriptors).
 *
 *	aml_device(&a, "COM1");
 *	aml_name_eisaid(&a, "_HID", "PNP0501");
 *	aml_close(&a);
 */
#pragma once

#include "base/buf.h"

#define AML_DEPTH_MAX 16

struct aml {
	struct buf out;
	size_t open[AML_DEPTH_MAX]; /* where each open package's length goes */
	unsigned depth;
};

void aml_init(struct aml *a);
void aml_fini(struct aml *a);

void aml_scope(struct aml *a, const char *path); /* "\\_SB_" */
void aml_device(struct aml *a, const char *name);
void aml_package(struct aml *a, u8 count); /* Package () { … } */
void aml_name_package(struct aml *a, const char *name, u8 count);
void aml_method(struct aml *a, const char *name); /* without arguments */
void aml_close(struct aml *a); /* ends the innermost of the above */

void aml_integer(struct aml *a, u64 v);
void aml_name_integer(struct aml *a, const char *name, u64 v);
void aml_name_string(struct aml *a, const char *name, const char *text);
void aml_name_eisaid(struct aml *a, const char *name, const char *id);

/* In a method: Notify (\\_SB.DEVICE, value). */
void aml_notify_sb(struct aml *a, const char *device, u8 value);

/* Name (_CRS, ResourceTemplate () { … }) */
void aml_resources_begin(struct aml *a, const char *name);
void aml_resources_end(struct aml *a);
void aml_res_io(struct aml *a, u16 base, u8 len);
void aml_res_irq(struct aml *a, u8 irq); /* edge, active high */
void aml_res_bus_range(struct aml *a, u16 first, u16 last);
void aml_res_io_range(struct aml *a, u16 first, u16 last);
/* A window that the bridge produces, or (fixed) memory that is consumed. */
void aml_res_mem_window(struct aml *a, u64 first, u64 last, bool cacheable);
void aml_res_mem_fixed(struct aml *a, u32 base, u32 len);
