/* SPDX-License-Identifier: Apache-2.0 */
/* kernel CASE: work that mostly happens in the operating system. The cases
 * stand in the table at the end. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "work.h"

static u64 wait_for(pid_t pid)
{
	int status;

	work_check(pid > 0 && waitpid(pid, &status, 0) == pid, "waitpid");
	return WIFEXITED(status) ? WEXITSTATUS(status) : 255;
}

static u64 fork_exec(void)
{
	u64 sum = 0;

	for (int i = 0; i < 900; i++) {
		pid_t pid = fork();

		if (pid == 0) {
			char text[12];

			snprintf(text, sizeof(text), "%d", i % 100);
			execl("/proc/self/exe", "kernel", "exit", text,
			      (char *)NULL);
			_exit(127);
		}
		sum = work_mix(sum, wait_for(pid));
	}
	return sum;
}

static u64 fork_only(void)
{
	enum { BYTES = 8 << 20 };
	u8 *area = work_alloc(BYTES);
	u64 sum = 0;

	memset(area, 1, BYTES);
	for (int i = 0; i < 1000; i++) {
		pid_t pid = fork();

		if (pid == 0) {
			for (int k = 0; k < 16; k++)
				area[k * 4096 * 8] = i; /* copied on write */
			_exit(area[i % 16 * 4096 * 8] % 100);
		}
		sum = work_mix(sum, wait_for(pid));
	}
	return sum;
}

static u64 system_calls(void)
{
	u64 sum = 0;

	umask(0);
	for (int i = 0; i < 3000000; i++)
		sum += syscall(SYS_getppid) > 0;
	for (int i = 0; i < 1000000; i++)
		sum += syscall(SYS_umask, i & 0777);
	return sum;
}

static u64 one_byte(void)
{
	int zero = open("/dev/zero", O_RDONLY), null = open("/dev/null", 1);
	u64 sum = 0;
	char c = 1;

	work_check(zero >= 0 && null >= 0, "open");
	for (int i = 0; i < 1500000; i++) {
		sum += read(zero, &c, 1) + c;
		sum += write(null, &c, 1);
	}
	return sum;
}

