/* The course's GenericTest: three rounds of clients that write and read for five seconds, beside
 * partitions, then crashes of every server, then a look at what is there. Thread: one. */
#include "sim/kv_test.h"

#include "base/assert.h"
#include "raft/node/node.h"

#include <stdio.h>
#include <stdlib.h>

#define ELECTION_NS (1 * SIM_S)
#define ROUND_NS    (5 * SIM_S)
#define ANSWER_NS   (20 * SIM_S) /* after the last heal or restart */
enum { ROUNDS = 3 };

struct cluster *kv_cluster(uint32_t servers, bool unreliable, bool snapshots)
{
    struct cluster_options options = {.controllers = 1,
                                      .groups = 1,
                                      .replicas = servers,
                                      .shards = KV_SHARDS,
                                      .unreliable = unreliable,
                                      .flush_log_bytes = snapshots ? KV_FLUSH_LOG_BYTES : 0,
                                      .joined = true};
    return cluster_create(&options);
}

struct run {
    const struct kv_test *test;
    struct cluster *cluster;
    struct linear_history *history;
    struct clerk clerks[CLUSTER_CLIENTS_MAX];
    struct loop loops[CLUSTER_CLIENTS_MAX];
    char keys[CLUSTER_CLIENTS_MAX][8];
};

static void start_loops(struct run *run)
{
    for (uint32_t i = 0; i < run->test->clients; i++) {
        (void)snprintf(run->keys[i], sizeof run->keys[i], "%u", i);
        struct loop_options options = {.number = i,
                                       .key = run->test->random_keys ? NULL : run->keys[i],
                                       .key_count = run->test->clients,
                                       .padding_bytes = run->test->snapshots ? 2048 : 0,
                                       .padding_one_in = 5,
                                       .pause_min_ns = 2 * SIM_MS,
                                       .pause_max_ns = 20 * SIM_MS};
        loop_start(&run->loops[i], &run->clerks[i], &options);
    }
}

/* Random halves, a new division about every election timeout. */
static void partition_for(struct group *group, uint64_t duration_ns)
{
    uint64_t until_ns = sim_now_ns() + duration_ns;
    while (sim_now_ns() < until_ns) {
        group_partition(group, (uint32_t)sim_between(0, (UINT64_C(1) << group->server_count) - 1));
        sim_run(ELECTION_NS + sim_between(0, 200) * SIM_MS);
    }
}

static void check_round(struct run *run)
{
    struct buf value = {0};
    for (uint32_t i = 0; i < run->test->clients; i++) {
        if (!run->test->random_keys) {
            clerk_get(&run->clerks[i], run->keys[i], &value);
            check_appends(buf_view(&value), i, run->loops[i].appended);
            SIM_CHECK(bytes_equal(buf_view(&value), buf_view(&run->loops[i].last)));
        }
        loop_deinit(&run->loops[i]);
    }
    buf_deinit(&value);
}

static void check_log_sizes(const struct group *group)
{
    for (uint32_t i = 0; i < group->server_count; i++) {
        struct node_status status;
        node_status(server_node(&group->servers[i]), &status);
        SIM_CHECK_CMP(status.log_bytes, <=, KV_LOG_BYTES_MAX);
    }
}

static void run_round(struct run *run)
{
    struct group *group = &run->cluster->groups[0];
    start_loops(run);
    if (run->test->partitions) {
        sim_run(1 * SIM_S); /* let them write without interruption for a while */
        partition_for(group, ROUND_NS);
    } else {
        sim_run(ROUND_NS);
    }
    for (uint32_t i = 0; i < run->test->clients; i++) {
        loop_stop(&run->loops[i]);
    }
    group_heal(group);
    if (run->test->partitions) {
        sim_run(ELECTION_NS);
    }
    if (run->test->crashes) {
        group_crash(group);
        sim_run(ELECTION_NS);
        group_start(group);
    }
    loops_wait(run->loops, run->test->clients, ANSWER_NS);
    check_round(run);
    if (run->test->snapshots) {
        check_log_sizes(group);
    }
}

void kv_test_run(const struct kv_test *test)
{
    ASSERT_CMP(test->clients, <=, CLUSTER_CLIENTS_MAX);
    struct run *run = mem_calloc(1, sizeof *run);
    run->test = test;
    run->cluster = kv_cluster(test->servers, test->unreliable, test->snapshots);
    run->history = linear_create();
    for (uint32_t i = 0; i < test->clients; i++) {
        clerk_open(&run->clerks[i], run->cluster, run->history);
    }
    for (uint32_t i = 0; i < ROUNDS; i++) {
        run_round(run);
    }
    for (uint32_t i = 0; i < test->clients; i++) {
        clerk_close(&run->clerks[i]);
    }
    cluster_destroy(run->cluster);
    linear_require(run->history);
    linear_destroy(run->history);
    free(run);
}
