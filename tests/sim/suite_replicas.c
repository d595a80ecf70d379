/* One group when its leader, its members or its clients' sessions are in trouble, as a whole
 * cluster: clients, library, servers. The numbers are those of SCENARIOS.md. */
#include "proto/messages.h"
#include "proto/methods.h"
#include "proto/shard_hash.h"
#include "raft/node/node.h"
#include "rpc/rpc.h"
#include "sim/kv_test.h"
#include "sim/sim_node.h"
#include "sim/sometimes.h"
#include "sim/suite.h"

#include "base/assert.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ANSWER_NS (20 * SIM_S)

static struct cluster *open_cluster(uint32_t replicas, bool lease_reads, uint64_t flush_log_bytes)
{
    struct cluster_options options = {.controllers = 1,
                                      .groups = 1,
                                      .replicas = replicas,
                                      .shards = KV_SHARDS,
                                      .flush_log_bytes = flush_log_bytes,
                                      .lease_reads = lease_reads,
                                      .joined = true};
    return cluster_create(&options);
}

static void reach_only(const struct clerk *clerk, const struct group *group, uint32_t mask)
{
    for (uint32_t i = 0; i < group->server_count; i++) {
        sim_cut_both(clerk->host, group->servers[i].host, ((mask >> i) & 1) == 0);
    }
}

static uint32_t bit_of(const struct server *server)
{
    return 1u << (server->replica_id - 1);
}

static void changed(void *context, int error)
{
    *(int *)context = error;
}

enum { NOT_YET = 1 };

static bool is_answered(void *context)
{
    return *(const int *)context != NOT_YET;
}

static int transfer(struct group *group, uint64_t target)
{
    int answer = NOT_YET;
    int error = node_transfer(server_node(group_wait_leader(group)), target, changed, &answer);
    SIM_CHECK_EQ(error, 0);
    bool ended = sim_run_until(ANSWER_NS, is_answered, &answer);
    SIM_CHECK(ended);
    return answer;
}

static int change_member(struct server *leader, enum raft_change_kind kind,
                         const struct server *server, int *answer)
{
    struct raft_change change = {
        .kind = kind, .id = server->replica_id, .address = server->host->address};
    *answer = NOT_YET;
    return node_change_member(server_node(leader), &change, changed, answer);
}

/* ---- asking a server, past the library ---- */

struct direct {
    struct sim_host *host;
    struct rpc *rpc;
};

static void direct_open(struct direct *direct, struct cluster *cluster)
{
    struct rpc_options options = rpc_options_default();
    direct->host = cluster_client_host(cluster);
    struct sim_host *former = sim_enter(direct->host);
    int error = rpc_create(&options, &direct->rpc);
    SIM_CHECK_EQ(error, 0);
    sim_leave(former);
}

static void direct_close(struct direct *direct)
{
    struct sim_host *former = sim_enter(direct->host);
    rpc_destroy(direct->rpc);
    sim_leave(former);
}

/* takes `request` */
static int direct_call(struct direct *direct, const struct server *server, const char *method,
                       struct buf *request, uint64_t timeout_ns,
                       struct msg_write_response *response)
{
    struct rpc_channel *channel = NULL;
    struct buf reply = {0};
    struct sim_host *former = sim_enter(direct->host);
    int error = rpc_channel_create(direct->rpc, server->host->address, &channel);
    SIM_CHECK_EQ(error, 0);
    error = rpc_call_wait(channel, method, request, sim_now_ns() + timeout_ns, &reply, NULL, 0);
    if (error == 0) {
        error = msg_write_response_decode(buf_view(&reply), response);
    }
    error = error == 0 ? response->header.error : error;
    rpc_channel_destroy(channel);
    sim_leave(former);
    buf_deinit(&reply);
    buf_deinit(request);
    return error;
}

