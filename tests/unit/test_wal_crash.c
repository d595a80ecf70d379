/* Power loss at every step, and a random life with crashes and failing calls. After each recovery
 * the log must hold one of the states it went through, at or after the last one that was made
 * durable. A failure prints the seed; `test_wal_crash SEED` runs that one alone. */
#include "base/log.h"
#include "unit/wal_test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STATES_MAX     400u
#define LIFE_INDEX_MAX 3000u
#ifndef LIFE_SEEDS
#define LIFE_SEEDS 600u
#endif
#define LIFE_CRASHES      12u
#define SWEEP_STEPS       90u
#define OPEN_ATTEMPTS_MAX 20u

struct life {
    uint64_t seed;
    struct rng rng;
    struct fake_vfs *fake;
    struct wal *wal;
    struct wal_recovery recovery;
    struct wal_model
        *states; /* one after each operation that changes the log, the one under way included */
    size_t state_count;
    size_t floor; /* states before it may not come back */
    uint64_t opens;
    uint64_t recoveries_behind; /* how often something not synced was lost */
    uint64_t tails_cut;
};

static struct wal_model *life_now(struct life *life)
{
    return &life->states[life->state_count - 1];
}

/* A copy of the newest state, to be changed into the next one. */
static struct wal_model *life_push(struct life *life)
{
    assert_true(life->state_count < STATES_MAX);
    life->states[life->state_count] = *life_now(life);
    life->state_count++;
    return life_now(life);
}

static void life_fail(const struct life *life, const char *what)
{
    fail_msg("%s (replay: test_wal_crash %llu)", what, (unsigned long long)life->seed);
}

/* Opens, however often power is lost while opening. */
static void life_open(struct life *life)
{
    struct raft_membership bootstrap = wal_test_membership(7);
    char why[WAL_TEST_WHY_BYTES];
    for (unsigned attempt = 0; attempt < OPEN_ATTEMPTS_MAX; attempt++) {
        if (rng_chance(&life->rng, 1, 3)) {
            fake_vfs_halt_at(life->fake, rng_between(&life->rng, 1, 12));
        }
        struct wal_options options = wal_test_options(life->seed * 1000 + life->opens++);
        int error = wal_open(fake_vfs_vfs(life->fake), WAL_TEST_DIR, &options, &bootstrap, 8000,
                             &life->wal, &life->recovery, why, sizeof(why));
        bool halted = fake_vfs_is_halted(life->fake);
        fake_vfs_halt_at(life->fake, 0);
        if (error == ERR_OK && !halted) {
            return;
        }
        if (error == ERR_OK) {
            wal_recovery_free(&life->recovery);
            wal_close(life->wal);
        } else if (!halted) {
            life_fail(life, why);
        }
        fake_vfs_crash(life->fake, &life->rng);
    }
    life_fail(life, "never opened");
}

/* What is there must be a state it went through, not before the floor; life goes on from it. */
static void life_check(struct life *life)
{
    struct wal_model *found = &life->states[STATES_MAX];
    wal_test_read_model(life->wal, &life->recovery, found);
    size_t at = life->state_count;
    while (at > life->floor && !wal_model_equal(found, &life->states[at - 1])) {
        at--;
    }
    if (at == life->floor) {
        printf("found base %llu last %llu.%llu, floor last %llu.%llu, newest last %llu.%llu\n",
               (unsigned long long)found->base.index, (unsigned long long)found->last.index,
               (unsigned long long)found->last.term,
               (unsigned long long)life->states[life->floor].last.index,
               (unsigned long long)life->states[life->floor].last.term,
               (unsigned long long)life_now(life)->last.index,
               (unsigned long long)life_now(life)->last.term);
        life_fail(life, "recovered what was never written, or lost what was synced");
    }
    life->recoveries_behind += at < life->state_count;
    life->tails_cut += life->recovery.torn_bytes_cut > 0;
    wal_test_expect(life->wal, &life->recovery, found);
    life->states[0] = *found;
    life->state_count = 1;
    life->floor = 0;
}

static void life_crash(struct life *life, enum fake_crash how)
{
    wal_recovery_free(&life->recovery);
    wal_close(life->wal);
    fake_vfs_crash_as(life->fake, how, &life->rng);
    life_open(life);
    life_check(life);
}

