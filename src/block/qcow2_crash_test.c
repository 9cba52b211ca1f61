/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY
 *
 * A workload runs over a file in memory that logs each write. The log is cut
 * at every place: once as a killed process leaves the file (all before the
 * cut), and as a power cut may (all before the last sync, and any of the rest).
 * Each time the image must be sound, but for leaks, and each sector must hold
 * what the last completed guest flush made durable, or what was written to it
 * later.
 */
#include "test/test.h"

#include <signal.h>
#include <sys/mman.h>

#include "block/qcow2_memfile.h"
#include "block/qcow2_testlib.h"

#define SECTOR	512
#define SECTORS 1024
#define ROOM	(4 * MIB)
#define OPS_MAX 400
#define FILLS	200 /* other bytes in each write */

/* A guest's request, as the check needs it. A sector's content is one byte
 * that is repeated. */
struct guest_op {
	enum block_op op;
	u32 first, count; /* sectors */
	u8 fill;
	size_t at; /* events in the log when it was submitted */
};

struct flushed {
	size_t at; /* events in the log when it completed */
	int ops;   /* requests that had completed before it */
};

struct story {
	struct loop *loop;
	struct memfile file;
	struct guest_op ops[OPS_MAX];
	int op_count;
	struct flushed flushes[OPS_MAX];
	int flush_count;
	u64 seed;
};

static u64 pick(struct story *s, u64 below)
{
	s->seed = s->seed * 6364136223846793005ull + 1442695040888963407ull;
	return (s->seed >> 33) % below;
}

static struct block_node *mem_open(struct loop *loop, struct memfile *file,
				   bool is_read_only, struct err *err)
{
	struct block_open how = {.format = "qcow2",
				 .is_read_only = is_read_only};
	struct block_node *node;

	return qcow2_open(loop, &file->node, NULL, &how, &node, err) ? NULL
								     : node;
}

static void batch(struct story *s, struct block_node *node, int n)
{
	static u8 bytes[8][64 * SECTOR];
	struct block_request req[8];
	struct sync_result r[8] = {0};
	struct iovec iov[8];

	for (int i = 0; i < n; i++) {
		struct guest_op *o = &s->ops[s->op_count++];
		u64 kind = pick(s, 10);

		o->op = kind < 7   ? BLOCK_WRITE
			: kind < 9 ? BLOCK_WRITE_ZEROES
				   : BLOCK_DISCARD;
		o->count = 1 + (u32)pick(s, pick(s, 3) ? 8 : 64);
		/* Apart from the others of the batch. */
		o->first = (u32)(SECTORS / n * i +
				 pick(s, SECTORS / n - o->count));
		o->fill = (u8)(1 + s->op_count % FILLS);
		o->at = s->file.events;
		memset(bytes[i], o->fill, o->count * SECTOR);
		iov[i] = (struct iovec){bytes[i], o->count * SECTOR};
		req[i] = (struct block_request){.op = o->op,
						.offset = o->first * SECTOR,
						.len = o->count * SECTOR,
						.iov = &iov[i],
						.iov_count = 1,
						.may_unmap = pick(s, 2),
						.done = sync_done,
						.opaque = &r[i]};
		block_submit(node, &req[i]);
	}
	block_drain(node);
	for (int i = 0; i < n; i++)
		assert_true(r[i].is_done);
}

static void tell(struct story *s, const struct qcow2_create *o, int batches)
{
	struct block_node *node;
	struct err err = {0};

	assert_int_equal(qcow2_create(s->loop, &s->file.node, o, &err), 0);
	s->file.keeps_log = true;
	node = mem_open(s->loop, &s->file, false, &err);
	if (!node)
		fail_msg("open: %s", err.text);
	for (int i = 0; i < batches; i++) {
		batch(s, node, 1 + (int)pick(s, 7));
		if (pick(s, 3))
			continue;
		assert_int_equal(disk_do(node, BLOCK_FLUSH, 0, NULL, 0), 0);
		s->flushes[s->flush_count++] =
			(struct flushed){s->file.events, s->op_count};
	}
	block_close(node);
}

static void event_apply(struct memfile *m, const struct memfile_event *e)
{
	if (e->op == BLOCK_WRITE) {
		memcpy(m->bytes + e->offset, e->bytes, e->len);
		m->node.file_bytes =
			MAX(m->node.file_bytes, e->offset + e->len);
	} else if (e->op == BLOCK_DISCARD && e->offset < m->room) {
		memset(m->bytes + e->offset, 0,
		       MIN(e->len, m->room - e->offset));
	}
}

