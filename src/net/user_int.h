/* SPDX-License-Identifier: Apache-2.0 */
/* For net/ and its tests only. */
#pragma once

#include "net/net.h"

struct user_options {
	const struct net_forward *forwards;
	size_t forward_count;
	bool is_restricted; /* the guest reaches only the gateway's services */
};

int user_open(struct loop *loop, const struct user_options *how,
	      struct net_backend **out, struct err *err);
