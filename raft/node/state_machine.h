/* What a replicated state machine gives the node. Deterministic: apply reads no clock, no
 * randomness, no local configuration; a time it needs is in the command. The node calls `apply`,
 * `restore` and what it passes as read callbacks on the apply thread only; `flush`, `snapshot_*` on
 * the background thread, at the same time as apply. */
#ifndef RAFT_NODE_STATE_MACHINE_H
#define RAFT_NODE_STATE_MACHINE_H

#include "base/bytes.h"
#include "base/error.h"
#include "raft/core/types.h"

/* One command of the log. Many commands share one log entry. */
struct sm_command {
    struct raft_position position;
    /* log time: never goes back along the log, never jumps with a machine's clock */
    uint64_t time_ms;
    struct bytes payload; /* as proposed */
    struct buf *result;   /* append the answer here; NULL when nobody waits on this replica */
};

/* Commands of consecutive entries, to be applied as one atomic batch together with `last`. There
 * may be none (entries that are Raft's own): `last` must be recorded all the same. */
struct sm_batch {
    const struct sm_command *commands;
    size_t count;
    struct raft_position last;
};

struct sm_snapshot_reader; /* the state machine's, opaque to the node */
struct sm_snapshot_writer;

struct state_machine_ops {
    /* All of the batch or none survives a crash, with `last`. An error is final: the node stops the
     * process. */
    int (*apply)(void *sm, const struct sm_batch *batch);
    /* What is applied in memory right now / what of it would survive a crash. Position {0,0} at
     * first. */
    struct raft_position (*applied)(void *sm);
    struct raft_position (*durable)(void *sm);
    /* Makes everything applied before the call durable; may take long. */
    int (*flush)(void *sm);

    /* A snapshot as one stream of bytes, consistent at the *position it gives (at least what was
     * applied when it was called). `dir` is empty and the state machine's to use until
     * snapshot_close; the node removes it after. */
    int (*snapshot_open)(void *sm, const char *dir, struct raft_position *position,
                         uint64_t *size_bytes, struct sm_snapshot_reader **out);
    int (*snapshot_read)(struct sm_snapshot_reader *reader, uint64_t offset, uint8_t *data,
                         size_t size);
    void (*snapshot_close)(struct sm_snapshot_reader *reader);

    /* The other side: bytes arrive in order into `dir` (empty at first), written but durable only
     * after `finish`, which verifies every checksum of the stream: ERR_CORRUPT throws it away.
     * Then, on the apply thread or before the node starts, `restore` replaces the whole state by
     * what `dir` holds, atomically: after a crash at any point either the old state is there and
     * `dir` is still complete, or the new one is. Restoring twice is harmless. */
    int (*receive_open)(void *sm, const char *dir, struct sm_snapshot_writer **out);
    int (*receive_write)(struct sm_snapshot_writer *writer, struct bytes bytes);
    /* the writer stays until receive_close */
    int (*receive_finish)(struct sm_snapshot_writer *writer);
    void (*receive_close)(struct sm_snapshot_writer *writer);
    int (*restore)(void *sm, const char *dir);

    /* A checksum of the whole state, equal on all replicas at equal `position`. Background thread;
     * scans all. */
    int (*hash)(void *sm, uint64_t *hash, struct raft_position *position);
};

struct state_machine {
    const struct state_machine_ops *ops;
    void *sm;
};

#endif