static int append_directly(struct direct *direct, const struct server *server,
                           const struct msg_request_header *header, const char *value)
{
    struct msg_append_request request = {
        .header = *header, .key = bytes_of_string("k"), .value = bytes_of_string(value)};
    struct msg_write_response response;
    struct buf bytes = {0};
    msg_append_request_encode(&request, &bytes);
    return direct_call(direct, server, METHOD_KV_APPEND, &bytes, 5 * SIM_S, &response);
}

/* ---- leases ---- */

/* A reader that reaches one server only, and a writer that knows who leads the others and loses no
 * time: one key, and what both were told. */
struct duel {
    struct cluster *cluster;
    struct group *group;
    struct linear_history *history;
    struct clerk clerk;
    struct loop reader;
    struct direct writer;
    uint32_t written;
};
static const char duel_key[] = "0"; /* of a loop with one key */

static void duel_begin(struct duel *duel)
{
    *duel = (struct duel){.cluster = open_cluster(3, true, 0)};
    duel->group = &duel->cluster->groups[0];
    duel->history = linear_create();
    direct_open(&duel->writer, duel->cluster);
    clerk_open(&duel->clerk, duel->cluster, duel->history);
    loop_start(
        &duel->reader, &duel->clerk,
        &(struct loop_options){.key_count = 1, .gets_only = true, .pause_max_ns = 500 * SIM_US});
    sim_run(500 * SIM_MS);
}

static int duel_put(struct duel *duel, const struct server *server)
{
    char value[32];
    (void)snprintf(value, sizeof value, "w%u;", duel->written++);
    struct msg_put_request request = {.header = {.cluster_id = cluster_id_of_name(CLUSTER_NAME)},
                                      .key = bytes_of_string(duel_key),
                                      .value = bytes_of_string(value)};
    struct lin_op op = {.kind = LIN_PUT,
                        .process = duel->writer.host->index,
                        .called_ns = sim_now_ns(),
                        .key = bytes_of_string(duel_key),
                        .argument = lin_value_of(value, strlen(value))};
    struct msg_write_response response;
    struct buf bytes = {0};
    msg_put_request_encode(&request, &bytes);
    int error = direct_call(&duel->writer, server, METHOD_KV_PUT, &bytes, 50 * SIM_MS, &response);
    op.returned_ns = error == 0 ? sim_now_ns() : LIN_NEVER;
    op.version = error == 0 ? response.version : 0;
    linear_add(duel->history, &op);
    return error;
}

/* From now on only the reader reaches `server`, who believes that it leads; what others lead for
 * `duration_ns` is written as soon as they can. */
static void duel_fight(struct duel *duel, const struct server *server, uint64_t duration_ns)
{
    uint64_t until_ns = sim_now_ns() + duration_ns;
    uint32_t done = 0;
    group_partition(duel->group, bit_of(server));
    reach_only(&duel->clerk, duel->group, bit_of(server));
    while (sim_now_ns() < until_ns) {
        const struct server *leader = group_leader(duel->group);
        if (leader != NULL && leader != server) {
            done += duel_put(duel, leader) == 0;
        }
        sim_run(200 * SIM_US);
    }
    SIM_CHECK_CMP(done, >, 0);
    sim_heal();
    sim_run(1 * SIM_S);
}

static void duel_end(struct duel *duel)
{
    loop_stop(&duel->reader);
    loops_wait(&duel->reader, 1, ANSWER_NS);
    loop_deinit(&duel->reader);
    clerk_close(&duel->clerk);
    direct_close(&duel->writer);
    SIM_CHECK_CMP(sim_sometimes_count(S_LEASE_READ), >, 0);
    cluster_destroy(duel->cluster);
    linear_require(duel->history);
    linear_destroy(duel->history);
}

/* Scenario 35. A leader that reads by lease is cut off with a reader, its clock as slow and the
 * others' as fast as a lease allows. It may answer for a while; when the others have a leader and
 * write, it must have stopped. */
