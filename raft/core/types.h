/* The words of the protocol: positions, entries, membership, messages. Plain data, no behaviour
 * beyond comparing and counting references. Shared by the core, the log on disk and the node. */
#ifndef RAFT_CORE_TYPES_H
#define RAFT_CORE_TYPES_H

#include "base/bytes.h"

enum {
    RAFT_MEMBERS_MAX = 15,        /* voters and learners of one group */
    RAFT_ADDRESS_BYTES_MAX = 128, /* "host:port" with its NUL */
};

/* Index and term travel together. {0, 0} is the position before the first entry. */
struct raft_position {
    uint64_t index;
    uint64_t term;
};

static inline bool raft_position_equal(struct raft_position a, struct raft_position b)
{
    return a.index == b.index && a.term == b.term;
}

enum raft_entry_kind {
    /* a new leader's first entry, but for a group's very first: its bootstrap membership */
    RAFT_ENTRY_NOOP = 1,
    RAFT_ENTRY_COMMAND = 2,    /* opaque to Raft */
    RAFT_ENTRY_MEMBERSHIP = 3, /* an encoded struct raft_membership */
};

struct raft_entry {
    struct raft_position position;
    enum raft_entry_kind kind;
    struct bytes data;  /* lies inside `owner` (or static storage when owner is NULL) */
    struct blob *owner; /* counted; may be shared by many entries */
};

/* Bytes an entry counts for in every limit: payload plus this for its header in memory and on the
 * wire. */
#define RAFT_ENTRY_OVERHEAD_BYTES 48u
static inline size_t raft_entry_bytes(const struct raft_entry *entry)
{
    return entry->data.size + RAFT_ENTRY_OVERHEAD_BYTES;
}

enum raft_role { RAFT_VOTER = 1, RAFT_LEARNER = 2 };

struct raft_member {
    uint64_t id; /* nonzero, never reused after removal */
    enum raft_role role;
    char address[RAFT_ADDRESS_BYTES_MAX]; /* opaque to the core; NUL-terminated */
};

struct raft_membership {
    /* of the entry (or snapshot) that made it; {0,0} for the bootstrap one */
    struct raft_position position;
    uint32_t count;
    struct raft_member members[RAFT_MEMBERS_MAX]; /* by ascending id, no duplicates */
};

const struct raft_member *raft_membership_find(const struct raft_membership *membership,
                                               uint64_t id);
uint32_t raft_membership_voter_count(const struct raft_membership *membership);
/* Entry payload form. Decode validates everything: ERR_PROTOCOL on any byte that is not right. */
void raft_membership_encode(const struct raft_membership *membership, struct buf *out);
int raft_membership_decode(struct bytes bytes, struct raft_membership *out);

struct raft_hard_state {
    uint64_t term;
    uint64_t voted_for; /* 0: nobody in `term` */
    /* a hint: what was known committed when written; never required to be fresh */
    uint64_t commit;
};

/* What names a snapshot: everything up to and including `position`, under `membership`. The bytes
 * are the state machine's, seen by the core as a stream of `size_bytes` that is sent in chunks and
 * resumed by offset. */
struct raft_snapshot {
    struct raft_position position;
    struct raft_membership membership;
    uint64_t size_bytes;
    uint64_t id; /* chosen by the maker at random; a chunk of another id is another snapshot */
};

enum raft_message_kind {
    RAFT_MSG_PREVOTE = 1, /* term = the term the candidate would start */
    RAFT_MSG_PREVOTE_REPLY,
    RAFT_MSG_VOTE,
    RAFT_MSG_VOTE_REPLY,
    RAFT_MSG_APPEND,
    RAFT_MSG_APPEND_REPLY,
    RAFT_MSG_HEARTBEAT, /* carries commit and the newest read round */
    RAFT_MSG_HEARTBEAT_REPLY,
    RAFT_MSG_SNAPSHOT, /* one chunk; the node fills `chunk` from the snapshot's stream */
    RAFT_MSG_SNAPSHOT_REPLY,
    RAFT_MSG_TIMEOUT_NOW, /* leadership transfer: campaign at once, without pre-vote */
};

struct raft_message {
    enum raft_message_kind kind;
    uint64_t from;
    uint64_t to;
    uint64_t term;

    /* PREVOTE, VOTE: the candidate's last entry. APPEND: the entry before the first. APPEND_REPLY:
     * accepted: the last entry known to match; rejected: the `previous` that was refused (so that a
     * stale rejection is recognised). */
    struct raft_position position;
    /* APPEND, HEARTBEAT: the leader's commit, for HEARTBEAT clamped to what this follower is known
     * to hold. */
    uint64_t commit;
    bool reject; /* *_REPLY */
    /* PREVOTE, VOTE: sent because of TIMEOUT_NOW: voters ignore their leader's lease */
    bool leader_transfer;
    /* APPEND_REPLY rejected: where the follower's log could agree: its conflicting term's first
     * index with that term, or {last index + 1, 0} when it is shorter (Raft paper 5.3, last
     * paragraph). */
    struct raft_position hint;
    /* HEARTBEAT, APPEND and their replies: number of the read round being confirmed (0: none),
     * echoed. */
    uint64_t read_round;

    const struct raft_entry *entries; /* APPEND */
    size_t entry_count;

    /* SNAPSHOT: which, and the chunk. SNAPSHOT_REPLY: snapshot.position/.id echoed, and the next
     * offset wanted. */
    const struct raft_snapshot *snapshot; /* SNAPSHOT only */
    uint64_t snapshot_id;                 /* SNAPSHOT_REPLY */
    uint64_t chunk_offset;                /* SNAPSHOT: of chunk; SNAPSHOT_REPLY: next wanted */
    /* SNAPSHOT, filled by the node; empty only when size_bytes is 0 */
    struct bytes chunk;
    struct blob *chunk_owner;
};

#endif
