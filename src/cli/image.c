/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/image.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <linux/fs.h>

int image_root(char *out, struct err *err)
{
	char data[OS_PATH_MAX];
	int rc = os_data_dir(data, err);

	if (rc)
		return rc;
	if (snprintf(out, OS_PATH_MAX, "%.4000s/images", data) >= OS_PATH_MAX)
		return err_set(err, -ENAMETOOLONG, "path too long");
	return os_mkdir_p(out, 0755, err);
}

bool image_name_is_valid(const char *name)
{
	int slashes = 0;

	if (!isalnum((u8)name[0]) || strlen(name) > 100)
		return false;
	for (const char *p = name; *p; p++) {
		if (*p == '/') {
			if (++slashes > 1 || !isalnum((u8)p[1]))
				return false;
		} else if (!isalnum((u8)*p) && !strchr("._-", *p)) {
			return false;
		}
	}
	return true;
}

int image_find(const char *name, struct image *out, struct err *err)
{
	char root[OS_PATH_MAX];
	int rc = image_root(root, err);

	if (rc)
		return rc;
	snprintf(out->dir, sizeof(out->dir), "%.3900s/%.100s", root, name);
	snprintf(out->disk, sizeof(out->disk), "%s/disk.raw", out->dir);
	snprintf(out->kernel, sizeof(out->kernel), "%s/vmlinuz", out->dir);
	snprintf(out->initrd, sizeof(out->initrd), "%s/initrd.img", out->dir);
	if (!image_name_is_valid(name) || access(out->disk, F_OK) != 0) {
		err_set(err, -ENOENT, "image '%s' does not exist", name);
		err_set_id(err, "image.missing");
		return -ENOENT;
	}
	if (access(out->kernel, F_OK) != 0)
		out->kernel[0] = 0;
	if (access(out->initrd, F_OK) != 0)
		out->initrd[0] = 0;
	return 0;
}

/* Is there a lock on descriptor fd of process pid, and is it this file? */
static bool holds_lock(const char *pid, const char *fd, const struct stat *st)
{
	char path[600];
	struct buf text = {0};
	struct stat other;
	bool holds;

	snprintf(path, sizeof(path), "/proc/%.20s/fd/%.20s", pid, fd);
	if (stat(path, &other) || other.st_dev != st->st_dev ||
	    other.st_ino != st->st_ino)
		return false;
	snprintf(path, sizeof(path), "/proc/%.20s/fdinfo/%.20s", pid, fd);
	holds = os_read_file(path, 64 * KIB, &text, NULL) == 0 &&
		strstr(buf_str(&text), "\nlock:");
	buf_fini(&text);
	return holds;
}

static bool process_holds_lock(const char *pid, const struct stat *st)
{
	char path[64];
	struct dirent *e;
	bool holds = false;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%.20s/fd", pid);
	d = opendir(path);
	while (d && !holds && (e = readdir(d)))
		holds = holds_lock(pid, e->d_name, st);
	if (d)
		closedir(d);
	return holds;
}

/* The process that holds a lock on the file, 0 when it cannot be seen. An OFD
 * lock has no owner that F_OFD_GETLK would name: /proc tells. */
static pid_t find_holder(const struct stat *st)
{
	DIR *d = opendir("/proc");
	struct dirent *e;
	pid_t pid = 0;

	while (d && !pid && (e = readdir(d))) {
		if (isdigit((u8)e->d_name[0]) && atoi(e->d_name) != getpid() &&
		    process_holds_lock(e->d_name, st))
			pid = atoi(e->d_name);
	}
	if (d)
		closedir(d);
	return pid;
}

static int refuse_locked(const char *path, const struct stat *st,
			 struct err *err)
{
	pid_t pid = find_holder(st);
	char by[32] = "";

	if (pid)
		snprintf(by, sizeof(by), " (process %d)", pid);
	err_set(err, -EAGAIN, "image '%s' is in use by another machine%s", path,
		by);
	err_set_id(err, "image.locked");
	return -EAGAIN;
}

