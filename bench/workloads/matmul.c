/* SPDX-License-Identifier: Apache-2.0 */
/* matmul sse2|avx2: C += A·B in double precision, by rows; the second with
 * AVX2 and fused multiply-add. The numbers are small integers, so every
 * order of summing gives the same bits. */
#include <immintrin.h>

#include "work.h"

enum { N = 496 };
static double a[N][N], b[N][N], c[N][N] __attribute__((aligned(32)));

static void multiply_sse2(void)
{
	for (int i = 0; i < N; i++) {
		for (int k = 0; k < N; k++) {
			__m128d x = _mm_set1_pd(a[i][k]);

			for (int j = 0; j < N; j += 2) {
				__m128d y = _mm_loadu_pd(&b[k][j]);
				__m128d z = _mm_loadu_pd(&c[i][j]);

				z = _mm_add_pd(z, _mm_mul_pd(x, y));
				_mm_storeu_pd(&c[i][j], z);
			}
		}
	}
}

static __attribute__((target("avx2,fma"))) void multiply_avx2(void)
{
	for (int i = 0; i < N; i++) {
		for (int j = 0; j < N; j += 16) {
			__m256d z[4];

			for (int n = 0; n < 4; n++)
				z[n] = _mm256_loadu_pd(&c[i][j + 4 * n]);
			for (int k = 0; k < N; k++) {
				__m256d x = _mm256_set1_pd(a[i][k]);

				for (int n = 0; n < 4; n++)
					z[n] = _mm256_fmadd_pd(
						x,
						_mm256_loadu_pd(
							&b[k][j + 4 * n]),
						z[n]);
			}
			for (int n = 0; n < 4; n++)
				_mm256_storeu_pd(&c[i][j + 4 * n], z[n]);
		}
	}
}

int main(int argc, char **argv)
{
	int is_avx2 = argc > 1 && strcmp(argv[1], "avx2") == 0;
	u64 seed = 9;

	if (is_avx2) {
		WORK_NEEDS("avx2");
		WORK_NEEDS("fma");
	}
	for (int i = 0; i < N; i++) {
		for (int k = 0; k < N; k++) {
			a[i][k] = (int)(work_random(&seed) % 200) - 100;
			b[i][k] = (int)(work_random(&seed) % 200) - 100;
		}
	}
	for (int r = 0; r < (is_avx2 ? 20 : 16); r++)
		(is_avx2 ? multiply_avx2 : multiply_sse2)();
	return work_end(is_avx2 ? "matmul-avx2" : "matmul-sse2",
			work_mix_bytes(0, c, sizeof(c)));
}
