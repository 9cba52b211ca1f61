/* SPDX-License-Identifier: Apache-2.0 */
/* Network, console and entropy, driven over PCI. */
#include <sys/socket.h>
#include <unistd.h>

#include "test/test.h"
#include "virtio/console.h"
#include "virtio/net.h"
#include "virtio/rng.h"
#include "virtio/testdrv.h"

#define W VIRTQ_DESC_F_WRITE
#define N VIRTQ_DESC_F_NEXT

#define BUF   TESTDRV_BUF
#define MRG   BIT64(15)
#define CHUNK 0x4000ull

struct rig {
	struct testdrv t;
	struct net_backend backend;
	int sent, resumed;
	size_t sent_bytes;
	u8 sent_last[256];
	struct virtio_device *v;
	struct virtio_console *con;
	char out[64];
	size_t out_bytes, out_room;
};

/* In place of the network library. */
void net_backend_attach(struct net_backend *b, const struct net_client_ops *c,
			void *opaque)
{
	b->client = c;
	b->client_opaque = opaque;
}

static void on_send(struct net_backend *b, const void *frame, size_t len)
{
	struct rig *g = container_of(b, struct rig, backend);

	assert_in_range(len, 14, NET_FRAME_MAX);
	g->sent++;
	g->sent_bytes = len;
	memcpy(g->sent_last, frame, MIN(len, sizeof(g->sent_last)));
}

static void on_resume(struct net_backend *b)
{
	container_of(b, struct rig, backend)->resumed++;
}

static const struct net_backend_ops backend_ops = {
	.name = "test",
	.send = on_send,
	.resume = on_resume,
};

static size_t on_write(void *opaque, const void *bytes, size_t n)
{
	struct rig *g = opaque;
	size_t taken = MIN(n, g->out_room);

	memcpy(g->out + g->out_bytes, bytes, taken);
	g->out_bytes += taken;
	g->out_room -= taken;
	return taken;
}

static struct rig *net_rig(void)
{
	struct rig *g = calloc(1, sizeof(*g));
	struct virtio_net_config cfg = {.mac = {2, 0, 0, 0, 0, 1}};

	testdrv_init(&g->t);
	g->backend.ops = &backend_ops;
	cfg.backend = &g->backend;
	cfg.at = testdrv_attach(&g->t);
	assert_int_equal(virtio_net_new(&cfg, &g->v, NULL), 0);
	return g;
}

static struct rig *console_rig(void)
{
	struct rig *g = calloc(1, sizeof(*g));
	struct virtio_console_config cfg = {
		.columns = 80,
		.rows = 25,
		.write = on_write,
		.opaque = g,
	};

	testdrv_init(&g->t);
	cfg.at = testdrv_attach(&g->t);
	assert_int_equal(virtio_console_new(&cfg, &g->con, NULL), 0);
	return g;
}

static struct rig *rng_rig(void)
{
	struct rig *g = calloc(1, sizeof(*g));
	struct virtio_rng_config cfg;

	testdrv_init(&g->t);
	cfg.at = testdrv_attach(&g->t);
	assert_int_equal(virtio_rng_new(&cfg, &g->v, NULL), 0);
	return g;
}

static void rig_free(struct rig *g)
{
	testdrv_fini(&g->t);
	free(g);
}

static void give(struct rig *g, u16 queue, u16 i, u32 len, u16 flags)
{
	struct testring *r = &g->t.rings[queue];

	testring_desc(r, i, BUF + i * CHUNK, len, flags, 0);
	testring_add(r, i);
	testdrv_kick(&g->t, queue);
}

static bool offer(struct rig *g, const void *frame, size_t len)
{
	struct net_backend *b = &g->backend;

	if (!b->client->can_receive(b->client_opaque))
		return false;
	b->client->receive(b->client_opaque, frame, len);
	return true;
}

static void frame_is_sent_without_its_header(void **state)
{
	struct rig *g = net_rig();

	(void)state;
	testdrv_start(&g->t, MRG, 2, 16);
	memset(testdrv_at(&g->t, BUF), 0xff, 12); /* a mad header: ignored */
	memset(testdrv_at(&g->t, BUF + 12), 0x42, 60);
	give(g, 1, 0, 72, 0);
	assert_int_equal(g->sent, 1);
	assert_int_equal(g->sent_bytes, 60);
	assert_int_equal(g->sent_last[0], 0x42);
	assert_int_equal(testring_used_idx(&g->t.rings[1]), 1);
	rig_free(g);
}

