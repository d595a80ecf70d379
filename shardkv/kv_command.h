/* Commands of a shard group's log: one byte that says which, then the body.
 *
 *   BLOCK    the block of proto/command.h as the client sent it. Its own first byte, the format's
 *            version 1, is the command's byte: nothing is put before it, so nothing is copied.
 *   others   u8 kind, then the fields named below, in their order
 *
 * A command answers with
 *   BLOCK    u8 flags (KV_RESULT_...), then the results of proto/command.h
 *   others   varint wire code */
#ifndef SHARDKV_KV_COMMAND_H
#define SHARDKV_KV_COMMAND_H

#include "base/bytes.h"
#include "base/error.h"

enum kv_command_kind {
    KV_COMMAND_BLOCK = 1,
    KV_COMMAND_CONFIG = 0x41,  /* number: of the newest config there is; config */
    KV_COMMAND_CHUNK = 0x42,   /* shard, number, generation, after_row, last_row, end, rows */
    KV_COMMAND_INSTALL = 0x43, /* shard, number, generation, row_count, row_bytes, checksum */
    KV_COMMAND_DROP = 0x44,    /* shard, number, group: the destination */
    KV_COMMAND_STEP = 0x45,    /* shard, number: deletes up to KV_STEP_ROWS_MAX rows */
    KV_COMMAND_DROP_CONFIRMED = 0x46, /* shard, number */
    KV_COMMAND_EXPIRE = 0x47,         /* shard: looks at up to KV_EXPIRE_ROWS_MAX sessions */
};

enum {
    KV_STEP_ROWS_MAX = 2048,
    KV_EXPIRE_ROWS_MAX = 1024,
    KV_SESSIONS_PER_SHARD_MAX = 65536,
};

enum {
    KV_RESULT_REFUSED = 1, /* some operation was refused with WRONG_GROUP or SHARD_MOVING */
};

struct kv_command {
    enum kv_command_kind kind;
    uint32_t shard;
    uint64_t number;
    uint64_t generation;
    uint64_t group;
    struct bytes config;
    struct bytes after_row; /* CHUNK: what the last row here must be; empty: none */
    struct bytes last_row;
    struct bytes rows;
    bool end;
    uint64_t row_count; /* INSTALL: what the source says it has */
    uint64_t row_bytes;
    uint64_t checksum;
};

/* Not for BLOCK, whose payload is the block itself. */
void kv_command_encode(const struct kv_command *command, struct buf *out);
/* Views into `payload`. For BLOCK only the kind is set. ERR_PROTOCOL; ERR_UNSUPPORTED: a kind this
 * version does not know. */
int kv_command_decode(struct bytes payload, struct kv_command *out) MUST_USE;
/* The error a command other than BLOCK was answered with; ERR_PROTOCOL when the bytes are none. */
int kv_command_result(struct bytes result);

#endif
