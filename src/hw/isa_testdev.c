/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "hw/testdev.h"

#define IOMEM_BASE  0xff000000ull
#define IOMEM_BYTES 0x10000u

struct isa_testdev {
	struct device dev;
	struct mem *mem;
	struct irq lines[GSI_MAX];
	struct io_region scratch, flush, irqs, iomem;
	u8 port_bytes[4];
	u32 levels; /* of the lines */
	u8 iomem_bytes[IOMEM_BYTES];
};

static u64 scratch_read(void *opaque, u64 off, unsigned size)
{
	struct isa_testdev *t = opaque;
	u64 v = 0;

	memcpy(&v, t->port_bytes + off, size);
	return v;
}

static void scratch_write(void *opaque, u64 off, unsigned size, u64 v)
{
	struct isa_testdev *t = opaque;

	memcpy(t->port_bytes + off, &v, size);
}

static u64 zero_read(void *opaque, u64 off, unsigned size)
{
	return 0;
}

static void no_write(void *opaque, u64 off, unsigned size, u64 v)
{
}

static void irqs_write(void *opaque, u64 off, unsigned size, u64 v)
{
	struct isa_testdev *t = opaque;

	t->levels &= ~BIT32(off);
	t->levels |= (v & 0xff ? 1u : 0u) << off;
	irq_set(&t->lines[off], t->levels & BIT32(off));
}

static u64 iomem_read(void *opaque, u64 off, unsigned size)
{
	struct isa_testdev *t = opaque;
	u64 v = 0;

	memcpy(&v, t->iomem_bytes + off, size);
	return v;
}

static void iomem_write(void *opaque, u64 off, unsigned size, u64 v)
{
	struct isa_testdev *t = opaque;

	memcpy(t->iomem_bytes + off, &v, size);
}

static const struct io_ops scratch_ops = {
	.read = scratch_read,
	.write = scratch_write,
	.max_size = 4,
};
static const struct io_ops flush_ops = {
	.read = zero_read,
	.write = no_write,
};
static const struct io_ops irqs_ops = {
	.read = zero_read,
	.write = irqs_write,
	.max_size = 1,
};
static const struct io_ops iomem_ops = {
	.read = iomem_read,
	.write = iomem_write,
};

static void testdev_post_load(struct device *dev)
{
	struct isa_testdev *t = container_of(dev, struct isa_testdev, dev);

	for (int i = 0; i < GSI_MAX; i++)
		irq_set(&t->lines[i], t->levels & BIT32(i));
}

static void testdev_reset(struct device *dev)
{
	struct isa_testdev *t = container_of(dev, struct isa_testdev, dev);

	memset(t->port_bytes, 0, sizeof(t->port_bytes));
	memset(t->iomem_bytes, 0, sizeof(t->iomem_bytes));
	t->levels = 0;
	testdev_post_load(dev);
}

static void testdev_state(struct device *dev, struct state *s)
{
	struct isa_testdev *t = container_of(dev, struct isa_testdev, dev);

	st_bytes(s, "ports", t->port_bytes, sizeof(t->port_bytes));
	st_u32(s, "levels", &t->levels);
	st_bytes(s, "iomem", t->iomem_bytes, sizeof(t->iomem_bytes));
	st_require(s, !(t->levels >> GSI_MAX), "line out of range");
}

static void testdev_free(struct device *dev)
{
	struct isa_testdev *t = container_of(dev, struct isa_testdev, dev);

	mem_io_del(t->mem, &t->scratch);
	mem_io_del(t->mem, &t->flush);
	mem_io_del(t->mem, &t->irqs);
	mem_io_del(t->mem, &t->iomem);
	free(t);
}

void isa_testdev_new(const struct hw_env *env)
{
	static const struct device_ops ops = {
		.type = "isa-testdev",
		.reset = testdev_reset,
		.state = testdev_state,
		.post_load = testdev_post_load,
		.free = testdev_free,
	};
	struct isa_testdev *t = hw_chip_new(env, sizeof(*t), &ops, "testdev0");

	t->mem = env->mem;
	for (int i = 0; i < GSI_MAX; i++)
		t->lines[i] = irq_router_line(env->router, i);
	hw_map(env, &t->scratch, "testdev-port", IO_PIO, 0xe0, 4, &scratch_ops,
	       t);
	hw_map(env, &t->flush, "testdev-flush", IO_PIO, 0xe4, 4, &flush_ops, t);
	hw_map(env, &t->irqs, "testdev-irq", IO_PIO, 0x2000, GSI_MAX, &irqs_ops,
	       t);
	hw_map(env, &t->iomem, "testdev-iomem", IO_MMIO, IOMEM_BASE,
	       IOMEM_BYTES, &iomem_ops, t);
}