static void hostile_26_frames_of_bad_length_are_dropped(void **state)
{
	static const u32 bad[] = {
		0, 1, 11, 12, 13, 25, 12 + NET_FRAME_MAX + 1, 200000};
	struct rig *g = net_rig();

	(void)state;
	testdrv_start(&g->t, MRG, 2, 16);
	for (u16 i = 0; i < ARRAY_SIZE(bad); i++)
		give(g, 1, i, bad[i], 0);
	assert_int_equal(g->sent, 0);
	assert_int_equal(testring_used_idx(&g->t.rings[1]), ARRAY_SIZE(bad));
	give(g, 1, 9, 12 + NET_FRAME_MAX, 0);
	assert_int_equal(g->sent_bytes, NET_FRAME_MAX);
	assert_false(testdrv_needs_reset(&g->t));
	rig_free(g);
}

static void frame_is_spread_over_merged_buffers(void **state)
{
	struct rig *g = net_rig();
	u8 frame[1000];
	u32 id, len;

	(void)state;
	memset(frame, 0x17, sizeof(frame));
	testdrv_start(&g->t, MRG, 2, 16);
	for (u16 i = 0; i < 3; i++)
		give(g, 0, i, 400, W);
	assert_true(offer(g, frame, sizeof(frame)));
	for (u32 i = 0; i < 3; i++) {
		assert_true(testring_reap(&g->t.rings[0], &id, &len));
		assert_int_equal(id, i);
		assert_int_equal(len, i < 2 ? 400 : 212);
	}
	assert_int_equal(ld_le16(testdrv_at(&g->t, BUF + 10)), 3);
	assert_int_equal(testdrv_at(&g->t, BUF + 2 * CHUNK)[211], 0x17);
	rig_free(g);
}

static void hostile_28_buffers_given_back_one_by_one(void **state)
{
	struct rig *g = net_rig();
	u8 frame[1000] = {0};

	(void)state;
	testdrv_start(&g->t, MRG, 2, 16);
	for (int i = 0; i < 1000; i++)
		assert_false(offer(g, frame, sizeof(frame)));
	give(g, 0, 0, 400, W);
	assert_int_equal(g->resumed, 1);
	assert_true(offer(g, frame, sizeof(frame))); /* it waits inside */
	assert_false(offer(g, frame, sizeof(frame)));
	assert_int_equal(testring_used_idx(&g->t.rings[0]), 0);
	give(g, 0, 1, 400, W);
	assert_int_equal(testring_used_idx(&g->t.rings[0]), 0);
	give(g, 0, 2, 400, W);
	assert_int_equal(testring_used_idx(&g->t.rings[0]), 3);
	assert_int_equal(g->resumed, 2);
	assert_false(offer(g, frame, sizeof(frame)));
	rig_free(g);
}

static void without_merging_too_small_buffers_drop_the_frame(void **state)
{
	struct rig *g = net_rig();
	u8 frame[1000] = {0};

	(void)state;
	testdrv_start(&g->t, 0, 2, 16);
	give(g, 0, 0, 400, W);
	assert_true(offer(g, frame, 1000));
	assert_int_equal(testring_used_idx(&g->t.rings[0]), 0);
	assert_true(offer(g, frame, 300));
	assert_int_equal(testring_used_idx(&g->t.rings[0]), 1);
	assert_int_equal(ld_le16(testdrv_at(&g->t, BUF + 10)), 1);
	rig_free(g);
}

static void link_state_is_told(void **state)
{
	struct rig *g = net_rig();

	(void)state;
	testdrv_start(&g->t, MRG | BIT64(16), 2, 16);
	assert_int_equal(testdrv_read(&g->t, g->t.config + 6, 2), 1);
	virtio_net_set_link(g->v, false);
	assert_int_equal(testdrv_read(&g->t, g->t.config + 6, 2), 0);
	assert_int_equal(testdrv_read(&g->t, g->t.isr, 1), 2);
	rig_free(g);
}

static void net_state_round_trips(void **state)
{
	struct rig *g = net_rig(), *other = net_rig();
	u8 frame[100] = {0};

	(void)state;
	testdrv_start(&g->t, MRG, 2, 16);
	give(g, 0, 0, 400, W);
	assert_true(testdrv_round_trip(&g->t, &other->t));
	testdrv_run(&other->t);
	assert_true(offer(other, frame, 100));
	assert_int_equal(testring_used_idx(&other->t.rings[0]), 1);
	rig_free(g);
	rig_free(other);
}

static void output_waits_for_the_host_and_loses_nothing(void **state)
{
	struct rig *g = console_rig(), *other = console_rig();

	(void)state;
	testdrv_start(&g->t, 1, 2, 16);
	memcpy(testdrv_at(&g->t, BUF), "abcdefgh", 8);
	g->out_room = 3;
	give(g, 1, 0, 8, 0);
	assert_memory_equal(g->out, "abc", 4);
	assert_int_equal(testring_used_idx(&g->t.rings[1]), 0);
	memcpy(testdrv_at(&other->t, BUF), "abcdefgh", 8);
	assert_true(testdrv_round_trip(&g->t, &other->t));
	g->out_room = 60;
	virtio_console_resume(g->con);
	assert_memory_equal(g->out, "abcdefgh", 9);
	assert_int_equal(testring_used_idx(&g->t.rings[1]), 1);
	other->out_room = 60;
	testdrv_run(&other->t);
	assert_memory_equal(other->out, "defgh", 6);
	rig_free(g);
	rig_free(other);
}

