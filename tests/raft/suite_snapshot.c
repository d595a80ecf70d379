/* The course's snapshot tests. Every server snapshots at every tenth index and drops its log up to
 * there. */
#include "raft/sim_report.h"
#include "raft/suite.h"

#include <inttypes.h>

enum { SNAPSHOT_INTERVAL = 10, LOG_BYTES_MAX = 2000, ROUNDS = 30 };

struct snapshot_faults {
    bool disconnect;
    bool crash;
};

static void one_round(struct sim_cluster *cluster, struct snapshot_faults faults, uint32_t sender,
                      uint32_t victim)
{
    uint32_t servers = cluster->options.servers;
    uint32_t reached = servers;
    if (faults.disconnect) {
        sim_disconnect(cluster, victim);
    }
    if (faults.crash) {
        sim_crash(cluster, victim);
    }
    if (faults.disconnect || faults.crash) {
        reached = servers - 1;
        (void)sim_one(cluster, sim_value(cluster), reached, true);
    }
    uint64_t count = SNAPSHOT_INTERVAL / 2 + rng_below(&cluster->rng, SNAPSHOT_INTERVAL);
    for (uint64_t i = 0; i < count; i++) {
        (void)sim_propose(cluster, sender, sim_value(cluster), sizeof(uint64_t), NULL);
    }
    (void)sim_one(cluster, sim_value(cluster), reached, true); /* appliers catch up */
    uint64_t log_bytes = sim_log_bytes_max(cluster);
    if (log_bytes >= LOG_BYTES_MAX) {
        sim_fail("a log of %" PRIu64 " bytes, at most %d", log_bytes, LOG_BYTES_MAX);
    }
    if (faults.crash) {
        sim_start(cluster, victim);
    }
    if (faults.disconnect || faults.crash) {
        sim_connect(cluster, victim);
        (void)sim_one(cluster, sim_value(cluster), servers, true);
    }
}

static void snapshots(struct sim_cluster *cluster, struct snapshot_faults faults)
{
    uint32_t servers = cluster->options.servers;
    (void)sim_one(cluster, sim_value(cluster), servers, true);
    uint32_t leader = sim_check_one_leader(cluster);
    for (unsigned i = 0; i < ROUNDS; i++) {
        uint32_t follower = (leader + 1) % servers;
        bool swap = i % 3 == 1;
        one_round(cluster, faults, swap ? follower : leader, swap ? leader : follower);
        if (faults.disconnect || faults.crash) {
            leader = sim_check_one_leader(cluster);
        }
    }
    if (cluster->counters.snapshots_made == 0) {
        sim_fail("no snapshot was ever made");
    }
}

static void expect_installed(const struct sim_cluster *cluster)
{
    if (cluster->counters.snapshots_installed == 0) {
        sim_fail("no follower was ever caught up by a snapshot");
    }
}

void suite_snapshot_basic(struct sim_cluster *cluster)
{
    snapshots(cluster, (struct snapshot_faults){0});
    if (cluster->net.counters.sent[RAFT_MSG_SNAPSHOT] > 0) {
        sim_fail("%" PRIu64 " snapshot chunks were sent though everybody kept up",
                 cluster->net.counters.sent[RAFT_MSG_SNAPSHOT]);
    }
}

void suite_snapshot_install(struct sim_cluster *cluster)
{
    snapshots(cluster, (struct snapshot_faults){.disconnect = true});
    expect_installed(cluster);
}

void suite_snapshot_install_unreliable(struct sim_cluster *cluster)
{
    snapshots(cluster, (struct snapshot_faults){.disconnect = true});
    expect_installed(cluster);
}

void suite_snapshot_install_crash(struct sim_cluster *cluster)
{
    snapshots(cluster, (struct snapshot_faults){.crash = true});
    expect_installed(cluster);
}

void suite_snapshot_install_uncrash(struct sim_cluster *cluster)
{
    snapshots(cluster, (struct snapshot_faults){.crash = true});
    expect_installed(cluster);
}

static void restart_all(struct sim_cluster *cluster)
{
    uint32_t servers = cluster->options.servers;
    for (uint32_t i = 0; i < servers; i++) {
        sim_crash(cluster, i);
    }
    for (uint32_t i = 0; i < servers; i++) {
        sim_start(cluster, i);
        sim_connect(cluster, i);
    }
}

void suite_snapshot_all_crash(struct sim_cluster *cluster)
{
    uint32_t servers = cluster->options.servers;
    (void)sim_one(cluster, sim_value(cluster), servers, true);
    for (unsigned i = 0; i < 5; i++) {
        uint64_t count = SNAPSHOT_INTERVAL / 2 + rng_below(&cluster->rng, SNAPSHOT_INTERVAL);
        for (uint64_t k = 0; k < count; k++) {
            (void)sim_one(cluster, sim_value(cluster), servers, true);
        }
        uint64_t before = sim_one(cluster, sim_value(cluster), servers, true);
        restart_all(cluster);
        uint64_t after = sim_one(cluster, sim_value(cluster), servers, true);
        if (after < before + 1) {
            sim_fail("index went back from %" PRIu64 " to %" PRIu64, before, after);
        }
    }
}

/* A snapshot survives a second crash with nothing written in between that would save it again. */
void suite_snapshot_init(struct sim_cluster *cluster)
{
    uint32_t servers = cluster->options.servers;
    (void)sim_one(cluster, sim_value(cluster), servers, true);
    for (unsigned i = 0; i < SNAPSHOT_INTERVAL + 1; i++) {
        (void)sim_one(cluster, sim_value(cluster), servers, true);
    }
    restart_all(cluster);
    (void)sim_one(cluster, sim_value(cluster), servers, true);
    restart_all(cluster);
    (void)sim_one(cluster, sim_value(cluster), servers, true);
    for (uint32_t i = 0; i < servers; i++) {
        if (cluster->replicas[i].disk.snapshot.id == 0) {
            sim_fail("server %u has no snapshot", i);
        }
    }
}
