/* SPDX-License-Identifier: Apache-2.0 */
/* Threads with a name and all signals blocked (the main thread handles them;
 * a thread that wants one, a kick say, unblocks it itself). */
#pragma once

#include <pthread.h>

#include "base/err.h"

/* The name is cut to 15 bytes. 0 or -errno. */
int os_thread_start(pthread_t *out_thread, const char *name,
		    void *(*fn)(void *opaque), void *opaque, struct err *err);
