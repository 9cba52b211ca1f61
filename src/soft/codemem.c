/* SPDX-License-Identifier: Apache-2.0 */
/* Executable memory for native stubs and for the translator.
 *
 * THEORY. One piece of shared memory is mapped twice: readable and executable
 * for the CPU, readable and writable for the emitter, so no page is ever both.
 * It is sparse: what nobody uses costs nothing. Three sources, in turn:
 *
 *	a memfd; vm.memfd_noexec may forbid to execute it
 *	an unlinked file in /dev/shm, unless that is mounted noexec
 *	a shared anonymous mapping, duplicated by mremap(old_size = 0)
 *
 * If none can be executed, the engine cannot run and says so.
 *
 * The native stubs: each vCPU id owns a fixed part of one such object; its
 * thread alone writes and runs that part, so neither emitting nor dropping all
 * stubs needs a lock.
 *
 * The signal handler must know whether a fault was in generated code:
 * soft_code_maps lists the live mappings of the process.
 */
#include "soft/codemem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/err.h"
#include "soft/interp_int.h"

#define REGION_BYTES (2 * MIB)
#define MAPS_MAX     32

#ifndef MFD_EXEC
#define MFD_EXEC 0x10u
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14; older hosts fault as before */
#endif

/* Read by the signal handler: start first, then the end; 0 is free. */
static struct {
	_Atomic uintptr_t start, end;
	void *_Atomic owner;
} soft_code_maps[MAPS_MAX];

static int find_map(const void *pc)
{
	uintptr_t p = (uintptr_t)pc;

	for (unsigned i = 0; i < MAPS_MAX; i++) {
		uintptr_t end = atomic_load_explicit(&soft_code_maps[i].end,
						     memory_order_acquire);
		if (p < end && p >= atomic_load(&soft_code_maps[i].start))
			return (int)i;
	}
	return -1;
}

bool soft_code_contains(const void *pc)
{
	return find_map(pc) >= 0;
}

void *soft_code_owner(const void *pc)
{
	int i = find_map(pc);

	return i < 0 ? NULL : atomic_load(&soft_code_maps[i].owner);
}

void soft_codemem_set_owner(struct soft_codemem *m, void *owner)
{
	atomic_store(&soft_code_maps[m->map_index].owner, owner);
}

static int register_map(struct soft_codemem *m)
{
	for (unsigned i = 0; i < MAPS_MAX; i++) {
		uintptr_t free_slot = 0;

		if (!atomic_compare_exchange_strong(&soft_code_maps[i].start,
						    &free_slot,
						    (uintptr_t)m->rx))
			continue;
		/* Pairs with the acquire in soft_code_contains. */
		atomic_store_explicit(&soft_code_maps[i].end,
				      (uintptr_t)m->rx + m->size,
				      memory_order_release);
		m->map_index = i;
		return 0;
	}
	return -ENOSPC;
}

static int open_memfd(void)
{
	int fd = memfd_create("skerry-code", MFD_CLOEXEC | MFD_EXEC);

	if (fd < 0 && errno == EINVAL)
		fd = memfd_create("skerry-code", MFD_CLOEXEC);
	return fd;
}

static int open_unlinked(void)
{
	char path[] = "/dev/shm/skerry-code-XXXXXX";
	int fd = mkostemp(path, O_CLOEXEC);

	if (fd >= 0)
		unlink(path);
	return fd;
}

static bool map_file_twice(struct soft_codemem *m, int fd)
{
	if (fd < 0)
		return false;
	if (ftruncate(fd, (off_t)m->size) < 0)
		goto fail;
	m->rw = mmap(NULL, m->size, PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_NORESERVE, fd, 0);
	if (m->rw == MAP_FAILED)
		goto fail;
	m->rx = mmap(NULL, m->size, PROT_READ | PROT_EXEC,
		     MAP_SHARED | MAP_NORESERVE, fd, 0);
	if (m->rx == MAP_FAILED) {
		munmap(m->rw, m->size);
		goto fail;
	}
	close(fd);
	return true;
fail:
	close(fd);
	return false;
}

static bool map_anonymous_twice(struct soft_codemem *m)
{
	m->rw = mmap(NULL, m->size, PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (m->rw == MAP_FAILED)
		return false;
	m->rx = mremap(m->rw, 0, m->size, MREMAP_MAYMOVE);
	if (m->rx == MAP_FAILED) {
		munmap(m->rw, m->size);
		return false;
	}
	if (mprotect(m->rx, m->size, PROT_READ | PROT_EXEC) < 0) {
		munmap(m->rw, m->size);
		munmap(m->rx, m->size);
		return false;
	}
	return true;
}

static void unmap(struct soft_codemem *m)
{
	munmap(m->rw, m->size);
	munmap(m->rx, m->size);
	m->rw = m->rx = NULL;
}

int soft_codemem_open(struct soft_codemem *m, size_t size, struct err *err)
{
	int rc;

	*m = (struct soft_codemem){.size = size};
	if (!map_file_twice(m, open_memfd()) &&
	    !map_file_twice(m, open_unlinked()) && !map_anonymous_twice(m)) {
		m->rw = m->rx = NULL;
		return err_sys(err, -errno, "map memory for generated code");
	}
	rc = register_map(m);
	if (rc < 0) {
		unmap(m);
		return err_set(err, rc,
			       "more than %d pieces of code memory in one "
			       "process",
			       MAPS_MAX);
	}
	madvise(m->rw, m->size, MADV_DONTDUMP);
	madvise(m->rx, m->size, MADV_DONTDUMP);
	return 0;
}

void soft_codemem_close(struct soft_codemem *m)
{
	if (!m->rw)
		return;
	atomic_store(&soft_code_maps[m->map_index].end, 0);
	atomic_store(&soft_code_maps[m->map_index].owner, NULL);
	atomic_store(&soft_code_maps[m->map_index].start, 0);
	unmap(m);
}

void soft_codemem_populate(struct soft_codemem *m, size_t off, size_t len)
{
	(void)madvise(m->rw + off, len, MADV_POPULATE_WRITE);
}

void soft_codemem_discard(struct soft_codemem *m, size_t off, size_t len)
{
	if (len && madvise(m->rw + off, len, MADV_REMOVE) < 0)
		memset(m->rw + off, 0, len);
}

/* ---- the native stubs' ---- */

struct soft_stubs {
	struct soft_codemem mem;
};

struct soft_stubs *soft_stubs_new(struct err *err)
{
	struct soft_stubs *s = calloc(1, sizeof(*s));

	if (!s) {
		err_sys(err, -ENOMEM, "allocate the stub cache");
		return NULL;
	}
	if (soft_codemem_open(&s->mem, VCPUS_MAX * REGION_BYTES, err) < 0) {
		free(s);
		return NULL;
	}
	return s;
}

void soft_stubs_free(struct soft_stubs *s)
{
	if (!s)
		return;
	soft_codemem_close(&s->mem);
	free(s);
}

struct soft_code_region soft_stubs_region(struct soft_stubs *s, u32 vcpu_id)
{
	size_t off = (size_t)vcpu_id * REGION_BYTES;

	ASSERT(vcpu_id < VCPUS_MAX);
	return (struct soft_code_region){s->mem.rw + off, s->mem.rx + off,
					 REGION_BYTES};
}
