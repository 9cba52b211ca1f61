/* SPDX-License-Identifier: Apache-2.0 */
#include "os/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

int os_mkdir_p(const char *path, mode_t mode, struct err *err)
{
	char part[OS_PATH_MAX];
	size_t len = strlen(path);

	if (!len || len >= sizeof(part))
		return err_sys(err, -ENAMETOOLONG, "create directory '%s'",
			       path);
	memcpy(part, path, len + 1);
	for (size_t i = 1; i <= len; i++) {
		if (part[i] != '/' && part[i])
			continue;
		part[i] = 0;
		if (mkdir(part, mode) < 0 && errno != EEXIST)
			return err_sys(err, -errno, "create directory '%s'",
				       part);
		if (i < len)
			part[i] = '/';
	}
	return 0;
}

/* An absolute directory from the environment, else NULL. */
static const char *env_dir(const char *name)
{
	const char *v = getenv(name);

	return v && v[0] == '/' ? v : NULL;
}

int os_data_dir(char *out, struct err *err)
{
	const char *chosen = env_dir("SKERRY_DATA_DIR");
	const char *dir = env_dir("XDG_DATA_HOME");
	const char *home = env_dir("HOME");
	int n;

	if (chosen)
		n = snprintf(out, OS_PATH_MAX, "%s", chosen);
	else if (geteuid() == 0)
		n = snprintf(out, OS_PATH_MAX, "/var/lib/skerry");
	else if (dir)
		n = snprintf(out, OS_PATH_MAX, "%s/skerry", dir);
	else if (home)
		n = snprintf(out, OS_PATH_MAX, "%s/.local/share/skerry", home);
	else
		return err_set(err, -ENOENT,
			       "neither HOME nor XDG_DATA_HOME is set");
	if (n >= OS_PATH_MAX)
		return err_sys(err, -ENAMETOOLONG, "find the data directory");
	return os_mkdir_p(out, 0755, err);
}

/* A directory in a place that others can write to must be ours alone. */
static int check_private_dir(const char *path, struct err *err)
{
	struct stat st;

	if (lstat(path, &st) < 0)
		return err_sys(err, -errno, "look at directory '%s'", path);
	if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid() ||
	    (st.st_mode & 077))
		return err_set(err, -EPERM,
			       "'%s' is not a directory of this user with mode "
			       "0700",
			       path);
	return 0;
}

int os_run_dir(char *out, struct err *err)
{
	const char *chosen = env_dir("SKERRY_RUN_DIR");
	const char *dir = env_dir("XDG_RUNTIME_DIR");
	int n, rc;

	if (chosen)
		n = snprintf(out, OS_PATH_MAX, "%s", chosen);
	else if (geteuid() == 0)
		n = snprintf(out, OS_PATH_MAX, "/run/skerry");
	else if (dir)
		n = snprintf(out, OS_PATH_MAX, "%s/skerry", dir);
	else
		n = snprintf(out, OS_PATH_MAX, "/tmp/skerry-%u",
			     (unsigned)geteuid());
	if (n >= OS_PATH_MAX)
		return err_sys(err, -ENAMETOOLONG, "find the run directory");
	rc = os_mkdir_p(out, 0700, err);
	return rc ? rc : check_private_dir(out, err);
}

int os_read_full(int fd, void *bytes, size_t n)
{
	u8 *p = bytes;

	while (n) {
		ssize_t got = read(fd, p, n);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (got == 0)
			return -EIO;
		p += got;
		n -= (size_t)got;
	}
	return 0;
}

int os_write_full(int fd, const void *bytes, size_t n)
{
	const u8 *p = bytes;

	while (n) {
		ssize_t put = write(fd, p, n);

		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return -errno;
		p += put;
		n -= (size_t)put;
	}
	return 0;
}

/* Makes a rename in the path's directory durable. */
static void sync_parent(const char *path)
{
	char dir[OS_PATH_MAX];
	char *slash;
	int fd;

	snprintf(dir, sizeof(dir), "%s", path);
	slash = strrchr(dir, '/');
	if (slash)
		slash[slash == dir] = 0;
	fd = open(slash ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return;
	(void)fsync(fd); /* not every file system can */
	close(fd);
}

int os_write_file(const char *path, const void *bytes, size_t len, mode_t mode,
		  struct err *err)
{
	char temp[OS_PATH_MAX];
	int fd, rc;

	if (snprintf(temp, sizeof(temp), "%s.XXXXXX", path) >=
	    (int)sizeof(temp))
		return err_sys(err, -ENAMETOOLONG, "write '%s'", path);
	fd = mkostemp(temp, O_CLOEXEC);
	if (fd < 0)
		return err_sys(err, -errno, "write '%s'", path);
	rc = os_write_full(fd, bytes, len);
	if (!rc && (fchmod(fd, mode) < 0 || fsync(fd) < 0))
		rc = -errno;
	close(fd);
	if (!rc && rename(temp, path) < 0)
		rc = -errno;
	if (rc) {
		unlink(temp);
		return err_sys(err, rc, "write '%s'", path);
	}
	sync_parent(path);
	return 0;
}

int os_read_file(const char *path, size_t max, struct buf *out, struct err *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	size_t total = 0;
	int rc = 0;

	if (fd < 0)
		return err_sys(err, -errno, "read '%s'", path);
	for (;;) {
		size_t room = MIN(max - total + 1, (size_t)(64 * KIB));
		ssize_t n = read(fd, buf_reserve(out, room), room);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			rc = err_sys(err, -errno, "read '%s'", path);
		if (n <= 0)
			break;
		total += (size_t)n;
		if (total > max) {
			rc = err_set(err, -EFBIG,
				     "'%s' is larger than %zu bytes", path,
				     max);
			break;
		}
		out->len += (size_t)n;
	}
	close(fd);
	return rc;
}
