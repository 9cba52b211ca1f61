/* SPDX-License-Identifier: Apache-2.0 */
/* For fuzz targets: a started device whose driver does what the input says.
 *
 * The input is a list of 8-byte commands {op, queue, a u16, b u32}: write a
 * descriptor, make a chain available, kick, fill RAM, access a register. RAM
 * that buffers point at is small, so chains hit headers often. */
#pragma once

#include "virtio/testdrv.h"

#define TESTFUZZ_QUEUE_SIZE 8

static inline void testfuzz_desc(struct testdrv *t, u8 queue, u16 a, u32 b)
{
	static const u32 lens[] = {0,	1,   12,   16,	  20,	   44,
				   100, 513, 4096, 70000, 1 << 20, 0xffffffff};
	struct testring *r = &t->rings[queue];
	u64 addr = TESTDRV_BUF + (b & 0x3f) * 0x40;

	if ((b & 0xf80) == 0xf80) /* sometimes anywhere */
		addr = (u64)b << (b >> 28);
	testring_desc(r, a % TESTFUZZ_QUEUE_SIZE, addr,
		      lens[(b >> 12) % ARRAY_SIZE(lens)], (b >> 16) & 3,
		      (b >> 18) % (TESTFUZZ_QUEUE_SIZE + ((b >> 24) == 0)));
}

static inline void testfuzz_run(struct testdrv *t, u64 features, u16 queues,
				const u8 *bytes, size_t len)
{
	testdrv_start(t, features, queues, TESTFUZZ_QUEUE_SIZE);
	for (size_t i = 0; i + 8 <= len && i < 8 * 256; i += 8) {
		const u8 *p = bytes + i;
		u8 queue = p[1] % queues;
		u16 a = ld_le16(p + 2);
		u32 b = ld_le32(p + 4);

		switch (p[0] % 8) {
		case 0:
		case 1:
			testfuzz_desc(t, queue, a, b);
			break;
		case 2:
			testring_add(&t->rings[queue], a % TESTFUZZ_QUEUE_SIZE);
			testdrv_kick(t, queue);
			break;
		case 3:
		case 4: /* small values make valid headers likely */
			st_le32(testdrv_at(t, TESTDRV_BUF + (a & 0xffc)),
				p[0] & 0x80 ? b : b & 15);
			break;
		case 5:
			testdrv_write(t, t->bar0 + a % VIRTIO_PCI_BAR_BYTES,
				      1u << (p[1] & 3), b);
			break;
		case 6:
			(void)testdrv_read(t,
					   t->bar0 + a % VIRTIO_PCI_BAR_BYTES,
					   1u << (p[1] & 3));
			break;
		default:
			if (b % 8 == 0) /* back to a working device */
				testdrv_start(t, features, queues,
					      TESTFUZZ_QUEUE_SIZE);
			testdrv_run(t);
			break;
		}
	}
	testdrv_run(t);
}
