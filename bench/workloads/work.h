/* SPDX-License-Identifier: Apache-2.0 */
/* What the workloads share: a generator of numbers that is the same
 * everywhere, a checksum, and the closing line. Each program does a fixed
 * amount of work and prints one line that depends on all of it. */
#pragma once

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

/* The host or the guest does not offer what the workload needs. */
#define WORK_UNSUPPORTED 77

#define WORK_NEEDS(feature)                                                    \
	do {                                                                   \
		if (!__builtin_cpu_supports(feature)) {                        \
			printf("unsupported: %s\n", feature);                  \
			exit(WORK_UNSUPPORTED);                                \
		}                                                              \
	} while (0)

/* xorshift64*; the state is never 0. */
static inline u64 work_random(u64 *state)
{
	u64 x = *state;

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	*state = x;
	return x * 0x2545f4914f6cdd1dull;
}

/* FNV-1a over 64-bit words. */
static inline u64 work_mix(u64 sum, u64 value)
{
	return (sum ^ value) * 0x100000001b3ull;
}

static inline u64 work_mix_bytes(u64 sum, const void *bytes, size_t count)
{
	const u8 *p = bytes;

	for (size_t i = 0; i < count; i++)
		sum = work_mix(sum, p[i]);
	return sum;
}

static inline int work_end(const char *name, u64 sum)
{
	printf("%s %016llx\n", name, (unsigned long long)sum);
	return fflush(stdout) ? 1 : 0;
}

static inline void *work_alloc(size_t bytes)
{
	void *p = malloc(bytes);

	if (!p) {
		perror("malloc");
		exit(1);
	}
	return p;
}

static inline void work_check(int is_good, const char *what)
{
	if (!is_good) {
		perror(what);
		exit(1);
	}
}
