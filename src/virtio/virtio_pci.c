/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY
 *
 * BAR 0 holds four areas of a page each: common configuration, ISR status,
 * device configuration and notifications (queue n at n * 4). BAR 1 holds the
 * MSI-X table. Five vendor capabilities tell the driver so; the fifth is a
 * window through which configuration cycles reach BAR 0.
 *
 * Common configuration is read through an image of its bytes, so any offset
 * and size works; writes must name a field exactly (the 64-bit addresses also
 * by halves) and are ignored otherwise. Queue fields cannot be written once
 * the queue is enabled.
 *
 * Doorbells follow the BAR: they exist exactly while it is mapped, at its
 * present address. They are re-checked after every write to configuration
 * space, after reset and after a load.
 *
 * Not modelled: legacy and transitional interfaces, queue reset, notification
 * data, shared memory regions.
 * Source: virtio 1.2 §4.1.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/assert.h"
#include "virtio/virtio_pci.h"

#define PCI_CAP_ID_VNDR		0x09
#define VIRTIO_PCI_VENDOR	0x1af4
#define VIRTIO_PCI_DEVICE_BASE	0x1040
#define VIRTIO_PCI_CAP_BYTES	16
#define VIRTIO_PCI_COMMON_BYTES 0x38

/* Offsets in the common configuration, virtio 1.2 §4.1.4.3. */
#define COMMON_DFSELECT	 0x00
#define COMMON_DF	 0x04
#define COMMON_GFSELECT	 0x08
#define COMMON_GF	 0x0c
#define COMMON_MSIX	 0x10
#define COMMON_NUMQ	 0x12
#define COMMON_STATUS	 0x14
#define COMMON_CFGGEN	 0x15
#define COMMON_Q_SELECT	 0x16
#define COMMON_Q_SIZE	 0x18
#define COMMON_Q_MSIX	 0x1a
#define COMMON_Q_ENABLE	 0x1c
#define COMMON_Q_NOFF	 0x1e
#define COMMON_Q_DESCLO	 0x20
#define COMMON_Q_AVAILLO 0x28
#define COMMON_Q_USEDLO	 0x30

/* Offsets in the capability. */
#define CAP_BAR	     4
#define CAP_OFFSET   8
#define CAP_LENGTH   12
#define CAP_PCI_DATA 16

#define ISR_QUEUE  1
#define ISR_CONFIG 2

struct virtio_pci;

struct kick {
	struct virtio_pci *vp;
	u16 queue;
	int fd;
	bool has_doorbell;
	struct loop_fd watch;
};

struct virtio_pci {
	struct pci_device pci;
	struct device_ops dev_ops;
	struct virtio_device *vdev;
	struct kick kicks[VIRTIO_QUEUES_MAX];
	u64 doorbell_base; /* of the notify area; 0: none */
	bool could_dma;
	u8 window_cap;
	u32 device_feature_select, driver_feature_select;
	u16 queue_select;
	u16 config_vector;
	u16 queue_vectors[VIRTIO_QUEUES_MAX];
	u8 isr;
};

static struct virtio_pci *vp_of(struct virtio_device *d)
{
	return d->transport_opaque;
}

struct pci_device *virtio_pci_function(struct virtio_device *d)
{
	return &vp_of(d)->pci;
}

/* ---- interrupts ---- */

static void intx_raise(struct virtio_pci *vp, u8 bit)
{
	vp->isr |= bit;
	pci_intx_set(&vp->pci, true);
}

static void vector_send(struct virtio_pci *vp, u16 vector, u8 isr_bit)
{
	if (!pci_msix_enabled(&vp->pci))
		intx_raise(vp, isr_bit);
	else if (vector != VIRTIO_MSI_NO_VECTOR)
		pci_msix_send(&vp->pci, vector);
}

static void vp_call_queue(struct virtio_device *d, u16 queue)
{
	vector_send(vp_of(d), vp_of(d)->queue_vectors[queue], ISR_QUEUE);
}

static void vp_call_config(struct virtio_device *d)
{
	vector_send(vp_of(d), vp_of(d)->config_vector, ISR_CONFIG);
}

static u8 isr_read(struct virtio_pci *vp)
{
	u8 isr = vp->isr;

	vp->isr = 0;
	pci_intx_set(&vp->pci, false);
	return isr;
}

/* ---- kicks ---- */

static void vp_kick_self(struct virtio_device *d, u16 queue)
{
	u64 one = 1;
	ssize_t n = write(vp_of(d)->kicks[queue].fd, &one, sizeof(one));

	(void)n; /* EAGAIN: the counter is full, hence already signalled */
}

