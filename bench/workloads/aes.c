/* SPDX-License-Identifier: Apache-2.0 */
/* aes c|ni: AES-128 in counter mode (FIPS 197; SP 800-38A §6.5), by tables or
 * with AESENC. */
#include <immintrin.h>

#include "work.h"

static u8 sbox[256];
static u32 table[4][256];
static u32 round_keys[44]; /* big-endian words, as FIPS 197 writes them */

static u8 times(u8 a, u8 b)
{
	u8 sum = 0;

	for (; b; b >>= 1, a = (a << 1) ^ (a & 0x80 ? 0x1b : 0))
		if (b & 1)
			sum ^= a;
	return sum;
}

/* FIPS 197 §5.1.1: the inverse, then the affine map. */
static void make_tables(void)
{
	for (int i = 0; i < 256; i++) {
		u8 inverse = 0, s;

		for (int k = 1; i && k < 256; k++)
			if (times(i, k) == 1)
				inverse = k;
		s = inverse;
		for (int k = 1; k < 5; k++)
			s ^= inverse << k | inverse >> (8 - k);
		sbox[i] = s ^ 0x63;
	}
	for (int i = 0; i < 256; i++) {
		u32 s = sbox[i], s2 = times(s, 2), s3 = s2 ^ s;
		u32 t = s2 << 24 | s << 16 | s << 8 | s3;

		for (int k = 0; k < 4; k++, t = t >> 8 | t << 24)
			table[k][i] = t;
	}
}

static u32 substitute(u32 w)
{
	return (u32)sbox[w >> 24] << 24 | sbox[w >> 16 & 255] << 16 |
	       sbox[w >> 8 & 255] << 8 | sbox[w & 255];
}

static void expand_key(const u8 key[16])
{
	u8 rcon = 1;

	for (int i = 0; i < 44; i++) {
		u32 w;

		if (i < 4) {
			memcpy(&w, key + 4 * i, 4);
			round_keys[i] = __builtin_bswap32(w);
			continue;
		}
		w = round_keys[i - 1];
		if (i % 4 == 0) {
			w = substitute(w << 8 | w >> 24) ^ (u32)rcon << 24;
			rcon = times(rcon, 2);
		}
		round_keys[i] = round_keys[i - 4] ^ w;
	}
}

static void encrypt_c(const u32 in[4], u32 out[4])
{
	const u32 *k = round_keys;
	u32 s[4], t[4];

	for (int i = 0; i < 4; i++)
		s[i] = in[i] ^ *k++;
	for (int r = 1; r < 10; r++) {
		for (int i = 0; i < 4; i++)
			t[i] = table[0][s[i] >> 24] ^
			       table[1][s[(i + 1) & 3] >> 16 & 255] ^
			       table[2][s[(i + 2) & 3] >> 8 & 255] ^
			       table[3][s[(i + 3) & 3] & 255] ^ *k++;
		memcpy(s, t, sizeof(s));
	}
	for (int i = 0; i < 4; i++)
		out[i] = ((u32)sbox[s[i] >> 24] << 24 |
			  sbox[s[(i + 1) & 3] >> 16 & 255] << 16 |
			  sbox[s[(i + 2) & 3] >> 8 & 255] << 8 |
			  sbox[s[(i + 3) & 3] & 255]) ^
			 *k++;
}

static void stream_c(u8 *at, u32 count, u32 *counter)
{
	for (u32 i = 0; i < count; i++, at += 16) {
		u32 in[4] = {0x01020304, 0x05060708, 0, (*counter)++}, out[4];

		encrypt_c(in, out);
		for (int k = 0; k < 4; k++) {
			u32 w;

			memcpy(&w, at + 4 * k, 4);
			w ^= __builtin_bswap32(out[k]);
			memcpy(at + 4 * k, &w, 4);
		}
	}
}

/* Four blocks at a time, as real programs do. */
static __attribute__((target("aes,ssse3,sse4.1"))) void
stream_ni(u8 *at, u32 count, u32 *counter)
{
	const __m128i swap =
		_mm_set_epi64x(0x0c0d0e0f08090a0bull, 0x0405060700010203ull);
	__m128i key[11], b[4], *p;

	for (int i = 0; i < 11; i++)
		key[i] = _mm_shuffle_epi8(
			_mm_loadu_si128((__m128i *)(round_keys + 4 * i)), swap);
	for (u32 i = 0; i < count; i += 4, at += 64) {
		for (int n = 0; n < 4; n++) {
			b[n] = _mm_set_epi32((*counter)++, 0, 0x05060708,
					     0x01020304);
			b[n] = _mm_shuffle_epi8(b[n], swap);
			b[n] = _mm_xor_si128(b[n], key[0]);
		}
		for (int r = 1; r < 10; r++)
			for (int n = 0; n < 4; n++)
				b[n] = _mm_aesenc_si128(b[n], key[r]);
		for (int n = 0; n < 4; n++) {
			p = (__m128i *)at + n;
			b[n] = _mm_aesenclast_si128(b[n], key[10]);
			_mm_storeu_si128(
				p, _mm_xor_si128(_mm_loadu_si128(p), b[n]));
		}
	}
}

int main(int argc, char **argv)
{
	enum { BYTES = 1 << 16 };
	/* FIPS 197 appendix B's key and block. */
	static const u8 key[16] = {0x2b, 0x7e, 0x15, 0x16, 0x28, 0xae,
				   0xd2, 0xa6, 0xab, 0xf7, 0x15, 0x88,
				   0x09, 0xcf, 0x4f, 0x3c};
	u32 block[4] = {0x3243f6a8, 0x885a308d, 0x313198a2, 0xe0370734};
	int is_ni = argc > 1 && strcmp(argv[1], "ni") == 0;
	int rounds = is_ni ? 24000 : 1500;
	u8 *data = calloc(1, BYTES);
	u32 counter = 0;

	if (is_ni)
		WORK_NEEDS("aes");
	make_tables();
	expand_key(key);
	encrypt_c(block, block);
	if (block[0] != 0x3925841d || block[3] != 0x196a0b32) {
		printf("FIPS 197 appendix B is wrong\n");
		return 1;
	}
	for (int r = 0; r < rounds; r++)
		(is_ni ? stream_ni : stream_c)(data, BYTES / 16, &counter);
	return work_end(is_ni ? "aes-ni" : "aes-c",
			work_mix_bytes(0, data, BYTES));
}
