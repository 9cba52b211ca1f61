/* SPDX-License-Identifier: Apache-2.0 */
/* float x87|nbody|mandelbrot|fft: scalar floating point. x87 is what gcc makes
 * of long double. Only operations that IEEE 754 rounds exactly, so that every
 * machine prints the same bits. */
#include "work.h"

static u64 bits(double d)
{
	u64 u;

	memcpy(&u, &d, sizeof(u));
	return u;
}

static u64 x87(void)
{
	enum { STEPS = 48000000 };
	long double x = 0.1L, y = 0, z = 0, step = 1.0L / 512;
	u64 sum = 0;

	/* The Lorenz system by Euler's method. */
	for (int i = 0; i < STEPS; i++) {
		long double dx = 10 * (y - x), dy = x * (28 - z) - y;
		long double dz = x * y - z * 8 / 3;

		x += dx * step;
		y += dy * step;
		z += dz * step;
		if (i % 1000 == 0)
			sum = work_mix(sum, bits(x) ^ bits(__builtin_sqrtl(
							      y * y + z * z)));
	}
	return sum;
}

struct body {
	double x[3], v[3], mass;
};

static u64 nbody(void)
{
	enum { BODIES = 5, STEPS = 10000000 };
	struct body b[BODIES];
	u64 seed = 10, sum = 0;
	double dt = 0.001;

	for (int i = 0; i < BODIES; i++) {
		b[i].mass = i ? 0.01 * i : 40;
		for (int k = 0; k < 3; k++) {
			b[i].x[k] = i * 3 + (work_random(&seed) >> 60) * 0.1;
			b[i].v[k] = (work_random(&seed) >> 60) * 0.1 - 0.8;
		}
	}
	for (int s = 0; s < STEPS; s++) {
		for (int i = 0; i < BODIES; i++) {
			for (int j = i + 1; j < BODIES; j++) {
				double d[3], r2 = 0.01, f;

				for (int k = 0; k < 3; k++) {
					d[k] = b[i].x[k] - b[j].x[k];
					r2 += d[k] * d[k];
				}
				f = dt / (r2 * __builtin_sqrt(r2));
				for (int k = 0; k < 3; k++) {
					b[i].v[k] -= d[k] * b[j].mass * f;
					b[j].v[k] += d[k] * b[i].mass * f;
				}
			}
		}
		for (int i = 0; i < BODIES; i++)
			for (int k = 0; k < 3; k++)
				b[i].x[k] += dt * b[i].v[k];
	}
	for (int i = 0; i < BODIES; i++)
		for (int k = 0; k < 3; k++)
			sum = work_mix(sum, bits(b[i].x[k]));
	return sum;
}

static u64 mandelbrot(void)
{
	enum { SIDE = 2400, LIMIT = 150 };
	u64 sum = 0;

	for (int row = 0; row < SIDE; row++) {
		for (int column = 0; column < SIDE; column++) {
			double cr = 3.0 * column / SIDE - 2.1;
			double ci = 2.4 * row / SIDE - 1.2;
			double zr = 0, zi = 0, r2 = 0, i2 = 0;
			int n = 0;

			for (; n < LIMIT && r2 + i2 < 4; n++) {
				zi = 2 * zr * zi + ci;
				zr = r2 - i2 + cr;
				r2 = zr * zr;
				i2 = zi * zi;
			}
			sum = work_mix(sum, n);
		}
	}
	return sum;
}

/* The roots of unity come from a recurrence, so that no library function takes
 * part. */
static u64 fft(void)
{
	enum { BITS = 15, N = 1 << BITS, ROUNDS = 1000 };
	static double re[N], im[N], cosine[N], sine[N];
	double c = 0.99999998161642933, s = 1.9174759731070331e-4;
	u64 seed = 11, sum = 0;

	cosine[0] = 1;
	for (int i = 1; i < N; i++) {
		cosine[i] = cosine[i - 1] * c - sine[i - 1] * s;
		sine[i] = sine[i - 1] * c + cosine[i - 1] * s;
	}
	for (int i = 0; i < N; i++)
		re[i] = (double)(work_random(&seed) >> 40);
	for (int r = 0; r < ROUNDS; r++) {
		for (int half = N / 2, step = 1; half; half /= 2, step *= 2) {
			for (int i = 0; i < N; i++) {
				double tr, ti, wr, wi;
				int k = i + half;

				if (i & half)
					continue;
				wr = cosine[(i & (half - 1)) * step];
				wi = sine[(i & (half - 1)) * step];
				tr = re[i] - re[k];
				ti = im[i] - im[k];
				re[i] = (re[i] + re[k]) * 0.5;
				im[i] = (im[i] + im[k]) * 0.5;
				re[k] = (tr * wr - ti * wi) * 0.5;
				im[k] = (tr * wi + ti * wr) * 0.5;
			}
		}
		for (int i = 0; i < N; i += 7)
			re[i] += r + 1;
	}
	for (int i = 0; i < N; i++)
		sum = work_mix(sum, bits(re[i]) ^ bits(im[i]));
	return sum;
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "x87";

	if (strcmp(what, "nbody") == 0)
		return work_end("nbody", nbody());
	if (strcmp(what, "mandelbrot") == 0)
		return work_end("mandelbrot", mandelbrot());
	if (strcmp(what, "fft") == 0)
		return work_end("fft", fft());
	return work_end("x87", x87());
}
