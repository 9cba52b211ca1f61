/* SPDX-License-Identifier: Apache-2.0 */
/* crc: CRC-32 (ISO 3309) by table, byte by byte, and Adler-32. */
#include "work.h"

int main(void)
{
	enum { BYTES = 1 << 20, ROUNDS = 180 };
	u8 *data = work_alloc(BYTES);
	u32 table[256], crc = ~0u, a = 1, b = 0;
	u64 seed = 8;

	for (u32 i = 0; i < 256; i++) {
		u32 c = i;

		for (int k = 0; k < 8; k++)
			c = c & 1 ? 0xedb88320u ^ (c >> 1) : c >> 1;
		table[i] = c;
	}
	for (u32 i = 0; i < BYTES; i++)
		data[i] = work_random(&seed) >> 40;
	for (int r = 0; r < ROUNDS; r++) {
		for (u32 i = 0; i < BYTES; i++)
			crc = table[(crc ^ data[i]) & 255] ^ (crc >> 8);
		if (r % 4)
			continue;
		for (u32 i = 0; i < BYTES; i++) {
			a = (a + data[i]) % 65521;
			b = (b + a) % 65521;
		}
	}
	return work_end("crc", ((u64)~crc << 32) | (b << 16) | a);
}
