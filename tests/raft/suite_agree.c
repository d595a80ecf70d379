/* The course's log replication tests. Indexes differ from the course's by the entry a new leader
 * begins its term with, so 'the next index' is asked relative to what was there before. */
#include "raft/sim_report.h"
#include "raft/suite.h"

#include <inttypes.h>
#include <string.h>

/* Start() on a server that must take it. */
static struct raft_position start_must(struct sim_cluster *cluster, uint32_t slot, uint64_t value)
{
    struct raft_position position;
    if (!sim_propose(cluster, slot, value, sizeof value, &position)) {
        sim_fail("leader %u refused command %" PRIu64, slot, value);
    }
    return position;
}

static void expect_uncommitted(struct sim_cluster *cluster, uint64_t index)
{
    uint64_t value = 0;
    uint32_t count = sim_committed_count(cluster, index, &value);
    if (count > 0) {
        sim_fail("index %" PRIu64 " was applied by %u servers without a majority", index, count);
    }
}

void suite_basic_agree(struct sim_cluster *cluster)
{
    uint32_t leader = sim_check_one_leader(cluster);
    for (uint64_t i = 1; i < 4; i++) {
        uint64_t next = cluster->replicas[leader].status.last.index + 1;
        expect_uncommitted(cluster, next);
        uint64_t index = sim_one(cluster, i * 100, cluster->options.servers, false);
        if (index != next) {
            sim_fail("got index %" PRIu64 ", expected %" PRIu64, index, next);
        }
    }
}

void suite_rpc_bytes(struct sim_cluster *cluster)
{
    enum { COMMANDS = 10, COMMAND_BYTES = 5000, ALLOWANCE_BYTES = 50000 };
    uint32_t servers = cluster->options.servers;
    uint64_t before_index = sim_one(cluster, 99, servers, false);
    uint64_t before_bytes = cluster->net.counters.bytes;
    for (uint64_t i = 1; i <= COMMANDS; i++) {
        uint64_t index = sim_one_sized(cluster, sim_value(cluster), COMMAND_BYTES, servers, false);
        if (index != before_index + i) {
            sim_fail("got index %" PRIu64 ", expected %" PRIu64, index, before_index + i);
        }
    }
    uint64_t bytes = cluster->net.counters.bytes - before_bytes;
    uint64_t most = (uint64_t)servers * COMMANDS * COMMAND_BYTES + ALLOWANCE_BYTES;
    if (bytes > most) {
        sim_fail("%" PRIu64 " bytes for %d commands of %d; at most %" PRIu64, bytes, COMMANDS,
                 COMMAND_BYTES, most);
    }
}

void suite_follower_failure(struct sim_cluster *cluster)
{
    uint32_t servers = cluster->options.servers;
    (void)sim_one(cluster, 101, servers, false);
    uint32_t leader = sim_check_one_leader(cluster);
    sim_disconnect(cluster, (leader + 1) % servers);
    (void)sim_one(cluster, 102, servers - 1, false);
    sim_cluster_run(cluster, COURSE_ELECTION_NS);
    uint64_t index = sim_one(cluster, 103, servers - 1, false);

    leader = sim_check_one_leader(cluster);
    sim_disconnect(cluster, (leader + 1) % servers);
    sim_disconnect(cluster, (leader + 2) % servers);
    struct raft_position position = start_must(cluster, leader, 104);
    if (position.index != index + 1) {
        sim_fail("expected index %" PRIu64 ", got %" PRIu64, index + 1, position.index);
    }
    sim_cluster_run(cluster, 2 * COURSE_ELECTION_NS);
    expect_uncommitted(cluster, position.index);
}

void suite_leader_failure(struct sim_cluster *cluster)
{
    uint32_t servers = cluster->options.servers;
    (void)sim_one(cluster, 101, servers, false);
    uint32_t leader = sim_check_one_leader(cluster);
    sim_disconnect(cluster, leader);
    (void)sim_one(cluster, 102, servers - 1, false);
    sim_cluster_run(cluster, COURSE_ELECTION_NS);
    uint64_t index = sim_one(cluster, 103, servers - 1, false);

    leader = sim_check_one_leader(cluster);
    sim_disconnect(cluster, leader);
    for (uint32_t i = 0; i < servers; i++) {
        (void)sim_propose(cluster, i, 104, sizeof(uint64_t), NULL);
    }
    sim_cluster_run(cluster, 2 * COURSE_ELECTION_NS);
    expect_uncommitted(cluster, index + 1);
}

