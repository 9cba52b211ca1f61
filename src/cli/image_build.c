/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY: mmdebstrap makes a tar of the root file system from the host's own
 * package sources, with our agent put in; `mke2fs -d` makes a disk of it, so
 * nothing is mounted and no root is needed (fakeroot keeps the owners).
 * Everything happens in DATA/images/.build-PID, which is renamed into place
 * at the end and removed in every other case; what a killed build left is
 * removed by the next one.
 *
 * What is changed in the guest, beside the agent: root logs in without a
 * password on the console; systemd-networkd asks for an address; the
 * initramfs has only the modules that this machine needs; periodic jobs that
 * a slow CPU would notice are off; time limits are long.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "cli/image.h"
#include "cli/image_options.h"
#include "cli/verbs.h"
#include "cli/wait.h"
#include "os/spawn.h"

#define LOG_TAIL 1500
#define ARGS_MAX 64

/* clang-format off */
#define AT(m) offsetof(struct image_build_options, m)
const struct cli_option image_build_options[] = {
	{"suite", CLI_TEXT, AT(suite), "NAME", "Debian suite to build"},
	{"size", CLI_SIZE, AT(size_bytes), "SIZE", "size of the disk (4G)"},
	{"package", CLI_LIST, AT(packages), "NAME", "add a package"},
	{"verbose", CLI_FLAG, AT(verbose), NULL, "show what is being done"},
	{0},
};

static const struct { const char *image, *suite; } suites[] = {
	{"debian/12", "bookworm"},
	{"debian/13", "trixie"},
};
/* clang-format on */

#define PACKAGES                                                               \
	"systemd-sysv,udev,dbus,linux-image-cloud-amd64,initramfs-tools,lz4,"  \
	"iproute2,iputils-ping,kmod,login,passwd,ca-certificates,"             \
	"netbase,procps,less"

/* Before the kernel is installed: what its initramfs will hold. */
static const char early_hook[] =
	"set -e; d=\"$1/etc/initramfs-tools\"\n"
	"mkdir -p \"$d/conf.d\" \"$d/hooks\"\n"
	"printf 'MODULES=list\\nCOMPRESS=lz4\\nRESUME=none\\nFSTYPE=ext4\\n'"
	" >\"$d/conf.d/skerry\"\n"
	"cat >\"$d/hooks/skerry\" <<'END'\n"
	"#!/bin/sh\n"
	"[ \"$1\" = prereqs ] && exit 0\n"
	". /usr/share/initramfs-tools/hook-functions\n"
	"manual_add_modules virtio_pci virtio_blk ext4 crc32c_generic\n"
	"END\n"
	"chmod 755 \"$d/hooks/skerry\"\n";

static const char late_hook[] =
	"set -e; r=\"$1\"; s=\"$r/etc/systemd/system\"\n"
	"chmod 755 \"$r/usr/sbin/skerry-agent\"\n"
	"sed -i 's/^root:[^:]*:/root::/' \"$r/etc/shadow\"\n"
	"echo debian >\"$r/etc/hostname\"\n"
	"printf '127.0.0.1 localhost\\n127.0.1.1 debian\\n' >\"$r/etc/hosts\"\n"
	"echo '/dev/vda / ext4 defaults 0 0' >\"$r/etc/fstab\"\n"
	"rm -f \"$r/etc/resolv.conf\"\n"
	"echo 'nameserver 10.0.2.3' >\"$r/etc/resolv.conf\"\n"
	"rm -f \"$r/etc/apt/apt.conf.d/99mmdebstrap\"\n"
	"mkdir -p \"$r/etc/systemd/network\" \"$r/etc/systemd/system.conf.d\" "
	"\"$r/etc/systemd/journald.conf.d\" \"$s/multi-user.target.wants\" "
	"\"$s/sysinit.target.wants\"\n"
	"printf '[Match]\\nName=en* eth*\\n[Network]\\nDHCP=yes\\n'"
	" >\"$r/etc/systemd/network/80-dhcp.network\"\n"
	"printf '[Manager]\\nDefaultTimeoutStartSec=15min\\n"
	"DefaultDeviceTimeoutSec=15min\\n'"
	" >\"$r/etc/systemd/system.conf.d/skerry.conf\"\n"
	"printf '[Journal]\\nStorage=volatile\\n'"
	" >\"$r/etc/systemd/journald.conf.d/skerry.conf\"\n"
	"ln -sf /lib/systemd/system/systemd-networkd.service "
	"\"$s/multi-user.target.wants/\"\n"
	"for u in apt-daily.timer apt-daily-upgrade.timer man-db.timer "
	"e2scrub_all.timer e2scrub_reap.service fstrim.timer "
	"dpkg-db-backup.timer "
	"systemd-pstore.service systemd-network-generator.service "
	"systemd-networkd-wait-online.service; do\n"
	"ln -sf /dev/null \"$s/$u\"; done\n"
	"cat >\"$s/skerry-agent.service\" <<'END'\n"
	"[Unit]\n"
	"Description=Skerry agent\n"
	"DefaultDependencies=no\n"
	"After=systemd-remount-fs.service systemd-tmpfiles-setup-dev.service\n"
	"[Service]\n"
	"ExecStart=/usr/sbin/skerry-agent\n"
	"Restart=always\n"
	"RestartSec=1\n"
	"KillMode=process\n"
	"OOMPolicy=continue\n"
	"TasksMax=infinity\n"
	"[Install]\n"
	"WantedBy=sysinit.target\n"
	"END\n"
	"ln -sf ../skerry-agent.service \"$s/sysinit.target.wants/\"\n";

