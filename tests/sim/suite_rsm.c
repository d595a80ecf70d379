/* The course's tests of the replicated state machine layer: commands are submitted to one server,
 * and it must say, in bounded time, what became of each. A command here is an append to one key,
 * given to the node of a shard server as its service would. */
#include "proto/command.h"
#include "proto/shard_hash.h"
#include "raft/node/node.h"
#include "sim/kv_test.h"
#include "sim/suite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEY "counter"

enum { SERVERS = 3, SUBMITS = 100 };

struct submit {
    bool ended;
    int error;
    struct raft_position position;
    uint64_t ended_ns;
};

static void submit_done(void *context, int error, struct raft_position position,
                        struct bytes result)
{
    (void)result;
    struct submit *submit = context;
    submit->ended = true;
    submit->error = error;
    submit->position = position;
    submit->ended_ns = sim_now_ns();
}

/* Appends one letter on this server. */
static void submit_start(struct server *server, const char *letter, struct submit *submit)
{
    *submit = (struct submit){0};
    struct buf block = {0};
    block_put_header(&block, &(struct block_header){.count = 1});
    block_put_op(&block, &(struct op){.kind = OP_APPEND,
                                      .shard = shard_of_key(bytes_of_string(KEY), KV_SHARDS),
                                      .key = bytes_of_string(KEY),
                                      .value = bytes_of_string(letter)});
    struct blob *payload = blob_take_buf(&block);
    struct sim_host *former = sim_enter(server->host);
    int error = node_propose(server_node(server), blob_view(payload), payload, submit_done, submit);
    sim_leave(former);
    blob_unref(payload);
    if (error != 0) {
        submit_done(submit, error, (struct raft_position){0, 0}, BYTES_EMPTY);
    }
}

static bool submit_has_ended(void *context)
{
    return ((const struct submit *)context)->ended;
}

/* Until some server takes it. */
static void submit_somewhere(struct group *group, const char *letter)
{
    uint64_t until_ns = sim_now_ns() + 10 * SIM_S;
    while (sim_now_ns() < until_ns) {
        struct server *leader = group_leader(group);
        if (leader != NULL) {
            struct submit submit;
            submit_start(leader, letter, &submit);
            bool ended = sim_run_until(10 * SIM_S, submit_has_ended, &submit);
            SIM_CHECK(ended);
            if (submit.error == 0) {
                return;
            }
            SIM_CHECK(submit.error == ERR_NOT_LEADER || submit.error == ERR_LEADER_LOST ||
                      submit.error == ERR_SHUTDOWN || submit.error == ERR_BUSY);
        }
        sim_run(50 * SIM_MS);
    }
    SIM_FAIL("no server takes a command");
}

static void check_value(struct cluster *cluster, const char *expected)
{
    struct clerk clerk;
    clerk_open(&clerk, cluster, NULL);
    clerk_check(&clerk, KEY, expected);
    clerk_close(&clerk);
}

static void leader_failure(void)
{
    struct cluster *cluster = kv_cluster(SERVERS, false, false);
    struct group *group = &cluster->groups[0];
    submit_somewhere(group, "a");
    struct server *leader = group_wait_leader(group);
    server_isolate(cluster, leader, true);
    sim_run(1 * SIM_S); /* it steps down, and the others elect */
    submit_somewhere(group, "b");
    server_isolate(cluster, leader, false);
    submit_somewhere(group, "c");
    check_value(cluster, "abc");
    cluster_destroy(cluster);
}

static bool all_submits_ended(void *context)
{
    const struct submit *submits = context;
    for (uint32_t i = 0; i < SUBMITS; i++) {
        if (!submits[i].ended) {
            return false;
        }
    }
    return true;
}

/* A hundred commands given to a leader that was cut off: none may succeed, and each must end when
 * it learns of its successor. */
