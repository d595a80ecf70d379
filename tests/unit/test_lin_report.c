/* What a check says: text, JSON and picture. */
#include "unit/base_test.h"

#include "lin/generate.h"
#include "lin/report.h"

#include <jansson.h>

static struct lin_history *history;
static struct lin_result result;
static struct buf out;

static struct lin_value text_value(const char *text)
{
    return lin_value_of(text, strlen(text));
}

static int begin(void **state)
{
    (void)state;
    history = lin_history_create();
    buf_init(&out);
    return 0;
}

static int end(void **state)
{
    (void)state;
    lin_result_deinit(&result);
    lin_history_destroy(history);
    buf_deinit(&out);
    return 0;
}

static void add(enum lin_kind kind, uint64_t process, uint64_t from, uint64_t to, const char *text)
{
    struct lin_op op = {.kind = kind,
                        .process = process,
                        .called_ns = from,
                        .returned_ns = to,
                        .key = bytes_of_string("<k&\"\n\xff>"),
                        .line = from};
    *(kind == LIN_GET ? &op.observed : &op.argument) = text_value(text);
    lin_history_add(history, &op);
}

/* A stale read: put old, put new, get old; the new one's append is open and does not matter. */
static void make_stale(void)
{
    add(LIN_PUT, 1, 10, 20, "old <&>");
    add(LIN_PUT, 1, 30, 40, "new");
    add(LIN_APPEND, 2, 35, LIN_NEVER, "x");
    add(LIN_GET, 3, 50, 60, "old <&>");
    assert_int_equal(lin_check(history, &(struct lin_limits){.explain = true}, &result),
                     LIN_BROKEN);
}

static const char *said(void)
{
    buf_append(&out, "", 1);
    return (const char *)out.data;
}

static void assert_says(const char *words)
{
    if (strstr(said(), words) == NULL) {
        fail_msg("'%s' is not in '%s'", words, said());
    }
}

static size_t count_of(const char *words)
{
    size_t count = 0;
    for (const char *at = said(); (at = strstr(at, words)) != NULL; at++) {
        count++;
    }
    return count;
}

/* Every tag that is opened is closed in order, and no text holds what would open one. */
static void assert_well_formed(void)
{
    char open[16][16];
    size_t depth = 0;
    const char *at = said();
    while ((at = strchr(at, '<')) != NULL) {
        const char *close = strchr(at, '>');
        const char *another = strchr(at + 1, '<');
        assert_non_null(close);
        assert_true(another == NULL || close < another);
        size_t name = strcspn(at + 1 + (at[1] == '/'), " />");
        assert_in_range(name, 1, 15);
        if (at[1] == '/') {
            assert_true(depth > 0);
            depth--;
            assert_int_equal(strlen(open[depth]), name);
            assert_memory_equal(open[depth], at + 2, name);
        } else if (close[-1] != '/') {
            assert_true(depth < 16);
            memcpy(open[depth], at + 1, name);
            open[depth++][name] = '\0';
        }
        at = close;
    }
    assert_int_equal(depth, 0);
    for (const char *c = said(); *c != '\0'; c++) {
        assert_true(*c == '\n' || (*c >= 0x20 && *c < 0x7f));
    }
}

static void test_report_text_names_key_culprit_and_evidence(void **state)
{
    (void)state;
    make_stale();
    lin_report_text(&result, &out);
    assert_says("NOT LINEARIZABLE: key \"<k&\\\"\\x0a\\xff>\"");
    assert_says("process 3    get -> \"old <&>\"  (line 50)");
    assert_says("put \"new\"  (line 30)");
    assert_says("none of which can be left out");
    assert_int_equal(count_of("append"), 0);
    assert_int_equal(result.failure.core_count, 3);
}

