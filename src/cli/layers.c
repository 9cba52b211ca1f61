/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/layers.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/qcow2.h"
#include "cli/image_file.h"

/* As many as can be open below one disk, less one to go on in. */
#define LAYERS_MAX (BLOCK_LAYERS_MAX - 1)

/* From so many on they are merged when the machine starts. */
#define LAYERS_MANY 20

struct top {
	long number; /* -1: none */
	u32 count;
	const char *format;
};

/* "12.qcow2" or "0.raw"; -1: another name. */
static long layer_number(const char *name, const char **out_format)
{
	char *dot;
	long n;

	if (name[0] < '0' || name[0] > '9')
		return -1;
	n = strtol(name, &dot, 10);
	if (strcmp(dot, ".raw") == 0)
		*out_format = "raw";
	else if (strcmp(dot, ".qcow2") == 0)
		*out_format = "qcow2";
	else
		return -1;
	return n < 1000000 ? n : -1;
}

static struct top find_top(const char *dir)
{
	struct top t = {.number = -1};
	struct dirent *e;
	DIR *d = opendir(dir);

	while (d && (e = readdir(d))) {
		const char *format;
		long n = layer_number(e->d_name, &format);

		t.count += n >= 0;
		if (n <= t.number)
			continue;
		t.number = n;
		t.format = format;
	}
	if (d)
		closedir(d);
	return t;
}

static void layer_name(char *out, size_t cap, long number, const char *format)
{
	snprintf(out, cap, "%ld.%s", number, format);
}

int layers_top(const char *dir, char *out_path, const char **out_format,
	       struct err *err)
{
	struct top t = find_top(dir);

	if (t.number < 0) {
		err_set(err, -ENOENT, "there is no disk in '%s'", dir);
		err_set_id(err, "disk.missing");
		return -ENOENT;
	}
	snprintf(out_path, LAYERS_PATH_MAX, "%.4200s/%ld.%s", dir, t.number,
		 t.format);
	*out_format = t.format;
	return 0;
}

static int sync_dir(const char *dir, struct err *err)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = 0;

	if (fd < 0 || fsync(fd))
		rc = err_sys(err, -errno, "make '%s' durable", dir);
	if (fd >= 0)
		close(fd);
	return rc;
}

/* ---- folders from others ---- */

static bool has_no_links(int error)
{
	return error == EXDEV || error == EPERM || error == EMLINK ||
	       error == EOPNOTSUPP || error == ENOSYS;
}

static int link_file(const char *from, const char *dir, const char *name,
		     struct err *err)
{
	char to[LAYERS_PATH_MAX];

	snprintf(to, sizeof(to), "%.4200s/%.60s", dir, name);
	if (linkat(AT_FDCWD, from, AT_FDCWD, to, AT_SYMLINK_FOLLOW) == 0)
		return 0;
	if (has_no_links(errno))
		return image_copy_in_use(from, to, err);
	return err_sys(err, -errno, "link '%s' to '%s'", from, to);
}

int layers_from_image(const struct image *im, const char *dir, struct err *err)
{
	int rc = os_mkdir_p(dir, 0700, err);

	if (!rc)
		rc = link_file(im->disk, dir, "0.raw", err);
	if (!rc && im->kernel[0])
		rc = link_file(im->kernel, dir, "vmlinuz", err);
	if (!rc && im->initrd[0])
		rc = link_file(im->initrd, dir, "initrd.img", err);
	return rc ? rc : sync_dir(dir, err);
}

enum which { ALL, NOT_THE_TOP, NO_LAYERS };

static int link_some(const char *from, enum which which, const char *to,
		     struct err *err)
{
	struct top t = find_top(from);
	char path[LAYERS_PATH_MAX], top[64] = "";
	struct dirent *e;
	DIR *d;
	int rc = os_mkdir_p(to, 0700, err);

	if (rc)
		return rc;
	if (t.number >= 0 && which == NOT_THE_TOP)
		layer_name(top, sizeof(top), t.number, t.format);
	d = opendir(from);
	if (!d)
		return err_sys(err, -errno, "read '%s'", from);
	while (!rc && (e = readdir(d))) {
		const char *format;

		if (e->d_name[0] == '.' || strcmp(e->d_name, top) == 0 ||
		    (which == NO_LAYERS &&
		     layer_number(e->d_name, &format) >= 0))
			continue;
		snprintf(path, sizeof(path), "%.4200s/%.60s", from, e->d_name);
		rc = link_file(path, to, e->d_name, err);
	}
	closedir(d);
	return rc ? rc : sync_dir(to, err);
}

int layers_link(const char *from, bool without_top, const char *to,
		struct err *err)
{
	return link_some(from, without_top ? NOT_THE_TOP : ALL, to, err);
}

int layers_link_boot(const char *from, const char *to, struct err *err)
{
	return link_some(from, NO_LAYERS, to, err);
}

