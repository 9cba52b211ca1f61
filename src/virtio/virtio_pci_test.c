/* SPDX-License-Identifier: Apache-2.0 */
/* The transport, driven through configuration space and BARs, with a disk
 * behind it. */
#include "test/test.h"
#include "virtio/blk.h"
#include "virtio/testblock.h"
#include "virtio/testdrv.h"

#define W VIRTQ_DESC_F_WRITE
#define N VIRTQ_DESC_F_NEXT

#define DISK_BYTES (1 * MIB)
#define HDR	   TESTDRV_BUF
#define STATUS	   (TESTDRV_BUF + 0x100)
#define BUFFER	   (TESTDRV_BUF + 0x1000)
#define F_FLUSH	   BIT64(9)
#define F_DISCARD  BIT64(13)
#define F_ZEROES   BIT64(14)

struct rig {
	struct testdrv t;
	struct block_node node;
	struct virtio_device *v;
};

static struct rig *rig_new(bool is_read_only)
{
	struct rig *g = calloc(1, sizeof(*g));
	struct virtio_blk_config cfg = {.serial = "serial-1", .queues = 2};

	testdrv_init(&g->t);
	testblock_init(&g->node, DISK_BYTES);
	g->node.is_read_only = is_read_only;
	cfg.at = testdrv_attach(&g->t);
	cfg.node = &g->node;
	assert_int_equal(virtio_blk_new(&cfg, &g->v, NULL), 0);
	testdrv_probe(&g->t);
	return g;
}

static void rig_free(struct rig *g)
{
	testdrv_fini(&g->t);
	free(g->node.bytes);
	free(g);
}

static int setup(void **state)
{
	*state = rig_new(false);
	return 0;
}

static int setup_ro(void **state)
{
	*state = rig_new(true);
	return 0;
}

static int teardown(void **state)
{
	rig_free(*state);
	return 0;
}

static void start(struct rig *g)
{
	testdrv_start(&g->t, F_FLUSH | F_DISCARD | F_ZEROES, 2, 16);
}

/* Puts a request of up to one buffer into queue 0 and kicks. */
static void submit(struct rig *g, u32 type, u64 sector, u32 len, u16 flags)
{
	struct testring *r = &g->t.rings[0];
	u16 i = (r->avail_idx * 3) % 15;
	u8 *h = testdrv_at(&g->t, HDR);

	st_le32(h, type);
	st_le32(h + 4, 0);
	st_le64(h + 8, sector);
	*testdrv_at(&g->t, STATUS) = 0xee;
	testring_desc(r, i, HDR, 16, N, i + 1);
	testring_desc(r, i + 1, BUFFER, len, flags | N, i + 2);
	testring_desc(r, i + 2, STATUS, 1, W, 0);
	testring_add(r, i);
	testdrv_kick(&g->t, 0);
}

static u8 finish(struct rig *g)
{
	u32 id, len;

	while (testblock_complete(&g->node))
		;
	assert_true(testring_reap(&g->t.rings[0], &id, &len));
	return *testdrv_at(&g->t, STATUS);
}

static u8 request(struct rig *g, u32 type, u64 sector, u32 len, u16 flags)
{
	submit(g, type, sector, len, flags);
	return finish(g);
}

static void function_is_modern_virtio_block(void **state)
{
	struct rig *g = *state;

	assert_int_equal(testdrv_cfg_read(&g->t, 0, 4), 0x10421af4);
	assert_true(g->t.common && g->t.notify && g->t.isr && g->t.config);
	assert_int_equal(testdrv_read(&g->t, g->t.config, 8), 2048);
	assert_int_equal(testdrv_read(&g->t, g->t.common + 0x12, 2), 2);
}

