/* libshardkv through its public header, against a cluster inside the process. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "client/shardkv.h"
#include "proto/shard_hash.h"
#include "unit/fake_cluster.h"
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TIMEOUT_MS = 20000 };

struct setup {
    struct fake_cluster *cluster;
    struct fake_server *one, *two; /* one leads at first */
    struct skv_client *client;
};

static uint64_t now_ns(void)
{
    return clock_now_ns(clock_system());
}

static struct setup setup_make(uint32_t outstanding_max)
{
    struct setup setup = {.cluster = fake_cluster_create(cluster_id_of_name("test"))};
    char addresses[300], why[SKV_ERROR_TEXT_BYTES];
    setup.one = fake_server_start(setup.cluster, FAKE_LEADER);
    setup.two = fake_server_start(setup.cluster, FAKE_FOLLOWER);
    fake_server_mode(setup.two, FAKE_FOLLOWER, setup.one->address);
    fake_config_push(setup.cluster, setup.one, setup.two);
    (void)snprintf(addresses, sizeof addresses, "%s,%s", setup.one->address, setup.two->address);
    struct skv_options options = {
        .controllers = addresses, .cluster = "test", .outstanding_max = outstanding_max};
    assert_int_equal(skv_open(&options, &setup.client, why, sizeof why), SKV_OK);
    return setup;
}

static void setup_end(struct setup *setup)
{
    skv_close(setup->client);
    fake_cluster_destroy(setup->cluster);
}

/* ---- opening ---- */

static void test_open_without_servers_says_so_in_time(void **state)
{
    (void)state;
    struct fake_cluster *cluster = fake_cluster_create(1);
    struct fake_server *gone = fake_server_start(cluster, FAKE_LEADER);
    struct skv_client *client = NULL;
    char why[SKV_ERROR_TEXT_BYTES] = "";
    fake_server_stop(gone);
    uint64_t start_ns = now_ns();
    struct skv_options options = {.controllers = gone->address, .open_timeout_ms = 300};
    assert_int_equal(skv_open(&options, &client, why, sizeof why), SKV_UNAVAILABLE);
    assert_null(client);
    assert_non_null(strstr(why, gone->address));
    assert_true(now_ns() - start_ns < 5 * NS_PER_S);
    fake_cluster_destroy(cluster);
}

static void test_open_of_another_cluster_is_refused(void **state)
{
    (void)state;
    struct fake_cluster *cluster = fake_cluster_create(cluster_id_of_name("test"));
    struct fake_server *server = fake_server_start(cluster, FAKE_LEADER);
    struct skv_client *client = NULL;
    char why[SKV_ERROR_TEXT_BYTES] = "";
    struct skv_options options = {.controllers = server->address, .cluster = "other"};
    assert_int_equal(skv_open(&options, &client, why, sizeof why), SKV_WRONG_CLUSTER);
    assert_null(client);
    assert_true(why[0] != '\0');
    fake_cluster_destroy(cluster);
}

static void test_open_with_bad_options_says_what_is_wrong(void **state)
{
    (void)state;
    struct skv_client *client = NULL;
    char why[SKV_ERROR_TEXT_BYTES] = "";
    struct skv_options options = {.controllers = "nowhere"};
    assert_int_equal(skv_open(&options, &client, why, sizeof why), SKV_INVALID);
    assert_non_null(strstr(why, "nowhere"));
    options = (struct skv_options){.controllers = "127.0.0.1:1", .tls_ca_file = "/ca.pem"};
    assert_int_equal(skv_open(&options, &client, why, sizeof why), SKV_INVALID);
    options.tls_certificate_file = "/nonexistent/cert.pem";
    options.tls_key_file = "/nonexistent/key.pem";
    assert_int_equal(skv_open(&options, &client, why, sizeof why), SKV_IO);
    assert_non_null(strstr(why, "/ca.pem"));
    options = (struct skv_options){.controllers = "127.0.0.1:1", .outstanding_max = 1000000};
    assert_int_equal(skv_open(&options, &client, why, sizeof why), SKV_INVALID);
    assert_null(client);
}

