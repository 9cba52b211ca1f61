/* SPDX-License-Identifier: Apache-2.0 */
/* sieve: Eratosthenes by segments, and a count of twins. */
#include "work.h"

enum { LIMIT = 360000000, SEGMENT = 1 << 18, ROOT = 18975 };

int main(void)
{
	u8 *is_composite = work_alloc(SEGMENT);
	u32 primes[2200], next[2200], count = 0, found = 0, twins = 0, last = 0;
	static u8 small[ROOT + 1];

	for (u32 i = 3; i <= ROOT; i += 2) {
		if (small[i])
			continue;
		primes[count++] = i;
		for (u32 k = i * i; k <= ROOT; k += 2 * i)
			small[k] = 1;
	}
	/* Slot k of the segment at `low` stands for low + 2k + 1. */
	for (u32 i = 0; i < count; i++)
		next[i] = primes[i] * primes[i] / 2;
	for (u32 low = 0; low < LIMIT; low += 2 * SEGMENT) {
		memset(is_composite, 0, SEGMENT);
		for (u32 i = 0; i < count; i++) {
			u32 k = next[i];

			for (; k < SEGMENT; k += primes[i])
				is_composite[k] = 1;
			next[i] = k - SEGMENT;
		}
		for (u32 k = low == 0; k < SEGMENT; k++) {
			u32 n = low + 2 * k + 1;

			if (is_composite[k] || n > LIMIT)
				continue;
			found++;
			twins += n - last == 2;
			last = n;
		}
	}
	return work_end("sieve", ((u64)found << 32) | twins);
}
