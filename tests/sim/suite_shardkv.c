/* The course's tests of shards: who serves what, and that moved shards are whole, gone at the
 * source, and in nobody's way. */
#include "proto/messages.h"
#include "proto/methods.h"
#include "proto/shard_hash.h"
#include "raft/node/node.h"
#include "rpc/rpc.h"
#include "sim/shard_test.h"
#include "sim/suite.h"

#include "base/assert.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KEYS = 10 };

static struct shard_test *open_test(uint32_t keys, bool snapshots)
{
    return shard_test_open(&(struct shard_test_options){.keys = keys, .snapshots = snapshots});
}

/* ---- StaticShards ---- */

/* One of two groups is dead: exactly the keys of the other are answered. */
static void static_shards(void)
{
    struct shard_test *test = open_test(KEYS, false);
    (void)cluster_join_one(test->cluster, 100);
    (void)cluster_join_one(test->cluster, 101);
    shard_test_put_all(test, 20);
    shard_test_check_all(test);
    cluster_wait_settled(test->cluster, SETTLE_NS);
    bool alive[KEYS];
    uint32_t alive_count = 0;
    for (uint32_t i = 0; i < KEYS; i++) {
        alive[i] = shard_test_owner(test, i) == 100;
        alive_count += alive[i];
    }
    SIM_CHECK_EQ(alive_count, KEYS / 2);
    group_crash(shard_test_group(test, 101));

    struct clerk clerks[KEYS];
    struct clerk_pending gets[KEYS];
    for (uint32_t i = 0; i < KEYS; i++) {
        clerk_open(&clerks[i], test->cluster, NULL);
        clerk_begin(&clerks[i], SKV_GET, test->keys[i], NULL, &gets[i]);
    }
    sim_run(2 * SIM_S);
    for (uint32_t i = 0; i < KEYS; i++) {
        SIM_CHECK_EQ(gets[i].ended, alive[i]);
    }
    group_start(shard_test_group(test, 101));
    for (uint32_t i = 0; i < KEYS; i++) {
        bool ended = clerk_wait(&gets[i], 10 * SIM_S);
        SIM_CHECK(ended);
        SIM_CHECK_EQ(gets[i].result.code, SKV_OK);
        SIM_CHECK(bytes_equal(buf_view(&gets[i].value),
                              bytes_of_string((const char *)test->values[i].data)));
        clerk_pending_deinit(&gets[i]);
        clerk_close(&clerks[i]);
    }
    shard_test_close(test);
}

/* ---- Rejection ---- */

static int ask_directly(struct rpc *rpc, const struct server *server, const char *key,
                        struct msg_get_response *response, struct buf *reply)
{
    struct rpc_channel *channel = NULL;
    int error = rpc_channel_create(rpc, server->host->address, &channel);
    SIM_CHECK_EQ(error, 0);
    struct msg_get_request request = {.header = {.cluster_id = cluster_id_of_name(CLUSTER_NAME)},
                                      .key = bytes_of_string(key)};
    struct buf bytes = {0};
    msg_get_request_encode(&request, &bytes);
    buf_clear(reply);
    error = rpc_call_wait(channel, METHOD_KV_GET, &bytes, sim_now_ns() + 5 * SIM_S, reply, NULL, 0);
    buf_deinit(&bytes);
    rpc_channel_destroy(channel);
    return error != 0 ? error : msg_get_response_decode(buf_view(reply), response);
}

/* Every server is asked for every key, also for those that are another group's: what is not the
 * group's own is refused, and never answered with an empty value. */
static void ask_every_server(struct shard_test *test)
{
    struct sim_host *host = cluster_client_host(test->cluster);
    struct sim_host *former = sim_enter(host);
    struct rpc_options options = rpc_options_default();
    struct rpc *rpc = NULL;
    struct buf reply = {0};
    uint32_t refused = 0;
    uint32_t answered = 0;
    int error = rpc_create(&options, &rpc);
    SIM_CHECK_EQ(error, 0);
    for (uint32_t g = 0; g < test->cluster->group_count; g++) {
        const struct group *group = &test->cluster->groups[g];
        for (uint32_t key = 0; key < test->key_count; key++) {
            bool owned = shard_test_owner(test, key) == group->id;
            for (uint32_t i = 0; i < group->server_count; i++) {
                struct msg_get_response response;
                error = ask_directly(rpc, &group->servers[i], test->keys[key], &response, &reply);
                SIM_CHECK_EQ(error, 0);
                if (response.header.error == 0) {
                    SIM_CHECK(owned);
                    SIM_CHECK(bytes_equal(response.value,
                                          bytes_of_string((const char *)test->values[key].data)));
                    answered++;
                } else {
                    SIM_CHECK_CMP(response.header.error, !=, ERR_NOT_FOUND);
                    refused += response.header.error == ERR_WRONG_GROUP;
                }
            }
        }
    }
    SIM_CHECK_CMP(answered, ==, test->key_count);
    SIM_CHECK_CMP(refused, >=,
                  test->key_count *
                      2); /* two groups that do not own it, each by its leader at least */
    buf_deinit(&reply);
    rpc_destroy(rpc);
    sim_leave(former);
}

