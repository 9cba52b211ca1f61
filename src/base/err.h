/* SPDX-License-Identifier: Apache-2.0 */
/* An error that a person will read: a negative errno and one line of text.
 *
 * Rules: fixed size, no allocation; a NULL struct err is allowed everywhere;
 * it is untouched on success. The callee that sees the failure calls err_set,
 * callers that can add what was attempted call err_wrap, and only the
 * outermost caller prints. Text: lower case, the object in single quotes, no
 * full stop, no function name.
 */
#pragma once

#include "base/types.h"

#define ERR_TEXT_MAX 512

struct err {
	int code; /* negative errno; 0 when unset */
	char id[48]; /* stable id for the API ("image.locked"), or "" */
	char text[ERR_TEXT_MAX];
};

/* Sets the error and returns code, a negative errno, so that a caller can
 * write: return err_set(err, -EINVAL, "…"). */
int err_set(struct err *err, int code, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* err_set with ": <strerror(-code)>" appended. */
int err_sys(struct err *err, int code, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* Gives the error a stable id. */
void err_set_id(struct err *err, const char *id);

/* Prepends "<text>: " to an error that is set. Returns err->code; without an
 * error struct -EIO, since the callee's code is not known here. */
int err_wrap(struct err *err, const char *fmt, ...) PRINTF_LIKE(2, 3);
