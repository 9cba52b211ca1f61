/* SPDX-License-Identifier: Apache-2.0 */
/* A hash table with open addressing: inserts, finds and deletes of words. */
#include "work.h"

enum { SLOTS = 1 << 18, KEYS = 150000, ROUNDS = 20 };

struct slot {
	char key[16];
	u32 value;
	u32 state; /* 0 empty, 1 used, 2 deleted */
};

static u32 hash(const char *key)
{
	u32 h = 2166136261u;

	for (; *key; key++)
		h = (h ^ (u8)*key) * 16777619u;
	return h;
}

static struct slot *find(struct slot *table, const char *key, int is_insert)
{
	struct slot *grave = NULL;

	for (u32 i = hash(key);; i++) {
		struct slot *s = &table[i % SLOTS];

		if (s->state == 1 && strcmp(s->key, key) == 0)
			return s;
		if (s->state == 2 && !grave)
			grave = s;
		if (s->state == 0)
			return !is_insert ? NULL : grave ? grave : s;
	}
}

static void make_key(char *out, u64 *seed)
{
	u64 r = work_random(seed);
	int n = 6 + r % 9;

	for (int i = 0; i < n; i++, r = r / 26 + work_random(seed) * (i == 8))
		out[i] = 'a' + r % 26;
	out[n] = 0;
}

int main(void)
{
	struct slot *table = calloc(SLOTS, sizeof(*table)), *s;
	u64 sum = 0;
	char key[16];

	work_check(table != NULL, "calloc");
	for (int round = 0; round < ROUNDS; round++) {
		u64 seed = 7;

		for (int i = 0; i < KEYS; i++) {
			make_key(key, &seed);
			s = find(table, key, 1);
			if (s->state != 1)
				strcpy(s->key, key);
			s->state = 1;
			s->value += i;
		}
		seed = 7;
		for (int i = 0; i < KEYS; i++) {
			make_key(key, &seed);
			s = find(table, key, 0);
			sum = work_mix(sum, s ? s->value : 0);
			if (s && i % 3 == round % 3)
				s->state = 2;
		}
	}
	return work_end("hash", sum);
}
