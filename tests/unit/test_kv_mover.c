/* The driver of moves, told what the table shows and what was answered, asked what it does. */
#include "kv_fixture.h"

#include "base/clock.h"
#include "base/crc32c.h"
#include "proto/config.h"
#include "shardkv/mover.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SHARDS = 12, GROUP = 1 };

struct fixture {
    struct mover *mover;
    struct shard_record shards[SHARDS];
    struct pending_drop pending[4];
    uint32_t pending_count;
    struct config_share *config;
    struct mover_action actions[32]; /* of the last tick */
    uint32_t count;
    uint64_t now_ns;
};

static void clear_actions(struct fixture *fixture)
{
    for (uint32_t i = 0; i < fixture->count; i++) {
        mover_action_deinit(&fixture->actions[i]);
    }
    fixture->count = 0;
}

/* Shows the driver the table and takes what it wants done. */
static void tick(struct fixture *fixture)
{
    clear_actions(fixture);
    struct kv_table *table = kv_table_create(GROUP, fixture->config, fixture->shards,
                                             fixture->pending, fixture->pending_count);
    mover_set_table(fixture->mover, table);
    kv_table_unref(table);
    mover_tick(fixture->mover, fixture->now_ns);
    while (fixture->count < 32 && mover_next(fixture->mover, &fixture->actions[fixture->count])) {
        fixture->count++;
    }
}

static uint32_t count_calls(const struct fixture *fixture, uint64_t from_group)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < fixture->count; i++) {
        count +=
            fixture->actions[i].kind == MOVER_CALL && fixture->actions[i].from_group == from_group;
    }
    return count;
}

/* The first action of this kind; the test fails when there is none. */
static const struct mover_action *find(const struct fixture *fixture, enum mover_action_kind kind)
{
    for (uint32_t i = 0; i < fixture->count; i++) {
        if (fixture->actions[i].kind == kind) {
            return &fixture->actions[i];
        }
    }
    fail_msg("no such action");
    return NULL;
}

static struct kv_command proposal(const struct fixture *fixture)
{
    struct kv_command command;
    assert_int_equal(kv_command_decode(buf_view(&find(fixture, MOVER_PROPOSE)->payload), &command),
                     0);
    return command;
}

static void reply_all(struct fixture *fixture, int error, const char *leader)
{
    uint64_t ids[32];
    uint32_t count = 0;
    for (uint32_t i = 0; i < fixture->count; i++) {
        if (fixture->actions[i].kind == MOVER_CALL) {
            ids[count++] = fixture->actions[i].id;
        }
    }
    for (uint32_t i = 0; i < count; i++) {
        struct mover_reply reply = {.error = error, .leader_address = leader};
        mover_replied(fixture->mover, ids[i], &reply, fixture->now_ns);
    }
}

/* The newest config is the table's with another number, and lists `id` so, unless `group` is NULL.
 */
static void newest_lists(struct fixture *fixture, uint64_t number, uint64_t id,
                         const struct config_group *group)
{
    struct config *config = config_clone(config_share_get(fixture->config));
    config->number = number;
    for (uint32_t i = 0; i < config->group_count; i++) {
        if (group != NULL && config->groups[i].id == id) {
            config->groups[i] = *group;
        }
    }
    struct config_share *newest = config_share_create(config);
    mover_set_newest(fixture->mover, newest);
    config_share_unref(newest);
}

static int set_up(void **state)
{
    struct fixture *fixture = test_calloc(1, sizeof *fixture);
    struct mover_options options = mover_options_default(GROUP, 7);
    fixture->mover = mover_create(&options);
    fixture->now_ns = 1000 * NS_PER_MS;
    uint64_t owners[SHARDS];
    uint64_t sources[SHARDS];
    for (uint32_t i = 0; i < SHARDS; i++) {
        owners[i] = GROUP;
        sources[i] = i < SHARDS / 2 ? 2 : 3;
    }
    fixture->config = config_share_create(test_config(5, SHARDS, owners, sources));
    mover_set_leader(fixture->mover, true);
    mover_set_newest(fixture->mover, fixture->config);
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    clear_actions(fixture);
    mover_destroy(fixture->mover);
    for (uint32_t i = 0; i < SHARDS; i++) {
        shard_record_clear(&fixture->shards[i]);
    }
    for (uint32_t i = 0; i < fixture->pending_count; i++) {
        blob_unref(fixture->pending[i].source);
    }
    config_share_unref(fixture->config);
    test_free(fixture);
    return 0;
}

