/* Numbered scenarios of the shard state machine: what its replicas and their snapshots have to
 * carry (docs/TESTING.md has the numbers; test_scenarios_moves.c has the ones about moves).
 * Whatever has to hold for replicas is checked on replicas of the same log that lived otherwise. */
#include "unit/kv_groups_fixture.h"

#include "base/log.h"
#include "proto/limits.h"
#include "shardkv/move_rows.h"

#include <stdio.h>

/* The first chunk of a pull, of few bytes, so that the pull is under way and not complete. */
static void first_chunk(struct kv_single *from, struct kv_single *to, uint32_t shard,
                        uint64_t number)
{
    struct kv_move_rows rows = {0};
    assert_int_equal(kv_move_read(from->replica.machine, shard, number, to->replica.group_id,
                                  BYTES_EMPTY, 1, &rows),
                     0);
    assert_false(rows.end);
    assert_int_equal(kv_single_run(to, &(struct kv_command){.kind = KV_COMMAND_CHUNK,
                                                            .shard = shard,
                                                            .number = number,
                                                            .last_row = buf_view(&rows.last_row),
                                                            .rows = buf_view(&rows.rows)}),
                     0);
    buf_deinit(&rows.rows);
    buf_deinit(&rows.last_row);
}

/* Opens a replica of the log's group from a snapshot of `from`. */
static void open_from_snapshot(const struct fixture *fixture, struct kv_replica *from,
                               struct kv_replica *to)
{
    struct raft_position position;
    uint64_t size = 0;
    struct sm_snapshot_reader *reader = NULL;
    struct sm_snapshot_writer *writer = NULL;
    struct buf stream = {0};
    char path[128];
    const struct vfs *vfs = vfs_system();
    snprintf(path, sizeof path, "%s/out", fixture->dir);
    assert_int_equal(vfs->make_dir(vfs->context, path), 0);
    assert_int_equal(from->sm.ops->snapshot_open(from->sm.sm, path, &position, &size, &reader), 0);
    assert_int_equal(
        from->sm.ops->snapshot_read(reader, 0, buf_reserve(&stream, (size_t)size), (size_t)size),
        0);
    stream.size = (size_t)size;
    from->sm.ops->snapshot_close(reader);
    assert_int_equal(vfs->remove_tree(vfs->context, path), 0);

    kv_replica_open(to, from->group_id);
    snprintf(path, sizeof path, "%s/in", fixture->dir);
    assert_int_equal(vfs->make_dir(vfs->context, path), 0);
    assert_int_equal(to->sm.ops->receive_open(to->sm.sm, path, &writer), 0);
    assert_int_equal(to->sm.ops->receive_write(writer, buf_view(&stream)), 0);
    assert_int_equal(to->sm.ops->receive_finish(writer), 0);
    to->sm.ops->receive_close(writer);
    assert_int_equal(to->sm.ops->restore(to->sm.sm, path), 0);
    assert_int_equal(to->sm.ops->applied(to->sm.sm).index, position.index);
    assert_int_equal(vfs->remove_tree(vfs->context, path), 0);
    to->next = SIZE_MAX; /* goes on behind the snapshot */
    buf_deinit(&stream);
}

/* ---- 27: what a snapshot carries ---- */

/* Group 1 then has a shard in each state: 0 serving, 1 frozen, 2 half pulled, 3 being dropped, and
 * 4 installed with a source that was not told yet. */
static void each_state(struct fixture *fixture)
{
    config_both(fixture, 1, (const uint64_t[SHARDS]){1, 1, 2, 1, 2}, (const uint64_t[SHARDS]){0});
    for (uint64_t client = 1; client <= CLIENTS; client++) {
        for (uint32_t shard = 0; shard < SHARDS; shard++) {
            struct kv_single *owner = shard == 2 || shard == 4 ? &fixture->b : &fixture->a;
            assert_int_equal(append(owner, client, shard, 1, "x").error, 0);
        }
    }
    config_both(fixture, 2, (const uint64_t[SHARDS]){1, 2, 1, 2, 1},
                (const uint64_t[SHARDS]){1, 1, 2, 1, 2});
    first_chunk(&fixture->b, &fixture->a, 2, 2);
    assert_int_equal(verb(&fixture->a, KV_COMMAND_DROP, 3, 2, GROUP_B), 0);
    assert_int_equal(kv_copy_shard(&fixture->b, &fixture->a, 4, 2, 60), 0);
}