static void on_kick(struct loop_fd *h, u32 events)
{
	struct kick *k = h->opaque;
	u64 count;
	ssize_t n = read(k->fd, &count, sizeof(count));

	(void)events;
	if (n == sizeof(count))
		virtio_kick(k->vp->vdev, k->queue);
}

static struct mem_doorbell doorbell_of(const struct kick *k, u64 base)
{
	return (struct mem_doorbell){
		.space = IO_MMIO,
		.addr = base + (u64)k->queue * VIRTIO_PCI_NOTIFY_STRIDE,
		.size = 2,
		.event_fd = k->fd,
	};
}

static void doorbells_move(struct virtio_pci *vp, u64 base)
{
	struct mem_doorbell bell;

	if (base == vp->doorbell_base)
		return;
	for (u16 i = 0; i < vp->vdev->queue_count; i++) {
		struct kick *k = &vp->kicks[i];

		if (k->has_doorbell) {
			bell = doorbell_of(k, vp->doorbell_base);
			mem_doorbell_del(vp->vdev->mem, &bell);
		}
		k->has_doorbell = false;
		if (base) {
			bell = doorbell_of(k, base);
			/* Without one, the BAR's callback kicks. */
			k->has_doorbell =
				!mem_doorbell_add(vp->vdev->mem, &bell);
		}
	}
	vp->doorbell_base = base;
}

static void doorbells_sync(struct virtio_pci *vp)
{
	const struct io_region *r = &vp->pci.bars[0].region;

	doorbells_move(vp, r->is_mapped ? r->base + VIRTIO_PCI_NOTIFY_OFF : 0);
}

/* ---- common configuration ---- */

static struct virtqueue *selected_queue(struct virtio_pci *vp)
{
	if (vp->queue_select >= vp->vdev->queue_count)
		return NULL;
	return &vp->vdev->queues[vp->queue_select];
}

static void common_image(struct virtio_pci *vp, u8 *b)
{
	struct virtio_device *d = vp->vdev;
	struct virtqueue *q = selected_queue(vp);

	memset(b, 0, VIRTIO_PCI_COMMON_BYTES);
	st_le32(b + COMMON_DFSELECT, vp->device_feature_select);
	st_le32(b + COMMON_DF,
		virtio_features_read(d, vp->device_feature_select));
	st_le32(b + COMMON_GFSELECT, vp->driver_feature_select);
	st_le32(b + COMMON_GF,
		virtio_driver_features_read(d, vp->driver_feature_select));
	st_le16(b + COMMON_MSIX, vp->config_vector);
	st_le16(b + COMMON_NUMQ, d->queue_count);
	b[COMMON_STATUS] = d->status;
	b[COMMON_CFGGEN] = d->generation;
	st_le16(b + COMMON_Q_SELECT, vp->queue_select);
	if (!q)
		return;
	st_le16(b + COMMON_Q_SIZE, q->size);
	st_le16(b + COMMON_Q_MSIX, vp->queue_vectors[q->index]);
	st_le16(b + COMMON_Q_ENABLE, q->is_ready);
	st_le16(b + COMMON_Q_NOFF, q->index);
	st_le64(b + COMMON_Q_DESCLO, q->desc);
	st_le64(b + COMMON_Q_AVAILLO, q->avail);
	st_le64(b + COMMON_Q_USEDLO, q->used);
}

static u32 common_read(struct virtio_pci *vp, u64 off, unsigned size)
{
	u8 b[VIRTIO_PCI_COMMON_BYTES];
	u32 v = 0;

	common_image(vp, b);
	for (unsigned i = 0; i < size; i++)
		if (off + i < sizeof(b))
			v |= (u32)b[off + i] << (8 * i);
	return v;
}

static u16 vector_checked(const struct virtio_pci *vp, u16 v)
{
	return v < vp->pci.msix.count ? v : VIRTIO_MSI_NO_VECTOR;
}

static void half_set(u64 *field, u64 off, u32 v)
{
	unsigned shift = off & 4 ? 32 : 0;

	*field = (*field & ~((u64)UINT32_MAX << shift)) | ((u64)v << shift);
}

