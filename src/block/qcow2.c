/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY
 *
 * A request takes an op, which holds its range of guest clusters. When what
 * is in memory tells where all its bytes are, one after the other in the
 * file, it goes straight to the file's node (the fast path). All else runs on
 * a coroutine: qcow2_co_read and the like are straight-line code.
 *
 * Completions are called from the loop's stack only: a finished request waits
 * in `finished` until the coroutine that ended it has given up the thread.
 */
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/log.h"
#include "block/qcow2_int.h"

/* ---- Waiting for the nodes below ---- */

struct co_io {
	struct block_request req;
	struct qcow2 *q;
	struct co *co;
	int result;
};

static void complete_all(struct qcow2 *q);

static void co_io_done(struct block_request *req, int result)
{
	struct co_io *io = container_of(req, struct co_io, req);
	struct qcow2 *q = io->q;

	io->result = result;
	co_wake(&q->pool, io->co);
	complete_all(q);
}

int qcow2_co_io(struct qcow2 *q, struct block_node *node, enum block_op op,
		u64 offset, u64 len, const struct iovec *iov, int iov_count)
{
	struct co_io io = {.req = {.op = op,
				   .offset = offset,
				   .len = len,
				   .iov = iov,
				   .iov_count = iov_count,
				   .may_unmap = true,
				   .done = co_io_done},
			   .q = q,
			   .co = q->pool.current};

	block_submit(node, &io.req);
	co_wait(&q->pool);
	return io.result;
}

int qcow2_co_pread(struct qcow2 *q, u64 offset, void *bytes, u64 len)
{
	struct iovec iov = {bytes, len};

	return qcow2_co_io(q, q->file, BLOCK_READ, offset, len, &iov, 1);
}

int qcow2_co_pwrite(struct qcow2 *q, u64 offset, const void *bytes, u64 len)
{
	struct iovec iov = {(void *)bytes, len};

	return qcow2_co_io(q, q->file, BLOCK_WRITE, offset, len, &iov, 1);
}

int qcow2_damaged(struct qcow2 *q, const char *what, u64 where)
{
	if (!q->is_corrupt)
		log_warn("qcow2 image is damaged: %s %#llx", what,
			 (unsigned long long)where);
	q->is_corrupt = true;
	return -EIO;
}

struct run {
	struct qcow2 *q;
	int (*fn)(struct qcow2 *q, void *opaque);
	void *opaque;
	bool has_ended;
	int rc;
};

static void run_main(void *opaque)
{
	struct run *r = opaque;

	r->rc = r->fn(r->q, r->opaque);
	r->has_ended = true;
}

int qcow2_run(struct qcow2 *q, int (*fn)(struct qcow2 *q, void *opaque),
	      void *opaque)
{
	struct run r = {q, fn, opaque};
	int rc = co_start(&q->pool, run_main, &r);

	if (rc)
		return rc;
	while (!r.has_ended) {
		block_drain(q->file);
		if (q->backing)
			block_drain(q->backing);
	}
	return r.rc;
}

/* ---- Ranges ---- */

static bool is_granted(const struct qcow2 *q, const struct qcow2_range *r)
{
	list_for_each (it, &q->ranges) {
		const struct qcow2_range *o =
			list_entry(it, struct qcow2_range, link);

		if (o == r)
			return true;
		if ((o->is_exclusive || r->is_exclusive) &&
		    o->first <= r->last && r->first <= o->last)
			return false;
	}
	return true;
}

static void range_add(struct qcow2 *q, struct qcow2_range *r, u64 offset,
		      u64 len, bool is_exclusive)
{
	r->first = offset >> q->cluster_bits;
	r->last = (offset + len - 1) >> q->cluster_bits;
	r->is_exclusive = is_exclusive;
	list_add_tail(&q->ranges, &r->link);
}

void qcow2_co_range_lock(struct qcow2 *q, struct qcow2_range *r, u64 offset,
			 u64 len, bool is_exclusive)
{
	range_add(q, r, offset, len, is_exclusive);
	while (!is_granted(q, r))
		co_queue_wait(&q->pool, &q->range_queue);
}

