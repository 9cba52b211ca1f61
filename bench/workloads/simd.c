/* SPDX-License-Identifier: Apache-2.0 */
/* simd: SSE2 on integers, as image and video code uses it: blends, sums of
 * absolute differences, saturating arithmetic, shuffles, 16-bit products. */
#include <emmintrin.h>

#include "work.h"

enum { BYTES = 1 << 18, ROUNDS = 12000 };

int main(void)
{
	__m128i *a = work_alloc(BYTES), *b = work_alloc(BYTES);
	__m128i sad = _mm_setzero_si128(), zero = sad, dot = sad;
	u64 seed = 12, lanes[4], sum = 0;

	for (int i = 0; i < BYTES / 16; i++) {
		a[i] = _mm_set_epi64x(work_random(&seed), work_random(&seed));
		b[i] = _mm_set_epi64x(work_random(&seed), work_random(&seed));
	}
	for (int r = 0; r < ROUNDS; r++) {
		__m128i weight = _mm_set1_epi16(r % 256);

		for (int i = 0; i < BYTES / 16; i++) {
			__m128i x = a[i], y = b[i];
			__m128i lo = _mm_unpacklo_epi8(x, zero);
			__m128i hi = _mm_unpackhi_epi8(x, zero);
			__m128i ylo = _mm_unpacklo_epi8(y, zero);
			__m128i yhi = _mm_unpackhi_epi8(y, zero);

			lo = _mm_srli_epi16(_mm_mullo_epi16(lo, weight), 8);
			hi = _mm_srli_epi16(_mm_mullo_epi16(hi, weight), 8);
			dot = _mm_add_epi32(dot, _mm_madd_epi16(lo, ylo));
			dot = _mm_xor_si128(dot, _mm_madd_epi16(hi, yhi));
			lo = _mm_packus_epi16(lo, hi);
			sad = _mm_add_epi64(sad, _mm_sad_epu8(lo, y));
			y = _mm_avg_epu8(y, _mm_shuffle_epi32(lo, 0x4e));
			y = _mm_max_epu8(y, _mm_subs_epu8(x, lo));
			b[i] = _mm_add_epi8(y, _mm_cmpgt_epi8(x, y));
		}
	}
	_mm_storeu_si128((__m128i *)lanes, sad);
	_mm_storeu_si128((__m128i *)lanes + 1, dot);
	for (int i = 0; i < 4; i++)
		sum = work_mix(sum, lanes[i]);
	return work_end("simd", work_mix_bytes(sum, b, BYTES));
}
