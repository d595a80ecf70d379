/* The course's tests of shards that move while clients write, servers crash, and administrators
 * compete. */
#include "sim/shard_test.h"
#include "sim/suite.h"

#include "base/assert.h"

#include <stdio.h>
#include <stdlib.h>

enum { KEYS = 10 };

static void crash_group(struct shard_test *test, uint64_t id)
{
    group_crash(shard_test_group(test, id));
}

static void start_group(struct shard_test *test, uint64_t id)
{
    group_start(shard_test_group(test, id));
}

/* ---- Concurrent ---- */

/* Appends go on while groups come, go, crash and come back. */
static void concurrent_1(void)
{
    struct shard_test *test =
        shard_test_open(&(struct shard_test_options){.keys = KEYS, .snapshots = true});
    struct cluster *cluster = test->cluster;
    (void)cluster_join_one(cluster, 100);
    shard_test_put_all(test, 5);
    shard_test_appenders_start(test, 10 * SIM_MS);
    sim_run(150 * SIM_MS);
    (void)cluster_join_one(cluster, 101);
    sim_run(500 * SIM_MS);
    (void)cluster_join_one(cluster, 102);
    sim_run(500 * SIM_MS);
    (void)cluster_leave_one(cluster, 100);
    sim_run(500 * SIM_MS);
    crash_group(test, 100);
    sim_run(100 * SIM_MS);
    crash_group(test, 101);
    crash_group(test, 102);
    (void)cluster_leave_one(cluster, 102);
    start_group(test, 100);
    start_group(test, 101);
    start_group(test, 102);
    sim_run(100 * SIM_MS);
    (void)cluster_join_one(cluster, 100);
    (void)cluster_leave_one(cluster, 101);
    sim_run(500 * SIM_MS);
    (void)cluster_join_one(cluster, 101);
    sim_run(1 * SIM_S);
    shard_test_appenders_stop(test);
    shard_test_close(test);
}

static void concurrent_2(void)
{
    struct shard_test *test = shard_test_open(&(struct shard_test_options){.keys = KEYS});
    struct cluster *cluster = test->cluster;
    (void)cluster_join_one(cluster, 101);
    (void)cluster_join_one(cluster, 100);
    (void)cluster_join_one(cluster, 102);
    shard_test_put_all(test, 1);
    shard_test_appenders_start(test, 50 * SIM_MS);
    (void)cluster_leave_one(cluster, 100);
    (void)cluster_leave_one(cluster, 102);
    sim_run(3 * SIM_S);
    (void)cluster_join_one(cluster, 100);
    (void)cluster_join_one(cluster, 102);
    (void)cluster_leave_one(cluster, 101);
    sim_run(3 * SIM_S);
    (void)cluster_join_one(cluster, 101);
    (void)cluster_leave_one(cluster, 100);
    (void)cluster_leave_one(cluster, 102);
    sim_run(3 * SIM_S);
    crash_group(test, 101);
    crash_group(test, 102);
    sim_run(1 * SIM_S);
    start_group(test, 101);
    start_group(test, 102);
    sim_run(2 * SIM_S);
    shard_test_appenders_stop(test);
    shard_test_close(test);
}

/* Config changes and restarts of everything, for twelve seconds. */
static void concurrent_3(void)
{
    struct shard_test *test =
        shard_test_open(&(struct shard_test_options){.keys = KEYS, .snapshots = true});
    struct cluster *cluster = test->cluster;
    (void)cluster_join_one(cluster, 100);
    shard_test_put_all(test, 1);
    shard_test_appenders_start(test, 5 * SIM_MS);
    uint64_t until_ns = sim_now_ns() + 12 * SIM_S;
    while (sim_now_ns() < until_ns) {
        (void)cluster_join_one(cluster, 102);
        (void)cluster_join_one(cluster, 101);
        sim_run(sim_between(0, 899) * SIM_MS);
        for (uint64_t id = 100; id <= 102; id++) {
            crash_group(test, id);
        }
        for (uint64_t id = 100; id <= 102; id++) {
            start_group(test, id);
        }
        sim_run(sim_between(0, 899) * SIM_MS);
        (void)cluster_leave_one(cluster, 101);
        (void)cluster_leave_one(cluster, 102);
        sim_run(sim_between(0, 899) * SIM_MS);
    }
    sim_run(2 * SIM_S);
    shard_test_appenders_stop(test);
    shard_test_close(test);
}

