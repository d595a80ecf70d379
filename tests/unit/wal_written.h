/* A log that was written, and then met something: every state it went through is kept, so that a
 * test can tell which of them it was brought back to. What the tests of damage and of lost writes
 * share. */
#ifndef TESTS_UNIT_WAL_WRITTEN_H
#define TESTS_UNIT_WAL_WRITTEN_H

#include "unit/wal_test.h"

#define FIRST_SEGMENT  "/log/0000000000000001.wal"
#define SECOND_SEGMENT "/log/0000000000000002.wal"

/* A log on a disk, closed, with every state it went through. */
struct written {
    struct fake_vfs *fake;
    struct wal_model *states;
    size_t state_count;
    uint64_t opens;
};

struct written written_create(void);
void written_destroy(struct written *written);
struct wal_model *written_now(struct written *written); /* the newest state */

/* Opens it; it must open. */
struct wal *written_open(struct written *written, struct wal_recovery *recovery);
/* One group of `count` entries, which is not synced; `truncate_from` 0: nothing is cut. */
void written_append(struct written *written, struct wal *wal, uint64_t truncate_from, size_t count,
                    uint64_t term);
/* Groups of a few entries, one of them a truncation, each synced when `synced`. */
void written_fill(struct written *written, unsigned groups, size_t count, bool synced);

/* Opens a disk that may be damaged. ERR_CORRUPT: `why` names `file`, and nothing was changed. */
int damaged_open(struct fake_vfs *fake, const char *file, struct wal **wal,
                 struct wal_recovery *recovery);
void damaged_close(struct wal *wal, struct wal_recovery *recovery);

/* Which of the states it is, counted back from the newest (0); fails the test when it is none. */
size_t written_states_behind(const struct written *written, struct wal *wal,
                             const struct wal_recovery *recovery);

/* Where the groups of a segment end, as its bytes say. */
uint64_t segment_end(struct fake_vfs *fake, const char *path);

#endif