static void pull(struct fixture *fixture, uint32_t from, uint32_t to)
{
    for (uint32_t i = from; i < to; i++) {
        fixture->shards[i] = (struct shard_record){
            .state = SHARD_PULLING, .number = 5, .peer_group = i < SHARDS / 2 ? 2 : 3};
    }
}

static void test_kv_mover_does_nothing_unless_it_leads(void **state)
{
    struct fixture *fixture = *state;
    pull(fixture, 0, SHARDS);
    mover_set_leader(fixture->mover, false);
    tick(fixture);
    assert_int_equal(fixture->count, 0);
    assert_true(mover_wake_ns(fixture->mover) == UINT64_MAX);
}

static void test_kv_mover_pulls_a_bounded_number_at_once(void **state)
{
    struct fixture *fixture = *state;
    pull(fixture, 0, SHARDS);
    tick(fixture);
    assert_int_equal(count_calls(fixture, 2) + count_calls(fixture, 3), MOVER_PULLS_MAX);
    tick(fixture); /* nothing new while these wait */
    assert_int_equal(fixture->count, 0);
}

static void test_kv_mover_goes_through_the_verbs_from_what_the_table_shows(void **state)
{
    struct fixture *fixture = *state;
    pull(fixture, 0, 1);
    tick(fixture);
    assert_int_equal(find(fixture, MOVER_CALL)->verb, MOVER_OPEN);
    reply_all(fixture, 0, NULL);
    tick(fixture);
    const struct mover_action *read = find(fixture, MOVER_CALL);
    assert_int_equal(read->verb, MOVER_READ);
    assert_int_equal(read->after_row.size, 0);
    assert_int_equal(read->from_group, 2);
    assert_int_equal(read->to_group, GROUP);
    assert_int_equal(read->number, 5);
    struct bytes rows = KEY("these are rows");
    mover_replied(fixture->mover, read->id,
                  &(struct mover_reply){.rows = rows,
                                        .rows_crc32c = crc32c_extend(0, rows.data, rows.size),
                                        .last_row = KEY("dz"),
                                        .end = true},
                  fixture->now_ns);
    tick(fixture);
    struct kv_command command = proposal(fixture);
    assert_int_equal(command.kind, KV_COMMAND_CHUNK);
    assert_true(bytes_equal(command.rows, rows));
    assert_true(command.end);
    mover_proposed(fixture->mover, find(fixture, MOVER_PROPOSE)->id, 0, 0, fixture->now_ns);
    fixture->shards[0].complete = true;
    shard_record_set_last_row(&fixture->shards[0], KEY("dz"));
    tick(fixture);
    assert_int_equal(find(fixture, MOVER_CALL)->verb, MOVER_FREEZE);
    mover_replied(fixture->mover, find(fixture, MOVER_CALL)->id,
                  &(struct mover_reply){.row_count = 1, .row_bytes = 2, .checksum = 3},
                  fixture->now_ns);
    tick(fixture);
    command = proposal(fixture);
    assert_int_equal(command.kind, KV_COMMAND_INSTALL);
    assert_int_equal(command.row_count, 1);
    assert_int_equal(command.checksum, 3);
}

static void test_kv_mover_takes_over_where_the_table_stands(void **state)
{
    struct fixture *fixture = *state;
    pull(fixture, 0, 1);
    shard_record_set_last_row(&fixture->shards[0], KEY("dm"));
    fixture->shards[0].generation = 4;
    tick(fixture);
    reply_all(fixture, 0, NULL); /* Open */
    tick(fixture);
    assert_true(bytes_equal(buf_view(&find(fixture, MOVER_CALL)->after_row), KEY("dm")));
    fixture->shards[0].clearing = true; /* another driver's Install failed meanwhile: clear first */
    reply_all(fixture, ERR_BUSY, NULL);
    fixture->now_ns += NS_PER_S;
    tick(fixture);
    assert_int_equal(proposal(fixture).kind, KV_COMMAND_STEP);
}

