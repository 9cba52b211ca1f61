/* SPDX-License-Identifier: Apache-2.0 */
/* The skerry command: a table of verbs, one file each. A verb returns the
 * exit status: 0; 1 failed; 2 wrong use; with a command for the guest 125
 * when Skerry itself failed, else the command's own status. */
#pragma once

#include <jansson.h>

#include "base/err.h"
#include "base/types.h"

enum { CLI_OK = 0, CLI_FAILED = 1, CLI_USAGE = 2, CLI_NO_COMMAND = 125 };

struct cli_args;
struct cli_option;

struct cli_verb {
	const char *name;
	const char *synopsis;
	const char *summary;
	const struct cli_option *options; /* ends with a NULL name */
	size_t options_bytes;		  /* of what the options set */
	void (*init)(void *values);	  /* defaults; NULL: zero */
	int (*run)(void *values, struct cli_args *args);
};

/* What is left when the options are taken out. */
struct cli_args {
	int count;
	char **words;
	bool has_command; /* there was a "--" */
	char **command;	  /* NULL-terminated, after "--" */
};

/* An option sets its field by type. Lists are arrays of const char * with the
 * count in the size_t before them (struct cli_list). */
enum cli_option_type {
	CLI_FLAG,  /* bool */
	CLI_TEXT,  /* const char * */
	CLI_COUNT, /* u32 */
	CLI_SIZE,  /* u64 bytes; K, M, G, T */
	CLI_LIST,  /* struct cli_list */
};

struct cli_option {
	const char *name; /* of one letter: with one dash or two */
	enum cli_option_type type;
	size_t offset;
	const char *arg; /* its name in the help, NULL for flags */
	const char *help;
};

#define CLI_LIST_MAX 64
struct cli_list {
	u32 count;
	const char *items[CLI_LIST_MAX];
};

extern const struct cli_verb cli_verbs[]; /* ends with a NULL name */
extern const struct cli_verb image_verbs[], snapshot_verbs[];

/* Sorts argv (after the verb) into values and args. argv is reordered. Errors
 * have the id "usage". */
int cli_parse(const struct cli_verb *verb, int argc, char **argv, void *values,
	      struct cli_args *out, struct err *err);
/* The words that make cli_parse set the same values: an array of strings. */
json_t *cli_options_to_json(const struct cli_option *options,
			    const void *values);
int cli_parse_size(const char *text, u64 *out_bytes, struct err *err);

/* Finds the verb in table, parses and runs it. */
int cli_dispatch(const struct cli_verb *table, const char *prefix, int argc,
		 char **argv);
void cli_print_verb_help(const char *prefix, const struct cli_verb *verb);

/* "skerry: <text>" on stderr, then the next step when hint is given. */
void cli_report(const struct err *err, const char *hint);
/* Says how the verb is used; returns CLI_USAGE. */
int cli_usage(const char *verb, const char *text);
