/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <pthread.h>

#include "base/clock.h"
#include "test/test.h"
#include "virtio/testring.h"
#include "virtio/virtqueue.h"

#define N VIRTQ_DESC_F_NEXT
#define W VIRTQ_DESC_F_WRITE
#define I VIRTQ_DESC_F_INDIRECT

struct rig {
	struct testram ram;
	struct testring r;
	struct virtqueue q;
	struct virtq_chain c;
};

#define RING	 0x1000
#define BUF	 0x20000
#define RINGSIZE 8

static int setup(void **state)
{
	struct rig *t = calloc(1, sizeof(*t));

	testram_init(&t->ram);
	testring_init(&t->r, &t->ram, RING, RINGSIZE);
	testring_queue(&t->r, &t->q);
	*state = t;
	return 0;
}

static int teardown(void **state)
{
	struct rig *t = *state;

	testram_fini(&t->ram);
	free(t);
	return 0;
}

static void assert_breaks(struct rig *t)
{
	assert_int_equal(virtqueue_pop(&t->q, &t->c), -EIO);
	assert_true(t->q.is_broken);
	assert_int_equal(virtqueue_pop(&t->q, &t->c), -EIO);
	assert_int_equal(testring_used_idx(&t->r), 0);
}

static void chain_separates_readable_from_writable(void **state)
{
	struct rig *t = *state;
	u32 id, len;

	testring_desc(&t->r, 3, BUF, 10, N, 5);
	testring_desc(&t->r, 5, BUF + 100, 20, N | W, 1);
	testring_desc(&t->r, 1, BUF + 200, 30, W, 0);
	testring_add(&t->r, 3);
	assert_int_equal(virtqueue_pop(&t->q, &t->c), 1);
	assert_int_equal(t->c.readable_count, 1);
	assert_int_equal(t->c.readable_bytes, 10);
	assert_int_equal(t->c.writable_count, 2);
	assert_int_equal(t->c.writable_bytes, 50);
	assert_ptr_equal(t->c.iov[0].iov_base, testram_at(&t->ram, BUF));
	assert_int_equal(virtqueue_pop(&t->q, &t->c), 0);
	t->c.head = 3;
	assert_int_equal(virtqueue_push(&t->q, &t->c, 25), 0);
	assert_true(testring_reap(&t->r, &id, &len));
	assert_int_equal(id, 3);
	assert_int_equal(len, 25);
	assert_false(testring_reap(&t->r, &id, &len));
}

static void buffer_across_slots_becomes_two_segments(void **state)
{
	struct rig *t = *state;

	testring_desc(&t->r, 0, TESTRAM_BORDER - 16, 48, W, 0);
	testring_add(&t->r, 0);
	assert_int_equal(virtqueue_pop(&t->q, &t->c), 1);
	assert_int_equal(t->c.writable_count, 2);
	assert_int_equal(t->c.iov[0].iov_len, 16);
	assert_int_equal(t->c.iov[1].iov_len, 32);
	assert_ptr_equal(t->c.iov[1].iov_base, t->ram.host[1]);
}

static void written_is_clamped_to_the_writable_part(void **state)
{
	struct rig *t = *state;
	u32 id, len;

	testring_desc(&t->r, 0, BUF, 8, W, 0);
	testring_add(&t->r, 0);
	assert_int_equal(virtqueue_pop(&t->q, &t->c), 1);
	assert_int_equal(virtqueue_push(&t->q, &t->c, 1ull << 40), 0);
	assert_true(testring_reap(&t->r, &id, &len));
	assert_int_equal(len, 8);
}

static void hostile_1_loops_break_the_queue(void **state)
{
	struct rig *t = *state;

	testring_desc(&t->r, 0, BUF, 1, N, 0);
	testring_add(&t->r, 0);
	assert_breaks(t);
}

static void hostile_1_two_cycles_break_the_queue(void **state)
{
	struct rig *t = *state;

	testring_desc(&t->r, 0, BUF, 1, N, 1);
	testring_desc(&t->r, 1, BUF, 1, N, 0);
	testring_add(&t->r, 0);
	assert_breaks(t);
}