void qcow2_range_unlock(struct qcow2 *q, struct qcow2_range *r)
{
	list_del(&r->link);
	if (!list_is_empty(&q->range_queue.waiters))
		co_queue_wake_all(&q->pool, &q->range_queue);
}

/* ---- Requests ---- */

static void signal_event(struct qcow2 *q)
{
	u64 one = 1;

	(void)!write(q->event_fd, &one, sizeof(one));
}

static void finish(struct qcow2 *q, struct block_request *req, int result)
{
	req->progress = (u64)(i64)result;
	list_add_tail(&q->finished, &req->link);
}

static void op_end(struct qcow2_op *op, int result)
{
	struct qcow2 *q = op->q;

	finish(q, op->req, result);
	list_add_tail(&q->idle_ops, &op->link);
	q->in_flight--;
}

static int op_transfer(struct qcow2_op *op)
{
	struct block_request *req = op->req;
	struct qcow2_iov v = {req->iov, req->iov_count};
	int rc;

	v.part = malloc(sizeof(*v.part) * MIN(req->iov_count, QCOW2_IOV_MAX));
	if (!v.part)
		return -ENOMEM;
	if (req->op == BLOCK_READ)
		rc = qcow2_co_read(op->q, req->offset, req->len, &v);
	else
		rc = qcow2_co_write(op->q, req->offset, req->len, &v);
	free(v.part);
	return rc;
}

/* Before the first change: what others keep in the image stays right, or is
 * marked as out of date. */
static int first_change(struct qcow2 *q)
{
	u64 autoclear;
	int rc = 0;

	co_mutex_lock(&q->pool, &q->l1_lock);
	autoclear = q->h.autoclear;
	if (!q->is_changed && autoclear) {
		bool keeps = (autoclear & QCOW2_AUTOCLEAR_BITMAPS) &&
			     !qcow2_co_bitmaps_set(q);

		q->h.autoclear = keeps ? QCOW2_AUTOCLEAR_BITMAPS : 0;
		if (q->h.autoclear != autoclear)
			rc = qcow2_co_header_write(q);
		if (!rc)
			rc = qcow2_co_sync(q);
		if (rc)
			q->h.autoclear = autoclear;
	}
	if (!rc)
		q->is_changed = true;
	co_mutex_unlock(&q->pool, &q->l1_lock);
	return rc;
}

static void mark_corrupt(struct qcow2 *q)
{
	if (q->node.is_read_only || q->is_marked || q->h.version < 3)
		return;
	q->is_marked = true;
	q->h.incompatible |= QCOW2_INCOMPAT_CORRUPT;
	(void)qcow2_co_header_write(q);
}

static int op_change(struct qcow2_op *op)
{
	struct block_request *req = op->req;
	struct qcow2 *q = op->q;
	int rc = q->is_changed ? 0 : first_change(q);

	if (!rc && q->freed_count > QCOW2_FREED_MAX)
		rc = qcow2_co_flush(q);
	if (rc)
		return rc;
	switch (req->op) {
	case BLOCK_WRITE:
		return op_transfer(op);
	case BLOCK_DISCARD:
		return qcow2_co_discard(q, req->offset, req->len);
	default:
		return qcow2_co_write_zeroes(q, req->offset, req->len,
					     req->may_unmap);
	}
}

/* What this was laid over while it was in use may have changes in memory. The
 * second flush writes what the first one freed. */
static int settle_below(struct qcow2 *q)
{
	struct block_node *b = q->backing;
	int rc = 0;

	for (int i = 0; !rc && b && !b->is_read_only && i < 2; i++)
		rc = qcow2_co_io(q, b, BLOCK_FLUSH, 0, 0, NULL, 0);
	if (!rc && b && !b->is_read_only) {
		b->is_read_only = true;
		b->ops->share(b);
	}
	return rc;
}

