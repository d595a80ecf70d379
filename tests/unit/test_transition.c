#include "config_test.h"

#include "base/rng.h"
#include "shardctrler/transition.h"
#include <string.h>

enum { SHARDS = 10 };

/* Replaces *config by what the join, leave or move makes of it. */
static void step(struct config **config, int error, struct config *next)
{
    assert_int_equal(error, 0);
    assert_int_equal(next->number, (*config)->number + 1);
    config_free(*config);
    *config = next;
}

static void join(struct config **config, uint64_t id)
{
    char why[256];
    struct config_group group = test_group(id);
    struct config *next = NULL;
    int error = transition_join(*config, &group, 1, &next, why, sizeof why);
    step(config, error, next);
    test_check_balanced(*config);
}

static void leave(struct config **config, uint64_t id, bool force)
{
    char why[256];
    struct config *next = NULL;
    int error = transition_leave(*config, &id, 1, force, &next, why, sizeof why);
    step(config, error, next);
    test_check_balanced(*config);
}

static void move(struct config **config, uint32_t shard, uint64_t id)
{
    char why[256];
    struct config *next = NULL;
    int error = transition_move(*config, shard, id, &next, why, sizeof why);
    step(config, error, next);
    assert_int_equal((*config)->owners[shard], id);
}

/* Group `id` on machines of its own, the first of which has this number. */
static struct config_group members_of(uint64_t id, uint32_t first, uint64_t index)
{
    struct config_group members = {.id = id, .members_index = index, .replica_count = 2};
    for (uint32_t i = 0; i < 2; i++) {
        members.replicas[i].id = first + i;
        snprintf(members.replicas[i].address, sizeof members.replicas[i].address, "10.9.%u.%u:7000",
                 (unsigned)id, first + i);
    }
    return members;
}

static void update(struct config **config, const struct config_group *members)
{
    char why[256];
    struct config *next = NULL;
    int error = transition_update_members(*config, members, &next, why, sizeof why);
    assert_non_null(next);
    step(config, error, next);
}

static int update_error(const struct config *config, const struct config_group *members)
{
    char why[256] = "";
    struct config *next = NULL;
    int error = transition_update_members(config, members, &next, why, sizeof why);
    assert_null(next);
    assert_true(error == 0 || why[0] != '\0');
    return error;
}

static void test_join_first_group_owns_all_and_data_comes_from_nobody(void **state)
{
    (void)state;
    struct config *config = config_create(0, SHARDS);
    join(&config, 1);
    assert_int_equal(test_count_owned(config, 1), SHARDS);
    for (int shard = 0; shard < SHARDS; shard++) {
        assert_int_equal(config->sources[shard], 0);
    }
    config_free(config);
}

static void test_join_second_group_takes_half_and_names_the_source(void **state)
{
    (void)state;
    struct config *config = config_create(0, SHARDS);
    join(&config, 1);
    join(&config, 2);
    assert_int_equal(test_count_owned(config, 2), SHARDS / 2);
    for (int shard = 0; shard < SHARDS; shard++) {
        assert_int_equal(config->sources[shard], 1);
    }
    config_free(config);
}

static void test_leave_keeps_the_departed_group_while_its_data_is_wanted(void **state)
{
    (void)state;
    struct config *config = config_create(0, SHARDS);
    join(&config, 1);
    join(&config, 2);
    leave(&config, 1, false);
    const struct config_group *departed = config_find_group(config, 1);
    assert_non_null(departed);
    assert_true(departed->departed);
    assert_string_equal(departed->replicas[2].address, "10.0.1.3:7000");
    move(&config, 0, 2); /* any next config: the moves of the one before are settled by then */
    assert_null(config_find_group(config, 1));
    config_free(config);
}

static void test_leave_of_the_last_group_keeps_the_source_until_a_group_comes(void **state)
{
    (void)state;
    struct config *config = config_create(0, SHARDS);
    join(&config, 1);
    leave(&config, 1, true);
    for (int shard = 0; shard < SHARDS; shard++) {
        assert_int_equal(config->owners[shard], 0);
        assert_int_equal(config->sources[shard], 1);
    }
    assert_true(config_find_group(config, 1)->departed);
    join(&config, 2);
    for (int shard = 0; shard < SHARDS; shard++) {
        assert_int_equal(config->owners[shard], 2);
        assert_int_equal(config->sources[shard], 1);
    }
    assert_true(config_find_group(config, 1)->departed);
    join(&config, 3);
    assert_null(config_find_group(config, 1));
    config_free(config);
}

