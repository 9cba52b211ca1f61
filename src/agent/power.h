/* SPDX-License-Identifier: Apache-2.0 */
/* Turns the guest off: through systemd where it runs, else by itself. */
#pragma once

#include <stdbool.h>

/* is_quick: services are not stopped one by one, but processes are ended and
 * file systems are written back. Returns only on failure, a negative errno.
 */
int power_off(bool is_quick);