static void queue_write(struct virtio_pci *vp, u64 off, unsigned size, u32 v)
{
	struct virtqueue *q = selected_queue(vp);

	if (!q)
		return;
	if (off == COMMON_Q_MSIX && size == 2)
		vp->queue_vectors[q->index] = vector_checked(vp, v);
	if (q->is_ready)
		return;
	if (off == COMMON_Q_SIZE && size == 2)
		q->size = v;
	else if (off == COMMON_Q_ENABLE && size == 2 && v == 1)
		virtio_queue_enable(vp->vdev, q->index);
	else if ((off & ~4ull) == COMMON_Q_DESCLO && size == 4)
		half_set(&q->desc, off, v);
	else if ((off & ~4ull) == COMMON_Q_AVAILLO && size == 4)
		half_set(&q->avail, off, v);
	else if ((off & ~4ull) == COMMON_Q_USEDLO && size == 4)
		half_set(&q->used, off, v);
}

static void common_write(struct virtio_pci *vp, u64 off, unsigned size, u32 v)
{
	if (off == COMMON_STATUS && size == 1)
		virtio_status_write(vp->vdev, v);
	if (vp->vdev->is_resetting)
		return;
	if (off == COMMON_DFSELECT && size == 4)
		vp->device_feature_select = v;
	else if (off == COMMON_GFSELECT && size == 4)
		vp->driver_feature_select = v;
	else if (off == COMMON_GF && size == 4)
		virtio_driver_features_write(vp->vdev,
					     vp->driver_feature_select, v);
	else if (off == COMMON_MSIX && size == 2)
		vp->config_vector = vector_checked(vp, v);
	else if (off == COMMON_Q_SELECT && size == 2)
		vp->queue_select = v;
	else if (off >= COMMON_Q_SIZE)
		queue_write(vp, off, size, v);
}

/* ---- BAR 0 ---- */

static u64 bar_read(void *opaque, u64 off, unsigned size)
{
	struct virtio_pci *vp = opaque;
	u64 in = off % VIRTIO_PCI_AREA_BYTES;

	switch (off - in) {
	case VIRTIO_PCI_COMMON_OFF:
		return common_read(vp, in, size);
	case VIRTIO_PCI_ISR_OFF:
		return in == 0 ? isr_read(vp) : 0;
	case VIRTIO_PCI_DEVICE_OFF:
		return virtio_config_read(vp->vdev, in, size);
	default:
		return 0;
	}
}

static void bar_write(void *opaque, u64 off, unsigned size, u64 value)
{
	struct virtio_pci *vp = opaque;
	u64 in = off % VIRTIO_PCI_AREA_BYTES;

	switch (off - in) {
	case VIRTIO_PCI_COMMON_OFF:
		common_write(vp, in, size, (u32)value);
		break;
	case VIRTIO_PCI_DEVICE_OFF:
		virtio_config_write(vp->vdev, in, size, (u32)value);
		break;
	case VIRTIO_PCI_NOTIFY_OFF:
		if (in / VIRTIO_PCI_NOTIFY_STRIDE < vp->vdev->queue_count)
			vp_kick_self(vp->vdev, in / VIRTIO_PCI_NOTIFY_STRIDE);
		break;
	default:
		break;
	}
}

static const struct io_ops bar_ops = {
	.read = bar_read,
	.write = bar_write,
	.min_size = 1,
	.max_size = 4,
};

/* ---- the window in configuration space ---- */

/* Where the window points: true when it is a valid access to BAR 0. It never
 * reaches another BAR, so it cannot re-enter other code. */
static bool window_target(struct virtio_pci *vp, u32 *out_off, u32 *out_size)
{
	const u8 *cap = vp->pci.config + vp->window_cap;
	u32 off = ld_le32(cap + CAP_OFFSET);
	u32 size = ld_le32(cap + CAP_LENGTH);

	if (cap[CAP_BAR] != 0 || (size != 1 && size != 2 && size != 4))
		return false;
	if (off % size || off > VIRTIO_PCI_BAR_BYTES - size)
		return false;
	*out_off = off;
	*out_size = size;
	return true;
}

static bool touches_window(const struct virtio_pci *vp, u32 off, unsigned size)
{
	u32 start = vp->window_cap + CAP_PCI_DATA;

	return off < start + 4 && off + size > start;
}

static bool vp_config_read(struct pci_device *pci, u32 off, unsigned size,
			   u32 *value)
{
	struct virtio_pci *vp = container_of(pci, struct virtio_pci, pci);
	u8 *data = pci->config + vp->window_cap + CAP_PCI_DATA;
	u32 bar_off, bar_size;

	if (touches_window(vp, off, size) &&
	    window_target(vp, &bar_off, &bar_size))
		st_le32(data, (u32)bar_read(vp, bar_off, bar_size));
	(void)value;
	return false; /* the bytes are up to date now */
}

