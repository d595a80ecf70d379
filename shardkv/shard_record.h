/* What a group knows of one shard, replicated; the value of `h<shard>`. Where no record is stored,
 * the shard is ABSENT and every field is 0. The states are those of proto/config.h. Pure data. */
#ifndef SHARDKV_SHARD_RECORD_H
#define SHARDKV_SHARD_RECORD_H

#include "base/bytes.h"
#include "base/error.h"
#include "proto/config.h"

struct shard_record {
    enum shard_state state;
    uint64_t number; /* config under which it got this state; the fence of every move verb */
    uint64_t
        peer_group; /* PULLING: the source. FROZEN, DROPPING: the destination, 0: nobody owns it */
    uint64_t
        version; /* the newest version given to a key; never goes back, travels with the shard */
    uint64_t session_count; /* rows of space `s` */
    uint64_t expire_from;   /* client id where the next expiry step begins */
    uint64_t frozen_ms;     /* FROZEN: log time when it froze; session ages are counted up to it */

    /* PULLING: how far. A new generation begins with every restart, so that a chunk of an older
     * attempt is not taken. */
    uint64_t generation;
    bool clearing; /* rows of the former attempt are being deleted */
    bool complete; /* the source's last row is here */
    uint64_t rows;
    uint64_t bytes;
    uint64_t checksum;     /* sum of row_hash() */
    struct blob *last_row; /* one reference of its own; NULL: none yet */
};

void shard_record_encode(const struct shard_record *record, struct buf *out);
/* gives the reference in out->last_row. ERR_CORRUPT. */
int shard_record_decode(struct bytes bytes, struct shard_record *out) MUST_USE;
/* The copy has a reference of its own. */
void shard_record_copy(struct shard_record *to, const struct shard_record *from);
void shard_record_clear(struct shard_record *record); /* ABSENT; drops the reference */
/* Back to the beginning of a pull: progress 0, next generation. */
void shard_record_restart(struct shard_record *record);
void shard_record_set_last_row(struct shard_record *record, struct bytes row);
struct bytes shard_record_last_row(const struct shard_record *record);

/* 0, or why a command for a shard in this state is refused: WRONG_GROUP, SHARD_MOVING. */
int shard_record_serves(const struct shard_record *record);
/* Nothing of this config is left to do for it, so the next config may be taken. */
bool shard_record_is_settled(const struct shard_record *record);

/* A source group that has still to be told to drop what was installed here: value of
 * `mp<shard><number>`. */
struct pending_drop {
    uint32_t shard;
    uint64_t number;
    struct blob *source; /* packed struct config_group */
};
void pending_source_encode(const struct config_group *group, struct buf *out);
int pending_source_decode(struct bytes bytes, struct config_group *out) MUST_USE; /* ERR_CORRUPT */

#endif
