/* SPDX-License-Identifier: Apache-2.0 */
/* memory chase|copy|set: a random list larger than the second-level cache;
 * memcpy and memmove of many sizes; memset of many sizes. */
#include "work.h"

static u64 chase(void)
{
	enum { NODES = 1 << 18, STEPS = 5000000 };
	struct node {
		struct node *next;
		u64 fill[7];
	} *v = work_alloc(NODES * sizeof(*v));
	u32 *order = work_alloc(NODES * sizeof(*order));
	u64 seed = 4, sum = 0;
	struct node *at;

	for (u32 i = 0; i < NODES; i++)
		order[i] = i;
	for (u32 i = NODES - 1; i > 0; i--) {
		u32 k = work_random(&seed) % (i + 1), t = order[i];

		order[i] = order[k];
		order[k] = t;
	}
	for (u32 i = 0; i < NODES; i++) {
		v[order[i]].next = &v[order[(i + 1) % NODES]];
		v[order[i]].fill[0] = i;
	}
	at = v;
	for (u32 i = 0; i < STEPS; i++) {
		sum += at->fill[0];
		at = at->next;
	}
	return sum;
}

static size_t pick_size(u64 *seed)
{
	u64 r = work_random(seed);
	unsigned bits = 2 + (r & 15); /* 4 bytes to 128 KiB */

	return ((size_t)1 << bits) + (r >> 32) % ((size_t)1 << bits);
}

enum { AREA = 4 << 20 };

static u64 copy(void)
{
	u8 *from = work_alloc(AREA), *to = work_alloc(AREA);
	u64 seed = 5, sum = 0;

	for (u32 i = 0; i < AREA; i++)
		from[i] = to[i] = i * 31 + (i >> 8);
	for (u32 i = 0; i < 700000; i++) {
		size_t n = pick_size(&seed);
		u64 r = work_random(&seed);
		size_t a = (r & 0xffffff) % (AREA - n);
		size_t b = (r >> 32) % (AREA - n);

		if (i % 8 == 0)
			memmove(to + a, to + b, n);
		else
			memcpy(to + a, from + b, n);
	}
	for (u32 i = 0; i < AREA; i += 64)
		sum = work_mix(sum, to[i]);
	return sum;
}

static u64 set(void)
{
	u8 *to = work_alloc(AREA);
	u64 seed = 6, sum = 0;

	memset(to, 0, AREA);
	for (u32 i = 0; i < 1500000; i++) {
		size_t n = pick_size(&seed);

		memset(to + work_random(&seed) % (AREA - n), i, n);
	}
	for (u32 i = 0; i < AREA; i += 64)
		sum = work_mix(sum, to[i]);
	return sum;
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "chase";

	if (strcmp(what, "copy") == 0)
		return work_end("memory-copy", copy());
	if (strcmp(what, "set") == 0)
		return work_end("memory-set", set());
	return work_end("memory-chase", chase());
}