static void lease_skew(void)
{
    struct duel duel;
    duel_begin(&duel);
    for (uint32_t round = 0; round < 12; round++) {
        struct server *leader = group_wait_leader(duel.group);
        for (uint32_t i = 0; i < duel.group->server_count; i++) {
            struct server *server = &duel.group->servers[i];
            sim_node_set_clock(server_node(server), server == leader ? 105 : 95);
        }
        sim_run(sim_between(200, 400) * SIM_MS);
        duel_fight(&duel, leader, 900 * SIM_MS);
    }
    duel_end(&duel);
}

/* Scenarios 34 and 35. The same, and it stands still when it is cut off; reads wait at its door
 * when it goes on. */
static void lease_pause(void)
{
    struct duel duel;
    duel_begin(&duel);
    for (uint32_t round = 0; round < 12; round++) {
        struct server *leader = group_wait_leader(duel.group);
        sim_run(sim_between(50, 150) * SIM_MS);
        sim_host_pause(leader->host, sim_between(600, 1200) * SIM_MS);
        duel_fight(&duel, leader, 1500 * SIM_MS);
    }
    duel_end(&duel);
}

/* Scenario 36. The order to campaign is delayed; the leader has given the transfer up, leads on and
 * is cut off when the order arrives and elects another one at once, although its followers have
 * heard from it a moment ago: a lease that it took since then would be worth nothing. */
static void lease_and_a_delayed_order(void)
{
    struct duel duel;
    duel_begin(&duel);
    for (uint32_t round = 0; round < 8; round++) {
        struct server *leader = group_wait_leader(duel.group);
        struct server *target = &duel.group->servers[leader == &duel.group->servers[0] ? 1 : 0];
        const uint64_t clog_ns = 1500 * SIM_MS;
        int answer = NOT_YET;
        sim_clog(leader->host, target->host, clog_ns);
        int error = node_transfer(server_node(leader), target->replica_id, changed, &answer);
        SIM_CHECK_EQ(error, 0);
        sim_run(10 * SIM_MS);
        sim_cut(leader->host, target->host, true); /* nothing later: its log stays the newest */
        sim_run(clog_ns - 12 * SIM_MS);
        sim_cut(leader->host, target->host, false); /* the order is let through */
        for (uint32_t i = 0; i < duel.group->server_count; i++) {
            sim_cut(duel.group->servers[i].host, leader->host, true); /* the leader hears nothing */
        }
        for (uint32_t i = 0; i < 50 && group_leader(duel.group) != target; i++) {
            sim_run(SIM_MS); /* votes wait for disks, and one may just be slow */
        }
        SIM_CHECK(group_leader(duel.group) == target);
        SIM_CHECK(node_is_leader(server_node(leader))); /* as it thinks */
        duel_fight(&duel, leader, 600 * SIM_MS);
        SIM_CHECK(is_answered(&answer));
    }
    SIM_CHECK_CMP(sim_sometimes_count(S_TRANSFER_ABANDONED), >, 0);
    duel_end(&duel);
}

/* ---- transfers ---- */

/* Scenario 37. Leadership is to go to a server that is down: given up after an election timeout,
 * and meanwhile no write is lost or done twice. */
static void transfer_to_the_dead(void)
{
    struct cluster *cluster = open_cluster(3, false, 0);
    struct group *group = &cluster->groups[0];
    struct clerk clerk;
    struct loop loop;
    clerk_open(&clerk, cluster, NULL);
    loop_start(&loop, &clerk, &(struct loop_options){.key = "k", .pause_max_ns = 5 * SIM_MS});
    sim_run(200 * SIM_MS);
    struct server *leader = group_leader(group);
    struct server *dead = &group->servers[leader == &group->servers[0] ? 1 : 0];
    server_crash(dead);
    uint64_t from_ns = sim_now_ns();
    SIM_CHECK_EQ(transfer(group, dead->replica_id), ERR_TRANSFER_FAILED);
    SIM_CHECK_CMP(sim_now_ns() - from_ns, <, 1 * SIM_S);
    SIM_CHECK(group_leader(group) == leader);
    uint64_t before = loop.issued;
    sim_run(500 * SIM_MS);
    SIM_CHECK_CMP(loop.issued, >, before + 10);
    server_start(dead);
    SIM_CHECK_EQ(transfer(group, dead->replica_id), 0);
    SIM_CHECK(group_wait_leader(group) == dead);
    sim_run(500 * SIM_MS);
    loop_stop(&loop);
    loops_wait(&loop, 1, ANSWER_NS);
    SIM_CHECK_CMP(loop.slowest_ns, <, 1 * SIM_S);
    loop_deinit(&loop);
    clerk_close(&clerk);
    cluster_destroy(cluster);
}

