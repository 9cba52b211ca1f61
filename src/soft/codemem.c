/* SPDX-License-Identifier: Apache-2.0 */
/* Executable memory for native stubs.
 *
 * THEORY. One anonymous file is mapped twice: readable and executable for the
 * CPU, readable and writable for the emitter, so no page is ever both. Each
 * vCPU id owns a fixed part of it; its thread alone writes and runs that part,
 * so neither emitting nor dropping all stubs needs a lock. The file is sparse:
 * what no vCPU uses costs nothing.
 *
 * Where memfd_create() refuses executable files (vm.memfd_noexec), an unlinked
 * file in /dev/shm serves. If that cannot be executed either, the engine
 * cannot run and says so.
 *
 * The signal handler must know whether a fault was in a stub: soft_code_maps
 * lists the live mappings of the process.
 */
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
#define MAPS_MAX     16

#ifndef MFD_EXEC
#define MFD_EXEC 0x10u
#endif

struct soft_stubs {
	u8 *rw;
	u8 *rx;
	size_t size;
	unsigned map_index;
};

/* Read by the signal handler: start first, then the end; 0 is free. */
static struct {
	_Atomic uintptr_t start, end;
} soft_code_maps[MAPS_MAX];

bool soft_code_contains(const void *pc)
{
	uintptr_t p = (uintptr_t)pc;

	for (unsigned i = 0; i < MAPS_MAX; i++) {
		uintptr_t end = atomic_load_explicit(&soft_code_maps[i].end,
						     memory_order_acquire);
		if (p < end && p >= atomic_load(&soft_code_maps[i].start))
			return true;
	}
	return false;
}

static int register_map(struct soft_stubs *s)
{
	for (unsigned i = 0; i < MAPS_MAX; i++) {
		uintptr_t free_slot = 0;

		if (!atomic_compare_exchange_strong(&soft_code_maps[i].start,
						    &free_slot,
						    (uintptr_t)s->rx))
			continue;
		/* Pairs with the acquire in soft_code_contains. */
		atomic_store_explicit(&soft_code_maps[i].end,
				      (uintptr_t)s->rx + s->size,
				      memory_order_release);
		s->map_index = i;
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

static bool map_twice(struct soft_stubs *s, int fd)
{
	if (fd < 0)
		return false;
	if (ftruncate(fd, (off_t)s->size) < 0)
		goto fail;
	s->rw = mmap(NULL, s->size, PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_NORESERVE, fd, 0);
	if (s->rw == MAP_FAILED)
		goto fail;
	s->rx = mmap(NULL, s->size, PROT_READ | PROT_EXEC,
		     MAP_SHARED | MAP_NORESERVE, fd, 0);
	if (s->rx == MAP_FAILED) {
		munmap(s->rw, s->size);
		goto fail;
	}
	madvise(s->rw, s->size, MADV_DONTDUMP);
	madvise(s->rx, s->size, MADV_DONTDUMP);
	close(fd);
	return true;
fail:
	close(fd);
	return false;
}

struct soft_stubs *soft_stubs_new(struct err *err)
{
	struct soft_stubs *s = calloc(1, sizeof(*s));
	int rc;

	if (!s) {
		err_sys(err, -ENOMEM, "allocate the stub cache");
		return NULL;
	}
	s->size = VCPUS_MAX * REGION_BYTES;
	if (!map_twice(s, open_memfd()) && !map_twice(s, open_unlinked())) {
		err_sys(err, -errno, "map memory for generated code");
		free(s);
		return NULL;
	}
	rc = register_map(s);
	if (rc < 0) {
		err_set(err, rc, "more than %d machines in one process",
			MAPS_MAX);
		munmap(s->rw, s->size);
		munmap(s->rx, s->size);
		free(s);
		return NULL;
	}
	return s;
}

void soft_stubs_free(struct soft_stubs *s)
{
	if (!s)
		return;
	atomic_store(&soft_code_maps[s->map_index].end, 0);
	atomic_store(&soft_code_maps[s->map_index].start, 0);
	munmap(s->rw, s->size);
	munmap(s->rx, s->size);
	free(s);
}

struct soft_code_region soft_stubs_region(struct soft_stubs *s, u32 vcpu_id)
{
	size_t off = (size_t)vcpu_id * REGION_BYTES;

	ASSERT(vcpu_id < VCPUS_MAX);
	return (struct soft_code_region){s->rw + off, s->rx + off,
					 REGION_BYTES};
}
