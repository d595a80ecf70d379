/* Assertion failures: a line to standard error by write(2), then abort().
 *
 * Any thread, at any moment, possibly with a damaged heap or a held log lock: so nothing here
 * allocates, takes a lock or goes through stdio. */
#include "base/assert.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define ASSERT_MESSAGE_BYTES_MAX 512

_Noreturn static void assert__stop(const char *message, int length)
{
    if (length > 0) {
        size_t size = (size_t)length;
        if (size >= ASSERT_MESSAGE_BYTES_MAX) {
            size = ASSERT_MESSAGE_BYTES_MAX - 1;
        }
        /* The process ends either way; a standard error that takes no bytes changes nothing. */
        ssize_t written = write(STDERR_FILENO, message, size);
        (void)written;
    }
    abort();
}

_Noreturn void assert_failed(const char *condition, const char *file, int line,
                             const char *function)
{
    char message[ASSERT_MESSAGE_BYTES_MAX];
    int length = snprintf(message, sizeof(message), "%s:%d: %s: assertion failed: %s\n", file, line,
                          function, condition);
    assert__stop(message, length);
}

_Noreturn void assert_failed_cmp(const char *condition, uint64_t a, uint64_t b, const char *file,
                                 int line, const char *function)
{
    char message[ASSERT_MESSAGE_BYTES_MAX];
    int length = snprintf(message, sizeof(message),
                          "%s:%d: %s: assertion failed: %s (%" PRIu64 " against %" PRIu64 ")\n",
                          file, line, function, condition, a, b);
    assert__stop(message, length);
}
