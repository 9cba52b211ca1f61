/* SPDX-License-Identifier: Apache-2.0 */
/* The time-stamp counter: guest = host + offset. SDM 3B §18.17.
 *
 * The frequency comes from CPUID when it says so, else from 50 ms against
 * CLOCK_MONOTONIC_RAW. CPUID leaves its host under virtualization, so it is
 * asked once per VM. */
#include "soft/soft_int.h"

#include <cpuid.h>
#include <time.h>
#include <x86intrin.h>

#include "base/clock.h"

u64 soft_host_tsc(void)
{
	/* Ordered behind earlier loads: a value published by another vCPU
	 * is never newer than the TSC read after it. */
	_mm_lfence();
	return __rdtsc();
}

u64 soft_tsc(const struct vcpu *v)
{
	return soft_host_tsc() + (u64)v->tsc_offset;
}

static u64 khz_from_cpuid(void)
{
	u32 a, b, c, d;

	__cpuid(0, a, b, c, d);
	if (a >= 0x15) {
		__cpuid_count(0x15, 0, a, b, c, d);
		if (a && b && c)
			return soft_muldiv(c, b, (u64)a * 1000);
	}
	__cpuid(1, a, b, c, d);
	if (!(c & BIT32(31))) /* no hypervisor */
		return 0;
	__cpuid(0x40000000, a, b, c, d);
	if (a < 0x40000010 || a > 0x400000ff)
		return 0;
	__cpuid(0x40000010, a, b, c, d);
	return a;
}

/* A (ns, tsc) pair taken closely together: the tightest of five. */
static void sample(u64 *out_ns, u64 *out_tsc)
{
	u64 best = UINT64_MAX;

	for (int i = 0; i < 5; i++) {
		u64 t0 = soft_host_tsc();
		u64 ns = clock_ns(CLOCK_MONOTONIC_RAW);
		u64 t1 = soft_host_tsc();

		if (t1 - t0 < best) {
			best = t1 - t0;
			*out_ns = ns;
			*out_tsc = t0 + (t1 - t0) / 2;
		}
	}
}

u64 soft_tsc_khz_measure(void)
{
	struct timespec ts = {.tv_nsec = 50 * 1000 * 1000};
	u64 khz = khz_from_cpuid();
	u64 ns0 = 0, tsc0 = 0, ns1 = 0, tsc1 = 0;

	/* What CPUID claims is believed only if it can be a TSC. */
	if (khz >= 100000 && khz <= 20000000)
		return khz;
	sample(&ns0, &tsc0);
	nanosleep(&ts, NULL);
	sample(&ns1, &tsc1);
	if (ns1 <= ns0 || tsc1 <= tsc0)
		return 1000000;
	khz = soft_muldiv(tsc1 - tsc0, 1000000, ns1 - ns0);
	return MAX(khz, 1);
}
