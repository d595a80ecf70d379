#include "config_test.h"

#include "base/codec.h"
#include "base/rng.h"
#include "shardctrler/history.h"
#include "shardctrler/transition.h"
#include <string.h>

enum { SHARDS = 12, CONFIGS = 300 };

static struct config *random_next(struct rng *rng, const struct config *config)
{
    char why[256];
    struct config *next = NULL;
    uint64_t id = rng_between(rng, 1, 8);
    const struct config_group *group = config_find_group(config, id);
    int error;
    if (rng_chance(rng, 1, 3)) { /* also of one that has left, listed or not */
        struct config_group members = test_group(id);
        members.departed = group == NULL;
        members.members_index =
            (group == NULL ? 0 : group->members_index) + rng_between(rng, 1, 1000);
        members.replicas[rng_below(rng, 3)].id = 100 + members.members_index;
        error = transition_update_members(config, &members, &next, why, sizeof why);
    } else if (group == NULL || group->departed) {
        struct config_group fresh = test_group(id);
        error = transition_join(config, &fresh, 1, &next, why, sizeof why);
    } else if (rng_chance(rng, 1, 2)) {
        error = transition_leave(config, &id, 1, true, &next, why, sizeof why);
    } else {
        error =
            transition_move(config, (uint32_t)rng_below(rng, SHARDS), id, &next, why, sizeof why);
    }
    assert_int_equal(error, 0);
    return next;
}

static void assert_same_config(const struct config *a, const struct config *b)
{
    struct buf x, y;
    buf_init(&x);
    buf_init(&y);
    config_encode(a, &x);
    config_encode(b, &y);
    assert_int_equal(x.size, y.size);
    assert_memory_equal(x.data, y.data, x.size);
    buf_deinit(&x);
    buf_deinit(&y);
}

/* A history of CONFIGS random configs beside plain copies of them all. */
static struct history *grow(uint64_t seed, struct config **copies)
{
    struct rng rng;
    rng_init(&rng, seed);
    struct history *history = history_create(SHARDS);
    copies[0] = config_clone(history_latest(history));
    for (int i = 1; i < CONFIGS; i++) {
        struct config *next = random_next(&rng, history_latest(history));
        copies[i] = config_clone(next);
        assert_int_equal(history_append(history, next), 0);
    }
    return history;
}

static void check_all(const struct history *history, struct config **copies)
{
    for (int i = 0; i < CONFIGS; i++) {
        struct config *config = NULL;
        assert_int_equal(history_get(history, (uint64_t)i, &config), 0);
        assert_same_config(config, copies[i]);
        config_free(config);
    }
    struct config *none = NULL;
    assert_int_equal(history_get(history, CONFIGS, &none), ERR_CONFIG_UNKNOWN);
    assert_null(none);
}

static void test_history_gives_every_config_back_also_after_encoding(void **state)
{
    (void)state;
    struct config *copies[CONFIGS];
    struct history *history = grow(3, copies);
    check_all(history, copies);

    struct buf bytes;
    buf_init(&bytes);
    history_encode(history, &bytes);
    struct reader reader = reader_of(buf_view(&bytes));
    struct history *decoded = NULL;
    assert_int_equal(history_decode(&reader, &decoded), 0);
    assert_true(reader_done(&reader));
    check_all(decoded, copies);

    struct buf again;
    buf_init(&again);
    history_encode(decoded, &again);
    assert_int_equal(again.size, bytes.size);
    assert_memory_equal(again.data, bytes.data, bytes.size);
    buf_deinit(&again);
    buf_deinit(&bytes);
    history_destroy(decoded);
    history_destroy(history);
    for (int i = 0; i < CONFIGS; i++) {
        config_free(copies[i]);
    }
}

static void test_history_cut_bytes_are_refused(void **state)
{
    (void)state;
    struct config *copies[CONFIGS];
    struct history *history = grow(4, copies);
    struct buf bytes;
    buf_init(&bytes);
    history_encode(history, &bytes);
    for (size_t size = 0; size < bytes.size; size += 1 + size / 40) {
        struct reader reader = reader_of(bytes_of(bytes.data, size));
        struct history *decoded = NULL;
        assert_int_equal(history_decode(&reader, &decoded), ERR_CORRUPT);
        assert_null(decoded);
    }
    buf_deinit(&bytes);
    history_destroy(history);
    for (int i = 0; i < CONFIGS; i++) {
        config_free(copies[i]);
    }
}

/* Decodes a stored history of two configs: `first` whole, then the record `second`. takes both. */
static int decode_after(struct config *first, struct buf *second)
{
    struct buf bytes, record;
    buf_init(&bytes);
    buf_init(&record);
    put_varint(&bytes, 2);
    put_u8(&record, 1);
    config_encode(first, &record);
    put_sized(&bytes, buf_view(&record));
    put_sized(&bytes, buf_view(second));
    struct reader reader = reader_of(buf_view(&bytes));
    struct history *history = NULL;
    int error = history_decode(&reader, &history);
    history_destroy(history);
    config_free(first);
    buf_deinit(second);
    buf_deinit(&record);
    buf_deinit(&bytes);
    return error;
}

/* The second as a difference: one shard has another owner. */
static int decode_two(uint64_t first_number, uint64_t owner)
{
    struct buf second;
    buf_init(&second);
    put_u8(&second, 2);
    put_varint(&second, 1);
    put_varint(&second, 0);
    put_varint(&second, owner);
    put_u8(&second, 0);
    return decode_after(config_create(first_number, SHARDS), &second);
}

/* The second says that the first's group 1 has other members; or that there is such a group, which
 * has left, or has not. */
static int decode_members_of(bool known, bool departed)
{
    struct config *first = config_create(0, SHARDS);
    struct config *bare = config_create(1, 1);
    struct config_group group = test_group(1);
    first->groups = mem_dup(&group, sizeof group);
    group.departed = departed;
    bare->groups = mem_dup(&group, sizeof group);
    first->group_count = known ? 1 : 0;
    bare->group_count = 1;
    struct buf second;
    buf_init(&second);
    put_u8(&second, 3);
    config_encode(bare, &second);
    config_free(bare);
    return decode_after(first, &second);
}

static void test_history_that_cannot_be_is_refused(void **state)
{
    (void)state;
    assert_int_equal(decode_two(0, 0), 0);
    assert_int_equal(decode_two(1, 0), ERR_CORRUPT); /* config 1 in the place of config 0 */
    assert_int_equal(decode_two(0, 9), ERR_CORRUPT); /* nobody is group 9 */
    assert_int_equal(decode_members_of(true, false), 0);
    assert_int_equal(decode_members_of(false, true), 0);
    assert_int_equal(decode_members_of(false, false), ERR_CORRUPT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_history_gives_every_config_back_also_after_encoding),
        cmocka_unit_test(test_history_cut_bytes_are_refused),
        cmocka_unit_test(test_history_that_cannot_be_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
