/* SPDX-License-Identifier: Apache-2.0 */
/* What a machine has cost, as one JSON line in the log (level info: the CLI's
 * --verbose) when it ends. bench/boot reads it. */
#include <stdio.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "vmm/vmm.h"

u64 vmm_status_kib(const struct vmm *v, const char *name)
{
	char text[4096], *line, *save = NULL;
	unsigned long long kib = 0;
	size_t len = strlen(name);
	ssize_t n = pread(v->status_fd, text, sizeof(text) - 1, 0);

	text[MAX(n, 0)] = 0;
	for (line = strtok_r(text, "\n", &save); line;
	     line = strtok_r(NULL, "\n", &save))
		if (strncmp(line, name, len) == 0 && line[len] == ':')
			sscanf(line + len, ": %llu", &kib);
	return kib;
}

/* Generated code lies in shared memory that is mapped twice: RssShmem counts
 * it double, and guest RAM with it. */
u64 vmm_code_kib(const struct machine_info *info)
{
	for (size_t i = 0; i < info->stat_count; i++)
		if (strcmp(info->stats[i].name, "code-bytes") == 0)
			return info->stats[i].value / KIB;
	return 0;
}

u64 vmm_own_kib(const struct vmm *v, const struct machine_info *info)
{
	return vmm_status_kib(v, "RssAnon") + vmm_status_kib(v, "RssFile") +
	       vmm_code_kib(info);
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
		   ", \"resident-code-kib\": %llu"
		   ", \"resident-guest-kib\": %llu",
		   (unsigned long long)vmm_status_kib(v, "RssAnon"),
		   (unsigned long long)vmm_status_kib(v, "RssFile"),
		   (unsigned long long)vmm_code_kib(&info),
		   (unsigned long long)(info.ram_used_bytes / KIB));
	for (size_t i = 0; i < info.stat_count; i++)
		buf_printf(&line, ", \"%s\": %llu", info.stats[i].name,
			   (unsigned long long)info.stats[i].value);
	buf_printf(&line, "}");
	log_info("statistics: %s", buf_str(&line));
	buf_fini(&line);
}

json_t *vmm_statistics(struct vmm *v)
{
	static const char *const units[] = {
		[ENGINE_STAT_COUNT] = "count",
		[ENGINE_STAT_BYTES] = "bytes",
		[ENGINE_STAT_NS] = "ns",
	};
	json_t *counters = json_array();
	struct machine_info info;

	machine_info(v->machine, &info);
	for (size_t i = 0; i < info.stat_count; i++) {
		const struct engine_stat *s = &info.stats[i];

		json_array_append_new(
			counters,
			json_pack("{s:s, s:s, s:I, s:s, s:s}", "group",
				  s->group, "name", s->name, "value",
				  (json_int_t)s->value, "unit", units[s->unit],
				  "help", s->help));
	}
	return json_pack("{s:I, s:o}", "cpu_ns", (json_int_t)info.cpu_ns,
			 "counters", counters);
}
