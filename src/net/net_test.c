/* SPDX-License-Identifier: Apache-2.0 */
#include "net/net.h"
#include "base/clock.h"
#include "test/test.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

static const u8 guest_mac[6] = {0x52, 0x54, 0, 0x12, 0x34, 0x56};

/* A guest that keeps the frames it gets. */
struct guest {
	struct loop *loop;
	struct net_backend *net;
	bool is_full;
	u8 frames[16][2048];
	size_t lens[16];
	size_t count;
};

static bool guest_can_receive(void *opaque)
{
	struct guest *g = opaque;

	return !g->is_full && g->count < 16;
}
static void guest_receive(void *opaque, const void *frame, size_t len)
{
	struct guest *g = opaque;

	assert_true(guest_can_receive(g));
	assert_true(len <= sizeof(g->frames[0]));
	memcpy(g->frames[g->count], frame, len);
	g->lens[g->count++] = len;
}
static const struct net_client_ops guest_ops = {guest_can_receive,
						guest_receive};

static void guest_open(struct guest *g, const struct net_forward *f, size_t n)
{
	struct err err = {0};

	memset(g, 0, sizeof(*g));
	g->loop = loop_new(NULL);
	if (net_user_new(g->loop, f, n, &g->net, &err))
		fail_msg("%s", err.text);
	net_backend_attach(g->net, &guest_ops, g);
}

static void guest_close(struct guest *g)
{
	net_backend_free(g->net);
	loop_free(g->loop);
}

/* Runs the loop until a frame is there, for 5 s at most. */
static void guest_wait(struct guest *g)
{
	u64 end = clock_mono_ns() + 5 * NS_PER_SEC;

	while (!g->count && clock_mono_ns() < end)
		loop_run_once(g->loop, 100);
	assert_true(g->count > 0);
}

static void be16(u8 *p, unsigned v)
{
	p[0] = (u8)(v >> 8);
	p[1] = (u8)v;
}

static u16 checksum(const u8 *p, size_t n, u32 sum)
{
	for (size_t i = 0; i < n; i += 2)
		sum += (u32)p[i] << 8 | (i + 1 < n ? p[i + 1] : 0);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (u16)~sum;
}

/* RFC 826: who has 10.0.2.`last`? */
static void arp_request(u8 *f, u8 last)
{
	const u8 fixed[] = {8, 6, 0, 1, 8, 0, 6, 4, 0, 1};
	const u8 me[] = {10, 0, 2, 15};
	const u8 whom[] = {10, 0, 2, last};

	memset(f, 0, 60);
	memset(f, 0xff, 6);
	memcpy(f + 6, guest_mac, 6);
	memcpy(f + 12, fixed, sizeof(fixed));
	memcpy(f + 22, guest_mac, 6);
	memcpy(f + 28, me, 4);
	memcpy(f + 38, whom, 4);
}

static void arp_for_the_gateway_is_answered(void **state)
{
	const u8 gateway[] = {10, 0, 2, 2};
	struct guest g;
	u8 f[60];

	(void)state;
	guest_open(&g, NULL, 0);
	arp_request(f, 2);
	net_backend_send(g.net, f, sizeof(f));
	assert_int_equal(g.count, 0); /* not from inside send */
	guest_wait(&g);
	assert_memory_equal(g.frames[0] + 12, "\x08\x06", 2);
	assert_int_equal(g.frames[0][21], 2); /* reply */
	assert_memory_equal(g.frames[0] + 28, gateway, 4);
	guest_close(&g);
}

static void frames_wait_for_a_full_guest(void **state)
{
	struct guest g;
	u8 f[60];

	(void)state;
	guest_open(&g, NULL, 0);
	g.is_full = true;
	arp_request(f, 2);
	/* Far more answers than are kept. */
	for (int i = 0; i < 2000; i++)
		net_backend_send(g.net, f, sizeof(f));
	loop_run_once(g.loop, 0);
	loop_run_once(g.loop, 0);
	assert_int_equal(g.count, 0);
	g.is_full = false;
	net_backend_resume(g.net);
	guest_wait(&g);
	assert_int_equal(g.count, 16);
	guest_close(&g);
}

