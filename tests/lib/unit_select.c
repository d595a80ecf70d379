/* A unit test's program runs only some of its tests when SHARDKV_TESTS names them: patterns of
 * fnmatch, separated by blanks. tests/scenarios.cmake uses it to run what shows one scenario.
 *
 * skv_test() links this into every program and sends the program's call of cmocka's runner through
 * it (the linker's --wrap). cmocka has a filter of its own, which passes when nothing matches; here
 * each pattern must match a test, or a renamed test would leave a scenario that shows nothing. */
#include <fnmatch.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

int __real__cmocka_run_group_tests(const char *name, const struct CMUnitTest *tests, size_t count,
                                   CMFixtureFunction setup, CMFixtureFunction teardown);
int __wrap__cmocka_run_group_tests(const char *name, const struct CMUnitTest *tests, size_t count,
                                   CMFixtureFunction setup, CMFixtureFunction teardown);

/* Marks in `chosen` what the pattern matches. */
static bool choose(const char *pattern, const struct CMUnitTest *tests, size_t count, bool *chosen)
{
    bool any = false;
    for (size_t i = 0; i < count; i++) {
        if (fnmatch(pattern, tests[i].name, 0) == 0) {
            chosen[i] = true;
            any = true;
        }
    }
    if (!any) {
        fprintf(stderr, "SHARDKV_TESTS: this program has no test '%s'\n", pattern);
    }
    return any;
}

static bool choose_all(const char *patterns, const struct CMUnitTest *tests, size_t count,
                       bool *chosen)
{
    char *words = strdup(patterns);
    bool good = words != NULL;
    bool any = false;
    char *rest = NULL;
    for (char *word = good ? strtok_r(words, " ", &rest) : NULL; word != NULL;
         word = strtok_r(NULL, " ", &rest)) {
        any = true;
        good = choose(word, tests, count, chosen) && good;
    }
    free(words);
    return good && any;
}

int __wrap__cmocka_run_group_tests(const char *name, const struct CMUnitTest *tests, size_t count,
                                   CMFixtureFunction setup, CMFixtureFunction teardown)
{
    const char *patterns = getenv("SHARDKV_TESTS");
    if (patterns == NULL) {
        return __real__cmocka_run_group_tests(name, tests, count, setup, teardown);
    }
    bool *chosen = calloc(count, sizeof *chosen);
    struct CMUnitTest *some = calloc(count, sizeof *some);
    int failed = 1;
    if (chosen != NULL && some != NULL && choose_all(patterns, tests, count, chosen)) {
        size_t some_count = 0;
        for (size_t i = 0; i < count; i++) {
            if (chosen[i]) {
                some[some_count++] = tests[i];
            }
        }
        failed = __real__cmocka_run_group_tests(name, some, some_count, setup, teardown);
    }
    free(some);
    free(chosen);
    return failed;
}
