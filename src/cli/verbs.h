/* SPDX-License-Identifier: Apache-2.0 */
/* One entry per verb; each is defined in the file of its name. */
#pragma once

#include "cli/cli.h"

extern const struct cli_option run_options[], launch_options[], list_options[],
	info_options[],
	exec_options[], shell_options[], console_options[], stop_options[],
	delete_options[], fork_options[], clone_options[],
	snapshot_create_options[],
	snapshot_restore_options[], image_build_options[], no_options[];

int verb_run(void *values, struct cli_args *args);
int verb_launch(void *values, struct cli_args *args);
int verb_list(void *values, struct cli_args *args);
int verb_info(void *values, struct cli_args *args);
int verb_exec(void *values, struct cli_args *args);
int verb_shell(void *values, struct cli_args *args);
int verb_console(void *values, struct cli_args *args);
int verb_stop(void *values, struct cli_args *args);
int verb_delete(void *values, struct cli_args *args);
int verb_image_build(void *values, struct cli_args *args);
int verb_image_list(void *values, struct cli_args *args);
int verb_image_delete(void *values, struct cli_args *args);
int verb_fork(void *values, struct cli_args *args);
int verb_clone(void *values, struct cli_args *args);
int verb_suspend(void *values, struct cli_args *args);
int verb_resume(void *values, struct cli_args *args);
int verb_snapshot_create(void *values, struct cli_args *args);
int verb_snapshot_list(void *values, struct cli_args *args);
int verb_snapshot_restore(void *values, struct cli_args *args);
int verb_snapshot_diff(void *values, struct cli_args *args);
int verb_snapshot_delete(void *values, struct cli_args *args);
int verb_snapshot_check(void *values, struct cli_args *args);
int verb_image_import(void *values, struct cli_args *args);
