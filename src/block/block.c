/* SPDX-License-Identifier: Apache-2.0 */
#include "block/block.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/assert.h"
#include "block/block_int.h"
#include "block/qcow2.h"

static void close_layers(const struct block_open *how)
{
	for (size_t i = 0; i < how->layer_count; i++)
		close(how->layers[i].fd);
}

static int open_qcow2(struct loop *loop, int fd, const struct block_open *how,
		      struct block_node **out_node, struct err *err)
{
	struct block_node *file, *backing = NULL;
	struct block_open below = *how;
	int rc = raw_open_file(loop, fd, how, &file, err);

	if (rc) {
		close_layers(how);
		return rc;
	}
	if (how->layer_count) {
		below.format = how->layers[0].format;
		below.is_read_only = true;
		below.layers++;
		below.layer_count--;
		rc = block_open_fd(loop, how->layers[0].fd, &below, &backing,
				   err);
		if (rc) {
			block_close(file);
			return rc;
		}
	}
	return qcow2_open(loop, file, backing, how, out_node, err);
}

int block_open_fd(struct loop *loop, int fd, const struct block_open *how,
		  struct block_node **out_node, struct err *err)
{
	if (!strcmp(how->format, "qcow2") &&
	    how->layer_count < BLOCK_LAYERS_MAX)
		return open_qcow2(loop, fd, how, out_node, err);
	if (!strcmp(how->format, "raw") && !how->layer_count)
		return raw_open(loop, fd, how, out_node, err);
	close(fd);
	close_layers(how);
	if (!strcmp(how->format, "raw"))
		return err_set(err, -EINVAL, "a raw image has no backing file");
	if (!strcmp(how->format, "qcow2"))
		return err_set(err, -EINVAL, "more than %d images in a chain",
			       BLOCK_LAYERS_MAX);
	return err_set(err, -EINVAL, "unknown disk format '%s'", how->format);
}

int block_open_file(struct loop *loop, int fd, struct block_node **out_node,
		    struct err *err)
{
	static const struct block_open how = {.format = "raw"};

	return raw_open_file(loop, fd, &how, out_node, err);
}

int block_can_lay_over(const struct block_node *top,
		       const struct block_node *below, struct err *err)
{
	if (!qcow2_can_lay_over(top))
		return err_set(err, -EINVAL, "the new layer is no overlay");
	if (top->size_bytes != below->size_bytes)
		return err_set(err, -EINVAL,
			       "the new layer is not as large as the disk");
	return 0;
}

void block_lay_over(struct block_node *top, struct block_node *below)
{
	ASSERT(!block_can_lay_over(top, below, NULL));
	qcow2_lay_over(top, below);
}

void block_close(struct block_node *node)
{
	if (!node)
		return;
	block_drain(node);
	node->ops->close(node);
}

static bool is_transfer(const struct block_request *req)
{
	return req->op == BLOCK_READ || req->op == BLOCK_WRITE;
}

/* 1: submit it; else what it completes with. */
static int check_request(const struct block_node *node,
			 const struct block_request *req)
{
	u64 sum = 0;

	if (req->op == BLOCK_FLUSH)
		return 1;
	if (req->offset > node->size_bytes ||
	    req->len > node->size_bytes - req->offset)
		return -EINVAL;
	if (req->op != BLOCK_READ && node->is_read_only)
		return -EROFS;
	if (is_transfer(req)) {
		for (int i = 0; i < req->iov_count; i++)
			if (__builtin_add_overflow(sum, req->iov[i].iov_len,
						   &sum))
				return -EINVAL;
		if (sum != req->len)
			return -EINVAL;
	}
	return req->len ? 1 : 0;
}

void block_submit(struct block_node *node, struct block_request *req)
{
	int rc = check_request(node, req);

	req->progress = 0;
	req->node_private = NULL;
	if (rc > 0)
		node->ops->submit(node, req);
	else
		node->ops->complete_later(node, req, rc);
}

void block_drain(struct block_node *node)
{
	node->ops->drain(node);
}

static void do_done(struct block_request *req, int result)
{
	*(int *)req->opaque = result;
}

int block_do(struct block_node *node, enum block_op op, u64 offset, void *bytes,
	     u64 len)
{
	struct iovec iov = {bytes, len};
	int result = 1; /* not yet */
	struct block_request req = {.op = op,
				    .offset = offset,
				    .len = len,
				    .iov = &iov,
				    .iov_count = 1,
				    .may_unmap = true,
				    .done = do_done,
				    .opaque = &result};

	block_submit(node, &req);
	while (result > 0)
		block_drain(node);
	return result;
}

