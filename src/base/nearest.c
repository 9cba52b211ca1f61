/* SPDX-License-Identifier: Apache-2.0 */
#include "base/nearest.h"

#define WORD_MAX 63

unsigned nearest_distance(const char *a, const char *b)
{
	/* Three rows of the table: the swap looks two rows back. */
	unsigned rows[3][WORD_MAX + 1];
	size_t na = strnlen(a, WORD_MAX), nb = strnlen(b, WORD_MAX);

	for (size_t j = 0; j <= nb; j++)
		rows[0][j] = j;
	for (size_t i = 1; i <= na; i++) {
		unsigned *row = rows[i % 3], *up = rows[(i - 1) % 3];

		row[0] = i;
		for (size_t j = 1; j <= nb; j++) {
			unsigned best = up[j - 1] + (a[i - 1] != b[j - 1]);

			best = MIN(best, up[j] + 1);
			best = MIN(best, row[j - 1] + 1);
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] &&
			    a[i - 2] == b[j - 1])
				best = MIN(best, rows[(i - 2) % 3][j - 2] + 1);
			row[j] = best;
		}
	}
	return rows[na % 3][nb];
}

const char *nearest_word(const char *word,
			 const char *(*name_at)(const void *opaque, size_t i),
			 const void *opaque)
{
	unsigned best = strnlen(word, WORD_MAX) / 3 + 2; /* exclusive */
	const char *found = NULL, *name;

	for (size_t i = 0; (name = name_at(opaque, i)); i++) {
		unsigned d = nearest_distance(word, name);

		if (d < best && d < strlen(name)) {
			best = d;
			found = name;
		}
	}
	return found;
}
