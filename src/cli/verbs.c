/* SPDX-License-Identifier: Apache-2.0 */
/* The table of verbs, and what is made from it: dispatch and help. */
#include "cli/snapshot_options.h"
#include "cli/verbs.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/nearest.h"
#include "cli/exec_options.h"
#include "cli/image_file_options.h"
#include "cli/image_options.h"
#include "cli/info_options.h"
#include "cli/machine_options.h"
#include "cli/stop_options.h"

static int verb_image(void *values, struct cli_args *args);
static int verb_snapshot(void *values, struct cli_args *args);
static int verb_help(void *values, struct cli_args *args);
static int verb_version(void *values, struct cli_args *args);

const struct cli_option no_options[] = {{0}};

/* clang-format off */
const struct cli_verb cli_verbs[] = {
	{"run", "IMAGE [OPTION…] [-- CMD…]",
	 "boot a machine and stay with it; --kernel FILE boots a kernel",
	 run_options, sizeof(struct machine_options), machine_options_init,
	 verb_run},
	{"launch", "IMAGE [--name NAME] [OPTION…]",
	 "boot a machine and leave it running",
	 run_options, sizeof(struct machine_options), machine_options_init,
	 verb_launch},
	{"list", "", "list the machines", no_options, 0, NULL, verb_list},
	{"info", "[--engine] [--json] NAME",
	 "show a machine's state or its engine's counters",
	 info_options, sizeof(struct info_options), NULL, verb_info},
	{"exec", "NAME -- CMD…", "run a command in a machine",
	 exec_options, sizeof(struct exec_options), NULL, verb_exec},
	{"shell", "NAME", "open a login shell in a machine",
	 no_options, 0, NULL, verb_shell},
	{"console", "NAME", "attach to a machine's serial console",
	 no_options, 0, NULL, verb_console},
	{"stop", "[--force] NAME…", "shut machines down",
	 stop_options, sizeof(struct stop_options), stop_options_init,
	 verb_stop},
	{"delete", "[--force] NAME…", "remove machines and their disks",
	 delete_options, sizeof(struct stop_options), NULL, verb_delete},
	{"image", "build|list|create|convert|check …", "make and keep images",
	 NULL, 0, NULL, verb_image},
	{"fork", "[-n N] [--name NEW] NAME[@SNAP]",
	 "start machines that go on from where another one is",
	 fork_options, sizeof(struct fork_options), fork_options_init,
	 verb_fork},
	{"clone", "[--full] NAME NEW", "give a new machine another one's disk",
	 clone_options, sizeof(struct fork_options), NULL, verb_clone},
	{"suspend", "NAME…", "save machines and end them", no_options, 0, NULL,
	 verb_suspend},
	{"resume", "NAME…", "let suspended machines go on", no_options, 0,
	 NULL, verb_resume},
	{"snapshot", "create|list|restore|diff|delete …",
	 "keep what a machine is, and go back to it",
	 NULL, 0, NULL, verb_snapshot},
	{"version", "", "print the version", no_options, 0, NULL,
	 verb_version},
	{"help", "[VERB]", "explain a verb", no_options, 0, NULL, verb_help},
	{0},
};

const struct cli_verb snapshot_verbs[] = {
	{"create", "[--note TEXT] NAME [SNAP]",
	 "keep a running machine's memory, devices and own disk",
	 snapshot_create_options, sizeof(struct snapshot_options), NULL,
	 verb_snapshot_create},
	{"list", "[NAME…]", "list the snapshots", no_options, 0, NULL,
	 verb_snapshot_list},
	{"restore", "[--force] NAME SNAP",
	 "start the machine again as it was then",
	 snapshot_restore_options, sizeof(struct snapshot_options), NULL,
	 verb_snapshot_restore},
	{"delete", "NAME SNAP…", "remove snapshots", no_options, 0, NULL,
	 verb_snapshot_delete},
	{"diff", "NAME SNAP SNAP",
	 "say what differs: options, memory, disk",
	 no_options, 0, NULL, verb_snapshot_diff},
	{"check", "NAME SNAP…", "compare snapshots with their checksums",
	 no_options, 0, NULL, verb_snapshot_check},
	{0},
};

const struct cli_verb image_verbs[] = {
	{"build", "debian/12|debian/13 [OPTION…]",
	 "build an image from this host's package sources",
	 image_build_options, sizeof(struct image_build_options),
	 image_build_options_init, verb_image_build},
	{"list", "", "list the images", no_options, 0, NULL, verb_image_list},
	{"delete", "NAME…", "delete images", no_options, 0, NULL,
	 verb_image_delete},
	{"import", "FILE [NAME]", "copy a raw disk image in", no_options, 0,
	 NULL, verb_image_import},
	{"create", "FILE SIZE [OPTION…]", "make an empty image file",
	 image_create_options, sizeof(struct image_file_options), NULL,
	 verb_image_create},
	{"info", "[--json] FILE", "say what an image file is",
	 image_info_options, sizeof(struct image_file_options), NULL,
	 verb_image_info},
	{"check", "[--repair] FILE", "look for damage in a qcow2 image",
	 image_check_options, sizeof(struct image_file_options), NULL,
	 verb_image_check},
	{"map", "[--json] FILE", "show where an image's bytes are",
	 image_map_options, sizeof(struct image_file_options), NULL,
	 verb_image_map},
	{"resize", "[--shrink] FILE SIZE", "make a disk larger or smaller",
	 image_resize_options, sizeof(struct image_file_options), NULL,
	 verb_image_resize},
	{"commit", "FILE", "write what an overlay has into the file below",
	 image_commit_options, sizeof(struct image_file_options), NULL,
	 verb_image_commit},
	{"rebase", "[--backing FILE …|--none] FILE",
	 "put an overlay over another file, its bytes unchanged",
	 image_rebase_options, sizeof(struct image_file_options), NULL,
	 verb_image_rebase},
	{"diff", "[--json] FILE FILE", "list where two disks differ",
	 image_diff_options, sizeof(struct image_file_options), NULL,
	 verb_image_diff},
	{"convert", "FILE NEWFILE [OPTION…]", "copy an image into another "
	 "format", image_convert_options, sizeof(struct image_file_options),
	 NULL, verb_image_convert},
	{0},
};
/* clang-format on */

