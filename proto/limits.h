/* The protocol's named maxima. One place, checked by clients before sending and by servers on
 * receipt. */
#ifndef PROTO_LIMITS_H
#define PROTO_LIMITS_H

enum {
    KEY_BYTES_MAX = 4096,
    VALUE_BYTES_MAX = 8 * 1024 * 1024, /* also after an append */
    SHARD_COUNT_MAX = 16384,
    GROUPS_MAX = 1024,
    GROUP_REPLICAS_MAX = 15,     /* = RAFT_MEMBERS_MAX */
    ADDRESS_BYTES_MAX = 128,     /* with NUL; = RAFT_ADDRESS_BYTES_MAX */
    BLOCK_OPERATIONS_MAX = 8192, /* operations in one block */
    BLOCK_BYTES_MAX =
        VALUE_BYTES_MAX + 64 * 1024, /* one operation of the largest size fits with its header */
    RESULTS_BYTES_MAX = VALUE_BYTES_MAX + 256 * 1024, /* one largest value, and a result for every
                                                       * operation: the server answers BUSY for a
                                                       * get whose value does not fit any more */
    SESSION_OUTSTANDING_MAX = 16384,                  /* commands of one client in flight */
    MOVE_CHUNK_BYTES = 1024 * 1024, /* rows of one chunk; one larger row travels alone */
    MOVE_ROW_KEY_BYTES_MAX = KEY_BYTES_MAX + 64,       /* a key with the store's prefix */
    MOVE_ROWS_BYTES_MAX = VALUE_BYTES_MAX + 64 * 1024, /* one largest row, packed */

    TEXT_BYTES_MAX = 256,     /* with NUL; a sentence for people in a response */
    ROLE_BYTES_MAX = 16,      /* with NUL */
    VERSION_BYTES_MAX = 64,   /* with NUL */
    BATCH_ROUTES_MAX = 256,   /* routes in one BatchResponse; more come with the next refusal */
    SCAN_ROWS_MAX = 4096,     /* rows in one ScanResponse */
    SCAN_BYTES_MAX = 1024 * 1024, /* keys and values in it; one larger row travels alone */
    FRAME_MESSAGES_MAX = 256, /* raft messages in one peer frame */
    MESSAGE_BYTES_MAX = 20 * 1024 * 1024, /* any message on the wire; = RPC_MESSAGE_BYTES_MAX */
};

/* A result is a code (5 bytes at most), a version (10) and a value's size (4). */
_Static_assert(BLOCK_OPERATIONS_MAX * 19 + VALUE_BYTES_MAX + 16 < RESULTS_BYTES_MAX,
               "results of the fullest block fit beside the largest value");
/* Besides its block or results a batch message has a few numbers, and a response its routes. */
_Static_assert(RESULTS_BYTES_MAX +
                       (BATCH_ROUTES_MAX + 1) * (GROUP_REPLICAS_MAX + 1) * (ADDRESS_BYTES_MAX + 4) <
                   MESSAGE_BYTES_MAX - 64 * 1024,
               "the largest batch response fits one message");
_Static_assert(SHARD_COUNT_MAX * 2 * 10 +
                       GROUPS_MAX * (GROUP_REPLICAS_MAX * (ADDRESS_BYTES_MAX + 16) + 32) <
                   MESSAGE_BYTES_MAX,
               "the largest config fits one message");

#define SESSION_TTL_MS                                                                             \
    (60ull * 60 * 1000) /* an idle session may be forgotten after this log time */
#define COMMAND_AGE_MS_MAX (20ull * 60 * 1000) /* an older command is refused as SESSION_EXPIRED   \
                                                */
_Static_assert(COMMAND_AGE_MS_MAX * 2 < SESSION_TTL_MS,
               "a command still young enough to run must find its session");

#endif