/* ---- blocking commands ---- */

static void test_blocking_commands_give_results(void **state)
{
    (void)state;
    struct setup setup = setup_make(0);
    struct skv_result result;
    assert_int_equal(skv_get(setup.client, "k", 1, TIMEOUT_MS, &result), SKV_NOT_FOUND);
    assert_int_equal(result.outcome, SKV_DONE);
    assert_int_equal(skv_put(setup.client, "k", 1, "abc", 3, TIMEOUT_MS, &result), SKV_OK);
    assert_int_equal(result.outcome, SKV_DONE);
    assert_int_equal(result.version, 1);
    assert_int_equal(skv_append(setup.client, "k", 1, "\0d", 2, TIMEOUT_MS, &result), SKV_OK);
    assert_int_equal(result.version, 2);
    assert_int_equal(skv_get(setup.client, "k", 1, TIMEOUT_MS, &result), SKV_OK);
    assert_int_equal(result.value_size, 5);
    assert_memory_equal(result.value, "abc\0d", 5);
    assert_int_equal(result.version, 2);
    skv_result_free(&result);
    skv_result_free(&result); /* twice is harmless */
    assert_int_equal(skv_cas(setup.client, "k", 1, 7, "no", 2, TIMEOUT_MS, &result),
                     SKV_VERSION_MISMATCH);
    assert_int_equal(result.outcome, SKV_NOT_DONE);
    assert_int_equal(result.version, 2);
    assert_int_equal(skv_cas(setup.client, "k", 1, 2, "", 0, TIMEOUT_MS, &result), SKV_OK);
    assert_int_equal(skv_get(setup.client, "k", 1, TIMEOUT_MS, &result), SKV_OK);
    assert_int_equal(result.value_size, 0);
    assert_int_equal(skv_delete(setup.client, "k", 1, TIMEOUT_MS, &result), SKV_OK);
    assert_int_equal(skv_get(setup.client, "k", 1, TIMEOUT_MS, &result), SKV_NOT_FOUND);
    setup_end(&setup);
}

static void test_bad_arguments_are_refused_and_not_sent(void **state)
{
    (void)state;
    struct setup setup = setup_make(0);
    struct skv_result result;
    char *large = calloc(1, SKV_VALUE_BYTES_MAX + 1);
    assert_int_equal(skv_put(setup.client, "", 0, "v", 1, TIMEOUT_MS, &result), SKV_INVALID);
    assert_int_equal(result.outcome, SKV_NOT_DONE);
    assert_int_equal(
        skv_put(setup.client, large, SKV_KEY_BYTES_MAX + 1, "v", 1, TIMEOUT_MS, &result),
        SKV_TOO_LARGE);
    assert_int_equal(
        skv_put(setup.client, "k", 1, large, SKV_VALUE_BYTES_MAX + 1, TIMEOUT_MS, &result),
        SKV_TOO_LARGE);
    assert_int_equal(skv_put(setup.client, NULL, 1, "v", 1, TIMEOUT_MS, &result), SKV_INVALID);
    assert_int_equal(skv_put(setup.client, "k", 1, NULL, 1, TIMEOUT_MS, &result), SKV_INVALID);
    assert_int_equal(fake_executions(setup.cluster), 0);
    /* The largest goes through, both ways. */
    assert_int_equal(skv_put(setup.client, "k", 1, large, SKV_VALUE_BYTES_MAX, TIMEOUT_MS, &result),
                     SKV_OK);
    assert_int_equal(skv_get(setup.client, "k", 1, TIMEOUT_MS, &result), SKV_OK);
    assert_int_equal(result.value_size, SKV_VALUE_BYTES_MAX);
    skv_result_free(&result);
    free(large);
    setup_end(&setup);
}

