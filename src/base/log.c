/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static enum log_level log_level = LOG_WARN;
static const char *log_prefix = "skerry";

void log_set_level(enum log_level level)
{
	log_level = level;
}

void log_set_prefix(const char *prefix)
{
	log_prefix = prefix;
}

void log_write(enum log_level level, const char *fmt, ...)
{
	static const char *const names[] = {"error", "warning", "info",
					    "debug"};
	char shorter[1024], *text = NULL;
	va_list ap;

	if (level > log_level)
		return;
	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		text = NULL;
	va_end(ap);
	if (!text) {
		va_start(ap, fmt);
		vsnprintf(shorter, sizeof(shorter), fmt, ap);
		va_end(ap);
	}
	/* One call, one line: others write to the same file. */
	fprintf(stderr, "%s: %s: %s\n", log_prefix, names[level],
		text ? text : shorter);
	free(text);
}

bool log_limit_pass(struct log_limit *limit)
{
	struct timespec ts;
	u64 now_ns;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	now_ns = (u64)ts.tv_sec * 1000000000ull + (u64)ts.tv_nsec;
	/* Races between threads cost at most a few lines more. */
	if (now_ns >= limit->next_ns) {
		limit->next_ns = now_ns + 1000000000ull;
		limit->tokens += limit->tokens < 10;
	}
	if (limit->tokens == 0) {
		limit->dropped++;
		return false;
	}
	limit->tokens--;
	return true;
}