static void test_kv_mover_damaged_chunk_is_asked_for_again(void **state)
{
    struct fixture *fixture = *state;
    pull(fixture, 0, 1);
    tick(fixture);
    reply_all(fixture, 0, NULL);
    tick(fixture);
    mover_replied(
        fixture->mover, find(fixture, MOVER_CALL)->id,
        &(struct mover_reply){.rows = KEY("rows"), .rows_crc32c = 1, .last_row = KEY("dz")},
        fixture->now_ns);
    fixture->now_ns += NS_PER_S;
    tick(fixture);
    assert_int_equal(find(fixture, MOVER_CALL)->verb, MOVER_READ);
}

static void test_kv_mover_follows_a_hint_once_for_all_calls_in_flight(void **state)
{
    struct fixture *fixture = *state;
    pull(fixture, 0, 4);
    tick(fixture);
    assert_int_equal(count_calls(fixture, 2), 4);
    assert_string_equal(find(fixture, MOVER_CALL)->address, "g2-1:1");
    reply_all(fixture, ERR_NOT_LEADER,
              "g2-2:1"); /* four replicas of the same news: no reason to wait */
    tick(fixture);
    assert_int_equal(count_calls(fixture, 2), 4);
    for (uint32_t i = 0; i < fixture->count; i++) {
        if (fixture->actions[i].kind == MOVER_CALL) {
            assert_string_equal(fixture->actions[i].address, "g2-2:1");
        }
    }
    /* A leader that sends us back is not believed without a pause. */
    reply_all(fixture, ERR_NOT_LEADER, "g2-1:1");
    tick(fixture);
    assert_int_equal(count_calls(fixture, 2), 0);
    assert_true(mover_wake_ns(fixture->mover) > fixture->now_ns);
    assert_true(mover_wake_ns(fixture->mover) < fixture->now_ns + NS_PER_S);
}

/* The leader joined its group after the config was made: no config lists it. */
static void test_kv_mover_follows_a_hint_also_after_a_replica_was_dead(void **state)
{
    struct fixture *fixture = *state;
    pull(fixture, 0, 1);
    tick(fixture);
    reply_all(fixture, ERR_UNAVAILABLE, "");
    fixture->now_ns = mover_wake_ns(fixture->mover);
    tick(fixture);
    assert_string_equal(find(fixture, MOVER_CALL)->address, "g2-2:1");
    reply_all(fixture, ERR_NOT_LEADER, "g2-9:1");
    tick(fixture);
    assert_string_equal(find(fixture, MOVER_CALL)->address, "g2-9:1");
}

static void test_kv_mover_dead_source_does_not_hold_up_another(void **state)
{
    struct fixture *fixture = *state;
    pull(fixture, 0, SHARDS); /* half of them from group 2, which is dead */
    for (uint32_t round = 0; round < 50; round++) {
        tick(fixture);
        for (uint32_t i = 0; i < fixture->count; i++) {
            const struct mover_action *action = &fixture->actions[i];
            if (action->kind != MOVER_CALL) {
                continue;
            }
            struct mover_reply reply = {.error = action->from_group == 2 ? ERR_UNAVAILABLE : 0};
            if (action->from_group == 3) { /* lives: pulled at once */
                shard_record_clear(&fixture->shards[action->shard]);
                fixture->shards[action->shard].state = SHARD_SERVING;
            }
            mover_replied(fixture->mover, action->id, &reply, fixture->now_ns);
        }
        fixture->now_ns += 20 * NS_PER_MS;
    }
    for (uint32_t i = 0; i < SHARDS; i++) {
        assert_int_equal(fixture->shards[i].state, i < SHARDS / 2 ? SHARD_PULLING : SHARD_SERVING);
    }
}

