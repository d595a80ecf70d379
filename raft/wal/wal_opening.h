/* A log while it is being opened; shared by the wal_recover files. Nothing else includes this. */
#ifndef RAFT_WAL_WAL_OPENING_H
#define RAFT_WAL_WAL_OPENING_H

#include "raft/wal/wal_internal.h"

struct wal_numbers {
    uint64_t *numbers;
    size_t count;
    size_t capacity;
};

struct wal_opening {
    struct wal *wal;
    struct wal_numbers segments; /* ascending, as the directory lists them in byte order */
    struct wal_numbers spares;
    struct wal_numbers makings;
    struct wal_stream stream;
    struct wal_replay replay;
    struct wal_segment *dropped; /* the last file, when it turns out not to be part of the log */
    bool header_repair[2];       /* per copy, of the last segment looked at */
    uint64_t torn_bytes;
    uint64_t witnessed; /* the last segment was synced up to here, as its groups and mark say */
    char *why;
    size_t why_size;
};

/* ---- wal_recover.c ---- */

/* Fills `why`; returns `error`. */
int wal__refuse(struct wal_opening *opening, int error, const char *name, uint64_t offset,
                const char *what) MUST_USE;
int wal__refuse_segment(struct wal_opening *opening, int error, uint64_t sequence, uint64_t offset,
                        const char *what) MUST_USE;
int wal__opening_file(struct wal_opening *opening, uint64_t number, const char *suffix,
                      struct vfs_file **out) MUST_USE;

/* ---- wal_recover_scan.c: reads, changes nothing ---- */

/* Reads the header at the stream's file. *valid when one copy at least is good and names this
 * sequence. */
int wal__opening_header(struct wal_opening *opening, uint64_t sequence,
                        struct wal_segment_header *out, bool *valid) MUST_USE;
/* Opens segment `sequence` and appends it to the table; to opening->dropped when it has no valid
 * header. */
int wal__opening_segment(struct wal_opening *opening, uint64_t sequence, bool *valid) MUST_USE;
int wal__opening_check(struct wal_opening *opening, const struct wal_segment *segment,
                       uint64_t offset, struct wal_group_check *check) MUST_USE;
bool wal__segment_begins(const struct wal_segment *segment);
/* Opens every segment of the log, in order, and checks that they are consecutive and begin as they
 * should. */
int wal__opening_segments(struct wal_opening *opening, uint64_t first_sequence) MUST_USE;
/* Checks and replays all of them. */
int wal__opening_log(struct wal_opening *opening, const struct wal_base *base,
                     uint64_t tail_bytes_max) MUST_USE;

/* ---- wal_recover_settle.c: the log is good, now it is made ready ---- */

int wal__opening_settle(struct wal_opening *opening, uint64_t first_sequence) MUST_USE;
/* Spares that fit are kept; other spares and unfinished ones go. */
int wal__opening_spares(struct wal_opening *opening) MUST_USE;

#endif
