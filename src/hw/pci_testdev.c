/* SPDX-License-Identifier: Apache-2.0 */
/* FORMAT: QEMU docs/specs/pci-testdev.rst
 *
 *	0 u8 test, 1 u8 width, 2-3 pad, 4 u32 offset, 8 u32 expected write,
 *	12 u32 count, 16 name
 *
 * Writing `test` selects a test; a write of the given value and width at
 * `offset` then counts. Two tests a BAR: an access that must match the value,
 * and one with any value. Eventfd tests are not offered.
 */
#include <stdlib.h>

#include "base/assert.h"
#include "hw/testdev.h"

#define BAR_BYTES    4096
#define PIO_BYTES    256
#define HEADER_BYTES 48
#define TEST_OFFSET  0x40 /* beyond the header */
#define TEST_VALUE   0xfa
#define NO_TEST	     0xff

struct header_test {
	const char *name;
	bool any_value;
};

static const struct header_test tests[] = {
	{"mmio-no-eventfd", true},
	{"mmio-datamatch", false},
};

struct testdev_bar {
	u8 test; /* NO_TEST: none */
	u32 count;
};

struct pci_testdev {
	struct pci_device pci;
	struct testdev_bar bars[2];
};

static void header_build(const struct testdev_bar *b, u8 *h)
{
	memset(h, 0, HEADER_BYTES);
	h[0] = b->test;
	if (b->test >= ARRAY_SIZE(tests))
		return;
	h[1] = 1;
	st_le32(h + 4, TEST_OFFSET);
	st_le32(h + 8, TEST_VALUE);
	st_le32(h + 12, b->count);
	memcpy(h + 16, tests[b->test].name, strlen(tests[b->test].name));
}

static u64 bar_read(void *opaque, u64 off, unsigned size)
{
	u8 h[HEADER_BYTES];
	u64 v = 0;

	header_build(opaque, h);
	if (off + size <= sizeof(h))
		memcpy(&v, h + off, size);
	return v;
}

static void bar_write(void *opaque, u64 off, unsigned size, u64 v)
{
	struct testdev_bar *b = opaque;

	if (off == 0) {
		b->test = (u8)v < ARRAY_SIZE(tests) ? v : NO_TEST;
		b->count = 0;
	} else if (off == TEST_OFFSET && size == 1 && b->test != NO_TEST &&
		   (tests[b->test].any_value || (u8)v == TEST_VALUE)) {
		b->count++;
	}
}

static const struct io_ops bar_ops = {
	.read = bar_read,
	.write = bar_write,
};

static struct pci_testdev *testdev_of(struct device *dev)
{
	return container_of(dev, struct pci_testdev, pci.dev);
}

static void testdev_reset(struct device *dev)
{
	struct pci_testdev *t = testdev_of(dev);

	pci_device_reset(&t->pci);
	for (int i = 0; i < 2; i++)
		t->bars[i] = (struct testdev_bar){.test = NO_TEST};
}

static void testdev_state(struct device *dev, struct state *s)
{
	static const char *const names[] = {"mem", "io"};
	struct pci_testdev *t = testdev_of(dev);

	pci_device_state(&t->pci, s);
	for (int i = 0; i < 2; i++) {
		st_begin(s, names[i]);
		st_u8(s, "test", &t->bars[i].test);
		st_u32(s, "count", &t->bars[i].count);
		st_require(s,
			   t->bars[i].test == NO_TEST ||
				   t->bars[i].test < ARRAY_SIZE(tests),
			   "no such test");
		st_end(s);
	}
}

static void testdev_post_load(struct device *dev)
{
	pci_device_post_load(&testdev_of(dev)->pci);
}

static void testdev_free(struct device *dev)
{
	struct pci_testdev *t = testdev_of(dev);

	pci_unplug(&t->pci);
	free(t);
}

int pci_testdev_new(const struct hw_env *env, struct pci_bus *bus, int slot,
		    struct err *err)
{
	static const struct device_ops ops = {
		.type = "pci-testdev",
		.reset = testdev_reset,
		.state = testdev_state,
		.post_load = testdev_post_load,
		.free = testdev_free,
	};
	static const struct pci_ident ident = {
		.vendor = 0x1b36,
		.device = 0x0005,
		.subsystem_vendor = 0x1af4,
		.subsystem = 0x1100,
		.class_code = 0xff0000,
	};
	struct pci_testdev *t = calloc(1, sizeof(*t));
	int rc;

	ASSERT(t);
	pci_device_init(&t->pci, &ops, "pci-testdev0", &ident);
	t->pci.config[0x3d] = 0; /* no interrupt pin */
	pci_bar_add(&t->pci, 0, BAR_BYTES, false, false, &bar_ops, &t->bars[0]);
	pci_bar_add_pio(&t->pci, 1, PIO_BYTES, &bar_ops, &t->bars[1]);
	rc = pci_plug(bus, &t->pci, slot, err);
	if (rc) {
		free(t);
		return rc;
	}
	testdev_reset(&t->pci.dev);
	return 0;
}
