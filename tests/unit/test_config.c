/* Configs: lookups, clones, shares; what config_decode accepts and each thing it refuses. */
#include "unit/proto_test.h"

#include "proto/config.h"
#include <pthread.h>
#include <stdio.h>

static void set_group(struct config_group *group, uint64_t id, uint32_t replica_count)
{
    group->id = id;
    group->replica_count = replica_count;
    for (uint32_t i = 0; i < replica_count; i++) {
        group->replicas[i].id = id * 10 + i;
        (void)snprintf(group->replicas[i].address, ADDRESS_BYTES_MAX, "10.0.%u.%u:7000",
                       (unsigned)id, (unsigned)i);
    }
}

/* Four shards, three groups; 300 has left and is still the source of shard 2. */
static struct config *sample(void)
{
    struct config *config = config_create(12, 4);
    config->group_count = 3;
    config->groups = mem_calloc(3, sizeof(*config->groups));
    set_group(&config->groups[0], 100, 3);
    set_group(&config->groups[1], 200, 1);
    set_group(&config->groups[2], 300, GROUP_REPLICAS_MAX);
    config->groups[2].departed = true;
    config->groups[1].members_index = 77;
    static const uint64_t owners[] = {100, 200, 200, 0};
    static const uint64_t sources[] = {100, 0, 300, 300};
    memcpy(config->owners, owners, sizeof(owners));
    memcpy(config->sources, sources, sizeof(sources));
    return config;
}

static void assert_configs_equal(const struct config *a, const struct config *b)
{
    assert_true(a->number == b->number);
    assert_int_equal(a->shard_count, b->shard_count);
    assert_memory_equal(a->owners, b->owners, a->shard_count * sizeof(*a->owners));
    assert_memory_equal(a->sources, b->sources, a->shard_count * sizeof(*a->sources));
    assert_int_equal(a->group_count, b->group_count);
    for (uint32_t i = 0; i < a->group_count; i++) {
        assert_true(a->groups[i].id == b->groups[i].id);
        assert_int_equal(a->groups[i].departed, b->groups[i].departed);
        assert_int_equal(a->groups[i].members_index, b->groups[i].members_index);
        assert_int_equal(a->groups[i].replica_count, b->groups[i].replica_count);
        for (uint32_t j = 0; j < a->groups[i].replica_count; j++) {
            assert_true(a->groups[i].replicas[j].id == b->groups[i].replicas[j].id);
            assert_string_equal(a->groups[i].replicas[j].address, b->groups[i].replicas[j].address);
        }
    }
}

static int encode_decode(const struct config *config, struct config **out)
{
    struct buf bytes;
    buf_init(&bytes);
    config_encode(config, &bytes);
    int error = config_decode(buf_view(&bytes), out);
    buf_deinit(&bytes);
    return error;
}

static void test_config_round_trips(void **state)
{
    (void)state;
    struct config *config = sample();
    struct config *decoded;
    assert_int_equal(encode_decode(config, &decoded), ERR_OK);
    assert_configs_equal(decoded, config);
    config_free(decoded);
    config_free(config);

    struct config *empty = config_create(0, SHARD_COUNT_MAX);
    assert_int_equal(encode_decode(empty, &decoded), ERR_OK);
    assert_configs_equal(decoded, empty);
    config_free(decoded);
    config_free(empty);
}

static void test_config_bytes_are_pinned(void **state)
{
    (void)state;
    struct config *config = config_create(5, 2);
    config->group_count = 1;
    config->groups = mem_calloc(1, sizeof(*config->groups));
    config->groups[0].id = 300;
    config->groups[0].replica_count = 1;
    config->groups[0].replicas[0].id = 1;
    memcpy(config->groups[0].replicas[0].address, "h:1", 4);
    config->owners[0] = 300;
    struct buf bytes;
    buf_init(&bytes);
    config_encode(config, &bytes);
    /* By hand from the .proto: number, shard_count, owners, sources, one group of one replica. */
    static const uint8_t expected[] = {0x08, 5, 0x10, 2, 0x1a, 3,  0xac, 2,    0,
                                       0x22, 2, 0,    0, 0x2a, 12, 0x08, 0xac, 2,
                                       0x12, 7, 0x08, 1, 0x12, 3,  'h',  ':',  '1'};
    assert_bytes_equal(buf_view(&bytes), bytes_of(expected, sizeof(expected)));
    buf_deinit(&bytes);
    config_free(config);
}