/* ---- replay ---- */

static void set_apply_delay(const struct group *group, uint64_t delay_ns)
{
    for (uint32_t i = 0; i < group->server_count; i++) {
        group->servers[i].host->apply_delay_ns = delay_ns;
    }
}

/* Scenario 30. All servers lose power with more in the log, unflushed, than is applied at a time,
 * and their stores are slow when they come back. Whoever leads first must have applied all of it
 * before it answers a read, also one by lease. */
static void no_reads_before_replay(void)
{
    enum { LARGE_BYTES = 300 * 1024, LARGE_COUNT = 14 };
    struct cluster *cluster = open_cluster(3, true, 0);
    struct group *group = &cluster->groups[0];
    struct clerk clerk;
    char *large = mem_alloc(LARGE_BYTES + 1);
    memset(large, 'v', LARGE_BYTES);
    large[LARGE_BYTES] = '\0';
    clerk_open(&clerk, cluster, NULL);
    for (uint32_t round = 0; round < 3; round++) {
        char value[16];
        (void)snprintf(value, sizeof value, "new %u", round);
        clerk_put(&clerk, "k", "old");
        for (uint32_t i = 0; i < LARGE_COUNT; i++) {
            clerk_put(&clerk, "large", large);
        }
        clerk_put(&clerk, "k", value);
        group_crash(group);
        set_apply_delay(group, 1 * SIM_S);
        group_start(group);
        clerk_check(&clerk, "k", value);
        set_apply_delay(group, 0);
    }
    free(large);
    clerk_close(&clerk);
    cluster_destroy(cluster);
}

/* ---- members ---- */

/* Scenario 44. A leader in the minority adds a replica, which cannot be committed; the majority has
 * another leader, which removes the one beside it. After the heal the first change is undone
 * everywhere, the second stands, and the first leader may change members again. */
static void members_during_a_partition(void)
{
    struct cluster *cluster = open_cluster(5, false, 0);
    struct group *group = &cluster->groups[0];
    struct clerk clerk;
    clerk_open(&clerk, cluster, NULL);
    clerk_put(&clerk, "k", "before");
    struct server *old = group_wait_leader(group);
    struct server *removed = &group->servers[old == &group->servers[0] ? 1 : 0];
    struct server *added = group_add_server(group);
    uint64_t rolled_back = sim_sometimes_count(S_MEMBER_ROLLED_BACK);
    int first = NOT_YET;
    int second = NOT_YET;
    server_start(added);
    group_partition(group, bit_of(old) | bit_of(removed) | bit_of(added));
    int error = change_member(old, RAFT_ADD_LEARNER, added, &first);
    SIM_CHECK_EQ(error, 0);
    sim_run(2 * SIM_S);
    SIM_CHECK_CMP(first, !=, 0); /* not done, whatever it says */
    struct server *leader = group_wait_leader(group);
    SIM_CHECK(leader != old && leader != removed);
    error = change_member(leader, RAFT_REMOVE, removed, &second);
    SIM_CHECK_EQ(error, 0);
    bool ended = sim_run_until(ANSWER_NS, is_answered, &second);
    SIM_CHECK(ended);
    SIM_CHECK_EQ(second, 0);
    group_heal(group);
    sim_run(2 * SIM_S);
    SIM_CHECK_CMP(sim_sometimes_count(S_MEMBER_ROLLED_BACK), >, rolled_back);
    server_retire(removed);
    for (uint32_t i = 0; i < group->server_count; i++) {
        struct node_status status;
        if (!server_is_up(&group->servers[i]) || &group->servers[i] == added) {
            continue;
        }
        node_status(server_node(&group->servers[i]), &status);
        SIM_CHECK_EQ(status.raft.membership.count, 4);
        SIM_CHECK(raft_membership_find(&status.raft.membership, added->replica_id) == NULL);
        SIM_CHECK(raft_membership_find(&status.raft.membership, removed->replica_id) == NULL);
    }
    error = change_member(group_wait_leader(group), RAFT_ADD_LEARNER, added, &first);
    SIM_CHECK_EQ(error, 0);
    ended = sim_run_until(ANSWER_NS, is_answered, &first);
    SIM_CHECK(ended);
    SIM_CHECK_EQ(first, 0);
    clerk_put(&clerk, "k", "after");
    clerk_check(&clerk, "k", "after");
    clerk_close(&clerk);
    cluster_destroy(cluster);
}

