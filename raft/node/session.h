/* Exactly once: the table of one client's commands whose results must still be known. Pure data, no
 * I/O; the owner keeps it where it likes (the controller in memory, shardkv one record a (shard,
 * client) in its store).
 *
 * A command is known by its sequence. Results are kept until the client says it will never send
 * that sequence again (acked_below), so many may be in flight and finish in any order. */
#ifndef RAFT_NODE_SESSION_H
#define RAFT_NODE_SESSION_H

#include "base/bytes.h"
#include "base/error.h"

struct session_result {
    uint64_t sequence;
    /* crc32c of the command's bytes: a sequence reused with another payload is an error */
    uint32_t fingerprint;
    uint32_t code; /* wire code */
    uint64_t version;
};

struct session {
    uint64_t acked_below;           /* sequences below were answered for good */
    uint64_t last_active_ms;        /* log time */
    struct session_result *results; /* by ascending sequence */
    uint32_t count;
    uint32_t capacity;
};

void session_init(struct session *session);
void session_deinit(struct session *session);

enum session_verdict {
    SESSION_EXECUTE, /* never seen: run it, then session_record */
    SESSION_REPEAT,  /* seen: *result is the answer */
    SESSION_STALE,   /* below acked_below: ERR_SEQUENCE_STALE */
    SESSION_REUSED,  /* seen with another fingerprint: ERR_SEQUENCE_REUSED */
    SESSION_FULL,    /* over SESSION_OUTSTANDING_MAX: ERR_BUSY, not executed */
};
/* Raises acked_below first (forgetting what is below), then judges `sequence`. */
enum session_verdict session_check(struct session *session, uint64_t acked_below, uint64_t sequence,
                                   uint32_t fingerprint, uint64_t now_ms,
                                   const struct session_result **result);
void session_record(struct session *session, const struct session_result *result);
/* True when it may be forgotten: idle for SESSION_TTL_MS of log time. */
bool session_is_expired(const struct session *session, uint64_t now_ms);

void session_encode(const struct session *session, struct buf *out);
int session_decode(struct bytes bytes, struct session *out) MUST_USE; /* into an inited session */

#endif
