/* SPDX-License-Identifier: Apache-2.0 */
/* For tests of images (behind test/test.h): a folder, qemu-img, whole disks in
 * memory. */
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/assert.h"
#include "block/block.h"
#include "block/block_int.h"
#include "block/qcow2.h"

struct images {
	char dir[64];
	struct loop *loop;
};

/* A shell command in the folder; its exit status. */
static inline int shell_try(struct images *t, const char *fmt, va_list ap)
{
	char text[4000], all[4200];

	vsnprintf(text, sizeof(text), fmt, ap);
	snprintf(all, sizeof(all), "cd %s && { %s; } >out 2>&1", t->dir, text);
	return system(all);
}

PRINTF_LIKE(2, 3)
static inline int shell_status(struct images *t, const char *fmt, ...)
{
	va_list ap;
	int rc;

	va_start(ap, fmt);
	rc = shell_try(t, fmt, ap);
	va_end(ap);
	return rc;
}

PRINTF_LIKE(2, 3)
static inline void shell(struct images *t, const char *fmt, ...)
{
	char cat[100];
	va_list ap;
	int rc;

	va_start(ap, fmt);
	rc = shell_try(t, fmt, ap);
	va_end(ap);
	if (!rc)
		return;
	snprintf(cat, sizeof(cat), "cat %s/out", t->dir);
	(void)!system(cat);
	fail_msg("'%s' failed", fmt);
}

static inline bool has_qemu(void)
{
	return !system("qemu-img --version >/dev/null 2>&1 && "
		       "qemu-io --version >/dev/null 2>&1");
}

/* Group-wide skip reason on stdout, as tests/run shows it. */
#define need_qemu()                                                            \
	do {                                                                   \
		if (!has_qemu()) {                                             \
			printf("SKIP: no qemu-img and qemu-io here "           \
			       "(qemu-utils)\n");                              \
			skip();                                                \
		}                                                              \
	} while (0)

static inline void images_begin(struct images *t)
{
	strcpy(t->dir, "/tmp/skerry-qcow2-test-XXXXXX");
	assert_non_null(mkdtemp(t->dir));
	t->loop = loop_new(NULL);
}

static inline void images_end(struct images *t)
{
	char text[100];

	snprintf(text, sizeof(text), "rm -rf %s", t->dir);
	assert_int_equal(system(text), 0);
	loop_free(t->loop);
}

static inline int file_open(struct images *t, const char *name, int flags)
{
	char path[200];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", t->dir, name);
	fd = open(path, flags | O_CLOEXEC, 0600);
	if (fd < 0)
		fail_msg("cannot open %s", path);
	return fd;
}

static inline u8 *file_bytes(struct images *t, const char *name, u64 *out_len)
{
	int fd = file_open(t, name, O_RDONLY);
	struct stat st;
	u8 *bytes;

	assert_int_equal(fstat(fd, &st), 0);
	bytes = malloc((size_t)st.st_size + 1);
	assert_non_null(bytes);
	for (off_t at = 0; at < st.st_size;) {
		ssize_t n =
			pread(fd, bytes + at, (size_t)(st.st_size - at), at);

		assert_true(n > 0);
		at += n;
	}
	close(fd);
	*out_len = (u64)st.st_size;
	return bytes;
}

static inline void file_put(struct images *t, const char *name,
			    const void *bytes, u64 len)
{
	int fd = file_open(t, name, O_RDWR | O_CREAT | O_TRUNC);

	assert_int_equal(write(fd, bytes, len), (ssize_t)len);
	close(fd);
}

/* Bytes that repeat nowhere, with holes and with runs that compress. */
static inline void pattern(u8 *bytes, u64 len, u64 seed)
{
	u64 x = seed * 2 + 1;

	for (u64 i = 0; i < len; i++) {
		u64 kind = (i / 40000 + seed) % 4;

		if (i % 8 == 0)
			x = x * 6364136223846793005ull + 1442695040888963407ull;
		bytes[i] = kind == 0   ? 0
			   : kind == 1 ? (u8)(i / 512 + seed)
				       : (u8)(x >> (i % 8 * 8));
	}
}

static inline void pattern_file(struct images *t, const char *name, u64 len,
				u64 seed)
{
	u8 *bytes = malloc(len);

	pattern(bytes, len, seed);
	file_put(t, name, bytes, len);
	free(bytes);
}

struct sync_result {
	bool is_done;
	int result;
};

static inline void sync_done(struct block_request *req, int result)
{
	struct sync_result *r = req->opaque;

	ASSERT(!r->is_done);
	r->is_done = true;
	r->result = result;
}

static inline int disk_do(struct block_node *node, enum block_op op, u64 offset,
			  void *bytes, u64 len)
{
	struct sync_result r = {0};
	struct iovec iov = {bytes, len};
	struct block_request req = {.op = op,
				    .offset = offset,
				    .len = len,
				    .iov = &iov,
				    .iov_count = bytes ? 1 : 0,
				    .may_unmap = true,
				    .done = sync_done,
				    .opaque = &r};

	block_submit(node, &req);
	assert_false(r.is_done);
	block_drain(node);
	assert_true(r.is_done);
	return r.result;
}

/* Reads all of the disk in pieces of `piece` bytes. */
static inline u8 *disk_bytes(struct block_node *node, u64 piece)
{
	u64 len = block_size_bytes(node);
	u8 *bytes = malloc(len + 1);

	assert_non_null(bytes);
	memset(bytes, 0xcc, len);
	for (u64 at = 0; at < len; at += piece)
		assert_int_equal(disk_do(node, BLOCK_READ, at, bytes + at,
					 MIN(piece, len - at)),
				 0);
	return bytes;
}

static inline void bytes_equal(const u8 *a, const u8 *b, u64 len)
{
	for (u64 i = 0; i < len; i++)
		if (a[i] != b[i])
			fail_msg("byte %#llx is %#x, not %#x",
				 (unsigned long long)i, a[i], b[i]);
}
