/* SPDX-License-Identifier: Apache-2.0 */
/* For tests: a machine's rest around a virtio function (RAM, PCI bus, loop,
 * MSI sink) and a driver that talks to it as a guest does, through ECAM and
 * BAR accesses. Only *_test.c and *_fuzz.c files include this. */
#pragma once

#include "base/buf.h"
#include "dev/pci.h"
#include "loop/loop.h"
#include "virtio/testring.h"
#include "virtio/virtio_pci.h"

#define TESTDRV_ECAM  0xb0000000ull
#define TESTDRV_MMIO  0xc0000000ull
#define TESTDRV_SLOT  3
#define TESTDRV_RINGS 0x10000 /* ring i at + i * 0x4000 */
#define TESTDRV_BUF   0x80000 /* free for buffers, up to the end of RAM */

struct testdrv {
	struct testram ram;
	struct loop *loop;
	struct irq_router *router;
	struct device_list devices;
	struct pci_bus *bus;
	int msi_count;
	u32 msi_last;
	int intx_level;
	/* The driver's view of the function in TESTDRV_SLOT. */
	gpa_t bar0, bar1;
	gpa_t common, isr, config, notify;
	u32 notify_stride;
	u8 window_cap;
	struct testring rings[VIRTIO_QUEUES_MAX];
};

static inline int testdrv_on_msi(void *opaque, u64 addr, u32 value)
{
	struct testdrv *t = opaque;

	(void)addr;
	t->msi_count++;
	t->msi_last = value;
	return 0;
}

static inline void testdrv_on_intx(void *opaque, int n, bool level)
{
	struct testdrv *t = opaque;

	(void)n;
	t->intx_level = level;
}

static inline void testdrv_init(struct testdrv *t)
{
	struct pci_bus_config cfg = {
		.ecam_base = TESTDRV_ECAM,
		.mmio32_base = TESTDRV_MMIO,
		.mmio32_size = 256 * MIB,
		.mmio64_base = 64 * GIB,
		.mmio64_size = GIB,
		.pio_base = 0xc000,
		.pio_size = 0x1000,
		.intx_gsi = {16, 17, 18, 19},
	};

	memset(t, 0, sizeof(*t));
	testram_init(&t->ram);
	t->loop = loop_new(NULL);
	t->router = irq_router_new();
	irq_router_set_msi(t->router, testdrv_on_msi, t);
	for (int i = 0; i < 4; i++)
		irq_router_connect(
			t->router, 16 + i,
			(struct irq){.set = testdrv_on_intx, .opaque = t});
	device_list_init(&t->devices);
	cfg.mem = t->ram.mem;
	cfg.router = t->router;
	t->bus = pci_bus_new(&cfg, &t->devices, NULL);
	ASSERT(t->loop && t->bus);
}

static inline void testdrv_fini(struct testdrv *t)
{
	device_list_free(&t->devices);
	irq_router_free(t->router);
	loop_free(t->loop);
	testram_fini(&t->ram);
}

static inline struct virtio_attach testdrv_attach(struct testdrv *t)
{
	return (struct virtio_attach){
		.loop = t->loop,
		.mem = t->ram.mem,
		.bus = t->bus,
		.name = "dut",
		.slot = TESTDRV_SLOT,
	};
}

/* Rounds of the loop until it is idle (bounded). */
static inline void testdrv_run(struct testdrv *t)
{
	for (int i = 0; i < 200 && loop_run_once(t->loop, 0) > 0; i++)
		;
}

static inline gpa_t testdrv_cfg_addr(u32 off)
{
	return TESTDRV_ECAM + ((u64)TESTDRV_SLOT << 15) + off;
}

static inline u32 testdrv_cfg_read(struct testdrv *t, u32 off, unsigned size)
{
	return (u32)mem_mmio_read(t->ram.mem, testdrv_cfg_addr(off), size);
}

static inline void testdrv_cfg_write(struct testdrv *t, u32 off, unsigned size,
				     u32 v)
{
	mem_mmio_write(t->ram.mem, testdrv_cfg_addr(off), size, v);
}

static inline u64 testdrv_read(struct testdrv *t, gpa_t gpa, unsigned size)
{
	return mem_mmio_read(t->ram.mem, gpa, size);
}

static inline void testdrv_write(struct testdrv *t, gpa_t gpa, unsigned size,
				 u64 v)
{
	mem_mmio_write(t->ram.mem, gpa, size, v);
}

/* Walks the capability list as a driver does. */
static inline void testdrv_probe(struct testdrv *t)
{
	u8 cap;

	testdrv_cfg_write(t, 4, 2, 6); /* memory space, bus master */
	t->bar0 = testdrv_cfg_read(t, 0x10, 4) & ~15u;
	t->bar1 = testdrv_cfg_read(t, 0x14, 4) & ~15u;
	for (cap = testdrv_cfg_read(t, 0x34, 1); cap;
	     cap = testdrv_cfg_read(t, cap + 1, 1)) {
		gpa_t at = t->bar0 + testdrv_cfg_read(t, cap + 8, 4);

		if (testdrv_cfg_read(t, cap, 1) != 9)
			continue;
		switch (testdrv_cfg_read(t, cap + 3, 1)) {
		case VIRTIO_PCI_CAP_COMMON_CFG:
			t->common = at;
			break;
		case VIRTIO_PCI_CAP_NOTIFY_CFG:
			t->notify = at;
			t->notify_stride = testdrv_cfg_read(t, cap + 16, 4);
			break;
		case VIRTIO_PCI_CAP_ISR_CFG:
			t->isr = at;
			break;
		case VIRTIO_PCI_CAP_DEVICE_CFG:
			t->config = at;
			break;
		case VIRTIO_PCI_CAP_PCI_CFG:
			t->window_cap = cap;
			break;
		default:
			break;
		}
	}
}

