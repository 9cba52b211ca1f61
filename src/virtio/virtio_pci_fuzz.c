/* SPDX-License-Identifier: Apache-2.0 */
/* Any access to configuration space, BARs and the window in it, in any order
 * and size. */
#include "virtio/rng.h"
#include "virtio/testdrv.h"

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t len);

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t len)
{
	static struct testdrv t;
	struct virtio_rng_config cfg;
	struct virtio_device *v;
	int rc;

	if (len < 8)
		return 0;
	testdrv_init(&t);
	cfg.at = testdrv_attach(&t);
	rc = virtio_rng_new(&cfg, &v, NULL);
	ASSERT(rc == 0);
	testdrv_start(&t, 0, 1, 8);
	for (size_t i = 0; i + 8 <= len && i < 8 * 256; i += 8) {
		const u8 *p = bytes + i;
		unsigned size = 1u << (p[1] & 3);
		u16 a = ld_le16(p + 2);
		u32 b = ld_le32(p + 4);
		gpa_t bar = p[0] & 0x10 ? t.bar1 + a % 0x1000
					: t.bar0 + a % VIRTIO_PCI_BAR_BYTES;

		if (p[0] & 0x20) /* mostly the common configuration */
			bar = t.common + a % 0x40;
		switch (p[0] % 4) {
		case 0:
			testdrv_cfg_write(&t, a % 256, size > 4 ? 4 : size, b);
			break;
		case 1:
			(void)testdrv_cfg_read(&t, a % 256,
					       size > 4 ? 4 : size);
			break;
		case 2:
			testdrv_write(&t, bar, size, b);
			break;
		default:
			(void)testdrv_read(&t, bar, size);
			break;
		}
		loop_run_once(t.loop, 0);
		ASSERT(v->queues[0].in_flight <= VIRTQ_SIZE_MAX);
	}
	testdrv_fini(&t);
	return 0;
}
