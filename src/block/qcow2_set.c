/* SPDX-License-Identifier: Apache-2.0 */
/* A set of offsets: open addressing, half full at most. What was deleted
 * counts until the set grows. */
#include <stdlib.h>

#include "base/assert.h"
#include "block/qcow2_int.h"

#define GONE 1 /* was a key */

static u64 place(const struct qcow2_set *s, u64 key)
{
	u64 i = (key >> 9) * 0x9e3779b97f4a7c15ull >> 20 & s->mask;

	while (s->keys[i] && s->keys[i] != key)
		i = (i + 1) & s->mask;
	return i;
}

static void grow(struct qcow2_set *s)
{
	struct qcow2_set bigger = {.mask = s->keys ? s->mask * 2 + 1 : 63};

	bigger.keys = calloc(bigger.mask + 1, sizeof(u64));
	ASSERT(bigger.keys);
	for (u64 i = 0; s->keys && i <= s->mask; i++)
		if (s->keys[i] > GONE)
			bigger.keys[place(&bigger, s->keys[i])] = s->keys[i];
	bigger.count = s->count;
	free(s->keys);
	*s = bigger;
}

bool qcow2_set_add(struct qcow2_set *s, u64 key)
{
	u64 i;

	ASSERT(key);
	if (!s->keys || s->count * 2 > s->mask)
		grow(s);
	i = place(s, key);
	if (s->keys[i])
		return false;
	s->keys[i] = key;
	s->count++;
	return true;
}

bool qcow2_set_has(const struct qcow2_set *s, u64 key)
{
	return s->keys && s->keys[place(s, key)] == key;
}

void qcow2_set_del(struct qcow2_set *s, u64 key)
{
	u64 i;

	if (!s->keys)
		return;
	i = place(s, key);
	if (s->keys[i])
		s->keys[i] = GONE;
}

void qcow2_set_fini(struct qcow2_set *s)
{
	free(s->keys);
	memset(s, 0, sizeof(*s));
}
