/* The segmented, checksummed log on disk. Its format stands as prose in raft/wal/wal_format.md.
 *
 * One owner thread (the node's persist thread) for everything but wal_read, wal_prepare_spares and
 * wal_stats, which any thread may call at the same time (until wal_close). All I/O goes through the
 * injected vfs. A failed write or sync is final: the call returns the error, the log refuses
 * everything after it with ERR_IO, and the process must stop; it never retries (after a failed
 * fsync the kernel may have dropped the pages). ERR_NO_SPACE from wal_write is likewise final for
 * this process run, but nothing acknowledged is lost and a restart recovers.
 *
 *      base                                      last
 *       |  entries base.index+1 .. last.index     |
 *   [segment 7][segment 8][segment 9 active.....zeroes]   [spare, prewritten]
 *
 * Segments are written over files whose blocks are there already (prewritten with zeroes, or
 * recycled), so that a sync does not commit a journal transaction for new ones: 90 us against 140
 * us, wal_format.md, "Measured". */
#ifndef RAFT_WAL_WAL_H
#define RAFT_WAL_WAL_H

#include "base/error.h"
#include "base/vfs.h"
#include "raft/core/types.h"

struct wal;

struct wal_options {
    uint64_t segment_bytes;   /* default 64 MiB in real life; small in tests; >= 64 KiB */
    uint32_t spare_segments;  /* prewritten ahead, 1..8 */
    uint32_t recycled_max;    /* kept as spares when the log no longer needs them: as many as fall
                                 free at once, or they are written anew; spare_segments..8 */
    uint64_t entry_bytes_max; /* larger records are refused (write) and taken as damage (read) */
    bool prewrite;            /* false in the simulator */
    uint64_t seed; /* of the segments' salts; 0: from the system. The simulator gives another one at
                      every open: a salt that comes twice defeats its purpose */
};
struct wal_options wal_options_default(void);

/* What the log held when it was opened: what raft_core_create needs. The caller's; free with
 * wal_recovery_free. */
struct wal_recovery {
    bool fresh; /* no log was there; one was made */
    struct raft_hard_state hard_state;
    struct raft_position base;         /* the entry before the first one kept */
    struct raft_membership membership; /* in force at base; of a fresh log: the bootstrap one */
    struct raft_position last;
    struct raft_position *term_runs;
    size_t term_run_count;
    /* Entries of that kind in (base, last], decoded, in order. */
    struct raft_membership *memberships;
    size_t membership_count;
    /* The newest entries, at most tail_bytes_max, consecutive up to last. */
    struct raft_entry *tail;
    size_t tail_count;
    /* > 0: a torn tail was cut (physically, before anything is appended). */
    uint64_t torn_bytes_cut;
};

/* gives *out. Creates the log when the directory (which must exist) has none, with `bootstrap` (may
 * be NULL: empty) as the membership at {0,0}. A torn tail (a group that is incomplete or fails its
 * checksum, with nothing that was synced behind it) is cut. Damage to what was synced is
 * ERR_CORRUPT: `why` then says which file, which offset and what to do, and nothing was changed. */
int wal_open(const struct vfs *vfs, const char *dir, const struct wal_options *options,
             const struct raft_membership *bootstrap, uint64_t tail_bytes_max, struct wal **out,
             struct wal_recovery *recovery, char *why, size_t why_size) MUST_USE;
void wal_recovery_free(struct wal_recovery *recovery);
void wal_close(struct wal *wal); /* takes; syncs nothing: what matters was synced */

/* One atomic append: truncation (if any), entries, hard state (if any) become one record group:
 * after a crash all of it is there or none. Not durable until wal_sync. */
struct wal_append {
    uint64_t truncate_from; /* 0: none */
    const struct raft_entry *entries;
    size_t entry_count;
    const struct raft_hard_state *hard_state; /* NULL: unchanged */
};
int wal_write(struct wal *wal, const struct wal_append *append) MUST_USE;
int wal_sync(struct wal *wal) MUST_USE;
/* wal_sync in two steps, for whoever has something to tell between them: after the first all that
 * was written is durable; the second leaves the mark by which the next start knows that it was.
 * Without a first, or after another wal_write, the second does nothing. */
int wal_make_durable(struct wal *wal) MUST_USE;
int wal_mark(struct wal *wal) MUST_USE;

/* Makes segment files ahead until `spare_segments` wait, and recycles what a reader still held when
 * it was compacted away. Slow (it writes whole segments): for a background thread, after open and
 * whenever wal_stats says spare_count < spare_segments. wal_write takes a ready spare, and makes a
 * file that grows when there is none. Thread-safe. An error (ERR_NO_SPACE above all) is not final:
 * the log itself is untouched. */
int wal_prepare_spares(struct wal *wal) MUST_USE;

/* Forgets everything and starts after `position` (a snapshot was installed), durably, atomically.
 * Entries after `position` that are there with a matching entry at it are kept when keep_suffix. */
int wal_reset(struct wal *wal, struct raft_position position,
              const struct raft_membership *membership, bool keep_suffix) MUST_USE;

/* Entries up to `base.index` may go: whole segments below it are recycled; the new base and the
 * membership in force there are made durable first. */
int wal_compact(struct wal *wal, struct raft_position base,
                const struct raft_membership *membership) MUST_USE;

/* Reads entries [from, to_max] up to bytes_max (at least one). Only what was written and not
 * truncated since is valid to ask for. gives *entries (free with wal_entries_free) and each entry's
 * reference. ERR_NOT_FOUND: compacted away or beyond the end. ERR_CORRUPT: the disk lies. Any
 * thread. */
int wal_read(struct wal *wal, uint64_t from, uint64_t to_max, uint64_t bytes_max,
             struct raft_entry **entries, size_t *count) MUST_USE;
void wal_entries_free(struct raft_entry *entries, size_t count);

struct wal_stats {
    struct raft_position base;
    struct raft_position last;
    uint64_t log_bytes; /* of live segments */
    uint32_t segment_count;
    uint64_t sync_count;
    uint32_t spare_count;          /* ready to be used */
    uint64_t inline_segment_count; /* segments that had to be made while a write waited */
};
void wal_stats(struct wal *wal, struct wal_stats *out); /* any thread */

#endif
