/* A numbered config: which group owns which shard. Immutable once made, shared by reference count.
 */
#ifndef PROTO_CONFIG_H
#define PROTO_CONFIG_H

#include "base/bytes.h"
#include "base/error.h"
#include "proto/limits.h"

/* A shard's life in one group, from replicated state alone.
 *
 *   ABSENT --config gives it, no source--> SERVING
 *   ABSENT --config gives it, source-----> PULLING --Install--> SERVING
 *   SERVING --config takes it (Freeze)---> FROZEN --Drop--> DROPPING --last row deleted--> ABSENT
 *   FROZEN --config gives it back, never pulled (it had no owner meanwhile)--> SERVING */
enum shard_state {
    SHARD_ABSENT = 0,
    SHARD_SERVING = 1,
    SHARD_PULLING = 2,
    SHARD_FROZEN = 3,
    SHARD_DROPPING = 4,
};
const char *shard_state_name(enum shard_state state); /* "serving" */

struct config_replica {
    uint64_t id;
    char address[ADDRESS_BYTES_MAX];
};
struct config_group {
    uint64_t id; /* nonzero */
    bool departed;
    /* Of the entry in the group's own log that made `replicas` its voters; 0: they are those it was
     * joined with. */
    uint64_t members_index;
    uint32_t replica_count;
    struct config_replica replicas[GROUP_REPLICAS_MAX];
};

struct config {
    uint64_t number; /* 0: the empty config before the first join */
    uint32_t shard_count;
    uint64_t *owners; /* [shard_count]; 0: none */
    /* [shard_count]: where the data was before this config, or, where that differs from the one
     * before it by the replicas of a group alone, before that one; 0: nobody ever had it */
    uint64_t *sources;
    uint32_t group_count;
    struct config_group *groups; /* by ascending id */
};

/* A fresh, private, mutable config; freed by config_free. Share one by const pointer and own it in
 * one place, or wrap it in config_share. */
struct config *config_create(uint64_t number, uint32_t shard_count);
struct config *config_clone(const struct config *config);
void config_free(struct config *config);
const struct config_group *config_find_group(const struct config *config, uint64_t id);
/* The same replicas at the same addresses, in whatever order. */
bool config_same_replicas(const struct config_group *a, const struct config_group *b);
/* As Config of shardkv.proto. Decode validates all: counts and ranges; group ids nonzero and
 * ascending; replica ids nonzero and distinct within a group; owners and sources 0 or listed
 * groups, owners not departed. ERR_PROTOCOL, or ERR_TOO_LARGE for a table over its limit. */
void config_encode(const struct config *config, struct buf *out);
int config_decode(struct bytes bytes, struct config **out) MUST_USE; /* gives */

/* A config shared by reference count; the counts are atomic, any thread. Its config never changes.
 */
struct config_share;
struct config_share *
config_share_create(struct config *config); /* takes `config`; gives one reference */
struct config_share *
config_share_ref(struct config_share *share);        /* returns share; NULL passes through */
void config_share_unref(struct config_share *share); /* takes; NULL is fine */
/* Lives as long as the caller's reference. */
const struct config *config_share_get(const struct config_share *share);

#endif
