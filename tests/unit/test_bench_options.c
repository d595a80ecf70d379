/* The benchmark's command line, and the few messages of etcd it knows. */
#include "unit/base_test.h"

#include "base/clock.h"
#include "base/error.h"
#include "bench/etcd.h"
#include "bench/options.h"
#include <stdlib.h>
#include <string.h>

static int parse(struct bench_options *out, char *message, size_t size, const char *line)
{
    char copy[512], *argv[32], *at = NULL;
    int argc = 0;
    snprintf(copy, sizeof copy, "%s", line);
    for (char *word = strtok_r(copy, " ", &at); word != NULL; word = strtok_r(NULL, " ", &at)) {
        argv[argc++] = word;
    }
    argv[argc] = NULL;
    return bench_options_parse(argc, argv, out, stdout, message, size);
}

static void refuse(const char *line, const char *named)
{
    struct bench_options options;
    char message[512] = "";
    assert_int_equal(parse(&options, message, sizeof message, line), ERR_INVALID);
    assert_non_null(strstr(message, named));
}

static void test_options_defaults_are_the_documented_ones(void **state)
{
    (void)state;
    struct bench_options options;
    char message[512];
    assert_int_equal(parse(&options, message, sizeof message, "bench --controllers=127.0.0.1:7000"),
                     ERR_OK);
    assert_int_equal(options.target, BENCH_LIBRARY);
    assert_int_equal(options.keys, 100000);
    assert_int_equal(options.key_bytes, 16);
    assert_int_equal(options.value_bytes, 128);
    assert_int_equal(options.mix.percent[BENCH_PUT], 100);
    assert_int_equal(options.rate, 0);
    assert_true(options.preload);
}

static void test_options_etcd_and_open_loop_are_taken(void **state)
{
    (void)state;
    struct bench_options options;
    char message[512];
    assert_int_equal(parse(&options, message, sizeof message,
                           "bench --target=etcd --endpoints=127.0.0.1:1 --mix=get=90,put=10 "
                           "--distribution=latest --rate=500 --duration=250ms --event=true "
                           "--event-at=100ms"),
                     ERR_OK);
    assert_int_equal(options.target, BENCH_ETCD);
    assert_int_equal(options.mix.percent[BENCH_GET], 90);
    assert_int_equal(options.distribution, KEY_LATEST);
    assert_int_equal(options.rate, 500);
    assert_int_equal(options.duration_ns, 250 * NS_PER_MS);
}

static void test_options_what_makes_no_sense_is_refused_by_name(void **state)
{
    (void)state;
    unsetenv("SHARDKV_CONTROLLERS");
    refuse("bench", "--controllers");
    refuse("bench --target=redis", "--target=redis");
    refuse("bench --target=etcd", "--endpoints");
    refuse("bench --target=etcd --endpoints=a:1 --unary", "--unary");
    refuse("bench --target=etcd --endpoints=a:1 --mix=cas=100", "--mix=cas=100");
    refuse("bench --controllers=a:1 --mix=get=50,put=49", "--mix");
    refuse("bench --controllers=a:1 --distribution=normal", "--distribution=normal");
    refuse("bench --controllers=a:1 --keys=1001 --key-size=3", "--key-size=3");
    refuse("bench --controllers=a:1 --clients=8 --outstanding=4", "--clients=8");
    refuse("bench --controllers=a:1 --event=true --event-at=20s --duration=10s", "--event-at");
    refuse("bench --controllers=a:1 stray", "stray");
}

static void test_mix_is_parsed_strictly(void **state)
{
    (void)state;
    struct bench_mix mix;
    assert_int_equal(bench_mix_parse("get=40,put=30,append=20,cas=10", &mix), ERR_OK);
    assert_int_equal(mix.percent[BENCH_CAS], 10);
    static const char *const wrong[] = {"",         "get",           "get=101",    "get=50,get=50",
                                        "get=100x", "get=0,put=100", "delete=100", "get=60,put=60"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_int_equal(bench_mix_parse(wrong[i], &mix), ERR_INVALID);
    }
}

static void test_etcd_requests_have_protobufs_bytes(void **state)
{
    (void)state;
    struct buf out;
    buf_init(&out);
    etcd_put_request_encode(bytes_of_string("key"), bytes_of_string("v"), &out);
    assert_int_equal(out.size, 8);
    assert_memory_equal(out.data, "\x0a\x03key\x12\x01v", 8);
    buf_clear(&out);
    etcd_range_request_encode(bytes_of_string("k"), &out);
    assert_int_equal(out.size, 3);
    assert_memory_equal(out.data, "\x0a\x01k", 3);
    buf_deinit(&out);
}

static void test_etcd_range_response_is_read_and_cut_ones_refused(void **state)
{
    (void)state;
    /* header {member_id 7, revision 300}, kv {key "k", mod_revision 5, value "vv"}, count 1 */
    static const uint8_t reply[] = {0x0a, 5,   0x10, 7, 0x18, 0xac, 2,   0x12, 9,    0x0a,
                                    1,    'k', 0x18, 5, 0x2a, 2,    'v', 'v',  0x20, 1};
    struct etcd_range_response response;
    assert_int_equal(etcd_range_response_decode(bytes_of(reply, sizeof reply), &response), ERR_OK);
    assert_int_equal(response.header.member_id, 7);
    assert_int_equal(response.header.revision, 300);
    assert_int_equal(response.mod_revision, 5);
    assert_int_equal(response.count, 1);
    assert_int_equal(response.value.size, 2);
    assert_memory_equal(response.value.data, "vv", 2);
    for (size_t size = 8; size < sizeof reply; size++) {
        assert_int_equal(etcd_range_response_decode(bytes_of(reply, size), &response),
                         ERR_PROTOCOL);
    }
    assert_int_equal(etcd_range_response_decode(bytes_of(reply, 7), &response), ERR_OK);
    assert_int_equal(response.count, 0); /* not found */
}

static void test_etcd_status_tells_the_leader(void **state)
{
    (void)state;
    static const uint8_t reply[] = {0x0a, 2, 0x10, 9, 0x12, 1, '3', 0x18, 100, 0x20, 9};
    struct etcd_status_response response;
    assert_int_equal(etcd_status_response_decode(bytes_of(reply, sizeof reply), &response), ERR_OK);
    assert_int_equal(response.header.member_id, 9);
    assert_int_equal(response.leader, 9);
    static const uint8_t groups[] = {0x0b}; /* a wire type that proto3 does not have */
    assert_int_equal(etcd_status_response_decode(bytes_of(groups, sizeof groups), &response),
                     ERR_PROTOCOL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_options_defaults_are_the_documented_ones),
        cmocka_unit_test(test_options_etcd_and_open_loop_are_taken),
        cmocka_unit_test(test_options_what_makes_no_sense_is_refused_by_name),
        cmocka_unit_test(test_mix_is_parsed_strictly),
        cmocka_unit_test(test_etcd_requests_have_protobufs_bytes),
        cmocka_unit_test(test_etcd_range_response_is_read_and_cut_ones_refused),
        cmocka_unit_test(test_etcd_status_tells_the_leader),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
