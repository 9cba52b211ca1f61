/* SPDX-License-Identifier: Apache-2.0 */
/* Who this guest is, and telling the host so once. */
#pragma once

#include "api/agent_proto.h"

void hello_fill(struct agent_hello *out);

/* Tries once to tell the host; true when it has answered. */
bool hello_send_once(void);
/* Tries once a second, for as long as it takes, to tell the host that the
 * agent is there. Returns when the host has answered. */
void hello_send_ready(void);