/* May sector n have this content when the log was cut at `cut`? */
static bool may_hold(const struct story *s, u32 n, u8 fill, size_t cut)
{
	int durable = 0;
	u8 held = 0;
	bool fits = false;

	for (int i = 0; i < s->flush_count; i++)
		if (s->flushes[i].at <= cut)
			durable = s->flushes[i].ops;
	for (int i = 0; i < s->op_count; i++) {
		const struct guest_op *o = &s->ops[i];
		u8 gives = o->op == BLOCK_WRITE ? o->fill : 0;

		if (i == durable)
			fits = fill == held;
		if (o->at > cut && i >= durable)
			break;
		if (n < o->first || n >= o->first + o->count)
			continue;
		if (i >= durable)
			fits |= fill == gives;
		else if (o->op != BLOCK_DISCARD)
			held = gives; /* a discard leaves it, or zeros */
	}
	return fits || (s->op_count == durable && fill == held);
}

/* Was the sector ever discarded? Then zeros are right, too. */
static bool was_discarded(const struct story *s, u32 n)
{
	for (int i = 0; i < s->op_count; i++)
		if (s->ops[i].op == BLOCK_DISCARD && n >= s->ops[i].first &&
		    n < s->ops[i].first + s->ops[i].count)
			return true;
	return false;
}

static void survives(const struct story *s, struct memfile *m, size_t cut)
{
	struct qcow2_check check = {0};
	struct block_node *node;
	struct err err = {0};
	u8 *bytes;

	node = mem_open(s->loop, m, true, &err);
	if (!node)
		fail_msg("cut at %zu: %s", cut, err.text);
	assert_int_equal(qcow2_check(node, false, &check, &err), 0);
	if (check.corruptions)
		fail_msg("cut at %zu: %s", cut, check.first);
	bytes = disk_bytes(node, 64 * KIB);
	for (u32 n = 0; n < SECTORS; n++) {
		u8 *at = bytes + n * SECTOR;

		for (int i = 1; i < SECTOR; i++)
			if (at[i] != at[0])
				fail_msg("cut at %zu: sector %u is torn", cut,
					 n);
		if (!may_hold(s, n, at[0], cut) &&
		    !(at[0] == 0 && was_discarded(s, n)))
			fail_msg("cut at %zu: sector %u has %u", cut, n, at[0]);
	}
	free(bytes);
	block_close(node);
}

static void copy_state(struct memfile *to, const struct memfile *from)
{
	memcpy(to->bytes, from->bytes, ROOM);
	to->node.file_bytes = from->node.file_bytes;
}

static const struct qcow2_create kinds[] = {
	{.cluster_bits = 12},
	{.cluster_bits = 9, .refcount_bits = 64}, /* tables grow */
	{.cluster_bits = 16},
	{.cluster_bits = 14, .is_extended = true},
	{.cluster_bits = 10, .version = 2},
	{.cluster_bits = 12, .refcount_bits = 1},
};

static void cut_everywhere(struct story *s, struct memfile *start, int subsets)
{
	struct memfile now, synced, trial;
	size_t last_sync = 0;

	memfile_init(&now, ROOM);
	memfile_init(&synced, ROOM);
	memfile_init(&trial, ROOM);
	copy_state(&now, start);
	copy_state(&synced, start);
	for (size_t cut = 0; cut <= s->file.events; cut++) {
		copy_state(&trial, &now);
		survives(s, &trial, cut);
		for (int i = 0; i < subsets && cut > last_sync + 1; i++) {
			copy_state(&trial, &synced);
			for (size_t j = last_sync; j < cut; j++)
				if (pick(s, 2))
					event_apply(&trial, &s->file.log[j]);
			survives(s, &trial, cut);
		}
		if (cut == s->file.events)
			break;
		event_apply(&now, &s->file.log[cut]);
		if (s->file.log[cut].op == BLOCK_FLUSH) {
			copy_state(&synced, &now);
			last_sync = cut + 1;
		}
	}
	memfile_fini(&now);
	memfile_fini(&synced);
	memfile_fini(&trial);
}

/* Other workloads each: 1 in the suite. */
static size_t rounds(void)
{
	const char *n = getenv("SKERRY_TEST_ROUNDS");

	return n ? (size_t)atoi(n) : 1;
}

