/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY: ICH9 §13.7 (0xcf9, 0x92)
 *
 * A20 is always on; port 0x92 only remembers the bit.
 */
#include "hw/reset_ctl.h"

#include <stdlib.h>

#define CF9_SYSTEM   0x02
#define CF9_CPU	     0x04
#define CF9_WRITABLE 0x0e
#define PORT92_FAST  0x01
#define PORT92_A20   0x02
#define PORT92_KEPT  0x02

struct reset_ctl {
	struct device dev;
	struct mem *mem;
	struct pci_bus *bus;
	struct hw_request reset;
	struct io_region port92_region;
	bool is_requested; /* until the reset comes */
	u8 cf9, port92;
};

static void request(struct reset_ctl *r)
{
	if (r->is_requested)
		return;
	r->is_requested = true;
	hw_request(&r->reset);
}

static u64 cf9_read(void *opaque, u64 off, unsigned size)
{
	struct reset_ctl *r = opaque;

	return r->cf9;
}

static void cf9_write(void *opaque, u64 off, unsigned size, u64 v)
{
	struct reset_ctl *r = opaque;
	bool rises = !(r->cf9 & CF9_CPU) && (v & CF9_CPU);

	r->cf9 = v & CF9_WRITABLE & ~CF9_CPU;
	if (rises)
		request(r);
}

static u64 port92_read(void *opaque, u64 off, unsigned size)
{
	struct reset_ctl *r = opaque;

	return r->port92;
}

static void port92_write(void *opaque, u64 off, unsigned size, u64 v)
{
	struct reset_ctl *r = opaque;

	r->port92 = v & PORT92_KEPT;
	if (v & PORT92_FAST)
		request(r);
}

static const struct io_ops cf9_ops = {
	.read = cf9_read,
	.write = cf9_write,
	.max_size = 1,
};
static const struct io_ops port92_ops = {
	.read = port92_read,
	.write = port92_write,
	.max_size = 1,
};

static void reset_ctl_reset(struct device *dev)
{
	struct reset_ctl *r = container_of(dev, struct reset_ctl, dev);

	r->is_requested = false;
	r->cf9 = 0;
	r->port92 = PORT92_A20;
}

static void reset_ctl_state(struct device *dev, struct state *s)
{
	struct reset_ctl *r = container_of(dev, struct reset_ctl, dev);

	st_u8(s, "cf9", &r->cf9);
	st_u8(s, "port92", &r->port92);
	st_require(s,
		   !(r->cf9 & ~(CF9_WRITABLE & ~CF9_CPU)) &&
			   !(r->port92 & ~PORT92_KEPT),
		   "reset register out of range");
}

static void reset_ctl_free(struct device *dev)
{
	struct reset_ctl *r = container_of(dev, struct reset_ctl, dev);

	if (r->bus)
		pci_bus_set_cf9(r->bus, NULL, NULL);
	mem_io_del(r->mem, &r->port92_region);
	free(r);
}

struct reset_ctl *reset_ctl_new(const struct hw_env *env, struct pci_bus *bus,
				struct hw_request reset)
{
	static const struct device_ops ops = {
		.type = "reset-control",
		.reset = reset_ctl_reset,
		.state = reset_ctl_state,
		.free = reset_ctl_free,
	};
	struct reset_ctl *r = hw_chip_new(env, sizeof(*r), &ops, "reset0");

	r->mem = env->mem;
	r->bus = bus;
	r->reset = reset;
	if (bus)
		pci_bus_set_cf9(bus, &cf9_ops, r);
	hw_map(env, &r->port92_region, "port92", IO_PIO, 0x92, 1, &port92_ops,
	       r);
	reset_ctl_reset(&r->dev);
	return r;
}
