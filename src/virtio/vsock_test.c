/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "test/test.h"
#include "virtio/testdrv.h"
#include "virtio/vsock_int.h"

#define W VIRTQ_DESC_F_WRITE
#define N VIRTQ_DESC_F_NEXT

#define CID   3
#define RXBUF TESTDRV_BUF /* 4 KiB each, 16 of them */
#define TXBUF (TESTDRV_BUF + 0x20000)

struct rig {
	struct testdrv t;
	struct vsock *d;
	struct vsock_header h; /* the last packet received */
	u8 *payload;
	int accepted; /* fd, or -1 */
};

static void on_accept(void *opaque, int fd)
{
	struct rig *g = opaque;

	g->accepted = fd;
}

static void rx_give(struct rig *g, u16 i)
{
	testring_desc(&g->t.rings[0], i, RXBUF + i * 0x1000ull, 4096, W, 0);
	testring_add(&g->t.rings[0], i);
	testdrv_kick(&g->t, 0);
}

static struct rig *rig_new(void)
{
	struct rig *g = calloc(1, sizeof(*g));
	struct virtio_vsock_config cfg = {.guest_cid = CID};

	g->accepted = -1;
	testdrv_init(&g->t);
	cfg.at = testdrv_attach(&g->t);
	assert_int_equal(virtio_vsock_new(&cfg, &g->d, NULL), 0);
	assert_int_equal(vsock_listen(g->d, 99, on_accept, g), 0);
	return g;
}

static void rig_free(struct rig *g)
{
	if (g->accepted >= 0)
		close(g->accepted);
	testdrv_fini(&g->t);
	free(g);
}

static int setup(void **state)
{
	struct rig *g = rig_new();

	testdrv_start(&g->t, 0, 3, 16);
	for (u16 i = 0; i < 16; i++)
		rx_give(g, i);
	*state = g;
	return 0;
}

static int teardown(void **state)
{
	rig_free(*state);
	return 0;
}

static void send_raw(struct rig *g, const struct vsock_header *h, u32 bytes,
		     const void *payload)
{
	struct testring *r = &g->t.rings[1];
	u32 id, len;

	memcpy(testdrv_at(&g->t, TXBUF), h, sizeof(*h));
	if (bytes)
		memcpy(testdrv_at(&g->t, TXBUF + 64), payload, bytes);
	testring_desc(r, 0, TXBUF, sizeof(*h), bytes ? N : 0, 1);
	testring_desc(r, 1, TXBUF + 64, bytes, 0, 0);
	testring_add(r, 0);
	testdrv_kick(&g->t, 1);
	while (testring_reap(r, &id, &len))
		;
}

static void send_op(struct rig *g, u16 op, u32 guest_port, u32 host_port,
		    u32 flags, const void *payload, u32 bytes)
{
	struct vsock_header h = {
		.src_cid = CID,
		.dst_cid = VSOCK_CID_HOST,
		.src_port = guest_port,
		.dst_port = host_port,
		.len = bytes,
		.type = VIRTIO_VSOCK_TYPE_STREAM,
		.op = op,
		.flags = flags,
		.buf_alloc = 64 * 1024,
	};

	send_raw(g, &h, bytes, payload);
}

/* The next packet to the guest; its buffer is given back. False: none. */
static bool next(struct rig *g)
{
	u32 id, len;
	static u8 copy[4096];

	testdrv_run(&g->t);
	if (!testring_reap(&g->t.rings[0], &id, &len))
		return false;
	memcpy(copy, testdrv_at(&g->t, RXBUF + id * 0x1000ull), 4096);
	memcpy(&g->h, copy, sizeof(g->h));
	g->payload = copy + sizeof(g->h);
	assert_int_equal(len, sizeof(g->h) + g->h.len);
	assert_int_equal(g->h.src_cid, VSOCK_CID_HOST);
	assert_int_equal(g->h.dst_cid, CID);
	rx_give(g, (u16)id);
	return true;
}

static void expect(struct rig *g, u16 op)
{
	assert_true(next(g));
	assert_int_equal(g->h.op, op);
}

/* A guest connection from port 1000 to the listener; leaves it open. */
static void accept_one(struct rig *g)
{
	send_op(g, VIRTIO_VSOCK_OP_REQUEST, 1000, 99, 0, NULL, 0);
	expect(g, VIRTIO_VSOCK_OP_RESPONSE);
	assert_int_equal(g->h.src_port, 99);
	assert_int_equal(g->h.dst_port, 1000);
	assert_int_equal(g->h.buf_alloc, VSOCK_BUF_BYTES);
	assert_true(g->accepted >= 0);
}

