/* SPDX-License-Identifier: Apache-2.0 */
#include "net/net.h"

void net_backend_attach(struct net_backend *b, const struct net_client_ops *c,
			void *opaque)
{
	b->client = c;
	b->client_opaque = opaque;
}
