/* The last words of a process whose store failed, and how it ends. Each in a child, whose standard
 * error is read. */
#include "shardkv/store_failure.h"

#include "base/log.h"
#include "raft/node/server_main.h"

#include <rocksdb/c.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#undef NDEBUG
#include <assert.h>

struct ending {
    int status;
    char words[4096];
};

static struct ending end_of(void (*run)(void))
{
    struct ending ending = {0};
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
        signal(SIGABRT, SIG_DFL); /* cmocka's would go on */
        dup2(ends[1], STDERR_FILENO);
        run();
        _exit(99);
    }
    close(ends[1]);
    size_t size = 0;
    ssize_t got;
    while (size < sizeof ending.words - 1 &&
           (got = read(ends[0], ending.words + size, sizeof ending.words - 1 - size)) > 0) {
        size += (size_t)got;
    }
    close(ends[0]);
    assert_int_equal(waitpid(child, &ending.status, 0), child);
    return ending;
}

static void assert_ended_for_its_disk(const struct ending *ending)
{
    assert_true(WIFEXITED(ending->status));
    assert_int_equal(WEXITSTATUS(ending->status), SERVER_EXIT_DISK);
}

static void read_damage(void)
{
    store_failure_name("/where/it/is");
    (void)!store_failure_stop(ERR_CORRUPT, "get");
}

static void test_failure_of_the_disk_ends_the_process(void **state)
{
    (void)state;
    struct ending ending = end_of(read_damage);
    assert_ended_for_its_disk(&ending);
    assert_non_null(strstr(ending.words, "error: the store /where/it/is cannot be read"));
}

static void test_failure_of_no_disk_is_handed_back(void **state)
{
    (void)state;
    assert_int_equal(store_failure_stop(ERR_NOT_FOUND, "get"), ERR_NOT_FOUND);
    assert_int_equal(store_failure_stop(ERR_OK, "get"), ERR_OK);
}

/* As RocksDB's own does after a write that failed. */
static void write_behind_a_failure(void)
{
    store_failure_name("/where/it/is");
    __assert_fail("sync_without_flush_called_", "./file/writable_file_writer.h", 312, "Append");
}

static void test_failure_to_write_is_told_as_one_of_the_disk(void **state)
{
    (void)state;
    struct ending ending = end_of(write_behind_a_failure);
    assert_ended_for_its_disk(&ending);
    assert_non_null(strstr(ending.words, "error: a file of the store /where/it/is"));
    assert_non_null(strstr(ending.words, "space"));
}

/* An assertion of the real library, with the one that is linked; its files are in memory. */
static void ask_for_a_row_that_is_not_there(void)
{
    char *error = NULL;
    size_t size = 0;
    rocksdb_options_t *options = rocksdb_options_create();
    rocksdb_options_set_create_if_missing(options, 1);
    rocksdb_options_set_env(options, rocksdb_create_mem_env());
    rocksdb_t *db = rocksdb_open(options, "/db", &error);
    if (error != NULL) {
        _exit(98);
    }
    (void)rocksdb_iter_key(rocksdb_create_iterator(db, rocksdb_readoptions_create()), &size);
}

static void test_failure_of_another_kind_aborts_and_says_which(void **state)
{
    (void)state;
    struct ending ending = end_of(ask_for_a_row_that_is_not_there);
    assert_true(WIFSIGNALED(ending.status));
    assert_int_equal(WTERMSIG(ending.status), SIGABRT);
    assert_non_null(strstr(ending.words, "error: "));
    assert_non_null(strstr(ending.words, "assertion failed: "));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_failure_of_the_disk_ends_the_process),
        cmocka_unit_test(test_failure_of_no_disk_is_handed_back),
        cmocka_unit_test(test_failure_to_write_is_told_as_one_of_the_disk),
        cmocka_unit_test(test_failure_of_another_kind_aborts_and_says_which),
    };
    log_set_level(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