static void test_s27_snapshot_carries_sessions_and_shard_states(void **state)
{
    struct fixture *fixture = *state;
    struct kv_single *a = &fixture->a;
    each_state(fixture);
    struct kv_replica other = {0};
    open_from_snapshot(fixture, &a->replica, &other);
    const enum shard_state wanted[SHARDS] = {SHARD_SERVING, SHARD_FROZEN, SHARD_PULLING,
                                             SHARD_DROPPING, SHARD_SERVING};
    struct kv_table *table = kv_machine_table(other.machine);
    assert_int_equal(table->config_number, 2);
    assert_int_equal(table->pending_count, 1);
    for (uint32_t shard = 0; shard < SHARDS; shard++) {
        assert_int_equal(table->shards[shard].state, wanted[shard]);
    }
    assert_int_equal(table->shards[0].session_count, CLIENTS);
    kv_table_unref(table);
    assert_int_equal(kv_replica_hash(&other), kv_replica_hash(&a->replica));

    /* Everything goes on where it was, here as there: the retry, the pull, the drops. */
    assert_int_equal(append(a, 3, 0, 1, "x").version, 3);
    assert_int_equal(append(a, 3, 4, 1, "x").version, 3);
    assert_int_equal(append(a, 3, 0, 2, "y").version, CLIENTS + 1);
    assert_int_equal(kv_copy_shard(&fixture->b, a, 2, 2, 60), 0);
    assert_int_equal(verb(a, KV_COMMAND_STEP, 3, 2, 0), 0);
    assert_int_equal(verb(a, KV_COMMAND_DROP, 1, 2, GROUP_B), 0);
    assert_int_equal(verb(a, KV_COMMAND_DROP_CONFIRMED, 4, 2, 0), 0);
    assert_int_equal(kv_single_state(a, 2), SHARD_SERVING);
    kv_replica_apply(&other, &a->log, a->log.last_index, NULL);
    assert_int_equal(kv_replica_hash(&other), kv_replica_hash(&a->replica));
    kv_replica_close(&other);
}

/* ---- 31: apply depends on nothing but the log ---- */

struct history {
    struct rng rng;
    uint64_t number;         /* of the newest config */
    uint64_t owners[SHARDS]; /* under it */
    uint64_t sequences[CLIENTS];
};

static struct kv_single *group_of(struct fixture *fixture, uint64_t group)
{
    return group == GROUP_A ? &fixture->a : &fixture->b;
}

static void random_block(struct fixture *fixture, struct history *history)
{
    const enum op_kind kinds[] = {OP_PUT, OP_APPEND, OP_DELETE, OP_CAS};
    uint32_t client = (uint32_t)rng_below(&history->rng, CLIENTS);
    struct buf payload = {0};
    uint32_t shard = (uint32_t)rng_below(&history->rng, SHARDS);
    struct kv_single *owner = group_of(fixture, history->owners[shard]);
    uint64_t acked = history->sequences[client] > 4 ? history->sequences[client] - 4 : 0;
    block_put_header(&payload, &(struct block_header){.client_id = client == 0 ? 0 : client,
                                                      .acked_below = acked,
                                                      .count = 3});
    for (uint32_t i = 0; i < 3; i++) {
        char key[8];
        char value[16];
        snprintf(key, sizeof key, "k%u", (unsigned)rng_below(&history->rng, 6));
        snprintf(value, sizeof value, "%u", (unsigned)rng_below(&history->rng, 1000));
        /* Sometimes a repetition of what may have been executed, with another payload perhaps. */
        bool repeat = rng_chance(&history->rng, 1, 8);
        uint64_t sequence = repeat ? history->sequences[client] : ++history->sequences[client];
        struct op op = {.kind = kinds[rng_below(&history->rng, 4)],
                        .sequence = client == 0 ? 0 : sequence,
                        .shard = shard,
                        .key = KEY(key),
                        .value = KEY(value)};
        op.value = op.kind == OP_DELETE ? BYTES_EMPTY : op.value;
        op.expected_version = op.kind == OP_CAS ? rng_below(&history->rng, 30) : 0;
        block_put_op(&payload, &op);
    }
    kv_log_entry(&owner->log, rng_below(&history->rng, SESSION_TTL_MS / 8));
    kv_log_add(&owner->log, &payload);
    kv_replica_apply(&owner->replica, &owner->log, owner->log.last_index, NULL);
}

/* The next config with shards drawn anew, and all its moves. */
static void random_moves(struct fixture *fixture, struct history *history)
{
    uint64_t sources[SHARDS];
    for (uint32_t shard = 0; shard < SHARDS; shard++) {
        sources[shard] = history->owners[shard];
        history->owners[shard] = rng_between(&history->rng, GROUP_A, GROUP_B);
    }
    uint64_t number = ++history->number;
    config_both(fixture, number, history->owners, sources);
    for (uint32_t shard = 0; shard < SHARDS; shard++) {
        if (sources[shard] == 0 || sources[shard] == history->owners[shard]) {
            continue;
        }
        struct kv_single *from = group_of(fixture, sources[shard]);
        struct kv_single *to = group_of(fixture, history->owners[shard]);
        assert_int_equal(kv_copy_shard(from, to, shard, number, 100), 0);
        assert_int_equal(verb(from, KV_COMMAND_DROP, shard, number, history->owners[shard]), 0);
        assert_int_equal(verb(from, KV_COMMAND_STEP, shard, number, 0), 0);
        assert_int_equal(verb(to, KV_COMMAND_DROP_CONFIRMED, shard, number, 0), 0);
    }
}