static int op_flush(struct qcow2 *q)
{
	int rc = q->is_corrupt ? -EIO : settle_below(q);

	return rc ? rc : qcow2_co_flush(q);
}

static int op_run(struct qcow2_op *op)
{
	struct block_request *req = op->req;
	struct qcow2 *q = op->q;
	int rc;

	if (req->op == BLOCK_FLUSH)
		return op_flush(q);
	if (req->op != BLOCK_READ && q->is_corrupt)
		return -EIO;
	qcow2_co_range_lock(q, &op->range, req->offset, req->len,
			    req->op != BLOCK_READ);
	rc = req->op == BLOCK_READ ? op_transfer(op) : op_change(op);
	qcow2_range_unlock(q, &op->range);
	if (q->is_corrupt)
		mark_corrupt(q);
	return rc;
}

static void op_main(void *opaque)
{
	struct qcow2_op *op = opaque;
	int rc = op_run(op);

	op->q->live--;
	op_end(op, rc);
}

static void fast_done(struct block_request *child, int result)
{
	struct qcow2_op *op = container_of(child, struct qcow2_op, child);
	struct qcow2 *q = op->q;

	qcow2_range_unlock(q, &op->range);
	op_end(op, result);
	complete_all(q);
}

/* True when the request went to the file's node as a whole. */
static bool try_fast(struct qcow2_op *op)
{
	struct block_request *req = op->req;
	struct qcow2 *q = op->q;
	struct qcow2_extent e;

	if ((req->op != BLOCK_READ && req->op != BLOCK_WRITE) ||
	    q->is_corrupt || (req->op == BLOCK_WRITE && !q->is_changed))
		return false;
	range_add(q, &op->range, req->offset, req->len, false);
	if (!is_granted(q, &op->range) ||
	    qcow2_map(q, req->offset, req->len, &e) ||
	    e.source != QCOW2_FROM_FILE || e.bytes < req->len ||
	    (req->op == BLOCK_WRITE &&
	     (!e.is_ours || qcow2_is_meta(q, e.host, e.bytes)))) {
		list_del(&op->range.link);
		return false;
	}
	op->child = (struct block_request){.op = req->op,
					   .offset = e.host,
					   .len = req->len,
					   .iov = req->iov,
					   .iov_count = req->iov_count,
					   .done = fast_done};
	block_submit(q->file, &op->child);
	return true;
}

/* Starts what may start. */
static void start_waiting(struct qcow2 *q)
{
	while (!list_is_empty(&q->waiting) && !list_is_empty(&q->idle_ops) &&
	       q->live < q->co_max) {
		struct qcow2_op *op =
			list_entry(q->idle_ops.next, struct qcow2_op, link);

		op->req =
			list_entry(q->waiting.next, struct block_request, link);
		list_del(&op->req->link);
		list_del(&op->link);
		q->in_flight++;
		if (try_fast(op))
			continue;
		q->live++;
		if (co_start(&q->pool, op_main, op)) {
			q->live--;
			op_end(op, -ENOMEM);
		}
	}
}

/* Calls the completions that are there. They may submit more and drain. */
static void complete_all(struct qcow2 *q)
{
	if (q->pool.current)
		return;
	start_waiting(q);
	while (!list_is_empty(&q->finished)) {
		struct block_request *req = list_entry(
			q->finished.next, struct block_request, link);

		list_del(&req->link);
		req->done(req, (int)(i64)req->progress);
		start_waiting(q);
	}
}

static void qcow2_submit(struct block_node *node, struct block_request *req)
{
	struct qcow2 *q = qcow2_of(node);

	list_add_tail(&q->waiting, &req->link);
	start_waiting(q);
	if (!list_is_empty(&q->finished))
		signal_event(q);
}

static void qcow2_complete_later(struct block_node *node,
				 struct block_request *req, int result)
{
	finish(qcow2_of(node), req, result);
	signal_event(qcow2_of(node));
}

static void qcow2_event(struct loop_fd *h, u32 events)
{
	struct qcow2 *q = h->opaque;
	u64 count;

	(void)!read(q->event_fd, &count, sizeof(count));
	complete_all(q);
}

