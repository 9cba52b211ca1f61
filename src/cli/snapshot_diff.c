/* SPDX-License-Identifier: Apache-2.0 */
/* snapshot diff: what differs between two snapshots of a machine: how it was
 * started, how much of its memory, how much of its disk. Layers that both have
 * are not read. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/image_file.h"
#include "cli/launch_record.h"
#include "cli/layers.h"
#include "cli/snapshot_options.h"
#include "cli/verbs.h"

static bool has_word(const json_t *words, const char *word)
{
	size_t i;
	json_t *w;

	json_array_foreach((json_t *)words, i, w)
	{
		if (strcmp(json_string_value(w), word) == 0)
			return true;
	}
	return false;
}

/* Words of `a` that `b` has not. Both were checked when they were read. */
static bool print_words(const json_t *a, const json_t *b, char sign)
{
	bool differs = false;
	size_t i;
	json_t *w;

	json_array_foreach((json_t *)a, i, w)
	{
		if (has_word(b, json_string_value(w)))
			continue;
		printf("options  %c %s\n", sign, json_string_value(w));
		differs = true;
	}
	return differs;
}

static int diff_options(const char *a, const char *b, bool *differs,
			struct err *err)
{
	struct launch_record x, y;
	int rc = launch_record_read(a, &x, err);

	if (rc)
		return rc;
	rc = launch_record_read(b, &y, err);
	if (!rc) {
		const json_t *v = json_object_get(x.json, "options");
		const json_t *w = json_object_get(y.json, "options");

		*differs |= print_words(v, w, '-');
		*differs |= print_words(w, v, '+');
		launch_record_free(&y);
	}
	launch_record_free(&x);
	return rc;
}

static void print_bytes(const char *what, u64 bytes, bool *differs)
{
	if (bytes)
		printf("%-8s %.1f MiB differ\n", what,
		       (double)bytes / (double)MIB);
	else
		printf("%-8s the same\n", what);
	*differs |= bytes > 0;
}

static int diff_memory(const char *a, const char *b, bool *differs,
		       struct err *err)
{
	char x[LAYERS_PATH_MAX], y[LAYERS_PATH_MAX];
	u64 bytes = 0;
	int rc;

	snprintf(x, sizeof(x), "%.4200s/memory", a);
	snprintf(y, sizeof(y), "%.4200s/memory", b);
	rc = image_diff_bytes(x, y, "raw", &bytes, err);
	if (!rc)
		print_bytes("memory", bytes, differs);
	return rc;
}

static int diff_disks(const char *a, const char *b, bool *differs,
		      struct err *err)
{
	char x[LAYERS_PATH_MAX], y[LAYERS_PATH_MAX], p[LAYERS_PATH_MAX];
	const char *format, *other;
	u64 bytes = 0;
	int rc;

	snprintf(p, sizeof(p), "%.4200s/disk", a);
	if (access(p, F_OK))
		return 0; /* then the other has none, either */
	rc = layers_top(p, x, &format, err);
	snprintf(p, sizeof(p), "%.4200s/disk", b);
	if (!rc)
		rc = layers_top(p, y, &other, err);
	if (!rc)
		rc = image_diff_bytes(x, y, format, &bytes, err);
	if (!rc)
		print_bytes("disk", bytes, differs);
	return rc;
}

/* 0 the same; 1 failed; 3 they differ. */
int verb_snapshot_diff(void *values, struct cli_args *args)
{
	char a[MACHINE_PATH_MAX], b[MACHINE_PATH_MAX];
	struct err err = {0};
	bool differs = false;
	int rc;

	if (args->count != 3)
		return cli_usage("snapshot diff", "use: NAME SNAP SNAP");
	rc = snapshot_find(args->words[0], args->words[1], a, NULL, &err);
	if (!rc)
		rc = snapshot_find(args->words[0], args->words[2], b, NULL,
				   &err);
	if (!rc)
		rc = diff_options(a, b, &differs, &err);
	if (!rc)
		rc = diff_memory(a, b, &differs, &err);
	if (!rc)
		rc = diff_disks(a, b, &differs, &err);
	if (rc)
		return snapshot_fail(&err);
	return differs ? 3 : CLI_OK;
}
