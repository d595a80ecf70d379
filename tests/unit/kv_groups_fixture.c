/* See kv_groups_fixture.h. */
#include "unit/kv_groups_fixture.h"

#include <stdio.h>
#include <stdlib.h>

int groups_set_up(void **state)
{
    struct fixture *fixture = test_calloc(1, sizeof *fixture);
    snprintf(fixture->dir, sizeof fixture->dir, "/tmp/shardkv-scenarios-XXXXXX");
    assert_non_null(mkdtemp(fixture->dir));
    kv_single_open(&fixture->a, GROUP_A);
    kv_single_open(&fixture->b, GROUP_B);
    *state = fixture;
    return 0;
}

int groups_tear_down(void **state)
{
    struct fixture *fixture = *state;
    kv_single_close(&fixture->a);
    kv_single_close(&fixture->b);
    assert_int_equal(vfs_system()->remove_tree(vfs_system()->context, fixture->dir), 0);
    test_free(fixture);
    return 0;
}

void groups_reopen(struct fixture *fixture)
{
    kv_single_close(&fixture->a);
    kv_single_close(&fixture->b);
    kv_single_open(&fixture->a, GROUP_A);
    kv_single_open(&fixture->b, GROUP_B);
}

/* ---- configs ---- */

void config_both(struct fixture *fixture, uint64_t number, const uint64_t owners[SHARDS],
                 const uint64_t sources[SHARDS])
{
    assert_int_equal(kv_single_config(&fixture->a, number, SHARDS, owners, sources), 0);
    assert_int_equal(kv_single_config(&fixture->b, number, SHARDS, owners, sources), 0);
}

void all_to_a(struct fixture *fixture)
{
    config_both(fixture, 1, (const uint64_t[SHARDS]){1, 1, 1, 1, 1}, (const uint64_t[SHARDS]){0});
}

void shard_0_to_b(struct fixture *fixture)
{
    config_both(fixture, 2, (const uint64_t[SHARDS]){2, 1, 1, 1, 1},
                (const uint64_t[SHARDS]){1, 1, 1, 1, 1});
}

/* ---- words for one group ---- */

int verb(struct kv_single *single, enum kv_command_kind kind, uint32_t shard, uint64_t number,
         uint64_t group)
{
    return kv_single_run(
        single,
        &(struct kv_command){.kind = kind, .shard = shard, .number = number, .group = group});
}

struct op append_op(uint32_t shard, uint64_t sequence, const char *value)
{
    return (struct op){.kind = OP_APPEND,
                       .sequence = sequence,
                       .shard = shard,
                       .key = KEY("k"),
                       .value = KEY(value)};
}

struct op_result append(struct kv_single *single, uint64_t client, uint32_t shard,
                        uint64_t sequence, const char *value)
{
    struct op op = append_op(shard, sequence, value);
    return kv_single_op(single, client, &op);
}

void assert_value(struct kv_single *single, uint32_t shard, const char *wanted)
{
    struct buf value = {0};
    assert_int_equal(kv_single_get(single, shard, "k", &value).error, 0);
    assert_string_equal(value.data, wanted);
    buf_deinit(&value);
}
