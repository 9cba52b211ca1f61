/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY: QEMU docs/specs/fw_cfg.rst
 *
 * A DMA descriptor (big-endian control, length, address) is fetched once and
 * checked; one descriptor is one operation, so there is nothing to loop over.
 * Reading beyond an item gives zeros; a DMA read that wants more than
 * ZERO_FILL_MAX of them is refused with the error bit. DMA reaches RAM only.
 */
#include "hw/fwcfg.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/log.h"

#define KEY_SIGNATURE  0x00
#define KEY_ID	       0x01
#define KEY_DIRECTORY  0x19
#define KEY_FILES      0x20
#define ID_TRADITIONAL 1u
#define ID_DMA	       2u
#define NAME_BYTES     56
#define DIRENT_BYTES   64
#define ZERO_FILL_MAX  65536u
#define DMA_SIGNATURE  0x51454d5520434647ull /* "QEMU CFG" */

#define DMA_ERROR  0x01u
#define DMA_READ   0x02u
#define DMA_SKIP   0x04u
#define DMA_SELECT 0x08u
#define DMA_WRITE  0x10u

struct item {
	u8 *bytes;
	u32 len;
};

struct fwcfg {
	struct device dev;
	struct mem *mem;
	struct io_region ports, dma;
	struct item items[KEY_FILES + FWCFG_FILES];
	u8 directory[4 + FWCFG_FILES * DIRENT_BYTES];
	u32 files;
	u16 key;
	u32 offset;
	u32 dma_high;
};

static const struct item no_item;

static const struct item *selected(const struct fwcfg *f)
{
	return f->key < ARRAY_SIZE(f->items) ? &f->items[f->key] : &no_item;
}

static void item_select(struct fwcfg *f, u16 key)
{
	f->key = key;
	f->offset = 0;
}

static u32 item_left(const struct fwcfg *f)
{
	const struct item *item = selected(f);

	return f->offset < item->len ? item->len - f->offset : 0;
}

static u8 byte_read(struct fwcfg *f)
{
	return item_left(f) ? selected(f)->bytes[f->offset++] : 0;
}

/* ---- DMA ---- */

static bool dma_read(struct fwcfg *f, gpa_t to, u32 len)
{
	static const u8 zeros[4096];
	u32 n = MIN(len, item_left(f));
	u64 end;

	if (__builtin_add_overflow(to, (u64)len, &end) ||
	    len - n > ZERO_FILL_MAX)
		return false;
	if (n && mem_write(f->mem, to, selected(f)->bytes + f->offset, n))
		return false;
	f->offset += n;
	for (; n < len; n += MIN(len - n, sizeof(zeros)))
		if (mem_write(f->mem, to + n, zeros,
			      MIN(len - n, sizeof(zeros))))
			return false;
	return true;
}

static u32 dma_run(struct fwcfg *f, u32 control, u32 len, gpa_t addr)
{
	if (control & DMA_SELECT)
		item_select(f, control >> 16);
	if (control & DMA_WRITE)
		return DMA_ERROR;
	if (control & DMA_READ)
		return dma_read(f, addr, len) ? 0 : DMA_ERROR;
	if (control & DMA_SKIP)
		f->offset += MIN(len, item_left(f));
	return 0;
}

static void dma_start(struct fwcfg *f, gpa_t at)
{
	u8 d[16], result[4];
	u32 control, len, rc;
	u64 addr;

	if (mem_read(f->mem, at, d, sizeof(d))) {
		log_guest("fw_cfg: the descriptor is not in ram");
		return;
	}
	control = __builtin_bswap32(ld_le32(d));
	len = __builtin_bswap32(ld_le32(d + 4));
	addr = __builtin_bswap64(ld_le64(d + 8));
	rc = dma_run(f, control, len, addr);
	st_le32(result, __builtin_bswap32(rc));
	if (mem_write(f->mem, at, result, sizeof(result)))
		log_guest("fw_cfg: the descriptor is not writable");
}

static u64 dma_port_read(void *opaque, u64 off, unsigned size)
{
	u64 v = __builtin_bswap64(DMA_SIGNATURE);

	return v >> 8 * off;
}

static void dma_port_write(void *opaque, u64 off, unsigned size, u64 v)
{
	struct fwcfg *f = opaque;
	u64 at;

	if (size != 4)
		return;
	if (off == 0) {
		f->dma_high = __builtin_bswap32((u32)v);
	} else if (off == 4) {
		at = (u64)f->dma_high << 32 | __builtin_bswap32((u32)v);
		f->dma_high = 0;
		dma_start(f, at);
	}
}

