/* SPDX-License-Identifier: Apache-2.0 */
#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/assert.h"

void buf_init(struct buf *b)
{
	memset(b, 0, sizeof(*b));
}

void buf_fini(struct buf *b)
{
	free(b->bytes);
	buf_init(b);
}

void buf_reset(struct buf *b)
{
	b->len = 0;
}

u8 *buf_reserve(struct buf *b, size_t n)
{
	size_t need;

	ASSERT(!__builtin_add_overflow(b->len, n, &need));
	if (need > b->cap) {
		size_t cap = MAX(need, b->cap * 2);

		b->bytes = realloc(b->bytes, cap);
		ASSERT(b->bytes);
		b->cap = cap;
	}
	return b->bytes ? b->bytes + b->len : NULL;
}

void buf_append(struct buf *b, const void *bytes, size_t n)
{
	if (n == 0)
		return;
	memcpy(buf_reserve(b, n), bytes, n);
	b->len += n;
}

void buf_append_zero(struct buf *b, size_t n)
{
	if (n == 0)
		return;
	memset(buf_reserve(b, n), 0, n);
	b->len += n;
}

void buf_append_u8(struct buf *b, u8 v)
{
	buf_append(b, &v, sizeof(v));
}

void buf_append_le16(struct buf *b, u16 v)
{
	buf_append(b, &v, sizeof(v));
}

void buf_append_le32(struct buf *b, u32 v)
{
	buf_append(b, &v, sizeof(v));
}

void buf_append_le64(struct buf *b, u64 v)
{
	buf_append(b, &v, sizeof(v));
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	ASSERT(n >= 0);
	buf_reserve(b, (size_t)n + 1);
	va_start(ap, fmt);
	vsnprintf((char *)b->bytes + b->len, (size_t)n + 1, fmt, ap);
	va_end(ap);
	b->len += (size_t)n;
}

const char *buf_str(struct buf *b)
{
	*buf_reserve(b, 1) = '\0';
	return (const char *)b->bytes;
}

void buf_consume(struct buf *b, size_t n)
{
	ASSERT(n <= b->len);
	memmove(b->bytes, b->bytes + n, b->len - n);
	b->len -= n;
}