static void test_silent_leader_leaves_a_write_unknown_and_a_read_not_done(void **state)
{
    (void)state;
    struct setup setup = setup_make(0);
    struct skv_result result;
    assert_int_equal(skv_put(setup.client, "k", 1, "v", 1, TIMEOUT_MS, &result), SKV_OK);
    fake_server_mode(setup.one, FAKE_SILENT, "");
    uint64_t start_ns = now_ns();
    assert_int_equal(skv_put(setup.client, "k", 1, "w", 1, 300, &result), SKV_TIMEOUT);
    assert_int_equal(result.outcome, SKV_UNKNOWN);
    assert_true(now_ns() - start_ns >= 290 * NS_PER_MS);
    assert_true(now_ns() - start_ns < 5 * NS_PER_S);
    assert_int_equal(skv_get(setup.client, "k", 1, 200, &result), SKV_TIMEOUT);
    assert_int_equal(result.outcome, SKV_NOT_DONE);
    setup_end(&setup);
}

static void test_silent_leader_is_left_for_the_next(void **state)
{
    (void)state;
    struct setup setup = setup_make(0);
    struct skv_result result;
    assert_int_equal(skv_append(setup.client, "k", 1, "a", 1, TIMEOUT_MS, &result), SKV_OK);
    fake_server_mode(setup.one, FAKE_SILENT, "");
    fake_server_mode(setup.two, FAKE_LEADER, "");
    assert_int_equal(skv_append(setup.client, "k", 1, "b", 1, TIMEOUT_MS, &result), SKV_OK);
    assert_int_equal(skv_get(setup.client, "k", 1, TIMEOUT_MS, &result), SKV_OK);
    assert_memory_equal(result.value, "ab", 2);
    assert_int_equal(result.value_size, 2);
    skv_result_free(&result);
    setup_end(&setup);
}

static void test_new_config_is_learned_by_itself(void **state)
{
    (void)state;
    struct setup setup = setup_make(0);
    struct skv_result result;
    struct skv_stats stats;
    fake_server_mode(setup.one, FAKE_FOLLOWER, "");
    fake_server_mode(setup.two, FAKE_FOLLOWER, "");
    struct fake_server *three = fake_server_start(setup.cluster, FAKE_LEADER);
    /* The group moved to a server that only the new config names; the controllers are the old ones.
     */
    fake_server_mode(setup.one, FAKE_FOLLOWER, three->address);
    fake_config_push(setup.cluster, three, NULL);
    assert_int_equal(skv_put(setup.client, "k", 1, "v", 1, TIMEOUT_MS, &result), SKV_OK);
    assert_int_equal(fake_batches(three), 1);
    (void)stats;
    setup_end(&setup);
}

/* ---- asynchronous ---- */

struct tally {
    struct skv_client *client;
    atomic_int ended, done, wrong;
    atomic_int chain; /* how many more the callback starts */
    sem_t ended_sem;
};

static void tally_init(struct tally *tally, struct skv_client *client, int chain)
{
    memset(tally, 0, sizeof *tally);
    tally->client = client;
    atomic_store(&tally->chain, chain);
    assert_int_equal(sem_init(&tally->ended_sem, 0, 0), 0);
}

static int start_append(struct tally *tally, const char *key, skv_done_fn done)
{
    struct skv_command command = {.op = SKV_APPEND,
                                  .key = key,
                                  .key_size = strlen(key),
                                  .value = "x",
                                  .value_size = 1,
                                  .timeout_ms = TIMEOUT_MS};
    return skv_start(tally->client, &command, done, tally);
}

static void count_end(void *context, const struct skv_result *result)
{
    struct tally *tally = context;
    if (result->outcome == SKV_DONE && result->code == SKV_OK) {
        atomic_fetch_add(&tally->done, 1);
    } else {
        atomic_fetch_add(&tally->wrong, 1);
    }
    if (atomic_fetch_sub(&tally->chain, 1) > 0 && start_append(tally, "chain", count_end) != 0) {
        atomic_fetch_add(&tally->wrong, 1);
    }
    atomic_fetch_add(&tally->ended, 1);
    (void)sem_post(&tally->ended_sem);
}

