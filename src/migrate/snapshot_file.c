/* SPDX-License-Identifier: Apache-2.0 */
/* FORMAT, little-endian:
 *
 *	0   u8[8]  "SKERRYSN"
 *	8   u32    version
 *	12  u32    number of sections
 *	16  u64    bytes of the file
 *	24  u64    bytes of RAM
 *	32  u64    bytes of RAM that are not in holes of the memory file
 *	40  u32    0
 *	44  u32    CRC-32 of bytes 0 to 43
 *	48  sections, each: u32 type, u32 CRC-32 of the content,
 *	    u64 bytes of the content, the content, zeroes up to 8 bytes
 *
 * Each section is there exactly once, in the order of the types.
 */
#include "migrate/snapshot_file.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "migrate/memory_save.h"

#define MAGIC	      "SKERRYSN"
#define HEADER_BYTES  48
#define HEADER_SUM_AT 44
#define SECTION_BYTES 16
#define SECTIONS      3u
#define MEMORY_MAX    (1ull << 46)

static u32 sum(const void *bytes, size_t n)
{
	return (u32)crc32_z(0, bytes, n);
}

/* ---- writing ---- */

static size_t padding(size_t n)
{
	return -n & 7;
}

static void append_section(struct buf *out, enum snapshot_section type,
			   const void *bytes, size_t n)
{
	buf_append_le32(out, type);
	buf_append_le32(out, sum(bytes, n));
	buf_append_le64(out, n);
	buf_append(out, bytes, n);
	buf_append_zero(out, padding(n));
}

void snapshot_file_write(const struct snapshot_file *f, struct buf *out)
{
	size_t sums_bytes = f->sum_count * sizeof(u32);
	size_t total = HEADER_BYTES + SECTIONS * SECTION_BYTES;
	size_t start = out->len;

	total += f->config_bytes + padding(f->config_bytes);
	total += f->state_bytes + padding(f->state_bytes);
	total += sums_bytes + padding(sums_bytes);
	buf_append(out, MAGIC, 8);
	buf_append_le32(out, SNAPSHOT_VERSION);
	buf_append_le32(out, SECTIONS);
	buf_append_le64(out, total);
	buf_append_le64(out, f->memory_bytes);
	buf_append_le64(out, f->written_bytes);
	buf_append_le32(out, 0);
	buf_append_le32(out, sum(out->bytes + start, HEADER_SUM_AT));
	append_section(out, SNAPSHOT_CONFIG, f->config, f->config_bytes);
	append_section(out, SNAPSHOT_STATE, f->state, f->state_bytes);
	append_section(out, SNAPSHOT_SUMS, f->sums, sums_bytes);
}

/* ---- reading ---- */

static int damaged(struct err *err, const char *why)
{
	err_set(err, -EINVAL, "the snapshot is damaged: %s", why);
	err_set_id(err, "snapshot.damaged");
	return -EINVAL;
}

static int read_header(const u8 *b, size_t len, struct snapshot_file *out,
		       struct err *err)
{
	if (len < HEADER_BYTES || memcmp(b, MAGIC, 8) != 0)
		return damaged(err, "this is no snapshot");
	if (ld_le32(b + 8) > SNAPSHOT_VERSION) {
		err_set(err, -ENOTSUP,
			"the snapshot has format %u; this release knows %u",
			ld_le32(b + 8), SNAPSHOT_VERSION);
		err_set_id(err, "snapshot.newer");
		return -ENOTSUP;
	}
	if (ld_le32(b + HEADER_SUM_AT) != sum(b, HEADER_SUM_AT))
		return damaged(err, "the header's checksum does not match");
	if (ld_le32(b + 8) == 0 || ld_le32(b + 12) != SECTIONS ||
	    ld_le32(b + 40) != 0)
		return damaged(err, "the header is not legal");
	if (ld_le64(b + 16) != len)
		return damaged(err, ld_le64(b + 16) > len
					    ? "its end is missing"
					    : "there is more behind its end");
	out->memory_bytes = ld_le64(b + 24);
	out->written_bytes = ld_le64(b + 32);
	if (!out->memory_bytes || out->memory_bytes > MEMORY_MAX ||
	    out->memory_bytes % PAGE_BYTES ||
	    out->written_bytes > out->memory_bytes)
		return damaged(err, "the size of the memory is not legal");
	return 0;
}

