/* SPDX-License-Identifier: Apache-2.0 */
/* timer COUNT PERIOD_US: how late an idle machine wakes a sleeper: prints the
 * median, the 99th percentile and the maximum in microseconds. */
#include <time.h>

#include "work.h"

static int compare(const void *a, const void *b)
{
	long long x = *(const long long *)a, y = *(const long long *)b;

	return x < y ? -1 : x > y;
}

static long long now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ll + t.tv_nsec;
}

int main(int argc, char **argv)
{
	int count = argc > 1 ? atoi(argv[1]) : 5000;
	long long period_ns = (argc > 2 ? atoi(argv[2]) : 1000) * 1000ll;
	long long *late = work_alloc((count < 1 ? 1 : count) * sizeof(*late));

	if (count < 1 || period_ns < 1)
		return 2;
	for (int i = 0; i < count; i++) {
		long long due = now_ns() + period_ns;
		struct timespec t = {due / 1000000000, due % 1000000000};

		while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t,
				       NULL))
			;
		late[i] = now_ns() - due;
	}
	qsort(late, count, sizeof(*late), compare);
	printf("%.1f %.1f %.1f\n", late[count / 2] / 1e3,
	       late[(count - 1) * 99ll / 100] / 1e3, late[count - 1] / 1e3);
	return 0;
}
