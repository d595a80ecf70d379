/* What the log's tests share: entries whose payload follows from their position, a model of what
 * the log should hold, and checks of one against the other. */
#ifndef TESTS_UNIT_WAL_TEST_H
#define TESTS_UNIT_WAL_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above before it */
#include <cmocka.h>

#include "base/rng.h"
#include "lib/fake_vfs.h"
#include "raft/wal/wal.h"

#define WAL_TEST_DIR       "/log"
#define WAL_TEST_WHY_BYTES 1024u
#define WAL_TEST_MODEL_MAX 4096u

/* What the log should hold. Term 0: no such entry. */
struct wal_model {
    struct raft_position base;
    struct raft_position last;
    uint64_t terms[WAL_TEST_MODEL_MAX]; /* by index */
    struct raft_hard_state hard_state;
    uint64_t base_member; /* id in the membership at the base; 0: the empty one */
};

void wal_model_init(struct wal_model *model);
void wal_model_append(struct wal_model *model, uint64_t truncate_from, size_t count, uint64_t term);
void wal_model_hard_state(struct wal_model *model, uint64_t term, uint64_t voted_for);
void wal_model_compact(struct wal_model *model, uint64_t index, uint64_t member);
void wal_model_reset(struct wal_model *model, struct raft_position position, uint64_t member);
bool wal_model_equal(const struct wal_model *a, const struct wal_model *b);

/* The entry that belongs at a position: kind, size (0 .. ~3000) and bytes follow from it. Free with
 * blob_unref(owner). */
struct raft_entry wal_test_entry(struct raft_position position);
struct raft_membership wal_test_membership(uint64_t member);

struct wal_options wal_test_options(uint64_t seed);

/* Writes the difference between the model before and after as one group: truncation, entries, hard
 * state. */
int wal_test_write(struct wal *wal, const struct wal_model *before, const struct wal_model *after,
                   uint64_t truncate_from) MUST_USE;

/* Opens and fails the test with the reason when it does not. */
struct wal *wal_test_open(struct fake_vfs *fake, uint64_t seed, uint64_t tail_bytes_max,
                          struct wal_recovery *recovery);

/* Fills a model with what the log holds, checking every entry's bytes on the way; fails the test on
 * a wrong one. */
void wal_test_read_model(struct wal *wal, const struct wal_recovery *recovery,
                         struct wal_model *out);
/* Fails the test unless the log holds what the model says. */
void wal_test_expect(struct wal *wal, const struct wal_recovery *recovery,
                     const struct wal_model *model);
/* A fake disk with an empty WAL_TEST_DIR, its name durable. */
struct fake_vfs *wal_test_disk(uint64_t seed);

#endif