static void test_config_decode_takes_unpacked_tables(void **state)
{
    (void)state;
    /* The same as above, owners and sources each a field of their own. */
    static const uint8_t bytes[] = {0x08, 5, 0x10, 2, 0x18, 0xac, 2,    0x18, 0,
                                    0x20, 0, 0x20, 0, 0x2a, 12,   0x08, 0xac, 2,
                                    0x12, 7, 0x08, 1, 0x12, 3,    'h',  ':',  '1'};
    struct config *config;
    assert_int_equal(config_decode(bytes_of(bytes, sizeof(bytes)), &config), ERR_OK);
    assert_int_equal(config->owners[0], 300);
    assert_int_equal(config->owners[1], 0);
    config_free(config);
}

static void test_config_largest_round_trips_within_a_message(void **state)
{
    (void)state;
    struct config *config = config_create(UINT64_MAX, SHARD_COUNT_MAX);
    config->group_count = GROUPS_MAX;
    config->groups = mem_calloc(GROUPS_MAX, sizeof(*config->groups));
    for (uint32_t i = 0; i < GROUPS_MAX; i++) {
        struct config_group *group = &config->groups[i];
        group->id = UINT64_MAX - GROUPS_MAX + i;
        group->replica_count = GROUP_REPLICAS_MAX;
        for (uint32_t j = 0; j < GROUP_REPLICAS_MAX; j++) {
            group->replicas[j].id = UINT64_MAX - j;
            memset(group->replicas[j].address, 'a', ADDRESS_BYTES_MAX - 1);
        }
    }
    for (uint32_t i = 0; i < SHARD_COUNT_MAX; i++) {
        config->owners[i] = config->groups[i % GROUPS_MAX].id;
        config->sources[i] = config->groups[(i + 1) % GROUPS_MAX].id;
    }
    struct buf bytes;
    buf_init(&bytes);
    config_encode(config, &bytes);
    assert_true(bytes.size < MESSAGE_BYTES_MAX);
    struct config *decoded;
    assert_int_equal(config_decode(buf_view(&bytes), &decoded), ERR_OK);
    assert_configs_equal(decoded, config);
    config_free(decoded);

    /* One group more: its field once again at the end. */
    buf_append(&bytes, "\x2a\x00", 2);
    assert_int_equal(config_decode(buf_view(&bytes), &decoded), ERR_TOO_LARGE);
    assert_null(decoded);
    bytes.size -= 2;
    buf_append(&bytes, "\x18\x00", 2); /* one owner more */
    assert_int_equal(config_decode(buf_view(&bytes), &decoded), ERR_TOO_LARGE);
    assert_null(decoded);
    buf_deinit(&bytes);
    config_free(config);
}

/* Each change makes a config that config_decode must refuse. */
static void break_owner(struct config *config)
{
    config->owners[0] = 101;
}
static void break_owner_departed(struct config *config)
{
    config->owners[0] = 300;
}
static void break_source(struct config *config)
{
    config->sources[3] = 400;
}
static void break_order(struct config *config)
{
    config->groups[1].id = 100;
}
static void break_zero_id(struct config *config)
{
    config->groups[0].id = 0;
    config->owners[0] = 0;
    config->sources[0] = 0;
}
static void break_no_replicas(struct config *config)
{
    config->groups[0].replica_count = 0;
}
static void break_replica_zero(struct config *config)
{
    config->groups[0].replicas[1].id = 0;
}
static void break_replica_twice(struct config *config)
{
    config->groups[0].replicas[2].id = config->groups[0].replicas[0].id;
}
static void break_address_empty(struct config *config)
{
    config->groups[1].replicas[0].address[0] = '\0';
}
static void break_address_space(struct config *config)
{
    config->groups[1].replicas[0].address[0] = ' ';
}
static void break_address_control(struct config *config)
{
    config->groups[1].replicas[0].address[0] = '\n';
}
static void break_address_not_ascii(struct config *config)
{
    config->groups[1].replicas[0].address[0] = (char)0xc3;
}

static void test_config_decode_refuses_what_makes_no_sense(void **state)
{
    (void)state;
    static void (*const breaks[])(struct config * config) = {
        break_owner,         break_owner_departed, break_source,          break_order,
        break_zero_id,       break_no_replicas,    break_replica_zero,    break_replica_twice,
        break_address_empty, break_address_space,  break_address_control, break_address_not_ascii,
    };
    for (size_t i = 0; i < sizeof(breaks) / sizeof(breaks[0]); i++) {
        struct config *config = sample();
        struct config *decoded;
        breaks[i](config);
        assert_int_equal(encode_decode(config, &decoded), ERR_PROTOCOL);
        assert_null(decoded);
        config_free(config);
    }
}

