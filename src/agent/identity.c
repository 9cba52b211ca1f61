/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/identity.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <linux/random.h>

#define HOSTS_BYTES_MAX (64 * KIB)

/* In place of the file, with its mode; a file that is not there stays so. */
static int replace_file(const char *path, const char *text)
{
	char temp[128];
	struct stat st;
	size_t len = strlen(text);
	int fd, rc = 0;

	if (lstat(path, &st) < 0 || !S_ISREG(st.st_mode))
		return 0;
	snprintf(temp, sizeof(temp), "%s.skerry", path);
	unlink(temp);
	fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	if (write(fd, text, len) != (ssize_t)len ||
	    fchmod(fd, st.st_mode & 07777) < 0 ||
	    fchown(fd, st.st_uid, st.st_gid) < 0 || fsync(fd) < 0)
		rc = -errno;
	close(fd);
	if (!rc && rename(temp, path) < 0)
		rc = -errno;
	if (rc)
		unlink(temp);
	return rc;
}

/* The line of 127.0.1.1, which Debian gives to the machine's own name. */
static int replace_in_hosts(const char *name)
{
	char *old = calloc(1, HOSTS_BYTES_MAX + 1), *line, *save = NULL;
	int fd = open("/etc/hosts", O_RDONLY | O_CLOEXEC), rc = 0;
	struct buf text;

	buf_init(&text);
	if (!old || fd < 0 || read(fd, old, HOSTS_BYTES_MAX) < 0)
		rc = fd < 0 && errno == ENOENT ? 1 : -EIO;
	for (line = rc ? NULL : strtok_r(old, "\n", &save); line;
	     line = strtok_r(NULL, "\n", &save)) {
		if (strncmp(line, "127.0.1.1", 9) == 0) {
			buf_append(&text, "127.0.1.1\t", 10);
			buf_append(&text, name, strlen(name));
		} else {
			buf_append(&text, line, strlen(line));
		}
		buf_append_u8(&text, '\n');
	}
	if (rc == 0) {
		buf_append_u8(&text, 0);
		rc = replace_file("/etc/hosts", (char *)text.bytes);
	}
	if (fd >= 0)
		close(fd);
	buf_fini(&text);
	free(old);
	return MIN(rc, 0);
}

static int set_hostname(const struct agent_identity *id)
{
	char text[80];
	int rc, other;

	if (sethostname(id->hostname, strlen(id->hostname)) < 0)
		return -errno;
	snprintf(text, sizeof(text), "%s\n", id->hostname);
	rc = replace_file("/etc/hostname", text);
	other = replace_in_hosts(id->hostname);
	return rc ? rc : other;
}

static int set_machine_id(const struct agent_identity *id)
{
	char text[40];
	int rc;

	snprintf(text, sizeof(text), "%s\n", id->machine_id);
	rc = replace_file("/etc/machine-id", text);
	return rc ? rc : replace_file("/var/lib/dbus/machine-id", text);
}

/* virtio-net takes it while it is up; others want to be down. */
static int set_mac_of(int fd, const char *name, const u8 *mac)
{
	struct ifreq r = {0}, flags = {0};
	int rc;

	snprintf(r.ifr_name, sizeof(r.ifr_name), "%.15s", name);
	r.ifr_hwaddr.sa_family = ARPHRD_ETHER;
	memcpy(r.ifr_hwaddr.sa_data, mac, 6);
	if (ioctl(fd, SIOCSIFHWADDR, &r) == 0)
		return 0;
	if (errno != EBUSY)
		return -errno;
	snprintf(flags.ifr_name, sizeof(flags.ifr_name), "%.15s", name);
	if (ioctl(fd, SIOCGIFFLAGS, &flags) < 0)
		return -errno;
	flags.ifr_flags &= ~IFF_UP;
	ioctl(fd, SIOCSIFFLAGS, &flags);
	rc = ioctl(fd, SIOCSIFHWADDR, &r) < 0 ? -errno : 0;
	flags.ifr_flags |= IFF_UP;
	ioctl(fd, SIOCSIFFLAGS, &flags);
	return rc;
}

/* The first interface that is a device's. */
static int set_mac(const struct agent_identity *id)
{
	static const u8 none[6];
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), rc = -ENODEV;
	DIR *d = opendir("/sys/class/net");
	struct dirent *e;

	if (memcmp(id->mac, none, 6) == 0)
		rc = 0;
	while (rc == -ENODEV && fd >= 0 && d && (e = readdir(d))) {
		char path[320];

		snprintf(path, sizeof(path), "/sys/class/net/%s/device",
			 e->d_name);
		if (e->d_name[0] != '.' && access(path, F_OK) == 0)
			rc = set_mac_of(fd, e->d_name, id->mac);
	}
	if (d)
		closedir(d);
	if (fd >= 0)
		close(fd);
	return rc;
}

static int seed_random(const struct agent_identity *id)
{
	struct {
		int bits, bytes;
		u8 seed[32];
	} more = {256, 32, {0}};
	int fd = open("/dev/urandom", O_WRONLY | O_CLOEXEC), rc = 0;

	memcpy(more.seed, id->seed, 32);
	if (fd < 0 || ioctl(fd, RNDADDENTROPY, &more) < 0 ||
	    ioctl(fd, RNDRESEEDCRNG) < 0)
		rc = -errno;
	if (fd >= 0)
		close(fd);
	unlink("/var/lib/systemd/random-seed");
	return rc;
}

int identity_set(const struct agent_identity *id, struct err *err)
{
	static const struct {
		const char *what;
		int (*fn)(const struct agent_identity *id);
	} steps[] = {{"seed the random numbers", seed_random},
		     {"set the host name", set_hostname},
		     {"set the machine id", set_machine_id},
		     {"set the MAC address", set_mac}};
	int rc = 0;

	for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
		int failed = steps[i].fn(id);

		if (failed && !rc)
			rc = err_sys(err, failed, "%s", steps[i].what);
	}
	return rc;
}
