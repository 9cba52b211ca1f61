/* SPDX-License-Identifier: Apache-2.0 */
/* What the machine asks of the software engine besides struct engine_ops. */
#pragma once

#include "base/types.h"

/* The host's TSC frequency in kHz; slow (up to 50 ms): once per VM. */
u64 soft_tsc_khz_measure(void);