static void guest_connects_and_bytes_pass_both_ways(void **state)
{
	struct rig *g = *state;
	char b[16];

	accept_one(g);
	send_op(g, VIRTIO_VSOCK_OP_RW, 1000, 99, 0, "hello", 5);
	assert_int_equal(read(g->accepted, b, sizeof(b)), 5);
	assert_memory_equal(b, "hello", 5);
	assert_int_equal(write(g->accepted, "world!", 6), 6);
	expect(g, VIRTIO_VSOCK_OP_RW);
	assert_int_equal(g->h.len, 6);
	assert_int_equal(g->h.fwd_cnt, 5);
	assert_memory_equal(g->payload, "world!", 6);
}

static void host_connects_to_a_guest_port(void **state)
{
	struct rig *g = *state;
	int fds[2];
	char b[16];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	assert_int_equal(vsock_connect(g->d, 55, fds[0]), 0);
	assert_int_equal(write(fds[1], "early", 5), 5);
	expect(g, VIRTIO_VSOCK_OP_REQUEST);
	assert_int_equal(g->h.dst_port, 55);
	assert_false(next(g)); /* nothing before the response */
	send_op(g, VIRTIO_VSOCK_OP_RESPONSE, 55, g->h.src_port, 0, NULL, 0);
	expect(g, VIRTIO_VSOCK_OP_RW);
	assert_memory_equal(g->payload, "early", 5);
	send_op(g, VIRTIO_VSOCK_OP_RW, 55, g->h.src_port, 0, "ok", 2);
	assert_int_equal(read(fds[1], b, sizeof(b)), 2);
	close(fds[1]);
	expect(g, VIRTIO_VSOCK_OP_SHUTDOWN);
	assert_int_equal(g->h.flags, 3);
	send_op(g, VIRTIO_VSOCK_OP_RST, 55, g->h.src_port, 0, NULL, 0);
	assert_int_equal(g->d->conn_count, 0);
}

static void refused_connection_closes_the_descriptor(void **state)
{
	struct rig *g = *state;
	int fds[2];
	char b;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	assert_int_equal(vsock_connect(g->d, 55, fds[0]), 0);
	expect(g, VIRTIO_VSOCK_OP_REQUEST);
	send_op(g, VIRTIO_VSOCK_OP_RST, 55, g->h.src_port, 0, NULL, 0);
	assert_int_equal(read(fds[1], &b, 1), 0);
	close(fds[1]);
}

static void connecting_without_a_driver_is_refused(void **state)
{
	struct rig *g = *state;

	testdrv_set_status(&g->t, 0);
	assert_int_equal(vsock_connect(g->d, 55, -1), -ENOTCONN);
}

static void unknown_ports_and_packets_are_reset(void **state)
{
	struct rig *g = *state;

	send_op(g, VIRTIO_VSOCK_OP_REQUEST, 7, 98, 0, NULL, 0);
	expect(g, VIRTIO_VSOCK_OP_RST);
	assert_int_equal(g->h.src_port, 98);
	assert_int_equal(g->h.dst_port, 7);
	send_op(g, VIRTIO_VSOCK_OP_RW, 7, 99, 0, "x", 1);
	expect(g, VIRTIO_VSOCK_OP_RST);
	send_op(g, VIRTIO_VSOCK_OP_RST, 7, 99, 0, NULL, 0);
	assert_false(next(g)); /* a reset is never answered */
}

static void half_close_lets_the_other_direction_go_on(void **state)
{
	struct rig *g = *state;
	char b[8];

	accept_one(g);
	send_op(g, VIRTIO_VSOCK_OP_SHUTDOWN, 1000, 99,
		VIRTIO_VSOCK_SHUTDOWN_F_SEND, NULL, 0);
	assert_int_equal(read(g->accepted, b, 1), 0);
	assert_int_equal(write(g->accepted, "tail", 4), 4);
	expect(g, VIRTIO_VSOCK_OP_RW);
	assert_int_equal(shutdown(g->accepted, SHUT_WR), 0);
	expect(g, VIRTIO_VSOCK_OP_SHUTDOWN);
	expect(g, VIRTIO_VSOCK_OP_RST);
	assert_int_equal(g->d->conn_count, 0);
}

static void guests_full_shutdown_is_answered_by_reset(void **state)
{
	struct rig *g = *state;

	accept_one(g);
	send_op(g, VIRTIO_VSOCK_OP_SHUTDOWN, 1000, 99, 3, NULL, 0);
	expect(g, VIRTIO_VSOCK_OP_RST);
	assert_int_equal(g->d->conn_count, 0);
}

