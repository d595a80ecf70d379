/* 'Sometimes' counters: what must happen now and then in simulated clusters, or the simulator shows
 * less than it says. They are summed over all seeds of a process; a search prints the table, writes
 * it as JSON, and with --require-all fails when a row is zero.
 *
 * A counter is bound to evidence: a transition the core traced, an event the product logged, what
 * one of its functions returned (sometimes_watch.c), or what the simulator itself did to a cluster
 * and saw done. Nothing is counted because it was asked for.
 *
 * Some things are not here, because no fault of disks, clocks or networks leads to them. A pull
 * whose rows do not add up needs a source that says something false; a snapshot found damaged at
 * the end of its stream, a peer that does (frames have checksums). A chunk or an Install that comes
 * late needs two drivers of one move, and a leader drives only after it has applied all that the
 * former one left. The unit tests (test_kv_shards) and the Raft suite play them.
 *
 * `often` marks rows that the default seeds of sim.Swarm alone must reach. Thread: one at a time.
 */
#ifndef TESTS_SIM_SOMETIMES_H
#define TESTS_SIM_SOMETIMES_H

#include "base/bytes.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/*    name                       often  what happened */
#define SIM_SOMETIMES(X)                                                                           \
    X(LEADER_ELECTED, true, "leaders elected")                                                     \
    X(PREVOTE_REFUSED, true, "pre-votes ignored because a leader is heard")                        \
    X(VOTE_REFUSED, false, "votes ignored because a leader is heard")                              \
    X(QUORUM_LOST, true, "leaders that stepped down because no quorum answered")                   \
    X(LOG_TRUNCATED, true, "conflicting entries cut from a log")                                   \
    X(APPEND_REJECTED, true, "appends a follower's log refused")                                   \
    X(REJECTION_STALE, false, "rejections that came late and were ignored")                        \
    X(LEASE_READ, false, "reads served by a lease")                                                \
    X(READ_ROUND, true, "reads served after a round of heartbeats")                                \
    X(TRANSFER_STARTED, true, "leadership transfers begun")                                        \
    X(TRANSFER_TIMEOUT_NOW, true, "transfers whose target was told to campaign")                   \
    X(TRANSFER_DONE, true, "leaders elected because the former one handed over")                   \
    X(TRANSFER_ABANDONED, false, "transfers given up")                                             \
    X(DISK_HANDED_OVER, false, "leaders whose disk stood still and that began to hand over")       \
    X(MEMBER_CHANGED, false, "membership changes that ended well")                                 \
    X(MEMBER_CHANGE_REFUSED, false, "membership changes refused or lost")                          \
    X(MEMBER_ROLLED_BACK, false, "uncommitted memberships cut from a log")                         \
    X(REMOVED_LEADER_LEFT, false, "leaders that handed over because they were removed")            \
    X(SNAPSHOT_MADE, true, "snapshots made")                                                       \
    X(SNAPSHOT_SENT, true, "snapshots begun to be sent")                                           \
    X(SNAPSHOT_INSTALLED, true, "snapshots installed")                                             \
    X(SNAPSHOT_NEEDLESS, false, "snapshots that brought nothing new")                              \
    X(INSTALL_RESUMED, false, "streams told to go on behind what was there")                       \
    X(INSTALL_REPLACED, false, "streams given up for a newer snapshot")                            \
    X(INSTALL_CUT_OFF, false, "streams whose receiver's process ended")                            \
    X(LOG_COMPACTED, true, "logs compacted")                                                       \
    X(SEGMENT_RECYCLED, false, "log segments recycled")                                            \
    X(TORN_TAIL_CUT, true, "torn tails cut from a log")                                            \
    X(HEADER_REPAIRED, false, "headers of a segment written again")                                \
    X(LEFTOVER_REMOVED, false, "unfinished snapshots removed at a start")                          \
    X(RESTORE_AT_START, false, "starts that restored a snapshot first")                            \
    X(CONFIG_APPLIED, true, "configs taken by a group")                                            \
    X(MEMBERS_TOLD, true, "times that the controllers heard who a group's replicas are")           \
    X(CONFIG_LATE, false, "configs that came late or twice and were ignored")                      \
    X(SHARD_FROZEN, true, "shards frozen")                                                         \
    X(SHARD_UNFROZEN, false, "frozen shards that came back to where they were")                    \
    X(MOVE_STARTED, true, "shards begun to be pulled")                                             \
    X(MOVE_SETTLED, true, "shards installed")                                                      \
    X(MOVE_MANY_CHUNKS, true, "chunks of a shard after its first")                                 \
    X(MOVE_RETRIED, true, "calls to a source that failed and were made again")                     \
    X(DROP_LATE, true, "Drops that came late or twice and changed nothing")                        \
    X(SHARD_DROPPED, true, "shards dropped with all their rows")                                   \
    X(WRITE_REFUSED_IN_LOG, true, "committed writes that found their shard frozen or gone")        \
    X(READ_REFUSED_LATE, true, "confirmed reads that found their shard frozen or gone")            \
    X(SESSION_MOVED, true, "sessions that moved with their shard")                                 \
    X(SESSION_EXPIRED, false, "sessions forgotten after their time")                               \
    X(SESSION_REPEATED, true, "duplicates answered from the session")                              \
    X(SESSION_STALE, false, "sequences below what the client had acknowledged")                    \
    X(CAS_DONE, true, "compare-and-sets done")                                                     \
    X(CAS_MISMATCH, true, "compare-and-sets refused by the version")                               \
    X(OUTCOME_UNKNOWN, true, "operations of unknown outcome")                                      \
    X(OUTCOME_NOT_DONE, true, "operations surely not done")                                        \
    X(CLIENT_RETRIED, true, "commands sent again by the library")                                  \
    X(CLIENT_REROUTED, true, "commands sent to another group by the library")                      \
    X(ENTRY_COMPARED, true, "entries a replica applied that were applied before, the same")        \
    X(CRASH, true, "processes that ended without a word")                                          \
    X(RESTART, true, "processes started again")                                                    \
    X(FRAME_LOST, true, "frames lost")                                                             \
    X(FRAME_DUPLICATED, true, "frames that came twice")                                            \
    X(FRAME_REFUSED, false, "frames refused because their checksum was wrong")                     \
    X(CONN_BROKEN, true, "connections broken")                                                     \
    X(CONN_SILENT, true, "connections fallen silent")                                              \
    X(LINK_CLOGGED, true, "messages held by a clogged link")                                       \
    X(WALL_JUMPED, false, "wall clocks set forward or back")                                       \
    X(STOPPED_SYNC_FAILED, false, "processes that ended because a write or sync failed")           \
    X(STOPPED_DISK_FULL, false, "processes that ended because the disk was full")                  \
    X(STOPPED_STORE_FAILED, false, "processes that ended because their store failed")              \
    X(FLIP_HARMLESS, false, "flipped bits where nothing was read")                                 \
    X(FLIP_FOUND, false, "flipped bits found")                                                     \
    X(REPLICA_REPAIRED, false, "damaged replicas that were made whole from their peers")

enum sometimes {
#define X(name, often, what) S_##name,
    SIM_SOMETIMES(X)
#undef X
        SOMETIMES_COUNT
};

void sim_sometimes(enum sometimes what);
void sim_sometimes_add(enum sometimes what, uint64_t count);
uint64_t sim_sometimes_count(enum sometimes what);

void sim_sometimes_print(FILE *out);
/* {"LEADER_ELECTED": 12, ...}, one row a line. Appends. */
void sim_sometimes_json(struct buf *out);
/* The first row that is zero, of all or of those marked `often`; NULL when there is none. */
const char *sim_sometimes_missing(bool only_often);

/* ---- evidence from inside the product (sometimes_watch.c) ---- */

/* A line of a core's trace, of the replica on the host with this index. */
void sim_sometimes_traced(uint32_t host, const char *line);
/* That host's process has ended. */
void sim_sometimes_ended(uint32_t host);
/* A line of the product's log. */
void sim_sometimes_logged(const char *line);
/* What metrics have grown by since the last call. */
void sim_sometimes_read_metrics(void);

#endif
