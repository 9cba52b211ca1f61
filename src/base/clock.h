/* SPDX-License-Identifier: Apache-2.0 */
/* Host clocks in nanoseconds. */
#pragma once

#include <time.h>

#include "base/types.h"

#define NS_PER_SEC 1000000000ull

static inline u64 clock_ns(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (u64)ts.tv_sec * NS_PER_SEC + (u64)ts.tv_nsec;
}
static inline u64 clock_mono_ns(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}
static inline u64 clock_wall_ns(void)
{
	return clock_ns(CLOCK_REALTIME);
}