static void sending_stops_at_the_guests_credit(void **state)
{
	struct rig *g = *state;
	struct vsock_header h;
	u8 bytes[4000] = {0};

	send_op(g, VIRTIO_VSOCK_OP_REQUEST, 1000, 99, 0, NULL, 0);
	expect(g, VIRTIO_VSOCK_OP_RESPONSE);
	h = (struct vsock_header){
		.src_cid = CID,
		.dst_cid = VSOCK_CID_HOST,
		.src_port = 1000,
		.dst_port = 99,
		.type = 1,
		.op = VIRTIO_VSOCK_OP_CREDIT_UPDATE,
		.buf_alloc = 1000,
	};
	send_raw(g, &h, 0, NULL);
	assert_int_equal(write(g->accepted, bytes, 4000), 4000);
	expect(g, VIRTIO_VSOCK_OP_RW);
	assert_int_equal(g->h.len, 1000);
	assert_false(next(g));
	h.fwd_cnt = 600;
	send_raw(g, &h, 0, NULL);
	expect(g, VIRTIO_VSOCK_OP_RW);
	assert_int_equal(g->h.len, 600);
	assert_false(next(g));
}

static void hostile_27_forged_credit_is_no_credit(void **state)
{
	static const u32 forged[] = {1, 0x80000000, 0xffffffff};
	struct rig *g = *state;
	struct vsock_header h = {
		.src_cid = CID,
		.dst_cid = VSOCK_CID_HOST,
		.src_port = 1000,
		.dst_port = 99,
		.type = 1,
		.op = VIRTIO_VSOCK_OP_CREDIT_UPDATE,
		.buf_alloc = 1000,
	};

	accept_one(g);
	for (size_t i = 0; i < ARRAY_SIZE(forged); i++) {
		h.fwd_cnt = forged[i]; /* ahead of what was sent */
		send_raw(g, &h, 0, NULL);
		(void)!write(g->accepted, "x", 1);
		if (forged[i] != 0xffffffff)
			assert_false(next(g));
	}
}

static void hostile_27_counts_wrap(void **state)
{
	struct rig *g = *state;
	struct vsock_conn *c;
	char b[8];

	accept_one(g);
	c = vsock_conn_find(g->d, 99, 1000);
	c->tx_cnt = 0xfffffffe;
	c->fwd_cnt = 0xfffffffe;
	c->fwd_sent = 0xfffffffe;
	c->guest_fwd_cnt = 0xfffffffe;
	assert_int_equal(write(g->accepted, "abcd", 4), 4);
	expect(g, VIRTIO_VSOCK_OP_RW);
	assert_int_equal(g->h.len, 4);
	assert_int_equal(c->tx_cnt, 2);
	send_op(g, VIRTIO_VSOCK_OP_RW, 1000, 99, 0, "efgh", 4);
	assert_int_equal(read(g->accepted, b, 8), 4);
	assert_int_equal(c->fwd_cnt, 2);
}