static void test_move_pins_a_shard_until_the_next_join(void **state)
{
    (void)state;
    struct config *config = config_create(0, SHARDS);
    join(&config, 1);
    join(&config, 2);
    for (uint32_t shard = 0; shard < SHARDS; shard++) {
        move(&config, shard, 1);
    }
    assert_int_equal(test_count_owned(config, 1), SHARDS);
    join(&config, 3); /* balanced again: checked by join() */
    config_free(config);
}

struct refusal {
    struct config_group groups[2];
    size_t count;
    int error;
    const char *words;
};

static void test_join_bad_input_is_refused_with_a_reason(void **state)
{
    (void)state;
    struct config *config = config_create(0, SHARDS);
    join(&config, 1);
    struct refusal refusals[] = {
        {{test_group(0)}, 1, ERR_INVALID, "group id 0"},
        {{test_group(1)}, 1, ERR_GROUP_EXISTS, "already"},
        {{test_group(2), test_group(2)}, 2, ERR_GROUP_EXISTS, "given twice"},
        {{test_group(2)}, 1, ERR_ADDRESS_IN_USE, "belongs to group 1"},
        {{test_group(2)}, 1, ERR_ADDRESS_IN_USE, "given twice"},
        {{test_group(2)}, 1, ERR_INVALID, "not an address"},
        {{test_group(2)}, 1, ERR_INVALID, "no replicas"},
        {{test_group(2)}, 1, ERR_INVALID, "replica id 1 is given twice"},
        {{test_group(2)}, 0, ERR_INVALID, "no group"},
    };
    strcpy(refusals[3].groups[0].replicas[1].address, "10.0.1.1:7000");
    strcpy(refusals[4].groups[0].replicas[1].address, refusals[4].groups[0].replicas[0].address);
    strcpy(refusals[5].groups[0].replicas[1].address, "nonsense");
    refusals[6].groups[0].replica_count = 0;
    refusals[7].groups[0].replicas[1].id = 1;
    for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
        char why[256] = "";
        struct config *next = NULL;
        int error =
            transition_join(config, refusals[i].groups, refusals[i].count, &next, why, sizeof why);
        assert_int_equal(error, refusals[i].error);
        assert_null(next);
        if (strstr(why, refusals[i].words) == NULL) {
            fail_msg("'%s' does not say '%s'", why, refusals[i].words);
        }
    }
    config_free(config);
}

static void test_join_over_the_table_is_refused(void **state)
{
    (void)state;
    struct config *config = config_create(0, SHARDS);
    struct config_group *groups = mem_calloc(GROUPS_MAX + 1, sizeof *groups);
    for (uint32_t i = 0; i <= GROUPS_MAX; i++) {
        groups[i] = (struct config_group){.id = i + 1, .replica_count = 1};
        groups[i].replicas[0].id = 1;
        snprintf(groups[i].replicas[0].address, sizeof groups[i].replicas[0].address, "h%u:1", i);
    }
    char why[256];
    struct config *next = NULL;
    assert_int_equal(transition_join(config, groups, GROUPS_MAX + 1, &next, why, sizeof why),
                     ERR_TABLE_FULL);
    assert_int_equal(transition_join(config, groups, GROUPS_MAX, &next, why, sizeof why), 0);
    config_free(next);
    config_free(config);
    free(groups);
}

static void test_leave_and_move_bad_input_is_refused(void **state)
{
    (void)state;
    struct config *config = config_create(0, SHARDS);
    join(&config, 1);
    join(&config, 2);
    char why[256];
    struct config *next = NULL;
    const uint64_t stranger = 7, twice[2] = {1, 1}, all[2] = {1, 2};
    assert_int_equal(transition_leave(config, &stranger, 1, false, &next, why, sizeof why),
                     ERR_GROUP_UNKNOWN);
    assert_int_equal(transition_leave(config, twice, 2, false, &next, why, sizeof why),
                     ERR_INVALID);
    assert_int_equal(transition_leave(config, all, 2, false, &next, why, sizeof why),
                     ERR_LAST_GROUP);
    assert_int_equal(transition_leave(config, NULL, 0, false, &next, why, sizeof why), ERR_INVALID);
    assert_int_equal(transition_move(config, SHARDS, 1, &next, why, sizeof why), ERR_SHARD_RANGE);
    assert_non_null(strstr(why, "0 to 9"));
    assert_int_equal(transition_move(config, 0, 7, &next, why, sizeof why), ERR_GROUP_UNKNOWN);
    assert_null(next);
    config_free(config);
}

