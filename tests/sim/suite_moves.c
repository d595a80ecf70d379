/* Moves of shards when something goes wrong at exactly the wrong moment, in a whole cluster. The
 * numbers are those of SCENARIOS.md. */
#include "proto/messages.h"
#include "proto/methods.h"
#include "proto/shard_hash.h"
#include "raft/node/node.h"
#include "rpc/rpc.h"
#include "shardkv/kv_machine.h"
#include "sim/shard_test.h"
#include "sim/sim_node.h"
#include "sim/sometimes.h"
#include "sim/suite.h"

#include "base/assert.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    KEYS = 10,
    LARGE_BYTES = 200 * 1024,
    LARGE_KEYS = 12, /* of one shard: some chunks */
};

/* Groups 100 and 101; shard 0 is at 100. */
static struct shard_test *open_test(bool snapshots)
{
    struct shard_test *test =
        shard_test_open(&(struct shard_test_options){.keys = KEYS, .snapshots = snapshots});
    (void)cluster_join(test->cluster, (const uint64_t[]){100, 101}, 2);
    (void)cluster_move(test->cluster, 0, 100);
    shard_test_put_all(test, 20);
    cluster_wait_settled(test->cluster, SETTLE_NS);
    return test;
}

static void fill_shard(struct shard_test *test)
{
    char *value = mem_alloc(LARGE_BYTES + 1);
    memset(value, 'v', LARGE_BYTES);
    value[LARGE_BYTES] = '\0';
    for (uint32_t i = 0; i < LARGE_KEYS; i++) {
        char key[SIM_NAME_BYTES_MAX];
        clerk_key_in_shard(0, SHARD_TEST_SHARDS, 1 + i, key);
        clerk_put(&test->clerk, key, value);
    }
    free(value);
}

/* Key 0, so often, with a kilobyte each. */
static void overwrite(struct shard_test *test, uint32_t count)
{
    char value[1024];
    memset(value, 'w', sizeof value - 1);
    value[sizeof value - 1] = '\0';
    for (uint32_t i = 0; i < count; i++) {
        shard_test_put(test, 0, value);
    }
}

static void check_filled(struct shard_test *test)
{
    struct buf value = {0};
    for (uint32_t i = 0; i < LARGE_KEYS; i++) {
        char key[SIM_NAME_BYTES_MAX];
        clerk_key_in_shard(0, SHARD_TEST_SHARDS, 1 + i, key);
        clerk_get(&test->clerk, key, &value);
        SIM_CHECK_EQ(value.size, LARGE_BYTES);
    }
    buf_deinit(&value);
}

/* ---- what a group shows of a shard ---- */

struct shard_wait {
    const struct group *group;
    uint32_t shard;
    enum shard_state state;
    uint64_t rows; /* at least; of a shard that is being pulled */
};

/* Of its leader. */
static bool shows(void *context)
{
    const struct shard_wait *wait = context;
    const struct server *leader = group_leader(wait->group);
    if (leader == NULL) {
        return false;
    }
    struct kv_table *table = kv_machine_table(server_machine(leader));
    const struct shard_record *record =
        wait->shard < table->shard_count ? &table->shards[wait->shard] : NULL;
    bool held = record != NULL && record->state == wait->state && record->rows >= wait->rows;
    kv_table_unref(table);
    return held;
}

static void wait_for(const struct group *group, enum shard_state state, uint64_t rows)
{
    struct shard_wait wait = {.group = group, .state = state, .rows = rows};
    if (!sim_run_until(SETTLE_NS, shows, &wait)) {
        SIM_FAIL("shard 0 has not become %s at group %llu", shard_state_name(state),
                 (unsigned long long)group->id);
    }
}

static struct admin_change *begin_move(struct shard_test *test, uint64_t to)
{
    struct admin_change *change = mem_calloc(1, sizeof *change);
    admin_begin_move(test->cluster->admin, 0, to, change);
    return change;
}

static void end_move(struct admin_change *change)
{
    bool ended = admin_wait(change, SETTLE_NS);
    SIM_CHECK(ended);
    SIM_CHECK_EQ(change->error, 0);
    free(change);
}