static inline u8 testdrv_status(struct testdrv *t)
{
	return (u8)testdrv_read(t, t->common + 0x14, 1);
}

static inline void testdrv_set_status(struct testdrv *t, u8 v)
{
	testdrv_write(t, t->common + 0x14, 1, v);
}

static inline u64 testdrv_features(struct testdrv *t)
{
	u64 v;

	testdrv_write(t, t->common, 4, 0);
	v = testdrv_read(t, t->common + 4, 4);
	testdrv_write(t, t->common, 4, 1);
	return v | testdrv_read(t, t->common + 4, 4) << 32;
}

/* Reset to FEATURES_OK; true when the device accepts. */
static inline bool testdrv_negotiate(struct testdrv *t, u64 features)
{
	testdrv_set_status(t, 0);
	testdrv_run(t);
	testdrv_set_status(t, 1);
	testdrv_set_status(t, 3);
	testdrv_write(t, t->common + 8, 4, 0);
	testdrv_write(t, t->common + 12, 4, (u32)features);
	testdrv_write(t, t->common + 8, 4, 1);
	testdrv_write(t, t->common + 12, 4, features >> 32);
	testdrv_set_status(t, 11);
	return testdrv_status(t) & VIRTIO_CONFIG_S_FEATURES_OK;
}

static inline void testdrv_queue_set(struct testdrv *t, u16 i, u16 size,
				     gpa_t desc, gpa_t avail, gpa_t used)
{
	gpa_t c = t->common;

	testdrv_write(t, c + 0x16, 2, i);
	testdrv_write(t, c + 0x18, 2, size);
	testdrv_write(t, c + 0x20, 8, desc);
	testdrv_write(t, c + 0x28, 8, avail);
	testdrv_write(t, c + 0x30, 8, used);
}

static inline void testdrv_queue(struct testdrv *t, u16 i, u16 size)
{
	struct testring *r = &t->rings[i];

	testring_init(r, &t->ram, TESTDRV_RINGS + i * 0x4000ull, size);
	testdrv_queue_set(t, i, size, r->desc, r->avail, r->used);
	testdrv_write(t, t->common + 0x1a, 2, i + 1);
	testdrv_write(t, t->common + 0x1c, 2, 1);
}

/* The whole start: features, `queues` rings of `size`, DRIVER_OK. */
static inline void testdrv_start(struct testdrv *t, u64 features, u16 queues,
				 u16 size)
{
	bool ok;

	testdrv_probe(t);
	ok = testdrv_negotiate(t, features | BIT64(VIRTIO_F_VERSION_1));
	ASSERT(ok);
	for (u16 i = 0; i < queues; i++)
		testdrv_queue(t, i, size);
	testdrv_set_status(t, 15);
}

static inline void testdrv_kick(struct testdrv *t, u16 i)
{
	testdrv_write(t, t->notify + (u64)i * t->notify_stride, 2, i);
	testdrv_run(t);
}

static inline bool testdrv_needs_reset(struct testdrv *t)
{
	return testdrv_status(t) & VIRTIO_CONFIG_S_NEEDS_RESET;
}

/* Turns MSI-X on with all vectors unmasked: vector n sends data 0x40 + n. */
static inline void testdrv_msix_on(struct testdrv *t, u16 vectors)
{
	u8 cap = testdrv_cfg_read(t, 0x34, 1);

	while (cap && testdrv_cfg_read(t, cap, 1) != 0x11)
		cap = testdrv_cfg_read(t, cap + 1, 1);
	ASSERT(cap);
	for (u16 i = 0; i < vectors; i++) {
		gpa_t e = t->bar1 + 16ull * i;

		testdrv_write(t, e, 4, 0xfee00000);
		testdrv_write(t, e + 4, 4, 0);
		testdrv_write(t, e + 8, 4, 0x40 + i);
		testdrv_write(t, e + 12, 4, 0);
	}
	testdrv_cfg_write(t, cap + 2, 2, 0x8000);
}

static inline u8 *testdrv_at(struct testdrv *t, gpa_t gpa)
{
	return testram_at(&t->ram, gpa);
}

/* save, load into `other` (a fresh machine of the same make), save again:
 * true when both saves are the same bytes. */
static inline bool testdrv_round_trip(struct testdrv *t, struct testdrv *other)
{
	struct buf a, b;
	struct state *s;
	bool same;
	int rc;

	buf_init(&a);
	buf_init(&b);
	s = state_save_new(&a);
	device_list_state(&t->devices, s);
	rc = state_finish(s, NULL);
	ASSERT(rc == 0);
	memcpy(other->ram.host[0], t->ram.host[0], TESTRAM_BORDER);
	s = state_load_new(a.bytes, a.len);
	device_list_state(&other->devices, s);
	rc = state_finish(s, NULL);
	ASSERT(rc == 0);
	s = state_save_new(&b);
	device_list_state(&other->devices, s);
	rc = state_finish(s, NULL);
	ASSERT(rc == 0);
	same = a.len == b.len && !memcmp(a.bytes, b.bytes, a.len);
	other->bar0 = t->bar0;
	other->bar1 = t->bar1;
	other->common = t->common;
	other->isr = t->isr;
	other->config = t->config;
	other->notify = t->notify;
	other->notify_stride = t->notify_stride;
	other->window_cap = t->window_cap;
	memcpy(other->rings, t->rings, sizeof(t->rings));
	for (int i = 0; i < VIRTIO_QUEUES_MAX; i++)
		other->rings[i].ram = &other->ram;
	buf_fini(&a);
	buf_fini(&b);
	return same;
}
