/* The driver of a group's moves, as a pure machine: no threads, no clock, no network. It looks at
 * the replicated shard table and says what to propose and whom to ask; it remembers nothing that
 * matters, so a new leader's driver goes on where the old one was, and two drivers at once do no
 * harm (every command is fenced).
 *
 *   what the table shows                    what is done
 *   a newer config exists, all settled      fetch config N+1, propose CONFIG
 *   a shard PULLING                         Open, Read -> CHUNK ..., Freeze -> INSTALL
 *   a shard PULLING that is to be cleared   STEP ...
 *   a shard DROPPING                        STEP ...
 *   a pending drop                          Drop -> DROP_CONFIRMED
 *   sessions                                EXPIRE, round after round
 *   other replicas of this group listed     UPDATE_MEMBERS, told to the controllers
 *   in the newest config than its log has
 *
 * One source group that does not answer holds up nobody else: its tasks give their places back and
 * it is asked again after a back-off. */
#ifndef SHARDKV_MOVER_H
#define SHARDKV_MOVER_H

#include "base/rng.h"
#include "raft/core/types.h"
#include "shardkv/kv_table.h"

struct mover;

struct mover_options {
    uint64_t group_id;
    uint64_t seed;
    uint32_t chunk_bytes;        /* default MOVE_CHUNK_BYTES */
    uint64_t call_timeout_ns;    /* default 5 s */
    uint64_t backoff_min_ns;     /* default 50 ms */
    uint64_t backoff_max_ns;     /* default 2 s */
    uint64_t expire_interval_ns; /* between two rounds over all shards; default 5 min */
    uint64_t poll_interval_ns;   /* ask for the next config even if none is known; default 5 s */
};
struct mover_options mover_options_default(uint64_t group_id, uint64_t seed);

enum {
    MOVER_PULLS_MAX = 4,
    MOVER_DROPS_MAX = 4,
    MOVER_STEPS_MAX = 2,
    MOVER_TASKS_MAX = MOVER_PULLS_MAX + MOVER_DROPS_MAX + MOVER_STEPS_MAX + 3,
};

enum mover_action_kind { MOVER_PROPOSE = 1, MOVER_CALL, MOVER_FETCH_CONFIG, MOVER_UPDATE_MEMBERS };
enum mover_verb { MOVER_OPEN = 1, MOVER_READ, MOVER_FREEZE, MOVER_DROP };

struct mover_action {
    enum mover_action_kind kind;
    uint64_t id;        /* goes back with the answer; every action wants exactly one */
    struct buf payload; /* PROPOSE: given */
    /* UPDATE_MEMBERS: given */
    struct config_group *members;
    uint64_t number;      /* FETCH_CONFIG, CALL */
    enum mover_verb verb; /* CALL, and all below */
    char address[ADDRESS_BYTES_MAX];
    uint32_t shard;
    uint64_t from_group;
    uint64_t to_group;
    struct buf after_row; /* READ: given */
    uint32_t bytes_max;
    uint64_t timeout_ns;
};
void mover_action_deinit(struct mover_action *action);

/* What a call was answered with: `error` of the call itself or of the response. */
struct mover_reply {
    int error;
    const char *leader_address; /* NOT_LEADER; "" or NULL: unknown */
    struct bytes rows;          /* READ */
    uint32_t rows_crc32c;
    struct bytes last_row;
    bool end;
    uint64_t row_count; /* FREEZE */
    uint64_t row_bytes;
    uint64_t checksum;
};

struct mover *mover_create(const struct mover_options *options); /* gives */
void mover_destroy(struct mover *mover);

/* Not leader: everything under way is forgotten, and later answers to it are ignored. */
void mover_set_leader(struct mover *mover, bool leader);
void mover_set_table(struct mover *mover,
                     struct kv_table *table); /* takes a reference of its own */
/* The newest config that is known; takes a reference of its own. Older ones than it has are
 * ignored. Groups are asked at the addresses that it lists, whatever config their shards move
 * under: a group may have been replaced, replica by replica, since that one was made. */
void mover_set_newest(struct mover *mover, struct config_share *config);
/* The group's newest committed membership; never one that may yet be undone. Copies. Older ones
 * than it has are ignored. */
void mover_set_members(struct mover *mover, const struct raft_membership *members);

/* Answers. `config`: the bytes of Config, empty on an error. `answer`: what the command was
 * answered with. */
void mover_fetched(struct mover *mover, uint64_t id, int error, struct bytes config,
                   uint64_t now_ns);
/* `config_number`: of the answer. */
void mover_updated(struct mover *mover, uint64_t id, int error, uint64_t config_number,
                   uint64_t now_ns);
void mover_proposed(struct mover *mover, uint64_t id, int error, int answer, uint64_t now_ns);
void mover_replied(struct mover *mover, uint64_t id, const struct mover_reply *reply,
                   uint64_t now_ns);

/* Works out what to do now. Call after every input and at mover_wake_ns. */
void mover_tick(struct mover *mover, uint64_t now_ns);
/* The next action, until false. gives what it points at. */
bool mover_next(struct mover *mover, struct mover_action *out) MUST_USE;
/* When something is to be done though nothing comes in; UINT64_MAX: never. */
uint64_t mover_wake_ns(const struct mover *mover);

#endif