static void written_sectors_read_back(void **state)
{
	struct rig *g = *state;

	start(g);
	memset(testdrv_at(&g->t, BUFFER), 0x5a, 1024);
	assert_int_equal(request(g, 1, 7, 1024, 0), 0);
	assert_int_equal(g->node.bytes[7 * 512], 0x5a);
	memset(testdrv_at(&g->t, BUFFER), 0, 1024);
	assert_int_equal(request(g, 0, 7, 1024, W), 0);
	assert_int_equal(testdrv_at(&g->t, BUFFER)[1023], 0x5a);
	assert_int_equal(g->node.flushes, 0);
	assert_int_equal(request(g, 4, 0, 0, 0), 0);
	assert_int_equal(g->node.flushes, 1);
}

static void write_without_negotiated_flush_is_written_through(void **state)
{
	struct rig *g = *state;

	testdrv_start(&g->t, 0, 1, 16);
	assert_int_equal(request(g, 1, 0, 512, 0), 0);
	assert_int_equal(g->node.flushes, 1);
}

static void hostile_11_header_may_be_cut_into_bytes(void **state)
{
	struct rig *g = *state;
	struct testring *r = &g->t.rings[0];
	u32 id, len;

	testdrv_start(&g->t, F_FLUSH, 1, 64);
	memset(testdrv_at(&g->t, HDR), 0, 16);
	g->node.bytes[0] = 0x77;
	for (u16 i = 0; i < 16; i++)
		testring_desc(r, i, HDR + i, 1, N, i + 1);
	for (u16 i = 16; i < 48; i++)
		testring_desc(r, i, BUFFER + (i - 16) * 16, 16, N | W, i + 1);
	testring_desc(r, 48, STATUS, 1, W, 0);
	testring_add(r, 0);
	testdrv_kick(&g->t, 0);
	block_drain(&g->node);
	assert_true(testring_reap(r, &id, &len));
	assert_int_equal(*testdrv_at(&g->t, STATUS), 0);
	assert_int_equal(*testdrv_at(&g->t, BUFFER), 0x77);
}

static void hostile_11_request_without_status_fails_the_device(void **state)
{
	struct rig *g = *state;

	start(g);
	testring_desc(&g->t.rings[0], 0, HDR, 16, 0, 0);
	testring_add(&g->t.rings[0], 0);
	testdrv_kick(&g->t, 0);
	assert_true(testdrv_needs_reset(&g->t));
	assert_int_equal(testring_used_idx(&g->t.rings[0]), 0);
}

static void hostile_15_wild_kicks_do_nothing(void **state)
{
	struct rig *g = *state;

	testdrv_kick(&g->t, 0); /* before anything */
	testdrv_write(&g->t, g->t.notify + 0xffc, 2, 0xffff);
	testdrv_write(&g->t, g->t.notify, 4, 0x8000ffff);
	testdrv_run(&g->t);
	assert_true(testdrv_negotiate(&g->t, BIT64(32)));
	testdrv_queue(&g->t, 0, 16);
	submit(g, 4, 0, 0, 0); /* before DRIVER_OK */
	assert_int_equal(g->node.submitted, 0);
	testdrv_set_status(&g->t, 0);
	testdrv_kick(&g->t, 0);
	assert_int_equal(g->node.submitted, 0);
	assert_false(testdrv_needs_reset(&g->t));
}

static void hostile_16_reset_waits_for_requests_in_flight(void **state)
{
	struct rig *g = *state;

	start(g);
	submit(g, 0, 0, 512, W);
	assert_int_equal(g->node.submitted, 1);
	testdrv_set_status(&g->t, 0);
	assert_int_not_equal(testdrv_status(&g->t), 0);
	testdrv_set_status(&g->t, 1); /* ignored meanwhile */
	assert_true(testblock_complete(&g->node));
	assert_int_equal(testdrv_status(&g->t), 0);
	assert_int_equal(testring_used_idx(&g->t.rings[0]), 0);
	assert_int_equal(*testdrv_at(&g->t, STATUS), 0xee);
	start(g); /* and the device works again */
	assert_int_equal(request(g, 0, 0, 512, W), 0);
}

static void hostile_16_machine_reset_drains(void **state)
{
	struct rig *g = *state;

	start(g);
	submit(g, 0, 0, 512, W);
	device_list_reset(&g->t.devices);
	assert_true(list_is_empty(&g->node.pending));
	assert_int_equal(testring_used_idx(&g->t.rings[0]), 0);
}

