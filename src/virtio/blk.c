/* SPDX-License-Identifier: Apache-2.0 */
/* FORMAT
 *
 *	readable: header {type u32, reserved u32, sector u64} [data to write]
 *	writable: [data read] status u8
 *
 * cut into descriptors anywhere. DISCARD and WRITE_ZEROES carry one segment
 * {sector u64, num_sectors u32, flags u32} as data to write.
 *
 * Requests live in a fixed pool, shared by the queues; when it is empty the
 * queues wait, and go on as requests complete. A write on a device whose
 * driver has not negotiated FLUSH is followed by a flush before it completes
 * (§5.2.6.2).
 *
 * A chain without room for the header or the status fails the device; all
 * else that is wrong ends in a status.
 *
 * Not modelled: CONFIG_WCE, SCSI pass-through, LIFETIME, SECURE_ERASE, zones.
 * Source: virtio 1.2 §5.2.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/assert.h"
#include "virtio/blk.h"
#include "virtio/virtio_pci.h"

#define VIRTIO_BLK_F_SIZE_MAX	  1
#define VIRTIO_BLK_F_SEG_MAX	  2
#define VIRTIO_BLK_F_RO		  5
#define VIRTIO_BLK_F_BLK_SIZE	  6
#define VIRTIO_BLK_F_FLUSH	  9
#define VIRTIO_BLK_F_TOPOLOGY	  10
#define VIRTIO_BLK_F_MQ		  12
#define VIRTIO_BLK_F_DISCARD	  13
#define VIRTIO_BLK_F_WRITE_ZEROES 14

#define VIRTIO_BLK_T_IN		  0
#define VIRTIO_BLK_T_OUT	  1
#define VIRTIO_BLK_T_FLUSH	  4
#define VIRTIO_BLK_T_GET_ID	  8
#define VIRTIO_BLK_T_DISCARD	  11
#define VIRTIO_BLK_T_WRITE_ZEROES 13

#define VIRTIO_BLK_S_OK	    0
#define VIRTIO_BLK_S_IOERR  1
#define VIRTIO_BLK_S_UNSUPP 2

#define VIRTIO_BLK_WRITE_ZEROES_F_UNMAP 1

#define VIRTIO_BLK_ID_BYTES 20
#define BLK_SECTOR	    512u
#define BLK_HEADER_BYTES    16
#define BLK_SEGMENT_BYTES   16
#define BLK_CONFIG_BYTES    60
#define BLK_QUEUE_SIZE	    256
#define BLK_REQUESTS	    128
#define BLK_SEG_MAX	    126
#define BLK_SIZE_MAX	    (1u << 20)
#define BLK_DISCARD_SECTORS (1u << 21) /* 1 GiB */
#define BLK_CLASS	    0x018000

struct blk;

struct blk_req {
	struct list link; /* in blk.idle */
	struct blk *blk;
	struct virtqueue *q;
	struct block_request io;
	struct virtq_chain chain;
	struct iovec iov[VIRTQ_SEGMENTS_MAX];
};

struct blk {
	struct virtio_device v;
	struct block_node *node;
	u8 serial[VIRTIO_BLK_ID_BYTES];
	bool is_starved; /* a queue waits for an idle request */
	struct list idle;
	struct blk_req reqs[BLK_REQUESTS];
};

struct blk_header {
	u32 type;
	u32 reserved;
	u64 sector;
};

static struct blk *blk_of(struct virtio_device *v)
{
	return container_of(v, struct blk, v);
}

static void req_release(struct blk_req *r)
{
	list_add_tail(&r->blk->idle, &r->link);
}

/* Writes the status byte, the last of the writable part, and returns the
 * chain; the request is idle afterwards. */
static void req_finish(struct blk_req *r, u8 status)
{
	struct virtq_chain *c = &r->chain;
	struct virtio_device *v = &r->blk->v;

	if (virtio_is_live(v))
		buf_to_iov(virtq_chain_writable(c), c->writable_count,
			   c->writable_bytes - 1, &status, 1);
	virtio_push(v, r->q, c, c->writable_bytes);
	req_release(r);
}