/* Everything that servers of `from` send to those of `to` stays on its way. */
static void clog_groups(const struct group *from, const struct group *to, uint64_t duration_ns)
{
    for (uint32_t i = 0; i < from->server_count; i++) {
        for (uint32_t j = 0; j < to->server_count; j++) {
            sim_clog(from->servers[i].host, to->servers[j].host, duration_ns);
        }
    }
}

static void cut_groups(const struct group *a, const struct group *b, bool cut)
{
    for (uint32_t i = 0; i < a->server_count; i++) {
        for (uint32_t j = 0; j < b->server_count; j++) {
            sim_cut_both(a->servers[i].host, b->servers[j].host, cut);
        }
    }
}

/* ---- tests ---- */

/* Scenario 38. Readers hammer one key while its shard goes back and forth: a read that was
 * confirmed before the freeze and is served after it must be refused, or it would miss what the
 * other group has acknowledged by then. */
static void read_across_a_move(void)
{
    enum { READERS = 8, ROUNDS_MAX = 200 };
    struct shard_test *test = open_test(false);
    struct linear_history *history = linear_create();
    uint64_t refused = sim_sometimes_count(S_READ_REFUSED_LATE);
    struct clerk clerks[READERS + 1];
    struct loop loops[READERS + 1];
    for (uint32_t i = 0; i <= READERS; i++) {
        clerk_open(&clerks[i], test->cluster, history);
        if (i == 0) {
            clerk_put(&clerks[0], test->keys[0], "known to the history");
        }
        struct loop_options options = {.number = i,
                                       .key = NULL,
                                       .key_count = 1,
                                       .only_key = test->keys[0],
                                       .gets_only = i < READERS,
                                       .pause_max_ns = i < READERS ? 0 : 3 * SIM_MS};
        loop_start(&loops[i], &clerks[i], &options);
    }
    sim_world()->net.delay_max_ns = 10 * SIM_MS;
    for (uint32_t round = 0;
         round < ROUNDS_MAX && sim_sometimes_count(S_READ_REFUSED_LATE) == refused; round++) {
        (void)cluster_move(test->cluster, 0, round % 2 == 0 ? 101 : 100);
        cluster_wait_settled(test->cluster, SETTLE_NS);
        sim_run(sim_between(0, 30) * SIM_MS);
    }
    for (uint32_t i = 0; i <= READERS; i++) {
        loop_stop(&loops[i]);
    }
    loops_wait(loops, READERS + 1, SETTLE_NS);
    for (uint32_t i = 0; i <= READERS; i++) {
        loop_deinit(&loops[i]);
        clerk_close(&clerks[i]);
    }
    linear_require(history);
    SIM_CHECK_CMP(sim_sometimes_count(S_READ_REFUSED_LATE), >, refused);
    linear_destroy(history);
    shard_test_close_broken(test); /* key 0 holds what the loop wrote */
}

/* Scenario 64. The whole source stops when some rows have been fetched, and comes back. */
static void source_restarts(void)
{
    struct shard_test *test = open_test(true);
    struct group *source = shard_test_group(test, 100);
    fill_shard(test);
    struct admin_change *change = begin_move(test, 101);
    wait_for(shard_test_group(test, 101), SHARD_PULLING, 1);
    group_crash(source);
    sim_run(1 * SIM_S);
    wait_for(shard_test_group(test, 101), SHARD_PULLING, 1); /* it cannot have been installed */
    group_start(source);
    end_move(change);
    cluster_wait_settled(test->cluster, SETTLE_NS);
    wait_for(shard_test_group(test, 101), SHARD_SERVING, 0);
    check_filled(test);
    shard_test_close(test);
}

/* Scenario 66. The destination stops after the Install and before the Drop; the source still has
 * everything then, and drops it when the destination, back again, asks for it. */
static void destination_crashes(void)
{
    struct shard_test *test = open_test(true);
    struct group *source = shard_test_group(test, 100);
    struct group *destination = shard_test_group(test, 101);
    struct admin_change *change = begin_move(test, 101);
    wait_for(destination, SHARD_SERVING, 0);
    cut_groups(source, destination, true);
    overwrite(test, 60); /* so much that the Install is not in the log any more */
    group_crash(destination);
    wait_for(source, SHARD_FROZEN, 0);
    sim_run(1 * SIM_S);
    wait_for(source, SHARD_FROZEN, 0);
    cut_groups(source, destination, false);
    group_start(destination);
    end_move(change);
    wait_for(destination, SHARD_SERVING, 0);
    wait_for(source, SHARD_ABSENT, 0);
    shard_test_check_all(test);
    shard_test_close(test);
}

