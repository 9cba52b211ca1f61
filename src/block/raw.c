/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY
 *
 * A request is a series of steps, one system call each, run by file_io: a
 * transfer takes up to FILE_IO_VECS pieces a step and goes on where the last
 * step ended, so short transfers and long vectors are one case. Zeroes are
 * first tried as an allocation call, then written.
 *
 * A file that holds an image of another format grows as it is written, and
 * what lies behind its end reads as zeros (the tail of its last cluster).
 *
 * At most FILE_IO_DEPTH requests are in flight; the rest wait in order.
 * Completions are always called from here: the loop's event, or drain.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/assert.h"
#include "block/block_int.h"
#include "block/file_io.h"

#define ZERO_BYTES (64 * KIB)

struct slot {
	struct file_io_step step;
	struct block_request *req; /* NULL: free */
	bool writes_zeroes;	   /* the allocation call was refused */
	u64 file_bytes;		   /* when the step was submitted */
};

struct raw_node {
	struct block_node node;
	struct loop *loop;
	struct loop_fd event;
	int fd;
	int event_fd;
	bool is_unsafe;
	bool grows;
	struct file_io *io;
	struct list waiting;  /* requests without a slot */
	struct list finished; /* requests to be completed; result in progress */
	size_t in_flight;
	struct slot slots[FILE_IO_DEPTH];
};

static const u8 zeroes[ZERO_BYTES];

static void signal_event(struct raw_node *r)
{
	u64 one = 1;

	(void)!write(r->event_fd, &one, sizeof(one));
}

/* Queues the completion. */
static void finish(struct raw_node *r, struct block_request *req, int result)
{
	req->progress = (u64)(i64)result;
	list_add_tail(&r->finished, &req->link);
	signal_event(r);
}

static void raw_complete_later(struct block_node *node,
			       struct block_request *req, int result)
{
	finish(container_of(node, struct raw_node, node), req, result);
}

/* Fills the step's vector with what is left of the request's, from progress
 * on. */
static void step_vecs(struct file_io_step *step,
		      const struct block_request *req)
{
	u64 skip = req->progress;

	step->vec_count = 0;
	for (int i = 0; i < req->iov_count && step->vec_count < FILE_IO_VECS;
	     i++) {
		const struct iovec *v = &req->iov[i];

		if (skip >= v->iov_len) {
			skip -= v->iov_len;
			continue;
		}
		step->vecs[step->vec_count++] = (struct iovec){
			(u8 *)v->iov_base + skip, v->iov_len - skip};
		skip = 0;
	}
}

static void step_zeroes(struct file_io_step *step,
			const struct block_request *req)
{
	u64 left = req->len - req->progress;

	step->vec_count = 0;
	while (left && step->vec_count < FILE_IO_VECS) {
		u64 n = MIN(left, sizeof(zeroes));

		step->vecs[step->vec_count++] =
			(struct iovec){(void *)zeroes, n};
		left -= n;
	}
}

static void read_zeroes(struct block_request *req)
{
	u64 skip = req->progress;

	for (int i = 0; i < req->iov_count; i++) {
		const struct iovec *v = &req->iov[i];
		u64 from = MIN(skip, v->iov_len);

		memset((u8 *)v->iov_base + from, 0, v->iov_len - from);
		skip -= from;
	}
}

static void step_submit(struct raw_node *r, struct slot *s)
{
	struct block_request *req = s->req;
	struct file_io_step *step = &s->step;

	step->offset = req->offset + req->progress;
	s->file_bytes = r->node.file_bytes;
	switch (req->op) {
	case BLOCK_READ:
		step->kind = FILE_READ;
		step_vecs(step, req);
		break;
	case BLOCK_WRITE:
		step->kind = FILE_WRITE;
		step_vecs(step, req);
		break;
	case BLOCK_FLUSH:
		step->kind = FILE_SYNC;
		break;
	case BLOCK_DISCARD:
		step->kind = FILE_ALLOCATE;
		step->mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
		step->len = req->len;
		break;
	case BLOCK_WRITE_ZEROES:
		if (s->writes_zeroes) {
			step->kind = FILE_WRITE;
			step_zeroes(step, req);
			break;
		}
		step->kind = FILE_ALLOCATE;
		step->mode = (req->may_unmap ? FALLOC_FL_PUNCH_HOLE
					     : FALLOC_FL_ZERO_RANGE) |
			     FALLOC_FL_KEEP_SIZE;
		step->len = req->len;
		break;
	}
	r->io->ops->submit(r->io, step);
}

