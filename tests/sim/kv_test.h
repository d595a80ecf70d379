/* The course's generic test of a key-value service, and its small cluster: one group that owns
 * every shard. */
#ifndef TESTS_SIM_KV_TEST_H
#define TESTS_SIM_KV_TEST_H

#include "sim/clerk.h"

enum {
    KV_SHARDS = 10,
    KV_FLUSH_LOG_BYTES =
        32 * 1024,                /* for tests with snapshots: what the course calls maxraftstate */
    KV_SEGMENT_BYTES = 64 * 1024, /* the smallest there are */
    /* Kept for followers that still need it (eight flushes, replica_compact.c), since the last
     * flush, and what rounding to segments adds at both ends. */
    KV_LOG_BYTES_MAX = 9 * KV_FLUSH_LOG_BYTES + 2 * KV_SEGMENT_BYTES,
};

struct cluster *kv_cluster(uint32_t servers, bool unreliable, bool snapshots);

struct kv_test {
    uint32_t clients;
    uint32_t servers;
    bool unreliable;
    bool crashes;
    bool partitions;
    bool snapshots;
    bool random_keys; /* and the history must be linearizable */
};
void kv_test_run(const struct kv_test *test);

#endif
