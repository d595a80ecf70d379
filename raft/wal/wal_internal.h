/* What the files of raft/wal share. Nothing outside the room includes this. */
#ifndef RAFT_WAL_WAL_INTERNAL_H
#define RAFT_WAL_WAL_INTERNAL_H

#include "base/rng.h"
#include "raft/wal/wal.h"
#include "raft/wal/wal_format.h"
#include "raft/wal/wal_index.h"

#include <pthread.h>

#define WAL_SPARES_MAX        8u
#define WAL_SEGMENT_BYTES_MIN (64u * 1024u)
#define WAL_WRITE_CHUNK_BYTES (1024u * 1024u) /* larger groups go out in several writes */
#define WAL_STREAM_BYTES      (256u * 1024u)  /* window of recovery */
#define WAL_READ_WINDOW_BYTES                                                                      \
    (64u * 1024u) /* window of wal_read; larger payloads are read in place */
#define WAL_PREWRITE_SYNC_BYTES                                                                    \
    (4u * 1024u * 1024u) /* of a spare; small, so that a commit's sync never waits long            \
                            behind it */
#define WAL_NAME_BYTES_MAX 32u
#define WAL_BASE_NAME      "base"
#define WAL_SEGMENT_SUFFIX ".wal"
#define WAL_SPARE_SUFFIX   ".spare"
#define WAL_MAKING_SUFFIX  ".making"

struct wal_segment {
    struct wal_segment_header header;
    struct vfs_file *file;
    uint64_t end;          /* behind the last group; under wal.lock while the segment is active */
    uint32_t reader_count; /* under wal.lock; recycled only at 0 */
    bool grows;            /* made while a write waited: its blocks were not there before */
};

struct wal_spare {
    uint64_t number; /* in its name */
    struct vfs_file *file;
};

struct wal {
    /* Set by open, constant. */
    const struct vfs *vfs;
    char *dir;
    struct wal_options options;

    /* Owner thread only. */
    struct rng rng;
    struct raft_hard_state hard_state;
    struct raft_membership membership; /* in force at base */
    uint64_t durable_to;               /* in the active segment */
    bool mark_owed;                    /* synced since the newest mark */
    struct buf staging;

    pthread_mutex_t lock; /* everything below */
    int failed;           /* the first final error; 0: none */
    struct wal_index index;
    struct wal_segment **segments; /* by ascending, consecutive sequence; the last one is active */
    size_t segment_count;
    size_t segment_capacity;
    struct wal_segment **retired; /* not part of the log any more, still held by a reader */
    size_t retired_count;
    size_t retired_capacity;
    struct wal_spare spares[WAL_SPARES_MAX];
    uint32_t spare_count;
    uint32_t spares_in_making;
    uint64_t next_spare_number;
    uint64_t sync_count;
    uint64_t inline_segment_count;
};

/* ---- wal_segment.c ---- */

int wal__path(const struct wal *wal, const char *name, char path[VFS_PATH_BYTES_MAX]) MUST_USE;
void wal__name(char name[WAL_NAME_BYTES_MAX], uint64_t number, const char *suffix);
/* "<16 lower-case hex digits><suffix>" */
bool wal__name_parse(const char *name, const char *suffix, uint64_t *number);

struct wal_segment *wal__active(struct wal *wal); /* owner thread, or under lock */
void wal__segments_push(struct wal *wal, struct wal_segment *segment); /* takes; under lock */

/* A new file under the next sequence's name, with its header written (not synced) and its name
 * durable. Not in the table yet. `group_bytes`: what its first group needs. gives *out. */
int wal__segment_begin(struct wal *wal, uint64_t group_bytes, uint64_t sequence, uint32_t flags,
                       struct raft_position start, struct wal_segment **out) MUST_USE;
void wal__segment_destroy(struct wal *wal, struct wal_segment *segment); /* takes; NULL is fine */

/* Takes segments below `sequence` out of the table; recycles those no reader holds. */
int wal__segments_retire(struct wal *wal, uint64_t sequence) MUST_USE;
/* A segment's file that is not part of the log (open found it): becomes a spare or goes. takes
 * `file` (may be NULL). */