/* ---- Unreliable ---- */

static void unreliable_1(void)
{
    struct shard_test *test = shard_test_open(
        &(struct shard_test_options){.keys = KEYS, .unreliable = true, .snapshots = true});
    struct cluster *cluster = test->cluster;
    (void)cluster_join_one(cluster, 100);
    shard_test_put_all(test, 5);
    (void)cluster_join_one(cluster, 101);
    (void)cluster_join_one(cluster, 102);
    (void)cluster_leave_one(cluster, 100);
    for (uint32_t round = 0; round < 2; round++) {
        shard_test_check_all(test);
        shard_test_append_all(test);
    }
    (void)cluster_join_one(cluster, 100);
    (void)cluster_leave_one(cluster, 101);
    shard_test_check_all(test);
    shard_test_close(test);
}

static void churn_configs(struct cluster *cluster)
{
    sim_run(150 * SIM_MS);
    (void)cluster_join_one(cluster, 101);
    sim_run(500 * SIM_MS);
    (void)cluster_join_one(cluster, 102);
    sim_run(500 * SIM_MS);
    (void)cluster_leave_one(cluster, 100);
    sim_run(500 * SIM_MS);
    (void)cluster_leave_one(cluster, 101);
    sim_run(500 * SIM_MS);
    (void)cluster_join(cluster, (const uint64_t[]){100, 101}, 2);
    sim_run(2 * SIM_S);
}

static void unreliable_2(void)
{
    struct shard_test *test = shard_test_open(
        &(struct shard_test_options){.keys = KEYS, .unreliable = true, .snapshots = true});
    (void)cluster_join_one(test->cluster, 100);
    shard_test_put_all(test, 5);
    shard_test_appenders_start(test, 10 * SIM_MS);
    churn_configs(test->cluster);
    sim_world()->net = sim_net_reliable();
    shard_test_appenders_stop(test);
    shard_test_close(test);
}

/* The same with gets, puts and appends of all clients to all keys: the history must be
 * linearizable. */
static void unreliable_3(void)
{
    struct shard_test *test = shard_test_open(
        &(struct shard_test_options){.keys = 0, .unreliable = true, .snapshots = true});
    struct linear_history *history = linear_create();
    struct clerk clerks[KEYS];
    struct loop loops[KEYS];
    (void)cluster_join_one(test->cluster, 100);
    for (uint32_t i = 0; i < KEYS; i++) {
        clerk_open(&clerks[i], test->cluster, history);
        struct loop_options options = {.number = i,
                                       .key_count = KEYS,
                                       .pause_min_ns = 2 * SIM_MS,
                                       .pause_max_ns = 10 * SIM_MS};
        loop_start(&loops[i], &clerks[i], &options);
    }
    churn_configs(test->cluster);
    for (uint32_t i = 0; i < KEYS; i++) {
        loop_stop(&loops[i]);
    }
    sim_world()->net = sim_net_reliable();
    loops_wait(loops, KEYS, 30 * SIM_S);
    for (uint32_t i = 0; i < KEYS; i++) {
        loop_deinit(&loops[i]);
        clerk_close(&clerks[i]);
    }
    shard_test_close(test);
    linear_require(history);
    linear_destroy(history);
}

/* ---- Progress ---- */

/* Keys that must be answered all the time, each within a second. */
static void check_in_time(struct shard_test *test, const bool *wanted)
{
    for (uint32_t i = 0; i < KEYS; i++) {
        if (wanted[i]) {
            uint64_t from_ns = sim_now_ns();
            shard_test_put(test, i, "during");
            shard_test_check(test, i);
            SIM_CHECK_CMP(sim_now_ns() - from_ns, <=, 1 * SIM_S);
        }
    }
}

/* A group dies and is told to leave: what it had cannot move, everything else is served, also
 * through further changes. */
