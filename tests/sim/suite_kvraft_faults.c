/* The course's tests of the key-value service on one group that have a story of their own. */
#include "raft/node/node.h"
#include "sim/kv_test.h"
#include "sim/sim_node.h"
#include "sim/suite.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ELECTION_NS (1 * SIM_S)

/* ---- TestSpeed ---- */

enum { SPEED_OPERATIONS = 1000 };
#define SPEED_OPERATION_NS (33300 * SIM_US) /* three operations a heartbeat interval of 100 ms */

static void speed_of(bool snapshots)
{
    struct cluster *cluster = kv_cluster(3, false, snapshots);
    struct clerk clerk;
    struct buf expected = {0};
    struct buf value = {0};
    clerk_open(&clerk, cluster, NULL);
    clerk_append(&clerk, "x", ""); /* the first waits for nothing but a connection */
    uint64_t from_ns = sim_now_ns();
    for (uint32_t i = 0; i < SPEED_OPERATIONS; i++) {
        char text[32];
        (void)snprintf(text, sizeof text, "x 0 %u y", i);
        clerk_append(&clerk, "x", text);
        buf_append(&expected, text, strlen(text));
    }
    uint64_t took_ns = sim_now_ns() - from_ns;
    clerk_get(&clerk, "x", &value);
    SIM_CHECK(bytes_equal(buf_view(&value), buf_view(&expected)));
    SIM_CHECK_CMP(took_ns / SPEED_OPERATIONS, <=, SPEED_OPERATION_NS);
    printf("  %.3f ms an operation\n", (double)took_ns / SPEED_OPERATIONS / 1e6);
    buf_deinit(&value);
    buf_deinit(&expected);
    clerk_close(&clerk);
    cluster_destroy(cluster);
}

static void speed(void)
{
    speed_of(false);
}

/* ---- TestUnreliableOneKey ---- */

enum { ONE_KEY_CLIENTS = 5, ONE_KEY_APPENDS = 10 };

struct appender {
    struct clerk clerk;
    uint32_t number;
    uint32_t done;
};

static void append_next(struct appender *appender);

static void append_done(void *context, const struct skv_result *result)
{
    struct appender *appender = context;
    SIM_CHECK_EQ(result->outcome, SKV_DONE);
    appender->done++;
    append_next(appender);
}

static void append_next(struct appender *appender)
{
    if (appender->done < ONE_KEY_APPENDS) {
        char text[32];
        (void)snprintf(text, sizeof text, "x %u %u y", appender->number, appender->done);
        clerk_start(&appender->clerk, SKV_APPEND, "k", text, strlen(text), append_done, appender);
    }
}

static bool all_appended(void *context)
{
    const struct appender *appenders = context;
    for (uint32_t i = 0; i < ONE_KEY_CLIENTS; i++) {
        if (appenders[i].done < ONE_KEY_APPENDS) {
            return false;
        }
    }
    return true;
}

static void unreliable_one_key(void)
{
    struct cluster *cluster = kv_cluster(3, true, false);
    struct clerk clerk;
    struct appender appenders[ONE_KEY_CLIENTS];
    struct buf value = {0};
    clerk_open(&clerk, cluster, NULL);
    clerk_put(&clerk, "k", "");
    for (uint32_t i = 0; i < ONE_KEY_CLIENTS; i++) {
        appenders[i] = (struct appender){.number = i};
        clerk_open(&appenders[i].clerk, cluster, NULL);
        append_next(&appenders[i]);
    }
    bool done = sim_run_until(60 * SIM_S, all_appended, appenders);
    SIM_CHECK(done);
    clerk_get(&clerk, "k", &value);
    for (uint32_t i = 0; i < ONE_KEY_CLIENTS; i++) {
        check_appends(buf_view(&value), i, ONE_KEY_APPENDS);
        clerk_close(&appenders[i].clerk);
    }
    /* Nothing else is in it. */
    SIM_CHECK_EQ(value.size, ONE_KEY_CLIENTS * ONE_KEY_APPENDS * strlen("x 0 0 y"));
    buf_deinit(&value);
    clerk_close(&clerk);
    cluster_destroy(cluster);
}

