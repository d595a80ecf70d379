/* See shard_test.h. Thread: one. */
#include "sim/shard_test.h"

#include "base/assert.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ANSWER_NS (30 * SIM_S)

struct shard_test *shard_test_open(const struct shard_test_options *options)
{
    struct shard_test *test = mem_calloc(1, sizeof *test);
    struct cluster_options cluster = {
        .controllers = 3,
        .groups = 3,
        .replicas = 3,
        .shards = SHARD_TEST_SHARDS,
        .unreliable = options->unreliable,
        .flush_log_bytes = options->snapshots ? SHARD_TEST_FLUSH_BYTES : 0,
    };
    test->cluster = cluster_create(&cluster);
    clerk_open(&test->clerk, test->cluster, NULL);
    test->key_count = options->keys;
    for (uint32_t i = 0; i < options->keys; i++) {
        clerk_key_in_shard(i % SHARD_TEST_SHARDS, SHARD_TEST_SHARDS, i / SHARD_TEST_SHARDS,
                           test->keys[i]);
        buf_append(&test->values[i], "", 1);
    }
    return test;
}

void shard_test_close_broken(struct shard_test *test)
{
    ASSERT(test->appenders == NULL);
    clerk_close(&test->clerk);
    cluster_destroy(test->cluster);
    for (uint32_t i = 0; i < SHARD_TEST_KEYS_MAX; i++) {
        buf_deinit(&test->values[i]);
    }
    free(test);
}

void shard_test_close(struct shard_test *test)
{
    cluster_wait_settled(test->cluster, SETTLE_NS);
    shard_test_check_all(test);
    shard_test_close_broken(test);
}

struct group *shard_test_group(struct shard_test *test, uint64_t id)
{
    struct group *group = cluster_group(test->cluster, id);
    ASSERT(group != NULL);
    return group;
}

/* ---- keys ---- */

static void expect(struct shard_test *test, uint32_t key, struct bytes more)
{
    struct buf *value = &test->values[key];
    value->size--; /* over the NUL */
    buf_append_bytes(value, more);
    buf_append(value, "", 1);
}

void shard_test_put(struct shard_test *test, uint32_t key, const char *value)
{
    buf_clear(&test->values[key]);
    buf_append(&test->values[key], value, strlen(value) + 1);
    clerk_put(&test->clerk, test->keys[key], value);
}

static void random_letters(char *out, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        out[i] = (char)('a' + (int)sim_between(0, 25));
    }
    out[size] = '\0';
}

void shard_test_put_all(struct shard_test *test, size_t size)
{
    char *value = mem_alloc(size + 1);
    for (uint32_t i = 0; i < test->key_count; i++) {
        random_letters(value, size);
        shard_test_put(test, i, value);
    }
    free(value);
}

void shard_test_append_all(struct shard_test *test)
{
    for (uint32_t i = 0; i < test->key_count; i++) {
        char more[16];
        (void)snprintf(more, sizeof more, "<%u>", test->appended++);
        expect(test, i, bytes_of_string(more));
        clerk_append(&test->clerk, test->keys[i], more);
    }
}

void shard_test_check(struct shard_test *test, uint32_t key)
{
    clerk_check(&test->clerk, test->keys[key], (const char *)test->values[key].data);
}

void shard_test_check_all(struct shard_test *test)
{
    for (uint32_t i = 0; i < test->key_count; i++) {
        shard_test_check(test, i);
    }
}

uint64_t shard_test_owner(struct shard_test *test, uint32_t key)
{
    struct config *config = cluster_query(test->cluster);
    uint64_t owner = config->owners[key % SHARD_TEST_SHARDS];
    config_free(config);
    return owner;
}

/* ---- appenders ---- */

void shard_test_appenders_start(struct shard_test *test, uint64_t pause_ns)
{
    test->appender_clerks = mem_calloc(test->key_count, sizeof *test->appender_clerks);
    test->appenders = mem_calloc(test->key_count, sizeof *test->appenders);
    for (uint32_t i = 0; i < test->key_count; i++) {
        clerk_open(&test->appender_clerks[i], test->cluster, NULL);
        struct loop_options options = {.number = i,
                                       .key = test->keys[i],
                                       .appends_only = true,
                                       .pause_min_ns = pause_ns,
                                       .pause_max_ns = pause_ns};
        loop_start(&test->appenders[i], &test->appender_clerks[i], &options);
    }
}

void shard_test_appenders_stop(struct shard_test *test)
{
    for (uint32_t i = 0; i < test->key_count; i++) {
        loop_stop(&test->appenders[i]);
    }
    loops_wait(test->appenders, test->key_count, ANSWER_NS);
    for (uint32_t i = 0; i < test->key_count; i++) {
        expect(test, i, buf_view(&test->appenders[i].last));
        loop_deinit(&test->appenders[i]);
        clerk_close(&test->appender_clerks[i]);
    }
    free(test->appenders);
    free(test->appender_clerks);
    test->appenders = NULL;
    test->appender_clerks = NULL;
}
