/* SPDX-License-Identifier: Apache-2.0 */
#include "base/buf.h"
#include "base/err.h"
#include "base/list.h"
#include "test/test.h"

#include <errno.h>

static void err_wrap_prepends_the_callers_words(void **state)
{
	struct err err = {0};

	(void)state;
	assert_int_equal(err_sys(&err, -ENOENT, "open image '%s'", "/x"),
			 -ENOENT);
	assert_int_equal(err_wrap(&err, "add disk 'root'"), -ENOENT);
	assert_string_equal(err.text, "add disk 'root': open image '/x': "
				      "No such file or directory");
}

static void err_accepts_no_error_struct(void **state)
{
	(void)state;
	assert_int_equal(err_set(NULL, -EINVAL, "x"), -EINVAL);
	assert_true(err_wrap(NULL, "x") < 0);
}

static void buf_grows_and_consumes(void **state)
{
	struct buf b;

	(void)state;
	buf_init(&b);
	for (int i = 0; i < 1000; i++)
		buf_printf(&b, "%d,", i);
	assert_int_equal(memcmp(b.bytes, "0,1,2,", 6), 0);
	buf_consume(&b, b.len - 4);
	assert_string_equal(buf_str(&b), "999,");
	buf_fini(&b);
}

static void list_removal_while_walking(void **state)
{
	struct list head = LIST_INIT(head);
	struct list links[4];
	int n = 0;

	(void)state;
	for (int i = 0; i < 4; i++)
		list_add_tail(&head, &links[i]);
	list_for_each_safe(it, &head)
	{
		list_del(it);
		n++;
	}
	assert_int_equal(n, 4);
	assert_true(list_is_empty(&head));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(err_wrap_prepends_the_callers_words),
		cmocka_unit_test(err_accepts_no_error_struct),
		cmocka_unit_test(buf_grows_and_consumes),
		cmocka_unit_test(list_removal_while_walking),
	};

	return test_run("base", tests);
}
