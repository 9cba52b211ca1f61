/* SPDX-License-Identifier: Apache-2.0 */
/* A machine's state as a stream: what was saved is what a load saves again; a
 * stream of another machine, or of nobody, is refused with a reason. */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "machine/machine.h"
#include "test/test.h"

#define CPUS	  2u
#define MUTATIONS 60

struct box {
	struct loop *loop;
	struct chardev *console;
	struct machine *m;
};

static void ended(void *opaque, enum machine_end end, int status,
		  const char *detail)
{
	fail_msg("the machine ended: %s", detail);
}

static void box_open(struct box *b, u32 cpus, u64 memory_bytes, u64 vsock_cid)
{
	static const struct machine_events events = {.ended = ended};
	struct machine_config cfg = {
		.name = "box",
		.cpus = cpus,
		.memory_bytes = memory_bytes,
		.engine = MACHINE_ENGINE_SOFT,
		.memory_fd = -1,
		.kernel_fd = memfd_create("kernel", 0),
		.vsock_cid = vsock_cid,
		.has_virtio_console = true,
		.has_test_devices = true,
		.debugcon_fd = -1,
	};
	struct err err = {0};

	b->loop = loop_new(NULL);
	assert_non_null(b->loop);
	b->console = chardev_new(b->loop);
	if (machine_new(&cfg, b->loop, b->console, &events, &b->m, &err) < 0)
		fail_msg("%s", err.text);
}

static void box_close(struct box *b)
{
	machine_free(b->m);
	chardev_free(b->console);
	loop_free(b->loop);
}

static struct buf saved_by(struct box *b)
{
	struct err err = {0};
	struct buf out;

	buf_init(&out);
	if (machine_save(b->m, &out, &err) < 0)
		fail_msg("%s", err.text);
	return out;
}

static void what_is_loaded_saves_the_same(void **state)
{
	struct buf first, second;
	struct box a, b;
	struct err err = {0};
	size_t differing = 0;

	(void)state;
	box_open(&a, CPUS, 16 * MIB, 3);
	box_open(&b, CPUS, 16 * MIB, 3);
	first = saved_by(&a);
	if (machine_load(b.m, first.bytes, first.len, &err) < 0)
		fail_msg("%s", err.text);
	second = saved_by(&b);
	assert_int_equal(first.len, second.len);
	for (size_t i = 0; i < first.len; i++)
		differing += first.bytes[i] != second.bytes[i];
	/* The TSC of each vCPU has gone on. */
	assert_in_range(differing, 1, CPUS * sizeof(u64));
	buf_fini(&first);
	buf_fini(&second);
	box_close(&a);
	box_close(&b);
}

static void hostile_71_the_stream_of_another_machine_is_refused(void **state)
{
	static const struct {
		u32 cpus;
		u64 memory_bytes, vsock_cid;
		const char *why;
	} others[] = {
		{1, 16 * MIB, 3, "number of CPUs"},
		{CPUS, 17 * MIB, 3, "size of the memory"},
		{CPUS, 16 * MIB, 0, "number of devices"},
	};
	struct buf bytes;
	struct box a, b;

	(void)state;
	box_open(&a, CPUS, 16 * MIB, 3);
	bytes = saved_by(&a);
	box_close(&a);
	for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
		struct err err = {0};

		box_open(&b, others[i].cpus, others[i].memory_bytes,
			 others[i].vsock_cid);
		assert_int_equal(
			machine_load(b.m, bytes.bytes, bytes.len, &err),
			-EINVAL);
		if (!strstr(err.text, others[i].why))
			fail_msg("'%s' does not say '%s'", err.text,
				 others[i].why);
		box_close(&b);
	}
	buf_fini(&bytes);
}

static u64 rng = 0x9e3779b97f4a7c15;

static u64 rnd(void)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng;
}

/* Whatever the bytes are, a load says why not, or what it has taken can be
 * saved again. */
static void hostile_70_no_stream_breaks_a_machine(void **state)
{
	struct buf bytes, again;
	struct box a, b;
	u8 *copy;

	(void)state;
	box_open(&a, 1, 16 * MIB, 3);
	bytes = saved_by(&a);
	box_close(&a);
	for (unsigned i = 0; i < MUTATIONS; i++) {
		size_t len = i % 4 ? bytes.len : rnd() % bytes.len;
		struct err err = {0};

		copy = malloc(len + 1);
		memcpy(copy, bytes.bytes, len);
		for (u64 n = 1 + rnd() % 4; len && n; n--)
			copy[rnd() % len] = (u8)(rnd() >> 32);
		box_open(&b, 1, 16 * MIB, 3);
		if (machine_load(b.m, copy, len, &err) < 0) {
			assert_true(err.text[0] != 0);
		} else {
			again = saved_by(&b);
			buf_fini(&again);
		}
		box_close(&b);
		free(copy);
	}
	buf_fini(&bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_loaded_saves_the_same),
		cmocka_unit_test(
			hostile_71_the_stream_of_another_machine_is_refused),
		cmocka_unit_test(hostile_70_no_stream_breaks_a_machine),
	};

	return test_run("machine_state", tests);
}