static const struct io_ops dma_ops = {
	.read = dma_port_read,
	.write = dma_port_write,
	.max_size = 4,
};

/* ---- ports ---- */

static u64 ports_read(void *opaque, u64 off, unsigned size)
{
	struct fwcfg *f = opaque;

	if (off == 1 && size == 1)
		return byte_read(f);
	return off ? 0xff : f->key;
}

static void ports_write(void *opaque, u64 off, unsigned size, u64 v)
{
	if (off == 0 && size == 2)
		item_select(opaque, v);
}

static const struct io_ops ports_ops = {
	.read = ports_read,
	.write = ports_write,
	.max_size = 2,
};

/* ---- items ---- */

void fwcfg_set(struct fwcfg *f, u16 key, const void *bytes, u32 len)
{
	struct item *item = &f->items[key];

	ASSERT(key < ARRAY_SIZE(f->items));
	free(item->bytes);
	item->bytes = malloc(len ? len : 1);
	ASSERT(item->bytes);
	memcpy(item->bytes, bytes, len);
	item->len = len;
}

int fwcfg_add_file(struct fwcfg *f, const char *name, const void *bytes,
		   u32 len, struct err *err)
{
	u8 *e = f->directory + 4 + f->files * DIRENT_BYTES;
	u16 key = KEY_FILES + f->files;

	if (f->files == FWCFG_FILES)
		return err_set(err, -ENOSPC, "too many firmware files");
	if (strlen(name) >= NAME_BYTES)
		return err_set(err, -EINVAL,
			       "firmware file name '%s' is too long", name);
	for (u32 i = 0; i < f->files; i++)
		if (!strcmp((char *)f->directory + 4 + i * DIRENT_BYTES + 8,
			    name))
			return err_set(err, -EEXIST,
				       "firmware file '%s' exists", name);
	st_le32(e, __builtin_bswap32(len));
	st_le16(e + 4, __builtin_bswap16(key));
	snprintf((char *)e + 8, NAME_BYTES, "%s", name);
	fwcfg_set(f, key, bytes, len);
	f->files++;
	st_le32(f->directory, __builtin_bswap32(f->files));
	fwcfg_set(f, KEY_DIRECTORY, f->directory, 4 + f->files * DIRENT_BYTES);
	return 0;
}

/* ---- device ---- */

static void fwcfg_reset(struct device *dev)
{
	struct fwcfg *f = container_of(dev, struct fwcfg, dev);

	item_select(f, 0);
	f->dma_high = 0;
}

/* The items are configuration, not state: the machine gives them again. */
static void fwcfg_state(struct device *dev, struct state *s)
{
	struct fwcfg *f = container_of(dev, struct fwcfg, dev);

	st_u16(s, "key", &f->key);
	st_u32(s, "offset", &f->offset);
	st_u32(s, "dma_high", &f->dma_high);
}

static void fwcfg_free(struct device *dev)
{
	struct fwcfg *f = container_of(dev, struct fwcfg, dev);

	mem_io_del(f->mem, &f->ports);
	mem_io_del(f->mem, &f->dma);
	for (size_t i = 0; i < ARRAY_SIZE(f->items); i++)
		free(f->items[i].bytes);
	free(f);
}

struct fwcfg *fwcfg_new(const struct hw_env *env)
{
	static const struct device_ops ops = {
		.type = "fw-cfg",
		.reset = fwcfg_reset,
		.state = fwcfg_state,
		.free = fwcfg_free,
	};
	struct fwcfg *f = hw_chip_new(env, sizeof(*f), &ops, "fwcfg0");
	u8 id[4];

	f->mem = env->mem;
	st_le32(id, ID_TRADITIONAL | ID_DMA);
	fwcfg_set(f, KEY_SIGNATURE, "QEMU", 4);
	fwcfg_set(f, KEY_ID, id, sizeof(id));
	fwcfg_set(f, KEY_DIRECTORY, f->directory, 4);
	hw_map(env, &f->ports, "fwcfg", IO_PIO, 0x510, 2, &ports_ops, f);
	hw_map(env, &f->dma, "fwcfg-dma", IO_PIO, 0x514, 8, &dma_ops, f);
	return f;
}
