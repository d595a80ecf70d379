/* key -> shard, for ever: vectors computed by a separate implementation of XXH64 written from its
 * specification. */
#include "unit/proto_test.h"

#include "proto/shard_hash.h"

struct vector {
    const char *text;
    uint64_t hash;
};

static const struct vector vectors[] = {
    {"", 0xef46db3751d8e999},
    {"a", 0xd24ec4f1a98c6e5b},
    {"abc", 0x44bc2cf5ad770999},
    {"user:1000", 0x4836ae4227b0500a},
    {"tag", 0xb119f51982d2aab1},
    {"0123456789abcdef0123456789abcdef", 0x642a94958e71e6c5},
    {"0123456789abcdef0123456789abcdef0123456", 0xe97f503d26863ecd},
};

static uint32_t shard_of(const char *key, uint32_t shard_count)
{
    return shard_of_key(bytes_of_string(key), shard_count);
}

static void test_shard_of_key_pinned_keys_never_change(void **state)
{
    (void)state;
    static const uint32_t shard_counts[] = {1, 7, 64, 1024, 16384};
    for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
        for (size_t j = 0; j < sizeof(shard_counts) / sizeof(shard_counts[0]); j++) {
            assert_int_equal(shard_of(vectors[i].text, shard_counts[j]),
                             vectors[i].hash % shard_counts[j]);
        }
    }
    /* And as plain numbers, so that a slip in this file's arithmetic cannot hide one. */
    assert_int_equal(shard_of("user:1000", 16384), 4106);
    assert_int_equal(shard_of("user:1000", 7), 2);
    assert_int_equal(shard_of("a", 1024), 603);
    assert_int_equal(shard_of("anything", 1), 0);
}

static void test_shard_of_key_all_byte_values_are_hashed(void **state)
{
    (void)state;
    uint8_t key[256];
    for (size_t i = 0; i < sizeof(key); i++) {
        key[i] = (uint8_t)i;
    }
    /* '{' and '}' stand at 123 and 125: with '|' between, only that is hashed. */
    assert_bytes_equal(shard_hash_tag(bytes_of(key, sizeof(key))), bytes_of_string("|"));
    key['{'] = 'x';
    assert_int_equal(shard_hash_tag(bytes_of(key, sizeof(key))).size, sizeof(key));
}

static void test_shard_hash_tag_rule_of_braces(void **state)
{
    (void)state;
    static const struct {
        const char *key;
        const char *hashed;
    } cases[] = {
        {"", ""},
        {"plain", "plain"},
        {"{tag}", "tag"},
        {"a{tag}b", "tag"},
        {"{a}{b}", "a"},
        {"{{a}}", "{a"},
        {"x}{a}", "a"},
        {"{}", "{}"},
        {"{}{a}", "{}{a}"},
        {"{", "{"},
        {"a{", "a{"},
        {"{open", "{open"},
        {"}close{", "}close{"},
        {"a}b", "a}b"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_bytes_equal(shard_hash_tag(bytes_of_string(cases[i].key)),
                           bytes_of_string(cases[i].hashed));
    }
}

static void test_shard_of_key_same_tag_same_shard(void **state)
{
    (void)state;
    uint32_t shard = 0xb119f51982d2aab1ull % 16384; /* of "tag" */
    assert_int_equal(shard_of("{tag}", 16384), shard);
    assert_int_equal(shard_of("cart:{tag}:1", 16384), shard);
    assert_int_equal(shard_of("user:{tag}", 16384), shard);
}

static void test_shard_hash_tag_at_the_end_of_memory_is_not_read_past(void **state)
{
    (void)state;
    struct guarded guarded = guarded_create(16);
    static const char *keys[] = {"", "{", "a{", "{a", "{}", "{a}"};
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        struct bytes key = guarded_put(&guarded, bytes_of_string(keys[i]));
        assert_true(shard_of_key(key, 16) < 16);
    }
    assert_int_equal(shard_of_key(BYTES_EMPTY, 16384), 0xef46db3751d8e999ull % 16384);
    guarded_destroy(&guarded);
}

static void test_cluster_id_of_name_pinned(void **state)
{
    (void)state;
    assert_true(cluster_id_of_name("demo") == 0xefdba5e3b5068178ull);
    assert_true(cluster_id_of_name("") == 0xef46db3751d8e999ull);
    assert_true(cluster_id_of_name("demo") != cluster_id_of_name("demp"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shard_of_key_pinned_keys_never_change),
        cmocka_unit_test(test_shard_of_key_all_byte_values_are_hashed),
        cmocka_unit_test(test_shard_hash_tag_rule_of_braces),
        cmocka_unit_test(test_shard_of_key_same_tag_same_shard),
        cmocka_unit_test(test_shard_hash_tag_at_the_end_of_memory_is_not_read_past),
        cmocka_unit_test(test_cluster_id_of_name_pinned),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
