/* The owner of one Raft core as its fuzz target needs it: it keeps core.h's contract over a disk in
 * memory, one write after another, each durable when the target says so.
 *
 * The core's own invariants are asserted after whatever it was given, and that commit never falls,
 * that nothing which was applied is cut from the disk, and that the disk starts a core again. */
#ifndef TESTS_FUZZ_CORE_HOST_H
#define TESTS_FUZZ_CORE_HOST_H

#include "base/bytes.h"
#include "raft/core/core.h"

enum { CORE_SENT_KEPT = 8 };

struct core_sent {
    struct raft_message message; /* without what it pointed at; a snapshot's names are in it */
    struct raft_position end;    /* of an APPEND's entries */
};

struct core_host {
    struct raft_core *core;
    struct raft_core_options options; /* the target's */
    bool sync_at_once;                /* the target's: each write before the next is taken */
    struct core_host_write *writes;
    size_t write_count;
    size_t write_capacity;
    /* durable */
    struct raft_hard_state hard_state;
    struct raft_snapshot base; /* log[0] is behind it */
    struct raft_entry *log;
    size_t log_count;
    size_t log_capacity;
    uint64_t staged_id;
    uint64_t staged_bytes;
    uint64_t applied;
    /* seen */
    uint64_t commit_seen;
    struct core_sent sent[CORE_SENT_KEPT]; /* newest last */
    size_t sent_count;
};

/* A core of what is on the disk: at first of `base` alone, which is the target's too. */
void core_host_start(struct core_host *host);
/* The core is gone, and what was not durable. */
void core_host_crash(struct core_host *host);
/* After the last crash: gives back what the disk holds. */
void core_host_deinit(struct core_host *host);

/* To be called after whatever the core was given; the functions here do it themselves. */
void core_host_check(struct core_host *host);
struct raft_status core_host_status(const struct core_host *host);
/* Takes what the core has to say until it says nothing: messages, writes, loads, what to apply. */
void core_host_collect(struct core_host *host);
/* Up to `count` writes become durable; an install in them is found `damaged`. */
void core_host_sync(struct core_host *host, size_t count, bool damaged);
/* The core was compacted: the log below its start goes from the disk. */
void core_host_forget(struct core_host *host);

#endif
