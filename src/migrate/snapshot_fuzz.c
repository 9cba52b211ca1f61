/* SPDX-License-Identifier: Apache-2.0 */
/* A snapshot's state file of any content is refused, or what is in it lies
 * inside it. */
#include <stdlib.h>

#include "base/assert.h"
#include "migrate/memory_save.h"
#include "migrate/snapshot_file.h"

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t len);

static void look(const void *p, size_t n, const u8 *bytes, size_t len)
{
	const u8 *at = p;

	ASSERT(at >= bytes && n <= len && at <= bytes + len - n);
}

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t len)
{
	struct snapshot_file f;
	struct err err = {0};

	if (snapshot_file_read(bytes, len, &f, &err) < 0) {
		ASSERT(err.text[0]);
		return 0;
	}
	look(f.config, f.config_bytes, bytes, len);
	look(f.state, f.state_bytes, bytes, len);
	look(f.sums, f.sum_count * sizeof(u32), bytes, len);
	ASSERT(f.sum_count == memory_chunk_count(f.memory_bytes));
	return 0;
}
