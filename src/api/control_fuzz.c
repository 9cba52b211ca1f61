/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a control message, then as a machine config: a config that is
 * accepted must be accepted again after being written. */
#include "api/control.h"
#include "api/machine_config.h"
#include "base/assert.h"

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t len);

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t len)
{
	static struct api_machine_config c, again;
	struct control_request req;
	struct control_status st;
	struct err err = {0};
	json_t *msg = NULL, *copy;

	if (control_parse(bytes, len, &msg, &err)) {
		ASSERT(err.code < 0 && !msg);
		return 0;
	}
	control_request_parse(msg, 1, &req, &err);
	control_status_from_json(msg, &st, &err);
	if (api_machine_config_from_json(msg, 8, &c, &err) == 0) {
		copy = api_machine_config_to_json(&c);
		ASSERT(api_machine_config_from_json(copy, 8, &again, &err) ==
		       0);
		json_decref(copy);
	}
	json_decref(msg);
	return 0;
}
