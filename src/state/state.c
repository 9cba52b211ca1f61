/* SPDX-License-Identifier: Apache-2.0 */
/* FORMAT
 *
 *	stream = "SKS1" item* 0xff
 *	item   = tag:u8 namelen:u8 name payload
 *	       | 0x02 (end of group)
 *
 *	tag             payload (little-endian)
 *	0x01 group      -           (items up to the matching 0x02 are inside)
 *	0x10 bool       u8, 0 or 1
 *	0x11 u8         u8
 *	0x12 u16        u16
 *	0x13 u32        u32
 *	0x14 u64        u64
 *	0x15 i64        u64
 *	0x20 bytes      u32 length, bytes
 *	0x21 u32 array  u32 count, count * u32
 *	0x22 u64 array  u32 count, count * u64
 *
 * The loader walks the stream in the order of its own calls, so the stream
 * steers nothing: no allocation, no loop and no recursion depends on it. Each
 * call takes one item or fails. The closing 0xff makes every proper prefix of
 * a stream invalid.
 *
 * An optional field that is absent is stepped over by its visitor; when it is
 * a group, `skip_depth` counts the levels inside until its st_end().
 */
#include "state/state.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/assert.h"

#define STATE_MAGIC	"SKS1"
#define STATE_MAGIC_LEN 4
#define STATE_DEPTH_MAX 16
#define STATE_NAME_MAX	63
#define STATE_FIELD_MAX 4096 /* fields in the open groups together */

enum tag {
	TAG_GROUP = 0x01,
	TAG_GROUP_END = 0x02,
	TAG_BOOL = 0x10,
	TAG_U8 = 0x11,
	TAG_U16 = 0x12,
	TAG_U32 = 0x13,
	TAG_U64 = 0x14,
	TAG_I64 = 0x15,
	TAG_BYTES = 0x20,
	TAG_U32_ARRAY = 0x21,
	TAG_U64_ARRAY = 0x22,
	TAG_END = 0xff,
};

struct state {
	enum state_mode mode;
	int rc;
	struct err err;

	struct buf *out; /* save, dump */
	const u8 *bytes; /* load: what is left */
	size_t len;

	unsigned depth;
	char path[STATE_DEPTH_MAX][STATE_NAME_MAX + 1];
	/* Hashes of the names seen in each open group, the innermost last. */
	u64 *names;
	size_t name_count;
	size_t name_start[STATE_DEPTH_MAX + 1];

	bool is_optional;    /* the next field may be absent */
	unsigned skip_depth; /* > 0: inside an absent group */
};

static struct state *state_new(enum state_mode mode)
{
	struct state *s = calloc(1, sizeof(*s));

	ASSERT(s);
	s->mode = mode;
	s->names = calloc(STATE_FIELD_MAX, sizeof(s->names[0]));
	ASSERT(s->names);
	return s;
}

/* Records the first error, headed by the path of the field. */
static void fail(struct state *s, int rc, const char *name, const char *what)
{
	char path[256] = "";
	size_t n = 0;

	if (s->rc)
		return;
	for (unsigned i = 0; i < s->depth && n < sizeof(path); i++)
		n += snprintf(path + n, sizeof(path) - n, "%s/", s->path[i]);
	s->rc = err_set(&s->err, rc, "state '%.255s%.63s': %s", path,
			name ? name : "", what);
}

/* Takes n bytes from the stream; NULL (and an error) when it is cut short. */
static const u8 *take(struct state *s, const char *name, u64 n)
{
	const u8 *p = s->bytes;

	if (n > s->len) {
		fail(s, -EINVAL, name, "the stream is cut short");
		return NULL;
	}
	s->bytes += n;
	s->len -= n;
	return p;
}

struct state *state_save_new(struct buf *out)
{
	struct state *s = state_new(STATE_SAVE);

	s->out = out;
	buf_append(out, STATE_MAGIC, STATE_MAGIC_LEN);
	return s;
}

struct state *state_load_new(const u8 *bytes, size_t len)
{
	struct state *s = state_new(STATE_LOAD);
	const u8 *magic;

	s->bytes = bytes;
	s->len = len;
	magic = take(s, NULL, STATE_MAGIC_LEN);
	if (magic && memcmp(magic, STATE_MAGIC, STATE_MAGIC_LEN))
		fail(s, -EINVAL, NULL, "not a state stream of this format");
	return s;
}

struct state *state_dump_new(struct buf *out)
{
	struct state *s = state_new(STATE_DUMP);

	s->out = out;
	return s;
}

int state_finish(struct state *s, struct err *err)
{
	const u8 *end;
	int rc;

	ASSERT(s->rc || !s->depth);
	if (!s->rc && s->mode == STATE_SAVE)
		buf_append_u8(s->out, TAG_END);
	if (!s->rc && s->mode == STATE_LOAD) {
		end = take(s, NULL, 1);
		if (end && (*end != TAG_END || s->len))
			fail(s, -EINVAL, NULL,
			     "the stream has more fields than this release "
			     "knows");
	}
	rc = s->rc;
	if (rc && err)
		*err = s->err;
	free(s->names);
	free(s);
	return rc;
}

