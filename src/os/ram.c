/* SPDX-License-Identifier: Apache-2.0 */
#include "os/ram.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/stat.h>

static int check_size(u64 size, struct err *err)
{
	if (!size || size % PAGE_BYTES || size > INT64_MAX)
		return err_set(err, -EINVAL,
			       "guest memory is not made of whole pages");
	return 0;
}

static int map(u64 size, int flags, int fd, u8 **out_hva, struct err *err)
{
	void *hva = mmap(NULL, size, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_NORESERVE | flags, fd, 0);

	if (hva == MAP_FAILED)
		return err_sys(err, -errno, "map %llu MiB of guest memory",
			       (unsigned long long)(size / MIB));
	/* Advice only: both may be refused by the host's configuration. */
	(void)madvise(hva, size, MADV_HUGEPAGE);
	(void)madvise(hva, size, MADV_DONTDUMP);
	*out_hva = hva;
	return 0;
}

int os_ram_alloc(u64 size, u8 **out_hva, struct err *err)
{
	int rc = check_size(size, err);

	return rc ? rc : map(size, MAP_ANONYMOUS, -1, out_hva, err);
}

int os_ram_map(int fd, u64 size, u8 **out_hva, struct err *err)
{
	int rc = check_size(size, err);
	struct stat st;

	if (rc)
		return rc;
	if (fstat(fd, &st) < 0)
		return err_sys(err, -errno, "look at the memory file");
	if (!S_ISREG(st.st_mode))
		return err_set(err, -EINVAL,
			       "the memory file is not a regular file");
	if ((u64)st.st_size != size)
		return err_set(err, -EINVAL,
			       "the memory file has %llu bytes, not %llu",
			       (unsigned long long)st.st_size,
			       (unsigned long long)size);
	return map(size, 0, fd, out_hva, err);
}

void os_ram_free(u8 *hva, u64 size)
{
	if (hva)
		munmap(hva, size);
}
