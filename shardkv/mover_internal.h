/* What the files of the driver share. Nothing else includes it. */
#ifndef SHARDKV_MOVER_INTERNAL_H
#define SHARDKV_MOVER_INTERNAL_H

#include "base/clock.h"
#include "shardkv/kv_command.h"
#include "shardkv/mover.h"

enum {
    EXPIRE_PAUSE_MS = 100, /* between two expiry steps of a round */
    FAILURES_COUNTED_MAX = 16,
};

enum task_kind {
    TASK_FREE = 0,
    TASK_CONFIG,
    TASK_EXPIRE,
    TASK_PULL,
    TASK_DROP,
    TASK_STEP,
    TASK_MEMBERS
};

struct task {
    enum task_kind kind;
    uint32_t shard;
    uint64_t number;      /* of a config; MEMBERS: the index that was told */
    uint64_t source;      /* PULL, DROP: the group that is asked */
    bool opened;          /* PULL: the source said that it is ready */
    bool confirming;      /* DROP: the source has dropped */
    enum mover_verb verb; /* of the call that is out */
    uint32_t attempt;     /* the peer's when it was made */
    uint64_t generation;  /* READ: the attempt that asked, and after which row */
    struct buf after_row;
    uint64_t waiting_id; /* 0: not waiting */
    uint64_t not_before_ns;
    uint32_t failures;
};

/* What is known of a source group: where its leader is and whether it is worth asking. */
struct peer {
    uint64_t id;
    char leader[ADDRESS_BYTES_MAX]; /* "": try the next replica */
    bool hinted; /* `leader` is what another replica said, and has not answered as a leader yet */
    uint32_t next_replica;
    uint32_t attempt; /* grows when another replica is to be asked: what is said of the former
                         counts once, not once a task */
    uint32_t failures;
    uint64_t not_before_ns;
};

struct mover {
    struct mover_options options;
    struct rng rng;
    bool leader;
    struct kv_table *table;
    struct config_share *newest; /* NULL: none is known but the table's */
    uint64_t latest;             /* its number */
    struct raft_membership members;
    uint64_t told_index; /* of the members that the controllers took last from this leader */
    uint64_t told_number;
    uint64_t next_id;
    uint32_t next_shard; /* where the search for work goes on, so that every shard gets its turn */
    uint32_t expire_shard;
    struct task tasks[MOVER_TASKS_MAX];
    struct mover_action actions[MOVER_TASKS_MAX];
    uint32_t action_count;
    uint32_t action_next;
    struct peer *peers;
    uint32_t peer_count;
    uint64_t now_ns;       /* of the last tick */
    uint64_t next_poll_ns; /* ask for the next config though none is known */
};

void mover__task_end(struct task *task);
struct task *mover__task_waiting_for(struct mover *mover,
                                     uint64_t id); /* NULL: nobody waits for it any more */
void mover__task_back_off(struct mover *mover, struct task *task, uint64_t now_ns);
struct mover_action *mover__action_add(struct mover *mover, struct task *task,
                                       enum mover_action_kind kind);
void mover__run_members(struct mover *mover, struct task *task); /* mover_members.c */
void mover__propose(struct mover *mover, struct task *task, const struct kv_command *command);
struct peer *mover__peer_of(struct mover *mover, uint64_t id); /* until the next call of it */
/* Not to be asked for a while; failed: nor at the same replica. */
void mover__peer_rest(struct mover *mover, struct peer *peer, uint64_t now_ns);
void mover__peer_failed(struct mover *mover, struct peer *peer, uint64_t now_ns);

#endif
