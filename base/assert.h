/* Assertions that stay on in release. For a caller's bug only; input from network, disk or a person is
 * validated and answered, never asserted. One condition each, no side effects. */
#ifndef BASE_ASSERT_H
#define BASE_ASSERT_H

#include <assert.h> /* static_assert, a macro in C17; assert() itself is not used */
#include <stdint.h>

#define ASSERT(condition)                                                                          \
    (__builtin_expect(!(condition), 0) ? assert_failed(#condition, __FILE__, __LINE__, __func__)   \
                                       : (void)0)

/* Compares two unsigned integers and shows both values when it fails. */
#define ASSERT_CMP(a, operator, b)                                                                 \
    do {                                                                                           \
        uint64_t assert_a_ = (uint64_t)(a);                                                        \
        uint64_t assert_b_ = (uint64_t)(b);                                                        \
        if (__builtin_expect(!(assert_a_ operator assert_b_), 0)) {                                \
            assert_failed_cmp(#a " " #operator " " #b, assert_a_, assert_b_, __FILE__, __LINE__,   \
                              __func__);                                                           \
        }                                                                                          \
    } while (0)

#define UNREACHABLE() assert_failed("unreachable", __FILE__, __LINE__, __func__)

_Noreturn void assert_failed(const char *condition, const char *file, int line,
                             const char *function);
_Noreturn void assert_failed_cmp(const char *condition, uint64_t a, uint64_t b, const char *file,
                                 int line, const char *function);

#endif
