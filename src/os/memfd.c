/* SPDX-License-Identifier: Apache-2.0 */
#include "os/memfd.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

int os_ram_alloc(u64 size, const char *name, u8 **out_hva, int *out_fd,
		 struct err *err)
{
	void *hva = MAP_FAILED;
	int fd, rc;

	if (!size || size % PAGE_BYTES || size > INT64_MAX)
		return err_set(err, -EINVAL,
			       "memory '%s' is not made of whole pages", name);
	fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return err_sys(err, -errno, "create memory '%s'", name);
	if (ftruncate(fd, (off_t)size) < 0 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) <
		    0)
		goto fail;
	hva = mmap(NULL, size, PROT_READ | PROT_WRITE,
		   MAP_SHARED | MAP_NORESERVE, fd, 0);
	if (hva == MAP_FAILED)
		goto fail;
	/* Advice only: both may be refused by the host's configuration. */
	(void)madvise(hva, size, MADV_HUGEPAGE);
	(void)madvise(hva, size, MADV_DONTDUMP);
	*out_hva = hva;
	*out_fd = fd;
	return 0;
fail:
	rc = err_sys(err, -errno, "allocate %llu MiB for memory '%s'",
		     (unsigned long long)(size / MIB), name);
	close(fd);
	return rc;
}

void os_ram_free(u8 *hva, u64 size, int fd)
{
	if (hva)
		munmap(hva, size);
	if (fd >= 0)
		close(fd);
}