/* $1: folder, $2: size in bytes. Under fakeroot where we are not root. */
static const char disk_script[] =
	"set -e; cd \"$1\"\n"
	"mkdir root; tar -C root --numeric-owner --exclude='./dev/*' -xpf "
	"root.tar\n"
	"rm root.tar\n"
	"cp -L root/boot/vmlinuz-* vmlinuz; cp -L root/boot/initrd.img-* "
	"initrd.img\n"
	"truncate -s \"$2\" disk.raw\n"
	"PATH=$PATH:/usr/sbin:/sbin mke2fs -q -F -t ext4 -L root -d root "
	"disk.raw\n"
	"rm -rf root\n";

struct build {
	const struct image_build_options *o;
	const char *name, *suite;
	char root[OS_PATH_MAX];
	char dir[OS_PATH_MAX + 32]; /* .build-PID */
	char log[OS_PATH_MAX + 64];
	int signal_fd;
	int signal; /* that ended it */
	u64 start_ns;
};

void image_build_options_init(void *values)
{
	((struct image_build_options *)values)->size_bytes = 4 * GIB;
}

static void progress(struct build *b, const char *what)
{
	fprintf(stderr, "%s: %s (%llu s)\n", b->name, what,
		(unsigned long long)((clock_mono_ns() - b->start_ns) /
				     NS_PER_SEC));
}

static bool pid_is_alive(const char *text)
{
	int pid = atoi(text);

	return pid > 0 && (kill(pid, 0) == 0 || errno == EPERM);
}

static void remove_stale(const char *root)
{
	DIR *d = opendir(root);
	struct dirent *e;

	while (d && (e = readdir(d))) {
		char path[2 * OS_PATH_MAX];

		if (strncmp(e->d_name, ".build-", 7) != 0 ||
		    pid_is_alive(e->d_name + 7))
			continue;
		snprintf(path, sizeof(path), "%s/%s", root, e->d_name);
		image_remove_tree(path, NULL);
	}
	if (d)
		closedir(d);
}

/* The end of the log, and what it means when that is known. */
static int explain(struct build *b, const char *what, struct err *err)
{
	struct buf log = {0};
	const char *text, *why = NULL;

	os_read_file(b->log, 64 * MIB, &log, NULL);
	text = buf_str(&log);
	if (strstr(text, "No space left on device") ||
	    strstr(text, "Could not allocate block"))
		why = "no space left: free some, or choose another --size";
	else if (strstr(text, "Could not resolve") ||
		 strstr(text, "Temporary failure resolving") ||
		 strstr(text, "Could not connect") ||
		 strstr(text, "Network is unreachable"))
		why = "the package server cannot be reached: check the "
		      "network and /etc/apt/sources.list";
	else if (strstr(text, "Unable to locate package"))
		why = "a --package does not exist";
	if (!why && log.len)
		fprintf(stderr, "%s\n",
			text + (log.len > LOG_TAIL ? log.len - LOG_TAIL : 0));
	buf_fini(&log);
	return err_set(err, -EIO, "build image '%s': %s failed%s%s", b->name,
		       what, why ? ": " : " (its last words are above)",
		       why ? why : "");
}

/* Runs a step in a session of its own, with its output in the log. A signal
 * to us ends the step and everything it started. */
