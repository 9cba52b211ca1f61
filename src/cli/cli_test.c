/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/cli.h"
#include "cli/image.h"
#include "cli/machine.h"
#include "test/test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

struct values {
	bool flag;
	const char *text;
	u32 count;
	u64 size;
	struct cli_list list;
};

static const struct cli_option options[] = {
	{"flag", CLI_FLAG, offsetof(struct values, flag), NULL, ""},
	{"text", CLI_TEXT, offsetof(struct values, text), "T", ""},
	{"count", CLI_COUNT, offsetof(struct values, count), "N", ""},
	{"size", CLI_SIZE, offsetof(struct values, size), "S", ""},
	{"list", CLI_LIST, offsetof(struct values, list), "L", ""},
	{0},
};
static const struct cli_verb verb = {.name = "v", .options = options};

static void options_and_words_mix_and_the_command_stays_whole(void **state)
{
	char *argv[] = {"a",	  "--flag", "--text=x=y", "b",	      "--count",
			"7",	  "--list", "p",	  "--list=q", "--",
			"--flag", "c",	    NULL};
	struct values v = {0};
	struct cli_args args;

	assert_int_equal(cli_parse(&verb, 12, argv, &v, &args, NULL), 0);
	assert_true(v.flag);
	assert_string_equal(v.text, "x=y");
	assert_int_equal(v.count, 7);
	assert_int_equal(v.list.count, 2);
	assert_string_equal(v.list.items[1], "q");
	assert_int_equal(args.count, 2);
	assert_string_equal(args.words[1], "b");
	assert_true(args.has_command);
	assert_string_equal(args.command[0], "--flag");
	assert_null(args.command[2]);
}

static void unknown_option_names_the_nearest(void **state)
{
	char *argv[] = {"--cuont=3", NULL};
	struct values v = {0};
	struct cli_args args;
	struct err err = {0};

	assert_int_equal(cli_parse(&verb, 1, argv, &v, &args, &err), -EINVAL);
	assert_string_equal(err.id, "usage");
	assert_non_null(strstr(err.text, "did you mean '--count'"));
}

static void bad_values_are_usage_errors(void **state)
{
	static char *const bad[] = {"--count",	 "--count=", "--count=-1",
				    "--count=x", "--size=0", "--size=1X",
				    "--flag=1",	 "-f",	     "--text"};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		char *argv[] = {bad[i], NULL};
		struct values v = {0};
		struct cli_args args;
		struct err err = {0};

		if (cli_parse(&verb, 1, argv, &v, &args, &err) != -EINVAL)
			fail_msg("accepted: %s", bad[i]);
		assert_string_equal(err.id, "usage");
	}
}

static void sizes_have_binary_units(void **state)
{
	u64 n;

	assert_int_equal(cli_parse_size("512M", &n, NULL), 0);
	assert_int_equal(n, 512 * MIB);
	assert_int_equal(cli_parse_size("2g", &n, NULL), 0);
	assert_int_equal(n, 2 * GIB);
	assert_int_equal(cli_parse_size("3GiB", &n, NULL), 0);
	assert_int_equal(n, 3 * GIB);
	assert_int_equal(cli_parse_size("4096", &n, NULL), 0);
	assert_int_equal(n, 4096);
	assert_int_equal(cli_parse_size("17179869184G", &n, NULL), -EINVAL);
	assert_int_equal(cli_parse_size("-1", &n, NULL), -EINVAL);
}

static void names_cannot_leave_their_folder(void **state)
{
	assert_true(image_name_is_valid("debian/12"));
	assert_true(image_name_is_valid("my-image_2.0"));
	assert_false(image_name_is_valid(""));
	assert_false(image_name_is_valid("../x"));
	assert_false(image_name_is_valid("a/../b"));
	assert_false(image_name_is_valid("a/b/c"));
	assert_false(image_name_is_valid("/a"));
	assert_false(image_name_is_valid("a/"));
	assert_true(machine_name_is_valid("web-1"));
	assert_false(machine_name_is_valid("a/b"));
	assert_false(machine_name_is_valid(".."));
	assert_false(machine_name_is_valid("-x"));
}

static void a_disk_has_one_writer_or_many_readers(void **state)
{
	char path[] = "/tmp/skerry-test-XXXXXX";
	int made = mkstemp(path), a, b;
	struct err err = {0};

	assert_int_equal(ftruncate(made, 4096), 0);
	assert_int_equal(image_open_disk(path, true, &a, NULL), 0);
	assert_int_equal(image_open_disk(path, true, &b, NULL), 0);
	close(b);
	assert_int_equal(image_open_disk(path, false, &b, &err), -EAGAIN);
	assert_string_equal(err.id, "image.locked");
	close(a);
	assert_int_equal(image_open_disk(path, false, &a, NULL), 0);
	assert_int_equal(image_open_disk(path, true, &b, NULL), -EAGAIN);
	close(a);
	close(made);
	unlink(path);
}

static void a_copy_is_equal_and_as_sparse(void **state)
{
	enum { AT = 32 << 20 };
	char src[] = "/tmp/skerry-test-XXXXXX", dst[64], bytes[4] = "";
	int fd = mkstemp(src);
	struct stat st;

	snprintf(dst, sizeof(dst), "%s.copy", src);
	assert_int_equal(ftruncate(fd, 64 << 20), 0);
	assert_int_equal(pwrite(fd, "abc", 3, AT), 3);
	close(fd);
	assert_int_equal(image_copy(src, dst, NULL), 0);
	assert_int_equal(image_copy(src, dst, NULL), -EEXIST);
	assert_int_equal(stat(dst, &st), 0);
	assert_int_equal(st.st_size, 64 << 20);
	assert_true(st.st_blocks * 512 < 1 << 20);
	fd = open(dst, O_RDONLY);
	assert_int_equal(pread(fd, bytes, 3, AT), 3);
	assert_string_equal(bytes, "abc");
	close(fd);
	unlink(src);
	unlink(dst);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			options_and_words_mix_and_the_command_stays_whole),
		cmocka_unit_test(unknown_option_names_the_nearest),
		cmocka_unit_test(bad_values_are_usage_errors),
		cmocka_unit_test(sizes_have_binary_units),
		cmocka_unit_test(names_cannot_leave_their_folder),
		cmocka_unit_test(a_disk_has_one_writer_or_many_readers),
		cmocka_unit_test(a_copy_is_equal_and_as_sparse),
	};

	return test_run("cli", tests);
}