static void qcow2_drain(struct block_node *node)
{
	struct qcow2 *q = qcow2_of(node);

	while (q->in_flight || !list_is_empty(&q->finished) ||
	       !list_is_empty(&q->waiting)) {
		block_drain(q->file);
		if (q->backing)
			block_drain(q->backing);
		complete_all(q);
	}
}

/* ---- Opening and closing ---- */

static void qcow2_free(struct qcow2 *q)
{
	loop_fd_del(&q->event);
	if (q->event_fd >= 0)
		close(q->event_fd);
	qcow2_cache_fini(&q->l2);
	qcow2_refcount_fini(q);
	co_pool_fini(&q->pool);
	block_close(q->backing);
	block_close(q->file);
	free(q->unpacked);
	free(q->l1);
	free(q);
}

/* The first flush frees clusters, the second writes that. */
static int flush_main(struct qcow2 *q, void *opaque)
{
	int rc = qcow2_co_flush(q);

	return rc ? rc : qcow2_co_flush(q);
}

static void qcow2_close(struct block_node *node)
{
	struct qcow2 *q = qcow2_of(node);

	if (!node->is_read_only && !q->is_corrupt &&
	    qcow2_run(q, flush_main, NULL))
		log_warn("a qcow2 image's last changes could not be written");
	qcow2_free(q);
}

static void qcow2_share(struct block_node *node)
{
	struct qcow2 *q = qcow2_of(node);

	q->file->ops->share(q->file);
}

static const struct block_node_ops qcow2_ops = {
	.format = "qcow2",
	.submit = qcow2_submit,
	.complete_later = qcow2_complete_later,
	.drain = qcow2_drain,
	.close = qcow2_close,
	.share = qcow2_share,
};

static int load_header(struct qcow2 *q, struct err *err)
{
	u64 len = MIN(q->file->file_bytes, QCOW2_HEADER_MAX);
	u8 *bytes = malloc(len + 1);
	int rc = bytes ? qcow2_co_pread(q, 0, bytes, len) : -ENOMEM;

	if (rc)
		err_sys(err, rc, "read the image's header");
	else
		rc = qcow2_header_parse(bytes, len, q->file->file_bytes, &q->h,
					err);
	if (!rc)
		memcpy(q->header, bytes, MIN(len, sizeof(q->header)));
	free(bytes);
	return rc;
}

static int load_l1(struct qcow2 *q, struct err *err)
{
	u32 n = (u32)qcow2_l1_entries(&q->h, q->h.size_bytes);
	int rc;

	q->l1 = malloc(n * 8ull + 8);
	rc = q->l1 ? qcow2_co_pread(q, q->h.l1_offset, q->l1, n * 8ull)
		   : -ENOMEM;
	if (rc)
		return err_sys(err, rc, "read the image's L1 table");
	for (u32 i = 0; i < n; i++)
		q->l1[i] = __builtin_bswap64(q->l1[i]);
	q->l1_entries = n;
	return 0;
}

static void set_geometry(struct qcow2 *q)
{
	bool is_extended = q->h.incompatible & QCOW2_INCOMPAT_EXTL2;

	q->cluster_bits = q->h.cluster_bits;
	q->cluster_bytes = BIT64(q->cluster_bits);
	q->entry_bits = is_extended ? 4 : 3;
	q->l2_bits = q->cluster_bits - q->entry_bits;
	q->sub_count = is_extended ? 32 : 1;
	q->sub_bits = q->cluster_bits - (is_extended ? 5 : 0);
	q->co_max = q->cluster_bits > 18 ? 8 : 32;
	q->node.size_bytes = q->h.size_bytes;
	q->has_backing = q->h.has_backing;
	qcow2_cache_init(&q->l2, q, QCOW2_L2_CACHE);
	q->l2.co_clean = qcow2_co_flush;
}