int layers_replace(const char *dir, const char *by, struct err *err)
{
	unsigned flags = access(dir, F_OK) ? 0 : RENAME_EXCHANGE;

	if (renameat2(AT_FDCWD, by, AT_FDCWD, dir, flags))
		return err_sys(err, -errno, "replace '%s'", dir);
	return 0;
}

u64 layers_own_bytes(const char *dir)
{
	char path[LAYERS_PATH_MAX];
	DIR *d = opendir(dir);
	struct dirent *e;
	struct stat st;
	u64 sum = 0;

	while (d && (e = readdir(d))) {
		snprintf(path, sizeof(path), "%.4200s/%.60s", dir, e->d_name);
		if (lstat(path, &st) == 0 && S_ISREG(st.st_mode) &&
		    st.st_nlink == 1)
			sum += (u64)st.st_blocks * 512;
	}
	if (d)
		closedir(d);
	return sum;
}

/* ---- new layers ---- */

/* Also of a file that a machine has locked. */
static int disk_size(const char *path, const char *format, u64 *out,
		     struct err *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), rc;

	if (fd < 0)
		return err_sys(err, -errno, "open '%s'", path);
	rc = block_image_size(fd, format, out, err);
	close(fd);
	return rc < 0 ? err_wrap(err, "look at '%s'", path) : 0;
}

static int make_layer(const char *dir, const struct top *t, const char *path,
		      struct err *err)
{
	struct image_file_options o = {.backing_format = t->format};
	char below[LAYERS_PATH_MAX], name[64];
	u64 bytes = 0;
	int rc;

	layer_name(name, sizeof(name), t->number, t->format);
	snprintf(below, sizeof(below), "%.4200s/%.60s", dir, name);
	o.backing = name;
	rc = disk_size(below, t->format, &bytes, err);
	return rc ? rc : image_file_create(path, "qcow2", bytes, &o, err);
}

/* It gets its name when it is whole. */
int layers_add(const char *dir, int *out_fd, struct err *err)
{
	char path[LAYERS_PATH_MAX], temp[LAYERS_PATH_MAX];
	struct top t = find_top(dir);
	int rc;

	if (t.number < 0)
		return err_set(err, -ENOENT, "there is no disk in '%s'", dir);
	if (t.count >= LAYERS_MAX) {
		err_set(err, -ELOOP,
			"the disk has %u layers, and no room for another",
			t.count);
		err_set_id(err, "disk.layers");
		return -ELOOP;
	}
	snprintf(temp, sizeof(temp), "%.4200s/.new", dir);
	snprintf(path, sizeof(path), "%.4200s/%ld.qcow2", dir, t.number + 1);
	unlink(temp);
	rc = make_layer(dir, &t, temp, err);
	if (!rc)
		rc = block_open_path(temp, false, out_fd, err);
	if (!rc && rename(temp, path)) {
		rc = err_sys(err, -errno, "rename '%s'", temp);
		close(*out_fd);
	}
	if (rc) {
		unlink(temp);
		return rc;
	}
	rc = sync_dir(dir, err);
	if (rc)
		close(*out_fd);
	return rc;
}

/* Those between the first and the last, which nothing refers to any more. */
static void unlink_between(const char *dir, long top)
{
	char path[LAYERS_PATH_MAX];
	DIR *d = opendir(dir);
	struct dirent *e;

	while (d && (e = readdir(d))) {
		const char *format;
		long n = layer_number(e->d_name, &format);

		if (n <= 0 || n >= top)
			continue;
		snprintf(path, sizeof(path), "%.4200s/%.60s", dir, e->d_name);
		unlink(path);
	}
	if (d)
		closedir(d);
}

/* The new file says that it lies over the first layer, so it may take the
 * last one's name at any moment. */
int layers_merge(const char *dir, struct err *err)
{
	char path[LAYERS_PATH_MAX], temp[LAYERS_PATH_MAX];
	const struct top base = {.number = 0, .format = "raw"};
	struct top t = find_top(dir);
	int rc;

	if (t.count < LAYERS_MANY)
		return 0;
	snprintf(path, sizeof(path), "%.4200s/%ld.%s", dir, t.number, t.format);
	snprintf(temp, sizeof(temp), "%.4200s/.merged", dir);
	unlink(temp);
	rc = make_layer(dir, &base, temp, err);
	if (!rc)
		rc = image_merge(path, temp, "qcow2", err);
	if (!rc && rename(temp, path))
		rc = err_sys(err, -errno, "rename '%s'", temp);
	if (rc) {
		unlink(temp);
		return err_wrap(err, "merge the disk's layers");
	}
	rc = sync_dir(dir, err);
	if (!rc)
		unlink_between(dir, t.number);
	return rc;
}

void layers_trim(const char *dir)
{
	for (;;) {
		char path[LAYERS_PATH_MAX];
		struct top t = find_top(dir);
		int fd;

		if (t.number < 1)
			return;
		snprintf(path, sizeof(path), "%.4200s/%ld.%s", dir, t.number,
			 t.format);
		if (block_open_path(path, false, &fd, NULL))
			return;
		unlink(path);
		close(fd);
	}
}
