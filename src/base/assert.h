/* SPDX-License-Identifier: Apache-2.0 */
/* ASSERT stays on in release builds. It states what this program guarantees
 * itself; it is never applied to bytes from a guest, an image, a peer or the
 * API. */
#pragma once

#include "base/types.h"

void assert_fail(const char *expr, const char *file, int line) NORETURN;

#define ASSERT(e)                                                              \
	do {                                                                   \
		if (unlikely(!(e)))                                            \
			assert_fail(#e, __FILE__, __LINE__);                   \
	} while (0)