static struct slot *slot_free_find(struct raw_node *r)
{
	for (size_t i = 0; i < FILE_IO_DEPTH; i++)
		if (!r->slots[i].req)
			return &r->slots[i];
	ASSERT(!"in_flight counts the slots");
	return NULL;
}

static void start(struct raw_node *r, struct block_request *req)
{
	struct slot *s = slot_free_find(r);

	s->req = req;
	s->writes_zeroes = false;
	r->in_flight++;
	step_submit(r, s);
}

static void raw_submit(struct block_node *node, struct block_request *req)
{
	struct raw_node *r = container_of(node, struct raw_node, node);

	if (req->op == BLOCK_FLUSH && (r->is_unsafe || node->is_read_only))
		finish(r, req, 0);
	else if (r->in_flight < FILE_IO_DEPTH)
		start(r, req);
	else
		list_add_tail(&r->waiting, &req->link);
}

/* The allocation call is an optimisation: devices and file systems without
 * it, and ranges that they find misaligned, are served in another way. */
static bool is_refused_call(int result)
{
	return result == -EOPNOTSUPP || result == -ENOSYS ||
	       result == -EINVAL || result == -ENODEV;
}

/* What the finished step means: 1: another step, else the request's end. */
static int step_result(struct raw_node *r, struct slot *s)
{
	struct block_request *req = s->req;
	int result = s->step.result;

	if (result == -EINTR || result == -EAGAIN)
		return 1;
	if (s->step.kind == FILE_ALLOCATE && is_refused_call(result)) {
		if (req->op == BLOCK_DISCARD)
			return 0;
		s->writes_zeroes = true;
		return 1;
	}
	if (result < 0 || s->step.kind == FILE_SYNC ||
	    s->step.kind == FILE_ALLOCATE)
		return result;
	if (result == 0 && r->grows && req->op == BLOCK_READ &&
	    s->step.offset >= s->file_bytes) {
		read_zeroes(req);
		return 0;
	}
	if (result == 0)
		return -EIO; /* the file became shorter, or takes no more */
	req->progress += (u64)result;
	if (req->op != BLOCK_READ)
		r->node.file_bytes =
			MAX(r->node.file_bytes, req->offset + req->progress);
	return req->progress < req->len;
}

static void step_done(struct raw_node *r, struct slot *s)
{
	int rc = step_result(r, s);
	struct block_request *req = s->req;

	if (rc > 0) {
		step_submit(r, s);
		return;
	}
	s->req = NULL;
	r->in_flight--;
	req->progress = (u64)(i64)rc;
	list_add_tail(&r->finished, &req->link);
	if (!list_is_empty(&r->waiting)) {
		req = list_entry(r->waiting.next, struct block_request, link);
		list_del(&req->link);
		start(r, req);
	}
}

static void reap(struct raw_node *r, bool wait)
{
	struct list steps = LIST_INIT(steps);

	r->io->ops->reap(r->io, wait, &steps);
	list_for_each_safe (it, &steps) {
		struct file_io_step *step =
			list_entry(it, struct file_io_step, link);

		list_del(it);
		step_done(r, container_of(step, struct slot, step));
	}
}

/* Calls the completions that are there now. They may submit more, which waits
 * for the next event, and they may drain, which leaves nothing for us. */
static void complete_all(struct raw_node *r)
{
	const struct list *last = r->finished.prev;
	bool is_last = list_is_empty(&r->finished);

	while (!is_last && !list_is_empty(&r->finished)) {
		struct block_request *req = list_entry(
			r->finished.next, struct block_request, link);

		is_last = &req->link == last;
		list_del(&req->link);
		req->done(req, (int)(i64)req->progress);
	}
}

static void raw_event(struct loop_fd *h, u32 events)
{
	struct raw_node *r = h->opaque;
	u64 count;

	(void)!read(r->event_fd, &count, sizeof(count));
	reap(r, false);
	complete_all(r);
}

static void raw_drain(struct block_node *node)
{
	struct raw_node *r = container_of(node, struct raw_node, node);

	while (r->in_flight || !list_is_empty(&r->finished)) {
		if (r->in_flight)
			reap(r, true);
		complete_all(r);
	}
}

static void raw_close(struct block_node *node)
{
	struct raw_node *r = container_of(node, struct raw_node, node);

	loop_fd_del(&r->event);
	if (r->io)
		r->io->ops->free(r->io);
	if (!node->is_read_only && !r->is_unsafe)
		(void)fdatasync(r->fd);
	if (r->event_fd >= 0)
		close(r->event_fd);
	close(r->fd);
	free(r);
}

