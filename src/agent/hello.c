/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/hello.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

void hello_fill(struct agent_hello *out)
{
	int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	ssize_t n = 0;

	memset(out, 0, sizeof(*out));
	out->version = AGENT_PROTO_VERSION;
	gethostname(out->hostname, sizeof(out->hostname) - 1);
	if (fd >= 0) {
		n = read(fd, out->boot_id, sizeof(out->boot_id) - 1);
		close(fd);
	}
	out->boot_id[n > 0 ? n : 0] = 0;
	out->boot_id[strcspn(out->boot_id, "\n")] = 0;
}

bool hello_send_once(void)
{
	struct sockaddr_vm host = {.svm_family = AF_VSOCK,
				   .svm_cid = VMADDR_CID_HOST,
				   .svm_port = AGENT_READY_PORT};
	struct timeval patience = {.tv_sec = 10};
	int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct agent_hello hello;
	bool is_told = false;
	struct buf b;
	u8 answer[64];

	if (fd < 0)
		return false;
	setsockopt(fd, AF_VSOCK, SO_VM_SOCKETS_CONNECT_TIMEOUT, &patience,
		   sizeof(patience));
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	buf_init(&b);
	hello_fill(&hello);
	agent_hello_append(&b, &hello);
	if (connect(fd, (struct sockaddr *)&host, sizeof(host)) == 0 &&
	    send(fd, b.bytes, b.len, MSG_NOSIGNAL) == (ssize_t)b.len)
		is_told = recv(fd, answer, sizeof(answer), 0) > 0;
	buf_fini(&b);
	close(fd);
	return is_told;
}

void hello_send_ready(void)
{
	while (!hello_send_once())
		sleep(1);
}
