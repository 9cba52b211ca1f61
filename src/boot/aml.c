/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY: a package's length stands in front of it, in 1 to 4 bytes that
 * count themselves. AML allows the 4-byte form for any length, so an open
 * package reserves 4 bytes and aml_close() fills them in. */
#include "boot/aml.h"

#include "base/assert.h"

#define AML_ZERO	 0x00
#define AML_ONE		 0x01
#define AML_NAME	 0x08
#define AML_BYTE	 0x0a
#define AML_WORD	 0x0b
#define AML_DWORD	 0x0c
#define AML_STRING	 0x0d
#define AML_QWORD	 0x0e
#define AML_SCOPE	 0x10
#define AML_BUFFER	 0x11
#define AML_PACKAGE	 0x12
#define AML_METHOD	 0x14
#define AML_DUAL_NAME	 0x2e
#define AML_EXT		 0x5b
#define AML_EXT_DEVICE	 0x82
#define AML_NOTIFY	 0x86
#define PKG_LENGTH_BYTES 4

void aml_init(struct aml *a)
{
	memset(a, 0, sizeof(*a));
	buf_init(&a->out);
}

void aml_fini(struct aml *a)
{
	buf_fini(&a->out);
}

static void open_package(struct aml *a)
{
	ASSERT(a->depth < AML_DEPTH_MAX);
	a->open[a->depth++] = a->out.len;
	buf_append_zero(&a->out, PKG_LENGTH_BYTES);
}

void aml_close(struct aml *a)
{
	size_t at, len;

	ASSERT(a->depth > 0);
	at = a->open[--a->depth];
	len = a->out.len - at;
	ASSERT(len < BIT32(28));
	a->out.bytes[at] = 0xc0 | (len & 0xf);
	a->out.bytes[at + 1] = (u8)(len >> 4);
	a->out.bytes[at + 2] = (u8)(len >> 12);
	a->out.bytes[at + 3] = (u8)(len >> 20);
}

/* One segment, padded with '_', or a root path "\\XXXX". */
static void name_string(struct aml *a, const char *name)
{
	char seg[4] = {'_', '_', '_', '_'};

	if (*name == '\\') {
		buf_append_u8(&a->out, '\\');
		name++;
	}
	for (int i = 0; i < 4 && name[i]; i++)
		seg[i] = name[i];
	buf_append(&a->out, seg, 4);
}

void aml_scope(struct aml *a, const char *path)
{
	buf_append_u8(&a->out, AML_SCOPE);
	open_package(a);
	name_string(a, path);
}

void aml_device(struct aml *a, const char *name)
{
	buf_append_u8(&a->out, AML_EXT);
	buf_append_u8(&a->out, AML_EXT_DEVICE);
	open_package(a);
	name_string(a, name);
}

void aml_package(struct aml *a, u8 count)
{
	buf_append_u8(&a->out, AML_PACKAGE);
	open_package(a);
	buf_append_u8(&a->out, count);
}

void aml_method(struct aml *a, const char *name)
{
	buf_append_u8(&a->out, AML_METHOD);
	open_package(a);
	name_string(a, name);
	buf_append_u8(&a->out, 0); /* no arguments, not serialized */
}

void aml_notify_sb(struct aml *a, const char *device, u8 value)
{
	buf_append_u8(&a->out, AML_NOTIFY);
	buf_append_u8(&a->out, '\\');
	buf_append_u8(&a->out, AML_DUAL_NAME);
	name_string(a, "_SB");
	name_string(a, device);
	aml_integer(a, value);
}

static void name_op(struct aml *a, const char *name)
{
	buf_append_u8(&a->out, AML_NAME);
	name_string(a, name);
}

void aml_name_package(struct aml *a, const char *name, u8 count)
{
	name_op(a, name);
	aml_package(a, count);
}

void aml_integer(struct aml *a, u64 v)
{
	if (v <= 1) {
		buf_append_u8(&a->out, v ? AML_ONE : AML_ZERO);
	} else if (v <= 0xff) {
		buf_append_u8(&a->out, AML_BYTE);
		buf_append_u8(&a->out, (u8)v);
	} else if (v <= 0xffff) {
		buf_append_u8(&a->out, AML_WORD);
		buf_append_le16(&a->out, (u16)v);
	} else if (v <= 0xffffffffu) {
		buf_append_u8(&a->out, AML_DWORD);
		buf_append_le32(&a->out, (u32)v);
	} else {
		buf_append_u8(&a->out, AML_QWORD);
		buf_append_le64(&a->out, v);
	}
}