static int run_step(struct build *b, char **argv, const char *what,
		    struct err *err)
{
	int log = open(b->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	int fds[3] = {-1, log, log}, pidfd = -1, sig = 0, rc;
	struct os_spawn how = {.argv = argv,
			       .fds = fds,
			       .fd_count = 3,
			       .new_session = true,
			       .die_with_parent = true};
	pid_t pid;

	if (log < 0)
		return err_sys(err, -errno, "create '%s'", b->log);
	if (b->o->verbose)
		fds[1] = fds[2] = 2;
	progress(b, what);
	rc = os_spawn(&how, &pid, &pidfd, err);
	close(log);
	if (rc)
		return err_wrap(err, "%s", what);
	for (;;) {
		struct pollfd p[2] = {{pidfd, POLLIN, 0},
				      {b->signal_fd, POLLIN, 0}};

		poll(p, 2, -1);
		if (p[1].revents)
			sig = signals_take(b->signal_fd);
		if (sig && sig != SIGWINCH)
			kill(-pid, SIGTERM);
		if (p[0].revents)
			break;
	}
	close(pidfd);
	rc = os_wait(pid);
	if (sig && sig != SIGWINCH) {
		kill(-pid, SIGKILL);
		b->signal = sig;
		return err_set(err, -EINTR, "build of '%s' interrupted",
			       b->name);
	}
	return rc ? explain(b, what, err) : 0;
}

/* The first URI of the host's apt sources whose path ends in suffix; false when
 * there is none. */
static bool find_mirror(const char *suffix, char *out, size_t cap)
{
	char command[512];
	FILE *f;

	snprintf(command, sizeof(command),
		 "cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list "
		 "/etc/apt/sources.list.d/*.sources 2>/dev/null | "
		 "grep -v '^ *#' | grep -oE '(https?|file|ftp)://[^ ]*%s/?"
		 "( |$)' | head -n1 | tr -d ' '",
		 suffix);
	f = popen(command, "re");
	out[0] = 0;
	if (f && fgets(out, cap, f))
		out[strcspn(out, "\n")] = 0;
	if (f)
		pclose(f);
	return out[0];
}

static void find_agent(char *out, size_t cap)
{
	ssize_t n = readlink("/proc/self/exe", out, cap - 32);
	char *slash;

	out[n > 0 ? n : 0] = 0;
	slash = strrchr(out, '/');
	if (slash)
		strcpy(slash, "/skerry-agent");
}

static int make_tar(struct build *b, struct err *err)
{
	char *argv[ARGS_MAX];
	char tar[OS_PATH_MAX + 64], upload[OS_PATH_MAX + 128];
	char agent[OS_PATH_MAX], include[4096], mirror[512], security[512];
	char line[2][700], early[sizeof(early_hook) + 32];
	char late[sizeof(late_hook) + 32];
	bool has_security;
	int n = 0;

	find_agent(agent, sizeof(agent));
	if (access(agent, R_OK))
		return err_sys(err, -errno, "open agent '%s'", agent);
	if (!find_mirror("/debian", mirror, sizeof(mirror)))
		return err_set(err, -ENOENT,
			       "no source of Debian's packages in /etc/apt: add "
			       "one whose path ends in '/debian'");
	snprintf(line[0], sizeof(line[0]), "deb %s %s main", mirror, b->suite);
	has_security =
		find_mirror("/debian-security", security, sizeof(security));
	if (has_security)
		snprintf(line[1], sizeof(line[1]), "deb %s %s-security main",
			 security, b->suite);
	snprintf(tar, sizeof(tar), "%s/root.tar", b->dir);
	snprintf(upload, sizeof(upload),
		 "--customize-hook=upload %s /usr/sbin/skerry-agent", agent);
	snprintf(early, sizeof(early), "--essential-hook=%s", early_hook);
	snprintf(late, sizeof(late), "--customize-hook=%s", late_hook);
	snprintf(include, sizeof(include), "--include=" PACKAGES);
	for (u32 i = 0; i < b->o->packages.count; i++) {
		size_t at = strlen(include);

		snprintf(include + at, sizeof(include) - at, ",%s",
			 b->o->packages.items[i]);
	}
	argv[n++] = "mmdebstrap";
	argv[n++] = "--variant=minbase";
	argv[n++] = "--architectures=amd64";
	argv[n++] = "--aptopt=Acquire::Check-Valid-Until \"false\"";
	argv[n++] = "--aptopt=Acquire::Retries \"2\"";
	argv[n++] = "--aptopt=APT::Install-Recommends \"false\"";
	argv[n++] = "--dpkgopt=path-exclude=/usr/share/doc/*";
	argv[n++] = "--dpkgopt=path-exclude=/usr/share/man/*";
	argv[n++] = "--dpkgopt=path-exclude=/usr/share/locale/*";
	argv[n++] = include;
	argv[n++] = early;
	argv[n++] = upload;
	argv[n++] = late;
	argv[n++] = (char *)b->suite;
	argv[n++] = tar;
	argv[n++] = line[0];
	if (has_security && strcmp(b->suite, "sid") != 0)
		argv[n++] = line[1];
	argv[n] = NULL;
	return run_step(b, argv, "installing packages", err);
}

static int make_disk(struct build *b, struct err *err)
{
	char size[32];
	char *argv[] = {"fakeroot", "sh",   "-c", (char *)disk_script,
			"sh",	    b->dir, size, NULL};

	snprintf(size, sizeof(size), "%llu",
		 (unsigned long long)b->o->size_bytes);
	return run_step(b, geteuid() == 0 ? argv + 1 : argv, "making the disk",
			err);
}

static int write_metadata(struct build *b, struct err *err)
{
	char path[OS_PATH_MAX + 64];
	struct buf text = {0};
	int rc;

	snprintf(path, sizeof(path), "%s/image.json", b->dir);
	buf_printf(&text,
		   "{\"name\": \"%s\", \"suite\": \"%s\", \"format\": \"raw\", "
		   "\"built\": %llu}\n",
		   b->name, b->suite,
		   (unsigned long long)(clock_wall_ns() / NS_PER_SEC));
	rc = os_write_file(path, text.bytes, text.len, 0644, err);
	buf_fini(&text);
	return rc;
}

/* Puts the folder in its place; an older image of that name goes away. */
static int publish(struct build *b, struct err *err)
{
	char final[OS_PATH_MAX + 128];
	char *slash;

	snprintf(final, sizeof(final), "%s/%s", b->root, b->name);
	slash = strrchr(final, '/');
	*slash = 0;
	if (os_mkdir_p(final, 0755, err))
		return err->code;
	*slash = '/';
	unlink(b->log);
	if (rename(b->dir, final) == 0)
		return 0;
	if (errno != ENOTEMPTY && errno != EEXIST)
		return err_sys(err, -errno, "rename '%s'", b->dir);
	if (syscall(SYS_renameat2, AT_FDCWD, b->dir, AT_FDCWD, final, 2))
		return err_sys(err, -errno, "exchange '%s'", final);
	return image_remove_tree(b->dir, err);
}

static int build(struct build *b, struct err *err)
{
	int rc = image_root(b->root, err);

	if (rc)
		return rc;
	remove_stale(b->root);
	snprintf(b->dir, sizeof(b->dir), "%.4000s/.build-%d", b->root,
		 getpid());
	snprintf(b->log, sizeof(b->log), "%s/log", b->dir);
	/* mmdebstrap's unprivileged user must be able to write the tar. */
	rc = os_mkdir_p(b->dir, 0755, err);
	if (!rc)
		rc = make_tar(b, err);
	if (!rc)
		rc = make_disk(b, err);
	if (!rc)
		rc = write_metadata(b, err);
	if (!rc)
		rc = publish(b, err);
	if (rc)
		image_remove_tree(b->dir, NULL);
	return rc;
}

int verb_image_build(void *values, struct cli_args *args)
{
	struct image_build_options *o = values;
	struct build b = {.o = o, .suite = o->suite};
	struct err err = {0};

	if (args->count != 1)
		return cli_usage("image", "build: one NAME is needed "
					  "(debian/12, debian/13)");
	b.name = args->words[0];
	for (size_t i = 0; !b.suite && i < ARRAY_SIZE(suites); i++) {
		if (strcmp(suites[i].image, b.name) == 0)
			b.suite = suites[i].suite;
	}
	if (!b.suite || !image_name_is_valid(b.name))
		return cli_usage("image", "build: known are debian/12 and "
					  "debian/13; others need --suite");
	if (strspn(b.suite, "abcdefghijklmnopqrstuvwxyz-") != strlen(b.suite))
		return cli_usage("image", "build: that is no suite");
	if (o->size_bytes < GIB || o->size_bytes % 4096)
		return cli_usage("image", "build: --size must be 1G or more");
	b.signal_fd = signals_open();
	b.start_ns = clock_mono_ns();
	if (build(&b, &err)) {
		cli_report(&err, NULL);
		return b.signal ? 128 + b.signal : CLI_FAILED;
	}
	progress(&b, "ready");
	return CLI_OK;
}
