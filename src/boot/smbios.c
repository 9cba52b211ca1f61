/* SPDX-License-Identifier: Apache-2.0 */
/* FORMAT: a record is a header (type, length, handle), fixed fields, and its
 * strings, each NUL-terminated, with one more NUL behind the last; a field
 * names a string by its number from 1. A record without strings ends with two
 * NULs. */
#include "boot/smbios.h"

#include <errno.h>

#include "base/buf.h"
#include "boot/boot.h"

#define ENTRY_BYTES	   24
#define TABLE_OFFSET	   32 /* behind the entry point, aligned */
#define MAKER		   "Skerry"
#define RELEASE		   "1"
#define RELEASE_DATE	   "01/01/2026"
#define CHARACTERISTICS	   BIT64(3) /* "not supported": nothing to say */
#define CHARACTERISTICS_VM BIT32(4) /* second extension byte */
#define CHASSIS_OTHER	   1
#define STATE_UNKNOWN	   2
#define WAKE_POWER_SWITCH  6

enum { TYPE_FIRMWARE, TYPE_SYSTEM, TYPE_CHASSIS = 3, TYPE_END = 127 };

static void record_begin(struct buf *b, u8 type, u8 length)
{
	buf_append_u8(b, type);
	buf_append_u8(b, length);
	buf_append_le16(b, type); /* handle: one record of each type */
}

static void record_end(struct buf *b, const char *const *strings, size_t n)
{
	for (size_t i = 0; i < n; i++)
		buf_append(b, strings[i], strlen(strings[i]) + 1);
	buf_append_zero(b, n ? 1 : 2);
}

static void write_firmware(struct buf *b)
{
	static const char *const strings[] = {MAKER, RELEASE, RELEASE_DATE};

	record_begin(b, TYPE_FIRMWARE, 0x18);
	buf_append_u8(b, 1); /* vendor */
	buf_append_u8(b, 2); /* version */
	buf_append_le16(b, BOOT_TABLES_GPA >> 4);
	buf_append_u8(b, 3); /* date */
	buf_append_u8(b, 0); /* 64 KiB */
	buf_append_le64(b, CHARACTERISTICS);
	buf_append_u8(b, 1); /* ACPI */
	buf_append_u8(b, CHARACTERISTICS_VM);
	buf_append_u8(b, 1);	/* release … */
	buf_append_u8(b, 0);	/* … of the firmware */
	buf_append_u8(b, 0xff); /* no embedded controller */
	buf_append_u8(b, 0xff);
	record_end(b, strings, ARRAY_SIZE(strings));
}

/* SMBIOS keeps the first three fields little-endian. */
static void append_uuid(struct buf *b, const u8 *u)
{
	const u8 le[16] = {u[3],  u[2],	 u[1],	u[0], u[5],  u[4],
			   u[7],  u[6],	 u[8],	u[9], u[10], u[11],
			   u[12], u[13], u[14], u[15]};

	buf_append(b, le, sizeof(le));
}

static void write_system(struct buf *b, const struct smbios_config *cfg)
{
	const char *strings[] = {MAKER, "Machine", RELEASE, cfg->name};
	bool has_name = cfg->name[0] != 0;

	record_begin(b, TYPE_SYSTEM, 0x1b);
	buf_append_u8(b, 1); /* manufacturer */
	buf_append_u8(b, 2); /* product */
	buf_append_u8(b, 3); /* version */
	buf_append_u8(b, has_name ? 4 : 0);
	append_uuid(b, cfg->uuid);
	buf_append_u8(b, WAKE_POWER_SWITCH);
	buf_append_u8(b, 0); /* SKU */
	buf_append_u8(b, 0); /* family */
	record_end(b, strings, has_name ? 4 : 3);
}

static void write_chassis(struct buf *b)
{
	static const char *const strings[] = {MAKER};

	record_begin(b, TYPE_CHASSIS, 0x15);
	buf_append_u8(b, 1); /* manufacturer */
	buf_append_u8(b, CHASSIS_OTHER);
	buf_append_zero(b, 3); /* version, serial, asset tag */
	buf_append_u8(b, STATE_UNKNOWN);
	buf_append_u8(b, STATE_UNKNOWN);
	buf_append_u8(b, STATE_UNKNOWN);
	buf_append_u8(b, STATE_UNKNOWN); /* security */
	buf_append_le32(b, 0);
	buf_append_zero(b, 4); /* height, power cords, elements */
	record_end(b, strings, ARRAY_SIZE(strings));
}

static void fill_entry(u8 *e, u32 table_bytes)
{
	u8 sum = 0;

	memcpy(e, "_SM3_", 5);
	e[6] = ENTRY_BYTES;
	e[7] = 3; /* SMBIOS 3.6 */
	e[8] = 6;
	e[10] = 1; /* entry point revision */
	st_le32(e + 12, table_bytes);
	st_le64(e + 16, BOOT_SMBIOS_GPA + TABLE_OFFSET);
	for (u32 i = 0; i < ENTRY_BYTES; i++)
		sum += e[i];
	e[5] = (u8)-sum;
}

int smbios_build(const struct smbios_config *cfg, struct err *err)
{
	struct buf b;
	int rc = 0;

	buf_init(&b);
	buf_append_zero(&b, TABLE_OFFSET);
	write_firmware(&b);
	write_system(&b, cfg);
	write_chassis(&b);
	record_begin(&b, TYPE_END, 4);
	record_end(&b, NULL, 0);
	fill_entry(b.bytes, (u32)(b.len - TABLE_OFFSET));
	if (b.len > BOOT_SMBIOS_BYTES)
		rc = err_set(err, -E2BIG, "the SMBIOS tables are too large");
	else if (mem_write(cfg->mem, BOOT_SMBIOS_GPA, b.bytes, b.len) < 0)
		rc = err_set(err, -ENOMEM, "no memory for the SMBIOS tables");
	buf_fini(&b);
	return rc;
}
