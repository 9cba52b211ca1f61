/* SPDX-License-Identifier: Apache-2.0 */
/* sort ints|strings: libc's qsort with a comparison through a pointer. */
#include "work.h"

enum { INTS = 1500000, STRINGS = 250000, LENGTH = 24 };

static int compare_ints(const void *a, const void *b)
{
	u32 x = *(const u32 *)a, y = *(const u32 *)b;

	return x < y ? -1 : x > y;
}

static int compare_strings(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static u64 sort_ints(void)
{
	u32 *v = work_alloc(INTS * sizeof(*v));
	u64 seed = 1, sum = 0;

	for (int round = 0; round < 2; round++) {
		for (int i = 0; i < INTS; i++)
			v[i] = work_random(&seed) >> 32;
		qsort(v, INTS, sizeof(*v), compare_ints);
		for (int i = 0; i < INTS; i++)
			sum = work_mix(sum, v[i]);
	}
	return sum;
}

static u64 sort_strings(void)
{
	char **v = work_alloc(STRINGS * sizeof(*v));
	u64 seed = 2, sum = 0;

	for (int i = 0; i < STRINGS; i++) {
		u64 r = work_random(&seed);
		int common = r % 12; /* equal beginnings make strcmp work */

		v[i] = work_alloc(LENGTH);
		memset(v[i], 'a', common);
		for (int k = common; k < LENGTH - 1; k++)
			v[i][k] = 'a' + work_random(&seed) % 26;
		v[i][LENGTH - 1] = 0;
	}
	for (int round = 0; round < 6; round++) {
		qsort(v, STRINGS, sizeof(*v), compare_strings);
		for (int i = 0; i < STRINGS; i++)
			sum = work_mix(sum, v[i][12]);
		for (int i = STRINGS - 1; i > 0; i--) {
			int k = work_random(&seed) % (i + 1);
			char *t = v[i];

			v[i] = v[k];
			v[k] = t;
		}
	}
	return sum;
}

int main(int argc, char **argv)
{
	if (argc > 1 && strcmp(argv[1], "strings") == 0)
		return work_end("sort-strings", sort_strings());
	return work_end("sort-ints", sort_ints());
}