/* A client whose config is false from now on: it hears from no controller, and half of the shards
 * have moved. */
static void ask_with_a_false_config(struct shard_test *test)
{
    struct clerk clerk;
    struct group *controllers = &test->cluster->controllers;
    clerk_open(&clerk, test->cluster, NULL);
    shard_test_check_all(test);
    for (uint32_t i = 0; i < controllers->server_count; i++) {
        sim_cut_both(clerk.host, controllers->servers[i].host, true);
    }
    (void)cluster_join_one(test->cluster, 101);
    cluster_wait_settled(test->cluster, SETTLE_NS);
    for (uint32_t i = 0; i < test->key_count; i++) {
        clerk_check(&clerk, test->keys[i], (const char *)test->values[i].data);
    }
    clerk_close(&clerk);
}

static void rejection(void)
{
    struct shard_test *test = open_test(KEYS, false);
    (void)cluster_join_one(test->cluster, 100);
    shard_test_put_all(test, 20);
    ask_with_a_false_config(test);
    ask_every_server(test);
    shard_test_close(test);
}

/* ---- JoinLeave, Snapshot, MissChange ---- */

static void join_leave(void)
{
    struct shard_test *test = open_test(KEYS, false);
    (void)cluster_join_one(test->cluster, 100);
    shard_test_put_all(test, 5);
    shard_test_check_all(test);
    (void)cluster_join_one(test->cluster, 101);
    shard_test_check_all(test);
    shard_test_append_all(test);
    (void)cluster_leave_one(test->cluster, 100);
    shard_test_check_all(test);
    shard_test_append_all(test);
    sim_run(1 * SIM_S); /* the course's time for the shards to move */
    group_crash(shard_test_group(test, 100));
    shard_test_check_all(test);
    group_start(shard_test_group(test, 100));
    shard_test_close(test);
}

static void check_log_sizes(struct shard_test *test)
{
    for (uint32_t g = 0; g < test->cluster->group_count; g++) {
        const struct group *group = &test->cluster->groups[g];
        for (uint32_t i = 0; i < group->server_count; i++) {
            struct node_status status;
            node_status(server_node(&group->servers[i]), &status);
            /* segments of 64 KiB, and what a follower that is behind still needs */
            SIM_CHECK_CMP(status.log_bytes, <=, 16 * SHARD_TEST_FLUSH_BYTES);
        }
    }
}

static void snapshot(void)
{
    struct shard_test *test = open_test(30, true);
    struct cluster *cluster = test->cluster;
    (void)cluster_join_one(cluster, 100);
    shard_test_put_all(test, 2000);
    shard_test_check_all(test);
    (void)cluster_join(cluster, (const uint64_t[]){101, 102}, 2);
    (void)cluster_leave_one(cluster, 100);
    shard_test_check_all(test);
    shard_test_append_all(test);
    (void)cluster_leave_one(cluster, 101);
    (void)cluster_join_one(cluster, 100);
    shard_test_check_all(test);
    shard_test_append_all(test);
    sim_run(1 * SIM_S);
    shard_test_check_all(test);
    cluster_wait_settled(cluster, SETTLE_NS);
    check_log_sizes(test);
    for (uint32_t g = 0; g < cluster->group_count; g++) {
        group_crash(&cluster->groups[g]);
    }
    for (uint32_t g = 0; g < cluster->group_count; g++) {
        group_start(&cluster->groups[g]);
    }
    shard_test_check_all(test);
    shard_test_close(test);
}

static void crash_of_each_group(struct shard_test *test, uint32_t server)
{
    for (uint32_t g = 0; g < test->cluster->group_count; g++) {
        server_crash(&test->cluster->groups[g].servers[server]);
    }
}

static void start_of_each_group(struct shard_test *test, uint32_t server)
{
    for (uint32_t g = 0; g < test->cluster->group_count; g++) {
        server_start(&test->cluster->groups[g].servers[server]);
    }
}

static void miss_change(void)
{
    struct shard_test *test = open_test(KEYS, true);
    struct cluster *cluster = test->cluster;
    (void)cluster_join_one(cluster, 100);
    shard_test_put_all(test, 20);
    shard_test_check_all(test);
    (void)cluster_join_one(cluster, 101);
    crash_of_each_group(test, 0);
    (void)cluster_join_one(cluster, 102);
    (void)cluster_leave_one(cluster, 101);
    (void)cluster_leave_one(cluster, 100);
    shard_test_check_all(test);
    shard_test_append_all(test);
    (void)cluster_join_one(cluster, 101);
    shard_test_check_all(test);
    shard_test_append_all(test);
    start_of_each_group(test, 0);
    shard_test_check_all(test);
    shard_test_append_all(test);
    sim_run(2 * SIM_S);
    crash_of_each_group(test, 1);
    (void)cluster_join_one(cluster, 100);
    (void)cluster_leave_one(cluster, 102);
    shard_test_check_all(test);
    shard_test_append_all(test);
    start_of_each_group(test, 1);
    shard_test_close(test);
}

/* ---- the challenges ---- */

enum { DELETE_KEYS = 30, DELETE_VALUE_BYTES = 1000 };

