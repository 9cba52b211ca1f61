/* SPDX-License-Identifier: Apache-2.0 */
/* Frames from a hostile guest, into a network that reaches nothing outside.
 * The input is a series of: a byte that picks a header, a length byte (times
 * 8), and the frame's bytes. */
#include "net/user_int.h"

#include "base/assert.h"

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t len);

#define FRAMES_MAX 16

static bool can_receive(void *opaque)
{
	return true;
}
static void receive(void *opaque, const void *frame, size_t len)
{
	size_t *total = opaque;

	ASSERT(len >= 14 && len <= NET_FRAME_MAX);
	*total += len;
}
static const struct net_client_ops client = {can_receive, receive};

/* Makes the frame pass the first checks, so that the rest is reached. */
static void mend(u8 *f, size_t len, u8 kind)
{
	static const u8 protocols[] = {1, 6, 17, 2};
	u32 sum = 0;

	if (kind & 1)
		memcpy(f, "\x52\x55\x0a\x00\x02\x02", 6);
	if (kind & 2)
		memcpy(f + 12, kind & 4 ? "\x08\x06" : "\x08\x00", 2);
	if ((kind & 6) != 2 || len < 34)
		return;
	f[14] = 0x45;
	f[16] = (u8)((len - 14) >> 8);
	f[17] = (u8)(len - 14);
	if (kind & 8)
		f[20] = f[21] = 0; /* not a fragment */
	f[23] = protocols[(kind >> 4) & 3];
	if (kind & 64)
		memcpy(f + 30, "\x0a\x00\x02\x02", 4);
	f[24] = f[25] = 0;
	for (int i = 14; i < 34; i += 2)
		sum += (u32)f[i] << 8 | f[i + 1];
	sum = (sum & 0xffff) + (sum >> 16);
	sum = ~((sum & 0xffff) + (sum >> 16));
	f[24] = (u8)(sum >> 8);
	f[25] = (u8)sum;
}

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t len)
{
	struct user_options how = {.is_restricted = true};
	struct loop *loop = loop_new(NULL);
	struct net_backend *b;
	size_t total = 0;

	ASSERT(loop && !user_open(loop, &how, &b, NULL));
	net_backend_attach(b, &client, &total);
	for (int i = 0; i < FRAMES_MAX && len > 2; i++) {
		u8 frame[256 * 8], kind = bytes[0];
		size_t n = MIN((size_t)bytes[1] * 8, len - 2);

		memcpy(frame, bytes + 2, n);
		if (n >= 14)
			mend(frame, n, kind);
		net_backend_send(b, frame, n);
		bytes += 2 + n;
		len -= 2 + n;
	}
	loop_run_once(loop, 0);
	net_backend_free(b);
	loop_free(loop);
	return 0;
}
