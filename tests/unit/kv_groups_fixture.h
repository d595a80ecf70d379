/* Shared by the numbered scenarios of the shard state machine: groups 1 and 2, one log each, and
 * short words for what happens to both. */
#ifndef TESTS_UNIT_KV_GROUPS_FIXTURE_H
#define TESTS_UNIT_KV_GROUPS_FIXTURE_H

#include "unit/kv_fixture.h"

enum { SHARDS = 5, GROUP_A = 1, GROUP_B = 2, CLIENTS = 4 };

struct fixture {
    char dir[64]; /* for snapshots */
    struct kv_single a;
    struct kv_single b;
};

/* For cmocka. */
int groups_set_up(void **state);
int groups_tear_down(void **state);
/* Both anew, their logs empty. */
void groups_reopen(struct fixture *fixture);

/* ---- configs; each must be taken ---- */

void config_both(struct fixture *fixture, uint64_t number, const uint64_t owners[SHARDS],
                 const uint64_t sources[SHARDS]);
/* Config 1: every shard is group 1's. */
void all_to_a(struct fixture *fixture);
/* Config 2, after it: shard 0 is to move to group 2. */
void shard_0_to_b(struct fixture *fixture);

/* ---- words for one group; all operations are on the key "k" ---- */

/* A command that consists of no more than this; what it was answered. */
int verb(struct kv_single *single, enum kv_command_kind kind, uint32_t shard, uint64_t number,
         uint64_t group);
struct op append_op(uint32_t shard, uint64_t sequence, const char *value);
struct op_result append(struct kv_single *single, uint64_t client, uint32_t shard,
                        uint64_t sequence, const char *value);
void assert_value(struct kv_single *single, uint32_t shard, const char *wanted);

#define SCENARIO(name) cmocka_unit_test_setup_teardown(name, groups_set_up, groups_tear_down)

#endif