static void test_config_decode_table_of_another_length_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t size;
    } cases[] = {
        {"", 0},                                          /* no shards */
        {"\x10\x02", 2},                                  /* no tables */
        {"\x10\x02\x1a\x02\x00\x00\x22\x01\x00", 9},      /* one source short */
        {"\x10\x01\x1a\x02\x00\x00\x22\x01\x00", 9},      /* one owner over */
        {"\x10\x81\x80\x01\x1a\x01\x00\x22\x01\x00", 10}, /* 16385 shards */
        {"\x10\x01\x1a\x01\x80\x22\x01\x00", 8},          /* a packed number that is cut off */
        {"\x10\x01\x1d\x00\x00\x00\x00\x22\x01\x00", 10}, /* owners as a fixed32 */
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct config *decoded;
        int error = config_decode(bytes_of(cases[i].bytes, cases[i].size), &decoded);
        assert_int_equal(error, ERR_PROTOCOL);
        assert_null(decoded);
    }
    struct config *decoded;
    static const char right[] = "\x10\x01\x1a\x01\x00\x22\x01\x00";
    assert_int_equal(config_decode(bytes_of(right, 8), &decoded), ERR_OK);
    config_free(decoded);
}

static void test_config_find_group_finds_each_and_no_other(void **state)
{
    (void)state;
    struct config *config = sample();
    for (uint32_t i = 0; i < config->group_count; i++) {
        assert_ptr_equal(config_find_group(config, config->groups[i].id), &config->groups[i]);
    }
    assert_null(config_find_group(config, 0));
    assert_null(config_find_group(config, 99));
    assert_null(config_find_group(config, 150));
    assert_null(config_find_group(config, UINT64_MAX));
    config_free(config);
    struct config *empty = config_create(0, 1);
    assert_null(config_find_group(empty, 1));
    config_free(empty);
    config_free(NULL);
}

static void test_config_clone_is_private(void **state)
{
    (void)state;
    struct config *config = sample();
    struct config *clone = config_clone(config);
    assert_configs_equal(clone, config);
    clone->owners[0] = 200;
    clone->sources[0] = 200;
    clone->groups[0].id = 1;
    assert_int_equal(config->owners[0], 100);
    assert_int_equal(config->sources[0], 100);
    assert_int_equal(config->groups[0].id, 100);
    config_free(clone);
    config_free(config);
    struct config *empty = config_create(0, 1);
    clone = config_clone(empty);
    assert_configs_equal(clone, empty);
    config_free(clone);
    config_free(empty);
}

static void *share_many_times(void *context)
{
    struct config_share *share = context;
    for (uint32_t i = 0; i < 20000; i++) {
        struct config_share *mine = config_share_ref(share);
        if (config_share_get(mine)->owners[0] != 100) {
            return context;
        }
        config_share_unref(mine);
    }
    config_share_unref(share);
    return NULL;
}

static void test_config_share_counts_across_threads(void **state)
{
    (void)state;
    struct config_share *share = config_share_create(sample());
    assert_int_equal(config_share_get(share)->number, 12);
    assert_null(config_share_ref(NULL));
    config_share_unref(NULL);
    pthread_t threads[2];
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(
            pthread_create(&threads[i], NULL, share_many_times, config_share_ref(share)), 0);
    }
    config_share_unref(share); /* the threads' references keep it; the last one frees it */
    for (size_t i = 0; i < 2; i++) {
        void *result = NULL;
        assert_int_equal(pthread_join(threads[i], &result), 0);
        assert_null(result);
    }
}

static void test_shard_state_name_names_each(void **state)
{
    (void)state;
    assert_string_equal(shard_state_name(SHARD_ABSENT), "absent");
    assert_string_equal(shard_state_name(SHARD_SERVING), "serving");
    assert_string_equal(shard_state_name(SHARD_PULLING), "pulling");
    assert_string_equal(shard_state_name(SHARD_FROZEN), "frozen");
    assert_string_equal(shard_state_name(SHARD_DROPPING), "dropping");
    assert_string_equal(shard_state_name((enum shard_state)9), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_config_round_trips),
        cmocka_unit_test(test_config_bytes_are_pinned),
        cmocka_unit_test(test_config_decode_takes_unpacked_tables),
        cmocka_unit_test(test_config_largest_round_trips_within_a_message),
        cmocka_unit_test(test_config_decode_refuses_what_makes_no_sense),
        cmocka_unit_test(test_config_decode_table_of_another_length_is_refused),
        cmocka_unit_test(test_config_find_group_finds_each_and_no_other),
        cmocka_unit_test(test_config_clone_is_private),
        cmocka_unit_test(test_config_share_counts_across_threads),
        cmocka_unit_test(test_shard_state_name_names_each),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