static void hostile_17_addresses_are_fixed_once_enabled(void **state)
{
	struct rig *g = *state;
	gpa_t c = g->t.common;

	start(g);
	testdrv_queue_set(&g->t, 0, 8, 0x40000, 0x41000, 0x42000);
	testdrv_write(&g->t, c + 0x16, 2, 0);
	assert_int_equal(testdrv_read(&g->t, c + 0x20, 4), g->t.rings[0].desc);
	assert_int_equal(testdrv_read(&g->t, c + 0x18, 2), 16);
	testdrv_write(&g->t, c + 0x1c, 2, 0);
	assert_int_equal(testdrv_read(&g->t, c + 0x1c, 2), 1);
	assert_int_equal(request(g, 0, 0, 512, W), 0);
}

static void hostile_6_and_7_bad_queues_need_reset(void **state)
{
	struct rig *g = *state;

	assert_true(testdrv_negotiate(&g->t, BIT64(32)));
	testdrv_queue_set(&g->t, 0, 3, 0x1000, 0x2000, 0x3000);
	testdrv_write(&g->t, g->t.common + 0x1c, 2, 1);
	assert_true(testdrv_needs_reset(&g->t));
	assert_true(testdrv_negotiate(&g->t, BIT64(32)));
	assert_false(testdrv_needs_reset(&g->t));
	testdrv_queue_set(&g->t, 0, 16, 0x1000, 0x2000, ~0xfffull);
	testdrv_write(&g->t, g->t.common + 0x1c, 2, 1);
	assert_true(testdrv_needs_reset(&g->t));
	assert_int_equal(testdrv_read(&g->t, g->t.common + 0x1c, 2), 0);
}

static void hostile_19_unknown_features_are_refused(void **state)
{
	struct rig *g = *state;

	assert_false(testdrv_negotiate(&g->t, BIT64(32) | BIT64(63)));
	assert_false(testdrv_negotiate(&g->t, 0)); /* no VERSION_1 */
	testdrv_set_status(&g->t, 15);
	assert_int_equal(testdrv_status(&g->t) & 12, 0);
	testdrv_write(&g->t, g->t.common, 4, 0xffffffff);
	assert_int_equal(testdrv_read(&g->t, g->t.common + 4, 4), 0);
	testdrv_write(&g->t, g->t.common + 8, 4, 0xffffffff);
	testdrv_write(&g->t, g->t.common + 12, 4, 0xffffffff);
	assert_true(testdrv_negotiate(&g->t, BIT64(32)));
}

static void hostile_20_config_accesses_of_any_size_and_offset(void **state)
{
	struct rig *g = *state;

	for (int off = -8; off <= 8; off++) {
		for (unsigned size = 1; size <= 8; size *= 2) {
			gpa_t at = g->t.config + 60 + off;

			(void)testdrv_read(&g->t, at, size);
			testdrv_write(&g->t, at, size, ~0ull);
		}
	}
	assert_int_equal(testdrv_read(&g->t, g->t.config + 60, 4), 0);
	assert_int_equal(testdrv_read(&g->t, g->t.config, 8), 2048);
}

static void window_set(struct rig *g, u8 bar, u32 off, u32 len)
{
	testdrv_cfg_write(&g->t, g->t.window_cap + 4, 1, bar);
	testdrv_cfg_write(&g->t, g->t.window_cap + 8, 4, off);
	testdrv_cfg_write(&g->t, g->t.window_cap + 12, 4, len);
}

static void window_reaches_the_bar(void **state)
{
	struct rig *g = *state;
	u8 data = g->t.window_cap + 16;

	window_set(g, 0, VIRTIO_PCI_COMMON_OFF + 0x12, 2);
	assert_int_equal(testdrv_cfg_read(&g->t, data, 2), 2);
	window_set(g, 0, VIRTIO_PCI_COMMON_OFF + 0x14, 1);
	testdrv_cfg_write(&g->t, data, 1, 1);
	assert_int_equal(testdrv_status(&g->t), 1);
}