enum state_mode state_mode(const struct state *s)
{
	return s->mode;
}

bool state_is_loading(const struct state *s)
{
	return s->mode == STATE_LOAD;
}

bool state_failed(const struct state *s)
{
	return s->rc != 0;
}

/* Refuses a name that the group has had already, or that is malformed. */
static bool name_is_fresh(struct state *s, const char *name)
{
	u64 hash = 0xcbf29ce484222325; /* FNV-1a */
	size_t len = strlen(name);

	if (!len || len > STATE_NAME_MAX) {
		fail(s, -EINVAL, name, "a field's name is 1 to 63 bytes");
		return false;
	}
	for (size_t i = 0; i < len; i++)
		hash = (hash ^ (u8)name[i]) * 0x100000001b3;
	for (size_t i = s->name_start[s->depth]; i < s->name_count; i++) {
		if (s->names[i] == hash) {
			fail(s, -EEXIST, name, "the field occurs twice");
			return false;
		}
	}
	if (s->name_count == STATE_FIELD_MAX) {
		fail(s, -E2BIG, name, "too many fields");
		return false;
	}
	s->names[s->name_count++] = hash;
	return true;
}

static void save_header(struct state *s, enum tag tag, const char *name)
{
	size_t len = strlen(name);

	buf_append_u8(s->out, tag);
	buf_append_u8(s->out, (u8)len);
	buf_append(s->out, name, len);
}

/* True when the next item in the stream has this name, whatever its type. */
static bool next_is_named(const struct state *s, const char *name)
{
	size_t len = strlen(name);

	return s->len >= 2 && s->bytes[0] != TAG_GROUP_END &&
	       s->bytes[0] != TAG_END && s->bytes[1] == len &&
	       s->len - 2 >= len && !memcmp(s->bytes + 2, name, len);
}

/* Says what stands where `name` was expected. */
static void fail_unexpected(struct state *s, const char *name)
{
	char what[STATE_NAME_MAX + 48];
	char found[STATE_NAME_MAX + 1] = "";
	size_t n;

	if (!s->len) {
		fail(s, -EINVAL, name, "the stream is cut short");
		return;
	}
	if (s->bytes[0] == TAG_GROUP_END || s->bytes[0] == TAG_END) {
		fail(s, -EINVAL, name, "the field is missing");
		return;
	}
	if (s->len < 2 || s->bytes[1] > s->len - 2) {
		fail(s, -EINVAL, name, "the stream is cut short");
		return;
	}
	/* Hostile bytes: made printable. */
	n = MIN(s->bytes[1], STATE_NAME_MAX);
	for (size_t i = 0; i < n; i++) {
		u8 c = s->bytes[2 + i];

		found[i] = c >= 0x20 && c < 0x7f ? (char)c : '?';
	}
	snprintf(what, sizeof(what), "found '%s' in its place", found);
	fail(s, -EINVAL, name, what);
}

/* Every field starts here. False: there is nothing (more) to do for it. */
static bool field_begin(struct state *s, enum tag tag, const char *name)
{
	bool is_optional = s->is_optional;

	s->is_optional = false;
	if (s->rc || s->skip_depth || !name_is_fresh(s, name))
		return false;
	if (s->mode == STATE_SAVE) {
		save_header(s, tag, name);
		return true;
	}
	if (s->mode == STATE_DUMP) {
		buf_printf(s->out, "%*s%s", 2 * (int)s->depth, "", name);
		return true;
	}
	if (!next_is_named(s, name)) {
		if (is_optional && s->len)
			return false;
		fail_unexpected(s, name);
		return false;
	}
	if (s->bytes[0] != tag) {
		fail(s, -EINVAL, name, "the field has another type");
		return false;
	}
	take(s, name, 2 + strlen(name));
	return true;
}

void st_begin(struct state *s, const char *name)
{
	if (s->rc)
		return;
	if (s->skip_depth) {
		s->skip_depth++;
		return;
	}
	if (s->depth == STATE_DEPTH_MAX) {
		fail(s, -E2BIG, name, "groups are nested too deeply");
		return;
	}
	if (!field_begin(s, TAG_GROUP, name)) {
		if (!s->rc)
			s->skip_depth = 1; /* optional and absent */
		return;
	}
	if (s->mode == STATE_DUMP)
		buf_printf(s->out, ":\n");
	snprintf(s->path[s->depth], sizeof(s->path[0]), "%s", name);
	s->depth++;
	s->name_start[s->depth] = s->name_count;
}

