/* SPDX-License-Identifier: Apache-2.0 */
/* The device-state visitor: a device describes its guest-visible state in one
 * function, which saves, loads and dumps.
 *
 *	static void rtc_state(struct device *dev, struct state *s)
 *	{
 *		struct rtc *r = container_of(dev, struct rtc, dev);
 *
 *		st_u8(s, "index", &r->index);
 *		st_bytes(s, "ram", r->ram, sizeof(r->ram));
 *	}
 *
 * The stream is self-describing (a tag, a name and a type for each field).
 * Errors are sticky: after the first, every call does nothing, and
 * state_finish() reports it. On load a missing, unknown, duplicate, reordered
 * or wrongly typed field is an error; a field added in a later release uses
 * st_optional() before it and keeps the value that the struct had. Names are
 * never reused. Load only into a fresh device; check ranges after the load
 * with st_require(), which is an error when loading and an assertion failure
 * when saving.
 */
#pragma once

#include "base/buf.h"
#include "base/err.h"
#include "base/types.h"

struct state;

enum state_mode { STATE_SAVE, STATE_LOAD, STATE_DUMP };

/* Save appends to `out`. Both live longer than the visitor. */
struct state *state_save_new(struct buf *out);
/* Load reads bytes[0..len), which is hostile. */
struct state *state_load_new(const u8 *bytes, size_t len);
/* Dump writes indented text, one field a line. */
struct state *state_dump_new(struct buf *out);
/* 0, or the first error. A load also fails when bytes are left over. Frees. */
int state_finish(struct state *s, struct err *err);

enum state_mode state_mode(const struct state *s);
bool state_is_loading(const struct state *s);
bool state_failed(const struct state *s);

/* A named group: one per device, and for nested structs. */
void st_begin(struct state *s, const char *name);
void st_end(struct state *s);

void st_bool(struct state *s, const char *name, bool *v);
void st_u8(struct state *s, const char *name, u8 *v);
void st_u16(struct state *s, const char *name, u16 *v);
void st_u32(struct state *s, const char *name, u32 *v);
void st_u64(struct state *s, const char *name, u64 *v);
void st_i64(struct state *s, const char *name, i64 *v);
/* Exactly n bytes. */
void st_bytes(struct state *s, const char *name, void *v, size_t n);
void st_u32_array(struct state *s, const char *name, u32 *v, size_t n);
void st_u64_array(struct state *s, const char *name, u64 *v, size_t n);
/* 0..max bytes: *len is saved with them. */
void st_var_bytes(struct state *s, const char *name, void *v, size_t *len,
		  size_t max);
/* The next field may be absent in streams of earlier releases. */
void st_optional(struct state *s);
/* What must hold of loaded values; `why` names it for the error. */
void st_require(struct state *s, bool ok, const char *why);