static void hostile_20_window_outside_the_bar_does_nothing(void **state)
{
	static const struct {
		u8 bar;
		u32 off, len;
	} bad[] = {
		{1, 0, 4},	    {0, 0x4000, 4}, {0, 0xfffffffc, 4},
		{0, 0x3ffe, 4},	    {0, 0, 3},	    {0, 0, 0},
		{0, 0, 0xffffffff}, {0, 0x11, 2},   {255, 0x14, 1},
	};
	struct rig *g = *state;
	u8 data = g->t.window_cap + 16;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		window_set(g, bad[i].bar, bad[i].off, bad[i].len);
		testdrv_cfg_write(&g->t, data, 4, 0x01010101);
		(void)testdrv_cfg_read(&g->t, data, 4);
	}
	assert_int_equal(testdrv_status(&g->t), 0);
}

static void hostile_21_dma_at_the_own_bar_fails_the_device(void **state)
{
	struct rig *g = *state;
	struct testring *r = &g->t.rings[0];

	start(g);
	testring_desc(r, 0, HDR, 16, N, 1);
	testring_desc(r, 1, g->t.common, 513, W, 0);
	testring_add(r, 0);
	testdrv_kick(&g->t, 0);
	assert_true(testdrv_needs_reset(&g->t));
}

static void hostile_22_moved_bar_takes_its_doorbells_along(void **state)
{
	struct rig *g = *state;
	gpa_t delta = 0x2000000;
	gpa_t old = g->t.notify;

	start(g);
	testdrv_cfg_write(&g->t, 0x10, 4, (u32)(g->t.bar0 + delta));
	assert_int_equal(testdrv_read(&g->t, g->t.common, 4), 0xffffffff);
	testdrv_probe(&g->t);
	assert_int_equal(g->t.notify, old + delta);
	assert_int_equal(request(g, 0, 0, 512, W), 0);
	/* Over RAM: not mapped, and kicks at the old place do nothing. */
	testdrv_cfg_write(&g->t, 0x10, 4, 0x100000);
	testring_add(&g->t.rings[0], 0);
	testdrv_kick(&g->t, 0);
	assert_int_equal(g->node.submitted, 1);
}

static void no_dma_without_bus_mastering(void **state)
{
	struct rig *g = *state;

	start(g);
	testdrv_cfg_write(&g->t, 4, 2, 2);
	submit(g, 0, 0, 512, W);
	assert_int_equal(g->node.submitted, 0);
	testdrv_cfg_write(&g->t, 4, 2, 6);
	testdrv_run(&g->t);
	assert_int_equal(g->node.submitted, 1);
	assert_int_equal(finish(g), 0);
}

static void intx_is_raised_and_cleared_by_isr(void **state)
{
	struct rig *g = *state;

	start(g);
	assert_int_equal(request(g, 0, 0, 512, W), 0);
	assert_int_equal(g->t.intx_level, 1);
	assert_int_equal(testdrv_read(&g->t, g->t.isr, 1), 1);
	assert_int_equal(g->t.intx_level, 0);
	assert_int_equal(testdrv_read(&g->t, g->t.isr, 1), 0);
}

static void msix_vector_of_the_queue_is_sent(void **state)
{
	struct rig *g = *state;

	testdrv_msix_on(&g->t, 3);
	start(g);
	assert_int_equal(request(g, 0, 0, 512, W), 0);
	assert_int_equal(g->t.msi_count, 1);
	assert_int_equal(g->t.msi_last, 0x41);
	assert_int_equal(g->t.intx_level, 0);
}

static void hostile_23_vector_out_of_range_reads_back_no_vector(void **state)
{
	struct rig *g = *state;
	gpa_t c = g->t.common;

	testdrv_write(&g->t, c + 0x10, 2, 3);
	assert_int_equal(testdrv_read(&g->t, c + 0x10, 2), 0xffff);
	testdrv_write(&g->t, c + 0x10, 2, 2);
	assert_int_equal(testdrv_read(&g->t, c + 0x10, 2), 2);
	testdrv_write(&g->t, c + 0x1a, 2, 0xfffe);
	assert_int_equal(testdrv_read(&g->t, c + 0x1a, 2), 0xffff);
}

