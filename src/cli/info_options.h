/* SPDX-License-Identifier: Apache-2.0 */
/* The options of info. */
#pragma once

#include "cli/cli.h"

struct info_options {
	bool engine, json;
};
