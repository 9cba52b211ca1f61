/* SPDX-License-Identifier: Apache-2.0 */
/* The options of the verbs that work on image files. */
#pragma once

#include "cli/cli.h"

struct image_file_options {
	const char *format;
	const char *to;
	const char *backing, *backing_format;
	u64 cluster_bytes;
	u32 refcount_bits;
	const char *compression;
	bool is_extended, is_lazy;
	bool anywhere; /* backing files in other folders */
	bool json, repair, shrink;
	bool packs;    /* convert: compressed */
	bool is_alone; /* rebase: to no file at all */
};

extern const struct cli_option image_create_options[], image_info_options[],
	image_check_options[], image_map_options[], image_resize_options[],
	image_convert_options[], image_commit_options[], image_rebase_options[],
	image_diff_options[];

int verb_image_create(void *values, struct cli_args *args);
int verb_image_info(void *values, struct cli_args *args);
int verb_image_check(void *values, struct cli_args *args);
int verb_image_map(void *values, struct cli_args *args);
int verb_image_resize(void *values, struct cli_args *args);
int verb_image_commit(void *values, struct cli_args *args);
int verb_image_rebase(void *values, struct cli_args *args);
int verb_image_diff(void *values, struct cli_args *args);
int verb_image_convert(void *values, struct cli_args *args);