static void test_update_members_changes_addresses_and_nothing_else(void **state)
{
    (void)state;
    struct config *config = config_create(0, SHARDS);
    join(&config, 1);
    join(&config, 2);
    move(&config, 0, 2); /* not balanced: what is made of it must not be rebalanced */
    move(&config, 1, 2);
    struct config *before = config_clone(config);
    struct config_group members = members_of(2, 4, 17);
    members.departed = true; /* that is for the config to say */
    update(&config, &members);
    assert_memory_equal(config->owners, before->owners, SHARDS * sizeof *config->owners);
    assert_memory_equal(config->sources, before->sources, SHARDS * sizeof *config->sources);
    assert_int_equal(config->group_count, 2);
    const struct config_group *group = config_find_group(config, 2);
    assert_false(group->departed);
    assert_int_equal(group->members_index, 17);
    assert_int_equal(group->replica_count, 2);
    assert_int_equal(group->replicas[1].id, 5);
    assert_string_equal(group->replicas[1].address, "10.9.2.5:7000");
    assert_string_equal(config_find_group(config, 1)->replicas[0].address, "10.0.1.1:7000");
    config_free(before);
    config_free(config);
}

static void test_update_members_not_newer_or_the_same_changes_nothing(void **state)
{
    (void)state;
    struct config *config = config_create(0, SHARDS);
    join(&config, 1);
    struct config_group members = members_of(1, 4, 17);
    update(&config, &members);
    struct config_group other = members_of(1, 6, 17);
    assert_int_equal(update_error(config, &other), 0); /* the same index */
    other.members_index = 16;
    assert_int_equal(update_error(config, &other), 0); /* a lower one */
    members.members_index = 18;
    assert_int_equal(update_error(config, &members), 0); /* a higher one, the same replicas */
    struct config_replica first = members.replicas[0];
    members.replicas[0] = members.replicas[1];
    members.replicas[1] = first;
    assert_int_equal(update_error(config, &members), 0); /* in another order */
    other.members_index = 18;
    update(&config, &other);
    other.replica_count = 1; /* fewer */
    other.members_index = 19;
    update(&config, &other);
    assert_int_equal(config_find_group(config, 1)->replica_count, 1);
    config_free(config);
}

static void test_update_members_of_who_has_left_while_listed(void **state)
{
    (void)state;
    struct config *config = config_create(0, SHARDS);
    join(&config, 1);
    join(&config, 2);
    leave(&config, 1, false);
    struct config_group members = members_of(1, 4, 17);
    update(&config, &members);
    const struct config_group *group = config_find_group(config, 1);
    assert_true(group->departed);
    assert_string_equal(group->replicas[0].address, "10.9.1.4:7000");
    struct config_group two = members_of(2, 4, 9);
    update(&config, &two); /* another group's does not take it off the list */
    assert_string_equal(config_find_group(config, 1)->replicas[0].address, "10.9.1.4:7000");
    join(&config, 1); /* as its administrator says */
    group = config_find_group(config, 1);
    assert_int_equal(group->members_index, 0);
    assert_string_equal(group->replicas[0].address, "10.0.1.1:7000");
    update(&config, &members); /* what its log says is news again */
    assert_string_equal(config_find_group(config, 1)->replicas[0].address, "10.9.1.4:7000");
    config_free(config);
}

static void test_update_members_lists_who_has_left_again(void **state)
{
    (void)state;
    struct config *config = config_create(0, SHARDS);
    join(&config, 1);
    join(&config, 2);
    join(&config, 3);
    leave(&config, 2, false);
    move(&config, 0, 3);
    assert_null(config_find_group(config, 2));
    struct config_group members = members_of(2, 4, 17);
    assert_int_equal(update_error(config, &members), ERR_GROUP_UNKNOWN);
    members.departed = true;
    update(&config, &members);
    assert_int_equal(config->group_count, 3);
    assert_int_equal(config->groups[0].id, 1);
    assert_int_equal(config->groups[1].id, 2);
    assert_int_equal(config->groups[2].id, 3);
    assert_true(config->groups[1].departed);
    assert_string_equal(config->groups[1].replicas[0].address, "10.9.2.4:7000");
    assert_int_equal(update_error(config, &members), 0); /* and once */
    move(&config, 1, 3);
    assert_null(config_find_group(config, 2));
    config_free(config);
}