int wal__file_recycle(struct wal *wal, const char *name, struct vfs_file *file, uint64_t file_bytes,
                      bool whole) MUST_USE;
/* Zeroes from `from` to `to`. */
int wal__write_zeroes(const struct vfs *vfs, struct vfs_file *file, uint64_t from, uint64_t to,
                      uint64_t sync_every) MUST_USE;

/* ---- wal_write.c ---- */

/* Remembers the first final error; returns `error`. */
int wal__fail(struct wal *wal, int error) MUST_USE;
int wal__failed(struct wal *wal) MUST_USE;
int wal__write_mark(struct wal *wal) MUST_USE;
int wal__base_write(struct wal *wal, struct raft_position position, uint64_t first_sequence,
                    const struct raft_membership *membership) MUST_USE;

/* ---- wal_stream.c ---- */

/* A file seen through a window. Behind the end of the file there are zeroes: a file that was cut
 * short then ends as a log does. */
struct wal_stream {
    const struct vfs *vfs;
    struct vfs_file *file;
    uint8_t *window;
    size_t window_bytes;
    uint64_t window_at;
    size_t window_count; /* valid bytes; 0: nothing read yet */
};

void wal__stream_init(struct wal_stream *stream, const struct vfs *vfs, size_t window_bytes);
void wal__stream_deinit(struct wal_stream *stream);
void wal__stream_seek(struct wal_stream *stream, struct vfs_file *file);
/* `size` <= window_bytes bytes from `offset`; good until the next call. */
int wal__stream_view(struct wal_stream *stream, uint64_t offset, size_t size,
                     const uint8_t **out) MUST_USE;
/* Extends *crc by bytes [offset, offset + size). */
int wal__stream_crc(struct wal_stream *stream, uint64_t offset, uint64_t size,
                    uint32_t *crc) MUST_USE;

/* The group at `offset`: checks everything in it. *valid says whether all of it holds; if not,
 * *bad_at is the offset of the group or record that does not, and *what says why (static storage).
 */
struct wal_group_check {
    struct wal_group_header header;
    bool header_valid;
    bool valid;
    uint64_t bad_at;
    const char *what;
};
int wal__stream_check_group(struct wal_stream *stream, const struct wal_segment_header *segment,
                            uint64_t offset, uint64_t entry_bytes_max,
                            struct wal_group_check *out) MUST_USE;

/* ---- wal_replay.c ---- */

/* Rebuilds the index and what wal_recovery tells, group by group. See wal_format.md, "Replay". */
struct wal_replay {
    struct wal_base base;
    struct wal_index *index;
    uint64_t tail_bytes_max;
    struct raft_position last; /* virtual: with dead and dropped entries; term 0: not known */
    uint64_t missing_until; /* entries (base, missing_until] are not here, and must turn out dead */
    uint64_t base_term;     /* of the entry now at the base's index */
    struct raft_hard_state hard_state;
    struct raft_membership *memberships;
    size_t membership_count;
    size_t membership_capacity;
    uint32_t *tail_sizes; /* payloads of the newest entries, [tail_head, tail_end) */
    size_t tail_head;
    size_t tail_end;
    size_t tail_capacity;
    uint64_t tail_bytes;
    const char *what; /* why the last step failed with ERR_CORRUPT */
    uint64_t bad_at;
};

void wal__replay_init(struct wal_replay *replay, const struct wal_base *base,
                      struct wal_index *index, uint64_t tail_bytes_max, struct raft_position start);
void wal__replay_deinit(struct wal_replay *replay);
/* A group that was checked. ERR_CORRUPT: what and bad_at say what no writer would have written. */
int wal__replay_group(struct wal_replay *replay, struct wal_stream *stream,
                      const struct wal_segment_header *segment, uint64_t offset,
                      const struct wal_group_header *group) MUST_USE;
/* After the last group: does the log hold what its base promises? ERR_CORRUPT with `what`. */
int wal__replay_finish(struct wal_replay *replay) MUST_USE;

#endif