static void hostile_2_chain_as_long_as_the_queue_is_the_limit(void **state)
{
	struct rig *t = *state;

	for (u16 i = 0; i < RINGSIZE; i++)
		testring_desc(&t->r, i, BUF, 1, i < RINGSIZE - 1 ? N : 0,
			      i + 1);
	testring_add(&t->r, 0);
	assert_int_equal(virtqueue_pop(&t->q, &t->c), 1);
	assert_int_equal(t->c.readable_bytes, RINGSIZE);
	testring_desc(&t->r, RINGSIZE - 1, BUF, 1, N, 0);
	testring_add(&t->r, 0);
	assert_int_equal(virtqueue_pop(&t->q, &t->c), -EIO);
}

static void hostile_3_next_out_of_range_breaks_the_queue(void **state)
{
	struct rig *t = *state;

	testring_desc(&t->r, 0, BUF, 1, N, RINGSIZE);
	testring_add(&t->r, 0);
	assert_breaks(t);
}

static void hostile_4_head_out_of_range_breaks_the_queue(void **state)
{
	struct rig *t = *state;

	testring_add(&t->r, RINGSIZE);
	assert_breaks(t);
}

static void hostile_5_avail_index_jumps_break_the_queue(void **state)
{
	static const u16 jumps[] = {RINGSIZE + 1, 32768, 0xffff};
	struct rig *t = *state;

	for (size_t i = 0; i < ARRAY_SIZE(jumps); i++) {
		testring_init(&t->r, &t->ram, RING, RINGSIZE);
		testring_queue(&t->r, &t->q);
		testring_set_avail_idx(&t->r, jumps[i]);
		assert_breaks(t);
	}
}

static void hostile_6_bad_sizes_are_refused(void **state)
{
	static const u16 sizes[] = {0, 3, 2 * VIRTQ_SIZE_MAX, 0x8000, 0xffff};
	struct rig *t = *state;

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		virtqueue_reset(&t->q);
		t->q.desc = t->r.desc;
		t->q.avail = t->r.avail;
		t->q.used = t->r.used;
		t->q.size = sizes[i];
		assert_int_equal(virtqueue_enable(&t->q), -EINVAL);
		assert_false(t->q.is_ready);
		assert_int_equal(virtqueue_pop(&t->q, &t->c), -EIO);
	}
}

static void hostile_7_bad_ring_addresses_are_refused(void **state)
{
	static const gpa_t bad[] = {
		0,
		RING + 1,
		TESTRAM_BYTES,
		TESTRAM_BYTES - 16,
		TESTRAM_BORDER - 16,
		3 * MIB,
		UINT64_MAX & ~15ull,
		UINT64_MAX - 0xfff,
	};
	struct rig *t = *state;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		for (int which = 0; which < 3; which++) {
			virtqueue_reset(&t->q);
			t->q.size = RINGSIZE;
			t->q.desc = which == 0 ? bad[i] : t->r.desc;
			t->q.avail = which == 1 ? bad[i] : t->r.avail;
			t->q.used = which == 2 ? bad[i] : t->r.used;
			assert_int_equal(virtqueue_enable(&t->q), -EINVAL);
		}
	}
}

static void hostile_7_used_ring_in_rom_is_refused(void **state)
{
	struct rig *t = *state;

	virtqueue_reset(&t->q);
	t->q.size = RINGSIZE;
	t->q.desc = t->r.desc;
	t->q.avail = t->r.avail;
	t->q.used = TESTRAM_ROM;
	assert_int_equal(virtqueue_enable(&t->q), -EINVAL);
}

static void hostile_8_address_wrap_breaks_the_queue(void **state)
{
	struct rig *t = *state;

	testring_desc(&t->r, 0, UINT64_MAX - 3, 8, 0, 0);
	testring_add(&t->r, 0);
	assert_breaks(t);
}

static void hostile_9_empty_buffers_make_no_segment(void **state)
{
	struct rig *t = *state;

	testring_desc(&t->r, 0, UINT64_MAX, 0, N, 1);
	testring_desc(&t->r, 1, BUF, 4, 0, 0);
	testring_add(&t->r, 0);
	assert_int_equal(virtqueue_pop(&t->q, &t->c), 1);
	assert_int_equal(t->c.readable_count, 1);
}