static void hostile_24_unplug_with_a_request_in_flight(void **state)
{
	struct rig *g = *state;

	start(g);
	submit(g, 0, 0, 512, W);
	/* teardown frees the device while the request is pending */
}

static void hostile_25_transfers_beyond_the_end_are_errors(void **state)
{
	static const struct {
		u64 sector;
		u32 len;
	} bad[] = {
		{2048, 512},
		{2047, 1024},
		{0, 100},
		{UINT64_MAX, 512},
		{1ull << 55, 512},
		{(1ull << 55) + 1, 512},
		{UINT64_MAX / 512, 512},
	};
	struct rig *g = *state;

	start(g);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(request(g, 0, bad[i].sector, bad[i].len, W),
				 1);
		assert_int_equal(request(g, 1, bad[i].sector, bad[i].len, 0),
				 1);
	}
	assert_int_equal(g->node.submitted, 0);
	assert_int_equal(request(g, 0, 2047, 512, W), 0);
}

static u8 segment(struct rig *g, u32 type, u64 sector, u32 count, u32 flags)
{
	u8 *s = testdrv_at(&g->t, BUFFER);

	st_le64(s, sector);
	st_le32(s + 8, count);
	st_le32(s + 12, flags);
	return request(g, type, 0, 16, 0);
}

static void hostile_25_discard_and_zeroes_check_their_segment(void **state)
{
	struct rig *g = *state;

	start(g);
	memset(g->node.bytes, 1, DISK_BYTES);
	assert_int_equal(segment(g, 11, 0, 0xffffffff, 0), 1);
	assert_int_equal(segment(g, 13, 0, 0xffffffff, 0), 1);
	assert_int_equal(segment(g, 13, UINT64_MAX, 1, 0), 1);
	assert_int_equal(segment(g, 13, 2048, 1, 0), 1);
	assert_int_equal(segment(g, 11, 0, 8, 1), 2);
	assert_int_equal(segment(g, 13, 0, 8, 2), 2);
	assert_int_equal(request(g, 11, 0, 32, 0), 2); /* two segments */
	assert_int_equal(request(g, 11, 0, 8, 0), 2);
	assert_int_equal(g->node.submitted, 0);
	assert_int_equal(segment(g, 13, 1, 2, 1), 0);
	assert_int_equal(g->node.bytes[511], 1);
	assert_int_equal(g->node.bytes[512], 0);
	assert_int_equal(g->node.bytes[1536], 1);
}

static void hostile_25_get_id_into_short_buffers(void **state)
{
	struct rig *g = *state;
	u8 *b = testdrv_at(&g->t, BUFFER);

	start(g);
	memset(b, 0xcc, 32);
	assert_int_equal(request(g, 8, 0, 20, W), 0);
	assert_string_equal((char *)b, "serial-1");
	memset(b, 0xcc, 32);
	assert_int_equal(request(g, 8, 0, 3, W), 0);
	assert_memory_equal(b, "ser\xcc", 4);
	assert_int_equal(request(g, 8, 0, 0, W), 0);
}

static void hostile_25_unknown_type_is_unsupported(void **state)
{
	struct rig *g = *state;

	start(g);
	assert_int_equal(request(g, 0xffffffff, 0, 512, W), 2);
	assert_int_equal(request(g, 2, 0, 512, W), 2);
}

static void hostile_25_read_only_disk_is_not_written(void **state)
{
	struct rig *g = *state;

	testdrv_start(&g->t, F_FLUSH, 1, 16);
	assert_true(testdrv_features(&g->t) & BIT64(5));
	assert_int_equal(request(g, 1, 0, 512, 0), 1);
	assert_int_equal(segment(g, 13, 0, 1, 0), 2);
	assert_int_equal(g->node.submitted, 0);
	assert_int_equal(request(g, 0, 0, 512, W), 0);
}