static void raw_share(struct block_node *node)
{
	struct raw_node *r = container_of(node, struct raw_node, node);
	struct flock lock = {.l_type = F_RDLCK};

	/* From a write lock it cannot fail, and nobody relies on it. */
	(void)fcntl(r->fd, F_OFD_SETLK, &lock);
}

static int raw_truncate(struct block_node *node, u64 bytes)
{
	struct raw_node *r = container_of(node, struct raw_node, node);

	if (ftruncate(r->fd, (off_t)bytes) < 0)
		return -errno;
	node->file_bytes = bytes;
	return 0;
}

static const struct block_node_ops raw_ops = {
	.format = "raw",
	.submit = raw_submit,
	.complete_later = raw_complete_later,
	.drain = raw_drain,
	.close = raw_close,
	.share = raw_share,
	.truncate = raw_truncate,
};

static int file_size(int fd, u64 *out_bytes, struct err *err)
{
	struct stat st;
	u64 bytes;

	if (fstat(fd, &st) < 0)
		return err_sys(err, -errno, "look at the image");
	if (S_ISREG(st.st_mode))
		bytes = (u64)st.st_size;
	else if (!S_ISBLK(st.st_mode))
		return err_set(
			err, -EINVAL,
			"the image is neither a file nor a block device");
	else if (ioctl(fd, BLKGETSIZE64, &bytes) < 0)
		return err_sys(err, -errno, "look at the block device");
	if (bytes > INT64_MAX)
		return err_set(err, -EINVAL, "the image is too large");
	*out_bytes = bytes;
	return 0;
}

static int io_new(struct raw_node *r, enum block_io kind, struct err *err)
{
	if (kind != BLOCK_IO_THREADS &&
	    !uring_io_new(r->fd, r->event_fd, &r->io,
			  kind == BLOCK_IO_URING ? err : NULL))
		return 0;
	if (kind == BLOCK_IO_URING)
		return err ? err->code : -ENOSYS;
	return thread_io_new(r->fd, r->event_fd, &r->io, err);
}

static int raw_init(struct raw_node *r, const struct block_open *how,
		    struct err *err)
{
	int flags = fcntl(r->fd, F_GETFL);
	int rc;

	if (how->cache == BLOCK_NONE)
		return err_set(err, -ENOTSUP,
			       "cache mode 'none' is not supported");
	if (flags < 0)
		return err_sys(err, -errno, "look at the image");
	if (!how->is_read_only && (flags & O_ACCMODE) != O_RDWR)
		return err_set(err, -EACCES,
			       "the image is not open for writing");
	rc = file_size(r->fd, &r->node.file_bytes, err);
	if (rc)
		return rc;
	if (!r->node.file_bytes && !r->grows)
		return err_set(err, -EINVAL, "the image is empty");
	r->node.size_bytes = r->grows ? INT64_MAX : r->node.file_bytes;
	r->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (r->event_fd < 0)
		return err_sys(err, -errno, "create an event");
	rc = io_new(r, how->io, err);
	if (rc)
		return rc;
	rc = loop_fd_add(r->loop, &r->event, r->event_fd, LOOP_READ, raw_event,
			 r);
	return rc ? err_sys(err, rc, "watch an event") : 0;
}

static int open_node(struct loop *loop, int fd, const struct block_open *how,
		     bool grows, struct block_node **out_node, struct err *err)
{
	struct raw_node *r = calloc(1, sizeof(*r));
	int rc;

	ASSERT(r);
	r->node.ops = &raw_ops;
	r->node.is_read_only = how->is_read_only;
	r->loop = loop;
	r->fd = fd;
	r->event_fd = -1;
	r->is_unsafe = how->cache == BLOCK_UNSAFE;
	r->grows = grows;
	list_init(&r->waiting);
	list_init(&r->finished);
	rc = raw_init(r, how, err);
	if (rc) {
		raw_close(&r->node);
		return rc;
	}
	*out_node = &r->node;
	return 0;
}

int raw_open(struct loop *loop, int fd, const struct block_open *how,
	     struct block_node **out_node, struct err *err)
{
	return open_node(loop, fd, how, false, out_node, err);
}

int raw_open_file(struct loop *loop, int fd, const struct block_open *how,
		  struct block_node **out_node, struct err *err)
{
	return open_node(loop, fd, how, true, out_node, err);
}