/* RFC 2131 §3.1: DHCPDISCOVER in Ethernet, IPv4 and UDP. */
static size_t dhcp_discover(u8 *f)
{
	const u8 options[] = {0x63, 0x82, 0x53, 0x63, 53, 1, 1, 255};
	size_t udp = 8 + 240 - 4 + sizeof(options), ip = 20 + udp;

	memset(f, 0, 14 + ip);
	memset(f, 0xff, 6);
	memcpy(f + 6, guest_mac, 6);
	f[12] = 8;
	f[14] = 0x45;
	be16(f + 16, (unsigned)ip);
	f[22] = 64;
	f[23] = 17;
	memset(f + 30, 0xff, 4);
	be16(f + 24, checksum(f + 14, 20, 0));
	be16(f + 34, 68);
	be16(f + 36, 67);
	be16(f + 38, (unsigned)udp);
	f[42] = 1;
	f[43] = 1;
	f[44] = 6;
	memcpy(f + 46, "\x12\x34\x56\x78", 4);
	memcpy(f + 70, guest_mac, 6);
	memcpy(f + 278, options, sizeof(options));
	return 14 + ip;
}

static void dhcp_offers_the_guests_address(void **state)
{
	const u8 address[] = {10, 0, 2, 15};
	struct guest g;
	u8 f[600];

	(void)state;
	guest_open(&g, NULL, 0);
	net_backend_send(g.net, f, dhcp_discover(f));
	guest_wait(&g);
	assert_true(g.lens[0] > 282);
	assert_int_equal(g.frames[0][42], 2); /* BOOTREPLY */
	assert_memory_equal(g.frames[0] + 46, "\x12\x34\x56\x78", 4);
	assert_memory_equal(g.frames[0] + 58, address, 4);
	guest_close(&g);
}

/* A TCP socket on loopback with a port that is free (and then is not). */
static int listen_anywhere(u16 *out_port)
{
	struct sockaddr_in a = {.sin_family = AF_INET,
				.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(a);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&a, len), 0);
	assert_int_equal(listen(fd, 1), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
	*out_port = ntohs(a.sin_port);
	return fd;
}

static void a_port_in_use_is_named(void **state)
{
	struct loop *loop = loop_new(NULL);
	struct net_forward f = {.guest_port = 22};
	struct net_backend *b;
	struct err err = {0};
	char want[32];
	int fd = listen_anywhere(&f.host_port);

	(void)state;
	assert_int_equal(net_user_new(loop, &f, 1, &b, &err), -EADDRINUSE);
	snprintf(want, sizeof(want), "port %u is in use", f.host_port);
	assert_string_equal(err.text, want);
	f.guest_port = 0;
	assert_int_equal(net_user_new(loop, &f, 1, &b, &err), -EINVAL);
	close(fd);
	loop_free(loop);
}

/* Answers the SYN in `syn` with SYN+ACK (RFC 9293 §3.5). */
static void tcp_syn_ack(u8 *f, const u8 *syn)
{
	u32 pseudo = 6 + 20;

	memset(f, 0, 54);
	memcpy(f, syn + 6, 6);
	memcpy(f + 6, guest_mac, 6);
	f[12] = 8;
	f[14] = 0x45;
	be16(f + 16, 40);
	f[22] = 64;
	f[23] = 6;
	memcpy(f + 26, syn + 30, 4);
	memcpy(f + 30, syn + 26, 4);
	be16(f + 24, checksum(f + 14, 20, 0));
	memcpy(f + 34, syn + 36, 2);
	memcpy(f + 36, syn + 34, 2);
	f[38] = 1;
	memcpy(f + 42, syn + 38, 4);
	for (int i = 45; i >= 42 && !++f[i]; i--)
		;
	f[46] = 5 << 4;
	f[47] = 0x12;
	be16(f + 48, 65535);
	for (int i = 26; i < 34; i += 2)
		pseudo += (u32)f[i] << 8 | f[i + 1];
	be16(f + 50, checksum(f + 34, 20, pseudo));
}

static bool is_tcp(const u8 *f, u8 flags)
{
	return f[12] == 8 && f[13] == 0 && f[23] == 6 && (f[47] & flags);
}