static void a_cut_at_any_write_loses_nothing_flushed(void **state)
{
	(void)state;
	for (size_t k = 0; k < ARRAY_SIZE(kinds) * rounds(); k++) {
		struct story *s = calloc(1, sizeof(*s));
		struct qcow2_create o = kinds[k % ARRAY_SIZE(kinds)];
		struct memfile start;

		o.size_bytes = SECTORS * SECTOR;
		s->loop = loop_new(NULL);
		s->seed = k + 1;
		memfile_init(&s->file, ROOM);
		memfile_init(&start, ROOM);
		assert_int_equal(qcow2_create(s->loop, &start.node, &o, NULL),
				 0);
		tell(s, &o, 45);
		cut_everywhere(s, &start, 2);
		memfile_fini(&s->file);
		memfile_fini(&start);
		loop_free(s->loop);
		free(s);
	}
}

/* Every change from the n-th on fails for a while, then there is space again:
 * the image is sound and takes writes. */
static void a_full_disk_at_any_write_leaves_a_sound_image(void **state)
{
	static u8 fill[SECTORS * SECTOR];
	int ends = 0;

	(void)state;
	for (u64 n = 0; n < 400 * rounds(); n += 1 + n / 60) {
		struct story *s = calloc(1, sizeof(*s));
		struct qcow2_create o = kinds[n % ARRAY_SIZE(kinds)];
		struct qcow2_check check = {0};
		struct block_node *node;
		struct err err = {0};
		u8 *bytes;

		o.size_bytes = SECTORS * SECTOR;
		s->loop = loop_new(NULL);
		s->seed = n;
		memfile_init(&s->file, ROOM);
		assert_int_equal(qcow2_create(s->loop, &s->file.node, &o, NULL),
				 0);
		node = mem_open(s->loop, &s->file, false, &err);
		assert_non_null(node);
		s->file.fail_from = s->file.changes + n % 400;
		s->file.fail_to = s->file.fail_from + 1 + n % 20;
		s->file.failure = n % 2 ? -ENOSPC : -EIO;
		for (int i = 0; i < 20; i++) {
			batch(s, node, 4);
			if (i % 3 == 0)
				(void)disk_do(node, BLOCK_FLUSH, 0, NULL, 0);
		}
		ends += s->file.changes >= s->file.fail_to;
		s->file.fail_from = UINT64_MAX;
		assert_int_equal(disk_do(node, BLOCK_FLUSH, 0, NULL, 0), 0);
		memset(fill, (int)n | 1, sizeof(fill));
		assert_int_equal(
			disk_do(node, BLOCK_WRITE, 0, fill, sizeof(fill)), 0);
		block_close(node);
		node = mem_open(s->loop, &s->file, true, &err);
		assert_non_null(node);
		assert_int_equal(qcow2_check(node, false, &check, &err), 0);
		if (check.corruptions)
			fail_msg("change %d: %s", (int)n, check.first);
		bytes = disk_bytes(node, 1 * MIB);
		bytes_equal(bytes, fill, sizeof(fill));
		free(bytes);
		block_close(node);
		memfile_fini(&s->file);
		loop_free(s->loop);
		free(s);
	}
	assert_true(ends > 20); /* most failures were within the workload */
}

/* ---- A process that is killed ---- */

/* Shared with the child. A write's number fills its sectors. */
struct shared {
	u32 number;	      /* of the last write that was submitted */
	u32 written[SECTORS]; /* completed */
	u32 durable[SECTORS]; /* completed, then flushed */
};

static void child_batch(struct shared *sh, struct story *s,
			struct block_node *node)
{
	static u32 words[8][16 * SECTOR / 4];
	struct block_request req[8];
	struct sync_result r[8] = {0};
	struct iovec iov[8];
	u32 first[8], count[8], number[8];

	for (int i = 0; i < 8; i++) {
		count[i] = 1 + (u32)pick(s, 16);
		first[i] = (u32)(SECTORS / 8 * i +
				 pick(s, SECTORS / 8 - count[i]));
		number[i] = sh->number + 1;
		__atomic_store_n(&sh->number, number[i], __ATOMIC_SEQ_CST);
		for (u32 w = 0; w < count[i] * SECTOR / 4; w++)
			words[i][w] = number[i];
		iov[i] = (struct iovec){words[i], count[i] * SECTOR};
		req[i] = (struct block_request){.op = BLOCK_WRITE,
						.offset = first[i] * SECTOR,
						.len = count[i] * SECTOR,
						.iov = &iov[i],
						.iov_count = 1,
						.done = sync_done,
						.opaque = &r[i]};
		block_submit(node, &req[i]);
	}
	block_drain(node);
	for (int i = 0; i < 8; i++)
		for (u32 n = 0; n < count[i]; n++)
			sh->written[first[i] + n] = number[i];
}