void suite_fail_agree(struct sim_cluster *cluster)
{
    uint32_t servers = cluster->options.servers;
    (void)sim_one(cluster, 101, servers, false);
    uint32_t follower = (sim_check_one_leader(cluster) + 1) % servers;
    sim_disconnect(cluster, follower);
    (void)sim_one(cluster, 102, servers - 1, false);
    (void)sim_one(cluster, 103, servers - 1, false);
    sim_cluster_run(cluster, COURSE_ELECTION_NS);
    (void)sim_one(cluster, 104, servers - 1, false);
    (void)sim_one(cluster, 105, servers - 1, false);
    sim_connect(cluster, follower);
    (void)sim_one(cluster, 106, servers, true);
    sim_cluster_run(cluster, COURSE_ELECTION_NS);
    (void)sim_one(cluster, 107, servers, true);
}

void suite_fail_no_agree(struct sim_cluster *cluster)
{
    uint32_t servers = cluster->options.servers;
    uint64_t before = sim_one(cluster, 10, servers, false);
    uint32_t leader = sim_check_one_leader(cluster);
    for (uint32_t i = 1; i <= 3; i++) {
        sim_disconnect(cluster, (leader + i) % servers);
    }
    struct raft_position position = start_must(cluster, leader, 20);
    if (position.index != before + 1) {
        sim_fail("expected index %" PRIu64 ", got %" PRIu64, before + 1, position.index);
    }
    sim_cluster_run(cluster, 2 * COURSE_ELECTION_NS);
    expect_uncommitted(cluster, position.index);

    for (uint32_t i = 1; i <= 3; i++) {
        sim_connect(cluster, (leader + i) % servers);
    }
    /* The majority may have chosen one from itself, whose first entry replaces 20. */
    uint32_t second = sim_check_one_leader(cluster);
    struct raft_position later = start_must(cluster, second, 30);
    if (later.index <= before || later.index > before + 4) {
        sim_fail("unexpected index %" PRIu64 " after %" PRIu64, later.index, before);
    }
    (void)sim_one(cluster, 1000, servers, true);
}

void suite_concurrent_starts(struct sim_cluster *cluster)
{
    enum { STARTS = 5, TRIES = 5 };
    uint32_t servers = cluster->options.servers;
    for (unsigned attempt = 0; attempt < TRIES; attempt++) {
        if (attempt > 0) {
            sim_cluster_run(cluster, 3 * SIM_S); /* the term moved on: let it settle */
        }
        uint32_t leader = sim_check_one_leader(cluster);
        struct raft_position first;
        if (!sim_propose(cluster, leader, 1, sizeof(uint64_t), &first)) {
            continue;
        }
        struct raft_position positions[STARTS];
        bool same_term = true;
        for (uint64_t i = 0; i < STARTS; i++) {
            same_term = same_term &&
                        sim_propose(cluster, leader, 100 + i, sizeof i, &positions[i]) &&
                        positions[i].term == first.term;
        }
        bool seen[STARTS] = {false};
        for (unsigned i = 0; i < STARTS && same_term; i++) {
            uint64_t value = 0;
            same_term = sim_wait(cluster, positions[i].index, servers, first.term, &value);
            if (same_term && (value < 100 || value >= 100 + STARTS || seen[value - 100])) {
                sim_fail("value %" PRIu64 " is not one of those started, or is there twice", value);
            }
            seen[same_term ? value - 100 : 0] = true;
        }
        if (same_term) {
            return;
        }
    }
    sim_fail("the term changed too often");
}

void suite_rejoin(struct sim_cluster *cluster)
{
    uint32_t servers = cluster->options.servers;
    (void)sim_one(cluster, 101, servers, true);
    uint32_t first = sim_check_one_leader(cluster);
    sim_disconnect(cluster, first);
    for (uint64_t value = 102; value <= 104; value++) { /* agree to nothing, alone */
        (void)start_must(cluster, first, value);
    }
    (void)sim_one(cluster, 103, 2, true);
    sim_disconnect(cluster, sim_check_one_leader(cluster));
    sim_connect(cluster, first); /* with its three entries that lost */
    (void)sim_one(cluster, 104, 2, true);
    for (uint32_t i = 0; i < servers; i++) {
        sim_connect(cluster, i);
    }
    (void)sim_one(cluster, 105, servers, true);
}

static void start_fifty(struct sim_cluster *cluster, uint32_t leader)
{
    for (unsigned i = 0; i < 50; i++) {
        (void)start_must(cluster, leader, sim_value(cluster));
    }
}

static void agree_fifty(struct sim_cluster *cluster)
{
    for (unsigned i = 0; i < 50; i++) {
        (void)sim_one(cluster, sim_value(cluster), 3, true);
    }
}