static void progress_shutdown(void)
{
    struct shard_test *test = shard_test_open(&(struct shard_test_options){.keys = KEYS});
    struct cluster *cluster = test->cluster;
    (void)cluster_join(cluster, (const uint64_t[]){100, 101, 102}, 3);
    shard_test_put_all(test, 10);
    cluster_wait_settled(cluster, SETTLE_NS);
    bool elsewhere[KEYS];
    for (uint32_t i = 0; i < KEYS; i++) {
        elsewhere[i] = shard_test_owner(test, i) != 102;
    }
    crash_group(test, 102);
    (void)cluster_leave_one(cluster, 102);
    for (uint32_t round = 0; round < 5; round++) {
        check_in_time(test, elsewhere);
        sim_run(200 * SIM_MS);
    }
    start_group(test, 102);
    shard_test_close(test);
}

/* A group joins that is not there: its shards wait for it, nobody else does. */
static void progress_join(void)
{
    struct shard_test *test = shard_test_open(&(struct shard_test_options){.keys = KEYS});
    struct cluster *cluster = test->cluster;
    (void)cluster_join(cluster, (const uint64_t[]){100, 101}, 2);
    shard_test_put_all(test, 10);
    cluster_wait_settled(cluster, SETTLE_NS);
    crash_group(test, 102);
    (void)cluster_join_one(cluster, 102);
    bool elsewhere[KEYS];
    for (uint32_t i = 0; i < KEYS; i++) {
        elsewhere[i] = shard_test_owner(test, i) != 102;
    }
    for (uint32_t round = 0; round < 5; round++) {
        check_in_time(test, elsewhere);
        sim_run(200 * SIM_MS);
    }
    start_group(test, 102);
    shard_test_close(test);
}

/* ---- administrators ---- */

/* A change is asked for and the controllers crash; when they are back it ends, and has been made
 * once. */
static void recover_ctrler(void)
{
    struct shard_test *test = shard_test_open(&(struct shard_test_options){.keys = KEYS});
    struct cluster *cluster = test->cluster;
    uint64_t number = cluster_join_one(cluster, 100);
    shard_test_put_all(test, 5);
    shard_test_appenders_start(test, 20 * SIM_MS);
    const uint64_t id = 101;
    for (uint32_t round = 0; round < 6; round++) {
        struct admin_change change;
        if (round % 2 == 0) {
            admin_begin_join(cluster->admin, &id, 1, &change);
        } else {
            admin_begin_leave(cluster->admin, &id, 1, &change);
        }
        sim_run(sim_between(0, 3000) * SIM_US);
        group_crash(&cluster->controllers);
        sim_run(sim_between(0, 500) * SIM_MS);
        group_start(&cluster->controllers);
        bool ended = admin_wait(&change, 30 * SIM_S);
        SIM_CHECK(ended);
        SIM_CHECK_EQ(change.error, 0);
        number++;
        struct config *config = cluster_query(cluster);
        SIM_CHECK_EQ(config->number, number);
        const struct config_group *group = config_find_group(config, id);
        SIM_CHECK_EQ(group != NULL && !group->departed, round % 2 == 0);
        config_free(config);
    }
    shard_test_appenders_stop(test);
    shard_test_close(test);
}

/* Owners are groups that are there, and every group has its share. */
static void check_config(struct cluster *cluster, const uint64_t *ids, size_t count)
{
    struct config *config = cluster_query(cluster);
    uint32_t shares[CLUSTER_GROUPS_MAX] = {0};
    for (uint32_t shard = 0; shard < config->shard_count; shard++) {
        bool found = false;
        for (size_t i = 0; i < count; i++) {
            shares[i] += config->owners[shard] == ids[i];
            found = found || config->owners[shard] == ids[i];
        }
        SIM_CHECK(found);
    }
    for (size_t i = 0; i < count; i++) {
        SIM_CHECK_CMP(shares[i], >=, config->shard_count / count);
    }
    config_free(config);
}

