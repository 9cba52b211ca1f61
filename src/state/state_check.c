/* SPDX-License-Identifier: Apache-2.0 */
#include "state/state_check.h"

#include <errno.h>
#include <stdlib.h>

#include "base/assert.h"

typedef void (*state_fn)(void *opaque, struct state *s);

static int save(state_fn fn, void *opaque, struct buf *out, struct err *err)
{
	struct state *s = state_save_new(out);

	fn(opaque, s);
	return state_finish(s, err);
}

static int load(state_fn fn, void *opaque, const u8 *bytes, size_t len,
		struct err *err)
{
	/* A copy of the exact size: a sanitizer sees each byte beyond it. */
	u8 *copy = malloc(len ? len : 1);
	struct state *s;
	int rc;

	ASSERT(copy);
	memcpy(copy, bytes, len);
	s = state_load_new(copy, len);
	fn(opaque, s);
	rc = state_finish(s, err);
	free(copy);
	return rc;
}

static int dump(state_fn fn, void *opaque, struct err *err)
{
	struct state *s;
	struct buf text;
	int rc;

	buf_init(&text);
	s = state_dump_new(&text);
	fn(opaque, s);
	rc = state_finish(s, err);
	buf_fini(&text);
	return rc;
}

static int check_truncations(state_fn fn, void *b, const struct buf *saved,
			     struct err *err)
{
	size_t step = 1;

	for (size_t n = 0; n < saved->len; n += step) {
		if (!load(fn, b, saved->bytes, n, NULL))
			return err_set(err, -EINVAL,
				       "%zu of %zu bytes are loaded without "
				       "an error",
				       n, saved->len);
		if (n >= 4096)
			step = 1 + saved->len / 4096;
	}
	return 0;
}

static int check(state_fn fn, void *a, void *b, struct buf *first,
		 struct buf *second, struct err *err)
{
	if (save(fn, a, first, err))
		return err_wrap(err, "save");
	if (load(fn, b, first->bytes, first->len, err))
		return err_wrap(err, "load what was saved");
	if (save(fn, b, second, err))
		return err_wrap(err, "save what was loaded");
	if (first->len != second->len ||
	    memcmp(first->bytes, second->bytes, first->len))
		return err_set(err, -EINVAL,
			       "what was loaded is saved as other bytes");
	if (dump(fn, a, err) || dump(fn, b, err))
		return err_wrap(err, "dump");
	return check_truncations(fn, b, first, err);
}

int state_check_round_trip(state_fn fn, void *a, void *b, struct err *err)
{
	struct buf first, second;
	int rc;

	buf_init(&first);
	buf_init(&second);
	rc = check(fn, a, b, &first, &second, err);
	buf_fini(&first);
	buf_fini(&second);
	return rc ? -EINVAL : 0;
}