void aml_name_integer(struct aml *a, const char *name, u64 v)
{
	name_op(a, name);
	aml_integer(a, v);
}

void aml_name_string(struct aml *a, const char *name, const char *text)
{
	name_op(a, name);
	buf_append_u8(&a->out, AML_STRING);
	buf_append(&a->out, text, strlen(text) + 1);
}

static u8 hex_digit(char c)
{
	return (u8)(c <= '9' ? c - '0' : c - 'A' + 10);
}

void aml_name_eisaid(struct aml *a, const char *name, const char *id)
{
	u32 v = (u32)(id[0] - 0x40) << 26 | (u32)(id[1] - 0x40) << 21 |
		(u32)(id[2] - 0x40) << 16 | (u32)hex_digit(id[3]) << 12 |
		(u32)hex_digit(id[4]) << 8 | (u32)hex_digit(id[5]) << 4 |
		(u32)hex_digit(id[6]);

	name_op(a, name);
	buf_append_u8(&a->out, AML_DWORD);
	buf_append_le32(&a->out, __builtin_bswap32(v));
}

/* A buffer whose size stands in a word right behind its package length. */
void aml_resources_begin(struct aml *a, const char *name)
{
	name_op(a, name);
	buf_append_u8(&a->out, AML_BUFFER);
	open_package(a);
	buf_append_u8(&a->out, AML_WORD);
	buf_append_le16(&a->out, 0);
}

void aml_resources_end(struct aml *a)
{
	size_t at = a->open[a->depth - 1] + PKG_LENGTH_BYTES + 1;

	buf_append_u8(&a->out, 0x79); /* end tag, checksum not used */
	buf_append_u8(&a->out, 0);
	st_le16(a->out.bytes + at, (u16)(a->out.len - at - 2));
	aml_close(a);
}

void aml_res_io(struct aml *a, u16 base, u8 len)
{
	buf_append_u8(&a->out, 0x47);
	buf_append_u8(&a->out, 1); /* decodes 16 bits */
	buf_append_le16(&a->out, base);
	buf_append_le16(&a->out, base);
	buf_append_u8(&a->out, 1);
	buf_append_u8(&a->out, len);
}

void aml_res_irq(struct aml *a, u8 irq)
{
	buf_append_u8(&a->out, 0x22); /* IRQ, no flags: edge, active high */
	buf_append_le16(&a->out, (u16)BIT32(irq));
}

/* Address space descriptors: type 0 memory, 1 I/O, 2 bus numbers. */
static void res_address(struct aml *a, u8 tag, u8 type, u8 type_flags,
			unsigned width, u64 first, u64 last)
{
	const u64 fields[5] = {0, first, last, 0, last - first + 1};

	buf_append_u8(&a->out, tag);
	buf_append_le16(&a->out, (u16)(3 + 5 * width));
	buf_append_u8(&a->out, type);
	buf_append_u8(&a->out, 0x0c); /* min and max fixed, producer */
	buf_append_u8(&a->out, type_flags);
	for (int i = 0; i < 5; i++)
		buf_append(&a->out, &fields[i], width);
}

void aml_res_bus_range(struct aml *a, u16 first, u16 last)
{
	res_address(a, 0x88, 2, 0, 2, first, last);
}

void aml_res_io_range(struct aml *a, u16 first, u16 last)
{
	res_address(a, 0x88, 1, 3, 2, first, last);
}

void aml_res_mem_window(struct aml *a, u64 first, u64 last, bool cacheable)
{
	u8 flags = cacheable ? 0x07 : 0x01; /* read-write [prefetchable] */

	if (last <= 0xffffffffu)
		res_address(a, 0x87, 0, flags, 4, first, last);
	else
		res_address(a, 0x8a, 0, flags, 8, first, last);
}

void aml_res_mem_fixed(struct aml *a, u32 base, u32 len)
{
	buf_append_u8(&a->out, 0x86);
	buf_append_le16(&a->out, 9);
	buf_append_u8(&a->out, 1);
	buf_append_le32(&a->out, base);
	buf_append_le32(&a->out, len);
}