NORETURN static void child(struct images *t, struct shared *sh, u64 seed)
{
	struct block_open how = {.format = "qcow2"};
	struct story s = {.seed = seed};
	struct block_node *node;

	if (block_open_fd(t->loop, file_open(t, "a", O_RDWR), &how, &node,
			  NULL))
		_exit(1);
	for (int i = 0;; i++) {
		/* So that clusters are given up and taken again. */
		if (i % 5 == 4) {
			u64 at = pick(&s, 8) * (SECTORS / 8);

			for (u32 n = 0; n < SECTORS / 8; n++)
				__atomic_store_n(&sh->durable[at + n], 0,
						 __ATOMIC_SEQ_CST);
			(void)disk_do(node, BLOCK_DISCARD, at * SECTOR, NULL,
				      SECTORS / 8 * SECTOR);
			for (u32 n = 0; n < SECTORS / 8; n++)
				sh->written[at + n] = 0;
		}
		child_batch(sh, &s, node);
		if (pick(&s, 3) || disk_do(node, BLOCK_FLUSH, 0, NULL, 0))
			continue;
		for (u32 n = 0; n < SECTORS; n++)
			__atomic_store_n(&sh->durable[n], sh->written[n],
					 __ATOMIC_SEQ_CST);
	}
}

static void after_kill(struct images *t, const struct shared *sh, int nth)
{
	struct block_open how = {.format = "qcow2", .is_read_only = true};
	struct qcow2_check check = {0};
	struct block_node *node;
	struct err err = {0};
	u8 *bytes;

	if (block_open_fd(t->loop, file_open(t, "a", O_RDONLY), &how, &node,
			  &err))
		fail_msg("kill %d: %s", nth, err.text);
	assert_int_equal(qcow2_check(node, false, &check, &err), 0);
	if (check.corruptions)
		fail_msg("kill %d: %s", nth, check.first);
	bytes = disk_bytes(node, 64 * KIB);
	for (u32 n = 0; n < SECTORS; n++) {
		u32 has;

		memcpy(&has, bytes + n * SECTOR, 4);
		if (has < sh->durable[n] || has > sh->number)
			fail_msg("kill %d: sector %u has %u, flushed %u", nth,
				 n, has, sh->durable[n]);
	}
	free(bytes);
	block_close(node);
}

static void a_killed_process_loses_nothing_flushed(void **state)
{
	struct shared *sh = mmap(NULL, sizeof(*sh), PROT_READ | PROT_WRITE,
				 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct images t;
	u32 writes = 0;

	(void)state;
	assert_true(sh != MAP_FAILED);
	images_begin(&t);
	for (size_t kill_no = 0; kill_no < 120 * rounds(); kill_no++) {
		struct qcow2_create o = kinds[kill_no / 10 % ARRAY_SIZE(kinds)];
		struct block_node *file;
		pid_t pid;

		/* Ten kills of one image, one after the other. */
		if (kill_no % 10 == 0) {
			int fd = file_open(&t, "a", O_RDWR | O_CREAT | O_TRUNC);

			o.size_bytes = SECTORS * SECTOR;
			assert_int_equal(
				block_open_file(t.loop, fd, &file, NULL), 0);
			assert_int_equal(qcow2_create(t.loop, file, &o, NULL),
					 0);
			block_close(file);
			writes += sh->number;
			memset(sh, 0, sizeof(*sh));
		}
		memset(sh->written, 0, sizeof(sh->written));
		memset(sh->durable, 0, sizeof(sh->durable));
		pid = fork();
		assert_true(pid >= 0);
		if (!pid)
			child(&t, sh, kill_no);
		usleep(1000 + (useconds_t)(kill_no * 7919 % 20000));
		kill(pid, SIGKILL);
		assert_int_equal(waitpid(pid, NULL, 0), pid);
		after_kill(&t, sh, (int)kill_no);
	}
	assert_true(writes > 1000);
	images_end(&t);
	munmap(sh, sizeof(*sh));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_cut_at_any_write_loses_nothing_flushed),
		cmocka_unit_test(a_killed_process_loses_nothing_flushed),
		cmocka_unit_test(a_full_disk_at_any_write_leaves_a_sound_image),
	};

	return test_run("qcow2-crash", tests);
}