static void hostile_27_overrunning_our_buffer_is_reset(void **state)
{
	struct rig *g = *state;
	static u8 bytes[32768];
	int small = 4096;
	int i;

	accept_one(g);
	setsockopt(g->accepted, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
	for (i = 0; i < 100 && g->d->conn_count; i++)
		send_op(g, VIRTIO_VSOCK_OP_RW, 1000, 99, 0, bytes,
			sizeof(bytes));
	assert_int_equal(g->d->conn_count, 0);
	assert_true(i > 8);
	do
		assert_true(next(g));
	while (g->h.op == VIRTIO_VSOCK_OP_CREDIT_UPDATE);
	assert_int_equal(g->h.op, VIRTIO_VSOCK_OP_RST);
}

static void hostile_27_bad_headers_are_dropped_or_reset(void **state)
{
	struct rig *g = *state;
	struct vsock_header h = {
		.src_cid = CID,
		.dst_cid = VSOCK_CID_HOST,
		.src_port = 1,
		.dst_port = 99,
		.type = 1,
		.op = VIRTIO_VSOCK_OP_REQUEST,
	};

	h.len = 0xffffffff;
	send_raw(g, &h, 0, NULL);
	assert_false(next(g));
	h.len = 0;
	h.src_cid = 4;
	send_raw(g, &h, 0, NULL);
	assert_false(next(g));
	h.src_cid = CID;
	h.dst_cid = 1ull << 32 | 2;
	send_raw(g, &h, 0, NULL);
	expect(g, VIRTIO_VSOCK_OP_RST);
	h.dst_cid = 2;
	h.type = 2;
	send_raw(g, &h, 0, NULL);
	expect(g, VIRTIO_VSOCK_OP_RST);
	assert_int_equal(g->d->conn_count, 0);
}

static void host_that_does_not_read_is_buffered_and_credited(void **state)
{
	struct rig *g = *state;
	static u8 bytes[32768];
	u64 total = 0;
	ssize_t n;
	bool updated = false;

	accept_one(g);
	for (int i = 0; i < 8; i++)
		send_op(g, VIRTIO_VSOCK_OP_RW, 1000, 99, 0, bytes,
			sizeof(bytes));
	assert_int_equal(g->d->conn_count, 1);
	for (int i = 0; i < 200 && total < 8 * sizeof(bytes); i++) {
		n = recv(g->accepted, bytes, sizeof(bytes), MSG_DONTWAIT);
		if (n > 0)
			total += (u64)n;
		testdrv_run(&g->t);
	}
	assert_int_equal(total, 8 * sizeof(bytes));
	while (next(g))
		updated |= g->h.op == VIRTIO_VSOCK_OP_CREDIT_UPDATE;
	assert_true(updated);
}

static void reset_closes_every_connection(void **state)
{
	struct rig *g = *state;
	char b;

	accept_one(g);
	testdrv_set_status(&g->t, 0);
	assert_int_equal(g->d->conn_count, 0);
	assert_int_equal(read(g->accepted, &b, 1), 0);
}

static void hostile_18_reset_flood_stops_the_transmit_queue(void **state)
{
	struct rig *g = *state;
	struct testring *r = &g->t.rings[1];
	u32 id, len;
	int taken = 0;

	testdrv_start(&g->t, 0, 3, 16); /* no receive buffers now */
	for (int i = 0; i < 4096; i++) {
		send_op(g, VIRTIO_VSOCK_OP_RW, 7, 98, 0, "x", 1);
		if ((u16)(r->avail_idx - testring_used_idx(r)) > 8)
			break;
		taken++;
	}
	assert_true(taken < 2048);
	for (u16 i = 0; i < 16; i++)
		rx_give(g, i);
	for (int i = 0; i < 4096 && next(g); i++)
		assert_int_equal(g->h.op, VIRTIO_VSOCK_OP_RST);
	while (testring_reap(r, &id, &len))
		;
	assert_int_equal(testring_used_idx(r), r->avail_idx);
}

static bool next_within(struct rig *g, u64 ms)
{
	u64 end = clock_mono_ns() + ms * 1000000;

	do {
		if (next(g))
			return true;
		usleep(1000);
	} while (clock_mono_ns() < end);
	return false;
}

static void restored_guest_hears_of_a_transport_reset(void **state)
{
	struct rig *g = *state;
	struct rig *other = rig_new();
	struct testring *r = &other->t.rings[2];
	u32 id, len;
	int fds[2];

	accept_one(g);
	testring_desc(&g->t.rings[2], 0, TXBUF, 8, W, 0);
	testring_add(&g->t.rings[2], 0);
	testdrv_kick(&g->t, 2);
	assert_true(testdrv_round_trip(&g->t, &other->t));
	testdrv_run(&other->t);
	assert_true(testring_reap(r, &id, &len));
	assert_int_equal(len, 4);
	assert_int_equal(other->d->conn_count, 0);
	/* A connection would be among those that it closes now. */
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	assert_int_equal(vsock_connect(other->d, 55, fds[0]), 0);
	assert_false(next_within(other, 20));
	testring_add(r, 0);
	assert_true(next_within(other, 500));
	assert_int_equal(other->h.op, VIRTIO_VSOCK_OP_REQUEST);
	close(fds[1]);
	rig_free(other);
}

static void restored_guest_that_keeps_the_event_is_served(void **state)
{
	struct rig *g = *state;
	struct rig *other = rig_new();
	int fds[2];

	assert_true(testdrv_round_trip(&g->t, &other->t));
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	assert_int_equal(vsock_connect(other->d, 55, fds[0]), 0);
	assert_true(next_within(other, 5000));
	assert_int_equal(other->h.op, VIRTIO_VSOCK_OP_REQUEST);
	close(fds[1]);
	rig_free(other);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(guest_connects_and_bytes_pass_both_ways),
		T(host_connects_to_a_guest_port),
		T(refused_connection_closes_the_descriptor),
		T(connecting_without_a_driver_is_refused),
		T(unknown_ports_and_packets_are_reset),
		T(half_close_lets_the_other_direction_go_on),
		T(guests_full_shutdown_is_answered_by_reset),
		T(sending_stops_at_the_guests_credit),
		T(hostile_27_forged_credit_is_no_credit),
		T(hostile_27_counts_wrap),
		T(hostile_27_overrunning_our_buffer_is_reset),
		T(hostile_27_bad_headers_are_dropped_or_reset),
		T(host_that_does_not_read_is_buffered_and_credited),
		T(reset_closes_every_connection),
		T(hostile_18_reset_flood_stops_the_transmit_queue),
		T(restored_guest_hears_of_a_transport_reset),
		T(restored_guest_that_keeps_the_event_is_served),
	};

	return test_run("vsock", tests);
}