static void leader_partition(void)
{
    struct cluster *cluster = kv_cluster(SERVERS, false, false);
    struct group *group = &cluster->groups[0];
    submit_somewhere(group, "a");
    struct server *leader = group_wait_leader(group);
    group_partition(group, 1u << (leader->replica_id - 1));
    struct submit submits[SUBMITS];
    for (uint32_t i = 0; i < SUBMITS; i++) {
        submit_start(leader, "x", &submits[i]);
    }
    sim_run(1500 * SIM_MS); /* the others elect a leader */
    struct server *successor = group_leader(group);
    SIM_CHECK(successor != NULL && successor != leader);
    submit_somewhere(group, "b");
    for (uint32_t i = 0; i < SUBMITS; i++) {
        SIM_CHECK(!submits[i].ended || submits[i].error != 0);
    }
    group_heal(group);
    uint64_t healed_ns = sim_now_ns();
    bool ended = sim_run_until(1 * SIM_S, all_submits_ended, submits);
    SIM_CHECK(ended);
    for (uint32_t i = 0; i < SUBMITS; i++) {
        SIM_CHECK_CMP(submits[i].error, !=, 0);
        SIM_CHECK_CMP(submits[i].ended_ns, <=, healed_ns + 1 * SIM_S);
    }
    submit_somewhere(group, "c");
    check_value(cluster, "abc");
    cluster_destroy(cluster);
}

static void restart_replay(void)
{
    struct cluster *cluster = kv_cluster(SERVERS, false, false);
    struct group *group = &cluster->groups[0];
    struct buf expected = {0};
    for (uint32_t i = 0; i < SUBMITS; i++) {
        char letter[2] = {(char)('a' + i % 26), '\0'};
        submit_somewhere(group, letter);
        buf_append(&expected, letter, 1);
    }
    group_crash(group);
    sim_run(1 * SIM_S);
    group_start(group);
    submit_somewhere(group, "!");
    buf_append(&expected, "!", 2);
    check_value(cluster, (const char *)expected.data);
    buf_deinit(&expected);
    cluster_destroy(cluster);
}

/* What is under way when the servers end ends too, and not with success unless it was one. */
static void shutdown_with(bool orderly)
{
    struct cluster *cluster = kv_cluster(SERVERS, false, false);
    struct group *group = &cluster->groups[0];
    struct submit submits[SUBMITS];
    struct server *leader = group_wait_leader(group);
    for (uint32_t i = 0; i < SUBMITS; i++) {
        submit_start(leader, "x", &submits[i]);
    }
    sim_run(sim_between(0, 2000) * SIM_US);
    for (uint32_t i = 0; i < group->server_count; i++) {
        if (orderly) {
            server_stop(&group->servers[i]);
        } else {
            server_crash(&group->servers[i]);
        }
    }
    bool all_ended = all_submits_ended(submits);
    SIM_CHECK(all_ended);
    size_t succeeded = 0;
    for (uint32_t i = 0; i < SUBMITS; i++) {
        succeeded += submits[i].error == 0;
    }
    group_start(group);
    (void)group_wait_leader(group);
    struct clerk clerk;
    struct buf value = {0};
    clerk_open(&clerk, cluster, NULL);
    clerk_get(&clerk, KEY, &value);
    SIM_CHECK_CMP(value.size, >=, succeeded);
    SIM_CHECK_CMP(value.size, <=, SUBMITS);
    buf_deinit(&value);
    clerk_close(&clerk);
    cluster_destroy(cluster);
}

static void shutdown(void)
{
    shutdown_with(true);
}

/* As TestShutdown, but the servers crash, come back, and take commands again. */
static void restart_submit(void)
{
    shutdown_with(false);
}

struct suite_list suite_rsm(void)
{
    static const struct suite_test tests[] = {
        {.name = "rsm.TestLeaderFailure", .run = leader_failure},
        {.name = "rsm.TestLeaderPartition", .run = leader_partition},
        {.name = "rsm.TestRestartReplay", .run = restart_replay},
        {.name = "rsm.TestShutdown", .run = shutdown},
        {.name = "rsm.TestRestartSubmit", .run = restart_submit},
    };
    return (struct suite_list){tests, sizeof tests / sizeof tests[0]};
}
