/* The course's election tests. */
#include "raft/sim_report.h"
#include "raft/suite.h"

#include <inttypes.h>

void suite_initial_election(struct sim_cluster *cluster)
{
    uint32_t leader = sim_check_one_leader(cluster);
    sim_cluster_run(cluster, 50 * SIM_MS); /* followers learn of it */
    uint64_t term = sim_check_terms(cluster);
    if (term < 1) {
        sim_fail("term is %" PRIu64 ", should be at least 1", term);
    }
    sim_cluster_run(cluster, 2 * COURSE_ELECTION_NS);
    uint64_t later_term = sim_check_terms(cluster);
    if (later_term != term) {
        sim_fail("term went from %" PRIu64 " to %" PRIu64 " though nothing failed", term,
                 later_term);
    }
    uint32_t later_leader = sim_check_one_leader(cluster);
    if (later_leader != leader) {
        sim_fail("leader went from %u to %u though nothing failed", leader, later_leader);
    }
}

void suite_reelection(struct sim_cluster *cluster)
{
    uint32_t servers = cluster->options.servers;
    uint32_t first = sim_check_one_leader(cluster);
    sim_disconnect(cluster, first);
    uint32_t second = sim_check_one_leader(cluster);
    if (second == first) {
        sim_fail("the disconnected leader %u is the leader", first);
    }
    uint64_t term = cluster->replicas[second].status.term;

    sim_connect(cluster, first); /* must not disturb the new leader */
    uint32_t still = sim_check_one_leader(cluster);
    if (still != second || cluster->replicas[still].status.term != term) {
        sim_fail("the old leader's return deposed leader %u of term %" PRIu64, second, term);
    }

    sim_disconnect(cluster, second);
    sim_disconnect(cluster, (second + 1) % servers);
    sim_cluster_run(cluster, 2 * COURSE_ELECTION_NS);
    sim_check_no_leader(cluster);

    sim_connect(cluster, (second + 1) % servers); /* a quorum arises */
    (void)sim_check_one_leader(cluster);
    sim_connect(cluster, second);
    (void)sim_check_one_leader(cluster);
}

void suite_many_elections(struct sim_cluster *cluster)
{
    uint32_t servers = cluster->options.servers;
    (void)sim_check_one_leader(cluster);
    for (unsigned i = 1; i < 10; i++) {
        uint32_t off[3];
        for (unsigned k = 0; k < 3; k++) { /* may be the same one twice: up to three */
            off[k] = (uint32_t)rng_below(&cluster->rng, servers);
            sim_disconnect(cluster, off[k]);
        }
        /* Either the leader is still there or the four left elect one. */
        (void)sim_check_one_leader(cluster);
        for (unsigned k = 0; k < 3; k++) {
            sim_connect(cluster, off[k]);
        }
    }
    (void)sim_check_one_leader(cluster);
}
