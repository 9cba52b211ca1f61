/* SPDX-License-Identifier: Apache-2.0 */
#include "block/file_io.h"

#include <errno.h>
#include <liburing.h>
#include <stdlib.h>
#include <sys/syscall.h>
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

/* What is done through a ring is no system call that a filter sees: without
 * this, who has a ring could open files. */
static int restrict_ring(struct io_uring *ring)
{
	static const u8 ops[] = {IORING_OP_READV, IORING_OP_WRITEV,
				 IORING_OP_FSYNC, IORING_OP_FALLOCATE};
	struct io_uring_restriction rules[ARRAY_SIZE(ops)];

	memset(rules, 0, sizeof(rules));
	for (size_t i = 0; i < ARRAY_SIZE(ops); i++) {
		rules[i].opcode = IORING_RESTRICTION_SQE_OP;
		rules[i].sqe_op = ops[i];
	}
	if (syscall(SYS_io_uring_register, ring->ring_fd,
		    IORING_REGISTER_RESTRICTIONS, rules, ARRAY_SIZE(rules)) < 0)
		return -errno;
	if (syscall(SYS_io_uring_register, ring->ring_fd,
		    IORING_REGISTER_ENABLE_RINGS, NULL, 0) < 0)
		return -errno;
	return 0;
}

int uring_io_new(int fd, int event_fd, struct file_io **out, struct err *err)
{
	struct uring_io *u = calloc(1, sizeof(*u));
	int rc;

	ASSERT(u);
	u->io.ops = &uring_ops;
	u->fd = fd;
	u->event_fd = event_fd;
	rc = io_uring_queue_init(FILE_IO_DEPTH, &u->ring,
				 IORING_SETUP_R_DISABLED);
	if (rc) {
		free(u);
		return err_sys(err, rc, "set up io_uring");
	}
	rc = io_uring_register_eventfd(&u->ring, event_fd);
	if (rc == 0)
		rc = restrict_ring(&u->ring);
	if (rc) {
		uring_free(&u->io);
		return err_sys(err, rc, "set up io_uring");
	}
	*out = &u->io;
	return 0;
}