static u64 page_faults(void)
{
	enum { PAGES = 2048 };
	u64 sum = 0;

	for (int r = 0; r < 200; r++) {
		u8 *p = mmap(NULL, PAGES * 4096, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		work_check(p != MAP_FAILED, "mmap");
		madvise(p, PAGES * 4096, MADV_NOHUGEPAGE);
		for (int i = 0; i < PAGES; i++)
			p[i * 4096 + r] = i;
		for (int i = 0; i < PAGES; i += 64)
			sum = work_mix(sum, p[i * 4096 + r]);
		munmap(p, PAGES * 4096);
	}
	return sum;
}

/* Protections that change and faults that a handler mends. */
static u8 *guarded;

static void mend(int sig, siginfo_t *info, void *context)
{
	u8 *page = (u8 *)((uintptr_t)info->si_addr & ~4095ul);

	(void)sig;
	(void)context;
	mprotect(page, 4096, PROT_READ | PROT_WRITE);
}

static u64 protection(void)
{
	struct sigaction sa = {.sa_sigaction = mend, .sa_flags = SA_SIGINFO};
	u64 sum = 0;

	guarded = mmap(NULL, 64 * 4096, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	work_check(guarded != MAP_FAILED, "mmap");
	sigaction(SIGSEGV, &sa, NULL);
	for (int r = 0; r < 2000; r++) {
		mprotect(guarded, 64 * 4096, PROT_READ);
		for (int i = 0; i < 64; i++)
			((volatile u8 *)guarded)[i * 4096] += r + i;
	}
	for (int i = 0; i < 64; i++)
		sum = work_mix(sum, guarded[i * 4096]);
	return sum;
}

static u64 context_switch(void)
{
	int to[2], from[2];
	u64 sum = 0;
	pid_t pid;
	u32 v;

	work_check(pipe(to) == 0 && pipe(from) == 0, "pipe");
	pid = fork();
	if (pid == 0) {
		close(to[1]);
		while (read(to[0], &v, sizeof(v)) == sizeof(v)) {
			v = v * 3 + 1;
			if (write(from[1], &v, sizeof(v)) != sizeof(v))
				_exit(1);
		}
		_exit(0);
	}
	close(to[0]);
	for (u32 i = 0; i < 100000; i++) {
		work_check(write(to[1], &i, sizeof(i)) == sizeof(i), "write");
		work_check(read(from[0], &v, sizeof(v)) == sizeof(v), "read");
		sum = work_mix(sum, v);
	}
	close(to[1]);
	return work_mix(sum, wait_for(pid));
}

static u64 pipe_bytes(void)
{
	enum { CHUNK = 65536, CHUNKS = 20000 };
	static u8 block[CHUNK];
	u64 sum = 0, total = 0;
	int fds[2];
	ssize_t n;
	pid_t pid;

	work_check(pipe(fds) == 0, "pipe");
	pid = fork();
	if (pid == 0) {
		close(fds[0]);
		for (u32 i = 0; i < CHUNKS; i++) {
			memcpy(block, &i, sizeof(i));
			for (size_t at = 0; at < CHUNK; at += n) {
				n = write(fds[1], block + at, CHUNK - at);
				if (n <= 0)
					_exit(1);
			}
		}
		_exit(0);
	}
	close(fds[1]);
	while ((n = read(fds[0], block, CHUNK)) > 0)
		total += n;
	sum = work_mix(sum, total);
	return work_mix(sum, wait_for(pid));
}

static u64 metadata(void)
{
	u64 sum = 0;
	char path[64], other[64];
	struct stat st;

	work_check(mkdir("/tmp/meta", 0700) == 0, "mkdir");
	for (int r = 0; r < 40; r++) {
		for (int i = 0; i < 1000; i++) {
			int fd;

			snprintf(path, sizeof(path), "/tmp/meta/f%d", i);
			fd = open(path, O_CREAT | O_EXCL | O_WRONLY, 0600);
			work_check(fd >= 0, "create");
			sum += write(fd, path, i % 32);
			close(fd);
		}
		for (int i = 0; i < 1000; i++) {
			snprintf(path, sizeof(path), "/tmp/meta/f%d", i);
			snprintf(other, sizeof(other), "/tmp/meta/g%d", i);
			work_check(stat(path, &st) == 0, "stat");
			sum = work_mix(sum, st.st_size);
			work_check(rename(path, other) == 0, "rename");
			work_check(unlink(other) == 0, "unlink");
		}
	}
	work_check(rmdir("/tmp/meta") == 0, "rmdir");
	return sum;
}

/* A copy in shared memory, whose pages are small under every kernel: how a disk
 * file's page cache is made up varies from run to run, and the cost of its
 * mappings tenfold. */
static int small_paged_copy(const char *path)
{
	int in = open(path, O_RDONLY), fd = memfd_create("mapped", 0);
	static char buffer[64 << 10];
	ssize_t n;

	work_check(in >= 0 && fd >= 0, "open");
	while ((n = read(in, buffer, sizeof(buffer))) > 0)
		work_check(write(fd, buffer, n) == n, "write");
	work_check(n == 0, "read");
	close(in);
	return fd;
}

static u64 mapped_file(void)
{
	int fd = small_paged_copy("/bench/data/text");
	u64 sum = 0;

	for (int r = 0; r < 1500; r++) {
		struct stat st;
		u8 *p;

		work_check(fstat(fd, &st) == 0, "fstat");
		p = mmap(NULL, st.st_size, PROT_READ, MAP_SHARED, fd, 0);
		work_check(p != MAP_FAILED, "mmap");
		for (off_t i = r % 256; i + 8 <= st.st_size; i += 256) {
			u64 word;

			memcpy(&word, p + i, 8);
			sum = work_mix(sum, word);
		}
		munmap(p, st.st_size);
	}
	close(fd);
	return sum;
}

/* Past the page cache: random blocks of 4 KiB, then the file in order. */
static u64 block_io(void)
{
	enum { BIG = 256 << 10 };
	int fd = open("/bench/data/blocks", O_RDONLY | O_DIRECT);
	u64 seed = 13, sum = 0;
	struct stat st;
	u8 *buffer;

	work_check(fd >= 0 && fstat(fd, &st) == 0, "open for O_DIRECT");
	work_check(posix_memalign((void **)&buffer, 4096, BIG) == 0, "memory");
	for (int i = 0; i < 15000; i++) {
		off_t at = work_random(&seed) % (st.st_size / 4096) * 4096;
		u64 word;

		work_check(pread(fd, buffer, 4096, at) == 4096, "pread");
		memcpy(&word, buffer + (i % 512) * 8, 8);
		sum = work_mix(sum, word);
	}
	for (int r = 0; r < 4; r++) {
		for (off_t at = 0; at + BIG <= st.st_size; at += BIG) {
			u64 word;

			work_check(pread(fd, buffer, BIG, at) == BIG, "pread");
			memcpy(&word, buffer + BIG - 8, 8);
			sum = work_mix(sum, word);
		}
	}
	return sum;
}

static volatile u32 handled;

static void count(int sig)
{
	handled += sig;
}

static u64 signals(void)
{
	struct sigaction sa = {.sa_handler = count};

	sigaction(SIGUSR1, &sa, NULL);
	sigaction(SIGUSR2, &sa, NULL);
	for (int i = 0; i < 400000; i++)
		kill(getpid(), i & 1 ? SIGUSR1 : SIGUSR2);
	return handled;
}

static const struct {
	const char *name;
	u64 (*run)(void);
} cases[] = {
	{"fork-exec", fork_exec},
	{"fork", fork_only},
	{"syscalls", system_calls},
	{"one-byte", one_byte},
	{"page-faults", page_faults},
	{"protection", protection},
	{"context-switch", context_switch},
	{"pipe", pipe_bytes},
	{"metadata", metadata},
	{"mapped-file", mapped_file},
	{"block-io", block_io},
	{"signals", signals},
};

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	if (argc > 2 && strcmp(what, "exit") == 0)
		return atoi(argv[2]);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		if (strcmp(what, cases[i].name) == 0)
			return work_end(what, cases[i].run());
	fprintf(stderr, "usage: kernel CASE\n");
	return 2;
}
