/* The tests of faults on real processes, J1 to J15 of the scenarios: the table of all of them, by
 * theme (fault_test.h). Without a name each runs in a process of its own, so that one that is
 * skipped, or changes its network namespace, does not end or change the others. */
#include "fault/fault_test.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { TESTS_MAX = 64 };

static const struct suite_test *const themes[] = {
    fault_kill_tests, fault_admins_tests, fault_moves_tests,
    fault_net_tests,  fault_proxy_tests,  fault_disk_tests,
};

/* 0: passed. */
static int run_apart(const struct suite_test *test)
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        char *argv[] = {"fault_suite", (char *)test->name, NULL};
        exit(suite_main(2, argv, test, 1));
    }
    int status = 0;
    if (pid < 0 || waitpid(pid, &status, 0) != pid) {
        fprintf(stderr, "%s: %s\n", test->name, strerror(errno));
        return 1;
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

int main(int argc, char **argv)
{
    struct suite_test tests[TESTS_MAX];
    size_t count = 0;
    for (size_t theme = 0; theme < sizeof themes / sizeof themes[0]; theme++) {
        for (const struct suite_test *test = themes[theme]; test->name != NULL; test++) {
            CHECK_CMP(count, <, TESTS_MAX);
            tests[count++] = *test;
        }
    }
    if (argc > 1) {
        return suite_main(argc, argv, tests, count);
    }
    size_t passed = 0, skipped = 0;
    for (size_t i = 0; i < count; i++) {
        int code = run_apart(&tests[i]);
        passed += code == 0;
        skipped += code == FAULT_SKIPPED;
    }
    printf("%zu passed, %zu skipped, %zu failed\n", passed, skipped, count - passed - skipped);
    return passed + skipped == count ? 0 : 1;
}