static void hostile_9_buffer_of_4_gib_breaks_the_queue(void **state)
{
	struct rig *t = *state;

	testring_desc(&t->r, 0, BUF, 0xffffffff, 0, 0);
	testring_add(&t->r, 0);
	assert_breaks(t);
}

/* The same megabyte 8 * 256 times is more than 32 bits can count; segments
 * bound it first, and the totals are 64 bits wide. */
static void hostile_9_sums_are_64_bits_wide(void **state)
{
	struct rig *t = *state;
	u8 *table = testram_at(&t->ram, BUF);

	t->q.has_indirect = true;
	for (int i = 0; i < VIRTQ_SEGMENTS_MAX; i++) {
		st_le64(table + 16 * i, TESTRAM_BORDER);
		st_le32(table + 16 * i + 8, MIB);
		st_le16(table + 16 * i + 12,
			i < VIRTQ_SEGMENTS_MAX - 1 ? N : 0);
		st_le16(table + 16 * i + 14, i + 1);
	}
	testring_desc(&t->r, 0, BUF, VIRTQ_SEGMENTS_MAX * 16, I, 0);
	testring_add(&t->r, 0);
	assert_int_equal(virtqueue_pop(&t->q, &t->c), 1);
	assert_int_equal(t->c.readable_bytes, VIRTQ_SEGMENTS_MAX * MIB);
}

static void indirect_table_is_followed(void **state)
{
	struct rig *t = *state;
	u8 *table = testram_at(&t->ram, BUF + 1); /* any alignment */

	t->q.has_indirect = true;
	st_le64(table, BUF + 0x100);
	st_le32(table + 8, 4);
	st_le16(table + 12, N);
	st_le16(table + 14, 1);
	st_le64(table + 16, BUF + 0x200);
	st_le32(table + 24, 5);
	st_le16(table + 28, W);
	testring_desc(&t->r, 0, BUF + 0x300, 3, N, 1);
	testring_desc(&t->r, 1, BUF + 1, 32, I | W, 0);
	testring_add(&t->r, 0);
	assert_int_equal(virtqueue_pop(&t->q, &t->c), 1);
	assert_int_equal(t->c.readable_bytes, 7);
	assert_int_equal(t->c.writable_bytes, 5);
}

static void hostile_10_bad_indirect_tables_break_the_queue(void **state)
{
	static const struct {
		u64 addr;
		u32 len;
		u16 flags;
		bool is_negotiated;
	} bad[] = {
		{BUF, 16, I, false},	    {BUF, 0, I, true},
		{BUF, 24, I, true},	    {BUF, 64 * 1024 + 16, I, true},
		{BUF, 0xfffffff0, I, true}, {TESTRAM_BYTES - 16, 32, I, true},
		{3 * MIB, 16, I, true},	    {UINT64_MAX - 15, 32, I, true},
		{BUF, 16, I | N, true},
	};
	struct rig *t = *state;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		testring_init(&t->r, &t->ram, RING, RINGSIZE);
		testring_queue(&t->r, &t->q);
		t->q.has_indirect = bad[i].is_negotiated;
		testring_desc(&t->r, 0, bad[i].addr, bad[i].len, bad[i].flags,
			      1);
		testring_add(&t->r, 0);
		assert_breaks(t);
	}
}

static void hostile_10_indirect_in_indirect_breaks_the_queue(void **state)
{
	struct rig *t = *state;
	u8 *table = testram_at(&t->ram, BUF);

	t->q.has_indirect = true;
	st_le64(table, BUF);
	st_le32(table + 8, 16);
	st_le16(table + 12, I);
	testring_desc(&t->r, 0, BUF, 16, I, 0);
	testring_add(&t->r, 0);
	assert_breaks(t);
}

static void hostile_11_writable_before_readable_breaks_the_queue(void **state)
{
	struct rig *t = *state;

	testring_desc(&t->r, 0, BUF, 4, N | W, 1);
	testring_desc(&t->r, 1, BUF, 4, 0, 0);
	testring_add(&t->r, 0);
	assert_breaks(t);
}

