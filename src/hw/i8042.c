/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY: the PC/AT keyboard controller
 *
 * One output byte at a time, with the reply of a keyboard command queued
 * behind it (at most REPLY_MAX bytes; a full queue drops the newest). There
 * is no auxiliary device. Reset and A20 are what it is for.
 */
#include <stdlib.h>

#include "hw/reset_ctl.h"

#define STATUS_OUTPUT	0x01
#define STATUS_SYSTEM	0x04
#define STATUS_COMMAND	0x08
#define STATUS_UNLOCKED 0x10
#define CONFIG_IRQ1	0x01
#define CONFIG_BOOT	0x74 /* system flag, both off, translate */
#define OUTPUT_RUN	0x01 /* low: reset */
#define OUTPUT_BOOT	0xcf /* A20 on */
#define REPLY_MAX	8
#define KEYBOARD_ACK	0xfa

struct i8042 {
	struct device dev;
	struct mem *mem;
	struct irq irq1;
	struct hw_request reset;
	struct io_region ports60, ports64;
	bool is_requested;
	bool was_command;
	u8 command; /* waiting for its byte at 0x60; 0: none */
	u8 config;
	u8 reply[REPLY_MAX];
	size_t reply_len;
};

static void line_update(struct i8042 *k)
{
	irq_set(&k->irq1, k->reply_len && (k->config & CONFIG_IRQ1));
}

static void reply(struct i8042 *k, u8 v)
{
	if (k->reply_len < REPLY_MAX)
		k->reply[k->reply_len++] = v;
}

static void request(struct i8042 *k)
{
	if (k->is_requested)
		return;
	k->is_requested = true;
	hw_request(&k->reset);
}

static u64 read60(void *opaque, u64 off, unsigned size)
{
	struct i8042 *k = opaque;
	u8 v = k->reply[0];

	if (!k->reply_len)
		return 0;
	memmove(k->reply, k->reply + 1, --k->reply_len);
	irq_set(&k->irq1, false);
	line_update(k);
	return v;
}

static void keyboard_write(struct i8042 *k, u8 v)
{
	reply(k, KEYBOARD_ACK);
	if (v == 0xff) {
		reply(k, 0xaa);
	} else if (v == 0xf2) {
		reply(k, 0xab);
		reply(k, 0x83);
	}
}

static void write60(void *opaque, u64 off, unsigned size, u64 value)
{
	struct i8042 *k = opaque;
	u8 command = k->command, v = value;

	k->command = 0;
	k->was_command = false;
	switch (command) {
	case 0:
		keyboard_write(k, v);
		break;
	case 0x60:
		k->config = v;
		break;
	case 0xd1:
		if (!(v & OUTPUT_RUN))
			request(k);
		break;
	case 0xd2:
		reply(k, v);
		break;
	}
	line_update(k);
}

static u64 read64(void *opaque, u64 off, unsigned size)
{
	struct i8042 *k = opaque;

	return STATUS_UNLOCKED | (k->config & STATUS_SYSTEM) |
	       (k->was_command ? STATUS_COMMAND : 0) |
	       (k->reply_len ? STATUS_OUTPUT : 0);
}

static void write64(void *opaque, u64 off, unsigned size, u64 v)
{
	struct i8042 *k = opaque;

	k->was_command = true;
	k->command = 0;
	switch (v & 0xff) {
	case 0x20:
		reply(k, k->config);
		break;
	case 0x60: /* these take a byte at 0x60 */
	case 0xd1:
	case 0xd2:
	case 0xd3:
	case 0xd4:
		k->command = v;
		break;
	case 0xaa:
		k->config |= STATUS_SYSTEM;
		reply(k, 0x55);
		break;
	case 0xab:
		reply(k, 0);
		break;
	case 0xad:
		k->config |= 0x10;
		break;
	case 0xae:
		k->config &= ~0x10;
		break;
	case 0xd0:
		reply(k, OUTPUT_BOOT);
		break;
	case 0xf0 ... 0xff: /* pulses output lines; bit 0 is reset */
		if (!(v & OUTPUT_RUN))
			request(k);
		break;
	}
	line_update(k);
}

static const struct io_ops ops60 = {
	.read = read60,
	.write = write60,
	.max_size = 1,
};
static const struct io_ops ops64 = {
	.read = read64,
	.write = write64,
	.max_size = 1,
};

static void i8042_reset(struct device *dev)
{
	struct i8042 *k = container_of(dev, struct i8042, dev);

	k->is_requested = k->was_command = false;
	k->command = 0;
	k->config = CONFIG_BOOT;
	k->reply_len = 0;
	line_update(k);
}

static void i8042_state(struct device *dev, struct state *s)
{
	struct i8042 *k = container_of(dev, struct i8042, dev);

	st_bool(s, "was_command", &k->was_command);
	st_u8(s, "command", &k->command);
	st_u8(s, "config", &k->config);
	st_var_bytes(s, "reply", k->reply, &k->reply_len, REPLY_MAX);
}

static void i8042_post_load(struct device *dev)
{
	line_update(container_of(dev, struct i8042, dev));
}

static void i8042_free(struct device *dev)
{
	struct i8042 *k = container_of(dev, struct i8042, dev);

	mem_io_del(k->mem, &k->ports60);
	mem_io_del(k->mem, &k->ports64);
	free(k);
}

struct i8042 *i8042_new(const struct hw_env *env, struct irq irq1,
			struct hw_request reset)
{
	static const struct device_ops ops = {
		.type = "i8042",
		.reset = i8042_reset,
		.state = i8042_state,
		.post_load = i8042_post_load,
		.free = i8042_free,
	};
	struct i8042 *k = hw_chip_new(env, sizeof(*k), &ops, "kbc0");

	k->mem = env->mem;
	k->irq1 = irq1;
	k->reset = reset;
	hw_map(env, &k->ports60, "i8042-60", IO_PIO, 0x60, 1, &ops60, k);
	hw_map(env, &k->ports64, "i8042-64", IO_PIO, 0x64, 1, &ops64, k);
	i8042_reset(&k->dev);
	return k;
}
