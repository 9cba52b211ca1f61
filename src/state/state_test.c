/* SPDX-License-Identifier: Apache-2.0 */
#include "state/state.h"
#include "state/state_check.h"
#include "test/test.h"

#include <errno.h>

struct chip {
	bool on;
	u8 a;
	u16 b;
	u32 c;
	u64 d;
	i64 e;
	u8 ram[5];
	u32 w[3];
	u64 q[2];
	u8 fifo[8];
	size_t fifo_len;
	/* What a visitor of another release does. */
	bool has_new, has_extra, is_swapped, is_twice, has_new_group;
	u16 fresh;
};

static void chip_state(void *opaque, struct state *s)
{
	struct chip *c = opaque;

	st_begin(s, "chip");
	st_bool(s, "on", &c->on);
	if (c->is_swapped) {
		st_u16(s, "b", &c->b);
		st_u8(s, "a", &c->a);
	} else {
		st_u8(s, "a", &c->a);
		st_u16(s, "b", &c->b);
	}
	if (c->is_twice)
		st_u8(s, "a", &c->a);
	st_u32(s, "c", &c->c);
	st_require(s, c->c < 1000, "c is at most 999");
	if (c->has_new) {
		st_optional(s);
		st_u16(s, "fresh", &c->fresh);
	}
	st_begin(s, "inner");
	st_u64(s, "d", &c->d);
	st_i64(s, "e", &c->e);
	st_end(s);
	if (c->has_new_group) {
		st_optional(s);
		st_begin(s, "group");
		st_begin(s, "deeper");
		st_u16(s, "fresh", &c->fresh);
		st_end(s);
		st_end(s);
	}
	st_bytes(s, "ram", c->ram, sizeof(c->ram));
	st_u32_array(s, "w", c->w, 3);
	st_u64_array(s, "q", c->q, 2);
	st_var_bytes(s, "fifo", c->fifo, &c->fifo_len, sizeof(c->fifo));
	if (c->has_extra)
		st_u16(s, "extra", &c->b);
	st_end(s);
}

static const struct chip sample = {
	.on = true,
	.a = 0x12,
	.b = 0x3456,
	.c = 789,
	.d = 0xfedcba9876543210,
	.e = -5,
	.ram = {1, 2, 3, 4, 5},
	.w = {7, 8, 9},
	.q = {UINT64_MAX, 1},
	.fifo = "abc",
	.fifo_len = 3,
};

static void chip_save(struct chip *c, struct buf *b)
{
	struct state *s;

	buf_init(b);
	s = state_save_new(b);
	chip_state(c, s);
	assert_int_equal(state_finish(s, NULL), 0);
}

/* Saves `from`, loads into `to`; the error's text must contain `why`. */
static void expect_refused(struct chip from, struct chip to, const char *why)
{
	struct err err = {0};
	struct state *s;
	struct buf b;

	chip_save(&from, &b);
	s = state_load_new(b.bytes, b.len);
	assert_true(state_is_loading(s));
	chip_state(&to, s);
	assert_int_not_equal(state_finish(s, &err), 0);
	if (!strstr(err.text, why))
		fail_msg("'%s' is not in '%s'", why, err.text);
	buf_fini(&b);
}

static void round_trip_is_byte_identical_and_truncation_refused(void **state)
{
	struct chip a = sample, b = {0};
	struct err err = {0};

	(void)state;
	assert_int_equal(state_check_round_trip(chip_state, &a, &b, &err), 0);
	assert_string_equal(err.text, "");
}

static void loading_gives_back_each_value(void **state)
{
	struct chip a = sample, c = {0};
	struct state *s;
	struct buf b;

	(void)state;
	chip_save(&a, &b);
	s = state_load_new(b.bytes, b.len);
	chip_state(&c, s);
	assert_int_equal(state_finish(s, NULL), 0);
	assert_memory_equal(&c, &sample, sizeof(c));
	buf_fini(&b);
}

