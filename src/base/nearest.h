/* SPDX-License-Identifier: Apache-2.0 */
/* The nearest known word to one that a person mistyped: for "unknown option
 * '--memry' (did you mean '--memory'?)". */
#pragma once

#include "base/types.h"

/* Edit distance (insert, delete, replace, swap of neighbours: 1 each), with
 * both words cut at 63 bytes. */
unsigned nearest_distance(const char *a, const char *b);

/* Walks words through name_at(opaque, i) until it returns NULL. Returns the
 * nearest one, or NULL when none is near enough to be meant. */
const char *nearest_word(const char *word,
			 const char *(*name_at)(const void *opaque, size_t i),
			 const void *opaque);
