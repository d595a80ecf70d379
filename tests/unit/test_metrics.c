/* Metrics: what a scrape sees. */
#include "unit/base_test.h"

#include "base/metrics.h"

#include <pthread.h>

/* Defined out of order on purpose. */
METRIC(zebra_count, COUNTER, "stripes seen")
METRIC(apple_bytes, GAUGE, "weight")

static void test_metrics_text_is_sorted_exposition(void **state)
{
    (void)state;
    metric_set(&zebra_count, 0);
    metric_add(&zebra_count, 2);
    metric_add(&zebra_count, 3);
    metric_set(&apple_bytes, 17);
    metric_set(&apple_bytes, UINT64_MAX);
    assert_int_equal(metric_get(&zebra_count), 5);
    struct buf text;
    buf_init(&text);
    buf_append(&text, "#\n", 2); /* appends, does not replace */
    metrics_text(&text);
    buf_append(&text, "", 1);
    assert_string_equal((const char *)text.data, "#\n"
                                                 "# HELP shardkv_apple_bytes weight\n"
                                                 "# TYPE shardkv_apple_bytes gauge\n"
                                                 "shardkv_apple_bytes 18446744073709551615\n"
                                                 "# HELP shardkv_zebra_count stripes seen\n"
                                                 "# TYPE shardkv_zebra_count counter\n"
                                                 "shardkv_zebra_count 5\n");
    buf_deinit(&text);
}

static void register_second(void *context)
{
    (void)context;
    static struct metric second = {.name = "zebra_count", .help = "", .kind = METRIC_COUNTER};
    metric_register(&second);
}

static void test_metrics_same_name_twice_stops_the_process(void **state)
{
    (void)state;
    assert_aborts(register_second, NULL, "assertion failed");
}

static void *add_many(void *context)
{
    struct metric *metric = context;
    for (int i = 0; i < 10000; i++) {
        metric_add(metric, 1);
    }
    return NULL;
}

static void test_metrics_added_by_threads_lose_nothing(void **state)
{
    (void)state;
    metric_set(&zebra_count, 0);
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, add_many, &zebra_count), 0);
    }
    for (int i = 0; i < 4; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    assert_int_equal(metric_get(&zebra_count), 40000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_metrics_text_is_sorted_exposition),
        cmocka_unit_test(test_metrics_same_name_twice_stops_the_process),
        cmocka_unit_test(test_metrics_added_by_threads_lose_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
