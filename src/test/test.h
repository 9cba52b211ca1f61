/* SPDX-License-Identifier: Apache-2.0 */
/* The unit-test harness: cmocka plus one main idiom. Only *_test.c files
 * include it. Each test binary ends in the line `N passed, N failed`, which
 * tests/run adds up. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#define test_run(name, tests)                                                  \
	cmocka_run_group_tests_name(name, tests, NULL, NULL)