static void pool_exhaustion_delays_and_loses_nothing(void **state)
{
	struct rig *g = *state;
	struct testring *r = &g->t.rings[0];
	u32 id, len;
	int n = 0;

	testdrv_start(&g->t, F_FLUSH, 1, 256);
	memset(testdrv_at(&g->t, HDR), 0, 16);
	testring_desc(r, 0, HDR, 16, N, 1);
	testring_desc(r, 1, BUFFER, 513, W, 0);
	for (int i = 0; i < 200; i++)
		testring_add(r, 0);
	testdrv_kick(&g->t, 0);
	assert_int_equal(g->node.submitted, 128);
	while (testblock_complete(&g->node))
		;
	assert_int_equal(g->node.submitted, 200);
	while (testring_reap(r, &id, &len))
		n++;
	assert_int_equal(n, 200);
}

static void state_round_trips_with_a_request_in_flight(void **state)
{
	struct rig *g = *state;
	struct rig *other = rig_new(false);
	u32 id, len;

	start(g);
	submit(g, 0, 0, 512, W);
	assert_true(testdrv_round_trip(&g->t, &other->t));
	testdrv_run(&other->t);
	assert_true(testring_reap(&other->t.rings[0], &id, &len));
	other->node.bytes[0] = 0x99;
	assert_int_equal(request(other, 0, 0, 512, W), 0);
	assert_int_equal(*testdrv_at(&other->t, BUFFER), 0x99);
	rig_free(other);
}

static void failed_device_can_be_saved(void **state)
{
	struct rig *g = *state;
	struct rig *other = rig_new(false);

	start(g);
	testring_desc(&g->t.rings[0], 0, HDR, 16, 0, 0);
	testring_add(&g->t.rings[0], 0);
	testdrv_kick(&g->t, 0);
	assert_true(testdrv_round_trip(&g->t, &other->t));
	assert_true(testdrv_needs_reset(&other->t));
	start(other);
	assert_int_equal(request(other, 0, 0, 512, W), 0);
	rig_free(other);
}

#define T(f)	cmocka_unit_test_setup_teardown(f, setup, teardown)
#define T_RO(f) cmocka_unit_test_setup_teardown(f, setup_ro, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(function_is_modern_virtio_block),
		T(written_sectors_read_back),
		T(write_without_negotiated_flush_is_written_through),
		T(hostile_11_header_may_be_cut_into_bytes),
		T(hostile_11_request_without_status_fails_the_device),
		T(hostile_15_wild_kicks_do_nothing),
		T(hostile_16_reset_waits_for_requests_in_flight),
		T(hostile_16_machine_reset_drains),
		T(hostile_17_addresses_are_fixed_once_enabled),
		T(hostile_6_and_7_bad_queues_need_reset),
		T(hostile_19_unknown_features_are_refused),
		T(hostile_20_config_accesses_of_any_size_and_offset),
		T(window_reaches_the_bar),
		T(hostile_20_window_outside_the_bar_does_nothing),
		T(hostile_21_dma_at_the_own_bar_fails_the_device),
		T(hostile_22_moved_bar_takes_its_doorbells_along),
		T(no_dma_without_bus_mastering),
		T(intx_is_raised_and_cleared_by_isr),
		T(msix_vector_of_the_queue_is_sent),
		T(hostile_23_vector_out_of_range_reads_back_no_vector),
		T(hostile_24_unplug_with_a_request_in_flight),
		T(hostile_25_transfers_beyond_the_end_are_errors),
		T(hostile_25_discard_and_zeroes_check_their_segment),
		T(hostile_25_get_id_into_short_buffers),
		T(hostile_25_unknown_type_is_unsupported),
		T_RO(hostile_25_read_only_disk_is_not_written),
		T(pool_exhaustion_delays_and_loses_nothing),
		T(state_round_trips_with_a_request_in_flight),
		T(failed_device_can_be_saved),
	};

	return test_run("virtio_pci", tests);
}