static int life_write(struct life *life)
{
    const struct wal_model *before = life_now(life);
    struct wal_model *after = life_push(life);
    uint64_t truncate_from = 0;
    uint64_t term = after->last.term > 0 ? after->last.term : 1;
    if (rng_chance(&life->rng, 1, 5) && before->last.index > before->base.index) {
        uint64_t length = before->last.index - before->base.index;
        truncate_from = before->last.index - rng_below(&life->rng, length < 30 ? length : 30);
        term++;
    } else if (rng_chance(&life->rng, 1, 10)) {
        term++;
    }
    wal_model_append(after, truncate_from, (size_t)rng_below(&life->rng, 9), term);
    if (rng_chance(&life->rng, 1, 3)) {
        /* A term never goes back, and its vote is given once. */
        uint64_t voted_for = after->hard_state.voted_for;
        uint64_t hard_term = after->hard_state.term + rng_below(&life->rng, 2);
        if (hard_term > after->hard_state.term || voted_for == 0) {
            voted_for = rng_below(&life->rng, 3);
        }
        wal_model_hard_state(after, hard_term, voted_for);
    }
    return wal_test_write(life->wal, before, after, truncate_from);
}

static int life_compact(struct life *life)
{
    struct wal_model *after = life_push(life);
    if (after->last.index == after->base.index) {
        return ERR_OK;
    }
    uint64_t member = rng_between(&life->rng, 1, 100);
    wal_model_compact(after, rng_between(&life->rng, after->base.index + 1, after->last.index),
                      member);
    struct raft_membership membership = wal_test_membership(member);
    int error = wal_compact(life->wal, after->base, &membership);
    if (error == ERR_OK) {
        life->floor = life->state_count - 1;
    }
    return error;
}

static int life_reset(struct life *life)
{
    struct wal_model *after = life_push(life);
    uint64_t member = rng_between(&life->rng, 1, 100);
    bool keep = rng_chance(&life->rng, 1, 2);
    uint64_t index = rng_between(&life->rng, after->base.index + 1, after->last.index + 20);
    uint64_t term = index <= after->last.index ? after->terms[index] : after->last.term + 1;
    if (rng_chance(&life->rng, 1, 3)) {
        term = after->last.term + 1;
    }
    struct raft_position position = {index, term};
    if (keep && index <= after->last.index && after->terms[index] == term) {
        wal_model_compact(after, index, member);
    } else {
        wal_model_reset(after, position, member);
    }
    struct raft_membership membership = wal_test_membership(member);
    int error = wal_reset(life->wal, position, &membership, keep);
    if (error == ERR_OK) {
        life->floor = life->state_count - 1;
    }
    return error;
}

static int life_read(struct life *life)
{
    const struct wal_model *now = life_now(life);
    if (now->last.index == now->base.index) {
        return ERR_OK;
    }
    struct raft_entry *entries;
    size_t count;
    uint64_t from = rng_between(&life->rng, now->base.index + 1, now->last.index);
    int error =
        wal_read(life->wal, from, UINT64_MAX, rng_below(&life->rng, 20000), &entries, &count);
    if (error != ERR_OK) {
        return error;
    }
    assert_true(count > 0);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(entries[i].position.index, from + i);
        assert_int_equal(entries[i].position.term, now->terms[from + i]);
        struct raft_entry expected = wal_test_entry(entries[i].position);
        assert_true(bytes_equal(entries[i].data, expected.data));
        blob_unref(expected.owner);
    }
    wal_entries_free(entries, count);
    return ERR_OK;
}

/* One operation of the log. An error must come from the disk. */
static int life_step(struct life *life)
{
    uint64_t what = rng_below(&life->rng, 100);
    int error;
    if (what < 60) {
        error = life_write(life);
    } else if (what < 80) {
        error = wal_sync(life->wal);
        if (error == ERR_OK) {
            life->floor = life->state_count - 1;
        }
    } else if (what < 87) {
        error = life_compact(life);
    } else if (what < 89) {
        error = life_reset(life);
    } else if (what < 95) {
        error = wal_prepare_spares(life->wal);
    } else {
        error = life_read(life);
    }
    return error;
}

static void life_begin(struct life *life, uint64_t seed)
{
    *life = (struct life){.seed = seed};
    rng_init(&life->rng, seed);
    life->fake = wal_test_disk(seed);
    life->states = mem_calloc(STATES_MAX + 1, sizeof(*life->states));
    wal_model_init(&life->states[0]);
    life->states[0].base_member = 7;
    life->state_count = 1;
    life_open(life);
}

static void life_end(struct life *life)
{
    wal_recovery_free(&life->recovery);
    wal_close(life->wal);
    fake_vfs_destroy(life->fake);
    free(life->states);
}

static bool life_is_over(const struct life *life)
{
    return life->states[life->state_count - 1].last.index > LIFE_INDEX_MAX;
}

/* ---- every step ---- */

