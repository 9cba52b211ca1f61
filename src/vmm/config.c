/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>

#include "vmm/vmm.h"

static int take_fd(int *fds, int index)
{
	int fd;

	if (index < 0)
		return -1;
	fd = fds[index];
	fds[index] = -1;
	return fd;
}

static enum machine_engine engine_from_api(enum api_engine e)
{
	switch (e) {
	case API_ENGINE_SOFT:
		return MACHINE_ENGINE_SOFT;
	case API_ENGINE_KVM:
		return MACHINE_ENGINE_KVM;
	case API_ENGINE_AUTO:
		break;
	}
	return MACHINE_ENGINE_AUTO;
}

static int disks_from_api(const struct api_machine_config *api, int *fds,
			  struct machine_config *out, struct err *err)
{
	if (api->disk_count > MACHINE_DISKS_MAX)
		return err_set(err, -E2BIG, "a machine has at most %d disks",
			       MACHINE_DISKS_MAX);
	for (u32 i = 0; i < api->disk_count; i++) {
		const struct api_disk *a = &api->disks[i];
		struct machine_disk *d = &out->disks[i];

		d->fd = take_fd(fds, a->fd);
		d->how.format = a->format; /* config outlives the machine */
		d->how.is_read_only = a->is_read_only;
		d->how.cache = BLOCK_WRITEBACK;
		d->how.layer_count = a->layer_count;
		for (u32 j = 0; j < a->layer_count; j++)
			d->layers[j] = (struct block_layer){
				take_fd(fds, a->layers[j].fd),
				a->layers[j].format};
		snprintf(d->serial, sizeof(d->serial), "%s", a->serial);
		out->disk_count++;
	}
	return 0;
}

static int parse_mac(const char *text, u8 out[6])
{
	char rest;

	if (strlen(text) != 17 ||
	    sscanf(text, "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx%c", &out[0],
		   &out[1], &out[2], &out[3], &out[4], &out[5], &rest) != 6 ||
	    (out[0] & 1)) /* a group's */
		return -EINVAL;
	return 0;
}

int config_from_api(const struct api_machine_config *api, int *fds,
		    struct machine_config *out, struct err *err)
{
	memset(out, 0, sizeof(*out));
	snprintf(out->name, sizeof(out->name), "%s", api->name);
	out->cpus = api->cpus;
	out->memory_bytes = api->memory_bytes;
	out->engine = engine_from_api(api->engine);
	out->tsc_khz = api->tsc_khz;
	out->kvm_refused = api->kvm_refused;
	out->cpu_model = api->cpu_model[0] ? api->cpu_model : NULL;
	out->memory_fd = take_fd(fds, api->restore_memory_fd);
	out->kernel_fd = take_fd(fds, api->kernel_fd);
	if (api->initrd_fd >= 0)
		out->module_fds[out->module_count++] =
			take_fd(fds, api->initrd_fd);
	out->cmdline = api->append;
	out->has_network = api->network == API_NETWORK_USER;
	for (u32 i = 0; i < api->forward_count; i++)
		out->forwards[out->forward_count++] = (struct net_forward){
			.is_udp = api->forwards[i].is_udp,
			.host_addr = api->forwards[i].host_addr,
			.host_port = api->forwards[i].host_port,
			.guest_port = api->forwards[i].guest_port,
		};
	out->vsock_cid = api->vsock_cid;
	out->has_new_identity = api->new_identity;
	if (api->mac[0] && parse_mac(api->mac, out->mac) < 0)
		return err_set(err, -EINVAL, "mac: '%s' is not a MAC address",
			       api->mac);
	out->has_virtio_console = api->console == API_CONSOLE_VIRTIO;
	out->has_debug_exit = api->debug_exit;
	out->has_test_devices = api->test_devices;
	out->no_reboot = api->no_reboot;
	out->lockstep_every = api->lockstep_every;
	out->debugcon_fd = take_fd(fds, api->debugcon_fd);
	return disks_from_api(api, fds, out, err);
}