static void wait_ends(struct tally *tally, int count)
{
    struct timespec until;
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 40;
    for (int i = 0; i < count; i++) {
        assert_int_equal(sem_timedwait(&tally->ended_sem, &until), 0);
    }
}

static void test_many_appends_at_once_execute_once_each_in_few_batches(void **state)
{
    (void)state;
    enum { COUNT = 10000 };
    struct setup setup = setup_make(256);
    struct tally tally;
    struct skv_stats stats;
    tally_init(&tally, setup.client, 0);
    for (int i = 0; i < COUNT; i++) {
        char key[16];
        int error;
        (void)snprintf(key, sizeof key, "key%d", i % 50);
        while ((error = start_append(&tally, key, count_end)) == SKV_BUSY) {
            assert_int_equal(sem_wait(&tally.ended_sem), 0); /* room when one has ended */
            assert_int_equal(sem_post(&tally.ended_sem), 0);
            sched_yield();
        }
        assert_int_equal(error, SKV_OK);
    }
    wait_ends(&tally, COUNT);
    assert_int_equal(atomic_load(&tally.done), COUNT);
    assert_int_equal(fake_executions(setup.cluster), COUNT);
    skv_stats(setup.client, &stats);
    assert_int_equal(stats.commands, COUNT);
    assert_int_equal(stats.config_number, 1);
    assert_true(stats.batches < COUNT / 4);
    uint64_t total = 0;
    for (int i = 0; i < 50; i++) {
        struct skv_result result;
        char key[16];
        (void)snprintf(key, sizeof key, "key%d", i);
        assert_int_equal(skv_get(setup.client, key, strlen(key), TIMEOUT_MS, &result), SKV_OK);
        total += result.value_size;
        skv_result_free(&result);
    }
    assert_int_equal(total, COUNT);
    setup_end(&setup);
    (void)sem_destroy(&tally.ended_sem);
}

static void test_callbacks_may_start_further_commands(void **state)
{
    (void)state;
    enum { COUNT = 1000 };
    struct setup setup = setup_make(0);
    struct tally tally;
    tally_init(&tally, setup.client, COUNT - 1);
    assert_int_equal(start_append(&tally, "chain", count_end), SKV_OK);
    wait_ends(&tally, COUNT);
    assert_int_equal(atomic_load(&tally.done), COUNT);
    assert_int_equal(atomic_load(&tally.wrong), 0);
    assert_int_equal(fake_executions(setup.cluster), COUNT);
    setup_end(&setup);
    (void)sem_destroy(&tally.ended_sem);
}

static void test_appends_across_dying_leaders_execute_once_each(void **state)
{
    (void)state;
    enum { COUNT = 3000 };
    struct setup setup = setup_make(0);
    struct tally tally;
    struct skv_stats stats;
    struct skv_result result;
    tally_init(&tally, setup.client, 0);
    for (int round = 0; round < 3; round++) {
        struct fake_server *leader = round % 2 == 0 ? setup.one : setup.two;
        struct fake_server *next = round % 2 == 0 ? setup.two : setup.one;
        for (int i = 0; i < COUNT / 3; i++) {
            assert_int_equal(start_append(&tally, "one key", count_end), SKV_OK);
        }
        fake_server_stop(leader); /* with whatever is on its way */
        fake_server_mode(next, FAKE_LEADER, "");
        wait_ends(&tally, COUNT / 3);
        fake_server_restart(leader);
        fake_server_mode(leader, FAKE_FOLLOWER, next->address);
    }
    assert_int_equal(atomic_load(&tally.done), COUNT);
    assert_int_equal(fake_executions(setup.cluster), COUNT);
    assert_int_equal(skv_get(setup.client, "one key", 7, TIMEOUT_MS, &result), SKV_OK);
    assert_int_equal(result.value_size, COUNT);
    skv_result_free(&result);
    skv_stats(setup.client, &stats);
    assert_true(stats.retries > 0);
    setup_end(&setup);
    (void)sem_destroy(&tally.ended_sem);
}