static void test_kv_mover_back_off_grows_and_asks_another_replica(void **state)
{
    struct fixture *fixture = *state;
    pull(fixture, 0, 1);
    uint64_t waited[10];
    char address[10][ADDRESS_BYTES_MAX];
    tick(fixture);
    for (uint32_t i = 0; i < 10; i++) {
        snprintf(address[i], sizeof address[i], "%s", find(fixture, MOVER_CALL)->address);
        reply_all(fixture, ERR_UNAVAILABLE, NULL);
        tick(fixture);
        assert_int_equal(count_calls(fixture, 2), 0);
        uint64_t start_ns = fixture->now_ns;
        while (count_calls(fixture, 2) == 0) { /* other wake-ups come in between */
            uint64_t wake_ns = mover_wake_ns(fixture->mover);
            assert_true(wake_ns > fixture->now_ns && wake_ns != UINT64_MAX);
            fixture->now_ns = wake_ns;
            tick(fixture);
        }
        waited[i] = fixture->now_ns - start_ns;
    }
    assert_string_not_equal(address[0], address[1]);
    assert_true(waited[0] <= 100 * NS_PER_MS);
    assert_true(waited[9] >= NS_PER_S);
    assert_true(waited[9] <= 2 * NS_PER_S);
}

static void test_kv_mover_fetches_the_next_config_when_all_is_settled(void **state)
{
    struct fixture *fixture = *state;
    newest_lists(fixture, 9, 0, NULL);
    pull(fixture, 0, 1);
    tick(fixture);
    for (uint32_t i = 0; i < fixture->count; i++) {
        assert_int_not_equal(fixture->actions[i].kind, MOVER_FETCH_CONFIG);
    }
    fixture->shards[0].state = SHARD_SERVING;
    tick(fixture);
    assert_int_equal(find(fixture, MOVER_FETCH_CONFIG)->number, 6); /* one at a time, in order */
    mover_fetched(fixture->mover, find(fixture, MOVER_FETCH_CONFIG)->id, 0, KEY("config"),
                  fixture->now_ns);
    tick(fixture);
    struct kv_command command = proposal(fixture);
    assert_int_equal(command.kind, KV_COMMAND_CONFIG);
    assert_true(bytes_equal(command.config, KEY("config")));
}

static void test_kv_mover_asks_the_source_to_drop_until_it_did(void **state)
{
    struct fixture *fixture = *state;
    struct config_group source = {.id = 4, .replica_count = 1}; /* gone from the config */
    snprintf(source.replicas[0].address, ADDRESS_BYTES_MAX, "old:1");
    struct buf packed = {0};
    pending_source_encode(&source, &packed);
    fixture->pending[0] = (struct pending_drop){2, 3, blob_take_buf(&packed)};
    fixture->pending_count = 1;
    tick(fixture);
    const struct mover_action *action = find(fixture, MOVER_CALL);
    assert_int_equal(action->verb, MOVER_DROP);
    assert_string_equal(action->address, "old:1");
    assert_int_equal(action->shard, 2);
    assert_int_equal(action->number, 3);
    reply_all(fixture, ERR_TIMEOUT, NULL);
    fixture->now_ns += 3 * NS_PER_S;
    tick(fixture);
    assert_int_equal(find(fixture, MOVER_CALL)->verb, MOVER_DROP);
    reply_all(fixture, 0, NULL);
    tick(fixture);
    struct kv_command command = proposal(fixture);
    assert_int_equal(command.kind, KV_COMMAND_DROP_CONFIRMED);
    assert_int_equal(command.number, 3);
}

static void test_kv_mover_expires_sessions_shard_by_shard_and_rests(void **state)
{
    struct fixture *fixture = *state;
    fixture->shards[2] = (struct shard_record){.state = SHARD_SERVING, .session_count = 5};
    fixture->shards[7] = (struct shard_record){.state = SHARD_SERVING, .session_count = 1};
    const uint32_t wanted[] = {2, 2, 7};
    for (uint32_t i = 0; i < 3; i++) {
        tick(fixture);
        struct kv_command command = proposal(fixture);
        assert_int_equal(command.kind, KV_COMMAND_EXPIRE);
        assert_int_equal(command.shard, wanted[i]);
        fixture->shards[2].expire_from = i == 0 ? 99 : 0; /* not through at the first time */
        struct kv_table *table = kv_table_create(GROUP, fixture->config, fixture->shards, NULL, 0);
        mover_set_table(fixture->mover, table);
        kv_table_unref(table);
        mover_proposed(fixture->mover, find(fixture, MOVER_PROPOSE)->id, 0, 0, fixture->now_ns);
        fixture->now_ns += 200 * NS_PER_MS;
    }
    tick(fixture);
    for (uint32_t i = 0; i < fixture->count; i++) {
        assert_int_not_equal(fixture->actions[i].kind, MOVER_PROPOSE);
    }
    fixture->now_ns += 400 * NS_PER_S;
    tick(fixture);
    assert_int_equal(proposal(fixture).shard, 2);
}