void suite_backup(struct sim_cluster *cluster)
{
    uint32_t servers = cluster->options.servers;
    (void)sim_one(cluster, sim_value(cluster), servers, true);
    /* A leader with one follower gets 50 entries that cannot commit. */
    uint32_t first = sim_check_one_leader(cluster);
    for (uint32_t i = 2; i <= 4; i++) {
        sim_disconnect(cluster, (first + i) % servers);
    }
    start_fifty(cluster, first);
    sim_cluster_run(cluster, COURSE_ELECTION_NS / 2);
    /* The other three commit 50. */
    sim_disconnect(cluster, first);
    sim_disconnect(cluster, (first + 1) % servers);
    for (uint32_t i = 2; i <= 4; i++) {
        sim_connect(cluster, (first + i) % servers);
    }
    agree_fifty(cluster);
    /* Their leader gets 50 more that cannot. */
    uint32_t second = sim_check_one_leader(cluster);
    uint32_t other = (first + 2) % servers;
    if (second == other) {
        other = (second + 1) % servers;
    }
    sim_disconnect(cluster, other);
    start_fifty(cluster, second);
    sim_cluster_run(cluster, COURSE_ELECTION_NS / 2);
    /* The first leader comes back to lead or follow in a majority whose logs all differ. */
    for (uint32_t i = 0; i < servers; i++) {
        sim_disconnect(cluster, i);
    }
    sim_connect(cluster, first);
    sim_connect(cluster, (first + 1) % servers);
    sim_connect(cluster, other);
    agree_fifty(cluster);
    for (uint32_t i = 0; i < servers; i++) {
        sim_connect(cluster, i);
    }
    (void)sim_one(cluster, sim_value(cluster), servers, true);
}

static uint64_t rpcs(const struct sim_cluster *cluster)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < cluster->options.servers; i++) {
        sum += sim_rpc_count(cluster, i);
    }
    return sum;
}

static bool in_term(const struct sim_cluster *cluster, uint64_t term)
{
    for (uint32_t i = 0; i < cluster->options.servers; i++) {
        if (cluster->replicas[i].status.term != term) {
            return false;
        }
    }
    return true;
}

/* Twelve commands in one term; false when the term moved on. */
static bool count_commands(struct sim_cluster *cluster, uint32_t servers)
{
    enum { ITERATIONS = 10, COMMANDS = ITERATIONS + 2 };
    uint32_t leader = sim_check_one_leader(cluster);
    uint64_t before = rpcs(cluster);
    struct raft_position positions[COMMANDS];
    uint64_t values[COMMANDS];
    for (unsigned i = 0; i < COMMANDS; i++) {
        values[i] = sim_value(cluster);
        if (!sim_propose(cluster, leader, values[i], sizeof values[i], &positions[i]) ||
            positions[i].term != positions[0].term) {
            return false;
        }
        if (positions[i].index != positions[0].index + i) {
            sim_fail("command %u got index %" PRIu64 " after %" PRIu64, i, positions[i].index,
                     positions[0].index);
        }
    }
    for (unsigned i = 0; i < COMMANDS; i++) {
        uint64_t value = 0;
        if (!sim_wait(cluster, positions[i].index, servers, positions[0].term, &value)) {
            return false;
        }
        if (value != values[i]) {
            sim_fail("index %" PRIu64 " holds another command", positions[i].index);
        }
    }
    if (!in_term(cluster, positions[0].term)) {
        return false;
    }
    uint64_t used = rpcs(cluster) - before;
    if (used > (ITERATIONS + 1 + 3) * 3) {
        sim_fail("%" PRIu64 " RPCs for %d entries", used, (int)COMMANDS);
    }
    return true;
}

void suite_count(struct sim_cluster *cluster)
{
    uint32_t servers = cluster->options.servers;
    (void)sim_check_one_leader(cluster);
    uint64_t elected = rpcs(cluster);
    if (elected < 1 || elected > 30) {
        sim_fail("%" PRIu64 " RPCs to elect the first leader", elected);
    }
    bool counted = false;
    for (unsigned attempt = 0; attempt < 5 && !counted; attempt++) {
        if (attempt > 0) {
            sim_cluster_run(cluster, 3 * SIM_S);
        }
        counted = count_commands(cluster, servers);
    }
    if (!counted) {
        sim_fail("the term changed too often");
    }
    uint64_t before = rpcs(cluster);
    sim_cluster_run(cluster, COURSE_ELECTION_NS);
    uint64_t idle = rpcs(cluster) - before;
    if (idle > 3 * 20) {
        sim_fail("%" PRIu64 " RPCs in one idle second", idle);
    }
}
