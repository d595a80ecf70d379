/* Histories with a known answer: clients over a store that is linearizable by construction, on
 * virtual time, from a seed; and ways to break one so that the break can be proved. For tests of
 * the checker. */
#ifndef TESTS_LIN_GENERATE_H
#define TESTS_LIN_GENERATE_H

#include "base/rng.h"
#include "lin/history_json.h"

struct lin_shape {
    uint64_t seed;
    size_t ops;
    uint32_t keys;
    uint32_t clients;
    /* Shares of the operations; what is left are gets. */
    uint32_t put_percent, append_percent, delete_percent, cas_percent;
    uint32_t info_per_mille;  /* of the writes: the outcome stays unknown; half of them take effect,
                                 perhaps much later */
    uint32_t stall_per_mille; /* of all: takes a hundred times as long as the others */
    uint32_t values; /* writes draw from so many values; 0: each write has a value or token that no
                        other has */
    bool versions;   /* tell versions, and let cas expect one */
    uint64_t think_ns_max; /* between a return and the next call; latencies are of the order of a
                              millisecond */
};

struct lin_made_op {
    struct lin_op op; /* returned_ns is also set where the outcome is unknown or a refusal: when the
                         client learnt so */
    enum lin_event_type outcome;
    uint32_t number;   /* of its unique token */
    bool removed;      /* by a mutation */
    bool seen_version; /* outcome LIN_FAIL of a cas: op.version is the present one */
};

struct lin_made {
    struct lin_made_op *ops; /* by call */
    size_t count;
    struct buf **bytes; /* what the ops point at */
    size_t bytes_count, bytes_capacity;
};

void lin_made_init(struct lin_made *made, const struct lin_shape *shape);
void lin_made_deinit(struct lin_made *made);
void lin_made_add_to(const struct lin_made *made, struct lin_history *history);
/* As JSON lines by time. */
void lin_made_write(const struct lin_made *made, struct buf *out);

/* Each changes the history so that it is surely not linearizable any more, and needs one with
 * unique values. */
enum lin_mutation {
    LIN_DROPPED_WRITE,  /* a write that somebody read never happened */
    LIN_STALE_READ,     /* a get reads what was replaced before it was called */
    LIN_DOUBLED_APPEND, /* a get reads a token twice */
    LIN_SWAPPED_READS,  /* of two gets, the first reads the newer value */
    LIN_EARLY_READ,     /* a get reads what is written only after it returned */
    LIN_LOST_APPEND,    /* a get misses a token that was there before its base was replaced */
    LIN_MUTATIONS,
};
const char *lin_mutation_name(enum lin_mutation mutation);
/* False: this history has no place for it; then nothing was changed. */
bool lin_made_mutate(struct lin_made *made, enum lin_mutation mutation, struct rng *rng);

#endif