static void test_kv_mover_answers_for_a_lost_leadership_are_ignored(void **state)
{
    struct fixture *fixture = *state;
    pull(fixture, 0, 1);
    tick(fixture);
    uint64_t old = find(fixture, MOVER_CALL)->id;
    mover_set_leader(fixture->mover, false);
    mover_set_leader(fixture->mover, true);
    tick(fixture);
    assert_true(find(fixture, MOVER_CALL)->id > old);
    mover_replied(fixture->mover, old, &(struct mover_reply){0}, fixture->now_ns);
    tick(fixture);
    assert_int_equal(fixture->count, 0); /* the Open of the new term still waits */
}

/* ---- members ---- */

/* Learner 4 and two voters: 2, where it was, and 5, or another. */
static struct raft_membership members_at(uint64_t index, uint64_t newcomer)
{
    struct raft_membership members = {.position = {index, 1}, .count = 3};
    const uint64_t ids[] = {2, 4, newcomer};
    for (uint32_t i = 0; i < 3; i++) {
        members.members[i].id = ids[i];
        members.members[i].role = ids[i] == 4 ? RAFT_LEARNER : RAFT_VOTER;
        snprintf(members.members[i].address, sizeof members.members[i].address, "g1-%u:1",
                 (unsigned)ids[i]);
    }
    return members;
}

/* As the controllers list them. */
static struct config_group listed_at(uint64_t index, uint64_t newcomer)
{
    struct config_group group = {.id = GROUP, .members_index = index, .replica_count = 2};
    group.replicas[0].id = 2;
    group.replicas[1].id = newcomer;
    for (uint32_t i = 0; i < 2; i++) {
        snprintf(group.replicas[i].address, ADDRESS_BYTES_MAX, "g1-%u:1",
                 (unsigned)group.replicas[i].id);
    }
    return group;
}

static const struct mover_action *find_update(struct fixture *fixture)
{
    const struct mover_action *found = NULL;
    tick(fixture);
    for (uint32_t i = 0; i < fixture->count; i++) {
        if (fixture->actions[i].kind == MOVER_UPDATE_MEMBERS) {
            assert_null(found);
            found = &fixture->actions[i];
        }
    }
    return found;
}

static void test_kv_mover_tells_the_voters_when_they_are_news(void **state)
{
    struct fixture *fixture = *state;
    assert_null(find_update(fixture)); /* nothing is known to be committed */
    struct raft_membership members = members_at(7, 5);
    mover_set_members(fixture->mover, &members);
    const struct mover_action *action = find_update(fixture);
    assert_non_null(action);
    assert_int_equal(action->members->id, GROUP);
    assert_int_equal(action->members->members_index, 7);
    assert_false(action->members->departed);
    assert_int_equal(action->members->replica_count, 2);
    assert_int_equal(action->members->replicas[0].id, 2);
    assert_int_equal(action->members->replicas[1].id, 5);
    assert_string_equal(action->members->replicas[1].address, "g1-5:1");
    assert_null(find_update(fixture)); /* one at a time */
}

static void test_kv_mover_tells_no_members_without_need(void **state)
{
    struct fixture *fixture = *state;
    struct raft_membership members = members_at(7, 5);
    mover_set_members(fixture->mover, &members);
    struct config_group listed = listed_at(3, 5);
    newest_lists(fixture, 6, GROUP, &listed); /* the same, of an earlier index */
    assert_null(find_update(fixture));
    listed = listed_at(7, 6);
    newest_lists(fixture, 7, GROUP, &listed); /* others, of the same index */
    assert_null(find_update(fixture));
    listed = listed_at(9, 6);
    newest_lists(fixture, 8, GROUP, &listed); /* of a later one: this leader is of former times */
    assert_null(find_update(fixture));
    listed = listed_at(6, 6);
    newest_lists(fixture, 9, GROUP, &listed);
    mover_set_leader(fixture->mover, false);
    assert_null(find_update(fixture));
    mover_set_leader(fixture->mover, true);
    struct raft_membership older = members_at(5, 8);
    mover_set_members(fixture->mover, &older); /* does not replace the newer */
    const struct mover_action *action = find_update(fixture);
    assert_non_null(action);
    assert_int_equal(action->members->members_index, 7);
}