static void vp_config_written(struct pci_device *pci, u32 off, unsigned size)
{
	struct virtio_pci *vp = container_of(pci, struct virtio_pci, pci);
	const u8 *data = pci->config + vp->window_cap + CAP_PCI_DATA;
	bool can_dma = pci_can_dma(pci);
	u32 bar_off, bar_size, value;

	if (touches_window(vp, off, size) &&
	    window_target(vp, &bar_off, &bar_size)) {
		value = ld_le32(data);
		if (bar_size < 4)
			value &= BIT32(8 * bar_size) - 1;
		bar_write(vp, bar_off, bar_size, value);
	}
	doorbells_sync(vp);
	if (can_dma && !vp->could_dma)
		virtio_kick_all(vp->vdev);
	vp->could_dma = can_dma;
}

/* ---- transport ---- */

static bool vp_can_dma(struct virtio_device *d)
{
	return pci_can_dma(&vp_of(d)->pci);
}

static void vp_reset_done(struct virtio_device *d)
{
	struct virtio_pci *vp = vp_of(d);

	vp->device_feature_select = 0;
	vp->driver_feature_select = 0;
	vp->queue_select = 0;
	vp->config_vector = VIRTIO_MSI_NO_VECTOR;
	for (u16 i = 0; i < VIRTIO_QUEUES_MAX; i++)
		vp->queue_vectors[i] = VIRTIO_MSI_NO_VECTOR;
	vp->isr = 0;
	if (vp->pci.bus)
		pci_intx_set(&vp->pci, false);
}

static const struct virtio_transport_ops vp_transport = {
	.call_queue = vp_call_queue,
	.call_config = vp_call_config,
	.kick_self = vp_kick_self,
	.can_dma = vp_can_dma,
	.reset_done = vp_reset_done,
};

/* ---- the PCI device ---- */

static struct virtio_pci *vp_of_dev(struct device *dev)
{
	return container_of(dev, struct virtio_pci, pci.dev);
}

static void vp_reset(struct device *dev)
{
	struct virtio_pci *vp = vp_of_dev(dev);

	pci_device_reset(&vp->pci);
	virtio_reset_now(vp->vdev);
	vp->vdev->generation = 0;
	vp->could_dma = false;
	doorbells_sync(vp);
}

static void vp_drain(struct device *dev)
{
	virtio_drain(vp_of_dev(dev)->vdev);
}

static void vp_state(struct device *dev, struct state *s)
{
	struct virtio_pci *vp = vp_of_dev(dev);
	char name[24];

	virtio_state(vp->vdev, s); /* first: it may end requests and call */
	pci_device_state(&vp->pci, s);
	st_u32(s, "device_feature_select", &vp->device_feature_select);
	st_u32(s, "driver_feature_select", &vp->driver_feature_select);
	st_u16(s, "queue_select", &vp->queue_select);
	st_u16(s, "config_vector", &vp->config_vector);
	st_require(s,
		   vector_checked(vp, vp->config_vector) == vp->config_vector,
		   "virtio config vector");
	for (u16 i = 0; i < vp->vdev->queue_count; i++) {
		snprintf(name, sizeof(name), "queue%u_vector", i);
		st_u16(s, name, &vp->queue_vectors[i]);
		st_require(s,
			   vector_checked(vp, vp->queue_vectors[i]) ==
				   vp->queue_vectors[i],
			   "virtio queue vector");
	}
	st_u8(s, "isr", &vp->isr);
}

static void vp_post_load(struct device *dev)
{
	struct virtio_pci *vp = vp_of_dev(dev);

	pci_device_post_load(&vp->pci);
	pci_intx_set(&vp->pci, vp->isr != 0);
	vp->could_dma = pci_can_dma(&vp->pci);
	doorbells_sync(vp);
	virtio_post_load(vp->vdev);
}

static void vp_release(struct virtio_pci *vp)
{
	struct virtio_device *d = vp->vdev;

	if (d->async_count)
		virtio_reset_now(d);
	doorbells_move(vp, 0);
	for (u16 i = 0; i < d->queue_count; i++) {
		loop_fd_del(&vp->kicks[i].watch);
		if (vp->kicks[i].fd >= 0)
			close(vp->kicks[i].fd);
	}
	d->ops->free(d);
	free(vp);
}

static void vp_free(struct device *dev)
{
	struct virtio_pci *vp = vp_of_dev(dev);

	if (vp->pci.bus)
		pci_unplug(&vp->pci);
	vp_release(vp);
}

/* ---- construction ---- */