/* ---- TestOnePartition ---- */

/* The client reaches these servers only. */
static void reach(const struct clerk *clerk, const struct group *group, uint32_t mask)
{
    for (uint32_t i = 0; i < group->server_count; i++) {
        sim_cut_both(clerk->host, group->servers[i].host, ((mask >> i) & 1) == 0);
    }
}

/* Two servers of five, the leader among them. */
static uint32_t minority_with_leader(const struct group *group)
{
    const struct server *leader = group_leader(group);
    SIM_CHECK(leader != NULL);
    uint32_t leader_bit = (uint32_t)leader->replica_id - 1;
    return 1u << leader_bit | 1u << (leader_bit + 1) % group->server_count;
}

static void one_partition(void)
{
    struct cluster *cluster = kv_cluster(5, false, false);
    struct group *group = &cluster->groups[0];
    struct clerk majority;
    struct clerk minority[2];
    clerk_open(&majority, cluster, NULL);
    clerk_open(&minority[0], cluster, NULL);
    clerk_open(&minority[1], cluster, NULL);
    clerk_put(&majority, "1", "13");

    /* Progress in the majority. */
    uint32_t mask = minority_with_leader(group);
    group_partition(group, mask);
    reach(&majority, group, ~mask);
    reach(&minority[0], group, mask);
    reach(&minority[1], group, mask);
    clerk_put(&majority, "1", "14");
    clerk_check(&majority, "1", "14");

    /* No progress in the minority. */
    struct clerk_pending put;
    struct clerk_pending get;
    clerk_begin(&minority[0], SKV_PUT, "1", "15", &put);
    clerk_begin(&minority[1], SKV_GET, "1", NULL, &get);
    sim_run(1 * SIM_S);
    SIM_CHECK(!put.ended);
    SIM_CHECK(!get.ended);
    clerk_check(&majority, "1", "14");
    clerk_put(&majority, "1", "16");
    clerk_check(&majority, "1", "16");
    SIM_CHECK(!put.ended);
    SIM_CHECK(!get.ended);

    /* Completion after heal. */
    group_heal(group);
    reach(&majority, group, ~0u);
    reach(&minority[0], group, ~0u);
    reach(&minority[1], group, ~0u);
    sim_run(ELECTION_NS);
    bool put_ended = clerk_wait(&put, 3 * SIM_S);
    bool get_ended = clerk_wait(&get, 3 * SIM_S);
    SIM_CHECK(put_ended);
    SIM_CHECK(get_ended);
    SIM_CHECK_EQ(put.result.outcome, SKV_DONE);
    SIM_CHECK_EQ(get.result.outcome, SKV_DONE);
    bool new_enough = bytes_equal(buf_view(&get.value), bytes_of_string("16")) ||
                      bytes_equal(buf_view(&get.value), bytes_of_string("15"));
    SIM_CHECK(new_enough);
    clerk_check(&majority, "1", "15");
    clerk_pending_deinit(&put);
    clerk_pending_deinit(&get);
    clerk_close(&minority[0]);
    clerk_close(&minority[1]);
    clerk_close(&majority);
    cluster_destroy(cluster);
}

/* ---- TestSnapshotRPC ---- */

enum { RPC_PUTS = 50, RPC_VALUE_BYTES = 16 * 1024 };

static void put_large(struct clerk *clerk, uint32_t i)
{
    char key[16];
    (void)snprintf(key, sizeof key, "%u", i);
    char *value = mem_alloc(RPC_VALUE_BYTES + 1);
    memset(value, 'a' + (int)(i % 26), RPC_VALUE_BYTES);
    value[RPC_VALUE_BYTES] = '\0';
    clerk_put(clerk, key, value);
    free(value);
}