/* Another vCPU rewrites descriptors and indirect table while chains are
 * taken: whatever comes out lies in RAM. */
struct racer {
	struct rig *t;
	atomic_bool stop;
};

static void *racer_run(void *arg)
{
	struct racer *racer = arg;
	struct testring *r = &racer->t->r;
	u8 *table = testram_at(&racer->t->ram, BUF);
	u64 x = 1;

	while (!atomic_load(&racer->stop)) {
		x = x * 6364136223846793005ull + 1442695040888963407ull;
		testring_desc(r, 1, x & BIT64(40) ? BUF : x, (u32)(x >> 50),
			      (x >> 33) & 3, (x >> 60) & 3);
		st_le64(table, x & BIT64(41) ? BUF : x);
		st_le32(table + 8, (u32)(x >> 48));
		st_le16(table + 12, (x >> 35) & 7);
	}
	return NULL;
}

static bool segment_is_ram(struct rig *t, const struct iovec *v)
{
	u8 *p = v->iov_base;

	for (int i = 0; i < 3; i++) {
		u64 size = i < 2 ? MIB : TESTRAM_ROM_BYTES;

		if (p >= t->ram.host[i] &&
		    p + v->iov_len <= t->ram.host[i] + size)
			return true;
	}
	return false;
}

static void hostile_12_racing_vcpu_never_widens_a_chain(void **state)
{
	struct rig *t = *state;
	struct racer racer = {.t = t};
	u64 end = clock_mono_ns() + NS_PER_SEC;
	u64 good = 0, broken = 0;
	pthread_t thread;

	t->q.has_indirect = true;
	testring_desc(&t->r, 0, BUF, 8, N, 1);
	testring_desc(&t->r, 2, BUF, 16, I, 0);
	testring_desc(&t->r, 3, BUF, 16, W, 0);
	assert_int_equal(pthread_create(&thread, NULL, racer_run, &racer), 0);
	while (clock_mono_ns() < end) {
		testring_add(&t->r, 0);
		if (virtqueue_pop(&t->q, &t->c) == 1) {
			good++;
			for (int i = 0;
			     i < t->c.readable_count + t->c.writable_count; i++)
				if (!segment_is_ram(t, &t->c.iov[i]))
					fail_msg("segment outside RAM");
			assert_int_equal(virtqueue_push(&t->q, &t->c, 0), 0);
		} else {
			broken++;
			testring_queue(&t->r, &t->q);
			t->q.has_indirect = true;
			t->q.avail_idx = t->r.avail_idx;
			t->q.used_idx = t->r.avail_idx;
		}
	}
	atomic_store(&racer.stop, true);
	pthread_join(thread, NULL);
	assert_true(good > 0);
	assert_true(broken > 0);
}

static void hostile_13_used_ring_over_the_descriptors_is_harmless(void **state)
{
	struct rig *t = *state;

	virtqueue_reset(&t->q);
	t->q.size = RINGSIZE;
	t->q.desc = t->r.desc;
	t->q.avail = t->r.avail;
	t->q.used = t->r.desc;
	assert_int_equal(virtqueue_enable(&t->q), 0);
	testring_desc(&t->r, 0, BUF, 4, W, 0);
	testring_add(&t->r, 0);
	assert_int_equal(virtqueue_pop(&t->q, &t->c), 1);
	assert_int_equal(virtqueue_push(&t->q, &t->c, 4), 0);
	for (int i = 0; i < 100 && !t->q.is_broken; i++) {
		testring_add(&t->r, 0);
		if (virtqueue_pop(&t->q, &t->c) == 1)
			(void)virtqueue_push(&t->q, &t->c, 4);
	}
}

static void hostile_14_two_queues_on_one_ring_do_not_interfere(void **state)
{
	struct rig *t = *state;
	struct virtqueue other;
	struct virtq_chain *c = calloc(1, sizeof(*c));

	testring_queue(&t->r, &other);
	testring_desc(&t->r, 0, BUF, 4, W, 0);
	testring_add(&t->r, 0);
	assert_int_equal(virtqueue_pop(&t->q, &t->c), 1);
	assert_int_equal(virtqueue_pop(&other, c), 1);
	assert_int_equal(virtqueue_push(&t->q, &t->c, 4), 0);
	assert_int_equal(virtqueue_push(&other, c, 4), 0);
	assert_int_equal(testring_used_idx(&t->r), 1);
	free(c);
}

