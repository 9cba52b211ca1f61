/* SPDX-License-Identifier: Apache-2.0 */
/* calls direct|indirect: recursion, and calls through tables of pointers that
 * change from object to object (what virtual methods are). */
#include "work.h"

static __attribute__((noinline)) u64 fib(unsigned n)
{
	return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

static __attribute__((noinline)) unsigned ack(unsigned m, unsigned n)
{
	if (m == 0)
		return n + 1;
	return ack(m - 1, n == 0 ? 1 : ack(m, n - 1));
}

struct shape;
struct shape_ops {
	u64 (*area)(const struct shape *s);
	void (*grow)(struct shape *s, u32 by);
};
struct shape {
	const struct shape_ops *ops;
	u32 a, b;
};

#define SHAPE(name, expression)                                                \
	static u64 name##_area(const struct shape *s)                          \
	{                                                                      \
		return expression;                                             \
	}                                                                      \
	static void name##_grow(struct shape *s, u32 by)                       \
	{                                                                      \
		s->a += by;                                                    \
		s->b = s->b * 5 + (u32)(expression);                           \
	}                                                                      \
	static const struct shape_ops name##_ops = {name##_area, name##_grow};

SHAPE(square, (u64)s->a * s->a)
SHAPE(rect, (u64)s->a * s->b)
SHAPE(tri, (u64)s->a * s->b / 2)
SHAPE(ring, 3 * ((u64)s->a * s->a - s->b))
SHAPE(line, s->a ^ s->b)
SHAPE(point, s->a + 1)
SHAPE(mesh, (u64)s->a << (s->b & 7))
SHAPE(blob, (u64)s->b + (s->a >> 3))

static u64 indirect(void)
{
	static const struct shape_ops *const kinds[] = {
		&square_ops, &rect_ops,	 &tri_ops,  &ring_ops,
		&line_ops,   &point_ops, &mesh_ops, &blob_ops};
	enum { SHAPES = 4096, ROUNDS = 12000 };
	struct shape *v = work_alloc(SHAPES * sizeof(*v));
	u64 seed = 3, sum = 0;

	for (int i = 0; i < SHAPES; i++)
		v[i] = (struct shape){kinds[work_random(&seed) >> 61], i,
				      (u32)work_random(&seed)};
	for (int r = 0; r < ROUNDS; r++) {
		for (int i = 0; i < SHAPES; i++)
			sum += v[i].ops->area(&v[i]);
		v[r % SHAPES].ops->grow(&v[r % SHAPES], r);
	}
	return sum;
}

int main(int argc, char **argv)
{
	u64 sum = 0;

	if (argc > 1 && strcmp(argv[1], "indirect") == 0)
		return work_end("calls-indirect", indirect());
	for (int i = 0; i < 4; i++)
		sum = work_mix(sum, fib(38) + i);
	for (int i = 0; i < 3; i++)
		sum = work_mix(sum, ack(3, 9) + i);
	return work_end("calls-direct", sum);
}