static void check_large(struct clerk *clerk, uint32_t i)
{
    char key[16];
    struct buf value = {0};
    (void)snprintf(key, sizeof key, "%u", i);
    clerk_get(clerk, key, &value);
    SIM_CHECK_EQ(value.size, RPC_VALUE_BYTES);
    SIM_CHECK_EQ(value.data[0], 'a' + (int)(i % 26));
    SIM_CHECK_EQ(value.data[RPC_VALUE_BYTES - 1], 'a' + (int)(i % 26));
    buf_deinit(&value);
}

static uint64_t log_bytes_of(const struct server *server)
{
    struct node_status status;
    node_status(server_node(server), &status);
    return status.log_bytes;
}

static void snapshot_rpc(void)
{
    struct cluster *cluster = kv_cluster(3, false, true);
    struct group *group = &cluster->groups[0];
    struct clerk clerk;
    clerk_open(&clerk, cluster, NULL);
    clerk_put(&clerk, "a", "A");
    clerk_check(&clerk, "a", "A");

    /* Much is written without the third server, more than its peers keep a log for. */
    group_partition(group, 1u << 2);
    for (uint32_t i = 0; i < RPC_PUTS; i++) {
        put_large(&clerk, i);
    }
    sim_run(ELECTION_NS);
    clerk_put(&clerk, "b", "B");
    for (uint32_t i = 0; i < 2; i++) {
        SIM_CHECK_CMP(log_bytes_of(&group->servers[i]), <=, KV_LOG_BYTES_MAX);
    }

    /* The third must catch up by a snapshot, to be half of the next majority. */
    uint64_t restored = sim_world()->counters.snapshots_restored;
    group_partition(group, 1u << 1);
    clerk_put(&clerk, "c", "C");
    clerk_put(&clerk, "d", "D");
    clerk_check(&clerk, "a", "A");
    clerk_check(&clerk, "b", "B");
    check_large(&clerk, 1);
    check_large(&clerk, RPC_PUTS - 1);
    SIM_CHECK_CMP(sim_world()->counters.snapshots_restored, >, restored);

    group_heal(group);
    clerk_put(&clerk, "e", "E");
    clerk_check(&clerk, "c", "C");
    clerk_check(&clerk, "e", "E");
    check_large(&clerk, 1);
    clerk_close(&clerk);
    cluster_destroy(cluster);
}

/* ---- TestSnapshotSize ---- */

enum { SIZE_ROUNDS = 200, SIZE_STATE_BYTES_MAX = 8 * 1024 };

static void snapshot_size(void)
{
    struct cluster *cluster = kv_cluster(3, false, true);
    struct group *group = &cluster->groups[0];
    struct clerk clerk;
    clerk_open(&clerk, cluster, NULL);
    for (uint32_t i = 0; i < SIZE_ROUNDS; i++) {
        clerk_put(&clerk, "x", "0");
        clerk_check(&clerk, "x", "0");
        clerk_put(&clerk, "x", "1");
        clerk_check(&clerk, "x", "1");
    }
    /* Neither the log nor the state grows with what was overwritten. */
    for (uint32_t i = 0; i < group->server_count; i++) {
        SIM_CHECK_CMP(log_bytes_of(&group->servers[i]), <=, 8 * KV_FLUSH_LOG_BYTES);
        SIM_CHECK_CMP(server_store_bytes(&group->servers[i]), <=, SIZE_STATE_BYTES_MAX);
    }
    clerk_close(&clerk);
    cluster_destroy(cluster);
}

struct suite_list suite_kvraft_faults(void)
{
    static const struct suite_test tests[] = {
        {.name = "kvraft.TestSpeed", .run = speed},
        {.name = "kvraft.TestUnreliableOneKey", .run = unreliable_one_key},
        {.name = "kvraft.TestOnePartition", .run = one_partition},
        {.name = "kvraft.TestSnapshotRPC", .run = snapshot_rpc},
        {.name = "kvraft.TestSnapshotSize", .run = snapshot_size},
    };
    return (struct suite_list){tests, sizeof tests / sizeof tests[0]};
}
