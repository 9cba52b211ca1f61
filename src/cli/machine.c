/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/machine.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "cli/image.h"

bool machine_name_is_valid(const char *name)
{
	if (!isalnum((u8)name[0]) || strlen(name) > 48)
		return false;
	for (const char *p = name; *p; p++) {
		if (!isalnum((u8)*p) && *p != '-' && *p != '_')
			return false;
	}
	return true;
}

int machine_paths(const char *name, struct machine *out, struct err *err)
{
	char dir[OS_PATH_MAX];
	int rc;

	memset(out, 0, sizeof(*out));
	out->control_fd = out->run_mark_fd = out->data_mark_fd = -1;
	if (!machine_name_is_valid(name))
		return err_set(err, -EINVAL,
			       "'%s' is not a machine name (letters, digits, "
			       "'-' and '_', at most 48)",
			       name);
	snprintf(out->name, sizeof(out->name), "%s", name);
	rc = os_run_dir(dir, err);
	if (rc)
		return rc;
	snprintf(out->run_dir, sizeof(out->run_dir), "%s/%s", dir, name);
	rc = os_data_dir(dir, err);
	if (rc)
		return rc;
	snprintf(out->data_dir, sizeof(out->data_dir), "%s/machines/%s", dir,
		 name);
	return 0;
}

static int socket_address(const struct machine *m, struct sockaddr_un *out,
			  struct err *err)
{
	memset(out, 0, sizeof(*out));
	out->sun_family = AF_UNIX;
	if ((size_t)snprintf(out->sun_path, sizeof(out->sun_path),
			     "%.100s/control.sock",
			     m->run_dir) >= sizeof(out->sun_path) ||
	    strlen(m->run_dir) > 90)
		return err_set(err, -ENAMETOOLONG,
			       "socket path '%s' is too long", m->run_dir);
	return 0;
}

int machine_connect(const char *name, struct machine *out, struct err *err)
{
	struct sockaddr_un a;
	int rc = machine_paths(name, out, err);

	if (!rc)
		rc = socket_address(out, &a, err);
	if (rc)
		return rc;
	if (access(out->run_dir, F_OK) && access(out->data_dir, F_OK)) {
		err_set(err, -ENOENT, "machine '%s' does not exist", name);
		err_set_id(err, "machine.missing");
		return -ENOENT;
	}
	out->control_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (out->control_fd < 0)
		return err_sys(err, -errno, "open control socket");
	if (connect(out->control_fd, (struct sockaddr *)&a, sizeof(a))) {
		rc = errno == ECONNREFUSED || errno == ENOENT ? -ESRCH : -errno;
		close(out->control_fd);
		out->control_fd = -1;
		if (rc != -ESRCH)
			return err_sys(err, rc, "connect to machine '%s'",
				       name);
		err_set(err, rc, "machine '%s' is not running", name);
		err_set_id(err, "machine.stopped");
	}
	return rc;
}

static int each_in(const char *dir, const char *skip_beside,
		   void (*fn)(void *, const char *), void *opaque)
{
	DIR *d = opendir(dir);
	struct dirent *e;

	while (d && (e = readdir(d))) {
		char other[MACHINE_PATH_MAX + 300];

		if (!machine_name_is_valid(e->d_name))
			continue;
		snprintf(other, sizeof(other), "%s/%s",
			 skip_beside ? skip_beside : "", e->d_name);
		if (!skip_beside || access(other, F_OK))
			fn(opaque, e->d_name);
	}
	if (d)
		closedir(d);
	return 0;
}

int machine_each(void (*fn)(void *opaque, const char *name), void *opaque,
		 struct err *err)
{
	char run[OS_PATH_MAX], data[OS_PATH_MAX], kept[OS_PATH_MAX + 16];
	int rc = os_run_dir(run, err);

	if (!rc)
		rc = os_data_dir(data, err);
	if (rc)
		return rc;
	snprintf(kept, sizeof(kept), "%s/machines", data);
	each_in(run, NULL, fn, opaque);
	return each_in(kept, run, fn, opaque);
}

#define MARK "temporary"

int machine_mark(const char *dir, int *out_fd, struct err *err)
{
	char path[MACHINE_PATH_MAX + 32], first[MACHINE_PATH_MAX + 64];
	int fd, rc;

	snprintf(path, sizeof(path), "%s/" MARK, dir);
	snprintf(first, sizeof(first), "%s.%d", path, getpid());
	fd = open(first, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	/* It gets its name when it is locked: nobody sees it without. */
	if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) || rename(first, path)) {
		rc = err_sys(err, -errno, "create '%s'", path);
		unlink(first);
		if (fd >= 0)
			close(fd);
		return rc;
	}
	*out_fd = fd;
	return 0;
}

static bool is_left_behind(const char *dir)
{
	char path[MACHINE_PATH_MAX + 32];
	bool is_free;
	int fd;

	snprintf(path, sizeof(path), "%s/" MARK, dir);
	fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return false;
	is_free = flock(fd, LOCK_EX | LOCK_NB) == 0;
	close(fd);
	return is_free;
}

static void remove_if_stale(void *opaque, const char *name)
{
	struct machine m;
	int rc = machine_connect(name, &m, NULL);

	if (m.control_fd >= 0)
		close(m.control_fd);
	if (rc != -ESRCH)
		return;
	if (is_left_behind(m.data_dir))
		image_remove_tree(m.data_dir, NULL);
	if (is_left_behind(m.run_dir))
		image_remove_tree(m.run_dir, NULL);
}

void machine_remove_stale(void)
{
	machine_each(remove_if_stale, NULL, NULL);
}

void machine_kill(struct machine *m)
{
	if (m->pid > 0)
		kill(m->pid, SIGKILL);
	else
		control_call(m->control_fd, CONTROL_MACHINE_KILL, NULL, NULL, 0,
			     5000, NULL, NULL, NULL, NULL);
}
