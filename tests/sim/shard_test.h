/* What the shard tests share: three groups of three, controllers, ten shards, keys in each of them
 * and what they must hold. */
#ifndef TESTS_SIM_SHARD_TEST_H
#define TESTS_SIM_SHARD_TEST_H

#include "sim/clerk.h"

enum {
    SHARD_TEST_SHARDS = 10,
    SHARD_TEST_KEYS_MAX = 30,
    SHARD_TEST_FLUSH_BYTES = 16 * 1024,
};

#define SETTLE_NS                                                                                  \
    (30 * SIM_S) /* the groups must have taken every config so long after the last fault */

struct shard_test {
    struct cluster *cluster;
    struct clerk clerk;
    uint32_t key_count;
    char keys[SHARD_TEST_KEYS_MAX][SIM_NAME_BYTES_MAX]; /* key i is in shard i % 10 */
    struct buf values[SHARD_TEST_KEYS_MAX];             /* with a NUL */
    uint32_t appended;
    /* appenders of shard_test_appenders_start */
    struct clerk *appender_clerks;
    struct loop *appenders;
};

struct shard_test_options {
    uint32_t keys;
    bool unreliable;
    bool snapshots;
};

/* Nothing is joined yet, and no key is written. */
struct shard_test *shard_test_open(const struct shard_test_options *options);
/* Waits until all has settled, checks every key, ends. */
void shard_test_close(struct shard_test *test);
/* The same, where some group is down for good. */
void shard_test_close_broken(struct shard_test *test);

/* Ids of groups are 100, 101, 102. */
struct group *shard_test_group(struct shard_test *test, uint64_t id);
void shard_test_put_all(struct shard_test *test, size_t size); /* random letters */
void shard_test_put(struct shard_test *test, uint32_t key, const char *value);
void shard_test_append_all(struct shard_test *test);
void shard_test_check(struct shard_test *test, uint32_t key);
void shard_test_check_all(struct shard_test *test);
/* Which group the newest config gives the key's shard to. */
uint64_t shard_test_owner(struct shard_test *test, uint32_t key);

/* One client a key that appends to it, one operation after the other, until stopped. Stopping
 * waits, and then knows what every key must hold. */
void shard_test_appenders_start(struct shard_test *test, uint64_t pause_ns);
void shard_test_appenders_stop(struct shard_test *test);

#endif