static void pause_group(const struct group *group, uint64_t duration_ns)
{
    for (uint32_t i = 0; i < group->server_count; i++) {
        sim_host_pause(group->servers[i].host, duration_ns);
    }
}

/* Scenario 65. A Drop of config N is on its way for seconds. Meanwhile another leader had the shard
 * dropped, it came back with N+1, was written to, and is frozen to leave again with N+2, when the
 * Drop arrives. */
static void delayed_drop(void)
{
    struct shard_test *test = open_test(false);
    struct group *source = shard_test_group(test, 100);
    struct group *destination = shard_test_group(test, 101);
    end_move(begin_move(test, 101));
    wait_for(destination, SHARD_SERVING, 0);
    clog_groups(destination, source, 6 * SIM_S); /* the Drop, as the next that it sends */
    uint64_t clogged_ns = sim_now_ns();
    sim_run(300 * SIM_MS);
    wait_for(source, SHARD_FROZEN, 0);
    clog_groups(destination, source, 0); /* what is sent from now on passes */
    struct server *old = group_leader(destination);
    sim_host_pause(old->host, 1500 * SIM_MS); /* not crashed: what it sent is still on its way */
    sim_run(1400 * SIM_MS);
    SIM_CHECK(group_wait_leader(destination) != old);
    wait_for(source, SHARD_ABSENT, 0);
    end_move(begin_move(test, 100));
    wait_for(source, SHARD_SERVING, 0);
    shard_test_put(test, 0, "written under N+1");
    struct admin_change *change = begin_move(test, 101);
    wait_for(source, SHARD_FROZEN, 0);
    pause_group(destination, 10 * SIM_S);
    SIM_CHECK_CMP(sim_now_ns() - clogged_ns, <, 6 * SIM_S);
    sim_run(7 * SIM_S);
    wait_for(source, SHARD_FROZEN, 0); /* the Drop of N has come, and changed nothing */
    end_move(change);
    cluster_wait_settled(test->cluster, SETTLE_NS);
    shard_test_close(test);
}

/* Scenario 67. The leader that drives a move stands still, another drives it to its end; then the
 * first one goes on with what it was about to do. */
static void old_driver(void)
{
    struct shard_test *test = open_test(true);
    struct group *destination = shard_test_group(test, 101);
    fill_shard(test);
    struct admin_change *change = begin_move(test, 101);
    wait_for(destination, SHARD_PULLING, 1);
    struct server *old = group_leader(destination);
    sim_host_pause(old->host, 5 * SIM_S);
    sim_run(1 * SIM_S);
    end_move(change);
    wait_for(destination, SHARD_SERVING, 0);
    SIM_CHECK(group_leader(destination) != old);
    shard_test_put(test, 0, "written after the move");
    sim_run(5 * SIM_S); /* the old one is back */
    check_filled(test);
    shard_test_close(test);
}

static void changed(void *context, int error)
{
    SIM_CHECK_EQ(error, 0);
    *(bool *)context = true;
}

static bool is_true(void *context)
{
    return *(bool *)context;
}

static bool has_caught_up(void *context)
{
    const struct server *server = context;
    const struct group *group = cluster_group(server->cluster, server->group_id);
    const struct server *leader = group_leader(group);
    if (leader == NULL) {
        return false;
    }
    struct state_machine here = server_state(server);
    struct state_machine there = server_state(leader);
    return raft_position_equal(here.ops->applied(here.sm), there.ops->applied(there.sm));
}

/* Scenario 68. A replica of the source is behind, and the leader's snapshot for it, from before the
 * freeze, is on its way for seconds. Meanwhile another leads, the shard moves and is dropped, and
 * the replica has caught up with all that: the snapshot, when it comes, revives nothing. */
