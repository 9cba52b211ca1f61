/* SPDX-License-Identifier: Apache-2.0 */
#include "hw/debug_ports.h"

#include <stdlib.h>

struct debug_port {
	struct device dev;
	struct mem *mem;
	struct io_region region;
	void (*exit_fn)(void *opaque, u32 value);
	void *exit_opaque;
	struct chardev *chardev;
};

static void debug_port_free(struct device *dev)
{
	struct debug_port *d = container_of(dev, struct debug_port, dev);

	mem_io_del(d->mem, &d->region);
	free(d);
}

static u64 exit_read(void *opaque, u64 off, unsigned size)
{
	return 0;
}

static void exit_write(void *opaque, u64 off, unsigned size, u64 v)
{
	struct debug_port *d = opaque;

	if (off == 0)
		d->exit_fn(d->exit_opaque, v);
}

static const struct io_ops exit_io = {
	.read = exit_read,
	.write = exit_write,
	.max_size = 4,
};

void debug_exit_new(const struct hw_env *env, u16 port,
		    void (*fn)(void *opaque, u32 value), void *opaque)
{
	static const struct device_ops ops = {
		.type = "debug-exit",
		.free = debug_port_free,
	};
	struct debug_port *d =
		hw_chip_new(env, sizeof(*d), &ops, "debug-exit0");

	d->mem = env->mem;
	d->exit_fn = fn;
	d->exit_opaque = opaque;
	hw_map(env, &d->region, "debug-exit", IO_PIO, port, 4, &exit_io, d);
}

/* A console that is there reads as 0xe9. */
static u64 con_read(void *opaque, u64 off, unsigned size)
{
	return 0xe9;
}

static void con_write(void *opaque, u64 off, unsigned size, u64 v)
{
	struct debug_port *d = opaque;
	u8 byte = v;

	(void)chardev_write(d->chardev, &byte, 1);
}

static const struct io_ops con_io = {
	.read = con_read,
	.write = con_write,
	.max_size = 1,
};

void debugcon_new(const struct hw_env *env, u16 port, struct chardev *chardev)
{
	static const struct device_ops ops = {
		.type = "debugcon",
		.free = debug_port_free,
	};
	struct debug_port *d = hw_chip_new(env, sizeof(*d), &ops, "debugcon0");

	d->mem = env->mem;
	d->chardev = chardev;
	hw_map(env, &d->region, "debugcon", IO_PIO, port, 1, &con_io, d);
}