static void queues_resume(struct blk *b)
{
	if (!b->is_starved)
		return;
	b->is_starved = false;
	for (u16 i = 0; i < b->v.queue_count; i++)
		virtio_queue_resume(&b->v, i);
}

static void io_submit(struct blk_req *r)
{
	block_submit(r->blk->node, &r->io);
}

static void on_done(struct block_request *io, int result)
{
	struct blk_req *r = container_of(io, struct blk_req, io);
	struct blk *b = r->blk;
	struct virtqueue *q = r->q;

	if (!result && io->op == BLOCK_WRITE &&
	    !virtio_has(&b->v, VIRTIO_BLK_F_FLUSH)) {
		io->op = BLOCK_FLUSH;
		io->offset = 0;
		io->len = 0;
		io->iov_count = 0;
		io_submit(r);
		return;
	}
	req_finish(r, result ? VIRTIO_BLK_S_IOERR : VIRTIO_BLK_S_OK);
	virtio_call(&b->v, q);
	virtio_async_end(&b->v);
	queues_resume(b);
}

static void req_start(struct blk_req *r, enum block_op op, u64 offset, u64 len,
		      int iov_count)
{
	memset(&r->io, 0, sizeof(r->io));
	r->io.op = op;
	r->io.offset = offset;
	r->io.len = len;
	r->io.iov = r->iov;
	r->io.iov_count = iov_count;
	r->io.done = on_done;
	r->io.opaque = r;
	virtio_async_begin(&r->blk->v);
}

static bool range_is_valid(const struct blk *b, u64 sector, u64 len)
{
	u64 size = block_size_bytes(b->node) / BLK_SECTOR * BLK_SECTOR;
	u64 offset, end;

	return len % BLK_SECTOR == 0 &&
	       !__builtin_mul_overflow(sector, (u64)BLK_SECTOR, &offset) &&
	       !__builtin_add_overflow(offset, len, &end) && end <= size;
}

static void do_transfer(struct blk_req *r, const struct blk_header *h)
{
	struct virtq_chain *c = &r->chain;
	bool is_read = h->type == VIRTIO_BLK_T_IN;
	u64 skip = is_read ? 0 : BLK_HEADER_BYTES;
	u64 len = is_read ? c->writable_bytes - 1 : c->readable_bytes - skip;
	int n;

	if (!range_is_valid(r->blk, h->sector, len) ||
	    (!is_read && block_is_read_only(r->blk->node))) {
		req_finish(r, VIRTIO_BLK_S_IOERR);
		return;
	}
	if (!len) {
		req_finish(r, VIRTIO_BLK_S_OK);
		return;
	}
	if (is_read)
		n = iov_slice(virtq_chain_writable(c), c->writable_count, 0,
			      len, r->iov);
	else
		n = iov_slice(virtq_chain_readable(c), c->readable_count, skip,
			      len, r->iov);
	ASSERT(n > 0);
	req_start(r, is_read ? BLOCK_READ : BLOCK_WRITE, h->sector * BLK_SECTOR,
		  len, n);
	io_submit(r);
}

/* Status of a DISCARD or WRITE_ZEROES segment before it is submitted. */
static u8 segment_check(struct blk *b, u32 type, u64 sector, u32 count,
			u32 flags)
{
	u32 allowed = type == VIRTIO_BLK_T_WRITE_ZEROES
			      ? VIRTIO_BLK_WRITE_ZEROES_F_UNMAP
			      : 0;

	if (flags & ~allowed)
		return VIRTIO_BLK_S_UNSUPP;
	if (block_is_read_only(b->node) || count > BLK_DISCARD_SECTORS ||
	    !range_is_valid(b, sector, (u64)count * BLK_SECTOR))
		return VIRTIO_BLK_S_IOERR;
	return VIRTIO_BLK_S_OK;
}

