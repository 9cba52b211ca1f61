/* SPDX-License-Identifier: Apache-2.0 */
/* Diagnostics to stderr, one line a call. The level is the one writable
 * global of base: set it once in main. Thread-safe. What a guest can provoke
 * goes through log_guest(), which is rate-limited: a guest that floods it
 * costs a bounded amount of host output. */
#pragma once

#include "base/types.h"

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

void log_set_level(enum log_level level);
/* Prefix of each line ("skerry-vmm[web]"); the pointer is kept. */
void log_set_prefix(const char *prefix);
void log_write(enum log_level level, const char *fmt, ...) PRINTF_LIKE(2, 3);

#define log_error(...) log_write(LOG_ERROR, __VA_ARGS__)
#define log_warn(...)  log_write(LOG_WARN, __VA_ARGS__)
#define log_info(...)  log_write(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_write(LOG_DEBUG, __VA_ARGS__)

/* Token bucket: at most 10 lines, then one a second. Static per call site. */
struct log_limit {
	u64 next_ns;
	u32 tokens;
	u32 dropped;
};
bool log_limit_pass(struct log_limit *limit);

#define log_guest(...)                                                         \
	do {                                                                   \
		static struct log_limit log_limit_ = {.tokens = 10};           \
		if (log_limit_pass(&log_limit_))                               \
			log_write(LOG_WARN, __VA_ARGS__);                      \
	} while (0)
