/* SPDX-License-Identifier: Apache-2.0 */
/* A disk under a driver that does anything: no request that reaches the node
 * leaves its bounds (testblock asserts them), and none is lost. */
#include "virtio/blk.h"
#include "virtio/testblock.h"
#include "virtio/testfuzz.h"

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t len);

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t len)
{
	static struct testdrv t;
	static struct block_node node;
	struct virtio_blk_config cfg = {.node = &node, .serial = "fuzz"};
	struct virtio_device *v;
	int rc;

	if (len < 9)
		return 0;
	testblock_init(&node, 64 * KIB);
	node.is_read_only = bytes[0] & 1;
	testdrv_init(&t);
	cfg.at = testdrv_attach(&t);
	rc = virtio_blk_new(&cfg, &v, NULL);
	ASSERT(rc == 0);
	testfuzz_run(&t, bytes[0] & 2 ? BIT64(9) : 0, 1, bytes + 1, len - 1);
	block_drain(&node);
	ASSERT(v->async_count == 0);
	testdrv_fini(&t);
	free(node.bytes);
	return 0;
}