int block_resize_raw(struct block_node *node, u64 size_bytes, struct err *err)
{
	int rc;

	if (!node->ops->truncate || node->is_read_only || !size_bytes ||
	    size_bytes > INT64_MAX)
		return err_set(err, -EINVAL, "this image cannot be resized");
	rc = node->ops->truncate(node, size_bytes);
	if (rc)
		return err_sys(err, rc, "resize the image");
	node->size_bytes = size_bytes;
	return 0;
}

u64 block_size_bytes(const struct block_node *node)
{
	return node->size_bytes;
}

bool block_is_read_only(const struct block_node *node)
{
	return node->is_read_only;
}

/* ---- The opener ---- */

/* True when the process' descriptor is the file and has an OFD lock. */
static bool holds_lock(const char *pid, const char *fd, const struct stat *file)
{
	char path[600], line[256];
	struct stat st;
	bool found = false;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%s/fd/%s", pid, fd);
	if (stat(path, &st) < 0 || st.st_dev != file->st_dev ||
	    st.st_ino != file->st_ino)
		return false;
	snprintf(path, sizeof(path), "/proc/%s/fdinfo/%s", pid, fd);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, "lock:", 5) && strstr(line, "OFDLCK"))
			found = true;
	if (f)
		fclose(f);
	return found;
}

static bool process_holds_lock(const char *pid, const struct stat *file)
{
	char path[300];
	struct dirent *e;
	bool found = false;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%s/fd", pid);
	dir = opendir(path);
	while (dir && !found && (e = readdir(dir)))
		if (e->d_name[0] != '.')
			found = holds_lock(pid, e->d_name, file);
	if (dir)
		closedir(dir);
	return found;
}

/* The pid of a process that has the file locked, or 0. The kernel does not
 * tell it for OFD locks, so the processes that we may look into are asked. */
static long lock_holder(const struct stat *file)
{
	DIR *dir = opendir("/proc");
	struct dirent *e;
	long pid = 0;

	while (dir && !pid && (e = readdir(dir)))
		if (e->d_name[0] >= '1' && e->d_name[0] <= '9' &&
		    process_holds_lock(e->d_name, file))
			pid = atol(e->d_name);
	if (dir)
		closedir(dir);
	return pid;
}

static int lock_file(int fd, const char *path, bool is_read_only,
		     struct err *err)
{
	struct flock lock = {.l_type = is_read_only ? F_RDLCK : F_WRLCK};
	struct stat st;
	char who[64] = "another process";
	long pid;
	int rc;

	if (!fcntl(fd, F_OFD_SETLK, &lock))
		return 0;
	rc = -errno;
	if (rc != -EAGAIN && rc != -EACCES)
		return err_sys(err, rc, "lock image '%s'", path);
	pid = fstat(fd, &st) ? 0 : lock_holder(&st);
	if (pid)
		snprintf(who, sizeof(who), "process %ld", pid);
	err_set(err, -EAGAIN, "image '%s' is in use by %s", path, who);
	err_set_id(err, "image.locked");
	return -EAGAIN;
}

static int check_file(int fd, const char *path, struct err *err)
{
	struct statfs fs;
	struct stat st;

	if (fstat(fd, &st) < 0 || fstatfs(fd, &fs) < 0)
		return err_sys(err, -errno, "open image '%s'", path);
	if (S_ISDIR(st.st_mode))
		return err_sys(err, -EISDIR, "open image '%s'", path);
	if ((!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) ||
	    fs.f_type == PROC_SUPER_MAGIC || fs.f_type == SYSFS_MAGIC)
		return err_set(err, -EINVAL,
			       "'%s' is neither a disk image nor a block "
			       "device",
			       path);
	return 0;
}

int block_open_path(const char *path, bool is_read_only, int *out_fd,
		    struct err *err)
{
	char self[64];
	int flags = (is_read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOCTTY;
	int place, fd, rc;

	/* First without opening it: opening a device or a FIFO has effects. */
	place = open(path, O_PATH | O_CLOEXEC);
	if (place < 0)
		return err_sys(err, -errno, "open image '%s'", path);
	rc = check_file(place, path, err);
	if (rc) {
		close(place);
		return rc;
	}
	snprintf(self, sizeof(self), "/proc/self/fd/%d", place);
	fd = open(self, flags);
	rc = -errno;
	close(place);
	if (fd < 0)
		return err_sys(err, rc, "open image '%s'", path);
	rc = lock_file(fd, path, is_read_only, err);
	if (rc) {
		close(fd);
		return rc;
	}
	*out_fd = fd;
	return 0;
}