static void test_update_members_refuses_what_cannot_be(void **state)
{
    (void)state;
    struct config *config = config_create(0, SHARDS);
    join(&config, 1);
    struct config_group members = members_of(7, 4, 17);
    assert_int_equal(update_error(config, &members), ERR_GROUP_UNKNOWN);
    members = members_of(1, 4, 0);
    assert_int_equal(update_error(config, &members), ERR_INVALID);
    members = members_of(1, 4, 17);
    members.replica_count = 0;
    assert_int_equal(update_error(config, &members), ERR_INVALID);
    members = members_of(1, 4, 17);
    members.replicas[1].id = 4;
    assert_int_equal(update_error(config, &members), ERR_INVALID);
    members = members_of(1, 0, 17);
    assert_int_equal(update_error(config, &members), ERR_INVALID);
    members = members_of(1, 4, 17);
    memcpy(members.replicas[1].address, members.replicas[0].address, ADDRESS_BYTES_MAX);
    assert_int_equal(update_error(config, &members), ERR_ADDRESS_IN_USE);
    members = members_of(1, 4, 17);
    memcpy(members.replicas[1].address, "nowhere", sizeof "nowhere");
    assert_int_equal(update_error(config, &members), ERR_INVALID);
    config_free(config);
}

/* A departed group's data is at its source: following owners and sources alone, every shard's data
 * can be found. */
static void test_random_walk_never_loses_a_source(void **state)
{
    (void)state;
    struct rng rng;
    rng_init(&rng, 7);
    struct config *config = config_create(0, SHARDS);
    uint64_t holder[SHARDS] = {0}; /* where the data is once each config is settled */
    for (int round = 0; round < 3000; round++) {
        uint64_t id = rng_between(&rng, 1, 6);
        const struct config_group *group = config_find_group(config, id);
        if (group == NULL || group->departed) {
            join(&config, id);
        } else if (rng_chance(&rng, 1, 2)) {
            leave(&config, id, true);
        } else {
            move(&config, (uint32_t)rng_below(&rng, SHARDS), id);
        }
        for (int shard = 0; shard < SHARDS; shard++) {
            assert_int_equal(config->sources[shard], holder[shard]);
            uint64_t owner = config->owners[shard];
            if (holder[shard] != 0 && owner != holder[shard]) {
                assert_non_null(config_find_group(config, holder[shard]));
            }
            holder[shard] = owner != 0 ? owner : holder[shard];
        }
    }
    config_free(config);
}

/* It is still listed, since its data is; but it takes no shards, and cannot leave once more. */
static void test_departed_group_is_given_nothing(void **state)
{
    (void)state;
    char why[256];
    struct config *config = config_create(0, SHARDS);
    struct config *next = NULL;
    join(&config, 1);
    join(&config, 2);
    leave(&config, 1, false);
    assert_true(config_find_group(config, 1)->departed);
    uint64_t left = 1;
    assert_int_equal(transition_move(config, 0, left, &next, why, sizeof why), ERR_GROUP_UNKNOWN);
    assert_non_null(strstr(why, "group 1 is not in config 3"));
    assert_int_equal(transition_leave(config, &left, 1, true, &next, why, sizeof why),
                     ERR_GROUP_UNKNOWN);
    config_free(config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_departed_group_is_given_nothing),
        cmocka_unit_test(test_update_members_changes_addresses_and_nothing_else),
        cmocka_unit_test(test_update_members_not_newer_or_the_same_changes_nothing),
        cmocka_unit_test(test_update_members_of_who_has_left_while_listed),
        cmocka_unit_test(test_update_members_lists_who_has_left_again),
        cmocka_unit_test(test_update_members_refuses_what_cannot_be),
        cmocka_unit_test(test_join_first_group_owns_all_and_data_comes_from_nobody),
        cmocka_unit_test(test_join_second_group_takes_half_and_names_the_source),
        cmocka_unit_test(test_leave_keeps_the_departed_group_while_its_data_is_wanted),
        cmocka_unit_test(test_leave_of_the_last_group_keeps_the_source_until_a_group_comes),
        cmocka_unit_test(test_move_pins_a_shard_until_the_next_join),
        cmocka_unit_test(test_join_bad_input_is_refused_with_a_reason),
        cmocka_unit_test(test_join_over_the_table_is_refused),
        cmocka_unit_test(test_leave_and_move_bad_input_is_refused),
        cmocka_unit_test(test_random_walk_never_loses_a_source),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
