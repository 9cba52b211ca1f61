/* SPDX-License-Identifier: Apache-2.0 */
#include "dev/device.h"

#include <stdio.h>

#include "base/assert.h"

#define DEVICE_TYPE_MAX 32

void device_list_init(struct device_list *l)
{
	list_init(&l->devices);
}

void device_init(struct device *dev, const struct device_ops *ops,
		 const char *name)
{
	ASSERT(strlen(ops->type) < DEVICE_TYPE_MAX);
	dev->ops = ops;
	snprintf(dev->name, sizeof(dev->name), "%s", name);
	list_init(&dev->link);
}

void device_list_add(struct device_list *l, struct device *dev)
{
	ASSERT(!device_list_find(l, dev->name));
	list_add_tail(&l->devices, &dev->link);
}

struct device *device_list_find(struct device_list *l, const char *name)
{
	list_for_each (it, &l->devices) {
		struct device *dev = list_entry(it, struct device, link);

		if (!strcmp(dev->name, name))
			return dev;
	}
	return NULL;
}

void device_list_reset(struct device_list *l)
{
	list_for_each (it, &l->devices) {
		struct device *dev = list_entry(it, struct device, link);

		if (dev->ops->reset)
			dev->ops->reset(dev);
	}
}

/* The type, checked: a stream of another device's state is refused before
 * one field of it is read. */
static void device_state(struct device *dev, struct state *s)
{
	char type[DEVICE_TYPE_MAX] = {0};
	size_t len = strlen(dev->ops->type);

	memcpy(type, dev->ops->type, len);
	st_begin(s, dev->name);
	st_var_bytes(s, "type", type, &len, sizeof(type) - 1);
	st_require(s,
		   len == strlen(dev->ops->type) &&
			   !memcmp(type, dev->ops->type, len),
		   "device type differs");
	if (dev->ops->state && !state_failed(s))
		dev->ops->state(dev, s);
	st_end(s);
}

void device_list_drain(struct device_list *l)
{
	list_for_each (it, &l->devices) {
		struct device *dev = list_entry(it, struct device, link);

		if (dev->ops->drain)
			dev->ops->drain(dev);
	}
}

void device_list_state(struct device_list *l, struct state *s)
{
	u32 have = 0, n;

	list_for_each (it, &l->devices)
		have++;
	n = have;
	st_u32(s, "device_count", &n);
	st_require(s, n == have, "number of devices differs");
	list_for_each (it, &l->devices)
		device_state(list_entry(it, struct device, link), s);
	if (!state_is_loading(s) || state_failed(s))
		return;
	list_for_each (it, &l->devices) {
		struct device *dev = list_entry(it, struct device, link);

		if (dev->ops->post_load)
			dev->ops->post_load(dev);
	}
}

void device_list_free(struct device_list *l)
{
	while (!list_is_empty(&l->devices)) {
		struct device *dev =
			list_entry(l->devices.prev, struct device, link);

		list_del(&dev->link);
		if (dev->ops->free)
			dev->ops->free(dev);
	}
}
