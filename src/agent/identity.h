/* SPDX-License-Identifier: Apache-2.0 */
/* Makes this guest another machine than the one that it is a copy of. */
#pragma once

#include "api/agent_proto.h"

/* Does all of it that can be done; err names what could not. Not SSH host
 * keys: who runs services that need new ones makes them. */
int identity_set(const struct agent_identity *id, struct err *err);