static void input_is_taken_as_far_as_there_are_buffers(void **state)
{
	struct rig *g = console_rig();

	(void)state;
	testdrv_start(&g->t, 1, 2, 16);
	assert_int_equal(virtio_console_receive(g->con, "abcdef", 6), 0);
	give(g, 0, 0, 2, W);
	give(g, 0, 1, 2, W);
	assert_int_equal(virtio_console_receive(g->con, "abcdef", 6), 4);
	assert_memory_equal(testdrv_at(&g->t, BUF + CHUNK), "cd", 2);
	rig_free(g);
}

static void console_passes_bytes_through_a_chardev(void **state)
{
	struct rig *g = calloc(1, sizeof(*g));
	struct virtio_console_config cfg = {.columns = 80, .rows = 25};
	struct chardev_port port = {.owns_fds = true};
	int fds[2];
	char b[8] = "";
	u32 id, len;

	(void)state;
	testdrv_init(&g->t);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	cfg.chardev = chardev_new(g->t.loop);
	port.in_fd = port.out_fd = fds[0];
	assert_true(chardev_add_port(cfg.chardev, &port) >= 0);
	cfg.at = testdrv_attach(&g->t);
	assert_int_equal(virtio_console_new(&cfg, &g->con, NULL), 0);
	testdrv_start(&g->t, 1, 2, 16);
	memcpy(testdrv_at(&g->t, BUF), "out", 3);
	give(g, 1, 0, 3, 0);
	assert_int_equal(read(fds[1], b, sizeof(b)), 3);
	assert_memory_equal(b, "out", 3);
	assert_int_equal(write(fds[1], "input", 5), 5);
	testdrv_run(&g->t);
	give(g, 0, 1, 3, W);
	give(g, 0, 2, 8, W);
	assert_true(testring_reap(&g->t.rings[0], &id, &len));
	assert_int_equal(len, 3);
	assert_true(testring_reap(&g->t.rings[0], &id, &len));
	assert_memory_equal(testdrv_at(&g->t, BUF + 2 * CHUNK), "ut", 2);
	device_list_free(&g->t.devices);
	device_list_init(&g->t.devices);
	chardev_free(cfg.chardev);
	close(fds[1]);
	rig_free(g);
}

static void hostile_27_console_input_buffer_without_room(void **state)
{
	struct rig *g = console_rig();

	(void)state;
	testdrv_start(&g->t, 1, 2, 16);
	give(g, 0, 0, 8, 0);
	assert_int_equal(virtio_console_receive(g->con, "ab", 2), 0);
	assert_true(testdrv_needs_reset(&g->t));
	rig_free(g);
}

static void entropy_fills_the_buffer(void **state)
{
	struct rig *g = rng_rig(), *other = rng_rig();
	u8 zero[64] = {0};
	u32 id, len;

	(void)state;
	testdrv_start(&g->t, 0, 1, 16);
	give(g, 0, 0, 64, W);
	assert_true(testring_reap(&g->t.rings[0], &id, &len));
	assert_int_equal(len, 64);
	assert_memory_not_equal(testdrv_at(&g->t, BUF), zero, 64);
	assert_true(testdrv_round_trip(&g->t, &other->t));
	rig_free(g);
	rig_free(other);
}

static void hostile_27_entropy_is_rate_bounded(void **state)
{
	struct rig *g = rng_rig();
	u32 id, len;
	u64 total = 0;

	(void)state;
	testdrv_start(&g->t, 0, 1, 16);
	for (u16 i = 0; i < 16; i++)
		give(g, 0, i, 0x4000, W);
	while (testring_reap(&g->t.rings[0], &id, &len))
		total += len;
	/* At most one period has passed since the start, or two on a slow
	 * day; 256 KiB were asked for. */
	assert_in_range(total, 1, 3 * VIRTIO_RNG_BYTES_PER_PERIOD);
	rig_free(g);
}

#define T(f) cmocka_unit_test(f)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(frame_is_sent_without_its_header),
		T(hostile_26_frames_of_bad_length_are_dropped),
		T(frame_is_spread_over_merged_buffers),
		T(hostile_28_buffers_given_back_one_by_one),
		T(without_merging_too_small_buffers_drop_the_frame),
		T(link_state_is_told),
		T(net_state_round_trips),
		T(output_waits_for_the_host_and_loses_nothing),
		T(input_is_taken_as_far_as_there_are_buffers),
		T(console_passes_bytes_through_a_chardev),
		T(hostile_27_console_input_buffer_without_room),
		T(entropy_fills_the_buffer),
		T(hostile_27_entropy_is_rate_bounded),
	};

	return test_run("virtio_devices", tests);
}
