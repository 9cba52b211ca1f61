/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/power.h"

#include <errno.h>
#include <sys/reboot.h>
#include <unistd.h>

int power_off(bool is_quick)
{
	if (access("/run/systemd/system", F_OK) == 0) {
		execlp("systemctl", "systemctl", "poweroff",
		       is_quick ? "--force" : "--no-block", (char *)NULL);
		/* Not found: fall through to the kernel. */
	}
	sync();
	reboot(RB_POWER_OFF);
	return -errno;
}