/* A replica of the same log that lives otherwise: other batches, no memory for sessions, flushes
 * and crashes where they please. */
static void follow(struct kv_replica *replica, const struct kv_log *log, struct rng *rng)
{
    if (rng_chance(rng, 1, 2)) {
        kv_replica_apply_random(replica, log, rng);
    }
    if (rng_chance(rng, 1, 8)) {
        assert_int_equal(replica->sm.ops->flush(replica->sm.sm), 0);
    }
    if (rng_chance(rng, 1, 6)) {
        kv_replica_crash(replica, rng_below(rng, fake_store_unflushed(replica->fake) + 1));
    }
}

static void history_of(struct fixture *fixture, uint64_t seed)
{
    struct history history = {0};
    struct kv_replica other[2] = {{.session_cache_bytes = 1}, {.session_cache_bytes = 1}};
    struct kv_replica late = {0};
    bool is_late = false;
    rng_init(&history.rng, seed);
    random_moves(fixture, &history);
    kv_replica_open(&other[0], GROUP_A);
    kv_replica_open(&other[1], GROUP_B);
    for (uint32_t step = 0; step < 200; step++) {
        random_block(fixture, &history);
        if (rng_chance(&history.rng, 1, 12)) {
            random_moves(fixture, &history);
        }
        if (rng_chance(&history.rng, 1, 6)) {
            uint32_t shard = (uint32_t)rng_below(&history.rng, SHARDS);
            assert_int_equal(
                verb(group_of(fixture, history.owners[shard]), KV_COMMAND_EXPIRE, shard, 0, 0), 0);
        }
        follow(&other[0], &fixture->a.log, &history.rng);
        follow(&other[1], &fixture->b.log, &history.rng);
        if (step == 100) {
            open_from_snapshot(fixture, &fixture->a.replica, &late);
            is_late = true;
        }
    }
    kv_replica_apply_random(&other[0], &fixture->a.log, &history.rng);
    kv_replica_apply_random(&other[1], &fixture->b.log, &history.rng);
    assert_true(is_late);
    kv_replica_apply_random(&late, &fixture->a.log, &history.rng);
    uint64_t wanted = kv_replica_hash(&fixture->a.replica);
    assert_int_equal(kv_replica_hash(&other[0]), wanted);
    assert_int_equal(kv_replica_hash(&late), wanted);
    assert_int_equal(kv_replica_hash(&other[1]), kv_replica_hash(&fixture->b.replica));
    kv_replica_close(&other[0]);
    kv_replica_close(&other[1]);
    kv_replica_close(&late);
}

static void test_s31_replicas_of_one_log_are_equal_however_they_lived(void **state)
{
    for (uint64_t seed = 1; seed <= 8; seed++) {
        struct fixture *fixture = *state;
        history_of(fixture, seed);
        groups_reopen(fixture);
    }
}

/* ---- 56: a session that was evicted ---- */

/* A command is executed and its answer is lost; the client tries again, with its true age, at every
 * distance, while the group forgets sessions as early as it may. It gets the old answer or an
 * error. */
static void test_s56_retry_of_a_forgotten_session_is_an_error_not_a_second_execution(void **state)
{
    struct fixture *fixture = *state;
    struct kv_single *a = &fixture->a;
    all_to_a(fixture);
    uint64_t client = 100;
    uint32_t repeated = 0;
    uint32_t refused = 0;
    for (uint64_t away_ms = 0; away_ms < SESSION_TTL_MS * 2; away_ms += SESSION_TTL_MS / 60) {
        client++;
        struct op_result first = append(a, client, 0, 1, "x");
        assert_int_equal(first.error, 0);
        a->log.time_ms += away_ms;
        assert_int_equal(verb(a, KV_COMMAND_EXPIRE, 0, 0, 0), 0);
        struct op op = append_op(0, 1, "x");
        struct block_header header = {.client_id = client, .age_ms = away_ms, .count = 1};
        struct op_result again = kv_single_block(a, &header, &op);
        if (again.error == 0) {
            assert_int_equal(again.version, first.version);
            repeated++;
        } else {
            assert_int_equal(again.error, ERR_SESSION_EXPIRED);
            refused++;
        }
    }
    assert_true(repeated > 5 && refused > 5);
    struct buf value = {0};
    assert_int_equal(kv_single_get(a, 0, "k", &value).version, repeated + refused);
    assert_int_equal(value.size, repeated + refused + 1);
    buf_deinit(&value);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SCENARIO(test_s27_snapshot_carries_sessions_and_shard_states),
        SCENARIO(test_s31_replicas_of_one_log_are_equal_however_they_lived),
        SCENARIO(test_s56_retry_of_a_forgotten_session_is_an_error_not_a_second_execution),
    };
    log_set_level(LOG_ERROR); /* thousands of transitions */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