static u8 cap_add(struct virtio_pci *vp, u8 type, u32 off, u32 len, u32 extra,
		  u8 cap_len)
{
	u8 b[VIRTIO_PCI_CAP_BYTES + 4] = {0};

	b[0] = PCI_CAP_ID_VNDR;
	b[2] = cap_len;
	b[3] = type;
	st_le32(b + CAP_OFFSET, off);
	st_le32(b + CAP_LENGTH, len);
	st_le32(b + VIRTIO_PCI_CAP_BYTES, extra);
	return pci_cap_add(&vp->pci, PCI_CAP_ID_VNDR, b, cap_len);
}

static void caps_add(struct virtio_pci *vp)
{
	struct virtio_device *d = vp->vdev;
	u8 *mask;

	cap_add(vp, VIRTIO_PCI_CAP_COMMON_CFG, VIRTIO_PCI_COMMON_OFF,
		VIRTIO_PCI_COMMON_BYTES, 0, VIRTIO_PCI_CAP_BYTES);
	cap_add(vp, VIRTIO_PCI_CAP_NOTIFY_CFG, VIRTIO_PCI_NOTIFY_OFF,
		d->queue_count * VIRTIO_PCI_NOTIFY_STRIDE,
		VIRTIO_PCI_NOTIFY_STRIDE, VIRTIO_PCI_CAP_BYTES + 4);
	cap_add(vp, VIRTIO_PCI_CAP_ISR_CFG, VIRTIO_PCI_ISR_OFF, 1, 0,
		VIRTIO_PCI_CAP_BYTES);
	if (d->config_bytes)
		cap_add(vp, VIRTIO_PCI_CAP_DEVICE_CFG, VIRTIO_PCI_DEVICE_OFF,
			d->config_bytes, 0, VIRTIO_PCI_CAP_BYTES);
	vp->window_cap = cap_add(vp, VIRTIO_PCI_CAP_PCI_CFG, 0, 0, 0,
				 VIRTIO_PCI_CAP_BYTES + 4);
	mask = vp->pci.writable + vp->window_cap;
	mask[CAP_BAR] = 0xff;
	memset(mask + CAP_OFFSET, 0xff, 12); /* offset, length, data */
}

static int kicks_start(struct virtio_pci *vp, struct err *err)
{
	for (u16 i = 0; i < vp->vdev->queue_count; i++) {
		struct kick *k = &vp->kicks[i];
		int rc;

		k->vp = vp;
		k->queue = i;
		k->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		if (k->fd < 0)
			return err_sys(err, -errno, "create eventfd");
		rc = loop_fd_add(vp->vdev->loop, &k->watch, k->fd, LOOP_READ,
				 on_kick, k);
		if (rc)
			return err_sys(err, rc, "watch eventfd");
	}
	return 0;
}

int virtio_pci_plug(struct virtio_device *d, const struct virtio_attach *at,
		    u32 class_code, struct err *err)
{
	struct virtio_pci *vp = calloc(1, sizeof(*vp));
	struct pci_ident ident = {
		.vendor = VIRTIO_PCI_VENDOR,
		.device = VIRTIO_PCI_DEVICE_BASE + d->id,
		.subsystem_vendor = VIRTIO_PCI_VENDOR,
		.subsystem = VIRTIO_PCI_DEVICE_BASE + d->id,
		.class_code = class_code,
		.revision = 1,
	};
	int rc;

	if (!vp) {
		d->ops->free(d);
		return err_sys(err, -ENOMEM, "add device '%s'", at->name);
	}
	for (u16 i = 0; i < VIRTIO_QUEUES_MAX; i++)
		vp->kicks[i].fd = -1;
	vp->vdev = d;
	vp->dev_ops = (struct device_ops){
		.type = d->ops->type,
		.reset = vp_reset,
		.drain = vp_drain,
		.state = vp_state,
		.post_load = vp_post_load,
		.free = vp_free,
	};
	d->transport = &vp_transport;
	d->transport_opaque = vp;
	vp_reset_done(d);
	pci_device_init(&vp->pci, &vp->dev_ops, at->name, &ident);
	pci_bar_add(&vp->pci, 0, VIRTIO_PCI_BAR_BYTES, false, false, &bar_ops,
		    vp);
	pci_msix_add(&vp->pci, VIRTIO_PCI_MSIX_BAR, d->queue_count + 1);
	caps_add(vp);
	vp->pci.config_read = vp_config_read;
	vp->pci.config_written = vp_config_written;
	rc = kicks_start(vp, err);
	if (!rc)
		rc = pci_plug(at->bus, &vp->pci, at->slot, err);
	if (rc) {
		err_wrap(err, "add device '%s'", at->name);
		vp_release(vp);
		return rc;
	}
	doorbells_sync(vp);
	return 0;
}
