/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY. A guest that goes on from a snapshot may be the second one to do so:
 * what it holds for unique or secret is another machine's, too. The generation
 * id tells its kernel, always, which then seeds its random numbers anew. With
 * cfg.new_mac it is another machine: it gets that MAC address, the vsock id of
 * the configuration (which is not in the stream; the driver reads it again
 * because its transport is reset) and, from the next boot on, another SMBIOS
 * UUID. The agent does what the kernel cannot (agent/identity.c).
 */
#include "machine/machine_int.h"

#include <errno.h>
#include <stdio.h>
#include <sys/random.h>

#include "hw/acpi_pm.h"
#include "virtio/net.h"

/* RFC 4122 §4.4: random. */
int identity_uuid(u8 out[16], struct err *err)
{
	if (getrandom(out, 16, 0) != 16)
		return err_set(err, -EIO, "no randomness for a machine id");
	out[6] = (out[6] & 0x0f) | 0x40;
	out[8] = (out[8] & 0x3f) | 0x80;
	return 0;
}

int identity_mac(const struct machine_config *cfg, u8 out[6], struct err *err)
{
	static const u8 none[6];

	if (memcmp(cfg->mac, none, 6)) {
		memcpy(out, cfg->mac, 6);
		return 0;
	}
	/* Locally administered; the rest is random. */
	if (getrandom(out, 6, 0) != 6)
		return err_set(err, -EIO, "no randomness for a MAC address");
	out[0] = 0x52;
	out[1] = 0x54;
	out[2] = 0x00;
	return 0;
}

int identity_generation(struct machine *m, struct err *err)
{
	u8 id[16];
	int rc = identity_uuid(id, err);

	if (rc == 0 && mem_write(m->mem, BOOT_GENERATION_GPA, id, 16) < 0)
		rc = err_set(err, -ENOMEM, "no memory for a generation id");
	return rc;
}

int identity_after_load(struct machine *m, struct err *err)
{
	int rc = identity_generation(m, err);

	if (rc == 0)
		acpi_pm_gpe(m->acpi_pm, ACPI_GPE_GENERATION);
	if (rc < 0 || !m->cfg.has_new_identity)
		return rc;
	if (m->net_device) {
		u8 mac[6];

		rc = identity_mac(&m->cfg, mac, err);
		if (rc == 0)
			virtio_net_set_mac(m->net_device, mac);
	}
	return rc ? rc : identity_uuid(m->uuid, err);
}
