/* SPDX-License-Identifier: Apache-2.0 */
/* Loads hostile bytes as a state. What is accepted must be what a save of the
 * loaded values writes: there is one encoding only. */
#include "state/state.h"

#include "base/assert.h"

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t len);

struct chip {
	bool on;
	u8 a;
	u64 d;
	u8 ram[4];
	u32 w[2];
	u8 fifo[16];
	size_t fifo_len;
};

static void chip_state(struct chip *c, struct state *s)
{
	st_begin(s, "g");
	st_bool(s, "o", &c->on);
	st_u8(s, "a", &c->a);
	st_begin(s, "i");
	st_u64(s, "d", &c->d);
	st_end(s);
	st_bytes(s, "r", c->ram, sizeof(c->ram));
	st_u32_array(s, "w", c->w, 2);
	st_var_bytes(s, "f", c->fifo, &c->fifo_len, sizeof(c->fifo));
	st_require(s, c->a < 200, "a is below 200");
	st_end(s);
}

static void load_and_compare(const u8 *bytes, size_t len)
{
	struct chip c = {0};
	struct err err = {0};
	struct state *s = state_load_new(bytes, len);
	struct buf out;

	chip_state(&c, s);
	if (state_finish(s, &err)) {
		ASSERT(err.code < 0 && err.text[0]);
		return;
	}
	buf_init(&out);
	s = state_save_new(&out);
	chip_state(&c, s);
	ASSERT(!state_finish(s, NULL));
	ASSERT(out.len == len && !memcmp(out.bytes, bytes, len));
	buf_fini(&out);
}

/* A valid stream with up to eight of its bytes replaced. */
static void load_edited(const u8 *edits, size_t len)
{
	struct chip c = {.fifo_len = len % 17};
	struct buf out;
	struct state *s;

	buf_init(&out);
	s = state_save_new(&out);
	chip_state(&c, s);
	ASSERT(!state_finish(s, NULL));
	for (size_t i = 0; i + 2 <= len && i < 2 * (len % 9); i += 2)
		out.bytes[edits[i] % out.len] = edits[i + 1];
	load_and_compare(out.bytes, out.len);
	buf_fini(&out);
}

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t len)
{
	if (len)
		load_edited(bytes, len);
	load_and_compare(bytes, len);
	return 0;
}
