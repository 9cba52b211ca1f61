/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY. The child shares one page-aligned area with us: its progress, its
 * result and the checksums. A pipe wakes our loop: a byte for each chunk, and
 * the end of the stream when the child is gone, however that came. The child
 * closes every other descriptor first, so that it keeps no lock, no socket
 * and no peer of ours alive; when we are gone its next byte fails, and it
 * ends.
 *
 * The child is made by a bare clone(): no handlers of libraries run, and
 * there it calls nothing that takes a lock, for other threads may have held
 * it.
 */
#include "migrate/memory_save.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zlib.h>

#include "base/assert.h"

struct shared {
	_Atomic u64 done; /* bytes of RAM */
	u64 written;
	int rc;
	bool is_complete;
	u32 sums[];
};

struct memory_save {
	struct memory_save_config cfg;
	struct shared *shared;
	size_t shared_bytes;
	pid_t child; /* 0: none */
	int pipe_fd;
	struct loop_fd handle;
};

/* ---- the child ---- */

static bool is_zero(const u8 *page)
{
	return page[0] == 0 && memcmp(page, page + 1, PAGE_BYTES - 1) == 0;
}

static int write_all(int fd, const u8 *bytes, u64 n, u64 at)
{
	while (n) {
		ssize_t done = pwrite(fd, bytes, n, (off_t)at);

		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return done < 0 ? -errno : -EIO;
		bytes += done;
		at += (u64)done;
		n -= (u64)done;
	}
	return 0;
}

/* Writes the runs of pages that are not zero. */
static int write_chunk(struct memory_save *s, u64 at, u64 n)
{
	const u8 *ram = s->cfg.ram + at;
	u64 from = 0;

	while (from < n) {
		u64 to;
		int rc;

		if (is_zero(ram + from)) {
			from += PAGE_BYTES;
			continue;
		}
		for (to = from + PAGE_BYTES; to < n && !is_zero(ram + to);)
			to += PAGE_BYTES;
		rc = write_all(s->cfg.fd, ram + from, to - from, at + from);
		if (rc < 0)
			return rc;
		s->shared->written += to - from;
		from = to;
	}
	return 0;
}

static int write_ram(struct memory_save *s, int pipe_fd)
{
	u64 total = s->cfg.bytes;
	int rc = ftruncate(s->cfg.fd, (off_t)total) < 0 ? -errno : 0;

	for (u64 at = 0; rc == 0 && at < total; at += MEMORY_CHUNK_BYTES) {
		u64 n = MIN(total - at, MEMORY_CHUNK_BYTES);

		rc = write_chunk(s, at, n);
		s->shared->sums[at / MEMORY_CHUNK_BYTES] =
			(u32)crc32(0, s->cfg.ram + at, (uInt)n);
		s->shared->done = at + n;
		if (rc == 0 && write(pipe_fd, "", 1) != 1)
			rc = -EPIPE;
	}
	if (rc == 0 && !s->cfg.is_temporary && fsync(s->cfg.fd) < 0)
		rc = -errno;
	return rc;
}

static void close_all_but(int a, int b)
{
	unsigned low = (unsigned)MIN(a, b), high = (unsigned)MAX(a, b);

	if (low > 0)
		syscall(SYS_close_range, 0, low - 1, 0);
	if (high - low > 1)
		syscall(SYS_close_range, low + 1, high - 1, 0);
	syscall(SYS_close_range, high + 1, ~0u, 0);
}

_Noreturn static void child_main(struct memory_save *s, int pipe_fd)
{
	close_all_but(s->cfg.fd, pipe_fd);
	s->shared->rc = write_ram(s, pipe_fd);
	s->shared->is_complete = true;
	_exit(0);
}

/* ---- the parent ---- */

static void reap(struct memory_save *s)
{
	if (s->pipe_fd >= 0) {
		loop_fd_del(&s->handle);
		close(s->pipe_fd);
	}
	s->pipe_fd = -1;
	while (s->child && waitpid(s->child, NULL, __WALL) < 0 &&
	       errno == EINTR)
		;
	s->child = 0;
}

static void on_pipe(struct loop_fd *h, u32 events)
{
	struct memory_save *s = h->opaque;
	char bytes[256];
	ssize_t n = read(s->pipe_fd, bytes, sizeof(bytes));

	if (n > 0) {
		if (s->cfg.progress)
			s->cfg.progress(s->cfg.opaque, s->shared->done,
					s->cfg.bytes);
		return;
	}
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	reap(s);
	s->cfg.done(s->cfg.opaque,
		    s->shared->is_complete ? s->shared->rc : -ECHILD);
}

static int share(struct memory_save *s, struct err *err)
{
	void *p;

	s->shared_bytes = sizeof(struct shared) +
			  memory_chunk_count(s->cfg.bytes) * sizeof(u32);
	p = mmap(NULL, s->shared_bytes, PROT_READ | PROT_WRITE,
		 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return err_sys(err, -errno, "share memory with the saver");
	s->shared = p;
	return 0;
}

static int start_child(struct memory_save *s, struct err *err)
{
	int fds[2], rc;
	long pid;

	if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0)
		return err_sys(err, -errno, "open a pipe to the saver");
	/* Its end blocks: a byte may not be lost. */
	fcntl(fds[1], F_SETFL, fcntl(fds[1], F_GETFL) & ~O_NONBLOCK);
	pid = syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
	if (pid == 0)
		child_main(s, fds[1]);
	rc = pid < 0 ? -errno : 0;
	close(fds[1]);
	s->pipe_fd = fds[0];
	if (rc < 0)
		return err_sys(err, rc, "start the saver");
	s->child = (pid_t)pid;
	rc = loop_fd_add(s->cfg.loop, &s->handle, s->pipe_fd, LOOP_READ,
			 on_pipe, s);
	return rc < 0 ? err_sys(err, rc, "watch the saver") : 0;
}

int memory_save_start(const struct memory_save_config *cfg,
		      struct memory_save **out, struct err *err)
{
	struct memory_save *s = calloc(1, sizeof(*s));
	int rc;

	ASSERT(s && cfg->bytes && cfg->bytes % PAGE_BYTES == 0);
	s->cfg = *cfg;
	s->pipe_fd = -1;
	rc = share(s, err);
	if (rc == 0)
		rc = start_child(s, err);
	if (rc < 0)
		memory_save_free(s);
	else
		*out = s;
	return rc;
}

const u32 *memory_save_sums(const struct memory_save *s, size_t *out_count)
{
	*out_count = memory_chunk_count(s->cfg.bytes);
	return s->shared->sums;
}

u64 memory_save_written(const struct memory_save *s)
{
	return s->shared->written;
}

void memory_save_free(struct memory_save *s)
{
	if (!s)
		return;
	reap(s); /* its next byte finds nobody */
	if (s->shared)
		munmap(s->shared, s->shared_bytes);
	free(s);
}