/* What moved away is gone: the groups together hold each key three times, once a replica, however
 * often shards move. */
static void challenge_delete(void)
{
    struct shard_test *test = open_test(DELETE_KEYS, true);
    struct cluster *cluster = test->cluster;
    (void)cluster_join_one(cluster, 100);
    shard_test_put_all(test, DELETE_VALUE_BYTES);
    for (uint32_t round = 0; round < 2; round++) {
        (void)cluster_join_one(cluster, 101);
        shard_test_check_all(test);
        (void)cluster_leave_one(cluster, 100);
        shard_test_check_all(test);
        (void)cluster_join_one(cluster, 100);
        (void)cluster_leave_one(cluster, 101);
        shard_test_check_all(test);
    }
    (void)cluster_join(cluster, (const uint64_t[]){101, 102}, 2);
    shard_test_check_all(test);
    cluster_wait_settled(cluster, SETTLE_NS);
    sim_run(1 * SIM_S); /* followers apply the last of it */
    uint64_t total = 0;
    for (uint32_t g = 0; g < cluster->group_count; g++) {
        for (uint32_t i = 0; i < cluster->groups[g].server_count; i++) {
            total += server_store_bytes(&cluster->groups[g].servers[i]);
        }
    }
    /* Each row has a key and a version, each group its config and shard records, each key's client
     * a session. */
    const uint64_t expected = 3ull * (DELETE_KEYS * (DELETE_VALUE_BYTES + 100) + 3 * 2000);
    SIM_CHECK_CMP(total, >=, 3ull * DELETE_KEYS * DELETE_VALUE_BYTES);
    SIM_CHECK_CMP(total, <=, expected);
    shard_test_close(test);
}

/* Shards that do not move are served while others wait for a group that is dead. */
static void challenge_unaffected(void)
{
    struct shard_test *test = open_test(KEYS, false);
    struct cluster *cluster = test->cluster;
    (void)cluster_join_one(cluster, 100);
    for (uint32_t i = 0; i < KEYS; i++) {
        shard_test_put(test, i, "100");
    }
    (void)cluster_join_one(cluster, 101);
    bool owned[KEYS];
    for (uint32_t i = 0; i < KEYS; i++) {
        owned[i] = shard_test_owner(test, i) == 101;
    }
    sim_run(1 * SIM_S);
    for (uint32_t i = 0; i < KEYS; i++) {
        if (owned[i]) {
            shard_test_put(test, i, "101");
        }
    }
    group_crash(shard_test_group(test, 100));
    (void)cluster_leave_one(cluster, 100);
    sim_run(1 * SIM_S);
    for (uint32_t i = 0; i < KEYS; i++) {
        if (owned[i]) {
            uint64_t from_ns = sim_now_ns();
            shard_test_check(test, i);
            shard_test_put(test, i, "101 again");
            shard_test_check(test, i);
            SIM_CHECK_CMP(sim_now_ns() - from_ns, <=, 1 * SIM_S);
        }
    }
    group_start(shard_test_group(test, 100)); /* now the rest can move */
    shard_test_close(test);
}

/* A shard is served as soon as it has come, while others of the same config are still missing. */
static void challenge_partial(void)
{
    struct shard_test *test = open_test(KEYS, false);
    struct cluster *cluster = test->cluster;
    (void)cluster_join(cluster, (const uint64_t[]){100, 101, 102}, 3);
    sim_run(1 * SIM_S);
    bool owned[KEYS];
    uint32_t owned_count = 0;
    for (uint32_t i = 0; i < KEYS; i++) {
        shard_test_put(test, i, "100");
        owned[i] = shard_test_owner(test, i) == 102;
        owned_count += owned[i];
    }
    SIM_CHECK_CMP(owned_count, >, 0);
    group_crash(shard_test_group(test, 100));
    (void)cluster_leave(cluster, (const uint64_t[]){100, 102}, 2);
    sim_run(1 * SIM_S);
    for (uint32_t i = 0; i < KEYS; i++) {
        if (owned[i]) {
            uint64_t from_ns = sim_now_ns();
            shard_test_check(test, i);
            shard_test_put(test, i, "101");
            shard_test_check(test, i);
            SIM_CHECK_CMP(sim_now_ns() - from_ns, <=, 1 * SIM_S);
        }
    }
    group_start(shard_test_group(test, 100));
    shard_test_close(test);
}

struct suite_list suite_shardkv(void)
{
    static const struct suite_test tests[] = {
        {.name = "shardkv.StaticShards", .run = static_shards},
        {.name = "shardkv.Rejection", .run = rejection},
        {.name = "shardkv.JoinLeave", .run = join_leave},
        {.name = "shardkv.Snapshot", .run = snapshot},
        {.name = "shardkv.MissChange", .run = miss_change},
        {.name = "shardkv.Challenge1Delete", .run = challenge_delete},
        {.name = "shardkv.Challenge2Unaffected", .run = challenge_unaffected},
        {.name = "shardkv.Challenge2Partial", .run = challenge_partial},
    };
    return (struct suite_list){tests, sizeof tests / sizeof tests[0]};
}
