/* SPDX-License-Identifier: Apache-2.0 */
#include "block/file_io.h"

#include <errno.h>
#include <liburing.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/assert.h"

struct uring_io {
	struct file_io io;
	struct io_uring ring;
	int fd;
	int event_fd;
};

/* Hands queued entries to the kernel. When it cannot take them now they stay
 * in the ring, and the event makes the loop come back through reap. */
static void push(struct uring_io *u)
{
	u64 one = 1;

	if (!io_uring_sq_ready(&u->ring))
		return;
	if (io_uring_submit(&u->ring) < 0 || io_uring_sq_ready(&u->ring))
		(void)!write(u->event_fd, &one, sizeof(one));
}

static void uring_submit(struct file_io *io, struct file_io_step *step)
{
	struct uring_io *u = container_of(io, struct uring_io, io);
	struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);

	ASSERT(sqe); /* the ring is as large as the caller's depth */
	switch (step->kind) {
	case FILE_READ:
		io_uring_prep_readv(sqe, u->fd, step->vecs,
				    (unsigned)step->vec_count, step->offset);
		break;
	case FILE_WRITE:
		io_uring_prep_writev(sqe, u->fd, step->vecs,
				     (unsigned)step->vec_count, step->offset);
		break;
	case FILE_SYNC:
		io_uring_prep_fsync(sqe, u->fd, IORING_FSYNC_DATASYNC);
		break;
	case FILE_ALLOCATE:
		io_uring_prep_fallocate(sqe, u->fd, step->mode,
					(off_t)step->offset, (off_t)step->len);
		break;
	}
	io_uring_sqe_set_data(sqe, step);
	push(u);
}

static void uring_reap(struct file_io *io, bool wait, struct list *out)
{
	struct uring_io *u = container_of(io, struct uring_io, io);
	struct io_uring_cqe *cqe;

	push(u);
	if (wait)
		while (io_uring_wait_cqe(&u->ring, &cqe) == -EINTR)
			;
	while (!io_uring_peek_cqe(&u->ring, &cqe)) {
		struct file_io_step *step = io_uring_cqe_get_data(cqe);

		step->result = cqe->res;
		list_add_tail(out, &step->link);
		io_uring_cqe_seen(&u->ring, cqe);
	}
}

static void uring_free(struct file_io *io)
{
	struct uring_io *u = container_of(io, struct uring_io, io);

	io_uring_queue_exit(&u->ring);
	free(u);
}

static const struct file_io_ops uring_ops = {uring_submit, uring_reap,
					     uring_free};

int uring_io_new(int fd, int event_fd, struct file_io **out, struct err *err)
{
	struct uring_io *u = calloc(1, sizeof(*u));
	int rc;

	ASSERT(u);
	u->io.ops = &uring_ops;
	u->fd = fd;
	u->event_fd = event_fd;
	rc = io_uring_queue_init(FILE_IO_DEPTH, &u->ring, 0);
	if (rc) {
		free(u);
		return err_sys(err, rc, "set up io_uring");
	}
	rc = io_uring_register_eventfd(&u->ring, event_fd);
	if (rc) {
		uring_free(&u->io);
		return err_sys(err, rc, "set up io_uring");
	}
	*out = &u->io;
	return 0;
}
