/* SPDX-License-Identifier: Apache-2.0 */
/* THEORY. A snapshot keeps a disk by never writing it again: the machine goes
 * on in an overlay. All that can fail or takes time happens before the machine
 * is paused; what is left then is to exchange two pointers.
 */
#include "machine/machine_int.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/assert.h"
#include "virtio/blk.h"

int machine_overlay_prepare(struct machine *m, size_t disk, int fd,
			    struct err *err)
{
	struct block_open how = {.format = "qcow2", .is_alone = true};
	struct block_node *node;
	int rc;

	if (disk >= m->cfg.disk_count || m->overlays[disk] ||
	    block_is_read_only(m->disks[disk])) {
		close(fd);
		if (disk < m->cfg.disk_count && m->overlays[disk])
			return err_set(err, -EEXIST,
				       "disk %zu has a new layer already",
				       disk);
		return err_set(err, -EINVAL,
			       "the machine has no writable disk %zu", disk);
	}
	how.cache = m->cfg.disks[disk].how.cache;
	rc = block_open_fd(m->loop, fd, &how, &node, err);
	if (rc == 0)
		rc = block_can_lay_over(node, m->disks[disk], err);
	if (rc == 0)
		m->overlays[disk] = node;
	else
		block_close(node);
	return rc < 0 ? err_wrap(err, "put a layer over disk %zu", disk) : 0;
}

void machine_overlay_commit(struct machine *m)
{
	ASSERT(!machine_is_running(m));
	for (size_t i = 0; i < m->cfg.disk_count; i++) {
		if (!m->overlays[i])
			continue;
		block_lay_over(m->overlays[i], m->disks[i]);
		virtio_blk_set_node(m->disk_devices[i], m->overlays[i]);
		m->disks[i] = m->overlays[i];
		m->overlays[i] = NULL;
	}
}

void machine_overlay_cancel(struct machine *m)
{
	for (size_t i = 0; i < m->cfg.disk_count; i++) {
		block_close(m->overlays[i]);
		m->overlays[i] = NULL;
	}
}

/* ---- making all durable ---- */

struct flush {
	void (*done)(void *opaque, int rc);
	void *opaque;
	size_t left;
	int rc;
	struct block_request reqs[MACHINE_DISKS_MAX];
};

static void flush_end(struct flush *f)
{
	if (--f->left)
		return;
	f->done(f->opaque, f->rc);
	free(f);
}

static void on_flushed(struct block_request *req, int result)
{
	struct flush *f = req->opaque;

	if (result && !f->rc)
		f->rc = result;
	flush_end(f);
}

static void on_no_disks(void *opaque)
{
	flush_end(opaque);
}

void machine_flush_disks(struct machine *m, void (*done)(void *opaque, int rc),
			 void *opaque)
{
	struct flush *f = calloc(1, sizeof(*f));

	ASSERT(f);
	f->done = done;
	f->opaque = opaque;
	f->left = m->cfg.disk_count + 1;
	for (size_t i = 0; i < m->cfg.disk_count; i++) {
		f->reqs[i] = (struct block_request){
			.op = BLOCK_FLUSH, .done = on_flushed, .opaque = f};
		block_submit(m->disks[i], &f->reqs[i]);
	}
	loop_post(m->loop, on_no_disks, f);
}
