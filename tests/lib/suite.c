/* See suite.h. */
#include "lib/suite.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char *running = "";

void suite_fail(const char *file, int line, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "FAILED %s\n%s:%d: ", running, file, line);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

static void run_one(const struct suite_test *test)
{
    struct timespec from, to;
    running = test->name;
    clock_gettime(CLOCK_MONOTONIC, &from);
    test->run();
    clock_gettime(CLOCK_MONOTONIC, &to);
    double seconds = (double)(to.tv_sec - from.tv_sec) + (double)(to.tv_nsec - from.tv_nsec) / 1e9;
    printf("PASSED %s in %.1f s\n", test->name, seconds);
    fflush(stdout);
}

int suite_main(int argc, char **argv, const struct suite_test *tests, size_t count)
{
    if (argc == 2 && strcmp(argv[1], "--list") == 0) {
        for (size_t i = 0; i < count; i++) {
            puts(tests[i].name);
        }
        return 0;
    }
    size_t ran = 0;
    for (size_t i = 0; i < count; i++) {
        if (argc < 2 || strcmp(argv[1], tests[i].name) == 0) {
            run_one(&tests[i]);
            ran++;
        }
    }
    if (ran == 0) {
        fprintf(stderr, "there is no test '%s'; --list names them\n", argc > 1 ? argv[1] : "");
        return 2;
    }
    return 0;
}