static void do_segment(struct blk_req *r, const struct blk_header *h)
{
	struct virtq_chain *c = &r->chain;
	bool is_zero = h->type == VIRTIO_BLK_T_WRITE_ZEROES;
	u8 seg[BLK_SEGMENT_BYTES];
	u32 count, flags;
	u64 sector;
	u8 status;

	if (!virtio_has(&r->blk->v, is_zero ? VIRTIO_BLK_F_WRITE_ZEROES
					    : VIRTIO_BLK_F_DISCARD) ||
	    c->readable_bytes != BLK_HEADER_BYTES + BLK_SEGMENT_BYTES) {
		req_finish(r, VIRTIO_BLK_S_UNSUPP);
		return;
	}
	iov_to_buf(virtq_chain_readable(c), c->readable_count, BLK_HEADER_BYTES,
		   seg, sizeof(seg));
	sector = ld_le64(seg);
	count = ld_le32(seg + 8);
	flags = ld_le32(seg + 12);
	status = segment_check(r->blk, h->type, sector, count, flags);
	if (status != VIRTIO_BLK_S_OK || !count) {
		req_finish(r, status);
		return;
	}
	req_start(r, is_zero ? BLOCK_WRITE_ZEROES : BLOCK_DISCARD,
		  sector * BLK_SECTOR, (u64)count * BLK_SECTOR, 0);
	r->io.may_unmap = flags & VIRTIO_BLK_WRITE_ZEROES_F_UNMAP;
	io_submit(r);
}

static void do_get_id(struct blk_req *r)
{
	struct virtq_chain *c = &r->chain;
	size_t n = MIN(sizeof(r->blk->serial), c->writable_bytes - 1);

	buf_to_iov(virtq_chain_writable(c), c->writable_count, 0,
		   r->blk->serial, n);
	req_finish(r, VIRTIO_BLK_S_OK);
}

static void req_dispatch(struct blk_req *r)
{
	struct virtq_chain *c = &r->chain;
	u8 bytes[BLK_HEADER_BYTES];
	struct blk_header h;

	iov_to_buf(virtq_chain_readable(c), c->readable_count, 0, bytes,
		   sizeof(bytes));
	memcpy(&h, bytes, sizeof(h));
	switch (h.type) {
	case VIRTIO_BLK_T_IN:
	case VIRTIO_BLK_T_OUT:
		do_transfer(r, &h);
		break;
	case VIRTIO_BLK_T_FLUSH:
		req_start(r, BLOCK_FLUSH, 0, 0, 0);
		io_submit(r);
		break;
	case VIRTIO_BLK_T_GET_ID:
		do_get_id(r);
		break;
	case VIRTIO_BLK_T_DISCARD:
	case VIRTIO_BLK_T_WRITE_ZEROES:
		do_segment(r, &h);
		break;
	default:
		req_finish(r, VIRTIO_BLK_S_UNSUPP);
		break;
	}
}

static enum virtio_step blk_step(struct virtio_device *v, struct virtqueue *q)
{
	struct blk *b = blk_of(v);
	struct blk_req *r;

	if (list_is_empty(&b->idle)) {
		b->is_starved = true;
		return VIRTIO_STEP_BLOCKED;
	}
	r = list_entry(b->idle.next, struct blk_req, link);
	if (!virtio_pop(v, q, &r->chain))
		return VIRTIO_STEP_EMPTY;
	if (r->chain.readable_bytes < BLK_HEADER_BYTES ||
	    !r->chain.writable_bytes) {
		virtio_fail(v, "request without header or status");
		return VIRTIO_STEP_EMPTY;
	}
	list_del(&r->link);
	r->q = q;
	req_dispatch(r);
	return VIRTIO_STEP_DONE;
}

static void blk_handle_queue(struct virtio_device *v, struct virtqueue *q)
{
	virtio_queue_run(v, q, blk_step);
}