static void a_forwarded_port_reaches_the_guest(void **state)
{
	struct net_forward f = {.guest_port = 22};
	struct sockaddr_in a = {.sin_family = AF_INET,
				.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct guest g;
	u8 frame[60];
	bool found = false;
	int fd;

	(void)state;
	close(listen_anywhere(&f.host_port));
	guest_open(&g, &f, 1);
	/* The guest is known once it has spoken. */
	arp_request(frame, 2);
	net_backend_send(g.net, frame, sizeof(frame));
	guest_wait(&g);
	g.count = 0;
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	a.sin_port = htons(f.host_port);
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	guest_wait(&g);
	assert_true(is_tcp(g.frames[0], 0x02));
	assert_int_equal(g.frames[0][36] << 8 | g.frames[0][37], 22);
	tcp_syn_ack(frame, g.frames[0]);
	g.count = 0;
	net_backend_send(g.net, frame, 54);
	assert_int_equal(send(fd, "hello", 5, MSG_NOSIGNAL), 5);
	/* The data comes after the acknowledgement. */
	for (int i = 0; i < 50 && !found; i++) {
		loop_run_once(g.loop, 100);
		for (size_t k = 0; k < g.count; k++)
			if (memmem(g.frames[k], g.lens[k], "hello", 5))
				found = true;
	}
	assert_true(found);
	close(fd);
	guest_close(&g);
}

static void frames_of_impossible_length_are_ignored(void **state)
{
	static u8 big[NET_FRAME_MAX + 1];
	struct guest g;

	(void)state;
	guest_open(&g, NULL, 0);
	arp_request(big, 2);
	net_backend_send(g.net, big, 13);
	net_backend_send(g.net, big, sizeof(big));
	net_backend_send(g.net, big, 14);
	loop_run_once(g.loop, 0);
	loop_run_once(g.loop, 0);
	assert_int_equal(g.count, 0);
	guest_close(&g);
}

/* An ICMP echo to the gateway: bytes `from` on of a message of 24 (RFC 792),
 * `n` of them, as an IPv4 packet with these fragment bits. */
static void echo_piece(struct guest *g, unsigned from, unsigned n,
		       unsigned fragment)
{
	const u8 message[24] = {8, 0, 0xf7, 0xff};
	u8 f[64] = {0};

	memcpy(f, "\x52\x55\x0a\x00\x02\x02", 6);
	memcpy(f + 6, guest_mac, 6);
	f[12] = 8;
	f[14] = 0x45;
	be16(f + 16, 20 + n);
	be16(f + 18, 7);
	be16(f + 20, fragment);
	f[22] = 64;
	f[23] = 1;
	memcpy(f + 26, "\x0a\x00\x02\x0f\x0a\x00\x02\x02", 8);
	be16(f + 24, checksum(f + 14, 20, 0));
	memcpy(f + 34, message + from, n);
	net_backend_send(g->net, f, 34 + n);
}

/* Regression: hostile fragments crashed the library's reassembly. */
static void ipv4_fragments_from_the_guest_are_dropped(void **state)
{
	struct guest g;
	u8 f[60];

	(void)state;
	guest_open(&g, NULL, 0);
	arp_request(f, 2); /* the guest makes itself known */
	net_backend_send(g.net, f, sizeof(f));
	guest_wait(&g);
	g.count = 0;
	echo_piece(&g, 0, 24, 0);
	guest_wait(&g);
	assert_int_equal(g.frames[0][34], 0); /* echo reply */
	g.count = 0;
	echo_piece(&g, 0, 8, 0x2000);
	echo_piece(&g, 8, 16, 1);
	for (int i = 0; i < 4; i++)
		loop_run_once(g.loop, 0);
	assert_int_equal(g.count, 0);
	guest_close(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(arp_for_the_gateway_is_answered),
		cmocka_unit_test(frames_wait_for_a_full_guest),
		cmocka_unit_test(dhcp_offers_the_guests_address),
		cmocka_unit_test(a_port_in_use_is_named),
		cmocka_unit_test(a_forwarded_port_reaches_the_guest),
		cmocka_unit_test(frames_of_impossible_length_are_ignored),
		cmocka_unit_test(ipv4_fragments_from_the_guest_are_dropped),
	};

	return test_run("net", tests);
}
