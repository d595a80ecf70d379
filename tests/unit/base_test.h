/* What every test of base/ includes: cmocka with the headers it wants before it, and running a
 * piece of code in a child process to see how it ends. */
#ifndef TESTS_UNIT_BASE_TEST_H
#define TESTS_UNIT_BASE_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/wait.h>
#include <unistd.h>

/* Runs `body(context)` in a child whose standard error goes to `text` (NUL-terminated, cut at its
 * size); returns the status waitpid() gave. The child exits with 0 when body returns. Bounded by an
 * alarm in the child. */
static inline int child_run(void (*body)(void *context), void *context, char *text,
                            size_t text_size)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        alarm(10);
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        close(ends[1]);
        /* cmocka catches signals; the child must die of them. */
        signal(SIGABRT, SIG_DFL);
        body(context);
        _exit(0);
    }
    close(ends[1]);
    size_t size = 0;
    for (;;) {
        char piece[512];
        ssize_t count = read(ends[0], piece, sizeof(piece));
        if (count <= 0) {
            break;
        }
        size_t room = text_size - 1 - size;
        size_t kept = (size_t)count < room ? (size_t)count : room;
        memcpy(text + size, piece, kept);
        size += kept;
    }
    text[size] = '\0';
    close(ends[0]);
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

/* `body(context)` must end in abort(), having said `words`. */
static inline void assert_aborts(void (*body)(void *context), void *context, const char *words)
{
    char text[2048];
    int status = child_run(body, context, text, sizeof(text));
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGABRT);
    if (strstr(text, words) == NULL) {
        fail_msg("'%s' is not in '%s'", words, text);
    }
}

#endif
