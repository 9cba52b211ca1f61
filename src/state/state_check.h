/* SPDX-License-Identifier: Apache-2.0 */
/* The round-trip test that each device's state function must pass. For unit
 * tests.
 *
 * a and b are two instances, b fresh and built like a. Checks that
 *	- a saves, and its bytes load into b;
 *	- b then saves the same bytes;
 *	- both dump without an error;
 *	- every truncation of the bytes is refused (all of them up to 4 KiB,
 *	  beyond that about 4,096 places spread over the rest).
 * What b holds afterwards is undefined.
 */
#pragma once

#include "state/state.h"

/* 0, or -EINVAL with what went wrong. */
int state_check_round_trip(void (*fn)(void *opaque, struct state *s), void *a,
			   void *b, struct err *err);
