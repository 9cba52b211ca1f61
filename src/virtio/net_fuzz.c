/* SPDX-License-Identifier: Apache-2.0 */
/* A network card under a driver that does anything, while frames arrive. */
#include "virtio/net.h"
#include "virtio/testfuzz.h"

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t len);

void net_backend_attach(struct net_backend *b, const struct net_client_ops *c,
			void *opaque)
{
	b->client = c;
	b->client_opaque = opaque;
}

static void offer(struct net_backend *b, size_t len)
{
	static u8 frame[NET_FRAME_MAX];

	if (b->client->can_receive(b->client_opaque))
		b->client->receive(b->client_opaque, frame, len);
}

static void on_send(struct net_backend *b, const void *frame, size_t len)
{
	ASSERT(len >= 14 && len <= NET_FRAME_MAX);
	offer(b, len); /* from inside, as a NAT answers */
}

static void on_resume(struct net_backend *b)
{
	for (int i = 0; i < 4; i++)
		offer(b, 60u << (2 * i));
}

static const struct net_backend_ops ops = {
	.name = "fuzz",
	.send = on_send,
	.resume = on_resume,
};

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t len)
{
	static struct testdrv t;
	struct net_backend backend = {.ops = &ops};
	struct virtio_net_config cfg = {.backend = &backend};
	struct virtio_device *v;
	int rc;

	if (len < 9)
		return 0;
	testdrv_init(&t);
	cfg.at = testdrv_attach(&t);
	rc = virtio_net_new(&cfg, &v, NULL);
	ASSERT(rc == 0);
	testfuzz_run(&t, bytes[0] & 1 ? BIT64(15) : 0, 2, bytes + 1, len - 1);
	testdrv_fini(&t);
	return 0;
}
