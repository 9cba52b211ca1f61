/* SPDX-License-Identifier: Apache-2.0 */
/* A growable byte buffer. Appending aborts when the host is out of memory,
 * so it is for bounded data only: the caller bounds hostile input first. */
#pragma once

#include "base/types.h"

struct buf {
	u8 *bytes;
	size_t len;
	size_t cap;
};

void buf_init(struct buf *b);
void buf_fini(struct buf *b);
void buf_reset(struct buf *b); /* len = 0, memory kept */
/* Room for n more bytes; returns where they go. Does not change len. */
u8 *buf_reserve(struct buf *b, size_t n);
void buf_append(struct buf *b, const void *bytes, size_t n);
void buf_append_zero(struct buf *b, size_t n);
void buf_append_u8(struct buf *b, u8 v);
void buf_append_le16(struct buf *b, u16 v);
void buf_append_le32(struct buf *b, u32 v);
void buf_append_le64(struct buf *b, u64 v);
void buf_printf(struct buf *b, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* NUL-terminates beyond len and returns the text. */
const char *buf_str(struct buf *b);
/* Removes n bytes from the front. */
void buf_consume(struct buf *b, size_t n);
