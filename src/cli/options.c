/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/nearest.h"
#include "cli/cli.h"

static int usage_error(struct err *err)
{
	err_set_id(err, "usage");
	return -EINVAL;
}

int cli_parse_size(const char *text, u64 *out_bytes, struct err *err)
{
	static const char units[] = "KMGT";
	const char *unit;
	char *end;
	u64 n;

	errno = 0;
	n = strtoull(text, &end, 10);
	if (end == text || errno || text[0] == '-' || text[0] == '+')
		goto bad;
	unit = *end ? strchr(units, *end & ~0x20) : NULL;
	if (unit) {
		end++;
		if (*end == 'i')
			end++;
		if (*end == 'B')
			end++;
		for (const char *u = units; u <= unit; u++) {
			if (__builtin_mul_overflow(n, 1024, &n))
				goto bad;
		}
	}
	if (*end || n == 0)
		goto bad;
	*out_bytes = n;
	return 0;
bad:
	err_set(err, -EINVAL, "'%s' is not a size (like 512M or 2G)", text);
	return usage_error(err);
}

static const char *option_name_at(const void *options, size_t i)
{
	return ((const struct cli_option *)options)[i].name;
}

static const struct cli_option *find_option(const struct cli_option *options,
					    const char *name, size_t len)
{
	for (; options->name; options++) {
		if (strlen(options->name) == len &&
		    memcmp(options->name, name, len) == 0)
			return options;
	}
	return NULL;
}

static int unknown_option(const struct cli_verb *verb, const char *name,
			  struct err *err)
{
	char word[64];
	const char *near;

	snprintf(word, sizeof(word), "%.*s", (int)strcspn(name, "="), name);
	near = nearest_word(word, option_name_at, verb->options);
	if (near)
		err_set(err, -EINVAL,
			"unknown option '--%s' (did you mean '--%s'?)", word,
			near);
	else
		err_set(err, -EINVAL, "unknown option '--%s'", word);
	return usage_error(err);
}

static int set_count(const char *text, u32 *out, struct err *err)
{
	char *end;
	unsigned long n;

	errno = 0;
	n = strtoul(text, &end, 10);
	if (end == text || *end || errno || text[0] == '-' || n > 0x7fffffff) {
		err_set(err, -EINVAL, "'%s' is not a number", text);
		return usage_error(err);
	}
	*out = n;
	return 0;
}

static int set_option(const struct cli_option *o, const char *text,
		      void *values, struct err *err)
{
	void *at = (u8 *)values + o->offset;
	struct cli_list *list = at;
	int rc = 0;

	switch (o->type) {
	case CLI_FLAG:
		*(bool *)at = true;
		break;
	case CLI_TEXT:
		*(const char **)at = text;
		break;
	case CLI_COUNT:
		rc = set_count(text, at, err);
		break;
	case CLI_SIZE:
		rc = cli_parse_size(text, at, err);
		break;
	case CLI_LIST:
		if (list->count == CLI_LIST_MAX) {
			err_set(err, -EINVAL, "given more than %d times",
				CLI_LIST_MAX);
			rc = usage_error(err);
		} else {
			list->items[list->count++] = text;
		}
		break;
	}
	return rc ? err_wrap(err, "option '--%s'", o->name) : 0;
}

int cli_parse(const struct cli_verb *verb, int argc, char **argv, void *values,
	      struct cli_args *out, struct err *err)
{
	int kept = 0;

	*out = (struct cli_args){.words = argv};
	for (int i = 0; i < argc; i++) {
		const struct cli_option *o;
		const char *name, *value;
		int rc;

		if (strcmp(argv[i], "--") == 0) {
			out->has_command = true;
			out->command = argv + i + 1;
			break;
		}
		if (argv[i][0] != '-' || !argv[i][1]) {
			argv[kept++] = argv[i];
			continue;
		}
		name = argv[i] + (argv[i][1] == '-' ? 2 : 1);
		o = find_option(verb->options, name, strcspn(name, "="));
		if (argv[i][1] != '-' && (!o || o->name[1])) {
			err_set(err, -EINVAL, "unknown option '%s'", argv[i]);
			return usage_error(err);
		}
		if (!o)
			return unknown_option(verb, name, err);
		value = strchr(name, '=');
		value = value ? value + 1 : NULL;
		if (o->type == CLI_FLAG && value) {
			err_set(err, -EINVAL, "option '--%s' takes no value",
				o->name);
			return usage_error(err);
		}
		if (o->type != CLI_FLAG && !value) {
			if (i + 1 >= argc) {
				err_set(err, -EINVAL,
					"option '--%s' needs a value (%s)",
					o->name, o->arg);
				return usage_error(err);
			}
			value = argv[++i];
		}
		rc = set_option(o, value, values, err);
		if (rc)
			return rc;
	}
	out->count = kept;
	return 0;
}

static void append_word(json_t *words, const char *name, const char *value)
{
	char option[64];

	snprintf(option, sizeof(option), "--%s", name);
	json_array_append_new(words, json_string(option));
	if (value)
		json_array_append_new(words, json_string(value));
}

json_t *cli_options_to_json(const struct cli_option *o, const void *values)
{
	json_t *words = json_array();
	char number[32];

	for (; o->name; o++) {
		const void *at = (const u8 *)values + o->offset;
		const struct cli_list *list = at;

		switch (o->type) {
		case CLI_FLAG:
			if (*(const bool *)at)
				append_word(words, o->name, NULL);
			break;
		case CLI_TEXT:
			if (*(const char *const *)at)
				append_word(words, o->name,
					    *(const char *const *)at);
			break;
		case CLI_COUNT:
			snprintf(number, sizeof(number), "%u",
				 *(const u32 *)at);
			append_word(words, o->name, number);
			break;
		case CLI_SIZE:
			snprintf(number, sizeof(number), "%llu",
				 (unsigned long long)*(const u64 *)at);
			append_word(words, o->name, number);
			break;
		case CLI_LIST:
			for (u32 i = 0; i < list->count; i++)
				append_word(words, o->name, list->items[i]);
			break;
		}
	}
	return words;
}
