/* SPDX-License-Identifier: Apache-2.0 */
#include "block/chain.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/qcow2.h"

/* The first cluster of a qcow2 file, read plainly. */
static int read_header(int fd, struct qcow2_header *h, struct err *err)
{
	struct stat st;
	size_t len = 0, want;
	u8 *bytes;
	int rc;

	if (fstat(fd, &st) < 0)
		return err_sys(err, -errno, "look at the image");
	want = (size_t)QCOW2_HEADER_MAX;
	if (S_ISREG(st.st_mode))
		want = MIN(want, (u64)st.st_size);
	bytes = malloc(want + 1);
	if (!bytes)
		return err_sys(err, -ENOMEM, "read the image's header");
	while (len < want) {
		ssize_t n = pread(fd, bytes + len, want - len, (off_t)len);

		if (n <= 0)
			break;
		len += (size_t)n;
	}
	rc = qcow2_header_parse(
		bytes, len, S_ISREG(st.st_mode) ? (u64)st.st_size : INT64_MAX,
		h, err);
	free(bytes);
	return rc;
}

int block_image_size(int fd, const char *format, u64 *out_bytes,
		     struct err *err)
{
	struct qcow2_header h;
	struct stat st;
	int rc;

	if (strcmp(format, "raw")) {
		rc = read_header(fd, &h, err);
		*out_bytes = rc ? 0 : h.size_bytes;
		return rc;
	}
	if (fstat(fd, &st))
		return err_sys(err, -errno, "look at the image");
	*out_bytes = (u64)st.st_size;
	return 0;
}

/* "nbd://…", "json:{…}": names of what is no file. */
static bool is_protocol(const char *name)
{
	const char *p = name;

	while (isalnum((u8)*p) || (*p && strchr("+-.", *p)))
		p++;
	return *p == ':' && p > name;
}

static int resolve(const struct block_chain_file *top, const char *name,
		   bool anywhere, char *out, struct err *err)
{
	char real[PATH_MAX], folder[PATH_MAX];
	const char *slash = strrchr(top->path, '/');
	int dir_len = slash ? (int)(slash - top->path) + 1 : 0;

	if (is_protocol(name))
		return err_set(err, -EINVAL,
			       "the backing file '%s' is no file name", name);
	if (name[0] == '/')
		dir_len = 0;
	if (snprintf(out, BLOCK_CHAIN_PATH, "%.*s%s", dir_len, top->path,
		     name) >= BLOCK_CHAIN_PATH)
		return err_sys(err, -ENAMETOOLONG, "open backing file '%s'",
			       name);
	if (!realpath(out, real) || !realpath(top->path, folder))
		return err_sys(err, -errno, "open backing file '%s'", out);
	*strrchr(folder, '/') = 0;
	if (!anywhere && (strncmp(real, folder, strlen(folder)) ||
			  real[strlen(folder)] != '/')) {
		err_set(err, -EACCES,
			"the backing file '%s' is not in the image's folder",
			out);
		err_set_id(err, "image.backing-elsewhere");
		return -EACCES;
	}
	return 0;
}

static bool is_in_chain(const struct block_chain *c, int fd)
{
	struct stat a, b;

	if (fstat(fd, &a))
		return false;
	for (size_t i = 0; i < c->count; i++)
		if (!fstat(c->files[i].fd, &b) && a.st_dev == b.st_dev &&
		    a.st_ino == b.st_ino)
			return true;
	return false;
}

static int add_file(struct block_chain *c, const char *path, const char *format,
		    bool is_read_only, struct err *err)
{
	struct block_chain_file *f = &c->files[c->count];
	struct stat st, other;
	int rc;

	if (c->count == BLOCK_LAYERS_MAX)
		return err_set(err, -ELOOP, "more than %d images in a chain",
			       BLOCK_LAYERS_MAX);
	if (strcmp(format, "raw") && strcmp(format, "qcow2"))
		return err_set(err, -EINVAL, "unknown disk format '%s'",
			       format);
	/* Before it is opened: our own lock would be in the way. */
	for (size_t i = 0; i < c->count; i++)
		if (!stat(path, &st) && !fstat(c->files[i].fd, &other) &&
		    st.st_dev == other.st_dev && st.st_ino == other.st_ino)
			return err_set(err, -ELOOP,
				       "image '%s' is below itself", path);
	rc = block_open_path(path, is_read_only, &f->fd, err);
	if (rc)
		return rc;
	if (is_in_chain(c, f->fd)) {
		close(f->fd);
		return err_set(err, -ELOOP, "image '%s' is below itself", path);
	}
	snprintf(f->format, sizeof(f->format), "%s", format);
	f->path = strdup(path);
	c->count++;
	return f->path ? 0 : err_sys(err, -ENOMEM, "open image '%s'", path);
}

static int add_below(struct block_chain *c, bool anywhere, struct err *err)
{
	char path[BLOCK_CHAIN_PATH];

	while (!strcmp(c->files[c->count - 1].format, "qcow2")) {
		const struct block_chain_file *top = &c->files[c->count - 1];
		struct qcow2_header h;
		int rc = read_header(top->fd, &h, err);

		if (rc)
			return err_wrap(err, "open image '%s'", top->path);
		if (!h.has_backing)
			return 0;
		if (!h.backing_format[0])
			return err_set(err, -EINVAL,
				       "image '%s' does not say what format "
				       "its backing file '%s' has",
				       top->path, h.backing_name);
		rc = resolve(top, h.backing_name, anywhere, path, err);
		if (!rc)
			rc = add_file(c, path, h.backing_format, true, err);
		if (rc)
			return err && err->code ? err->code : rc;
	}
	return 0;
}

int block_chain_open(const char *path, const char *format, bool is_read_only,
		     bool anywhere, struct block_chain *out, struct err *err)
{
	int rc;

	memset(out, 0, sizeof(*out));
	rc = add_file(out, path, format, is_read_only, err);
	if (!rc)
		rc = add_below(out, anywhere, err);
	if (rc)
		block_chain_close(out);
	return rc;
}

void block_chain_close(struct block_chain *c)
{
	for (size_t i = 0; i < c->count; i++) {
		if (c->files[i].fd >= 0)
			close(c->files[i].fd);
		free(c->files[i].path);
	}
	c->count = 0;
}

int block_chain_node(struct loop *loop, struct block_chain *c,
		     const struct block_open *how, struct block_node **out_node,
		     struct err *err)
{
	struct block_layer layers[BLOCK_LAYERS_MAX];
	struct block_open all = *how;
	int fd = c->files[0].fd;

	for (size_t i = 1; i < c->count; i++) {
		layers[i - 1] = (struct block_layer){c->files[i].fd,
						     c->files[i].format};
		c->files[i].fd = -1;
	}
	c->files[0].fd = -1;
	all.format = c->files[0].format;
	all.layers = layers;
	all.layer_count = c->count - 1;
	return block_open_fd(loop, fd, &all, out_node, err);
}