/* Two administrators change the config at the same time, each its own group, over and over. */
static void concurrent_reliable(void)
{
    struct shard_test *test = shard_test_open(&(struct shard_test_options){.keys = KEYS});
    struct cluster *cluster = test->cluster;
    struct admin *admins[2] = {admin_create(cluster, "admin1"), admin_create(cluster, "admin2")};
    const uint64_t ids[2] = {101, 102};
    uint64_t number = cluster_join_one(cluster, 100);
    shard_test_put_all(test, 5);
    shard_test_appenders_start(test, 20 * SIM_MS);
    for (uint32_t round = 0; round < 9; round++) {
        struct admin_change changes[2];
        for (uint32_t i = 0; i < 2; i++) {
            if (round % 2 == 0) {
                admin_begin_join(admins[i], &ids[i], 1, &changes[i]);
            } else {
                admin_begin_leave(admins[i], &ids[i], 1, &changes[i]);
            }
        }
        for (uint32_t i = 0; i < 2; i++) {
            bool ended = admin_wait(&changes[i], 10 * SIM_S);
            SIM_CHECK(ended);
            SIM_CHECK_EQ(changes[i].error, 0);
        }
        SIM_CHECK_CMP(changes[0].number, !=, changes[1].number);
        number += 2;
        sim_run(sim_between(0, 400) * SIM_MS);
    }
    struct config *config = cluster_query(cluster);
    SIM_CHECK_EQ(config->number, number);
    config_free(config);
    check_config(cluster, (const uint64_t[]){100, 101, 102}, 3);
    shard_test_appenders_stop(test);
    admin_destroy(admins[0]);
    admin_destroy(admins[1]);
    shard_test_close(test);
}

/* One administrator is cut off in the middle of a change; another goes on. After the heal the first
 * one's change ends: made once, or refused, and nothing of the second one's is undone. */
static void partition_controller(void)
{
    struct shard_test *test = shard_test_open(&(struct shard_test_options){.keys = KEYS});
    struct cluster *cluster = test->cluster;
    struct admin *cut_off = admin_create(cluster, "admin1");
    const uint64_t first = 101;
    const uint64_t second = 102;
    (void)cluster_join_one(cluster, 100);
    shard_test_put_all(test, 5);
    shard_test_appenders_start(test, 20 * SIM_MS);
    for (uint32_t round = 0; round < 4; round++) {
        struct admin_change change;
        admin_begin_join(cut_off, &first, 1, &change);
        sim_run(sim_between(0, 1000) * SIM_US);
        for (uint32_t i = 0; i < cluster->controllers.server_count; i++) {
            sim_cut_both(admin_host(cut_off), cluster->controllers.servers[i].host, true);
        }
        uint64_t number = cluster_join_one(cluster, second);
        sim_run(2 * SIM_S);
        for (uint32_t i = 0; i < cluster->controllers.server_count; i++) {
            sim_cut_both(admin_host(cut_off), cluster->controllers.servers[i].host, false);
        }
        bool ended = admin_wait(&change, 60 * SIM_S);
        SIM_CHECK(ended);
        SIM_CHECK_EQ(change.error, 0); /* the retries carried one sequence: made once, said once */
        SIM_CHECK_CMP(change.number, !=, number);
        struct config *config = cluster_query(cluster);
        SIM_CHECK_EQ(config->number, change.number > number ? change.number : number);
        config_free(config);
        check_config(cluster, (const uint64_t[]){100, first, second}, 3);
        (void)cluster_leave(cluster, (const uint64_t[]){first, second}, 2);
        sim_run(sim_between(0, 500) * SIM_MS);
    }
    shard_test_appenders_stop(test);
    admin_destroy(cut_off);
    shard_test_close(test);
}

struct suite_list suite_shardkv_changes(void)
{
    static const struct suite_test tests[] = {
        {.name = "shardkv.Concurrent1", .run = concurrent_1},
        {.name = "shardkv.Concurrent2", .run = concurrent_2},
        {.name = "shardkv.Concurrent3", .run = concurrent_3},
        {.name = "shardkv.Unreliable1", .run = unreliable_1},
        {.name = "shardkv.Unreliable2", .run = unreliable_2},
        {.name = "shardkv.Unreliable3", .run = unreliable_3},
        {.name = "shardkv.ProgressShutdown", .run = progress_shutdown},
        {.name = "shardkv.ProgressJoin", .run = progress_join},
        {.name = "shardkv.RecoverCtrler", .run = recover_ctrler},
        {.name = "shardkv.ConcurrentReliable", .run = concurrent_reliable},
        {.name = "shardkv.PartitionController", .run = partition_controller},
    };
    return (struct suite_list){tests, sizeof tests / sizeof tests[0]};
}