static void hostile_18_chains_in_flight_are_bounded(void **state)
{
	struct rig *t = *state;

	testring_desc(&t->r, 0, BUF, 4, W, 0);
	for (int i = 0; i < RINGSIZE; i++) {
		testring_add(&t->r, 0);
		assert_int_equal(virtqueue_pop(&t->q, &t->c), 1);
	}
	testring_add(&t->r, 0);
	assert_int_equal(virtqueue_pop(&t->q, &t->c), -EIO);
	assert_int_equal(t->q.in_flight, RINGSIZE);
}

static void hostile_21_buffer_on_mmio_is_refused(void **state)
{
	struct rig *t = *state;

	testring_desc(&t->r, 0, 0xfee00000, 4, W, 0);
	testring_add(&t->r, 0);
	assert_breaks(t);
}

static void writable_rom_buffer_is_refused_readable_is_not(void **state)
{
	struct rig *t = *state;

	testring_desc(&t->r, 0, TESTRAM_ROM, 4, 0, 0);
	testring_add(&t->r, 0);
	assert_int_equal(virtqueue_pop(&t->q, &t->c), 1);
	testring_desc(&t->r, 1, TESTRAM_ROM, 4, W, 0);
	testring_add(&t->r, 1);
	assert_int_equal(virtqueue_pop(&t->q, &t->c), -EIO);
}

static void unpopped_chains_come_again(void **state)
{
	struct rig *t = *state;

	testring_desc(&t->r, 2, BUF, 4, W, 0);
	testring_add(&t->r, 2);
	assert_int_equal(virtqueue_pop(&t->q, &t->c), 1);
	virtqueue_unpop(&t->q, 1);
	assert_int_equal(t->q.in_flight, 0);
	t->c.head = 0;
	assert_int_equal(virtqueue_pop(&t->q, &t->c), 1);
	assert_int_equal(t->c.head, 2);
}

static void filled_chains_appear_only_when_published(void **state)
{
	struct rig *t = *state;
	u32 id, len;

	testring_desc(&t->r, 0, BUF, 4, W, 0);
	testring_desc(&t->r, 1, BUF, 4, W, 0);
	for (u16 i = 0; i < 2; i++) {
		testring_add(&t->r, i);
		assert_int_equal(virtqueue_pop(&t->q, &t->c), 1);
		assert_int_equal(virtqueue_fill(&t->q, &t->c, i + 1, i), 0);
	}
	assert_false(testring_reap(&t->r, &id, &len));
	assert_int_equal(virtqueue_publish(&t->q, 2), 0);
	assert_true(testring_reap(&t->r, &id, &len));
	assert_int_equal(id, 0);
	assert_true(testring_reap(&t->r, &id, &len));
	assert_int_equal(id, 1);
	assert_int_equal(len, 2);
}

static void push_one(struct rig *t)
{
	testring_desc(&t->r, 0, BUF, 4, W, 0);
	testring_add(&t->r, 0);
	assert_int_equal(virtqueue_pop(&t->q, &t->c), 1);
	assert_int_equal(virtqueue_push(&t->q, &t->c, 0), 0);
}

static void no_interrupt_flag_silences_calls(void **state)
{
	struct rig *t = *state;

	push_one(t);
	assert_true(virtqueue_should_notify(&t->q));
	testring_set_flags(&t->r, VIRTQ_AVAIL_F_NO_INTERRUPT);
	push_one(t);
	assert_false(virtqueue_should_notify(&t->q));
}

static void used_event_chooses_the_call(void **state)
{
	struct rig *t = *state;

	t->q.has_event_idx = true;
	testring_set_used_event(&t->r, 2);
	push_one(t);
	assert_true(virtqueue_should_notify(&t->q)); /* first: always */
	push_one(t);
	assert_false(virtqueue_should_notify(&t->q));
	push_one(t); /* used.idx becomes 3: entry 2 was asked for */
	assert_true(virtqueue_should_notify(&t->q));
	push_one(t);
	assert_false(virtqueue_should_notify(&t->q));
}

