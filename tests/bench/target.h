/* What is measured, behind one face: a shardkv cluster through libshardkv or by single calls, or
 * etcd. One target is one client with connections and a completion thread of its own.
 *
 * `start` runs `done` exactly once when it returned ERR_OK, on the target's thread, never on the
 * caller's stack and never otherwise; starting more from it is allowed. Key and value stay the
 * caller's and must live until then. */
#ifndef TESTS_BENCH_TARGET_H
#define TESTS_BENCH_TARGET_H

#include "base/bytes.h"
#include "base/error.h"
#include "bench/options.h"

struct target_command {
    enum bench_kind kind;
    struct bytes key;
    struct bytes value;
    uint64_t expected;    /* CAS */
    uint64_t deadline_ns; /* monotonic */
};

/* error: ERR_OK, ERR_NOT_FOUND and ERR_VERSION_MISMATCH are executed and answered; others are
 * failures, and `unknown` says that it may have been executed or may yet be. */
struct target_answer {
    int error;
    bool unknown;
    uint64_t version;
};
typedef void (*target_done_fn)(void *context, const struct target_answer *answer);

struct target;
struct target_table {
    int (*start)(struct target *target, const struct target_command *command, target_done_fn done,
                 void *context);
    uint64_t (*retries)(struct target *target);
    void (*destroy)(struct target *target); /* takes; nothing is under way */
};
struct target {
    const struct target_table *table; /* first member of each */
};

/* give *out, or say in `why` what failed. */
int target_library_create(const struct bench_options *options, struct target **out, char *why,
                          size_t why_size) MUST_USE;
int target_unary_create(const struct bench_options *options, struct target **out, char *why,
                        size_t why_size) MUST_USE;
int target_create(const struct bench_options *options, struct target **out, char *why,
                  size_t why_size) MUST_USE;

#endif