static void test_kv_mover_tells_members_of_a_group_that_left_while_it_may_be_asked(void **state)
{
    struct fixture *fixture = *state;
    struct raft_membership members = members_at(7, 5);
    mover_set_members(fixture->mover, &members);
    uint64_t owners[SHARDS] = {0};
    for (uint32_t i = 0; i < SHARDS; i++) {
        owners[i] = 2;
    }
    struct config_share *newest = config_share_create(test_config(6, SHARDS, owners, owners));
    mover_set_newest(fixture->mover, newest);
    config_share_unref(newest);
    const struct mover_action *action = find_update(fixture);
    assert_non_null(action); /* its own config lists it: others may be under that one, too */
    assert_true(action->members->departed);
    mover_updated(fixture->mover, action->id, ERR_UNAVAILABLE, 0, fixture->now_ns);
    fixture->now_ns += 3 * NS_PER_S;
    config_share_unref(fixture->config);
    fixture->config = config_share_create(test_config(6, SHARDS, owners, owners));
    assert_null(find_update(fixture)); /* nobody is under a config any more that lists it */
}

static void test_kv_mover_of_two_voters_at_one_address_tells_the_newer(void **state)
{
    struct fixture *fixture = *state;
    struct raft_membership members = members_at(7, 5);
    snprintf(members.members[2].address, sizeof members.members[2].address, "%s",
             members.members[0].address);
    mover_set_members(fixture->mover, &members);
    const struct mover_action *action = find_update(fixture);
    assert_non_null(action);
    assert_int_equal(action->members->replica_count, 1);
    assert_int_equal(action->members->replicas[0].id, 5);
}

static void test_kv_mover_tells_members_again_after_a_failure_or_another_leader(void **state)
{
    struct fixture *fixture = *state;
    struct raft_membership members = members_at(7, 5);
    mover_set_members(fixture->mover, &members);
    const struct mover_action *action = find_update(fixture);
    uint64_t waited_ns = 0;
    for (uint32_t i = 0; i < 10; i++) {
        assert_non_null(action);
        mover_updated(fixture->mover, action->id, ERR_UNAVAILABLE, 0, fixture->now_ns);
        mover_set_members(fixture->mover, &members); /* said again, it is no news */
        uint64_t start_ns = fixture->now_ns;
        while ((action = find_update(fixture)) == NULL) { /* other wake-ups come in between */
            uint64_t wake_ns = mover_wake_ns(fixture->mover);
            assert_true(wake_ns > fixture->now_ns && wake_ns != UINT64_MAX);
            fixture->now_ns = wake_ns;
        }
        waited_ns = fixture->now_ns - start_ns;
        assert_true(waited_ns > 0);
        assert_true(i > 0 || waited_ns <= 100 * NS_PER_MS);
    }
    assert_true(waited_ns >= NS_PER_S);
    assert_true(waited_ns <= 2 * NS_PER_S);
    mover_updated(fixture->mover, action->id, ERR_UNAVAILABLE, 0, fixture->now_ns);
    assert_null(find_update(fixture));
    members = members_at(8, 6); /* another change: at once */
    mover_set_members(fixture->mover, &members);
    action = find_update(fixture);
    assert_non_null(action);
    assert_int_equal(action->members->members_index, 8);
    uint64_t late = action->id;
    mover_set_leader(fixture->mover, false);
    mover_set_leader(fixture->mover, true);
    mover_updated(fixture->mover, late, 0, 99, fixture->now_ns); /* nobody waits for it any more */
    assert_non_null(find_update(fixture));
}

