/* SPDX-License-Identifier: Apache-2.0 */
/* What a machine has cost, as one JSON line in the log (level info: the CLI's
 * --verbose) when it ends. bench/boot reads it. */
#include <stdio.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "vmm/vmm.h"

u64 vmm_status_kib(const char *name)
{
	char line[256];
	unsigned long long kib = 0;
	size_t n = strlen(name);
	FILE *f = fopen("/proc/self/status", "re");

	while (f && fgets(line, sizeof(line), f))
		if (strncmp(line, name, n) == 0)
			sscanf(line + n, ": %llu", &kib);
	if (f)
		fclose(f);
	return kib;
}

void vmm_log_statistics(struct vmm *v)
{
	struct machine_info info;
	struct buf line;

	machine_info(v->machine, &info);
	buf_init(&line);
	buf_printf(&line, "{\"cpu-ns\": %llu, \"wall-ns\": %llu",
		   (unsigned long long)info.cpu_ns,
		   (unsigned long long)(clock_mono_ns() - v->started_ns));
	buf_printf(&line,
		   ", \"resident-anon-kib\": %llu"
		   ", \"resident-file-kib\": %llu"
		   ", \"resident-guest-kib\": %llu",
		   (unsigned long long)vmm_status_kib("RssAnon"),
		   (unsigned long long)vmm_status_kib("RssFile"),
		   (unsigned long long)vmm_status_kib("RssShmem"));
	for (size_t i = 0; i < info.stat_count; i++)
		buf_printf(&line, ", \"%s\": %llu", info.stats[i].name,
			   (unsigned long long)info.stats[i].value);
	buf_printf(&line, "}");
	log_info("statistics: %s", buf_str(&line));
	buf_fini(&line);
}
