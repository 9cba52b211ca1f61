/* SPDX-License-Identifier: Apache-2.0 */
/* skerry-agent: runs commands in the guest for the host. Static, so that it
 * also runs in an initramfs. See docs/cli.md and api/agent_proto.h.
 *
 * One process per session: a session that fails takes nobody with it. Only
 * the host (CID 2) is served; other guests and guest users are not. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

#include "agent/hello.h"
#include "agent/session.h"
#include "base/log.h"

#define BACKLOG	   64
#define FORK_TRIES 20 /* a tenth of a second apart */

/* Loads the driver, where the kernel has it as a module. */
static void load_vsock(void)
{
	pid_t pid;

	if (access("/sys/module/vmw_vsock_virtio_transport", F_OK) == 0)
		return;
	pid = fork();
	if (pid == 0) {
		setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin", 0);
		execlp("modprobe", "modprobe", "-q",
		       "vmw_vsock_virtio_transport", (char *)NULL);
		_exit(127);
	}
	if (pid > 0)
		waitpid(pid, NULL, 0);
}

static int open_listener(void)
{
	struct sockaddr_vm any = {.svm_family = AF_VSOCK,
				  .svm_cid = VMADDR_CID_ANY,
				  .svm_port = AGENT_PORT};
	int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	if (bind(fd, (struct sockaddr *)&any, sizeof(any)) ||
	    listen(fd, BACKLOG)) {
		int rc = -errno;

		close(fd);
		return rc;
	}
	return fd;
}

/* A guest that is short of processes may have one a moment later. */
static void start_session(int listener, int fd)
{
	pid_t pid;

	for (int i = 0; (pid = fork()) < 0; i++) {
		if (i == FORK_TRIES) {
			session_refuse(fd, -errno, "start a process");
			return;
		}
		usleep(100000);
	}
	if (pid == 0) {
		close(listener);
		_exit(session_serve(fd));
	}
	close(fd);
}

static void serve_one(int listener)
{
	struct sockaddr_vm peer = {0};
	socklen_t len = sizeof(peer);
	int fd =
		accept4(listener, (struct sockaddr *)&peer, &len, SOCK_CLOEXEC);

	if (fd < 0) {
		if (errno != EINTR)
			usleep(100000);
		return;
	}
	if (peer.svm_cid == VMADDR_CID_HOST)
		start_session(listener, fd);
	else
		close(fd);
}

static void fork_ready_notice(int listener)
{
	if (fork() == 0) {
		close(listener);
		hello_send_ready();
		_exit(0);
	}
}

int main(int argc, char **argv)
{
	int listener;

	log_set_prefix("skerry-agent");
	if (argc == 2 && strcmp(argv[1], "--session") == 0)
		return session_serve(0); /* one session on stdin, a socket */
	if (argc != 1) {
		fprintf(stderr, "usage: skerry-agent [--session]\n");
		return 2;
	}
	signal(SIGHUP, SIG_IGN);
	load_vsock();
	for (int i = 0; (listener = open_listener()) < 0; i++) {
		if (i % 60 == 0)
			log_error("listen on vsock port %d: %s", AGENT_PORT,
				  strerror(-listener));
		sleep(1);
	}
	signal(SIGCHLD, SIG_IGN); /* sessions are not waited for */
	fork_ready_notice(listener);
	for (;;)
		serve_one(listener);
}