int image_open_disk(const char *path, bool is_read_only, int *out_fd,
		    struct err *err)
{
	struct flock lock = {.l_type = is_read_only ? F_RDLCK : F_WRLCK};
	struct stat st;
	int fd = open(path, (is_read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC |
				    O_NONBLOCK | O_NOCTTY);

	if (fd < 0)
		return err_sys(err, -errno, "open image '%s'", path);
	if (fstat(fd, &st) || (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))) {
		close(fd);
		return err_set(err, -EINVAL,
			       "open image '%s': neither a file nor a disk",
			       path);
	}
	if (S_ISREG(st.st_mode) && st.st_size < 512) {
		close(fd);
		return err_set(err, -EINVAL, "open image '%s': no disk in it",
			       path);
	}
	if (fcntl(fd, F_OFD_SETLK, &lock)) {
		int rc = -errno;

		close(fd);
		if (rc != -EAGAIN && rc != -EACCES)
			return err_sys(err, rc, "lock image '%s'", path);
		return refuse_locked(path, &st, err);
	}
	*out_fd = fd;
	return 0;
}

/* Where the kernel cannot copy between the two file systems. */
static int copy_plain(int src, int dst, off_t from, off_t end)
{
	enum { CHUNK = 1024 * 1024 };
	char *bytes = malloc(CHUNK);
	int rc = bytes ? 0 : -ENOMEM;

	while (rc == 0 && from < end) {
		size_t want = MIN(end - from, (off_t)CHUNK);
		ssize_t n = pread(src, bytes, want, from), done = 0;

		if (n <= 0)
			rc = n == 0 ? -EIO : errno == EINTR ? 0 : -errno;
		while (rc == 0 && done < n) {
			ssize_t put = pwrite(dst, bytes + done, n - done,
					     from + done);

			if (put < 0 && errno != EINTR)
				rc = -errno;
			done += MAX(put, 0);
		}
		from += MAX(n, 0);
	}
	free(bytes);
	return rc;
}

/* [from, end) of src to the same place of dst. */
static int copy_range(int src, int dst, off_t from, off_t end)
{
	while (from < end) {
		off_t to = from;
		ssize_t n =
			copy_file_range(src, &from, dst, &to, end - from, 0);

		if (n < 0 && (errno == EXDEV || errno == EINVAL ||
			      errno == ENOSYS || errno == EOPNOTSUPP))
			return copy_plain(src, dst, from, end);
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n == 0)
			return -EIO;
	}
	return 0;
}

static int copy_ranges(int src, int dst, off_t size)
{
	off_t at = 0;
	int rc;

	if (ioctl(dst, FICLONE, src) == 0)
		return 0;
	if (ftruncate(dst, size))
		return -errno;
	while (at < size) {
		off_t from = lseek(src, at, SEEK_DATA), end;

		if (from < 0)
			return errno == ENXIO ? 0 : -errno;
		end = lseek(src, from, SEEK_HOLE);
		if (end < 0)
			return -errno;
		rc = copy_range(src, dst, from, end);
		if (rc)
			return rc;
		at = end;
	}
	return 0;
}

/* Takes `in`. */
static int copy_from(int in, const char *src, const char *dst, struct err *err)
{
	struct stat st;
	int out, rc;

	out = open(dst, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (out < 0) {
		rc = err_sys(err, -errno, "create '%s'", dst);
		close(in);
		return rc;
	}
	rc = fstat(in, &st) ? -errno : copy_ranges(in, out, st.st_size);
	if (rc) {
		err_sys(err, rc, "copy image '%s' to '%s'", src, dst);
		unlink(dst);
	}
	close(out);
	close(in);
	return rc;
}

int image_copy(const char *src, const char *dst, struct err *err)
{
	int in, rc = image_open_disk(src, true, &in, err);

	return rc ? rc : copy_from(in, src, dst, err);
}

int image_copy_in_use(const char *src, const char *dst, struct err *err)
{
	int in = open(src, O_RDONLY | O_CLOEXEC);

	return in < 0 ? err_sys(err, -errno, "open image '%s'", src)
		      : copy_from(in, src, dst, err);
}

static int remove_one(const char *path, const struct stat *st, int type,
		      struct FTW *ftw)
{
	return remove(path) && errno != ENOENT ? -1 : 0;
}

int image_remove_tree(const char *path, struct err *err)
{
	if (nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT) &&
	    errno != ENOENT)
		return err_sys(err, -errno, "remove '%s'", path);
	return 0;
}
