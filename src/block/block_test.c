/* SPDX-License-Identifier: Apache-2.0 */
#include "block/block.h"
#include "test/test.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define DISK_BYTES (1 * MIB + 100) /* not whole sectors */

/* One disk under both ways of doing I/O. */
struct disk {
	struct loop *loop;
	struct block_node *node;
	int fd; /* the file, seen from outside */
};

static int new_file(u64 bytes)
{
	char path[] = "/tmp/skerry-block-test-XXXXXX";
	int fd = mkostemp(path, O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
	return fd;
}

static void disk_open(struct disk *d, enum block_io io, bool is_read_only)
{
	struct block_open how = {
		.format = "raw", .is_read_only = is_read_only, .io = io};
	struct err err = {0};

	d->loop = loop_new(NULL);
	d->fd = new_file(DISK_BYTES);
	if (block_open_fd(d->loop, dup(d->fd), &how, &d->node, &err)) {
		assert_int_equal(io, BLOCK_IO_URING);
		loop_free(d->loop);
		close(d->fd);
		skip(); /* this host has no io_uring */
	}
	assert_int_equal(block_size_bytes(d->node), DISK_BYTES);
}

static void disk_close(struct disk *d)
{
	block_close(d->node);
	loop_free(d->loop);
	close(d->fd);
}

struct result {
	int calls;
	int result;
};
static void note(struct block_request *req, int result)
{
	struct result *r = req->opaque;

	r->calls++;
	r->result = result;
}

/* Submits and runs the loop to the completion. */
static int run(struct disk *d, struct block_request req)
{
	struct result r = {0};

	req.done = note;
	req.opaque = &r;
	block_submit(d->node, &req);
	assert_int_equal(r.calls, 0); /* never from inside the call */
	while (!r.calls)
		loop_run_once(d->loop, 1000);
	assert_int_equal(r.calls, 1);
	return r.result;
}

static int transfer(struct disk *d, enum block_op op, u64 offset, void *bytes,
		    u64 len)
{
	struct iovec iov = {bytes, len};

	return run(d, (struct block_request){.op = op,
					     .offset = offset,
					     .len = len,
					     .iov = &iov,
					     .iov_count = 1});
}

static int range(struct disk *d, enum block_op op, u64 offset, u64 len,
		 bool may_unmap)
{
	return run(d, (struct block_request){.op = op,
					     .offset = offset,
					     .len = len,
					     .may_unmap = may_unmap});
}

static enum block_io io_of(void **state)
{
	return *(enum block_io *)*state;
}

static void what_is_written_is_read_back(void **state)
{
	static u8 out[3000], in[3000];
	struct iovec iov[300];
	struct disk d;

	disk_open(&d, io_of(state), false);
	for (size_t i = 0; i < sizeof(out); i++)
		out[i] = (u8)(i * 7);
	/* 300 pieces of 10 bytes, at an odd place. */
	for (int i = 0; i < 300; i++)
		iov[i] = (struct iovec){out + 10 * i, 10};
	assert_int_equal(run(&d, (struct block_request){.op = BLOCK_WRITE,
							.offset = 777,
							.len = 3000,
							.iov = iov,
							.iov_count = 300}),
			 0);
	assert_int_equal(range(&d, BLOCK_FLUSH, 0, 0, false), 0);
	assert_int_equal(pread(d.fd, in, 3000, 777), 3000);
	assert_memory_equal(in, out, 3000);
	memset(in, 0, 3000);
	for (int i = 0; i < 300; i++)
		iov[i].iov_base = in + 10 * i;
	assert_int_equal(run(&d, (struct block_request){.op = BLOCK_READ,
							.offset = 777,
							.len = 3000,
							.iov = iov,
							.iov_count = 300}),
			 0);
	assert_memory_equal(in, out, 3000);
	disk_close(&d);
}

static void ranges_beyond_the_end_touch_nothing(void **state)
{
	u8 bytes[512];
	struct iovec iov = {bytes, 512};
	struct stat st;
	struct disk d;

	disk_open(&d, io_of(state), false);
	memset(bytes, 0xaa, sizeof(bytes));
	assert_int_equal(
		transfer(&d, BLOCK_WRITE, DISK_BYTES - 511, bytes, 512),
		-EINVAL);
	assert_int_equal(transfer(&d, BLOCK_READ, UINT64_MAX, bytes, 512),
			 -EINVAL);
	assert_int_equal(transfer(&d, BLOCK_READ, UINT64_MAX - 511, bytes, 512),
			 -EINVAL);
	assert_int_equal(range(&d, BLOCK_DISCARD, 1, UINT64_MAX, false),
			 -EINVAL);
	assert_int_equal(range(&d, BLOCK_WRITE_ZEROES, DISK_BYTES, 1, false),
			 -EINVAL);
	assert_int_equal(run(&d, (struct block_request){.op = BLOCK_WRITE,
							.len = 1024,
							.iov = &iov,
							.iov_count = 1}),
			 -EINVAL);
	assert_int_equal(bytes[0], 0xaa);
	assert_int_equal(fstat(d.fd, &st), 0);
	assert_int_equal(st.st_size, DISK_BYTES);
	assert_int_equal(
		transfer(&d, BLOCK_WRITE, DISK_BYTES - 512, bytes, 512), 0);
	assert_int_equal(transfer(&d, BLOCK_READ, DISK_BYTES, bytes, 0), 0);
	disk_close(&d);
}

static void a_read_only_disk_is_not_written(void **state)
{
	u8 bytes[512] = {0};
	struct disk d;

	disk_open(&d, io_of(state), true);
	assert_true(block_is_read_only(d.node));
	assert_int_equal(transfer(&d, BLOCK_WRITE, 0, bytes, 512), -EROFS);
	assert_int_equal(range(&d, BLOCK_DISCARD, 0, 512, false), -EROFS);
	assert_int_equal(transfer(&d, BLOCK_READ, 0, bytes, 512), 0);
	assert_int_equal(range(&d, BLOCK_FLUSH, 0, 0, false), 0);
	disk_close(&d);
}

static void zeroes_and_discards_cover_the_range_only(void **state)
{
	static u8 ones[DISK_BYTES], in[DISK_BYTES];
	struct disk d;

	disk_open(&d, io_of(state), false);
	memset(ones, 0xff, sizeof(ones));
	assert_int_equal(transfer(&d, BLOCK_WRITE, 0, ones, DISK_BYTES), 0);
	assert_int_equal(range(&d, BLOCK_WRITE_ZEROES, 1000, 100000, false), 0);
	assert_int_equal(range(&d, BLOCK_WRITE_ZEROES, 200001, 9999, true), 0);
	assert_int_equal(range(&d, BLOCK_DISCARD, 524288, 65536, false), 0);
	assert_int_equal(pread(d.fd, in, DISK_BYTES, 0), DISK_BYTES);
	for (size_t i = 0; i < DISK_BYTES; i++) {
		bool zero = (i >= 1000 && i < 101000) ||
			    (i >= 200001 && i < 210000);

		if (i >= 524288 && i < 524288 + 65536)
			continue; /* discarded: either */
		if (in[i] != (zero ? 0 : 0xff))
			fail_msg("byte %zu is %x", i, in[i]);
	}
	disk_close(&d);
}

static void more_requests_than_slots_all_complete(void **state)
{
	static struct block_request req[500];
	static u8 bytes[500][512];
	struct iovec iov[500];
	struct result r = {0};
	struct disk d;
	u8 in[512];

	disk_open(&d, io_of(state), false);
	for (int i = 0; i < 500; i++) {
		memset(bytes[i], i, 512);
		iov[i] = (struct iovec){bytes[i], 512};
		req[i] = (struct block_request){.op = BLOCK_WRITE,
						.offset = 512 * (u64)i,
						.len = 512,
						.iov = &iov[i],
						.iov_count = 1,
						.done = note,
						.opaque = &r};
		block_submit(d.node, &req[i]);
	}
	assert_int_equal(r.calls, 0);
	block_drain(d.node);
	assert_int_equal(r.calls, 500);
	for (int i = 0; i < 500; i++) {
		assert_int_equal(pread(d.fd, in, 512, 512 * i), 512);
		assert_memory_equal(in, bytes[i], 512);
	}
	disk_close(&d);
}

static void a_file_that_was_cut_short_reads_as_an_error(void **state)
{
	u8 bytes[4096];
	struct disk d;

	disk_open(&d, io_of(state), false);
	assert_int_equal(ftruncate(d.fd, 2048), 0);
	assert_int_equal(transfer(&d, BLOCK_READ, 0, bytes, 4096), -EIO);
	assert_int_equal(transfer(&d, BLOCK_READ, 8192, bytes, 4096), -EIO);
	assert_int_equal(transfer(&d, BLOCK_READ, 0, bytes, 2048), 0);
	disk_close(&d);
}

static void a_file_size_limit_is_an_error_not_a_hang(void **state)
{
	struct rlimit old, low;
	static u8 bytes[8192];
	struct disk d;
	int rc;

	disk_open(&d, io_of(state), false);
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	low = (struct rlimit){65536, old.rlim_max};
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &low), 0);
	rc = transfer(&d, BLOCK_WRITE, 65536 - 4096, bytes, 8192);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	assert_int_equal(rc, -EFBIG);
	assert_int_equal(transfer(&d, BLOCK_WRITE, 65536 - 4096, bytes, 8192),
			 0);
	disk_close(&d);
}