static void late_snapshot(void)
{
    struct shard_test *test = open_test(true);
    struct group *source = shard_test_group(test, 100);
    struct server *leader = group_leader(source);
    struct server *late = &source->servers[leader == &source->servers[0] ? 1 : 0];
    server_crash(late);
    overwrite(test, 300); /* the log is compacted past where it was */
    uint64_t restored = sim_world()->counters.snapshots_restored;
    uint64_t made = sim_sometimes_count(S_SNAPSHOT_MADE);
    sim_clog(late->host, leader->host, 400 * SIM_MS); /* that it needs one is heard after this */
    server_start(late);
    sim_run(390 * SIM_MS);
    sim_clog(leader->host, late->host, 6 * SIM_S);
    sim_run(100 * SIM_MS);
    SIM_CHECK_CMP(sim_sometimes_count(S_SNAPSHOT_MADE), >, made); /* it is on its way */
    SIM_CHECK(group_leader(source) == leader);
    SIM_CHECK_EQ(sim_world()->counters.snapshots_restored, restored);
    bool handed_over = false;
    uint64_t third = 6 - leader->replica_id - late->replica_id; /* of 1, 2, 3 */
    int error = node_transfer(server_node(leader), third, changed, &handed_over);
    SIM_CHECK_EQ(error, 0);
    bool ended = sim_run_until(SETTLE_NS, is_true, &handed_over);
    SIM_CHECK(ended);
    end_move(begin_move(test, 101));
    wait_for(source, SHARD_ABSENT, 0);
    ended = sim_run_until(3 * SIM_S, has_caught_up, late);
    SIM_CHECK(ended);
    uint64_t caught_up = sim_world()->counters.snapshots_restored;
    SIM_CHECK_CMP(caught_up, >, restored); /* by the new leader's */
    sim_run(6 * SIM_S);
    SIM_CHECK_EQ(sim_world()->counters.snapshots_restored, caught_up);
    server_isolate(test->cluster, &source->servers[third - 1], true);
    sim_run(2 * SIM_S); /* the late one may lead now */
    wait_for(source, SHARD_ABSENT, 0);
    sim_heal();
    cluster_wait_settled(test->cluster, SETTLE_NS);
    shard_test_close(test); /* replicas are equal: none holds rows of the shard */
}

static int ask_directly(struct rpc *rpc, const struct server *server, const char *key)
{
    struct rpc_channel *channel = NULL;
    int error = rpc_channel_create(rpc, server->host->address, &channel);
    SIM_CHECK_EQ(error, 0);
    struct msg_get_request request = {.header = {.cluster_id = cluster_id_of_name(CLUSTER_NAME)},
                                      .key = bytes_of_string(key)};
    struct msg_get_response response;
    struct buf bytes = {0};
    struct buf reply = {0};
    msg_get_request_encode(&request, &bytes);
    error =
        rpc_call_wait(channel, METHOD_KV_GET, &bytes, sim_now_ns() + 1 * SIM_S, &reply, NULL, 0);
    if (error == 0) {
        error = msg_get_response_decode(buf_view(&reply), &response);
    }
    error = error == 0 ? response.header.error : error;
    buf_deinit(&reply);
    buf_deinit(&bytes);
    rpc_channel_destroy(channel);
    return error;
}

/* A group that owned shards from the first config on leaves, its disks are wiped, and it joins
 * again under its old id. Going through the configs of its own past it must serve nothing: it has
 * nothing. Whoever asks, also directly, gets an error or the right value, never an absent one. */