static void forget_w(void *opaque, struct state *s)
{
	struct chip *c = opaque;
	u8 lost = state_mode(s) == STATE_SAVE ? c->a : 0;

	st_u8(s, "a", &lost);
}
static void no_fields(void *opaque, struct state *s)
{
}

static void the_check_finds_a_field_that_is_not_restored(void **state)
{
	struct chip a = sample, b = {0};
	struct err err = {0};

	(void)state;
	assert_int_not_equal(state_check_round_trip(forget_w, &a, &b, &err), 0);
	assert_non_null(strstr(err.text, "other bytes"));
	assert_int_equal(state_check_round_trip(no_fields, &a, &b, NULL), 0);
}

static void unknown_missing_and_reordered_fields_are_refused(void **state)
{
	struct chip extra = sample, swapped = sample;

	(void)state;
	extra.has_extra = true;
	swapped.is_swapped = true;
	expect_refused(extra, sample, "found 'extra' in its place");
	expect_refused(sample, extra, "'chip/extra': the field is missing");
	expect_refused(swapped, sample, "'chip/a': found 'b'");
}

static void duplicate_fields_are_refused(void **state)
{
	struct chip c = sample;
	struct err err = {0};
	struct state *s;
	struct buf b;

	(void)state;
	c.is_twice = true;
	buf_init(&b);
	s = state_save_new(&b);
	chip_state(&c, s);
	assert_true(state_failed(s));
	assert_int_equal(state_finish(s, &err), -EEXIST);
	assert_non_null(strstr(err.text, "'chip/a': the field occurs twice"));
	buf_fini(&b);
}

static void old_type(void *opaque, struct state *s)
{
	u32 v = 1;

	st_begin(s, "g");
	st_u32(s, "x", &v);
	st_end(s);
}
static void new_type(void *opaque, struct state *s)
{
	u64 *v = opaque;

	st_begin(s, "g");
	st_u64(s, "x", v);
	st_end(s);
}

static void wrong_types_are_refused_and_leave_the_value(void **state)
{
	struct err err = {0};
	struct state *s;
	struct buf b;
	u64 v = 42;

	(void)state;
	buf_init(&b);
	s = state_save_new(&b);
	old_type(NULL, s);
	assert_int_equal(state_finish(s, NULL), 0);
	s = state_load_new(b.bytes, b.len);
	new_type(&v, s);
	assert_int_equal(state_finish(s, &err), -EINVAL);
	assert_non_null(strstr(err.text, "'g/x': the field has another type"));
	assert_int_equal(v, 42);
	buf_fini(&b);
}

static void optional_fields_keep_their_value_when_absent(void **state)
{
	struct chip a = sample, c = {0}, d = {0};
	struct state *s;
	struct buf b;

	(void)state;
	chip_save(&a, &b);
	c.has_new = c.has_new_group = true;
	c.fresh = 77;
	s = state_load_new(b.bytes, b.len);
	chip_state(&c, s);
	assert_int_equal(state_finish(s, NULL), 0);
	assert_int_equal(c.fresh, 77);
	assert_int_equal(c.fifo_len, 3);
	buf_fini(&b);
	/* And they are loaded when present. */
	d.has_new = d.has_new_group = true;
	assert_int_equal(state_check_round_trip(chip_state, &c, &d, NULL), 0);
	/* But an old release refuses what it does not know. */
	expect_refused(c, sample, "found 'fresh' in its place");
}

static void required_ranges_are_checked_on_load(void **state)
{
	struct chip a = sample, c = {0};
	struct err err = {0};
	struct state *s;
	struct buf b;
	u8 *at;

	(void)state;
	chip_save(&a, &b);
	at = memmem(b.bytes, b.len,
		    "\x13\x01"
		    "c",
		    3);
	assert_non_null(at);
	st_le32(at + 3, 1000);
	s = state_load_new(b.bytes, b.len);
	chip_state(&c, s);
	assert_int_equal(state_finish(s, &err), -EINVAL);
	assert_non_null(strstr(err.text, "'chip/': c is at most 999"));
	buf_fini(&b);
}

