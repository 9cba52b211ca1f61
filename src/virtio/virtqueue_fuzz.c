/* SPDX-License-Identifier: Apache-2.0 */
/* Ring memory is the input: whatever it holds, each pop ends, and each
 * segment lies in RAM (AddressSanitizer checks the accesses). */
#include "virtio/testring.h"
#include "virtio/virtqueue.h"

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t len);

#define FUZZ_BASE 0x1000
#define FUZZ_SIZE 16

static void chain_use(struct virtq_chain *c)
{
	u64 readable = 0, writable = 0;

	for (int i = 0; i < c->readable_count; i++) {
		const u8 *p = c->iov[i].iov_base;

		readable += c->iov[i].iov_len;
		ASSERT(c->iov[i].iov_len);
		__asm__ volatile("" : : "r"(p[0] + p[c->iov[i].iov_len - 1]));
	}
	for (int i = 0; i < c->writable_count; i++) {
		const struct iovec *v = &virtq_chain_writable(c)[i];
		u8 *p = v->iov_base;

		writable += v->iov_len;
		p[0] ^= 1;
		p[v->iov_len - 1] ^= 2;
	}
	ASSERT(readable == c->readable_bytes);
	ASSERT(writable == c->writable_bytes);
}

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t len)
{
	static struct testram ram;
	static struct virtq_chain c;
	struct testring r;
	struct virtqueue q;

	if (len < 8)
		return 0;
	if (!ram.mem)
		testram_init(&ram);
	testring_init(&r, &ram, FUZZ_BASE, FUZZ_SIZE);
	testring_queue(&r, &q);
	q.has_indirect = bytes[0] & 1;
	q.has_event_idx = bytes[0] & 2;
	q.avail_idx = q.used_idx = ld_le16(bytes + 2);
	memcpy(testram_at(&ram, FUZZ_BASE), bytes + 8, MIN(len - 8, 16384));
	if (bytes[0] & 4) /* let the indices be near often enough */
		testring_set_avail_idx(&r, q.avail_idx + bytes[1] % 20);
	if (bytes[0] & 8) /* and addresses in range */
		for (int i = 0; i < FUZZ_SIZE; i++)
			testram_at(&ram, r.desc)[16 * i + 3] = 0;
	for (int i = 0; i < 64; i++) {
		int rc = virtqueue_pop(&q, &c);

		ASSERT(q.in_flight <= q.size);
		if (rc != 1)
			break;
		chain_use(&c);
		if (bytes[4 + i % 4] >> (i / 16) & 1)
			(void)virtqueue_push(&q, &c, bytes[5] * 97u);
		(void)virtqueue_should_notify(&q);
		(void)virtqueue_kick_enable(&q);
	}
	return 0;
}
