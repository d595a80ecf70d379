/* What one replica has on its disk: hard state, log, the state machine's newest snapshot, a staged
 * incoming one. In memory, but only what a completed (or, at a crash, luckily finished) write put
 * there. Refuses writes that break the contract of struct raft_write. One thread. */
#ifndef TESTS_RAFT_SIM_DISK_H
#define TESTS_RAFT_SIM_DISK_H

#include "raft/core/core.h"
#include "raft/sim_net.h"

/* A copy of one raft_write with the messages that wait for it. */
struct sim_write {
    struct sim_write *next;
    struct raft_write write; /* its pointers lead into this struct */
    struct raft_entry *entries;
    struct raft_snapshot chunk_snapshot;
    struct raft_snapshot install;
    struct sim_message **held;
    size_t held_count;
    bool damaged; /* the staged snapshot it installs turns out not to be intact: nothing is replaced
                   */
};

struct sim_write *sim_write_copy(const struct raft_ready *ready); /* gives */
void sim_write_free(struct sim_write *write); /* takes; held messages that are left too */

struct sim_disk_counters {
    uint64_t truncations; /* entries were really cut */
    uint64_t memberships_rolled_back;
    uint64_t installs;
};

struct sim_disk {
    uint64_t id; /* of the replica, for failures */
    struct raft_hard_state hard_state;
    struct raft_hard_state synced; /* what survives a crash for sure */
    struct raft_position base;     /* the entry before the first one kept */
    struct raft_membership base_membership;
    struct raft_entry *entries; /* base.index + 1 .. */
    size_t count;
    size_t capacity;
    struct raft_snapshot
        snapshot; /* the state machine as it would be found; id 0: empty, at {0, 0} */
    struct blob *snapshot_bytes;
    bool staging;
    struct raft_snapshot staged;
    struct buf staged_bytes;
    struct sim_disk_counters counters;
};

void sim_disk_init(struct sim_disk *disk, uint64_t id, const struct raft_membership *bootstrap);
void sim_disk_deinit(struct sim_disk *disk);
/* Makes the write durable, or in the page cache only when it need not be synced. */
void sim_disk_write(struct sim_disk *disk, const struct sim_write *write);
/* Power off: an unsynced hint may be gone (`keep_unsynced`), a half-received snapshot is. */
void sim_disk_crash(struct sim_disk *disk, bool keep_unsynced);
/* Entries up to index go. */
void sim_disk_compact(struct sim_disk *disk, uint64_t index);
/* The state machine was saved. References `bytes`. */
void sim_disk_save(struct sim_disk *disk, const struct raft_snapshot *snapshot, struct blob *bytes);

struct raft_position sim_disk_last(const struct sim_disk *disk);
/* 0 when the index is outside [base.index, last]. */
uint64_t sim_disk_term_at(const struct sim_disk *disk, uint64_t index);
/* NULL when the entry is not there. Good until the next write. */
const struct raft_entry *sim_disk_entry(const struct sim_disk *disk, uint64_t index);
/* Entry {index, term} is here, or was and is now inside what was compacted. */
bool sim_disk_holds(const struct sim_disk *disk, struct raft_position position);
/* The membership in force at `index` (base.index <= index <= last). */
void sim_disk_membership_at(const struct sim_disk *disk, uint64_t index,
                            struct raft_membership *out);
/* Bytes of the log and hard state, as the course's RaftStateSize. */
uint64_t sim_disk_log_bytes(const struct sim_disk *disk);

/* What raft_core_create wants, built from the disk. */
struct sim_recovery {
    struct raft_core_state state;
    struct raft_position *runs;
    struct raft_membership *memberships;
};
/* `tail_max` newest entries are given along; `base_form`: describe the log's base instead of the
 * snapshot, as a node does whose state machine is durable by itself. */
void sim_disk_recover(const struct sim_disk *disk, size_t tail_max, bool base_form,
                      struct sim_recovery *out);
void sim_recovery_free(struct sim_recovery *recovery);

#endif
