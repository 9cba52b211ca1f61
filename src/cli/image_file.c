/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/image_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "block/block.h"

const char *image_file_format(const char *format, const char *path)
{
	size_t len = strlen(path);

	if (format)
		return format;
	return len > 6 && !strcmp(path + len - 6, ".qcow2") ? "qcow2" : "raw";
}

static int open_chain(const char *path, const struct image_file_options *o,
		      const struct block_open *how, struct block_chain *c,
		      struct err *err)
{
	const char *format = image_file_format(o->format, path);
	int rc;

	memset(c, 0, sizeof(*c));
	if (!how->is_alone)
		return block_chain_open(path, format, how->is_read_only,
					o->anywhere, c, err);
	snprintf(c->files[0].format, sizeof(c->files[0].format), "%s", format);
	rc = block_open_path(path, how->is_read_only, &c->files[0].fd, err);
	c->count = !rc;
	return rc;
}

int image_file_open(const char *path, const struct image_file_options *o,
		    const struct block_open *how, struct image_file *out,
		    struct err *err)
{
	int rc;

	memset(out, 0, sizeof(*out));
	out->loop = loop_new(err);
	if (!out->loop)
		return -EIO;
	rc = open_chain(path, o, how, &out->chain, err);
	if (!rc) {
		rc = block_chain_node(out->loop, &out->chain, how, &out->node,
				      err);
		if (rc)
			err_wrap(err, "open image '%s'", path);
	}
	if (rc)
		image_file_close(out);
	return rc;
}

void image_file_close(struct image_file *f)
{
	block_close(f->node);
	block_chain_close(&f->chain);
	loop_free(f->loop);
	f->node = NULL;
	f->loop = NULL;
}

static int read_options(const struct image_file_options *o,
			struct qcow2_create *c, struct err *err)
{
	if (o->cluster_bytes & (o->cluster_bytes - 1))
		return err_set(err, -EINVAL,
			       "a cluster's size is a power of two");
	if (o->cluster_bytes)
		c->cluster_bits = (u32)__builtin_ctzll(o->cluster_bytes);
	c->refcount_bits = o->refcount_bits;
	c->is_extended = o->is_extended;
	c->is_lazy = o->is_lazy;
	c->backing_name = o->backing;
	c->backing_format = o->backing_format;
	if (!o->compression || !strcmp(o->compression, "zlib"))
		return 0;
	if (strcmp(o->compression, "zstd"))
		return err_set(err, -EINVAL, "compression is zlib or zstd");
	c->compression_type = 1;
	return 0;
}

static int create_qcow2(int fd, u64 size_bytes,
			const struct image_file_options *o, struct err *err)
{
	struct qcow2_create c = {.size_bytes = size_bytes};
	struct loop *loop = loop_new(err);
	struct block_node *file;
	int rc;

	if (!loop) {
		close(fd);
		return -EIO;
	}
	rc = block_open_file(loop, fd, &file, err);
	if (!rc) {
		rc = read_options(o, &c, err);
		if (!rc)
			rc = qcow2_create(loop, file, &c, err);
		block_close(file);
	}
	loop_free(loop);
	return rc;
}

static int create_raw(int fd, u64 size_bytes, struct err *err)
{
	int rc = 0;

	if (ftruncate(fd, (off_t)size_bytes) || fsync(fd))
		rc = err_sys(err, -errno, "make a raw image");
	close(fd);
	return rc;
}

int image_file_create(const char *path, const char *format, u64 size_bytes,
		      const struct image_file_options *o, struct err *err)
{
	bool is_raw = !strcmp(format, "raw");
	int fd, rc;

	if (!is_raw && strcmp(format, "qcow2"))
		return err_set(err, -EINVAL, "unknown disk format '%s'",
			       format);
	if (is_raw && (o->backing || o->cluster_bytes || o->refcount_bits ||
		       o->is_extended || o->is_lazy || o->compression))
		return err_set(err, -EINVAL,
			       "a raw image has none of these options");
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (fd < 0)
		return err_sys(err, -errno, "make image '%s'", path);
	rc = is_raw ? create_raw(fd, size_bytes, err)
		    : create_qcow2(fd, size_bytes, o, err);
	if (rc)
		unlink(path);
	return rc;
}

/* ---- Progress ---- */

static void end_signals(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGINT);
	sigaddset(set, SIGTERM);
}

void image_progress_begin(struct image_progress *p)
{
	sigset_t set;

	*p = (struct image_progress){.percent = -1,
				     .is_shown = isatty(STDERR_FILENO)};
	end_signals(&set);
	sigprocmask(SIG_BLOCK, &set, &p->old);
}

int image_progress(void *opaque, u64 done, u64 total)
{
	struct image_progress *p = opaque;
	int percent = total ? (int)(MIN(done, total) * 100.0 / total) : 100;
	struct timespec none = {0};
	sigset_t set;

	end_signals(&set);
	if (sigtimedwait(&set, NULL, &none) > 0)
		return -ECANCELED;
	if (p->is_shown && percent != p->percent)
		fprintf(stderr, "\r%3d %%", percent);
	p->percent = percent;
	return 0;
}

void image_progress_end(struct image_progress *p)
{
	if (p->is_shown && p->percent >= 0)
		fprintf(stderr, "\r     \r");
	sigprocmask(SIG_SETMASK, &p->old, NULL);
}