struct worker {
    struct skv_client *client;
    int number;
    atomic_int failures;
};

static void *work(void *context)
{
    struct worker *worker = context;
    char key[16], value[16];
    (void)snprintf(key, sizeof key, "thread%d", worker->number);
    for (int i = 0; i < 100; i++) {
        struct skv_result result;
        int size = snprintf(value, sizeof value, "%d", i);
        int put =
            skv_put(worker->client, key, strlen(key), value, (size_t)size, TIMEOUT_MS, &result);
        int get = skv_get(worker->client, key, strlen(key), TIMEOUT_MS, &result);
        if (put != SKV_OK || get != SKV_OK || result.value_size != (size_t)size ||
            memcmp(result.value, value, (size_t)size) != 0) {
            atomic_fetch_add(&worker->failures, 1);
        }
        skv_result_free(&result);
    }
    return NULL;
}

static void test_many_threads_share_a_client_and_wait_for_room(void **state)
{
    (void)state;
    enum { THREADS = 8 };
    struct setup setup = setup_make(3); /* fewer than threads, so they wait for each other */
    struct worker workers[THREADS];
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){.client = setup.client, .number = i};
        assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(atomic_load(&workers[i].failures), 0);
    }
    setup_end(&setup);
}

static void test_close_waits_for_every_callback(void **state)
{
    (void)state;
    struct setup setup = setup_make(0);
    struct tally tally;
    tally_init(&tally, setup.client, 0);
    fake_server_mode(setup.one, FAKE_SILENT, "");
    struct skv_command command = {
        .op = SKV_PUT, .key = "k", .key_size = 1, .value = "v", .value_size = 1, .timeout_ms = 400};
    for (int i = 0; i < 100; i++) {
        assert_int_equal(skv_start(setup.client, &command, count_end, &tally), SKV_OK);
    }
    skv_close(setup.client);
    assert_int_equal(atomic_load(&tally.ended), 100);
    setup.client = NULL;
    setup_end(&setup);
    (void)sem_destroy(&tally.ended_sem);
}

static void test_code_texts_and_version_are_there(void **state)
{
    (void)state;
    static const int codes[] = {SKV_OK,
                                SKV_INVALID,
                                SKV_TOO_LARGE,
                                SKV_BUSY,
                                SKV_NOT_FOUND,
                                SKV_TIMEOUT,
                                SKV_CANCELED,
                                SKV_UNAVAILABLE,
                                SKV_SHUTDOWN,
                                SKV_IO,
                                SKV_NO_SPACE,
                                SKV_UNSUPPORTED,
                                SKV_WRONG_CLUSTER,
                                SKV_SESSION_EXPIRED,
                                SKV_VERSION_MISMATCH};
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        assert_string_not_equal(skv_code_text(codes[i]), err_text(12345));
    }
    assert_true(skv_version()[0] != '\0');
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_open_without_servers_says_so_in_time),
        cmocka_unit_test(test_open_of_another_cluster_is_refused),
        cmocka_unit_test(test_open_with_bad_options_says_what_is_wrong),
        cmocka_unit_test(test_blocking_commands_give_results),
        cmocka_unit_test(test_bad_arguments_are_refused_and_not_sent),
        cmocka_unit_test(test_silent_leader_leaves_a_write_unknown_and_a_read_not_done),
        cmocka_unit_test(test_silent_leader_is_left_for_the_next),
        cmocka_unit_test(test_new_config_is_learned_by_itself),
        cmocka_unit_test(test_many_appends_at_once_execute_once_each_in_few_batches),
        cmocka_unit_test(test_callbacks_may_start_further_commands),
        cmocka_unit_test(test_appends_across_dying_leaders_execute_once_each),
        cmocka_unit_test(test_many_threads_share_a_client_and_wait_for_room),
        cmocka_unit_test(test_close_waits_for_every_callback),
        cmocka_unit_test(test_code_texts_and_version_are_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
