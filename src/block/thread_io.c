/* SPDX-License-Identifier: Apache-2.0 */
/* The fallback where io_uring is not allowed: a few threads and plain system
 * calls. */
#include "block/file_io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/assert.h"
#include "os/thread.h"

#define THREADS 4

struct thread_io {
	struct file_io io;
	int fd;
	int event_fd;
	pthread_t threads[THREADS];
	int thread_count;
	pthread_mutex_t lock; /* guards what follows */
	pthread_cond_t has_work, has_done;
	struct list work, done;
	bool stop;
};

static int step_run(int fd, struct file_io_step *s)
{
	ssize_t n = 0;

	switch (s->kind) {
	case FILE_READ:
		n = preadv(fd, s->vecs, s->vec_count, (off_t)s->offset);
		break;
	case FILE_WRITE:
		n = pwritev(fd, s->vecs, s->vec_count, (off_t)s->offset);
		break;
	case FILE_SYNC:
		n = fdatasync(fd);
		break;
	case FILE_ALLOCATE:
		n = fallocate(fd, s->mode, (off_t)s->offset, (off_t)s->len);
		break;
	}
	return n < 0 ? -errno : (int)n;
}

static void *thread_main(void *opaque)
{
	struct thread_io *t = opaque;
	u64 one = 1;

	pthread_mutex_lock(&t->lock);
	for (;;) {
		struct file_io_step *s;

		while (list_is_empty(&t->work) && !t->stop)
			pthread_cond_wait(&t->has_work, &t->lock);
		if (t->stop)
			break;
		s = list_entry(t->work.next, struct file_io_step, link);
		list_del(&s->link);
		pthread_mutex_unlock(&t->lock);
		s->result = step_run(t->fd, s);
		pthread_mutex_lock(&t->lock);
		list_add_tail(&t->done, &s->link);
		pthread_cond_signal(&t->has_done);
		(void)!write(t->event_fd, &one, sizeof(one));
	}
	pthread_mutex_unlock(&t->lock);
	return NULL;
}

static void thread_submit(struct file_io *io, struct file_io_step *step)
{
	struct thread_io *t = container_of(io, struct thread_io, io);

	pthread_mutex_lock(&t->lock);
	list_add_tail(&t->work, &step->link);
	pthread_cond_signal(&t->has_work);
	pthread_mutex_unlock(&t->lock);
}

static void thread_reap(struct file_io *io, bool wait, struct list *out)
{
	struct thread_io *t = container_of(io, struct thread_io, io);

	pthread_mutex_lock(&t->lock);
	while (wait && list_is_empty(&t->done))
		pthread_cond_wait(&t->has_done, &t->lock);
	list_for_each_safe (it, &t->done) {
		list_del(it);
		list_add_tail(out, it);
	}
	pthread_mutex_unlock(&t->lock);
}

static void thread_free(struct file_io *io)
{
	struct thread_io *t = container_of(io, struct thread_io, io);

	pthread_mutex_lock(&t->lock);
	t->stop = true;
	pthread_cond_broadcast(&t->has_work);
	pthread_mutex_unlock(&t->lock);
	for (int i = 0; i < t->thread_count; i++)
		pthread_join(t->threads[i], NULL);
	pthread_cond_destroy(&t->has_done);
	pthread_cond_destroy(&t->has_work);
	pthread_mutex_destroy(&t->lock);
	free(t);
}

static const struct file_io_ops thread_ops = {thread_submit, thread_reap,
					      thread_free};

int thread_io_new(int fd, int event_fd, struct file_io **out, struct err *err)
{
	struct thread_io *t = calloc(1, sizeof(*t));

	ASSERT(t);
	t->io.ops = &thread_ops;
	t->fd = fd;
	t->event_fd = event_fd;
	pthread_mutex_init(&t->lock, NULL);
	pthread_cond_init(&t->has_work, NULL);
	pthread_cond_init(&t->has_done, NULL);
	list_init(&t->work);
	list_init(&t->done);
	for (; t->thread_count < THREADS; t->thread_count++) {
		int rc = os_thread_start(&t->threads[t->thread_count],
					 "block-io", thread_main, t, err);

		/* Fewer threads serve as well. */
		if (rc && !t->thread_count) {
			thread_free(&t->io);
			return rc;
		}
		if (rc)
			break;
	}
	*out = &t->io;
	return 0;
}