void cli_report(const struct err *err, const char *hint)
{
	fprintf(stderr, "skerry: %s\n", err->text);
	if (hint)
		fprintf(stderr, "  %s\n", hint);
}

int cli_usage(const char *verb, const char *text)
{
	fprintf(stderr, "skerry: %s: %s\n  see 'skerry help %s'\n", verb, text,
		verb);
	return CLI_USAGE;
}

static void print_verbs(const char *prefix, const struct cli_verb *v)
{
	printf("usage: %s VERB …\n\n", prefix);
	for (; v->name; v++)
		printf("  %-8s %-34s %s\n", v->name, v->synopsis, v->summary);
	printf("\n'skerry help VERB' lists a verb's options.\n");
}

void cli_print_verb_help(const char *prefix, const struct cli_verb *v)
{
	if (v->run == verb_image) {
		print_verbs("skerry image", image_verbs);
		return;
	}
	if (v->run == verb_snapshot) {
		print_verbs("skerry snapshot", snapshot_verbs);
		return;
	}
	printf("usage: %s %s %s\n%s\n", prefix, v->name, v->synopsis,
	       v->summary);
	for (const struct cli_option *o = v->options; o->name; o++) {
		char left[64];

		snprintf(left, sizeof(left), "%s%s%s%s",
			 o->name[1] ? "--" : "-", o->name, o->arg ? " " : "",
			 o->arg ? o->arg : "");
		printf("  %-30s %s\n", left, o->help);
	}
}

static const char *verb_name_at(const void *table, size_t i)
{
	return ((const struct cli_verb *)table)[i].name;
}

static const struct cli_verb *find_verb(const struct cli_verb *v,
					const char *name)
{
	for (; v->name; v++) {
		if (strcmp(v->name, name) == 0)
			return v;
	}
	return NULL;
}

static int unknown_verb(const struct cli_verb *table, const char *prefix,
			const char *name)
{
	const char *near = nearest_word(name, verb_name_at, table);

	fprintf(stderr, "skerry: unknown verb '%s'", name);
	if (near)
		fprintf(stderr, " (did you mean '%s'?)", near);
	fprintf(stderr, "\n  see '%s help'\n", prefix);
	return CLI_USAGE;
}

static bool asks_for_help(int argc, char **argv)
{
	for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++) {
		if (strcmp(argv[i], "--help") == 0 ||
		    strcmp(argv[i], "-h") == 0)
			return true;
	}
	return false;
}

int cli_dispatch(const struct cli_verb *table, const char *prefix, int argc,
		 char **argv)
{
	const struct cli_verb *v;
	struct cli_args args;
	struct err err = {0};
	void *values;
	int status;

	if (argc == 0 || asks_for_help(1, argv)) {
		print_verbs(prefix, table);
		return argc ? CLI_OK : CLI_USAGE;
	}
	if (strcmp(argv[0], "--version") == 0)
		return verb_version(NULL, NULL);
	v = find_verb(table, argv[0]);
	if (!v)
		return unknown_verb(table, prefix, argv[0]);
	if (!v->options) {
		args = (struct cli_args){.count = argc - 1, .words = argv + 1};
		return v->run(NULL, &args);
	}
	if (asks_for_help(argc - 1, argv + 1)) {
		cli_print_verb_help(prefix, v);
		return CLI_OK;
	}
	values = calloc(1, v->options_bytes + 1);
	if (!values)
		return CLI_FAILED;
	if (v->init)
		v->init(values);
	if (cli_parse(v, argc - 1, argv + 1, values, &args, &err)) {
		fprintf(stderr, "skerry: %s\n  see '%s help %s'\n", err.text,
			"skerry", v->name);
		status = CLI_USAGE;
	} else {
		status = v->run(values, &args);
	}
	free(values);
	return status;
}

static int verb_image(void *values, struct cli_args *args)
{
	return cli_dispatch(image_verbs, "skerry image", args->count,
			    args->words);
}

static int verb_snapshot(void *values, struct cli_args *args)
{
	return cli_dispatch(snapshot_verbs, "skerry snapshot", args->count,
			    args->words);
}

static int verb_help(void *values, struct cli_args *args)
{
	const struct cli_verb *v;

	if (args->count == 0) {
		print_verbs("skerry", cli_verbs);
		return CLI_OK;
	}
	v = find_verb(cli_verbs, args->words[0]);
	if (!v && (v = find_verb(image_verbs, args->words[0]))) {
		cli_print_verb_help("skerry image", v);
		return CLI_OK;
	}
	if (!v)
		return unknown_verb(cli_verbs, "skerry", args->words[0]);
	cli_print_verb_help("skerry", v);
	return CLI_OK;
}

static int verb_version(void *values, struct cli_args *args)
{
	printf("skerry " SKERRY_VERSION "\n");
	return CLI_OK;
}
