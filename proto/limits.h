/* The protocol's named maxima. One place, checked by clients before sending and by servers on receipt. */
#ifndef PROTO_LIMITS_H
#define PROTO_LIMITS_H

enum {
    KEY_BYTES_MAX = 4096,
    VALUE_BYTES_MAX = 8 * 1024 * 1024,        /* also after an append */
    SHARD_COUNT_MAX = 16384,
    GROUPS_MAX = 1024,
    GROUP_REPLICAS_MAX = 15,                   /* = RAFT_MEMBERS_MAX */
    ADDRESS_BYTES_MAX = 128,                   /* with NUL; = RAFT_ADDRESS_BYTES_MAX */
    BLOCK_OPERATIONS_MAX = 8192,               /* operations in one block */
    BLOCK_BYTES_MAX = VALUE_BYTES_MAX + 64 * 1024, /* one operation of the largest size fits with its header */
    SESSION_OUTSTANDING_MAX = 16384,           /* commands of one client in flight */
    MOVE_CHUNK_BYTES = 1024 * 1024,            /* rows of one chunk; one larger row travels alone */
};

#define SESSION_TTL_MS      (60ull * 60 * 1000)  /* an idle session may be forgotten after this log time */
#define COMMAND_AGE_MS_MAX  (20ull * 60 * 1000)  /* an older command is refused as SESSION_EXPIRED */
_Static_assert(COMMAND_AGE_MS_MAX * 2 < SESSION_TTL_MS,
               "a command still young enough to run must find its session");

#endif
