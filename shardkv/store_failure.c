/* See store_failure.h. */
#include "shardkv/store_failure.h"

#include "base/log.h"
#include "base/vfs.h"
#include "raft/node/server_main.h"

#undef NDEBUG /* or assert.h says nothing of what is defined here */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char store_dir[VFS_PATH_BYTES_MAX] = "(not opened yet)";

void store_failure_name(const char *dir)
{
    snprintf(store_dir, sizeof store_dir, "%s", dir);
}

int store_failure_stop(int error, const char *where)
{
    if (error != ERR_IO && error != ERR_CORRUPT && error != ERR_NO_SPACE) {
        return error;
    }
    log_event(LOG_ERROR, "store.fatal", "where=%s error=%s", where, err_name(error));
    fprintf(stderr, "error: the store %s cannot be read: %s\n", store_dir, err_text(error));
    _exit(SERVER_EXIT_DISK); /* at once: nothing more may be answered from it */
}

/* The C library's, with its prototype; see the header. Nothing here waits for a lock that the
 * failing thread may hold: no log, no stdio. */
__attribute__((visibility("default"))) /* or the shared library does not find it */
void __assert_fail(const char *assertion, const char *file, unsigned int line,
                   const char *function) /* NOLINT(bugprone-reserved-identifier) */
{
    char words[VFS_PATH_BYTES_MAX + 1024];
    bool write_failed = strstr(file, "writable_file_writer") != NULL;
    int size = write_failed
                   ? snprintf(words, sizeof words,
                              "error: a file of the store %s could not be written before, most "
                              "likely for want of space; make room on this disk, or replace it, "
                              "and start again: nothing acknowledged is lost\n",
                              store_dir)
                   : snprintf(words, sizeof words, "error: %s:%u: %s: assertion failed: %s\n", file,
                              line, function, assertion);
    size = size < (int)sizeof words ? size : (int)sizeof words - 1;
    ssize_t written = write(STDERR_FILENO, words, (size_t)size);
    (void)written; /* nobody to tell */
    if (write_failed) {
        _exit(SERVER_EXIT_DISK);
    }
    abort();
}