static void test_report_json_is_one_object(void **state)
{
    (void)state;
    make_stale();
    lin_report_json(&result, 1500000000, &out);
    json_t *object = json_loadb((const char *)out.data, out.size, 0, NULL);
    assert_non_null(object);
    assert_string_equal(json_string_value(json_object_get(object, "verdict")), "NOT LINEARIZABLE");
    const json_t *failure = json_object_get(object, "failure");
    assert_int_equal(json_array_size(json_object_get(failure, "core")), 3);
    assert_string_equal(
        json_string_value(json_object_get(json_object_get(failure, "culprit"), "operation")),
        "get -> \"old <&>\"");
    assert_true(json_is_true(json_object_get(failure, "core_is_minimal")));
    json_decref(object);
}

static void test_report_picture_draws_each_operation(void **state)
{
    (void)state;
    make_stale();
    lin_report_svg(&result, &out);
    assert_well_formed();
    assert_int_equal(count_of("<g>"), 3);
    assert_int_equal(count_of("stroke-width=\"3\""), 1); /* the culprit */
    assert_says("old &lt;&amp;&gt;");
    assert_says(">process 1<");
    assert_says(">process 3<");
}

static void test_report_picture_of_open_operation_has_an_arrow(void **state)
{
    (void)state;
    add(LIN_PUT, 1, 10, 20, "a");
    add(LIN_PUT, 1, 30, LIN_NEVER, "b");
    add(LIN_GET, 1, 40, 50, "b"); /* the same process went on */
    add(LIN_GET, 2, 60, 70, "a");
    assert_int_equal(lin_check(history, &(struct lin_limits){.explain = true}, &result),
                     LIN_BROKEN);
    assert_int_equal(result.failure.core_count, 4);
    lin_report_svg(&result, &out);
    assert_well_formed();
    assert_int_equal(count_of("stroke-dasharray"), 1);
    assert_int_equal(count_of(">process 1<"), 2); /* two rows, for they overlap */
}

static void test_report_long_values_are_shortened(void **state)
{
    (void)state;
    char value[1000];
    memset(value, 'v', sizeof value);
    struct lin_op op = {.kind = LIN_CAS,
                        .observed = lin_value_of(value, sizeof value),
                        .argument = LIN_ABSENT,
                        .expected = 3};
    lin_describe_op(&op, &out);
    assert_says("...960 bytes...");
    assert_says(" -> nothing if version 3");
    assert_in_range(out.size, 1, 120);
}

static void test_report_other_verdicts_are_said(void **state)
{
    (void)state;
    add(LIN_PUT, 1, 10, 20, "a");
    assert_int_equal(lin_check(history, &(struct lin_limits){0}, &result), LIN_LINEARIZABLE);
    lin_report_text(&result, &out);
    assert_says("LINEARIZABLE; 1 operations, 1 of 1 keys");
    buf_clear(&out);
    lin_report_svg(&result, &out);
    assert_well_formed();
    lin_result_deinit(&result);
    buf_clear(&out);
    assert_int_equal(lin_check(history, &(struct lin_limits){.memory_bytes = 1}, &result),
                     LIN_UNKNOWN);
    lin_report_text(&result, &out);
    assert_says("UNKNOWN: the limit of memory was reached by the history itself");
    buf_clear(&out);
    lin_report_json(&result, 0, &out);
    assert_says("\"limit\":\"memory\"");
    buf_clear(&out);
    lin_report_svg(&result, &out);
    assert_well_formed();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_report_text_names_key_culprit_and_evidence, begin,
                                        end),
        cmocka_unit_test_setup_teardown(test_report_json_is_one_object, begin, end),
        cmocka_unit_test_setup_teardown(test_report_picture_draws_each_operation, begin, end),
        cmocka_unit_test_setup_teardown(test_report_picture_of_open_operation_has_an_arrow, begin,
                                        end),
        cmocka_unit_test_setup_teardown(test_report_long_values_are_shortened, begin, end),
        cmocka_unit_test_setup_teardown(test_report_other_verdicts_are_said, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