static void blk_reset(struct virtio_device *v)
{
	blk_of(v)->is_starved = false;
}

static void blk_drain(struct virtio_device *v)
{
	/* A write may add its flush on completion; when live, completions may
	 * start waiting requests: both are bounded by the ring. */
	while (v->async_count)
		block_drain(blk_of(v)->node);
}

static void blk_free(struct virtio_device *v)
{
	free(blk_of(v));
}

static const struct virtio_ops blk_ops = {
	.type = "virtio-blk",
	.handle_queue = blk_handle_queue,
	.reset = blk_reset,
	.drain = blk_drain,
	.free = blk_free,
};

static void config_fill(struct blk *b, u16 queues)
{
	u8 *c = b->v.config;

	st_le64(c, block_size_bytes(b->node) / BLK_SECTOR);
	st_le32(c + 8, BLK_SIZE_MAX);
	st_le32(c + 12, BLK_SEG_MAX);
	st_le32(c + 20, BLK_SECTOR); /* blk_size */
	c[24] = 3;		     /* physical block: 2^3 logical ones */
	st_le16(c + 26, 8);	     /* min_io_size, blocks */
	st_le16(c + 34, queues);
	st_le32(c + 36, BLK_DISCARD_SECTORS);
	st_le32(c + 40, 1); /* max_discard_seg */
	st_le32(c + 44, 8); /* discard_sector_alignment */
	st_le32(c + 48, BLK_DISCARD_SECTORS);
	st_le32(c + 52, 1); /* max_write_zeroes_seg */
	c[56] = 1;	    /* write_zeroes_may_unmap */
	b->v.config_bytes = BLK_CONFIG_BYTES;
}

void virtio_blk_set_node(struct virtio_device *v, struct block_node *node)
{
	ASSERT(!v->async_count);
	blk_of(v)->node = node;
}

void virtio_blk_resized(struct virtio_device *v)
{
	st_le64(v->config, block_size_bytes(blk_of(v)->node) / BLK_SECTOR);
	virtio_config_changed(v);
}

int virtio_blk_new(const struct virtio_blk_config *cfg,
		   struct virtio_device **out, struct err *err)
{
	u16 queues = cfg->queues ? MIN(cfg->queues, VIRTIO_QUEUES_MAX) : 1;
	struct blk *b = calloc(1, sizeof(*b));
	u64 features =
		BIT64(VIRTIO_BLK_F_SIZE_MAX) | BIT64(VIRTIO_BLK_F_SEG_MAX) |
		BIT64(VIRTIO_BLK_F_BLK_SIZE) | BIT64(VIRTIO_BLK_F_FLUSH) |
		BIT64(VIRTIO_BLK_F_TOPOLOGY) | BIT64(VIRTIO_BLK_F_MQ);
	int rc;

	if (!b)
		return err_sys(err, -ENOMEM, "add disk '%s'", cfg->at.name);
	features |= block_is_read_only(cfg->node)
			    ? BIT64(VIRTIO_BLK_F_RO)
			    : BIT64(VIRTIO_BLK_F_DISCARD) |
				      BIT64(VIRTIO_BLK_F_WRITE_ZEROES);
	virtio_device_init(&b->v, &blk_ops, &cfg->at, VIRTIO_ID_BLOCK,
			   features);
	b->node = cfg->node;
	if (cfg->serial)
		memcpy(b->serial, cfg->serial,
		       strnlen(cfg->serial, sizeof(b->serial)));
	list_init(&b->idle);
	for (int i = 0; i < BLK_REQUESTS; i++) {
		b->reqs[i].blk = b;
		list_add_tail(&b->idle, &b->reqs[i].link);
	}
	for (u16 i = 0; i < queues; i++)
		virtio_queue_add(&b->v, BLK_QUEUE_SIZE);
	config_fill(b, queues);
	rc = virtio_pci_plug(&b->v, &cfg->at, BLK_CLASS, err);
	if (!rc)
		*out = &b->v;
	return rc;
}