/* Scenario 43. A write is acknowledged by the leader and one other. That one comes back with a new
 * disk, under its old id, when the leader is down: together with the third, which never had the
 * write, it must not decide anything. With the leader back nothing is missing. The wiped one is
 * replaced. */
static void wiped_replica_returns(void)
{
    struct cluster *cluster = open_cluster(3, false, 0);
    struct group *group = &cluster->groups[0];
    struct clerk clerk;
    clerk_open(&clerk, cluster, NULL);
    clerk_put(&clerk, "k", "known to all");
    struct server *leader = group_wait_leader(group);
    struct server *wiped = &group->servers[leader == &group->servers[0] ? 1 : 0];
    struct server *third = &group->servers[leader == &group->servers[2] ? 1 : 2];
    third = third == wiped ? &group->servers[2] : third;
    sim_run(1 * SIM_S);
    server_isolate(cluster, third, true);
    clerk_put(&clerk, "k", "known to two");
    server_wipe(wiped);
    server_crash(leader);
    sim_heal();
    server_start(wiped);
    for (uint32_t i = 0; i < 100; i++) {
        sim_run(50 * SIM_MS);
        SIM_CHECK(group_leader(group) == NULL);
    }
    server_start(leader);
    clerk_check(&clerk, "k", "known to two");
    struct node_status status;
    node_status(server_node(wiped), &status);
    SIM_CHECK_EQ(status.raft.commit, 0);
    int answer = NOT_YET;
    int error = change_member(group_wait_leader(group), RAFT_REMOVE, wiped, &answer);
    SIM_CHECK_EQ(error, 0);
    bool ended = sim_run_until(ANSWER_NS, is_answered, &answer);
    SIM_CHECK(ended);
    SIM_CHECK_EQ(answer, 0);
    server_retire(wiped);
    struct server *added = group_add_server(group);
    server_start(added);
    error = change_member(group_wait_leader(group), RAFT_ADD_LEARNER, added, &answer);
    SIM_CHECK_EQ(error, 0);
    ended = sim_run_until(ANSWER_NS, is_answered, &answer);
    SIM_CHECK(ended);
    SIM_CHECK_EQ(answer, 0);
    clerk_check(&clerk, "k", "known to two");
    clerk_close(&clerk);
    cluster_destroy(cluster);
}

/* ---- sessions ---- */

/* Scenarios 54, 56 and 58. A client sends again what was executed: it is executed once. It sends
 * again after an hour, when its session is forgotten: an error. It uses a sequence for something
 * else, or one that it said was over: errors. */