static void what_is_no_raw_disk_is_refused(void **state)
{
	struct block_open how = {.format = "qcow9"};
	struct loop *loop = loop_new(NULL);
	struct block_node *node;
	struct err err = {0};
	int fd[2];

	(void)state;
	assert_int_equal(block_open_fd(loop, new_file(512), &how, &node, &err),
			 -EINVAL);
	assert_non_null(strstr(err.text, "'qcow9'"));
	how.format = "raw";
	assert_int_equal(block_open_fd(loop, new_file(0), &how, &node, &err),
			 -EINVAL);
	assert_int_equal(pipe(fd), 0);
	how.is_read_only = true;
	assert_int_equal(block_open_fd(loop, fd[0], &how, &node, &err),
			 -EINVAL);
	close(fd[1]);
	how.is_read_only = false;
	assert_int_equal(block_open_fd(loop, open("/dev/null", O_RDONLY), &how,
				       &node, &err),
			 -EACCES);
	loop_free(loop);
}

static void an_image_in_use_is_refused_with_the_holders_pid(void **state)
{
	char path[] = "/tmp/skerry-block-test-XXXXXX";
	char pid[32];
	struct err err = {0};
	int a, b;

	(void)state;
	close(mkstemp(path));
	assert_int_equal(block_open_path(path, false, &a, NULL), 0);
	assert_int_equal(block_open_path(path, true, &b, &err), -EAGAIN);
	assert_string_equal(err.id, "image.locked");
	snprintf(pid, sizeof(pid), "process %d", (int)getpid());
	assert_non_null(strstr(err.text, pid));
	close(a);
	/* Readers share. */
	assert_int_equal(block_open_path(path, true, &a, NULL), 0);
	assert_int_equal(block_open_path(path, true, &b, NULL), 0);
	close(b);
	assert_int_equal(block_open_path(path, false, &b, &err), -EAGAIN);
	close(a);
	unlink(path);
}