static void lengths_and_booleans_out_of_range_are_refused(void **state)
{
	struct chip a = sample, c = {0};
	struct state *s;
	struct buf b;
	u8 *on, *fifo;

	(void)state;
	chip_save(&a, &b);
	on = memmem(b.bytes, b.len, "\x10\x02on", 4);
	fifo = memmem(b.bytes, b.len,
		      "\x20\x04"
		      "fifo",
		      6);
	assert_non_null(on);
	assert_non_null(fifo);
	on[4] = 2;
	s = state_load_new(b.bytes, b.len);
	chip_state(&c, s);
	assert_int_equal(state_finish(s, NULL), -EINVAL);
	on[4] = 1;
	st_le32(fifo + 6, 9);
	s = state_load_new(b.bytes, b.len);
	chip_state(&c, s);
	assert_int_equal(state_finish(s, NULL), -EINVAL);
	assert_int_equal(c.fifo_len, 0);
	st_le32(fifo + 6, UINT32_MAX);
	s = state_load_new(b.bytes, b.len);
	chip_state(&c, s);
	assert_int_equal(state_finish(s, NULL), -EINVAL);
	buf_fini(&b);
}

static void trailing_bytes_and_foreign_streams_are_refused(void **state)
{
	struct chip a = sample, c = {0};
	struct err err = {0};
	struct state *s;
	struct buf b;

	(void)state;
	chip_save(&a, &b);
	buf_append_u8(&b, 0xff);
	s = state_load_new(b.bytes, b.len);
	chip_state(&c, s);
	assert_int_equal(state_finish(s, &err), -EINVAL);
	assert_non_null(strstr(err.text, "more fields"));
	b.bytes[0] ^= 1;
	s = state_load_new(b.bytes, b.len);
	assert_int_equal(state_finish(s, &err), -EINVAL);
	s = state_load_new(NULL, 0);
	assert_int_equal(state_finish(s, &err), -EINVAL);
	buf_fini(&b);
}

static void nesting_is_bounded(void **state)
{
	struct err err = {0};
	struct state *s;
	struct buf b;

	(void)state;
	buf_init(&b);
	s = state_save_new(&b);
	for (int i = 0; i < 100; i++)
		st_begin(s, "deep");
	assert_int_equal(state_finish(s, &err), -E2BIG);
	buf_fini(&b);
}

static void dump_is_one_field_a_line(void **state)
{
	struct chip c = sample;
	struct state *s;
	struct buf b;

	(void)state;
	buf_init(&b);
	s = state_dump_new(&b);
	chip_state(&c, s);
	assert_int_equal(state_finish(s, NULL), 0);
	assert_non_null(strstr(buf_str(&b), "chip:\n"
					    "  on: 0x1\n"
					    "  a: 0x12\n"));
	assert_non_null(strstr(buf_str(&b), "  inner:\n"
					    "    d: 0xfedcba9876543210\n"
					    "    e: -5\n"));
	assert_non_null(strstr(buf_str(&b), "  ram: [5]\n"
					    "    01 02 03 04 05\n"));
	buf_fini(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			round_trip_is_byte_identical_and_truncation_refused),
		cmocka_unit_test(loading_gives_back_each_value),
		cmocka_unit_test(the_check_finds_a_field_that_is_not_restored),
		cmocka_unit_test(
			unknown_missing_and_reordered_fields_are_refused),
		cmocka_unit_test(duplicate_fields_are_refused),
		cmocka_unit_test(wrong_types_are_refused_and_leave_the_value),
		cmocka_unit_test(optional_fields_keep_their_value_when_absent),
		cmocka_unit_test(required_ranges_are_checked_on_load),
		cmocka_unit_test(lengths_and_booleans_out_of_range_are_refused),
		cmocka_unit_test(
			trailing_bytes_and_foreign_streams_are_refused),
		cmocka_unit_test(nesting_is_bounded),
		cmocka_unit_test(dump_is_one_field_a_line),
	};

	return test_run("state", tests);
}