void st_end(struct state *s)
{
	s->is_optional = false;
	if (s->rc)
		return;
	if (s->skip_depth) {
		s->skip_depth--;
		return;
	}
	ASSERT(s->depth > 0);
	if (s->mode == STATE_SAVE) {
		buf_append_u8(s->out, TAG_GROUP_END);
	} else if (s->mode == STATE_LOAD) {
		if (!s->len || s->bytes[0] != TAG_GROUP_END) {
			fail_unexpected(s, "end of group");
			return;
		}
		take(s, NULL, 1);
	}
	s->name_count = s->name_start[s->depth];
	s->depth--;
}

/* One number of n bytes. */
static void st_number(struct state *s, enum tag tag, const char *name, void *v,
		      size_t n, u64 max)
{
	const u8 *p;
	u64 value = 0;

	if (!field_begin(s, tag, name))
		return;
	memcpy(&value, v, n);
	switch (s->mode) {
	case STATE_SAVE:
		buf_append(s->out, &value, n);
		break;
	case STATE_DUMP:
		if (tag == TAG_I64)
			buf_printf(s->out, ": %" PRId64 "\n", (i64)value);
		else
			buf_printf(s->out, ": 0x%" PRIx64 "\n", value);
		break;
	case STATE_LOAD:
		p = take(s, name, n);
		if (!p)
			return;
		value = 0;
		memcpy(&value, p, n);
		if (value > max)
			fail(s, -EINVAL, name, "the value is out of range");
		else
			memcpy(v, &value, n);
		break;
	}
}

void st_bool(struct state *s, const char *name, bool *v)
{
	u8 byte = *v;

	st_number(s, TAG_BOOL, name, &byte, 1, 1);
	*v = byte;
}

void st_u8(struct state *s, const char *name, u8 *v)
{
	st_number(s, TAG_U8, name, v, sizeof(*v), UINT64_MAX);
}

void st_u16(struct state *s, const char *name, u16 *v)
{
	st_number(s, TAG_U16, name, v, sizeof(*v), UINT64_MAX);
}

void st_u32(struct state *s, const char *name, u32 *v)
{
	st_number(s, TAG_U32, name, v, sizeof(*v), UINT64_MAX);
}

void st_u64(struct state *s, const char *name, u64 *v)
{
	st_number(s, TAG_U64, name, v, sizeof(*v), UINT64_MAX);
}

void st_i64(struct state *s, const char *name, i64 *v)
{
	st_number(s, TAG_I64, name, v, sizeof(*v), UINT64_MAX);
}

static void dump_elements(struct state *s, const u8 *v, size_t count,
			  size_t width)
{
	size_t per_line = width == 1 ? 32 : 8;

	buf_printf(s->out, ": [%zu]", count);
	for (size_t i = 0; i < count; i++) {
		u64 e = 0;

		memcpy(&e, v + i * width, width);
		if (i % per_line == 0)
			buf_printf(s->out, "\n%*s", 2 * (int)s->depth + 1, "");
		buf_printf(s->out, " %0*" PRIx64, 2 * (int)width, e);
	}
	buf_printf(s->out, "\n");
}

/* min..max elements of `width` bytes; *count of them before and after. */
static void st_elements(struct state *s, enum tag tag, const char *name,
			void *v, size_t *count, size_t min, size_t max,
			size_t width)
{
	const u8 *p;
	u64 n;

	if (!field_begin(s, tag, name))
		return;
	if (s->mode == STATE_DUMP) {
		dump_elements(s, v, *count, width);
		return;
	}
	if (s->mode == STATE_SAVE) {
		ASSERT(*count >= min && *count <= max);
		ASSERT(*count <= UINT32_MAX);
		buf_append_le32(s->out, (u32)*count);
		buf_append(s->out, v, *count * width);
		return;
	}
	p = take(s, name, 4);
	if (!p)
		return;
	n = ld_le32(p);
	if (n < min || n > max) {
		fail(s, -EINVAL, name, "the field has another length");
		return;
	}
	p = take(s, name, n * width);
	if (!p)
		return;
	if (n)
		memcpy(v, p, n * width);
	*count = n;
}

void st_bytes(struct state *s, const char *name, void *v, size_t n)
{
	size_t count = n;

	st_elements(s, TAG_BYTES, name, v, &count, n, n, 1);
}

void st_u32_array(struct state *s, const char *name, u32 *v, size_t n)
{
	size_t count = n;

	st_elements(s, TAG_U32_ARRAY, name, v, &count, n, n, 4);
}

void st_u64_array(struct state *s, const char *name, u64 *v, size_t n)
{
	size_t count = n;

	st_elements(s, TAG_U64_ARRAY, name, v, &count, n, n, 8);
}

void st_var_bytes(struct state *s, const char *name, void *v, size_t *len,
		  size_t max)
{
	st_elements(s, TAG_BYTES, name, v, len, 0, max, 1);
}

void st_optional(struct state *s)
{
	s->is_optional = true;
}

void st_require(struct state *s, bool ok, const char *why)
{
	if (s->rc || s->skip_depth)
		return;
	if (s->mode == STATE_SAVE)
		ASSERT(ok);
	if (s->mode == STATE_LOAD && !ok)
		fail(s, -EINVAL, NULL, why);
}