/* *at moves behind the section. */
static int read_section(const u8 *b, size_t len, size_t *at, u32 type,
			const u8 **out, size_t *out_bytes, struct err *err)
{
	size_t left = len - *at;
	const u8 *head = b + *at;
	u64 n;

	if (left < SECTION_BYTES || ld_le32(head) != type)
		return damaged(err, "a section is missing");
	n = ld_le64(head + 8);
	left -= SECTION_BYTES;
	if (n > left || padding(n) > left - n)
		return damaged(err, "a section is longer than the file");
	*out = head + SECTION_BYTES;
	*out_bytes = (size_t)n;
	if (ld_le32(head + 4) != sum(*out, *out_bytes))
		return damaged(err, "a section's checksum does not match");
	*at += SECTION_BYTES + *out_bytes + padding(*out_bytes);
	return 0;
}

int snapshot_file_read(const u8 *bytes, size_t len, struct snapshot_file *out,
		       struct err *err)
{
	const u8 *config = NULL, *sums = NULL;
	size_t at = HEADER_BYTES, sums_bytes = 0;
	int rc;

	memset(out, 0, sizeof(*out));
	rc = read_header(bytes, len, out, err);
	if (rc == 0)
		rc = read_section(bytes, len, &at, SNAPSHOT_CONFIG, &config,
				  &out->config_bytes, err);
	if (rc == 0)
		rc = read_section(bytes, len, &at, SNAPSHOT_STATE, &out->state,
				  &out->state_bytes, err);
	if (rc == 0)
		rc = read_section(bytes, len, &at, SNAPSHOT_SUMS, &sums,
				  &sums_bytes, err);
	if (rc < 0)
		return rc;
	if (at != len)
		return damaged(err, "there is more behind its end");
	if (sums_bytes / sizeof(u32) != memory_chunk_count(out->memory_bytes) ||
	    sums_bytes % sizeof(u32))
		return damaged(err, "the number of checksums is not right");
	out->config = (const char *)config;
	out->sums = sums;
	out->sum_count = sums_bytes / sizeof(u32);
	return 0;
}

/* ---- files ---- */

/* n bytes, or up to the end of the file: how many, or -errno. */
static ssize_t read_at(int fd, u8 *out, size_t n, u64 at)
{
	size_t have = 0;

	while (have < n) {
		ssize_t got =
			pread(fd, out + have, n - have, (off_t)(at + have));

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (got == 0)
			break;
		have += (size_t)got;
	}
	return (ssize_t)have;
}

int snapshot_file_load(int fd, u8 **out_bytes, struct snapshot_file *out,
		       struct err *err)
{
	struct stat st;
	ssize_t n;
	u8 *bytes;
	int rc;

	if (fstat(fd, &st) < 0)
		return err_sys(err, -errno, "look at the snapshot");
	if (!S_ISREG(st.st_mode) || st.st_size > (off_t)SNAPSHOT_BYTES_MAX)
		return damaged(err, "this is no snapshot");
	bytes = malloc((size_t)st.st_size + 1);
	if (!bytes)
		return err_sys(err, -ENOMEM, "read the snapshot");
	n = read_at(fd, bytes, (size_t)st.st_size, 0);
	rc = n < 0 ? err_sys(err, (int)n, "read the snapshot")
		   : snapshot_file_read(bytes, (size_t)n, out, err);
	if (rc < 0)
		free(bytes);
	else
		*out_bytes = bytes;
	return rc;
}

int snapshot_memory_check(const struct snapshot_file *f, int memory_fd,
			  struct err *err)
{
	u8 *chunk = malloc(MEMORY_CHUNK_BYTES);
	int rc = chunk ? 0 : err_sys(err, -ENOMEM, "check the memory file");

	for (size_t i = 0; rc == 0 && i < f->sum_count; i++) {
		u64 at = (u64)i * MEMORY_CHUNK_BYTES;
		size_t want = MIN(f->memory_bytes - at, MEMORY_CHUNK_BYTES);
		ssize_t n = read_at(memory_fd, chunk, want, at);

		if (n < 0)
			rc = err_sys(err, (int)n, "read the memory file");
		else if ((size_t)n < want)
			rc = damaged(err, "the memory file's end is missing");
		else if (sum(chunk, want) != ld_le32(f->sums + 4 * i))
			rc = damaged(err, "a checksum of the memory file does "
					  "not match");
	}
	free(chunk);
	return rc;
}
