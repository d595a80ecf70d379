/* A program of named tests, each of which ctest runs by itself: `suite NAME` runs one, `suite
 * --list` names them, `suite` runs all. CHECK ends the program, showing both values: what a test
 * leaves behind is then looked at, not cleaned up. */
#ifndef TESTS_LIB_SUITE_H
#define TESTS_LIB_SUITE_H

#include <stddef.h>
#include <stdint.h>

struct suite_test {
    const char *name;
    void (*run)(void);
};

int suite_main(int argc, char **argv, const struct suite_test *tests, size_t count);

_Noreturn void suite_fail(const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#define FAIL(...) suite_fail(__FILE__, __LINE__, __VA_ARGS__)
#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            FAIL("%s does not hold", #condition);                                                  \
        }                                                                                          \
    } while (0)
/* Integers of any width, as signed. */
#define CHECK_CMP(a, operator, b)                                                                  \
    do {                                                                                           \
        long long check_a_ = (long long)(a);                                                       \
        long long check_b_ = (long long)(b);                                                       \
        if (!(check_a_ operator check_b_)) {                                                       \
            FAIL("%s %s %s does not hold: %lld and %lld", #a, #operator, #b, check_a_, check_b_);  \
        }                                                                                          \
    } while (0)
#define CHECK_EQ(a, b) CHECK_CMP(a, ==, b)

#endif
