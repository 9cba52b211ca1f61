/* SPDX-License-Identifier: Apache-2.0 */
/* An image of any bytes, opened, checked, repaired, read and written: an error
 * or a result, and nothing outside the file. The input is a list of changes to
 * a sound image: place u24, byte u8; what is left over may be written over
 * the header. */
#include "block/qcow2_memfile.h"

#include "base/log.h"
#include "block/qcow2.h"

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t len);

#define ROOM	   (512 * KIB)
#define DISK_BYTES (256 * KIB)

static void no_op(struct block_request *req, int result)
{
	*(bool *)req->opaque = true;
}

static void io(struct block_node *node, enum block_op op, u64 offset, void *at,
	       u64 len)
{
	bool is_done = false;
	struct iovec iov = {at, len};
	struct block_request req = {.op = op,
				    .offset = offset,
				    .len = len,
				    .iov = &iov,
				    .iov_count = 1,
				    .may_unmap = true,
				    .done = no_op,
				    .opaque = &is_done};

	block_submit(node, &req);
	block_drain(node);
	ASSERT(is_done);
}

static void use(struct loop *loop, struct memfile *m, bool is_read_only,
		bool is_repair)
{
	static u8 buffer[64 * KIB];
	struct block_open how = {.format = "qcow2",
				 .is_read_only = is_read_only,
				 .is_repair = is_repair,
				 .is_alone = true};
	struct qcow2_check check = {0};
	struct block_node *node;
	u64 size;

	if (qcow2_open(loop, &m->node, NULL, &how, &node, NULL))
		return;
	size = block_size_bytes(node);
	if (is_read_only || is_repair)
		(void)qcow2_check(node, is_repair, &check, NULL);
	for (u64 at = 0; at + sizeof(buffer) <= MIN(size, DISK_BYTES);
	     at += sizeof(buffer))
		io(node, BLOCK_READ, at, buffer, sizeof(buffer));
	if (!is_read_only && size >= DISK_BYTES) {
		io(node, BLOCK_WRITE, 1000, buffer, 5000);
		io(node, BLOCK_WRITE, 100000, buffer, 40000);
		io(node, BLOCK_FLUSH, 0, NULL, 0);
		io(node, BLOCK_DISCARD, 65536, NULL, 65536);
		io(node, BLOCK_WRITE_ZEROES, 30000, NULL, 50000);
		io(node, BLOCK_FLUSH, 0, NULL, 0);
		io(node, BLOCK_WRITE, 200000, buffer, 50000);
	}
	block_close(node);
}

/* A sound image with something in it. */
static void sound(struct loop *loop, struct memfile *m, u8 kind)
{
	struct qcow2_create o = {.size_bytes = DISK_BYTES,
				 .cluster_bits = kind & 1 ? 14 : 9,
				 .is_extended = kind & 1,
				 .refcount_bits = kind & 2 ? 64 : 16,
				 .compression_type = kind & 4 ? 1 : 0};

	if (qcow2_create(loop, &m->node, &o, NULL))
		abort();
	use(loop, m, false, false);
}

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t len)
{
	static struct loop *loop;
	struct memfile m;
	size_t at = 1;

	if (!len)
		return 0;
	if (!loop)
		loop = loop_new(NULL);
	log_set_level(LOG_ERROR);
	memfile_init(&m, ROOM);
	sound(loop, &m, bytes[0]);
	for (; at + 4 <= len && at < 1 + 4 * 64; at += 4) {
		u32 place = ld_le32(bytes + at) & 0xffffff;

		m.bytes[place % (place & 1 ? m.node.file_bytes : 112)] =
			bytes[at + 3];
	}
	if (at < len && bytes[0] & 8)
		memcpy(m.bytes, bytes + at, MIN(len - at, 112));
	use(loop, &m, true, false);
	use(loop, &m, false, false);
	use(loop, &m, false, true);
	memfile_fini(&m);
	return 0;
}
