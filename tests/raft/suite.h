/* The course's Raft tests (MIT 6.824 / 6.5840), one function each, by family. A test gets a cluster
 * of which every server is started and connected; it returns when it passed and ends the run with
 * sim_fail when it did not. */
#ifndef TESTS_RAFT_SUITE_H
#define TESTS_RAFT_SUITE_H

#include "raft/sim_cluster.h"

struct suite_test {
    const char *name;
    uint32_t servers;
    bool unreliable;
    bool snapshots;
    void (*run)(struct sim_cluster *cluster);
};

/* suite_election.c */
void suite_initial_election(struct sim_cluster *cluster);
void suite_reelection(struct sim_cluster *cluster);
void suite_many_elections(struct sim_cluster *cluster);

/* suite_agree.c */
void suite_basic_agree(struct sim_cluster *cluster);
void suite_rpc_bytes(struct sim_cluster *cluster);
void suite_follower_failure(struct sim_cluster *cluster);
void suite_leader_failure(struct sim_cluster *cluster);
void suite_fail_agree(struct sim_cluster *cluster);
void suite_fail_no_agree(struct sim_cluster *cluster);
void suite_concurrent_starts(struct sim_cluster *cluster);
void suite_rejoin(struct sim_cluster *cluster);
void suite_backup(struct sim_cluster *cluster);
void suite_count(struct sim_cluster *cluster);

/* suite_persist.c */
void suite_persist1(struct sim_cluster *cluster);
void suite_persist2(struct sim_cluster *cluster);
void suite_persist3(struct sim_cluster *cluster);
void suite_figure8(struct sim_cluster *cluster);
void suite_unreliable_agree(struct sim_cluster *cluster);
void suite_figure8_unreliable(struct sim_cluster *cluster);

/* suite_churn.c */
void suite_reliable_churn(struct sim_cluster *cluster);
void suite_unreliable_churn(struct sim_cluster *cluster);

/* suite_snapshot.c */
void suite_snapshot_basic(struct sim_cluster *cluster);
void suite_snapshot_install(struct sim_cluster *cluster);
void suite_snapshot_install_unreliable(struct sim_cluster *cluster);
void suite_snapshot_install_crash(struct sim_cluster *cluster);
void suite_snapshot_install_uncrash(struct sim_cluster *cluster);
void suite_snapshot_all_crash(struct sim_cluster *cluster);
void suite_snapshot_init(struct sim_cluster *cluster);

#endif
