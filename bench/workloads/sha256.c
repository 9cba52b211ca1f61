/* SPDX-License-Identifier: Apache-2.0 */
/* sha256 c|ni: SHA-256 (FIPS 180-4 §6.2) in plain C, or with the SHA
 * extensions (SDM 2B, SHA256RNDS2); each is first tried on the standard's
 * example. */
#include <immintrin.h>

#include "work.h"

static const u32 k256[64] = {
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1,
	0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3,
	0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786,
	0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
	0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147,
	0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13,
	0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b,
	0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
	0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a,
	0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208,
	0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static u32 rotate(u32 x, int n)
{
	return x >> n | x << (32 - n);
}

static void blocks_c(u32 h[8], const u8 *p, size_t count)
{
	for (; count; count--, p += 64) {
		u32 w[64], s[8];

		for (int i = 0; i < 16; i++) {
			u32 x;

			memcpy(&x, p + 4 * i, 4);
			w[i] = __builtin_bswap32(x);
		}
		for (int i = 16; i < 64; i++) {
			u32 a = w[i - 15], b = w[i - 2];

			w[i] = w[i - 16] + w[i - 7] +
			       (rotate(a, 7) ^ rotate(a, 18) ^ a >> 3) +
			       (rotate(b, 17) ^ rotate(b, 19) ^ b >> 10);
		}
		memcpy(s, h, sizeof(s));
		for (int i = 0; i < 64; i++) {
			u32 e = s[4], a = s[0], t1, t2;

			t1 = s[7] +
			     (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) +
			     ((e & s[5]) ^ (~e & s[6])) + k256[i] + w[i];
			t2 = (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) +
			     ((a & s[1]) ^ (a & s[2]) ^ (s[1] & s[2]));
			memmove(s + 1, s, 7 * sizeof(*s));
			s[4] += t1;
			s[0] = t1 + t2;
		}
		for (int i = 0; i < 8; i++)
			h[i] += s[i];
	}
}

/* The instructions want the state as ABEF and CDGH, highest first. */
static __attribute__((target("sha,sse4.1"))) void
blocks_ni(u32 h[8], const u8 *p, size_t count)
{
	const __m128i swap =
		_mm_set_epi64x(0x0c0d0e0f08090a0bull, 0x0405060700010203ull);
	__m128i abef = _mm_set_epi32(h[0], h[1], h[4], h[5]);
	__m128i cdgh = _mm_set_epi32(h[2], h[3], h[6], h[7]);

	for (; count; count--, p += 64) {
		__m128i a0 = abef, c0 = cdgh, m[4], k, t;

		for (int i = 0; i < 4; i++)
			m[i] = _mm_shuffle_epi8(
				_mm_loadu_si128((const __m128i *)p + i), swap);
#pragma GCC unroll 16
		for (int i = 0; i < 16; i++) {
			k = _mm_loadu_si128((const __m128i *)(k256 + 4 * i));
			k = _mm_add_epi32(k, m[i & 3]);
			cdgh = _mm_sha256rnds2_epu32(cdgh, abef, k);
			k = _mm_shuffle_epi32(k, 0x0e);
			abef = _mm_sha256rnds2_epu32(abef, cdgh, k);
			t = _mm_sha256msg1_epu32(m[i & 3], m[(i + 1) & 3]);
			t = _mm_add_epi32(t,
					  _mm_alignr_epi8(m[(i + 3) & 3],
							  m[(i + 2) & 3], 4));
			m[i & 3] = _mm_sha256msg2_epu32(t, m[(i + 3) & 3]);
		}
		abef = _mm_add_epi32(abef, a0);
		cdgh = _mm_add_epi32(cdgh, c0);
	}
	h[0] = _mm_extract_epi32(abef, 3);
	h[1] = _mm_extract_epi32(abef, 2);
	h[4] = _mm_extract_epi32(abef, 1);
	h[5] = _mm_extract_epi32(abef, 0);
	h[2] = _mm_extract_epi32(cdgh, 3);
	h[3] = _mm_extract_epi32(cdgh, 2);
	h[6] = _mm_extract_epi32(cdgh, 1);
	h[7] = _mm_extract_epi32(cdgh, 0);
}

static int has_sha(void)
{
	u32 a = 7, b, c = 0, d;

	__asm__("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
	return b >> 29 & 1;
}

int main(int argc, char **argv)
{
	enum { BYTES = 1 << 16 };
	int is_ni = argc > 1 && strcmp(argv[1], "ni") == 0;
	int rounds = is_ni ? 8000 : 2000;
	u32 h[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
		    0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
	u8 *data = work_alloc(BYTES), abc[64] = {'a', 'b', 'c', 0x80};
	u32 test[8];

	if (is_ni && !has_sha()) {
		printf("unsupported: sha\n");
		return WORK_UNSUPPORTED;
	}
	/* FIPS 180-4's example: SHA-256("abc") begins ba7816bf. */
	abc[63] = 24;
	memcpy(test, h, sizeof(test));
	(is_ni ? blocks_ni : blocks_c)(test, abc, 1);
	if (test[0] != 0xba7816bf || test[7] != 0xf20015ad) {
		printf("SHA-256 of abc is wrong\n");
		return 1;
	}
	for (u32 i = 0; i < BYTES; i++)
		data[i] = i * 7 + (i >> 8);
	for (int r = 0; r < rounds; r++)
		(is_ni ? blocks_ni : blocks_c)(h, data, BYTES / 64);
	return work_end(is_ni ? "sha256-ni" : "sha256-c",
			work_mix_bytes(0, h, sizeof(h)));
}