/* The same life each time, cut short in place of its n-th step. False: it has no n-th step. */
static bool sweep_one(uint64_t nth, enum fake_crash how, uint64_t *tails_cut)
{
    struct life life;
    life_begin(&life, 4711);
    rng_init(&life.rng, 99); /* what opening drew must not matter */
    fake_vfs_halt_at(life.fake, nth);
    int error = ERR_OK;
    for (unsigned i = 0; i < SWEEP_STEPS && error == ERR_OK && !fake_vfs_is_halted(life.fake);
         i++) {
        error = life_step(&life);
    }
    bool reached = fake_vfs_is_halted(life.fake);
    rng_init(&life.rng, nth);
    life_crash(&life, how);
    for (unsigned i = 0; i < 10; i++) {
        assert_int_equal(life_write(&life), ERR_OK);
    }
    assert_int_equal(wal_sync(life.wal), ERR_OK);
    life.floor = life.state_count - 1;
    life_crash(&life, FAKE_CRASH_LOSE);
    *tails_cut += life.tails_cut;
    life_end(&life);
    return reached;
}

static void sweep(enum fake_crash how, bool cuts_tails)
{
    uint64_t nth = 1;
    uint64_t tails_cut = 0;
    while (sweep_one(nth, how, &tails_cut)) {
        nth++;
        assert_true(nth < 2000);
    }
    assert_true(nth > 100);
    if (cuts_tails) {
        assert_true(tails_cut > 0);
    }
}

static void test_crash_at_every_step_process_killed_recovers(void **state)
{
    (void)state;
    sweep(FAKE_CRASH_KEEP, false);
}

static void test_crash_at_every_step_all_unsynced_lost_recovers(void **state)
{
    (void)state;
    sweep(FAKE_CRASH_LOSE, false);
}

static void test_crash_at_every_step_sectors_torn_recovers(void **state)
{
    (void)state;
    sweep(FAKE_CRASH_TEAR, true);
}

static void test_crash_at_every_step_prefix_of_writes_recovers(void **state)
{
    (void)state;
    sweep(FAKE_CRASH_PREFIX, true);
}

/* ---- random lives ---- */

static void life_plan_fault(struct life *life)
{
    static const enum fake_op ops[] = {FAKE_WRITE,  FAKE_SYNC,     FAKE_RENAME,
                                       FAKE_REMOVE, FAKE_SYNC_DIR, FAKE_CREATE};
    switch (rng_below(&life->rng, 3)) {
    case 0:
        fake_vfs_halt_at(life->fake, rng_between(&life->rng, 1, 60));
        break;
    case 1: {
        enum fake_op op = ops[rng_below(&life->rng, sizeof(ops) / sizeof(ops[0]))];
        int error = rng_chance(&life->rng, 1, 4) ? ERR_NO_SPACE : ERR_IO;
        fake_vfs_fail(life->fake, op, rng_between(&life->rng, 1, 8), error);
        break;
    }
    default:
        break; /* an orderly stop, or a kill between two operations */
    }
}

static void life_run(uint64_t seed, uint64_t *behind, uint64_t *tails_cut)
{
    struct life life;
    life_begin(&life, seed);
    for (unsigned crash = 0; crash < LIFE_CRASHES && !life_is_over(&life); crash++) {
        life_plan_fault(&life);
        uint64_t steps = rng_between(&life.rng, 1, 60);
        int error = ERR_OK;
        for (uint64_t i = 0; i < steps && error == ERR_OK && !life_is_over(&life); i++) {
            error = life_step(&life);
        }
        if (error != ERR_OK && !fake_vfs_is_halted(life.fake) &&
            fake_vfs_fault_count(life.fake) == 0) {
            life_fail(&life, err_name(error));
        }
        life_crash(&life, FAKE_CRASH_ANY);
    }
    *behind += life.recoveries_behind;
    *tails_cut += life.tails_cut;
    life_end(&life);
}

static uint64_t only_seed; /* from the command line; 0: all */

static void test_random_lives_recover_what_was_synced(void **state)
{
    (void)state;
    uint64_t behind = 0;
    uint64_t tails_cut = 0;
    for (uint64_t seed = 1; seed <= LIFE_SEEDS; seed++) {
        life_run(only_seed != 0 ? only_seed : seed, &behind, &tails_cut);
        if (only_seed != 0) {
            return;
        }
    }
    /* The test is worth something only if these happened. */
    assert_true(behind > 10);
    assert_true(tails_cut > 10);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest random_only[] = {
        cmocka_unit_test(test_random_lives_recover_what_was_synced),
    };
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_crash_at_every_step_process_killed_recovers),
        cmocka_unit_test(test_crash_at_every_step_all_unsynced_lost_recovers),
        cmocka_unit_test(test_crash_at_every_step_sectors_torn_recovers),
        cmocka_unit_test(test_crash_at_every_step_prefix_of_writes_recovers),
        cmocka_unit_test(test_random_lives_recover_what_was_synced),
    };
    log_set_level(LOG_ERROR);
    if (argc > 1) {
        only_seed = strtoull(argv[1], NULL, 10);
        return cmocka_run_group_tests(random_only, NULL, NULL);
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