static void paths_that_are_no_image_are_refused(void **state)
{
	char dir[] = "/tmp/skerry-block-test-XXXXXX";
	char path[64];
	struct err err = {0};
	int fd;

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/fifo", dir);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(block_open_path(path, true, &fd, &err), -EINVAL);
	unlink(path);
	assert_int_equal(block_open_path(path, true, &fd, &err), -ENOENT);
	assert_int_equal(block_open_path(dir, true, &fd, &err), -EISDIR);
	rmdir(dir);
	assert_int_equal(block_open_path("/dev/null", true, &fd, &err),
			 -EINVAL);
	assert_int_equal(block_open_path("/proc/self/mem", true, &fd, &err),
			 -EINVAL);
	assert_int_equal(block_open_path("", true, &fd, &err), -ENOENT);
}

static enum block_io uring = BLOCK_IO_URING, threads = BLOCK_IO_THREADS;
#define both(f)                                                                \
	{"io_uring: " #f, f, NULL, NULL, &uring},                              \
	{                                                                      \
		"threads: " #f, f, NULL, NULL, &threads                        \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		both(what_is_written_is_read_back),
		both(ranges_beyond_the_end_touch_nothing),
		both(a_read_only_disk_is_not_written),
		both(zeroes_and_discards_cover_the_range_only),
		both(more_requests_than_slots_all_complete),
		both(a_file_that_was_cut_short_reads_as_an_error),
		both(a_file_size_limit_is_an_error_not_a_hang),
		cmocka_unit_test(what_is_no_raw_disk_is_refused),
		cmocka_unit_test(
			an_image_in_use_is_refused_with_the_holders_pid),
		cmocka_unit_test(paths_that_are_no_image_are_refused),
	};

	return test_run("block", tests);
}