static int open_writable(struct qcow2 *q, bool is_repair, struct err *err)
{
	struct qcow2_check check = {0};
	int rc;

	if ((q->h.incompatible & QCOW2_INCOMPAT_CORRUPT) && !is_repair)
		return err_set(err, -EINVAL,
			       "the image is marked as corrupt: repair it "
			       "first");
	rc = qcow2_refcount_open(q, err);
	if (rc || is_repair || !(q->h.incompatible & QCOW2_INCOMPAT_DIRTY))
		return rc;
	/* Someone who keeps counts lazily did not close it. */
	rc = qcow2_co_check(q, true, &check);
	if (rc)
		return err_sys(err, rc, "repair the image's counts");
	if (check.corruptions)
		return err_set(err, -EINVAL, "the image is damaged: %s",
			       check.first);
	return 0;
}

struct open {
	const struct block_open *how;
	struct err *err;
};

static int open_main(struct qcow2 *q, void *opaque)
{
	const struct open *o = opaque;
	int rc = load_header(q, o->err);

	if (rc)
		return rc;
	set_geometry(q);
	if (q->backing && !q->has_backing)
		return err_set(o->err, -EINVAL,
			       "the image is no overlay, and was given a "
			       "backing file");
	if (q->has_backing && !q->backing && !o->how->is_alone)
		return err_set(o->err, -EINVAL,
			       "the image's backing file '%s' was not given",
			       q->h.backing_name);
	rc = load_l1(q, o->err);
	if (!rc && !o->how->is_read_only)
		rc = open_writable(q, o->how->is_repair, o->err);
	return rc;
}

static struct qcow2 *qcow2_new(struct loop *loop, struct block_node *file,
			       struct block_node *backing)
{
	struct qcow2 *q = calloc(1, sizeof(*q));

	ASSERT(q);
	q->node.ops = &qcow2_ops;
	q->loop = loop;
	q->file = file;
	q->backing = backing;
	co_pool_init(&q->pool);
	list_init(&q->ranges);
	co_queue_init(&q->range_queue);
	list_init(&q->idle_ops);
	list_init(&q->waiting);
	list_init(&q->finished);
	co_mutex_init(&q->l1_lock);
	co_mutex_init(&q->alloc_lock);
	co_mutex_init(&q->flush_lock);
	qcow2_dirty_none(&q->l1_dirty);
	qcow2_dirty_none(&q->rt_dirty);
	for (size_t i = 0; i < QCOW2_OPS; i++) {
		q->ops[i].q = q;
		list_add_tail(&q->idle_ops, &q->ops[i].link);
	}
	q->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return q;
}

int qcow2_open(struct loop *loop, struct block_node *file,
	       struct block_node *backing, const struct block_open *how,
	       struct block_node **out_node, struct err *err)
{
	struct qcow2 *q = qcow2_new(loop, file, backing);
	struct open o = {how, err};
	int rc;

	q->node.is_read_only = how->is_read_only;
	if (q->event_fd < 0)
		rc = err_sys(err, -errno, "create an event");
	else
		rc = qcow2_run(q, open_main, &o);
	if (!rc) {
		rc = loop_fd_add(loop, &q->event, q->event_fd, LOOP_READ,
				 qcow2_event, q);
		if (rc)
			err_sys(err, rc, "watch an event");
	}
	if (rc) {
		qcow2_free(q);
		return rc;
	}
	*out_node = &q->node;
	return 0;
}

bool qcow2_can_lay_over(const struct block_node *node)
{
	return node->ops == &qcow2_ops && !node->is_read_only &&
	       qcow2_of(node)->has_backing && !qcow2_of(node)->backing;
}

void qcow2_lay_over(struct block_node *node, struct block_node *below)
{
	qcow2_of(node)->backing = below;
}

bool qcow2_is_node(const struct block_node *node)
{
	return node->ops == &qcow2_ops;
}

const struct qcow2_header *qcow2_header_of(const struct block_node *node)
{
	return node->ops == &qcow2_ops ? &qcow2_of(node)->h : NULL;
}
