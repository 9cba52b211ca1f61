/* SPDX-License-Identifier: Apache-2.0 */
/* image list, delete and import. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/image.h"
#include "cli/verbs.h"

static void list_one(const char *name)
{
	struct image im;
	struct stat st;

	if (image_find(name, &im, NULL) || stat(im.disk, &st))
		return;
	printf("%-24s %7lluM %7lluM %s\n", name,
	       (unsigned long long)(st.st_size / MIB),
	       (unsigned long long)(st.st_blocks * 512ull / MIB),
	       im.kernel[0] ? "kernel" : "-");
}

static void list_folder(const char *root, const char *prefix)
{
	char path[2 * OS_PATH_MAX];
	struct dirent *e;
	DIR *d;

	snprintf(path, sizeof(path), "%s/%s", root, prefix);
	d = opendir(path);
	while (d && (e = readdir(d))) {
		char name[600], disk[4 * OS_PATH_MAX];

		snprintf(name, sizeof(name), "%s%s%s", prefix,
			 *prefix ? "/" : "", e->d_name);
		if (!image_name_is_valid(name))
			continue;
		snprintf(disk, sizeof(disk), "%s/%s/disk.raw", root, name);
		if (access(disk, F_OK) == 0)
			list_one(name);
		else if (!*prefix)
			list_folder(root, name);
	}
	if (d)
		closedir(d);
}

int verb_image_list(void *values, struct cli_args *args)
{
	char root[OS_PATH_MAX];
	struct err err = {0};

	if (image_root(root, &err)) {
		cli_report(&err, NULL);
		return CLI_FAILED;
	}
	printf("%-24s %8s %8s %s\n", "NAME", "SIZE", "USED", "BOOT");
	list_folder(root, "");
	return CLI_OK;
}

int verb_image_delete(void *values, struct cli_args *args)
{
	int status = CLI_OK;

	if (args->count == 0)
		return cli_usage("image", "delete: no NAME given");
	for (int i = 0; i < args->count; i++) {
		struct err err = {0};
		struct image im;
		int fd = -1, rc = image_find(args->words[i], &im, &err);

		if (!rc)
			rc = image_open_disk(im.disk, false, &fd, &err);
		if (!rc)
			rc = image_remove_tree(im.dir, &err);
		if (fd >= 0)
			close(fd);
		if (rc) {
			cli_report(&err, "'skerry image list' shows what there "
					 "is");
			status = CLI_FAILED;
		}
	}
	return status;
}

static int import(const char *file, const char *name, struct err *err)
{
	char root[OS_PATH_MAX], dir[OS_PATH_MAX + 128];
	char part[OS_PATH_MAX + 256], disk[OS_PATH_MAX + 256];
	int rc = image_root(root, err);

	if (rc)
		return rc;
	snprintf(dir, sizeof(dir), "%.3900s/%s", root, name);
	snprintf(part, sizeof(part), "%s/.part-%d", dir, getpid());
	snprintf(disk, sizeof(disk), "%s/disk.raw", dir);
	if (access(disk, F_OK) == 0)
		return err_set(err, -EEXIST, "image '%s' exists already", name);
	rc = os_mkdir_p(dir, 0755, err);
	if (!rc)
		rc = image_copy(file, part, err);
	if (!rc && rename(part, disk))
		rc = err_sys(err, -errno, "rename '%s'", part);
	if (rc) {
		unlink(part);
		rmdir(dir);
	}
	return rc;
}

int verb_image_import(void *values, struct cli_args *args)
{
	struct err err = {0};
	const char *base;
	char name[101];

	if (args->count < 1 || args->count > 2)
		return cli_usage("image", "use: image import FILE [NAME]");
	base = strrchr(args->words[0], '/');
	base = base ? base + 1 : args->words[0];
	if (args->count == 2)
		snprintf(name, sizeof(name), "%s", args->words[1]);
	else
		snprintf(name, sizeof(name), "%.*s",
			 (int)MIN(strcspn(base, "."), 99), base);
	if (!image_name_is_valid(name))
		return cli_usage("image", "import: that is no image name");
	if (import(args->words[0], name, &err)) {
		cli_report(&err, NULL);
		return CLI_FAILED;
	}
	printf("%s\n", name);
	return CLI_OK;
}