static void session_expires(void)
{
    struct cluster *cluster = open_cluster(3, false, 0);
    struct group *group = &cluster->groups[0];
    struct clerk clerk;
    clerk_open(&clerk, cluster, NULL);
    struct direct direct;
    direct_open(&direct, cluster);
    struct msg_request_header header = {.cluster_id = cluster_id_of_name(CLUSTER_NAME),
                                        .client_id = 4711,
                                        .sequence = 7,
                                        .acked_below = 7};
    SIM_CHECK_EQ(append_directly(&direct, group_wait_leader(group), &header, "once"), 0);
    header.age_ms = 100;
    SIM_CHECK_EQ(append_directly(&direct, group_wait_leader(group), &header, "once"), 0);
    SIM_CHECK_EQ(append_directly(&direct, group_wait_leader(group), &header, "other"),
                 ERR_SEQUENCE_REUSED);
    uint64_t expired = sim_sometimes_count(S_SESSION_EXPIRED);
    cluster_suspend(cluster, 61 * 60 * SIM_S);
    sim_run(5 * SIM_S);
    clerk_put(&clerk, "other", "so that the log knows the time");
    sim_run(20 * SIM_S);
    sim_sometimes_read_metrics();
    SIM_CHECK_CMP(sim_sometimes_count(S_SESSION_EXPIRED), >, expired);
    header.age_ms = 61ull * 60 * 1000;
    SIM_CHECK_EQ(append_directly(&direct, group_wait_leader(group), &header, "once"),
                 ERR_SESSION_EXPIRED);
    header.age_ms = 0;
    header.sequence = 9;
    header.acked_below = 9;
    SIM_CHECK_EQ(append_directly(&direct, group_wait_leader(group), &header, ";"), 0);
    header.sequence = 8;
    header.acked_below = 8;
    SIM_CHECK_EQ(append_directly(&direct, group_wait_leader(group), &header, "late"),
                 ERR_SEQUENCE_STALE);
    direct_close(&direct);
    clerk_check(&clerk, "k", "once;");
    clerk_close(&clerk);
    cluster_destroy(cluster);
}

/* Scenario 56. The same through the library: its answer was lost, it has two hours, and everything
 * is suspended for one. It must not say that it was not done, nor do it twice. */
static void session_expires_in_flight(void)
{
    struct cluster *cluster = open_cluster(3, false, 0);
    struct group *group = &cluster->groups[0];
    struct clerk clerk;
    struct clerk other;
    struct clerk_pending append;
    clerk_open(&clerk, cluster, NULL);
    clerk_open(&other, cluster, NULL);
    clerk_append(&clerk, "k", "<first>");
    clerk.timeout_ms = 2 * 60 * 60 * 1000;
    for (uint32_t i = 0; i < group->server_count; i++) { /* it is heard, and hears nothing */
        sim_cut(group->servers[i].host, clerk.host, true);
    }
    clerk_begin(&clerk, SKV_APPEND, "k", "<second>", &append);
    sim_run(2 * SIM_S);
    clerk_check(&other, "k", "<first><second>");
    cluster_suspend(cluster, 61 * 60 * SIM_S);
    sim_heal();
    clerk_put(&other, "other", "so that the log knows the time");
    bool ended = clerk_wait(&append, ANSWER_NS);
    SIM_CHECK(ended);
    SIM_CHECK_EQ(append.result.outcome, SKV_UNKNOWN);
    sim_run(20 * SIM_S);
    clerk.timeout_ms = CLERK_TIMEOUT_MS;
    clerk_append(&clerk, "k", "<third>");
    clerk_check(&other, "k", "<first><second><third>");
    clerk_pending_deinit(&append);
    clerk_close(&clerk);
    clerk_close(&other);
    cluster_destroy(cluster);
}

struct suite_list suite_replicas(void)
{
    static const struct suite_test tests[] = {
        {.name = "sim.LeaseSkew", .run = lease_skew},
        {.name = "sim.LeasePause", .run = lease_pause},
        {.name = "sim.LeaseAndADelayedOrder", .run = lease_and_a_delayed_order},
        {.name = "sim.TransferToTheDead", .run = transfer_to_the_dead},
        {.name = "sim.NoReadsBeforeReplay", .run = no_reads_before_replay},
        {.name = "sim.MembersDuringAPartition", .run = members_during_a_partition},
        {.name = "sim.WipedReplicaReturns", .run = wiped_replica_returns},
        {.name = "sim.SessionExpires", .run = session_expires},
        {.name = "sim.SessionExpiresInFlight", .run = session_expires_in_flight},
    };
    return (struct suite_list){tests, sizeof tests / sizeof tests[0]};
}