static void wiped_group_rejoins(void)
{
    struct shard_test *test = shard_test_open(&(struct shard_test_options){.keys = KEYS});
    struct cluster *cluster = test->cluster;
    struct group *wiped = shard_test_group(test, 101);
    (void)cluster_join_one(cluster, 101); /* every shard, with nobody before it */
    shard_test_put_all(test, 20);
    (void)cluster_join_one(cluster, 100);
    cluster_wait_settled(cluster, SETTLE_NS);
    (void)cluster_leave_one(cluster, 101);
    cluster_wait_settled(cluster, SETTLE_NS);
    shard_test_check_all(test);
    group_wipe(wiped);
    sim_run(SIM_S); /* no frame outlives the connection of its process, as some do here */
    group_start(wiped);
    (void)group_wait_leader(wiped);
    (void)cluster_join_one(cluster, 101);

    struct sim_host *host = cluster_client_host(cluster);
    struct sim_host *former = sim_enter(host);
    struct rpc_options options = rpc_options_default();
    struct rpc *rpc = NULL;
    int error = rpc_create(&options, &rpc);
    SIM_CHECK_EQ(error, 0);
    for (uint32_t round = 0; round < 20; round++) {
        for (uint32_t i = 0; i < wiped->server_count; i++) {
            error = ask_directly(rpc, &wiped->servers[i], test->keys[round % KEYS]);
            if (error == 0 || error == ERR_NOT_FOUND) {
                SIM_FAIL("the wiped group answers for key %s: %s", test->keys[round % KEYS],
                         err_name(error));
            }
        }
        sim_run(sim_between(1, 100) * SIM_MS);
    }
    rpc_destroy(rpc);
    sim_leave(former);
    for (uint32_t i = 0; i < KEYS; i++) { /* through the library: the value, or it waits */
        struct clerk_pending get;
        struct clerk clerk;
        clerk_open(&clerk, cluster, NULL);
        clerk.timeout_ms = 2000;
        clerk_begin(&clerk, SKV_GET, test->keys[i], NULL, &get);
        bool ended = clerk_wait(&get, 5 * SIM_S);
        SIM_CHECK(ended);
        bool right =
            get.result.outcome != SKV_DONE ||
            bytes_equal(buf_view(&get.value), bytes_of_string((const char *)test->values[i].data));
        SIM_CHECK(right);
        clerk_pending_deinit(&get);
        clerk_close(&clerk);
    }
    shard_test_close_broken(test);
}

/* ---- replicas and moves ---- */

static void change_member(struct group *group, enum raft_change_kind kind,
                          const struct server *server)
{
    bool done = false;
    struct raft_change change = {
        .kind = kind, .id = server->replica_id, .address = server->host->address};
    int error = node_change_member(server_node(group_wait_leader(group)), &change, changed, &done);
    SIM_CHECK_EQ(error, 0);
    bool ended = sim_run_until(SETTLE_NS, is_true, &done);
    SIM_CHECK(ended);
}

/* The source is led by a replica that came to it later, and no controller was there to hear of it;
 * the one that the config lists first is gone. The destination, which hears of no newer config,
 * finds the leader by what another one says. (The simulator's first storms of members: it never
 * did.) */
static void move_from_a_replaced_leader(void)
{
    struct shard_test *test = open_test(false);
    struct group *source = shard_test_group(test, 100);
    struct group *destination = shard_test_group(test, 101);
    struct group *controllers = &test->cluster->controllers;
    group_crash(controllers);
    struct server *added = group_add_server(source);
    server_start(added);
    change_member(source, RAFT_ADD_LEARNER, added);
    sim_run(1 * SIM_S);
    change_member(source, RAFT_PROMOTE, added);
    bool handed_over = false;
    int error =
        node_transfer(server_node(group_leader(source)), added->replica_id, changed, &handed_over);
    SIM_CHECK_EQ(error, 0);
    bool ended = sim_run_until(SETTLE_NS, is_true, &handed_over);
    SIM_CHECK(ended);
    SIM_CHECK(group_wait_leader(source) == added);
    change_member(source, RAFT_REMOVE, &source->servers[0]);
    server_retire(&source->servers[0]);
    SIM_CHECK(group_wait_leader(source) == added);
    cut_groups(controllers, source, true);
    group_start(controllers);
    (void)cluster_move(test->cluster, 0, 101);
    wait_for(destination, SHARD_PULLING, 0);
    cut_groups(controllers, destination, true);
    cut_groups(controllers, source, false);
    wait_for(destination, SHARD_SERVING, 0);
    cut_groups(controllers, destination, false);
    shard_test_close(test);
}

struct suite_list suite_moves(void)
{
    static const struct suite_test tests[] = {
        {.name = "sim.ReadAcrossAMove", .run = read_across_a_move},
        {.name = "sim.SourceRestarts", .run = source_restarts},
        {.name = "sim.DestinationCrashes", .run = destination_crashes},
        {.name = "sim.DelayedDrop", .run = delayed_drop},
        {.name = "sim.OldDriver", .run = old_driver},
        {.name = "sim.LateSnapshot", .run = late_snapshot},
        {.name = "sim.WipedGroupRejoins", .run = wiped_group_rejoins},
        {.name = "sim.MoveFromAReplacedLeader", .run = move_from_a_replaced_leader},
    };
    return (struct suite_list){tests, sizeof tests / sizeof tests[0]};
}
