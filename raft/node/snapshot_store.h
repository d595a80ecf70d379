/* The folder `snapshot` of a replica: streams on their way out, streams that arrive, and complete
 * ones that wait to be restored.
 *
 *     snapshot/out-<id>/            made by the state machine for being sent; gone when no longer
 *                                   needed
 *     snapshot/in-<id>/             arriving
 *              data/                the state machine's receive folder
 *              meta                 written when everything arrived and was checked
 *     snapshot/ready-<index>-<id>/  an in-<id> that was complete and durable, renamed
 *
 * A rename decides: what is named ready-* is whole. Everything else is left over from a crash and
 * is deleted at start. There may be two ready ones for a moment (a second snapshot arrives while
 * the first is being restored); the one with the larger index counts.
 *
 * Stream: SNAPSHOT_HEADER_BYTES of ours, then the state machine's bytes.
 *     u32 magic "SKVS", u32 version = 1, u64 log_time_ms, u32 zero, u32 crc32c of the bytes before
 *
 * File meta:
 *     8 bytes magic "SKVSMETA", u32 crc32c of all that follows, u32 version = 1
 *     u64 index, u64 term, u64 id, u64 size_bytes, u64 log_time_ms, u64 index, u64 term (of the
 *     membership), sized membership
 *
 * All functions block on the disk; one thread at a time for one staging. */
#ifndef RAFT_NODE_SNAPSHOT_STORE_H
#define RAFT_NODE_SNAPSHOT_STORE_H

#include "base/vfs.h"
#include "raft/node/state_machine.h"

enum { SNAPSHOT_HEADER_BYTES = 24 };

void snapshot_header_encode(uint64_t log_time_ms, uint8_t out[SNAPSHOT_HEADER_BYTES]);
int snapshot_header_decode(const uint8_t header[SNAPSHOT_HEADER_BYTES],
                           uint64_t *log_time_ms) MUST_USE;

/* ---- arriving ---- */

struct snapshot_staging {
    const struct vfs *vfs;
    const struct state_machine *sm;
    const char *dir; /* the folder `snapshot` */
    bool active;
    uint64_t id;
    uint64_t next_offset;
    bool corrupt; /* what came is not a stream; said when it is finished */
    uint8_t header[SNAPSHOT_HEADER_BYTES];
    uint64_t log_time_ms;
    struct sm_snapshot_writer *writer;
    char path[VFS_PATH_BYTES_MAX]; /* of in-<id> */
};

void snapshot_staging_init(struct snapshot_staging *staging, const struct vfs *vfs,
                           const struct state_machine *sm, const char *dir);
/* Closes what is open; what lies on the disk is deleted by the next start. */
void snapshot_staging_deinit(struct snapshot_staging *staging);
/* The next bytes. Offset 0 begins a new one and drops any other. ERR_INVALID: not the next bytes of
 * what is arriving; others from the disk. Bytes that make no sense are remembered and told by
 * finish. */
int snapshot_staging_write(struct snapshot_staging *staging, uint64_t id, uint64_t offset,
                           struct bytes bytes) MUST_USE;
/* All bytes are there: has the state machine check them, makes them durable and ready to be
 * restored. gives *path (free), the ready folder. ERR_CORRUPT: not intact, thrown away. */
int snapshot_staging_finish(struct snapshot_staging *staging, const struct raft_snapshot *snapshot,
                            char **path) MUST_USE;

/* ---- ready ---- */

struct snapshot_ready {
    struct raft_snapshot snapshot;
    uint64_t log_time_ms;
    char path[VFS_PATH_BYTES_MAX];
};

/* At start: deletes what is left over and finds the newest ready one. ERR_NOT_FOUND: there is none.
 * ERR_CORRUPT: `why` names it. */
int snapshot_store_open(const struct vfs *vfs, const char *dir, struct snapshot_ready *out,
                        char *why, size_t why_size) MUST_USE;
/* Has the state machine restore what is ready at `path`. The folder stays. */
int snapshot_store_restore(const struct state_machine *sm, const char *path) MUST_USE;
/* Deletes a ready folder, durably: renamed first, so that a crash in the middle leaves nothing that
 * looks whole. */
int snapshot_store_remove_ready(const struct vfs *vfs, const char *dir, const char *path) MUST_USE;
/* Deletes any other folder of the store, durably. */
int snapshot_store_remove(const struct vfs *vfs, const char *dir, const char *path) MUST_USE;

/* ---- leaving ---- */

/* Makes the empty folder out-<id>. gives *path (free). */
int snapshot_store_make_out(const struct vfs *vfs, const char *dir, uint64_t id,
                            char **path) MUST_USE;

#endif