static void test_kv_mover_waits_for_the_config_that_its_members_made(void **state)
{
    struct fixture *fixture = *state;
    struct raft_membership members = members_at(7, 5);
    mover_set_members(fixture->mover, &members);
    mover_updated(fixture->mover, find_update(fixture)->id, 0, 8, fixture->now_ns);
    for (uint64_t number = 6; number <= 7; number++) { /* of others, made before it */
        newest_lists(fixture, number, 0, NULL);
        fixture->now_ns += 10 * NS_PER_S;
        assert_null(find_update(fixture));
    }
    struct config_group listed = listed_at(7, 5);
    newest_lists(fixture, 8, GROUP, &listed);
    assert_null(find_update(fixture));
    listed = listed_at(0, 1); /* it has left and was joined again, as it once was */
    newest_lists(fixture, 10, GROUP, &listed);
    assert_non_null(find_update(fixture));
}

static void test_kv_mover_asks_a_source_where_the_newest_config_lists_it(void **state)
{
    struct fixture *fixture = *state;
    struct config_group moved = {.id = 2, .replica_count = 1, .members_index = 4};
    moved.replicas[0].id = 9;
    snprintf(moved.replicas[0].address, ADDRESS_BYTES_MAX, "new:1");
    pull(fixture, 0, 1);
    tick(fixture);
    assert_string_equal(find(fixture, MOVER_CALL)->address, "g2-1:1");
    reply_all(fixture, ERR_UNAVAILABLE, NULL);
    newest_lists(fixture, 6, 2, &moved); /* the shard moves under 5 all the same */
    fixture->now_ns += 3 * NS_PER_S;
    tick(fixture);
    assert_string_equal(find(fixture, MOVER_CALL)->address, "new:1");
    assert_int_equal(find(fixture, MOVER_CALL)->number, 5);
}

static void test_kv_mover_asks_to_drop_where_the_newest_config_lists_the_source(void **state)
{
    struct fixture *fixture = *state;
    struct config_group source = {.id = 2, .replica_count = 1};
    struct buf packed = {0};
    snprintf(source.replicas[0].address, ADDRESS_BYTES_MAX, "old:1");
    pending_source_encode(&source, &packed);
    fixture->pending[0] = (struct pending_drop){2, 3, blob_take_buf(&packed)};
    fixture->pending_count = 1;
    snprintf(source.replicas[0].address, ADDRESS_BYTES_MAX, "new:1");
    newest_lists(fixture, 6, 2, &source);
    tick(fixture);
    assert_string_equal(find(fixture, MOVER_CALL)->address, "new:1");
}

int main(void)
{
#define MOVER_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        MOVER_TEST(test_kv_mover_does_nothing_unless_it_leads),
        MOVER_TEST(test_kv_mover_pulls_a_bounded_number_at_once),
        MOVER_TEST(test_kv_mover_goes_through_the_verbs_from_what_the_table_shows),
        MOVER_TEST(test_kv_mover_takes_over_where_the_table_stands),
        MOVER_TEST(test_kv_mover_damaged_chunk_is_asked_for_again),
        MOVER_TEST(test_kv_mover_follows_a_hint_once_for_all_calls_in_flight),
        MOVER_TEST(test_kv_mover_follows_a_hint_also_after_a_replica_was_dead),
        MOVER_TEST(test_kv_mover_dead_source_does_not_hold_up_another),
        MOVER_TEST(test_kv_mover_back_off_grows_and_asks_another_replica),
        MOVER_TEST(test_kv_mover_fetches_the_next_config_when_all_is_settled),
        MOVER_TEST(test_kv_mover_asks_the_source_to_drop_until_it_did),
        MOVER_TEST(test_kv_mover_expires_sessions_shard_by_shard_and_rests),
        MOVER_TEST(test_kv_mover_answers_for_a_lost_leadership_are_ignored),
        MOVER_TEST(test_kv_mover_tells_the_voters_when_they_are_news),
        MOVER_TEST(test_kv_mover_tells_no_members_without_need),
        MOVER_TEST(test_kv_mover_tells_members_of_a_group_that_left_while_it_may_be_asked),
        MOVER_TEST(test_kv_mover_of_two_voters_at_one_address_tells_the_newer),
        MOVER_TEST(test_kv_mover_tells_members_again_after_a_failure_or_another_leader),
        MOVER_TEST(test_kv_mover_waits_for_the_config_that_its_members_made),
        MOVER_TEST(test_kv_mover_asks_a_source_where_the_newest_config_lists_it),
        MOVER_TEST(test_kv_mover_asks_to_drop_where_the_newest_config_lists_the_source),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
