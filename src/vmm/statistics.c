/* SPDX-License-Identifier: Apache-2.0 */
/* What a machine has cost, as one JSON line in the log (level info: the CLI's
 * --verbose) when it ends. bench/boot reads it. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "vmm/vmm.h"

static u64 status_kib(const struct vmm *v, const char *name)
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
 * it double. */
static u64 code_kib(const struct machine_info *info)
{
	for (size_t i = 0; i < info->stat_count; i++)
		if (strcmp(info->stats[i].name, "code-bytes") == 0)
			return info->stats[i].value / KIB;
	return 0;
}

/* One line of smaps, which is about guest RAM if *is_ram. */
static void smaps_line(const char *line, const u8 *ram, u64 ram_bytes,
		       bool *is_ram, u64 *rss, u64 *anon)
{
	unsigned long long from, to, kib;

	if (sscanf(line, "%llx-%llx ", &from, &to) == 2)
		*is_ram = from - (u64)(uintptr_t)ram < ram_bytes;
	else if (*is_ram && sscanf(line, "Rss: %llu", &kib) == 1)
		*rss += kib;
	else if (*is_ram && sscanf(line, "Anonymous: %llu", &kib) == 1)
		*anon += kib;
}

static void ram_resident(const struct vmm *v, u64 *rss, u64 *anon)
{
	char text[4097], *line, *end;
	size_t have = 0;
	bool is_ram = false;
	u64 bytes;
	const u8 *ram = machine_ram(v->machine, &bytes);
	ssize_t n;

	*rss = *anon = 0;
	if (lseek(v->smaps_fd, 0, SEEK_SET) < 0)
		return;
	while ((n = read(v->smaps_fd, text + have, sizeof(text) - 1 - have)) >
	       0) {
		have += (size_t)n;
		text[have] = 0;
		for (line = text; (end = strchr(line, '\n')); line = end + 1) {
			*end = 0;
			smaps_line(line, ram, bytes, &is_ram, rss, anon);
		}
		have -= (size_t)(line - text);
		if (have == sizeof(text) - 1) /* no such line */
			have = 0;
		memmove(text, line, have);
	}
}

void vmm_memory(const struct vmm *v, const struct machine_info *info,
		struct vmm_memory *out)
{
	u64 rss, anon, all_anon = status_kib(v, "RssAnon");
	u64 all_file = status_kib(v, "RssFile");

	ram_resident(v, &rss, &anon);
	anon = MIN(anon, rss);
	out->guest_kib = rss;
	out->code_kib = code_kib(info);
	out->anon_kib = all_anon - MIN(anon, all_anon);
	out->file_kib = all_file - MIN(rss - anon, all_file);
}

void vmm_log_statistics(struct vmm *v)
{
	struct machine_info info;
	struct vmm_memory memory;
	struct buf line;

	machine_info(v->machine, &info);
	vmm_memory(v, &info, &memory);
	buf_init(&line);
	buf_printf(&line, "{\"cpu-ns\": %llu, \"wall-ns\": %llu",
		   (unsigned long long)info.cpu_ns,
		   (unsigned long long)(clock_mono_ns() - v->started_ns));
	buf_printf(&line,
		   ", \"resident-anon-kib\": %llu"
		   ", \"resident-file-kib\": %llu"
		   ", \"resident-code-kib\": %llu"
		   ", \"resident-guest-kib\": %llu",
		   (unsigned long long)memory.anon_kib,
		   (unsigned long long)memory.file_kib,
		   (unsigned long long)memory.code_kib,
		   (unsigned long long)memory.guest_kib);
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
