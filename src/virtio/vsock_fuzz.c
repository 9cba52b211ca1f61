/* SPDX-License-Identifier: Apache-2.0 */
/* vsock under a driver that does anything; the host's ends are echoed to once
 * and closed. The ring of each connection stays within its bounds. */
#include <unistd.h>

#include "virtio/testfuzz.h"
#include "virtio/vsock_int.h"

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t len);

static void on_accept(void *opaque, int fd)
{
	ssize_t n = write(fd, "hello", 5);

	(void)opaque;
	(void)n;
	close(fd);
}

static void check(struct vsock *d)
{
	u32 n = 0;

	for (int i = 0; i < VSOCK_BUCKETS; i++) {
		list_for_each (it, &d->buckets[i]) {
			struct vsock_conn *c =
				list_entry(it, struct vsock_conn, link);

			ASSERT(c->ring_bytes <= VSOCK_BUF_BYTES);
			n++;
		}
	}
	ASSERT(n == d->conn_count && n <= VSOCK_CONNS_MAX);
}

/* A sound header, so that the input only needs to vary the fields. */
static void header_seed(struct testdrv *t)
{
	struct vsock_header h = {
		.src_cid = 3,
		.dst_cid = VSOCK_CID_HOST,
		.src_port = 1,
		.dst_port = 2,
		.type = 1,
		.op = VIRTIO_VSOCK_OP_REQUEST,
		.buf_alloc = 4096,
	};

	for (int i = 0; i < 16; i++) {
		h.op = 1 + i % 7;
		memcpy(testdrv_at(t, TESTDRV_BUF + i * 0x100), &h, sizeof(h));
	}
}

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t len)
{
	static struct testdrv t;
	struct virtio_vsock_config cfg = {.guest_cid = 3};
	struct vsock *d;
	int rc;

	if (len < 9)
		return 0;
	testdrv_init(&t);
	cfg.at = testdrv_attach(&t);
	rc = virtio_vsock_new(&cfg, &d, NULL);
	ASSERT(rc == 0);
	rc = vsock_listen(d, 2, on_accept, NULL);
	ASSERT(rc == 0);
	header_seed(&t);
	testfuzz_run(&t, 0, 3, bytes + 1, len - 1);
	check(d);
	testdrv_fini(&t);
	return 0;
}
