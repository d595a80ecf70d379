/* Things that must happen sometimes. A run in which one never happens has tested less than it says:
 * the swarm demands every row marked `required` to be above zero over its default seeds. */
#ifndef TESTS_RAFT_SIM_COUNTERS_H
#define TESTS_RAFT_SIM_COUNTERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*    name                     required  what happened */
#define SIM_COUNTERS(X)                                                                            \
    X(leaders, true, "leaders elected")                                                            \
    X(step_downs, true, "leader stepped down within its term")                                     \
    X(crashes, true, "replicas crashed")                                                           \
    X(crashes_losing_writes, true, "crashes that lost unfinished writes")                          \
    X(crashes_keeping_writes, true, "crashes with writes durable but not yet reported")            \
    X(voters_crashed, true, "replicas restarted just after they voted")                            \
    X(restarts, true, "replicas restarted")                                                        \
    X(log_truncations, true, "entries cut from a log")                                             \
    X(memberships_rolled_back, true, "uncommitted membership cut from a log")                      \
    X(snapshots_made, true, "snapshots made")                                                      \
    X(snapshots_installed, true, "snapshots installed")                                            \
    X(snapshots_multi_chunk, true, "snapshot chunks after the first sent")                         \
    X(snapshots_restarted, true, "snapshot streams begun anew from a later one")                   \
    X(snapshots_damaged, true, "snapshots found damaged at the end of the stream")                 \
    X(snapshots_wanted, true, "snapshots offered because the core asked for one")                  \
    X(restarts_from_snapshot, true, "restarts that began from a snapshot")                         \
    X(compactions, true, "logs compacted")                                                         \
    X(applied_from_disk, true, "committed entries read back from disk to apply")                   \
    X(loads_served, true, "entries read back for a follower")                                      \
    X(loads_compacted, false, "loads answered with 'compacted'")                                   \
    X(stale_rejections, true, "append rejections at or below what matched")                        \
    X(append_rejections, true, "append rejections")                                                \
    X(prevote_rejections, true, "pre-votes refused")                                               \
    X(proposals, true, "proposals accepted")                                                       \
    X(proposals_busy, true, "proposals refused with BUSY")                                         \
    X(proposals_lost, true, "accepted proposals replaced by another leader's")                     \
    X(changes_started, true, "membership changes started")                                         \
    X(changes_committed, true, "membership changes committed")                                     \
    X(changes_refused, true, "membership changes refused")                                         \
    X(promotions, true, "learners promoted")                                                       \
    X(removals, true, "members removed")                                                           \
    X(leader_removals, true, "leaders that removed themselves")                                    \
    X(transfers_started, true, "leadership transfers started")                                     \
    X(transfers_done, true, "leadership transfers done")                                           \
    X(transfers_abandoned, true, "leadership transfers given up")                                  \
    X(reads_asked, true, "reads asked for")                                                        \
    X(reads_at_deposed, true, "reads asked of a deposed leader")                                   \
    X(reads_served, true, "reads served")                                                          \
    X(reads_failed, true, "reads answered 'not leader'")                                           \
    X(reads_refused, true, "reads refused at once")                                                \
    X(messages_lost, true, "messages lost")                                                        \
    X(messages_duplicated, true, "messages duplicated")                                            \
    X(messages_reordered, true, "messages reordered")                                              \
    X(partitions, true, "partitions made")                                                         \
    X(one_way_cuts, true, "one-way cuts made")                                                     \
    X(link_cuts, true, "single links cut")                                                         \
    X(disk_stalls, true, "disk stalls")

struct sim_counters {
#define X(name, required, what) uint64_t name;
    SIM_COUNTERS(X)
#undef X
};

void sim_counters_add(struct sim_counters *sum, const struct sim_counters *more);
void sim_counters_print(const struct sim_counters *counters);
/* The first required counter that is zero, NULL when there is none. */
const char *sim_counters_missing(const struct sim_counters *counters);

#endif
