/* SPDX-License-Identifier: Apache-2.0 */
/* info: a running machine's state, and the counters of its engine. */
#include "cli/info_options.h"

#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"
#include "cli/machine.h"
#include "cli/verbs.h"

#define ANSWER_MS 10000

/* clang-format off */
const struct cli_option info_options[] = {
	{"engine", CLI_FLAG, offsetof(struct info_options, engine), NULL,
	 "show the engine's counters, each with what it counts"},
	{"json", CLI_FLAG, offsetof(struct info_options, json), NULL,
	 "print JSON"},
	{0},
};
/* clang-format on */

static const char *text_of(const json_t *obj, const char *key)
{
	const char *s = json_string_value(json_object_get(obj, key));

	return s ? s : "";
}

static double seconds(u64 ns)
{
	return (double)ns / NS_PER_SEC;
}

static void print_status(const struct machine *m, const json_t *result)
{
	struct control_status st;

	if (control_status_from_json(result, &st, NULL) < 0)
		return;
	printf("name       %s\n", m->name);
	printf("state      %s\n", st.state);
	printf("agent      %s\n", st.is_agent_ready ? "ready" : "not ready");
	printf("engine     %s: %s\n", st.engine, st.engine_reason);
	printf("cpus       %u\n", st.cpus);
	printf("memory     %llu MiB, %llu MiB of it in use\n",
	       (unsigned long long)(st.memory_bytes / MIB),
	       (unsigned long long)(st.guest_resident_bytes / MIB));
	printf("overhead   %llu MiB beyond the guest's memory\n",
	       (unsigned long long)((st.resident_bytes -
				     MIN(st.guest_resident_bytes,
					 st.resident_bytes)) /
				    MIB));
	printf("pid        %d\n", st.pid);
	printf("uptime     %.1f s\n", seconds(st.uptime_ns));
	printf("cpu time   %.1f s\n", seconds(st.cpu_ns));
	printf("console    %s/console.log\n", m->run_dir);
}

static void print_value(const char *unit, u64 value, u64 cpu_ns)
{
	char text[64];

	if (strcmp(unit, "ns") == 0)
		snprintf(text, sizeof(text), "%.3f s %4.1f %%", seconds(value),
			 cpu_ns ? 100.0 * (double)value / (double)cpu_ns : 0);
	else
		snprintf(text, sizeof(text), "%llu%s",
			 (unsigned long long)value,
			 strcmp(unit, "bytes") == 0 ? " B" : "");
	printf("%18s", text);
}

static void print_counters(const json_t *result)
{
	json_t *counters = json_object_get(result, "counters"), *c;
	u64 cpu_ns = (u64)json_integer_value(json_object_get(result, "cpu_ns"));
	const char *group = "";
	size_t i;

	printf("cpu time   %.1f s\n", seconds(cpu_ns));
	json_array_foreach(counters, i, c)
	{
		if (strcmp(group, text_of(c, "group")) != 0)
			printf("\n%s\n", text_of(c, "group"));
		group = text_of(c, "group");
		printf("  %-20s", text_of(c, "name"));
		print_value(
			text_of(c, "unit"),
			(u64)json_integer_value(json_object_get(c, "value")),
			cpu_ns);
		printf("  %s\n", text_of(c, "help"));
	}
}

int verb_info(void *values, struct cli_args *args)
{
	const struct info_options *o = values;
	json_t *result = NULL;
	struct err err = {0};
	struct machine m;
	int rc;

	if (args->count != 1)
		return cli_usage("info", "one NAME is needed");
	rc = machine_connect(args->words[0], &m, &err);
	if (rc == 0) {
		rc = control_call(
			m.control_fd,
			o->engine ? CONTROL_STATISTICS : CONTROL_STATUS, NULL,
			NULL, 0, ANSWER_MS, NULL, NULL, &result, &err);
		close(m.control_fd);
	}
	if (rc < 0) {
		cli_report(&err, "'skerry list' shows the machines");
		return CLI_FAILED;
	}
	if (o->json) {
		json_dumpf(result, stdout, JSON_INDENT(1) | JSON_ENSURE_ASCII);
		printf("\n");
	} else if (o->engine) {
		print_counters(result);
	} else {
		print_status(&m, result);
	}
	json_decref(result);
	return CLI_OK;
}
