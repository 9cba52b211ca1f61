/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/launch_record.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/buf.h"
#include "cli/verbs.h"

#define RECORD_BYTES_MAX (256 * KIB)
#define WORDS_MAX	 512

int launch_record_write(const char *dir, const char *image,
			const struct machine_options *o, struct err *err)
{
	char path[MACHINE_PATH_MAX + 16], cwd[OS_PATH_MAX];
	json_t *obj;
	char *text;
	int rc;

	if (!getcwd(cwd, sizeof(cwd)))
		return err_sys(err, -errno, "look for the working folder");
	obj = json_pack("{s:s, s:s?, s:o}", "cwd", cwd, "image", image,
			"options", cli_options_to_json(run_options, o));
	text = obj ? json_dumps(obj, JSON_INDENT(1)) : NULL;
	json_decref(obj);
	if (!text)
		return err_set(err, -EINVAL,
			       "a name of the machine's files is not UTF-8");
	snprintf(path, sizeof(path), "%s/" LAUNCH_RECORD, dir);
	rc = os_write_file(path, text, strlen(text), 0600, err);
	free(text);
	return rc;
}

static int bad(const char *path, struct err *err)
{
	return err_set(err, -EINVAL, "'%s' is damaged", path);
}

static int parse(const char *path, struct launch_record *out, struct err *err)
{
	static const struct cli_verb launch = {
		.name = "launch",
		.options = run_options,
	};
	json_t *words = json_object_get(out->json, "options"), *word;
	char *argv[WORDS_MAX];
	struct cli_args args;
	size_t i;

	out->cwd = json_string_value(json_object_get(out->json, "cwd"));
	out->image = json_string_value(json_object_get(out->json, "image"));
	if (!out->cwd || !json_is_array(words) ||
	    json_array_size(words) > WORDS_MAX)
		return bad(path, err);
	json_array_foreach(words, i, word)
	{
		if (!json_is_string(word))
			return bad(path, err);
		argv[i] = (char *)json_string_value(word);
	}
	machine_options_init(&out->options);
	return cli_parse(&launch, (int)i, argv, &out->options, &args, err);
}

int launch_record_read(const char *dir, struct launch_record *out,
		       struct err *err)
{
	char path[MACHINE_PATH_MAX + 16];
	struct buf text;
	int rc;

	memset(out, 0, sizeof(*out));
	buf_init(&text);
	snprintf(path, sizeof(path), "%s/" LAUNCH_RECORD, dir);
	rc = os_read_file(path, RECORD_BYTES_MAX, &text, err);
	if (rc == 0) {
		out->json = json_loadb((char *)text.bytes, text.len,
				       JSON_REJECT_DUPLICATES, NULL);
		rc = out->json ? parse(path, out, err) : bad(path, err);
	}
	buf_fini(&text);
	if (rc < 0)
		launch_record_free(out);
	return rc;
}

void launch_record_free(struct launch_record *r)
{
	json_decref(r->json);
	r->json = NULL;
}
