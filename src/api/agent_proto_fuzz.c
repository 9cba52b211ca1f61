/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a stream of agent frames: every payload parser runs on every
 * frame, and what parses must survive a round trip. */
#include "api/agent_proto.h"
#include "base/assert.h"

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t len);

static void try_payloads(const struct agent_frame *f)
{
	struct agent_hello hello;
	struct agent_exec exec;
	struct agent_exit how;
	struct err err = {0};
	struct agent_frame again;
	struct buf b;

	buf_init(&b);
	if (agent_exec_parse(f, &exec) == 0) {
		ASSERT(agent_exec_append(&b, &exec) == 0);
		ASSERT(agent_frame_parse(b.bytes, b.len, &again) == (int)b.len);
		ASSERT(again.len == f->len);
		ASSERT(memcmp(again.payload, f->payload, f->len) == 0);
	}
	buf_reset(&b);
	if (agent_hello_parse(f, &hello) == 0)
		agent_hello_append(&b, &hello);
	if (agent_exit_parse(f, &how) == 0)
		agent_exit_append(&b, &how);
	agent_error_parse(f, &err);
	ASSERT(err.code < 0);
	buf_fini(&b);
}

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t len)
{
	struct agent_frame f;
	int n;

	/* As payloads of each type ... */
	if (len && len <= AGENT_PAYLOAD_MAX) {
		f = (struct agent_frame){
			.type = bytes[0] % AGENT_FRAME_TYPE_END,
			.len = len - 1,
			.payload = bytes + 1,
		};
		try_payloads(&f);
	}
	/* ... and as a stream. */
	while ((n = agent_frame_parse(bytes, len, &f)) > 0) {
		try_payloads(&f);
		bytes += n;
		len -= n;
	}
	return 0;
}
