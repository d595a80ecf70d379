/* Who this replica is, on its disk: the file `identity` in its directory. Written atomically, once
 * when the directory is first used and again whenever a peer's incarnation is learnt or forgotten.
 *
 *     8 bytes magic "SKVIDENT", u32 crc32c of all that follows, u32 version = 1
 *     u64 cluster_id, u64 group_id, u64 replica_id, u64 incarnation, u64 log_time_ms
 *     u32 count, count x { u64 id, u64 incarnation }       by ascending id
 *
 * The incarnation is a random number drawn when the directory is first used. A replica that comes
 * back without its disk has forgotten votes and entries it acknowledged; it draws another
 * incarnation, and its peers, who remember the former one here, refuse it instead of counting it.
 * It must be removed from the group and added under a new id.
 *
 * The struct is plain data; load and store block on the disk. One writer at a time. */
#ifndef RAFT_NODE_IDENTITY_H
#define RAFT_NODE_IDENTITY_H

#include "base/error.h"
#include "base/vfs.h"
#include "raft/core/types.h"

enum { IDENTITY_PEERS_MAX = 2 * RAFT_MEMBERS_MAX };

struct identity_peer {
    uint64_t id;
    uint64_t incarnation;
};

struct identity {
    uint64_t cluster_id;
    uint64_t group_id;
    uint64_t replica_id;
    uint64_t incarnation; /* nonzero */
    uint64_t log_time_ms; /* at least that of every entry that is not in the log any more */
    uint32_t peer_count;
    struct identity_peer peers[IDENTITY_PEERS_MAX]; /* by ascending id */
};

/* ERR_NOT_FOUND: the directory has none. ERR_CORRUPT, ERR_IO, ERR_UNSUPPORTED: `why` says what to
 * do. */
int identity_load(const struct vfs *vfs, const char *dir, struct identity *out, char *why,
                  size_t why_size) MUST_USE;
int identity_store(const struct vfs *vfs, const char *dir,
                   const struct identity *identity) MUST_USE;
/* ERR_WRONG_CLUSTER or ERR_WRONG_REPLICA when `identity` is not this cluster's, group's and
 * replica's. */
int identity_check(const struct identity *identity, uint64_t cluster_id, uint64_t group_id,
                   uint64_t replica_id, char *why, size_t why_size) MUST_USE;

/* 0: not known. */
uint64_t identity_peer_incarnation(const struct identity *identity, uint64_t id);
/* False when the table is full. */
bool identity_peer_learn(struct identity *identity, uint64_t id, uint64_t incarnation);
/* Forgets every peer that is not a member; true when there was one. */
bool identity_peers_keep(struct identity *identity, const struct raft_membership *membership);

#endif