static void kick_suppression_follows_the_negotiation(void **state)
{
	struct rig *t = *state;

	virtqueue_kick_disable(&t->q);
	assert_int_equal(testring_used_flags(&t->r), VIRTQ_USED_F_NO_NOTIFY);
	assert_false(virtqueue_kick_enable(&t->q));
	assert_int_equal(testring_used_flags(&t->r), 0);
	t->q.has_event_idx = true;
	push_one(t);
	testring_add(&t->r, 0);
	assert_true(virtqueue_kick_enable(&t->q));
	assert_int_equal(testring_avail_event(&t->r), 1);
}

static void indices_wrap_at_65536(void **state)
{
	struct rig *t = *state;
	u32 id, len;

	t->q.has_event_idx = true;
	for (int i = 0; i < 70000; i++) {
		testring_set_used_event(&t->r, t->r.used_seen);
		push_one(t);
		assert_true(virtqueue_should_notify(&t->q));
		assert_true(testring_reap(&t->r, &id, &len));
	}
	assert_int_equal(t->q.used_idx, (u16)70000);
}

static void iov_helpers_respect_skip_and_end(void **state)
{
	u8 a[4] = "abcd", b[3] = "efg", out[8];
	struct iovec iov[2] = {{a, 4}, {b, 3}}, part[2];

	(void)state;
	assert_int_equal(iov_to_buf(iov, 2, 3, out, 8), 4);
	assert_memory_equal(out, "defg", 4);
	assert_int_equal(iov_to_buf(iov, 2, 7, out, 1), 0);
	assert_int_equal(buf_to_iov(iov, 2, 2, "XYZ", 3), 3);
	assert_memory_equal(a, "abXY", 4);
	assert_memory_equal(b, "Zfg", 3);
	assert_int_equal(iov_slice(iov, 2, 1, 5, part), 2);
	assert_ptr_equal(part[0].iov_base, a + 1);
	assert_int_equal(part[1].iov_len, 2);
	assert_int_equal(iov_slice(iov, 2, 1, 7, part), -1);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(chain_separates_readable_from_writable),
		T(buffer_across_slots_becomes_two_segments),
		T(written_is_clamped_to_the_writable_part),
		T(hostile_1_loops_break_the_queue),
		T(hostile_1_two_cycles_break_the_queue),
		T(hostile_2_chain_as_long_as_the_queue_is_the_limit),
		T(hostile_3_next_out_of_range_breaks_the_queue),
		T(hostile_4_head_out_of_range_breaks_the_queue),
		T(hostile_5_avail_index_jumps_break_the_queue),
		T(hostile_6_bad_sizes_are_refused),
		T(hostile_7_bad_ring_addresses_are_refused),
		T(hostile_7_used_ring_in_rom_is_refused),
		T(hostile_8_address_wrap_breaks_the_queue),
		T(hostile_9_empty_buffers_make_no_segment),
		T(hostile_9_buffer_of_4_gib_breaks_the_queue),
		T(hostile_9_sums_are_64_bits_wide),
		T(indirect_table_is_followed),
		T(hostile_10_bad_indirect_tables_break_the_queue),
		T(hostile_10_indirect_in_indirect_breaks_the_queue),
		T(hostile_11_writable_before_readable_breaks_the_queue),
		T(hostile_12_racing_vcpu_never_widens_a_chain),
		T(hostile_13_used_ring_over_the_descriptors_is_harmless),
		T(hostile_14_two_queues_on_one_ring_do_not_interfere),
		T(hostile_18_chains_in_flight_are_bounded),
		T(hostile_21_buffer_on_mmio_is_refused),
		T(writable_rom_buffer_is_refused_readable_is_not),
		T(unpopped_chains_come_again),
		T(filled_chains_appear_only_when_published),
		T(no_interrupt_flag_silences_calls),
		T(used_event_chooses_the_call),
		T(kick_suppression_follows_the_negotiation),
		T(indices_wrap_at_65536),
		T(iov_helpers_respect_skip_and_end),
	};

	return test_run("virtqueue", tests);
}
