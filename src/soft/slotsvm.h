/* SPDX-License-Identifier: Apache-2.0 */
/* For the machines of tests: with SKERRY_TEST_SLOTS in the environment all
 * translated user code has slots (slots.h). tests/meson.build runs the tests
 * whose entries say `slots` in that way, too. */
#pragma once

#include <stdlib.h>

#include "soft/slots.h"

static inline void slots_force_by_env(struct engine_vm *vm)
{
	if (vm->xlat && getenv("SKERRY_TEST_SLOTS"))
		slots_force(vm->xlat);
}
